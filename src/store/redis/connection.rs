//! An open connection, with a time limit on each step.
//!
//! The `redis` crate applies its socket timeout to each read, and a reply may take several. The caller therefore passes
//! a time limit with each command, and no command is pipelined.

use std::time::Duration;

use redis::{Client, Cmd, ConnectionLike, Value};

use super::address::{Address, Endpoint};
use super::config::RedisConfig;
#[cfg(feature = "redis-tls")]
use super::error::is_tls_answer;
use super::error::{RedisError, RedisErrorKind};
use crate::clock::Deadline;

/// An open connection to one server, or to all nodes of a cluster.
///
/// After an error that [breaks the connection](RedisError::breaks_connection) it must not be used again: the next reply
/// read from it might be the late reply to an earlier command.
pub(super) struct Connection {
    transport: Transport,
    endpoint: Endpoint,
    /// The time limit that the socket has now.
    timeout: Duration,
    /// The process that opened the connection.
    process: u32,
    progress: Progress,
}

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// No reply has been read yet.
    New,
    /// The server has replied at least once.
    HasReplied,
    /// The server closed the connection, or sent what is no reply, before its first reply.
    ClosedAtOnce,
    /// The server sent nothing in time before its first reply.
    SilentAtOnce,
}

enum Transport {
    Server(Box<redis::Connection>),
    #[cfg(feature = "redis-cluster")]
    Cluster(Box<redis::cluster::ClusterConnection>),
}

impl Connection {
    /// Connects to the server at `address`, authenticates and selects the database.
    pub(super) fn to_server(
        config: &RedisConfig,
        address: &Address,
        deadline: Deadline,
    ) -> Result<Connection, RedisError> {
        let endpoint = Endpoint::Server(address.clone());
        let mut connection = Connection::without_setup(config, address, endpoint.clone(), deadline)?;
        // Sent one by one. When the `redis` crate sets a connection up itself, it pipelines these commands and applies
        // the whole time limit to each reply.
        for (command, hint) in config.setup_commands() {
            connection
                .request(&command, config.timeout_until(deadline))
                .map_err(|error| error.during_setup(&endpoint, hint))
                .map_err(|error| connection.explain(error, config, deadline))?;
        }
        Ok(connection)
    }

    /// Connects to the server at `address` and sends nothing. `endpoint` is its name in errors.
    pub(super) fn without_setup(
        config: &RedisConfig,
        address: &Address,
        endpoint: Endpoint,
        deadline: Deadline,
    ) -> Result<Connection, RedisError> {
        let timeout = config.timeout_until(deadline);
        if timeout.is_zero() {
            return Err(RedisError::connect_timed_out(&endpoint));
        }
        let connection = config
            .connection_info(address)
            .and_then(|info| client(config, info))
            .and_then(|client| client.get_connection_with_timeout(timeout))
            .map_err(|error| RedisError::from_driver(&error, &endpoint, true))?;
        Connection::new(Transport::Server(Box::new(connection)), endpoint, timeout)
    }

    /// Connects to the nodes of a cluster. No deadline bounds this: the `redis` crate tries one node after another.
    #[cfg(feature = "redis-cluster")]
    pub(super) fn to_cluster(config: &RedisConfig, nodes: &[Address]) -> Result<Connection, RedisError> {
        #[cfg(feature = "redis-tls")]
        if config.uses_tls() {
            install_tls_provider();
        }
        let endpoint = config.endpoint();
        let connection = config
            .cluster_client(nodes)
            .and_then(|client| client.get_connection())
            .map_err(|error| RedisError::from_driver(&error, &endpoint, true))?;
        Connection::new(Transport::Cluster(Box::new(connection)), endpoint, config.command_timeout())
    }

    /// Sets the time limit on the socket. The `redis` crate removes its own limit when it has connected.
    fn new(transport: Transport, endpoint: Endpoint, timeout: Duration) -> Result<Connection, RedisError> {
        let (process, progress) = (std::process::id(), Progress::New);
        let connection = Connection { transport, endpoint, timeout, process, progress };
        match connection.apply_timeout() {
            Ok(()) => Ok(connection),
            Err(error) => Err(RedisError::from_driver(&error, &connection.endpoint, true)),
        }
    }

    fn apply_timeout(&self) -> Result<(), redis::RedisError> {
        match &self.transport {
            Transport::Server(connection) => {
                connection.set_write_timeout(Some(self.timeout))?;
                connection.set_read_timeout(Some(self.timeout))
            }
            #[cfg(feature = "redis-cluster")]
            Transport::Cluster(connection) => {
                connection.set_write_timeout(Some(self.timeout))?;
                connection.set_read_timeout(Some(self.timeout))
            }
        }
    }

