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

/// One manager for each tenant, made when it is first asked for.
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
    shelf: Mutex<Shelf<K>>,
}

type Settings = Box<dyn Fn(TokenManagerBuilder) -> TokenManagerBuilder + Send + Sync>;

struct Shelf<K> {
    managers: HashMap<K, Kept>,
    /// Counts the calls; a manager keeps the number of its last one.
    calls: u64,
    /// What the managers did that are no longer here.
    gone: Metrics,
}

struct Kept {
    manager: TokenManager,
    called: u64,
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
        let shelf = Shelf { managers: HashMap::new(), calls: 0, gone: Metrics::default() };
        TokenPool { capacity: CAPACITY, settings: Box::new(settings), shelf: Mutex::new(shelf) }
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
        if let Some(manager) = lock(&self.shelf).find(tenant) {
            return Ok(manager);
        }
        // Outside the lock: this is the user's code. When two threads come here the second one's work is dropped.
        let made = (self.settings)(TokenManager::builder(provider())).build()?;
        let mut shelf = lock(&self.shelf);
        if let Some(manager) = shelf.find(tenant) {
            return Ok(manager);
        }
        let evicted = if shelf.managers.len() >= self.capacity { shelf.evict() } else { None };
        let called = shelf.calls;
        shelf.managers.insert(tenant.to_owned(), Kept { manager: made.clone(), called });
        drop(shelf);
        drop(evicted);
        Ok(made)
    }

    /// Lets the manager of `tenant` go, if there is one: its settings have changed, or it is no longer a tenant.
    pub fn remove<Q>(&self, tenant: &Q) -> Option<TokenManager>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let mut shelf = lock(&self.shelf);
        let kept = shelf.managers.remove(tenant)?;
        shelf.retire(&kept.manager);
        Some(kept.manager)
    }

    /// How many managers there are.
    pub fn len(&self) -> usize {
        lock(&self.shelf).managers.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What all managers did together, those included that have gone.
    pub fn metrics(&self) -> Metrics {
        let shelf = lock(&self.shelf);
        shelf.managers.values().map(|kept| kept.manager.metrics()).fold(shelf.gone, |sum, metrics| sum + metrics)
    }
}

impl<K: Eq + Hash + Clone> Shelf<K> {
    fn find<Q>(&mut self, tenant: &Q) -> Option<TokenManager>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.calls += 1;
        let kept = self.managers.get_mut(tenant)?;
        kept.called = self.calls;
        Some(kept.manager.clone())
    }

    fn evict(&mut self) -> Option<TokenManager> {
        // A look at all of them, which is microseconds, and only when a new tenant comes to a full pool.
        let (oldest, _) = self.managers.iter().min_by_key(|(_, kept)| kept.called)?;
        let oldest = oldest.clone();
        let manager = self.managers.remove(&oldest)?.manager;
        self.retire(&manager);
        Some(manager)
    }

    fn retire(&mut self, manager: &TokenManager) {
        self.gone = self.gone + manager.metrics();
    }
}

impl<K: Eq + Hash + Clone> Default for TokenPool<K> {
    fn default() -> TokenPool<K> {
        TokenPool::new()
    }
}

impl<K> fmt::Debug for TokenPool<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let managers = lock(&self.shelf).managers.len();
        f.debug_struct("TokenPool").field("managers", &managers).field("capacity", &self.capacity).finish()
    }
}

const CAPACITY: usize = 10_000;
