//! The contract of every store. A backend adds one call of [`behaves`].

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use evertoken::TokenManager;
use evertoken::provider::Identity;
use evertoken::store::{Entry, Expected, Key, LeaseOutcome, LeaseOwner, PublishOutcome, Store, SwapOutcome, Version};
use evertoken::testing::FakeProvider;

use super::wait::*;

/// A key that no other test uses.
pub(crate) fn key(name: &'static str) -> Key {
    let provider = FakeProvider::new().with_identity(Identity::new("test").part("name", name));
    TokenManager::new(provider).key().clone()
}

pub(crate) fn put(store: &impl Store, key: &Key, bytes: &[u8], life: Duration) -> Version {
    match store.compare_and_swap(key, Expected::Any, Some((bytes, life))).unwrap() {
        SwapOutcome::Done(Some(version)) => version,
        other => panic!("a write without a condition is done: {other:?}"),
    }
}

pub(crate) fn bytes(entry: Option<Entry>) -> Option<Vec<u8>> {
    entry.map(|entry| entry.bytes().to_vec())
}

/// Tests a store against the contract. `advance` makes time pass for the store.
pub(crate) fn behaves(store: &(impl Store + Clone), advance: &dyn Fn(Duration)) {
    entries_expire(store, advance);
    a_swap_from_absent_is_won_once_among_many_threads(store);
    a_swap_by_version_is_refused_when_it_has_changed(store);
    a_removal_by_version_removes_only_that_version(store);
    a_conflict_returns_the_current_entry(store);
    large_values_come_back_whole(store);
    a_record_that_is_being_replaced_can_be_read_whole(store);
    unusual_keys_work_as_all_others(store);
    a_lease_has_one_owner_that_may_ask_again(store);
    a_lease_that_is_requested_again_lasts_its_whole_time_again(store, advance);
    a_publication_of_the_lease_holder_is_written_and_frees_the_lease(store);
    without_the_lease_only_a_record_that_expires_later_is_written(store);
    a_waiter_wakes_on_a_new_record_and_on_a_freed_lease(store);
}

fn entries_expire(store: &impl Store, advance: &dyn Fn(Duration)) {
    let key = key("lives");
    put(store, &key, b"one", 10 * SECOND);
    advance(4 * SECOND);
    let entry = store.read(&key).unwrap().unwrap();
    assert_eq!(entry.bytes(), b"one");
    // With a real clock some time passes by itself.
    assert!((5 * SECOND..=6 * SECOND).contains(&entry.remaining()), "{:?}", entry.remaining());
    advance(6 * SECOND);
    assert!(store.read(&key).unwrap().is_none());
}

fn a_swap_from_absent_is_won_once_among_many_threads(store: &(impl Store + Clone)) {
    let key = key("absent");
    let won = race(store, &key, 64, "thread");
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), won[0].as_bytes());
}

/// Swaps from absent in `threads` threads at once, each with bytes of its own. Returns the winners.
pub(crate) fn race(store: &(impl Store + Clone), key: &Key, threads: usize, name: &str) -> Vec<String> {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let racing: Vec<_> = (0..threads)
            .map(|number| {
                let (store, start) = (store.clone(), &start);
                scope.spawn(move || {
                    let mine = format!("{name}-{number}");
                    start.wait();
                    // On a busy machine so many swaps can take longer than the time limit of one operation. A repeated
                    // attempt after a write whose confirmation came too late finds its own bytes, and has won.
                    let swap =
                        patiently(|| store.compare_and_swap(key, Expected::Absent, Some((mine.as_bytes(), HOUR))));
                    match swap {
                        SwapOutcome::Done(_) => Some(mine),
                        SwapOutcome::Conflict(Some(winner)) => (winner.bytes() == mine.as_bytes()).then_some(mine),
                        SwapOutcome::Conflict(None) => panic!("the loser gets the winner's entry"),
                    }
                })
            })
            .collect();
        racing.into_iter().filter_map(|racing| racing.join().unwrap()).collect()
    })
}

fn a_swap_by_version_is_refused_when_it_has_changed(store: &impl Store) {
    let key = key("version");
    let first = put(store, &key, b"one", HOUR);
    let second = put(store, &key, b"two", HOUR);
    let swap = store.compare_and_swap(&key, Expected::Version(&first), Some((b"three", HOUR))).unwrap();
    assert!(matches!(swap, SwapOutcome::Conflict(Some(entry)) if entry.version() == &second));
    assert!(matches!(
        store.compare_and_swap(&key, Expected::Version(&second), Some((b"three", HOUR))).unwrap(),
        SwapOutcome::Done(_)
    ));
    assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), b"three");
}