    /// Returns whether this process opened the connection. A forked child shares its parent's sockets; if the child
    /// used them, each would read replies meant for the other.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    fn note_progress(&mut self, reply: &Result<Value, redis::RedisError>) {
        if self.progress == Progress::New {
            self.progress = match reply {
                Err(error) if error.is_timeout() => Progress::SilentAtOnce,
                Err(error) if error.code().is_none() => Progress::ClosedAtOnce,
                _ => Progress::HasReplied,
            };
        }
    }

    /// Looks for the reason of a connection that failed before the server's first reply, and returns the error that says
    /// so. Returns `error` when there is nothing to add.
    ///
    /// A server that expects TLS closes a plain connection, and a server without TLS waits for the rest of what it takes
    /// for a command. Neither says why, so this asks the server in the other way, on a connection of its own and
    /// without a password. The time until `deadline`, but at least [`MIN_PROBE_TIME`], bounds that.
    pub(super) fn explain(&self, error: RedisError, config: &RedisConfig, deadline: Deadline) -> RedisError {
        let is_silent = self.progress == Progress::SilentAtOnce;
        let has_failed = error.kind == RedisErrorKind::Lost && (is_silent || self.progress == Progress::ClosedAtOnce);
        let Some(Address::Tcp(..)) = self.endpoint.address().filter(|_| has_failed) else { return error };
        #[cfg(feature = "redis-tls")]
        {
            let deadline =
                if deadline.remaining() < MIN_PROBE_TIME { Deadline::within(MIN_PROBE_TIME) } else { deadline };
            if config.uses_tls() && self.answers_without_tls(config, deadline) {
                return RedisError::server_without_tls(&self.endpoint);
            }
            if !config.uses_tls() && !is_silent && self.answers_with_tls(config, deadline) {
                return RedisError::server_with_tls(&self.endpoint);
            }
        }
        let _ = deadline;
        if is_silent || config.uses_tls() { error } else { error.closed_at_once(&self.endpoint) }
    }

    #[cfg(feature = "redis-tls")]
    fn answers_without_tls(&self, config: &RedisConfig, deadline: Deadline) -> bool {
        let (config, endpoint) = (config.with_tls(false), self.endpoint.clone());
        let Some(address) = self.endpoint.address() else { return false };
        let answer = Connection::without_setup(&config, address, endpoint, deadline)
            .and_then(|mut connection| connection.request(&redis::cmd("PING"), config.timeout_until(deadline)));
        answer.is_ok() || answer.is_err_and(|error| error.error.code().is_some())
    }

    #[cfg(feature = "redis-tls")]
    fn answers_with_tls(&self, config: &RedisConfig, deadline: Deadline) -> bool {
        let config = config.with_tls(true);
        let Some(address) = self.endpoint.address() else { return false };
        let timeout = config.timeout_until(deadline);
        let ask = || {
            let mut connection =
                client(&config, config.connection_info(address)?)?.get_connection_with_timeout(timeout)?;
            connection.set_write_timeout(Some(timeout))?;
            connection.set_read_timeout(Some(timeout))?;
            connection.req_command(&redis::cmd("PING"))
        };
        // The handshake comes with the first command.
        match ask() {
            Ok(_) => true,
            Err(error) => error.code().is_some() || is_tls_answer(&error),
        }
    }

    pub(super) fn malformed_reply(&self) -> RedisError {
        RedisError::malformed_reply(&self.endpoint)
    }

    /// Sends one command and waits for its reply. `timeout` applies to the write and to each read, so a server that
    /// sends its reply in pieces can take longer.
    pub(super) fn request(&mut self, command: &Cmd, timeout: Duration) -> Result<Value, RedisError> {
        if timeout.is_zero() {
            return Err(RedisError::timed_out(&self.endpoint));
        }
        if timeout != self.timeout {
            self.timeout = timeout;
            self.apply_timeout().map_err(|error| RedisError::from_driver(&error, &self.endpoint, false))?;
        }
        let reply = match &mut self.transport {
            Transport::Server(connection) => connection.req_command(command),
            #[cfg(feature = "redis-cluster")]
            Transport::Cluster(connection) => connection.req_command(command),
        };
        // The server's error may be the whole reply or a part of it.
        let reply = reply.and_then(Value::extract_error);
        self.note_progress(&reply);
        reply.map_err(|error| {
            let error = RedisError::from_driver(&error, &self.endpoint, false);
            match self.transport {
                Transport::Server(_) => error,
                #[cfg(feature = "redis-cluster")]
                Transport::Cluster(_) => error.of_cluster_client(&self.endpoint),
            }
        })
    }
}

/// How long `explain` asks at least, although the time of the operation is over.
#[cfg(feature = "redis-tls")]
const MIN_PROBE_TIME: Duration = Duration::from_millis(50);

fn client(config: &RedisConfig, info: redis::ConnectionInfo) -> Result<Client, redis::RedisError> {
    #[cfg(feature = "redis-tls")]
    if config.uses_tls() {
        install_tls_provider();
        return Client::build_with_tls(info, config.certificates());
    }
    let _ = config;
    Client::open(info)
}

/// Chooses the cryptography that TLS uses. Without a default provider `rustls` panics when the program contains none,
/// or more than one.
#[cfg(feature = "redis-tls")]
fn install_tls_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails only when another thread has installed one in the meantime.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
