//! Decisions that are wrong on purpose, each of which the model must find.
//!
//! No plant stands in the core. A plant changes what goes into a machine, what comes out of it, or what it remembers,
//! at the border between the core and the model. The first version's faults carry the numbers of its fault list.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::core::cooldown::{refused_by_services, shut_down};
use crate::core::machine::Machine;
use crate::core::record::Failure;
use crate::core::refresh::{Goal, Refresh};
use crate::core::rejection::{EarlyRejections, RejectedToken};
use crate::core::step::{Reply, Step};
use crate::core::timers::Timer;
use crate::core::{Action, Answer, Env, Input, Rules, Tier};
use crate::error::ErrorKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    /// A1: what is read from the store replaces the rejections that are known here.
    RejectionsAreReplaced,
    /// A2: a record is kept as long as its token, and not until its last rejection ends.
    RecordEndsWithToken,
    /// A3: no timer abandons a refresh.
    NothingIsAbandoned,
    /// A6: an invalidation counts as an early rejection.
    InvalidationCounts,
    /// A7: during a cooldown the store is not read.
    CooldownBeforeStore,
    /// A13: an invalidation covers the current token only, and not the fetch in flight.
    GrantSurvivesInvalidation,
    /// A14: a write-back erases the recorded failure.
    WriteBackErasesFailure,
    /// A15: a shutdown does not wake waiting callers.
    ShutdownWakesNobody,
    /// A15: a refresh goes on to fetch after a shutdown.
    FetchAfterShutdown,
    /// A16: early rejections, and the cooldown after them, are not shared.
    EarlyRejectionsStayLocal,
    /// A17: after a failed fetch the token in the record is not taken over.
    FailureIgnoresRecord,
    /// A18: the newest token is withdrawn although services refuse every new one.
    NewestTokenIsWithdrawn,
    /// A21: the first failure answers callers that have time for the next try.
    FailureAnswersAtOnce,
    /// A25: the owner of a lease is the process and not the refresh.
    LeaseOfTheProcess,
    /// A26: the lease holder writes without a comparison.
    HolderWritesRegardless,
    /// B1: the end of a process does not wait for the refresh that spends a renewal secret.
    DropDoesNotWait,
    /// B1: a process that has just started refreshes a rotating secret in the background.
    YoungProcessRefreshes,
    /// B2: a fetch that spends a renewal secret is given up before the provider decides.
    ShortFetchWithSecret,
    /// A token is handed out before its renewal secret is stored.
    TokenBeforeSecret,
    /// A renewal secret is spent without the store.
    SecretWithoutStore,
    /// A renewal secret is not marked before it is sent.
    SecretNotMarked,
    /// Another process's mark is not respected.
    MarkNotRespected,
    /// A lease is freed whoever holds it.
    FreesAnyLease,
    /// A fetch may take longer than its lease.
    FetchOutlivesLease,
    /// A lifetime counts from the reply.
    LifetimeFromReply,
    /// A token's end is looked at on the monotonic clock alone.
    OneClock,
    /// The fallback store is not read when the primary store is back.
    FallbackNotRead,
    /// A comparison with the store writes nothing.
    NothingIsWrittenLater,
    /// A cooldown is looked at before the token.
    CooldownBeforeToken,
    /// A rejected token stays in the cache.
    RejectedTokenIsServed,
    /// A change of the record that the store announces is not heard.
    NewsNotHeard,
    /// Processes without a store fetch as often as they like.
    AloneWithoutPause,
    /// What was counted of a quota is not read.
    QuotaNotRead,
    /// A ticket does not end the cooldown for want of one.
    TicketKeepsCooldown,
    /// A ticket that another process has stored is not read.
    TicketNotRead,
    /// A forced refresh is content with the current token.
    ForceIsIgnored,
    /// A renewal secret is used although a later one is known to have been stored.
    UsedUpSecretIsSpent,
    /// A renewal secret is written without a comparison.
    RenewalWithoutCompare,
    /// The ticket in the store replaces one that was handed in here since.
    OlderTicketIsUsed,
    /// A call is forced although it cannot be counted for all.
    ForcedWithoutCount,
    /// The reserve of a quota is used for every refresh.
    ReserveIsSpent,
    /// A child that is always refused rejects each token of its parent.
    ParentIsRejectedAgain,
    /// A refresh ends and leaves its lease.
    LeaseIsLeftBehind,
    /// A lease is freed after an unknown outcome.
    NoQuarantine,
    /// The end of a cooldown wakes nobody.
    CooldownEndsUnnoticed,
    /// A19: a token that the provider returns after its end counts as expired.
    ReturnedTokenIsExpired,
}

