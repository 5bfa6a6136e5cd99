//! OAuth 2.0 client credentials (RFC 6749) and bearer tokens (RFC 6750): a new token for every call.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::book::{Book, Judgement};
use super::request::ReceivedRequest;
use super::server::Reply;
use super::vendor::Vendor;

pub(super) struct OAuth2;

impl Vendor for OAuth2 {
    fn token_path(&self) -> &'static str {
        "/token"
    }

    fn business_path(&self) -> &'static str {
        "/api"
    }

    fn credential(&self) -> (&'static str, &'static str) {
        ("client", "secret")
    }

    fn grant(&self, request: &ReceivedRequest, book: &mut Book, now: Duration) -> Reply {
        if request.method() != "POST" {
            return failure(405, "invalid_request").header("Allow", "POST");
        }
        if !request.header_contains("content-type", "application/x-www-form-urlencoded") {
            return failure(400, "invalid_request");
        }
        let basic = request.header("authorization");
        let credential = match (basic, request.form("client_id"), request.form("client_secret")) {
            // A client must not authenticate in two ways at once.
            (Some(_), _, Some(_)) => return failure(400, "invalid_request"),
            (Some(header), _, None) => basic_credential(header),
            (None, Some(id), Some(secret)) => Some((id, secret)),
            (None, _, _) => None,
        };
        let Some((id, secret)) = credential.filter(|(id, secret)| book.accepts(id, secret)) else {
            let refusal = failure(401, "invalid_client");
            return if basic.is_some() { refusal.header("WWW-Authenticate", "Basic realm=\"test\"") } else { refusal };
        };
        match request.form("grant_type").as_deref() {
            Some("client_credentials") => {}
            Some(_) => return failure(400, "unsupported_grant_type"),
            None => return failure(400, "invalid_request"),
        }
        let issued = book.issue(&id, &secret, now);
        let mut body = json!({
            "access_token": issued.token, "token_type": "Bearer", "expires_in": issued.life.as_secs(),
        });
        if let Some(scope) = request.form("scope") {
            body["scope"] = scope.into();
        }
        answer(200, &body)
    }

    fn serve(&self, request: &ReceivedRequest, book: &Book, now: Duration) -> Reply {
        let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let refuse = |challenge| answer(401, &json!({ "ok": false })).header("WWW-Authenticate", challenge);
        match token.map(|token| book.judge(token, now)) {
            // Without a token there is nothing to say about one.
            None => refuse("Bearer"),
            Some(Judgement::Alive) => answer(200, &json!({ "ok": true })),
            Some(Judgement::Ended | Judgement::Invalid) => refuse("Bearer error=\"invalid_token\""),
        }
    }

    fn failure(&self, code: &str) -> Reply {
        failure(400, code)
    }

    fn throttled(&self) -> Reply {
        failure(429, "slow_down")
    }
}

/// Id and secret out of `Basic base64(form(id) ":" form(secret))`.
fn basic_credential(header: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(header.strip_prefix("Basic ")?).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |text: &str| form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned());
    Some((decoded(id)?, decoded(secret)?))
}

fn failure(status: u16, code: &str) -> Reply {
    answer(status, &json!({ "error": code, "error_description": "refused by a test" }))
}

fn answer(status: u16, body: &serde_json::Value) -> Reply {
    Reply::new(status, "application/json", body.to_string()).header("Cache-Control", "no-store")
}
