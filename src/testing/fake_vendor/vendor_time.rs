//! The time of a fake vendor.
//!
//! Token lifetimes at the vendor follow real elapsed time. A suspended client machine does not stop that time, and a
//! change of the client's wall clock does not move it. With a [`FakeClock`], the elapsed time is therefore what passed
//! by `advance` and `suspend`.

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

    /// Returns the time since the vendor's clock started.
    pub(super) fn now(&self) -> Duration {
        match self {
            VendorTime::Real { since_start, .. } => since_start.elapsed(),
            VendorTime::Fake(clock) => clock.true_elapsed(),
        }
    }

    /// Returns the Unix time at which the vendor's clock started.
    pub(super) fn epoch(&self) -> Duration {
        match self {
            VendorTime::Real { epoch, .. } => *epoch,
            VendorTime::Fake(_) => FakeClock::START,
        }
    }
}
