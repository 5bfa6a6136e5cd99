//! The invariants. Each message begins with the number of the promise that is broken.

use crate::apply::Outcome;
use crate::core::access_token::AccessToken;
use crate::core::record::Record;
use crate::core::refresh::Goal;
use crate::core::step::Step;
use crate::core::{Answer, Tier, judge};
use crate::error::{Error, ErrorKind};
use crate::policy::Phase;
use crate::scenarios::{Kind, Scenario};
use crate::time::{At, seconds, timestamp};
use crate::world::{Wish, World};

impl World {
    /// What holds after every choice.
    pub(crate) fn check(&self, scenario: &Scenario) -> Outcome {
        for tier in [Tier::Primary, Tier::Fallback] {
            let threads = self.processes.iter().flat_map(|process| &process.threads);
            let is_fetching = |step: &Step| matches!(step, Step::Fetch { .. });
            let fetching = threads.filter(|thread| {
                is_fetching(&thread.refresh.step) && thread.refresh.tier == tier && !thread.is_excused
            });
            if fetching.count() > 1 {
                return Err(format!("3: two fetches at once under the lease of {tier:?}"));
            }
        }
        let slack = seconds(scenario.rules.operation) + 3;
        for process in self.processes.iter().filter(|process| process.is_alive && !process.is_suspended) {
            let current = process.machine.in_flight().map(|in_flight| in_flight.id);
            let hung = process.threads.iter().filter(|thread| thread.is_hung);
            let is_stuck = hung
                .into_iter()
                .any(|thread| Some(thread.refresh.id) == current && self.now > thread.until.after(slack));
            if is_stuck {
                return Err("5: a refresh that hangs is never abandoned".into());
            }
        }
        Ok(())
    }

    /// Promises 1 and 4 for what a caller is told.
    pub(crate) fn check_answer(
        &mut self,
        i: usize,
        held: Option<AccessToken>,
        wish: Wish,
        answer: Answer,
        scenario: &Scenario,
    ) -> Outcome {
        let env = self.env(i, scenario);
        let deadline = self.processes[i].caller.map_or(self.now, |(_, deadline)| deadline);
        let is_good = held.as_ref().is_some_and(|token| judge::phase(token, &env) < Phase::Expiring);
        match answer {
            Answer::Token(token) => {
                self.processes[i].caller = None;
                self.check_forced(i, wish, &token, scenario)?;
                self.hand_out(i, token, scenario)
            }
            Answer::Failed(error) => {
                self.processes[i].caller = None;
                self.counts.failed_calls += 1;
                if wish == Wish::Token && held.is_some() {
                    return Err(format!("1: {:?} although a valid token is held", error.kind()));
                }
                let is_child = scenario.kind == Kind::RefusedChild;
                if error.kind() == ErrorKind::TokenRejected
                    && !is_child
                    && self.early_rejections < scenario.rules.early_limit
                {
                    return Err("1: TokenRejected, but no service refused that many".into());
                }
                if wish == Wish::Token { self.check_failure(i, &error, deadline, scenario) } else { Ok(()) }
            }
            Answer::Wait if is_good && wish == Wish::Token => Err("1: a caller waits although a token is held".into()),
            Answer::Wait | Answer::Done => Ok(()),
        }
    }

    /// Promise 1: no error while a good token has been in a working store for longer than the check interval.
    fn check_failure(&self, i: usize, error: &Error, deadline: At, scenario: &Scenario) -> Outcome {
        let (process, primary, rules) = (&self.processes[i], &self.stores[0], &scenario.rules);
        let kind = error.kind();
        let waits = error.retry_after().map(seconds).filter(|_| error.is_retryable());
        if waits.is_some_and(|wait| wait + 1 < deadline.since(self.now)) {
            return Err(format!("5: {kind:?} although the caller has time for the next try"));
        }
        self.check_refused(kind)?;
        self.check_vouched(scenario)?;
        self.check_ticket(i, kind, scenario)?;
        let Some(record) = primary.record.as_ref().filter(|_| primary.is_up && kind != ErrorKind::Shutdown) else {
            return Ok(());
        };
        let Some(token) = &record.token else { return Ok(()) };
        let known = &process.machine.known.record.rejections;
        let is_good = token.sequence > record.rejections.through.max(known.through);
        let clock = process.clock(self.now);
        let truth = timestamp(self.now.0, self.now.0);
        let lives = truth.monotonic() + 2 * rules.policy.safety_margin < token.end.monotonic()
            && clock.epoch_milliseconds() + 2_000 < token.end.epoch_milliseconds();
        let since = primary.token_since.max(primary.up_since).max(process.undisturbed_since);
        // An announcement of the change is heard at once, a silent one at the next check.
        let interval = if rules.watches { 0 } else { seconds(rules.store_check_interval) };
        let age = self.now.since(since);
        if is_good && lives && age > interval + seconds(rules.operation) {
            return Err(format!("1: {kind:?} although the store holds {:?} for {age} s", token.fingerprint));
        }
        Ok(())
    }

