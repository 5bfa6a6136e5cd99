//! What a response says about the token that was sent: the verdict, and how much of the body is read for it.

use std::io::{self, Cursor, Read};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use ureq::http::{Response, header, response};
use ureq::{Body, ResponseExt};

use crate::error::catch_panic;
use crate::http::{HeaderMap, code};
use crate::manager::TokenManager;
use crate::provider::{ServiceResponse, Verdict};
use crate::token::Token;

impl TokenManager {
    /// Decides what a response of the service says about the token that was sent with the request.
    ///
    /// The provider knows how its vendor reports a rejected token: by the status, or by a code in the body of HTTP 200.
    /// `headers` are those of the crate `http`, re-exported as [`ureq::http::HeaderMap`](crate::ureq::http::HeaderMap). Pass an
    /// empty `body` if it has not been read. This function only decides; call
    /// [`reject`](TokenManager::reject) to take a rejected token out of use. One provider remembers something: the next
    /// fetch of [`Entra`](crate::Entra) sends the claims that the response demands.
    ///
    /// Pass only responses of the host that the token was sent to. A client that follows a redirect to another host
    /// leaves the token behind, so a 401 of that host says nothing about the token.
    pub fn verdict(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Verdict {
        let response = ServiceResponse::new(status, headers, body);
        let verdict = catch_panic(|| Ok(self.keeper().provider.verdict(&response)));
        // A provider whose `verdict` panics is the user's code. HTTP's own rules decide then.
        verdict.unwrap_or_else(|_| response.http_verdict())
    }

    /// Rejects a token without failing when the store cannot be written.
    pub(super) fn reject_here(&self, refused: &Token) {
        // The token is out of use in this process. Other processes meet the rejection by themselves.
        drop(self.reject(refused));
    }

    /// Decides what a response says about the token that was sent. The body can still be read from its start.
    pub(super) fn inspect(&self, response: Response<Body>) -> io::Result<Inspected> {
        if response.get_redirect_history().is_some_and(|way| way.len() > 1) {
            // The host at the end of a redirect has not seen the token.
            return Ok(Inspected { response, verdict: Verdict::Accepted, code: None });
        }
        let (head, body) = response.into_parts();
        let (body, seen) = read_ahead(&head, body)?;
        let verdict = self.verdict(head.status.as_u16(), &head.headers, &seen);
        let refused = || ServiceResponse::new(head.status.as_u16(), &head.headers, &seen).json();
        let code = if verdict == Verdict::Accepted { None } else { refused().and_then(|json| vendor_code(&json)) };
        Ok(Inspected { response: Response::from_parts(head, body), verdict, code })
    }
}

/// A response, and what it says about the token.
pub(super) struct Inspected {
    pub(super) response: Response<Body>,
    pub(super) verdict: Verdict,
    /// The vendor's code for the refusal.
    pub(super) code: Option<String>,
}

/// Reads a body that may contain a vendor's code.
///
/// Returns the body, which can still be read from its start, and the bytes that may contain the code. There are no such
/// bytes when the body is too long, or is a stream of something else than JSON objects.
///
/// A successful response of unknown length may be a stream that goes on for hours, so at most its first JSON object is
/// read. Any other response is read to its end.
fn read_ahead(head: &response::Parts, body: Body) -> io::Result<(Body, Vec<u8>)> {
    let length = body.content_length();
    if !may_hold_a_code(&head.headers) || length.is_some_and(|length| length > MAX_READ_AHEAD as u64) {
        return Ok((body, Vec::new()));
    }
    let again = builder_like(&body);
    let mut ahead = AheadReader { reader: body.into_reader(), seen: Vec::new(), parsed: 0, has_ended: false };
    if length.is_none() && head.status.is_success() {
        let object = ahead.read_object()?.then(|| ahead.seen[..ahead.parsed].to_vec());
        return Ok((again.reader(Cursor::new(ahead.seen).chain(ahead.reader)), object.unwrap_or_default()));
    }
    while ahead.read_more()? {}
    if ahead.has_ended {
        return Ok((again.data(ahead.seen.clone()), ahead.seen));
    }
    Ok((again.reader(Cursor::new(ahead.seen).chain(ahead.reader)), Vec::new()))
}

/// Reads the start of a body and keeps all that was read. As a [`Read`], hands out the kept bytes and reads more only
/// when there are none left, so a parser never waits for bytes that it does not need.
struct AheadReader<R> {
    reader: R,
    seen: Vec<u8>,
    /// How many of the bytes in `seen` the parser took.
    parsed: usize,
    has_ended: bool,
}

impl<R: Read> AheadReader<R> {
    /// Reads up to the end of a JSON object. Returns false when the body does not begin with a whole object.
    fn read_object(&mut self) -> io::Result<bool> {
        while self.seen.trim_ascii_start().is_empty() && self.read_more()? {}
        if !self.seen.trim_ascii_start().starts_with(b"{") {
            return Ok(false);
        }
        match IgnoredAny::deserialize(&mut serde_json::Deserializer::from_reader(&mut *self)) {
            Ok(_) => Ok(true),
            Err(error) if error.is_io() => Err(error.into()),
            Err(_) => Ok(false),
        }
    }

