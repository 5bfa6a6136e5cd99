//! A real Redis that sentinels watch: one master, two replicas, three sentinels.

use std::collections::HashMap;
use std::fs;

use super::redis_server::{RedisServer, field, until};

/// The name of the master in the configuration of the sentinels.
pub(crate) const MASTER: &str = "tokens";

/// The servers and the sentinels end when this value is dropped.
pub(crate) struct SentinelGroup {
    sentinels: Vec<RedisServer>,
    servers: Vec<RedisServer>,
}

impl SentinelGroup {
    /// Starts all, and waits until every sentinel knows the master, both replicas and the other sentinels.
    pub(crate) fn start() -> SentinelGroup {
        let master = RedisServer::with(&QUICK_COPY);
        let port = master.port().to_string();
        let replica = || RedisServer::with(&[&["--replicaof", "127.0.0.1", &port], &QUICK_COPY[..]].concat());
        let servers = vec![master, replica(), replica()];
        // Sentinels that start before the replicas look for them again only ten seconds later.
        until("the replicas have a copy", || {
            let replication: String = servers[0].ask(&["INFO", "replication"]).unwrap();
            replication.matches("state=online").count() == 2 && servers[1..].iter().all(is_in_step)
        });
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(&port)).collect();
        until("the sentinels know each other", || sentinels.iter().all(knows_everybody));
        SentinelGroup { sentinels, servers }
    }

    /// The addresses of the sentinels.
    pub(crate) fn nodes(&self) -> Vec<String> {
        self.sentinels.iter().map(|sentinel| sentinel.addr().to_string()).collect()
    }

    /// The servers that hold the data; the master at the start comes first.
    pub(crate) fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// Returns which server the running sentinels name as master. Waits until they agree.
    pub(crate) fn master(&self) -> usize {
        let mut master = None;
        until("the sentinels agree on the master", || {
            master = self.agreed_master();
            master.is_some()
        });
        master.unwrap()
    }

    /// Kills the master, and waits until all sentinels name another one and it accepts writes. Returns which.
    pub(crate) fn fail_over(&self) -> usize {
        let before = self.master();
        self.servers[before].kill();
        let mut master = before;
        until("there is another master", || {
            master = self.agreed_master().unwrap_or(before);
            master != before && is_master(&self.servers[master])
        });
        master
    }

    /// Suspends a sentinel.
    pub(crate) fn stop_sentinel(&self, which: usize) {
        self.sentinels[which].stop();
    }

    pub(crate) fn go_on_sentinel(&self, which: usize) {
        self.sentinels[which].go_on();
    }

    fn agreed_master(&self) -> Option<usize> {
        let mut named = self.sentinels.iter().filter(|sentinel| sentinel.is_running()).map(master_port);
        let first = named.next().expect("a sentinel runs")?;
        if !named.all(|port| port == Some(first)) {
            return None;
        }
        self.servers.iter().position(|server| server.port() == first)
    }
}

/// A sentinel of the master on `port`.
fn sentinel(port: &str) -> RedisServer {
    let sentinel = RedisServer::launch(|place| {
        let config = place.folder.join("sentinel.conf");
        let lines = [
            format!("sentinel monitor {MASTER} 127.0.0.1 {port} 2"),
            format!("sentinel down-after-milliseconds {MASTER} 500"),
            format!("sentinel failover-timeout {MASTER} 3000"),
            format!("sentinel parallel-syncs {MASTER} 1"),
        ];
        fs::write(&config, lines.join("\n") + "\n").unwrap();
        let config = config.to_str().unwrap().to_owned();
        vec![config, "--sentinel".to_owned(), "--port".to_owned(), place.port.to_string()]
    });
    // Sentinels find each other sooner, and a sentinel that was suspended, or starved on a busy machine, takes part
    // again in less than half a minute. Servers older than 7.0 lack these settings and only take longer.
    let _ = sentinel.ask::<()>(
        &[["SENTINEL", "DEBUG"], ["publish-period", "200"], ["tilt-trigger", "10000"], ["tilt-period", "1000"]]
            .concat(),
    );
    sentinel
}

fn master_port(sentinel: &RedisServer) -> Option<u16> {
    let address: Vec<String> = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).ok()?;
    address.get(1)?.parse().ok()
}

fn knows_everybody(sentinel: &RedisServer) -> bool {
    let knows = |what: &str, flags: &str| -> usize {
        let known: Vec<HashMap<String, String>> = sentinel.ask(&["SENTINEL", what, MASTER]).unwrap_or_default();
        // More flags would mean that the server is down or not connected yet.
        known.iter().filter(|entry| entry.get("flags").is_some_and(|has| has == flags)).count()
    };
    let master: HashMap<String, String> = sentinel.ask(&["SENTINEL", "MASTER", MASTER]).unwrap_or_default();
    master.get("flags").is_some_and(|flags| flags == "master")
        && knows("REPLICAS", "slave") == 2
        && knows("SENTINELS", "sentinel") == 2
}

fn is_in_step(replica: &RedisServer) -> bool {
    let replication: String = replica.ask(&["INFO", "replication"]).unwrap();
    field(&replication, "master_link_status") == Some("up")
}

fn is_master(server: &RedisServer) -> bool {
    let replication = server.ask::<String>(&["INFO", "replication"]).unwrap_or_default();
    field(&replication, "role") == Some("master")
}

/// A replica gets its copy at once, without a file and without waiting for others.
const QUICK_COPY: [&str; 4] = ["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"];
