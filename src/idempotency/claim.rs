//! A claim: the exclusive right to run an operation, and to record its result.

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
use crate::store::{Entry, Expected, SwapOutcome, TimeoutStore, Version};

/// The exclusive right to run an operation, returned by [`Idempotency::begin`](crate::idempotency::Idempotency::begin).
///
/// The claim lasts for [`claim_ttl`](crate::idempotency::Idempotency::claim_ttl), by the store's clock, unless the
/// holder [extends](Claim::extend) it. Run the operation, then [complete](Claim::complete) the claim with the result.
/// If nothing was done, [abandon](Claim::abandon) the claim instead. A claim that is only dropped stays in the store
/// until it expires: the operation may have happened, so no other holder may start it earlier.
///
/// A claim that expired is lost only when another holder has begun the operation since. Until then it can still be
/// extended and completed.
///
/// Each method is one store operation, and a second one when the reply to the first was lost. Each method blocks for
/// three seconds at most.
#[must_use = "a claim keeps all other holders out until it is completed, abandoned or expires"]
pub struct Claim<T> {
    pub(super) held: Arc<HeldClaim>,
    pub(super) result: PhantomData<fn(&T)>,
}

impl<T> Claim<T> {
    /// Extends the claim: it lasts for its whole [`claim_ttl`](crate::idempotency::Idempotency::claim_ttl) again,
    /// counted from now. A claim that expired is taken again if no other holder has begun the operation.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::ClaimLost`] when the claim expired and another holder has begun the operation since, or when the
    ///   claim was completed or abandoned. Stop the operation if possible; another holder may be running it by now.
    /// - [`ErrorKind::Store`] when the store cannot be used. Try again until the claim would have expired.
    pub fn extend(&self) -> Result<(), Error> {
        self.held.extend()
    }

    /// Records `result` for [`result_ttl`](crate::idempotency::Idempotency::result_ttl) and ends the claim. From now on
    /// every `begin` of this operation returns `result`. A claim that expired can still be completed if no other holder
    /// has begun the operation.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::ClaimLost`] when the claim expired and another holder has begun the operation since, or when the
    ///   claim was completed or abandoned. Nothing is written; the record in the store stays.
    /// - [`ErrorKind::Store`] when the store cannot be used. The claim is unchanged: call `complete` again. If the
    ///   result was written although the reply was lost, the next call notices that and succeeds.
    /// - [`ErrorKind::Config`] when `result` is larger than 63 KiB of JSON, or cannot be serialized as JSON and read
    ///   back. The claim is unchanged. JSON has no form for NaN and infinity: an `Option<f64>` that holds one is
    ///   recorded as `None`.
    pub fn complete(&self, result: &T) -> Result<(), Error>
    where
        T: Serialize + DeserializeOwned,
    {
        self.held.complete(result)
    }

    /// Removes the claim, because nothing was done. Another holder may begin the operation at once. Succeeds if the
    /// claim expired and no other holder has begun the operation.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::ClaimLost`] when the claim expired and another holder has begun the operation since, or when the
    ///   claim was completed or abandoned.
    /// - [`ErrorKind::Store`] when the store cannot be used. The claim then stays until it expires.
    pub fn abandon(&self) -> Result<(), Error> {
        self.held.abandon()
    }
}

impl<T> fmt::Debug for Claim<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("key", &self.held.key).field("owner", &self.held.header.owner).finish()
    }
}

/// A claim without the type of its result, so that the thread that extends it needs no type parameter.
pub(super) struct HeldClaim {
    store: Arc<TimeoutStore>,
    time: Time,
    key: Key,
    pub(super) lifetime: Duration,
    result_ttl: Duration,
    /// The header as `begin` wrote it. Later records differ in status, revision and `updated_ms` only.
    header: Header,
    state: Mutex<State>,
}

/// The last known state of the claim's record.
///
/// Another thread that uses the same claim may have written a newer record. The store then reports a conflict, and
/// `replace_record` recognizes the record by its owner and takes over its version.
struct State {
    /// The version of the record, `None` when the store said that there is none: the claim expired. Then the next write
    /// expects absence, so that it succeeds unless another holder has begun the operation.
    version: Option<Version>,
    revision: u64,
    /// Whether `abandon` was called. From then on `extend` removes the claim instead.
    is_abandoning: bool,
    /// Why the claim ended, if this process knows that it did. Each later call returns this text.
    ended: Option<&'static str>,
}

enum ReplaceOutcome {
    /// The new record was written, or the claim was removed. The version is the new record's.
    Written(Option<Version>),
    /// The record is already a result of this claim's owner: this entry.
    AlreadyCompleted(Entry),
}

impl HeldClaim {
    pub(super) fn new(
        store: Arc<TimeoutStore>,
        time: Time,
        key: Key,
        (lifetime, result_ttl): (Duration, Duration),
        header: Header,
        version: Version,
    ) -> HeldClaim {
        let state =
            Mutex::new(State { version: Some(version), revision: header.revision, is_abandoning: false, ended: None });
        HeldClaim { store, time, key, lifetime, result_ttl, header, state }
    }

