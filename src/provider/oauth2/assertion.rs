//! Client authentication with a signed assertion: `client_assertion` (RFC 7523, section 2.2).

use std::time::{Duration, SystemTime};

use crate::error::{Error, ErrorKind};
use crate::name::unique_name;
use crate::provider::jwt::{Claims, Signer, Times, sign};
use crate::provider::oauth2::OAuthErrors;
use crate::secret::Secret;

/// Makes the assertion of `client_id` for the server whose name is `audience`. Each request needs a new assertion,
/// because a server accepts an assertion once (`jti`).
pub(in crate::provider) fn client_assertion(
    signer: Signer<'_>,
    thumbprint: Option<&str>,
    client_id: &str,
    audience: &str,
    now: SystemTime,
) -> Result<Secret, Error> {
    let claims = Claims {
        iss: client_id,
        sub: Some(client_id),
        scope: None,
        aud: audience,
        jti: Some(unique_name()?),
        times: Times::new(now, LIFETIME)?.not_before(),
        more: Default::default(),
    };
    sign(signer, thumbprint, &claims)
}

/// The value of `client_assertion_type`.
pub(in crate::provider) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The errors of a token endpoint for a client that authenticates with an assertion.
pub(super) const ERRORS: OAuthErrors = OAuthErrors {
    rules: &[&[
        ("invalid_client", ErrorKind::InvalidCredentials, NOT_ACCEPTED),
        ("invalid_grant", ErrorKind::InvalidCredentials, NOT_ACCEPTED),
    ]],
    ..OAuthErrors::STANDARD
};

const NOT_ACCEPTED: &str = "the server does not accept the signed assertion; check this machine's clock, the client \
                            id, the key that is registered at the server, and the assertion's audience (each try \
                            signs a fresh one)";

/// How long an assertion is valid: five minutes, plus the ten seconds by which its issue is dated back. The assertion
/// is sent at once, but the server's clock may be ahead of the clock of this machine.
pub(super) const LIFETIME: Duration = Duration::from_secs(310);
