//! What the refresher does for a manager: renews what is due, compares with the store, drops what is dead.

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use crate::clock::{Notifier, Timestamp};
use crate::manager::control::{Control, Purpose};
use crate::manager::keeper::Keeper;
use crate::policy::Phase;
use crate::scheduler::{self, Next, Task};
use crate::store::Subscription;

impl Keeper {
    /// Has the refresher look when the next thing is due. Called under the lock of `control`, so that of two changes
    /// the later one has the last word.
    pub(crate) fn look_again(&self, control: &Control, now: Timestamp) {
        self.note_when_to_look(control, now);
        scheduler::ensure_running();
    }

    /// The same where the refresher is started later.
    pub(crate) fn note_when_to_look(&self, control: &Control, now: Timestamp) {
        let ended = control.retired || control.shut_down;
        match self.next_moment(control, now).filter(|_| !ended) {
            Some(at) => scheduler::register(self.id, self.me.clone(), &self.time, at),
            None => scheduler::remove(self.id),
        }
    }

    /// A token that was due and unused is in use again.
    #[cold]
    pub(crate) fn on_read(&self) {
        scheduler::schedule(self.id, self.me.clone(), &self.time, self.now());
    }

    /// Has the store tell when the record of the held token changes, if that is wanted and the store can; and no longer
    /// when none is held.
    pub(crate) fn watch_record(&self) {
        let Some(sharing) = self.sharing.as_ref().filter(|_| self.settings.watch) else { return };
        let process = std::process::id();
        let is_watched = |control: &Control| control.store.watch.as_ref().is_some_and(|(of, _)| *of == process);
        let ended = {
            let mut control = self.lock();
            if control.held.is_some() && (control.retired || is_watched(&control)) {
                return;
            }
            control.held.is_none().then(|| control.store.watch.take())
        };
        if let Some(ended) = ended {
            drop(ended);
            return;
        }
        let me = self.me.clone();
        let notifier = Notifier::new(move || {
            if let Some(keeper) = me.upgrade() {
                keeper.hear_news();
            }
        });
        let Some(watch) = sharing.watch(notifier).map(|watch| (process, watch)) else { return };
        let mut control = self.lock();
        let surplus = if control.retired || control.held.is_none() || is_watched(&control) {
            Some(watch)
        } else {
            control.store.watch.replace(watch)
        };
        drop(control);
        // Only now, when the lock is free: it is the store's.
        drop(surplus);
    }

    fn hear_news(&self) {
        let mut control = self.lock();
        control.store.news = control.held.is_some();
        if control.store.news {
            self.look_again(&control, self.now());
        }
    }

    /// When there is something to do. `None`: nothing is held, and nothing to be kept warm.
    fn next_moment(&self, control: &Control, now: Timestamp) -> Option<Timestamp> {
        if let Some(flight) = control.in_the_air() {
            // It looks again when it lands; this is for one that does not.
            return Some(now.after(flight.deadline().remaining()));
        }
        let waits = control.renewal_waits_until(now);
        let Some(held) = &control.held else {
            let warm = (self.settings.keep_warm && control.last.is_some()).then(|| waits.unwrap_or(now));
            let look_at = self.state_look_at(control, now);
            return warm.into_iter().chain(look_at).reduce(Timestamp::sooner);
        };
        let renewal = waits.map_or(held.schedule.refresh_at, |at| held.schedule.refresh_at.later(at));
        let look_at = if control.store.has_news() { Some(now) } else { control.store.look_at };
        let look_at = look_at.filter(|_| self.sharing.is_some());
        let others = [Some(held.schedule.expired_at), look_at, self.state_look_at(control, now), control.report_at];
        Some(others.into_iter().flatten().fold(renewal, Timestamp::sooner))
    }

    /// When to look at the store for the sake of the provider's state, whether a token is held or not.
    fn state_look_at(&self, control: &Control, now: Timestamp) -> Option<Timestamp> {
        let wanted = self.sharing.is_some() && self.keeping.is_some() && control.looks_for_a_state(now);
        wanted.then(|| control.store.look_at.unwrap_or(now))
    }

