//! Feishu (飞书) and Lark: the `tenant_access_token` of a company that has installed a store app.

use crate::error::{Error, ErrorKind};
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::errors::ErrorRule;
use crate::provider::feishu::{ERRORS, FEISHU_BASE_URL, LARK_BASE_URL, TENANT_REJECTIONS, post, profile, verdict};
use crate::provider::parent::Parent;
use crate::provider::settings::check_texts;
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, Verdict, parse_grant_fields};
use crate::token::TokenSource;

/// Fetches the `tenant_access_token` of a company that has installed a store app (应用商店应用)
/// (`POST /open-apis/auth/v3/tenant_access_token` with `app_access_token` and `tenant_key`).
///
/// The token is for the app's calls in that company. The request carries the `app_access_token`, so this provider is
/// built on the manager of a [`FeishuStoreApp`](crate::provider::feishu::FeishuStoreApp). Clones of that one manager
/// serve any number of tenants; a [`TokenPool`](crate::TokenPool) makes the manager of a tenant when the tenant is
/// first used.
///
/// - *Lifetime*: at most 2 hours; `expire` is the time left.
/// - *A second request* returns the same token while 30 minutes or more are left, then a new one. Both stay valid.
/// - *Refused* with HTTP 400 and `code` 99991663, 99991665, 99991671 or 20013.
/// - *The company has not installed the app*: 20009, 10013 or 11210,
///   [`ErrorKind::InvalidCredentials`](crate::ErrorKind::InvalidCredentials).
/// - *The app's token is refused*: this provider's manager rejects it at the app's manager and fetches once more.
///
/// ```
/// use evertoken::TokenManager;
/// use evertoken::provider::feishu::{FeishuStoreApp, FeishuTenant};
///
/// let app = TokenManager::new(FeishuStoreApp::new("cli_a1b2c3", "app-secret"));
/// let one = TokenManager::new(FeishuTenant::new(app.clone(), "tenant-1"));
/// let other = TokenManager::new(FeishuTenant::new(app, "tenant-2"));
/// assert_ne!(one.key(), other.key());
/// ```
#[doc(alias = "tenant_access_token")]
#[doc(alias = "tenant_key")]
#[derive(Clone, Debug)]
pub struct FeishuTenant {
    app: Parent,
    tenant_key: String,
    host: BaseUrl,
}

#[derive(serde::Serialize)]
struct Body<'a> {
    app_access_token: &'a str,
    tenant_key: &'a str,
}

impl FeishuTenant {
    /// Makes a provider for one tenant. `app` is the manager of the store app's token. `tenant_key` is in the events
    /// that Feishu sends about the tenant.
    pub fn new(app: impl TokenSource, tenant_key: impl Into<String>) -> FeishuTenant {
        FeishuTenant { app: Parent::new(app), tenant_key: tenant_key.into(), host: BaseUrl::new(FEISHU_BASE_URL) }
    }

    /// Fetches from Lark, at `https://open.larksuite.com`. Call `lark()` on the provider of the app as well.
    #[must_use]
    pub fn lark(self) -> FeishuTenant {
        self.base_url(LARK_BASE_URL)
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://open.feishu.cn`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> FeishuTenant {
        FeishuTenant { host: BaseUrl::new(url), ..self }
    }

    fn request_token(&self, context: &Context) -> Result<Grant, Error> {
        // The app token alone authenticates the request; app id and secret are not sent.
        let app_token = context.parent()?.secret();
        let body = Body { app_access_token: app_token.expose(), tenant_key: &self.tenant_key };
        let reply = post(context.http(), &self.host, "/open-apis/auth/v3/tenant_access_token", &body)?;
        parse_grant_fields(
            ERRORS.accept_with_rules(TENANT_RULES, &reply, &[app_token])?,
            "tenant_access_token",
            "expire",
        )
    }
}

impl Provider for FeishuTenant {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        Identity::new(NAME)
            .part("url", self.host.as_str())
            .part("tenant", &self.tenant_key)
            .part("parent", self.app.fingerprint())
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        check_texts(&[("tenant key", &self.tenant_key)])
            .and_then(|()| self.host.check())
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn parent(&self) -> Option<&dyn TokenSource> {
        Some(self.app.source())
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response, TENANT_REJECTIONS)
    }
}

const NAME: &str = "feishu tenant";

const APP_TOKEN_REFUSED: &str = "Feishu refused the app_access_token that the tenant token was requested with";

/// The codes about the `app_access_token`, which only this endpoint gets in a request. `TokenRejected` makes the
/// manager reject that token and fetch once more with another one.
const TENANT_RULES: &[ErrorRule] = &[
    ("20014", ErrorKind::TokenRejected, APP_TOKEN_REFUSED),
    ("99991664", ErrorKind::TokenRejected, APP_TOKEN_REFUSED),
    ("99991671", ErrorKind::TokenRejected, APP_TOKEN_REFUSED),
];
