//! WeCom: errors inside status 200, and the same token until it ends.

use std::time::Duration;

use serde_json::json;

use super::book::{Account, Issued, Judgement};
use super::records::Records;
use super::request::ReceivedRequest;
use super::server::Reply;
use super::tickets::Tickets;
use super::vendor::{Route, Vendor};

pub(super) struct WeCom;

impl Vendor for WeCom {
    fn token_path(&self) -> &'static str {
        "/cgi-bin/gettoken"
    }

    fn api_path(&self) -> &'static str {
        "/cgi-bin/message/send"
    }

    fn records(&self) -> Records {
        Records::new(LIFETIME)
            .credential(APP, "corp", "secret")
            .credential(SUITE, "suite", "suite-secret")
            .credential(CORP, "auth-corp", "permanent-code")
            .credential(PROVIDER, "corp", "provider-secret")
            .with_tickets(Tickets::living(TICKET_LIFETIME))
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/cgi-bin/gettoken" => Route::token(APP, app_token),
            "/cgi-bin/service/get_suite_token" => Route::token(SUITE, suite_token),
            "/cgi-bin/service/get_corp_token" => Route::token(CORP, corp_token),
            "/cgi-bin/service/get_provider_token" => Route::token(PROVIDER, provider_token),
            "/cgi-bin/get_jsapi_ticket" => {
                Route::token(APP, |request, records, now| js_ticket(request, records, now, "corp ticket"))
            }
            "/cgi-bin/ticket/get" => {
                Route::token(APP, |request, records, now| match request.query("type").as_deref() {
                    Some("agent_config") => js_ticket(request, records, now, "app ticket"),
                    _ => Err(failure(40058, "invalid parameter: type")),
                })
            }
            "/cgi-bin/message/send" => Route::business(serve_app),
            "/cgi-bin/service/get_pre_auth_code" => Route::business(serve_suite),
            "/cgi-bin/service/corpid_to_opencorpid" => Route::business(serve_provider),
            _ => None,
        }
    }

    fn failure(&self, _path: &str, code: &str) -> Reply {
        failure(code.parse().unwrap_or(-1), "system busy")
    }

    fn throttled(&self, _path: &str, wait: Duration) -> Reply {
        failure(45009, "api freq out of limit").retry_after(wait)
    }
}

fn app_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    if request.method() != "GET" {
        return Err(failure(43001, "require GET method"));
    }
    let Some(corp) = request.query("corpid").filter(|text| !text.is_empty()) else {
        return Err(failure(41002, "corpid missing"));
    };
    let Some(secret) = request.query("corpsecret").filter(|text| !text.is_empty()) else {
        return Err(failure(41004, "corpsecret missing"));
    };
    if !records.credentials.knows(APP, &corp) {
        return Err(failure(40013, "invalid corpid"));
    }
    if !records.credentials.accepts(APP, &corp, &secret) {
        return Err(failure(40001, "invalid credential"));
    }
    let issued = records.same(&Account::new(APP, &corp, &secret), Duration::ZERO, now);
    // The whole lifetime every time, however little of it is left.
    Ok(answer(&json!({
        "errcode": 0, "errmsg": "ok", "access_token": issued.token, "expires_in": issued.lifetime.as_secs(),
    })))
}

fn suite_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let [suite, secret, ticket] = body(request, ["suite_id", "suite_secret", "suite_ticket"])?;
    if suite.is_empty() {
        return Err(failure(41021, "suite_id missing"));
    }
    if !records.credentials.knows(SUITE, &suite) {
        return Err(failure(40083, "invalid suite_id"));
    }
    if !records.credentials.accepts(SUITE, &suite, &secret) {
        return Err(failure(40080, "invalid suite_secret"));
    }
    if ticket.is_empty() {
        return Err(failure(41023, "suite_ticket missing"));
    }
    if records.judge_ticket(&ticket, now) != Judgement::Alive {
        return Err(failure(40085, "invalid suite_ticket"));
    }
    let issued = records.same(&Account::new(SUITE, &suite, &secret), Duration::ZERO, now);
    Ok(granted("suite_access_token", &issued))
}