    /// A forced refresh brings another token, unless the provider has no other.
    fn check_forced(&self, i: usize, wish: Wish, token: &AccessToken, scenario: &Scenario) -> Outcome {
        let Wish::NewerThan(than) = wish else { return Ok(()) };
        let is_same = token.sequence <= than && scenario.kind != Kind::Unchanged;
        let is_spaced = !scenario.rules.profile.min_forced_interval.is_zero();
        let text = format!("1: process {i} forces a refresh and gets the token that it had");
        if is_same && !is_spaced { Err(text) } else { Ok(()) }
    }

    /// Promise 1: while services refuse every new token, the newest one stays usable for those whose requests are accepted.
    fn check_refused(&self, kind: ErrorKind) -> Outcome {
        let newest = self.tokens.last().filter(|truth| truth.rejected.is_none() && truth.end.since(self.now) > 2);
        let is_broken = kind == ErrorKind::TokenRejected && newest.is_some();
        if is_broken { Err("1: TokenRejected although the newest token could be used".into()) } else { Ok(()) }
    }

    /// Promise 1: a provider that returns a token after its end vouches for it.
    fn check_vouched(&self, scenario: &Scenario) -> Outcome {
        let is_returned = self.tokens.last().is_some_and(|truth| truth.end.since(self.now) > 6);
        let is_broken = scenario.kind == Kind::Vouching && is_returned && self.budget.grants > 0;
        if is_broken { Err("1: the provider returns a token after its end, and nobody gets it".into()) } else { Ok(()) }
    }

    /// Promise 1: a ticket that is known here, or has been in the store for the check interval, is used.
    fn check_ticket(&self, i: usize, kind: ErrorKind, scenario: &Scenario) -> Outcome {
        let (process, primary) = (&self.processes[i], &self.stores[0]);
        if kind != ErrorKind::TicketRequired || scenario.kind != Kind::Ticket {
            return Ok(());
        }
        let since = primary.renewal_since.max(primary.up_since).max(process.undisturbed_since);
        let age = self.now.since(since);
        let is_stored = primary.is_up && primary.renewal.is_some();
        // The record may have been read just before, and the ticket is looked for at the next check.
        let bound = 2 * seconds(scenario.rules.store_check_interval) + seconds(scenario.rules.fetch_limit);
        let is_late = is_stored && age > bound;
        let is_held = process.machine.known.renewal.held.is_some();
        if is_held || is_late { Err("1: TicketRequired although there is a ticket".into()) } else { Ok(()) }
    }

    pub(crate) fn check_timed_out(&self, i: usize, wish: Wish, scenario: &Scenario) -> Outcome {
        let is_held = self.processes[i].machine.known.record.usable(&self.env(i, scenario)).is_some();
        if is_held && wish == Wish::Token && self.processes[i].machine.in_flight().is_none() {
            return Err("1: a caller timed out although a token is held".into());
        }
        let env = self.env(i, scenario);
        let machine = &self.processes[i].machine;
        if machine.in_flight().is_none() && machine.pause(&env).is_none() {
            return Err("5: a caller waits, and nothing happens".into());
        }
        self.check_vouched(scenario)
    }

