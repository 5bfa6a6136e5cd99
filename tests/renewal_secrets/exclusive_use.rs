//! A refresh token is used by one fetch at a time. A lock in the store excludes other managers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use evertoken::provider::{Identity, Profile};
use evertoken::testing::{FakeClock, FakeProvider, FakeVendor};
use evertoken::{Error, ErrorKind, HttpConfig, MemoryStore, OAuth2, RefreshToken, TokenManager};

use crate::common::renewal::*;
use crate::common::stores::*;
use crate::common::wait::*;

/// All records of a client share the refresh token (the scope is not part of its identity) but not the lease. Without
/// the lock, two managers with different scopes, or one with a custom key, would use one refresh token at the same
/// time.
#[test]
fn managers_with_different_scopes_do_not_use_one_refresh_token_at_the_same_time() {
    use_at_once(false);
}

/// As above, where one of the two has a custom key.
#[test]
fn managers_with_different_keys_do_not_use_one_refresh_token_at_the_same_time() {
    use_at_once(true);
}

fn use_at_once(own_key: bool) {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = MemoryStore::with_clock(clock.clone());
    let (entered, has_entered) = bounded(1);
    let (go, may_go) = bounded(1);
    let slow = server.clone();
    let first = FakeProvider::new().with_renewal(rotating_profile()).then(move |context| {
        entered.send(()).unwrap();
        let _ = may_go.recv_timeout(SECOND * 3);
        slow.grant(context)
    });
    let identity = if own_key { "fake" } else { "another scope" };
    let second = rotating_provider(&server).with_identity(Identity::new(identity));
    let one = builder(&first, &clock).store(store.clone()).build().unwrap();
    let another = builder(&second, &clock).store(store);
    let another = if own_key { another.key("a-key-of-my-own") } else { another }.build().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| one.token());
        has_entered.recv().unwrap();
        let asking = scope.spawn(|| another.token());
        let asked = Instant::now();
        while !asking.is_finished() && asked.elapsed() < SECOND {
            thread::yield_now();
        }
        go.send(()).unwrap();
    });
    assert!(!server.used_twice(), "own key: {own_key}: {:?}", server.presented());
}

/// As above with the real provider and a strict server, which would end the sign-in.
#[test]
fn two_scopes_of_one_refresh_token_do_not_end_the_sign_in() {
    let host = FakeVendor::oauth2().delay(SECOND / 2);
    let store = MemoryStore::new();
    let manager = |scope: &str| {
        let client = OAuth2::public(host.token_url(), "client").scope(scope);
        TokenManager::builder(RefreshToken::new(client, "refresh-1")).store(store.clone()).build().unwrap()
    };
    let (mail, files) = (manager("mail"), manager("files"));
    let (one, another) = thread::scope(|scope| {
        let one = scope.spawn(|| mail.token());
        let another = scope.spawn(|| files.token());
        (one.join().unwrap(), another.join().unwrap())
    });
    let used = host.used_refresh_tokens();
    assert!(one.is_ok() && another.is_ok(), "{:?} {:?} {used:?}", one.err(), another.err());
}

/// Without a store, an abandoned fetch returns with an older refresh token, which must not replace the newer one.
#[test]
fn an_abandoned_fetch_does_not_bring_back_an_older_refresh_token() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let (go, may_go) = bounded::<()>(0);
    let (slow, graceful, last) = (server.clone(), server.clone(), server.clone());
    let shown = Arc::new(Mutex::new(String::new()));
    let seen = shown.clone();
    let provider = FakeProvider::new()
        .with_renewal(rotating_profile())
        .then(move |context| {
            let grant = slow.grant_within_grace(context);
            let _ = may_go.recv_timeout(SECOND * 20);
            grant
        })
        .then(move |context| graceful.grant_within_grace(context))
        .then(move |context| {
            *seen.lock().unwrap() = context.renewal_secret().unwrap().expose().to_owned();
            last.grant_within_grace(context)
        });
    let http = HttpConfig::default().timeout(SECOND / 10);
    let tokens = builder(&provider, &clock).http(http).build().unwrap();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::Unavailable);
    clock.advance(SECOND * 60);
    // No other fetch starts as long as the abandoned one may be running.
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::Store);
    assert_eq!(provider.calls(), 1);
    go.send(()).unwrap();
    eventually("the abandoned fetch has returned", || {
        clock.advance(SECOND * 60);
        tokens.force_refresh().is_ok_and(|token| token.expose() == "token-2")
    });
    tokens.force_refresh().unwrap();
    assert_eq!(*shown.lock().unwrap(), "refresh-2");
}

