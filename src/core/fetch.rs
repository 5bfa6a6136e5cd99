//! The part of a refresh that is about the provider: its renewal secret, its parent's token, its quota, the request,
//! and what the grant means.

use std::time::Duration;

use super::access_token::AccessToken;
use super::cooldown::{Cooldown, Reason};
use super::quota::{self, Admission, Call, CountedBy, Day};
use super::record::Failure;
use super::refresh::{Goal, Refresh, View};
use super::renewal::{Comparison, RenewalSecret, SpentBy, StoredRenewal};
use super::step::{Grant, Reply, Step};
use super::{Notice, Tier, judge};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::policy::{Lifetime, Phase};
use crate::secret::Secret;

impl Refresh {
    /// Takes in the reply to a step that is not about the record.
    pub(super) fn take_in_fetch(&mut self, view: &mut View<'_, '_>, step: Step, reply: Reply) -> Step {
        match (step, reply) {
            (Step::ReadRenewal, Reply::Renewal(stored)) => self.use_renewal(view, stored),
            (Step::MarkRenewal { secret, .. }, Reply::Written(version)) => self.marked(secret, version),
            (Step::StoreRenewal { secret, .. }, Reply::Written(version)) => self.renewal_stored(view, secret, version),
            // Another process was faster: look again.
            (Step::MarkRenewal { .. } | Step::StoreRenewal { .. }, _) => return self.look_at_renewal_again(),
            (Step::ReadQuota, Reply::Quota { day, version }) => return self.admit(view, day, version),
            (Step::WriteQuota { day, .. }, Reply::Written(_)) => view.known.day = Some(day),
            (Step::WriteQuota { .. }, _) => {
                self.fetch.admission = None;
                return Step::ReadQuota;
            }
            (Step::ParentToken, Reply::Parent(fingerprint)) => self.fetch.parent = Some(fingerprint),
            (Step::RejectParent, _) => (self.fetch.parent, self.fetch.is_parent_replaced) = (None, true),
            (Step::Fetch { is_forced, .. }, Reply::Granted(grant)) => {
                self.take_grant(view, grant, is_forced);
            }
            (Step::Fetch { .. }, Reply::Refused(error)) => return self.take_refusal(view, error),
            (Step::ParentToken, Reply::Refused(error)) => self.take_failure(view, error),
            (step, _) => debug_assert!(false, "no reply to {step:?}"),
        }
        self.decide(view)
    }

    /// Prepares the request: the first of these that is missing. Then the request itself.
    pub(super) fn request(&mut self, view: &mut View<'_, '_>) -> Step {
        let rules = view.env.rules;
        if let Some(step) = self.prepare_renewal(view) {
            return step;
        }
        if self.outcome.is_some() {
            // A failure is written before the refresh ends.
            return self.decide(view);
        }
        if rules.has_parent && self.fetch.parent.is_none() {
            return Step::ParentToken;
        }
        if let Some(step) = self.count_call(view) {
            return step;
        }
        if self.outcome.is_some() {
            return self.decide(view);
        }
        if self.fetch.admission == Some(Admission::NotForced) {
            // The token that is returned again and again is better than none.
            self.fetch.is_done = true;
            return self.decide(view);
        }
        // The mark comes last: a secret must not stay marked for want of something else.
        if let Some(step) = self.mark_renewal(view) {
            return step;
        }
        self.fetch.reserved = view.known.reserve(view.env.now);
        self.fetch.rejected_before = view.known.record.rejections.through;
        if rules.rotates() {
            view.known.renewal.spender = Some(self.id);
        }
        if self.tier != Tier::Primary && rules.has_store {
            view.known.last_fetch_alone = Some(view.env.now);
        }
        let is_forced = self.fetch.admission.take() == Some(Admission::Forced);
        Step::Fetch { renewal: self.fetch.secret.clone(), is_forced, until: view.env.now.after(rules.fetch_limit) }
    }

    /// Asks the parent for another token once, when the first was refused.
    fn take_refusal(&mut self, view: &mut View<'_, '_>, error: Error) -> Step {
        self.spent(view);
        if let Some(parent) = self.fetch.parent.filter(|_| error.kind() == ErrorKind::TokenRejected) {
            // A new token was refused before: another one would be too, and its other users would lose it.
            let is_final = self.fetch.is_parent_replaced || view.known.parent_refused == Some(parent);
            if !is_final {
                return Step::RejectParent;
            }
            view.known.parent_refused = Some(parent);
        }
        if let Some(step) = self.try_later_secret(view, &error) {
            return step;
        }
        self.take_failure(view, error);
        self.decide(view)
    }

