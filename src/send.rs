//! Using the token: `call`, `send` and a middleware, which notice that a service rejects the token.
//!
//! # Theory of operation
//!
//! 1. Get a token from the manager and put it where the provider's [`TokenPlacement`] says: into a header or the query.
//! 2. Send the request. The token goes to HTTPS addresses only, or by plain HTTP to loopback, and never along with a
//!    redirect.
//! 3. Decide what the response says about the token. The provider's [`verdict`](crate::provider::Provider::verdict)
//!    sees status, headers and, for vendors that report an invalid token inside HTTP 200, up to 64 KiB of the body. A
//!    response that came after a redirect says nothing, because the token was not sent there.
//! 4. *Rejected*: reject the token, so that the manager fetches a new one, and send the request a second time. There is
//!    no third time: a service that refuses two tokens in a row has another reason.
//!
//! A body is sent again only if its bytes are in memory. The middleware never sends twice, because `ureq` gives it each
//! request once.

use std::fmt;
use std::io::{self, Cursor, Read};
use std::time::SystemTime;

use percent_encoding::percent_decode_str;
use ureq::config::{ConfigBuilder, RedirectAuthHeaders};
use ureq::http::uri::PathAndQuery;
use ureq::http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header, request, response};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::typestate::HttpCrateScope;
use ureq::{Agent, AsSendBody, Body, RequestExt, ResponseExt, SendBody};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, catch_panic};
use crate::http::{HeaderMap, check_uri, code, error_of, host_of, query_encoded};
use crate::manager::TokenManager;
use crate::provider::{JsSignature, ServiceResponse, TokenPlacement, Verdict, nonce, signed_part};
use crate::token::Token;

/// Using the token: these methods replace a token that the service rejects.
impl TokenManager {
    /// Calls `f` with a token, and a second time with a new token if `f` returns [`CallError::Rejected`].
    ///
    /// `f` sends the request and returns [`CallError::Rejected`] when the service refuses the token;
    /// [`verdict`](TokenManager::verdict) decides this from the response. The manager then
    /// [rejects](TokenManager::reject) the token. Any other error of `f` is returned at once; `?` turns your error type
    /// into [`CallError::Failed`].
    ///
    /// `f` runs at most twice. A service that refuses two tokens in a row has another reason, so the second token stays
    /// in use. Blocks as long as [`token`](TokenManager::token) and `f` do, each at most twice.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use evertoken::{TokenManager, provider};
    /// # use evertoken::provider::Grant;
    /// use evertoken::CallError;
    ///
    /// # let granting = std::sync::Mutex::new(vec!["t-2", "t-1"]);
    /// # let tokens = TokenManager::new(provider::from_fn("demo", move |_| {
    /// #     Ok(Grant::new(granting.lock().unwrap().pop().unwrap(), Duration::from_secs(7200)))
    /// # }));
    /// # fn ask(token: &str) -> Result<u16, std::io::Error> { Ok(if token == "t-1" { 401 } else { 200 }) }
    /// let status = tokens.call(|token| {
    ///     let status = ask(token.expose())?;
    ///     if status == 401 { Err(CallError::Rejected) } else { Ok(status) }
    /// })?;
    /// assert_eq!(status, 200);
    /// # Ok::<(), CallError<std::io::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - [`CallError::Rejected`]: the service refused two tokens.
    /// - [`CallError::Token`]: the manager has no token; contains the error of [`token`](TokenManager::token).
    /// - [`CallError::Failed`]: the error of `f`.
    pub fn call<T, E>(&self, mut f: impl FnMut(&Token) -> Result<T, CallError<E>>) -> Result<T, CallError<E>> {
        let token = self.token().map_err(CallError::Token)?;
        match f(&token) {
            Err(CallError::Rejected) => {
                self.reject_here(&token);
                f(&self.token().map_err(CallError::Token)?)
            }
            result => result,
        }
    }

