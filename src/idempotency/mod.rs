//! Doing a thing once: a claim on it first, what came of it afterwards.

mod claim;
mod run;
mod wire;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::claim::Claim;
use self::claim::Held;
pub use self::run::RunError;
use self::wire::{Head, VERSION, epoch_milliseconds, name_of, result_of};
use crate::clock::{Clock, Deadline, Time, system_time};
use crate::error::{Error, ErrorKind};
use crate::key::{Identity, Key};
use crate::name::unique_name;
use crate::store::{Entry, Expected, Store, SwapOutcome, TimeoutStore, Version};

/// Does things once: keeps on a [`Store`] who does what, and what came of it.
///
/// Whoever [begins](Idempotency::begin) a thing first has a [`Claim`] on it; the others hear that it is in progress, and
/// later what came of it. The claim is short, so that the thing is not lost with a program that dies; the result is kept
/// long. [`run`](Idempotency::run) does it all. Programs that share the store and the
/// [namespace](Idempotency::namespace) do each thing once among them.
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
///     Outcome::InProgress { remaining } => println!("another does it, for {remaining:?} or longer"),
///     Outcome::Completed(receipt) => println!("it has been done: {receipt}"),
///     Outcome::Mismatch => println!("order-17 was another one"),
/// }
/// # Ok::<(), evertoken::Error>(())
/// ```
///
/// **What it promises.** Of all who begin a thing one has the claim, for as long as it lasts. A claim that has run out can
/// neither be extended nor completed. So a thing is done twice only when its doer outlives its own claim, or dies before it
/// has said what came of it; where that matters, let what the thing is done with know the key too.
///
/// Of key and request only hashes stand in the store; the result stands there as JSON. Every call takes three seconds at
/// most, if nothing else is said; a store that does not answer is an error. A store that forgets, such as a Redis that evicts
/// keys or a cache directory that is cleared, lets things be done again, and so does one whose records cannot be read any more:
/// they count as none, are reported once and replaced. So give all programs a new sealing key to read with before any of them
/// writes with it.
///
/// Clones are cheap and work on the same things. A wrong setting is kept, and returned by every call.
#[derive(Clone, Debug)]
pub struct Idempotency {
    store: Arc<TimeoutStore>,
    namespace: Arc<str>,
    result_ttl: Duration,
    claim_ttl: Duration,
    time: Time,
    /// Whether an unreadable record has been reported.
    reported: Arc<AtomicBool>,
}

/// How things stand with a thing that is to be done once. These are all ways there are, so it can be matched in full.
pub enum Outcome<T> {
    /// It is for the caller to do. Nobody else has begun it.
    New(Claim<T>),
    /// Another does it.
    InProgress {
        /// How long the other's claim lasts if it is not extended.
        remaining: Duration,
    },
    /// It has been done, and this is what came of it.
    Completed(T),
    /// The key was used for another request.
    Mismatch,
}

impl<T> fmt::Debug for Outcome<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::New(claim) => f.debug_tuple("New").field(claim).finish(),
            Outcome::InProgress { remaining } => f.debug_struct("InProgress").field("remaining", remaining).finish(),
            // The result may be a secret.
            Outcome::Completed(_) => f.write_str("Completed(..)"),
            Outcome::Mismatch => f.write_str("Mismatch"),
        }
    }
}

/// What is recorded of a thing that is to be done once.
pub struct OperationRecord<T> {
    status: OperationStatus,
    created: SystemTime,
    updated: SystemTime,
    remaining: Duration,
    result: Option<T>,
}

/// How far a thing has come that is to be done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationStatus {
    /// Somebody holds a claim on it.
    InProgress,
    /// It has been done.
    Completed,
}

impl<T> OperationRecord<T> {
    /// How far it has come.
    pub fn status(&self) -> OperationStatus {
        self.status
    }

    /// When it was begun, by the wall clock of whoever did.
    pub fn created(&self) -> SystemTime {
        self.created
    }

    /// When it was begun, extended or completed last, by the wall clock of whoever did.
    pub fn updated(&self) -> SystemTime {
        self.updated
    }

    /// How long the claim lasts if it is not extended, or the result is kept.
    pub fn remaining(&self) -> Duration {
        self.remaining
    }

    /// What came of it, once it has been done.
    pub fn result(&self) -> Option<&T> {
        self.result.as_ref()
    }

    /// What came of it, once it has been done.
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
            // The result may be a secret.
            .finish_non_exhaustive()
    }
}

impl Idempotency {
    /// Keeps what is done on `store`. Opens no connection.
    pub fn new(store: impl Store) -> Idempotency {
        Idempotency {
            store: Arc::new(TimeoutStore::new(Arc::new(store), LONGEST_STEP)),
            namespace: "evertoken".into(),
            result_ttl: Duration::from_secs(24 * 3600),
            claim_ttl: Duration::from_secs(30),
            time: Time::System,
            reported: Arc::default(),
        }
    }

