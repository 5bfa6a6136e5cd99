//! Stores that fail, delay or call the test back when a test asks for it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

use evertoken::store::{Cursor, Entry, Expected, Key, Store, SwapOutcome};
use evertoken::testing::FakeClock;
use evertoken::{Error, ErrorKind, FileStore, MemoryStore};

/// A store in memory whose faults a test switches on and off. Implements only the two operations that every backend
/// has.
///
/// Clones share the records and the faults.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyStore {
    pub(crate) inner: MemoryStore,
    /// Every operation fails.
    pub(crate) broken: Arc<AtomicBool>,
    /// Keys that end like this cannot be written.
    pub(crate) unwritable: Arc<Mutex<Option<&'static str>>>,
    /// Every operation panics.
    pub(crate) panics: Arc<AtomicBool>,
    /// The keys that were read, in that order.
    pub(crate) keys: Arc<Mutex<Vec<Key>>>,
    /// Every operation blocks as long as a test holds this lock.
    pub(crate) gate: Arc<Mutex<()>>,
    /// The result of `wait`, in place of a wait.
    pub(crate) waiting: Option<Result<(), Error>>,
    /// Counts the calls of `wait`.
    pub(crate) waits: Arc<AtomicUsize>,
    /// Counts the reads and writes.
    pub(crate) operations: Arc<AtomicUsize>,
}

impl FaultyStore {
    pub(crate) fn on_clock(clock: &FakeClock) -> FaultyStore {
        FaultyStore::over(&MemoryStore::with_clock(clock.clone()))
    }

    /// The connection of one process to a store that other processes reach without these faults.
    pub(crate) fn over(inner: &MemoryStore) -> FaultyStore {
        FaultyStore { inner: inner.clone(), ..FaultyStore::default() }
    }

    pub(crate) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), Error> {
        self.operations.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.lock());
        assert!(!self.panics.load(Ordering::SeqCst), "a store panics because the test says so");
        match self.broken.load(Ordering::SeqCst) {
            true => Err(store_error()),
            false => Ok(()),
        }
    }
}

impl Store for FaultyStore {
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

/// The error of a store that fails because a test says so.
pub(crate) fn store_error() -> Error {
    Error::new(ErrorKind::Store, "broken on purpose")
}

/// A store whose records can be read at once, without I/O, even while it is broken, as in a directory that cannot be
/// written.
#[derive(Clone, Debug)]
pub(crate) struct ReadableAtOnce(pub(crate) FaultyStore);

impl Store for ReadableAtOnce {
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

/// The point of an operation at which a hook runs. A hook that fails makes the operation fail there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    BeforeRead,
    AfterRead,
    /// With the new value, unless the entry is removed.
    BeforeWrite(Option<&'a [u8]>),
    AfterWrite,
}

type Hook = Arc<dyn Fn(&Key, Step<'_>) -> Result<(), Error> + Send + Sync>;

/// The connection of one process to a store, on which a test runs a hook before and after each read and write.
#[derive(Clone)]
pub(crate) struct HookedStore<S = MemoryStore> {
    pub(crate) inner: S,
    hook: Arc<Mutex<Option<Hook>>>,
    /// The keys that were read or written.
    pub(crate) keys: Arc<Mutex<BTreeSet<Key>>>,
}

impl HookedStore {
    pub(crate) fn on_clock(clock: &FakeClock) -> HookedStore {
        HookedStore::over(&MemoryStore::with_clock(clock.clone()))
    }
}

impl<S: Store + Clone> HookedStore<S> {
    pub(crate) fn over(inner: &S) -> HookedStore<S> {
        HookedStore { inner: inner.clone(), hook: Arc::default(), keys: Arc::default() }
    }

    /// Runs `hook` at each step from now on, in place of an earlier hook.
    pub(crate) fn set_hook(&self, hook: impl Fn(&Key, Step<'_>) -> Result<(), Error> + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    /// Runs `hook` with the new value before each write.
    pub(crate) fn before_write(&self, hook: impl Fn(&Key, Option<&[u8]>) -> Result<(), Error> + Send + Sync + 'static) {
        self.set_hook(move |key, step| match step {
            Step::BeforeWrite(new) => hook(key, new),
            _ => Ok(()),
        });
    }

    pub(crate) fn remove_hook(&self) {
        *self.hook.lock().unwrap() = None;
    }

    /// The key that was used and ends like this.
    pub(crate) fn key(&self, end: &str) -> Key {
        self.keys.lock().unwrap().iter().find(|key| key.as_str().ends_with(end)).unwrap().clone()
    }

    /// The record of the renewal secret, read without the hook.
    pub(crate) fn renewal_secret(&self) -> Option<Entry> {
        self.inner.read(&self.key(":state")).unwrap()
    }

    pub(crate) fn renewal_secret_text(&self) -> String {
        self.renewal_secret().map_or_else(String::new, |entry| String::from_utf8(entry.bytes().to_vec()).unwrap())
    }

    /// Removes all records, as a flushed server does.
    pub(crate) fn flush(&self) {
        for key in self.keys.lock().unwrap().iter() {
            self.inner.compare_and_swap(key, Expected::Any, None).unwrap();
        }
    }

    fn run(&self, key: &Key, step: Step<'_>) -> Result<(), Error> {
        self.keys.lock().unwrap().insert(key.clone());
        let hook = self.hook.lock().unwrap().clone();
        hook.map_or(Ok(()), |hook| hook(key, step))
    }
}

impl<S> fmt::Debug for HookedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookedStore")
    }
}

impl<S: Store + Clone> Store for HookedStore<S> {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.run(key, Step::BeforeRead)?;
        let entry = self.inner.read(key)?;
        self.run(key, Step::AfterRead)?;
        Ok(entry)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        self.run(key, Step::BeforeWrite(new.map(|(bytes, _)| bytes)))?;
        let swap = self.inner.compare_and_swap(key, expected, new)?;
        self.run(key, Step::AfterWrite)?;
        Ok(swap)
    }

    fn wait(&self, key: &Key, cursor: &Cursor, deadline: Instant) -> Result<(), Error> {
        self.inner.wait(key, cursor, deadline)
    }
}

/// A store in memory whose operations take time, as on a slow disk.
#[derive(Clone, Debug)]
pub(crate) struct SlowStore {
    pub(crate) inner: MemoryStore,
    /// The time of a read.
    pub(crate) read: Duration,
    /// The time of a write.
    pub(crate) write: Duration,
}

impl Store for SlowStore {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        thread::sleep(self.read);
        self.inner.read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        thread::sleep(self.write);
        self.inner.compare_and_swap(key, expected, new)
    }
}

/// The one file of the store whose name fits.
pub(crate) fn file_of(store: &FileStore, fits: impl Fn(&str) -> bool) -> PathBuf {
    let files = fs::read_dir(store.directory()).unwrap().map(|file| file.unwrap().path());
    let fits = |path: &PathBuf| fits(path.file_name().unwrap().to_str().unwrap());
    let found: Vec<_> = files.filter(fits).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// The token in the bytes of a record.
pub(crate) fn token_in(record: &[u8]) -> String {
    let record: serde_json::Value = serde_json::from_slice(record).unwrap();
    record["access_token"].as_str().unwrap().to_owned()
}

/// The key of the renewal secret. Expects that a manager has read it.
pub(crate) fn renewal_secret_key(store: &FaultyStore) -> Key {
    let asked = store.keys.lock().unwrap().clone();
    asked.into_iter().find(|key| key.as_str().ends_with(":state")).expect("no renewal secret was read")
}
