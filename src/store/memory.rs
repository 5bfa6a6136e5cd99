//! A store within the process: for managers that share, and for tests.

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

/// Keeps bytes in memory. Clones share them.
///
/// Two managers on one `MemoryStore` act as two processes on one Redis do. It holds at most 10,000 entries. When one
/// more comes, the record whose lifetime ends first goes, and a lease only when nothing else is left; never the one that
/// came. What is to be done once is never let go of before its time: when there are 10,000 such, no more can be begun. What
/// has ended leaves with the next operation on any key.
///
/// A token ends by the wall clock or by the monotonic one, whichever is sooner. What must not be lost (a refresh token, a quota,
/// a lease, what is [done once](crate::idempotency::Idempotency)) goes by the monotonic one alone, whatever the wall clock is set to.
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
    /// The same keys in the order of their ends on the monotonic clock.
    by_expiry: BTreeSet<(Duration, Key)>,
}

struct StoredEntry {
    entry: Entry,
    expires_at: Timestamp,
    monotonic_expiry: Duration,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// An empty store whose lives go by `clock`.
    pub fn with_clock(clock: impl Clock) -> MemoryStore {
        let time = Time::Custom(Arc::new(clock));
        MemoryStore(Arc::new(Shared { time, ..Shared::default() }))
    }

    /// How many entries it holds, leases included.
    pub fn len(&self) -> usize {
        self.with_entries(|entries, _| entries.by_key.len())
    }

    /// True when it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

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
                return Err(Error::new(ErrorKind::Store, "the store in memory is full of what is done once"));
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
            // A lease that runs out is announced by nobody, so it is looked for now and then.
            let timeout = deadline.remaining().min(RECHECK_INTERVAL);
            entries = wait(&self.0.changed, entries, timeout);
        }
        Ok(())
    }

    fn watch(&self, key: &Key, notifier: Notifier) -> Option<Subscription> {
        let subscription = self.0.subscriptions.add(key, notifier.clone());
        // What has changed since the caller looked.
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
        // A token must not be used for too long; what stands beside one must not be lost because somebody sets a clock.
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

    /// True when everything that would have to go for `new` is needed.
    fn is_full_for(&self, new: &Key) -> bool {
        self.by_key.len() >= MAX_ENTRIES && !self.by_key.contains_key(new) && self.eviction_candidate(new).is_none()
    }

    /// What goes when there is no room for `new`. A lost record costs a fetch; a lost lease lets two fetch at once, and
    /// leases are short, so going by their ends alone would take them first; a lost refresh token costs a person's time;
    /// and what is done once would be done twice.
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
            // Ordered by one clock: what the wall clock alone has ended is not read, and leaves a little later.
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
    fn a_lease_is_kept_in_a_store_that_is_full_of_records() {
        let store = MemoryStore::new();
        (0..MAX_ENTRIES).for_each(|number| put(&store, &key(number), HOUR + Duration::from_secs(number as u64)));
        put(&store, &key(7).lease(), LEASE);
        assert!(has(&store, &key(7).lease()) && !has(&store, &key(0)));
        (0..20).for_each(|number| put(&store, &key(MAX_ENTRIES + number), 2 * HOUR));
        assert!(has(&store, &key(7).lease()) && !has(&store, &key(20)) && has(&store, &key(21)));
        assert_eq!(store.len(), MAX_ENTRIES);
    }

    #[test]
    fn what_has_just_come_is_kept_even_if_its_life_ends_first() {
        let store = MemoryStore::new();
        (0..MAX_ENTRIES).for_each(|number| put(&store, &key(number), HOUR));
        put(&store, &key(MAX_ENTRIES), LEASE);
        assert!(has(&store, &key(MAX_ENTRIES)));
        assert_eq!(store.len(), MAX_ENTRIES);
    }

    #[test]
    fn a_store_full_of_leases_holds_no_more_than_another() {
        let store = MemoryStore::new();
        (0..=MAX_ENTRIES).for_each(|number| put(&store, &key(number).lease(), HOUR));
        assert!(has(&store, &key(MAX_ENTRIES).lease()));
        put(&store, &key(0), HOUR);
        assert!(has(&store, &key(0)));
        assert_eq!(store.len(), MAX_ENTRIES);
    }
}
