//! A pool: one manager for each of many credentials.

use std::thread;

use evertoken::provider::Identity;
use evertoken::testing::FakeProvider;
use evertoken::{ErrorKind, TokenPool, WeCom};

use crate::common::wait::*;

fn tenant(name: &'static str) -> impl FnOnce() -> FakeProvider {
    move || FakeProvider::new().with_identity(Identity::new("fake").part("tenant", name))
}

#[test]
fn each_tenant_has_one_manager() {
    let pool = TokenPool::new();
    let one = pool.manager(&"a", tenant("a")).unwrap();
    let again = pool.manager(&"a", || -> FakeProvider { panic!("there is one already") }).unwrap();
    let other = pool.manager(&"b", tenant("b")).unwrap();
    assert_eq!(one.key(), again.key());
    assert_ne!(one.key(), other.key());
    assert_eq!(pool.len(), 2);
}

#[test]
fn the_least_recently_used_manager_is_dropped_and_its_handles_and_metrics_stay() {
    let pool = TokenPool::new().capacity(2);
    let first = pool.manager(&"a", tenant("a")).unwrap();
    text(&first);
    pool.manager(&"b", tenant("b")).unwrap();
    pool.manager(&"a", tenant("a")).unwrap();
    pool.manager(&"c", tenant("c")).unwrap();
    assert_eq!(pool.len(), 2);
    let mut made = false;
    pool.manager(&"b", || {
        made = true;
        FakeProvider::new()
    })
    .unwrap();
    assert!(made, "b was the one that went");
    assert_eq!((text(&first), pool.metrics().fetches_ok), ("token-1".to_owned(), 1));
}

#[test]
fn a_pool_does_not_keep_a_provider_with_wrong_settings() {
    let pool = TokenPool::new();
    assert_eq!(pool.manager(&1, || WeCom::new("", "")).unwrap_err().kind(), ErrorKind::Config);
    assert!(pool.is_empty());
}

#[test]
fn threads_that_ask_for_one_tenant_at_once_get_one_manager() {
    let pool = TokenPool::new();
    let provider = FakeProvider::new();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| text(&pool.manager(&1, || provider.clone()).unwrap()));
        }
    });
    assert_eq!((pool.len(), provider.calls()), (1, 1));
}
