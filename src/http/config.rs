//! How providers are reached: time limits, proxy, trusted certificates.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use once_cell::sync::Lazy;
use ureq::http::HeaderValue;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy};

use crate::error::Error;
use crate::lock::lock;
use crate::secret::Secret;

/// How providers are reached.
///
/// Clones share their connections, and so do all managers of a process that change neither proxy nor roots. Nothing
/// is opened before the first request.
///
/// A `ureq::Agent` of your own can be handed in instead: it lends its connections, TLS settings, proxy and user
/// agent. Time limits, size limits, redirects and the rule that credentials travel by HTTPS only stay as they are
/// here.
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
    way: Way,
    roots: Vec<Arc<[u8]>>,
    /// Gives the public certificates. They are half a megabyte, so only a program that adds to them links them twice.
    public_roots: fn() -> Vec<Certificate<'static>>,
    platform_roots: bool,
    lent: Option<Agent>,
    shared: Arc<SharedAgent>,
}

#[derive(Clone)]
enum Way {
    Environment,
    Direct,
    Proxy(Secret),
}

impl HttpConfig {
    /// How long a whole exchange may take, from the look-up of the name to the last byte. Default: 5 s.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> HttpConfig {
        HttpConfig { timeout, ..self }
    }

    /// How long the look-up of the host's name may take. Default: 2 s.
    #[must_use]
    pub fn resolve_timeout(self, timeout: Duration) -> HttpConfig {
        HttpConfig { resolve_timeout: timeout, ..self }
    }

    /// How long connecting may take, TLS included. Default: 2 s.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> HttpConfig {
        HttpConfig { connect_timeout: timeout, ..self }
    }

    /// What the `User-Agent` header says. Default: `evertoken/<version>`, or what a lent agent says.
    #[must_use]
    pub fn user_agent(self, name: impl Into<String>) -> HttpConfig {
        HttpConfig { user_agent: Some(name.into()), ..self }
    }

    /// Goes through this HTTP proxy: `http://user:password@host:port`. Default: what `ALL_PROXY`, `HTTPS_PROXY`,
    /// `HTTP_PROXY` and `NO_PROXY` say (no SOCKS). Loopback hosts are always reached directly.
    #[must_use]
    pub fn proxy(self, url: impl Into<String>) -> HttpConfig {
        HttpConfig { way: Way::Proxy(Secret::new(url)), shared: Arc::default(), ..self }
    }

    /// Goes through no proxy, whatever the environment says.
    #[must_use]
    pub fn no_proxy(self) -> HttpConfig {
        HttpConfig { way: Way::Direct, shared: Arc::default(), ..self }
    }

    /// Trusts the certificates in this PEM text too, beside the public ones. May be called again for more.
    #[must_use]
    pub fn extra_root_pem(mut self, pem: impl AsRef<[u8]>) -> HttpConfig {
        self.roots.push(pem.as_ref().into());
        HttpConfig { public_roots, shared: Arc::default(), ..self }
    }

    /// Trusts what this machine trusts, instead of the public certificates that are built in.
    #[cfg(feature = "platform-roots")]
    #[must_use]
    pub fn platform_roots(self) -> HttpConfig {
        HttpConfig { platform_roots: true, shared: Arc::default(), ..self }
    }

    /// The defaults, as all managers share them that change nothing.
    pub(crate) fn usual() -> Arc<HttpConfig> {
        static USUAL: Lazy<Arc<HttpConfig>> = Lazy::new(Arc::default);
        USUAL.clone()
    }

    /// Says what is wrong with the settings. Opens no socket.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if [self.timeout, self.resolve_timeout, self.connect_timeout].contains(&Duration::ZERO) {
            return Err(Error::config("an HTTP time limit of zero leaves no time to ask"));
        }
        let own = matches!(self.way, Way::Environment) && self.roots.is_empty() && !self.platform_roots;
        if self.lent.is_some() && !own {
            return Err(Error::config("a lent agent's proxy and roots are set on the agent itself"));
        }
        self.user_agent_value()?;
        self.named_proxy()?;
        self.tls().map(drop)
    }

    /// How long a whole exchange may take.
    pub(crate) fn whole_timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn agent(&self) -> Result<Agent, Error> {
        self.shared.agent(std::process::id(), || self.build())
    }

    fn build(&self) -> Result<Agent, Error> {
        if let Some(agent) = &self.lent {
            return Ok(agent.config().new_agent());
        }
        let config = Agent::config_builder().tls_config(self.tls()?);
        let config = match self.way {
            Way::Environment => config,
            Way::Direct | Way::Proxy(_) => config.proxy(self.named_proxy()?),
        };
        Ok(config.build().new_agent())
    }

    fn named_proxy(&self) -> Result<Option<Proxy>, Error> {
        use ureq::ProxyProtocol::{Http, Https};
        let Way::Proxy(url) = &self.way else { return Ok(None) };
        let proxy = Proxy::new(url.expose()).map_err(|_| Error::config("the proxy's URL cannot be read"))?;
        match proxy.protocol() {
            Http | Https => Ok(Some(proxy)),
            _ => Err(Error::config("the proxy must be an http or https one")),
        }
    }

    fn tls(&self) -> Result<TlsConfig, Error> {
        let config = TlsConfig::builder();
        if self.platform_roots && !self.roots.is_empty() {
            return Err(Error::config("with the platform's roots, further roots are added to the platform"));
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

    /// What to say instead of what the agent says.
    pub(super) fn user_agent_value(&self) -> Result<Option<HeaderValue>, Error> {
        let own = self.lent.is_none().then_some(USER_AGENT);
        let Some(name) = self.user_agent.as_deref().or(own) else { return Ok(None) };
        HeaderValue::from_str(name)
            .map(Some)
            .map_err(|_| Error::config("the user agent must be one line of plain text"))
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
            way: Way::Environment,
            roots: Vec::new(),
            public_roots: Vec::new,
            platform_roots: false,
            lent: None,
            shared: SHARED.clone(),
        }
    }
}

