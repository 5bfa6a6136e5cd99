//! When a token is fresh, refresh due, expiring and expired, and how long the cooldown after a failure is.
//!
//! Arithmetic only: the time and the random numbers are arguments.
//!
//! # The schedule of a token
//!
//! ```text
//! granted            refresh_at            expiring_at       expired_at   ends_at
//!    |--------fresh-------|-----refresh due-----|-----expiring-----|--expired--|
//!                         refresh in background  callers wait for   no caller   end of the lifetime
//!                                                a new token        gets it     at the provider
//! ```
//!
//! - `ends_at`: the time before the request was sent, plus the remaining lifetime.
//! - `expired_at`: [`HARD_STOP`] earlier, or a hundredth of the lifetime if that is shorter.
//! - `expiring_at`: the safety margin before `ends_at`, at most a tenth of the lifetime.
//! - `refresh_at`: `refresh_ahead` before `ends_at`, at most a third of the lifetime; earlier if `refresh_after` or the
//!   provider says so; then moved by the jitter. Not after `expiring_at`, and not before the provider can grant a new
//!   token.

use std::time::Duration;

use crate::clock::{COARSE_LAG, Timestamp};
use crate::error::{Error, ErrorKind};

/// The settings from which schedules and cooldowns are computed. No value causes a panic or extends a lifetime.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// How long before its end a token is refreshed in the background.
    pub(crate) refresh_ahead: Duration,
    /// How long after its grant a token is refreshed in the background, if that is sooner.
    pub(crate) refresh_after: Option<Duration>,
    /// How long before a token's end the provider starts to grant a new one. `None`: at any time.
    pub(crate) earliest_refresh: Option<Duration>,
    /// How long before a token's end callers start to wait for a new one.
    pub(crate) safety_margin: Duration,
    /// The part of the time between refresh and end by which a refresh is moved at random, from 0 to 1, so that
    /// processes do not refresh at the same time.
    pub(crate) jitter: f64,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            refresh_ahead: Duration::from_secs(300),
            refresh_after: None,
            earliest_refresh: None,
            safety_margin: Duration::from_secs(60),
            jitter: 0.1,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
        }
    }
}

/// The lifetime of a token as the provider stated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lifetime {
    pub(crate) total: Duration,
    /// How long after the grant the provider wants the token to be refreshed, for example Microsoft's `refresh_in`.
    pub(crate) refresh_in: Option<Duration>,
}

impl From<Duration> for Lifetime {
    fn from(total: Duration) -> Lifetime {
        Lifetime { total, refresh_in: None }
    }
}

/// The times at which a token passes from one phase to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// From then on the token is refreshed in the background.
    pub(crate) refresh_at: Timestamp,
    /// From then on callers wait for a new token.
    pub(crate) expiring_at: Timestamp,
    /// From then on no caller gets the token.
    pub(crate) expired_at: Timestamp,
    /// The end of the lifetime as the provider stated it.
    pub(crate) ends_at: Timestamp,
}

/// The phases of a lifetime, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Fresh,
    RefreshDue,
    Expiring,
    Expired,
}

impl Schedule {
    pub(crate) fn phase(&self, now: Timestamp) -> Phase {
        if now.reaches(self.expired_at) {
            Phase::Expired
        } else if now.reaches(self.expiring_at) {
            Phase::Expiring
        } else if now.reaches(self.refresh_at) {
            Phase::RefreshDue
        } else {
            Phase::Fresh
        }
    }
}

impl Policy {
    /// Returns the schedule of a token that had `remaining` of its total `lifetime` left at `known_at`.
    ///
    /// `known_at` is the time before the request was sent, because a slow reply must shorten the assumed lifetime, not
    /// lengthen it. `random` is from 0 to 1.
    pub(crate) fn schedule(
        &self,
        known_at: Timestamp,
        lifetime: impl Into<Lifetime>,
        remaining: Duration,
        random: f64,
    ) -> Schedule {
        let lifetime = lifetime.into();
        let ends_at = known_at.after(remaining);
        // The cache reads coarse clocks, so even the shortest stop must cover their lag.
        let stop = HARD_STOP.min(lifetime.total / 100).max(COARSE_LAG);
        let margin = self.safety_margin.min(lifetime.total / 10).max(stop);
        // A background refresh must be due before the margin starts, or callers would wait for every refresh.
        let lead = self.lead(lifetime, random).max(margin);
        // Before `earliest_refresh` the provider returns the unchanged token.
        let lead = self.earliest_refresh.map_or(lead, |earliest| lead.min(earliest));
        Schedule {
            refresh_at: ends_at.before(lead),
            expiring_at: ends_at.before(margin),
            expired_at: ends_at.before(stop),
            ends_at,
        }
    }

