//! OAuth 2.0 client credentials (RFC 6749, section 4.4), at any server.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::error::Error;
use crate::http::{Json, check_url, form_encoded};
use crate::key::Identity;
use crate::provider::jwt::{Signer, SigningKey};
use crate::provider::oauth2::{
    ASSERTION_TYPE, OAuthErrors, add_params_to_identity, assertion, client_assertion, split_url,
};
use crate::provider::{Context, Grant, Profile, Provider, parse_grant};
use crate::secret::{Secret, plain_url};

/// Grants tokens by OAuth 2.0 client credentials.
///
/// The token is used as a bearer token, whatever `token_type` the server names: servers write `bearer`, `Bearer`,
/// `BearerToken` or nothing and mean the same. A token that the server binds to a key (DPoP) or to a certificate
/// needs more than this provider gives.
///
/// ```
/// use evertoken::OAuth2;
/// use evertoken::provider::oauth2::ClientAuth;
///
/// let provider = OAuth2::new("https://login.example/oauth2/token", "client-id", "client-secret")
///     .scope("orders.read orders.write")
///     .auth(ClientAuth::Post);
/// assert!(!format!("{provider:?}").contains("client-secret"));
/// ```
#[derive(Clone)]
pub struct OAuth2 {
    token_url: String,
    client_id: String,
    secret: Secret,
    key: Option<SigningKey>,
    assertion_audience: Option<String>,
    auth: ClientAuth,
    scope: Option<String>,
    audience: Option<String>,
    resources: Vec<String>,
    params: Vec<(String, Secret)>,
    default_lifetime: Duration,
}

/// How a client shows who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClientAuth {
    /// In the `Authorization` header, id and secret encoded as in a form first, as the standard wants it
    /// (`client_secret_basic`).
    #[default]
    Basic,
    /// The same without the encoding, for servers that do not undo it. It matters only when id or secret have other
    /// characters than letters, digits and `-._~`.
    BasicRaw,
    /// In the body (`client_secret_post`).
    Post,
    /// By an assertion that is signed with the secret, by HS256 (`client_secret_jwt`). The secret itself stays here.
    ClientSecretJwt,
    /// By an assertion that is signed with a key (`private_key_jwt`). See [`OAuth2::private_key_jwt`].
    PrivateKeyJwt,
    /// The id alone, in the body. The connection proves the rest (a client certificate of a lent agent). The secret may
    /// be empty.
    None,
}

impl OAuth2 {
    /// The client `client_id` of the server whose token endpoint is `token_url`.
    pub fn new(token_url: impl Into<String>, client_id: impl Into<String>, secret: impl Into<Secret>) -> OAuth2 {
        OAuth2 {
            token_url: token_url.into(),
            client_id: client_id.into(),
            secret: secret.into(),
            key: None,
            assertion_audience: None,
            auth: ClientAuth::default(),
            scope: None,
            audience: None,
            resources: Vec::new(),
            params: Vec::new(),
            default_lifetime: Profile::default().default_lifetime,
        }
    }

    /// The same for a client without a secret, as a program is that people install (RFC 8252).
    pub fn public(token_url: impl Into<String>, client_id: impl Into<String>) -> OAuth2 {
        OAuth2::new(token_url, client_id, "").auth(ClientAuth::None)
    }

    /// The same for a client that has a key instead of a secret, and signs with it (`private_key_jwt`, RFC 7523). Each
    /// request has an assertion of its own, good for five minutes.
    ///
    /// What the server calls the key is said by [`SigningKey::key_id`].
    pub fn private_key_jwt(token_url: impl Into<String>, client_id: impl Into<String>, key: SigningKey) -> OAuth2 {
        OAuth2 { key: Some(key), auth: ClientAuth::PrivateKeyJwt, ..OAuth2::new(token_url, client_id, "") }
    }

    /// What the server calls itself, where it does not take an assertion that is made out to its token endpoint: its
    /// issuer, mostly. Default: the address of the token endpoint, without its query.
    #[must_use]
    pub fn assertion_audience(self, audience: impl Into<String>) -> OAuth2 {
        OAuth2 { assertion_audience: Some(audience.into()), ..self }
    }

    /// How the client shows who it is. Default: [`ClientAuth::Basic`]. Servers differ, and a wrong guess counts as a
    /// failed attempt, so nothing is tried in turn.
    #[must_use]
    pub fn auth(self, auth: ClientAuth) -> OAuth2 {
        OAuth2 { auth, ..self }
    }

    /// The scopes to ask for, with blanks between them.
    #[must_use]
    pub fn scope(self, scope: impl Into<String>) -> OAuth2 {
        OAuth2 { scope: Some(scope.into()), ..self }
    }

    /// The `audience` that some servers ask for.
    #[must_use]
    pub fn audience(self, audience: impl Into<String>) -> OAuth2 {
        OAuth2 { audience: Some(audience.into()), ..self }
    }

