//! DingTalk (钉钉): the `accessToken` of a corp that has installed a suite, from `corpAccessToken`.

use crate::error::Error;
use crate::key::Identity;
use crate::provider::dingtalk::suite::{Suite, latest_ticket};
use crate::provider::dingtalk::{accept, header_placement, suite_profile, verdict};
use crate::provider::settings::check_texts;
use crate::provider::{
    Context, Grant, Profile, Provider, RenewalProfile, ServiceResponse, TokenPlacement, Verdict, parse_grant_fields,
};
use crate::secret::Secret;

/// Fetches the `accessToken` of a corp that has installed a suite (第三方企业应用)
/// (`POST https://api.dingtalk.com/v1.0/oauth2/corpAccessToken` with `suiteKey`, `suiteSecret`, `authCorpId` and
/// `suiteTicket`).
///
/// The token is for the suite's calls in that corp, in the header `x-acs-dingtalk-access-token`.
///
/// The `suiteTicket` is that of [`DingTalkSuite`](crate::provider::dingtalk::DingTalkSuite): the program passes it to
/// [`set_ticket`](crate::TokenManager::set_ticket). With a shared [`Store`](crate::store::Store) one call on one
/// manager of the suite serves all its corps. Without a store each manager needs a call. Without a ticket a fetch fails
/// with [`ErrorKind::TicketRequired`](crate::ErrorKind::TicketRequired) and sends no request.
///
/// - *Lifetime*: 7200 s (`expireIn`).
/// - *A second request* returns a new token. DingTalk does not document whether the old one stays valid.
/// - *Refused* with HTTP 400 and `code` `InvalidAuthentication`.
/// - *A wrong corp id*: the crate expects HTTP 500 and `unknownError`, as from the endpoint of
///   [`DingTalkUnified`](crate::provider::dingtalk::DingTalkUnified), and so the error
///   [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable).
///
/// ```
/// use evertoken::provider::dingtalk::DingTalkAuthorizedCorp;
///
/// let provider = DingTalkAuthorizedCorp::new("suiteabc", "suite-secret", "ding1234");
/// assert!(!format!("{provider:?}").contains("suite-secret"));
/// ```
#[doc(alias = "corpAccessToken")]
#[doc(alias = "authCorpId")]
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
    /// Makes a provider for the corp `auth_corp_id`, which has installed the suite. `suite_key` and `suite_secret` are
    /// from the app's page in the developer console.
    pub fn new(
        suite_key: impl Into<String>,
        suite_secret: impl Into<Secret>,
        auth_corp_id: impl Into<String>,
    ) -> DingTalkAuthorizedCorp {
        DingTalkAuthorizedCorp { suite: Suite::new(suite_key, suite_secret), corp_id: auth_corp_id.into() }
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://api.dingtalk.com`.
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
