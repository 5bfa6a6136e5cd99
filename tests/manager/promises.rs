//! Promises 1 to 5, each with its tests. Promises 6 and 7 are about the shared store: see `tests/sharing` and
//! `tests/redis`.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use evertoken::testing::{FakeProvider, FakeVendor, VendorFault};
use evertoken::{Error, ErrorKind, HttpConfig, TokenManager, WeCom};

use crate::common::wait::*;
use crate::outage;

/// The results of `threads` threads that ask at the same moment.
fn all_at_once(tokens: &TokenManager, threads: usize) -> Vec<Result<String, Error>> {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let ask = || {
            start.wait();
            tokens.token().map(|token| token.expose().to_owned())
        };
        let asking: Vec<_> = (0..threads).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    })
}

mod promise_1_a_valid_token_comes_before_any_fault {
    use super::*;

    #[test]
    fn ten_failed_background_refreshes_reach_no_caller_and_follow_the_backoff() {
        let provider = FakeProvider::new();
        let (tokens, clock) = on_clock(&provider);
        let events = tokens.events();
        assert_eq!(text(&tokens), "token-1");
        provider.always_fail(Some(outage()));
        clock.advance(6900 * SECOND);
        let mut waited = Duration::ZERO;
        for failure in 1..=10 {
            let retry_in = wait_for_failure(&events);
            assert_eq!((text(&tokens), provider.calls()), ("token-1".to_owned(), 1 + failure));
            // The cooldowns add up, and after the tenth of them the token is still outside its safety margin.
            waited += retry_in;
            if waited > 235 * SECOND {
                break;
            }
            clock.advance(retry_in);
        }
        assert_eq!(tokens.metrics().waits, 1, "only the first call waited");
    }

    #[test]
    fn no_caller_waits_while_a_due_token_is_refreshed() {
        let provider = FakeProvider::new();
        let (tokens, clock) = on_clock(&provider);
        assert_eq!(text(&tokens), "token-1");
        let provider = provider.gated();
        clock.advance(6900 * SECOND);
        assert!(provider.wait_for_calls(2, PATIENCE), "the renewal has begun");
        // The fetch cannot end before the permit, so no call has waited for it.
        assert!(all_at_once(&tokens, 8).into_iter().all(|answer| answer.unwrap() == "token-1"));
        assert_eq!((provider.finished(), tokens.metrics().waits), (1, 1));
        let events = tokens.events();
        provider.permit(1);
        wait_for_grant(&events);
        assert_eq!(text(&tokens), "token-2");
    }

    #[test]
    fn an_expiring_token_is_better_than_an_error() {
        let provider = FakeProvider::new();
        let (tokens, clock) = on_clock(&provider);
        assert_eq!(text(&tokens), "token-1");
        provider.always_fail(Some(outage()));
        clock.advance(7150 * SECOND);
        assert_eq!(text(&tokens), "token-1", "the fetch failed");
        assert_eq!(text(&tokens), "token-1", "the pause after the failure is running");
        assert_eq!(tokens.try_token().unwrap().expose(), "token-1");
    }

    #[test]
    fn an_expiring_token_is_better_than_a_timeout() {
        let provider = FakeProvider::new();
        let (tokens, clock) = on_clock(&provider);
        assert_eq!(text(&tokens), "token-1");
        let provider = provider.gated();
        clock.advance(7150 * SECOND);
        assert_eq!(tokens.token_within(Duration::from_millis(30)).unwrap().expose(), "token-1");
        provider.open();
    }

    #[test]
    fn after_shutdown_the_current_token_is_served_until_it_expires() {
        let provider = FakeProvider::new();
        let (tokens, clock) = on_clock(&provider);
        assert_eq!(text(&tokens), "token-1");
        assert!(tokens.shutdown(SECOND));
        clock.advance(7150 * SECOND);
        assert_eq!(text(&tokens), "token-1");
        clock.advance(50 * SECOND);
        assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::Shutdown);
        assert_eq!(provider.calls(), 1);
    }
}

mod promise_2_no_expired_token_is_returned {
    use super::*;

    /// A manager with a token of two hours whose provider grants no other.
    fn last_token() -> (TokenManager, evertoken::testing::FakeClock, FakeProvider) {
        let provider = FakeProvider::new();
        let (tokens, clock) = on_clock(&provider);
        assert_eq!(text(&tokens), "token-1");
        provider.always_fail(Some(outage()));
        (tokens, clock, provider)
    }

