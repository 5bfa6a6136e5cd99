//! A shared store that fails, hangs, panics or comes back.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use evertoken::provider::Profile;
use evertoken::store::{Expected, Store};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, ErrorKind, EventKind, MemoryStore};

use crate::common::stores::*;
use crate::common::two_stores::TwoStores;
use crate::common::wait::*;
use crate::group::Group;

#[test]
fn promise_6_a_store_that_is_broken_from_the_start_costs_no_caller_a_token() {
    let group = Group::new();
    group.store.broken.store(true, Ordering::SeqCst);
    let tokens = group.manager();
    let events = tokens.events();
    assert_eq!(text(&tokens), "token-1");
    let metrics = tokens.metrics();
    assert_eq!((metrics.fetches_ok, metrics.store_errors), (1, 1));
    assert!(tokens.status().store_down_for.is_some());
    wait_for(&events, |kind| matches!(kind, EventKind::StoreDown { .. }).then_some(()));
}

#[test]
fn promise_6_a_store_that_panics_is_down() {
    let group = Group::new();
    group.store.panics.store(true, Ordering::SeqCst);
    let tokens = group.manager();
    assert_eq!(text(&tokens), "token-1");
}

#[test]
fn promise_6_an_outage_is_reported_once_and_the_store_is_not_asked_for_a_while() {
    let group = Group::new();
    let tokens = group.manager();
    text(&tokens);
    group.store.broken.store(true, Ordering::SeqCst);
    let events = tokens.events();
    let before = group.store.operations.load(Ordering::SeqCst);
    for _ in 0..20 {
        tokens.force_refresh().unwrap();
    }
    assert_eq!(group.store.operations.load(Ordering::SeqCst) - before, 1);
    let told = events.try_iter().filter(|event| matches!(event.kind, EventKind::StoreDown { .. })).count();
    assert_eq!(told, 1);
}

#[test]
fn the_status_shows_why_the_store_is_down() {
    let group = Group::new();
    let tokens = group.manager();
    group.store.broken.store(true, Ordering::SeqCst);
    tokens.invalidate().unwrap_err();
    let status = tokens.status();
    assert!(status.to_string().contains("store       unavailable for 0 ms: broken on purpose"), "{status}");
    // The cause of the outage has changed by now.
    group.store.panics.store(true, Ordering::SeqCst);
    group.clock.advance(60 * SECOND);
    tokens.invalidate().unwrap_err();
    let status = tokens.status();
    assert_eq!(status.store_error.as_ref().map(Error::kind), Some(ErrorKind::Store));
    assert!(status.to_string().contains("store       unavailable for 60 s: the shared store panicked"), "{status}");
    group.store.broken.store(false, Ordering::SeqCst);
    group.store.panics.store(false, Ordering::SeqCst);
    group.clock.advance(60 * SECOND);
    tokens.invalidate().unwrap();
    assert!(tokens.status().store_error.is_none());
}

#[test]
fn promise_7_a_token_fetched_without_the_store_is_written_when_it_is_back() {
    let group = Group::new();
    group.store.broken.store(true, Ordering::SeqCst);
    let one = group.manager();
    let events = one.events();
    assert_eq!(text(&one), "token-1");
    group.store.broken.store(false, Ordering::SeqCst);
    group.clock.advance(2 * SECOND);
    wait_for(&events, |kind| matches!(kind, EventKind::StoreUp).then_some(()));
    eventually("the record is written", || group.record().is_some());
    assert_eq!((text(&group.manager()), group.provider.calls()), ("token-1".to_owned(), 1));
}

#[test]
fn promise_7_a_token_that_could_not_be_written_is_returned() {
    let group = Group::new();
    let tokens = group.manager();
    let provider = group.provider.clone().gated();
    thread::scope(|scope| {
        let asking = scope.spawn(|| text(&tokens));
        assert!(provider.wait_for_calls(1, PATIENCE));
        group.store.broken.store(true, Ordering::SeqCst);
        provider.permit(1);
        assert_eq!(asking.join().unwrap(), "token-1");
    });
}

#[test]
fn an_emptied_store_is_filled_with_the_current_token() {
    let group = Group::new();
    let tokens = group.manager();
    text(&tokens);
    group.store.inner.compare_and_swap(tokens.key(), Expected::Any, None).unwrap();
    assert_eq!(text(&tokens), "token-1");
    group.clock.advance(60 * SECOND);
    eventually("the record is written", || group.record().is_some());
    assert_eq!((text(&group.manager()), group.provider.calls()), ("token-1".to_owned(), 1));
}

#[test]
fn processes_without_their_store_fetch_seldom_if_a_new_token_ends_the_old_one() {
    let profile = Profile::default().new_token_ends_old(true);
    let group = Group::of(FakeProvider::new().with_profile(profile));
    group.store.broken.store(true, Ordering::SeqCst);
    let tokens = group.manager();
    let first = tokens.token().unwrap();
    tokens.reject(&first).unwrap_err();
    let mut waited = Duration::ZERO;
    while waited < 300 * SECOND {
        let error = tokens.token().unwrap_err();
        assert_eq!((error.kind(), group.provider.calls()), (ErrorKind::Store, 1));
        // The store may be back sooner, so the manager checks before the interval has passed.
        let retry_in = error.retry_after().unwrap();
        group.clock.advance(retry_in);
        waited += retry_in;
    }
    assert_eq!(text(&tokens), "token-2");
}

