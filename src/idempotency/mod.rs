//! Runs an operation once among all processes that share a store: a claim first, the result afterwards.
//!
//! # Theory of operation
//!
//! An **operation** is named by a key of the caller's and by a request, the data that the operation is about. The store
//! has at most one record per operation, and the record is in one of three states:
//!
//! - *Absent*: nothing is recorded. `begin` writes a **claim** with a compare-and-swap that expects no record. The
//!   first process becomes the **holder**; the operation is then in progress.
//! - *In progress*: the record is a claim, which names its holder and expires after `claim_ttl`. `extend` replaces the
//!   claim by one with its whole lifetime ahead. `abandon` removes the claim, and when it expires the store removes it;
//!   both lead back to *absent*. A holder that finds the record absent, because its claim expired, writes against
//!   absence: `extend` takes the claim again, and `complete` records the result. `complete` replaces the claim by the **result**; the operation is then completed.
//! - *Completed*: the record holds the result, as JSON, for `result_ttl`. `begin` returns the result and runs nothing.
//!   After `result_ttl` the operation is *absent* again.
//!
//! A record with another request is reported as a mismatch, in either state. Each step is one compare-and-swap against
//! the version that was seen last, so a step never overwrites a record that another process has written in the
//! meantime. A holder whose claim expired can neither extend nor complete it once another holder has begun the
//! operation.
//!
//! **Lost replies.** A store may perform a write and lose the reply. Each attempt and each claim therefore has a random
//! owner name in its records, and each write a revision of its own. When a step conflicts with a record of the same
//! owner, the write before it did succeed: `begin` and `extend` write again with the version found, and `complete`
//! succeeds if the same result is recorded.
//!
//! **An operation runs twice** only when
//!
//! - the claim of a holder expires while the holder still runs the operation, and another holder begins it. A claim
//!   expires when it is not extended within `claim_ttl`: the holder called `begin` and did not call `extend` in time,
//!   its process was suspended, or the store was unreachable for so long. The late holder gets `ClaimLost`;
//! - the holder dies, or cannot reach the store, between the effect of the operation and the write of the result, until
//!   its claim has expired;
//! - a holder calls `abandon`, or the closure of `run` returns `Err`, although the operation had an effect;
//! - the store loses or evicts the record, or the record cannot be read (written with an encryption key that this
//!   process does not have, or damaged). An unreadable record counts as absent;
//! - the changes of the store are not atomic among the processes, such as files on a network file system whose locks do
//!   not reach other hosts;
//! - `result_ttl` has passed.
//!
//! Lifetimes are measured by the store's clock, so the clocks of the hosts need not agree. The timestamps in a record
//! are information for people.

mod claim;
mod record;
mod run;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::claim::Claim;
use self::claim::HeldClaim;
use self::record::{Header, VERSION, epoch_milliseconds, keyed_hash, parse_result};
pub use self::run::RunError;
use crate::clock::{Clock, Deadline, Time, system_time};
use crate::error::{Error, ErrorKind};
use crate::key::{Identity, Key};
use crate::name::unique_name;
use crate::store::{Entry, Expected, Store, SwapOutcome, TimeoutStore, Version};

