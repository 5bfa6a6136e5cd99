//! Providers that fail: cooldowns, retries and what callers get meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use evertoken::provider::Grant;
use evertoken::testing::{FakeClock, FakeProvider, FakeVendor, VendorFault};
use evertoken::{Error, ErrorKind, HttpConfig, OAuth2, TokenManager, WeCom};

use crate::common::wait::*;
use crate::outage;

#[test]
fn a_panic_is_an_error_for_all_callers_and_blocks_no_later_fetch() {
    let provider = FakeProvider::new().then_panic();
    let (tokens, clock) = on_clock(&provider);
    let errors: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> = (0..16).map(|_| scope.spawn(|| tokens.token().unwrap_err())).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Panicked));
    clock.advance(errors[0].retry_after().unwrap() + SECOND);
    assert_eq!(text(&tokens), "token-1");
}

#[test]
fn a_panic_during_a_background_refresh_reaches_no_caller() {
    let provider = FakeProvider::new();
    let (tokens, clock) = on_clock(&provider);
    let events = tokens.events();
    text(&tokens);
    let _ = provider.clone().then_panic();
    clock.advance(6900 * SECOND);
    let retry_in = wait_for_failure(&events);
    assert_eq!(text(&tokens), "token-1");
    clock.advance(retry_in);
    wait_for_grant(&events);
    assert_eq!(text(&tokens), "token-2");
}

#[test]
fn the_late_token_of_an_abandoned_fetch_is_used_unless_there_is_a_better_one() {
    for (held, expected) in [(HOUR, "second"), (60 * SECOND, "first")] {
        let (release, gate) = crossbeam_channel::bounded::<()>(0);
        let calls = AtomicUsize::new(0);
        let provider = evertoken::provider::from_fn("twice", move |_| {
            if calls.fetch_add(1, Ordering::SeqCst) > 0 {
                return Ok(Grant::new("second", held));
            }
            let _ = gate.recv();
            Ok(Grant::new("first", 600 * SECOND))
        });
        let tokens = TokenManager::builder(provider)
            .http(HttpConfig::default().timeout(Duration::from_millis(20)))
            .backoff(Duration::from_millis(1), Duration::from_millis(1))
            .build()
            .unwrap();
        assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::Unavailable);
        eventually("the second fetch works", || tokens.token().is_ok());
        assert_eq!(text(&tokens), "second");
        let events = tokens.events();
        drop(release);
        if expected == "first" {
            wait_for_grant(&events);
        }
        assert!(events.recv_timeout(Duration::from_millis(50)).is_err());
        assert_eq!(text(&tokens), expected);
    }
}

#[test]
fn a_wrong_secret_costs_one_call_in_thirty_seconds() {
    let clock = FakeClock::new();
    let host = FakeVendor::wecom();
    let provider = WeCom::new("corp", "wrong").base_url(host.url());
    let tokens = TokenManager::builder(provider).clock(clock.clone()).build().unwrap();
    for _ in 0..50 {
        let error = tokens.token().unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::InvalidCredentials, false));
    }
    assert_eq!(host.calls(), 1);
    clock.advance(29 * SECOND);
    tokens.token().unwrap_err();
    assert_eq!(host.calls(), 1);
    clock.advance(SECOND);
    tokens.token().unwrap_err();
    assert_eq!(host.calls(), 2);
}

#[test]
fn retry_after_of_the_provider_is_respected_to_the_second() {
    let clock = FakeClock::new();
    let host = FakeVendor::oauth2();
    host.fail_with(VendorFault::Throttle { retry_after: 90 * SECOND });
    let provider = OAuth2::new(host.token_url(), "client", "secret");
    let tokens = TokenManager::builder(provider).clock(clock.clone()).build().unwrap();
    let error = tokens.token().unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Throttled, Some(90 * SECOND)));
    host.recover();
    clock.advance(89 * SECOND);
    assert_eq!(tokens.token().unwrap_err().retry_after(), Some(SECOND));
    assert_eq!(host.calls(), 1);
    clock.advance(SECOND);
    assert!(tokens.token().is_ok());
}

#[test]
fn every_outage_of_a_vendor_is_a_typed_error_and_ends_with_the_outage() {
    for outage in [
        VendorFault::Status(500),
        VendorFault::Status(503),
        VendorFault::Code(-1),
        VendorFault::Drop,
        VendorFault::Garbage,
        VendorFault::HalfReply,
    ] {
        let clock = FakeClock::new();
        let host = FakeVendor::wecom();
        host.fail_with(outage);
        let provider = WeCom::new("corp", "secret").base_url(host.url());
        let tokens = TokenManager::builder(provider).clock(clock.clone()).build().unwrap();
        let error = tokens.token().unwrap_err();
        assert!(error.is_retryable(), "{outage:?}: {error}");
        host.recover();
        clock.advance(error.retry_after().unwrap());
        assert!(tokens.token().is_ok(), "{outage:?}");
    }
}

#[test]
fn a_thousand_failures_stay_at_the_longest_cooldown() {
    let provider = FakeProvider::new();
    provider.always_fail(Some(outage()));
    let (tokens, clock) = on_clock(&provider);
    for _ in 0..1000 {
        let retry_in = tokens.token().unwrap_err().retry_after().unwrap();
        assert!(retry_in <= 72 * SECOND);
        clock.advance(retry_in);
    }
    assert_eq!(provider.calls(), 1000);
}

#[test]
fn invalidate_ends_the_cooldown_and_forgets_the_token() {
    let provider = FakeProvider::new().then_fail(Error::new(ErrorKind::InvalidCredentials, "wrong"));
    let (tokens, _clock) = on_clock(&provider);
    tokens.token().unwrap_err();
    tokens.invalidate().unwrap();
    assert_eq!(text(&tokens), "token-1");
    tokens.invalidate().unwrap();
    assert_eq!((text(&tokens), provider.calls()), ("token-2".to_owned(), 3));
}

#[test]
fn a_fetch_in_flight_during_invalidate_is_not_kept() {
    let provider = FakeProvider::new().gated();
    let tokens = TokenManager::new(provider.clone());
    tokens.warm_up();
    assert!(provider.wait_for_calls(1, PATIENCE));
    tokens.invalidate().unwrap();
    provider.permit(2);
    assert_eq!(text(&tokens), "token-2");
}