fn a_removal_by_version_removes_only_that_version(store: &impl Store) {
    let key = key("removal");
    let first = put(store, &key, b"one", HOUR);
    let second = put(store, &key, b"two", HOUR);
    assert!(matches!(
        store.compare_and_swap(&key, Expected::Version(&first), None).unwrap(),
        SwapOutcome::Conflict(Some(_))
    ));
    assert!(matches!(store.compare_and_swap(&key, Expected::Version(&second), None).unwrap(), SwapOutcome::Done(None)));
    assert!(store.read(&key).unwrap().is_none());
    assert!(matches!(
        store.compare_and_swap(&key, Expected::Version(&second), None).unwrap(),
        SwapOutcome::Conflict(None)
    ));
}

fn a_conflict_returns_the_current_entry(store: &impl Store) {
    let key = key("loser");
    put(store, &key, b"winner", HOUR);
    let swap = store.compare_and_swap(&key, Expected::Absent, Some((b"loser", HOUR))).unwrap();
    assert!(matches!(swap, SwapOutcome::Conflict(Some(entry)) if entry.bytes() == b"winner"));
}

fn large_values_come_back_whole(store: &impl Store) {
    let key = key("large");
    let large: Vec<u8> = (0..60_000_u32).map(|number| number as u8).collect();
    let version = put(store, &key, &large, HOUR);
    let entry = store.read(&key).unwrap().unwrap();
    assert_eq!((entry.bytes(), entry.version()), (large.as_slice(), &version));
}

fn a_record_that_is_being_replaced_can_be_read_whole(store: &(impl Store + Clone)) {
    let key = key("replaced");
    let text = |round: u8| vec![round; 10_000];
    put(store, &key, &text(0), HOUR);
    thread::scope(|scope| {
        let writer = scope.spawn(|| (1..=100).for_each(|round| drop(put(store, &key, &text(round), HOUR))));
        let mut seen = 0;
        while !writer.is_finished() {
            let found = bytes(store.read(&key).unwrap()).expect("there is always one");
            assert!(found[0] >= seen && found == text(found[0]), "{} after {seen}", found[0]);
            seen = found[0];
        }
    });
    assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), text(100));
}

fn unusual_keys_work_as_all_others(store: &impl Store) {
    // The braces keep the key and its companions on one node of a cluster.
    let odd = r#"{odd}/../../etc/passwd%2e%2e%00*?[a-z]~$HOME`id`'"\\\;|&<>(){}!#:lock:state:.new,.lock,.lease="#;
    let odd: String = odd.chars().cycle().take(511).collect();
    let keys = ["a", "b"].map(|end| key_named(&format!("{odd}{end}")));
    assert_eq!(keys[0].as_str().len(), 512);
    put(store, &keys[0], b"one", HOUR);
    assert!(store.read(&keys[1]).unwrap().is_none());
    put(store, &keys[1], b"two", HOUR);
    for (key, expected) in keys.iter().zip([b"one", b"two"]) {
        assert_eq!(bytes(store.read(key).unwrap()).unwrap(), expected);
        assert!(matches!(ask(store, key, "a"), LeaseOutcome::Found(_)));
        store.compare_and_swap(key, Expected::Any, None).unwrap();
        assert!(matches!(ask(store, key, "a"), LeaseOutcome::Leased));
        assert!(matches!(ask(store, key, "b"), LeaseOutcome::Busy { .. }));
        let done = store.publish(key, &LeaseOwner::new("a"), None, expected, HOUR).unwrap();
        assert!(matches!(done, PublishOutcome::Done(_)));
    }
}

/// A key that a program chooses in full.
pub(crate) fn key_named(name: &str) -> Key {
    TokenManager::builder(FakeProvider::new()).key(name).build().unwrap().key().clone()
}

