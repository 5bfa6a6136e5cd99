//! The fake Microsoft Entra server, and the two APIs where its tokens are used: Graph and the Bot Connector.
//!
//! - Each call issues a new token, and all tokens work until they expire.
//! - Errors follow RFC 6749 and add AADSTS numbers in `error_codes` and in the text. Microsoft asks clients to decide
//!   by `error` and the numbers, so each number has the `error` and the status of the real server.

use std::time::Duration;

use serde_json::json;

use super::client_authentication::ClientAuthentication;
use super::issued_tokens::{Account, Validity};
use super::request::ReceivedRequest;
use super::server::Reply;
use super::vendor::{Route, Vendor};
use super::vendor_state::VendorState;

pub(super) struct Entra;

impl Vendor for Entra {
    fn token_path(&self) -> &'static str {
        "/tenant/oauth2/v2.0/token"
    }

    fn api_path(&self) -> &'static str {
        "/v1.0/me"
    }

    fn initial_state(&self) -> VendorState {
        VendorState::new(TOKEN_LIFETIME)
            .with_credential(CLIENT, "client", "secret")
            .with_credential(TENANT, "tenant", "")
            .with_credential(TENANT, "botframework.com", "")
            .with_credential(TENANT, "MicrosoftServices.onmicrosoft.us", "")
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/v1.0/me" => Route::api(serve_graph_api),
            "/v3/conversations" => Route::api(serve_bot_api),
            _ if tenant_in_path(path).is_some() => Route::token(CLIENT, grant),
            _ => None,
        }
    }

    fn error_reply(&self, _path: &str, code: &str) -> Reply {
        match code.parse() {
            Ok(number) => error_reply(number, "refused by a test"),
            Err(_) => oauth_error_reply(code, None, "refused by a test"),
        }
    }

    fn throttled_reply(&self, _path: &str, wait: Duration) -> Reply {
        error_reply(90055, "The request was throttled.").retry_after(wait)
    }

    fn tenant_kind(&self) -> Option<&'static str> {
        Some(TENANT)
    }
}

fn tenant_in_path(path: &str) -> Option<&str> {
    let tenant = path.strip_prefix('/')?.strip_suffix("/oauth2/v2.0/token")?;
    (!tenant.is_empty() && !tenant.contains('/')).then_some(tenant)
}

fn grant(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    if request.method() != "POST" || !request.is_form() {
        return Err(error_reply(900561, "The endpoint only accepts POST requests."));
    }
    let tenant = tenant_in_path(request.path()).unwrap_or_default();
    if !state.credentials.has_id(TENANT, tenant) {
        return Err(error_reply(90002, "Tenant not found."));
    }
    if request.form("grant_type").as_deref() != Some("client_credentials") {
        return Err(error_reply(70003, "The app requested an unsupported grant type."));
    }
    let (id, secret) = match ClientAuthentication::from_request(request) {
        ClientAuthentication::Multiple => {
            return Err(error_reply(900144, "The request body must contain one credential."));
        }
        ClientAuthentication::Malformed => return Err(error_reply(50027, "JWT token is invalid or malformed.")),
        ClientAuthentication::Missing => return Err(error_reply(900144, "The request body must contain 'client_id'.")),
        ClientAuthentication::Secret { id, secret } => (id, Some(secret)),
        ClientAuthentication::Assertion { id } | ClientAuthentication::Public { id } => (id, None),
    };
    if !state.credentials.has_id(CLIENT, &id) {
        return Err(error_reply(700016, "Application was not found in the directory."));
    }
    match secret {
        Some(secret) if state.credentials.accepts(CLIENT, &id, &secret) => {}
        Some(_) => return Err(error_reply(7000215, "Invalid client secret provided.")),
        None if request.form("client_assertion").is_some() => {}
        None => {
            return Err(error_reply(7000218, "The request body must contain 'client_assertion' or 'client_secret'."));
        }
    }
    match request.form("scope") {
        Some(scope) if scope.ends_with("/.default") && !scope.contains(' ') => {}
        Some(_) => return Err(error_reply(1002012, "The provided value for scope is not valid.")),
        None => return Err(error_reply(70011, "The provided request must include a 'scope'.")),
    }
    let issued = state.tokens.issue(&Account::new(CLIENT, &id, tenant), now);
    let lifetime = issued.lifetime.as_secs();
    let mut body = json!({
        "token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": issued.token,
    });
    if let Some(refresh_in) = state.settings.refresh_in {
        body["refresh_in"] = refresh_in.as_secs().into();
    }
    Ok(Reply::json(200, &body).header("Cache-Control", "no-store, no-cache"))
}