    /// Decides what a response of the service says about the token that was sent with the request.
    ///
    /// The provider knows how its vendor reports a rejected token: by the status, or by a code in the body of HTTP 200.
    /// Pass an empty `body` if it has not been read. This function only decides; call
    /// [`reject`](TokenManager::reject) to take a rejected token out of use.
    pub fn verdict(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Verdict {
        let response = ServiceResponse::new(status, headers, body);
        let verdict = catch_panic(|| Ok(self.keeper().provider.verdict(&response)));
        // A provider whose `verdict` panics is the user's code. HTTP's own rules decide then.
        verdict.unwrap_or_else(|_| response.http_verdict())
    }

    /// Sends `request` with a token, and a second time with a new token if the service rejects the first.
    ///
    /// The token is added where the provider's service expects it, usually as an `Authorization` header or a query
    /// parameter, and replaces a header or parameter of the same name. The response is returned even when its status is
    /// an error, and its body can be read from its start.
    ///
    /// # When the request is sent twice
    ///
    /// A response is a *rejection* if its status or, for vendors that answer with HTTP 200, the vendor's code in its
    /// body says that the token is invalid; [`verdict`](TokenManager::verdict) decides. After a rejection the token is
    /// taken out of use and the request is sent once more with a new token. No other failure is repeated: not a lost
    /// connection, not a 5xx status, not throttling. A body that is a [stream](RequestBody::reader) is sent once.
    ///
    /// # Differences from the agent's settings
    ///
    /// - An error status is not an error: the response is returned.
    /// - The token is sent to HTTPS addresses only, or by plain HTTP to loopback, without a proxy.
    /// - The token is not sent along with a redirect, and a response after a redirect is no rejection. `ureq` can drop
    ///   only the header `Authorization` from a redirected request. With a token in the query or in another header, no
    ///   redirect is followed and the redirect itself is returned.
    ///
    /// # The body of the response
    ///
    /// To find a vendor's code, up to 64 KiB of a body that is JSON, text or without a content type are read before
    /// this function returns. Longer bodies are not searched, nor is a
    /// successful body of unknown length that does not begin as a JSON object, because that may be an endless stream.
    ///
    /// If the token is a query parameter, the address that `ureq` keeps with the response (`get_uri`) contains the
    /// token. Do not log that address.
    ///
    /// # Blocking
    ///
    /// Blocks as long as [`token`](TokenManager::token) and the request do, each at most twice. The agent's time limits
    /// bound the request; `ureq` has none unless you set them.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::TokenRejected`]: the service rejected two tokens, or it rejected one and the body was a stream.
    ///   In the second case the token is out of use, so build the request anew and send it.
    /// - [`ErrorKind::Throttled`]: too many requests; see [`Error::retry_after`].
    /// - [`ErrorKind::Config`]: the address may not get a token, or the request cannot be sent as it is.
    /// - [`ErrorKind::Unavailable`] and [`ErrorKind::InvalidResponse`]: there was no valid HTTP response.
    /// - The errors of [`token`](TokenManager::token).
    ///
    /// Errors name the host. No error quotes a path, a query or a response.
    pub fn send<B: Into<RequestBody>>(&self, agent: &Agent, request: Request<B>) -> Result<Response<Body>, Error> {
        let (head, body) = request.into_parts();
        let body = body.into();
        check_uri(&head.uri).map_err(Error::config)?;
        let mut sender =
            RequestSender { tokens: self, agent, head, placement: self.placement()?, body, sent: Vec::new() };
        let token = self.token()?;
        let refusal = match sender.attempt(&token)? {
            Attempt::Answered(response) => return Ok(response),
            Attempt::Refused(refusal) => refusal,
        };
        self.reject_here(&token);
        if !sender.body.is_repeatable() {
            return Err(refusal.recast(ErrorKind::TokenRejected, NOT_REPEATED));
        }
        match sender.attempt(&self.token()?)? {
            Attempt::Answered(response) => Ok(response),
            Attempt::Refused(refusal) => Err(refusal),
        }
    }

    /// Returns a middleware for a `ureq` agent that sends a token with every request; see [`TokenMiddleware`].
    #[must_use]
    pub fn middleware(&self) -> TokenMiddleware {
        TokenMiddleware(self.clone())
    }

    /// Signs the page at `url` with the current `jsapi_ticket`, so that the page can call the vendor's JavaScript API.
    ///
    /// For managers of [`WeComJsTicket`](crate::provider::wecom::WeComJsTicket) and
    /// [`WeChatJsTicket`](crate::provider::wechat::WeChatJsTicket). `url` is the address of the page as the browser
    /// shows it, including the query; the part after a `#` is not signed. Blocks as [`token`](TokenManager::token)
    /// does.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use evertoken::{TokenManager, provider};
    /// # use evertoken::provider::{Grant, TokenPlacement};
    /// # let granting = |_: &_| Ok(Grant::new("ticket-1", Duration::from_secs(7200)));
    /// # let tickets = TokenManager::new(provider::from_fn("demo", granting).placement(TokenPlacement::NotSent));
    /// let signed = tickets.js_signature("https://shop.example/cart?id=1#top")?;
    /// assert_eq!(signed.signature.len(), 40);
    /// # Ok::<(), evertoken::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when `url` is not a complete address, or when the provider grants access tokens instead of
    /// tickets. Otherwise the errors of [`token`](TokenManager::token).
    pub fn js_signature(&self, url: &str) -> Result<JsSignature, Error> {
        if self.placement()? != TokenPlacement::NotSent {
            return Err(Error::config("this provider grants access tokens, and only JavaScript tickets sign pages"));
        }
        let url = signed_part(url)?;
        let ticket = self.token()?;
        let since_1970 = self.keeper().now().wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(JsSignature::sign(ticket.secret(), url, nonce(), since_1970.as_secs()))
    }

    fn placement(&self) -> Result<TokenPlacement, Error> {
        catch_panic(|| Ok(self.keeper().provider.placement()))
    }

    /// Rejects a token without failing when the store cannot be written.
    fn reject_here(&self, refused: &Token) {
        // The token is out of use in this process. Other processes meet the rejection by themselves.
        drop(self.reject(refused));
    }

    /// Decides what a response says about the token that was sent. The body can still be read from its start.
    fn inspect(&self, response: Response<Body>) -> io::Result<Inspected> {
        if response.get_redirect_history().is_some_and(|way| way.len() > 1) {
            // The host at the end of a redirect has not seen the token.
            return Ok(Inspected { response, verdict: Verdict::Accepted, code: None });
        }
        let (head, body) = response.into_parts();
        let (body, seen) = read_ahead(&head, body)?;
        let verdict = self.verdict(head.status.as_u16(), &head.headers, &seen);
        let code = if verdict == Verdict::Accepted { None } else { vendor_code(&seen) };
        Ok(Inspected { response: Response::from_parts(head, body), verdict, code })
    }
}

/// A request that is sent once or twice.
struct RequestSender<'a> {
    tokens: &'a TokenManager,
    agent: &'a Agent,
    head: request::Parts,
    placement: TokenPlacement,
    body: RequestBody,
    /// The tokens that were sent to the service, which could quote them in its codes.
    sent: Vec<Token>,
}

