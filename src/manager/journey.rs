//! What a flight does under way: the shared store, the provider, the store again. No lock is held here.

use std::time::Duration;

use crate::clock::{Deadline, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::event::{EventKind, TokenOrigin};
use crate::lease::{Failure, OPERATION, Published, Record, RecordedToken, Sharing, Turn, Wait, next_number};
use crate::manager::asking::Asking;
use crate::manager::control::{Down, Pause, Purpose, Ticket};
use crate::manager::keeper::Keeper;
use crate::manager::state::SOON;
use crate::policy::{Lifetime, Phase, store_backoff};
use crate::secret::Secret;
use crate::store::Version;

/// What a flight comes back with.
pub(crate) enum Arrival {
    /// The provider granted this.
    Granted(Granted),
    /// Another manager recorded this. With the failure of its last fetch, if it failed.
    Adopted { token: RecordedToken, number: u64, version: Option<Version>, failure: Option<Failure> },
    /// The held token is recorded, as this version and with this end.
    Recorded { version: Option<Version>, number: u64, end: Timestamp },
    /// Another manager rejected the held token.
    RejectedElsewhere,
    /// Another manager is fetching; it makes no sense to look again for so long.
    Later(Duration),
    /// Nothing new.
    Nothing,
}

pub(crate) struct Granted {
    pub(crate) secret: Secret,
    pub(crate) fingerprint: String,
    /// The whole life, as the provider tells it.
    pub(crate) life: Lifetime,
    pub(crate) end: Timestamp,
    /// True when it was known before.
    pub(crate) same: bool,
    /// Its number among the tokens in the shared store.
    pub(crate) number: u64,
    pub(crate) asked_at: Timestamp,
    pub(crate) version: Option<Version>,
}

/// Why a flight comes back with nothing.
pub(crate) struct Trouble {
    pub(crate) error: Error,
    /// How long to leave the provider alone, and the failures in a row, when that is settled already.
    pub(crate) settled: Option<(Duration, u32)>,
}

impl Arrival {
    fn adopted(token: &RecordedToken, record: &Record) -> Arrival {
        let (token, version, failure) = (token.clone(), record.version.clone(), record.failure.clone());
        Arrival::Adopted { token, number: record.number, version, failure }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble { error, settled: None }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble { error: failure.error, settled: Some((failure.retry_in, failure.count)) }
    }
}

impl Keeper {
    pub(crate) fn journey(&self, ticket: &Ticket) -> Result<Arrival, Trouble> {
        match &self.sharing {
            Some(sharing) if ticket.purpose == Purpose::Look => Ok(self.look(sharing, ticket)),
            Some(sharing) => self.fetch_shared(sharing, ticket, Deadline::within(self.waiting_limit())),
            None => self.fetch_alone(ticket),
        }
    }

    fn fetch_alone(&self, ticket: &Ticket) -> Result<Arrival, Trouble> {
        let (seen, deadline) = (Record::default(), Deadline::within(self.settings.fetch_limit));
        Ok(Arrival::Granted(self.ask_provider(&Asking {
            sharing: None,
            ticket,
            seen: &seen,
            deadline,
            until: deadline,
        })?))
    }

    /// A token by way of a store. Another's lease is waited for until `give_up`.
    pub(crate) fn fetch_shared(
        &self,
        sharing: &Sharing,
        ticket: &Ticket,
        give_up: Deadline,
    ) -> Result<Arrival, Trouble> {
        // While a renewal is under way, the record that is held already is no news.
        let held = ticket.held.as_ref().and_then(|held| held.base.clone());
        let mut seen = Record { version: held, number: ticket.number, ..Record::default() };
        let (mut wait, mut pause, mut has_brought) = (None, Duration::ZERO, false);
        let leave_lease = || drop(self.note(sharing, sharing.release()));
        loop {
            if !sharing.stands_in() && self.store_rests() {
                return self.fetch_without(sharing, ticket, give_up);
            }
            let turn = sharing.turn(seen.version.as_ref(), wait.take());
            // That it can be read does not say that it can be written.
            if !matches!(turn, Ok(Turn::Found(_) | Turn::Busy { .. })) {
                self.note_trouble_of(sharing, turn.as_ref().err());
            }
            match turn {
                Err(_) => return self.fetch_without(sharing, ticket, give_up),
                Ok(Turn::Found(mut record)) => {
                    let brought = self.bring_over(sharing, ticket, &mut record).map(Ok);
                    if let Some(arrival) = brought.or_else(|| self.use_record(&record, ticket)) {
                        if has_brought {
                            leave_lease();
                        }
                        return arrival;
                    }
                    seen = record;
                }
                Ok(Turn::Leased(until)) => {
                    if !has_brought && self.stand_in.is_some() && !sharing.stands_in() {
                        has_brought = true;
                        let brought = self.bring_over(sharing, ticket, &mut seen);
                        // Another may have come first.
                        if let Some(arrival) = brought.or_else(|| self.use_record(&seen, ticket)?.ok()) {
                            leave_lease();
                            return Ok(arrival);
                        }
                        // The lease once more, for the whole of its time; or what another has brought over just now.
                        continue;
                    }
                    if sharing.stands_in() && self.profile.new_token_ends_old {
                        // Other hosts are without the first store too, and each takes the token from the others.
                        self.take_unshared_turn().inspect_err(|_| leave_lease())?;
                    }
                    return self.fetch_leased(sharing, ticket, seen, until);
                }
                Ok(Turn::Busy { remaining, .. }) if ticket.purpose == Purpose::Ahead => {
                    return Ok(Arrival::Later(remaining.clamp(LONGEST_PAUSE, COME_BACK)));
                }
                Ok(Turn::Busy { .. }) if give_up.has_passed() && self.is_used_by_one_alone() => {
                    let message = "another process holds the lease for longer than any fetch takes";
                    return Err(Error::new(ErrorKind::Store, message).into());
                }
                Ok(Turn::Busy { .. }) if give_up.has_passed() => {
                    // Nobody who fetches takes that long: whoever has the lease will not free it.
                    self.take_unshared_turn()?;
                    let until = Deadline::within(self.settings.fetch_limit).later(OPERATION);
                    return self.fetch_leased(sharing, ticket, seen, until);
                }
                Ok(Turn::Busy { remaining, cursor }) => {
                    wait = Some(Wait { cursor, until: Deadline::within(remaining).min(give_up), pause });
                    // At once for the first time, because it may have come just now. A store that cannot wait is asked
                    // again and again, but not in a busy loop.
                    pause = (pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
                }
            }
        }
    }

    /// What to make of a record that somebody left. `None`: it is of no use.
    pub(crate) fn use_record(&self, record: &Record, ticket: &Ticket) -> Option<Result<Arrival, Trouble>> {
        let worst = if record.failure.is_some() { Phase::Expiring } else { Phase::RefreshDue };
        if let Some(token) = record.token.as_ref().filter(|token| self.fits(token, record.number, ticket, worst)) {
            return Some(Ok(Arrival::adopted(token, record)));
        }
        Some(Err(record.failure.clone()?.into()))
    }

    /// True when a recorded token serves the purpose of the flight.
    pub(crate) fn fits(&self, token: &RecordedToken, number: u64, ticket: &Ticket, worst: Phase) -> bool {
        let schedule = self.policy.schedule(token.known_at, token.life, token.remaining, 0.5);
        if ticket.rejected.contains(&token.fingerprint) || schedule.phase(self.now()) > worst {
            return false;
        }
        ticket.held.as_ref().is_none_or(|held| {
            held.token.fingerprint() != token.fingerprint && held.is_older_than(number, schedule.ends_at)
        })
    }

    /// Fetches and records what comes of it, before `until`.
    fn fetch_leased(
        &self,
        sharing: &Sharing,
        ticket: &Ticket,
        seen: Record,
        until: Deadline,
    ) -> Result<Arrival, Trouble> {
        let until = Deadline::within(until.remaining().saturating_sub(OPERATION));
        let deadline = Deadline::within(self.settings.fetch_limit).min(until);
        // What is kept beside the record is in the first store alone.
        let beside = Some(sharing).filter(|sharing| !sharing.stands_in());
        let asking = Asking { sharing: beside, ticket, seen: &seen, deadline, until };
        let mut granted = match self.ask_provider(&asking) {
            Ok(granted) => granted,
            Err(error) => return Err(self.record_failure(sharing, ticket, error, seen.version.as_ref())),
        };
        if let Some(arrival) = self.overtaken(sharing, ticket, &seen, &granted) {
            let _ = self.note(sharing, sharing.release());
            return Ok(arrival);
        }
        let record = Record {
            token: Some(granted.recorded()),
            rejected: seen.rejected.into_iter().filter(|token| token.fingerprint != granted.fingerprint).collect(),
            number: granted.number,
            version: seen.version,
            ..Record::default()
        };
        // A token that cannot be recorded is still a token: it is written when the store is back.
        match self.note(sharing, sharing.publish(&record)) {
            Ok(Published::Done(version)) => granted.version = version,
            Ok(Published::Lost(other)) => {
                if let Some(Ok(adopted)) = self.use_record(&other, ticket) {
                    return Ok(adopted);
                }
            }
            Err(_) => {
                if let Some(stand_in) = self.stand_in.as_ref().filter(|_| !sharing.stands_in()) {
                    drop(self.note(stand_in, stand_in.publish(&Record { version: None, ..record })));
                }
            }
        }
        Ok(Arrival::Granted(granted))
    }

    /// What came of it when a grant was overtaken by an invalidation here, or by a rejection in another process.
    fn overtaken(&self, sharing: &Sharing, ticket: &Ticket, seen: &Record, granted: &Granted) -> Option<Arrival> {
        if self.lock().generation != ticket.generation {
            return Some(Arrival::Nothing);
        }
        // Only a token that was known before can have been rejected before it was granted.
        if !granted.same || seen.rejects(&granted.fingerprint) || ticket.rejected.contains(&granted.fingerprint) {
            return None;
        }
        let recorded = self.note(sharing, sharing.look()).ok()?;
        recorded.rejects(&granted.fingerprint).then_some(Arrival::RejectedElsewhere)
    }

    fn record_failure(&self, sharing: &Sharing, ticket: &Ticket, error: Error, seen: Option<&Version>) -> Trouble {
        if !self.concerns_all(sharing, &error, ticket) {
            let _ = self.note(sharing, sharing.release());
            return error.into();
        }
        let failure = self.next_failure(error);
        let outcome_unknown =
            matches!(failure.error.kind(), ErrorKind::TimedOut | ErrorKind::Unavailable | ErrorKind::Panicked);
        // A token may have been granted that ends the recorded one: then the lease runs out instead, as a quarantine.
        if !(self.profile.new_token_ends_old && outcome_unknown) {
            let _ = self.note(sharing, sharing.publish_failure(&failure, seen));
        }
        failure.into()
    }

    /// False for what is wrong in this process alone, and for the want of a ticket that has come meanwhile. Tickets are in
    /// the first store, so without it nobody can tell what the others want.
    fn concerns_all(&self, sharing: &Sharing, error: &Error, ticket: &Ticket) -> bool {
        match error.kind() {
            ErrorKind::Shutdown | ErrorKind::Store => false,
            ErrorKind::TicketRequired if sharing.stands_in() => false,
            ErrorKind::TicketRequired => self.lock().tickets == ticket.tickets,
            _ => true,
        }
    }

    /// The store cannot be used: a fetch of one's own, not too often.
    pub(crate) fn fetch_unshared(&self, ticket: &Ticket) -> Result<Arrival, Trouble> {
        self.take_unshared_turn()?;
        self.fetch_alone(ticket)
    }

    fn take_unshared_turn(&self) -> Result<(), Trouble> {
        let Some(wait) = self.unshared_wait() else { return Ok(()) };
        // The store may be back sooner.
        let wait = wait.min(self.store_rest().unwrap_or(wait));
        let message = "the shared store cannot be used, and the next fetch without it must wait; repair the store";
        Err(Error::new(ErrorKind::Store, message).with_retry_after(wait).into())
    }

    /// Compares the held token with the record: takes over what is newer, hands in what is missing.
    pub(crate) fn compare(&self, sharing: &Sharing, ticket: &Ticket) -> Arrival {
        if !sharing.stands_in() && self.compare_state(sharing).is_err() {
            return Arrival::Nothing;
        }
        let Some(held) = &ticket.held else { return Arrival::Nothing };
        let record = match sharing.look() {
            Ok(record) => record,
            Err(error) => {
                self.note_trouble_of(sharing, Some(&error));
                return Arrival::Nothing;
            }
        };
        let name = held.token.fingerprint();
        let untouched = held.version.is_none() && record.version.is_some() && record.version == held.base;
        // By the provider, without the store, and nothing newer is recorded. That it is not recorded does not say so:
        // another may have brought it over from the second store, and the service have refused it then.
        let again = ticket.granted_again.as_deref() == Some(name)
            && held.source == TokenOrigin::Provider
            && held.version.is_none()
            && record.token.is_none()
            && held.number >= record.number;
        let arrival = match &record.token {
            _ if record.rejects(name) && (sharing.stands_in() || !again) => Arrival::RejectedElsewhere,
            _ if untouched || record.rejects(name) => return self.write_back(sharing, ticket, record, true),
            Some(token) if token.fingerprint == name => {
                Arrival::Recorded { version: record.version, number: record.number, end: token.end() }
            }
            Some(token) if self.fits(token, record.number, ticket, Phase::RefreshDue) => {
                Arrival::adopted(token, &record)
            }
            // The others do not know yet that it was rejected here.
            Some(token) if ticket.rejected.contains(&token.fingerprint) => {
                return self.write_back(sharing, ticket, record, true);
            }
            // Newer than the held one, but of no use.
            Some(token) if held.is_older_than(record.number, token.end()) => Arrival::Nothing,
            // A later one was recorded, and taken out of use since. What was before it is nothing to begin anew with.
            None if held.version.is_some() && held.number < record.number => Arrival::Nothing,
            // Only this shows whether the store takes what it is given, so it is what counts.
            _ => return self.write_back(sharing, ticket, record, false),
        };
        // With something to hand over, the writing of that shows whether the store works.
        if self.in_second_store(sharing).is_none() {
            self.note_trouble_of(sharing, None);
        }
        arrival
    }

    /// Records the held token, in place of `record`. `certain`: it is the later one. Else the store compares what the
    /// two have left: numbers do not tell when one was granted without the store, or the store has lost its records.
    fn write_back(&self, sharing: &Sharing, ticket: &Ticket, mut record: Record, certain: bool) -> Arrival {
        let now = self.now();
        let Some(held) = ticket.held.as_ref().filter(|held| held.schedule.phase(now) <= Phase::RefreshDue) else {
            return Arrival::Nothing;
        };
        let name = held.token.fingerprint();
        let token = RecordedToken {
            secret: held.token.secret().clone(),
            fingerprint: name.to_owned(),
            life: held.life,
            remaining: now.until(held.schedule.ends_at),
            known_at: now,
        };
        let (number, end) = (held.number.max(record.number), held.schedule.ends_at);
        let version = record.version.take().filter(|_| certain || record.token.is_none());
        if let Some(token) = record.token.take().filter(|token| ticket.rejected.contains(&token.fingerprint)) {
            record.reject(&token.fingerprint, token.end());
        }
        record.rejected.retain(|rejected| rejected.fingerprint != name);
        // No longer than that, or the store would compare the other token's life with itself.
        let keep = record.rejected.iter().map(|rejected| now.until(rejected.end)).max().unwrap_or_default();
        let record = Record { token: Some(token), failure: None, number, version, keep, ..record };
        match self.note(sharing, sharing.publish(&record)) {
            Ok(Published::Done(version)) => Arrival::Recorded { version, number, end },
            Ok(Published::Lost(other)) => match &other.token {
                // It lives longer, whatever the numbers say.
                Some(token) if !ticket.rejected.contains(&token.fingerprint) => {
                    let number = other.number.max(next_number(held.number));
                    Arrival::adopted(token, &Record { number, ..other.clone() })
                }
                _ => Arrival::Nothing,
            },
            Err(_) => Arrival::Nothing,
        }
    }
}

impl Keeper {
    /// Notices whether the store works: said once per change, not once per call.
    pub(crate) fn note_store<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        self.note_store_trouble(outcome.as_ref().err());
        outcome
    }

    /// The same for a store that stands in, of which the log alone is told.
    pub(crate) fn note<T>(&self, sharing: &Sharing, outcome: Result<T, Error>) -> Result<T, Error> {
        self.note_trouble_of(sharing, outcome.as_ref().err());
        outcome
    }

    pub(crate) fn note_trouble_of(&self, sharing: &Sharing, trouble: Option<&Error>) {
        if sharing.stands_in() {
            sharing.log_stand_in(trouble);
        } else {
            self.note_store_trouble(trouble);
        }
    }

    fn note_store_trouble(&self, trouble: Option<&Error>) {
        let news = {
            let mut control = self.lock();
            let now = self.now();
            match trouble {
                None => control.store.down.take().map(|_| {
                    let waits_for_the_store =
                        |pause: &Pause| pause.error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Store);
                    control.pause = control.pause.take().filter(|pause| !waits_for_the_store(pause));
                    EventKind::StoreUp
                }),
                Some(error) => {
                    let before = control.store.down.as_ref().map(|down| (down.since, down.failures));
                    let (since, failures) = before.unwrap_or((now, 0));
                    let failures = failures.saturating_add(1);
                    // A store that counts its own failures knows better.
                    let told = error.retry_after().map(|wait| wait.clamp(SHORTEST_STORE_PAUSE, LONGEST_STORE_PAUSE));
                    let retry_at = now.after(told.unwrap_or_else(|| store_backoff(failures, fastrand::f64())));
                    control.store.down = Some(Down { since, error: error.clone(), failures, retry_at });
                    // What must not be lost is not left for long.
                    let soon = control.has_state_to_store().then(|| now.after(SOON));
                    control.store.look_at = Some(soon.map_or(retry_at, |soon| soon.sooner(retry_at)));
                    (failures == 1).then(|| EventKind::StoreDown { error: error.clone() })
                }
            }
        };
        if trouble.is_some() {
            self.recorder.count(|metrics| metrics.store_errors += 1);
        }
        self.tell(news.into_iter().collect());
    }

    /// How long a store that is down is still left alone.
    fn store_rest(&self) -> Option<Duration> {
        let now = self.now();
        let retry_at = self.lock().store.down.as_ref()?.retry_at;
        Some(now.until(retry_at)).filter(|rest| !rest.is_zero())
    }

    /// True while a store that is down is left alone.
    pub(crate) fn store_rests(&self) -> bool {
        self.store_rest().is_some()
    }

    /// How long this process has to wait before it fetches without the store. `None`: it may, and has taken its turn.
    pub(crate) fn unshared_wait(&self) -> Option<Duration> {
        let mut control = self.lock();
        let now = self.now();
        // The first time with nothing in hand is free; with a token in hand there is time.
        let since = control.store.unshared_at.or_else(|| {
            let down = control.store.down.as_ref().map_or(now, |down| down.since);
            control.peek(now, Phase::Expiring).map(|_| down)
        });
        let from = since.map(|since| since.after(self.settings.store_down_fetch_interval));
        match from.filter(|from| !now.reaches(*from)) {
            Some(from) => Some(now.until(from)),
            None => {
                control.store.unshared_at = Some(now);
                None
            }
        }
    }
}

impl Granted {
    fn recorded(&self) -> RecordedToken {
        RecordedToken {
            secret: self.secret.clone(),
            fingerprint: self.fingerprint.clone(),
            life: self.life,
            remaining: self.asked_at.until(self.end),
            known_at: self.asked_at,
        }
    }
}

/// A renewal does not wait for another's; it looks again after this.
const COME_BACK: Duration = Duration::from_secs(2);

const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

const SHORTEST_STORE_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(60);