    pub(super) fn extend(&self) -> Result<(), Error> {
        let bytes = self.next_header(OperationStatus::InProgress)?.to_bytes();
        let written = match self.replace_record(Some((Arc::new(bytes), self.lifetime)))? {
            ReplaceOutcome::Written(version) => version,
            ReplaceOutcome::AlreadyCompleted(_) => return Err(claim_lost(COMPLETED)),
        };
        let is_abandoning = {
            let mut state = lock(&self.state);
            if written.is_some() {
                state.version.clone_from(&written);
            }
            state.is_abandoning
        };
        if !is_abandoning {
            return Ok(());
        }
        // Another thread abandoned the claim while this call took the expired claim again. Remove the claim once more;
        // if the store refuses, the claim expires by itself.
        if let Some(version) = written {
            let key = self.key.clone();
            let _ = self.store.run(move |store| store.compare_and_swap(&key, Expected::Version(&version), None));
        }
        self.mark_ended(ABANDONED);
        Err(claim_lost(ABANDONED))
    }

    pub(super) fn complete<T: Serialize + DeserializeOwned>(&self, result: &T) -> Result<(), Error> {
        let bytes = Arc::new(self.next_header(OperationStatus::Completed)?.with_result(result)?);
        match self.replace_record(Some((bytes.clone(), self.result_ttl)))? {
            ReplaceOutcome::Written(_) => {}
            // An earlier call wrote this result, and the reply to that write was lost.
            ReplaceOutcome::AlreadyCompleted(entry) if same_result(entry.bytes(), &bytes) => {}
            ReplaceOutcome::AlreadyCompleted(_) => return Err(claim_lost(COMPLETED)),
        }
        self.mark_ended(COMPLETED);
        Ok(())
    }

    pub(super) fn abandon(&self) -> Result<(), Error> {
        lock(&self.state).is_abandoning = true;
        match self.replace_record(None)? {
            ReplaceOutcome::Written(_) => {
                self.mark_ended(ABANDONED);
                Ok(())
            }
            ReplaceOutcome::AlreadyCompleted(_) => Err(claim_lost(COMPLETED)),
        }
    }

    /// Returns the header of the next record to write, with a revision of its own.
    fn next_header(&self, status: OperationStatus) -> Result<Header, Error> {
        let updated_ms = epoch_milliseconds(self.time.now());
        let mut state = lock(&self.state);
        state.ensure_live()?;
        state.revision += 1;
        Ok(Header { status, revision: state.revision, updated_ms, ..self.header.clone() })
    }

    /// Replaces the claim's record by `new`, or removes it when `new` is `None`. A record of another owner stays. If the
    /// claim expired and there is no record, `new` is written all the same: no other holder has the claim.
    fn replace_record(&self, new: Option<(Arc<Zeroizing<Vec<u8>>>, Duration)>) -> Result<ReplaceOutcome, Error> {
        let deadline = Deadline::within(STORE_TIMEOUT);
        for _ in 0..MAX_ATTEMPTS {
            let version = {
                let state = lock(&self.state);
                state.ensure_live()?;
                state.version.clone()
            };
            let is_removal = new.is_none();
            let (key, new) = (self.key.clone(), new.clone());
            let swap = self.store.run_until(deadline, move |store| {
                let new = new.as_ref().map(|(bytes, lifetime)| (bytes.as_slice(), *lifetime));
                store.compare_and_swap(&key, version.as_ref().map_or(Expected::Absent, Expected::Version), new)
            })?;
            let entry = match swap {
                SwapOutcome::Done(version) => return Ok(ReplaceOutcome::Written(version)),
                SwapOutcome::Conflict(None) if is_removal => return Ok(ReplaceOutcome::Written(None)),
                SwapOutcome::Conflict(None) => {
                    lock(&self.state).version = None;
                    continue;
                }
                SwapOutcome::Conflict(Some(entry)) => entry,
            };
            let own =
                Header::from_bytes(entry.bytes(), &self.header.id).filter(|header| header.owner == self.header.owner);
            match own.map(|header| header.status) {
                // Another thread extended the claim, or this process did in a write whose reply was lost. The claim is
                // still this owner's: use the version in the store for the next attempt.
                Some(OperationStatus::InProgress) => lock(&self.state).version = Some(entry.version().clone()),
                Some(OperationStatus::Completed) => return Ok(ReplaceOutcome::AlreadyCompleted(entry)),
                None => {
                    self.mark_ended(TAKEN_OVER);
                    return Err(claim_lost(TAKEN_OVER));
                }
            }
        }
        Err(Error::new(ErrorKind::Store, CONTENDED))
    }

    /// Marks the claim as ended, so that later calls fail without asking the store.
    ///
    /// Finding a result of this owner in the store does not mark the claim: the thread whose `complete` wrote it may
    /// have lost the reply, and its next call must still be able to find the same result and succeed.
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

const TAKEN_OVER: &str = "the claim expired, and another holder has claimed the operation since; extend it in time, or \
                          set a longer claim_ttl";
const COMPLETED: &str = "the claim was already completed";
const ABANDONED: &str = "the claim was already abandoned";
