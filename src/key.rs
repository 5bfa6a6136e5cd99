//! The identity of a credential, and the keys of its records in a store. Neither contains a secret.
//!
//! A record's key is `<namespace>:{v1:<fingerprint>}`, or chosen by the user. Further records of the same credential,
//! called *sidecars*, have the record's key with a suffix:
//!
//! | suffix | contents |
//! |---|---|
//! | `:lock` | the lease (also of a sidecar, as in `:state:lock`) |
//! | `:state` | the renewal secret: a refresh token or a pushed ticket |
//! | `:quota` | the calls counted for the provider's quota |
//! | `:once` | an idempotent operation |
//!
//! The suffix tells a store which entries must not be lost: see [`Key::is_sidecar`] and its neighbours. The suffixes are part of
//! the format of stores and must not change.

use std::fmt;

use ring::{digest, hmac};

use crate::error::Error;
use crate::secret::{Secret, hex, plain_url};

/// Identifies a credential by everything that decides about its tokens: provider, endpoint, ids, scope and secret.
///
/// Two managers with equal identities share a token; managers whose identities differ in any part never do. The secret
/// enters as a keyed hash: a new secret makes a new identity, and nobody can compute the secret from the identity.
///
/// ```
/// use evertoken::Secret;
/// use evertoken::provider::Identity;
///
/// let one = Identity::new("my-service").part("app", "a").secret(&Secret::from("s"));
/// let two = Identity::new("my-service").part("app", "b").secret(&Secret::from("s"));
/// assert_ne!(one, two);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    provider: String,
    parts: Vec<(&'static str, String)>,
}

impl Identity {
    /// Returns an identity with the provider's name and no other part.
    pub fn new(provider: impl Into<String>) -> Identity {
        Identity { provider: provider.into(), parts: Vec::new() }
    }

    /// Adds a part that is no secret: an address, an id, a scope. `Debug` shows it.
    ///
    /// The name is part of the identity: the value `x` named `a` differs from the value `x` named `b`.
    #[must_use]
    pub fn part(mut self, name: &'static str, value: impl Into<String>) -> Identity {
        self.parts.push((name, value.into()));
        self
    }

    /// Adds the secret, as an HMAC keyed with it. `Debug` does not show this part.
    #[must_use]
    pub fn secret(self, secret: &Secret) -> Identity {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let tag = hmac::sign(&key, b"evertoken identity");
        self.part("secret", hex(&tag.as_ref()[..16]))
    }

    /// Returns the service that grants the tokens: the provider's name, and the part `url` if there is one.
    pub(crate) fn service(&self) -> (&str, Option<&str>) {
        let url = self.parts.iter().find(|(name, _)| *name == "url");
        (&self.provider, url.map(|(_, url)| url.as_str()))
    }

    /// Returns a hash of all parts. Each has its length in front, so that two different lists of parts never give the
    /// same input to the hash.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut add = |text: &str| {
            hash.update(&(text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        };
        add(&self.provider);
        for (name, value) in &self.parts {
            add(name);
            add(value);
        }
        hex(&hash.finish().as_ref()[..16])
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_url = |name: &str, value: &str| name == "url" || value.contains("://");
        let shown = |name, value: &str| if is_url(name, value) { plain_url(value) } else { value.to_owned() };
        let parts = self.parts.iter().filter(|(name, _)| *name != "secret");
        let parts = parts.map(|(name, value)| (*name, shown(name, value)));
        f.debug_struct("Identity").field("provider", &self.provider).field("parts", &parts.collect::<Vec<_>>()).finish()
    }
}

