//! Counters, and the report made of them.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;

use crate::lock::lock;

/// What a manager has done since it was built.
///
/// Adds up over managers with `+` and `sum()`. `Display` is a report for people, [`Serialize`] one for machines
/// (durations there are seconds and nanoseconds).
///
/// ```
/// # use evertoken::Metrics;
/// let total: Metrics = [Metrics::default(), Metrics::default()].into_iter().sum();
/// assert_eq!(total.hits, 0);
/// println!("{total}");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// Calls answered from memory.
    pub hits: u64,
    /// Calls that memory could not answer at once.
    pub misses: u64,
    /// Misses that waited for a fetch; the others were answered by a pause after a failure.
    pub waits: u64,
    /// Fetches from the provider that brought a token, the same one included.
    pub fetches_ok: u64,
    /// Fetches from the provider that failed.
    pub fetches_failed: u64,
    /// Renewals in the background that brought a new token.
    pub background_refreshes: u64,
    /// Fetches that brought the token that was held already.
    pub unchanged_tokens: u64,
    /// Tokens taken over from the shared store.
    pub tokens_from_store: u64,
    /// Rejections that took a token out of use.
    pub rejections: u64,
    /// Tokens that the provider granted again after they had been rejected.
    pub reinstated_tokens: u64,
    /// Operations of the store that failed.
    pub store_errors: u64,
    /// Time that fetches from the provider took.
    pub fetch_time: Timing,
    /// Time that callers waited.
    pub wait_time: Timing,
}

/// How often something was timed, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Timing {
    /// How often.
    pub count: u64,
    /// All together.
    pub total: Duration,
    /// The longest.
    pub max: Duration,
}

impl Metrics {
    /// The part of all calls that memory answered, from 0 to 1. `None` before the first call.
    pub fn hit_rate(&self) -> Option<f64> {
        ratio(self.hits, self.misses)
    }

    /// The part of all fetches that brought a token, from 0 to 1. `None` before the first fetch.
    pub fn success_rate(&self) -> Option<f64> {
        ratio(self.fetches_ok, self.fetches_failed)
    }
}

impl Timing {
    /// The average. Zero when nothing was timed.
    pub fn mean(&self) -> Duration {
        let nanoseconds = self.total.as_nanos() / u128::from(self.count.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    fn include(&mut self, took: Duration) {
        *self = *self + Timing { count: 1, total: took, max: took };
    }
}

impl Add for Timing {
    type Output = Timing;

    fn add(self, other: Timing) -> Timing {
        Timing {
            count: self.count + other.count,
            total: self.total.saturating_add(other.total),
            max: self.max.max(other.max),
        }
    }
}

impl Add for Metrics {
    type Output = Metrics;

    fn add(self, other: Metrics) -> Metrics {
        Metrics {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            waits: self.waits + other.waits,
            fetches_ok: self.fetches_ok + other.fetches_ok,
            fetches_failed: self.fetches_failed + other.fetches_failed,
            background_refreshes: self.background_refreshes + other.background_refreshes,
            unchanged_tokens: self.unchanged_tokens + other.unchanged_tokens,
            tokens_from_store: self.tokens_from_store + other.tokens_from_store,
            rejections: self.rejections + other.rejections,
            reinstated_tokens: self.reinstated_tokens + other.reinstated_tokens,
            store_errors: self.store_errors + other.store_errors,
            fetch_time: self.fetch_time + other.fetch_time,
            wait_time: self.wait_time + other.wait_time,
        }
    }
}

impl Sum for Metrics {
    fn sum<I: Iterator<Item = Metrics>>(all: I) -> Metrics {
        all.fold(Metrics::default(), Add::add)
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = self.hits + self.misses;
        let fetches = self.fetches_ok + self.fetches_failed;
        writeln!(f, "token performance report")?;
        writeln!(f, "  hit rate       {:>7}  {} of {calls} calls from memory", percent(self.hit_rate()), self.hits)?;
        writeln!(f, "  fetch success  {:>7}  {} of {fetches} fetches", percent(self.success_rate()), self.fetches_ok)?;
        writeln!(f, "  renewed ahead  {:>7}  {} same token again", self.background_refreshes, self.unchanged_tokens)?;
        writeln!(f, "  from the store {:>7}  {} store errors", self.tokens_from_store, self.store_errors)?;
        writeln!(f, "  rejected       {:>7}  {} granted again", self.rejections, self.reinstated_tokens)?;
        writeln!(f, "  fetching       {}", self.fetch_time)?;
        write!(f, "  callers waited {}", self.wait_time)
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1_000.0;
        let (mean, max) = (milliseconds(self.mean()), milliseconds(self.max));
        write!(f, "{:>7}  times, mean {mean:.1} ms, longest {max:.1} ms", self.count)
    }
}

/// Where the slow path counts. The fast path counts in the shards of the token cache.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Metrics>);

impl Recorder {
    pub(crate) fn count(&self, change: impl FnOnce(&mut Metrics)) {
        change(&mut lock(&self.0));
    }

    pub(crate) fn record_wait(&self, took: Duration) {
        self.count(|metrics| {
            metrics.waits += 1;
            metrics.wait_time.include(took);
        });
    }

    pub(crate) fn record_fetch(&self, took: Duration, succeeded: bool) {
        self.count(|metrics| {
            metrics.fetch_time.include(took);
            if succeeded { metrics.fetches_ok += 1 } else { metrics.fetches_failed += 1 }
        });
    }

    /// All counters, with the hits that the token cache counted.
    pub(crate) fn read(&self, hits: u64) -> Metrics {
        Metrics { hits, ..*lock(&self.0) }
    }
}

fn ratio(good: u64, bad: u64) -> Option<f64> {
    (good + bad > 0).then(|| good as f64 / (good + bad) as f64)
}

fn percent(ratio: Option<f64>) -> String {
    // Rounded down: 100 % is said only of all.
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", (ratio * 1_000.0).floor() / 10.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_add_up_over_managers() {
        let recorder = Recorder::default();
        recorder.record_fetch(Duration::from_millis(30), true);
        recorder.record_fetch(Duration::from_millis(10), false);
        recorder.record_wait(Duration::from_millis(5));
        let sum: Metrics = [recorder.read(3), recorder.read(4)].into_iter().sum();
        assert_eq!((sum.hits, sum.fetches_ok, sum.fetches_failed, sum.waits), (7, 2, 2, 2));
        assert_eq!(sum.fetch_time.max, Duration::from_millis(30));
        assert_eq!(sum.fetch_time.mean(), Duration::from_millis(20));
        assert_eq!(sum.success_rate(), Some(0.5));
    }

    #[test]
    fn the_report_of_an_idle_manager_divides_by_nothing() {
        let report = Metrics::default().to_string();
        assert!(report.contains("hit rate") && report.contains("0 of 0 calls"), "{report}");
        assert!(!report.contains("NaN"));
    }
}
