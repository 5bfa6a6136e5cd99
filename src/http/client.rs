//! Sends requests to a provider and bounds how long they take.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use once_cell::sync::OnceCell;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use ureq::{Agent, AsSendBody};
use zeroize::Zeroizing;

use super::config::HttpConfig;
use super::errors::error_of;
use super::proxy;
use super::response::TokenResponse;
use super::url::{form_encoded, host_of, is_link_local, is_loopback, parse_url, query_encoded};
use crate::clock::Deadline;
use crate::error::{Error, ErrorKind};
use crate::secret::Secret;

/// Sends the requests of a provider.
///
/// Requests go to HTTPS addresses, to loopback, or to a host of [`HttpConfig::plain_http_to`]. Redirects are not followed,
/// one deadline bounds the whole exchange, and a response has at most 128 KiB. Errors name the host, and never a
/// parameter, a header value or a body.
#[derive(Clone)]
pub struct Http {
    config: Arc<HttpConfig>,
    deadline: Option<Deadline>,
}

impl Http {
    pub(crate) fn new(config: Arc<HttpConfig>) -> Http {
        Http { config, deadline: None }
    }

    /// Returns a client whose exchanges end by `deadline`.
    pub(crate) fn until(&self, deadline: Deadline) -> Http {
        let deadline = self.deadline.map_or(deadline, |earlier| earlier.min(deadline));
        Http { config: self.config.clone(), deadline: Some(deadline) }
    }

    /// Starts a GET request.
    pub fn get(&self, url: &str) -> TokenRequest {
        TokenRequest::new(self.clone(), Method::GET, url)
    }

    /// Starts a POST request with `body` as JSON.
    pub fn post_json(&self, url: &str, body: &impl serde::Serialize) -> TokenRequest {
        let request = TokenRequest::new(self.clone(), Method::POST, url).header("content-type", "application/json");
        match serde_json::to_vec(body) {
            Ok(bytes) => request.body(bytes),
            Err(_) => request
                .with_mistake("the body of the request cannot be written as JSON; the keys of maps must be strings"),
        }
    }

