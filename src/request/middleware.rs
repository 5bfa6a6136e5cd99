//! A middleware for agents of `ureq` that sends a token with every request.

use ureq::http::{Request, Response};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::{Body, RequestExt, SendBody};

use super::exchange::{is_plain_http, limit_exposure};
use super::placement::attach_token;
use crate::error::Error;
use crate::http::{HeaderMap, check_uri, error_of};
use crate::manager::TokenManager;
use crate::provider::Verdict;
use crate::token::Token;

impl TokenManager {
    /// Returns a middleware for a `ureq` agent that sends a token with every request; see [`TokenMiddleware`].
    #[must_use]
    pub fn middleware(&self) -> TokenMiddleware {
        TokenMiddleware(self.clone())
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
