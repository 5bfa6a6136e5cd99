//! A store that nobody waits for without bound.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::clock::{Deadline, Stopwatch};
use crate::error::{Error, ErrorKind, catch_panic};
use crate::lock::lock;
use crate::store::Store;
use crate::thread::aside;

/// A store is code of the user's too, and its trouble is not to become the caller's: it is asked on a thread aside, and
/// given up when it takes too long. Whatever it fails with is of the kind `Store`.
#[derive(Debug)]
pub(crate) struct TimeoutStore {
    store: Arc<dyn Store>,
    /// How long an operation is waited for, if nothing else is said.
    default_timeout: Duration,
    /// An operation of this process that has not come back in the time that it has, and may never: as long as its thread
    /// lifetimes, the store is not asked again.
    unreturned: Mutex<Option<(u32, Weak<()>)>>,
}

impl TimeoutStore {
    pub(crate) fn new(store: Arc<dyn Store>, default_timeout: Duration) -> TimeoutStore {
        TimeoutStore { store, default_timeout, unreturned: Mutex::default() }
    }

    /// The store itself, for what cannot block.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(crate) fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&dyn Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.run_until(Deadline::within(self.default_timeout), operation)
    }

    pub(crate) fn run_until<T: Send + 'static>(
        &self,
        deadline: Deadline,
        operation: impl FnOnce(&dyn Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if self.has_unreturned_operation() {
            return Err(Error::new(ErrorKind::Store, "an operation of the shared store has not returned yet"));
        }
        let (store, alive_guard, started) = (self.store.clone(), Arc::new(()), Stopwatch::start());
        let thread_alive = Arc::downgrade(&alive_guard);
        let outcome = aside("evertoken-store", deadline, move || {
            let result = catch_panic(|| operation(&*store));
            drop(alive_guard);
            result
        });
        let outcome =
            outcome.map_err(|error| error.recast(ErrorKind::Store, "no thread could be started to ask the store"))?;
        let Some(outcome) = outcome else {
            // One that began late has been given up before its time.
            if started.elapsed() >= self.default_timeout {
                *lock(&self.unreturned) = Some((std::process::id(), thread_alive));
            }
            return Err(Error::new(ErrorKind::Store, "the shared store did not answer in time"));
        };
        outcome.map_err(|error| match error.kind() {
            ErrorKind::Store => error,
            ErrorKind::Panicked => Error::new(ErrorKind::Store, "the shared store panicked"),
            _ => Error::new(ErrorKind::Store, error.message().to_owned()),
        })
    }

    fn has_unreturned_operation(&self) -> bool {
        // A forked child has its parent's memory, but not its threads.
        let unreturned = lock(&self.unreturned);
        unreturned.as_ref().is_some_and(|(process_id, thread_alive)| {
            *process_id == std::process::id() && thread_alive.strong_count() > 0
        })
    }
}
