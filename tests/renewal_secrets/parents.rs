//! Tokens that are granted for the token of a parent.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use evertoken::provider::{Grant, Identity};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, ErrorKind, MemoryStore, TokenManager};

use crate::common::wait::*;

/// A parent with a new token for each fetch, and a child that quotes the token of its parent in its own.
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
fn a_derived_token_is_granted_for_the_token_of_its_parent() {
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
fn a_refused_token_of_a_parent_is_replaced_once() {
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
fn a_parent_that_fails_fails_its_child() {
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
fn promise_5_a_parent_that_never_returns_does_not_block_its_child() {
    let clock = FakeClock::new();
    let provider = FakeProvider::new().gated();
    let (_, child) = derived(&provider, &clock, &[]);
    assert_eq!(child.token_within(SECOND / 10).unwrap_err().kind(), ErrorKind::TimedOut);
    provider.open();
}

/// An error of one process alone (here: its parent's manager was shut down) is not recorded for all.
#[test]
fn a_parent_shut_down_in_one_process_does_not_fail_the_others() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let manager = || {
        let parent = builder(&FakeProvider::new().with_identity(Identity::new("parent")), &clock).build().unwrap();
        let child = FakeProvider::new().with_parent(parent.clone());
        (parent, builder(&child, &clock).store(store.clone()).build().unwrap())
    };
    let ((parent, one), (_running, another)) = (manager(), manager());
    parent.shutdown(SECOND);
    assert_eq!(one.token().unwrap_err().kind(), ErrorKind::Shutdown);
    let got = another.token().map(|token| token.expose().to_owned());
    assert_eq!(got.map_err(|error| error.kind()), Ok("token-1".into()));
}

/// A child that is refused for a reason of its own (a missing right, a code with two meanings) must not cost its parent
/// a valid token for each attempt, and all other children with it.
#[test]
fn a_child_that_is_always_refused_does_not_cost_its_parent_a_token_for_each_fetch() {
    let clock = FakeClock::new();
    let granting = FakeProvider::new().lifetime(24 * HOUR);
    let parent = builder(&granting, &clock).build().unwrap();
    let child = FakeProvider::new().with_parent(parent.clone());
    child.always_fail(Some(Error::new(ErrorKind::TokenRejected, "the parent's token is refused")));
    let tokens = builder(&child, &clock).build().unwrap();
    for _ in 0..60 {
        let _ = tokens.token();
        clock.advance(SECOND * 73);
    }
    assert!(granting.calls() < 20, "{} tokens of the parent in little more than an hour", granting.calls());
}

/// A parent's token that was refused when it was new, and accepted later, is replaced when it is refused again.
#[test]
fn a_token_of_a_parent_that_is_refused_again_later_is_replaced() {
    let clock = FakeClock::new();
    let granting = FakeProvider::new().lifetime(24 * HOUR);
    let parent = builder(&granting, &clock).build().unwrap();
    let refused = Arc::new(Mutex::new(BTreeSet::from(["token-1".to_owned(), "token-2".to_owned()])));
    let refuses = refused.clone();
    let child = (0..20).fold(FakeProvider::new().with_parent(parent), |child, at| {
        let refuses = refuses.clone();
        child.then(move |context| {
            let parent = context.parent()?.expose().to_owned();
            if refuses.lock().unwrap().contains(&parent) {
                return Err(Error::new(ErrorKind::TokenRejected, "the parent's token is refused"));
            }
            Ok(Grant::new(format!("child-{at}-of-{parent}"), HOUR))
        })
    });
    let tokens = builder(&child, &clock).build().unwrap();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TokenRejected);
    // The service had a temporary fault, and accepts the token now.
    refused.lock().unwrap().remove("token-2");
    clock.advance(SECOND * 120);
    assert!(text(&tokens).ends_with("token-2"));
    // An hour later the token is revoked.
    refused.lock().unwrap().insert("token-2".to_owned());
    clock.advance(HOUR);
    let mut got = tokens.token();
    for _ in 0..5 {
        clock.advance(SECOND * 120);
        got = tokens.token();
    }
    assert!(got.is_ok(), "{}", got.unwrap_err());
}
