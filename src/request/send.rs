//! `TokenManager::send`: sends a request with a token, and once more when the service rejects the token.

use std::io;

use ureq::http::{Request, Response, request};
use ureq::{Agent, Body};

use super::body::RequestBody;
use super::exchange::error_of_service;
use super::inspection::Inspected;
use super::placement::attach_token;
use crate::error::{Error, ErrorKind};
use crate::http::{check_uri, host_of, is_quotable};
use crate::manager::TokenManager;
use crate::provider::{TokenPlacement, Verdict};
use crate::token::Token;

impl TokenManager {
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
    /// connection, not a timeout, not a 5xx status, not throttling. After such a failure the service may have carried
    /// the request out. A body that is a [stream](RequestBody::reader) is sent once.
    ///
    /// # Differences from the agent's settings
    ///
    /// - An error status is not an error: the response is returned. Throttling and a second refusal of the token are
    ///   errors, listed below.
    /// - The token is sent to HTTPS addresses only, or by plain HTTP to loopback, without a proxy.
    /// - The token is not sent along with a redirect, and a response after a redirect is no rejection. `ureq` can drop
    ///   only the header `Authorization` from a redirected request. With a token in the query or in another header, no
    ///   redirect is followed and the redirect itself is returned.
    ///
    /// # Cookies
    ///
    /// With the feature `cookies` of `ureq`, an agent keeps the cookies of a service and sends them with every later
    /// request to that service, whichever token goes along. Services may keep a session in a cookie, so use an agent of
    /// its own for each manager: then no cookie of one credential travels with the token of another. Requests for
    /// tokens never carry cookies.
    ///
    /// # The body of the response
    ///
    /// To find a vendor's code, up to 64 KiB of a body that is JSON, text or without a content type are read before
    /// this function returns. Longer bodies are not searched.
    ///
    /// A successful body of unknown length may be a stream. This function returns as soon as the first JSON object of
    /// such a body has arrived, and searches that object only. When the body begins with something else, this function
    /// returns at once. So JSON lines, event streams and other streaming replies are not held back.
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
    /// - [`ErrorKind::TimedOut`]: the response did not come within the time limits of the agent.
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
            match code.filter(|code| is_quotable(code, self.sent.iter().map(Token::expose))) {
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

const TWO_TOKENS_REFUSED: &str =
    "refused the token of both attempts, so a third would not help; check the credential's rights";

const TOO_MANY: &str = "reports too many requests; wait before the next one";

const NOT_REPEATED: &str =
    "the service rejected the token, and the request's body is a stream that cannot be sent again; send it anew";
