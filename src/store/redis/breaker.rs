//! A circuit breaker: stops calling a server that fails, and lets one call probe whether it works again.
//!
//! - *Closed*: every call is admitted. Three failures in a row open the breaker; a failure that lasts until a setting
//!   changes opens it at once.
//! - *Open*: no call is admitted until the backoff has passed: 1 s after the first opening, doubled up to 30 s, with
//!   jitter; 30 s at once after a lasting failure.
//! - *Probing*: the first call after the backoff is admitted as a probe, and others wait for its result. Success closes
//!   the breaker, failure opens it for longer. A probe that never returns is replaced after its time limit.

use std::time::Duration;

use crate::clock::Deadline;
use crate::policy::store_backoff;

#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Failures since the last success.
    failures: u32,
    /// How often the breaker has opened since the last success.
    times_opened: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Deadline,
    /// When the probe, if there is one, must have returned.
    probe: Option<Deadline>,
}

impl Breaker {
    /// Returns how long to wait before the next call, or `None` when a call would be admitted now.
    pub(super) fn remaining_backoff(&self) -> Option<Duration> {
        let open = self.open.as_ref()?;
        Some(open.probe.unwrap_or(open.until).remaining()).filter(|rest| !rest.is_zero())
    }

    /// Admits a call. In the open state the call is the probe, which has `probe_timeout` to return. The error is the
    /// time to wait before the next call.
    pub(super) fn admit(&mut self, probe_timeout: Duration) -> Result<(), Duration> {
        if let Some(rest) = self.remaining_backoff() {
            return Err(rest);
        }
        if let Some(open) = &mut self.open {
            open.probe = Some(Deadline::within(probe_timeout));
        }
        Ok(())
    }

    /// Closes the breaker after a successful call. Returns whether there were failures before it.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(self).failures > 0
    }

    /// Counts a failure. `is_lasting` says that only a changed setting can help. `random` is from 0 to 1.
    ///
    /// While the breaker is open, only the probe's failure counts: calls that started before it opened may still fail.
    pub(super) fn failed(&mut self, is_lasting: bool, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let was_probe = self.open.as_ref().is_some_and(|open| open.probe.is_some());
        if self.open.is_some() && !was_probe || !is_lasting && !was_probe && self.failures < FAILURES_TO_OPEN {
            return;
        }
        self.times_opened = self.times_opened.saturating_add(1);
        let step = if is_lasting { u32::MAX } else { self.times_opened };
        self.open = Some(Open { until: Deadline::within(store_backoff(step, random)), probe: None });
    }
}

/// How many failures in a row open the breaker.
const FAILURES_TO_OPEN: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE_TIMEOUT: Duration = Duration::from_secs(60);

    /// Ends the backoff.
    fn end_backoff(breaker: &mut Breaker) {
        breaker.open.as_mut().expect("the breaker is open").until = Deadline::within(Duration::ZERO);
    }

    #[test]
    fn three_failures_in_a_row_open_the_breaker() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failed(false, 0.5);
            breaker.failed(false, 0.5);
            assert_eq!(breaker.admit(PROBE_TIMEOUT), Ok(()));
            breaker.succeeded();
        }
        for _ in 0..3 {
            breaker.failed(false, 0.5);
        }
        assert!(breaker.admit(PROBE_TIMEOUT).is_err());
    }

    #[test]
    fn one_call_at_a_time_probes_an_open_breaker() {
        let mut breaker = Breaker::default();
        breaker.failed(true, 0.5);
        end_backoff(&mut breaker);
        assert_eq!(breaker.admit(PROBE_TIMEOUT), Ok(()));
        assert!((0..100).all(|_| breaker.admit(PROBE_TIMEOUT).is_err()));
        breaker.succeeded();
        assert!((0..100).all(|_| breaker.admit(PROBE_TIMEOUT).is_ok()));
    }

    #[test]
    fn each_failed_probe_makes_the_backoff_longer_up_to_half_a_minute() {
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| breaker.failed(false, 0.5));
        let mut before = Duration::ZERO;
        for _ in 0..5 {
            let backoff = breaker.admit(PROBE_TIMEOUT).expect_err("the breaker is open");
            assert!(backoff > before, "{backoff:?} after {before:?}");
            before = backoff;
            end_backoff(&mut breaker);
            assert_eq!(breaker.admit(PROBE_TIMEOUT), Ok(()));
            breaker.failed(false, 0.5);
        }
        for _ in 0..1_000 {
            end_backoff(&mut breaker);
            assert_eq!(breaker.admit(PROBE_TIMEOUT), Ok(()));
            breaker.failed(false, 1.0);
        }
        assert!(breaker.admit(PROBE_TIMEOUT).expect_err("the breaker is open") <= Duration::from_secs(36));
    }

    #[test]
    fn a_late_failure_of_an_earlier_call_does_not_prolong_the_backoff() {
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| breaker.failed(false, 0.5));
        let backoff = breaker.admit(PROBE_TIMEOUT).expect_err("the breaker is open");
        (0..10).for_each(|_| breaker.failed(false, 0.5));
        assert!(breaker.admit(PROBE_TIMEOUT).expect_err("the breaker is open") <= backoff);
    }

    #[test]
    fn a_probe_that_never_returns_makes_room_for_another() {
        let mut breaker = Breaker::default();
        breaker.failed(true, 0.5);
        end_backoff(&mut breaker);
        assert_eq!(breaker.admit(Duration::ZERO), Ok(()));
        assert_eq!(breaker.admit(PROBE_TIMEOUT), Ok(()));
    }
}
