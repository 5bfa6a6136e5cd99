//! The directory of a file store: who may be in it, how a file is read and replaced, and the locks.

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

pub(super) struct Directory {
    path: PathBuf,
    /// Whether it has been said that there are no locks.
    reported: AtomicBool,
}

/// The lock that is needed to change a file, or the lack of one where there are none.
pub(super) struct FileLock(Option<File>);

impl FileLock {
    /// What is locked already, to be let go of.
    pub(super) fn from_locked(file: File) -> FileLock {
        FileLock(Some(file))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // To close it is not enough: a process that is being started just now may have it as well, for a while.
        if let Some(file) = &self.0 {
            let _ = file.unlock();
        }
    }
}

/// The name of a file without what it ends in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileName(String);

/// Tells one state of a file from another.
#[derive(PartialEq, Eq)]
pub(super) struct FileId {
    inode: u64,
    length: u64,
    changed: Option<SystemTime>,
}

impl FileName {
    /// The file of a key that is no lease: a hash of the record's key, and what it is that stands beside the record.
    pub(super) fn of(key: &Key) -> FileName {
        match key.split_suffix() {
            (record, Some(what)) => FileName(format!("{}.{what}", hash(record))),
            (record, None) => FileName(hash(record)),
        }
    }

    /// The file of the key that `key` is the lease of.
    pub(super) fn leased_by(key: &Key) -> Option<FileName> {
        key.leased_key().map(|leased| FileName::of(&leased))
    }

    /// Who holds the lease.
    pub(super) fn owner(&self) -> FileName {
        FileName(format!("{}.owner", self.0))
    }

    /// What the holder of the lease has locked.
    pub(super) fn lease(&self) -> FileName {
        FileName(format!("{}.lease", self.0))
    }

    /// What is locked to change the file. One for many, because what is done once leaves files that go, and locks stay.
    fn lock(&self) -> FileName {
        FileName(format!("{}.lock", &self.0[..2]))
    }

    /// What is done once: the file that this one is, or was to become.
    fn operation_of(file: &str) -> Option<FileName> {
        let is_hash = |start: &str| start.bytes().all(|byte| byte.is_ascii_hexdigit());
        let name =
            file.split_at_checked(HASH_LEN).filter(|(hash, end)| is_hash(hash) && end.starts_with(OPERATION_SUFFIX))?;
        Some(FileName(format!("{}{OPERATION_SUFFIX}", name.0)))
    }

