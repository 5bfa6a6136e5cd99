//! The identity of a machine at Azure: no secret, numbers as strings, and the same token for half its lifetime.

use std::time::Duration;

use serde_json::{Value, json};

use super::book::{Account, Issued};
use super::entra::serve_graph;
use super::records::Records;
use super::request::ReceivedRequest;
use super::server::Reply;
use super::vendor::{Route, Vendor};

pub(super) struct ManagedIdentity;

impl Vendor for ManagedIdentity {
    fn token_path(&self) -> &'static str {
        "/metadata/identity/oauth2/token"
    }

    fn api_path(&self) -> &'static str {
        "/v1.0/me"
    }

    fn records(&self) -> Records {
        // The empty one is the machine's own.
        Records::new(LIFETIME).credential(IDENTITY, "", "").credential(IDENTITY, "client", "")
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/metadata/identity/oauth2/token" => Route::token(IDENTITY, machine_token),
            "/msi/token" => Route::token(IDENTITY, app_service_token),
            "/v1.0/me" => Route::business(serve_graph),
            _ => None,
        }
    }

    fn failure(&self, _path: &str, code: &str) -> Reply {
        failure(code, "refused by a test")
    }

    fn throttled(&self, _path: &str, wait: Duration) -> Reply {
        Reply::json(429, &json!({ "error": "too_many_requests" })).retry_after(wait)
    }
}

fn machine_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    // What a program can be tricked into calling has no such header.
    if request.header("metadata") != Some("true") {
        return Err(failure("invalid_request", "Required metadata header not specified"));
    }
    let (mut body, issued) = token(request, records, now)?;
    body["expires_in"] = issued.left.as_secs().to_string().into();
    body["ext_expires_in"] = issued.left.as_secs().to_string().into();
    if let Some(refresh_in) = records.settings.refresh_in {
        body["refresh_in"] = refresh_in.as_secs().to_string().into();
    }
    Ok(Reply::json(200, &body))
}

/// Tells only when the token ends.
fn app_service_token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<Reply, Reply> {
    if request.header("x-identity-header") != Some("identity-header") {
        return Err(Reply::json(401, &json!({ "statusCode": 401, "message": "Unauthorized" })));
    }
    let (body, _) = token(request, records, now)?;
    Ok(Reply::json(200, &body))
}

fn token(request: &ReceivedRequest, records: &mut Records, now: Duration) -> Result<(Value, Issued), Reply> {
    if request.method() != "GET" || request.query("api-version").is_none() {
        return Err(failure("bad_request", "Required query variable 'api-version' is missing"));
    }
    let Some(resource) = request.query("resource").filter(|text| !text.is_empty()) else {
        return Err(failure("invalid_request", "Required query variable 'resource' is missing"));
    };
    let identity = request.query("client_id").unwrap_or_default();
    if !records.credentials.knows(IDENTITY, &identity) {
        return Err(failure("invalid_request", "Identity not found"));
    }
    let account = Account::new(IDENTITY, &identity, &resource);
    // No more than half of its lifetime.
    let issued = records.same(&account, Duration::MAX, now);
    let end = records.settings.epoch.saturating_add(now).saturating_add(issued.left);
    let begin = end.saturating_sub(issued.lifetime);
    let body = json!({
        "access_token": issued.token, "token_type": "Bearer", "resource": resource, "client_id": identity,
        "expires_on": end.as_secs().to_string(), "not_before": begin.as_secs().to_string(),
    });
    Ok((body, issued))
}

fn failure(code: &str, text: &str) -> Reply {
    Reply::json(400, &json!({ "error": code, "error_description": text }))
}

const IDENTITY: &str = "identity";

const LIFETIME: Duration = Duration::from_secs(86_400);
