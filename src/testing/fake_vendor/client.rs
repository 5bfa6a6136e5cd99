//! How a client says who it is (RFC 6749 section 2.3, RFC 7523).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::request::ReceivedRequest;

pub(super) enum Client {
    Secret {
        id: String,
        secret: String,
    },
    /// A JWT whose signature was not looked at.
    Assertion {
        id: String,
    },
    /// It says its name, and nothing to prove it.
    Public {
        id: String,
    },
    Nobody,
    /// What it says cannot be read.
    Garbled,
    /// It authenticates in two ways at once, which it must not.
    TwoWays,
}

impl Client {
    pub(super) fn of(request: &ReceivedRequest) -> Client {
        let id = request.form("client_id");
        match (request.header("authorization"), request.form("client_secret"), request.form("client_assertion")) {
            (Some(header), None, None) => match basic(header) {
                Some((id, secret)) => Client::Secret { id, secret },
                None => Client::Garbled,
            },
            (None, Some(secret), None) => id.map_or(Client::Nobody, |id| Client::Secret { id, secret }),
            (None, None, Some(assertion)) => match claims(&assertion) {
                Some(claims) if request.form("client_assertion_type").as_deref() == Some(JWT_BEARER) => {
                    let subject = || claims["sub"].as_str().map(str::to_owned);
                    id.or_else(subject).map_or(Client::Garbled, |id| Client::Assertion { id })
                }
                _ => Client::Garbled,
            },
            (None, None, None) => id.map_or(Client::Nobody, |id| Client::Public { id }),
            _ => Client::TwoWays,
        }
    }
}

/// Id and secret out of `Basic base64(form(id) ":" form(secret))`.
fn basic(header: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(header.strip_prefix("Basic ")?).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |text: &str| form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned());
    Some((decoded(id)?, decoded(secret)?))
}

/// What a well-formed JWT says.
fn claims(token: &str) -> Option<Value> {
    let part = |text: &str| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok() };
    let mut parts = token.split('.');
    let (header, claims, signature) = (part(parts.next()?)?, part(parts.next()?)?, parts.next()?);
    let well_formed = header["alg"].is_string() && claims.is_object() && !signature.is_empty();
    (well_formed && parts.next().is_none()).then_some(claims)
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
