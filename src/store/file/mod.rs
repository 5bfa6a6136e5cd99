//! A store in files, for the processes of one user on one machine.
//!
//! # Theory of operation
//!
//! **Files.** A store is one directory. Each file name starts with a hash of the record's key (32 hexadecimal digits):
//!
//! | file | contents | lock |
//! |---|---|---|
//! | `<hash>` | the record of a credential | |
//! | `<hash>.state`, `<hash>.quota`, `<hash>.once` | renewal secret, quota count, idempotent operation | |
//! | `<hash>.owner` | the lease: its holder, its lifetime, the inode number of the `.lease` file | |
//! | `<hash>.lease` | empty | held by the holder of the lease during its fetch |
//! | `<2 digits>.lock` | empty, shared by all keys with these first digits | held by a process that changes a file |
//! | `<file>.<digits>.new` | a file that is being written | |
//!
//! A renewal secret has a lease of its own: `<hash>.state.owner` and `<hash>.state.lease`. [`layout`] describes the
//! contents of a file. Locks are advisory `flock` locks. Lock files are never deleted or renamed, because a process
//! that waits for the lock of a deleted file and one that creates the file anew would both get "the" lock.
//!
//! **A read** takes no lock: files are replaced as a whole, so a reader sees the old file or the new one. The reader
//! checks the file's kind, owner and mode, two hashes, and the key that is written in it.
//!
//! **A write** ([`Inner::swap_record`], [`FileStore::publish_locked`]) has these steps:
//!
//! 1. Create the directory if there is none (mode 0700), and check its owner and mode.
//! 2. Lock `.lock`. After [`MAX_LOCK_WAIT`] (longer for renewal secrets and operations) the write fails.
//! 3. Read the current file and compare.
//! 4. Write the new contents to a temporary file in the same directory, and `fsync` it.
//! 5. Check that the path of `.lock` still leads to the locked file. If somebody has deleted the file, another process
//!    may hold a new one, so the write fails.
//! 6. Rename the temporary file over the old one. From here on readers see the new contents.
//! 7. Unlock, then `fsync` the directory, so that the rename survives a loss of power. Only then does the call return.
//!
//! A removal deletes the file instead of steps 4 to 6.
//!
//! **Without locks.** On a file system without `flock`, step 2 fails for a renewal secret, its lease and an operation:
//! two processes could otherwise use one refresh token, or run one operation, at the same time. Tokens and quotas go
//! on without locks, with one warning in the log, because the worst that can happen is a second fetch.
//!
//! **A lease** is taken under `.lock`: lock `.lease`, then write `.owner` with the inode number of `.lease`. The lease
//! is live while its lifetime lasts *and* a process holds the lock on that inode. A process tests the latter by trying
//! to lock `.lease`. To release the lease, delete `.owner` and unlock `.lease`. The `.owner` file is not synced,
//! because a loss of power ends the lease anyway. [`held_leases`] keeps the locked files of this process.
//!
//! **Crashes.**
//!
//! - *Killed before step 6*: the record is unchanged. The temporary file stays; the next writer of the same file
//!   replaces it, so there is at most one.
//! - *Loss of power*: the old or the new contents, each complete, because the contents were synced before the rename.
//! - *The holder of a lease is killed*: the system releases its lock on `.lease`, and the next process takes the lease.
//! - *The holder of a lease is stopped (`SIGSTOP`) or suspended*: its lock stays, so other processes wait until the
//!   lifetime in `.owner` ends. Then a process takes the lease without the lock on `.lease`, and the new lease
//!   counts by its lifetime alone.
//! - *A process is stopped while it holds `.lock`*: reads go on, writes fail after step 2's limit. Managers then fetch
//!   without the store, and fail where a renewal secret has to be kept.
//! - *Damaged or foreign contents*: the file counts as absent, is reported once, and the next write replaces it. A
//!   renewal secret is the exception: [`Inner::record`] returns an entry without bytes, so that the manager does not
//!   mistake a lost refresh token for one that never existed.
//!
//! **Clocks.** A file records start and end of its lifetime by the wall clock, and, where the system has one, by the
//! clock that counts from the start of the machine (`CLOCK_BOOTTIME`), with the id of that start. A token ends at the
//! sooner of the two ends: the boot clock cannot be set back, and the wall clock is the only one that survives a
//! restart. Sidecars end by the boot clock alone, so that setting the wall clock loses none. [`layout`] has the rules
//! for files from an earlier start of the machine and from the future.
//!
//! **Refusals.** Another user must not be able to read a token, plant one, or make this process write elsewhere. So a
//! symbolic link, a file or directory of another user, a directory that others can write to, a file that others can
//! read or write, and anything that is no regular file are refused with an error that says what to do. Files are
//! opened with `O_NOFOLLOW`, and with `O_NONBLOCK` so that a FIFO cannot block the open.

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
/// Made for programs that start often and run briefly: the first one fetches, and the others read its token in the time
/// that reading a small file takes. Of several processes that start at once, one fetches, and the others get the token
/// within 50 ms.
///
/// ```no_run
/// use evertoken::{FileStore, TokenManager, WeCom};
///
/// let tokens = TokenManager::builder(WeCom::new("corp-id", "app-secret")).store(FileStore::new()?).build()?;
/// # Ok::<(), evertoken::Error>(())
/// ```
///
/// # Files
///
/// Each key has one file, named by a hash of the key. Further files of the same credential have an ending: the lease
/// (`.owner`, `.lease`), a refresh token or ticket (`.state`), a quota (`.quota`). Files of
/// [idempotent operations](crate::idempotency::Idempotency) end in `.once`; their modification time is the end of their
/// lifetime, and the store deletes them some time after that. Files that end in `.lock` (at most 256) or `.lease` are
/// empty and serve as locks: do not delete or rename them while a program runs.
///
/// A file is replaced as a whole and synced to the disk before the call returns. After a crash or a loss of power the
/// file has its old contents or the new ones. A file that is damaged, or was written by a later version, counts as
/// absent. The store reports the first such file by `log::warn!`, and the next write replaces it. A `.state` file is
/// not replaced: its manager fails with [`ErrorKind::Store`](crate::ErrorKind::Store), because the provider may already
/// have invalidated the refresh token before it.
///
/// # Which process fetches
///
/// The process that fetches holds a lock on the `.lease` file. The system releases the lock when the process ends, for
/// whatever reason. A process that is stopped (`SIGSTOP`) makes the others wait for the deadline of a fetch plus two
/// seconds at most. A process that is stopped in the middle of a write keeps other processes from
/// writing. Until that process continues, their managers fetch without the store; managers with a refresh
/// token return errors.
///
/// # Lifetimes
///
/// Lifetimes go by the wall clock, and on Linux also by the clock that counts from the start of the machine and goes on
/// during suspend. A token expires when either clock says so, so setting the wall clock back does not prolong it.
/// Records that must not be lost (`.state`, `.quota`, leases, operations) go by the clock of the machine alone.
///
/// On other systems, and after a restart, only the wall clock is left. Then a token from the future, written before the
/// wall clock was set back, counts as absent. Other files count, but at most for their own lifetime from now; a
/// `.state` file always counts.
///
/// # Other users
///
/// The store creates its directory with mode 0700 and its files with 0600. The store refuses a directory that others
/// can write to, a file that others can read or write, a file or directory of another user, and a symbolic link, with
/// an [error](crate::ErrorKind::Store) that says what to do. Outside Unix there is no such check: files get the access
/// rights of the directory, and a directory below the user's own is private there. Tokens are not encrypted; an
/// `EncryptedStore` (feature `encryption`) around this store does that.
///
/// # File systems
///
/// A manager without a token reads the file on its caller's thread. Where the file system may block, such as a network
/// file system, see [`on_network_file_system`](FileStore::on_network_file_system).
///
/// On a file system without locks (`flock`) tokens are shared all the same: the store warns once in the log, and two
/// processes may fetch at once. Refresh tokens, tickets and idempotent operations are refused there with
/// [`ErrorKind::Store`](crate::ErrorKind::Store), because two processes could use one refresh token, or run one
/// operation, at the same time. The store cannot tell when the locks of a network file system do not reach other hosts;
/// do not keep refresh tokens or operations on one.
///
/// The store does not report changes: a manager with [`watch`](crate::TokenManagerBuilder::watch) reads the file every
/// [`store_check_interval`](crate::TokenManagerBuilder::store_check_interval) as other managers do.
#[derive(Clone)]
pub struct FileStore {
    inner: Arc<Inner>,
    on_network_file_system: bool,
}

