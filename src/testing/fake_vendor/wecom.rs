//! The fake WeCom server.
//!
//! - All errors have status 200 and a JSON body with `errcode` and `errmsg`.
//! - While a token is valid, every call returns the same token with the whole lifetime in `expires_in`. A client that
//!   trusts `expires_in` of a repeated token would use it too long, so the crate must notice unchanged tokens.
//! - Suite, corp and provider tokens come without an `errcode` on success, all other replies with `errcode` 0.

use std::time::Duration;

use serde_json::json;

use super::issued_tokens::{Account, IssuedToken, Validity};
use super::request::ReceivedRequest;
use super::server::Reply;
use super::tickets::Tickets;
use super::vendor::{Route, Vendor};
use super::vendor_state::VendorState;

pub(super) struct WeCom;

impl Vendor for WeCom {
    fn token_path(&self) -> &'static str {
        "/cgi-bin/gettoken"
    }

    fn api_path(&self) -> &'static str {
        "/cgi-bin/message/send"
    }

    fn initial_state(&self) -> VendorState {
        VendorState::new(TOKEN_LIFETIME)
            .with_credential(APP, "corp", "secret")
            .with_credential(SUITE, "suite", "suite-secret")
            .with_credential(CORP, "auth-corp", "permanent-code")
            .with_credential(PROVIDER, "corp", "provider-secret")
            .with_tickets(Tickets::with_lifetime(TICKET_LIFETIME))
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/cgi-bin/gettoken" => Route::token(APP, app_token),
            "/cgi-bin/service/get_suite_token" => Route::token(SUITE, suite_token),
            "/cgi-bin/service/get_corp_token" => Route::token(CORP, corp_token),
            "/cgi-bin/service/get_provider_token" => Route::token(PROVIDER, provider_token),
            "/cgi-bin/get_jsapi_ticket" => {
                Route::token(APP, |request, state, now| js_ticket(request, state, now, "corp ticket"))
            }
            "/cgi-bin/ticket/get" => Route::token(APP, |request, state, now| match request.query("type").as_deref() {
                Some("agent_config") => js_ticket(request, state, now, "app ticket"),
                _ => Err(error_reply(40058, "invalid parameter: type")),
            }),
            "/cgi-bin/message/send" => Route::api(serve_app_api),
            "/cgi-bin/service/get_pre_auth_code" => Route::api(serve_suite_api),
            "/cgi-bin/service/corpid_to_opencorpid" => Route::api(serve_provider_api),
            _ => None,
        }
    }

    fn error_reply(&self, _path: &str, code: &str) -> Reply {
        error_reply(code.parse().unwrap_or(-1), "system busy")
    }

    fn throttled_reply(&self, _path: &str, wait: Duration) -> Reply {
        error_reply(45009, "api freq out of limit").retry_after(wait)
    }
}

fn app_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    if request.method() != "GET" {
        return Err(error_reply(43001, "require GET method"));
    }
    let Some(corp) = request.query("corpid").filter(|text| !text.is_empty()) else {
        return Err(error_reply(41002, "corpid missing"));
    };
    let Some(secret) = request.query("corpsecret").filter(|text| !text.is_empty()) else {
        return Err(error_reply(41004, "corpsecret missing"));
    };
    if !state.credentials.has_id(APP, &corp) {
        return Err(error_reply(40013, "invalid corpid"));
    }
    if !state.credentials.accepts(APP, &corp, &secret) {
        return Err(error_reply(40001, "invalid credential"));
    }
    let issued = state.reuse_or_issue(&Account::new(APP, &corp, &secret), Duration::ZERO, now);
    // The whole lifetime in every reply, also when less of it remains, as the real server does.
    Ok(reply(&json!({
        "errcode": 0, "errmsg": "ok", "access_token": issued.token, "expires_in": issued.lifetime.as_secs(),
    })))
}

fn suite_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let [suite, secret, ticket] = body(request, ["suite_id", "suite_secret", "suite_ticket"])?;
    if suite.is_empty() {
        return Err(error_reply(41021, "suite_id missing"));
    }
    if !state.credentials.has_id(SUITE, &suite) {
        return Err(error_reply(40083, "invalid suite_id"));
    }
    if !state.credentials.accepts(SUITE, &suite, &secret) {
        return Err(error_reply(40080, "invalid suite_secret"));
    }
    if ticket.is_empty() {
        return Err(error_reply(41023, "suite_ticket missing"));
    }
    if state.ticket_validity(&ticket, now) != Validity::Valid {
        return Err(error_reply(40085, "invalid suite_ticket"));
    }
    let issued = state.reuse_or_issue(&Account::new(SUITE, &suite, &secret), Duration::ZERO, now);
    Ok(token_reply("suite_access_token", &issued))
}

