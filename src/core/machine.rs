//! One credential in one process: what callers are told, when a refresh starts, and when it is abandoned.

use std::time::Duration;

use super::access_token::{AccessToken, Fingerprint, Sequence};
use super::cooldown::{self, Cooldown, Reason};
use super::known::Known;
use super::record::Failure;
use super::refresh::{Goal, Refresh, View};
use super::step::{Reply, Step};
use super::{Action, Answer, Env, Notice, ProcessId, RefreshId, judge};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};

/// The refresh that callers wait for.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct InFlight {
    pub(crate) id: RefreshId,
    pub(crate) goal: Goal,
    /// When the refresh is abandoned, unless its step comes back before.
    pub(crate) limit: Timestamp,
}

/// The token that the cache answers with.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Served {
    pub(super) fingerprint: Fingerprint,
    pub(super) sequence: Sequence,
    pub(super) end: Timestamp,
    pub(super) since: Timestamp,
}

/// How often callers have read the cache: a token that nobody reads is not refreshed.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Use {
    pub(super) reads_at_grant: u64,
    pub(super) reads_at_check: u64,
    /// A caller that waited has got the token.
    pub(super) is_taken: bool,
    /// The next read is to be reported.
    pub(super) is_idle: bool,
}

#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Machine {
    pub(super) process: ProcessId,
    pub(crate) known: Known,
    pub(super) in_flight: Option<InFlight>,
    /// Refreshes that were abandoned and whose threads have not returned.
    pub(super) abandoned: Vec<RefreshId>,
    pub(super) has_waiters: bool,
    pub(super) served: Option<Served>,
    pub(super) usage: Use,
    pub(super) is_watching: bool,
    /// The last forced refresh: what it was to be newer than, and when it ended.
    pub(super) forced: Option<(Sequence, Timestamp)>,
    pub(super) last_error: Option<(Error, Timestamp)>,
    started: Timestamp,
    last_id: RefreshId,
}

impl Machine {
    pub(crate) fn new(process: ProcessId, now: Timestamp) -> Machine {
        Machine {
            process,
            known: Known::default(),
            in_flight: None,
            abandoned: Vec::new(),
            has_waiters: false,
            served: None,
            usage: Use::default(),
            is_watching: false,
            forced: None,
            last_error: None,
            started: now,
            last_id: RefreshId(0),
        }
    }

    /// Takes in a step's reply and returns the next step. Called for abandoned refreshes too: what they have fetched
    /// is kept.
    pub(crate) fn advance(
        &mut self,
        env: &Env<'_>,
        refresh: &mut Refresh,
        reply: Reply,
        actions: &mut Vec<Action>,
    ) -> Step {
        let mut notices = Vec::new();
        let step = refresh.next(&mut View { env, known: &mut self.known, notices: &mut notices }, reply);
        actions.extend(notices.into_iter().map(Action::Emit));
        let is_over = matches!(step, Step::Finish);
        // A new token can be used before it is published.
        self.serve(env, actions);
        if let Some(in_flight) = self.in_flight.as_mut().filter(|in_flight| in_flight.id == refresh.id) {
            in_flight.limit = step.limit(env).after(GRACE);
            if is_over {
                self.finish(env, refresh, actions);
            }
        }
        if is_over {
            if self.abandoned.contains(&refresh.id) {
                self.abandoned.retain(|id| *id != refresh.id);
                self.wake_waiters(actions);
            }
            self.known.renewal.spender.take_if(|spender| *spender == refresh.id);
        }
        step
    }
}

/// How a refresh starts and ends, and what follows.
impl Machine {
    pub(super) fn start(&mut self, env: &Env<'_>, goal: Goal, actions: &mut Vec<Action>) {
        let id = RefreshId(self.last_id.0.wrapping_add(1));
        self.last_id = id;
        let limit = env.now.after(env.rules.operation).after(GRACE);
        self.in_flight = Some(InFlight { id, goal, limit });
        actions.push(Action::Start(Box::new(Refresh::new(id, self.process, goal, env))));
    }

    pub(super) fn sync(&mut self, env: &Env<'_>, actions: &mut Vec<Action>) -> Answer {
        if self.in_flight.is_none() {
            self.start(env, Goal::Sync, actions);
        }
        Answer::Wait
    }

