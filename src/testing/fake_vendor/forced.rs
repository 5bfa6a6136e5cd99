//! Refreshes that were forced: so far apart, and so many a day.

use std::collections::HashMap;
use std::time::Duration;

use super::book::Account;
use super::quota::Day;

#[derive(Default)]
pub(super) struct Forced(HashMap<Account, Times>);

#[derive(Default)]
struct Times {
    last: Option<Duration>,
    day: Day,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Force {
    Refreshes,
    /// The last one was a moment ago; this one does nothing.
    TooSoon,
    TooOften,
}

impl Forced {
    pub(super) fn take(&mut self, account: &Account, now: Duration) -> Force {
        let times = self.0.entry(account.clone()).or_default();
        if times.last.is_some_and(|last| now.saturating_sub(last) < SPACING) {
            return Force::TooSoon;
        }
        if !times.day.take(A_DAY, now) {
            return Force::TooOften;
        }
        times.last = Some(now);
        Force::Refreshes
    }
}

const SPACING: Duration = Duration::from_secs(30);

const A_DAY: u32 = 20;
