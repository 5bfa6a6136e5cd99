//! OAuth 2.0 client credentials (RFC 6749, section 4.4) at any server, and the client that the other grants share.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::error::Error;
use crate::http::{Json, form_encoded};
use crate::key::Identity;
use crate::provider::base_url::check_url_setting;
use crate::provider::jwt::{Signer, SigningKey};
use crate::provider::oauth2::scope::ScopeWarning;
use crate::provider::oauth2::{
    ASSERTION_TYPE, OAuthErrors, OwnParam, add_params_to_identity, assertion, check_default_lifetime, check_params,
    client_assertion, split_url,
};
use crate::provider::settings::{check_line, check_texts};
use crate::provider::{Context, Grant, Profile, Provider, parse_grant};
use crate::secret::{Secret, plain_url};

/// Fetches tokens with OAuth 2.0 client credentials (`grant_type=client_credentials`, RFC 6749, section 4.4).
///
/// The same type is the client of [`RefreshToken`](crate::RefreshToken) and [`DeviceSignIn`](crate::DeviceSignIn).
///
/// Servers differ in how a client authenticates at the `token_endpoint`. [`auth`](OAuth2::auth) selects the method,
/// under the names of `token_endpoint_auth_methods_supported` (OpenID Connect):
///
/// | Method | The client sends | Setting |
/// |---|---|---|
/// | `client_secret_basic` | id and secret in the `Authorization` header | [`ClientAuth::Basic`], the default |
/// | `client_secret_post` | `client_id` and `client_secret` in the body | [`ClientAuth::Post`] |
/// | `client_secret_jwt` | an assertion signed with the secret | [`ClientAuth::ClientSecretJwt`] |
/// | `private_key_jwt` | an assertion signed with a private key | [`OAuth2::private_key_jwt`] |
/// | `none` | `client_id` only | [`OAuth2::public`] |
///
/// The token is sent as a bearer token, whatever `token_type` the server names: servers write `bearer`, `Bearer`,
/// `BearerToken` or nothing and mean the same. Tokens that are bound to a key (DPoP) or to a certificate are not
/// supported.
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
    grant_type: Option<String>,
    scope: Option<String>,
    audience: Option<String>,
    resources: Vec<String>,
    params: Vec<(String, Secret)>,
    default_lifetime: Duration,
    scope_warning: ScopeWarning,
}

/// How a client authenticates at the token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClientAuth {
    /// `client_secret_basic`: id and secret in the `Authorization` header, form-encoded first, as RFC 6749, section
    /// 2.3.1 prescribes.
    #[default]
    Basic,
    /// `client_secret_basic` without the form encoding, for servers that do not decode. Only an id or a secret with
    /// other characters than letters, digits and `-._~` makes a difference.
    BasicRaw,
    /// `client_secret_post`: id and secret in the body.
    Post,
    /// `client_secret_jwt`: an assertion that is signed with the secret (HS256). The secret itself is not sent.
    ClientSecretJwt,
    /// `private_key_jwt`: an assertion that is signed with a private key. See [`OAuth2::private_key_jwt`].
    PrivateKeyJwt,
    /// `none`: only the id, in the body. For a public client, and for a client whose TLS certificate authenticates it
    /// (`tls_client_auth`; [`HttpConfig`](crate::HttpConfig) takes an agent with a certificate). The secret may be
    /// empty.
    None,
}

impl OAuth2 {
    /// Makes a client with a `client_secret`. `token_url` is the server's `token_endpoint`.
    pub fn new(token_url: impl Into<String>, client_id: impl Into<String>, secret: impl Into<Secret>) -> OAuth2 {
        OAuth2 {
            token_url: token_url.into(),
            client_id: client_id.into(),
            secret: secret.into(),
            key: None,
            assertion_audience: None,
            auth: ClientAuth::default(),
            grant_type: None,
            scope: None,
            audience: None,
            resources: Vec::new(),
            params: Vec::new(),
            default_lifetime: Profile::default().default_lifetime,
            scope_warning: ScopeWarning::default(),
        }
    }

    /// Makes a public client, which has no secret: a program that people install (RFC 8252).
    pub fn public(token_url: impl Into<String>, client_id: impl Into<String>) -> OAuth2 {
        OAuth2::new(token_url, client_id, "").auth(ClientAuth::None)
    }

    /// Makes a client that authenticates with a private key (`private_key_jwt`, RFC 7523, section 2.2). Each request
    /// has an assertion of its own, valid for five minutes.
    ///
    /// [`SigningKey::key_id`] sets the id under which the server knows the key (`kid`).
    pub fn private_key_jwt(token_url: impl Into<String>, client_id: impl Into<String>, key: SigningKey) -> OAuth2 {
        OAuth2 { key: Some(key), auth: ClientAuth::PrivateKeyJwt, ..OAuth2::new(token_url, client_id, "") }
    }

