//! Forced refreshes and daily quotas are counted for all managers of a credential.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use evertoken::provider::{Grant, Profile};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, ErrorKind, MemoryStore, TokenState};

use crate::common::stores::*;
use crate::common::wait::*;

#[test]
fn forced_refreshes_are_forced_at_the_provider_within_the_quota() {
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
    // Another process forced a refresh less than 30 s ago.
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
    // A day after the first call the quota is full again.
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
    // The quota is used up: the same token is granted and used again.
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

    // A day after the first call there are new calls, of which the reserve is for rejected tokens.
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
fn a_refresh_time_set_by_the_provider_holds_for_managers_that_adopt_the_token() {
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

/// The key of the quota cannot be written, all other keys can. Nothing is forced, because each process would count its
/// forced refreshes alone.
#[test]
fn nothing_is_forced_while_the_shared_count_cannot_be_written() {
    let clock = FakeClock::new();
    let store = HookedStore::on_clock(&clock);
    let forced = Arc::new(AtomicUsize::new(0));
    let profile = Profile::default().forced_quota(1).min_forced_interval(SECOND * 30);
    let provider = (0..9).fold(FakeProvider::new().with_profile(profile), |provider, at| {
        let forced = forced.clone();
        provider.then(move |context| {
            forced.fetch_add(usize::from(context.is_forced()), Ordering::SeqCst);
            Ok(Grant::new(format!("t-{at}"), 2 * HOUR))
        })
    });
    store.before_write(|key, _| if key.as_str().ends_with(":quota") { Err(store_error()) } else { Ok(()) });
    for _ in 0..4 {
        let tokens = builder(&provider, &clock).store(store.clone()).build().unwrap();
        let _ = tokens.token();
        let _ = tokens.force_refresh();
    }
    assert_eq!(forced.load(Ordering::SeqCst), 0);
}

/// The interval between forced refreshes also holds across the end of a day.
#[test]
fn forced_refreshes_keep_their_interval_when_a_day_ends() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let forced = Arc::new(AtomicUsize::new(0));
    let profile = Profile::default().forced_quota(20).min_forced_interval(SECOND * 30);
    let provider = (0..9).fold(FakeProvider::new().with_profile(profile), |provider, at| {
        let forced = forced.clone();
        provider.then(move |context| {
            forced.fetch_add(usize::from(context.is_forced()), Ordering::SeqCst);
            Ok(Grant::new(format!("t-{at}"), 48 * HOUR))
        })
    });
    let manager = || builder(&provider, &clock).store(store.clone()).build().unwrap();
    let one = manager();
    assert_eq!(text(&one), "t-0");
    clock.advance(24 * HOUR - SECOND);
    one.force_refresh().unwrap();
    let another = manager();
    assert_eq!(text(&another), "t-1");
    clock.advance(SECOND);
    let _ = another.force_refresh();
    assert_eq!(forced.load(Ordering::SeqCst), 1, "within a second of one another");
}

/// A fetch without a ticket, or with a parent that fails, does not reach the provider and is not counted.
#[test]
fn only_calls_that_reach_the_provider_are_counted() {
    let clock = FakeClock::new();
    let failing = FakeProvider::new();
    failing.always_fail(Some(Error::new(ErrorKind::Unavailable, "the parent is down")));
    let parent = builder(&failing, &clock).build().unwrap();
    let child = FakeProvider::new().with_profile(Profile::default().daily_quota(5, 1)).with_parent(parent);
    let tokens = builder(&child, &clock).build().unwrap();
    for _ in 0..8 {
        let _ = tokens.token();
        clock.advance(SECOND * 73);
    }
    failing.always_fail(None);
    assert_eq!(child.calls(), 0, "the provider was never asked");
    let got = tokens.token().map(|token| token.expose().to_owned());
    assert!(got.is_ok(), "{:?}", got.unwrap_err());
}

/// The reserve of a daily quota is for rejected tokens. An old rejection, or an `invalidate`, does not open it to
/// ordinary refreshes.
#[test]
fn refreshes_after_a_settled_rejection_do_not_use_the_reserve() {
    let clock = FakeClock::new();
    let provider = FakeProvider::new()
        .with_profile(Profile::default().daily_quota(4, 2))
        .then_grant("t-1", 20 * HOUR)
        .then_grant("t-2", HOUR)
        .then_grant("t-3", HOUR)
        .then_grant("t-4", HOUR);
    let tokens = builder(&provider, &clock).build().unwrap();
    let first = tokens.token().unwrap();
    tokens.reject(&first).unwrap();
    assert_eq!(text(&tokens), "t-2", "the rejected one is replaced");
    clock.advance(HOUR);
    eventually("the scheduler drops the expired token", || tokens.status().state == TokenState::Empty);
    let error = tokens.token().map(|token| token.expose().to_owned());
    assert_eq!(error.map_err(|error| error.kind()), Err(ErrorKind::Throttled));
}