    /// A service that the token is for (RFC 8707). May be called again for more.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> OAuth2 {
        self.resources.push(resource.into());
        self
    }

    /// Any further parameter of the request. Its value is treated as a secret.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Secret>) -> OAuth2 {
        self.params.push((name.into(), value.into()));
        self
    }

    /// The lifetime of a token when the server names none. Default: 300 s.
    #[must_use]
    pub fn default_lifetime(self, lifetime: Duration) -> OAuth2 {
        OAuth2 { default_lifetime: lifetime, ..self }
    }

    /// Asks for a token with this grant. `secrets` are those in it.
    pub(super) fn exchange(
        &self,
        context: &Context,
        grant: &[(&str, &str)],
        secrets: &[&Secret],
        errors: &OAuthErrors,
    ) -> Result<Json, Error> {
        self.exchange_at(&self.token_url, context, grant, secrets, errors)
    }

    /// The same at another endpoint of the server.
    pub(super) fn exchange_at(
        &self,
        url: &str,
        context: &Context,
        grant: &[(&str, &str)],
        secrets: &[&Secret],
        errors: &OAuthErrors,
    ) -> Result<Json, Error> {
        let assertion = self.signer().map(|signer| self.assertion(signer?, context.now())).transpose()?;
        let mut form = grant.to_vec();
        self.add_settings(&mut form);
        if let Some(assertion) = &assertion {
            form.extend([("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion.expose())]);
        }
        let request = context.http().post_form(url, &form);
        let request = match self.auth {
            ClientAuth::Basic => {
                let secret = Secret::new(form_encoded(self.secret.expose()).as_str());
                request.basic(&form_encoded(&self.client_id), &secret)
            }
            ClientAuth::BasicRaw => request.basic(&self.client_id, &self.secret),
            _ => request,
        };
        let params = self.params.iter().map(|(_, value)| value);
        let secrets: Vec<_> = params.chain([&self.secret]).chain(&assertion).chain(secrets.iter().copied()).collect();
        errors.accept(&request.send()?, &secrets)
    }

    fn add_settings<'a>(&'a self, form: &mut Vec<(&'a str, &'a str)>) {
        form.extend(self.scope.iter().map(|scope| ("scope", scope.as_str())));
        form.extend(self.audience.iter().map(|audience| ("audience", audience.as_str())));
        form.extend(self.resources.iter().map(|resource| ("resource", resource.as_str())));
        form.extend(self.params.iter().map(|(name, value)| (name.as_str(), value.expose())));
        // Never beside the header: some servers refuse a client that shows itself twice.
        if !matches!(self.auth, ClientAuth::Basic | ClientAuth::BasicRaw) {
            form.push(("client_id", &self.client_id));
        }
        if self.auth == ClientAuth::Post {
            form.push(("client_secret", self.secret.expose()));
        }
    }

    /// Adds to an identity which client of which server this is.
    pub(super) fn add_client_to_identity(&self, identity: Identity) -> Identity {
        identity.part("url", split_url(&self.token_url).0).part("client", &self.client_id)
    }

    /// Adds to an identity all that the token depends on.
    pub(super) fn add_to_identity(&self, identity: Identity) -> Identity {
        let mut identity = self.add_client_to_identity(identity);
        for (name, value) in [("scope", &self.scope), ("audience", &self.audience)] {
            if let Some(value) = value {
                identity = identity.part(name, value);
            }
        }
        let mut resources = self.resources.clone();
        resources.sort();
        for resource in resources {
            identity = identity.part("resource", resource);
        }
        let identity = add_params_to_identity(identity, &self.params);
        let secret = self.key.as_ref().map_or(&self.secret, SigningKey::fingerprint);
        identity.secret(&Secret::from(split_url(&self.token_url).1)).secret(secret)
    }

    /// Says what is wrong with the settings.
    pub(super) fn check_settings(&self) -> Result<(), Error> {
        let fault = if self.client_id.trim().is_empty() {
            Err("the client id is empty")
        } else if let Some(Err(error)) = self.signer() {
            return Err(error);
        } else if self.secret.is_blank() && !matches!(self.auth, ClientAuth::None | ClientAuth::PrivateKeyJwt) {
            Err("the client secret is empty")
        } else if self.default_lifetime.is_zero() {
            Err("a default lifetime of zero would make every token a dead one")
        } else {
            check_url(&self.token_url)
        };
        fault.map_err(Error::config)
    }

    /// What signs the client's assertion, if it shows itself by one.
    fn signer(&self) -> Option<Result<Signer<'_>, Error>> {
        match self.auth {
            ClientAuth::ClientSecretJwt => Some(Ok(Signer::Shared(&self.secret))),
            ClientAuth::PrivateKeyJwt => Some(self.key.as_ref().map(Signer::Key).ok_or_else(|| Error::config(NO_KEY))),
            _ => None,
        }
    }

    fn assertion(&self, signer: Signer<'_>, now: SystemTime) -> Result<Secret, Error> {
        let audience = self.assertion_audience.as_deref().unwrap_or(split_url(&self.token_url).0);
        client_assertion(signer, None, &self.client_id, audience, now)
    }
}

impl Provider for OAuth2 {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        self.add_to_identity(Identity::new(NAME))
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        let errors = if self.signer().is_some() { &assertion::ERRORS } else { &OAuthErrors::STANDARD };
        let json = self.exchange(context, &[("grant_type", "client_credentials")], &[], errors);
        json.and_then(parse_grant).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        self.check_settings().map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        Profile { default_lifetime: self.default_lifetime, ..Profile::default() }
    }
}

impl fmt::Debug for OAuth2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth2")
            .field("token_url", &plain_url(&self.token_url))
            .field("client_id", &self.client_id)
            .field("secret", &self.secret)
            .field("key", &self.key)
            .field("assertion_audience", &self.assertion_audience.as_deref().map(plain_url))
            .field("auth", &self.auth)
            .field("scope", &self.scope)
            .field("audience", &self.audience.as_deref().map(plain_url))
            .field("resources", &self.resources.iter().map(|resource| plain_url(resource)).collect::<Vec<_>>())
            .field("params", &self.params)
            .field("default_lifetime", &self.default_lifetime)
            .finish()
    }
}

const NAME: &str = "oauth2";

const NO_KEY: &str = "there is no key to sign with; `OAuth2::private_key_jwt` takes it";
