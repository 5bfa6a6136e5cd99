//! The JWT bearer grant (RFC 7523, section 2.1) at any server: a signed assertion is exchanged for an access token.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind};
use crate::http::{Http, Json};
use crate::key::Identity;
use crate::name::unique_name;
use crate::provider::base_url::check_url_setting;
use crate::provider::errors::ErrorRule;
use crate::provider::jwt::{Claims, Signer, SigningKey, Times, sign};
use crate::provider::oauth2::assertion::LIFETIME;
use crate::provider::oauth2::scope::ScopeWarning;
use crate::provider::oauth2::{
    OAuthErrors, OwnParam, add_params_to_identity, check_default_lifetime, check_params, split_url,
};
use crate::provider::settings::{check_line, check_texts};
use crate::provider::{Context, Grant, Profile, Provider, parse_grant};
use crate::secret::{Secret, plain_url};

/// Fetches tokens for an assertion that this program signs
/// (`grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer`, RFC 7523, section 2.1).
///
/// Salesforce, DocuSign, Box and many other servers grant tokens in this way. Each request has an assertion of its own,
/// valid for five minutes. For a Google service account use [`GoogleServiceAccount`](crate::GoogleServiceAccount); for
/// a client that authenticates with an assertion (`private_key_jwt`) use
/// [`OAuth2::private_key_jwt`](crate::OAuth2::private_key_jwt).
///
/// ```no_run
/// use evertoken::provider::oauth2::{JwtBearer, SigningKey};
///
/// let key = SigningKey::from_pem_file("server.key")?;
/// let provider = JwtBearer::new("https://login.example/oauth2/token", key)
///     .issuer("client-id")
///     .subject("user@example.com")
///     .audience("https://login.example");
/// # Ok::<(), evertoken::Error>(())
/// ```
#[derive(Clone)]
pub struct JwtBearer {
    token_url: String,
    key: SigningKey,
    issuer: String,
    subject: Option<String>,
    audience: Option<String>,
    scope: Option<String>,
    claims: Map<String, Value>,
    params: Vec<(String, Secret)>,
    default_lifetime: Duration,
    scope_warning: ScopeWarning,
}

impl JwtBearer {
    /// Makes a provider for the token endpoint `token_url`. The [`issuer`](JwtBearer::issuer) is required.
    ///
    /// [`SigningKey::key_id`] sets the id under which the server knows the key (`kid`).
    pub fn new(token_url: impl Into<String>, key: SigningKey) -> JwtBearer {
        JwtBearer {
            token_url: token_url.into(),
            key,
            issuer: String::new(),
            subject: None,
            audience: None,
            scope: None,
            claims: Map::new(),
            params: Vec::new(),
            default_lifetime: Profile::default().default_lifetime,
            scope_warning: ScopeWarning::default(),
        }
    }

    /// Sets the issuer of the assertion (`iss`), often the `client_id`. Required.
    #[must_use]
    pub fn issuer(self, issuer: impl Into<String>) -> JwtBearer {
        JwtBearer { issuer: issuer.into(), ..self }
    }

    /// Sets the user or account that the token is for (`sub`). Default: the issuer.
    #[must_use]
    pub fn subject(self, subject: impl Into<String>) -> JwtBearer {
        JwtBearer { subject: Some(subject.into()), ..self }
    }

    /// Sets the name of the server (`aud`). Default: the URL of the token endpoint, without a query.
    #[must_use]
    pub fn audience(self, audience: impl Into<String>) -> JwtBearer {
        JwtBearer { audience: Some(audience.into()), ..self }
    }

    /// Sets the scopes of the token, separated by blanks. The scopes are a parameter of the request, as the standard
    /// prescribes. For a server that expects them in the assertion, use [`claim`](JwtBearer::claim).
    #[must_use]
    pub fn scope(self, scope: impl Into<String>) -> JwtBearer {
        JwtBearer { scope: Some(scope.into()), ..self }
    }

