//! A wall clock that is set back or forward while managers share a store.

use evertoken::testing::{FakeClock, FakeProvider, FakeVendor};
use evertoken::{FileStore, TokenManager, WeCom};

use crate::common::wait::*;

/// WeCom grants a valid token again and reports a whole lifetime for it. Programs start each minute.
#[test]
fn promise_2_a_wall_clock_set_back_does_not_extend_a_stored_token() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
    let host = FakeVendor::wecom().clock(&clock);
    let ask = || {
        let provider = WeCom::new("corp", "secret").base_url(host.url());
        let store = FileStore::with_clock(folder.path(), clock.clone());
        let tokens = TokenManager::builder(provider).store(store).clock(clock.clone()).build().unwrap();
        tokens.token().unwrap()
    };
    ask();
    clock.advance(HOUR);
    clock.step_back(2 * HOUR);
    for minute in 0..130 {
        let token = ask();
        assert!(host.is_valid(token.expose()), "dead in minute {minute}, with {:?} left", token.remaining());
        clock.advance(60 * SECOND);
    }
    assert_eq!(host.granted().len(), 2);
}

#[test]
fn promise_4_a_wall_clock_set_back_does_not_undo_a_rejection() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
    let provider = FakeProvider::new().then_grant("token-1", 2 * HOUR).then_unchanged().then_unchanged();
    let start =
        || builder(&provider, &clock).store(FileStore::with_clock(folder.path(), clock.clone())).build().unwrap();
    let tokens = start();
    tokens.reject(&tokens.token().unwrap()).unwrap();
    clock.advance(HOUR);
    clock.step_back(2 * HOUR);
    // The token is granted again with its own expiry and not with another whole lifetime.
    let again = start().token().unwrap();
    assert!(again.remaining() <= HOUR, "{:?}", again.remaining());
}

/// The provider grants the same token until it expires, which is already in the past by the wall clock.
#[test]
fn a_wall_clock_set_forward_does_not_expire_an_unchanged_token() {
    let clock = FakeClock::new();
    let host = FakeVendor::wecom().clock(&clock);
    let provider = WeCom::new("corp", "secret").base_url(host.url());
    let tokens = TokenManager::builder(provider).clock(clock.clone()).max_wait(3 * SECOND).build().unwrap();
    tokens.token().unwrap();
    clock.step_forward(HOUR);
    for minute in 0..100 {
        let token = tokens.token().unwrap_or_else(|error| panic!("minute {minute}: {error}"));
        assert!(host.is_valid(token.expose()), "minute {minute}");
        eventually("the background fetch has ended", || !tokens.status().fetching);
        clock.advance(60 * SECOND);
    }
}
