//! A store that nobody waits for without bound.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::clock::{Deadline, Stopwatch};
use crate::error::{Error, ErrorKind, catch_panic};
use crate::lock::lock;
use crate::store::Store;
use crate::thread::run_with_deadline;

/// A store is code of the user's too, and its trouble is not to become the caller's: it is asked on a thread aside, and
/// given up when it takes too long. Whatever it fails with is of the kind `Store`.
#[derive(Debug)]
pub(crate) struct BoundedStore {
    store: Arc<dyn Store>,
    /// How long an operation is waited for, if nothing else is said.
    patience: Duration,
    /// An operation of this process that has not come back in the time that it has, and may never: as long as its thread
    /// lifetimes, the store is not asked again.
    hung: Mutex<Option<(u32, Weak<()>)>>,
}

impl BoundedStore {
    pub(crate) fn new(store: Arc<dyn Store>, patience: Duration) -> BoundedStore {
        BoundedStore { store, patience, hung: Mutex::default() }
    }

    /// The store itself, for what cannot block.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(crate) fn ask<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&dyn Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.ask_until(Deadline::within(self.patience), operation)
    }

    pub(crate) fn ask_until<T: Send + 'static>(
        &self,
        deadline: Deadline,
        operation: impl FnOnce(&dyn Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if self.hangs() {
            return Err(Error::new(ErrorKind::Store, "an operation of the shared store has not returned yet"));
        }
        let (store, alive, watch) = (self.store.clone(), Arc::new(()), Stopwatch::start());
        let watched = Arc::downgrade(&alive);
        let done = run_with_deadline("evertoken-store", deadline, move || {
            let done = catch_panic(|| operation(&*store));
            drop(alive);
            done
        });
        let done =
            done.map_err(|error| error.recast(ErrorKind::Store, "no thread could be started to ask the store"))?;
        let Some(done) = done else {
            // One that began late has been given up before its time.
            if watch.elapsed() >= self.patience {
                *lock(&self.hung) = Some((std::process::id(), watched));
            }
            return Err(Error::new(ErrorKind::Store, "the shared store did not answer in time"));
        };
        done.map_err(|error| match error.kind() {
            ErrorKind::Store => error,
            ErrorKind::Panicked => Error::new(ErrorKind::Store, "the shared store panicked"),
            _ => Error::new(ErrorKind::Store, error.message().to_owned()),
        })
    }

    fn hangs(&self) -> bool {
        // A forked child has its parent's memory, but not its threads.
        let hung = lock(&self.hung);
        hung.as_ref().is_some_and(|(process, alive)| *process == std::process::id() && alive.strong_count() > 0)
    }
}
