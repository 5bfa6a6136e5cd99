//! Feishu and Lark: the token of a tenant that has installed a store app.

use crate::error::{Error, ErrorKind};
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::errors::ErrorRule;
use crate::provider::feishu::{ERRORS, FEISHU_BASE_URL, LARK_BASE_URL, TENANT_REJECTIONS, post, profile, verdict};
use crate::provider::parent::Parent;
use crate::provider::settings::check_texts;
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, Verdict, parse_grant_fields};
use crate::token::TokenSource;

/// Grants the tenant token of a company that has installed a store app.
///
/// It is built on what gives the app's token: the manager of a [`FeishuStoreApp`](crate::provider::feishu::FeishuStoreApp), a clone of
/// which can be handed to any number of tenants. With a [`TokenPool`](crate::TokenPool) each tenant has its manager
/// when it is needed.
///
/// Asked while more than half an hour is left, Feishu gives the same token back; later it gives a new one, and the old
/// one works on beside it.
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
    /// The tenant `tenant_key`, of the store app whose tokens `app` gives.
    pub fn new(app: impl TokenSource, tenant_key: impl Into<String>) -> FeishuTenant {
        FeishuTenant { app: Parent::new(app), tenant_key: tenant_key.into(), host: BaseUrl::new(FEISHU_BASE_URL) }
    }

    /// The app is one of Lark, and `https://open.larksuite.com` is asked. The app's own provider has to be told too.
    #[must_use]
    pub fn lark(self) -> FeishuTenant {
        self.base_url(LARK_BASE_URL)
    }

    /// Asks another host, for a private deployment or a test. Default: `https://open.feishu.cn`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> FeishuTenant {
        FeishuTenant { host: BaseUrl::new(url), ..self }
    }

    fn request_token(&self, context: &Context) -> Result<Grant, Error> {
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

const APP_TOKEN_REFUSED: &str = "the app token was refused";

/// The codes that are about the app token, which is shown at this endpoint only.
const TENANT_RULES: &[ErrorRule] = &[
    ("20014", ErrorKind::TokenRejected, APP_TOKEN_REFUSED),
    ("99991664", ErrorKind::TokenRejected, APP_TOKEN_REFUSED),
    ("99991671", ErrorKind::TokenRejected, APP_TOKEN_REFUSED),
];
