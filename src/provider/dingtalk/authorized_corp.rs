//! DingTalk: the token of a corp that has installed a suite.

use crate::error::Error;
use crate::key::Identity;
use crate::provider::dingtalk::suite::{Suite, latest_ticket};
use crate::provider::dingtalk::{accept, header_placement, suite_profile, verdict};
use crate::provider::settings::check_texts;
use crate::provider::{
    Context, Grant, Profile, Provider, RenewalProfile, ServiceResponse, TokenPlacement, Verdict, parse_grant_fields,
};
use crate::secret::Secret;

/// Grants the token of a corp that has installed a suite (第三方企业应用), for the ticket that DingTalk pushes to the suite.
///
/// The ticket is handed in with [`set_ticket`](crate::TokenManager::set_ticket), as for
/// [`DingTalkSuite`](crate::provider::dingtalk::DingTalkSuite). In a shared store one manager of the suite is enough for it; all other
/// corps of the suite find it there. Without a store each manager has to be told.
///
/// ```
/// use evertoken::provider::dingtalk::DingTalkAuthorizedCorp;
///
/// let provider = DingTalkAuthorizedCorp::new("suiteabc", "suite-secret", "ding1234");
/// assert!(!format!("{provider:?}").contains("suite-secret"));
/// ```
#[derive(Clone, Debug)]
pub struct DingTalkAuthorizedCorp {
    suite: Suite,
    corp_id: String,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    suite_key: &'a str,
    suite_secret: &'a str,
    auth_corp_id: &'a str,
    suite_ticket: &'a str,
}

impl DingTalkAuthorizedCorp {
    /// The corp `auth_corp_id`, which has installed the suite `suite_key`.
    pub fn new(
        suite_key: impl Into<String>,
        suite_secret: impl Into<Secret>,
        auth_corp_id: impl Into<String>,
    ) -> DingTalkAuthorizedCorp {
        DingTalkAuthorizedCorp { suite: Suite::new(suite_key, suite_secret), corp_id: auth_corp_id.into() }
    }

    /// Asks another host, for a private deployment or a test. Default: `https://api.dingtalk.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> DingTalkAuthorizedCorp {
        DingTalkAuthorizedCorp { suite: self.suite.with_host(url), ..self }
    }

    fn request_token(&self, context: &Context) -> Result<Grant, Error> {
        let Suite { key, secret, host } = &self.suite;
        let ticket = latest_ticket(context)?;
        let body = Body {
            suite_key: key,
            suite_secret: secret.expose(),
            auth_corp_id: &self.corp_id,
            suite_ticket: ticket.expose(),
        };
        let reply = context.http().post_json(&host.join("/v1.0/oauth2/corpAccessToken"), &body).send()?;
        parse_grant_fields(accept(&reply, &[secret, ticket])?, "accessToken", "expireIn")
    }
}

impl Provider for DingTalkAuthorizedCorp {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        self.suite.identity(NAME).part("corp", &self.corp_id)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        self.suite
            .check()
            .and_then(|()| check_texts(&[("authorized corp's id", &self.corp_id)]))
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        suite_profile()
    }

    fn renewal(&self) -> Option<RenewalProfile> {
        Some(self.suite.renewal())
    }

    fn placement(&self) -> TokenPlacement {
        header_placement()
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response)
    }
}

const NAME: &str = "dingtalk authorized corp";
