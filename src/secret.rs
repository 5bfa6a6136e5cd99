//! The only type that holds a credential, and the functions that show bytes and URLs without one.

use std::fmt;
use std::sync::Arc;

use ring::digest;
use zeroize::Zeroizing;

/// A credential: an app secret, a client secret, a refresh token, the text of a token.
///
/// `Debug` shows `Secret(***)`; there is neither `Display` nor `Serialize`. Clones share one copy, whose memory is
/// wiped when the last clone is dropped. Buffers of HTTP, TLS and JSON through which the text passed are not wiped.
///
/// ```
/// use evertoken::Secret;
///
/// let secret = Secret::from("s3cr3t");
/// assert_eq!(format!("{secret:?}"), "Secret(***)");
/// assert_eq!(secret.expose(), "s3cr3t");
/// ```
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Creates a secret from `text`.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(Arc::new(Zeroizing::new(text.into())))
    }

    /// Returns the text of the credential. No other function does, so a review can search for `expose`.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns true when the text is empty or only white space.
    pub fn is_blank(&self) -> bool {
        self.0.trim().is_empty()
    }

    /// Returns a name that is safe to log: the first half of the SHA-256 of the text, in hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        hex(&digest::digest(&digest::SHA256, self.expose().as_bytes()).as_ref()[..16])
    }
}

/// For the model of `core`, which compares whole states. No program may put a secret into a hash table.
#[cfg(test)]
impl std::hash::Hash for Secret {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret::new(text)
    }
}

impl From<&Secret> for Secret {
    fn from(secret: &Secret) -> Secret {
        secret.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Returns `url` without user, password, query and fragment, for logs and errors.
///
/// The URL may be malformed, because this function also shows settings that have not been checked. Where its parts
/// cannot be told apart for certain, the result is `***`.
pub(crate) fn plain_url(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (address, rest) = url.split_at(end);
    // A `?` in a password looks like the start of a query.
    if rest.contains('@') {
        return "***".to_owned();
    }
    let (scheme, place) = address.find("://").map_or(("", address), |at| address.split_at(at + 3));
    // The last `@`, because a password may contain an `@` or a `/` that should have been encoded.
    let place = place.rsplit('@').next().unwrap_or(place);
    format!("{scheme}{place}")
}

/// Returns `bytes` in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_password_query_and_fragment() {
        for (url, shown) in [
            ("https://host:8443/a/b", "https://host:8443/a/b"),
            ("https://user:hunter2@host/t", "https://host/t"),
            ("https://user:hun/ter2@host/t", "https://host/t"),
            ("https://user:hunter2@x@host", "https://host"),
            ("https://user:hun?ter2@host/t", "***"),
            ("https://host/t?mail=a@b&key=hunter2", "***"),
            ("https://host/t?key=hunter2", "https://host/t"),
            ("https://host#hunter2", "https://host"),
            ("user:hunter2@host/t", "host/t"),
            ("", ""),
        ] {
            assert_eq!(plain_url(url), shown, "{url}");
        }
    }
}
