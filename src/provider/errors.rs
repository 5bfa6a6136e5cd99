//! Error codes of vendors: tables that map a code to an error kind and an advice, and the functions that read them.
//!
//! Each vendor reports errors in its own field with its own codes, often with HTTP 200. An [`ErrorTable`] names the
//! field and lists the codes. Two kinds of responses are read with it:
//!
//! - A reply of the token endpoint ([`ErrorTable::accept`]) is an error when the field holds a code other than `0`, or
//!   when the HTTP status is not 2xx. In this order the error is decided by: the rules of the endpoint
//!   ([`ErrorTable::accept_with_rules`]), the rules of the vendor, the throttle codes, HTTP 429, and for any other code
//!   [`UNKNOWN_CODE`], which is retried with a growing cooldown. Without a code the HTTP status decides.
//! - A response of a service ([`ErrorTable::verdict`]) rejects the token when the field holds one of the codes that the
//!   provider lists, and throttles when the code is a throttle code. Without a code HTTP decides.
//!
//! An error text is the advice of a rule, never the message of the vendor: a message may quote what was sent. The
//! vendor's code and request id are added when they contain no secret that was sent, in any encoding ([`with_vendor_details`]).

use std::net::IpAddr;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::http::{Json, TokenResponse, code, is_quotable};
use crate::provider::{ServiceResponse, Verdict};
use crate::secret::Secret;

/// The error codes of one vendor, or of one of its APIs.
pub(super) struct ErrorTable {
    /// The field of the JSON object that holds the code.
    pub(super) code_field: &'static str,
    /// The meaning of each code of the token endpoint.
    pub(super) rules: &'static [ErrorRule],
    /// Codes that mean "too many calls", at the token endpoint and at the services, each with the number of seconds to
    /// wait at least. A code that ends with `*` stands for every code with this beginning.
    pub(super) throttle_codes: &'static [(&'static str, u64)],
}

/// A code, the kind of the error, and the text of the error: what happened and what to do.
pub(super) type ErrorRule = (&'static str, ErrorKind, &'static str);

impl ErrorTable {
    /// Returns the JSON object in a reply of the token endpoint, or the error that the reply reports. `secrets` were
    /// sent in the request and must not appear in the error.
    pub(super) fn accept(&self, reply: &TokenResponse, secrets: &[&Secret]) -> Result<Json, Error> {
        self.accept_json(reply.json(), reply, secrets)
    }

    /// Does the same for a body that was read before, where the body decides which table applies.
    pub(super) fn accept_json(
        &self,
        json: Result<Json, Error>,
        reply: &TokenResponse,
        secrets: &[&Secret],
    ) -> Result<Json, Error> {
        // Vendors report errors with HTTP 200. With any other status the code still says more than the status.
        let found = json.as_ref().ok().and_then(|json| Some((json, json.code(self.code_field)?)));
        if let Some((json, code)) = found.filter(|(_, code)| !is_success(code)) {
            return Err(with_vendor_details(self.error_for(&code, reply, json), Some(code), reply, json, secrets));
        }
        match json {
            Ok(json) if reply.is_success() => Ok(json),
            Ok(json) => Err(with_vendor_details(reply.status_error(), None, reply, &json, secrets)),
            Err(_) if !reply.is_success() => Err(reply.status_error()),
            Err(error) => Err(error),
        }
    }

    /// Returns the error for a code of the token endpoint.
    fn error_for(&self, code: &str, reply: &TokenResponse, json: &Json) -> Error {
        let wait = self.throttle_wait(code);
        let (kind, advice) = match self.rules.iter().find(|(known, ..)| *known == code) {
            Some((_, kind, advice)) => (*kind, *advice),
            None if wait.is_some() || reply.status() == 429 => TOO_MANY_CALLS,
            None => UNKNOWN_CODE,
        };
        let error = match address_in_message(json).filter(|_| kind == ErrorKind::Forbidden) {
            Some(address) => Error::new(kind, format!("{advice}; the vendor sees this machine as {address}")),
            None => Error::new(kind, advice),
        };
        // The wait of a throttle code is a guess that doubles while failures go on; a longer `Retry-After` is exact.
        match (wait, reply.retry_after()) {
            (Some(wait), asked) if asked.is_none_or(|asked| asked <= wait) => error.with_growing_wait(wait),
            (_, Some(asked)) => error.with_retry_after(asked),
            (_, None) => error,
        }
    }

    /// Returns true for a code in this table.
    pub(super) fn knows(&self, code: &str) -> bool {
        self.rules.iter().any(|(known, ..)| *known == code) || self.throttle_wait(code).is_some()
    }

