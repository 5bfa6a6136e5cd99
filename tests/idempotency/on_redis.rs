//! Operations that are recorded in a Redis.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use evertoken::idempotency::{Idempotency, Outcome};
use evertoken::testing::FakeProvider;
use evertoken::{ErrorKind, RedisStore, TokenManager};

use crate::bed::*;
use crate::common::proxy::Proxy;
use crate::common::redis_server::{Monitor, RedisServer};
use crate::common::wait::*;

/// Makes time pass: reduces the remaining time of every key on the server.
pub(super) fn advance(server: &RedisServer, time: Duration) {
    let script = "
        local left = redis.call('PTTL', KEYS[1]) - ARGV[1]
        return left > 0 and redis.call('PEXPIRE', KEYS[1], left) or redis.call('DEL', KEYS[1])";
    for key in keys(server) {
        server.ask::<()>(&["EVAL", script, "1", &key, &time.as_millis().to_string()]).unwrap();
    }
}

fn keys(server: &RedisServer) -> Vec<String> {
    server.ask(&["KEYS", "*"]).unwrap()
}

fn once(server: &RedisServer) -> Idempotency {
    Idempotency::new(RedisStore::open(&server.url()).unwrap())
}

#[test]
fn begin_and_complete_are_two_round_trips() {
    let server = RedisServer::start();
    let once = once(&server);
    // The first operation connects, and loads the script.
    complete(&claim(&once), "receipt").unwrap();
    let monitor = Monitor::of(&server);
    for number in 0..10 {
        let Outcome::New(claim) = once.begin::<String>(number.to_string(), "").unwrap() else { panic!("{number}") };
        claim.complete(&"receipt".to_owned()).unwrap();
    }
    assert_eq!(monitor.commands(), ["EVALSHA"; 20]);
    // One key with an expiry for each operation, and no other keys.
    assert_eq!(keys(&server).len(), 11);
    assert!(keys(&server).iter().all(|key| key.ends_with(":once")));
}

#[test]
fn a_lost_reply_causes_neither_a_second_claim_nor_a_lost_result() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.addr());
    let once = Idempotency::new(RedisStore::open(&proxy.url()).unwrap());
    complete(&claim(&once), "receipt").unwrap();
    for number in 0..5 {
        proxy.lose_next_reply_to("EVALSHA");
        let Outcome::New(claim) = once.begin::<String>(number.to_string(), "").unwrap() else { panic!("{number}") };
        proxy.lose_next_reply_to("EVALSHA");
        claim.extend().unwrap();
        proxy.lose_next_reply_to("EVALSHA");
        claim.complete(&"receipt".to_owned()).unwrap();
        assert_eq!(word_for(once.begin::<String>(number.to_string(), "").unwrap()), "receipt");
    }
}

#[test]
fn many_threads_share_the_connection_to_a_redis_some_milliseconds_away() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.addr());
    let once = Idempotency::new(RedisStore::open(&proxy.url()).unwrap());
    complete(&claim(&once), "receipt").unwrap();
    proxy.set(crate::common::proxy::Fault::Delay(Duration::from_millis(10)));
    let start = Barrier::new(64);
    thread::scope(|scope| {
        for number in 0..64 {
            let (once, start) = (&once, &start);
            scope.spawn(move || {
                start.wait();
                let ran = once.run(number.to_string(), "", || Ok::<_, io::Error>(number));
                assert_eq!(ran.unwrap(), number);
            });
        }
    });
}

#[test]
fn a_token_fetch_does_not_queue_behind_operations_on_the_same_redis() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.addr());
    let store = RedisStore::open(&proxy.url()).unwrap();
    let once = Idempotency::new(store.clone());
    complete(&claim(&once), "receipt").unwrap();
    proxy.set(crate::common::proxy::Fault::Delay(Duration::from_millis(10)));
    let (done, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for worker in 0..64 {
            let (once, done, is_over) = (&once, &done, &is_over);
            scope.spawn(move || {
                for number in (0..).take_while(|_| !is_over.load(Ordering::SeqCst)) {
                    let ran = once.run(format!("{worker}-{number}"), "", || Ok::<_, io::Error>(number));
                    done.fetch_add(usize::from(ran.is_ok()), Ordering::SeqCst);
                }
            });
        }
        eventually("all threads are running operations", || done.load(Ordering::SeqCst) > 64);
        let tokens = TokenManager::builder(FakeProvider::new()).store(store.clone()).build().unwrap();
        let asked = Instant::now();
        let got = tokens.token_within(PATIENCE).map(|token| token.expose().to_owned());
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(got.unwrap(), "token-1");
        assert!(asked.elapsed() < 3 * SECOND, "{:?}", asked.elapsed());
    });
}

#[test]
fn a_redis_that_is_down_is_an_error_and_the_claim_outlasts_it() {
    let server = RedisServer::start();
    let once = once(&server);
    let claim = claim(&once);
    server.stop();
    assert_eq!(complete(&claim, "receipt"), Err(ErrorKind::Store));
    server.go_on();
    let asked = Instant::now();
    while let Err(kind) = complete(&claim, "receipt") {
        assert!(kind == ErrorKind::Store && asked.elapsed() < PATIENCE, "{kind:?}");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(word_for(begin(&once)), "receipt");
}
