//! WeChat (微信): the `jsapi_ticket` for the JS-SDK, and the `wx_card` ticket for cards and coupons.

use crate::error::Error;
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::parent::Parent;
use crate::provider::wechat::{DEFAULT_BASE_URL, ERRORS, JS_TICKET_RULES, profile};
use crate::provider::{
    Context, Grant, Profile, Provider, ServiceResponse, TokenPlacement, Verdict, parse_grant_fields,
};
use crate::token::TokenSource;

/// Fetches the ticket that signs pages for WeChat's JS-SDK (`GET /cgi-bin/ticket/getticket` with `type=jsapi`), or
/// cards (`type=wx_card`).
///
/// The request carries an `access_token`, so this provider is built on the manager of an account.
/// [`js_signature`](crate::TokenManager::js_signature) signs the URL of a page with the ticket. The ticket itself is
/// sent nowhere: [`TokenPlacement::NotSent`].
///
/// - *Lifetime*: 7200 s. WeChat does not document what a second request returns.
/// - *Refused*: no service does. The browser shows `invalid signature`, and this crate learns nothing of it.
/// - *Limits*: "very limited" according to WeChat's JS-SDK page, without a number. Share one ticket between all
///   processes through one [`Store`](crate::store::Store).
///
/// ```no_run
/// use evertoken::{TokenManager, WeChat};
/// use evertoken::provider::wechat::WeChatJsTicket;
///
/// let account = TokenManager::new(WeChat::new("wx1234567890abcdef", "app-secret"));
/// let tickets = TokenManager::new(WeChatJsTicket::new(account.clone()));
/// let signature = tickets.js_signature("https://shop.example/checkout?id=7")?;
/// # Ok::<(), evertoken::Error>(())
/// ```
#[doc(alias = "jsapi_ticket")]
#[doc(alias = "getticket")]
#[doc(alias = "wx_card")]
#[derive(Clone, Debug)]
pub struct WeChatJsTicket {
    tokens: Parent,
    /// The `type` of the request.
    kind: &'static str,
    base_url: BaseUrl,
}

impl WeChatJsTicket {
    /// Makes a provider for the `jsapi_ticket`, which signs pages. `tokens` is the manager of the account.
    pub fn new(tokens: impl TokenSource) -> WeChatJsTicket {
        WeChatJsTicket::with_kind("jsapi", tokens)
    }

    /// Makes a provider for the `wx_card` ticket, which signs cards and coupons. Cards are signed in another way than
    /// pages, so take the ticket from [`token`](crate::TokenManager::token) and not `js_signature`.
    pub fn card(tokens: impl TokenSource) -> WeChatJsTicket {
        WeChatJsTicket::with_kind("wx_card", tokens)
    }

    fn with_kind(kind: &'static str, tokens: impl TokenSource) -> WeChatJsTicket {
        WeChatJsTicket { tokens: Parent::new(tokens), kind, base_url: BaseUrl::new(DEFAULT_BASE_URL) }
    }

    /// Sets another base URL: a host of another region, a relay or a test. Default: `https://api.weixin.qq.com`.
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

    /// Accepts every response: a ticket is not sent to a service, so no response is about it.
    fn verdict(&self, _: &ServiceResponse<'_>) -> Verdict {
        Verdict::Accepted
    }
}

const NAME: &str = "wechat js ticket";
