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
//! Use [`WeChat`] for your own account. Its token and the classic one are independent of each other: a request
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
//! `stable_token`, `cgi-bin/token` and `api_component_token` answer 40001 to a wrong `secret`. `ticket/getticket` and
//! `api_authorizer_token` answer 40001 when the token in the request is refused; the manager then rejects that token and
//! fetches once more. 48001 (the account may not call this API) does not reject.
//!
//! # Limits
//!
//! - 45009 (the calls of the day are used up) throttles for 600 s and longer. The quota comes back the next day, or
//!   after a call of `clear_quota`, which an account may use 10 times a month. 45011 (calls per minute) throttles for
//!   60 s.
//! - `stable_token`: 10,000 calls per minute, 500,000 per day; `force_refresh` 20 times per day, 30 s apart.
//! - `cgi-bin/token`: 2,000 calls per day, 200 for a test account.
//! - The caller's address must be on the IP whitelist (IP白名单) of the account or platform: 40164, 61004. After an
//!   administrator has refused an address, WeChat refuses its calls for an hour (89507) or for 24 hours (89506).
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

const IP_NOT_WHITELISTED: &str =
    "this machine's address is not on the IP whitelist; add it to IP白名单 in the console of the account or platform";

const IP_CONFIRMATION_PENDING: &str =
    "WeChat asks an administrator of the account to confirm calls from this machine's address; confirm them in WeChat";

/// The codes of the token endpoints.
const RULES: &[ErrorRule] = &[
    ("-1", ErrorKind::Unavailable, "WeChat is busy; try again later"),
    ("40001", ErrorKind::InvalidCredentials, WRONG_SECRET),
    (
        "40002",
        ErrorKind::Config,
        "WeChat does not know the grant_type of the request; a proxy may have changed it, or base_url is another \
         service",
    ),
    ("40013", ErrorKind::InvalidCredentials, "the appid is wrong; copy AppID from the console of the account"),
    ("40125", ErrorKind::InvalidCredentials, WRONG_SECRET),
    ("40164", ErrorKind::Forbidden, IP_NOT_WHITELISTED),
    (
        "40243",
        ErrorKind::InvalidCredentials,
        "the secret (AppSecret) is frozen; unfreeze it in the console of the account and allow ten minutes for the \
         change",
    ),
    ("41002", ErrorKind::Config, "the request arrived without the appid; a proxy may have changed it"),
    ("41004", ErrorKind::Config, "the request arrived without the secret (AppSecret); a proxy may have changed it"),
    ("43002", ErrorKind::Config, "the request did not arrive as a POST; a proxy or a redirect may have changed it"),
    ("45009", ErrorKind::Throttled, "the calls of this day are used up; wait for the next day, or call clear_quota"),
    ("45011", ErrorKind::Throttled, "there were too many calls in this minute; wait for the next one"),
    ("45035", ErrorKind::Forbidden, IP_NOT_WHITELISTED),
    ("47001", ErrorKind::Config, "the request did not arrive as JSON; a proxy may have changed it"),
    ("48001", ErrorKind::Forbidden, "the account may not call this API; check 接口权限 in its console"),
    ("48004", ErrorKind::Forbidden, "WeChat has banned the account from this API; look for a notice in its console"),
    ("50004", ErrorKind::InvalidCredentials, "WeChat grants the account no tokens; look for a notice in its console"),
    ("50007", ErrorKind::InvalidCredentials, "WeChat has frozen the account; look for a notice in its console"),
    ("61004", ErrorKind::Forbidden, IP_NOT_WHITELISTED),
    ("61005", ErrorKind::TicketRequired, TICKET_REQUIRED),
    ("61006", ErrorKind::TicketRequired, TICKET_REQUIRED),
    (
        "61011",
        ErrorKind::InvalidCredentials,
        "the platform's appid (component_appid) is wrong; copy AppID from the Open Platform console",
    ),
    (
        "61024",
        ErrorKind::Forbidden,
        "WeChat grants the token of this account only through its third-party platform; use `WeChatAuthorizer`",
    ),
    ("89501", ErrorKind::Forbidden, IP_CONFIRMATION_PENDING),
    ("89503", ErrorKind::Forbidden, IP_CONFIRMATION_PENDING),
    (
        "89506",
        ErrorKind::Forbidden,
        "an administrator of the account has refused calls from this machine's address twice, so WeChat refuses them \
         for 24 hours; let the administrator confirm the next request",
    ),
    (
        "89507",
        ErrorKind::Forbidden,
        "an administrator of the account has refused calls from this machine's address, so WeChat refuses them for an \
         hour; let the administrator confirm the next request",
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
    (
        "40013",
        ErrorKind::InvalidCredentials,
        "the appid of the platform (component_appid) or of the account (authorizer_appid) is wrong",
    ),
    ("40014", ErrorKind::TokenRejected, COMPONENT_TOKEN_REFUSED),
    ("42001", ErrorKind::TokenRejected, COMPONENT_TOKEN_REFUSED),
    (
        "61003",
        ErrorKind::SignInRequired,
        "the account has withdrawn its authorization of the platform; let its owner authorize again, and build the \
         provider with the new authorizer_refresh_token",
    ),
    (
        "61007",
        ErrorKind::Forbidden,
        "the account has not granted the platform this permission; its owner must authorize again",
    ),
    (
        "61023",
        ErrorKind::SignInRequired,
        "the authorizer_refresh_token is not valid any more; let the account's owner authorize again, and build the \
         provider with the new one",
    ),
    ("61024", ErrorKind::Forbidden, "the account is not authorized to this platform; its owner must authorize again"),
];

const TOKEN_REFUSED: &str = "WeChat refused the access token that the ticket was requested with";

const COMPONENT_TOKEN_REFUSED: &str = "WeChat refused the platform's component_access_token";

const WRONG_SECRET: &str = "the secret (AppSecret) is wrong or was reset; copy the present one from the console";

const TICKET_REQUIRED: &str = "the component_verify_ticket is missing, older than 12 hours, or of another platform; \
                               pass the next one, which WeChat pushes to the callback every ten minutes, to \
                               `set_ticket`";
