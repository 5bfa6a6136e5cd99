//! Tokens of the fallback store are copied to the primary store when that is back, and newer ones win.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use evertoken::provider::Grant;
use evertoken::store::{Expected, Key, Store};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, ErrorKind, MemoryStore, TokenManager};

use crate::common::stores::*;
use crate::common::two_stores::TwoStores;
use crate::common::wait::*;

/// A lasting manager numbers the tokens of the primary store; a new process of the host, which cannot read that store,
/// starts to number in the fallback store. Its token is newer all the same.
#[test]
fn a_token_of_the_fallback_store_is_adopted_although_its_number_is_lower() {
    let host = TwoStores::of(FakeProvider::new().lifetime(2 * HOUR));
    let lasting = host.manager();
    text(&lasting);
    for _ in 0..3 {
        lasting.force_refresh().unwrap();
    }
    assert_eq!(text(&lasting), "token-4");
    host.set_primary_broken(true);
    host.clock.advance(HOUR);
    eventually("the token is copied to the fallback store", || {
        lasting.try_token();
        host.recorded(&host.fallback).contains("token-4") && !lasting.status().fetching
    });
    let during = host.manager();
    assert_eq!(text(&during), "token-4");
    assert_eq!(during.force_refresh().unwrap().expose(), "token-5");
    // The current token is expiring now, and the one in the fallback store is valid for an hour.
    host.clock.advance(HOUR - 30 * SECOND);
    let asked = Instant::now();
    let got = lasting.token_within(3 * SECOND).map(|token| token.expose().to_owned());
    let asked_second = host.fallback.operations.load(Ordering::SeqCst);
    assert_eq!(got.unwrap(), "token-5", "after {:?} and {asked_second} operations of the second", asked.elapsed());
}

/// Another host still has an older token that expires later. Only the numbers say which of the two was granted later.
#[test]
fn promise_7_a_copied_token_replaces_an_older_one_that_expires_later() {
    let provider = FakeProvider::new().then_grant("first", 5 * HOUR).then_grant("second", HOUR / 2);
    let host = TwoStores::of(provider.then_grant("third", HOUR));
    let (idle, lasting) = (host.manager_on_another_host(), host.manager());
    assert_eq!((text(&idle), text(&lasting)), ("first".to_owned(), "first".to_owned()));
    assert_eq!(lasting.force_refresh().unwrap().expose(), "second");
    host.clock.advance(HOUR);
    host.set_primary_broken(true);
    // This manager has never read the primary store, and starts to number anew.
    assert_eq!(text(&host.manager()), "third");
    host.set_primary_broken(false);
    assert_eq!(text(&lasting), "third");
    // The first use may still return the older one, and starts a check.
    eventually("the token is adopted", || text(&idle) == "third");
    assert_eq!((text(&host.manager()).as_str(), host.provider.calls()), ("third", 3));
}

#[test]
fn a_fallback_store_that_is_the_primary_store_keeps_its_records() {
    let (provider, clock) = (FakeProvider::new(), FakeClock::new());
    let store = FaultyStore::on_clock(&clock);
    let make = || builder(&provider, &clock).store(store.clone()).fallback_store(store.clone()).build().unwrap();
    let tokens = make();
    assert_eq!(text(&tokens), "token-1");
    for _ in 0..3 {
        let before = store.operations.load(Ordering::SeqCst);
        tokens.try_token();
        clock.advance(61 * SECOND);
        eventually("the manager checks the store", || {
            tokens.try_token();
            store.operations.load(Ordering::SeqCst) > before && !tokens.status().fetching
        });
    }
    assert_eq!((text(&make()).as_str(), provider.calls()), ("token-1", 1));
}

/// The primary store has no token then, only the rejection of another one.
#[test]
fn promise_7_a_record_without_a_token_does_not_replace_a_token_of_the_fallback_store() {
    let host = TwoStores::of(FakeProvider::new().lifetime(HOUR));
    // A record that rejects a token with a long lifetime.
    let (long, spare) = (FakeProvider::new().lifetime(5 * HOUR), FaultyStore::on_clock(&host.clock));
    let rejecting = builder(&long, &host.clock).store(spare.clone()).build().unwrap();
    let bad = rejecting.token().unwrap();
    rejecting.reject(&bad).unwrap();
    let rejection = spare.inner.read(rejecting.key()).unwrap().unwrap();

    let raced = HookedStore::over(&host.primary);
    let make = || {
        builder(&host.provider, &host.clock).store(raced.clone()).fallback_store(host.fallback.clone()).build().unwrap()
    };
    let lasting = make();
    text(&lasting);
    host.set_primary_broken(true);
    host.clock.advance(HOUR / 2);
    assert_eq!(make().force_refresh().unwrap().expose(), "token-2");
    host.set_primary_broken(false);
    let (first, pending) = (host.primary.inner.clone(), Arc::new(Mutex::new(Some(rejection))));
    let written = pending.clone();
    raced.before_write(move |key, new| {
        if new.is_some()
            && !key.as_str().ends_with(":lock")
            && let Some(entry) = pending.lock().unwrap().take()
        {
            first.compare_and_swap(key, Expected::Any, Some((entry.bytes(), entry.remaining()))).unwrap();
        }
        Ok(())
    });
    let name = format!("token-{}", host.provider.calls());
    for _ in 0..4 {
        let before = host.primary.operations.load(Ordering::SeqCst);
        lasting.try_token();
        host.clock.advance(61 * SECOND);
        eventually("the manager checks the store", || {
            lasting.try_token();
            host.primary.operations.load(Ordering::SeqCst) > before && !lasting.status().fetching
        });
    }
    assert!(written.lock().unwrap().is_none(), "the rejection was written in between");
    let kept = host.recorded(&host.primary).contains(&name) || host.recorded(&host.fallback).contains(&name);
    assert!(kept, "first: {}\nsecond: {}", host.recorded(&host.primary), host.recorded(&host.fallback));
}

