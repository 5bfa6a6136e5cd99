//! What happened, for those who want to be told.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::error::Error;
use crate::lock::lock;

/// Something that happened to a manager's token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// When, by the manager's wall clock.
    pub at: SystemTime,
    /// What.
    pub kind: EventKind,
    /// How many events before this one were dropped, because the channel was full.
    pub missed: u64,
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// A new token is held.
    #[non_exhaustive]
    Granted {
        /// Names the token without telling it.
        fingerprint: String,
        /// Where it came from.
        origin: TokenOrigin,
        /// How long it lives from now on.
        remaining: Duration,
        /// How long the fetch took.
        took: Duration,
        /// True when it was renewed in the background while the one before it was still handed out.
        in_background: bool,
    },
    /// The provider gave the token that is held already.
    #[non_exhaustive]
    Unchanged {
        /// When it is asked again, from now.
        retry_in: Duration,
    },
    /// A fetch failed. Callers get the held token if it is not dead, else this error.
    #[non_exhaustive]
    Failed {
        /// Why.
        error: Error,
        /// When it is tried again, from now.
        retry_in: Duration,
    },
    /// The held token was rejected.
    #[non_exhaustive]
    Rejected {
        /// Names the token without telling it.
        fingerprint: String,
    },
    /// The provider granted a token again that had been rejected, so it is used again.
    #[non_exhaustive]
    Reinstated {
        /// Names the token without telling it.
        fingerprint: String,
    },
    /// All was forgotten by `invalidate`.
    Invalidated,
    /// The shared store cannot be used. Told once, not once a call.
    #[non_exhaustive]
    StoreDown {
        /// Why.
        error: Error,
    },
    /// The shared store can be used again.
    StoreUp,
    /// What the provider needs for the next token, a refresh token, could not be stored. It is kept in memory, and
    /// nothing is fetched until it is stored: should the process end before, somebody has to sign in again.
    #[non_exhaustive]
    RenewalSecretNotStored {
        /// Why.
        error: Error,
    },
}

/// Where a token came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenOrigin {
    /// The provider granted it to this manager.
    Provider,
    /// Another manager recorded it in the shared store, or in the one that stands in for that.
    Store,
}

impl fmt::Display for TokenOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenOrigin::Provider => "provider",
            TokenOrigin::Store => "shared store",
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.missed {
            0 => self.kind.fmt(f),
            missed => write!(f, "{} (and {missed} events before it were missed)", self.kind),
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventKind::Granted { fingerprint, origin, remaining, took, in_background } => {
                let when = if *in_background { " ahead of time" } else { "" };
                let (token, took, left) =
                    (short_fingerprint(fingerprint), format_duration(*took), format_duration(*remaining));
                write!(f, "token {token} from the {origin}{when}, took {took}, lives {left}")
            }
            EventKind::Unchanged { retry_in } => {
                write!(f, "same token again, next try in {}", format_duration(*retry_in))
            }
            EventKind::Failed { error, retry_in } => {
                write!(f, "no token: {error}; next try in {}", format_duration(*retry_in))
            }
            EventKind::Rejected { fingerprint } => write!(f, "token {} was rejected", short_fingerprint(fingerprint)),
            EventKind::Reinstated { fingerprint } => {
                write!(f, "rejected token {} was granted again and is used again", short_fingerprint(fingerprint))
            }
            EventKind::Invalidated => f.write_str("all forgotten"),
            EventKind::StoreDown { error } => write!(f, "the shared store cannot be used: {error}"),
            EventKind::RenewalSecretNotStored { error } => {
                write!(f, "what the next token is asked with could not be stored: {error}")
            }
            EventKind::StoreUp => f.write_str("the shared store can be used again"),
        }
    }
}

/// The first characters of a fingerprint: enough to tell tokens apart in a log.
fn short_fingerprint(fingerprint: &str) -> &str {
    fingerprint.get(..8).unwrap_or(fingerprint)
}

/// A duration for people.
pub(crate) fn format_duration(duration: Duration) -> String {
    match duration.as_secs_f64() {
        time if time < 1.0 => format!("{:.0} ms", time * 1_000.0),
        time if time < 10.0 => format!("{time:.1} s"),
        time => format!("{time:.0} s"),
    }
}

/// The subscriptions to one manager's events.
#[derive(Debug, Default)]
pub(crate) struct Events(Mutex<Vec<Subscription>>);

#[derive(Debug)]
struct Subscription {
    sender: Sender<Event>,
    missed: u64,
}

impl Events {
    pub(crate) fn subscribe(&self) -> Receiver<Event> {
        let (sender, receiver) = bounded(CHANNEL_CAPACITY);
        let mut subscriptions = lock(&self.0);
        // A receiver that was dropped shows only when an event comes, and a good token may not bring one for long.
        if subscriptions.len() >= MAX_SUBSCRIPTIONS {
            subscriptions.remove(0);
        }
        subscriptions.push(Subscription { sender, missed: 0 });
        receiver
    }

    /// Tells everybody who listens. Never waits: a full channel misses the event and is told so by the next.
    pub(crate) fn emit(&self, at: SystemTime, kind: &EventKind) {
        lock(&self.0).retain_mut(|subscription| {
            let event = Event { at, kind: kind.clone(), missed: subscription.missed };
            match subscription.sender.try_send(event) {
                Ok(()) => subscription.missed = 0,
                Err(TrySendError::Full(_)) => subscription.missed += 1,
                Err(TrySendError::Disconnected(_)) => return false,
            }
            true
        });
    }
}

/// How many events wait in a channel that nobody reads.
const CHANNEL_CAPACITY: usize = 256;

/// How many subscriptions one manager has.
const MAX_SUBSCRIPTIONS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn emit(events: &Events, times: usize) {
        (0..times).for_each(|_| events.emit(SystemTime::UNIX_EPOCH, &EventKind::Invalidated));
    }

    #[test]
    fn a_full_channel_loses_new_events_and_the_next_one_says_how_many() {
        let events = Events::default();
        let receiver = events.subscribe();
        emit(&events, CHANNEL_CAPACITY + 3);
        assert_eq!(receiver.try_iter().map(|event| event.missed).sum::<u64>(), 0);
        emit(&events, 2);
        assert_eq!(receiver.try_iter().map(|event| event.missed).collect::<Vec<_>>(), [3, 0]);
    }

    #[test]
    fn the_oldest_subscription_ends_when_there_are_more_than_sixty_four() {
        let events = Events::default();
        let kept: Vec<_> = (0..=MAX_SUBSCRIPTIONS).map(|_| events.subscribe()).collect();
        assert_eq!(lock(&events.0).len(), MAX_SUBSCRIPTIONS);
        emit(&events, 1);
        assert_eq!(kept[0].try_recv().err(), Some(crossbeam_channel::TryRecvError::Disconnected));
        assert!(kept[1..].iter().all(|receiver| receiver.len() == 1));
    }

    #[test]
    fn a_subscription_that_nobody_reads_any_more_is_forgotten() {
        let events = Events::default();
        drop(events.subscribe());
        let kept = events.subscribe();
        emit(&events, 1);
        assert_eq!(lock(&events.0).len(), 1);
        assert_eq!(kept.len(), 1);
    }
}
