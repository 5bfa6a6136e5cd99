//! How things stand with one credential: what a status shows.

use std::time::Duration;

use super::access_token::Fingerprint;
use super::machine::Machine;
use super::quota::{DAY, QuotaCount};
use super::{Env, judge};
use crate::error::Error;
use crate::policy::Phase;

#[derive(Clone, Debug)]
pub(crate) struct Overview {
    pub(crate) token: Option<TokenOverview>,
    pub(crate) is_fetching: bool,
    /// Refreshes that were abandoned and have not returned.
    pub(crate) abandoned: usize,
    /// When the provider is asked again, if there is a cooldown.
    pub(crate) retry_in: Option<Duration>,
    /// The last failure, and how long ago it was.
    pub(crate) last_error: Option<(Error, Duration)>,
    pub(crate) renewal_secret_age: Option<Duration>,
    /// What was counted of the quota, and when the count begins anew.
    pub(crate) quota: Option<(QuotaCount, Duration)>,
    /// For how long the store has been down, and why.
    pub(crate) store_down: Option<(Duration, Error)>,
    pub(crate) is_shut_down: bool,
}

/// The token that is held.
#[derive(Clone, Debug)]
pub(crate) struct TokenOverview {
    pub(crate) phase: Phase,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) is_fetched_here: bool,
    pub(crate) held_for: Duration,
    pub(crate) refresh_in: Duration,
    pub(crate) expires_in: Duration,
}

impl Overview {
    pub(crate) fn of(machine: &Machine, env: &Env<'_>) -> Overview {
        let (known, now) = (&machine.known, env.now);
        let day = known.day.filter(|day| now.since(day.began) < DAY);
        Overview {
            token: TokenOverview::of(machine, env),
            is_fetching: machine.in_flight().is_some(),
            abandoned: machine.abandoned.len(),
            retry_in: machine.pause(env).map(|pause| now.until(pause.until)),
            last_error: machine.last_error.as_ref().map(|(error, at)| (error.clone(), now.since(*at))),
            renewal_secret_age: known.renewal.held.as_ref().map(|held| now.since(held.since)),
            quota: day.map(|day| (day.count, DAY.saturating_sub(now.since(day.began)))),
            store_down: known.store.down.as_ref().map(|down| (now.since(down.since), down.error.clone())),
            is_shut_down: known.is_stopping,
        }
    }
}

impl TokenOverview {
    fn of(machine: &Machine, env: &Env<'_>) -> Option<TokenOverview> {
        let (token, served) = (machine.known.record.token.as_ref()?, machine.served?);
        let schedule = judge::schedule(token, machine.known.spread, env);
        Some(TokenOverview {
            phase: schedule.phase(env.now),
            fingerprint: token.fingerprint,
            is_fetched_here: machine.known.fetched == token.sequence,
            held_for: env.now.since(served.since),
            refresh_in: env.now.until(schedule.refresh_at),
            expires_in: env.now.until(schedule.ends_at),
        })
    }
}
