//! The same work with the `redis` crate alone, for comparison.

use std::time::Duration;

use redis::{Client, Connection, IntoConnectionInfo, cmd};

/// Connects with time limits, and without sending the client's name to the server, which would be a round trip.
pub(crate) fn connect(url: &str) -> Connection {
    let info = url.into_connection_info().unwrap();
    let quiet = info.redis_settings().clone().set_skip_set_lib_name();
    let client = Client::open(info.set_redis_settings(quiet)).unwrap();
    let connection = client.get_connection_with_timeout(LIMIT).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    connection.set_write_timeout(Some(LIMIT)).unwrap();
    connection
}

pub(crate) fn get(connection: &mut Connection, key: &str) -> Option<String> {
    cmd("GET").arg(key).query(connection).unwrap()
}

/// `SET key value EX seconds`
pub(crate) fn set(connection: &mut Connection, key: &str, value: &str, seconds: u64) {
    cmd("SET").arg(key).arg(value).arg("EX").arg(seconds).query(connection).unwrap()
}

/// `SET key value NX EX seconds`. Returns false when the key exists.
pub(crate) fn set_new(connection: &mut Connection, key: &str, value: &str, seconds: u64) -> bool {
    let answer: Option<String> =
        cmd("SET").arg(key).arg(value).arg("NX").arg("EX").arg(seconds).query(connection).unwrap();
    answer.is_some()
}

/// Generous, because many commands may wait for a core at once.
const LIMIT: Duration = Duration::from_secs(5);
