//! The right to do a thing: whoever holds it alone may say what came of it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::wire::{Head, epoch_milliseconds, same_result};
use super::{LONGEST_STEP, MOST_TRIES, OperationStatus};
use crate::clock::{Deadline, Time};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::lock::lock;
use crate::store::{Entry, Expected, SwapOutcome, TimeoutStore, Version};

/// The right to do a thing, held by whoever got it from [`Idempotency::begin`](crate::idempotency::Idempotency::begin).
///
/// It lasts for [`claim_ttl`](crate::idempotency::Idempotency::claim_ttl), by the store's clock, unless it is
/// [extended](Claim::extend). Do the thing, and [complete](Claim::complete) the claim with what came of it; or
/// [abandon](Claim::abandon) it, when nothing was done. A claim that is merely dropped runs out: nobody can tell whether the
/// thing was done, so nobody else is let at it before.
///
/// Each method is one operation of the store, and a second one when the answer to the one before was lost. Each blocks for
/// three seconds at most.
#[must_use = "a claim keeps all others out until it is completed, abandoned or has run out"]
pub struct Claim<T> {
    pub(super) held: Arc<Held>,
    pub(super) result: PhantomData<fn(&T)>,
}

impl<T> Claim<T> {
    /// Makes the claim last for its whole [lifetime](crate::idempotency::Idempotency::claim_ttl) again, from now on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ClaimLost`] when it is over: run out, completed or abandoned. Stop what you do if you can; another may
    /// do it by now. [`ErrorKind::Store`] when the store cannot be used: try again while the claim may last.
    pub fn extend(&self) -> Result<(), Error> {
        self.held.extend()
    }

    /// Records what came of it, for as long as [results are kept](crate::idempotency::Idempotency::result_ttl). From now on everybody
    /// who begins this gets `result`.
    ///
    /// # Errors
    ///
    /// With all of these but the first the claim is as it was, and can be completed again:
    /// - [`ErrorKind::ClaimLost`] when it is over. Nothing is written: what is there, if anything, is another's.
    /// - [`ErrorKind::Store`] when the store cannot be used. If the result was recorded nevertheless, the next try notices.
    /// - [`ErrorKind::Config`] when `result` is larger than 63 KiB of JSON, or cannot be written as JSON and read back. JSON has
    ///   no word for a number that is none: where it may be missing (`Option<f64>`), it is missing then.
    pub fn complete(&self, result: &T) -> Result<(), Error>
    where
        T: Serialize + DeserializeOwned,
    {
        self.held.complete(result)
    }

    /// Gives the claim back, because nothing was done: another may have it at once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ClaimLost`] when it is over, and [`ErrorKind::Store`] when the store cannot be used; then it runs out.
    pub fn abandon(&self) -> Result<(), Error> {
        self.held.abandon()
    }
}

impl<T> fmt::Debug for Claim<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("key", &self.held.key).field("owner", &self.held.head.owner).finish()
    }
}

/// A claim, whatever its result will be.
pub(super) struct Held {
    store: Arc<TimeoutStore>,
    time: Time,
    key: Key,
    pub(super) lifetime: Duration,
    keep: Duration,
    /// As it was written first.
    head: Head,
    state: Mutex<State>,
}

/// What is known of the claim. It may be behind what another thread has just written; then the store says what is there,
/// and that it is this claim's.
struct State {
    version: Version,
    turn: u64,
    over: Option<&'static str>,
}

enum Replaced {
    Done(Option<Version>),
    /// This claim has been completed before, with this.
    Completed(Entry),
}

impl Held {
    pub(super) fn new(
        store: Arc<TimeoutStore>,
        time: Time,
        key: Key,
        (lifetime, keep): (Duration, Duration),
        head: Head,
        version: Version,
    ) -> Held {
        let state = Mutex::new(State { version, turn: head.turn, over: None });
        Held { store, time, key, lifetime, keep, head, state }
    }

