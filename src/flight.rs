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
pub(crate) struct Flight<T> {
    state: Mutex<State<T>>,
    arrival: Condvar,
    /// When to give it up: its work is late by then and may never end.
    limit: Deadline,
    /// The process that runs it. After a fork the child has the flight's memory, but not its thread.
    process: u32,
}

struct State<T> {
    outcome: Option<Result<T, Error>>,
    /// Freed on landing; see [`Flight::carry`].
    cargo: Option<Box<dyn Send>>,
}

impl<T: Clone + Send + 'static> Flight<T> {
    /// A flight that nobody flies yet: [`launch`](Flight::launch) it.
    pub(crate) fn new(limit: Deadline) -> Arc<Flight<T>> {
        Arc::new(Flight {
            state: Mutex::new(State { outcome: None, cargo: None }),
            arrival: Condvar::new(),
            limit,
            process: std::process::id(),
        })
    }

    /// Does `work` on a new thread and lands with its result, and does then what nobody waits for. A panic lands the
    /// flight too.
    ///
    /// `aboard` names whose flight it is, for [`is_aboard`]; a thread that is itself aboard hands its own names on.
    pub(crate) fn launch(
        self: &Arc<Self>,
        aboard: u64,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
        then: impl FnOnce() + Send + 'static,
    ) {
        let mut names = ABOARD.with_borrow(Clone::clone);
        names.push(aboard);
        let flight = self.clone();
        let fly = move || {
            ABOARD.set(names);
            flight.land(catch_panic(work));
            then();
        };
        if let Err(error) = spawn("evertoken-flight", fly) {
            self.land(Err(error));
        }
    }

    /// Keeps `cargo` until the flight lands or is given up.
    pub(crate) fn carry(&self, cargo: Box<dyn Send>) {
        lock(&self.state).cargo = Some(cargo);
    }

    /// Gives every waiter `outcome`. Only the first landing counts.
    pub(crate) fn land(&self, outcome: Result<T, Error>) {
        let cargo = {
            let mut state = lock(&self.state);
            state.outcome.get_or_insert(outcome);
            state.cargo.take()
        };
        self.arrival.notify_all();
        drop(cargo);
    }

    /// Waits for the landing. `None`: `deadline` came first.
    pub(crate) fn wait(&self, deadline: Deadline) -> Option<Result<T, Error>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(outcome) = &state.outcome {
                return Some(outcome.clone());
            }
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                return None;
            }
            state = wait(&self.arrival, state, remaining);
        }
    }

    pub(crate) fn has_landed(&self) -> bool {
        lock(&self.state).outcome.is_some()
    }

    pub(crate) fn limit(&self) -> Deadline {
        self.limit
    }

    /// False in a forked child, where its thread does not exist.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }
}

/// True on the thread of a flight of `aboard`, and on those that it started: to wait for that flight there is to wait
/// for oneself.
pub(crate) fn is_aboard(aboard: u64) -> bool {
    ABOARD.with_borrow(|names| names.contains(&aboard))
}

thread_local! {
    static ABOARD: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
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
        let flight = Flight::new(soon());
        thread::scope(|scope| {
            let waiters: Vec<_> = (0..8).map(|_| scope.spawn(|| flight.wait(soon()))).collect();
            flight.launch(1, || Ok(7), || ());
            for waiter in waiters {
                let outcome = waiter.join().expect("the waiter does not panic");
                assert_eq!(outcome.expect("it lands in time").expect("it lands well"), 7);
            }
        });
    }

    #[test]
    fn a_panic_lands_the_flight_without_its_text() {
        let flight = Flight::<()>::new(soon());
        flight.launch(1, || panic!("token=abc"), || ());
        let error = flight.wait(soon()).expect("it lands").expect_err("it panicked");
        assert_eq!(error.kind(), ErrorKind::Panicked);
        assert!(!format!("{error} {error:?}").contains("abc"));
    }

    #[test]
    fn a_waiter_leaves_at_its_deadline_and_the_flight_goes_on() {
        let flight = Flight::new(soon());
        let (gate, opened) = crossbeam_channel::bounded::<()>(0);
        flight.launch(
            1,
            move || {
                let _ = opened.recv();
                Ok(1)
            },
            || (),
        );
        assert!(flight.wait(Deadline::within(Duration::from_millis(20))).is_none());
        drop(gate);
        assert!(flight.wait(soon()).is_some());
    }

    #[test]
    fn cargo_is_freed_on_landing() {
        let flight = Flight::new(soon());
        let cargo = Arc::new(());
        flight.carry(Box::new(cargo.clone()));
        assert_eq!(Arc::strong_count(&cargo), 2);
        flight.land(Ok(()));
        assert_eq!(Arc::strong_count(&cargo), 1);
    }

    #[test]
    fn a_flight_knows_who_is_aboard_through_flights_that_it_starts() {
        let outer = Flight::new(soon());
        outer.launch(
            1,
            || {
                let inner = Flight::new(soon());
                inner.launch(2, || Ok((is_aboard(1), is_aboard(2), is_aboard(3))), || ());
                inner.wait(soon()).expect("it lands")
            },
            || (),
        );
        assert_eq!(outer.wait(soon()).expect("it lands").expect("it lands well"), (true, true, false));
        assert!(!is_aboard(1));
    }
}
