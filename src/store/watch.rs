//! Who wants to hear of changes, and of which.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::clock::Notifier;
use crate::error::catch_panic;
use crate::key::Key;
use crate::lock::lock;

/// As long as this lifetimes, a key is [watched](crate::store::Store::watch).
pub struct Subscription(#[expect(dead_code, reason = "kept for its end")] Box<dyn Any + Send + Sync>);

impl Subscription {
    /// A watch that ends when `guard` is dropped.
    pub fn new(guard: impl Any + Send + Sync) -> Subscription {
        Subscription(Box::new(guard))
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

/// All watches of a store.
#[derive(Default)]
pub(super) struct Watches(Mutex<Watched>);

#[derive(Default)]
struct Watched {
    by_key: HashMap<Key, Vec<(u64, Notifier)>>,
    /// Numbers the watches.
    last: u64,
}

impl Watches {
    pub(super) fn add(self: &Arc<Self>, key: &Key, notifier: Notifier) -> Subscription {
        let mut watched = lock(&self.0);
        watched.last += 1;
        let number = watched.last;
        watched.by_key.entry(key.clone()).or_default().push((number, notifier));
        Subscription::new(Guard { watches: self.clone(), key: key.clone(), number })
    }

    /// Tells those who watch `key`.
    pub(super) fn notify(&self, key: &Key) {
        // Copied, because what is called may take locks of its own.
        let notifiers = lock(&self.0).by_key.get(key).cloned().unwrap_or_default();
        for (_, notifier) in notifiers {
            // One that panics is not to keep the others from being told.
            let _ = catch_panic(|| {
                notifier.notify();
                Ok(())
            });
        }
    }

    #[cfg(feature = "redis")]
    pub(super) fn keys(&self) -> Vec<Key> {
        lock(&self.0).by_key.keys().cloned().collect()
    }

    #[cfg(feature = "redis")]
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).by_key.is_empty()
    }
}

struct Guard {
    watches: Arc<Watches>,
    key: Key,
    number: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut watched = lock(&self.watches.0);
        let Some(notifiers) = watched.by_key.get_mut(&self.key) else { return };
        let gone: Vec<_> = notifiers.extract_if(.., |(number, _)| *number == self.number).collect();
        if notifiers.is_empty() {
            watched.by_key.remove(&self.key);
        }
        drop(watched);
        // Only now, because a manager may go with it.
        drop(gone);
    }
}
