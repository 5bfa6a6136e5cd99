//! Leases and lock files of the store in files.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use evertoken::clock::{Clock, Timestamp};
use evertoken::store::{Expected, LeaseOutcome, LeaseOwner, PublishOutcome, Store, SwapOutcome, Version};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{ErrorKind, FileStore, TokenManager};

use crate::common::stores::*;
use crate::common::suite::{ask, bytes, ends_within, key, put};
use crate::common::wait::*;
use crate::place::*;

fn lease(store: &FileStore, owner: &str) -> LeaseOutcome {
    store.read_or_lease(&key("leased"), None, Duration::ZERO, &LeaseOwner::new(owner), 7 * SECOND).unwrap()
}

/// The monotonic clock decides how long the lease lasts, and the lock file shows that its holder lives.
#[test]
fn a_wall_clock_that_is_set_does_not_expire_a_lease() {
    for step in ["back", "forward"] {
        let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
        let open = || FileStore::with_clock(folder.path().join("files"), clock.clone());
        let (one, other) = (open(), open());
        assert!(matches!(lease(&one, "one"), LeaseOutcome::Leased));
        assert!(matches!(lease(&other, "other"), LeaseOutcome::Busy { .. }));
        match step {
            "back" => clock.step_back(5 * SECOND),
            _ => clock.step_forward(10 * SECOND),
        }
        assert!(matches!(lease(&other, "other"), LeaseOutcome::Busy { .. }), "set {step}: two fetch at once");
    }
}

/// A holder that fails to get the lock for its publication frees the lease all the same.
#[test]
fn a_publication_that_does_not_get_the_lock_frees_the_lease() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("files");
    let (one, other) = (FileStore::at(&path), FileStore::at(&path));
    assert!(matches!(lease(&one, "one"), LeaseOutcome::Leased));
    let lock = file_of(&one, |name| name.ends_with(".lock"));
    let busy = File::options().read(true).write(true).open(lock).unwrap();
    busy.lock().unwrap();
    assert!(one.publish(&key("leased"), &LeaseOwner::new("one"), None, b"token", HOUR).is_err());
    busy.unlock().unwrap();
    let got = lease(&other, "other");
    drop(one);
    assert!(matches!(got, LeaseOutcome::Leased), "no lease is left: {got:?}");
}

/// A slow disk delays the write of the lease holder, which has the lock meanwhile.
#[test]
fn a_manager_that_starts_during_a_slow_write_of_the_holder_waits_for_the_token() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), FakeProvider::new().gated());
    let manager = || TokenManager::builder(provider.clone()).store(FileStore::at(folder.path())).build().unwrap();
    let (holder, waiting, late) = (manager(), manager(), manager());
    let lock = || File::open(file_of(&FileStore::at(folder.path()), |name| name.ends_with(".lock"))).unwrap();
    thread::scope(|scope| {
        let asking = scope.spawn(|| text(&holder));
        assert!(provider.wait_for_calls(1, PATIENCE));
        let waits = scope.spawn(|| text(&waiting));
        eventually("the manager waits", || waiting.status().fetching);
        let lock = lock();
        lock.lock().unwrap();
        // Longer than a change waits for its lock.
        let late = scope.spawn(|| text(&late));
        assert!(!provider.wait_for_calls(2, 2 * SECOND), "another one has fetched");
        lock.unlock().unwrap();
        provider.permit(1);
        for asking in [asking, waits, late] {
            assert_eq!(asking.join().unwrap(), "token-1");
        }
    });
    assert_eq!(provider.calls(), 1);
}

#[test]
fn an_expired_lease_does_not_stop_others_although_its_holder_has_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let (store, provider) = (FileStore::at(folder.path()), FakeProvider::new());
    let tokens = TokenManager::builder(provider.clone()).store(store.clone()).build().unwrap();
    let stopped = LeaseOwner::new("stopped");
    let leased = FileStore::at(folder.path()).read_or_lease(tokens.key(), None, SECOND, &stopped, 2 * SECOND).unwrap();
    assert!(matches!(leased, LeaseOutcome::Leased));
    let lock = File::open(file_of(&store, |name| name.ends_with(".lock"))).unwrap();
    lock.lock().unwrap();
    let asked = Instant::now();
    assert_eq!(text(&tokens), "token-1");
    assert!(asked.elapsed() < 8 * SECOND, "{:?}", asked.elapsed());
}

/// A manager without a lease writes for as long as a slow disk takes, and others start meanwhile.
#[test]
fn promise_3_managers_that_start_during_a_slow_write_cost_one_fetch() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), FakeProvider::new());
    let manager = || TokenManager::builder(provider.clone()).store(FileStore::at(folder.path())).build().unwrap();
    let rejecting = manager();
    rejecting.reject(&rejecting.token().unwrap()).unwrap();
    let lock = File::open(file_of(&FileStore::at(folder.path()), |name| name.ends_with(".lock"))).unwrap();
    lock.lock().unwrap();
    thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| text(&manager()))).collect();
        assert!(!provider.wait_for_calls(2, Duration::from_millis(500)), "no manager fetches alone so soon");
        lock.unlock().unwrap();
        asking.into_iter().for_each(|asking| assert_eq!(asking.join().unwrap(), "token-2"));
    });
    assert_eq!(provider.calls(), 2);
}

