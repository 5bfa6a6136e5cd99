//! What is different from vendor to vendor.

use std::time::Duration;

use super::request::ReceivedRequest;
use super::server::Reply;
use super::vendor_state::VendorState;

/// One vendor's way to grant and to judge tokens. Another vendor is another file with one of these.
pub(super) trait Vendor: Send + Sync {
    /// Where tokens of its first kind are granted.
    fn token_path(&self) -> &'static str;

    /// Where they are used.
    fn api_path(&self) -> &'static str;

    /// What it knows at the start, among it the credentials that are right unless the test says otherwise.
    fn initial_state(&self) -> VendorState;

    /// Who answers at this path. None: nobody.
    fn route(&self, path: &str) -> Option<Route>;

    /// Fails with one of the vendor's own codes, as it does at this path.
    fn error_reply(&self, path: &str, code: &str) -> Reply;

    /// Says that there were too many calls, and how long to wait if that is not zero.
    fn throttled_reply(&self, path: &str, wait: Duration) -> Reply;

    /// Where a tenant is an id without a secret: the realm that has them.
    fn tenant_kind(&self) -> Option<&'static str> {
        None
    }
}

/// What a path is for.
pub(super) enum Route {
    /// Grants tokens to whom the realm knows, so many a day.
    Token { credential_kind: &'static str, daily_limit: Option<u32>, handler: Handler },
    /// Belongs to the granting of tokens, but grants none.
    Auxiliary(Handler),
    /// Uses a token.
    Api(Handler),
}

/// Answers a request at this time. A refusal is an answer too.
pub(super) type Handler = fn(&ReceivedRequest, &mut VendorState, Duration) -> Result<Reply, Reply>;

impl Route {
    pub(super) fn handle(&self, request: &ReceivedRequest, state: &mut VendorState, now: Duration) -> Reply {
        let (Route::Token { handler, .. } | Route::Auxiliary(handler) | Route::Api(handler)) = self;
        handler(request, state, now).unwrap_or_else(|error_reply| error_reply)
    }

    pub(super) fn token(credential_kind: &'static str, handler: Handler) -> Option<Route> {
        Some(Route::Token { credential_kind, daily_limit: None, handler })
    }

    pub(super) fn api(handler: Handler) -> Option<Route> {
        Some(Route::Api(handler))
    }
}