    /// Returns how long before its end a token is to be refreshed, before `schedule` applies the margin and the
    /// provider's limit.
    fn lead(&self, lifetime: Lifetime, random: f64) -> Duration {
        let Lifetime { total: lifetime, refresh_in } = lifetime;
        let ahead = self.refresh_ahead.min(lifetime / 3);
        // At least a tenth of the lifetime: a provider that asks for a refresh at once would cause an endless loop.
        let wanted = refresh_in.map(|wanted| wanted.max(lifetime / 10));
        let after = [self.refresh_after, wanted].into_iter().flatten().min();
        let after = after.map_or(Duration::ZERO, |after| lifetime.saturating_sub(after));
        let lead = ahead.max(after);
        // The builder checks the jitter. The clamp keeps the factor within [0, 2] for any value, also NaN.
        let factor = (1.0 + self.jitter.clamp(0.0, 1.0) * (2.0 * random - 1.0)).clamp(0.0, 2.0);
        Duration::try_from_secs_f64(lead.as_secs_f64() * factor).unwrap_or(lead).min(lifetime)
    }

    /// Returns the cooldown after one more failure, and the new number of failures in a row.
    pub(crate) fn next_cooldown(&self, failures: u32, error: &Error, random: f64) -> (Duration, u32) {
        let failures = failures.saturating_add(1);
        (self.cooldown(failures, error, random), failures)
    }

    /// Returns the cooldown after `error`, which is the `failures`-th failure in a row.
    ///
    /// In this order: the wait that the provider asked for (a guessed wait doubles with each failure), the fixed
    /// cooldowns for refused credentials and missing tickets, else exponential backoff with jitter. `random` is from 0
    /// to 1.
    pub(crate) fn cooldown(&self, failures: u32, error: &Error, random: f64) -> Duration {
        if let Some(asked) = error.retry_after() {
            // 12 doublings reach `MAX_COOLDOWN` from one second; more could overflow the shift.
            let doublings = if error.wait_grows() { failures.saturating_sub(1).min(12) } else { 0 };
            let asked = asked.saturating_mul(1 << doublings);
            return asked.clamp(self.backoff_min.min(MAX_COOLDOWN), MAX_COOLDOWN);
        }
        use ErrorKind::{Config, Forbidden, InvalidCredentials, SignInRequired};
        if matches!(error.kind(), InvalidCredentials | SignInRequired | Forbidden | Config) {
            return DENIED_COOLDOWN;
        }
        if error.kind() == ErrorKind::TicketRequired {
            return TICKET_COOLDOWN;
        }
        // Limited to 30, because the factor is a `u32`. The backoff has reached its maximum long before.
        let doubled = self.backoff_min.saturating_mul(1 << failures.saturating_sub(1).min(30));
        let factor = 1.0 + BACKOFF_JITTER * (2.0 * random - 1.0);
        doubled.min(self.backoff_max).min(MAX_COOLDOWN).mul_f64(factor.clamp(0.0, 2.0))
    }
}

/// Returns how long a shared store is not used after its `failures`-th failure in a row. `random` is from 0 to 1.
pub(crate) fn store_backoff(failures: u32, random: f64) -> Duration {
    let doubled = INITIAL_STORE_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(30)).min(MAX_STORE_BACKOFF);
    doubled.mul_f64(1.0 + BACKOFF_JITTER * (2.0 * random.clamp(0.0, 1.0) - 1.0))
}

/// The backoff after the first failure of a store.
const INITIAL_STORE_BACKOFF: Duration = Duration::from_secs(1);
const MAX_STORE_BACKOFF: Duration = Duration::from_secs(30);

/// No caller gets a token with less than this left, because the request needs time to reach the service.
const HARD_STOP: Duration = Duration::from_secs(5);

/// The cooldown after refused credentials. A new secret may take some time to reach all servers of the provider, so the
/// refusal is not final.
const DENIED_COOLDOWN: Duration = Duration::from_secs(30);

/// The longest lifetime of a token that is believed. Renewal secrets may live longer.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// The cooldown while a pushed ticket is missing. Only a ticket helps, and its arrival ends the cooldown.
const TICKET_COOLDOWN: Duration = Duration::from_secs(300);

