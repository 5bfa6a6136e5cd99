//! Using the token: calls, requests and a middleware that know a rejection when they see one.

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
use crate::http::{HeaderMap, check_uri, code, error_of, query_encoded};
use crate::manager::TokenManager;
use crate::provider::{JsSignature, ServiceResponse, TokenPlacement, Verdict, nonce, signed_part};
use crate::token::Token;

/// Using the token. The token goes where the provider wants it, and a rejected one is replaced.
impl TokenManager {
    /// Calls `f` with a token, and once more with another one when `f` says that the first was refused.
    ///
    /// `f` says so with [`CallError::Rejected`]; [`verdict`](TokenManager::verdict) tells what an answer means. `?`
    /// turns any error of yours into [`CallError::Failed`], which is returned at once. `f` runs at most twice: a
    /// service that refuses two tokens in a row refuses for another reason, so the second token is not rejected and
    /// nothing loops. Blocks as [`token`](TokenManager::token) does, and as long as `f` does.
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
    /// [`CallError::Rejected`] when two tokens were refused, [`CallError::Token`] when there is no token to call with,
    /// [`CallError::Failed`] with what `f` failed with.
    pub fn call<T, E>(&self, mut f: impl FnMut(&Token) -> Result<T, CallError<E>>) -> Result<T, CallError<E>> {
        let token = self.token().map_err(CallError::Token)?;
        match f(&token) {
            Err(CallError::Rejected) => {
                self.reject_here(&token);
                f(&self.token().map_err(CallError::Token)?)
            }
            answer => answer,
        }
    }

    /// What an answer of the service says about the token that was sent with the request.
    ///
    /// The provider decides: by the status, and where the vendor puts its codes into the body by those. `body` may be
    /// empty when it was not read. This changes nothing: a refused token is rejected by
    /// [`reject`](TokenManager::reject).
    pub fn verdict(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Verdict {
        let answer = ServiceResponse::new(status, headers, body);
        let inspected = catch_panic(|| Ok(self.keeper().provider.verdict(&answer)));
        inspected.unwrap_or_else(|_| answer.http_verdict())
    }

    /// Sends `request` with a token, and once more with another one when the service refuses the first.
    ///
    /// The token goes where the provider wants it; a header or a parameter of the same name that is there already is
    /// replaced. A refusal is known by the status or by the vendor's code in the body. The request is repeated when its
    /// body is held as bytes; a [stream](RequestBody::reader) is sent once.
    ///
    /// `agent` is used as it is set, except that
    /// - an error status is an answer: it is returned, for the caller to look at;
    /// - the token goes to HTTPS addresses, and by plain HTTP to loopback only, past any proxy;
    /// - when a redirect is followed, the token stays behind, and what comes from there says nothing about it. A token
    ///   in the query, or in a header of another name than `Authorization`, cannot be left behind: then no redirect is
    ///   followed, and the redirect is the answer.
    ///
    /// Bodies can be read in full. The first 64 KiB are read ahead if they may hold a code, which is when they are JSON
    /// or text or do not say what they are. A longer body is not searched for codes, nor is a successful one of unknown
    /// length that does not begin as a JSON object: it may be a stream. The address that `ureq` keeps with the answer
    /// (`get_uri`) has the token in it when the query carries it; do not log that.
    ///
    /// Blocks as [`token`](TokenManager::token) does, and as long as the agent's time limits let it; `ureq` has none
    /// unless they are set.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TokenRejected`] when two tokens were refused, or one and the body was a stream: then that token is out
    /// of use, and the request can be put together again. [`ErrorKind::Throttled`] when there were too many calls; it
    /// is not sent again. [`ErrorKind::Config`] for an address that a token must not be sent to. Else what
    /// [`token`](TokenManager::token) fails with, or that there was no proper answer. No error quotes address or
    /// answer.
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

    /// A middleware for a `ureq` agent that sends a token with every request. See [`TokenMiddleware`].
    #[must_use]
    pub fn middleware(&self) -> TokenMiddleware {
        TokenMiddleware(self.clone())
    }

    /// Signs the page at `url` with the held ticket, so that it can call the vendor's JavaScript interface.
    ///
    /// For a manager of [`WeComJsTicket`](crate::provider::wecom::WeComJsTicket) or [`WeChatJsTicket`](crate::provider::wechat::WeChatJsTicket). `url` is
    /// the page's address as the browser shows it, its query included; what follows a `#` is not signed. Blocks as
    /// [`token`](TokenManager::token) does.
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
    /// [`ErrorKind::Config`] when `url` is not a whole address, or what the provider grants is no ticket but a token
    /// that travels with requests. Else as `token`.
    pub fn js_signature(&self, url: &str) -> Result<JsSignature, Error> {
        if self.placement()? != TokenPlacement::NotSent {
            return Err(Error::config("only tickets sign pages, and this provider grants tokens"));
        }
        let url = signed_part(url)?;
        let ticket = self.token()?;
        let since_1970 = self.keeper().now().wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(JsSignature::sign(ticket.secret(), url, nonce(), since_1970.as_secs()))
    }

    fn placement(&self) -> Result<TokenPlacement, Error> {
        catch_panic(|| Ok(self.keeper().provider.placement()))
    }

    fn reject_here(&self, refused: &Token) {
        // An error means that other processes could not be told. Here the token is out of use, and the store heals.
        drop(self.reject(refused));
    }

    /// Finds out what an answer says about the token that was sent, and leaves it readable in full.
    fn inspect(&self, response: Response<Body>) -> io::Result<Inspected> {
        if response.get_redirect_history().is_some_and(|way| way.len() > 1) {
            // Where it came from, the token was not shown.
            return Ok(Inspected { response, verdict: Verdict::Accepted, code: None });
        }
        let (head, body) = response.into_parts();
        let (body, seen) = read_ahead(&head, body)?;
        let verdict = self.verdict(head.status.as_u16(), &head.headers, &seen);
        let code = if verdict == Verdict::Accepted { None } else { vendor_code(&seen) };
        Ok(Inspected { response: Response::from_parts(head, body), verdict, code })
    }
}

/// A request on its way.
struct RequestSender<'a> {
    tokens: &'a TokenManager,
    agent: &'a Agent,
    head: request::Parts,
    placement: TokenPlacement,
    body: RequestBody,
    /// The tokens that the service has seen, and could quote.
    sent: Vec<Token>,
}

