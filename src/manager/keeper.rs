//! Keeps one credential's token: decides who flies when, and what becomes of what a flight brings.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::Duration;

use crate::clock::{Deadline, Stopwatch, Time, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::event::{EventKind, Events};
use crate::http::Http;
use crate::in_flight::{InFlight, is_reentrant};
use crate::key::{Identity, Key};
use crate::lease::{Place, Sharing};
use crate::lock::lock;
use crate::manager::control::{Control, Landed, Pause, Purpose};
use crate::manager::state::Keeping;
use crate::metrics::{Metrics, Recorder};
use crate::policy::{Phase, Policy};
use crate::provider::{Profile, Provider};
use crate::scheduler::{self, TaskId};
use crate::token::Token;
use crate::token_cache::TokenCache;

/// Everything that one manager knows and may do. Its public face is [`TokenManager`](crate::TokenManager).
pub(crate) struct Keeper {
    pub(crate) id: TaskId,
    pub(crate) me: Weak<Keeper>,
    pub(crate) provider: Box<dyn Provider>,
    pub(crate) profile: Profile,
    pub(crate) policy: Policy,
    pub(crate) settings: Settings,
    pub(crate) key: Key,
    pub(crate) identity: Identity,
    /// How the provider's state is kept, if it has one.
    pub(crate) keeping: Option<Keeping>,
    /// Where the calls of a day are counted.
    pub(crate) quota: Place,
    pub(crate) time: Time,
    pub(crate) http: Http,
    pub(crate) sharing: Option<Box<Sharing>>,
    /// The second store, for while the first is down.
    pub(crate) stand_in: Option<Box<Sharing>>,
    pub(crate) events: Events,
    pub(crate) recorder: Recorder,
    /// A setting that is wrong. Every call returns it.
    pub(crate) fault: Option<Error>,
    pub(crate) cache: TokenCache,
    pub(crate) control: Mutex<Control>,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) max_wait: Duration,
    /// How long one fetch from the provider may take.
    pub(crate) fetch_limit: Duration,
    pub(crate) keep_warm: bool,
    pub(crate) store_check_interval: Duration,
    pub(crate) watch: bool,
    pub(crate) store_down_fetch_interval: Duration,
    pub(crate) log_metrics_every: Option<Duration>,
}

impl Settings {
    /// How long a fetch may take under the lease. Before a state is used that no two may use at once, its turn is waited
    /// for.
    pub(crate) fn lease_limit(&self, takes_turns: bool) -> Duration {
        if takes_turns { self.fetch_limit.saturating_mul(2) } else { self.fetch_limit }
    }

    /// True when there is something to do for a token that nobody asks for again.
    fn works_unasked(&self) -> bool {
        self.keep_warm || self.watch || self.log_metrics_every.is_some()
    }
}

/// What a call does next.
enum Step {
    Answer(Result<Token, Error>),
    Board(Arc<InFlight<Landed>>),
    /// The provider is asked again then.
    Rest(Deadline),
}

impl Keeper {
    #[inline]
    pub(crate) fn now(&self) -> Timestamp {
        self.time.now()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.recorder.read(self.cache.reads())
    }

    /// A token for a caller that memory could not answer.
    #[cold]
    pub(crate) fn obtain(&self, wait: Duration) -> Result<Token, Error> {
        self.recorder.count(|metrics| metrics.misses += 1);
        let (deadline, watch) = (Deadline::within(wait), Stopwatch::start());
        if let Some(token) = self.take_from_the_store_at_once() {
            return Ok(token);
        }
        let mut waited = false;
        let result = self.obtain_by(deadline, &mut waited);
        if waited {
            self.recorder.record_wait(watch.elapsed());
        }
        result
    }