/// Runs operations once among all programs that share a [`Store`].
///
/// The first caller that [begins](Idempotency::begin) an operation gets a [`Claim`] and is its holder. Other callers
/// are told that the operation is in progress, and later get its result. Claims are short, so that an operation whose
/// holder dies becomes available again; results are kept long. [`run`](Idempotency::run) does all steps around a
/// closure. Programs that share the store and the [namespace](Idempotency::namespace) share their operations.
///
/// ```
/// use evertoken::MemoryStore;
/// use evertoken::idempotency::{Idempotency, Outcome};
///
/// let once = Idempotency::new(MemoryStore::new()).namespace("billing");
/// match once.begin::<String>("order-17", "100 EUR")? {
///     Outcome::New(claim) => {
///         // Charge the customer here.
///         claim.complete(&"receipt-1".to_owned())?;
///     }
///     Outcome::InProgress { remaining } => println!("another holder is at work, for {remaining:?} or longer"),
///     Outcome::Completed(receipt) => println!("already charged: {receipt}"),
///     Outcome::Mismatch => println!("order-17 was used for another amount"),
/// }
/// # Ok::<(), evertoken::Error>(())
/// ```
///
/// **Promise.** At any time at most one caller holds a valid claim on an operation. A claim that expired can be extended
/// and completed only as long as no other caller has begun the operation. The operation can run a second time only in
/// these cases; pass the key on to the downstream service if they matter:
///
/// - The claim expired while its holder was still at work, and another caller began the operation. [`run`] extends the
///   claim, so this takes a process that was suspended, or a store that was unreachable, for the whole
///   [`claim_ttl`](Idempotency::claim_ttl). After [`begin`](Idempotency::begin) the holder has to
///   [extend](Claim::extend) the claim. The late holder gets [`ErrorKind::ClaimLost`].
/// - The holder died, or could not reach the store, after the effect and before the result was recorded.
/// - The holder [abandoned](Claim::abandon) the claim, or the closure of [`run`] returned `Err`, after the effect.
/// - The store lost the record, cannot read it, or does not keep its promise of atomic changes.
/// - [`result_ttl`](Idempotency::result_ttl) has passed.
///
/// [`run`]: Idempotency::run
///
/// **The store must keep its records.** A store that loses them lets operations run again: a Redis that evicts keys, a
/// cache directory that is cleared, a record that can no longer be decrypted. An unreadable record counts as absent, is
/// logged once and replaced. So give all programs a new encryption key (`EncryptedStore::also_decrypt_with`) to
/// read with before any of them writes with it.
///
/// **Secrets.** The store gets hashes of key and request, and the result as JSON; use an
/// `EncryptedStore` if results are confidential.
///
/// Each call takes three seconds at most unless its documentation says otherwise; a store that does not answer within
/// them is an error. Clones are cheap and share their operations. A wrong setting is returned as an error by every
/// call.
#[derive(Clone, Debug)]
pub struct Idempotency {
    store: Arc<TimeoutStore>,
    namespace: Arc<str>,
    result_ttl: Duration,
    claim_ttl: Duration,
    time: Time,
    /// Whether an unreadable record has been logged.
    reported: Arc<AtomicBool>,
}

/// The state of an operation, as [`Idempotency::begin`] found or changed it. No variant will be added, so a `match` can
/// be exhaustive.
pub enum Outcome<T> {
    /// The caller holds the claim and runs the operation. No record existed before.
    New(Claim<T>),
    /// Another holder has a claim.
    InProgress {
        /// How long the claim lasts if its holder does not extend it.
        remaining: Duration,
    },
    /// The operation was completed earlier, with this result.
    Completed(T),
    /// The key was used for another request. Nothing is run.
    Mismatch,
}

impl<T> fmt::Debug for Outcome<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::New(claim) => f.debug_tuple("New").field(claim).finish(),
            Outcome::InProgress { remaining } => f.debug_struct("InProgress").field("remaining", remaining).finish(),
            // The result may be a secret, so `Debug` hides it.
            Outcome::Completed(_) => f.write_str("Completed(..)"),
            Outcome::Mismatch => f.write_str("Mismatch"),
        }
    }
}

/// The stored record of an operation, returned by [`Idempotency::get`].
pub struct OperationRecord<T> {
    status: OperationStatus,
    created: SystemTime,
    updated: SystemTime,
    remaining: Duration,
    result: Option<T>,
}

/// The status in the record of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationStatus {
    /// A holder has a claim on the operation.
    InProgress,
    /// The operation has a result.
    Completed,
}

impl<T> OperationRecord<T> {
    /// Returns whether the operation is in progress or completed.
    pub fn status(&self) -> OperationStatus {
        self.status
    }

    /// Returns when the claim was taken, by the holder's wall clock.
    pub fn created(&self) -> SystemTime {
        self.created
    }

    /// Returns when the record was last written, by the holder's wall clock: the claim was taken, extended or
    /// completed.
    pub fn updated(&self) -> SystemTime {
        self.updated
    }

    /// Returns how long the claim lasts if it is not extended, or how long the result is kept.
    pub fn remaining(&self) -> Duration {
        self.remaining
    }

