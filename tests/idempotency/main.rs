//! Doing a thing once, on every store. Another store adds a line to `on_every_store` and a function to `beds`.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod in_files;
mod slow_stores;

#[cfg(target_os = "linux")]
use std::collections::BTreeSet;
use std::error::Error as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant, SystemTime};
use std::{io, thread};

use evertoken::idempotency::{Claim, Idempotency, OperationStatus, Outcome, RunError};
use evertoken::store::{Entry, Expected, Key, Store, SwapOutcome};
use evertoken::testing::FakeClock;
use evertoken::{Error, ErrorKind, FileStore, MemoryStore, Secret};
use serde::{Deserialize, Serialize};

use crate::common::alone::alone;
use crate::common::wait::*;

macro_rules! on {
    ($store:ident: $($test:ident)*) => {
        mod $store {
            $(#[test]
            fn $test() {
                crate::$test(&crate::beds::$store());
            })*
        }
    };
}

macro_rules! on_every_store {
    ($($test:ident)*) => {
        on!(memory: $($test)*);
        on!(files: $($test)*);
        #[cfg(feature = "encryption")]
        on!(sealed_files: $($test)*);
        #[cfg(all(feature = "redis", target_os = "linux"))]
        on!(redis: $($test)*);
    };
}

on_every_store! {
    of_sixty_four_threads_that_begin_at_once_one_has_the_claim
    each_step_is_one_operation_of_the_store
    what_has_been_completed_is_what_everybody_gets
    a_claim_is_completed_once
    a_claim_that_has_run_out_neither_comes_back_nor_overwrites_anything
    who_sleeps_past_the_claim_does_not_overwrite_who_took_over
    a_claim_that_lapses_frees_the_key_after_its_own_life_and_a_result_is_kept_for_its
    who_is_told_to_do_it_has_a_recorded_claim_whatever_the_store_forgets
    what_cannot_be_read_is_replaced
    a_claim_without_end_is_over_and_a_result_without_end_is_none
    another_request_under_the_same_key_is_a_mismatch
    a_result_that_is_too_large_is_refused_before_anything_is_written
    a_result_of_another_type_is_an_error_and_stays
    results_of_all_shapes_come_back
    an_extended_claim_lasts_its_whole_life_again
    an_abandoned_claim_is_free_at_once
    what_is_recorded_can_be_looked_at
    a_result_whose_recording_was_not_confirmed_can_be_recorded_again
    an_extension_that_was_not_confirmed_does_no_harm
    threads_that_extend_one_claim_do_not_keep_each_other_from_completing_it
    a_closure_runs_once_and_its_failure_frees_the_key
    a_closure_that_panics_leaves_its_claim_to_run_out
    a_closure_that_takes_longer_than_a_claim_keeps_it
    a_closure_that_has_lost_its_claim_hands_its_result_back
    a_result_is_recorded_when_the_store_is_back_soon
    who_waits_gets_the_result_of_another
    who_waits_takes_over_what_is_abandoned_or_runs_out
    who_waits_knows_a_claim_of_its_own
    who_waits_ends_in_time
}

mod beds {
    use super::*;

    pub(crate) fn memory() -> Bed {
        let clock = FakeClock::new();
        Bed::new(MemoryStore::with_clock(clock.clone()), clock, |_| {})
    }

    pub(crate) fn files() -> Bed {
        on_files(|store| store)
    }

    #[cfg(feature = "encryption")]
    pub(crate) fn sealed_files() -> Bed {
        use evertoken::{EncryptedStore, EncryptionKey};

        let key = std::array::from_fn(|at| (at as u8).wrapping_mul(11));
        on_files(|store| EncryptedStore::new(store, EncryptionKey::new(key).unwrap()))
    }

    fn on_files<S: Store>(seal: impl FnOnce(FileStore) -> S) -> Bed {
        let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
        let store = FileStore::with_clock(folder.path().join("store"), clock.clone());
        // The directory is there as long as the bed is.
        Bed::new(seal(store), clock, move |_| assert!(folder.path().exists()))
    }

    #[cfg(all(feature = "redis", target_os = "linux"))]
    pub(crate) fn redis() -> Bed {
        use evertoken::RedisStore;

        let server = crate::common::redis_server::RedisServer::start();
        let store = RedisStore::open(&server.url()).unwrap();
        Bed::new(store, FakeClock::new(), move |time| on_redis::advance(&server, time))
    }
}

/// A store to test on.
struct Bed {
    store: Observed,
    clock: FakeClock,
    pass: Box<dyn Fn(Duration)>,
}

impl Bed {
    fn new(store: impl Store, clock: FakeClock, pass: impl Fn(Duration) + 'static) -> Bed {
        Bed { store: Observed::of(store), clock, pass: Box::new(pass) }
    }

    /// Another one each time, as in another process.
    fn once(&self) -> Idempotency {
        Idempotency::new(self.store.clone()).clock(self.clock.clone())
    }

    /// Makes time pass, the store's too.
    fn advance(&self, time: Duration) {
        self.clock.advance(time);
        (self.pass)(time);
    }

    /// What is recorded under the key that was asked for last.
    fn recorded(&self) -> Option<Entry> {
        patiently(|| self.store.inner.read(&self.store.key()))
    }

    /// Writes there past everybody.
    fn put(&self, bytes: &[u8]) {
        let swap =
            patiently(|| self.store.inner.compare_and_swap(&self.store.key(), Expected::Any, Some((bytes, HOUR))));
        assert!(matches!(swap, SwapOutcome::Done(_)));
    }
}

/// A store that tells what it was asked and fails when a test says so.
#[derive(Clone, Debug)]
struct Observed {
    inner: Arc<dyn Store>,
    asked: Arc<Mutex<Asked>>,
    gate: Arc<Mutex<()>>,
}

#[derive(Debug, Default)]
struct Asked {
    keys: Vec<Key>,
    writes: usize,
    faults: Vec<Fault>,
}

/// What happens to the next operation, the last one first.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// It fails, and nothing is done.
    Fails,
    /// The next write is done, and fails.
    LosesAnswer,
    /// What was in the way has gone before it can be told.
    Vanishes,
    /// What is read has no end.
    HasNoEnd,
}

impl Observed {
    fn of(inner: impl Store) -> Observed {
        Observed { inner: Arc::new(inner), asked: Arc::default(), gate: Arc::default() }
    }

    fn key(&self) -> Key {
        self.asked.lock().unwrap().keys.last().unwrap().clone()
    }

    fn operations(&self) -> usize {
        self.asked.lock().unwrap().keys.len()
    }

    fn writes(&self) -> usize {
        self.asked.lock().unwrap().writes
    }

    fn next(&self, faults: &[Fault]) {
        self.asked.lock().unwrap().faults = faults.iter().rev().copied().collect();
    }

    fn note(&self, key: &Key) -> Option<Fault> {
        drop(self.gate.lock());
        let mut asked = self.asked.lock().unwrap();
        asked.keys.push(key.clone());
        asked.faults.pop_if(|fault| *fault != Fault::LosesAnswer)
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Store, "broken on purpose")
}

