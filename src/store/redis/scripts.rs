//! The Lua scripts that the store runs on the server, and how their replies are read.
//!
//! Redis runs a script as one atomic operation, so each store operation is one round trip and no other client can act
//! between its steps. The scripts are constants: everything that varies is a key or an argument. A script is called by
//! the SHA-1 of its text (`EVALSHA`); a server that does not know the hash gets the text once (`EVAL`) and keeps it.
//!
//! Conventions that all scripts share:
//!
//! - `ARGV[1]` is `again` when the operation was sent before and its reply was lost. A script that writes then first
//!   checks whether the record that it would write is already there, and reports success.
//! - The reply is an array: a word that says what happened, then its values.
//! - The version of a record is the SHA-1 of its bytes, computed on the server.
//! - A command that may be refused (memory full, no permission) runs through `redis.pcall`, so that the steps after it,
//!   such as freeing a lease, still happen. The script returns the refusal at its end.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use ring::digest;

use super::connection::Connection;
use super::error::{MalformedReply, RedisError, RedisErrorKind};
use crate::clock::Deadline;
use crate::key::Key;
use crate::secret::hex;
use crate::store::{Cursor, Entry, Expected, LeaseOutcome, LeaseOwner, PublishOutcome, SwapOutcome, Version};

/// A constant script, and the SHA-1 by which the server knows it.
struct Script {
    text: String,
    hash: String,
}

impl Script {
    fn new(body: &str) -> Script {
        let text = format!("{PRELUDE}{body}");
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Script { hash: hex(digest.as_ref()), text }
    }
}

/// A script with its keys and arguments. Can be sent more than once.
pub(super) struct ScriptCall {
    script: &'static Script,
    keys: Vec<Key>,
    arguments: Vec<zeroize::Zeroizing<Vec<u8>>>,
    /// Whether the write waits for replicas, where the settings ask for that.
    pub(super) needs_replicas: bool,
    /// What takes the write back when too few replicas confirm it.
    pub(super) undo: Option<Box<ScriptCall>>,
}

impl ScriptCall {
    fn new(script: &'static Script, keys: &[Key]) -> ScriptCall {
        ScriptCall { script, keys: keys.to_vec(), arguments: Vec::new(), needs_replicas: false, undo: None }
    }

    fn with(mut self, argument: impl AsRef<[u8]>) -> ScriptCall {
        self.arguments.push(zeroize::Zeroizing::new(argument.as_ref().to_vec()));
        self
    }

    fn with_milliseconds(self, duration: Duration) -> ScriptCall {
        // Redis rejects an expiry of zero, and one that overflows its clock.
        self.with(duration.as_millis().clamp(1, MAX_MILLISECONDS).to_string())
    }

    /// Runs the script over `connection`. `timeout` applies to each read and write, `deadline` to the whole call.
    /// `again` says that the call was sent before and may have been performed.
    pub(super) fn run(
        &self,
        connection: &mut Connection,
        timeout: Duration,
        deadline: Deadline,
        again: bool,
    ) -> Result<ScriptReply, RedisError> {
        let timeout = || timeout.min(deadline.remaining());
        let by_hash = connection.request(&self.command("EVALSHA", &self.script.hash, again), timeout());
        let value = match by_hash {
            // The server is new, or has restarted.
            Err(error) if error.kind == RedisErrorKind::NoScript => {
                connection.request(&self.command("EVAL", &self.script.text, again), timeout())?
            }
            other => other?,
        };
        ScriptReply::parse(value).map_err(|MalformedReply| connection.malformed_reply())
    }

    fn command(&self, verb: &str, script: &str, again: bool) -> Cmd {
        let mut command = cmd(verb);
        command.arg(script).arg(self.keys.len());
        self.keys.iter().for_each(|key| {
            command.arg(key.as_str());
        });
        command.arg(if again { "again" } else { "" });
        self.arguments.iter().for_each(|argument| {
            command.arg(argument.as_slice());
        });
        command
    }
}

/// Reads a record.
pub(super) fn read(key: &Key) -> ScriptCall {
    ScriptCall::new(&READ, std::slice::from_ref(key))
}

