//! DingTalk: the token of a suite, which is an app that others install.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::dingtalk::{API_BASE_URL, accept, header_placement, suite_profile, verdict};
use crate::provider::settings::check_texts;
use crate::provider::{
    Context, Grant, Profile, Provider, RenewalProfile, ServiceResponse, TokenPlacement, Verdict, parse_grant_fields,
};
use crate::secret::Secret;

/// Grants the token of a suite (第三方企业应用), for the ticket that DingTalk pushes to it.
///
/// DingTalk pushes the ticket about every five hours, and then no longer takes the one before. The program hands it in
/// with [`set_ticket`](crate::TokenManager::set_ticket) each time one comes. Without one, and with one that DingTalk no
/// longer takes, the error is [`ErrorKind::TicketRequired`]. In a shared store the ticket is that of all managers of the
/// suite: those of [`DingTalkAuthorizedCorp`](crate::provider::dingtalk::DingTalkAuthorizedCorp) too.
///
/// ```
/// use evertoken::provider::dingtalk::DingTalkSuite;
///
/// let provider = DingTalkSuite::new("suiteabc", "suite-secret");
/// assert!(!format!("{provider:?}").contains("suite-secret"));
/// ```
#[derive(Clone, Debug)]
pub struct DingTalkSuite {
    suite: Suite,
}

/// A suite, and where it is registered.
#[derive(Clone, Debug)]
pub(super) struct Suite {
    pub(super) key: String,
    pub(super) secret: Secret,
    pub(super) host: BaseUrl,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    suite_key: &'a str,
    suite_secret: &'a str,
    suite_ticket: &'a str,
}

impl Suite {
    pub(super) fn new(key: impl Into<String>, secret: impl Into<Secret>) -> Suite {
        Suite { key: key.into(), secret: secret.into(), host: BaseUrl::new(API_BASE_URL) }
    }

    pub(super) fn with_host(self, url: impl Into<String>) -> Suite {
        Suite { host: BaseUrl::new(url), ..self }
    }

    /// Whose tokens those of the kind `name` are.
    pub(super) fn identity(&self, name: &str) -> Identity {
        Identity::new(name).part("url", self.host.as_str()).part("suite", &self.key).secret(&self.secret)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        check_texts(&[("suite key", &self.key), ("suite secret", self.secret.expose())])
            .and_then(|()| self.host.check())
    }

    /// The ticket that is pushed to the suite, one for all the corps that have installed it.
    pub(super) fn renewal(&self) -> RenewalProfile {
        // Without the secret: a ticket is pushed to the suite, and stays good when the secret is reset. The next one may
        // be hours away.
        let identity = Identity::new("dingtalk suite ticket").part("url", self.host.as_str()).part("suite", &self.key);
        RenewalProfile::ticket(identity, TICKET_LIFETIME)
    }
}

/// The latest ticket.
pub(super) fn latest_ticket(context: &Context) -> Result<&Secret, Error> {
    context.renewal_secret().ok_or_else(|| Error::new(ErrorKind::TicketRequired, NO_TICKET))
}

impl DingTalkSuite {
    /// The suite `suite_key`.
    pub fn new(suite_key: impl Into<String>, suite_secret: impl Into<Secret>) -> DingTalkSuite {
        DingTalkSuite { suite: Suite::new(suite_key, suite_secret) }
    }

    /// Asks another host, for a private deployment or a test. Default: `https://api.dingtalk.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> DingTalkSuite {
        DingTalkSuite { suite: self.suite.with_host(url) }
    }

    fn request_token(&self, context: &Context) -> Result<Grant, Error> {
        let Suite { key, secret, host } = &self.suite;
        let ticket = latest_ticket(context)?;
        let body = Body { suite_key: key, suite_secret: secret.expose(), suite_ticket: ticket.expose() };
        let reply = context.http().post_json(&host.join("/v1.0/oauth2/suiteAccessToken"), &body).send()?;
        parse_grant_fields(accept(&reply, &[secret, ticket])?, "accessToken", "expireIn")
    }
}

impl Provider for DingTalkSuite {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        self.suite.identity(NAME)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        self.suite.check().map_err(|error| error.of(NAME))
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

const NAME: &str = "dingtalk suite";

const NO_TICKET: &str =
    "there is no suite ticket, or it is too old; hand in the next one with `set_ticket` from the callback";

/// One comes about every five hours, and ends the one before. Within twelve hours two are due, so that one may be late;
/// what is older has surely been replaced.
const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3600);
