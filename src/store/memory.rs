//! A store in the memory of this process, for managers that share a token within it, and for tests.
//!
//! A mutex guards a map of entries. A second index orders the keys by expiry on the monotonic clock: each operation
//! first removes what has expired, and a full store evicts the entry that expires next. A condition variable wakes
//! threads in `wait`, and subscriptions are notified after the mutex is released.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::clock::{Clock, Deadline, Notifier, Time, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::lock::{lock, wait};
use crate::store::subscriptions::{Subscription, Subscriptions};
use crate::store::{Cursor, Entry, Expected, Store, SwapOutcome};

/// Keeps records in the memory of this process. Clones share the same records.
///
/// Managers on one `MemoryStore` behave like processes on one Redis: the token is shared, and a single manager fetches.
/// Everything is lost when the process ends; a [`FileStore`](crate::FileStore) or a Redis store lasts longer. No
/// operation but [`wait`](Store::wait) blocks.
///
/// # Size
///
/// The store holds at most 10,000 entries. Expired entries are removed by the next operation on any key. A full store
/// makes room for a new entry by evicting the record that expires next. Refresh tokens, quotas and leases are evicted
/// only when no record is left, because losing one costs more than a fetch. Entries of [idempotent
/// operations](crate::idempotency::Idempotency) are never evicted early; with 10,000 live ones, writing another entry
/// fails with [`ErrorKind::Store`].
///
/// # Lifetimes
///
/// A token expires when either the wall clock or the monotonic clock says so. Refresh tokens, quotas, leases and
/// operations go by the monotonic clock alone, so that setting the wall clock does not lose them.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Shared>);

#[derive(Default)]
struct Shared {
    entries: Mutex<Entries>,
    changed: Condvar,
    subscriptions: Arc<Subscriptions>,
    time: Time,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<Key, StoredEntry>,
    /// The same keys, ordered by expiry on the monotonic clock.
    by_expiry: BTreeSet<(Duration, Key)>,
}

struct StoredEntry {
    entry: Entry,
    expires_at: Timestamp,
    monotonic_expiry: Duration,
}

impl MemoryStore {
    /// Returns an empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Returns an empty store that measures lifetimes by `clock`, for tests.
    pub fn with_clock(clock: impl Clock) -> MemoryStore {
        let time = Time::Custom(Arc::new(clock));
        MemoryStore(Arc::new(Shared { time, ..Shared::default() }))
    }

    /// Returns the number of live entries, leases included.
    pub fn len(&self) -> usize {
        self.with_entries(|entries, _| entries.by_key.len())
    }

    /// Returns true if there is no live entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs `work` under the lock, after removing expired entries.
    fn with_entries<T>(&self, work: impl FnOnce(&mut Entries, Timestamp) -> T) -> T {
        let now = self.0.time.now();
        let mut entries = lock(&self.0.entries);
        entries.remove_expired(now);
        work(&mut entries, now)
    }
}

impl Store for MemoryStore {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        Ok(self.with_entries(|entries, now| entries.read(key, now)))
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        let swap = self.with_entries(|entries, now| {
            if new.is_some() && expected.matches(None) && entries.is_full_for(key) {
                let text =
                    "the memory store is full of idempotent operations; use a shorter result_ttl or another store";
                return Err(Error::new(ErrorKind::Store, text));
            }
            Ok(entries.swap(key, expected, new, now))
        })?;
        if let SwapOutcome::Done(_) = swap {
            self.0.changed.notify_all();
            self.0.subscriptions.notify(key);
        }
        Ok(swap)
    }

    fn wait(&self, key: &Key, cursor: &Cursor, deadline: Instant) -> Result<(), Error> {
        let deadline = Deadline::at(deadline);
        let mut entries = lock(&self.0.entries);
        while !deadline.has_passed() && !entries.has_changed(key, cursor, self.0.time.now()) {
            // Nothing signals the condition variable when a lease expires, so check for that at intervals.
            let timeout = deadline.remaining().min(RECHECK_INTERVAL);
            entries = wait(&self.0.changed, entries, timeout);
        }
        Ok(())
    }

    /// Always succeeds: memory needs no settings.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn watch(&self, key: &Key, notifier: Notifier) -> Option<Subscription> {
        let subscription = self.0.subscriptions.add(key, notifier.clone());
        // The entry may have changed between the caller's last read and this call.
        notifier.notify();
        Some(subscription)
    }
}

impl Entries {
    fn read(&self, key: &Key, now: Timestamp) -> Option<Entry> {
        let stored = self.by_key.get(key).filter(|stored| !now.reaches(stored.expires_at))?;
        Some(Entry { remaining: now.until(stored.expires_at), ..stored.entry.clone() })
    }

    fn has_changed(&self, key: &Key, cursor: &Cursor, now: Timestamp) -> bool {
        self.read(key, now).map(|entry| entry.version) != cursor.version || self.read(&key.lease(), now).is_none()
    }

