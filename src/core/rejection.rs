//! Which tokens must not be used: one watermark, and the names of the last few for the first version of this crate.

use super::access_token::{AccessToken, Fingerprint, Sequence};
use crate::clock::Timestamp;

/// A token that must not be used, by name.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct RejectedToken {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) sequence: Sequence,
    /// Kept, because the provider may return the token and tell a whole lifetime.
    pub(crate) end: Timestamp,
    /// No service refused it. The user asked to forget it, and the provider may return it.
    pub(crate) is_invalidated: bool,
}

impl RejectedToken {
    pub(crate) fn of(token: &AccessToken) -> RejectedToken {
        let AccessToken { fingerprint, sequence, end, .. } = *token;
        RejectedToken { fingerprint, sequence, end, is_invalidated: false }
    }
}

/// Early rejections in a row: of tokens that had hardly been granted.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct EarlyRejections {
    pub(crate) count: u32,
    pub(crate) last: Option<Timestamp>,
}

/// "Nothing up to number N is good." A single number cannot overflow and evicts nothing.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Rejections {
    pub(crate) through: Sequence,
    /// The end of the longest-lived of these tokens. The record is kept as long.
    pub(crate) until: Option<Timestamp>,
    /// The last few by name, the latest last.
    pub(crate) recent: Vec<RejectedToken>,
    pub(crate) early: EarlyRejections,
}

impl Rejections {
    /// Raises the watermark to this token. Returns false when the token was below it.
    pub(crate) fn reject(&mut self, token: &RejectedToken) -> bool {
        let is_news = token.sequence > self.through;
        self.through = self.through.max(token.sequence);
        if is_news {
            self.until = Some(self.until.map_or(token.end, |until| until.later(token.end)));
            self.remember(token);
        }
        is_news
    }

    /// Keeps the name of a token.
    pub(crate) fn remember(&mut self, token: &RejectedToken) {
        self.until = Some(self.until.map_or(token.end, |until| until.later(token.end)));
        match self.recent.iter_mut().find(|known| known.fingerprint == token.fingerprint) {
            Some(known) => {
                known.sequence = known.sequence.max(token.sequence);
                known.end = known.end.sooner(token.end);
                known.is_invalidated &= token.is_invalidated;
            }
            None => self.recent.push(token.clone()),
        }
        self.recent.sort_by_key(|rejected| rejected.sequence);
        let surplus = self.recent.len().saturating_sub(MOST_RECENT);
        self.recent.drain(..surplus);
    }

    pub(crate) fn merge(&mut self, other: &Rejections) {
        match other.through.cmp(&self.through) {
            std::cmp::Ordering::Greater => self.early = other.early,
            std::cmp::Ordering::Equal if other.early.count > self.early.count => self.early = other.early,
            _ => {}
        }
        self.through = self.through.max(other.through);
        self.until = match (self.until, other.until) {
            (Some(mine), Some(theirs)) => Some(mine.later(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        other.recent.iter().for_each(|rejected| self.remember(rejected));
    }

    pub(crate) fn find(&self, fingerprint: Fingerprint) -> Option<&RejectedToken> {
        self.recent.iter().find(|rejected| rejected.fingerprint == fingerprint)
    }

    /// True when `stored` lacks a rejection that still matters.
    pub(crate) fn adds_to(&self, stored: &Rejections, now: Timestamp) -> bool {
        let matters = self.until.is_some_and(|until| !now.reaches(until));
        self.through > stored.through && matters
    }
}

/// The first version of this crate reads so many.
const MOST_RECENT: usize = 4;
