//! Opens connections: decides which server to connect to, for each way that servers are arranged.
//!
//! - One server: connect to it.
//! - Sentinels: ask them for the master, see `sentinel`.
//! - A cluster: the `redis` crate connects to its nodes and follows redirections. Blocking reads of one stream use a
//!   connection to the one node that has its key.

#[cfg(feature = "redis-cluster")]
use super::address::Address;
use super::config::{RedisConfig, Topology};
use super::connection::Connection;
use super::error::{RedisError, RedisErrorKind};
#[cfg(feature = "redis-sentinel")]
use super::sentinel;
use crate::clock::Deadline;
use crate::key::Key;
use crate::thread::run_with_deadline;

/// Opens a connection for operations.
pub(super) fn open(config: &RedisConfig, deadline: Deadline) -> Result<Connection, RedisError> {
    with_deadline(config, deadline, move |config| open_here(config, deadline))
}

/// Opens a connection to the server that has `key`, to wait there for entries in its stream.
pub(super) fn open_for_streams_of(
    config: &RedisConfig,
    key: &Key,
    deadline: Deadline,
) -> Result<Connection, RedisError> {
    let key = key.clone();
    with_deadline(config, deadline, move |config| match config.topology() {
        #[cfg(feature = "redis-cluster")]
        Topology::Cluster(nodes) => to_node_of(config, nodes, &key, deadline),
        _ => {
            let _ = key;
            open_here(config, deadline)
        }
    })
}

/// Runs `open` with a deadline. Name resolution, and the steps with which the `redis` crate learns the nodes of a
/// cluster, have no time limit of their own, so those run on a helper thread, which is abandoned at the deadline.
fn with_deadline(
    config: &RedisConfig,
    deadline: Deadline,
    open: impl FnOnce(&RedisConfig) -> Result<Connection, RedisError> + Send + 'static,
) -> Result<Connection, RedisError> {
    if !config.needs_connect_thread() {
        return open(config);
    }
    let copy = config.clone();
    match run_with_deadline("evertoken-redis", deadline, move || open(&copy)) {
        Ok(Some(opened)) => opened,
        Ok(None) => Err(RedisError::connect_timed_out(&config.endpoint())),
        Err(error) => {
            let text = format!("cannot connect to {}: {error}", config.endpoint());
            Err(RedisError::new(RedisErrorKind::Unreachable, text))
        }
    }
}

fn open_here(config: &RedisConfig, deadline: Deadline) -> Result<Connection, RedisError> {
    match config.topology() {
        Topology::Single(address) => Connection::to_server(config, address, deadline),
        #[cfg(feature = "redis-sentinel")]
        Topology::Sentinels { nodes, service, .. } => sentinel::connect_to_master(config, nodes, service, deadline),
        #[cfg(feature = "redis-cluster")]
        Topology::Cluster(nodes) => to_cluster(config, nodes, deadline),
    }
}

#[cfg(feature = "redis-cluster")]
fn to_cluster(config: &RedisConfig, nodes: &[Address], deadline: Deadline) -> Result<Connection, RedisError> {
    // The cluster client of the `redis` crate reports a wrong password, a wrong address and a server outside of a cluster
    // in the same way, and tries every node in turn. So connect to single nodes first, until one accepts the settings or
    // refuses them for good.
    let text = format!("no node of the {} can be reached; check the addresses and the network", config.endpoint());
    let mut last = RedisError::new(RedisErrorKind::Unreachable, text);
    for node in nodes {
        match check_cluster_node(config, node, deadline) {
            Ok(()) => return Connection::to_cluster(config, nodes),
            Err(error) if error.needs_new_settings() => return Err(error),
            // A node that answers says more than one that cannot be reached.
            Err(error) if error.is_answer() => last = error,
            Err(_) => {}
        }
    }
    Err(last)
}

/// Connects to a node and asks for the cluster's slots, as the cluster client will.
#[cfg(feature = "redis-cluster")]
fn check_cluster_node(config: &RedisConfig, node: &Address, deadline: Deadline) -> Result<(), RedisError> {
    let mut connection = Connection::to_server(config, node, deadline)?;
    let mut question = redis::cmd("CLUSTER");
    question.arg("SLOTS");
    let slots = connection.request(&question, config.timeout_until(deadline));
    match slots.map_err(|error| connection.explain(error, config, deadline))? {
        redis::Value::Array(slots) if slots.is_empty() => Err(RedisError::no_slots(node)),
        _ => Ok(()),
    }
}

/// Connects to the node of a cluster that has `key`. Each node either serves the key or names the node that does.
#[cfg(feature = "redis-cluster")]
fn to_node_of(
    config: &RedisConfig,
    nodes: &[Address],
    key: &Key,
    deadline: Deadline,
) -> Result<Connection, RedisError> {
    let mut exists = redis::cmd("EXISTS");
    exists.arg(key.as_str());
    let text = format!("no node of the {} serves this key; check that all slots are assigned", config.endpoint());
    let mut last = RedisError::new(RedisErrorKind::Unreachable, text);
    let mut candidates = nodes.to_vec();
    // A node that another one has named is asked next.
    while let Some(address) = candidates.pop().filter(|_| !deadline.has_passed()) {
        let attempt = Connection::to_server(config, &address, deadline)
            .and_then(|mut connection| connection.request(&exists, config.timeout_until(deadline)).map(|_| connection));
        match attempt {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                if let RedisErrorKind::Moved(Some(node)) = &error.kind {
                    candidates.extend(Address::parse(node));
                }
                last = error;
            }
        }
    }
    Err(last)
}
