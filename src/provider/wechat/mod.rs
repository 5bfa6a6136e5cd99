//! WeChat (微信): Official Accounts, Mini Programs and the Open Platform.

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

const DEFAULT_BASE_URL: &str = "https://api.weixin.qq.com";

/// What is granted for two hours each time. Nobody says whether a new one ends the one before, so it is treated as if
/// it did: processes that cannot reach their shared store fetch seldom.
fn profile() -> Profile {
    Profile { default_lifetime: LIFETIME, new_token_ends_old: true, ..Profile::default() }
}

const LIFETIME: Duration = Duration::from_secs(7200);

/// What the token endpoints answer.
const ERRORS: ErrorTable = ErrorTable {
    code_field: "errcode",
    rules: RULES,
    throttle_codes: &[("45009", DAILY_QUOTA_WAIT_SECONDS), ("45011", 60), ("89506", 86_400), ("89507", 3600)],
};

/// What the services answer.
const API_ERRORS: ErrorTable = ErrorTable {
    code_field: "errcode",
    rules: &[],
    throttle_codes: &[("45009", DAILY_QUOTA_WAIT_SECONDS), ("45011", 60)],
};

/// Seconds from one look to the next: when the quota comes back is not told.
const DAILY_QUOTA_WAIT_SECONDS: u64 = 600;

/// The codes with which a service refuses an access token.
const REJECTIONS: &[&str] = &["40001", "40014", "42001", "42007"];

/// The codes with which the Open Platform refuses a component's token.
const COMPONENT_REJECTIONS: &[&str] = &["40001", "40014", "42001"];

const IP_NOT_WHITELISTED: &str = "this machine's address is not on the IP whitelist; add it in the console";

const IP_CONFIRMATION_PENDING: &str = "calls from this machine's address wait for an administrator to confirm them";

/// The codes of the token endpoints, as far as they say what to do.
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

/// What codes mean where an access token is shown to get a ticket: here they are about that token.
const JS_TICKET_RULES: &[ErrorRule] = &[
    ("40001", ErrorKind::TokenRejected, TOKEN_REFUSED),
    ("40014", ErrorKind::TokenRejected, TOKEN_REFUSED),
    ("42001", ErrorKind::TokenRejected, TOKEN_REFUSED),
    ("42007", ErrorKind::TokenRejected, TOKEN_REFUSED),
];

/// What codes mean where a component's token is shown to get that of an account: here 40001 is about that token.
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
