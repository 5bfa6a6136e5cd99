//! One credential's record in a shared store: who may fetch, and what all have of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::{Deadline, Moment, Stopwatch, Time, Wake};
use crate::error::{Error, ErrorKind, catch_panic};
use crate::key::Key;
use crate::lock::lock;
use crate::policy::LONGEST_PAUSE;
use crate::secret::Secret;
use crate::store::{Cursor, Entry, Expected, Leasing, Owner, Publish, Store, Swap, Version, Watch};
use crate::thread::aside;
use crate::token::check_text;

/// The part of a manager that talks with the others that hold the same credential.
#[derive(Debug)]
pub(crate) struct Sharing {
    store: Arc<dyn Store>,
    key: Key,
    /// Recorded with the token and compared on reading, so that no mix-up of keys or connections hands out another
    /// credential's token. `None` for a key of the user's own.
    identity: Option<String>,
    owner: String,
    lease: Duration,
    time: Time,
    /// The highest number of a token that was seen or written here.
    number: AtomicU64,
    /// The last record of another program, and the number that it was given here: it has none of its own, and came
    /// after whatever was there before.
    foreign: Mutex<Option<(Version, u64)>>,
    /// Whether an unreadable record has been reported.
    reported: AtomicBool,
    /// An operation of this process that has not come back in time, and may never: as long as its thread lives, the
    /// store is not asked again.
    hung: Mutex<Option<(u32, Weak<()>)>>,
}

/// What all managers of a credential know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) token: Option<RecordedToken>,
    /// Tokens that were rejected, the latest last.
    pub(crate) rejected: Vec<RejectedToken>,
    /// How the last fetch failed.
    pub(crate) failure: Option<Failure>,
    /// Counts the tokens that were recorded: of two, the one with the higher number was granted later.
    pub(crate) number: u64,
    /// How long it is to be kept at least, for the sake of the rejections.
    pub(crate) keep: Duration,
    /// What is stored. `None` when nothing is.
    pub(crate) version: Option<Version>,
}

#[derive(Clone, Debug)]
pub(crate) struct RecordedToken {
    pub(crate) secret: Secret,
    pub(crate) fingerprint: String,
    /// Its whole life, or renewing ahead would never fire for those who adopt it.
    pub(crate) life: Duration,
    /// What was left of it at `known_at`.
    pub(crate) remaining: Duration,
    pub(crate) known_at: Moment,
}

/// A token that must not be used. Its end is kept, because the provider may give it again and tell a whole life.
#[derive(Clone, Debug)]
pub(crate) struct RejectedToken {
    pub(crate) fingerprint: String,
    pub(crate) end: Moment,
}

/// A fetch that failed, in whatever process.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Nobody is to try again for so long.
    pub(crate) retry_in: Duration,
    /// How many failed in a row.
    pub(crate) count: u32,
}

/// What to do before asking for a [turn](Sharing::turn).
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) cursor: Cursor,
    pub(crate) until: Deadline,
    /// How long to rest if the store cannot wait.
    pub(crate) pause: Duration,
}

impl Wait {
    fn on(&self, store: &dyn Store, key: &Key) {
        let watch = Stopwatch::start();
        let waited = store.wait(key, &self.cursor, self.until.instant()).is_ok() && watch.elapsed() >= SHORTEST_WAIT;
        if !waited {
            thread::sleep(self.pause);
        }
    }
}

/// What a manager may do.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Look at this: it was recorded meanwhile.
    Found(Record),
    /// Fetch, until then.
    Leased(Deadline),
    /// Wait: another one fetches.
    Busy { remaining: Duration, cursor: Cursor },
}

/// What became of a record that was to be published.
#[derive(Debug)]
pub(crate) enum Published {
    Done(Option<Version>),
    /// Another wrote something that lives longer.
    Lost(Record),
}

