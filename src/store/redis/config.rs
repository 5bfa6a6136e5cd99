//! Where a Redis is, and how it is reached.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, cmd};

use crate::clock::Deadline;
use crate::error::Error;
use crate::secret::Secret;

/// Where a Redis (or Valkey) is, and how it is reached. `Debug` shows the address and the user, not the password.
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
}

/// How the servers stand together.
#[derive(Clone, Debug)]
pub(super) enum Topology {
    One(Address),
    #[cfg(feature = "redis-sentinel")]
    Sentinels {
        nodes: Vec<Address>,
        service: String,
        password: Option<Secret>,
    },
    #[cfg(feature = "redis-cluster")]
    Cluster(Vec<Address>),
}

/// The address of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(String, u16),
    Unix(PathBuf),
}

#[cfg(feature = "redis-tls")]
#[derive(Clone, Default)]
struct Certificates {
    roots: Option<String>,
    client: Option<(String, Secret)>,
}

impl RedisConfig {
    /// One server, by its URL: `redis://[user:password@]host[:port][/database]` (or `valkey://`), `rediss://` for TLS (feature
    /// `redis-tls`), or `redis+unix:///path/of/socket?db=0&user=..&pass=..`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when it is none of these, or has `#insecure`. The text never
    /// quotes the URL. Whether the feature `redis-tls` is on is checked by [`RedisStore::new`](crate::RedisStore::new).
    pub fn from_url(url: &str) -> Result<RedisConfig, Error> {
        let told = url.into_connection_info().map_err(|_| Error::config(NO_URL))?;
        let (place, tls) = match told.addr() {
            ConnectionAddr::Tcp(host, port) => (Address::Tcp(host.clone(), *port), false),
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                return Err(Error::config("#insecure in a Redis URL would switch the check of certificates off"));
            }
            ConnectionAddr::TcpTls { host, port, .. } => (Address::Tcp(host.clone(), *port), true),
            ConnectionAddr::Unix(path) => (Address::Unix(path.clone()), false),
            _ => return Err(Error::config(NO_URL)),
        };
        let settings = told.redis_settings();
        Ok(RedisConfig {
            user: settings.username().map(str::to_owned),
            password: settings.password().map(Secret::from),
            database: settings.db(),
            tls,
            ..RedisConfig::of(Topology::One(place))
        })
    }

    /// The master that the sentinels at `nodes` (`host:port`) know as `service`. Asks them in turn, and again whenever
    /// the master is lost or demoted.
    ///
    /// # Errors
    ///
    /// As [`from_url`](RedisConfig::from_url), when a node is not `host:port` or there is none.
    #[cfg(feature = "redis-sentinel")]
    pub fn sentinels<N: AsRef<str>>(nodes: impl IntoIterator<Item = N>, service: &str) -> Result<RedisConfig, Error> {
        let topology = Topology::Sentinels { nodes: places(nodes)?, service: service.to_owned(), password: None };
        Ok(RedisConfig::of(topology))
    }

    /// A cluster, of which some nodes are at `nodes` (`host:port`). All keys of a credential are in one slot.
    ///
    /// # Errors
    ///
    /// As [`from_url`](RedisConfig::from_url), when a node is not `host:port` or there is none.
    #[cfg(feature = "redis-cluster")]
    pub fn cluster<N: AsRef<str>>(nodes: impl IntoIterator<Item = N>) -> Result<RedisConfig, Error> {
        Ok(RedisConfig::of(Topology::Cluster(places(nodes)?)))
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
        }
    }

    /// The ACL user, who needs a [`password`](RedisConfig::password) too. Default: the URL's, else Redis' own default user.
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// The password. Default: the URL's, else none.
    pub fn password(self, password: impl Into<Secret>) -> Self {
        Self { password: Some(password.into()), ..self }
    }

    /// The password of the sentinels, if they have one of their own. Without sentinels it means nothing.
    #[cfg(feature = "redis-sentinel")]
    pub fn sentinel_password(mut self, secret: impl Into<Secret>) -> Self {
        if let Topology::Sentinels { password, .. } = &mut self.topology {
            *password = Some(secret.into());
        }
        self
    }

    /// The number of the database. Default: the URL's, else 0. A cluster has only that one.
    pub fn database(self, number: u32) -> Self {
        Self { database: i64::from(number), ..self }
    }

    /// Speaks TLS with all nodes, as `rediss://` does. The certificate is checked against the system's root
    /// certificates.
    #[cfg(feature = "redis-tls")]
    pub fn tls(self) -> Self {
        Self { tls: true, ..self }
    }

    /// Speaks TLS and trusts these root certificates (PEM, one or more) instead of the system's.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificates(mut self, pem: &str) -> Self {
        self.certificates.roots = Some(pem.to_owned());
        self.tls()
    }

    /// Speaks TLS and shows the server this certificate (PEM, with its chain) and proves it with this key (PEM).
    #[cfg(feature = "redis-tls")]
    pub fn client_certificate(mut self, certificate: &str, key: impl Into<Secret>) -> Self {
        self.certificates.client = Some((certificate.to_owned(), key.into()));
        self.tls()
    }

    /// How long connecting, sending, and waiting for an answer may take, each; from 10 to 500 ms. Default: 250 ms. An
    /// operation as a whole takes 500 ms at most; when there is time left, one that got no answer is tried again.
    pub fn timeout(self, limit: Duration) -> Self {
        Self { timeout: limit, ..self }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if !(MIN_TIMEOUT..=MAX_TIMEOUT).contains(&self.timeout) {
            return Err(Error::config("the time limit of Redis must be from 10 to 500 ms"));
        }
        if self.user.is_some() && self.password.is_none() {
            return Err(Error::config("a Redis user needs a password too"));
        }
        if self.tls && !cfg!(feature = "redis-tls") {
            return Err(Error::config("to reach a Redis over TLS turn the feature redis-tls on"));
        }
        if self.database < 0 {
            return Err(Error::config("the number of a Redis database is not negative"));
        }
        if let (Topology::One(Address::Unix(_)), true) = (&self.topology, self.tls) {
            return Err(Error::config("there is no TLS over a Unix socket"));
        }
        #[cfg(feature = "redis-cluster")]
        if let (Topology::Cluster(_), 1..) = (&self.topology, self.database) {
            return Err(Error::config("a Redis cluster has the database 0 only"));
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
            return Err(Error::config("the root certificates of Redis are not PEM"));
        }
        let Some((certificate, key)) = client else { return Ok(()) };
        if !holds_some(certificate) || PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).is_err() {
            return Err(Error::config("the client certificate of Redis, or its key, is not PEM"));
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

    /// True when connecting has parts that no time limit of a socket bounds.
    pub(super) fn needs_connect_thread(&self) -> bool {
        match &self.topology {
            Topology::One(place) => place.has_name(),
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

    /// The same, but no longer than until `deadline`.
    pub(super) fn timeout_until(&self, deadline: Deadline) -> Duration {
        self.timeout.min(deadline.remaining())
    }

    #[cfg(feature = "redis-tls")]
    pub(super) fn uses_tls(&self) -> bool {
        self.tls
    }

    /// What the `redis` crate needs to reach `place`, and to say nothing there: not even its name, which would cost a
    /// round trip and, when the server is silent, twice the time limit.
    pub(super) fn connection_info(&self, place: &Address) -> Result<ConnectionInfo, redis::RedisError> {
        let address = match place {
            Address::Tcp(host, port) if self.tls => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
            Address::Tcp(host, port) => ConnectionAddr::Tcp(host.clone(), *port),
            Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
        };
        let settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
        let tcp = TcpSettings::default().set_nodelay(true);
        Ok(address.into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp))
    }

    /// What is to be said on a new connection.
    pub(super) fn setup_commands(&self) -> impl Iterator<Item = Cmd> {
        let password = self.password.as_ref().map(|password| authentication(self.user.as_deref(), password));
        let database = (self.database != 0).then(|| {
            let mut select = cmd("SELECT");
            select.arg(self.database);
            select
        });
        password.into_iter().chain(database)
    }

    /// The same for a sentinel, which has neither databases nor the users of its master.
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
            .finish_non_exhaustive()
    }
}

