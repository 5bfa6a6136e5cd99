//! The store in files: what stands in them, who may have put it there, and what the clocks say about it.

use std::env;
use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::common::alone::{alone, not_tested};
use crate::common::logs::{logged, record_logs};
use crate::common::suite::{ask, bytes, ends_within, key, put};
use crate::common::wait::*;
use evertoken::clock::{Clock, Timestamp};
use evertoken::idempotency::{Idempotency, Outcome};
use evertoken::provider::{Grant, Identity, RenewalProfile};
use evertoken::store::{Expected, Key, LeaseOutcome, LeaseOwner, PublishOutcome, Store, SwapOutcome, Version};
use evertoken::testing::{FakeClock, FakeProvider, FakeVendor};
use evertoken::{ErrorKind, FileStore, OAuth2, RefreshToken, TokenManager, TokenManagerBuilder};
use tempfile::TempDir;

const SECRET: &str = "hunter2-the-secret";

/// A directory with a store in it.
struct Place {
    folder: TempDir,
    clock: FakeClock,
}

impl Place {
    fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap(), clock: FakeClock::new() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Another store, as another process has one.
    fn store(&self) -> FileStore {
        FileStore::with_clock(self.path(), self.clock.clone())
    }

    fn names(&self) -> Vec<String> {
        names(&self.path())
    }

    /// The file with such a name. There is one.
    fn file(&self, fits: impl Fn(&str) -> bool) -> PathBuf {
        let found: Vec<_> = self.names().into_iter().filter(|name| fits(name)).collect();
        assert_eq!(found.len(), 1, "{:?}", self.names());
        self.path().join(&found[0])
    }

    fn record(&self) -> PathBuf {
        self.file(|name| !name.contains('.'))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn provider() -> FakeProvider {
    FakeProvider::new().with_identity(Identity::new("files"))
}

fn builder_on(provider: &FakeProvider, store: &FileStore) -> TokenManagerBuilder {
    TokenManager::builder(provider.clone()).jitter(0.0).store(store.clone())
}

#[test]
fn a_store_without_a_directory_named_is_in_the_users_cache_once_something_is_kept() {
    alone(|| {
        let home = tempfile::tempdir().unwrap();
        let is_at = |place: PathBuf| {
            let (provider, store) = (provider(), FileStore::new().unwrap());
            assert_eq!(store.directory(), place);
            assert!(store.read(&key("cache")).unwrap().is_none());
            let tokens = builder_on(&provider, &store).build().unwrap();
            assert_eq!(names(home.path()), [""; 0], "nothing is to be kept yet");
            assert_eq!(text(&tokens), "token-1");
            assert_eq!(fs::metadata(place).unwrap().mode() & 0o7777, 0o700);
            let other = builder_on(&provider, &FileStore::new().unwrap()).build().unwrap();
            assert_eq!((text(&other).as_str(), provider.calls()), ("token-1", 1));
        };
        // SAFETY: no other thread of this process reads or changes the environment now.
        unsafe {
            env::set_var("HOME", home.path().join("home"));
            env::set_var("XDG_CACHE_HOME", home.path().join("cache"));
        }
        is_at(home.path().join("cache/evertoken"));
        assert_eq!(names(home.path()), ["cache"]);
        fs::remove_dir_all(home.path().join("cache")).unwrap();
        // SAFETY: the managers have gone, and what they leave running reads no environment.
        unsafe { env::remove_var("XDG_CACHE_HOME") };
        is_at(home.path().join("home/.cache/evertoken"));
        assert_eq!(names(home.path()), ["home"]);
    });
}

#[test]
fn what_is_damaged_cut_short_or_foreign_is_absent_and_is_replaced() {
    let place = Place::new();
    let (store, key) = (place.store(), key("damaged"));
    put(&store, &key, b"{\"a\":1}\nsecond line", HOUR);
    let (path, whole) = (place.record(), fs::read(place.record()).unwrap());
    let is_absent = |what: &str, text: &[u8]| {
        fs::write(&path, text).unwrap();
        assert!(store.read(&key).unwrap().is_none(), "{what}");
    };
    (0..whole.len()).for_each(|length| is_absent(&format!("cut at {length}"), &whole[..length]));
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        is_absent(&format!("bit {bit}"), &flipped);
    }
    is_absent("something behind it", &[&whole[..], b"x"].concat());
    is_absent("other JSON", b"{\"access_token\":\"x\"}");
    is_absent("other JSON in lines", b"{\"access_token\":\"x\"}\n{}\n");
    is_absent("bytes of no kind", &[0, 159, 146, 150, b'\n', b' ', 255, b'\n']);
    is_absent("one line without end", &vec![b'x'; 10 << 20]);
    is_absent("lines without end", &vec![b'\n'; 10 << 20]);
    let long = [&whole[..], &vec![b'x'; 10 << 20]].concat();
    is_absent("one of ours that goes on without end", &long);
    is_absent("of a later version", &with_head(&whole, |head| head["evertoken"] = 2.into()));
    is_absent("of another key", &with_head(&whole, |head| head["key"] = "evertoken:{v1:other}".into()));
    assert!(matches!(
        store.compare_and_swap(&key, Expected::Absent, Some((b"new", HOUR))).unwrap(),
        SwapOutcome::Done(_)
    ));
    assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), b"new");
    fs::write(&path, &whole).unwrap();
    assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), b"{\"a\":1}\nsecond line", "the whole one is read");
}

