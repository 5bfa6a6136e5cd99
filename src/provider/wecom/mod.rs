//! WeCom (企业微信, WeChat Work): the tokens and tickets that `qyapi.weixin.qq.com` grants.
//!
//! | Token | Provider | Requested with |
//! |---|---|---|
//! | `access_token` of an app of a corp | [`WeCom`] | `gettoken`: `corpid`, `corpsecret` |
//! | `suite_access_token` of a suite | [`WeComSuite`] | `get_suite_token`: `suite_id`, `suite_secret`, `suite_ticket` |
//! | `access_token` of a suite's corp | [`WeComAuthorizedCorp`] | `get_corp_token`: `auth_corpid`, `permanent_code` |
//! | `provider_access_token` | [`WeComServiceProvider`] | `get_provider_token`: `corpid`, `provider_secret` |
//! | `jsapi_ticket` of a corp | [`WeComJsTicket::corp`] | `get_jsapi_ticket`: an `access_token` |
//! | `jsapi_ticket` of an app (`agent_config`) | [`WeComJsTicket::agent`] | `ticket/get`: an `access_token` |
//!
//! A suite is a third-party app (第三方应用) of a service provider (服务商). An app that a service provider develops
//! for one corp (代开发) uses [`WeCom`] with the `permanent_code` as secret.
//!
//! # Lifetime, and what a second request returns
//!
//! Every token and ticket is granted for 7200 s (`expires_in`). A second `gettoken` within this time returns the same
//! token ([page 91039][token], in its copy of 2020); the crate expects the same of every other token and ticket here.
//! WeCom reports `expires_in` as 7200 every time, however little is left (reported by users, not documented). Three
//! things follow:
//!
//! - An unchanged token keeps the end that was recorded when this manager, or another one on the same store, first got
//!   it.
//! - A refresh ahead of the end returns the old token. After the end the manager asks again, at growing intervals,
//!   until the token changes.
//! - A manager that starts with an empty store may get a token that expires sooner than `expires_in` says. WeCom then
//!   refuses the token early, and [`reject`](crate::TokenManager::reject) replaces it. Share a
//!   [`Store`](crate::store::Store) between processes to know the age.
//!
//! # When a service refuses a token
//!
//! WeCom answers with HTTP 200 and an `errcode`. For these codes [`verdict`](crate::TokenManager::verdict) is
//! `Verdict::Rejected`, and [`send`](crate::TokenManager::send) rejects the token and tries once more:
//!
//! | Token | `errcode` |
//! |---|---|
//! | `access_token` | 40001 (invalid credential), 40014 (invalid `access_token`), 42001 (`access_token` expired) |
//! | `suite_access_token` | 40082 (invalid), 42009 (expired) |
//! | `provider_access_token` | 40082 (invalid) |
//!
//! No service refuses a ticket: the browser reports `invalid signature` or error 40093 instead. The codes are those of
//! [page 90313][codes]. 48002 (the app may not call this API) and 60020 (address is not a trusted IP) do not reject.
//!
//! # Limits
//!
//! - 45009 (rate limit) throttles for 60 s, then for longer. WeCom blocks as long as the window that was exceeded:
//!   minute, hour, day or month. 45033 (concurrent calls) throttles for 1 s.
//! - Many `gettoken` calls with a wrong secret block the caller's address for an hour ([page 90313][codes], at 45009),
//!   so a refused secret is not tried again for 30 s. WeCom publishes no number for `gettoken`.
//! - Tickets: 400 requests per hour and corp, 100 per hour and app ([page 96909][tickets]).
//!
//! [token]: https://developer.work.weixin.qq.com/document/path/91039
//! [codes]: https://developer.work.weixin.qq.com/document/path/90313
//! [tickets]: https://developer.work.weixin.qq.com/document/path/96909

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

/// The host of the public cloud. Private deployments have hosts of their own.
const DEFAULT_BASE_URL: &str = "https://qyapi.weixin.qq.com";

/// The lifetime of every token and ticket that WeCom grants.
const LIFETIME: Duration = Duration::from_secs(7200);

/// Returns the profile of every token kind of WeCom.
///
/// `unchanged_token_extends` stays false: WeCom returns an unchanged token with `expires_in` 7200 whatever is left, so
/// the reply is no reason to move the known end. `min_forced_interval` spares the endpoint, because a forced refresh
/// returns the unchanged token too.
fn profile() -> Profile {
    Profile { default_lifetime: LIFETIME, min_forced_interval: MIN_FORCED_INTERVAL, ..Profile::default() }
}

/// The time after a forced refresh in which another one would most likely return the unchanged token.
const MIN_FORCED_INTERVAL: Duration = Duration::from_secs(10);

/// The error codes of the token endpoints and, of the services, the throttle codes.
const ERRORS: ErrorTable =
    ErrorTable { code_field: "errcode", rules: RULES, throttle_codes: &[("45009", 60), ("45033", 1)] };

/// The codes with which a service refuses the `access_token` of an app or of an authorized corp. An expired token is
/// answered with 40014 as well as with 42001.
const REJECTIONS: &[&str] = &["40001", "40014", "42001"];

/// The codes with which a service refuses a `suite_access_token`.
const SUITE_REJECTIONS: &[&str] = &["40082", "42009"];

/// The code with which a service refuses a `provider_access_token`.
const SERVICE_PROVIDER_REJECTIONS: &[&str] = &["40082"];

const IP_NOT_TRUSTED: &str = "this machine's address is not a trusted IP of the app; add it to 企业可信IP on the \
                              app's page in the admin console, and allow a minute for the change";

