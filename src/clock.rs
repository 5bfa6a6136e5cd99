//! The clocks that decide when a token expires. Tests replace them.
//!
//! # Which clock for what
//!
//! | clock | stops during suspend | can be set | used for |
//! |---|---|---|---|
//! | monotonic | on most systems | no | lifetimes and timers in a process |
//! | wall | no | yes | lifetimes in a process, and in files |
//! | boot (Linux) | no | no | lifetimes that processes of one host share in files |
//!
//! A token's lifetime has an end on the monotonic clock and one on the wall clock, and the first to pass ends it. The
//! monotonic clock alone would keep a token alive that expired while a laptop slept; the wall clock alone would revive
//! a token when somebody sets the clock back. Records that must not be lost, such as a refresh token, go by the
//! monotonic clock alone, so that setting the wall clock forward does not end them.
//!
//! A test can replace these clocks with a [`Clock`] of its own. Deadlines of callers and time limits of sockets always
//! go by the system's monotonic clock, because a test with a stopped clock must not wait for ever either.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A source of the time. The default is the system's; tests use one that they move by hand
/// (`evertoken::testing::FakeClock`).
///
/// Token lifetimes, refresh times and cooldowns go by this clock. Sockets and waiting callers go by real time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the current time of both clocks.
    ///
    /// Managers call this often and under their locks. So the method must not block and must not call into this crate:
    /// every caller of the manager would wait with it. A panic stops the manager's background work until its next
    /// grant.
    fn now(&self) -> Timestamp;

    /// Receives a notifier, to be called whenever the time jumps.
    ///
    /// The scheduler sleeps until its next timer, and the notifier makes it compute that anew. A clock that never jumps
    /// can drop the notifier, as the default does.
    fn on_jump(&self, notifier: Notifier) {
        drop(notifier);
    }
}

/// A callback for one event: a [`Clock`] has jumped, or a [watched](crate::store::Store::watch) record has changed.
///
/// Clones call the same callback.
#[derive(Clone)]
pub struct Notifier(Arc<dyn Fn() + Send + Sync>);

impl Notifier {
    /// Returns a notifier that calls `notify`, on any thread. `notify` must not block.
    pub fn new(notify: impl Fn() + Send + Sync + 'static) -> Notifier {
        Notifier(Arc::new(notify))
    }

    /// Calls the callback.
    pub fn notify(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifier")
    }
}

/// A time on two clocks: the monotonic clock, counted from any fixed point, and the wall clock, counted from 1970.
///
/// Also used for the end of a lifetime, which either clock can reach first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timestamp {
    // Nanoseconds in a `u64` reach to the year 2554 and compare in one instruction.
    monotonic: u64,
    wall: u64,
}

impl Timestamp {
    /// Returns the time with these two readings. `wall` counts from the Unix epoch.
    pub fn new(monotonic: Duration, wall: Duration) -> Timestamp {
        Timestamp { monotonic: nanoseconds(monotonic), wall: nanoseconds(wall) }
    }

    /// Returns the time `wait` later on both clocks. Saturates, so that "never" stays never.
    pub(crate) fn after(self, wait: Duration) -> Timestamp {
        let wait = nanoseconds(wait);
        Timestamp { monotonic: self.monotonic.saturating_add(wait), wall: self.wall.saturating_add(wait) }
    }

    /// Returns the same time on the monotonic clock and "never" on the wall clock, for an end that does not move when
    /// the wall clock is set.
    pub(crate) fn monotonic_only(self) -> Timestamp {
        Timestamp { wall: u64::MAX, ..self }
    }

    /// Returns the time `lead` earlier on both clocks, zero at the earliest.
    pub(crate) fn before(self, lead: Duration) -> Timestamp {
        let lead = nanoseconds(lead);
        Timestamp { monotonic: self.monotonic.saturating_sub(lead), wall: self.wall.saturating_sub(lead) }
    }

    /// True once either clock has reached `end`.
    #[inline]
    pub(crate) fn reaches(self, end: Timestamp) -> bool {
        self.monotonic >= end.monotonic || self.wall >= end.wall
    }

    /// Returns the time left until `end`, by the clock that reaches it first.
    pub(crate) fn until(self, end: Timestamp) -> Duration {
        let monotonic = end.monotonic.saturating_sub(self.monotonic);
        Duration::from_nanos(monotonic.min(end.wall.saturating_sub(self.wall)))
    }

    /// Returns the time left until `end` by the monotonic clock alone.
    pub(crate) fn monotonic_until(self, end: Timestamp) -> Duration {
        Duration::from_nanos(end.monotonic.saturating_sub(self.monotonic))
    }

    /// Returns the time since `start`, by the clock on which more time has passed.
    pub(crate) fn since(self, start: Timestamp) -> Duration {
        let monotonic = self.monotonic.saturating_sub(start.monotonic);
        Duration::from_nanos(monotonic.max(self.wall.saturating_sub(start.wall)))
    }

