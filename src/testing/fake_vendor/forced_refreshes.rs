//! Limits on forced refreshes of WeChat's stable token: a minimum interval and a daily limit, for each account.
//!
//! Source of both numbers: WeChat's page on `getStableAccessToken` (`force_refresh`).

use std::collections::HashMap;
use std::time::Duration;

use super::daily_count::DailyCount;
use super::issued_tokens::Account;

#[derive(Default)]
pub(super) struct ForcedRefreshes(HashMap<Account, History>);

#[derive(Default)]
struct History {
    last: Option<Duration>,
    today: DailyCount,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ForceOutcome {
    Refresh,
    /// The last forced refresh was less than the minimum interval ago. The vendor returns the current token.
    TooSoon,
    QuotaExceeded,
}

impl ForcedRefreshes {
    /// Decides about a forced refresh, and counts it if it is admitted.
    pub(super) fn admit(&mut self, account: &Account, now: Duration) -> ForceOutcome {
        let history = self.0.entry(account.clone()).or_default();
        if history.last.is_some_and(|last| now.saturating_sub(last) < MIN_INTERVAL) {
            return ForceOutcome::TooSoon;
        }
        if !history.today.admit(DAILY_LIMIT, now) {
            return ForceOutcome::QuotaExceeded;
        }
        history.last = Some(now);
        ForceOutcome::Refresh
    }
}

const MIN_INTERVAL: Duration = Duration::from_secs(30);

const DAILY_LIMIT: u32 = 20;
