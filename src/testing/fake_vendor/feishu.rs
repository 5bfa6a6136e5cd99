//! Feishu: the same token until 30 minutes of it are left. Errors of token calls inside status 200, of others with 400.

use std::time::Duration;

use serde_json::json;

use super::book::{Account, Issued, Judgement};
use super::client::Client;
use super::records::Records;
use super::request::ReceivedRequest;
use super::server::Reply;
use super::tickets::Tickets;
use super::vendor::{Route, Vendor};

pub(super) struct Feishu;

impl Vendor for Feishu {
    fn token_path(&self) -> &'static str {
        "/open-apis/auth/v3/tenant_access_token/internal"
    }

    fn api_path(&self) -> &'static str {
        "/open-apis/im/v1/messages"
    }

    fn records(&self) -> Records {
        Records::new(LIFETIME)
            .credential(APP, "app", "secret")
            .credential(STORE, "store", "store-secret")
            .credential(TENANT, "tenant", "")
            .with_tickets(Tickets::living(TICKET_LIFETIME))
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/open-apis/auth/v3/tenant_access_token/internal" => Route::token(APP, own_tenant_token),
            "/open-apis/auth/v3/app_access_token/internal" => Route::token(APP, own_app_token),
            "/open-apis/auth/v3/app_access_token" => Route::token(STORE, store_app_token),
            "/open-apis/auth/v3/tenant_access_token" => Route::token(STORE, store_tenant_token),
            "/open-apis/auth/v3/app_ticket/resend" => Some(Route::Aside(resend)),
            OAUTH => Route::token(APP, oauth_token),
            "/open-apis/im/v1/messages" => Route::business(serve),
            _ => None,
        }
    }

    fn failure(&self, path: &str, code: &str) -> Reply {
        let number = code.parse();
        if path == OAUTH {
            let word = if number.is_ok() { "invalid_request" } else { code };
            oauth_failure(word, number.unwrap_or(20050))
        } else {
            failure(200, number.unwrap_or(-1), "refused by a test")
        }
    }

    fn throttled(&self, _path: &str, wait: Duration) -> Reply {
        let reply = failure(429, 99991400, "request trigger frequency limit").header("x-ogw-ratelimit-limit", "100");
        if wait.is_zero() { reply } else { reply.header("x-ogw-ratelimit-reset", wait.as_secs().to_string()) }
    }

    fn tenants(&self) -> Option<&'static str> {
        Some(TENANT)
    }
}

fn own_tenant_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let app = app(APP, request, records)?;
    Ok(granted("tenant_access_token", &records.same(&app.with_kind(TENANT_TOKEN), RENEWED_WITHIN, now)))
}

/// Brings a tenant token too.
fn own_app_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let app = app(APP, request, records)?;
    let issued = records.same(&app.clone().with_kind(APP_TOKEN), RENEWED_WITHIN, now);
    let tenant = records.same(&app.with_kind(TENANT_TOKEN), RENEWED_WITHIN, now);
    let body = json!({
        "code": 0, "msg": "ok", "expire": issued.left.min(tenant.left).as_secs(),
        "app_access_token": issued.token, "tenant_access_token": tenant.token,
    });
    Ok(Reply::json(200, &body))
}

fn store_app_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let app = app(STORE, request, records)?;
    let ticket = request.json("app_ticket").unwrap_or_default();
    if records.judge_ticket(&ticket, now) != Judgement::Alive {
        return Err(failure(200, 10012, "app_ticket invalid"));
    }
    Ok(granted("app_access_token", &records.same(&app.with_kind(STORE_TOKEN), RENEWED_WITHIN, now)))
}

fn store_tenant_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    body(request)?;
    let token = request.json("app_access_token").unwrap_or_default();
    let tenant = request.json("tenant_key").unwrap_or_default();
    let alive = records.book.judge_as(&[STORE_TOKEN], &token, now) == Judgement::Alive;
    let Some(app) = records.book.owner(&token).filter(|_| alive).cloned() else {
        return Err(failure(200, 20014, "check app access token failed"));
    };
    if !records.credentials.knows(TENANT, &tenant) {
        return Err(failure(200, 20009, "tenant has not purchased or not installed this app"));
    }
    let account = app.with_kind(TENANT_TOKEN).within(&tenant);
    Ok(granted("tenant_access_token", &records.same(&account, RENEWED_WITHIN, now)))
}