    /// Reads one more piece. Returns false when the body has ended or is longer than [`MAX_READ_AHEAD`].
    fn read_more(&mut self) -> io::Result<bool> {
        if self.has_ended || self.seen.len() > MAX_READ_AHEAD {
            return Ok(false);
        }
        let mut piece = [0; 4096];
        let read = loop {
            match self.reader.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.seen.extend_from_slice(&piece[..read]);
        self.has_ended = read == 0;
        Ok(read > 0)
    }
}

impl<R: Read> Read for AheadReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.parsed == self.seen.len() && !self.read_more()? {
            return Ok(0);
        }
        let rest = &self.seen[self.parsed..];
        let length = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            // Messages of some vendors contain control characters, which JSON does not allow.
            *to = if from.is_ascii_control() { b' ' } else { *from };
        }
        self.parsed += length;
        Ok(length)
    }
}

/// Returns a builder for a body with the content type of `body`, to be filled with the bytes that were read from
/// `body`.
fn builder_like(body: &Body) -> ureq::BodyBuilder {
    let mut builder = Body::builder();
    let Some(mime) = body.mime_type() else { return builder };
    builder = builder.mime_type(mime);
    // If `ureq` is built to decode text, these bytes are UTF-8 already and must not be decoded a second time.
    match body.charset().filter(|_| !mime.starts_with("text/")) {
        Some(charset) => builder.charset(charset),
        None => builder,
    }
}

/// Returns true when a body of this content type may contain a vendor's code.
fn may_hold_a_code(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // The next event of an event stream may come much later, so reading ahead would block.
    kind == "application/json" || kind.ends_with("+json") || (kind.starts_with("text/") && kind != "text/event-stream")
}

/// Returns the vendor's code from the fields in which vendors put it.
fn vendor_code(json: &serde_json::Map<String, Value>) -> Option<String> {
    let flat = ["errcode", "code", "error"].into_iter().find_map(|name| code(json.get(name)?));
    flat.or_else(|| code(json.get("error")?.get("code")?)).filter(|code| code != "0")
}

/// The longest body that is searched for a vendor's code.
const MAX_READ_AHEAD: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ureq::http::HeaderValue;

    use super::*;

    #[test]
    fn a_vendors_code_is_found_in_the_fields_of_vendors() {
        let headers = HeaderMap::new();
        for (body, found) in [
            (r#"{"errcode":40014,"errmsg":"invalid"}"#, Some("40014")),
            (r#"{"code":"99991663"}"#, Some("99991663")),
            (r#"{"error":"invalid_token"}"#, Some("invalid_token")),
            (r#"{"error":{"code":"InvalidAuthenticationToken"}}"#, Some("InvalidAuthenticationToken")),
            (r#"{"errcode":0}"#, None),
            (r#"{"errcode":{"a":1},"code":true,"error":null}"#, None),
            (r#"{"errcode":[40014],"code":"40014","more":{}}"#, Some("40014")),
            ("{\"errcode\":40014,\"errmsg\":\"a\u{1}b\"}", Some("40014")),
            ("[40014]", None),
            ("", None),
        ] {
            let response = ServiceResponse::new(200, &headers, body.as_bytes());
            let code = response.json().and_then(|json| vendor_code(&json));
            assert_eq!(code.as_deref(), found, "{body}");
        }
    }

    #[test]
    fn json_and_text_may_hold_a_code_and_event_streams_may_not() {
        let may = |kind: &'static str| {
            may_hold_a_code(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        for kind in ["application/json", "Application/JSON; charset=UTF-8", "application/problem+json", "text/plain"] {
            assert!(may(kind), "{kind}");
        }
        for kind in ["text/event-stream", "image/png", "application/x-ndjson", "application/octet-stream"] {
            assert!(!may(kind), "{kind}");
        }
        assert!(may_hold_a_code(&HeaderMap::new()));
    }

    /// A body that arrives in these pieces, and fails the test when more is read.
    struct Pieces(Vec<&'static str>);

    impl Read for Pieces {
        fn read(&mut self, mut buffer: &mut [u8]) -> io::Result<usize> {
            assert!(!self.0.is_empty(), "more was read than is needed");
            buffer.write(self.0.remove(0).as_bytes())
        }
    }

    #[test]
    fn the_first_object_is_found_without_reading_more() {
        for (pieces, object) in [
            (vec!["{\"a\":", "1}"], Some("{\"a\":1}")),
            (vec![" \n", "{\"a\":\"}\\\"{\",", "\"b\":[{}]}\n{\"c\""], Some(" \n{\"a\":\"}\\\"{\",\"b\":[{}]}")),
            (vec!["{\"a\":\"\u{1}\n\"}"], Some("{\"a\":\"\u{1}\n\"}")),
            (vec!["{}{}"], Some("{}")),
            (vec!["[{}]"], None),
            (vec!["data: {}"], None),
            (vec!["{a"], None),
            (vec!["{\"a\"", ""], None),
            (vec![""], None),
        ] {
            let shown = format!("{pieces:?}");
            let mut ahead = AheadReader { reader: Pieces(pieces), seen: Vec::new(), parsed: 0, has_ended: false };
            let found = ahead.read_object().expect("the pieces can be read");
            assert_eq!(found.then(|| &ahead.seen[..ahead.parsed]), object.map(str::as_bytes), "{shown}");
            assert_eq!(ahead.reader.0.len(), 0, "{shown}");
        }
    }

    #[test]
    fn text_is_not_decoded_twice() {
        let charset = |mime: &str| {
            let body = Body::builder().mime_type(mime).charset("gbk").data("");
            builder_like(&body).data("").charset().map(str::to_owned)
        };
        assert_eq!((charset("text/plain"), charset("application/json")), (None, Some("gbk".to_owned())));
    }
}
