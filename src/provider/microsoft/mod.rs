//! Microsoft: Entra ID (Azure AD), Bot Framework, Azure managed identities.
//!
//! | Token | Provider | Requested at |
//! |---|---|---|
//! | of an app, for Graph or another API | [`Entra`] | `/{tenant}/oauth2/v2.0/token` |
//! | of a bot, for the Bot Connector | [`BotFramework`] | `/botframework.com/oauth2/v2.0/token` |
//! | of a machine or app in Azure | [`ManagedIdentity`] | IMDS (`169.254.169.254`) or `IDENTITY_ENDPOINT` |
//!
//! [`Error::code`](crate::Error::code) is Entra's own number, such as `AADSTS7000215`. The known
//! numbers decide the kind and the text of the error. For any other number `error` decides, as in RFC 6749.

mod bot_framework;
mod claims;
pub(crate) mod entra;
mod managed_identity;

pub use bot_framework::BotFramework;
pub use entra::Cloud;
pub use managed_identity::ManagedIdentity;

pub use crate::provider::jwt::Certificate;

pub(crate) use entra::Entra;

use std::time::{Duration, SystemTime};

use crate::error::{Error, ErrorKind};
use crate::http::Json;
use crate::provider::base_url::BaseUrl;
use crate::provider::errors::ErrorRule;
use crate::provider::oauth2::OAuthErrors;
use crate::provider::{Context, Grant, ServiceResponse, Verdict, parse_grant};
use crate::secret::Secret;

/// Returns the URL of a tenant's token endpoint.
fn token_url(authority: &BaseUrl, tenant: &str) -> String {
    authority.join(&format!("/{tenant}/oauth2/v2.0/token"))
}

/// Sends `form` to the token endpoint and reads the grant from the reply.
fn exchange(
    context: &Context,
    url: &str,
    form: &[(&str, &str)],
    errors: &OAuthErrors,
    secrets: &[&Secret],
) -> Result<Grant, Error> {
    let asked_at = context.now();
    let reply = context.http().post_form(url, form).send()?;
    granted_at(asked_at, errors.accept(&reply, secrets)?)
}

/// Reads a grant whose lifetime is `expires_in`, or else an absolute time, `expires_on`. Either may come with a time
/// for the refresh, `refresh_in`. `asked_at` is the wall clock before the request.
fn granted_at(asked_at: SystemTime, json: Json) -> Result<Grant, Error> {
    let lifetime = match json.lifetime("expires_in")? {
        Some(lifetime) => Some(lifetime),
        None => lifetime_until_expires_on(&json, asked_at)?,
    };
    // `refresh_in` is a recommendation. An invalid value must not make the token unusable.
    let refresh_in = json.lifetime("refresh_in").ok().flatten();
    Ok(Grant { lifetime, ..parse_grant(json)? }.with_refresh_in(refresh_in))
}

/// Returns the lifetime from `asked_at` until `expires_on`.
fn lifetime_until_expires_on(json: &Json, asked_at: SystemTime) -> Result<Option<Duration>, Error> {
    if json.code("expires_on").is_none() {
        return Ok(None);
    }
    let invalid = || Error::invalid_response("the field expires_on of the reply is not a number");
    let end = u64::try_from(json.integer("expires_on").ok_or_else(invalid)?).unwrap_or_default();
    let now = asked_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    match Duration::from_secs(end).saturating_sub(now) {
        left if left < Duration::from_secs(1) => {
            Err(Error::invalid_response("the provider granted a token that has expired; check this machine's clock"))
        }
        left => Ok(Some(left)),
    }
}

/// Judges a response of Graph, the Bot Connector or another API. HTTP 403 is about missing rights, so the token is
/// accepted whatever the response says beside. A claims challenge refuses a token before it expires (continuous access
/// evaluation), so the token is rejected.
fn verdict(response: &ServiceResponse<'_>) -> Verdict {
    match response.status() {
        403 => Verdict::Accepted,
        401 if response.challenges_with("insufficient_claims") => Verdict::Rejected,
        _ => response.http_verdict(),
    }
}

/// Checks that a tenant is the id or the domain of one directory. `common`, `organizations` and `consumers` stand for
/// several directories and grant no tokens to apps.
fn check_tenant(tenant: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if SHARED_TENANTS.iter().any(|shared| shared.eq_ignore_ascii_case(tenant)) {
        return Err(Error::config(
            "the tenant must be the id or the domain of one directory; common, organizations and consumers grant no \
             tokens to apps",
        ));
    }
    if !tenant.bytes().all(plain) {
        return Err(Error::config(
            "the tenant must be the id or the domain of a directory, such as contoso.onmicrosoft.com",
        ));
    }
    Ok(())
}

