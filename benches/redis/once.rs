//! A thing is done once: what `begin` and `complete` take beside two bare round trips.

use std::time::Instant;

use evertoken::RedisStore;
use evertoken::idempotency::Idempotency;

use crate::common::{Table, do_once, median, median_ratio};
use crate::plain;
use crate::redis_server::RedisServer;

pub(crate) fn measure(server: &RedisServer) {
    let title = format!("begin() and complete() of a thing that is done once, {THINGS} things");
    let mut table = Table::new(&title);
    let once = Idempotency::new(RedisStore::open(&server.url()).unwrap());
    let (mut connection, record) = (plain::connect(&server.url()), "x".repeat(RECORD));
    let mut set_twice = |key: &str| {
        assert!(plain::set_new(&mut connection, key, &record, 30), "{key} is new");
        plain::set(&mut connection, key, &record, 86_400);
    };
    let timed = |work: &mut dyn FnMut(&str), key: &str| {
        let start = Instant::now();
        work(key);
        start.elapsed().as_nanos() as f64 / 1e3
    };
    // The first one connects, and hands the server its script.
    do_once(&once, "first");
    let (mut these, mut those) = (Vec::new(), Vec::new());
    for number in 0..THINGS {
        let key = format!("order-{number}");
        these.push(timed(&mut |key| do_once(&once, key), &key));
        those.push(timed(&mut set_twice, &key));
    }
    let ratio = median_ratio(&these, &those);
    let show = |times: Vec<f64>| format!("{:.1} us", median(times));
    // Above it are two threads, for no store is waited for without bound, and two scripts.
    table.compare("both, and SET NX and SET with its ratio", show(these), format!("{}, {ratio:.2}", show(those)));
    table.end();
}

/// As many bytes as are recorded of a thing.
const RECORD: usize = 300;

/// Odd, so that a median is one of them.
const THINGS: usize = 2_001;
