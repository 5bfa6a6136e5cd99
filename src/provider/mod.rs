//! Providers: the trait that a provider implements, what a fetch gets and returns, and a module for each vendor.
//!
//! # How a fetch runs
//!
//! A manager holds one provider and calls it in this order:
//!
//! 1. [`Provider::check`] once, when the manager is built. `build()` returns the error of a wrong setting, and a
//!    manager from [`TokenManager::new`](crate::TokenManager::new) returns it from every call.
//! 2. [`Provider::identity`], [`Provider::profile`] and [`Provider::renewal`] once: where the token is recorded, when
//!    it is refreshed, and which refresh token or ticket is kept beside it.
//! 3. [`Provider::fetch`] on a thread of its own, each time a new token is needed, one call at a time. The [`Context`]
//!    brings the HTTP client, the deadline, the [renewal secret](Context::renewal_secret) and the
//!    [token of the parent](Context::parent).
//! 4. A [`Grant`] becomes the current token. A renewal secret in the grant is stored before callers get the token.
//!    An [`Error`] starts a cooldown, whose length depends on the [kind](crate::ErrorKind).
//! 5. [`Provider::placement`] and [`Provider::verdict`] for each request that is sent with the token.

// The providers of one vendor stand in one folder, with the vendor's error codes as tables; `errors.rs` reads the
// tables. `echo.rs` keeps secrets out of codes. `placement.rs` and `service_response.rs` are about requests that carry a token. `config/` builds providers
// from a configuration file or from the environment. `base_url.rs` and `settings.rs` check settings for all providers.

mod base_url;
mod config;
pub mod dingtalk;
mod errors;
pub mod feishu;
mod from_fn;
mod js_signature;
mod jwt;
pub mod microsoft;
pub mod oauth2;
mod parent;
mod placement;
mod profile;
pub(crate) mod service_response;
mod settings;
pub mod wechat;
pub mod wecom;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use config::{ProviderConfig, from_env};
pub use from_fn::{FromFn, from_fn};
pub use js_signature::JsSignature;
pub use placement::TokenPlacement;
pub use profile::{DailyQuota, Profile, RenewalProfile};
pub use service_response::ServiceResponse;

pub use crate::http::{Http, Json, TokenRequest, TokenResponse};
pub use crate::key::Identity;
pub use crate::token::TokenSource;

pub(crate) use js_signature::{nonce, signed_part};
pub(crate) use service_response::Verdict;

use crate::clock::{Deadline, Time};
use crate::error::Error;
use crate::http::HttpConfig;
use crate::policy::{Lifetime, MAX_LIFETIME};
use crate::secret::Secret;
use crate::token::{Token, check_text};