/// Each plant, the scenario in which it shows, and the number of processes.
pub(crate) const PLANTS: &[(Plant, &str, usize)] = &[
    (Plant::RejectionsAreReplaced, "reject", 2),
    (Plant::RecordEndsWithToken, "short-successor", 2),
    (Plant::NothingIsAbandoned, "hang", 2),
    (Plant::InvalidationCounts, "invalidate", 2),
    (Plant::CooldownBeforeStore, "denied", 2),
    (Plant::GrantSurvivesInvalidation, "invalidate", 2),
    (Plant::WriteBackErasesFailure, "denied", 2),
    (Plant::ShutdownWakesNobody, "shutdown", 2),
    (Plant::FetchAfterShutdown, "shutdown", 2),
    (Plant::EarlyRejectionsStayLocal, "refused", 2),
    (Plant::FailureIgnoresRecord, "suspend-denied", 2),
    (Plant::NewestTokenIsWithdrawn, "refused", 2),
    (Plant::FailureAnswersAtOnce, "failures", 2),
    (Plant::LeaseOfTheProcess, "late-return", 2),
    (Plant::HolderWritesRegardless, "reject-late", 2),
    (Plant::DropDoesNotWait, "short-process", 2),
    (Plant::YoungProcessRefreshes, "short-process", 2),
    (Plant::ShortFetchWithSecret, "slow-sign-in", 2),
    (Plant::TokenBeforeSecret, "sign-in", 2),
    (Plant::SecretWithoutStore, "sign-in", 2),
    (Plant::SecretNotMarked, "sign-in", 2),
    (Plant::MarkNotRespected, "sign-in", 2),
    (Plant::FreesAnyLease, "suspend", 3),
    (Plant::FetchOutlivesLease, "plain", 2),
    (Plant::LifetimeFromReply, "plain", 2),
    (Plant::OneClock, "suspend", 2),
    (Plant::FallbackNotRead, "fallback-crash", 1),
    (Plant::NothingIsWrittenLater, "denied", 2),
    (Plant::CooldownBeforeToken, "plain", 2),
    (Plant::RejectedTokenIsServed, "reject", 2),
    (Plant::NewsNotHeard, "watch", 2),
    (Plant::AloneWithoutPause, "alone", 2),
    (Plant::QuotaNotRead, "daily-quota", 2),
    (Plant::TicketKeepsCooldown, "ticket", 2),
    (Plant::TicketNotRead, "ticket", 2),
    (Plant::ForceIsIgnored, "force", 2),
    (Plant::UsedUpSecretIsSpent, "rollback", 2),
    (Plant::RenewalWithoutCompare, "ticket", 2),
    (Plant::OlderTicketIsUsed, "ticket", 2),
    (Plant::ForcedWithoutCount, "forced-quota", 2),
    (Plant::ReserveIsSpent, "daily-quota", 2),
    (Plant::ParentIsRejectedAgain, "parent", 2),
    (Plant::LeaseIsLeftBehind, "crash", 2),
    (Plant::NoQuarantine, "quarantine", 2),
    (Plant::CooldownEndsUnnoticed, "failures", 1),
    (Plant::ReturnedTokenIsExpired, "vouching", 1),
];

