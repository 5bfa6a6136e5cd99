//! What stands in a store: a record as JSON.

use std::time::Duration;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use super::{Failure, MOST_REJECTED, Record, RecordedToken, RejectedToken};
use crate::clock::{Timestamp, milliseconds};
use crate::error::{Error, ErrorKind};
use crate::policy::{Lifetime, MAX_COOLDOWN, MAX_LIFETIME};
use crate::secret::Secret;
use crate::token::check_text;

pub(super) const WIRE_VERSION: u8 = 1;

/// A record as it is stored. `access_token` and `expires_at` are what programs built on other formats look for: with no
/// token they read an empty one that has ended, and fetch.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Wire {
    pub(super) v: u8,
    pub(super) id: String,
    pub(super) access_token: String,
    /// Seconds since 1970 by the writer's wall clock. Not read here: no two hosts' clocks are compared.
    pub(super) expires_at: u64,
    /// The token's whole life.
    pub(super) life_ms: u64,
    /// What was left of it when this was written.
    pub(super) left_ms: u64,
    /// How long after it was granted the provider wants it renewed.
    #[serde(default)]
    pub(super) renew_ms: Option<u64>,
    /// How long this is kept from then on; what the store says remains of it tells how long ago that was.
    pub(super) kept_ms: u64,
    #[serde(default)]
    pub(super) number: u64,
    /// The provider's state that counted then.
    #[serde(default)]
    pub(super) state: Option<StateMark>,
    #[serde(default)]
    pub(super) rejected: Vec<WireRejected>,
    #[serde(default, deserialize_with = "readable_failure")]
    pub(super) failure: Option<WireFailure>,
}

/// What other programs record under a key of the user's own: the token, and when it is over by their clock.
#[derive(Deserialize)]
pub(super) struct Foreign {
    pub(super) access_token: String,
    #[expect(dead_code, reason = "it has to be there, but no two hosts' clocks are compared")]
    pub(super) expires_at: i64,
    /// A record of this crate's that cannot be read is no other program's.
    #[serde(default)]
    pub(super) v: Option<IgnoredAny>,
}

/// A state of a provider, by number.
#[derive(Serialize, Deserialize)]
pub(super) struct StateMark {
    /// Whose it is. Under a key of the user's own there may be records of one who has signed in anew since.
    pub(super) of: String,
    pub(super) number: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WireRejected {
    token: String,
    left_ms: u64,
}

impl WireRejected {
    pub(super) fn of(rejected: &RejectedToken, now: Timestamp) -> WireRejected {
        WireRejected { token: rejected.fingerprint.clone(), left_ms: milliseconds(now.until(rejected.end)) }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct WireFailure {
    kind: WireKind,
    /// The kind by its present name, where `kind` has only the nearest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exact_kind: Option<WireKind>,
    message: String,
    code: Option<String>,
    status: Option<u16>,
    #[serde(default)]
    request: Option<String>,
    retry_ms: u64,
    count: u32,
}

/// The kinds of errors that records name.
///
/// These words belong to the record format and stay as they are when [`ErrorKind`] changes. The first version of this
/// crate fails to read a record with a word that it does not know, and discards the token beside it. So a kind that is
/// newer than that version is written as the nearest older one, and precisely in a field of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WireKind {
    Config,
    Denied,
    NotAllowed,
    Throttled,
    TicketStale,
    Unavailable,
    Protocol,
    Rejected,
    Store,
    ClaimLost,
    TimedOut,
    Panicked,
    Shutdown,
    /// Newer than the first version: written as `Denied`, and as this in `exact_kind`.
    SignInRequired,
    /// A kind of a later version. Retried, because nothing is known against a retry.
    #[serde(other)]
    Unknown,
}

impl WireKind {
    /// The word for `kind` that every version can read, and the precise word where that is another.
    fn of(kind: ErrorKind) -> (WireKind, Option<WireKind>) {
        let first_version = match kind {
            ErrorKind::SignInRequired => return (WireKind::Denied, Some(WireKind::SignInRequired)),
            ErrorKind::Config => WireKind::Config,
            ErrorKind::InvalidCredentials => WireKind::Denied,
            ErrorKind::Forbidden => WireKind::NotAllowed,
            ErrorKind::Throttled => WireKind::Throttled,
            ErrorKind::TicketRequired => WireKind::TicketStale,
            ErrorKind::Unavailable => WireKind::Unavailable,
            ErrorKind::InvalidResponse => WireKind::Protocol,
            ErrorKind::TokenRejected => WireKind::Rejected,
            ErrorKind::Store => WireKind::Store,
            ErrorKind::ClaimLost => WireKind::ClaimLost,
            ErrorKind::TimedOut => WireKind::TimedOut,
            ErrorKind::Panicked => WireKind::Panicked,
            ErrorKind::Shutdown => WireKind::Shutdown,
        };
        (first_version, None)
    }

