//! Managers that share a token over a real Redis. Each has a store of its own, as processes have.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::proxy::Proxy;
use crate::common::redis_server::{Monitor, RedisServer};
use crate::common::wait::*;
use evertoken::provider::Identity;
use evertoken::store::{Expected, Key, LeaseOutcome, LeaseOwner, PublishOutcome, Store, SwapOutcome};
use evertoken::testing::FakeProvider;
use evertoken::{Error, ErrorKind, EventKind, RedisConfig, RedisStore, TokenManager, TokenManagerBuilder, TokenOrigin};

fn store(server: &RedisServer) -> RedisStore {
    RedisStore::open(&server.url()).unwrap()
}

/// A manager with a store of its own.
fn sharing(provider: &FakeProvider, server: &RedisServer) -> TokenManagerBuilder {
    TokenManager::builder(provider.clone()).jitter(0.0).store(store(server))
}

fn manager(provider: &FakeProvider, server: &RedisServer) -> TokenManager {
    sharing(provider, server).build().unwrap()
}

/// A provider of a credential of its own, so that its record is one of its own.
fn provider(name: &str) -> FakeProvider {
    FakeProvider::new().with_identity(Identity::new("test").part("name", name))
}

/// A key that no manager uses.
fn key(name: &str) -> Key {
    TokenManager::new(provider(name)).key().clone()
}

fn try_lease(store: &RedisStore, key: &Key, owner: &str) -> Result<LeaseOutcome, Error> {
    store.read_or_lease(key, None, SECOND, &LeaseOwner::new(owner), HOUR)
}

fn lease(store: &RedisStore, key: &Key, owner: &str, life: Duration) -> LeaseOutcome {
    store.read_or_lease(key, None, SECOND, &LeaseOwner::new(owner), life).unwrap()
}

#[test]
fn promise_3_many_managers_on_one_redis_cost_one_fetch() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new().gated());
    let managers: Vec<_> = (0..8).map(|_| manager(&provider, &server)).collect();
    let answers = thread::scope(|scope| {
        let asking: Vec<_> = managers.iter().flat_map(|one| [one; 8]).map(|one| scope.spawn(|| text(one))).collect();
        assert!(provider.wait_for_calls(1, PATIENCE));
        provider.permit(1);
        asking.into_iter().map(|asking| asking.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(answers.iter().all(|answer| answer == "token-1"));
    assert_eq!(provider.calls(), 1);
}

#[test]
fn promise_3_a_failed_fetch_answers_the_others_until_its_retry_time() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    provider.always_fail(Some(Error::new(ErrorKind::InvalidCredentials, "the secret is wrong").with_code("40001")));
    let first = manager(&provider, &server).token().unwrap_err();
    for _ in 0..5 {
        let other = manager(&provider, &server).token().unwrap_err();
        assert_eq!((other.kind(), other.code()), (first.kind(), Some("40001")));
        assert!(other.retry_after().unwrap() <= 36 * SECOND);
    }
    assert_eq!(provider.calls(), 1);
    provider.always_fail(None);
    let one = manager(&provider, &server);
    one.invalidate().unwrap();
    assert_eq!(text(&one), "token-1");
}

#[test]
fn promise_4_a_token_that_one_rejects_is_adopted_by_nobody() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let (one, other) = (manager(&provider, &server), manager(&provider, &server));
    let token = one.token().unwrap();
    one.reject(&token).unwrap();
    assert_eq!((text(&other), text(&one)), ("token-2".to_owned(), "token-2".to_owned()));
    assert_eq!(provider.calls(), 2);
}

#[test]
fn promise_4_a_rejection_reaches_the_others_at_once_when_they_watch() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let one = manager(&provider, &server);
    let others: Vec<_> = (0..3).map(|_| sharing(&provider, &server).watch(true).build().unwrap()).collect();
    let token = one.token().unwrap();
    let events: Vec<_> = others.iter().map(TokenManager::events).collect();
    others.iter().for_each(|other| assert_eq!(text(other), "token-1"));
    one.reject(&token).unwrap();
    let asked = Instant::now();
    for events in &events {
        wait_for(events, |kind| matches!(kind, EventKind::Rejected { .. }).then_some(()));
    }
    // The age at which they would look anyway is a minute.
    assert!(asked.elapsed() < 10 * SECOND);
    others.iter().for_each(|other| assert_eq!(text(other), "token-2"));
    assert_eq!(provider.calls(), 2);
}

