//! A pool with one manager for each tenant.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Mutex;

use crate::builder::TokenManagerBuilder;
use crate::error::Error;
use crate::lock::lock;
use crate::manager::TokenManager;
use crate::metrics::Metrics;
use crate::provider::Provider;

/// Keeps a token manager for each tenant, which is built at the first call for this tenant.
///
/// The pool is bounded: a new tenant in a full pool evicts the manager whose last call is the longest ago. Handles of
/// an evicted manager that are still in use keep working. All managers share one scheduler thread and one HTTP agent.
///
/// ```
/// use evertoken::{TokenPool, WeCom};
///
/// let pool = TokenPool::new();
/// let tokens = pool.manager(&"tenant-1", || WeCom::new("corp-1", "secret-1"))?;
/// assert_eq!(pool.len(), 1);
/// # Ok::<(), evertoken::Error>(())
/// ```
pub struct TokenPool<K> {
    capacity: usize,
    settings: Settings,
    entries: Mutex<Entries<K>>,
}

type Settings = Box<dyn Fn(TokenManagerBuilder) -> TokenManagerBuilder + Send + Sync>;

struct Entries<K> {
    managers: HashMap<K, PoolEntry>,
    /// The number of calls so far. Each entry has the number of its last call.
    calls: u64,
    /// The sum of the metrics of all managers that were evicted or removed.
    evicted_metrics: Metrics,
}

struct PoolEntry {
    manager: TokenManager,
    last_call: u64,
}

impl<K: Eq + Hash + Clone> TokenPool<K> {
    /// Creates a pool of at most 10,000 managers with default settings.
    pub fn new() -> TokenPool<K> {
        TokenPool::with_settings(|builder| builder)
    }

    /// Creates a pool whose managers are built with `settings`, for example with a store and time limits.
    ///
    /// `settings` is called once for each new manager.
    pub fn with_settings(
        settings: impl Fn(TokenManagerBuilder) -> TokenManagerBuilder + Send + Sync + 'static,
    ) -> TokenPool<K> {
        let entries = Entries { managers: HashMap::new(), calls: 0, evicted_metrics: Metrics::default() };
        TokenPool { capacity: DEFAULT_CAPACITY, settings: Box::new(settings), entries: Mutex::new(entries) }
    }

    /// Sets how many managers the pool holds at most. Zero counts as one. Default: 10,000.
    #[must_use]
    pub fn capacity(self, capacity: usize) -> TokenPool<K> {
        TokenPool { capacity: capacity.max(1), ..self }
    }

    /// Returns the manager of `tenant`. Calls `provider` to build one if the pool has none. Does not block.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when a setting of the provider or of the pool is wrong. The pool
    /// keeps no manager then, and the next call tries again.
    pub fn manager<Q, P>(&self, tenant: &Q, provider: impl FnOnce() -> P) -> Result<TokenManager, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
        P: Provider,
    {
        if let Some(manager) = lock(&self.entries).find(tenant) {
            return Ok(manager);
        }
        // Built without the lock, because `settings` and `provider` are the user's code. When two threads build a
        // manager for the same tenant, the second one is dropped.
        let built = (self.settings)(TokenManager::builder(provider())).build()?;
        let mut entries = lock(&self.entries);
        if let Some(manager) = entries.find(tenant) {
            return Ok(manager);
        }
        let evicted = if entries.managers.len() >= self.capacity { entries.evict() } else { None };
        let last_call = entries.calls;
        entries.managers.insert(tenant.to_owned(), PoolEntry { manager: built.clone(), last_call });
        drop(entries);
        // Dropped without the lock: this may be the last handle of the manager, whose background work ends then.
        drop(evicted);
        Ok(built)
    }

    /// Removes the manager of `tenant` and returns it, if the pool has one.
    ///
    /// For a tenant whose credentials have changed, or who has left. The next call builds a new manager.
    pub fn remove<Q>(&self, tenant: &Q) -> Option<TokenManager>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let mut entries = lock(&self.entries);
        let entry = entries.managers.remove(tenant)?;
        entries.keep_metrics(&entry.manager);
        Some(entry.manager)
    }

    /// Returns the number of managers in the pool.
    pub fn len(&self) -> usize {
        lock(&self.entries).managers.len()
    }

    /// Returns true when the pool has no manager.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the sum of the metrics of all managers, including evicted and removed ones.
    pub fn metrics(&self) -> Metrics {
        let entries = lock(&self.entries);
        entries
            .managers
            .values()
            .map(|entry| entry.manager.metrics())
            .fold(entries.evicted_metrics, |sum, metrics| sum + metrics)
    }
}

impl<K: Eq + Hash + Clone> Entries<K> {
    fn find<Q>(&mut self, tenant: &Q) -> Option<TokenManager>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.calls += 1;
        let entry = self.managers.get_mut(tenant)?;
        entry.last_call = self.calls;
        Some(entry.manager.clone())
    }

    fn evict(&mut self) -> Option<TokenManager> {
        // A scan of all entries takes microseconds, and happens only when a new tenant comes to a full pool.
        let (oldest, _) = self.managers.iter().min_by_key(|(_, entry)| entry.last_call)?;
        let oldest = oldest.clone();
        let manager = self.managers.remove(&oldest)?.manager;
        self.keep_metrics(&manager);
        Some(manager)
    }

    fn keep_metrics(&mut self, manager: &TokenManager) {
        self.evicted_metrics = self.evicted_metrics + manager.metrics();
    }
}

impl<K: Eq + Hash + Clone> Default for TokenPool<K> {
    fn default() -> TokenPool<K> {
        TokenPool::new()
    }
}

impl<K> fmt::Debug for TokenPool<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let managers = lock(&self.entries).managers.len();
        f.debug_struct("TokenPool").field("managers", &managers).field("capacity", &self.capacity).finish()
    }
}

/// The capacity of a new pool.
const DEFAULT_CAPACITY: usize = 10_000;
