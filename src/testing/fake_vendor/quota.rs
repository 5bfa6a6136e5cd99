//! What a vendor does only so often in a day.

use std::time::Duration;

/// The 24 hours that begin with the first call.
#[derive(Default)]
pub(super) struct Day {
    since: Duration,
    taken: u32,
}

impl Day {
    /// False when `limit` were taken within the day.
    pub(super) fn take(&mut self, limit: u32, now: Duration) -> bool {
        if self.taken == 0 || now.saturating_sub(self.since) >= DAY {
            *self = Day { since: now, taken: 0 };
        }
        self.taken = self.taken.saturating_add(1);
        self.taken <= limit
    }
}

const DAY: Duration = Duration::from_secs(86_400);
