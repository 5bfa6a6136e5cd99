//! What follows from what has happened: one method for each input.

use std::time::Duration;

use super::access_token::{Fingerprint, Sequence};
use super::cooldown::{self, Cooldown, Reason};
use super::known::Proof;
use super::machine::Machine;
use super::refresh::Goal;
use super::rejection::{EarlyRejections, RejectedToken};
use super::step::Stored;
use super::timers::{self, Timer};
use super::{Action, Answer, Env, Input, Notice, ProcessId, judge};
use crate::clock::Timestamp;
use crate::policy::Phase;
use crate::secret::Secret;

impl Machine {
    /// Takes in what has happened. The driver performs the actions, the first ones under the lock: see [`Action`].
    pub(crate) fn handle(&mut self, env: &Env<'_>, input: Input, actions: &mut Vec<Action>) -> Answer {
        let answer = match input {
            Input::Call { patience } => self.call(env, patience, actions),
            Input::Force { than, patience } => self.force(env, than, patience, actions),
            Input::Rejected { fingerprint } => self.reject(env, fingerprint, actions),
            Input::Invalidated => self.invalidate(env, actions),
            Input::TicketSet(secret) => self.set_ticket(env, secret, actions),
            Input::Recorded(stored) => self.take_record(env, &stored),
            Input::RecordChanged => self.hear_of_change(),
            Input::ReadAfterIdle => self.wake_up(env),
            Input::Timer => self.timer(env, actions),
            Input::Shutdown => self.stop(actions),
            Input::HandleDropped => self.drop_handle(env, actions),
            Input::Forked(process) => self.fork(process),
        };
        self.serve(env, actions);
        answer
    }

    /// The next thing that happens by itself. Derived from the state, never kept beside it.
    pub(crate) fn next_timer(&self, env: &Env<'_>) -> Option<(Timer, Timestamp)> {
        timers::next(self, env)
    }
}

/// One method for each input.
impl Machine {
    fn call(&mut self, env: &Env<'_>, patience: Duration, actions: &mut Vec<Action>) -> Answer {
        let pause = self.pause(env).filter(|pause| !matches!(pause.reason, Reason::Busy));
        if let Some(token) = self.known.record.usable(env) {
            let is_expiring = judge::phase(token, env) >= Phase::Expiring;
            if !is_expiring || pause.is_some() || self.known.is_stopping {
                let token = token.clone();
                self.usage.is_taken = true;
                return Answer::Token(token);
            }
        }
        if self.known.is_stopping {
            return Answer::Failed(cooldown::shut_down());
        }
        if self.in_flight.is_some() {
            return self.wait();
        }
        let Some(pause) = pause else {
            self.start(env, Goal::Usable, actions);
            return self.wait();
        };
        self.call_during_cooldown(env, &pause, patience, actions)
    }

    fn call_during_cooldown(
        &mut self,
        env: &Env<'_>,
        pause: &Cooldown,
        patience: Duration,
        actions: &mut Vec<Action>,
    ) -> Answer {
        // Another process may have put a token into the store.
        let store = &self.known.store;
        let may_read_at = store.last_read.after(env.rules.store_check_interval);
        let may_try_at = store.last_try.after(env.rules.store_retry).later(store.rests_until());
        let can_read = self.known.has_news || env.now.reaches(may_read_at) && env.now.reaches(may_try_at);
        if env.rules.has_store && can_read {
            self.start(env, Goal::Sync, actions);
            return self.wait();
        }
        if pause.passes() && env.now.until(pause.until) < patience {
            return self.wait();
        }
        Answer::Failed(pause.error(env.now))
    }