impl Plant {
    pub(crate) fn change_rules(self, rules: &mut Rules) {
        match self {
            Plant::ShortFetchWithSecret => rules.fetch_limit = Duration::from_secs(1),
            Plant::YoungProcessRefreshes => rules.young = Duration::ZERO,
            _ => {}
        }
    }

    pub(crate) fn change_timer(self, next: Option<(Timer, Timestamp)>) -> Option<(Timer, Timestamp)> {
        next.filter(|(timer, _)| match self {
            Plant::NothingIsAbandoned => *timer != Timer::Abandon,
            Plant::CooldownEndsUnnoticed => *timer != Timer::CooldownEnds,
            _ => true,
        })
    }

    /// Before a machine hears of a reply.
    pub(crate) fn change_reply(self, env: &Env<'_>, machine: &mut Machine, refresh: &mut Refresh, reply: &mut Reply) {
        match (self, reply) {
            (Plant::RejectionsAreReplaced, Reply::Found(stored)) => {
                machine.known.record.rejections = stored.record.rejections.clone();
            }
            (Plant::EarlyRejectionsStayLocal, Reply::Found(stored)) => {
                stored.record.rejections.early = EarlyRejections::default();
                stored.record.failure.take_if(|failure| failure.error.kind() == ErrorKind::TokenRejected);
            }
            (Plant::FailureIgnoresRecord, Reply::Found(stored)) if refresh.outcome.is_some() => {
                stored.record.token = None;
            }
            (Plant::OneClock, Reply::Found(stored)) => {
                stored.record.token.iter_mut().for_each(|token| token.end = token.end.monotonic_only());
            }
            (Plant::LifetimeFromReply, Reply::Granted(_)) => refresh.issued = env.now,
            (Plant::MarkNotRespected, Reply::Renewal(stored)) => {
                stored.secret.iter_mut().for_each(|secret| secret.spent_by = None);
            }
            (Plant::UsedUpSecretIsSpent, _) => machine.known.renewal.highest = 0,
            (Plant::OlderTicketIsUsed, Reply::Renewal(stored)) if stored.secret.is_some() => {
                (machine.known.renewal.held, machine.known.renewal.is_unstored) = (None, false);
            }
            (Plant::ReserveIsSpent, Reply::Quota { day: Some(day), .. }) => {
                day.count.calls = day.count.calls.saturating_sub(1);
            }
            (Plant::ParentIsRejectedAgain, _) => machine.known.parent_refused = None,
            (Plant::ReturnedTokenIsExpired, Reply::Granted(grant)) => {
                let end = machine.known.record.known_end(grant.fingerprint);
                if end.is_some_and(|end| env.now.reaches(end)) {
                    grant.lifetime = Some(Duration::ZERO.into());
                }
            }
            (Plant::QuotaNotRead, Reply::Quota { day, .. }) => *day = None,
            (Plant::TicketNotRead, Reply::Renewal(stored)) => stored.secret = None,
            (Plant::AloneWithoutPause, _) => {
                machine.known.last_fetch_alone = None;
                let long_ago = Timestamp::new(Duration::ZERO, Duration::ZERO);
                machine.known.store.down.iter_mut().for_each(|down| down.since = long_ago);
            }
            _ => {}
        }
    }

