//! What stands in a file: a line of JSON about the bytes with a hash of itself behind it, then the bytes.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::{HostTimestamp, Time, milliseconds, system_time};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::store::{Entry, Version};

/// A file's text, taken apart.
pub(super) struct Record {
    /// `None` when its lifetime is over.
    pub(super) entry: Option<Entry>,
    /// The number of the file that the holder of this lease has locked.
    pub(super) held: Option<u64>,
}

/// A file's text, put together.
pub(super) struct EncodedRecord {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) version: Version,
    /// When its lifetime ends, by the wall clock.
    pub(super) end: SystemTime,
}

/// Why a text is none of ours.
#[derive(Debug)]
pub(super) struct Unreadable(pub(super) &'static str);

#[derive(Serialize, Deserialize)]
struct Header {
    evertoken: u32,
    /// For people who look into the file, and to tell when it was put here from elsewhere.
    key: String,
    /// The version of the bytes: that they are whole.
    version: String,
    /// Milliseconds since 1970 by the wall clock.
    start: u64,
    end: u64,
    /// Which start of the machine, and milliseconds since then.
    #[serde(default)]
    boot: Option<Boot>,
    #[serde(default)]
    held: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Boot {
    id: String,
    start: u64,
    end: u64,
}

impl EncodedRecord {
    pub(super) fn new(
        key: &Key,
        bytes: &[u8],
        lifetime: Duration,
        held: Option<u64>,
        time: &Time,
    ) -> Result<EncodedRecord, Error> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::new(ErrorKind::Store, "more than 64 KiB is too much for a file of the store"));
        }
        let now = time.host_now();
        let lifetime = milliseconds(lifetime.min(MAX_LIFETIME));
        let version = Version::of_bytes(bytes);
        let boot = now.boot.zip(time.boot_id());
        let header = Header {
            evertoken: VERSION,
            key: key.as_str().to_owned(),
            version: version.as_str().to_owned(),
            start: now.wall,
            end: now.wall.saturating_add(lifetime),
            boot: boot.map(|(boot, id)| Boot { id: id.to_owned(), start: boot, end: boot.saturating_add(lifetime) }),
            held,
        };
        // Strings and numbers only: there is nothing in it that JSON cannot hold.
        let mut text = serde_json::to_vec(&header).unwrap_or_default();
        let hash = Version::of_bytes(&text);
        text.reserve_exact(2 + hash.as_str().len() + bytes.len());
        text.push(b' ');
        text.extend_from_slice(hash.as_str().as_bytes());
        text.push(b'\n');
        text.extend_from_slice(bytes);
        Ok(EncodedRecord { bytes: Zeroizing::new(text), version, end: system_time(header.end) })
    }
}

impl Record {
    pub(super) fn decode(text: &[u8], key: &Key, time: &Time) -> Result<Record, Unreadable> {
        const FOREIGN: Unreadable = Unreadable("it is not one of ours, or not whole");
        let Some(line) = text.iter().position(|byte| *byte == b'\n') else { return Err(FOREIGN) };
        let (line, bytes) = (&text[..line], &text[line + 1..]);
        let separator = line.iter().rposition(|byte| *byte == b' ').unwrap_or(line.len());
        let (header, hash) = line.split_at(separator);
        let format: FormatVersion = serde_json::from_slice(header).map_err(|_| FOREIGN)?;
        if format.evertoken != VERSION {
            return Err(Unreadable("it was written by another version of evertoken"));
        }
        // The end of a lifetime is in there: one that has come to be later would make a dead token a good one.
        if hash.get(1..) != Some(Version::of_bytes(header).as_str().as_bytes()) {
            return Err(Unreadable("it is damaged"));
        }
        let header: Header = serde_json::from_slice(header).map_err(|_| Unreadable("it is damaged"))?;
        if header.key != key.as_str() {
            return Err(Unreadable("it belongs to another key"));
        }
        let version = Version::of_bytes(bytes);
        if version.as_str() != header.version || bytes.len() > MAX_BYTES {
            return Err(Unreadable("it is damaged"));
        }
        let remaining = header.remaining(key, time.host_now(), time.boot_id());
        let entry = remaining.map(|remaining| Entry::with_version(bytes.to_vec(), remaining, version));
        Ok(Record { entry, held: header.held })
    }
}

/// True when the lifetime of what stands in a file ended more than `ago` before `now`, or nobody can tell.
pub(super) fn has_expired(text: &[u8], ago: Duration, now: HostTimestamp, boot_id: Option<&str>) -> bool {
    let mut headers = serde_json::Deserializer::from_slice(text).into_iter::<Header>();
    let Some(Ok(header)) = headers.next() else { return true };
    let (end, now) = match header.current_boot(boot_id).zip(now.boot) {
        Some((boot, now)) => (boot.end, now),
        None => (header.end, now.wall),
    };
    end.saturating_add(milliseconds(ago)) < now
}

impl Header {
    /// The times since the start of the machine, if it is this one.
    fn current_boot(&self, boot_id: Option<&str>) -> Option<&Boot> {
        self.boot.as_ref().filter(|boot| Some(boot.id.as_str()) == boot_id)
    }

    /// What is left of the lifetime. `None`: nothing, or nobody can tell.
    fn remaining(&self, key: &Key, now: HostTimestamp, boot_id: Option<&str>) -> Option<Duration> {
        // A token must not be used for too long; what stands beside one must not be lost too early.
        let is_token = !key.is_sidecar();
        // How much a clock may have been set back since. What is waited for is waited for no longer than twice its lifetime.
        let grace = |lifetime: u64| match is_token {
            true => CLOCK_SYNC_TOLERANCE,
            false if key.is_renewal_secret() => u64::MAX,
            false => lifetime.max(CLOCK_SYNC_TOLERANCE),
        };
        // Rounded up, or a part of a millisecond would be won.
        let left = |end: u64, now: u64| end.checked_sub(now.saturating_add(1));
        let left_of = |start: u64, end: u64, now: u64| {
            let lifetime = end.saturating_sub(start);
            (now.saturating_add(grace(lifetime)) >= start).then(|| left(end, now))?.map(|left| left.min(lifetime))
        };
        let left_by_boot_clock =
            self.current_boot(boot_id).zip(now.boot).map(|(boot, now)| left_of(boot.start, boot.end, now));
        let left = match left_by_boot_clock {
            // Whoever sets the wall clock is not to take it from anybody.
            Some(left_by_boot_clock) if !is_token => left_by_boot_clock?,
            // A wall clock that was set back tells nothing that the other does not know better.
            Some(left_by_boot_clock) => left_by_boot_clock?.min(left(self.end, now.wall)?),
            None => left_of(self.start, self.end, now.wall)?,
        };
        Some(Duration::from_millis(left)).filter(|left| !left.is_zero())
    }
}

/// What every version has in its first line.
#[derive(Deserialize)]
struct FormatVersion {
    evertoken: u32,
}

const VERSION: u32 = 1;

/// The most bytes that a file keeps.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// Milliseconds by which those who set clocks by a network move them back now and then.
const CLOCK_SYNC_TOLERANCE: u64 = 1_000;

/// A hundred years.
const MAX_LIFETIME: Duration = Duration::from_secs(100 * 365 * 86_400);
