//! Shared by the benchmarks: a table that compares results with targets, medians, and figures about this process.

#![allow(dead_code, reason = "every benchmark uses a part of it")]

pub(crate) mod programs;

use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::time::Duration;

use evertoken::idempotency::{Idempotency, Outcome};

/// Returns false when `cargo test --all-targets` starts a benchmark, which then only has to start and end.
pub(crate) fn asked_to_measure() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// A printed table: each row has a measured value, a baseline and a target.
pub(crate) struct Table {
    missed: usize,
}

impl Table {
    /// Starts a table and prints its head.
    pub(crate) fn new(title: &str) -> Table {
        println!("\n{title}");
        println!("{:<60} {:>12} {:>12} {:>7}   {:<15}", "", "measured", "baseline", "ratio", "target");
        Table { missed: 0 }
    }

    /// Prints a value whose target is a ratio to the baseline.
    pub(crate) fn ratio(&mut self, what: &str, measured: impl Display, baseline: impl Display, ratio: f64, most: f64) {
        let (measured, baseline) = (measured.to_string(), baseline.to_string());
        self.row(what, &measured, &baseline, Some(ratio), &format!("ratio <= {most:.2}"), Some(ratio <= most));
    }

    /// Prints a value with a target of its own. The baseline is for comparison only.
    pub(crate) fn figure(
        &mut self,
        what: &str,
        measured: impl Display,
        baseline: Option<String>,
        target: &str,
        met: bool,
    ) {
        self.row(what, &measured.to_string(), &baseline.unwrap_or_default(), None, target, Some(met));
    }

    /// Prints a value without a target, which explains the others.
    pub(crate) fn note(&mut self, what: &str, measured: impl Display) {
        self.row(what, &measured.to_string(), "", None, "", None);
    }

    /// Prints a value without a target beside its baseline.
    pub(crate) fn compare(&mut self, what: &str, measured: impl Display, baseline: impl Display) {
        self.row(what, &measured.to_string(), &baseline.to_string(), None, "", None);
    }

    fn row(&mut self, what: &str, measured: &str, baseline: &str, ratio: Option<f64>, target: &str, met: Option<bool>) {
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let verdict = met.map_or("", |met| if met { "met" } else { "MISSED" });
        self.missed += usize::from(met == Some(false));
        println!("{what:<60} {measured:>12} {baseline:>12} {ratio:>7}   {target:<15} {verdict}");
    }

    /// Ends the table. A missed target does not fail the run, because a busy machine can be the reason.
    pub(crate) fn end(self) {
        match self.missed {
            0 => println!("all targets met"),
            missed => println!("{missed} target(s) MISSED"),
        }
    }
}

/// Returns the median: the value in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the median of the ratios of `these` to `those`, taken for each round, so that a slow round cancels out.
pub(crate) fn median_ratio(these: &[f64], those: &[f64]) -> f64 {
    median(these.iter().zip(those).map(|(this, that)| this / that).collect())
}

/// Begins and completes an operation whose key is new.
pub(crate) fn do_once(once: &Idempotency, key: &str) {
    match once.begin::<String>(key, b"100 EUR").unwrap() {
        Outcome::New(claim) => claim.complete(&"receipt".to_owned()).unwrap(),
        _ => panic!("{key} is new"),
    }
}

/// A histogram of call durations, accurate to a few percent.
#[derive(Default)]
pub(crate) struct Latencies(HashMap<u64, u64>);

impl Latencies {
    pub(crate) fn add(&mut self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // Rounds down to the five highest bits.
        let dropped_bits = 59_u32.saturating_sub(nanoseconds.leading_zeros());
        *self.0.entry((nanoseconds >> dropped_bits) << dropped_bits).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Latencies) {
        other.0.iter().for_each(|(took, times)| *self.0.entry(*took).or_default() += times);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.values().sum()
    }

    pub(crate) fn waited(&self, limit: Duration) -> u64 {
        self.0.iter().filter(|(took, _)| u128::from(**took) >= limit.as_nanos()).map(|(_, times)| times).sum()
    }

    pub(crate) fn within(&self, limit: Duration) -> f64 {
        1.0 - self.waited(limit) as f64 / self.count() as f64
    }

    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort();
        let mut left = (self.count() as f64 * part) as u64;
        for (took, times) in &sorted {
            if left <= **times {
                return Duration::from_nanos(**took);
            }
            left -= **times;
        }
        sorted.last().map_or(Duration::ZERO, |(took, _)| Duration::from_nanos(**took))
    }
}

pub(crate) fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// Returns the number of cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the name of the processor, or "processor unknown" on systems other than Linux.
pub(crate) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or("processor unknown", |(_, name)| name).to_owned()
}

/// Returns the number of threads of this process. `None` on systems other than Linux.
pub(crate) fn threads() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}

/// Returns the resident memory of this process in bytes. `None` on systems other than Linux.
pub(crate) fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Returns the core time that the threads of this process have used. `None` on systems other than Linux.
pub(crate) fn core_time() -> Option<Duration> {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task").ok()? {
        // A thread may have ended since the directory was read.
        let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
        sum += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(sum))
}
