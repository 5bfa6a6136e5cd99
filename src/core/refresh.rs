//! One refresh as steps. The driver performs each step and hands its reply in; nothing here blocks.
//!
//! A refresh keeps no copy of what the process knows. Each reply is taken in under the machine's lock, and
//! [`Refresh::decide`] then looks at the state of that moment. A rejection, an invalidation or a shutdown that came
//! during the last step is thereby seen before the next one.
//!
//! This file is about stores and leases; `fetch.rs` is about the provider.

use super::access_token::{AccessToken, Fingerprint, Sequence};
use super::cooldown::{self, Cooldown, Reason};
use super::judge;
use super::known::{Known, Proof};
use super::quota::Admission;
use super::renewal::{RenewalSecret, StoredRenewal};
use super::step::{Reply, Step, Stored};
use super::{Env, Notice, ProcessId, RefreshId, Tier};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::policy::Phase;

/// What a refresh is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) enum Goal {
    /// A caller waits for any good token.
    Usable,
    /// Replace a token that is due, in the background.
    Fresh,
    /// A forced refresh: another token than the one with this number.
    NewerThan(Sequence),
    /// Compare with the store only.
    Sync,
}

/// One refresh. It stays with the thread that performs its steps, whether it was abandoned or not.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Refresh {
    pub(crate) id: RefreshId,
    pub(crate) process: ProcessId,
    pub(crate) goal: Goal,
    /// The step whose reply is awaited, and when it was issued.
    pub(crate) step: Step,
    pub(crate) issued: Timestamp,
    /// The store that coordinates this refresh.
    pub(crate) tier: Tier,
    /// What that store holds, as far as this refresh knows.
    pub(crate) seen: Option<Stored>,
    pub(crate) lease_until: Option<Timestamp>,
    /// Until when leases of others are waited for.
    pub(super) gives_up_at: Timestamp,
    pub(super) is_fallback_read: bool,
    /// After an unknown outcome the lease stays until it runs out.
    pub(crate) keeps_lease: bool,
    /// Writes that found another version.
    pub(super) conflicts: u8,
    pub(crate) fetch: FetchState,
    /// Why the goal was not reached.
    pub(crate) outcome: Option<Cooldown>,
}

/// What a refresh has prepared for its request, and what came of the request.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct FetchState {
    pub(crate) reserved: Sequence,
    /// What was rejected before the request was sent: only such a token can be reinstated by the reply.
    pub(crate) rejected_before: Sequence,
    /// The renewal secret as the store has it.
    pub(crate) renewal: Option<StoredRenewal>,
    /// The renewal secret to send.
    pub(crate) secret: Option<RenewalSecret>,
    pub(crate) parent: Option<Fingerprint>,
    pub(crate) is_parent_replaced: bool,
    pub(crate) admission: Option<Admission>,
    pub(crate) is_second_call: bool,
    /// The number of a renewal secret that was refused.
    pub(crate) refused: Option<(u64, Error)>,
    /// The new token, until its renewal secret is stored.
    pub(crate) granted: Option<AccessToken>,
    pub(crate) is_done: bool,
    /// The number of the failure, if the fetch failed.
    pub(crate) failure: Option<Sequence>,
}

/// What a refresh sees while it decides.
pub(crate) struct View<'a, 'e> {
    pub(crate) env: &'a Env<'e>,
    pub(crate) known: &'a mut Known,
    pub(crate) notices: &'a mut Vec<Notice>,
}

impl Refresh {
    pub(crate) fn new(id: RefreshId, process: ProcessId, goal: Goal, env: &Env<'_>) -> Refresh {
        Refresh {
            id,
            process,
            goal,
            step: Step::Finish,
            issued: env.now,
            tier: if env.rules.has_store { Tier::Primary } else { Tier::Alone },
            seen: None,
            lease_until: None,
            gives_up_at: env.now.after(env.rules.longest_wait()),
            is_fallback_read: false,
            keeps_lease: false,
            conflicts: 0,
            fetch: FetchState::default(),
            outcome: None,
        }
    }

