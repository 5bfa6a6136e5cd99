//! Where managers share a token: bytes with a lifetime, changed one at a time.

mod bounded;
#[cfg(feature = "encryption")]
pub(crate) mod encrypted;
pub(crate) mod file;
pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

pub use self::watch::Subscription;
pub use crate::key::Key;
pub use crate::version::Version;

pub(crate) use self::bounded::BoundedStore;

use crate::clock::{Deadline, Notifier};
use crate::error::{Error, ErrorKind};

/// Keeps bytes under keys for a while, and changes them atomically.
///
/// Two operations are enough for a backend. [`read_or_lease`](Store::read_or_lease), [`publish`](Store::publish) and
/// [`wait`](Store::wait) are made of them and overridden where a backend does one in a single round trip;
/// [`read_at_once`](Store::read_at_once), [`watch`](Store::watch), [`logs_its_trouble`](Store::logs_its_trouble) and
/// [`is_encrypted`](Store::is_encrypted) are optional. Managers whose stores hold the same bytes act as one: they share the
/// token, and one of them fetches. Apart from `wait`, no operation may take longer than half a second or so: a manager
/// waits for a second, or two to store a refresh token, and treats a slower store as one that is down.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// What is under `key`. `None` when there is nothing or its lifetime is over.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] when the backend cannot be used, here and below.
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error>;

    /// Replaces what is under `key`, or removes it when `new` is `None`, if it is what was `expected`. Atomic.
    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error>;

    /// Reads a record other than version `not` with `at_least` left of its lifetime; when there is none, takes the lease of
    /// `key` for `lease`, so that its holder alone fetches. Asking again with the same `owner` gives the lease again,
    /// for the whole time.
    fn read_or_lease(
        &self,
        key: &Key,
        not: Option<&Version>,
        at_least: Duration,
        owner: &LeaseOwner,
        lease: Duration,
    ) -> Result<LeaseOutcome, Error> {
        let fits = |entry: &Entry| entry.serves(not, at_least);
        let entry = self.read(key)?;
        if let Some(entry) = entry.as_ref().filter(|entry| fits(entry)) {
            return Ok(LeaseOutcome::Found(entry.clone()));
        }
        let cursor = Cursor::new(entry.map(|entry| entry.version));
        let lock = key.lease();
        match self.compare_and_swap(&lock, Expected::Absent, Some((owner.as_bytes(), lease)))? {
            SwapOutcome::Done(version) => match self.read(key)?.filter(fits) {
                // It came between the two looks: to fetch now would be to fetch twice.
                Some(entry) => {
                    self.compare_and_swap(&lock, version.as_ref().map_or(Expected::Any, Expected::Version), None)?;
                    Ok(LeaseOutcome::Found(entry))
                }
                None => Ok(LeaseOutcome::Leased),
            },
            SwapOutcome::Conflict(Some(holder)) if holder.bytes() == owner.as_bytes() => {
                // Its owner counts on a whole lease from now.
                match self.compare_and_swap(
                    &lock,
                    Expected::Version(&holder.version),
                    Some((owner.as_bytes(), lease)),
                )? {
                    SwapOutcome::Done(_) => Ok(LeaseOutcome::Leased),
                    SwapOutcome::Conflict(_) => Ok(LeaseOutcome::Busy { remaining: Duration::ZERO, cursor }),
                }
            }
            SwapOutcome::Conflict(holder) => {
                let remaining = holder.map_or(Duration::ZERO, |holder| holder.remaining);
                Ok(LeaseOutcome::Busy { remaining, cursor })
            }
        }
    }

    /// Writes a record and frees the lease. `seen` is the version that the record was made from. Whoever holds
    /// the lease writes in any case; anyone else replaces what was written since only with something that lives longer.
    fn publish(
        &self,
        key: &Key,
        owner: &LeaseOwner,
        seen: Option<&Version>,
        bytes: &[u8],
        lifetime: Duration,
    ) -> Result<PublishOutcome, Error> {
        let lock = key.lease();
        let lease = self.read(&lock)?.filter(|holder| holder.bytes() == owner.as_bytes());
        let mut expected = seen.cloned();
        let mut outcome = Err(Error::new(ErrorKind::Store, "the record changes faster than it can be written"));
        for _ in 0..MOST_TRIES {
            let now = expected.as_ref().map_or(Expected::Absent, Expected::Version);
            outcome = match self.compare_and_swap(key, now, Some((bytes, lifetime))) {
                Ok(SwapOutcome::Conflict(Some(entry))) if lease.is_some() || lifetime > entry.remaining => {
                    expected = Some(entry.version);
                    continue;
                }
                Ok(SwapOutcome::Conflict(None)) => {
                    expected = None;
                    continue;
                }
                Ok(SwapOutcome::Conflict(Some(entry))) => Ok(PublishOutcome::Conflict(entry)),
                Ok(SwapOutcome::Done(version)) => Ok(PublishOutcome::Done(version)),
                // Whoever cannot write must not keep the others from trying.
                Err(error) => Err(error),
            };
            break;
        }
        if let Some(lease) = lease {
            // Compared, because it may have run out and be another's by now.
            self.compare_and_swap(&lock, Expected::Version(&lease.version), None)?;
        }
        outcome
    }

    /// Waits until there is something newer than `cursor`, or the lease is free, or `deadline` comes. May return
    /// sooner; the caller looks again.
    fn wait(&self, key: &Key, cursor: &Cursor, deadline: std::time::Instant) -> Result<(), Error> {
        let deadline = Deadline::at(deadline);
        let mut pause = FIRST_PAUSE;
        loop {
            thread::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0).min(deadline.remaining()));
            if deadline.has_passed() || has_moved(self, key, cursor)? {
                return Ok(());
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Reads what is under `key`, if that takes microseconds: no network, no lock that another holds, nobody to wait for.
    /// Else `None`, as when there is nothing: the caller then asks in another way.
    ///
    /// A manager that holds nothing yet asks so on the thread of its caller, before it starts a thread to read, and perhaps
    /// to fetch.
    fn read_at_once(&self, key: &Key) -> Option<Entry> {
        let _ = key;
        None
    }

    /// Calls `notifier` soon after a manager has changed what is under `key`, as long as the [`Subscription`] lives; also
    /// when changes may have been missed. `None`: this store cannot tell.
    ///
    /// Must not block, and neither does `notifier`.
    fn watch(&self, key: &Key, notifier: Notifier) -> Option<Subscription> {
        let _ = (key, notifier);
        None
    }

    /// True when the store itself logs that it cannot be used, and that it can again. Else every manager on it does.
    fn logs_its_trouble(&self) -> bool {
        false
    }

    /// True when what it keeps can be read by nobody who does not have its key. A manager with a
    /// [key of the user's own](crate::TokenManagerBuilder::key), which is for sharing with other programs, refuses it.
    fn is_encrypted(&self) -> bool {
        false
    }
}

