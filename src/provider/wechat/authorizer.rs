//! WeChat (微信): the `authorizer_access_token` of an account that authorized a third-party platform.

use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::parent::Parent;
use crate::provider::settings::check_texts;
use crate::provider::wechat::{API_ERRORS, AUTHORIZER_RULES, DEFAULT_BASE_URL, ERRORS, REJECTIONS, profile};
use crate::provider::{
    Context, Grant, Profile, Provider, RenewalProfile, ServiceResponse, TokenPlacement, Verdict,
    parse_grant_with_renewal_secret,
};
use crate::secret::Secret;
use crate::token::TokenSource;

/// Fetches the `authorizer_access_token` of an account that authorized a third-party platform
/// (`POST /cgi-bin/component/api_authorizer_token` with `authorizer_appid` and `authorizer_refresh_token`).
///
/// The token is for the platform's calls on behalf of the account. Services take the token as the query parameter
/// `access_token`. The request carries a `component_access_token`, so this provider is built on a manager of a
/// [`WeChatComponent`](crate::provider::wechat::WeChatComponent).
///
/// The first `authorizer_refresh_token` comes from `api_query_auth`, when the account's owner has authorized the
/// platform. Each reply may bring another one, which replaces the one before; WeChat does not document how long one is
/// valid. The manager stores the new refresh token before callers get the access token. Keep it in a
/// [`Store`](crate::store::Store) that survives the program: a lost refresh token means that the owner has to authorize
/// again.
///
/// - *Lifetime*: 7200 s.
/// - *Refused* with `errcode` 40001, 40014, 42001 or 42007.
/// - *The owner withdraws the authorization*: 61003 or 61023,
///   [`ErrorKind::SignInRequired`](crate::ErrorKind::SignInRequired). After the owner has authorized again,
///   make a provider with the new refresh token; it takes the place of all earlier ones.
/// - *The component's token is refused*: this provider's manager rejects it at the component's manager and fetches once
///   more.
///
/// WeChat documents the request on the page of [`api_authorizer_token`][page].
///
/// [page]: https://developers.weixin.qq.com/doc/oplatform/openApi/ticket-token/api_getauthorizeraccesstoken.html
///
/// ```
/// use evertoken::TokenManager;
/// use evertoken::provider::wechat::{WeChatAuthorizer, WeChatComponent};
///
/// let platform = TokenManager::new(WeChatComponent::new("wxcomponent", "component-secret"));
/// let account = TokenManager::new(WeChatAuthorizer::new(platform.clone(), "wxcomponent", "wxaccount", "refresh-1"));
/// ```
#[doc(alias = "authorizer_access_token")]
#[doc(alias = "authorizer_refresh_token")]
#[derive(Clone, Debug)]
pub struct WeChatAuthorizer {
    component: Parent,
    component_appid: String,
    authorizer_appid: String,
    refresh_token: Secret,
    base_url: BaseUrl,
}

impl WeChatAuthorizer {
    /// Makes a provider for one account. `component` is the manager of the platform's token, and `component_appid` the
    /// platform's appid. `authorizer_appid` and `refresh_token` (`authorizer_refresh_token`) are what `api_query_auth`
    /// returned.
    pub fn new(
        component: impl TokenSource,
        component_appid: impl Into<String>,
        authorizer_appid: impl Into<String>,
        refresh_token: impl Into<Secret>,
    ) -> WeChatAuthorizer {
        WeChatAuthorizer {
            component: Parent::new(component),
            component_appid: component_appid.into(),
            authorizer_appid: authorizer_appid.into(),
            refresh_token: refresh_token.into(),
            base_url: BaseUrl::new(DEFAULT_BASE_URL),
        }
    }

    /// Sets another base URL: a host of another region, a relay or a test. Default: `https://api.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeChatAuthorizer {
        WeChatAuthorizer { base_url: BaseUrl::new(url), ..self }
    }

    /// Returns the identity of one authorization: the account, the platform, and the refresh token that it began with.
    fn authorization_identity(&self) -> Identity {
        Identity::new(NAME)
            .part("url", self.base_url.as_str())
            .part("component", &self.component_appid)
            .part("authorizer", &self.authorizer_appid)
            .secret(&self.refresh_token)
    }

    fn request_token(&self, context: &Context) -> Result<Grant, Error> {
        let component = context.parent()?;
        let refresh_token =
            context.renewal_secret().ok_or_else(|| Error::new(ErrorKind::SignInRequired, NO_REFRESH_TOKEN))?;
        let body = Body {
            component_appid: &self.component_appid,
            authorizer_appid: &self.authorizer_appid,
            authorizer_refresh_token: refresh_token.expose(),
        };
        let reply = context
            .http()
            .post_json(&self.base_url.join("/cgi-bin/component/api_authorizer_token"), &body)
            // Older pages and the SDKs of others name the parameter so; the current page names it `access_token`.
            .query("component_access_token", component.expose())
            .send()?;
        let json = ERRORS.accept_with_rules(AUTHORIZER_RULES, &reply, &[component.secret(), refresh_token])?;
        parse_grant_with_renewal_secret(json, "authorizer_access_token", "expires_in", "authorizer_refresh_token")
    }
}

#[derive(Serialize)]
struct Body<'a> {
    component_appid: &'a str,
    authorizer_appid: &'a str,
    authorizer_refresh_token: &'a str,
}

impl Provider for WeChatAuthorizer {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        self.authorization_identity().part("parent", self.component.fingerprint())
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        check_texts(&[
            ("component's appid", &self.component_appid),
            ("account's appid", &self.authorizer_appid),
            ("refresh token", self.refresh_token.expose()),
        ])
        .and_then(|()| self.base_url.check())
        .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        profile()
    }

    fn parent(&self) -> Option<&dyn TokenSource> {
        Some(self.component.source())
    }

    fn renewal(&self) -> Option<RenewalProfile> {
        // The identity has no parent's fingerprint: a component with a new secret is another parent, and the present
        // refresh token must be found after such a change.
        Some(RenewalProfile::refresh_token(self.authorization_identity(), &self.refresh_token))
    }

    fn placement(&self) -> TokenPlacement {
        TokenPlacement::query("access_token")
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        API_ERRORS.verdict(response, REJECTIONS)
    }
}

const NAME: &str = "wechat authorizer";

const NO_REFRESH_TOKEN: &str = "there is no authorizer_refresh_token; let the account's owner authorize again, and \
                                build the provider with the new one";