impl From<Agent> for HttpConfig {
    fn from(agent: Agent) -> HttpConfig {
        let shared = SharedAgent(Mutex::new(Some((std::process::id(), agent.clone()))));
        HttpConfig { lent: Some(agent), shared: Arc::new(shared), ..HttpConfig::default() }
    }
}

impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            Way::Environment => "from the environment",
            Way::Direct => "none",
            Way::Proxy(_) => "named",
        };
        f.debug_struct("HttpConfig")
            .field("timeout", &self.timeout)
            .field("resolve_timeout", &self.resolve_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("user_agent", &self.user_agent)
            .field("proxy", &way)
            .field("extra_roots", &self.roots.len())
            .field("platform_roots", &self.platform_roots)
            .field("lent", &self.lent.is_some())
            .finish()
    }
}

/// Holds the agent that clones of a configuration share, and the process that it was built in.
#[derive(Default)]
struct SharedAgent(Mutex<Option<(u32, Agent)>>);

impl SharedAgent {
    /// The agent of process `pid`. After a fork the parent's is forgotten, not shut down: its sockets are the
    /// parent's too, and two processes on one connection read each other's answers.
    fn agent(&self, pid: u32, build: impl FnOnce() -> Result<Agent, Error>) -> Result<Agent, Error> {
        let mut held = lock(&self.0);
        if let Some((builder, agent)) = &*held
            && *builder == pid
        {
            return Ok(agent.clone());
        }
        let agent = build()?;
        *held = Some((pid, agent.clone()));
        Ok(agent)
    }
}

fn public_roots() -> Vec<Certificate<'static>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|root| Certificate::from_der(root)).collect()
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, Error> {
    let unreadable = || Error::config("an extra root certificate is not readable PEM");
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| unreadable())? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(unreadable()) } else { Ok(found) }
}

const USER_AGENT: &str = concat!("evertoken/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn an_agent_is_built_once_for_a_process_and_anew_after_a_fork() {
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
    fn wrong_settings_are_told_without_quoting_them() {
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
    fn an_extra_root_is_trusted_beside_the_public_ones() {
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
