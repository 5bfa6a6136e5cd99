//! DingTalk (钉钉): the token of an internal app, from three endpoints.

use serde::Serialize;

use crate::error::Error;
use crate::http::{Http, query_encoded};
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::dingtalk::{
    API_BASE_URL, LIFETIME, OAPI_BASE_URL, accept, app_profile, header_placement, verdict,
};
use crate::provider::settings::check_texts;
use crate::provider::{
    Context, Grant, Profile, Provider, ServiceResponse, TokenPlacement, Verdict, parse_grant, parse_grant_fields,
};
use crate::secret::Secret;

/// Fetches the `accessToken` of an internal app (企业内部应用)
/// (`POST https://api.dingtalk.com/v1.0/oauth2/accessToken` with `appKey` and `appSecret`).
///
/// The token is for the newer APIs, those of `api.dingtalk.com`, which take the token in the header
/// `x-acs-dingtalk-access-token` only.
///
/// - *Lifetime*: 7200 s (`expireIn`).
/// - *A second request* returns the same token, valid for 7200 s from then on. An app has one token.
/// - *Refused* with HTTP 400 and `code` `InvalidAuthentication`.
/// - *Limits*: DingTalk throttles frequent requests and publishes no number for this one. The
///   [module page](crate::provider::dingtalk) has more, and the sources.
///
/// ```
/// use evertoken::{DingTalk, TokenManager};
///
/// let provider = DingTalk::new("dingabc", "app-secret");
/// assert!(!format!("{provider:?}").contains("app-secret"));
/// let tokens = TokenManager::new(provider);
/// ```
#[doc(alias = "accessToken")]
#[doc(alias = "appkey")]
#[doc(alias = "appsecret")]
#[doc(alias = "钉钉")]
#[derive(Clone, Debug)]
pub struct DingTalk {
    app_key: String,
    secret: Secret,
    host: BaseUrl,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AccessTokenBody<'a> {
    app_key: &'a str,
    app_secret: &'a str,
}

impl DingTalk {
    /// Makes a provider for one app. `app_key` and `app_secret` are from 凭证与基础信息 in the developer console, which
    /// also calls them Client ID and Client Secret.
    pub fn new(app_key: impl Into<String>, app_secret: impl Into<Secret>) -> DingTalk {
        DingTalk { app_key: app_key.into(), secret: app_secret.into(), host: BaseUrl::new(API_BASE_URL) }
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://api.dingtalk.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> DingTalk {
        DingTalk { host: BaseUrl::new(url), ..self }
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
        let body = AccessTokenBody { app_key: &self.app_key, app_secret: self.secret.expose() };
        let reply = http.post_json(&self.host.join("/v1.0/oauth2/accessToken"), &body).send()?;
        parse_grant_fields(accept(&reply, &[&self.secret])?, "accessToken", "expireIn")
    }
}

impl Provider for DingTalk {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        Identity::new(NAME).part("url", self.host.as_str()).part("app", &self.app_key).secret(&self.secret)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context.http()).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        check_texts(&[("app key", &self.app_key), ("app secret", self.secret.expose())])
            .and_then(|()| self.host.check())
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        app_profile()
    }

    fn placement(&self) -> TokenPlacement {
        header_placement()
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response)
    }
}

/// Fetches the `access_token` of an internal app (企业内部应用) for the older APIs
/// (`GET https://oapi.dingtalk.com/gettoken` with `appkey` and `appsecret`).
///
/// The token is for the APIs of `oapi.dingtalk.com`, such as `/topapi/`, which take the token as the query parameter
/// `access_token` only.
///
/// - *Lifetime*: 7200 s (`expires_in`).
/// - *A second request* returns the same token, valid for 7200 s from then on. An app has one token.
/// - *Refused* with HTTP 200 and `errcode` 88 with `sub_code` 40014, 40001 or 42001.
///
/// ```
/// use evertoken::provider::dingtalk::DingTalkClassic;
///
/// let provider = DingTalkClassic::new("dingabc", "app-secret");
/// assert!(!format!("{provider:?}").contains("app-secret"));
/// ```
#[derive(Clone, Debug)]
pub struct DingTalkClassic {
    app_key: String,
    secret: Secret,
    host: BaseUrl,
}

impl DingTalkClassic {
    /// Makes a provider for one app. `app_key` and `app_secret` are from 凭证与基础信息 in the developer console, which
    /// also calls them Client ID and Client Secret.
    pub fn new(app_key: impl Into<String>, app_secret: impl Into<Secret>) -> DingTalkClassic {
        DingTalkClassic { app_key: app_key.into(), secret: app_secret.into(), host: BaseUrl::new(OAPI_BASE_URL) }
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://oapi.dingtalk.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> DingTalkClassic {
        DingTalkClassic { host: BaseUrl::new(url), ..self }
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
        // The secret is part of the URL here, so neither an error nor a log line may quote the URL.
        let reply = http
            .get(&self.host.join("/gettoken"))
            .query("appkey", &self.app_key)
            .query("appsecret", self.secret.expose())
            .send()?;
        parse_grant(accept(&reply, &[&self.secret])?)
    }
}