impl RequestSender<'_> {
    /// Sends the request once.
    fn attempt(&mut self, token: &Token) -> Result<Attempt, Error> {
        let mut head = self.head.clone();
        attach_token(&mut head, &self.placement, token)?;
        self.sent.push(token.clone());
        let host = host_of(&head.uri);
        let response = self.body.run(self.agent, head, &self.placement)?;
        let status = response.status().as_u16();
        let unreadable = |cause: io::Error| error_of_service(&cause.into(), &host).with_status(status);
        let Inspected { response, verdict, code } = self.tokens.inspect(response).map_err(unreadable)?;
        let refused = |kind, text: &str| {
            let error = Error::new(kind, format!("{host} {text}")).with_status(status);
            let quotes_token = |code: &String| self.sent.iter().any(|token| code.contains(token.expose()));
            match code.filter(|code| !quotes_token(code)) {
                Some(code) => error.with_code(code),
                None => error,
            }
        };
        match verdict {
            Verdict::Accepted => Ok(Attempt::Answered(response)),
            Verdict::Rejected => Ok(Attempt::Refused(refused(ErrorKind::TokenRejected, TWO_TOKENS_REFUSED))),
            Verdict::Throttled { retry_after: None } => Err(refused(ErrorKind::Throttled, TOO_MANY)),
            Verdict::Throttled { retry_after: Some(wait) } => {
                Err(refused(ErrorKind::Throttled, TOO_MANY).with_retry_after(wait))
            }
        }
    }
}

enum Attempt {
    Answered(Response<Body>),
    /// The service refused the token. The error is returned if this was the second attempt.
    Refused(Error),
}

/// A response, and what it says about the token.
struct Inspected {
    response: Response<Body>,
    verdict: Verdict,
    /// The vendor's code for the refusal.
    code: Option<String>,
}

/// Why [`TokenManager::call`] failed. There will be no further variants, so a `match` can list all.
#[derive(Debug)]
pub enum CallError<E> {
    /// The service refused the token. When the closure returns this the first time, it runs again with a new token.
    Rejected,
    /// The manager has no token, for this reason.
    Token(Error),
    /// The closure failed with its own error, which is not about the token.
    Failed(E),
}

