//! A store on Redis behaves the same over every topology: one server over TCP, a socket or TLS, a group with sentinels,
//! a cluster. All of them are real.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use evertoken::provider::Identity;
use evertoken::store::{LeaseOutcome, LeaseOwner, PublishOutcome, Store};
use evertoken::testing::FakeProvider;
use evertoken::{ErrorKind, EventKind, RedisConfig, RedisStore, Token, TokenManager};

use crate::common::alone::alone;
use crate::common::cluster::RedisCluster;
use crate::common::redis_server::{RedisServer, field, until};
use crate::common::sentinel::{MASTER, SentinelGroup};
use crate::common::suite::{ask, behaves, key, put};
use crate::common::wait::*;
use crate::setup::{on, provider};

/// The time limit of an operation, with some grace for a busy machine.
const OPERATION: Duration = Duration::from_millis(500);

/// A change that is noticed within this time was announced, and not found by a periodic check.
const SOON: Duration = Duration::from_secs(2);

#[test]
fn one_server_behaves_as_every_store() {
    let server = RedisServer::start();
    let store = reached(RedisConfig::from_url(&server.url()).unwrap());
    behaves(&store, &|time| advance(&[&server], time));
    assert_eq!(connections(&server), 1);
}

#[test]
fn a_unix_socket_behaves_as_every_store() {
    let server = RedisServer::start();
    behaves(&reached(RedisConfig::from_url(&server.unix_url()).unwrap()), &|time| advance(&[&server], time));
    assert_eq!(connections(&server), 0);
}

#[test]
fn tls_behaves_as_every_store() {
    let (server, certificates) = RedisServer::tls();
    let config = RedisConfig::from_url(&server.url()).unwrap().root_certificates(&certificates.ca_pem);
    behaves(&reached(config), &|time| advance(&[&server], time));
}

#[test]
fn a_group_with_sentinels_behaves_as_every_store() {
    let group = SentinelGroup::start();
    behaves(&reached(sentinels(&group)), &|time| advance(&[&group.servers()[0]], time));
}

#[test]
fn a_cluster_behaves_as_every_store() {
    let cluster = RedisCluster::start();
    let masters: Vec<_> = cluster.servers()[..3].iter().collect();
    behaves(&reached(config_of(&cluster)), &|time| advance(&masters, time));
    assert!(masters.iter().filter(|master| size(master, 0) > 0).count() > 1, "more than one node was used");
}

#[test]
fn valkey_has_urls_of_its_own() {
    let server = RedisServer::start();
    let url = server.url().replace("redis://", "valkey://");
    let (provider, other) = (FakeProvider::new(), RedisStore::open(&server.url()).unwrap());
    let one = TokenManager::builder(provider.clone()).store(RedisStore::open(&url).unwrap()).build().unwrap();
    let another = TokenManager::builder(provider.clone()).store(other).build().unwrap();
    assert_eq!([text(&one), text(&another)], ["token-1", "token-1"]);
    assert_eq!(provider.calls(), 1);
}

#[test]
fn the_number_of_a_database_stands_in_the_url_or_in_the_configuration() {
    let server = RedisServer::start();
    let by_url = RedisStore::open(&format!("{}/3", server.url())).unwrap();
    let by_socket = RedisStore::open(&format!("{}?db=3", server.unix_url())).unwrap();
    let by_name = RedisStore::new(RedisConfig::from_url(&server.url()).unwrap().database(3)).unwrap();
    put(&by_url, &key("database"), b"three", HOUR);
    for store in [by_url, by_socket, by_name] {
        assert_eq!(store.read(&key("database")).unwrap().unwrap().bytes(), b"three");
    }
    assert!(RedisStore::open(&server.url()).unwrap().read(&key("database")).unwrap().is_none());
    assert_eq!(size(&server, 0), 0);
    assert!(size(&server, 3) > 0);
}

