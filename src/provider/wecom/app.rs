//! WeCom (企业微信): the access token of a corp's app.

use crate::error::Error;
use crate::http::Http;
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::settings::check_texts;
use crate::provider::wecom::{DEFAULT_BASE_URL, ERRORS, REJECTIONS, profile};
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, TokenPlacement, Verdict, parse_grant};
use crate::secret::Secret;

/// Grants the access token of one app of one corp (`/cgi-bin/gettoken`).
///
/// Every app has a secret of its own, and so a token of its own. Asked again within a token's lifetime, WeCom gives the
/// same one back and says `7200` whatever is left of it, so its end stays where it was first seen.
///
/// For an app that others develop for a corp (代开发), the permanent code takes the place of the secret.
///
/// ```
/// use evertoken::WeCom;
///
/// let provider = WeCom::new("ww1234567890abcdef", "app-secret");
/// assert!(!format!("{provider:?}").contains("app-secret"));
/// ```
#[derive(Clone, Debug)]
pub struct WeCom {
    corp_id: String,
    secret: Secret,
    base_url: BaseUrl,
}

impl WeCom {
    /// The app of `corp_id` that `secret` belongs to.
    pub fn new(corp_id: impl Into<String>, secret: impl Into<Secret>) -> WeCom {
        WeCom { corp_id: corp_id.into(), secret: secret.into(), base_url: BaseUrl::new(DEFAULT_BASE_URL) }
    }

    /// Asks another host, for a private deployment or a test. Default: `https://qyapi.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeCom {
        WeCom { base_url: BaseUrl::new(url), ..self }
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
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