/// A program that ends at once: the primary store breaks during the fetch, and the fallback store works.
#[test]
fn promise_7_a_token_that_the_primary_store_refuses_is_in_the_fallback_store_before_the_call_returns() {
    let broken: Arc<Mutex<Option<Arc<AtomicBool>>>> = Arc::default();
    let breaks = broken.clone();
    let host = TwoStores::of(FakeProvider::new().then(move |_| {
        breaks.lock().unwrap().as_ref().unwrap().store(true, Ordering::SeqCst);
        Ok(Grant::new("token-1", 2 * HOUR))
    }));
    *broken.lock().unwrap() = Some(host.primary.broken.clone());
    assert_eq!(text(&host.manager()), "token-1");
    assert_eq!((text(&host.manager()).as_str(), host.provider.calls()), ("token-1", 1));
}

/// A store that is known to lack the token gets it without a further call.
#[test]
fn promise_7_an_unused_token_is_written_to_the_primary_store_when_that_is_back() {
    for fetched_before in [false, true] {
        let host = TwoStores::new();
        host.set_primary_broken(true);
        if fetched_before {
            // Fetched by another process of the host, so that this one adopts the token.
            text(&host.manager());
        }
        let tokens = host.manager();
        assert_eq!(text(&tokens), "token-1");
        host.set_primary_broken(false);
        host.clock.advance(61 * SECOND);
        eventually("the token is written", || host.recorded(&host.primary).contains("token-1"));
    }
}

/// The connection of one process to `store`, on which `act` runs once, before the read or write of this number, counted
/// from 1. The flag says whether it has run.
fn running_before(
    number: usize,
    store: &FaultyStore,
    act: impl FnOnce() + Send + 'static,
) -> (HookedStore<FaultyStore>, Arc<AtomicBool>) {
    let (store, act, operations) = (HookedStore::over(store), Mutex::new(Some(act)), AtomicUsize::new(0));
    let has_run = Arc::new(AtomicBool::new(false));
    let runs = has_run.clone();
    store.set_hook(move |_, step| {
        let begins = matches!(step, Step::BeforeRead | Step::BeforeWrite(_));
        if begins && operations.fetch_add(1, Ordering::SeqCst) + 1 == number {
            act.lock().unwrap().take().unwrap()();
            runs.store(true, Ordering::SeqCst);
        }
        Ok(())
    });
    (store, has_run)
}

