//! The contents of a file, and the rules for lifetimes.
//!
//! # Layout
//!
//! ```text
//! {"evertoken":1,"key":"..","version":"..","start":1,"end":2,"boot":{..},"held":null} <hash of the JSON>\n
//! <the bytes of the record>
//! ```
//!
//! The first line is a header ([`Header`]), a blank, and a hash of the header. `version` is a hash of the bytes. The
//! two hashes detect torn and damaged files. The header has its own, because it contains the end of the lifetime: a
//! flipped bit there could revive an expired token. The hashes are not keyed and no protection against a person who can
//! write the file; the access checks of the directory are.
//!
//! # Lifetimes
//!
//! A file has two pairs of times, in milliseconds: `start` and `end` by the wall clock, and `boot.start` and `boot.end`
//! by the clock that counts from the start of the machine, valid only for the start with the id `boot.id`. The rest of
//! a lifetime is:
//!
//! | | same start of the machine | otherwise (restart, or no such clock) |
//! |---|---|---|
//! | token | the sooner of the two ends | by the wall clock; nothing if `start` is in the future |
//! | lease, quota, operation | by the boot clock | by the wall clock; at most the whole lifetime from now |
//! | renewal secret | by the boot clock | the same, however far in the future `start` is |
//!
//! A lease, quota or operation whose `start` is further ahead than its own lifetime counts as expired.
//!
//! A `start` in the future means that the wall clock was set back, so the true age is unknown. A token then counts as
//! expired, with a tolerance for small corrections by a time service. A sidecar is kept: losing one costs more than
//! keeping it for too long.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::{HostTimestamp, Time, milliseconds, system_time};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::store::{Entry, Version};

/// The decoded contents of a file.
pub(super) struct Record {
    /// `None` when the lifetime has passed.
    pub(super) entry: Option<Entry>,
    /// For a lease: the inode number of the `.lease` file that its holder has locked.
    pub(super) held: Option<u64>,
}

/// The encoded contents of a file.
pub(super) struct EncodedRecord {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) version: Version,
    /// The end of the lifetime, by the wall clock.
    pub(super) end: SystemTime,
}

