//! A clock that a test moves.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::{Clock, Notifier, Timestamp};
use crate::lock::lock;

/// A [`Clock`] that stands still until the test moves it. Clones are the same clock.
///
/// It starts on the first of January 2026, on a machine that has been up for five days. Every move notifiers whoever
/// sleeps until a moment of this clock, so that what is due by then happens now.
///
/// ```
/// use std::time::Duration;
///
/// use evertoken::testing::FakeClock;
///
/// let clock = FakeClock::new();
/// clock.advance(Duration::from_secs(7200));
/// assert_eq!(clock.elapsed(), Duration::from_secs(7200));
/// ```
#[derive(Clone)]
pub struct FakeClock(Arc<Mutex<State>>);

struct State {
    monotonic: Duration,
    wall: Duration,
    true_elapsed: Duration,
    // One for each manager or refresher that uses the clock, so it stays short.
    notifiers: Vec<Notifier>,
}

impl FakeClock {
    /// What its wall clock shows at the start: 2026-01-01 00:00:00 UTC.
    pub(super) const START: Duration = Duration::from_secs(1_767_225_600);

    /// A clock that stands still.
    pub fn new() -> FakeClock {
        let state = State {
            monotonic: START_MONOTONIC,
            wall: FakeClock::START,
            true_elapsed: Duration::ZERO,
            notifiers: Vec::new(),
        };
        FakeClock(Arc::new(Mutex::new(state)))
    }

    /// Time passes: both clocks move on.
    pub fn advance(&self, time: Duration) {
        self.change(|state| {
            state.monotonic = state.monotonic.saturating_add(time);
            state.wall = state.wall.saturating_add(time);
            state.true_elapsed = state.true_elapsed.saturating_add(time);
        });
    }

    /// The machine sleeps: time passes, but only the wall clock moves on, as on Linux.
    pub fn suspend(&self, time: Duration) {
        self.change(|state| {
            state.wall = state.wall.saturating_add(time);
            state.true_elapsed = state.true_elapsed.saturating_add(time);
        });
    }

    /// Somebody sets the wall clock back. No time passes.
    pub fn step_back(&self, step: Duration) {
        self.change(|state| state.wall = state.wall.saturating_sub(step));
    }

    /// Somebody sets the wall clock forward. No time passes.
    pub fn step_forward(&self, step: Duration) {
        self.change(|state| state.wall = state.wall.saturating_add(step));
    }

    /// How far the monotonic clock has moved since the start: time that was slept through is not in it.
    pub fn elapsed(&self) -> Duration {
        lock(&self.0).monotonic.saturating_sub(START_MONOTONIC)
    }

    /// How much time has passed for the rest of the world, whatever this machine's clocks say about it.
    pub(super) fn true_elapsed(&self) -> Duration {
        lock(&self.0).true_elapsed
    }

    fn change(&self, edit: impl FnOnce(&mut State)) {
        let notifiers = {
            let mut state = lock(&self.0);
            edit(&mut state);
            state.notifiers.clone()
        };
        // Outside the lock: whoever is woken reads this clock.
        notifiers.iter().for_each(Notifier::notify);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        let state = lock(&self.0);
        Timestamp::new(state.monotonic, state.wall)
    }

    fn on_jump(&self, notifier: Notifier) {
        lock(&self.0).notifiers.push(notifier);
    }
}

impl Default for FakeClock {
    fn default() -> FakeClock {
        FakeClock::new()
    }
}

impl fmt::Debug for FakeClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeClock(elapsed={:?})", self.elapsed())
    }
}

/// Five days: not zero, so that a moment before the start can be told.
const START_MONOTONIC: Duration = Duration::from_secs(5 * 86_400);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn it_stands_still_until_it_is_moved() {
        let clock = FakeClock::new();
        assert_eq!(clock.now(), clock.now());
        assert_eq!(clock.clone().elapsed(), Duration::ZERO);
    }

    #[test]
    fn advancing_moves_both_clocks() {
        let clock = FakeClock::new();
        let start = clock.now();
        clock.clone().advance(HOUR);
        assert_eq!(clock.now(), start.after(HOUR));
        assert_eq!((clock.elapsed(), clock.true_elapsed()), (HOUR, HOUR));
    }

    #[test]
    fn a_machine_that_sleeps_moves_its_wall_clock_only() {
        let clock = FakeClock::new();
        let start = clock.now();
        clock.suspend(HOUR);
        assert_eq!(clock.now(), Timestamp::new(START_MONOTONIC, FakeClock::START + HOUR));
        assert_eq!(clock.now().since(start), HOUR);
        assert_eq!((clock.elapsed(), clock.true_elapsed()), (Duration::ZERO, HOUR));
    }

    #[test]
    fn setting_the_wall_clock_takes_no_time() {
        let clock = FakeClock::new();
        clock.step_back(HOUR);
        assert_eq!(clock.now(), Timestamp::new(START_MONOTONIC, FakeClock::START - HOUR));
        clock.step_forward(2 * HOUR);
        assert_eq!(clock.now(), Timestamp::new(START_MONOTONIC, FakeClock::START + HOUR));
        assert_eq!((clock.elapsed(), clock.true_elapsed()), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn every_move_wakes_everybody_after_the_clock_has_moved() {
        let clock = FakeClock::new();
        let woken = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let (woken, seen, start) = (woken.clone(), clock.clone(), clock.now());
            clock.on_jump(Notifier::new(move || {
                assert_ne!(seen.now(), start, "it would deadlock, or see the old time");
                woken.fetch_add(1, Ordering::Relaxed);
            }));
        }
        clock.advance(HOUR);
        clock.suspend(HOUR);
        clock.step_back(HOUR);
        clock.step_forward(HOUR);
        assert_eq!(woken.load(Ordering::Relaxed), 8);
    }
}