    /// A renewal secret was refused. Once, a later one is looked for: another process may have stored one meanwhile.
    fn try_later_secret(&mut self, view: &mut View<'_, '_>, error: &Error) -> Option<Step> {
        let is_about_secret = matches!(
            error.kind(),
            ErrorKind::InvalidCredentials | ErrorKind::SignInRequired | ErrorKind::TicketRequired
        );
        if !is_about_secret || view.env.rules.renewal.is_none() {
            return None;
        }
        let used = self.fetch.secret.take().map_or(0, |used| used.number);
        let held = view.known.renewal.held.as_ref().map_or(0, |held| held.number);
        if !view.env.rules.rotates() && held > used {
            return Some(self.decide(view));
        }
        if self.tier != Tier::Primary || self.fetch.refused.is_some() {
            return None;
        }
        self.fetch.refused = Some((used, error.clone()));
        Some(self.look_at_renewal_again())
    }

    fn take_failure(&mut self, view: &mut View<'_, '_>, error: Error) {
        let View { env, known, notices } = view;
        self.fetch.is_done = true;
        if self.fetch.is_second_call {
            // The first call has brought a token.
            return;
        }
        let (wait, count) = env.rules.policy.next_cooldown(known.failures, &error, env.random);
        known.failures = count;
        notices.push(Notice::Failed { error: error.clone(), retry_in: wait });
        // After an unknown outcome the provider may have granted a token that ends the recorded one: the lease stays
        // until it runs out.
        let is_unknown = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Unavailable | ErrorKind::Panicked);
        self.keeps_lease = is_unknown && env.rules.profile.new_token_ends_old;
        self.outcome = Some(Cooldown::failed(error.clone(), wait, env));
        let reserved = Some(self.fetch.reserved).filter(|reserved| *reserved > 0);
        let number = reserved.unwrap_or_else(|| known.reserve(env.now));
        self.fetch.failure = Some(number);
        if self.concerns_all(&error) {
            let failure = Failure { number, error, retry_at: env.now.after(wait), count };
            known.record.note_failure(&failure, env);
            known.is_unpublished = env.rules.has_store;
        }
    }

    /// False for what is wrong in this process alone. Tickets are in the primary store, so without it no process can
    /// tell what the others have.
    fn concerns_all(&self, error: &Error) -> bool {
        match error.kind() {
            ErrorKind::Shutdown | ErrorKind::Store | ErrorKind::Config => false,
            ErrorKind::TicketRequired => self.tier == Tier::Primary,
            _ => true,
        }
    }
}

/// What a grant means.
impl Refresh {
    fn take_grant(&mut self, view: &mut View<'_, '_>, grant: Grant, is_forced: bool) {
        self.spent(view);
        view.known.parent_refused = None;
        if let (Some(renewal), Some(secret)) = (&view.env.rules.renewal, &grant.renewal_secret) {
            self.keep_renewal_secret(view, secret, renewal.lifetime);
        } else if self.fetch.secret.is_some() && view.env.rules.rotates() {
            self.keep_used_secret(view);
        }
        let Some(token) = self.number(view, &grant) else {
            // Rejected while the provider was returning it: the provider is asked again.
            self.fetch.is_done = true;
            return;
        };
        let is_returned =
            view.known.record.rejections.find(token.fingerprint).is_some_and(|known| !known.is_invalidated);
        let may_force = view.env.rules.profile.forced_quota.is_some() && self.tier == Tier::Primary;
        self.fetch.granted = Some(token);
        if is_returned && may_force && !is_forced && !self.fetch.is_second_call {
            // A provider that can be forced has another token.
            (self.fetch.is_second_call, self.fetch.admission) = (true, None);
        } else {
            self.fetch.is_done = true;
        }
    }