    /// After a machine has chosen a step.
    pub(crate) fn change_step(
        self,
        env: &Env<'_>,
        machine: &mut Machine,
        refresh: &mut Refresh,
        step: &mut Step,
        actions: &mut Vec<Action>,
    ) {
        let is_holder = refresh.lease_until.is_some();
        match (self, &mut *step) {
            (Plant::RecordEndsWithToken, Step::Write { record, keep_for, .. }) => {
                let token = record.token.as_ref().map(|token| env.now.until(token.end));
                *keep_for = token.unwrap_or(*keep_for);
            }
            (Plant::WriteBackErasesFailure, Step::Write { record, .. }) if refresh.goal == Goal::Sync => {
                record.failure = None;
            }
            (Plant::HolderWritesRegardless, Step::Write { record, .. }) if is_holder => {
                **record = machine.known.record.clone();
            }
            (Plant::FetchOutlivesLease, Step::Fetch { until, .. }) => {
                *until = env.now.after(env.rules.lease() + Duration::from_secs(1));
            }
            (Plant::FetchAfterShutdown, Step::FreeLease(_)) if machine.is_stopping() && is_for(refresh, shut_down) => {
                *step = fetch(env, machine, refresh);
            }
            (Plant::SecretWithoutStore, Step::Finish) if refresh.tier == Tier::Alone && refresh.outcome.is_some() => {
                *step = fetch(env, machine, refresh);
            }
            (Plant::ForcedWithoutCount, Step::Fetch { is_forced, .. }) => *is_forced = true,
            (Plant::LeaseIsLeftBehind, Step::Write { frees_lease, .. }) => *frees_lease = false,
            (Plant::LeaseIsLeftBehind, Step::FreeLease(_)) => *step = Step::Finish,
            (Plant::NoQuarantine, Step::Write { frees_lease, .. }) if refresh.keeps_lease => *frees_lease = true,
            (Plant::SecretNotMarked, Step::MarkRenewal { .. }) => *step = fetch(env, machine, refresh),
            (Plant::TokenBeforeSecret, Step::StoreRenewal { .. }) => {
                if let Some(token) = refresh.fetch.granted.clone() {
                    machine.known.record.note_token(&token, env);
                    let until = token.end;
                    actions.extend([Action::Serve { token: Box::new(token), until }, Action::Wake]);
                }
            }
            _ => {}
        }
        refresh.step = step.clone();
    }

    /// After a machine has answered.
    pub(crate) fn change_answer(
        self,
        env: &Env<'_>,
        before: &Machine,
        machine: &mut Machine,
        input: &Input,
        (actions, answer): (&mut Vec<Action>, &mut Answer),
    ) {
        let starts = actions.iter().any(|action| matches!(action, Action::Start(_)));
        let pause = before.pause(env);
        match (self, input) {
            (Plant::CooldownBeforeToken, Input::Call { .. }) | (Plant::CooldownBeforeStore, Input::Call { .. })
                if pause.is_some() && (starts || self == Plant::CooldownBeforeToken) =>
            {
                *machine = before.clone();
                actions.clear();
                *answer = pause.map_or(Answer::Done, |pause| Answer::Failed(pause.error(env.now)));
            }
            (Plant::FailureAnswersAtOnce, Input::Call { .. }) if !starts && before.in_flight().is_none() => {
                if let (Answer::Wait, Some(pause)) = (&*answer, pause) {
                    *answer = Answer::Failed(pause.error(env.now));
                }
            }
            (Plant::InvalidationCounts, Input::Invalidated) => count_as_early(env, before, machine),
            (Plant::GrantSurvivesInvalidation, Input::Invalidated) => {
                let token = before.known.record.token.as_ref().map_or(0, |token| token.sequence);
                machine.known.record.rejections.through = token.max(before.known.record.rejections.through);
            }
            (Plant::ShutdownWakesNobody, Input::Shutdown) => actions.retain(|action| !matches!(action, Action::Wake)),
            (Plant::NewestTokenIsWithdrawn, Input::Rejected { .. }) if matches!(answer, Answer::Failed(_)) => {
                if let Some(token) = machine.known.record.token.clone() {
                    machine.known.record.reject(&RejectedToken::of(&token));
                    actions.push(Action::Withdraw);
                }
            }
            (Plant::RejectedTokenIsServed, Input::Rejected { .. }) => {
                actions.retain(|action| !matches!(action, Action::Withdraw));
            }
            (Plant::DropDoesNotWait, Input::HandleDropped) => *answer = Answer::Done,
            (Plant::NewsNotHeard, Input::RecordChanged) => machine.known.has_news = false,
            (Plant::TicketKeepsCooldown, Input::TicketSet(_)) => {
                machine.known.cooldown = before.known.cooldown.clone();
                machine.known.record.failure = before.known.record.failure.clone();
                machine.known.record.forgiven_through = before.known.record.forgiven_through;
            }
            (Plant::ForceIsIgnored, Input::Force { .. }) => {
                if let Some(token) = before.known.record.usable(env) {
                    *answer = Answer::Token(token.clone());
                    *machine = before.clone();
                    actions.clear();
                }
            }
            _ => {}
        }
    }

