//! The directory of a file store: file names, access checks, atomic replacement, and locks.
//!
//! The steps of a write, and the crash cases, are described in the module above. This file does the steps.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf, absolute};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use ring::digest;
use zeroize::Zeroizing;

use super::layout::{EncodedRecord, MAX_BYTES, has_expired};
use crate::clock::{Deadline, Time, system_time};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::secret::hex;
use crate::store::io_reason::io_reason;

pub(super) struct Directory {
    path: PathBuf,
    /// True once the log has been told that the file system has no locks.
    reported: AtomicBool,
}

/// A lock on a file, released on drop; empty on a file system without locks, which only files that need no lock get. Functions that change files take a
/// reference to one as a proof that the caller holds the lock.
pub(super) struct FileLock(Option<File>);

impl FileLock {
    /// Wraps a file that is already locked, so that drop unlocks it.
    pub(super) fn from_locked(file: File) -> FileLock {
        FileLock(Some(file))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that this one is just starting may briefly share the descriptor,
        // and the lock lasts until the last descriptor is closed.
        if let Some(file) = &self.0 {
            let _ = file.unlock();
        }
    }
}

/// The name of a record's or sidecar's file, from which the names of its lease and lock files are made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileName(String);

/// Identifies the current contents of a path: differs after a file has been replaced. Cheaper than reading the file.
#[derive(PartialEq, Eq)]
pub(super) struct FileId {
    inode: u64,
    length: u64,
    changed: Option<SystemTime>,
}

impl FileName {
    /// Returns the file of a record or sidecar: a hash of the record's key, and the sidecar's suffix. Not for leases.
    pub(super) fn of(key: &Key) -> FileName {
        match key.split_suffix() {
            (record, Some(what)) => FileName(format!("{}.{what}", hash(record))),
            (record, None) => FileName(hash(record)),
        }
    }

    /// Returns the file of the record that `key` leases, `None` if `key` is no lease.
    pub(super) fn leased_by(key: &Key) -> Option<FileName> {
        key.leased_key().map(|leased| FileName::of(&leased))
    }

    /// Returns the file that records the lease and its holder.
    pub(super) fn owner(&self) -> FileName {
        FileName(format!("{}.owner", self.0))
    }

    /// Returns the file that the holder of the lease has locked.
    pub(super) fn lease(&self) -> FileName {
        FileName(format!("{}.lease", self.0))
    }

    /// Returns the file to lock before this one is changed. Many files share one of 256: lock files are never deleted,
    /// and one for each idempotent operation would fill the directory.
    fn lock(&self) -> FileName {
        FileName(format!("{}.lock", &self.0[..2]))
    }

    /// If `file` is an operation's file, or a temporary file written to replace one, returns the operation's file.
    fn operation_of(file: &str) -> Option<FileName> {
        let is_hash = |start: &str| start.bytes().all(|byte| byte.is_ascii_hexdigit());
        let name =
            file.split_at_checked(HASH_LEN).filter(|(hash, end)| is_hash(hash) && end.starts_with(OPERATION_SUFFIX))?;
        Some(FileName(format!("{}{OPERATION_SUFFIX}", name.0)))
    }

    /// True for the file of an idempotent operation. Their number has no bound, so expired ones are deleted.
    fn is_operation(&self) -> bool {
        self.0.ends_with(OPERATION_SUFFIX)
    }

    /// True for the files of renewal secrets and of operations. Two processes that change one at the same time would
    /// both use a refresh token that works once, or both run an operation.
    fn requires_lock(&self) -> bool {
        self.is_operation() || self.0.ends_with(RENEWAL_SECRET_SUFFIX)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

fn hash(text: &str) -> String {
    hex(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..HASH_LEN / 2])
}

impl Directory {
    pub(super) fn new(path: &Path) -> Directory {
        // Resolve the path now, so that it stays the same when the working directory changes.
        let path = absolute(path).unwrap_or_else(|_| path.to_owned());
        // Drop a slash at the end: with it, `lstat` follows a symbolic link and the check for links finds none.
        let path = path.components().collect();
        Directory { path, reported: AtomicBool::new(false) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the contents of a file, or `None` if there is no file.
    pub(super) fn read(&self, name: &FileName) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        if !self.check()? {
            return Ok(None);
        }
        let path = self.path.join(name.as_str());
        let file = match open(OpenOptions::new().read(true), &path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(open_error(&path, &error)),
        };
        let metadata = file.metadata().map_err(|error| io_error("cannot be checked", &path, &error))?;
        check_file(&path, &metadata)?;
        // A foreign file may be of any size. Read one that is too large only in part; its hash will not match.
        let limit = MAX_HEADER_LEN + MAX_BYTES as u64;
        let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len().min(limit) as usize));
        file.take(limit).read_to_end(&mut bytes).map_err(|error| io_error("cannot be read", &path, &error))?;
        Ok(Some(bytes))
    }

