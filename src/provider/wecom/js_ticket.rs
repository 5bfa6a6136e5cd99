//! WeCom (企业微信): the `jsapi_ticket` of a corp or of an app, with which pages for the JS-SDK are signed.

use crate::error::Error;
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::parent::Parent;
use crate::provider::wecom::{DEFAULT_BASE_URL, ERRORS, JS_TICKET_RULES, LIFETIME, profile};
use crate::provider::{
    Context, Grant, Profile, Provider, ServiceResponse, TokenPlacement, Verdict, parse_grant_fields,
};
use crate::token::TokenSource;

/// Fetches the `jsapi_ticket` that signs pages for WeCom's JS-SDK: the ticket of a corp
/// (`GET /cgi-bin/get_jsapi_ticket`, for `wx.config`) or of an app (`GET /cgi-bin/ticket/get?type=agent_config`, for
/// `wx.agentConfig`).
///
/// The request carries an `access_token`, so this provider is built on the manager of an app.
/// [`js_signature`](crate::TokenManager::js_signature) signs the URL of a page with the ticket. The ticket itself is
/// sent nowhere: [`TokenPlacement::NotSent`].
///
/// - *Lifetime*: 7200 s. A second request returns the same ticket, with `expires_in` 7200 whatever is left (reported by
///   users).
/// - *Refused*: no service refuses a ticket. The browser shows `invalid signature`, which this crate cannot see. So a
///   ticket is fetched again after half of its lifetime; that bounds how long a replaced ticket stays in use.
/// - *Limits*: 400 requests per hour and corp, 100 per hour and app (WeCom's page [96909][page]). A ticket of one app
///   is useless for another (42012, 91040).
///
/// [page]: https://developer.work.weixin.qq.com/document/path/96909
///
/// ```no_run
/// use evertoken::{TokenManager, WeCom};
/// use evertoken::provider::wecom::WeComJsTicket;
///
/// let app = TokenManager::new(WeCom::new("ww1234567890abcdef", "app-secret"));
/// let tickets = TokenManager::new(WeComJsTicket::corp(app.clone()));
/// let signature = tickets.js_signature("https://shop.example/checkout?id=7")?;
/// # Ok::<(), evertoken::Error>(())
/// ```
#[doc(alias = "jsapi_ticket")]
#[doc(alias = "get_jsapi_ticket")]
#[derive(Clone, Debug)]
pub struct WeComJsTicket {
    tokens: Parent,
    kind: TicketKind,
    base_url: BaseUrl,
}

/// The two tickets. A signature made with one is invalid for the other.
#[derive(Clone, Copy, Debug)]
enum TicketKind {
    Corp,
    Agent,
}

impl WeComJsTicket {
    /// Makes a provider for the ticket of the corp, for `wx.config`. `tokens` is the manager of any app of the corp.
    pub fn corp(tokens: impl TokenSource) -> WeComJsTicket {
        WeComJsTicket::with_kind(TicketKind::Corp, tokens)
    }

    /// Makes a provider for the ticket of one app (`agent_config`), for `wx.agentConfig`. `tokens` is the manager of
    /// that app.
    pub fn agent(tokens: impl TokenSource) -> WeComJsTicket {
        WeComJsTicket::with_kind(TicketKind::Agent, tokens)
    }

    fn with_kind(kind: TicketKind, tokens: impl TokenSource) -> WeComJsTicket {
        WeComJsTicket { tokens: Parent::new(tokens), kind, base_url: BaseUrl::new(DEFAULT_BASE_URL) }
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://qyapi.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeComJsTicket {
        WeComJsTicket { base_url: BaseUrl::new(url), ..self }
    }

    fn request_token(&self, context: &Context) -> Result<Grant, Error> {
        let token = context.parent()?;
        let request = |path| context.http().get(&self.base_url.join(path)).query("access_token", token.expose());
        let request = match self.kind {
            TicketKind::Corp => request("/cgi-bin/get_jsapi_ticket"),
            TicketKind::Agent => request("/cgi-bin/ticket/get").query("type", "agent_config"),
        };
        let json = ERRORS.accept_with_rules(JS_TICKET_RULES, &request.send()?, &[token.secret()])?;
        let grant = parse_grant_fields(json, "ticket", "expires_in")?;
        // `expires_in` is 7200 however old the ticket is, and no service reports a ticket that has expired. A second
        // fetch halfway through the lifetime shortens most the time during which an expired ticket may be in use.
        let halfway = grant.lifetime().unwrap_or(LIFETIME) / 2;
        Ok(grant.with_refresh_in(halfway))
    }
}

impl Provider for WeComJsTicket {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        let owner = match self.kind {
            TicketKind::Corp => "corp",
            TicketKind::Agent => "agent",
        };
        Identity::new(NAME)
            .part("url", self.base_url.as_str())
            .part("parent", self.tokens.fingerprint())
            .part("owner", owner)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        self.base_url.check().map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn parent(&self) -> Option<&dyn TokenSource> {
        Some(self.tokens.source())
    }

    fn placement(&self) -> TokenPlacement {
        TokenPlacement::NotSent
    }

    /// Accepts every response: a ticket is not sent to a service, so no response is about it.
    fn verdict(&self, _: &ServiceResponse<'_>) -> Verdict {
        Verdict::Accepted
    }
}

const NAME: &str = "wecom js ticket";
