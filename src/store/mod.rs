//! The [`Store`] trait: shared records with a lifetime, changed by compare-and-swap.
//!
//! The ready-made stores are [`MemoryStore`](crate::MemoryStore), [`FileStore`](crate::FileStore), `RedisStore` (feature
//! `redis`) and `EncryptedStore` (feature `encryption`). This page is for writing one.
//!
//! # Theory of operation
//!
//! A store maps a [`Key`] to an [`Entry`]: bytes, the rest of their lifetime, and a [`Version`]. The bytes mean nothing
//! to a store. A credential has one *record* (its token and what is known about it) under its key, and *sidecars*
//! under keys derived from that one: the lease (`<key>:lock`), the renewal secret (`<key>:state`) and the quota count
//! (`<key>:quota`). An idempotent operation has one entry, under a key that ends in `:once`.
//!
//! A *lease* is an entry whose bytes name its holder. Only the holder fetches, so that processes that share a store
//! fetch once. A refresh uses a store in these steps:
//!
//! 1. [`Store::read_or_lease`] returns a usable record (*found*: the refresh ends here), or gives the lease to the
//!    caller (*leased*: go to 3), or says that another process holds the lease (*busy*: go to 2).
//! 2. [`Store::wait`] blocks until the record changes, the lease is free or the deadline passes. Then step 1 again.
//! 3. The holder fetches from the provider.
//! 4. [`Store::publish`] writes the new record and releases the lease. If the fetch failed, the manager adds the
//!    failure to the record and releases the lease with [`Store::compare_and_swap`].
//!
//! Failures, and what follows from them:
//!
//! - *The holder dies.* The lease ends with its lifetime, and a process that waits gets the next one.
//! - *The holder is suspended for longer than its lease.* Another process has fetched meanwhile. `publish` then finds
//!   another version than the one the suspended holder started from, and keeps the entry that expires later.
//! - *A reply is lost after the store has acted.* `read_or_lease` gives the same owner its lease again. A repeated
//!   `compare_and_swap` reports a conflict, and the current entry holds the caller's own bytes.
//! - *The store fails.* Managers go on without it, see [`ErrorKind::Store`]. A store needs no retries of its
//!   own.

#[cfg(feature = "encryption")]
pub(crate) mod encrypted;
pub(crate) mod file;
mod io_reason;
pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod subscriptions;
mod timeout;

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

pub use self::subscriptions::Subscription;
pub use crate::key::Key;
pub use crate::version::Version;

pub(crate) use self::timeout::TimeoutStore;

use crate::clock::{Deadline, Notifier};
use crate::error::{Error, ErrorKind};

