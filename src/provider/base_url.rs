//! The base URL of a vendor, as a setting of its providers.

use std::fmt;

use crate::error::Error;
use crate::http::check_url;
use crate::secret::plain_url;

/// The scheme and host of a vendor, and perhaps the start of the path. A slash at the end is dropped.
///
/// `Debug` shows no user name, password or query.
#[derive(Clone)]
pub(super) struct BaseUrl(String);

impl BaseUrl {
    pub(super) fn new(url: impl Into<String>) -> BaseUrl {
        let url: String = url.into();
        BaseUrl(url.trim_end_matches('/').to_owned())
    }

    /// Returns the URL of `path`, which begins with a slash.
    pub(super) fn join(&self, path: &str) -> String {
        [&self.0, path].concat()
    }

    /// The base URL, for an identity.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks that a credential may be sent to this URL.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.0.contains('?') {
            return Err(Error::config("the base URL must not have a query"));
        }
        check_url(&self.0).map_err(Error::config)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        plain_url(&self.0).fmt(f)
    }
}
