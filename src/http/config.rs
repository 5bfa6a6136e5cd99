//! The settings of HTTP requests to providers: time limits, proxy, trusted certificates.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use once_cell::sync::Lazy;
use ureq::http::{HeaderValue, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy};

use super::proxy;
use super::url::PlainHttpHosts;
use crate::error::Error;
use crate::lock::lock;
use crate::secret::Secret;

/// Settings of the HTTP requests to a provider: time limits, proxy, trusted certificates.
///
/// Clones share their connections, and so do all managers of a process whose settings have the same proxy and roots. No
/// connection is opened before the first request.
///
/// A [`ureq::Agent`](crate::ureq::Agent) of your own converts into a configuration. Its connections, TLS settings, proxy
/// and user agent are used; time limits, size limits, the treatment of redirects, and the rule that credentials are sent
/// over HTTPS only, are those of this type.
///
/// ```
/// use std::time::Duration;
/// use evertoken::HttpConfig;
///
/// let http = HttpConfig::default().timeout(Duration::from_secs(3)).proxy("http://proxy.example:3128");
/// ```
#[derive(Clone)]
pub struct HttpConfig {
    pub(super) timeout: Duration,
    pub(super) resolve_timeout: Duration,
    pub(super) connect_timeout: Duration,
    user_agent: Option<String>,
    proxy: ProxyMode,
    roots: Vec<Arc<[u8]>>,
    /// Returns the public root certificates as values. A function pointer, so that only a program that calls
    /// `extra_root_pem` links these half a megabyte beside the copy inside `ureq`.
    public_roots: fn() -> Vec<Certificate<'static>>,
    platform_roots: bool,
    pub(super) plain_http_hosts: PlainHttpHosts,
    custom_agent: Option<Agent>,
    shared: Arc<SharedAgent>,
}

#[derive(Clone)]
enum ProxyMode {
    Environment,
    Direct,
    Proxy(Secret),
}

