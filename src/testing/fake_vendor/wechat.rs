//! The fake WeChat server: Official Accounts, Mini Programs and the Open Platform.
//!
//! - All errors have status 200 and a JSON body with `errcode` and `errmsg`.
//! - One credential has two independent kinds of token. A *stable* token is returned again until five minutes remain,
//!   and can be forced to change. A *classic* token is new with each call, and ends its predecessor five minutes later.
//! - A component token needs a pushed ticket. An authorizer token needs a refresh token, which works once.

use std::time::Duration;

use serde_json::{Value, json};

use super::forced_refreshes::ForceOutcome;
use super::issued_tokens::{Account, Validity};
use super::request::ReceivedRequest;
use super::server::Reply;
use super::tickets::Tickets;
use super::vendor::{Route, Vendor};
use super::vendor_state::VendorState;

pub(super) struct WeChat;

impl Vendor for WeChat {
    fn token_path(&self) -> &'static str {
        "/cgi-bin/stable_token"
    }

    fn api_path(&self) -> &'static str {
        "/cgi-bin/user/get"
    }

    fn initial_state(&self) -> VendorState {
        VendorState::new(TOKEN_LIFETIME)
            .with_credential(APP, "app", "secret")
            .with_credential(COMPONENT, "component", "component-secret")
            .with_refresh_token("authorizer", "refresh-1")
            .with_tickets(Tickets::with_lifetime(TICKET_LIFETIME))
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/cgi-bin/stable_token" => Some(Route::Token {
                credential_kind: APP,
                daily_limit: Some(STABLE_DAILY_LIMIT),
                handler: stable_token,
            }),
            "/cgi-bin/token" => Some(Route::Token {
                credential_kind: APP,
                daily_limit: Some(CLASSIC_DAILY_LIMIT),
                handler: classic_token,
            }),
            "/cgi-bin/ticket/getticket" => Route::token(APP, js_ticket),
            "/cgi-bin/component/api_component_token" => Route::token(COMPONENT, component_token),
            "/cgi-bin/component/api_authorizer_token" => Route::token(COMPONENT, authorizer_token),
            "/cgi-bin/user/get" => Route::api(serve_app_api),
            "/cgi-bin/component/api_create_preauthcode" => Route::api(serve_component_api),
            _ => None,
        }
    }

    fn error_reply(&self, _path: &str, code: &str) -> Reply {
        error_reply(code.parse().unwrap_or(-1), "system error")
    }

    fn throttled_reply(&self, _path: &str, wait: Duration) -> Reply {
        over_limit_reply().retry_after(wait)
    }
}

fn stable_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let body = body(request)?;
    let (id, secret) = app(&body["grant_type"], &body["appid"], &body["secret"], state)?;
    let account = Account::new(STABLE, &id, &secret);
    if body["force_refresh"] == true {
        match state.forced_refreshes.admit(&account, now) {
            // A forced refresh ends the old token at once.
            ForceOutcome::Refresh => {
                state.tokens.revoke_all_at(&account, now);
                state.tokens.issue(&account, now);
            }
            // The call succeeds and returns the current token.
            ForceOutcome::TooSoon => {}
            ForceOutcome::QuotaExceeded => return Err(over_limit_reply()),
        }
    }
    let issued = state.reuse_or_issue(&account, MIN_REMAINING, now);
    Ok(reply(&json!({ "access_token": issued.token, "expires_in": issued.remaining.as_secs() })))
}

fn classic_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let [grant, id, secret] = ["grant_type", "appid", "secret"].map(|name| request.query(name).into());
    let (id, secret) = app(&grant, &id, &secret, state)?;
    let account = Account::new(CLASSIC, &id, &secret);
    state.tokens.revoke_all_at(&account, now.saturating_add(CLASSIC_OVERLAP));
    let issued = state.tokens.issue(&account, now);
    Ok(reply(&json!({ "access_token": issued.token, "expires_in": issued.lifetime.as_secs() })))
}

/// Returns the id and the secret of the app, if the request is valid and the server accepts them.
fn app(grant: &Value, id: &Value, secret: &Value, state: &VendorState) -> Result<(String, String), Reply> {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    if grant != "client_credential" {
        return Err(error_reply(40002, "invalid grant_type"));
    }
    let id = text(id).ok_or_else(|| error_reply(41002, "appid missing"))?;
    let secret = text(secret).ok_or_else(|| error_reply(41004, "appsecret missing"))?;
    if !state.credentials.has_id(APP, &id) {
        return Err(error_reply(40013, "invalid appid"));
    }
    if !state.credentials.accepts(APP, &id, &secret) {
        return Err(error_reply(40125, "invalid appsecret"));
    }
    Ok((id, secret))
}

