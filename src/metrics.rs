//! Counters of a manager, and the report made from them.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;

use crate::lock::lock;

/// Counters of what a manager has done since it was built.
///
/// `+` and `sum()` add the metrics of several managers. `Display` is a report for people. [`Serialize`] is for
/// machines: a duration becomes `secs` and `nanos`.
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
    /// Calls that got a token from memory at once.
    pub hits: u64,
    /// Calls that could not get a token from memory at once.
    pub misses: u64,
    /// Misses that waited for a refresh. The other misses got the error of a cooldown, or a token without a wait.
    pub waits: u64,
    /// Fetches from the provider that returned a token, including unchanged tokens.
    pub fetches_ok: u64,
    /// Fetches from the provider that failed.
    pub fetches_failed: u64,
    /// Background refreshes that brought a new token.
    pub background_refreshes: u64,
    /// Fetches that returned the current token again.
    pub unchanged_tokens: u64,
    /// Tokens that were read from the shared store.
    pub tokens_from_store: u64,
    /// Rejections that took a token out of use.
    pub rejections: u64,
    /// Tokens that the provider returned again after their rejection.
    pub reinstated_tokens: u64,
    /// Operations of the shared store that failed.
    pub store_errors: u64,
    /// How long fetches from the provider took.
    pub fetch_time: Timing,
    /// How long callers waited.
    pub wait_time: Timing,
}

/// How often something was measured, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Timing {
    /// The number of measurements.
    pub count: u64,
    /// The sum of all measurements.
    pub total: Duration,
    /// The longest measurement.
    pub max: Duration,
}

impl Metrics {
    /// Returns the part of all calls that got a token from memory, from 0 to 1. `None` before the first call.
    pub fn hit_rate(&self) -> Option<f64> {
        ratio(self.hits, self.misses)
    }

    /// Returns the part of all fetches that returned a token, from 0 to 1. `None` before the first fetch.
    pub fn success_rate(&self) -> Option<f64> {
        ratio(self.fetches_ok, self.fetches_failed)
    }
}

impl Timing {
    /// Returns the average. Zero when nothing was measured.
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
        let (hit_rate, success_rate) = (percent(self.hit_rate()), percent(self.success_rate()));
        writeln!(f, "  hit rate              {hit_rate:>7}  {} of {calls} calls answered from memory", self.hits)?;
        writeln!(f, "  fetch success         {success_rate:>7}  {} of {fetches} fetches", self.fetches_ok)?;
        writeln!(f, "  background refreshes  {:>7}", self.background_refreshes)?;
        writeln!(f, "  unchanged tokens      {:>7}", self.unchanged_tokens)?;
        writeln!(f, "  rejected tokens       {:>7}  {} reinstated", self.rejections, self.reinstated_tokens)?;
        writeln!(f, "  tokens from store     {:>7}  {} store errors", self.tokens_from_store, self.store_errors)?;
        writeln!(f, "  fetches               {}", self.fetch_time)?;
        write!(f, "  waiting callers       {}", self.wait_time)
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1_000.0;
        let (mean, max) = (milliseconds(self.mean()), milliseconds(self.max));
        write!(f, "{:>7}  times, mean {mean:.1} ms, longest {max:.1} ms", self.count)
    }
}

/// The counters of the slow path. The shards of the token cache count hits, without a shared counter.
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

    /// Returns all counters, together with the `hits` of the token cache.
    pub(crate) fn read(&self, hits: u64) -> Metrics {
        Metrics { hits, ..*lock(&self.0) }
    }
}

fn ratio(good: u64, bad: u64) -> Option<f64> {
    (good + bad > 0).then(|| good as f64 / (good + bad) as f64)
}

fn percent(ratio: Option<f64>) -> String {
    // Rounded down, so that 100 % means all.
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", (ratio * 1_000.0).floor() / 10.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_managers_can_be_added() {
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
    fn the_report_of_an_idle_manager_has_no_nan() {
        let report = Metrics::default().to_string();
        assert!(report.contains("hit rate") && report.contains("0 of 0 calls"), "{report}");
        assert!(!report.contains("NaN"));
    }
}
