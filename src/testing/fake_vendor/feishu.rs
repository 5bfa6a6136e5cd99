//! The fake Feishu server.
//!
//! - A token is returned again until 30 minutes of its lifetime remain; `expire` is the remaining lifetime.
//! - Token endpoints report errors with status 200 and a `code`; the API does so with status 400. `/oauth/v3/token`
//!   follows RFC 6749 with status 400 and adds a `code`.
//! - An app of one tenant (`app`) needs only its secret. A store app (`store`) needs a pushed ticket for its app token,
//!   and that token for the tenant token of each tenant.

use std::time::Duration;

use serde_json::json;

use super::client_authentication::ClientAuthentication;
use super::issued_tokens::{Account, IssuedToken, Validity};
use super::request::ReceivedRequest;
use super::server::Reply;
use super::tickets::Tickets;
use super::vendor::{Route, Vendor};
use super::vendor_state::VendorState;

pub(super) struct Feishu;

impl Vendor for Feishu {
    fn token_path(&self) -> &'static str {
        "/open-apis/auth/v3/tenant_access_token/internal"
    }

    fn api_path(&self) -> &'static str {
        "/open-apis/im/v1/messages"
    }

    fn initial_state(&self) -> VendorState {
        VendorState::new(TOKEN_LIFETIME)
            .with_credential(APP, "app", "secret")
            .with_credential(STORE, "store", "store-secret")
            .with_credential(TENANT, "tenant", "")
            .with_tickets(Tickets::with_lifetime(TICKET_LIFETIME))
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/open-apis/auth/v3/tenant_access_token/internal" => Route::token(APP, own_tenant_token),
            "/open-apis/auth/v3/app_access_token/internal" => Route::token(APP, own_app_token),
            "/open-apis/auth/v3/app_access_token" => Route::token(STORE, store_app_token),
            "/open-apis/auth/v3/tenant_access_token" => Route::token(STORE, store_tenant_token),
            "/open-apis/auth/v3/app_ticket/resend" => Some(Route::Auxiliary(resend)),
            OAUTH => Route::token(APP, oauth_token),
            "/open-apis/im/v1/messages" => Route::api(serve_api),
            _ => None,
        }
    }

    fn error_reply(&self, path: &str, code: &str) -> Reply {
        let number = code.parse();
        if path == OAUTH {
            let word = if number.is_ok() { "invalid_request" } else { code };
            oauth_error_reply(word, number.unwrap_or(20050))
        } else {
            error_reply(200, number.unwrap_or(-1), "refused by a test")
        }
    }

    fn throttled_reply(&self, _path: &str, wait: Duration) -> Reply {
        let reply =
            error_reply(429, 99991400, "request trigger frequency limit").header("x-ogw-ratelimit-limit", "100");
        if wait.is_zero() { reply } else { reply.header("x-ogw-ratelimit-reset", wait.as_secs().to_string()) }
    }

    fn tenant_kind(&self) -> Option<&'static str> {
        Some(TENANT)
    }
}

fn own_tenant_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let app = app(APP, request, state)?;
    Ok(token_reply("tenant_access_token", &state.reuse_or_issue(&app.with_kind(TENANT_TOKEN), MIN_REMAINING, now)))
}

/// Grants an app token and a tenant token in one reply, as Feishu does for an app of one tenant.
fn own_app_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let app = app(APP, request, state)?;
    let issued = state.reuse_or_issue(&app.clone().with_kind(APP_TOKEN), MIN_REMAINING, now);
    let tenant = state.reuse_or_issue(&app.with_kind(TENANT_TOKEN), MIN_REMAINING, now);
    let body = json!({
        "code": 0, "msg": "ok", "expire": issued.remaining.min(tenant.remaining).as_secs(),
        "app_access_token": issued.token, "tenant_access_token": tenant.token,
    });
    Ok(Reply::json(200, &body))
}

fn store_app_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let app = app(STORE, request, state)?;
    let ticket = request.json("app_ticket").unwrap_or_default();
    if state.ticket_validity(&ticket, now) != Validity::Valid {
        return Err(error_reply(200, 10012, "app_ticket invalid"));
    }
    Ok(token_reply("app_access_token", &state.reuse_or_issue(&app.with_kind(STORE_TOKEN), MIN_REMAINING, now)))
}

fn store_tenant_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    body(request)?;
    let token = request.json("app_access_token").unwrap_or_default();
    let tenant = request.json("tenant_key").unwrap_or_default();
    let is_valid = state.tokens.validity_as(&[STORE_TOKEN], &token, now) == Validity::Valid;
    let Some(app) = state.tokens.account_of(&token).filter(|_| is_valid).cloned() else {
        return Err(error_reply(200, 20014, "check app access token failed"));
    };
    if !state.credentials.has_id(TENANT, &tenant) {
        return Err(error_reply(200, 20009, "tenant has not purchased or not installed this app"));
    }
    let account = app.with_kind(TENANT_TOKEN).in_tenant(&tenant);
    Ok(token_reply("tenant_access_token", &state.reuse_or_issue(&account, MIN_REMAINING, now)))
}