    /// Adds a claim to the assertion.
    #[must_use]
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<String>) -> JwtBearer {
        self.claims.insert(name.into(), Value::String(value.into()));
        self
    }

    /// Adds a parameter to the request, such as `client_id`. The value is treated as a secret.
    ///
    /// `grant_type`, `assertion` and `scope` are set by the provider itself and are refused here.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Secret>) -> JwtBearer {
        self.params.push((name.into(), value.into()));
        self
    }

    /// Sets the lifetime of a token when the server does not name one (`expires_in`). Default: 300 s.
    #[must_use]
    pub fn default_lifetime(self, lifetime: Duration) -> JwtBearer {
        JwtBearer { default_lifetime: lifetime, ..self }
    }

    fn request_grant(&self, http: &Http, now: SystemTime) -> Result<Grant, Error> {
        let claims = Claims {
            iss: &self.issuer,
            sub: Some(self.subject.as_deref().unwrap_or(&self.issuer)),
            scope: None,
            aud: self.audience.as_deref().unwrap_or(split_url(&self.token_url).0),
            jti: Some(unique_name()?),
            times: Times::new(now, LIFETIME)?,
            more: self.claims.clone(),
        };
        let assertion = sign(Signer::Key(&self.key), None, &claims)?;
        let scope = self.scope.iter().map(|scope| ("scope", scope.as_str()));
        let params = self.params.iter().map(|(name, value)| (name.as_str(), value.expose()));
        let more: Vec<_> = scope.chain(params).collect();
        let mut secrets: Vec<_> = self.params.iter().map(|(_, value)| value).collect();
        secrets.push(&assertion);
        let json = exchange(http, &self.token_url, &assertion, &more, &secrets)?;
        self.scope_warning.check(NAME, self.scope.as_deref().unwrap_or_default(), &json);
        parse_grant(json)
    }
}

impl Provider for JwtBearer {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        let (endpoint, query) = split_url(&self.token_url);
        let mut identity = Identity::new(NAME).part("url", endpoint).part("issuer", &self.issuer);
        for (name, value) in [("subject", &self.subject), ("audience", &self.audience), ("scope", &self.scope)] {
            if let Some(value) = value {
                identity = identity.part(name, value);
            }
        }
        let mut claims: Vec<_> = self.claims.iter().map(|(name, value)| (name, value.as_str())).collect();
        claims.sort();
        for (name, value) in claims {
            identity = identity.part("claim", name).secret(&Secret::from(value.unwrap_or_default()));
        }
        let identity = add_params_to_identity(identity, &self.params);
        identity.secret(&Secret::from(query)).secret(self.key.fingerprint())
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_grant(context.http(), context.now()).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        check_texts(&[("issuer", &self.issuer)])
            .and_then(|()| check_line("the subject", self.subject.as_deref().unwrap_or_default()))
            .and_then(|()| check_line("the scope", self.scope.as_deref().unwrap_or_default()))
            .and_then(|()| check_params(&self.params, OWN_PARAMS))
            .and_then(|()| check_default_lifetime(self.default_lifetime))
            .and_then(|()| match self.claims.keys().find(|name| OWN_CLAIMS.contains(&name.as_str())) {
                Some(name) => Err(Error::config(format!("the claim {name} is set by the provider itself; remove it"))),
                None => Ok(()),
            })
            .and_then(|()| check_url_setting("token_url", &self.token_url))
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        Profile { default_lifetime: self.default_lifetime, ..Profile::default() }
    }
}

impl fmt::Debug for JwtBearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtBearer")
            .field("token_url", &plain_url(&self.token_url))
            .field("key", &self.key)
            .field("issuer", &self.issuer)
            .field("subject", &self.subject)
            .field("audience", &self.audience.as_deref().map(plain_url))
            .field("scope", &self.scope)
            .field("claims", &self.claims.keys().collect::<Vec<_>>())
            .field("params", &self.params)
            .field("default_lifetime", &self.default_lifetime)
            .finish()
    }
}

/// Sends the assertion, and `more` as further parameters, and returns the JSON of the reply.
pub(super) fn exchange(
    http: &Http,
    token_url: &str,
    assertion: &Secret,
    more: &[(&str, &str)],
    secrets: &[&Secret],
) -> Result<Json, Error> {
    let mut form = vec![("grant_type", GRANT_TYPE), ("assertion", assertion.expose())];
    form.extend(more);
    let reply = http.post_form(token_url, &form).send()?;
    ERRORS.accept(&reply, secrets)
}

const NAME: &str = "jwt-bearer";

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

const OWN_CLAIMS: &[&str] = &["aud", "exp", "iat", "iss", "jti", "sub"];

const OWN_PARAMS: &[OwnParam] =
    &[("assertion", "remove it"), ("grant_type", "remove it"), ("scope", "use `scope(..)`")];

const ERRORS: OAuthErrors = OAuthErrors { rules: &[ERROR_RULES], ..OAuthErrors::STANDARD };

const ERROR_RULES: &[ErrorRule] = &[
    (
        "invalid_grant",
        ErrorKind::InvalidCredentials,
        "the server does not accept the signed assertion; check this machine's clock, whether the key was revoked, the \
         issuer, subject and audience (each try signs a fresh one)",
    ),
    (
        "invalid_client",
        ErrorKind::InvalidCredentials,
        "the issuer of the assertion is unknown to the server, or the server expects the client to authenticate, too",
    ),
    (
        "unauthorized_client",
        ErrorKind::InvalidCredentials,
        "the issuer may not have a token for this subject and scope; authorize it at the server, for another person by \
         an administrator (domain-wide delegation)",
    ),
];
