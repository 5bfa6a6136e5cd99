//! Feishu (飞书) and Lark: the tokens that `open.feishu.cn` and `open.larksuite.com` grant.
//!
//! | Token | Provider | Requested with |
//! |---|---|---|
//! | `tenant_access_token` of a custom app | [`Feishu`] | `tenant_access_token/internal`: `app_id`, `app_secret` |
//! | `app_access_token` of a custom app | [`FeishuAppToken`] | `app_access_token/internal`: `app_id`, `app_secret` |
//! | OAuth 2.0 `access_token` of a custom app | [`FeishuOAuth`] | `/oauth/v3/token`: `client_credentials` |
//! | `app_access_token` of a store app | [`FeishuStoreApp`] | `app_access_token`: a pushed `app_ticket` |
//! | `tenant_access_token` of a store app's tenant | [`FeishuTenant`] | `tenant_access_token`: `tenant_key` |
//!
//! A custom app (企业自建应用) belongs to one company; a store app (应用商店应用) is installed by many. Nearly every
//! API takes the `tenant_access_token`. An app of Lark calls `lark()` on its provider; Feishu and Lark know nothing of
//! each other's apps. Tokens are sent as `Authorization: Bearer`.
//!
//! # Lifetime, and what a second request returns
//!
//! The numbers are those of Feishu's pages on [`tenant_access_token`][tenant] and `app_access_token` of a custom app
//! (`auth/v3`). The crate expects the same for the `app_access_token` of a store app.
//!
//! - A token is valid for at most 2 hours. `expire` in the reply is the time that is left.
//! - With 30 minutes or more left, a request returns the same token. With less, a request returns a new token, and both
//!   are valid until their own ends.
//! - So a refresh earlier than 30 minutes before the end would be useless, and a forced refresh mostly brings the same
//!   token.
//!
//! For a token of `/oauth/v3/token` only the lifetime is documented: at most 2 hours.
//!
//! # When a service refuses a token
//!
//! Feishu answers with HTTP 400 and a `code`. For these codes [`verdict`](crate::TokenManager::verdict) is
//! `Verdict::Rejected`, and [`send`](crate::TokenManager::send) rejects the token and tries once more:
//!
//! | Token | `code` |
//! |---|---|
//! | `tenant_access_token` | 99991663 (invalid), 99991665, 99991671 (wrong format), 20013 |
//! | `app_access_token` | 99991664 (invalid), 20014, 99991671 (wrong format) |
//!
//! A missing permission scope (99991672, 99991676, 99991679) does not reject: another token has the same permissions.
//!
//! # Limits
//!
//! - HTTP 429 or `code` 99991400 throttles for as long as the header `x-ogw-ratelimit-reset` says, else for 1 s.
//! - 99991403 (the quota of the month) throttles for an hour at a time, because more quota may be bought at any time.
//! - `/oauth/v3/token`: 1000 requests per minute, 50 per second (Feishu's page of that endpoint).
//! - The IP whitelist of an app does not hold for the token endpoints: a token is granted, and the service answers
//!   99991401.
//!
//! [tenant]: https://open.feishu.cn/document/server-docs/authentication-management/access-token/tenant_access_token_internal

pub(crate) mod app;
mod oauth;
mod store_app;
mod tenant;

use std::time::Duration;

pub use app::FeishuAppToken;
pub use oauth::FeishuOAuth;
pub use store_app::FeishuStoreApp;
pub use tenant::FeishuTenant;

pub(crate) use app::Feishu;

use crate::error::{Error, ErrorKind};
use crate::http::{Http, TokenResponse};
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::errors::{ErrorRule, ErrorTable};
use crate::provider::settings::check_texts;
use crate::provider::{Profile, ServiceResponse, Verdict};
use crate::secret::Secret;

const FEISHU_BASE_URL: &str = "https://open.feishu.cn";
const LARK_BASE_URL: &str = "https://open.larksuite.com";

/// The credential of an app, and the host on which the app is registered.
#[derive(Clone, Debug)]
struct App {
    id: String,
    secret: Secret,
    host: BaseUrl,
}

/// The fields that authenticate an app in a JSON body.
#[derive(serde::Serialize)]
struct AppCredentials<'a> {
    app_id: &'a str,
    app_secret: &'a str,
}

impl App {
    fn new(id: impl Into<String>, secret: impl Into<Secret>, url: &str) -> App {
        App { id: id.into(), secret: secret.into(), host: BaseUrl::new(url) }
    }

    fn with_host(self, url: impl Into<String>) -> App {
        App { host: BaseUrl::new(url), ..self }
    }

    fn credentials(&self) -> AppCredentials<'_> {
        AppCredentials { app_id: &self.id, app_secret: self.secret.expose() }
    }

    /// Sends a request whose body is the credential and nothing else.
    fn post_credentials(&self, http: &Http, path: &str) -> Result<TokenResponse, Error> {
        post(http, &self.host, path, &self.credentials())
    }

    /// Returns the identity of the app's tokens of one kind. `name` is the name of the provider.
    fn identity(&self, name: &str) -> Identity {
        Identity::new(name).part("url", self.host.as_str()).part("app", &self.id).secret(&self.secret)
    }

    fn check(&self, name: &str) -> Result<(), Error> {
        check_texts(&[("app id", &self.id), ("app secret", self.secret.expose())])
            .and_then(|()| self.host.check())
            .map_err(|error| error.of(name))
    }
}

