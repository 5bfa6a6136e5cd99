//! One way to take a lock.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Locks `mutex`, whatever happened to the thread that held it last.
///
/// No caller's code runs under a lock of this crate, but for one: a custom [`Clock`](crate::clock::Clock) is read under locks.
/// Every lock leaves its value whole between statements, and wherever a clock is read, so a poisoned mutex holds a good
/// value: going on is right, and panicking would spread one thread's fault to all.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `bell`, for `wait` at most, and perhaps not even that long: whoever waits looks why it has been woken.
pub(crate) fn wait<'a, T>(bell: &Condvar, guard: MutexGuard<'a, T>, wait: Duration) -> MutexGuard<'a, T> {
    bell.wait_timeout(guard, wait).unwrap_or_else(PoisonError::into_inner).0
}
