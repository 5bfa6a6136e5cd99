//! WeCom (企业微信): the `provider_access_token` of a service provider, from `get_provider_token`.

use serde::Serialize;

use crate::error::Error;
use crate::http::Http;
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::settings::check_texts;
use crate::provider::wecom::{DEFAULT_BASE_URL, ERRORS, SERVICE_PROVIDER_REJECTIONS, SERVICE_PROVIDER_RULES, profile};
use crate::provider::{
    Context, Grant, Profile, Provider, ServiceResponse, TokenPlacement, Verdict, parse_grant_fields,
};
use crate::secret::Secret;

/// Fetches the `provider_access_token` of a service provider (服务商) (`POST /cgi-bin/service/get_provider_token` with
/// `corpid` and `provider_secret`).
///
/// The token is for the calls that a service provider makes for itself and not for one of its suites, such as
/// `corpid_to_opencorpid`. Services take the token as the query parameter `provider_access_token`.
///
/// - *Lifetime*: 7200 s. The crate expects a second request to return the same token, as from `gettoken`.
/// - *Refused* with `errcode` 40082, whose text at WeCom names a suite's or a service provider's token.
///
/// ```
/// use evertoken::provider::Provider;
/// use evertoken::provider::wecom::WeComServiceProvider;
///
/// let provider = WeComServiceProvider::new("ww1234567890abcdef", "provider-secret");
/// assert!(provider.check().is_ok() && !format!("{provider:?}").contains("provider-secret"));
/// ```
#[doc(alias = "provider_access_token")]
#[doc(alias = "get_provider_token")]
#[derive(Clone, Debug)]
pub struct WeComServiceProvider {
    corp_id: String,
    secret: Secret,
    base_url: BaseUrl,
}

impl WeComServiceProvider {
    /// Makes a provider for one service provider. `corp_id` is the service provider's own `corpid`; `provider_secret`
    /// is ProviderSecret from the service provider console.
    pub fn new(corp_id: impl Into<String>, provider_secret: impl Into<Secret>) -> WeComServiceProvider {
        WeComServiceProvider {
            corp_id: corp_id.into(),
            secret: provider_secret.into(),
            base_url: BaseUrl::new(DEFAULT_BASE_URL),
        }
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://qyapi.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeComServiceProvider {
        WeComServiceProvider { base_url: BaseUrl::new(url), ..self }
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
        let body = Body { corpid: &self.corp_id, provider_secret: self.secret.expose() };
        let reply = http.post_json(&self.base_url.join("/cgi-bin/service/get_provider_token"), &body).send()?;
        let json = ERRORS.accept_with_rules(SERVICE_PROVIDER_RULES, &reply, &[&self.secret])?;
        parse_grant_fields(json, "provider_access_token", "expires_in")
    }
}

#[derive(Serialize)]
struct Body<'a> {
    corpid: &'a str,
    provider_secret: &'a str,
}

impl Provider for WeComServiceProvider {
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
        check_texts(&[("corp id", &self.corp_id), ("provider secret", self.secret.expose())])
            .and_then(|()| self.base_url.check())
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn placement(&self) -> TokenPlacement {
        TokenPlacement::query("provider_access_token")
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        ERRORS.verdict(response, SERVICE_PROVIDER_REJECTIONS)
    }
}

const NAME: &str = "wecom service provider";
