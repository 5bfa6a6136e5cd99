//! The response of a token endpoint, read completely.

use std::fmt;
use std::io::Read;
use std::time::Duration;

use ureq::Body;
use ureq::http::{HeaderMap, Response};
use zeroize::Zeroizing;

use super::errors::error_of;
use super::json::{Json, parse_object};
use crate::clock::Time;
use crate::error::{Error, ErrorKind};

/// The response of a token endpoint, with its whole body.
pub struct TokenResponse {
    /// The host that answered, for error texts.
    host: String,
    status: u16,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
}

impl TokenResponse {
    pub(super) fn read(response: Response<Body>, host: String) -> Result<TokenResponse, Error> {
        let (head, mut body) = response.into_parts();
        let status = head.status.as_u16();
        if head.status.is_redirection() {
            // Following a redirect would send the credential to an address that the user did not configure.
            let text = format!("{host} answered with a redirect, which is not followed; check the address");
            return Err(Error::invalid_response(text).with_status(status));
        }
        // The buffer has its full capacity from the start, because a growing one leaves copies of a token in memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BODY + 1));
        let read = body.as_reader().take(MAX_BODY as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|cause| error_of(&ureq::Error::from(cause), &host).with_status(status))?;
        if bytes.len() > MAX_BODY {
            let text = format!("the response of {host} is larger than 128 KiB; check the address");
            return Err(Error::invalid_response(text).with_status(status));
        }
        Ok(TokenResponse { host, status, headers: head.headers, body: bytes })
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns true for a status from 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the value of a header, if it is present and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns all headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns how long the provider asks to wait: `Retry-After` in seconds or as a date (RFC 9110 10.2.3), or Feishu's
    /// `x-ogw-ratelimit-reset`. At most a day.
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers)
    }

    /// Returns the error that the HTTP status alone stands for, with the status and how long the provider asks to wait.
    ///
    /// | Status | Kind |
    /// |---|---|
    /// | 401 | [`InvalidCredentials`](ErrorKind::InvalidCredentials) |
    /// | 403 | [`Forbidden`](ErrorKind::Forbidden) |
    /// | 429 | [`Throttled`](ErrorKind::Throttled) |
    /// | 408, 425, 500 to 599 | [`Unavailable`](ErrorKind::Unavailable) |
    /// | any other | [`InvalidResponse`](ErrorKind::InvalidResponse) |
    pub fn status_error(&self) -> Error {
        let host = &self.host;
        let (kind, text) = match self.status {
            401 => (ErrorKind::InvalidCredentials, format!("{host} refused the credential; check id and secret")),
            403 => (ErrorKind::Forbidden, format!("{host} does not allow this credential here; check its rights")),
            429 => (
                ErrorKind::Throttled,
                format!("{host} received too many requests; wait, or share the token through a store"),
            ),
            408 | 425 | 500..=599 => {
                (ErrorKind::Unavailable, format!("{host} reports a server error, which mostly passes"))
            }
            status => {
                let text =
                    format!("{host} answered HTTP {status}, so this is no token endpoint; check base_url or token_url");
                (ErrorKind::InvalidResponse, text)
            }
        };
        let error = Error::new(kind, text).with_status(self.status);
        match self.retry_after() {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }

    /// Returns the body as a JSON object.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidResponse`] when the body is something else: another kind of JSON, an HTML page, nothing.
    pub fn json(&self) -> Result<Json, Error> {
        parse_object(&self.body).map(|fields| Json::new(fields, &self.host)).ok_or_else(|| {
            let what = match self.body.trim_ascii_start().first() {
                None => "an empty body",
                Some(b'<') => "an HTML page",
                Some(_) => "something else than a JSON object",
            };
            let text = format!("{} answered with {what}; check the address, or look for a proxy in between", self.host);
            Error::invalid_response(text).with_status(self.status)
        })
    }
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse").field("status", &self.status).field("length", &self.body.len()).finish()
    }
}

/// Returns how long a response asks to wait. At most a day; zero for a date that has passed.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text("retry-after").and_then(|value| seconds(value).or_else(|| until(value)));
    asked.or_else(|| text("x-ogw-ratelimit-reset").and_then(seconds)).map(|wait| wait.min(MAX_RETRY_AFTER))
}

fn seconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}

fn until(date: &str) -> Option<Duration> {
    let date = httpdate::parse_http_date(date).ok()?;
    Some(date.duration_since(Time::System.now().wall()).unwrap_or(Duration::ZERO))
}

/// Token responses have a few KiB. The longest accepted token has 64 KiB.
const MAX_BODY: usize = 128 * 1024;

/// The longest wait that a response can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);

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
    fn a_retry_after_that_is_neither_seconds_nor_a_date_is_ignored() {
        for garbage in ["", "soon", "-1", "1.5", "1e3", "Thu, 99 Foo 2020"] {
            assert_eq!(asked(&[("retry-after", garbage)]), None, "{garbage:?}");
            assert_eq!(asked(&[("retry-after", garbage), ("x-ogw-ratelimit-reset", "9")]), Some(9));
        }
        assert_eq!(asked(&[]), None);
    }
}
