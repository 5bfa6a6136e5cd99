//! What the server does in one step, and what it answers.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use ring::digest;

use super::link::{Fault, FaultKind, Link};
use crate::clock::Deadline;
use crate::key::Key;
use crate::secret::hex;
use crate::store::{Cursor, Entry, Expected, LeaseOutcome, LeaseOwner, PublishOutcome, SwapOutcome, Version};

/// A script that runs on the server as one operation. Constant: what changes comes as keys and arguments.
struct Script {
    text: String,
    name: String,
}

impl Script {
    fn new(body: &str) -> Script {
        let text = format!("{LOOK}{body}");
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Script { name: hex(digest.as_ref()), text }
    }
}

/// One operation, ready to be sent, again if need be.
pub(super) struct Question {
    script: &'static Script,
    keys: Vec<Key>,
    arguments: Vec<zeroize::Zeroizing<Vec<u8>>>,
}

impl Question {
    fn new(script: &'static Script, keys: &[Key]) -> Question {
        Question { script, keys: keys.to_vec(), arguments: Vec::new() }
    }

    fn with(mut self, argument: impl AsRef<[u8]>) -> Question {
        self.arguments.push(zeroize::Zeroizing::new(argument.as_ref().to_vec()));
        self
    }

    fn with_milliseconds(self, duration: Duration) -> Question {
        // Redis refuses a lifetime of zero, and one that its clock cannot hold.
        self.with(duration.as_millis().clamp(1, LONGEST_MILLISECONDS).to_string())
    }

    /// Asks over `link`, `limit` for each part of the answer. `again`: it was asked before, and may have been done.
    pub(super) fn ask(
        &self,
        link: &mut Link,
        limit: Duration,
        deadline: Deadline,
        again: bool,
    ) -> Result<Reply, Fault> {
        let limit = || limit.min(deadline.remaining());
        let by_name = link.ask(&self.command("EVALSHA", &self.script.name, again), limit());
        let value = match by_name {
            // A new server, or one that has started anew, gets the text. It keeps it.
            Err(fault) if fault.kind == FaultKind::NoScript => {
                link.ask(&self.command("EVAL", &self.script.text, again), limit())?
            }
            other => other?,
        };
        Reply::of(value)
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

pub(super) fn read(key: &Key) -> Question {
    Question::new(&READ, std::slice::from_ref(key))
}

pub(super) fn read_or_lease(
    key: &Key,
    not: Option<&Version>,
    at_least: Duration,
    owner: &LeaseOwner,
    lease: Duration,
) -> Question {
    Question::new(&READ_OR_LEASE, &[key.clone(), key.lease(), stream(key)])
        .with(not.map_or("", Version::as_str))
        .with_milliseconds(at_least)
        .with(owner.as_bytes())
        .with_milliseconds(lease)
}

pub(super) fn publish(
    key: &Key,
    owner: &LeaseOwner,
    seen: Option<&Version>,
    bytes: &[u8],
    lifetime: Duration,
) -> Question {
    Question::new(&PUBLISH, &[key.clone(), key.lease(), stream(key)])
        .with(owner.as_bytes())
        .with(seen.map_or("", Version::as_str))
        .with(bytes)
        .with_milliseconds(lifetime)
}

pub(super) fn swap(key: &Key, expected: Expected<'_>, new: Option<(&[u8], Duration)>) -> Question {
    let (condition, version) = match expected {
        Expected::Absent => ("absent", ""),
        Expected::Version(version) => ("version", version.as_str()),
        Expected::Any => ("any", ""),
    };
    // Nobody waits for news of a lease.
    let keys = if key.is_sidecar() { vec![key.clone()] } else { vec![key.clone(), stream(key)] };
    let question = Question::new(&SWAP, &keys).with(condition).with(version);
    match new {
        Some((bytes, lifetime)) => question.with("set").with(bytes).with_milliseconds(lifetime),
        None => question.with("remove"),
    }
}

pub(super) fn look_at(key: &Key) -> Question {
    Question::new(&LOOK_AT, &[key.clone(), key.lease()])
}

/// Where the streams of these keys end.
pub(super) fn ends(keys: &[&Key]) -> Question {
    Question::new(&ENDS, &keys.iter().map(|key| stream(key)).collect::<Vec<_>>())
}

/// Waits for an entry in one of the streams that is newer than the place beside it.
pub(super) fn follow<'a>(streams: impl IntoIterator<Item = (&'a Key, &'a str)>, wait: Duration) -> Cmd {
    let (keys, places): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
    let mut command = cmd("XREAD");
    // Zero would wait for ever.
    command.arg("COUNT").arg(1).arg("BLOCK").arg(wait.as_millis().max(1).to_string()).arg("STREAMS");
    keys.iter().for_each(|key| {
        command.arg(stream(key).as_str());
    });
    places.iter().for_each(|place| {
        command.arg(*place);
    });
    command
}

/// The stream that tells of changes: it holds the last one.
pub(super) fn stream(key: &Key) -> Key {
    key.sidecar("news")
}

/// What a script answers: a word, and what belongs to it.
pub(super) struct Reply {
    word: String,
    parts: std::vec::IntoIter<Value>,
}

impl Reply {
    fn of(value: Value) -> Result<Reply, Fault> {
        let Value::Array(parts) = value else { return Err(Fault::nonsense()) };
        let mut parts = parts.into_iter();
        let Some(Value::BulkString(word)) = parts.next() else { return Err(Fault::nonsense()) };
        Ok(Reply { word: String::from_utf8(word).map_err(|_| Fault::nonsense())?, parts })
    }