#[test]
fn a_directory_removed_during_a_lease_costs_the_holder_nothing() {
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
    eventually("the change is recorded", || store.read(tokens.key()).unwrap().is_some());
    assert_eq!(text(&builder_on(&provider, &place.store()).build().unwrap()), "token-1");
}

#[test]
fn a_lease_whose_lock_files_are_removed_lasts_its_whole_time() {
    let place = Place::new();
    let key = key("unlocked");
    let holder = place.store();
    assert!(matches!(ask(&holder, &key, "a"), LeaseOutcome::Leased));
    fs::remove_file(place.file(|name| name.ends_with(".lease"))).unwrap();
    fs::remove_file(place.file(|name| name.ends_with(".lock"))).unwrap();
    assert!(matches!(ask(&place.store(), &key, "b"), LeaseOutcome::Busy { .. }));
    // A repeated request locks the new file, so that the end of its holder can be noticed.
    assert!(matches!(ask(&holder, &key, "a"), LeaseOutcome::Leased));
    assert!(matches!(ask(&place.store(), &key, "b"), LeaseOutcome::Busy { .. }));
    drop(holder);
    assert!(matches!(ask(&place.store(), &key, "b"), LeaseOutcome::Leased));
}

#[test]
fn a_waiter_for_a_removed_lock_file_takes_the_new_one() {
    let place = Place::new();
    let (store, key) = (place.store(), key("queue"));
    put(&store, &key, b"one", HOUR);
    let path = place.file(|name| name.ends_with(".lock"));
    let held = File::open(&path).unwrap();
    held.lock().unwrap();
    let error = store.compare_and_swap(&key, Expected::Any, Some((b"two", HOUR))).unwrap_err();
    assert!(
        error.kind() == ErrorKind::Store && error.to_string().contains("another process holds the lock"),
        "{error}"
    );
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
fn waiting_for_a_lock_does_not_extend_a_lease() {
    let place = Place::new();
    let (key, owner) = (key("slept"), LeaseOwner::new("owner"));
    put(&place.store(), &key, b"one", HOUR / 4);
    let path = place.file(|name| name.ends_with(".lock"));
    let write = |how: &str, store: &FileStore| match how {
        "swap" => drop(store.compare_and_swap(&key, Expected::Any, Some((b"two", HOUR))).unwrap()),
        _ => drop(store.publish(&key, &owner, None, b"three", HOUR).unwrap()),
    };
    for how in ["swap", "publish"] {
        let (held, clock) = (File::open(&path).unwrap(), ObservedClock::at(&place.clock));
        held.lock().unwrap();
        let store = FileStore::with_clock(place.path(), clock.clone());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| write(how, &store));
            clock.wait();
            // A laptop sleeps, or a process is suspended, at this moment.
            place.clock.advance(HOUR / 2);
            held.unlock().unwrap();
            waiting.join().unwrap();
        });
        let entry = store.read(&key).unwrap().unwrap();
        assert!(entry.bytes() != b"one" && entry.remaining() <= HOUR / 2, "{how}: {entry:?}");
    }
}

#[test]
fn a_stopped_publication_does_not_replace_a_record_that_expires_later() {
    let place = Place::new();
    let (key, clock) = (key("slept"), ObservedClock::at(&place.clock));
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

/// A clock that records whether it was read.
#[derive(Clone, Debug)]
struct ObservedClock {
    clock: FakeClock,
    was_read: Arc<AtomicBool>,
}

impl ObservedClock {
    fn at(clock: &FakeClock) -> ObservedClock {
        ObservedClock { clock: clock.clone(), was_read: Arc::default() }
    }

    fn wait(&self) {
        eventually("the clock is read", || self.was_read.load(Ordering::SeqCst));
    }
}

impl Clock for ObservedClock {
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        self.was_read.store(true, Ordering::SeqCst);
        now
    }
}

#[test]
fn a_lock_that_is_never_released_costs_a_manager_no_token() {
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
fn removed_lock_files_lose_no_completed_write() {
    // A lock file can be removed between the last check of it and the change that it guards.
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

/// The counts that four stores report as written, in order.
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
                // Without a delay hardly any write would succeed.
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
fn a_lease_with_an_unreadable_owner_is_free() {
    let place = Place::new();
    let (store, key) = (place.store(), key("owner"));
    assert!(matches!(ask(&store, &key, "a"), LeaseOutcome::Leased));
    fs::write(place.file(|name| name.ends_with(".owner")), "{}").unwrap();
    assert!(matches!(ask(&place.store(), &key, "b"), LeaseOutcome::Leased));
}

#[test]
fn a_long_wait_ends_within_50_ms_of_a_change() {
    let place = Place::new();
    let (key, holder) = (key("woken"), LeaseOwner::new("holder"));
    // Eight waiters poll at different times, so that none of them polls at the right time by chance.
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
            // Long enough for the poll intervals to grow.
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
