//! A store on one machine: files that its processes share.

mod folder;
mod layout;
mod leases;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etcetera::BaseStrategy;
use etcetera::base_strategy::choose_native_strategy;

use self::folder::{Folder, Guard, LONGEST_QUEUE, Name};
use self::layout::{Content, Text, Unreadable};
use self::leases::Leases;
use crate::clock::{Clock, Deadline, HostMoment, Time};
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
    folder: Folder,
    time: Time,
    leases: Leases,
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
        let inner = Inner { folder: Folder::new(directory), time, leases: Leases::default(), reported };
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
        self.inner.folder.path()
    }
}

impl Store for FileStore {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        match Name::leased_by(key) {
            Some(name) => self.inner.lease(&self.inner.folder.guard(&name)?, &name, key),
            None => self.inner.record(&Name::of(key), key),
        }
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        match Name::leased_by(key) {
            Some(name) => self.inner.swap_lease(&name, key, expected, new),
            None => self.inner.swap_record(&Name::of(key), key, expected, new),
        }
    }

    fn read_or_lease(
        &self,
        key: &Key,
        not: Option<&Version>,
        at_least: Duration,
        owner: &LeaseOwner,
        lease: Duration,
    ) -> Result<LeaseOutcome, Error> {
        let name = Name::of(key);
        let fits = |entry: &Entry| entry.serves(not, at_least);
        let busy = |holder: Entry, entry: Option<Entry>| LeaseOutcome::Busy {
            remaining: holder.remaining,
            cursor: Cursor::new(entry.map(|entry| entry.version)),
        };
        let is_another = |holder: &Entry| holder.bytes() != owner.as_bytes();
        // Without the lock: whoever replaces it replaces it as a whole.
        if let Some(entry) = self.inner.record(&name, key)?.filter(fits) {
            return Ok(LeaseOutcome::Found(entry));
        }
        let held_under = key.lease();
        let guard = self.inner.folder.guard_within(&name, LONGEST_QUEUE)?;
        // It may have come before the lock was had: to fetch now would be to fetch twice.
        let entry = self.inner.record(&name, key)?;
        if let Some(entry) = entry.as_ref().filter(|entry| fits(entry)) {
            return Ok(LeaseOutcome::Found(entry.clone()));
        }
        let Some(guard) = guard else {
            // Perhaps the holder writes what it has fetched, on a disk that takes its time.
            let holder =
                self.inner.recorded_lease(&name, &held_under)?.and_then(|lease| lease.entry).filter(is_another);
            return holder.map(|holder| busy(holder, entry)).ok_or_else(|| self.inner.folder.kept_out(&name));
        };
        if let Some(holder) = self.inner.lease(&guard, &name, &held_under)?.filter(is_another) {
            return Ok(busy(holder, entry));
        }
        self.inner.take_lease(&guard, &name, &held_under, owner.as_bytes(), lease)?;
        Ok(LeaseOutcome::Leased)
    }

    fn publish(
        &self,
        key: &Key,
        owner: &LeaseOwner,
        seen: Option<&Version>,
        bytes: &[u8],
        lifetime: Duration,
    ) -> Result<PublishOutcome, Error> {
        let name = Name::of(key);
        let published = self.publish_guarded(&name, key, owner, seen, (bytes, lifetime));
        if published.is_err() {
            // Whoever cannot write must not keep the others from trying.
            let file = self.inner.leases.take_if(&name, &Version::of_bytes(owner.as_bytes()));
            drop(file.map(Guard::of));
        }
        if let Ok(PublishOutcome::Done(_)) = published {
            self.inner.folder.sync()?;
        }
        published
    }

    fn read_at_once(&self, key: &Key) -> Option<Entry> {
        if self.on_network_file_system { None } else { self.inner.record(&Name::of(key), key).ok()? }
    }

    fn wait(&self, key: &Key, cursor: &Cursor, deadline: Instant) -> Result<(), Error> {
        let (name, deadline) = (Name::of(key), Deadline::at(deadline));
        let mut seen = None;
        let mut pause = FIRST_PAUSE;
        for round in 0_u32.. {
            let file = self.inner.folder.look_at(&name);
            if seen.as_ref() != Some(&file) {
                let version = self.inner.record(&name, key)?.map(|entry| entry.version);
                if version.as_ref() != cursor.version() {
                    return Ok(());
                }
                seen = Some(file);
            }
            // That it was freed shows in the folder. That its holder has died, or its lifetime is over, is looked for less often.
            let is_freed = self.inner.folder.look_at(&name.owner()).is_none();
            if is_freed || round % ROUNDS == ROUNDS - 1 && self.has_ended(&name, key)? {
                return Ok(());
            }
            if deadline.has_passed() {
                break;
            }
            thread::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0).min(deadline.remaining()));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }
}

impl FileStore {
    /// True when nobody has the lease any more. Whoever is changing something just now may be its holder.
    fn has_ended(&self, name: &Name, key: &Key) -> Result<bool, Error> {
        let guard = self.inner.folder.guard_within(name, Duration::ZERO)?;
        guard.map_or(Ok(false), |guard| Ok(self.inner.lease(&guard, name, &key.lease())?.is_none()))
    }

