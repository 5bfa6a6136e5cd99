//! The start and the end of flights: what becomes of what they bring.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Deadline, Stopwatch, Timestamp};
use crate::error::{Error, ErrorKind, catch_panic};
use crate::event::{EventKind, TokenOrigin};
use crate::in_flight::InFlight;
use crate::lease::{Failure, OPERATION, RecordedToken, lease_of};
use crate::manager::control::{Control, Held, Known, Landed, Pause, Poll, Purpose, Rejected, TOLERANCE, Ticket};
use crate::manager::journey::{Arrival, Granted, Trouble};
use crate::manager::keeper::Keeper;
use crate::manager::state::SOON;
use crate::policy::{Lifetime, Phase, Schedule};
use crate::scheduler;
use crate::store::Version;
use crate::token::Token;

impl Keeper {
    /// Takes the seat for a new flight. Nobody may be in the air.
    pub(crate) fn take_seat(&self, control: &mut Control, purpose: Purpose) -> (Arc<InFlight<Landed>>, Ticket) {
        let flight = InFlight::new(Deadline::within(self.flight_limit()));
        control.flight = Some(flight.clone());
        if purpose == Purpose::Look {
            control.store.look_at = Some(self.now().after(self.settings.store_check_interval));
            control.store.hits = self.cache.reads();
            control.store.news = false;
        }
        (flight, control.ticket(purpose))
    }

    /// How long a flight may take: waiting for another's lease, and a fetch of its own.
    fn flight_limit(&self) -> Duration {
        let waiting = if self.sharing.is_some() { self.waiting_limit() } else { Duration::ZERO };
        let fetch = self.settings.lease_limit(self.is_used_by_one_alone());
        fetch.saturating_add(waiting).saturating_add(GRACE)
    }

    pub(crate) fn waiting_limit(&self) -> Duration {
        let lease = lease_of(self.settings.lease_limit(self.is_used_by_one_alone()));
        // What one alone may use is waited for even when the one who takes over from another is gone too.
        if self.is_used_by_one_alone() { lease.saturating_mul(2) } else { lease }.saturating_add(OPERATION)
    }

    pub(crate) fn launch(&self, flight: &Arc<InFlight<Landed>>, ticket: Ticket) {
        let Some(keeper) = self.me.upgrade() else { return };
        let (mine, after) = (flight.clone(), self.me.clone());
        let fly = move || {
            let watch = Stopwatch::start();
            let arrival = catch_panic(|| Ok(keeper.journey(&ticket))).unwrap_or_else(|error| Err(error.into()));
            keeper.settle(Some(&mine), &ticket, arrival, watch.elapsed())
        };
        // Started only now, because a thread takes as long to start as all the rest, and callers wait for the rest.
        flight.start(self.id.number(), fly, move || {
            scheduler::ensure_running();
            if let Some(keeper) = after.upgrade() {
                keeper.watch_record();
            }
        });
    }

