//! A recorded request, with accessors for its query, form and JSON parameters.

use std::fmt;

use form_urlencoded::parse;
use touche::Request;

/// A request that a [`FakeVendor`](super::FakeVendor) has received, from [`requests`](super::FakeVendor::requests).
///
/// `Debug` prints the method and the path only, because the rest may contain secrets.
#[derive(Clone)]
pub struct ReceivedRequest(pub(super) Request<Vec<u8>>);

impl ReceivedRequest {
    /// Returns the method, in capitals: `POST`.
    pub fn method(&self) -> &str {
        self.0.method().as_str()
    }

    /// Returns the path without the query.
    pub fn path(&self) -> &str {
        self.0.uri().path()
    }

    /// Returns the decoded value of a query parameter, the first one with this name.
    pub fn query(&self, name: &str) -> Option<String> {
        parameter(self.0.uri().query()?.as_bytes(), name)
    }

    /// Returns the value of a header if it is valid UTF-8. The case of the name does not matter.
    pub fn header(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.0.headers().get(name)?.as_bytes()).ok()
    }

    /// Returns the body.
    pub fn body(&self) -> &[u8] {
        self.0.body()
    }

    /// Returns the decoded value of a parameter in a form body. The content type is not checked.
    pub fn form(&self, name: &str) -> Option<String> {
        parameter(self.body(), name)
    }

    /// Returns a string field of a JSON body. The request must have the content type `application/json`.
    pub fn json(&self, name: &str) -> Option<String> {
        self.json_body()?.get(name)?.as_str().map(str::to_owned)
    }

    /// Returns the body if it is a JSON object and has the content type `application/json`.
    pub(super) fn json_body(&self) -> Option<serde_json::Value> {
        let is_json = self.header_contains("content-type", "application/json");
        is_json.then(|| serde_json::from_slice(self.body()).ok()).flatten().filter(serde_json::Value::is_object)
    }

    pub(super) fn is_form(&self) -> bool {
        self.header_contains("content-type", "application/x-www-form-urlencoded")
    }

    /// Returns the token of an `Authorization: Bearer` header (RFC 6750).
    pub(super) fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    pub(super) fn header_contains(&self, name: &str, word: &str) -> bool {
        self.header(name).is_some_and(|value| value.to_ascii_lowercase().contains(word))
    }
}

fn parameter(text: &[u8], name: &str) -> Option<String> {
    parse(text).find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

impl fmt::Debug for ReceivedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReceivedRequest({} {})", self.method(), self.path())
    }
}
