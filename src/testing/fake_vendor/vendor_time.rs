//! The vendor's own time, which nobody on the client's machine can set.

use std::time::{Duration, SystemTime};

use super::super::clock::FakeClock;
use crate::clock::{Stopwatch, Time};

pub(super) enum VendorTime {
    Real { since_start: Stopwatch, epoch: Duration },
    Fake(FakeClock),
}

impl VendorTime {
    pub(super) fn real() -> VendorTime {
        let epoch = Time::System.now().wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        VendorTime::Real { since_start: Stopwatch::start(), epoch }
    }

    pub(super) fn now(&self) -> Duration {
        match self {
            VendorTime::Real { since_start, .. } => since_start.elapsed(),
            VendorTime::Fake(clock) => clock.true_elapsed(),
        }
    }

    /// From 1970 to zero of this time.
    pub(super) fn epoch(&self) -> Duration {
        match self {
            VendorTime::Real { epoch, .. } => *epoch,
            VendorTime::Fake(_) => FakeClock::START,
        }
    }
}