    /// True if this end comes before `other` on either clock.
    pub(crate) fn ends_before(self, other: Timestamp) -> bool {
        self.monotonic < other.monotonic || self.wall < other.wall
    }

    /// Returns the earlier end on each clock.
    pub(crate) fn sooner(self, other: Timestamp) -> Timestamp {
        Timestamp { monotonic: self.monotonic.min(other.monotonic), wall: self.wall.min(other.wall) }
    }

    /// Returns the later time on each clock.
    pub(crate) fn later(self, other: Timestamp) -> Timestamp {
        Timestamp { monotonic: self.monotonic.max(other.monotonic), wall: self.wall.max(other.wall) }
    }

    /// Returns how far apart both clocks are.
    pub(crate) fn clock_distance(self) -> ClockDistance {
        ClockDistance(i128::from(self.wall) - i128::from(self.monotonic))
    }

    /// Returns what the monotonic clock shows, in nanoseconds, when the first clock reaches this end, if the clocks stay
    /// as far apart as `distance`.
    pub(crate) fn moment(self, distance: ClockDistance) -> i64 {
        saturate(i128::from(self.monotonic).min(i128::from(self.wall) - distance.0))
    }

    /// Returns what the monotonic clock showed `lead` earlier, in nanoseconds. Negative before the clock's start.
    pub(crate) fn moment_before(self, lead: Duration) -> i64 {
        saturate(i128::from(self.monotonic) - i128::from(nanoseconds(lead)))
    }

    /// Returns the reading of the monotonic clock.
    pub(crate) fn monotonic(self) -> Duration {
        Duration::from_nanos(self.monotonic)
    }

    /// What the wall clock shows, in milliseconds since 1970.
    // Until the driver uses `core`, which is built for tests only.
    #[cfg(test)]
    pub(crate) fn epoch_milliseconds(self) -> u64 {
        self.wall / 1_000_000
    }

    /// Returns the reading of the wall clock.
    pub(crate) fn wall(self) -> SystemTime {
        // Cannot overflow: 2^64 nanoseconds are 584 years, and `SystemTime` has a wider range on every platform.
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.wall)
    }
}

/// How far the wall clock is ahead of the monotonic clock, in nanoseconds. Changes when the wall clock is set and, on
/// most systems, while the machine is suspended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClockDistance(i128);

impl ClockDistance {
    pub(crate) fn is_within(self, tolerance: Duration, other: ClockDistance) -> bool {
        (self.0 - other.0).unsigned_abs() <= tolerance.as_nanos()
    }
}

/// 64 bits hold 292 years before and after the start of the clock.
fn saturate(nanoseconds: i128) -> i64 {
    nanoseconds.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock in use. An enum, so that reading the system's clocks in every `token()` needs no dynamic call.
#[derive(Clone, Debug, Default)]
pub(crate) enum Time {
    #[default]
    System,
    Custom(Arc<dyn Clock>),
}

impl Time {
    /// Returns the current time of both clocks.
    #[inline]
    pub(crate) fn now(&self) -> Timestamp {
        match self {
            Time::System => system_now(),
            Time::Custom(clock) => clock.now(),
        }
    }

    /// Registers `notifier` for jumps of a custom clock. The system's clocks do not report jumps.
    pub(crate) fn on_jump(&self, notifier: Notifier) {
        if let Time::Custom(clock) = self {
            clock.on_jump(notifier);
        }
    }
}

/// Reads the coarse clocks: 3 ns each, the precise ones take 23 ns. Both lag by up to [`COARSE_LAG`].
#[cfg(target_os = "linux")]
#[inline(always)]
fn system_now() -> Timestamp {
    use rustix::time::{ClockId, Timespec, clock_gettime};
    // A time before 1970 means that the clock has not been set. Use zero.
    let read = |time: Timespec| {
        let seconds = (time.tv_sec.max(0) as u64).saturating_mul(1_000_000_000);
        seconds.saturating_add(time.tv_nsec.max(0) as u64)
    };
    Timestamp {
        monotonic: read(clock_gettime(ClockId::MonotonicCoarse)),
        wall: read(clock_gettime(ClockId::RealtimeCoarse)),
    }
}

#[cfg(not(target_os = "linux"))]
fn system_now() -> Timestamp {
    use once_cell::sync::Lazy;
    static START: Lazy<Instant> = Lazy::new(Instant::now);
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // Begin at one day rather than zero, so that times shortly before the start can be represented.
    Timestamp::new(Duration::from_secs(86_400) + START.elapsed(), wall)
}

/// A time in milliseconds that all processes of this host agree on: by the wall clock and, on Linux, by the boot clock,
/// which counts from the start of the host and goes on during suspend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostTimestamp {
    pub(crate) wall: u64,
    pub(crate) boot: Option<u64>,
}

impl HostTimestamp {
    /// Returns the time since `start`, by the boot clock, or by the wall clock where there is no boot clock.
    pub(crate) fn since(self, start: HostTimestamp) -> Duration {
        let by_boot = self.boot.zip(start.boot).map(|(now, start)| now.saturating_sub(start));
        Duration::from_millis(by_boot.unwrap_or_else(|| self.wall.saturating_sub(start.wall)))
    }
}