    /// Takes in the reply to the last step and says what to do next. Called under the machine's lock.
    pub(crate) fn next(&mut self, view: &mut View<'_, '_>, reply: Reply) -> Step {
        self.note_store_health(view, &reply);
        let mut next = self.take_in(view, reply);
        if matches!(next, Step::Finish) && self.lease_until.take().is_some() && !self.keeps_lease {
            next = Step::FreeLease(self.tier);
        }
        (self.step, self.issued) = (next.clone(), view.env.now);
        next
    }

    fn take_in(&mut self, view: &mut View<'_, '_>, reply: Reply) -> Step {
        match (self.step.clone(), reply) {
            (_, Reply::Started) if self.tier == Tier::Primary && view.known.store.rests(view.env) => {
                return self.next_tier(view);
            }
            (_, Reply::Started) => return self.first_step(view),
            (Step::FreeLease(_), _) => return Step::Finish,
            (Step::Read(tier), reply) if tier != self.tier => self.learn_from_fallback(view, reply),
            (step, Reply::StoreDown(error)) => return self.store_is_down(view, &step, error),
            (_, Reply::Found(stored)) => self.learn(view, stored),
            (_, Reply::Leased) => self.leased(view),
            (_, Reply::Busy { remaining }) => return self.wait_for_holder(view, remaining),
            (Step::WaitForChange { .. }, _) if !view.known.is_stopping => return self.first_step(view),
            (Step::WaitForChange { .. }, _) => {}
            (Step::Write { record, .. }, Reply::Written(version)) => {
                self.written(view, Stored { record: *record, version });
            }
            (step, reply) => return self.take_in_fetch(view, step, reply),
        }
        self.decide(view)
    }

    /// What comes next: the first of these that applies.
    pub(super) fn decide(&mut self, view: &mut View<'_, '_>) -> Step {
        // 1. A new renewal secret is stored before the token that came with it is handed out.
        if let Some(step) = self.store_renewal(view) {
            return step;
        }
        if let Some(token) = self.fetch.granted.take_if(|_| self.fetch.is_done) {
            self.adopt(view, token);
        }
        // 2. The store lacks something that is known here.
        if let Some(step) = self.write_what_is_missing(view) {
            return step;
        }
        // 3. During an outage other processes have used the fallback store.
        if self.is_fallback_wanted(view) && !view.known.is_fallback_read {
            return Step::Read(Tier::Fallback);
        }
        // 4. Nothing more is needed, or nothing more can be done.
        if self.is_satisfied(view) || self.outcome.is_some() || self.fetch.is_done || self.goal == Goal::Sync {
            return Step::Finish;
        }
        // 5. The provider must not be asked.
        if let Some(cooldown) = self.must_not_fetch(view) {
            return self.fail(cooldown);
        }
        // 6. Exclusive use: a lease that outlasts a whole fetch and its publication.
        let needed = view.env.rules.least_lease();
        let lasts = self.lease_until.is_some_and(|until| view.env.now.until(until) >= needed);
        if self.tier != Tier::Alone && !lasts {
            return self.read_or_lease();
        }
        // 7. What was fetched while the primary store was down is in the fallback store.
        if self.is_fallback_wanted(view) {
            return Step::Read(Tier::Fallback);
        }
        // 8. What the request needs, and the request.
        self.request(view)
    }

    fn first_step(&mut self, view: &mut View<'_, '_>) -> Step {
        match (self.tier, self.goal) {
            (Tier::Alone, _) => self.decide(view),
            (tier, Goal::Sync) => Step::Read(tier),
            _ => self.read_or_lease(),
        }
    }

    fn read_or_lease(&self) -> Step {
        let seen = self.seen.as_ref().and_then(|seen| seen.version.clone());
        Step::ReadOrLease { tier: self.tier, seen }
    }

    /// True when what is known serves the goal.
    pub(super) fn is_satisfied(&self, view: &View<'_, '_>) -> bool {
        let Some(token) = view.known.record.usable(view.env) else { return false };
        let phase = judge::schedule(token, view.known.spread, view.env).phase(view.env.now);
        match self.goal {
            Goal::Usable => phase < Phase::Expiring,
            Goal::Fresh => phase == Phase::Fresh,
            Goal::NewerThan(sequence) => token.sequence > sequence,
            Goal::Sync => true,
        }
    }

