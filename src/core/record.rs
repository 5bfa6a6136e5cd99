//! What is known of a credential, in a process or in a store, and how two such records become one.

use std::time::Duration;

use super::Env;
use super::access_token::{AccessToken, Fingerprint, Sequence};
use super::judge::{self, Judgement};
use super::rejection::{RejectedToken, Rejections};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::policy::Phase;

/// The provider's answer to the fetch with this number. It answers every caller until its retry time.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Failure {
    pub(crate) number: Sequence,
    pub(crate) error: Error,
    pub(crate) retry_at: Timestamp,
    /// How many fetches failed in a row.
    pub(crate) count: u32,
}

#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Record {
    /// The latest token that is not rejected.
    pub(crate) token: Option<AccessToken>,
    pub(crate) rejections: Rejections,
    pub(crate) failure: Option<Failure>,
    /// Failures up to this number are forgiven: an invalidation or a new ticket ended their cooldown.
    pub(crate) forgiven_through: Sequence,
    /// The number of the latest renewal secret that is known of: a stored secret below it has been used.
    pub(crate) renewal_number: u64,
}

impl Record {
    /// Takes over what `other` knows better. Every field only grows, so the order of merges does not matter.
    pub(crate) fn merge(&mut self, other: &Record, env: &Env<'_>) {
        self.rejections.merge(&other.rejections);
        self.forgiven_through = self.forgiven_through.max(other.forgiven_through);
        self.renewal_number = self.renewal_number.max(other.renewal_number);
        if let Some(failure) = &other.failure {
            self.note_failure(failure, env);
        }
        if let Some(token) = &other.token {
            self.note_token(token, env);
        }
        self.drop_what_is_void();
    }

    /// What a candidate is worth beside what is known.
    fn judge(&self, candidate: &AccessToken, env: &Env<'_>) -> Judgement {
        judge::judge(self.token.as_ref(), self.rejections.through, candidate, env)
    }

    /// The token that may be handed out, if there is one.
    pub(crate) fn usable(&self, env: &Env<'_>) -> Option<&AccessToken> {
        let token = self.token.as_ref()?;
        let is_rejected = token.sequence <= self.rejections.through;
        (!is_rejected && judge::phase(token, env) != Phase::Expired).then_some(token)
    }

    /// Takes over a token unless the known one is better.
    pub(crate) fn note_token(&mut self, token: &AccessToken, env: &Env<'_>) {
        match (self.judge(token, env), &mut self.token) {
            (Judgement::Rejected, _) => self.rejections.remember(&RejectedToken::of(token)),
            (Judgement::Better, mine) => *mine = Some(token.clone()),
            // Two views of one token: the sooner end counts.
            (Judgement::Same, Some(mine)) => mine.end = mine.end.sooner(token.end),
            _ => {}
        }
    }

    /// Takes over a failure unless the known one lasts longer.
    pub(crate) fn note_failure(&mut self, failure: &Failure, env: &Env<'_>) {
        let lasts = |failure: &Failure| env.now.until(failure.retry_at);
        let is_longer = self.failure.as_ref().is_none_or(|known| {
            let is_void = known.number <= self.forgiven_through;
            is_void || (lasts(known), known.number) < (lasts(failure), failure.number)
        });
        if is_longer {
            self.failure = Some(failure.clone());
        }
    }

    /// Marks the token as not to be used. Returns false when that was known.
    pub(crate) fn reject(&mut self, token: &RejectedToken) -> bool {
        let is_news = self.rejections.reject(token);
        self.drop_what_is_void();
        is_news
    }

    /// Ends the cooldown after every failure up to `number`.
    pub(crate) fn forgive_through(&mut self, number: Sequence) {
        self.forgiven_through = self.forgiven_through.max(number);
        self.drop_what_is_void();
    }

    fn drop_what_is_void(&mut self) {
        if let Some(token) = self.token.take_if(|token| token.sequence <= self.rejections.through) {
            // Its name stays: the provider may return it.
            self.rejections.remember(&RejectedToken::of(&token));
        }
        // A later fetch has succeeded.
        let succeeded = self.token.as_ref().map_or(0, |token| token.sequence);
        self.failure.take_if(|failure| failure.number <= self.forgiven_through.max(succeeded));
    }

    /// The failure that still answers callers.
    pub(crate) fn active_failure(&self, now: Timestamp) -> Option<&Failure> {
        self.failure.as_ref().filter(|failure| !now.reaches(failure.retry_at))
    }

    /// True when a store that holds `stored` lacks something that is known here and still matters.
    pub(crate) fn adds_to(&self, stored: &Record, env: &Env<'_>) -> bool {
        let token = self
            .token
            .as_ref()
            .is_some_and(|token| !env.now.reaches(token.end) && stored.judge(token, env) == Judgement::Better);
        let failure = self.active_failure(env.now).is_some_and(|failure| {
            let lasts = |failure: &Failure| env.now.until(failure.retry_at);
            stored.failure.as_ref().is_none_or(|other| lasts(other) + ROUNDING < lasts(failure))
        });
        let forgives = stored.failure.as_ref().is_some_and(|other| other.number <= self.forgiven_through);
        // While there is no failure yet, nothing has to be forgiven in the store.
        token || failure || forgives || self.rejections.adds_to(&stored.rejections, env.now)
    }

    /// How long a store has to keep this record: until the last of its token, its rejections and its failure ends.
    pub(crate) fn keep_for(&self, now: Timestamp) -> Duration {
        let token = self.token.as_ref().map(|token| token.end);
        let failure = self.failure.as_ref().map(|failure| failure.retry_at);
        let ends = [token, failure, self.rejections.until];
        ends.into_iter().flatten().map(|end| now.until(end)).max().unwrap_or_default().max(SHORTEST)
    }

    /// The end of a token that was known by name, wherever it is remembered.
    pub(crate) fn known_end(&self, fingerprint: Fingerprint) -> Option<Timestamp> {
        let current = self.token.as_ref().filter(|token| token.fingerprint == fingerprint).map(|token| token.end);
        current.or_else(|| self.rejections.find(fingerprint).map(|rejected| rejected.end))
    }
}

/// Stores know no lifetime of zero.
const SHORTEST: Duration = Duration::from_millis(1);

/// Times that went through a store differ by the time that the transport took.
const ROUNDING: Duration = Duration::from_secs(1);
