//! A directory with a store in files, and managers on it.

use std::fs;
use std::path::{Path, PathBuf};

use evertoken::provider::Identity;
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{FileStore, TokenManager, TokenManagerBuilder};
use tempfile::TempDir;

pub(crate) const SECRET: &str = "hunter2-the-secret";

/// A directory with a store in it, and a clock.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) clock: FakeClock,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap(), clock: FakeClock::new() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Another store on the same directory, as another process has.
    pub(crate) fn store(&self) -> FileStore {
        FileStore::with_clock(self.path(), self.clock.clone())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.path())
    }

    /// The one file whose name fits.
    pub(crate) fn file(&self, fits: impl Fn(&str) -> bool) -> PathBuf {
        let found: Vec<_> = self.names().into_iter().filter(|name| fits(name)).collect();
        assert_eq!(found.len(), 1, "{:?}", self.names());
        self.path().join(&found[0])
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.file(|name| !name.contains('.'))
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

pub(crate) fn provider() -> FakeProvider {
    FakeProvider::new().with_identity(Identity::new("files"))
}

pub(crate) fn builder_on(provider: &FakeProvider, store: &FileStore) -> TokenManagerBuilder {
    TokenManager::builder(provider.clone()).jitter(0.0).store(store.clone())
}

pub(crate) fn is_root() -> bool {
    // SAFETY: a plain system call.
    unsafe { libc::geteuid() == 0 }
}