    /// True for what is done once. That comes in numbers without end, so what is over has to be cleared away.
    fn is_operation(&self) -> bool {
        self.0.ends_with(OPERATION_SUFFIX)
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
        // Else it would be another one after a change of the working directory.
        let path = absolute(path).unwrap_or_else(|_| path.to_owned());
        // A slash at the end would lead to where a link leads.
        let path = path.components().collect();
        Directory { path, reported: AtomicBool::new(false) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is in a file. `None`: there is none.
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
        let metadata = file.metadata().map_err(|error| io_error("cannot be looked at", &path, &error))?;
        check_file(&path, &metadata)?;
        let most = MAX_HEADER_LEN + MAX_BYTES as u64;
        let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len().min(most) as usize));
        file.take(most).read_to_end(&mut bytes).map_err(|error| io_error("cannot be read", &path, &error))?;
        Ok(Some(bytes))
    }

    /// Tells whether a file has changed since. `None`: there is none.
    pub(super) fn file_id(&self, name: &FileName) -> Option<FileId> {
        let metadata = fs::symlink_metadata(self.path.join(name.as_str())).ok()?;
        Some(FileId { inode: inode_of(&metadata), length: metadata.len(), changed: metadata.modified().ok() })
    }

    /// Waits for the lock of a file. Makes the directory if there is none.
    pub(super) fn lock(&self, name: &FileName) -> Result<FileLock, Error> {
        self.lock_within(name, MAX_LOCK_WAIT)?.ok_or_else(|| self.lock_timeout_error(name))
    }

    /// The same, for no longer than this. `None`: another has it.
    pub(super) fn lock_within(&self, name: &FileName, time: Duration) -> Result<Option<FileLock>, Error> {
        self.create()?;
        let (path, deadline) = (self.path.join(name.lock().as_str()), Deadline::within(time));
        let mut backoff = INITIAL_BACKOFF;
        loop {
            match self.try_lock(&path)? {
                LockAttempt::Locked(file) => return Ok(Some(FileLock(Some(file)))),
                LockAttempt::Unsupported => return Ok(Some(FileLock(None))),
                LockAttempt::Busy if deadline.has_passed() => return Ok(None),
                LockAttempt::Busy => {
                    thread::sleep(backoff.mul_f64(0.5 + fastrand::f64()).min(deadline.remaining()));
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
    }

    /// What to say when another has the lock.
    pub(super) fn lock_timeout_error(&self, name: &FileName) -> Error {
        let path = self.path.join(name.lock().as_str());
        Error::new(ErrorKind::Store, format!("another process does not let go of the lock {path:?}"))
    }

    /// Replaces a record as a whole. What is in it is on the disk by then; that it is there is so after a
    /// [`sync`](Folder::sync).
    pub(super) fn write(
        &self,
        lock: &FileLock,
        name: &FileName,
        text: &EncodedRecord,
        time: &Time,
    ) -> Result<(), Error> {
        self.replace(lock, name, &text.bytes, |file| {
            if name.is_operation() {
                file.set_modified(text.end)?;
            }
            file.sync_all()
        })?;
        if name.is_operation() && fastrand::u32(..WRITES_PER_SWEEP) == 0 {
            self.sweep(lock, name, time);
        }
        Ok(())
    }

    /// Replaces what stands for a lease. It need not outlast a loss of power, which ends the lease anyway.
    pub(super) fn write_owner(&self, lock: &FileLock, name: &FileName, text: &EncodedRecord) -> Result<(), Error> {
        self.replace(lock, &name.owner(), &text.bytes, |_| Ok(()))
    }

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
            if !self.still_holds(lock, name) {
                return Err(io::Error::other("somebody has removed the lock"));
            }
            rename_into_place(new, &path)
        };
        write().map_err(|error| io_error("cannot be written", &path, &error))
    }

    /// What was written before stays when the power fails. Needs no lock, and takes its time.
    pub(super) fn sync(&self) -> Result<(), Error> {
        sync(&self.path).map_err(|error| io_error("cannot be synced", &self.path, &error))
    }

    /// False when somebody has removed the lock, so that another may have one of the same name by now.
    fn still_holds(&self, lock: &FileLock, name: &FileName) -> bool {
        lock.0.as_ref().is_none_or(|lock| self.is_current(lock, &name.lock()))
    }

    /// Named by the file and its lock: those who die while they write leave one at most, and the holder of a lock that was
    /// removed does not write where that of the next one does. Without locks two may write at once, so the name is random.
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
                let tell = |error| io::Error::new(error, format!("{path:?} is in the way; remove it"));
                fs::remove_file(&path).map_err(|error| tell(error.kind()))?;
                builder.tempfile_in(&self.path)
            }
            new => new,
        }
    }

    pub(super) fn remove(&self, _lock: &FileLock, name: &FileName) -> Result<(), Error> {
        let path = self.path.join(name.as_str());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("cannot be removed", &path, &error)),
            _ => Ok(()),
        }
    }

    /// Locks the file of a lease, and keeps it locked until it is closed. `None`: another one has it, or there are no locks.
    pub(super) fn try_lock_lease(&self, _lock: &FileLock, name: &FileName) -> Result<Option<File>, Error> {
        Ok(match self.try_lock(&self.path.join(name.lease().as_str()))? {
            LockAttempt::Locked(file) => Some(file),
            LockAttempt::Busy | LockAttempt::Unsupported => None,
        })
    }

    /// True when the file with this number is locked by whoever holds the lease, or nobody can tell.
    pub(super) fn is_lease_locked(&self, lock: &FileLock, name: &FileName, file: u64) -> bool {
        if self.file_id(&name.lease()).is_none_or(|id| id.inode != file) {
            return true;
        }
        // Whoever else wants to hold it needs the guard, so nobody is disturbed.
        match self.try_lock_lease(lock, name) {
            Ok(Some(free)) => {
                drop(FileLock::from_locked(free));
                false
            }
            _ => true,
        }
    }

    /// False when somebody has removed the file since it was opened.
    pub(super) fn is_current(&self, file: &File, name: &FileName) -> bool {
        is_file_at(file, &self.path.join(name.as_str()))
    }

    fn try_lock(&self, path: &Path) -> Result<LockAttempt, Error> {
        for _ in 0..MAX_ATTEMPTS {
            let file = open(OpenOptions::new().read(true).write(true).create(true).truncate(false), path)
                .map_err(|error| open_error(path, &error))?;
            check_file(path, &file.metadata().map_err(|error| io_error("cannot be looked at", path, &error))?)?;
            match file.try_lock() {
                Ok(()) => {
                    // Somebody may have removed it meanwhile: then others lock another one.
                    if is_file_at(&file, path) {
                        return Ok(LockAttempt::Locked(file));
                    }
                }
                Err(TryLockError::WouldBlock) => return Ok(LockAttempt::Busy),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) if locks_unsupported(&error) => {
                    if !self.reported.swap(true, Ordering::Relaxed) {
                        let directory = &self.path;
                        log::warn!(
                            target: "evertoken",
                            "the file system of {directory:?} has no locks: two processes may fetch at once"
                        );
                    }
                    return Ok(LockAttempt::Unsupported);
                }
                Err(TryLockError::Error(error)) => return Err(io_error("cannot be locked", path, &error)),
            }
        }
        Ok(LockAttempt::Busy)
    }

    /// Clears away some of what is done once and over.
    fn sweep(&self, _lock: &FileLock, name: &FileName, time: &Time) {
        let Ok(files) = fs::read_dir(&self.path) else { return };
        let mut files: Vec<_> = files.flatten().map(|file| file.path()).collect();
        // Somewhere else each time: else nobody would ever come to those behind many that live.
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
            // Whoever waited here with a lock in hand could wait for the one who waits for it.
            let _lock = if operation.lock() == name.lock() {
                None
            } else {
                match self.try_lock(&self.path.join(operation.lock().as_str())) {
                    Ok(LockAttempt::Locked(lock)) => Some(FileLock::from_locked(lock)),
                    _ => continue,
                }
            };
            // It may have come to lifetime again before the lock was had; a copy has another time than what is in it, and the wall
            // clock may be wrong.
            let is_expired = || {
                let text = self.read(&operation).ok().flatten();
                text.is_none_or(|text| has_expired(&text, EXPIRED_RETENTION, now, time.boot_id()))
            };
            if looks_expired(&path) && (file.ends_with(TEMP_SUFFIX) || is_expired()) {
                drop(fs::remove_file(&path));
            }
        }
    }

    /// True when the directory is there. It has to be the user's own.
    fn check(&self) -> Result<bool, Error> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::new(ErrorKind::Store, "the path of the directory is empty; name one"));
        }
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) => check_directory(&self.path, &metadata).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("cannot be looked at", &self.path, &error)),
        }
    }

    fn create(&self) -> Result<(), Error> {
        if self.check()? {
            return Ok(());
        }
        let new: Vec<_> = self.path.ancestors().take_while(|path| !path.exists()).filter_map(Path::parent).collect();
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&self.path).map_err(|error| io_error("cannot be made", &self.path, &error))?;
        for parent in new {
            // Where it cannot be done, a loss of power may cost what is written first.
            let _ = sync(parent);
        }
        self.check().map(drop)
    }
}