impl Time {
    /// Returns the current time for comparison with other processes of this host.
    pub(crate) fn host_now(&self) -> HostTimestamp {
        match self {
            Time::System => {
                let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
                HostTimestamp { wall: milliseconds(wall), boot: since_boot().map(milliseconds) }
            }
            Time::Custom(clock) => {
                let now = clock.now();
                let wall = Duration::from_nanos(now.wall);
                HostTimestamp { wall: milliseconds(wall), boot: Some(milliseconds(now.monotonic())) }
            }
        }
    }

    /// Returns the id of the start of the host from which the boot clock counts, on Linux.
    pub(crate) fn boot_id(&self) -> Option<&'static str> {
        use once_cell::sync::Lazy;
        static ID: Lazy<Option<String>> = Lazy::new(|| {
            let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
            Some(id.trim().to_owned()).filter(|id| !id.is_empty())
        });
        ID.as_deref()
    }
}

/// Converts recorded milliseconds since 1970. Never panics: a number that is too large gives the latest possible time.
pub(crate) fn system_time(milliseconds: u64) -> SystemTime {
    Timestamp::new(Duration::ZERO, Duration::from_millis(milliseconds)).wall()
}

/// Converts a duration to whole milliseconds, for a record. Saturates.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(target_os = "linux")]
fn since_boot() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::Boottime);
    Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Option<Duration> {
    None
}

/// How far the coarse clocks of Linux may lag: two ticks of 4 ms, the longest tick of common kernels (`CONFIG_HZ=250`).
pub(crate) const COARSE_LAG: Duration = Duration::from_millis(8);

/// The end of a wait, in real time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// Returns a deadline `wait` from now. A wait above one year is cut to a year, because not every `Duration` can be
    /// added to an `Instant`.
    pub(crate) fn within(wait: Duration) -> Deadline {
        Deadline(Instant::now() + wait.min(MAX_WAIT))
    }

    /// Returns a deadline at `instant`.
    pub(crate) fn at(instant: Instant) -> Deadline {
        Deadline(instant)
    }

    /// Returns a deadline `wait` after this one.
    pub(crate) fn later(self, wait: Duration) -> Deadline {
        Deadline(self.0 + wait.min(MAX_WAIT))
    }

    /// Returns the time left, zero once the deadline has passed.
    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub(crate) fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    pub(crate) fn instant(self) -> Instant {
        self.0
    }
}

const MAX_WAIT: Duration = Duration::from_secs(365 * 86_400);

/// Measures elapsed real time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timestamp(monotonic: u64, wall: u64) -> Timestamp {
        Timestamp::new(Duration::from_secs(monotonic), Duration::from_secs(wall))
    }

    #[test]
    fn every_recorded_time_converts_without_a_panic() {
        let _ = system_time(u64::MAX);
    }

    #[test]
    fn a_lifetime_ends_when_either_clock_reaches_its_end() {
        let end = timestamp(100, 1_100);
        assert!(!timestamp(99, 1_099).reaches(end));
        assert!(timestamp(100, 1_000).reaches(end), "the wall was set back");
        assert!(timestamp(50, 1_100).reaches(end), "the machine slept");
        assert!(!timestamp(99, 9_999).reaches(end.monotonic_only()), "the wall was set forward");
        assert!(timestamp(100, 1_000).reaches(end.monotonic_only()));
    }

    #[test]
    fn the_time_left_is_the_shorter_one_of_both_clocks() {
        assert_eq!(timestamp(90, 1_000).until(timestamp(100, 1_100)), Duration::from_secs(10));
        assert_eq!(timestamp(0, 1_095).until(timestamp(100, 1_100)), Duration::from_secs(5));
        assert_eq!(timestamp(200, 0).until(timestamp(100, 1_100)), Duration::ZERO);
        assert_eq!(timestamp(0, 1_095).until(timestamp(100, 1_100).monotonic_only()), Duration::from_secs(100));
    }

    #[test]
    fn the_longest_duration_overflows_neither_timestamp_nor_deadline() {
        let never = timestamp(1, 1).after(Duration::MAX);
        assert!(!timestamp(1 << 32, 1 << 32).reaches(never));
        assert_eq!(timestamp(1, 1).before(Duration::MAX), timestamp(0, 0));
        assert!(Deadline::within(Duration::MAX).remaining() > Duration::from_secs(86_400));
        assert!(Deadline::within(Duration::ZERO).has_passed());
        let _ = never.wall();
    }

    #[test]
    fn the_system_clock_agrees_with_the_standard_library() {
        let here = Time::System.now().wall();
        let there = SystemTime::now();
        let apart = there.duration_since(here).unwrap_or_else(|early| early.duration());
        assert!(apart < Duration::from_secs(1), "{apart:?}");
    }
}
