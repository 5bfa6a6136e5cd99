//! Refresh tokens that the server replaces at each use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use evertoken::provider::Grant;
use evertoken::store::{Expected, Store};
use evertoken::testing::{FakeClock, FakeProvider, FakeVendor};
use evertoken::{Error, ErrorKind, EventKind, MemoryStore, OAuth2, RefreshToken, Secret, TokenManager};

use crate::common::renewal::*;
use crate::common::stores::*;
use crate::common::wait::*;

fn renewed(tokens: &TokenManager, clock: &FakeClock) -> Result<String, Error> {
    clock.advance(2 * HOUR);
    tokens.token().map(|token| token.expose().to_owned())
}

#[test]
fn one_manager_uses_each_refresh_token_once() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let tokens = builder(&rotating_provider(&server), &clock).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    assert_eq!(renewed(&tokens, &clock).unwrap(), "token-2");
    assert_eq!(renewed(&tokens, &clock).unwrap(), "token-3");
    assert_eq!(server.presented(), ["refresh-0", "refresh-1", "refresh-2"]);
}

#[test]
fn managers_that_share_a_store_never_use_a_refresh_token_twice() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = MemoryStore::with_clock(clock.clone());
    let managers: Vec<_> =
        (0..4).map(|_| builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap()).collect();
    for round in 1..=5 {
        let got: Vec<_> = thread::scope(|scope| {
            let asking: Vec<_> = managers.iter().map(|manager| scope.spawn(|| text(manager))).collect();
            asking.into_iter().map(|asking| asking.join().unwrap()).collect()
        });
        assert_eq!(got, vec![format!("token-{round}"); 4]);
        clock.advance(2 * HOUR);
    }
    assert_eq!(server.presented(), (0..5).map(|at| format!("refresh-{at}")).collect::<Vec<_>>());
}

#[test]
fn a_refresh_token_is_stored_before_its_access_token_is_returned() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = FaultyStore::on_clock(&clock);
    let first = builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap();
    // The record cannot be written, so later steps succeed only if the refresh token was stored first.
    *store.unwritable.lock().unwrap() = Some("}");
    assert_eq!(text(&first), "token-1");
    *store.unwritable.lock().unwrap() = None;
    drop(first);
    // Neither the record nor the release of the lease could be written.
    clock.advance(SECOND * 30);
    let second = builder(&rotating_provider(&server), &clock).store(store).build().unwrap();
    assert_eq!(text(&second), "token-2");
    assert_eq!(server.presented(), ["refresh-0", "refresh-1"]);
}

#[test]
fn a_refresh_token_that_cannot_be_stored_stops_fetching_until_it_is() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = FaultyStore::on_clock(&clock);
    let provider = rotating_provider(&server);
    let tokens = builder(&provider, &clock).store(store.clone()).build().unwrap();
    let events = tokens.events();
    *store.unwritable.lock().unwrap() = Some(":state");
    assert_eq!(text(&tokens), "token-1", "what was granted is handed out");
    wait_for(&events, |kind| matches!(kind, EventKind::RenewalSecretNotStored { .. }).then_some(()));

    for _ in 0..3 {
        let error = renewed(&tokens, &clock).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Store, "{error}");
    }
    assert_eq!(provider.calls(), 1);

    *store.unwritable.lock().unwrap() = None;
    assert_eq!(renewed(&tokens, &clock).unwrap(), "token-2");
    let another = builder(&provider, &clock).store(store).build().unwrap();
    assert_eq!(renewed(&another, &clock).unwrap(), "token-3");
    assert_eq!(server.presented(), ["refresh-0", "refresh-1", "refresh-2"]);
}

#[test]
fn a_refresh_token_that_an_outage_left_in_memory_is_stored_when_the_store_is_back() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = FaultyStore::on_clock(&clock);
    let broken = store.broken.clone();
    let provider = {
        let server = server.clone();
        FakeProvider::new().with_renewal(rotating_profile()).then(move |context| {
            broken.store(true, Ordering::SeqCst);
            server.grant(context)
        })
    };
    let tokens = builder(&provider, &clock).store(store.clone()).build().unwrap();
    let events = tokens.events();
    assert_eq!(text(&tokens), "token-1");
    store.broken.store(false, Ordering::SeqCst);
    clock.advance(SECOND * 5);
    wait_for(&events, |kind| matches!(kind, EventKind::StoreUp).then_some(()));
    eventually("the token is recorded too", || store.inner.read(tokens.key()).unwrap().is_some());
    drop(tokens);
    // Another process reads the stored refresh token, although no fetch happened since.
    let another = builder(&rotating_provider(&server), &clock).store(store).build().unwrap();
    assert_eq!(renewed(&another, &clock).unwrap(), "token-2");
    assert_eq!(server.presented(), ["refresh-0", "refresh-1"]);
}

