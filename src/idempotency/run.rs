//! Runs a closure under a claim: takes the claim, extends it while the closure runs, and records the result.
//!
//! 1. `begin_within` claims the operation, or returns its result, and then the closure is not called.
//! 2. A thread extends the claim every third of its lifetime. After a failure of the store it retries sooner, because a
//!    store that works for a moment is enough to keep the claim. The thread stops when the result is recorded, when
//!    recording it was given up, when the closure returned `Err` or panicked, or when the claim is lost.
//! 3. The closure's `Ok` is recorded, for up to five seconds while the store fails. Its `Err` abandons the claim. After
//!    a panic the claim is neither completed nor abandoned and expires, because the operation may have happened.

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
    /// Runs `work` if the operation has no result yet, and returns the result, new or recorded.
    ///
    /// A thread extends the claim until `work` has returned and its result is recorded, however long that takes. When
    /// `work` returns,
    /// - `Ok` is recorded, and later callers get the same result;
    /// - `Err` abandons the claim: nothing was done, and another caller may try at once. So return `Ok` when the
    ///   operation may have happened all the same, for example after a request whose reply was lost, and let `T` say
    ///   so;
    /// - a panic propagates, and the claim stays until it expires.
    ///
    /// Blocks for as long as `work` runs, up to three seconds before that to ask the store, and up to eight seconds
    /// afterwards while the store does not take the result.
    ///
    /// ```
    /// use evertoken::MemoryStore;
    /// use evertoken::idempotency::Idempotency;
    ///
    /// let once = Idempotency::new(MemoryStore::new());
    /// let charge = || once.run("order-17", "100 EUR", || Ok::<_, std::io::Error>("receipt-1".to_owned()));
    /// assert_eq!(charge()?, "receipt-1");
    /// assert_eq!(charge()?, "receipt-1"); // the recorded result; the closure did not run
    /// # Ok::<(), evertoken::idempotency::RunError<String, std::io::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Each variant of [`RunError`] says whether the operation ran. [`RunError::NotBegun`] contains the errors of
    /// [`begin`](Idempotency::begin), such as [`ErrorKind::Config`] when the stored result has another type than `T`.
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

    /// As [`run`](Idempotency::run), but waits up to `wait` while another holder has the claim: for its result, or to
    /// run the operation when the other claim is abandoned or expires.
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
            // If the store refuses this as well, the claim expires by itself.
            let _ = claim.abandon();
            RunError::NotBegun(error)
        })?;
        match work() {
            // `extender` lives on: a short claim must not expire while the store does not take the result.
            Ok(result) => match complete(&claim, &result) {
                Ok(()) => Ok(result),
                Err(error) => Err(RunError::Unrecorded { result, error }),
            },
            Err(error) => {
                drop(extender);
                let _ = claim.abandon();
                Err(RunError::Failed(error))
            }
        }
    }
}

/// Records the result, and retries while the store fails: the operation has happened, and without its result another
/// holder would run it again.
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

/// A thread that extends a claim until this guard is dropped, which a panic of the closure does as well.
struct ClaimExtender(Arc<Done>);

impl ClaimExtender {
    fn start(held: Arc<HeldClaim>) -> Result<ClaimExtender, Error> {
        let done = Arc::new(Done::default());
        let stop_signal = done.clone();
        let interval = (held.lifetime / 3).max(MIN_EXTENSION_INTERVAL);
        spawn("evertoken-claim", move || {
            let (mut next, mut pause) = (Deadline::within(interval), INITIAL_RETRY_DELAY);
            while !stop_signal.wait(next) {
                next = Deadline::within(interval);
                match held.extend() {
                    Ok(()) => pause = INITIAL_RETRY_DELAY,
                    Err(error) if error.kind() == ErrorKind::ClaimLost => return,
                    // The claim has not expired yet. Retry soon: a store that works for a moment is enough.
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

/// Why [`Idempotency::run`] did not return a recorded result.
///
/// `Display` includes the text of the cause, which [`source`](std::error::Error::source) returns as well. No variant
/// will be added, so a `match` can be exhaustive.
pub enum RunError<T, E> {
    /// Another holder has the claim. The closure was not called.
    InProgress {
        /// How long the claim lasts if its holder does not extend it.
        remaining: Duration,
    },
    /// The key was used for another request. The closure was not called.
    Mismatch,
    /// The store cannot be used, a setting is wrong, or the stored result has another type than `T`. The closure was
    /// not called.
    NotBegun(Error),
    /// The closure returned this error. The claim was abandoned, so another caller may try at once.
    Failed(E),
    /// The closure succeeded, but its result was not recorded. When the claim has expired, another caller may run the
    /// operation again; with [`ErrorKind::ClaimLost`] another caller has already begun to.
    Unrecorded {
        /// The closure's result.
        result: T,
        /// Why the result was not recorded.
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
            // The result may be a secret, so `Debug` hides it.
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

/// How long `run` retries to record the result while the store fails.
const MAX_COMPLETION_TIME: Duration = Duration::from_secs(5);

/// The shortest time between two extensions, for claims of a few milliseconds.
const MIN_EXTENSION_INTERVAL: Duration = Duration::from_millis(1);

/// How long the extending thread waits after a failure, at first and at most.
const INITIAL_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);