impl Store for Observed {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        match self.note(key) {
            Some(Fault::Fails) => Err(broken()),
            Some(Fault::HasNoEnd) => Ok(self.inner.read(key)?.map(without_end)),
            _ => self.inner.read(key),
        }
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        let fault = self.note(key);
        match fault {
            Some(Fault::Fails) => return Err(broken()),
            Some(Fault::Vanishes) => return Ok(SwapOutcome::Conflict(None)),
            _ => {}
        }
        let swap = self.inner.compare_and_swap(key, expected, new)?;
        let mut asked = self.asked.lock().unwrap();
        match swap {
            SwapOutcome::Done(_) => {
                asked.writes += 1;
                if asked.faults.pop_if(|fault| *fault == Fault::LosesAnswer).is_some() {
                    return Err(broken());
                }
            }
            SwapOutcome::Conflict(Some(entry)) if fault == Some(Fault::HasNoEnd) => {
                return Ok(SwapOutcome::Conflict(Some(without_end(entry))));
            }
            SwapOutcome::Conflict(_) => {}
        }
        Ok(swap)
    }
}

fn without_end(entry: Entry) -> Entry {
    Entry::with_version(entry.bytes().to_vec(), Duration::ZERO, entry.version().clone())
}

const CLAIM: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

fn begin(once: &Idempotency) -> Outcome<String> {
    patiently(|| once.begin("order-17", "100 EUR"))
}

fn claim(once: &Idempotency) -> Claim<String> {
    match begin(once) {
        Outcome::New(claim) => claim,
        other => panic!("{other:?}"),
    }
}

/// What is known of it, in a word.
fn told<T: std::fmt::Display>(outcome: Outcome<T>) -> String {
    match outcome {
        Outcome::New(_) => "new".to_owned(),
        Outcome::InProgress { .. } => "in progress".to_owned(),
        Outcome::Completed(result) => result.to_string(),
        Outcome::Mismatch => "mismatch".to_owned(),
    }
}

fn complete(claim: &Claim<String>, result: &str) -> Result<(), ErrorKind> {
    claim.complete(&result.to_owned()).map_err(|error| error.kind())
}

fn of_sixty_four_threads_that_begin_at_once_one_has_the_claim(bed: &Bed) {
    for round in 0..5 {
        let (start, key) = (Barrier::new(64), format!("order-{round}"));
        let outcomes: Vec<_> = thread::scope(|scope| {
            let racing: Vec<_> = (0..64)
                .map(|_| {
                    let (once, start, key) = (bed.once(), &start, &key);
                    scope.spawn(move || {
                        start.wait();
                        // A busy machine may not serve so many in time: whoever got no answer has no claim.
                        once.begin::<String>(key, "").map_or("unknown".to_owned(), told)
                    })
                })
                .collect();
            racing.into_iter().map(|racing| racing.join().unwrap()).collect()
        });
        let count = |what: &str| outcomes.iter().filter(|outcome| *outcome == what).count();
        let claims = count("new");
        assert!(claims == 1 || claims == 0 && count("unknown") > 0, "{outcomes:?}");
        assert_eq!(claims + count("in progress") + count("unknown"), 64, "{outcomes:?}");
        assert_eq!(bed.store.writes(), round + 1);
    }
}

fn each_step_is_one_operation_of_the_store(bed: &Bed) {
    let once = bed.once();
    let (claim, other) = (claim(&once), bed.once());
    let one_more = |what: &str, done: &dyn Fn()| {
        let before = bed.store.operations();
        done();
        assert_eq!(bed.store.operations(), before + 1, "{what}");
    };
    assert_eq!(bed.store.operations(), 1);
    one_more("begin", &|| drop(other.begin::<String>("order-17", "100 EUR").unwrap()));
    one_more("mismatch", &|| drop(other.begin::<String>("order-17", "200 EUR").unwrap()));
    one_more("extend", &|| claim.extend().unwrap());
    one_more("get", &|| drop(other.get::<String>("order-17").unwrap()));
    one_more("complete", &|| claim.complete(&"receipt".to_owned()).unwrap());
    one_more("begin again", &|| drop(other.begin::<String>("order-17", "100 EUR").unwrap()));
    let mut keys = bed.store.asked.lock().unwrap().keys.clone();
    keys.dedup();
    assert_eq!(keys.len(), 1, "one key for a thing");
    assert!(keys[0].as_str().starts_with("evertoken:{v1:") && keys[0].as_str().ends_with(":once"), "{keys:?}");
}

fn what_has_been_completed_is_what_everybody_gets(bed: &Bed) {
    let claim = claim(&bed.once());
    match begin(&bed.once()) {
        Outcome::InProgress { remaining } => assert!(remaining <= CLAIM && remaining > CLAIM / 2, "{remaining:?}"),
        other => panic!("{other:?}"),
    }
    complete(&claim, "receipt").unwrap();
    assert_eq!(told(begin(&bed.once())), "receipt");
    // Another key and another namespace are other things.
    let other = bed.once().begin::<String>("order-18", "100 EUR").unwrap();
    assert_eq!(told(other), "new");
    assert_eq!(told(begin(&bed.once().namespace("billing"))), "new");
}

fn a_claim_is_completed_once(bed: &Bed) {
    let claim = claim(&bed.once());
    complete(&claim, "first").unwrap();
    let writes = bed.store.writes();
    for result in ["first", "second"] {
        assert_eq!(complete(&claim, result), Err(ErrorKind::ClaimLost));
    }
    assert_eq!(claim.extend().unwrap_err().kind(), ErrorKind::ClaimLost);
    assert_eq!(claim.abandon().unwrap_err().kind(), ErrorKind::ClaimLost);
    assert_eq!((told(begin(&bed.once())).as_str(), bed.store.writes()), ("first", writes));
}

fn a_claim_that_has_run_out_neither_comes_back_nor_overwrites_anything(bed: &Bed) {
    type Step = fn(&Claim<String>) -> Result<(), Error>;
    let steps: [Step; 3] = [|claim| claim.complete(&"late".to_owned()), Claim::extend, Claim::abandon];
    for step in steps {
        let late = claim(&bed.once());
        bed.advance(CLAIM + SECOND);
        let error = step(&late).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::ClaimLost, false), "{error}");
        assert!(bed.recorded().is_none());
        let next = claim(&bed.once());
        assert_eq!(step(&late).unwrap_err().kind(), ErrorKind::ClaimLost);
        // It is the next one's, and nobody else's.
        next.extend().unwrap();
        next.abandon().unwrap();
    }
}

fn who_sleeps_past_the_claim_does_not_overwrite_who_took_over(bed: &Bed) {
    type Step = fn(&Claim<String>) -> Result<(), Error>;
    let steps: [Step; 3] = [|claim| claim.complete(&"late".to_owned()), Claim::extend, Claim::abandon];
    for (number, step) in steps.iter().enumerate() {
        let once = bed.once();
        let begin = || match once.begin::<String>(number.to_string(), "").unwrap() {
            Outcome::New(claim) => claim,
            other => panic!("{other:?}"),
        };
        // All three have slept, and hear of it at different times.
        let late = [begin(), {
            bed.advance(CLAIM + SECOND);
            begin()
        }];
        bed.advance(CLAIM + SECOND);
        let next = begin();
        assert_eq!(step(&late[0]).unwrap_err().kind(), ErrorKind::ClaimLost);
        next.complete(&"theirs".to_owned()).unwrap();
        let written = bed.recorded().unwrap();
        for late in &late {
            assert_eq!(step(late).unwrap_err().kind(), ErrorKind::ClaimLost);
        }
        assert_eq!(bed.recorded().unwrap().version(), written.version());
        assert_eq!(told(once.begin::<String>(number.to_string(), "").unwrap()), "theirs");
    }
}