/// The text of a file with another first line, which is whole in itself.
fn with_head(text: &[u8], edit: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let line = text.iter().position(|byte| *byte == b'\n').unwrap();
    let head = std::str::from_utf8(&text[..line]).unwrap().rsplit_once(' ').unwrap().0;
    let mut head: serde_json::Value = serde_json::from_str(head).unwrap();
    edit(&mut head);
    let head = head.to_string();
    let hash = Version::of_bytes(head.as_bytes());
    [head.as_bytes(), b" ", hash.as_str().as_bytes(), &text[line..]].concat()
}

#[test]
fn the_file_of_another_key_is_absent() {
    let place = Place::new();
    let (store, one, other) = (place.store(), key("one"), key("other"));
    put(&store, &one, b"one", HOUR);
    let path = place.record();
    put(&store, &other, b"other", HOUR);
    let copied = place.file(|name| !name.contains('.') && !path.ends_with(name));
    fs::copy(&path, copied).unwrap();
    assert!(store.read(&other).unwrap().is_none());
    assert!(store.read(&one).unwrap().is_some());
}

#[test]
fn what_cannot_be_read_is_reported_once_by_each_store_and_not_quoted() {
    alone(|| {
        record_logs();
        let place = Place::new();
        put(&place.store(), &key("reported"), SECRET.as_bytes(), HOUR);
        let whole = fs::read(place.record()).unwrap();
        fs::write(place.record(), &whole[..whole.len() - 1]).unwrap();
        for _ in 0..2 {
            let store = place.store();
            (0..5).for_each(|_| assert!(store.clone().read(&key("reported")).unwrap().is_none()));
        }
        assert_eq!(logged().matches("cannot be read").count(), 2, "{}", logged());
        assert!(!logged().contains(SECRET), "{}", logged());
        let tokens = builder_on(&provider(), &place.store()).build().unwrap();
        assert_eq!(text(&tokens), "token-1");
    });
}

