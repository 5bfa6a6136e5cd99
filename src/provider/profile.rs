//! How a provider treats its tokens, its refresh tokens and its pushed tickets, as data.

use std::time::Duration;

use crate::key::Identity;
use crate::secret::Secret;

/// How a provider treats its tokens: lifetimes, overlap, quotas.
///
/// A provider returns its profile from [`Provider::profile`](crate::provider::Provider::profile), and the manager reads
/// the profile once. The defaults suit a provider that grants a new token at each request, names the lifetime, and lets
/// earlier tokens live on, as most OAuth 2.0 servers do.
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
    /// The lifetime of a token when the provider does not name one. Default: 300 s.
    pub default_lifetime: Duration,
    /// How long before its end a token is refreshed in the background. The builder's
    /// [`refresh_ahead`](crate::TokenManagerBuilder::refresh_ahead) overrides this. Default: 300 s.
    pub refresh_ahead: Duration,
    /// How long before a token's end the provider starts to grant another one. A fetch before that returns the same
    /// token, so the manager does not refresh earlier. Default: `None`, the provider grants another token at any time.
    pub earliest_refresh: Option<Duration>,
    /// True when the lifetime in a reply counts for an unchanged token too: the provider names the true rest, or extends
    /// the token. Default: false; the end that was recorded first stays, because a token must not be used after its end.
    pub unchanged_token_extends: bool,
    /// True when a new token invalidates the previous one. Then processes that cannot reach their shared store fetch
    /// rarely, because each fetch would invalidate the token of the other processes. Default: false.
    pub new_token_ends_old: bool,
    /// How long the previous token still works after a new one was granted, where
    /// [`new_token_ends_old`](Profile::new_token_ends_old) is true. Default: 300 s.
    pub overlap: Duration,
    /// The minimum time between two forced fetches. A forced refresh within this time returns the token of the previous
    /// one. Default: zero.
    pub min_forced_interval: Duration,
    /// How many times in 24 hours the provider can be forced to grant another token before the current one expires.
    /// [`Context::is_forced`](crate::provider::Context::is_forced) marks such a fetch. Processes that share a store
    /// count together. Default: `None`, the provider cannot be forced.
    pub forced_quota: Option<u32>,
    /// How many tokens may be fetched in 24 hours. Processes that share a store count together. Default: `None`, no
    /// limit.
    pub daily_quota: Option<DailyQuota>,
}

/// How many tokens may be fetched in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DailyQuota {
    /// The number of fetches in the 24 hours that begin with the first one.
    pub calls: u32,
    /// How many of these fetches are reserved for replacing rejected tokens.
    pub reserve: u32,
}

impl Profile {
    /// Sets [`default_lifetime`](Profile#structfield.default_lifetime).
    #[must_use]
    pub fn default_lifetime(self, default_lifetime: Duration) -> Profile {
        Profile { default_lifetime, ..self }
    }

    /// Sets [`refresh_ahead`](Profile#structfield.refresh_ahead).
    #[must_use]
    pub fn refresh_ahead(self, refresh_ahead: Duration) -> Profile {
        Profile { refresh_ahead, ..self }
    }

    /// Sets [`earliest_refresh`](Profile#structfield.earliest_refresh).
    #[must_use]
    pub fn earliest_refresh(self, lead: Duration) -> Profile {
        Profile { earliest_refresh: Some(lead), ..self }
    }

    /// Sets [`unchanged_token_extends`](Profile#structfield.unchanged_token_extends).
    #[must_use]
    pub fn unchanged_token_extends(self, unchanged_token_extends: bool) -> Profile {
        Profile { unchanged_token_extends, ..self }
    }

    /// Sets [`new_token_ends_old`](Profile#structfield.new_token_ends_old).
    #[must_use]
    pub fn new_token_ends_old(self, new_token_ends_old: bool) -> Profile {
        Profile { new_token_ends_old, ..self }
    }

    /// Sets [`overlap`](Profile#structfield.overlap).
    #[must_use]
    pub fn overlap(self, overlap: Duration) -> Profile {
        Profile { overlap, ..self }
    }

    /// Sets [`forced_quota`](Profile#structfield.forced_quota).
    #[must_use]
    pub fn forced_quota(self, times: u32) -> Profile {
        Profile { forced_quota: Some(times), ..self }
    }

    /// Sets [`daily_quota`](Profile#structfield.daily_quota): the fetches in 24 hours, and how many of them are
    /// reserved for replacing rejected tokens.
    #[must_use]
    pub fn daily_quota(self, calls: u32, reserve: u32) -> Profile {
        Profile { daily_quota: Some(DailyQuota { calls, reserve }), ..self }
    }

    /// Sets [`min_forced_interval`](Profile#structfield.min_forced_interval).
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

/// How the renewal secret of a provider is kept: a refresh token that each use may replace, or a ticket that the vendor
/// pushes.
///
/// A provider returns its renewal profile from [`Provider::renewal`](crate::provider::Provider::renewal). The manager
/// keeps the renewal secret in memory and in the shared store, if there is one, under a key of its own, and passes the
/// latest one to each fetch in [`Context::renewal_secret`](crate::provider::Context::renewal_secret).
///
/// | | [`refresh_token`](RenewalProfile::refresh_token) | [`ticket`](RenewalProfile::ticket) |
/// |---|---|---|
/// | first one | the program brings it | [`set_ticket`](crate::TokenManager::set_ticket) |
/// | next one | [`Grant::with_renewal_secret`] | [`set_ticket`](crate::TokenManager::set_ticket) |
/// | used by | one fetch at a time across all processes | any number of fetches |
/// | shared store down | no fetch, because a replaced refresh token could be lost | fetches go on |
///
/// [`Grant::with_renewal_secret`]: crate::provider::Grant::with_renewal_secret
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RenewalProfile {
    /// The owner of the renewal secret. Providers of one app that share a ticket return the same identity here.
    pub identity: Identity,
    /// How long a renewal secret is usable after it arrived.
    pub lifetime: Duration,
    /// The renewal secret to start with, used until the store has a newer one.
    pub initial: Option<Secret>,
    /// True when a use may replace the renewal secret: only one fetch may use it at a time, its replacement must not be
    /// lost, and no fetch runs while the shared store cannot be used. False when the program hands each renewal secret
    /// to [`set_ticket`](crate::TokenManager::set_ticket).
    pub rotates: bool,
}

impl RenewalProfile {
    /// A ticket that the vendor pushes and accepts for `lifetime`.
    pub fn ticket(identity: Identity, lifetime: Duration) -> RenewalProfile {
        RenewalProfile { identity, lifetime, initial: None, rotates: false }
    }

    /// A refresh token. The program brings `initial`; each refresh token that is granted with an access token replaces
    /// the previous one. A refresh token is kept for ten years.
    pub fn refresh_token(identity: Identity, initial: impl Into<Secret>) -> RenewalProfile {
        RenewalProfile { identity, lifetime: TEN_YEARS, initial: Some(initial.into()), rotates: true }
    }
}

/// Servers do not name the lifetime of a refresh token, and only a person can replace a lost one. The server, not this
/// crate, decides when it expires.
const TEN_YEARS: Duration = Duration::from_secs(3650 * 86_400);
