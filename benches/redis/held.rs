//! The manager has a token: `token()` with a store and without one.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use evertoken::testing::FakeProvider;
use evertoken::{RedisStore, TokenManager};

use crate::common::{Table, median, median_ratio};
use crate::redis_server::RedisServer;

pub(crate) fn measure(server: &RedisServer) {
    let mut table = Table::new("token() when the manager has a token, with Redis and without a store");
    let provider = || FakeProvider::new().then_grant("t".repeat(157), Duration::from_secs(7200));
    let store = RedisStore::open(&server.url()).unwrap();
    let with = TokenManager::builder(provider()).store(store).namespace("held").build().unwrap();
    let without = TokenManager::new(provider());
    for threads in [1, 2] {
        let (mut these, mut those) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // The order alternates, so that neither always comes first.
            if round % 2 == 0 {
                these.push(cost(&with, threads));
                those.push(cost(&without, threads));
            } else {
                those.push(cost(&without, threads));
                these.push(cost(&with, threads));
            }
        }
        let ratio = median_ratio(&these, &those);
        let show = |costs: Vec<f64>| format!("{:.1} ns", median(costs));
        let what = format!("{threads} thread(s) (baseline: without a store)");
        table.ratio(&what, show(these), show(those), ratio, 1.05);
    }
    table.end();
}

/// Returns the nanoseconds per call, as each thread measures them.
fn cost(manager: &TokenManager, threads: usize) -> f64 {
    manager.token().unwrap();
    let barrier = Barrier::new(threads);
    let run = || {
        barrier.wait();
        let start = Instant::now();
        (0..CALLS).for_each(|_| drop(black_box(manager.token().unwrap())));
        start.elapsed()
    };
    let took: Duration = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    took.as_nanos() as f64 / (threads * CALLS) as f64
}

const CALLS: usize = 1_000_000;

/// An odd number, so that the median is one of the values.
const ROUNDS: usize = 41;
