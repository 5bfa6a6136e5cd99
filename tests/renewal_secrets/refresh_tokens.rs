//! What a provider needs besides its settings: refresh tokens that are replaced when they are used, tickets that are
//! pushed, the token of a parent, and quotas.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::common::fragile::Fragile;
use crate::common::rotating::*;
use crate::common::wait::*;
use evertoken::provider::{Grant, Identity, Profile, RenewalProfile};
use evertoken::store::{Expected, Key, Store};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, ErrorKind, EventKind, MemoryStore, Secret, TokenManager};

/// A provider that wants a ticket, and tells it in its token.
fn ticketed(fetches: usize) -> FakeProvider {
    let keeps = RenewalProfile::ticket(Identity::new("suite"), HOUR / 2);
    (0..fetches).fold(FakeProvider::new().with_renewal(keeps), |provider, at| {
        provider.then(move |context| match context.renewal_secret() {
            Some(ticket) => Ok(Grant::new(format!("{}-{at}", ticket.expose()), 2 * HOUR)),
            None => Err(Error::new(ErrorKind::TicketRequired, "there is no ticket")),
        })
    })
}

fn renewed(tokens: &TokenManager, clock: &FakeClock) -> Result<String, Error> {
    clock.advance(2 * HOUR);
    tokens.token().map(|token| token.expose().to_owned())
}

#[test]
fn each_refresh_token_is_used_once_by_one_manager() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let tokens = builder(&refreshing(&server), &clock).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    assert_eq!(renewed(&tokens, &clock).unwrap(), "token-2");
    assert_eq!(renewed(&tokens, &clock).unwrap(), "token-3");
    assert_eq!(server.shown(), ["refresh-0", "refresh-1", "refresh-2"]);
}

#[test]
fn managers_that_share_a_store_never_use_a_refresh_token_twice() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = MemoryStore::with_clock(clock.clone());
    let managers: Vec<_> =
        (0..4).map(|_| builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap()).collect();
    for round in 1..=5 {
        let got: Vec<_> = thread::scope(|scope| {
            let asking: Vec<_> = managers.iter().map(|manager| scope.spawn(|| text(manager))).collect();
            asking.into_iter().map(|asking| asking.join().unwrap()).collect()
        });
        assert_eq!(got, vec![format!("token-{round}"); 4]);
        clock.advance(2 * HOUR);
    }
    assert_eq!(server.shown(), (0..5).map(|at| format!("refresh-{at}")).collect::<Vec<_>>());
}

#[test]
fn a_refresh_token_is_stored_before_its_token_is_handed_out() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Fragile::on_clock(&clock);
    let first = builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap();
    // What follows the grant is only seen if it was stored before the record was.
    *store.unwritable.lock().unwrap() = Some("}");
    assert_eq!(text(&first), "token-1");
    *store.unwritable.lock().unwrap() = None;
    drop(first);
    // With the record, the end of the lease could not be written.
    clock.advance(SECOND * 30);
    let second = builder(&refreshing(&server), &clock).store(store).build().unwrap();
    assert_eq!(text(&second), "token-2");
    assert_eq!(server.shown(), ["refresh-0", "refresh-1"]);
}

#[test]
fn a_refresh_token_that_cannot_be_stored_stops_fetching_until_it_is() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Fragile::on_clock(&clock);
    let provider = refreshing(&server);
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
    assert_eq!(server.shown(), ["refresh-0", "refresh-1", "refresh-2"]);
}

#[test]
fn a_refresh_token_that_an_outage_left_in_memory_is_stored_when_the_store_is_back() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Fragile::on_clock(&clock);
    let broken = store.broken.clone();
    let provider = {
        let server = server.clone();
        FakeProvider::new().with_renewal(keeps()).then(move |context| {
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
    // Another process finds it, although nothing was fetched since.
    let another = builder(&refreshing(&server), &clock).store(store).build().unwrap();
    assert_eq!(renewed(&another, &clock).unwrap(), "token-2");
    assert_eq!(server.shown(), ["refresh-0", "refresh-1"]);
}

#[test]
fn without_the_store_no_refresh_token_is_used() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Fragile::on_clock(&clock);
    store.broken.store(true, Ordering::SeqCst);
    let provider = refreshing(&server);
    let tokens = builder(&provider, &clock).store(store.clone()).build().unwrap();
    let error = tokens.token().unwrap_err();
    assert_eq!((error.kind(), provider.calls()), (ErrorKind::Store, 0), "{error}");
    store.broken.store(false, Ordering::SeqCst);
    assert_eq!(renewed(&tokens, &clock).unwrap(), "token-1");
    // While the token it has is good, nobody notices.
    store.broken.store(true, Ordering::SeqCst);
    clock.advance(HOUR);
    assert_eq!(text(&tokens), "token-1");
}

#[test]
fn a_refresh_token_that_the_store_has_lost_is_stored_again() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Fragile::on_clock(&clock);
    let tokens = builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    let key = state_key(&store);
    store.inner.compare_and_swap(&key, Expected::Any, None).unwrap();
    assert_eq!(renewed(&tokens, &clock).unwrap(), "token-2");
    assert_eq!(server.shown(), ["refresh-0", "refresh-1"]);
}

