//! The contract of every store, and of the one in memory. A backend adds one call of `behaves`, and one of
//! `is_won_by_one_process` if processes share it.

#[cfg(target_os = "linux")]
use std::io::{BufRead, BufReader, Write};
#[cfg(target_os = "linux")]
use std::net::TcpStream;
#[cfg(target_os = "linux")]
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(all(feature = "redis", target_os = "linux"))]
use evertoken::RedisStore;
use evertoken::idempotency::Idempotency;
use evertoken::provider::Identity;
use evertoken::store::{Entry, Expected, Key, LeaseOutcome, LeaseOwner, PublishOutcome, Store, SwapOutcome, Version};
use evertoken::testing::{FakeClock, FakeProvider};
#[cfg(feature = "encryption")]
use evertoken::{EncryptedStore, EncryptionKey};
use evertoken::{Error, FileStore, MemoryStore, TokenManager};

#[cfg(target_os = "linux")]
use crate::common::alone::test_of;
use crate::common::process::{Process, each};
#[cfg(all(feature = "redis", target_os = "linux"))]
use crate::common::redis_server::{RedisServer, advance};
use crate::common::stores::{HookedStore, Step, store_error};
#[cfg(target_os = "linux")]
use crate::common::suite::bytes;
use crate::common::suite::{ask, behaves, key, put, race};
use crate::common::wait::*;

/// A store into which another manager writes just when this one gets the lease.
#[derive(Debug, Default)]
struct Overtaken(MemoryStore);

impl Store for Overtaken {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.0.read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        let swap = self.0.compare_and_swap(key, expected, new);
        if new.is_some() && key != &overtaken() {
            put(&self.0, &overtaken(), b"came first", HOUR);
        }
        swap
    }
}

fn overtaken() -> Key {
    key("overtaken")
}

#[test]
fn a_record_written_just_before_the_lease_is_found_and_the_lease_is_freed() {
    let store = Overtaken::default();
    assert!(matches!(ask(&store, &overtaken(), "a"), LeaseOutcome::Found(entry) if entry.bytes() == b"came first"));
    store.0.compare_and_swap(&overtaken(), Expected::Any, None).unwrap();
    assert!(matches!(ask(&store.0, &overtaken(), "b"), LeaseOutcome::Leased));
}

#[test]
fn a_lease_that_cannot_be_released_takes_nothing_from_what_was_written_or_found() {
    let (memory, key) = (MemoryStore::new(), key("unreleased"));
    let store = HookedStore::over(&memory);
    store.before_write(|key, new| match key.as_str().ends_with(":lock") && new.is_none() {
        true => Err(store_error()),
        false => Ok(()),
    });
    assert!(matches!(ask(&store, &key, "a"), LeaseOutcome::Leased));
    let published = store.publish(&key, &LeaseOwner::new("a"), None, b"new", HOUR).unwrap();
    assert!(matches!(published, PublishOutcome::Done(_)), "{published:?}");
    assert_eq!(memory.read(&key).unwrap().unwrap().bytes(), b"new");
    // What was published just before the lease was won is found.
    memory.compare_and_swap(&key, Expected::Any, None).unwrap();
    let (other, won) = (memory.clone(), key.clone());
    memory.compare_and_swap(&store.key(":lock"), Expected::Any, None).unwrap();
    store.set_hook(move |key, step| match step {
        Step::BeforeWrite(None) => Err(store_error()),
        Step::AfterWrite if key.as_str().ends_with(":lock") => {
            put(&other, &won, b"came first", HOUR);
            Ok(())
        }
        _ => Ok(()),
    });
    assert!(matches!(ask(&store, &key, "b"), LeaseOutcome::Found(entry) if entry.bytes() == b"came first"));
}

#[test]
fn memory_behaves_as_every_store() {
    let clock = FakeClock::new();
    behaves(&MemoryStore::with_clock(clock.clone()), &|time| clock.advance(time));
}

#[test]
fn files_behave_as_every_store() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
    let store = FileStore::with_clock(folder.path().join("store"), clock.clone());
    behaves(&store, &|time| clock.advance(time));
}