    /// Promises 2 and 4 for a token that a caller gets.
    pub(crate) fn hand_out(&mut self, i: usize, token: AccessToken, scenario: &Scenario) -> Outcome {
        let (now, rules) = (self.now, &scenario.rules);
        let truth = self.truth(token.fingerprint.0)?.clone();
        let name = token.fingerprint;
        if now >= truth.end {
            return Err(format!("2: {name:?} is handed out and expired {} s ago", now.since(truth.end)));
        }
        let process = &mut self.processes[i];
        // A reinstated token has a new number.
        let is_reinstated =
            |sequence: u64| matches!(scenario.kind, Kind::Unchanged | Kind::Vouching) && token.sequence > sequence;
        if process.rejected.iter().any(|(id, sequence)| *id == name.0 && !is_reinstated(*sequence)) {
            return Err(format!("4: {name:?} was rejected or invalidated here and is handed out again"));
        }
        let bound = seconds(rules.store_check_interval) + seconds(rules.fetch_limit) + 3 * seconds(rules.operation);
        let told = truth.recorded_at.filter(|_| !process.has_hung_thread());
        let since = told.map(|at| at.max(process.undisturbed_since).max(self.stores[0].up_since));
        if let Some(age) = since.map(|since| now.since(since)).filter(|age| *age > bound + 1) {
            return Err(format!("4: the rejection of {name:?} is recorded for {age} s, and it is handed out"));
        }
        let is_latest = self.tokens.last().is_some_and(|truth| truth.id == name.0);
        let held = process.machine.known.renewal.held.as_ref().map_or(0, |held| held.number);
        let is_unstored = rules.rotates() && held > self.stored_secret;
        if is_unstored && is_latest && !process.has_warned {
            return Err("7: a token is handed out before its refresh token is stored".into());
        }
        process.handed.retain(|other| other.fingerprint != name);
        process.handed.push(token);
        if process.handed.len() > 2 {
            process.handed.remove(0);
        }
        Ok(())
    }

    /// Promise 7: a token that could not be written is written soon after the store is back.
    pub(crate) fn check_written(&self, i: usize, scenario: &Scenario) -> Outcome {
        let (process, primary, rules) = (&self.processes[i], &self.stores[0], &scenario.rules);
        let is_idle = !process.is_alive || process.is_suspended || process.machine.is_stopping();
        let Some((token, _)) = process.cache.as_ref().filter(|_| !is_idle) else { return Ok(()) };
        let since = process.cached_since.max(primary.up_since).max(process.undisturbed_since);
        let recorded = primary.record.as_ref().and_then(|record| record.token.as_ref()).map(|token| token.sequence);
        let through = primary.record.as_ref().map_or(0, |record| record.rejections.through);
        let is_behind = recorded.max(Some(through)).is_none_or(|sequence| sequence < token.sequence);
        let rest = 4 + seconds(rules.store_retry.max(rules.store_check_interval));
        let slack = rest + seconds(rules.fetch_limit) + 3 * seconds(rules.operation) + 1;
        let lives = !process.clock(self.now).reaches(token.end);
        let age = self.now.since(since);
        if primary.is_up && is_behind && lives && !process.has_hung_thread() && age > slack && !process.reports_reads {
            return Err(format!("7: {:?} is not in the store {age} s after it could be", token.fingerprint));
        }
        Ok(())
    }

    /// Promise 3: a refresh that ends has told the store, or the next process would fetch too.
    pub(crate) fn check_recorded(&self, i: usize, t: usize, scenario: &Scenario) -> Outcome {
        let (process, thread, primary) = (&self.processes[i], &self.processes[i].threads[t], &self.stores[0]);
        let known = &process.machine.known;
        let is_coordinated = thread.refresh.tier == Tier::Primary && !thread.is_excused && primary.is_up;
        let Some(token) = known.record.usable(&self.env(i, scenario)).filter(|_| is_coordinated) else { return Ok(()) };
        let is_own = known.fetched == token.sequence && thread.refresh.fetch.reserved == token.sequence;
        let recorded = primary.record.as_ref().and_then(|record| record.token.as_ref());
        let through = primary.record.as_ref().map_or(0, |record| record.rejections.through);
        let is_known = through >= token.sequence || recorded.is_some_and(|it| it.sequence >= token.sequence);
        let is_broken = is_own && !is_known && process.undisturbed_since < thread.issued;
        if is_broken { Err("3: a refresh ends, and the store lacks its token".into()) } else { Ok(()) }
    }

