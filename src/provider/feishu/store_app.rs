//! Feishu (飞书) and Lark: the `app_access_token` of a store app, for a pushed `app_ticket`.

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

/// Fetches the `app_access_token` of a store app (应用商店应用)
/// (`POST /open-apis/auth/v3/app_access_token` with `app_id`, `app_secret` and `app_ticket`).
///
/// The token is what [`FeishuTenant`](crate::provider::feishu::FeishuTenant) needs to fetch the `tenant_access_token`
/// of each company that has installed the app.
///
/// Feishu pushes an `app_ticket` event to the app's callback every hour. The program passes each ticket to
/// [`set_ticket`](crate::TokenManager::set_ticket). With a shared [`Store`](crate::store::Store) one process that
/// receives the callback serves all. When there is no ticket, or Feishu refuses the one there is (10012), the provider
/// asks Feishu for another push (`app_ticket/resend`), at most once a minute for all processes that share the
/// credential, and the fetch fails with [`ErrorKind::TicketRequired`](crate::ErrorKind::TicketRequired). The new ticket
/// arrives at the callback, not in the reply.
///
/// - *Lifetime*: at most 2 hours; `expire` is the time left. *A second request*: the crate expects the rule of
///   [`Feishu`](crate::Feishu), the same token while 30 minutes or more are left.
/// - *Refused* with HTTP 400 and `code` 99991664, 20014 or 99991671.
/// - The ticket belongs to the app: a new secret does not make it invalid. A ticket is used for at most 6 hours.
///
/// ```
/// use evertoken::TokenManager;
/// use evertoken::provider::feishu::FeishuStoreApp;
///
/// let app = TokenManager::new(FeishuStoreApp::new("cli_a1b2c3", "app-secret"));
/// app.set_ticket("app-ticket-from-the-event")?;
/// # Ok::<(), evertoken::Error>(())
/// ```
#[doc(alias = "app_access_token")]
#[doc(alias = "app_ticket")]
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
    /// Makes a provider for one app. `app_id` and `app_secret` are App ID and App Secret from 凭证与基础信息
    /// (Credentials & Basic Info) in the developer console.
    pub fn new(app_id: impl Into<String>, app_secret: impl Into<Secret>) -> FeishuStoreApp {
        FeishuStoreApp { app: App::new(app_id, app_secret, FEISHU_BASE_URL) }
    }

    /// Fetches from Lark, at `https://open.larksuite.com`, for an app that is registered there.
    #[must_use]
    pub fn lark(self) -> FeishuStoreApp {
        self.base_url(LARK_BASE_URL)
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://open.feishu.cn`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> FeishuStoreApp {
        FeishuStoreApp { app: self.app.with_host(url) }
    }

    fn request_token(&self, context: &Context) -> Result<Grant, Error> {
        // A request without a ticket would fail, and Feishu pushes the next one only within the hour.
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

    /// Asks Feishu to push a ticket to the callback. Returns `stale` with a cooldown, or the error of the request.
    ///
    /// The cooldown limits these requests: the manager fetches again after it, or as soon as a ticket is passed to
    /// `set_ticket`.
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
        // The identity of the ticket has no secret: a ticket stays valid when the app's secret is reset.
        let identity = Identity::new("feishu app ticket").part("url", self.app.host.as_str()).part("app", &self.app.id);
        Some(RenewalProfile::ticket(identity, TICKET_LIFETIME))
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response, APP_REJECTIONS)
    }
}

const NAME: &str = "feishu store app";

const NO_TICKET: &str =
    "there is no app ticket yet; Feishu was asked to push one: pass it from the callback to `set_ticket`";
const TICKET_REQUIRED: &str = "Feishu refused the app ticket, which is too old or of another app; Feishu was asked to \
                               push one: pass it from the callback to `set_ticket`";

/// 10012 means that Feishu grants no app token. For a store app the ticket is the cause.
const STORE_APP_RULES: &[ErrorRule] = &[("10012", ErrorKind::TicketRequired, TICKET_REQUIRED)];

/// The cooldown after a request for a push. A push takes seconds, and may get lost on its way to the program.
const RESEND_INTERVAL: Duration = Duration::from_secs(60);

/// The time for which a ticket is used. Feishu pushes one every hour and does not document how long one is valid.
/// Several pushes may get lost within this time; Feishu refuses a ticket that is too old, and the provider asks for
/// another.
const TICKET_LIFETIME: Duration = Duration::from_secs(6 * 3600);