    /// Returns the wait of a throttle code.
    pub(super) fn throttle_wait(&self, code: &str) -> Option<Duration> {
        self.throttle_codes
            .iter()
            .find(|(known, _)| matches_code(known, code))
            .map(|(_, seconds)| Duration::from_secs(*seconds))
    }

    /// Judges a response of the service. The codes in `rejections` refuse the token. A code says more than the HTTP
    /// status, so a code that is in no list accepts the token even with HTTP 401.
    pub(super) fn verdict(&self, response: &ServiceResponse<'_>, rejections: &[&str]) -> Verdict {
        let found = response.json().and_then(|json| code(json.get(self.code_field)?));
        self.verdict_for_code(found, response, rejections)
    }

    /// Judges a response in which the caller found this code.
    pub(super) fn verdict_for_code(
        &self,
        found: Option<String>,
        response: &ServiceResponse<'_>,
        rejections: &[&str],
    ) -> Verdict {
        let Some(found) = found.filter(|code| !is_success(code)) else { return response.http_verdict() };
        if rejections.contains(&found.as_str()) {
            return Verdict::Rejected;
        }
        match self.throttle_wait(&found) {
            wait @ Some(_) => Verdict::Throttled { retry_after: wait.max(response.retry_after()) },
            None if response.status() == 429 => response.http_verdict(),
            None => Verdict::Accepted,
        }
    }

    /// Does the same as [`accept`](ErrorTable::accept) at an endpoint where some codes have a meaning of their own: the
    /// rules in `here` override those of the table.
    pub(super) fn accept_with_rules(
        &self,
        here: &[ErrorRule],
        reply: &TokenResponse,
        secrets: &[&Secret],
    ) -> Result<Json, Error> {
        self.accept(reply, secrets).map_err(|error| {
            match here.iter().find(|(known, ..)| error.code() == Some(*known)) {
                Some((_, kind, advice)) => error.recast(*kind, advice),
                None => error,
            }
        })
    }
}

/// Compares a code with an entry of the throttle codes, which may end with `*`.
fn matches_code(known: &str, code: &str) -> bool {
    match known.strip_suffix('*') {
        Some(start) => code.starts_with(start),
        None => code == known,
    }
}

fn is_success(code: &str) -> bool {
    matches!(code, "0" | "")
}

/// Adds the vendor's code and request id, which the vendor's support asks for, unless they contain a secret that was
/// sent, in any encoding.
pub(super) fn with_vendor_details(
    error: Error,
    code: Option<String>,
    reply: &TokenResponse,
    json: &Json,
    secrets: &[&Secret],
) -> Error {
    let is_quotable = |text: &String| is_quotable(text, secrets.iter().map(|secret| secret.expose()));
    let error = match code.filter(is_quotable) {
        Some(code) => error.with_code(code),
        None => error,
    };
    match request_id(reply, json).filter(is_quotable) {
        Some(id) => error.with_request_id(id),
        None => error,
    }
}

/// Returns the vendor's id of the request, from a field, a header or the message.
fn request_id(reply: &TokenResponse, json: &Json) -> Option<String> {
    let field = ["request_id", "requestid", "trace_id", "log_id"].into_iter().find_map(|name| json.text(name));
    let header = || ["x-tt-logid", "x-ms-request-id"].into_iter().find_map(|name| reply.header(name));
    let text = || {
        let text = json.text("errmsg")?;
        let after = |mark| text.split_once(mark).map(|(_, after)| after);
        let id = after("rid: ").or_else(|| after("hint: ["))?;
        id.split(|letter: char| letter.is_whitespace() || matches!(letter, ']' | ',')).next()
    };
    field.or_else(header).or_else(text).map(str::to_owned)
}

/// Returns the IP address of this machine as the vendor saw it, from the message. The user needs the address to add it
/// to the vendor's list of trusted addresses.
fn address_in_message(json: &Json) -> Option<IpAddr> {
    let text = ["errmsg", "message", "msg"].into_iter().find_map(|name| json.text(name))?;
    let mut words = text.split(|letter: char| !letter.is_ascii_hexdigit() && !matches!(letter, '.' | ':'));
    words.find_map(|word| word.trim_matches(['.', ':']).parse().ok().or_else(|| word.parse().ok()))
}

/// The meaning of a code that no table has. The error may pass, so the kind is a retryable one with growing cooldown.
pub(super) const UNKNOWN_CODE: (ErrorKind, &str) = (
    ErrorKind::InvalidResponse,
    "the token endpoint refused the request; look up the code in the vendor's documentation",
);

const TOO_MANY_CALLS: (ErrorKind, &str) =
    (ErrorKind::Throttled, "there were too many requests; wait, or share the token through a store");
