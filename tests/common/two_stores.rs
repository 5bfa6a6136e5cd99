//! Two stores that break when a test says so, and the processes of a host that share them.
//!
//! Tests include it as `host`, beside `fragile` and `wait`.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use evertoken::TokenManager;
use evertoken::store::{Entry, Store};
use evertoken::testing::{FakeClock, FakeProvider};

use super::stores::FaultyStore;
use super::wait::{SECOND, builder, eventually};

/// The processes of one host: each has its own way to the first store, and all have the same second one.
pub(crate) struct Host {
    pub(crate) provider: FakeProvider,
    pub(crate) clock: FakeClock,
    pub(crate) first: FaultyStore,
    pub(crate) second: FaultyStore,
}

impl Host {
    pub(crate) fn new() -> Host {
        Host::of(FakeProvider::new())
    }

    pub(crate) fn of(provider: FakeProvider) -> Host {
        let clock = FakeClock::new();
        let [first, second] = [&clock; 2].map(FaultyStore::on_clock);
        Host { provider, clock, first, second }
    }

    pub(crate) fn manager(&self) -> TokenManager {
        let builder = builder(&self.provider, &self.clock).store(self.first.clone());
        builder.fallback_store(self.second.clone()).build().unwrap()
    }

    /// A manager on another host, which has a way of its own to the first store.
    pub(crate) fn elsewhere(&self) -> TokenManager {
        builder(&self.provider, &self.clock).store(self.first.inner.clone()).build().unwrap()
    }

    pub(crate) fn break_first(&self, broken: bool) {
        self.first.broken.store(broken, Ordering::SeqCst);
    }

    pub(crate) fn record(&self, store: &FaultyStore) -> Option<Entry> {
        store.inner.read(self.elsewhere().key()).unwrap()
    }

    pub(crate) fn recorded(&self, store: &FaultyStore) -> String {
        let text = |entry: Entry| String::from_utf8(entry.bytes().to_vec()).unwrap();
        self.record(store).map(text).unwrap_or_default()
    }

    /// Four minutes pass in which the token is used and the stores are looked at.
    pub(crate) fn live(&self, tokens: &TokenManager) {
        for _ in 0..4 {
            let looked = self.first.operations.load(Ordering::SeqCst);
            tokens.try_token();
            self.clock.advance(61 * SECOND);
            eventually("it looks", || {
                tokens.try_token();
                // What is to be done in a moment waits for the clock to go on.
                thread::sleep(Duration::from_millis(1));
                self.clock.advance(Duration::from_millis(10));
                self.first.operations.load(Ordering::SeqCst) > looked && !tokens.status().fetching
            });
        }
    }
}