    /// What all keys in the store begin with: 1 to 64 characters out of `A-Z a-z 0-9 . _ -`. The default is `evertoken`.
    /// The same key in two namespaces is two things.
    #[must_use]
    pub fn namespace(self, namespace: impl Into<String>) -> Idempotency {
        Idempotency { namespace: namespace.into().into(), ..self }
    }

    /// How long a result is kept; later the thing can be done again. The default is a day. Redis keeps nothing for longer
    /// than a year.
    #[must_use]
    pub fn result_ttl(self, lifetime: Duration) -> Idempotency {
        Idempotency { result_ttl: lifetime, ..self }
    }

    /// How long a claim lasts if it is not extended: so long a thing waits whose doer has died. The default is 30 s. Below
    /// some seconds a slow store can outlast it.
    #[must_use]
    pub fn claim_ttl(self, lifetime: Duration) -> Idempotency {
        Idempotency { claim_ttl: lifetime, ..self }
    }

    /// Tells the times of a [`OperationRecord`]. Claims and results end by the store's clock, and waiting goes by real time.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Idempotency {
        Idempotency { time: Time::Custom(Arc::new(clock)), ..self }
    }

    /// Begins the thing that `key` names, if nobody has: one atomic operation of the store.
    ///
    /// `key` is any text of 1 to 1024 bytes, and `request` what is asked for under it: an order and what it is about. With
    /// another request the key is a [mismatch](Outcome::Mismatch).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] when the store cannot be used. If a claim was recorded nevertheless it runs out.
    /// [`ErrorKind::InvalidResponse`] when there is a result that is no `T`; it stays. [`ErrorKind::Config`] for a wrong setting
    /// or key. [`ErrorKind::Unavailable`] where the system gives no random numbers.
    pub fn begin<T: DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        request: impl AsRef<[u8]>,
    ) -> Result<Outcome<T>, Error> {
        self.attempt(key.as_ref(), request.as_ref())?.begin()
    }

    /// As [`begin`](Idempotency::begin), but while another does it waits for that, up to `wait`: for its result, or to begin
    /// when its claim is abandoned or runs out.
    ///
    /// Looks 4 to 50 times a second. Still [in progress](Outcome::InProgress) when `wait` is over.
    ///
    /// # Errors
    ///
    /// As [`begin`](Idempotency::begin). A store that fails while this waits is asked again until `wait` is over.
    pub fn begin_within<T: DeserializeOwned>(
        &self,
        key: impl AsRef<str>,
        request: impl AsRef<[u8]>,
        wait: Duration,
    ) -> Result<Outcome<T>, Error> {
        let deadline = Deadline::within(wait);
        let mut attempt = self.attempt(key.as_ref(), request.as_ref())?;
        let (mut pause, mut is_waiting) = (FIRST_PAUSE, false);
        loop {
            let outcome = attempt.begin();
            let longest = match &outcome {
                Ok(Outcome::InProgress { remaining }) => (*remaining).max(SHORTEST_PAUSE),
                Err(error) if is_waiting && error.kind() == ErrorKind::Store => LONGEST_PAUSE,
                _ => return outcome,
            };
            if deadline.has_passed() {
                return outcome;
            }
            thread::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0).min(longest).min(deadline.remaining()));
            (pause, is_waiting) = ((pause * 2).min(LONGEST_PAUSE), true);
        }
    }

    /// What is recorded under `key`. `None` when nobody has begun it, or nothing is left of it.
    ///
    /// # Errors
    ///
    /// As [`begin`](Idempotency::begin).
    pub fn get<T: DeserializeOwned>(&self, key: impl AsRef<str>) -> Result<Option<OperationRecord<T>>, Error> {
        let (key, id) = self.place(key.as_ref())?;
        let place = key.clone();
        let entry = self.store.run(move |store| store.read(&place))?;
        let Some(entry) = entry else { return Ok(None) };
        let Some(head) = self.decode(&entry, &key, &id).filter(|head| !is_over(head, &entry)) else { return Ok(None) };
        let result = match head.status {
            OperationStatus::InProgress => None,
            OperationStatus::Completed => Some(recorded(&entry)?),
        };
        Ok(Some(OperationRecord {
            status: head.status,
            created: system_time(head.created_ms),
            updated: system_time(head.updated_ms),
            remaining: entry.remaining(),
            result,
        }))
    }

    fn attempt(&self, text: &str, request: &[u8]) -> Result<Attempt<'_>, Error> {
        let (key, id) = self.place(text)?;
        let request = name_of(text, "request", request);
        let owner = unique_name()?;
        let (status, now) = (OperationStatus::InProgress, epoch_milliseconds(self.time.now()));
        let head = Head { v: VERSION, id, request, owner, status, turn: 0, created_ms: now, updated_ms: now };
        Ok(Attempt { once: self, key, head })
    }

    /// Where the thing is recorded, and how its records name it.
    fn place(&self, text: &str) -> Result<(Key, String), Error> {
        if self.claim_ttl.is_zero() || self.result_ttl.is_zero() {
            return Err(Error::config("a claim and a result must have a lifetime above zero"));
        }
        if !(1..=LONGEST_KEY).contains(&text.len()) {
            return Err(Error::config("the key of a thing to be done once must have 1 to 1024 bytes"));
        }
        let key = Key::derive(&self.namespace, &Identity::new("idempotency").part("key", text))?.operation();
        let id = name_of(text, "deed", key.as_str().as_bytes());
        Ok((key, id))
    }

    /// The record in `entry`. What cannot be read, or belongs to another key, is as good as nothing.
    fn decode(&self, entry: &Entry, key: &Key, id: &str) -> Option<Head> {
        let head = Head::from_bytes(entry.bytes(), id);
        if head.is_none() && !self.reported.swap(true, Ordering::Relaxed) {
            log::warn!(target: "evertoken", "{key}: the record in the store cannot be read; it counts as absent");
        }
        head
    }
}

