//! DingTalk (钉钉): the tokens that `api.dingtalk.com` and `oapi.dingtalk.com` grant.
//!
//! | Token | Provider | Requested with |
//! |---|---|---|
//! | `accessToken` of an internal app | [`DingTalk`] | `accessToken`: `appKey`, `appSecret` |
//! | `access_token` of an internal app, for `oapi` | [`DingTalkClassic`] | `/gettoken`: `appkey`, `appsecret` |
//! | `access_token` of an app in one corp | [`DingTalkUnified`] | `/{corpId}/token`: `client_id`, `client_secret` |
//! | `accessToken` of a suite | [`DingTalkSuite`] | `suiteAccessToken`: `suiteKey`, `suiteSecret`, `suiteTicket` |
//! | `accessToken` of a suite's corp | [`DingTalkAuthorizedCorp`] | `corpAccessToken`: also `authCorpId` |
//!
//! An internal app (企业内部应用) belongs to one corp; a suite (第三方企业应用) is installed by many. The endpoints
//! stand under `/v1.0/oauth2`, except for `/gettoken`.
//!
//! DingTalk has two families of APIs. The newer APIs, at `api.dingtalk.com`, take the token in the header
//! `x-acs-dingtalk-access-token` and ignore `Authorization` and the query. The older APIs, at `oapi.dingtalk.com`
//! ([`DingTalkClassic`]), take the token as the query parameter `access_token`.
//!
//! # Lifetime, and what a second request returns
//!
//! | Token | Lifetime | A second request |
//! |---|---|---|
//! | [`DingTalk`], [`DingTalkClassic`] | 7200 s | returns the same token, valid for 7200 s from then on |
//! | [`DingTalkUnified`] | 7200 s | not documented |
//! | [`DingTalkAuthorizedCorp`] | 7200 s | returns a new token; whether the old one ends is not documented |
//! | [`DingTalkSuite`] | 7200 s | not documented |
//!
//! The facts are those of DingTalk's pages on `accessToken`, `token` and `corpAccessToken` (`open.dingtalk.com`). Where
//! they are silent about a suite, the crate assumes that a new token ends the old one: processes that cannot reach
//! their shared store then fetch seldom ([`Profile::new_token_ends_old`]).
//!
//! # When a service refuses a token
//!
//! For these codes [`verdict`](crate::TokenManager::verdict) is `Verdict::Rejected`, and
//! [`send`](crate::TokenManager::send) rejects the token and tries once more:
//!
//! | API | Response |
//! |---|---|
//! | `api.dingtalk.com` | HTTP 400 with `code` `InvalidAuthentication` |
//! | `oapi.dingtalk.com` | HTTP 200 with `errcode` 88 and `sub_code` 40001, 40014 or 42001, or with such an `errcode` |
//!
//! A missing permission (60011, `Forbidden.AccessDenied.AccessTokenPermissionDenied`) does not reject: another token
//! has the same permissions. A request without a token (41001, `AuthenticationFailed.MissingParameter`) does not reject
//! either.
//!
//! # Limits
//!
//! - Rate limits (`Forbidden.AccessDenied.QpsLimitFor..`, `errcode` 90001 to 90019) throttle for 1 or 2 s, per-minute
//!   limits (`QpmLimit..`, robot messages) for 60 s, and for longer while the limit lasts. In the standard edition of
//!   DingTalk an app may call one API 20 times per second in one corp.
//! - 10,000 calls within 20 s from one address block the address for 5 minutes. DingTalk then answers with a page of
//!   HTML, or with JSON that has `punish` and no code. The crate recognizes both and throttles for 300 s.
//!
//! The two numbers of calls and the 5 minutes are from DingTalk's tables of call limits. DingTalk advises waits of 1, 2
//! and 4 s for 90002. The other waits are the crate's own.

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

/// The host of the newer APIs. Errors have a `code` that is a word, and HTTP 4xx or 5xx.
const API_BASE_URL: &str = "https://api.dingtalk.com";