/// How long the file of a check lasts if the check cannot remove it.
const PROBE_LIFETIME: Duration = Duration::from_secs(1);

struct Inner {
    directory: Directory,
    time: Time,
    held_leases: HeldLeases,
    /// True once an unreadable file has been reported.
    reported: AtomicBool,
}

impl FileStore {
    /// Returns a store in the user's cache directory: `$XDG_CACHE_HOME/evertoken` or `~/.cache/evertoken`,
    /// `~/Library/Caches/evertoken` on macOS, `%LOCALAPPDATA%\evertoken` on Windows.
    ///
    /// The directory is created with the first write. Users and tools may empty a cache directory at any time. So keep
    /// a refresh token that needs a person's sign-in, and [idempotent operations](crate::idempotency::Idempotency), in
    /// another directory, with [`at`](FileStore::at).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the user has no home directory.
    pub fn new() -> Result<FileStore, Error> {
        let strategy = choose_native_strategy()
            .map_err(|_| Error::config("the user has no home directory; name a directory with FileStore::at"))?;
        Ok(FileStore::at(strategy.cache_dir().join("evertoken")))
    }

    /// Returns a store in `directory`, which is created with the first write.
    ///
    /// A relative path is resolved now, against the current directory of the process.
    pub fn at(directory: impl AsRef<Path>) -> FileStore {
        FileStore::with_time(directory.as_ref(), Time::System)
    }