/// True when the record is not what `cursor` saw, or nobody holds the lease.
fn has_moved(store: &(impl Store + ?Sized), key: &Key, cursor: &Cursor) -> Result<bool, Error> {
    Ok(store.read(key)?.map(|entry| entry.version) != cursor.version || store.read(&key.lease())?.is_none())
}

/// How often a write starts over because another one came first.
const MOST_TRIES: usize = 16;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

impl<S: Store + ?Sized> Store for Arc<S> {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        (**self).read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        (**self).compare_and_swap(key, expected, new)
    }

    fn read_or_lease(
        &self,
        key: &Key,
        not: Option<&Version>,
        at_least: Duration,
        owner: &LeaseOwner,
        lease: Duration,
    ) -> Result<LeaseOutcome, Error> {
        (**self).read_or_lease(key, not, at_least, owner, lease)
    }

    fn publish(
        &self,
        key: &Key,
        owner: &LeaseOwner,
        seen: Option<&Version>,
        bytes: &[u8],
        lifetime: Duration,
    ) -> Result<PublishOutcome, Error> {
        (**self).publish(key, owner, seen, bytes, lifetime)
    }

    fn wait(&self, key: &Key, cursor: &Cursor, deadline: std::time::Instant) -> Result<(), Error> {
        (**self).wait(key, cursor, deadline)
    }

    fn read_at_once(&self, key: &Key) -> Option<Entry> {
        (**self).read_at_once(key)
    }

    fn watch(&self, key: &Key, notifier: Notifier) -> Option<Subscription> {
        (**self).watch(key, notifier)
    }

    fn logs_its_trouble(&self) -> bool {
        (**self).logs_its_trouble()
    }

    fn is_encrypted(&self) -> bool {
        (**self).is_encrypted()
    }
}

