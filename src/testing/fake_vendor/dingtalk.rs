//! The fake DingTalk server, with the classic and the new API.
//!
//! - The classic API (`/gettoken`, `/topapi/`) reports errors with status 200 and an `errcode`. Its APIs put the reason
//!   into `sub_code`.
//! - The new API (`/v1.0/`) reports errors with a status and a `code` that is a word.
//! - A call returns the current token while it is valid and restarts its lifetime, so `expires_in` is the whole
//!   lifetime and is true. `corpAccessToken` issues a new token for each call.
//! - A pushed ticket replaces all earlier ones.

use std::time::Duration;

use serde_json::json;

use super::issued_tokens::{Account, IssuedToken, Validity};
use super::request::ReceivedRequest;
use super::server::Reply;
use super::tickets::Tickets;
use super::vendor::{Route, Vendor};
use super::vendor_state::VendorState;

pub(super) struct DingTalk;

impl Vendor for DingTalk {
    fn token_path(&self) -> &'static str {
        "/gettoken"
    }

    fn api_path(&self) -> &'static str {
        "/topapi/v2/user/get"
    }

    fn initial_state(&self) -> VendorState {
        VendorState::new(TOKEN_LIFETIME)
            .with_credential(APP, "app", "secret")
            .with_credential(SUITE, "suite", "suite-secret")
            .with_credential(CORP, "corp", "")
            .with_tickets(Tickets::until_replaced())
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/gettoken" => Route::token(APP, classic_token),
            "/v1.0/oauth2/accessToken" => Route::token(APP, new_token),
            "/v1.0/oauth2/corpAccessToken" => Route::token(SUITE, corp_token),
            "/v1.0/oauth2/suiteAccessToken" => Route::token(SUITE, suite_token),
            _ if corp_in_path(path).is_some() => Route::token(APP, unified_token),
            _ if path.starts_with("/topapi/") => Route::api(serve_classic_api),
            _ if is_new_api(path) && !path.starts_with("/v1.0/oauth2/") => Route::api(serve_new_api),
            _ => None,
        }
    }

    fn error_reply(&self, path: &str, code: &str) -> Reply {
        if is_new_api(path) {
            new_error_reply(code, "refused by a test")
        } else {
            classic_error_reply(code.parse().unwrap_or(-1))
        }
    }

    fn throttled_reply(&self, path: &str, wait: Duration) -> Reply {
        let code = if is_new_api(path) { "Forbidden.AccessDenied.QpsLimitForApi" } else { "90018" };
        self.error_reply(path, code).retry_after(wait)
    }

    fn tenant_kind(&self) -> Option<&'static str> {
        Some(CORP)
    }
}

fn is_new_api(path: &str) -> bool {
    path.starts_with("/v1.0/")
}

/// Returns the company id in the path of the unified endpoint, `/v1.0/oauth2/{corpId}/token`.
fn corp_in_path(path: &str) -> Option<&str> {
    let corp = path.strip_prefix("/v1.0/oauth2/")?.strip_suffix("/token")?;
    (!corp.is_empty() && !corp.contains('/')).then_some(corp)
}

fn classic_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let (Some(key), Some(secret)) = (request.query("appkey"), request.query("appsecret")) else {
        return Err(classic_error_reply(40035));
    };
    if !state.credentials.accepts(APP, &key, &secret) {
        return Err(classic_error_reply(40096));
    }
    let issued = reuse_and_restart(state, &Account::new(CLASSIC, &key, &secret), now);
    let body = json!({
        "errcode": 0, "errmsg": "ok", "access_token": issued.token, "expires_in": issued.lifetime.as_secs(),
    });
    Ok(Reply::json(200, &body))
}

fn new_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let [key, secret] = body(request, ["appKey", "appSecret"])?;
    if !state.credentials.accepts(APP, &key, &secret) {
        return Err(wrong_secret_reply());
    }
    Ok(token_reply(&reuse_and_restart(state, &Account::new(NEW, &key, &secret), now)))
}

fn unified_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let [id, secret, grant] = body(request, ["client_id", "client_secret", "grant_type"])?;
    let corp = corp_in_path(request.path()).unwrap_or_default();
    if !state.credentials.has_id(CORP, corp) {
        return Err(unknown_corp_reply());
    }
    if grant != "client_credentials" {
        return Err(new_error_reply("unsupported.grant.type", "refused by a test"));
    }
    if !state.credentials.accepts(APP, &id, &secret) {
        return Err(wrong_secret_reply());
    }
    // An app has one current token in each company.
    let issued = reuse_and_restart(state, &Account::new(UNIFIED, &id, &secret).in_tenant(corp), now);
    Ok(Reply::json(200, &json!({ "access_token": issued.token, "expires_in": issued.lifetime.as_secs() })))
}

fn corp_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let suite = suite(request, state, now)?;
    let corp = request.json("authCorpId").unwrap_or_default();
    if !state.credentials.has_id(CORP, &corp) {
        return Err(unknown_corp_reply());
    }
    Ok(token_reply(&state.tokens.issue(&suite.with_kind(CORP).in_tenant(&corp), now)))
}

fn suite_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let suite = suite(request, state, now)?;
    Ok(token_reply(&reuse_and_restart(state, &suite, now)))
}