fn a_waiter_wakes_on_a_new_record_and_on_a_freed_lease(store: &(impl Store + Clone)) {
    let (key, holder) = (key("waiting"), LeaseOwner::new("holder"));
    // In the second round the same bytes are written, so that the freed lease is the only change.
    for round in 0..2 {
        let not = store.read(&key).unwrap().map(|entry| entry.version().clone());
        let ask = |owner| store.read_or_lease(&key, not.as_ref(), SECOND, owner, 60 * SECOND).unwrap();
        assert!(matches!(ask(&holder), LeaseOutcome::Leased));
        let LeaseOutcome::Busy { cursor, .. } = ask(&LeaseOwner::new("other")) else { panic!("it is held") };
        thread::scope(|scope| {
            let (waiting, key) = (store.clone(), &key);
            let waiter = scope.spawn(move || {
                let deadline = Instant::now() + PATIENCE;
                // A wait may return too soon, and then the waiter checks and waits again.
                let has_news = || {
                    waiting.wait(key, &cursor, deadline).unwrap();
                    let entry = waiting.read(key).unwrap();
                    entry.map(|entry| entry.version().clone()).as_ref() != cursor.version()
                        || matches!(
                            waiting.read_or_lease(
                                key,
                                cursor.version(),
                                SECOND,
                                &LeaseOwner::new("other"),
                                60 * SECOND
                            ),
                            Ok(LeaseOutcome::Leased)
                        )
                };
                while !has_news() {}
                Instant::now()
            });
            // Long enough for the poll intervals to grow.
            assert!(!ends_within(&waiter, SECOND / 4), "there is no news yet");
            store.publish(key, &holder, not.as_ref(), b"record", HOUR).unwrap();
            let published = Instant::now();
            let woken = waiter.join().unwrap().saturating_duration_since(published);
            assert!(woken < SECOND, "round {round}: {woken:?}");
        });
        // The waiter may have taken the lease by now.
        let other = LeaseOwner::new("other");
        store.publish(&key, &other, None, b"record", HOUR).unwrap();
    }
}

pub(crate) fn ends_within<T>(thread: &thread::ScopedJoinHandle<'_, T>, time: Duration) -> bool {
    let asked = Instant::now();
    while asked.elapsed() < time && !thread.is_finished() {
        thread::sleep(Duration::from_millis(5));
    }
    thread.is_finished()
}

pub(crate) fn ask(store: &impl Store, key: &Key, owner: &str) -> LeaseOutcome {
    store.read_or_lease(key, None, SECOND, &LeaseOwner::new(owner), 10 * SECOND).unwrap()
}

fn a_lease_that_is_requested_again_lasts_its_whole_time_again(store: &impl Store, advance: &dyn Fn(Duration)) {
    let key = key("again");
    assert!(matches!(ask(store, &key, "a"), LeaseOutcome::Leased));
    advance(9 * SECOND);
    assert!(matches!(ask(store, &key, "a"), LeaseOutcome::Leased));
    advance(9 * SECOND);
    assert!(matches!(ask(store, &key, "b"), LeaseOutcome::Busy { .. }));
}

fn a_lease_has_one_owner_that_may_ask_again(store: &impl Store) {
    let key = key("lease");
    assert!(matches!(ask(store, &key, "a"), LeaseOutcome::Leased));
    assert!(matches!(ask(store, &key, "a"), LeaseOutcome::Leased));
    assert!(matches!(ask(store, &key, "b"), LeaseOutcome::Busy { remaining, .. } if remaining <= 10 * SECOND));
    put(store, &key, b"record", HOUR);
    assert!(matches!(ask(store, &key, "b"), LeaseOutcome::Found(entry) if entry.bytes() == b"record"));
}

fn a_publication_of_the_lease_holder_is_written_and_frees_the_lease(store: &impl Store) {
    let key = key("publish");
    assert!(matches!(ask(store, &key, "a"), LeaseOutcome::Leased));
    // Another manager wrote meanwhile, without the lease, a record that expires later.
    put(store, &key, b"others", 2 * HOUR);
    assert!(matches!(
        store.publish(&key, &LeaseOwner::new("a"), None, b"holders", HOUR).unwrap(),
        PublishOutcome::Done(_)
    ));
    assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), b"holders");
    store.compare_and_swap(&key, Expected::Any, None).unwrap();
    assert!(matches!(ask(store, &key, "b"), LeaseOutcome::Leased), "the lease is free again");
}

fn without_the_lease_only_a_record_that_expires_later_is_written(store: &impl Store) {
    let (key, late) = (key("late"), LeaseOwner::new("late"));
    put(store, &key, b"newer", HOUR);
    let refused = store.publish(&key, &late, None, b"older", HOUR / 2).unwrap();
    assert!(matches!(refused, PublishOutcome::Conflict(entry) if entry.bytes() == b"newer"));
    assert!(matches!(store.publish(&key, &late, None, b"newest", 2 * HOUR).unwrap(), PublishOutcome::Done(_)));
    assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), b"newest");
}
