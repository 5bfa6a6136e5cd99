//! A store on one machine: files that its processes share.

mod directory;
mod held_leases;
mod layout;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etcetera::BaseStrategy;
use etcetera::base_strategy::choose_native_strategy;

use self::directory::{Directory, FileLock, FileName, MAX_LOCK_WAIT};
use self::held_leases::HeldLeases;
use self::layout::{EncodedRecord, Record, Unreadable};
use crate::clock::{Clock, Deadline, HostTimestamp, Time};
use crate::error::Error;
use crate::key::Key;
use crate::store::{Cursor, Entry, Expected, LeaseOutcome, LeaseOwner, PublishOutcome, Store, SwapOutcome, Version};

/// Keeps records in files, for all processes of one user on one machine. Clones are the same store.
///
/// Made for programs that start often and live briefly: the first one fetches, the others read its token in the time that
/// a small file takes. Processes that start at once fetch once, and those that wait get the token within 50 ms.
///
/// ```no_run
/// use evertoken::{FileStore, TokenManager, WeCom};
///
/// let tokens = TokenManager::builder(WeCom::new("corp-id", "app-secret")).store(FileStore::new()?).build()?;
/// # Ok::<(), evertoken::Error>(())
/// ```
///
/// # What stands there
///
/// One file for each key, named by a hash of it, and what belongs to a credential besides: who fetches (`.owner`, `.lease`),
/// a refresh token or ticket (`.state`), a quota (`.quota`). What is [done once](crate::idempotency::Idempotency) ends in `.once`; its time
/// of change is the end of its lifetime, after which it is cleared away. Files that end in `.lock`, of which there are 256 at
/// most, or `.lease` are locks: they are empty, and neither deleted nor renamed.
///
/// A file is replaced as a whole, and is on the disk before the call returns, so a program that is killed and a machine that
/// loses its power leave what was there before or what came after. What cannot be read, or was written by a later version,
/// counts as nothing: it is reported once by each store and replaced. Only a `.state` is not: it comes without its bytes, so
/// that a manager knows that there is one, and does not use a refresh token again that may be used up.
///
/// # Who fetches
///
/// A process that fetches has the lock on the file that ends in `.lease`. The system frees it when the process ends, however
/// it ends; one that is stopped keeps the others waiting no longer than a fetch can take and two seconds. One that is stopped
/// just while it changes a file keeps the others from changing it: they fetch for themselves until it goes on, but for those
/// with a refresh token, who get an error.
///
/// # Lives
///
/// Go by the wall clock, and on Linux also by the clock that counts from the start of the machine and goes on while it
/// sleeps. The sooner end counts for a token: a wall clock that is set back makes none younger. What must not be lost
/// (`.state`, `.quota`, a lease, what is [done once](crate::idempotency::Idempotency)) goes by the clock of the machine alone.
///
/// Elsewhere, and after a restart, there is only the wall clock. A token that seems to come from the future is absent then;
/// the rest counts as well, by no more than its own lifetime, a `.state` always.
///
/// # Other users
///
/// The directory is made for its owner alone (0700), and so are the files (0600). A directory that others can write to, a
/// file that others can read or write, one that belongs to somebody else, and a symbolic link are refused with an
/// [error](crate::ErrorKind::Store) that says what to do. Outside Unix this is not checked, and access is what the directory
/// passes on: a directory of the user's own is private there. The tokens are not encrypted: put a `EncryptedStore` (feature
/// `encryption`) around the store where that is wanted.
///
/// # File systems
///
/// A manager that holds nothing yet reads the file on the thread of its caller; where a file system may hang, see
/// [`on_network_file_system`](FileStore::on_network_file_system). On one that has no locks the store works and says so once in the log; then two
/// processes may fetch at once, and so they may where locks do not reach from host to host, as on some network file systems.
///
/// Nothing is told to those who [watch](crate::TokenManagerBuilder::watch): managers look at the file every
/// [`store_check_interval`](crate::TokenManagerBuilder::store_check_interval).
#[derive(Clone)]
pub struct FileStore {
    inner: Arc<Inner>,
    on_network_file_system: bool,
}

struct Inner {
    directory: Directory,
    time: Time,
    held_leases: HeldLeases,
    /// Whether an unreadable file has been reported.
    reported: AtomicBool,
}

