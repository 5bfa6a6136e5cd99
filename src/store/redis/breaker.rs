//! Leaves a server alone that does not work, and finds out whether it works again.

use std::time::Duration;

use crate::clock::Deadline;
use crate::policy::store_backoff;

/// Closed: everybody may ask. Open, after several failures in a row: nobody. When the pause is over one may ask; it
/// closes or opens for longer, by what comes of that.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// In a row.
    failures: u32,
    /// How often it has opened since it was closed.
    openings: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Deadline,
    /// Until when the one that asks has the time to do so.
    probe: Option<Deadline>,
}

impl Breaker {
    /// How long to stay away.
    pub(super) fn rest(&self) -> Option<Duration> {
        let open = self.open.as_ref()?;
        Some(open.probe.unwrap_or(open.until).remaining()).filter(|rest| !rest.is_zero())
    }

    /// Asks for leave. Err: how long to stay away.
    pub(super) fn enter(&mut self, takes: Duration) -> Result<(), Duration> {
        if let Some(rest) = self.rest() {
            return Err(rest);
        }
        if let Some(open) = &mut self.open {
            open.probe = Some(Deadline::within(takes));
        }
        Ok(())
    }

    /// The server answered. True when it did not before.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(self).failures > 0
    }

    /// It did not, or with an error. `for_long`: it will not before somebody mends a setting.
    pub(super) fn failed(&mut self, for_long: bool, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let was_probe = self.open.as_ref().is_some_and(|open| open.probe.is_some());
        if self.open.is_some() && !was_probe || !for_long && !was_probe && self.failures < FAILURES {
            return;
        }
        self.openings = self.openings.saturating_add(1);
        let step = if for_long { u32::MAX } else { self.openings };
        self.open = Some(Open { until: Deadline::within(store_backoff(step, random)), probe: None });
    }
}

/// So many failures in a row open it.
const FAILURES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const TAKES: Duration = Duration::from_secs(60);

    /// As if the pause was over.
    fn rested(breaker: &mut Breaker) {
        breaker.open.as_mut().expect("it is open").until = Deadline::within(Duration::ZERO);
    }

    #[test]
    fn three_failures_in_a_row_open_it() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failed(false, 0.5);
            breaker.failed(false, 0.5);
            assert_eq!(breaker.enter(TAKES), Ok(()));
            breaker.succeeded();
        }
        for _ in 0..3 {
            breaker.failed(false, 0.5);
        }
        assert!(breaker.enter(TAKES).is_err());
    }

    #[test]
    fn one_at_a_time_may_try_whether_it_works_again() {
        let mut breaker = Breaker::default();
        breaker.failed(true, 0.5);
        rested(&mut breaker);
        assert_eq!(breaker.enter(TAKES), Ok(()));
        assert!((0..100).all(|_| breaker.enter(TAKES).is_err()));
        breaker.succeeded();
        assert!((0..100).all(|_| breaker.enter(TAKES).is_ok()));
    }

    #[test]
    fn each_failed_try_makes_the_pause_longer_up_to_half_a_minute() {
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| breaker.failed(false, 0.5));
        let mut before = Duration::ZERO;
        for _ in 0..5 {
            let rest = breaker.enter(TAKES).expect_err("it is open");
            assert!(rest > before, "{rest:?} after {before:?}");
            before = rest;
            rested(&mut breaker);
            assert_eq!(breaker.enter(TAKES), Ok(()));
            breaker.failed(false, 0.5);
        }
        for _ in 0..1_000 {
            rested(&mut breaker);
            assert_eq!(breaker.enter(TAKES), Ok(()));
            breaker.failed(false, 1.0);
        }
        assert!(breaker.enter(TAKES).expect_err("it is open") <= Duration::from_secs(36));
    }

    #[test]
    fn what_comes_late_from_before_it_opened_changes_nothing() {
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| breaker.failed(false, 0.5));
        let rest = breaker.enter(TAKES).expect_err("it is open");
        (0..10).for_each(|_| breaker.failed(false, 0.5));
        assert!(breaker.enter(TAKES).expect_err("it is open") <= rest);
    }

    #[test]
    fn a_try_that_never_ends_makes_room_for_another() {
        let mut breaker = Breaker::default();
        breaker.failed(true, 0.5);
        rested(&mut breaker);
        assert_eq!(breaker.enter(Duration::ZERO), Ok(()));
        assert_eq!(breaker.enter(TAKES), Ok(()));
    }
}