impl Sharing {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        key: Key,
        identity: Option<String>,
        fetch_limit: Duration,
        time: Time,
    ) -> Sharing {
        let owner = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let lease = lease_of(fetch_limit);
        let (number, foreign) = (AtomicU64::new(0), Mutex::default());
        let (reported, hung) = (AtomicBool::new(false), Mutex::default());
        Sharing { store, key, identity, owner, lease, time, number, foreign, reported, hung }
    }

    /// Waits first, if that is asked for, until it may be worth to ask. Reads a record other than `not`; when there is
    /// none, asks for the lease.
    pub(crate) fn turn(&self, not: Option<&Version>, wait: Option<Wait>) -> Result<Turn, Error> {
        let limit = match &wait {
            Some(wait) => wait.until.later(OPERATION + LONGEST_OPERATION),
            None => Deadline::within(LONGEST_OPERATION),
        };
        let (key, not, owner, lease, time) =
            (self.key.clone(), not.cloned(), self.owner(), self.lease, self.time.clone());
        // All on one thread aside, because whoever has waited is not to wait for another thread to start.
        let (leasing, leased_until, known_at) = self.ask_until(limit, move |store| {
            if let Some(wait) = wait {
                wait.on(store, &key);
            }
            // Counted from before it is asked for: the store counts from later, so here it ends first.
            let leased_until = Deadline::within(lease.saturating_sub(OPERATION));
            let known_at = time.now();
            let leasing = store.read_or_lease(&key, not.as_ref(), AT_LEAST, &owner, lease)?;
            Ok((leasing, leased_until, known_at))
        })?;
        Ok(match leasing {
            Leasing::Found(entry) => Turn::Found(self.decode(&entry, known_at)),
            Leasing::Leased => Turn::Leased(leased_until),
            Leasing::Busy { remaining, cursor } => Turn::Busy { remaining, cursor },
        })
    }

    /// Has `wake` called when the record changes, if the store can tell.
    pub(crate) fn watch(&self, wake: Wake) -> Option<Watch> {
        catch_panic(|| Ok(self.store.watch(&self.key, wake))).ok()?
    }

    /// True when the log is told of the store's trouble by the store.
    pub(crate) fn logs_its_trouble(&self) -> bool {
        catch_panic(|| Ok(self.store.logs_its_trouble())).unwrap_or_default()
    }

    /// What is recorded. An empty record when nothing is.
    pub(crate) fn look(&self) -> Result<Record, Error> {
        let known_at = self.time.now();
        let key = self.key.clone();
        let entry = self.ask(move |store| store.read(&key))?;
        Ok(entry.map_or_else(Record::default, |entry| self.decode(&entry, known_at)))
    }

    /// Records the outcome of a fetch and frees the lease.
    pub(crate) fn publish(&self, record: &Record) -> Result<Published, Error> {
        let (bytes, life) = self.encode(record);
        let known_at = self.time.now();
        let (key, owner, seen) = (self.key.clone(), self.owner(), record.version.clone());
        Ok(match self.ask(move |store| store.publish(&key, &owner, seen.as_ref(), &bytes, life))? {
            Publish::Done(version) => Published::Done(version),
            Publish::Lost(entry) => Published::Lost(self.decode(&entry, known_at)),
        })
    }

    /// Frees the lease, if it is still this one's, and leaves the record as it is.
    pub(crate) fn release(&self) -> Result<(), Error> {
        let (lease, owner) = (self.key.lease(), self.owner());
        self.ask(move |store| {
            if let Some(held) = store.read(&lease)?.filter(|held| held.bytes() == owner.as_bytes()) {
                store.swap(&lease, Expected::Version(held.version()), None)?;
            }
            Ok(())
        })
    }

    /// Records a failed fetch beside what is known, so that the others answer from it, and frees the lease. `seen` is
    /// what was recorded before the fetch: a token that came since is no failure.
    pub(crate) fn publish_failure(&self, failure: &Failure, seen: Option<&Version>) -> Result<(), Error> {
        // Not published, because what others have recorded meanwhile, a rejection, is to stay.
        let recorded = self.edit(|record| {
            let overtaken = record.token.is_some() && record.version.as_ref() != seen;
            if !overtaken {
                record.failure = Some(failure.clone());
            }
            !overtaken
        });
        recorded.and(self.release())
    }

    /// Records that the token with this fingerprint was rejected, if it is the recorded one or nothing is recorded.
    pub(crate) fn reject(&self, fingerprint: &str, end: Moment) -> Result<(), Error> {
        self.edit(|record| {
            let another = record.token.as_ref().is_some_and(|token| token.fingerprint != fingerprint);
            let known = record.token.is_none() && record.rejects(fingerprint);
            if !another && !known {
                record.forget_token(fingerprint, end, self.time.now());
            }
            !another && !known
        })
    }

    /// Records that nothing is known, and that neither the recorded token nor that of `held` is to be used.
    pub(crate) fn forget(&self, held: Option<(&str, Moment)>) -> Result<(), Error> {
        self.edit(|record| {
            let recorded = record.token.as_ref().map(|token| (token.fingerprint.clone(), token.end()));
            record.failure = None;
            for (fingerprint, end) in recorded.iter().map(|(name, end)| (name.as_str(), *end)).chain(held) {
                record.forget_token(fingerprint, end, self.time.now());
            }
            true
        })
    }

    /// Changes the record, unless `change` says that there is nothing to change.
    fn edit(&self, change: impl Fn(&mut Record) -> bool) -> Result<(), Error> {
        for _ in 0..MOST_EDITS {
            let mut record = self.look()?;
            if !change(&mut record) {
                return Ok(());
            }
            let (bytes, life) = self.encode(&record);
            let (key, seen) = (self.key.clone(), record.version.clone());
            let swap = self.ask(move |store| {
                let expected = seen.as_ref().map_or(Expected::Absent, Expected::Version);
                store.swap(&key, expected, Some((&bytes, life)))
            })?;
            if let Swap::Done(_) = swap {
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Store, "the record changes faster than it can be written"))
    }

    /// Asks the store. A store is code of the user's too, and its trouble is not to become token trouble: it is asked
    /// on a thread aside, and given up when it takes too long.
    fn ask<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&dyn Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.ask_until(Deadline::within(LONGEST_OPERATION), operation)
    }

    fn ask_until<T: Send + 'static>(
        &self,
        deadline: Deadline,
        operation: impl FnOnce(&dyn Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if self.hangs() {
            return Err(Error::new(ErrorKind::Store, "an operation of the shared store has not returned yet"));
        }
        let (store, alive) = (self.store.clone(), Arc::new(()));
        let watched = Arc::downgrade(&alive);
        let done = aside("evertoken-store", deadline, move || {
            let done = catch_panic(|| operation(&*store));
            drop(alive);
            done
        })?;
        let Some(done) = done else {
            *lock(&self.hung) = Some((std::process::id(), watched));
            return Err(Error::new(ErrorKind::Store, "the shared store did not answer in time"));
        };
        done.map_err(|error| match error.kind() {
            ErrorKind::Store => error,
            ErrorKind::Panicked => Error::new(ErrorKind::Store, "the shared store panicked"),
            _ => Error::new(ErrorKind::Store, error.message().to_owned()),
        })
    }

    fn hangs(&self) -> bool {
        // A forked child has its parent's memory, but not its threads.
        let hung = lock(&self.hung);
        hung.as_ref().is_some_and(|(process, alive)| *process == std::process::id() && alive.strong_count() > 0)
    }

    /// A forked child is somebody else.
    fn owner(&self) -> Owner {
        Owner::new(format!("{}-{}", self.owner, std::process::id()))
    }

    fn encode(&self, record: &Record) -> (Zeroizing<Vec<u8>>, Duration) {
        self.number.fetch_max(record.number, Ordering::Relaxed);
        let now = self.time.now();
        let token = record.token.as_ref();
        let remaining = token.map_or(Duration::ZERO, |token| token.remaining.saturating_sub(now.since(token.known_at)));
        let paused = record.failure.as_ref().map_or(Duration::ZERO, |failure| failure.retry_in);
        let kept = remaining.max(paused).max(record.keep).max(SHORTEST_LIFE);
        let wire = Wire {
            v: WIRE_VERSION,
            id: self.identity.clone().unwrap_or_default(),
            access_token: token.map_or_else(String::new, |token| token.secret.expose().to_owned()),
            expires_at: token.map_or(0, |_| epoch_seconds(now.after(remaining))),
            life_ms: token.map_or(0, |token| milliseconds(token.life)),
            left_ms: milliseconds(remaining),
            kept_ms: milliseconds(kept),
            number: record.number,
            rejected: record.rejected.iter().map(|rejected| WireRejected::of(rejected, now)).collect(),
            failure: record.failure.as_ref().map(WireFailure::of),
        };
        (wire.into_bytes(), kept)
    }

    /// The record in `entry`. What cannot be read, or belongs to another credential, is as good as nothing: it keeps
    /// its version, so that it can be replaced.
    fn decode(&self, entry: &Entry, known_at: Moment) -> Record {
        let version = Some(entry.version().clone());
        let record = match &self.identity {
            Some(identity) => Wire::from_bytes(entry.bytes()).filter(|wire| *identity == wire.id),
            None => Wire::from_bytes(entry.bytes()).or_else(|| self.decode_foreign(entry)),
        };
        match record.and_then(|wire| wire.into_record(entry.remaining(), known_at)) {
            Some(record) => {
                self.number.fetch_max(record.number, Ordering::Relaxed);
                Record { version, ..record }
            }
            None => {
                if !self.reported.swap(true, Ordering::Relaxed) {
                    log::warn!(target: "evertoken", "{}: the record in the store cannot be read; it is replaced", self.key);
                }
                Record { version, ..Record::default() }
            }
        }
    }

    /// A record of another program. All that is known of its life is what the store says remains of it.
    fn decode_foreign(&self, entry: &Entry) -> Option<Wire> {
        let Foreign { access_token, v: None, .. } = from_object(entry.bytes())? else { return None };
        let left_ms = milliseconds(entry.remaining()).min(LONGEST_LIFE_MS);
        let mut last = lock(&self.foreign);
        let known = last.as_ref().filter(|(version, _)| version == entry.version()).map(|(_, number)| *number);
        let number = known.unwrap_or_else(|| next_number(self.number.load(Ordering::Relaxed)));
        *last = Some((entry.version().clone(), number));
        let (life_ms, kept_ms) = (left_ms, milliseconds(entry.remaining()));
        Some(Wire { access_token, life_ms, left_ms, kept_ms, number, ..Wire::default() })
    }
}