    /// Returns the result of a completed operation.
    pub fn result(&self) -> Option<&T> {
        self.result.as_ref()
    }

    /// Returns the result of a completed operation, by value.
    pub fn into_result(self) -> Option<T> {
        self.result
    }
}

impl<T> fmt::Debug for OperationRecord<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperationRecord")
            .field("status", &self.status)
            .field("created", &self.created)
            .field("updated", &self.updated)
            .field("remaining", &self.remaining)
            // The result may be a secret, so `Debug` hides it.
            .finish_non_exhaustive()
    }
}

impl Idempotency {
    /// Creates a handle that records operations in `store`. Opens no connection.
    pub fn new(store: impl Store) -> Idempotency {
        Idempotency {
            store: Arc::new(TimeoutStore::new(Arc::new(store), STORE_TIMEOUT)),
            namespace: "evertoken".into(),
            result_ttl: Duration::from_secs(24 * 3600),
            claim_ttl: Duration::from_secs(30),
            time: Time::System,
            reported: Arc::default(),
        }
    }

    /// Sets the prefix of all keys in the store: 1 to 64 characters out of `A-Z a-z 0-9 . _ -`. The default is
    /// `evertoken`. The same key in two namespaces names two operations.
    #[must_use]
    pub fn namespace(self, namespace: impl Into<String>) -> Idempotency {
        Idempotency { namespace: namespace.into().into(), ..self }
    }

    /// Sets how long a result is kept. Afterwards the operation can run again. The default is 24 hours. On Redis the
    /// longest time is a year.
    #[must_use]
    pub fn result_ttl(self, lifetime: Duration) -> Idempotency {
        Idempotency { result_ttl: lifetime, ..self }
    }

    /// Sets how long a claim lasts if it is not extended, which is also how long an operation stays blocked after its
    /// holder died. The default is 30 s. With less than a few seconds, one slow store operation can outlast the claim.
    #[must_use]
    pub fn claim_ttl(self, lifetime: Duration) -> Idempotency {
        Idempotency { claim_ttl: lifetime, ..self }
    }