fn a_claim_that_lapses_frees_the_key_after_its_own_life_and_a_result_is_kept_for_its(bed: &Bed) {
    let once = bed.once().claim_ttl(60 * SECOND).result_ttl(HOUR);
    drop(claim(&once));
    bed.advance(50 * SECOND);
    assert_eq!(told(begin(&once)), "in progress");
    bed.advance(11 * SECOND);
    complete(&claim(&once), "receipt").unwrap();
    bed.advance(HOUR - 30 * SECOND);
    assert_eq!(told(begin(&once)), "receipt");
    bed.advance(31 * SECOND);
    assert_eq!(told(begin(&once)), "new");
}

fn who_is_told_to_do_it_has_a_recorded_claim_whatever_the_store_forgets(bed: &Bed) {
    bed.store.next(&[Fault::Vanishes]);
    let claim = claim(&bed.once());
    assert!(bed.recorded().is_some());
    assert_eq!(told(begin(&bed.once())), "in progress");
    complete(&claim, "receipt").unwrap();
    // One that is never there when it is looked at, and never free, has no claim for anybody.
    bed.store.next(&[Fault::Vanishes; 64]);
    let error = bed.once().begin::<String>("order-18", "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
}

fn what_cannot_be_read_is_replaced(bed: &Bed) {
    // A good record, of another key.
    drop(bed.once().begin::<String>("order-18", "100 EUR").unwrap());
    let moved = bed.recorded().unwrap().bytes().to_vec();
    drop(begin(&bed.once()));
    let good = String::from_utf8(bed.recorded().unwrap().bytes().to_vec()).unwrap();
    let future = good.replace(r#""v":1"#, r#""v":2"#);
    assert_ne!(good, future);
    let array = format!("[{good}]");
    let half = good[..good.len() / 2].to_owned();
    let large = vec![b' '; 70_000];
    let unreadable: [&[u8]; 8] =
        [b"{}", b"[1,2,3]", b"\xff\xfe hunter2", &moved, future.as_bytes(), array.as_bytes(), half.as_bytes(), &large];
    for bytes in unreadable {
        // Some stores do not keep so much: then nobody has to read it.
        let swap = bed.store.inner.compare_and_swap(&bed.store.key(), Expected::Any, Some((bytes, HOUR)));
        if bytes == large && swap.is_err_and(|error| error.to_string().contains("the limit is 64 KiB")) {
            continue;
        }
        bed.put(bytes);
        assert!(bed.once().get::<String>("order-17").unwrap().is_none());
        let before = bed.store.operations();
        let claim = claim(&bed.once());
        assert_eq!(bed.store.operations(), before + 2, "the second one replaces it");
        assert_eq!(told(begin(&bed.once())), "in progress");
        complete(&claim, "receipt").unwrap();
        assert_eq!(told(begin(&bed.once())), "receipt");
        // And what comes in the place of a claim is not overwritten by it.
        bed.put(bytes);
        let late = self::claim(&bed.once());
        bed.put(bytes);
        let there = bed.recorded().unwrap();
        assert_eq!(complete(&late, "late"), Err(ErrorKind::ClaimLost));
        assert_eq!(bed.recorded().unwrap().version(), there.version());
    }
}

fn a_claim_without_end_is_over_and_a_result_without_end_is_none(bed: &Bed) {
    let late = claim(&bed.once());
    bed.store.next(&[Fault::HasNoEnd]);
    assert!(bed.once().get::<String>("order-17").unwrap().is_none());
    bed.store.next(&[Fault::HasNoEnd]);
    let claim = claim(&bed.once());
    assert_eq!(complete(&late, "late"), Err(ErrorKind::ClaimLost));
    complete(&claim, "receipt").unwrap();
    bed.store.next(&[Fault::HasNoEnd]);
    assert_eq!(told(begin(&bed.once())), "receipt");
}

fn another_request_under_the_same_key_is_a_mismatch(bed: &Bed) {
    let claim = claim(&bed.once());
    let other = || told(bed.once().begin::<String>("order-17", "200 EUR").unwrap());
    assert_eq!(other(), "mismatch");
    complete(&claim, "receipt").unwrap();
    assert_eq!(other(), "mismatch");
    let ran = bed.once().run("order-17", "200 EUR", || -> Result<String, io::Error> { panic!("it must not run") });
    assert!(matches!(ran, Err(RunError::Mismatch)));
    assert_eq!(told(begin(&bed.once())), "receipt");
    // When what was there is over, the key is anybody's.
    bed.advance(DAY + SECOND);
    assert_eq!(other(), "new");
}

fn a_result_that_is_too_large_is_refused_before_anything_is_written(bed: &Bed) {
    let claim = claim(&bed.once());
    let (written, largest) = (bed.recorded().unwrap(), "x".repeat(63 * 1024 - 2));
    let operations = bed.store.operations();
    assert_eq!(complete(&claim, &format!("{largest}x")), Err(ErrorKind::Config));
    assert_eq!(bed.store.operations(), operations);
    assert_eq!(bed.recorded().unwrap().version(), written.version());
    // The claim is kept.
    complete(&claim, &largest).unwrap();
    assert_eq!(told(begin(&bed.once())), largest);
}

fn a_result_of_another_type_is_an_error_and_stays(bed: &Bed) {
    complete(&claim(&bed.once()), "hunter2").unwrap();
    let once = bed.once();
    for error in [
        once.begin::<u32>("order-17", "100 EUR").unwrap_err(),
        once.get::<u32>("order-17").unwrap_err(),
        once.begin_within::<u32>("order-17", "100 EUR", HOUR).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidResponse);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
    assert_eq!(told(begin(&bed.once())), "hunter2");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    Parts { name: String, parts: Vec<Option<f64>> },
}

fn results_of_all_shapes_come_back(bed: &Bed) {
    fn comes_back<T: PartialEq + std::fmt::Debug + Serialize + serde::de::DeserializeOwned>(bed: &Bed, result: T) {
        let (once, key) = (bed.once(), format!("{result:?}"));
        let Outcome::New(claim) = once.begin::<T>(&key, "").unwrap() else { panic!("{key}") };
        claim.complete(&result).unwrap();
        let Outcome::Completed(back) = once.begin::<T>(&key, "").unwrap() else { panic!("{key}") };
        assert_eq!(back, result);
        assert_eq!(once.get::<T>(&key).unwrap().unwrap().into_result(), Some(result));
    }
    comes_back(bed, ());
    comes_back(bed, None::<String>);
    comes_back(bed, Some(true));
    comes_back(bed, u64::MAX);
    comes_back(bed, vec!["\"}\n\u{0}", "鍵"].into_iter().map(str::to_owned).collect::<Vec<_>>());
    comes_back(bed, Shape::Unit);
    comes_back(bed, Shape::Parts { name: "result".into(), parts: vec![None, Some(0.1)] });
}

fn an_extended_claim_lasts_its_whole_life_again(bed: &Bed) {
    let claim = claim(&bed.once());
    for _ in 0..4 {
        bed.advance(20 * SECOND);
        claim.extend().unwrap();
    }
    // No two records are the same, or a store that looks whether its write was done would take one for the other.
    let first = bed.recorded().unwrap();
    claim.extend().unwrap();
    assert_ne!(bed.recorded().unwrap().bytes(), first.bytes());
    bed.advance(20 * SECOND);
    assert_eq!(told(begin(&bed.once())), "in progress");
    complete(&claim, "receipt").unwrap();
    assert_eq!(told(begin(&bed.once())), "receipt");
}

fn an_abandoned_claim_is_free_at_once(bed: &Bed) {
    let given_up = claim(&bed.once());
    given_up.abandon().unwrap();
    assert!(bed.recorded().is_none());
    assert_eq!(complete(&given_up, "late"), Err(ErrorKind::ClaimLost));
    let next = claim(&bed.once());
    assert_eq!(given_up.abandon().unwrap_err().kind(), ErrorKind::ClaimLost);
    // One that is dropped is not.
    drop(next);
    assert_eq!(told(begin(&bed.once())), "in progress");
}

fn what_is_recorded_can_be_looked_at(bed: &Bed) {
    let (once, start) = (bed.once(), time_of(&bed.clock));
    assert!(once.get::<String>("order-17").unwrap().is_none());
    let claim = claim(&once);
    let look = || once.get::<String>("order-17").unwrap().unwrap();
    let deed = look();
    assert_eq!((deed.status(), deed.result()), (OperationStatus::InProgress, None));
    assert_eq!((deed.created(), deed.updated()), (start, start));
    assert!(deed.remaining() <= CLAIM);
    bed.advance(5 * SECOND);
    claim.extend().unwrap();
    assert_eq!((look().created(), look().updated()), (start, start + 5 * SECOND));
    bed.advance(2 * SECOND);
    complete(&claim, "receipt").unwrap();
    let deed = look();
    assert_eq!((deed.status(), deed.result().map(String::as_str)), (OperationStatus::Completed, Some("receipt")));
    assert_eq!((deed.created(), deed.updated()), (start, start + 7 * SECOND));
    assert!(deed.remaining() <= DAY && deed.remaining() > DAY - HOUR);
    assert_eq!(deed.into_result().as_deref(), Some("receipt"));
    bed.advance(DAY + SECOND);
    assert!(once.get::<String>("order-17").unwrap().is_none());
}

/// What the clock shows, in whole milliseconds, as it is recorded.
fn time_of(clock: &FakeClock) -> SystemTime {
    let once = Idempotency::new(MemoryStore::new()).clock(clock.clone());
    drop(once.begin::<()>("now", "").unwrap());
    once.get::<()>("now").unwrap().unwrap().created()
}

fn a_result_whose_recording_was_not_confirmed_can_be_recorded_again(bed: &Bed) {
    for fault in [Fault::Fails, Fault::LosesAnswer] {
        let claim = claim(&bed.once());
        bed.store.next(&[fault]);
        assert_eq!(complete(&claim, "receipt"), Err(ErrorKind::Store));
        let is_recorded = fault == Fault::LosesAnswer;
        assert_eq!(told(begin(&bed.once())), if is_recorded { "receipt" } else { "in progress" });
        complete(&claim, "receipt").unwrap();
        assert_eq!(complete(&claim, "receipt"), Err(ErrorKind::ClaimLost));
        assert_eq!(told(begin(&bed.once())), "receipt");
        bed.advance(DAY + SECOND);
    }
    // Another result is not taken for the one that was recorded, and neither it nor an extension that comes late keeps the
    // one who recorded it from hearing so.
    let claim = claim(&bed.once());
    bed.store.next(&[Fault::LosesAnswer]);
    assert_eq!(complete(&claim, "receipt"), Err(ErrorKind::Store));
    assert_eq!(complete(&claim, "another"), Err(ErrorKind::ClaimLost));
    assert_eq!(claim.extend().unwrap_err().kind(), ErrorKind::ClaimLost);
    complete(&claim, "receipt").unwrap();
    assert_eq!(told(begin(&bed.once())), "receipt");
}

fn an_extension_that_was_not_confirmed_does_no_harm(bed: &Bed) {
    let claim = claim(&bed.once());
    bed.advance(20 * SECOND);
    bed.store.next(&[Fault::LosesAnswer]);
    assert_eq!(claim.extend().unwrap_err().kind(), ErrorKind::Store);
    bed.advance(20 * SECOND);
    claim.extend().unwrap();
    bed.store.next(&[Fault::LosesAnswer]);
    assert_eq!(claim.extend().unwrap_err().kind(), ErrorKind::Store);
    complete(&claim, "receipt").unwrap();
    assert_eq!(told(begin(&bed.once())), "receipt");
    // The same with one that is given back.
    let Outcome::New(claim) = bed.once().begin::<String>("order-18", "").unwrap() else { panic!("it is new") };
    bed.store.next(&[Fault::LosesAnswer]);
    assert_eq!(claim.extend().unwrap_err().kind(), ErrorKind::Store);
    claim.abandon().unwrap();
    assert!(bed.recorded().is_none());
}

fn threads_that_extend_one_claim_do_not_keep_each_other_from_completing_it(bed: &Bed) {
    let claim = claim(&bed.once());
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                start.wait();
                while claim.extend().map_err(|error| error.kind()) != Err(ErrorKind::ClaimLost) {}
            });
        }
        start.wait();
        // Each try starts over a few times only, and three write all the time.
        let asked = Instant::now();
        while let Err(kind) = complete(&claim, "receipt") {
            assert!(kind == ErrorKind::Store && asked.elapsed() < PATIENCE, "{kind:?}");
        }
    });
    assert_eq!(told(begin(&bed.once())), "receipt");
}

