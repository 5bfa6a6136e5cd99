//! The one way to take a lock and to wait for a condition.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Locks `mutex`, even if a thread panicked while it held the lock.
///
/// A poisoned mutex of this crate still holds a consistent value. Users' code does not run under its locks, with one
/// exception: a custom [`Clock`](crate::clock::Clock) is read under locks, and may panic. Values are consistent
/// wherever a clock is read. Panicking here would spread the fault of one thread to all callers.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condvar` is notified, for `wait` at most.
///
/// A wait can end early without a notification, so callers check their condition again.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>, wait: Duration) -> MutexGuard<'a, T> {
    condvar.wait_timeout(guard, wait).unwrap_or_else(PoisonError::into_inner).0
}