    #[test]
    fn no_token_is_returned_in_its_last_five_seconds() {
        let (tokens, clock, _) = last_token();
        clock.advance(7195 * SECOND - Duration::from_nanos(1));
        assert_eq!(text(&tokens), "token-1");
        clock.advance(Duration::from_nanos(1));
        assert!(tokens.token().is_err());
        assert!(tokens.try_token().is_none());
    }

    #[test]
    fn a_laptop_that_slept_three_hours_does_not_return_its_old_token() {
        let (tokens, clock, provider) = last_token();
        provider.always_fail(None);
        clock.suspend(3 * HOUR);
        assert_eq!(text(&tokens), "token-2");
    }

    #[test]
    fn a_wall_clock_set_back_does_not_extend_a_token() {
        let (tokens, clock, _) = last_token();
        clock.step_back(HOUR);
        clock.advance(7195 * SECOND);
        assert!(tokens.token().is_err());
    }

    #[test]
    fn a_wall_clock_set_forward_costs_one_fetch() {
        let (tokens, clock, provider) = last_token();
        provider.always_fail(None);
        clock.step_forward(3 * HOUR);
        assert!(all_at_once(&tokens, 16).into_iter().all(|answer| answer.unwrap() == "token-2"));
        clock.step_back(3 * HOUR);
        assert_eq!((text(&tokens), provider.calls()), ("token-2".to_owned(), 2));
    }

    #[test]
    fn a_slow_response_shortens_the_assumed_lifetime() {
        let clock = evertoken::testing::FakeClock::new();
        let slow = clock.clone();
        let provider = FakeProvider::new().then(move |_| {
            slow.advance(100 * SECOND);
            Ok(evertoken::provider::Grant::new("slow", 7200 * SECOND))
        });
        let tokens = builder(&provider, &clock).build().unwrap();
        assert_eq!(tokens.token().unwrap().remaining(), 7100 * SECOND);
    }

    #[test]
    fn margins_never_extend_short_lifetimes() {
        let provider = FakeProvider::new().lifetime(10 * SECOND);
        let (tokens, clock) = on_clock(&provider);
        assert_eq!(text(&tokens), "token-1");
        provider.always_fail(Some(outage()));
        clock.advance(Duration::from_millis(9_900));
        assert!(tokens.token().is_err());
    }

    #[test]
    fn a_token_that_is_granted_expired_is_an_error_with_the_usual_cooldown() {
        let provider = FakeProvider::new().lifetime(Duration::from_nanos(1));
        let (tokens, _clock) = on_clock(&provider);
        for _ in 0..10 {
            assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::InvalidResponse);
        }
        assert_eq!(provider.calls(), 1);
    }

    #[test]
    fn an_unchanged_token_keeps_the_end_that_an_abandoned_fetch_brought() {
        let (release, gate) = crossbeam_channel::bounded::<()>(0);
        let (release_second, second_gate) = crossbeam_channel::bounded::<()>(0);
        let same = move |gate: crossbeam_channel::Receiver<()>| {
            move |_: &evertoken::provider::Context| {
                let _ = gate.recv();
                Ok(evertoken::provider::Grant::new("same", 7200 * SECOND))
            }
        };
        let provider = FakeProvider::new().then(same(gate)).then(same(second_gate));
        let clock = evertoken::testing::FakeClock::new();
        let http = HttpConfig::default().timeout(Duration::from_millis(50));
        let tokens = builder(&provider, &clock).http(http).build().unwrap();
        let events = tokens.events();
        assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::Unavailable);
        clock.advance(60 * SECOND);
        tokens.warm_up();
        assert!(provider.wait_for_calls(2, PATIENCE));
        drop(release);
        wait_for_grant(&events);
        assert_eq!(tokens.token().unwrap().remaining(), 7140 * SECOND);
        drop(release_second);
        wait_for_same(&events);
        assert_eq!(tokens.token().unwrap().remaining(), 7140 * SECOND);
    }

    #[test]
    fn a_corrected_clock_does_not_expire_a_token_that_the_provider_still_grants() {
        let provider = FakeProvider::new().then_grant("same", 7200 * SECOND).then_unchanged();
        let (tokens, clock) = on_clock(&provider);
        text(&tokens);
        clock.advance(600 * SECOND);
        clock.step_forward(24 * HOUR);
        let again = tokens.token().unwrap();
        assert_eq!((again.expose(), again.remaining()), ("same", 6600 * SECOND));
    }

    #[test]
    fn the_vendor_accepts_every_returned_token_while_tokens_expire_all_the_time() {
        // In real time, over a real socket: twelve lifetimes of a second, in which the vendor checks every token.
        let host = FakeVendor::wecom().lifetime(SECOND).renews_within(Duration::from_millis(300));
        let provider = WeCom::new("corp", "secret").base_url(host.url());
        let tokens = TokenManager::builder(provider).build().unwrap();
        let end = Instant::now() + 6 * SECOND;
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while Instant::now() < end {
                        let token = tokens.token().unwrap();
                        let returned_at = Instant::now();
                        let is_valid = host.is_valid(token.expose());
                        // A thread that was suspended in between proves nothing.
                        assert!(is_valid || returned_at.elapsed() > Duration::from_millis(5), "an expired token");
                        thread::yield_now();
                    }
                });
            }
        });
        assert!(host.granted().len() >= 5);
    }
}