    pub(super) fn extend(&self) -> Result<(), Error> {
        let bytes = self.next(OperationStatus::InProgress)?.to_bytes();
        match self.replace(Some((Arc::new(bytes), self.lifetime)))? {
            Replaced::Done(version) => {
                if let Some(version) = version {
                    lock(&self.state).version = version;
                }
                Ok(())
            }
            Replaced::Completed(_) => Err(lost(COMPLETED)),
        }
    }

    pub(super) fn complete<T: Serialize + DeserializeOwned>(&self, result: &T) -> Result<(), Error> {
        let bytes = Arc::new(self.next(OperationStatus::Completed)?.with_result(result)?);
        match self.replace(Some((bytes.clone(), self.keep)))? {
            Replaced::Done(_) => {}
            // The answer to the try before was lost.
            Replaced::Completed(entry) if same_result(entry.bytes(), &bytes) => {}
            Replaced::Completed(_) => return Err(lost(COMPLETED)),
        }
        self.end(COMPLETED);
        Ok(())
    }

    pub(super) fn abandon(&self) -> Result<(), Error> {
        match self.replace(None)? {
            Replaced::Done(_) => {
                self.end(ABANDONED);
                Ok(())
            }
            Replaced::Completed(_) => Err(lost(COMPLETED)),
        }
    }

    /// The record to write next.
    fn next(&self, status: OperationStatus) -> Result<Head, Error> {
        let updated_ms = epoch_milliseconds(self.time.now());
        let mut state = lock(&self.state);
        state.check()?;
        state.turn += 1;
        Ok(Head { status, turn: state.turn, updated_ms, ..self.head.clone() })
    }

    /// Writes in the place of the claim, or removes it. Whatever else is there stays.
    fn replace(&self, new: Option<(Arc<Zeroizing<Vec<u8>>>, Duration)>) -> Result<Replaced, Error> {
        let deadline = Deadline::within(LONGEST_STEP);
        for _ in 0..MOST_TRIES {
            let version = {
                let state = lock(&self.state);
                state.check()?;
                state.version.clone()
            };
            let (key, new) = (self.key.clone(), new.clone());
            let swap = self.store.run_until(deadline, move |store| {
                let new = new.as_ref().map(|(bytes, lifetime)| (bytes.as_slice(), *lifetime));
                store.compare_and_swap(&key, Expected::Version(&version), new)
            })?;
            let entry = match swap {
                SwapOutcome::Done(version) => return Ok(Replaced::Done(version)),
                SwapOutcome::Conflict(None) => {
                    self.end(RUN_OUT);
                    return Err(lost(RUN_OUT));
                }
                SwapOutcome::Conflict(Some(entry)) => entry,
            };
            let own = Head::from_bytes(entry.bytes(), &self.head.id).filter(|head| head.owner == self.head.owner);
            match own.map(|head| head.status) {
                // Extended by another thread, or by a try whose answer was lost.
                Some(OperationStatus::InProgress) => lock(&self.state).version = entry.version().clone(),
                Some(OperationStatus::Completed) => return Ok(Replaced::Completed(entry)),
                None => {
                    self.end(TAKEN);
                    return Err(lost(TAKEN));
                }
            }
        }
        Err(Error::new(ErrorKind::Store, "the claim changes faster than it can be written"))
    }

    /// Notes that the claim is over. Not when it is only found completed: whoever did that, and has not heard so, still is to.
    fn end(&self, why: &'static str) {
        lock(&self.state).over = Some(why);
    }
}

fn lost(why: &'static str) -> Error {
    Error::new(ErrorKind::ClaimLost, why)
}

impl State {
    fn check(&self) -> Result<(), Error> {
        self.over.map_or(Ok(()), |why| Err(lost(why)))
    }
}

const RUN_OUT: &str = "the claim has run out; extend it in time, or give it a longer lifetime";
const TAKEN: &str = "the claim has run out, and somebody else has taken over";
const COMPLETED: &str = "the claim has been completed before";
const ABANDONED: &str = "the claim has been abandoned before";
