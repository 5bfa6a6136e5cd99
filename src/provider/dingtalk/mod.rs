//! DingTalk (钉钉).

pub(crate) mod app;
mod authorized_corp;
mod suite;

use std::time::Duration;

pub use app::{DingTalkClassic, DingTalkUnified};
pub use authorized_corp::DingTalkAuthorizedCorp;
pub use suite::DingTalkSuite;

pub(crate) use app::DingTalk;

use crate::error::{Error, ErrorKind};
use crate::http::{HeaderMap, Json, TokenResponse, code};
use crate::provider::errors::{ErrorRule, ErrorTable};
use crate::provider::{Profile, ServiceResponse, TokenPlacement, Verdict};
use crate::secret::Secret;

/// The host of the new interfaces. Its refusals have a `code` that is a word, and a status of 400 and more.
const API_BASE_URL: &str = "https://api.dingtalk.com";

/// The host of the old interfaces. Its refusals have an `errcode` that is a number, and HTTP 200.
const OAPI_BASE_URL: &str = "https://oapi.dingtalk.com";

/// Where the new interfaces want a token. They ignore `Authorization` and the query.
fn header_placement() -> TokenPlacement {
    TokenPlacement::header("x-acs-dingtalk-access-token")
}

/// How the token of an app is treated: one for each app, which is given back and extended when it is asked for again.
fn app_profile() -> Profile {
    Profile {
        default_lifetime: LIFETIME,
        unchanged_token_extends: true,
        // For the same reason a forced refresh brings the same token, and so does another one soon after it.
        min_forced_interval: Duration::from_secs(10),
        ..Profile::default()
    }
}

/// How the tokens are treated that are granted for the ticket of a suite.
fn suite_profile() -> Profile {
    // Asked again, a new one comes. Whether the old one dies of it nobody tells. Should it, processes that fetch each
    // for itself would end each other's tokens all the time; should it not, they merely fetch seldom while their store
    // is out of order.
    Profile { default_lifetime: LIFETIME, new_token_ends_old: true, ..Profile::default() }
}

/// The object in a reply of a token endpoint, unless it is a refusal.
fn accept(reply: &TokenResponse, secrets: &[&Secret]) -> Result<Json, Error> {
    let json = reply.json();
    let field = |name: &str| json.as_ref().ok().and_then(|json| json.code(name));
    if is_ip_ban(reply.status(), reply.headers(), field) {
        return Err(Error::new(ErrorKind::Throttled, IP_BANNED)
            .with_status(reply.status())
            .with_retry_after(IP_BAN_DURATION));
    }
    ErrorFormat::of(field).table().accept_json(json, reply, secrets)
}

/// What an answer of a service says about the token.
fn verdict(response: &ServiceResponse<'_>) -> Verdict {
    let json = response.json();
    let field = |name: &str| code(json.as_ref()?.get(name)?);
    if is_ip_ban(response.status(), response.headers(), field) {
        return Verdict::Throttled { retry_after: Some(IP_BAN_DURATION) };
    }
    let table = ErrorFormat::of(field).table();
    table.verdict_for_code(field(table.code_field), response, REJECTIONS)
}

/// How a body tells its code. The host alone does not say it: a gateway of the new one answers as the old one does.
#[derive(Clone, Copy)]
enum ErrorFormat {
    /// `code`
    Code,
    /// `errcode`
    Errcode,
    /// An `errcode` that stands for any trouble, and a `sub_code` that says which.
    SubCode,
}

impl ErrorFormat {
    fn of(field: impl Fn(&str) -> Option<String>) -> ErrorFormat {
        match field("errcode").as_deref() {
            None => ErrorFormat::Code,
            Some("88") if field("sub_code").is_some() => ErrorFormat::SubCode,
            Some(_) => ErrorFormat::Errcode,
        }
    }

    fn table(self) -> ErrorTable {
        let (field, refusals) = match self {
            ErrorFormat::Code => ("code", CODE_RULES),
            ErrorFormat::Errcode => ("errcode", ERRCODE_RULES),
            ErrorFormat::SubCode => ("sub_code", ERRCODE_RULES),
        };
        ErrorTable { code_field: field, rules: refusals, throttle_codes: THROTTLE_CODES }
    }
}