    /// Gives a grant its number and its end. `None`: the token was rejected during the fetch.
    fn number(&self, view: &View<'_, '_>, grant: &Grant) -> Option<AccessToken> {
        let (env, record) = (view.env, &view.known.record);
        let profile = &env.rules.profile;
        let told = grant.lifetime.unwrap_or(Lifetime::from(profile.default_lifetime));
        let new = AccessToken {
            secret: grant.secret.clone(),
            fingerprint: grant.fingerprint,
            sequence: self.fetch.reserved,
            lifetime: told,
            // Counted from before the request was sent: a slow reply must shorten the lifetime, not lengthen it.
            end: self.issued.after(told.total),
            end_is_guessed: grant.lifetime.is_none(),
        };
        let rejected = record.rejections.find(grant.fingerprint);
        let during_fetch = self.fetch.rejected_before + 1..=record.rejections.through;
        if rejected.is_some_and(|rejected| during_fetch.contains(&rejected.sequence)) {
            return None;
        }
        let Some(known_end) = record.known_end(grant.fingerprint) else { return Some(new) };
        let current = record.token.as_ref().filter(|current| current.fingerprint == grant.fingerprint);
        let is_guess = current.is_some_and(|current| current.end_is_guessed);
        if profile.unchanged_token_extends || is_guess && grant.lifetime.is_some() {
            return Some(new);
        }
        if self.issued.reaches(known_end) {
            // A provider that returns a token after its end vouches for it, a while at a time.
            let whole = env.rules.vouched_for.min(told.total);
            let (lifetime, end) = (Lifetime::from(whole), self.issued.after(whole));
            return Some(AccessToken { lifetime, end, end_is_guessed: true, ..new });
        }
        Some(match current {
            // Unchanged: the number and the known end stay.
            Some(current) => current.clone(),
            // Reinstated, or returned after an invalidation: the known end stays.
            None => AccessToken { end: known_end.sooner(new.end), ..new },
        })
    }

    /// Makes the granted token the current one, unless it is worse.
    pub(super) fn adopt(&mut self, view: &mut View<'_, '_>, token: AccessToken) {
        let View { env, known, notices } = view;
        let is_unchanged = known.record.token.as_ref().is_some_and(|current| current.is_same_grant(&token));
        let returned = known.record.rejections.find(token.fingerprint);
        let is_reinstated = !is_unchanged && returned.is_some_and(|rejected| !rejected.is_invalidated);
        let (fingerprint, phase) = (token.fingerprint, judge::phase(&token, env));
        known.record.note_token(&token, env);
        (known.failures, known.cooldown) = (0, None);
        if is_reinstated {
            known.reinstated = Some((fingerprint, env.now.after(env.rules.reinstated_for)));
            notices.push(Notice::Reinstated { fingerprint });
        }
        if is_unchanged || phase == Phase::Expired {
            let until = self.ask_again_at(view, &token, is_unchanged);
            let retry_in = view.env.now.until(until);
            view.notices.push(Notice::Unchanged { retry_in });
            self.outcome = Some(Cooldown { until, reason: Reason::Unchanged });
        } else {
            (known.fetched, known.is_unpublished) = (token.sequence, env.rules.has_store);
        }
    }

    /// When another request makes sense, after the provider has returned a known token: when the token is due, if it
    /// was asked for sooner; else when it ends.
    fn ask_again_at(&self, view: &View<'_, '_>, token: &AccessToken, is_unchanged: bool) -> Timestamp {
        let env = view.env;
        let schedule = judge::schedule(token, view.known.spread, env);
        match schedule.phase(env.now) {
            Phase::Fresh => schedule.refresh_at,
            // Dead on arrival, or in its last seconds, when callers wait: the next token is near.
            Phase::Expired => {
                let rest = env.now.until(token.end).clamp(FIRST_POLL, LONGEST_POLL);
                env.now.after(if is_unchanged { rest } else { env.rules.policy.backoff_min.max(FIRST_POLL) })
            }
            _ => token.end,
        }
    }
}

/// Renewal secrets.
impl Refresh {
    fn is_renewal_kept(&self, view: &View<'_, '_>) -> bool {
        view.env.rules.renewal.is_some() && self.tier == Tier::Primary
    }

    /// Stores a secret that the store lacks. A comparison with the store looks at the renewal secret too.
    pub(super) fn store_renewal(&mut self, view: &mut View<'_, '_>) -> Option<Step> {
        if !self.is_renewal_kept(view) {
            return None;
        }
        let is_compared = self.fetch.renewal.is_some();
        if view.known.renewal.is_unstored {
            let (Some(stored), Some(held)) = (&self.fetch.renewal, &view.known.renewal.held) else {
                return Some(Step::ReadRenewal);
            };
            return Some(Step::StoreRenewal { secret: held.clone(), seen: stored.version.clone() });
        }
        (self.goal == Goal::Sync && !is_compared).then_some(Step::ReadRenewal)
    }