    fn publish_guarded(
        &self,
        name: &Name,
        key: &Key,
        owner: &LeaseOwner,
        seen: Option<&Version>,
        (bytes, lifetime): (&[u8], Duration),
    ) -> Result<PublishOutcome, Error> {
        let (asked_at, folder) = (self.inner.time.on_this_host(), &self.inner.folder);
        let guard = folder.guard(name)?;
        let lifetime = self.inner.rest_of(lifetime, asked_at);
        let holder = self.inner.lease(&guard, name, &key.lease())?;
        let is_mine = holder.is_some_and(|holder| holder.bytes() == owner.as_bytes());
        let later = self.inner.record(name, key)?;
        let later = later.filter(|entry| Some(&entry.version) != seen && entry.remaining >= lifetime);
        if let Some(entry) = later.filter(|_| !is_mine) {
            return Ok(PublishOutcome::Conflict(entry));
        }
        let written = self.inner.write(&guard, name, key, bytes, lifetime);
        if is_mine {
            self.inner.free_lease(&guard, name)?;
        }
        written.map(|version| PublishOutcome::Done(Some(version)))
    }
}

impl Inner {
    /// What is recorded under `key`. Needs no lock.
    fn record(&self, name: &Name, key: &Key) -> Result<Option<Entry>, Error> {
        let Some(bytes) = self.folder.read(name)? else { return Ok(None) };
        match Content::read(&bytes, key, &self.time) {
            Ok(content) => Ok(content.entry),
            Err(Unreadable(why)) => {
                if !self.reported.swap(true, Ordering::Relaxed) {
                    let path = self.folder.path().join(name.as_str());
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
        name: &Name,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        let asked_at = self.time.on_this_host();
        let guard = self.folder.guard_within(name, longest_queue(key))?;
        let guard = guard.ok_or_else(|| self.folder.kept_out(name))?;
        let current = self.record(name, key)?;
        if !expected.matches(current.as_ref()) {
            return Ok(SwapOutcome::Conflict(current));
        }
        let Some((bytes, lifetime)) = new else {
            return self.folder.remove(&guard, name).map(|()| SwapOutcome::Done(None));
        };
        let version = self.write(&guard, name, key, bytes, self.rest_of(lifetime, asked_at))?;
        drop(guard);
        self.folder.sync()?;
        Ok(SwapOutcome::Done(Some(version)))
    }

    /// `name`: that of the record.
    fn swap_lease(
        &self,
        name: &Name,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        let guard = self.folder.guard(name)?;
        let current = self.lease(&guard, name, key)?;
        if !expected.matches(current.as_ref()) {
            return Ok(SwapOutcome::Conflict(current));
        }
        Ok(SwapOutcome::Done(match new {
            Some((owner, lifetime)) => Some(self.take_lease(&guard, name, key, owner, lifetime)?),
            None => self.free_lease(&guard, name).map(|()| None)?,
        }))
    }

    /// What is left of a lifetime that began when it was asked for: whoever was stopped while it waited for a lock must not give
    /// more.
    fn rest_of(&self, lifetime: Duration, asked_at: HostMoment) -> Duration {
        lifetime.saturating_sub(self.time.on_this_host().since(asked_at))
    }

    fn write(&self, guard: &Guard, name: &Name, key: &Key, bytes: &[u8], lifetime: Duration) -> Result<Version, Error> {
        let text = Text::of(key, bytes, lifetime, None, &self.time)?;
        self.folder.write(guard, name, &text, &self.time)?;
        Ok(text.version)
    }

    /// Who said that it fetches, and for how long at most. Needs no lock, and nobody knows whether it still lives.
    fn recorded_lease(&self, name: &Name, key: &Key) -> Result<Option<Content>, Error> {
        let bytes = self.folder.read(&name.owner())?;
        // It is not made to outlast a loss of power, so what cannot be read is nothing to report.
        Ok(bytes.and_then(|bytes| Content::read(&bytes, key, &self.time).ok()))
    }

    /// Who fetches, and for how long at most. `name`: that of the record.
    fn lease(&self, guard: &Guard, name: &Name, key: &Key) -> Result<Option<Entry>, Error> {
        let Some(content) = self.recorded_lease(name, key)? else { return Ok(None) };
        let Some(entry) = content.entry else { return Ok(None) };
        self.leases.forget_unless(name, entry.version());
        let lifetimes = content.held.is_none_or(|file| self.folder.is_held(guard, name, file));
        Ok(Some(entry).filter(|_| lifetimes))
    }

    fn take_lease(
        &self,
        guard: &Guard,
        name: &Name,
        key: &Key,
        owner: &[u8],
        lifetime: Duration,
    ) -> Result<Version, Error> {
        // Where one that is stopped still has the file, the lease counts for its lifetime alone.
        let file = self.leases.take(name).filter(|file| self.folder.is_in_place(file, &name.lease()));
        let file = match file {
            None => self.folder.hold(guard, name)?,
            file => file,
        };
        let held = file.as_ref().and_then(folder::number);
        let text = Text::of(key, owner, lifetime, held, &self.time)?;
        self.folder.write_owner(guard, name, &text)?;
        if let Some(file) = file {
            self.leases.keep(name, text.version.clone(), file, Deadline::within(lifetime));
        }
        Ok(text.version)
    }

    fn free_lease(&self, guard: &Guard, name: &Name) -> Result<(), Error> {
        let file = self.leases.take(name);
        let removed = self.folder.remove(guard, &name.owner());
        drop(file.map(Guard::of));
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
fn longest_queue(key: &Key) -> Duration {
    if key.is_operation() {
        Duration::from_millis(2_500)
    } else if key.is_renewal_secret() {
        Duration::from_millis(1_500)
    } else {
        LONGEST_QUEUE
    }
}

/// Those who wait look at the folder that often.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// Every so many looks they try whether the holder of the lease still lives.
const ROUNDS: u32 = 6;
