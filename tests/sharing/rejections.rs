//! A token that one manager rejects or invalidates is used by none of the managers that share its store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, ErrorKind, EventKind, MemoryStore, TokenManager};

use crate::common::stores::*;
use crate::common::wait::*;
use crate::group::Group;

#[test]
fn promise_4_no_manager_adopts_a_token_that_another_rejected() {
    let group = Group::new();
    let (one, other) = (group.manager(), group.manager());
    let bad = one.token().unwrap();
    one.reject(&bad).unwrap();
    assert_eq!(text(&other), "token-2");
    assert_eq!((text(&one), group.provider.calls()), ("token-2".to_owned(), 2));
}

#[test]
fn promise_4_a_rejected_token_is_not_adopted_from_a_store_without_the_rejection() {
    let group = Group::new();
    let tokens = group.manager();
    let bad = tokens.token().unwrap();
    group.store.broken.store(true, Ordering::SeqCst);
    assert_eq!(tokens.reject(&bad).unwrap_err().kind(), ErrorKind::Store);
    group.store.broken.store(false, Ordering::SeqCst);
    group.clock.advance(2 * SECOND);
    assert_eq!((text(&tokens), group.provider.calls()), ("token-2".to_owned(), 2));
}

#[test]
fn promise_4_a_rejected_token_is_dropped_by_all_managers_within_the_store_check_interval() {
    let group = Group::new();
    let (one, other) = (group.manager(), group.manager());
    let bad = one.token().unwrap();
    assert_eq!(text(&other), bad.expose());
    assert_eq!(text(&other), bad.expose(), "it is in use");
    let events = other.events();
    one.reject(&bad).unwrap();
    group.clock.advance(60 * SECOND);
    wait_for(&events, |kind| matches!(kind, EventKind::Rejected { .. }).then_some(()));
    assert_eq!(text(&other), "token-2");
    assert_eq!((text(&one), group.provider.calls()), ("token-2".to_owned(), 2));
}

#[test]
fn promise_4_a_hundred_rejections_by_many_managers_cost_one_fetch() {
    let group = Group::new();
    let managers: Vec<_> = (0..10).map(|_| group.manager()).collect();
    let bad: Vec<_> = managers.iter().map(|manager| manager.token().unwrap()).collect();
    thread::scope(|scope| {
        for (manager, bad) in managers.iter().zip(&bad) {
            for _ in 0..10 {
                scope.spawn(|| {
                    manager.reject(bad).unwrap();
                    assert_ne!(text(manager), "token-1");
                });
            }
        }
    });
    assert_eq!(group.provider.calls(), 2);
}

#[test]
fn an_invalidated_token_is_forgotten_by_all_managers_within_the_store_check_interval() {
    let group = Group::new();
    let (one, other) = (group.manager(), group.manager());
    text(&one);
    assert_eq!((text(&other), text(&other)), ("token-1".to_owned(), "token-1".to_owned()));
    let events = other.events();
    one.invalidate().unwrap();
    group.clock.advance(60 * SECOND);
    wait_for(&events, |kind| matches!(kind, EventKind::Rejected { .. }).then_some(()));
    assert_eq!((text(&other), text(&one)), ("token-2".to_owned(), "token-2".to_owned()));
}

#[test]
fn promise_4_a_token_rejected_while_it_is_granted_again_is_neither_recorded_nor_used() {
    let group = Group::new();
    let (one, other) = (group.manager(), group.manager());
    let bad = one.token().unwrap();
    text(&other);
    let provider = group.provider.clone().gated().then_unchanged();
    thread::scope(|scope| {
        let forcing = scope.spawn(|| one.force_refresh().unwrap());
        assert!(provider.wait_for_calls(2, PATIENCE));
        other.reject(&bad).unwrap();
        provider.permit(2);
        assert_eq!(forcing.join().unwrap().expose(), "token-2");
    });
    assert_eq!((text(&one), text(&group.manager())), ("token-2".to_owned(), "token-2".to_owned()));
}

#[test]
fn promise_4_a_token_is_not_recorded_again_after_a_later_one_was_rejected() {
    let group = Group::new();
    let (late, tokens, other) = (group.manager(), group.manager(), group.manager());
    let first = late.token().unwrap();
    assert_eq!([text(&tokens), text(&other)], ["token-1", "token-1"]);
    let second = tokens.force_refresh().unwrap();
    // The record has no place for the rejection, because it has another token.
    other.reject(&first).unwrap();
    tokens.reject(&second).unwrap();
    group.clock.advance(61 * SECOND);
    check_several_times(&late, &group);
    assert_eq!(text(&group.manager()), "token-3");
}