/// The longest cooldown, even if the provider asks for more.
pub(crate) const MAX_COOLDOWN: Duration = Duration::from_secs(3600);

/// The part of a backoff by which it is moved at random.
const BACKOFF_JITTER: f64 = 0.2;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Timestamp {
        Timestamp::new(100_000 * SECOND, 1_700_000_000 * SECOND)
    }

    fn policy() -> Policy {
        Policy { jitter: 0.0, ..Policy::default() }
    }

    /// Returns how many seconds before its end a token of this lifetime is refresh due, expiring and expired.
    fn leads(policy: &Policy, lifetime: Duration) -> [f64; 3] {
        let schedule = policy.schedule(start(), lifetime, lifetime, 0.5);
        let lead = |moment: Timestamp| moment.until(schedule.ends_at).as_secs_f64();
        [lead(schedule.refresh_at), lead(schedule.expiring_at), lead(schedule.expired_at)]
    }

    #[test]
    fn a_token_of_two_hours_is_refreshed_five_minutes_ahead_and_used_until_the_last_five_seconds() {
        assert_eq!(leads(&policy(), 7200 * SECOND), [300.0, 60.0, 5.0]);
    }

    #[test]
    fn margins_shrink_with_the_lifetime() {
        assert_eq!(leads(&policy(), 60 * SECOND), [20.0, 6.0, 0.6]);
        assert_eq!(leads(&policy(), 9 * SECOND), [3.0, 0.9, 0.09]);
    }

    #[test]
    fn refresh_after_counts_when_that_is_sooner() {
        let policy = Policy { refresh_after: Some(1800 * SECOND), ..policy() };
        assert_eq!(leads(&policy, 7200 * SECOND)[0], 5400.0);
        assert_eq!(leads(&policy, 1000 * SECOND)[0], 300.0);
    }

    #[test]
    fn the_refresh_time_of_the_provider_counts_when_that_is_sooner() {
        let lead = |refresh_in| {
            let lifetime = Lifetime { total: 86_400 * SECOND, refresh_in: Some(refresh_in) };
            let schedule = policy().schedule(start(), lifetime, lifetime.total, 0.5);
            schedule.refresh_at.until(schedule.ends_at)
        };
        assert_eq!(lead(43_200 * SECOND), 43_200 * SECOND);
        assert_eq!(lead(86_400 * SECOND), 300 * SECOND);
        assert_eq!(lead(Duration::MAX), 300 * SECOND);
        assert_eq!(lead(Duration::ZERO), 77_760 * SECOND, "a refresh at once would never end");
    }

    #[test]
    fn no_refresh_is_due_before_the_provider_can_grant_a_new_token() {
        let policy =
            Policy { earliest_refresh: Some(100 * SECOND), refresh_ahead: 600 * SECOND, jitter: 1.0, ..policy() };
        for random in [0.0, 0.3, 0.5, 0.999] {
            let schedule = policy.schedule(start(), 7200 * SECOND, 7200 * SECOND, random);
            assert!(schedule.refresh_at.until(schedule.ends_at) <= 100 * SECOND);
        }
    }

    #[test]
    fn no_token_is_expiring_before_its_refresh_is_due() {
        let short = Policy { refresh_ahead: 30 * SECOND, ..policy() };
        assert_eq!(leads(&short, 7200 * SECOND), [60.0, 60.0, 5.0]);
        assert_eq!(leads(&Policy { refresh_ahead: Duration::ZERO, ..policy() }, 60 * SECOND), [6.0, 6.0, 0.6]);
        let jumpy = Policy { jitter: 1.0, ..policy() };
        for random in [0.0, 0.05, 0.5, 1.0] {
            let schedule = jumpy.schedule(start(), 7200 * SECOND, 7200 * SECOND, random);
            assert!(schedule.expiring_at.reaches(schedule.refresh_at), "{random}");
        }
        // The exception is a provider that grants no new token before that time.
        let early = Policy { earliest_refresh: Some(20 * SECOND), ..policy() };
        assert_eq!(leads(&early, 7200 * SECOND), [20.0, 60.0, 5.0]);
    }

    #[test]
    fn jitter_moves_the_lead_by_a_tenth_either_way() {
        let policy = Policy { jitter: 0.1, ..policy() };
        let lead = |random| policy.lead((7200 * SECOND).into(), random).as_secs_f64().round();
        assert_eq!([lead(0.0), lead(0.5), lead(1.0)], [270.0, 300.0, 330.0]);
    }

    #[test]
    fn phases_change_at_their_time_and_not_a_nanosecond_sooner() {
        let schedule = policy().schedule(start(), 7200 * SECOND, 7200 * SECOND, 0.5);
        let tick = Duration::from_nanos(1);
        for (moment, before, from) in [
            (schedule.refresh_at, Phase::Fresh, Phase::RefreshDue),
            (schedule.expiring_at, Phase::RefreshDue, Phase::Expiring),
            (schedule.expired_at, Phase::Expiring, Phase::Expired),
        ] {
            assert_eq!(schedule.phase(moment.before(tick)), before);
            assert_eq!(schedule.phase(moment), from);
        }
    }

    #[test]
    fn no_setting_and_no_lifetime_causes_a_panic_or_extends_a_lifetime() {
        let tick = Duration::from_nanos(1);
        let odd = [Duration::ZERO, tick, SECOND, 7200 * SECOND, Duration::MAX];
        for lifetime in odd {
            for setting in odd {
                for jitter in [0.0, 1.0, f64::NAN, f64::INFINITY, -3.0] {
                    let policy = Policy {
                        refresh_ahead: setting,
                        refresh_after: Some(setting),
                        earliest_refresh: Some(setting),
                        safety_margin: setting,
                        jitter,
                        backoff_min: setting,
                        backoff_max: setting,
                    };
                    let schedule = policy.schedule(start(), lifetime, lifetime, 0.7);
                    assert!(schedule.expired_at.until(schedule.ends_at) > Duration::ZERO || lifetime == Duration::ZERO);
                    assert_eq!(schedule.phase(schedule.ends_at), Phase::Expired);
                    let _ = policy.cooldown(u32::MAX, &Error::new(ErrorKind::Unavailable, "x"), 0.3);
                    let _ = policy.cooldown(1, &Error::new(ErrorKind::Throttled, "x").with_retry_after(setting), 0.3);
                }
            }
        }
    }

    #[test]
    fn backoff_doubles_to_its_maximum_and_stays_there_after_a_thousand_failures() {
        let error = Error::new(ErrorKind::Unavailable, "x");
        let cooldown = |failures| policy().cooldown(failures, &error, 0.5).as_secs();
        assert_eq!([cooldown(1), cooldown(2), cooldown(3), cooldown(6), cooldown(7)], [1, 2, 4, 32, 60]);
        assert_eq!([cooldown(33), cooldown(64), cooldown(1000), cooldown(u32::MAX)], [60; 4]);
    }

    #[test]
    fn backoff_stays_within_a_fifth_of_its_value() {
        let error = Error::new(ErrorKind::Unavailable, "x");
        for random in [0.0, 0.25, 0.5, 0.75, 1.0] {
            let cooldown = policy().cooldown(7, &error, random).as_secs_f64();
            assert!((48.0..=72.0).contains(&cooldown), "{cooldown}");
        }
    }

    #[test]
    fn the_wait_that_the_provider_asks_for_is_kept_up_to_an_hour() {
        let throttled = |wait| Error::new(ErrorKind::Throttled, "x").with_retry_after(wait);
        assert_eq!(policy().cooldown(1, &throttled(90 * SECOND), 0.5), 90 * SECOND);
        assert_eq!(policy().cooldown(1, &throttled(Duration::MAX), 0.5), 3600 * SECOND);
        assert_eq!(policy().cooldown(1, &throttled(Duration::ZERO), 0.5), SECOND);
    }

    #[test]
    fn a_guessed_wait_doubles_up_to_an_hour() {
        let guessed = Error::new(ErrorKind::Throttled, "x").with_growing_wait(60 * SECOND);
        let cooldown = |failures| policy().cooldown(failures, &guessed, 0.5).as_secs();
        let cooldowns = [cooldown(1), cooldown(2), cooldown(3), cooldown(7), cooldown(u32::MAX)];
        assert_eq!(cooldowns, [60, 120, 240, 3600, 3600]);
        let stated = guessed.with_retry_after(60 * SECOND);
        assert_eq!(policy().cooldown(7, &stated, 0.5), 60 * SECOND);
    }

    #[test]
    fn refused_credentials_have_a_cooldown_of_thirty_seconds() {
        assert_eq!(policy().cooldown(1, &Error::new(ErrorKind::InvalidCredentials, "x"), 0.5), 30 * SECOND);
        assert_eq!(policy().cooldown(1, &Error::new(ErrorKind::SignInRequired, "x"), 0.5), 30 * SECOND);
    }
}
