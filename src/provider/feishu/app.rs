//! Feishu and Lark: the tokens of an app that a company made for itself.

use crate::error::Error;
use crate::http::Http;
use crate::key::Identity;
use crate::provider::feishu::{
    APP_REJECTIONS, App, ERRORS, FEISHU_BASE_URL, LARK_BASE_URL, TENANT_REJECTIONS, profile, verdict,
};
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, Verdict, parse_grant_fields};
use crate::secret::Secret;

/// Grants the tenant token of an own app (企业自建应用): what nearly every call of Feishu and Lark wants.
///
/// Asked while more than half an hour is left, Feishu gives the same token back and says what is left of it; later it
/// gives a new one, and the old one works on beside it.
///
/// ```
/// use evertoken::Feishu;
///
/// let feishu = Feishu::new("cli_a1b2c3", "app-secret");
/// let lark = Feishu::new("cli_d4e5f6", "app-secret").lark();
/// assert!(!format!("{feishu:?} {lark:?}").contains("app-secret"));
/// ```
#[derive(Clone, Debug)]
pub struct Feishu {
    app: App,
}

impl Feishu {
    /// The app `app_id`, in the company that made it.
    pub fn new(app_id: impl Into<String>, app_secret: impl Into<Secret>) -> Feishu {
        Feishu { app: App::new(app_id, app_secret, FEISHU_BASE_URL) }
    }

    /// The app is one of Lark, and `https://open.larksuite.com` is asked.
    #[must_use]
    pub fn lark(self) -> Feishu {
        self.base_url(LARK_BASE_URL)
    }

    /// Asks another host, for a private deployment or a test. Default: `https://open.feishu.cn`.
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

/// Grants the app token of an own app, for the few calls that want it (signing users in, for one). For all others there
/// is [`Feishu`].
///
/// It is granted and renewed as the tenant token is.
///
/// ```
/// use evertoken::provider::feishu::FeishuAppToken;
///
/// let provider = FeishuAppToken::new("cli_a1b2c3", "app-secret");
/// assert!(!format!("{provider:?}").contains("app-secret"));
/// ```
#[derive(Clone, Debug)]
pub struct FeishuAppToken {
    app: App,
}

impl FeishuAppToken {
    /// The app `app_id`.
    pub fn new(app_id: impl Into<String>, app_secret: impl Into<Secret>) -> FeishuAppToken {
        FeishuAppToken { app: App::new(app_id, app_secret, FEISHU_BASE_URL) }
    }

    /// The app is one of Lark, and `https://open.larksuite.com` is asked.
    #[must_use]
    pub fn lark(self) -> FeishuAppToken {
        self.base_url(LARK_BASE_URL)
    }

    /// Asks another host, for a private deployment or a test. Default: `https://open.feishu.cn`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> FeishuAppToken {
        FeishuAppToken { app: self.app.with_host(url) }
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
        let reply = self.app.post_credentials(http, "/open-apis/auth/v3/app_access_token/internal")?;
        // A tenant token comes with it, which is not wanted here.
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