#[test]
fn a_user_needs_no_more_rights_than_the_operations_have() {
    let server = RedisServer::start();
    let rights = "+eval +evalsha +xread +get +set +del +type +strlen +getrange +pttl +pexpire \
                  +time +xadd +xrevrange";
    let mut words = vec!["ACL", "SETUSER", "tokens", "on", ">a password", "~evertoken:*", "-@all"];
    words.extend(rights.split_whitespace());
    server.ask::<()>(&words).unwrap();
    server.ask::<()>(&["ACL", "SETUSER", "default", "off"]).unwrap_or_else(|error| panic!("{error}"));
    let by_config = RedisConfig::from_url(&server.url()).unwrap().user("tokens").password("a password");
    let by_url = server.url().replace("redis://", "redis://tokens:a%20password@");
    let provider = FakeProvider::new().gated();
    let manager = |store| TokenManager::builder(provider.clone()).store(store).build().unwrap();
    let one = manager(RedisStore::new(by_config).unwrap());
    let another = manager(RedisStore::open(&by_url).unwrap());
    let events = [one.events(), another.events()];
    thread::scope(|scope| {
        let asking = [scope.spawn(|| text(&one)), scope.spawn(|| text(&another))];
        assert!(provider.wait_for_calls(1, PATIENCE));
        provider.permit(1);
        asking.into_iter().for_each(|asking| assert_eq!(asking.join().unwrap(), "token-1"));
    });
    assert_eq!(provider.calls(), 1);
    one.invalidate().unwrap();
    let store_trouble = |kind: &EventKind| matches!(kind, EventKind::StoreDown { .. });
    assert!(!events.iter().flat_map(|events| events.try_iter()).any(|event| store_trouble(&event.kind)));
}

#[test]
fn promise_6_a_wrong_password_is_a_store_error_and_is_not_retried_endlessly() {
    let server = RedisServer::start();
    server.ask::<()>(&["ACL", "SETUSER", "tokens", "on", ">right", "~*", "+@all"]).unwrap();
    let config = RedisConfig::from_url(&server.url()).unwrap().user("tokens").password("wrong");
    let provider = FakeProvider::new();
    let store = RedisStore::new(config).unwrap();
    let tokens = TokenManager::builder(provider.clone()).store(store.clone()).build().unwrap();
    let events = tokens.events();
    assert_eq!(text(&tokens), "token-1");
    let error = wait_for_trouble(&events);
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(error.to_string().contains("rejected the user or the password"), "{error}");
    for _ in 0..100 {
        assert!(store.read(&key("any")).is_err());
        assert!(tokens.token().is_ok());
        assert!(tokens.force_refresh().is_ok());
    }
    let stats: String = server.ask(&["INFO", "commandstats"]).unwrap();
    let tries = field(&stats, "cmdstat_auth").unwrap();
    let tries: usize = tries.trim_start_matches("calls=").split(',').next().unwrap().parse().unwrap();
    assert!((1..=2).contains(&tries), "{tries} tries");
    assert!(!format!("{error} {error:?} {store:?}").contains("wrong"), "it is not shown");
}

#[test]
fn tls_accepts_only_servers_whose_authority_is_trusted() {
    let (server, certificates) = RedisServer::tls();
    let config = || RedisConfig::from_url(&server.url()).unwrap();
    let provider = FakeProvider::new();
    let manager = |store| TokenManager::builder(provider.clone()).store(store).build().unwrap();
    let one = manager(reached(config().root_certificates(&certificates.ca_pem)));
    let another = manager(reached(config().root_certificates(&certificates.ca_pem)));
    assert_eq!([text(&one), text(&another)], ["token-1", "token-1"]);
    // Neither another authority nor those of the system are accepted.
    for config in [config().root_certificates(&certificates.other_ca_pem), config()] {
        let stranger = manager(RedisStore::new(config).unwrap());
        let events = stranger.events();
        let calls = provider.calls();
        assert_eq!(text(&stranger), format!("token-{}", calls + 1), "a token comes all the same");
        assert_eq!(wait_for_trouble(&events).kind(), ErrorKind::Store);
    }
}