impl FileStore {
    /// A store in the user's cache directory, by the platform's convention: `$XDG_CACHE_HOME/evertoken` or
    /// `~/.cache/evertoken`, `~/Library/Caches/evertoken`, `%LOCALAPPDATA%\evertoken`. Nothing is made there before
    /// something is to be kept.
    ///
    /// What is in a cache may be removed. A refresh token that a person has signed in for, and what is
    /// [done once](crate::idempotency::Idempotency), are better kept elsewhere, with [`at`](FileStore::at).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the user has no home directory.
    pub fn new() -> Result<FileStore, Error> {
        let strategy = choose_native_strategy()
            .map_err(|_| Error::config("there is no home directory; name a directory with FileStore::at"))?;
        Ok(FileStore::at(strategy.cache_dir().join("evertoken")))
    }

    /// A store in this directory, which is made when something is to be kept. A path that is not absolute counts from where
    /// the process is now.
    pub fn at(directory: impl AsRef<Path>) -> FileStore {
        FileStore::with_time(directory.as_ref(), Time::System)
    }

    /// As [`at`](FileStore::at), with lives that go by `clock`; its monotonic one stands for that of the machine.
    pub fn with_clock(directory: impl AsRef<Path>, clock: impl Clock) -> FileStore {
        FileStore::with_time(directory.as_ref(), Time::Custom(Arc::new(clock)))
    }

    fn with_time(directory: &Path, time: Time) -> FileStore {
        let reported = AtomicBool::new(false);
        let inner = Inner { directory: Directory::new(directory), time, held_leases: HeldLeases::default(), reported };
        FileStore { inner: Arc::new(inner), on_network_file_system: false }
    }

    /// Says whether the directory is on a file system that may hang, as one on the network does when its server is gone. Then
    /// nothing is read on the thread of a caller, whose call could hang with it; to read a held token takes a thread or two
    /// more. Default: false.
    #[must_use]
    pub fn on_network_file_system(self, on_network_file_system: bool) -> FileStore {
        FileStore { on_network_file_system, ..self }
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        self.inner.directory.path()
    }
}

impl Store for FileStore {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        match FileName::leased_by(key) {
            Some(name) => self.inner.live_lease(&self.inner.directory.lock(&name)?, &name, key),
            None => self.inner.record(&FileName::of(key), key),
        }
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        match FileName::leased_by(key) {
            Some(name) => self.inner.swap_lease(&name, key, expected, new),
            None => self.inner.swap_record(&FileName::of(key), key, expected, new),
        }
    }

    fn read_or_lease(
        &self,
        key: &Key,
        other_than: Option<&Version>,
        min_remaining: Duration,
        owner: &LeaseOwner,
        lease: Duration,
    ) -> Result<LeaseOutcome, Error> {
        let name = FileName::of(key);
        let qualifies = |entry: &Entry| entry.qualifies(other_than, min_remaining);
        let busy = |holder: Entry, entry: Option<Entry>| LeaseOutcome::Busy {
            remaining: holder.remaining,
            cursor: Cursor::new(entry.map(|entry| entry.version)),
        };
        let is_another = |holder: &Entry| holder.bytes() != owner.as_bytes();
        // Without the lock: whoever replaces it replaces it as a whole.
        if let Some(entry) = self.inner.record(&name, key)?.filter(qualifies) {
            return Ok(LeaseOutcome::Found(entry));
        }
        let lease_key = key.lease();
        let lock = self.inner.directory.lock_within(&name, MAX_LOCK_WAIT)?;
        // It may have come before the lock was had: to fetch now would be to fetch twice.
        let entry = self.inner.record(&name, key)?;
        if let Some(entry) = entry.as_ref().filter(|entry| qualifies(entry)) {
            return Ok(LeaseOutcome::Found(entry.clone()));
        }
        let Some(lock) = lock else {
            // Perhaps the holder writes what it has fetched, on a disk that takes its time.
            let holder = self.inner.read_lease(&name, &lease_key)?.and_then(|lease| lease.entry).filter(is_another);
            return holder
                .map(|holder| busy(holder, entry))
                .ok_or_else(|| self.inner.directory.lock_timeout_error(&name));
        };
        if let Some(holder) = self.inner.live_lease(&lock, &name, &lease_key)?.filter(is_another) {
            return Ok(busy(holder, entry));
        }
        self.inner.take_lease(&lock, &name, &lease_key, owner.as_bytes(), lease)?;
        Ok(LeaseOutcome::Leased)
    }

    fn publish(
        &self,
        key: &Key,
        owner: &LeaseOwner,
        supersedes: Option<&Version>,
        bytes: &[u8],
        lifetime: Duration,
    ) -> Result<PublishOutcome, Error> {
        let name = FileName::of(key);
        let published = self.publish_locked(&name, key, owner, supersedes, (bytes, lifetime));
        if published.is_err() {
            // Whoever cannot write must not keep the others from trying.
            let file = self.inner.held_leases.remove_version(&name, &Version::of_bytes(owner.as_bytes()));
            drop(file.map(FileLock::from_locked));
        }
        if let Ok(PublishOutcome::Done(_)) = published {
            self.inner.directory.sync()?;
        }
        published
    }

    fn read_at_once(&self, key: &Key) -> Option<Entry> {
        if self.on_network_file_system { None } else { self.inner.record(&FileName::of(key), key).ok()? }
    }

    fn wait(&self, key: &Key, cursor: &Cursor, deadline: Instant) -> Result<(), Error> {
        let (name, deadline) = (FileName::of(key), Deadline::at(deadline));
        let mut seen = None;
        let mut backoff = INITIAL_BACKOFF;
        for round in 0_u32.. {
            let file = self.inner.directory.file_id(&name);
            if seen.as_ref() != Some(&file) {
                let version = self.inner.record(&name, key)?.map(|entry| entry.version);
                if version.as_ref() != cursor.version() {
                    return Ok(());
                }
                seen = Some(file);
            }
            // That it was freed shows in the folder. That its holder has died, or its lifetime is over, is looked for less often.
            let is_freed = self.inner.directory.file_id(&name.owner()).is_none();
            if is_freed
                || round % POLLS_PER_LEASE_CHECK == POLLS_PER_LEASE_CHECK - 1 && self.is_lease_free(&name, key)?
            {
                return Ok(());
            }
            if deadline.has_passed() {
                break;
            }
            thread::sleep(backoff.mul_f64(0.75 + fastrand::f64() / 2.0).min(deadline.remaining()));
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
        Ok(())
    }
}