/// The host of the older APIs. Errors have an `errcode` that is a number, and HTTP 200.
const OAPI_BASE_URL: &str = "https://oapi.dingtalk.com";

/// Returns the place of a token in a request to the newer APIs, which ignore `Authorization` and the query.
fn header_placement() -> TokenPlacement {
    TokenPlacement::header("x-acs-dingtalk-access-token")
}

/// Returns the profile of an app's token. An app has one token, and each request returns it with a new lifetime.
fn app_profile() -> Profile {
    Profile {
        default_lifetime: LIFETIME,
        unchanged_token_extends: true,
        // A forced refresh brings the unchanged token, so a second one soon after it is pointless.
        min_forced_interval: Duration::from_secs(10),
        ..Profile::default()
    }
}

/// Returns the profile of the tokens that are granted for a suite ticket.
fn suite_profile() -> Profile {
    // A second request returns a new token. DingTalk does not document whether the old one stays valid. If not,
    // processes without a shared store would end each other's tokens all the time; so the profile says that a new token
    // ends the old one, and such processes fetch seldom. If the old one stays valid, that costs nothing else.
    Profile { default_lifetime: LIFETIME, new_token_ends_old: true, ..Profile::default() }
}

/// Returns the JSON object in a reply of a token endpoint, or the error that the reply reports. `secrets` were sent in
/// the request and must not appear in the error.
fn accept(reply: &TokenResponse, secrets: &[&Secret]) -> Result<Json, Error> {
    let json = reply.json();
    let field = |name: &str| json.as_ref().ok().and_then(|json| json.code(name));
    // The response to a blocked address has no code, so the tables cannot recognize it.
    if is_ip_ban(reply.status(), reply.headers(), field) {
        return Err(Error::new(ErrorKind::Throttled, IP_BANNED)
            .with_status(reply.status())
            .with_retry_after(IP_BAN_DURATION));
    }
    ErrorFormat::of(field).table().accept_json(json, reply, secrets)
}

/// Judges a response of a service, of either family.
fn verdict(response: &ServiceResponse<'_>) -> Verdict {
    let json = response.json();
    let field = |name: &str| code(json.as_ref()?.get(name)?);
    if is_ip_ban(response.status(), response.headers(), field) {
        return Verdict::Throttled { retry_after: Some(IP_BAN_DURATION) };
    }
    let table = ErrorFormat::of(field).table();
    table.verdict_for_code(field(table.code_field), response, REJECTIONS)
}

/// The format of an error in a body. The host does not decide the format: for a wrong path the gateway of
/// `api.dingtalk.com` answers in the format of `oapi.dingtalk.com`.
#[derive(Clone, Copy)]
enum ErrorFormat {
    /// A word in the field `code`.
    Code,
    /// A number in the field `errcode`.
    Errcode,
    /// The `errcode` 88, which stands for any error, and the real number in the field `sub_code`.
    SubCode,
}

impl ErrorFormat {
    /// Finds the format of a body. `field` reads a code from a field of the body.
    fn of(field: impl Fn(&str) -> Option<String>) -> ErrorFormat {
        match field("errcode").as_deref() {
            None => ErrorFormat::Code,
            Some("88") if field("sub_code").is_some() => ErrorFormat::SubCode,
            Some(_) => ErrorFormat::Errcode,
        }
    }

    /// Returns the error codes of this format.
    fn table(self) -> ErrorTable {
        let (code_field, rules) = match self {
            ErrorFormat::Code => ("code", CODE_RULES),
            ErrorFormat::Errcode => ("errcode", ERRCODE_RULES),
            ErrorFormat::SubCode => ("sub_code", ERRCODE_RULES),
        };
        ErrorTable { code_field, rules, throttle_codes: THROTTLE_CODES }
    }
}

