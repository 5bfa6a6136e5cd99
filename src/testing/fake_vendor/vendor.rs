//! What is different from vendor to vendor.

use std::time::Duration;

use super::records::Records;
use super::request::ReceivedRequest;
use super::server::Reply;

/// One vendor's way to grant and to judge tokens. Another vendor is another file with one of these.
pub(super) trait Vendor: Send + Sync {
    /// Where tokens of its first kind are granted.
    fn token_path(&self) -> &'static str;

    /// Where they are used.
    fn api_path(&self) -> &'static str;

    /// What it knows at the start, among it the credentials that are right unless the test says otherwise.
    fn records(&self) -> Records;

    /// Who answers at this path. None: nobody.
    fn route(&self, path: &str) -> Option<Route>;

    /// Fails with one of the vendor's own codes, as it does at this path.
    fn failure(&self, path: &str, code: &str) -> Reply;

    /// Says that there were too many calls, and how long to wait if that is not zero.
    fn throttled(&self, path: &str, wait: Duration) -> Reply;

    /// Where a tenant is an id without a secret: the realm that has them.
    fn tenants(&self) -> Option<&'static str> {
        None
    }
}

/// What a path is for.
pub(super) enum Route {
    /// Grants tokens to whom the realm knows, so many a day.
    Token { realm: &'static str, daily: Option<u32>, answer: Answer },
    /// Belongs to the granting of tokens, but grants none.
    Aside(Answer),
    /// Uses a token.
    Business(Answer),
}

/// Answers a request at this time. A refusal is an answer too.
pub(super) type Answer = fn(&ReceivedRequest, &mut Records, Duration) -> Result<Reply, Reply>;

impl Route {
    pub(super) fn answer(&self, request: &ReceivedRequest, records: &mut Records, now: Duration) -> Reply {
        let (Route::Token { answer, .. } | Route::Aside(answer) | Route::Business(answer)) = self;
        answer(request, records, now).unwrap_or_else(|refusal| refusal)
    }

    pub(super) fn token(realm: &'static str, answer: Answer) -> Option<Route> {
        Some(Route::Token { realm, daily: None, answer })
    }

    pub(super) fn business(answer: Answer) -> Option<Route> {
        Some(Route::Business(answer))
    }
}
