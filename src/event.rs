//! Events: what a manager reports to its subscribers and to the log.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::error::Error;
use crate::lock::lock;

/// Something that happened to a manager's token. `Display` is the text of the log line.
///
/// [`TokenManager::events`](crate::TokenManager::events) subscribes to events.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The time of the event on the manager's wall clock.
    pub at: SystemTime,
    /// What happened.
    pub kind: EventKind,
    /// How many events directly before this one were dropped, because the channel was full.
    pub missed: u64,
}

/// The kinds of events.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// The manager has a new current token.
    #[non_exhaustive]
    Granted {
        /// The [fingerprint](crate::Token::fingerprint) of the token.
        fingerprint: String,
        /// Where the token came from.
        origin: TokenOrigin,
        /// How long the token is valid from now on.
        remaining: Duration,
        /// How long the refresh took.
        took: Duration,
        /// True when the refresh ran in the background, while callers still got the previous token.
        in_background: bool,
    },
    /// The provider returned the current token again.
    #[non_exhaustive]
    Unchanged {
        /// How long until the next request.
        retry_in: Duration,
    },
    /// A fetch failed. Callers get the current token while it has not expired, else this error.
    #[non_exhaustive]
    Failed {
        /// Why the fetch failed.
        error: Error,
        /// How long until the next request.
        retry_in: Duration,
    },
    /// The current token was [rejected](crate::TokenManager::reject), here or by another manager.
    #[non_exhaustive]
    Rejected {
        /// The [fingerprint](crate::Token::fingerprint) of the token.
        fingerprint: String,
    },
    /// The provider returned a rejected token again, so the token is back in use.
    #[non_exhaustive]
    Reinstated {
        /// The [fingerprint](crate::Token::fingerprint) of the token.
        fingerprint: String,
    },
    /// [`invalidate`](crate::TokenManager::invalidate) removed the current token.
    Invalidated,
    /// The shared store cannot be used. Emitted once per outage.
    #[non_exhaustive]
    StoreDown {
        /// Why the store cannot be used.
        error: Error,
    },
    /// The shared store can be used again.
    StoreUp,
    /// The new refresh token could not be stored.
    ///
    /// The manager keeps the refresh token in memory and fetches nothing until it has been stored. If the process ends
    /// before, the person has to sign in again.
    #[non_exhaustive]
    RenewalSecretNotStored {
        /// Why the store did not take the refresh token.
        error: Error,
    },
}

/// Where a token came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenOrigin {
    /// The provider granted the token to this manager.
    Provider,
    /// The token was recorded by another manager, in the shared store or in the
    /// [fallback store](crate::TokenManagerBuilder::fallback_store).
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
            missed => write!(f, "{} ({missed} events before this one were dropped)", self.kind),
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventKind::Granted { fingerprint, origin, remaining, took, in_background } => {
                let trigger = if *in_background { "background refresh: " } else { "" };
                let (token, took, left) =
                    (short_fingerprint(fingerprint), format_duration(*took), format_duration(*remaining));
                write!(f, "{trigger}new token {token} from the {origin} in {took}, valid for {left}")
            }
            EventKind::Unchanged { retry_in } => {
                write!(f, "the provider returned the unchanged token; next request in {}", format_duration(*retry_in))
            }
            EventKind::Failed { error, retry_in } => {
                write!(f, "the refresh failed: {error}; next request in {}", format_duration(*retry_in))
            }
            EventKind::Rejected { fingerprint } => write!(f, "token {} was rejected", short_fingerprint(fingerprint)),
            EventKind::Reinstated { fingerprint } => {
                let token = short_fingerprint(fingerprint);
                write!(f, "the provider returned the rejected token {token} again, so it is back in use")
            }
            EventKind::Invalidated => f.write_str("the token was invalidated"),
            EventKind::StoreDown { error } => write!(f, "the shared store cannot be used: {error}"),
            EventKind::RenewalSecretNotStored { error } => {
                write!(f, "the new refresh token could not be stored and is lost if the process ends: {error}")
            }
            EventKind::StoreUp => f.write_str("the shared store can be used again"),
        }
    }
}

/// Returns the first characters of a fingerprint, which are enough to tell tokens apart in a log.
fn short_fingerprint(fingerprint: &str) -> &str {
    fingerprint.get(..8).unwrap_or(fingerprint)
}

/// Formats a duration for people: `25 ms`, `3.3 s`, `7200 s`.
pub(crate) fn format_duration(duration: Duration) -> String {
    match duration.as_secs_f64() {
        time if time < 1.0 => format!("{:.0} ms", time * 1_000.0),
        time if time < 10.0 => format!("{time:.1} s"),
        time => format!("{time:.0} s"),
    }
}

/// The subscriptions to the events of one manager.
#[derive(Debug, Default)]
pub(crate) struct Events(Mutex<Vec<Subscription>>);

#[derive(Debug)]
struct Subscription {
    sender: Sender<Event>,
    /// How many events have been dropped since the last one that was sent.
    missed: u64,
}

impl Events {
    pub(crate) fn subscribe(&self) -> Receiver<Event> {
        let (sender, receiver) = bounded(CHANNEL_CAPACITY);
        let mut subscriptions = lock(&self.0);
        // A dropped receiver is noticed only when an event is sent, and a valid token may cause none for hours. The
        // limit keeps a program that subscribes again and again from growing.
        if subscriptions.len() >= MAX_SUBSCRIPTIONS {
            subscriptions.remove(0);
        }
        subscriptions.push(Subscription { sender, missed: 0 });
        receiver
    }

    /// Sends an event to every subscription. Never blocks: a full channel loses the event and the next one says so.
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

/// How many unread events a channel holds.
const CHANNEL_CAPACITY: usize = 256;

/// How many subscriptions a manager has at most.
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
    fn the_oldest_subscription_ends_when_a_manager_has_more_than_sixty_four() {
        let events = Events::default();
        let kept: Vec<_> = (0..=MAX_SUBSCRIPTIONS).map(|_| events.subscribe()).collect();
        assert_eq!(lock(&events.0).len(), MAX_SUBSCRIPTIONS);
        emit(&events, 1);
        assert_eq!(kept[0].try_recv().err(), Some(crossbeam_channel::TryRecvError::Disconnected));
        assert!(kept[1..].iter().all(|receiver| receiver.len() == 1));
    }

    #[test]
    fn a_subscription_whose_receiver_was_dropped_is_removed() {
        let events = Events::default();
        drop(events.subscribe());
        let kept = events.subscribe();
        emit(&events, 1);
        assert_eq!(lock(&events.0).len(), 1);
        assert_eq!(kept.len(), 1);
    }
}
