//! One way to take a lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, whatever happened to the thread that held it last.
///
/// No caller's code runs under a lock of this crate, but for one: a custom [`Clock`](crate::Clock) is read under locks.
/// Every lock leaves its value whole between statements, and wherever a clock is read, so a poisoned mutex holds a good
/// value: going on is right, and panicking would spread one thread's fault to all.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