fn a_closure_runs_once_and_its_failure_frees_the_key(bed: &Bed) {
    let runs = AtomicUsize::new(0);
    let run = |result: Result<&str, io::ErrorKind>| {
        bed.once().run("order-17", "100 EUR", || {
            runs.fetch_add(1, Ordering::SeqCst);
            result.map(str::to_owned)
        })
    };
    let failed = run(Err(io::ErrorKind::NotFound)).unwrap_err();
    assert!(matches!(failed, RunError::Failed(io::ErrorKind::NotFound)));
    assert!(bed.recorded().is_none());
    assert_eq!(run(Ok("receipt")).unwrap(), "receipt");
    assert_eq!(run(Ok("another")).unwrap(), "receipt");
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    // While one does it, another does not.
    let claim = bed.once().begin::<String>("order-18", "").unwrap();
    let ran = bed.once().run("order-18", "", || -> Result<String, io::Error> { panic!("it must not run") });
    assert!(matches!(ran, Err(RunError::InProgress { remaining }) if remaining <= CLAIM));
    drop(claim);
    bed.store.next(&[Fault::Fails]);
    let ran = bed.once().run("order-19", "", || -> Result<String, io::Error> { panic!("it must not run") });
    assert!(matches!(ran, Err(RunError::NotBegun(error)) if error.kind() == ErrorKind::Store));
}

fn a_closure_that_panics_leaves_its_claim_to_run_out(bed: &Bed) {
    let once = bed.once();
    let panicking = || once.run("order-17", "100 EUR", || -> Result<String, io::Error> { panic!("on purpose") });
    let panic = catch_unwind(AssertUnwindSafe(panicking)).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    assert_eq!(told(begin(&once)), "in progress");
    bed.advance(CLAIM + SECOND);
    assert_eq!(told(begin(&once)), "new");
}