    fn swap(
        &mut self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
        now: Timestamp,
    ) -> SwapOutcome {
        let current = self.read(key, now);
        if !expected.matches(current.as_ref()) {
            return SwapOutcome::Conflict(current);
        }
        self.remove(key);
        SwapOutcome::Done(new.map(|(bytes, lifetime)| self.insert(key.clone(), bytes, lifetime, now)))
    }

    fn insert(&mut self, key: Key, bytes: &[u8], lifetime: Duration, now: Timestamp) -> crate::store::Version {
        let entry = Entry::new(bytes.to_vec(), lifetime);
        let version = entry.version().clone();
        // A token must not outlive its lifetime on any clock. A sidecar must not be lost when the wall clock is set.
        let expires_at = if key.is_sidecar() { now.after(lifetime).monotonic_only() } else { now.after(lifetime) };
        let monotonic_expiry = expires_at.monotonic();
        self.by_expiry.insert((monotonic_expiry, key.clone()));
        self.by_key.insert(key.clone(), StoredEntry { entry, expires_at, monotonic_expiry });
        while self.by_key.len() > MAX_ENTRIES {
            let Some(evicted) = self.eviction_candidate(&key) else { break };
            self.remove(&evicted);
        }
        version
    }

    /// True if there is no room for `new` and no entry may be evicted.
    fn is_full_for(&self, new: &Key) -> bool {
        self.by_key.len() >= MAX_ENTRIES && !self.by_key.contains_key(new) && self.eviction_candidate(new).is_none()
    }

    /// Returns the key to evict when there is no room for `new`: the record that expires next, else the sidecar that
    /// expires next, but never an operation.
    ///
    /// Expiry alone would evict leases first, because they are short. The costs differ: losing a record costs a fetch,
    /// losing a lease lets two processes fetch at once, losing a refresh token makes a person sign in again, and losing
    /// an operation lets it run twice.
    fn eviction_candidate(&self, new: &Key) -> Option<Key> {
        let mut evictable = self.by_expiry.iter().map(|(_, key)| key).filter(|key| *key != new && !key.is_operation());
        let soonest = evictable.clone().next();
        evictable.find(|key| !key.is_sidecar()).or(soonest).cloned()
    }

    fn remove(&mut self, key: &Key) {
        if let Some(stored) = self.by_key.remove(key) {
            self.by_expiry.remove(&(stored.monotonic_expiry, key.clone()));
        }
    }

    fn remove_expired(&mut self, now: Timestamp) {
        while let Some((monotonic_expiry, key)) = self.by_expiry.first().cloned() {
            // The index is ordered by the monotonic clock. An entry that only the wall clock has ended is removed once
            // it is first in the index; `read` treats it as absent until then.
            if monotonic_expiry > now.monotonic()
                && !self.by_key.get(&key).is_some_and(|stored| now.reaches(stored.expires_at))
            {
                break;
            }
            self.remove(&key);
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("entries", &self.len()).finish()
    }
}

const MAX_ENTRIES: usize = 10_000;

/// How often `wait` checks whether the lease has expired.
const RECHECK_INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const LEASE: Duration = Duration::from_secs(7);

    fn key(number: usize) -> Key {
        Key::custom(&format!("k{number}")).expect("a plain key")
    }

    fn put(store: &MemoryStore, key: &Key, lifetime: Duration) {
        let swap = store.compare_and_swap(key, Expected::Any, Some((b"x", lifetime)));
        assert!(matches!(swap, Ok(SwapOutcome::Done(Some(_)))));
    }

    fn has(store: &MemoryStore, key: &Key) -> bool {
        store.read(key).expect("memory can be read").is_some()
    }

    #[test]
    fn a_full_store_evicts_records_and_keeps_leases() {
        let store = MemoryStore::new();
        (0..MAX_ENTRIES).for_each(|number| put(&store, &key(number), HOUR + Duration::from_secs(number as u64)));
        put(&store, &key(7).lease(), LEASE);
        assert!(has(&store, &key(7).lease()) && !has(&store, &key(0)));
        (0..20).for_each(|number| put(&store, &key(MAX_ENTRIES + number), 2 * HOUR));
        assert!(has(&store, &key(7).lease()) && !has(&store, &key(20)) && has(&store, &key(21)));
        assert_eq!(store.len(), MAX_ENTRIES);
    }

    #[test]
    fn a_new_entry_is_kept_even_if_it_expires_first() {
        let store = MemoryStore::new();
        (0..MAX_ENTRIES).for_each(|number| put(&store, &key(number), HOUR));
        put(&store, &key(MAX_ENTRIES), LEASE);
        assert!(has(&store, &key(MAX_ENTRIES)));
        assert_eq!(store.len(), MAX_ENTRIES);
    }

    #[test]
    fn a_store_full_of_leases_evicts_leases() {
        let store = MemoryStore::new();
        (0..=MAX_ENTRIES).for_each(|number| put(&store, &key(number).lease(), HOUR));
        assert!(has(&store, &key(MAX_ENTRIES).lease()));
        put(&store, &key(0), HOUR);
        assert!(has(&store, &key(0)));
        assert_eq!(store.len(), MAX_ENTRIES);
    }
}