    /// True when something was written. A lease that was taken does not count: what is full may have room for that.
    pub(super) fn has_written(&self) -> bool {
        matches!(self.word.as_str(), "done" | "removed")
    }

    pub(super) fn into_entry(mut self) -> Result<Option<Entry>, Fault> {
        match self.word.as_str() {
            "found" => self.entry().map(Some),
            "nothing" => Ok(None),
            _ => Err(Fault::nonsense()),
        }
    }

    pub(super) fn into_leasing(mut self) -> Result<LeaseOutcome, Fault> {
        match self.word.as_str() {
            "found" => Ok(LeaseOutcome::Found(self.entry()?)),
            "leased" => Ok(LeaseOutcome::Leased),
            "busy" => {
                let remaining = self.milliseconds()?;
                let version = Some(self.text()?).filter(|name| !name.is_empty()).map(Version::new);
                let cursor = Cursor::new(version);
                let place = self.text()?;
                Ok(LeaseOutcome::Busy {
                    remaining,
                    cursor: if place.is_empty() { cursor } else { cursor.with_position(place) },
                })
            }
            _ => Err(Fault::nonsense()),
        }
    }

    pub(super) fn into_publish(mut self) -> Result<PublishOutcome, Fault> {
        match self.word.as_str() {
            "done" => Ok(PublishOutcome::Done(Some(Version::new(self.text()?)))),
            "lost" => Ok(PublishOutcome::Conflict(self.entry()?)),
            _ => Err(Fault::nonsense()),
        }
    }

    pub(super) fn into_swap(mut self) -> Result<SwapOutcome, Fault> {
        match self.word.as_str() {
            "done" => Ok(SwapOutcome::Done(Some(Version::new(self.text()?)))),
            "removed" => Ok(SwapOutcome::Done(None)),
            "lost" => Ok(SwapOutcome::Conflict(Some(self.entry()?))),
            "nothing" => Ok(SwapOutcome::Conflict(None)),
            _ => Err(Fault::nonsense()),
        }
    }

    /// The ends of the streams that were asked for.
    pub(super) fn into_places(mut self) -> Result<Vec<String>, Fault> {
        let count = self.parts.len();
        (0..count).map(|_| self.text()).collect()
    }

    /// Whether there is something newer than `cursor`, or the lease is free.
    pub(super) fn has_moved(mut self, cursor: &Cursor) -> Result<bool, Fault> {
        match self.word.as_str() {
            "free" => Ok(true),
            "taken" => Ok(self.text()? != cursor.version().map_or("", Version::as_str)),
            _ => Err(Fault::nonsense()),
        }
    }

    fn entry(&mut self) -> Result<Entry, Fault> {
        let remaining = self.milliseconds()?;
        let version = Version::new(self.text()?);
        Ok(Entry::with_version(self.bytes()?, remaining, version))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, Fault> {
        match self.parts.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            _ => Err(Fault::nonsense()),
        }
    }

    fn text(&mut self) -> Result<String, Fault> {
        String::from_utf8(self.bytes()?).map_err(|_| Fault::nonsense())
    }

