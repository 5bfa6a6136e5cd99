//! The name of a credential, without the credential.

use std::fmt;

use ring::{digest, hmac};

use crate::error::Error;
use crate::secret::{Secret, hex, plain_url};

/// What makes a credential this one and no other: provider, endpoint, ids, scope and secret.
///
/// Two managers whose identities are equal share a token; when any part differs they never do. The secret goes in as
/// a keyed hash, so that a new secret is a new identity and nothing of it can be read back.
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
    /// Starts with the provider's name.
    pub fn new(provider: impl Into<String>) -> Identity {
        Identity { provider: provider.into(), parts: Vec::new() }
    }

    /// Adds a part that is no secret: an address, an id, a scope. `name` keeps `a=b` and `b=a` apart.
    #[must_use]
    pub fn part(mut self, name: &'static str, value: impl Into<String>) -> Identity {
        self.parts.push((name, value.into()));
        self
    }

    /// Adds a secret, as a keyed hash of it.
    #[must_use]
    pub fn secret(self, secret: &Secret) -> Identity {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let tag = hmac::sign(&key, b"evertoken identity");
        self.part("secret", hex(&tag.as_ref()[..16]))
    }

    /// Hash of all parts, each with its length before it: no two lists of parts run together.
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

/// The name under which a credential's token is recorded in a store. It holds no secret and may be logged.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// `<namespace>:{v1:<hash>}`. The braces keep all keys of a credential in one slot of a Redis cluster.
    pub(crate) fn derive(namespace: &str, identity: &Identity) -> Result<Key, Error> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !(1..=64).contains(&namespace.len()) || !namespace.bytes().all(fits) {
            return Err(Error::config("the namespace must be 1 to 64 characters out of A-Z a-z 0-9 . _ -"));
        }
        Ok(Key(format!("{namespace}:{{v1:{}}}", identity.fingerprint())))
    }

    /// A key that the user names in full.
    pub(crate) fn custom(key: &str) -> Result<Key, Error> {
        if !(1..=512).contains(&key.len()) || !key.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
            return Err(Error::config("a key must be 1 to 512 printable ASCII characters without blanks"));
        }
        let key = Key(key.to_owned());
        if key.is_sidecar() {
            return Err(Error::config(
                "a key must not end like those that stand beside one, as in `:lock` or `:state`",
            ));
        }
        Ok(key)
    }

    /// The key of a manager whose settings do not make one. Nothing is ever recorded under it.
    pub(crate) fn unknown() -> Key {
        Key("unknown".to_owned())
    }

    /// The key of something that is kept beside this one.
    pub(crate) fn sidecar(&self, suffix: &str) -> Key {
        Key(format!("{}:{suffix}", self.0))
    }

    /// The key of the lease beside this one.
    pub(crate) fn lease(&self) -> Key {
        self.sidecar(LEASE_SUFFIX)
    }

    /// The key of what the provider needs for the next token.
    pub(crate) fn renewal_secret(&self) -> Key {
        self.sidecar(RENEWAL_SECRET_SUFFIX)
    }

    /// The key of what was counted of the provider's quota.
    pub(crate) fn quota(&self) -> Key {
        self.sidecar(QUOTA_SUFFIX)
    }

    /// The key of something that is to be done once.
    pub(crate) fn operation(&self) -> Key {
        self.sidecar(OPERATION_SUFFIX)
    }

    /// True for what is not a token's record: nobody waits for news of it.
    pub(crate) fn is_sidecar(&self) -> bool {
        self.split_suffix().1.is_some()
    }

    /// True for what the provider needs for the next token.
    pub(crate) fn is_renewal_secret(&self) -> bool {
        self.split_suffix().1 == Some(RENEWAL_SECRET_SUFFIX)
    }

    /// True for something that is to be done once.
    pub(crate) fn is_operation(&self) -> bool {
        self.split_suffix().1 == Some(OPERATION_SUFFIX)
    }

    /// The key whose lease this is.
    pub(crate) fn leased_key(&self) -> Option<Key> {
        let (leased, suffix) = self.split_suffix();
        (suffix == Some(LEASE_SUFFIX)).then(|| Key(leased.to_owned()))
    }

    /// What stands before the last part of the name, and that, if it names something beside a record.
    pub(crate) fn split_suffix(&self) -> (&str, Option<&str>) {
        let sidecar = self.0.rsplit_once(':').filter(|(_, suffix)| SIDECAR_SUFFIXES.contains(suffix));
        sidecar.map_or((&self.0, None), |(record, suffix)| (record, Some(suffix)))
    }

    /// The key as a store sees it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the keys beside a record have behind the record's.
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
    fn two_secrets_of_one_corp_have_two_keys() {
        let key = |identity| Key::derive("evertoken", &identity).expect("the namespace is right");
        assert_ne!(key(wecom("c", "s1")), key(wecom("c", "s2")));
        assert_eq!(key(wecom("c", "s1")), key(wecom("c", "s1")));
    }

    #[test]
    fn parts_do_not_run_together() {
        let of = |parts: &[(&'static str, &str)]| {
            parts.iter().fold(Identity::new("p"), |identity, (name, value)| identity.part(name, *value)).fingerprint()
        };
        assert_ne!(of(&[("a", "x:b"), ("c", "d")]), of(&[("a", "x"), ("b:c", "d")]));
        assert_ne!(of(&[("a", "bc")]), of(&[("ab", "c")]));
        assert_ne!(of(&[("a", ""), ("b", "c")]), of(&[("a", "b"), ("", "c")]));
    }

    #[test]
    fn neither_key_nor_identity_shows_the_secret() {
        let identity = wecom("corp-id", "hunter2");
        let key = Key::derive("evertoken", &identity).expect("the namespace is right");
        let shown = format!("{identity:?} {key} {key:?} {:?}", key.sidecar("lease"));
        assert!(!shown.contains("hunter2") && shown.contains("corp-id"), "{shown}");
        assert!(key.as_str().starts_with("evertoken:{v1:"));
    }

    #[test]
    fn a_key_of_ones_own_is_not_that_of_something_beside_another() {
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
