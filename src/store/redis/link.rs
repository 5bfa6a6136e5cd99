//! One connection to a Redis, with time limits on everything, and what can go wrong on it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{Client, Cmd, Connection, ConnectionLike, RedisError, Value};

use super::config::{Place, RedisConfig, Topology};
use crate::clock::Deadline;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::thread::run_with_deadline;

/// A connection. After a [`Fault`] that [breaks](Fault::breaks) it, it must not be used again: what is read next might
/// be the answer to an earlier question.
pub(super) struct Link {
    wire: Wire,
    /// The time limit that is set on it.
    limit: Duration,
    process: u32,
}

enum Wire {
    One(Box<Connection>),
    #[cfg(feature = "redis-cluster")]
    Cluster(Box<redis::cluster::ClusterConnection>),
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: Error,
    pub(super) kind: FaultKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
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

impl Link {
    /// Connects, to whatever the configuration says.
    pub(super) fn open(config: &RedisConfig, deadline: Deadline) -> Result<Link, Fault> {
        Link::bounded(config, deadline, move |config| Link::open_here(config, deadline))
    }

    /// Connects to the server that has `key`, to wait there: the connection of a whole cluster is too much for that.
    pub(super) fn for_streams_of(config: &RedisConfig, key: &Key, deadline: Deadline) -> Result<Link, Fault> {
        let key = key.clone();
        Link::bounded(config, deadline, move |config| match config.topology() {
            #[cfg(feature = "redis-cluster")]
            Topology::Cluster(nodes) => Link::to_node_of(config, nodes, &key, deadline),
            _ => {
                let _ = key;
                Link::open_here(config, deadline)
            }
        })
    }

    /// Nothing else bounds the resolving of names, or what the `redis` crate does to learn about a cluster.
    fn bounded(
        config: &RedisConfig,
        deadline: Deadline,
        open: impl FnOnce(&RedisConfig) -> Result<Link, Fault> + Send + 'static,
    ) -> Result<Link, Fault> {
        if !config.may_take_long() {
            return open(config);
        }
        let config = config.clone();
        match run_with_deadline("evertoken-redis", deadline, move || open(&config)) {
            Ok(Some(opened)) => opened,
            Ok(None) => Err(Fault::unreachable(LATE)),
            Err(error) => Err(Fault { error: error.recast(ErrorKind::Store, LATE), kind: FaultKind::Unreachable }),
        }
    }

    fn open_here(config: &RedisConfig, deadline: Deadline) -> Result<Link, Fault> {
        match config.topology() {
            Topology::One(place) => Link::to(config, place, deadline),
            #[cfg(feature = "redis-sentinel")]
            Topology::Sentinels { nodes, service, .. } => super::sentinel::master(config, nodes, service, deadline),
            #[cfg(feature = "redis-cluster")]
            Topology::Cluster(nodes) => Link::to_cluster(config, nodes, deadline),
        }
    }

    /// Connects to one server.
    pub(super) fn to(config: &RedisConfig, place: &Place, deadline: Deadline) -> Result<Link, Fault> {
        let mut link = Link::connect(config, place, deadline)?;
        // One by one: what the `redis` crate does when it connects it sends at once, and waits for each answer as long
        // as for all.
        for greeting in config.greetings() {
            link.ask(&greeting, config.limit_until(deadline)).map_err(Fault::on_arrival)?;
        }
        Ok(link)
    }

    /// Connects and says nothing.
    pub(super) fn connect(config: &RedisConfig, place: &Place, deadline: Deadline) -> Result<Link, Fault> {
        let limit = config.limit_until(deadline);
        if limit.is_zero() {
            return Err(Fault::unreachable(LATE));
        }
        let connection = config
            .silent_info(place)
            .and_then(|info| client(config, info))
            .and_then(|client| client.get_connection_with_timeout(limit))
            .map_err(|error| Fault::of(&error, true))?;
        Link::new(Wire::One(Box::new(connection)), limit)
    }