/// Keeps bytes under keys, each for a limited time, and changes them by compare-and-swap.
///
/// Managers whose stores hold the same bytes share their tokens, and one of them fetches for all.
///
/// # Writing a store
///
/// Implement [`read`](Store::read) and [`compare_and_swap`](Store::compare_and_swap). The other methods have defaults:
///
/// - [`read_or_lease`](Store::read_or_lease), [`publish`](Store::publish) and [`wait`](Store::wait) are built from the
///   two required methods. Override them when the backend can do one of them in a single round trip.
/// - [`read_at_once`](Store::read_at_once), [`watch`](Store::watch), [`logs_outages`](Store::logs_outages) and
///   [`is_encrypted`](Store::is_encrypted) describe optional abilities. The defaults say that the store has none of
///   them.
/// - [`check`](Store::check) finds wrong settings when a program starts. The default reads one key.
///
/// The store promises managers:
///
/// - **Atomic changes.** Of several calls of `compare_and_swap` that expect the same version of one key, exactly one
///   succeeds, in all threads, processes and hosts that use the backend. Nothing need be atomic across two keys.
/// - **Visible changes.** After `compare_and_swap` returns, every `read` sees its result. A store that returns older
///   bytes, for example from a replica, costs duplicate fetches.
/// - **Versions.** While the bytes under a key stay the same, so does their [`Version`]; other bytes have another one.
///   [`Entry::new`] uses a hash of the bytes, which is enough.
/// - **Lifetimes.** An entry is absent once its lifetime has passed. The store measures lifetimes by its own clock,
///   from the moment of the write. [`Entry::remaining`] must not be longer than what is left, because a manager
///   believes it.
/// - **Opaque bytes.** An entry may hold any bytes, up to 128 KiB. Entries contain tokens: keep them private.
///
/// # Time limits
///
/// Managers call the methods on helper threads, several at once, and wait at most one second for each (two seconds when
/// a refresh token is written, three for an idempotent operation). A store that takes longer counts as failed, and a
/// late result is dropped. While such a call has not returned, the manager makes no other. So each method should return
/// within half a second, with an error if need be. Exceptions: `wait` may block until its deadline; `read_at_once`,
/// `watch`, `logs_outages` and `is_encrypted` are called without a helper thread and must not block at all.
///
/// A panic in a method counts as a failure of the store.
///
/// # Errors
///
/// Managers treat every error of a store as [`ErrorKind::Store`], and show its text in the log and in
/// [`Status`](crate::Status). An error may be returned although the change was made: callers compare versions to find
/// out.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Returns the entry under `key`, or `None` when there is none or its lifetime has passed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`] when the backend fails. This holds for the other methods as well.
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error>;

    /// Writes `new` (bytes and their lifetime) under `key`, or removes the entry when `new` is `None`, provided that
    /// the current entry is what the caller `expected`.
    ///
    /// The comparison and the change are one atomic step. Returns [`SwapOutcome::Conflict`] with the current entry, and
    /// changes nothing, when the entry is not the expected one. [`Expected::matches`] does the comparison. An entry
    /// whose lifetime has passed counts as absent.
    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error>;

    /// Returns a usable record, or else takes the lease of `key`, or else says that another owner holds it.
    ///
    /// A record is usable when its version differs from `other_than` (the one that the caller already has and wants
    /// replaced) and at least `min_remaining` of its lifetime is left. When there is none and the lease is free,
    /// `owner` gets it for the time `lease`. An owner that asks again while it holds the lease gets it again, for the
    /// full time.
    ///
    /// The promise that matters: two owners never hold the lease of a key at once. The default takes the lease first
    /// and reads again, so that a record written in between is found and not fetched again.
    fn read_or_lease(
        &self,
        key: &Key,
        other_than: Option<&Version>,
        min_remaining: Duration,
        owner: &LeaseOwner,
        lease: Duration,
    ) -> Result<LeaseOutcome, Error> {
        let qualifies = |entry: &Entry| entry.qualifies(other_than, min_remaining);
        let entry = self.read(key)?;
        if let Some(entry) = entry.as_ref().filter(|entry| qualifies(entry)) {
            return Ok(LeaseOutcome::Found(entry.clone()));
        }
        let cursor = Cursor::new(entry.map(|entry| entry.version));
        let lease_key = key.lease();
        match self.compare_and_swap(&lease_key, Expected::Absent, Some((owner.as_bytes(), lease)))? {
            SwapOutcome::Done(version) => match self.read(key)?.filter(qualifies) {
                // Another process published between the two reads and released its lease. Give the lease back, or
                // this caller would fetch a second time. If that fails, the lease ends with its lifetime.
                Some(entry) => {
                    let mine = version.as_ref().map_or(Expected::Any, Expected::Version);
                    let _ = self.compare_and_swap(&lease_key, mine, None);
                    Ok(LeaseOutcome::Found(entry))
                }
                None => Ok(LeaseOutcome::Leased),
            },
            SwapOutcome::Conflict(Some(holder)) if holder.bytes() == owner.as_bytes() => {
                // The same owner asks again, perhaps because it never saw the first reply. Extend the lease: the
                // owner assumes the full time from now on.
                match self.compare_and_swap(
                    &lease_key,
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

    /// Writes a record and releases the lease if `owner` holds it.
    ///
    /// `supersedes` is the version from which the caller made the new record, `None` if there was none. The
    /// holder of the lease overwrites the record even if its version has changed. A caller without the lease (it
    /// expired while the caller was suspended, or was never needed) overwrites only a record with less remaining time
    /// than `lifetime`; otherwise the result is [`PublishOutcome::Conflict`] with the current record.
    ///
    /// The lease is released even when the write fails, so that another process can try. The result says what became
    /// of the write alone: a lease that cannot be released ends with its lifetime.
    fn publish(
        &self,
        key: &Key,
        owner: &LeaseOwner,
        supersedes: Option<&Version>,
        bytes: &[u8],
        lifetime: Duration,
    ) -> Result<PublishOutcome, Error> {
        let lease_key = key.lease();
        let lease = self.read(&lease_key)?.filter(|holder| holder.bytes() == owner.as_bytes());
        let mut expected = supersedes.cloned();
        let mut outcome = Err(Error::new(ErrorKind::Store, TOO_MANY_CHANGES));
        for _ in 0..MAX_ATTEMPTS {
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
                // Release the lease all the same, because another process may be able to write.
                Err(error) => Err(error),
            };
            break;
        }
        if let Some(lease) = lease {
            // Compare: the lease may have expired meanwhile and belong to another owner. A failure does not change what
            // became of the write: the lease ends with its lifetime.
            let _ = self.compare_and_swap(&lease_key, Expected::Version(&lease.version), None);
        }
        outcome
    }

    /// Blocks until the record under `key` is not the one that `cursor` saw, or the lease is free, or `deadline`
    /// passes.
    ///
    /// May return sooner for any reason, because the caller reads again. Must not keep other calls from working. The
    /// default reads the record and the lease every 20 to 250 ms.
    fn wait(&self, key: &Key, cursor: &Cursor, deadline: std::time::Instant) -> Result<(), Error> {
        let deadline = Deadline::at(deadline);
        let mut backoff = INITIAL_BACKOFF;
        loop {
            thread::sleep(backoff.mul_f64(0.75 + fastrand::f64() / 2.0).min(deadline.remaining()));
            if deadline.has_passed() || has_changed(self, key, cursor)? {
                return Ok(());
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// Returns the entry under `key` if reading takes microseconds: no network and no lock that another process may
    /// hold.
    ///
    /// `None` means that there is no entry, or that this store cannot read so fast (the default). A manager without a
    /// token calls this on its caller's thread, and starts a thread for [`read_or_lease`](Store::read_or_lease) only
    /// after `None`. So a short program that finds a token in a file needs no second thread.
    fn read_at_once(&self, key: &Key) -> Option<Entry> {
        let _ = key;
        None
    }

    /// Calls `notifier` soon after the entry under `key` has changed, until the returned [`Subscription`] is dropped.
    ///
    /// `None` means that this store does not report changes (the default); managers then read it every
    /// [`store_check_interval`](crate::TokenManagerBuilder::store_check_interval). A store should also call `notifier`
    /// when it may have missed a change, for example after a lost connection. This method must not block. `notifier`
    /// does not block either, and may be called on any thread.
    fn watch(&self, key: &Key, notifier: Notifier) -> Option<Subscription> {
        let _ = (key, notifier);
        None
    }

    /// Returns true if the store itself logs when it fails and when it works again.
    ///
    /// The managers on such a store do not log its outages, so that one outage gives one warning for all of them.
    /// Default: false.
    fn logs_outages(&self) -> bool {
        false
    }

    /// Returns true if the store encrypts records, so that only programs with its encryption key can read them.
    ///
    /// A manager with a [key chosen by the user](crate::TokenManagerBuilder::key) refuses such a store, because that
    /// setting is for sharing a token with programs that read the record without this crate. Default: false.
    fn is_encrypted(&self) -> bool {
        false
    }

    /// Checks whether the store can be used: for the start of a program, where a wrong setting should be an error and
    /// not only a line in the log.
    ///
    /// [`TokenManager::check`](crate::TokenManager::check) and
    /// [`Idempotency::check`](crate::idempotency::Idempotency::check) call this method on a helper thread and wait three
    /// seconds at most. A check changes no record that a manager uses. The default reads one key. Override it to check
    /// more, such as the right to write.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when only a changed setting can help, [`ErrorKind::Store`] otherwise.
    fn check(&self) -> Result<(), Error> {
        self.read(&Key::probe()).map(drop)
    }
}

/// True if the record is not the one that `cursor` saw, or the lease is free.
fn has_changed(store: &(impl Store + ?Sized), key: &Key, cursor: &Cursor) -> Result<bool, Error> {
    Ok(store.read(key)?.map(|entry| entry.version) != cursor.version || store.read(&key.lease())?.is_none())
}

/// How often `publish` compares anew after another write came first.
const MAX_ATTEMPTS: usize = 16;

/// The text of the error after [`MAX_ATTEMPTS`] comparisons that all came too late.
const TOO_MANY_CHANGES: &str = "other processes kept changing the record while it was written; try again";

/// Between two reads of the default `wait`: doubles from the first to the second, with 25 % jitter.
const INITIAL_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_millis(250);

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
        other_than: Option<&Version>,
        min_remaining: Duration,
        owner: &LeaseOwner,
        lease: Duration,
    ) -> Result<LeaseOutcome, Error> {
        (**self).read_or_lease(key, other_than, min_remaining, owner, lease)
    }

    fn publish(
        &self,
        key: &Key,
        owner: &LeaseOwner,
        supersedes: Option<&Version>,
        bytes: &[u8],
        lifetime: Duration,
    ) -> Result<PublishOutcome, Error> {
        (**self).publish(key, owner, supersedes, bytes, lifetime)
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

    fn logs_outages(&self) -> bool {
        (**self).logs_outages()
    }

    fn is_encrypted(&self) -> bool {
        (**self).is_encrypted()
    }

    fn check(&self) -> Result<(), Error> {
        (**self).check()
    }
}

/// The bytes under a key, with the rest of their lifetime and their version.
///
/// `Debug` does not show the bytes, and `Drop` wipes them.
#[derive(Clone)]
pub struct Entry {
    bytes: Zeroizing<Vec<u8>>,
    remaining: Duration,
    version: Version,
}

impl Entry {
    /// Returns an entry with `remaining` of its lifetime left, by the store's own clock, and a hash as its version.
    pub fn new(bytes: Vec<u8>, remaining: Duration) -> Entry {
        let version = Version::of_bytes(&bytes);
        Entry::with_version(bytes, remaining, version)
    }

    /// Returns an entry as [`new`](Entry::new) does, with a version from the backend.
    pub fn with_version(bytes: Vec<u8>, remaining: Duration, version: Version) -> Entry {
        Entry { bytes: Zeroizing::new(bytes), remaining, version }
    }

    /// Returns the stored bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns what is left of the lifetime at the time of the read.
    pub fn remaining(&self) -> Duration {
        self.remaining
    }

    /// Returns the version of the bytes.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// True if this record is usable in the sense of [`Store::read_or_lease`].
    fn qualifies(&self, other_than: Option<&Version>, min_remaining: Duration) -> bool {
        Some(&self.version) != other_than && self.remaining >= min_remaining
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({} bytes, remaining={:?})", self.bytes.len(), self.remaining)
    }
}

/// The requirement of [`Store::compare_and_swap`] on the current entry.
#[derive(Clone, Copy, Debug)]
pub enum Expected<'a> {
    /// There is no entry.
    Absent,
    /// The entry has this version.
    Version(&'a Version),
    /// No requirement: the change happens in any case.
    Any,
}

impl Expected<'_> {
    /// Returns true if `current`, the entry under the key, meets this requirement. For implementations of [`Store`].
    pub fn matches(&self, current: Option<&Entry>) -> bool {
        match (self, current) {
            (Expected::Any, _) | (Expected::Absent, None) => true,
            (Expected::Version(version), Some(entry)) => entry.version() == *version,
            (Expected::Absent, Some(_)) | (Expected::Version(_), None) => false,
        }
    }
}

/// The result of [`Store::compare_and_swap`].
#[derive(Clone, Debug)]
pub enum SwapOutcome {
    /// The change was made. Contains the version of the new entry, or `None` after a removal.
    Done(Option<Version>),
    /// Nothing was changed. Contains the current entry, `None` if there is none.
    Conflict(Option<Entry>),
}

/// The result of [`Store::read_or_lease`].
#[derive(Clone, Debug)]
pub enum LeaseOutcome {
    /// A usable record. The caller does not hold the lease.
    Found(Entry),
    /// There is no usable record, and the caller now holds the lease.
    Leased,
    /// There is no usable record, and another owner holds the lease.
    Busy {
        /// The time after which the lease expires if its holder does not release it. Zero if it may be free already.
        remaining: Duration,
        /// The record that this call saw, for [`Store::wait`].
        cursor: Cursor,
    },
}

/// The result of [`Store::publish`].
#[derive(Clone, Debug)]
pub enum PublishOutcome {
    /// The record was written. Contains its version, if the backend tells.
    Done(Option<Version>),
    /// Nothing was written, because the current record, contained here, expires later.
    Conflict(Entry),
}

/// The record that a caller last saw under a key: the point from which [`Store::wait`] looks for a change.
///
/// A cursor holds the version of the record. A backend with a log of changes adds its own position in that log, so that
/// `wait` misses no change that happens between the two calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    version: Option<Version>,
    position: Option<String>,
}

impl Cursor {
    /// Returns a cursor for a caller that has seen this version, or no record (`None`).
    pub fn new(version: Option<Version>) -> Cursor {
        Cursor { version, position: None }
    }

    /// Returns this cursor with the backend's own position, such as the id of an entry of a Redis stream.
    #[must_use]
    pub fn with_position(self, position: impl Into<String>) -> Cursor {
        Cursor { position: Some(position.into()), ..self }
    }

    /// Returns the version that the caller has seen, `None` if there was no record.
    pub fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// Returns the backend's own position, if it set one.
    pub fn position(&self) -> Option<&str> {
        self.position.as_deref()
    }
}

/// The name of a lease's holder: random, different for each manager and process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOwner(String);

impl LeaseOwner {
    /// Returns an owner with this name. Managers choose names of their own; this is for tests of stores.
    pub fn new(name: impl Into<String>) -> LeaseOwner {
        LeaseOwner(name.into())
    }

    /// Returns the name as it is stored in the lease.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
