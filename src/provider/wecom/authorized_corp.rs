//! WeCom (企业微信): the `access_token` of a corp that authorized a suite, from `get_corp_token`.

use serde::Serialize;

use crate::error::Error;
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::parent::Parent;
use crate::provider::settings::check_texts;
use crate::provider::wecom::{AUTHORIZED_CORP_RULES, DEFAULT_BASE_URL, ERRORS, REJECTIONS, profile};
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, TokenPlacement, Verdict, parse_grant};
use crate::secret::Secret;
use crate::token::TokenSource;

/// Fetches the `access_token` of a corp that authorized a suite, a third-party app (第三方应用)
/// (`POST /cgi-bin/service/get_corp_token` with `auth_corpid` and `permanent_code`).
///
/// The token is for the suite's calls in that corp, and is used like the token of an app of the corp's own. The request
/// carries a `suite_access_token`, so this provider is built on a manager of a
/// [`WeComSuite`](crate::provider::wecom::WeComSuite). The manager of a suite serves any number of corps.
///
/// - *Lifetime*: 7200 s. WeCom's page ([90605][page]) does not say what a second request returns; the crate expects the
///   same token, as from `gettoken`.
/// - *Refused* with `errcode` 40001, 40014 or 42001.
/// - The corp withdraws its authorization: `errcode` 40084,
///   [`ErrorKind::InvalidCredentials`](crate::ErrorKind::InvalidCredentials). An administrator of the corp has to
///   authorize the suite again, which gives a new `permanent_code`.
/// - The suite's token is refused: this provider's manager rejects it at the suite's manager and fetches once more.
///
/// [page]: https://developer.work.weixin.qq.com/document/path/90605
///
/// ```
/// use evertoken::TokenManager;
/// use evertoken::provider::wecom::{WeComAuthorizedCorp, WeComSuite};
///
/// let suite = TokenManager::new(WeComSuite::new("wwddddccc7775555aaa", "suite-secret"));
/// let corp = TokenManager::new(WeComAuthorizedCorp::new(suite.clone(), "ww1234567890abcdef", "permanent-code"));
/// ```
#[doc(alias = "permanent_code")]
#[doc(alias = "get_corp_token")]
#[derive(Clone, Debug)]
pub struct WeComAuthorizedCorp {
    suite: Parent,
    corp_id: String,
    permanent_code: Secret,
    base_url: BaseUrl,
}

impl WeComAuthorizedCorp {
    /// Makes a provider for one authorized corp. `suite` is the manager of the suite's token. `auth_corp_id` and
    /// `permanent_code` are what `get_permanent_code` returned when the corp authorized the suite.
    pub fn new(
        suite: impl TokenSource,
        auth_corp_id: impl Into<String>,
        permanent_code: impl Into<Secret>,
    ) -> WeComAuthorizedCorp {
        WeComAuthorizedCorp {
            suite: Parent::new(suite),
            corp_id: auth_corp_id.into(),
            permanent_code: permanent_code.into(),
            base_url: BaseUrl::new(DEFAULT_BASE_URL),
        }
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://qyapi.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeComAuthorizedCorp {
        WeComAuthorizedCorp { base_url: BaseUrl::new(url), ..self }
    }

    fn request_token(&self, context: &Context) -> Result<Grant, Error> {
        let suite = context.parent()?;
        let body = Body { auth_corpid: &self.corp_id, permanent_code: self.permanent_code.expose() };
        let reply = context
            .http()
            .post_json(&self.base_url.join("/cgi-bin/service/get_corp_token"), &body)
            .query("suite_access_token", suite.expose())
            .send()?;
        parse_grant(ERRORS.accept_with_rules(AUTHORIZED_CORP_RULES, &reply, &[&self.permanent_code, suite.secret()])?)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    auth_corpid: &'a str,
    permanent_code: &'a str,
}

impl Provider for WeComAuthorizedCorp {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        Identity::new(NAME)
            .part("url", self.base_url.as_str())
            // A token belongs to the suite that it was requested with.
            .part("parent", self.suite.fingerprint())
            .part("corp", &self.corp_id)
            .secret(&self.permanent_code)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        check_texts(&[("corp id", &self.corp_id), ("permanent code", self.permanent_code.expose())])
            .and_then(|()| self.base_url.check())
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn parent(&self) -> Option<&dyn TokenSource> {
        Some(self.suite.source())
    }

    fn placement(&self) -> TokenPlacement {
        TokenPlacement::query("access_token")
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        ERRORS.verdict(response, REJECTIONS)
    }
}

const NAME: &str = "wecom authorized corp";
