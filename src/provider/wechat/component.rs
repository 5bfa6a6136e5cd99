//! WeChat (微信): the `component_access_token` of a third-party platform.

use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::settings::check_texts;
use crate::provider::wechat::{API_ERRORS, COMPONENT_REJECTIONS, DEFAULT_BASE_URL, ERRORS, TICKET_REQUIRED, profile};
use crate::provider::{
    Context, Grant, Profile, Provider, RenewalProfile, ServiceResponse, TokenPlacement, Verdict, parse_grant_fields,
};
use crate::secret::Secret;

/// Fetches the `component_access_token` of a third-party platform (第三方平台)
/// (`POST /cgi-bin/component/api_component_token` with `component_appid`, `component_appsecret` and
/// `component_verify_ticket`).
///
/// The token is for the platform's own calls: `api_create_preauthcode`, `api_query_auth`, and the tokens of
/// [authorized accounts](crate::provider::wechat::WeChatAuthorizer). Services take the token as the query parameter
/// `component_access_token`.
///
/// WeChat pushes a `component_verify_ticket` to the platform's callback every ten minutes; a ticket is valid for 12
/// hours (documentation of the Open Platform). The program passes each ticket to
/// [`set_ticket`](crate::TokenManager::set_ticket). With a shared [`Store`](crate::store::Store) one process that
/// receives the callback serves all. Without a ticket, or with one older than 12 hours, a fetch fails with
/// [`ErrorKind::TicketRequired`](crate::ErrorKind::TicketRequired) and sends no request. When no ticket arrives at all,
/// call `api_start_push_ticket` once; the pushes then start again.
///
/// - *Lifetime*: 7200 s. WeChat advises a refresh after 1 h 50 min, and the manager refreshes 10 minutes ahead. WeChat
///   does not document what a second request returns.
/// - *Refused* with `errcode` 40001, 40014 or 42001.
/// - The ticket belongs to the platform: a new secret does not make it invalid.
///
/// ```
/// use evertoken::TokenManager;
/// use evertoken::provider::wechat::WeChatComponent;
///
/// let platform = TokenManager::new(WeChatComponent::new("wx1234567890abcdef", "component-secret"));
/// platform.set_ticket("verify-ticket-from-the-callback")?;
/// # Ok::<(), evertoken::Error>(())
/// ```
#[doc(alias = "component_access_token")]
#[doc(alias = "component_verify_ticket")]
#[derive(Clone, Debug)]
pub struct WeChatComponent {
    appid: String,
    secret: Secret,
    base_url: BaseUrl,
}

impl WeChatComponent {
    /// Makes a provider for one platform. `component_appid` and `secret` are AppID and AppSecret of the third-party
    /// platform in the Open Platform console.
    pub fn new(component_appid: impl Into<String>, secret: impl Into<Secret>) -> WeChatComponent {
        WeChatComponent {
            appid: component_appid.into(),
            secret: secret.into(),
            base_url: BaseUrl::new(DEFAULT_BASE_URL),
        }
    }

    /// Sets another base URL: a host of another region, a relay or a test. Default: `https://api.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeChatComponent {
        WeChatComponent { base_url: BaseUrl::new(url), ..self }
    }

    /// Returns the identity of the platform without its secret, under which the ticket is stored.
    fn app_identity(&self) -> Identity {
        Identity::new(NAME).part("url", self.base_url.as_str()).part("component", &self.appid)
    }

    fn request_token(&self, context: &Context) -> Result<Grant, Error> {
        let ticket = context.renewal_secret().ok_or_else(|| Error::new(ErrorKind::TicketRequired, TICKET_REQUIRED))?;
        let body = Body {
            component_appid: &self.appid,
            component_appsecret: self.secret.expose(),
            component_verify_ticket: ticket.expose(),
        };
        let url = self.base_url.join("/cgi-bin/component/api_component_token");
        let reply = context.http().post_json(&url, &body).send()?;
        parse_grant_fields(ERRORS.accept(&reply, &[&self.secret, ticket])?, "component_access_token", "expires_in")
    }
}

#[derive(Serialize)]
struct Body<'a> {
    component_appid: &'a str,
    component_appsecret: &'a str,
    component_verify_ticket: &'a str,
}

impl Provider for WeChatComponent {
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
        check_texts(&[("component's appid", &self.appid), ("component's appsecret", self.secret.expose())])
            .and_then(|()| self.base_url.check())
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        // WeChat advises a refresh after 1 h 50 min.
        profile().refresh_ahead(Duration::from_secs(600))
    }

    fn renewal(&self) -> Option<RenewalProfile> {
        // The identity of the ticket has no secret: a ticket stays valid when the platform's secret is reset.
        Some(RenewalProfile::ticket(self.app_identity(), TICKET_LIFETIME))
    }

    fn placement(&self) -> TokenPlacement {
        TokenPlacement::query("component_access_token")
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        API_ERRORS.verdict(response, COMPONENT_REJECTIONS)
    }
}

const NAME: &str = "wechat component";

/// The lifetime of a `component_verify_ticket`, from the Open Platform's documentation.
const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3600);
