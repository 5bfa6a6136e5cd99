//! OAuth 2.0 at any server: client credentials, refresh tokens, signed assertions, device sign-in.
//!
//! | Grant (`grant_type`) | Provider | Standard |
//! |---|---|---|
//! | `client_credentials` | [`OAuth2`] | RFC 6749, section 4.4 |
//! | `refresh_token` | [`RefreshToken`] | RFC 6749, section 6 |
//! | `urn:ietf:params:oauth:grant-type:device_code` | [`DeviceSignIn`](crate::DeviceSignIn) | RFC 8628 |
//! | `urn:ietf:params:oauth:grant-type:jwt-bearer` | [`JwtBearer`] | RFC 7523, section 2.1 |
//! | the same at Google | [`GoogleServiceAccount`] | service account JSON |
//!
//! The first three share a client: [`OAuth2`] holds `token_endpoint`, `client_id`, `client_secret` or
//! key, and the way in which the client authenticates, a [`ClientAuth`].
//!
//! # Errors of a token endpoint
//!
//! Every grant reads errors in the same way (RFC 6749, section 5.2): from the field `error` of the JSON reply, whatever
//! the HTTP status is, because some servers send errors with HTTP 200. A grant and a vendor may add rules of their own,
//! which apply before the rules of the standard: `invalid_grant` means a wrong assertion in one grant and a refused
//! refresh token in another.
//!
//! # Scope
//!
//! A server may grant less than the asked `scope`. The token is used, and one log warning names the scopes that are
//! missing. A new warning comes when other scopes are missing.

mod assertion;
pub(crate) mod client_credentials;
pub(crate) mod device;
pub(crate) mod google;
mod jwt_bearer;
pub(crate) mod refresh_token;
mod scope;

pub use client_credentials::ClientAuth;
pub use jwt_bearer::JwtBearer;

pub use crate::provider::jwt::SigningKey;

pub(crate) use client_credentials::OAuth2;
pub(crate) use google::GoogleServiceAccount;
pub(crate) use refresh_token::RefreshToken;

pub(super) use assertion::{ASSERTION_TYPE, client_assertion};

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::http::{Json, TokenResponse};
use crate::key::Identity;
use crate::provider::errors::{ErrorRule, with_vendor_details};
use crate::provider::settings::check_line_or_document;
use crate::secret::Secret;

/// The errors of a token endpoint, as far as they differ from the standard.
pub(super) struct OAuthErrors {
    /// Lists of rules for the vendor's own codes, and for codes of the standard that mean more at this endpoint. The
    /// first rule for a code applies, and the standard's rules come last.
    pub(super) rules: &'static [&'static [ErrorRule]],
    /// Reads the vendor's own code, which some vendors add to the standard's `error`.
    pub(super) vendor_code: fn(&Json) -> Option<String>,
    /// The text for an `error` that no rule has, in a response with HTTP 400 or 401.
    pub(super) unknown_refusal: &'static str,
    /// How long to wait after a throttling error without `Retry-After`.
    pub(super) default_retry_after: Duration,
}

impl OAuthErrors {
    /// The errors of the standard, without additions.
    pub(super) const STANDARD: OAuthErrors = OAuthErrors {
        rules: &[],
        vendor_code: |_| None,
        unknown_refusal: UNKNOWN_REFUSAL,
        default_retry_after: Duration::from_secs(5),
    };

    /// Returns the JSON object in a reply of the token endpoint, or the error that the reply reports. `secrets` were
    /// sent in the request and must not appear in the error.
    pub(super) fn accept(&self, reply: &TokenResponse, secrets: &[&Secret]) -> Result<Json, Error> {
        let json = reply.json();
        // Some servers report errors with HTTP 200.
        let found = json.as_ref().ok().and_then(|json| Some((json, json.code("error")?)));
        if let Some((json, word)) = found.filter(|(_, word)| !word.is_empty()) {
            let own = (self.vendor_code)(json);
            let refusal = self.with_default_retry_after(self.error_for(reply, own.as_deref(), &word));
            return Err(with_vendor_details(refusal, own.or(Some(word)), reply, json, secrets));
        }
        if !reply.is_success() {
            return Err(self.with_default_retry_after(reply.status_error()));
        }
        json
    }

