//! Managers that watch a record, or wait for one, learn of changes at once.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use evertoken::store::{Expected, LeaseOutcome, LeaseOwner, Store};
use evertoken::testing::FakeProvider;
use evertoken::{EventKind, RedisConfig, RedisStore, TokenManager};

use crate::common::clocks::PanickingClock;
use crate::common::redis_server::RedisServer;
use crate::common::wait::*;
use crate::setup::*;

#[test]
fn promise_4_a_rejection_reaches_managers_that_watch_at_once() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let one = manager(&provider, &server.url());
    let others: Vec<_> = (0..3).map(|_| sharing(&provider, &server.url()).watch(true).build().unwrap()).collect();
    let token = one.token().unwrap();
    let events: Vec<_> = others.iter().map(TokenManager::events).collect();
    others.iter().for_each(|other| assert_eq!(text(other), "token-1"));
    one.reject(&token).unwrap();
    let asked = Instant::now();
    for events in &events {
        wait_for(events, |kind| matches!(kind, EventKind::Rejected { .. }).then_some(()));
    }
    // Without watching, the next check would come after a minute.
    assert!(asked.elapsed() < 10 * SECOND);
    others.iter().for_each(|other| assert_eq!(text(other), "token-2"));
    assert_eq!(provider.calls(), 2);
}

#[test]
fn a_new_token_and_an_invalidation_reach_managers_that_watch() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let (one, other) =
        (manager(&provider, &server.url()), sharing(&provider, &server.url()).watch(true).build().unwrap());
    assert_eq!((text(&one), text(&other)), ("token-1".to_owned(), "token-1".to_owned()));
    let events = other.events();
    one.force_refresh().unwrap();
    wait_for_grant(&events);
    assert_eq!(other.try_token().unwrap().expose(), "token-2");
    one.invalidate().unwrap();
    wait_for(&events, |kind| matches!(kind, EventKind::Rejected { .. }).then_some(()));
    assert_eq!(text(&other), "token-3");
    assert_eq!(provider.calls(), 3);
}

#[test]
fn without_watching_a_rejection_reaches_the_others_within_the_store_check_interval() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let one = manager(&provider, &server.url());
    let other = sharing(&provider, &server.url()).store_check_interval(Duration::from_millis(100)).build().unwrap();
    let token = one.token().unwrap();
    assert_eq!(text(&other), "token-1");
    one.reject(&token).unwrap();
    // The manager checks while the token is in use.
    eventually("the rejection is noticed", || text(&other) == "token-2");
    assert_eq!(provider.calls(), 2);
}

#[test]
fn one_watch_serves_all_managers_of_a_store_and_ends_with_them() {
    let server = RedisServer::start();
    let (shared, quiet) = (store(&server), server.connect());
    let providers: Vec<_> = (0..20).map(|number| provider(number.to_string())).collect();
    let managers: Vec<_> = providers
        .iter()
        .map(|provider| TokenManager::builder(provider.clone()).store(shared.clone()).watch(true).build().unwrap())
        .collect();
    managers.iter().for_each(|manager| assert_eq!(text(manager), "token-1"));
    drop(quiet);
    // The connection of the store, the one that watches, and the one of the test.
    eventually("there are two connections", || clients(&server) == 3);
    let other = manager(&providers[7], &server.url());
    assert_eq!(text(&other), "token-1");
    let events = managers[7].events();
    other.force_refresh().unwrap();
    wait_for_grant(&events);
    assert_eq!(managers[7].try_token().unwrap().expose(), "token-2");
    drop((managers, other));
    eventually("the watching connection is closed", || clients(&server) == 2);
    drop(shared);
    eventually("all connections are closed", || clients(&server) == 1);
}

#[test]
fn a_waiter_wakes_on_a_publication_and_on_the_end_of_a_lease() {
    let server = RedisServer::start();
    let (holder, waiter, key) = (store(&server), store(&server), key("woken"));
    assert!(matches!(lease(&holder, &key, "a", HOUR), LeaseOutcome::Leased));
    let LeaseOutcome::Busy { cursor, .. } = lease(&waiter, &key, "b", HOUR) else { panic!("the lease is taken") };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.wait(&key, &cursor, Instant::now() + PATIENCE).map(|()| Instant::now()));
        eventually("the manager waits", || server.ask::<String>(&["CLIENT", "LIST"]).unwrap().contains("cmd=xread"));
        let published = Instant::now();
        holder.publish(&key, &LeaseOwner::new("a"), None, b"record", HOUR).unwrap();
        assert!(waiting.join().unwrap().unwrap() - published < 2 * SECOND);
    });
    let short = Duration::from_millis(100);
    store(&server).compare_and_swap(&key, Expected::Any, None).unwrap();
    assert!(matches!(lease(&holder, &key, "a", short), LeaseOutcome::Leased));
    let LeaseOutcome::Busy { cursor, .. } = lease(&waiter, &key, "b", HOUR) else { panic!("the lease is taken") };
    let asked = Instant::now();
    waiter.wait(&key, &cursor, asked + PATIENCE).unwrap();
    assert!(asked.elapsed() < 10 * SECOND);
    assert!(matches!(lease(&waiter, &key, "b", HOUR), LeaseOutcome::Leased));
}