    /// Returns the identity of a file, or `None` if there is no file.
    pub(super) fn file_id(&self, name: &FileName) -> Option<FileId> {
        let metadata = fs::symlink_metadata(self.path.join(name.as_str())).ok()?;
        Some(FileId { inode: inode_of(&metadata), length: metadata.len(), changed: metadata.modified().ok() })
    }

    /// Locks a file for a change, waiting [`MAX_LOCK_WAIT`] at most. Creates the directory if there is none.
    pub(super) fn lock(&self, name: &FileName) -> Result<FileLock, Error> {
        self.lock_within(name, MAX_LOCK_WAIT)?.ok_or_else(|| self.lock_timeout_error(name))
    }

    /// Locks a file as [`lock`](Directory::lock) does, waiting `time` at most. `None` means that the lock is still
    /// busy. Fails on a file system without locks if the file must not be changed without one.
    pub(super) fn lock_within(&self, name: &FileName, time: Duration) -> Result<Option<FileLock>, Error> {
        self.create()?;
        let (path, deadline) = (self.path.join(name.lock().as_str()), Deadline::within(time));
        let mut backoff = INITIAL_BACKOFF;
        loop {
            match self.try_lock(&path)? {
                LockAttempt::Locked(file) => return Ok(Some(FileLock(Some(file)))),
                LockAttempt::Unsupported if name.requires_lock() => return Err(self.no_locks_error()),
                LockAttempt::Unsupported => {
                    self.report_missing_locks();
                    return Ok(Some(FileLock(None)));
                }
                LockAttempt::Busy if deadline.has_passed() => return Ok(None),
                LockAttempt::Busy => {
                    thread::sleep(backoff.mul_f64(0.5 + fastrand::f64()).min(deadline.remaining()));
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
    }

    /// Fails if an attempt to lock a file has shown that the file system has no locks.
    pub(super) fn check_locks(&self) -> Result<(), Error> {
        if !self.reported.load(Ordering::Relaxed) {
            return Ok(());
        }
        let text =
            format!("the file system of {:?} has no locks, so processes cannot share it; use a local disk", self.path);
        Err(Error::new(ErrorKind::Store, text))
    }

    /// Warns, once, that files are changed without locks.
    fn report_missing_locks(&self) {
        if !self.reported.swap(true, Ordering::Relaxed) {
            let directory = &self.path;
            log::warn!(
                target: "evertoken",
                "the file system of {directory:?} has no locks, so two processes may fetch at once; use a local disk"
            );
        }
    }

    fn no_locks_error(&self) -> Error {
        Error::new(
            ErrorKind::Store,
            format!(
                "the file system of {:?} has no locks, which refresh tokens, tickets and idempotent operations need; \
                 name a directory on a local disk, or use another store",
                self.path
            ),
        )
    }

    /// Returns the error for a lock that stayed busy.
    pub(super) fn lock_timeout_error(&self, name: &FileName) -> Error {
        let path = self.path.join(name.lock().as_str());
        Error::new(
            ErrorKind::Store,
            format!("another process holds the lock {path:?}; if that process is stopped, continue or end it"),
        )
    }

    /// Replaces the file of a record as a whole, with its contents synced. The new name survives a loss of power only
    /// after a [`sync`](Directory::sync).
    pub(super) fn write(
        &self,
        lock: &FileLock,
        name: &FileName,
        record: &EncodedRecord,
        time: &Time,
    ) -> Result<(), Error> {
        self.replace(lock, name, &record.bytes, |file| {
            if name.is_operation() {
                // For the sweep, which need not open files that have not expired.
                file.set_modified(record.end)?;
            }
            file.sync_all()
        })?;
        if name.is_operation() && fastrand::u32(..WRITES_PER_SWEEP) == 0 {
            self.sweep(lock, name, time);
        }
        Ok(())
    }

    /// Replaces the file that records a lease. No sync: a loss of power ends the lease anyway.
    pub(super) fn write_owner(&self, lock: &FileLock, name: &FileName, record: &EncodedRecord) -> Result<(), Error> {
        self.replace(lock, &name.owner(), &record.bytes, |_| Ok(()))
    }

    /// Writes a temporary file, lets `finish` sync it, and renames it into place.
    fn replace(
        &self,
        lock: &FileLock,
        name: &FileName,
        bytes: &[u8],
        finish: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), Error> {
        let path = self.path.join(name.as_str());
        let write = || {
            let mut new = self.create_temp_file(lock, name)?;
            new.write_all(bytes)?;
            finish(new.as_file())?;
            // Check as late as possible: without the lock, the rename could overwrite the result of another writer.
            if !self.still_holds(lock, name) {
                return Err(io::Error::other(
                    "its lock file was deleted meanwhile; leave files that end in .lock alone",
                ));
            }
            rename_into_place(new, &path)
        };
        write().map_err(|error| io_error("cannot be written", &path, &error))
    }

    /// Syncs the directory, so that earlier renames survive a loss of power. Slow; call it without a lock.
    pub(super) fn sync(&self) -> Result<(), Error> {
        sync(&self.path).map_err(|error| io_error("cannot be synced to the disk", &self.path, &error))
    }

    /// False if the lock file has been deleted since: another process may hold a new one of the same name.
    fn still_holds(&self, lock: &FileLock, name: &FileName) -> bool {
        lock.0.as_ref().is_none_or(|lock| self.is_current(lock, &name.lock()))
    }

    /// Creates the temporary file for a write.
    ///
    /// Its name contains the inode number of the lock file. So writers that are killed leave one such file at most,
    /// which the next writer replaces, and the holder of a deleted lock file does not write into the temporary file of
    /// the holder of the new one. Without locks two processes may write at once, so the name is random.
    fn create_temp_file(&self, lock: &FileLock, name: &FileName) -> io::Result<tempfile::NamedTempFile> {
        let (suffix, random) = match &lock.0 {
            Some(lock) => (format!(".{:x}{TEMP_SUFFIX}", inode(lock).unwrap_or_default()), 0),
            None => (TEMP_SUFFIX.to_owned(), 8),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(name.as_str()).suffix(&suffix).rand_bytes(random);
        match builder.tempfile_in(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let path = self.path.join(format!("{}{suffix}", name.as_str()));
                let tell = |error| io::Error::new(error, format!("{path:?} is in the way of a new file; remove it"));
                fs::remove_file(&path).map_err(|error| tell(error.kind()))?;
                builder.tempfile_in(&self.path)
            }
            new => new,
        }
    }

    /// Deletes a file, if there is one.
    pub(super) fn remove(&self, _lock: &FileLock, name: &FileName) -> Result<(), Error> {
        let path = self.path.join(name.as_str());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("cannot be removed", &path, &error)),
            _ => Ok(()),
        }
    }

    /// Locks the `.lease` file until the returned file is closed. `None` means that another process holds the lock, or
    /// that the file system has no locks.
    pub(super) fn try_lock_lease(&self, _lock: &FileLock, name: &FileName) -> Result<Option<File>, Error> {
        Ok(match self.try_lock(&self.path.join(name.lease().as_str()))? {
            LockAttempt::Locked(file) => Some(file),
            LockAttempt::Busy | LockAttempt::Unsupported => None,
        })
    }

    /// True if a process holds the lock on the `.lease` file with this inode number, or if the check fails.
    pub(super) fn is_lease_locked(&self, lock: &FileLock, name: &FileName, file: u64) -> bool {
        if self.file_id(&name.lease()).is_none_or(|id| id.inode != file) {
            return true;
        }
        // Trying to lock the file disturbs no other process, because each needs `.lock` first to lock `.lease`.
        match self.try_lock_lease(lock, name) {
            Ok(Some(free)) => {
                drop(FileLock::from_locked(free));
                false
            }
            _ => true,
        }
    }

    /// True if `name` still leads to this open file; false if the file has been deleted or replaced.
    pub(super) fn is_current(&self, file: &File, name: &FileName) -> bool {
        is_file_at(file, &self.path.join(name.as_str()))
    }

    fn try_lock(&self, path: &Path) -> Result<LockAttempt, Error> {
        for _ in 0..MAX_ATTEMPTS {
            let file = open(OpenOptions::new().read(true).write(true).create(true).truncate(false), path)
                .map_err(|error| open_error(path, &error))?;
            check_file(path, &file.metadata().map_err(|error| io_error("cannot be checked", path, &error))?)?;
            match file.try_lock() {
                Ok(()) => {
                    // The file may have been deleted between open and lock. Other processes would lock a new one.
                    if is_file_at(&file, path) {
                        return Ok(LockAttempt::Locked(file));
                    }
                }
                Err(TryLockError::WouldBlock) => return Ok(LockAttempt::Busy),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) if locks_unsupported(&error) => return Ok(LockAttempt::Unsupported),
                Err(TryLockError::Error(error)) => return Err(io_error("cannot be locked", path, &error)),
            }
        }
        Ok(LockAttempt::Busy)
    }

