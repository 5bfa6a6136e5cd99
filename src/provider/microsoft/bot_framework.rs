//! Bot Framework: the token with which a bot calls the Bot Connector of Teams and other channels.

use crate::error::{Error, ErrorKind};
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::errors::ErrorRule;
use crate::provider::microsoft::{ENTRA, ERROR_RULES, check_tenant, exchange, token_url, verdict};
use crate::provider::oauth2::OAuthErrors;
use crate::provider::settings::check_texts;
use crate::provider::{Context, Grant, Provider, ServiceResponse, Verdict};
use crate::secret::Secret;

/// Fetches the tokens with which a bot (Teams, Azure Bot Service) calls the Bot Connector: client credentials with the
/// scope `https://api.botframework.com/.default`.
///
/// `app_id` and `secret` are the `MicrosoftAppId` and `MicrosoftAppPassword` of the bot. A bot is multi-tenant unless
/// its [`tenant`](BotFramework::tenant) is set; bots that were created since 2025 are single-tenant. Entra grants a
/// token from the wrong tenant as well, and the Bot Connector then refuses each token with HTTP 401.
///
/// ```
/// use evertoken::provider::microsoft::BotFramework;
///
/// let provider = BotFramework::new("app-id", "app-secret").tenant("contoso.onmicrosoft.com");
/// assert!(!format!("{provider:?}").contains("app-secret"));
/// ```
#[derive(Clone, Debug)]
pub struct BotFramework {
    app_id: String,
    secret: Secret,
    tenant: Option<String>,
    us_government: bool,
    authority: Option<BaseUrl>,
}

impl BotFramework {
    /// Makes a provider for the bot whose app is `app_id`.
    pub fn new(app_id: impl Into<String>, secret: impl Into<Secret>) -> BotFramework {
        BotFramework {
            app_id: app_id.into(),
            secret: secret.into(),
            tenant: None,
            us_government: false,
            authority: None,
        }
    }

    /// Sets the directory of a single-tenant bot, by id or domain. Default: none, the bot is multi-tenant.
    #[must_use]
    pub fn tenant(self, tenant: impl Into<String>) -> BotFramework {
        BotFramework { tenant: Some(tenant.into()), ..self }
    }

    /// Selects Azure Government of the United States.
    #[must_use]
    pub fn us_government(self) -> BotFramework {
        BotFramework { us_government: true, ..self }
    }

    /// Sends requests to another host than the cloud's, for a gateway or a test.
    #[must_use]
    pub fn authority(self, url: impl Into<String>) -> BotFramework {
        BotFramework { authority: Some(BaseUrl::new(url)), ..self }
    }

    fn authority_url(&self) -> BaseUrl {
        let usual = || BaseUrl::new(if self.us_government { US_AUTHORITY } else { AUTHORITY });
        self.authority.clone().unwrap_or_else(usual)
    }

    fn directory(&self) -> &str {
        self.tenant.as_deref().unwrap_or(if self.us_government { US_TENANT } else { TENANT })
    }

    fn scope(&self) -> &'static str {
        if self.us_government { US_SCOPE } else { SCOPE }
    }

    fn request_grant(&self, context: &Context) -> Result<Grant, Error> {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", self.app_id.as_str()),
            ("scope", self.scope()),
            ("client_secret", self.secret.expose()),
        ];
        let errors = if self.tenant.is_some() { &ENTRA } else { &MULTI_TENANT };
        exchange(context, &token_url(&self.authority_url(), self.directory()), &form, errors, &[&self.secret])
    }
}

impl Provider for BotFramework {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        Identity::new(NAME)
            .part("url", self.authority_url().as_str())
            .part("tenant", self.directory().to_ascii_lowercase())
            .part("app", &self.app_id)
            .part("scope", self.scope())
            .secret(&self.secret)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_grant(context).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        let texts =
            [("app id", self.app_id.as_str()), ("app secret", self.secret.expose()), ("tenant", self.directory())];
        check_texts(&texts)
            .and_then(|()| check_tenant(self.directory()))
            .and_then(|()| self.authority_url().check_setting("authority"))
            .map_err(|error| error.of(NAME))
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response)
    }
}

const NAME: &str = "bot-framework";

const AUTHORITY: &str = "https://login.microsoftonline.com";
const TENANT: &str = "botframework.com";
const SCOPE: &str = "https://api.botframework.com/.default";

const US_AUTHORITY: &str = "https://login.microsoftonline.us";
const US_TENANT: &str = "MicrosoftServices.onmicrosoft.us";
const US_SCOPE: &str = "https://api.botframework.us/.default";

const MULTI_TENANT: OAuthErrors = OAuthErrors { rules: &[NOT_MULTI_TENANT, ERROR_RULES], ..ENTRA };

const NOT_MULTI_TENANT: &[ErrorRule] = &[(
    "AADSTS700016",
    ErrorKind::InvalidCredentials,
    "the app is unknown among the multi-tenant bots; set `tenant` for a single-tenant bot, or check the app id",
)];
