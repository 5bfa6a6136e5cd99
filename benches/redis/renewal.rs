//! A background refresh: the time that Redis adds to the fetch.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use evertoken::provider::Grant;
use evertoken::{EventKind, RedisStore, TokenManager, provider};

use crate::common::{Table, median, median_ratio};
use crate::plain;
use crate::redis_server::{Monitor, RedisServer};

pub(crate) fn measure(server: &RedisServer) {
    let title = format!("a background refresh, the fetch takes 50 ms, {REFRESHES} times");
    let mut table = Table::new(&title);
    let fetches = Arc::new(Mutex::new(Vec::new()));
    let note = fetches.clone();
    let provider = provider::from_fn("renewal", move |_| {
        let start = Instant::now();
        thread::sleep(Duration::from_millis(50));
        let mut fetches = note.lock().unwrap();
        fetches.push(start.elapsed());
        Ok(Grant::new(format!("token-{}", fetches.len()), Duration::from_secs(7200)))
    });
    let manager = TokenManager::builder(provider)
        .store(RedisStore::open(&server.url()).unwrap())
        .refresh_after(Duration::from_secs(1))
        .jitter(0.0)
        .keep_warm(true)
        .build()
        .unwrap();
    manager.token().unwrap();
    let mut connection = plain::connect(&server.url());
    let (events, monitor) = (manager.events(), Monitor::of(server));
    let (mut asked, mut commands, mut refreshes, mut baselines, mut beyond, mut trips) =
        (0, 0, vec![], vec![], vec![], vec![]);
    while refreshes.len() < REFRESHES {
        let event = events.recv_timeout(Duration::from_secs(30)).unwrap();
        let EventKind::Granted { took, in_background: true, .. } = event.kind else { continue };
        commands = commands.max(monitor.commands().len() - asked);
        // The connection has been idle for as long as the manager's connection before its refresh.
        let start = Instant::now();
        (0..2).for_each(|_| drop(plain::get(&mut connection, manager.key().as_str())));
        let two_gets = start.elapsed();
        asked = monitor.commands().len();
        let fetch = *fetches.lock().unwrap().last().unwrap();
        refreshes.push(took.as_secs_f64() * 1e3);
        baselines.push((fetch + two_gets).as_secs_f64() * 1e3);
        beyond.push((took - fetch).as_secs_f64() * 1e6);
        trips.push(two_gets.as_secs_f64() * 1e6);
    }
    table.figure("commands per refresh, at most", commands, None, "2", commands == 2);
    let ratio = median_ratio(&refreshes, &baselines);
    let show = |times: Vec<f64>| format!("{:.2} ms", median(times));
    table.ratio("the whole refresh (baseline: the fetch and two GETs)", show(refreshes), show(baselines), ratio, 1.05);
    let show = |times: Vec<f64>| format!("{:.0} us", median(times));
    table.compare("without the fetch", show(beyond), show(trips));
    table.end();
}

/// An odd number, so that the median is one of the values.
const REFRESHES: usize = 11;