fn a_closure_that_takes_longer_than_a_claim_keeps_it(bed: &Bed) {
    let once = bed.once().claim_ttl(3 * SECOND);
    let result = once.run("order-17", "100 EUR", || {
        // Four seconds, in steps that are not too long for a machine that has a lot to do.
        for _ in 0..4 {
            let writes = bed.store.writes();
            eventually("it is extended", || bed.store.writes() > writes);
            bed.advance(SECOND);
            assert_eq!(told(begin(&bed.once())), "in progress");
        }
        Ok::<_, io::Error>("receipt".to_owned())
    });
    assert_eq!(result.unwrap(), "receipt");
    assert_eq!(told(begin(&bed.once())), "receipt");
}

fn a_closure_that_has_lost_its_claim_hands_its_result_back(bed: &Bed) {
    let ran = bed.once().run("order-17", "100 EUR", || {
        bed.advance(CLAIM + SECOND);
        complete(&claim(&bed.once()), "theirs").unwrap();
        Ok::<_, io::Error>("mine".to_owned())
    });
    match ran.unwrap_err() {
        RunError::Unrecorded { result, error } => {
            assert_eq!((result.as_str(), error.kind()), ("mine", ErrorKind::ClaimLost));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(told(begin(&bed.once())), "theirs");
    // One that cannot be recorded for any other reason is not lost either.
    let ran = bed.once().run("order-18", "", || Ok::<_, io::Error>("x".repeat(64 * 1024)));
    assert!(matches!(ran, Err(RunError::Unrecorded { result, error })
        if result.len() == 64 * 1024 && error.kind() == ErrorKind::Config));
}

fn a_result_is_recorded_when_the_store_is_back_soon(bed: &Bed) {
    let ran = bed.once().run("order-17", "100 EUR", || {
        bed.store.next(&[Fault::Fails, Fault::LosesAnswer]);
        Ok::<_, io::Error>("receipt".to_owned())
    });
    assert_eq!(ran.unwrap(), "receipt");
    assert_eq!(told(begin(&bed.once())), "receipt");
}

/// Begins in a thread, and waits.
fn waiting<'scope>(scope: &'scope thread::Scope<'scope, '_>, bed: &Bed) -> thread::ScopedJoinHandle<'scope, String> {
    let (once, operations) = (bed.once(), bed.store.operations());
    let waiting = scope.spawn(move || told(once.begin_within::<String>("order-17", "100 EUR", PATIENCE).unwrap()));
    eventually("it has looked more than once", || bed.store.operations() > operations + 1);
    waiting
}

fn who_waits_gets_the_result_of_another(bed: &Bed) {
    let claim = claim(&bed.once());
    let asked = Instant::now();
    thread::scope(|scope| {
        let waiting = [waiting(scope, bed), waiting(scope, bed)];
        complete(&claim, "receipt").unwrap();
        waiting.into_iter().for_each(|waiting| assert_eq!(waiting.join().unwrap(), "receipt"));
    });
    assert!(asked.elapsed() < PATIENCE / 2);
    let ran = bed.once().run_within("order-17", "100 EUR", PATIENCE, || -> Result<String, io::Error> { panic!("no") });
    assert_eq!(ran.unwrap(), "receipt");
}

fn who_waits_takes_over_what_is_abandoned_or_runs_out(bed: &Bed) {
    let asked = Instant::now();
    for abandon in [true, false] {
        let claim = claim(&bed.once());
        thread::scope(|scope| {
            let waiting = waiting(scope, bed);
            if abandon {
                claim.abandon().unwrap()
            } else {
                bed.advance(CLAIM + SECOND)
            }
            assert_eq!(waiting.join().unwrap(), "new");
        });
        bed.advance(CLAIM + SECOND);
    }
    assert!(asked.elapsed() < PATIENCE / 2);
}

fn who_waits_knows_a_claim_of_its_own(bed: &Bed) {
    let claim = claim(&bed.once());
    let next = thread::scope(|scope| {
        let (once, operations) = (bed.once(), bed.store.operations());
        let waiting = scope.spawn(move || once.begin_within::<String>("order-17", "100 EUR", PATIENCE).unwrap());
        eventually("it has looked more than once", || bed.store.operations() > operations + 1);
        // Given back past the fault, which is for the one who waits.
        let before = bed.store.operations();
        bed.store.next(&[Fault::LosesAnswer]);
        patiently(|| bed.store.inner.compare_and_swap(&bed.store.key(), Expected::Any, None));
        let next = waiting.join().unwrap();
        assert!(bed.store.operations() > before + 1);
        next
    });
    let Outcome::New(next) = next else { panic!("{next:?}") };
    assert_eq!(complete(&claim, "late"), Err(ErrorKind::ClaimLost));
    bed.advance(CLAIM - SECOND);
    complete(&next, "receipt").unwrap();
    assert_eq!(told(begin(&bed.once())), "receipt");
}

fn who_waits_ends_in_time(bed: &Bed) {
    let _claim = claim(&bed.once());
    let wait = Duration::from_millis(300);
    let asked = Instant::now();
    assert_eq!(told(bed.once().begin_within::<String>("order-17", "100 EUR", wait).unwrap()), "in progress");
    let ran = bed.once().run_within("order-17", "100 EUR", wait, || Ok::<_, io::Error>("mine".to_owned()));
    assert!(matches!(ran, Err(RunError::InProgress { .. })));
    assert!(asked.elapsed() >= 2 * wait && asked.elapsed() < 2 * wait + 4 * SECOND, "{:?}", asked.elapsed());
    // The store fails while it waits: it is asked again, to the end.
    thread::scope(|scope| {
        let (once, operations) = (bed.once(), bed.store.operations());
        let waiting = scope.spawn(move || once.begin_within::<String>("order-17", "100 EUR", SECOND));
        eventually("it has looked more than once", || bed.store.operations() > operations + 1);
        bed.store.next(&[Fault::Fails; 200]);
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Store);
    });
}