#[test]
fn two_stores_on_one_directory_exclude_each_other_as_processes_do() {
    let (folder, key) = (tempfile::tempdir().unwrap(), key("two"));
    let (one, other) = (FileStore::at(folder.path()), FileStore::at(folder.path()));
    let won = thread::scope(|scope| {
        let racing = [&one, &other].map(|store| {
            let key = &key;
            scope.spawn(move || race(store, key, 16, &format!("{store:p}")))
        });
        racing.map(|racing| racing.join().unwrap()).concat()
    });
    assert_eq!(won.len(), 1, "{won:?}");
    one.compare_and_swap(&key, Expected::Any, None).unwrap();
    assert!(matches!(ask(&one, &key, "one"), LeaseOutcome::Leased));
    assert!(matches!(ask(&other, &key, "other"), LeaseOutcome::Busy { .. }));
    assert!(matches!(ask(&one, &key, "another of the same store"), LeaseOutcome::Busy { .. }));
    drop(one);
    assert!(matches!(ask(&other, &key, "other"), LeaseOutcome::Leased), "the holder has gone");
}

#[cfg(target_os = "linux")]
#[test]
fn a_swap_from_absent_is_won_by_one_of_eight_processes_with_files() {
    let folder = tempfile::tempdir().unwrap();
    is_won_by_one_process(|| folder.path().to_str().unwrap().to_owned(), |path| FileStore::at(Path::new(path)));
}

#[cfg(all(feature = "redis", target_os = "linux"))]
#[test]
fn redis_behaves_as_every_store() {
    let server = RedisServer::start();
    behaves(&RedisStore::open(&server.url()).unwrap(), &|time| advance(&server, time));
}

#[cfg(all(feature = "redis", target_os = "linux"))]
#[test]
fn a_swap_from_absent_is_won_by_one_of_eight_processes_with_redis() {
    let server = once_cell::unsync::Lazy::new(RedisServer::start);
    is_won_by_one_process(|| server.url(), |url| RedisStore::open(url).unwrap());
}

#[cfg(feature = "encryption")]
mod encrypted {
    use super::*;

    fn encrypted<S: Store>(store: S) -> EncryptedStore<S> {
        EncryptedStore::new(store, EncryptionKey::new(std::array::from_fn(|at| (at as u8).wrapping_mul(11))).unwrap())
    }

    #[test]
    fn encrypted_memory_behaves_as_every_store() {
        let clock = FakeClock::new();
        behaves(&encrypted(MemoryStore::with_clock(clock.clone())), &|time| clock.advance(time));
    }

    #[test]
    fn encrypted_files_behave_as_every_store() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
        let store = FileStore::with_clock(folder.path().join("store"), clock.clone());
        behaves(&encrypted(store), &|time| clock.advance(time));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_swap_from_absent_is_won_by_one_of_eight_processes_with_encrypted_files() {
        let folder = tempfile::tempdir().unwrap();
        is_won_by_one_process(
            || folder.path().to_str().unwrap().to_owned(),
            |path| encrypted(FileStore::at(Path::new(path))),
        );
    }

    #[cfg(all(feature = "redis", target_os = "linux"))]
    #[test]
    fn an_encrypted_redis_behaves_as_every_store() {
        let server = RedisServer::start();
        behaves(&encrypted(RedisStore::open(&server.url()).unwrap()), &|time| advance(&server, time));
    }

    #[cfg(all(feature = "redis", target_os = "linux"))]
    #[test]
    fn a_swap_from_absent_is_won_by_one_of_eight_processes_with_encrypted_redis() {
        let server = once_cell::unsync::Lazy::new(RedisServer::start);
        is_won_by_one_process(|| server.url(), |url| encrypted(RedisStore::open(url).unwrap()));
    }
}