mod promise_3_many_callers_cost_one_fetch {
    use super::*;

    #[test]
    fn ten_a_hundred_and_a_thousand_threads_cost_one_fetch() {
        for threads in [10, 100, 1000] {
            let provider = FakeProvider::new().gated();
            let tokens = TokenManager::new(provider.clone());
            let answers = thread::scope(|scope| {
                let asking = scope.spawn(|| all_at_once(&tokens, threads));
                assert!(provider.wait_for_calls(1, PATIENCE));
                provider.permit(1);
                asking.join().unwrap()
            });
            assert_eq!(answers.len(), threads);
            assert!(answers.into_iter().all(|answer| answer.unwrap() == "token-1"));
            assert_eq!(provider.calls(), 1);
        }
    }

    #[test]
    fn one_failed_fetch_answers_a_hundred_threads_until_its_retry_time() {
        let provider = FakeProvider::new();
        provider.always_fail(Some(outage()));
        let (tokens, clock) = on_clock(&provider);
        let mut pause = Duration::ZERO;
        for fetches in 1..=4 {
            clock.advance(pause);
            for answer in all_at_once(&tokens, 100) {
                let error = answer.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                pause = error.retry_after().unwrap();
            }
            assert_eq!(provider.calls(), fetches);
        }
        assert!(pause >= 6 * SECOND, "the fourth pause is 8 s, give or take a fifth");
    }

    #[test]
    fn a_fetch_whose_callers_all_left_still_serves_the_next_caller() {
        let provider = FakeProvider::new().gated();
        let tokens = TokenManager::new(provider.clone());
        let events = tokens.events();
        assert_eq!(tokens.token_within(Duration::from_millis(20)).unwrap_err().kind(), ErrorKind::TimedOut);
        provider.permit(1);
        wait_for_grant(&events);
        assert_eq!((text(&tokens), provider.calls()), ("token-1".to_owned(), 1));
    }

    #[test]
    fn a_burst_of_calls_after_an_idle_expiry_costs_one_fetch_and_returns_no_expired_token() {
        let provider = FakeProvider::new();
        let (tokens, clock) = on_clock(&provider);
        assert_eq!(text(&tokens), "token-1");
        provider.clone().gated();
        clock.advance(24 * HOUR);
        let answers = thread::scope(|scope| {
            let asking = scope.spawn(|| all_at_once(&tokens, 64));
            assert!(provider.wait_for_calls(2, PATIENCE));
            provider.open();
            asking.join().unwrap()
        });
        assert!(answers.into_iter().all(|answer| answer.unwrap() != "token-1"));
        // The first call was a use, so one refresh may have been in flight when the clock jumped.
        assert!(provider.calls() <= 3);
    }
}

mod promise_4_a_rejected_token_is_not_returned_again {
    use super::*;

