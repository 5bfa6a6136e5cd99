//! Finds and connects to the master that a group of sentinels monitors.

use redis::{Value, cmd};

use super::address::{Address, Endpoint};
use super::config::{RedisConfig, SENTINEL_AUTH_REFUSED};
use super::connection::Connection;
use super::error::{RedisError, RedisErrorKind};
use crate::clock::Deadline;

/// Asks the sentinels for the master of `service` and connects to it.
///
/// A sentinel may name a server that is not the master any more, or not yet. The server is asked for its role, and used
/// only if it is the master.
pub(super) fn connect_to_master(
    config: &RedisConfig,
    nodes: &[Address],
    service: &str,
    deadline: Deadline,
) -> Result<Connection, RedisError> {
    // Start at a random sentinel: if the first one in the list is silent, it would use up the time of every attempt.
    let first = fastrand::usize(..nodes.len().max(1));
    let mut last = RedisError::connect_timed_out(&config.endpoint());
    let mut unknown = None;
    for node in nodes.iter().cycle().skip(first).take(nodes.len()) {
        if deadline.has_passed() {
            break;
        }
        let connected = match find_master(config, node, service, deadline) {
            Ok(Some(address)) => connect_if_master(config, &address, deadline)
                .map_err(|error| error.of_master(&Endpoint::Sentinel(node.clone()), service)),
            // Another sentinel may know the service.
            Ok(None) => {
                unknown = Some(unknown_service(node, service));
                continue;
            }
            Err(error) => Err(error),
        };
        match connected {
            Ok(connection) => return Ok(connection),
            // The other sentinels would lead to the same refusal, and a wrong password must not be tried repeatedly.
            Err(error) if error.kind == RedisErrorKind::Refused => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(unknown.unwrap_or(last))
}

/// The error of a sentinel that monitors no service of this name, which lasts until a person changes a setting.
fn unknown_service(node: &Address, service: &str) -> RedisError {
    let endpoint = Endpoint::Sentinel(node.clone());
    let text = format!("{endpoint} knows no service \"{service}\"; check the name given to RedisConfig::sentinels");
    RedisError::new(RedisErrorKind::Refused, text)
}

/// Asks one sentinel for the address of the master. `None` when the sentinel does not know the service.
fn find_master(
    config: &RedisConfig,
    node: &Address,
    service: &str,
    deadline: Deadline,
) -> Result<Option<Address>, RedisError> {
    // Half of the time, so that a silent sentinel leaves enough for another one.
    let deadline = deadline.min(Deadline::within(config.timeout_until(deadline) / 2));
    let endpoint = Endpoint::Sentinel(node.clone());
    let mut sentinel = Connection::without_setup(config, node, endpoint.clone(), deadline)?;
    if let Some(command) = config.sentinel_setup_command() {
        sentinel
            .request(&command, deadline.remaining())
            .map_err(|error| error.during_setup(&endpoint, SENTINEL_AUTH_REFUSED))
            .map_err(|error| sentinel.explain(error, config, deadline))?;
    }
    let mut question = cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(service);
    let answer = sentinel.request(&question, deadline.remaining());
    let answer = answer.map_err(|error| match error.kind {
        RedisErrorKind::UnknownCommand => error.of_plain_server(node),
        _ => sentinel.explain(error, config, deadline),
    })?;
    let Value::Array(address) = answer else { return Ok(None) };
    let [Value::BulkString(host), Value::BulkString(port)] = address.as_slice() else {
        return Err(sentinel.malformed_reply());
    };
    let text = format!("{}:{}", String::from_utf8_lossy(host), String::from_utf8_lossy(port));
    Address::parse(&text).map(Some).ok_or_else(|| sentinel.malformed_reply())
}

fn connect_if_master(config: &RedisConfig, address: &Address, deadline: Deadline) -> Result<Connection, RedisError> {
    let mut connection = Connection::to_server(config, address, deadline)?;
    let role = connection.request(&cmd("ROLE"), config.timeout_until(deadline));
    let role = role.map_err(|error| connection.explain(error, config, deadline))?;
    match role {
        Value::Array(parts) if parts.first() == Some(&Value::BulkString(b"master".to_vec())) => Ok(connection),
        _ => {
            let text = format!("redis at {address} is not the master now");
            Err(RedisError::new(RedisErrorKind::Unreachable, text))
        }
    }
}
