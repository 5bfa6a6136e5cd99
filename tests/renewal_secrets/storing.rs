//! A new refresh token is stored whatever fails, and an older one never replaces a newer one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use evertoken::store::{Entry, Expected, Store};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{EventKind, MemoryStore};

use crate::common::renewal::*;
use crate::common::stores::*;
use crate::common::wait::*;

/// One write of the refresh token fails, and the store is back at once. The record is published and the lease freed all
/// the same, so the next process must not use the old refresh token.
#[test]
fn after_one_failed_write_no_other_process_uses_the_old_refresh_token() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = HookedStore::on_clock(&clock);
    let failures = AtomicUsize::new(0);
    store.before_write(move |key, _| {
        let fails = key.as_str().ends_with(":state") && failures.fetch_add(1, Ordering::SeqCst) == 0;
        if fails { Err(store_error()) } else { Ok(()) }
    });
    let one = builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap();
    let another = builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap();
    assert_eq!((text(&one), text(&another)), ("token-1".into(), "token-1".into()));
    let _ = another.force_refresh();
    assert!(!server.used_twice(), "{:?}", server.presented());
}

/// As above with an unusable access token: the scheduler has no token to watch, and has to store the refresh token all
/// the same.
#[test]
fn a_refresh_token_without_an_access_token_is_stored_when_the_store_is_back() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = HookedStore::on_clock(&clock);
    store.before_write(|key, _| if key.as_str().ends_with(":state") { Err(store_error()) } else { Ok(()) });
    let tokens = builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap();
    let token = tokens.token().unwrap();
    store.remove_hook();
    tokens.reject(&token).unwrap();
    assert!(
        becomes_so(&clock, SECOND * 5, || store.renewal_secret().is_some()),
        "it is in the memory of one process only"
    );
}

/// The last handle is dropped while a refresh token is not stored.
#[test]
fn an_unstored_refresh_token_survives_the_last_handle() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = HookedStore::on_clock(&clock);
    store.before_write(|key, _| if key.as_str().ends_with(":state") { Err(store_error()) } else { Ok(()) });
    let tokens = builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap();
    text(&tokens);
    store.remove_hook();
    drop(tokens);
    assert!(becomes_so(&clock, SECOND * 5, || store.renewal_secret().is_some()), "the refresh token is lost");
}

/// As above with `shutdown`.
#[test]
fn an_unstored_refresh_token_survives_a_shutdown() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = HookedStore::on_clock(&clock);
    store.before_write(|key, _| if key.as_str().ends_with(":state") { Err(store_error()) } else { Ok(()) });
    let tokens = builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap();
    text(&tokens);
    store.remove_hook();
    tokens.shutdown(SECOND);
    assert!(becomes_so(&clock, SECOND * 5, || store.renewal_secret().is_some()), "the refresh token is lost");
}

/// The store falls back to an older refresh token, as after a failover that lost a write. The manager with the newer
/// one stores that again.
#[test]
fn after_a_failover_an_older_refresh_token_does_not_replace_a_newer_one() {
    fall_back(false);
}

/// As above, when the newer one is not stored yet.
#[test]
fn after_a_failover_an_older_refresh_token_does_not_replace_an_unstored_newer_one() {
    fall_back(true);
}

fn fall_back(unsaved: bool) {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = HookedStore::on_clock(&clock);
    let tokens = builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    let before = store.renewal_secret().unwrap();
    clock.advance(2 * HOUR);
    assert_eq!(text(&tokens), "token-2");
    if unsaved {
        clock.advance(2 * HOUR);
        store.before_write(|key, _| if key.as_str().ends_with(":state") { Err(store_error()) } else { Ok(()) });
        assert_eq!(text(&tokens), "token-3");
        store.remove_hook();
    }
    let gone = clock_lifetime(&before, if unsaved { 4 * HOUR } else { 2 * HOUR });
    store.inner.compare_and_swap(&store.key(":state"), Expected::Any, Some((before.bytes(), gone))).unwrap();
    clock.advance(2 * HOUR);
    let _ = tokens.token();
    assert!(!server.used_twice(), "unsaved: {unsaved}: {:?}", server.presented());
}

fn clock_lifetime(entry: &Entry, passed: Duration) -> Duration {
    entry.remaining() - passed
}

/// The store loses its keys. A manager that has only adopted records since its last fetch must not store its old
/// refresh token again, because another process has used it since.
#[test]
fn after_a_flush_no_manager_stores_a_used_refresh_token() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = HookedStore::on_clock(&clock);
    let old = builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap();
    let new = builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&old), "token-1");
    clock.advance(2 * HOUR);
    assert_eq!((text(&new), text(&old)), ("token-2".into(), "token-2".into()));
    // Both managers run, and one of them has the latest refresh token.
    let key = store.key(":state");
    store.inner.compare_and_swap(&key, Expected::Any, None).unwrap();
    let _ = old.force_refresh();
    assert!(!server.used_twice(), "{:?}", server.presented());
}