/// The codes of the token endpoints. Where an endpoint gives a code another meaning, this table has the meaning at
/// `gettoken`.
const RULES: &[ErrorRule] = &[
    ("-1", ErrorKind::Unavailable, "WeCom is busy; try again later"),
    (
        "40001",
        ErrorKind::InvalidCredentials,
        "the app secret (corpsecret) is wrong or was reset, or the app is disabled; copy Secret from the app's page in \
         the admin console",
    ),
    (
        "40013",
        ErrorKind::InvalidCredentials,
        "the corp id (corpid) is wrong; copy 企业ID from 我的企业 in the admin console",
    ),
    (
        "40080",
        ErrorKind::InvalidCredentials,
        "the suite secret is wrong; copy it from the suite's page in the service provider console",
    ),
    (
        "40083",
        ErrorKind::InvalidCredentials,
        "the suite id is wrong; copy it from the suite's page in the service provider console",
    ),
    (
        "40084",
        ErrorKind::InvalidCredentials,
        "the permanent code is wrong or belongs to another suite, or the corp has withdrawn its authorization; the \
         corp's administrator must authorize the suite again",
    ),
    ("40085", ErrorKind::TicketRequired, TICKET_REQUIRED),
    (
        "40091",
        ErrorKind::InvalidCredentials,
        "the app secret (corpsecret) is wrong or belongs to another corp; copy Secret from the app's page in the admin \
         console",
    ),
    ("41002", ErrorKind::Config, "the request arrived without the corp id (corpid); a proxy may have changed it"),
    ("41004", ErrorKind::Config, NO_APP_SECRET),
    (
        "41021",
        ErrorKind::InvalidCredentials,
        "the request arrived without the suite id (suite_id); a proxy may have changed it",
    ),
    ("41023", ErrorKind::TicketRequired, TICKET_REQUIRED),
    ("41024", ErrorKind::Config, NO_APP_SECRET),
    (
        "45009",
        ErrorKind::Throttled,
        "there were too many calls; WeCom blocks for as long as the exceeded period: from a minute to a month",
    ),
    (
        "45031",
        ErrorKind::InvalidCredentials,
        "the app secret (corpsecret) is too weak for WeCom; reset Secret on the app's page in the admin console",
    ),
    ("45033", ErrorKind::Throttled, "there were too many calls at the same time"),
    (
        "48002",
        ErrorKind::Forbidden,
        "the app may not call this API; check the app's API permissions in the admin console",
    ),
    ("50003", ErrorKind::InvalidCredentials, "the app is disabled; enable it in the admin console"),
    ("60020", ErrorKind::Forbidden, IP_NOT_TRUSTED),
    ("301042", ErrorKind::Forbidden, IP_NOT_TRUSTED),
];

/// The codes with another meaning at `get_suite_token`.
const SUITE_RULES: &[ErrorRule] = &[
    (
        "40001",
        ErrorKind::InvalidCredentials,
        "the suite secret is wrong or was reset, or the suite is disabled; copy the secret from the suite's page in \
         the service provider console",
    ),
    (
        "40013",
        ErrorKind::InvalidCredentials,
        "the suite id is wrong; copy it from the suite's page in the service provider console",
    ),
    (
        "41004",
        ErrorKind::Config,
        "the request arrived without the suite secret (suite_secret); a proxy may have changed it",
    ),
];

/// The codes with another meaning at `get_corp_token`, whose request carries a `suite_access_token`. `TokenRejected`
/// makes the manager reject that token and fetch once more with another one.
const AUTHORIZED_CORP_RULES: &[ErrorRule] = &[
    (
        "40013",
        ErrorKind::InvalidCredentials,
        "the authorized corp's id (auth_corpid) is wrong; use the corpid that get_permanent_code returned for this \
         suite",
    ),
    ("40082", ErrorKind::TokenRejected, SUITE_TOKEN_REFUSED),
    ("41022", ErrorKind::TokenRejected, SUITE_TOKEN_REFUSED),
    ("42009", ErrorKind::TokenRejected, SUITE_TOKEN_REFUSED),
];

/// The codes with another meaning at `get_provider_token`.
const SERVICE_PROVIDER_RULES: &[ErrorRule] = &[
    (
        "40001",
        ErrorKind::InvalidCredentials,
        "the provider secret is wrong or was reset; copy ProviderSecret from the service provider console",
    ),
    (
        "40013",
        ErrorKind::InvalidCredentials,
        "the service provider's corp id (corpid) is wrong; copy it from the service provider console",
    ),
    (
        "40091",
        ErrorKind::InvalidCredentials,
        "the provider secret is wrong or belongs to another corp; copy ProviderSecret from the service provider \
         console",
    ),
    (
        "41004",
        ErrorKind::Config,
        "the request arrived without the provider secret (provider_secret); a proxy may have changed it",
    ),
];

/// The codes with another meaning where a ticket is requested: they are about the `access_token` in the request.
/// `TokenRejected` makes the manager reject that token and fetch once more with another one.
const JS_TICKET_RULES: &[ErrorRule] = &[
    ("40001", ErrorKind::TokenRejected, TOKEN_REFUSED),
    ("40014", ErrorKind::TokenRejected, TOKEN_REFUSED),
    ("42001", ErrorKind::TokenRejected, TOKEN_REFUSED),
];

const TOKEN_REFUSED: &str = "WeCom refused the access token that the ticket was requested with";

const SUITE_TOKEN_REFUSED: &str = "WeCom refused the suite access token that the corp's token was requested with";

const NO_APP_SECRET: &str = "the request arrived without the app secret (corpsecret); a proxy may have changed it";

const TICKET_REQUIRED: &str = "the suite ticket is missing, older than 30 minutes, or of another suite; pass the next \
                               one, which WeCom pushes to the callback every ten minutes, to `set_ticket`";
