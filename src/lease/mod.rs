//! One credential's record in a shared store: who may fetch, and what all have of it.

mod beside;
mod wire;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

pub(crate) use beside::{Counted, DAY, Found, Kept, Place, StateTurn};

use self::wire::{
    Foreign, HIGHEST_NUMBER, StateMark, WIRE_VERSION, Wire, WireFailure, WireRejected, epoch_seconds, from_object,
};
use crate::clock::{Deadline, Notifier, Stopwatch, Time, Timestamp, milliseconds};
use crate::error::{Error, ErrorKind, catch_panic};
use crate::key::Key;
use crate::lock::lock;
use crate::name::unique_name;
use crate::policy::{Lifetime, MAX_LIFETIME};
use crate::secret::Secret;
use crate::store::{
    Cursor, Entry, Expected, LeaseOutcome, LeaseOwner, PublishOutcome, Store, Subscription, SwapOutcome, TimeoutStore,
    Version,
};

/// The part of a manager that talks with the others that hold the same credential.
#[derive(Debug)]
pub(crate) struct Sharing {
    store: TimeoutStore,
    key: Key,
    /// Recorded with the token and compared on reading, so that no mix-up of keys or connections hands out another
    /// credential's token. `None` for a key of the user's own.
    identity: Option<String>,
    owner: String,
    lease: Duration,
    time: Time,
    /// The highest number of a token that was seen or written here.
    number: AtomicU64,
    /// Whose the provider's state is, when it has one that is used up by being used.
    state_of: Option<String>,
    /// The number of the latest such state that is known of. It is recorded with every token, so that whoever finds an
    /// older one knows that it is used up.
    state: Arc<AtomicU64>,
    /// The last record of another program, and the number that it was given here: it has none of its own, and came
    /// after whatever was there before.
    foreign: Mutex<Option<(Version, u64)>>,
    /// Whether an unreadable record has been reported.
    reported: AtomicBool,
    /// Whether this stands in for the first store while that is down, and if so, whether it is down as well.
    stands_in: Option<AtomicBool>,
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
    pub(crate) life: Lifetime,
    /// What was left of it at `known_at`.
    pub(crate) remaining: Duration,
    pub(crate) known_at: Timestamp,
}

