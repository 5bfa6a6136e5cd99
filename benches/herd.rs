//! Many callers at once: during a background refresh, and when there is no token yet.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{Latencies, Table, cores, median, milliseconds};
use evertoken::provider::{Context, Grant};
use evertoken::testing::FakeProvider;
use evertoken::{Error, TokenManager};

fn main() {
    if !common::asked_to_measure() {
        return;
    }
    callers_during_a_refresh();
    callers_without_a_token();
}

// ---- during a background refresh ------------------------------------------------------------------------------------

fn callers_during_a_refresh() {
    let title = format!("{} threads call token() in a loop during a background refresh of 2 s", cores());
    let mut table = Table::new(&title);
    let (manager, provider) = manager_with_early_refresh();
    let (calls, refreshes) = calls_during_a_fetch(&manager, &provider, true);
    let waits = manager.metrics().waits - 1;
    let idle = calls_during_a_fetch(&manager, &provider, false).0;
    let waited = calls.waited(SLOW / 2);
    let percent = 100.0 * calls.within(QUICK);
    table.figure(
        "calls within 5 us (baseline: no refresh)",
        format!("{percent:.4} %"),
        Some(format!("{:.4} %", 100.0 * idle.within(QUICK))),
        ">= 99.9 %",
        percent >= 99.9,
    );
    table.figure(
        "calls that waited for the fetch",
        waited + waits,
        Some(idle.waited(SLOW / 2).to_string()),
        "0",
        waited + waits == 0,
    );
    table.figure("refreshes during the calls", refreshes, None, ">= 1", refreshes >= 1);
    for (name, part) in [("half", 0.5), ("99.9 %", 0.999), ("99.99 %", 0.9999)] {
        table.note(&format!("{name} of the calls took at most"), format!("{} ns", calls.quantile(part).as_nanos()));
    }
    table.note("longest call (other programs may use the core)", milliseconds(calls.quantile(1.0)));
    table.note("calls", calls.count());
    table.end();
}

/// Returns a manager with a token whose refresh is due a second after its grant. The second fetch takes [`SLOW`].
fn manager_with_early_refresh() -> (TokenManager, FakeProvider) {
    let slow = |_: &Context| {
        thread::sleep(SLOW);
        Ok(Grant::new("token-2", Duration::from_secs(7200)))
    };
    let provider = FakeProvider::new().then_grant("token-1", Duration::from_secs(7200)).then(slow);
    let builder = TokenManager::builder(provider.clone()).refresh_after(Duration::from_secs(1)).jitter(0.0);
    let manager = builder.build().unwrap();
    manager.token().unwrap();
    (manager, provider)
}

/// Calls `token()` on every core for [`SLOW`]: from the start of the next fetch if `fetch` is true, else from now on.
///
/// Returns the durations of the calls, and the number of fetches that ended meanwhile.
fn calls_during_a_fetch(manager: &TokenManager, provider: &FakeProvider, fetch: bool) -> (Latencies, usize) {
    let over = AtomicBool::new(false);
    let recording = AtomicBool::new(!fetch);
    let (before, finished) = (provider.calls(), provider.finished());
    let mut all = Latencies::default();
    thread::scope(|scope| {
        let call = || {
            let mut latencies = Latencies::default();
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                let token = manager.token();
                let took = start.elapsed();
                assert!(token.is_ok());
                if recording.load(Ordering::Relaxed) {
                    latencies.add(took);
                }
            }
            latencies
        };
        let callers: Vec<_> = (0..cores()).map(|_| scope.spawn(call)).collect();
        if fetch {
            assert!(provider.wait_for_calls(before + 1, Duration::from_secs(30)), "no refresh has started");
            recording.store(true, Ordering::Relaxed);
            assert!(provider.wait_for_finished(finished + 1, Duration::from_secs(30)), "the refresh does not end");
        } else {
            thread::sleep(SLOW);
        }
        over.store(true, Ordering::Relaxed);
        callers.into_iter().for_each(|caller| all.merge(&caller.join().unwrap()));
    });
    (all, provider.finished() - finished)
}

// ---- without a token ------------------------------------------------------------------------------------------------

fn callers_without_a_token() {
    let title = format!("{HERD} threads call token() at once, there is no token, a fetch takes 100 ms");
    let mut table = Table::new(&title);
    let (mut ours, mut mokas, mut locks, mut most_fetches) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let provider = FakeProvider::new().then(slow_grant);
        let manager = TokenManager::new(provider.clone());
        ours.push(herd(|| drop(manager.token().unwrap())));
        most_fetches = most_fetches.max(provider.calls());

        let cache = moka::sync::Cache::<String, Arc<str>>::new(100);
        mokas.push(herd(|| drop(cache.get_with_by_ref("token", fetch_text))));

        let slot = Mutex::new(None);
        locks.push(herd(|| drop(slot.lock().unwrap().get_or_insert_with(fetch_text).clone())));
    }
    let show = |times: &[f64]| format!("{:.1} ms", median(times.to_vec()));
    let typical = median(ours.clone());
    table.figure(
        "until the last thread has a token (baseline: moka get_with)",
        show(&ours),
        Some(show(&mokas)),
        "<= 200 ms",
        typical <= 200.0,
    );
    table.figure("fetches per round, at most", most_fetches, None, "1", most_fetches == 1);
    table.note("the slowest round", format!("{:.1} ms", ours.iter().copied().fold(0.0, f64::max)));
    table.note("one Mutex<Option<Arc<str>>>, locked during the fetch", show(&locks));
    table.end();
}

/// Returns the milliseconds from the start until the last thread has returned from `call`.
fn herd(call: impl Fn() + Sync) -> f64 {
    let start = Barrier::new(HERD + 1);
    let (call, start) = (&call, &start);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..HERD)
            .map(|_| {
                scope.spawn(move || {
                    start.wait();
                    call();
                    Instant::now()
                })
            })
            .collect();
        // The clock starts before the barrier opens, so the time includes waking a thousand threads.
        thread::sleep(Duration::from_millis(100));
        let from = Instant::now();
        start.wait();
        let served = callers.into_iter().map(|caller| caller.join().unwrap()).max().unwrap();
        served.duration_since(from).as_secs_f64() * 1e3
    })
}

fn slow_grant(_: &Context) -> Result<Grant, Error> {
    Ok(Grant::new(&*fetch_text(), Duration::from_secs(7200)))
}

fn fetch_text() -> Arc<str> {
    thread::sleep(Duration::from_millis(100));
    Arc::from("t".repeat(157))
}

const SLOW: Duration = Duration::from_secs(2);
const QUICK: Duration = Duration::from_micros(5);
const HERD: usize = 1_000;

/// An odd number, so that the median is one of the values.
const ROUNDS: usize = 7;
