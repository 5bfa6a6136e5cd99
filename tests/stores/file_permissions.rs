//! Files and directories of the store belong to the user alone; those of other users are refused.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Instant;

use evertoken::idempotency::{Idempotency, Outcome};
use evertoken::provider::{Grant, Identity, RenewalProfile};
use evertoken::store::{Expected, Key, LeaseOutcome, LeaseOwner, Store};
use evertoken::{ErrorKind, FileStore, TokenManager};

use crate::common::alone::{alone, not_tested};
use crate::common::logs::{logged, record_logs};
use crate::common::suite::{ask, key, put};
use crate::common::wait::*;
use crate::place::*;

#[test]
fn an_empty_path_and_a_link_followed_by_a_slash_are_refused() {
    let place = Place::new();
    fs::DirBuilder::new().mode(0o700).create(place.path()).unwrap();
    symlink(place.path(), place.folder.path().join("link")).unwrap();
    let link = format!("{}/link/", place.folder.path().display());
    for (path, why) in [("", "is empty"), (&link, "is a symbolic link")] {
        let store = FileStore::at(path);
        let (read, written) =
            (store.read(&key("x")), store.compare_and_swap(&key("x"), Expected::Any, Some((b"x", HOUR))));
        for error in [read.map(drop).unwrap_err(), written.map(drop).unwrap_err()] {
            assert!(error.kind() == ErrorKind::Store && error.to_string().contains(why), "{error}");
        }
    }
}

#[test]
fn files_belong_to_the_user_alone_whatever_the_umask_and_no_name_shows_a_secret() {
    alone(|| {
        record_logs();
        // SAFETY: no other thread of this process creates files now.
        unsafe { libc::umask(0) };
        let place = Place::new();
        let store = place.store();
        let keeps = RenewalProfile::refresh_token(Identity::new("files"), SECRET);
        let provider = provider().with_renewal(keeps).then(|_| {
            Ok(Grant::new(format!("{SECRET}-token"), 2 * HOUR).with_renewal_secret(format!("{SECRET}-refresh")))
        });
        let tokens = builder_on(&provider, &store).build().unwrap();
        assert!(text(&tokens).contains(SECRET));
        let once = Idempotency::new(store.clone());
        let Outcome::New(claim) = once.begin::<String>(&format!("{SECRET}-key"), "x").unwrap() else { panic!() };
        claim.complete(&SECRET.to_owned()).map_err(|_| ()).unwrap();
        assert!(matches!(ask(&store, &key("modes"), "a"), LeaseOutcome::Leased));
        let kinds: Vec<_> =
            place.names().iter().map(|name| name.split_once('.').map_or("", |(_, end)| end).to_owned()).collect();
        for kind in ["", "lock", "lease", "owner", "state", "once"] {
            assert!(kinds.iter().any(|one| one == kind), "{kind:?}: {kinds:?}");
        }
        for name in place.names() {
            let mode = fs::metadata(place.path().join(&name)).unwrap().mode();
            assert_eq!(mode & 0o7777, 0o600, "{name}");
            assert!(!name.contains("hunter2"), "{name}");
        }
        assert_eq!(fs::metadata(place.path()).unwrap().mode() & 0o7777, 0o700);
        // A secret in every part of a message that could be shown.
        fs::remove_file(place.record()).unwrap();
        fs::create_dir(place.path().join(place_of(&place, tokens.key()))).unwrap();
        let error = store.read(tokens.key()).unwrap_err();
        let shown = format!("{store:?} {error} {error:?} {tokens:?} {} {}", tokens.status(), logged());
        assert!(!shown.contains("hunter2"), "{shown}");
    });
}

/// The name of the file of a key.
fn place_of(place: &Place, key: &Key) -> String {
    let apart = Place::new();
    put(&apart.store(), key, b"x", HOUR);
    let name = apart.record().file_name().unwrap().to_str().unwrap().to_owned();
    assert!(place.names().iter().any(|other| other.starts_with(&name)), "{:?}", place.names());
    name
}

/// Obstacles that another user can create in the place of a file, and a word of the error for each.
const IN_THE_WAY: [(&str, &str); 9] = [
    ("a FIFO", "remove it"),
    ("a directory", "remove it"),
    ("a symbolic link", "remove it"),
    ("a link to nowhere", "remove it"),
    ("of mode 622", "run `chmod 600` on it"),
    ("of mode 640", "run `chmod 600` on it"),
    ("of mode 604", "run `chmod 600` on it"),
    ("of mode 644", "run `chmod 600` on it"),
    ("another user's", "remove it"),
];

