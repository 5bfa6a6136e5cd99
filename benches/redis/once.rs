//! An idempotent operation: `begin` and `complete`, compared with two plain round trips.

use std::time::Instant;

use evertoken::RedisStore;
use evertoken::idempotency::Idempotency;

use crate::common::{Table, do_once, median, median_ratio};
use crate::plain;
use crate::redis_server::RedisServer;

pub(crate) fn measure(server: &RedisServer) {
    let title = format!("begin() and complete() of an idempotent operation, {OPERATIONS} operations");
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
    // The first operation connects and loads the script into the server.
    do_once(&once, "first");
    let (mut these, mut those) = (Vec::new(), Vec::new());
    for number in 0..OPERATIONS {
        let key = format!("order-{number}");
        these.push(timed(&mut |key| do_once(&once, key), &key));
        those.push(timed(&mut set_twice, &key));
    }
    let ratio = median_ratio(&these, &those);
    let show = |times: Vec<f64>| format!("{:.1} us", median(times));
    // The difference is the start of two threads, which bound the wait for the store, and two scripts.
    table.compare(
        "both (baseline: SET NX and SET, and the ratio)",
        show(these),
        format!("{}, {ratio:.2}", show(those)),
    );
    table.end();
}

/// The size of an operation's record in bytes.
const RECORD: usize = 300;

/// An odd number, so that the median is one of the values.
const OPERATIONS: usize = 2_001;
