//! Managers that share a token over a real Redis, each with a store of its own, as processes have.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use evertoken::provider::Identity;
use evertoken::store::{Expected, LeaseOutcome, LeaseOwner, PublishOutcome, Store, SwapOutcome};
use evertoken::testing::FakeProvider;
use evertoken::{Error, ErrorKind, RedisStore, TokenManager};

use crate::common::proxy::{Fault, Proxy};
use crate::common::redis_server::{Monitor, RedisServer};
use crate::common::wait::*;
use crate::setup::*;

#[test]
fn promise_3_many_managers_on_one_redis_cost_one_fetch() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new().gated());
    let managers: Vec<_> = (0..8).map(|_| manager(&provider, &server.url())).collect();
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
fn promise_3_one_failed_fetch_answers_all_managers_until_its_retry_time() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    provider.always_fail(Some(Error::new(ErrorKind::InvalidCredentials, "the secret is wrong").with_code("40001")));
    let first = manager(&provider, &server.url()).token().unwrap_err();
    for _ in 0..5 {
        let other = manager(&provider, &server.url()).token().unwrap_err();
        assert_eq!((other.kind(), other.code()), (first.kind(), Some("40001")));
        assert!(other.retry_after().unwrap() <= 36 * SECOND);
    }
    assert_eq!(provider.calls(), 1);
    provider.always_fail(None);
    let one = manager(&provider, &server.url());
    one.invalidate().unwrap();
    assert_eq!(text(&one), "token-1");
}

#[test]
fn promise_4_no_manager_adopts_a_rejected_token() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let (one, other) = (manager(&provider, &server.url()), manager(&provider, &server.url()));
    let token = one.token().unwrap();
    one.reject(&token).unwrap();
    assert_eq!((text(&other), text(&one)), ("token-2".to_owned(), "token-2".to_owned()));
    assert_eq!(provider.calls(), 2);
}

#[test]
fn a_cold_call_costs_one_round_trip_and_a_refresh_two() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    // After this call the server knows the scripts.
    assert_eq!(text(&manager(&provider, &server.url())), "token-1");
    let monitor = Monitor::of(&server);
    assert_eq!(text(&manager(&provider, &server.url())), "token-1");
    assert_eq!(monitor.commands(), ["EVALSHA"]);
    let one = manager(&provider, &server.url());
    assert_eq!(text(&one), "token-1");
    let monitor = Monitor::of(&server);
    assert_eq!(one.force_refresh().unwrap().expose(), "token-2");
    assert_eq!(monitor.commands(), ["EVALSHA", "EVALSHA"]);
}

#[test]
fn calls_that_return_the_current_token_ask_redis_nothing() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let one = manager(&provider, &server.url());
    text(&one);
    let monitor = Monitor::of(&server);
    (0..10_000).for_each(|_| drop(one.token().unwrap()));
    assert!(monitor.commands().is_empty());
}

#[test]
fn every_key_in_redis_expires() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let one = manager(&provider, &server.url());
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
    // Another manager, whose lease expired long ago.
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
fn an_operation_whose_reply_was_lost_is_carried_out_once() {
    let server = RedisServer::start();
    // The server knows the scripts, so that the lost reply is the one of the operation.
    warm(&server);
    let owner = LeaseOwner::new("a");
    shows("each operation is repeated and carried out once", |round| {
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

/// Loads all scripts into the server.
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
    shows("no caller notices", |_| {
        let provider = FakeProvider::new();
        let one = manager(&provider, &server.url());
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
    let (one, other) = (manager(&of("s-1"), &server.url()), manager(&of("s-2"), &server.url()));
    assert_eq!((text(&one).as_str(), text(&other).as_str()), ("token-of-s-1", "token-of-s-2"));
    // Even when the record of one is put under the key of the other.
    let record: Vec<u8> = server.ask(&["GET", one.key().as_str()]).unwrap();
    store(&server).compare_and_swap(other.key(), Expected::Any, Some((&record, HOUR))).unwrap();
    let third = manager(&of("s-2"), &server.url());
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

#[test]
fn promise_3_a_cold_start_of_many_credentials_on_a_slow_network_costs_one_fetch_for_each() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.addr());
    // A queue of a hundred takes twice the time limit of one operation.
    proxy.set(Fault::Delay(Duration::from_millis(10)));
    shows("no manager fetches alone", |round| {
        let stores = [0; 2].map(|_| RedisStore::open(&proxy.url()).unwrap());
        let providers: Vec<_> = (0..100).map(|number| provider(format!("{round}, {number}"))).collect();
        let managers: Vec<_> = stores
            .iter()
            .flat_map(|store| providers.iter().map(|provider| on(store, provider).build().unwrap()))
            .collect();
        thread::scope(|scope| managers.iter().for_each(|tokens| drop(scope.spawn(|| text(tokens)))));
        (providers.iter().map(FakeProvider::calls).sum::<usize>() == providers.len()).then_some(())
    });
}

#[test]
fn promise_4_a_repeated_publication_does_not_undo_a_later_rejection() {
    let server = RedisServer::start();
    let (proxy, owner) = (Proxy::to(server.addr()), LeaseOwner::new("a"));
    let direct = RedisStore::open(&server.url()).unwrap();
    shows("the request is repeated too late", |round| {
        proxy.set(Fault::None);
        let (store, key) = (RedisStore::open(&proxy.url()).unwrap(), TokenManager::new(provider(round)).key().clone());
        // The server knows the scripts then, so that the lost reply is the one of the operation.
        patiently(|| direct.publish(&key, &owner, None, b"warm", SECOND));
        patiently(|| direct.compare_and_swap(&key, Expected::Any, None));
        assert!(matches!(patiently(|| store.read_or_lease(&key, None, SECOND, &owner, HOUR)), LeaseOutcome::Leased));
        proxy.set(Fault::Delay(PATIENCE));
        let published = thread::scope(|scope| {
            let publishing = scope.spawn(|| store.publish(&key, &owner, None, b"token", HOUR));
            eventually("the token is written", || patiently(|| direct.read(&key)).is_some());
            let entry = patiently(|| direct.read(&key)).unwrap();
            let rejected = Some((b"rejected".as_slice(), entry.remaining()));
            patiently(|| direct.compare_and_swap(&key, Expected::Version(entry.version()), rejected));
            // In this order, so that the late reply cannot arrive after all.
            proxy.cut_all();
            proxy.set(Fault::None);
            publishing.join().unwrap()
        });
        assert_eq!(patiently(|| direct.read(&key)).unwrap().bytes(), b"rejected");
        matches!(published, Ok(PublishOutcome::Conflict(_))).then_some(())
    });
}
