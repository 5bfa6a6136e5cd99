//! What a vendor does only so often in a day.

use std::time::Duration;

/// The 24 hours that begin with the first call.
#[derive(Default)]
pub(super) struct DailyCount {
    started: Duration,
    calls: u32,
}

impl DailyCount {
    /// False when `limit` were taken within the day.
    pub(super) fn admit(&mut self, limit: u32, now: Duration) -> bool {
        if self.calls == 0 || now.saturating_sub(self.started) >= DAY_LENGTH {
            *self = DailyCount { started: now, calls: 0 };
        }
        self.calls = self.calls.saturating_add(1);
        self.calls <= limit
    }
}

const DAY_LENGTH: Duration = Duration::from_secs(86_400);
