//! WeCom (企业微信): the `access_token` of one app of a corp, from `gettoken`.

use crate::error::Error;
use crate::http::Http;
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::settings::check_texts;
use crate::provider::wecom::{DEFAULT_BASE_URL, ERRORS, REJECTIONS, profile};
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, TokenPlacement, Verdict, parse_grant};
use crate::secret::Secret;

/// Fetches the `access_token` of one app of a corp (`GET /cgi-bin/gettoken` with `corpid` and `corpsecret`).
///
/// The token is for the app's own calls: messages, contacts, approvals, each within the app's permissions. Every app
/// has a secret of its own, and its token serves no other app. Services take the token as the query parameter
/// `access_token`.
///
/// - *Lifetime*: 7200 s. A second request returns the same token; the [module page](crate::provider::wecom) says what
///   follows.
/// - *Refused* with `errcode` 40001, 40014 or 42001.
/// - *Limits*: no published number for `gettoken`. A wrong secret, sent often, blocks the address for an hour.
///
/// For an app that a service provider develops for the corp (代开发), pass the `permanent_code` as the secret.
///
/// ```
/// use evertoken::{TokenManager, WeCom};
///
/// let provider = WeCom::new("ww1234567890abcdef", "app-secret");
/// assert!(!format!("{provider:?}").contains("app-secret"));
/// let tokens = TokenManager::new(provider);
/// ```
#[doc(alias = "gettoken")]
#[doc(alias = "corpsecret")]
#[doc(alias = "corpid")]
#[doc(alias = "企业微信")]
#[derive(Clone, Debug)]
pub struct WeCom {
    corp_id: String,
    secret: Secret,
    base_url: BaseUrl,
}

impl WeCom {
    /// Makes a provider for one app. `corp_id` is 企业ID (`corpid`) from 我的企业 in the admin console; `secret` is
    /// Secret (`corpsecret`) from the app's page there.
    pub fn new(corp_id: impl Into<String>, secret: impl Into<Secret>) -> WeCom {
        WeCom { corp_id: corp_id.into(), secret: secret.into(), base_url: BaseUrl::new(DEFAULT_BASE_URL) }
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://qyapi.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeCom {
        WeCom { base_url: BaseUrl::new(url), ..self }
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
        // The secret is part of the URL here, so neither an error nor a log line may quote the URL.
        let reply = http
            .get(&self.base_url.join("/cgi-bin/gettoken"))
            .query("corpid", &self.corp_id)
            .query("corpsecret", self.secret.expose())
            .send()?;
        parse_grant(ERRORS.accept(&reply, &[&self.secret])?)
    }
}

impl Provider for WeCom {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        Identity::new(NAME).part("url", self.base_url.as_str()).part("corp", &self.corp_id).secret(&self.secret)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context.http()).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        check_texts(&[("corp id", &self.corp_id), ("app secret", self.secret.expose())])
            .and_then(|()| self.base_url.check())
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn placement(&self) -> TokenPlacement {
        TokenPlacement::query("access_token")
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        ERRORS.verdict(response, REJECTIONS)
    }
}

const NAME: &str = "wecom";