#[test]
fn the_sooner_end_counts_and_after_another_start_of_the_machine_the_wall_clock_alone() {
    const LIFETIME: Duration = Duration::from_secs(100);
    let left = |place: &Place| place.store().read(&key("clocks")).unwrap().map(|entry| entry.remaining());
    let around = |time: Duration| time.saturating_sub(Duration::from_millis(5))..=time;
    let written = || {
        let place = Place::new();
        put(&place.store(), &key("clocks"), b"x", LIFETIME);
        place
    };
    // The machine slept: the wall clock is ahead.
    let place = written();
    place.clock.suspend(LIFETIME / 2);
    assert!(around(LIFETIME / 2).contains(&left(&place).unwrap()), "{:?}", left(&place));
    place.clock.suspend(LIFETIME / 2);
    assert_eq!(left(&place), None);
    // The wall clock was set back a little: the other one is ahead.
    let place = written();
    place.clock.advance(LIFETIME / 2);
    place.clock.step_back(Duration::from_millis(900));
    assert!(around(LIFETIME / 2).contains(&left(&place).unwrap()), "{:?}", left(&place));
    let text = fs::read(place.record()).unwrap();
    fs::write(place.record(), with_head(&text, |head| head["boot"]["id"] = "another".into())).unwrap();
    let by_the_wall = LIFETIME / 2 + Duration::from_millis(900);
    assert!(around(by_the_wall).contains(&left(&place).unwrap()), "{:?}", left(&place));
    fs::write(place.record(), with_head(&text, |head| head["boot"] = serde_json::Value::Null)).unwrap();
    assert!(around(by_the_wall).contains(&left(&place).unwrap()), "{:?}", left(&place));
    // Its start is to come: nobody can tell but the clock of the machine.
    let place = written();
    place.clock.advance(LIFETIME / 2);
    place.clock.step_back(HOUR);
    assert!(around(LIFETIME / 2).contains(&left(&place).unwrap()), "{:?}", left(&place));
    let text = fs::read(place.record()).unwrap();
    fs::write(place.record(), with_head(&text, |head| head["boot"] = serde_json::Value::Null)).unwrap();
    assert_eq!(left(&place), None);
    place.clock.step_forward(HOUR);
    assert!(left(&place).is_some());
    // Never longer than it was given, even when the clock was set back by less than is noticed.
    let place = written();
    place.clock.step_back(Duration::from_millis(900));
    assert!(left(&place).unwrap() <= LIFETIME);
    // The clock was set forward past the end.
    place.clock.step_forward(2 * LIFETIME);
    assert_eq!(left(&place), None);
}

fn signed_in(host: &FakeVendor, place: &Place) -> TokenManager {
    let client = OAuth2::new(host.token_url(), "client", "secret");
    let builder = TokenManager::builder(RefreshToken::new(client, "refresh-1")).store(place.store());
    builder.clock(place.clock.clone()).build().unwrap()
}

#[test]
fn a_wall_clock_that_is_set_back_ends_no_sign_in_on_files() {
    let (place, host) = (Place::new(), FakeVendor::oauth2());
    text(&signed_in(&host, &place));
    for _ in 0..2 {
        place.clock.step_back(HOUR);
        let tokens = signed_in(&host, &place);
        tokens.invalidate().unwrap();
        text(&tokens);
    }
    assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2", "refresh-3"]);
    // The machine has been started anew since, and shows a time before all that.
    let state = place.file(|name| name.ends_with(".state"));
    let written = fs::read(&state).unwrap();
    fs::remove_file(place.record()).unwrap();
    fs::write(&state, with_head(&written, |head| head["boot"]["id"] = "another".into())).unwrap();
    place.clock.step_back(HOUR);
    text(&signed_in(&host, &place));
    assert_eq!(host.used_refresh_tokens().last().unwrap(), "refresh-4");
}

/// With nothing to go by but a wall clock that shows a time before it was written.
#[test]
fn a_claim_that_seems_to_come_from_the_future_keeps_nobody_waiting_for_long() {
    let place = Place::new();
    let once = Idempotency::new(place.store());
    let begin = || once.begin::<u32>("charge", "").unwrap();
    assert!(matches!(begin(), Outcome::New(_)));
    let claim = place.file(|name| name.ends_with(".once"));
    let written = fs::read(&claim).unwrap();
    fs::write(&claim, with_head(&written, |head| head["boot"] = serde_json::Value::Null)).unwrap();
    place.clock.step_back(20 * SECOND);
    assert!(matches!(begin(), Outcome::InProgress { remaining } if remaining <= 30 * SECOND));
    place.clock.step_back(HOUR);
    assert!(matches!(begin(), Outcome::New(_)), "it would last for an hour");
}

