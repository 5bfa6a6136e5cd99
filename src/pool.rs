//! A pool with one manager for each tenant.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
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

/// The managers, and the order in which they leave the pool.
///
/// A call moves its tenant to the end of the order, and an eviction takes the first tenant. Both take O(log n) and run
/// the `Hash` and `Eq` of one tenant, so a new tenant in a full pool delays the calls of the others for microseconds.
/// Where a tenant's `Hash` or `Eq` panics, `managers` and `order` still have the same tenants: `order` is changed last.
struct Entries<K> {
    managers: HashMap<K, PoolEntry>,
    /// Each tenant under the number of its last call.
    order: BTreeMap<u64, K>,
    /// The number of calls so far.
    calls: u64,
    /// The sum of the metrics of all managers that were evicted or removed.
    evicted_metrics: Metrics,
}

type Evicted<K> = (Option<(K, PoolEntry)>, K);

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
        let entries = Entries::default();
        TokenPool { capacity: DEFAULT_CAPACITY, settings: Box::new(settings), entries: Mutex::new(entries) }
    }

    /// Sets how many managers the pool holds at most. Zero counts as one. Default: 10,000.
    #[must_use]
    pub fn capacity(self, capacity: usize) -> TokenPool<K> {
        TokenPool { capacity: capacity.max(1), ..self }
    }

    /// Returns the manager of `tenant`. Calls `provider` to build one if the pool has none. Does not block.
    ///
    /// The pool looks `tenant` up under its lock, so `Hash` and `Eq` of a tenant must not call into the pool. A full
    /// pool finds the tenant that leaves without a search.
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
        let (key, key_in_order) = (tenant.to_owned(), tenant.to_owned());
        let mut entries = lock(&self.entries);
        if let Some(manager) = entries.find(tenant) {
            return Ok(manager);
        }
        let evicted = if entries.managers.len() >= self.capacity { entries.evict() } else { None };
        let last_call = entries.calls;
        entries.managers.insert(key, PoolEntry { manager: built.clone(), last_call });
        entries.order.insert(last_call, key_in_order);
        drop(entries);
        // Dropped without the lock: a tenant's `drop` is the user's code, and this may be the last handle of the
        // manager, whose background work ends then.
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
        let (key, entry) = entries.managers.remove_entry(tenant)?;
        let key_in_order = entries.order.remove(&entry.last_call);
        entries.keep_metrics(&entry.manager);
        drop(entries);
        drop((key, key_in_order));
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
        if let Some(key) = self.order.remove(&entry.last_call) {
            self.order.insert(self.calls, key);
        }
        entry.last_call = self.calls;
        Some(entry.manager.clone())
    }

    /// Removes the tenant whose last call is the longest ago. The caller drops the result after the lock.
    fn evict(&mut self) -> Option<Evicted<K>> {
        let (_, first) = self.order.first_key_value()?;
        let removed = self.managers.remove_entry(first);
        let (_, key_in_order) = self.order.pop_first()?;
        if let Some((_, entry)) = &removed {
            self.evicted_metrics = self.evicted_metrics + entry.manager.metrics();
        }
        Some((removed, key_in_order))
    }

    fn keep_metrics(&mut self, manager: &TokenManager) {
        self.evicted_metrics = self.evicted_metrics + manager.metrics();
    }
}

// Not derived, because a derived one would want `K: Default`.
impl<K> Default for Entries<K> {
    fn default() -> Entries<K> {
        Entries { managers: HashMap::new(), order: BTreeMap::new(), calls: 0, evicted_metrics: Metrics::default() }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hash::Hasher;
    use std::time::Duration;

    use super::*;
    use crate::provider::{FromFn, Grant, from_fn};

    thread_local! {
        static HASHED: Cell<usize> = const { Cell::new(0) };
        static CLONED: Cell<usize> = const { Cell::new(0) };
    }

    /// A tenant that counts what the pool does with it.
    #[derive(Debug, PartialEq, Eq)]
    struct Counted(usize);

    impl Hash for Counted {
        fn hash<H: Hasher>(&self, state: &mut H) {
            HASHED.set(HASHED.get() + 1);
            self.0.hash(state);
        }
    }

    impl Clone for Counted {
        fn clone(&self) -> Counted {
            CLONED.set(CLONED.get() + 1);
            Counted(self.0)
        }
    }

    fn provider(tenant: usize) -> FromFn {
        from_fn("pool", |_| Ok(Grant::new("t-1", Duration::from_secs(7200))))
            .identity_part("tenant", tenant.to_string())
    }

    #[test]
    fn a_full_pool_evicts_the_least_recently_used_manager() {
        let pool = TokenPool::new().capacity(100);
        let call = |tenant: usize| {
            let mut is_new = false;
            let make = || {
                is_new = true;
                provider(tenant)
            };
            pool.manager(&tenant, make).expect("the settings are right");
            is_new
        };
        (0..100).for_each(|tenant| assert!(call(tenant)));
        // The even tenants are called again, so the odd ones leave first.
        (0..100).step_by(2).for_each(|tenant| assert!(!call(tenant)));
        (100..150).for_each(|tenant| assert!(call(tenant)));
        assert_eq!(pool.len(), 100);
        (0..100).step_by(2).for_each(|tenant| assert!(!call(tenant), "{tenant} stayed"));
        assert!(pool.remove(&0).is_some());
        assert!(call(1), "1 has left, and there is room for one tenant");
        assert!(!call(100), "nobody had to leave");
        let entries = lock(&pool.entries);
        assert_eq!((entries.managers.len(), entries.order.len()), (100, 100));
    }

    #[test]
    fn a_new_tenant_in_a_full_pool_hashes_no_tenant_but_itself_and_the_one_that_leaves() {
        let pool = TokenPool::new().capacity(1000);
        let call = |tenant: usize| {
            HASHED.set(0);
            CLONED.set(0);
            pool.manager(&Counted(tenant), || provider(tenant)).expect("the settings are right");
            (HASHED.get(), CLONED.get())
        };
        for tenant in 0..1000 {
            call(tenant);
        }
        // Two look-ups, one insertion and one removal; both copies are of the new tenant.
        assert_eq!(call(1000), (4, 2));
        assert_eq!(call(1000), (1, 0));
    }

    /// A tenant whose hash panics once.
    #[derive(Clone, PartialEq, Eq)]
    struct Fragile(usize);

    thread_local! {
        static BREAKS_AT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    impl Hash for Fragile {
        fn hash<H: Hasher>(&self, state: &mut H) {
            assert!(BREAKS_AT.get() != Some(self.0), "any cause");
            self.0.hash(state);
        }
    }

    #[test]
    fn a_hash_that_panics_leaves_a_pool_that_works() {
        let pool = TokenPool::new().capacity(2);
        let call = |tenant: usize| pool.manager(&Fragile(tenant), || provider(tenant)).is_ok();
        assert!(call(1) && call(2));
        BREAKS_AT.set(Some(1));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call(3))).is_err();
        assert!(panicked, "the eviction of tenant 1 hashes it");
        BREAKS_AT.set(None);
        (3..10).for_each(|tenant| assert!(call(tenant)));
        let entries = lock(&pool.entries);
        assert_eq!((entries.managers.len(), entries.order.len()), (2, 2));
    }
}