    #[test]
    fn a_thousand_rejections_of_one_token_cost_one_fetch() {
        let provider = FakeProvider::new();
        let tokens = TokenManager::new(provider.clone());
        let first = tokens.token().unwrap();
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        tokens.reject(&first).unwrap();
                        assert_ne!(text(&tokens), "token-1");
                    }
                });
            }
        });
        assert_eq!((provider.calls(), tokens.metrics().rejections), (2, 1));
    }

    #[test]
    fn rejecting_a_token_that_has_been_replaced_costs_nothing() {
        let provider = FakeProvider::new();
        let tokens = TokenManager::new(provider.clone());
        let first = tokens.token().unwrap();
        assert_eq!(tokens.force_refresh().unwrap().expose(), "token-2");
        for _ in 0..100 {
            tokens.reject(&first).unwrap();
        }
        assert_eq!((text(&tokens), provider.calls()), ("token-2".to_owned(), 2));
    }

    #[test]
    fn no_thread_gets_a_token_after_its_rejection_has_returned() {
        let provider = FakeProvider::new();
        let tokens = TokenManager::builder(provider.clone()).build().unwrap();
        for _ in 0..3 {
            let bad = tokens.token().unwrap();
            tokens.reject(&bad).unwrap();
            for answer in all_at_once(&tokens, 24) {
                // The third rejection of a young token in a row starts a cooldown; an error is not the rejected token.
                assert_ne!(answer.unwrap_or_default(), bad.expose());
            }
        }
    }

    #[test]
    fn a_rejected_token_does_not_come_back_with_the_fetch_in_flight() {
        let provider = FakeProvider::new().then_grant("same", 7200 * SECOND);
        let (tokens, clock) = on_clock(&provider);
        let bad = tokens.token().unwrap();
        let provider = provider.gated().then_grant("same", 7200 * SECOND).then_grant("other", 7200 * SECOND);
        clock.advance(6900 * SECOND);
        assert!(provider.wait_for_calls(2, PATIENCE), "the renewal is in the air");
        tokens.reject(&bad).unwrap();
        provider.permit(2);
        assert_eq!(text(&tokens), "other");
    }

    #[test]
    fn a_rejection_does_not_shorten_the_cooldown_after_a_failure() {
        let provider = FakeProvider::new();
        let (tokens, clock) = on_clock(&provider);
        let events = tokens.events();
        let bad = tokens.token().unwrap();
        provider.always_fail(Some(outage()));
        clock.advance(6900 * SECOND);
        wait_for_failure(&events);
        tokens.reject(&bad).unwrap();
        for _ in 0..50 {
            let error = tokens.token().unwrap_err();
            assert!(error.retry_after().is_some());
        }
        assert_eq!(provider.calls(), 2);
    }

    #[test]
    fn a_reinstated_token_is_used_and_its_rejections_are_ignored_for_a_while() {
        let provider = FakeProvider::new().then_grant("same", 7200 * SECOND).then_unchanged().then_unchanged();
        let (tokens, clock) = on_clock(&provider);
        let token = tokens.token().unwrap();
        tokens.reject(&token).unwrap();
        assert_eq!(text(&tokens), "same");
        for _ in 0..100 {
            tokens.reject(&token).unwrap();
            assert_eq!(text(&tokens), "same");
        }
        assert_eq!((provider.calls(), tokens.metrics().reinstated_tokens), (2, 1));
        clock.advance(31 * SECOND);
        tokens.reject(&token).unwrap();
        assert_eq!((text(&tokens), provider.calls()), ("same".to_owned(), 3));
    }

    #[test]
    fn rejections_on_different_days_are_not_in_a_row() {
        let provider = FakeProvider::new();
        let (tokens, clock) = on_clock(&provider);
        for _ in 0..5 {
            let bad = tokens.token().unwrap();
            tokens.reject(&bad).unwrap();
            assert!(tokens.token().is_ok());
            clock.advance(24 * HOUR);
        }
    }

    #[test]
    fn rejections_in_a_row_do_not_shorten_the_cooldown_that_the_provider_asked_for() {
        let throttled = Error::new(ErrorKind::Throttled, "slow down").with_retry_after(HOUR);
        let provider = FakeProvider::new();
        let (tokens, _clock) = on_clock(&provider);
        for _ in 0..2 {
            let bad = tokens.token().unwrap();
            tokens.reject(&bad).unwrap();
        }
        let bad = tokens.token().unwrap();
        let _ = provider.clone().then_fail(throttled);
        tokens.force_refresh().unwrap_err();
        tokens.reject(&bad).unwrap();
        assert_eq!(tokens.status().retry_in, Some(HOUR));
    }

    #[test]
    fn a_service_that_refuses_every_token_does_not_cause_a_fetch_for_each_rejection() {
        let provider = FakeProvider::new();
        let (tokens, clock) = on_clock(&provider);
        for _ in 0..3 {
            let token = tokens.token().unwrap();
            tokens.reject(&token).unwrap();
        }
        let error = tokens.token().unwrap_err();
        assert_eq!((error.kind(), provider.calls()), (ErrorKind::TokenRejected, 3));
        clock.advance(error.retry_after().unwrap());
        assert_eq!(text(&tokens), "token-4");
    }
}

