//! The settings of a Redis store: where the servers are, how to authenticate, TLS, and the time limits.

use std::fmt;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, cmd};

use super::address::{Address, Endpoint};
use crate::clock::Deadline;
use crate::error::Error;
use crate::secret::Secret;

/// The settings of a [`RedisStore`](crate::RedisStore): the servers' addresses, the password, TLS and time limits.
///
/// Works for Redis and for Valkey. `Debug` shows addresses and the user, never the password.
///
/// ```
/// use std::time::Duration;
/// use evertoken::{RedisConfig, RedisStore};
///
/// let config = RedisConfig::from_url("redis://cache.internal:6379/2")?
///     .user("tokens")
///     .password("s3cret")
///     .timeout(Duration::from_millis(200));
/// let store = RedisStore::new(config)?;
/// # Ok::<(), evertoken::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct RedisConfig {
    topology: Topology,
    user: Option<String>,
    password: Option<Secret>,
    database: i64,
    tls: bool,
    #[cfg(feature = "redis-tls")]
    certificates: Certificates,
    timeout: Duration,
    replicas: Option<(u32, Duration)>,
}

/// How the servers are arranged.
#[derive(Clone, Debug)]
pub(super) enum Topology {
    Single(Address),
    #[cfg(feature = "redis-sentinel")]
    Sentinels {
        nodes: Vec<Address>,
        service: String,
        password: Option<Secret>,
    },
    #[cfg(feature = "redis-cluster")]
    Cluster(Vec<Address>),
}

#[cfg(feature = "redis-tls")]
#[derive(Clone, Default)]
struct Certificates {
    roots: Option<String>,
    client: Option<(String, Secret)>,
}

impl RedisConfig {
    /// Uses one server, given by a URL: `redis://[user:password@]host[:port][/database]` (or `valkey://`), `rediss://`
    /// for TLS (feature `redis-tls`), or `redis+unix:///path/of/socket?db=0&user=..&pass=..`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the URL has none of these forms, or contains a `#`: no setting
    /// switches off the check of certificates (`#insecure`, refused with and without TLS), and a `#` in a password is
    /// written `%23`. The error never quotes the URL.
    /// [`RedisStore::new`](crate::RedisStore::new) checks that a `rediss://` URL comes with the feature `redis-tls`.
    pub fn from_url(url: &str) -> Result<RedisConfig, Error> {
        match url.split_once('#') {
            Some((_, "insecure")) => return Err(Error::config(INSECURE_URL)),
            Some(_) => return Err(Error::config(URL_WITH_FRAGMENT)),
            None => {}
        }
        let info = url.into_connection_info().map_err(|_| {
            // Without its own feature for TLS, the `redis` crate cannot parse these URLs.
            let wants_tls = ["rediss:", "valkeys:"].iter().any(|scheme| url.starts_with(scheme));
            Error::config(if wants_tls && !cfg!(feature = "redis-tls") { NEEDS_TLS } else { INVALID_URL })
        })?;
        let (address, tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (Address::Tcp(host.clone(), *port), false),
            ConnectionAddr::TcpTls { host, port, .. } => (Address::Tcp(host.clone(), *port), true),
            ConnectionAddr::Unix(path) => (Address::Unix(path.clone()), false),
            _ => return Err(Error::config(INVALID_URL)),
        };
        let settings = info.redis_settings();
        Ok(RedisConfig {
            user: settings.username().map(str::to_owned),
            password: settings.password().map(Secret::from),
            database: settings.db(),
            tls,
            ..RedisConfig::of(Topology::Single(address))
        })
    }

    /// Uses the master that the sentinels at `nodes` (`host:port`) monitor under the name `service`. The store asks the
    /// sentinels when it connects, and again when the connection breaks or the master becomes a replica.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when `nodes` is empty or a node is not `host:port`.
    #[cfg(feature = "redis-sentinel")]
    pub fn sentinels<N: AsRef<str>>(nodes: impl IntoIterator<Item = N>, service: &str) -> Result<RedisConfig, Error> {
        let topology = Topology::Sentinels { nodes: parse_nodes(nodes)?, service: service.to_owned(), password: None };
        Ok(RedisConfig::of(topology))
    }

    /// Uses a cluster. `nodes` (`host:port`) are some of its nodes, from which the store learns the others. The keys of
    /// a credential share a slot.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when `nodes` is empty or a node is not `host:port`.
    #[cfg(feature = "redis-cluster")]
    pub fn cluster<N: AsRef<str>>(nodes: impl IntoIterator<Item = N>) -> Result<RedisConfig, Error> {
        Ok(RedisConfig::of(Topology::Cluster(parse_nodes(nodes)?)))
    }

