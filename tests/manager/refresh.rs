//! What a manager does besides keeping its promises.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use evertoken::clock::Clock;
use evertoken::provider::{Grant, Identity};
use evertoken::testing::{FakeClock, FakeProvider, FakeVendor, VendorFault};
use evertoken::{
    Error, ErrorKind, EventKind, HttpConfig, Metrics, OAuth2, TokenManager, TokenOrigin, TokenPool, TokenState, WeCom,
};

use crate::common::clocks::PanickingClock;
use crate::common::wait::*;

fn outage() -> Error {
    Error::new(ErrorKind::Unavailable, "an outage")
}

mod renewal {
    use super::*;

    #[test]
    fn a_used_token_is_renewed_five_minutes_before_its_end() {
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
    fn a_token_that_nobody_used_since_its_renewal_is_left_until_it_is_used_again() {
        let provider = FakeProvider::new();
        let (tokens, clock) = on_clock(&provider);
        let events = tokens.events();
        text(&tokens);
        wait_for_grant(&events);
        clock.advance(6900 * SECOND);
        wait_for_grant(&events);
        // Nobody has used token-2. It comes due, and stays.
        clock.advance(6900 * SECOND);
        assert!(events.recv_timeout(Duration::from_millis(100)).is_err());
        assert_eq!(provider.calls(), 2);
        // The first use gets it at once and has it renewed.
        assert_eq!(text(&tokens), "token-2");
        wait_for_grant(&events);
        assert_eq!(text(&tokens), "token-3");
    }

    #[test]
    fn keep_warm_renews_what_nobody_uses() {
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
    fn keep_warm_goes_on_after_an_outage_that_outlived_the_token() {
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
    fn a_token_that_is_dead_and_unused_is_wiped_and_its_manager_left_alone() {
        let provider = FakeProvider::new();
        let (tokens, clock) = on_clock(&provider);
        let events = tokens.events();
        tokens.warm_up();
        wait_for_grant(&events);
        clock.advance(8000 * SECOND);
        eventually("it is wiped", || tokens.status().state == TokenState::Empty);
        assert_eq!(provider.calls(), 1);
    }

    #[test]
    fn refresh_after_renews_sooner() {
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
    fn lives_of_five_seconds_make_no_busy_loop() {
        let provider = FakeProvider::new().lifetime(5 * SECOND);
        let (tokens, clock) = on_clock(&provider);
        let events = tokens.events();
        text(&tokens);
        wait_for_grant(&events);
        for renewals in 1..=20 {
            // Two thirds of the life: when it is due, and not before.
            clock.advance(Duration::from_millis(3_330));
            assert_eq!((text(&tokens), provider.calls()), (format!("token-{renewals}"), renewals));
            clock.advance(Duration::from_millis(4));
            wait_for_grant(&events);
        }
    }

    #[test]
    fn a_slow_provider_delays_the_renewal_of_nobody_else() {
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
    fn at_most_eight_renewals_are_under_way_at_once() {
        let clock = FakeClock::new();
        // One provider behind forty managers counts for all of them.
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
}

mod the_same_token_back {
    use super::*;

    #[test]
    fn it_is_no_renewal_keeps_its_end_and_is_tried_again_when_it_can_change() {
        let clock = FakeClock::new();
        let host = FakeVendor::wecom().clock(&clock);
        let provider = WeCom::new("corp", "secret").base_url(host.url());
        let tokens = TokenManager::builder(provider).clock(clock.clone()).jitter(0.0).build().unwrap();
        let events = tokens.events();
        let first = tokens.token().unwrap();
        clock.advance(6900 * SECOND);
        // WeCom gives the same token and says 7,200 s again.
        assert_eq!(wait_for_same(&events), 300 * SECOND);
        let again = tokens.token().unwrap();
        assert_eq!((again.expose(), again.remaining()), (first.expose(), 300 * SECOND));
        let metrics = tokens.metrics();
        assert_eq!((metrics.background_refreshes, metrics.unchanged_tokens, host.calls()), (0, 1, 2));
        // Inside the margin nobody asks again in vain.
        clock.advance(250 * SECOND);
        assert_eq!(text(&tokens), first.expose());
        assert_eq!(host.calls(), 2);
        clock.advance(50 * SECOND);
        assert_ne!(text(&tokens), first.expose());
        assert_eq!(host.calls(), 3);
    }

    #[test]
    fn callers_wait_while_a_token_that_is_over_has_not_been_replaced() {
        let provider = FakeProvider::new().lifetime(7200 * SECOND);
        let (tokens, clock) = on_clock(&provider);
        text(&tokens);
        let _ = provider.clone().then_unchanged().then_unchanged().then_unchanged();
        clock.advance(7300 * SECOND);
        let asked = std::time::Instant::now();
        assert_eq!(text(&tokens), "token-2");
        // The pauses grow: 100, 200 and 400 ms.
        assert!(asked.elapsed() >= Duration::from_millis(500), "{:?}", asked.elapsed());
        assert!(provider.calls() <= 6);
    }

    #[test]
    fn a_token_that_stays_the_same_for_ever_does_not_hold_up_callers_beyond_their_time() {
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
    fn a_provider_that_extends_the_same_token_is_believed() {
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
    fn nothing_is_asked_before_the_provider_can_give_something_new() {
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
}

mod failures {
    use super::*;

    #[test]
    fn a_panic_is_an_error_for_everybody_and_leaves_nothing_stuck() {
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
    fn a_panic_during_a_renewal_is_noticed_by_no_caller() {
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
    fn a_fetch_that_was_given_up_does_not_replace_a_better_token_and_is_not_lost_without_one() {
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
    fn retry_after_of_the_provider_is_kept_to_the_second() {
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
    fn every_outage_of_a_vendor_is_a_typed_error_and_ends_with_it() {
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
    fn a_thousand_failures_keep_the_longest_pause() {
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
    fn invalidate_ends_the_pause_and_forgets_the_token() {
        let provider = FakeProvider::new().then_fail(Error::new(ErrorKind::InvalidCredentials, "wrong"));
        let (tokens, _clock) = on_clock(&provider);
        tokens.token().unwrap_err();
        tokens.invalidate().unwrap();
        assert_eq!(text(&tokens), "token-1");
        tokens.invalidate().unwrap();
        assert_eq!((text(&tokens), provider.calls()), ("token-2".to_owned(), 3));
    }

    #[test]
    fn what_was_under_way_when_all_was_forgotten_is_not_kept() {
        let provider = FakeProvider::new().gated();
        let tokens = TokenManager::new(provider.clone());
        tokens.warm_up();
        assert!(provider.wait_for_calls(1, PATIENCE));
        tokens.invalidate().unwrap();
        provider.permit(2);
        assert_eq!(text(&tokens), "token-2");
    }
}

mod calls {
    use super::*;

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
    fn force_refresh_brings_another_token_while_everybody_else_gets_the_held_one() {
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
    fn force_refresh_respects_the_pause_after_a_failure_and_leaves_the_held_token() {
        let provider = FakeProvider::new().then_grant("held", 7200 * SECOND).then_fail(outage());
        let (tokens, _clock) = on_clock(&provider);
        assert_eq!(text(&tokens), "held");
        for _ in 0..10 {
            assert_eq!(tokens.force_refresh().unwrap_err().kind(), ErrorKind::Unavailable);
        }
        assert_eq!((text(&tokens), provider.calls()), ("held".to_owned(), 2));
    }

    #[test]
    fn force_refresh_returns_the_same_token_where_the_provider_has_no_other_and_asks_seldom() {
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
    fn metrics_tell_what_happened_and_add_up() {
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
        // There is no runtime in the tree; a future that is polled by hand stands for one.
        use std::future::Future;
        use std::task::{Context, Poll, Waker};
        let tokens = TokenManager::new(FakeProvider::new());
        let mut future = std::pin::pin!(async { text(&tokens) });
        let poll = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(poll, Poll::Ready(token) if token == "token-1"));
    }
}

mod settings {
    use super::*;

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
    fn building_opens_no_socket() {
        let host = FakeVendor::wecom();
        let provider = WeCom::new("corp", "secret").base_url(host.url());
        drop(TokenManager::builder(provider).build().unwrap());
        assert_eq!(host.calls(), 0);
    }
}

mod pool {
    use super::*;

    fn tenant(name: &'static str) -> impl FnOnce() -> FakeProvider {
        move || FakeProvider::new().with_identity(Identity::new("fake").part("tenant", name))
    }

    #[test]
    fn each_tenant_has_one_manager() {
        let pool = TokenPool::new();
        let one = pool.manager(&"a", tenant("a")).unwrap();
        let again = pool.manager(&"a", || -> FakeProvider { panic!("there is one already") }).unwrap();
        let other = pool.manager(&"b", tenant("b")).unwrap();
        assert_eq!(one.key(), again.key());
        assert_ne!(one.key(), other.key());
        assert_eq!(pool.len(), 2);
    }

    #[test]
    fn the_least_recently_used_goes_and_its_handles_and_numbers_stay() {
        let pool = TokenPool::new().capacity(2);
        let first = pool.manager(&"a", tenant("a")).unwrap();
        text(&first);
        pool.manager(&"b", tenant("b")).unwrap();
        pool.manager(&"a", tenant("a")).unwrap();
        pool.manager(&"c", tenant("c")).unwrap();
        assert_eq!(pool.len(), 2);
        let mut made = false;
        pool.manager(&"b", || {
            made = true;
            FakeProvider::new()
        })
        .unwrap();
        assert!(made, "b was the one that went");
        assert_eq!((text(&first), pool.metrics().fetches_ok), ("token-1".to_owned(), 1));
    }

    #[test]
    fn a_wrong_provider_is_not_kept() {
        let pool = TokenPool::new();
        assert_eq!(pool.manager(&1, || WeCom::new("", "")).unwrap_err().kind(), ErrorKind::Config);
        assert!(pool.is_empty());
    }

    #[test]
    fn threads_that_ask_for_one_tenant_at_once_get_one_manager() {
        let pool = TokenPool::new();
        let provider = FakeProvider::new();
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| text(&pool.manager(&1, || provider.clone()).unwrap()));
            }
        });
        assert_eq!((pool.len(), provider.calls()), (1, 1));
    }
}

mod closures {
    use super::*;

    #[test]
    fn a_closure_is_a_provider() {
        let provider = evertoken::provider::from_fn("mine", |_| Ok(Grant::new("from a closure", SECOND)));
        let error = TokenManager::new(provider).token().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidResponse, "a blank is no part of a token");
        let provider = evertoken::provider::from_fn("mine", |_| Ok(Grant::new("closure", None)));
        let token = TokenManager::new(provider).token().unwrap();
        assert!(token.remaining() > 290 * SECOND && token.remaining() <= 300 * SECOND);
    }
}

#[test]
fn a_clock_that_panics_ends_no_other_managers_renewals() {
    let clock = PanickingClock::for_thread("evertoken-refresher");
    let broken = TokenManager::builder(FakeProvider::new()).clock(clock.clone()).build().unwrap();
    text(&broken);
    let (healthy, time) = on_clock(&FakeProvider::new());
    let events = healthy.events();
    text(&healthy);
    wait_for_grant(&events);
    text(&healthy);
    clock.broken.store(true, Ordering::SeqCst);
    clock.clock.advance(SECOND);
    eventually("the refresher reads the broken clock", || clock.panics.load(Ordering::SeqCst) > 0);
    time.advance(6900 * SECOND);
    wait_for_grant(&events);
    assert_eq!(healthy.metrics().background_refreshes, 1);
    assert_eq!(clock.panics.load(Ordering::SeqCst), 1, "it is not read again and again");
    // When it is well again, its manager is looked after again.
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
fn a_lead_shorter_than_the_margin_still_renews_in_the_background() {
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
fn the_largest_jitter_moves_no_renewal_into_the_safety_margin() {
    for _ in 0..100 {
        let tokens = builder(&FakeProvider::new(), &FakeClock::new()).jitter(1.0).build().unwrap();
        text(&tokens);
        assert!(tokens.status().refresh_in.unwrap() <= 7140 * SECOND);
    }
}
