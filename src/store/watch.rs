//! Who wants to hear of changes, and of which.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::clock::Wake;
use crate::error::catch_panic;
use crate::key::Key;
use crate::lock::lock;

/// As long as this lifetimes, a key is [watched](crate::Store::watch).
pub struct Watch(#[expect(dead_code, reason = "kept for its end")] Box<dyn Any + Send + Sync>);

impl Watch {
    /// A watch that ends when `guard` is dropped.
    pub fn new(guard: impl Any + Send + Sync) -> Watch {
        Watch(Box::new(guard))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// All watches of a store.
#[derive(Default)]
pub(super) struct Watches(Mutex<Watched>);

#[derive(Default)]
struct Watched {
    by_key: HashMap<Key, Vec<(u64, Wake)>>,
    /// Numbers the watches.
    last: u64,
}

impl Watches {
    pub(super) fn add(self: &Arc<Self>, key: &Key, wake: Wake) -> Watch {
        let mut watched = lock(&self.0);
        watched.last += 1;
        let number = watched.last;
        watched.by_key.entry(key.clone()).or_default().push((number, wake));
        Watch::new(Guard { watches: self.clone(), key: key.clone(), number })
    }

    /// Tells those who watch `key`.
    pub(super) fn wake(&self, key: &Key) {
        // Copied, because what is called may take locks of its own.
        let wakes = lock(&self.0).by_key.get(key).cloned().unwrap_or_default();
        for (_, wake) in wakes {
            // One that panics is not to keep the others from being told.
            let _ = catch_panic(|| {
                wake.wake();
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
        let Some(wakes) = watched.by_key.get_mut(&self.key) else { return };
        let gone: Vec<_> = wakes.extract_if(.., |(number, _)| *number == self.number).collect();
        if wakes.is_empty() {
            watched.by_key.remove(&self.key);
        }
        drop(watched);
        // Only now, because a manager may go with it.
        drop(gone);
    }
}