    fn milliseconds(&mut self) -> Result<Duration, Fault> {
        match self.parts.next() {
            Some(Value::Int(number)) => Ok(Duration::from_millis(number.try_into().unwrap_or(0))),
            _ => Err(Fault::nonsense()),
        }
    }
}

/// A year: more than any lifetime, and far from what overflows.
const LONGEST_MILLISECONDS: u128 = 365 * 86_400 * 1_000;

/// Shared by all: what is under a key, without ever touching more than 64 KiB of it, and whatever is there. What is too
/// large or no string has a version, so that it can be replaced, and no bytes. What has no end is treated as over:
/// nobody can tell.
const LOOK: &str = r"
local function look(key)
  local kind = redis.call('TYPE', key)['ok']
  if kind == 'none' then return nil end
  if kind ~= 'string' then return {'found', 0, 'a ' .. kind, ''} end
  local size = redis.call('STRLEN', key)
  if size > 65536 then return {'found', 0, size .. ' bytes', ''} end
  local bytes = redis.call('GET', key)
  local left = redis.call('PTTL', key)
  return {'found', math.max(left, 0), redis.sha1hex(bytes), bytes}
end

local function version(entry) return entry and entry[3] or '' end

-- Tells those who wait. The lease and the record do not depend on it: where streams are refused, they poll.
local function tell(stream, lifetime)
  local told = redis.pcall('XADD', stream, 'MAXLEN', 1, '*', 'v', '')
  if type(told) == 'table' and told.err and redis.call('TYPE', stream)['ok'] ~= 'stream' then
    redis.pcall('DEL', stream)
    told = redis.pcall('XADD', stream, 'MAXLEN', 1, '*', 'v', '')
  end
  if type(told) == 'string' and redis.call('PTTL', stream) < lifetime then
    redis.pcall('PEXPIRE', stream, lifetime)
  end
end

local again = ARGV[1] == 'again'
";

static READ: LazyLock<Script> = LazyLock::new(|| Script::new("return look(KEYS[1]) or {'nothing'}"));

/// KEYS: record, lease, stream. ARGV: again, version that does not count, least lifetime, owner, lifetime of the lease.
static READ_OR_LEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local found = look(KEYS[1])
if found and found[3] ~= ARGV[2] and found[2] >= tonumber(ARGV[3]) then return found end
local left = redis.call('PTTL', KEYS[2])
-- What has no end, or one that no fetch needs, or is no string, was not left by anybody who will free it.
if left >= 0 and left <= math.max(600000, 2 * tonumber(ARGV[5])) and redis.call('TYPE', KEYS[2])['ok'] == 'string' then
  local holder = redis.call('GETRANGE', KEYS[2], 0, 255)
  -- Other programs write the nanoseconds at which they took it, and never free it.
  local stamp = tonumber(string.match(holder, '^ts%-(%d+)$'))
  if stamp then
    local now = redis.call('TIME')
    local age = now[1] * 1000 + now[2] / 1000 - stamp / 1000000
    left = math.min(left, math.ceil(tonumber(ARGV[5]) - age))
  end
  if holder ~= ARGV[4] and left >= 0 then
    local last = redis.pcall('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
    local place = '0-0'
    if last.err then place = '' elseif last[1] then place = last[1][1] end
    return {'busy', left, version(found), place}
  end
end
local taken = redis.pcall('SET', KEYS[2], ARGV[4], 'PX', ARGV[5])
if taken.err then return taken end
return {'leased'}
",
    )
});

/// KEYS: record, lease, stream. ARGV: again, owner, version seen, bytes, lifetime.
static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = redis.call('TYPE', KEYS[2])['ok'] == 'string' and redis.call('GETRANGE', KEYS[2], 0, 255)
local mine = held == ARGV[2]
local found = look(KEYS[1])
local new = redis.sha1hex(ARGV[4])
if again and version(found) == new then return {'done', new} end
-- Asked again without the lease, it was written the first time, and what is there came later.
local later = found and version(found) ~= ARGV[3] and (again or found[2] >= tonumber(ARGV[5]))
if later and not mine then
  found[1] = 'lost'
  return found
end
local written = redis.pcall('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
-- Freed in any case: who cannot write must not keep the others from trying.
if mine then redis.call('DEL', KEYS[2]) end
tell(KEYS[3], tonumber(ARGV[5]))
if written.err then return written end
return {'done', new}
",
    )
});

/// KEYS: record, stream if anybody is to be told. ARGV: again, condition, version, what to do, bytes, lifetime.
static SWAP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local found = look(KEYS[1])
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
if KEYS[2] then tell(KEYS[2], lifetime) end
return remove and {'removed'} or {'done', new}
",
    )
});

/// KEYS: record, lease. For those who wait: what would end the waiting, without the bytes.
static LOOK_AT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('PTTL', KEYS[2]) < 0 then return {'free'} end
return {'taken', version(look(KEYS[1]))}
",
    )
});

/// KEYS: streams. Where each of them ends; what is no stream goes, because it would spoil the reading of all others.
static ENDS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local places = {'places'}
for number, stream in ipairs(KEYS) do
  local kind = redis.call('TYPE', stream)['ok']
  if kind ~= 'stream' and kind ~= 'none' then redis.call('DEL', stream) end
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  places[number + 1] = last[1] and last[1][1] or '0-0'
end
return places
",
    )
});
