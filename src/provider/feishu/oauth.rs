//! Feishu and Lark: the token of an own app by OAuth 2.0 (`/oauth/v3/token`).

use crate::error::{Error, ErrorKind};
use crate::http::{Http, TokenResponse};
use crate::key::Identity;
use crate::provider::errors::{ErrorRule, ErrorTable};
use crate::provider::feishu::{App, ERRORS, LIFETIME, TENANT_REJECTIONS, verdict};
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, Verdict, parse_grant};
use crate::secret::Secret;

/// Grants the token of an own app by OAuth 2.0 client credentials, the newer way beside [`Feishu`](crate::Feishu).
///
/// The token is a JWT and can be some KB long.
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
    /// The app `app_id`.
    pub fn new(app_id: impl Into<String>, app_secret: impl Into<Secret>) -> FeishuOAuth {
        FeishuOAuth { app: App::new(app_id, app_secret, "https://accounts.feishu.cn") }
    }

    /// The app is one of Lark, and `https://accounts.larksuite.com` is asked.
    #[must_use]
    pub fn lark(self) -> FeishuOAuth {
        self.base_url("https://accounts.larksuite.com")
    }

    /// Asks another host, for a private deployment or a test. Default: `https://accounts.feishu.cn`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> FeishuOAuth {
        FeishuOAuth { app: self.app.with_host(url) }
    }

    fn request_token(&self, http: &Http) -> Result<Grant, Error> {
        // In the body only: with a header beside it the request is refused (20070).
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
        // The number says more than the standard's word beside it, where it is known.
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
        // Nobody tells what comes back when it is asked again early. So it may be asked at any time, and the end that
        // is known stays. That the old token works beside a new one is taken for granted: a JWT says itself when it
        // ends.
        Profile { default_lifetime: LIFETIME, ..Profile::default() }
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response, TENANT_REJECTIONS)
    }
}

const NAME: &str = "feishu oauth";

/// The standard's words.
const OAUTH_ERRORS: ErrorTable = ErrorTable { code_field: "error", rules: RULES, throttle_codes: &[("slow_down", 1)] };

const WRONG_CREDENTIALS: &str = "the app id or app secret is wrong, or the app is disabled";

const RULES: &[ErrorRule] = &[
    ("access_denied", ErrorKind::Forbidden, "the app is not allowed this token"),
    ("invalid_client", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("invalid_grant", ErrorKind::InvalidCredentials, WRONG_CREDENTIALS),
    ("invalid_request", ErrorKind::Config, "a parameter is missing or makes no sense"),
    ("invalid_scope", ErrorKind::Config, "the scope is unknown or not open to this app"),
    ("server_error", ErrorKind::Unavailable, "the system has an internal fault"),
    ("temporarily_unavailable", ErrorKind::Unavailable, "the system is busy"),
    ("unauthorized_client", ErrorKind::InvalidCredentials, "the app may not use client credentials; only own apps may"),
    ("unsupported_grant_type", ErrorKind::Config, "the host does not know client credentials"),
];