impl RecordedToken {
    pub(crate) fn end(&self) -> Moment {
        self.known_at.after(self.remaining)
    }
}

impl Record {
    pub(crate) fn rejects(&self, fingerprint: &str) -> bool {
        self.rejected.iter().any(|rejected| rejected.fingerprint == fingerprint)
    }

    fn forget_token(&mut self, fingerprint: &str, end: Moment, now: Moment) {
        self.keep = self.keep.max(now.until(end));
        if self.token.as_ref().is_some_and(|token| token.fingerprint == fingerprint) {
            self.token = None;
        }
        self.reject(fingerprint, end);
    }

    pub(crate) fn reject(&mut self, fingerprint: &str, end: Moment) {
        if !self.rejects(fingerprint) {
            self.rejected.push(RejectedToken { fingerprint: fingerprint.to_owned(), end });
        }
        let surplus = self.rejected.len().saturating_sub(MOST_REJECTED);
        self.rejected.drain(..surplus);
    }
}

/// The time a lease is for: one whole fetch, an operation of the store before and after, and something for the road.
pub(crate) fn lease_of(fetch_limit: Duration) -> Duration {
    fetch_limit.saturating_add(2 * OPERATION).saturating_add(Duration::from_secs(1))
}

/// The number of the token that is granted after the one with this number.
pub(crate) fn next_number(number: u64) -> u64 {
    (number + 1) % HIGHEST_NUMBER
}