fn corp_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    serve_suite(request, records, now)?;
    let [corp, code] = body(request, ["auth_corpid", "permanent_code"])?;
    if !records.credentials.knows(CORP, &corp) {
        return Err(failure(40013, "invalid corpid"));
    }
    if !records.credentials.accepts(CORP, &corp, &code) {
        return Err(failure(40084, "invalid permanent_code"));
    }
    let issued = records.same(&Account::new(CORP, &corp, &code), Duration::ZERO, now);
    Ok(granted("access_token", &issued))
}

fn provider_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let [corp, secret] = body(request, ["corpid", "provider_secret"])?;
    if !records.credentials.knows(PROVIDER, &corp) {
        return Err(failure(40013, "invalid corpid"));
    }
    if !records.credentials.accepts(PROVIDER, &corp, &secret) {
        return Err(failure(40001, "invalid credential"));
    }
    let issued = records.same(&Account::new(PROVIDER, &corp, &secret), Duration::ZERO, now);
    Ok(granted("provider_access_token", &issued))
}

fn js_ticket(
    request: &ReceivedRequest,
    records: &mut Records,
    now: Duration,
    kind: &'static str,
) -> Result<Reply, Reply> {
    serve_app(request, records, now)?;
    let token = request.query("access_token").unwrap_or_default();
    let Some(owner) = records.book.owner(&token).cloned() else {
        return Err(failure(40014, "invalid access_token"));
    };
    let issued = records.same(&owner.with_kind(kind), Duration::ZERO, now);
    Ok(answer(
        &json!({ "errcode": 0, "errmsg": "ok", "ticket": issued.token, "expires_in": issued.lifetime.as_secs() }),
    ))
}

/// Serves whoever has a live token of an app.
fn serve_app(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    match records.judge_query(request, "access_token", &[APP, CORP], now) {
        None => Err(failure(41001, "access_token missing")),
        Some(Judgement::Invalid) => Err(failure(40014, "invalid access_token")),
        Some(Judgement::Ended) => Err(failure(42001, "access_token expired")),
        Some(Judgement::Alive) => Ok(well()),
    }
}

fn serve_suite(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    match records.judge_query(request, "suite_access_token", &[SUITE], now) {
        None => Err(failure(41022, "suite_access_token missing")),
        Some(Judgement::Invalid) => Err(failure(40082, "invalid suite_access_token")),
        Some(Judgement::Ended) => Err(failure(42009, "suite_access_token expired")),
        Some(Judgement::Alive) => Ok(well()),
    }
}

fn serve_provider(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    match records.judge_query(request, "provider_access_token", &[PROVIDER], now) {
        None => Err(failure(41001, "provider_access_token missing")),
        Some(Judgement::Invalid | Judgement::Ended) => Err(failure(40082, "invalid suite_token or provider_token")),
        Some(Judgement::Alive) => Ok(well()),
    }
}

fn well() -> Reply {
    answer(&json!({ "errcode": 0, "errmsg": "ok" }))
}

/// The texts of these names in a JSON body; empty where there is none.
fn body<const N: usize>(request: &ReceivedRequest, names: [&str; N]) -> Result<[String; N], Reply> {
    if request.method() != "POST" {
        return Err(failure(43002, "require POST method"));
    }
    if request.json_body().is_none() {
        return Err(failure(47001, "data format error"));
    }
    Ok(names.map(|name| request.json(name).unwrap_or_default()))
}

/// These say nothing of an `errcode` when all is well.
fn granted(name: &str, issued: &Issued) -> Reply {
    answer(&json!({ name: issued.token, "expires_in": issued.lifetime.as_secs() }))
}

fn failure(code: i64, text: &str) -> Reply {
    let more = "hint: [1767225600_47_0123456789abcdef], from ip: 127.0.0.1, more info at \
                https://open.work.weixin.qq.com/devtool/query?e=";
    answer(&json!({ "errcode": code, "errmsg": format!("{text}, {more}{code}") }))
}

fn answer(body: &serde_json::Value) -> Reply {
    Reply::new(200, "application/json; charset=UTF-8", body.to_string())
}

// Realms, and kinds of tokens.
const APP: &str = "app";
const SUITE: &str = "suite";
const CORP: &str = "corp";
const PROVIDER: &str = "provider";

const LIFETIME: Duration = Duration::from_secs(7200);

const TICKET_LIFETIME: Duration = Duration::from_secs(30 * 60);
