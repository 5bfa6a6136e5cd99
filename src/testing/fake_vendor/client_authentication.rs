//! Client authentication at a token endpoint (RFC 6749 section 2.3, RFC 7523 section 2.2).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::request::ReceivedRequest;

/// The way in which a request authenticates its client, before any secret is checked.
pub(super) enum ClientAuthentication {
    Secret {
        id: String,
        secret: String,
    },
    /// A JWT assertion. Its signature is not verified.
    Assertion {
        id: String,
    },
    /// A public client: an id without a secret.
    Public {
        id: String,
    },
    /// No client id.
    Missing,
    /// The header or the assertion cannot be parsed.
    Malformed,
    /// More than one method in one request, which RFC 6749 section 2.3 forbids.
    Multiple,
}

impl ClientAuthentication {
    pub(super) fn from_request(request: &ReceivedRequest) -> ClientAuthentication {
        let id = request.form("client_id");
        match (request.header("authorization"), request.form("client_secret"), request.form("client_assertion")) {
            (Some(header), None, None) => match basic(header) {
                Some((id, secret)) => ClientAuthentication::Secret { id, secret },
                None => ClientAuthentication::Malformed,
            },
            (None, Some(secret), None) => {
                id.map_or(ClientAuthentication::Missing, |id| ClientAuthentication::Secret { id, secret })
            }
            (None, None, Some(assertion)) => match claims(&assertion) {
                Some(claims) if request.form("client_assertion_type").as_deref() == Some(JWT_BEARER) => {
                    let subject = || claims["sub"].as_str().map(str::to_owned);
                    id.or_else(subject)
                        .map_or(ClientAuthentication::Malformed, |id| ClientAuthentication::Assertion { id })
                }
                _ => ClientAuthentication::Malformed,
            },
            (None, None, None) => id.map_or(ClientAuthentication::Missing, |id| ClientAuthentication::Public { id }),
            _ => ClientAuthentication::Multiple,
        }
    }
}

/// Returns the id and the secret of `Basic base64(form(id) ":" form(secret))`.
fn basic(header: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(header.strip_prefix("Basic ")?).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |text: &str| form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned());
    Some((decoded(id)?, decoded(secret)?))
}

/// Returns the claims of a JWT with a header, an object of claims and a signature.
fn claims(token: &str) -> Option<Value> {
    let part = |text: &str| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok() };
    let mut parts = token.split('.');
    let (header, claims, signature) = (part(parts.next()?)?, part(parts.next()?)?, parts.next()?);
    let is_well_formed = header["alg"].is_string() && claims.is_object() && !signature.is_empty();
    (is_well_formed && parts.next().is_none()).then_some(claims)
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
