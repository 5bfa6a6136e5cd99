//! A token is refreshed in the background before it expires.

use std::sync::atomic::Ordering;
use std::time::Duration;

use evertoken::provider::Identity;
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{EventKind, TokenManager, TokenState};

use crate::common::clocks::PanickingClock;
use crate::common::wait::*;
use crate::outage;

#[test]
fn a_used_token_is_refreshed_five_minutes_before_it_expires() {
    let provider = FakeProvider::new();
    let (tokens, clock) = on_clock(&provider);
    let events = tokens.events();
    text(&tokens);
    wait_for_grant(&events);
    clock.advance(6899 * SECOND);
    assert_eq!((tokens.status().state, provider.calls()), (TokenState::Fresh, 1));
    clock.advance(SECOND);
    let ahead = wait_for(&events, |kind| match kind {
        EventKind::Granted { in_background, .. } => Some(*in_background),
        _ => None,
    });
    assert!(ahead);
    assert_eq!((text(&tokens), tokens.metrics().background_refreshes), ("token-2".to_owned(), 1));
}

#[test]
fn a_token_unused_since_its_refresh_is_not_refreshed_until_its_next_use() {
    let provider = FakeProvider::new();
    let (tokens, clock) = on_clock(&provider);
    let events = tokens.events();
    text(&tokens);
    wait_for_grant(&events);
    clock.advance(6900 * SECOND);
    wait_for_grant(&events);
    // Token-2 is due and unused, so it is not refreshed.
    clock.advance(6900 * SECOND);
    assert!(events.recv_timeout(Duration::from_millis(100)).is_err());
    assert_eq!(provider.calls(), 2);
    // The first use returns it at once and starts a refresh.
    assert_eq!(text(&tokens), "token-2");
    wait_for_grant(&events);
    assert_eq!(text(&tokens), "token-3");
}

#[test]
fn keep_warm_refreshes_unused_tokens() {
    let provider = FakeProvider::new();
    let clock = FakeClock::new();
    let tokens = builder(&provider, &clock).keep_warm(true).build().unwrap();
    let events = tokens.events();
    tokens.warm_up();
    wait_for_grant(&events);
    for _ in 0..3 {
        clock.advance(6900 * SECOND);
        wait_for_grant(&events);
    }
    assert_eq!(text(&tokens), "token-4");
}

#[test]
fn keep_warm_goes_on_after_an_outage_longer_than_the_token() {
    let provider = FakeProvider::new();
    let clock = FakeClock::new();
    let tokens = builder(&provider, &clock).keep_warm(true).build().unwrap();
    let events = tokens.events();
    tokens.warm_up();
    wait_for_grant(&events);
    provider.always_fail(Some(outage()));
    clock.advance(8000 * SECOND);
    let retry_in = wait_for_failure(&events);
    provider.always_fail(None);
    clock.advance(retry_in);
    wait_for_grant(&events);
    assert_eq!(text(&tokens), "token-2");
}

#[test]
fn an_expired_unused_token_is_wiped_and_not_refreshed() {
    let provider = FakeProvider::new();
    let (tokens, clock) = on_clock(&provider);
    let events = tokens.events();
    tokens.warm_up();
    wait_for_grant(&events);
    clock.advance(8000 * SECOND);
    eventually("the token is wiped", || tokens.status().state == TokenState::Empty);
    assert_eq!(provider.calls(), 1);
}

#[test]
fn refresh_after_refreshes_sooner() {
    let provider = FakeProvider::new();
    let clock = FakeClock::new();
    let tokens = builder(&provider, &clock).refresh_after(600 * SECOND).build().unwrap();
    let events = tokens.events();
    text(&tokens);
    wait_for_grant(&events);
    clock.advance(600 * SECOND);
    wait_for_grant(&events);
}

#[test]
fn lifetimes_of_five_seconds_cause_no_busy_loop() {
    let provider = FakeProvider::new().lifetime(5 * SECOND);
    let (tokens, clock) = on_clock(&provider);
    let events = tokens.events();
    text(&tokens);
    wait_for_grant(&events);
    for renewals in 1..=20 {
        // The refresh is due at two thirds of the lifetime, and not before.
        clock.advance(Duration::from_millis(3_330));
        assert_eq!((text(&tokens), provider.calls()), (format!("token-{renewals}"), renewals));
        clock.advance(Duration::from_millis(4));
        wait_for_grant(&events);
    }
}