#[test]
fn a_token_fetched_before_an_invalidation_is_not_recorded() {
    let group = Group::of(FakeProvider::new().gated());
    let tokens = group.manager();
    tokens.warm_up();
    assert!(group.provider.wait_for_calls(1, PATIENCE));
    tokens.invalidate().unwrap();
    group.provider.open();
    assert_eq!((text(&tokens), group.provider.calls()), ("token-2".to_owned(), 2));
}

/// Makes the manager check the store several times while the token is in use.
fn check_several_times(tokens: &TokenManager, group: &Group) {
    for _ in 0..4 {
        let looked = group.store.operations.load(Ordering::SeqCst);
        tokens.try_token();
        group.clock.advance(61 * SECOND);
        eventually("the manager checks the store", || {
            tokens.try_token();
            group.store.operations.load(Ordering::SeqCst) > looked && !tokens.status().fetching
        });
    }
}

#[test]
fn promise_4_a_token_rejected_while_the_store_was_down_does_not_come_back() {
    // The next token expires sooner, so its expiry does not show that it is the later one.
    let group = Group::of(FakeProvider::new().then_grant("t-1", 7200 * SECOND).then_grant("t-2", HOUR));
    let one = group.manager();
    let bad = one.token().unwrap();
    group.store.broken.store(true, Ordering::SeqCst);
    assert!(one.reject(&bad).is_err());
    assert_eq!(text(&one), "t-2");
    group.store.broken.store(false, Ordering::SeqCst);
    check_several_times(&one, &group);
    assert_eq!(text(&group.manager()), "t-2");
}

#[test]
fn an_unchanged_token_after_an_unrecorded_invalidation_is_not_treated_as_rejected() {
    let group = Group::of(FakeProvider::new().then_grant("t-1", 7200 * SECOND).then_unchanged());
    let one = group.manager();
    assert_eq!(text(&one), "t-1");
    group.store.broken.store(true, Ordering::SeqCst);
    assert!(one.invalidate().is_err());
    assert_eq!(text(&one), "t-1");
    assert_eq!(one.metrics().reinstated_tokens, 0);
}

#[test]
fn a_token_reinstated_while_the_store_is_down_is_written_without_its_rejection() {
    let provider = FakeProvider::new().then_grant("t-1", 7200 * SECOND).then_unchanged();
    let group = Group::of(provider);
    let one = group.manager();
    one.reject(&one.token().unwrap()).unwrap();
    group.store.broken.store(true, Ordering::SeqCst);
    assert_eq!(text(&one), "t-1");
    let calls = group.provider.calls();
    group.store.broken.store(false, Ordering::SeqCst);
    check_several_times(&one, &group);
    assert_eq!((text(&one).as_str(), one.metrics().rejections, group.provider.calls()), ("t-1", 1, calls));
    assert_eq!(text(&group.manager()), "t-1");
}

#[test]
fn promise_4_a_rejection_survives_a_failure_that_is_recorded_in_the_same_moment() {
    let clock = FakeClock::new();
    let inner = MemoryStore::with_clock(clock.clone());
    let store = HookedStore::over(&inner);
    let is_next = Arc::new(AtomicBool::new(false));
    let sets_next = is_next.clone();
    let provider = FakeProvider::new().then_grant("token-1", 2 * HOUR).then(move |_| {
        // The next read is the one before the failure is recorded.
        sets_next.store(true, Ordering::SeqCst);
        Err(Error::new(ErrorKind::Unavailable, "down"))
    });
    let one = builder(&provider, &clock).store(store.clone()).build().unwrap();
    let other = builder(&provider, &clock).store(inner.clone()).build().unwrap();
    assert_eq!((text(&one), text(&other)), ("token-1".to_owned(), "token-1".to_owned()));
    let (rejecter, token) = (other.clone(), other.token().unwrap());
    store.set_hook(move |_, step| {
        if step == Step::AfterRead && is_next.swap(false, Ordering::SeqCst) {
            rejecter.reject(&token).unwrap();
        }
        Ok(())
    });
    one.force_refresh().unwrap_err();
    // A process that starts only now.
    let third = builder(&provider, &clock).store(inner).build().unwrap();
    assert!(third.token().ok().is_none_or(|token| token.expose() != "token-1"));
}

#[test]
fn promise_4_an_unrecorded_invalidation_holds_in_its_own_manager() {
    let (provider, clock) = (FakeProvider::new(), FakeClock::new());
    let store = FaultyStore::over(&MemoryStore::with_clock(clock.clone()));
    let tokens = builder(&provider, &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    store.set_broken(true);
    tokens.invalidate().unwrap_err();
    store.set_broken(false);
    clock.advance(2 * SECOND);
    assert_eq!(text(&tokens), "token-2");
}