    /// Deletes some expired operations, for [`MAX_SWEEP_TIME`] at most. The caller holds the lock of `name`.
    ///
    /// The modification time of an operation's file is the end of its lifetime, so most files need not be opened.
    fn sweep(&self, _lock: &FileLock, name: &FileName, time: &Time) {
        let Ok(files) = fs::read_dir(&self.path) else { return };
        let mut files: Vec<_> = files.flatten().map(|file| file.path()).collect();
        // Start at a random file, so that a limited sweep reaches all of them in time.
        let first = fastrand::usize(..=files.len());
        files.rotate_left(first);
        let (now, deadline) = (time.host_now(), Deadline::within(MAX_SWEEP_TIME));
        let looks_expired = |path: &Path| {
            let end = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
            end.is_ok_and(|end| end + EXPIRED_RETENTION < system_time(now.wall))
        };
        for path in files {
            if deadline.has_passed() {
                return;
            }
            let file = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            let Some(operation) = FileName::operation_of(file).filter(|_| looks_expired(&path)) else { continue };
            // Do not wait for a second lock while holding one: two sweeps could wait for each other.
            let _lock = if operation.lock() == name.lock() {
                None
            } else {
                match self.try_lock(&self.path.join(operation.lock().as_str())) {
                    Ok(LockAttempt::Locked(lock)) => Some(FileLock::from_locked(lock)),
                    _ => continue,
                }
            };
            // Look again under the lock: the operation may have been written anew. Read the end of its lifetime from
            // the file itself as well: a copied file has another modification time, and the wall clock may be wrong.
            let is_expired = || {
                let text = self.read(&operation).ok().flatten();
                text.is_none_or(|text| has_expired(&text, EXPIRED_RETENTION, now, time.boot_id()))
            };
            if looks_expired(&path) && (file.ends_with(TEMP_SUFFIX) || is_expired()) {
                drop(fs::remove_file(&path));
            }
        }
    }

