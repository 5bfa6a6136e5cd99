//! The stores on which each case runs, with a clock, faults and a record of the operations.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use evertoken::idempotency::{Claim, Idempotency, Outcome};
use evertoken::store::{Entry, Expected, Key, Store, SwapOutcome};
use evertoken::testing::FakeClock;
use evertoken::{Error, ErrorKind, FileStore, MemoryStore};

use crate::common::wait::*;

pub(crate) mod beds {
    use super::*;

    pub(crate) fn memory() -> Bed {
        let clock = FakeClock::new();
        Bed::new(MemoryStore::with_clock(clock.clone()), clock, |_| {})
    }

    pub(crate) fn files() -> Bed {
        on_files(|store| store)
    }

    #[cfg(feature = "encryption")]
    pub(crate) fn encrypted_files() -> Bed {
        use evertoken::{EncryptedStore, EncryptionKey};

        let key = std::array::from_fn(|at| (at as u8).wrapping_mul(11));
        on_files(|store| EncryptedStore::new(store, EncryptionKey::new(key).unwrap()))
    }

    fn on_files<S: Store>(seal: impl FnOnce(FileStore) -> S) -> Bed {
        let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
        let store = FileStore::with_clock(folder.path().join("store"), clock.clone());
        // The directory exists as long as the test bed.
        Bed::new(seal(store), clock, move |_| assert!(folder.path().exists()))
    }

    #[cfg(all(feature = "redis", target_os = "linux"))]
    pub(crate) fn redis() -> Bed {
        use evertoken::RedisStore;

        let server = crate::common::redis_server::RedisServer::start();
        let store = RedisStore::open(&server.url()).unwrap();
        Bed::new(store, FakeClock::new(), move |time| crate::on_redis::advance(&server, time))
    }
}

/// A store under test.
pub(crate) struct Bed {
    pub(crate) store: ObservedStore,
    pub(crate) clock: FakeClock,
    pub(crate) pass: Box<dyn Fn(Duration)>,
}

impl Bed {
    pub(crate) fn new(store: impl Store, clock: FakeClock, pass: impl Fn(Duration) + 'static) -> Bed {
        Bed { store: ObservedStore::of(store), clock, pass: Box::new(pass) }
    }

    /// A new handle each time, as in another process.
    pub(crate) fn once(&self) -> Idempotency {
        Idempotency::new(self.store.clone()).clock(self.clock.clone())
    }

    /// Makes time pass for the clock and for the store.
    pub(crate) fn advance(&self, time: Duration) {
        self.clock.advance(time);
        (self.pass)(time);
    }

    /// The record under the key that was used last.
    pub(crate) fn recorded(&self) -> Option<Entry> {
        patiently(|| self.store.inner.read(&self.store.key()))
    }

    /// Writes under that key, without the library.
    pub(crate) fn put(&self, bytes: &[u8]) {
        let swap =
            patiently(|| self.store.inner.compare_and_swap(&self.store.key(), Expected::Any, Some((bytes, HOUR))));
        assert!(matches!(swap, SwapOutcome::Done(_)));
    }
}

/// A store that records its operations and fails when a test asks for it.
#[derive(Clone, Debug)]
pub(crate) struct ObservedStore {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) asked: Arc<Mutex<Operations>>,
    pub(crate) gate: Arc<Mutex<()>>,
    /// Whether writes of completed records fail, and how many have failed.
    pub(crate) refuses_results: Arc<AtomicBool>,
    pub(crate) refused: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
pub(crate) struct Operations {
    pub(crate) keys: Vec<Key>,
    pub(crate) writes: usize,
    pub(crate) faults: Vec<Fault>,
}

/// The fault of the next operation; the last one of a list comes first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The operation works.
    Nothing,
    /// The operation fails without effect.
    Fails,
    /// The next write takes effect, and fails.
    LosesAnswer,
    /// A conflict reports that no entry is present.
    Vanishes,
    /// A read returns an entry without an expiry.
    HasNoEnd,
}