    /// Returns a store as [`at`](FileStore::at) does that measures lifetimes by `clock`, for tests. The monotonic time
    /// of `clock` stands for the clock that counts from the start of the machine.
    pub fn with_clock(directory: impl AsRef<Path>, clock: impl Clock) -> FileStore {
        FileStore::with_time(directory.as_ref(), Time::Custom(Arc::new(clock)))
    }

    fn with_time(directory: &Path, time: Time) -> FileStore {
        let reported = AtomicBool::new(false);
        let inner = Inner { directory: Directory::new(directory), time, held_leases: HeldLeases::default(), reported };
        FileStore { inner: Arc::new(inner), on_network_file_system: false }
    }

    /// Sets whether the directory is on a file system that may block, such as a network file system whose server is
    /// down.
    ///
    /// With true, files are read on helper threads only, which have a time limit, so that no caller blocks with the
    /// file system. The price is one or two threads started when a manager reads its first token. Default: false.
    #[must_use]
    pub fn on_network_file_system(self, on_network_file_system: bool) -> FileStore {
        FileStore { on_network_file_system, ..self }
    }

    /// Returns the directory of the files, as an absolute path.
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
        // No lock needed: a writer replaces the file as a whole.
        if let Some(entry) = self.inner.record(&name, key)?.filter(qualifies) {
            return Ok(LeaseOutcome::Found(entry));
        }
        let lease_key = key.lease();
        let lock = self.inner.directory.lock_within(&name, MAX_LOCK_WAIT)?;
        // Read again under the lock, because another process may have published in between.
        let entry = self.inner.record(&name, key)?;
        if let Some(entry) = entry.as_ref().filter(|entry| qualifies(entry)) {
            return Ok(LeaseOutcome::Found(entry.clone()));
        }
        let Some(lock) = lock else {
            // The lock is busy. If a lease is recorded, its holder is perhaps writing to a slow disk: report the lease
            // as busy, so that the caller waits for the record and does not give up on the store.
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
            // Unlock `.lease` although the write failed, so that another process can try.
            let file = self.inner.held_leases.remove_version(&name, &Version::of_bytes(owner.as_bytes()));
            drop(file.map(FileLock::from_locked));
        }
        if let Ok(PublishOutcome::Done(_)) = published {
            // Step 7. Waiting processes see the record already; only this one waits for the disk.
            self.inner.directory.sync()?;
        }
        published
    }

    fn read_at_once(&self, key: &Key) -> Option<Entry> {
        if self.on_network_file_system { None } else { self.inner.record(&FileName::of(key), key).ok()? }
    }

    /// Makes the directory if there is none, checks its owner and mode, and locks, writes, reads and removes a file of its
    /// own. Fails as well where the file system has no locks. An empty `.lock` file stays.
    fn check(&self) -> Result<(), Error> {
        let key = Key::probe();
        self.compare_and_swap(&key, Expected::Any, Some((b"check", PROBE_LIFETIME)))?;
        self.read(&key)?;
        self.compare_and_swap(&key, Expected::Any, None)?;
        self.inner.directory.check_locks()
    }

    fn wait(&self, key: &Key, cursor: &Cursor, deadline: Instant) -> Result<(), Error> {
        let (name, deadline) = (FileName::of(key), Deadline::at(deadline));
        // The file as it was when it was last read, so that an unchanged file is not read again.
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
            // A released lease shows as a missing `.owner` file, which is cheap to test. Whether the holder has died or
            // the lease has expired takes a lock to find out, so test that less often.
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
    /// True if the lease is free: released, expired, or its holder has died. A busy `.lock` counts as "not free",
    /// because the process that holds it may be the holder of the lease.
    fn is_lease_free(&self, name: &FileName, key: &Key) -> Result<bool, Error> {
        let lock = self.inner.directory.lock_within(name, Duration::ZERO)?;
        lock.map_or(Ok(false), |lock| Ok(self.inner.live_lease(&lock, name, &key.lease())?.is_none()))
    }

    /// Publishes under `.lock`, and releases the lease if `owner` holds it. The caller syncs the directory.
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
        // The lifetime began when the caller asked for the write, not when the lock came free.
        let lifetime = self.inner.remaining_of(lifetime, requested_at);
        let holder = self.inner.live_lease(&lock, name, &key.lease())?;
        let is_mine = holder.is_some_and(|holder| holder.bytes() == owner.as_bytes());
        // Another process may have published since the caller read the record it started from. Without the lease, keep
        // the record that expires later, which is the newer one as far as a store can tell.
        let later = self.inner.record(name, key)?;
        let later = later.filter(|entry| Some(&entry.version) != supersedes && entry.remaining >= lifetime);
        if let Some(entry) = later.filter(|_| !is_mine) {
            return Ok(PublishOutcome::Conflict(entry));
        }
        let written = self.inner.write(&lock, name, key, bytes, lifetime);
        if is_mine {
            // Still under the lock, and after the write: a process that finds the lease free finds the new record too.
            // The record is visible by now, so a failure to delete `.owner` is no failure of the write. The lease is
            // free all the same, because `.lease` is no longer locked.
            let _ = self.inner.free_lease(&lock, name);
        }
        written.map(|version| PublishOutcome::Done(Some(version)))
    }
}

