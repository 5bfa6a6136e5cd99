//! A real Redis Cluster: three masters that share the slots, and a replica of each.

use std::thread;

use super::redis_server::{RedisServer, field, until};

/// The nodes end when this value is dropped.
pub(crate) struct RedisCluster {
    servers: Vec<RedisServer>,
}

/// The view that a node has of one node, itself included.
struct Row {
    id: String,
    port: u16,
    is_master: bool,
    /// Whether the node is neither failing nor still joining.
    is_well: bool,
    /// The first slot and the last one.
    slots: Vec<(u16, u16)>,
}

impl RedisCluster {
    /// Starts all nodes, and waits until every node reports a healthy cluster and knows the others.
    pub(crate) fn start() -> RedisCluster {
        // A node delays writes in the first two seconds after its start, so all nodes start at the same time.
        let servers: Vec<_> = thread::scope(|scope| {
            let starting: Vec<_> = (0..NODES).map(|_| scope.spawn(node)).collect();
            starting.into_iter().map(|node| node.join().unwrap()).collect()
        });
        let cluster = RedisCluster { servers };
        cluster.join_up();
        cluster
    }

    fn join_up(&self) {
        let first = &self.servers[0];
        for (index, server) in self.servers.iter().enumerate() {
            command(server, &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            if index < MASTERS {
                let slots = [index, index + 1].map(|part| usize::from(SLOTS) * part / MASTERS);
                command(server, &["CLUSTER", "ADDSLOTSRANGE", &slots[0].to_string(), &(slots[1] - 1).to_string()]);
            }
            if index > 0 {
                let [port, bus] = [server.port(), server.bus_port()].map(|port| port.to_string());
                command(first, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
            }
        }
        until("the nodes know each other", || self.servers.iter().all(|server| well_known(server) == NODES));
        for (master, replica) in self.servers[..MASTERS].iter().zip(&self.servers[MASTERS..]) {
            let id: String = master.ask(&["CLUSTER", "MYID"]).unwrap();
            // The node may have to learn first that the other one is a master.
            until("the node becomes a replica", || replica.ask::<()>(&["CLUSTER", "REPLICATE", &id]).is_ok());
        }
        until("the cluster is healthy", || {
            let replicas = |server| rows(server).iter().filter(|row| !row.is_master).count();
            self.servers.iter().all(|server| is_ok(server) && replicas(server) == NODES - MASTERS)
                && self.servers[MASTERS..].iter().all(is_in_step)
        });
    }

    /// The addresses of the nodes.
    pub(crate) fn nodes(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.addr().to_string()).collect()
    }

    /// The nodes; the masters at the start come first.
    pub(crate) fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// Returns which node has the key. Waits until all running nodes agree.
    pub(crate) fn master_of(&self, key: &str) -> usize {
        let slot = self.slot_of(key);
        let mut owner = None;
        until("the nodes agree on who has the key", || {
            owner = self.agreed_owner(slot);
            owner.is_some()
        });
        owner.unwrap()
    }

    /// Kills the master of a key, and waits until its replica has taken over and the cluster is healthy again. Returns
    /// which.
    pub(crate) fn kill_master_of(&self, key: &str) -> usize {
        let slot = self.slot_of(key);
        let before = self.master_of(key);
        self.servers[before].kill();
        let mut owner = before;
        until("a replica takes over", || {
            owner = self.agreed_owner(slot).unwrap_or(before);
            owner != before && self.running().all(is_ok)
        });
        owner
    }

    /// Moves the slot of a key, with its contents, to another master. Returns which.
    pub(crate) fn migrate(&self, key: &str) -> usize {
        let (from, to) = self.begin_migration(key);
        let slot = self.slot_of(key).to_string();
        let id: String = self.servers[to].ask(&["CLUSTER", "MYID"]).unwrap();
        // The new owner is set first, so that the slot has an owner at every moment.
        let others = (0..NODES).filter(|&index| index != to && index != from && self.is_master(index));
        for index in [to, from].into_iter().chain(others) {
            command(&self.servers[index], &["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        }
        until("the nodes know who has the slot", || self.agreed_owner(self.slot_of(key)) == Some(to));
        to
    }

    /// The first half of [`migrate`](RedisCluster::migrate): all keys have moved, and the old master replies `ASK` to a
    /// request for one of them. Returns the old master and the new one.
    pub(crate) fn begin_migration(&self, key: &str) -> (usize, usize) {
        let from = self.master_of(key);
        let to = (0..NODES).find(|&index| index != from && self.is_master(index)).unwrap();
        let slot = self.slot_of(key).to_string();
        let [from_id, to_id] = [from, to].map(|index| self.servers[index].ask::<String>(&["CLUSTER", "MYID"]).unwrap());
        command(&self.servers[to], &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        command(&self.servers[from], &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        let port = self.servers[to].port().to_string();
        loop {
            let keys: Vec<String> = self.servers[from].ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).unwrap();
            if keys.is_empty() {
                return (from, to);
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            command(&self.servers[from], &words);
        }
    }

    fn running(&self) -> impl Iterator<Item = &RedisServer> {
        self.servers.iter().filter(|server| server.is_running())
    }

    fn slot_of(&self, key: &str) -> u16 {
        self.running().next().expect("a node runs").ask(&["CLUSTER", "KEYSLOT", key]).unwrap()
    }

    /// Whether the node runs and reports itself as a master.
    fn is_master(&self, index: usize) -> bool {
        let server = &self.servers[index];
        server.is_running() && rows(server).iter().any(|row| row.port == server.port() && row.is_master)
    }

    fn agreed_owner(&self, slot: u16) -> Option<usize> {
        let mut named = self.running().map(|server| owner_port(server, slot));
        let first = named.next().expect("a node runs")?;
        if !named.all(|port| port == Some(first)) {
            return None;
        }
        self.servers.iter().position(|server| server.port() == first)
    }
}

fn node() -> RedisServer {
    RedisServer::launch(|place| {
        let (port, bus) = (place.port.to_string(), place.bus.to_string());
        let words = [
            ("--port", port.as_str()),
            ("--cluster-enabled", "yes"),
            ("--cluster-port", &bus),
            ("--cluster-config-file", "nodes.conf"),
            ("--cluster-node-timeout", "1000"),
            // A replica takes over whatever the time since it heard from its master, and does not change its master.
            ("--cluster-replica-validity-factor", "0"),
            ("--cluster-allow-replica-migration", "no"),
            // A replica gets its copy at once.
            ("--repl-diskless-sync", "yes"),
            ("--repl-diskless-sync-delay", "0"),
        ];
        words.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect()
    })
}

fn command(server: &RedisServer, words: &[&str]) {
    let done: redis::RedisResult<()> = server.ask(words);
    done.unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

/// The view that a responding node has of all nodes.
fn rows(server: &RedisServer) -> Vec<Row> {
    let text = server.ask::<String>(&["CLUSTER", "NODES"]).unwrap_or_default();
    text.lines().filter_map(row).collect()
}

/// Reads a line such as `<id> 127.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-5460`.
fn row(line: &str) -> Option<Row> {
    let words: Vec<_> = line.split(' ').collect();
    let flags: Vec<_> = words.get(2)?.split(',').collect();
    let port = words[1].split(['@', ',']).next()?.rsplit(':').next()?.parse().ok()?;
    let slots = words.get(8..).unwrap_or_default().iter().filter(|range| !range.starts_with('['));
    let slots = slots.filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    Some(Row {
        id: words[0].to_owned(),
        port,
        is_master: flags.contains(&"master"),
        is_well: flags.iter().all(|flag| matches!(*flag, "myself" | "master" | "slave")) && words[7] == "connected",
        slots: slots.collect(),
    })
}

fn well_known(server: &RedisServer) -> usize {
    rows(server).iter().filter(|row| row.is_well).count()
}

fn owner_port(server: &RedisServer, slot: u16) -> Option<u16> {
    let has = |row: &Row| row.slots.iter().any(|&(first, last)| (first..=last).contains(&slot));
    rows(server).iter().find(|row| has(row)).map(|row| row.port)
}

fn is_ok(server: &RedisServer) -> bool {
    let info = server.ask::<String>(&["CLUSTER", "INFO"]).unwrap_or_default();
    field(&info, "cluster_state") == Some("ok") && field(&info, "cluster_slots_ok") == Some(&SLOTS.to_string())
}

fn is_in_step(replica: &RedisServer) -> bool {
    let replication = replica.ask::<String>(&["INFO", "replication"]).unwrap_or_default();
    field(&replication, "master_link_status") == Some("up")
}

const NODES: usize = 6;
const MASTERS: usize = 3;
const SLOTS: u16 = 16_384;