impl HttpConfig {
    /// Sets how long a whole exchange may take, from the look-up of the name to the last byte. Default: 5 s.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> HttpConfig {
        HttpConfig { timeout, ..self }
    }

    /// Sets how long the look-up of the host's name may take. Default: 2 s.
    #[must_use]
    pub fn resolve_timeout(self, timeout: Duration) -> HttpConfig {
        HttpConfig { resolve_timeout: timeout, ..self }
    }

    /// Sets how long connecting may take, TLS included. Default: 2 s.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> HttpConfig {
        HttpConfig { connect_timeout: timeout, ..self }
    }

    /// Sets the `User-Agent` header. Default: `evertoken/<version>`, or that of the agent given.
    #[must_use]
    pub fn user_agent(self, name: impl Into<String>) -> HttpConfig {
        HttpConfig { user_agent: Some(name.into()), ..self }
    }

    /// Sends requests through this HTTP proxy: `http://user:password@host:port`. Loopback hosts are always reached
    /// directly.
    ///
    /// Default: the proxy that the environment names, read as curl reads it: `https_proxy` or `HTTPS_PROXY` before
    /// `all_proxy` or `ALL_PROXY`, and none for hosts in `no_proxy` or `NO_PROXY` (names with their subdomains, addresses,
    /// networks such as `10.0.0.0/8`, `host:port`, `*`). A variable that names a SOCKS proxy or is no URL is an error that
    /// names the variable.
    #[must_use]
    pub fn proxy(self, url: impl Into<String>) -> HttpConfig {
        HttpConfig { proxy: ProxyMode::Proxy(Secret::new(url)), shared: Arc::default(), ..self }
    }

    /// Uses no proxy, and ignores the environment variables.
    #[must_use]
    pub fn no_proxy(self) -> HttpConfig {
        HttpConfig { proxy: ProxyMode::Direct, shared: Arc::default(), ..self }
    }

    /// Sends credentials to `host` **in plain HTTP**, if the URL of a provider says `http://`: everybody on the way can read
    /// and change them. For a host inside a cluster or a compose network, whose traffic never leaves the machine or is
    /// encrypted below HTTP. Call again to add more hosts. Default: none.
    ///
    /// `host` is a name or an address as the URL has it, without scheme and port. Plain HTTP to loopback is always allowed.
    /// A request in plain HTTP never goes through a proxy.
    ///
    /// ```
    /// use evertoken::{HttpConfig, OAuth2, TokenManager};
    ///
    /// let provider = OAuth2::new("http://keycloak:8080/token", "client-id", "client-secret");
    /// let tokens = TokenManager::builder(provider).http(HttpConfig::default().plain_http_to("keycloak")).build()?;
    /// # Ok::<(), evertoken::Error>(())
    /// ```
    #[must_use]
    pub fn plain_http_to(mut self, host: impl AsRef<str>) -> HttpConfig {
        self.plain_http_hosts.add(host.as_ref());
        self
    }

    /// Trusts the certificates in this PEM text in addition to the public ones. Further calls add more.
    #[must_use]
    pub fn extra_root_pem(mut self, pem: impl AsRef<[u8]>) -> HttpConfig {
        self.roots.push(pem.as_ref().into());
        HttpConfig { public_roots, shared: Arc::default(), ..self }
    }

    /// Trusts the certificates that this machine trusts, instead of the public ones that are compiled in.
    #[cfg(feature = "platform-roots")]
    #[must_use]
    pub fn platform_roots(self) -> HttpConfig {
        HttpConfig { platform_roots: true, shared: Arc::default(), ..self }
    }

    /// Returns the defaults, which all managers without settings of their own share.
    pub(crate) fn shared_default() -> Arc<HttpConfig> {
        static SHARED: Lazy<Arc<HttpConfig>> = Lazy::new(Arc::default);
        SHARED.clone()
    }

    /// Checks the settings. Opens no connection.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if [self.timeout, self.resolve_timeout, self.connect_timeout].contains(&Duration::ZERO) {
            return Err(Error::config(
                "an HTTP timeout of zero leaves no time for a request; use at least a few seconds",
            ));
        }
        let is_unchanged =
            matches!(self.proxy, ProxyMode::Environment) && self.roots.is_empty() && !self.platform_roots;
        if self.custom_agent.is_some() && !is_unchanged {
            let text = "proxy and root certificates of an agent of your own are set on the agent, not on HttpConfig";
            return Err(Error::config(text));
        }
        if !self.plain_http_hosts.are_hosts() {
            return Err(Error::config(
                "a host of plain_http_to is no host name or address; write it without scheme, port and path",
            ));
        }
        self.user_agent_value()?;
        if let ProxyMode::Proxy(url) = &self.proxy {
            proxy::from_setting(url.expose())?;
        }
        self.tls().map(drop)
    }

    /// Runs the checks of a provider that will use this configuration: plain HTTP to the hosts of
    /// [`plain_http_to`](HttpConfig::plain_http_to) passes.
    pub(crate) fn allowing_plain_http<T>(&self, check: impl FnOnce() -> T) -> T {
        self.plain_http_hosts.during(check)
    }

    /// Returns how long a whole exchange may take.
    pub(crate) fn whole_timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn agent(&self) -> Result<Agent, Error> {
        self.shared.agent(std::process::id(), || self.build())
    }

    fn build(&self) -> Result<Agent, Error> {
        if let Some(agent) = &self.custom_agent {
            return Ok(agent.config().new_agent());
        }
        // The proxy is chosen for each request, because the environment names exceptions by host.
        Ok(Agent::config_builder().tls_config(self.tls()?).proxy(None).build().new_agent())
    }

    /// Returns the proxy for a request to `uri`.
    pub(super) fn proxy_for(&self, agent: &Agent, uri: &Uri) -> Result<Option<Proxy>, Error> {
        if self.custom_agent.is_some() {
            let proxy = agent.config().proxy().filter(|proxy| !proxy.is_no_proxy(uri));
            return proxy.map(proxy::of_custom_agent).transpose();
        }
        match &self.proxy {
            ProxyMode::Environment => proxy::from_environment(uri),
            ProxyMode::Direct => Ok(None),
            ProxyMode::Proxy(url) => proxy::from_setting(url.expose()).map(Some),
        }
    }

    fn tls(&self) -> Result<TlsConfig, Error> {
        let config = TlsConfig::builder();
        if self.platform_roots && !self.roots.is_empty() {
            return Err(Error::config(
                "extra_root_pem and platform_roots exclude each other; add the root to this machine",
            ));
        }
        if self.platform_roots {
            return Ok(config.root_certs(RootCerts::PlatformVerifier).build());
        }
        if self.roots.is_empty() {
            return Ok(config.build());
        }
        let mut roots = (self.public_roots)();
        for pem in &self.roots {
            roots.extend(certificates(pem)?);
        }
        Ok(config.root_certs(RootCerts::from(roots)).build())
    }

    /// Returns the `User-Agent` to set, unless a custom agent sets its own.
    pub(super) fn user_agent_value(&self) -> Result<Option<HeaderValue>, Error> {
        let default = self.custom_agent.is_none().then_some(USER_AGENT);
        let Some(name) = self.user_agent.as_deref().or(default) else { return Ok(None) };
        HeaderValue::from_str(name)
            .map(Some)
            .map_err(|_| Error::config("the user agent must be one line of printable text"))
    }
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        static SHARED: Lazy<Arc<SharedAgent>> = Lazy::new(Arc::default);
        HttpConfig {
            timeout: Duration::from_secs(5),
            resolve_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            user_agent: None,
            proxy: ProxyMode::Environment,
            roots: Vec::new(),
            public_roots: Vec::new,
            platform_roots: false,
            plain_http_hosts: PlainHttpHosts::default(),
            custom_agent: None,
            shared: SHARED.clone(),
        }
    }
}