/// To begin with the first refresh token again could end the sign-in. Sealed stores and Redis do not either.
#[test]
fn a_refresh_token_in_a_file_that_cannot_be_read_is_not_guessed() {
    let (place, host) = (Place::new(), FakeVendor::oauth2());
    text(&signed_in(&host, &place));
    let state = place.file(|name| name.ends_with(".state"));
    let whole = fs::read_to_string(&state).unwrap();
    fs::remove_file(place.record()).unwrap();
    let later = whole.replacen(r#""evertoken":1"#, r#""evertoken":2"#, 1);
    for damaged in [later.as_str(), &whole[..whole.len() - 1], ""] {
        assert_ne!(damaged, whole);
        fs::write(&state, damaged).unwrap();
        assert_eq!(signed_in(&host, &place).token().unwrap_err().kind(), ErrorKind::Store);
    }
    assert_eq!(host.used_refresh_tokens(), ["refresh-1"]);
    fs::write(&state, whole).unwrap();
    text(&signed_in(&host, &place));
    assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2"]);
}

#[test]
fn a_directory_without_a_name_and_a_link_with_a_slash_behind_it_are_refused() {
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
fn a_store_that_may_hang_is_not_read_at_once() {
    let place = Place::new();
    let (store, key) = (place.store(), key("slow"));
    put(&store, &key, b"x", HOUR);
    assert_eq!(bytes(store.read_at_once(&key)).unwrap(), b"x");
    assert!(store.clone().on_network_file_system(true).read_at_once(&key).is_none());
}

#[test]
fn lives_of_all_lengths_are_kept_and_no_life_is_over_at_once() {
    let place = Place::new();
    let store = place.store();
    for life in [Duration::MAX, Duration::from_secs(1 << 40), Duration::from_millis(2)] {
        put(&store, &key("lives"), b"x", life);
        assert!(store.read(&key("lives")).unwrap().is_some(), "{life:?}");
    }
    for life in [Duration::ZERO, Duration::from_nanos(1)] {
        put(&store, &key("lives"), b"x", life);
        assert!(store.read(&key("lives")).unwrap().is_none(), "{life:?}");
    }
}

#[test]
fn files_are_the_users_alone_whatever_the_umask_and_no_name_shows_a_secret() {
    alone(|| {
        record_logs();
        // SAFETY: no other thread of this process makes files now.
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
        // Everything that a message can be about, with a secret in it.
        fs::remove_file(place.record()).unwrap();
        fs::create_dir(place.path().join(place_of(&place, tokens.key()))).unwrap();
        let error = store.read(tokens.key()).unwrap_err();
        let shown = format!("{store:?} {error} {error:?} {tokens:?} {} {}", tokens.status(), logged());
        assert!(!shown.contains("hunter2"), "{shown}");
    });
}

/// The name of the file of a key, by what is beside it.
fn place_of(place: &Place, key: &Key) -> String {
    let apart = Place::new();
    put(&apart.store(), key, b"x", HOUR);
    let name = apart.record().file_name().unwrap().to_str().unwrap().to_owned();
    assert!(place.names().iter().any(|other| other.starts_with(&name)), "{:?}", place.names());
    name
}

/// What somebody can have put where something of the store belongs, and what is said about it.
const IN_THE_WAY: [(&str, &str); 9] = [
    ("a FIFO", "remove it"),
    ("a directory", "remove it"),
    ("a symbolic link", "remove it"),
    ("a link to nowhere", "remove it"),
    ("of mode 622", "`chmod 600` mends it"),
    ("of mode 640", "`chmod 600` mends it"),
    ("of mode 604", "`chmod 600` mends it"),
    ("of mode 644", "`chmod 600` mends it"),
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

fn is_root() -> bool {
    // SAFETY: a plain system call.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn what_others_could_have_put_there_is_refused_with_what_to_do_and_the_token_comes() {
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
            // What else stands where a new file comes is left from one who died.
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
fn a_directory_that_others_could_have_made_is_refused_with_what_to_do_and_the_token_comes() {
    for (what, advice) in [
        ("a FIFO", "is no directory; remove it"),
        ("a file", "is no directory; remove it"),
        ("a symbolic link", "name the directory that it leads to"),
        ("a link to nowhere", "name the directory that it leads to"),
        ("open to others", "`chmod 700` mends it"),
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
            // Beside the folder of the test, so that what a link leads to is not in it.
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

#[test]
fn a_directory_that_is_removed_is_made_again() {
    let place = Place::new();
    let (store, key) = (place.store(), key("removed"));
    for _ in 0..3 {
        put(&store, &key, b"x", HOUR);
        fs::remove_dir_all(place.path()).unwrap();
        assert!(store.read(&key).unwrap().is_none());
        assert!(matches!(ask(&store, &key, "a"), LeaseOutcome::Leased));
        fs::remove_dir_all(place.path()).unwrap();
        // The lease has gone with it, and the holder's record is no worse for that.
        assert!(matches!(ask(&store, &key, "b"), LeaseOutcome::Leased));
        assert!(matches!(
            store.publish(&key, &LeaseOwner::new("a"), None, b"a", HOUR).unwrap(),
            PublishOutcome::Done(_)
        ));
        assert!(matches!(ask(&place.store(), &key, "c"), LeaseOutcome::Found(_)));
    }
}

#[test]
fn a_directory_that_is_removed_while_its_lease_is_held_costs_the_holder_nothing() {
    let place = Place::new();
    let (provider, store) = (provider().gated(), place.store());
    let tokens = builder_on(&provider, &store).build().unwrap();
    let events = tokens.events();
    tokens.warm_up();
    assert!(provider.wait_for_calls(1, PATIENCE));
    fs::remove_dir_all(place.path()).unwrap();
    provider.permit(1);
    wait_for_grant(&events);
    assert_eq!(text(&tokens), "token-1");
    eventually("it is recorded", || store.read(tokens.key()).unwrap().is_some());
    assert_eq!(text(&builder_on(&provider, &place.store()).build().unwrap()), "token-1");
}

#[test]
fn a_lease_whose_lock_files_are_removed_lasts_its_life() {
    let place = Place::new();
    let key = key("unlocked");
    let holder = place.store();
    assert!(matches!(ask(&holder, &key, "a"), LeaseOutcome::Leased));
    fs::remove_file(place.file(|name| name.ends_with(".lease"))).unwrap();
    fs::remove_file(place.file(|name| name.ends_with(".lock"))).unwrap();
    assert!(matches!(ask(&place.store(), &key, "b"), LeaseOutcome::Busy { .. }));
    // Asked for again, it has a lock again, which tells that its holder has gone.
    assert!(matches!(ask(&holder, &key, "a"), LeaseOutcome::Leased));
    assert!(matches!(ask(&place.store(), &key, "b"), LeaseOutcome::Busy { .. }));
    drop(holder);
    assert!(matches!(ask(&place.store(), &key, "b"), LeaseOutcome::Leased));
}

#[test]
fn who_waits_for_a_lock_that_is_removed_takes_the_new_one() {
    let place = Place::new();
    let (store, key) = (place.store(), key("queue"));
    put(&store, &key, b"one", HOUR);
    let path = place.file(|name| name.ends_with(".lock"));
    let held = File::open(&path).unwrap();
    held.lock().unwrap();
    let error = store.compare_and_swap(&key, Expected::Any, Some((b"two", HOUR))).unwrap_err();
    assert!(error.kind() == ErrorKind::Store && error.to_string().contains("does not let go"), "{error}");
    assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), b"one", "reading needs no lock");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| store.compare_and_swap(&key, Expected::Any, Some((b"two", HOUR))));
        assert!(!ends_within(&waiting, SECOND / 10), "it waits for its turn");
        fs::remove_file(&path).unwrap();
        assert!(matches!(waiting.join().unwrap().unwrap(), SwapOutcome::Done(_)));
    });
    assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), b"two");
}

