//! What the codes of a vendor mean: a table for each context, and one way to read it.

use std::net::IpAddr;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::http::{Json, TokenResponse, code};
use crate::provider::{ServiceResponse, Verdict};
use crate::secret::Secret;

/// The codes of one vendor.
pub(super) struct ErrorTable {
    /// The field of a body that holds the code.
    pub(super) code_field: &'static str,
    /// What each code of the token endpoint means, and what helps.
    pub(super) rules: &'static [ErrorRule],
    /// ErrorTable that say "too many calls", anywhere, and how many seconds to wait at least. One that ends with `*` stands
    /// for all that begin like it.
    pub(super) throttle_codes: &'static [(&'static str, u64)],
}

/// A code, the kind of trouble, and what helps.
pub(super) type ErrorRule = (&'static str, ErrorKind, &'static str);

impl ErrorTable {
    /// The object in a reply of the token endpoint, unless it is a refusal. `secrets` are what was sent and must not be
    /// told.
    pub(super) fn accept(&self, reply: &TokenResponse, secrets: &[&Secret]) -> Result<Json, Error> {
        self.accept_json(reply.json(), reply, secrets)
    }

    /// The same for a body that was read already, to find out whose codes it has.
    pub(super) fn accept_json(
        &self,
        json: Result<Json, Error>,
        reply: &TokenResponse,
        secrets: &[&Secret],
    ) -> Result<Json, Error> {
        // A refusal often comes with HTTP 200; with another status the code still says more.
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

    fn error_for(&self, code: &str, reply: &TokenResponse, json: &Json) -> Error {
        let wait = self.throttle_wait(code);
        let (kind, advice) = match self.rules.iter().find(|(known, ..)| *known == code) {
            Some((_, kind, advice)) => (*kind, *advice),
            None if wait.is_some() || reply.status() == 429 => TOO_MANY_CALLS,
            None => UNKNOWN_CODE,
        };
        let error = match address_in_message(json).filter(|_| kind == ErrorKind::Forbidden) {
            Some(address) => Error::new(kind, format!("{advice}; the address is {address}")),
            None => Error::new(kind, advice),
        };
        match (wait, reply.retry_after()) {
            (Some(wait), told) if told.is_none_or(|told| told <= wait) => error.with_growing_wait(wait),
            (_, Some(told)) => error.with_retry_after(told),
            (_, None) => error,
        }
    }

    /// True for a code that the tables have.
    pub(super) fn knows(&self, code: &str) -> bool {
        self.rules.iter().any(|(known, ..)| *known == code) || self.throttle_wait(code).is_some()
    }

    /// How long to wait after a code that says "too many calls".
    pub(super) fn throttle_wait(&self, code: &str) -> Option<Duration> {
        self.throttle_codes
            .iter()
            .find(|(known, _)| matches_code(known, code))
            .map(|(_, seconds)| Duration::from_secs(*seconds))
    }

    /// What an answer of the service says about the token, where `rejections` are the codes that refuse it. A code says
    /// more than the status it comes with.
    pub(super) fn verdict(&self, response: &ServiceResponse<'_>, rejections: &[&str]) -> Verdict {
        let found = response.json().and_then(|json| code(json.get(self.code_field)?));
        self.verdict_for_code(found, response, rejections)
    }

    /// The same for an answer in which this code was found.
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

    /// As [`accept`](ErrorTable::accept), at an endpoint where some codes mean what they say `here`, whatever they mean
    /// elsewhere.
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

fn matches_code(known: &str, code: &str) -> bool {
    match known.strip_suffix('*') {
        Some(start) => code.starts_with(start),
        None => code == known,
    }
}

fn is_success(code: &str) -> bool {
    matches!(code, "0" | "")
}

/// Adds what support asks for: the vendor's code and its name for the request, unless they quote a secret.
pub(super) fn with_vendor_details(
    error: Error,
    code: Option<String>,
    reply: &TokenResponse,
    json: &Json,
    secrets: &[&Secret],
) -> Error {
    let telling = |text: &String| secrets.iter().any(|secret| !secret.is_blank() && text.contains(secret.expose()));
    let error = match code.filter(|code| !telling(code)) {
        Some(code) => error.with_code(code),
        None => error,
    };
    match request_id(reply, json).filter(|id| !telling(id)) {
        Some(id) => error.with_request_id(id),
        None => error,
    }
}

/// The vendor's name for a request: in a field, in a header, or in the text for people.
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

/// The address that the vendor saw, out of its text for people: whoever mends the list of trusted ones needs it.
fn address_in_message(json: &Json) -> Option<IpAddr> {
    let text = ["errmsg", "message", "msg"].into_iter().find_map(|name| json.text(name))?;
    let mut words = text.split(|letter: char| !letter.is_ascii_hexdigit() && !matches!(letter, '.' | ':'));
    words.find_map(|word| word.trim_matches(['.', ':']).parse().ok().or_else(|| word.parse().ok()))
}

/// A code that is new to us may be anything, so it is asked again, with growing pauses.
pub(super) const UNKNOWN_CODE: (ErrorKind, &str) =
    (ErrorKind::InvalidResponse, "the token was refused with a code that is not known here");

const TOO_MANY_CALLS: (ErrorKind, &str) = (ErrorKind::Throttled, "there were too many calls");