/// What is under a key. Hides its bytes in `Debug` and wipes them when it goes.
#[derive(Clone)]
pub struct Entry {
    bytes: Zeroizing<Vec<u8>>,
    remaining: Duration,
    version: Version,
}

impl Entry {
    /// Bytes that live for `remaining`, by the store's own clock.
    pub fn new(bytes: Vec<u8>, remaining: Duration) -> Entry {
        let version = Version::of_bytes(&bytes);
        Entry::with_version(bytes, remaining, version)
    }

    /// As [`new`](Entry::new), with the version that the backend has for them.
    pub fn with_version(bytes: Vec<u8>, remaining: Duration, version: Version) -> Entry {
        Entry { bytes: Zeroizing::new(bytes), remaining, version }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What is left of their lifetime.
    pub fn remaining(&self) -> Duration {
        self.remaining
    }

    /// Their version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// True for whoever asks for [another version than `not` with `at_least` left](Store::read_or_lease).
    fn serves(&self, not: Option<&Version>, at_least: Duration) -> bool {
        Some(&self.version) != not && self.remaining >= at_least
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({} bytes, remaining={:?})", self.bytes.len(), self.remaining)
    }
}

/// What has to be under a key for a [swap](Store::compare_and_swap) to happen.
#[derive(Clone, Copy, Debug)]
pub enum Expected<'a> {
    /// Nothing.
    Absent,
    /// This version.
    Version(&'a Version),
    /// Anything or nothing.
    Any,
}

impl Expected<'_> {
    /// True when this is what was expected. For backends.
    pub fn matches(&self, current: Option<&Entry>) -> bool {
        match (self, current) {
            (Expected::Any, _) | (Expected::Absent, None) => true,
            (Expected::Version(version), Some(entry)) => entry.version() == *version,
            (Expected::Absent, Some(_)) | (Expected::Version(_), None) => false,
        }
    }
}

/// What became of a [swap](Store::compare_and_swap).
#[derive(Clone, Debug)]
pub enum SwapOutcome {
    /// Done. The version is the new one's; `None` after a removal.
    Done(Option<Version>),
    /// Something else was there: this.
    Conflict(Option<Entry>),
}

/// What [`Store::read_or_lease`] found.
#[derive(Clone, Debug)]
pub enum LeaseOutcome {
    /// A record that fits.
    Found(Entry),
    /// None; the lease is the caller's.
    Leased,
    /// None, and another holds the lease.
    Busy {
        /// How long the other may still hold it.
        remaining: Duration,
        /// From where to [wait](Store::wait).
        cursor: Cursor,
    },
}

/// What became of a [publication](Store::publish).
#[derive(Clone, Debug)]
pub enum PublishOutcome {
    /// It is written. The version is its own.
    Done(Option<Version>),
    /// Another wrote something that lives longer: this.
    Conflict(Entry),
}

/// A place in a key's history: what was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    version: Option<Version>,
    position: Option<String>,
}

impl Cursor {
    /// After this version was seen; `None`: nothing was there.
    pub fn new(version: Option<Version>) -> Cursor {
        Cursor { version, position: None }
    }

    /// With the name that the backend has for the place.
    #[must_use]
    pub fn with_position(self, position: impl Into<String>) -> Cursor {
        Cursor { position: Some(position.into()), ..self }
    }

    /// What was seen.
    pub fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// The backend's name for the place, if it has one.
    pub fn position(&self) -> Option<&str> {
        self.position.as_deref()
    }
}

/// Who holds a lease: a random name, one for each manager and process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOwner(String);

impl LeaseOwner {
    /// An owner of this name. Managers name themselves; this is for tests of stores.
    pub fn new(name: impl Into<String>) -> LeaseOwner {
        LeaseOwner(name.into())
    }

    /// The name, as it is recorded.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
