//! The token of a component, which is how a third-party platform is called at WeChat's Open Platform.

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

/// Grants the `component_access_token` of a third-party platform (`/cgi-bin/component/api_component_token`).
///
/// WeChat pushes a `component_verify_ticket` to the platform's callback every ten minutes, good for twelve hours, and
/// grants the token for it. Hand each one in with [`set_ticket`](crate::TokenManager::set_ticket). While there is none
/// that is young enough the answer is [`ErrorKind::TicketRequired`](crate::ErrorKind::TicketRequired), and WeChat is not
/// asked. When no ticket comes at all, a call of `api_start_push_ticket` starts the pushes again.
///
/// ```
/// use evertoken::provider::Provider;
/// use evertoken::provider::wechat::WeChatComponent;
///
/// let provider = WeChatComponent::new("wx1234567890abcdef", "component-secret");
/// assert!(provider.check().is_ok() && !format!("{provider:?}").contains("component-secret"));
/// ```
#[derive(Clone, Debug)]
pub struct WeChatComponent {
    appid: String,
    secret: Secret,
    base_url: BaseUrl,
}

impl WeChatComponent {
    /// The component `component_appid` that `secret` belongs to.
    pub fn new(component_appid: impl Into<String>, secret: impl Into<Secret>) -> WeChatComponent {
        WeChatComponent {
            appid: component_appid.into(),
            secret: secret.into(),
            base_url: BaseUrl::new(DEFAULT_BASE_URL),
        }
    }

    /// Asks another host: of another region, a relay or a test. Default: `https://api.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeChatComponent {
        WeChatComponent { base_url: BaseUrl::new(url), ..self }
    }

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
        // WeChat advises to renew it after an hour and fifty minutes.
        profile().refresh_ahead(Duration::from_secs(600))
    }

    fn renewal(&self) -> Option<RenewalProfile> {
        // Without the secret: a ticket is the app's, and stays good when the secret is reset.
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

const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3600);
