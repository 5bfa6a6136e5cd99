//! What is kept beside a record: the provider's state, and what was counted of its quota.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::wire::{HIGHEST_NUMBER, WIRE_VERSION, from_object};
use super::{Encoded, LONGEST_OPERATION, MOST_EDITS, SHORTEST_LIFETIME, Sharing};
use crate::clock::{Timestamp, milliseconds};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::secret::Secret;
use crate::store::{Entry, Expected, SwapOutcome, Version};

/// Where something is kept, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) key: Key,
    /// Stored with it and compared on reading, as with a record.
    pub(crate) identity: String,
}

/// A state, as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) secret: Secret,
    /// Counts the states that came one after the other.
    pub(crate) number: u64,
    pub(crate) since: Timestamp,
    pub(crate) end: Timestamp,
}

/// What stands where a state belongs, and its version.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    State(Kept, Version),
    /// Something else, or a state of a later version of this crate.
    Unreadable(Version),
}

/// The turn to use a state, which one alone has.
#[derive(Debug)]
pub(crate) struct StateTurn {
    lock: Key,
    version: Option<Version>,
}

/// The calls of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) calls: u32,
    pub(crate) forced: u32,
    /// None may be forced before then, from the first call on.
    pub(crate) quiet_until: Duration,
}

impl Sharing {
    pub(crate) fn read_state(&self, place: &Place) -> Result<Found, Error> {
        let known_at = self.time.now();
        let entry = self.read(&place.key)?;
        Ok(self.found(entry, place, known_at))
    }

    /// Stores a state in the place of what is `expected`; `None`: of nothing. Returns its version, or what stands there
    /// instead.
    pub(crate) fn write_state(
        &self,
        place: &Place,
        state: &Kept,
        expected: Option<&Version>,
    ) -> Result<Result<Option<Version>, Found>, Error> {
        let known_at = self.time.now();
        let life = known_at.until(state.end).max(SHORTEST_LIFETIME);
        let bytes = WireState::bytes(place, state, life + known_at.since(state.since));
        let new = Encoded { bytes, life, at: known_at };
        // The token that came with it may be used at once, and whoever ends then without having stored it has lost it.
        Ok(match self.replace_within(LONGEST_STATE_WRITE, &place.key, expected, new)? {
            SwapOutcome::Done(version) => {
                self.note_state(state.number);
                Ok(version)
            }
            SwapOutcome::Conflict(entry) => Err(self.found(entry, place, known_at)),
        })
    }

    fn found(&self, entry: Option<Entry>, place: &Place, known_at: Timestamp) -> Found {
        let Some(entry) = entry else { return Found::Nothing };
        match WireState::kept(&entry, place, known_at) {
            Some(kept) => {
                self.note_state(kept.number);
                Found::State(kept, entry.version().clone())
            }
            None => Found::Unreadable(entry.version().clone()),
        }
    }

    /// The number of the latest state that is known of, here or from what others have recorded.
    pub(crate) fn state_number(&self) -> u64 {
        self.state.load(Ordering::Relaxed)
    }

    pub(crate) fn note_state(&self, number: u64) {
        self.state.fetch_max(number, Ordering::Relaxed);
    }

    /// Takes the turn to use a state for a fetch that takes `limit` at most. `None`: another has it. Asking again gives it
    /// again, for the answer may have been lost.
    pub(crate) fn take_state(&self, place: &Place, limit: Duration) -> Result<Option<StateTurn>, Error> {
        let (lock, owner) = (place.key.lease(), self.owner());
        // It is ended when what came of the fetch is stored, for which there is time to look and to write.
        let lease = limit.saturating_add(LONGEST_OPERATION).saturating_add(LONGEST_STATE_WRITE);
        let asked = lock.clone();
        let swap = self.store.run(move |store| {
            let mine = Some((owner.as_bytes(), lease));
            match store.compare_and_swap(&asked, Expected::Absent, mine)? {
                SwapOutcome::Conflict(Some(held)) if held.bytes() == owner.as_bytes() => {
                    store.compare_and_swap(&asked, Expected::Version(held.version()), mine)
                }
                swap => Ok(swap),
            }
        })?;
        Ok(match swap {
            SwapOutcome::Done(version) => Some(StateTurn { lock, version }),
            SwapOutcome::Conflict(_) => None,
        })
    }

    /// Ends a turn. Left alone it runs out.
    pub(crate) fn end_turn(&self, turn: StateTurn) -> Result<(), Error> {
        self.store.run(move |store| {
            let expected = turn.version.as_ref().map_or(Expected::Any, Expected::Version);
            store.compare_and_swap(&turn.lock, expected, None).map(drop)
        })
    }