    /// Another token than the one with the number `than`, which was the current one when the caller came.
    fn force(&mut self, env: &Env<'_>, than: Sequence, patience: Duration, actions: &mut Vec<Action>) -> Answer {
        let current = self.known.record.usable(env);
        let is_spaced =
            self.forced.is_some_and(|(_, at)| !env.now.reaches(at.after(env.rules.profile.min_forced_interval)));
        if let Some(token) = current.filter(|token| token.sequence > than || is_spaced) {
            return Answer::Token(token.clone());
        }
        // A refresh for this call has ended, and the provider has returned the same token.
        if self.forced.is_some_and(|(sequence, _)| sequence == than) && self.is_unchanged(env) {
            let token = current.cloned();
            return token.map_or_else(|| Answer::Failed(cooldown::still_unchanged()), Answer::Token);
        }
        if self.known.is_stopping {
            return Answer::Failed(cooldown::shut_down());
        }
        if self.in_flight.is_some() {
            return self.wait();
        }
        match self.pause(env) {
            Some(pause) if matches!(pause.reason, Reason::Failed(_)) => {
                let waits = pause.passes() && env.now.until(pause.until) < patience;
                if waits { self.wait() } else { Answer::Failed(pause.error(env.now)) }
            }
            _ => {
                self.start(env, Goal::NewerThan(than), actions);
                self.wait()
            }
        }
    }

    /// A service refused a token. Only the current one counts: every other one has been replaced already.
    fn reject(&mut self, env: &Env<'_>, fingerprint: Fingerprint, actions: &mut Vec<Action>) -> Answer {
        let Some(token) = self.known.record.token.clone() else { return self.suspect(env, fingerprint, actions) };
        let is_ignored =
            self.known.reinstated.is_some_and(|(name, until)| name == fingerprint && !env.now.reaches(until));
        if token.fingerprint != fingerprint || is_ignored || token.sequence <= self.known.record.rejections.through {
            return Answer::Done;
        }
        if self.is_refused_by_all(env) {
            // Another fetch would not help. The newest token stays for those whose requests are accepted.
            return Answer::Failed(cooldown::refused_by_services());
        }
        let is_early = self.count_early(env, &token);
        if is_early && self.known.record.rejections.early.count >= env.rules.early_limit {
            self.pause_all(env, actions);
            self.publish_soon(env, actions);
            return Answer::Failed(cooldown::refused_by_services());
        }
        self.known.record.reject(&RejectedToken::of(&token));
        // That the provider would return the same token is a reason to wait only while the token is good.
        self.known.cooldown.take_if(|cooldown| matches!(cooldown.reason, Reason::Unchanged));
        actions.push(Action::Emit(Notice::Rejected { fingerprint }));
        self.publish_soon(env, actions)
    }

    /// A token that is not known here was rejected. The store may have it.
    fn suspect(&mut self, env: &Env<'_>, fingerprint: Fingerprint, actions: &mut Vec<Action>) -> Answer {
        let is_known = self.known.record.rejections.find(fingerprint).is_some();
        if is_known || !env.rules.has_store {
            return Answer::Done;
        }
        self.known.suspect = Some(fingerprint);
        self.sync(env, actions)
    }

    fn invalidate(&mut self, env: &Env<'_>, actions: &mut Vec<Action>) -> Answer {
        let current = self.known.record.token.clone();
        // A number of its own, so that whatever is in flight anywhere is covered.
        let through = self.known.reserve(env.now);
        let rejections = &mut self.known.record.rejections;
        if let Some(token) = &current {
            rejections.remember(&RejectedToken { is_invalidated: true, ..RejectedToken::of(token) });
        }
        (rejections.through, rejections.early) = (through, EarlyRejections::default());
        let end = current.map_or(env.now.after(env.rules.lease()), |token| token.end);
        rejections.until = Some(rejections.until.map_or(end, |until| until.later(end)));
        self.known.record.forgive_through(through);
        (self.known.cooldown, self.known.failures, self.known.reinstated) = (None, 0, None);
        actions.push(Action::Emit(Notice::Invalidated));
        self.publish_soon(env, actions)
    }

    fn set_ticket(&mut self, env: &Env<'_>, secret: Secret, actions: &mut Vec<Action>) -> Answer {
        let Some(profile) = env.rules.renewal.as_ref().filter(|profile| !profile.rotates) else { return Answer::Done };
        // At least the wall clock: of two tickets that came to two processes the later one has the higher number.
        let known = self.known.renewal.held.as_ref().map_or(0, |held| held.number).max(self.known.renewal.highest);
        let before = known.max(env.now.epoch_milliseconds());
        self.known.renewal.replace(secret, before, profile.lifetime, env);
        self.known.ticket_has_come();
        self.forgive_want_of_ticket(env);
        self.publish_soon(env, actions)
    }