fn put_in_the_way(what: &str, path: &Path) {
    let text = fs::read(path).unwrap_or_default();
    let _ = fs::remove_file(path);
    let target = path.parent().unwrap().parent().unwrap().join("target");
    match what {
        "a FIFO" => {
            let name = CString::new(path.as_os_str().as_bytes()).unwrap();
            // SAFETY: a plain system call with a string that outlives it.
            assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        }
        "a directory" => fs::create_dir(path).unwrap(),
        "a symbolic link" => {
            fs::write(&target, &text).unwrap();
            fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
            symlink(target, path).unwrap();
        }
        "a link to nowhere" => symlink(target.with_extension("nowhere"), path).unwrap(),
        "another user's" => {
            fs::write(path, text).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
            chown(path, Some(65_534), None).unwrap();
        }
        what => {
            let mode = what.strip_prefix("of mode ").unwrap_or_else(|| panic!("{what}?"));
            fs::write(path, text).unwrap();
            fs::set_permissions(path, Permissions::from_mode(u32::from_str_radix(mode, 8).unwrap())).unwrap();
        }
    }
}

#[test]
fn a_file_of_another_user_is_refused_with_advice_and_callers_still_get_a_token() {
    for (what, advice) in IN_THE_WAY {
        if what == "another user's" && !is_root() {
            not_tested(&format!("{what}, for only root can give a file away"));
            continue;
        }
        for end in ["", ".lock", ".owner", ".new", ".lease"] {
            let place = Place::new();
            let provider = provider();
            let key = TokenManager::new(provider.clone()).key().clone();
            put(&place.store(), &key, b"x", HOUR);
            let record = place.record();
            let hash = record.file_name().unwrap().to_str().unwrap();
            let lock = place.path().join(format!("{}.lock", &hash[..2]));
            let path = match end {
                ".lock" => lock,
                ".new" => place.path().join(format!("{hash}.{:x}.new", fs::metadata(lock).unwrap().ino())),
                end => place.path().join(format!("{hash}{end}")),
            };
            fs::remove_file(&record).unwrap();
            put_in_the_way(what, &path);
            let (store, asked) = (place.store(), Instant::now());
            let failed = match end {
                "" => store.read(&key).err(),
                ".new" => store.compare_and_swap(&key, Expected::Any, Some((b"x", HOUR))).err(),
                _ => store.read_or_lease(&key, None, SECOND, &LeaseOwner::new("a"), 10 * SECOND).err(),
            };
            // Obstacles in the place of a temporary file are leftovers of an ended process.
            if end != ".new" || what == "a directory" {
                let error = failed.unwrap_or_else(|| panic!("{what} as {end}"));
                assert_eq!(error.kind(), ErrorKind::Store);
                assert!(error.to_string().contains(advice), "{what} as {end}: {error}");
            } else {
                assert!(failed.is_none(), "{what} as {end}: {failed:?}");
            }
            let tokens = builder_on(&provider, &store).build().unwrap();
            assert_eq!(text(&tokens), "token-1", "{what} as {end}");
            assert!(asked.elapsed() < 5 * SECOND, "{what} as {end}: {:?}", asked.elapsed());
            assert!(!place.folder.path().join("target.nowhere").exists(), "nothing is written through a link");
        }
    }
}

#[test]
fn a_directory_of_another_user_is_refused_with_advice_and_callers_still_get_a_token() {
    for (what, advice) in [
        ("a FIFO", "is no directory; remove it"),
        ("a file", "is no directory; remove it"),
        ("a symbolic link", "name the directory that it leads to"),
        ("a link to nowhere", "name the directory that it leads to"),
        ("open to others", "run `chmod 700` on it"),
        ("another user's", "name a directory of your own"),
    ] {
        let place = Place::new();
        match what {
            "a file" => fs::write(place.path(), "x").unwrap(),
            "a symbolic link" => {
                symlink(tempfile::tempdir_in(place.folder.path()).unwrap().keep(), place.path()).unwrap()
            }
            "open to others" => {
                fs::DirBuilder::new().mode(0o700).create(place.path()).unwrap();
                fs::set_permissions(place.path(), Permissions::from_mode(0o770)).unwrap();
            }
            "another user's" if !is_root() => {
                not_tested(&format!("{what}, for only root can give a directory away"));
                continue;
            }
            "another user's" => {
                fs::DirBuilder::new().mode(0o700).create(place.path()).unwrap();
                chown(place.path(), Some(65_534), None).unwrap();
            }
            // Outside the folder of the test, so that the target of a link is not in it.
            what => put_in_the_way(what, &place.path()),
        }
        let store = place.store();
        let errors = [
            store.read(&key("folder")).unwrap_err(),
            store.compare_and_swap(&key("folder"), Expected::Any, Some((b"x", HOUR))).unwrap_err(),
        ];
        for error in errors {
            assert!(error.kind() == ErrorKind::Store && error.to_string().contains(advice), "{what}: {error}");
        }
        assert_eq!(text(&builder_on(&provider(), &store).build().unwrap()), "token-1", "{what}");
    }
}