#[test]
fn what_waits_for_a_lock_is_kept_no_longer_for_that() {
    let place = Place::new();
    let (key, owner) = (key("slept"), LeaseOwner::new("owner"));
    put(&place.store(), &key, b"one", HOUR / 4);
    let path = place.file(|name| name.ends_with(".lock"));
    let write = |how: &str, store: &FileStore| match how {
        "swap" => drop(store.compare_and_swap(&key, Expected::Any, Some((b"two", HOUR))).unwrap()),
        _ => drop(store.publish(&key, &owner, None, b"three", HOUR).unwrap()),
    };
    for how in ["swap", "publish"] {
        let (held, clock) = (File::open(&path).unwrap(), Looked::at(&place.clock));
        held.lock().unwrap();
        let store = FileStore::with_clock(place.path(), clock.clone());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| write(how, &store));
            clock.wait();
            // As a laptop that sleeps, or a process that is stopped, just then.
            place.clock.advance(HOUR / 2);
            held.unlock().unwrap();
            waiting.join().unwrap();
        });
        let entry = store.read(&key).unwrap().unwrap();
        assert!(entry.bytes() != b"one" && entry.remaining() <= HOUR / 2, "{how}: {entry:?}");
    }
}

#[test]
fn a_publication_that_was_stopped_does_not_replace_what_lives_longer_by_now() {
    let place = Place::new();
    let (key, clock) = (key("slept"), Looked::at(&place.clock));
    put(&place.store(), &key, b"newer", HOUR);
    let held = File::open(place.file(|name| name.ends_with(".lock"))).unwrap();
    held.lock().unwrap();
    let store = FileStore::with_clock(place.path(), clock.clone());
    thread::scope(|scope| {
        let life = HOUR - SECOND;
        let waiting =
            scope.spawn(move || store.publish(&key, &LeaseOwner::new("slept"), None, b"older", life).unwrap());
        clock.wait();
        place.clock.advance(HOUR / 2);
        held.unlock().unwrap();
        assert!(matches!(waiting.join().unwrap(), PublishOutcome::Conflict(entry) if entry.bytes() == b"newer"));
    });
}

