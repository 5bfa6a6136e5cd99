//! What grants tokens: the trait, and one file for each provider.

mod from_fn;
mod oauth2;
mod wecom;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use from_fn::{FromFn, from_fn};
pub use oauth2::{ClientAuth, OAuth2};
pub use wecom::WeCom;

pub use crate::http::{Http, Json, Reply, Request};

use crate::clock::Deadline;
use crate::error::Error;
use crate::http::{HeaderMap, HttpConfig};
use crate::key::Identity;
use crate::secret::Secret;
use crate::token::check_text;

/// Grants tokens for one credential.
///
/// Two methods are enough; see `examples/custom_provider.rs`, or [`from_fn`] for a closure. The manager calls
/// [`fetch`](Provider::fetch) on a thread of its own, once at a time. It may block, fail and even panic: nothing gets
/// stuck. It must not ask its own manager for a token (that is answered with an error, not a deadlock).
pub trait Provider: Send + Sync + 'static {
    /// A short name for people: `"wecom"`.
    fn name(&self) -> &str;

    /// What makes this credential this one. It must cover all that a token depends on: endpoint, ids, scope, secret.
    fn identity(&self) -> Identity;

    /// Asks for a token. Blocks until there is one, up to [`Context::deadline`].
    ///
    /// # Errors
    ///
    /// The [kind](crate::ErrorKind) decides what the manager does next: how long it pauses, and whether callers may
    /// retry.
    fn fetch(&self, context: &Context) -> Result<Grant, Error>;

    /// Says what is wrong with the settings, before anything is sent.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with a text that names the setting.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// How this provider treats its tokens.
    fn profile(&self) -> Profile {
        Profile::default()
    }

    /// Where the service wants the token.
    fn carry(&self) -> Carry {
        Carry::bearer()
    }

    /// What an answer of the *service* (not of the token endpoint) says about the token it was asked with.
    ///
    /// The default knows HTTP: 401 and `invalid_token` reject it, 429 throttles.
    fn verdict(&self, answer: &Answer<'_>) -> Verdict {
        answer.http_verdict()
    }
}

/// What a fetch may use.
#[derive(Debug)]
pub struct Context {
    http: Http,
    deadline: Deadline,
}

impl Context {
    /// A context of at most `wait`, for tests of a provider of your own. The manager makes its contexts itself.
    pub fn new(http: impl Into<HttpConfig>, wait: Duration) -> Context {
        Context::until(&Http::new(Arc::new(http.into())), Deadline::within(wait))
    }

    pub(crate) fn until(http: &Http, deadline: Deadline) -> Context {
        Context { http: http.until(deadline), deadline }
    }

    /// The HTTP client: bounded by this fetch's deadline, follows no redirect, tells no secret in its errors.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// When the fetch must be over. Later the result is of little use: its callers have gone.
    pub fn deadline(&self) -> Instant {
        self.deadline.instant()
    }

    /// How long the fetch may still take.
    pub fn remaining(&self) -> Duration {
        self.deadline.remaining()
    }
}

/// A token as it was granted.
#[derive(Debug)]
#[must_use]
pub struct Grant {
    token: Secret,
    life: Option<Duration>,
}

impl Grant {
    /// A token and how long it lives from now on. A life of more than 30 days is taken for 30 days; for `None`, when
    /// the provider does not tell, [`Profile::default_life`] is taken.
    pub fn new(token: impl Into<Secret>, life: impl Into<Option<Duration>>) -> Grant {
        Grant { token: token.into(), life: life.into() }
    }

    /// The token.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// How long it lives, when the provider told.
    pub fn life(&self) -> Option<Duration> {
        self.life
    }

    /// The token and its life, when both make sense.
    pub(crate) fn into_parts(self, profile: &Profile) -> Result<(Secret, Duration), Error> {
        check_text(&self.token).map_err(Error::protocol)?;
        let life = self.life.unwrap_or(profile.default_life).min(LONGEST_LIFE);
        if life.is_zero() {
            return Err(Error::protocol("the provider granted a token whose life is over"));
        }
        Ok((self.token, life))
    }
}

/// Nothing is believed to live longer.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// How a provider treats its tokens, as data.
///
/// ```
/// use std::time::Duration;
/// use evertoken::Profile;
///
/// let profile = Profile::default().default_life(Duration::from_secs(7200)).new_token_ends_old(true);
/// assert!(profile.new_token_ends_old);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Profile {
    /// The life of a token when the provider names none. Default: 300 s.
    pub default_life: Duration,
    /// How long before its end a token is renewed, unless the builder says otherwise. Default: 300 s.
    pub refresh_ahead: Duration,
    /// How long before a token's end the provider starts to grant another one; asked earlier it gives the same back.
    /// Default: `None`, at any time.
    pub earliest_lead: Option<Duration>,
    /// True when the provider, giving the same token back, tells its true remaining life or extends it. Otherwise
    /// (the default) the end that is known stays, because no token must be used beyond it.
    pub same_token_extends: bool,
    /// True when a new token ends the old one. Then processes that cannot reach their shared store fetch seldom.
    /// Default: false.
    pub new_token_ends_old: bool,
    /// How long after a forced refresh another one is answered with the token it brought. Default: zero.
    pub forced_spacing: Duration,
}