impl RequestSender<'_> {
    /// Sends the request once.
    fn attempt(&mut self, token: &Token) -> Result<Attempt, Error> {
        let mut head = self.head.clone();
        attach_token(&mut head, &self.placement, token)?;
        self.sent.push(token.clone());
        let response = self.body.run(self.agent, head, &self.placement)?;
        let status = response.status().as_u16();
        let unreadable = |cause: io::Error| error_of(&cause.into()).with_status(status);
        let Inspected { response, verdict, code } = self.tokens.inspect(response).map_err(unreadable)?;
        let refused = |kind, text| {
            let error = Error::new(kind, text).with_status(status);
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
    /// The token was refused. The error is for the case that it was the last one.
    Refused(Error),
}

struct Inspected {
    response: Response<Body>,
    verdict: Verdict,
    /// The vendor's own word for it.
    code: Option<String>,
}

/// How a call with a token ends without success. These are all ways there are, so it can be matched in full.
#[derive(Debug)]
pub enum CallError<E> {
    /// The service refused the token. Returned by the caller's closure, it is tried once more with another one.
    Rejected,
    /// There is no token to call with.
    Token(Error),
    /// The call itself failed, for a reason that is not the token.
    Failed(E),
}

impl<E> From<E> for CallError<E> {
    fn from(error: E) -> CallError<E> {
        CallError::Failed(error)
    }
}

impl<E> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CallError::Rejected => "the service refused the token",
            CallError::Token(_) => "there is no token to call with",
            CallError::Failed(_) => "the call failed",
        })
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

/// The body of a request that [`TokenManager::send`] sends: nothing, bytes or text, which can be sent again, or a
/// [stream](RequestBody::reader), which cannot.
pub struct RequestBody(Content);

enum Content {
    Empty,
    Bytes(Vec<u8>),
    Stream(Box<dyn Read + Send>),
}

