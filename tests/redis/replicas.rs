//! Claims that wait for replicas, and checks of a store on a real Redis.

use std::time::Duration;

use evertoken::idempotency::{Idempotency, Outcome, RunError};
use evertoken::store::Store;
use evertoken::{Error, ErrorKind, RedisConfig, RedisStore, TokenManager};

#[cfg(feature = "redis-cluster")]
use crate::common::cluster::RedisCluster;
use crate::common::redis_server::{RedisServer, until};
use crate::common::wait::*;
use crate::setup::{key, provider, store};

/// The longest wait that the settings allow.
const LIMIT: Duration = Duration::from_millis(300);

/// A master and a replica that follows it.
fn pair() -> [RedisServer; 2] {
    let quick = ["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"];
    let master = RedisServer::with(&quick);
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    until("the replica follows", || {
        let replication: String = master.ask(&["INFO", "replication"]).unwrap();
        let own: String = replica.ask(&["INFO", "replication"]).unwrap();
        replication.contains("state=online") && own.contains("master_link_status:up")
    });
    [master, replica]
}

fn waiting(server: &RedisServer, replicas: u32) -> Idempotency {
    let config = RedisConfig::from_url(&server.url()).unwrap().wait_for_replicas(replicas, LIMIT);
    Idempotency::new(RedisStore::new(config).unwrap())
}

fn begin(once: &Idempotency, name: &str) -> Result<Outcome<String>, Error> {
    once.begin::<String>(name, "request")
}

#[test]
fn a_claim_that_waits_for_a_replica_survives_the_failover_to_it() {
    let [master, replica] = pair();
    let once = waiting(&master, 1);
    let claim = patiently(|| match begin(&once, "order")? {
        Outcome::New(claim) => Ok(claim),
        other => panic!("{other:?}"),
    });
    master.kill();
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]).unwrap();
    let other = Idempotency::new(store(&replica));
    assert!(matches!(patiently(|| begin(&other, "order")), Outcome::InProgress { .. }));
    drop(claim);
}

#[test]
fn begin_withdraws_a_claim_that_too_few_replicas_confirm() {
    let [master, replica] = pair();
    let once = waiting(&master, 1);
    replica.stop();
    for _ in 0..2 {
        let error = begin(&once, "order").unwrap_err();
        let text = format!(
            "redis at {}: 0 of 1 replicas confirmed the write in time; check the replicas, or change \
             RedisConfig::wait_for_replicas",
            master.addr()
        );
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Store, text));
        assert_eq!(master.ask::<u32>(&["DBSIZE"]).unwrap(), 0, "no claim stays");
    }
    // The server itself works: tokens and other operations do not wait.
    let tokens = TokenManager::builder(provider("replicas")).store(store(&master)).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    replica.go_on();
    assert!(matches!(patiently(|| begin(&once, "order")), Outcome::New(_)));
}

#[test]
fn a_result_is_recorded_only_when_a_replica_has_it() {
    let [master, replica] = pair();
    let once = waiting(&master, 1);
    let claim = patiently(|| match begin(&once, "order")? {
        Outcome::New(claim) => Ok(claim),
        other => panic!("{other:?}"),
    });
    replica.stop();
    for _ in 0..2 {
        assert_eq!(claim.complete(&"done".to_owned()).unwrap_err().kind(), ErrorKind::Store);
    }
    replica.go_on();
    patiently(|| claim.complete(&"done".to_owned()));
    master.kill();
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]).unwrap();
    let other = Idempotency::new(store(&replica));
    assert!(matches!(patiently(|| begin(&other, "order")), Outcome::Completed(result) if result == "done"));
}

#[test]
fn more_replicas_than_there_are_never_confirm_and_nothing_runs() {
    let [master, _replica] = pair();
    let once = waiting(&master, 2);
    let ran = once.run("order", "request", || -> Result<String, std::io::Error> { panic!("the closure runs") });
    assert!(matches!(ran, Err(RunError::NotBegun(error)) if error.kind() == ErrorKind::Store));
    eventually("the check counts the replica", || {
        once.check().unwrap_err().to_string().contains("1 of 2 replicas confirmed")
    });
}