fn corp_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    serve_suite_api(request, state, now)?;
    let [corp, code] = body(request, ["auth_corpid", "permanent_code"])?;
    if !state.credentials.has_id(CORP, &corp) {
        return Err(error_reply(40013, "invalid corpid"));
    }
    if !state.credentials.accepts(CORP, &corp, &code) {
        return Err(error_reply(40084, "invalid permanent_code"));
    }
    let issued = state.reuse_or_issue(&Account::new(CORP, &corp, &code), Duration::ZERO, now);
    Ok(token_reply("access_token", &issued))
}

fn provider_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let [corp, secret] = body(request, ["corpid", "provider_secret"])?;
    if !state.credentials.has_id(PROVIDER, &corp) {
        return Err(error_reply(40013, "invalid corpid"));
    }
    if !state.credentials.accepts(PROVIDER, &corp, &secret) {
        return Err(error_reply(40001, "invalid credential"));
    }
    let issued = state.reuse_or_issue(&Account::new(PROVIDER, &corp, &secret), Duration::ZERO, now);
    Ok(token_reply("provider_access_token", &issued))
}

fn js_ticket(
    request: &ReceivedRequest,
    state: &mut VendorState,
    now: Duration,
    kind: &'static str,
) -> Result<Reply, Reply> {
    serve_app_api(request, state, now)?;
    let token = request.query("access_token").unwrap_or_default();
    let Some(owner) = state.tokens.account_of(&token).cloned() else {
        return Err(error_reply(40014, "invalid access_token"));
    };
    let issued = state.reuse_or_issue(&owner.with_kind(kind), Duration::ZERO, now);
    Ok(reply(&json!({ "errcode": 0, "errmsg": "ok", "ticket": issued.token, "expires_in": issued.lifetime.as_secs() })))
}

/// Accepts valid tokens of an app, own or authorized.
fn serve_app_api(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    match state.query_validity(request, "access_token", &[APP, CORP], now) {
        None => Err(error_reply(41001, "access_token missing")),
        Some(Validity::Invalid) => Err(error_reply(40014, "invalid access_token")),
        Some(Validity::Expired) => Err(error_reply(42001, "access_token expired")),
        Some(Validity::Valid) => Ok(ok_reply()),
    }
}

fn serve_suite_api(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    match state.query_validity(request, "suite_access_token", &[SUITE], now) {
        None => Err(error_reply(41022, "suite_access_token missing")),
        Some(Validity::Invalid) => Err(error_reply(40082, "invalid suite_access_token")),
        Some(Validity::Expired) => Err(error_reply(42009, "suite_access_token expired")),
        Some(Validity::Valid) => Ok(ok_reply()),
    }
}

fn serve_provider_api(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    match state.query_validity(request, "provider_access_token", &[PROVIDER], now) {
        None => Err(error_reply(41001, "provider_access_token missing")),
        Some(Validity::Invalid | Validity::Expired) => Err(error_reply(40082, "invalid suite_token or provider_token")),
        Some(Validity::Valid) => Ok(ok_reply()),
    }
}

fn ok_reply() -> Reply {
    reply(&json!({ "errcode": 0, "errmsg": "ok" }))
}

/// Returns the string fields of these names in a JSON body; a missing field is empty.
fn body<const N: usize>(request: &ReceivedRequest, names: [&str; N]) -> Result<[String; N], Reply> {
    if request.method() != "POST" {
        return Err(error_reply(43002, "require POST method"));
    }
    if request.json_body().is_none() {
        return Err(error_reply(47001, "data format error"));
    }
    Ok(names.map(|name| request.json(name).unwrap_or_default()))
}

/// Returns a success without `errcode`, as the token endpoints below `/cgi-bin/service` do.
fn token_reply(name: &str, issued: &IssuedToken) -> Reply {
    reply(&json!({ name: issued.token, "expires_in": issued.lifetime.as_secs() }))
}

fn error_reply(code: i64, text: &str) -> Reply {
    let more = "hint: [1767225600_47_0123456789abcdef], from ip: 127.0.0.1, more info at \
                https://open.work.weixin.qq.com/devtool/query?e=";
    reply(&json!({ "errcode": code, "errmsg": format!("{text}, {more}{code}") }))
}

fn reply(body: &serde_json::Value) -> Reply {
    Reply::new(200, "application/json; charset=UTF-8", body.to_string())
}

// Kinds of credentials, and kinds of tokens.
const APP: &str = "app";
const SUITE: &str = "suite";
const CORP: &str = "corp";
const PROVIDER: &str = "provider";

/// Documented for `gettoken`: `expires_in` is normally two hours.
const TOKEN_LIFETIME: Duration = Duration::from_secs(7200);

/// Documented for `suite_ticket`: pushed every ten minutes, valid for 30.
const TICKET_LIFETIME: Duration = Duration::from_secs(30 * 60);