/// Reads a record other than version `not` that lives for `at_least`, or takes the lease.
pub(super) fn read_or_lease(
    key: &Key,
    not: Option<&Version>,
    at_least: Duration,
    owner: &LeaseOwner,
    lease: Duration,
) -> ScriptCall {
    ScriptCall::new(&READ_OR_LEASE, &[key.clone(), key.lease(), news_stream(key)])
        .with(not.map_or("", Version::as_str))
        .with_milliseconds(at_least)
        .with(owner.as_bytes())
        .with_milliseconds(lease)
}

/// Writes a record and frees the lease.
pub(super) fn publish(
    key: &Key,
    owner: &LeaseOwner,
    seen: Option<&Version>,
    bytes: &[u8],
    lifetime: Duration,
) -> ScriptCall {
    ScriptCall::new(&PUBLISH, &[key.clone(), key.lease(), news_stream(key)])
        .with(owner.as_bytes())
        .with(seen.map_or("", Version::as_str))
        .with(bytes)
        .with_milliseconds(lifetime)
}

/// Replaces or removes a record if it is what was expected.
pub(super) fn compare_and_swap(key: &Key, expected: Expected<'_>, new: Option<(&[u8], Duration)>) -> ScriptCall {
    let (condition, version) = match expected {
        Expected::Absent => ("absent", ""),
        Expected::Version(version) => ("version", version.as_str()),
        Expected::Any => ("any", ""),
    };
    // A record beside a token's record (lease, renewal secret, quota, operation) has no stream: no one waits for it.
    let keys = if key.is_sidecar() { vec![key.clone()] } else { vec![key.clone(), news_stream(key)] };
    let call = ScriptCall::new(&COMPARE_AND_SWAP, &keys).with(condition).with(version);
    match new {
        Some((bytes, lifetime)) => {
            let call = call.with("set").with(bytes).with_milliseconds(lifetime);
            // A claim that is lost with a failed master lets an operation run twice. A claim that replicas have not
            // confirmed is removed, so that it does not block the operation.
            let undo = (key.is_operation() && matches!(expected, Expected::Absent)).then(|| {
                let version = Version::new(hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref()));
                Box::new(compare_and_swap(key, Expected::Version(&version), None))
            });
            ScriptCall { needs_replicas: key.is_operation(), undo, ..call }
        }
        None => call.with("remove"),
    }
}

/// Asks how many replicas have confirmed the writes of this connection, and waits for `count` of them. This is a plain
/// command, because a script cannot block.
pub(super) fn wait_for_replicas(count: u32, limit: Duration) -> Cmd {
    let mut command = cmd("WAIT");
    // `WAIT n 0` would wait without end.
    command.arg(count).arg(limit.as_millis().max(1).to_string());
    command
}

/// Asks whether a waiter should stop waiting.
pub(super) fn check_for_change(key: &Key) -> ScriptCall {
    ScriptCall::new(&CHECK_FOR_CHANGE, &[key.clone(), key.lease()])
}

/// Asks for the last position in the stream of each key.
pub(super) fn last_positions(keys: &[&Key]) -> ScriptCall {
    ScriptCall::new(&LAST_POSITIONS, &keys.iter().map(|key| news_stream(key)).collect::<Vec<_>>())
}

/// Blocks on the server until one of the streams has an entry after the position beside its key, for `wait` at most.
/// This is a plain command, because a script cannot block.
pub(super) fn read_streams<'a>(streams: impl IntoIterator<Item = (&'a Key, &'a str)>, wait: Duration) -> Cmd {
    let (keys, positions): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
    let mut command = cmd("XREAD");
    // `BLOCK 0` would block without end.
    command.arg("COUNT").arg(1).arg("BLOCK").arg(wait.as_millis().max(1).to_string()).arg("STREAMS");
    keys.iter().for_each(|key| {
        command.arg(news_stream(key).as_str());
    });
    positions.iter().for_each(|position| {
        command.arg(*position);
    });
    command
}