/// A fetch that ignores its deadline is abandoned. The next fetch of the same manager has the same lease owner, and
/// must not use the same refresh token at the same time.
#[test]
fn a_refresh_token_of_an_abandoned_fetch_is_not_used_by_the_next_fetch() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let (go, may_go) = bounded::<()>(0);
    let (slow, next, last) = (server.clone(), server.clone(), server.clone());
    let provider = FakeProvider::new()
        .with_renewal(rotating_profile())
        .then(move |context| {
            let grant = slow.grant(context);
            let _ = may_go.recv_timeout(SECOND * 20);
            grant
        })
        .then(move |context| next.grant(context))
        .then(move |context| last.grant(context));
    let http = HttpConfig::default().timeout(SECOND / 10);
    let store = MemoryStore::with_clock(clock.clone());
    let tokens = builder(&provider, &clock).http(http).store(store).build().unwrap();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::Unavailable);
    clock.advance(SECOND * 60);
    let _ = tokens.token();
    go.send(()).unwrap();
    assert!(!server.used_twice(), "{:?}", server.presented());
}

/// Slow store operations before the fetch use up its time. The provider must not be called with no time left and with a
/// lock that is about to expire: providers that ignore the deadline would use the refresh token.
#[test]
fn a_provider_is_not_called_after_the_deadline_of_the_fetch() {
    let clock = FakeClock::new();
    let store = HookedStore::on_clock(&clock);
    store.before_write(|key, _| {
        if key.as_str().ends_with(":quota") {
            thread::sleep(SECOND / 3);
        }
        Ok(())
    });
    let provider =
        FakeProvider::new().with_profile(Profile::default().daily_quota(9, 1)).with_renewal(rotating_profile());
    let http = HttpConfig::default().timeout(SECOND / 10);
    let tokens = builder(&provider, &clock).http(http).store(store).build().unwrap();
    let _ = tokens.token();
    assert_eq!(provider.calls(), 0);
}

/// A manager that waited for the lock has little time left. The server would accept the refresh token, the response
/// would come too late, and the next refresh token would be lost.
#[test]
fn a_refresh_token_is_not_used_with_too_little_time_left_for_the_response() {
    let server = RotatingServer::default();
    let store = MemoryStore::new();
    let (slow, quick) = (server.clone(), server.clone());
    let (entered, has_entered) = bounded(1);
    let first = FakeProvider::new().with_renewal(rotating_profile()).then(move |context| {
        entered.send(()).unwrap();
        thread::sleep(Duration::from_millis(1700));
        slow.grant(context)
    });
    // A server that takes half a second for a response, a quarter of the time limit.
    let second = repeating(rotating_profile(), move |context| {
        let grant = quick.grant(context);
        let time = Duration::from_millis(500);
        thread::sleep(time.min(context.remaining()));
        if context.remaining().is_zero() { Err(Error::new(ErrorKind::TimedOut, "no answer")) } else { grant }
    });
    let second = second.with_identity(Identity::new("another scope"));
    let manager = |provider: FakeProvider| {
        let http = HttpConfig::default().timeout(SECOND * 2);
        TokenManager::builder(provider).http(http).store(store.clone()).build().unwrap()
    };
    let (one, another) = (manager(first), manager(second));
    thread::scope(|scope| {
        scope.spawn(|| one.token());
        has_entered.recv().unwrap();
        let _ = another.token();
    });
    let asked = Instant::now();
    let mut got = another.token();
    while got.is_err() && asked.elapsed() < SECOND * 8 {
        thread::sleep(SECOND / 4);
        got = another.token();
    }
    assert!(got.is_ok(), "{:?}: {}", server.presented(), got.unwrap_err());
}

