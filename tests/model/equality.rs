//! When two states are one: times count from now, what is long past is one, and names do not matter.
//!
//! A hasher that knows times, numbers and names by their size does this, so the core needs nothing for it.

use std::hash::{Hash, Hasher};

use crate::core::RefreshId;
use crate::time::{MONOTONIC_BASE, WALL_BASE};
use crate::world::{FIRST_READ, Process, World};

impl World {
    /// A hash in which worlds are equal that differ in nothing that matters.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut processes: Vec<u64> = self.processes.iter().map(|process| self.of_process(process)).collect();
        processes.sort_unstable();
        let mut hasher = self.hasher(0, 0, RefreshId(0), FIRST_READ);
        processes.hash(&mut hasher);
        for store in &self.stores {
            store.hash(&mut hasher);
        }
        (&self.tokens, self.stored_secret, self.parent, self.live_secret, self.is_signed_in, self.is_sign_in_excused)
            .hash(&mut hasher);
        (self.quiet, self.early_rejections, self.calls, self.budget).hash(&mut hasher);
        hasher.finish()
    }

    fn of_process(&self, process: &Process) -> u64 {
        let mut hasher =
            self.hasher(process.lag.into(), process.wall_offset.into(), process.machine.last_id(), process.reads);
        if !process.is_alive {
            return hasher.finish();
        }
        process.hash(&mut hasher);
        for store in &self.stores {
            let lease = store.lease.as_ref().filter(|lease| lease.process == process.name);
            lease.map(|lease| lease.refresh).hash(&mut hasher);
            let mark = store.renewal.as_ref().and_then(|secret| secret.spent_by);
            mark.filter(|mark| mark.process == process.name).map(|mark| mark.refresh).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn hasher(&self, lag: i32, wall_offset: i32, last_id: RefreshId, reads: u64) -> Relative {
        let nanoseconds = |base: u64, seconds: i32| base.saturating_add_signed(i64::from(seconds) * 1_000_000_000);
        let version = |version: &Option<crate::version::Version>| {
            version.as_ref().and_then(|version| version.as_str()[1..].parse().ok()).unwrap_or(0)
        };
        let versions = self
            .stores
            .each_ref()
            .map(|store| [version(&store.version), version(&store.renewal_version), version(&store.day_version)]);
        Relative {
            state: 0,
            monotonic: nanoseconds(MONOTONIC_BASE, self.now.0 - lag),
            wall: nanoseconds(WALL_BASE, self.now.0 + wall_offset),
            true_wall: nanoseconds(WALL_BASE, self.now.0) / 1_000_000,
            now: self.now.0,
            last_id: last_id.0,
            reads,
            versions: [versions[0][0], versions[0][1], versions[0][2], versions[1][0]],
        }
    }
}

/// Longer ago than any duration of a scenario: all such times are one.
const PAST: i64 = 40;

/// Hashes values relative to now. Multiplies and folds: several times as fast as the standard hash.
struct Relative {
    state: u64,
    monotonic: u64,
    wall: u64,
    /// In milliseconds: what sequence numbers count.
    true_wall: u64,
    now: i32,
    last_id: u32,
    reads: u64,
    versions: [u32; 4],
}

impl Relative {
    fn fold(&mut self, value: u64) {
        let product = u128::from(self.state ^ value ^ 0x2D35_8DCC_AA6C_78A5) * 0x8BB8_4B93_962E_ACC9_u128;
        self.state = (product as u64) ^ (product >> 64) as u64;
    }

    fn fold_difference(&mut self, value: u64, now: u64, unit: i64) {
        let difference = value.wrapping_sub(now) as i64;
        self.fold(difference.max(-PAST * unit) as u64);
    }
}

impl Hasher for Relative {
    fn finish(&self) -> u64 {
        self.state
    }

    /// Texts: versions, of which only matters whether they are current, and secrets.
    fn write(&mut self, bytes: &[u8]) {
        let version = bytes.strip_prefix(b"v").and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        match version {
            Some(version) => self.fold(u64::from(self.versions.contains(&version))),
            None => bytes.iter().for_each(|byte| self.fold(u64::from(*byte))),
        }
    }

    fn write_u64(&mut self, value: u64) {
        match value {
            READS..READS_END => self.fold((self.reads - value).min(1)),
            SEQUENCE..SEQUENCE_END => self.fold_difference(value, self.true_wall, 1_000),
            WALLS..MONOTONICS => self.fold_difference(value, self.wall, 1_000_000_000),
            MONOTONICS..MONOTONIC_END => self.fold_difference(value, self.monotonic, 1_000_000_000),
            _ => self.fold(value),
        }
    }

    /// Only [`At`](crate::time::At) is a signed number.
    fn write_i32(&mut self, value: i32) {
        self.fold(i64::from(value.saturating_sub(self.now)).max(-PAST) as u64);
    }

    fn write_u32(&mut self, value: u32) {
        // The highest bit marks the name of a refresh.
        let is_name = value >> 31 == 1;
        self.fold(u64::from(if is_name { self.last_id.wrapping_sub(value & !(1 << 31)) } else { value }));
    }

    fn write_u8(&mut self, value: u8) {
        self.fold(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.fold(value.into());
    }

    fn write_u128(&mut self, value: u128) {
        self.fold(value as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.fold(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.fold(value as u64);
    }
}

const SEQUENCE: u64 = 1 << 40;
const SEQUENCE_END: u64 = 1 << 42;
const READS: u64 = 1 << 49;
const READS_END: u64 = 1 << 52;
// A little before the bases: a process may look back beyond the start.
const WALLS: u64 = WALL_BASE - (1 << 48);
const MONOTONICS: u64 = MONOTONIC_BASE - (1 << 48);
const MONOTONIC_END: u64 = 1 << 62;
