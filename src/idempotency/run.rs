//! A closure that runs once, and a claim that lasts as long as it runs.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::claim::{Claim, HeldClaim};
use super::{INITIAL_PAUSE, Idempotency, MAX_PAUSE, Outcome};
use crate::clock::Deadline;
use crate::error::{Error, ErrorKind};
use crate::thread::{Done, spawn};

impl Idempotency {
    /// Runs `work` unless it has been done, and returns its result in either case.
    ///
    /// The claim is extended from a thread of its own until `work` returns, however long that takes. Then
    /// - `Ok` is recorded, and everybody who comes later gets it;
    /// - `Err` abandons the claim: nothing was done, and another may try at once. So return `Ok` when the thing may have been
    ///   done nevertheless, for example after a request whose answer was lost, and let `T` say so;
    /// - a panic goes on, and the claim runs out.
    ///
    /// Blocks as long as `work` does, and three seconds for the store before; afterwards up to eight, while the store does not
    /// take the result.
    ///
    /// ```
    /// use evertoken::MemoryStore;
    /// use evertoken::idempotency::Idempotency;
    ///
    /// let once = Idempotency::new(MemoryStore::new());
    /// let charge = || once.run("order-17", "100 EUR", || Ok::<_, std::io::Error>("receipt-1".to_owned()));
    /// assert_eq!(charge()?, "receipt-1");
    /// assert_eq!(charge()?, "receipt-1"); // nothing was charged this time
    /// # Ok::<(), evertoken::idempotency::RunError<String, std::io::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RunError`] tells what was done and what was not.
    pub fn run<T, E>(
        &self,
        key: impl AsRef<str>,
        request: impl AsRef<[u8]>,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, RunError<T, E>>
    where
        T: Serialize + DeserializeOwned,
    {
        self.run_within(key, request, Duration::ZERO, work)
    }

    /// As [`run`](Idempotency::run), but while another does it waits for that, up to `wait`: for its result, or to take
    /// over when its claim is abandoned or runs out.
    ///
    /// # Errors
    ///
    /// As [`run`](Idempotency::run).
    pub fn run_within<T, E>(
        &self,
        key: impl AsRef<str>,
        request: impl AsRef<[u8]>,
        wait: Duration,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, RunError<T, E>>
    where
        T: Serialize + DeserializeOwned,
    {
        let claim = match self.begin_within(key, request, wait).map_err(RunError::NotBegun)? {
            Outcome::New(claim) => claim,
            Outcome::Completed(result) => return Ok(result),
            Outcome::InProgress { remaining } => return Err(RunError::InProgress { remaining }),
            Outcome::Mismatch => return Err(RunError::Mismatch),
        };
        let extender = ClaimExtender::start(claim.held.clone()).map_err(|error| {
            // If that fails too it runs out.
            let _ = claim.abandon();
            RunError::NotBegun(error)
        })?;
        let done = work();
        drop(extender);
        match done {
            Ok(result) => match complete(&claim, &result) {
                Ok(()) => Ok(result),
                Err(error) => Err(RunError::Unrecorded { result, error }),
            },
            Err(error) => {
                let _ = claim.abandon();
                Err(RunError::Failed(error))
            }
        }
    }
}

/// The thing is done, and to do it again is what must not happen: so this does not give up at once.
fn complete<T: Serialize + DeserializeOwned>(claim: &Claim<T>, result: &T) -> Result<(), Error> {
    let deadline = Deadline::within(MAX_COMPLETION_TIME);
    let mut pause = INITIAL_PAUSE;
    loop {
        match claim.complete(result) {
            Err(error) if error.kind() == ErrorKind::Store && !deadline.has_passed() => {}
            outcome => return outcome,
        }
        thread::sleep(pause.min(deadline.remaining()));
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Extends a claim as long as it lifetimes, in which it does not depend on how the closure ends.
struct ClaimExtender(Arc<Done>);

impl ClaimExtender {
    fn start(held: Arc<HeldClaim>) -> Result<ClaimExtender, Error> {
        let done = Arc::new(Done::default());
        let stopped = done.clone();
        let interval = (held.lifetime / 3).max(MIN_EXTENSION_INTERVAL);
        spawn("evertoken-claim", move || {
            let (mut next, mut pause) = (Deadline::within(interval), INITIAL_RETRY_DELAY);
            while !stopped.wait(next) {
                next = Deadline::within(interval);
                match held.extend() {
                    Ok(()) => pause = INITIAL_RETRY_DELAY,
                    Err(error) if error.kind() == ErrorKind::ClaimLost => return,
                    // Soon, and again and again: the claim still lifetimes, and a store that is back for a moment is enough.
                    Err(_) => {
                        next = Deadline::within(pause.min(interval));
                        pause = (pause * 2).min(MAX_RETRY_DELAY);
                    }
                }
            }
        })?;
        Ok(ClaimExtender(done))
    }
}

impl Drop for ClaimExtender {
    fn drop(&mut self) {
        self.0.announce();
    }
}

/// How [`Idempotency::run`] ends without a result that everybody will get. These are all ways there are, so it can be
/// matched in full.
pub enum RunError<T, E> {
    /// Another does it. Nothing was done here.
    InProgress {
        /// How long the other's claim lasts if it is not extended.
        remaining: Duration,
    },
    /// The key was used for another request. Nothing was done here.
    Mismatch,
    /// The store could not be asked, the settings are wrong, or what is recorded is no `T`. Nothing was done here.
    NotBegun(Error),
    /// The closure failed, with this. Another may try at once.
    Failed(E),
    /// It was done, and could not be recorded: once the claim has run out another may do it again.
    Unrecorded {
        /// What came of it.
        result: T,
        /// Why it was not recorded.
        error: Error,
    },
}

impl<T, E: fmt::Debug> fmt::Debug for RunError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::InProgress { remaining } => f.debug_struct("InProgress").field("remaining", remaining).finish(),
            RunError::Mismatch => f.write_str("Mismatch"),
            RunError::NotBegun(error) => f.debug_tuple("NotBegun").field(error).finish(),
            RunError::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            // The result may be a secret.
            RunError::Unrecorded { error, .. } => {
                f.debug_struct("Unrecorded").field("error", error).finish_non_exhaustive()
            }
        }
    }
}

impl<T, E: fmt::Display> fmt::Display for RunError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::InProgress { remaining } => {
                write!(f, "another holder runs the operation; its claim lasts {remaining:.1?} unless it is extended")
            }
            RunError::Mismatch => f.write_str("the idempotency key was used for another request; use a new key"),
            RunError::NotBegun(error) => write!(f, "the operation was not started: {error}"),
            RunError::Failed(error) => write!(f, "the operation failed: {error}"),
            RunError::Unrecorded { error, .. } => {
                write!(f, "the operation ran, but its result was not recorded: {error}")
            }
        }
    }
}

impl<T, E: std::error::Error + 'static> std::error::Error for RunError<T, E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RunError::InProgress { .. } | RunError::Mismatch => None,
            RunError::NotBegun(error) | RunError::Unrecorded { error, .. } => Some(error),
            RunError::Failed(error) => Some(error),
        }
    }
}

/// How long a store that does not take the result is asked again.
const MAX_COMPLETION_TIME: Duration = Duration::from_secs(5);

const MIN_EXTENSION_INTERVAL: Duration = Duration::from_millis(1);

/// Before an extension that failed is tried again.
const INITIAL_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);
