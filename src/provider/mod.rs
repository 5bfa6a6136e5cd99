//! What grants tokens: the trait, and one file for each provider.

pub(crate) mod answer;
mod codes;
mod config;
pub mod dingtalk;
pub mod feishu;
mod from_fn;
mod js_signature;
mod jwt;
pub mod microsoft;
pub mod oauth2;
mod parent;
mod profile;
mod settings;
pub mod wechat;
pub mod wecom;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use answer::{ServiceResponse, TokenPlacement};
pub use config::{ProviderConfig, from_env};
pub use from_fn::{FromFn, from_fn};
pub use js_signature::JsSignature;
pub use profile::{DailyQuota, Profile, RenewalProfile};

pub use crate::http::{Http, Json, TokenRequest, TokenResponse};
pub use crate::key::Identity;
pub use crate::token::TokenSource;

pub(crate) use answer::Verdict;
pub(crate) use js_signature::{nonce, signed_part};

use crate::clock::{Deadline, Time};
use crate::error::Error;
use crate::http::HttpConfig;
use crate::policy::{Lifetime, MAX_LIFETIME};
use crate::secret::Secret;
use crate::token::{Token, check_text};

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
    /// retry. [`ErrorKind::TokenRejected`](crate::ErrorKind::TokenRejected) says that the token of the [`parent`](Provider::parent) was refused: it is
    /// rejected, and this is called once more with another one.
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

    /// What gives the token that this one is granted for: [`Context::parent`]. Default: none.
    fn parent(&self) -> Option<&dyn TokenSource> {
        None
    }

    /// How its state is kept: [`Context::renewal_secret`]. Default: it has none.
    fn renewal(&self) -> Option<RenewalProfile> {
        None
    }

    /// Where the service wants the token.
    fn placement(&self) -> TokenPlacement {
        TokenPlacement::bearer()
    }

    /// What an answer of the *service* (not of the token endpoint) says about the token it was asked with.
    ///
    /// The default knows HTTP: 401 and `invalid_token` reject it, 429 throttles.
    fn verdict(&self, answer: &ServiceResponse<'_>) -> Verdict {
        answer.http_verdict()
    }
}

impl Provider for Box<dyn Provider> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn identity(&self) -> Identity {
        (**self).identity()
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        (**self).fetch(context)
    }

    fn check(&self) -> Result<(), Error> {
        (**self).check()
    }

    fn profile(&self) -> Profile {
        (**self).profile()
    }

    fn parent(&self) -> Option<&dyn TokenSource> {
        (**self).parent()
    }

    fn renewal(&self) -> Option<RenewalProfile> {
        (**self).renewal()
    }

    fn placement(&self) -> TokenPlacement {
        (**self).placement()
    }

    fn verdict(&self, answer: &ServiceResponse<'_>) -> Verdict {
        (**self).verdict(answer)
    }
}

/// What a fetch may use.
#[derive(Debug)]
pub struct Context {
    http: Http,
    deadline: Deadline,
    time: Time,
    renewal_secret: Option<Secret>,
    parent: Option<Token>,
    forced: bool,
}

impl Context {
    /// A context of at most `wait`, for tests of a provider of your own. The manager makes its contexts itself.
    pub fn new(http: impl Into<HttpConfig>, wait: Duration) -> Context {
        Context::until(&Http::new(Arc::new(http.into())), Deadline::within(wait), Time::System)
    }

    pub(crate) fn until(http: &Http, deadline: Deadline, time: Time) -> Context {
        Context { http: http.until(deadline), deadline, time, renewal_secret: None, parent: None, forced: false }
    }

    /// With this [state](Context::renewal_secret).
    #[must_use]
    pub fn with_renewal_secret(self, renewal_secret: Option<Secret>) -> Context {
        Context { renewal_secret, ..self }
    }

    /// With this token of the [parent](Context::parent).
    #[must_use]
    pub fn with_parent(self, parent: Option<Token>) -> Context {
        Context { parent, ..self }
    }

    /// [Forced](Context::is_forced) or not.
    #[must_use]
    pub fn with_forced(self, forced: bool) -> Context {
        Context { forced, ..self }
    }

