//! Who may ask a vendor for tokens.

use std::collections::HashSet;

/// An id and a secret in a realm: where one vendor has apps, suites and tenants, each of them is a realm.
#[derive(Default)]
pub(super) struct Credentials(HashSet<(&'static str, String, String)>);

impl Credentials {
    pub(super) fn open(&mut self, realm: &'static str, id: &str, secret: &str) {
        self.0.insert((realm, id.to_owned(), secret.to_owned()));
    }

    /// Closes all that the realm has.
    pub(super) fn close(&mut self, realm: &'static str) {
        self.0.retain(|(known, ..)| *known != realm);
    }

    pub(super) fn knows(&self, realm: &'static str, id: &str) -> bool {
        self.0.iter().any(|(known_realm, known_id, _)| *known_realm == realm && known_id == id)
    }

    pub(super) fn accepts(&self, realm: &'static str, id: &str, secret: &str) -> bool {
        self.0.contains(&(realm, id.to_owned(), secret.to_owned()))
    }
}
