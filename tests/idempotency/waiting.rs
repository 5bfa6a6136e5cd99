//! Callers that wait for the result of another program.

use std::time::{Duration, Instant};
use std::{io, iter, thread};

use evertoken::ErrorKind;
use evertoken::idempotency::{Outcome, RunError};
use evertoken::store::{Expected, Store};

use crate::bed::*;
use crate::common::wait::*;

/// Calls `begin_within` in a thread.
fn waiting<'scope>(scope: &'scope thread::Scope<'scope, '_>, bed: &Bed) -> thread::ScopedJoinHandle<'scope, String> {
    let (once, operations) = (bed.once(), bed.store.operations());
    let waiting = scope.spawn(move || word_for(once.begin_within::<String>("order-17", "100 EUR", PATIENCE).unwrap()));
    eventually("the manager has checked more than once", || bed.store.operations() > operations + 1);
    waiting
}

pub(crate) fn a_waiting_caller_gets_the_result_of_the_claim_holder(bed: &Bed) {
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

pub(crate) fn a_waiting_caller_takes_over_an_abandoned_or_expired_claim(bed: &Bed) {
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

pub(crate) fn a_waiting_caller_recognizes_its_own_claim(bed: &Bed) {
    let claim = claim(&bed.once());
    let next = thread::scope(|scope| {
        let (once, operations) = (bed.once(), bed.store.operations());
        let waiting = scope.spawn(move || once.begin_within::<String>("order-17", "100 EUR", PATIENCE).unwrap());
        eventually("the manager has checked more than once", || bed.store.operations() > operations + 1);
        // Abandoned without the fault, which is meant for the waiter.
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
    assert_eq!(word_for(begin(&bed.once())), "receipt");
}

pub(crate) fn a_wait_ends_by_its_deadline(bed: &Bed) {
    let _claim = claim(&bed.once());
    let wait = Duration::from_millis(300);
    let asked = Instant::now();
    assert_eq!(word_for(bed.once().begin_within::<String>("order-17", "100 EUR", wait).unwrap()), "in progress");
    let ran = bed.once().run_within("order-17", "100 EUR", wait, || Ok::<_, io::Error>("mine".to_owned()));
    assert!(matches!(ran, Err(RunError::InProgress { .. })));
    assert!(asked.elapsed() >= 2 * wait && asked.elapsed() < 2 * wait + 4 * SECOND, "{:?}", asked.elapsed());
    // The store answers the first time and then fails: the waiter asks again until its deadline.
    let (asked, operations) = (Instant::now(), bed.store.operations());
    let faults: Vec<_> = iter::once(Fault::Nothing).chain(iter::repeat_n(Fault::Fails, 1_000)).collect();
    bed.store.next(&faults);
    let waited = bed.once().begin_within::<String>("order-17", "100 EUR", 2 * SECOND);
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Store);
    assert!(asked.elapsed() >= 2 * SECOND && bed.store.operations() > operations + 1);
}