/// Asks for the ticket to be pushed again. It does not come with the reply.
fn resend(request: &ReceivedRequest, records: &mut Records, _now: Duration) -> Result<Reply, Reply> {
    app(STORE, request, records)?;
    records.ticket_resend_requests += 1;
    Ok(Reply::json(200, &json!({ "code": 0, "msg": "success" })))
}

/// RFC 6749, with errors that have a number besides. An assertion has a grant type of its own.
fn oauth_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    if request.method() != "POST" {
        return Err(not_found());
    }
    if !request.is_form() {
        return Err(oauth_failure("invalid_request", 20063));
    }
    let (id, secret) = match Client::of(request) {
        Client::TwoWays => return Err(oauth_failure("invalid_request", 20070)),
        Client::Secret { id, secret } if records.credentials.accepts(APP, &id, &secret) => (id, secret),
        Client::Assertion { id } if records.credentials.knows(APP, &id) => (id, String::new()),
        _ => return Err(oauth_failure("invalid_client", 20002)),
    };
    let grant = if secret.is_empty() { JWT_BEARER } else { "client_credentials" };
    if request.form("grant_type").as_deref() != Some(grant) {
        return Err(oauth_failure("unsupported_grant_type", 20036));
    }
    let issued = records.same(&Account::new(OAUTH_TOKEN, &id, &secret), RENEWED_WITHIN, now);
    let body = json!({
        "code": 0, "access_token": issued.token, "token_type": "Bearer", "expires_in": issued.left.as_secs(),
    });
    Ok(Reply::json(200, &body))
}

fn serve(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let Some(token) = request.bearer() else {
        return Err(failure(400, 99991661, "Need a token"));
    };
    if records.book.judge(token, now) == Judgement::Alive {
        return Ok(Reply::json(200, &json!({ "code": 0, "msg": "success", "data": {} })));
    }
    Err(match records.book.owner(token).map(Account::kind) {
        Some(APP_TOKEN | STORE_TOKEN) => failure(400, 99991664, "invalid app token"),
        _ => failure(400, 99991663, "Invalid access token for authorization."),
    })
}

/// The app that asks, if it may.
fn app(realm: &'static str, request: &ReceivedRequest, records: &Records) -> Result<Account, Reply> {
    body(request)?;
    let (Some(id), Some(secret)) = (request.json("app_id"), request.json("app_secret")) else {
        return Err(failure(200, 10003, "invalid param"));
    };
    if records.credentials.accepts(realm, &id, &secret) {
        return Ok(Account::new(realm, &id, &secret));
    }
    let other = if realm == APP { STORE } else { APP };
    Err(if records.credentials.accepts(other, &id, &secret) && request.path().ends_with("/resend") {
        failure(200, 10016, "app ticket resend failed")
    } else if records.credentials.knows(realm, &id) {
        failure(200, 10014, "app secret invalid")
    } else {
        failure(200, 10014, "app id not exists")
    })
}

fn body(request: &ReceivedRequest) -> Result<(), Reply> {
    if request.method() != "POST" {
        return Err(not_found());
    }
    request.json_body().map(drop).ok_or_else(|| failure(200, 10003, "invalid param"))
}

fn not_found() -> Reply {
    Reply::new(404, "text/plain", "404 page not found")
}

/// With what is left of the token's lifetime.
fn granted(name: &str, issued: &Issued) -> Reply {
    Reply::json(200, &json!({ "code": 0, "msg": "ok", name: issued.token, "expire": issued.left.as_secs() }))
}

fn oauth_failure(error: &str, code: i64) -> Reply {
    Reply::json(400, &json!({ "error": error, "error_description": "refused by a test", "code": code }))
}

fn failure(status: u16, code: i64, text: &str) -> Reply {
    let log_id = "20260101000000ABCDEF0123456789AB";
    Reply::json(status, &json!({ "code": code, "msg": text, "error": { "log_id": log_id } }))
        .header("X-Tt-Logid", log_id)
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

const OAUTH: &str = "/oauth/v3/token";

// Realms, and kinds of tokens.
const APP: &str = "app";
const STORE: &str = "store";
const TENANT: &str = "tenant";
const TENANT_TOKEN: &str = "tenant token";
const APP_TOKEN: &str = "app token";
const STORE_TOKEN: &str = "store app token";
const OAUTH_TOKEN: &str = "oauth token";

const LIFETIME: Duration = Duration::from_secs(7200);

/// With less left, the token is another one.
const RENEWED_WITHIN: Duration = Duration::from_secs(30 * 60);

const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3600);