/// How long an operation of the store may take.
pub(crate) const OPERATION: Duration = Duration::from_millis(500);

/// How long an operation is waited for: a busy machine gets some grace.
const LONGEST_OPERATION: Duration = Duration::from_secs(1);

/// A wait that is over sooner was none.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

/// A record that has less left is not worth reading.
const AT_LEAST: Duration = Duration::from_millis(10);

/// How many rejected tokens a record remembers.
pub(crate) const MOST_REJECTED: usize = 4;

/// Stores have no life of zero.
const SHORTEST_LIFE: Duration = Duration::from_millis(1);

const MOST_EDITS: usize = 8;

const WIRE_VERSION: u8 = 1;

/// A record as it is stored. `access_token` and `expires_at` are what programs built on other formats look for: with no
/// token they read an empty one that has ended, and fetch.
#[derive(Default, Serialize, Deserialize)]
struct Wire {
    v: u8,
    id: String,
    access_token: String,
    /// Seconds since 1970 by the writer's wall clock. Not read here: no two hosts' clocks are compared.
    expires_at: u64,
    /// The token's whole life.
    life_ms: u64,
    /// What was left of it when this was written.
    left_ms: u64,
    /// How long this is kept from then on; what the store says remains of it tells how long ago that was.
    kept_ms: u64,
    #[serde(default)]
    number: u64,
    #[serde(default)]
    rejected: Vec<WireRejected>,
    #[serde(default)]
    failure: Option<WireFailure>,
}