/// Fetches tokens for one credential.
///
/// [`name`](Provider::name), [`identity`](Provider::identity) and [`fetch`](Provider::fetch) are required; the other
/// methods describe what is special about the vendor. [`from_fn`] makes a provider from a closure. The guide explains
/// both ways in [extending](crate::guide::extending), and `examples/custom_provider.rs` runs one.
///
/// The manager calls [`fetch`](Provider::fetch) on a thread of its own, one call at a time. `fetch` may block, fail and
/// even panic: callers wait until their own deadlines only. A call that does not return after its deadline is
/// abandoned, and the next one runs beside it. `fetch` must not ask its own manager for a token; the manager answers
/// such a call with an error instead of a deadlock.
///
/// ```
/// use evertoken::provider::{Context, Grant, Identity, Provider};
/// use evertoken::{Error, Secret};
///
/// struct Warehouse {
///     base_url: String,
///     api_key: Secret,
/// }
///
/// impl Provider for Warehouse {
///     fn name(&self) -> &str {
///         "warehouse"
///     }
///
///     fn identity(&self) -> Identity {
///         Identity::new("warehouse").part("url", &self.base_url).secret(&self.api_key)
///     }
///
///     fn fetch(&self, context: &Context) -> Result<Grant, Error> {
///         let response = context.http().get(&format!("{}/session", self.base_url)).bearer(&self.api_key).send()?;
///         if !response.is_success() {
///             return Err(response.status_error());
///         }
///         let mut json = response.json()?;
///         Ok(Grant::new(json.take_secret("session")?, json.lifetime("ttl")?))
///     }
/// }
/// ```
pub trait Provider: Send + Sync + 'static {
    /// Returns a short name for people, such as `"wecom"`. The name appears in logs, events and error texts.
    fn name(&self) -> &str;

    /// Returns everything that a token depends on: endpoint, ids, scope and secret.
    ///
    /// The key under which a store records the token is derived from the identity. Two managers with equal identities
    /// share a token, so leave nothing out. The manager reads the identity once.
    fn identity(&self) -> Identity;

    /// Fetches a token. Blocks until the provider answered, at most until [`Context::deadline`].
    ///
    /// Return the lifetime as the provider named it. The manager counts it from the start of the fetch, so that a slow
    /// reply shortens the lifetime instead of lengthening it.
    ///
    /// # Errors
    ///
    /// The [kind](crate::ErrorKind) decides how long the cooldown is and whether callers may retry:
    ///
    /// - [`InvalidCredentials`](crate::ErrorKind::InvalidCredentials), [`Forbidden`](crate::ErrorKind::Forbidden) and
    ///   [`Config`](crate::ErrorKind::Config): a retry cannot help; the cooldown is 30 s.
    /// - [`SignInRequired`](crate::ErrorKind::SignInRequired): the refresh token was refused; a person has to sign in.
    /// - [`TicketRequired`](crate::ErrorKind::TicketRequired): a pushed ticket is missing or too old.
    /// - [`Throttled`](crate::ErrorKind::Throttled) with [`Error::with_retry_after`]: the cooldown that the provider
    ///   asked for.
    /// - [`Unavailable`](crate::ErrorKind::Unavailable), [`InvalidResponse`](crate::ErrorKind::InvalidResponse): the
    ///   cooldown doubles from 1 s to 60 s.
    /// - [`TokenRejected`](crate::ErrorKind::TokenRejected): the token of the [`parent`](Provider::parent) was refused.
    ///   The manager rejects that token and calls `fetch` once more with another one.
    fn fetch(&self, context: &Context) -> Result<Grant, Error>;

    /// Checks the settings before any request is sent. Default: everything is right.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with a text that names the setting.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Returns how the provider treats its tokens: lifetimes, overlap, quotas. Default: [`Profile::default`].
    ///
    /// The manager reads the profile once.
    fn profile(&self) -> Profile {
        Profile::default()
    }

    /// Returns the source of the token that this provider's token is derived from. Default: none.
    ///
    /// With a source, [`Context::parent`] has a valid token of it in each fetch.
    fn parent(&self) -> Option<&dyn TokenSource> {
        None
    }

    /// Returns how the refresh token or pushed ticket of this provider is kept. Default: there is none.
    ///
    /// With a profile, [`Context::renewal_secret`] has the latest renewal secret in each fetch.
    fn renewal(&self) -> Option<RenewalProfile> {
        None
    }

    /// Returns where the service expects the token in a request. Default: `Authorization: Bearer`.
    fn placement(&self) -> TokenPlacement {
        TokenPlacement::bearer()
    }

    /// Returns what a response of the *service* (not of the token endpoint) says about the token in the request.
    ///
    /// The default is [`ServiceResponse::http_verdict`]: 401 and `invalid_token` reject the token, 429 throttles.
    /// Override it for a service that refuses a token with HTTP 200 and a code in the body.
    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        response.http_verdict()
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

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        (**self).verdict(response)
    }
}

/// The inputs of a fetch: the HTTP client, the deadline, the renewal secret, the parent's token.
///
/// The manager makes a context for each fetch. A test of a provider makes its own with [`Context::new`].
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
    /// Makes a context for a test of a provider: a fetch of at most `wait` over `http`, without renewal secret and
    /// parent, not forced.
    pub fn new(http: impl Into<HttpConfig>, wait: Duration) -> Context {
        Context::until(&Http::new(Arc::new(http.into())), Deadline::within(wait), Time::System)
    }

    pub(crate) fn until(http: &Http, deadline: Deadline, time: Time) -> Context {
        Context { http: http.until(deadline), deadline, time, renewal_secret: None, parent: None, forced: false }
    }

    /// Sets the [renewal secret](Context::renewal_secret).
    #[must_use]
    pub fn with_renewal_secret(self, renewal_secret: Option<Secret>) -> Context {
        Context { renewal_secret, ..self }
    }

    /// Sets the token of the [parent](Context::parent).
    #[must_use]
    pub fn with_parent(self, parent: Option<Token>) -> Context {
        Context { parent, ..self }
    }

    /// Sets whether the fetch is [forced](Context::is_forced).
    #[must_use]
    pub fn with_forced(self, forced: bool) -> Context {
        Context { forced, ..self }
    }

    /// The latest renewal secret of a provider with a [`RenewalProfile`]: the refresh token or the pushed ticket.
    ///
    /// `None` when no renewal secret is known, or when the latest one is older than [`RenewalProfile::lifetime`].
    pub fn renewal_secret(&self) -> Option<&Secret> {
        self.renewal_secret.as_ref()
    }

    /// The token of the [`parent`](Provider::parent), valid now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the context has no parent's token. The manager always
    /// brings one to a provider that has a parent.
    pub fn parent(&self) -> Result<&Token, Error> {
        self.parent
            .as_ref()
            .ok_or_else(|| Error::config("the context has no token of the parent; add one with `with_parent`"))
    }

    /// True when the fetch must return a new token although the current one has not expired.
    ///
    /// Only for a provider with a [`Profile::forced_quota`], whose quota each forced fetch counts against.
    pub fn is_forced(&self) -> bool {
        self.forced
    }

    /// The time on the wall clock, for requests that are signed. A test sets it with a fake clock.
    pub fn now(&self) -> SystemTime {
        self.time.now().wall()
    }

    /// The HTTP client: bounded by the deadline of this fetch, follows no redirect, quotes no secret in its errors.
    ///
    /// Any other blocking client works as well; keep to [`remaining`](Context::remaining).
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// When the fetch has to be finished. After the deadline another process may hold the lease and fetch as well, and
    /// the callers of this fetch have stopped waiting.
    pub fn deadline(&self) -> Instant {
        self.deadline.instant()
    }

    /// The time until the [deadline](Context::deadline).
    pub fn remaining(&self) -> Duration {
        self.deadline.remaining()
    }
}