impl<E> From<E> for CallError<E> {
    fn from(error: E) -> CallError<E> {
        CallError::Failed(error)
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Rejected => {
                f.write_str("the service rejected two tokens in a row; check the credential's rights")
            }
            CallError::Token(error) => write!(f, "there is no token to call with: {error}"),
            CallError::Failed(error) => write!(f, "the call failed: {error}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for CallError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CallError::Rejected => None,
            CallError::Token(error) => Some(error),
            CallError::Failed(error) => Some(error),
        }
    }
}

/// The body of a request for [`TokenManager::send`]: nothing, bytes, text or a [stream](RequestBody::reader).
///
/// `()`, bytes and strings convert into a body. Every body except a stream can be sent twice.
pub struct RequestBody(Content);

enum Content {
    Empty,
    Bytes(Vec<u8>),
    Stream(Box<dyn Read + Send>),
}

impl RequestBody {
    /// Creates a body that is read from `reader` while the request is sent.
    ///
    /// The body is sent in chunks, unless the request has a `Content-Length`. `reader` can be read once only, so the
    /// request is not repeated when the service rejects the token.
    pub fn reader(reader: impl Read + Send + 'static) -> RequestBody {
        RequestBody(Content::Stream(Box::new(reader)))
    }

    fn is_repeatable(&self) -> bool {
        !matches!(self.0, Content::Stream(_))
    }

    fn run(
        &mut self,
        agent: &Agent,
        head: request::Parts,
        placement: &TokenPlacement,
    ) -> Result<Response<Body>, Error> {
        let wants_body = [Method::POST, Method::PUT, Method::PATCH].contains(&head.method);
        match &mut self.0 {
            Content::Empty if !wants_body => run(agent, Request::from_parts(head, ()), placement),
            // An empty slice sends `Content-Length: 0`, without which many servers refuse a POST.
            Content::Empty => run(agent, Request::from_parts(head, [].as_slice()), placement),
            Content::Bytes(bytes) => run(agent, Request::from_parts(head, bytes.as_slice()), placement),
            Content::Stream(reader) => {
                let mut stream = TrackedReader { reader, failed: false };
                let outcome = run(agent, Request::from_parts(head, SendBody::from_reader(&mut stream)), placement);
                if stream.failed { Err(Error::config("the reader of the request's body failed")) } else { outcome }
            }
        }
    }
}

impl From<()> for RequestBody {
    fn from((): ()) -> RequestBody {
        RequestBody(Content::Empty)
    }
}

impl From<Vec<u8>> for RequestBody {
    fn from(bytes: Vec<u8>) -> RequestBody {
        RequestBody(Content::Bytes(bytes))
    }
}

impl From<&[u8]> for RequestBody {
    fn from(bytes: &[u8]) -> RequestBody {
        bytes.to_vec().into()
    }
}

impl<const N: usize> From<&[u8; N]> for RequestBody {
    fn from(bytes: &[u8; N]) -> RequestBody {
        bytes.to_vec().into()
    }
}

impl From<String> for RequestBody {
    fn from(text: String) -> RequestBody {
        text.into_bytes().into()
    }
}

impl From<&str> for RequestBody {
    fn from(text: &str) -> RequestBody {
        text.as_bytes().into()
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Content::Empty => f.write_str("RequestBody(nothing)"),
            Content::Bytes(bytes) => write!(f, "RequestBody({} bytes)", bytes.len()),
            Content::Stream(_) => f.write_str("RequestBody(stream)"),
        }
    }
}

/// A reader that remembers its failure, because `ureq` reports a failed reader as a failed connection.
struct TrackedReader<'a> {
    reader: &'a mut dyn Read,
    failed: bool,
}

impl Read for TrackedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).inspect_err(|_| self.failed = true)
    }
}

