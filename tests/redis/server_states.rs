//! The whole text of the error for each state of a real Redis in which a store cannot be used: the address, what
//! happened and what to do. A state that only a person can end is a wrong setting, and the store asks again rarely.

use std::net::{SocketAddr, UdpSocket};

use evertoken::store::Store;
use evertoken::{Error, ErrorKind, RedisConfig, RedisStore, TokenManager};

use crate::common::alone::not_tested;
#[cfg(feature = "redis-cluster")]
use crate::common::cluster::RedisCluster;
use crate::common::redis_server::RedisServer;
#[cfg(feature = "redis-sentinel")]
use crate::common::sentinel::{MASTER, SentinelGroup};
use crate::common::wait::*;
use crate::setup::{key, provider, store};

/// Returns the error of the first operation.
fn first_error(config: RedisConfig) -> Error {
    RedisStore::new(config).unwrap().read(&key("state")).unwrap_err()
}

/// Asks again where a busy machine was too slow for the time of an operation: a time limit is no wrong setting.
fn told(text: &str, mut ask: impl FnMut() -> Error) -> Error {
    (0..10).map(|_| ask()).find(|error| error.to_string() == text).unwrap_or_else(ask)
}

fn config(server: &RedisServer) -> RedisConfig {
    RedisConfig::from_url(&server.url()).unwrap()
}

/// The operation fails with this kind and exactly this text, after the server's address.
#[track_caller]
fn fails(config: &RedisConfig, kind: ErrorKind, text: &str) {
    let error = told(text, || first_error(config.clone()));
    assert_eq!((error.kind(), error.to_string()), (kind, text.to_owned()));
    if kind == ErrorKind::Config {
        let mut store = RedisStore::new(config.clone()).unwrap();
        told(text, || {
            store = RedisStore::new(config.clone()).unwrap();
            store.read(&key("state")).unwrap_err()
        });
        let left_alone = store.read(&key("state")).unwrap_err();
        assert!(left_alone.retry_after().unwrap() > 20 * SECOND, "a lasting failure is not retried quickly");
    }
    // A manager names the same cause, and its token comes all the same.
    let manager = || TokenManager::builder(provider("state")).store(RedisStore::new(config.clone()).unwrap());
    let checked = told(text, || manager().build().unwrap().check().unwrap_err());
    assert_eq!((checked.kind(), checked.to_string()), (kind, text.to_owned()), "the check of a manager");
    let tokens = shows("the status names the cause", |_| {
        let tokens = manager().build().unwrap();
        assert_eq!(crate::common::wait::text(&tokens), "token-1");
        let shown = tokens.status().store_error.expect("the status has the store's error").to_string();
        shown.contains(text.split(" (code ").next()?).then_some(tokens)
    });
    assert!(tokens.status().store_down_for.is_some());
}

#[test]
fn a_forgotten_password_is_named_whatever_the_command_looks_like() {
    let server = RedisServer::with(&["--requirepass", "right"]);
    let text =
        format!("redis at {} requires a password; set one with RedisConfig::password (code NOAUTH)", server.addr());
    fails(&config(&server), ErrorKind::Config, &text);
    // A server closes the connection of a stranger who sends more than ten words or a long one.
    let store = store(&server);
    let long = vec![b'x'; 60_000];
    let error = store.compare_and_swap(&key("a"), evertoken::store::Expected::Any, Some((&long, HOUR))).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Config, text));
}

#[test]
fn a_wrong_password_names_the_settings_to_check() {
    let server = RedisServer::with(&["--requirepass", "right"]);
    let text = format!(
        "redis at {} rejected the user or the password; check RedisConfig::user and RedisConfig::password (code \
         WRONGPASS)",
        server.addr()
    );
    fails(&config(&server).password("wrong"), ErrorKind::Config, &text);
    fails(&config(&server).user("nobody").password("right"), ErrorKind::Config, &text);
}

#[test]
fn a_password_for_a_server_without_one_is_a_wrong_setting() {
    let server = RedisServer::start();
    let text = format!(
        "redis at {} did not accept the user and password; it may have no password set, or know no users, as before \
         Redis 6; check RedisConfig::user and RedisConfig::password (code ERR)",
        server.addr()
    );
    fails(&config(&server).password("any"), ErrorKind::Config, &text);
}

#[test]
fn a_missing_right_is_a_wrong_setting_for_a_command_for_a_key_and_inside_a_script() {
    let server = RedisServer::start();
    let addr = server.addr();
    let command =
        format!("redis at {addr} forbids its user a command that the store needs; extend the user's ACL (code NOPERM)");
    let keys = format!(
        "redis at {addr} forbids its user the keys of the store; allow them in the user's ACL, such as ~evertoken:* (code \
         NOPERM)"
    );
    for (rights, text) in [
        // No scripts at all; nothing that the scripts call; no key of ours.
        (["~*", "+get", "+ping"], &command),
        (["~*", "+eval", "+evalsha"], &command),
        (["~other:*", "+@all", "+ping"], &keys),
    ] {
        server.ask::<()>(&["ACL", "DELUSER", "tokens"]).unwrap();
        server.ask::<()>(&[&["ACL", "SETUSER", "tokens", "on", ">pw", "-@all"], &rights[..]].concat()).unwrap();
        fails(&config(&server).user("tokens").password("pw"), ErrorKind::Config, text);
    }
}

