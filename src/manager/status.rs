//! How things stand with one token, for people and programs.

use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::event::{TokenOrigin, format_duration};
use crate::key::Key;
use crate::lease::DAY;
use crate::manager::keeper::Keeper;
use crate::policy::Phase;

/// How things stand with a manager's token. `Display` explains it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The provider's name.
    pub provider: String,
    /// The name under which the token is recorded.
    pub key: Key,
    /// Where the held token is in its life.
    pub state: TokenState,
    /// Where the held token came from.
    pub origin: Option<TokenOrigin>,
    /// Names the held token without telling it.
    pub fingerprint: Option<String>,
    /// How long it has been held.
    pub held_for: Option<Duration>,
    /// When it is renewed in the background. Zero: now.
    pub refresh_in: Option<Duration>,
    /// When the provider stops taking it.
    pub expires_in: Option<Duration>,
    /// True while a fetch is under way.
    pub fetching: bool,
    /// When the provider is asked again, if it is left alone for now.
    pub retry_in: Option<Duration>,
    /// The last failure since the manager was built, and how long ago it was. A wrong setting counts as one, just now.
    pub last_error: Option<(Error, Duration)>,
    /// How old the ticket or the refresh token is that the provider is asked with. `None` as well for the refresh token
    /// that the program brought.
    pub renewal_secret_age: Option<Duration>,
    /// What was counted of the provider's quota, when it has one and something was counted here.
    pub quota: Option<QuotaStatus>,
    /// How long the shared store has been out of use.
    pub store_down_for: Option<Duration>,
    /// What the shared store failed with last, while it is out of use.
    pub store_error: Option<Error>,
    /// True after `shutdown`.
    pub shut_down: bool,
}

/// What was used of a provider's quota in the 24 hours that began with the first call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaStatus {
    /// How many tokens were asked for.
    pub calls: u32,
    /// How many may be asked for, those included that are kept for the replacement of rejected tokens.
    pub calls_limit: Option<u32>,
    /// How many of these are kept for the replacement of rejected tokens.
    pub calls_reserved: Option<u32>,
    /// How often another token was forced.
    pub forced: u32,
    /// How often one may be.
    pub forced_limit: Option<u32>,
    /// When the count begins anew.
    pub resets_in: Duration,
}

/// Where a token is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenState {
    /// No token is held.
    Empty,
    /// Good, and not yet to be renewed.
    Fresh,
    /// Good, and to be renewed in the background.
    RefreshDue,
    /// Inside the safety margin: callers ask for a new one, and get this if there is none.
    Expiring,
    /// Nobody gets it any more.
    Expired,
}

impl Keeper {
    pub(crate) fn status(&self) -> Status {
        // The user's code, so it is called before the lock is taken.
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
            TokenState::Empty => "no token is held",
            TokenState::Fresh => "fresh",
            TokenState::RefreshDue => "due: it is being renewed",
            TokenState::Expiring => "late: callers wait for a new one",
            TokenState::Expired => "dead: nobody gets it",
        })
    }
}

impl fmt::Display for QuotaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |limit: Option<u32>| limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
        write!(f, "{}{} calls", self.calls, of(self.calls_limit))?;
        if let Some(reserved) = self.calls_reserved {
            write!(f, " ({reserved} of them for rejected tokens)")?;
        }
        if self.forced_limit.is_some() {
            write!(f, ", {}{} forced", self.forced, of(self.forced_limit))?;
        }
        write!(f, ", anew in {}", format_duration(self.resets_in))
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
            write!(f, "\n  renewal     in {}, the token ends in {}", format_duration(due), format_duration(end))?;
        }
        if self.fetching {
            f.write_str("\n  fetching    now")?;
        }
        if let Some(retry) = self.retry_in {
            write!(f, "\n  next try    in {}", format_duration(retry))?;
        }
        if let Some((error, ago)) = &self.last_error {
            let since = if self.held_for.is_some_and(|age| age < *ago) { ", recovered since" } else { "" };
            write!(f, "\n  last error  {} ago{since}: {error}", format_duration(*ago))?;
        }
        if let Some(age) = self.renewal_secret_age {
            write!(f, "\n  asked with  a ticket or refresh token that came {} ago", format_duration(age))?;
        }
        if let Some(quota) = &self.quota {
            write!(f, "\n  quota       {quota}")?;
        }
        if let Some(down) = self.store_down_for {
            write!(f, "\n  store       out of use for {}", format_duration(down))?;
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