    /// Has the store told of what is known here. A refresh in flight sees the change by itself.
    pub(super) fn publish_soon(&mut self, env: &Env<'_>, actions: &mut Vec<Action>) -> Answer {
        if !env.rules.has_store {
            return Answer::Done;
        }
        self.known.is_unpublished = true;
        self.sync(env, actions)
    }

    pub(super) fn wait(&mut self) -> Answer {
        self.has_waiters = true;
        Answer::Wait
    }

    pub(super) fn wake_waiters(&mut self, actions: &mut Vec<Action>) {
        self.has_waiters = false;
        actions.push(Action::Wake);
    }

    fn finish(&mut self, env: &Env<'_>, refresh: &Refresh, actions: &mut Vec<Action>) {
        self.in_flight = None;
        if let Goal::NewerThan(sequence) = refresh.goal {
            self.forced = Some((sequence, env.now));
        }
        if let Some(Cooldown { reason: Reason::Failed(error), .. }) = &refresh.outcome {
            self.last_error = Some((error.clone(), env.now));
        }
        // A comparison with the store says nothing about the provider.
        if refresh.goal != Goal::Sync {
            self.known.cooldown = cooldown::later(self.known.cooldown.take(), refresh.cooldown(&self.known), env.now);
        }
        self.wake_waiters(actions);
    }

    pub(super) fn abandon(&mut self, env: &Env<'_>, actions: &mut Vec<Action>) {
        let Some(in_flight) = self.in_flight.take() else { return };
        self.abandoned.push(in_flight.id);
        let error = cooldown::not_returned();
        let (wait, count) = env.rules.policy.next_cooldown(self.known.failures, &error, env.random);
        self.known.failures = count;
        self.known.cooldown = Some(Cooldown::failed(error.clone(), wait, env));
        self.last_error = Some((error.clone(), env.now));
        actions.push(Action::Emit(Notice::Failed { error, retry_in: wait }));
        self.wake_waiters(actions);
    }

    /// Counts a rejection that came soon after the grant. Returns whether it did.
    pub(super) fn count_early(&mut self, env: &Env<'_>, token: &AccessToken) -> bool {
        let early = &mut self.known.record.rejections.early;
        let is_early = token.age(env.now) < env.rules.early;
        let is_in_row = early.last.is_some_and(|last| env.now.since(last) < env.rules.early_window);
        early.count = if !is_early {
            0
        } else if is_in_row {
            early.count + 1
        } else {
            1
        };
        early.last = Some(env.now);
        is_early
    }

    /// Services refuse every new token: fetching pauses in all processes.
    pub(super) fn pause_all(&mut self, env: &Env<'_>, actions: &mut Vec<Action>) {
        let error = cooldown::refused_by_services();
        let surplus = self.known.record.rejections.early.count.saturating_sub(env.rules.early_limit);
        let retry_in = env.rules.policy.cooldown(surplus + 1, &error, env.random);
        let (number, retry_at) = (self.known.reserve(env.now), env.now.after(retry_in));
        let failure = Failure { number, error: error.clone(), retry_at, count: surplus + 1 };
        self.known.record.note_failure(&failure, env);
        self.last_error = Some((error.clone(), env.now));
        actions.push(Action::Emit(Notice::Failed { error, retry_in }));
    }

    /// Sets or clears the cache whenever the usable token has changed.
    pub(super) fn serve(&mut self, env: &Env<'_>, actions: &mut Vec<Action>) {
        let current = self.known.record.usable(env);
        let served = self.served.map(|served| (served.fingerprint, served.sequence, served.end));
        if current.map(|token| (token.fingerprint, token.sequence, token.end)) == served {
            return;
        }
        let Some(token) = current.cloned() else {
            self.served = None;
            actions.push(Action::Withdraw);
            return self.watch(env, false, actions);
        };
        let is_new = served.is_none_or(|(name, sequence, _)| (name, sequence) != (token.fingerprint, token.sequence));
        if is_new {
            let is_in_background = served.is_some() && self.in_flight.is_some_and(|flight| flight.goal == Goal::Fresh);
            let is_fetched_here = self.known.fetched == token.sequence;
            let fingerprint = token.fingerprint;
            actions.push(Action::Emit(Notice::Granted { fingerprint, is_fetched_here, is_in_background }));
            self.known.spread = (env.random.clamp(0.0, 1.0) * 1000.0) as u16;
            self.usage = Use { reads_at_grant: env.reads, reads_at_check: env.reads, ..Use::default() };
        }
        let since = self.served.filter(|_| !is_new).map_or(env.now, |served| served.since);
        self.served = Some(Served { fingerprint: token.fingerprint, sequence: token.sequence, end: token.end, since });
        let schedule = judge::schedule(&token, self.known.spread, env);
        let until = schedule.expiring_at.sooner(schedule.expired_at);
        actions.push(Action::Serve { token: Box::new(token), until });
        // A caller need not wait until the token is published as well.
        self.wake_waiters(actions);
        self.watch(env, true, actions);
    }

