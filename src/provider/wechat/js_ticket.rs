//! The tickets with which pages are signed that call WeChat's JavaScript interface.

use crate::error::Error;
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::parent::Parent;
use crate::provider::wechat::{DEFAULT_BASE_URL, ERRORS, JS_TICKET_RULES, profile};
use crate::provider::{
    Context, Grant, Profile, Provider, ServiceResponse, TokenPlacement, Verdict, parse_grant_fields,
};
use crate::token::TokenSource;

/// Grants the ticket that signs pages for WeChat's JavaScript interface (`/cgi-bin/ticket/getticket`).
///
/// It is granted for an access token, so it is built on the manager of an account.
/// [`js_signature`](crate::TokenManager::js_signature) signs a page with it; it goes with no request. WeChat allows few
/// calls for it, so let all processes share one, by one [`Store`](crate::store::Store).
///
/// ```
/// use evertoken::{TokenManager, WeChat};
/// use evertoken::provider::wechat::WeChatJsTicket;
///
/// let account = TokenManager::new(WeChat::new("wx1234567890abcdef", "app-secret"));
/// let tickets = TokenManager::new(WeChatJsTicket::new(account.clone()));
/// ```
#[derive(Clone, Debug)]
pub struct WeChatJsTicket {
    tokens: Parent,
    /// What WeChat calls the kind of ticket.
    kind: &'static str,
    base_url: BaseUrl,
}

impl WeChatJsTicket {
    /// The ticket that signs pages (`jsapi`). `tokens` gives the access token of the account.
    pub fn new(tokens: impl TokenSource) -> WeChatJsTicket {
        WeChatJsTicket::with_kind("jsapi", tokens)
    }

    /// The ticket that signs cards and coupons (`wx_card`). These are signed in another way than pages, so take the
    /// ticket with [`token`](crate::TokenManager::token), and not `js_signature`.
    pub fn card(tokens: impl TokenSource) -> WeChatJsTicket {
        WeChatJsTicket::with_kind("wx_card", tokens)
    }

    fn with_kind(kind: &'static str, tokens: impl TokenSource) -> WeChatJsTicket {
        WeChatJsTicket { tokens: Parent::new(tokens), kind, base_url: BaseUrl::new(DEFAULT_BASE_URL) }
    }

    /// Asks another host: of another region, a relay or a test. Default: `https://api.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeChatJsTicket {
        WeChatJsTicket { base_url: BaseUrl::new(url), ..self }
    }

    fn request_token(&self, context: &Context) -> Result<Grant, Error> {
        let token = context.parent()?;
        let reply = context
            .http()
            .get(&self.base_url.join("/cgi-bin/ticket/getticket"))
            .query("access_token", token.expose())
            .query("type", self.kind)
            .send()?;
        parse_grant_fields(
            ERRORS.accept_with_rules(JS_TICKET_RULES, &reply, &[token.secret()])?,
            "ticket",
            "expires_in",
        )
    }
}

impl Provider for WeChatJsTicket {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        Identity::new(NAME)
            .part("url", self.base_url.as_str())
            .part("parent", self.tokens.fingerprint())
            .part("kind", self.kind)
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

const NAME: &str = "wechat js ticket";
