//! Feishu and Lark (飞书).

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

/// An app, and where it is registered.
#[derive(Clone, Debug)]
struct App {
    id: String,
    secret: Secret,
    host: BaseUrl,
}

/// What an app shows of itself at each endpoint.
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

    /// Asks with what the app shows of itself and nothing else.
    fn post_credentials(&self, http: &Http, path: &str) -> Result<TokenResponse, Error> {
        post(http, &self.host, path, &self.credentials())
    }

    /// Whose tokens those of the kind `name` are.
    fn identity(&self, name: &str) -> Identity {
        Identity::new(name).part("url", self.host.as_str()).part("app", &self.id).secret(&self.secret)
    }

    fn check(&self, name: &str) -> Result<(), Error> {
        check_texts(&[("app id", &self.id), ("app secret", self.secret.expose())])
            .and_then(|()| self.host.check())
            .map_err(|error| error.of(name))
    }
}

fn post(http: &Http, host: &BaseUrl, path: &str, body: &impl serde::Serialize) -> Result<TokenResponse, Error> {
    http.post_json(&host.join(path), body).header("content-type", "application/json; charset=utf-8").send()
}

/// How the tokens of `/auth/v3` are treated. The old one works on beside a new one.
fn profile() -> Profile {
    Profile {
        default_lifetime: LIFETIME,
        // With more than this left the same token comes back.
        earliest_refresh: Some(Duration::from_secs(1800)),
        // `expire` is what is really left.
        unchanged_token_extends: true,
        // For the same reason a forced refresh mostly brings the same token, and so does another one soon after it.
        min_forced_interval: Duration::from_secs(10),
        ..Profile::default()
    }
}

/// What an answer of the service says about the token, where `rejections` are the codes that refuse it.
fn verdict(response: &ServiceResponse<'_>, rejections: &[&str]) -> Verdict {
    match ERRORS.verdict(response, rejections) {
        Verdict::Throttled { retry_after: None } => Verdict::Throttled { retry_after: Some(DEFAULT_RETRY_AFTER) },
        verdict => verdict,
    }
}

/// The codes with which a service refuses the token of a tenant. Those for rights that are missing (99991672, 99991676,
/// 99991679) are not among them: another token would be refused too.
const TENANT_REJECTIONS: &[&str] = &["99991663", "99991665", "99991671", "20013"];

/// The codes with which a service refuses the token of an app.
const APP_REJECTIONS: &[&str] = &["99991664", "20014", "99991671"];

const LIFETIME: Duration = Duration::from_secs(7200);

/// When the rate is limited and no header says until when.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

const ERRORS: ErrorTable = ErrorTable { code_field: "code", rules: RULES, throttle_codes: THROTTLE_CODES };

const THROTTLE_CODES: &[(&str, u64)] = &[
    ("1000004", 1),
    ("1000005", 1),
    ("99991400", 1),
    // The quota of the month. Somebody may buy more of it meanwhile.
    ("99991403", 3600),
];

const INTERNAL_ERROR: &str = "the system has an internal fault, or was asked too often";
const MISMATCH: &str = "the app id is unknown, or the app secret is that of another app";
const NOT_INSTALLED: &str = "the app is not installed in the tenant; its administrator has to install it";
const APP_UNAVAILABLE: &str = "the app is unknown here, disabled or not published; look at it in the developer console, \
                           and whether it is an app of Feishu or of Lark";

/// The codes of the token endpoints, as far as they say what to do.
const RULES: &[ErrorRule] = &[
    ("1500", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("1663", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("1668", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("2200", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("5000", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("10003", ErrorKind::Config, "a parameter is missing or makes no sense"),
    ("10005", ErrorKind::Config, "a parameter is missing or makes no sense"),
    (
        "10012",
        ErrorKind::InvalidCredentials,
        "no app token is granted; look whether the app is enabled, and is not a store app",
    ),
    ("10013", ErrorKind::InvalidCredentials, NOT_INSTALLED),
    ("10014", ErrorKind::InvalidCredentials, "the app id or app secret is wrong, or the app is disabled"),
    ("10015", ErrorKind::InvalidCredentials, MISMATCH),
    (
        "10016",
        ErrorKind::Config,
        "the app is not a store app, so no ticket is pushed to it; use `Feishu` for an own app",
    ),
    ("10101", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("11207", ErrorKind::InvalidCredentials, APP_UNAVAILABLE),
    ("11209", ErrorKind::InvalidCredentials, APP_UNAVAILABLE),
    ("11210", ErrorKind::InvalidCredentials, NOT_INSTALLED),
    ("20002", ErrorKind::InvalidCredentials, MISMATCH),
    ("20009", ErrorKind::InvalidCredentials, NOT_INSTALLED),
    ("20050", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("20070", ErrorKind::Config, "the client showed itself in two ways at once; one of them is added on the way"),
    ("20072", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("55001", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("65001", ErrorKind::Unavailable, INTERNAL_ERROR),
    ("99991401", ErrorKind::Forbidden, "this machine's address is not on the app's list of allowed ones"),
    ("99991543", ErrorKind::InvalidCredentials, MISMATCH),
    ("99991662", ErrorKind::InvalidCredentials, APP_UNAVAILABLE),
];