/// Accepts or rejects a token as Microsoft Graph does.
pub(super) fn serve_graph_api(
    request: &ReceivedRequest,
    state: &mut VendorState,
    now: Duration,
) -> Result<Reply, Reply> {
    let text = match request.bearer().map(|token| state.tokens.validity(token, now)) {
        Some(Validity::Valid) => return Ok(Reply::json(200, &json!({ "id": "me" }))),
        Some(Validity::Expired) => "Access token has expired or is not yet valid.",
        Some(Validity::Invalid) => "Access token validation failure.",
        None => "Access token is empty.",
    };
    let challenge = "Bearer realm=\"\", client_id=\"00000003-0000-0000-c000-000000000000\", \
                     authorization_uri=\"https://login.microsoftonline.com/common/oauth2/authorize\"";
    let more = json!({ "request-id": REQUEST_ID, "date": "2026-01-01T00:00:00" });
    let error = json!({ "code": "InvalidAuthenticationToken", "message": text, "innerError": more });
    Err(Reply::json(401, &json!({ "error": error })).header("WWW-Authenticate", challenge))
}

fn serve_bot_api(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    match request.bearer().map(|token| state.tokens.validity(token, now)) {
        Some(Validity::Valid) => Ok(Reply::json(200, &json!({ "id": "conversation" }))),
        _ => Err(Reply::json(401, &json!({ "message": "Authorization has been denied for this request." }))),
    }
}

fn error_reply(number: i64, text: &str) -> Reply {
    let error = match number {
        7000215 | 7000222 | 7000216 | 7000218 | 70002 | 700027 | 50027 => "invalid_client",
        700016 | 700011 | 70001 => "unauthorized_client",
        70011 | 1002012 => "invalid_scope",
        500011 => "invalid_resource",
        70003 => "unsupported_grant_type",
        53003 => "invalid_grant",
        90006 | 90012 | 90024 | 90033 | 90055 | 90090 | 50196 => "temporarily_unavailable",
        _ => "invalid_request",
    };
    oauth_error_reply(error, Some(number), text)
}

fn oauth_error_reply(error: &str, number: Option<i64>, text: &str) -> Reply {
    let status = match (error, number) {
        (_, Some(90055 | 50196)) => 429,
        ("invalid_client", _) => 401,
        ("temporarily_unavailable" | "server_error", _) => 503,
        _ => 400,
    };
    let number_in_text = number.map_or_else(String::new, |number| format!("AADSTS{number}: "));
    let time = "2026-01-01 00:00:00Z";
    let description =
        format!("{number_in_text}{text} Trace ID: {REQUEST_ID} Correlation ID: {CORRELATION_ID} Timestamp: {time}",);
    let mut body = json!({
        "error": error, "error_description": description, "error_codes": Vec::from_iter(number), "timestamp": time,
        "trace_id": REQUEST_ID, "correlation_id": CORRELATION_ID,
    });
    if let Some(number) = number {
        body["error_uri"] = format!("https://login.microsoftonline.com/error?code={number}").into();
    }
    Reply::json(status, &body)
}

const REQUEST_ID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
const CORRELATION_ID: &str = "00112233-4455-6677-8899-aabbccddeeff";

const CLIENT: &str = "client";
const TENANT: &str = "tenant";

const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