impl FileStore {
    /// True when nobody has the lease any more. Whoever is changing something just now may be its holder.
    fn is_lease_free(&self, name: &FileName, key: &Key) -> Result<bool, Error> {
        let lock = self.inner.directory.lock_within(name, Duration::ZERO)?;
        lock.map_or(Ok(false), |lock| Ok(self.inner.live_lease(&lock, name, &key.lease())?.is_none()))
    }

    fn publish_locked(
        &self,
        name: &FileName,
        key: &Key,
        owner: &LeaseOwner,
        supersedes: Option<&Version>,
        (bytes, lifetime): (&[u8], Duration),
    ) -> Result<PublishOutcome, Error> {
        let (requested_at, directory) = (self.inner.time.host_now(), &self.inner.directory);
        let lock = directory.lock(name)?;
        let lifetime = self.inner.remaining_of(lifetime, requested_at);
        let holder = self.inner.live_lease(&lock, name, &key.lease())?;
        let is_mine = holder.is_some_and(|holder| holder.bytes() == owner.as_bytes());
        let later = self.inner.record(name, key)?;
        let later = later.filter(|entry| Some(&entry.version) != supersedes && entry.remaining >= lifetime);
        if let Some(entry) = later.filter(|_| !is_mine) {
            return Ok(PublishOutcome::Conflict(entry));
        }
        let written = self.inner.write(&lock, name, key, bytes, lifetime);
        if is_mine {
            self.inner.free_lease(&lock, name)?;
        }
        written.map(|version| PublishOutcome::Done(Some(version)))
    }
}

impl Inner {
    /// What is recorded under `key`. Needs no lock.
    fn record(&self, name: &FileName, key: &Key) -> Result<Option<Entry>, Error> {
        let Some(bytes) = self.directory.read(name)? else { return Ok(None) };
        match Record::decode(&bytes, key, &self.time) {
            Ok(record) => Ok(record.entry),
            Err(Unreadable(why)) => {
                if !self.reported.swap(true, Ordering::Relaxed) {
                    let path = self.directory.path().join(name.as_str());
                    log::warn!(target: "evertoken", "{path:?} cannot be read: {why}; told once");
                }
                // What the provider is asked with is not to be guessed: whoever asks for it is to see that there is one.
                let unreadable = || Entry::with_version(Vec::new(), Duration::ZERO, Version::of_bytes(&bytes));
                Ok(key.is_renewal_secret().then(unreadable))
            }
        }
    }