impl Profile {
    /// Sets the life of a token when the provider names none.
    #[must_use]
    pub fn default_life(self, default_life: Duration) -> Profile {
        Profile { default_life, ..self }
    }

    /// Sets how long before its end a token is renewed.
    #[must_use]
    pub fn refresh_ahead(self, refresh_ahead: Duration) -> Profile {
        Profile { refresh_ahead, ..self }
    }

    /// Sets how long before a token's end the provider starts to grant another one.
    #[must_use]
    pub fn earliest_lead(self, lead: Duration) -> Profile {
        Profile { earliest_lead: Some(lead), ..self }
    }

    /// Sets whether the same token comes with its true, perhaps extended, life.
    #[must_use]
    pub fn same_token_extends(self, same_token_extends: bool) -> Profile {
        Profile { same_token_extends, ..self }
    }

    /// Sets whether a new token ends the old one.
    #[must_use]
    pub fn new_token_ends_old(self, new_token_ends_old: bool) -> Profile {
        Profile { new_token_ends_old, ..self }
    }

    /// Sets how long after a forced refresh another one brings nothing new.
    #[must_use]
    pub fn forced_spacing(self, forced_spacing: Duration) -> Profile {
        Profile { forced_spacing, ..self }
    }
}

impl Default for Profile {
    fn default() -> Profile {
        Profile {
            default_life: Duration::from_secs(300),
            refresh_ahead: Duration::from_secs(300),
            earliest_lead: None,
            same_token_extends: false,
            new_token_ends_old: false,
            forced_spacing: Duration::ZERO,
        }
    }
}

/// How a token travels with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Carry {
    /// In a header, after a scheme (`Bearer`) when there is one.
    Header {
        /// The header's name.
        name: Cow<'static, str>,
        /// What stands before the token, without the blank.
        scheme: Option<Cow<'static, str>>,
    },
    /// As a parameter of the query.
    Query {
        /// The parameter's name.
        name: Cow<'static, str>,
    },
}

impl Carry {
    /// `Authorization: Bearer <token>`
    pub fn bearer() -> Carry {
        Carry::Header { name: "authorization".into(), scheme: Some("Bearer".into()) }
    }

    /// `<name>: <token>`
    pub fn header(name: impl Into<Cow<'static, str>>) -> Carry {
        Carry::Header { name: name.into(), scheme: None }
    }

    /// `?<name>=<token>`
    pub fn query(name: impl Into<Cow<'static, str>>) -> Carry {
        Carry::Query { name: name.into() }
    }
}

/// A service's answer to a request that carried a token.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    status: u16,
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// An answer of which `body` may be empty when it was not read.
    pub fn new(status: u16, headers: &'a HeaderMap, body: &'a [u8]) -> Answer<'a> {
        Answer { status, headers, body }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A header's value, when it is there and is text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body, as far as it was read.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The body as a JSON object, when it is one.
    pub fn json(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        serde_json::from_slice(self.body).ok()
    }

    /// How long the service asks to wait (`Retry-After`, in seconds or as a date).
    pub fn retry_after(&self) -> Option<Duration> {
        crate::http::retry_after(self.headers)
    }

    /// What HTTP itself says: 401 and `invalid_token` reject the token, 429 throttles, anything else accepts it.
    pub fn http_verdict(&self) -> Verdict {
        let challenge = self.header("www-authenticate").unwrap_or_default();
        match self.status {
            // A challenge for more rights or for claims is not about this token: another one like it is refused too.
            401 if challenge.contains("insufficient_") => Verdict::Accepted,
            401 => Verdict::Rejected,
            400 | 403 if challenge.contains("invalid_token") => Verdict::Rejected,
            429 => Verdict::Throttled { retry_after: self.retry_after() },
            _ => Verdict::Accepted,
        }
    }
}

/// What an answer says about the token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing against the token. The request itself may still have failed.
    Accepted,
    /// The token is refused: reject it and ask for another.
    Rejected,
    /// The token is good, but there were too many calls.
    Throttled {
        /// How long to wait, when the service says so.
        retry_after: Option<Duration>,
    },
}

/// The grant in a reply of the usual shape: `access_token` and `expires_in`.
fn granted(mut json: Json) -> Result<Grant, Error> {
    let token = json.take_secret("access_token")?;
    check_text(&token).map_err(Error::protocol)?;
    Ok(Grant::new(token, json.life("expires_in")?))
}

/// Adds the provider's code, unless it is a secret that the provider sent back.
fn with_code<'a>(error: Error, code: String, mut secrets: impl Iterator<Item = &'a Secret>) -> Error {
    let telling = secrets.any(|secret| !secret.is_blank() && code.contains(secret.expose()));
    if telling { error } else { error.with_code(code) }
}