/// A middleware for a [`ureq::Agent`] that sends a token with every request and rejects the token when the service
/// refuses it. Created by [`TokenManager::middleware`].
///
/// The middleware sends each request once, because `ureq` gives it each request once. A response that rejects the token
/// therefore reaches the caller, and the next request has a new token. [`TokenManager::send`] repeats the request
/// itself.
///
/// Placement of the token, redirects and reading ahead are the same as with [`TokenManager::send`]. Use the agent for
/// this service only, because every HTTPS address that the agent is asked for gets the token.
///
/// Responses are passed on unchanged, including throttling. `ureq` turns error statuses into errors unless
/// `http_status_as_error(false)` is set. This error contains only the status, so the middleware decides by the
/// status alone and does not know whether the response came after a redirect.
///
/// When there is no token, or the address may not get one, the caller gets a [`ureq::Error::Other`] that contains an
/// [`Error`]. Errors of `ureq` that quote an address are replaced in the same way.
///
/// The middleware keeps a clone of the manager for as long as the agent exists.
///
/// ```
/// # use std::time::Duration;
/// # use evertoken::{TokenManager, provider};
/// # use evertoken::provider::Grant;
/// # let tokens = TokenManager::new(provider::from_fn("demo", |_| Ok(Grant::new("t-1", Duration::from_secs(7200)))));
/// let agent = ureq::Agent::config_builder().middleware(tokens.middleware()).build().new_agent();
/// ```
#[derive(Clone, Debug)]
pub struct TokenMiddleware(TokenManager);

impl TokenMiddleware {
    fn prepare<'a>(&self, request: Request<SendBody<'a>>) -> Result<(Request<SendBody<'a>>, Token), Error> {
        check_uri(request.uri()).map_err(Error::config)?;
        let placement = self.0.placement()?;
        let token = self.0.token()?;
        let (mut head, body) = request.into_parts();
        attach_token(&mut head, &placement, &token)?;
        let plain_http = is_plain_http(&head.uri);
        let config = Request::from_parts(head, body).middleware_config();
        let config =
            config.ok_or_else(|| Error::config("another middleware of the agent removed the request's extensions"))?;
        Ok((limit_exposure(config, &placement, plain_http).build(), token))
    }
}

impl Middleware for TokenMiddleware {
    fn handle(&self, request: Request<SendBody<'_>>, next: MiddlewareNext<'_>) -> Result<Response<Body>, ureq::Error> {
        let (request, token) = self.prepare(request).map_err(into_ureq_error)?;
        match next.handle(request) {
            Ok(response) => {
                let inspected = self.0.inspect(response).map_err(|cause| redacted(cause.into()))?;
                if inspected.verdict == Verdict::Rejected {
                    self.0.reject_here(&token);
                }
                Ok(inspected.response)
            }
            Err(ureq::Error::StatusCode(status)) => {
                if self.0.verdict(status, &HeaderMap::new(), &[]) == Verdict::Rejected {
                    self.0.reject_here(&token);
                }
                Err(ureq::Error::StatusCode(status))
            }
            Err(cause) => Err(redacted(cause)),
        }
    }
}

fn into_ureq_error(error: Error) -> ureq::Error {
    ureq::Error::Other(Box::new(error))
}

/// Returns `cause` unless its text could quote the address or the response; then returns an error of this crate
/// instead.
fn redacted(cause: ureq::Error) -> ureq::Error {
    use ureq::Error::*;
    match cause {
        // `Other` comes from another middleware of the program.
        Io(_)
        | Timeout(_)
        | HostNotFound
        | ConnectionFailed
        | RedirectFailed
        | TooManyRedirects
        | Tls(_)
        | Rustls(_)
        | TlsRequired
        | InvalidProxyUrl
        | BodyExceedsLimit(_)
        | LargeResponseHeader(..)
        | Other(_) => cause,
        quoting => into_ureq_error(error_of(&quoting, "the service")),
    }
}

fn run(agent: &Agent, request: Request<impl AsSendBody>, placement: &TokenPlacement) -> Result<Response<Body>, Error> {
    let plain_http = is_plain_http(request.uri());
    let host = host_of(request.uri());
    let config = limit_exposure(agent.configure_request(request), placement, plain_http).http_status_as_error(false);
    agent.run(config.build()).map_err(|cause| match cause {
        // The agent may have our own middleware as well, which reports its errors like this.
        ureq::Error::Other(other) => match other.downcast::<Error>() {
            Ok(error) => *error,
            Err(other) => error_of(&ureq::Error::Other(other), &host),
        },
        cause => error_of_service(&cause, &host),
    })
}

/// Describes why a service sent no response. The time limits of the agent are deadlines of the caller.
fn error_of_service(cause: &ureq::Error, host: &str) -> Error {
    match cause {
        ureq::Error::Timeout(_) => {
            Error::new(ErrorKind::TimedOut, format!("{host} did not answer within the time limit of the agent"))
        }
        cause => error_of(cause, host),
    }
}

