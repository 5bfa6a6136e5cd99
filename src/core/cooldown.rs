//! The one cooldown of a process: until when nothing is asked of the provider, and why.

use std::time::Duration;

use super::Env;
use super::record::Failure;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};

#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Cooldown {
    pub(crate) until: Timestamp,
    pub(crate) reason: Reason,
}

#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) enum Reason {
    Failed(Error),
    /// The provider returned the current token, and would again.
    Unchanged,
    /// Another process performs the refresh. Concerns background refreshes only.
    Busy,
}

impl Cooldown {
    pub(crate) fn failed(error: Error, wait: Duration, env: &Env<'_>) -> Cooldown {
        Cooldown { until: env.now.after(wait), reason: Reason::Failed(error) }
    }

    pub(crate) fn of(failure: &Failure) -> Cooldown {
        Cooldown { until: failure.retry_at, reason: Reason::Failed(failure.error.clone()) }
    }

    pub(crate) fn is_active(&self, now: Timestamp) -> bool {
        !now.reaches(self.until)
    }

    /// True when a caller with time left waits for the next try: the failure passes by itself.
    pub(crate) fn passes(&self) -> bool {
        match &self.reason {
            Reason::Failed(error) => error.is_retryable(),
            Reason::Unchanged | Reason::Busy => true,
        }
    }

    pub(crate) fn is_for(&self, kind: ErrorKind) -> bool {
        self.error_kind() == Some(kind)
    }

    pub(crate) fn error_kind(&self) -> Option<ErrorKind> {
        match &self.reason {
            Reason::Failed(error) => Some(error.kind()),
            Reason::Unchanged | Reason::Busy => None,
        }
    }

    /// What callers are told meanwhile.
    pub(crate) fn error(&self, now: Timestamp) -> Error {
        let error = match &self.reason {
            Reason::Failed(error) => error.clone(),
            Reason::Unchanged => still_unchanged(),
            Reason::Busy => Error::new(ErrorKind::Unavailable, "another process performs the refresh"),
        };
        error.with_retry_after(now.until(self.until))
    }
}

/// Of two cooldowns the one that lasts longer.
pub(crate) fn later(one: Option<Cooldown>, other: Option<Cooldown>, now: Timestamp) -> Option<Cooldown> {
    let lasts = |cooldown: &Cooldown| now.until(cooldown.until);
    [one, other].into_iter().flatten().filter(|cooldown| cooldown.is_active(now)).max_by_key(lasts)
}

pub(crate) fn still_unchanged() -> Error {
    Error::new(ErrorKind::Unavailable, "the provider keeps returning the expired token")
}

pub(crate) fn shut_down() -> Error {
    Error::new(ErrorKind::Shutdown, "the manager was shut down")
}

pub(crate) fn refused_by_services() -> Error {
    Error::new(ErrorKind::TokenRejected, "the service refused several new tokens in a row; fetching pauses")
}

pub(crate) fn not_returned() -> Error {
    Error::new(ErrorKind::Unavailable, "the provider did not return in time")
}

pub(crate) fn too_many_abandoned() -> Error {
    Error::new(ErrorKind::Unavailable, "too many fetches of this provider have never returned")
}