/// Eight processes with eight threads each swap at once, several times. `place` is called once, in the test itself;
/// each process opens a store of its own there.
#[cfg(target_os = "linux")]
fn is_won_by_one_process<S: Store + Clone>(place: impl FnOnce() -> String, open: impl Fn(&str) -> S) {
    let test = test_of(&open);
    let keys = ["race-1", "race-2", "race-3", "race-4", "race-5"];
    if let Some(port) = crate::common::process::port() {
        let mut stream = TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();
        let mut store = None;
        for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
            let answer = match line.split_once(' ').unwrap() {
                ("open", place) => {
                    store = Some(open(place));
                    String::new()
                }
                (round, name) => {
                    race(store.as_ref().unwrap(), &key(keys[round.parse::<usize>().unwrap()]), 8, name).join(" ")
                }
            };
            writeln!(stream, "{answer}").unwrap();
        }
        return;
    }
    let (mut processes, place) = ((0..8).map(|_| Process::start(test)).collect::<Vec<_>>(), place());
    each(&mut processes, &format!("open {place}"));
    let store = open(&place);
    for (round, name) in keys.iter().enumerate() {
        processes.iter_mut().enumerate().for_each(|(number, one)| one.send_line(&format!("{round} process-{number}")));
        let won: Vec<_> = processes.iter_mut().map(Process::read_line).filter(|winner| !winner.is_empty()).collect();
        assert_eq!(won.len(), 1, "{won:?}");
        assert_eq!(bytes(patiently(|| store.read(&key(name)))).unwrap(), won[0].as_bytes());
    }
    processes.into_iter().for_each(Process::end);
}

#[test]
fn memory_is_bounded_and_drops_the_entry_that_expires_first() {
    let store = MemoryStore::new();
    let first = key("first");
    put(&store, &first, b"x", 60 * SECOND);
    for number in 0..10_000 {
        let name = Identity::new("test").part("number", number.to_string());
        let other = TokenManager::new(FakeProvider::new().with_identity(name)).key().clone();
        put(&store, &other, b"x", HOUR);
    }
    assert_eq!(store.len(), 10_000);
    assert!(store.read(&first).unwrap().is_none());
}

#[test]
fn memory_drops_expired_entries_that_are_not_read() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    for name in ["a", "b", "c"] {
        put(&store, &key(name), b"x", 10 * SECOND);
    }
    clock.advance(11 * SECOND);
    put(&store, &key("d"), b"x", 10 * SECOND);
    assert_eq!(store.len(), 1);
}

#[test]
fn memory_drops_entries_that_the_wall_clock_expired() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    put(&store, &key("a"), b"x", HOUR);
    clock.suspend(2 * HOUR);
    assert!(store.read(&key("a")).unwrap().is_none());
    assert!(store.is_empty());
}

#[test]
fn a_manager_that_waits_for_another_wakes_at_once() {
    let (store, provider) = (MemoryStore::new(), FakeProvider::new().gated());
    let manager = || TokenManager::builder(provider.clone()).store(store.clone()).build().unwrap();
    let (one, other) = (manager(), manager());
    one.warm_up();
    assert!(provider.wait_for_calls(1, PATIENCE));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let token = text(&other);
            (token, Instant::now())
        });
        let events = one.events();
        provider.permit(1);
        wait_for_grant(&events);
        let granted = Instant::now();
        let (token, woken) = waiting.join().unwrap();
        assert_eq!((token.as_str(), provider.calls()), ("token-1", 1));
        assert!(woken.saturating_duration_since(granted) < 2 * SECOND);
    });
}

#[test]
fn debug_output_of_a_store_and_its_entries_shows_no_bytes() {
    let store = MemoryStore::new();
    put(&store, &key("secret"), b"hunter2", HOUR);
    let shown = format!("{store:?} {:?}", store.read(&key("secret")).unwrap());
    assert!(!shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
}

/// Nothing would be written, so a full store has nothing to refuse.
#[test]
fn a_full_memory_store_reports_a_conflict_as_a_conflict() {
    let store = MemoryStore::new();
    let once = Idempotency::new(store.clone());
    for number in 0..10_000 {
        assert!(once.begin::<u32>(format!("{number}"), b"").is_ok());
    }
    assert_eq!(store.len(), 10_000);
    let seen = Version::of_bytes(b"gone");
    let swap = store.compare_and_swap(&key("gone"), Expected::Version(&seen), Some((b"x", HOUR)));
    assert!(matches!(swap, Ok(SwapOutcome::Conflict(None))), "{swap:?}");
}
