//! `run`: a closure runs once, and its claim lasts as long as it takes.

#[cfg(target_os = "linux")]
use std::collections::BTreeSet;
use std::error::Error as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use evertoken::idempotency::{Idempotency, RunError};
use evertoken::{ErrorKind, MemoryStore};

use crate::bed::*;
use crate::common::alone::alone;
use crate::common::wait::*;

pub(crate) fn a_closure_runs_once_and_its_failure_frees_the_key(bed: &Bed) {
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
    // During a run, no other caller gets the claim.
    let claim = bed.once().begin::<String>("order-18", "").unwrap();
    let ran = bed.once().run("order-18", "", || -> Result<String, io::Error> { panic!("it must not run") });
    assert!(matches!(ran, Err(RunError::InProgress { remaining }) if remaining <= CLAIM));
    drop(claim);
    bed.store.next(&[Fault::Fails]);
    let ran = bed.once().run("order-19", "", || -> Result<String, io::Error> { panic!("it must not run") });
    assert!(matches!(ran, Err(RunError::NotBegun(error)) if error.kind() == ErrorKind::Store));
}

pub(crate) fn a_closure_that_panics_leaves_its_claim_to_expire(bed: &Bed) {
    let once = bed.once();
    let panicking = || once.run("order-17", "100 EUR", || -> Result<String, io::Error> { panic!("on purpose") });
    let panic = catch_unwind(AssertUnwindSafe(panicking)).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    assert_eq!(word_for(begin(&once)), "in progress");
    bed.advance(CLAIM + SECOND);
    assert_eq!(word_for(begin(&once)), "new");
}

pub(crate) fn a_closure_that_takes_longer_than_a_claim_keeps_it(bed: &Bed) {
    let once = bed.once().claim_ttl(3 * SECOND);
    let result = once.run("order-17", "100 EUR", || {
        // Four seconds, in steps that are short enough for a busy machine.
        for _ in 0..4 {
            let writes = bed.store.writes();
            eventually("the claim is extended", || bed.store.writes() > writes);
            bed.advance(SECOND);
            assert_eq!(word_for(begin(&bed.once())), "in progress");
        }
        Ok::<_, io::Error>("receipt".to_owned())
    });
    assert_eq!(result.unwrap(), "receipt");
    assert_eq!(word_for(begin(&bed.once())), "receipt");
}

pub(crate) fn a_closure_that_has_lost_its_claim_returns_its_result(bed: &Bed) {
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
    assert_eq!(word_for(begin(&bed.once())), "theirs");
    // A result that cannot be recorded for any other reason is not lost either.
    let ran = bed.once().run("order-18", "", || Ok::<_, io::Error>("x".repeat(64 * 1024)));
    assert!(matches!(ran, Err(RunError::Unrecorded { result, error })
        if result.len() == 64 * 1024 && error.kind() == ErrorKind::Config));
}

pub(crate) fn a_result_is_recorded_when_the_store_is_back_soon(bed: &Bed) {
    let ran = bed.once().run("order-17", "100 EUR", || {
        bed.store.next(&[Fault::Fails, Fault::LosesAnswer]);
        Ok::<_, io::Error>("receipt".to_owned())
    });
    assert_eq!(ran.unwrap(), "receipt");
    assert_eq!(word_for(begin(&bed.once())), "receipt");
}

/// The store accepts extensions and refuses the result for a while.
pub(crate) fn a_claim_is_extended_until_its_result_is_recorded(bed: &Bed) {
    let once = bed.once().claim_ttl(3 * SECOND);
    let store = bed.store.clone();
    let helper = thread::spawn(move || {
        eventually("the result is refused", || store.refused.load(Ordering::SeqCst) > 0);
        let writes = store.writes();
        eventually("the claim is extended while its result is not taken", || store.writes() > writes);
        store.refuses_results.store(false, Ordering::SeqCst);
    });
    let ran = once.run("order-17", "100 EUR", || {
        bed.store.refuses_results.store(true, Ordering::SeqCst);
        Ok::<_, io::Error>("receipt".to_owned())
    });
    helper.join().unwrap();
    assert_eq!(ran.unwrap(), "receipt");
    assert_eq!(word_for(begin(&bed.once())), "receipt");
}