    /// Counts a call in the day that began with the first one, if `admit` lets it: it gets what was counted and how
    /// long the day has lasted. Returns what it returns, what is counted now, and how long the day has lasted.
    pub(crate) fn count<T>(
        &self,
        place: &Place,
        admit: impl Fn(&mut Counted, Duration) -> Result<T, Error>,
    ) -> Result<(Result<T, Error>, Counted, Duration), Error> {
        for _ in 0..MOST_EDITS {
            let entry = self.read(&place.key)?;
            let known_at = self.time.now();
            let (before, passed) = entry.as_ref().and_then(|entry| WireCount::of(entry, place)).unwrap_or_default();
            let (before, passed) = before.on_the_day(passed);
            let mut counted = before;
            let admitted = admit(&mut counted, passed);
            if counted == before {
                return Ok((admitted, counted, passed));
            }
            let (bytes, life) = WireCount::bytes(place, counted, passed);
            let new = Encoded { bytes, life, at: known_at };
            let swap = self.replace(&place.key, entry.as_ref().map(Entry::version), new)?;
            if let SwapOutcome::Done(_) = swap {
                return Ok((admitted, counted, passed));
            }
        }
        Err(changes_too_fast())
    }
}

impl Counted {
    /// What counts when so much has passed since the day began, and how long the day that counts has lasted: a new one
    /// begins with the next call.
    pub(crate) fn on_the_day(self, passed: Duration) -> (Counted, Duration) {
        if passed < DAY {
            return (self, passed);
        }
        (Counted { quiet_until: self.quiet_until.saturating_sub(passed), ..Counted::default() }, Duration::ZERO)
    }
}

fn changes_too_fast() -> Error {
    Error::new(
        ErrorKind::Store,
        "other processes change the refresh token, ticket or quota faster than it can be written",
    )
}

#[derive(Serialize, Deserialize)]
struct WireState {
    v: u8,
    id: String,
    state: String,
    number: u64,
    /// Its whole life; what the store says remains of it tells how old it is.
    life_ms: u64,
}

impl WireState {
    fn bytes(place: &Place, state: &Kept, life: Duration) -> Zeroizing<Vec<u8>> {
        let (id, state, number) = (place.identity.clone(), state.secret.expose().to_owned(), state.number);
        let wire = WireState { v: WIRE_VERSION, id, state, number, life_ms: milliseconds(life) };
        // Strings and numbers only: there is nothing in it that JSON cannot hold.
        let bytes = Zeroizing::new(serde_json::to_vec(&wire).unwrap_or_default());
        drop(Zeroizing::new(wire.state));
        bytes
    }

    fn kept(entry: &Entry, place: &Place, known_at: Timestamp) -> Option<Kept> {
        let wire: WireState = from_object(entry.bytes())?;
        let secret = Secret::new(wire.state);
        let whole = Duration::from_millis(wire.life_ms);
        // A store whose clock was set says more at times; it is no younger for that.
        let remaining = entry.remaining().min(whole);
        let sound = wire.v == WIRE_VERSION && wire.id == place.identity && wire.number < HIGHEST_NUMBER;
        sound.then(|| Kept {
            secret,
            number: wire.number,
            since: known_at.before(whole.saturating_sub(remaining)),
            end: known_at.after(remaining),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct WireCount {
    v: u8,
    id: String,
    calls: u32,
    forced: u32,
    quiet_ms: u64,
    /// How long this is kept from the beginning of the day.
    kept_ms: u64,
}

impl WireCount {
    /// What was counted, and how long ago the day began.
    fn of(entry: &Entry, place: &Place) -> Option<(Counted, Duration)> {
        let wire: WireCount = from_object(entry.bytes())?;
        let counted =
            Counted { calls: wire.calls, forced: wire.forced, quiet_until: Duration::from_millis(wire.quiet_ms) };
        let passed = Duration::from_millis(wire.kept_ms).saturating_sub(entry.remaining());
        let sound = wire.v == WIRE_VERSION && wire.id == place.identity && wire.kept_ms <= 2 * milliseconds(DAY);
        sound.then_some((counted, passed))
    }

    /// The note, and how long it is to be kept: for the day, and beyond it as long as nothing may be forced.
    fn bytes(place: &Place, counted: Counted, passed: Duration) -> (Zeroizing<Vec<u8>>, Duration) {
        let kept = DAY.max(counted.quiet_until).min(2 * DAY);
        let wire = WireCount {
            v: WIRE_VERSION,
            id: place.identity.clone(),
            calls: counted.calls,
            forced: counted.forced,
            quiet_ms: milliseconds(counted.quiet_until),
            kept_ms: milliseconds(kept),
        };
        let life = kept.saturating_sub(passed).max(SHORTEST_LIFETIME);
        (Zeroizing::new(serde_json::to_vec(&wire).unwrap_or_default()), life)
    }
}

/// How long a state that is written is waited for. Some disks take their time.
const LONGEST_STATE_WRITE: Duration = Duration::from_secs(2);

/// What quotas are counted in.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