#[test]
fn tls_sends_the_client_certificate_to_a_server_that_requires_one() {
    let (server, certificates) = RedisServer::tls_with_client_auth();
    let config = || RedisConfig::from_url(&server.url()).unwrap().root_certificates(&certificates.ca_pem);
    let known = config().client_certificate(&certificates.client_cert_pem, certificates.client_key_pem.as_str());
    let known = reached(known);
    put(&known, &key("client"), b"one", HOUR);
    assert!(known.read(&key("client")).unwrap().is_some());
    let unknown = RedisStore::new(config()).unwrap();
    let error = unknown.read(&key("client")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[test]
fn tls_needs_no_setup_by_the_program() {
    alone(|| {
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
        use_tls();
    });
}

#[test]
fn tls_uses_the_cryptography_that_the_program_has_chosen() {
    alone(|| {
        rustls::crypto::ring::default_provider().install_default().unwrap();
        use_tls();
    });
}

#[test]
fn sentinels_lead_to_the_master_and_one_that_is_silent_costs_no_more_than_an_operations_time() {
    let group = SentinelGroup::start();
    group.stop_sentinel(0);
    let asked = Instant::now();
    for number in 0..20_u8 {
        // A new store has no connection yet, and asks the sentinels.
        put(&store_on(&group), &key("silent"), &[number], HOUR);
    }
    assert!(asked.elapsed() < 20 * OPERATION, "{:?}", asked.elapsed());
    group.go_on_sentinel(0);
    let record: Vec<u8> = group.servers()[0].ask(&["GET", key("silent").as_str()]).unwrap();
    assert_eq!(record, [19]);
}

#[test]
fn promise_6_a_failover_costs_no_token_and_the_store_works_on_the_new_master() {
    let group = SentinelGroup::start();
    let provider = FakeProvider::new();
    let [one, another] = [(); 2].map(|()| manager(&provider, store_on(&group)));
    assert_eq!([text(&one), text(&another)], ["token-1", "token-1"]);
    let lost = Instant::now();
    thread::scope(|scope| {
        let failing_over = scope.spawn(|| group.fail_over());
        let mut calls = 0;
        while !failing_over.is_finished() {
            assert_eq!([text(&one), text(&another)], ["token-1", "token-1"]);
            calls += 1;
        }
        assert!(calls > 100);
        failing_over.join().unwrap();
    });
    let (outage, moved) = (lost.elapsed(), Instant::now());
    let fresh = one.force_refresh().unwrap();
    // Records that could not be written without a master are written now. On a busy machine the sentinels may have
    // chosen yet another master meanwhile.
    until("the record is on the new master", || records(&group.servers()[group.master()], &one, &fresh));
    // The longer the outage, the longer the intervals between two checks.
    assert!(moved.elapsed() < 2 * outage + 2 * SOON, "{:?} after {outage:?}", moved.elapsed());
    share_again(&one, &another, &provider);
}

#[test]
fn a_demoted_master_is_left() {
    let group = SentinelGroup::start();
    let provider = FakeProvider::new();
    let [one, another] = [(); 2].map(|()| manager(&provider, store_on(&group)));
    assert_eq!([text(&one), text(&another)], ["token-1", "token-1"]);
    let before = group.master();
    let sentinel = redis::Client::open(format!("redis://{}/", group.nodes()[0])).unwrap();
    let mut sentinel = sentinel.get_connection_with_timeout(PATIENCE).unwrap();
    until("the sentinels agree", || redis::cmd("SENTINEL").arg("FAILOVER").arg(MASTER).exec(&mut sentinel).is_ok());
    until("there is another master", || {
        // A server that is demoted closes all connections, perhaps this one too.
        let role = group.servers()[before].ask(&["ROLE"]);
        matches!(role, Ok(redis::Value::Array(parts)) if parts[0] == redis::Value::BulkString(b"slave".to_vec()))
    });
    assert_ne!(group.master(), before);
    let fresh = one.force_refresh().unwrap();
    until("the record is on the new master", || records(&group.servers()[group.master()], &one, &fresh));
    share_again(&one, &another, &provider);
}

#[test]
fn promise_3_credentials_in_all_slots_of_a_cluster_are_fetched_once_each() {
    let cluster = RedisCluster::start();
    let stores = [(); 2].map(|()| RedisStore::new(config_of(&cluster)).unwrap());
    let providers: Vec<_> = (0..60).map(named).collect();
    let mut nodes = BTreeSet::new();
    for provider in &providers {
        for store in &stores {
            let tokens = TokenManager::builder(provider.clone()).store(store.clone()).build().unwrap();
            assert_eq!(text(&tokens), "token-1");
            nodes.insert(cluster.master_of(tokens.key().as_str()));
        }
        assert_eq!(provider.calls(), 1);
    }
    assert_eq!(nodes.len(), 3, "every master has some");
    let lease_and_news: usize = cluster.servers()[..3].iter().map(|master| size(master, 0)).sum();
    assert!(lease_and_news >= 60);
}

#[test]
fn a_plain_client_on_a_node_of_a_cluster_is_told_to_use_the_cluster_client() {
    let cluster = RedisCluster::start();
    let key = key("plain");
    let other = (cluster.master_of(key.as_str()) + 1) % 3;
    let store = RedisStore::open(&cluster.servers()[other].url()).unwrap();
    let error = store.read(&key).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Config, Some("MOVED")));
    assert!(error.to_string().contains("RedisConfig::cluster"), "{error}");
    let provider = named(1);
    let other = (cluster.master_of(TokenManager::new(provider.clone()).key().as_str()) + 1) % 3;
    let store = RedisStore::open(&cluster.servers()[other].url()).unwrap();
    let tokens = TokenManager::builder(provider).store(store).build().unwrap();
    let events = tokens.events();
    assert_eq!(text(&tokens), "token-1", "tokens keep coming");
    assert!(wait_for_trouble(&events).to_string().contains("RedisConfig::cluster"));
}

