//! What is different from vendor to vendor.

use std::time::Duration;

use super::book::Book;
use super::request::ReceivedRequest;
use super::server::Reply;

/// One vendor's way to grant and to judge tokens. Another vendor is another file with one of these.
pub(super) trait Vendor: Send + Sync {
    /// Where tokens are granted.
    fn token_path(&self) -> &'static str;

    /// Where they are used.
    fn business_path(&self) -> &'static str;

    /// The id and the secret that are right unless the test says otherwise.
    fn credential(&self) -> (&'static str, &'static str);

    /// Answers a request for a token.
    fn grant(&self, request: &ReceivedRequest, book: &mut Book, now: Duration) -> Reply;

    /// Answers a request that uses a token.
    fn serve(&self, request: &ReceivedRequest, book: &Book, now: Duration) -> Reply;

    /// Fails with one of the vendor's own codes.
    fn failure(&self, code: &str) -> Reply;

    /// Says that there were too many calls.
    fn throttled(&self) -> Reply;
}