/// Sends a JSON body. Feishu's documentation asks for the charset in the content type.
fn post(http: &Http, host: &BaseUrl, path: &str, body: &impl serde::Serialize) -> Result<TokenResponse, Error> {
    http.post_json(&host.join(path), body).header("content-type", "application/json; charset=utf-8").send()
}

/// Returns the profile of the tokens of `auth/v3`. A new token leaves the old one valid.
fn profile() -> Profile {
    Profile {
        default_lifetime: LIFETIME,
        // With more time left a request returns the unchanged token.
        earliest_refresh: Some(Duration::from_secs(1800)),
        // `expire` of an unchanged token is the time that is left.
        unchanged_token_extends: true,
        // A forced refresh mostly brings the unchanged token, so a second one soon after it is pointless.
        min_forced_interval: Duration::from_secs(10),
        ..Profile::default()
    }
}

/// Judges a response of a service. The codes in `rejections` refuse the token.
fn verdict(response: &ServiceResponse<'_>, rejections: &[&str]) -> Verdict {
    // HTTP 429 comes without a wait when Feishu sends no `x-ogw-ratelimit-reset`.
    match ERRORS.verdict(response, rejections) {
        Verdict::Throttled { retry_after: None } => Verdict::Throttled { retry_after: Some(DEFAULT_RETRY_AFTER) },
        verdict => verdict,
    }
}

/// The codes with which a service refuses a `tenant_access_token`. The codes for a missing permission scope (99991672,
/// 99991676, 99991679) are not in the list: another token has the same permissions.
const TENANT_REJECTIONS: &[&str] = &["99991663", "99991665", "99991671", "20013"];

/// The codes with which a service refuses an `app_access_token`.
const APP_REJECTIONS: &[&str] = &["99991664", "20014", "99991671"];

const LIFETIME: Duration = Duration::from_secs(7200);

/// The wait after a throttled response without `x-ogw-ratelimit-reset`.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

const ERRORS: ErrorTable = ErrorTable { code_field: "code", rules: RULES, throttle_codes: THROTTLE_CODES };

const THROTTLE_CODES: &[(&str, u64)] = &[
    ("1000004", 1),
    ("1000005", 1),
    ("99991400", 1),
    // The quota of the month. More quota may be bought at any time.
    ("99991403", 3600),
];

const INVALID_PARAMETER: &str = "a parameter is missing or invalid; check app_id, app_secret and base_url";
const INTERNAL_ERROR: &str = "Feishu reports an internal error, which may also mean too many requests; try again later";
const MISMATCH: &str = "the app id is unknown, or the app secret belongs to another app; copy both from 凭证与基础信息 \
                        (Credentials & Basic Info) in the developer console";
const NOT_INSTALLED: &str = "the app is not installed in the tenant; an administrator of the tenant must install it";
const APP_UNAVAILABLE: &str = "the app is unknown, disabled or not published; check the app in the developer console, \
                               and whether it is an app of Feishu or of Lark (`lark()`)";

/// The codes of the token endpoints of `auth/v3`, and those numbers of `/oauth/v3/token` that are known.
const RULES: &[ErrorRule] = &[
    ("1500", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("1663", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("1668", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("2200", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("5000", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("10003", ErrorKind::Config, INVALID_PARAMETER),
    ("10005", ErrorKind::Config, INVALID_PARAMETER),
    (
        "10012",
        ErrorKind::InvalidCredentials,
        "Feishu grants no app token; check that the app is enabled, and use `FeishuStoreApp` for a store app",
    ),
    ("10013", ErrorKind::InvalidCredentials, NOT_INSTALLED),
    (
        "10014",
        ErrorKind::InvalidCredentials,
        "the app id or app secret is wrong, or the app is disabled; copy both from 凭证与基础信息 (Credentials & Basic \
         Info) in the developer console",
    ),
    ("10015", ErrorKind::InvalidCredentials, MISMATCH),
    ("10016", ErrorKind::Config, "the app is a custom app, to which Feishu pushes no app ticket; use `Feishu` for it"),
    ("10101", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("11207", ErrorKind::InvalidCredentials, APP_UNAVAILABLE),
    ("11209", ErrorKind::InvalidCredentials, APP_UNAVAILABLE),
    ("11210", ErrorKind::InvalidCredentials, NOT_INSTALLED),
    ("20002", ErrorKind::InvalidCredentials, MISMATCH),
    ("20009", ErrorKind::InvalidCredentials, NOT_INSTALLED),
    ("20050", ErrorKind::Unavailable, INTERNAL_ERROR),
    (
        "20070",
        ErrorKind::Config,
        "the request arrived with the app secret in a header and in the body; a proxy may have added the header",
    ),
    ("20072", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("55001", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("65001", ErrorKind::Unavailable, INTERNAL_ERROR),
    (
        "99991401",
        ErrorKind::Forbidden,
        "this machine's address is not on the IP whitelist of the app; add it in 安全设置 (Security Settings) in the \
         developer console",
    ),
    ("99991543", ErrorKind::InvalidCredentials, MISMATCH),
    ("99991662", ErrorKind::InvalidCredentials, APP_UNAVAILABLE),
];
