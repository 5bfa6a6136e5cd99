//! When a token is fresh, due, late and dead, and how long to pause after a failure. Arithmetic only.

use std::time::Duration;

use crate::clock::{COARSE_LAG, Timestamp};
use crate::error::{Error, ErrorKind};

/// The settings that decide about time. No value of any of them can make it panic, and none stretches a lifetime.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// How long before its end a token is due.
    pub(crate) refresh_ahead: Duration,
    /// How long after it was granted a token is due, when that is sooner.
    pub(crate) refresh_after: Option<Duration>,
    /// How long before a token's end the provider starts to grant another one. `None`: at any time.
    pub(crate) earliest_refresh: Option<Duration>,
    /// How long before its end a token is late.
    pub(crate) safety_margin: Duration,
    /// Part of the lead by which it is moved at random, so that processes do not renew in step.
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

/// How long a token lifetimes, as the provider told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lifetime {
    pub(crate) whole: Duration,
    /// How long after it was granted the provider wants it renewed.
    pub(crate) renew_in: Option<Duration>,
}

impl From<Duration> for Lifetime {
    fn from(whole: Duration) -> Lifetime {
        Lifetime { whole, renew_in: None }
    }
}

/// The course of one token's lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// From here on it is renewed in the background.
    pub(crate) due: Timestamp,
    /// From here on a caller asks for a new one and waits.
    pub(crate) late: Timestamp,
    /// From here on nobody gets it.
    pub(crate) dead: Timestamp,
    /// The provider's own end.
    pub(crate) end: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Fresh,
    RefreshDue,
    Expiring,
    Expired,
}

impl Schedule {
    pub(crate) fn phase(&self, now: Timestamp) -> Phase {
        if now.reaches(self.dead) {
            Phase::Expired
        } else if now.reaches(self.late) {
            Phase::Expiring
        } else if now.reaches(self.due) {
            Phase::RefreshDue
        } else {
            Phase::Fresh
        }
    }
}

impl Policy {
    /// The schedule of a token that at `known_at` had `remaining` of its whole `lifetime` left.
    ///
    /// `known_at` is the moment before the request was sent: a slow answer must shorten the lifetime that is assumed, not
    /// lengthen it. `random` is from 0 to 1.
    pub(crate) fn schedule(
        &self,
        known_at: Timestamp,
        lifetime: impl Into<Lifetime>,
        remaining: Duration,
        random: f64,
    ) -> Schedule {
        let lifetime = lifetime.into();
        let end = known_at.after(remaining);
        let stop = HARD_STOP.min(lifetime.whole / 100).max(COARSE_LAG);
        let margin = self.safety_margin.min(lifetime.whole / 10).max(stop);
        // Late before it is due it would be renewed by callers that wait, never ahead of them.
        let lead = self.lead(lifetime, random).max(margin);
        // Asked any earlier the provider gives the same token back.
        let lead = self.earliest_refresh.map_or(lead, |earliest| lead.min(earliest));
        Schedule { due: end.before(lead), late: end.before(margin), dead: end.before(stop), end }
    }

    /// How long before its end a token of this lifetime is to be due, whatever the margin and the provider make of it.
    fn lead(&self, lifetime: Lifetime, random: f64) -> Duration {
        let Lifetime { whole: lifetime, renew_in } = lifetime;
        let ahead = self.refresh_ahead.min(lifetime / 3);
        // A provider that wants it renewed at once would have it renewed without end.
        let wanted = renew_in.map(|wanted| wanted.max(lifetime / 10));
        let after = [self.refresh_after, wanted].into_iter().flatten().min();
        let after = after.map_or(Duration::ZERO, |after| lifetime.saturating_sub(after));
        let lead = ahead.max(after);
        // Within [0, 2]: the jitter is checked when the manager is built, and clamped again here.
        let factor = (1.0 + self.jitter.clamp(0.0, 1.0) * (2.0 * random - 1.0)).clamp(0.0, 2.0);
        Duration::try_from_secs_f64(lead.as_secs_f64() * factor).unwrap_or(lead).min(lifetime)
    }

    /// How long to leave the provider alone after `error` came on top of `failures` in a row, and how many there are
    /// now.
    pub(crate) fn next_pause(&self, failures: u32, error: &Error, random: f64) -> (Duration, u32) {
        let failures = failures.saturating_add(1);
        (self.pause(failures, error, random), failures)
    }

