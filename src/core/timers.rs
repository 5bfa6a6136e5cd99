//! What happens by itself. The table is derived from the state, so no timer can be forgotten or left over.

use super::machine::Machine;
use super::{Env, judge};
use crate::clock::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The step of the refresh in flight has not come back.
    Abandon,
    /// Callers that wait for the end of the cooldown try again.
    CooldownEnds,
    /// Time for a refresh in the background.
    RefreshDue,
    /// Compare what is known with the store.
    StoreCheck,
    /// Write to the store what could not be written.
    StoreRetry,
    /// The current token has expired: its memory is wiped, and its record is watched no longer.
    Expired,
}

/// The next timer and its time. `None`: nothing happens until the next input.
pub(crate) fn next(machine: &Machine, env: &Env<'_>) -> Option<(Timer, Timestamp)> {
    let table = match machine.in_flight() {
        Some(in_flight) => vec![(Timer::Abandon, Some(in_flight.limit))],
        None if machine.is_stopping() => vec![(Timer::StoreRetry, final_write(machine, env))],
        None => idle_timers(machine, env),
    };
    let soonest = |(_, at): &(Timer, Timestamp)| env.now.until(*at);
    table.into_iter().filter_map(|(timer, at)| Some((timer, at?))).min_by_key(soonest)
}

/// After a shutdown only a renewal secret that would be lost is still written.
fn final_write(machine: &Machine, env: &Env<'_>) -> Option<Timestamp> {
    machine.known.renewal.must_be_stored(env).and_then(|_| store_retry(machine, env))
}

fn idle_timers(machine: &Machine, env: &Env<'_>) -> Vec<(Timer, Option<Timestamp>)> {
    let known = &machine.known;
    let pause = machine.pause(env).map(|cooldown| cooldown.until);
    // A cooldown that has ended unnoticed still has to wake those who wait for its end.
    let waits_until = machine.has_waiters().then(|| pause.unwrap_or(env.now));
    let usable = known.record.usable(env);
    let schedule = usable.map(|token| judge::schedule(token, known.spread, env));
    // A token that nobody has read since the last look stays as it is until somebody reads it.
    let is_awake = machine.is_awake(env);
    let refreshes = is_awake && machine.refreshes_ahead(env);
    let not_paused = |at: Timestamp| pause.map_or(at, |pause| at.later(pause));
    let due = match schedule {
        Some(schedule) => Some(not_paused(schedule.refresh_at)),
        None => (env.rules.keeps_warm && machine.was_held()).then(|| not_paused(env.now)),
    };
    let check =
        if known.has_news { Some(env.now) } else { Some(known.store.last_try.after(env.rules.store_check_interval)) };
    let wants_check = env.rules.has_store && (usable.is_some() && is_awake || machine.waits_for_ticket(env));
    vec![
        (Timer::StoreRetry, known.lacks_in_store(env).then(|| store_retry(machine, env)).flatten()),
        (Timer::RefreshDue, due.filter(|_| refreshes)),
        (Timer::StoreCheck, check.filter(|_| wants_check).map(|at| at.later(known.store.rests_until()))),
        (Timer::CooldownEnds, waits_until),
        (Timer::Expired, schedule.map(|schedule| schedule.expired_at)),
        // Nothing usable is left of the token that is still served.
        (Timer::Expired, (usable.is_none() && machine.is_serving()).then_some(env.now)),
    ]
}

fn store_retry(machine: &Machine, env: &Env<'_>) -> Option<Timestamp> {
    let store = &machine.known.store;
    let retry = store.last_try.after(env.rules.store_retry);
    // What must not be lost is not left for as long as the store rests.
    let is_urgent = machine.known.renewal.must_be_stored(env).is_some();
    env.rules.has_store.then(|| if is_urgent { retry } else { retry.later(store.rests_until()) })
}