/// A clock that tells when it is looked at.
#[derive(Clone, Debug)]
struct Looked {
    clock: FakeClock,
    looked: Arc<AtomicBool>,
}

impl Looked {
    fn at(clock: &FakeClock) -> Looked {
        Looked { clock: clock.clone(), looked: Arc::default() }
    }

    fn wait(&self) {
        eventually("somebody looks", || self.looked.load(Ordering::SeqCst));
    }
}

impl Clock for Looked {
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        self.looked.store(true, Ordering::SeqCst);
        now
    }
}

#[test]
fn a_lock_that_another_does_not_let_go_of_costs_a_manager_no_token() {
    let place = Place::new();
    let provider = provider();
    put(&place.store(), TokenManager::new(provider.clone()).key(), b"x", Duration::from_millis(1));
    place.clock.advance(SECOND);
    let held = File::open(place.file(|name| name.ends_with(".lock"))).unwrap();
    held.lock().unwrap();
    let asked = Instant::now();
    let tokens = builder_on(&provider, &place.store()).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    assert!(asked.elapsed() < 5 * SECOND, "{:?}", asked.elapsed());
}

#[test]
fn lock_files_that_somebody_keeps_removing_lose_no_write_that_was_done() {
    // Between the last look at a lock and the change it guards is a moment that no look can cover.
    shows("two hundred counts are each one more than the one before", |_| {
        let place = Place::new();
        put(&place.store(), &key("counter"), b"0", HOUR);
        let (done, last) = (counted_while_locks_are_removed(&place), count_of(&place.store())?.0);
        put(&place.store(), &key("counter"), b"end", HOUR);
        assert_eq!(bytes(place.store().read(&key("counter")).unwrap()).unwrap(), b"end");
        assert!(!place.names().iter().any(|name| name.ends_with(".new")), "{:?}", place.names());
        (done.len() == 200 && done.into_iter().eq(1..=last)).then_some(())
    });
}

fn count_of(store: &FileStore) -> Option<(usize, Version)> {
    let entry = store.read(&key("counter")).unwrap()?;
    Some((std::str::from_utf8(entry.bytes()).unwrap().parse().unwrap(), entry.version().clone()))
}

/// The counts that four stores say they have written, in order.
fn counted_while_locks_are_removed(place: &Place) -> Vec<usize> {
    let over = AtomicBool::new(false);
    let count = |store: FileStore| {
        let (mut done, asked) = (Vec::new(), Instant::now());
        while let Some((count, version)) = count_of(&store).filter(|_| done.len() < 50 && asked.elapsed() < PATIENCE) {
            let text = (count + 1).to_string();
            let swap =
                store.compare_and_swap(&key("counter"), Expected::Version(&version), Some((text.as_bytes(), HOUR)));
            if matches!(swap, Ok(SwapOutcome::Done(_))) {
                done.push(count + 1);
            }
        }
        done
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                for name in place.names().into_iter().filter(|name| name.ends_with(".lock")) {
                    let _ = fs::remove_file(place.path().join(name));
                }
                // Without a pause hardly anybody would get to the end of a write.
                thread::sleep(Duration::from_micros(fastrand::u64(..2_000)));
            }
        });
        let counting: Vec<_> = (0..4).map(|_| place.store()).map(|store| scope.spawn(|| count(store))).collect();
        let done: Vec<_> = counting.into_iter().map(|counting| counting.join()).collect();
        over.store(true, Ordering::SeqCst);
        let mut done: Vec<_> = done.into_iter().flat_map(|done| done.unwrap()).collect();
        done.sort_unstable();
        done
    })
}

