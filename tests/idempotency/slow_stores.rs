//! Stores that take long, or never let a write through.

use std::thread;
use std::time::{Duration, Instant};

use evertoken::idempotency::Idempotency;
use evertoken::store::{Entry, Expected, Key, Store, SwapOutcome};
use evertoken::{Error, ErrorKind, MemoryStore};

use crate::common::stores::*;
use crate::common::wait::*;

/// A store in which what stood in the way has always gone when one looks.
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
fn a_step_takes_three_seconds_at_most_however_many_operations_it_is() {
    let once = Idempotency::new(ConflictingStore);
    // The last operation of the first had less time than one may take, which says nothing of the store.
    for job in ["one", "another"] {
        let asked = Instant::now();
        let error = once.begin::<u32>(job, "").unwrap_err();
        let took = asked.elapsed();
        assert!(error.kind() == ErrorKind::Store && took > 2 * SECOND && took < 4 * SECOND, "{error} after {took:?}");
    }
}

#[test]
fn a_job_is_done_though_the_store_takes_more_than_a_second() {
    let once = Idempotency::new(SlowStore {
        inner: MemoryStore::new(),
        read: Duration::from_millis(1_200),
        write: Duration::from_millis(1_200),
    });
    let run = |result: u32| once.run("job", "", || Ok::<_, Error>(result)).unwrap();
    assert_eq!((run(1), run(2)), (1, 1));
}