impl ObservedStore {
    pub(crate) fn of(inner: impl Store) -> ObservedStore {
        ObservedStore {
            inner: Arc::new(inner),
            asked: Arc::default(),
            gate: Arc::default(),
            refuses_results: Arc::default(),
            refused: Arc::default(),
        }
    }

    pub(crate) fn key(&self) -> Key {
        self.asked.lock().unwrap().keys.last().unwrap().clone()
    }

    pub(crate) fn operations(&self) -> usize {
        self.asked.lock().unwrap().keys.len()
    }

    pub(crate) fn writes(&self) -> usize {
        self.asked.lock().unwrap().writes
    }

    pub(crate) fn next(&self, faults: &[Fault]) {
        self.asked.lock().unwrap().faults = faults.iter().rev().copied().collect();
    }

    pub(crate) fn note(&self, key: &Key) -> Option<Fault> {
        drop(self.gate.lock());
        let mut asked = self.asked.lock().unwrap();
        asked.keys.push(key.clone());
        asked.faults.pop_if(|fault| *fault != Fault::LosesAnswer)
    }
}

pub(crate) fn broken() -> Error {
    Error::new(ErrorKind::Store, "broken on purpose")
}

impl Store for ObservedStore {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        match self.note(key) {
            Some(Fault::Fails) => Err(broken()),
            Some(Fault::HasNoEnd) => Ok(self.inner.read(key)?.map(without_end)),
            _ => self.inner.read(key),
        }
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        let fault = self.note(key);
        match fault {
            Some(Fault::Fails) => return Err(broken()),
            Some(Fault::Vanishes) => return Ok(SwapOutcome::Conflict(None)),
            _ => {}
        }
        let is_result = new.is_some_and(|(bytes, _)| String::from_utf8_lossy(bytes).contains(r#""completed""#));
        if is_result && self.refuses_results.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(broken());
        }
        let swap = self.inner.compare_and_swap(key, expected, new)?;
        let mut asked = self.asked.lock().unwrap();
        match swap {
            SwapOutcome::Done(_) => {
                asked.writes += 1;
                if asked.faults.pop_if(|fault| *fault == Fault::LosesAnswer).is_some() {
                    return Err(broken());
                }
            }
            SwapOutcome::Conflict(Some(entry)) if fault == Some(Fault::HasNoEnd) => {
                return Ok(SwapOutcome::Conflict(Some(without_end(entry))));
            }
            SwapOutcome::Conflict(_) => {}
        }
        Ok(swap)
    }
}

pub(crate) fn without_end(entry: Entry) -> Entry {
    Entry::with_version(entry.bytes().to_vec(), Duration::ZERO, entry.version().clone())
}

pub(crate) const CLAIM: Duration = Duration::from_secs(30);

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn begin(once: &Idempotency) -> Outcome<String> {
    patiently(|| once.begin("order-17", "100 EUR"))
}

pub(crate) fn claim(once: &Idempotency) -> Claim<String> {
    match begin(once) {
        Outcome::New(claim) => claim,
        other => panic!("{other:?}"),
    }
}

/// One word for the outcome, or its result.
pub(crate) fn word_for<T: std::fmt::Display>(outcome: Outcome<T>) -> String {
    match outcome {
        Outcome::New(_) => "new".to_owned(),
        Outcome::InProgress { .. } => "in progress".to_owned(),
        Outcome::Completed(result) => result.to_string(),
        Outcome::Mismatch => "mismatch".to_owned(),
    }
}

pub(crate) fn complete(claim: &Claim<String>, result: &str) -> Result<(), ErrorKind> {
    claim.complete(&result.to_owned()).map_err(|error| error.kind())
}

/// The time of the clock in whole milliseconds, as in a record.
pub(crate) fn time_of(clock: &FakeClock) -> SystemTime {
    let once = Idempotency::new(MemoryStore::new()).clock(clock.clone());
    drop(once.begin::<()>("now", "").unwrap());
    once.get::<()>("now").unwrap().unwrap().created()
}
