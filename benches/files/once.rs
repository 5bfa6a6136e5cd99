//! A thing is done once: `begin` and `complete`.

use std::fs::{File, rename};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use evertoken::{FileStore, Idempotency, MemoryStore, Outcome, Store};

use crate::common::{Table, median};

pub(crate) fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = Table::new("begin() and complete() of a thing that is done once");
    let show = |times: Vec<f64>| format!("{:.1} us", median(times));
    let memory = one_by_one(MemoryStore::new(), 5_000);
    let (files, plain) = (one_by_one(FileStore::at(folder.path().join("store")), 300), replacing(folder.path(), 300));
    // Most of it are two threads: no store is waited for without bound.
    table.note("on memory", show(memory));
    // Both steps are on the disk before they return.
    table.compare("on files, fsync included (baseline: two files replaced)", show(files), show(plain));
    table.end();
}

/// Microseconds of each.
fn one_by_one(store: impl Store, times: usize) -> Vec<f64> {
    let once = Idempotency::new(store);
    let mut took = Vec::new();
    for number in 0..times {
        let key = format!("order-{number}");
        let start = Instant::now();
        match once.begin::<String>(&key, b"100 EUR").unwrap() {
            Outcome::New(claim) => claim.complete(&"receipt".to_owned()).unwrap(),
            _ => panic!("{key} is new"),
        }
        took.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    took
}

/// What no store in files can do with less: write beside, sync, rename, sync the directory, twice.
fn replacing(folder: &Path, times: usize) -> Vec<f64> {
    let (new, place) = (folder.join("new"), folder.join("place"));
    let replace = || {
        let mut file = File::create(&new).unwrap();
        file.write_all(&[b'x'; 500]).unwrap();
        file.sync_all().unwrap();
        rename(&new, &place).unwrap();
        File::open(folder).unwrap().sync_all().unwrap();
    };
    let one = || {
        let start = Instant::now();
        (0..2).for_each(|_| replace());
        start.elapsed().as_nanos() as f64 / 1e3
    };
    (0..times).map(|_| one()).collect()
}
