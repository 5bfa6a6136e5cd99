//! The ways in which a fake vendor's token endpoints can fail.

use std::time::Duration;

/// A failure of a [`FakeVendor`](super::FakeVendor)'s token endpoints, for
/// [`fail_with`](super::FakeVendor::fail_with).
///
/// A fault lasts until [`recover`](super::FakeVendor::recover). The vendor's API is not affected and still accepts
/// valid tokens. Each variant names the situation to which it corresponds:
///
/// ```
/// use evertoken::{ErrorKind, TokenManager, WeCom};
/// use evertoken::testing::{FakeVendor, VendorFault};
///
/// let vendor = FakeVendor::wecom();
/// vendor.fail_with(VendorFault::Status(503));
/// let manager = TokenManager::new(WeCom::new("corp", "secret").base_url(vendor.url()));
/// assert_eq!(manager.token().unwrap_err().kind(), ErrorKind::Unavailable);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VendorFault {
    /// No fault.
    None,
    /// A reply with this HTTP status, 200 to 599, and no body: a broken gateway.
    Status(u16),
    /// An error reply with this number, in the vendor's format: `errcode` at WeCom, WeChat and DingTalk's classic API,
    /// `code` at Feishu, an AADSTS number at Entra.
    Code(i64),
    /// An error reply with this word, where the vendor's codes are words: `invalid_scope` in OAuth 2.0 and at Entra,
    /// `invalidSuiteTicket` at DingTalk's new API.
    Error(&'static str),
    /// No reply until the fault ends. Requests that wait are then answered: an overloaded server.
    Hang,
    /// The connection closes without a reply, and no token is granted.
    Drop,
    /// A reply with status 200 and a page of HTML: the sign-in page of a proxy.
    Garbage,
    /// A token is granted, but the connection closes in the middle of the reply. The client does not get the token.
    HalfReply,
    /// A token is granted, and the reply's body arrives at one byte per 100 ms, the headers at once: a slow network.
    Trickle,
    /// The vendor's reply to too many calls: status 429 at OAuth 2.0, Entra, managed identity and Feishu, code 45009 at
    /// WeCom and WeChat, 90018 or `Forbidden.AccessDenied.QpsLimitForApi` at DingTalk.
    Throttle {
        /// Value of the header `Retry-After` (Feishu: `x-ogw-ratelimit-reset`), in whole seconds. Zero leaves the
        /// header out, as the real WeCom, WeChat and DingTalk do.
        retry_after: Duration,
    },
}
