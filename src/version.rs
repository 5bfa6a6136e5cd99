//! The version of a stored value.

use std::sync::Arc;

use ring::digest;

use crate::secret::hex;

/// Identifies the bytes that are stored under a key: a hash of them, or a name from the backend.
///
/// Equal versions of one key mean equal bytes. Only equality counts: versions have no order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(Arc<str>);

impl Version {
    /// Returns the version of `bytes` by hash, for backends without versions of their own.
    pub fn of_bytes(bytes: &[u8]) -> Version {
        Version(hex(&digest::digest(&digest::SHA256, bytes).as_ref()[..16]).into())
    }

    /// Returns a version with a name from the backend, such as an ETag or a revision number.
    pub fn new(name: impl Into<String>) -> Version {
        Version(name.into().into())
    }

    /// Returns the version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
