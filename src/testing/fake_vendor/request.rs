//! What a host received.

use std::fmt;

use form_urlencoded::parse;
use touche::Request;

/// A request that a [`FakeVendor`](super::FakeVendor) received. It hides what it carries in `Debug`.
#[derive(Clone)]
pub struct ReceivedRequest(pub(super) Request<Vec<u8>>);

impl ReceivedRequest {
    /// The method, in capitals.
    pub fn method(&self) -> &str {
        self.0.method().as_str()
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.0.uri().path()
    }

    /// A parameter of the query, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        parameter(self.0.uri().query()?.as_bytes(), name)
    }

    /// A header's value. Case does not matter in the name.
    pub fn header(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.0.headers().get(name)?.as_bytes()).ok()
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        self.0.body()
    }

    /// A parameter of a body that is a form, decoded.
    pub fn form(&self, name: &str) -> Option<String> {
        parameter(self.body(), name)
    }

    /// A text in a body that is a JSON object.
    pub fn json(&self, name: &str) -> Option<String> {
        self.json_body()?.get(name)?.as_str().map(str::to_owned)
    }

    /// The body, if it is a JSON object and says so.
    pub(super) fn json_body(&self) -> Option<serde_json::Value> {
        let said = self.header_contains("content-type", "application/json");
        said.then(|| serde_json::from_slice(self.body()).ok()).flatten().filter(serde_json::Value::is_object)
    }

    pub(super) fn is_form(&self) -> bool {
        self.header_contains("content-type", "application/x-www-form-urlencoded")
    }

    /// What comes after `Bearer`.
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
