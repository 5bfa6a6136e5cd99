//! A refresh in flight: work on its own thread, and callers that wait for its result.
//!
//! # Theory of operation
//!
//! 1. [`InFlight::new`] fixes the deadline of the work. The manager publishes the new value under its lock, so that
//!    later callers find it and wait instead of starting a second refresh.
//! 2. [`start`](InFlight::start) runs the work on a new thread. Nothing else bounds a name look-up, a reply that
//!    arrives byte by byte, or a user's closure; a separate thread lets every caller leave at its own deadline.
//! 3. [`wait`](InFlight::wait) returns the result, or `None` when the caller's deadline comes first. The work
//!    continues.
//! 4. [`complete`](InFlight::complete) wakes all callers. The thread calls it when the work returns, when the work
//!    panics, or when no thread could be started; the manager calls it with an error when it abandons a refresh whose
//!    deadline has passed. The first result counts.
//!
//! An abandoned thread may never end. After a fork, the child has this value but not the thread, so the manager ignores
//! a refresh that does not [belong to this process](InFlight::belongs_to_this_process). A provider may ask its own
//! manager for a token by mistake; [`is_reentrant`] finds that out before the thread waits for itself.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex};

use crate::clock::Deadline;
use crate::error::{Error, catch_panic};
use crate::lock::{lock, wait};
use crate::thread::spawn;

/// Work on its own thread, and the callers that wait for its result.
pub(crate) struct InFlight<T> {
    progress: Mutex<Progress<T>>,
    completed: Condvar,
    /// The manager abandons the work when this deadline has passed.
    deadline: Deadline,
    /// The process that runs the work. A forked child has a copy of this value, but not the thread.
    process: u32,
}

struct Progress<T> {
    outcome: Option<Result<T, Error>>,
    /// Dropped when the work completes; see [`InFlight::attach_permit`].
    permit: Option<Box<dyn Send>>,
}

impl<T: Clone + Send + 'static> InFlight<T> {
    /// Creates a value whose work has not been [started](InFlight::start).
    pub(crate) fn new(deadline: Deadline) -> Arc<InFlight<T>> {
        Arc::new(InFlight {
            progress: Mutex::new(Progress { outcome: None, permit: None }),
            completed: Condvar::new(),
            deadline,
            process: std::process::id(),
        })
    }

    /// Runs `work` on a new thread, completes with its result, and then runs `then`, for which no caller waits.
    ///
    /// A panic in `work` completes with an error. `manager` is recorded for [`is_reentrant`], together with the
    /// managers for which the calling thread itself is refreshing.
    pub(crate) fn start(
        self: &Arc<Self>,
        manager: u64,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
        then: impl FnOnce() + Send + 'static,
    ) {
        let mut managers = REFRESHING.with_borrow(Clone::clone);
        managers.push(manager);
        let in_flight = self.clone();
        let run = move || {
            REFRESHING.set(managers);
            in_flight.complete(catch_panic(work));
            then();
        };
        if let Err(error) = spawn("evertoken-fetch", run) {
            // Without a thread nothing else would ever complete this refresh.
            self.complete(Err(error));
        }
    }

    /// Keeps `permit` until the work completes or is abandoned.
    pub(crate) fn attach_permit(&self, permit: Box<dyn Send>) {
        lock(&self.progress).permit = Some(permit);
    }

    /// Wakes every waiting caller with `outcome`. A later call changes nothing.
    pub(crate) fn complete(&self, outcome: Result<T, Error>) {
        // The permit is dropped after the lock, because its `drop` takes the scheduler's lock.
        let permit = {
            let mut progress = lock(&self.progress);
            progress.outcome.get_or_insert(outcome);
            progress.permit.take()
        };
        self.completed.notify_all();
        drop(permit);
    }

    /// Waits for the result until `deadline`. Returns `None` when the deadline comes first.
    pub(crate) fn wait(&self, deadline: Deadline) -> Option<Result<T, Error>> {
        let mut progress = lock(&self.progress);
        loop {
            if let Some(outcome) = &progress.outcome {
                return Some(outcome.clone());
            }
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return None;
            }
            progress = wait(&self.completed, progress, remaining);
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        lock(&self.progress).outcome.is_some()
    }

    pub(crate) fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Returns false in a forked child, where the thread does not exist.
    pub(crate) fn belongs_to_this_process(&self) -> bool {
        self.process == std::process::id()
    }
}

/// Returns true when the calling thread is refreshing `manager`, directly or on behalf of another manager.
///
/// In this case the thread must not wait for the refresh of `manager`, because that refresh waits for the thread.
pub(crate) fn is_reentrant(manager: u64) -> bool {
    REFRESHING.with_borrow(|managers| managers.contains(&manager))
}

thread_local! {
    /// The managers whose refreshes depend on this thread: the one that it refreshes, and those that wait for that one.
    static REFRESHING: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;

    fn soon() -> Deadline {
        Deadline::within(Duration::from_secs(30))
    }

    #[test]
    fn every_waiting_caller_gets_the_result() {
        let in_flight = InFlight::new(soon());
        thread::scope(|scope| {
            let waiters: Vec<_> = (0..8).map(|_| scope.spawn(|| in_flight.wait(soon()))).collect();
            in_flight.start(1, || Ok(7), || ());
            for waiter in waiters {
                let outcome = waiter.join().expect("the waiter does not panic");
                assert_eq!(outcome.expect("the work ends in time").expect("the work succeeds"), 7);
            }
        });
    }

    #[test]
    fn a_panic_completes_the_work_with_an_error_that_does_not_quote_it() {
        let in_flight = InFlight::<()>::new(soon());
        in_flight.start(1, || panic!("token=abc"), || ());
        let error = in_flight.wait(soon()).expect("the work ends").expect_err("the work panics");
        assert_eq!(error.kind(), ErrorKind::Panicked);
        assert!(!format!("{error} {error:?}").contains("abc"));
    }

    #[test]
    fn a_caller_leaves_at_its_deadline_and_the_work_continues() {
        let in_flight = InFlight::new(soon());
        let (gate, opened) = crossbeam_channel::bounded::<()>(0);
        in_flight.start(
            1,
            move || {
                let _ = opened.recv();
                Ok(1)
            },
            || (),
        );
        assert!(in_flight.wait(Deadline::within(Duration::from_millis(20))).is_none());
        drop(gate);
        assert!(in_flight.wait(soon()).is_some());
    }

    #[test]
    fn the_permit_is_dropped_when_the_work_completes() {
        let in_flight = InFlight::new(soon());
        let permit = Arc::new(());
        in_flight.attach_permit(Box::new(permit.clone()));
        assert_eq!(Arc::strong_count(&permit), 2);
        in_flight.complete(Ok(()));
        assert_eq!(Arc::strong_count(&permit), 1);
    }

    #[test]
    fn a_thread_knows_the_managers_whose_refreshes_need_it() {
        let outer = InFlight::new(soon());
        outer.start(
            1,
            || {
                let inner = InFlight::new(soon());
                inner.start(2, || Ok((is_reentrant(1), is_reentrant(2), is_reentrant(3))), || ());
                inner.wait(soon()).expect("the work ends")
            },
            || (),
        );
        assert_eq!(outer.wait(soon()).expect("the work ends").expect("the work succeeds"), (true, true, false));
        assert!(!is_reentrant(1));
    }
}
