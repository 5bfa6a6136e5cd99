//! Time in the model: whole seconds since the start.

use std::time::Duration;

use crate::clock::Timestamp;

/// Seconds since the start, in true time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct At(pub(crate) i32);

impl At {
    pub(crate) fn after(self, seconds: i32) -> At {
        At(self.0 + seconds)
    }

    pub(crate) fn since(self, other: At) -> i32 {
        self.0 - other.0
    }
}

/// Before any interval.
pub(crate) const LONG_AGO: At = At(-1_000);

/// The two clocks have bases of their own, so that a hasher knows a time, and which clock showed it, by its size.
pub(crate) const MONOTONIC_BASE: u64 = 2_400_000_000 * 1_000_000_000;
pub(crate) const WALL_BASE: u64 = 1_700_000_000 * 1_000_000_000;

/// What two clocks show that are so many seconds after their bases.
pub(crate) fn timestamp(monotonic: i32, wall: i32) -> Timestamp {
    let clock =
        |base: u64, seconds: i32| Duration::from_nanos(base.saturating_add_signed(i64::from(seconds) * 1_000_000_000));
    Timestamp::new(clock(MONOTONIC_BASE, monotonic), clock(WALL_BASE, wall))
}

pub(crate) fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}
