//! WeCom (企业微信).

pub(crate) mod app;
mod authorized_corp;
mod js_ticket;
mod service_provider;
mod suite;

use std::time::Duration;

pub use authorized_corp::WeComAuthorizedCorp;
pub use js_ticket::WeComJsTicket;
pub use service_provider::WeComServiceProvider;
pub use suite::WeComSuite;

pub(crate) use app::WeCom;

use crate::error::ErrorKind;
use crate::provider::Profile;
use crate::provider::errors::{ErrorRule, ErrorTable};

const DEFAULT_BASE_URL: &str = "https://qyapi.weixin.qq.com";

/// The lifetime of everything that is granted here.
const LIFETIME: Duration = Duration::from_secs(7200);

/// Asked again, WeCom gives the same token back and says 7200 s whatever is left, so the end that is known stays.
fn profile() -> Profile {
    Profile { default_lifetime: LIFETIME, min_forced_interval: Duration::from_secs(10), ..Profile::default() }
}

const ERRORS: ErrorTable =
    ErrorTable { code_field: "errcode", rules: RULES, throttle_codes: &[("45009", 60), ("45033", 1)] };

/// The codes with which a service refuses the token of an app, or of a corp that has authorized one.
const REJECTIONS: &[&str] = &["40001", "40014", "42001"];

/// The codes with which it refuses the token of a suite.
const SUITE_REJECTIONS: &[&str] = &["40082", "42009"];

/// The code with which it refuses the token of a service provider.
const SERVICE_PROVIDER_REJECTIONS: &[&str] = &["40082"];

const IP_NOT_TRUSTED: &str = "this machine's address is not a trusted IP of the app; adding it takes a minute to act";

/// The codes of the token endpoints, as far as they say what to do.
const RULES: &[ErrorRule] = &[
    ("-1", ErrorKind::Unavailable, "the system is busy"),
    ("40001", ErrorKind::InvalidCredentials, "the app secret is wrong or was reset, or the app is disabled"),
    ("40013", ErrorKind::InvalidCredentials, "the corp id is wrong"),
    ("40080", ErrorKind::InvalidCredentials, "the suite secret is wrong"),
    ("40083", ErrorKind::InvalidCredentials, "the suite id is wrong"),
    ("40084", ErrorKind::InvalidCredentials, "the permanent code is wrong, or the corp has withdrawn it"),
    ("40085", ErrorKind::TicketRequired, TICKET_REQUIRED),
    ("40091", ErrorKind::InvalidCredentials, "the app secret is wrong, or belongs to another corp"),
    ("41002", ErrorKind::Config, "the corp id is missing"),
    ("41004", ErrorKind::Config, "the app secret is missing"),
    ("41021", ErrorKind::InvalidCredentials, "the suite id is missing"),
    ("41023", ErrorKind::TicketRequired, TICKET_REQUIRED),
    ("41024", ErrorKind::Config, "the app secret is missing"),
    ("45009", ErrorKind::Throttled, "there were too many calls"),
    ("45031", ErrorKind::InvalidCredentials, "the app secret is too weak and must be reset"),
    ("45033", ErrorKind::Throttled, "there were too many calls at once"),
    ("48002", ErrorKind::Forbidden, "the app may not call this interface"),
    ("50003", ErrorKind::InvalidCredentials, "the app is disabled"),
    ("60020", ErrorKind::Forbidden, IP_NOT_TRUSTED),
    ("301042", ErrorKind::Forbidden, IP_NOT_TRUSTED),
];

/// What codes mean where a suite's token is asked for.
const SUITE_RULES: &[ErrorRule] = &[
    ("40001", ErrorKind::InvalidCredentials, "the suite secret is wrong or was reset, or the suite is disabled"),
    ("40013", ErrorKind::InvalidCredentials, "the suite id is wrong"),
    ("41004", ErrorKind::Config, "the suite secret is missing"),
];

/// What codes mean where a suite's token is shown to get the token of a corp.
const AUTHORIZED_CORP_RULES: &[ErrorRule] = &[
    (
        "40013",
        ErrorKind::InvalidCredentials,
        "the id of the corp is wrong, or is not the one that it has for this suite",
    ),
    ("40082", ErrorKind::TokenRejected, SUITE_TOKEN_REFUSED),
    ("41022", ErrorKind::TokenRejected, SUITE_TOKEN_REFUSED),
    ("42009", ErrorKind::TokenRejected, SUITE_TOKEN_REFUSED),
];

/// What codes mean where a service provider's token is asked for.
const SERVICE_PROVIDER_RULES: &[ErrorRule] = &[
    ("40001", ErrorKind::InvalidCredentials, "the provider secret is wrong or was reset"),
    ("40013", ErrorKind::InvalidCredentials, "the provider's corp id is wrong"),
    ("40091", ErrorKind::InvalidCredentials, "the provider secret is wrong, or belongs to another corp"),
    ("41004", ErrorKind::Config, "the provider secret is missing"),
];

/// What codes mean where an access token is shown to get a ticket: here they are about that token.
const JS_TICKET_RULES: &[ErrorRule] = &[
    ("40001", ErrorKind::TokenRejected, TOKEN_REFUSED),
    ("40014", ErrorKind::TokenRejected, TOKEN_REFUSED),
    ("42001", ErrorKind::TokenRejected, TOKEN_REFUSED),
];

const TOKEN_REFUSED: &str = "the access token that the ticket was asked with was refused";

const SUITE_TOKEN_REFUSED: &str = "the suite's token was refused";

const TICKET_REQUIRED: &str = "the suite ticket is missing, too old, or that of another suite; hand in the next one with \
                     `set_ticket`, from the callback that WeCom calls every ten minutes";