/// A Redis whose clock was set back by two seconds, or a replica that is two seconds behind, reports a longer remaining
/// time than was written. The refresh token is still used, and not the first one.
#[test]
fn a_refresh_token_is_used_although_the_store_reports_a_longer_lifetime_than_it_was_given() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = HookedStore::on_clock(&clock);
    let one = builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&one), "token-1");
    let state = store.renewal_secret().unwrap();
    let fresh = || builder(&rotating_provider(&server), &clock).store(store.clone()).build().unwrap();
    let life = state.remaining() + SECOND * 2;
    store.inner.compare_and_swap(&store.key(":state"), Expected::Any, Some((state.bytes(), life))).unwrap();
    let another = fresh();
    assert_eq!(text(&another), "token-1");
    let _ = another.force_refresh();
    assert!(!server.used_twice(), "{:?}", server.presented());
}

/// A write of a refresh token hangs, and takes effect when other processes have newer ones: it was to replace one
/// version only.
#[test]
fn a_late_write_of_a_refresh_token_does_not_replace_a_newer_one() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = HookedStore::on_clock(&clock);
    let (go, may_go) = bounded::<()>(0);
    let (landing, lands) = bounded(1);
    let hung = AtomicBool::new(false);
    store.before_write(move |key, _| {
        if key.as_str().ends_with(":state") && !hung.swap(true, Ordering::SeqCst) {
            let _ = may_go.recv_timeout(SECOND * 20);
            let _ = landing.send(());
        }
        Ok(())
    });
    let graceful = |server: &RotatingServer| {
        (0..9).fold(FakeProvider::new().with_renewal(rotating_profile()), |provider, _| {
            let server = server.clone();
            provider.then(move |context| server.grant_within_grace(context))
        })
    };
    let late = builder(&graceful(&server), &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&late), "token-1", "its refresh token is not stored yet");
    // The lease has expired.
    clock.advance(SECOND * 30);
    let other = builder(&graceful(&server), &clock).store(store.clone()).build().unwrap();
    other.token().unwrap();
    other.force_refresh().unwrap();
    let newest = store.renewal_secret_text();
    assert!(newest.contains("refresh-3") || newest.contains("refresh-2"), "{newest}");
    go.send(()).unwrap();
    lands.recv().unwrap();
    thread::sleep(SECOND / 5);
    assert_eq!(store.renewal_secret_text(), newest, "an older refresh token has taken the place of a newer one");
}

/// The key of the refresh token cannot be written, all other keys can. The manager tries each second, and must not
/// report the store as down and up again each time.
#[test]
fn an_unstored_refresh_token_is_reported_once_and_not_each_second() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = HookedStore::on_clock(&clock);
    store.before_write(|key, _| if key.as_str().ends_with(":state") { Err(store_error()) } else { Ok(()) });
    let tokens = builder(&rotating_provider(&server), &clock).store(store).build().unwrap();
    let events = tokens.events();
    text(&tokens);
    let mut reports = 0;
    for _ in 0..40 {
        clock.advance(SECOND * 5);
        text(&tokens);
        thread::sleep(SECOND / 50);
        reports += events.try_iter().filter(|event| matches!(event.kind, EventKind::StoreDown { .. })).count();
    }
    assert!(reports <= 3, "{reports} times in 200 seconds");
}

/// The last handle is dropped during a fetch, and the first write of the new refresh token fails.
#[test]
fn after_the_last_handle_a_new_refresh_token_is_written_again_when_a_write_fails() {
    new_refresh_token_after_the_end(false);
}

/// As above, after a `shutdown` that did not wait.
#[test]
fn after_a_shutdown_a_new_refresh_token_is_written_again_when_a_write_fails() {
    new_refresh_token_after_the_end(true);
}

fn new_refresh_token_after_the_end(shut_down: bool) {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let store = HookedStore::over(&MemoryStore::with_clock(clock.clone()));
    let (entered, has_entered) = bounded(1);
    let (go, may_go) = bounded::<()>(1);
    let granting = server.clone();
    let provider = FakeProvider::new().with_renewal(rotating_profile()).then(move |context| {
        entered.send(()).unwrap();
        let _ = may_go.recv_timeout(SECOND * 5);
        granting.grant(context)
    });
    let failures = AtomicUsize::new(0);
    store.set_hook(move |key, step| {
        let fails = matches!(step, Step::BeforeWrite(_))
            && key.as_str().ends_with(":state")
            && failures.fetch_add(1, Ordering::SeqCst) == 0;
        if fails { Err(store_error()) } else { Ok(()) }
    });
    let tokens = builder(&provider, &clock).store(store.clone()).build().unwrap();
    tokens.warm_up();
    has_entered.recv().unwrap();
    let kept = shut_down.then(|| {
        tokens.shutdown(Duration::ZERO);
        tokens.clone()
    });
    drop(tokens);
    go.send(()).unwrap();
    let stored = becomes_so(&clock, SECOND * 5, || store.renewal_secret_text().contains("refresh-1"));
    drop(kept);
    assert!(stored, "the refresh token is lost");
}
