//! The way to a provider: blocking, bounded in time and size, and silent about what it carries.

use std::fmt;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use once_cell::sync::Lazy;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use ureq::http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, AsSendBody, Body, Proxy, Timeout};
use zeroize::Zeroizing;

use crate::clock::{Deadline, Time};
use crate::error::{Error, ErrorKind};
use crate::lock::lock;
use crate::policy::MAX_LIFETIME;
use crate::secret::Secret;

pub(crate) use ureq::http::HeaderMap;

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
    timeout: Duration,
    resolve_timeout: Duration,
    connect_timeout: Duration,
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

    fn agent(&self) -> Result<Agent, Error> {
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
    fn user_agent_value(&self) -> Result<Option<HeaderValue>, Error> {
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

/// Sends requests for a provider.
///
/// HTTPS only, except to loopback; no redirects; a time limit for the whole exchange; replies of at most 64 KiB. Its
/// errors tell neither address nor content.
#[derive(Clone)]
pub struct Http {
    config: Arc<HttpConfig>,
    deadline: Option<Deadline>,
}

impl Http {
    pub(crate) fn new(config: Arc<HttpConfig>) -> Http {
        Http { config, deadline: None }
    }

    /// The same, with every exchange over by `deadline`.
    pub(crate) fn until(&self, deadline: Deadline) -> Http {
        let deadline = self.deadline.map_or(deadline, |earlier| earlier.min(deadline));
        Http { config: self.config.clone(), deadline: Some(deadline) }
    }

    /// A GET request.
    pub fn get(&self, url: &str) -> TokenRequest {
        TokenRequest::new(self.clone(), Method::GET, url)
    }

    /// A POST request with `body` as JSON.
    pub fn post_json(&self, url: &str, body: &impl serde::Serialize) -> TokenRequest {
        let request = TokenRequest::new(self.clone(), Method::POST, url).header("content-type", "application/json");
        match serde_json::to_vec(body) {
            Ok(bytes) => request.body(bytes),
            Err(_) => request.fault("the request's body cannot be written as JSON"),
        }
    }

    /// A POST request with `fields` as a form.
    pub fn post_form(&self, url: &str, fields: &[(&str, &str)]) -> TokenRequest {
        let pair = |(name, value): &(&str, &str)| format!("{}={}", *form_encoded(name), *form_encoded(value));
        let pairs = Zeroizing::new(fields.iter().map(pair).collect::<Vec<_>>());
        TokenRequest::new(self.clone(), Method::POST, url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(pairs.join("&").into_bytes())
    }

    /// What is left of the time for an exchange.
    fn time_left(&self) -> Result<Duration, Error> {
        let left = self.deadline.map_or(Duration::MAX, Deadline::remaining);
        match left.min(self.config.timeout) {
            Duration::ZERO => Err(Error::new(ErrorKind::TimedOut, "no time was left to ask the provider")),
            left => Ok(left),
        }
    }

    /// `direct` is for what a proxy must never see.
    fn exchange(&self, mut request: Request<impl AsSendBody>, direct: bool) -> Result<Response<Body>, Error> {
        let secure = request.uri().scheme_str() == Some("https");
        let direct = direct || request.uri().host().is_some_and(is_loopback);
        let time_left = self.time_left()?;
        if let Some(name) = self.config.user_agent_value()? {
            request.headers_mut().insert(header::USER_AGENT, name);
        }
        let agent = self.config.agent()?;
        if !direct {
            refuse_socks(&agent, request.uri())?;
        }
        let limits = agent
            .configure_request(request)
            .timeout_global(Some(time_left))
            .timeout_resolve(Some(self.config.resolve_timeout.min(time_left)))
            .timeout_connect(Some(self.config.connect_timeout.min(time_left)))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .https_only(secure);
        let limits = if direct { limits.proxy(None) } else { limits };
        agent.run(limits.build()).map_err(|cause| error_of(&cause))
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A request that is being put together.
///
/// A mistake in it, such as a header value with a line break, is told by [`send`](TokenRequest::send).
#[must_use = "it is sent by `send`"]
pub struct TokenRequest {
    http: Http,
    method: Method,
    url: String,
    query: Zeroizing<String>,
    headers: HeaderMap,
    body: Option<Zeroizing<Vec<u8>>>,
    link_local: bool,
    fault: Option<Error>,
}

impl TokenRequest {
    fn new(http: Http, method: Method, url: &str) -> TokenRequest {
        let (url, query) = url.split_once('?').unwrap_or((url, ""));
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        // A compressed reply could be a thousand times as large as it looks.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let query = Zeroizing::new(query.to_owned());
        TokenRequest { http, method, url: url.to_owned(), query, headers, body: None, link_local: false, fault: None }
    }

    /// Adds a parameter to the query.
    pub fn query(mut self, name: &str, value: &str) -> TokenRequest {
        if !self.query.is_empty() {
            self.query.push('&');
        }
        self.query.push_str(&query_encoded(name));
        self.query.push('=');
        self.query.push_str(&query_encoded(value));
        self
    }

    /// Sets a header. Its value is treated as a secret.
    pub fn header(mut self, name: &str, value: &str) -> TokenRequest {
        let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) else {
            return self.fault("a header of the request has a name or a value that HTTP does not allow");
        };
        value.set_sensitive(true);
        self.headers.insert(name, value);
        self
    }

    /// Signs in with `id` and `secret` as they are (HTTP Basic).
    pub fn basic(self, id: &str, secret: &Secret) -> TokenRequest {
        let pair = Zeroizing::new(format!("{id}:{}", secret.expose()));
        let pair = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
        self.header("authorization", &Zeroizing::new(format!("Basic {}", *pair)))
    }

    /// Signs in with a token.
    pub fn bearer(self, token: &Secret) -> TokenRequest {
        self.header("authorization", &Zeroizing::new(format!("Bearer {}", token.expose())))
    }

    /// Asks a service of this very machine or its host, such as a cloud's for its machines: plain HTTP is allowed to an
    /// address that no router passes on (169.254.0.0/16), and no proxy is used whatever the address is.
    pub(crate) fn link_local(self) -> TokenRequest {
        TokenRequest { link_local: true, ..self }
    }

    /// Sends it and reads the reply, whatever its status. Blocks up to the time limit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] and [`ErrorKind::Unavailable`] when there is no reply; [`ErrorKind::InvalidResponse`] when it
    /// is too large, a redirect, or not HTTP; [`ErrorKind::Config`] when the address is not one that a credential may
    /// be sent to.
    pub fn send(mut self) -> Result<TokenResponse, Error> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let mut request = Request::new(());
        *request.uri_mut() = self.address()?;
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        let response = match self.body {
            Some(body) => self.http.exchange(request.map(|()| body.as_slice()), self.link_local),
            None => self.http.exchange(request, self.link_local),
        };
        TokenResponse::read(response?)
    }

    /// The whole address, put together only now and kept nowhere.
    fn address(&self) -> Result<Uri, Error> {
        let mark = if self.query.is_empty() { "" } else { "?" };
        let near = if self.link_local { is_link_local } else { is_loopback };
        address(&Zeroizing::new([&self.url, mark, &self.query].concat()), near).map_err(Error::config)
    }

    fn body(self, body: Vec<u8>) -> TokenRequest {
        TokenRequest { body: Some(Zeroizing::new(body)), ..self }
    }

    fn fault(self, text: &'static str) -> TokenRequest {
        TokenRequest { fault: Some(Error::config(text)), ..self }
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = self.headers.keys().collect::<Vec<_>>();
        f.debug_struct("TokenRequest").field("method", &self.method).field("headers", &headers).finish_non_exhaustive()
    }
}

/// A provider's reply, read to its end.
pub struct TokenResponse {
    status: u16,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
}

impl TokenResponse {
    fn read(response: Response<Body>) -> Result<TokenResponse, Error> {
        let (head, mut body) = response.into_parts();
        let status = head.status.as_u16();
        if head.status.is_redirection() {
            // Followed, it would carry the credential to wherever it points.
            return Err(Error::invalid_response("the provider answered with a redirect").with_status(status));
        }
        // All of it at once: a buffer that grows leaves copies of a token behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST_REPLY + 1));
        let read = body.as_reader().take(LONGEST_REPLY as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|cause| error_of(&ureq::Error::from(cause)).with_status(status))?;
        if bytes.len() > LONGEST_REPLY {
            return Err(Error::invalid_response("the provider's reply is larger than 64 KiB").with_status(status));
        }
        Ok(TokenResponse { status, headers: head.headers, body: bytes })
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// True for a status from 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A header's value, when it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// How long the provider asks to wait (`Retry-After`, in seconds or as a date).
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers)
    }

    /// What the HTTP status alone says: the kind of trouble, the status, and how long the provider asks to wait.
    pub fn status_error(&self) -> Error {
        let (kind, text) = match self.status {
            401 => (ErrorKind::InvalidCredentials, "the credential was refused"),
            403 => (ErrorKind::Forbidden, "the credential is not allowed here"),
            429 => (ErrorKind::Throttled, "there were too many calls"),
            408 | 425 | 500..=599 => (ErrorKind::Unavailable, "the provider is busy or broken"),
            _ => (ErrorKind::InvalidResponse, "the provider's answer makes no sense"),
        };
        let error = Error::new(kind, text).with_status(self.status);
        match self.retry_after() {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }

    /// The body as a JSON object.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidResponse`] when it is anything else: another kind of JSON, a page, nothing.
    pub fn json(&self) -> Result<Json, Error> {
        let no_object =
            |_| Error::invalid_response("the provider's reply is not a JSON object").with_status(self.status);
        let json = serde_json::from_slice(&self.body).or_else(|_| {
            // Vendors let letters slip into their texts for people that JSON does not allow.
            let text = Zeroizing::new(String::from_utf8_lossy(&self.body).replace(char::is_control, " "));
            serde_json::from_str(&text)
        });
        json.map(Json).map_err(no_object)
    }
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse").field("status", &self.status).field("length", &self.body.len()).finish()
    }
}

/// A JSON object out of a reply. Providers differ in whether numbers are numbers; here it does not matter.
pub struct Json(Map<String, Value>);

impl Json {
    /// Takes a text out, so that no copy of it stays behind.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidResponse`] when it is missing or no text.
    pub fn take_secret(&mut self, name: &str) -> Result<Secret, Error> {
        match self.0.get_mut(name) {
            Some(Value::String(text)) => Ok(Secret::new(std::mem::take(text))),
            _ => Err(Error::invalid_response(format!("the provider's reply has no {name} in it"))),
        }
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A provider's code, which may be a number or a text. As text.
    pub fn code(&self, name: &str) -> Option<String> {
        code(self.0.get(name)?)
    }

    /// The first code of a list of them.
    pub(crate) fn first_code(&self, name: &str) -> Option<String> {
        code(self.0.get(name)?.as_array()?.first()?)
    }

    /// A whole number, or a text that is one.
    pub fn integer(&self, name: &str) -> Option<i64> {
        integer(self.0.get(name)?)
    }

    /// How long something lifetimes, in seconds: a number, or a text that is one. `None` when it is missing or null.
    ///
    /// More than 30 days are 30 days.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidResponse`] when it is less than a second, or no number at all.
    pub fn lifetime(&self, name: &str) -> Result<Option<Duration>, Error> {
        let seconds = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => decimal(text.trim()),
            Some(_) => None,
        };
        match seconds {
            Some(seconds) if seconds >= 1.0 => {
                Ok(Some(Duration::from_secs(seconds.min(MAX_LIFETIME.as_secs_f64()) as u64)))
            }
            Some(_) => Err(Error::invalid_response("the provider granted a token whose lifetime is over")),
            None => Err(Error::invalid_response("the provider granted a token whose lifetime is no number")),
        }
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A provider's code out of a JSON value: a number, or a text.
pub(crate) fn code(value: &Value) -> Option<String> {
    match integer(value) {
        Some(number) => Some(number.to_string()),
        None => value.as_str().map(str::to_owned),
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        // The range within which a float tells one whole number from the next.
        Value::Number(number) => number.as_i64().or_else(|| {
            number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15).map(|float| float as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A number in plain digits; not `NaN`, `inf` or `1e9`, which `parse` would take too.
fn decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

/// How long an answer asks to wait. At most a day; a date that has passed is zero.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text("retry-after").and_then(|value| seconds(value).or_else(|| until(value)));
    asked.or_else(|| text("x-ogw-ratelimit-reset").and_then(seconds)).map(|wait| wait.min(LONGEST_RETRY))
}

fn seconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}

fn until(date: &str) -> Option<Duration> {
    let date = httpdate::parse_http_date(date).ok()?;
    Some(date.duration_since(Time::System.now().wall()).unwrap_or(Duration::ZERO))
}

/// `text` as it stands in a form: all but letters, digits and `-._~` encoded, and a blank as `+`.
pub(crate) fn form_encoded(text: &str) -> Zeroizing<String> {
    let parts = utf8_percent_encode(text, NOT_PLAIN).map(|part| if part == "%20" { "+" } else { part });
    Zeroizing::new(parts.collect())
}

/// `text` as a parameter of a query: all but letters, digits and `-._~` encoded.
pub(crate) fn query_encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(utf8_percent_encode(text, NOT_PLAIN).collect())
}

/// Says what is wrong with an address that a credential is to be sent to.
pub(crate) fn check_url(url: &str) -> Result<(), &'static str> {
    address(url, is_loopback).map(drop)
}

/// The same for a request that is [`link_local`](TokenRequest::link_local).
pub(crate) fn check_link_local_url(url: &str) -> Result<(), &'static str> {
    address(url, is_link_local).map(drop)
}

/// `near` tells the hosts that need no HTTPS.
fn address(url: &str, near: fn(&str) -> bool) -> Result<Uri, &'static str> {
    let uri: Uri = url.parse().map_err(|_| "the URL cannot be read")?;
    // The parser drops what follows a `#`, and with it a path that is added later.
    if url.contains('#') {
        return Err("the URL must not have a fragment");
    }
    check_uri_for(&uri, near)?;
    Ok(uri)
}

/// Says what is wrong with an address, read already, that a credential is to be sent to.
pub(crate) fn check_uri(uri: &Uri) -> Result<(), &'static str> {
    check_uri_for(uri, is_loopback)
}

fn check_uri_for(uri: &Uri, near: fn(&str) -> bool) -> Result<(), &'static str> {
    let authority = uri.authority().ok_or("the URL must start with https:// and a host")?;
    if authority.as_str().contains('@') {
        return Err("the URL must not hold a user name or a password");
    }
    if authority.as_str() != authority.host() && authority.port_u16().is_none() {
        return Err("the URL's port cannot be read");
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if near(authority.host()) => Ok(()),
        _ => Err("the URL must start with https://, because a credential is sent there"),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || bare.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback())
}

