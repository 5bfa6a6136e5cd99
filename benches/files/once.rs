//! An idempotent operation: `begin` and `complete` in memory and in files.

use std::fs::{File, rename};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use evertoken::idempotency::Idempotency;
use evertoken::{FileStore, MemoryStore};

use crate::common::{Table, do_once, median, median_ratio};

pub(crate) fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = Table::new("begin() and complete() of an idempotent operation");
    let show = |times: &[f64]| format!("{:.1} us", median(times.to_vec()));
    let memory = Idempotency::new(MemoryStore::new());
    // Most of this time is the start of two threads, which bound the wait for the store.
    table.note("in memory", show(&(0..5_000).map(|number| one(&memory, number)).collect::<Vec<_>>()));
    let files = Idempotency::new(FileStore::at(folder.path().join("store")));
    // In turn, because the speed of a disk varies over time.
    let both = (0..300).map(|number| (one(&files, number), replacing_twice(folder.path())));
    let (files, plain): (Vec<_>, Vec<_>) = both.unzip();
    let beside = format!("{}, {:.2}", show(&plain), median_ratio(&files, &plain));
    // Both steps are on the disk before they return.
    table.compare("in files, with fsync (baseline: replacing two files)", show(&files), beside);
    table.end();
}

/// Returns the microseconds of one operation.
fn one(once: &Idempotency, number: usize) -> f64 {
    let key = format!("order-{number}");
    let start = Instant::now();
    do_once(once, &key);
    start.elapsed().as_nanos() as f64 / 1e3
}

/// Returns the microseconds of the minimum for a store in files: write a new file, sync it, rename it over the old one,
/// sync the directory; and all of this twice.
fn replacing_twice(folder: &Path) -> f64 {
    let (new, place) = (folder.join("new"), folder.join("place"));
    let start = Instant::now();
    for _ in 0..2 {
        let mut file = File::create(&new).unwrap();
        file.write_all(&[b'x'; 500]).unwrap();
        file.sync_all().unwrap();
        rename(&new, &place).unwrap();
        File::open(folder).unwrap().sync_all().unwrap();
    }
    start.elapsed().as_nanos() as f64 / 1e3
}
