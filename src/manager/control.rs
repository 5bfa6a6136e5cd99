//! What a manager knows: memory only, no I/O, no clock of its own.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::{Deadline, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::event::TokenOrigin;
use crate::in_flight::InFlight;
use crate::lease::{MOST_REJECTED, StateTurn};
use crate::manager::quota::Day;
use crate::manager::state::HeldState;
use crate::policy::{Lifetime, Phase, Schedule};
use crate::store::{Subscription, Version};
use crate::token::Token;

/// Everything about one credential that changes. It stands under one lock, which is held for memory only.
#[derive(Default)]
pub(crate) struct Control {
    pub(crate) held: Option<Held>,
    /// The last token that was held, by name: to know it again when the provider gives it again.
    pub(crate) last: Option<Known>,
    /// Its number among the tokens in the shared store.
    pub(crate) number: u64,
    pub(crate) pause: Option<Pause>,
    pub(crate) poll: Option<Poll>,
    /// When a renewal is tried again that found another one fetching.
    pub(crate) come_back_at: Option<Timestamp>,
    /// Fetches that failed in a row.
    pub(crate) failures: u32,
    pub(crate) last_error: Option<(Error, Timestamp)>,
    pub(crate) rejected: Vec<Rejected>,
    /// All rejections so far; the number is the name of one.
    pub(crate) rejections: u64,
    /// Rejections, in a row, of tokens that had hardly been granted.
    pub(crate) young_rejections: u32,
    /// When the last of them was.
    pub(crate) young_at: Option<Timestamp>,
    /// A token that was granted again after its rejection, and until when further rejections of it are ignored.
    pub(crate) granted_again: Option<(String, Timestamp)>,
    pub(crate) flight: Option<Arc<InFlight<Landed>>>,
    /// Flights that were given up and may still be flying.
    pub(crate) lost: Vec<Weak<InFlight<Landed>>>,
    /// Counts invalidations: what a flight brings that started before one is not kept.
    pub(crate) generation: u64,
    /// Counts tokens that differ from the one before.
    pub(crate) tokens: u64,
    /// When a forced refresh was last carried out.
    pub(crate) forced_at: Option<Timestamp>,
    pub(crate) store: StoreState,
    /// What the provider needs besides its settings.
    pub(crate) state: Option<HeldState>,
    /// A turn to use the state that is kept because what came of it is not stored yet.
    pub(crate) turn: Option<StateTurn>,
    /// Counts the tickets that were handed in.
    pub(crate) tickets: u64,
    /// A token of the parent's that was refused although it was new.
    pub(crate) parent_refused: Option<String>,
    /// What was counted of its quota.
    pub(crate) day: Option<Day>,
    pub(crate) report_at: Option<Timestamp>,
    pub(crate) shut_down: bool,
    /// The last handle is gone.
    pub(crate) retired: bool,
}

/// The token that is held, and its course.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) token: Token,
    pub(crate) schedule: Schedule,
    /// Its whole life, as far as it was told.
    pub(crate) life: Lifetime,
    pub(crate) source: TokenOrigin,
    pub(crate) since: Timestamp,
    /// Its number among the tokens in the shared store: the higher, the later it was granted.
    pub(crate) number: u64,
    /// Its record in the shared store. `None`: not recorded yet, or there is no store.
    pub(crate) version: Option<Version>,
    /// The record that it is later than for certain: its own, or that of the token before it.
    pub(crate) base: Option<Version>,
    /// The cache's reads when it came: more hits mean that it is in use.
    pub(crate) hits: u64,
    /// Handed out to a caller that waited.
    pub(crate) taken: bool,
}

/// A token by name, and its end: the provider may give it again and tell a whole life.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) fingerprint: String,
    pub(crate) end: Timestamp,
}

/// Why the provider is left alone for a while.
pub(crate) struct Pause {
    pub(crate) until: Timestamp,
    /// `None`: nothing failed, but it would only give the same token again.
    pub(crate) error: Option<Error>,
}

/// The provider has not replaced a token that is over; callers wait, and one of them asks again then.
pub(crate) struct Poll {
    pub(crate) at: Deadline,
    pub(crate) pause: Duration,
}

/// A token that must not be used.
pub(crate) struct Rejected {
    pub(crate) fingerprint: String,
    pub(crate) end: Timestamp,
    pub(crate) number: u64,
    /// Nobody refused it. It was forgotten, and the others could not be told: the provider may give it again.
    pub(crate) forgotten: bool,
}