    /// True if the directory exists. Fails if it is not private to this user.
    fn check(&self) -> Result<bool, Error> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::new(ErrorKind::Store, "the path of the file store is empty; name a directory"));
        }
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) => check_directory(&self.path, &metadata).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("cannot be checked", &self.path, &error)),
        }
    }

    /// Creates the directory and its missing parents, and syncs them.
    fn create(&self) -> Result<(), Error> {
        if self.check()? {
            return Ok(());
        }
        let new: Vec<_> = self.path.ancestors().take_while(|path| !path.exists()).filter_map(Path::parent).collect();
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .recursive(true)
            .create(&self.path)
            .map_err(|error| io_error("cannot be created", &self.path, &error))?;
        for parent in new {
            // A failure is no reason to stop: only a loss of power soon after could lose the new directory.
            let _ = sync(parent);
        }
        self.check().map(drop)
    }
}

/// Writes the entries of a directory to the disk. Without this, a loss of power can undo a rename.
#[cfg(unix)]
fn sync(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some file systems cannot sync a directory: network file systems, shared folders of virtual machines.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        done => done,
    }
}

#[cfg(not(unix))]
fn sync(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Renames a temporary file over the file at `path`.
///
/// Windows refuses that while another process has the file open. Readers of this store close it at once, so try again
/// for a while.
fn rename_into_place(mut new: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    let deadline = Deadline::within(MAX_LOCK_WAIT);
    loop {
        match new.persist(path) {
            Ok(_) => return Ok(()),
            Err(error) if cfg!(unix) || deadline.has_passed() => return Err(error.error),
            Err(error) if error.error.kind() != io::ErrorKind::PermissionDenied => return Err(error.error),
            Err(error) => new = error.file,
        }
        // Newer versions of Windows can replace an open file through the standard library's rename.
        if fs::rename(new.path(), path).is_ok() {
            new.disable_cleanup(true);
            return Ok(());
        }
        thread::sleep(INITIAL_BACKOFF);
    }
}

/// The result of trying to lock a file.
enum LockAttempt {
    Locked(File),
    Busy,
    Unsupported,
}

/// Opens a file, or creates it with mode 0600 if `options` say so. Does not follow a symbolic link, and does not block
/// on a FIFO without a writer.
fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        // The cast keeps all bits: `bits` is as wide as the platform's `int`.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        options.mode(0o600).custom_flags(flags.bits() as i32);
    }
    options.open(path)
}