    fn of(topology: Topology) -> RedisConfig {
        RedisConfig {
            topology,
            user: None,
            password: None,
            database: 0,
            tls: false,
            #[cfg(feature = "redis-tls")]
            certificates: Certificates::default(),
            timeout: DEFAULT_TIMEOUT,
            replicas: None,
        }
    }

    /// Sets the ACL user, which requires a [`password`](RedisConfig::password). Default: the user in the URL, else the
    /// server's default user.
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// Sets the password. Default: the password in the URL, else none.
    pub fn password(self, password: impl Into<Secret>) -> Self {
        Self { password: Some(password.into()), ..self }
    }

    /// Sets the password of the sentinels themselves. Default: none. Has no effect without
    /// [`sentinels`](RedisConfig::sentinels).
    #[cfg(feature = "redis-sentinel")]
    pub fn sentinel_password(mut self, secret: impl Into<Secret>) -> Self {
        if let Topology::Sentinels { password, .. } = &mut self.topology {
            *password = Some(secret.into());
        }
        self
    }

    /// Sets the number of the database. Default: the one in the URL, else 0. A cluster has only database 0.
    pub fn database(self, number: u32) -> Self {
        Self { database: i64::from(number), ..self }
    }

    /// Uses TLS for all servers, as `rediss://` does. Their certificates are checked against the system's root
    /// certificates.
    #[cfg(feature = "redis-tls")]
    pub fn tls(self) -> Self {
        Self { tls: true, ..self }
    }