#[test]
fn promise_6_a_slot_that_moves_to_another_node_takes_its_records_along() {
    let cluster = RedisCluster::start();
    let provider = FakeProvider::new();
    let [one, another] = [(); 2].map(|()| manager(&provider, RedisStore::new(config_of(&cluster)).unwrap()));
    assert_eq!([text(&one), text(&another)], ["token-1", "token-1"]);
    for _ in 0..3 {
        let node = cluster.migrate(one.key().as_str());
        let fresh = one.force_refresh().unwrap();
        until("the record is on the new node", || records(&cluster.servers()[node], &one, &fresh));
        share_again(&one, &another, &provider);
    }
}

#[test]
fn promise_6_callers_get_tokens_while_a_slot_migrates_and_the_store_works_soon_after() {
    let cluster = RedisCluster::start();
    let provider = FakeProvider::new();
    let [one, another] = [(); 2].map(|()| manager(&provider, RedisStore::new(config_of(&cluster)).unwrap()));
    assert_eq!([text(&one), text(&another)], ["token-1", "token-1"]);
    let (lost, (from, to)) = (Instant::now(), cluster.begin_migration(one.key().as_str()));
    // Some keys of a credential are on the new node already, and some are not.
    for _ in 0..5 {
        assert!(one.force_refresh().is_ok() && another.token().is_ok());
    }
    assert_ne!(from, to);
    assert_eq!(cluster.migrate(one.key().as_str()), to);
    let (outage, moved) = (lost.elapsed(), Instant::now());
    let fresh = one.force_refresh().unwrap();
    until("the record is on the new node", || records(&cluster.servers()[to], &one, &fresh));
    assert!(moved.elapsed() < 2 * outage + 2 * SOON, "{:?} after {outage:?}", moved.elapsed());
    share_again(&one, &another, &provider);
}

