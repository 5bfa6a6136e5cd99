//! The only place that says what a token is worth.

use std::cmp::Ordering;

use super::Env;
use super::access_token::{AccessToken, Sequence};
use crate::policy::{Phase, Schedule};

/// A candidate beside what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Better,
    Same,
    Older,
    /// The candidate's number is at or below the watermark of rejections.
    Rejected,
}

/// Compares a candidate with what is known. The higher number wins. Two tokens have one number only when two
/// processes fetched in one millisecond without a working store; then their names decide, equally in every process.
pub(crate) fn judge(
    current: Option<&AccessToken>,
    rejected_through: Sequence,
    candidate: &AccessToken,
    env: &Env<'_>,
) -> Judgement {
    if candidate.sequence <= rejected_through {
        return Judgement::Rejected;
    }
    let Some(token) = current else { return Judgement::Better };
    if candidate.is_same_grant(token) {
        return Judgement::Same;
    }
    // An expired token is no competitor: its number may come from before all stores lost everything.
    let is_expired = |token: &AccessToken| phase(token, env) == Phase::Expired;
    if is_expired(token) != is_expired(candidate) {
        return if is_expired(token) { Judgement::Better } else { Judgement::Older };
    }
    let rank = |token: &AccessToken| (token.sequence, token.fingerprint);
    match rank(candidate).cmp(&rank(token)) {
        Ordering::Greater => Judgement::Better,
        Ordering::Equal => Judgement::Same,
        Ordering::Less => Judgement::Older,
    }
}

/// Where a token is in its lifetime, without the jitter that a process adds to the time of its refresh.
pub(crate) fn phase(token: &AccessToken, env: &Env<'_>) -> Phase {
    schedule(token, NO_JITTER, env).phase(env.now)
}

/// The course of a token's lifetime. `spread` is drawn once for each token that a process holds, in thousandths.
pub(crate) fn schedule(token: &AccessToken, spread: u16, env: &Env<'_>) -> Schedule {
    let nothing_left = std::time::Duration::ZERO;
    env.rules.policy.schedule(token.end, token.lifetime, nothing_left, f64::from(spread) / 1000.0)
}

const NO_JITTER: u16 = 500;