impl Provider for DingTalkClassic {
    fn name(&self) -> &str {
        CLASSIC_NAME
    }

    fn identity(&self) -> Identity {
        Identity::new(CLASSIC_NAME).part("url", self.host.as_str()).part("app", &self.app_key).secret(&self.secret)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context.http()).map_err(|error| error.of(CLASSIC_NAME))
    }

    fn check(&self) -> Result<(), Error> {
        check_texts(&[("app key", &self.app_key), ("app secret", self.secret.expose())])
            .and_then(|()| self.host.check())
            .map_err(|error| error.of(CLASSIC_NAME))
    }

    fn profile(&self) -> Profile {
        app_profile()
    }

    fn placement(&self) -> TokenPlacement {
        // The older APIs ignore the header of the newer ones.
        TokenPlacement::query("access_token")
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response)
    }
}

/// Fetches the `access_token` of an app in one corp (`POST https://api.dingtalk.com/v1.0/oauth2/{corpId}/token` with
/// `client_id`, `client_secret` and `grant_type=client_credentials`).
///
/// The token is for the newer APIs, those of `api.dingtalk.com`, in the header `x-acs-dingtalk-access-token`.
///
/// - *Lifetime*: 7200 s (`expires_in`). DingTalk does not document what a second request returns; the crate expects
///   both tokens to stay valid.
/// - *Refused* with HTTP 400 and `code` `InvalidAuthentication`.
/// - *A wrong corp id* gets HTTP 500 and `unknownError`, like an internal error of DingTalk. The error is therefore the
///   retryable [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable).
///
/// ```
/// use evertoken::provider::dingtalk::DingTalkUnified;
///
/// let provider = DingTalkUnified::new("ding1234", "dingabc", "client-secret");
/// assert!(!format!("{provider:?}").contains("client-secret"));
/// ```
#[derive(Clone, Debug)]
pub struct DingTalkUnified {
    corp_id: String,
    client_id: String,
    secret: Secret,
    host: BaseUrl,
}

#[derive(Serialize)]
struct UnifiedBody<'a> {
    client_id: &'a str,
    client_secret: &'a str,
    grant_type: &'a str,
}

impl DingTalkUnified {
    /// Makes a provider for the app `client_id` in the corp `corp_id`. Client ID and Client Secret are from
    /// 凭证与基础信息 in the developer console, and CorpId from its front page.
    pub fn new(
        corp_id: impl Into<String>,
        client_id: impl Into<String>,
        client_secret: impl Into<Secret>,
    ) -> DingTalkUnified {
        DingTalkUnified {
            corp_id: corp_id.into(),
            client_id: client_id.into(),
            secret: client_secret.into(),
            host: BaseUrl::new(API_BASE_URL),
        }
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://api.dingtalk.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> DingTalkUnified {
        DingTalkUnified { host: BaseUrl::new(url), ..self }
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
        let body = UnifiedBody {
            client_id: &self.client_id,
            client_secret: self.secret.expose(),
            grant_type: "client_credentials",
        };
        // Encoded, because a corp id with a slash would be another path.
        let path = format!("/v1.0/oauth2/{}/token", *query_encoded(&self.corp_id));
        let reply = http.post_json(&self.host.join(&path), &body).send()?;
        parse_grant(accept(&reply, &[&self.secret])?)
    }
}

impl Provider for DingTalkUnified {
    fn name(&self) -> &str {
        UNIFIED_NAME
    }

    fn identity(&self) -> Identity {
        Identity::new(UNIFIED_NAME)
            .part("url", self.host.as_str())
            .part("corp", &self.corp_id)
            .part("app", &self.client_id)
            .secret(&self.secret)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context.http()).map_err(|error| error.of(UNIFIED_NAME))
    }

    fn check(&self) -> Result<(), Error> {
        check_texts(&[
            ("corp id", &self.corp_id),
            ("client id", &self.client_id),
            ("client secret", self.secret.expose()),
        ])
        .and_then(|()| self.host.check())
        .map_err(|error| error.of(UNIFIED_NAME))
    }

    fn profile(&self) -> Profile {
        // DingTalk does not document what a second request returns. An unchanged token keeps its known end. A new token
        // is taken to leave the old one valid, because the token belongs to the app, like those of the providers above.
        Profile { default_lifetime: LIFETIME, ..Profile::default() }
    }

    fn placement(&self) -> TokenPlacement {
        header_placement()
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response)
    }
}

const NAME: &str = "dingtalk";
const CLASSIC_NAME: &str = "dingtalk classic";
const UNIFIED_NAME: &str = "dingtalk unified";
