//! One connection to a Redis, with time limits on everything, and what can go wrong on it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{Client, Cmd, ConnectionLike, Value};

use super::config::{Address, RedisConfig, Topology};
use crate::clock::Deadline;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::thread::aside;

/// A connection. After a [`RedisError`] that [breaks](RedisError::breaks_connection) it, it must not be used again: what is read next might
/// be the answer to an earlier call.
pub(super) struct Connection {
    transport: Transport,
    /// The time limit that is set on it.
    limit: Duration,
    process: u32,
}

enum Transport {
    One(Box<redis::Connection>),
    #[cfg(feature = "redis-cluster")]
    Cluster(Box<redis::cluster::ClusterConnection>),
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct RedisError {
    pub(super) error: Error,
    pub(super) kind: RedisErrorKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RedisErrorKind {
    /// The connection broke, or the server did not answer in time: what was asked may have been done all the same.
    Lost,
    /// There is no connection.
    Unreachable,
    /// The server has forgotten the script.
    NoScript,
    /// It cannot write: it is a replica, or has become one.
    ReadOnly,
    /// The key is on another node of a cluster.
    Moved(Option<String>),
    /// The server will not do this before somebody changes a setting.
    Refused,
    /// It can be read, but takes no writes.
    Full,
    /// The server answers that it cannot do it now.
    Busy,
    /// This key cannot be used, whatever the server can do.
    WrongKey,
}

impl Connection {
    /// Connects, to whatever the configuration says.
    pub(super) fn open(config: &RedisConfig, deadline: Deadline) -> Result<Connection, RedisError> {
        Connection::bounded(config, deadline, move |config| Connection::open_here(config, deadline))
    }

    /// Connects to the server that has `key`, to wait there: the connection of a whole cluster is too much for that.
    pub(super) fn for_streams_of(
        config: &RedisConfig,
        key: &Key,
        deadline: Deadline,
    ) -> Result<Connection, RedisError> {
        let key = key.clone();
        Connection::bounded(config, deadline, move |config| match config.topology() {
            #[cfg(feature = "redis-cluster")]
            Topology::Cluster(nodes) => Connection::to_node_of(config, nodes, &key, deadline),
            _ => {
                let _ = key;
                Connection::open_here(config, deadline)
            }
        })
    }

    /// Nothing else bounds the resolving of names, or what the `redis` crate does to learn about a cluster.
    fn bounded(
        config: &RedisConfig,
        deadline: Deadline,
        open: impl FnOnce(&RedisConfig) -> Result<Connection, RedisError> + Send + 'static,
    ) -> Result<Connection, RedisError> {
        if !config.needs_connect_thread() {
            return open(config);
        }
        let config = config.clone();
        match aside("evertoken-redis", deadline, move || open(&config)) {
            Ok(Some(opened)) => opened,
            Ok(None) => Err(RedisError::unreachable(LATE)),
            Err(error) => {
                Err(RedisError { error: error.recast(ErrorKind::Store, LATE), kind: RedisErrorKind::Unreachable })
            }
        }
    }

    fn open_here(config: &RedisConfig, deadline: Deadline) -> Result<Connection, RedisError> {
        match config.topology() {
            Topology::One(place) => Connection::to(config, place, deadline),
            #[cfg(feature = "redis-sentinel")]
            Topology::Sentinels { nodes, service, .. } => super::sentinel::master(config, nodes, service, deadline),
            #[cfg(feature = "redis-cluster")]
            Topology::Cluster(nodes) => Connection::to_cluster(config, nodes, deadline),
        }
    }

    /// Connects to one server.
    pub(super) fn to(config: &RedisConfig, place: &Address, deadline: Deadline) -> Result<Connection, RedisError> {
        let mut connection = Connection::connect(config, place, deadline)?;
        // One by one: what the `redis` crate does when it connects it sends at once, and waits for each answer as long
        // as for all.
        for command in config.setup_commands() {
            connection.ask(&command, config.timeout_until(deadline)).map_err(RedisError::during_setup)?;
        }
        Ok(connection)
    }

    /// Connects and says nothing.
    pub(super) fn connect(config: &RedisConfig, place: &Address, deadline: Deadline) -> Result<Connection, RedisError> {
        let limit = config.timeout_until(deadline);
        if limit.is_zero() {
            return Err(RedisError::unreachable(LATE));
        }
        let connection = config
            .connection_info(place)
            .and_then(|info| client(config, info))
            .and_then(|client| client.get_connection_with_timeout(limit))
            .map_err(|error| RedisError::of(&error, true))?;
        Connection::new(Transport::One(Box::new(connection)), limit)
    }

    #[cfg(feature = "redis-cluster")]
    fn to_cluster(config: &RedisConfig, nodes: &[Address], deadline: Deadline) -> Result<Connection, RedisError> {
        // What the `redis` crate says when it cannot connect is the same for a wrong password as for a wrong address,
        // and it tries every node in turn.
        let mut answers = nodes.iter().map(|node| Connection::to(config, node, deadline));
        let first = answers.find(|answer| !matches!(answer, Err(error) if !error.needs_new_settings()));
        first.unwrap_or_else(|| Err(RedisError::unreachable("no node of the redis cluster can be reached")))?;
        #[cfg(feature = "redis-tls")]
        if config.uses_tls() {
            prepare_tls();
        }
        let connection = config
            .cluster_client(nodes)
            .and_then(|client| client.get_connection())
            .map_err(|error| RedisError::of(&error, true))?;
        Connection::new(Transport::Cluster(Box::new(connection)), config.command_timeout())
    }

    #[cfg(feature = "redis-cluster")]
    fn to_node_of(
        config: &RedisConfig,
        nodes: &[Address],
        key: &Key,
        deadline: Deadline,
    ) -> Result<Connection, RedisError> {
        let mut call = redis::cmd("EXISTS");
        call.arg(key.as_str());
        let mut last = RedisError::unreachable("no node of the redis cluster has this key");
        let mut places = nodes.to_vec();
        // Those that the nodes name are asked first.
        while let Some(place) = places.pop().filter(|_| !deadline.has_passed()) {
            let asked = Connection::to(config, &place, deadline)
                .and_then(|mut connection| connection.ask(&call, config.timeout_until(deadline)).map(|_| connection));
            match asked {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    if let RedisErrorKind::Moved(Some(node)) = &error.kind {
                        places.extend(Address::parse(node));
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// The limit of the `redis` crate holds while it connects and is taken off then.
    fn new(transport: Transport, limit: Duration) -> Result<Connection, RedisError> {
        let connection = Connection { transport, limit, process: std::process::id() };
        connection.set_limits().map_err(|error| RedisError::of(&error, true))?;
        Ok(connection)
    }

    fn set_limits(&self) -> Result<(), redis::RedisError> {
        match &self.transport {
            Transport::One(connection) => {
                connection.set_write_timeout(Some(self.limit))?;
                connection.set_read_timeout(Some(self.limit))
            }
            #[cfg(feature = "redis-cluster")]
            Transport::Cluster(connection) => {
                connection.set_write_timeout(Some(self.limit))?;
                connection.set_read_timeout(Some(self.limit))
            }
        }
    }

    /// True when this process opened it. A forked child has its parent's sockets, and would read its answers.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    /// Sends one command and waits for its answer, `limit` for each part of it.
    pub(super) fn ask(&mut self, command: &Cmd, limit: Duration) -> Result<Value, RedisError> {
        if limit.is_zero() {
            return Err(RedisError::lost("redis did not answer in time"));
        }
        if limit != self.limit {
            self.limit = limit;
            self.set_limits().map_err(|error| RedisError::of(&error, false))?;
        }
        let answer = match &mut self.transport {
            Transport::One(connection) => connection.req_command(command),
            #[cfg(feature = "redis-cluster")]
            Transport::Cluster(connection) => connection.req_command(command),
        };
        // An answer may be, or hold, an error of the server.
        let error = match answer.and_then(Value::extract_error) {
            Ok(value) => return Ok(value),
            Err(error) => RedisError::of(&error, false),
        };
        #[cfg(feature = "redis-cluster")]
        if let (Transport::Cluster(_), RedisErrorKind::Moved(_)) = (&self.transport, &error.kind) {
            // The client was told so often that it gave up.
            return Err(RedisError::lost("the redis cluster is changing"));
        }
        Err(error)
    }
}

fn client(config: &RedisConfig, info: redis::ConnectionInfo) -> Result<Client, redis::RedisError> {
    #[cfg(feature = "redis-tls")]
    if config.uses_tls() {
        prepare_tls();
        return Client::build_with_tls(info, config.certificates());
    }
    let _ = config;
    Client::open(info)
}

/// `rustls` panics when it cannot tell which cryptography to use: none or more than one is in the program.
#[cfg(feature = "redis-tls")]
fn prepare_tls() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

impl RedisError {
    pub(super) fn lost(message: &'static str) -> RedisError {
        RedisError { error: Error::new(ErrorKind::Store, message), kind: RedisErrorKind::Lost }
    }

    pub(super) fn unreachable(message: &'static str) -> RedisError {
        RedisError { error: Error::new(ErrorKind::Store, message), kind: RedisErrorKind::Unreachable }
    }

    /// An answer that is not what the script gives.
    pub(super) fn nonsense() -> RedisError {
        RedisError::lost("what answers in the place of redis makes no sense")
    }

    /// True when the connection must not be used again. Only a plain answer of the server leaves it as it was.
    pub(super) fn breaks_connection(&self) -> bool {
        matches!(self.kind, RedisErrorKind::Lost | RedisErrorKind::Unreachable | RedisErrorKind::ReadOnly)
    }

    /// A server that does not know the database today will not know it tomorrow.
    fn during_setup(self) -> RedisError {
        match self.error.code() {
            Some("ERR") => {
                let message = "redis does not know this database, or this way to give a user and password";
                RedisError { error: Error::config(message).with_code("ERR"), kind: RedisErrorKind::Refused }
            }
            _ => self,
        }
    }

    /// True when the same may work on a new connection.
    pub(super) fn is_retryable(&self) -> bool {
        matches!(self.kind, RedisErrorKind::Lost | RedisErrorKind::ReadOnly)
    }

    /// True when only writing is impossible.
    pub(super) fn affects_only_writes(&self) -> bool {
        matches!(self.kind, RedisErrorKind::ReadOnly | RedisErrorKind::Full)
    }

    /// True when it will not work before somebody mends a setting.
    pub(super) fn needs_new_settings(&self) -> bool {
        matches!(self.kind, RedisErrorKind::Refused | RedisErrorKind::Moved(_))
    }

    /// What went wrong, without the text of the error: it may quote values, arguments and addresses.
    fn of(error: &redis::RedisError, connecting: bool) -> RedisError {
        use redis::ErrorKind as DriverErrorKind;
        let code = code_in_script_error(error).or(error.code()).unwrap_or_default();
        let (kind, message) = match (code, error.kind()) {
            ("NOAUTH" | "WRONGPASS" | "NOPERM", _) | (_, DriverErrorKind::AuthenticationFailed) => {
                (RedisErrorKind::Refused, RIGHTS)
            }
            ("NOSCRIPT", _) => (RedisErrorKind::NoScript, "redis has forgotten a script"),
            ("READONLY", _) => (RedisErrorKind::ReadOnly, "redis is a replica here, which cannot be written"),
            ("MOVED" | "ASK", _) => {
                let node = error.redirect_node().map(|(address, _)| address.to_owned());
                (
                    RedisErrorKind::Moved(node),
                    "this redis is part of a cluster: use RedisConfig::cluster, with the feature redis-cluster",
                )
            }
            ("CROSSSLOT", _) => {
                (RedisErrorKind::WrongKey, "a key of your own needs a {part} in braces in a redis cluster")
            }
            ("LOADING", _) => (RedisErrorKind::Busy, "redis is still loading its data"),
            ("OOM", _) => (RedisErrorKind::Full, "redis is out of memory"),
            ("MISCONF", _) => (RedisErrorKind::Full, "redis takes no writes because it cannot save its data"),
            (_, DriverErrorKind::InvalidClientConfig) => {
                (RedisErrorKind::Refused, "the configuration of redis cannot be used")
            }
            (_, DriverErrorKind::Server(_) | DriverErrorKind::Extension) => {
                (RedisErrorKind::Busy, "redis answers with an error")
            }
            (_, DriverErrorKind::Parse) => return RedisError::nonsense(),
            _ if is_about_tls(error) => (RedisErrorKind::Refused, TLS),
            _ if error.is_connection_refusal() => (RedisErrorKind::Unreachable, "redis refuses the connection"),
            _ if connecting => (RedisErrorKind::Unreachable, "redis cannot be reached"),
            _ if error.is_timeout() => (RedisErrorKind::Lost, "redis did not answer in time"),
            _ => (RedisErrorKind::Lost, "the connection to redis broke"),
        };
        let mut redis_error = RedisError { error: Error::new(ErrorKind::Store, message), kind };
        if redis_error.needs_new_settings() || redis_error.kind == RedisErrorKind::WrongKey {
            redis_error.error = Error::config(message);
        }
        if !code.is_empty() {
            redis_error.error = redis_error.error.with_code(code);
        }
        redis_error
    }
}

/// Servers before version 7 put words of their own before the code when it comes out of a script.
fn code_in_script_error(error: &redis::RedisError) -> Option<&'static str> {
    let codes = ["READONLY", "OOM", "MISCONF", "NOPERM", "LOADING"];
    let is_hidden = error.code().is_some_and(|code| code == "ERR" || code.starts_with('@'));
    let detail = error.detail().filter(|_| is_hidden)?;
    codes.into_iter().find(|code| detail.contains(&format!("-{code} ")))
}

/// True when the two could not agree on how to speak, or the certificate is not trusted. Nothing else makes the
/// system's errors say that data is invalid.
fn is_about_tls(error: &redis::RedisError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Source>());
    let system = source.and_then(|source| source.downcast_ref::<io::Error>());
    system.is_some_and(|system| system.kind() == io::ErrorKind::InvalidData)
}

type Source = Arc<dyn std::error::Error + Send + Sync>;

const TLS: &str = "redis speaks no TLS, or its certificate, or the one that it was shown, is not trusted";
const LATE: &str = "redis could not be reached in time";
const RIGHTS: &str = "redis refuses the user, the password, or a command that this user may not use";