/// A token as the provider granted it: the result of [`Provider::fetch`].
///
/// ```
/// use std::time::Duration;
/// use evertoken::provider::Grant;
///
/// let grant = Grant::new("the-token", Duration::from_secs(3600)).with_renewal_secret("next-refresh-token");
/// assert_eq!(grant.lifetime(), Some(Duration::from_secs(3600)));
/// ```
#[derive(Debug)]
#[must_use]
pub struct Grant {
    token: Secret,
    lifetime: Option<Duration>,
    refresh_in: Option<Duration>,
    renewal_secret: Option<Secret>,
}

impl Grant {
    /// A token and its remaining lifetime, which the manager counts from the start of the fetch.
    ///
    /// `None` stands for a provider that names no lifetime; then [`Profile::default_lifetime`] applies. A lifetime of
    /// more than 30 days counts as 30 days.
    pub fn new(token: impl Into<Secret>, lifetime: impl Into<Option<Duration>>) -> Grant {
        Grant { token: token.into(), lifetime: lifetime.into(), refresh_in: None, renewal_secret: None }
    }

    /// Sets when the provider wants the token refreshed, counted from the start of the fetch. The manager
    /// refreshes at that time or at its own, whichever is sooner.
    pub fn with_refresh_in(self, refresh_in: impl Into<Option<Duration>>) -> Grant {
        Grant { refresh_in: refresh_in.into(), ..self }
    }

    /// Sets the [renewal secret](Context::renewal_secret) for the next fetch, such as a rotated refresh token.
    ///
    /// The manager stores the renewal secret before callers get the token. The provider must return a
    /// [`RenewalProfile`] from [`Provider::renewal`].
    pub fn with_renewal_secret(self, renewal_secret: impl Into<Secret>) -> Grant {
        Grant { renewal_secret: Some(renewal_secret.into()), ..self }
    }

    /// The token.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// The remaining lifetime that the provider named.
    pub fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// When the provider wants the token refreshed, if the provider named a time.
    pub fn refresh_in(&self) -> Option<Duration> {
        self.refresh_in
    }

    /// The renewal secret for the next fetch, if the grant brought one.
    pub fn renewal_secret(&self) -> Option<&Secret> {
        self.renewal_secret.as_ref()
    }

    pub(crate) fn take_renewal_secret(&mut self) -> Option<Secret> {
        self.renewal_secret.take()
    }

    /// Splits the grant into token and lifetime. An empty token, a token that cannot travel in a header, and a lifetime
    /// of zero are errors.
    pub(crate) fn into_parts(self, profile: &Profile) -> Result<(Secret, Lifetime), Error> {
        check_text(&self.token).map_err(Error::invalid_response)?;
        let lifetime = self.lifetime.unwrap_or(profile.default_lifetime).min(MAX_LIFETIME);
        if lifetime.is_zero() {
            return Err(Error::invalid_response(
                "the provider granted a token that has expired; check this machine's clock",
            ));
        }
        Ok((self.token, Lifetime { total: lifetime, refresh_in: self.refresh_in }))
    }
}

/// Reads the grant from the fields `access_token` and `expires_in` (RFC 6749, section 5.1).
fn parse_grant(json: Json) -> Result<Grant, Error> {
    parse_grant_fields(json, "access_token", "expires_in")
}

/// Reads the grant from the fields `token` and `lifetime`.
fn parse_grant_fields(mut json: Json, token: &str, lifetime: &str) -> Result<Grant, Error> {
    let token = json.take_secret(token)?;
    check_text(&token).map_err(Error::invalid_response)?;
    Ok(Grant::new(token, json.lifetime(lifetime)?))
}

/// Reads the grant as [`parse_grant_fields`] does, and the renewal secret for the next fetch from a third field.
///
/// A reply with a renewal secret always makes a grant, even if the token or the lifetime is unusable: the provider may
/// have invalidated the previous renewal secret, so the manager has to store the new one first. The manager then
/// reports the token as invalid.
fn parse_grant_with_renewal_secret(
    mut json: Json,
    token: &str,
    lifetime: &str,
    renewal_secret: &str,
) -> Result<Grant, Error> {
    let secret = json.take_secret(renewal_secret).ok().filter(|secret| !secret.is_blank());
    let Some(secret) = secret else {
        return parse_grant_fields(json, token, lifetime);
    };
    let token = json.take_secret(token).unwrap_or_else(|_| Secret::from(""));
    let lifetime = json.lifetime(lifetime).unwrap_or(Some(Duration::ZERO));
    Ok(Grant::new(token, lifetime).with_renewal_secret(secret))
}