mod promise_5_every_call_returns_by_its_deadline {
    use super::*;

    #[test]
    fn token_within_is_bounded_whatever_the_provider_does() {
        let provider = FakeProvider::new().gated();
        let tokens = TokenManager::new(provider.clone());
        let asked = Instant::now();
        assert_eq!(tokens.token_within(Duration::from_millis(50)).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(tokens.token_within(Duration::ZERO).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(asked.elapsed() < 5 * SECOND);
        provider.open();
    }

    #[test]
    fn max_wait_bounds_a_call_and_the_fetch_goes_on() {
        let provider = FakeProvider::new().gated();
        let tokens = TokenManager::builder(provider.clone()).max_wait(Duration::from_millis(50)).build().unwrap();
        let asked = Instant::now();
        assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(tokens.force_refresh().unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(asked.elapsed() < 5 * SECOND);
        provider.open();
    }

    #[test]
    fn a_silent_and_a_trickling_host_cost_no_more_than_the_http_time_limit() {
        for outage in [VendorFault::Hang, VendorFault::Trickle] {
            let host = FakeVendor::wecom();
            host.fail_with(outage);
            let provider = WeCom::new("corp", "secret").base_url(host.url());
            let http = HttpConfig::default().timeout(Duration::from_millis(300));
            let tokens = TokenManager::builder(provider).http(http).build().unwrap();
            let asked = Instant::now();
            assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::Unavailable, "{outage:?}");
            assert!(asked.elapsed() < 5 * SECOND, "{outage:?}");
        }
    }

    #[test]
    fn a_fetch_that_never_returns_is_abandoned_and_the_next_one_works() {
        let provider = FakeProvider::new().gated();
        let http = HttpConfig::default().timeout(Duration::from_millis(50));
        let tokens = TokenManager::builder(provider.clone())
            .http(http)
            .backoff(Duration::from_millis(10), Duration::from_millis(10))
            .build()
            .unwrap();
        let error = tokens.token().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        thread::scope(|scope| {
            // The first fetch still hangs at the gate, and no caller waits for it any more.
            eventually("a second fetch is made", || {
                tokens.warm_up();
                provider.calls() == 2
            });
            let asking = scope.spawn(|| tokens.token());
            provider.permit(2);
            assert!(asking.join().unwrap().is_ok());
        });
    }

    #[test]
    fn a_provider_that_calls_its_own_manager_gets_an_error_and_no_deadlock() {
        use std::sync::{Arc, OnceLock};
        let own: Arc<OnceLock<TokenManager>> = Arc::default();
        let inner = own.clone();
        let provider = FakeProvider::new().then(move |_| Err(inner.get().unwrap().token().unwrap_err()));
        let tokens = TokenManager::new(provider.clone());
        own.set(tokens.clone()).unwrap();
        let error = tokens.token().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("its own manager"), "{error}");
    }

    #[test]
    fn two_managers_whose_providers_call_each_other_get_an_error_and_no_deadlock() {
        use std::sync::{Arc, OnceLock};
        let (one, other): (Arc<OnceLock<TokenManager>>, Arc<OnceLock<TokenManager>>) = Default::default();
        let asking = |manager: &Arc<OnceLock<TokenManager>>| {
            let manager = manager.clone();
            FakeProvider::new().then(move |_| Err(manager.get().unwrap().token().unwrap_err()))
        };
        let _ = one.set(TokenManager::new(asking(&other)));
        let _ = other.set(TokenManager::new(asking(&one)));
        let asked = Instant::now();
        assert_eq!(one.get().unwrap().token().unwrap_err().kind(), ErrorKind::Config);
        assert!(asked.elapsed() < 4 * SECOND);
    }
}
