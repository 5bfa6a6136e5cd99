//! DingTalk (钉钉): the `accessToken` of a suite, from `suiteAccessToken`, and the `suiteTicket` that it needs.

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

/// Fetches the `accessToken` of a suite, an app that other corps install (第三方企业应用)
/// (`POST https://api.dingtalk.com/v1.0/oauth2/suiteAccessToken` with `suiteKey`, `suiteSecret` and `suiteTicket`).
///
/// The token is for the calls that belong to the suite and not to one corp, in the header
/// `x-acs-dingtalk-access-token`. For calls in a corp use
/// [`DingTalkAuthorizedCorp`](crate::provider::dingtalk::DingTalkAuthorizedCorp).
///
/// DingTalk pushes a `suiteTicket` to the suite's callback about every five hours, and then no longer accepts the one
/// before. The program passes each ticket to [`set_ticket`](crate::TokenManager::set_ticket). With a shared
/// [`Store`](crate::store::Store) one process that receives the callback serves all managers of the suite and of its
/// corps. Without a ticket, or with one older than 12 hours, a fetch fails with [`ErrorKind::TicketRequired`] and sends
/// no request; so does one whose ticket DingTalk refuses (`invalidSuiteTicket`), after the request.
///
/// - *Lifetime*: 7200 s (`expireIn`). DingTalk does not document what a second request returns.
/// - *Refused* with HTTP 400 and `code` `InvalidAuthentication`.
/// - The ticket belongs to the suite: a new secret does not make it invalid.
///
/// ```
/// use evertoken::TokenManager;
/// use evertoken::provider::dingtalk::DingTalkSuite;
///
/// let suite = TokenManager::new(DingTalkSuite::new("suiteabc", "suite-secret"));
/// suite.set_ticket("suite-ticket-from-the-callback")?;
/// # Ok::<(), evertoken::Error>(())
/// ```
#[doc(alias = "suiteAccessToken")]
#[doc(alias = "suiteTicket")]
#[doc(alias = "suiteKey")]
#[derive(Clone, Debug)]
pub struct DingTalkSuite {
    suite: Suite,
}

/// The credential of a suite, and the host that grants its tokens.
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

    /// Returns the identity of the suite's tokens of one kind. `name` is the name of the provider.
    pub(super) fn identity(&self, name: &str) -> Identity {
        Identity::new(name).part("url", self.host.as_str()).part("suite", &self.key).secret(&self.secret)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        check_texts(&[("suite key", &self.key), ("suite secret", self.secret.expose())])
            .and_then(|()| self.host.check())
    }

    /// Returns the profile of the suite ticket, which the suite and all corps that have installed it share.
    pub(super) fn renewal(&self) -> RenewalProfile {
        // The identity of the ticket has no secret: a ticket stays valid when the suite's secret is reset, and the next
        // push may be hours away.
        let identity = Identity::new("dingtalk suite ticket").part("url", self.host.as_str()).part("suite", &self.key);
        RenewalProfile::ticket(identity, TICKET_LIFETIME)
    }
}

/// Returns the latest ticket.
pub(super) fn latest_ticket(context: &Context) -> Result<&Secret, Error> {
    context.renewal_secret().ok_or_else(|| Error::new(ErrorKind::TicketRequired, NO_TICKET))
}

impl DingTalkSuite {
    /// Makes a provider for one suite. `suite_key` and `suite_secret` are SuiteKey and SuiteSecret from the app's page
    /// in the developer console.
    pub fn new(suite_key: impl Into<String>, suite_secret: impl Into<Secret>) -> DingTalkSuite {
        DingTalkSuite { suite: Suite::new(suite_key, suite_secret) }
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://api.dingtalk.com`.
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

const NO_TICKET: &str = "there is no suite ticket, or the latest is older than 12 hours; pass the next one from the \
                         callback to `set_ticket`";

/// The time for which a ticket is used. DingTalk pushes one about every five hours, which ends the one before. Two are
/// due within twelve hours, so one push may be late; an older ticket has surely been replaced.
const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3600);
