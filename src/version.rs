//! The name of one state of a record.

use std::sync::Arc;

use ring::digest;

use crate::secret::hex;

/// Names one state of what is under a key: a hash of the stored bytes, unless the backend has versions of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(Arc<str>);

impl Version {
    /// The version that `bytes` have, in stores that do not count versions in a way of their own.
    pub fn of_bytes(bytes: &[u8]) -> Version {
        Version(hex(&digest::digest(&digest::SHA256, bytes).as_ref()[..16]).into())
    }

    /// A version by the name that the backend has for it.
    pub fn new(name: impl Into<String>) -> Version {
        Version(name.into().into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