impl RequestBody {
    /// A stream, sent in chunks unless the request has a `Content-Length`. It is read once, so a request with it is not
    /// repeated when the token is refused.
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
            // So that it is said to be of length zero, which many servers insist on.
            Content::Empty => run(agent, Request::from_parts(head, [].as_slice()), placement),
            Content::Bytes(bytes) => run(agent, Request::from_parts(head, bytes.as_slice()), placement),
            Content::Stream(reader) => {
                let mut stream = TrackedReader { reader, failed: false };
                let outcome = run(agent, Request::from_parts(head, SendBody::from_reader(&mut stream)), placement);
                if stream.failed { Err(Error::config("the request's body could not be read")) } else { outcome }
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

/// Remembers that the caller's reader failed: to `ureq` it looks like a failure of the connection.
struct TrackedReader<'a> {
    reader: &'a mut dyn Read,
    failed: bool,
}

impl Read for TrackedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).inspect_err(|_| self.failed = true)
    }
}

/// A middleware that sends a token with every request of an agent, and rejects the token when the service refuses it.
///
/// It cannot repeat a request, because `ureq` hands each one over once: the refusal reaches the caller, and the next
/// request has another token. [`TokenManager::send`] repeats by itself.
///
/// Where the token goes, which redirects are followed and how answers are read is the same as with `send`. Use the
/// agent for the service alone: whatever HTTPS address it is asked for is shown the token.
///
/// Answers pass as they are, throttling too. While the agent turns error statuses into errors, as it does unless
/// `http_status_as_error(false)` is set, such a status is all there is to judge by: neither its headers nor its body
/// can be seen, nor whether a redirect came before it.
///
/// When there is no token, or the address is not one to send it to, the caller gets a `ureq::Error::Other` that holds
/// our [`Error`]. Errors of `ureq` that quote addresses are replaced in the same way.
///
/// It holds a clone of the manager, which lives as long as the agent.
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
        let config = config.ok_or_else(|| Error::config("another middleware has dropped the request's extensions"))?;
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

/// The error, if it cannot quote the address or what the service sent; else our words for it.
fn redacted(cause: ureq::Error) -> ureq::Error {
    use ureq::Error::*;
    match cause {
        // What is in `Other` was put there by another middleware, which is the program's own.
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
        quoting => into_ureq_error(error_of(&quoting)),
    }
}

fn run(agent: &Agent, request: Request<impl AsSendBody>, placement: &TokenPlacement) -> Result<Response<Body>, Error> {
    let plain_http = is_plain_http(request.uri());
    let config = limit_exposure(agent.configure_request(request), placement, plain_http).http_status_as_error(false);
    agent.run(config.build()).map_err(|cause| match cause {
        // From our own middleware, if the agent has it too.
        ureq::Error::Other(other) => match other.downcast::<Error>() {
            Ok(error) => *error,
            Err(other) => error_of(&ureq::Error::Other(other)),
        },
        cause => error_of(&cause),
    })
}

/// What a request that carries a token needs, whatever the agent is set to.
fn limit_exposure<S: AsSendBody>(
    config: ConfigBuilder<HttpCrateScope<S>>,
    placement: &TokenPlacement,
    plain_http: bool,
) -> ConfigBuilder<HttpCrateScope<S>> {
    // Plain HTTP goes to loopback only; by a proxy it would leave the machine.
    let config = if plain_http { config.proxy(None) } else { config };
    match placement {
        // `SameHost` does not look at the port, so a redirect could carry the token to another service.
        TokenPlacement::Header { name, .. } if name.eq_ignore_ascii_case(header::AUTHORIZATION.as_str()) => {
            config.redirect_auth_headers(RedirectAuthHeaders::Never).save_redirect_history(true)
        }
        // `ureq` would take another header along to any host; a query comes back in the address that a server names.
        _ => config.max_redirects(0).max_redirects_will_error(false),
    }
}

fn is_plain_http(uri: &Uri) -> bool {
    uri.scheme_str() == Some("http")
}