impl From<Agent> for HttpConfig {
    fn from(agent: Agent) -> HttpConfig {
        let shared = SharedAgent(Mutex::new(Some((std::process::id(), agent.clone()))));
        HttpConfig { custom_agent: Some(agent), shared: Arc::new(shared), ..HttpConfig::default() }
    }
}

impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proxy = match self.proxy {
            ProxyMode::Environment => "from the environment",
            ProxyMode::Direct => "none",
            ProxyMode::Proxy(_) => "set",
        };
        f.debug_struct("HttpConfig")
            .field("timeout", &self.timeout)
            .field("resolve_timeout", &self.resolve_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("user_agent", &self.user_agent)
            .field("proxy", &proxy)
            .field("extra_roots", &self.roots.len())
            .field("platform_roots", &self.platform_roots)
            .field("plain_http_hosts", &self.plain_http_hosts)
            .field("custom_agent", &self.custom_agent.is_some())
            .finish()
    }
}

/// The agent that clones of a configuration share, with the id of the process that built it.
#[derive(Default)]
struct SharedAgent(Mutex<Option<(u32, Agent)>>);

impl SharedAgent {
    /// Returns the agent of process `pid`. A forked child builds its own and forgets the parent's without closing it: the
    /// sockets belong to both processes, and two processes on one connection would read each other's responses.
    fn agent(&self, pid: u32, build: impl FnOnce() -> Result<Agent, Error>) -> Result<Agent, Error> {
        let mut shared = lock(&self.0);
        if let Some((builder, agent)) = &*shared
            && *builder == pid
        {
            return Ok(agent.clone());
        }
        let agent = build()?;
        *shared = Some((pid, agent.clone()));
        Ok(agent)
    }
}

fn public_roots() -> Vec<Certificate<'static>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|root| Certificate::from_der(root)).collect()
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, Error> {
    let invalid = || Error::config("a certificate given to extra_root_pem is not valid PEM");
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| invalid())? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(invalid()) } else { Ok(found) }
}

const USER_AGENT: &str = concat!("evertoken/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn an_agent_is_built_once_in_each_process() {
        let shared = SharedAgent::default();
        let mut built = 0;
        for pid in [1, 1, 2, 2] {
            let agent = shared.agent(pid, || {
                built += 1;
                Ok(Agent::new_with_defaults())
            });
            assert!(agent.is_ok());
        }
        assert_eq!(built, 2);
    }

    #[test]
    fn default_configurations_and_clones_share_one_agent() {
        let (one, other) = (HttpConfig::default(), HttpConfig::default().timeout(Duration::from_secs(1)));
        assert!(Arc::ptr_eq(&one.shared, &other.shared));
        let apart = one.clone().no_proxy();
        assert!(!Arc::ptr_eq(&one.shared, &apart.shared) && Arc::ptr_eq(&apart.shared, &apart.clone().shared));
    }

    #[test]
    fn errors_about_wrong_settings_do_not_quote_them() {
        let config = HttpConfig::default;
        for wrong in [
            config().timeout(Duration::ZERO),
            config().resolve_timeout(Duration::ZERO),
            config().connect_timeout(Duration::ZERO),
            config().proxy("http://user:hunter2@ho st"),
            config().proxy("socks5://user:hunter2@host"),
            config().user_agent("hunter2\r\nx: y"),
            config().extra_root_pem("hunter2"),
            config().extra_root_pem("-----BEGIN CERTIFICATE-----\n*hunter2*\n-----END CERTIFICATE-----\n"),
            HttpConfig::from(Agent::new_with_defaults()).no_proxy(),
        ] {
            let error = wrong.check().expect_err("a wrong setting");
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        assert!(config().proxy("http://user:hunter2@host:3128").check().is_ok());
        assert!(!format!("{:?}", config().proxy("http://user:hunter2@host")).contains("hunter2"));
        assert!(HttpConfig::from(Agent::new_with_defaults()).check().is_ok());
    }

    #[test]
    fn extra_roots_are_trusted_in_addition_to_the_public_ones() {
        let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
        let body = base64::engine::general_purpose::STANDARD.encode(&public[0]);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let tls = HttpConfig::default().extra_root_pem(&pem).extra_root_pem(pem.as_bytes()).tls();
        match tls.expect("readable PEM").root_certs() {
            RootCerts::Specific(roots) => assert_eq!(roots.len(), public.len() + 2),
            other => panic!("{other:?}"),
        }
    }
}
