//! Feishu (飞书) and Lark: the `tenant_access_token` and the `app_access_token` of a custom app (`auth/v3`,
//! `internal`).

use crate::error::Error;
use crate::http::Http;
use crate::key::Identity;
use crate::provider::feishu::{
    APP_REJECTIONS, App, ERRORS, FEISHU_BASE_URL, LARK_BASE_URL, TENANT_REJECTIONS, profile, verdict,
};
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, Verdict, parse_grant_fields};
use crate::secret::Secret;

/// Fetches the `tenant_access_token` of a custom app (企业自建应用)
/// (`POST /open-apis/auth/v3/tenant_access_token/internal` with `app_id` and `app_secret`).
///
/// The token is for the app's calls in the company that made it: messages, documents, contacts and nearly every other
/// API.
///
/// - *Lifetime*: at most 2 hours; `expire` is the time left.
/// - *A second request* returns the same token while 30 minutes or more are left, then a new one. Both stay valid.
/// - *Refused* with HTTP 400 and `code` 99991663, 99991665, 99991671 or 20013.
/// - *Limits*: a service answers HTTP 429 with `x-ogw-ratelimit-reset`. The [module page](crate::provider::feishu) has
///   more, and the sources.
///
/// ```
/// use evertoken::{Feishu, TokenManager};
///
/// let feishu = Feishu::new("cli_a1b2c3", "app-secret");
/// let lark = Feishu::new("cli_d4e5f6", "app-secret").lark();
/// assert!(!format!("{feishu:?} {lark:?}").contains("app-secret"));
/// let tokens = TokenManager::new(feishu);
/// ```
#[doc(alias = "tenant_access_token")]
#[doc(alias = "app_id")]
#[doc(alias = "app_secret")]
#[doc(alias = "飞书")]
#[doc(alias = "Lark")]
#[derive(Clone, Debug)]
pub struct Feishu {
    app: App,
}

impl Feishu {
    /// Makes a provider for one app. `app_id` and `app_secret` are App ID and App Secret from 凭证与基础信息
    /// (Credentials & Basic Info) in the developer console.
    pub fn new(app_id: impl Into<String>, app_secret: impl Into<Secret>) -> Feishu {
        Feishu { app: App::new(app_id, app_secret, FEISHU_BASE_URL) }
    }

    /// Fetches from Lark, at `https://open.larksuite.com`, for an app that is registered there.
    #[must_use]
    pub fn lark(self) -> Feishu {
        self.base_url(LARK_BASE_URL)
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://open.feishu.cn`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> Feishu {
        Feishu { app: self.app.with_host(url) }
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
        let reply = self.app.post_credentials(http, "/open-apis/auth/v3/tenant_access_token/internal")?;
        parse_grant_fields(ERRORS.accept(&reply, &[&self.app.secret])?, "tenant_access_token", "expire")
    }
}

impl Provider for Feishu {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        self.app.identity(NAME)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context.http()).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        self.app.check(NAME)
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response, TENANT_REJECTIONS)
    }
}

/// Fetches the `app_access_token` of a custom app (企业自建应用)
/// (`POST /open-apis/auth/v3/app_access_token/internal` with `app_id` and `app_secret`).
///
/// A few APIs want this token in place of the `tenant_access_token`, such as the older ones for user sign-in. For all
/// other APIs use [`Feishu`](crate::Feishu).
///
/// - *Lifetime* and *a second request*: as for the `tenant_access_token`.
/// - *Refused* with HTTP 400 and `code` 99991664, 20014 or 99991671.
///
/// ```
/// use evertoken::provider::feishu::FeishuAppToken;
///
/// let provider = FeishuAppToken::new("cli_a1b2c3", "app-secret");
/// assert!(!format!("{provider:?}").contains("app-secret"));
/// ```
#[doc(alias = "app_access_token")]
#[derive(Clone, Debug)]
pub struct FeishuAppToken {
    app: App,
}

impl FeishuAppToken {
    /// Makes a provider for one app. `app_id` and `app_secret` are App ID and App Secret from 凭证与基础信息
    /// (Credentials & Basic Info) in the developer console.
    pub fn new(app_id: impl Into<String>, app_secret: impl Into<Secret>) -> FeishuAppToken {
        FeishuAppToken { app: App::new(app_id, app_secret, FEISHU_BASE_URL) }
    }

    /// Fetches from Lark, at `https://open.larksuite.com`, for an app that is registered there.
    #[must_use]
    pub fn lark(self) -> FeishuAppToken {
        self.base_url(LARK_BASE_URL)
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://open.feishu.cn`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> FeishuAppToken {
        FeishuAppToken { app: self.app.with_host(url) }
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
        let reply = self.app.post_credentials(http, "/open-apis/auth/v3/app_access_token/internal")?;
        // The reply also has a `tenant_access_token`, which is ignored.
        parse_grant_fields(ERRORS.accept(&reply, &[&self.app.secret])?, "app_access_token", "expire")
    }
}

impl Provider for FeishuAppToken {
    fn name(&self) -> &str {
        APP_TOKEN_NAME
    }

    fn identity(&self) -> Identity {
        self.app.identity(APP_TOKEN_NAME)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context.http()).map_err(|error| error.of(APP_TOKEN_NAME))
    }

    fn check(&self) -> Result<(), Error> {
        self.app.check(APP_TOKEN_NAME)
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response, APP_REJECTIONS)
    }
}

const NAME: &str = "feishu";
const APP_TOKEN_NAME: &str = "feishu app token";
