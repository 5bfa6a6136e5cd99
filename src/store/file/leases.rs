//! The leases that this process holds.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Mutex;

use super::folder::Name;
use crate::clock::Deadline;
use crate::lock::lock;
use crate::store::Version;

/// The files that are locked as long as they stand here. What goes from here is closed and not unlocked, because a forked
/// child has it too, and to unlock it there would unlock it here. Whoever frees a lease takes the file, and unlocks it.
#[derive(Default)]
pub(super) struct Leases(Mutex<Held>);

#[derive(Default)]
struct Held {
    process: u32,
    by_name: HashMap<Name, Lease>,
}

struct Lease {
    version: Version,
    file: File,
    end: Deadline,
}

impl Leases {
    pub(super) fn keep(&self, name: &Name, version: Version, file: File, end: Deadline) {
        self.with(|held| held.insert(name.clone(), Lease { version, file, end }));
    }

    pub(super) fn take(&self, name: &Name) -> Option<File> {
        self.with(|held| held.remove(name)).map(|lease| lease.file)
    }

    /// The file, if the lease is this one.
    pub(super) fn take_if(&self, name: &Name, version: &Version) -> Option<File> {
        let taken = self.with(|held| held.extract_if(|key, lease| key == name && lease.version == *version).next());
        taken.map(|(_, lease)| lease.file)
    }

    /// Lets go of the file when the lease is another's by now.
    pub(super) fn forget_unless(&self, name: &Name, version: &Version) {
        self.with(|held| held.extract_if(|key, lease| key == name && lease.version != *version).next());
    }

    /// Lets go of what is over first: nobody frees a lease that is left to run out.
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<Name, Lease>) -> T) -> T {
        let mut held = lock(&self.0);
        let process = std::process::id();
        if held.process != process {
            *held = Held { process, ..Held::default() };
        }
        held.by_name.retain(|_, lease| !lease.end.has_passed());
        work(&mut held.by_name)
    }
}
