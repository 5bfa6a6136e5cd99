//! The token of a suite, which is how a service provider's app is called at WeCom.

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

/// Grants the `suite_access_token` of a service provider's app (`/cgi-bin/service/get_suite_token`).
///
/// WeCom pushes a `suite_ticket` to the app's callback every ten minutes, good for thirty, and grants the token for it.
/// Hand each one in with [`set_ticket`](crate::TokenManager::set_ticket). While there is none that is young enough the
/// answer is [`ErrorKind::TicketRequired`](crate::ErrorKind::TicketRequired), and WeCom is not asked.
///
/// ```
/// use evertoken::provider::Provider;
/// use evertoken::provider::wecom::WeComSuite;
///
/// let provider = WeComSuite::new("wwddddccc7775555aaa", "suite-secret");
/// assert!(provider.check().is_ok() && !format!("{provider:?}").contains("suite-secret"));
/// ```
#[derive(Clone, Debug)]
pub struct WeComSuite {
    suite_id: String,
    secret: Secret,
    base_url: BaseUrl,
}

impl WeComSuite {
    /// The suite `suite_id` that `suite_secret` belongs to.
    pub fn new(suite_id: impl Into<String>, suite_secret: impl Into<Secret>) -> WeComSuite {
        WeComSuite { suite_id: suite_id.into(), secret: suite_secret.into(), base_url: BaseUrl::new(DEFAULT_BASE_URL) }
    }

    /// Asks another host, for a private deployment or a test. Default: `https://qyapi.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeComSuite {
        WeComSuite { base_url: BaseUrl::new(url), ..self }
    }

    fn app_identity(&self) -> Identity {
        Identity::new(NAME).part("url", self.base_url.as_str()).part("suite", &self.suite_id)
    }

    fn request_token(&self, context: &Context) -> Result<Grant, Error> {
        let ticket = context.renewal_secret().ok_or_else(|| Error::new(ErrorKind::TicketRequired, TICKET_REQUIRED))?;
        let body = Body { suite_id: &self.suite_id, suite_secret: self.secret.expose(), suite_ticket: ticket.expose() };
        let reply = context.http().post_json(&self.base_url.join("/cgi-bin/service/get_suite_token"), &body).send()?;
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
        // Without the secret: a ticket is the app's, and stays good when the secret is reset.
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

const TICKET_LIFETIME: Duration = Duration::from_secs(30 * 60);
