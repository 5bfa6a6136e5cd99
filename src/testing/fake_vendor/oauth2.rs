//! The fake OAuth 2.0 server: grants of RFC 6749, assertions (RFC 7523), device sign-ins (RFC 8628), and an API with
//! bearer tokens (RFC 6750).
//!
//! A request to `/token` is checked in this order: method and content type, client authentication, `grant_type`, then
//! the grant itself. Each call issues a new token, and all tokens work until they expire.

use std::time::Duration;

use serde_json::{Value, json};

use super::client_authentication::ClientAuthentication;
use super::device_sign_ins::PollOutcome;
use super::issued_tokens::{Account, IssuedToken, Validity};
use super::refresh_tokens::RefreshTokenError;
use super::request::ReceivedRequest;
use super::server::Reply;
use super::vendor::{Route, Vendor};
use super::vendor_state::VendorState;

pub(super) struct OAuth2;

impl Vendor for OAuth2 {
    fn token_path(&self) -> &'static str {
        "/token"
    }

    fn api_path(&self) -> &'static str {
        "/api"
    }

    fn initial_state(&self) -> VendorState {
        VendorState::new(TOKEN_LIFETIME)
            .with_credential(CLIENT, "client", "secret")
            .with_refresh_token("client", "refresh-1")
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/token" => Route::token(CLIENT, grant),
            "/device_authorization" => Some(Route::Auxiliary(begin_sign_in)),
            "/api" => Route::api(serve_api),
            _ => None,
        }
    }

    fn error_reply(&self, _path: &str, code: &str) -> Reply {
        error_reply(400, code)
    }

    fn throttled_reply(&self, _path: &str, wait: Duration) -> Reply {
        error_reply(429, "slow_down").retry_after(wait)
    }
}

/// A client that the server accepts.
struct AuthenticatedClient {
    id: String,
    secret: String,
    /// False for a public client, which has given its id only.
    is_authenticated: bool,
}

impl AuthenticatedClient {
    /// Returns the account to which this client's tokens are issued.
    fn account(&self) -> Account {
        Account::new(CLIENT, &self.id, &self.secret)
    }
}

fn grant(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let client = known_client(request, state)?;
    let Some(grant_type) = request.form("grant_type") else {
        return Err(error_reply(400, "invalid_request"));
    };
    match (grant_type.as_str(), client) {
        ("client_credentials", Some(client)) if client.is_authenticated => {
            Ok(token_reply(&state.tokens.issue(&client.account(), now), request.form("scope"), None))
        }
        (REFRESH_TOKEN, Some(client)) => refresh(request, state, now, &client),
        (DEVICE_CODE, Some(client)) => poll(request, state, now, &client),
        (JWT_BEARER, client) => match request.form("assertion").filter(|assertion| !assertion.is_empty()) {
            Some(_) => {
                let account = client.map_or_else(|| Account::new(JWT_BEARER, "", ""), |client| client.account());
                Ok(token_reply(&state.tokens.issue(&account, now), request.form("scope"), None))
            }
            None => Err(error_reply(400, "invalid_request")),
        },
        ("client_credentials" | REFRESH_TOKEN | DEVICE_CODE, _) => Err(error_reply(401, "invalid_client")),
        _ => Err(error_reply(400, "unsupported_grant_type")),
    }
}

/// Returns the client, or `None` if the request names none. Wrong credentials are an error.
fn known_client(request: &ReceivedRequest, state: &VendorState) -> Result<Option<AuthenticatedClient>, Reply> {
    if request.method() != "POST" {
        return Err(error_reply(405, "invalid_request").header("Allow", "POST"));
    }
    if !request.is_form() {
        return Err(error_reply(400, "invalid_request"));
    }
    let known = match ClientAuthentication::from_request(request) {
        // RFC 6749 section 2.3 forbids more than one method per request.
        ClientAuthentication::Multiple => return Err(error_reply(400, "invalid_request")),
        ClientAuthentication::Missing => return Ok(None),
        ClientAuthentication::Secret { id, secret } => state
            .credentials
            .accepts(CLIENT, &id, &secret)
            .then_some(AuthenticatedClient { id, secret, is_authenticated: true }),
        ClientAuthentication::Assertion { id } => named(state, id, true),
        ClientAuthentication::Public { id } => named(state, id, false),
        ClientAuthentication::Malformed => None,
    };
    known.map(Some).ok_or_else(|| {
        let reply = error_reply(401, "invalid_client");
        let by_header = request.header("authorization").is_some();
        if by_header { reply.header("WWW-Authenticate", "Basic realm=\"test\"") } else { reply }
    })
}

