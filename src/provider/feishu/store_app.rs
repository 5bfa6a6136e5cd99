//! Feishu and Lark: the app token of an app that is offered in the store.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::http::Http;
use crate::key::Identity;
use crate::provider::errors::ErrorRule;
use crate::provider::feishu::{
    APP_REJECTIONS, App, AppCredentials, ERRORS, FEISHU_BASE_URL, LARK_BASE_URL, post, profile, verdict,
};
use crate::provider::{
    Context, Grant, Profile, Provider, RenewalProfile, ServiceResponse, Verdict, parse_grant_fields,
};
use crate::secret::Secret;

/// Grants the app token of a store app (应用商店应用), for the ticket that Feishu pushes to the app.
///
/// With it [`FeishuTenant`](crate::provider::feishu::FeishuTenant) gets the token of each company that has installed the app.
///
/// Feishu pushes the ticket as an `app_ticket` event, every hour. The program hands it in with
/// [`set_ticket`](crate::TokenManager::set_ticket) each time one comes. When there is none, or Feishu no longer takes
/// it, Feishu is asked to push another at once, and the error is [`ErrorKind::TicketRequired`] until that has been handed
/// in. It is asked once a minute at most, for all that share the credential.
///
/// ```
/// use evertoken::provider::feishu::FeishuStoreApp;
///
/// let provider = FeishuStoreApp::new("cli_a1b2c3", "app-secret");
/// assert!(!format!("{provider:?}").contains("app-secret"));
/// ```
#[derive(Clone, Debug)]
pub struct FeishuStoreApp {
    app: App,
}

#[derive(serde::Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    app: AppCredentials<'a>,
    app_ticket: &'a str,
}

impl FeishuStoreApp {
    /// The app `app_id`.
    pub fn new(app_id: impl Into<String>, app_secret: impl Into<Secret>) -> FeishuStoreApp {
        FeishuStoreApp { app: App::new(app_id, app_secret, FEISHU_BASE_URL) }
    }

    /// The app is one of Lark, and `https://open.larksuite.com` is asked.
    #[must_use]
    pub fn lark(self) -> FeishuStoreApp {
        self.base_url(LARK_BASE_URL)
    }

    /// Asks another host, for a private deployment or a test. Default: `https://open.feishu.cn`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> FeishuStoreApp {
        FeishuStoreApp { app: self.app.with_host(url) }
    }

    fn request_token(&self, context: &Context) -> Result<Grant, Error> {
        let Some(ticket) = context.renewal_secret() else {
            return Err(self.request_ticket_push(
                context.http(),
                Error::new(ErrorKind::TicketRequired, NO_TICKET),
                &[],
            ));
        };
        let body = Body { app: self.app.credentials(), app_ticket: ticket.expose() };
        let reply = post(context.http(), &self.app.host, "/open-apis/auth/v3/app_access_token", &body)?;
        match ERRORS.accept_with_rules(STORE_APP_RULES, &reply, &[&self.app.secret, ticket]) {
            Ok(json) => parse_grant_fields(json, "app_access_token", "expire"),
            Err(error) if error.kind() == ErrorKind::TicketRequired => {
                Err(self.request_ticket_push(context.http(), error, &[ticket]))
            }
            Err(error) => Err(error),
        }
    }

    /// Asks Feishu to push a ticket: the reply has none. What is returned is `stale`, or what kept Feishu from it. The
    /// manager keeps the pause, and ends it when a ticket is handed in, so nobody asks again within it.
    fn request_ticket_push(&self, http: &Http, stale: Error, sent: &[&Secret]) -> Error {
        let secrets = [sent, &[&self.app.secret]].concat();
        let asked = self.app.post_credentials(http, "/open-apis/auth/v3/app_ticket/resend");
        match asked.and_then(|reply| ERRORS.accept(&reply, &secrets)) {
            Ok(_) => stale.with_retry_after(RESEND_INTERVAL),
            Err(error) => error,
        }
    }
}

impl Provider for FeishuStoreApp {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        self.app.identity(NAME)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        self.app.check(NAME)
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn renewal(&self) -> Option<RenewalProfile> {
        // Without the secret: a ticket is pushed to the app, and stays good when the secret is reset.
        let identity = Identity::new("feishu app ticket").part("url", self.app.host.as_str()).part("app", &self.app.id);
        Some(RenewalProfile::ticket(identity, TICKET_LIFETIME))
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response, APP_REJECTIONS)
    }
}

const NAME: &str = "feishu store app";

const NO_TICKET: &str = "there is no app ticket yet; Feishu was asked to push one: hand it in with `set_ticket` from the \
                       callback";
const TICKET_REQUIRED: &str = "the app ticket is not taken any more, or is that of another app; Feishu was asked to push one: \
                     hand it in with `set_ticket` from the callback";

/// "The app token could not be obtained": for a store app it is the ticket.
const STORE_APP_RULES: &[ErrorRule] = &[("10012", ErrorKind::TicketRequired, TICKET_REQUIRED)];

/// A push takes seconds, and its callback may get lost.
const RESEND_INTERVAL: Duration = Duration::from_secs(60);

/// One comes every hour, and nothing says that it dies before the next one is there. Some may get lost on the way; if
/// one is too old after all, Feishu says so and pushes another.
const TICKET_LIFETIME: Duration = Duration::from_secs(6 * 3600);
