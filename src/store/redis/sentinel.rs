//! Finds the master that a group of sentinels knows.

use redis::{Value, cmd};

use super::config::{Address, RedisConfig};
use super::connection::{Connection, RedisError, RedisErrorKind};
use crate::clock::Deadline;

/// Asks the sentinels, beginning with any of them, for the master of `service`, and connects to it. One that is no
/// master any more, or not yet, is not taken, whatever the sentinel says.
pub(super) fn master(
    config: &RedisConfig,
    nodes: &[Address],
    service: &str,
    deadline: Deadline,
) -> Result<Connection, RedisError> {
    // Not the first one always: it may be the one that does not answer, and take up the whole time.
    let first = fastrand::usize(..nodes.len().max(1));
    let mut last = RedisError::unreachable("no sentinel of redis knows the master");
    for node in nodes.iter().cycle().skip(first).take(nodes.len()) {
        if deadline.has_passed() {
            break;
        }
        match ask(config, node, service, deadline).and_then(|place| connect(config, &place, deadline)) {
            Ok(connection) => return Ok(connection),
            // The others would say the same, and a wrong password is not to be tried again and again.
            Err(error) if error.kind == RedisErrorKind::Refused => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask(config: &RedisConfig, node: &Address, service: &str, deadline: Deadline) -> Result<Address, RedisError> {
    // Half the time, so that a silent one leaves some for another.
    let deadline = deadline.min(Deadline::within(config.timeout_until(deadline) / 2));
    let mut sentinel = Connection::connect(config, node, deadline)?;
    if let Some(command) = config.sentinel_setup_command() {
        sentinel.ask(&command, deadline.remaining())?;
    }
    let mut call = cmd("SENTINEL");
    call.arg("get-master-addr-by-name").arg(service);
    let Value::Array(address) = sentinel.ask(&call, deadline.remaining())? else {
        return Err(RedisError::unreachable("the sentinels of redis do not know this service"));
    };
    let [Value::BulkString(host), Value::BulkString(port)] = address.as_slice() else {
        return Err(RedisError::nonsense());
    };
    let text = format!("{}:{}", String::from_utf8_lossy(host), String::from_utf8_lossy(port));
    Address::parse(&text).ok_or_else(RedisError::nonsense)
}

fn connect(config: &RedisConfig, place: &Address, deadline: Deadline) -> Result<Connection, RedisError> {
    let mut connection = Connection::to(config, place, deadline)?;
    let role = connection.ask(&cmd("ROLE"), config.timeout_until(deadline))?;
    match role {
        Value::Array(parts) if parts.first() == Some(&Value::BulkString(b"master".to_vec())) => Ok(connection),
        _ => Err(RedisError::unreachable("the master of redis is changing")),
    }
}
