//! The access token of an account that has authorized a component.

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

/// Grants the access token of an account that has authorized a third-party platform
/// (`/cgi-bin/component/api_authorizer_token`).
///
/// It is granted for the component's token, so it is built on a manager of [`WeChatComponent`](crate::provider::wechat::WeChatComponent),
/// and for a refresh token, which `api_query_auth` gave when the account's owner authorized the platform. Each reply
/// may bring another refresh token. It is stored before the access token is handed out; share a
/// [`Store`](crate::store::Store) that lasts, because whoever loses it has to ask the owner to authorize again.
///
/// After that, bring the refresh token that the owner's new authorization gave: it takes the place of all before it.
///
/// ```
/// use evertoken::TokenManager;
/// use evertoken::provider::wechat::{WeChatAuthorizer, WeChatComponent};
///
/// let platform = TokenManager::new(WeChatComponent::new("wxcomponent", "component-secret"));
/// let account = TokenManager::new(WeChatAuthorizer::new(platform.clone(), "wxcomponent", "wxaccount", "refresh-1"));
/// ```
#[derive(Clone, Debug)]
pub struct WeChatAuthorizer {
    component: Parent,
    component_appid: String,
    authorizer_appid: String,
    refresh_token: Secret,
    base_url: BaseUrl,
}

impl WeChatAuthorizer {
    /// The account `authorizer_appid`, which gave `refresh_token` when it authorized the component `component_appid`,
    /// whose tokens `component` gives.
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

    /// Asks another host: of another region, a relay or a test. Default: `https://api.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeChatAuthorizer {
        WeChatAuthorizer { base_url: BaseUrl::new(url), ..self }
    }

    /// One authorization: the account, the component, and the refresh token that it began with.
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
        // Without the parent: a component whose secret is reset is another parent, and the refresh token that counts
        // must not be lost with it.
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

const NO_REFRESH_TOKEN: &str = "there is no authorizer_refresh_token; let the account's owner authorize again, and build the provider with the new one";