    /// The latest renewal secret: a ticket that was handed in, a refresh token. `None` when there is none, or it is too old.
    pub fn renewal_secret(&self) -> Option<&Secret> {
        self.renewal_secret.as_ref()
    }

    /// The token that the new one is granted for, of a provider that has a [`parent`](Provider::parent).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when there is none, which the manager sees to.
    pub fn parent(&self) -> Result<&Token, Error> {
        self.parent.as_ref().ok_or_else(|| Error::config("there is no token to ask with"))
    }

    /// True when the provider is to grant another token although the one it has granted lifetimes, at the price of its
    /// [quota](Profile::forced_quota).
    pub fn is_forced(&self) -> bool {
        self.forced
    }

    /// What the wall clock shows, for requests that are signed.
    pub fn now(&self) -> SystemTime {
        self.time.now().wall()
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
    lifetime: Option<Duration>,
    refresh_in: Option<Duration>,
    renewal_secret: Option<Secret>,
}

impl Grant {
    /// A token and how long it lives from now on. A lifetime of more than 30 days is taken for 30 days; for `None`, when
    /// the provider does not tell, [`Profile::default_lifetime`] is taken.
    pub fn new(token: impl Into<Secret>, lifetime: impl Into<Option<Duration>>) -> Grant {
        Grant { token: token.into(), lifetime: lifetime.into(), refresh_in: None, renewal_secret: None }
    }

    /// When the provider wants it renewed, from now on, if that is sooner than the manager would.
    pub fn with_refresh_in(self, refresh_in: impl Into<Option<Duration>>) -> Grant {
        Grant { refresh_in: refresh_in.into(), ..self }
    }

    /// The [state](Context::renewal_secret) that counts from now on. It is stored before the token is handed out.
    pub fn with_renewal_secret(self, renewal_secret: impl Into<Secret>) -> Grant {
        Grant { renewal_secret: Some(renewal_secret.into()), ..self }
    }

    /// The token.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// How long it lifetimes, when the provider told.
    pub fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// When the provider wants it renewed, if it told.
    pub fn refresh_in(&self) -> Option<Duration> {
        self.refresh_in
    }

    /// The state that came with it.
    pub fn renewal_secret(&self) -> Option<&Secret> {
        self.renewal_secret.as_ref()
    }

    pub(crate) fn take_state(&mut self) -> Option<Secret> {
        self.renewal_secret.take()
    }

    /// The token and its lifetime, when both make sense.
    pub(crate) fn into_parts(self, profile: &Profile) -> Result<(Secret, Lifetime), Error> {
        check_text(&self.token).map_err(Error::invalid_response)?;
        let lifetime = self.lifetime.unwrap_or(profile.default_lifetime).min(MAX_LIFETIME);
        if lifetime.is_zero() {
            return Err(Error::invalid_response("the provider granted a token whose lifetime is over"));
        }
        Ok((self.token, Lifetime { total: lifetime, refresh_in: self.refresh_in }))
    }
}

/// The grant in a reply of the usual shape: `access_token` and `expires_in`.
fn granted(json: Json) -> Result<Grant, Error> {
    granted_as(json, "access_token", "expires_in")
}

/// The grant in a reply that has the token and its lifetime in these fields.
fn granted_as(mut json: Json, token: &str, lifetime: &str) -> Result<Grant, Error> {
    let token = json.take_secret(token)?;
    check_text(&token).map_err(Error::invalid_response)?;
    Ok(Grant::new(token, json.lifetime(lifetime)?))
}

/// As [`granted_as`], with the state for the next time in a field of its own. Where there is one it must not be lost,
/// whatever is wrong with the token: that is for the manager to find out, when it has kept the renewal secret.
fn granted_with_renewal_secret(
    mut json: Json,
    token: &str,
    lifetime: &str,
    renewal_secret: &str,
) -> Result<Grant, Error> {
    let secret = json.take_secret(renewal_secret).ok().filter(|secret| !secret.is_blank());
    let Some(secret) = secret else {
        return granted_as(json, token, lifetime);
    };
    let token = json.take_secret(token).unwrap_or_else(|_| Secret::from(""));
    let lifetime = json.lifetime(lifetime).unwrap_or(Some(Duration::ZERO));
    Ok(Grant::new(token, lifetime).with_renewal_secret(secret))
}