#[test]
fn a_slow_provider_delays_no_other_managers_refresh() {
    let clock = FakeClock::new();
    let slow = FakeProvider::new().with_identity(Identity::new("slow"));
    let slow_tokens = builder(&slow, &clock).build().unwrap();
    text(&slow_tokens);
    let slow = slow.gated();
    let quick: Vec<_> = (0..20).map(|_| FakeProvider::new()).collect();
    let managers: Vec<_> = quick.iter().map(|provider| builder(provider, &clock).build().unwrap()).collect();
    managers.iter().for_each(|manager| drop(text(manager)));
    clock.advance(6900 * SECOND);
    assert!(slow.wait_for_calls(2, PATIENCE));
    for provider in &quick {
        assert!(provider.wait_for_finished(2, PATIENCE));
    }
    assert_eq!(slow.finished(), 1);
    slow.open();
}

#[test]
fn at_most_eight_background_refreshes_run_at_once() {
    let clock = FakeClock::new();
    // One provider behind forty managers counts the fetches of all.
    let provider = FakeProvider::new();
    let managers: Vec<_> = (0..40).map(|_| builder(&provider, &clock).build().unwrap()).collect();
    managers.iter().for_each(|manager| drop(text(manager)));
    let provider = provider.gated();
    clock.advance(6900 * SECOND);
    for renewed in 0..40 {
        assert!(provider.wait_for_calls((40 + renewed + 8).min(80), PATIENCE));
        assert!(provider.calls() - provider.finished() <= 8);
        provider.permit(1);
    }
    assert!(provider.wait_for_finished(80, PATIENCE));
    assert!(provider.max_concurrent_calls() <= 8);
}

#[test]
fn a_clock_that_panics_stops_no_other_managers_refreshes() {
    let clock = PanickingClock::for_thread("evertoken-scheduler");
    let broken = TokenManager::builder(FakeProvider::new()).clock(clock.clone()).build().unwrap();
    text(&broken);
    let (healthy, time) = on_clock(&FakeProvider::new());
    let events = healthy.events();
    text(&healthy);
    wait_for_grant(&events);
    text(&healthy);
    clock.broken.store(true, Ordering::SeqCst);
    clock.clock.advance(SECOND);
    eventually("the scheduler reads the broken clock", || clock.panics.load(Ordering::SeqCst) > 0);
    time.advance(6900 * SECOND);
    wait_for_grant(&events);
    assert_eq!(healthy.metrics().background_refreshes, 1);
    assert_eq!(clock.panics.load(Ordering::SeqCst), 1, "it is not read again and again");
    // When the clock works again, its manager is refreshed again.
    clock.broken.store(false, Ordering::SeqCst);
    let events = broken.events();
    clock.clock.advance(24 * HOUR);
    text(&broken);
    wait_for_grant(&events);
    text(&broken);
    clock.clock.advance(7000 * SECOND);
    wait_for_grant(&events);
}

#[test]
fn a_refresh_lead_shorter_than_the_margin_still_refreshes_in_the_background() {
    let (provider, clock) = (FakeProvider::new(), FakeClock::new());
    let tokens = builder(&provider, &clock).refresh_ahead(30 * SECOND).build().unwrap();
    let events = tokens.events();
    text(&tokens);
    wait_for_grant(&events);
    text(&tokens);
    assert_eq!(tokens.status().refresh_in, Some(7140 * SECOND));
    clock.advance(7140 * SECOND);
    wait_for_grant(&events);
    assert_eq!(tokens.metrics().background_refreshes, 1);
}

#[test]
fn the_largest_jitter_moves_no_refresh_into_the_safety_margin() {
    for _ in 0..100 {
        let tokens = builder(&FakeProvider::new(), &FakeClock::new()).jitter(1.0).build().unwrap();
        text(&tokens);
        assert!(tokens.status().refresh_in.unwrap() <= 7140 * SECOND);
    }
}