#[test]
fn an_owner_that_cannot_be_read_is_none() {
    let place = Place::new();
    let (store, key) = (place.store(), key("owner"));
    assert!(matches!(ask(&store, &key, "a"), LeaseOutcome::Leased));
    fs::write(place.file(|name| name.ends_with(".owner")), "{}").unwrap();
    assert!(matches!(ask(&place.store(), &key, "b"), LeaseOutcome::Leased));
}

#[test]
fn the_number_of_open_files_does_not_grow() {
    alone(|| {
        let place = Place::new();
        let (store, other, owner) = (place.store(), place.store(), LeaseOwner::new("a"));
        let keys: Vec<_> = ["a", "b", "c"].map(key).into();
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        for round in 0..340_usize {
            let key = &keys[round % keys.len()];
            assert!(matches!(ask(&store, key, "a"), LeaseOutcome::Leased), "{round}");
            assert!(matches!(ask(&other, key, "b"), LeaseOutcome::Busy { .. }));
            match round % 4 {
                0 => drop(store.publish(key, &owner, None, b"x", HOUR).unwrap()),
                1 => fs::remove_file(place.file(|name| name.ends_with(".owner"))).unwrap(),
                // It runs out, and another takes it.
                _ => {
                    place.clock.advance(11 * SECOND);
                    assert!(matches!(ask(&other, key, "b"), LeaseOutcome::Leased));
                    other.publish(key, &LeaseOwner::new("b"), None, b"x", HOUR).unwrap();
                }
            }
            store.compare_and_swap(key, Expected::Any, None).unwrap();
        }
        assert!(open() <= before + keys.len(), "{} after {before}", open());
        drop(store);
        drop(other);
        assert_eq!(open(), before);
    });
}

#[test]
fn what_is_over_and_was_to_be_done_once_is_cleared_away_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = FileStore::at(&path);
    let once = Idempotency::new(store.clone());
    let begin = |name: &str| match once.begin::<String>(name, "x").unwrap() {
        Outcome::New(claim) => drop(claim.complete(&"done".to_owned())),
        other => panic!("{other:?}"),
    };
    let days_ago = |file: &Path, days: u32| {
        let file = File::options().write(true).open(file).unwrap();
        file.set_modified(SystemTime::now() - days * 24 * HOUR).unwrap();
    };
    // By a clock that shows a day long ago.
    let earlier = Idempotency::new(FileStore::with_clock(&path, FakeClock::new()));
    match earlier.begin::<String>("over", "x").unwrap() {
        Outcome::New(claim) => claim.complete(&"done".to_owned()).unwrap(),
        other => panic!("{other:?}"),
    }
    let over = names(&path).into_iter().find(|name| name.ends_with(".once")).unwrap();
    // And before the machine was started.
    let written = fs::read(path.join(&over)).unwrap();
    fs::write(path.join(&over), with_head(&written, |head| head["boot"]["id"] = "another".into())).unwrap();
    days_ago(&path.join(&over), 1_000);
    begin("just over");
    put(&store, &key("a record"), b"x", HOUR);
    let mut names_of = names(&path);
    names_of.retain(|name| name.ends_with(".once") && *name != over);
    let [just_over]: [String; 1] = names_of.try_into().unwrap();
    days_ago(&path.join(&just_over), 0);
    let left_over = path.join(format!("{over}.new"));
    fs::write(&left_over, "half").unwrap();
    days_ago(&left_over, 2);
    let foreign = ["€uro.once", ".once", "x.once", "notes.txt", "0123456789abcdef0123456789abcdef.state"];
    for name in foreign {
        fs::write(path.join(name), "x").unwrap();
        days_ago(&path.join(name), 1_000);
    }
    let record = path.join(names(&path).into_iter().find(|name| !name.contains('.')).unwrap());
    days_ago(&record, 1_000);
    let mut begun = 0;
    while path.join(&over).exists() || left_over.exists() {
        begin(&format!("another {begun}"));
        begun += 1;
        assert!(begun < 5_000, "one in 64 writes clears away");
    }
    assert!(path.join(&just_over).exists() && record.exists());
    assert!(foreign.iter().all(|name| path.join(name).exists()), "{:?}", names(&path));
    let kept = names(&path).iter().filter(|name| name.ends_with(".once")).count();
    assert_eq!(kept, begun + 1 + 3, "what lives is kept");
}

