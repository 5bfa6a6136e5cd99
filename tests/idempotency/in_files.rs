//! Operations that are recorded in files.

use std::fs::{self, File};
use std::thread;
use std::time::{Duration, Instant};

use evertoken::idempotency::{Idempotency, Outcome};
use evertoken::store::Store;
use evertoken::testing::FakeClock;
use evertoken::{FileStore, MemoryStore};

use crate::common::stores::*;
use crate::common::wait::*;

/// Copied with `cp -r`, or restored from a backup without file times: the contents of the file say when it expires.
#[test]
fn a_completed_operation_survives_a_copy_of_its_file() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
    let path = folder.path().join("files");
    let day = 24 * HOUR;
    let once = Idempotency::new(FileStore::with_clock(&path, clock.clone())).result_ttl(30 * day);
    let Outcome::New(claim) = once.begin::<u32>("sent", b"").unwrap() else { panic!("it is new") };
    claim.complete(&7).unwrap();
    let record = file_of(&FileStore::at(&path), |name| name.ends_with(".once"));
    let copied_at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    File::options().write(true).open(&record).unwrap().set_modified(copied_at).unwrap();
    clock.advance(2 * day);
    assert!(matches!(once.begin::<u32>("sent", b""), Ok(Outcome::Completed(7))));
    for number in 0..800 {
        patiently(|| once.begin::<u32>(format!("{number}"), b""));
        if !record.exists() {
            break;
        }
    }
    let again = once.begin::<u32>("sent", b"").unwrap();
    assert!(matches!(again, Outcome::Completed(7)), "it would be done twice: {again:?}");
}

/// The monotonic clock goes on whatever the wall clock is set to, and a completed operation stays completed.
#[test]
fn a_wall_clock_that_is_set_expires_neither_a_claim_nor_a_result() {
    fn holds(store: impl Store, clock: &FakeClock, is_back: bool) {
        let once = Idempotency::new(store);
        let begin = || once.begin::<u32>("charge", "").unwrap();
        let Outcome::New(claim) = begin() else { panic!("the key is taken") };
        let set = || if is_back { clock.step_back(2 * HOUR) } else { clock.step_forward(48 * HOUR) };
        set();
        assert!(matches!(begin(), Outcome::InProgress { .. }), "back: {is_back}");
        claim.complete(&7).unwrap();
        set();
        assert!(matches!(begin(), Outcome::Completed(7)), "back: {is_back}");
        clock.advance(25 * HOUR);
        assert!(matches!(begin(), Outcome::New(_)), "it ends all the same");
    }
    for is_back in [true, false] {
        let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
        holds(FileStore::with_clock(folder.path(), clock.clone()), &clock, is_back);
        holds(MemoryStore::with_clock(clock.clone()), &clock, is_back);
    }
}

/// A wall clock that is set forward and then right again does not make a completed operation run again.
#[test]
fn a_wall_clock_set_forward_removes_no_valid_result() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
    let once = Idempotency::new(FileStore::with_clock(folder.path(), clock.clone()));
    let short = once.clone().result_ttl(60 * SECOND);
    let begin = |once: &Idempotency, key: &str| once.begin::<u32>(key, "").unwrap();
    for (once, key) in [(&short, "over"), (&once, "lives")] {
        let Outcome::New(claim) = begin(once, key) else { panic!("the key is taken") };
        claim.complete(&7).unwrap();
    }
    let kept = || {
        fs::read_dir(folder.path()).unwrap().filter(|file| is_operation_file(&file.as_ref().unwrap().path())).count()
    };
    assert_eq!(kept(), 2);
    // Results are kept for a day, and expired files for another one.
    clock.advance(23 * HOUR);
    clock.step_forward(72 * HOUR);
    let fill = |from: usize, is_done: &dyn Fn(usize) -> bool| {
        let begun = (from..from + 5_000).find(|number| {
            patiently(|| once.begin::<u32>(format!("{number}"), ""));
            is_done(number + 1 - from)
        });
        begun.expect("one write in 64 clears away") + 1
    };
    fill(0, &|begun| begun == 500);
    assert_eq!(kept(), 502, "by the clock of the machine nothing is over for long");
    clock.step_back(72 * HOUR);
    assert!(matches!(begin(&once, "lives"), Outcome::Completed(7)), "it would be done twice");
    // After its expiry the result can be removed.
    clock.advance(2 * HOUR);
    fill(500, &|begun| kept() < 502 + begun);
}

fn is_operation_file(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|end| end == "once")
}

#[test]
fn an_operation_waits_for_a_slow_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::at(folder.path());
    let once = Idempotency::new(store.clone());
    let Outcome::New(claim) = once.begin::<u32>("job", "").unwrap() else { panic!("the key is taken") };
    let lock = File::open(file_of(&store, |name| name.ends_with(".lock"))).unwrap();
    lock.lock().unwrap();
    thread::scope(|scope| {
        let completing = scope.spawn(|| claim.complete(&7));
        let began = Instant::now();
        eventually("the operation takes longer than a manager waits for a token", || began.elapsed() > SECOND);
        assert!(!completing.is_finished());
        lock.unlock().unwrap();
        completing.join().unwrap().unwrap();
    });
}