/// True for what an address gets that has called much too often: a page for people, or JSON without a code. With a
/// status that says where the page comes from, a wrong path or a broken gateway, it is no ban.
fn is_ip_ban(status: u16, headers: &HeaderMap, field: impl Fn(&str) -> Option<String>) -> bool {
    let content_type = headers.get("content-type").map(|value| value.as_bytes()).unwrap_or_default();
    let is_page = content_type.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"));
    let is_punished = || field("punish").as_deref() == Some("deny");
    is_page && !matches!(status, 401 | 404 | 500..) || is_punished()
}

const LIFETIME: Duration = Duration::from_secs(7200);

const IP_BANNED: &str = "DingTalk refuses this machine's address for some minutes, because there were too many calls";

/// How long an address is banned.
const IP_BAN_DURATION: Duration = Duration::from_secs(300);

/// The table with which a service refuses a token. Those for rights that are missing (60011, `Forbidden...`) are not
/// among them, nor those for a request without a token.
const REJECTIONS: &[&str] = &["40001", "40014", "42001", "InvalidAuthentication"];

const THROTTLE_CODES: &[(&str, u64)] = &[
    ("90001", 2),
    // For everybody who calls this interface.
    ("90002", 1),
    ("90003", 2),
    ("90004", 2),
    ("90005", 2),
    ("90006", 2),
    ("90007", 2),
    ("90008", 2),
    ("90009", 2),
    ("90010", 2),
    ("90011", 2),
    ("90012", 2),
    ("90013", 2),
    ("90014", 2),
    ("90017", 2),
    ("90018", 2),
    ("90019", 2),
    // Messages of a robot, which are counted by the minute.
    ("410100", 60),
    ("660026", 60),
    ("Forbidden.AccessDenied.QpsLimit*", 2),
    ("Forbidden.AccessDenied.QpmLimit*", 60),
    ("oaplus.query.limit", 2),
    ("qps.exceed.limit", 2),
    ("request.overlimit", 2),
];

const WRONG_CREDENTIALS: &str = "the app key or app secret is wrong, or the app is disabled";
const WRONG_SUITE_CREDENTIALS: &str = "the suite key or suite secret is wrong";
const IP_NOT_TRUSTED: &str = "this machine's address is not on the app's list of allowed ones";
const MISSING_PERMISSION: &str = "the app lacks a right; it is given in the developer console";
const SYSTEM_BUSY: &str = "the system is busy or has an internal fault";
const TICKET_REQUIRED: &str = "the suite ticket is not the latest one, or that of another suite; hand in the next one with \
                     `set_ticket` from the callback";

/// The table of the token endpoint, as far as they say what to do, as the old interfaces tell them.
const ERRCODE_RULES: &[ErrorRule] = &[
    ("-1", ErrorKind::Unavailable, SYSTEM_BUSY),
    ("22", ErrorKind::Config, "the host does not know the interface"),
    ("404", ErrorKind::Config, "the host does not know the interface; look at the base URL"),
    ("33001", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("40001", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("40035", ErrorKind::Config, "a parameter is missing or makes no sense"),
    ("40088", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("40089", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("40096", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("52010", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("60011", ErrorKind::Forbidden, MISSING_PERMISSION),
    ("60020", ErrorKind::Forbidden, IP_NOT_TRUSTED),
    ("900103", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
];

/// The same, as the new interfaces tell them. Their statuses say less: one code comes with several.
const CODE_RULES: &[ErrorRule] = &[
    ("Forbidden.AccessDenied.AccessTokenPermissionDenied", ErrorKind::Forbidden, MISSING_PERMISSION),
    ("Forbidden.AccessDenied.IpNotInWhiteList", ErrorKind::Forbidden, IP_NOT_TRUSTED),
    ("Missingbody", ErrorKind::Config, "the host found no JSON in the request; a proxy may have changed it"),
    ("apiPermissionDenied", ErrorKind::Forbidden, MISSING_PERMISSION),
    ("authFailed", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("invalid.client", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("invalidClientIdOrSecret", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("invalidSuiteKey", ErrorKind::InvalidCredentials, WRONG_SUITE_CREDENTIALS),
    ("invalidSuiteTicket", ErrorKind::TicketRequired, TICKET_REQUIRED),
    ("server.error", ErrorKind::Unavailable, SYSTEM_BUSY),
    ("unauthorized.client", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    (
        "unknownError",
        ErrorKind::Unavailable,
        "the system has an internal fault, or the corp id is wrong: DingTalk says the same to both",
    ),
    ("unsupported.grant.type", ErrorKind::Config, "the host does not know client credentials"),
];