/// What other programs record under a key of the user's own: the token, and when it is over by their clock.
#[derive(Deserialize)]
struct Foreign {
    access_token: String,
    #[expect(dead_code, reason = "it has to be there, but no two hosts' clocks are compared")]
    expires_at: i64,
    /// A record of this crate's that cannot be read is no other program's.
    #[serde(default)]
    v: Option<IgnoredAny>,
}

#[derive(Serialize, Deserialize)]
struct WireRejected {
    token: String,
    left_ms: u64,
}

impl WireRejected {
    fn of(rejected: &RejectedToken, now: Moment) -> WireRejected {
        WireRejected { token: rejected.fingerprint.clone(), left_ms: milliseconds(now.until(rejected.end)) }
    }
}

#[derive(Serialize, Deserialize)]
struct WireFailure {
    kind: ErrorKind,
    message: String,
    code: Option<String>,
    status: Option<u16>,
    retry_ms: u64,
    count: u32,
}

impl Wire {
    fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        // Strings and numbers only: there is nothing in it that JSON cannot hold.
        let bytes = serde_json::to_vec(&self).unwrap_or_default();
        drop(Zeroizing::new(self.access_token));
        Zeroizing::new(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Wire> {
        let wire: Wire = from_object(bytes)?;
        let sound = wire.v == WIRE_VERSION && wire.life_ms <= LONGEST_LIFE_MS && wire.left_ms <= wire.life_ms;
        sound.then_some(wire)
    }

    /// `None` when more remains of it than it was given: then nobody can tell how old it is.
    fn into_record(self, remaining: Duration, known_at: Moment) -> Option<Record> {
        let kept = Duration::from_millis(self.kept_ms);
        if remaining > kept.saturating_add(ROUNDED) {
            return None;
        }
        let age = kept.saturating_sub(remaining);
        let left =
            |milliseconds| Some(Duration::from_millis(milliseconds).saturating_sub(age)).filter(|l| !l.is_zero());
        let secret = Secret::new(self.access_token);
        let token = left(self.left_ms).filter(|_| check_text(&secret).is_ok()).map(|remaining| RecordedToken {
            fingerprint: secret.fingerprint(),
            life: Duration::from_millis(self.life_ms),
            remaining,
            known_at,
            secret,
        });
        let failure = self.failure.and_then(|failure| {
            let retry_in = left(failure.retry_ms.min(milliseconds(LONGEST_PAUSE)))?;
            Some(Failure { error: failure.to_error(), retry_in, count: failure.count })
        });
        let rejected = self.rejected.into_iter().rev().take(MOST_REJECTED).rev().map(|rejected| {
            let left = Duration::from_millis(rejected.left_ms.min(LONGEST_LIFE_MS)).saturating_sub(age);
            RejectedToken { fingerprint: rejected.token, end: known_at.after(left) }
        });
        let rejected = rejected.collect();
        // One that high is not counted but made up, and would leave no room for higher ones.
        let number = if self.number >= HIGHEST_NUMBER { 0 } else { self.number };
        Some(Record { token, rejected, failure, number, keep: remaining, version: None })
    }
}

impl WireFailure {
    fn of(failure: &Failure) -> WireFailure {
        let error = &failure.error;
        WireFailure {
            kind: error.kind(),
            message: error.message().to_owned(),
            code: error.code().map(str::to_owned),
            status: error.status(),
            retry_ms: milliseconds(failure.retry_in),
            count: failure.count,
        }
    }

    /// The text comes from a store that others can write, so it is kept short and printable.
    fn to_error(&self) -> Error {
        let message: String = self.message.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE).collect();
        let mut error = Error::new(self.kind, message);
        if let Some(code) = &self.code {
            error = error.with_code(code);
        }
        match self.status {
            Some(status) => error.with_status(status),
            None => error,
        }
    }
}

/// Only a JSON object: serde would take an array of the fields as well.
fn from_object<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let is_object = bytes.len() <= LARGEST_RECORD && bytes.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(bytes).ok())?
}

const LARGEST_RECORD: usize = 64 * 1024;
/// What a time in a record may be shorter than it was.
const ROUNDED: Duration = Duration::from_millis(1);

const HIGHEST_NUMBER: u64 = 1 << 53;
const LONGEST_LIFE_MS: u64 = 30 * 86_400 * 1_000;
const LONGEST_MESSAGE: usize = 200;

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn epoch_seconds(moment: Moment) -> u64 {
    moment.wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
