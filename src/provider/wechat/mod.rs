//! WeChat (微信): the tokens and tickets of Official Accounts (公众号), Mini Programs (小程序) and third-party
//! platforms (开放平台), which `api.weixin.qq.com` grants.
//!
//! | Token | Provider | Requested with |
//! |---|---|---|
//! | stable `access_token` of an account | [`WeChat`] | `stable_token`: `appid`, `secret`, `force_refresh` |
//! | classic `access_token` of an account | [`WeChatClassic`] | `cgi-bin/token`: `appid`, `secret` |
//! | `jsapi_ticket`, `wx_card` ticket | [`WeChatJsTicket`] | `ticket/getticket`: an `access_token` |
//! | `component_access_token` of a platform | [`WeChatComponent`] | `api_component_token`: `component_verify_ticket` |
//! | `authorizer_access_token` | [`WeChatAuthorizer`] | `api_authorizer_token`: `authorizer_refresh_token` |
//!
//! Take [`WeChat`] for an account of one's own. Its token and the classic one are independent of each other: a request
//! for one does not disturb the other ([page of `stable_token`][stable]).
//!
//! # Lifetime, and what a second request returns
//!
//! | Token | Lifetime | A second request |
//! |---|---|---|
//! | stable | up to 7200 s; the reply has what is left | returns the same token until 300 s are left, then a new one |
//! | stable, `force_refresh` | 7200 s | returns a new token and ends the old one |
//! | classic | 7200 s | returns a new token; the old one works for 5 more minutes |
//! | `component_access_token` | 7200 s | not documented |
//! | `authorizer_access_token` | 7200 s | not documented; may bring a new `authorizer_refresh_token` |
//! | tickets | 7200 s | not documented |
//!
//! Where WeChat's documentation is silent, the crate assumes that a new token ends the old one: processes that cannot
//! reach their shared store then fetch seldom ([`Profile::new_token_ends_old`]).
//!
//! # When a service refuses a token
//!
//! WeChat answers with HTTP 200 and an `errcode`. For these codes [`verdict`](crate::TokenManager::verdict) is
//! `Verdict::Rejected`, and [`send`](crate::TokenManager::send) rejects the token and tries once more:
//!
//! | Token | `errcode` |
//! |---|---|
//! | `access_token`, `authorizer_access_token` | 40001 (invalid, or not the latest), 40014, 42001, 42007 |
//! | `component_access_token` | 40001, 40014, 42001 |
//!
//! At the token endpoints 40001 means a wrong `secret` instead. 48001 (the account may not call this API) does not
//! reject.
//!
//! # Limits
//!
//! - 45009 (the calls of the day are used up) throttles for 600 s and longer. The quota comes back the next day, or
//!   after a call of `clear_quota`, which an account may use 10 times a month. 45011 (calls per minute) throttles for
//!   60 s.
//! - `stable_token`: 10,000 calls per minute, 500,000 per day; `force_refresh` 20 times per day, 30 s apart.
//! - `cgi-bin/token`: 2,000 calls per day.
//! - The caller's address must be on the IP whitelist (IP白名单) of the account or platform: 40164, 61004.
//!
//! The numbers are those of WeChat's pages [`stable_token`][stable] and API call limits (copies of
//! `Message_Management/API_Call_Limits.html`).
//!
//! [stable]: https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken.html

pub(crate) mod app;
mod authorizer;
mod component;
mod js_ticket;

use std::time::Duration;

pub use app::WeChatClassic;
pub use authorizer::WeChatAuthorizer;
pub use component::WeChatComponent;
pub use js_ticket::WeChatJsTicket;

pub(crate) use app::WeChat;

use crate::error::ErrorKind;
use crate::provider::Profile;
use crate::provider::errors::{ErrorRule, ErrorTable};

/// The usual host. WeChat has others for other regions.
const DEFAULT_BASE_URL: &str = "https://api.weixin.qq.com";

/// Returns the profile of component tokens, authorizer tokens and tickets.
///
/// WeChat does not document whether a new one ends the old one, so the profile says that it does. Processes that cannot
/// reach their shared store then fetch seldom.
fn profile() -> Profile {
    Profile { default_lifetime: LIFETIME, new_token_ends_old: true, ..Profile::default() }
}

const LIFETIME: Duration = Duration::from_secs(7200);

/// The error codes of the token endpoints.
const ERRORS: ErrorTable = ErrorTable {
    code_field: "errcode",
    rules: RULES,
    throttle_codes: &[("45009", DAILY_QUOTA_WAIT_SECONDS), ("45011", 60), ("89506", 86_400), ("89507", 3600)],
};

/// The error codes of the services. Only throttle codes are listed: every other code is about the request, except for
/// those in `REJECTIONS`.
const API_ERRORS: ErrorTable = ErrorTable {
    code_field: "errcode",
    rules: &[],
    throttle_codes: &[("45009", DAILY_QUOTA_WAIT_SECONDS), ("45011", 60)],
};

/// The wait after 45009, in seconds. WeChat does not say when the quota comes back.
const DAILY_QUOTA_WAIT_SECONDS: u64 = 600;

/// The codes with which a service refuses an `access_token` or an `authorizer_access_token`. 42007 follows a change of
/// the account's password.
const REJECTIONS: &[&str] = &["40001", "40014", "42001", "42007"];