    /// The first token, where the store can tell it without any waiting: most programs that find one there need no other,
    /// so no thread is started for it.
    fn take_from_the_store_at_once(&self) -> Option<Token> {
        // What stands in may know better.
        let sharing = self.sharing.as_ref().filter(|_| self.fault.is_none() && self.stand_in.is_none())?;
        let ticket = {
            let control = self.lock();
            let is_new = control.last.is_none() && control.flight.is_none() && control.pause.is_none();
            if !is_new || control.shut_down || control.generation > 0 {
                return None;
            }
            control.ticket(Purpose::Need)
        };
        let watch = Stopwatch::start();
        let arrival = self.use_record(&sharing.look_at_once()?, &ticket)?.ok()?;
        self.settle(None, &ticket, Ok(arrival), watch.elapsed()).ok()?;
        if self.settings.works_unasked() {
            scheduler::ensure_running();
            self.watch_record();
        } else {
            // Whoever asks again has it looked after.
            self.cache.notify_on_next_read();
        }
        let mut control = self.lock();
        let now = self.now();
        control.take(now, Phase::RefreshDue)
    }

    fn obtain_by(&self, deadline: Deadline, waited: &mut bool) -> Result<Token, Error> {
        loop {
            let flight = match self.step(Purpose::Need) {
                Step::Answer(answer) => return answer,
                Step::Board(flight) => Some(flight),
                Step::Rest(until) => {
                    thread::sleep(until.min(deadline).remaining());
                    None
                }
            };
            *waited = true;
            match flight.map_or(Ok(Landed::Nothing), |flight| self.ride(&flight, deadline)) {
                // What it brought is read from `control`: it may have been rejected again by now.
                Ok(_) if !deadline.has_passed() => {}
                Ok(_) => return self.late_or(timed_out()),
                Err(error) => return self.late_or(error),
            }
        }
    }

    /// Another token than the one that is held now. The held one when the provider gives the same again.
    pub(crate) fn obtain_another(&self, wait: Duration) -> Result<Token, Error> {
        let deadline = Deadline::within(wait);
        let before = {
            let mut control = self.lock();
            let now = self.now();
            let spaced = control.forced_at.is_some_and(|at| !now.reaches(at.after(self.profile.min_forced_interval)));
            if spaced && let Some(token) = control.take(now, Phase::RefreshDue) {
                return Ok(token);
            }
            control.tokens
        };
        loop {
            if let Some(token) = self.token_since(before) {
                return Ok(token);
            }
            let flight = match self.step(Purpose::Force) {
                Step::Answer(answer) => return answer,
                Step::Board(flight) => flight,
                Step::Rest(_) => return self.late_or(still_the_same()),
            };
            match self.ride(&flight, deadline)? {
                Landed::Same => return self.late_or(still_the_same()),
                Landed::New | Landed::Nothing if deadline.has_passed() => return Err(timed_out()),
                Landed::New | Landed::Nothing => {}
            }
        }
    }

    fn token_since(&self, tokens: u64) -> Option<Token> {
        let mut control = self.lock();
        let now = self.now();
        if control.tokens == tokens { None } else { control.take(now, Phase::RefreshDue) }
    }

    /// The held token if it is not dead; a flight for a better one is started where one is needed.
    pub(crate) fn try_obtain(&self) -> Option<Token> {
        self.recorder.count(|metrics| metrics.misses += 1);
        match self.step(Purpose::Need) {
            Step::Answer(answer) => answer.ok(),
            Step::Board(_) | Step::Rest(_) => self.late_or(timed_out()).ok(),
        }
    }

    /// Starts a flight if nothing usable is held.
    pub(crate) fn warm_up(&self) {
        let held = {
            let control = self.lock();
            control.peek(self.now(), Phase::RefreshDue).is_some()
        };
        if !held {
            // What it answers is of no interest: whoever asks next is told.
            self.step(Purpose::Need);
        }
    }

