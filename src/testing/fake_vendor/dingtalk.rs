//! DingTalk: two families of replies, and the same token, whose lifetime begins anew whenever it is asked for.

use std::time::Duration;

use serde_json::json;

use super::book::{Account, Issued, Judgement};
use super::records::Records;
use super::request::ReceivedRequest;
use super::server::Reply;
use super::tickets::Tickets;
use super::vendor::{Route, Vendor};

pub(super) struct DingTalk;

impl Vendor for DingTalk {
    fn token_path(&self) -> &'static str {
        "/gettoken"
    }

    fn api_path(&self) -> &'static str {
        "/topapi/v2/user/get"
    }

    fn records(&self) -> Records {
        Records::new(LIFETIME)
            .credential(APP, "app", "secret")
            .credential(SUITE, "suite", "suite-secret")
            .credential(CORP, "corp", "")
            .with_tickets(Tickets::replacing())
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/gettoken" => Route::token(APP, old_token),
            "/v1.0/oauth2/accessToken" => Route::token(APP, new_token),
            "/v1.0/oauth2/corpAccessToken" => Route::token(SUITE, corp_token),
            "/v1.0/oauth2/suiteAccessToken" => Route::token(SUITE, suite_token),
            _ if corp_in(path).is_some() => Route::token(APP, unified_token),
            _ if path.starts_with("/topapi/") => Route::business(serve_old),
            _ if is_new(path) && !path.starts_with("/v1.0/oauth2/") => Route::business(serve_new),
            _ => None,
        }
    }

    fn failure(&self, path: &str, code: &str) -> Reply {
        if is_new(path) { new_failure(code, "refused by a test") } else { old_failure(code.parse().unwrap_or(-1)) }
    }

    fn throttled(&self, path: &str, wait: Duration) -> Reply {
        let code = if is_new(path) { "Forbidden.AccessDenied.QpsLimitForApi" } else { "90018" };
        self.failure(path, code).retry_after(wait)
    }

    fn tenants(&self) -> Option<&'static str> {
        Some(CORP)
    }
}

fn is_new(path: &str) -> bool {
    path.starts_with("/v1.0/")
}

/// The company in the path of the unified call.
fn corp_in(path: &str) -> Option<&str> {
    let corp = path.strip_prefix("/v1.0/oauth2/")?.strip_suffix("/token")?;
    (!corp.is_empty() && !corp.contains('/')).then_some(corp)
}

fn old_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let (Some(key), Some(secret)) = (request.query("appkey"), request.query("appsecret")) else {
        return Err(old_failure(40035));
    };
    if !records.credentials.accepts(APP, &key, &secret) {
        return Err(old_failure(40096));
    }
    let issued = extended(records, &Account::new(OLD, &key, &secret), now);
    let body = json!({
        "errcode": 0, "errmsg": "ok", "access_token": issued.token, "expires_in": issued.lifetime.as_secs(),
    });
    Ok(Reply::json(200, &body))
}

fn new_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let [key, secret] = body(request, ["appKey", "appSecret"])?;
    if !records.credentials.accepts(APP, &key, &secret) {
        return Err(wrong_secret());
    }
    Ok(granted(&extended(records, &Account::new(NEW, &key, &secret), now)))
}

fn unified_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let [id, secret, grant] = body(request, ["client_id", "client_secret", "grant_type"])?;
    let corp = corp_in(request.path()).unwrap_or_default();
    if !records.credentials.knows(CORP, corp) {
        return Err(unknown_corp());
    }
    if grant != "client_credentials" {
        return Err(new_failure("unsupported.grant.type", "refused by a test"));
    }
    if !records.credentials.accepts(APP, &id, &secret) {
        return Err(wrong_secret());
    }
    // An app has a token of its own in each company.
    let issued = extended(records, &Account::new(UNIFIED, &id, &secret).within(corp), now);
    Ok(Reply::json(200, &json!({ "access_token": issued.token, "expires_in": issued.lifetime.as_secs() })))
}

fn corp_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let suite = suite(request, records, now)?;
    let corp = request.json("authCorpId").unwrap_or_default();
    if !records.credentials.knows(CORP, &corp) {
        return Err(unknown_corp());
    }
    Ok(granted(&records.book.issue(&suite.with_kind(CORP).within(&corp), now)))
}

fn suite_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let suite = suite(request, records, now)?;
    Ok(granted(&extended(records, &suite, now)))
}

