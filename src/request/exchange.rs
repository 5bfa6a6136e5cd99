//! One exchange with a service: sends a request with an agent, whose settings may not expose the token.

use ureq::config::{ConfigBuilder, RedirectAuthHeaders};
use ureq::http::{Request, Response, Uri, header};
use ureq::typestate::HttpCrateScope;
use ureq::{Agent, AsSendBody, Body};

use crate::error::{Error, ErrorKind};
use crate::http::{error_of, host_of};
use crate::provider::TokenPlacement;

pub(super) fn run(
    agent: &Agent,
    mut request: Request<impl AsSendBody>,
    placement: &TokenPlacement,
) -> Result<Response<Body>, Error> {
    let plain_http = is_plain_http(request.uri());
    let host = host_of(request.uri());
    request.extensions_mut().insert(StatusIsNoError);
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

/// Marks a request whose response is wanted even when its status is an error. Read by our own middleware.
#[derive(Clone, Copy)]
pub(super) struct StatusIsNoError;

/// Describes why a service sent no response. The time limits of the agent are deadlines of the caller.
pub(super) fn error_of_service(cause: &ureq::Error, host: &str) -> Error {
    match cause {
        ureq::Error::Timeout(_) => {
            Error::new(ErrorKind::TimedOut, format!("{host} did not answer within the time limit of the agent"))
        }
        cause => error_of(cause, host),
    }
}

/// Applies the settings that protect the token, whatever the agent's own settings are.
pub(super) fn limit_exposure<S: AsSendBody>(
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

pub(super) fn is_plain_http(uri: &Uri) -> bool {
    uri.scheme_str() == Some("http")
}
