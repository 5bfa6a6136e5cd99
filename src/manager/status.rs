//! The status of a manager, for people and for programs.

use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::event::{TokenOrigin, format_duration};
use crate::key::Key;
use crate::lease::DAY;
use crate::manager::keeper::Keeper;
use crate::policy::Phase;

/// The status of a manager, from [`TokenManager::status`](crate::TokenManager::status). `Display` prints a few lines
/// for people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The name of the provider.
    pub provider: String,
    /// The key of the token's record in a store.
    pub key: Key,
    /// The phase of the current token.
    pub state: TokenState,
    /// Where the current token came from. `None` without a token.
    pub origin: Option<TokenOrigin>,
    /// The [fingerprint](crate::Token::fingerprint) of the current token.
    pub fingerprint: Option<String>,
    /// How long the manager has had the current token.
    pub held_for: Option<Duration>,
    /// How long until the current token is refreshed in the background. Zero: now.
    pub refresh_in: Option<Duration>,
    /// How long until the current token expires at the provider.
    pub expires_in: Option<Duration>,
    /// True while a fetch is in flight.
    pub fetching: bool,
    /// How long until the next request to the provider, while none is due: the rest of the cooldown after a failure, or
    /// the time until the provider returns a newer token after an unchanged one. A rejection ends the latter. `None`
    /// when nothing is waited for.
    pub retry_in: Option<Duration>,
    /// The last failure since the manager was built, and how long ago it was. A wrong setting is a failure of zero ago.
    pub last_error: Option<(Error, Duration)>,
    /// The age of the pushed ticket or refresh token. `None` also for the refresh token that the program supplied.
    pub renewal_secret_age: Option<Duration>,
    /// The use of the provider's quota, as counted by all managers on the store. `None` if the provider has no quota,
    /// or this manager has counted nothing.
    pub quota: Option<QuotaStatus>,
    /// How long the shared store has been unavailable. `None` while the store works.
    pub store_down_for: Option<Duration>,
    /// The last error of the shared store, while the store is unavailable.
    pub store_error: Option<Error>,
    /// True after [`shutdown`](crate::TokenManager::shutdown).
    pub shut_down: bool,
}

/// The use of a provider's quota in the 24 hours since the first counted call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaStatus {
    /// The number of requests for a token.
    pub calls: u32,
    /// The allowed number of requests, including the reserved ones.
    pub calls_limit: Option<u32>,
    /// How many of the allowed requests are reserved for the replacement of rejected tokens.
    pub calls_reserved: Option<u32>,
    /// The number of forced refreshes.
    pub forced: u32,
    /// The allowed number of forced refreshes.
    pub forced_limit: Option<u32>,
    /// How long until the count starts again at zero.
    pub resets_in: Duration,
}

/// The phase of a manager's current token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenState {
    /// The manager has no token.
    Empty,
    /// The token is valid. No refresh is due.
    Fresh,
    /// The token is valid and is being refreshed in the background. Callers get it without waiting.
    RefreshDue,
    /// The token is inside the [safety margin](crate::TokenManagerBuilder::safety_margin). Callers wait for a new
    /// token, and get this one if the fetch fails.
    Expiring,
    /// The token has expired, or expires within the next 5 s (or a hundredth of its lifetime). No caller gets it.
    Expired,
}

impl Keeper {
    pub(crate) fn status(&self) -> Status {
        // Called before the lock is taken, because a provider is the user's code.
        let provider = self.provider.name().to_owned();
        let fault = self.fault.clone().map(|fault| (fault, Duration::ZERO));
        let control = self.lock();
        let now = self.now();
        let held = control.held.as_ref();
        Status {
            provider,
            key: self.key.clone(),
            state: held.map_or(TokenState::Empty, |held| held.schedule.phase(now).into()),
            origin: held.map(|held| held.source),
            fingerprint: held.map(|held| held.token.fingerprint().to_owned()),
            held_for: held.map(|held| now.since(held.since)),
            refresh_in: held.map(|held| now.until(held.schedule.refresh_at)),
            expires_in: held.map(|held| now.until(held.schedule.ends_at)),
            fetching: control.in_the_air().is_some(),
            retry_in: control.pause_at(now).map(|pause| now.until(pause.until)),
            last_error: fault
                .or_else(|| control.last_error.as_ref().map(|(error, at)| (error.clone(), now.since(*at)))),
            renewal_secret_age: control.state.as_ref().map(|state| now.since(state.kept.since)),
            quota: control.day.filter(|day| now.since(day.began) < DAY).map(|day| QuotaStatus {
                calls: day.counted.calls,
                calls_limit: self.profile.daily_quota.map(|quota| quota.calls),
                calls_reserved: self.profile.daily_quota.map(|quota| quota.reserve),
                forced: day.counted.forced,
                forced_limit: self.profile.forced_quota,
                resets_in: DAY.saturating_sub(now.since(day.began)),
            }),
            store_down_for: control.store.down.as_ref().map(|down| now.since(down.since)),
            store_error: control.store.down.as_ref().map(|down| down.error.clone()),
            shut_down: control.shut_down,
        }
    }
}

impl From<Phase> for TokenState {
    fn from(phase: Phase) -> TokenState {
        match phase {
            Phase::Fresh => TokenState::Fresh,
            Phase::RefreshDue => TokenState::RefreshDue,
            Phase::Expiring => TokenState::Expiring,
            Phase::Expired => TokenState::Expired,
        }
    }
}

impl fmt::Display for TokenState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenState::Empty => "none",
            TokenState::Fresh => "fresh",
            TokenState::RefreshDue => "refresh due",
            TokenState::Expiring => "expiring (callers wait for a new one)",
            TokenState::Expired => "expired",
        })
    }
}

impl fmt::Display for QuotaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |limit: Option<u32>| limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
        write!(f, "{}{} calls", self.calls, of(self.calls_limit))?;
        if let Some(reserved) = self.calls_reserved {
            write!(f, " ({reserved} reserved to replace rejected tokens)")?;
        }
        if self.forced_limit.is_some() {
            write!(f, ", {}{} forced", self.forced, of(self.forced_limit))?;
        }
        write!(f, ", resets in {}", format_duration(self.resets_in))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.provider, self.key)?;
        write!(f, "  token       {}", self.state)?;
        if let (Some(source), Some(age)) = (self.origin, self.held_for) {
            write!(f, ", from the {source} {} ago", format_duration(age))?;
        }
        if let (Some(due), Some(end)) = (self.refresh_in, self.expires_in) {
            write!(f, "\n  refresh     in {}, the token expires in {}", format_duration(due), format_duration(end))?;
        }
        if self.fetching {
            f.write_str("\n  fetch       in flight")?;
        }
        if let Some(retry) = self.retry_in {
            write!(f, "\n  waiting     next request in {}", format_duration(retry))?;
        }
        if let Some((error, ago)) = &self.last_error {
            let since = if self.held_for.is_some_and(|age| age < *ago) { ", recovered since" } else { "" };
            write!(f, "\n  last error  {} ago{since}: {error}", format_duration(*ago))?;
        }
        if let Some(age) = self.renewal_secret_age {
            write!(f, "\n  renewal     the refresh token or ticket is {} old", format_duration(age))?;
        }
        if let Some(quota) = &self.quota {
            write!(f, "\n  quota       {quota}")?;
        }
        if let Some(down) = self.store_down_for {
            write!(f, "\n  store       unavailable for {}", format_duration(down))?;
        }
        if let Some(error) = &self.store_error {
            write!(f, ": {error}")?;
        }
        if self.shut_down {
            f.write_str("\n  shut down")?;
        }
        Ok(())
    }
}