    /// Promises 3, 5 and 7: when the provider must not be asked.
    pub(crate) fn check_fetch(&mut self, i: usize, t: usize, scenario: &Scenario) -> Outcome {
        self.check_alone(i, t, scenario)?;
        let (process, thread) = (&self.processes[i], &self.processes[i].threads[t]);
        if process.machine.is_stopping() {
            return Err("5: a fetch starts after shutdown".into());
        }
        let is_shared = thread.refresh.tier == Tier::Primary && !thread.is_excused;
        if is_shared && self.now < self.quiet.1 && self.now.since(self.quiet.0) > 1 && process.wall_offset == 0 {
            return Err("3: a fetch although the shared failure says when to try again".into());
        }
        let is_young = self.now.since(process.started) < 2 && scenario.rules.rotates();
        if is_young && thread.refresh.goal == Goal::Fresh {
            return Err("7: a process that has just started spends a refresh token in the background".into());
        }
        self.check_quota(i, t, scenario)?;
        self.check_renewal(i, t, scenario)?;
        let (process, thread) = (&self.processes[i], &self.processes[i].threads[t]);
        let fallback = &self.stores[1];
        let Some(record) = fallback.record.as_ref().filter(|_| thread.refresh.tier == Tier::Primary) else {
            return Ok(());
        };
        let known = &process.machine.known.record.rejections;
        let Some(token) = record.token.as_ref().filter(|token| token.sequence > known.through) else { return Ok(()) };
        let truth = timestamp(self.now.0, self.now.0);
        let is_fresh = truth.monotonic() + 2 * scenario.rules.policy.refresh_ahead < token.end.monotonic();
        let is_settled = self.now.since(fallback.written_at) > seconds(scenario.rules.fetch_limit);
        if is_fresh && is_settled && process.wall_offset == 0 && process.lag == 0 {
            return Err(format!("7: a fetch although the fallback store holds {:?}", token.fingerprint));
        }
        Ok(())
    }

    fn check_quota(&self, i: usize, t: usize, scenario: &Scenario) -> Outcome {
        let (process, thread) = (&self.processes[i], &self.processes[i].threads[t]);
        let Step::Fetch { is_forced, .. } = &thread.refresh.step else { return Ok(()) };
        if *is_forced && thread.refresh.tier != Tier::Primary {
            return Err("3: a call is forced, and nobody knows how often others have forced".into());
        }
        let quota = scenario.rules.profile.daily_quota.filter(|_| thread.refresh.tier == Tier::Primary);
        let Some(quota) = quota else { return Ok(()) };
        if self.calls >= quota.calls {
            return Err("3: more calls than the provider allows in a day".into());
        }
        let rejections = &process.machine.known.record.rejections;
        let is_replacement = rejections.recent.iter().any(|rejected| !rejected.is_invalidated);
        let is_reserve = self.calls >= quota.calls - quota.reserve;
        if is_reserve && !is_replacement {
            return Err("3: the reserve is used though no token was rejected".into());
        }
        Ok(())
    }

    /// Promise 7: the latest renewal secret is used.
    fn check_renewal(&self, i: usize, t: usize, scenario: &Scenario) -> Outcome {
        let (process, thread) = (&self.processes[i], &self.processes[i].threads[t]);
        let Step::Fetch { renewal, .. } = &thread.refresh.step else { return Ok(()) };
        let Some(ticket) = process.ticket.filter(|_| scenario.kind == Kind::Ticket) else { return Ok(()) };
        let used = renewal.as_ref().and_then(|renewal| renewal.secret.expose().strip_prefix("ticket-")?.parse().ok());
        let is_older = used.is_none_or(|used: i32| used < ticket.0);
        if is_older { Err("7: an older ticket is used than the one that was handed in here".into()) } else { Ok(()) }
    }

    /// Promise 3: a refresh that ends leaves no lease behind, except after an unknown outcome where a new token ends the
    /// old one: then nobody may fetch until it runs out.
    pub(crate) fn check_lease(&self, i: usize, t: usize, scenario: &Scenario) -> Outcome {
        let (process, thread, primary) = (&self.processes[i], &self.processes[i].threads[t], &self.stores[0]);
        if thread.refresh.tier != Tier::Primary || !primary.is_up || process.undisturbed_since >= thread.issued {
            return Ok(());
        }
        let is_mine = primary
            .lease
            .as_ref()
            .is_some_and(|lease| (lease.process, lease.refresh) == (process.name, thread.refresh.id));
        let is_unknown = thread.refresh.outcome.as_ref().is_some_and(|outcome| outcome.is_for(ErrorKind::Unavailable));
        let is_quarantine = scenario.rules.profile.new_token_ends_old && is_unknown && thread.refresh.fetch.is_done;
        if is_mine && !is_quarantine { Err("3: a refresh ends and leaves its lease behind".into()) } else { Ok(()) }
    }