    #[cfg(feature = "redis-cluster")]
    fn to_cluster(config: &RedisConfig, nodes: &[Place], deadline: Deadline) -> Result<Link, Fault> {
        // What the `redis` crate says when it cannot connect is the same for a wrong password as for a wrong address,
        // and it tries every node in turn.
        let mut answers = nodes.iter().map(|node| Link::to(config, node, deadline));
        let first = answers.find(|answer| !matches!(answer, Err(fault) if !fault.lasts()));
        first.unwrap_or_else(|| Err(Fault::unreachable("no node of the redis cluster can be reached")))?;
        #[cfg(feature = "redis-tls")]
        if config.speaks_tls() {
            prepare_tls();
        }
        let connection = config
            .cluster_client(nodes)
            .and_then(|client| client.get_connection())
            .map_err(|error| Fault::of(&error, true))?;
        Link::new(Wire::Cluster(Box::new(connection)), config.limit())
    }

    #[cfg(feature = "redis-cluster")]
    fn to_node_of(config: &RedisConfig, nodes: &[Place], key: &Key, deadline: Deadline) -> Result<Link, Fault> {
        let mut question = redis::cmd("EXISTS");
        question.arg(key.as_str());
        let mut last = Fault::unreachable("no node of the redis cluster has this key");
        let mut places = nodes.to_vec();
        // Those that the nodes name are asked first.
        while let Some(place) = places.pop().filter(|_| !deadline.has_passed()) {
            let asked = Link::to(config, &place, deadline)
                .and_then(|mut link| link.ask(&question, config.limit_until(deadline)).map(|_| link));
            match asked {
                Ok(link) => return Ok(link),
                Err(fault) => {
                    if let FaultKind::Moved(Some(node)) = &fault.kind {
                        places.extend(Place::parse(node));
                    }
                    last = fault;
                }
            }
        }
        Err(last)
    }

    /// The limit of the `redis` crate holds while it connects and is taken off then.
    fn new(wire: Wire, limit: Duration) -> Result<Link, Fault> {
        let link = Link { wire, limit, process: std::process::id() };
        link.set_limits().map_err(|error| Fault::of(&error, true))?;
        Ok(link)
    }