    /// Why the provider must not be asked now.
    fn must_not_fetch(&self, view: &mut View<'_, '_>) -> Option<Cooldown> {
        if view.known.is_stopping {
            return Some(Cooldown::failed(cooldown::shut_down(), std::time::Duration::ZERO, view.env));
        }
        if let Some(failure) = view.known.record.active_failure(view.env.now) {
            return Some(Cooldown::of(failure));
        }
        // On the fallback store this host is alone: other hosts are without the primary store too.
        let is_alone = match self.tier {
            Tier::Alone => view.env.rules.has_store,
            Tier::Fallback => view.env.rules.profile.new_token_ends_old,
            Tier::Primary => false,
        };
        if is_alone { self.must_not_fetch_alone(view) } else { None }
    }

    fn must_not_fetch_alone(&self, view: &View<'_, '_>) -> Option<Cooldown> {
        let (env, known) = (view.env, &view.known);
        if env.rules.rotates() && self.tier == Tier::Alone {
            return Some(Cooldown::failed(secret_needs_store(), env.rules.store_retry, env));
        }
        // Without any token the first fetch is free; with one there is time, counted from the begin of the outage.
        let outage = known.store.down.as_ref().map_or(env.now, |down| down.since);
        let since = known.last_fetch_alone.or(known.is_usable(env).then_some(outage))?;
        let until = since.after(env.rules.store_down_fetch_interval);
        let cooldown = Cooldown { until, reason: Reason::Failed(store_is_down()) };
        cooldown.is_active(env.now).then_some(cooldown)
    }

    /// Why the goal was not reached, unless the failure was forgiven while it was being written.
    pub(super) fn cooldown(&self, known: &Known) -> Option<Cooldown> {
        let is_forgiven = self.fetch.failure.is_some_and(|number| number <= known.record.forgiven_through);
        self.outcome.clone().filter(|_| !is_forgiven)
    }

    /// Ends the refresh without having reached its goal.
    pub(super) fn fail(&mut self, cooldown: Cooldown) -> Step {
        self.outcome = Some(cooldown);
        Step::Finish
    }
}

/// Stores and leases.
impl Refresh {
    /// Notes what a reply says about the primary store. What the fallback store says replaces no look at the primary.
    fn note_store_health(&self, view: &mut View<'_, '_>, reply: &Reply) {
        if self.step.tier() != Some(Tier::Primary) {
            return;
        }
        match reply {
            Reply::StoreDown(error) => view.known.store_failed(error.clone(), view.env, view.notices),
            Reply::Written(_) | Reply::Leased => {
                view.known.store_answered(Proof::Write, view.env, view.notices);
            }
            Reply::Found(stored) if !view.known.record.adds_to(&stored.record, view.env) => {
                view.known.store_answered(Proof::Write, view.env, view.notices);
            }
            _ => view.known.store_answered(Proof::Read, view.env, view.notices),
        }
    }

    fn leased(&mut self, view: &View<'_, '_>) {
        // Counted from before the lease was requested: the store counts from later.
        self.lease_until = Some(self.issued.after(view.env.rules.lease()));
        // A lease without a record to read means that there is none.
        self.seen.get_or_insert_default();
    }

    fn learn(&mut self, view: &mut View<'_, '_>, stored: Stored) {
        let View { env, known, .. } = view;
        self.conflicts += u8::from(matches!(self.step, Step::Write { .. }));
        known.merge(&stored.record, env);
        if self.tier == Tier::Primary {
            known.has_news = false;
            known.is_unpublished = known.record.adds_to(&stored.record, env);
        }
        self.seen = Some(stored);
    }

    fn learn_from_fallback(&mut self, view: &mut View<'_, '_>, reply: Reply) {
        self.is_fallback_read = true;
        view.known.is_fallback_read = true;
        if let Reply::Found(stored) = reply {
            view.known.merge(&stored.record, view.env);
        }
    }

    fn is_fallback_wanted(&self, view: &View<'_, '_>) -> bool {
        view.env.rules.has_fallback && self.tier == Tier::Primary && !self.is_fallback_read
    }

    fn wait_for_holder(&mut self, view: &mut View<'_, '_>, remaining: std::time::Duration) -> Step {
        let env = view.env;
        if self.goal == Goal::Fresh {
            let until = env.now.after(remaining.min(env.rules.busy_pause));
            return self.fail(Cooldown { until, reason: Reason::Busy });
        }
        if view.known.is_stopping {
            return self.decide(view);
        }
        if env.now.reaches(self.gives_up_at) {
            // No fetch takes that long: the holder will not free its lease.
            self.leave_tier(view, Tier::Alone);
            return self.decide(view);
        }
        let until = env.now.after(remaining.min(env.rules.lease())).sooner(self.gives_up_at);
        Step::WaitForChange { tier: self.tier, until }
    }

