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

use super::layout::{LARGEST, Text, has_ended};
use crate::clock::{Deadline, Time, system_time};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::secret::hex;

pub(super) struct Folder {
    path: PathBuf,
    /// Whether it has been said that there are no locks.
    reported: AtomicBool,
}

/// The lock that is needed to change a file, or the lack of one where there are none.
pub(super) struct Guard(Option<File>);

impl Guard {
    /// What is locked already, to be let go of.
    pub(super) fn of(file: File) -> Guard {
        Guard(Some(file))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // To close it is not enough: a process that is being started just now may have it as well, for a while.
        if let Some(file) = &self.0 {
            let _ = file.unlock();
        }
    }
}

/// The name of a file without what it ends in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(String);

/// Tells one state of a file from another.
#[derive(PartialEq, Eq)]
pub(super) struct Look {
    number: u64,
    length: u64,
    changed: Option<SystemTime>,
}

impl Name {
    /// The file of a key that is no lease: a hash of the record's key, and what it is that stands beside the record.
    pub(super) fn of(key: &Key) -> Name {
        match key.split_suffix() {
            (record, Some(what)) => Name(format!("{}.{what}", hash(record))),
            (record, None) => Name(hash(record)),
        }
    }

    /// The file of the key that `key` is the lease of.
    pub(super) fn leased_by(key: &Key) -> Option<Name> {
        key.leased_key().map(|leased| Name::of(&leased))
    }

    /// Who holds the lease.
    pub(super) fn owner(&self) -> Name {
        Name(format!("{}.owner", self.0))
    }

    /// What the holder of the lease has locked.
    pub(super) fn lease(&self) -> Name {
        Name(format!("{}.lease", self.0))
    }

    /// What is locked to change the file. One for many, because what is done once leaves files that go, and locks stay.
    fn lock(&self) -> Name {
        Name(format!("{}.lock", &self.0[..2]))
    }

    /// What is done once: the file that this one is, or was to become.
    fn once_named(file: &str) -> Option<Name> {
        let is_hash = |start: &str| start.bytes().all(|byte| byte.is_ascii_hexdigit());
        let name = file.split_at_checked(HASH).filter(|(hash, end)| is_hash(hash) && end.starts_with(ONCE))?;
        Some(Name(format!("{}{ONCE}", name.0)))
    }

    /// True for what is done once. That comes in numbers without end, so what is over has to be cleared away.
    fn is_operation(&self) -> bool {
        self.0.ends_with(ONCE)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

fn hash(text: &str) -> String {
    hex(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..HASH / 2])
}

impl Folder {
    pub(super) fn new(path: &Path) -> Folder {
        // Else it would be another one after a change of the working directory.
        let path = absolute(path).unwrap_or_else(|_| path.to_owned());
        // A slash at the end would lead to where a link leads.
        let path = path.components().collect();
        Folder { path, reported: AtomicBool::new(false) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is in a file. `None`: there is none.
    pub(super) fn read(&self, name: &Name) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        if !self.check()? {
            return Ok(None);
        }
        let path = self.path.join(name.as_str());
        let file = match open(OpenOptions::new().read(true), &path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unopened(&path, &error)),
        };
        let about = file.metadata().map_err(|error| fault("cannot be looked at", &path, &error))?;
        check_file(&path, &about)?;
        let most = LONGEST_HEAD + LARGEST as u64;
        let mut bytes = Zeroizing::new(Vec::with_capacity(about.len().min(most) as usize));
        file.take(most).read_to_end(&mut bytes).map_err(|error| fault("cannot be read", &path, &error))?;
        Ok(Some(bytes))
    }

    /// Tells whether a file has changed since. `None`: there is none.
    pub(super) fn look_at(&self, name: &Name) -> Option<Look> {
        let about = fs::symlink_metadata(self.path.join(name.as_str())).ok()?;
        Some(Look { number: number_of(&about), length: about.len(), changed: about.modified().ok() })
    }

    /// Waits for the lock of a file. Makes the directory if there is none.
    pub(super) fn guard(&self, name: &Name) -> Result<Guard, Error> {
        self.guard_within(name, LONGEST_QUEUE)?.ok_or_else(|| self.kept_out(name))
    }

