//! The access token of an Official Account or a Mini Program, from either of its two endpoints.

use std::time::Duration;

use serde::Serialize;

use crate::error::Error;
use crate::http::Http;
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::settings::check_texts;
use crate::provider::wechat::{API_ERRORS, DEFAULT_BASE_URL, ERRORS, LIFETIME, REJECTIONS};
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, TokenPlacement, Verdict, parse_grant};
use crate::secret::Secret;

/// Grants the stable access token of an Official Account or a Mini Program (`/cgi-bin/stable_token`).
///
/// Any number of processes may ask for it: all get the same token with what is left of its lifetime. WeChat replaces it
/// five minutes before its end, and takes both in these minutes. A token that leaked or is refused is replaced at once
/// by [`force_refresh`](crate::TokenManager::force_refresh), which WeChat allows 20 times a day.
///
/// This is the one to choose. It has nothing to do with the token of [`WeChatClassic`], of which every fetch ends the
/// one before.
///
/// ```
/// use evertoken::WeChat;
///
/// let provider = WeChat::new("wx1234567890abcdef", "app-secret");
/// assert!(!format!("{provider:?}").contains("app-secret"));
/// ```
#[derive(Clone, Debug)]
pub struct WeChat(App);

impl WeChat {
    /// The account or program `appid` that `secret` belongs to.
    pub fn new(appid: impl Into<String>, secret: impl Into<Secret>) -> WeChat {
        WeChat(App::new(appid.into(), secret.into()))
    }

    /// Asks another host: of another region, a relay or a test. Default: `https://api.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeChat {
        WeChat(self.0.base_url(url))
    }

    fn request_token(&self, http: &Http, force_refresh: bool) -> Result<Grant, Error> {
        let App { appid, secret, base_url } = &self.0;
        let body = Body { grant_type: GRANT_TYPE, appid, secret: secret.expose(), force_refresh };
        let reply = http.post_json(&base_url.join("/cgi-bin/stable_token"), &body).send()?;
        parse_grant(ERRORS.accept(&reply, &[secret])?)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    grant_type: &'a str,
    appid: &'a str,
    secret: &'a str,
    force_refresh: bool,
}

impl Provider for WeChat {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        self.0.identity(NAME)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context.http(), context.is_forced()).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        self.0.check().map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        Profile {
            default_lifetime: LIFETIME,
            refresh_ahead: OVERLAP,
            // Earlier it gives the same token back.
            earliest_refresh: Some(OVERLAP),
            // What is told is what is truly left.
            unchanged_token_extends: true,
            // Asked without force it ends no token before its time, so processes without a store do each other no
            // harm. With force it does; that is what the quota counts.
            new_token_ends_old: false,
            forced_quota: Some(20),
            min_forced_interval: Duration::from_secs(30),
            ..Profile::default()
        }
    }

    fn placement(&self) -> TokenPlacement {
        TokenPlacement::query("access_token")
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        API_ERRORS.verdict(response, REJECTIONS)
    }
}

/// Grants the access token of an Official Account or a Mini Program in the old way (`/cgi-bin/token`).
///
/// Every fetch ends the token before, which works for five more minutes, and 2000 fetches a day are allowed. All that
/// use the account must share one token, by one [`Store`](crate::store::Store). Choose [`WeChat`] unless something else that
/// cannot be changed shares this token.
///
/// ```
/// use evertoken::provider::Provider;
/// use evertoken::provider::wechat::WeChatClassic;
///
/// assert!(WeChatClassic::new("wx1234567890abcdef", "app-secret").profile().new_token_ends_old);
/// ```
#[derive(Clone, Debug)]
pub struct WeChatClassic(App);

impl WeChatClassic {
    /// The account or program `appid` that `secret` belongs to.
    pub fn new(appid: impl Into<String>, secret: impl Into<Secret>) -> WeChatClassic {
        WeChatClassic(App::new(appid.into(), secret.into()))
    }

    /// Asks another host: of another region, a relay or a test. Default: `https://api.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeChatClassic {
        WeChatClassic(self.0.base_url(url))
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
        let App { appid, secret, base_url } = &self.0;
        let reply = http
            .get(&base_url.join("/cgi-bin/token"))
            .query("grant_type", GRANT_TYPE)
            .query("appid", appid)
            .query("secret", secret.expose())
            .send()?;
        parse_grant(ERRORS.accept(&reply, &[secret])?)
    }
}

impl Provider for WeChatClassic {
    fn name(&self) -> &str {
        CLASSIC_NAME
    }

    fn identity(&self) -> Identity {
        self.0.identity(CLASSIC_NAME)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context.http()).map_err(|error| error.of(CLASSIC_NAME))
    }

    fn check(&self) -> Result<(), Error> {
        self.0.check().map_err(|error| error.of(CLASSIC_NAME))
    }

    fn profile(&self) -> Profile {
        Profile {
            default_lifetime: LIFETIME,
            new_token_ends_old: true,
            overlap: OVERLAP,
            // Two in a row would end what other processes still hold.
            min_forced_interval: OVERLAP,
            ..Profile::default()
        }
        .daily_quota(2000, 200)
    }

    fn placement(&self) -> TokenPlacement {
        TokenPlacement::query("access_token")
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        API_ERRORS.verdict(response, REJECTIONS)
    }
}

/// What both ways have in common.
#[derive(Clone, Debug)]
struct App {
    appid: String,
    secret: Secret,
    base_url: BaseUrl,
}

impl App {
    fn new(appid: String, secret: Secret) -> App {
        App { appid, secret, base_url: BaseUrl::new(DEFAULT_BASE_URL) }
    }

    fn base_url(self, url: impl Into<String>) -> App {
        App { base_url: BaseUrl::new(url), ..self }
    }

    fn identity(&self, name: &str) -> Identity {
        Identity::new(name).part("url", self.base_url.as_str()).part("app", &self.appid).secret(&self.secret)
    }

    fn check(&self) -> Result<(), Error> {
        check_texts(&[("appid", &self.appid), ("appsecret", self.secret.expose())])?;
        self.base_url.check()
    }
}

const NAME: &str = "wechat";

const CLASSIC_NAME: &str = "wechat classic";

/// Without an `s` at its end, unlike the standard's.
const GRANT_TYPE: &str = "client_credential";

/// How long the old token and the new one both work.
const OVERLAP: Duration = Duration::from_secs(300);