    fn set_limits(&self) -> Result<(), RedisError> {
        match &self.wire {
            Wire::One(connection) => {
                connection.set_write_timeout(Some(self.limit))?;
                connection.set_read_timeout(Some(self.limit))
            }
            #[cfg(feature = "redis-cluster")]
            Wire::Cluster(connection) => {
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
    pub(super) fn ask(&mut self, command: &Cmd, limit: Duration) -> Result<Value, Fault> {
        if limit.is_zero() {
            return Err(Fault::lost("redis did not answer in time"));
        }
        if limit != self.limit {
            self.limit = limit;
            self.set_limits().map_err(|error| Fault::of(&error, false))?;
        }
        let answer = match &mut self.wire {
            Wire::One(connection) => connection.req_command(command),
            #[cfg(feature = "redis-cluster")]
            Wire::Cluster(connection) => connection.req_command(command),
        };
        // An answer may be, or hold, an error of the server.
        let fault = match answer.and_then(Value::extract_error) {
            Ok(value) => return Ok(value),
            Err(error) => Fault::of(&error, false),
        };
        #[cfg(feature = "redis-cluster")]
        if let (Wire::Cluster(_), FaultKind::Moved(_)) = (&self.wire, &fault.kind) {
            // The client was told so often that it gave up.
            return Err(Fault::lost("the redis cluster is changing"));
        }
        Err(fault)
    }
}

fn client(config: &RedisConfig, info: redis::ConnectionInfo) -> Result<Client, RedisError> {
    #[cfg(feature = "redis-tls")]
    if config.speaks_tls() {
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

impl Fault {
    pub(super) fn lost(message: &'static str) -> Fault {
        Fault { error: Error::new(ErrorKind::Store, message), kind: FaultKind::Lost }
    }

    pub(super) fn unreachable(message: &'static str) -> Fault {
        Fault { error: Error::new(ErrorKind::Store, message), kind: FaultKind::Unreachable }
    }

    /// An answer that is not what the script gives.
    pub(super) fn nonsense() -> Fault {
        Fault::lost("what answers in the place of redis makes no sense")
    }

    /// True when the connection must not be used again. Only a plain answer of the server leaves it as it was.
    pub(super) fn breaks(&self) -> bool {
        matches!(self.kind, FaultKind::Lost | FaultKind::Unreachable | FaultKind::ReadOnly)
    }

    /// A server that does not know the database today will not know it tomorrow.
    fn on_arrival(self) -> Fault {
        match self.error.code() {
            Some("ERR") => {
                let message = "redis does not know this database, or this way to give a user and password";
                Fault { error: Error::config(message).with_code("ERR"), kind: FaultKind::Refused }
            }
            _ => self,
        }
    }

    /// True when the same may work on a new connection.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self.kind, FaultKind::Lost | FaultKind::ReadOnly)
    }

    /// True when only writing is impossible.
    pub(super) fn is_about_writing(&self) -> bool {
        matches!(self.kind, FaultKind::ReadOnly | FaultKind::Full)
    }

    /// True when it will not work before somebody mends a setting.
    pub(super) fn lasts(&self) -> bool {
        matches!(self.kind, FaultKind::Refused | FaultKind::Moved(_))
    }

    /// What went wrong, without the text of the error: it may quote values, arguments and addresses.
    fn of(error: &RedisError, connecting: bool) -> Fault {
        use redis::ErrorKind as Theirs;
        let code = hidden_code(error).or(error.code()).unwrap_or_default();
        let (kind, message) = match (code, error.kind()) {
            ("NOAUTH" | "WRONGPASS" | "NOPERM", _) | (_, Theirs::AuthenticationFailed) => (FaultKind::Refused, RIGHTS),
            ("NOSCRIPT", _) => (FaultKind::NoScript, "redis has forgotten a script"),
            ("READONLY", _) => (FaultKind::ReadOnly, "redis is a replica here, which cannot be written"),
            ("MOVED" | "ASK", _) => {
                let node = error.redirect_node().map(|(address, _)| address.to_owned());
                (
                    FaultKind::Moved(node),
                    "this redis is part of a cluster: use RedisConfig::cluster, with the feature redis-cluster",
                )
            }
            ("CROSSSLOT", _) => (FaultKind::WrongKey, "a key of your own needs a {part} in braces in a redis cluster"),
            ("LOADING", _) => (FaultKind::Busy, "redis is still loading its data"),
            ("OOM", _) => (FaultKind::Full, "redis is out of memory"),
            ("MISCONF", _) => (FaultKind::Full, "redis takes no writes because it cannot save its data"),
            (_, Theirs::InvalidClientConfig) => (FaultKind::Refused, "the configuration of redis cannot be used"),
            (_, Theirs::Server(_) | Theirs::Extension) => (FaultKind::Busy, "redis answers with an error"),
            (_, Theirs::Parse) => return Fault::nonsense(),
            _ if is_about_tls(error) => (FaultKind::Refused, TLS),
            _ if error.is_connection_refusal() => (FaultKind::Unreachable, "redis refuses the connection"),
            _ if connecting => (FaultKind::Unreachable, "redis cannot be reached"),
            _ if error.is_timeout() => (FaultKind::Lost, "redis did not answer in time"),
            _ => (FaultKind::Lost, "the connection to redis broke"),
        };
        let mut fault = Fault { error: Error::new(ErrorKind::Store, message), kind };
        if fault.lasts() || fault.kind == FaultKind::WrongKey {
            fault.error = Error::config(message);
        }
        if !code.is_empty() {
            fault.error = fault.error.with_code(code);
        }
        fault
    }
}

/// Servers before version 7 put words of their own before the code when it comes out of a script.
fn hidden_code(error: &RedisError) -> Option<&'static str> {
    let codes = ["READONLY", "OOM", "MISCONF", "NOPERM", "LOADING"];
    let is_hidden = error.code().is_some_and(|code| code == "ERR" || code.starts_with('@'));
    let detail = error.detail().filter(|_| is_hidden)?;
    codes.into_iter().find(|code| detail.contains(&format!("-{code} ")))
}

/// True when the two could not agree on how to speak, or the certificate is not trusted. Nothing else makes the
/// system's errors say that data is invalid.
fn is_about_tls(error: &RedisError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Source>());
    let system = source.and_then(|source| source.downcast_ref::<io::Error>());
    system.is_some_and(|system| system.kind() == io::ErrorKind::InvalidData)
}

type Source = Arc<dyn std::error::Error + Send + Sync>;

const TLS: &str = "redis speaks no TLS, or its certificate, or the one that it was shown, is not trusted";
const LATE: &str = "redis could not be reached in time";
const RIGHTS: &str = "redis refuses the user, the password, or a command that this user may not use";