    /// Promise 3: where a new token ends the old one, processes without a store fetch seldom.
    fn check_alone(&mut self, i: usize, t: usize, scenario: &Scenario) -> Outcome {
        let process = &mut self.processes[i];
        if process.threads[t].refresh.tier != Tier::Alone {
            return Ok(());
        }
        if scenario.rules.rotates() {
            return Err("7: a fetch with a renewal secret and without the store".into());
        }
        let last = std::mem::replace(&mut process.fetched_alone, self.now);
        let interval = seconds(scenario.rules.store_down_fetch_interval);
        let is_soon = self.now.since(last) < interval && last > process.undisturbed_since;
        if is_soon { Err("3: a process without a store fetches again too soon".into()) } else { Ok(()) }
    }

    /// Promises 3, 4 and 7: nothing that is recorded gets lost.
    pub(crate) fn check_write(&self, tier: Tier, i: usize, new: &Record) -> Outcome {
        let Some(old) = &self.stores[tier as usize].record else { return Ok(()) };
        let truth = timestamp(self.now.0, self.now.0);
        let is_undisturbed = self.processes[i].wall_offset <= 0 && self.processes[i].lag == 0;
        if let (Some(old), Some(new)) = (&old.token, &new.token)
            && old.sequence > new.sequence
            && old.end.monotonic() > truth.monotonic()
            && is_undisturbed
        {
            return Err(format!("7: {:?} replaces the newer {:?}", new.fingerprint, old.fingerprint));
        }
        if new.rejections.through < old.rejections.through {
            return Err("4: a write erases a rejection".into());
        }
        let retry_at = |record: &Record| record.failure.as_ref().map_or(truth, |failure| failure.retry_at).monotonic();
        let succeeded = new.token.as_ref().map_or(0, |token| token.sequence).max(new.forgiven_through);
        let is_void = old.failure.as_ref().is_none_or(|failure| failure.number <= succeeded);
        if !is_void && is_undisturbed && retry_at(old) > truth.monotonic().max(retry_at(new)) {
            return Err("3: a write erases the shared failure".into());
        }
        Ok(())
    }
}

/// What everybody can know afterwards.
impl World {
    pub(crate) fn note_rejected(
        &mut self,
        i: usize,
        token: &AccessToken,
        is_current: bool,
        answer: &Answer,
        scenario: &Scenario,
    ) -> Outcome {
        let (now, early) = (self.now, seconds(scenario.rules.early));
        // When a provider returns a token, its age is not known.
        let is_returned = scenario.kind == Kind::Unchanged;
        let is_early = is_returned || now.since(self.truth(token.fingerprint.0)?.granted) < early + 1;
        self.early_rejections += u32::from(is_current && is_early);
        if let Answer::Failed(error) = answer {
            let is_plausible = self.early_rejections >= scenario.rules.early_limit;
            let text = format!("4: a rejection has no effect because of {:?}", error.kind());
            return if is_plausible { Ok(()) } else { Err(text) };
        }
        let is_ignored = scenario.kind == Kind::Unchanged;
        if is_current && !is_ignored {
            let found = self.tokens.iter_mut().rev().find(|truth| truth.id == token.fingerprint.0);
            found.into_iter().for_each(|truth| (truth.rejected, truth.rejected_at) = (Some(token.sequence), now));
        }
        if !is_ignored {
            self.processes[i].rejected.push((token.fingerprint.0, token.sequence));
        }
        Ok(())
    }

    /// The record of the primary store has changed.
    pub(crate) fn note_written(&mut self, _scenario: &Scenario) {
        let (now, Some(record)) = (self.now, &self.stores[0].record) else { return };
        for truth in &mut self.tokens {
            let is_recorded = truth.rejected.is_some_and(|sequence| sequence <= record.rejections.through);
            if is_recorded && truth.recorded_at.is_none() {
                truth.recorded_at = Some(now);
            }
        }
        let base = timestamp(0, 0).monotonic();
        match &record.failure {
            Some(failure) => {
                let until = At(seconds(failure.retry_at.monotonic().saturating_sub(base)));
                if until > self.quiet.1 {
                    self.quiet = (now, until);
                }
            }
            // Forgiven, or a later fetch has succeeded.
            None => self.quiet = (now, now),
        }
    }
}