    /// Uses TLS and trusts these root certificates (PEM, one or more) instead of the system's.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificates(mut self, pem: &str) -> Self {
        self.certificates.roots = Some(pem.to_owned());
        self.tls()
    }

    /// Uses TLS and authenticates with this client certificate (PEM, with its chain) and its private key (PEM).
    #[cfg(feature = "redis-tls")]
    pub fn client_certificate(mut self, certificate: &str, key: impl Into<Secret>) -> Self {
        self.certificates.client = Some((certificate.to_owned(), key.into()));
        self.tls()
    }

    /// Sets the time limit of each step: connecting, sending, waiting for the reply. From 10 to 500 ms; the default is
    /// 250 ms. An operation as a whole takes 500 ms at most. When a step times out and time is left, the operation is
    /// sent again on a new connection.
    pub fn timeout(self, limit: Duration) -> Self {
        Self { timeout: limit, ..self }
    }

    /// Lets [idempotency](crate::idempotency::Idempotency) wait until `count` replicas have confirmed each claim and
    /// each result, for `limit` at most (Redis: `WAIT count limit`). From 1 to 300 ms. Default: no wait.
    ///
    /// Redis replicates asynchronously. Without this setting, a master that fails right after it has answered `begin`
    /// may take the claim with it, and the operation runs again on the new master. With too few confirmations, `begin`
    /// withdraws the claim and returns [`ErrorKind::Store`](crate::ErrorKind::Store), so an operation is never begun
    /// without them. [`run`](crate::idempotency::Idempotency::run) records a result again, and waits again, until
    /// replicas confirm or five seconds have passed.
    ///
    /// `WAIT` makes a loss less likely and does not exclude it: a failover may choose a replica that has not confirmed,
    /// and a replica confirms before it writes to its disk. With one replica, or with as many as there are, only the
    /// second reason is left. Tokens are not affected: a lost token is fetched again. The wait occupies the connection
    /// of the store, so give idempotency a store of its own where tokens must not wait for it. An ACL needs `+wait`.
    pub fn wait_for_replicas(self, count: u32, limit: Duration) -> Self {
        Self { replicas: Some((count, limit)), ..self }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.replicas.is_some_and(|(count, limit)| count == 0 || !(MIN_WAIT..=MAX_WAIT).contains(&limit)) {
            return Err(Error::config("RedisConfig::wait_for_replicas needs at least one replica, and 1 to 300 ms"));
        }
        if !(MIN_TIMEOUT..=MAX_TIMEOUT).contains(&self.timeout) {
            return Err(Error::config("RedisConfig::timeout must be from 10 to 500 ms"));
        }
        if self.user.is_some() && self.password.is_none() {
            return Err(Error::config("a Redis user is set without a password; set one with RedisConfig::password"));
        }
        if self.tls && !cfg!(feature = "redis-tls") {
            return Err(Error::config(NEEDS_TLS));
        }
        if self.database < 0 {
            return Err(Error::config("the database number in the Redis URL is negative; use 0 or above"));
        }
        if let (Topology::Single(Address::Unix(_)), true) = (&self.topology, self.tls) {
            return Err(Error::config(
                "TLS cannot be used over a Unix socket; remove RedisConfig::tls, or connect over TCP",
            ));
        }
        #[cfg(feature = "redis-cluster")]
        if let (Topology::Cluster(_), 1..) = (&self.topology, self.database) {
            return Err(Error::config("a Redis cluster has only database 0; remove RedisConfig::database"));
        }
        self.check_certificates()
    }

    #[cfg(feature = "redis-tls")]
    fn check_certificates(&self) -> Result<(), Error> {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let holds_some = |pem: &str| {
            let mut found = CertificateDer::pem_slice_iter(pem.as_bytes()).peekable();
            found.peek().is_some() && found.all(|certificate| certificate.is_ok())
        };
        let Certificates { roots, client } = &self.certificates;
        if !roots.as_deref().is_none_or(holds_some) {
            return Err(Error::config("RedisConfig::root_certificates contains no PEM certificate, or a damaged one"));
        }
        let Some((certificate, key)) = client else { return Ok(()) };
        if !holds_some(certificate) || PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).is_err() {
            return Err(Error::config("the certificate or the key in RedisConfig::client_certificate is not PEM"));
        }
        Ok(())
    }

    #[cfg(not(feature = "redis-tls"))]
    fn check_certificates(&self) -> Result<(), Error> {
        Ok(())
    }

    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Returns the name of the server, or of the group of servers, for errors that are not about one connection.
    pub(super) fn endpoint(&self) -> Endpoint {
        match &self.topology {
            Topology::Single(address) => Endpoint::Server(address.clone()),
            #[cfg(feature = "redis-sentinel")]
            Topology::Sentinels { nodes, .. } => Endpoint::Sentinels(nodes.clone()),
            #[cfg(feature = "redis-cluster")]
            Topology::Cluster(nodes) => Endpoint::Cluster(nodes.clone()),
        }
    }

    /// Returns whether connecting has steps that no socket timeout bounds, and so needs a helper thread.
    pub(super) fn needs_connect_thread(&self) -> bool {
        match &self.topology {
            Topology::Single(address) => address.needs_resolution(),
            #[cfg(feature = "redis-sentinel")]
            Topology::Sentinels { .. } => true,
            #[cfg(feature = "redis-cluster")]
            Topology::Cluster(_) => true,
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        match self.topology {
            #[cfg(feature = "redis-cluster")]
            Topology::Cluster(_) => true,
            _ => false,
        }
    }

    pub(super) fn command_timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns the time limit of a step that must end by `deadline`.
    pub(super) fn timeout_until(&self, deadline: Deadline) -> Duration {
        self.timeout.min(deadline.remaining())
    }

    pub(super) fn uses_tls(&self) -> bool {
        self.tls
    }

    /// Returns the same settings with TLS or without.
    #[cfg(feature = "redis-tls")]
    pub(super) fn with_tls(&self, tls: bool) -> RedisConfig {
        RedisConfig { tls, ..self.clone() }
    }

    /// Returns how many replicas have to confirm a record of idempotency, and within which time. `None` for none.
    pub(super) fn replicas(&self) -> Option<(u32, Duration)> {
        self.replicas
    }

    /// Returns what the `redis` crate needs to connect to `address` and then send nothing. Its own setup would cost a
    /// round trip to send the library's name, and twice the time limit when the server is silent.
    pub(super) fn connection_info(&self, address: &Address) -> Result<ConnectionInfo, redis::RedisError> {
        let info = match address {
            Address::Tcp(host, port) if self.tls => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
            Address::Tcp(host, port) => ConnectionAddr::Tcp(host.clone(), *port),
            Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
        };
        let settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
        let tcp = TcpSettings::default().set_nodelay(true);
        Ok(info.into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp))
    }

    /// Returns the commands to send on a new connection. Each comes with a text that says what to check when the server
    /// answers with a plain `ERR`.
    pub(super) fn setup_commands(&self) -> impl Iterator<Item = (Cmd, &'static str)> {
        let password = self.password.as_ref().map(|password| authentication(self.user.as_deref(), password));
        let database = (self.database != 0).then(|| {
            let mut select = cmd("SELECT");
            select.arg(self.database);
            select
        });
        let (password, database) = (password.map(|auth| (auth, AUTH_REFUSED)), database.map(|db| (db, SELECT_REFUSED)));
        password.into_iter().chain(database)
    }

    /// Returns the command to send on a new connection to a sentinel. Sentinels have no databases, and not the users of
    /// their master.
    #[cfg(feature = "redis-sentinel")]
    pub(super) fn sentinel_setup_command(&self) -> Option<Cmd> {
        match &self.topology {
            Topology::Sentinels { password, .. } => password.as_ref().map(|password| authentication(None, password)),
            _ => None,
        }
    }

    #[cfg(feature = "redis-tls")]
    pub(super) fn certificates(&self) -> redis::TlsCertificates {
        let client = self.certificates.client.as_ref();
        redis::TlsCertificates {
            root_cert: self.certificates.roots.as_ref().map(|pem| pem.clone().into_bytes()),
            client_tls: client.map(|(certificate, key)| redis::ClientTlsConfig {
                client_cert: certificate.clone().into_bytes(),
                client_key: key.expose().as_bytes().to_vec(),
            }),
        }
    }

    #[cfg(feature = "redis-cluster")]
    pub(super) fn cluster_client(&self, nodes: &[Address]) -> Result<redis::cluster::ClusterClient, redis::RedisError> {
        let nodes: Vec<_> = nodes.iter().map(|node| self.connection_info(node)).collect::<Result<_, _>>()?;
        let mut builder = redis::cluster::ClusterClient::builder(nodes)
            .use_protocol(ProtocolVersion::RESP2)
            .connection_timeout(self.timeout)
            .response_timeout(self.timeout)
            .retries(1)
            .min_retry_wait(1)
            .max_retry_wait(20);
        if let Some(password) = &self.password {
            builder = builder.password(password.expose());
        }
        if let Some(user) = &self.user {
            builder = builder.username(user);
        }
        #[cfg(feature = "redis-tls")]
        if self.tls {
            return builder.tls(redis::cluster::TlsMode::Secure).certs(self.certificates()).build();
        }
        builder.build()
    }
}

