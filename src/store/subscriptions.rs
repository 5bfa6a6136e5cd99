//! The subscriptions of a store: which notifiers to call when an entry changes.
//!
//! Notifiers may take locks of their own, and dropping one may drop the last handle of a manager. So both happen after
//! the lock of the list is released.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::clock::Notifier;
use crate::error::catch_panic;
use crate::key::Key;
use crate::lock::lock;

/// Keeps a [watch](crate::store::Store::watch) on a key. Dropping it ends the watch.
pub struct Subscription(#[expect(dead_code, reason = "held for its Drop")] Box<dyn Any + Send + Sync>);

impl Subscription {
    /// Returns a subscription that drops `guard` when it is dropped itself. The store ends the watch in the guard's
    /// `Drop`.
    pub fn new(guard: impl Any + Send + Sync) -> Subscription {
        Subscription(Box::new(guard))
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

/// The subscriptions of one store.
#[derive(Default)]
pub(super) struct Subscriptions(Mutex<Registered>);

#[derive(Default)]
struct Registered {
    by_key: HashMap<Key, Vec<(u64, Notifier)>>,
    /// The id of the newest subscription.
    last_id: u64,
}

impl Subscriptions {
    /// Adds a subscription, which lasts until the returned value is dropped.
    pub(super) fn add(self: &Arc<Self>, key: &Key, notifier: Notifier) -> Subscription {
        let mut registered = lock(&self.0);
        registered.last_id += 1;
        let id = registered.last_id;
        registered.by_key.entry(key.clone()).or_default().push((id, notifier));
        Subscription::new(Registration { subscriptions: self.clone(), key: key.clone(), id })
    }

    /// Calls the notifiers of all subscriptions to `key`.
    pub(super) fn notify(&self, key: &Key) {
        // Copy the list: a notifier may take locks of its own, so none is called under this one.
        let notifiers = lock(&self.0).by_key.get(key).cloned().unwrap_or_default();
        for (_, notifier) in notifiers {
            // Go on with the other notifiers when one panics.
            let _ = catch_panic(|| {
                notifier.notify();
                Ok(())
            });
        }
    }

    /// Returns the keys with at least one subscription.
    #[cfg(feature = "redis")]
    pub(super) fn keys(&self) -> Vec<Key> {
        lock(&self.0).by_key.keys().cloned().collect()
    }

    #[cfg(feature = "redis")]
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).by_key.is_empty()
    }
}

/// Removes one subscription from the list when it is dropped.
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
        // After the lock: this may drop the last handle of a manager, whose `Drop` may take the lock again.
        drop(removed);
    }
}