#[cfg(feature = "redis-cluster")]
#[test]
fn a_claim_in_a_cluster_waits_for_the_replicas_of_its_nodes() {
    let cluster = RedisCluster::start();
    let config = |count| RedisConfig::cluster(cluster.nodes()).unwrap().wait_for_replicas(count, LIMIT);
    let once = |count| Idempotency::new(RedisStore::new(config(count)).unwrap());
    assert!(matches!(patiently(|| begin(&once(1), "order")), Outcome::New(_)));
    eventually("one replica is not enough", || {
        begin(&once(2), "other").unwrap_err().to_string().contains("1 of 2 replicas confirmed")
    });
}

#[test]
fn a_wait_for_no_replica_or_without_end_is_a_wrong_setting() {
    let config = || RedisConfig::from_url("redis://127.0.0.1").unwrap();
    for (count, limit) in [(0, LIMIT), (1, Duration::ZERO), (1, LIMIT + LIMIT)] {
        let error = RedisStore::new(config().wait_for_replicas(count, limit)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("wait_for_replicas"), "{error}");
    }
}

#[test]
fn a_check_succeeds_on_a_working_server_and_leaves_nothing_behind() {
    let server = RedisServer::start();
    let store = store(&server);
    let provider = provider("check");
    let tokens = TokenManager::builder(provider.clone()).store(store.clone()).build().unwrap();
    let once = Idempotency::new(store.clone());
    for _ in 0..3 {
        patiently(|| store.check());
        patiently(|| tokens.check());
        patiently(|| once.check());
    }
    assert_eq!(provider.calls(), 0, "a check fetches no token");
    until("the records of the checks are gone", || server.ask::<u32>(&["DBSIZE"]).unwrap() == 0);
}

#[test]
fn a_check_needs_the_documented_rights_and_reports_each_that_is_missing() {
    let server = RedisServer::start();
    let rights = ["eval", "evalsha", "get", "set", "del", "type", "strlen", "pttl"];
    let allow = |without: &str| {
        server.ask::<()>(&["ACL", "DELUSER", "tokens"]).unwrap();
        let mut words: Vec<_> =
            ["ACL", "SETUSER", "tokens", "on", ">pw", "~evertoken:*", "-@all", "+time", "+getrange"]
                .map(String::from)
                .into();
        words.extend(rights.iter().filter(|&&right| right != without).map(|right| format!("+{right}")));
        server.ask::<()>(&words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        let config = RedisConfig::from_url(&server.url()).unwrap().user("tokens").password("pw");
        RedisStore::new(config).unwrap()
    };
    patiently(|| allow("").check());
    // A server that knows the script already needs no `EVAL`.
    server.ask::<()>(&["SCRIPT", "FLUSH"]).unwrap();
    for right in rights {
        let store = allow(right);
        eventually(&format!("the check reports {right}"), || {
            store.check().is_err_and(|error| (error.kind(), error.code()) == (ErrorKind::Config, Some("NOPERM")))
        });
        server.ask::<()>(&["SCRIPT", "FLUSH"]).unwrap();
    }
}

#[test]
fn a_check_with_a_namespace_asks_for_the_keys_of_that_namespace() {
    let server = RedisServer::start();
    server.ask::<()>(&["ACL", "SETUSER", "tokens", "on", ">pw", "+@all", "~billing:*"]).unwrap();
    let config = RedisConfig::from_url(&server.url()).unwrap().user("tokens").password("pw");
    let store = RedisStore::new(config).unwrap();
    let tokens = |namespace: &str| {
        TokenManager::builder(provider("check")).store(store.clone()).namespace(namespace).build().unwrap()
    };
    patiently(|| tokens("billing").check());
    let error = tokens("other").check().unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Config, Some("NOPERM")), "{error}");
    assert!(error.to_string().contains("keys"), "{error}");
}

#[test]
fn a_check_of_a_replica_or_of_a_full_server_fails() {
    let [master, replica] = pair();
    let error = store(&replica).check().unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Store, Some("READONLY")), "{error}");
    master.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let error = store(&master).check().unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Store, Some("OOM")), "{error}");
}

#[test]
fn a_check_asks_the_server_even_while_the_store_leaves_it_alone() {
    let server = RedisServer::with(&["--requirepass", "right"]);
    let store = store(&server);
    store.read(&key("check")).unwrap_err();
    assert!(store.read(&key("check")).unwrap_err().to_string().contains("is unavailable"));
    let mut own = server.connect();
    redis::cmd("AUTH").arg("right").exec(&mut own).unwrap();
    redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("").exec(&mut own).unwrap();
    patiently(|| store.check());
}