    /// Sets the clock for the timestamps of an [`OperationRecord`]; for tests. Claims and results expire by the store's
    /// clock, and waiting takes real time.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Idempotency {
        Idempotency { time: Time::Custom(Arc::new(clock)), ..self }
    }

    /// Checks the settings and the store, for the start of a program. Begins no operation. Blocks for three seconds at
    /// most.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Config`] when a setting is wrong, or the store needs a changed setting.
    /// - [`ErrorKind::Store`] when the store cannot be used now. The text says why.
    pub fn check(&self) -> Result<(), Error> {
        let (key, _) = self.locate("check")?;
        self.store.check(&key)
    }

    /// Claims the operation that `key` names if it has no record, in one atomic store operation; otherwise returns its
    /// state.
    ///
    /// `key` is any text of 1 to 1024 bytes, such as an order number. `request` is the data that the operation is
    /// about, such as the amount; a later call with the same key and another request gets [`Outcome::Mismatch`]. Blocks
    /// for three seconds at most.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Store`] when the store cannot be used. If the claim was written although the reply was lost, the
    ///   claim expires after [`claim_ttl`](Idempotency::claim_ttl).
    /// - [`ErrorKind::Config`] when a setting or the key is wrong, or when the stored result has another type than `T`.
    ///   The stored result stays as it is.
    /// - [`ErrorKind::Unavailable`] when the system provides no random numbers.
    pub fn begin<T: DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        request: impl AsRef<[u8]>,
    ) -> Result<Outcome<T>, Error> {
        self.attempt(key.as_ref(), request.as_ref())?.begin()
    }

    /// As [`begin`](Idempotency::begin), but waits up to `wait` while another holder has the claim: for its result, or
    /// to take the claim when the other one is abandoned or expires.
    ///
    /// Asks the store 4 to 50 times a second. Returns [`Outcome::InProgress`] when `wait` has passed.
    ///
    /// # Errors
    ///
    /// As [`begin`](Idempotency::begin). A store that fails at the first attempt is an error; a store that fails later,
    /// while this call waits, is asked again until `wait` has passed.
    pub fn begin_within<T: DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        request: impl AsRef<[u8]>,
        wait: Duration,
    ) -> Result<Outcome<T>, Error> {
        let deadline = Deadline::within(wait);
        let mut attempt = self.attempt(key.as_ref(), request.as_ref())?;
        let (mut pause, mut is_waiting) = (INITIAL_PAUSE, false);
        loop {
            let outcome = attempt.begin();
            let longest = match &outcome {
                Ok(Outcome::InProgress { remaining }) => (*remaining).max(MIN_PAUSE),
                Err(error) if is_waiting && error.kind() == ErrorKind::Store => MAX_PAUSE,
                _ => return outcome,
            };
            if deadline.has_passed() {
                return outcome;
            }
            thread::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0).min(longest).min(deadline.remaining()));
            (pause, is_waiting) = ((pause * 2).min(MAX_PAUSE), true);
        }
    }

    /// Returns the record of the operation that `key` names, and changes nothing. `None` when there is no record: the
    /// operation was never begun, or its claim or result has expired. Blocks for three seconds at most.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Store`] when the store cannot be used.
    /// - [`ErrorKind::Config`] when a setting or the key is wrong, or when the stored result has another type than `T`.
    pub fn get<T: DeserializeOwned>(&self, key: impl AsRef<str>) -> Result<Option<OperationRecord<T>>, Error> {
        let (key, id) = self.locate(key.as_ref())?;
        let place = key.clone();
        let entry = self.store.run(move |store| store.read(&place))?;
        let Some(entry) = entry else { return Ok(None) };
        let Some(header) = self.decode(&entry, &key, &id).filter(|header| !is_claim_without_expiry(header, &entry))
        else {
            return Ok(None);
        };
        let result = match header.status {
            OperationStatus::InProgress => None,
            OperationStatus::Completed => Some(stored_result(&entry)?),
        };
        Ok(Some(OperationRecord {
            status: header.status,
            created: system_time(header.created_ms),
            updated: system_time(header.updated_ms),
            remaining: entry.remaining(),
            result,
        }))
    }

    fn attempt(&self, text: &str, request: &[u8]) -> Result<Attempt<'_>, Error> {
        let (key, id) = self.locate(text)?;
        let request = keyed_hash(text, "request", request);
        let owner = unique_name()?;
        let (status, now) = (OperationStatus::InProgress, epoch_milliseconds(self.time.now()));
        let header = Header { v: VERSION, id, request, owner, status, revision: 0, created_ms: now, updated_ms: now };
        Ok(Attempt { idempotency: self, key, header })
    }

    /// Returns the store key of an operation, and the id that its records must have.
    fn locate(&self, text: &str) -> Result<(Key, String), Error> {
        if self.claim_ttl.is_zero() || self.result_ttl.is_zero() {
            return Err(Error::config("claim_ttl and result_ttl must be longer than zero"));
        }
        if !(1..=MAX_KEY_LENGTH).contains(&text.len()) {
            return Err(Error::config("the idempotency key must be 1 to 1024 bytes"));
        }
        let key = Key::derive(&self.namespace, &Identity::new("idempotency").part("key", text))?.operation();
        let id = keyed_hash(text, "deed", key.as_str().as_bytes());
        Ok((key, id))
    }

    /// Returns the header of the record in `entry`. `None` for a record that is unreadable or belongs to another key.
    /// The record then counts as absent, and the first one is logged.
    fn decode(&self, entry: &Entry, key: &Key, id: &str) -> Option<Header> {
        let header = Header::from_bytes(entry.bytes(), id);
        if header.is_none() && !self.reported.swap(true, Ordering::Relaxed) {
            log::warn!(
                target: "evertoken",
                "{key}: the idempotency record in the store cannot be read and counts as absent, so the operation can run \
                 again; check which encryption key and which programs use this store"
            );
        }
        header
    }
}

/// Returns whether the entry is a claim without an expiry. No holder writes such a claim, and it would block the
/// operation for ever, so it counts as absent. A result without an expiry stays valid.
fn is_claim_without_expiry(header: &Header, entry: &Entry) -> bool {
    header.status == OperationStatus::InProgress && entry.remaining().is_zero()
}

