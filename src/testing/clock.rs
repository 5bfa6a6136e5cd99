//! `FakeClock`, a clock that a test moves.
//!
//! The clock keeps three durations. The *monotonic* and the *wall* time are what a manager reads. The *true* time is
//! what passed for the rest of the world; a fake vendor reads it, because a suspended client or a wrong wall clock does
//! not change the age of a token at the vendor.
//!
//! | Move | monotonic | wall | true |
//! |---|---|---|---|
//! | `advance` | + | + | + |
//! | `suspend` | | + | + |
//! | `step_back`, `step_forward` | | - or + | |
//!
//! After each move the clock notifies every manager and scheduler that uses it, so that work that is due by then
//! starts.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::{Clock, Notifier, Timestamp};
use crate::lock::lock;

/// A [`Clock`] that stands still until the test moves it. Clones share one clock.
///
/// Give a clone to [`TokenManagerBuilder::clock`](crate::TokenManagerBuilder::clock), and another one to
/// [`FakeVendor::clock`](super::FakeVendor::clock) if the test has a fake vendor. Each move wakes the background
/// threads that wait for a time of this clock. Their work then happens on their own threads: wait for its effect, for
/// example with [`FakeProvider::wait_for_finished`](super::FakeProvider::wait_for_finished).
///
/// A new clock shows 2026-01-01 00:00:00 UTC, on a machine that started five days earlier.
///
/// ```
/// use std::time::Duration;
///
/// use evertoken::TokenManager;
/// use evertoken::testing::{FakeClock, FakeProvider};
///
/// let clock = FakeClock::new();
/// let provider = FakeProvider::new().lifetime(Duration::from_secs(7200));
/// let manager = TokenManager::builder(provider).clock(clock.clone()).build()?;
/// assert_eq!(manager.token()?.expose(), "token-1");
///
/// clock.advance(Duration::from_secs(7200));
/// assert_eq!(manager.token()?.expose(), "token-2");
/// assert_eq!(clock.elapsed(), Duration::from_secs(7200));
/// # Ok::<(), evertoken::Error>(())
/// ```
#[derive(Clone)]
pub struct FakeClock(Arc<Mutex<State>>);

struct State {
    monotonic: Duration,
    wall: Duration,
    true_elapsed: Duration,
    // One for each manager or scheduler that uses the clock, and never removed: a test has few of them.
    notifiers: Vec<Notifier>,
}

impl FakeClock {
    /// Wall time of a new clock: 2026-01-01 00:00:00 UTC.
    pub(super) const START: Duration = Duration::from_secs(1_767_225_600);

    /// Returns a clock that stands still.
    pub fn new() -> FakeClock {
        let state = State {
            monotonic: START_MONOTONIC,
            wall: FakeClock::START,
            true_elapsed: Duration::ZERO,
            notifiers: Vec::new(),
        };
        FakeClock(Arc::new(Mutex::new(state)))
    }

    /// Lets time pass: the monotonic and the wall clock move forward, and tokens at a fake vendor age.
    pub fn advance(&self, time: Duration) {
        self.change(|state| {
            state.monotonic = state.monotonic.saturating_add(time);
            state.wall = state.wall.saturating_add(time);
            state.true_elapsed = state.true_elapsed.saturating_add(time);
        });
    }

    /// Suspends the machine for this long: time passes, but the monotonic clock stands still, as on Linux.
    pub fn suspend(&self, time: Duration) {
        self.change(|state| {
            state.wall = state.wall.saturating_add(time);
            state.true_elapsed = state.true_elapsed.saturating_add(time);
        });
    }

    /// Sets the wall clock back. No time passes, so tokens at a fake vendor do not age.
    pub fn step_back(&self, step: Duration) {
        self.change(|state| state.wall = state.wall.saturating_sub(step));
    }

    /// Sets the wall clock forward. No time passes, so tokens at a fake vendor do not age.
    pub fn step_forward(&self, step: Duration) {
        self.change(|state| state.wall = state.wall.saturating_add(step));
    }

    /// Returns how far the monotonic clock has moved since the start. [`suspend`](FakeClock::suspend) does not count.
    pub fn elapsed(&self) -> Duration {
        lock(&self.0).monotonic.saturating_sub(START_MONOTONIC)
    }

    /// Returns the time that has passed for the rest of the world, whatever this machine's clocks show.
    pub(super) fn true_elapsed(&self) -> Duration {
        lock(&self.0).true_elapsed
    }

    fn change(&self, edit: impl FnOnce(&mut State)) {
        let notifiers = {
            let mut state = lock(&self.0);
            edit(&mut state);
            state.notifiers.clone()
        };
        // Notify outside the lock, because the notified code reads this clock.
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

/// Monotonic time of a new clock. Not zero, so that times before the start can be represented.
const START_MONOTONIC: Duration = Duration::from_secs(5 * 86_400);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_clock_stands_still_until_it_is_moved() {
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
    fn a_suspended_machine_moves_its_wall_clock_only() {
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
    fn every_move_calls_all_notifiers_after_the_clock_has_moved() {
        let clock = FakeClock::new();
        let woken = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let (woken, seen, start) = (woken.clone(), clock.clone(), clock.now());
            clock.on_jump(Notifier::new(move || {
                assert_ne!(seen.now(), start, "a notifier must see the new time");
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
