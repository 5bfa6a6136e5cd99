//! Time: the only file that reads clocks.
//!
//! A lifetime has an end on the monotonic clock and one on the wall clock, and the first to pass ends it. The monotonic
//! clock stands still while a laptop sleeps, the wall clock can be set back; no token survives either. What must not be lost
//! goes by the monotonic clock alone: nobody takes it away by setting the other.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Tells the time. The system's is the default; a test brings one that it moves itself
/// (`evertoken::testing::FakeClock`).
///
/// Lives, due times and pauses after failures go by this clock. Sockets, and callers that wait, go by real time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// What both clocks show now.
    ///
    /// Read while locks of this crate are held, so it must not call into this crate, nor wait for anything: whoever
    /// asks the manager meanwhile would wait with it. A panic here ends this manager's background work until its next
    /// grant.
    fn now(&self) -> Timestamp;

    /// Hands over what to call whenever the time jumps rather than passes, so that whoever sleeps until a moment
    /// looks again. A clock that never jumps has nothing to do.
    fn on_jump(&self, notifier: Notifier) {
        drop(notifier);
    }
}

/// Wakes somebody: when a [`Clock`] jumps, or when a record changes that is [watched](crate::store::Store::watch).
#[derive(Clone)]
pub struct Notifier(Arc<dyn Fn() + Send + Sync>);

impl Notifier {
    /// Calls `notify`, which must not block.
    pub fn new(notify: impl Fn() + Send + Sync + 'static) -> Notifier {
        Notifier(Arc::new(notify))
    }

    /// Says that it has happened.
    pub fn notify(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifier")
    }
}

/// What two clocks show at one moment: a monotonic one, counted from anywhere, and the wall's, counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timestamp {
    // Nanoseconds: they reach to the year 2554 and compare in one instruction.
    monotonic: u64,
    wall: u64,
}

impl Timestamp {
    /// A moment from the two readings. The wall's counts from the Unix epoch.
    pub fn new(monotonic: Duration, wall: Duration) -> Timestamp {
        Timestamp { monotonic: nanoseconds(monotonic), wall: nanoseconds(wall) }
    }

    /// The moment `wait` later on both clocks. Saturates: "never" stays never.
    pub(crate) fn after(self, wait: Duration) -> Timestamp {
        let wait = nanoseconds(wait);
        Timestamp { monotonic: self.monotonic.saturating_add(wait), wall: self.wall.saturating_add(wait) }
    }

    /// The same on the monotonic clock, and never on the wall clock: for an end that nobody is to bring nearer by setting
    /// that.
    pub(crate) fn by_monotonic_alone(self) -> Timestamp {
        Timestamp { wall: u64::MAX, ..self }
    }

    /// The moment `lead` earlier on both clocks.
    pub(crate) fn before(self, lead: Duration) -> Timestamp {
        let lead = nanoseconds(lead);
        Timestamp { monotonic: self.monotonic.saturating_sub(lead), wall: self.wall.saturating_sub(lead) }
    }

    /// True once either clock has come to `end`.
    #[inline]
    pub(crate) fn reaches(self, end: Timestamp) -> bool {
        self.monotonic >= end.monotonic || self.wall >= end.wall
    }

    /// How long it takes until `end`, by the clock that comes there first.
    pub(crate) fn until(self, end: Timestamp) -> Duration {
        let monotonic = end.monotonic.saturating_sub(self.monotonic);
        Duration::from_nanos(monotonic.min(end.wall.saturating_sub(self.wall)))
    }

    /// How long it takes until `end` by the monotonic clock alone.
    pub(crate) fn monotonic_until(self, end: Timestamp) -> Duration {
        Duration::from_nanos(end.monotonic.saturating_sub(self.monotonic))
    }

    /// How long ago `start` was, by the clock that thinks it longer.
    pub(crate) fn since(self, start: Timestamp) -> Duration {
        let monotonic = self.monotonic.saturating_sub(start.monotonic);
        Duration::from_nanos(monotonic.max(self.wall.saturating_sub(start.wall)))
    }

    /// True when, of two ends, this one comes first on either clock.
    pub(crate) fn ends_before(self, other: Timestamp) -> bool {
        self.monotonic < other.monotonic || self.wall < other.wall
    }

    /// The end that comes first on each clock.
    pub(crate) fn sooner(self, other: Timestamp) -> Timestamp {
        Timestamp { monotonic: self.monotonic.min(other.monotonic), wall: self.wall.min(other.wall) }
    }

    /// The moment that comes last on each clock.
    pub(crate) fn later(self, other: Timestamp) -> Timestamp {
        Timestamp { monotonic: self.monotonic.max(other.monotonic), wall: self.wall.max(other.wall) }
    }

    /// What the monotonic clock shows.
    pub(crate) fn monotonic(self) -> Duration {
        Duration::from_nanos(self.monotonic)
    }

    /// What the wall clock shows, in milliseconds since 1970.
    // Until the driver uses `core`, which is built for tests only.
    #[cfg(test)]
    pub(crate) fn epoch_milliseconds(self) -> u64 {
        self.wall / 1_000_000
    }

