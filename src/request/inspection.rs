//! What a response says about the token that was sent: the verdict, and how much of the body is read for it.

use std::io::{self, Cursor, Read};

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
    /// Pass an empty `body` if it has not been read. This function only decides; call
    /// [`reject`](TokenManager::reject) to take a rejected token out of use.
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
        let code = if verdict == Verdict::Accepted { None } else { vendor_code(&seen) };
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
/// Returns the body, which can still be read from its start, and its bytes. The bytes are empty when the body was not
/// read to its end.
fn read_ahead(head: &response::Parts, body: Body) -> io::Result<(Body, Vec<u8>)> {
    let length = body.content_length();
    if !may_hold_a_code(&head.headers) || length.is_some_and(|length| length > MAX_READ_AHEAD as u64) {
        return Ok((body, Vec::new()));
    }
    let again = builder_like(&body);
    let mut reader = body.into_reader();
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = match reader.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        seen.extend_from_slice(&piece[..read]);
        if read == 0 {
            return Ok((again.data(seen.clone()), seen));
        }
        // A body of unknown length may be an endless stream, whose reader waits for the part that has already arrived.
        let stream = length.is_none() && head.status.is_success() && !starts_an_object(&seen);
        if stream || seen.len() > MAX_READ_AHEAD {
            return Ok((again.reader(Cursor::new(seen).chain(reader)), Vec::new()));
        }
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

/// Returns true if `bytes` may be the start of a JSON object.
fn starts_an_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first().is_none_or(|first| *first == b'{')
}

/// Returns the vendor's code from the fields in which vendors put it.
fn vendor_code(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let flat = ["errcode", "code", "error"].into_iter().find_map(|name| code(json.get(name)?));
    flat.or_else(|| code(json.get("error")?.get("code")?)).filter(|code| code != "0")
}

/// The longest body that is searched for a vendor's code.
const MAX_READ_AHEAD: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use ureq::http::HeaderValue;

    use super::*;

    #[test]
    fn a_vendors_code_is_found_in_the_fields_of_vendors() {
        for (body, found) in [
            (r#"{"errcode":40014,"errmsg":"invalid"}"#, Some("40014")),
            (r#"{"code":"99991663"}"#, Some("99991663")),
            (r#"{"error":"invalid_token"}"#, Some("invalid_token")),
            (r#"{"error":{"code":"InvalidAuthenticationToken"}}"#, Some("InvalidAuthenticationToken")),
            (r#"{"errcode":0}"#, None),
            ("[40014]", None),
            ("", None),
        ] {
            assert_eq!(vendor_code(body.as_bytes()).as_deref(), found, "{body}");
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

    #[test]
    fn text_is_not_decoded_twice() {
        let charset = |mime: &str| {
            let body = Body::builder().mime_type(mime).charset("gbk").data("");
            builder_like(&body).data("").charset().map(str::to_owned)
        };
        assert_eq!((charset("text/plain"), charset("application/json")), (None, Some("gbk".to_owned())));
    }
}
