//! A token with what decides about its use.

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::policy::Lifetime;
use crate::secret::Secret;

/// Counts grants. Of two tokens the one with the higher number was requested later.
pub(crate) type Sequence = u64;

/// Names a token without telling it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fingerprint(pub(crate) u128);

impl Fingerprint {
    /// Reads the hexadecimal form, as [`Secret::fingerprint`] writes it.
    pub(crate) fn parse(text: &str) -> Option<Fingerprint> {
        u128::from_str_radix(text, 16).ok().map(Fingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A token with what decides about its use.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct AccessToken {
    pub(crate) secret: Secret,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) sequence: Sequence,
    pub(crate) lifetime: Lifetime,
    pub(crate) end: Timestamp,
    /// The provider named no lifetime, so the end is a guess and proves nothing.
    pub(crate) end_is_guessed: bool,
}

impl AccessToken {
    /// True when both are one grant. A reinstated token is another grant with the same text.
    pub(crate) fn is_same_grant(&self, other: &AccessToken) -> bool {
        self.sequence == other.sequence && self.fingerprint == other.fingerprint
    }

    /// How long ago the token was granted.
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        self.lifetime.total.saturating_sub(now.until(self.end))
    }
}
