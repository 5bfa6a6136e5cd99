//! Properties of a whole process: its threads, its end, its forked children. Each test runs in a process of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use evertoken::provider::{self, Grant, Provider};
use evertoken::testing::{FakeProvider, FakeVendor, VendorFault};
use evertoken::{FileStore, HttpConfig, OAuth2, TokenManager, WeCom};

use crate::common::alone::alone;
use crate::common::wait::*;

/// The names of the running threads of this library.
fn threads() -> Vec<String> {
    let names = fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        // A thread may end between the listing and the read.
        fs::read_to_string(task.ok()?.path().join("comm")).ok()
    });
    names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("evertoken")).collect()
}

/// Waits until no thread of this library is left, and returns the time that took.
fn until_no_thread() -> Duration {
    let start = Instant::now();
    eventually("all threads end", || threads().is_empty());
    start.elapsed()
}

#[test]
fn promise_9_no_thread_runs_without_a_token() {
    alone(|| {
        let managers: Vec<_> = (0..100).map(|_| TokenManager::new(FakeProvider::new())).collect();
        assert!(threads().is_empty(), "{:?}", threads());
        drop(managers);
    });
}

#[test]
fn promise_9_a_thousand_managers_share_one_thread_that_ends_with_the_last_of_them() {
    alone(|| {
        let mut managers: Vec<_> = (0..1000).map(|_| TokenManager::new(FakeProvider::new())).collect();
        managers.iter().for_each(|manager| drop(text(manager)));
        // The thread of a fetch ends a moment after its callers got the token.
        eventually("no fetch is in flight", || threads().len() == 1);
        assert_eq!(threads(), ["evertoken-sched"]);
        let last = managers.pop().unwrap();
        drop(managers);
        assert_eq!(threads(), ["evertoken-sched"]);
        let dropping = Instant::now();
        drop(last);
        assert!(dropping.elapsed() < Duration::from_millis(50), "drop never waits");
        assert!(until_no_thread() < Duration::from_millis(100));
    });
}

#[test]
fn promise_9_one_read_of_a_token_from_a_file_starts_no_thread() {
    alone(|| {
        let (folder, provider) = (tempfile::tempdir().unwrap(), FakeProvider::new().lifetime(3 * SECOND));
        let manager = || TokenManager::builder(provider.clone()).store(FileStore::at(folder.path())).build().unwrap();
        text(&manager());
        until_no_thread();
        let tokens = manager();
        // All threads, because a new thread has no name yet.
        let all = || fs::read_dir("/proc/self/task").unwrap().count();
        let before = all();
        assert_eq!((text(&tokens).as_str(), all()), ("token-1", before));
        // A second use starts background refreshes.
        let events = tokens.events();
        text(&tokens);
        eventually("the scheduler thread runs", || threads() == ["evertoken-sched"]);
        wait_for_grant(&events);
        assert_eq!((text(&tokens).as_str(), provider.calls()), ("token-2", 2));
    });
}

#[test]
fn a_manager_that_is_dropped_during_a_fetch_returns_at_once() {
    alone(|| {
        let host = FakeVendor::wecom();
        let provider = WeCom::new("corp", "secret").base_url(host.url());
        let http = HttpConfig::default().timeout(Duration::from_millis(500));
        let tokens = TokenManager::builder(provider).http(http).build().unwrap();
        text(&tokens);
        host.fail_with(VendorFault::Hang);
        assert!(tokens.token_within(SECOND).is_ok());
        tokens.invalidate().unwrap();
        tokens.warm_up();
        assert!(host.wait_for_calls(2, PATIENCE));
        let dropping = Instant::now();
        drop(tokens);
        assert!(dropping.elapsed() < Duration::from_millis(50));
        // The scheduler thread ends at once, and the fetch at its deadline.
        let gone = Instant::now();
        while threads().iter().any(|name| name == "evertoken-sched") {
            assert!(gone.elapsed() < Duration::from_millis(100));
            thread::yield_now();
        }
        until_no_thread();
        assert!(dropping.elapsed() < 3 * SECOND);
    });
}

