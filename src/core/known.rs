//! What one process knows of a credential. Its machine and its refreshes share it.

use super::access_token::{Fingerprint, Sequence};
use super::cooldown::Cooldown;
use super::quota::Day;
use super::record::Record;
use super::rejection::RejectedToken;
use super::renewal::Renewal;
use super::{Env, Notice};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::policy;

#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Known {
    pub(crate) record: Record,
    /// The highest number that a fetch or an invalidation of this process has reserved.
    pub(crate) reserved: Sequence,
    /// The number of the last token that this process fetched itself.
    pub(crate) fetched: Sequence,
    /// Moves the refresh of the current token by a random part, so that processes do not refresh in step.
    pub(crate) spread: u16,
    /// The cooldown of this process. The shared one is in the record.
    pub(crate) cooldown: Option<Cooldown>,
    /// Fetches of this process that failed in a row.
    pub(crate) failures: u32,
    pub(crate) renewal: Renewal,
    pub(crate) day: Option<Day>,
    /// A parent token that was refused although it was new.
    pub(crate) parent_refused: Option<Fingerprint>,
    /// A token that was returned after its rejection, and until when further rejections of it are ignored.
    pub(crate) reinstated: Option<(Fingerprint, Timestamp)>,
    /// A token that was rejected here and is not known here. The store may have it.
    pub(crate) suspect: Option<Fingerprint>,
    /// The primary store lacks something of `record`.
    pub(crate) is_unpublished: bool,
    /// The store has announced a change of the record.
    pub(crate) has_news: bool,
    /// The fallback store was read since the primary store was last down.
    pub(crate) is_fallback_read: bool,
    pub(crate) store: StoreHealth,
    /// When this process last fetched without a lease.
    pub(crate) last_fetch_alone: Option<Timestamp>,
    pub(crate) is_stopping: bool,
}

/// The primary store as this process sees it.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct StoreHealth {
    /// When the store was last asked, with or without success, and when it last answered.
    pub(crate) last_try: Timestamp,
    pub(crate) last_read: Timestamp,
    pub(crate) down: Option<Down>,
}

#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Down {
    pub(crate) since: Timestamp,
    pub(crate) error: Error,
    pub(crate) failures: u32,
    /// The store is left alone until then.
    pub(crate) retry_at: Timestamp,
}

impl Default for Known {
    fn default() -> Known {
        let never = Timestamp::new(std::time::Duration::ZERO, std::time::Duration::ZERO);
        Known {
            record: Record::default(),
            reserved: 0,
            fetched: 0,
            spread: 0,
            cooldown: None,
            failures: 0,
            renewal: Renewal::default(),
            day: None,
            parent_refused: None,
            reinstated: None,
            suspect: None,
            is_unpublished: false,
            has_news: false,
            is_fallback_read: false,
            store: StoreHealth { last_try: never, last_read: never, down: None },
            last_fetch_alone: None,
            is_stopping: false,
        }
    }
}

impl Known {
    /// Reserves the next sequence number. At least the wall clock, so that numbers go on after a store has lost
    /// everything, and so that an invalidation covers the fetches of other processes that are in flight.
    pub(crate) fn reserve(&mut self, now: Timestamp) -> Sequence {
        let token = self.record.token.as_ref().map_or(0, |token| token.sequence);
        let known = token.max(self.record.rejections.through).max(self.reserved);
        self.reserved = (known + 1).max(now.epoch_milliseconds());
        self.reserved
    }

    /// Takes over what a store's record knows better.
    pub(crate) fn merge(&mut self, record: &Record, env: &Env<'_>) {
        self.record.merge(record, env);
        self.renewal.highest = self.renewal.highest.max(self.record.renewal_number);
        let suspect = self.suspect.and_then(|suspect| {
            let token = self.record.token.as_ref()?;
            (token.fingerprint == suspect).then(|| RejectedToken::of(token))
        });
        if let Some(token) = suspect {
            self.suspect = None;
            self.record.reject(&token);
        }
    }

    /// True when the primary store lacks something that is known here.
    pub(crate) fn lacks_in_store(&self, env: &Env<'_>) -> bool {
        env.rules.has_store && (self.is_unpublished || self.renewal.is_unstored)
    }

    /// True when a token is known that may be handed out.
    pub(crate) fn is_usable(&self, env: &Env<'_>) -> bool {
        self.record.usable(env).is_some()
    }

    /// Ends a cooldown because of its reason.
    pub(crate) fn end_cooldown_for(&mut self, kind: ErrorKind) {
        self.cooldown.take_if(|cooldown| cooldown.is_for(kind));
    }

    /// A new ticket ends every cooldown for want of one, here and in the record.
    pub(crate) fn ticket_has_come(&mut self) {
        self.end_cooldown_for(ErrorKind::TicketRequired);
        let failure = self.record.failure.as_ref().filter(|failure| failure.error.kind() == ErrorKind::TicketRequired);
        if let Some(number) = failure.map(|failure| failure.number) {
            self.record.forgive_through(number);
        }
    }

    /// Notes that the primary store answered. `Proof::Write` shows that it works again.
    pub(crate) fn store_answered(&mut self, proof: Proof, env: &Env<'_>, notices: &mut Vec<Notice>) {
        (self.store.last_try, self.store.last_read) = (env.now, env.now);
        // A successful read does not prove that writes work.
        if proof == Proof::Write && self.store.down.take().is_some() {
            self.end_cooldown_for(ErrorKind::Store);
            notices.push(Notice::StoreUp);
        }
    }

    /// Notes that the primary store failed. Says so once for each change.
    pub(crate) fn store_failed(&mut self, error: Error, env: &Env<'_>, notices: &mut Vec<Notice>) {
        self.store.last_try = env.now;
        self.is_fallback_read = false;
        let before = self.store.down.take();
        if before.is_none() {
            notices.push(Notice::StoreDown { error: error.clone() });
        }
        let (since, failures) = before.map_or((env.now, 1), |down| (down.since, down.failures.saturating_add(1)));
        // A store that counts its own failures knows better.
        let told = error.retry_after().map(|wait| wait.clamp(SHORTEST_REST, LONGEST_REST));
        let retry_at = env.now.after(told.unwrap_or_else(|| policy::store_backoff(failures, env.random)));
        self.store.down = Some(Down { since, error, failures, retry_at });
    }
}

/// What an answer of the store proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Read,
    Write,
}

impl StoreHealth {
    /// Until when a store that is down is left alone; a time in the past when it is not.
    pub(crate) fn rests_until(&self) -> Timestamp {
        self.down.as_ref().map_or(self.last_try, |down| down.retry_at)
    }

    pub(crate) fn rests(&self, env: &Env<'_>) -> bool {
        self.down.as_ref().is_some_and(|down| !env.now.reaches(down.retry_at))
    }
}

const SHORTEST_REST: std::time::Duration = std::time::Duration::from_millis(100);
const LONGEST_REST: std::time::Duration = std::time::Duration::from_secs(60);