/// Returns the key of the stream that announces changes of the record under `key`. The stream keeps its last entry
/// only.
pub(super) fn news_stream(key: &Key) -> Key {
    key.sidecar("news")
}

/// The reply of a script: a word, and the values that belong to it.
pub(super) struct ScriptReply {
    word: String,
    values: std::vec::IntoIter<Value>,
}

impl ScriptReply {
    fn parse(value: Value) -> Result<ScriptReply, MalformedReply> {
        let Value::Array(values) = value else { return Err(MalformedReply) };
        let mut values = values.into_iter();
        let Some(Value::BulkString(word)) = values.next() else { return Err(MalformedReply) };
        Ok(ScriptReply { word: String::from_utf8(word).map_err(|_| MalformedReply)?, values })
    }

    /// Returns whether a record was written or removed, which proves that the server takes writes. Taking a lease does
    /// not count: a server whose memory is full may have room for a lease and not for a record.
    pub(super) fn has_written(&self) -> bool {
        matches!(self.word.as_str(), "done" | "removed")
    }

    pub(super) fn into_entry(mut self) -> Result<Option<Entry>, MalformedReply> {
        match self.word.as_str() {
            "found" => self.entry().map(Some),
            "nothing" => Ok(None),
            _ => Err(MalformedReply),
        }
    }

    pub(super) fn into_lease_outcome(mut self) -> Result<LeaseOutcome, MalformedReply> {
        match self.word.as_str() {
            "found" => Ok(LeaseOutcome::Found(self.entry()?)),
            "leased" => Ok(LeaseOutcome::Leased),
            "busy" => {
                let remaining = self.milliseconds()?;
                let version = Some(self.text()?).filter(|name| !name.is_empty()).map(Version::new);
                let cursor = Cursor::new(version);
                let position = self.text()?;
                Ok(LeaseOutcome::Busy {
                    remaining,
                    cursor: if position.is_empty() { cursor } else { cursor.with_position(position) },
                })
            }
            _ => Err(MalformedReply),
        }
    }

    pub(super) fn into_publish_outcome(mut self) -> Result<PublishOutcome, MalformedReply> {
        match self.word.as_str() {
            "done" => Ok(PublishOutcome::Done(Some(Version::new(self.text()?)))),
            "lost" => Ok(PublishOutcome::Conflict(self.entry()?)),
            _ => Err(MalformedReply),
        }
    }

    pub(super) fn into_swap_outcome(mut self) -> Result<SwapOutcome, MalformedReply> {
        match self.word.as_str() {
            "done" => Ok(SwapOutcome::Done(Some(Version::new(self.text()?)))),
            "removed" => Ok(SwapOutcome::Done(None)),
            "lost" => Ok(SwapOutcome::Conflict(Some(self.entry()?))),
            "nothing" => Ok(SwapOutcome::Conflict(None)),
            _ => Err(MalformedReply),
        }
    }

    /// Returns the last positions of the streams, in the order of the keys.
    pub(super) fn into_positions(mut self) -> Result<Vec<String>, MalformedReply> {
        let count = self.values.len();
        (0..count).map(|_| self.text()).collect()
    }

    /// Returns whether the record is not what `cursor` saw, or the lease is free.
    pub(super) fn has_changed(mut self, cursor: &Cursor) -> Result<bool, MalformedReply> {
        match self.word.as_str() {
            "free" => Ok(true),
            "taken" => Ok(self.text()? != cursor.version().map_or("", Version::as_str)),
            _ => Err(MalformedReply),
        }
    }

    fn entry(&mut self) -> Result<Entry, MalformedReply> {
        let remaining = self.milliseconds()?;
        let version = Version::new(self.text()?);
        Ok(Entry::with_version(self.bytes()?, remaining, version))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, MalformedReply> {
        match self.values.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            _ => Err(MalformedReply),
        }
    }

    fn text(&mut self) -> Result<String, MalformedReply> {
        String::from_utf8(self.bytes()?).map_err(|_| MalformedReply)
    }