    /// Starts a POST request with `fields` as a form (`application/x-www-form-urlencoded`).
    pub fn post_form(&self, url: &str, fields: &[(&str, &str)]) -> TokenRequest {
        let pair = |(name, value): &(&str, &str)| format!("{}={}", *form_encoded(name), *form_encoded(value));
        let pairs = Zeroizing::new(fields.iter().map(pair).collect::<Vec<_>>());
        TokenRequest::new(self.clone(), Method::POST, url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(pairs.join("&").into_bytes())
    }

    /// Returns how long an exchange with `host` may take: the shorter of the configured timeout and the time until the
    /// deadline.
    fn time_left(&self, host: &str) -> Result<Duration, Error> {
        let left = self.deadline.map_or(Duration::MAX, Deadline::remaining);
        match left.min(self.config.timeout) {
            Duration::ZERO => {
                let text = format!("the fetch reached its deadline before {host} could be asked; try again");
                Err(Error::new(ErrorKind::Unavailable, text))
            }
            left => Ok(left),
        }
    }

    /// Sends `request` and reads the whole response. Requests to loopback or in plain HTTP never go through a proxy.
    fn exchange(&self, mut request: Request<impl AsSendBody>, proxy: ProxyUse) -> Result<TokenResponse, Error> {
        let secure = request.uri().scheme_str() == Some("https");
        let direct = proxy == ProxyUse::Never || !secure || request.uri().host().is_some_and(is_loopback);
        if let Some(name) = self.config.user_agent_value()? {
            request.headers_mut().insert(header::USER_AGENT, name);
        }
        let mut agent = self.config.agent()?;
        if cookies_are_kept(&agent) {
            // A new agent has no cookies, and no connections either.
            agent = agent.config().new_agent();
        }
        let proxy = if direct { None } else { self.config.proxy_for(&agent, request.uri())? };
        let mut host = host_of(request.uri());
        if let Some(proxy) = &proxy {
            host = format!("{host} (through the proxy {})", proxy::name_of(proxy));
        }
        let time_left = self.time_left(&host)?;
        let limits = agent
            .configure_request(request)
            .timeout_global(Some(time_left))
            .timeout_resolve(Some(self.config.resolve_timeout.min(time_left)))
            .timeout_connect(Some(self.config.connect_timeout.min(time_left)))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .https_only(secure)
            .proxy(proxy);
        let response = agent.run(limits.build()).map_err(|cause| error_of(&cause, &host))?;
        TokenResponse::read(response, host)
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Whether some crate of the program turned on the feature `cookies` of `ureq`.
///
/// An agent then keeps cookies and sends them with every request to the same host. Managers share an agent, so the cookie
/// of one credential would travel with another's request. Only the `Debug` output of an agent shows the feature to a crate
/// that does not turn it on; `tests/feature_unification` fails when that changes.
fn cookies_are_kept(agent: &Agent) -> bool {
    static KEPT: OnceCell<bool> = OnceCell::new();
    // A fresh agent, because the jar of a used one has secrets in it.
    *KEPT.get_or_init(|| format!("{:?}", agent.config().new_agent()).contains("jar:"))
}

/// Whether a request may go through a proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ProxyUse {
    AsConfigured,
    /// The request carries what no proxy may see.
    Never,
}

/// A request to a token endpoint, under construction.
///
/// [`send`](TokenRequest::send) returns an error for a mistake made before, such as a header value with a line break.
#[must_use = "the request is sent by `send`"]
pub struct TokenRequest {
    http: Http,
    method: Method,
    url: String,
    query: Zeroizing<String>,
    headers: HeaderMap,
    body: Option<Zeroizing<Vec<u8>>>,
    link_local: bool,
    /// The first mistake in the request, which `send` returns.
    mistake: Option<Error>,
}

impl TokenRequest {
    fn new(http: Http, method: Method, url: &str) -> TokenRequest {
        let (url, query) = url.split_once('?').unwrap_or((url, ""));
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        // A compressed response could unpack to a thousand times its size.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let query = Zeroizing::new(query.to_owned());
        TokenRequest { http, method, url: url.to_owned(), query, headers, body: None, link_local: false, mistake: None }
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

    /// Sets a header. The value is treated as a secret.
    pub fn header(mut self, name: &str, value: &str) -> TokenRequest {
        let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) else {
            return self.with_mistake("a header of the request has a name or a value that HTTP does not allow");
        };
        value.set_sensitive(true);
        self.headers.insert(name, value);
        self
    }

    /// Authenticates with `id` and `secret` (HTTP Basic, RFC 7617), neither of which is encoded first.
    pub fn basic(self, id: &str, secret: &Secret) -> TokenRequest {
        let pair = Zeroizing::new(format!("{id}:{}", secret.expose()));
        let pair = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
        self.header("authorization", &Zeroizing::new(format!("Basic {}", *pair)))
    }

    /// Authenticates with a token (`Authorization: Bearer <token>`).
    pub fn bearer(self, token: &Secret) -> TokenRequest {
        self.header("authorization", &Zeroizing::new(format!("Bearer {}", token.expose())))
    }

    /// Sends the request to a service of this machine or its hypervisor, such as a cloud's metadata service. Plain HTTP to
    /// a link-local address (169.254.0.0/16) is allowed, and no proxy is used for any address.
    pub(crate) fn link_local(self) -> TokenRequest {
        TokenRequest { link_local: true, ..self }
    }

    /// Sends the request and reads the whole response, whatever its status. Blocks up to
    /// [`HttpConfig::timeout`], and never past the deadline of the fetch.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Unavailable`] when there is no response: the host cannot be reached or does not answer in time.
    /// - [`ErrorKind::InvalidResponse`] when the response is too large, a redirect, or not HTTP.
    /// - [`ErrorKind::Config`] when the address is not one that a credential may be sent to, when the host's certificate
    ///   is not trusted, or when the host does not speak TLS.
    pub fn send(mut self) -> Result<TokenResponse, Error> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        let mut request = Request::new(());
        *request.uri_mut() = self.address()?;
        let proxy = if self.link_local { ProxyUse::Never } else { ProxyUse::AsConfigured };
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        match self.body {
            Some(body) => self.http.exchange(request.map(|()| body.as_slice()), proxy),
            None => self.http.exchange(request, proxy),
        }
    }

    /// Joins URL and query. The query can contain secrets, so the joined address is built here only and never stored.
    fn address(&self) -> Result<Uri, Error> {
        let mark = if self.query.is_empty() { "" } else { "?" };
        let is_near = if self.link_local { is_link_local } else { is_loopback };
        let allows_http = |host: &str| is_near(host) || self.http.config.plain_http_hosts.contains(host);
        parse_url(&Zeroizing::new([&self.url, mark, &self.query].concat()), allows_http).map_err(Error::config)
    }

    fn body(self, body: Vec<u8>) -> TokenRequest {
        TokenRequest { body: Some(Zeroizing::new(body)), ..self }
    }

    fn with_mistake(self, text: &'static str) -> TokenRequest {
        TokenRequest { mistake: Some(Error::config(text)), ..self }
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = self.headers.keys().collect::<Vec<_>>();
        f.debug_struct("TokenRequest").field("method", &self.method).field("headers", &headers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{check_link_local_url, check_url};

    #[test]
    fn a_request_shows_neither_query_nor_values_nor_body() {
        let http = Http::new(HttpConfig::shared_default());
        let request = http.post_form("https://host/?a=hunter2", &[("b", "hunter2")]);
        let request = request.query("c", "hunter2").basic("id", &Secret::from("hunter2")).header("x-key", "hunter2");
        let shown = format!("{request:?} {http:?}");
        assert!(!shown.contains("hunter2") && shown.contains("x-key"), "{shown}");
    }

    #[test]
    fn after_the_deadline_no_connection_is_opened() {
        let http = Http::new(HttpConfig::shared_default()).until(Deadline::within(Duration::ZERO));
        let error = http.get("https://host.invalid").send().expect_err("no time");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
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
        let http = Http::new(HttpConfig::shared_default()).until(Deadline::within(Duration::ZERO));
        let kind = |request: TokenRequest| request.send().expect_err("there is no time").kind();
        assert_eq!(kind(http.get(url)), ErrorKind::Config, "the address is refused");
        assert_eq!(kind(http.get(url).link_local()), ErrorKind::Unavailable, "the address is accepted");
    }
}
