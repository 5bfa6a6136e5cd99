//! The right to do a thing: whoever holds it alone may say what came of it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::record::{Header, epoch_milliseconds, same_result};
use super::{CONTENDED, MAX_ATTEMPTS, OperationStatus, STORE_TIMEOUT};
use crate::clock::{Deadline, Time};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::lock::lock;
use crate::store::{BoundedStore, Entry, Expected, SwapOutcome, Version};

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
    pub(super) held: Arc<HeldClaim>,
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
        f.debug_struct("Claim").field("key", &self.held.key).field("owner", &self.held.header.owner).finish()
    }
}

/// A claim, whatever its result will be.
pub(super) struct HeldClaim {
    store: Arc<BoundedStore>,
    time: Time,
    key: Key,
    pub(super) lifetime: Duration,
    result_ttl: Duration,
    /// As it was written first.
    header: Header,
    state: Mutex<State>,
}

/// What is known of the claim. It may be behind what another thread has just written; then the store says what is there,
/// and that it is this claim's.
struct State {
    version: Version,
    revision: u64,
    ended: Option<&'static str>,
}

enum ReplaceOutcome {
    Written(Option<Version>),
    /// This claim has been completed before, with this.
    AlreadyCompleted(Entry),
}

impl HeldClaim {
    pub(super) fn new(
        store: Arc<BoundedStore>,
        time: Time,
        key: Key,
        (lifetime, result_ttl): (Duration, Duration),
        header: Header,
        version: Version,
    ) -> HeldClaim {
        let state = Mutex::new(State { version, revision: header.revision, ended: None });
        HeldClaim { store, time, key, lifetime, result_ttl, header, state }
    }

    pub(super) fn extend(&self) -> Result<(), Error> {
        let bytes = self.next_header(OperationStatus::InProgress)?.to_bytes();
        match self.replace_record(Some((Arc::new(bytes), self.lifetime)))? {
            ReplaceOutcome::Written(version) => {
                if let Some(version) = version {
                    lock(&self.state).version = version;
                }
                Ok(())
            }
            ReplaceOutcome::AlreadyCompleted(_) => Err(claim_lost(COMPLETED)),
        }
    }

    pub(super) fn complete<T: Serialize + DeserializeOwned>(&self, result: &T) -> Result<(), Error> {
        let bytes = Arc::new(self.next_header(OperationStatus::Completed)?.with_result(result)?);
        match self.replace_record(Some((bytes.clone(), self.result_ttl)))? {
            ReplaceOutcome::Written(_) => {}
            // The answer to the try before was lost.
            ReplaceOutcome::AlreadyCompleted(entry) if same_result(entry.bytes(), &bytes) => {}
            ReplaceOutcome::AlreadyCompleted(_) => return Err(claim_lost(COMPLETED)),
        }
        self.mark_ended(COMPLETED);
        Ok(())
    }

    pub(super) fn abandon(&self) -> Result<(), Error> {
        match self.replace_record(None)? {
            ReplaceOutcome::Written(_) => {
                self.mark_ended(ABANDONED);
                Ok(())
            }
            ReplaceOutcome::AlreadyCompleted(_) => Err(claim_lost(COMPLETED)),
        }
    }

    /// The record to write next.
    fn next_header(&self, status: OperationStatus) -> Result<Header, Error> {
        let updated_ms = epoch_milliseconds(self.time.now());
        let mut state = lock(&self.state);
        state.ensure_live()?;
        state.revision += 1;
        Ok(Header { status, revision: state.revision, updated_ms, ..self.header.clone() })
    }

    /// Writes in the place of the claim, or removes it. Whatever else is there stays.
    fn replace_record(&self, new: Option<(Arc<Zeroizing<Vec<u8>>>, Duration)>) -> Result<ReplaceOutcome, Error> {
        let deadline = Deadline::within(STORE_TIMEOUT);
        for _ in 0..MAX_ATTEMPTS {
            let version = {
                let state = lock(&self.state);
                state.ensure_live()?;
                state.version.clone()
            };
            let (key, new) = (self.key.clone(), new.clone());
            let swap = self.store.ask_until(deadline, move |store| {
                let new = new.as_ref().map(|(bytes, lifetime)| (bytes.as_slice(), *lifetime));
                store.compare_and_swap(&key, Expected::Version(&version), new)
            })?;
            let entry = match swap {
                SwapOutcome::Done(version) => return Ok(ReplaceOutcome::Written(version)),
                SwapOutcome::Conflict(None) => {
                    self.mark_ended(EXPIRED);
                    return Err(claim_lost(EXPIRED));
                }
                SwapOutcome::Conflict(Some(entry)) => entry,
            };
            let own =
                Header::from_bytes(entry.bytes(), &self.header.id).filter(|header| header.owner == self.header.owner);
            match own.map(|header| header.status) {
                // Extended by another thread, or by a try whose answer was lost.
                Some(OperationStatus::InProgress) => lock(&self.state).version = entry.version().clone(),
                Some(OperationStatus::Completed) => return Ok(ReplaceOutcome::AlreadyCompleted(entry)),
                None => {
                    self.mark_ended(TAKEN_OVER);
                    return Err(claim_lost(TAKEN_OVER));
                }
            }
        }
        Err(Error::new(ErrorKind::Store, CONTENDED))
    }

    /// Notes that the claim is over. Not when it is only found completed: whoever did that, and has not heard so, still is to.
    fn mark_ended(&self, why: &'static str) {
        lock(&self.state).ended = Some(why);
    }
}

fn claim_lost(why: &'static str) -> Error {
    Error::new(ErrorKind::ClaimLost, why)
}

impl State {
    fn ensure_live(&self) -> Result<(), Error> {
        self.ended.map_or(Ok(()), |why| Err(claim_lost(why)))
    }
}

const EXPIRED: &str = "the claim expired before this call; extend it in time, or set a longer claim_ttl";
const TAKEN_OVER: &str = "the claim expired, and another holder has claimed the operation since; extend it in time, or set a longer claim_ttl";
const COMPLETED: &str = "the claim was already completed";
const ABANDONED: &str = "the claim was already abandoned";
