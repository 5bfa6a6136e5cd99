//! A primary and a fallback store that break when a test asks for it, and the managers of a host that share them.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use evertoken::TokenManager;
use evertoken::store::{Entry, Store};
use evertoken::testing::{FakeClock, FakeProvider};

use super::stores::FaultyStore;
use super::wait::{SECOND, builder, eventually};

/// The stores of the processes of one host: each process has a connection of its own to the primary store, and all
/// share the fallback store.
pub(crate) struct TwoStores {
    pub(crate) provider: FakeProvider,
    pub(crate) clock: FakeClock,
    pub(crate) primary: FaultyStore,
    pub(crate) fallback: FaultyStore,
}

impl TwoStores {
    pub(crate) fn new() -> TwoStores {
        TwoStores::of(FakeProvider::new())
    }

    pub(crate) fn of(provider: FakeProvider) -> TwoStores {
        let clock = FakeClock::new();
        let [primary, fallback] = [&clock; 2].map(FaultyStore::on_clock);
        TwoStores { provider, clock, primary, fallback }
    }

    pub(crate) fn manager(&self) -> TokenManager {
        let builder = builder(&self.provider, &self.clock).store(self.primary.clone());
        builder.fallback_store(self.fallback.clone()).build().unwrap()
    }

    /// A manager on another host, whose connection to the primary store works always.
    pub(crate) fn manager_on_another_host(&self) -> TokenManager {
        builder(&self.provider, &self.clock).store(self.primary.inner.clone()).build().unwrap()
    }

    pub(crate) fn set_primary_broken(&self, broken: bool) {
        self.primary.broken.store(broken, Ordering::SeqCst);
    }

    pub(crate) fn record(&self, store: &FaultyStore) -> Option<Entry> {
        store.inner.read(self.manager_on_another_host().key()).unwrap()
    }

    pub(crate) fn recorded(&self, store: &FaultyStore) -> String {
        let text = |entry: Entry| String::from_utf8(entry.bytes().to_vec()).unwrap();
        self.record(store).map(text).unwrap_or_default()
    }

    /// Uses the token for four minutes, in which the manager checks the stores.
    pub(crate) fn use_for_four_minutes(&self, tokens: &TokenManager) {
        for _ in 0..4 {
            let looked = self.primary.operations.load(Ordering::SeqCst);
            tokens.try_token();
            self.clock.advance(61 * SECOND);
            eventually("the manager checks the store", || {
                tokens.try_token();
                // Work that is due in a moment waits for the fake clock to advance.
                thread::sleep(Duration::from_millis(1));
                self.clock.advance(Duration::from_millis(10));
                self.primary.operations.load(Ordering::SeqCst) > looked && !tokens.status().fetching
            });
        }
    }
}
