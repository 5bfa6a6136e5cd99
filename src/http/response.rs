//! What a provider answered, read to its end.

use std::fmt;
use std::io::Read;
use std::time::Duration;

use ureq::Body;
use ureq::http::{HeaderMap, Response};
use zeroize::Zeroizing;

use super::errors::error_of;
use super::json::Json;
use crate::clock::Time;
use crate::error::{Error, ErrorKind};

/// A provider's reply, read to its end.
pub struct TokenResponse {
    status: u16,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
}

impl TokenResponse {
    pub(super) fn read(response: Response<Body>) -> Result<TokenResponse, Error> {
        let (head, mut body) = response.into_parts();
        let status = head.status.as_u16();
        if head.status.is_redirection() {
            // Followed, it would carry the credential to wherever it points.
            return Err(Error::invalid_response("the provider answered with a redirect").with_status(status));
        }
        // All of it at once: a buffer that grows leaves copies of a token behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST_REPLY + 1));
        let read = body.as_reader().take(LONGEST_REPLY as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|cause| error_of(&ureq::Error::from(cause)).with_status(status))?;
        if bytes.len() > LONGEST_REPLY {
            return Err(Error::invalid_response("the provider's reply is larger than 64 KiB").with_status(status));
        }
        Ok(TokenResponse { status, headers: head.headers, body: bytes })
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// True for a status from 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A header's value, when it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// How long the provider asks to wait (`Retry-After`, in seconds or as a date).
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers)
    }

    /// What the HTTP status alone says: the kind of trouble, the status, and how long the provider asks to wait.
    pub fn status_error(&self) -> Error {
        let (kind, text) = match self.status {
            401 => (ErrorKind::InvalidCredentials, "the credential was refused"),
            403 => (ErrorKind::Forbidden, "the credential is not allowed here"),
            429 => (ErrorKind::Throttled, "there were too many calls"),
            408 | 425 | 500..=599 => (ErrorKind::Unavailable, "the provider is busy or broken"),
            _ => (ErrorKind::InvalidResponse, "the provider's answer makes no sense"),
        };
        let error = Error::new(kind, text).with_status(self.status);
        match self.retry_after() {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }

    /// The body as a JSON object.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidResponse`] when it is anything else: another kind of JSON, a page, nothing.
    pub fn json(&self) -> Result<Json, Error> {
        let no_object =
            |_| Error::invalid_response("the provider's reply is not a JSON object").with_status(self.status);
        let json = serde_json::from_slice(&self.body).or_else(|_| {
            // Vendors let letters slip into their texts for people that JSON does not allow.
            let text = Zeroizing::new(String::from_utf8_lossy(&self.body).replace(char::is_control, " "));
            serde_json::from_str(&text)
        });
        json.map(Json).map_err(no_object)
    }
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse").field("status", &self.status).field("length", &self.body.len()).finish()
    }
}

/// How long an answer asks to wait. At most a day; a date that has passed is zero.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text("retry-after").and_then(|value| seconds(value).or_else(|| until(value)));
    asked.or_else(|| text("x-ogw-ratelimit-reset").and_then(seconds)).map(|wait| wait.min(LONGEST_RETRY))
}

fn seconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}

fn until(date: &str) -> Option<Duration> {
    let date = httpdate::parse_http_date(date).ok()?;
    Some(date.duration_since(Time::System.now().wall()).unwrap_or(Duration::ZERO))
}

/// Counted after decoding. Replies to token requests have a few KiB.
const LONGEST_REPLY: usize = 64 * 1024;

/// No answer can ask for a longer pause.
const LONGEST_RETRY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use ureq::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("a plain value");
        list.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    fn asked(list: &[(&'static str, &str)]) -> Option<u64> {
        retry_after(&headers(list)).map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_capped_at_a_day() {
        assert_eq!(asked(&[("retry-after", "7")]), Some(7));
        assert_eq!(asked(&[("retry-after", " 7 ")]), Some(7));
        assert_eq!(asked(&[("retry-after", "0")]), Some(0));
        assert_eq!(asked(&[("retry-after", "99999999999999999999999")]), Some(86_400));
    }

    #[test]
    fn retry_after_is_read_as_a_date_and_a_past_one_is_zero() {
        let date = |ahead: u64| httpdate::fmt_http_date(Time::System.now().wall() + Duration::from_secs(ahead));
        let wait = asked(&[("retry-after", &date(100))]).expect("a date");
        assert!((95..=100).contains(&wait), "{wait}");
        assert_eq!(asked(&[("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")]), Some(0));
        assert_eq!(asked(&[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")]), Some(86_400));
    }

    #[test]
    fn a_retry_after_that_makes_no_sense_is_ignored() {
        for garbage in ["", "soon", "-1", "1.5", "1e3", "Thu, 99 Foo 2020"] {
            assert_eq!(asked(&[("retry-after", garbage)]), None, "{garbage:?}");
            assert_eq!(asked(&[("retry-after", garbage), ("x-ogw-ratelimit-reset", "9")]), Some(9));
        }
        assert_eq!(asked(&[]), None);
    }
}