#[test]
fn a_database_that_the_server_does_not_have_is_a_wrong_setting() {
    let server = RedisServer::start();
    let text = format!(
        "redis at {} does not have the configured database; check RedisConfig::database (code ERR)",
        server.addr()
    );
    fails(&config(&server).database(99), ErrorKind::Config, &text);
}

#[test]
fn a_server_that_has_all_its_clients_is_busy_and_no_wrong_setting() {
    for password in [None, Some("right")] {
        let server = RedisServer::start();
        if let Some(password) = password {
            server.ask::<()>(&["CONFIG", "SET", "requirepass", password]).unwrap();
        }
        let mut own = server.connect();
        if let Some(password) = password {
            redis::cmd("AUTH").arg(password).exec(&mut own).unwrap();
        }
        redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).exec(&mut own).unwrap();
        let text = format!(
            "redis at {} has reached its limit of clients; raise its maxclients or close connections that are not in \
             use (code ERR)",
            server.addr()
        );
        let config = password.iter().fold(config(&server), |config, &password| config.password(password));
        fails(&config, ErrorKind::Store, &text);
        let store = RedisStore::new(config).unwrap();
        assert_eq!(store.read(&key("state")).unwrap_err().to_string(), text);
        redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(100).exec(&mut own).unwrap();
        assert!(store.read(&key("state")).unwrap().is_none(), "works as soon as there is room");
    }
}

#[test]
fn a_server_in_protected_mode_is_a_wrong_setting() {
    // The address of this machine in its network, found without sending anything.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let address = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    let Some(ip) = address.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback()) else {
        return not_tested("protected mode: this machine has the loopback address only");
    };
    let server = RedisServer::with(&["--protected-mode", "yes"]);
    // The test's server binds loopback; protected mode looks at the client's address.
    server.ask::<()>(&["CONFIG", "SET", "bind", "0.0.0.0"]).unwrap();
    let address = SocketAddr::new(ip, server.port());
    let config = RedisConfig::from_url(&format!("redis://{address}")).unwrap();
    let text = format!(
        "redis at {address} is in protected mode and serves only its own host; set a password there and with \
         RedisConfig::password (code DENIED)"
    );
    fails(&config, ErrorKind::Config, &text);
}

#[cfg(feature = "redis-tls")]
#[test]
fn tls_to_a_plain_server_is_a_wrong_setting() {
    let server = RedisServer::start();
    let text = format!(
        "redis at {} does not speak TLS; turn TLS on there, or use redis:// instead of rediss://",
        server.addr()
    );
    fails(&config(&server).tls(), ErrorKind::Config, &text);
    server.ask::<()>(&["CONFIG", "SET", "requirepass", "right"]).unwrap();
    fails(&config(&server).tls().password("right"), ErrorKind::Config, &text);
}

#[cfg(feature = "redis-tls")]
#[test]
fn a_plain_connection_to_a_tls_server_is_a_wrong_setting() {
    for (server, _) in [RedisServer::tls(), RedisServer::tls_with_client_auth()] {
        let config = RedisConfig::from_url(&format!("redis://{}", server.addr())).unwrap();
        let text = format!("redis at {} expects TLS; use rediss:// instead of redis://", server.addr());
        fails(&config, ErrorKind::Config, &text);
        fails(&config.password("any"), ErrorKind::Config, &text);
    }
}

#[cfg(feature = "redis-cluster")]
#[test]
fn a_cluster_setting_for_a_single_server_is_wrong() {
    let server = RedisServer::start();
    let config = RedisConfig::cluster([server.addr().to_string()]).unwrap();
    let text = format!(
        "redis at {} is a single server, not a node of a cluster; use RedisConfig::from_url (code ERR)",
        server.addr()
    );
    fails(&config, ErrorKind::Config, &text);
}

#[cfg(feature = "redis-cluster")]
#[test]
fn a_cluster_without_slots_is_told_to_be_incomplete() {
    let server = RedisServer::with(&["--cluster-enabled", "yes"]);
    let by_cluster = RedisConfig::cluster([server.addr().to_string()]).unwrap();
    let text = format!(
        "redis at {} is a node of a cluster that serves no slots; create the cluster, or assign its slots",
        server.addr()
    );
    fails(&by_cluster, ErrorKind::Store, &text);
    let text = format!(
        "redis at {} is part of a cluster that is down: a slot is not assigned, or a master has failed; check CLUSTER \
         INFO there (code CLUSTERDOWN)",
        server.addr()
    );
    fails(&config(&server), ErrorKind::Store, &text);
}

