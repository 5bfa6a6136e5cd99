//! A token that a store can read without I/O is returned by the first call, without a refresh.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use evertoken::store::{Entry, Expected, Key, Store, SwapOutcome};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, EventKind, FileStore, MemoryStore, TokenManager};

use crate::common::stores::*;
use crate::common::wait::*;

/// A store whose `read_at_once` takes time, as on a slow disk.
#[derive(Debug)]
struct SlowToReadAtOnce(MemoryStore);

impl Store for SlowToReadAtOnce {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.0.read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        self.0.compare_and_swap(key, expected, new)
    }

    fn read_at_once(&self, _: &Key) -> Option<Entry> {
        std::thread::sleep(Duration::from_millis(300));
        None
    }
}

#[test]
fn promise_5_a_read_at_once_counts_towards_the_time_of_the_call() {
    let provider = FakeProvider::new().gated();
    let tokens = TokenManager::builder(provider.clone()).store(SlowToReadAtOnce(MemoryStore::new())).build().unwrap();
    let asked = Instant::now();
    assert!(tokens.token_within(Duration::from_millis(350)).is_err());
    let took = asked.elapsed();
    provider.open();
    assert!(took < Duration::from_millis(550), "{took:?}");
}

/// The scheduler has no work for this manager yet; a token that was read at once is refreshed all the same.
#[test]
fn a_token_that_was_read_at_once_is_refreshed_in_the_background() {
    let (provider, clock) = (FakeProvider::new(), FakeClock::new());
    let store = ReadableAtOnce(FaultyStore::on_clock(&clock));
    text(&builder(&provider, &clock).store(store.clone()).build().unwrap());
    let tokens = builder(&provider, &clock).store(store).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    assert_eq!(tokens.try_token().unwrap().expose(), "token-1");
    clock.advance(2 * HOUR - 200 * SECOND);
    eventually("the token is refreshed", || tokens.try_token().unwrap().expose() == "token-2");
}

/// All threads read it at once, and one of them adopts it.
#[test]
fn a_token_that_many_threads_read_at_once_is_adopted_once() {
    for _ in 0..50 {
        let (provider, clock) = (FakeProvider::new(), FakeClock::new());
        let store = ReadableAtOnce(FaultyStore::on_clock(&clock));
        text(&builder(&provider, &clock).store(store.clone()).build().unwrap());
        let tokens = builder(&provider, &clock).store(store).build().unwrap();
        let events = tokens.events();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| assert_eq!(text(&tokens), "token-1"));
            }
        });
        let granted = events.try_iter().filter(|event| matches!(event.kind, evertoken::EventKind::Granted { .. }));
        assert_eq!((granted.count(), tokens.metrics().tokens_from_store, provider.calls()), (1, 1, 1));
    }
}

/// The threads of a service ask at once when the first requests arrive.
#[test]
fn a_token_that_many_threads_read_from_a_file_at_once_is_reported_once() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), FakeProvider::new());
    let manager = || TokenManager::builder(provider.clone()).store(FileStore::at(folder.path())).build().unwrap();
    text(&manager());
    for _ in 0..50 {
        let (tokens, start) = (manager(), Barrier::new(64));
        let events = tokens.events();
        thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    start.wait();
                    text(&tokens)
                });
            }
        });
        let told = events.try_iter().filter(|event| matches!(event.kind, EventKind::Granted { .. })).count();
        assert_eq!((told, tokens.metrics().tokens_from_store), (1, 1));
    }
    assert_eq!(provider.calls(), 1);
}
