//! How a vendor breaks.

use std::time::Duration;

/// How all that grants tokens fails. The business API goes on: that is what tells a good token from a dead one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VendorFault {
    /// It does not fail.
    None,
    /// It answers with this HTTP status, 200 to 599, and no body.
    Status(u16),
    /// It answers with this code of the vendor's: an `errcode` at WeCom, WeChat and DingTalk, a `code` at Feishu, an
    /// AADSTS number at Entra.
    Code(i64),
    /// It answers with this code where codes are words, as in OAuth 2.0 and at Entra: `invalid_scope`. At DingTalk's
    /// new API: `invalidSuiteTicket`.
    Error(&'static str),
    /// It does not answer. When the outage ends, the requests that wait are answered after all.
    Hang,
    /// It ends the connection without a reply. Nothing is granted.
    Drop,
    /// It answers with status 200 and a page of HTML, as the sign-in page of a proxy.
    Garbage,
    /// It grants, but the connection ends in the middle of the reply.
    HalfReply,
    /// It grants, but sends a byte of the body every 100 ms. The head comes at once.
    Trickle,
    /// It says that there were too many calls: OAuth 2.0, Entra and Feishu with status 429, WeCom and WeChat with code
    /// 45009, DingTalk with 90018 or `QpsLimitForApi`.
    Throttle {
        /// What stands in `Retry-After`, at Feishu in `x-ogw-ratelimit-reset`, in whole seconds; zero leaves it out.
        /// WeCom, WeChat and DingTalk themselves never send it.
        retry_after: Duration,
    },
}