    fn swap_record(
        &self,
        name: &FileName,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        let requested_at = self.time.host_now();
        let lock = self.directory.lock_within(name, max_lock_wait(key))?;
        let lock = lock.ok_or_else(|| self.directory.lock_timeout_error(name))?;
        let current = self.record(name, key)?;
        if !expected.matches(current.as_ref()) {
            return Ok(SwapOutcome::Conflict(current));
        }
        let Some((bytes, lifetime)) = new else {
            return self.directory.remove(&lock, name).map(|()| SwapOutcome::Done(None));
        };
        let version = self.write(&lock, name, key, bytes, self.remaining_of(lifetime, requested_at))?;
        drop(lock);
        self.directory.sync()?;
        Ok(SwapOutcome::Done(Some(version)))
    }

    /// `name`: that of the record.
    fn swap_lease(
        &self,
        name: &FileName,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        let lock = self.directory.lock(name)?;
        let current = self.live_lease(&lock, name, key)?;
        if !expected.matches(current.as_ref()) {
            return Ok(SwapOutcome::Conflict(current));
        }
        Ok(SwapOutcome::Done(match new {
            Some((owner, lifetime)) => Some(self.take_lease(&lock, name, key, owner, lifetime)?),
            None => self.free_lease(&lock, name).map(|()| None)?,
        }))
    }

    /// What is left of a lifetime that began when it was asked for: whoever was stopped while it waited for a lock must not give
    /// more.
    fn remaining_of(&self, lifetime: Duration, requested_at: HostTimestamp) -> Duration {
        lifetime.saturating_sub(self.time.host_now().since(requested_at))
    }

    fn write(
        &self,
        lock: &FileLock,
        name: &FileName,
        key: &Key,
        bytes: &[u8],
        lifetime: Duration,
    ) -> Result<Version, Error> {
        let text = EncodedRecord::new(key, bytes, lifetime, None, &self.time)?;
        self.directory.write(lock, name, &text, &self.time)?;
        Ok(text.version)
    }

    /// Who said that it fetches, and for how long at most. Needs no lock, and nobody knows whether it still lives.
    fn read_lease(&self, name: &FileName, key: &Key) -> Result<Option<Record>, Error> {
        let bytes = self.directory.read(&name.owner())?;
        // It is not made to outlast a loss of power, so what cannot be read is nothing to report.
        Ok(bytes.and_then(|bytes| Record::decode(&bytes, key, &self.time).ok()))
    }

    /// Who fetches, and for how long at most. `name`: that of the record.
    fn live_lease(&self, lock: &FileLock, name: &FileName, key: &Key) -> Result<Option<Entry>, Error> {
        let Some(record) = self.read_lease(name, key)? else { return Ok(None) };
        let Some(entry) = record.entry else { return Ok(None) };
        self.held_leases.drop_other_version(name, entry.version());
        let is_live = record.held.is_none_or(|file| self.directory.is_lease_locked(lock, name, file));
        Ok(Some(entry).filter(|_| is_live))
    }

    fn take_lease(
        &self,
        lock: &FileLock,
        name: &FileName,
        key: &Key,
        owner: &[u8],
        lifetime: Duration,
    ) -> Result<Version, Error> {
        // Where one that is stopped still has the file, the lease counts for its lifetime alone.
        let file = self.held_leases.remove(name).filter(|file| self.directory.is_current(file, &name.lease()));
        let file = match file {
            None => self.directory.try_lock_lease(lock, name)?,
            file => file,
        };
        let held = file.as_ref().and_then(directory::inode);
        let text = EncodedRecord::new(key, owner, lifetime, held, &self.time)?;
        self.directory.write_owner(lock, name, &text)?;
        if let Some(file) = file {
            self.held_leases.insert(name, text.version.clone(), file, Deadline::within(lifetime));
        }
        Ok(text.version)
    }

    fn free_lease(&self, lock: &FileLock, name: &FileName) -> Result<(), Error> {
        let file = self.held_leases.remove(name);
        let removed = self.directory.remove(lock, &name.owner());
        drop(file.map(FileLock::from_locked));
        removed
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileStore").field(&self.directory()).finish()
    }
}

/// How long the change of a record waits for its turn: longer where the store is waited for longer, two seconds for a state
/// and three for what is done once.
fn max_lock_wait(key: &Key) -> Duration {
    if key.is_operation() {
        Duration::from_millis(2_500)
    } else if key.is_renewal_secret() {
        Duration::from_millis(1_500)
    } else {
        MAX_LOCK_WAIT
    }
}

/// Those who wait look at the folder that often.
const INITIAL_BACKOFF: Duration = Duration::from_millis(2);
const MAX_BACKOFF: Duration = Duration::from_millis(16);

/// Every so many looks they try whether the holder of the lease still lives.
const POLLS_PER_LEASE_CHECK: u32 = 6;
