//! Stores and managers on a real Redis, and helpers that read from it.

use std::thread;
use std::time::{Duration, Instant};

use evertoken::provider::Identity;
use evertoken::store::{Key, LeaseOutcome, LeaseOwner, Store};
use evertoken::testing::FakeProvider;
use evertoken::{Error, RedisStore, TokenManager, TokenManagerBuilder};

use crate::common::redis_server::RedisServer;
use crate::common::stores::*;
use crate::common::wait::*;

pub(crate) fn store(server: &RedisServer) -> RedisStore {
    RedisStore::open(&server.url()).unwrap()
}

/// A manager with a store of its own, as each process has.
pub(crate) fn sharing(provider: &FakeProvider, url: &str) -> TokenManagerBuilder {
    on(&RedisStore::open(url).unwrap(), provider)
}

pub(crate) fn manager(provider: &FakeProvider, url: &str) -> TokenManager {
    sharing(provider, url).build().unwrap()
}

/// A provider with a credential and a record of its own.
pub(crate) fn provider(name: impl ToString) -> FakeProvider {
    FakeProvider::new().with_identity(Identity::new("test").part("name", name.to_string()))
}

/// A key that no manager uses.
pub(crate) fn key(name: &str) -> Key {
    TokenManager::new(provider(name)).key().clone()
}

pub(crate) fn clients(server: &RedisServer) -> usize {
    server.ask::<String>(&["CLIENT", "LIST"]).unwrap().lines().count()
}

pub(crate) fn on(store: &RedisStore, provider: &FakeProvider) -> TokenManagerBuilder {
    TokenManager::builder(provider.clone()).jitter(0.0).store(store.clone())
}

pub(crate) fn recorded_in(server: &RedisServer, key: &Key) -> Option<String> {
    Some(token_in(&server.ask::<Option<Vec<u8>>>(&["GET", key.as_str()]).unwrap()?))
}

/// Waits until a manager watches.
pub(crate) fn until_watched(server: &RedisServer) {
    eventually("the manager watches", || server.ask::<String>(&["CLIENT", "LIST"]).unwrap().contains("cmd=xread"));
}

/// Repeats a call, as a service that uses its token does.
pub(crate) fn use_for(time: Duration, mut use_it: impl FnMut()) {
    let over = Instant::now() + time;
    while Instant::now() < over {
        use_it();
        thread::sleep(Duration::from_millis(5));
    }
}

/// The bytes of the record of the manager's credential.
pub(crate) fn record(server: &RedisServer, tokens: &TokenManager) -> Option<Vec<u8>> {
    server.ask(&["GET", tokens.key().as_str()]).unwrap()
}

pub(crate) fn recorded_token(server: &RedisServer, tokens: &TokenManager) -> Option<String> {
    let record: serde_json::Value = serde_json::from_slice(&record(server, tokens)?).ok()?;
    Some(record["access_token"].as_str()?.to_owned())
}

pub(crate) fn try_lease(store: &RedisStore, key: &Key, owner: &str) -> Result<LeaseOutcome, Error> {
    store.read_or_lease(key, None, SECOND, &LeaseOwner::new(owner), HOUR)
}

pub(crate) fn lease(store: &RedisStore, key: &Key, owner: &str, life: Duration) -> LeaseOutcome {
    store.read_or_lease(key, None, SECOND, &LeaseOwner::new(owner), life).unwrap()
}

/// Long enough for a limit of 600 ms on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(3);
