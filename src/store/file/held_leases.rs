//! The locked `.lease` files of the leases that this process holds.
//!
//! The system releases a `flock` lock when the last descriptor of the open file is closed, or when any of them is
//! unlocked. A forked child inherits the descriptors. So files that merely leave this list are closed and not unlocked:
//! unlocking in the child would release the parent's lease. Only code that releases a lease removes its file from the
//! list and unlocks it.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Mutex;

use super::directory::FileName;
use crate::clock::Deadline;
use crate::lock::lock;
use crate::store::Version;

/// The files in this list stay locked.
#[derive(Default)]
pub(super) struct HeldLeases(Mutex<LeaseFiles>);

#[derive(Default)]
struct LeaseFiles {
    process_id: u32,
    by_name: HashMap<FileName, LeaseFile>,
}

struct LeaseFile {
    version: Version,
    file: File,
    expires_at: Deadline,
}

impl HeldLeases {
    /// Keeps `file` locked until the lease is released or `expires_at` has passed.
    pub(super) fn insert(&self, name: &FileName, version: Version, file: File, expires_at: Deadline) {
        self.with(|files| files.insert(name.clone(), LeaseFile { version, file, expires_at }));
    }

    /// Takes the file of a lease out of the list, still locked.
    pub(super) fn remove(&self, name: &FileName) -> Option<File> {
        self.with(|files| files.remove(name)).map(|lease| lease.file)
    }

    /// Takes the file of a lease out of the list if the lease has this version.
    pub(super) fn remove_version(&self, name: &FileName, version: &Version) -> Option<File> {
        let removed = self.with(|files| files.extract_if(|key, lease| key == name && lease.version == *version).next());
        removed.map(|(_, lease)| lease.file)
    }

    /// Closes the file of a lease if another owner has taken the lease since.
    pub(super) fn drop_other_version(&self, name: &FileName, version: &Version) {
        self.with(|files| files.extract_if(|key, lease| key == name && lease.version != *version).next());
    }

    /// Runs `work` on the list, after two cleanups: a forked child starts with an empty list, and the files of expired
    /// leases are closed, because nothing else removes a lease that was left to expire.
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<FileName, LeaseFile>) -> T) -> T {
        let mut files = lock(&self.0);
        let process_id = std::process::id();
        if files.process_id != process_id {
            *files = LeaseFiles { process_id, ..LeaseFiles::default() };
        }
        files.by_name.retain(|_, lease| !lease.expires_at.has_passed());
        work(&mut files.by_name)
    }
}
