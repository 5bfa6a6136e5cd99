//! Time limits on the operations of any store.
//!
//! A [`Store`] may be the user's own code: an operation can be slow, block for ever or panic. [`TimeoutStore`] runs
//! each operation on a helper thread and waits for it until a deadline. An operation that is still running at its
//! deadline is abandoned, and its result dropped. A thread cannot be stopped from outside, so a store that blocks for
//! ever would collect one thread for each try; therefore no further operation starts until the abandoned one has
//! returned.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::clock::{Deadline, Stopwatch};
use crate::error::{Error, ErrorKind, catch_panic};
use crate::key::Key;
use crate::lock::lock;
use crate::store::Store;
use crate::thread::run_with_deadline;

/// Runs the operations of a store with a time limit. Every failure, a timeout and a panic included, is an error of the
/// kind [`ErrorKind::Store`].
#[derive(Debug)]
pub(crate) struct TimeoutStore {
    store: Arc<dyn Store>,
    /// The time limit of [`run`](TimeoutStore::run).
    default_timeout: Duration,
    /// The last abandoned operation: the id of its process, and a handle that is dead once its thread has finished. No
    /// operation starts while the thread is alive.
    unreturned: Mutex<Option<(u32, Weak<()>)>>,
}

impl TimeoutStore {
    pub(crate) fn new(store: Arc<dyn Store>, default_timeout: Duration) -> TimeoutStore {
        TimeoutStore { store, default_timeout, unreturned: Mutex::default() }
    }

    /// Returns the store itself, for the methods that must not block.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Runs `operation` and waits for it for the default time.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&dyn Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.run_until(Deadline::within(self.default_timeout), operation)
    }

    /// Runs `operation` and waits for it until `deadline`.
    pub(crate) fn run_until<T: Send + 'static>(
        &self,
        deadline: Deadline,
        operation: impl FnOnce(&dyn Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if self.has_unreturned_operation() {
            return Err(Error::new(
                ErrorKind::Store,
                "the shared store has not returned from an earlier operation; check the store",
            ));
        }
        let (store, alive_guard, started) = (self.store.clone(), Arc::new(()), Stopwatch::start());
        let thread_alive = Arc::downgrade(&alive_guard);
        let outcome = run_with_deadline("evertoken-store", deadline, move || {
            let result = catch_panic(|| operation(&*store));
            drop(alive_guard);
            result
        });
        let outcome = outcome.map_err(|error| {
            error.recast(
                ErrorKind::Store,
                "the system refuses another thread, which the shared store needs; raise its limit",
            )
        })?;
        let Some(outcome) = outcome else {
            // With a deadline sooner than the default limit, the caller has given up early and the store may be
            // healthy. Only an operation that had the whole default time blocks the ones after it.
            if started.elapsed() >= self.default_timeout {
                *lock(&self.unreturned) = Some((std::process::id(), thread_alive));
            }
            return Err(no_answer());
        };
        outcome.map_err(|error| match error.kind() {
            ErrorKind::Store => error,
            ErrorKind::Panicked => panicked(),
            _ => Error::new(ErrorKind::Store, error.message().to_owned()),
        })
    }

    /// Checks the store and reads `key`, and keeps the kind of the error: a wrong setting stays
    /// [`ErrorKind::Config`]. Waits [`CHECK_TIMEOUT`] at most.
    pub(crate) fn check(&self, key: &Key) -> Result<(), Error> {
        let (store, key) = (self.store.clone(), key.clone());
        let outcome = run_with_deadline("evertoken-store", Deadline::within(CHECK_TIMEOUT), move || {
            catch_panic(|| {
                store.check()?;
                store.read(&key).map(drop)
            })
        })?;
        match outcome {
            Some(Err(error)) if error.kind() == ErrorKind::Panicked => Err(panicked()),
            Some(outcome) => outcome,
            None => Err(no_answer()),
        }
    }

    fn has_unreturned_operation(&self) -> bool {
        // A forked child has a copy of this memory, but the thread runs in its parent only.
        let unreturned = lock(&self.unreturned);
        unreturned.as_ref().is_some_and(|(process_id, thread_alive)| {
            *process_id == std::process::id() && thread_alive.strong_count() > 0
        })
    }
}

fn no_answer() -> Error {
    Error::new(ErrorKind::Store, "the shared store did not answer in time; check the store")
}

fn panicked() -> Error {
    Error::new(ErrorKind::Store, "the shared store panicked")
}

/// How long a check of the store may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