    /// Decides for a caller: an answer, or a flight to wait for, which is started when there is none.
    fn step(&self, purpose: Purpose) -> Step {
        if let Some(fault) = &self.fault {
            return Step::Answer(Err(fault.clone()));
        }
        let mut control = self.lock();
        let now = self.now();
        let answer = match purpose {
            Purpose::Need => control.take(now, Phase::RefreshDue),
            _ => None,
        };
        if let Some(token) = answer {
            return Step::Answer(Ok(token));
        }
        let late = match purpose {
            Purpose::Need => control.take(now, Phase::Expiring),
            _ => None,
        };
        if let Some(refusal) = self.refusal(&mut control, now) {
            return Step::Answer(late.ok_or(refusal));
        }
        if let Some(token) = late.filter(|_| control.pause_at(now).is_some()) {
            return Step::Answer(Ok(token));
        }
        if let Some(flight) = control.in_the_air() {
            return Step::Board(flight);
        }
        if let Some(poll) = control.poll.as_ref().filter(|poll| !poll.at.has_passed()) {
            return Step::Rest(poll.at);
        }
        let (flight, ticket) = self.take_seat(&mut control, purpose);
        drop(control);
        self.launch(&flight, ticket);
        Step::Board(flight)
    }

    /// Why no flight may be started or boarded, if so.
    fn refusal(&self, control: &mut Control, now: Timestamp) -> Option<Error> {
        if is_reentrant(self.id.number()) {
            return Some(Error::config(
                "the provider calls its own manager, which is waiting for the provider; give it another manager",
            ));
        }
        if control.shut_down {
            return Some(Error::new(ErrorKind::Shutdown, "the manager was shut down; build a new one"));
        }
        if control.too_many_lost() {
            return Some(Error::new(ErrorKind::Unavailable, TOO_MANY_ABANDONED));
        }
        let pause = control.pause_at(now)?;
        Some(pause.error.clone()?.with_retry_after(now.until(pause.until)))
    }

    /// Waits for a flight until the caller's deadline, and gives it up at its own.
    fn ride(&self, flight: &Arc<InFlight<Landed>>, deadline: Deadline) -> Result<Landed, Error> {
        match flight.wait(deadline.min(flight.deadline())) {
            Some(outcome) => outcome,
            None if !flight.deadline().has_passed() => Err(timed_out()),
            None => {
                self.give_up(flight);
                flight.wait(deadline).unwrap_or_else(|| Err(timed_out()))
            }
        }
    }

    /// The held token if it is not dead, else the error.
    fn late_or(&self, error: Error) -> Result<Token, Error> {
        let mut control = self.lock();
        let now = self.now();
        control.take(now, Phase::Expiring).ok_or(error)
    }

    /// Takes `token` out of use, here before it returns and for the others in the shared store.
    pub(crate) fn reject(&self, token: &Token) -> Result<(), Error> {
        self.checked()?;
        let (name, remaining) = (token.fingerprint().to_owned(), token.remaining());
        let news = {
            let mut control = self.lock();
            let now = self.now();
            if !control.heeds_rejection_of(token, now) {
                return Ok(());
            }
            let news = self.drop_rejected(&mut control, &name, now.after(remaining), now);
            self.look_again(&control, now);
            news
        };
        self.recorder.count(|metrics| metrics.rejections += 1);
        self.tell(news);
        self.watch_record();
        self.tell_both(|sharing, now| sharing.reject(&name, now.after(remaining)))
    }

    pub(crate) fn drop_rejected(
        &self,
        control: &mut Control,
        fingerprint: &str,
        end: Timestamp,
        now: Timestamp,
    ) -> Vec<EventKind> {
        let held = control.held.take();
        self.cache.clear();
        control.note_rejected(fingerprint, end, now);
        control.poll = None;
        // That the same token would come again is a reason to leave the provider alone only while it is good.
        control.pause = control.pause.take().filter(|pause| pause.error.is_some());
        let mut news = vec![EventKind::Rejected { fingerprint: fingerprint.to_owned() }];
        let Some(held) = held else { return news };
        let in_a_row = control.young_at.is_some_and(|at| now.since(at) < IN_A_ROW);
        let young = now.since(held.since) < YOUNG;
        control.young_rejections = u32::from(young) * (1 + if in_a_row { control.young_rejections } else { 0 });
        control.young_at = Some(now);
        let Some(surplus) = control.young_rejections.checked_sub(MOST_YOUNG_REJECTIONS) else { return news };
        let retry_in = self.policy.cooldown(surplus + 1, &refused(), fastrand::f64());
        let until = now.after(retry_in);
        // What the provider asked for may be longer.
        if control.pause.as_ref().is_none_or(|pause| pause.until.ends_before(until)) {
            control.pause = Some(Pause { until, error: Some(refused()) });
            control.last_error = Some((refused(), now));
            news.push(EventKind::Failed { error: refused(), retry_in });
        }
        news
    }