/// The key of the state: whoever reads it asks for it.
fn state_key(store: &Fragile) -> Key {
    let asked = store.keys.lock().unwrap().clone();
    asked.into_iter().find(|key| key.as_str().ends_with(":state")).expect("somebody has asked for a state")
}

#[test]
fn a_refresh_token_that_somebody_else_used_meanwhile_is_asked_for_again() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Fragile::on_clock(&clock);
    let (first, second, third) = (server.clone(), server.clone(), server.clone());
    let meanwhile = store.clone();
    let provider = FakeProvider::new()
        .with_renewal(keeps())
        .then(move |context| first.grant(context))
        .then(move |context| {
            // Somebody who takes no turns.
            second.note_shown("refresh-1");
            let key = state_key(&meanwhile);
            let entry = meanwhile.inner.read(&key).unwrap().unwrap();
            let bytes = String::from_utf8(entry.bytes().to_vec()).unwrap();
            let bytes = bytes.replace("refresh-1", "refresh-2").replace(r#""number":1"#, r#""number":2"#);
            meanwhile.inner.compare_and_swap(&key, Expected::Any, Some((bytes.as_bytes(), entry.remaining()))).unwrap();
            // What it is asked with here is used up.
            assert_eq!(context.renewal_secret().unwrap().expose(), "refresh-1");
            Err(Error::new(ErrorKind::InvalidCredentials, "this refresh token was used before"))
        })
        .then(move |context| third.grant(context));
    let tokens = builder(&provider, &clock).store(store).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    assert_eq!(renewed(&tokens, &clock).unwrap(), "token-3");
    assert_eq!(server.shown(), ["refresh-0", "refresh-1", "refresh-2"]);
}

#[test]
fn a_refresh_token_is_not_guessed_when_the_stored_one_cannot_be_read() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Fragile::on_clock(&clock);
    let first = builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&first), "token-1");
    drop(first);
    clock.advance(2 * HOUR);
    let key = state_key(&store);
    for garbage in ["", "null", "refresh-7", r#"{"v":1,"id":"other","state":"refresh-7","number":7,"life_ms":9000000}"#]
    {
        store.inner.compare_and_swap(&key, Expected::Any, Some((garbage.as_bytes(), HOUR))).unwrap();
        let provider = refreshing(&server);
        let tokens = builder(&provider, &clock).store(store.clone()).build().unwrap();
        let error = tokens.token().unwrap_err();
        assert_eq!((error.kind(), provider.calls()), (ErrorKind::Store, 0), "{garbage}: {error}");
    }
}

#[test]
fn a_ticket_replaces_what_cannot_be_read() {
    let clock = FakeClock::new();
    let store = Fragile::on_clock(&clock);
    let tokens = builder(&ticketed(1), &clock).store(store.clone()).build().unwrap();
    tokens.set_ticket("ticket-1").unwrap();
    store.inner.compare_and_swap(&state_key(&store), Expected::Any, Some((b"garbage", HOUR))).unwrap();
    tokens.set_ticket("ticket-2").unwrap();
    let another = builder(&ticketed(1), &clock).store(store).build().unwrap();
    assert_eq!(text(&another), "ticket-2-0");
}