#[test]
fn promise_6_a_killed_cluster_node_costs_no_token_and_its_replica_goes_on() {
    let cluster = RedisCluster::start();
    let provider = FakeProvider::new();
    let [one, another] = [(); 2].map(|()| manager(&provider, RedisStore::new(config_of(&cluster)).unwrap()));
    assert_eq!([text(&one), text(&another)], ["token-1", "token-1"]);
    let lost = Instant::now();
    let node = thread::scope(|scope| {
        let dying = scope.spawn(|| cluster.kill_master_of(one.key().as_str()));
        while !dying.is_finished() {
            assert_eq!([text(&one), text(&another)], ["token-1", "token-1"]);
        }
        dying.join().unwrap()
    });
    let (outage, moved) = (lost.elapsed(), Instant::now());
    let fresh = one.force_refresh().unwrap();
    until("the record is on the replica", || records(&cluster.servers()[node], &one, &fresh));
    // The longer the outage, the longer the intervals between two checks.
    assert!(moved.elapsed() < 2 * outage + 2 * SOON, "{:?} after {outage:?}", moved.elapsed());
    share_again(&one, &another, &provider);
}

#[test]
fn a_waiter_in_a_cluster_wakes() {
    let cluster = RedisCluster::start();
    let stores = [(); 2].map(|()| reached(config_of(&cluster)));
    wakes(&stores[0], &stores[1]);
}

#[test]
fn a_waiter_over_tls_wakes() {
    let (server, certificates) = RedisServer::tls();
    let config = || RedisConfig::from_url(&server.url()).unwrap().root_certificates(&certificates.ca_pem);
    wakes(&reached(config()), &reached(config()));
}

#[test]
fn a_waiter_behind_sentinels_wakes() {
    let group = SentinelGroup::start();
    wakes(&reached(sentinels(&group)), &reached(sentinels(&group)));
}

#[test]
fn promise_4_a_manager_that_watches_a_cluster_notices_a_rejection() {
    let cluster = RedisCluster::start();
    let config = config_of(&cluster);
    assert_rejections_are_noticed(|| RedisStore::new(config.clone()).unwrap());
}

#[test]
fn promise_4_a_manager_that_watches_over_a_socket_notices_a_rejection() {
    let server = RedisServer::start();
    assert_rejections_are_noticed(|| RedisStore::open(&server.unix_url()).unwrap());
}

#[test]
fn promise_9_a_store_has_one_connection_and_at_most_eight_more_while_it_waits() {
    let server = RedisServer::start();
    let providers: Vec<_> = (0..20).map(|number| named(number).gated()).collect();
    let managers = |store: &RedisStore| -> Vec<_> {
        let manager = |provider: &FakeProvider| TokenManager::builder(provider.clone()).store(store.clone());
        providers.iter().map(|provider| manager(provider).build().unwrap()).collect()
    };
    // Over the socket, so that these connections are not counted.
    let fetching = managers(&RedisStore::open(&server.unix_url()).unwrap());
    let stores = [(); 2].map(|()| RedisStore::open(&server.url()).unwrap());
    let waiting = [managers(&stores[0]), managers(&stores[1])];
    assert_eq!(connections(&server), 0, "none before it is needed");
    fetching.iter().for_each(TokenManager::warm_up);
    assert!(providers.iter().all(|provider| provider.wait_for_calls(1, PATIENCE)));
    let arrived = AtomicUsize::new(0);
    thread::scope(|scope| {
        for tokens in waiting.iter().flatten() {
            let arrived = &arrived;
            scope.spawn(move || {
                assert_eq!(text(tokens), "token-1");
                arrived.fetch_add(1, Ordering::SeqCst);
            });
        }
        until("all connections that may wait are waiting", || connections(&server) == 18);
        // The other managers poll. As long as they do so, there are no more connections.
        let before = scripts(&server);
        until("the other managers check too", || {
            assert!(connections(&server) <= 18);
            scripts(&server) > before + 100
        });
        providers.iter().for_each(|provider| provider.permit(1));
        while arrived.load(Ordering::SeqCst) < 40 {
            assert!(connections(&server) <= 18);
        }
    });
    assert!(providers.iter().all(|provider| provider.calls() == 1));
    until("one connection for each store is left", || connections(&server) == 2);
    drop((waiting, stores));
    until("no connection is left", || connections(&server) == 0);
}