/// How it stands with the shared store.
#[derive(Default)]
pub(crate) struct StoreState {
    pub(crate) down: Option<Down>,
    /// When the record is to be read again. `None`: at the next use.
    pub(crate) look_at: Option<Timestamp>,
    /// The cache's reads when it was read last.
    pub(crate) hits: u64,
    /// When this manager last fetched without the store.
    pub(crate) unshared_at: Option<Timestamp>,
    /// The record has changed, and was not read since.
    pub(crate) news: bool,
    /// Tells of that, in the process that began it.
    pub(crate) watch: Option<(u32, Subscription)>,
}

impl StoreState {
    /// True when there is something to read, and a store to read it from.
    pub(crate) fn has_news(&self) -> bool {
        self.news && self.down.is_none()
    }
}

/// The store cannot be used.
pub(crate) struct Down {
    pub(crate) since: Timestamp,
    /// What it failed with last.
    pub(crate) error: Error,
    pub(crate) failures: u32,
    /// Not before then is it tried again.
    pub(crate) retry_at: Timestamp,
}

/// Why a flight is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A caller needs a token.
    Need,
    /// The held token is due.
    Ahead,
    /// A caller wants another token than the held one.
    Force,
    /// The shared record is to be compared with the held token.
    Look,
}

/// What a flight brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landed {
    New,
    Same,
    Nothing,
}

/// What a flight takes along, so that it need not ask while it is under way.
#[derive(Clone)]
pub(crate) struct Ticket {
    pub(crate) purpose: Purpose,
    pub(crate) held: Option<Held>,
    /// Tokens that are known by name, with their ends.
    pub(crate) known: Vec<Known>,
    pub(crate) rejected: Vec<String>,
    /// The token that was granted again after its rejection.
    pub(crate) granted_again: Option<String>,
    /// The token that was held last.
    pub(crate) last: Option<String>,
    /// The tickets that were handed in before.
    pub(crate) tickets: u64,
    /// The number of the latest token that is known.
    pub(crate) number: u64,
    pub(crate) generation: u64,
    pub(crate) rejections: u64,
}

impl Control {
    /// The held token, if it is no further gone than `worst`.
    pub(crate) fn peek(&self, now: Timestamp, worst: Phase) -> Option<&Held> {
        self.held.as_ref().filter(|held| held.schedule.phase(now) <= worst)
    }

    /// Hands the held token to a caller, if it is no further gone than `worst`.
    pub(crate) fn take(&mut self, now: Timestamp, worst: Phase) -> Option<Token> {
        let held = self.held.as_mut().filter(|held| held.schedule.phase(now) <= worst)?;
        held.taken = true;
        Some(held.token.clone())
    }

    /// True when the shared store lacks something that is known here.
    pub(crate) fn has_something_to_store(&self) -> bool {
        let token = self.held.as_ref().is_some_and(|held| held.version.is_none());
        token || self.has_state_to_store()
    }

    pub(crate) fn has_state_to_store(&self) -> bool {
        self.state.as_ref().is_some_and(|state| !state.stored)
    }

    /// True when the store is to be looked at although no token is held: it lacks a state, or may have the ticket that
    /// is missed here.
    pub(crate) fn looks_for_a_state(&self, now: Timestamp) -> bool {
        self.has_state_to_store() || self.pause_at(now).is_some_and(Pause::is_for_want_of_a_ticket)
    }

    /// What keeps a renewal in the background from starting now.
    pub(crate) fn renewal_waits_until(&self, now: Timestamp) -> Option<Timestamp> {
        let pause = self.pause.as_ref().map(|pause| pause.until);
        pause.into_iter().chain(self.come_back_at).filter(|at| !now.reaches(*at)).reduce(Timestamp::later)
    }

    pub(crate) fn pause_at(&self, now: Timestamp) -> Option<&Pause> {
        self.pause.as_ref().filter(|pause| !now.reaches(pause.until))
    }

    /// The flight under way. One that was started before a fork is not.
    pub(crate) fn in_the_air(&self) -> Option<Arc<InFlight<Landed>>> {
        self.flight.clone().filter(|flight| !flight.is_complete() && flight.belongs_to_this_process())
    }

    /// True when so many flights that were given up still hold a thread that there should be no more.
    pub(crate) fn too_many_lost(&mut self) -> bool {
        self.drop_those_that_returned();
        self.lost.len() >= MOST_LOST
    }

    /// True when a flight that was given up may still be asking.
    pub(crate) fn has_lost(&mut self) -> bool {
        self.drop_those_that_returned();
        !self.lost.is_empty()
    }