fn is_link_local(host: &str) -> bool {
    is_loopback(host) || host.parse().is_ok_and(|address: Ipv4Addr| address.is_link_local())
}

/// With a SOCKS proxy in the environment `ureq` would, as it is built here, go directly and only log it. Whoever set
/// it meant requests to leave from there; providers with lists of trusted addresses do too.
fn refuse_socks(agent: &Agent, uri: &Uri) -> Result<(), Error> {
    use ureq::ProxyProtocol::{Http, Https};
    let Some(proxy) = agent.config().proxy() else { return Ok(()) };
    if !proxy.is_from_env() || matches!(proxy.protocol(), Http | Https) || proxy.is_no_proxy(uri) {
        return Ok(());
    }
    Err(Error::config("the environment names a SOCKS proxy, which is not supported; name an http one, or none"))
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

/// Our own words for what `ureq` says: its texts quote addresses, and with them secrets.
pub(crate) fn error_of(cause: &ureq::Error) -> Error {
    use ErrorKind::{Config, InvalidResponse, TimedOut, Unavailable};
    use ureq::Error as Cause;
    let (kind, text) = match cause {
        Cause::Timeout(Timeout::Resolve) => (TimedOut, "looking up the host took too long"),
        Cause::Timeout(Timeout::Connect) => (TimedOut, "connecting to the host took too long"),
        Cause::Timeout(_) => (TimedOut, "the host took too long to answer"),
        Cause::Io(cause) => return error_of_io(cause.kind()),
        Cause::HostNotFound => (Unavailable, "the host cannot be found"),
        Cause::ConnectionFailed => (Unavailable, "no connection to the host could be made"),
        Cause::ConnectProxyFailed(_) => (Unavailable, "the proxy does not let us through"),
        Cause::Tls(_) | Cause::Rustls(_) | Cause::TlsRequired | Cause::Pem(_) => (Unavailable, NO_TLS),
        Cause::InvalidProxyUrl => (Config, "the proxy's URL cannot be read"),
        Cause::BadUri(_) | Cause::RequireHttpsOnly(_) => (Config, "the URL is not one that a credential is sent to"),
        Cause::Http(_) => (Config, "the request is not one that HTTP allows"),
        Cause::TooManyRedirects | Cause::RedirectFailed => {
            (InvalidResponse, "the reply is a redirect that is not followed")
        }
        Cause::LargeResponseHeader(..) => (InvalidResponse, "the head of the reply is too large"),
        _ => (InvalidResponse, "the reply is not proper HTTP"),
    };
    Error::new(kind, text)
}

fn error_of_io(kind: std::io::ErrorKind) -> Error {
    use std::io::ErrorKind::*;
    let (kind, text) = match kind {
        TimedOut | WouldBlock => (ErrorKind::TimedOut, "the host took too long to answer"),
        ConnectionRefused => (ErrorKind::Unavailable, "the host refuses connections"),
        HostUnreachable | NetworkUnreachable | NetworkDown => {
            (ErrorKind::Unavailable, "there is no way through the network to the host")
        }
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => {
            (ErrorKind::Unavailable, "the connection to the host broke off")
        }
        // What `rustls` finds wrong arrives as this.
        InvalidData => (ErrorKind::Unavailable, NO_TLS),
        _ => (ErrorKind::Unavailable, "the host cannot be reached, or its name not be found"),
    };
    Error::new(kind, text)
}

const USER_AGENT: &str = concat!("evertoken/", env!("CARGO_PKG_VERSION"));

const NO_TLS: &str = "no trusted TLS connection to the host could be made";

/// Everything but the characters that mean themselves anywhere in a URL.
const NOT_PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Counted after decoding. Replies to token requests have a few KiB.
const LONGEST_REPLY: usize = 64 * 1024;

/// No answer can ask for a longer pause.
const LONGEST_RETRY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("a plain value");
        list.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    fn asked(list: &[(&'static str, &str)]) -> Option<u64> {
        retry_after(&headers(list)).map(|wait| wait.as_secs())
    }

    fn object(text: &str) -> Json {
        Json(serde_json::from_str(text).expect("an object"))
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_capped_at_a_day() {
        assert_eq!(asked(&[("retry-after", "7")]), Some(7));
        assert_eq!(asked(&[("retry-after", " 7 ")]), Some(7));
        assert_eq!(asked(&[("retry-after", "0")]), Some(0));
        assert_eq!(asked(&[("retry-after", "99999999999999999999999")]), Some(86_400));
    }

    #[test]
    fn retry_after_is_read_as_a_date_and_a_past_one_is_zero() {
        let date = |ahead: u64| httpdate::fmt_http_date(Time::System.now().wall() + Duration::from_secs(ahead));
        let wait = asked(&[("retry-after", &date(100))]).expect("a date");
        assert!((95..=100).contains(&wait), "{wait}");
        assert_eq!(asked(&[("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")]), Some(0));
        assert_eq!(asked(&[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")]), Some(86_400));
    }

    #[test]
    fn a_retry_after_that_makes_no_sense_is_ignored() {
        for garbage in ["", "soon", "-1", "1.5", "1e3", "Thu, 99 Foo 2020"] {
            assert_eq!(asked(&[("retry-after", garbage)]), None, "{garbage:?}");
            assert_eq!(asked(&[("retry-after", garbage), ("x-ogw-ratelimit-reset", "9")]), Some(9));
        }
        assert_eq!(asked(&[]), None);
    }

    #[test]
    fn a_life_may_be_a_number_or_a_text_and_never_overflows() {
        let lifetime = |value: &str| {
            let lifetime = object(&format!(r#"{{"expires_in":{value}}}"#)).lifetime("expires_in");
            lifetime.map(|lifetime| lifetime.map(|lifetime| lifetime.as_secs())).map_err(|error| error.kind())
        };
        for (value, seconds) in [
            ("3600", 3600),
            ("3600.0", 3600),
            ("59.9", 59),
            ("\"3600\"", 3600),
            ("\" 3600.0 \"", 3600),
            ("1e20", 2_592_000),
            ("9223372036854775808", 2_592_000),
            ("1180591620717411303424", 2_592_000),
            ("\"99999999999999999999\"", 2_592_000),
        ] {
            assert_eq!(lifetime(value), Ok(Some(seconds)), "{value}");
        }
        assert_eq!(lifetime("null"), Ok(None));
        assert_eq!(object("{}").lifetime("expires_in").map_err(|error| error.kind()), Ok(None));
        for value in
            ["0", "-1", "0.5", "\"0\"", "\"-1\"", "\"NaN\"", "\"inf\"", "\"1e9\"", "\"\"", "\".\"", "true", "{}", "[1]"]
        {
            assert_eq!(lifetime(value), Err(ErrorKind::InvalidResponse), "{value}");
        }
    }

    #[test]
    fn a_code_may_be_a_number_or_a_text() {
        let json = object(r#"{"a":40001,"b":"40001","c":"bad.id","d":0.0,"e":true,"f":null,"g":"-1"}"#);
        let codes = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| json.code(name));
        let codes = codes.each_ref().map(Option::as_deref);
        assert_eq!(codes, [Some("40001"), Some("40001"), Some("bad.id"), Some("0"), None, None, Some("-1"), None]);
        assert_eq!(json.integer("b"), Some(40001));
    }

    #[test]
    fn a_secret_that_is_taken_leaves_nothing_behind() {
        let mut json = object(r#"{"access_token":"t-1","n":1}"#);
        assert_eq!(json.take_secret("access_token").expect("it is there").expose(), "t-1");
        assert_eq!(json.text("access_token"), Some(""));
        assert!(json.take_secret("n").is_err() && json.take_secret("missing").is_err());
    }

    #[test]
    fn credentials_go_to_https_and_loopback_only() {
        for good in [
            "https://host",
            "https://host:8443/a/b?c=d",
            "http://localhost:1/x",
            "http://LOCALHOST",
            "http://127.9.9.9",
            "http://[::1]:80/",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "host",
            "/path",
            "http://host",
            "http://localhost.evil.example",
            "http://127.0.0.1@evil.example/",
            "http://128.0.0.1",
            "http://[::2]/",
            "ftp://localhost",
            "https://user:word@host",
            "https://host:99999",
            "https://host#fragment",
            "https://ho st",
            "https://host\r\n",
        ] {
            assert!(check_url(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn plain_http_goes_to_a_link_local_address_only_where_that_is_asked_for() {
        let url = "http://169.254.169.254/metadata";
        assert!(check_url(url).is_err() && check_link_local_url(url).is_ok());
        for good in ["http://169.254.0.1:41741/MSI/token/", "http://127.0.0.1:41741/", "https://host.example"] {
            assert_eq!(check_link_local_url(good), Ok(()), "{good}");
        }
        for bad in [
            "http://host.example",
            "http://169.255.169.254",
            "http://169.254.169.254.evil.example",
            "http://169.254.169.254@evil.example",
            "http://user:word@169.254.169.254",
            "http://10.0.0.1",
            "http://[fe80::1]",
            "ftp://169.254.169.254",
        ] {
            assert!(check_link_local_url(bad).is_err(), "{bad}");
        }
        let http = Http::new(HttpConfig::usual()).until(Deadline::within(Duration::ZERO));
        let kind = |request: TokenRequest| request.send().expect_err("there is no time").kind();
        assert_eq!(kind(http.get(url)), ErrorKind::Config, "it is not even tried");
        assert_eq!(kind(http.get(url).link_local()), ErrorKind::TimedOut, "it is tried");
    }

    #[test]
    fn the_first_code_of_a_list_may_be_a_number_or_a_text() {
        let json = object(r#"{"a":[70011,1],"b":["70011"],"c":[],"d":70011,"e":[{}]}"#);
        let codes = ["a", "b", "c", "d", "e", "f"].map(|name| json.first_code(name));
        assert_eq!(codes.each_ref().map(Option::as_deref), [Some("70011"), Some("70011"), None, None, None, None]);
    }

    #[test]
    fn a_form_encodes_all_but_the_plain_characters() {
        assert_eq!(*form_encoded("a b+&%:\u{fc}"), "a+b%2B%26%25%3A%C3%BC");
        assert_eq!(*form_encoded("-._~*"), "-._~%2A");
    }

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

    #[test]
    fn a_request_shows_neither_query_nor_values_nor_body() {
        let http = Http::new(HttpConfig::usual());
        let request = http.post_form("https://host/?a=hunter2", &[("b", "hunter2")]);
        let request = request.query("c", "hunter2").basic("id", &Secret::from("hunter2")).header("x-key", "hunter2");
        let shown = format!("{request:?} {http:?}");
        assert!(!shown.contains("hunter2") && shown.contains("x-key"), "{shown}");
    }

    #[test]
    fn a_deadline_that_has_passed_costs_no_connection() {
        let http = Http::new(HttpConfig::usual()).until(Deadline::within(Duration::ZERO));
        let error = http.get("https://host.invalid").send().expect_err("no time");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn what_ureq_says_is_not_repeated() {
        let secret = "https://host/?secret=hunter2";
        for (cause, kind) in [
            (ureq::Error::BadUri(secret.into()), ErrorKind::Config),
            (ureq::Error::RequireHttpsOnly(secret.into()), ErrorKind::Config),
            (ureq::Error::ConnectProxyFailed(secret.into()), ErrorKind::Unavailable),
            (ureq::Error::Io(std::io::Error::other(secret)), ErrorKind::Unavailable),
            (ureq::Error::Timeout(Timeout::Resolve), ErrorKind::TimedOut),
            (ureq::Error::HostNotFound, ErrorKind::Unavailable),
            (ureq::Error::BodyStalled, ErrorKind::InvalidResponse),
        ] {
            let error = error_of(&cause);
            assert_eq!(error.kind(), kind);
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}