/// Why a file's contents are not usable, for the log.
#[derive(Debug)]
pub(super) struct Unreadable(pub(super) &'static str);

/// The first line of a file. The field names are part of the file format.
#[derive(Serialize, Deserialize)]
struct Header {
    /// The version of the file format.
    evertoken: u32,
    /// The key of the record, to detect a file that was copied from another name, and for people who read the file.
    key: String,
    /// The hash of the bytes.
    version: String,
    /// Start and end of the lifetime by the wall clock, in milliseconds since 1970.
    start: u64,
    end: u64,
    /// The same by the boot clock, where there is one.
    #[serde(default)]
    boot: Option<Boot>,
    /// See [`Record::held`].
    #[serde(default)]
    held: Option<u64>,
}

/// A lifetime by the clock that counts from the start of the machine, in milliseconds.
#[derive(Serialize, Deserialize)]
struct Boot {
    /// The id of that start.
    id: String,
    start: u64,
    end: u64,
}

impl EncodedRecord {
    /// Encodes `bytes` with a lifetime that starts now.
    pub(super) fn new(
        key: &Key,
        bytes: &[u8],
        lifetime: Duration,
        held: Option<u64>,
        time: &Time,
    ) -> Result<EncodedRecord, Error> {
        if bytes.len() > MAX_BYTES {
            let text = format!("a record of {} bytes is too large for a file; the limit is 128 KiB", bytes.len());
            return Err(Error::new(ErrorKind::Store, text));
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
        // Cannot fail: the header contains only strings and numbers.
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
    /// Decodes the contents of the file of `key`.
    pub(super) fn decode(text: &[u8], key: &Key, time: &Time) -> Result<Record, Unreadable> {
        const FOREIGN: Unreadable = Unreadable("it was not written by evertoken, or only in part");
        let Some(line) = text.iter().position(|byte| *byte == b'\n') else { return Err(FOREIGN) };
        let (line, bytes) = (&text[..line], &text[line + 1..]);
        let separator = line.iter().rposition(|byte| *byte == b' ').unwrap_or(line.len());
        let (header, hash) = line.split_at(separator);
        // Look at the version before the hash, because another version may have another layout behind its header.
        let format: FormatVersion = serde_json::from_slice(header).map_err(|_| FOREIGN)?;
        if format.evertoken != VERSION {
            return Err(Unreadable("it was written by another version of evertoken"));
        }
        // The header contains the expiry: a flipped bit there could revive an expired token.
        if hash.get(1..) != Some(Version::of_bytes(header).as_str().as_bytes()) {
            return Err(Unreadable("it is damaged"));
        }
        let header: Header = serde_json::from_slice(header).map_err(|_| Unreadable("it is damaged"))?;
        // A file that was copied to another name holds the token of another credential.
        if header.key != key.as_str() {
            return Err(Unreadable("it is the file of another key"));
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

/// True if the lifetime in a file's header ended more than `ago` before `now`, or the header is unreadable. Used by the
/// sweep, which may delete such a file.
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
    /// Returns the times by the boot clock if they belong to the current start of the machine.
    fn current_boot(&self, boot_id: Option<&str>) -> Option<&Boot> {
        self.boot.as_ref().filter(|boot| Some(boot.id.as_str()) == boot_id)
    }

    /// Returns what is left of the lifetime by the rules at the head of this file. `None` means expired or unknown.
    fn remaining(&self, key: &Key, now: HostTimestamp, boot_id: Option<&str>) -> Option<Duration> {
        // A token must not be used for too long; a sidecar must not be lost too early.
        let is_token = !key.is_sidecar();
        // How far in the future `start` may be. For leases, quotas and operations: their own lifetime, so that none
        // lasts longer than twice its lifetime.
        let grace = |lifetime: u64| match is_token {
            true => CLOCK_SYNC_TOLERANCE,
            false if key.is_renewal_secret() => u64::MAX,
            false => lifetime.max(CLOCK_SYNC_TOLERANCE),
        };
        // `now` was rounded down to a whole millisecond. Round it up, or the lifetime would grow by the rest.
        let left = |end: u64, now: u64| end.checked_sub(now.saturating_add(1));
        let left_of = |start: u64, end: u64, now: u64| {
            let lifetime = end.saturating_sub(start);
            (now.saturating_add(grace(lifetime)) >= start).then(|| left(end, now))?.map(|left| left.min(lifetime))
        };
        let left_by_boot_clock =
            self.current_boot(boot_id).zip(now.boot).map(|(boot, now)| left_of(boot.start, boot.end, now));
        let left = match left_by_boot_clock {
            // A sidecar: setting the wall clock must not end it.
            Some(left_by_boot_clock) if !is_token => left_by_boot_clock?,
            // A token: the sooner end. If the wall clock was set back, its end is later and does not count.
            Some(left_by_boot_clock) => left_by_boot_clock?.min(left(self.end, now.wall)?),
            None => left_of(self.start, self.end, now.wall)?,
        };
        Some(Duration::from_millis(left)).filter(|left| !left.is_zero())
    }
}

/// The field that the header has in every version of the format.
#[derive(Deserialize)]
struct FormatVersion {
    evertoken: u32,
}

/// The version of the file format.
const VERSION: u32 = 1;

/// The largest record, in bytes. The first version reads records of up to 64 KiB.
pub(super) const MAX_BYTES: usize = 128 * 1024;

/// Milliseconds by which a time service (NTP) may set the wall clock back in normal operation.
const CLOCK_SYNC_TOLERANCE: u64 = 1_000;

/// A hundred years: keeps the sums of times far from overflow.
const MAX_LIFETIME: Duration = Duration::from_secs(100 * 365 * 86_400);