#[test]
fn a_publication_wakes_a_waiter_long_before_its_next_poll() {
    let server = RedisServer::start();
    let (holder, waiter) = (store(&server), store(&server));
    let mut took: Vec<_> = (0..50)
        .map(|round| {
            let key = key(&format!("woken {round}"));
            assert!(matches!(patiently(|| try_lease(&holder, &key, "a")), LeaseOutcome::Leased));
            let leasing = patiently(|| try_lease(&waiter, &key, "b"));
            let LeaseOutcome::Busy { cursor, .. } = leasing else { panic!("the lease is taken") };
            thread::scope(|scope| {
                let waiting = scope.spawn(|| {
                    patiently(|| waiter.wait(&key, &cursor, Instant::now() + PATIENCE));
                    Instant::now()
                });
                eventually("the manager waits", || {
                    server.ask::<String>(&["CLIENT", "LIST"]).unwrap().contains("cmd=xread")
                });
                let published = Instant::now();
                patiently(|| holder.publish(&key, &LeaseOwner::new("a"), None, b"record", HOUR));
                waiting.join().unwrap() - published
            })
        })
        .collect();
    took.sort();
    // One of them may have had bad luck.
    assert!(took[48] < SECOND, "{took:?}");
    assert!(took[25] < SECOND / 10, "{took:?}");
}

#[test]
fn a_publication_that_came_before_the_waiting_began_is_not_missed() {
    let server = RedisServer::start();
    let (holder, waiter, key) = (store(&server), store(&server), key("missed"));
    for round in 0..20_u8 {
        assert!(matches!(lease(&holder, &key, "a", HOUR), LeaseOutcome::Leased));
        let LeaseOutcome::Busy { cursor, .. } = lease(&waiter, &key, "b", HOUR) else { panic!("the lease is taken") };
        holder.publish(&key, &LeaseOwner::new("a"), None, &[round], HOUR).unwrap();
        let asked = Instant::now();
        waiter.wait(&key, &cursor, asked + PATIENCE).unwrap();
        assert!(asked.elapsed() < 10 * SECOND);
        store(&server).compare_and_swap(&key, Expected::Any, None).unwrap();
    }
}

#[test]
fn without_the_right_to_use_streams_a_waiter_polls() {
    let server = RedisServer::start();
    server.ask::<()>(&["ACL", "SETUSER", "plain", "on", ">pw", "~*", "+@all", "-@stream"]).unwrap();
    let config = || RedisConfig::from_url(&server.url()).unwrap().user("plain").password("pw");
    let (holder, waiter) = (RedisStore::new(config()).unwrap(), RedisStore::new(config()).unwrap());
    let key = key("polls");
    assert!(matches!(lease(&holder, &key, "a", HOUR), LeaseOutcome::Leased));
    let LeaseOutcome::Busy { cursor, .. } = lease(&waiter, &key, "b", HOUR) else { panic!("the lease is taken") };
    assert_eq!(cursor.position(), None);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.wait(&key, &cursor, Instant::now() + PATIENCE));
        holder.publish(&key, &LeaseOwner::new("a"), None, b"record", HOUR).unwrap();
        waiting.join().unwrap().unwrap();
    });
    assert!(matches!(lease(&waiter, &key, "b", HOUR), LeaseOutcome::Found(entry) if entry.bytes() == b"record"));
}

#[test]
fn a_stream_of_the_wrong_type_does_not_end_the_watch_of_other_records() {
    let server = RedisServer::start();
    let store = RedisStore::open(&server.url()).unwrap();
    let providers = [provider("poisoned"), provider("sound")];
    let [poisoned, sound] = providers.each_ref().map(|provider| on(&store, provider).watch(true).build().unwrap());
    assert_eq!((text(&poisoned), text(&sound)), ("token-1".to_owned(), "token-1".to_owned()));
    until_watched(&server);
    let news = format!("{}:news", poisoned.key());
    server.ask::<()>(&["DEL", &news]).unwrap();
    server.ask::<()>(&["SET", &news, "poison"]).unwrap();
    let (other, events) = (manager(&providers[1], &server.url()), sound.events());
    assert_eq!(text(&other), "token-1");
    // The first change may still be found by a check that was in flight.
    for _ in 0..3 {
        other.force_refresh().unwrap();
        wait_for_grant(&events);
    }
}

