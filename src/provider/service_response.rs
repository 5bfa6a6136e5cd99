//! The response of a service to a request with a token, and what the response says about the token.

use std::time::Duration;

use crate::http::{HeaderMap, parse_object};

/// The response of a service to a request that carried a token.
/// [`Provider::verdict`](crate::provider::Provider::verdict) reads it.
#[derive(Clone, Copy)]
pub struct ServiceResponse<'a> {
    status: u16,
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl<'a> ServiceResponse<'a> {
    /// Makes a response from its parts. `body` may be empty or cut off: a caller need not read all of a long body.
    pub fn new(status: u16, headers: &'a HeaderMap, body: &'a [u8]) -> ServiceResponse<'a> {
        ServiceResponse { status, headers, body }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The value of the first header with this name, if its value is text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The headers.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// The body, as far as the caller read it.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The body as a JSON object, or `None` if it is none.
    ///
    /// Control characters that JSON does not allow are replaced by blanks, because vendors put them into their
    /// messages.
    pub fn json(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        parse_object(self.body)
    }

    /// How long the service asks the caller to wait (`Retry-After`, in seconds or as a date).
    pub fn retry_after(&self) -> Option<Duration> {
        crate::http::retry_after(self.headers)
    }

    /// Judges the response by HTTP alone (RFC 6750, RFC 6585).
    ///
    /// | Response | Verdict |
    /// |---|---|
    /// | 401 | [`Rejected`](Verdict::Rejected) |
    /// | 401 with `insufficient_scope` or `insufficient_claims` in `WWW-Authenticate` | [`Accepted`](Verdict::Accepted) |
    /// | 400 or 403 with `invalid_token` in `WWW-Authenticate` | [`Rejected`](Verdict::Rejected) |
    /// | 429 | [`Throttled`](Verdict::Throttled) |
    /// | anything else | [`Accepted`](Verdict::Accepted) |
    ///
    /// The providers of [`microsoft`](crate::provider::microsoft) reject the token of a 401 with `insufficient_claims`.
    pub fn http_verdict(&self) -> Verdict {
        match self.status {
            // The token lacks rights or claims. Another token of the same kind would be refused as well.
            401 if self.challenges_with("insufficient_") => Verdict::Accepted,
            401 => Verdict::Rejected,
            400 | 403 if self.challenges_with("invalid_token") => Verdict::Rejected,
            429 => Verdict::Throttled { retry_after: self.retry_after() },
            _ => Verdict::Accepted,
        }
    }

    /// Returns true when `word` is in `WWW-Authenticate`. A server sends one challenge for each authentication scheme
    /// that it supports.
    pub(crate) fn challenges_with(&self, word: &str) -> bool {
        let mut challenges = self.headers.get_all("www-authenticate").iter().filter_map(|value| value.to_str().ok());
        challenges.any(|challenge| challenge.contains(word))
    }
}

/// What a response of a service says about the token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The service accepted the token. The request itself may have failed for another reason.
    Accepted,
    /// The service refused the token: reject the token and fetch another one.
    Rejected,
    /// The service accepted the token and refused the request, because there were too many calls.
    Throttled {
        /// How long to wait, if the service named a time.
        retry_after: Option<Duration>,
    },
}