#[test]
fn a_ticket_that_is_handed_in_ends_the_pause_here_and_is_there_for_all() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let tokens = builder(&ticketed(3), &clock).store(store.clone()).build().unwrap();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TicketRequired);
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TicketRequired);
    tokens.set_ticket("ticket-1").unwrap();
    assert_eq!(text(&tokens), "ticket-1-1");
    assert!(tokens.status().renewal_secret_age.is_some());

    let corp = FakeProvider::new().with_identity(Identity::new("another corp"));
    let corp = corp.with_renewal(RenewalProfile::ticket(Identity::new("suite"), HOUR / 2));
    let corp = corp.then(|context| Ok(Grant::new(context.renewal_secret().unwrap().clone(), HOUR)));
    let corp = builder(&corp, &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&corp), "ticket-1", "all of one suite have the ticket");
    let elsewhere = builder(&corp_provider_without_a_ticket(), &clock).store(store).build().unwrap();
    assert_eq!(elsewhere.token().unwrap_err().kind(), ErrorKind::TicketRequired);
}

fn corp_provider_without_a_ticket() -> FakeProvider {
    let keeps = RenewalProfile::ticket(Identity::new("another suite"), HOUR / 2);
    FakeProvider::new().with_identity(Identity::new("a third")).with_renewal(keeps).then(|context| {
        assert!(context.renewal_secret().is_none());
        Err(Error::new(ErrorKind::TicketRequired, "there is no ticket"))
    })
}

#[test]
fn a_ticket_that_is_too_old_is_none() {
    for store in [false, true] {
        let clock = FakeClock::new();
        let memory = MemoryStore::with_clock(clock.clone());
        let tokens = builder(&ticketed(3), &clock);
        let tokens = if store { tokens.store(memory).build() } else { tokens.build() }.unwrap();
        tokens.set_ticket("ticket-1").unwrap();
        clock.advance(HOUR / 2);
        assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TicketRequired, "store: {store}");
        tokens.set_ticket("ticket-2").unwrap();
        assert_eq!(text(&tokens), "ticket-2-1");
    }
}

#[test]
fn the_latest_of_two_tickets_counts() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let one = builder(&ticketed(1), &clock).store(store.clone()).build().unwrap();
    let another = builder(&ticketed(1), &clock).store(store).build().unwrap();
    one.set_ticket("ticket-1").unwrap();
    another.set_ticket("ticket-2").unwrap();
    assert_eq!(text(&one), "ticket-2-0");
}

#[test]
fn a_ticket_works_while_the_store_does_not_and_is_stored_when_it_is_back() {
    let clock = FakeClock::new();
    let store = Fragile::on_clock(&clock);
    store.broken.store(true, Ordering::SeqCst);
    let tokens = builder(&ticketed(2), &clock).store(store.clone()).build().unwrap();
    assert_eq!(tokens.set_ticket("ticket-1").unwrap_err().kind(), ErrorKind::Store);
    assert_eq!(text(&tokens), "ticket-1-0");
    let events = tokens.events();
    store.broken.store(false, Ordering::SeqCst);
    clock.advance(SECOND * 5);
    wait_for(&events, |kind| matches!(kind, EventKind::StoreUp).then_some(()));
    let another = builder(&ticketed(2), &clock).store(store).build().unwrap();
    another.invalidate().unwrap();
    assert_eq!(text(&another), "ticket-1-0");
}

#[test]
fn a_ticket_for_a_provider_that_takes_none_is_a_mistake() {
    let plain = TokenManager::new(FakeProvider::new());
    assert_eq!(plain.set_ticket("ticket").unwrap_err().kind(), ErrorKind::Config);
    let rotating = TokenManager::new(refreshing(&Server::default()));
    assert_eq!(rotating.set_ticket("ticket").unwrap_err().kind(), ErrorKind::Config);
    let tokens = TokenManager::new(ticketed(0));
    for bad in ["", " ", &"x".repeat(4097)] {
        assert_eq!(tokens.set_ticket(bad).unwrap_err().kind(), ErrorKind::Config);
    }
}

#[test]
fn neither_status_nor_events_nor_debug_tell_a_state() {
    let clock = FakeClock::new();
    let tokens = builder(&ticketed(2), &clock).build().unwrap();
    let events = tokens.events();
    tokens.set_ticket("hunter2").unwrap();
    // The token has it in it, and is not told either.
    assert_eq!(text(&tokens), "hunter2-0");
    let told: Vec<_> = events.try_iter().map(|event| format!("{event} {event:?}")).collect();
    let shown = format!("{tokens:?} {} {:?} {told:?}", tokens.status(), tokens.status());
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// A parent with a new token for each fetch, and a child that tells its parent's token in its own.
fn derived(parent: &FakeProvider, clock: &FakeClock, refused: &'static [&'static str]) -> (TokenManager, TokenManager) {
    let parent = builder(parent, clock).build().unwrap();
    let child = (0..9).fold(FakeProvider::new().with_parent(parent.clone()), |child, at| {
        child.then(move |context| {
            let token = context.parent()?.expose().to_owned();
            if refused.contains(&token.as_str()) {
                return Err(Error::new(ErrorKind::TokenRejected, "the parent's token is refused"));
            }
            Ok(Grant::new(format!("{at}-of-{token}"), HOUR))
        })
    });
    (parent, builder(&child, clock).build().unwrap())
}