/// The name of a record in a store. A key contains no secret and may be logged.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Returns the key `<namespace>:{v1:<fingerprint>}`. A Redis cluster chooses the slot by the text in braces, so all
    /// keys of a credential are in one slot, as scripts with several keys require.
    pub(crate) fn derive(namespace: &str, identity: &Identity) -> Result<Key, Error> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !(1..=64).contains(&namespace.len()) || !namespace.bytes().all(fits) {
            return Err(Error::config("the namespace must have 1 to 64 characters from A-Z a-z 0-9 . _ -"));
        }
        Ok(Key(format!("{namespace}:{{v1:{}}}", identity.fingerprint())))
    }

    /// Returns a key that the user has chosen in full. Fails if it could be mistaken for a sidecar's.
    pub(crate) fn custom(key: &str) -> Result<Key, Error> {
        if !(1..=512).contains(&key.len()) || !key.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
            return Err(Error::config("the key must have 1 to 512 printable ASCII characters without blanks"));
        }
        let key = Key(key.to_owned());
        if key.is_sidecar() {
            return Err(Error::config(
                "the key must not end in `:lock`, `:state`, `:quota` or `:once`; choose another ending",
            ));
        }
        Ok(key)
    }

    /// Returns the key that a check of a store reads and writes. No manager uses it.
    pub(crate) fn probe() -> Key {
        Key::derive("evertoken", &Identity::new("check")).unwrap_or_else(|_| Key::unknown())
    }

    /// Returns the key of a manager whose settings are invalid and give no key. Never used in a store.
    pub(crate) fn unknown() -> Key {
        Key("unknown".to_owned())
    }

    /// Returns this key with a suffix.
    pub(crate) fn sidecar(&self, suffix: &str) -> Key {
        Key(format!("{}:{suffix}", self.0))
    }

    /// Returns the key of the lease of this record or sidecar.
    pub(crate) fn lease(&self) -> Key {
        self.sidecar(LEASE_SUFFIX)
    }

    /// Returns the key of the renewal secret of this record.
    pub(crate) fn renewal_secret(&self) -> Key {
        self.sidecar(RENEWAL_SECRET_SUFFIX)
    }

    /// Returns the key of the quota count of this record.
    pub(crate) fn quota(&self) -> Key {
        self.sidecar(QUOTA_SUFFIX)
    }

    /// Returns the key of an idempotent operation.
    pub(crate) fn operation(&self) -> Key {
        self.sidecar(OPERATION_SUFFIX)
    }

    /// True for every key that is not a token's record. No process waits for changes of a sidecar, and a store should
    /// rather lose a record, which a fetch replaces, than a sidecar.
    pub(crate) fn is_sidecar(&self) -> bool {
        self.split_suffix().1.is_some()
    }

    /// True for a renewal secret. A lost one may require a person to sign in again.
    pub(crate) fn is_renewal_secret(&self) -> bool {
        self.split_suffix().1 == Some(RENEWAL_SECRET_SUFFIX)
    }

    /// True for an idempotent operation. A lost one may run twice.
    pub(crate) fn is_operation(&self) -> bool {
        self.split_suffix().1 == Some(OPERATION_SUFFIX)
    }

    /// Returns the key that is leased if this is the key of a lease.
    pub(crate) fn leased_key(&self) -> Option<Key> {
        let (leased, suffix) = self.split_suffix();
        (suffix == Some(LEASE_SUFFIX)).then(|| Key(leased.to_owned()))
    }

    /// Splits off the suffix of a sidecar. The suffix is `None` for a record's key.
    pub(crate) fn split_suffix(&self) -> (&str, Option<&str>) {
        let sidecar = self.0.rsplit_once(':').filter(|(_, suffix)| SIDECAR_SUFFIXES.contains(suffix));
        sidecar.map_or((&self.0, None), |(record, suffix)| (record, Some(suffix)))
    }

    /// Returns the key as text: printable ASCII without blanks.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// The suffixes of sidecar keys, described at the head of this file. Stores contain them: do not change them.
const LEASE_SUFFIX: &str = "lock";
const RENEWAL_SECRET_SUFFIX: &str = "state";
const QUOTA_SUFFIX: &str = "quota";
const OPERATION_SUFFIX: &str = "once";
const SIDECAR_SUFFIXES: [&str; 4] = [LEASE_SUFFIX, RENEWAL_SECRET_SUFFIX, QUOTA_SUFFIX, OPERATION_SUFFIX];

#[cfg(test)]
mod tests {
    use super::*;

    fn wecom(corp: &str, secret: &str) -> Identity {
        Identity::new("wecom").part("corp", corp).secret(&Secret::from(secret))
    }

    #[test]
    fn another_secret_gives_another_key() {
        let key = |identity| Key::derive("evertoken", &identity).expect("the namespace is right");
        assert_ne!(key(wecom("c", "s1")), key(wecom("c", "s2")));
        assert_eq!(key(wecom("c", "s1")), key(wecom("c", "s1")));
    }

    #[test]
    fn different_lists_of_parts_have_different_fingerprints() {
        let of = |parts: &[(&'static str, &str)]| {
            parts.iter().fold(Identity::new("p"), |identity, (name, value)| identity.part(name, *value)).fingerprint()
        };
        assert_ne!(of(&[("a", "x:b"), ("c", "d")]), of(&[("a", "x"), ("b:c", "d")]));
        assert_ne!(of(&[("a", "bc")]), of(&[("ab", "c")]));
        assert_ne!(of(&[("a", ""), ("b", "c")]), of(&[("a", "b"), ("", "c")]));
    }

    #[test]
    fn key_and_identity_do_not_show_the_secret() {
        let identity = wecom("corp-id", "hunter2");
        let key = Key::derive("evertoken", &identity).expect("the namespace is right");
        let shown = format!("{identity:?} {key} {key:?} {:?}", key.sidecar("lease"));
        assert!(!shown.contains("hunter2") && shown.contains("corp-id"), "{shown}");
        assert!(key.as_str().starts_with("evertoken:{v1:"));
    }

    #[test]
    fn a_custom_key_cannot_be_the_key_of_a_sidecar() {
        let key = Key::custom("access_token:corp").expect("a plain key");
        for sidecar in [key.lease(), key.renewal_secret(), key.quota(), key.operation(), key.renewal_secret().lease()] {
            assert!(Key::custom(sidecar.as_str()).is_err() && sidecar.is_sidecar(), "{sidecar}");
        }
        assert!(!key.is_sidecar());
    }

    #[test]
    fn a_namespace_is_one_to_sixty_four_plain_characters() {
        let derive = |namespace: &str| Key::derive(namespace, &Identity::new("p"));
        assert!(derive("a.B_c-9").is_ok() && derive(&"x".repeat(64)).is_ok());
        for bad in ["", "a:b", "a b", "{a}", "é", &"x".repeat(65)] {
            assert!(derive(bad).is_err(), "{bad:?}");
        }
    }
}
