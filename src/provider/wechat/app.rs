//! WeChat (微信): the `access_token` of an Official Account or a Mini Program, stable or classic.

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

/// Fetches the stable `access_token` of an Official Account or a Mini Program (`POST /cgi-bin/stable_token` with
/// `appid`, `secret` and `force_refresh`).
///
/// The token is for the account's own API calls. Services take the token as the query parameter `access_token`. This is
/// the provider to choose for an account: any number of processes may fetch without a shared store, because all get the
/// same token. The token of [`WeChatClassic`] is another one, and neither disturbs the other.
///
/// - *Lifetime*: at most 7200 s; `expires_in` is the time left. WeChat makes a new token 5 minutes before the end of
///   the old one and accepts both during these minutes.
/// - *A second request* returns the same token, until 5 minutes before its end.
/// - *A forced request* (`force_refresh`) makes a new token and ends the old one. WeChat allows 20 in a day, at least
///   30 s apart. The manager forces when a [rejected](crate::TokenManager::reject) token would come back, and for
///   [`force_refresh`](crate::TokenManager::force_refresh), and counts across all processes that share a store.
/// - *Refused* with `errcode` 40001, 40014, 42001 or 42007.
/// - *Limits*: 10,000 requests per minute, 500,000 per day.
///
/// The numbers are from the page of [`stable_token`][stable].
///
/// [stable]: https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken.html
///
/// ```
/// use evertoken::WeChat;
///
/// let provider = WeChat::new("wx1234567890abcdef", "app-secret");
/// assert!(!format!("{provider:?}").contains("app-secret"));
/// ```
#[doc(alias = "stable_token")]
#[doc(alias = "appsecret")]
#[doc(alias = "微信")]
#[derive(Clone, Debug)]
pub struct WeChat(App);

impl WeChat {
    /// Makes a provider for one account. `appid` and `secret` are AppID and AppSecret from the account's console.
    pub fn new(appid: impl Into<String>, secret: impl Into<Secret>) -> WeChat {
        WeChat(App::new(appid.into(), secret.into()))
    }

    /// Sets another base URL: a host of another region, a relay or a test. Default: `https://api.weixin.qq.com`.
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
            // An earlier request returns the unchanged token.
            earliest_refresh: Some(OVERLAP),
            // `expires_in` of an unchanged token is the time that is left.
            unchanged_token_extends: true,
            // A request without `force_refresh` ends no token, so processes that do not share a store do not disturb
            // each other. A forced request ends the old token; the quota below counts these.
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

/// Fetches the classic `access_token` of an Official Account or a Mini Program (`GET /cgi-bin/token` with
/// `grant_type=client_credential`, `appid` and `secret`).
///
/// Choose [`WeChat`] instead, unless another program that cannot be changed uses the classic token of this account.
/// Each request makes a new token, and the old one works for 5 more minutes. Processes that use the account must all
/// share one token through one [`Store`](crate::store::Store); without it they end each other's tokens.
///
/// - *Lifetime*: 7200 s.
/// - *A second request* returns a new token and ends the old one, 5 minutes later.
/// - *Refused* with `errcode` 40001 (invalid or not the latest), 40014, 42001 or 42007.
/// - *Limits*: 2,000 requests per day (WeChat's page on API call limits; 200 for a test account). The manager counts
///   them and keeps 200 for the replacement of rejected tokens; with none left, a fetch fails with
///   [`ErrorKind::Throttled`](crate::ErrorKind::Throttled).
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
    /// Makes a provider for one account. `appid` and `secret` are AppID and AppSecret from the account's console.
    pub fn new(appid: impl Into<String>, secret: impl Into<Secret>) -> WeChatClassic {
        WeChatClassic(App::new(appid.into(), secret.into()))
    }

    /// Sets another base URL: a host of another region, a relay or a test. Default: `https://api.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeChatClassic {
        WeChatClassic(self.0.base_url(url))
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
        let App { appid, secret, base_url } = &self.0;
        // The secret is part of the URL here, so neither an error nor a log line may quote the URL.
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
            // A second forced refresh within the overlap would end tokens that other processes still use.
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

/// The settings that both providers have.
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

/// WeChat writes the word without the `s` of OAuth 2.0.
const GRANT_TYPE: &str = "client_credential";

/// The time during which the old token and the new one are both accepted.
const OVERLAP: Duration = Duration::from_secs(300);