    /// Returns the error for a code. The vendor's own code says more than `error`, and `error` more than the status.
    fn error_for(&self, reply: &TokenResponse, own: Option<&str>, word: &str) -> Error {
        let by_status = reply.status_error();
        let find = |code: &str| {
            let mut rows = self.rules.iter().copied().flatten().chain(STANDARD_ERROR_RULES);
            rows.find(|(known, ..)| *known == code)
        };
        match own.and_then(find).or_else(|| find(word)) {
            // HTTP 429 is a throttling error whatever code the reply has.
            Some((_, kind, advice)) if reply.status() != 429 => by_status.recast(*kind, advice),
            // RFC 6749, section 5.2: the server understood the request and refused it. Another try has the same answer.
            _ if matches!(reply.status(), 400 | 401) => {
                by_status.recast(ErrorKind::InvalidCredentials, self.unknown_refusal)
            }
            _ if reply.is_success() => by_status.recast(
                ErrorKind::InvalidResponse,
                "the token endpoint refused the request; look up the code in the server's documentation",
            ),
            _ => by_status,
        }
    }

    /// Adds the default wait to a throttling error without `Retry-After`.
    fn with_default_retry_after(&self, error: Error) -> Error {
        let has_no_wait = error.kind() == ErrorKind::Throttled && error.retry_after().is_none();
        if has_no_wait { error.with_retry_after(self.default_retry_after) } else { error }
    }
}

/// Checks the lifetime of a token for which the server names none.
fn check_default_lifetime(lifetime: Duration) -> Result<(), Error> {
    if lifetime.is_zero() {
        return Err(Error::config(
            "a default lifetime of zero would make every token an expired one; set a longer one",
        ));
    }
    Ok(())
}

/// Checks further parameters of a request. A parameter in `own` is one that the provider sets itself, and would be sent
/// twice, which RFC 6749, section 3.2 forbids.
fn check_params(params: &[(String, Secret)], own: &[OwnParam]) -> Result<(), Error> {
    for (name, value) in params {
        if name.is_empty() {
            return Err(Error::config("a parameter has no name; pass the name and the value"));
        }
        if let Some((_, advice)) = own.iter().find(|(own, _)| own == name) {
            return Err(Error::config(format!("the provider sends the parameter {name} itself; {advice}")));
        }
        check_line_or_document(&format!("the parameter {name}"), value.expose())?;
    }
    Ok(())
}

/// The name of a parameter that a provider sets itself, and what to do instead of setting it.
type OwnParam = (&'static str, &'static str);

/// Splits a URL into the part before the query and the query, which may contain a secret.
fn split_url(url: &str) -> (&str, &str) {
    url.split_once('?').unwrap_or((url, ""))
}

/// Adds further parameters of a request to an identity, sorted, so that the order of the calls does not matter.
fn add_params_to_identity(mut identity: Identity, params: &[(String, Secret)]) -> Identity {
    let mut params: Vec<_> = params.iter().collect();
    params.sort_by_key(|(name, value)| (name, value.expose()));
    for (name, value) in params {
        identity = identity.part("param", name).secret(value);
    }
    identity
}

/// The codes of RFC 6749, RFC 6750, RFC 8628 and RFC 8707, and codes that many servers add.
const STANDARD_ERROR_RULES: &[ErrorRule] = &[
    (
        "access_denied",
        ErrorKind::Forbidden,
        "the server does not allow this client the token; check the client's rights at the server",
    ),
    ("internal_failure", ErrorKind::Unavailable, INTERNAL_ERROR),
    (
        "invalid_client",
        ErrorKind::InvalidCredentials,
        "the client id or the client secret is wrong, or the server expects another authentication method; see \
         `ClientAuth`",
    ),
    (
        "invalid_grant",
        ErrorKind::InvalidCredentials,
        "the server does not accept the grant; check the code, assertion or token that was sent",
    ),
    (
        "invalid_request",
        ErrorKind::Config,
        "a parameter is missing or unknown; check scope, audience, resource and further parameters",
    ),
    ("invalid_resource", ErrorKind::Config, "the resource is unknown to the server; check `resource`"),
    ("invalid_scope", ErrorKind::Config, "the scope is unknown, or not allowed for this client; check `scope`"),
    (
        "invalid_target",
        ErrorKind::Config,
        "the resource or the audience is unknown to the server; check `resource` and `audience`",
    ),
    ("server_error", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("slow_down", ErrorKind::Throttled, "there were too many requests; wait, or share the token through a store"),
    ("temporarily_unavailable", ErrorKind::Unavailable, "the server is busy; try again later"),
    (
        "unauthorized_client",
        ErrorKind::InvalidCredentials,
        "the client may not use this grant type; allow it at the server",
    ),
    (
        "unsupported_grant_type",
        ErrorKind::Config,
        "the server does not support this grant type; check that token_url is the token endpoint",
    ),
];

const UNKNOWN_REFUSAL: &str = "the server refused the request with an error that is unknown to this crate; look up the \
                               error's code at the server";

const INTERNAL_ERROR: &str = "the server reports an internal error";