/// The lock lasts a second longer than the fetch, but the read and the write that follow may take two.
#[test]
fn the_lock_on_a_refresh_token_is_kept_until_the_next_one_is_stored() {
    let server = RotatingServer::default();
    let memory = MemoryStore::new();
    let store = HookedStore::over(&memory);
    let slow_down = Arc::new(AtomicBool::new(false));
    let is_slow = slow_down.clone();
    store.set_hook(move |key, step| {
        if key.as_str().ends_with(":state")
            && is_slow.load(Ordering::SeqCst)
            && matches!(step, Step::BeforeRead | Step::BeforeWrite(_))
        {
            thread::sleep(Duration::from_millis(850));
        }
        Ok(())
    });
    let granting = server.clone();
    let (entered, has_entered) = bounded(1);
    let first = FakeProvider::new().with_renewal(rotating_profile()).then(move |context| {
        entered.send(()).unwrap();
        thread::sleep(Duration::from_millis(850));
        slow_down.store(true, Ordering::SeqCst);
        granting.grant(context)
    });
    let one = TokenManager::builder(first).http(HttpConfig::default().timeout(SECOND)).store(store).build().unwrap();
    another_scope_asks_during_the_fetch(&server, &one, memory, &has_entered);
}

/// The confirmation of the first write of the lock is lost although the write took effect. The manager has to recognize
/// its own lock.
#[test]
fn a_lock_whose_confirmation_was_lost_is_recognized() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = HookedStore::over(&MemoryStore::with_clock(clock.clone()));
    let failed = Arc::new(AtomicUsize::new(0));
    let failures = failed.clone();
    store.set_hook(move |key, step| {
        let fails = step == Step::AfterWrite
            && key.as_str().ends_with(":state:lock")
            && failures.fetch_add(1, Ordering::SeqCst) == 0;
        if fails { Err(store_error()) } else { Ok(()) }
    });
    let http = HttpConfig::default().timeout(SECOND * 2);
    let tokens = builder(&rotating_provider(&server), &clock).http(http).store(store.clone()).build().unwrap();
    let _ = tokens.token();
    // The cooldown of the store and of the fetch, but not the lock.
    clock.advance(Duration::from_millis(1500));
    let asked = Instant::now();
    let got = tokens.token();
    assert!(failed.load(Ordering::SeqCst) > 0, "{:?}", store.keys.lock().unwrap());
    assert!(got.is_ok(), "after {:?}: {}", asked.elapsed(), got.unwrap_err());
}

/// The number of store operations of a fetch without a renewal secret and a quota.
#[test]
fn a_fetch_without_renewal_secret_and_quota_adds_no_store_operations() {
    let clock = FakeClock::new();
    let store = HookedStore::over(&MemoryStore::with_clock(clock.clone()));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    store.set_hook(move |_, step| {
        counted.fetch_add(usize::from(matches!(step, Step::BeforeRead | Step::BeforeWrite(_))), Ordering::SeqCst);
        Ok(())
    });
    let tokens = builder(&FakeProvider::new(), &clock).store(store).build().unwrap();
    text(&tokens);
    let got = count.load(Ordering::SeqCst);
    assert!(got <= 6, "{got} reads and writes");
}

