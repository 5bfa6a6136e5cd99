//! A store around another store that encrypts every record.
//!
//! # Theory of operation
//!
//! Records and sidecars are encrypted with ChaCha20-Poly1305, an authenticated cipher: a reader without the key learns
//! nothing, and a changed record does not decrypt. The authenticated data include the record's key in the store, so a
//! record that was moved to another key does not decrypt either. [`layout`] has the bytes. Leases stay in plain text,
//! because they contain no secret and the inner store has to compare their bytes with the owner's name.
//!
//! Two encryptions of the same bytes differ, because the nonce is random. So the inner store's versions are versions of
//! the encrypted bytes, and this store passes them through unchanged.
//!
//! A record that does not decrypt (other key, not encrypted, damaged, moved) is reported once and handled per
//! operation:
//!
//! - `read` and conflicts return an entry without bytes and with no time left, so that the manager sees an unreadable
//!   record and can replace it by its version.
//! - `read_or_lease` ignores the record and asks the inner store again for any other version, or the lease.
//! - `publish` overwrites the record however long it would still last, because no process with this key can use it.
//! - `read_at_once` returns nothing.
//!
//! The loops of `read_or_lease` and `publish` are bounded by [`MAX_ATTEMPTS`], because another process may keep writing
//! records that do not decrypt.

mod key;
mod layout;

use std::fmt;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zeroize::Zeroizing;

pub use self::key::EncryptionKey;
use crate::clock::Notifier;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::store::{
    Cursor, Entry, Expected, LeaseOutcome, LeaseOwner, PublishOutcome, Store, Subscription, SwapOutcome,
    TOO_MANY_CHANGES, Version,
};

/// Encrypts records before they go to another store, and decrypts them on the way back.
///
/// A person who can read the inner store, its backups or its network traffic learns no token. A person who can write to
/// the inner store cannot forge a record, and cannot move a record to another key. The cipher is ChaCha20-Poly1305
/// (RFC 8439) with random nonces. All managers on the store need the same [`EncryptionKey`]. Time limits and failures
/// are those of the inner store; encryption adds a few microseconds.
///
/// ```no_run
/// use evertoken::{EncryptedStore, EncryptionKey, MemoryStore, TokenManager, WeCom};
///
/// let store = EncryptedStore::new(MemoryStore::new(), EncryptionKey::from_env("EVERTOKEN_ENCRYPTION_KEY")?);
/// let tokens = TokenManager::builder(WeCom::new("corp-id", "app-secret")).store(store).build()?;
/// # Ok::<(), evertoken::Error>(())
/// ```
///
/// # Changing the key
///
/// 1. Deploy `EncryptedStore::new(store, old).also_decrypt_with(new)` everywhere, so that all processes can read
///    records of both keys.
/// 2. Deploy `EncryptedStore::new(store, new).also_decrypt_with(old)`, so that new records use the new key.
/// 3. Remove the old key once every record has been written anew. A token's record is written anew at its next refresh;
///    a refresh token or ticket only when the provider sends the next one.
///
/// # Records that do not decrypt
///
/// A record does not decrypt if it was encrypted with another key, not encrypted at all, damaged, moved from another
/// key of the store, or written by a later version. The store reports the first such record by `log::warn!`. A token is
/// then fetched and recorded with the current key. A refresh token is not replaced, because the undecryptable one may
/// be the only valid one: calls fail with [`ErrorKind::Store`] until the right key is given, or until the record is
/// removed and a person signs in again.
///
/// # Limits
///
/// The inner store still shows the names of keys, the sizes of records (they grow by 37 bytes), their lifetimes, and
/// when they change. Leases are not encrypted, but contain only the random name of a manager. A person who can write
/// to the inner store can delete records, hold leases, and restore an older record of the same key. A manager with a
/// [key chosen by the user](crate::TokenManagerBuilder::key) refuses an encrypted store.
#[derive(Clone)]
pub struct EncryptedStore<S> {
    store: S,
    key: EncryptionKey,
    /// Keys that decrypt only.
    decrypt_only_keys: Vec<EncryptionKey>,
    /// True once a record that does not decrypt has been reported, here or by a clone.
    reported: Arc<AtomicBool>,
}

impl<S: Store> EncryptedStore<S> {
    /// Returns a store that keeps its records in `store`, encrypted and decrypted with `key`.
    pub fn new(store: S, key: EncryptionKey) -> EncryptedStore<S> {
        EncryptedStore { store, key, decrypt_only_keys: Vec::new(), reported: Arc::default() }
    }

    /// Adds a key that decrypts existing records but encrypts none, for a change of the key. May be called repeatedly.
    #[must_use]
    pub fn also_decrypt_with(mut self, old: EncryptionKey) -> EncryptedStore<S> {
        self.decrypt_only_keys.push(old);
        self
    }

    /// Encrypts the bytes of `name`, unless they are a lease.
    fn encrypt(&self, name: &Key, plain: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        // A lease contains no secret, and the inner store compares its bytes with the owner's name.
        let bytes = if is_lease(name) { plain.to_vec() } else { layout::encrypt(&self.key, name, plain)? };
        Ok(Zeroizing::new(bytes))
    }

