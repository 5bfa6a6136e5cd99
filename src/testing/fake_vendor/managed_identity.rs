//! The fake managed identity endpoints of Azure: the instance metadata service of a machine, and App Service.
//!
//! - The endpoints require a header in place of a secret. A server-side request forgery cannot set it.
//! - All numbers in replies are strings.
//! - A token is returned again until less than half of its lifetime remains.

use std::time::Duration;

use serde_json::{Value, json};

use super::entra::serve_graph_api;
use super::issued_tokens::{Account, IssuedToken};
use super::request::ReceivedRequest;
use super::server::Reply;
use super::vendor::{Route, Vendor};
use super::vendor_state::VendorState;

pub(super) struct ManagedIdentity;

impl Vendor for ManagedIdentity {
    fn token_path(&self) -> &'static str {
        "/metadata/identity/oauth2/token"
    }

    fn api_path(&self) -> &'static str {
        "/v1.0/me"
    }

    fn initial_state(&self) -> VendorState {
        // The empty id is the machine's own identity.
        VendorState::new(TOKEN_LIFETIME).with_credential(IDENTITY, "", "").with_credential(IDENTITY, "client", "")
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/metadata/identity/oauth2/token" => Route::token(IDENTITY, machine_token),
            "/msi/token" => Route::token(IDENTITY, app_service_token),
            "/v1.0/me" => Route::api(serve_graph_api),
            _ => None,
        }
    }

    fn error_reply(&self, _path: &str, code: &str) -> Reply {
        error_reply(code, "refused by a test")
    }

    fn throttled_reply(&self, _path: &str, wait: Duration) -> Reply {
        Reply::json(429, &json!({ "error": "too_many_requests" })).retry_after(wait)
    }
}

fn machine_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    // A request that a program was tricked into sending would lack this header.
    if request.header("metadata") != Some("true") {
        return Err(error_reply("invalid_request", "Required metadata header not specified"));
    }
    let (mut body, issued) = token(request, state, now)?;
    body["expires_in"] = issued.remaining.as_secs().to_string().into();
    body["ext_expires_in"] = issued.remaining.as_secs().to_string().into();
    if let Some(refresh_in) = state.settings.refresh_in {
        body["refresh_in"] = refresh_in.as_secs().to_string().into();
    }
    Ok(Reply::json(200, &body))
}

/// Grants a token at App Service, whose replies have `expires_on` but no `expires_in`.
fn app_service_token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<Reply, Reply> {
    if request.header("x-identity-header") != Some("identity-header") {
        return Err(Reply::json(401, &json!({ "statusCode": 401, "message": "Unauthorized" })));
    }
    let (body, _) = token(request, state, now)?;
    Ok(Reply::json(200, &body))
}

fn token(request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Result<(Value, IssuedToken), Reply> {
    if request.method() != "GET" || request.query("api-version").is_none() {
        return Err(error_reply("bad_request", "Required query variable 'api-version' is missing"));
    }
    let Some(resource) = request.query("resource").filter(|text| !text.is_empty()) else {
        return Err(error_reply("invalid_request", "Required query variable 'resource' is missing"));
    };
    let identity = request.query("client_id").unwrap_or_default();
    if !state.credentials.has_id(IDENTITY, &identity) {
        return Err(error_reply("invalid_request", "Identity not found"));
    }
    let account = Account::new(IDENTITY, &identity, &resource);
    // `Duration::MAX` counts as half of the token's lifetime.
    let issued = state.reuse_or_issue(&account, Duration::MAX, now);
    let end = state.settings.epoch.saturating_add(now).saturating_add(issued.remaining);
    let begin = end.saturating_sub(issued.lifetime);
    let body = json!({
        "access_token": issued.token, "token_type": "Bearer", "resource": resource, "client_id": identity,
        "expires_on": end.as_secs().to_string(), "not_before": begin.as_secs().to_string(),
    });
    Ok((body, issued))
}

fn error_reply(code: &str, text: &str) -> Reply {
    Reply::json(400, &json!({ "error": code, "error_description": text }))
}

const IDENTITY: &str = "identity";

const TOKEN_LIFETIME: Duration = Duration::from_secs(86_400);