/// The suite that asks, if it may and has the latest ticket.
fn suite(request: &ReceivedRequest, records: &Records, now: Duration) -> Result<Account, Reply> {
    let [key, secret, ticket] = body(request, ["suiteKey", "suiteSecret", "suiteTicket"])?;
    if !records.credentials.knows(SUITE, &key) {
        return Err(new_failure("invalidSuiteKey", "suitekey\u{4e0d}\u{5408}\u{6cd5}"));
    }
    if !records.credentials.accepts(SUITE, &key, &secret) {
        return Err(wrong_secret());
    }
    if records.judge_ticket(&ticket, now) != Judgement::Alive {
        return Err(new_failure("invalidSuiteTicket", "suiteTicket\u{4e0d}\u{5408}\u{6cd5}"));
    }
    Ok(Account::new(SUITE, &key, &secret))
}

/// The token that the account has, with its whole lifetime before it.
fn extended(records: &mut Records, account: &Account, now: Duration) -> Issued {
    let issued = records.same(account, Duration::ZERO, now);
    records.book.extend(issued, now)
}

fn serve_old(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    let refusal = |sub_code: &str, text: &str| {
        let body = json!({
            "errcode": 88, "errmsg": "ding talk error", "sub_code": sub_code, "sub_msg": text,
            "request_id": "15r6h1xkq1a2b",
        });
        Err(Reply::json(200, &body))
    };
    match records.judge_query(request, "access_token", ALL, now) {
        None => refusal("40000", "access_token is blank"),
        Some(Judgement::Alive) => Ok(Reply::json(200, &json!({ "errcode": 0, "errmsg": "ok" }))),
        Some(Judgement::Ended) => refusal("42001", "access_token expired"),
        Some(Judgement::Invalid) => refusal("40014", NOT_A_TOKEN),
    }
}

/// `Authorization` and the query are ignored.
fn serve_new(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    match request.header("x-acs-dingtalk-access-token").map(|token| records.book.judge_as(ALL, token, now)) {
        None => Err(new_failure("AuthenticationFailed.MissingParameter", NO_TOKEN)),
        Some(Judgement::Alive) => Ok(Reply::json(200, &json!({ "result": true }))),
        Some(Judgement::Ended | Judgement::Invalid) => Err(new_failure("InvalidAuthentication", NOT_A_TOKEN)),
    }
}

/// The texts of these names in a JSON body; empty where there is none.
fn body<const N: usize>(request: &ReceivedRequest, names: [&str; N]) -> Result<[String; N], Reply> {
    if request.method() != "POST" || request.json_body().is_none() {
        return Err(new_failure("Missingbody", "body is mandatory for this action"));
    }
    Ok(names.map(|name| request.json(name).unwrap_or_default()))
}

fn granted(issued: &Issued) -> Reply {
    Reply::json(200, &json!({ "accessToken": issued.token, "expireIn": issued.lifetime.as_secs() }))
}

fn unknown_corp() -> Reply {
    new_failure("unknownError", "\u{672a}\u{77e5}\u{9519}\u{8bef}")
}

fn wrong_secret() -> Reply {
    new_failure("invalidClientIdOrSecret", "\u{65e0}\u{6548}\u{7684}clientId\u{6216}\u{8005}clientSecret")
}

fn new_failure(code: &str, text: &str) -> Reply {
    let status = match code {
        "unknownError" | "server.error" => 500,
        "unauthorized.client" | "authFailed" => 401,
        _ if code.starts_with("Forbidden.") => 403,
        _ => 400,
    };
    let request_id = "30EE8654-0123-4567-89AB-CDEF01234567";
    Reply::json(status, &json!({ "code": code, "requestid": request_id, "message": text }))
}

fn old_failure(code: i64) -> Reply {
    let text = match code {
        40035 => "\u{7f3a}\u{5c11}\u{53c2}\u{6570} corpid or appkey",
        40096 => "\u{4e0d}\u{5408}\u{6cd5}\u{7684}appKey\u{6216}appSecret",
        _ => "refused by a test",
    };
    Reply::json(200, &json!({ "errcode": code, "errmsg": text }))
}

const NO_TOKEN: &str = "\u{7f3a}\u{5c11}\u{53c2}\u{6570}\u{ff1a}x-acs-dingtalk-access-token";

const NOT_A_TOKEN: &str = "\u{4e0d}\u{5408}\u{6cd5}\u{7684}access_token";

// Realms, and kinds of tokens.
const APP: &str = "app";
const SUITE: &str = "suite";
const CORP: &str = "corp";
const OLD: &str = "old";
const NEW: &str = "new";
const UNIFIED: &str = "unified";

const ALL: &[&str] = &[OLD, NEW, UNIFIED, CORP, SUITE];

const LIFETIME: Duration = Duration::from_secs(7200);
