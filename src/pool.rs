//! Managers for many tenants.

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

/// One manager for each tenant, built when it is first asked for.
///
/// Bounded: when there are too many, the one that was asked for least recently goes. Its handles that are still in use
/// keep working. All managers share one background thread and one HTTP client.
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
    /// Counts the calls; a manager keeps the number of its last one.
    calls: u64,
    /// What the managers did that are no longer here.
    evicted_metrics: Metrics,
}

struct PoolEntry {
    manager: TokenManager,
    last_call: u64,
}

impl<K: Eq + Hash + Clone> TokenPool<K> {
    /// A pool of at most 10,000 managers with the default settings.
    pub fn new() -> TokenPool<K> {
        TokenPool::with_settings(|builder| builder)
    }

    /// A pool whose managers are built with these settings: a store, time limits and so on.
    pub fn with_settings(
        settings: impl Fn(TokenManagerBuilder) -> TokenManagerBuilder + Send + Sync + 'static,
    ) -> TokenPool<K> {
        let entries = Entries { managers: HashMap::new(), calls: 0, evicted_metrics: Metrics::default() };
        TokenPool { capacity: DEFAULT_CAPACITY, settings: Box::new(settings), entries: Mutex::new(entries) }
    }

    /// Holds at most `capacity` managers, and at least one. Default: 10,000.
    #[must_use]
    pub fn capacity(self, capacity: usize) -> TokenPool<K> {
        TokenPool { capacity: capacity.max(1), ..self }
    }

    /// The manager of `tenant`; `provider` is called when there is none yet. Does not block.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the provider or the pool's settings are wrong. Nothing is
    /// kept then.
    pub fn manager<Q, P>(&self, tenant: &Q, provider: impl FnOnce() -> P) -> Result<TokenManager, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
        P: Provider,
    {
        if let Some(manager) = lock(&self.entries).find(tenant) {
            return Ok(manager);
        }
        // Outside the lock: this is the user's code. When two threads come here the second one's work is dropped.
        let built = (self.settings)(TokenManager::builder(provider())).build()?;
        let mut entries = lock(&self.entries);
        if let Some(manager) = entries.find(tenant) {
            return Ok(manager);
        }
        let evicted = if entries.managers.len() >= self.capacity { entries.evict() } else { None };
        let last_call = entries.calls;
        entries.managers.insert(tenant.to_owned(), PoolEntry { manager: built.clone(), last_call });
        drop(entries);
        drop(evicted);
        Ok(built)
    }

    /// Lets the manager of `tenant` go, if there is one: its settings have changed, or it is no longer a tenant.
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

    /// How many managers there are.
    pub fn len(&self) -> usize {
        lock(&self.entries).managers.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What all managers did together, those included that have gone.
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
        // A look at all of them, which is microseconds, and only when a new tenant comes to a full pool.
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

const DEFAULT_CAPACITY: usize = 10_000;