    /// Starts a flight in the background, if there is room.
    fn take_off(&self, mut control: MutexGuard<'_, Control>, purpose: Purpose) -> Next {
        let Some(permit) = scheduler::try_permit(self.id) else { return Next::WhenPermitFree };
        let (flight, ticket) = self.take_seat(&mut control, purpose);
        drop(control);
        flight.attach_permit(Box::new(permit));
        self.launch(&flight, ticket);
        Next::At(self.now().after(flight.deadline().remaining()))
    }

    fn rest_or_leave(&self, control: &Control, now: Timestamp) -> Next {
        self.next_moment(control, now).map_or(Next::Done, Next::At)
    }

    /// Has the next reader call [`on_read`](Keeper::on_read); true when one came while that was being arranged.
    fn is_read_after_arming(&self, hits: u64) -> bool {
        self.cache.notify_on_next_read();
        self.cache.reads() > hits
    }

    fn report(&self, now: Timestamp) {
        let Some(every) = self.settings.log_metrics_every else { return };
        let due = {
            let mut control = self.lock();
            let due = control.report_at.is_some_and(|at| now.reaches(at));
            if due {
                control.report_at = Some(now.after(every));
            }
            due
        };
        if due {
            log::info!(target: "evertoken", "{} {}: {}", self.provider.name(), self.key, self.metrics());
        }
    }
}

impl Task for Keeper {
    fn run(self: Arc<Self>) -> Next {
        let now = self.now();
        self.report(now);
        let mut ended = None;
        let next = self.do_what_is_due(now, &mut ended);
        // Only now, when the lock is free: it is the store's.
        drop(ended);
        next
    }
}

impl Keeper {
    fn do_what_is_due(&self, now: Timestamp, ended: &mut Option<(u32, Subscription)>) -> Next {
        let mut control = self.lock();
        if control.retired || control.shut_down {
            return Next::Done;
        }
        if let Some(flight) = control.in_the_air() {
            if flight.deadline().has_passed() {
                drop(control);
                self.give_up(&flight);
                return Next::At(now);
            }
            return self.next_moment(&control, now).map_or(Next::Done, Next::At);
        }
        if control.held.as_ref().is_some_and(|held| held.schedule.phase(now) == Phase::Expired) {
            // Nobody gets it any more, so it need not lie about.
            control.held = None;
            self.cache.clear();
            *ended = control.store.watch.take();
        }
        if control.too_many_lost() {
            return Next::At(now.after(LONG_PAUSE));
        }
        if self.state_look_at(&control, now).is_some_and(|at| now.reaches(at)) {
            return self.take_off(control, Purpose::Look);
        }
        if control.held.is_some() && control.store.has_news() {
            return self.take_off(control, Purpose::Look);
        }
        let hits = self.cache.reads();
        let keep_warm = self.settings.keep_warm;
        let waits = control.renewal_waits_until(now).is_some();
        let Some(held) = &control.held else {
            let warm = keep_warm && control.last.is_some();
            return if warm && !waits {
                self.take_off(control, Purpose::Ahead)
            } else {
                self.rest_or_leave(&control, now)
            };
        };
        let phase = held.schedule.phase(now);
        if phase >= Phase::RefreshDue && !waits {
            let dead = held.schedule.expired_at;
            if held.is_used(hits) || keep_warm || self.is_read_after_arming(hits) {
                return self.take_off(control, Purpose::Ahead);
            }
            let others = [control.report_at, self.state_look_at(&control, now)];
            return Next::At(others.into_iter().flatten().fold(dead, Timestamp::sooner));
        }
        if self.sharing.is_some() && control.store.look_at.is_none_or(|at| now.reaches(at)) {
            if control.has_something_to_store() || hits > control.store.hits || self.is_read_after_arming(hits) {
                return self.take_off(control, Purpose::Look);
            }
            control.store.look_at = None;
        }
        self.rest_or_leave(&control, now)
    }
}

/// When every fetch hangs, looking at it more often does not help.
const LONG_PAUSE: Duration = Duration::from_secs(30);