    /// How long to leave the provider alone after `error`, the `failures`-th in a row.
    pub(crate) fn pause(&self, failures: u32, error: &Error, random: f64) -> Duration {
        if let Some(asked) = error.retry_after() {
            let doublings = if error.wait_grows() { failures.saturating_sub(1).min(12) } else { 0 };
            let asked = asked.saturating_mul(1 << doublings);
            return asked.clamp(self.backoff_min.min(LONGEST_PAUSE), LONGEST_PAUSE);
        }
        use ErrorKind::{Config, Forbidden, InvalidCredentials, SignInRequired};
        if matches!(error.kind(), InvalidCredentials | SignInRequired | Forbidden | Config) {
            return DENIAL_PAUSE;
        }
        if error.kind() == ErrorKind::TicketRequired {
            return TICKET_PAUSE;
        }
        let doubled = self.backoff_min.saturating_mul(1 << failures.saturating_sub(1).min(30));
        let factor = 1.0 + BACKOFF_JITTER * (2.0 * random - 1.0);
        doubled.min(self.backoff_max).min(LONGEST_PAUSE).mul_f64(factor.clamp(0.0, 2.0))
    }
}

/// How long to leave a shared store alone after the `failures`-th failure in a row. `random` is from 0 to 1.
pub(crate) fn store_pause(failures: u32, random: f64) -> Duration {
    let doubled = STORE_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(30)).min(LONGEST_STORE_PAUSE);
    doubled.mul_f64(1.0 + BACKOFF_JITTER * (2.0 * random.clamp(0.0, 1.0) - 1.0))
}

const STORE_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(30);

/// Nobody gets a token that has less than this left: the way to the service takes time too.
const HARD_STOP: Duration = Duration::from_secs(5);

/// A denial may be a new secret that the provider has not heard of everywhere, so it is not for ever.
const DENIAL_PAUSE: Duration = Duration::from_secs(30);

/// Nothing is believed to live longer; what providers keep is another matter.
pub(crate) const LONGEST_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// A ticket that comes ends the pause, and nothing else helps.
const TICKET_PAUSE: Duration = Duration::from_secs(300);