/// The codes with which a service refuses a `component_access_token`.
const COMPONENT_REJECTIONS: &[&str] = &["40001", "40014", "42001"];

const IP_NOT_WHITELISTED: &str = "this machine's address is not on the IP whitelist; add it in the console";

const IP_CONFIRMATION_PENDING: &str = "calls from this machine's address wait for an administrator to confirm them";

/// The codes of the token endpoints.
const RULES: &[ErrorRule] = &[
    ("-1", ErrorKind::Unavailable, "the system is busy"),
    ("40001", ErrorKind::InvalidCredentials, "the appsecret is wrong or was reset"),
    ("40002", ErrorKind::Config, "the grant type is not one that the endpoint knows"),
    ("40013", ErrorKind::InvalidCredentials, "the appid is wrong"),
    ("40125", ErrorKind::InvalidCredentials, "the appsecret is wrong or was reset"),
    ("40164", ErrorKind::Forbidden, IP_NOT_WHITELISTED),
    (
        "40243",
        ErrorKind::InvalidCredentials,
        "the appsecret is frozen; thaw it in the console, which takes ten minutes to act",
    ),
    ("41002", ErrorKind::Config, "the appid is missing"),
    ("41004", ErrorKind::Config, "the appsecret is missing"),
    ("43002", ErrorKind::Config, "the request did not arrive as a POST; look at what lies in between"),
    ("45009", ErrorKind::Throttled, "the day's calls are used up; wait for the next day or clear the quota"),
    ("45011", ErrorKind::Throttled, "there were too many calls in this minute"),
    ("45035", ErrorKind::Forbidden, IP_NOT_WHITELISTED),
    ("47001", ErrorKind::Config, "the request did not arrive as JSON; look at what lies in between"),
    ("48001", ErrorKind::Forbidden, "the account may not call this interface"),
    ("48004", ErrorKind::Forbidden, "the account is banned from this interface"),
    ("50004", ErrorKind::InvalidCredentials, "the account may not get tokens; look for a notice in its console"),
    ("50007", ErrorKind::InvalidCredentials, "the account is frozen; look for a notice in its console"),
    ("61004", ErrorKind::Forbidden, IP_NOT_WHITELISTED),
    ("61005", ErrorKind::TicketRequired, TICKET_REQUIRED),
    ("61006", ErrorKind::TicketRequired, TICKET_REQUIRED),
    ("61011", ErrorKind::InvalidCredentials, "the component's appid is wrong"),
    ("61024", ErrorKind::Forbidden, "the token of this account is granted by way of its component only"),
    ("89501", ErrorKind::Forbidden, IP_CONFIRMATION_PENDING),
    ("89503", ErrorKind::Forbidden, IP_CONFIRMATION_PENDING),
    (
        "89506",
        ErrorKind::Forbidden,
        "an administrator has refused calls from this machine's address twice, which holds for 24 hours",
    ),
    (
        "89507",
        ErrorKind::Forbidden,
        "an administrator has refused calls from this machine's address, which holds for an hour",
    ),
];

/// The codes with another meaning where a ticket is requested: they are about the `access_token` in the request.
/// `TokenRejected` makes the manager reject that token and fetch once more with another one.
const JS_TICKET_RULES: &[ErrorRule] = &[
    ("40001", ErrorKind::TokenRejected, TOKEN_REFUSED),
    ("40014", ErrorKind::TokenRejected, TOKEN_REFUSED),
    ("42001", ErrorKind::TokenRejected, TOKEN_REFUSED),
    ("42007", ErrorKind::TokenRejected, TOKEN_REFUSED),
];

/// The codes with another meaning at `api_authorizer_token`. 40001, 40014 and 42001 are about the
/// `component_access_token` in the request; `TokenRejected` makes the manager reject that token and fetch once more
/// with another one.
const AUTHORIZER_RULES: &[ErrorRule] = &[
    ("40001", ErrorKind::TokenRejected, COMPONENT_TOKEN_REFUSED),
    ("40013", ErrorKind::InvalidCredentials, "the appid of the component or of the account is wrong"),
    ("40014", ErrorKind::TokenRejected, COMPONENT_TOKEN_REFUSED),
    ("42001", ErrorKind::TokenRejected, COMPONENT_TOKEN_REFUSED),
    (
        "61003",
        ErrorKind::SignInRequired,
        "the account has withdrawn its authorization; let its owner authorize again, and build the provider with the new \
         authorizer_refresh_token",
    ),
    ("61007", ErrorKind::Forbidden, "the account has not granted this right; its owner must authorize again"),
    (
        "61023",
        ErrorKind::SignInRequired,
        "the authorizer_refresh_token is not valid any more; let the account's owner authorize again, and build the \
         provider with the new one",
    ),
    ("61024", ErrorKind::Forbidden, "the account is not this component's; its owner must authorize again"),
];

const TOKEN_REFUSED: &str = "the access token that the ticket was asked with was refused";

const COMPONENT_TOKEN_REFUSED: &str = "the component's token was refused";

const TICKET_REQUIRED: &str = "the component's verify ticket is missing, too old, or that of another component; hand in the next \
                     one with `set_ticket`, from the callback that WeChat calls every ten minutes";