#[test]
fn a_derived_token_is_granted_for_its_parents() {
    let (clock, provider) = (FakeClock::new(), FakeProvider::new());
    let (_, child) = derived(&provider, &clock, &[]);
    assert_eq!(text(&child), "0-of-token-1");
    clock.advance(HOUR);
    assert_eq!(text(&child), "1-of-token-1", "the parent's token is still good");
    clock.advance(2 * HOUR);
    assert_eq!(text(&child), "2-of-token-2");
    assert_eq!(provider.calls(), 2);
}

#[test]
fn a_parents_token_that_is_refused_is_replaced_once() {
    let (clock, provider) = (FakeClock::new(), FakeProvider::new());
    let (parent, child) = derived(&provider, &clock, &["token-1"]);
    assert_eq!(text(&parent), "token-1");
    assert_eq!(text(&child), "1-of-token-2");
    assert_eq!((text(&parent), provider.calls()), ("token-2".into(), 2));

    let (clock, provider) = (FakeClock::new(), FakeProvider::new());
    let (parent, child) = derived(&provider, &clock, &["token-1", "token-2", "token-3"]);
    assert_eq!(child.token().unwrap_err().kind(), ErrorKind::TokenRejected);
    assert_eq!(child.token().unwrap_err().kind(), ErrorKind::TokenRejected, "no loop");
    assert_eq!(provider.calls(), 2);
    assert_eq!(text(&parent), "token-2", "the second is not rejected: there must be another reason");
}

#[test]
fn a_parent_without_a_token_is_its_childs_trouble() {
    let clock = FakeClock::new();
    let asked = Error::new(ErrorKind::Throttled, "too many").with_retry_after(SECOND * 77);
    let provider = FakeProvider::new().then_fail(asked);
    let (_, child) = derived(&provider, &clock, &[]);
    let error = child.token().unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Throttled, Some(SECOND * 77)));
    assert_eq!(error.to_string(), "fake: too many");
    clock.advance(SECOND * 77);
    assert_eq!(text(&child), "0-of-token-1");
}

#[test]
fn promise_5_a_parent_that_never_answers_does_not_hold_its_child() {
    let clock = FakeClock::new();
    let provider = FakeProvider::new().gated();
    let (_, child) = derived(&provider, &clock, &[]);
    assert_eq!(child.token_within(SECOND / 10).unwrap_err().kind(), ErrorKind::TimedOut);
    provider.open();
}

#[test]
fn a_forced_refresh_forces_a_provider_that_can_be_forced_as_often_as_it_may() {
    let clock = FakeClock::new();
    let forced = Arc::new(Mutex::new(Vec::new()));
    let profile = Profile::default().forced_quota(2).min_forced_interval(SECOND * 30);
    let provider = (0..9).fold(FakeProvider::new().with_profile(profile), |provider, at| {
        let forced = forced.clone();
        provider.then(move |context| {
            forced.lock().unwrap().push(context.is_forced());
            Ok(Grant::new(format!("t-{at}"), 2 * HOUR))
        })
    });
    let store = MemoryStore::with_clock(clock.clone());
    let manager = || builder(&provider, &clock).store(store.clone()).build().unwrap();
    let (one, another) = (manager(), manager());
    text(&one);
    one.force_refresh().unwrap();
    // Another process has forced it less than 30 s ago.
    text(&another);
    another.force_refresh().unwrap();
    clock.advance(SECOND * 30);
    another.force_refresh().unwrap();
    clock.advance(SECOND * 30);
    another.force_refresh().unwrap();
    assert_eq!(*forced.lock().unwrap(), [false, true, false, true, false]);
    let quota = another.status().quota.unwrap();
    assert_eq!((quota.calls, quota.forced, quota.forced_limit), (5, 2, Some(2)));
    assert!(another.status().to_string().contains("2 of 2 forced"), "{}", another.status());
    // A day after the first call it begins anew.
    clock.advance(HOUR * 24);
    another.force_refresh().unwrap();
    assert_eq!(forced.lock().unwrap().last(), Some(&true));
}

