//! The trait that each fake vendor implements.
//!
//! A vendor is a table of routes. For each path, [`Vendor::route`] returns a [`Route`] with a handler: a function from
//! a request and the [`VendorState`] to a [`Reply`]. The parts that all vendors share (faults, delays, daily limits,
//! counters, recorded requests) stand outside of this trait, in `mod.rs`.

use std::time::Duration;

use super::request::ReceivedRequest;
use super::server::Reply;
use super::vendor_state::VendorState;

/// The endpoints and error formats of one vendor. A new vendor is a file with one implementation and a constructor in
/// `constructors.rs`.
pub(super) trait Vendor: Send + Sync {
    /// Returns the path of the token endpoint that [`FakeVendor::token_url`](super::FakeVendor::token_url) names.
    fn token_path(&self) -> &'static str;

    /// Returns the path of the API that [`FakeVendor::api_url`](super::FakeVendor::api_url) names.
    fn api_path(&self) -> &'static str;

    /// Returns the state of a vendor that was just started, with the credentials that the constructor's docs promise.
    fn initial_state(&self) -> VendorState;

    /// Returns the route of this path, or `None` for a path that the vendor does not have (HTTP 404).
    fn route(&self, path: &str) -> Option<Route>;

    /// Returns an error reply with this code, in the format that the vendor uses at this path.
    fn error_reply(&self, path: &str, code: &str) -> Reply;

    /// Returns the vendor's reply to too many calls. A `wait` of zero leaves out how long to wait.
    fn throttled_reply(&self, path: &str, wait: Duration) -> Reply;

    /// Returns the credential kind under which tenants are stored, or `None` for a vendor without tenants.
    fn tenant_kind(&self) -> Option<&'static str> {
        None
    }
}

/// How requests to a path are handled. Faults apply to token and auxiliary routes, not to API routes.
pub(super) enum Route {
    /// Grants tokens to credentials of this kind, up to the daily limit. Counted by
    /// [`FakeVendor::calls`](super::FakeVendor::calls).
    Token { credential_kind: &'static str, daily_limit: Option<u32>, handler: Handler },
    /// Belongs to the token endpoints but grants no token: Feishu's ticket resend, the start of a device sign-in.
    Auxiliary(Handler),
    /// Accepts or rejects the token of the request, as the vendor's API does. Counted by
    /// [`FakeVendor::api_calls`](super::FakeVendor::api_calls).
    Api(Handler),
}

/// Handles a request at a time of the vendor's clock. `Err` carries an error reply, so that handlers can use `?`.
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
