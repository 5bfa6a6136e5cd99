//! WeChat: two kinds of token for one secret, tickets, and refresh tokens that are good once. Errors inside status 200.

use std::time::Duration;

use serde_json::{Value, json};

use super::book::{Account, Judgement};
use super::forced::Force;
use super::records::Records;
use super::request::ReceivedRequest;
use super::server::Reply;
use super::tickets::Tickets;
use super::vendor::{Route, Vendor};

pub(super) struct WeChat;

impl Vendor for WeChat {
    fn token_path(&self) -> &'static str {
        "/cgi-bin/stable_token"
    }

    fn api_path(&self) -> &'static str {
        "/cgi-bin/user/get"
    }

    fn records(&self) -> Records {
        Records::new(LIFETIME)
            .credential(APP, "app", "secret")
            .credential(COMPONENT, "component", "component-secret")
            .refresh_token("authorizer", "refresh-1")
            .with_tickets(Tickets::living(TICKET_LIFETIME))
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/cgi-bin/stable_token" => {
                Some(Route::Token { realm: APP, daily: Some(STABLE_A_DAY), answer: stable_token })
            }
            "/cgi-bin/token" => Some(Route::Token { realm: APP, daily: Some(CLASSIC_A_DAY), answer: classic_token }),
            "/cgi-bin/ticket/getticket" => Route::token(APP, js_ticket),
            "/cgi-bin/component/api_component_token" => Route::token(COMPONENT, component_token),
            "/cgi-bin/component/api_authorizer_token" => Route::token(COMPONENT, authorizer_token),
            "/cgi-bin/user/get" => Route::business(serve_app),
            "/cgi-bin/component/api_create_preauthcode" => Route::business(serve_component),
            _ => None,
        }
    }

    fn failure(&self, _path: &str, code: &str) -> Reply {
        failure(code.parse().unwrap_or(-1), "system error")
    }

    fn throttled(&self, _path: &str, wait: Duration) -> Reply {
        over_limit().retry_after(wait)
    }
}

fn stable_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let body = body(request)?;
    let (id, secret) = app(&body["grant_type"], &body["appid"], &body["secret"], records)?;
    let account = Account::new(STABLE, &id, &secret);
    if body["force_refresh"] == true {
        match records.forced.take(&account, now) {
            Force::Refreshes => {
                records.book.cut(&account, now);
                records.book.issue(&account, now);
            }
            Force::TooSoon => {}
            Force::TooOften => return Err(over_limit()),
        }
    }
    let issued = records.same(&account, RENEWED_WITHIN, now);
    Ok(answer(&json!({ "access_token": issued.token, "expires_in": issued.left.as_secs() })))
}

fn classic_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let [grant, id, secret] = ["grant_type", "appid", "secret"].map(|name| request.query(name).into());
    let (id, secret) = app(&grant, &id, &secret, records)?;
    let account = Account::new(CLASSIC, &id, &secret);
    records.book.cut(&account, now.saturating_add(OVERLAP));
    let issued = records.book.issue(&account, now);
    Ok(answer(&json!({ "access_token": issued.token, "expires_in": issued.lifetime.as_secs() })))
}

/// The app that asks, if it may.
fn app(grant: &Value, id: &Value, secret: &Value, records: &Records) -> Result<(String, String), Reply> {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    if grant != "client_credential" {
        return Err(failure(40002, "invalid grant_type"));
    }
    let id = text(id).ok_or_else(|| failure(41002, "appid missing"))?;
    let secret = text(secret).ok_or_else(|| failure(41004, "appsecret missing"))?;
    if !records.credentials.knows(APP, &id) {
        return Err(failure(40013, "invalid appid"));
    }
    if !records.credentials.accepts(APP, &id, &secret) {
        return Err(failure(40125, "invalid appsecret"));
    }
    Ok((id, secret))
}

fn js_ticket(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    serve_app(request, records, now)?;
    let kind = match request.query("type").as_deref() {
        Some("jsapi") => "jsapi ticket",
        Some("wx_card") => "wx_card ticket",
        _ => return Err(failure(40097, "invalid args")),
    };
    let token = request.query("access_token").unwrap_or_default();
    let Some(owner) = records.book.owner(&token).cloned() else {
        return Err(not_latest());
    };
    let issued = records.same(&owner.with_kind(kind), Duration::ZERO, now);
    Ok(answer(
        &json!({ "errcode": 0, "errmsg": "ok", "ticket": issued.token, "expires_in": issued.lifetime.as_secs() }),
    ))
}