fn named(state: &VendorState, id: String, is_authenticated: bool) -> Option<AuthenticatedClient> {
    state.credentials.has_id(CLIENT, &id).then(|| AuthenticatedClient { id, secret: String::new(), is_authenticated })
}

fn refresh(
    request: &ReceivedRequest,
    state: &mut VendorState,
    now: Duration,
    client: &AuthenticatedClient,
) -> Result<Reply, Reply> {
    let Some(token) = request.form("refresh_token").filter(|token| !token.is_empty()) else {
        return Err(error_reply(400, "invalid_request"));
    };
    let rotating = state.settings.rotating;
    match state.refresh_tokens.redeem(&client.id, &token, rotating) {
        Ok(next) => {
            let issued = state.tokens.issue(&client.account(), now);
            Ok(token_reply(&issued, request.form("scope"), rotating.then_some(next)))
        }
        Err(error) => {
            if error == RefreshTokenError::AlreadyUsed {
                // Two clients have copies of this token, and the server cannot tell which is the rightful one.
                state.refresh_tokens.revoke_family(&token);
            }
            Err(error_reply(400, "invalid_grant"))
        }
    }
}

fn begin_sign_in(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let client = known_client(request, state)?.ok_or_else(|| error_reply(401, "invalid_client"))?;
    let authorization = state.device_sign_ins.begin(&client.id, request.form("scope"), now);
    let page = format!("http://{}/device", request.header("host").unwrap_or("127.0.0.1"));
    let body = json!({
        "device_code": authorization.device_code, "user_code": authorization.user_code, "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={}", authorization.user_code),
        "expires_in": authorization.lifetime.as_secs(), "interval": authorization.interval.as_secs(),
    });
    Ok(reply(200, &body))
}

fn poll(
    request: &ReceivedRequest,
    state: &mut VendorState,
    now: Duration,
    client: &AuthenticatedClient,
) -> Result<Reply, Reply> {
    let Some(code) = request.form("device_code") else {
        return Err(error_reply(400, "invalid_request"));
    };
    match state.device_sign_ins.poll(&code, &client.id, now) {
        PollOutcome::Approved(scope) => {
            let issued = state.tokens.issue(&client.account(), now);
            let refresh_token = state.refresh_tokens.issue(&client.id);
            Ok(token_reply(&issued, scope, Some(refresh_token)))
        }
        PollOutcome::Rejected(code) => Err(error_reply(400, code)),
    }
}

fn token_reply(issued: &IssuedToken, scope: Option<String>, refresh_token: Option<String>) -> Reply {
    let mut body = json!({
        "access_token": issued.token, "token_type": "Bearer", "expires_in": issued.lifetime.as_secs(),
    });
    if let Some(scope) = scope {
        body["scope"] = scope.into();
    }
    if let Some(token) = refresh_token {
        body["refresh_token"] = token.into();
    }
    reply(200, &body)
}

fn serve_api(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    let rejected = |challenge| Err(reply(401, &json!({ "ok": false })).header("WWW-Authenticate", challenge));
    match request.bearer().map(|token| state.tokens.validity(token, now)) {
        // RFC 6750 section 3.1: a challenge to a request without a token has no error code.
        None => rejected("Bearer"),
        Some(Validity::Valid) => Ok(reply(200, &json!({ "ok": true }))),
        Some(Validity::Expired | Validity::Invalid) => rejected("Bearer error=\"invalid_token\""),
    }
}

fn error_reply(status: u16, code: &str) -> Reply {
    reply(status, &json!({ "error": code, "error_description": "refused by a test" }))
}

fn reply(status: u16, body: &Value) -> Reply {
    Reply::new(status, "application/json", body.to_string()).header("Cache-Control", "no-store")
}

const CLIENT: &str = "client";

const REFRESH_TOKEN: &str = "refresh_token";
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

const TOKEN_LIFETIME: Duration = Duration::from_secs(7200);