/// Another host records a new token after the primary store was read and had no usable one.
#[test]
fn promise_7_a_newer_token_fetched_by_another_host_is_not_replaced_from_the_fallback_store() {
    let mut lost = Vec::new();
    let mut raced_at_all = 0;
    for operation in 1..=4 {
        let host = TwoStores::of(FakeProvider::new());
        // The primary store has a record, without a usable token.
        let other = host.manager_on_another_host();
        other.reject(&other.token().unwrap()).unwrap();
        host.set_primary_broken(true);
        assert_eq!(text(&host.manager()), "token-2");
        host.set_primary_broken(false);
        host.clock.advance(60 * SECOND);
        let (raced, has_run) = running_before(operation, &host.primary, move || assert_eq!(text(&other), "token-3"));
        let next = builder(&host.provider, &host.clock).store(raced);
        let next = next.fallback_store(host.fallback.clone()).build().unwrap();
        let got = next.token_within(5 * SECOND).map(|token| token.expose().to_owned());
        raced_at_all += usize::from(has_run.load(Ordering::SeqCst));
        let recorded = host.recorded(&host.primary);
        if has_run.load(Ordering::SeqCst) && !recorded.contains("token-3") {
            lost.push(format!("operation {operation}: got {got:?}, recorded {recorded}"));
        }
    }
    assert!(raced_at_all >= 3, "{raced_at_all}");
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

/// As above during the lease: another host writes a token that it had fetched without the store.
#[test]
fn promise_7_a_newer_token_written_by_another_host_is_not_replaced_from_the_fallback_store() {
    let host = TwoStores::of(FakeProvider::new());
    host.set_primary_broken(true);
    assert_eq!(text(&host.manager()), "token-1");
    host.set_primary_broken(false);
    host.clock.advance(60 * SECOND);
    // The bytes of a newer record.
    let spare = MemoryStore::with_clock(host.clock.clone());
    let newer = builder(&host.provider, &host.clock).store(spare.clone()).build().unwrap();
    assert_eq!(text(&newer), "token-2");
    let entry = spare.read(newer.key()).unwrap().unwrap();
    // Before the last read of the primary store, whose result counts.
    let (first, key) = (host.primary.inner.clone(), newer.key().clone());
    let (raced, has_run) = running_before(4, &host.primary, move || {
        first.compare_and_swap(&key, Expected::Absent, Some((entry.bytes(), entry.remaining()))).unwrap();
    });
    let next = builder(&host.provider, &host.clock).store(raced);
    let next = next.fallback_store(host.fallback.clone()).build().unwrap();
    let got = text(&next);
    assert!(has_run.load(Ordering::SeqCst), "the other process came in between");
    let recorded = host.recorded(&host.primary);
    assert!(recorded.contains("token-2"), "got {got}, recorded {recorded}");
}

/// Another process copies the token to the primary store, which was empty and leased, and removes it from the fallback
/// store.
#[test]
fn a_token_that_another_process_copies_meanwhile_is_not_fetched_again_and_leaves_no_lease() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    assert_eq!(text(&host.manager()), "token-1");
    host.set_primary_broken(false);
    let (first, second) = (host.primary.inner.clone(), host.fallback.inner.clone());
    let (raced, has_run) = running_before(1, &host.fallback, move || {
        let entry = second.read(&key()).unwrap().unwrap();
        first.compare_and_swap(&key(), Expected::Absent, Some((entry.bytes(), entry.remaining()))).unwrap();
        second.compare_and_swap(&key(), Expected::Version(entry.version()), None).unwrap();
    });
    let next = builder(&host.provider, &host.clock).store(host.primary.clone()).fallback_store(raced);
    let next = next.build().unwrap();
    assert_eq!((text(&next).as_str(), host.provider.calls()), ("token-1", 1));
    assert!(has_run.load(Ordering::SeqCst), "the other process came in between");
    assert_eq!(host.primary.inner.len(), 1, "no lease is left");
}

/// The primary store can be read and leased, but accepts no record.
#[test]
fn a_token_that_could_not_be_copied_leaves_no_lease() {
    let host = TwoStores::of(FakeProvider::new());
    host.set_primary_broken(true);
    assert_eq!(text(&host.manager()), "token-1");
    host.set_primary_broken(false);
    *host.primary.unwritable.lock().unwrap() = Some("}");
    let next = host.manager();
    assert_eq!(text(&next), "token-1");
    let lease_is_free = host.primary.inner.is_empty();
    assert!(lease_is_free, "no lease is left");
}

fn fails() -> Error {
    Error::new(ErrorKind::Unavailable, "the provider is down")
}

/// A program that forces a refresh and ends, with the provider down.
#[test]
fn promise_7_a_manager_with_the_token_of_the_fallback_store_does_not_remove_it_there() {
    let provider = FakeProvider::new().then(|_| Ok(Grant::new("token-1", 2 * HOUR))).then(|_| Err(fails()));
    let host = TwoStores::of(provider);
    host.set_primary_broken(true);
    let brief = host.manager();
    assert_eq!(text(&brief), "token-1");
    host.set_primary_broken(false);
    // The cooldown of the primary store has passed.
    host.clock.advance(120 * SECOND);
    assert!(brief.force_refresh().is_err());
    let (first, second) = (host.recorded(&host.primary), host.recorded(&host.fallback));
    assert!(first.contains("token-1") || second.contains("token-1"), "first: {first}\nsecond: {second}");
}

/// With the provider down, a token with half a minute left is returned.
#[test]
fn an_expiring_token_of_the_fallback_store_is_used_when_the_provider_fails() {
    let serve = |with_second: bool| {
        let fetched = FakeProvider::new().then(|_| Ok(Grant::new("token-1", 2 * HOUR)));
        let host = TwoStores::of((0..9).fold(fetched, |provider, _| provider.then(|_| Err(fails()))));
        let make = || if with_second { host.manager() } else { host.manager_on_another_host() };
        host.set_primary_broken(true);
        assert_eq!(text(&make()), "token-1");
        host.set_primary_broken(false);
        host.clock.advance(2 * HOUR - 30 * SECOND);
        // The first manager calls the provider without success, and records the failure.
        drop(make().token());
        make().token().map(|token| token.expose().to_owned())
    };
    assert_eq!(serve(false).ok().as_deref(), Some("token-1"), "with one store that works");
    let got = serve(true);
    assert_eq!(got.as_deref().ok(), Some("token-1"), "with a second one: {got:?}");
}

/// The key of the record that all managers of a `FakeProvider` share.
fn key() -> Key {
    TokenManager::builder(FakeProvider::new()).build().unwrap().key().clone()
}
