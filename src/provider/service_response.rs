//! What a service's answer says about the token.

use std::time::Duration;

use crate::http::HeaderMap;

/// A service's answer to a request that carried a token.
#[derive(Clone, Copy)]
pub struct ServiceResponse<'a> {
    status: u16,
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl<'a> ServiceResponse<'a> {
    /// An answer of which `body` may be empty when it was not read.
    pub fn new(status: u16, headers: &'a HeaderMap, body: &'a [u8]) -> ServiceResponse<'a> {
        ServiceResponse { status, headers, body }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A header's value, when it is there and is text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All headers.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// The body, as far as it was read.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The body as a JSON object, when it is one. Letters that JSON does not allow, as vendors let them slip into their
    /// texts for people, are replaced.
    pub fn json(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        serde_json::from_slice(self.body).ok().or_else(|| {
            let text = String::from_utf8_lossy(self.body).replace(char::is_control, " ");
            serde_json::from_str(&text).ok()
        })
    }

    /// How long the service asks to wait (`Retry-After`, in seconds or as a date).
    pub fn retry_after(&self) -> Option<Duration> {
        crate::http::retry_after(self.headers)
    }

    /// What HTTP itself says: 401 and `invalid_token` reject the token, 429 throttles, anything else accepts it.
    pub fn http_verdict(&self) -> Verdict {
        // There may be one for each way to sign in.
        let challenges = || self.headers.get_all("www-authenticate").iter().filter_map(|value| value.to_str().ok());
        let says = |word: &str| challenges().any(|challenge| challenge.contains(word));
        match self.status {
            // A challenge for more rights or for claims is not about this token: another one like it is refused too.
            401 if says("insufficient_") => Verdict::Accepted,
            401 => Verdict::Rejected,
            400 | 403 if says("invalid_token") => Verdict::Rejected,
            429 => Verdict::Throttled { retry_after: self.retry_after() },
            _ => Verdict::Accepted,
        }
    }
}

/// What an answer says about the token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing against the token. The request itself may still have failed.
    Accepted,
    /// The token is refused: reject it and ask for another.
    Rejected,
    /// The token is good, but there were too many calls.
    Throttled {
        /// How long to wait, when the service says so.
        retry_after: Option<Duration>,
    },
}
