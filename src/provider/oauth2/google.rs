//! Google service accounts: access tokens for Google APIs.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::error::Error;
use crate::http::Http;
use crate::key::Identity;
use crate::provider::base_url::check_url_setting;
use crate::provider::jwt::{Claims, Signer, SigningKey, Times, sign};
use crate::provider::oauth2::jwt_bearer::exchange;
use crate::provider::oauth2::scope::ScopeWarning;
use crate::provider::settings::{check_line, check_texts, file_text, read_file};
use crate::provider::{Context, Grant, Profile, Provider, parse_grant};
use crate::secret::{Secret, plain_url};

/// Fetches access tokens of a Google service account, from the service account JSON file (`"type": "service_account"`)
/// that the Google Cloud console creates.
///
/// The provider reads `client_email`, `private_key`, `private_key_id` and `token_uri` from the file. Each fetch signs
/// an assertion with the private key and sends it to the `token_uri` (JWT bearer grant, RFC 7523). The
/// [`scope`](GoogleServiceAccount::scope) is required. For domain-wide delegation set the
/// [`subject`](GoogleServiceAccount::subject) (`sub`).
///
/// ```no_run
/// use evertoken::GoogleServiceAccount;
///
/// let provider = GoogleServiceAccount::from_file("service-account.json")?
///     .scope("https://www.googleapis.com/auth/devstorage.read_only");
/// # Ok::<(), evertoken::Error>(())
/// ```
#[derive(Clone)]
pub struct GoogleServiceAccount {
    email: String,
    key: SigningKey,
    audience: String,
    token_url: String,
    scope: String,
    subject: Option<String>,
    scope_warning: ScopeWarning,
}

/// The fields of the service account JSON. `private_key` is moved into a [`Secret`] right after parsing.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "type")]
    kind: Option<String>,
    client_email: Option<String>,
    private_key: Option<String>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

impl GoogleServiceAccount {
    /// Reads the account from the text of its JSON file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the text is not the JSON of a service account, or when its
    /// private key cannot be read.
    pub fn from_json(json: impl Into<Secret>) -> Result<GoogleServiceAccount, Error> {
        GoogleServiceAccount::read(&json.into()).map_err(|error| error.of(NAME))
    }

    /// Reads the account from its JSON file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the file cannot be read, and the errors of
    /// [`from_json`](GoogleServiceAccount::from_json).
    pub fn from_file(path: impl AsRef<Path>) -> Result<GoogleServiceAccount, Error> {
        let text = read_file(path.as_ref(), "the service account file").map_err(|error| error.of(NAME))?;
        GoogleServiceAccount::from_json(text)
    }

    fn read(json: &Secret) -> Result<GoogleServiceAccount, Error> {
        // The error of `serde_json` is dropped, because it may quote a part of the text.
        let file = serde_json::from_str(file_text(json.expose()));
        let file: File =
            file.map_err(|_| Error::config("the text is not the JSON of a service account; pass the whole key file"))?;
        let pem = file.private_key.map(Secret::new);
        match file.kind.as_deref() {
            Some("service_account") | None => {}
            Some("authorized_user") => {
                return Err(Error::config(
                    "the JSON is a person's login (authorized_user); create a key of a service account",
                ));
            }
            Some(_) => {
                return Err(Error::config(
                    "the `type` in the JSON is not service_account; create a key of a service account",
                ));
            }
        }
        let missing =
            |name| Error::config(format!("the service account JSON has no {name}; download the key file again"));
        let email = file.client_email.ok_or_else(|| missing("client_email"))?;
        let key = SigningKey::from_pem(pem.ok_or_else(|| missing("private_key"))?)?;
        if !key.is_rsa() {
            return Err(Error::config("the private_key of a service account must be an RSA key"));
        }
        let key = match file.private_key_id {
            Some(id) => key.key_id(id),
            None => key,
        };
        let token_url = file.token_uri.unwrap_or_else(|| TOKEN_URL.to_owned());
        let audience = token_url.clone();
        Ok(GoogleServiceAccount {
            email,
            key,
            audience,
            token_url,
            scope: String::new(),
            subject: None,
            scope_warning: ScopeWarning::default(),
        })
    }

    /// Sets the scopes of the token, separated by blanks. Required.
    #[must_use]
    pub fn scope(self, scope: impl Into<String>) -> GoogleServiceAccount {
        GoogleServiceAccount { scope: scope.into(), ..self }
    }

    /// Sets the user on whose behalf the account acts (domain-wide delegation, the claim `sub`): an e-mail address.
    ///
    /// An administrator of the Google Workspace domain must have authorized the account for these scopes. Default:
    /// none, the account acts for itself.
    #[must_use]
    pub fn subject(self, subject: impl Into<String>) -> GoogleServiceAccount {
        GoogleServiceAccount { subject: Some(subject.into()), ..self }
    }

    /// Sends requests to `url` instead of the `token_uri` of the file, for a gateway or a test. The audience (`aud`) of
    /// the assertion stays the `token_uri`.
    #[must_use]
    pub fn token_url(self, url: impl Into<String>) -> GoogleServiceAccount {
        GoogleServiceAccount { token_url: url.into(), ..self }
    }

    fn request_grant(&self, http: &Http, now: SystemTime) -> Result<Grant, Error> {
        let claims = Claims {
            iss: &self.email,
            sub: self.subject.as_deref(),
            scope: Some(&self.scope),
            aud: &self.audience,
            jti: None,
            times: Times::new(now, LIFETIME)?,
            more: Default::default(),
        };
        let assertion = sign(Signer::Key(&self.key), None, &claims)?;
        let json = exchange(http, &self.token_url, &assertion, &[], &[&assertion])?;
        self.scope_warning.check(NAME, &self.scope, &json);
        parse_grant(json)
    }
}

impl Provider for GoogleServiceAccount {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        let identity = Identity::new(NAME).part("url", &self.token_url).part("account", &self.email);
        let identity = identity.part("audience", &self.audience).part("scope", &self.scope);
        let identity = match &self.subject {
            Some(subject) => identity.part("subject", subject),
            None => identity,
        };
        identity.secret(self.key.fingerprint())
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_grant(context.http(), context.now()).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        check_texts(&[("account's client_email", &self.email), ("scope", &self.scope)])
            .and_then(|()| check_line("the subject", self.subject.as_deref().unwrap_or_default()))
            .and_then(|()| check_url_setting("token_url", &self.token_url))
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        Profile { default_lifetime: Duration::from_secs(3600), ..Profile::default() }
    }
}

impl fmt::Debug for GoogleServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoogleServiceAccount")
            .field("email", &self.email)
            .field("key", &self.key)
            .field("token_url", &plain_url(&self.token_url))
            .field("scope", &self.scope)
            .field("subject", &self.subject)
            .finish()
    }
}

const NAME: &str = "google";

const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";

/// How long an assertion is valid: one hour, the longest that Google allows, which tolerates a clock that is behind.
const LIFETIME: Duration = Duration::from_secs(3600);
