//! Stores that are slow, hang, panic, or never let a write through.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use evertoken::idempotency::{Idempotency, Outcome};
use evertoken::store::{Entry, Expected, Key, Store, SwapOutcome};
use evertoken::testing::FakeClock;
use evertoken::{Error, ErrorKind, MemoryStore};

use crate::bed::*;
use crate::common::alone::alone;
use crate::common::stores::*;
use crate::common::wait::*;

/// A store in which every write conflicts with an entry that is gone at the next read.
#[derive(Debug)]
struct ConflictingStore;

impl Store for ConflictingStore {
    fn read(&self, _: &Key) -> Result<Option<Entry>, Error> {
        Ok(None)
    }

    fn compare_and_swap(&self, _: &Key, _: Expected<'_>, _: Option<(&[u8], Duration)>) -> Result<SwapOutcome, Error> {
        thread::sleep(Duration::from_millis(1_200));
        Ok(SwapOutcome::Conflict(None))
    }
}

#[test]
fn a_step_takes_three_seconds_at_most_whatever_its_number_of_operations() {
    let once = Idempotency::new(ConflictingStore);
    // The last operation of the first step had less time than an operation may take, which does not count as a fault of
    // the store.
    for job in ["one", "another"] {
        let asked = Instant::now();
        let error = once.begin::<u32>(job, "").unwrap_err();
        let took = asked.elapsed();
        assert!(error.kind() == ErrorKind::Store && took > 2 * SECOND && took < 4 * SECOND, "{error} after {took:?}");
    }
}

#[test]
fn an_operation_runs_although_the_store_takes_more_than_a_second() {
    let once = Idempotency::new(SlowStore {
        inner: MemoryStore::new(),
        read: Duration::from_millis(1_200),
        write: Duration::from_millis(1_200),
    });
    let run = |result: u32| once.run("job", "", || Ok::<_, Error>(result)).unwrap();
    assert_eq!((run(1), run(2)), (1, 1));
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
            assert_eq!(word_for(begin(&once.clone())), "new");
        }
        let logged = crate::common::logs::logged();
        assert_eq!(logged.matches("cannot be read").count(), 1, "{logged}");
        assert!(!logged.contains("hunter2") && !logged.contains("order-17") && logged.contains(":once"), "{logged}");
    });
}

#[test]
fn a_store_that_hangs_is_abandoned_and_blocks_no_caller() {
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
    // The write takes effect in the end; the claim recognizes its own result.
    eventually("the store works again", || complete(&claim, "receipt").is_ok());
    assert_eq!(word_for(begin(&once)), "receipt");
}

#[test]
fn a_program_that_slept_during_begin_gets_no_expired_claim() {
    /// Runs while a process is suspended just after its claim was written.
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
    // No other program came: the sleeper begins again.
    let claim = claim(&sleepy(|_| {}));
    assert_eq!(word_for(begin(&others)), "in progress");
    complete(&claim, "receipt").unwrap();
    clock.advance(DAY + SECOND);
    // Another program completed the operation meanwhile.
    let outcome = begin(&sleepy(|store| {
        complete(&self::claim(&Idempotency::new(store.clone())), "theirs").unwrap();
    }));
    assert_eq!(word_for(outcome), "theirs");
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

/// Simulations seed the random numbers of each run alike, and two containers may have equal process ids.
#[test]
fn programs_with_the_same_random_seed_have_different_claims() {
    let store = MemoryStore::new();
    let begin = || {
        fastrand::seed(42);
        begin(&Idempotency::new(store.clone()))
    };
    let _claim = begin();
    assert_eq!(word_for(begin()), "in progress");
}

/// A claim is short and a result is kept long, so dropping the entry that expires first would drop claims.
#[test]
fn a_claim_survives_in_a_memory_store_that_is_full_of_results() {
    let once = Idempotency::new(MemoryStore::new());
    for number in 0..9_999 {
        match once.begin::<u32>(format!("done-{number}"), "").unwrap() {
            Outcome::New(claim) => claim.complete(&number).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    let Outcome::New(mine) = once.begin::<u32>("mine", "").unwrap() else { panic!("the key is taken") };
    assert_eq!(once.begin::<u32>("another", "").unwrap_err().kind(), ErrorKind::Store);
    let again = once.begin::<u32>("mine", "").unwrap();
    assert!(matches!(again, Outcome::InProgress { .. }), "{again:?}: two have a claim on it");
    mine.complete(&1).unwrap();
}