#[test]
fn what_is_over_is_told_by_the_clock_of_the_store() {
    let place = Place::new();
    let once = Idempotency::new(place.store()).clock(place.clock.clone());
    let claims: Vec<_> = (0..400).map(|number| once.begin::<String>(&format!("{number}"), "x").unwrap()).collect();
    assert!(claims.iter().all(|claim| matches!(claim, Outcome::New(_))));
    assert_eq!(place.names().iter().filter(|name| name.ends_with(".once")).count(), 400);
}

#[test]
fn a_token_that_could_not_be_written_is_handed_out_and_written_later() {
    let place = Place::new();
    fs::write(place.path(), "a file where the directory belongs").unwrap();
    let (provider, store) = (provider(), place.store());
    let tokens = builder_on(&provider, &store).store_check_interval(Duration::from_millis(50)).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    fs::remove_file(place.path()).unwrap();
    eventually("it is written", || {
        assert_eq!(text(&tokens), "token-1");
        store.read(tokens.key()).unwrap().is_some()
    });
    assert_eq!(text(&builder_on(&provider, &place.store()).build().unwrap()), "token-1");
    assert_eq!(provider.calls(), 1);
}

#[test]
fn managers_on_one_directory_fetch_once() {
    let place = Place::new();
    let provider = provider().gated();
    let managers: Vec<_> = (0..8).map(|_| builder_on(&provider, &place.store()).build().unwrap()).collect();
    let managers = Arc::new(managers);
    thread::scope(|scope| {
        let asking: Vec<_> = managers.iter().map(|one| scope.spawn(|| text(one))).collect();
        assert!(provider.wait_for_calls(1, PATIENCE));
        provider.permit(1);
        asking.into_iter().for_each(|asking| assert_eq!(asking.join().unwrap(), "token-1"));
    });
    assert_eq!(provider.calls(), 1);
}

#[test]
fn who_has_waited_for_long_is_woken_within_50_ms() {
    let place = Place::new();
    let (key, holder) = (key("woken"), LeaseOwner::new("holder"));
    // Eight look at times of their own, so that none of them does so in time by chance.
    shows("the last of eight who wait wakes within 50 ms", |_| {
        let store = place.store();
        store.compare_and_swap(&key, Expected::Any, None).unwrap();
        assert!(matches!(ask(&store, &key, "holder"), LeaseOutcome::Leased));
        let started = Barrier::new(9);
        let wait = |store: FileStore| {
            let LeaseOutcome::Busy { cursor, .. } = ask(&store, &key, "other") else { panic!("it is held") };
            started.wait();
            store.wait(&key, &cursor, Instant::now() + PATIENCE).unwrap();
            assert!(store.read(&key).unwrap().is_some());
            Instant::now()
        };
        let woken = thread::scope(|scope| {
            let waiting: Vec<_> = (0..8).map(|_| place.store()).map(|store| scope.spawn(|| wait(store))).collect();
            started.wait();
            // Long enough for those who look less and less often to do so.
            assert!(!ends_within(&waiting[0], SECOND + SECOND / 8), "there is no news yet");
            assert!(!waiting.iter().any(|waiting| waiting.is_finished()), "there is no news yet");
            assert!(matches!(store.publish(&key, &holder, None, b"x", HOUR).unwrap(), PublishOutcome::Done(_)));
            let published = Instant::now();
            let woken = waiting.into_iter().map(|waiting| waiting.join().unwrap()).max().unwrap();
            woken.saturating_duration_since(published)
        });
        assert!(woken < SECOND, "{woken:?}");
        (woken < Duration::from_millis(50)).then_some(())
    });
}