    fn milliseconds(&mut self) -> Result<Duration, MalformedReply> {
        match self.values.next() {
            Some(Value::Int(number)) => Ok(Duration::from_millis(number.try_into().unwrap_or(0))),
            _ => Err(MalformedReply),
        }
    }
}

/// The longest expiry that is sent: a year, more than any token's lifetime and far from an overflow in Redis.
const MAX_MILLISECONDS: u128 = 365 * 86_400 * 1_000;

/// Functions that come before the body of each script.
///
/// `read_entry` returns the record under a key with its remaining time and version. The value may have been written by
/// any program, so the function never fails on it and never loads more than 128 KiB. A value of another type, or a
/// larger one, is returned with empty bytes and a version that names its type or size: unreadable, but it can be
/// replaced. A value without an expiry gets zero remaining time, because its age is unknown.
///
/// `announce` adds an entry to the news stream, which wakes processes that block on it, and keeps the stream alive at
/// least as long as the record. Failures are ignored: where the server refuses streams, waiters poll.
const PRELUDE: &str = r"
local function read_entry(key)
  local kind = redis.call('TYPE', key)['ok']
  if kind == 'none' then return nil end
  if kind ~= 'string' then return {'found', 0, 'a ' .. kind, ''} end
  local size = redis.call('STRLEN', key)
  if size > 131072 then return {'found', 0, size .. ' bytes', ''} end
  local bytes = redis.call('GET', key)
  local left = redis.call('PTTL', key)
  return {'found', math.max(left, 0), redis.sha1hex(bytes), bytes}
end

local function version(entry) return entry and entry[3] or '' end

local function announce(stream, lifetime)
  local added = redis.pcall('XADD', stream, 'MAXLEN', 1, '*', 'v', '')
  -- A value of another type is in the way: replace it.
  if type(added) == 'table' and added.err and redis.call('TYPE', stream)['ok'] ~= 'stream' then
    redis.pcall('DEL', stream)
    added = redis.pcall('XADD', stream, 'MAXLEN', 1, '*', 'v', '')
  end
  if type(added) == 'string' and redis.call('PTTL', stream) < lifetime then
    redis.pcall('PEXPIRE', stream, lifetime)
  end
end

local again = ARGV[1] == 'again'
";

/// Returns the record with its version and remaining time, all from the same moment.
///
/// KEYS: record. ARGV: again.
static READ: LazyLock<Script> = LazyLock::new(|| Script::new("return read_entry(KEYS[1]) or {'nothing'}"));

/// Returns the record if it is acceptable: another version than the caller's, with enough time left. Otherwise takes
/// the lease, or says how long it is still taken and from where to wait.
///
/// Atomic, because a record published between the read and the taking of the lease would otherwise lead to a second
/// fetch, and because an entry added between the read and the look at the stream would be missed by a waiter.
///
/// - The same owner gets its lease again, for the whole time. This is also how a lost reply is repaired.
/// - A lease is taken over if no holder will free it: one without an expiry, with a longer one than any fetch needs, or
///   of another type than string. So is a `ts-<nanoseconds>` lock that is older than one lease. Other programs that
///   share a custom key write such locks: the number is the time at which they took the lock, and they never free it.
///
/// KEYS: record, lease, stream. ARGV: again, version that is not acceptable, least remaining time, owner, lease time.
static READ_OR_LEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local found = read_entry(KEYS[1])
if found and found[3] ~= ARGV[2] and found[2] >= tonumber(ARGV[3]) then return found end
local left = redis.call('PTTL', KEYS[2])
-- PTTL is negative for a lease that is absent or has no expiry.
if left >= 0 and left <= math.max(600000, 2 * tonumber(ARGV[5])) and redis.call('TYPE', KEYS[2])['ok'] == 'string' then
  local holder = redis.call('GETRANGE', KEYS[2], 0, 255)
  local stamp = tonumber(string.match(holder, '^ts%-(%d+)$'))
  if stamp then
    local now = redis.call('TIME')
    local age = now[1] * 1000 + now[2] / 1000 - stamp / 1000000
    left = math.min(left, math.ceil(tonumber(ARGV[5]) - age))
  end
  if holder ~= ARGV[4] and left >= 0 then
    local last = redis.pcall('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
    local position = '0-0'
    -- An empty position tells the caller to poll.
    if last.err then position = '' elseif last[1] then position = last[1][1] end
    return {'busy', left, version(found), position}
  end
end
local taken = redis.pcall('SET', KEYS[2], ARGV[4], 'PX', ARGV[5])
if taken.err then return taken end
return {'leased'}
",
    )
});