/// No pause is longer, whatever a provider asks for.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

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

    /// Seconds before the end at which a token of this lifetime is due, late and dead.
    fn leads(policy: &Policy, lifetime: Duration) -> [f64; 3] {
        let schedule = policy.schedule(start(), lifetime, lifetime, 0.5);
        let lead = |moment: Timestamp| moment.until(schedule.end).as_secs_f64();
        [lead(schedule.due), lead(schedule.late), lead(schedule.dead)]
    }

    #[test]
    fn two_hours_are_renewed_five_minutes_ahead_and_trusted_until_the_last_five_seconds() {
        assert_eq!(leads(&policy(), 7200 * SECOND), [300.0, 60.0, 5.0]);
    }

    #[test]
    fn margins_shrink_with_the_life() {
        assert_eq!(leads(&policy(), 60 * SECOND), [20.0, 6.0, 0.6]);
        assert_eq!(leads(&policy(), 9 * SECOND), [3.0, 0.9, 0.09]);
    }

    #[test]
    fn refresh_after_counts_when_it_is_sooner() {
        let policy = Policy { refresh_after: Some(1800 * SECOND), ..policy() };
        assert_eq!(leads(&policy, 7200 * SECOND)[0], 5400.0);
        assert_eq!(leads(&policy, 1000 * SECOND)[0], 300.0);
    }

    #[test]
    fn a_provider_that_wants_it_renewed_sooner_is_heeded() {
        let lead = |renew_in| {
            let lifetime = Lifetime { whole: 86_400 * SECOND, renew_in: Some(renew_in) };
            let schedule = policy().schedule(start(), lifetime, lifetime.whole, 0.5);
            schedule.due.until(schedule.end)
        };
        assert_eq!(lead(43_200 * SECOND), 43_200 * SECOND);
        assert_eq!(lead(86_400 * SECOND), 300 * SECOND);
        assert_eq!(lead(Duration::MAX), 300 * SECOND);
        assert_eq!(lead(Duration::ZERO), 77_760 * SECOND, "at once would be without end");
    }

    #[test]
    fn nothing_is_due_before_the_provider_grants_something_new() {
        let policy =
            Policy { earliest_refresh: Some(100 * SECOND), refresh_ahead: 600 * SECOND, jitter: 1.0, ..policy() };
        for random in [0.0, 0.3, 0.5, 0.999] {
            let schedule = policy.schedule(start(), 7200 * SECOND, 7200 * SECOND, random);
            assert!(schedule.due.until(schedule.end) <= 100 * SECOND);
        }
    }

    #[test]
    fn nothing_is_late_before_it_is_due() {
        let short = Policy { refresh_ahead: 30 * SECOND, ..policy() };
        assert_eq!(leads(&short, 7200 * SECOND), [60.0, 60.0, 5.0]);
        assert_eq!(leads(&Policy { refresh_ahead: Duration::ZERO, ..policy() }, 60 * SECOND), [6.0, 6.0, 0.6]);
        let jumpy = Policy { jitter: 1.0, ..policy() };
        for random in [0.0, 0.05, 0.5, 1.0] {
            let schedule = jumpy.schedule(start(), 7200 * SECOND, 7200 * SECOND, random);
            assert!(schedule.late.reaches(schedule.due), "{random}");
        }
        // Only the provider can want it otherwise: before that moment there is no other token.
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
    fn phases_change_at_their_moment_and_not_a_nanosecond_sooner() {
        let schedule = policy().schedule(start(), 7200 * SECOND, 7200 * SECOND, 0.5);
        let tick = Duration::from_nanos(1);
        for (moment, before, from) in [
            (schedule.due, Phase::Fresh, Phase::RefreshDue),
            (schedule.late, Phase::RefreshDue, Phase::Expiring),
            (schedule.dead, Phase::Expiring, Phase::Expired),
        ] {
            assert_eq!(schedule.phase(moment.before(tick)), before);
            assert_eq!(schedule.phase(moment), from);
        }
    }

    #[test]
    fn no_setting_and_no_life_makes_it_panic_or_outlive_its_end() {
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
                    assert!(schedule.dead.until(schedule.end) > Duration::ZERO || lifetime == Duration::ZERO);
                    assert_eq!(schedule.phase(schedule.end), Phase::Expired);
                    let _ = policy.pause(u32::MAX, &Error::new(ErrorKind::Unavailable, "x"), 0.3);
                    let _ = policy.pause(1, &Error::new(ErrorKind::Throttled, "x").with_retry_after(setting), 0.3);
                }
            }
        }
    }

    #[test]
    fn backoff_doubles_to_its_maximum_and_stays_there_after_a_thousand_failures() {
        let error = Error::new(ErrorKind::Unavailable, "x");
        let pause = |failures| policy().pause(failures, &error, 0.5).as_secs();
        assert_eq!([pause(1), pause(2), pause(3), pause(6), pause(7)], [1, 2, 4, 32, 60]);
        assert_eq!([pause(33), pause(64), pause(1000), pause(u32::MAX)], [60; 4]);
    }

    #[test]
    fn backoff_stays_within_a_fifth_of_its_value() {
        let error = Error::new(ErrorKind::Unavailable, "x");
        for random in [0.0, 0.25, 0.5, 0.75, 1.0] {
            let pause = policy().pause(7, &error, random).as_secs_f64();
            assert!((48.0..=72.0).contains(&pause), "{pause}");
        }
    }

    #[test]
    fn the_providers_own_wait_is_kept_up_to_an_hour() {
        let throttled = |wait| Error::new(ErrorKind::Throttled, "x").with_retry_after(wait);
        assert_eq!(policy().pause(1, &throttled(90 * SECOND), 0.5), 90 * SECOND);
        assert_eq!(policy().pause(1, &throttled(Duration::MAX), 0.5), 3600 * SECOND);
        assert_eq!(policy().pause(1, &throttled(Duration::ZERO), 0.5), SECOND);
    }

    #[test]
    fn a_wait_that_is_a_guess_doubles_up_to_an_hour() {
        let guessed = Error::new(ErrorKind::Throttled, "x").with_growing_wait(60 * SECOND);
        let pause = |failures| policy().pause(failures, &guessed, 0.5).as_secs();
        assert_eq!([pause(1), pause(2), pause(3), pause(7), pause(u32::MAX)], [60, 120, 240, 3600, 3600]);
        let told = guessed.with_retry_after(60 * SECOND);
        assert_eq!(policy().pause(7, &told, 0.5), 60 * SECOND);
    }

    #[test]
    fn a_denial_pauses_thirty_seconds() {
        assert_eq!(policy().pause(1, &Error::new(ErrorKind::InvalidCredentials, "x"), 0.5), 30 * SECOND);
        assert_eq!(policy().pause(1, &Error::new(ErrorKind::SignInRequired, "x"), 0.5), 30 * SECOND);
    }
}
