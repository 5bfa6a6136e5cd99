//! The access token of a corp that has authorized a service provider's app.

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

/// Grants the access token of a corp that has authorized a suite (`/cgi-bin/service/get_corp_token`).
///
/// It is granted for the suite's token, so it is built on a manager of [`WeComSuite`](crate::provider::wecom::WeComSuite), and is used
/// as the token of an app of the corp's own.
///
/// ```
/// use evertoken::TokenManager;
/// use evertoken::provider::wecom::{WeComAuthorizedCorp, WeComSuite};
///
/// let suite = TokenManager::new(WeComSuite::new("wwddddccc7775555aaa", "suite-secret"));
/// let corp = TokenManager::new(WeComAuthorizedCorp::new(suite.clone(), "ww1234567890abcdef", "permanent-code"));
/// ```
#[derive(Clone, Debug)]
pub struct WeComAuthorizedCorp {
    suite: Parent,
    corp_id: String,
    permanent_code: Secret,
    base_url: BaseUrl,
}

impl WeComAuthorizedCorp {
    /// The corp `auth_corp_id`, which gave `permanent_code` when it authorized the suite whose tokens `suite` gives.
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

    /// Asks another host, for a private deployment or a test. Default: `https://qyapi.weixin.qq.com`.
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