/// Returns true for the response to an address that DingTalk has blocked: a page of HTML, or JSON with `punish`.
///
/// A page of HTML with HTTP 401, 404 or 5xx comes from a wrong path or a broken gateway and is no block.
fn is_ip_ban(status: u16, headers: &HeaderMap, field: impl Fn(&str) -> Option<String>) -> bool {
    let content_type = headers.get("content-type").map(|value| value.as_bytes()).unwrap_or_default();
    let is_page = content_type.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"));
    let is_punished = || field("punish").as_deref() == Some("deny");
    is_page && !matches!(status, 401 | 404 | 500..) || is_punished()
}

const LIFETIME: Duration = Duration::from_secs(7200);

const IP_BANNED: &str =
    "DingTalk has blocked this machine's address for 5 minutes because of too many calls; call less often";

/// How long DingTalk blocks an address.
const IP_BAN_DURATION: Duration = Duration::from_secs(300);

/// The codes with which a service refuses a token. The codes for a missing permission (60011, `Forbidden...`) and for a
/// request without a token are not in the list: a new token would not help.
const REJECTIONS: &[&str] = &["40001", "40014", "42001", "InvalidAuthentication"];

const THROTTLE_CODES: &[(&str, u64)] = &[
    ("90001", 2),
    // The limit of this API for its callers together is exceeded.
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
    // Messages of a robot, which DingTalk counts per minute.
    ("410100", 60),
    ("660026", 60),
    ("Forbidden.AccessDenied.QpsLimit*", 2),
    ("Forbidden.AccessDenied.QpmLimit*", 60),
    ("oaplus.query.limit", 2),
    ("qps.exceed.limit", 2),
    ("request.overlimit", 2),
];

const WRONG_CREDENTIALS: &str = "the app key (Client ID) or app secret (Client Secret) is wrong, or the app is \
                                 disabled; copy both from 凭证与基础信息 in the developer console";
const WRONG_SUITE_CREDENTIALS: &str = "the suite key or suite secret is wrong; copy SuiteKey and SuiteSecret from the \
                                       app's page in the developer console";
const IP_NOT_TRUSTED: &str = "this machine's address is not on the app's list of allowed addresses; add it to \
                              服务器出口IP in the developer console";
const MISSING_PERMISSION: &str = "the app lacks a permission; add it under 权限管理 in the developer console";
const SYSTEM_BUSY: &str = "DingTalk is busy or reports an internal error; try again later";
const TICKET_REQUIRED: &str = "DingTalk refused the suite ticket, which is not the latest or is of another suite; pass \
                               the next one from the callback to `set_ticket`";

/// The codes of the token endpoints in the formats with a number.
const ERRCODE_RULES: &[ErrorRule] = &[
    ("-1", ErrorKind::Unavailable, SYSTEM_BUSY),
    ("22", ErrorKind::Config, "the host does not know the API; check base_url"),
    ("404", ErrorKind::Config, "the host does not know the API; check base_url"),
    ("33001", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("40001", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("40035", ErrorKind::Config, "a parameter is missing or invalid; check app_key, app_secret and base_url"),
    ("40088", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("40089", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("40096", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("52010", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("60011", ErrorKind::Forbidden, MISSING_PERMISSION),
    ("60020", ErrorKind::Forbidden, IP_NOT_TRUSTED),
    ("900103", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
];

/// The codes of the token endpoints in the format with a word. The HTTP status says less, because one code comes with
/// several.
const CODE_RULES: &[ErrorRule] = &[
    ("Forbidden.AccessDenied.AccessTokenPermissionDenied", ErrorKind::Forbidden, MISSING_PERMISSION),
    ("Forbidden.AccessDenied.IpNotInWhiteList", ErrorKind::Forbidden, IP_NOT_TRUSTED),
    ("Missingbody", ErrorKind::Config, "the request arrived without JSON; a proxy may have changed it"),
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
        "DingTalk reports an unknown error, which also stands for a wrong corp id; check corp_id, or try again later",
    ),
    ("unsupported.grant.type", ErrorKind::Config, "the host does not support client credentials; check base_url"),
];
