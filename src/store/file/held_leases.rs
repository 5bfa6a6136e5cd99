//! The leases that this process holds.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Mutex;

use super::directory::FileName;
use crate::clock::Deadline;
use crate::lock::lock;
use crate::store::Version;

/// The files that are locked as long as they stand here. What goes from here is closed and not unlocked, because a forked
/// child has it too, and to unlock it there would unlock it here. Whoever frees a lease takes the file, and unlocks it.
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
    pub(super) fn insert(&self, name: &FileName, version: Version, file: File, expires_at: Deadline) {
        self.with(|files| files.insert(name.clone(), LeaseFile { version, file, expires_at }));
    }

    pub(super) fn remove(&self, name: &FileName) -> Option<File> {
        self.with(|files| files.remove(name)).map(|lease| lease.file)
    }

    /// The file, if the lease is this one.
    pub(super) fn remove_version(&self, name: &FileName, version: &Version) -> Option<File> {
        let removed = self.with(|files| files.extract_if(|key, lease| key == name && lease.version == *version).next());
        removed.map(|(_, lease)| lease.file)
    }

    /// Lets go of the file when the lease is another's by now.
    pub(super) fn drop_other_version(&self, name: &FileName, version: &Version) {
        self.with(|files| files.extract_if(|key, lease| key == name && lease.version != *version).next());
    }

    /// Lets go of what is over first: nobody frees a lease that is left to run out.
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
