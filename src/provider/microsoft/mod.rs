//! Microsoft: Entra ID (Azure AD), Bot Framework, Azure managed identities.
//!
//! | Token | Provider | Requested at |
//! |---|---|---|
//! | of an app, for Graph or another API | [`Entra`](crate::Entra) | `/{tenant}/oauth2/v2.0/token` |
//! | of a bot, for the Bot Connector | [`BotFramework`] | `/botframework.com/oauth2/v2.0/token` |
//! | of a machine or app in Azure | [`ManagedIdentity`] | IMDS (`169.254.169.254`) or `IDENTITY_ENDPOINT` |
//!
//! [`Error::code`](crate::Error::code) is Entra's own number, such as `AADSTS7000215`. The table of numbers stands at
//! the end of this file.

mod bot_framework;
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
    let invalid = || Error::invalid_response("the provider granted a token whose end is no number");
    let end = u64::try_from(json.integer("expires_on").ok_or_else(invalid)?).unwrap_or_default();
    let now = asked_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    match Duration::from_secs(end).saturating_sub(now) {
        left if left < Duration::from_secs(1) => Err(Error::invalid_response(
            "the provider granted a token whose lifetime is over; check this machine's clock",
        )),
        left => Ok(Some(left)),
    }
}

/// Judges a response of Graph, the Bot Connector or another API. HTTP 403 is about missing rights, so the token is
/// accepted whatever the response says beside.
fn verdict(response: &ServiceResponse<'_>) -> Verdict {
    match response.status() {
        403 => Verdict::Accepted,
        _ => response.http_verdict(),
    }
}

/// Checks that a tenant is the id or the domain of one directory. `common`, `organizations` and `consumers` stand for
/// several directories and grant no tokens to apps.
fn check_tenant(tenant: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if SHARED_TENANTS.iter().any(|shared| shared.eq_ignore_ascii_case(tenant)) {
        return Err(Error::config(
            "the tenant must be one directory, by its id or domain; an app has no token for all",
        ));
    }
    if !tenant.bytes().all(plain) {
        return Err(Error::config("the tenant must be the id or the domain of a directory"));
    }
    Ok(())
}

const SHARED_TENANTS: &[&str] = &["common", "consumers", "organizations"];

const ENTRA: OAuthErrors =
    OAuthErrors { rules: &[ERROR_RULES], vendor_code: aadsts_code, default_retry_after: Duration::from_secs(60) };

/// Returns the first of Entra's `error_codes`, in the form that Microsoft documents: `AADSTS` and the number.
fn aadsts_code(json: &Json) -> Option<String> {
    let number = json.first_code("error_codes")?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| format!("AADSTS{number}"))
}

const NO_MATCH: &str = "no federated credential of the app matches the issuer, subject and audience of the assertion";

const OTHER_DIRECTORY: &str = "the app is not in this directory; check the client id, the tenant and the cloud";

const PASSING: &str = "Entra is busy or broken";

/// Entra's numbers that say more than the `error` beside them, and the meaning of `error` at Entra.
const ERROR_RULES: &[ErrorRule] = &[
    ("AADSTS50196", ErrorKind::Throttled, "the same was asked too often; look for what asks again and again"),
    ("AADSTS53003", ErrorKind::Forbidden, "a conditional access policy does not allow it"),
    ("AADSTS70001", ErrorKind::InvalidCredentials, "the app is disabled, or not in this directory"),
    ("AADSTS70021", ErrorKind::InvalidCredentials, NO_MATCH),
    ("AADSTS90002", ErrorKind::Config, "the tenant does not exist; check its id or domain, and the cloud"),
    ("AADSTS90006", ErrorKind::Unavailable, PASSING),
    ("AADSTS90012", ErrorKind::Unavailable, PASSING),
    ("AADSTS90024", ErrorKind::Unavailable, PASSING),
    ("AADSTS90033", ErrorKind::Unavailable, PASSING),
    ("AADSTS90055", ErrorKind::Throttled, "there were too many calls for this tenant"),
    ("AADSTS90090", ErrorKind::Unavailable, PASSING),
    (
        "AADSTS500011",
        ErrorKind::Config,
        "the resource of the scope is not known in this directory; check its name, or have it installed there",
    ),
    ("AADSTS700011", ErrorKind::InvalidCredentials, OTHER_DIRECTORY),
    ("AADSTS700016", ErrorKind::InvalidCredentials, OTHER_DIRECTORY),
    (
        "AADSTS700024",
        ErrorKind::InvalidCredentials,
        "the assertion is too old or not valid yet; check this machine's clock (each try signs a fresh one)",
    ),
    (
        "AADSTS700027",
        ErrorKind::InvalidCredentials,
        "the assertion's signature is not accepted; check that the certificate is one of the app's and has not expired, \
         and this machine's clock",
    ),
    ("AADSTS700211", ErrorKind::InvalidCredentials, NO_MATCH),
    ("AADSTS700212", ErrorKind::InvalidCredentials, NO_MATCH),
    ("AADSTS700213", ErrorKind::InvalidCredentials, NO_MATCH),
    ("AADSTS1002012", ErrorKind::Config, "the scope must end with /.default"),
    (
        "AADSTS7000215",
        ErrorKind::InvalidCredentials,
        "the client secret is wrong; the secret's value is wanted, not its id, and of this very app",
    ),
    ("AADSTS7000216", ErrorKind::InvalidCredentials, "the app wants a secret or a certificate"),
    ("AADSTS7000218", ErrorKind::InvalidCredentials, "the app wants a secret or a certificate"),
    (
        "AADSTS7000222",
        ErrorKind::InvalidCredentials,
        "the client secret has expired; create another one (right after that this may be told for a moment)",
    ),
    (
        "invalid_client",
        ErrorKind::InvalidCredentials,
        "the client id, secret, certificate or assertion is not accepted",
    ),
    (
        "invalid_grant",
        ErrorKind::InvalidCredentials,
        "the credential is not accepted, or a policy forbids it; check this machine's clock if it is an assertion",
    ),
    (
        "unauthorized_client",
        ErrorKind::InvalidCredentials,
        "the app is not known here, disabled, or may not use this grant",
    ),
];
