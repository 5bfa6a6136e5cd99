//! OAuth 2.0 client credentials (RFC 6749, section 4.4), at any server.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::http::{Http, Reply, check_url, form_encoded};
use crate::key::Identity;
use crate::provider::{Context, Grant, Profile, Provider, granted, with_code};
use crate::secret::{Secret, plain_url};

/// Grants tokens by OAuth 2.0 client credentials.
///
/// The token is used as a bearer token, whatever `token_type` the server names: servers write `bearer`, `Bearer`,
/// `BearerToken` or nothing and mean the same. A token that the server binds to a key (DPoP) or to a certificate
/// needs more than this provider gives.
///
/// ```
/// use evertoken::{ClientAuth, OAuth2};
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
    auth: ClientAuth,
    scope: Option<String>,
    audience: Option<String>,
    resources: Vec<String>,
    params: Vec<(String, Secret)>,
    default_life: Duration,
}

/// How a client shows who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// The id alone, in the body. The connection proves the rest (a client certificate of a lent agent), or an
    /// assertion that is added with [`OAuth2::param`]. The secret may be empty.
    None,
}

impl OAuth2 {
    /// The client `client_id` of the server whose token endpoint is `token_url`.
    pub fn new(token_url: impl Into<String>, client_id: impl Into<String>, secret: impl Into<Secret>) -> OAuth2 {
        OAuth2 {
            token_url: token_url.into(),
            client_id: client_id.into(),
            secret: secret.into(),
            auth: ClientAuth::default(),
            scope: None,
            audience: None,
            resources: Vec::new(),
            params: Vec::new(),
            default_life: Profile::default().default_life,
        }
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

    /// The life of a token when the server names none. Default: 300 s.
    #[must_use]
    pub fn default_life(self, life: Duration) -> OAuth2 {
        OAuth2 { default_life: life, ..self }
    }

    fn ask(&self, http: &Http) -> Result<Grant, Error> {
        let request = http.post_form(&self.token_url, &self.form());
        let request = match self.auth {
            ClientAuth::Basic => {
                let secret = Secret::new(form_encoded(self.secret.expose()).as_str());
                request.basic(&form_encoded(&self.client_id), &secret)
            }
            ClientAuth::BasicRaw => request.basic(&self.client_id, &self.secret),
            ClientAuth::Post | ClientAuth::None => request,
        };
        self.judge(&request.send()?)
    }

    fn form(&self) -> Vec<(&str, &str)> {
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(self.scope.iter().map(|scope| ("scope", scope.as_str())));
        form.extend(self.audience.iter().map(|audience| ("audience", audience.as_str())));
        form.extend(self.resources.iter().map(|resource| ("resource", resource.as_str())));
        form.extend(self.params.iter().map(|(name, value)| (name.as_str(), value.expose())));
        // Never beside the header: some servers refuse a client that shows itself twice.
        if matches!(self.auth, ClientAuth::Post | ClientAuth::None) {
            form.push(("client_id", &self.client_id));
        }
        if self.auth == ClientAuth::Post {
            form.push(("client_secret", self.secret.expose()));
        }
        form
    }

    fn judge(&self, reply: &Reply) -> Result<Grant, Error> {
        let json = reply.json();
        // Some servers send an error with HTTP 200.
        if let Some(code) = json.as_ref().ok().and_then(|json| json.code("error")).filter(|code| !code.is_empty()) {
            return Err(with_code(refusal(reply, &code), code, self.secrets()));
        }
        if !reply.is_success() {
            return Err(paused(reply.refusal()));
        }
        granted(json?)
    }

    fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.params.iter().map(|(_, value)| value).chain([&self.secret])
    }

    /// The endpoint, and its query, which may hold a secret.
    fn split_url(&self) -> (&str, &str) {
        self.token_url.split_once('?').unwrap_or((&self.token_url, ""))
    }
}

impl Provider for OAuth2 {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        let (endpoint, query) = self.split_url();
        let mut identity = Identity::new(NAME).part("url", endpoint).part("client", &self.client_id);
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
        let mut params: Vec<_> = self.params.iter().map(|(name, value)| (name, value)).collect();
        params.sort_by_key(|(name, value)| (*name, value.expose()));
        for (name, value) in params {
            identity = identity.part("param", name).secret(value);
        }
        identity.secret(&Secret::from(query)).secret(&self.secret)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.ask(context.http()).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        let fault = if self.client_id.trim().is_empty() {
            Err("the client id is empty")
        } else if self.secret.is_blank() && self.auth != ClientAuth::None {
            Err("the client secret is empty")
        } else if self.default_life.is_zero() {
            Err("a default life of zero would make every token a dead one")
        } else {
            check_url(&self.token_url)
        };
        fault.map_err(|text| Error::config(text).of(NAME))
    }

    fn profile(&self) -> Profile {
        Profile { default_life: self.default_life, ..Profile::default() }
    }
}

impl fmt::Debug for OAuth2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth2")
            .field("token_url", &plain_url(&self.token_url))
            .field("client_id", &self.client_id)
            .field("secret", &self.secret)
            .field("auth", &self.auth)
            .field("scope", &self.scope)
            .field("audience", &self.audience.as_deref().map(plain_url))
            .field("resources", &self.resources.iter().map(|resource| plain_url(resource)).collect::<Vec<_>>())
            .field("params", &self.params)
            .field("default_life", &self.default_life)
            .finish()
    }
}

/// What an error code of the token endpoint means.
fn refusal(reply: &Reply, code: &str) -> Error {
    let by_status = reply.refusal();
    let error = match CODES.iter().find(|(known, ..)| *known == code) {
        // Too many calls is too many calls, whatever code comes with it.
        Some((_, kind, advice)) if reply.status() != 429 => by_status.recast(*kind, advice),
        _ if reply.is_success() => by_status.recast(ErrorKind::Protocol, "the token was refused"),
        _ => by_status,
    };
    paused(error)
}

/// A server that says "too much" and not how long gets a pause all the same.
fn paused(error: Error) -> Error {
    let silent = error.kind() == ErrorKind::Throttled && error.retry_after().is_none();
    if silent { error.with_retry_after(THROTTLED) } else { error }
}

const NAME: &str = "oauth2";

const THROTTLED: Duration = Duration::from_secs(5);

/// The codes of the token endpoint: the standards', and those that servers have made up beside them.
const CODES: &[(&str, ErrorKind, &str)] = &[
    ("access_denied", ErrorKind::NotAllowed, "the server does not allow this client the token"),
    ("internal_failure", ErrorKind::Unavailable, "the server has an internal fault"),
    ("invalid_client", ErrorKind::Denied, "the client id or secret is wrong, or is sent in another way than wanted"),
    ("invalid_grant", ErrorKind::Denied, "the server does not accept the grant"),
    ("invalid_request", ErrorKind::Config, "the server misses or does not know a parameter"),
    ("invalid_resource", ErrorKind::Config, "the server does not know the resource"),
    ("invalid_scope", ErrorKind::Config, "the scope is unknown or not open to this client"),
    ("invalid_target", ErrorKind::Config, "the server does not know the resource or audience"),
    ("server_error", ErrorKind::Unavailable, "the server has an internal fault"),
    ("slow_down", ErrorKind::Throttled, "there were too many calls"),
    ("temporarily_unavailable", ErrorKind::Unavailable, "the server is busy"),
    ("unauthorized_client", ErrorKind::Denied, "the client may not use client credentials"),
    ("unsupported_grant_type", ErrorKind::Config, "the server does not know client credentials"),
];
