//! Claims: one program gets one, completes it, extends it or abandons it.

use std::sync::Barrier;
use std::time::{Duration, Instant};
use std::{io, iter, thread};

use evertoken::idempotency::{Claim, Idempotency, OperationStatus, Outcome, RunError};
use evertoken::store::{Expected, Store};
use evertoken::{Error, ErrorKind, MemoryStore, Secret};
use serde::{Deserialize, Serialize};

use crate::bed::*;
use crate::common::wait::*;

pub(crate) fn one_of_sixty_four_threads_that_begin_at_once_gets_the_claim(bed: &Bed) {
    for round in 0..5 {
        let (start, key) = (Barrier::new(64), format!("order-{round}"));
        let outcomes: Vec<_> = thread::scope(|scope| {
            let racing: Vec<_> = (0..64)
                .map(|_| {
                    let (once, start, key) = (bed.once(), &start, &key);
                    scope.spawn(move || {
                        start.wait();
                        // A busy machine may not serve all in time. A caller without an outcome has no claim.
                        once.begin::<String>(key, "").map_or("unknown".to_owned(), word_for)
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

pub(crate) fn each_step_is_one_operation_of_the_store(bed: &Bed) {
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

pub(crate) fn all_callers_get_the_completed_result(bed: &Bed) {
    let claim = claim(&bed.once());
    match begin(&bed.once()) {
        Outcome::InProgress { remaining } => assert!(remaining <= CLAIM && remaining > CLAIM / 2, "{remaining:?}"),
        other => panic!("{other:?}"),
    }
    complete(&claim, "receipt").unwrap();
    assert_eq!(word_for(begin(&bed.once())), "receipt");
    // Another key and another namespace are other operations.
    let other = bed.once().begin::<String>("order-18", "100 EUR").unwrap();
    assert_eq!(word_for(other), "new");
    assert_eq!(word_for(begin(&bed.once().namespace("billing"))), "new");
}

pub(crate) fn a_claim_is_completed_once(bed: &Bed) {
    let claim = claim(&bed.once());
    complete(&claim, "first").unwrap();
    let writes = bed.store.writes();
    for result in ["first", "second"] {
        assert_eq!(complete(&claim, result), Err(ErrorKind::ClaimLost));
    }
    assert_eq!(claim.extend().unwrap_err().kind(), ErrorKind::ClaimLost);
    assert_eq!(claim.abandon().unwrap_err().kind(), ErrorKind::ClaimLost);
    assert_eq!((word_for(begin(&bed.once())).as_str(), bed.store.writes()), ("first", writes));
}

pub(crate) fn an_expired_claim_can_be_completed_while_nobody_else_took_it(bed: &Bed) {
    let late = claim(&bed.once());
    bed.advance(CLAIM + SECOND);
    assert!(bed.recorded().is_none());
    complete(&late, "receipt").unwrap();
    assert_eq!(word_for(begin(&bed.once())), "receipt");
    bed.advance(DAY + SECOND);
    // An extension takes the expired claim again, for its whole lifetime.
    let late = claim(&bed.once());
    bed.advance(CLAIM + SECOND);
    late.extend().unwrap();
    bed.advance(CLAIM - SECOND);
    assert_eq!(word_for(begin(&bed.once())), "in progress");
    complete(&late, "receipt").unwrap();
    bed.advance(DAY + SECOND);
    // A lost reply does no harm.
    let late = claim(&bed.once());
    bed.advance(CLAIM + SECOND);
    bed.store.next(&[Fault::LosesAnswer]);
    assert_eq!(complete(&late, "receipt"), Err(ErrorKind::Store));
    complete(&late, "receipt").unwrap();
    bed.advance(DAY + SECOND);
    // After another holder has begun the operation, the claim does not come back and overwrites nothing.
    type Step = fn(&Claim<String>) -> Result<(), Error>;
    let steps: [Step; 3] = [|claim| claim.complete(&"late".to_owned()), Claim::extend, Claim::abandon];
    for step in steps {
        let late = claim(&bed.once());
        bed.advance(CLAIM + SECOND);
        let next = claim(&bed.once());
        let error = step(&late).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::ClaimLost, false), "{error}");
        // The claim belongs to the next holder alone.
        next.extend().unwrap();
        next.abandon().unwrap();
        assert_eq!(step(&late).unwrap_err().kind(), ErrorKind::ClaimLost, "it knows that it has lost");
    }
}

pub(crate) fn an_abandoned_claim_stays_abandoned_after_it_expired(bed: &Bed) {
    let late = claim(&bed.once());
    bed.advance(CLAIM + SECOND);
    late.abandon().unwrap();
    assert_eq!(complete(&late, "late"), Err(ErrorKind::ClaimLost));
    assert_eq!(late.extend().unwrap_err().kind(), ErrorKind::ClaimLost);
    assert!(bed.recorded().is_none());
    // After an abandonment whose reply was lost, no extension takes the claim again.
    let given_up = claim(&bed.once());
    bed.store.next(&[Fault::LosesAnswer]);
    assert_eq!(given_up.abandon().unwrap_err().kind(), ErrorKind::Store);
    assert_eq!(given_up.extend().unwrap_err().kind(), ErrorKind::ClaimLost);
    assert!(bed.recorded().is_none());
    assert_eq!(word_for(begin(&bed.once())), "new");
}

pub(crate) fn a_sleeper_past_its_claim_does_not_overwrite_the_next_result(bed: &Bed) {
    type Step = fn(&Claim<String>) -> Result<(), Error>;
    let steps: [Step; 3] = [|claim| claim.complete(&"late".to_owned()), Claim::extend, Claim::abandon];
    for (number, step) in steps.iter().enumerate() {
        let once = bed.once();
        let begin = || match once.begin::<String>(number.to_string(), "").unwrap() {
            Outcome::New(claim) => claim,
            other => panic!("{other:?}"),
        };
        // All three have slept, and notice at different times that their claims are lost.
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
        assert_eq!(word_for(once.begin::<String>(number.to_string(), "").unwrap()), "theirs");
    }
}

pub(crate) fn a_claim_and_a_result_each_expire_after_their_own_lifetime(bed: &Bed) {
    let once = bed.once().claim_ttl(60 * SECOND).result_ttl(HOUR);
    drop(claim(&once));
    bed.advance(50 * SECOND);
    assert_eq!(word_for(begin(&once)), "in progress");
    bed.advance(11 * SECOND);
    complete(&claim(&once), "receipt").unwrap();
    bed.advance(HOUR - 30 * SECOND);
    assert_eq!(word_for(begin(&once)), "receipt");
    bed.advance(31 * SECOND);
    assert_eq!(word_for(begin(&once)), "new");
}

pub(crate) fn every_new_claim_is_recorded_although_the_store_forgets_records(bed: &Bed) {
    bed.store.next(&[Fault::Vanishes]);
    let claim = claim(&bed.once());
    assert!(bed.recorded().is_some());
    assert_eq!(word_for(begin(&bed.once())), "in progress");
    complete(&claim, "receipt").unwrap();
    // A record that is never present when it is read and never free gives no caller a claim.
    bed.store.next(&[Fault::Vanishes; 64]);
    let error = bed.once().begin::<String>("order-18", "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
}

pub(crate) fn an_unreadable_record_is_replaced(bed: &Bed) {
    // A valid record, of another key.
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
        // Some stores refuse a record of this size, which then need not be read.
        let swap = bed.store.inner.compare_and_swap(&bed.store.key(), Expected::Any, Some((bytes, HOUR)));
        if bytes == large && swap.is_err_and(|error| error.to_string().contains("the limit is 64 KiB")) {
            continue;
        }
        bed.put(bytes);
        assert!(bed.once().get::<String>("order-17").unwrap().is_none());
        let before = bed.store.operations();
        let claim = claim(&bed.once());
        assert_eq!(bed.store.operations(), before + 2, "the second one replaces it");
        assert_eq!(word_for(begin(&bed.once())), "in progress");
        complete(&claim, "receipt").unwrap();
        assert_eq!(word_for(begin(&bed.once())), "receipt");
        // A claim does not overwrite a record that has replaced it.
        bed.put(bytes);
        let late = self::claim(&bed.once());
        bed.put(bytes);
        let there = bed.recorded().unwrap();
        assert_eq!(complete(&late, "late"), Err(ErrorKind::ClaimLost));
        assert_eq!(bed.recorded().unwrap().version(), there.version());
    }
}

pub(crate) fn a_claim_without_an_expiry_is_expired_and_a_result_without_one_is_absent(bed: &Bed) {
    let late = claim(&bed.once());
    bed.store.next(&[Fault::HasNoEnd]);
    assert!(bed.once().get::<String>("order-17").unwrap().is_none());
    bed.store.next(&[Fault::HasNoEnd]);
    let claim = claim(&bed.once());
    assert_eq!(complete(&late, "late"), Err(ErrorKind::ClaimLost));
    complete(&claim, "receipt").unwrap();
    bed.store.next(&[Fault::HasNoEnd]);
    assert_eq!(word_for(begin(&bed.once())), "receipt");
}

pub(crate) fn another_request_under_the_same_key_is_a_mismatch(bed: &Bed) {
    let claim = claim(&bed.once());
    let other = || word_for(bed.once().begin::<String>("order-17", "200 EUR").unwrap());
    assert_eq!(other(), "mismatch");
    complete(&claim, "receipt").unwrap();
    assert_eq!(other(), "mismatch");
    let ran = bed.once().run("order-17", "200 EUR", || -> Result<String, io::Error> { panic!("it must not run") });
    assert!(matches!(ran, Err(RunError::Mismatch)));
    assert_eq!(word_for(begin(&bed.once())), "receipt");
    // When that record has expired, the key is free.
    bed.advance(DAY + SECOND);
    assert_eq!(other(), "new");
}

pub(crate) fn a_result_that_is_too_large_is_refused_before_anything_is_written(bed: &Bed) {
    let claim = claim(&bed.once());
    let (written, largest) = (bed.recorded().unwrap(), "x".repeat(63 * 1024 - 2));
    let operations = bed.store.operations();
    assert_eq!(complete(&claim, &format!("{largest}x")), Err(ErrorKind::Config));
    assert_eq!(bed.store.operations(), operations);
    assert_eq!(bed.recorded().unwrap().version(), written.version());
    // The claim is still held.
    complete(&claim, &largest).unwrap();
    assert_eq!(word_for(begin(&bed.once())), largest);
}

pub(crate) fn a_result_of_another_type_is_an_error_and_stays_recorded(bed: &Bed) {
    complete(&claim(&bed.once()), "hunter2").unwrap();
    let once = bed.once();
    for error in [
        once.begin::<u32>("order-17", "100 EUR").unwrap_err(),
        once.get::<u32>("order-17").unwrap_err(),
        once.begin_within::<u32>("order-17", "100 EUR", HOUR).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
    assert_eq!(word_for(begin(&bed.once())), "hunter2");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    Parts { name: String, parts: Vec<Option<f64>> },
}

pub(crate) fn results_of_all_shapes_come_back(bed: &Bed) {
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

pub(crate) fn an_extended_claim_lasts_its_whole_lifetime_again(bed: &Bed) {
    let claim = claim(&bed.once());
    for _ in 0..4 {
        bed.advance(20 * SECOND);
        claim.extend().unwrap();
    }
    // No two records are equal, or a store that checks whether its write took effect would confuse them.
    let first = bed.recorded().unwrap();
    claim.extend().unwrap();
    assert_ne!(bed.recorded().unwrap().bytes(), first.bytes());
    bed.advance(20 * SECOND);
    assert_eq!(word_for(begin(&bed.once())), "in progress");
    complete(&claim, "receipt").unwrap();
    assert_eq!(word_for(begin(&bed.once())), "receipt");
}

pub(crate) fn an_abandoned_claim_is_free_at_once(bed: &Bed) {
    let given_up = claim(&bed.once());
    given_up.abandon().unwrap();
    assert!(bed.recorded().is_none());
    assert_eq!(complete(&given_up, "late"), Err(ErrorKind::ClaimLost));
    let next = claim(&bed.once());
    assert_eq!(given_up.abandon().unwrap_err().kind(), ErrorKind::ClaimLost);
    // A dropped claim is not abandoned.
    drop(next);
    assert_eq!(word_for(begin(&bed.once())), "in progress");
}

pub(crate) fn a_recorded_operation_can_be_read(bed: &Bed) {
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

pub(crate) fn a_result_whose_write_was_not_confirmed_can_be_written_again(bed: &Bed) {
    for fault in [Fault::Fails, Fault::LosesAnswer] {
        let claim = claim(&bed.once());
        bed.store.next(&[fault]);
        assert_eq!(complete(&claim, "receipt"), Err(ErrorKind::Store));
        let is_recorded = fault == Fault::LosesAnswer;
        assert_eq!(word_for(begin(&bed.once())), if is_recorded { "receipt" } else { "in progress" });
        complete(&claim, "receipt").unwrap();
        assert_eq!(complete(&claim, "receipt"), Err(ErrorKind::ClaimLost));
        assert_eq!(word_for(begin(&bed.once())), "receipt");
        bed.advance(DAY + SECOND);
    }
    // Another result is not mistaken for the recorded one, and neither it nor a late extension hides the confirmation
    // of the first.
    let claim = claim(&bed.once());
    bed.store.next(&[Fault::LosesAnswer]);
    assert_eq!(complete(&claim, "receipt"), Err(ErrorKind::Store));
    assert_eq!(complete(&claim, "another"), Err(ErrorKind::ClaimLost));
    assert_eq!(claim.extend().unwrap_err().kind(), ErrorKind::ClaimLost);
    complete(&claim, "receipt").unwrap();
    assert_eq!(word_for(begin(&bed.once())), "receipt");
}

pub(crate) fn an_extension_that_was_not_confirmed_does_no_harm(bed: &Bed) {
    let claim = claim(&bed.once());
    bed.advance(20 * SECOND);
    bed.store.next(&[Fault::LosesAnswer]);
    assert_eq!(claim.extend().unwrap_err().kind(), ErrorKind::Store);
    bed.advance(20 * SECOND);
    claim.extend().unwrap();
    bed.store.next(&[Fault::LosesAnswer]);
    assert_eq!(claim.extend().unwrap_err().kind(), ErrorKind::Store);
    complete(&claim, "receipt").unwrap();
    assert_eq!(word_for(begin(&bed.once())), "receipt");
    // As above, with a claim that is abandoned.
    let Outcome::New(claim) = bed.once().begin::<String>("order-18", "").unwrap() else { panic!("it is new") };
    bed.store.next(&[Fault::LosesAnswer]);
    assert_eq!(claim.extend().unwrap_err().kind(), ErrorKind::Store);
    claim.abandon().unwrap();
    assert!(bed.recorded().is_none());
}

pub(crate) fn threads_that_extend_one_claim_do_not_keep_each_other_from_completing_it(bed: &Bed) {
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
        // Each attempt starts over a few times only, and three threads write all the time.
        let asked = Instant::now();
        while let Err(kind) = complete(&claim, "receipt") {
            assert!(kind == ErrorKind::Store && asked.elapsed() < PATIENCE, "{kind:?}");
        }
    });
    assert_eq!(word_for(begin(&bed.once())), "receipt");
}

#[test]
fn wrong_settings_and_keys_are_refused_by_every_call() {
    let store = ObservedStore::of(MemoryStore::new());
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
    assert_eq!(word_for(once().begin::<String>("x".repeat(1024), "").unwrap()), "new");
    assert_eq!(word_for(once().begin::<String>("鍵 {}:*\n\u{0}", [0, 255]).unwrap()), "new");
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
fn handles_and_claims_can_be_sent_to_other_threads() {
    fn travels<T: Clone + Send + Sync + 'static>() {}
    fn is_shared<T: Send + Sync + 'static>() {}
    travels::<Idempotency>();
    is_shared::<Claim<std::cell::Cell<u8>>>();
    is_shared::<Outcome<Secret>>();
}

/// A completed result has to be readable later.
#[test]
fn a_result_that_cannot_be_read_back_is_refused_by_complete() {
    let once = Idempotency::new(MemoryStore::new());
    let Outcome::New(claim) = once.begin::<f64>("deed", "").unwrap() else { panic!("the key is taken") };
    assert_eq!(claim.complete(&f64::NAN).unwrap_err().kind(), ErrorKind::Config);
    claim.complete(&1.0).unwrap();
}

#[test]
fn every_floating_point_result_comes_back_as_it_was() {
    let (once, seed) = (Idempotency::new(MemoryStore::new()), fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let edges = [0.0, -0.0, f64::MIN, f64::MAX, f64::MIN_POSITIVE, f64::from_bits(1), f64::EPSILON, 0.1, 1e23];
    let random_bits = iter::repeat_with(|| f64::from_bits(random.u64(..)));
    let numbers: Vec<_> =
        edges.into_iter().chain(random_bits).filter(|number| number.is_finite()).take(20_000).collect();
    for (round, long) in numbers.chunks(1_000).enumerate() {
        // The lower half of the bits makes a number of the shorter type.
        let short =
            long.iter().map(|number| f32::from_bits(number.to_bits() as u32)).filter(|number| number.is_finite());
        let result = (long.to_vec(), short.collect::<Vec<_>>());
        let begin = || once.begin::<(Vec<f64>, Vec<f32>)>(round.to_string(), "").unwrap();
        let Outcome::New(claim) = begin() else { panic!("the key is taken") };
        claim.complete(&result).unwrap();
        let Outcome::Completed(back) = begin() else { panic!("no result is recorded") };
        let bits = |(long, short): &(Vec<f64>, Vec<f32>)| {
            let short: Vec<_> = short.iter().map(|number| number.to_bits()).collect();
            (long.iter().map(|number| number.to_bits()).collect::<Vec<_>>(), short)
        };
        assert_eq!(bits(&back), bits(&result), "with the seed {seed}");
    }
}