#[test]
fn a_new_token_and_an_invalidation_reach_those_who_watch() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let (one, other) = (manager(&provider, &server), sharing(&provider, &server).watch(true).build().unwrap());
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
fn without_watching_a_rejection_reaches_the_others_within_their_local_max_age() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let one = manager(&provider, &server);
    let other = sharing(&provider, &server).store_check_interval(Duration::from_millis(100)).build().unwrap();
    let token = one.token().unwrap();
    assert_eq!(text(&other), "token-1");
    one.reject(&token).unwrap();
    // It looks while it is in use.
    eventually("the rejection is seen", || text(&other) == "token-2");
    assert_eq!(provider.calls(), 2);
}

#[test]
fn one_watch_serves_all_managers_of_a_store_and_ends_with_them() {
    let server = RedisServer::start();
    let (shared, quiet) = (store(&server), server.connect());
    let providers: Vec<_> = (0..20).map(|number| provider(&number.to_string())).collect();
    let managers: Vec<_> = providers
        .iter()
        .map(|provider| TokenManager::builder(provider.clone()).store(shared.clone()).watch(true).build().unwrap())
        .collect();
    managers.iter().for_each(|manager| assert_eq!(text(manager), "token-1"));
    drop(quiet);
    // The store's own, the one that watches, and the one that asks.
    eventually("there are two connections", || clients(&server) == 3);
    let other = manager(&providers[7], &server);
    assert_eq!(text(&other), "token-1");
    let events = managers[7].events();
    other.force_refresh().unwrap();
    wait_for_grant(&events);
    assert_eq!(managers[7].try_token().unwrap().expose(), "token-2");
    drop((managers, other));
    eventually("the one that watches is closed", || clients(&server) == 2);
    drop(shared);
    eventually("all are closed", || clients(&server) == 1);
}

fn clients(server: &RedisServer) -> usize {
    server.ask::<String>(&["CLIENT", "LIST"]).unwrap().lines().count()
}

#[test]
fn whoever_waits_is_woken_by_a_publication_and_by_the_end_of_a_lease() {
    let server = RedisServer::start();
    let (holder, waiter, key) = (store(&server), store(&server), key("woken"));
    assert!(matches!(lease(&holder, &key, "a", HOUR), LeaseOutcome::Leased));
    let LeaseOutcome::Busy { cursor, .. } = lease(&waiter, &key, "b", HOUR) else { panic!("the lease is taken") };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.wait(&key, &cursor, Instant::now() + PATIENCE).map(|()| Instant::now()));
        eventually("it waits", || server.ask::<String>(&["CLIENT", "LIST"]).unwrap().contains("cmd=xread"));
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
fn a_publication_wakes_who_waits_long_before_it_would_look_again() {
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
                eventually("it waits", || server.ask::<String>(&["CLIENT", "LIST"]).unwrap().contains("cmd=xread"));
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
fn without_the_right_to_use_streams_it_polls() {
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
fn a_cold_call_costs_one_round_trip_and_a_refresh_two() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    // So that the server knows the scripts.
    assert_eq!(text(&manager(&provider, &server)), "token-1");
    let monitor = Monitor::of(&server);
    assert_eq!(text(&manager(&provider, &server)), "token-1");
    assert_eq!(monitor.commands(), ["EVALSHA"]);
    let one = manager(&provider, &server);
    assert_eq!(text(&one), "token-1");
    let monitor = Monitor::of(&server);
    assert_eq!(one.force_refresh().unwrap().expose(), "token-2");
    assert_eq!(monitor.commands(), ["EVALSHA", "EVALSHA"]);
}

#[test]
fn many_calls_of_a_held_token_ask_redis_nothing() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let one = manager(&provider, &server);
    text(&one);
    let monitor = Monitor::of(&server);
    (0..10_000).for_each(|_| drop(one.token().unwrap()));
    assert!(monitor.commands().is_empty());
}

#[test]
fn nothing_is_left_in_redis_for_ever() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let one = manager(&provider, &server);
    let token = one.token().unwrap();
    one.reject(&token).unwrap();
    text(&one);
    provider.always_fail(Some(Error::new(ErrorKind::Unavailable, "down")));
    one.invalidate().unwrap();
    one.token().unwrap_err();
    let keys: Vec<String> = server.ask(&["KEYS", "*"]).unwrap();
    assert!(!keys.is_empty());
    for key in keys {
        assert!(key.starts_with("evertoken:{v1:"), "{key}");
        assert!(server.ask::<i64>(&["PTTL", &key]).unwrap() > 0, "{key} has no end");
    }
}