#[cfg(unix)]
fn check_directory(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    if metadata.is_symlink() {
        return Err(refusal(path, "is a symbolic link; name the directory that it leads to"));
    }
    if !metadata.is_dir() {
        return Err(refusal(path, "is no directory; remove it, or name another path"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refusal(path, "belongs to another user; name a directory of your own"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(refusal(path, "can be written to by other users; run `chmod 700` on it"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_directory(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    if metadata.is_dir() { Ok(()) } else { Err(refusal(path, "is no directory; remove it, or name another path")) }
}

#[cfg(unix)]
fn check_file(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    if metadata.is_symlink() {
        return Err(refusal(path, "is a symbolic link; remove it"));
    }
    if !metadata.is_file() {
        return Err(refusal(path, "is no regular file; remove it"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refusal(path, "belongs to another user; remove it"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refusal(path, "can be read or written by other users; remove it, or run `chmod 600` on it"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_file(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    if metadata.is_file() { Ok(()) } else { Err(refusal(path, "is no regular file; remove it")) }
}

/// True if `path` leads to this open file. Also true where the system has no inode numbers.
fn is_file_at(file: &File, path: &Path) -> bool {
    inode(file).is_none_or(|inode| fs::symlink_metadata(path).is_ok_and(|metadata| inode_of(&metadata) == inode))
}

/// Returns the inode number of an open file.
pub(super) fn inode(file: &File) -> Option<u64> {
    file.metadata().ok().as_ref().map(inode_of)
}

#[cfg(unix)]
fn inode_of(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

/// The standard library has no inode numbers on other systems. With one number for all, a path counts as leading to the
/// same file always.
#[cfg(not(unix))]
fn inode_of(_metadata: &Metadata) -> u64 {
    0
}

#[cfg(unix)]
fn locks_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(rustix::io::Errno::NOLCK.raw_os_error())
}

#[cfg(not(unix))]
fn locks_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

/// The error for a file or directory that the access checks refuse.
fn refusal(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::Store, format!("{path:?} {why}"))
}

/// The error for a file that cannot be opened. If the access checks find the cause, their error says what to do.
fn open_error(path: &Path, error: &io::Error) -> Error {
    let wrong = fs::symlink_metadata(path).ok().and_then(|metadata| check_file(path, &metadata).err());
    wrong.unwrap_or_else(|| io_error("cannot be opened", path, error))
}

fn io_error(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Store, format!("{path:?} {what}: {}", io_reason(error)))
}

/// How long a write waits for `.lock`. Managers wait one second for a store call, and the write itself takes time too.
pub(super) const MAX_LOCK_WAIT: Duration = Duration::from_millis(700);

/// Between two tries to take a lock: doubles from the first to the second, with 50 % jitter.
const INITIAL_BACKOFF: Duration = Duration::from_micros(200);
const MAX_BACKOFF: Duration = Duration::from_millis(5);

/// How often a lock is tried again whose file was deleted between open and lock.
const MAX_ATTEMPTS: usize = 4;

/// The first line of a file is shorter than this.
const MAX_HEADER_LEN: u64 = 2 * 1024;

/// Hexadecimal digits of a key's hash in a file name.
const HASH_LEN: usize = 32;

/// The ending of temporary files.
const TEMP_SUFFIX: &str = ".new";

/// The ending of files of renewal secrets.
const RENEWAL_SECRET_SUFFIX: &str = ".state";

/// The ending of files of idempotent operations.
const OPERATION_SUFFIX: &str = ".once";

/// One in this many writes of an operation sweeps the directory, for this time at most.
const WRITES_PER_SWEEP: u32 = 64;
const MAX_SWEEP_TIME: Duration = Duration::from_millis(20);

/// How long an expired operation is kept before a sweep deletes it: the wall clock may be wrong by hours.
const EXPIRED_RETENTION: Duration = Duration::from_secs(86_400);

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_the_file_system_cannot_sync_is_no_error() {
        let error = File::open("/proc").and_then(|directory| directory.sync_all()).expect_err("it cannot be synced");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(Directory::new(Path::new("/proc")).sync().is_ok());
        assert!(Directory::new(Path::new("/nowhere")).sync().is_err());
    }
}