#[test]
fn wrong_settings_and_keys_are_refused_by_every_call() {
    let store = Observed::of(MemoryStore::new());
    let once = || Idempotency::new(store.clone());
    for (once, key) in [
        (once().claim_ttl(Duration::ZERO), "key"),
        (once().result_ttl(Duration::ZERO), "key"),
        (once().namespace("a b"), "key"),
        (once().namespace(""), "key"),
        (once(), ""),
        (once(), &"x".repeat(1025)),
    ] {
        assert_eq!(once.begin::<()>(key, "").unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(once.begin_within::<()>(key, "", HOUR).unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(once.get::<()>(key).unwrap_err().kind(), ErrorKind::Config);
        let ran = once.run(key, "", || -> Result<(), io::Error> { panic!("it must not run") });
        assert!(matches!(ran, Err(RunError::NotBegun(error)) if error.kind() == ErrorKind::Config));
    }
    assert_eq!(store.operations(), 0);
    assert_eq!(told(once().begin::<String>("x".repeat(1024), "").unwrap()), "new");
    assert_eq!(told(once().begin::<String>("鍵 {}:*\n\u{0}", [0, 255]).unwrap()), "new");
}

#[test]
fn an_unreadable_record_is_reported_once_and_not_quoted() {
    alone(|| {
        crate::common::logs::record_logs();
        let bed = beds::memory();
        let once = bed.once();
        for _ in 0..3 {
            drop(begin(&once));
            bed.put(b"hunter2");
            assert_eq!(told(begin(&once.clone())), "new");
        }
        let logged = crate::common::logs::logged();
        assert_eq!(logged.matches("cannot be read").count(), 1, "{logged}");
        assert!(!logged.contains("hunter2") && !logged.contains("order-17") && logged.contains(":once"), "{logged}");
    });
}

#[test]
fn neither_debug_output_nor_errors_show_a_result_and_the_store_shows_neither_key_nor_request() {
    let bed = beds::memory();
    let once = bed.once();
    let outcome = begin(&once);
    let mut shown = format!("{once:?} {outcome:?}");
    let Outcome::New(claim) = outcome else { panic!("it is new") };
    complete(&claim, "hunter2").unwrap();
    shown += &format!("{claim:?} {:?} {:?}", begin(&once), once.get::<String>("order-17").unwrap());
    let error = RunError::<_, io::Error>::Unrecorded { result: "hunter2", error: broken() };
    shown += &format!("{error:?} {error}");
    assert!(!shown.contains("hunter2") && !shown.contains("order-17"), "{shown}");
    let record = bed.recorded().unwrap();
    let record = String::from_utf8_lossy(record.bytes());
    assert!(record.contains("hunter2") && !record.contains("order-17") && !record.contains("100 EUR"), "{record}");
}

#[test]
fn the_errors_of_a_run_tell_their_cause() {
    let cause = |error: RunError<(), io::Error>| error.source().map(ToString::to_string);
    assert_eq!(cause(RunError::NotBegun(broken())).as_deref(), Some("broken on purpose"));
    assert_eq!(cause(RunError::Unrecorded { result: (), error: broken() }).as_deref(), Some("broken on purpose"));
    assert_eq!(cause(RunError::Failed(io::Error::other("it"))).as_deref(), Some("it"));
    assert_eq!(cause(RunError::Mismatch), None);
    assert_eq!(cause(RunError::InProgress { remaining: SECOND }), None);
    // As `anyhow` and its like want it.
    let _: Box<dyn std::error::Error + Send + Sync> = RunError::<String, io::Error>::Mismatch.into();
}

#[test]
fn handles_and_claims_go_where_threads_are() {
    fn travels<T: Clone + Send + Sync + 'static>() {}
    fn is_shared<T: Send + Sync + 'static>() {}
    travels::<Idempotency>();
    is_shared::<Claim<std::cell::Cell<u8>>>();
    is_shared::<Outcome<Secret>>();
}

#[test]
fn a_store_that_hangs_is_given_up_and_holds_nobody() {
    let bed = beds::memory();
    let once = bed.once();
    let claim = claim(&once);
    let gate = bed.store.gate.lock().unwrap();
    let asked = Instant::now();
    assert_eq!(complete(&claim, "receipt"), Err(ErrorKind::Store));
    for _ in 0..100 {
        assert_eq!(once.begin::<String>("order-18", "").unwrap_err().kind(), ErrorKind::Store);
    }
    assert!(asked.elapsed() < 10 * SECOND, "{:?}", asked.elapsed());
    drop(gate);
    // It is done in the end, behind everybody's back; the claim knows its own result.
    eventually("it answers again", || complete(&claim, "receipt").is_ok());
    assert_eq!(told(begin(&once)), "receipt");
}

#[test]
fn who_slept_while_it_began_has_no_claim_that_is_over() {
    /// A process that is stopped just when its claim has been written.
    type Nap = fn(&MemoryStore);
    #[derive(Debug)]
    struct Sleepy {
        inner: MemoryStore,
        clock: FakeClock,
        nap: Mutex<Option<Nap>>,
    }
    impl Store for Sleepy {
        fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
            self.inner.read(key)
        }
        fn compare_and_swap(
            &self,
            key: &Key,
            expected: Expected<'_>,
            new: Option<(&[u8], Duration)>,
        ) -> Result<SwapOutcome, Error> {
            let swap = self.inner.compare_and_swap(key, expected, new)?;
            if let Some(nap) = self.nap.lock().unwrap().take() {
                self.clock.advance(CLAIM + SECOND);
                nap(&self.inner);
            }
            Ok(swap)
        }
    }
    let clock = FakeClock::new();
    let inner = MemoryStore::with_clock(clock.clone());
    let others = Idempotency::new(inner.clone());
    let sleepy = |nap: Nap| {
        let store = Sleepy { inner: inner.clone(), clock: clock.clone(), nap: Mutex::new(Some(nap)) };
        Idempotency::new(store).clock(clock.clone())
    };
    // Nobody else came: it begins again.
    let claim = claim(&sleepy(|_| {}));
    assert_eq!(told(begin(&others)), "in progress");
    complete(&claim, "receipt").unwrap();
    clock.advance(DAY + SECOND);
    // Somebody did it meanwhile.
    let outcome = begin(&sleepy(|store| {
        complete(&self::claim(&Idempotency::new(store.clone())), "theirs").unwrap();
    }));
    assert_eq!(told(outcome), "theirs");
}

#[test]
fn a_store_that_panics_is_an_error() {
    #[derive(Debug)]
    struct Panicking;
    impl Store for Panicking {
        fn read(&self, _: &Key) -> Result<Option<Entry>, Error> {
            panic!("on purpose")
        }
        fn compare_and_swap(
            &self,
            _: &Key,
            _: Expected<'_>,
            _: Option<(&[u8], Duration)>,
        ) -> Result<SwapOutcome, Error> {
            panic!("on purpose")
        }
    }
    let once = Idempotency::new(Panicking);
    assert_eq!(once.begin::<()>("key", "").unwrap_err().kind(), ErrorKind::Store);
    assert_eq!(once.get::<()>("key").unwrap_err().kind(), ErrorKind::Store);
}

#[test]
#[cfg(target_os = "linux")]
fn the_thread_that_extends_ends_with_the_closure_however_that_ends() {
    alone(|| {
        let names = || -> BTreeSet<String> {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
            tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect()
        };
        // The system cuts names after 15 letters.
        let extends = || names().iter().any(|name| name.starts_with("evertoken-claim"));
        let once = Idempotency::new(MemoryStore::new());
        // A thread names itself once it has started.
        let during = || eventually("it is there", extends);
        let ran = once.run("ok", "", || {
            during();
            Ok::<_, io::Error>(())
        });
        ran.unwrap();
        eventually("it ends", || !extends());
        let failed = once.run("failed", "", || {
            during();
            Err::<(), _>(io::Error::other("on purpose"))
        });
        assert!(failed.is_err());
        eventually("it ends", || !extends());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            once.run("panics", "", || -> Result<(), io::Error> {
                during();
                panic!("on purpose")
            })
        }));
        assert!(panicked.is_err());
        eventually("it ends", || !extends());
    });
}

#[test]
fn a_claim_outlasts_extensions_that_fail_while_it_lives() {
    // In real time: it matters when they are tried again.
    shows("a claim of three seconds is extended though the store fails three times in a row, twice", |number| {
        let store = Observed::of(MemoryStore::new());
        let once = Idempotency::new(store.clone()).claim_ttl(3 * SECOND);
        let result = once.run(number.to_string(), "", || {
            for _ in 0..2 {
                let (operations, writes, start) = (store.operations(), store.writes(), Instant::now());
                store.next(&[Fault::Fails; 3]);
                eventually("it fails three times", || store.operations() > operations + 2);
                eventually("it is extended, or lost", || store.writes() > writes || start.elapsed() > 4 * SECOND);
            }
            Ok::<_, io::Error>("receipt".to_owned())
        });
        result.ok()
    });
}