impl Inner {
    /// Reads the record or sidecar under `key`. Needs no lock.
    fn record(&self, name: &FileName, key: &Key) -> Result<Option<Entry>, Error> {
        let Some(bytes) = self.directory.read(name)? else { return Ok(None) };
        match Record::decode(&bytes, key, &self.time) {
            Ok(record) => Ok(record.entry),
            Err(Unreadable(why)) => {
                if !self.reported.swap(true, Ordering::Relaxed) {
                    let path = self.directory.path().join(name.as_str());
                    let effect = match key.is_renewal_secret() {
                        true => "requests fail until it is removed and somebody signs in again",
                        false => "it counts as absent and will be replaced",
                    };
                    log::warn!(
                        target: "evertoken",
                        "{path:?} cannot be read: {why}; {effect}; further unreadable files are not reported"
                    );
                }
                // An unreadable renewal secret must not look like an absent one: the manager would start again with an
                // initial refresh token that the provider may have invalidated. Return an entry without bytes.
                let unreadable = || Entry::with_version(Vec::new(), Duration::ZERO, Version::of_bytes(&bytes));
                Ok(key.is_renewal_secret().then(unreadable))
            }
        }
    }

    /// Compares and swaps a record or sidecar: steps 1 to 7 of the module's theory of operation.
    fn swap_record(
        &self,
        name: &FileName,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        let requested_at = self.time.host_now();
        // Steps 1 and 2.
        let lock = self.directory.lock_within(name, max_lock_wait(key))?;
        let lock = lock.ok_or_else(|| self.directory.lock_timeout_error(name))?;
        // Step 3.
        let current = self.record(name, key)?;
        if !expected.matches(current.as_ref()) {
            return Ok(SwapOutcome::Conflict(current));
        }
        let Some((bytes, lifetime)) = new else {
            self.directory.remove(&lock, name)?;
            // Without step 7, a loss of power could bring the file back.
            drop(lock);
            return self.directory.sync().map(|()| SwapOutcome::Done(None));
        };
        // Steps 4 to 6.
        let version = self.write(&lock, name, key, bytes, self.remaining_of(lifetime, requested_at))?;
        // Step 7. Syncing a directory is slow and needs no lock.
        drop(lock);
        self.directory.sync()?;
        Ok(SwapOutcome::Done(Some(version)))
    }

