//! A middleware for agents of `ureq` that sends a token with every request.

use ureq::http::{Request, Response};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::{Body, RequestExt, SendBody};

use super::exchange::{StatusIsNoError, is_plain_http, limit_exposure};
use super::placement::attach_token;
use crate::error::Error;
use crate::http::{check_uri, error_of};
use crate::manager::TokenManager;
use crate::provider::Verdict;
use crate::token::Token;

impl TokenManager {
    /// Returns a middleware for a `ureq` agent that sends a token with every request; see [`TokenMiddleware`].
    #[must_use]
    pub fn middleware(&self) -> TokenMiddleware {
        TokenMiddleware { tokens: self.clone(), status_as_error: true }
    }
}

/// A middleware for a [`ureq::Agent`] that sends a token with every request and rejects the token when the service
/// refuses it. Created by [`TokenManager::middleware`].
///
/// The middleware sends each request once, because `ureq` gives it each request once. A response that rejects the token
/// therefore reaches the caller, and the next request has a new token. [`TokenManager::send`] repeats the request
/// itself.
///
/// Placement of the token, redirects, cookies and reading ahead are the same as with [`TokenManager::send`]. Use the
/// agent for this service only, because every HTTPS address that the agent is asked for gets the token.
///
/// Responses are passed on unchanged, including throttling. An error status becomes a [`ureq::Error::StatusCode`] after
/// the middleware has read the response, unless [`http_status_as_error(false)`](TokenMiddleware::http_status_as_error)
/// is set on the middleware. The setting of the same name on the agent has no effect, because such an error of `ureq`
/// itself tells neither what the response says nor which host sent it.
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
pub struct TokenMiddleware {
    tokens: TokenManager,
    status_as_error: bool,
}

impl TokenMiddleware {
    /// Sets whether a status from 400 to 599 is an error ([`ureq::Error::StatusCode`]) or a response. Default: true, as
    /// in `ureq`. Replaces the agent's setting of the same name.
    #[must_use]
    pub fn http_status_as_error(self, status_as_error: bool) -> TokenMiddleware {
        TokenMiddleware { status_as_error, ..self }
    }

    fn prepare<'a>(&self, request: Request<SendBody<'a>>) -> Result<(Request<SendBody<'a>>, Token), Error> {
        check_uri(request.uri()).map_err(Error::config)?;
        let placement = self.tokens.placement()?;
        let token = self.tokens.token()?;
        let (mut head, body) = request.into_parts();
        attach_token(&mut head, &placement, &token)?;
        head.extensions.insert(StatusIsNoError);
        let plain_http = is_plain_http(&head.uri);
        let config = Request::from_parts(head, body).middleware_config();
        let config =
            config.ok_or_else(|| Error::config("another middleware of the agent removed the request's extensions"))?;
        Ok((limit_exposure(config, &placement, plain_http).http_status_as_error(false).build(), token))
    }
}

impl Middleware for TokenMiddleware {
    fn handle(&self, request: Request<SendBody<'_>>, next: MiddlewareNext<'_>) -> Result<Response<Body>, ureq::Error> {
        // `send` and the middleware of another manager want to see every response.
        let status_as_error = self.status_as_error && request.extensions().get::<StatusIsNoError>().is_none();
        let (request, token) = self.prepare(request).map_err(into_ureq_error)?;
        let response = next.handle(request).map_err(redacted)?;
        let inspected = self.tokens.inspect(response).map_err(|cause| redacted(cause.into()))?;
        if inspected.verdict == Verdict::Rejected {
            self.tokens.reject_here(&token);
        }
        let status = inspected.response.status();
        if status_as_error && (status.is_client_error() || status.is_server_error()) {
            return Err(ureq::Error::StatusCode(status.as_u16()));
        }
        Ok(inspected.response)
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
        // `Other` and `StatusCode` come from another middleware of the program.
        Io(_)
        | StatusCode(_)
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

#[cfg(test)]
mod tests {
    use super::*;

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