/// True for a claim without end, which nobody can have made. A result without end is a result.
fn is_over(head: &Head, entry: &Entry) -> bool {
    head.status == OperationStatus::InProgress && entry.remaining().is_zero()
}

fn recorded<T: DeserializeOwned>(entry: &Entry) -> Result<T, Error> {
    result_of(entry.bytes())
        .ok_or_else(|| Error::invalid_response("it has been done, and its result is of another type"))
}

/// One who wants to do a thing. It has one name however often it asks, so that it knows a claim of its own.
struct Attempt<'a> {
    once: &'a Idempotency,
    key: Key,
    head: Head,
}

impl Attempt<'_> {
    fn begin<T: DeserializeOwned>(&mut self) -> Result<Outcome<T>, Error> {
        let (mut replaced, deadline): (Option<Version>, _) = (None, Deadline::within(LONGEST_STEP));
        for _ in 0..MOST_TRIES {
            let asked_at = self.once.time.now();
            (self.head.created_ms, self.head.updated_ms) = (epoch_milliseconds(asked_at), epoch_milliseconds(asked_at));
            let entry = match self.claim(replaced.take(), deadline)? {
                // Slept through, on a laptop or in a stopped process: somebody else may have done it meanwhile.
                SwapOutcome::Done(_) if self.once.time.now().since(asked_at) >= self.once.claim_ttl => continue,
                SwapOutcome::Done(version) => return Ok(Outcome::New(self.claimed(version))),
                // It went between two looks, and nothing has been recorded yet.
                SwapOutcome::Conflict(None) => continue,
                SwapOutcome::Conflict(Some(entry)) => entry,
            };
            match self.once.decode(&entry, &self.key, &self.head.id) {
                // Recorded before by this one, when the answer was lost. Its lifetime is counted from now.
                Some(head) if head.owner == self.head.owner && head.status == OperationStatus::InProgress => {}
                Some(head) if is_over(&head, &entry) => {}
                Some(head) if head.request != self.head.request => return Ok(Outcome::Mismatch),
                Some(head) => {
                    return match head.status {
                        OperationStatus::InProgress => Ok(Outcome::InProgress { remaining: entry.remaining() }),
                        OperationStatus::Completed => recorded(&entry).map(Outcome::Completed),
                    };
                }
                None => {}
            }
            replaced = Some(entry.version().clone());
        }
        Err(Error::new(ErrorKind::Store, "the record changes faster than it can be written"))
    }

    /// Writes the claim in the place of what was seen; `None`: of nothing.
    fn claim(&mut self, seen: Option<Version>, deadline: Deadline) -> Result<SwapOutcome, Error> {
        self.head.turn += 1;
        let (key, bytes, lifetime) = (self.key.clone(), self.head.to_bytes(), self.once.claim_ttl);
        self.once.store.run_until(deadline, move |store| {
            let expected = seen.as_ref().map_or(Expected::Absent, Expected::Version);
            store.compare_and_swap(&key, expected, Some((&bytes, lifetime)))
        })
    }

    fn claimed<T>(&self, version: Option<Version>) -> Claim<T> {
        let once = self.once;
        let version = version.unwrap_or_else(|| Version::of_bytes(&self.head.to_bytes()));
        let lifetimes = (once.claim_ttl, once.result_ttl);
        let held =
            Held::new(once.store.clone(), once.time.clone(), self.key.clone(), lifetimes, self.head.clone(), version);
        Claim { held: Arc::new(held), result: PhantomData }
    }
}

const LONGEST_KEY: usize = 1024;

/// How long the store is waited for in a step, all in all. Longer than for a token, because there is no going on without the
/// store, and some disks take their time.
const LONGEST_STEP: Duration = Duration::from_secs(3);

/// How often a step starts over because something came first.
const MOST_TRIES: usize = 8;

/// Between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