/// Puts the token where the provider wants it.
fn attach_token(head: &mut request::Parts, placement: &TokenPlacement, token: &Token) -> Result<(), Error> {
    match placement {
        TokenPlacement::Header { name, scheme } => {
            let fault = || Error::config("the provider wants the token in a header that HTTP does not allow");
            let name = HeaderName::try_from(&**name).map_err(|_| fault())?;
            let before = scheme.as_ref().map(|scheme| format!("{scheme} ")).unwrap_or_default();
            let text = Zeroizing::new([&before, token.expose()].concat());
            let mut value = HeaderValue::from_str(&text).map_err(|_| fault())?;
            value.set_sensitive(true);
            head.headers.insert(name, value);
        }
        TokenPlacement::Query { name } => head.uri = with_parameter(&head.uri, name, token.expose())?,
        TokenPlacement::NotSent => {
            return Err(Error::config("this token signs pages and does not travel with requests"));
        }
    }
    Ok(())
}

/// `uri` with this parameter in its query, in place of any of the same name. All else stays as it is.
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
    let fault = |_| Error::config("the URL is too long to take the token");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(address.as_str()).map_err(fault)?);
    Uri::from_parts(parts).map_err(|_| Error::config("the URL cannot take a query"))
}

/// Reads ahead what may hold a vendor's code: the body, readable in full, and all of it when it was read to its end.
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
        // Of unknown length it may be a stream without end, whose reader waits for what is there already.
        let stream = length.is_none() && head.status.is_success() && !starts_an_object(&seen);
        if stream || seen.len() > MAX_READ_AHEAD {
            return Ok((again.reader(Cursor::new(seen).chain(reader)), Vec::new()));
        }
    }
}

/// A builder for a body like this one, for the bytes that come out of it.
fn builder_like(body: &Body) -> ureq::BodyBuilder {
    let mut builder = Body::builder();
    let Some(mime) = body.mime_type() else { return builder };
    builder = builder.mime_type(mime);
    // `ureq` may be built to decode text, and then these bytes are decoded already.
    match body.charset().filter(|_| !mime.starts_with("text/")) {
        Some(charset) => builder.charset(charset),
        None => builder,
    }
}

fn may_hold_a_code(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // Events come when they come.
    kind == "application/json" || kind.ends_with("+json") || (kind.starts_with("text/") && kind != "text/event-stream")
}

/// True while it may still be the beginning of a JSON object.
fn starts_an_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first().is_none_or(|first| *first == b'{')
}

/// The vendor's code, where vendors put it.
fn vendor_code(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let flat = ["errcode", "code", "error"].into_iter().find_map(|name| code(json.get(name)?));
    flat.or_else(|| code(json.get("error")?.get("code")?)).filter(|code| code != "0")
}

const TWO_TOKENS_REFUSED: &str = "the service refused two tokens in a row, so another one would not help";

const TOO_MANY: &str = "there were too many calls";

const NOT_REPEATED: &str =
    "the service refused the token, and the request's body is a stream that cannot be sent again";

/// The longest body that is searched for a code.
const MAX_READ_AHEAD: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_added_or_replaced_and_all_else_stays() {
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
    fn a_vendors_code_is_found_where_vendors_put_it() {
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
    fn only_json_and_text_that_ends_may_hold_a_code() {
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
    fn a_text_that_may_be_decoded_already_is_not_decoded_again() {
        let charset = |mime: &str| {
            let body = Body::builder().mime_type(mime).charset("gbk").data("");
            builder_like(&body).data("").charset().map(str::to_owned)
        };
        assert_eq!((charset("text/plain"), charset("application/json")), (None, Some("gbk".to_owned())));
    }

    #[test]
    fn an_error_of_ureq_that_quotes_an_address_is_replaced() {
        let secret = "https://host/?access_token=hunter2";
        for cause in [ureq::Error::BadUri(secret.into()), ureq::Error::RequireHttpsOnly(secret.into())] {
            let shown = redacted(cause);
            assert!(!format!("{shown} {shown:?}").contains("hunter2"));
            assert!(matches!(shown, ureq::Error::Other(error) if error.is::<Error>()));
        }
        assert!(matches!(redacted(ureq::Error::HostNotFound), ureq::Error::HostNotFound));
    }
}
