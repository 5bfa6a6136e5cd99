//! The renewal secret: a refresh token that rotates, or a ticket that the vendor pushes.
//!
//! A rotating secret ends when it is used. Therefore a process marks it by compare-and-swap before it sends it, and
//! stores the successor before the access token is handed out. A process that finds another's mark waits: the other
//! one may hold the successor in memory. A pushed ticket can be used by any number of processes, and only its age
//! says which of two is the later one.

use std::time::Duration;

use super::{Env, ProcessId, RefreshId};
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::version::Version;

/// Names the refresh that is about to send a secret, or has sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct SpentBy {
    pub(crate) process: ProcessId,
    pub(crate) refresh: RefreshId,
}

#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct RenewalSecret {
    pub(crate) secret: Secret,
    /// Counts secrets that came one after the other.
    pub(crate) number: u64,
    pub(crate) since: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) spent_by: Option<SpentBy>,
}

impl RenewalSecret {
    pub(crate) fn is_same(&self, other: &RenewalSecret) -> bool {
        self.number == other.number && self.secret.expose() == other.secret.expose()
    }
}

/// What stands where a renewal secret belongs.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct StoredRenewal {
    pub(crate) secret: Option<RenewalSecret>,
    pub(crate) version: Option<Version>,
    /// Something else stands there, or a secret of a later version of this crate.
    pub(crate) is_unreadable: bool,
}

/// What one process knows of the renewal secret.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Renewal {
    /// The latest secret that is known here.
    pub(crate) held: Option<RenewalSecret>,
    /// The store does not have `held` yet. A rotating secret keeps everything else waiting until it does.
    pub(crate) is_unstored: bool,
    /// The highest number that is known of, from records too: a stored secret below it has been used.
    pub(crate) highest: u64,
    /// The refresh that has sent a rotating secret and has not returned.
    pub(crate) spender: Option<RefreshId>,
    /// Since when another process's mark on the secret with this number has been seen.
    pub(crate) marked_since: Option<(u64, SpentBy, Timestamp)>,
}

/// What follows from a look at the stored secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// The store has the latest one.
    TakeStored,
    /// The store lacks the one that is held here.
    WriteHeld,
    /// Neither has one.
    Nothing,
    /// A later one is known to have been stored, so the stored one has been used.
    UsedUp,
    Unreadable,
}

impl Renewal {
    /// The rotating secret that must be stored before anything else happens.
    pub(crate) fn must_be_stored(&self, env: &Env<'_>) -> Option<&RenewalSecret> {
        self.held.as_ref().filter(|_| self.is_unstored && env.rules.rotates())
    }

    /// Which of the two counts: the stored secret or the one that is held here.
    pub(crate) fn compare(&self, stored: &StoredRenewal, env: &Env<'_>) -> Comparison {
        let rotates = env.rules.rotates();
        if stored.is_unreadable && rotates {
            return Comparison::Unreadable;
        }
        let held = self.held.as_ref().filter(|held| !env.now.reaches(held.end));
        let comparison = match (&stored.secret, held) {
            (None, None) => Comparison::Nothing,
            (Some(_), None) => Comparison::TakeStored,
            (None, Some(_)) => Comparison::WriteHeld,
            (Some(stored), Some(held)) if self.is_later(held, stored, env) => Comparison::WriteHeld,
            (Some(_), Some(_)) => Comparison::TakeStored,
        };
        let number = match comparison {
            Comparison::WriteHeld => held.map_or(0, |held| held.number),
            _ => stored.secret.as_ref().map_or(0, |stored| stored.number),
        };
        if rotates && number < self.highest { Comparison::UsedUp } else { comparison }
    }

    /// Of rotating secrets the numbers tell which is later; of tickets, which come from outside, the age.
    fn is_later(&self, held: &RenewalSecret, stored: &RenewalSecret, env: &Env<'_>) -> bool {
        if env.rules.rotates() {
            return held.number > stored.number;
        }
        if !self.is_unstored && held.is_same(stored) {
            return false;
        }
        let (ours, theirs) = (env.now.since(held.since), env.now.since(stored.since));
        // A write that was held up makes a ticket look younger than it is.
        if ours.abs_diff(theirs) < HELD_UP { held.number > stored.number } else { ours < theirs }
    }

    /// Takes over the stored secret. Returns whether it is another one than before.
    pub(crate) fn adopt(&mut self, stored: &RenewalSecret) -> bool {
        let is_new = self.held.as_ref().is_none_or(|held| held.secret.expose() != stored.secret.expose());
        self.highest = self.highest.max(stored.number);
        (self.held, self.is_unstored) = (Some(stored.clone()), false);
        is_new
    }

    /// Takes in a secret that came with a grant or was handed in, as the successor of `before`.
    pub(crate) fn replace(&mut self, secret: Secret, before: u64, lifetime: Duration, env: &Env<'_>) {
        let number = before + 1;
        // A fetch that was abandoned may come back after another has gone on.
        if self.held.as_ref().is_some_and(|held| held.number >= number) {
            return;
        }
        let (since, end) = (env.now, env.now.after(lifetime));
        self.held = Some(RenewalSecret { secret, number, since, end, spent_by: None });
        self.highest = self.highest.max(number);
        self.is_unstored = env.rules.has_store;
    }

    /// Until when another process's mark keeps this one from using the secret.
    pub(crate) fn respects_mark_until(
        &mut self,
        secret: &RenewalSecret,
        process: ProcessId,
        env: &Env<'_>,
    ) -> Option<Timestamp> {
        let by = secret.spent_by.filter(|by| by.process != process)?;
        // Counted from when this process first saw the mark: the age of a mark in the store is not known.
        let known = self.marked_since.filter(|(number, seen, _)| (*number, *seen) == (secret.number, by));
        let since = known.map_or(env.now, |(_, _, since)| since);
        self.marked_since = Some((secret.number, by, since));
        let until = since.after(env.rules.mark_patience());
        (!env.now.reaches(until)).then_some(until)
    }
}

/// Vendors push a ticket every ten minutes or less often.
const HELD_UP: Duration = Duration::from_secs(30);
