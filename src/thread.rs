//! Starting threads, and waiting for another thread with a deadline.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::Builder;

use crate::clock::Deadline;
use crate::error::{Error, ErrorKind};
use crate::lock::{lock, wait};

/// Starts a detached thread. Debuggers and the operating system show the name.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    // Boxed, so that the code that starts a thread is compiled once and not for every closure.
    let work: Box<dyn FnOnce() + Send> = Box::new(work);
    match Builder::new().name(name.to_owned()).spawn(work) {
        Ok(_detached) => Ok(()),
        Err(_) => Err(Error::new(
            ErrorKind::Unavailable,
            "cannot start a thread; check the limits of the operating system for this process",
        )),
    }
}

/// Runs `work` on a new thread and waits for the result until `deadline`.
///
/// Returns `None` when the deadline comes first. The thread then continues and may never end. `work` must not panic.
pub(crate) fn run_with_deadline<T: Send + 'static>(
    name: &str,
    deadline: Deadline,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>, Error> {
    let result = Arc::new(Mutex::new(None));
    let done = Arc::new(Done::default());
    let (result_of_thread, done_of_thread) = (result.clone(), done.clone());
    spawn(name, move || {
        let outcome = work();
        *lock(&result_of_thread) = Some(outcome);
        done_of_thread.announce();
    })?;
    done.wait(deadline);
    Ok(lock(&result).take())
}

/// A signal that is given once. Any number of threads can wait for it.
#[derive(Default)]
pub(crate) struct Done {
    is_done: Mutex<bool>,
    changed: Condvar,
}

impl Done {
    pub(crate) fn announce(&self) {
        *lock(&self.is_done) = true;
        self.changed.notify_all();
    }

    /// Waits for the signal until `deadline`. Returns true if the signal has been given.
    pub(crate) fn wait(&self, deadline: Deadline) -> bool {
        let mut is_done = lock(&self.is_done);
        while !*is_done && !deadline.has_passed() {
            is_done = wait(&self.changed, is_done, deadline.remaining());
        }
        *is_done
    }
}