/// Counts a request to push the ticket again. The ticket itself is pushed by the test.
fn resend(request: &ReceivedRequest, state: &mut VendorState, _now: Duration) -> Result<Reply, Reply> {
    app(STORE, request, state)?;
    state.ticket_resend_requests += 1;
    Ok(Reply::json(200, &json!({ "code": 0, "msg": "success" })))
}

/// Feishu's OAuth 2.0 endpoint (RFC 6749). A client secret goes with the grant type `client_credentials`, an assertion
/// with that of RFC 7523.
fn oauth_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    if request.method() != "POST" {
        return Err(not_found_reply());
    }
    if !request.is_form() {
        return Err(oauth_error_reply("invalid_request", 20063));
    }
    let (id, secret) = match ClientAuthentication::from_request(request) {
        ClientAuthentication::Multiple => return Err(oauth_error_reply("invalid_request", 20070)),
        ClientAuthentication::Secret { id, secret } if state.credentials.accepts(APP, &id, &secret) => (id, secret),
        ClientAuthentication::Assertion { id } if state.credentials.has_id(APP, &id) => (id, String::new()),
        _ => return Err(oauth_error_reply("invalid_client", 20002)),
    };
    let grant = if secret.is_empty() { JWT_BEARER } else { "client_credentials" };
    if request.form("grant_type").as_deref() != Some(grant) {
        return Err(oauth_error_reply("unsupported_grant_type", 20036));
    }
    let issued = state.reuse_or_issue(&Account::new(OAUTH_TOKEN, &id, &secret), MIN_REMAINING, now);
    let body = json!({
        "code": 0, "access_token": issued.token, "token_type": "Bearer", "expires_in": issued.remaining.as_secs(),
    });
    Ok(Reply::json(200, &body))
}

fn serve_api(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let Some(token) = request.bearer() else {
        return Err(error_reply(400, 99991661, "Need a token"));
    };
    if state.tokens.validity(token, now) == Validity::Valid {
        return Ok(Reply::json(200, &json!({ "code": 0, "msg": "success", "data": {} })));
    }
    Err(match state.tokens.account_of(token).map(Account::kind) {
        Some(APP_TOKEN | STORE_TOKEN) => error_reply(400, 99991664, "invalid app token"),
        _ => error_reply(400, 99991663, "Invalid access token for authorization."),
    })
}

/// Returns the account of the app, if the server accepts its id and secret.
fn app(kind: &'static str, request: &ReceivedRequest, state: &VendorState) -> Result<Account, Reply> {
    body(request)?;
    let (Some(id), Some(secret)) = (request.json("app_id"), request.json("app_secret")) else {
        return Err(error_reply(200, 10003, "invalid param"));
    };
    if state.credentials.accepts(kind, &id, &secret) {
        return Ok(Account::new(kind, &id, &secret));
    }
    // The real server tells an app of the other kind apart only at the resend endpoint.
    let other = if kind == APP { STORE } else { APP };
    Err(if state.credentials.accepts(other, &id, &secret) && request.path().ends_with("/resend") {
        error_reply(200, 10016, "app ticket resend failed")
    } else if state.credentials.has_id(kind, &id) {
        error_reply(200, 10014, "app secret invalid")
    } else {
        error_reply(200, 10014, "app id not exists")
    })
}

fn body(request: &ReceivedRequest) -> Result<(), Reply> {
    if request.method() != "POST" {
        return Err(not_found_reply());
    }
    request.json_body().map(drop).ok_or_else(|| error_reply(200, 10003, "invalid param"))
}

fn not_found_reply() -> Reply {
    Reply::new(404, "text/plain", "404 page not found")
}

/// Returns a success with the remaining lifetime of the token.
fn token_reply(name: &str, issued: &IssuedToken) -> Reply {
    Reply::json(200, &json!({ "code": 0, "msg": "ok", name: issued.token, "expire": issued.remaining.as_secs() }))
}

fn oauth_error_reply(error: &str, code: i64) -> Reply {
    Reply::json(400, &json!({ "error": error, "error_description": "refused by a test", "code": code }))
}

fn error_reply(status: u16, code: i64, text: &str) -> Reply {
    let log_id = "20260101000000ABCDEF0123456789AB";
    Reply::json(status, &json!({ "code": code, "msg": text, "error": { "log_id": log_id } }))
        .header("X-Tt-Logid", log_id)
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

const OAUTH: &str = "/oauth/v3/token";

// Kinds of credentials, and kinds of tokens.
const APP: &str = "app";
const STORE: &str = "store";
const TENANT: &str = "tenant";
const TENANT_TOKEN: &str = "tenant token";
const APP_TOKEN: &str = "app token";
const STORE_TOKEN: &str = "store app token";
const OAUTH_TOKEN: &str = "oauth token";

/// Documented: two hours at most.
const TOKEN_LIFETIME: Duration = Duration::from_secs(7200);

/// A token is replaced when less than this remains (documented for both internal token endpoints).
const MIN_REMAINING: Duration = Duration::from_secs(30 * 60);

/// Assumed.
const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3600);
