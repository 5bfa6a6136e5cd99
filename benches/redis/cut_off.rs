//! An outage: Redis is suspended with SIGSTOP, so its connections stay open and it does not answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use evertoken::provider::{Context, Grant};
use evertoken::testing::FakeProvider;
use evertoken::{Error, RedisStore, TokenManager};

use crate::common::{Latencies, Table, cores, milliseconds};
use crate::redis_server::RedisServer;

pub(crate) fn measure_with_token(server: &RedisServer) {
    let title = format!("{} threads call token() in a loop while Redis is suspended for {} s", cores(), TIME.as_secs());
    let mut table = Table::new(&title);
    let slow_from_now_on = (0..20).fold(FakeProvider::new(), |provider, _| provider.then(slow_grant));
    // The manager compares the record ten times a second and refreshes each second, so it meets the outage at once.
    let manager = TokenManager::builder(slow_from_now_on.clone())
        .store(RedisStore::open(&server.url()).unwrap())
        .namespace("cut-off")
        .store_check_interval(Duration::from_millis(100))
        .refresh_after(Duration::from_secs(1))
        .jitter(0.0)
        .build()
        .unwrap();
    manager.token().unwrap();
    let (usual, _) = call_in_a_loop(&manager);
    server.stop();
    let (before, fetches) = (manager.metrics(), slow_from_now_on.finished());
    let (stopped, errors) = call_in_a_loop(&manager);
    let (after, fetches) = (manager.metrics(), slow_from_now_on.finished() - fetches);
    server.go_on();
    table.figure("errors", errors, None, "0", errors == 0);
    let (p99, waits) = (stopped.quantile(0.99), after.waits - before.waits);
    let show = |took: Duration| format!("{} ns", took.as_nanos());
    table.figure(
        "99 % of the calls take at most (baseline: Redis works)",
        show(p99),
        Some(show(usual.quantile(0.99))),
        "<= 1 ms",
        p99 <= Duration::from_millis(1),
    );
    table.figure("calls that waited", waits, None, "0", waits == 0);
    table.compare("99.99 % take at most", show(stopped.quantile(0.9999)), show(usual.quantile(0.9999)));
    table.compare(
        "longest call (other programs may use the core)",
        milliseconds(stopped.quantile(1.0)),
        milliseconds(usual.quantile(1.0)),
    );
    table.compare("calls", stopped.count(), usual.count());
    table.note("store errors during the outage", after.store_errors - before.store_errors);
    table.note("refreshes during the outage", fetches);
    table.end();
}

/// Calls `token()` on every core for [`TIME`]. Returns the durations of the calls and the number of errors.
fn call_in_a_loop(manager: &TokenManager) -> (Latencies, usize) {
    let over = AtomicBool::new(false);
    let call = || {
        let (mut latencies, mut errors) = (Latencies::default(), 0);
        while !over.load(Ordering::Relaxed) {
            let start = Instant::now();
            let token = manager.token();
            latencies.add(start.elapsed());
            errors += usize::from(token.is_err());
        }
        (latencies, errors)
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..cores()).map(|_| scope.spawn(call)).collect();
        thread::sleep(TIME);
        over.store(true, Ordering::Relaxed);
        let (mut all, mut failed) = (Latencies::default(), 0);
        for caller in callers {
            let (latencies, errors) = caller.join().unwrap();
            all.merge(&latencies);
            failed += errors;
        }
        (all, failed)
    })
}

pub(crate) fn measure_without_token(server: &RedisServer) {
    let title = format!("the first token while Redis is suspended, a fetch takes 100 ms, worst of {ROUNDS}");
    let mut table = Table::new(&title);
    for (what, in_use) in
        [("first token, without a connection to Redis", false), ("first token, with a connection to Redis", true)]
    {
        let mut times: Vec<_> = (0..ROUNDS).map(|_| first_token(server, in_use)).collect();
        times.sort();
        let (typical, worst) = (times[ROUNDS / 2], times[ROUNDS - 1]);
        let most = FETCH + Duration::from_millis(600);
        table.figure(what, milliseconds(worst), Some(milliseconds(FETCH)), "<= 600 ms more", worst <= most);
        table.note("the same, median", milliseconds(typical));
    }
    table.end();
}

fn first_token(server: &RedisServer, in_use: bool) -> Duration {
    let store = RedisStore::open(&server.url()).unwrap();
    if in_use {
        let other = TokenManager::builder(FakeProvider::new()).store(store.clone()).build().unwrap();
        other.token().unwrap();
    }
    let provider = FakeProvider::new().then(slow_grant);
    let manager = TokenManager::builder(provider).store(store).namespace("first").build().unwrap();
    server.stop();
    let start = Instant::now();
    let token = manager.token();
    let took = start.elapsed();
    server.go_on();
    token.unwrap();
    took
}

fn slow_grant(_: &Context) -> Result<Grant, Error> {
    thread::sleep(FETCH);
    Ok(Grant::new(format!("token-{:x}", fastrand::u128(..)), Duration::from_secs(7200)))
}

const FETCH: Duration = Duration::from_millis(100);
const TIME: Duration = Duration::from_secs(4);
const ROUNDS: usize = 7;