/// What is in the directory is on the disk as well: else a new name can be lost with the power.
#[cfg(unix)]
fn sync(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some file systems have no such thing, as those on the network and those of virtual machines.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        done => done,
    }
}

#[cfg(not(unix))]
fn sync(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Outside Unix a file that somebody is reading cannot always be replaced, and whoever reads one of these has done so at once.
fn rename_into_place(mut new: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    let deadline = Deadline::within(MAX_LOCK_WAIT);
    loop {
        match new.persist(path) {
            Ok(_) => return Ok(()),
            Err(error) if cfg!(unix) || deadline.has_passed() => return Err(error.error),
            Err(error) if error.error.kind() != io::ErrorKind::PermissionDenied => return Err(error.error),
            Err(error) => new = error.file,
        }
        // On newer systems this replaces it nevertheless.
        if fs::rename(new.path(), path).is_ok() {
            new.disable_cleanup(true);
            return Ok(());
        }
        thread::sleep(INITIAL_BACKOFF);
    }
}

enum LockAttempt {
    Locked(File),
    Busy,
    Unsupported,
}

/// Opens a file that is there or is made for its owner alone; never where a link leads, and never waiting for whoever is
/// at the other end of it.
fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        // The bits of a flag fit whatever the platform calls an `int`.
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
        return Err(refusal(path, "is no directory; remove it, or name another one"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refusal(path, "belongs to another user; name a directory of your own"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(refusal(path, "can be written to by other users; `chmod 700` mends it"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_directory(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    if metadata.is_dir() { Ok(()) } else { Err(refusal(path, "is no directory; remove it, or name another one")) }
}

#[cfg(unix)]
fn check_file(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    if metadata.is_symlink() {
        return Err(refusal(path, "is a symbolic link; remove it"));
    }
    if !metadata.is_file() {
        return Err(refusal(path, "is no file; remove it"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refusal(path, "belongs to another user; remove it"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refusal(path, "can be read or written by other users; remove it, or `chmod 600` mends it"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_file(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    if metadata.is_file() { Ok(()) } else { Err(refusal(path, "is no file; remove it")) }
}

/// False when another file stands there, or none.
fn is_file_at(file: &File, path: &Path) -> bool {
    inode(file).is_none_or(|inode| fs::symlink_metadata(path).is_ok_and(|metadata| inode_of(&metadata) == inode))
}

/// What the file system knows the file by.
pub(super) fn inode(file: &File) -> Option<u64> {
    file.metadata().ok().as_ref().map(inode_of)
}

#[cfg(unix)]
fn inode_of(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

/// The standard library tells no number elsewhere. There a name is taken to lead to the same file always.
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

fn refusal(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::Store, format!("{path:?} {why}"))
}

/// What is wrong with a file that cannot be opened, and what to do about it if that shows.
fn open_error(path: &Path, error: &io::Error) -> Error {
    let wrong = fs::symlink_metadata(path).ok().and_then(|metadata| check_file(path, &metadata).err());
    wrong.unwrap_or_else(|| io_error("cannot be opened", path, error))
}

fn io_error(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Store, format!("{path:?} {what}: {error}"))
}

/// How long a change waits for its turn, if nothing else is said. Managers wait a second for the store, and then it is to be
/// written.
pub(super) const MAX_LOCK_WAIT: Duration = Duration::from_millis(700);

const INITIAL_BACKOFF: Duration = Duration::from_micros(200);
const MAX_BACKOFF: Duration = Duration::from_millis(5);

/// How often a lock is taken anew that was removed meanwhile.
const MAX_ATTEMPTS: usize = 4;

/// What stands in the first line of a file is shorter.
const MAX_HEADER_LEN: u64 = 2 * 1024;

/// How long the hash of a key is in the name of a file.
const HASH_LEN: usize = 32;

/// What a file ends in that is not whole yet.
const TEMP_SUFFIX: &str = ".new";

/// What the files end in of what is done once.
const OPERATION_SUFFIX: &str = ".once";

/// One write out of so many clears away what is over, and takes that long at most.
const WRITES_PER_SWEEP: u32 = 64;
const MAX_SWEEP_TIME: Duration = Duration::from_millis(20);

/// How long what is over is kept, for the wall clock may be wrong.
const EXPIRED_RETENTION: Duration = Duration::from_secs(86_400);

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn where_a_directory_cannot_be_synced_nothing_is_amiss() {
        let error = File::open("/proc").and_then(|directory| directory.sync_all()).expect_err("it cannot be synced");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(Directory::new(Path::new("/proc")).sync().is_ok());
        assert!(Directory::new(Path::new("/nowhere")).sync().is_err());
    }
}
