//! The credentials that a fake vendor accepts.

use std::collections::HashSet;

/// Pairs of an id and a secret, separate for each kind of credential: an id of an app is unknown as an id of a suite.
/// Tenants are a kind too; their secret is empty.
#[derive(Default)]
pub(super) struct Credentials(HashSet<(&'static str, String, String)>);

impl Credentials {
    pub(super) fn add(&mut self, kind: &'static str, id: &str, secret: &str) {
        self.0.insert((kind, id.to_owned(), secret.to_owned()));
    }

    /// Removes all credentials of this kind.
    pub(super) fn remove_kind(&mut self, kind: &'static str) {
        self.0.retain(|(known, ..)| *known != kind);
    }

    /// Returns true if this kind has a credential with this id, whatever its secret.
    pub(super) fn has_id(&self, kind: &'static str, id: &str) -> bool {
        self.0.iter().any(|(known_kind, known_id, _)| *known_kind == kind && known_id == id)
    }

    pub(super) fn accepts(&self, kind: &'static str, id: &str, secret: &str) -> bool {
        self.0.contains(&(kind, id.to_owned(), secret.to_owned()))
    }
}
