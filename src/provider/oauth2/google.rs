//! A service account of Google.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::error::Error;
use crate::http::{Http, check_url};
use crate::key::Identity;
use crate::provider::jwt::{Claims, Signer, SigningKey, Times, sign};
use crate::provider::oauth2::jwt_bearer::exchange;
use crate::provider::settings::{check_texts, read_file};
use crate::provider::{Context, Grant, Profile, Provider};
use crate::secret::{Secret, plain_url};

/// Grants the access tokens of a service account of Google, out of the JSON file that its console hands out.
///
/// The [scope](GoogleServiceAccount::scope) must be set. Each request has an assertion of its own.
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
}

/// What is read of the file. The key's text is a plain one here for a moment.
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
    /// Reads the account out of the text of its JSON file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when it is no JSON, not that of a service account, or its key
    /// cannot be read.
    pub fn from_json(json: impl Into<Secret>) -> Result<GoogleServiceAccount, Error> {
        GoogleServiceAccount::read(&json.into()).map_err(|error| error.of(NAME))
    }

    /// Reads the account out of its JSON file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the file cannot be read, and as with
    /// [`from_json`](GoogleServiceAccount::from_json).
    pub fn from_file(path: impl AsRef<Path>) -> Result<GoogleServiceAccount, Error> {
        let text = read_file(path.as_ref(), "the file of the service account").map_err(|error| error.of(NAME))?;
        GoogleServiceAccount::from_json(text)
    }

    fn read(json: &Secret) -> Result<GoogleServiceAccount, Error> {
        // What `serde_json` finds wrong may be a part of the text.
        let file = serde_json::from_str(json.expose());
        let file: File = file.map_err(|_| Error::config("the text is not the JSON of a service account"))?;
        let pem = file.private_key.map(Secret::new);
        match file.kind.as_deref() {
            Some("service_account") | None => {}
            Some("authorized_user") => {
                return Err(Error::config("the JSON is that of a person's login, not of a service account"));
            }
            Some(_) => return Err(Error::config("the JSON is not that of a service account")),
        }
        let missing = |name| Error::config(format!("the JSON of the service account has no {name}"));
        let email = file.client_email.ok_or_else(|| missing("client_email"))?;
        let key = SigningKey::from_pem(pem.ok_or_else(|| missing("private_key"))?)?;
        if !key.is_rsa() {
            return Err(Error::config("the key of a service account must be an RSA key"));
        }
        let key = match file.private_key_id {
            Some(id) => key.key_id(id),
            None => key,
        };
        let token_url = file.token_uri.unwrap_or_else(|| TOKEN_URL.to_owned());
        let audience = token_url.clone();
        Ok(GoogleServiceAccount { email, key, audience, token_url, scope: String::new(), subject: None })
    }

    /// The scopes to ask for, with blanks between them.
    #[must_use]
    pub fn scope(self, scope: impl Into<String>) -> GoogleServiceAccount {
        GoogleServiceAccount { scope: scope.into(), ..self }
    }

    /// The person on whose behalf the account acts (domain-wide delegation): an address. An administrator of the domain
    /// must have allowed it for these scopes. Default: nobody, the account acts for itself.
    #[must_use]
    pub fn subject(self, subject: impl Into<String>) -> GoogleServiceAccount {
        GoogleServiceAccount { subject: Some(subject.into()), ..self }
    }

    /// Asks here instead of at the `token_uri` of the file, for a gateway of your own or a test. The assertion is made
    /// out to the `token_uri` all the same.
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
        exchange(http, &self.token_url, &assertion, &[], &[&assertion])
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
            .and_then(|()| check_url(&self.token_url).map_err(Error::config))
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

/// The longest that is allowed. It costs nothing, and forgives a clock that is behind.
const LIFETIME: Duration = Duration::from_secs(3600);