/// A provider with a credential of its own.
fn named(number: u32) -> FakeProvider {
    FakeProvider::new().with_identity(Identity::new("test").part("number", number.to_string()))
}

fn sentinels(group: &SentinelGroup) -> RedisConfig {
    RedisConfig::sentinels(group.nodes(), MASTER).unwrap()
}

fn store_on(group: &SentinelGroup) -> RedisStore {
    RedisStore::new(sentinels(group)).unwrap()
}

/// A connected store. The connection gets all the time it needs: the machine may be busy, and cryptography is slow
/// without optimization.
fn reached(config: RedisConfig) -> RedisStore {
    let store = RedisStore::new(config.timeout(OPERATION)).unwrap();
    until("the store is reached", || store.read(&key("nothing")).is_ok());
    store
}

fn config_of(cluster: &RedisCluster) -> RedisConfig {
    // Each node knows the others.
    RedisConfig::cluster(&cluster.nodes()[..2]).unwrap()
}

/// A manager that checks the store often.
fn manager(provider: &FakeProvider, store: RedisStore) -> TokenManager {
    let builder = TokenManager::builder(provider.clone()).store(store);
    builder.store_check_interval(Duration::from_millis(100)).build().unwrap()
}

/// Whether a server has this token in its record. A server that is being promoted or demoted may not reply. The token
/// is in use, so that it is written again when a failover has lost it.
fn records(server: &RedisServer, tokens: &TokenManager, token: &Token) -> bool {
    assert!(tokens.token().is_ok());
    let record = server.ask::<Option<String>>(&["GET", tokens.key().as_str()]);
    record.is_ok_and(|record| record.is_some_and(|record| record.contains(token.expose())))
}

/// Waits until two managers share again: each adopts the token that the other one fetched.
fn share_again(one: &TokenManager, another: &TokenManager, provider: &FakeProvider) {
    for (here, there) in [(one, another), (another, one)] {
        let fresh = here.force_refresh().unwrap();
        let calls = provider.calls();
        let asked = Instant::now();
        // Both are in use: if another failover loses the record, a manager with the token writes it again.
        while [text(here), text(there)] != [fresh.expose(); 2] {
            assert!(asked.elapsed() < PATIENCE, "{}\nhas not what this has:\n{}", there.status(), here.status());
        }
        assert_eq!(provider.calls(), calls);
    }
}

/// A publication on one store wakes a waiter on the other.
fn wakes(waiting: &RedisStore, writing: &RedisStore) {
    for name in ["first", "second", "third"] {
        let (key, owner) = (key(name), LeaseOwner::new("writer"));
        assert!(matches!(ask(writing, &key, "writer"), LeaseOutcome::Leased));
        let LeaseOutcome::Busy { cursor, .. } = ask(waiting, &key, "waiter") else { panic!("the lease is taken") };
        thread::scope(|scope| {
            let woken = scope.spawn(|| {
                until("the store can wait", || waiting.wait(&key, &cursor, Instant::now() + 3 * SECOND).is_ok());
                Instant::now()
            });
            let written = Instant::now();
            let published = writing.publish(&key, &owner, None, b"news", HOUR).unwrap();
            assert!(matches!(published, PublishOutcome::Done(_)));
            let woken = woken.join().unwrap();
            assert!(woken.saturating_duration_since(written) < SOON, "{:?}", woken - written);
        });
        assert!(matches!(ask(waiting, &key, "waiter"), LeaseOutcome::Found(entry) if entry.bytes() == b"news"));
    }
}