/// Applies the settings that protect the token, whatever the agent's own settings are.
fn limit_exposure<S: AsSendBody>(
    config: ConfigBuilder<HttpCrateScope<S>>,
    placement: &TokenPlacement,
    plain_http: bool,
) -> ConfigBuilder<HttpCrateScope<S>> {
    // Plain HTTP is allowed to loopback only. A proxy would take the request off this machine.
    let config = if plain_http { config.proxy(None) } else { config };
    match placement {
        // `SameHost` ignores the port, so a redirect could take the token to another service on the same host.
        TokenPlacement::Header { name, .. } if name.eq_ignore_ascii_case(header::AUTHORIZATION.as_str()) => {
            config.redirect_auth_headers(RedirectAuthHeaders::Never).save_redirect_history(true)
        }
        // `ureq` sends all other headers along to any host, and a server may repeat the query in its `Location`.
        _ => config.max_redirects(0).max_redirects_will_error(false),
    }
}

fn is_plain_http(uri: &Uri) -> bool {
    uri.scheme_str() == Some("http")
}

/// Adds the token to the request where the provider's service expects it.
fn attach_token(head: &mut request::Parts, placement: &TokenPlacement, token: &Token) -> Result<(), Error> {
    match placement {
        TokenPlacement::Header { name, scheme } => {
            let fault =
                || Error::config("the provider's placement(..) names a header or scheme that HTTP does not allow");
            let name = HeaderName::try_from(&**name).map_err(|_| fault())?;
            let before = scheme.as_ref().map(|scheme| format!("{scheme} ")).unwrap_or_default();
            let text = Zeroizing::new([&before, token.expose()].concat());
            let mut value = HeaderValue::from_str(&text).map_err(|_| fault())?;
            value.set_sensitive(true);
            head.headers.insert(name, value);
        }
        TokenPlacement::Query { name } => head.uri = with_parameter(&head.uri, name, token.expose())?,
        TokenPlacement::NotSent => {
            return Err(Error::config("the tickets of this provider sign pages and are not sent with requests"));
        }
    }
    Ok(())
}

/// Returns `uri` with this query parameter, which replaces parameters of the same name. The rest is unchanged.
fn with_parameter(uri: &Uri, name: &str, value: &str) -> Result<Uri, Error> {
    let other = |pair: &&str| {
        let known = pair.split_once('=').map_or(*pair, |(known, _)| known);
        !pair.is_empty() && !percent_decode_str(known).eq(name.bytes())
    };
    let mut query =
        Zeroizing::new(uri.query().unwrap_or_default().split('&').filter(other).collect::<Vec<_>>().join("&"));
    if !query.is_empty() {
        query.push('&');
    }
    let address = Zeroizing::new([uri.path(), "?", &query, &query_encoded(name), "=", &query_encoded(value)].concat());
    let fault = |_| Error::config("the URL is too long for a token in its query");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(address.as_str()).map_err(fault)?);
    Uri::from_parts(parts).map_err(|_| Error::config("the URL cannot have a query for the token"))
}

/// Reads a body that may contain a vendor's code.
///
/// Returns the body, which can still be read from its start, and its bytes. The bytes are empty when the body was not
/// read to its end.
fn read_ahead(head: &response::Parts, body: Body) -> io::Result<(Body, Vec<u8>)> {
    let length = body.content_length();
    if !may_hold_a_code(&head.headers) || length.is_some_and(|length| length > MAX_READ_AHEAD as u64) {
        return Ok((body, Vec::new()));
    }
    let again = builder_like(&body);
    let mut reader = body.into_reader();
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = match reader.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        seen.extend_from_slice(&piece[..read]);
        if read == 0 {
            return Ok((again.data(seen.clone()), seen));
        }
        // A body of unknown length may be an endless stream, whose reader waits for the part that has already arrived.
        let stream = length.is_none() && head.status.is_success() && !starts_an_object(&seen);
        if stream || seen.len() > MAX_READ_AHEAD {
            return Ok((again.reader(Cursor::new(seen).chain(reader)), Vec::new()));
        }
    }
}