#[test]
fn a_waiter_does_not_retry_a_changed_password_endlessly() {
    let server = RedisServer::start();
    server.ask::<()>(&["ACL", "SETUSER", "app", "on", ">right", "~*", "+@all"]).unwrap();
    let config = RedisConfig::from_url(&server.url()).unwrap().user("app").password("right");
    let (store, provider) = (RedisStore::new(config).unwrap(), FakeProvider::new());
    let first = on(&store, &provider).build().unwrap();
    assert_eq!(text(&first), "token-1");
    // Existing connections stay.
    server.ask::<()>(&["ACL", "SETUSER", "app", "resetpass", ">other"]).unwrap();
    server.ask::<()>(&["DEL", first.key().as_str()]).unwrap();
    server.ask::<()>(&["SET", &format!("{}:lock", first.key()), "another", "PX", "6000"]).unwrap();
    let _ = on(&store, &provider).build().unwrap().token_within(3 * SECOND);
    let stats: String = server.ask(&["INFO", "commandstats"]).unwrap();
    let refused: usize = crate::common::redis_server::field(&stats, "cmdstat_auth")
        .unwrap()
        .rsplit('=')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=3).contains(&refused), "{refused} times");
}

#[test]
fn promise_4_a_rejection_is_noticed_after_a_flush() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let one = manager(&provider, &server.url());
    let other = sharing(&provider, &server.url()).watch(true).build().unwrap();
    assert_eq!((text(&one), text(&other)), ("token-1".to_owned(), "token-1".to_owned()));
    until_watched(&server);
    let events = other.events();
    // After this change no earlier one is left to be noticed.
    let token = one.force_refresh().unwrap();
    wait_for_grant(&events);
    until_watched(&server);
    server.ask::<()>(&["FLUSHALL"]).unwrap();
    one.reject(&token).unwrap();
    wait_for(&events, |kind| matches!(kind, EventKind::Rejected { .. }).then_some(()));
}

#[test]
fn a_clock_that_panics_does_not_end_the_watch_of_other_managers() {
    let server = RedisServer::start();
    let store = RedisStore::open(&server.url()).unwrap();
    let (providers, clock) = ([provider("broken"), provider("sound")], PanickingClock::for_thread("evertoken-watch"));
    let broken = on(&store, &providers[0]).clock(clock.clone()).watch(true).build().unwrap();
    let sound = on(&store, &providers[1]).watch(true).build().unwrap();
    let others = providers.each_ref().map(|provider| manager(provider, &server.url()));
    for tokens in [&broken, &sound, &others[0], &others[1]] {
        assert_eq!(text(tokens), "token-1");
    }
    until_watched(&server);
    clock.broken.store(true, Ordering::SeqCst);
    others[0].force_refresh().unwrap();
    eventually("the broken clock is read", || clock.panics.load(Ordering::SeqCst) > 0);
    let events = sound.events();
    others[1].force_refresh().unwrap();
    wait_for_grant(&events);
}

#[test]
fn a_large_earlier_entry_of_the_stream_is_not_read() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let other = manager(&provider, &server.url());
    assert_eq!(text(&other), "token-1");
    let large = "x".repeat(8 << 20);
    server.ask::<String>(&["XADD", &format!("{}:news", other.key()), "*", "v", &large]).unwrap();
    let sent = || -> u64 {
        let statistics: String = server.ask(&["INFO", "stats"]).unwrap();
        crate::common::redis_server::field(&statistics, "total_net_output_bytes").unwrap().parse().unwrap()
    };
    let before = sent();
    let watching = sharing(&provider, &server.url()).watch(true).build().unwrap();
    let events = watching.events();
    assert_eq!(text(&watching), "token-1");
    wait_for_grant(&events);
    until_watched(&server);
    other.force_refresh().unwrap();
    wait_for_grant(&events);
    assert!(sent() - before < 1 << 20);
}

#[test]
fn promise_9_the_watch_ends_when_the_last_manager_is_dropped() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let tokens = sharing(&provider, &server.url()).watch(true).build().unwrap();
    let token = tokens.token().unwrap();
    // The connection of the store, the one that watches, and the one of the test.
    eventually("there are two connections", || clients(&server) == 3);
    tokens.reject(&token).unwrap();
    eventually("the watching connection is closed", || clients(&server) == 2);
}
