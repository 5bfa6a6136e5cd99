//! Who may ask a vendor for tokens.

use std::collections::HashSet;

/// An id and a secret in a realm: where one vendor has apps, suites and tenants, each of them is a realm.
#[derive(Default)]
pub(super) struct Credentials(HashSet<(&'static str, String, String)>);

impl Credentials {
    pub(super) fn add(&mut self, kind: &'static str, id: &str, secret: &str) {
        self.0.insert((kind, id.to_owned(), secret.to_owned()));
    }

    /// Closes all that the realm has.
    pub(super) fn remove_kind(&mut self, kind: &'static str) {
        self.0.retain(|(known, ..)| *known != kind);
    }

    pub(super) fn has_id(&self, kind: &'static str, id: &str) -> bool {
        self.0.iter().any(|(known_kind, known_id, _)| *known_kind == kind && known_id == id)
    }

    pub(super) fn accepts(&self, kind: &'static str, id: &str, secret: &str) -> bool {
        self.0.contains(&(kind, id.to_owned(), secret.to_owned()))
    }
}