    /// Compares and swaps a lease. `name` is the file of the leased record, `key` the key of the lease.
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

    /// Returns what is left of a lifetime that began at `requested_at`. The time spent waiting for the lock, or stopped
    /// meanwhile, is part of the lifetime.
    fn remaining_of(&self, lifetime: Duration, requested_at: HostTimestamp) -> Duration {
        lifetime.saturating_sub(self.time.host_now().since(requested_at))
    }

    /// Writes a file and syncs its contents, but not the directory.
    fn write(
        &self,
        lock: &FileLock,
        name: &FileName,
        key: &Key,
        bytes: &[u8],
        lifetime: Duration,
    ) -> Result<Version, Error> {
        let record = EncodedRecord::new(key, bytes, lifetime, None, &self.time)?;
        self.directory.write(lock, name, &record, &self.time)?;
        Ok(record.version)
    }

    /// Reads the recorded lease. Needs no lock, and does not tell whether the holder is still alive.
    fn read_lease(&self, name: &FileName, key: &Key) -> Result<Option<Record>, Error> {
        let bytes = self.directory.read(&name.owner())?;
        // `.owner` is not synced, so an unreadable one after a loss of power is expected. Do not report it.
        Ok(bytes.and_then(|bytes| Record::decode(&bytes, key, &self.time).ok()))
    }

    /// Returns the lease if it has not expired and its holder is alive. `name` is the file of the leased record, `key`
    /// the key of the lease.
    fn live_lease(&self, lock: &FileLock, name: &FileName, key: &Key) -> Result<Option<Entry>, Error> {
        let Some(record) = self.read_lease(name, key)? else { return Ok(None) };
        let Some(entry) = record.entry else { return Ok(None) };
        // Another owner may have taken an expired lease of this process. Close our file: while it is locked, no other
        // process can lock `.lease`, and leases count by their lifetimes alone.
        self.held_leases.drop_other_version(name, entry.version());
        let is_live = record.held.is_none_or(|file| self.directory.is_lease_locked(lock, name, file));
        Ok(Some(entry).filter(|_| is_live))
    }

    /// Takes the lease, or takes it again, for `lifetime`. The caller has checked that no other owner holds it.
    fn take_lease(
        &self,
        lock: &FileLock,
        name: &FileName,
        key: &Key,
        owner: &[u8],
        lifetime: Duration,
    ) -> Result<Version, Error> {
        // Reuse the file of a lease that this process already holds. If a stopped process still has the lock (its lease
        // has expired), `file` stays `None`, and the new lease counts by its lifetime alone.
        let file = self.held_leases.remove(name).filter(|file| self.directory.is_current(file, &name.lease()));
        let file = match file {
            None => self.directory.try_lock_lease(lock, name)?,
            file => file,
        };
        let held = file.as_ref().and_then(directory::inode);
        let record = EncodedRecord::new(key, owner, lifetime, held, &self.time)?;
        self.directory.write_owner(lock, name, &record)?;
        if let Some(file) = file {
            self.held_leases.insert(name, record.version.clone(), file, Deadline::within(lifetime));
        }
        Ok(record.version)
    }

    /// Releases the lease: deletes `.owner` and unlocks `.lease`.
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

/// How long a write of `key` waits for `.lock`. The limit leaves time for the write itself within the manager's own
/// limit for a store call, which is one second, two for a renewal secret and three for an operation.
fn max_lock_wait(key: &Key) -> Duration {
    if key.is_operation() {
        Duration::from_millis(2_500)
    } else if key.is_renewal_secret() {
        Duration::from_millis(1_500)
    } else {
        MAX_LOCK_WAIT
    }
}

/// Between two looks of `wait` at the directory: doubles from the first to the second, with 25 % jitter.
const INITIAL_BACKOFF: Duration = Duration::from_millis(2);
const MAX_BACKOFF: Duration = Duration::from_millis(16);

/// `wait` tests in one of this many looks whether the holder of the lease is still alive.
const POLLS_PER_LEASE_CHECK: u32 = 6;