    /// Leaves a flight that is over its limit to itself and frees its seat: what it does may never end.
    pub(crate) fn give_up(&self, flight: &Arc<InFlight<Landed>>) {
        let mut news = Vec::new();
        let error = {
            let mut control = self.lock();
            if !control.flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, flight)) {
                return;
            }
            control.flight = None;
            control.lost.push(Arc::downgrade(flight));
            let error = Error::new(ErrorKind::Unavailable, "the provider did not return in time; set timeouts in it");
            let now = self.now();
            let error = self.note_trouble(&mut control, error.into(), now, &mut news);
            self.look_again(&control, now);
            error
        };
        self.tell(news);
        flight.complete(Err(error));
    }

    /// Takes in what a flight brought, or what was found without one, and tells about it.
    pub(crate) fn settle(
        &self,
        flight: Option<&Arc<InFlight<Landed>>>,
        ticket: &Ticket,
        arrival: Result<Arrival, Trouble>,
        took: Duration,
    ) -> Result<Landed, Error> {
        let mut news = Vec::new();
        let (landed, ended) = {
            let mut control = self.lock();
            let now = self.now();
            let is_current = |flight| control.flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, flight));
            let aboard = flight.is_none_or(is_current);
            if aboard && flight.is_some() {
                control.flight = None;
            }
            let mut landing = Landing { keeper: self, ticket, aboard, now, took, news: &mut news };
            let landed = match arrival {
                _ if control.generation != ticket.generation => Ok(Landed::Nothing),
                Ok(arrival) => landing.take_in(&mut control, arrival),
                // The ticket that it missed has come.
                Err(trouble)
                    if trouble.error.kind() == ErrorKind::TicketRequired && control.tickets != ticket.tickets =>
                {
                    Ok(Landed::Nothing)
                }
                // Whoever gave the flight up has told of its failure.
                Err(trouble) if !aboard => Err(trouble.error),
                Err(trouble) => Err(self.note_trouble(&mut control, trouble, now, &mut news)),
            };
            self.note_when_to_look(&control, now);
            (landed, control.retired || control.shut_down)
        };
        if ended {
            // Nobody looks any more.
            self.leave_state();
        }
        self.tell(news);
        landed
    }

    /// Keeps a failure, so that it answers everybody until its retry time.
    fn note_trouble(
        &self,
        control: &mut Control,
        trouble: Trouble,
        now: Timestamp,
        news: &mut Vec<EventKind>,
    ) -> Error {
        let (retry_in, failures) = trouble
            .settled
            .unwrap_or_else(|| self.policy.next_cooldown(control.failures, &trouble.error, fastrand::f64()));
        let error = trouble.error;
        control.failures = failures;
        control.pause = Some(Pause { until: now.after(retry_in), error: Some(error.clone()) });
        control.last_error = Some((error.clone(), now));
        if error.kind() == ErrorKind::TicketRequired && self.sharing.is_some() {
            // Another process may be the one that hears of the next ticket.
            control.store.look_at = Some(now.after(self.settings.store_check_interval));
        }
        news.push(EventKind::Failed { error: error.clone(), retry_in });
        error.with_retry_after(retry_in)
    }

    /// What the others are told of a failed fetch.
    pub(crate) fn next_failure(&self, error: Error) -> Failure {
        let failures = self.lock().failures;
        let (retry_in, count) = self.policy.next_cooldown(failures, &error, fastrand::f64());
        Failure { error, retry_in, count }
    }

    pub(crate) fn tell(&self, news: Vec<EventKind>) {
        news.iter().for_each(|kind| self.announce(kind));
    }

    /// Tells those who listen, and the log. Never called under a lock: the logger is the user's.
    pub(crate) fn announce(&self, kind: &EventKind) {
        self.events.emit(self.now().wall(), kind);
        let is_told = || self.sharing.as_ref().is_some_and(|sharing| sharing.logs_outages());
        let level = match kind {
            EventKind::StoreDown { .. } | EventKind::StoreUp if is_told() => log::Level::Debug,
            EventKind::Failed { .. }
            | EventKind::StoreDown { .. }
            | EventKind::Reinstated { .. }
            | EventKind::RenewalSecretNotStored { .. } => log::Level::Warn,
            EventKind::StoreUp => log::Level::Info,
            _ => log::Level::Debug,
        };
        log::log!(target: "evertoken", level, "{} {}: {kind}", self.provider.name(), self.key);
    }
}

/// The moment when what a flight brought is taken in, under the lock.
struct Landing<'a> {
    keeper: &'a Keeper,
    ticket: &'a Ticket,
    /// False when the flight was given up: then it has to be better than what is held.
    aboard: bool,
    now: Timestamp,
    took: Duration,
    news: &'a mut Vec<EventKind>,
}

/// Where a token comes from, and what is known of it besides its course.
struct Origin {
    life: Lifetime,
    source: TokenOrigin,
    number: u64,
    version: Option<Version>,
    /// When it is over, by each clock for itself: when one is set, the other still knows.
    end: Timestamp,
}