/// Writes the record, frees the caller's lease and announces the change.
///
/// Atomic, because the decision to write depends on the record and the lease: the holder of the lease always writes; a
/// caller without it does not replace a record written since it read, unless the new record lives longer. In the other
/// case the script returns the record that is there.
///
/// - Sent again after a lost reply: if the record is already there, that is the success of the first time. If another
///   record is there and the lease is gone, the first time succeeded and the other record came later, so it stays.
/// - The lease is freed even when the write is refused, so that another process may try to fetch and write.
///
/// KEYS: record, lease, stream. ARGV: again, owner, version that the caller read, bytes, lifetime.
static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = redis.call('TYPE', KEYS[2])['ok'] == 'string' and redis.call('GETRANGE', KEYS[2], 0, 255)
local mine = held == ARGV[2]
local found = read_entry(KEYS[1])
local new = redis.sha1hex(ARGV[4])
if again and version(found) == new then return {'done', new} end
local newer = found and version(found) ~= ARGV[3] and (again or found[2] >= tonumber(ARGV[5]))
if newer and not mine then
  found[1] = 'lost'
  return found
end
local written = redis.pcall('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
if mine then redis.call('DEL', KEYS[2]) end
announce(KEYS[3], tonumber(ARGV[5]))
if written.err then return written end
return {'done', new}
",
    )
});

/// Replaces or removes the record if it is what the caller expects, and announces the change; otherwise returns the
/// record that is there.
///
/// Atomic, because another client could change the record between the comparison and the write. The condition `absent`
/// expects no record, `version` the given version, `any` everything. Sent again after a lost reply, the script reports
/// success if the record that it would write is there.
///
/// KEYS: record, and its stream if it has one. ARGV: again, condition, version, `set` or `remove`, bytes, lifetime.
static COMPARE_AND_SWAP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local found = read_entry(KEYS[1])
local condition, remove = ARGV[2], ARGV[4] == 'remove'
local new = remove and '' or redis.sha1hex(ARGV[5])
if again and version(found) == new then return remove and {'removed'} or {'done', new} end
local fits = condition == 'any' or version(found) == ARGV[3] and (found ~= nil) == (condition == 'version')
if not fits then
  if not found then return {'nothing'} end
  found[1] = 'lost'
  return found
end
local lifetime = 1000
if remove then
  redis.call('DEL', KEYS[1])
else
  lifetime = tonumber(ARGV[6])
  local written = redis.pcall('SET', KEYS[1], ARGV[5], 'PX', lifetime)
  if written.err then return written end
end
if KEYS[2] then announce(KEYS[2], lifetime) end
return remove and {'removed'} or {'done', new}
",
    )
});

/// Returns whether the lease is free, and the record's version if it is not. Both end a wait, and both come from the
/// same moment. Returns no bytes, so a poll stays small.
///
/// KEYS: record, lease. ARGV: again.
static CHECK_FOR_CHANGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('PTTL', KEYS[2]) < 0 then return {'free'} end
return {'taken', version(read_entry(KEYS[1]))}
",
    )
});

/// Returns the last position of each stream, from where the watcher reads on. Removes a value that is no stream: it
/// would make the `XREAD` of all streams fail.
///
/// Atomic, so that no value of another type can appear between the check and the read.
///
/// KEYS: streams. ARGV: again.
static LAST_POSITIONS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local positions = {'positions'}
for number, stream in ipairs(KEYS) do
  local kind = redis.call('TYPE', stream)['ok']
  if kind ~= 'stream' and kind ~= 'none' then redis.call('DEL', stream) end
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  positions[number + 1] = last[1] and last[1][1] or '0-0'
end
return positions
",
    )
});