    /// What the wall clock shows.
    pub(crate) fn wall(self) -> SystemTime {
        // Cannot overflow: 2^64 nanoseconds are 584 years, and every platform's range is wider.
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.wall)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock in use. An enum and not a `dyn Clock`, because the system's is read on every `token()`.
#[derive(Clone, Debug, Default)]
pub(crate) enum Time {
    #[default]
    System,
    Custom(Arc<dyn Clock>),
}

impl Time {
    #[inline]
    pub(crate) fn now(&self) -> Timestamp {
        match self {
            Time::System => system_now(),
            Time::Custom(clock) => clock.now(),
        }
    }

    pub(crate) fn on_jump(&self, notifier: Notifier) {
        if let Time::Custom(clock) = self {
            clock.on_jump(notifier);
        }
    }
}

/// The coarse clocks: 3 ns each where the fine ones take 23. They lag by up to [`COARSE_LAG`].
#[cfg(target_os = "linux")]
#[inline(always)]
fn system_now() -> Timestamp {
    use rustix::time::{ClockId, Timespec, clock_gettime};
    // A clock that shows a time before 1970 is a clock that does not know the time: zero.
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
    // From a day rather than from zero, so that a moment a little before the start can be told.
    Timestamp::new(Duration::from_secs(86_400) + START.elapsed(), wall)
}

/// A moment that all processes of this host tell alike, in milliseconds: by the wall clock, and by the clock that counts from
/// the start of the host and goes on while it sleeps, where there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostMoment {
    pub(crate) wall: u64,
    pub(crate) boot: Option<u64>,
}

impl HostMoment {
    /// How long ago `start` was; by the wall clock where there is no other.
    pub(crate) fn since(self, start: HostMoment) -> Duration {
        let by_boot = self.boot.zip(start.boot).map(|(now, start)| now.saturating_sub(start));
        Duration::from_millis(by_boot.unwrap_or_else(|| self.wall.saturating_sub(start.wall)))
    }
}

impl Time {
    pub(crate) fn on_this_host(&self) -> HostMoment {
        match self {
            Time::System => {
                let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
                HostMoment { wall: milliseconds(wall), boot: since_boot().map(milliseconds) }
            }
            Time::Custom(clock) => {
                let now = clock.now();
                let wall = Duration::from_nanos(now.wall);
                HostMoment { wall: milliseconds(wall), boot: Some(milliseconds(now.monotonic())) }
            }
        }
    }

    /// Names the start of the host that `boot` counts from.
    pub(crate) fn boot_id(&self) -> Option<&'static str> {
        use once_cell::sync::Lazy;
        static ID: Lazy<Option<String>> = Lazy::new(|| {
            let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
            Some(id.trim().to_owned()).filter(|id| !id.is_empty())
        });
        ID.as_deref()
    }
}

/// The time that was written down as milliseconds since 1970, whatever the number is.
pub(crate) fn system_time(milliseconds: u64) -> SystemTime {
    Timestamp::new(Duration::ZERO, Duration::from_millis(milliseconds)).wall()
}

/// A duration as it is written down.
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

/// How far the coarse clocks of Linux may be behind: two ticks of the slowest usual kernel (4 ms), rounded up.
pub(crate) const COARSE_LAG: Duration = Duration::from_millis(8);

/// Until when somebody waits, in real time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// `wait` from now. More than a year is a year: an `Instant` cannot hold every `Duration`.
    pub(crate) fn within(wait: Duration) -> Deadline {
        Deadline(Instant::now() + wait.min(LONGEST_WAIT))
    }

    pub(crate) fn at(instant: Instant) -> Deadline {
        Deadline(instant)
    }

    pub(crate) fn later(self, wait: Duration) -> Deadline {
        Deadline(self.0 + wait.min(LONGEST_WAIT))
    }

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

const LONGEST_WAIT: Duration = Duration::from_secs(365 * 86_400);

/// Measures how long something took, in real time.
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

    fn moment(monotonic: u64, wall: u64) -> Timestamp {
        Timestamp::new(Duration::from_secs(monotonic), Duration::from_secs(wall))
    }

    #[test]
    fn no_time_is_too_late_to_be_told() {
        let _ = system_time(u64::MAX);
    }

    #[test]
    fn a_life_ends_when_either_clock_says_so() {
        let end = moment(100, 1_100);
        assert!(!moment(99, 1_099).reaches(end));
        assert!(moment(100, 1_000).reaches(end), "the wall was set back");
        assert!(moment(50, 1_100).reaches(end), "the machine slept");
        assert!(!moment(99, 9_999).reaches(end.by_monotonic_alone()), "the wall was set forward");
        assert!(moment(100, 1_000).reaches(end.by_monotonic_alone()));
    }

    #[test]
    fn what_remains_is_what_the_faster_clock_leaves() {
        assert_eq!(moment(90, 1_000).until(moment(100, 1_100)), Duration::from_secs(10));
        assert_eq!(moment(0, 1_095).until(moment(100, 1_100)), Duration::from_secs(5));
        assert_eq!(moment(200, 0).until(moment(100, 1_100)), Duration::ZERO);
        assert_eq!(moment(0, 1_095).until(moment(100, 1_100).by_monotonic_alone()), Duration::from_secs(100));
    }

    #[test]
    fn no_duration_overflows_a_moment_or_a_deadline() {
        let never = moment(1, 1).after(Duration::MAX);
        assert!(!moment(1 << 32, 1 << 32).reaches(never));
        assert_eq!(moment(1, 1).before(Duration::MAX), moment(0, 0));
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