impl Address {
    /// True when its address has to be looked up.
    fn has_name(&self) -> bool {
        matches!(self, Address::Tcp(host, _) if host.parse::<IpAddr>().is_err())
    }

    /// From `host:port`; an IPv6 address stands in brackets.
    #[cfg(any(feature = "redis-sentinel", feature = "redis-cluster"))]
    pub(super) fn parse(text: &str) -> Option<Address> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'%');
        let fits = !host.is_empty() && host.bytes().all(plain);
        fits.then_some(Address::Tcp(host.to_owned(), port.parse().ok()?))
    }
}

#[cfg(any(feature = "redis-sentinel", feature = "redis-cluster"))]
fn places<N: AsRef<str>>(nodes: impl IntoIterator<Item = N>) -> Result<Vec<Address>, Error> {
    let places: Option<Vec<_>> = nodes.into_iter().map(|node| Address::parse(node.as_ref())).collect();
    places
        .filter(|places| !places.is_empty())
        .ok_or_else(|| Error::config("the Redis nodes must be given as host:port, at least one"))
}

const NO_URL: &str = "the Redis URL cannot be read: it is redis://host:port/database, rediss:// (with the feature \
                      redis-tls) or redis+unix:///path";

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(250);
const MIN_TIMEOUT: Duration = Duration::from_millis(10);
const MAX_TIMEOUT: Duration = Duration::from_millis(500);