fn authentication(user: Option<&str>, password: &Secret) -> Cmd {
    let mut command = cmd("AUTH");
    command.arg(user).arg(password.expose());
    command
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("topology", &self.topology)
            .field("user", &self.user)
            .field("password", &self.password)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .field("timeout", &self.timeout)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}

#[cfg(any(feature = "redis-sentinel", feature = "redis-cluster"))]
fn parse_nodes<N: AsRef<str>>(nodes: impl IntoIterator<Item = N>) -> Result<Vec<Address>, Error> {
    let nodes: Option<Vec<_>> = nodes.into_iter().map(|node| Address::parse(node.as_ref())).collect();
    nodes
        .filter(|nodes| !nodes.is_empty())
        .ok_or_else(|| Error::config("each Redis node must be given as host:port, and at least one is needed"))
}

const NEEDS_TLS: &str = "TLS with Redis needs the feature redis-tls; turn it on, or use redis:// instead of rediss://";

const INVALID_URL: &str = "the Redis URL cannot be parsed; write redis://host:port/database, rediss:// for TLS \
                           (with the feature redis-tls) or redis+unix:///path/of/socket";

const INSECURE_URL: &str = "#insecure in the Redis URL would switch off the check of certificates; remove it, and trust \
                            the server's root with RedisConfig::root_certificates";
const URL_WITH_FRAGMENT: &str = "the Redis URL contains a #, which has no meaning there; write %23 for a # in the user or \
                                 the password";

const AUTH_REFUSED: &str = "did not accept the user and password; it may have no password set, or know no users, as \
                            before Redis 6; check RedisConfig::user and RedisConfig::password";
#[cfg(feature = "redis-sentinel")]
pub(super) const SENTINEL_AUTH_REFUSED: &str =
    "did not accept the password; it may have none set; check RedisConfig::sentinel_password";
const SELECT_REFUSED: &str = "does not have the configured database; check RedisConfig::database";

/// The time limit of a whole operation, from the moment when it gets the connection: connecting, sending, a second
/// attempt.
///
/// Managers wait for one second for an operation, which includes the time in the queue.
pub(super) const OPERATION_TIMEOUT: Duration = Duration::from_millis(500);

/// The bounds of the time that an operation waits for replicas: part of [`OPERATION_TIMEOUT`], and Redis takes zero for
/// an endless wait.
const MIN_WAIT: Duration = Duration::from_millis(1);
const MAX_WAIT: Duration = Duration::from_millis(300);

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(250);
const MIN_TIMEOUT: Duration = Duration::from_millis(10);
const MAX_TIMEOUT: Duration = OPERATION_TIMEOUT;
