//! Settings, and values that are refused.

use std::time::Duration;

use evertoken::testing::{FakeClock, FakeProvider, FakeVendor};
use evertoken::{ErrorKind, TokenManager, TokenState, WeCom};

use crate::common::wait::*;
use crate::outage;

fn refusal(change: impl FnOnce(evertoken::TokenManagerBuilder) -> evertoken::TokenManagerBuilder) -> String {
    let error = change(TokenManager::builder(FakeProvider::new())).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

#[test]
fn build_says_which_setting_is_wrong() {
    let zero = Duration::ZERO;
    assert!(refusal(|builder| builder.namespace("a:b")).contains("namespace"));
    assert!(refusal(|builder| builder.namespace("")).contains("namespace"));
    assert!(refusal(|builder| builder.key("a b")).contains("key"));
    assert!(refusal(|builder| builder.jitter(1.1)).contains("jitter"));
    assert!(refusal(|builder| builder.jitter(f64::NAN)).contains("jitter"));
    assert!(refusal(|builder| builder.max_wait(zero)).contains("max_wait"));
    assert!(refusal(|builder| builder.backoff(zero, SECOND)).contains("backoff"));
    assert!(refusal(|builder| builder.backoff(2 * SECOND, SECOND)).contains("backoff"));
    assert!(refusal(|builder| builder.refresh_after(zero)).contains("refresh_after"));
    assert!(refusal(|builder| builder.log_metrics_every(zero)).contains("log_metrics_every"));
    let store = evertoken::MemoryStore::new();
    assert!(refusal(|builder| builder.store(store).max_wait(12 * SECOND)).contains("max_wait"));
}

#[test]
fn extreme_durations_are_clamped_and_make_nothing_panic() {
    for extreme in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let provider = FakeProvider::new().lifetime(10 * SECOND);
        let clock = FakeClock::new();
        let later = extreme.max(Duration::from_nanos(1));
        let tokens = builder(&provider, &clock)
            .refresh_ahead(extreme)
            .refresh_after(later)
            .safety_margin(extreme)
            .store_check_interval(extreme)
            .store_down_fetch_interval(extreme)
            .max_wait(later.max(SECOND))
            .backoff(later, Duration::MAX)
            .log_metrics_every(later)
            .build()
            .unwrap();
        assert!(text(&tokens).starts_with("token-"), "{extreme:?}");
        assert!(tokens.token_within(extreme).is_ok() || extreme.is_zero());
        provider.always_fail(Some(outage()));
        clock.advance(11 * SECOND);
        assert!(tokens.token_within(SECOND).is_err());
    }
}

#[test]
fn a_wrong_setting_of_the_provider_is_returned_by_every_call() {
    let tokens = TokenManager::new(WeCom::new("", "secret"));
    let token = TokenManager::new(FakeProvider::new()).token().unwrap();
    for error in [
        tokens.token().unwrap_err(),
        tokens.force_refresh().unwrap_err(),
        tokens.reject(&token).unwrap_err(),
        tokens.invalidate().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    assert!(tokens.try_token().is_none());
    assert_eq!(tokens.status().state, TokenState::Empty);
}

#[test]
fn building_a_manager_opens_no_socket() {
    let host = FakeVendor::wecom();
    let provider = WeCom::new("corp", "secret").base_url(host.url());
    drop(TokenManager::builder(provider).build().unwrap());
    assert_eq!(host.calls(), 0);
}
