//! What a provider allows in a day, counted for all processes that share a store.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::provider::Profile;

/// The calls of 24 hours from the first one on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct QuotaCount {
    pub(crate) calls: u32,
    pub(crate) forced: u32,
    /// No call may be forced before then, from the first call on.
    pub(crate) quiet_until: Duration,
}

/// A count, and when its day began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Day {
    pub(crate) count: QuotaCount,
    pub(crate) began: Timestamp,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) enum Call {
    Usual,
    /// A rejected token is to be replaced, so the reserve may be used.
    Replacement,
    /// Forced if the forced quota allows it, else as usual.
    PreferForced,
    /// A second call, which makes sense only when it is forced.
    OnlyForced,
}

/// Whether the count includes every process. A count of this process alone allows no forced call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountedBy {
    AllProcesses,
    ThisProcess,
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) enum Admission {
    Usual,
    Forced,
    /// A call that only makes sense when forced is not made.
    NotForced,
}

/// True when the provider has a quota to be counted.
pub(crate) fn is_counted(profile: &Profile) -> bool {
    profile.daily_quota.is_some() || profile.forced_quota.is_some()
}

impl Day {
    /// The day that counts now: a new one begins with the next call after 24 hours.
    pub(crate) fn current(day: Option<Day>, now: Timestamp) -> Day {
        let Some(day) = day else { return Day { count: QuotaCount::default(), began: now } };
        let passed = now.since(day.began);
        if passed < DAY {
            return day;
        }
        let quiet_until = day.count.quiet_until.saturating_sub(passed);
        Day { count: QuotaCount { quiet_until, ..QuotaCount::default() }, began: now }
    }

    /// Counts a call, or says why it must not be made.
    pub(crate) fn admit(
        &mut self,
        call: Call,
        by: CountedBy,
        profile: &Profile,
        now: Timestamp,
    ) -> Result<Admission, Error> {
        let limit = profile.daily_quota.map(|quota| match call {
            Call::Replacement => quota.calls,
            _ => quota.calls.saturating_sub(quota.reserve),
        });
        if limit.is_some_and(|limit| self.count.calls >= limit) && call != Call::OnlyForced {
            let rest = DAY.saturating_sub(now.since(self.began));
            return Err(Error::new(ErrorKind::Throttled, USED_UP).with_retry_after(rest));
        }
        let wants_force = matches!(call, Call::PreferForced | Call::OnlyForced);
        let is_forced = wants_force && by == CountedBy::AllProcesses && self.count_forced(profile, now);
        if call == Call::OnlyForced && !is_forced {
            return Ok(Admission::NotForced);
        }
        self.count.calls = self.count.calls.saturating_add(1);
        Ok(if is_forced { Admission::Forced } else { Admission::Usual })
    }

    fn count_forced(&mut self, profile: &Profile, now: Timestamp) -> bool {
        let passed = now.since(self.began);
        let is_quiet = passed < self.count.quiet_until;
        let may = !is_quiet && profile.forced_quota.is_some_and(|quota| self.count.forced < quota);
        if may {
            self.count.forced += 1;
            self.count.quiet_until = passed + profile.min_forced_interval.min(DAY);
        }
        may
    }
}

const USED_UP: &str = "the calls that the provider allows in 24 hours are used up, but for a reserve";

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
