//! WeCom (企业微信): the `suite_access_token` of a third-party app, from `get_suite_token`.

use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::settings::check_texts;
use crate::provider::wecom::{DEFAULT_BASE_URL, ERRORS, SUITE_REJECTIONS, SUITE_RULES, TICKET_REQUIRED, profile};
use crate::provider::{
    Context, Grant, Profile, Provider, RenewalProfile, ServiceResponse, TokenPlacement, Verdict, parse_grant_fields,
};
use crate::secret::Secret;

/// Fetches the `suite_access_token` of a suite, a third-party app (第三方应用) of a service provider
/// (`POST /cgi-bin/service/get_suite_token` with `suite_id`, `suite_secret` and `suite_ticket`).
///
/// The token is for the calls that belong to the suite and not to one corp: `get_pre_auth_code`, `get_permanent_code`,
/// and the tokens of [authorized corps](crate::provider::wecom::WeComAuthorizedCorp). Services take it as the query
/// parameter `suite_access_token`.
///
/// WeCom pushes a `suite_ticket` to the suite's callback every ten minutes; a ticket is valid for 30 minutes (page
/// [90628][page]). The program passes each ticket to [`set_ticket`](crate::TokenManager::set_ticket). With a shared
/// [`Store`](crate::store::Store) one process that receives the callback serves all. Without a ticket, or with one
/// older than 30 minutes, a fetch fails with [`ErrorKind::TicketRequired`](crate::ErrorKind::TicketRequired) and sends
/// no request.
///
/// - *Lifetime*: 7200 s. The crate expects a second request to return the same token, as from `gettoken`.
/// - *Refused* with `errcode` 40082 or 42009.
/// - The ticket belongs to the suite: a new secret does not make it invalid.
///
/// [page]: https://developer.work.weixin.qq.com/document/path/90628
///
/// ```
/// use evertoken::TokenManager;
/// use evertoken::provider::wecom::WeComSuite;
///
/// let suite = TokenManager::new(WeComSuite::new("wwddddccc7775555aaa", "suite-secret"));
/// suite.set_ticket("suite-ticket-from-the-callback")?;
/// # Ok::<(), evertoken::Error>(())
/// ```
#[doc(alias = "suite_access_token")]
#[doc(alias = "suite_ticket")]
#[doc(alias = "get_suite_token")]
#[derive(Clone, Debug)]
pub struct WeComSuite {
    suite_id: String,
    secret: Secret,
    base_url: BaseUrl,
}

impl WeComSuite {
    /// Makes a provider for one suite. `suite_id` and `suite_secret` are on the suite's page in the service provider
    /// console.
    pub fn new(suite_id: impl Into<String>, suite_secret: impl Into<Secret>) -> WeComSuite {
        WeComSuite { suite_id: suite_id.into(), secret: suite_secret.into(), base_url: BaseUrl::new(DEFAULT_BASE_URL) }
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://qyapi.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeComSuite {
        WeComSuite { base_url: BaseUrl::new(url), ..self }
    }

    /// Returns the identity of the suite without its secret, under which the ticket is stored.
    fn app_identity(&self) -> Identity {
        Identity::new(NAME).part("url", self.base_url.as_str()).part("suite", &self.suite_id)
    }

    fn request_token(&self, context: &Context) -> Result<Grant, Error> {
        let ticket = context.renewal_secret().ok_or_else(|| Error::new(ErrorKind::TicketRequired, TICKET_REQUIRED))?;
        let body = Body { suite_id: &self.suite_id, suite_secret: self.secret.expose(), suite_ticket: ticket.expose() };
        let reply = context.http().post_json(&self.base_url.join("/cgi-bin/service/get_suite_token"), &body).send()?;
        // The reply has no `errcode` when it is a success.
        let json = ERRORS.accept_with_rules(SUITE_RULES, &reply, &[&self.secret, ticket])?;
        parse_grant_fields(json, "suite_access_token", "expires_in")
    }
}

#[derive(Serialize)]
struct Body<'a> {
    suite_id: &'a str,
    suite_secret: &'a str,
    suite_ticket: &'a str,
}

impl Provider for WeComSuite {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        self.app_identity().secret(&self.secret)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        check_texts(&[("suite id", &self.suite_id), ("suite secret", self.secret.expose())])
            .and_then(|()| self.base_url.check())
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn renewal(&self) -> Option<RenewalProfile> {
        // The identity of the ticket has no secret: a ticket stays valid when the suite's secret is reset.
        Some(RenewalProfile::ticket(self.app_identity(), TICKET_LIFETIME))
    }

    fn placement(&self) -> TokenPlacement {
        TokenPlacement::query("suite_access_token")
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        ERRORS.verdict(response, SUITE_REJECTIONS)
    }
}

const NAME: &str = "wecom suite";

/// The lifetime of a `suite_ticket` (page 90628 of WeCom's documentation).
const TICKET_LIFETIME: Duration = Duration::from_secs(30 * 60);