    fn look_at_renewal_again(&mut self) -> Step {
        (self.fetch.renewal, self.fetch.secret) = (None, None);
        Step::ReadRenewal
    }

    fn use_renewal(&mut self, view: &mut View<'_, '_>, stored: StoredRenewal) {
        let comparison = view.known.renewal.compare(&stored, view.env);
        match (comparison, &stored.secret) {
            (Comparison::TakeStored, Some(secret)) => {
                let is_new = view.known.renewal.adopt(secret);
                if is_new && !view.env.rules.rotates() {
                    view.known.ticket_has_come();
                }
            }
            (Comparison::WriteHeld, _) => view.known.renewal.is_unstored = true,
            (Comparison::UsedUp, _) if self.goal != Goal::Sync => self.renewal_failed(view, passed()),
            (Comparison::Unreadable, _) if self.goal != Goal::Sync => self.renewal_failed(view, unreadable()),
            _ => {}
        }
        self.fetch.renewal = Some(stored);
    }

    fn renewal_failed(&mut self, view: &mut View<'_, '_>, error: Error) {
        self.outcome = Some(Cooldown::failed(error, view.env.rules.store_retry, view.env));
    }

    /// Chooses the secret to send. `None` when nothing is to be asked of the store for it.
    fn prepare_renewal(&mut self, view: &mut View<'_, '_>) -> Option<Step> {
        let rules = view.env.rules;
        let profile = rules.renewal.as_ref()?;
        if self.fetch.secret.is_some() {
            return None;
        }
        if profile.rotates && view.known.renewal.spender.is_some_and(|spender| spender != self.id) {
            self.renewal_failed(view, not_returned());
            return None;
        }
        if self.is_renewal_kept(view) && self.fetch.renewal.is_none() {
            return Some(Step::ReadRenewal);
        }
        let stored = self.fetch.renewal.as_ref().and_then(|stored| stored.secret.clone());
        let held = view.known.renewal.held.clone().filter(|held| !view.env.now.reaches(held.end));
        let initial = || {
            let (since, end) = (view.env.now, view.env.now.after(profile.lifetime));
            Some(RenewalSecret { secret: profile.initial.clone()?, number: 0, since, end, spent_by: None })
        };
        let secret = stored.filter(|_| profile.rotates).or(held).or_else(initial);
        let number = secret.as_ref().map_or(0, |secret| secret.number);
        if let Some((_, error)) = self.fetch.refused.as_ref().filter(|(refused, _)| number <= *refused) {
            let error = error.clone();
            self.take_failure(view, error);
            return None;
        }
        let secret = secret?;
        let marked_until = view.known.renewal.respects_mark_until(&secret, self.process, view.env);
        if let Some(until) = marked_until.filter(|_| profile.rotates) {
            self.outcome = Some(Cooldown { until, reason: Reason::Failed(in_use()) });
            return None;
        }
        self.fetch.secret = Some(secret);
        None
    }

    /// Marks a rotating secret as about to be sent, anew for each attempt.
    fn mark_renewal(&self, view: &View<'_, '_>) -> Option<Step> {
        let mine = SpentBy { process: self.process, refresh: self.id };
        let secret = self.fetch.secret.as_ref().filter(|secret| secret.spent_by != Some(mine))?;
        let stored = self.fetch.renewal.as_ref().filter(|_| view.env.rules.rotates())?;
        let secret = RenewalSecret { spent_by: Some(mine), ..secret.clone() };
        Some(Step::MarkRenewal { secret, seen: stored.version.clone() })
    }

    fn marked(&mut self, secret: RenewalSecret, version: Option<crate::version::Version>) {
        self.fetch.renewal = Some(StoredRenewal { secret: Some(secret.clone()), version, is_unreadable: false });
        self.fetch.secret = Some(secret);
    }

    fn renewal_stored(
        &mut self,
        view: &mut View<'_, '_>,
        secret: RenewalSecret,
        version: Option<crate::version::Version>,
    ) {
        let renewal = &mut view.known.renewal;
        renewal.is_unstored &= renewal.held.as_ref().is_some_and(|held| !held.is_same(&secret));
        self.fetch.renewal = Some(StoredRenewal { secret: Some(secret), version, is_unreadable: false });
        if !view.env.rules.rotates() {
            view.known.ticket_has_come();
        }
    }

