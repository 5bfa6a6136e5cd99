//! The base URL at which a provider is reached.

use std::fmt;

use crate::error::Error;
use crate::http::check_url;
use crate::secret::plain_url;

/// Where a vendor is reached: scheme, host, and perhaps the start of a path.
#[derive(Clone)]
pub(super) struct BaseUrl(String);

impl BaseUrl {
    pub(super) fn new(url: impl Into<String>) -> BaseUrl {
        let url: String = url.into();
        BaseUrl(url.trim_end_matches('/').to_owned())
    }

    /// The address of `path`, which begins with a slash.
    pub(super) fn join(&self, path: &str) -> String {
        [&self.0, path].concat()
    }

    /// What goes into an identity.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

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
