//! A program starts, reads the token that an earlier one has stored in a file, and exits.

use std::fs;
use std::path::{Path, PathBuf};

use evertoken::testing::FakeVendor;

use crate::command;
use crate::common::{Table, median, median_ratio, programs};

pub(crate) fn measure(built: &impl Fn(&str) -> PathBuf) {
    let (host, cache) = (FakeVendor::oauth2(), tempfile::tempdir().unwrap());
    let run = |program: &str, words: &[String]| programs::run(&mut command(&built(program), cache.path(), words));
    run("kept", &[host.token_url()]);
    assert_eq!(host.calls(), 1, "the first start fetches");
    let words = [host.token_url(), record(&cache.path().join("evertoken")).to_str().unwrap().to_owned()];

    let title = format!("a program with its token in a file, from start to exit, {STARTS} interleaved starts");
    let mut table = Table::new(&title);
    let programs = ["kept", "memory", "plain", "idle"];
    let [kept, memory, plain, idle] = programs::interleaved(programs, STARTS, |program| run(program, &words));
    let show = |times: &[f64]| format!("{:.0} us", median(times.to_vec()));
    let ratio = median_ratio(&kept, &idle);
    table.ratio("one token() from a file (baseline: fn main() {})", show(&kept), show(&idle), ratio, 1.25);
    let least = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    table.compare(
        "the fastest start, and its ratio",
        format!("{:.0} us", least(&kept)),
        format!("{:.0} us, {:.2}", least(&idle), least(&kept) / least(&idle)),
    );
    let mut beside = |name: &str, times: &[f64]| {
        table.compare(name, show(times), format!("{:.2}", median_ratio(times, &idle)));
    };
    beside("std::fs::read of the file, and its ratio", &plain);
    beside("without a store: a fetch from loopback, and its ratio", &memory);
    let fetches = host.calls() - 1 - STARTS;
    table.figure("fetches by programs with a token in the file", fetches, None, "0", fetches == 0);
    table.end();
}

/// Returns the path of the record in the store.
fn record(directory: &Path) -> PathBuf {
    let mut files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    files.find(|file| file.extension().is_none()).unwrap()
}

const STARTS: usize = 401;
