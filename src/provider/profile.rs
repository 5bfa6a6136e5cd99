//! How providers treat what they grant, as data.

use std::time::Duration;

use crate::key::Identity;
use crate::secret::Secret;

/// How a provider treats its tokens, as data.
///
/// ```
/// use std::time::Duration;
/// use evertoken::provider::Profile;
///
/// let profile = Profile::default().default_lifetime(Duration::from_secs(7200)).new_token_ends_old(true);
/// assert!(profile.new_token_ends_old);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Profile {
    /// The lifetime of a token when the provider names none. Default: 300 s.
    pub default_lifetime: Duration,
    /// How long before its end a token is renewed, unless the builder says otherwise. Default: 300 s.
    pub refresh_ahead: Duration,
    /// How long before a token's end the provider starts to grant another one; asked earlier it gives the same back.
    /// Default: `None`, at any time.
    pub earliest_refresh: Option<Duration>,
    /// True when the provider, giving the same token back, tells its true remaining lifetime or extends it. Otherwise
    /// (the default) the end that is known stays, because no token must be used beyond it.
    pub unchanged_token_extends: bool,
    /// True when a new token ends the old one. Then processes that cannot reach their shared store fetch seldom.
    /// Default: false.
    pub new_token_ends_old: bool,
    /// How long the old token works beside the new one, where a new one ends it. Default: 300 s.
    pub overlap: Duration,
    /// How long after a forced refresh another one is answered with the token it brought. Default: zero.
    pub min_forced_interval: Duration,
    /// How often in 24 hours the provider can be made to grant another token before the one it has granted ends; then
    /// [`Context::is_forced`](crate::provider::Context::is_forced) says when to. Counted for all that share a store. Default:
    /// `None`, it cannot be forced.
    pub forced_quota: Option<u32>,
    /// How many tokens may be asked for in 24 hours. Counted for all that share a store. Default: `None`, as many as
    /// it takes.
    pub daily_quota: Option<DailyQuota>,
}

/// How many tokens may be asked for in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DailyQuota {
    /// All calls of the 24 hours that begin with the first one.
    pub calls: u32,
    /// How many of them are kept for the replacement of tokens that were rejected.
    pub reserve: u32,
}

impl Profile {
    /// Sets the lifetime of a token when the provider names none.
    #[must_use]
    pub fn default_lifetime(self, default_lifetime: Duration) -> Profile {
        Profile { default_lifetime, ..self }
    }

    /// Sets how long before its end a token is renewed.
    #[must_use]
    pub fn refresh_ahead(self, refresh_ahead: Duration) -> Profile {
        Profile { refresh_ahead, ..self }
    }

    /// Sets how long before a token's end the provider starts to grant another one.
    #[must_use]
    pub fn earliest_refresh(self, lead: Duration) -> Profile {
        Profile { earliest_refresh: Some(lead), ..self }
    }

    /// Sets whether the same token comes with its true, perhaps extended, lifetime.
    #[must_use]
    pub fn unchanged_token_extends(self, unchanged_token_extends: bool) -> Profile {
        Profile { unchanged_token_extends, ..self }
    }

    /// Sets whether a new token ends the old one.
    #[must_use]
    pub fn new_token_ends_old(self, new_token_ends_old: bool) -> Profile {
        Profile { new_token_ends_old, ..self }
    }

    /// Sets how long the old token works beside the new one.
    #[must_use]
    pub fn overlap(self, overlap: Duration) -> Profile {
        Profile { overlap, ..self }
    }

    /// Sets how many times in 24 hours the provider can be forced.
    #[must_use]
    pub fn forced_quota(self, times: u32) -> Profile {
        Profile { forced_quota: Some(times), ..self }
    }

    /// Sets how many tokens may be asked for in 24 hours, and how many of these calls are kept for the replacement of
    /// rejected tokens.
    #[must_use]
    pub fn daily_quota(self, calls: u32, reserve: u32) -> Profile {
        Profile { daily_quota: Some(DailyQuota { calls, reserve }), ..self }
    }

    /// Sets how long after a forced refresh another one brings nothing new.
    #[must_use]
    pub fn min_forced_interval(self, min_forced_interval: Duration) -> Profile {
        Profile { min_forced_interval, ..self }
    }
}

impl Default for Profile {
    fn default() -> Profile {
        Profile {
            default_lifetime: Duration::from_secs(300),
            refresh_ahead: Duration::from_secs(300),
            earliest_refresh: None,
            unchanged_token_extends: false,
            new_token_ends_old: false,
            overlap: Duration::from_secs(300),
            min_forced_interval: Duration::ZERO,
            forced_quota: None,
            daily_quota: None,
        }
    }
}

/// How a provider's state is kept: what it needs besides its settings, and what changes while it works. A ticket that
/// the vendor pushes, a refresh token that is replaced when it is used.
///
/// The manager keeps it in the shared store, if there is one, under a key of its own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RenewalProfile {
    /// Whose state it is. Providers of one app that share a ticket have the same here.
    pub identity: Identity,
    /// How long it is good for once it came.
    pub lifetime: Duration,
    /// What counts until another one is recorded.
    pub initial: Option<Secret>,
    /// True when using it may replace it, so that no two may use it at once and none may be lost. Then nothing is
    /// fetched while the shared store cannot be used. False: it is handed in, by
    /// [`set_ticket`](crate::TokenManager::set_ticket).
    pub rotates: bool,
}

impl RenewalProfile {
    /// A ticket that the vendor pushes and that is good for `lifetime`.
    pub fn ticket(identity: Identity, lifetime: Duration) -> RenewalProfile {
        RenewalProfile { identity, lifetime, initial: None, rotates: false }
    }

    /// A refresh token, of which `first` is the one that the program brings. Each that is granted with a token replaces
    /// the one before, and is kept for ten years.
    pub fn refresh_token(identity: Identity, initial: impl Into<Secret>) -> RenewalProfile {
        RenewalProfile { identity, lifetime: TEN_YEARS, initial: Some(initial.into()), rotates: true }
    }
}

/// Nobody tells how long a refresh token lifetimes, and one that is lost can only be replaced by a person.
const TEN_YEARS: Duration = Duration::from_secs(3650 * 86_400);