/// Returns the account of the suite, if the server accepts its id, secret and ticket.
fn suite(request: &ReceivedRequest, state: &VendorState, now: Duration) -> Result<Account, Reply> {
    let [key, secret, ticket] = body(request, ["suiteKey", "suiteSecret", "suiteTicket"])?;
    if !state.credentials.has_id(SUITE, &key) {
        return Err(new_error_reply("invalidSuiteKey", "suitekey\u{4e0d}\u{5408}\u{6cd5}"));
    }
    if !state.credentials.accepts(SUITE, &key, &secret) {
        return Err(wrong_secret_reply());
    }
    if state.ticket_validity(&ticket, now) != Validity::Valid {
        return Err(new_error_reply("invalidSuiteTicket", "suiteTicket\u{4e0d}\u{5408}\u{6cd5}"));
    }
    Ok(Account::new(SUITE, &key, &secret))
}

/// Returns the account's current token after restarting its lifetime, or a new token.
fn reuse_and_restart(state: &mut VendorState, account: &Account, now: Duration) -> IssuedToken {
    let issued = state.reuse_or_issue(account, Duration::ZERO, now);
    state.tokens.restart_lifetime(issued, now)
}

fn serve_classic_api(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let rejected = |sub_code: &str, text: &str| {
        let body = json!({
            "errcode": 88, "errmsg": "ding talk error", "sub_code": sub_code, "sub_msg": text,
            "request_id": "15r6h1xkq1a2b",
        });
        Err(Reply::json(200, &body))
    };
    match state.query_validity(request, "access_token", TOKEN_KINDS, now) {
        None => rejected("40000", "access_token is blank"),
        Some(Validity::Valid) => Ok(Reply::json(200, &json!({ "errcode": 0, "errmsg": "ok" }))),
        Some(Validity::Expired) => rejected("42001", "access_token expired"),
        Some(Validity::Invalid) => rejected("40014", INVALID_TOKEN_TEXT),
    }
}

/// Accepts a token in the header `x-acs-dingtalk-access-token` only. `Authorization` and the query are ignored.
fn serve_new_api(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    match request.header("x-acs-dingtalk-access-token").map(|token| state.tokens.validity_as(TOKEN_KINDS, token, now)) {
        None => Err(new_error_reply("AuthenticationFailed.MissingParameter", MISSING_TOKEN_TEXT)),
        Some(Validity::Valid) => Ok(Reply::json(200, &json!({ "result": true }))),
        Some(Validity::Expired | Validity::Invalid) => {
            Err(new_error_reply("InvalidAuthentication", INVALID_TOKEN_TEXT))
        }
    }
}

/// Returns the string fields of these names in a JSON body; a missing field is empty.
fn body<const N: usize>(request: &ReceivedRequest, names: [&str; N]) -> Result<[String; N], Reply> {
    if request.method() != "POST" || request.json_body().is_none() {
        return Err(new_error_reply("Missingbody", "body is mandatory for this action"));
    }
    Ok(names.map(|name| request.json(name).unwrap_or_default()))
}

fn token_reply(issued: &IssuedToken) -> Reply {
    Reply::json(200, &json!({ "accessToken": issued.token, "expireIn": issued.lifetime.as_secs() }))
}

fn unknown_corp_reply() -> Reply {
    new_error_reply("unknownError", "\u{672a}\u{77e5}\u{9519}\u{8bef}")
}

fn wrong_secret_reply() -> Reply {
    new_error_reply("invalidClientIdOrSecret", "\u{65e0}\u{6548}\u{7684}clientId\u{6216}\u{8005}clientSecret")
}

fn new_error_reply(code: &str, text: &str) -> Reply {
    let status = match code {
        "unknownError" | "server.error" => 500,
        "unauthorized.client" | "authFailed" => 401,
        _ if code.starts_with("Forbidden.") => 403,
        _ => 400,
    };
    let request_id = "30EE8654-0123-4567-89AB-CDEF01234567";
    Reply::json(status, &json!({ "code": code, "requestid": request_id, "message": text }))
}

fn classic_error_reply(code: i64) -> Reply {
    let text = match code {
        40035 => "\u{7f3a}\u{5c11}\u{53c2}\u{6570} corpid or appkey",
        40096 => "\u{4e0d}\u{5408}\u{6cd5}\u{7684}appKey\u{6216}appSecret",
        _ => "refused by a test",
    };
    Reply::json(200, &json!({ "errcode": code, "errmsg": text }))
}

const MISSING_TOKEN_TEXT: &str = "\u{7f3a}\u{5c11}\u{53c2}\u{6570}\u{ff1a}x-acs-dingtalk-access-token";

const INVALID_TOKEN_TEXT: &str = "\u{4e0d}\u{5408}\u{6cd5}\u{7684}access_token";

// Kinds of credentials, and kinds of tokens.
const APP: &str = "app";
const SUITE: &str = "suite";
const CORP: &str = "corp";
const CLASSIC: &str = "classic";
const NEW: &str = "new";
const UNIFIED: &str = "unified";

const TOKEN_KINDS: &[&str] = &[CLASSIC, NEW, UNIFIED, CORP, SUITE];

/// Documented for `gettoken` and `accessToken`.
const TOKEN_LIFETIME: Duration = Duration::from_secs(7200);