fn js_ticket(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    serve_app_api(request, state, now)?;
    let kind = match request.query("type").as_deref() {
        Some("jsapi") => "jsapi ticket",
        Some("wx_card") => "wx_card ticket",
        _ => return Err(error_reply(40097, "invalid args")),
    };
    let token = request.query("access_token").unwrap_or_default();
    let Some(owner) = state.tokens.account_of(&token).cloned() else {
        return Err(invalid_token_reply());
    };
    let issued = state.reuse_or_issue(&owner.with_kind(kind), Duration::ZERO, now);
    Ok(reply(&json!({ "errcode": 0, "errmsg": "ok", "ticket": issued.token, "expires_in": issued.lifetime.as_secs() })))
}

fn component_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let body = body(request)?;
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    let (id, secret) = (text("component_appid"), text("component_appsecret"));
    if !state.credentials.has_id(COMPONENT, id) {
        return Err(error_reply(40013, "invalid appid"));
    }
    if secret.is_empty() {
        return Err(error_reply(41004, "appsecret missing"));
    }
    if !state.credentials.accepts(COMPONENT, id, secret) {
        return Err(error_reply(40125, "invalid appsecret"));
    }
    match state.ticket_validity(text("component_verify_ticket"), now) {
        Validity::Valid => {}
        Validity::Expired => return Err(error_reply(61005, "component ticket is expired")),
        Validity::Invalid => return Err(error_reply(61006, "component ticket is invalid")),
    }
    let issued = state.reuse_or_issue(&Account::new(COMPONENT, id, secret), COMPONENT_MIN_REMAINING, now);
    Ok(reply(&json!({ "component_access_token": issued.token, "expires_in": issued.remaining.as_secs() })))
}

fn authorizer_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    serve_component_api(request, state, now)?;
    let body = body(request)?;
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    let authorizer = text("authorizer_appid");
    if !state.credentials.has_id(COMPONENT, text("component_appid")) || !state.refresh_tokens.has_owner(authorizer) {
        return Err(error_reply(40013, "invalid appid"));
    }
    let rotating = state.settings.rotating;
    let Ok(next) = state.refresh_tokens.redeem(authorizer, text("authorizer_refresh_token"), rotating) else {
        return Err(error_reply(61023, "refresh_token is invalid"));
    };
    let issued = state.tokens.issue(&Account::new(AUTHORIZER, authorizer, ""), now);
    Ok(reply(&json!({
        "authorizer_access_token": issued.token, "expires_in": issued.lifetime.as_secs(),
        "authorizer_refresh_token": next,
    })))
}

/// Accepts valid tokens of an app or an authorizer.
fn serve_app_api(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    serve_api(state.query_validity(request, "access_token", &[STABLE, CLASSIC, AUTHORIZER], now))
}

/// Accepts valid component tokens in either of the two parameters that WeChat's documentation uses.
fn serve_component_api(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let validity = |name| state.query_validity(request, name, &[COMPONENT], now);
    serve_api(validity("component_access_token").or_else(|| validity("access_token")))
}

fn serve_api(validity: Option<Validity>) -> Result<Reply, Reply> {
    match validity {
        None => Err(error_reply(41001, "access_token missing")),
        Some(Validity::Invalid) => Err(invalid_token_reply()),
        Some(Validity::Expired) => Err(error_reply(42001, "access_token expired")),
        Some(Validity::Valid) => Ok(reply(&json!({ "errcode": 0, "errmsg": "ok" }))),
    }
}

fn body(request: &ReceivedRequest) -> Result<Value, Reply> {
    if request.method() != "POST" {
        return Err(error_reply(43002, "require POST method"));
    }
    request.json_body().ok_or_else(|| error_reply(47001, "data format error"))
}

fn invalid_token_reply() -> Reply {
    error_reply(40001, "invalid credential, access_token is invalid or not latest")
}

fn over_limit_reply() -> Reply {
    error_reply(45009, "reach max api daily quota limit")
}

fn error_reply(code: i64, text: &str) -> Reply {
    reply(&json!({ "errcode": code, "errmsg": format!("{text} rid: 65a0b1c2-0123abcd-4567cdef") }))
}

fn reply(body: &Value) -> Reply {
    Reply::json(200, body)
}

// Kinds of credentials, and kinds of tokens.
const APP: &str = "app";
const STABLE: &str = "stable";
const CLASSIC: &str = "classic";
const COMPONENT: &str = "component";
const AUTHORIZER: &str = "authorizer";

const TOKEN_LIFETIME: Duration = Duration::from_secs(7200);

/// Documented for `component_verify_ticket`: pushed every ten minutes, valid for 12 hours.
const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// A stable token is replaced when less than this remains (documented for `getStableAccessToken`).
const MIN_REMAINING: Duration = Duration::from_secs(300);

/// A component token is replaced when less than this remains (assumed).
const COMPONENT_MIN_REMAINING: Duration = Duration::from_secs(600);

/// How long the previous classic token works after a new one was issued (documented for `getAccessToken`).
const CLASSIC_OVERLAP: Duration = Duration::from_secs(300);

/// Documented for `getStableAccessToken`.
const STABLE_DAILY_LIMIT: u32 = 500_000;

/// Documented on the page "API call limits".
const CLASSIC_DAILY_LIMIT: u32 = 2_000;