#[test]
fn promise_6_a_store_that_hangs_is_down() {
    let group = Group::new();
    let tokens = group.manager();
    let hanging = group.store.gate.clone();
    let hanging = hanging.lock().unwrap();
    assert_eq!(text(&tokens), "token-1");
    for _ in 0..20 {
        tokens.invalidate().unwrap_err();
        assert!(text(&tokens).starts_with("token-"));
    }
    // One operation hangs, and no other one starts as long as it does.
    assert_eq!(group.store.operations.load(Ordering::SeqCst), 1);
    group.clock.advance(HOUR);
    tokens.invalidate().unwrap_err();
    drop(hanging);
    eventually("the store is used again", || {
        group.clock.advance(40 * SECOND);
        let _ = tokens.force_refresh();
        group.record().is_some()
    });
}

#[test]
fn a_cooldown_caused_by_the_store_ends_when_the_store_is_back() {
    let group = Group::new();
    let unshared = builder(&group.provider, &group.clock).store_down_fetch_interval(300 * SECOND);
    let tokens = unshared.store(group.store.clone()).build().unwrap();
    group.store.broken.store(true, Ordering::SeqCst);
    let first = tokens.token().unwrap();
    tokens.reject(&first).unwrap_err();
    let error = tokens.token().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    group.store.broken.store(false, Ordering::SeqCst);
    group.clock.advance(error.retry_after().unwrap());
    assert_eq!(text(&tokens), "token-2");
}

#[test]
fn a_store_that_cannot_wait_is_not_down_and_not_polled_in_a_busy_loop() {
    for outcome in [Ok(()), Err(Error::new(ErrorKind::Store, "streams are refused"))] {
        let mut group = Group::of(FakeProvider::new().gated());
        group.store.waiting = Some(outcome);
        let (one, other) = (group.manager(), group.manager());
        one.warm_up();
        assert!(group.provider.wait_for_calls(1, PATIENCE));
        let asked = Instant::now();
        other.warm_up();
        eventually("the manager has waited for a while", || asked.elapsed() > Duration::from_millis(300));
        assert!(group.store.waits.load(Ordering::SeqCst) < 20);
        assert!(other.status().store_down_for.is_none());
        group.provider.open();
        assert_eq!((text(&other), group.provider.calls()), ("token-1".to_owned(), 1));
    }
}

/// The primary store accepts no record, without a fallback store.
#[test]
fn a_token_that_could_not_be_recorded_leaves_no_lease() {
    let host = TwoStores::of(FakeProvider::new());
    *host.primary.unwritable.lock().unwrap() = Some("}");
    let tokens = builder(&host.provider, &host.clock).store(host.primary.clone()).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    assert!(host.primary.inner.is_empty(), "no lease is left");
}

/// Advances the clock by a second and gives background threads the time to notice.
fn pass_a_second(clock: &FakeClock) {
    clock.advance(SECOND);
    thread::sleep(Duration::from_millis(5));
}

#[test]
fn promise_7_more_fetches_during_an_outage_do_not_overwrite_the_latest_token() {
    let (provider, clock) = (FakeProvider::new(), FakeClock::new());
    let inner = MemoryStore::with_clock(clock.clone());
    let stores = [FaultyStore::over(&inner), FaultyStore::over(&inner)];
    let [a, b] = stores.each_ref().map(|store| builder(&provider, &clock).store(store.clone()).build().unwrap());
    assert_eq!((text(&a), text(&b)), ("token-1".to_owned(), "token-1".to_owned()));
    stores.iter().for_each(|store| store.set_broken(true));
    for token in ["token-2", "token-3", "token-4"] {
        assert_eq!(a.force_refresh().unwrap().expose(), token);
    }
    clock.advance(600 * SECOND);
    // Granted last, with the latest expiry.
    assert_eq!(b.force_refresh().unwrap().expose(), "token-5");
    let in_store = || token_in(inner.read(a.key()).unwrap().unwrap().bytes());
    stores[1].set_broken(false);
    eventually("the token is written", || {
        pass_a_second(&clock);
        text(&b) == "token-5" && in_store() == "token-5"
    });
    stores[0].set_broken(false);
    eventually("the newer token is adopted", || {
        pass_a_second(&clock);
        text(&a) == "token-5"
    });
    assert_eq!((in_store(), text(&b)), ("token-5".to_owned(), "token-5".to_owned()));
}

#[test]
fn managers_agree_on_one_of_two_tokens_of_one_moment() {
    let (provider, clock) = (FakeProvider::new(), FakeClock::new());
    let inner = MemoryStore::with_clock(clock.clone());
    let stores = [FaultyStore::over(&inner), FaultyStore::over(&inner)];
    let [a, b] = stores.each_ref().map(|store| builder(&provider, &clock).store(store.clone()).build().unwrap());
    stores.iter().for_each(|store| store.set_broken(true));
    assert_ne!(text(&a), text(&b));
    stores.iter().for_each(|store| store.set_broken(false));
    eventually("both managers have the same token", || {
        pass_a_second(&clock);
        text(&a) == text(&b)
    });
    let settled = text(&a);
    for _ in 0..150 {
        pass_a_second(&clock);
        assert_eq!((text(&a), text(&b)), (settled.clone(), settled.clone()));
    }
    assert_eq!(token_in(inner.read(a.key()).unwrap().unwrap().bytes()), settled);
}
