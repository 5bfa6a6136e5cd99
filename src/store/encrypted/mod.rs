//! A store whose bytes nobody can read, change or move who does not have its key.

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
    Cursor, Entry, Expected, LeaseOutcome, LeaseOwner, PublishOutcome, Store, Subscription, SwapOutcome, Version,
};

/// Keeps bytes in another store, sealed: encrypted, and bound to the key that they are kept under.
///
/// Whoever can read the store, its backups or its network traffic reads no token. Whoever can write it can make no
/// record that is taken for one of ours, and move none to another key. The cipher is ChaCha20-Poly1305 with random
/// nonces; all managers on the store need the same [`EncryptionKey`].
///
/// ```no_run
/// use evertoken::{EncryptedStore, EncryptionKey, MemoryStore, TokenManager, WeCom};
///
/// let store = EncryptedStore::new(MemoryStore::new(), EncryptionKey::from_env("EVERTOKEN_ENCRYPTION_KEY")?);
/// let tokens = TokenManager::builder(WeCom::new("corp-id", "app-secret")).store(store).build()?;
/// # Ok::<(), evertoken::Error>(())
/// ```
///
/// # A new key
///
/// Give all processes the new key to read with first: `EncryptedStore::new(store, old).also_decrypt_with(new)`. Then write with it:
/// `EncryptedStore::new(store, new).also_decrypt_with(old)`. When everything has been written anew, the old one can go: a token's
/// record is when the token is renewed, but a refresh token, or a ticket, only when the next one comes.
///
/// # What does not open
///
/// Sealed with another key, not sealed, damaged, moved here from another key, or by a later version: it is reported once
/// by `log::warn!`, and treated as a record that cannot be read. A token is fetched and recorded anew, under the current
/// key. A refresh token is not replaced, because the one in there may be the only one that is still good: then calls
/// fail with [`ErrorKind::Store`] until the right key is given, or somebody removes it and signs in again.
///
/// # What it does not do
///
/// It does not hide the names of keys, how long things are (they grow by 37 bytes), how long they live and when they
/// change. Leases are not sealed: the random name of a manager is all there is in them. Whoever can write the store can
/// still remove records, hold leases, and put back an older record of the same key. A manager with a
/// [key of the user's own](crate::TokenManagerBuilder::key) refuses a sealed store.
#[derive(Clone)]
pub struct EncryptedStore<S> {
    store: S,
    key: EncryptionKey,
    /// Keys that are only read with.
    decrypt_only_keys: Vec<EncryptionKey>,
    /// Whether something that does not open has been reported, here or by a clone.
    reported: Arc<AtomicBool>,
}

impl<S: Store> EncryptedStore<S> {
    /// Seals what is written into `store` with `key`, and reads what was sealed with it.
    pub fn new(store: S, key: EncryptionKey) -> EncryptedStore<S> {
        EncryptedStore { store, key, decrypt_only_keys: Vec::new(), reported: Arc::default() }
    }

    /// Reads what was sealed with this key as well. There may be any number of them.
    #[must_use]
    pub fn also_decrypt_with(mut self, old: EncryptionKey) -> EncryptedStore<S> {
        self.decrypt_only_keys.push(old);
        self
    }

    fn encrypt(&self, name: &Key, plain: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        // A lease tells no secret, and the store compares what is in it.
        let bytes = if is_lease(name) { plain.to_vec() } else { layout::encrypt(&self.key, name, plain)? };
        Ok(Zeroizing::new(bytes))
    }

    /// The entry as it was before it was sealed. What does not open comes as an error: without its bytes, but with its
    /// version, so that it can be replaced.
    fn decrypt(&self, name: &Key, entry: Entry) -> Result<Entry, Entry> {
        if is_lease(name) {
            return Ok(entry);
        }
        match layout::decrypt(iter::once(&self.key).chain(&self.decrypt_only_keys), name, entry.bytes()) {
            Ok(mut bytes) => {
                Ok(Entry::with_version(std::mem::take(&mut *bytes), entry.remaining, entry.version.clone()))
            }
            Err(why) => {
                if !self.reported.swap(true, Ordering::Relaxed) {
                    log::warn!(target: "evertoken", "{name}: what is in the store cannot be opened: {why}; told once");
                }
                Err(Entry::with_version(Vec::new(), Duration::ZERO, entry.version.clone()))
            }
        }
    }

    /// The same for those who tell by the bytes.
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
                // What the caller does not want is back in the place of what does not open.
                Ok(entry) | Err(entry) => Some(entry.version),
            };
        }
        // Whoever writes so often what cannot be opened is left alone for a while.
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
                // However long it lifetimes, it is of no use to anybody here: it is replaced as if it had been seen.
                Err(unreadable) => Some(unreadable.version),
            };
        }
        Err(Error::new(ErrorKind::Store, "the record changes faster than it can be written"))
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
}

impl<S: fmt::Debug> fmt::Debug for EncryptedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStore").field("store", &self.store).finish_non_exhaustive()
    }
}

fn is_lease(key: &Key) -> bool {
    key.leased_key().is_some()
}

/// How often something that does not open is passed over when something else that does not open has come.
const MAX_ATTEMPTS: usize = 4;