/// A token that must not be used. Its end is kept, because the provider may give it again and tell a whole life.
#[derive(Clone, Debug)]
pub(crate) struct RejectedToken {
    pub(crate) fingerprint: String,
    pub(crate) end: Timestamp,
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
        state_of: Option<String>,
        fetch_limit: Duration,
        time: Time,
    ) -> Sharing {
        // Where the system has no random numbers those that a program can seed have to do.
        let owner = unique_name().unwrap_or_else(|_| format!("{:032x}", fastrand::u128(..)));
        let lease = lease_of(fetch_limit);
        let (number, state, foreign) = (AtomicU64::new(0), Arc::default(), Mutex::default());
        let (store, reported) = (TimeoutStore::new(store, LONGEST_OPERATION), AtomicBool::new(false));
        let stands_in = None;
        Sharing { store, key, identity, owner, lease, time, number, state_of, state, foreign, reported, stands_in }
    }

    /// The same, as a second store that stands in while the first is down. What either knows of the state is one.
    pub(crate) fn standing_in_for(self, first: &Sharing) -> Sharing {
        let (state_of, state) = (first.state_of.clone(), first.state.clone());
        Sharing { state_of, state, stands_in: Some(AtomicBool::new(false)), ..self }
    }

    /// Checks the store, and that the record of this credential can be read.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.store.check(&self.key)
    }

    /// True when this stands in while the first store is down.
    pub(crate) fn stands_in(&self) -> bool {
        self.stands_in.is_some()
    }

    /// Logs, once per change, whether a store that stands in works.
    pub(crate) fn log_stand_in(&self, trouble: Option<&Error>) {
        let Some(down) = &self.stands_in else { return };
        match trouble {
            Some(error) if !down.swap(true, Ordering::Relaxed) => {
                log::warn!(target: "evertoken", "{}: the fallback store cannot be used: {error}", self.key);
            }
            None if down.swap(false, Ordering::Relaxed) => {
                log::info!(target: "evertoken", "{}: the fallback store works again", self.key);
            }
            _ => {}
        }
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
        let (leasing, leased_until, known_at) = self.store.run_until(limit, move |store| {
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
            LeaseOutcome::Found(entry) => Turn::Found(self.decode(&entry, known_at)),
            LeaseOutcome::Leased => Turn::Leased(leased_until),
            LeaseOutcome::Busy { remaining, cursor } => Turn::Busy { remaining, cursor },
        })
    }

    /// Calls `notifier` when the record changes, if the store can tell.
    pub(crate) fn watch(&self, notifier: Notifier) -> Option<Subscription> {
        catch_panic(|| Ok(self.store.store().watch(&self.key, notifier))).ok()?
    }

    /// True when the log is told of the store's trouble by the store.
    pub(crate) fn logs_outages(&self) -> bool {
        catch_panic(|| Ok(self.store.store().logs_outages())).unwrap_or_default()
    }

    /// What is recorded, if the store can tell it without any waiting.
    pub(crate) fn look_at_once(&self) -> Option<Record> {
        let known_at = self.time.now();
        let entry = catch_panic(|| Ok(self.store.store().read_at_once(&self.key))).ok()??;
        Some(self.decode(&entry, known_at))
    }

    /// What is recorded. An empty record when nothing is.
    pub(crate) fn look(&self) -> Result<Record, Error> {
        let known_at = self.time.now();
        let entry = self.read(&self.key)?;
        Ok(entry.map_or_else(Record::default, |entry| self.decode(&entry, known_at)))
    }

    /// Records the outcome of a fetch and frees the lease.
    pub(crate) fn publish(&self, record: &Record) -> Result<Published, Error> {
        let encoded = self.encode(record);
        let (key, owner, seen, time) = (self.key.clone(), self.owner(), record.version.clone(), self.time.clone());
        let published = self.store.run(move |store| {
            let known_at = time.now();
            let published = store.publish(&key, &owner, seen.as_ref(), &encoded.bytes, encoded.rest(known_at))?;
            Ok((published, known_at))
        })?;
        Ok(match published {
            (PublishOutcome::Done(version), _) => Published::Done(version),
            (PublishOutcome::Conflict(entry), known_at) => Published::Lost(self.decode(&entry, known_at)),
        })
    }

    /// Frees the lease, if it is still this one's, and leaves the record as it is.
    pub(crate) fn release(&self) -> Result<(), Error> {
        let (lease, owner) = (self.key.lease(), self.owner());
        self.store.run(move |store| {
            if let Some(held) = store.read(&lease)?.filter(|held| held.bytes() == owner.as_bytes()) {
                store.compare_and_swap(&lease, Expected::Version(held.version()), None)?;
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

    /// Records that the token with this fingerprint was rejected, if it is the recorded one or nothing is recorded. What
    /// stands in keeps it beside another token as well: the first store may have the rejected one, and is told later.
    pub(crate) fn reject(&self, fingerprint: &str, end: Timestamp) -> Result<(), Error> {
        self.edit(|record| {
            let is_recorded = record.token.as_ref().is_some_and(|token| token.fingerprint == fingerprint);
            let concerns = record.token.is_none() || self.stands_in();
            let is_news = is_recorded || concerns && !record.rejects(fingerprint);
            if is_news {
                record.forget_token(fingerprint, end, self.time.now());
            }
            is_news
        })
    }

    /// Records that nothing is known, and that neither the recorded token nor that of `held` is to be used.
    pub(crate) fn forget(&self, held: Option<(&str, Timestamp)>) -> Result<(), Error> {
        self.edit(|record| {
            let recorded = record.token.as_ref().map(|token| (token.fingerprint.clone(), token.end()));
            record.failure = None;
            for (fingerprint, end) in recorded.iter().map(|(name, end)| (name.as_str(), *end)).chain(held) {
                record.forget_token(fingerprint, end, self.time.now());
            }
            true
        })
    }

    /// Writes a record in the place of the version that it has. Returns the new version; `None`: another one is there.
    pub(crate) fn put(&self, record: &Record) -> Result<Option<Version>, Error> {
        Ok(match self.replace(&self.key, record.version.as_ref(), self.encode(record))? {
            SwapOutcome::Done(version) => version,
            SwapOutcome::Conflict(_) => None,
        })
    }

    /// Removes a record, if it is still this one.
    pub(crate) fn remove(&self, version: &Version) -> Result<(), Error> {
        let (key, version) = (self.key.clone(), version.clone());
        self.store.run(move |store| store.compare_and_swap(&key, Expected::Version(&version), None).map(drop))
    }

    /// Records that a failure of this kind is over.
    pub(crate) fn forget_failure(&self, kind: ErrorKind) -> Result<(), Error> {
        self.edit(|record| record.failure.take_if(|failure| failure.error.kind() == kind).is_some())
    }

    /// Changes the record, unless `change` says that there is nothing to change.
    fn edit(&self, change: impl Fn(&mut Record) -> bool) -> Result<(), Error> {
        for _ in 0..MOST_EDITS {
            let mut record = self.look()?;
            if !change(&mut record) {
                return Ok(());
            }
            if let SwapOutcome::Done(_) = self.replace(&self.key, record.version.as_ref(), self.encode(&record))? {
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Store, "other processes change the record faster than it can be written"))
    }

    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let key = key.clone();
        self.store.run(move |store| store.read(&key))
    }

    /// Writes in the place of what was seen; `None`: of nothing.
    fn replace(&self, key: &Key, seen: Option<&Version>, new: Encoded) -> Result<SwapOutcome, Error> {
        self.replace_within(LONGEST_OPERATION, key, seen, new)
    }

    fn replace_within(
        &self,
        limit: Duration,
        key: &Key,
        seen: Option<&Version>,
        new: Encoded,
    ) -> Result<SwapOutcome, Error> {
        let (key, seen, time) = (key.clone(), seen.cloned(), self.time.clone());
        self.store.run_until(Deadline::within(limit), move |store| {
            let expected = seen.as_ref().map_or(Expected::Absent, Expected::Version);
            store.compare_and_swap(&key, expected, Some((&new.bytes, new.rest(time.now()))))
        })
    }

    /// A forked child is somebody else.
    fn owner(&self) -> LeaseOwner {
        LeaseOwner::new(format!("{}-{}", self.owner, std::process::id()))
    }

    fn encode(&self, record: &Record) -> Encoded {
        self.number.fetch_max(record.number, Ordering::Relaxed);
        let now = self.time.now();
        let token = record.token.as_ref();
        let remaining = token.map_or(Duration::ZERO, |token| token.remaining.saturating_sub(now.since(token.known_at)));
        let paused = record.failure.as_ref().map_or(Duration::ZERO, |failure| failure.retry_in);
        let kept = remaining.max(paused).max(record.keep).max(SHORTEST_LIFETIME);
        let wire = Wire {
            v: WIRE_VERSION,
            id: self.identity.clone().unwrap_or_default(),
            access_token: token.map_or_else(String::new, |token| token.secret.expose().to_owned()),
            expires_at: token.map_or(0, |_| epoch_seconds(now.after(remaining))),
            life_ms: token.map_or(0, |token| milliseconds(token.life.total)),
            left_ms: milliseconds(remaining),
            renew_ms: token.and_then(|token| token.life.refresh_in).map(milliseconds),
            kept_ms: milliseconds(kept),
            number: record.number,
            state: self.state_of.clone().map(|of| StateMark { of, number: self.state_number() }),
            rejected: record.rejected.iter().map(|rejected| WireRejected::of(rejected, now)).collect(),
            failure: record.failure.as_ref().map(WireFailure::of),
        };
        Encoded { bytes: wire.into_bytes(), life: kept, at: now }
    }

    /// The record in `entry`. What cannot be read, or belongs to another credential, is as good as nothing: it keeps
    /// its version, so that it can be replaced.
    fn decode(&self, entry: &Entry, known_at: Timestamp) -> Record {
        let version = Some(entry.version().clone());
        let record = match &self.identity {
            Some(identity) => Wire::from_bytes(entry.bytes()).filter(|wire| *identity == wire.id),
            None => Wire::from_bytes(entry.bytes()).or_else(|| self.decode_foreign(entry)),
        };
        let mark = record.as_ref().and_then(|wire| wire.state.as_ref());
        if let Some(mark) = mark.filter(|mark| Some(&mark.of) == self.state_of.as_ref()) {
            self.note_state(mark.number.min(HIGHEST_NUMBER));
        }
        match record.and_then(|wire| wire.into_record(entry.remaining(), known_at)) {
            Some(record) => {
                self.number.fetch_max(record.number, Ordering::Relaxed);
                Record { version, ..record }
            }
            None => {
                if !self.reported.swap(true, Ordering::Relaxed) {
                    log::warn!(target: "evertoken", "{}: the record in the store cannot be read and is replaced", self.key);
                }
                Record { version, ..Record::default() }
            }
        }
    }

    /// A record of another program. All that is known of its life is what the store says remains of it.
    fn decode_foreign(&self, entry: &Entry) -> Option<Wire> {
        let Foreign { access_token, v: None, .. } = from_object(entry.bytes())? else { return None };
        let left_ms = milliseconds(entry.remaining().min(MAX_LIFETIME));
        let mut last = lock(&self.foreign);
        let known = last.as_ref().filter(|(version, _)| version == entry.version()).map(|(_, number)| *number);
        let number = known.unwrap_or_else(|| next_number(self.number.load(Ordering::Relaxed)));
        *last = Some((entry.version().clone(), number));
        let (life_ms, kept_ms) = (left_ms, milliseconds(entry.remaining()));
        Some(Wire { access_token, life_ms, left_ms, kept_ms, number, ..Wire::default() })
    }
}

/// What is to be stored, and for how long from when on.
struct Encoded {
    bytes: Zeroizing<Vec<u8>>,
    life: Duration,
    at: Timestamp,
}

impl Encoded {
    /// What is left of the life: whoever is stopped on the way to the store must not give more than there is.
    fn rest(&self, now: Timestamp) -> Duration {
        self.life.saturating_sub(now.since(self.at)).max(SHORTEST_LIFETIME)
    }
}

impl RecordedToken {
    pub(crate) fn end(&self) -> Timestamp {
        self.known_at.after(self.remaining)
    }
}

impl Record {
    pub(crate) fn rejects(&self, fingerprint: &str) -> bool {
        self.rejected.iter().any(|rejected| rejected.fingerprint == fingerprint)
    }

    /// Adds what another record rejects and is not over. True when there is anything that was not known here.
    pub(crate) fn take_rejections_of(&mut self, other: &Record, now: Timestamp) -> bool {
        let is_news = |rejected: &&RejectedToken| !now.reaches(rejected.end) && !self.rejects(&rejected.fingerprint);
        let news: Vec<_> = other.rejected.iter().filter(is_news).collect();
        for rejected in &news {
            self.forget_token(&rejected.fingerprint, rejected.end, now);
        }
        !news.is_empty()
    }

    fn forget_token(&mut self, fingerprint: &str, end: Timestamp, now: Timestamp) {
        self.keep = self.keep.max(now.until(end));
        if self.token.as_ref().is_some_and(|token| token.fingerprint == fingerprint) {
            self.token = None;
        }
        self.reject(fingerprint, end);
    }

    pub(crate) fn reject(&mut self, fingerprint: &str, end: Timestamp) {
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

/// How long one is waited for: a busy machine gets some grace.
const LONGEST_OPERATION: Duration = Duration::from_secs(1);

/// A wait that is over sooner was none.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

/// A record that has less left is not worth reading.
const AT_LEAST: Duration = Duration::from_millis(10);

/// How many rejected tokens a record remembers.
pub(crate) const MOST_REJECTED: usize = 4;

/// Stores have no life of zero.
const SHORTEST_LIFETIME: Duration = Duration::from_millis(1);

const MOST_EDITS: usize = 8;
