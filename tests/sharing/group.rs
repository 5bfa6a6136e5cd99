//! Managers that share a provider, a clock and a store in memory that a test can break.

use evertoken::TokenManager;
use evertoken::store::{Entry, Store};
use evertoken::testing::{FakeClock, FakeProvider};

use crate::common::stores::FaultyStore;
use crate::common::wait::*;

/// Managers of one credential on one store and one clock.
pub(crate) struct Group {
    pub(crate) provider: FakeProvider,
    pub(crate) clock: FakeClock,
    pub(crate) store: FaultyStore,
}

impl Group {
    pub(crate) fn new() -> Group {
        Group::of(FakeProvider::new())
    }

    pub(crate) fn of(provider: FakeProvider) -> Group {
        let clock = FakeClock::new();
        let store = FaultyStore::on_clock(&clock);
        Group { provider, clock, store }
    }

    pub(crate) fn manager(&self) -> TokenManager {
        builder(&self.provider, &self.clock).store(self.store.clone()).build().unwrap()
    }

    /// The record of the credential.
    pub(crate) fn record(&self) -> Option<Entry> {
        self.store.inner.read(self.manager().key()).unwrap()
    }
}
