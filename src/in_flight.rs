//! A fetch on a thread of its own, whose callers wait with their own deadlines.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex};

use crate::clock::Deadline;
use crate::error::{Error, catch_panic};
use crate::lock::{lock, wait};
use crate::thread::spawn;

/// A piece of work that many callers wait for.
///
/// It has a thread of its own because nothing else bounds a name look-up, an answer that trickles in, or a user's
/// closure: whoever waits here leaves when its own deadline comes, and the work goes on.
pub(crate) struct InFlight<T> {
    progress: Mutex<Progress<T>>,
    completed: Condvar,
    /// When to give it up: its work is late by then and may never end.
    deadline: Deadline,
    /// The process that runs it. After a fork the child has the refresh's memory, but not its thread.
    process: u32,
}

struct Progress<T> {
    outcome: Option<Result<T, Error>>,
    /// Freed on landing; see [`InFlight::attach_permit`].
    permit: Option<Box<dyn Send>>,
}

impl<T: Clone + Send + 'static> InFlight<T> {
    /// A refresh that nobody flies yet: [`start`](InFlight::start) it.
    pub(crate) fn new(deadline: Deadline) -> Arc<InFlight<T>> {
        Arc::new(InFlight {
            progress: Mutex::new(Progress { outcome: None, permit: None }),
            completed: Condvar::new(),
            deadline,
            process: std::process::id(),
        })
    }

    /// Does `work` on a new thread and lands with its result, and does then what nobody waits for. A panic lands the
    /// refresh too.
    ///
    /// `manager` says whose refresh it is, for [`is_reentrant`]; a thread that is itself aboard hands its own managers on.
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
            self.complete(Err(error));
        }
    }

    /// Keeps `permit` until the refresh lands or is given up.
    pub(crate) fn attach_permit(&self, permit: Box<dyn Send>) {
        lock(&self.progress).permit = Some(permit);
    }

    /// Gives every waiter `outcome`. Only the first landing counts.
    pub(crate) fn complete(&self, outcome: Result<T, Error>) {
        let permit = {
            let mut progress = lock(&self.progress);
            progress.outcome.get_or_insert(outcome);
            progress.permit.take()
        };
        self.completed.notify_all();
        drop(permit);
    }

    /// Waits for the landing. `None`: `deadline` came first.
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

    /// False in a forked child, where its thread does not exist.
    pub(crate) fn belongs_to_this_process(&self) -> bool {
        self.process == std::process::id()
    }
}

/// True on the thread of a refresh of `manager`, and on those that it started: to wait for that refresh there is to wait
/// for oneself.
pub(crate) fn is_reentrant(manager: u64) -> bool {
    REFRESHING.with_borrow(|managers| managers.contains(&manager))
}

thread_local! {
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
    fn everybody_aboard_gets_the_result() {
        let in_flight = InFlight::new(soon());
        thread::scope(|scope| {
            let waiters: Vec<_> = (0..8).map(|_| scope.spawn(|| in_flight.wait(soon()))).collect();
            in_flight.start(1, || Ok(7), || ());
            for waiter in waiters {
                let outcome = waiter.join().expect("the waiter does not panic");
                assert_eq!(outcome.expect("it lands in time").expect("it lands well"), 7);
            }
        });
    }

    #[test]
    fn a_panic_lands_the_flight_without_its_text() {
        let in_flight = InFlight::<()>::new(soon());
        in_flight.start(1, || panic!("token=abc"), || ());
        let error = in_flight.wait(soon()).expect("it lands").expect_err("it panicked");
        assert_eq!(error.kind(), ErrorKind::Panicked);
        assert!(!format!("{error} {error:?}").contains("abc"));
    }

    #[test]
    fn a_waiter_leaves_at_its_deadline_and_the_flight_goes_on() {
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
    fn cargo_is_freed_on_landing() {
        let in_flight = InFlight::new(soon());
        let permit = Arc::new(());
        in_flight.attach_permit(Box::new(permit.clone()));
        assert_eq!(Arc::strong_count(&permit), 2);
        in_flight.complete(Ok(()));
        assert_eq!(Arc::strong_count(&permit), 1);
    }

    #[test]
    fn a_flight_knows_who_is_aboard_through_flights_that_it_starts() {
        let outer = InFlight::new(soon());
        outer.start(
            1,
            || {
                let inner = InFlight::new(soon());
                inner.start(2, || Ok((is_reentrant(1), is_reentrant(2), is_reentrant(3))), || ());
                inner.wait(soon()).expect("it lands")
            },
            || (),
        );
        assert_eq!(outer.wait(soon()).expect("it lands").expect("it lands well"), (true, true, false));
        assert!(!is_reentrant(1));
    }
}
