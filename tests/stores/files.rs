//! The store in files: its contents, its directory and its clocks.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{env, thread};

use evertoken::idempotency::{Idempotency, Outcome};
use evertoken::store::{Expected, LeaseOutcome, LeaseOwner, PublishOutcome, Store, SwapOutcome, Version};
use evertoken::testing::{FakeClock, FakeProvider, FakeVendor};
use evertoken::{ErrorKind, FileStore, OAuth2, RefreshToken, TokenManager};

use crate::common::alone::alone;
use crate::common::logs::{logged, record_logs};
use crate::common::suite::{ask, bytes, key, put};
use crate::common::wait::*;
use crate::place::*;

#[test]
fn without_a_directory_the_store_is_created_in_the_cache_of_the_user() {
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
        // SAFETY: the managers are dropped, and their threads read no environment.
        unsafe { env::remove_var("XDG_CACHE_HOME") };
        is_at(home.path().join("home/.cache/evertoken"));
        assert_eq!(names(home.path()), ["home"]);
    });
}

#[test]
fn a_damaged_truncated_or_foreign_file_is_absent_and_is_replaced() {
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

/// The text of a file with another first line, which is valid by itself.
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
fn an_unreadable_file_is_reported_once_by_each_store_and_not_quoted() {
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
fn the_sooner_of_two_clocks_expires_a_record_and_after_a_reboot_the_wall_clock_alone() {
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
    // The wall clock was set back a little: the monotonic clock is ahead.
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
    // The record starts in the future, so only the monotonic clock is of use.
    let place = written();
    place.clock.advance(LIFETIME / 2);
    place.clock.step_back(HOUR);
    assert!(around(LIFETIME / 2).contains(&left(&place).unwrap()), "{:?}", left(&place));
    let text = fs::read(place.record()).unwrap();
    fs::write(place.record(), with_head(&text, |head| head["boot"] = serde_json::Value::Null)).unwrap();
    assert_eq!(left(&place), None);
    place.clock.step_forward(HOUR);
    assert!(left(&place).is_some());
    // Never longer than the given lifetime, even when the clock was set back by too little to be noticed.
    let place = written();
    place.clock.step_back(Duration::from_millis(900));
    assert!(left(&place).unwrap() <= LIFETIME);
    // The clock was set forward past the expiry.
    place.clock.step_forward(2 * LIFETIME);
    assert_eq!(left(&place), None);
}

fn signed_in(host: &FakeVendor, place: &Place) -> TokenManager {
    let client = OAuth2::new(host.token_url(), "client", "secret");
    let builder = TokenManager::builder(RefreshToken::new(client, "refresh-1")).store(place.store());
    builder.clock(place.clock.clone()).build().unwrap()
}

#[test]
fn a_wall_clock_set_back_ends_no_sign_in_on_files() {
    let (place, host) = (Place::new(), FakeVendor::oauth2());
    text(&signed_in(&host, &place));
    for _ in 0..2 {
        place.clock.step_back(HOUR);
        let tokens = signed_in(&host, &place);
        tokens.invalidate().unwrap();
        text(&tokens);
    }
    assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2", "refresh-3"]);
    // The machine was started again since, and its clock shows an earlier time.
    let state = place.file(|name| name.ends_with(".state"));
    let written = fs::read(&state).unwrap();
    fs::remove_file(place.record()).unwrap();
    fs::write(&state, with_head(&written, |head| head["boot"]["id"] = "another".into())).unwrap();
    place.clock.step_back(HOUR);
    text(&signed_in(&host, &place));
    assert_eq!(host.used_refresh_tokens().last().unwrap(), "refresh-4");
}

/// After a restart of the machine, only a wall clock is left, which shows a time before the write.
#[test]
fn a_claim_with_a_time_in_the_future_blocks_callers_for_its_lifetime_at_most() {
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

/// To begin with the first refresh token again could end the sign-in. Encrypted stores and Redis do not either.
#[test]
fn a_refresh_token_in_an_unreadable_file_stops_fetching() {
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
fn a_store_on_a_network_file_system_is_not_read_at_once() {
    let place = Place::new();
    let (store, key) = (place.store(), key("slow"));
    put(&store, &key, b"x", HOUR);
    assert_eq!(bytes(store.read_at_once(&key)).unwrap(), b"x");
    assert!(store.clone().on_network_file_system(true).read_at_once(&key).is_none());
}

#[test]
fn lifetimes_of_all_lengths_are_kept() {
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
fn a_removed_directory_is_created_again() {
    let place = Place::new();
    let (store, key) = (place.store(), key("removed"));
    for _ in 0..3 {
        put(&store, &key, b"x", HOUR);
        fs::remove_dir_all(place.path()).unwrap();
        assert!(store.read(&key).unwrap().is_none());
        assert!(matches!(ask(&store, &key, "a"), LeaseOutcome::Leased));
        fs::remove_dir_all(place.path()).unwrap();
        // The lease is removed with the directory, and the holder's record is written all the same.
        assert!(matches!(ask(&store, &key, "b"), LeaseOutcome::Leased));
        assert!(matches!(
            store.publish(&key, &LeaseOwner::new("a"), None, b"a", HOUR).unwrap(),
            PublishOutcome::Done(_)
        ));
        assert!(matches!(ask(&place.store(), &key, "c"), LeaseOutcome::Found(_)));
    }
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
                // The claim expires, and another program gets it.
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
fn expired_operations_are_removed_and_nothing_else() {
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
    // The expiry lies before the start of the machine.
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
fn the_clock_of_the_store_decides_what_has_expired() {
    let place = Place::new();
    let once = Idempotency::new(place.store()).clock(place.clock.clone());
    let claims: Vec<_> = (0..400).map(|number| once.begin::<String>(&format!("{number}"), "x").unwrap()).collect();
    assert!(claims.iter().all(|claim| matches!(claim, Outcome::New(_))));
    assert_eq!(place.names().iter().filter(|name| name.ends_with(".once")).count(), 400);
}

#[test]
fn a_token_that_could_not_be_written_is_returned_and_written_later() {
    let place = Place::new();
    fs::write(place.path(), "a file where the directory belongs").unwrap();
    let (provider, store) = (provider(), place.store());
    let tokens = builder_on(&provider, &store).store_check_interval(Duration::from_millis(50)).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    fs::remove_file(place.path()).unwrap();
    eventually("the token is written", || {
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

/// A key of 512 characters that JSON writes as two each, and a record of the largest size.
#[test]
fn the_longest_key_and_the_longest_record_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::at(folder.path().join("files"));
    for character in ["\"", "\\", "~"] {
        let tokens = TokenManager::builder(FakeProvider::new()).key(&character.repeat(512)).build().unwrap();
        let bytes = vec![b'\n'; 128 * 1024];
        for life in [HOUR, Duration::MAX] {
            store.compare_and_swap(tokens.key(), Expected::Any, Some((&bytes, life))).unwrap();
            let entry = store.read(tokens.key()).unwrap().unwrap();
            assert!(entry.bytes() == bytes && entry.remaining() > HOUR - 60 * SECOND, "{entry:?}");
        }
        store.compare_and_swap(tokens.key(), Expected::Any, Some((b"x", Duration::ZERO))).unwrap();
        assert!(store.read(tokens.key()).unwrap().is_none());
        assert!(store.compare_and_swap(tokens.key(), Expected::Any, Some((&[0; 128 * 1024 + 1], HOUR))).is_err());
    }
}