#[test]
fn without_the_store_no_refresh_token_is_used() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = FaultyStore::on_clock(&clock);
    store.broken.store(true, Ordering::SeqCst);
    let provider = rotating_provider(&server);
    let tokens = builder(&provider, &clock).store(store.clone()).build().unwrap();
    let error = tokens.token().unwrap_err();
    assert_eq!((error.kind(), provider.calls()), (ErrorKind::Store, 0), "{error}");
    store.broken.store(false, Ordering::SeqCst);
    assert_eq!(renewed(&tokens, &clock).unwrap(), "token-1");
    // The fault has no effect as long as the access token is valid.
    store.broken.store(true, Ordering::SeqCst);
    clock.advance(HOUR);
    assert_eq!(text(&tokens), "token-1");
}

#[test]
fn a_refresh_token_that_the_store_has_lost_is_stored_again() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = FaultyStore::on_clock(&clock);
    let tokens = builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    let key = renewal_secret_key(&store);
    store.inner.compare_and_swap(&key, Expected::Any, None).unwrap();
    assert_eq!(renewed(&tokens, &clock).unwrap(), "token-2");
    assert_eq!(server.presented(), ["refresh-0", "refresh-1"]);
}

#[test]
fn a_refresh_token_used_by_another_program_meanwhile_is_read_again() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = FaultyStore::on_clock(&clock);
    let (first, second, third) = (server.clone(), server.clone(), server.clone());
    let meanwhile = store.clone();
    let provider = FakeProvider::new()
        .with_renewal(rotating_profile())
        .then(move |context| first.grant(context))
        .then(move |context| {
            // A program that ignores the lock.
            second.record_use("refresh-1");
            let key = renewal_secret_key(&meanwhile);
            let entry = meanwhile.inner.read(&key).unwrap().unwrap();
            let bytes = String::from_utf8(entry.bytes().to_vec()).unwrap();
            let bytes = bytes.replace("refresh-1", "refresh-2").replace(r#""number":1"#, r#""number":2"#);
            meanwhile.inner.compare_and_swap(&key, Expected::Any, Some((bytes.as_bytes(), entry.remaining()))).unwrap();
            // The given refresh token has been used.
            assert_eq!(context.renewal_secret().unwrap().expose(), "refresh-1");
            Err(Error::new(ErrorKind::InvalidCredentials, "this refresh token was used before"))
        })
        .then(move |context| third.grant(context));
    let tokens = builder(&provider, &clock).store(store).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    assert_eq!(renewed(&tokens, &clock).unwrap(), "token-3");
    assert_eq!(server.presented(), ["refresh-0", "refresh-1", "refresh-2"]);
}

#[test]
fn an_unreadable_refresh_token_stops_fetching() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = FaultyStore::on_clock(&clock);
    let first = builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&first), "token-1");
    drop(first);
    clock.advance(2 * HOUR);
    let key = renewal_secret_key(&store);
    for garbage in ["", "null", "refresh-7", r#"{"v":1,"id":"other","state":"refresh-7","number":7,"life_ms":9000000}"#]
    {
        store.inner.compare_and_swap(&key, Expected::Any, Some((garbage.as_bytes(), HOUR))).unwrap();
        let provider = rotating_provider(&server);
        let tokens = builder(&provider, &clock).store(store.clone()).build().unwrap();
        let error = tokens.token().unwrap_err();
        assert_eq!((error.kind(), provider.calls()), (ErrorKind::Store, 0), "{garbage}: {error}");
    }
}

#[test]
fn a_renewal_secret_is_a_secret() {
    let grant = Grant::new("t", HOUR).with_renewal_secret(Secret::from("hunter2"));
    assert!(!format!("{grant:?}").contains("hunter2"));
}

#[test]
fn a_refresh_token_that_came_with_an_invalid_access_token_is_kept() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let (first, then) = (server.clone(), server.clone());
    let provider = FakeProvider::new()
        .with_renewal(rotating_profile())
        .then(move |context| {
            Ok(Grant::new("not a token", HOUR).with_renewal_secret(first.grant(context)?.renewal_secret().unwrap()))
        })
        .then(move |context| then.grant(context));
    let tokens = builder(&provider, &clock).store(MemoryStore::with_clock(clock.clone())).build().unwrap();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::InvalidResponse);
    assert_eq!(renewed(&tokens, &clock).unwrap(), "token-2");
    assert_eq!(server.presented(), ["refresh-0", "refresh-1"]);
}

/// A program may end as soon as it has its token, so an unstored refresh token would be lost.
#[test]
fn a_refresh_token_is_stored_first_although_the_store_takes_more_than_a_second() {
    let (store, host) = (HookedStore::over(&MemoryStore::new()), FakeVendor::oauth2());
    let is_written = Arc::new(AtomicBool::new(false));
    let written = is_written.clone();
    store.set_hook(move |key, step| {
        match step {
            Step::BeforeWrite(_) if key.as_str().ends_with(":state") => thread::sleep(Duration::from_millis(1_200)),
            Step::AfterWrite if key.as_str().ends_with(":state") => written.store(true, Ordering::SeqCst),
            _ => {}
        }
        Ok(())
    });
    let client = OAuth2::new(host.token_url(), "client", "secret");
    let tokens = TokenManager::builder(RefreshToken::new(client, "refresh-1")).store(store.clone()).build().unwrap();
    text(&tokens);
    assert!(is_written.load(Ordering::SeqCst));
}