    /// Decrypts an entry of the inner store. The error is an entry without bytes, with the version of the stored
    /// record, so that the record can be replaced.
    fn decrypt(&self, name: &Key, entry: Entry) -> Result<Entry, Entry> {
        if is_lease(name) {
            return Ok(entry);
        }
        match layout::decrypt(iter::once(&self.key).chain(&self.decrypt_only_keys), name, entry.bytes()) {
            // The version stays that of the encrypted bytes: the inner store compares with it.
            Ok(mut bytes) => {
                Ok(Entry::with_version(std::mem::take(&mut *bytes), entry.remaining, entry.version.clone()))
            }
            Err(why) => {
                if !self.reported.swap(true, Ordering::Relaxed) {
                    log::warn!(
                        target: "evertoken",
                        "{name}: the record in the store cannot be decrypted: {why}; further ones are not reported"
                    );
                }
                Err(Entry::with_version(Vec::new(), Duration::ZERO, entry.version.clone()))
            }
        }
    }

    /// Decrypts an entry; an undecryptable one comes without bytes.
    fn decrypt_or_empty(&self, name: &Key, entry: Entry) -> Entry {
        self.decrypt(name, entry).unwrap_or_else(|unreadable| unreadable)
    }
}

impl<S: Store> Store for EncryptedStore<S> {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        Ok(self.store.read(key)?.map(|entry| self.decrypt_or_empty(key, entry)))
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        let encrypted = match new {
            Some((bytes, lifetime)) => Some((self.encrypt(key, bytes)?, lifetime)),
            None => None,
        };
        let encrypted = encrypted.as_ref().map(|(bytes, lifetime)| (bytes.as_slice(), *lifetime));
        Ok(match self.store.compare_and_swap(key, expected, encrypted)? {
            SwapOutcome::Conflict(Some(entry)) => SwapOutcome::Conflict(Some(self.decrypt_or_empty(key, entry))),
            other => other,
        })
    }

    fn read_or_lease(
        &self,
        key: &Key,
        other_than: Option<&Version>,
        min_remaining: Duration,
        owner: &LeaseOwner,
        lease: Duration,
    ) -> Result<LeaseOutcome, Error> {
        let mut skipped = other_than.cloned();
        for _ in 0..MAX_ATTEMPTS {
            let found = match self.store.read_or_lease(key, skipped.as_ref(), min_remaining, owner, lease)? {
                LeaseOutcome::Found(entry) => self.decrypt(key, entry),
                other => return Ok(other),
            };
            skipped = match found {
                Ok(entry) if Some(entry.version()) != other_than => return Ok(LeaseOutcome::Found(entry)),
                // The record that the caller already has is back in place of the one that did not decrypt.
                Ok(entry) | Err(entry) => Some(entry.version),
            };
        }
        // Another process keeps writing records that do not decrypt. Let the caller wait and try again.
        Ok(LeaseOutcome::Busy { remaining: Duration::ZERO, cursor: Cursor::new(skipped) })
    }

    fn publish(
        &self,
        key: &Key,
        owner: &LeaseOwner,
        supersedes: Option<&Version>,
        bytes: &[u8],
        lifetime: Duration,
    ) -> Result<PublishOutcome, Error> {
        let encrypted = self.encrypt(key, bytes)?;
        let mut supersedes = supersedes.cloned();
        for _ in 0..MAX_ATTEMPTS {
            let entry = match self.store.publish(key, owner, supersedes.as_ref(), &encrypted, lifetime)? {
                PublishOutcome::Conflict(entry) => entry,
                done => return Ok(done),
            };
            supersedes = match self.decrypt(key, entry) {
                Ok(entry) => return Ok(PublishOutcome::Conflict(entry)),
                // The stored record expires later, but no process with this key can use it. Overwrite it.
                Err(unreadable) => Some(unreadable.version),
            };
        }
        Err(Error::new(ErrorKind::Store, TOO_MANY_CHANGES))
    }

    fn wait(&self, key: &Key, cursor: &Cursor, deadline: std::time::Instant) -> Result<(), Error> {
        self.store.wait(key, cursor, deadline)
    }

    fn read_at_once(&self, key: &Key) -> Option<Entry> {
        self.decrypt(key, self.store.read_at_once(key)?).ok()
    }

    fn watch(&self, key: &Key, notifier: Notifier) -> Option<Subscription> {
        self.store.watch(key, notifier)
    }

    fn logs_outages(&self) -> bool {
        self.store.logs_outages()
    }

    fn is_encrypted(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), Error> {
        self.store.check()
    }
}

impl<S: fmt::Debug> fmt::Debug for EncryptedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStore").field("store", &self.store).finish_non_exhaustive()
    }
}

fn is_lease(key: &Key) -> bool {
    key.leased_key().is_some()
}

/// How many undecryptable records in a row one operation skips.
const MAX_ATTEMPTS: usize = 4;