#[test]
fn the_errors_of_a_run_show_their_cause() {
    let cause = |error: RunError<(), io::Error>| error.source().map(ToString::to_string);
    assert_eq!(cause(RunError::NotBegun(broken())).as_deref(), Some("broken on purpose"));
    assert_eq!(cause(RunError::Unrecorded { result: (), error: broken() }).as_deref(), Some("broken on purpose"));
    assert_eq!(cause(RunError::Failed(io::Error::other("it"))).as_deref(), Some("it"));
    assert_eq!(cause(RunError::Mismatch), None);
    assert_eq!(cause(RunError::InProgress { remaining: SECOND }), None);
    let text = |error: RunError<(), io::Error>| error.to_string();
    assert_eq!(text(RunError::NotBegun(broken())), "the operation was not started: broken on purpose");
    assert_eq!(text(RunError::Failed(io::Error::other("it"))), "the operation failed: it");
    assert_eq!(
        text(RunError::Unrecorded { result: (), error: broken() }),
        "the operation ran, but its result was not recorded: broken on purpose"
    );
    // `anyhow` and similar crates need these bounds.
    let _: Box<dyn std::error::Error + Send + Sync> = RunError::<String, io::Error>::Mismatch.into();
}

#[test]
#[cfg(target_os = "linux")]
fn the_thread_that_extends_a_claim_ends_with_the_closure() {
    alone(|| {
        let names = || -> BTreeSet<String> {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
            tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect()
        };
        // The system truncates thread names to 15 bytes.
        let extends = || names().iter().any(|name| name.starts_with("evertoken-claim"));
        let once = Idempotency::new(MemoryStore::new());
        // A thread sets its name after its start.
        let during = || eventually("the thread exists", extends);
        let ran = once.run("ok", "", || {
            during();
            Ok::<_, io::Error>(())
        });
        ran.unwrap();
        eventually("the wait ends", || !extends());
        let failed = once.run("failed", "", || {
            during();
            Err::<(), _>(io::Error::other("on purpose"))
        });
        assert!(failed.is_err());
        eventually("the wait ends", || !extends());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            once.run("panics", "", || -> Result<(), io::Error> {
                during();
                panic!("on purpose")
            })
        }));
        assert!(panicked.is_err());
        eventually("the wait ends", || !extends());
    });
}

#[test]
fn a_claim_survives_failed_extensions_until_it_expires() {
    // In real time, because the time of the retries matters.
    shows("a claim of three seconds is extended though the store fails three times in a row, twice", |number| {
        let store = ObservedStore::of(MemoryStore::new());
        let once = Idempotency::new(store.clone()).claim_ttl(3 * SECOND);
        let result = once.run(number.to_string(), "", || {
            for _ in 0..2 {
                let (operations, writes, start) = (store.operations(), store.writes(), Instant::now());
                store.next(&[Fault::Fails; 3]);
                eventually("the operation fails three times", || store.operations() > operations + 2);
                eventually("the claim is extended, or lost", || {
                    store.writes() > writes || start.elapsed() > 4 * SECOND
                });
            }
            Ok::<_, io::Error>("receipt".to_owned())
        });
        result.ok()
    });
}

#[test]
fn a_claim_with_a_short_lifetime_is_extended_in_real_time() {
    shows("a closure of a second keeps a claim of 300 ms", |number| {
        let once = Idempotency::new(MemoryStore::new()).claim_ttl(Duration::from_millis(300));
        let mut was_free = false;
        let ran = once.run(number.to_string(), "", || {
            let start = Instant::now();
            while start.elapsed() < SECOND {
                let found = word_for(once.begin::<String>(number.to_string(), "").unwrap());
                was_free |= found != "in progress";
                thread::sleep(Duration::from_millis(10));
            }
            Ok::<_, io::Error>("receipt".to_owned())
        });
        (!was_free && ran.is_ok_and(|result| result == "receipt")).then_some(())
    });
}