#[cfg(feature = "redis-cluster")]
#[test]
fn a_single_server_setting_for_a_cluster_is_wrong() {
    let cluster = RedisCluster::start();
    let place = key("state");
    let other = (cluster.master_of(place.as_str()) + 1) % 3;
    let server = &cluster.servers()[other];
    let (addr, error) = (server.addr(), first_error(config(server)));
    let text = format!(
        "redis at {addr} is part of a cluster; use RedisConfig::cluster, with the feature redis-cluster (code MOVED)"
    );
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Config, text));
    let text = format!(
        "redis at {addr} is part of a cluster, which has only database 0; use RedisConfig::cluster without \
         RedisConfig::database (code ERR)"
    );
    fails(&config(server).database(2), ErrorKind::Config, &text);
}

#[cfg(feature = "redis-sentinel")]
#[test]
fn sentinels_that_do_not_know_the_service_are_a_wrong_setting() {
    let group = SentinelGroup::start();
    let one = RedisConfig::sentinels([&group.nodes()[0]], "other").unwrap();
    let text = format!(
        "redis sentinel at {} knows no service \"other\"; check the name given to RedisConfig::sentinels",
        group.nodes()[0]
    );
    fails(&one, ErrorKind::Config, &text);
    // A sentinel that cannot be reached does not hide what the others say.
    let error = first_error(RedisConfig::sentinels(["127.0.0.1:1", &group.nodes()[0]], "other").unwrap());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Config, text));
}

#[cfg(feature = "redis-sentinel")]
#[test]
fn a_sentinel_without_its_master_names_both_and_passes() {
    let group = SentinelGroup::start();
    // Without a majority of the sentinels there is no failover.
    (1..3).for_each(|which| group.stop_sentinel(which));
    let master = group.servers()[0].addr();
    group.servers()[0].kill();
    let config = RedisConfig::sentinels([&group.nodes()[0]], MASTER).unwrap();
    let text = format!(
        "redis at {master} refused the connection; is the server running there? The redis sentinel at {} names it as \
         the master of \"{MASTER}\"; a failover may be going on",
        group.nodes()[0]
    );
    fails(&config, ErrorKind::Store, &text);
}

#[cfg(feature = "redis-sentinel")]
#[test]
fn the_address_of_a_plain_server_is_no_sentinel() {
    let server = RedisServer::start();
    let config = RedisConfig::sentinels([server.addr().to_string()], MASTER).unwrap();
    let text = format!(
        "redis at {} is a server, not a sentinel; give RedisConfig::sentinels the addresses of the sentinels, often \
         port 26379, or use RedisConfig::from_url (code ERR)",
        server.addr()
    );
    fails(&config, ErrorKind::Config, &text);
}

#[cfg(feature = "redis-sentinel")]
#[test]
fn the_address_of_a_sentinel_is_no_plain_server() {
    let group = SentinelGroup::start();
    let address = &group.nodes()[0];
    let config = RedisConfig::from_url(&format!("redis://{address}")).unwrap();
    let text = format!(
        "redis at {address} lacks a command that the store needs; a sentinel, a proxy and a server before Redis 5 do, \
         and a server can rename commands; for a sentinel use RedisConfig::sentinels (code ERR)"
    );
    fails(&config, ErrorKind::Config, &text);
}

#[cfg(feature = "redis-sentinel")]
#[test]
fn the_password_of_a_sentinel_has_a_setting_of_its_own() {
    let server = RedisServer::launch(|place| {
        let config = place.folder.join("sentinel.conf");
        std::fs::write(&config, "requirepass right\n").unwrap();
        let config = config.to_str().unwrap().to_owned();
        vec![config, "--sentinel".to_owned(), "--port".to_owned(), place.port.to_string()]
    });
    let nodes = [server.addr().to_string()];
    let text = format!(
        "redis sentinel at {} requires a password; set one with RedisConfig::sentinel_password (code NOAUTH)",
        server.addr()
    );
    fails(&RedisConfig::sentinels(&nodes, MASTER).unwrap().password("right"), ErrorKind::Config, &text);
    let text = format!(
        "redis sentinel at {} rejected the password; check RedisConfig::sentinel_password (code WRONGPASS)",
        server.addr()
    );
    fails(&RedisConfig::sentinels(&nodes, MASTER).unwrap().sentinel_password("no"), ErrorKind::Config, &text);
    let group = SentinelGroup::start();
    let text = format!(
        "redis sentinel at {} did not accept the password; it may have none set; check \
         RedisConfig::sentinel_password (code ERR)",
        group.nodes()[0]
    );
    let config = RedisConfig::sentinels([&group.nodes()[0]], MASTER).unwrap().sentinel_password("any");
    fails(&config, ErrorKind::Config, &text);
}

#[test]
fn insecure_is_refused_in_every_url_with_and_without_tls() {
    for scheme in ["redis", "rediss", "valkey", "valkeys"] {
        let error = RedisConfig::from_url(&format!("{scheme}://user:hunter2@host/#insecure")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = "#insecure in the Redis URL would switch off the check of certificates; remove it, and trust the \
                    server's root with RedisConfig::root_certificates";
        assert_eq!(error.to_string(), text, "{scheme}");
    }
    for url in ["redis+unix:///tmp/x#insecure", "redis://host#other", "redis://host:1#", "rediss://host#other"] {
        let error = RedisConfig::from_url(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(error.to_string().contains('#'), "{url}: {error}");
    }
}
