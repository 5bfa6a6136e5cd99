//! The token that callers get, and the source that grants such tokens to derived providers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::{Time, Timestamp};
use crate::error::Error;
use crate::key::Identity;
use crate::secret::Secret;

/// An access token that was valid when the caller got it.
///
/// Ask the manager each time a token is needed and do not keep it: a call costs nanoseconds, and a kept token expires.
/// `Debug` shows a fingerprint in place of the text; there is neither `Display` nor `Serialize`. The memory is wiped
/// when the last clone is dropped.
#[derive(Clone)]
pub struct Token(Arc<Handle>);

/// Counts the clones of a token that come from one shard of the token cache.
///
/// Every shard has a handle of its own. With a single counter, its cache line would move from core to core at every
/// call, which costs more than the rest of `token()`.
struct Handle {
    shared: Arc<Shared>,
    // Keeps the counters of two handles in different pairs of cache lines, wherever the allocator places them.
    _padding: [u64; 13],
}

struct Shared {
    secret: Secret,
    fingerprint: String,
    ends_at: Timestamp,
    time: Time,
}

impl Token {
    /// Creates a token that expires at `ends_at`. The caller has checked the text with [`check_text`].
    pub(crate) fn new(secret: Secret, ends_at: Timestamp, time: Time) -> Token {
        let fingerprint = secret.fingerprint();
        Token::from_shared(Arc::new(Shared { secret, fingerprint, ends_at, time }))
    }

    fn from_shared(shared: Arc<Shared>) -> Token {
        Token(Arc::new(Handle { shared, _padding: [0; 13] }))
    }

    /// Returns the same token with a counter of its own.
    pub(crate) fn new_handle(&self) -> Token {
        Token::from_shared(self.0.shared.clone())
    }

    /// Returns the text of the token, for the request to the service.
    ///
    /// Do not log or store this text.
    pub fn expose(&self) -> &str {
        self.0.shared.secret.expose()
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.0.shared.secret
    }

    /// Returns `Bearer` and the text of the token: the value of an `Authorization` header (RFC 6750).
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.expose())
    }

    /// Returns how long the token is still valid. Zero when it has expired.
    ///
    /// Measured on the monotonic and on the wall clock; the shorter time counts.
    pub fn remaining(&self) -> Duration {
        self.0.shared.time.now().until(self.0.shared.ends_at)
    }

    /// Returns the time at which the token expires, on the wall clock of this machine.
    pub fn expires_at(&self) -> SystemTime {
        self.0.shared.ends_at.wall()
    }

    /// Returns a name for the token that is safe to log: the first half of its SHA-256, in hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.0.shared.fingerprint
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(fingerprint={}, remaining={:?})", self.fingerprint(), self.remaining())
    }
}

/// A source of tokens: a [`TokenManager`](crate::TokenManager), or a type of your own in its place.
///
/// Some providers get their token in exchange for another one, for example a JavaScript ticket for an access token.
/// These providers are built on the source of the other token. Pass a clone of the manager: clones share the token.
pub trait TokenSource: Send + Sync + 'static {
    /// Returns the identity of the credential whose tokens these are.
    ///
    /// The identity becomes part of the derived provider's own, so that the tokens of two credentials are never mixed.
    fn identity(&self) -> Identity;

    /// Returns a token that is valid now. Blocks for `wait` at most.
    ///
    /// # Errors
    ///
    /// As [`TokenManager::token_within`](crate::TokenManager::token_within).
    fn token_within(&self, wait: Duration) -> Result<Token, Error>;

    /// Takes `token` out of use, because a service refused it.
    ///
    /// # Errors
    ///
    /// As [`TokenManager::reject`](crate::TokenManager::reject).
    fn reject(&self, token: &Token) -> Result<(), Error>;
}

impl<S: TokenSource + ?Sized> TokenSource for Arc<S> {
    fn identity(&self) -> Identity {
        (**self).identity()
    }

    fn token_within(&self, wait: Duration) -> Result<Token, Error> {
        (**self).token_within(wait)
    }

    fn reject(&self, token: &Token) -> Result<(), Error> {
        (**self).reject(token)
    }
}

/// Checks that `secret` can be sent as a token in a header or a query. The error says what is wrong.
pub(crate) fn check_text(secret: &Secret) -> Result<(), &'static str> {
    let text = secret.expose();
    if secret.is_blank() {
        Err("the provider returned an empty token; check the address")
    } else if text.len() > MAX_TOKEN_LENGTH {
        Err("the provider returned a token of more than 64 KiB")
    } else if !text.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        // A line break in the token would start another header of the request.
        Err("the provider returned a token that contains a blank or a character that is not printable ASCII")
    } else {
        Ok(())
    }
}

/// The longest accepted token. Providers document tokens of up to 4 KB, and tokens with many groups or claims of up to
/// 75 KB were seen. A service that does not take a header of this length says so itself.
const MAX_TOKEN_LENGTH: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_printable_ascii() {
        for good in ["t", "eyJhbGciOi.J9~+/=_-", &"x".repeat(MAX_TOKEN_LENGTH)] {
            assert_eq!(check_text(&Secret::from(good)), Ok(()));
        }
        for bad in ["", "  ", "a b", "a\r\nX-Evil: 1", "a\0", "t\u{e9}", "a\u{7f}", &"x".repeat(MAX_TOKEN_LENGTH + 1)] {
            assert!(check_text(&Secret::from(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_handle_fills_two_cache_lines() {
        // An `Arc` puts its two counters before the value.
        assert!(size_of::<Handle>() + 2 * size_of::<usize>() >= 128);
    }
}
