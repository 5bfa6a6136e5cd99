//! Many callers at once: while a token is renewed, and when none is held.

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
    callers_during_a_renewal();
    callers_with_nothing_held();
}

// ---- a token is held and due ----------------------------------------------------------------------------------------

fn callers_during_a_renewal() {
    let title = format!("{} threads call on and on while the provider takes 2 s for a renewal", cores());
    let mut table = Table::new(&title);
    let (manager, provider) = held_and_soon_due();
    let (calls, renewed) = calls_during_a_fetch(&manager, &provider, true);
    let waits = manager.metrics().waits - 1;
    let idle = calls_during_a_fetch(&manager, &provider, false).0;
    let waited = calls.waited(SLOW / 2);
    let percent = 100.0 * calls.within(QUICK);
    table.figure(
        "calls within 5 us (baseline: no renewal)",
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
    table.figure("renewals while they called", renewed, None, ">= 1", renewed >= 1);
    for (name, part) in [("half", 0.5), ("99.9 %", 0.999), ("99.99 %", 0.9999)] {
        table.note(&format!("{name} of the calls took at most"), format!("{} ns", calls.quantile(part).as_nanos()));
    }
    table.note("longest call (a core may be taken away meanwhile)", milliseconds(calls.quantile(1.0)));
    table.note("calls", calls.count());
    table.end();
}

/// A manager whose token is due a second after its grant, in use, with a provider that is slow from the second on.
fn held_and_soon_due() -> (TokenManager, FakeProvider) {
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

/// Has every core call for [`SLOW`]: from the start of the next fetch if there is one to come, else from now on.
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
            assert!(provider.wait_for_calls(before + 1, Duration::from_secs(30)), "no renewal has started");
            recording.store(true, Ordering::Relaxed);
            assert!(provider.wait_for_finished(finished + 1, Duration::from_secs(30)), "the renewal does not end");
        } else {
            thread::sleep(SLOW);
        }
        over.store(true, Ordering::Relaxed);
        callers.into_iter().for_each(|caller| all.merge(&caller.join().unwrap()));
    });
    (all, provider.finished() - finished)
}

// ---- nothing is held ------------------------------------------------------------------------------------------------

fn callers_with_nothing_held() {
    let title = format!("{HERD} threads call at once, nothing is held, the provider takes 100 ms");
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
        "until the last has it (baseline: moka get_with)",
        show(&ours),
        Some(show(&mokas)),
        "<= 200 ms",
        typical <= 200.0,
    );
    table.figure("fetches, at most", most_fetches, None, "1", most_fetches == 1);
    table.note("slowest of the rounds", format!("{:.1} ms", ours.iter().copied().fold(0.0, f64::max)));
    table.note("one Mutex<Option<Arc<str>>>, held while fetching", show(&locks));
    table.end();
}

/// Milliseconds from the start until the last thread is served.
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
        // Time runs from before the barrier opens, so waking a thousand threads is in it.
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

/// Odd, so that a median is one of them.
const ROUNDS: usize = 7;
