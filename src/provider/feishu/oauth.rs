//! Feishu (飞书) and Lark: the OAuth 2.0 `access_token` of a custom app, from `/oauth/v3/token`.

use crate::error::{Error, ErrorKind};
use crate::http::{Http, TokenResponse};
use crate::key::Identity;
use crate::provider::errors::{ErrorRule, ErrorTable};
use crate::provider::feishu::{App, ERRORS, LIFETIME, TENANT_REJECTIONS, verdict};
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, Verdict, parse_grant};
use crate::secret::Secret;

/// Fetches the `access_token` of a custom app (企业自建应用) with OAuth 2.0 client credentials
/// (`POST https://accounts.feishu.cn/oauth/v3/token`).
///
/// The token serves the same APIs as the `tenant_access_token` of [`Feishu`](crate::Feishu). The token is a JWT;
/// Feishu advises to reserve 4 KiB for it. Only custom apps can get one: the request has no `tenant_key`.
///
/// - *Lifetime*: at most 2 hours. Feishu does not document what a second request returns; the crate expects both tokens
///   to stay valid until their own ends.
/// - *Refused* with the codes of a `tenant_access_token`.
/// - *Limits*: 1000 requests per minute, 50 per second.
///
/// The numbers are from Feishu's page on [`tenant_access_token`][page].
///
/// [page]: https://open.feishu.cn/document/uAjLw4CM/ukTMukTMukTM/authentication-management/access-token/tenant_access_token.md
///
/// ```
/// use evertoken::provider::feishu::FeishuOAuth;
///
/// let provider = FeishuOAuth::new("cli_a1b2c3", "app-secret").lark();
/// assert!(!format!("{provider:?}").contains("app-secret"));
/// ```
#[derive(Clone, Debug)]
pub struct FeishuOAuth {
    app: App,
}

impl FeishuOAuth {
    /// Makes a provider for one app. `app_id` and `app_secret` are App ID and App Secret from 凭证与基础信息
    /// (Credentials & Basic Info) in the developer console.
    pub fn new(app_id: impl Into<String>, app_secret: impl Into<Secret>) -> FeishuOAuth {
        FeishuOAuth { app: App::new(app_id, app_secret, "https://accounts.feishu.cn") }
    }

    /// Fetches from Lark, at `https://accounts.larksuite.com`, for an app that is registered there.
    #[must_use]
    pub fn lark(self) -> FeishuOAuth {
        self.base_url("https://accounts.larksuite.com")
    }

    /// Sets another base URL, for a private deployment, a relay or a test. Default: `https://accounts.feishu.cn`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> FeishuOAuth {
        FeishuOAuth { app: self.app.with_host(url) }
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
        // The credential is in the body only. With an `Authorization` header as well Feishu answers 20070.
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.app.id),
            ("client_secret", self.app.secret.expose()),
        ];
        self.read_grant(&http.post_form(&self.app.host.join("/oauth/v3/token"), &form).send()?)
    }

    fn read_grant(&self, reply: &TokenResponse) -> Result<Grant, Error> {
        let json = reply.json();
        let code = |field| json.as_ref().ok().and_then(|json| json.code(field));
        // A failure has a word of OAuth 2.0 (`error`) and a number of Feishu (`code`). A known number says more.
        let has_unknown_number = code("error").is_some() && !code("code").is_some_and(|code| ERRORS.knows(&code));
        let codes = if has_unknown_number { &OAUTH_ERRORS } else { &ERRORS };
        parse_grant(codes.accept_json(json, reply, &[&self.app.secret])?)
    }
}

impl Provider for FeishuOAuth {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        self.app.identity(NAME)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_token(context.http()).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        self.app.check(NAME)
    }

    fn profile(&self) -> Profile {
        // Feishu does not document what a second request returns. So the profile allows a refresh at any time, and an
        // unchanged token keeps its known end. A new token is taken to leave the old one valid, because a JWT carries
        // its own end.
        Profile { default_lifetime: LIFETIME, ..Profile::default() }
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response, TENANT_REJECTIONS)
    }
}

const NAME: &str = "feishu oauth";

/// The words of OAuth 2.0 in the field `error`.
const OAUTH_ERRORS: ErrorTable = ErrorTable { code_field: "error", rules: RULES, throttle_codes: &[("slow_down", 1)] };

const WRONG_CREDENTIALS: &str = "the app id or app secret is wrong, or the app is disabled; copy both from \
                                 凭证与基础信息 (Credentials & Basic Info) in the developer console";

const RULES: &[ErrorRule] = &[
    ("access_denied", ErrorKind::Forbidden, "Feishu denies the app this token; check the app in the developer console"),
    ("invalid_client", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("invalid_grant", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("invalid_request", ErrorKind::Config, "a parameter is missing or invalid; check app_id, app_secret and base_url"),
    (
        "invalid_scope",
        ErrorKind::Config,
        "the scope is unknown, or the app does not have it; check 权限管理 (Permissions & Scopes) in the developer \
         console",
    ),
    ("server_error", ErrorKind::Unavailable, "Feishu reports an internal error; try again later"),
    ("temporarily_unavailable", ErrorKind::Unavailable, "Feishu is busy; try again later"),
    (
        "unauthorized_client",
        ErrorKind::InvalidCredentials,
        "the app may not use client credentials, which are for custom apps only; use `FeishuStoreApp` for a store app",
    ),
    ("unsupported_grant_type", ErrorKind::Config, "the host does not support client credentials; check base_url"),
];