#[test]
fn shutdown_waits_for_the_fetch_in_flight_no_longer_than_its_limit() {
    alone(|| {
        let provider = FakeProvider::new().gated();
        let tokens = TokenManager::new(provider.clone());
        tokens.warm_up();
        assert!(provider.wait_for_calls(1, PATIENCE));
        assert!(!tokens.shutdown(Duration::from_millis(20)));
        provider.permit(1);
        assert!(tokens.shutdown(PATIENCE));
        until_no_thread();
        // The token of the fetch is not lost.
        assert_eq!(text(&tokens), "token-1");
    });
}

#[test]
fn the_scheduler_thread_starts_again_with_the_next_token() {
    alone(|| {
        for _ in 0..50 {
            let provider = FakeProvider::new();
            let (tokens, clock) = on_clock(&provider);
            let events = tokens.events();
            text(&tokens);
            wait_for_grant(&events);
            clock.advance(6900 * SECOND);
            wait_for_grant(&events);
            assert_eq!(text(&tokens), "token-2");
            drop(tokens);
        }
        until_no_thread();
    });
}

#[test]
fn a_slow_provider_does_not_hold_up_the_refreshes_of_another() {
    alone(|| {
        // The first fetch of each manager returns at once, and the refreshes hang.
        let fetches = Arc::new(AtomicUsize::new(0));
        let (open, gate) = crossbeam_channel::bounded::<()>(0);
        let slow: Vec<_> = (0..12)
            .map(|account: usize| {
                let (fetches, gate) = (fetches.clone(), gate.clone());
                let fetch = provider::from_fn("slow", move |_| {
                    let number = fetches.fetch_add(1, Ordering::SeqCst);
                    if number >= 12 {
                        let _ = gate.recv();
                    }
                    Ok(Grant::new(format!("token-{number}"), SECOND))
                });
                kept_warm(fetch.identity_part("account", account.to_string()))
            })
            .collect();
        slow.iter().for_each(|manager| drop(text(manager)));
        eventually("eight refreshes of the slow provider hang", || fetches.load(Ordering::SeqCst) == 20);
        let healthy = kept_warm(FakeProvider::new().lifetime(SECOND));
        text(&healthy);
        eventually("the healthy provider's token is refreshed", || healthy.metrics().background_refreshes >= 3);
        assert_eq!(fetches.load(Ordering::SeqCst), 20, "a provider has eight refreshes at once");
        drop(open);
        let refreshed = |tokens: &TokenManager| tokens.metrics().background_refreshes > 0;
        eventually("a returned permit lets the waiting refreshes start", || slow.iter().all(refreshed));
    });
}

fn kept_warm(provider: impl Provider) -> TokenManager {
    TokenManager::builder(provider).keep_warm(true).jitter(0.0).build().unwrap()
}

#[test]
fn a_forked_child_keeps_the_token_and_starts_new_threads() {
    alone(|| {
        let host = FakeVendor::oauth2().lifetime(3 * SECOND);
        let tokens = TokenManager::new(OAuth2::new(host.token_url(), "client", "secret"));
        let held = text(&tokens);
        // The fetch has completed, and its thread is about to end.
        eventually("no fetch is in flight", || threads() == ["evertoken-sched"]);
        // SAFETY: the child uses nothing but the manager, which supports use after a fork.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                assert_eq!(text(&tokens), held, "the token is kept");
                assert!(threads().is_empty(), "threads are not inherited");
                let events = tokens.events();
                // Over a connection of its own, not the pooled one of the parent.
                let another = tokens.force_refresh().unwrap();
                assert_ne!(another.expose(), held);
                wait_for_grant(&events);
                // Refreshed in the background by a scheduler of its own, which takes two seconds.
                assert_eq!(text(&tokens), another.expose());
                wait_for_grant(&events);
            }));
            // SAFETY: ends the child without running the parent's test harness in it.
            unsafe { libc::_exit(if fine.is_ok() { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child that was forked above.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "the child is content");
        tokens.force_refresh().unwrap();
        assert!(host.is_valid(&text(&tokens)));
    });
}
