//! Finds the master that a group of sentinels knows.

use redis::{Value, cmd};

use super::config::{Place, RedisConfig};
use super::link::{Fault, FaultKind, Link};
use crate::clock::Deadline;

/// Asks the sentinels, beginning with any of them, for the master of `service`, and connects to it. One that is no
/// master any more, or not yet, is not taken, whatever the sentinel says.
pub(super) fn master(config: &RedisConfig, nodes: &[Place], service: &str, deadline: Deadline) -> Result<Link, Fault> {
    // Not the first one always: it may be the one that does not answer, and take up the whole time.
    let first = fastrand::usize(..nodes.len().max(1));
    let mut last = Fault::unreachable("no sentinel of redis knows the master");
    for node in nodes.iter().cycle().skip(first).take(nodes.len()) {
        if deadline.has_passed() {
            break;
        }
        match ask(config, node, service, deadline).and_then(|place| connect(config, &place, deadline)) {
            Ok(link) => return Ok(link),
            // The others would say the same, and a wrong password is not to be tried again and again.
            Err(fault) if fault.kind == FaultKind::Refused => return Err(fault),
            Err(fault) => last = fault,
        }
    }
    Err(last)
}

fn ask(config: &RedisConfig, node: &Place, service: &str, deadline: Deadline) -> Result<Place, Fault> {
    // Half the time, so that a silent one leaves some for another.
    let deadline = deadline.min(Deadline::within(config.limit_until(deadline) / 2));
    let mut sentinel = Link::connect(config, node, deadline)?;
    if let Some(greeting) = config.sentinel_greeting() {
        sentinel.ask(&greeting, deadline.remaining())?;
    }
    let mut question = cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(service);
    let Value::Array(address) = sentinel.ask(&question, deadline.remaining())? else {
        return Err(Fault::unreachable("the sentinels of redis do not know this service"));
    };
    let [Value::BulkString(host), Value::BulkString(port)] = address.as_slice() else { return Err(Fault::nonsense()) };
    let text = format!("{}:{}", String::from_utf8_lossy(host), String::from_utf8_lossy(port));
    Place::parse(&text).ok_or_else(Fault::nonsense)
}

fn connect(config: &RedisConfig, place: &Place, deadline: Deadline) -> Result<Link, Fault> {
    let mut link = Link::to(config, place, deadline)?;
    let role = link.ask(&cmd("ROLE"), config.limit_until(deadline))?;
    match role {
        Value::Array(parts) if parts.first() == Some(&Value::BulkString(b"master".to_vec())) => Ok(link),
        _ => Err(Fault::unreachable("the master of redis is changing")),
    }
}