const SHARED_TENANTS: &[&str] = &["common", "consumers", "organizations"];

const ENTRA: OAuthErrors = OAuthErrors {
    rules: &[ERROR_RULES],
    vendor_code: aadsts_code,
    default_retry_after: Duration::from_secs(60),
    ..OAuthErrors::STANDARD
};

/// Returns the first of Entra's `error_codes`, in the form that Microsoft documents: `AADSTS` and the number.
fn aadsts_code(json: &Json) -> Option<String> {
    let number = json.first_code("error_codes")?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| format!("AADSTS{number}"))
}

const NO_MATCH: &str = "no federated credential of the app matches the issuer, subject and audience of the assertion; \
                        compare them in the portal";

const OTHER_DIRECTORY: &str = "the app is not in this directory; check the client id, the tenant and the cloud";

const BUSY: &str = "Entra is busy or has an internal error";

const SECRET_EXPECTED: &str = "the app must authenticate with a client secret or a certificate";

/// Entra's numbers that say more than the `error` beside them, and the meaning of `error` at Entra.
const ERROR_RULES: &[ErrorRule] = &[
    (
        "AADSTS50196",
        ErrorKind::Throttled,
        "Entra saw the same request too often; look for a program that requests tokens in a loop",
    ),
    (
        "AADSTS53003",
        ErrorKind::Forbidden,
        "a Conditional Access policy blocks the request; ask an administrator of the tenant",
    ),
    (
        "AADSTS70001",
        ErrorKind::InvalidCredentials,
        "the app is disabled or not in this directory; check the client id and the tenant",
    ),
    ("AADSTS70021", ErrorKind::InvalidCredentials, NO_MATCH),
    ("AADSTS90002", ErrorKind::Config, "the tenant does not exist; check its id or domain, and the cloud"),
    ("AADSTS90006", ErrorKind::Unavailable, BUSY),
    ("AADSTS90012", ErrorKind::Unavailable, BUSY),
    ("AADSTS90024", ErrorKind::Unavailable, BUSY),
    ("AADSTS90033", ErrorKind::Unavailable, BUSY),
    (
        "AADSTS90055",
        ErrorKind::Throttled,
        "there were too many requests for this tenant; wait, or share the token through a store",
    ),
    ("AADSTS90090", ErrorKind::Unavailable, BUSY),
    (
        "AADSTS500011",
        ErrorKind::Config,
        "the API of the scope is unknown in this directory; check its URI, or add the API to the directory",
    ),
    ("AADSTS700011", ErrorKind::InvalidCredentials, OTHER_DIRECTORY),
    ("AADSTS700016", ErrorKind::InvalidCredentials, OTHER_DIRECTORY),
    (
        "AADSTS700024",
        ErrorKind::InvalidCredentials,
        "the assertion has expired or is not valid yet; check this machine's clock (each try signs a fresh one)",
    ),
    (
        "AADSTS700027",
        ErrorKind::InvalidCredentials,
        "Entra does not accept the assertion's signature; check that the certificate is registered for the app and has \
         not expired, and this machine's clock",
    ),
    ("AADSTS700211", ErrorKind::InvalidCredentials, NO_MATCH),
    ("AADSTS700212", ErrorKind::InvalidCredentials, NO_MATCH),
    ("AADSTS700213", ErrorKind::InvalidCredentials, NO_MATCH),
    ("AADSTS1002012", ErrorKind::Config, "the scope must end with /.default"),
    (
        "AADSTS7000215",
        ErrorKind::InvalidCredentials,
        "the client secret is wrong; use the secret's value, not its id, and the secret of this app",
    ),
    ("AADSTS7000216", ErrorKind::InvalidCredentials, SECRET_EXPECTED),
    ("AADSTS7000218", ErrorKind::InvalidCredentials, SECRET_EXPECTED),
    (
        "AADSTS7000222",
        ErrorKind::InvalidCredentials,
        "the client secret has expired; create another one (Entra may repeat this for a moment afterwards)",
    ),
    (
        "invalid_client",
        ErrorKind::InvalidCredentials,
        "Entra does not accept the client id, secret, certificate or assertion; check them",
    ),
    (
        "invalid_grant",
        ErrorKind::InvalidCredentials,
        "Entra does not accept the credential, or a policy blocks the request; check this machine's clock, too",
    ),
    (
        "unauthorized_client",
        ErrorKind::InvalidCredentials,
        "the app is unknown in this directory, disabled, or may not use client credentials",
    ),
];