    /// Where the cache would hide what a plant does.
    pub(crate) fn ignores_cache(self) -> bool {
        self == Plant::CooldownBeforeToken
    }
}

fn is_for(refresh: &Refresh, error: fn() -> crate::error::Error) -> bool {
    refresh.outcome.as_ref().is_some_and(|outcome| outcome.is_for(error().kind()))
}

/// The request, whatever speaks against it.
fn fetch(env: &Env<'_>, machine: &mut Machine, refresh: &mut Refresh) -> Step {
    refresh.outcome = None;
    refresh.fetch.reserved = machine.known.reserve(env.now);
    let renewal = refresh.fetch.secret.clone().or_else(|| machine.known.renewal.held.clone());
    Step::Fetch { renewal, is_forced: false, until: env.now.after(env.rules.fetch_limit) }
}

fn count_as_early(env: &Env<'_>, before: &Machine, machine: &mut Machine) {
    let early = &mut machine.known.record.rejections.early;
    early.count = before.known.record.rejections.early.count + 1;
    if early.count >= env.rules.early_limit {
        let (error, retry_at) = (refused_by_services(), env.now.after(env.rules.policy.backoff_min));
        let number = machine.known.reserve(env.now);
        machine.known.record.failure = Some(Failure { number, error, retry_at, count: 1 });
    }
}

mod tests {
    use super::*;
    use crate::scenarios::{Scenario, named};
    use crate::search::search;
    use crate::walk::walk;

    /// Most plants are found by the search. Those that are too deep for it are found by many short walks.
    #[test]
    fn every_planted_fault_is_found() {
        let only = std::env::var("PLANT").ok();
        let wanted = |plant: &Plant| only.as_ref().is_none_or(|only| format!("{plant:?}") == *only);
        let missed: Vec<Plant> = PLANTS
            .iter()
            .filter(|(plant, ..)| wanted(plant))
            .filter(|(plant, scenario, processes)| {
                let scenario = Scenario { processes: *processes, ..named(scenario) };
                !is_found(*plant, &scenario.with_plant(*plant))
            })
            .map(|(plant, ..)| *plant)
            .collect();
        assert!(missed.is_empty(), "not found: {missed:?}");
    }

    /// Prints how the plant was found.
    fn is_found(plant: Plant, scenario: &Scenario) -> bool {
        let report = search(scenario, MOST_TRANSITIONS);
        let name = format!("{plant:?}");
        if let Some(broken) = report.broken {
            let (transitions, steps, promise) = (report.transitions, broken.story.len(), broken.promise);
            println!(
                "{name:<26} {:<16} search {transitions:>8} transitions {steps:>3} steps: {promise}",
                scenario.name
            );
            if std::env::var("PLANT").is_ok() {
                println!("  {:?}", broken.story);
            }
            return true;
        }
        let found = (0..MOST_WALKS).find_map(|seed| Some((seed, walk(scenario, seed, STEPS).err()?)));
        match &found {
            Some((seed, broken)) => {
                let (steps, promise) = (broken.story.len(), &broken.promise);
                println!("{name:<26} {:<16} walk {seed:>10}             {steps:>3} steps: {promise}", scenario.name);
            }
            None => println!("{name:<26} {:<16} NOT FOUND", scenario.name),
        }
        found.is_some()
    }

    const MOST_TRANSITIONS: u64 = 130_000;
    const MOST_WALKS: u64 = 20_000;
    const STEPS: usize = 90;
}