    /// The same, for no longer than this. `None`: another has it.
    pub(super) fn guard_within(&self, name: &Name, time: Duration) -> Result<Option<Guard>, Error> {
        self.make()?;
        let (path, deadline) = (self.path.join(name.lock().as_str()), Deadline::within(time));
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_lock(&path)? {
                Locked::Yes(file) => return Ok(Some(Guard(Some(file)))),
                Locked::NoLocks => return Ok(Some(Guard(None))),
                Locked::ByAnother if deadline.has_passed() => return Ok(None),
                Locked::ByAnother => {
                    thread::sleep(pause.mul_f64(0.5 + fastrand::f64()).min(deadline.remaining()));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// What to say when another has the lock.
    pub(super) fn kept_out(&self, name: &Name) -> Error {
        let path = self.path.join(name.lock().as_str());
        Error::new(ErrorKind::Store, format!("another process does not let go of the lock {path:?}"))
    }

    /// Replaces a record as a whole. What is in it is on the disk by then; that it is there is so after a
    /// [`sync`](Folder::sync).
    pub(super) fn write(&self, guard: &Guard, name: &Name, text: &Text, time: &Time) -> Result<(), Error> {
        self.replace(guard, name, &text.bytes, |file| {
            if name.is_operation() {
                file.set_modified(text.end)?;
            }
            file.sync_all()
        })?;
        if name.is_operation() && fastrand::u32(..CLEAR_EVERY) == 0 {
            self.clear(guard, name, time);
        }
        Ok(())
    }

    /// Replaces what stands for a lease. It need not outlast a loss of power, which ends the lease anyway.
    pub(super) fn write_owner(&self, guard: &Guard, name: &Name, text: &Text) -> Result<(), Error> {
        self.replace(guard, &name.owner(), &text.bytes, |_| Ok(()))
    }

    fn replace(
        &self,
        guard: &Guard,
        name: &Name,
        bytes: &[u8],
        finish: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), Error> {
        let path = self.path.join(name.as_str());
        let write = || {
            let mut new = self.new_file(guard, name)?;
            new.write_all(bytes)?;
            finish(new.as_file())?;
            if !self.is_still_mine(guard, name) {
                return Err(io::Error::other("somebody has removed the lock"));
            }
            put_in_place(new, &path)
        };
        write().map_err(|error| fault("cannot be written", &path, &error))
    }

    /// What was written before stays when the power fails. Needs no lock, and takes its time.
    pub(super) fn sync(&self) -> Result<(), Error> {
        sync(&self.path).map_err(|error| fault("cannot be synced", &self.path, &error))
    }

    /// False when somebody has removed the lock, so that another may have one of the same name by now.
    fn is_still_mine(&self, guard: &Guard, name: &Name) -> bool {
        guard.0.as_ref().is_none_or(|lock| self.is_in_place(lock, &name.lock()))
    }

    /// Named by the file and its lock: those who die while they write leave one at most, and the holder of a lock that was
    /// removed does not write where that of the next one does. Without locks two may write at once, so the name is random.
    fn new_file(&self, guard: &Guard, name: &Name) -> io::Result<tempfile::NamedTempFile> {
        let (suffix, random) = match &guard.0 {
            Some(lock) => (format!(".{:x}{NEW}", number(lock).unwrap_or_default()), 0),
            None => (NEW.to_owned(), 8),
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

    pub(super) fn remove(&self, _guard: &Guard, name: &Name) -> Result<(), Error> {
        let path = self.path.join(name.as_str());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault("cannot be removed", &path, &error)),
            _ => Ok(()),
        }
    }

    /// Locks the file of a lease, and keeps it locked until it is closed. `None`: another one has it, or there are no locks.
    pub(super) fn hold(&self, _guard: &Guard, name: &Name) -> Result<Option<File>, Error> {
        Ok(match self.try_lock(&self.path.join(name.lease().as_str()))? {
            Locked::Yes(file) => Some(file),
            Locked::ByAnother | Locked::NoLocks => None,
        })
    }

    /// True when the file with this number is locked by whoever holds the lease, or nobody can tell.
    pub(super) fn is_held(&self, guard: &Guard, name: &Name, file: u64) -> bool {
        if self.look_at(&name.lease()).is_none_or(|look| look.number != file) {
            return true;
        }
        // Whoever else wants to hold it needs the guard, so nobody is disturbed.
        match self.hold(guard, name) {
            Ok(Some(free)) => {
                drop(Guard::of(free));
                false
            }
            _ => true,
        }
    }

    /// False when somebody has removed the file since it was opened.
    pub(super) fn is_in_place(&self, file: &File, name: &Name) -> bool {
        is_at(file, &self.path.join(name.as_str()))
    }

    fn try_lock(&self, path: &Path) -> Result<Locked, Error> {
        for _ in 0..MOST_TRIES {
            let file = open(OpenOptions::new().read(true).write(true).create(true).truncate(false), path)
                .map_err(|error| unopened(path, &error))?;
            check_file(path, &file.metadata().map_err(|error| fault("cannot be looked at", path, &error))?)?;
            match file.try_lock() {
                Ok(()) => {
                    // Somebody may have removed it meanwhile: then others lock another one.
                    if is_at(&file, path) {
                        return Ok(Locked::Yes(file));
                    }
                }
                Err(TryLockError::WouldBlock) => return Ok(Locked::ByAnother),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) if has_no_locks(&error) => {
                    if !self.reported.swap(true, Ordering::Relaxed) {
                        let folder = &self.path;
                        log::warn!(
                            target: "evertoken",
                            "the file system of {folder:?} has no locks: two processes may fetch at once"
                        );
                    }
                    return Ok(Locked::NoLocks);
                }
                Err(TryLockError::Error(error)) => return Err(fault("cannot be locked", path, &error)),
            }
        }
        Ok(Locked::ByAnother)
    }

    /// Clears away some of what is done once and over.
    fn clear(&self, _guard: &Guard, name: &Name, time: &Time) {
        let Ok(files) = fs::read_dir(&self.path) else { return };
        let mut files: Vec<_> = files.flatten().map(|file| file.path()).collect();
        // Somewhere else each time: else nobody would ever come to those behind many that live.
        let first = fastrand::usize(..=files.len());
        files.rotate_left(first);
        let (now, deadline) = (time.on_this_host(), Deadline::within(LONGEST_CLEARING));
        let looks_over = |path: &Path| {
            let end = fs::symlink_metadata(path).and_then(|about| about.modified());
            end.is_ok_and(|end| end + KEPT < system_time(now.wall))
        };
        for path in files {
            if deadline.has_passed() {
                return;
            }
            let file = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            let Some(once) = Name::once_named(file).filter(|_| looks_over(&path)) else { continue };
            // Whoever waited here with a lock in hand could wait for the one who waits for it.
            let _lock = if once.lock() == name.lock() {
                None
            } else {
                match self.try_lock(&self.path.join(once.lock().as_str())) {
                    Ok(Locked::Yes(lock)) => Some(Guard::of(lock)),
                    _ => continue,
                }
            };
            // It may have come to lifetime again before the lock was had; a copy has another time than what is in it, and the wall
            // clock may be wrong.
            let is_over = || {
                let text = self.read(&once).ok().flatten();
                text.is_none_or(|text| has_ended(&text, KEPT, now, time.boot_id()))
            };
            if looks_over(&path) && (file.ends_with(NEW) || is_over()) {
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
            Ok(about) => check_folder(&self.path, &about).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(fault("cannot be looked at", &self.path, &error)),
        }
    }

    fn make(&self) -> Result<(), Error> {
        if self.check()? {
            return Ok(());
        }
        let new: Vec<_> = self.path.ancestors().take_while(|path| !path.exists()).filter_map(Path::parent).collect();
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&self.path).map_err(|error| fault("cannot be made", &self.path, &error))?;
        for parent in new {
            // Where it cannot be done, a loss of power may cost what is written first.
            let _ = sync(parent);
        }
        self.check().map(drop)
    }
}

/// What is in the directory is on the disk as well: else a new name can be lost with the power.
#[cfg(unix)]
fn sync(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
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
fn put_in_place(mut new: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    let deadline = Deadline::within(LONGEST_QUEUE);
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
        thread::sleep(FIRST_PAUSE);
    }
}

enum Locked {
    Yes(File),
    ByAnother,
    NoLocks,
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
fn check_folder(path: &Path, about: &Metadata) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    if about.is_symlink() {
        return Err(refused(path, "is a symbolic link; name the directory that it leads to"));
    }
    if !about.is_dir() {
        return Err(refused(path, "is no directory; remove it, or name another one"));
    }
    if about.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused(path, "belongs to another user; name a directory of your own"));
    }
    if about.mode() & 0o022 != 0 {
        return Err(refused(path, "can be written to by other users; `chmod 700` mends it"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_folder(path: &Path, about: &Metadata) -> Result<(), Error> {
    if about.is_dir() { Ok(()) } else { Err(refused(path, "is no directory; remove it, or name another one")) }
}

#[cfg(unix)]
fn check_file(path: &Path, about: &Metadata) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    if about.is_symlink() {
        return Err(refused(path, "is a symbolic link; remove it"));
    }
    if !about.is_file() {
        return Err(refused(path, "is no file; remove it"));
    }
    if about.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused(path, "belongs to another user; remove it"));
    }
    if about.mode() & 0o077 != 0 {
        return Err(refused(path, "can be read or written by other users; remove it, or `chmod 600` mends it"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_file(path: &Path, about: &Metadata) -> Result<(), Error> {
    if about.is_file() { Ok(()) } else { Err(refused(path, "is no file; remove it")) }
}

/// False when another file stands there, or none.
fn is_at(file: &File, path: &Path) -> bool {
    number(file).is_none_or(|number| fs::symlink_metadata(path).is_ok_and(|about| number_of(&about) == number))
}

/// What the file system knows the file by.
pub(super) fn number(file: &File) -> Option<u64> {
    file.metadata().ok().as_ref().map(number_of)
}

#[cfg(unix)]
fn number_of(about: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(about)
}

/// The standard library tells no number elsewhere. There a name is taken to lead to the same file always.
#[cfg(not(unix))]
fn number_of(_about: &Metadata) -> u64 {
    0
}

#[cfg(unix)]
fn has_no_locks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(rustix::io::Errno::NOLCK.raw_os_error())
}

#[cfg(not(unix))]
fn has_no_locks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

fn refused(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::Store, format!("{path:?} {why}"))
}

/// What is wrong with a file that cannot be opened, and what to do about it if that shows.
fn unopened(path: &Path, error: &io::Error) -> Error {
    let wrong = fs::symlink_metadata(path).ok().and_then(|about| check_file(path, &about).err());
    wrong.unwrap_or_else(|| fault("cannot be opened", path, error))
}

fn fault(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Store, format!("{path:?} {what}: {error}"))
}

/// How long a change waits for its turn, if nothing else is said. Managers wait a second for the store, and then it is to be
/// written.
pub(super) const LONGEST_QUEUE: Duration = Duration::from_millis(700);

const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// How often a lock is taken anew that was removed meanwhile.
const MOST_TRIES: usize = 4;

/// What stands in the first line of a file is shorter.
const LONGEST_HEAD: u64 = 2 * 1024;

/// How long the hash of a key is in the name of a file.
const HASH: usize = 32;

/// What a file ends in that is not whole yet.
const NEW: &str = ".new";

/// What the files end in of what is done once.
const ONCE: &str = ".once";

/// One write out of so many clears away what is over, and takes that long at most.
const CLEAR_EVERY: u32 = 64;
const LONGEST_CLEARING: Duration = Duration::from_millis(20);

/// How long what is over is kept, for the wall clock may be wrong.
const KEPT: Duration = Duration::from_secs(86_400);

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn where_a_directory_cannot_be_synced_nothing_is_amiss() {
        let error = File::open("/proc").and_then(|folder| folder.sync_all()).expect_err("it cannot be synced");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(Folder::new(Path::new("/proc")).sync().is_ok());
        assert!(Folder::new(Path::new("/nowhere")).sync().is_err());
    }
}