fn stored_result<T: DeserializeOwned>(entry: &Entry) -> Result<T, Error> {
    parse_result(entry.bytes()).ok_or_else(|| Error::config(OTHER_TYPE))
}

/// A call of `begin` or `begin_within`. The attempts of one call share an owner name, so that a claim whose reply was
/// lost is recognized as its own.
struct Attempt<'a> {
    idempotency: &'a Idempotency,
    key: Key,
    header: Header,
}

impl Attempt<'_> {
    fn begin<T: DeserializeOwned>(&mut self) -> Result<Outcome<T>, Error> {
        let (mut replaced, deadline): (Option<Version>, _) = (None, Deadline::within(STORE_TIMEOUT));
        for _ in 0..MAX_ATTEMPTS {
            let asked_at = self.idempotency.time.now();
            (self.header.created_ms, self.header.updated_ms) =
                (epoch_milliseconds(asked_at), epoch_milliseconds(asked_at));
            let entry = match self.claim(replaced.take(), deadline)? {
                // The process was suspended during the write for longer than the claim lasts. Another holder may have
                // completed the operation since, so look again.
                SwapOutcome::Done(_) if self.idempotency.time.now().since(asked_at) >= self.idempotency.claim_ttl => {
                    continue;
                }
                SwapOutcome::Done(version) => return Ok(Outcome::New(self.new_claim(version))),
                // The record that was to be replaced expired or was removed. Claim the absent record instead.
                SwapOutcome::Conflict(None) => continue,
                SwapOutcome::Conflict(Some(entry)) => entry,
            };
            match self.idempotency.decode(&entry, &self.key, &self.header.id) {
                // This attempt wrote the claim before, and the reply was lost. Write it again, so that its lifetime
                // counts from now.
                Some(header) if header.owner == self.header.owner && header.status == OperationStatus::InProgress => {}
                Some(header) if is_claim_without_expiry(&header, &entry) => {}
                Some(header) if header.request != self.header.request => return Ok(Outcome::Mismatch),
                Some(header) => {
                    return match header.status {
                        OperationStatus::InProgress => Ok(Outcome::InProgress { remaining: entry.remaining() }),
                        OperationStatus::Completed => stored_result(&entry).map(Outcome::Completed),
                    };
                }
                None => {}
            }
            replaced = Some(entry.version().clone());
        }
        Err(Error::new(ErrorKind::Store, CONTENDED))
    }

    /// Writes the claim if the record still has version `seen`; `None` expects that there is no record.
    fn claim(&mut self, seen: Option<Version>, deadline: Deadline) -> Result<SwapOutcome, Error> {
        self.header.revision += 1;
        let (key, bytes, lifetime) = (self.key.clone(), self.header.to_bytes(), self.idempotency.claim_ttl);
        self.idempotency.store.run_until(deadline, move |store| {
            let expected = seen.as_ref().map_or(Expected::Absent, Expected::Version);
            store.compare_and_swap(&key, expected, Some((&bytes, lifetime)))
        })
    }

    fn new_claim<T>(&self, version: Option<Version>) -> Claim<T> {
        let idempotency = self.idempotency;
        let version = version.unwrap_or_else(|| Version::of_bytes(&self.header.to_bytes()));
        let lifetimes = (idempotency.claim_ttl, idempotency.result_ttl);
        let held = HeldClaim::new(
            idempotency.store.clone(),
            idempotency.time.clone(),
            self.key.clone(),
            lifetimes,
            self.header.clone(),
            version,
        );
        Claim { held: Arc::new(held), result: PhantomData }
    }
}

const OTHER_TYPE: &str = "the stored result has another type than the one asked for; ask for the type that was \
                          recorded, or use another key or namespace for this type";

const MAX_KEY_LENGTH: usize = 1024;

/// How long one step waits for the store, all attempts together. Longer than for tokens: an operation cannot run
/// without the store, and some disks are slow.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a step starts over because another writer changed the record first.
const MAX_ATTEMPTS: usize = 8;

const CONTENDED: &str = "other writers changed the record of the operation at each attempt to write it; try again";

/// The pauses of `begin_within` between two attempts.
const MIN_PAUSE: Duration = Duration::from_millis(1);
const INITIAL_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(250);