    /// Adds what this process knows to what the store holds.
    fn write_what_is_missing(&mut self, view: &mut View<'_, '_>) -> Option<Step> {
        let (env, known) = (view.env, &*view.known);
        let seen = self.seen.as_ref()?;
        if self.conflicts >= MOST_CONFLICTS || !known.record.adds_to(&seen.record, env) {
            return None;
        }
        let mut record = seen.record.clone();
        record.merge(&known.record, env);
        record.renewal_number = record.renewal_number.max(known.renewal.highest);
        let keep_for = record.keep_for(env.now);
        let frees_lease = self.fetch.is_done && !self.keeps_lease && self.lease_until.is_some();
        let (tier, seen) = (self.tier, seen.version.clone());
        Some(Step::Write { tier, record: Box::new(record), seen, keep_for, frees_lease })
    }

    fn written(&mut self, view: &mut View<'_, '_>, stored: Stored) {
        if self.tier == Tier::Primary {
            view.known.is_unpublished = view.known.record.adds_to(&stored.record, view.env);
        }
        if let Step::Write { frees_lease: true, .. } = self.step {
            self.lease_until = None;
        }
        self.seen = Some(stored);
    }

    fn store_is_down(&mut self, view: &mut View<'_, '_>, step: &Step, error: Error) -> Step {
        let is_renewal = matches!(step, Step::ReadRenewal | Step::MarkRenewal { .. } | Step::StoreRenewal { .. });
        if is_renewal && self.tier == Tier::Primary {
            return self.renewal_store_failed(view, error);
        }
        if matches!(step, Step::ReadQuota | Step::WriteQuota { .. }) {
            self.count_here(view);
            return self.decide(view);
        }
        self.next_tier(view)
    }

    /// Goes on with the fallback store, or without any.
    fn next_tier(&mut self, view: &mut View<'_, '_>) -> Step {
        let has_next = self.tier == Tier::Primary && view.env.rules.has_fallback;
        self.leave_tier(view, if has_next { Tier::Fallback } else { Tier::Alone });
        let only_compares = self.fetch.is_done || self.goal == Goal::Sync;
        match self.tier {
            Tier::Fallback if only_compares => Step::Read(self.tier),
            Tier::Fallback => self.read_or_lease(),
            // A background refresh waits for the store; only callers go on without one.
            _ if matches!(self.goal, Goal::Fresh | Goal::Sync) && !self.fetch.is_done => {
                self.fail(Cooldown::failed(store_is_down(), view.env.rules.store_retry, view.env))
            }
            _ => self.decide(view),
        }
    }

    fn leave_tier(&mut self, view: &mut View<'_, '_>, tier: Tier) {
        if self.tier == Tier::Primary {
            view.known.is_unpublished = view.env.rules.has_store;
        }
        (self.seen, self.lease_until, self.tier) = (None, None, tier);
    }

    /// A store failed that keeps the renewal secret: a new secret stays in memory, and nothing is fetched.
    fn renewal_store_failed(&mut self, view: &mut View<'_, '_>, error: Error) -> Step {
        self.leave_tier(view, Tier::Alone);
        if view.env.rules.rotates() {
            if self.fetch.granted.is_some() {
                view.notices.push(Notice::RenewalSecretNotStored { error });
            } else {
                let cooldown = Cooldown::failed(secret_needs_store(), view.env.rules.store_retry, view.env);
                self.outcome = Some(cooldown);
            }
        }
        self.decide(view)
    }
}

pub(super) fn store_is_down() -> Error {
    Error::new(ErrorKind::Store, "the shared store cannot be used, and this process must not fetch without it yet")
}

pub(super) fn secret_needs_store() -> Error {
    let text =
        "the renewal secret is in the shared store, which cannot be used, and an older one would end the sign-in";
    Error::new(ErrorKind::Store, text)
}

/// A record that changes faster than it can be written is written later.
const MOST_CONFLICTS: u8 = 8;
