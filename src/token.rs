//! What a caller holds.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::{Time, Timestamp};
use crate::error::Error;
use crate::key::Identity;
use crate::secret::Secret;

/// An access token that was valid when it was handed out.
///
/// Ask the manager for it each time it is needed and do not keep it: asking costs nanoseconds, and a token that is
/// kept grows old. It hides itself in `Debug`, has neither `Display` nor `Serialize`, and wipes its memory when the
/// last clone goes.
#[derive(Clone)]
pub struct Token(Arc<Handle>);

/// A clone counts on its handle, and every shard of the token cache has a handle of its own, so that threads do not pass
/// one counter from core to core: that costs more than all the rest of `token()`.
struct Handle {
    shared: Arc<Shared>,
    // Keeps the counters of two handles in two pairs of cache lines, wherever the allocator puts them.
    _padding: [u64; 13],
}

struct Shared {
    secret: Secret,
    fingerprint: String,
    ends_at: Timestamp,
    time: Time,
}

impl Token {
    /// Checks that `secret` can travel in a header or a query and gives it an end.
    pub(crate) fn new(secret: Secret, ends_at: Timestamp, time: Time) -> Token {
        let fingerprint = secret.fingerprint();
        Token::from_shared(Arc::new(Shared { secret, fingerprint, ends_at, time }))
    }

    fn from_shared(shared: Arc<Shared>) -> Token {
        Token(Arc::new(Handle { shared, _padding: [0; 13] }))
    }

    /// The same token, counted apart.
    pub(crate) fn new_handle(&self) -> Token {
        Token::from_shared(self.0.shared.clone())
    }

    /// The token's text, for the place where the service wants it.
    pub fn expose(&self) -> &str {
        self.0.shared.secret.expose()
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.0.shared.secret
    }

    /// `Bearer` and the token: the value of an `Authorization` header.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.expose())
    }

    /// How long the provider will still take it, by the clock that leaves less. Zero when it is over.
    pub fn remaining(&self) -> Duration {
        self.0.shared.time.now().until(self.0.shared.ends_at)
    }

    /// When it ends, by this machine's wall clock.
    pub fn expires_at(&self) -> SystemTime {
        self.0.shared.ends_at.wall()
    }

    /// Names the token without telling it: the first half of its SHA-256, in hexadecimal. Fit for logs.
    pub fn fingerprint(&self) -> &str {
        &self.0.shared.fingerprint
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(fingerprint={}, remaining={:?})", self.fingerprint(), self.remaining())
    }
}

/// Gives tokens: a [`TokenManager`](crate::TokenManager), or what stands for one.
///
/// Providers whose tokens are granted for another token are built on one. Handing in a clone of the manager is enough:
/// a manager is a handle.
pub trait TokenSource: Send + Sync + 'static {
    /// Whose tokens these are. What is derived from them is somebody else's when this differs.
    fn identity(&self) -> Identity;

    /// A token that is valid now. Blocks up to `wait`.
    ///
    /// # Errors
    ///
    /// As [`TokenManager::token_within`](crate::TokenManager::token_within).
    fn token_within(&self, wait: Duration) -> Result<Token, Error>;

    /// Takes `token` out of use, because it was refused.
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

/// Says what is wrong with a text that is meant to be a token.
pub(crate) fn check_text(secret: &Secret) -> Result<(), &'static str> {
    let text = secret.expose();
    if secret.is_blank() {
        Err("the provider granted an empty token")
    } else if text.len() > MAX_TOKEN_LENGTH {
        Err("the provider granted a token of more than 8 KiB")
    } else if !text.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        // A line break in here would be a header of its own at the service.
        Err("the provider granted a token with blanks or characters that are not printable ASCII")
    } else {
        Ok(())
    }
}

/// Tokens of 4 KB are announced by providers; nobody grants larger ones than this.
const MAX_TOKEN_LENGTH: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_printable_ascii_is_a_token() {
        for good in ["t", "eyJhbGciOi.J9~+/=_-", &"x".repeat(MAX_TOKEN_LENGTH)] {
            assert_eq!(check_text(&Secret::from(good)), Ok(()));
        }
        for bad in ["", "  ", "a b", "a\r\nX-Evil: 1", "a\0", "t\u{e9}", "a\u{7f}", &"x".repeat(MAX_TOKEN_LENGTH + 1)] {
            assert!(check_text(&Secret::from(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn handles_of_a_token_lie_in_cache_lines_of_their_own() {
        // The two counters of an `Arc` come before it.
        assert!(size_of::<Handle>() + 2 * size_of::<usize>() >= 128);
    }
}
