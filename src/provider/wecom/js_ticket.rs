//! The tickets with which pages are signed that call WeCom's JavaScript interface.

use crate::error::Error;
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::parent::Parent;
use crate::provider::wecom::{DEFAULT_BASE_URL, ERRORS, JS_TICKET_RULES, LIFETIME, profile};
use crate::provider::{
    Context, Grant, Profile, Provider, ServiceResponse, TokenPlacement, Verdict, parse_grant_fields,
};
use crate::token::TokenSource;

/// Grants the ticket that signs pages for WeCom's JavaScript interface: of the corp (`/cgi-bin/get_jsapi_ticket`) or of
/// an app (`/cgi-bin/ticket/get`).
///
/// It is granted for an access token, so it is built on the manager of an app.
/// [`js_signature`](crate::TokenManager::js_signature) signs a page with it; it goes with no request. WeCom never tells
/// that a ticket is refused, the browser does ("invalid signature"), so each is asked about again halfway through its
/// lifetime.
///
/// ```
/// use evertoken::{TokenManager, WeCom};
/// use evertoken::provider::wecom::WeComJsTicket;
///
/// let app = TokenManager::new(WeCom::new("ww1234567890abcdef", "app-secret"));
/// let tickets = TokenManager::new(WeComJsTicket::corp(app.clone()));
/// ```
#[derive(Clone, Debug)]
pub struct WeComJsTicket {
    tokens: Parent,
    kind: TicketKind,
    base_url: BaseUrl,
}

/// Whose ticket it is. That of one owner does not open what is the other's.
#[derive(Clone, Copy, Debug)]
enum TicketKind {
    Corp,
    Agent,
}

impl WeComJsTicket {
    /// The ticket of the corp, for `wx.config`. `tokens` gives the access token of an app of the corp.
    pub fn corp(tokens: impl TokenSource) -> WeComJsTicket {
        WeComJsTicket::with_kind(TicketKind::Corp, tokens)
    }

    /// The ticket of the app whose access token `tokens` gives, for `wx.agentConfig`. No other app can use it.
    pub fn agent(tokens: impl TokenSource) -> WeComJsTicket {
        WeComJsTicket::with_kind(TicketKind::Agent, tokens)
    }

    fn with_kind(kind: TicketKind, tokens: impl TokenSource) -> WeComJsTicket {
        WeComJsTicket { tokens: Parent::new(tokens), kind, base_url: BaseUrl::new(DEFAULT_BASE_URL) }
    }

    /// Asks another host, for a private deployment or a test. Default: `https://qyapi.weixin.qq.com`.
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
        // The lifetime is told as 7200 s however old the ticket is, and nobody tells when it is refused. One more look,
        // halfway, is where it shortens most the time that a ticket is used beyond its end.
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

    /// No answer is about a ticket, because none is sent.
    fn verdict(&self, _: &ServiceResponse<'_>) -> Verdict {
        Verdict::Accepted
    }
}

const NAME: &str = "wecom js ticket";