    /// Covers the fetches of other processes that are in flight without the ticket.
    fn forgive_want_of_ticket(&mut self, env: &Env<'_>) {
        if self.known.record.active_failure(env.now).is_none() {
            let number = self.known.reserve(env.now);
            self.known.record.forgive_through(number);
        }
    }

    /// A record that the store told without any waiting: most programs that find a token there need nothing else.
    fn take_record(&mut self, env: &Env<'_>, stored: &Stored) -> Answer {
        self.known.merge(&stored.record, env);
        self.known.is_unpublished |= self.known.record.adds_to(&stored.record, env);
        self.known.store_answered(Proof::Read, env, &mut Vec::new());
        let token = self.known.record.usable(env).filter(|token| judge::phase(token, env) < Phase::Expiring);
        match token.cloned() {
            Some(token) => {
                self.usage.is_taken = true;
                Answer::Token(token)
            }
            None => Answer::Done,
        }
    }

    fn hear_of_change(&mut self) -> Answer {
        self.known.has_news = true;
        Answer::Done
    }

    fn wake_up(&mut self, env: &Env<'_>) -> Answer {
        self.usage.is_idle = false;
        self.usage.reads_at_check = env.reads.saturating_sub(1);
        Answer::Done
    }

    fn timer(&mut self, env: &Env<'_>, actions: &mut Vec<Action>) -> Answer {
        let Some((timer, at)) = self.next_timer(env) else { return Answer::Done };
        if !env.now.reaches(at) {
            return Answer::Done;
        }
        match timer {
            Timer::Abandon => self.abandon(env, actions),
            Timer::CooldownEnds => {
                self.known.cooldown = None;
                self.wake_waiters(actions);
            }
            Timer::RefreshDue if self.is_used_since(env, self.usage.reads_at_grant) => {
                self.start(env, Goal::Fresh, actions);
            }
            Timer::StoreCheck if self.wants_store_check(env) => {
                self.usage.reads_at_check = env.reads;
                self.start(env, Goal::Sync, actions);
            }
            Timer::RefreshDue | Timer::StoreCheck => self.fall_asleep(actions),
            Timer::StoreRetry => self.start(env, Goal::Sync, actions),
            Timer::Expired => self.wipe_expired(),
        }
        Answer::Done
    }

    /// The name stays: the provider may return the token after its end.
    fn wipe_expired(&mut self) {
        let record = &mut self.known.record;
        if let Some(token) = record.token.take() {
            record.rejections.remember(&RejectedToken { is_invalidated: true, ..RejectedToken::of(&token) });
        }
    }

    fn wants_store_check(&self, env: &Env<'_>) -> bool {
        let is_used = self.is_used_since(env, self.usage.reads_at_check);
        is_used || self.known.has_news || self.waits_for_ticket(env)
    }

    fn stop(&mut self, actions: &mut Vec<Action>) -> Answer {
        self.known.is_stopping = true;
        self.wake_waiters(actions);
        Answer::Done
    }

    /// `Wait` means: keep the process until the refresh in flight has ended, because a renewal secret would be lost.
    fn drop_handle(&mut self, env: &Env<'_>, actions: &mut Vec<Action>) -> Answer {
        self.known.is_stopping = true;
        let is_spent = self.known.renewal.spender.is_some();
        if !is_spent && !self.known.renewal.is_unstored {
            return Answer::Done;
        }
        if self.in_flight.is_none() && self.abandoned.is_empty() {
            self.start(env, Goal::Sync, actions);
        }
        Answer::Wait
    }

    /// A forked child has the memory of the parent process and none of its threads.
    fn fork(&mut self, process: ProcessId) -> Answer {
        self.process = process;
        (self.in_flight, self.has_waiters, self.is_watching) = (None, false, false);
        self.abandoned.clear();
        self.known.renewal.spender = None;
        Answer::Done
    }
}
