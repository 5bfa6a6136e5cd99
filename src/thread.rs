//! Two ways to start a thread.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::Builder;

use crate::clock::Deadline;
use crate::error::{Error, ErrorKind};
use crate::lock::{lock, wait};

/// Starts a detached thread. The name tells a debugger whose it is.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    // Boxed, so that what starts a thread is compiled once and not for every closure.
    let work: Box<dyn FnOnce() + Send> = Box::new(work);
    match Builder::new().name(name.to_owned()).spawn(work) {
        Ok(_detached) => Ok(()),
        Err(_) => Err(Error::new(ErrorKind::Unavailable, "the system gives this process no more threads")),
    }
}

/// Does `work` on a thread of its own and waits for it until `deadline`. `None`: the deadline came first. The work goes
/// on then, and may never end. It must not panic.
pub(crate) fn run_with_deadline<T: Send + 'static>(
    name: &str,
    deadline: Deadline,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>, Error> {
    let slot = Arc::new(Mutex::new(None));
    let result = slot.clone();
    let done = Arc::new(Done::default());
    let finished = done.clone();
    spawn(name, move || {
        let outcome = work();
        *lock(&result) = Some(outcome);
        finished.announce();
    })?;
    done.wait(deadline);
    Ok(lock(&slot).take())
}

/// Something that is waited for, and is done once.
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

    /// Waits until it is done, or `deadline` comes. True when it is done.
    pub(crate) fn wait(&self, deadline: Deadline) -> bool {
        let mut is_done = lock(&self.is_done);
        while !*is_done && !deadline.has_passed() {
            is_done = wait(&self.changed, is_done, deadline.remaining());
        }
        *is_done
    }
}