    fn to_kind(self) -> ErrorKind {
        match self {
            WireKind::Config => ErrorKind::Config,
            WireKind::Denied => ErrorKind::InvalidCredentials,
            WireKind::NotAllowed => ErrorKind::Forbidden,
            WireKind::Throttled => ErrorKind::Throttled,
            WireKind::TicketStale => ErrorKind::TicketRequired,
            // The first version wrote `TimedOut` for a provider that did not answer in time. The deadline of a caller
            // is never recorded.
            WireKind::Unavailable | WireKind::TimedOut | WireKind::Unknown => ErrorKind::Unavailable,
            WireKind::Protocol => ErrorKind::InvalidResponse,
            WireKind::Rejected => ErrorKind::TokenRejected,
            WireKind::Store => ErrorKind::Store,
            WireKind::ClaimLost => ErrorKind::ClaimLost,
            WireKind::Panicked => ErrorKind::Panicked,
            WireKind::Shutdown => ErrorKind::Shutdown,
            WireKind::SignInRequired => ErrorKind::SignInRequired,
        }
    }
}

impl Wire {
    pub(super) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        // Strings and numbers only: there is nothing in it that JSON cannot hold.
        let bytes = serde_json::to_vec(&self).unwrap_or_default();
        drop(Zeroizing::new(self.access_token));
        Zeroizing::new(bytes)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Wire> {
        let wire: Wire = from_object(bytes)?;
        let sound =
            wire.v == WIRE_VERSION && wire.life_ms <= milliseconds(MAX_LIFETIME) && wire.left_ms <= wire.life_ms;
        sound.then_some(wire)
    }

    /// `None` when more remains of it than it was given: then nobody can tell how old it is.
    pub(super) fn into_record(self, remaining: Duration, known_at: Timestamp) -> Option<Record> {
        let kept = Duration::from_millis(self.kept_ms);
        if remaining > kept.saturating_add(ROUNDED) {
            return None;
        }
        let age = kept.saturating_sub(remaining);
        let left =
            |milliseconds| Some(Duration::from_millis(milliseconds).saturating_sub(age)).filter(|l| !l.is_zero());
        let secret = Secret::new(self.access_token);
        let token = left(self.left_ms).filter(|_| check_text(&secret).is_ok()).map(|remaining| RecordedToken {
            fingerprint: secret.fingerprint(),
            life: Lifetime {
                total: Duration::from_millis(self.life_ms),
                refresh_in: self.renew_ms.map(Duration::from_millis),
            },
            remaining,
            known_at,
            secret,
        });
        let failure = self.failure.and_then(|failure| {
            let retry_in = left(failure.retry_ms.min(milliseconds(MAX_COOLDOWN)))?;
            Some(Failure { error: failure.to_error(), retry_in, count: failure.count })
        });
        let rejected = self.rejected.into_iter().rev().take(MOST_REJECTED).rev().map(|rejected| {
            let left = Duration::from_millis(rejected.left_ms).min(MAX_LIFETIME).saturating_sub(age);
            RejectedToken { fingerprint: rejected.token, end: known_at.after(left) }
        });
        let rejected = rejected.collect();
        // One that high is not counted but made up, and would leave no room for higher ones.
        let number = if self.number >= HIGHEST_NUMBER { 0 } else { self.number };
        Some(Record { token, rejected, failure, number, keep: remaining, version: None })
    }
}

impl WireFailure {
    pub(super) fn of(failure: &Failure) -> WireFailure {
        let error = &failure.error;
        let (kind, exact_kind) = WireKind::of(error.kind());
        WireFailure {
            kind,
            exact_kind,
            message: error.message().to_owned(),
            code: error.code().map(str::to_owned),
            status: error.status(),
            request: error.request_id().map(str::to_owned),
            retry_ms: milliseconds(failure.retry_in),
            count: failure.count,
        }
    }

    /// The text comes from a store that others can write, so it is kept short and printable.
    fn to_error(&self) -> Error {
        let message: String = self.message.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE).collect();
        let mut error = Error::new(self.exact_kind.unwrap_or(self.kind).to_kind(), message);
        if let Some(code) = &self.code {
            error = error.with_code(code);
        }
        if let Some(id) = &self.request {
            error = error.with_request_id(id);
        }
        match self.status {
            Some(status) => error.with_status(status),
            None => error,
        }
    }
}

/// A failure that this version cannot read counts as none, so that the token beside it stays in use.
fn readable_failure<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WireFailure>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(WireFailure::deserialize(value).ok())
}

/// Only a JSON object: serde would take an array of the fields as well.
pub(super) fn from_object<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let is_object = bytes.len() <= LARGEST_RECORD && bytes.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(bytes).ok())?
}

/// The longest token has 64 KiB. The first version reads records of up to 64 KiB.
const LARGEST_RECORD: usize = 128 * 1024;
/// What a time in a record may be shorter than it was.
const ROUNDED: Duration = Duration::from_millis(1);

pub(super) const HIGHEST_NUMBER: u64 = 1 << 53;
const LONGEST_MESSAGE: usize = 200;

pub(super) fn epoch_seconds(moment: Timestamp) -> u64 {
    moment.wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