    /// Sets the audience (`aud`) of the client's assertions, for a server that does not accept the URL of its token
    /// endpoint there; many of these expect their issuer. Default: the URL of the token endpoint, without its query.
    #[must_use]
    pub fn assertion_audience(self, audience: impl Into<String>) -> OAuth2 {
        OAuth2 { assertion_audience: Some(audience.into()), ..self }
    }

    /// Sets how the client authenticates. Default: [`ClientAuth::Basic`].
    ///
    /// The provider does not try other methods after a failure, because servers count a wrong method as a failed
    /// attempt.
    #[must_use]
    pub fn auth(self, auth: ClientAuth) -> OAuth2 {
        OAuth2 { auth, ..self }
    }

    /// Sets the scopes of the token (`scope`), separated by blanks. Default: none, the server decides.
    ///
    /// When the server grants less, a log warning names the missing scopes, and the token is used.
    #[must_use]
    pub fn scope(self, scope: impl Into<String>) -> OAuth2 {
        OAuth2 { scope: Some(scope.into()), ..self }
    }

    /// Sets the parameter `audience`, which some servers require.
    #[must_use]
    pub fn audience(self, audience: impl Into<String>) -> OAuth2 {
        OAuth2 { audience: Some(audience.into()), ..self }
    }

    /// Adds a service that the token is for (`resource`, RFC 8707). Call again to add more.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> OAuth2 {
        self.resources.push(resource.into());
        self
    }

    /// Sets the parameter `grant_type`, for a server with a name of its own for a client's grant, such as Zoom's
    /// `account_credentials`. Default: `client_credentials`.
    ///
    /// Only for the client's own tokens: [`RefreshToken`](crate::RefreshToken) and
    /// [`DeviceSignIn`](crate::DeviceSignIn) have the grant types of their standards and refuse a client with another.
    #[must_use]
    pub fn grant_type(self, grant_type: impl Into<String>) -> OAuth2 {
        OAuth2 { grant_type: Some(grant_type.into()), ..self }
    }

    /// Adds any other parameter to the request. The value is treated as a secret.
    ///
    /// A parameter that the provider sets itself, such as `grant_type`, `scope` or `client_secret`, is an
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the manager is built: it would be sent twice. The error
    /// names the setting to use instead.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Secret>) -> OAuth2 {
        self.params.push((name.into(), value.into()));
        self
    }

    /// Sets the lifetime of a token when the server does not name one (`expires_in`). Default: 300 s.
    #[must_use]
    pub fn default_lifetime(self, lifetime: Duration) -> OAuth2 {
        OAuth2 { default_lifetime: lifetime, ..self }
    }

    /// Sends a request with the parameters `grant` to the token endpoint. `secrets` are the secrets in `grant`.
    pub(super) fn exchange(
        &self,
        context: &Context,
        grant: &[(&str, &str)],
        secrets: &[&Secret],
        errors: &OAuthErrors,
    ) -> Result<Json, Error> {
        self.exchange_at(&self.token_url, context, grant, secrets, errors)
    }

    /// Asks the device authorization endpoint of the same server for a code (RFC 8628, section 3.1).
    ///
    /// `client_id` is a required parameter there, also for a client that authenticates in a header. Servers that are
    /// built with oauthlib refuse a request without it.
    pub(super) fn request_device_code(
        &self,
        url: &str,
        context: &Context,
        errors: &OAuthErrors,
    ) -> Result<Json, Error> {
        let is_missing = !self.sends_client_id() && self.params.iter().all(|(name, _)| name != "client_id");
        let id = is_missing.then_some(("client_id", self.client_id.as_str()));
        self.exchange_at(url, context, id.as_slice(), &[], errors)
    }

    /// Sends a request to another endpoint of the same server.
    fn exchange_at(
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
        // The query of the URL may contain a key of the server's gateway.
        let query: Vec<_> = split_url(url).1.split(['&', '=']).map(Secret::from).collect();
        let query = query.iter().filter(|part| part.expose().len() >= MIN_QUERY_SECRET);
        let params = self.params.iter().map(|(_, value)| value);
        let secrets: Vec<_> =
            query.chain(params).chain([&self.secret]).chain(&assertion).chain(secrets.iter().copied()).collect();
        let json = errors.accept(&request.send()?, &secrets)?;
        self.scope_warning.check(NAME, self.scope.as_deref().unwrap_or_default(), &json);
        Ok(json)
    }

    /// Adds the client's settings to the parameters of a request.
    fn add_settings<'a>(&'a self, form: &mut Vec<(&'a str, &'a str)>) {
        form.extend(self.scope.iter().map(|scope| ("scope", scope.as_str())));
        form.extend(self.audience.iter().map(|audience| ("audience", audience.as_str())));
        form.extend(self.resources.iter().map(|resource| ("resource", resource.as_str())));
        form.extend(self.params.iter().map(|(name, value)| (name.as_str(), value.expose())));
        // Left out of the body when the header has it: some servers refuse a client that authenticates in two ways.
        if self.sends_client_id() {
            form.push(("client_id", &self.client_id));
        }
        if self.auth == ClientAuth::Post {
            form.push(("client_secret", self.secret.expose()));
        }
    }

    /// Returns true if the client's id is a parameter of each request.
    fn sends_client_id(&self) -> bool {
        !matches!(self.auth, ClientAuth::Basic | ClientAuth::BasicRaw)
    }

    /// Adds server and client id to an identity.
    pub(super) fn add_client_to_identity(&self, identity: Identity) -> Identity {
        identity.part("url", split_url(&self.token_url).0).part("client", &self.client_id)
    }

    /// Adds everything that a token of this client depends on to an identity.
    pub(super) fn add_to_identity(&self, identity: Identity) -> Identity {
        let mut identity = self.add_client_to_identity(identity);
        let settings = [("grant type", &self.grant_type), ("scope", &self.scope), ("audience", &self.audience)];
        for (name, value) in settings {
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

    /// Checks the settings for a grant that has its own grant type and the parameters `own`.
    pub(super) fn check_settings_for(&self, own: &[OwnParam]) -> Result<(), Error> {
        if self.grant_type.is_some() {
            return Err(Error::config(
                "the grant type is that of the standard here; remove `grant_type`, which is for a client's own tokens",
            ));
        }
        check_params(&self.params, own)?;
        self.check_settings()
    }

    /// Checks the settings.
    pub(super) fn check_settings(&self) -> Result<(), Error> {
        check_texts(&[("client id", &self.client_id)])?;
        if let Some(Err(error)) = self.signer() {
            return Err(error);
        }
        if self.secret.is_blank() && !matches!(self.auth, ClientAuth::None | ClientAuth::PrivateKeyJwt) {
            return Err(Error::config("the client secret is empty; a public client uses `OAuth2::public`"));
        }
        check_line("the client secret", self.secret.expose())?;
        check_line("the scope", self.scope.as_deref().unwrap_or_default())?;
        check_line("the audience", self.audience.as_deref().unwrap_or_default())?;
        self.resources.iter().try_for_each(|resource| check_line("a resource", resource))?;
        check_params(&self.params, OWN_PARAMS)?;
        if self.sends_client_id() {
            check_params(&self.params, &[("client_id", USE_CONSTRUCTOR)])?;
        }
        check_default_lifetime(self.default_lifetime)?;
        check_url_setting("token_url", &self.token_url)
    }

    /// Returns the key that signs the client's assertions, if the client authenticates with assertions.
    fn signer(&self) -> Option<Result<Signer<'_>, Error>> {
        match self.auth {
            ClientAuth::ClientSecretJwt => Some(Ok(Signer::Shared(&self.secret))),
            ClientAuth::PrivateKeyJwt => Some(self.key.as_ref().map(Signer::Key).ok_or_else(|| Error::config(NO_KEY))),
            _ => None,
        }
    }

    /// Makes a signed assertion of this client.
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
        let grant_type = self.grant_type.as_deref().unwrap_or("client_credentials");
        let json = self.exchange(context, &[("grant_type", grant_type)], &[], errors);
        json.and_then(parse_grant).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        check_texts(&[("grant type", self.grant_type.as_deref().unwrap_or("client_credentials"))])
            .and_then(|()| self.check_settings())
            .map_err(|error| error.of(NAME))
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
            .field("grant_type", &self.grant_type)
            .field("scope", &self.scope)
            .field("audience", &self.audience.as_deref().map(plain_url))
            .field("resources", &self.resources.iter().map(|resource| plain_url(resource)).collect::<Vec<_>>())
            .field("params", &self.params)
            .field("default_lifetime", &self.default_lifetime)
            .finish()
    }
}

const NAME: &str = "oauth2";

/// A shorter part of the URL's query is no secret, but may be a part of an error code.
const MIN_QUERY_SECRET: usize = 6;

const NO_KEY: &str = "there is no key to sign with; build the client with `OAuth2::private_key_jwt`";

/// The parameters that the provider sends, or sends when a setting says so.
const OWN_PARAMS: &[OwnParam] = &[
    ("audience", "use `audience(..)`"),
    ("client_assertion", "use `private_key_jwt(..)` or `ClientAuth::ClientSecretJwt`"),
    ("client_assertion_type", "use `private_key_jwt(..)` or `ClientAuth::ClientSecretJwt`"),
    ("client_secret", USE_CONSTRUCTOR),
    ("grant_type", "use `grant_type(..)`"),
    ("resource", "use `resource(..)`"),
    ("scope", "use `scope(..)`"),
];

const USE_CONSTRUCTOR: &str = "pass it to `OAuth2::new(..)`, and select with `auth(..)` how it is sent";
