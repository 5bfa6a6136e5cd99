//! OAuth 2.0 (RFC 6749), its assertions (RFC 7523), devices (RFC 8628) and bearer tokens (RFC 6750): a new token for
//! every call.

use std::time::Duration;

use serde_json::{Value, json};

use super::book::{Account, Issued, Judgement};
use super::client::Client;
use super::devices::Poll;
use super::records::Records;
use super::refresh_tokens::Refused;
use super::request::ReceivedRequest;
use super::server::Reply;
use super::vendor::{Route, Vendor};

pub(super) struct OAuth2;

impl Vendor for OAuth2 {
    fn token_path(&self) -> &'static str {
        "/token"
    }

    fn api_path(&self) -> &'static str {
        "/api"
    }

    fn records(&self) -> Records {
        Records::new(LIFETIME).credential(CLIENT, "client", "secret").refresh_token("client", "refresh-1")
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/token" => Route::token(CLIENT, grant),
            "/device_authorization" => Some(Route::Aside(begin_sign_in)),
            "/api" => Route::business(serve),
            _ => None,
        }
    }

    fn failure(&self, _path: &str, code: &str) -> Reply {
        failure(400, code)
    }

    fn throttled(&self, _path: &str, wait: Duration) -> Reply {
        failure(429, "slow_down").retry_after(wait)
    }
}

/// A client that may ask.
struct Known {
    id: String,
    secret: String,
    /// It has proved who it is.
    proved: bool,
}

impl Known {
    /// An account of this client's.
    fn account(&self) -> Account {
        Account::new(CLIENT, &self.id, &self.secret)
    }
}

fn grant(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let client = known_client(request, records)?;
    let Some(grant_type) = request.form("grant_type") else {
        return Err(failure(400, "invalid_request"));
    };
    match (grant_type.as_str(), client) {
        ("client_credentials", Some(client)) if client.proved => {
            Ok(granted(&records.book.issue(&client.account(), now), request.form("scope"), None))
        }
        (REFRESH_TOKEN, Some(client)) => refresh(request, records, now, &client),
        (DEVICE_CODE, Some(client)) => poll(request, records, now, &client),
        (JWT_BEARER, client) => match request.form("assertion").filter(|assertion| !assertion.is_empty()) {
            Some(_) => {
                let account = client.map_or_else(|| Account::new(JWT_BEARER, "", ""), |client| client.account());
                Ok(granted(&records.book.issue(&account, now), request.form("scope"), None))
            }
            None => Err(failure(400, "invalid_request")),
        },
        ("client_credentials" | REFRESH_TOKEN | DEVICE_CODE, _) => Err(failure(401, "invalid_client")),
        _ => Err(failure(400, "unsupported_grant_type")),
    }
}

/// The client, if it says who it is.
fn known_client(request: &ReceivedRequest, records: &Records) -> Result<Option<Known>, Reply> {
    if request.method() != "POST" {
        return Err(failure(405, "invalid_request").header("Allow", "POST"));
    }
    if !request.is_form() {
        return Err(failure(400, "invalid_request"));
    }
    let known = match Client::of(request) {
        // A client must not authenticate in two ways at once.
        Client::TwoWays => return Err(failure(400, "invalid_request")),
        Client::Nobody => return Ok(None),
        Client::Secret { id, secret } => {
            records.credentials.accepts(CLIENT, &id, &secret).then_some(Known { id, secret, proved: true })
        }
        Client::Assertion { id } => named(records, id, true),
        Client::Public { id } => named(records, id, false),
        Client::Garbled => None,
    };
    known.map(Some).ok_or_else(|| {
        let refusal = failure(401, "invalid_client");
        let by_header = request.header("authorization").is_some();
        if by_header { refusal.header("WWW-Authenticate", "Basic realm=\"test\"") } else { refusal }
    })
}

fn named(records: &Records, id: String, proved: bool) -> Option<Known> {
    records.credentials.knows(CLIENT, &id).then(|| Known { id, secret: String::new(), proved })
}

fn refresh(request: &ReceivedRequest, records: &mut Records, now: Duration, client: &Known) -> Result<Reply, Reply> {
    let Some(token) = request.form("refresh_token").filter(|token| !token.is_empty()) else {
        return Err(failure(400, "invalid_request"));
    };
    let rotating = records.settings.rotating;
    match records.refresh_tokens.take(&client.id, &token, rotating) {
        Ok(next) => {
            let issued = records.book.issue(&client.account(), now);
            Ok(granted(&issued, request.form("scope"), rotating.then_some(next)))
        }
        Err(refused) => {
            if refused == Refused::UsedBefore {
                // Somebody has a copy. Nobody can tell who, so nobody keeps one that works.
                records.refresh_tokens.end_family(&token);
            }
            Err(failure(400, "invalid_grant"))
        }
    }
}

fn begin_sign_in(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let client = known_client(request, records)?.ok_or_else(|| failure(401, "invalid_client"))?;
    let begun = records.devices.begin(&client.id, request.form("scope"), now);
    let page = format!("http://{}/device", request.header("host").unwrap_or("127.0.0.1"));
    let body = json!({
        "device_code": begun.device_code, "user_code": begun.user_code, "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={}", begun.user_code),
        "expires_in": begun.lifetime.as_secs(), "interval": begun.interval.as_secs(),
    });
    Ok(answer(200, &body))
}

fn poll(request: &ReceivedRequest, records: &mut Records, now: Duration, client: &Known) -> Result<Reply, Reply> {
    let Some(code) = request.form("device_code") else {
        return Err(failure(400, "invalid_request"));
    };
    match records.devices.poll(&code, &client.id, now) {
        Poll::Approved(scope) => {
            let issued = records.book.issue(&client.account(), now);
            let refresh_token = records.refresh_tokens.grant(&client.id);
            Ok(granted(&issued, scope, Some(refresh_token)))
        }
        Poll::Refused(code) => Err(failure(400, code)),
    }
}

fn granted(issued: &Issued, scope: Option<String>, refresh_token: Option<String>) -> Reply {
    let mut body = json!({
        "access_token": issued.token, "token_type": "Bearer", "expires_in": issued.lifetime.as_secs(),
    });
    if let Some(scope) = scope {
        body["scope"] = scope.into();
    }
    if let Some(token) = refresh_token {
        body["refresh_token"] = token.into();
    }
    answer(200, &body)
}

fn serve(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let refuse = |challenge| Err(answer(401, &json!({ "ok": false })).header("WWW-Authenticate", challenge));
    match request.bearer().map(|token| records.book.judge(token, now)) {
        // Without a token there is nothing to say about one.
        None => refuse("Bearer"),
        Some(Judgement::Alive) => Ok(answer(200, &json!({ "ok": true }))),
        Some(Judgement::Ended | Judgement::Invalid) => refuse("Bearer error=\"invalid_token\""),
    }
}

fn failure(status: u16, code: &str) -> Reply {
    answer(status, &json!({ "error": code, "error_description": "refused by a test" }))
}

fn answer(status: u16, body: &Value) -> Reply {
    Reply::new(status, "application/json", body.to_string()).header("Cache-Control", "no-store")
}

const CLIENT: &str = "client";

const REFRESH_TOKEN: &str = "refresh_token";
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

const LIFETIME: Duration = Duration::from_secs(7200);