    /// Forgets the token, here and in the shared store, and any pause.
    pub(crate) fn invalidate(&self) -> Result<(), Error> {
        self.checked()?;
        let held = {
            let mut control = self.lock();
            control.generation += 1;
            control.pause = None;
            control.poll = None;
            control.failures = 0;
            control.young_rejections = 0;
            self.cache.clear();
            let now = self.now();
            let held = control.held.take().map(|held| (held.token.fingerprint().to_owned(), held.schedule.ends_at));
            if let Some((name, end)) = held.as_ref().filter(|_| self.sharing.is_some()) {
                // Until the others are told it is still recorded, and must not come back from there.
                control.note_forgotten(name, *end, now);
            }
            self.look_again(&control, now);
            held
        };
        self.announce(&EventKind::Invalidated);
        self.watch_record();
        let told = self.tell_both(|sharing, _| sharing.forget(held.as_ref().map(|(name, end)| (name.as_str(), *end))));
        if let (Ok(()), Some((name, _))) = (&told, &held) {
            // The provider may give it again.
            self.lock().rejected.retain(|rejected| rejected.fingerprint != *name);
        }
        told
    }

    pub(crate) fn checked(&self) -> Result<(), Error> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// Writes to the shared store.
    pub(crate) fn tell_the_others(
        &self,
        work: impl FnOnce(&Sharing, Timestamp) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match &self.sharing {
            Some(_) if self.store_rests() => {
                let cause = self.lock().store.down.as_ref().map(|down| format!(": {}", down.error));
                Err(Error::new(ErrorKind::Store, format!("the store cannot be used{}", cause.unwrap_or_default())))
            }
            Some(sharing) => self.note_store(work(sharing, self.now())),
            None => Ok(()),
        }
    }

    /// Ends the fetching. True when nothing was in the air any more before `wait` was over.
    pub(crate) fn shut_down(&self, wait: Duration) -> bool {
        let flight = {
            let mut control = self.lock();
            control.shut_down = true;
            self.look_again(&control, self.now());
            control.in_the_air()
        };
        let deadline = Deadline::within(wait);
        let landed = flight.is_none_or(|flight| flight.wait(deadline).is_some());
        self.leave_state_until(deadline);
        landed
    }

    /// The last handle is gone: what is in the air still lands, but nothing is looked after any more.
    pub(crate) fn retire(&self) {
        self.leave_state();
        let watch = {
            let mut control = self.lock();
            control.retired = true;
            self.look_again(&control, self.now());
            control.store.watch.take()
        };
        drop(watch);
    }
}

fn timed_out() -> Error {
    Error::new(ErrorKind::TimedOut, "no token arrived before the deadline of the call; a fetch in flight goes on")
}

fn still_the_same() -> Error {
    Error::new(ErrorKind::Unavailable, "the provider keeps returning the expired token")
}

fn refused() -> Error {
    Error::new(ErrorKind::TokenRejected, REFUSED_IN_A_ROW)
}

const REFUSED_IN_A_ROW: &str = "the service refused several new tokens in a row, so fetching pauses; check the app's rights and this machine's clock";

const TOO_MANY_ABANDONED: &str =
    "too many fetches of this provider never returned; nothing is fetched until one of them does";

/// A token that is rejected so soon after it came was probably not the reason for the rejection.
const YOUNG: Duration = Duration::from_secs(10);

/// After so many rejections of young tokens in a row, fetching more of them has to wait.
const MOST_YOUNG_REJECTIONS: u32 = 3;

/// Rejections that lie further apart are not in a row.
const IN_A_ROW: Duration = Duration::from_secs(60);