    /// Keeps the secret that came with a token. It is stored before the token is handed out.
    fn keep_renewal_secret(&mut self, view: &mut View<'_, '_>, secret: &Secret, lifetime: Duration) {
        let used = self.fetch.secret.take();
        if secret.is_blank() || used.as_ref().is_some_and(|used| used.secret.expose() == secret.expose()) {
            self.fetch.secret = used;
            return self.keep_used_secret(view);
        }
        let before = used.map_or(0, |used| used.number);
        view.known.renewal.replace(secret.clone(), before, lifetime, view.env);
    }

    /// The provider did not replace the secret, so the mark on it is removed.
    fn keep_used_secret(&mut self, view: &mut View<'_, '_>) {
        let Some(used) = self.fetch.secret.take() else { return };
        let is_latest = view.known.renewal.held.as_ref().is_none_or(|held| held.number <= used.number);
        if is_latest && used.spent_by.is_some() {
            view.known.renewal.held = Some(RenewalSecret { spent_by: None, ..used });
            view.known.renewal.is_unstored = true;
        }
    }

    fn spent(&self, view: &mut View<'_, '_>) {
        view.known.renewal.spender.take_if(|spender| *spender == self.id);
    }
}

/// Quotas.
impl Refresh {
    fn call(&self, view: &View<'_, '_>) -> Call {
        let rejections = &view.known.record.rejections;
        let is_refused = rejections.recent.last().is_some_and(|last| {
            last.sequence <= rejections.through && !last.is_invalidated && !view.env.now.reaches(last.end)
        });
        match self.goal {
            _ if self.fetch.is_second_call => Call::OnlyForced,
            Goal::NewerThan(_) => Call::PreferForced,
            _ if is_refused && view.known.record.token.is_none() => Call::Replacement,
            _ => Call::Usual,
        }
    }

    /// Counts the call, in the store if it can be used.
    fn count_call(&mut self, view: &mut View<'_, '_>) -> Option<Step> {
        if self.fetch.admission.is_some() || !quota::is_counted(&view.env.rules.profile) {
            return None;
        }
        if self.tier == Tier::Primary {
            return Some(Step::ReadQuota);
        }
        self.count_here(view);
        None
    }

    fn admit(&mut self, view: &mut View<'_, '_>, day: Option<Day>, seen: Option<crate::version::Version>) -> Step {
        let mut day = Day::current(day, view.env.now);
        let call = self.call(view);
        match day.admit(call, CountedBy::AllProcesses, &view.env.rules.profile, view.env.now) {
            Ok(admission) => {
                self.fetch.admission = Some(admission);
                if admission == Admission::NotForced { self.decide(view) } else { Step::WriteQuota { day, seen } }
            }
            Err(error) => {
                view.known.day = Some(day);
                self.take_failure(view, error);
                self.decide(view)
            }
        }
    }

    /// Counts in this process alone: then no call is forced, because nobody knows how often the others have forced.
    pub(super) fn count_here(&mut self, view: &mut View<'_, '_>) {
        let by = if view.env.rules.has_store { CountedBy::ThisProcess } else { CountedBy::AllProcesses };
        let mut day = Day::current(view.known.day, view.env.now);
        match day.admit(self.call(view), by, &view.env.rules.profile, view.env.now) {
            Ok(admission) => self.fetch.admission = Some(admission),
            Err(error) => self.take_failure(view, error),
        }
        view.known.day = Some(day);
    }
}

fn passed() -> Error {
    let text = "the latest refresh token is not in the shared store; if no process that has it stores it, somebody \
                has to sign in again";
    Error::new(ErrorKind::Store, text)
}

fn unreadable() -> Error {
    Error::new(
        ErrorKind::Store,
        "the renewal secret in the shared store cannot be read; perhaps a later version wrote it",
    )
}

fn in_use() -> Error {
    Error::new(ErrorKind::Store, "another process is using the refresh token")
}

fn not_returned() -> Error {
    Error::new(ErrorKind::Store, "an abandoned fetch of this process may still use the refresh token")
}

const FIRST_POLL: Duration = Duration::from_millis(100);
const LONGEST_POLL: Duration = Duration::from_secs(5);