#[test]
fn a_lease_is_freed_by_its_owner_only() {
    let server = RedisServer::start();
    let (store, key) = (store(&server), key("owner"));
    let publish =
        |owner: &str, bytes: &[u8], life| store.publish(&key, &LeaseOwner::new(owner), None, bytes, life).unwrap();
    assert!(matches!(lease(&store, &key, "a", HOUR), LeaseOutcome::Leased));
    // Somebody else, whose lease ran out long ago.
    publish("b", b"late", SECOND / 2);
    assert!(matches!(lease(&store, &key, "c", HOUR), LeaseOutcome::Busy { .. }), "it is still a's");
    publish("a", b"right", HOUR);
    assert!(matches!(publish("b", b"later", HOUR / 2), PublishOutcome::Conflict(entry) if entry.bytes() == b"right"));
    publish("a", b"twice", 2 * HOUR);
    store.compare_and_swap(&key, Expected::Any, None).unwrap();
    assert!(matches!(lease(&store, &key, "c", HOUR), LeaseOutcome::Leased));
    publish("a", b"late", HOUR);
    store.compare_and_swap(&key, Expected::Any, None).unwrap();
    assert!(matches!(lease(&store, &key, "d", HOUR), LeaseOutcome::Busy { .. }), "it is c's now");
}

#[test]
fn an_operation_whose_answer_was_lost_is_done_once() {
    let server = RedisServer::start();
    // The server knows the scripts, so that the answer that is lost is the one that counts.
    warm(&server);
    let owner = LeaseOwner::new("a");
    shows("each operation is asked again and done once", |round| {
        let proxy = Proxy::to(server.addr());
        let (store, key) = (RedisStore::open(&proxy.url()).unwrap(), key(&format!("lost {round}")));
        let lose = || proxy.lose_next_reply_to("EVALSHA");
        lose();
        let leasing = store.read_or_lease(&key, None, SECOND, &owner, HOUR).ok()?;
        assert!(matches!(leasing, LeaseOutcome::Leased), "it is asked again, by the same owner");
        lose();
        let publish = store.publish(&key, &owner, None, b"record", HOUR).ok()?;
        let PublishOutcome::Done(Some(version)) = publish else { panic!("{publish:?}") };
        lose();
        let swap = store.compare_and_swap(&key, Expected::Version(&version), Some((b"next", HOUR))).ok()?;
        assert!(matches!(swap, SwapOutcome::Done(Some(_))), "{swap:?}");
        lose();
        let swap = store.compare_and_swap(&key, Expected::Any, None).ok()?;
        assert!(matches!(swap, SwapOutcome::Done(None)), "{swap:?}");
        (proxy.connections() == 5).then_some(())
    });
}

/// Has the server learn all scripts.
fn warm(server: &RedisServer) {
    let (store, key) = (store(server), key("warm"));
    assert!(matches!(lease(&store, &key, "a", HOUR), LeaseOutcome::Leased));
    store.publish(&key, &LeaseOwner::new("a"), None, b"record", HOUR).unwrap();
    store.read(&key).unwrap();
    store.compare_and_swap(&key, Expected::Any, None).unwrap();
}

#[test]
fn a_server_that_forgets_the_scripts_gets_them_again() {
    let server = RedisServer::start();
    shows("nobody notices", |_| {
        let provider = FakeProvider::new();
        let one = manager(&provider, &server);
        one.invalidate().ok()?;
        for round in 1..=5 {
            one.force_refresh().unwrap();
            server.ask::<()>(&["SCRIPT", "FLUSH"]).unwrap();
            if round == 3 {
                server.kill();
                server.restart();
            }
        }
        assert_eq!(provider.calls(), 5);
        (one.metrics().store_errors == 0).then_some(())
    });
}

#[test]
fn two_secrets_of_one_id_are_never_mixed() {
    let server = RedisServer::start();
    let of = |secret: &str| {
        let identity = Identity::new("wecom").part("corp", "c").secret(&evertoken::Secret::from(secret));
        FakeProvider::new().with_identity(identity).then_grant(format!("token of {secret}").replace(' ', "-"), HOUR)
    };
    let (one, other) = (manager(&of("s-1"), &server), manager(&of("s-2"), &server));
    assert_eq!((text(&one).as_str(), text(&other).as_str()), ("token-of-s-1", "token-of-s-2"));
    // Even when the record of one is put under the key of the other.
    let record: Vec<u8> = server.ask(&["GET", one.key().as_str()]).unwrap();
    store(&server).compare_and_swap(other.key(), Expected::Any, Some((&record, HOUR))).unwrap();
    let third = manager(&of("s-2"), &server);
    assert_eq!(text(&third), "token-of-s-2");
}

#[test]
fn threads_of_one_store_get_their_own_answers() {
    let server = RedisServer::start();
    let store = store(&server);
    let start = Barrier::new(16);
    thread::scope(|scope| {
        for number in 0..16_u8 {
            let (store, start) = (&store, &start);
            scope.spawn(move || {
                let key = key(&format!("own {number}"));
                start.wait();
                for _ in 0..100 {
                    patiently(|| store.compare_and_swap(&key, Expected::Any, Some((&[number], HOUR))));
                    assert_eq!(patiently(|| store.read(&key)).unwrap().bytes(), [number]);
                }
            });
        }
    });
}

