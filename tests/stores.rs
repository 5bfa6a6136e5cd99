//! What every store does, and what the one in memory does besides. A backend adds one call of `behaves`.
#![allow(clippy::unwrap_used)]

#[path = "common/suite.rs"]
mod suite;
#[path = "common/wait.rs"]
mod wait;

use std::thread;
use std::time::{Duration, Instant};

use evertoken::store::{Entry, Expected, Leasing, Swap};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, Identity, Key, MemoryStore, Store, TokenManager};
use suite::{ask, behaves, key, put};
use wait::*;

/// A store into which another manager writes just when this one has won the lease.
#[derive(Debug, Default)]
struct Overtaken(MemoryStore);

impl Store for Overtaken {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.0.read(key)
    }

    fn swap(&self, key: &Key, expected: Expected<'_>, new: Option<(&[u8], Duration)>) -> Result<Swap, Error> {
        let swap = self.0.swap(key, expected, new);
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
fn a_record_that_came_just_before_the_lease_was_won_is_found_and_the_lease_is_free_again() {
    let store = Overtaken::default();
    assert!(matches!(ask(&store, &overtaken(), "a"), Leasing::Found(entry) if entry.bytes() == b"came first"));
    store.0.swap(&overtaken(), Expected::Any, None).unwrap();
    assert!(matches!(ask(&store.0, &overtaken(), "b"), Leasing::Leased));
}

#[test]
fn memory_behaves_as_every_store() {
    let clock = FakeClock::new();
    behaves(&MemoryStore::with_clock(clock.clone()), &|time| clock.advance(time));
}

#[test]
fn memory_is_bounded_and_the_entry_that_ends_first_goes() {
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
fn memory_lets_go_of_what_has_ended_without_being_asked_for_it() {
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
fn memory_lets_go_of_what_the_wall_clock_has_ended() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    put(&store, &key("a"), b"x", HOUR);
    clock.suspend(2 * HOUR);
    assert!(store.read(&key("a")).unwrap().is_none());
    assert!(store.is_empty());
}

#[test]
fn a_manager_that_waits_for_another_is_woken_at_once() {
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