#[test]
fn a_rejected_token_that_is_granted_again_is_forced_away() {
    let clock = FakeClock::new();
    let profile = Profile::default().forced_quota(1).min_forced_interval(SECOND * 30);
    let provider = FakeProvider::new()
        .with_profile(profile)
        .then_grant("t-1", 2 * HOUR)
        .then_grant("t-1", 2 * HOUR)
        .then(|context| {
            assert!(context.is_forced());
            Ok(Grant::new("t-2", 2 * HOUR))
        })
        .then_grant("t-2", 2 * HOUR);
    let tokens = builder(&provider, &clock).build().unwrap();
    let first = tokens.token().unwrap();
    tokens.reject(&first).unwrap();
    let second = tokens.token().unwrap();
    assert_eq!(second.expose(), "t-2");
    // The quota is used up: it is granted again, and used again.
    tokens.reject(&second).unwrap();
    assert_eq!((text(&tokens), tokens.metrics().reinstated_tokens), ("t-2".into(), 1));
    assert_eq!(provider.calls(), 4);
}

#[test]
fn a_daily_quota_keeps_a_reserve_for_rejected_tokens() {
    let clock = FakeClock::new();
    let provider = FakeProvider::new().with_profile(Profile::default().daily_quota(4, 2)).lifetime(HOUR);
    let store = MemoryStore::with_clock(clock.clone());
    let manager = || builder(&provider, &clock).store(store.clone()).build().unwrap();
    let tokens = manager();
    text(&tokens);
    clock.advance(HOUR);
    assert_eq!(text(&tokens), "token-2");
    clock.advance(HOUR);
    for tokens in [&tokens, &manager()] {
        let error = tokens.token().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled, "{error}");
        assert_eq!(error.retry_after(), Some(HOUR), "no longer, to see whether it was raised");
    }
    assert_eq!(provider.calls(), 2);
    assert_eq!(tokens.status().quota.unwrap().calls_limit, Some(4));

    // A day after the first call there are new ones, and of these the reserve is for what was rejected.
    clock.advance(HOUR * 22);
    assert_eq!(text(&tokens), "token-3");
    clock.advance(HOUR / 2);
    let rejected = tokens.force_refresh().unwrap();
    assert_eq!(rejected.expose(), "token-4");
    assert_eq!(tokens.force_refresh().unwrap_err().kind(), ErrorKind::Throttled);
    tokens.invalidate().unwrap();
    let _ = tokens.reject(&rejected);
    assert_eq!(text(&tokens), "token-5");
}

#[test]
fn what_a_provider_wants_renewed_sooner_is_renewed_sooner_by_those_who_adopt_it_too() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let provider = FakeProvider::new()
        .then(|_| Ok(Grant::new("t-1", HOUR * 24).with_refresh_in(HOUR * 12)))
        .then_grant("t-2", HOUR * 24);
    let manager = || builder(&provider, &clock).store(store.clone()).build().unwrap();
    let (one, another) = (manager(), manager());
    assert_eq!((text(&one), text(&another)), ("t-1".into(), "t-1".into()));
    assert_eq!(another.status().refresh_in, Some(HOUR * 12));
    drop(one);
    let events = another.events();
    text(&another);
    clock.advance(HOUR * 12);
    wait_for_grant(&events);
    assert_eq!(text(&another), "t-2");
}

#[test]
fn a_secret_that_came_as_a_state_is_a_secret() {
    let grant = Grant::new("t", HOUR).with_renewal_secret(Secret::from("hunter2"));
    assert!(!format!("{grant:?}").contains("hunter2"));
}

#[test]
fn a_refresh_token_that_came_with_a_useless_token_is_kept() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let (first, then) = (server.clone(), server.clone());
    let provider = FakeProvider::new()
        .with_renewal(keeps())
        .then(move |context| {
            Ok(Grant::new("not a token", HOUR).with_renewal_secret(first.grant(context)?.renewal_secret().unwrap()))
        })
        .then(move |context| then.grant(context));
    let tokens = builder(&provider, &clock).store(MemoryStore::with_clock(clock.clone())).build().unwrap();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::InvalidResponse);
    assert_eq!(renewed(&tokens, &clock).unwrap(), "token-2");
    assert_eq!(server.shown(), ["refresh-0", "refresh-1"]);
}
