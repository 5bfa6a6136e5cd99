//! A provider that grants the current token again, unchanged.

use std::time::Duration;

use evertoken::testing::{FakeClock, FakeProvider, FakeVendor};
use evertoken::{ErrorKind, TokenManager, TokenState, WeCom};

use crate::common::wait::*;

#[test]
fn an_unchanged_token_keeps_its_expiry_and_is_asked_for_again_when_it_can_change() {
    let clock = FakeClock::new();
    let host = FakeVendor::wecom().clock(&clock);
    let provider = WeCom::new("corp", "secret").base_url(host.url());
    let tokens = TokenManager::builder(provider).clock(clock.clone()).jitter(0.0).build().unwrap();
    let events = tokens.events();
    let first = tokens.token().unwrap();
    clock.advance(6900 * SECOND);
    // WeCom grants the same token and reports 7,200 s again.
    assert_eq!(wait_for_same(&events), 300 * SECOND);
    let again = tokens.token().unwrap();
    assert_eq!((again.expose(), again.remaining()), (first.expose(), 300 * SECOND));
    let metrics = tokens.metrics();
    assert_eq!((metrics.background_refreshes, metrics.unchanged_tokens, host.calls()), (0, 1, 2));
    // Inside the safety margin no call asks again.
    clock.advance(250 * SECOND);
    assert_eq!(text(&tokens), first.expose());
    assert_eq!(host.calls(), 2);
    clock.advance(50 * SECOND);
    assert_ne!(text(&tokens), first.expose());
    assert_eq!(host.calls(), 3);
}

#[test]
fn callers_wait_while_an_expired_token_is_being_replaced() {
    let provider = FakeProvider::new().lifetime(7200 * SECOND);
    let (tokens, clock) = on_clock(&provider);
    text(&tokens);
    let _ = provider.clone().then_unchanged().then_unchanged().then_unchanged();
    clock.advance(7300 * SECOND);
    let asked = std::time::Instant::now();
    assert_eq!(text(&tokens), "token-2");
    // The cooldowns grow: 100, 200 and 400 ms.
    assert!(asked.elapsed() >= Duration::from_millis(500), "{:?}", asked.elapsed());
    assert!(provider.calls() <= 6);
}

#[test]
fn a_provider_that_never_grants_a_new_token_delays_callers_until_their_deadline_at_most() {
    let provider = FakeProvider::new();
    let (tokens, clock) = on_clock(&provider);
    text(&tokens);
    let _ = (0..100).fold(provider.clone(), |provider, _| provider.then_unchanged());
    clock.advance(7300 * SECOND);
    let error = tokens.token_within(Duration::from_millis(400)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(provider.calls() <= 6, "{}", provider.calls());
}

#[test]
fn an_unchanged_token_with_a_later_end_is_extended() {
    let profile = evertoken::provider::Profile::default().unchanged_token_extends(true);
    let provider = FakeProvider::new().with_profile(profile);
    let (tokens, clock) = on_clock(&provider);
    let events = tokens.events();
    text(&tokens);
    let _ = provider.clone().then_unchanged();
    clock.advance(6900 * SECOND);
    wait_for_same(&events);
    assert_eq!(tokens.token().unwrap().remaining(), 7200 * SECOND);
}

#[test]
fn the_provider_is_not_called_before_it_can_grant_a_new_token() {
    let profile = evertoken::provider::Profile::default().earliest_refresh(100 * SECOND);
    let provider = FakeProvider::new().with_profile(profile);
    let (tokens, clock) = on_clock(&provider);
    let events = tokens.events();
    text(&tokens);
    wait_for_grant(&events);
    clock.advance(7099 * SECOND);
    assert_eq!(tokens.status().state, TokenState::Fresh);
    clock.advance(SECOND);
    wait_for_grant(&events);
}