/// Returns a builder for a body with the content type of `body`, to be filled with the bytes that were read from
/// `body`.
fn builder_like(body: &Body) -> ureq::BodyBuilder {
    let mut builder = Body::builder();
    let Some(mime) = body.mime_type() else { return builder };
    builder = builder.mime_type(mime);
    // If `ureq` is built to decode text, these bytes are UTF-8 already and must not be decoded a second time.
    match body.charset().filter(|_| !mime.starts_with("text/")) {
        Some(charset) => builder.charset(charset),
        None => builder,
    }
}

/// Returns true when a body of this content type may contain a vendor's code.
fn may_hold_a_code(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // The next event of an event stream may come much later, so reading ahead would block.
    kind == "application/json" || kind.ends_with("+json") || (kind.starts_with("text/") && kind != "text/event-stream")
}

/// Returns true if `bytes` may be the start of a JSON object.
fn starts_an_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first().is_none_or(|first| *first == b'{')
}

/// Returns the vendor's code from the fields in which vendors put it.
fn vendor_code(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let flat = ["errcode", "code", "error"].into_iter().find_map(|name| code(json.get(name)?));
    flat.or_else(|| code(json.get("error")?.get("code")?)).filter(|code| code != "0")
}

const TWO_TOKENS_REFUSED: &str =
    "rejected two tokens in a row, so a third would not help; check the credential's rights";

const TOO_MANY: &str = "reports too many requests";

const NOT_REPEATED: &str =
    "the service rejected the token, and the request's body is a stream that cannot be sent again; send it anew";

/// The longest body that is searched for a vendor's code.
const MAX_READ_AHEAD: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_parameter_is_added_or_replaced_and_the_rest_is_unchanged() {
        for (before, after) in [
            ("https://h", "https://h/?to%20ken=a%2Fb%2B"),
            ("https://h/p?", "https://h/p?to%20ken=a%2Fb%2B"),
            ("https://h:8/p?a=%20&b", "https://h:8/p?a=%20&b&to%20ken=a%2Fb%2B"),
            ("https://h/?to%20ken=x&a=1&t%6F%20ken&to=2", "https://h/?a=1&to=2&to%20ken=a%2Fb%2B"),
        ] {
            let uri = with_parameter(&before.parse().expect("a URL"), "to ken", "a/b+").expect("room for it");
            assert_eq!(uri.to_string(), after);
        }
    }

    #[test]
    fn a_vendors_code_is_found_in_the_fields_of_vendors() {
        for (body, found) in [
            (r#"{"errcode":40014,"errmsg":"invalid"}"#, Some("40014")),
            (r#"{"code":"99991663"}"#, Some("99991663")),
            (r#"{"error":"invalid_token"}"#, Some("invalid_token")),
            (r#"{"error":{"code":"InvalidAuthenticationToken"}}"#, Some("InvalidAuthenticationToken")),
            (r#"{"errcode":0}"#, None),
            ("[40014]", None),
            ("", None),
        ] {
            assert_eq!(vendor_code(body.as_bytes()).as_deref(), found, "{body}");
        }
    }

    #[test]
    fn json_and_text_may_hold_a_code_and_event_streams_may_not() {
        let may = |kind: &'static str| {
            may_hold_a_code(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        for kind in ["application/json", "Application/JSON; charset=UTF-8", "application/problem+json", "text/plain"] {
            assert!(may(kind), "{kind}");
        }
        for kind in ["text/event-stream", "image/png", "application/x-ndjson", "application/octet-stream"] {
            assert!(!may(kind), "{kind}");
        }
        assert!(may_hold_a_code(&HeaderMap::new()));
    }

    #[test]
    fn text_is_not_decoded_twice() {
        let charset = |mime: &str| {
            let body = Body::builder().mime_type(mime).charset("gbk").data("");
            builder_like(&body).data("").charset().map(str::to_owned)
        };
        assert_eq!((charset("text/plain"), charset("application/json")), (None, Some("gbk".to_owned())));
    }

    #[test]
    fn a_ureq_error_that_quotes_an_address_is_replaced() {
        let secret = "https://host/?access_token=hunter2";
        for cause in [ureq::Error::BadUri(secret.into()), ureq::Error::RequireHttpsOnly(secret.into())] {
            let shown = redacted(cause);
            assert!(!format!("{shown} {shown:?}").contains("hunter2"));
            assert!(matches!(shown, ureq::Error::Other(error) if error.is::<Error>()));
        }
        assert!(matches!(redacted(ureq::Error::HostNotFound), ureq::Error::HostNotFound));
    }
}
