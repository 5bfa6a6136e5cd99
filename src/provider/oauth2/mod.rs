//! OAuth 2.0, at any server, and what all its token endpoints have in common.

mod assertion;
pub(crate) mod client_credentials;
pub(crate) mod device;
pub(crate) mod google;
mod jwt_bearer;
pub(crate) mod refresh_token;

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
use crate::secret::Secret;

/// How a token endpoint of the family refuses, as far as it is not the standard's way.
pub(super) struct OAuthErrors {
    /// What its own codes mean, and what helps with the standard's when it is more than the standard says. The first
    /// that knows a code counts.
    pub(super) rules: &'static [&'static [ErrorRule]],
    /// Its own code, where it tells one beside the standard's word.
    pub(super) vendor_code: fn(&Json) -> Option<String>,
    /// How long to wait when it says "too much" and not how long.
    pub(super) default_retry_after: Duration,
}

impl OAuthErrors {
    pub(super) const STANDARD: OAuthErrors =
        OAuthErrors { rules: &[], vendor_code: |_| None, default_retry_after: Duration::from_secs(5) };

    /// The object in a reply of the token endpoint, unless it is a refusal. `secrets` are what was sent and must not be
    /// told.
    pub(super) fn accept(&self, reply: &TokenResponse, secrets: &[&Secret]) -> Result<Json, Error> {
        let json = reply.json();
        // Some servers send an error with HTTP 200.
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

    /// What an error of the token endpoint means: its own code says more than the word, and the word more than the
    /// status.
    fn error_for(&self, reply: &TokenResponse, own: Option<&str>, word: &str) -> Error {
        let by_status = reply.status_error();
        let find = |code: &str| {
            let mut rows = self.rules.iter().copied().flatten().chain(STANDARD_ERROR_RULES);
            rows.find(|(known, ..)| *known == code)
        };
        match own.and_then(find).or_else(|| find(word)) {
            // Too many calls is too many calls, whatever code comes with it.
            Some((_, kind, advice)) if reply.status() != 429 => by_status.recast(*kind, advice),
            _ if reply.is_success() => by_status.recast(ErrorKind::InvalidResponse, "the token was refused"),
            _ => by_status,
        }
    }

    /// A server that says "too much" and not how long gets a pause all the same.
    fn with_default_retry_after(&self, error: Error) -> Error {
        let silent = error.kind() == ErrorKind::Throttled && error.retry_after().is_none();
        if silent { error.with_retry_after(self.default_retry_after) } else { error }
    }
}

/// An address without its query, and the query, which may hold a secret.
fn split_url(url: &str) -> (&str, &str) {
    url.split_once('?').unwrap_or((url, ""))
}

/// Adds further parameters of a request to an identity, in whatever order they were set.
fn add_params_to_identity(mut identity: Identity, params: &[(String, Secret)]) -> Identity {
    let mut params: Vec<_> = params.iter().collect();
    params.sort_by_key(|(name, value)| (name, value.expose()));
    for (name, value) in params {
        identity = identity.part("param", name).secret(value);
    }
    identity
}

/// The codes of the token endpoint: the standards', and those that servers have made up beside them.
const STANDARD_ERROR_RULES: &[ErrorRule] = &[
    ("access_denied", ErrorKind::Forbidden, "the server does not allow this client the token"),
    ("internal_failure", ErrorKind::Unavailable, "the server has an internal fault"),
    (
        "invalid_client",
        ErrorKind::InvalidCredentials,
        "the client id or secret is wrong, or is sent in another way than wanted",
    ),
    ("invalid_grant", ErrorKind::InvalidCredentials, "the server does not accept the grant"),
    ("invalid_request", ErrorKind::Config, "the server misses or does not know a parameter"),
    ("invalid_resource", ErrorKind::Config, "the server does not know the resource"),
    ("invalid_scope", ErrorKind::Config, "the scope is unknown or not open to this client"),
    ("invalid_target", ErrorKind::Config, "the server does not know the resource or audience"),
    ("server_error", ErrorKind::Unavailable, "the server has an internal fault"),
    ("slow_down", ErrorKind::Throttled, "there were too many calls"),
    ("temporarily_unavailable", ErrorKind::Unavailable, "the server is busy"),
    ("unauthorized_client", ErrorKind::InvalidCredentials, "the client may not use this kind of grant"),
    ("unsupported_grant_type", ErrorKind::Config, "the server does not know this kind of grant"),
];