    fn watch(&mut self, env: &Env<'_>, is_wanted: bool, actions: &mut Vec<Action>) {
        if env.rules.watches && is_wanted != self.is_watching {
            self.is_watching = is_wanted;
            actions.push(Action::Watch(is_wanted));
        }
    }

    pub(super) fn fall_asleep(&mut self, actions: &mut Vec<Action>) {
        self.usage.is_idle = true;
        actions.push(Action::ReportNextRead);
    }
}

/// What the state says.
impl Machine {
    /// The cooldown of this process, or the failure that all share, whichever lasts longer.
    pub(crate) fn pause(&self, env: &Env<'_>) -> Option<Cooldown> {
        let shared = self.known.record.active_failure(env.now).map(Cooldown::of);
        // When so many fetches have never returned, another one would not either.
        let abandoned = || Cooldown::failed(cooldown::too_many_abandoned(), UNTIL_ONE_RETURNS, env);
        let local = self.has_too_many_abandoned().then(abandoned).or_else(|| self.known.cooldown.clone());
        cooldown::later(local, shared, env.now)
    }

    /// The last refresh that was started.
    pub(crate) fn last_id(&self) -> RefreshId {
        self.last_id
    }

    pub(crate) fn in_flight(&self) -> Option<InFlight> {
        self.in_flight
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.known.is_stopping
    }

    pub(crate) fn has_waiters(&self) -> bool {
        self.has_waiters
    }

    /// True while the cache may still hold a token.
    pub(super) fn is_serving(&self) -> bool {
        self.served.is_some()
    }

    /// True when a token was held before, so that keeping warm means to hold one again.
    pub(super) fn was_held(&self) -> bool {
        self.known.record.token.is_some() || !self.known.record.rejections.recent.is_empty()
    }

    /// A short process does not spend a rotating secret beside its callers.
    pub(super) fn refreshes_ahead(&self, env: &Env<'_>) -> bool {
        !env.rules.rotates() || env.now.reaches(self.started.after(env.rules.young))
    }

    /// True unless nobody has read the token since the last look.
    pub(super) fn is_awake(&self, env: &Env<'_>) -> bool {
        env.rules.keeps_warm || !self.usage.is_idle
    }

    /// True when another process may have the ticket that is missing here.
    pub(super) fn waits_for_ticket(&self, env: &Env<'_>) -> bool {
        env.rules.renewal.is_some() && self.pause(env).is_some_and(|pause| pause.is_for(ErrorKind::TicketRequired))
    }

    pub(super) fn is_used_since(&self, env: &Env<'_>, reads: u64) -> bool {
        env.rules.keeps_warm || self.usage.is_taken || env.reads > reads
    }

    pub(super) fn is_unchanged(&self, env: &Env<'_>) -> bool {
        self.pause(env).is_some_and(|pause| matches!(pause.reason, Reason::Unchanged))
    }

    pub(super) fn is_refused_by_all(&self, env: &Env<'_>) -> bool {
        let failure = self.known.record.active_failure(env.now);
        let is_early = self.known.record.rejections.early.count >= env.rules.early_limit;
        is_early && failure.is_some_and(|failure| failure.error.kind() == ErrorKind::TokenRejected)
    }

    fn has_too_many_abandoned(&self) -> bool {
        self.abandoned.len() >= MOST_ABANDONED
    }
}

/// What a step may take beyond its limit before its refresh is abandoned.
const GRACE: Duration = Duration::from_secs(1);

/// Callers that wait meanwhile are woken when a refresh returns.
const UNTIL_ONE_RETURNS: Duration = Duration::from_secs(30);

/// Refreshes that never returned, and their threads, that a process puts up with.
const MOST_ABANDONED: usize = 8;