#[test]
fn a_claim_of_a_short_life_is_kept_in_real_time() {
    shows("a closure of a second keeps a claim of 300 ms", |number| {
        let once = Idempotency::new(MemoryStore::new()).claim_ttl(Duration::from_millis(300));
        let mut was_free = false;
        let ran = once.run(number.to_string(), "", || {
            let start = Instant::now();
            while start.elapsed() < SECOND {
                let found = told(once.begin::<String>(number.to_string(), "").unwrap());
                was_free |= found != "in progress";
                thread::sleep(Duration::from_millis(10));
            }
            Ok::<_, io::Error>("receipt".to_owned())
        });
        (!was_free && ran.is_ok_and(|result| result == "receipt")).then_some(())
    });
}

#[cfg(all(feature = "redis", target_os = "linux"))]
mod on_redis {
    use std::sync::atomic::AtomicBool;

    use crate::common::proxy::Proxy;
    use crate::common::redis_server::{Monitor, RedisServer};
    use evertoken::testing::FakeProvider;
    use evertoken::{RedisStore, TokenManager};

    use super::*;

    /// Makes time pass: everything on the server has that much less left.
    pub(super) fn advance(server: &RedisServer, time: Duration) {
        let script = "
            local left = redis.call('PTTL', KEYS[1]) - ARGV[1]
            return left > 0 and redis.call('PEXPIRE', KEYS[1], left) or redis.call('DEL', KEYS[1])";
        for key in keys(server) {
            server.ask::<()>(&["EVAL", script, "1", &key, &time.as_millis().to_string()]).unwrap();
        }
    }

    fn keys(server: &RedisServer) -> Vec<String> {
        server.ask(&["KEYS", "*"]).unwrap()
    }

    fn once(server: &RedisServer) -> Idempotency {
        Idempotency::new(RedisStore::open(&server.url()).unwrap())
    }

    #[test]
    fn begin_and_complete_are_two_round_trips() {
        let server = RedisServer::start();
        let once = once(&server);
        // The first one connects, and hands the server its script.
        complete(&claim(&once), "receipt").unwrap();
        let monitor = Monitor::of(&server);
        for number in 0..10 {
            let Outcome::New(claim) = once.begin::<String>(number.to_string(), "").unwrap() else { panic!("{number}") };
            claim.complete(&"receipt".to_owned()).unwrap();
        }
        assert_eq!(monitor.commands(), ["EVALSHA"; 20]);
        // One key for each, with an end, and nothing beside it.
        assert_eq!(keys(&server).len(), 11);
        assert!(keys(&server).iter().all(|key| key.ends_with(":once")));
    }

    #[test]
    fn an_answer_that_is_lost_on_the_way_is_no_second_claim_and_no_lost_result() {
        let server = RedisServer::start();
        let proxy = Proxy::to(server.addr());
        let once = Idempotency::new(RedisStore::open(&proxy.url()).unwrap());
        complete(&claim(&once), "receipt").unwrap();
        for number in 0..5 {
            proxy.lose_next_reply_to("EVALSHA");
            let Outcome::New(claim) = once.begin::<String>(number.to_string(), "").unwrap() else { panic!("{number}") };
            proxy.lose_next_reply_to("EVALSHA");
            claim.extend().unwrap();
            proxy.lose_next_reply_to("EVALSHA");
            claim.complete(&"receipt".to_owned()).unwrap();
            assert_eq!(told(once.begin::<String>(number.to_string(), "").unwrap()), "receipt");
        }
    }

    #[test]
    fn many_threads_share_the_connection_to_a_redis_some_milliseconds_away() {
        let server = RedisServer::start();
        let proxy = Proxy::to(server.addr());
        let once = Idempotency::new(RedisStore::open(&proxy.url()).unwrap());
        complete(&claim(&once), "receipt").unwrap();
        proxy.set(crate::common::proxy::Fault::Delay(Duration::from_millis(10)));
        let start = Barrier::new(64);
        thread::scope(|scope| {
            for number in 0..64 {
                let (once, start) = (&once, &start);
                scope.spawn(move || {
                    start.wait();
                    let ran = once.run(number.to_string(), "", || Ok::<_, io::Error>(number));
                    assert_eq!(ran.unwrap(), number);
                });
            }
        });
    }

    #[test]
    fn who_fetches_a_token_does_not_queue_behind_all_that_is_done_once_on_the_same_redis() {
        let server = RedisServer::start();
        let proxy = Proxy::to(server.addr());
        let store = RedisStore::open(&proxy.url()).unwrap();
        let once = Idempotency::new(store.clone());
        complete(&claim(&once), "receipt").unwrap();
        proxy.set(crate::common::proxy::Fault::Delay(Duration::from_millis(10)));
        let (done, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            for worker in 0..64 {
                let (once, done, is_over) = (&once, &done, &is_over);
                scope.spawn(move || {
                    for number in (0..).take_while(|_| !is_over.load(Ordering::SeqCst)) {
                        let ran = once.run(format!("{worker}-{number}"), "", || Ok::<_, io::Error>(number));
                        done.fetch_add(usize::from(ran.is_ok()), Ordering::SeqCst);
                    }
                });
            }
            eventually("all are at it", || done.load(Ordering::SeqCst) > 64);
            let tokens = TokenManager::builder(FakeProvider::new()).store(store.clone()).build().unwrap();
            let asked = Instant::now();
            let got = tokens.token_within(PATIENCE).map(|token| token.expose().to_owned());
            is_over.store(true, Ordering::SeqCst);
            assert_eq!(got.unwrap(), "token-1");
            assert!(asked.elapsed() < 3 * SECOND, "{:?}", asked.elapsed());
        });
    }

    #[test]
    fn a_redis_that_is_down_is_an_error_and_the_claim_outlasts_it() {
        let server = RedisServer::start();
        let once = once(&server);
        let claim = claim(&once);
        server.stop();
        assert_eq!(complete(&claim, "receipt"), Err(ErrorKind::Store));
        server.go_on();
        let asked = Instant::now();
        while let Err(kind) = complete(&claim, "receipt") {
            assert!(kind == ErrorKind::Store && asked.elapsed() < PATIENCE, "{kind:?}");
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(told(begin(&once)), "receipt");
    }
}

/// In processes that share a store. Each test is called with its own name and the address of the store.
#[cfg(target_os = "linux")]
mod processes {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpStream;

    use crate::common::process::{Process, each};

    use super::*;

    macro_rules! in_processes {
        ($store:ident: $($test:ident)*) => {
            mod $store {
                $(#[test]
                fn $test() {
                    if let Some(port) = crate::common::process::port() {
                        return super::act(&port);
                    }
                    let name = crate::common::alone::test_of(&|| ());
                    let (_kept, address) = super::shared::$store();
                    super::$test(name, &address);
                })*
            }
        };
    }

    macro_rules! on_every_shared_store {
        ($($test:ident)*) => {
            in_processes!(files: $($test)*);
            #[cfg(feature = "redis")]
            in_processes!(redis: $($test)*);
        };
    }