/// One process cannot reach the store just when it has the next refresh token, for less time than its lock lasts. The
/// store breaker would keep it from writing for longer than the lock lasts.
#[test]
fn a_store_fault_shorter_than_the_lock_does_not_end_the_sign_in() {
    let server = RotatingServer::default();
    let memory = MemoryStore::new();
    let store = HookedStore::over(&memory);
    let cut_off: Arc<Mutex<Option<Instant>>> = Arc::default();
    let since = cut_off.clone();
    store.set_hook(move |_, _| {
        let is_off = since.lock().unwrap().is_some_and(|since| since.elapsed() < SECOND * 5 / 2);
        if is_off { Err(store_error()) } else { Ok(()) }
    });
    let granting = server.clone();
    let (entered, has_entered) = bounded(1);
    let first = FakeProvider::new().with_renewal(rotating_profile()).then(move |context| {
        entered.send(()).unwrap();
        *cut_off.lock().unwrap() = Some(Instant::now());
        granting.grant(context)
    });
    let http = HttpConfig::default().timeout(SECOND * 2);
    let one = TokenManager::builder(first).http(http).store(store).build().unwrap();
    another_scope_asks_during_the_fetch(&server, &one, memory, &has_entered);
}

/// A fetch of one process hangs. Its own error ("has not returned") must not be recorded as a failure of all processes.
#[test]
fn a_fetch_that_hangs_in_one_process_does_not_fail_the_others() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = MemoryStore::with_clock(clock.clone());
    let (_go, may_go) = bounded::<()>(1);
    let hanging = FakeProvider::new().with_renewal(rotating_profile()).then(move |_| {
        let _ = may_go.recv_timeout(SECOND * 60);
        Err(Error::new(ErrorKind::TimedOut, "it never came to ask"))
    });
    let http = HttpConfig::default().timeout(SECOND / 10);
    let one = builder(&hanging, &clock).http(http).store(store.clone()).build().unwrap();
    let another = builder(&rotating_provider(&server), &clock).store(store).build().unwrap();
    assert_eq!(one.token().unwrap_err().kind(), ErrorKind::Unavailable);
    // The lease, the lock and the cooldown have expired.
    clock.advance(SECOND * 60);
    let failure = one.token().unwrap_err();
    let got = another.token();
    assert!(got.is_ok(), "the one: {failure}; the other: {}", got.unwrap_err());
}

/// A lock that is kept because the refresh token could not be stored is released when that is stored.
#[test]
fn the_lock_that_was_kept_for_an_unstored_refresh_token_ends_when_it_is_stored() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = HookedStore::over(&MemoryStore::with_clock(clock.clone()));
    let failures = AtomicUsize::new(0);
    store.set_hook(move |key, step| {
        let fails = matches!(step, Step::BeforeWrite(_))
            && key.as_str().ends_with(":state")
            && failures.fetch_add(1, Ordering::SeqCst) == 0;
        if fails { Err(store_error()) } else { Ok(()) }
    });
    let http = HttpConfig::default().timeout(SECOND * 2);
    let tokens = builder(&rotating_provider(&server), &clock).http(http).store(store.clone()).build().unwrap();
    text(&tokens);
    clock.advance(Duration::from_millis(1300));
    eventually("the renewal secret is stored", || {
        store.renewal_secret_text().contains("refresh-1") && !tokens.status().fetching
    });
    let asked = Instant::now();
    let got = tokens.force_refresh();
    assert!(got.is_ok(), "after {:?}: {}", asked.elapsed(), got.unwrap_err());
}

/// A manager with another scope asks while `one` fetches. Both together do not use a refresh token twice.
fn another_scope_asks_during_the_fetch(
    server: &RotatingServer,
    one: &TokenManager,
    store: MemoryStore,
    has_entered: &Receiver<()>,
) {
    let second = rotating_provider(server).with_identity(Identity::new("another scope"));
    let another = TokenManager::builder(second).store(store).build().unwrap();
    let (got, got_too) = thread::scope(|scope| {
        let got = scope.spawn(|| one.token());
        has_entered.recv().unwrap();
        (another.token(), got.join().unwrap())
    });
    assert!(!server.used_twice(), "{:?} {:?} {:?}", server.presented(), got.is_ok(), got_too.is_ok());
}