    fn drop_those_that_returned(&mut self) {
        self.lost.retain(|flight| flight.upgrade().is_some_and(|flight| flight.belongs_to_this_process()));
    }

    pub(crate) fn ticket(&self, purpose: Purpose) -> Ticket {
        Ticket {
            purpose,
            held: self.held.clone(),
            known: self.known(),
            rejected: self.rejected.iter().map(|rejected| rejected.fingerprint.clone()).collect(),
            granted_again: self.granted_again.as_ref().map(|(again, _)| again.clone()),
            last: self.last.as_ref().map(|last| last.fingerprint.clone()),
            tickets: self.tickets,
            number: self.number,
            generation: self.generation,
            rejections: self.rejections,
        }
    }

    /// True when a rejection of `token` changes anything: it is held, or nothing is and it is not known to be bad.
    pub(crate) fn heeds_rejection_of(&self, token: &Token, now: Timestamp) -> bool {
        let name = token.fingerprint();
        let ignored = |(again, until): &(String, Timestamp)| again == name && !now.reaches(*until);
        if self.granted_again.as_ref().is_some_and(ignored) {
            return false;
        }
        match &self.held {
            Some(held) => held.token.fingerprint() == name,
            None => !self.is_rejected(name),
        }
    }

    /// All tokens that are known by name.
    pub(crate) fn known(&self) -> Vec<Known> {
        let rejected =
            self.rejected.iter().map(|rejected| Known { fingerprint: rejected.fingerprint.clone(), end: rejected.end });
        self.last.iter().cloned().chain(rejected).collect()
    }

    pub(crate) fn is_rejected(&self, fingerprint: &str) -> bool {
        self.rejected.iter().any(|rejected| rejected.fingerprint == fingerprint)
    }

    /// Remembers that a token must not come back from the shared store.
    pub(crate) fn note_forgotten(&mut self, fingerprint: &str, end: Timestamp, now: Timestamp) {
        self.note_rejected(fingerprint, end, now);
        if let Some(last) = self.rejected.last_mut() {
            last.forgotten = true;
        }
    }

    /// Remembers that a token must not be used, until its end.
    pub(crate) fn note_rejected(&mut self, fingerprint: &str, end: Timestamp, now: Timestamp) {
        self.rejections += 1;
        let number = self.rejections;
        self.rejected.retain(|rejected| rejected.fingerprint != fingerprint && !now.reaches(rejected.end));
        self.rejected.push(Rejected { fingerprint: fingerprint.to_owned(), end, number, forgotten: false });
        let surplus = self.rejected.len().saturating_sub(MOST_REJECTED);
        self.rejected.drain(..surplus);
    }
}

impl Ticket {
    pub(crate) fn last_is_rejected(&self) -> bool {
        self.last.as_ref().is_some_and(|last| self.rejected.contains(last))
    }
}

impl Pause {
    pub(crate) fn is_for_want_of_a_ticket(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.kind() == ErrorKind::TicketRequired)
    }
}

impl Known {
    /// The end of a token that the provider gives again: it tells a whole life whenever it is asked, so the end that is
    /// known stays. `None`: the token is new.
    pub(crate) fn end_of(
        fingerprint: &str,
        known: &[Known],
        asked_at: Timestamp,
        told: Timestamp,
    ) -> Option<Timestamp> {
        known.iter().filter(|known| known.fingerprint == fingerprint).fold(None, |end, known| {
            let rest = asked_at.monotonic_until(known.end);
            // Given again, it is not over. If only the wall clock says so, that clock was set since.
            let set = asked_at.reaches(known.end) && !rest.is_zero();
            let known = if set { asked_at.after(rest) } else { known.end };
            Some(end.unwrap_or(told).sooner(known))
        })
    }
}

impl Held {
    /// True when a recorded token is to be preferred to this one: it was granted later. The number of one that was
    /// granted without the store does not say so, but its end; of two that end together all take the recorded one.
    pub(crate) fn is_older_than(&self, number: u64, end: Timestamp) -> bool {
        if self.version.is_none() {
            return !end.after(TOLERANCE).ends_before(self.schedule.ends_at);
        }
        number > self.number || number == self.number && self.schedule.ends_at.ends_before(end)
    }

    /// True when somebody got it since it came.
    pub(crate) fn is_used(&self, hits: u64) -> bool {
        self.taken || hits > self.hits
    }
}

/// Ends that are told through a store differ by the time that the telling took.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(1);

/// Flights that never returned, and their threads, that a manager puts up with.
const MOST_LOST: usize = 8;