fn component_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let body = body(request)?;
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    let (id, secret) = (text("component_appid"), text("component_appsecret"));
    if !records.credentials.knows(COMPONENT, id) {
        return Err(failure(40013, "invalid appid"));
    }
    if secret.is_empty() {
        return Err(failure(41004, "appsecret missing"));
    }
    if !records.credentials.accepts(COMPONENT, id, secret) {
        return Err(failure(40125, "invalid appsecret"));
    }
    match records.judge_ticket(text("component_verify_ticket"), now) {
        Judgement::Alive => {}
        Judgement::Ended => return Err(failure(61005, "component ticket is expired")),
        Judgement::Invalid => return Err(failure(61006, "component ticket is invalid")),
    }
    let issued = records.same(&Account::new(COMPONENT, id, secret), COMPONENT_RENEWED_WITHIN, now);
    Ok(answer(&json!({ "component_access_token": issued.token, "expires_in": issued.left.as_secs() })))
}

fn authorizer_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    serve_component(request, records, now)?;
    let body = body(request)?;
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    let authorizer = text("authorizer_appid");
    if !records.credentials.knows(COMPONENT, text("component_appid")) || !records.refresh_tokens.knows(authorizer) {
        return Err(failure(40013, "invalid appid"));
    }
    let rotating = records.settings.rotating;
    let Ok(next) = records.refresh_tokens.take(authorizer, text("authorizer_refresh_token"), rotating) else {
        return Err(failure(61023, "refresh_token is invalid"));
    };
    let issued = records.book.issue(&Account::new(AUTHORIZER, authorizer, ""), now);
    Ok(answer(&json!({
        "authorizer_access_token": issued.token, "expires_in": issued.lifetime.as_secs(),
        "authorizer_refresh_token": next,
    })))
}

/// Serves whoever has a live token of an app.
fn serve_app(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    serve(records.judge_query(request, "access_token", &[STABLE, CLASSIC, AUTHORIZER], now))
}

/// Newer pages of the vendor name the parameter as that of an app's token.
fn serve_component(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let judged = |name| records.judge_query(request, name, &[COMPONENT], now);
    serve(judged("component_access_token").or_else(|| judged("access_token")))
}

fn serve(judged: Option<Judgement>) -> Result<Reply, Reply> {
    match judged {
        None => Err(failure(41001, "access_token missing")),
        Some(Judgement::Invalid) => Err(not_latest()),
        Some(Judgement::Ended) => Err(failure(42001, "access_token expired")),
        Some(Judgement::Alive) => Ok(answer(&json!({ "errcode": 0, "errmsg": "ok" }))),
    }
}

fn body(request: &ReceivedRequest) -> Result<Value, Reply> {
    if request.method() != "POST" {
        return Err(failure(43002, "require POST method"));
    }
    request.json_body().ok_or_else(|| failure(47001, "data format error"))
}

fn not_latest() -> Reply {
    failure(40001, "invalid credential, access_token is invalid or not latest")
}

fn over_limit() -> Reply {
    failure(45009, "reach max api daily quota limit")
}

fn failure(code: i64, text: &str) -> Reply {
    answer(&json!({ "errcode": code, "errmsg": format!("{text} rid: 65a0b1c2-0123abcd-4567cdef") }))
}

fn answer(body: &Value) -> Reply {
    Reply::json(200, body)
}

// Realms, and kinds of tokens.
const APP: &str = "app";
const STABLE: &str = "stable";
const CLASSIC: &str = "classic";
const COMPONENT: &str = "component";
const AUTHORIZER: &str = "authorizer";

const LIFETIME: Duration = Duration::from_secs(7200);

const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// With less left, the stable token is another one.
const RENEWED_WITHIN: Duration = Duration::from_secs(300);

const COMPONENT_RENEWED_WITHIN: Duration = Duration::from_secs(600);

/// How long the classic token before works beside the new one.
const OVERLAP: Duration = Duration::from_secs(300);

const STABLE_A_DAY: u32 = 500_000;

const CLASSIC_A_DAY: u32 = 2_000;
