//! Checks at the start of a program: what a log line would say later is an error now.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use evertoken::idempotency::Idempotency;
use evertoken::store::{Entry, Expected, Key, Store, SwapOutcome};
use evertoken::testing::FakeProvider;
use evertoken::{Error, ErrorKind, FileStore, MemoryStore, TokenManager, provider};

use crate::common::wait::*;

fn manager(store: impl Store) -> TokenManager {
    TokenManager::builder(FakeProvider::new()).store(store).build().unwrap()
}

/// A store that fails in a way that the test chooses.
#[derive(Debug)]
enum Bad {
    Fails(ErrorKind),
    Panics,
    Blocks,
}

impl Store for Bad {
    fn read(&self, _: &Key) -> Result<Option<Entry>, Error> {
        match self {
            Bad::Fails(kind) => Err(Error::new(*kind, "the backend says no; ask its owner")),
            Bad::Panics => panic!("the store panics"),
            Bad::Blocks => loop {
                std::thread::park();
            },
        }
    }

    fn compare_and_swap(&self, _: &Key, _: Expected<'_>, _: Option<(&[u8], Duration)>) -> Result<SwapOutcome, Error> {
        unreachable!("a check of a user's store only reads")
    }
}

#[test]
fn a_manager_without_a_store_and_with_one_in_memory_is_fine() {
    TokenManager::new(FakeProvider::new()).check().unwrap();
    manager(MemoryStore::new()).check().unwrap();
    Idempotency::new(MemoryStore::new()).check().unwrap();
}

#[test]
fn a_check_makes_the_directory_of_a_file_store_and_leaves_only_a_lock_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::at(folder.path().join("new").join("store"));
    let provider = FakeProvider::new();
    let tokens = TokenManager::builder(provider.clone()).store(store.clone()).build().unwrap();
    tokens.check().unwrap();
    tokens.check().unwrap();
    assert_eq!(provider.calls(), 0);
    assert_eq!(fs::metadata(store.directory()).unwrap().permissions().mode() & 0o777, 0o700);
    let names: Vec<_> = fs::read_dir(store.directory()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name.to_str().unwrap().ends_with(".lock")), "{names:?}");
}

#[test]
fn a_check_says_what_is_wrong_with_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    fs::create_dir(place("open")).unwrap();
    fs::set_permissions(place("open"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(place("file"), "").unwrap();
    fs::create_dir(place("target")).unwrap();
    symlink(place("target"), place("link")).unwrap();
    for name in ["open", "file", "link", "file/below"] {
        let store = FileStore::at(place(name));
        for checked in [manager(store.clone()).check(), Idempotency::new(store).check()] {
            let error = checked.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Store, "{error}");
            assert!(error.to_string().contains(place(name).to_str().unwrap()), "{error}");
        }
        // The manager's tokens come all the same.
        assert_eq!(text(&manager(FileStore::at(place(name)))), "token-1");
    }
}

#[test]
fn a_check_keeps_the_kind_and_the_text_of_a_users_store() {
    for kind in [ErrorKind::Config, ErrorKind::Store] {
        let error = manager(Bad::Fails(kind)).check().unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, "the backend says no; ask its owner"));
        assert_eq!(Idempotency::new(Bad::Fails(kind)).check().unwrap_err().kind(), kind);
    }
}

#[test]
fn a_check_names_the_fallback_store() {
    let tokens = TokenManager::builder(FakeProvider::new())
        .store(MemoryStore::new())
        .fallback_store(Bad::Fails(ErrorKind::Store))
        .build()
        .unwrap();
    assert_eq!(tokens.check().unwrap_err().to_string(), "fallback_store: the backend says no; ask its owner");
}

#[test]
fn a_check_survives_a_store_that_panics_or_never_returns() {
    for (bad, text) in [
        (Bad::Panics, "the shared store panicked"),
        (Bad::Blocks, "the shared store did not answer in time; check the store"),
    ] {
        let error = manager(bad).check().unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Store, text));
    }
}

#[test]
fn a_check_reports_wrong_settings_and_what_the_provider_says() {
    let bare = provider::from_fn("bare", |_| unreachable!("a check fetches no token"));
    TokenManager::new(bare).check().unwrap();
    let wrong = TokenManager::new(evertoken::WeCom::new("", "secret"));
    assert_eq!(wrong.check().unwrap_err().kind(), ErrorKind::Config);
    let once = Idempotency::new(MemoryStore::new()).claim_ttl(Duration::ZERO);
    assert_eq!(once.check().unwrap_err().kind(), ErrorKind::Config);
}

#[cfg(feature = "encryption")]
#[test]
fn a_check_of_an_encrypted_store_checks_the_store_inside() {
    use evertoken::{EncryptedStore, EncryptionKey};
    let key = || EncryptionKey::new(std::array::from_fn(|index| index as u8 * 7)).unwrap();
    manager(EncryptedStore::new(MemoryStore::new(), key())).check().unwrap();
    let store = EncryptedStore::new(Bad::Fails(ErrorKind::Config), key());
    assert_eq!(manager(store).check().unwrap_err().to_string(), "the backend says no; ask its owner");
}
