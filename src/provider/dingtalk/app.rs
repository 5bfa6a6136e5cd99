//! DingTalk: the token of an app that a company made for itself, from three endpoints.

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

/// Grants the token of an own app (企业内部应用) for the new interfaces, those of `api.dingtalk.com`.
///
/// An app has one token. Asked for again it is given back, and lives on for the whole time.
///
/// ```
/// use evertoken::DingTalk;
///
/// let provider = DingTalk::new("dingabc", "app-secret");
/// assert!(!format!("{provider:?}").contains("app-secret"));
/// ```
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
    /// The app `app_key`, which DingTalk also calls its client id.
    pub fn new(app_key: impl Into<String>, app_secret: impl Into<Secret>) -> DingTalk {
        DingTalk { app_key: app_key.into(), secret: app_secret.into(), host: BaseUrl::new(API_BASE_URL) }
    }

    /// Asks another host, for a private deployment or a test. Default: `https://api.dingtalk.com`.
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

/// Grants the token of an own app for the old interfaces, those of `oapi.dingtalk.com`.
///
/// An app has one token. Asked for again it is given back, and lives on for the whole time.
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
    /// The app `app_key`.
    pub fn new(app_key: impl Into<String>, app_secret: impl Into<Secret>) -> DingTalkClassic {
        DingTalkClassic { app_key: app_key.into(), secret: app_secret.into(), host: BaseUrl::new(OAPI_BASE_URL) }
    }

    /// Asks another host, for a private deployment or a test. Default: `https://oapi.dingtalk.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> DingTalkClassic {
        DingTalkClassic { host: BaseUrl::new(url), ..self }
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
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
        // The old interfaces look nowhere else.
        TokenPlacement::query("access_token")
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response)
    }
}

/// Grants the token of an app in one corp by the unified endpoint (`/v1.0/oauth2/{corpId}/token`), for the new
/// interfaces.
///
/// DingTalk answers a wrong corp id as it does an internal fault, so the error is
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), with the code `unknownError`.
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
    /// The app `client_id` in the corp `corp_id`.
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

    /// Asks another host, for a private deployment or a test. Default: `https://api.dingtalk.com`.
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
        // Nobody tells what comes back when it is asked again. If it is the same token, the end that is known stays.
        // That a new one leaves the old one alone is taken for granted, as it is the app's own token, like those above.
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
