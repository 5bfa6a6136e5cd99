//! Calls that wait, calls that do not, and their deadlines.

use std::sync::Barrier;
use std::thread;

use evertoken::testing::{FakeClock, FakeProvider, FakeVendor};
use evertoken::{ErrorKind, Metrics, TokenManager, TokenOrigin, TokenState, WeCom};

use crate::common::wait::*;
use crate::outage;

#[test]
fn try_token_never_waits_and_starts_the_fetch_that_it_needs() {
    let provider = FakeProvider::new().gated();
    let tokens = TokenManager::new(provider.clone());
    let events = tokens.events();
    for _ in 0..100 {
        assert!(tokens.try_token().is_none());
    }
    provider.permit(1);
    wait_for_grant(&events);
    assert_eq!(tokens.try_token().unwrap().expose(), "token-1");
    assert_eq!(provider.calls(), 1);
}

#[test]
fn warm_up_has_the_token_ready_before_the_first_call() {
    let provider = FakeProvider::new();
    let tokens = TokenManager::new(provider.clone());
    let events = tokens.events();
    tokens.warm_up();
    tokens.warm_up();
    wait_for_grant(&events);
    tokens.warm_up();
    assert_eq!((text(&tokens), provider.calls()), ("token-1".to_owned(), 1));
    assert_eq!(tokens.metrics().waits, 0);
}

#[test]
fn force_refresh_brings_another_token_while_other_callers_get_the_current_one() {
    let provider = FakeProvider::new();
    let tokens = TokenManager::new(provider.clone());
    assert_eq!(text(&tokens), "token-1");
    let provider = provider.gated();
    thread::scope(|scope| {
        let forcing = scope.spawn(|| tokens.force_refresh().unwrap());
        assert!(provider.wait_for_calls(2, PATIENCE));
        assert_eq!(text(&tokens), "token-1");
        provider.permit(1);
        assert_eq!(forcing.join().unwrap().expose(), "token-2");
    });
    assert_eq!(text(&tokens), "token-2");
}

#[test]
fn forced_refreshes_at_the_same_time_never_fetch_at_the_same_time() {
    let provider = FakeProvider::new();
    let tokens = TokenManager::new(provider.clone());
    assert_eq!(text(&tokens), "token-1");
    let provider = provider.gated();
    let start = Barrier::new(17);
    thread::scope(|scope| {
        let force = || {
            start.wait();
            tokens.force_refresh().unwrap()
        };
        let forcing: Vec<_> = (0..16).map(|_| scope.spawn(force)).collect();
        start.wait();
        assert!(provider.wait_for_calls(2, PATIENCE));
        provider.open();
        assert!(texts(forcing.into_iter().map(|forcing| forcing.join().unwrap())).iter().all(|t| t != "token-1"));
    });
    assert_eq!(provider.max_concurrent_calls(), 1);
}

#[test]
fn force_refresh_respects_the_cooldown_after_a_failure_and_keeps_the_current_token() {
    let provider = FakeProvider::new().then_grant("held", 7200 * SECOND).then_fail(outage());
    let (tokens, _clock) = on_clock(&provider);
    assert_eq!(text(&tokens), "held");
    for _ in 0..10 {
        assert_eq!(tokens.force_refresh().unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!((text(&tokens), provider.calls()), ("held".to_owned(), 2));
}

#[test]
fn force_refresh_returns_an_unchanged_token_and_respects_the_minimum_interval() {
    let clock = FakeClock::new();
    let host = FakeVendor::wecom().clock(&clock);
    let provider = WeCom::new("corp", "secret").base_url(host.url());
    let tokens = TokenManager::builder(provider).clock(clock.clone()).build().unwrap();
    let first = text(&tokens);
    for _ in 0..10 {
        assert_eq!(tokens.force_refresh().unwrap().expose(), first);
    }
    assert_eq!(host.calls(), 2);
    clock.advance(11 * SECOND);
    tokens.force_refresh().unwrap();
    assert_eq!(host.calls(), 3);
}

#[test]
fn status_explains_itself() {
    let provider = FakeProvider::new();
    let (tokens, clock) = on_clock(&provider);
    assert_eq!(tokens.status().state, TokenState::Empty);
    text(&tokens);
    clock.advance(60 * SECOND);
    let status = tokens.status();
    assert_eq!((status.state, status.origin), (TokenState::Fresh, Some(TokenOrigin::Provider)));
    assert_eq!(status.held_for, Some(60 * SECOND));
    assert_eq!((status.refresh_in, status.expires_in), (Some(6840 * SECOND), Some(7140 * SECOND)));
    let shown = status.to_string();
    assert!(shown.contains("fresh") && shown.contains("6840 s"), "{shown}");
    provider.always_fail(Some(outage()));
    clock.advance(7090 * SECOND);
    text(&tokens);
    let status = tokens.status();
    assert_eq!(status.state, TokenState::Expiring);
    assert!(status.retry_in.is_some() && status.to_string().contains("an outage"), "{status}");
}

#[test]
fn metrics_count_what_happened_and_add_up() {
    let provider = FakeProvider::new();
    let tokens = TokenManager::new(provider.clone());
    for _ in 0..10 {
        text(&tokens);
    }
    let metrics = tokens.metrics();
    assert_eq!((metrics.hits, metrics.misses, metrics.waits, metrics.fetches_ok), (9, 1, 1, 1));
    assert_eq!((metrics.fetch_time.count, metrics.wait_time.count), (1, 1));
    assert_eq!(metrics.hit_rate(), Some(0.9));
    let sum: Metrics = [metrics, metrics].into_iter().sum();
    assert_eq!((sum.hits, sum.wait_time.count), (18, 2));
    let json = serde_json::to_value(metrics).unwrap();
    assert_eq!(json["hits"], 9);
}

#[test]
fn clones_are_the_same_manager() {
    let provider = FakeProvider::new();
    let tokens = TokenManager::new(provider.clone());
    let clone = tokens.clone();
    text(&tokens);
    drop(tokens);
    assert_eq!((text(&clone), provider.calls()), ("token-1".to_owned(), 1));
}

#[test]
fn a_call_inside_an_async_runtime_needs_none_and_does_not_panic() {
    // The tree has no async runtime; a future that is polled by hand takes its place.
    use std::future::Future;
    use std::task::{Context, Poll, Waker};
    let tokens = TokenManager::new(FakeProvider::new());
    let mut future = std::pin::pin!(async { text(&tokens) });
    let poll = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(poll, Poll::Ready(token) if token == "token-1"));
}
