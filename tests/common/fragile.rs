//! A store that breaks when a test says so.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evertoken::store::{Cursor, Entry, Expected, Key, Store, SwapOutcome};
use evertoken::testing::FakeClock;
use evertoken::{Error, ErrorKind, MemoryStore};

/// A store that can be broken, and that has only the two operations every backend has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fragile {
    pub(crate) inner: MemoryStore,
    pub(crate) broken: Arc<AtomicBool>,
    /// Keys that end like this cannot be written.
    pub(crate) unwritable: Arc<Mutex<Option<&'static str>>>,
    pub(crate) panics: Arc<AtomicBool>,
    /// The keys that were asked for.
    pub(crate) keys: Arc<Mutex<Vec<Key>>>,
    /// Operations wait as long as this is locked.
    pub(crate) gate: Arc<Mutex<()>>,
    /// What `wait` does, if not what every store does.
    pub(crate) waiting: Option<Result<(), Error>>,
    pub(crate) waits: Arc<AtomicUsize>,
    pub(crate) operations: Arc<AtomicUsize>,
}

impl Fragile {
    pub(crate) fn on_clock(clock: &FakeClock) -> Fragile {
        Fragile { inner: MemoryStore::with_clock(clock.clone()), ..Fragile::default() }
    }

    fn check(&self) -> Result<(), Error> {
        self.operations.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.lock());
        assert!(!self.panics.load(Ordering::SeqCst), "a store panics because the test says so");
        match self.broken.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Store, "broken on purpose")),
            false => Ok(()),
        }
    }
}

impl Store for Fragile {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.check()?;
        self.keys.lock().unwrap().push(key.clone());
        self.inner.read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        self.check()?;
        if self.unwritable.lock().unwrap().is_some_and(|end| key.as_str().ends_with(end)) {
            return Err(Error::new(ErrorKind::Store, "broken for this key on purpose"));
        }
        self.inner.compare_and_swap(key, expected, new)
    }

    fn wait(&self, key: &Key, cursor: &Cursor, deadline: Instant) -> Result<(), Error> {
        self.waits.fetch_add(1, Ordering::SeqCst);
        match &self.waiting {
            Some(outcome) => outcome.clone(),
            None => self.inner.wait(key, cursor, deadline),
        }
    }
}

/// One whose records are at hand when it is broken as well, as in a directory that cannot be written to.
#[derive(Clone, Debug)]
pub(crate) struct AtHand(pub(crate) Fragile);

impl Store for AtHand {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.0.read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        self.0.compare_and_swap(key, expected, new)
    }

    fn read_at_once(&self, key: &Key) -> Option<Entry> {
        self.0.inner.read(key).ok()?
    }
}