impl Landing<'_> {
    fn take_in(&mut self, control: &mut Control, arrival: Arrival) -> Result<Landed, Error> {
        if self.ticket.purpose == Purpose::Force {
            control.forced_at = Some(self.now);
        }
        match arrival {
            Arrival::Granted(granted) => self.take_in_grant(control, granted),
            Arrival::Adopted { token, number, version, failure } => {
                let landed = self.adopt(control, token, number, version);
                if let (Landed::New, Some(failure)) = (landed, failure) {
                    let until = self.now.after(failure.retry_in);
                    control.pause = Some(Pause { until, error: Some(failure.error) });
                    control.failures = failure.count;
                }
                Ok(landed)
            }
            Arrival::Recorded { version, number, end } => {
                self.note_recorded(control, version, number, end);
                Ok(Landed::Nothing)
            }
            Arrival::RejectedElsewhere => {
                self.drop_what_others_rejected(control);
                Ok(Landed::Nothing)
            }
            Arrival::Later(wait) => {
                control.come_back_at = Some(self.now.after(wait));
                Ok(Landed::Nothing)
            }
            Arrival::Nothing => Ok(Landed::Nothing),
        }
    }

    fn take_in_grant(&mut self, control: &mut Control, granted: Granted) -> Result<Landed, Error> {
        let Granted { secret, fingerprint: name, life, end, same, number, asked_at, version } = granted;
        let rejected_meanwhile =
            |rejected: &Rejected| rejected.fingerprint == name && rejected.number > self.ticket.rejections;
        if control.rejected.iter().any(rejected_meanwhile) {
            // It was rejected while the provider was giving it: whether it would give it again is for it to say.
            return Ok(Landed::Nothing);
        }
        // Looked at again, because a flight that was given up may have brought it meanwhile.
        let again = Known::end_of(&name, &control.known(), asked_at, end);
        let same = same || again.is_some();
        let end = again.filter(|_| !self.keeper.profile.unchanged_token_extends).unwrap_or(end);
        let schedule = self.keeper.policy.schedule(asked_at, life, asked_at.until(end), fastrand::f64());
        if schedule.phase(self.now) == Phase::Expired {
            return if same { Ok(self.wait_for_another(control, end)) } else { Err(self.dead_on_arrival(control)) };
        }
        let better = |held: &Held| held.token.fingerprint() != name && !held.schedule.ends_at.ends_before(end);
        if !self.aboard && control.held.as_ref().is_some_and(better) {
            return Ok(Landed::Nothing);
        }
        if control.is_rejected(&name) {
            self.lift(control, &name);
        }
        let ahead = self.is_ahead(control);
        self.keeper.recorder.count(|metrics| {
            metrics.unchanged_tokens += u64::from(same);
            metrics.background_refreshes += u64::from(!same && ahead);
        });
        let token = Token::new(secret, end, self.keeper.time.clone());
        if same {
            let until = self.next_change(&schedule);
            self.news.push(EventKind::Unchanged { retry_in: self.now.until(until) });
            self.hold(control, token, schedule, Origin { life, source: TokenOrigin::Provider, number, version, end });
            control.pause = Some(Pause { until, error: None });
            return Ok(Landed::Same);
        }
        self.tell_granted(&token, TokenOrigin::Provider, ahead);
        self.hold(control, token, schedule, Origin { life, source: TokenOrigin::Provider, number, version, end });
        control.tokens += 1;
        Ok(Landed::New)
    }

    fn adopt(
        &mut self,
        control: &mut Control,
        recorded: RecordedToken,
        number: u64,
        version: Option<Version>,
    ) -> Landed {
        let schedule =
            self.keeper.policy.schedule(recorded.known_at, recorded.life, recorded.remaining, fastrand::f64());
        let name = &recorded.fingerprint;
        // Another thread may have found the same.
        let worse = control
            .held
            .as_ref()
            .is_some_and(|held| held.token.fingerprint() == name || !held.is_older_than(number, schedule.ends_at));
        if control.is_rejected(name) || worse || schedule.phase(self.now) == Phase::Expired {
            return Landed::Nothing;
        }
        self.keeper.recorder.count(|metrics| metrics.tokens_from_store += 1);
        let token = Token::new(recorded.secret, schedule.ends_at, self.keeper.time.clone());
        let ahead = self.is_ahead(control);
        self.tell_granted(&token, TokenOrigin::Store, ahead);
        let (life, end) = (recorded.life, schedule.ends_at);
        self.hold(control, token, schedule, Origin { life, source: TokenOrigin::Store, number, version, end });
        control.tokens += 1;
        Landed::New
    }

    fn hold(&self, control: &mut Control, token: Token, schedule: Schedule, origin: Origin) {
        let Origin { life, source, number, version, end } = origin;
        let hits = self.keeper.cache.reads();
        self.keeper.cache.set(&token, schedule.expiring_at.sooner(schedule.expired_at));
        let name = token.fingerprint();
        let before = control.held.as_ref().filter(|held| held.token.fingerprint() == name);
        let since = before.map_or(self.now, |held| held.since);
        control.last = Some(Known { fingerprint: name.to_owned(), end });
        control.number = control.number.max(number);
        let base = version.clone().or_else(|| control.held.as_ref()?.base.clone());
        control.held = Some(Held { token, schedule, life, source, since, number, version, base, hits, taken: false });
        control.pause = None;
        control.poll = None;
        control.come_back_at = None;
        control.failures = 0;
        let report_every = self.keeper.settings.log_metrics_every;
        control.report_at = control.report_at.or_else(|| report_every.map(|every| self.now.after(every)));
        let age = self.keeper.settings.store_check_interval;
        // As long as a state is not stored, the program must not end.
        let look_at = self.now.after(if control.has_state_to_store() { age.min(SOON) } else { age });
        control.store.look_at = Some(control.store.down.as_ref().map_or(look_at, |down| down.retry_at));
        control.store.hits = hits;
    }

    /// The record of the held token, in which another process may know its end better.
    fn note_recorded(&self, control: &mut Control, version: Option<Version>, number: u64, end: Timestamp) {
        let ours = |held: &Held| {
            let asked = self.ticket.held.as_ref().map(|held| held.token.fingerprint());
            asked == Some(held.token.fingerprint())
        };
        let Some(held) = control.held.clone().filter(ours) else { return };
        let sooner = held.schedule.ends_at.sooner(end);
        if sooner == held.schedule.ends_at || self.now.until(sooner) + TOLERANCE > self.now.until(held.schedule.ends_at)
        {
            if let Some(held) = &mut control.held {
                (held.version, held.base, held.number) = (version.clone(), version, number);
            }
            return;
        }
        let schedule = self.keeper.policy.schedule(self.now, held.life, self.now.until(sooner), fastrand::f64());
        let token = Token::new(held.token.secret().clone(), sooner, self.keeper.time.clone());
        let Held { life, source, .. } = held;
        self.hold(control, token, schedule, Origin { life, source, number, version, end: schedule.ends_at });
    }

    /// True when the flight was started in the background and lands while the token before it is still handed out.
    fn is_ahead(&self, control: &Control) -> bool {
        self.ticket.purpose == Purpose::Ahead && control.peek(self.now, Phase::Expiring).is_some()
    }

    fn tell_granted(&mut self, token: &Token, origin: TokenOrigin, ahead: bool) {
        self.news.push(EventKind::Granted {
            fingerprint: token.fingerprint().to_owned(),
            origin,
            remaining: token.remaining(),
            took: self.took,
            in_background: ahead,
        });
    }

    /// When it makes sense to ask again: when the token is due, if it was asked for sooner; else when it is over.
    fn next_change(&self, schedule: &Schedule) -> Timestamp {
        if self.now.reaches(schedule.refresh_at) { schedule.ends_at } else { schedule.refresh_at }
    }

    /// The provider gives the token that nobody gets any more, and callers wait for the next one.
    fn wait_for_another(&mut self, control: &mut Control, end: Timestamp) -> Landed {
        let pause = control.poll.as_ref().map_or(FIRST_POLL, |poll| (poll.pause * 2).min(LONGEST_POLL));
        // Before its end it will hardly change; that is at most the hard stop away.
        let wait = pause.max(self.now.until(end).min(LONGEST_STOP));
        control.poll = Some(Poll { at: Deadline::within(wait), pause });
        control.come_back_at = Some(self.now.after(wait));
        self.keeper.recorder.count(|metrics| metrics.unchanged_tokens += 1);
        self.news.push(EventKind::Unchanged { retry_in: wait });
        Landed::Same
    }

    fn dead_on_arrival(&mut self, control: &mut Control) -> Error {
        let error = Error::invalid_response("the token had expired when it arrived; check this machine's clock");
        self.keeper.note_trouble(control, error.into(), self.now, self.news)
    }

    /// The provider grants a rejected token again: there is no other, so it is used.
    fn lift(&mut self, control: &mut Control, name: &str) {
        let refused = control.rejected.iter().any(|rejected| rejected.fingerprint == name && !rejected.forgotten);
        control.rejected.retain(|rejected| rejected.fingerprint != name);
        if !refused {
            return;
        }
        control.granted_again = Some((name.to_owned(), self.now.after(IGNORED)));
        self.keeper.recorder.count(|metrics| metrics.reinstated_tokens += 1);
        self.news.push(EventKind::Reinstated { fingerprint: name.to_owned() });
    }

    fn drop_what_others_rejected(&mut self, control: &mut Control) {
        let Some(held) = control.held.clone() else { return };
        let name = held.token.fingerprint();
        if self.ticket.held.as_ref().is_some_and(|ours| ours.token.fingerprint() == name)
            && control.heeds_rejection_of(&held.token, self.now)
        {
            self.news.extend(self.keeper.drop_rejected(control, name, held.schedule.ends_at, self.now));
            self.keeper.recorder.count(|metrics| metrics.rejections += 1);
        }
    }
}

/// What a flight may take beyond its parts.
const GRACE: Duration = Duration::from_secs(1);

/// How long further rejections of a token that was granted again are ignored.
const IGNORED: Duration = Duration::from_secs(30);

const FIRST_POLL: Duration = Duration::from_millis(100);
const LONGEST_POLL: Duration = Duration::from_secs(2);
const LONGEST_STOP: Duration = Duration::from_secs(5);