    on_every_shared_store! {
        of_several_processes_that_begin_at_once_one_has_the_claim
        what_a_killed_process_had_begun_is_free_when_its_claim_has_run_out
        a_process_that_was_stopped_past_its_claim_does_not_overwrite_who_took_over
    }

    /// A store that is there as long as the first value, and its address.
    mod shared {
        pub(super) fn files() -> (tempfile::TempDir, String) {
            let folder = tempfile::tempdir().unwrap();
            let address = folder.path().join("store").to_str().unwrap().to_owned();
            (folder, address)
        }

        #[cfg(feature = "redis")]
        pub(super) fn redis() -> (crate::common::redis_server::RedisServer, String) {
            let server = crate::common::redis_server::RedisServer::start();
            let address = server.url();
            (server, address)
        }
    }

    fn open(address: &str) -> Idempotency {
        #[cfg(feature = "redis")]
        if address.starts_with("redis:") {
            return Idempotency::new(evertoken::RedisStore::open(address).unwrap());
        }
        Idempotency::new(FileStore::at(address))
    }

    fn of_several_processes_that_begin_at_once_one_has_the_claim(name: &str, address: &str) {
        let mut processes: Vec<_> = (0..8).map(|_| Process::start(name)).collect();
        each(&mut processes, &format!("open {address} 30000"));
        for round in 0..8 {
            let answers = each(&mut processes, &format!("begin {round}"));
            let count = |what: &str| answers.iter().filter(|answer| *answer == what).count();
            assert_eq!((count("new"), count("in progress")), (1, 7), "{answers:?}");
            let owner = answers.iter().position(|answer| answer == "new").unwrap();
            // The others have no claim to complete, and the owner has one to complete once.
            assert_eq!(processes[owner].ask(&format!("complete {owner}")), "ok");
            assert_eq!(processes[owner].ask("complete again"), "ClaimLost");
            assert!(each(&mut processes, &format!("begin {round}")).iter().all(|told| *told == owner.to_string()));
        }
    }

    fn what_a_killed_process_had_begun_is_free_when_its_claim_has_run_out(name: &str, address: &str) {
        let (mut owner, others) = (Process::start(name), open(address));
        owner.ask(&format!("open {address} 1500"));
        assert_eq!(owner.ask("begin 1"), "new");
        owner.kill();
        let left = others.get::<String>("1").unwrap().unwrap().remaining();
        let seen = Instant::now();
        let next = others.begin_within::<String>("1", "", PATIENCE).unwrap();
        let waited = seen.elapsed();
        assert_eq!(told(next), "new");
        // What is left may be told in whole milliseconds, a moment before the watch was started.
        assert!(waited + Duration::from_millis(100) > left && waited < left + 2 * SECOND, "{waited:?} of {left:?}");
    }

    fn a_process_that_was_stopped_past_its_claim_does_not_overwrite_who_took_over(name: &str, address: &str) {
        let (mut owner, others) = (Process::start(name), open(address));
        owner.ask(&format!("open {address} 1500"));
        assert_eq!(owner.ask("begin 1"), "new");
        // It is in the midst of `run`, whose thread extends the claim, when it is stopped.
        assert_eq!(owner.ask("run 2"), "it runs");
        owner.stop();
        // Not in the midst of a change: a file stays locked as long as who changes it is stopped.
        while others.begin::<String>("2", "").is_err() {
            owner.go_on();
            owner.stop();
        }
        for key in ["1", "2"] {
            let next = others.begin_within::<String>(key, "", PATIENCE).unwrap();
            let Outcome::New(next) = next else { panic!("{next:?}") };
            next.complete(&"theirs".to_owned()).unwrap();
        }
        owner.go_on();
        assert_eq!(owner.hear(), "unrecorded mine ClaimLost");
        assert_eq!(owner.ask("complete mine"), "ClaimLost");
        for key in ["1", "2"] {
            assert_eq!(told(others.begin::<String>(key, "").unwrap()), "theirs");
        }
    }

    /// What a process does: as it is told, line by line, as long as somebody tells it.
    fn act(port: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let (mut once, mut claim) = (None::<Idempotency>, None);
        for line in lines.map_while(Result::ok) {
            let words: Vec<_> = line.split(' ').collect();
            let answer = match (words.as_slice(), &once) {
                (["open", address, life], _) => {
                    let life = Duration::from_millis(life.parse().unwrap());
                    once = Some(open(address).claim_ttl(life));
                    "ok".to_owned()
                }
                (["begin", key], Some(once)) => match patiently(|| once.begin::<String>(key, "")) {
                    Outcome::New(new) => {
                        claim = Some(new);
                        "new".to_owned()
                    }
                    other => told(other),
                },
                (["complete", result], Some(_)) => match complete(claim.as_ref().unwrap(), result) {
                    Ok(()) => "ok".to_owned(),
                    Err(kind) => format!("{kind:?}"),
                },
                (["run", key], Some(once)) => run(once, key, &mut stream),
                _ => panic!("{line}?"),
            };
            writeln!(stream, "{answer}").unwrap();
        }
    }

    /// Runs until somebody else has done it.
    fn run(once: &Idempotency, key: &str, stream: &mut TcpStream) -> String {
        let ran = once.run(key, "", || {
            writeln!(stream, "it runs").unwrap();
            // Looks without a lock: see where this is stopped.
            eventually("another has done it", || {
                thread::sleep(Duration::from_millis(5));
                matches!(once.get::<String>(key), Ok(Some(deed)) if deed.status() == OperationStatus::Completed)
            });
            Ok::<_, io::Error>("mine".to_owned())
        });
        match ran {
            Err(RunError::Unrecorded { result, error }) => format!("unrecorded {result} {:?}", error.kind()),
            other => format!("{other:?}"),
        }
    }
}

/// As a simulation does that wants the same numbers each time, in two containers where it has the same process id.
#[test]
fn two_programs_that_seed_their_random_numbers_alike_have_not_one_claim() {
    let store = MemoryStore::new();
    let begin = || {
        fastrand::seed(42);
        begin(&Idempotency::new(store.clone()))
    };
    let _claim = begin();
    assert_eq!(told(begin()), "in progress");
}

/// What is recorded as done has to be told as done.
#[test]
fn a_result_that_cannot_be_read_back_is_refused_by_complete() {
    let once = Idempotency::new(MemoryStore::new());
    let Outcome::New(claim) = once.begin::<f64>("deed", "").unwrap() else { panic!("nobody has begun it") };
    assert_eq!(claim.complete(&f64::NAN).unwrap_err().kind(), ErrorKind::Config);
    claim.complete(&1.0).unwrap();
}

/// A claim is short and a result is kept long, so to let go of what ends first would be to let go of claims.
#[test]
fn a_claim_stays_its_owners_in_a_memory_store_that_is_full_of_results() {
    let once = Idempotency::new(MemoryStore::new());
    for number in 0..9_999 {
        match once.begin::<u32>(format!("done-{number}"), "").unwrap() {
            Outcome::New(claim) => claim.complete(&number).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    let Outcome::New(mine) = once.begin::<u32>("mine", "").unwrap() else { panic!("nobody has begun it") };
    assert_eq!(once.begin::<u32>("another", "").unwrap_err().kind(), ErrorKind::Store);
    let again = once.begin::<u32>("mine", "").unwrap();
    assert!(matches!(again, Outcome::InProgress { .. }), "{again:?}: two have a claim on it");
    mine.complete(&1).unwrap();
}