/// What a program does that keeps its tokens in the other format: JSON of two fields, and a lock that it never frees.
struct OtherProgram<'a> {
    server: &'a RedisServer,
    key: &'a str,
}

impl OtherProgram<'_> {
    fn now() -> Duration {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
    }

    fn writes(&self, token: &str, life: Duration) {
        let end = (Self::now() + life).as_secs();
        let record = format!(r#"{{"access_token":"{token}","expires_at":{end}}}"#);
        self.server.ask::<()>(&["SET", self.key, &record, "EX", &life.as_secs().to_string()]).unwrap();
    }

    /// The token, if its record says that it is good.
    fn reads(&self) -> Option<String> {
        let record: Option<String> = self.server.ask(&["GET", self.key]).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record?).unwrap();
        let good = record["expires_at"].as_i64().unwrap() > Self::now().as_secs().try_into().unwrap();
        good.then(|| record["access_token"].as_str().unwrap().to_owned())
    }

    /// Takes the lock, as of `ago`.
    fn locks(&self, ago: Duration) -> bool {
        let stamp = format!("ts-{}", (Self::now() - ago).as_nanos());
        let lock = format!("{}:lock", self.key);
        self.server.ask::<Option<String>>(&["SET", &lock, &stamp, "NX", "EX", "30"]).unwrap().is_some()
    }
}

const SHARED: &str = "wxkefu:token:wecom:corp";

fn beside_others(provider: &FakeProvider, server: &RedisServer) -> TokenManager {
    sharing(provider, server).key(SHARED).build().unwrap()
}

#[test]
fn a_key_of_ones_own_is_shared_with_programs_of_another_format_both_ways() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let other = OtherProgram { server: &server, key: SHARED };
    other.writes("theirs", HOUR);
    let one = beside_others(&provider, &server);
    let token = one.token().unwrap();
    assert_eq!((token.expose(), provider.calls()), ("theirs", 0));
    assert!(token.remaining() <= HOUR && token.remaining() > HOUR - 30 * SECOND);
    assert_eq!(one.force_refresh().unwrap().expose(), "token-1");
    assert_eq!(other.reads().as_deref(), Some("token-1"));
    assert!(other.locks(Duration::ZERO), "the lock is free again");
    // A token that is rejected is no token for them either.
    one.reject(&one.token().unwrap()).unwrap();
    assert_eq!(other.reads(), None);
}

#[test]
fn what_another_program_writes_later_is_newer() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let other = OtherProgram { server: &server, key: SHARED };
    let one = sharing(&provider, &server).key(SHARED).store_check_interval(Duration::from_millis(100)).build().unwrap();
    assert_eq!(text(&one), "token-1");
    for token in ["theirs-1", "theirs-2"] {
        // Its life is shorter, as theirs are: they take their margin off it.
        other.writes(token, HOUR);
        eventually("it is adopted", || text(&one) == token);
    }
    assert_eq!(provider.calls(), 1);
}

#[test]
fn the_lock_of_another_program_is_heeded_until_its_fetch_must_be_over() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let other = OtherProgram { server: &server, key: SHARED };
    assert!(other.locks(Duration::ZERO));
    let one = beside_others(&provider, &server);
    let events = one.events();
    one.warm_up();
    // It waits, and has what they fetched as soon as it is there.
    eventually("it waits", || server.ask::<String>(&["CLIENT", "LIST"]).unwrap().contains("cmd=xread"));
    other.writes("theirs", HOUR);
    let source = wait_for(&events, |kind| match kind {
        EventKind::Granted { origin, .. } => Some(*origin),
        _ => None,
    });
    assert_eq!((source, provider.calls()), (TokenOrigin::Store, 0));
    one.invalidate().unwrap();
    // Their lock is still there; they never free it. It is too old to be anybody's.
    server.ask::<()>(&["DEL", &format!("{SHARED}:lock")]).unwrap();
    assert!(other.locks(8 * SECOND));
    let asked = Instant::now();
    assert_eq!(text(&one), "token-1");
    assert!(asked.elapsed() < 5 * SECOND);
}

#[test]
fn the_lock_of_another_program_that_died_is_taken_over_in_time() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let other = OtherProgram { server: &server, key: SHARED };
    // It has 30 seconds to run, and whoever took it a second only.
    assert!(other.locks(6 * SECOND));
    let asked = Instant::now();
    assert_eq!(text(&beside_others(&provider, &server)), "token-1");
    assert!(asked.elapsed() < 10 * SECOND);
}
