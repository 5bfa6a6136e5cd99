//! A counter for things that a vendor limits per day.

use std::time::Duration;

/// Calls within a window of 24 hours. The window starts with its first call, and the next call after its end starts a
/// new one. The real vendors count calendar days of their own time zone; a window keeps tests independent of the date.
#[derive(Default)]
pub(super) struct DailyCount {
    started: Duration,
    calls: u32,
}

impl DailyCount {
    /// Counts a call. Returns false if `limit` calls were counted in the window already.
    pub(super) fn admit(&mut self, limit: u32, now: Duration) -> bool {
        if self.calls == 0 || now.saturating_sub(self.started) >= DAY_LENGTH {
            *self = DailyCount { started: now, calls: 0 };
        }
        self.calls = self.calls.saturating_add(1);
        self.calls <= limit
    }
}

const DAY_LENGTH: Duration = Duration::from_secs(86_400);