/// A token that one manager rejects is replaced soon in another one that watches.
fn assert_rejections_are_noticed(store: impl Fn() -> RedisStore) {
    let provider = FakeProvider::new();
    let manager =
        |watch| TokenManager::builder(provider.clone()).store(store()).store_check_interval(HOUR).watch(watch);
    let (one, another) = (manager(false).build().unwrap(), manager(true).build().unwrap());
    let events = another.events();
    for _ in 0..2 {
        let bad = one.token().unwrap();
        assert_eq!(text(&another), bad.expose());
        let rejected_at = Instant::now();
        one.reject(&bad).unwrap();
        wait_for(&events, |kind| matches!(kind, EventKind::Rejected { .. }).then_some(()));
        assert!(rejected_at.elapsed() < SOON, "{:?}", rejected_at.elapsed());
        assert_ne!(text(&another), bad.expose());
        assert_eq!(text(&one), text(&another));
    }
    assert_eq!(provider.calls(), 3);
}

fn use_tls() {
    let (server, certificates) = RedisServer::tls();
    let config = RedisConfig::from_url(&server.url()).unwrap().root_certificates(&certificates.ca_pem);
    let store = reached(config);
    put(&store, &key("tls"), b"one", HOUR);
    assert!(store.read(&key("tls")).unwrap().is_some());
}

fn wait_for_trouble(events: &crossbeam_channel::Receiver<evertoken::Event>) -> evertoken::Error {
    wait_for(events, |kind| match kind {
        EventKind::StoreDown { error, .. } => Some(error.clone()),
        _ => None,
    })
}

/// Makes time pass: reduces the remaining time of every key on these servers.
fn advance(servers: &[&RedisServer], time: Duration) {
    let script = "
        local left = redis.call('PTTL', KEYS[1]) - ARGV[1]
        return left > 0 and redis.call('PEXPIRE', KEYS[1], left) or redis.call('DEL', KEYS[1])";
    for server in servers {
        let mut connection = server.connect();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
        for key in keys {
            let command = redis::cmd("EVAL").arg(script).arg(1).arg(key).arg(time.as_millis().to_string()).clone();
            command.exec(&mut connection).unwrap();
        }
    }
}

/// The number of clients that are connected over TCP. The test itself uses the socket.
fn connections(server: &RedisServer) -> usize {
    let list: String = server.ask(&["CLIENT", "LIST"]).unwrap();
    list.lines().filter(|line| line.contains(" addr=127.0.0.1:")).count()
}

/// The number of scripts that have run.
fn scripts(server: &RedisServer) -> usize {
    let stats: String = server.ask(&["INFO", "commandstats"]).unwrap();
    let calls = field(&stats, "cmdstat_evalsha").unwrap_or("calls=0");
    calls.trim_start_matches("calls=").split(',').next().unwrap().parse().unwrap()
}

/// The number of keys in a database.
fn size(server: &RedisServer, database: u32) -> usize {
    let mut connection = server.connect();
    redis::cmd("SELECT").arg(database).exec(&mut connection).unwrap();
    redis::cmd("DBSIZE").query(&mut connection).unwrap()
}

#[cfg(feature = "redis-cluster")]
#[test]
fn a_custom_key_on_a_cluster_does_not_disturb_other_records() {
    let cluster = crate::common::cluster::RedisCluster::start();
    shows("no store error is recorded", |round| {
        let store = RedisStore::new(RedisConfig::cluster(cluster.nodes()).unwrap()).unwrap();
        let plain = on(&store, &provider("plain")).key(&format!("plain-{round}")).build().unwrap();
        let other = on(&store, &provider(round)).build().unwrap();
        assert_eq!((text(&plain), text(&other)), ("token-1".to_owned(), "token-1".to_owned()));
        (other.metrics().store_errors == 0 && other.status().store_down_for.is_none()).then_some(())
    });
}
