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
pub(super) struct Subscriptions(Mutex<Registered>);

#[derive(Default)]
struct Registered {
    by_key: HashMap<Key, Vec<(u64, Notifier)>>,
    /// Numbers the watches.
    last_id: u64,
}

impl Subscriptions {
    pub(super) fn add(self: &Arc<Self>, key: &Key, notifier: Notifier) -> Subscription {
        let mut registered = lock(&self.0);
        registered.last_id += 1;
        let id = registered.last_id;
        registered.by_key.entry(key.clone()).or_default().push((id, notifier));
        Subscription::new(Registration { subscriptions: self.clone(), key: key.clone(), id })
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

struct Registration {
    subscriptions: Arc<Subscriptions>,
    key: Key,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut registered = lock(&self.subscriptions.0);
        let Some(notifiers) = registered.by_key.get_mut(&self.key) else { return };
        let removed: Vec<_> = notifiers.extract_if(.., |(id, _)| *id == self.id).collect();
        if notifiers.is_empty() {
            registered.by_key.remove(&self.key);
        }
        drop(registered);
        // Only now, because a manager may go with it.
        drop(removed);
    }
}
