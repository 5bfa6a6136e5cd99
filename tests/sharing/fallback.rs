//! A fallback store serves the processes of a host while the primary store is down, and its tokens are copied back.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use evertoken::provider::{Grant, Identity, RenewalProfile};
use evertoken::store::{Expected, Store};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, ErrorKind, EventKind, MemoryStore, TokenManager};

use crate::common::renewal::{RotatingServer, rotating_provider};
use crate::common::stores::*;
use crate::common::two_stores::TwoStores;
use crate::common::wait::*;

#[test]
fn while_the_primary_store_is_down_the_processes_of_a_host_fetch_once() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    let managers: Vec<_> = (0..4).map(|_| host.manager()).collect();
    thread::scope(|scope| {
        let asking: Vec<_> = managers.iter().map(|tokens| scope.spawn(|| text(tokens))).collect();
        assert!(asking.into_iter().all(|asking| asking.join().unwrap() == "token-1"));
    });
    assert_eq!((text(&host.manager()).as_str(), host.provider.calls()), ("token-1", 1));
}

#[test]
fn while_the_primary_store_works_the_fallback_store_is_not_written() {
    let host = TwoStores::new();
    let tokens = host.manager();
    text(&tokens);
    host.use_for_four_minutes(&tokens);
    assert!(host.record(&host.fallback).is_none() && host.record(&host.primary).is_some());
}

#[test]
fn one_failed_fetch_answers_all_processes_of_a_host() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    host.provider.always_fail(Some(Error::new(ErrorKind::InvalidCredentials, "the secret is wrong")));
    for _ in 0..5 {
        assert_eq!(host.manager().token().unwrap_err().kind(), ErrorKind::InvalidCredentials);
    }
    assert_eq!(host.provider.calls(), 1);
}

#[test]
fn the_current_token_is_copied_to_the_fallback_store_for_new_processes() {
    let host = TwoStores::new();
    let tokens = host.manager();
    assert_eq!(text(&tokens), "token-1");
    host.set_primary_broken(true);
    host.use_for_four_minutes(&tokens);
    assert_eq!((text(&host.manager()).as_str(), host.provider.calls()), ("token-1", 1));
}

#[test]
fn promise_7_a_token_fetched_during_an_outage_is_written_to_the_primary_store_when_that_is_back() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    let tokens = host.manager();
    assert_eq!(text(&tokens), "token-1");
    host.set_primary_broken(false);
    host.use_for_four_minutes(&tokens);
    assert_eq!((text(&host.manager_on_another_host()).as_str(), host.provider.calls()), ("token-1", 1));
    assert!(host.record(&host.fallback).is_none(), "what has been handed over is over there");
}

#[test]
fn promise_7_a_token_of_an_ended_process_is_copied_from_the_fallback_store() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    assert_eq!(text(&host.manager()), "token-1");
    host.set_primary_broken(false);
    let next = host.manager();
    assert_eq!((text(&next).as_str(), host.provider.calls()), ("token-1", 1));
    assert_eq!((text(&host.manager_on_another_host()).as_str(), host.provider.calls()), ("token-1", 1));
    assert_eq!(next.token().unwrap().remaining(), host.manager_on_another_host().token().unwrap().remaining());
}

#[test]
fn promise_7_a_newer_token_of_the_fallback_store_replaces_an_older_one_of_the_primary_store() {
    let host = TwoStores::of(FakeProvider::new().lifetime(HOUR));
    let lasting = host.manager();
    assert_eq!(text(&lasting), "token-1");
    host.set_primary_broken(true);
    host.clock.advance(HOUR / 2);
    host.manager().force_refresh().unwrap();
    assert!(host.recorded(&host.fallback).contains("token-2"));
    host.set_primary_broken(false);
    host.use_for_four_minutes(&lasting);
    eventually("the newer token is adopted", || text(&lasting) == "token-2");
    assert!(host.recorded(&host.primary).contains("token-2"));
    assert_eq!(host.provider.calls(), 2);
}

#[test]
fn promise_7_an_older_token_of_the_fallback_store_does_not_replace_a_newer_one_of_the_primary_store() {
    let host = TwoStores::of(FakeProvider::new().lifetime(HOUR));
    host.set_primary_broken(true);
    let lasting = host.manager();
    assert_eq!(text(&lasting), "token-1");
    host.use_for_four_minutes(&lasting);
    host.manager_on_another_host().force_refresh().unwrap();
    host.set_primary_broken(false);
    host.use_for_four_minutes(&lasting);
    eventually("the newer token is adopted", || text(&lasting) == "token-2");
    assert!(host.recorded(&host.primary).contains("token-2"));
    host.use_for_four_minutes(&lasting);
    assert!(host.record(&host.fallback).is_none());
}

#[test]
fn promise_4_a_rejected_token_does_not_come_back_from_a_fallback_store_without_the_rejection() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    let bad = host.manager().token().unwrap();
    host.set_primary_broken(false);
    // The token reached another host.
    let other = host.manager_on_another_host();
    let (key, record) = (other.key().clone(), host.record(&host.fallback).unwrap());
    host.primary.inner.compare_and_swap(&key, Expected::Absent, Some((record.bytes(), record.remaining()))).unwrap();
    assert_eq!(text(&other), bad.expose());
    other.reject(&bad).unwrap();
    assert_eq!(text(&host.manager()), "token-2");
}

#[test]
fn promise_4_a_rejection_during_an_outage_takes_effect_in_all_processes_of_the_host() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    let (one, other) = (host.manager(), host.manager());
    let bad = one.token().unwrap();
    assert_eq!(text(&other), bad.expose());
    assert!(one.reject(&bad).is_err(), "other hosts could not be told");
    host.use_for_four_minutes(&other);
    assert_eq!((text(&other), text(&one)), ("token-2".to_owned(), "token-2".to_owned()));
    assert_eq!(host.provider.calls(), 2);
}

#[test]
fn promise_6_callers_get_tokens_while_both_stores_are_down() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    host.fallback.broken.store(true, Ordering::SeqCst);
    let tokens = host.manager();
    let events = tokens.events();
    assert_eq!(text(&tokens), "token-1");
    tokens.force_refresh().unwrap();
    let told = events.try_iter().filter(|event| matches!(event.kind, EventKind::StoreDown { .. })).count();
    assert_eq!(told, 1);
}

#[test]
fn promise_6_a_fallback_store_that_panics_or_hangs_is_down() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    host.fallback.panics.store(true, Ordering::SeqCst);
    assert_eq!(text(&host.manager()), "token-1");
    host.fallback.panics.store(false, Ordering::SeqCst);
    let hanging = host.fallback.gate.clone();
    let _hanging = hanging.lock().unwrap();
    assert_eq!(text(&host.manager()), "token-2");
}

#[test]
fn an_outage_is_reported_once_although_the_fallback_store_works() {
    let host = TwoStores::new();
    let tokens = host.manager();
    text(&tokens);
    let events = tokens.events();
    host.set_primary_broken(true);
    for _ in 0..5 {
        tokens.force_refresh().unwrap();
    }
    host.use_for_four_minutes(&tokens);
    host.set_primary_broken(false);
    host.use_for_four_minutes(&tokens);
    let told: Vec<_> = events.try_iter().map(|event| event.kind).collect();
    let count = |pick: fn(&EventKind) -> bool| told.iter().filter(|kind| pick(kind)).count();
    assert_eq!(count(|kind| matches!(kind, EventKind::StoreDown { .. })), 1);
    assert_eq!(count(|kind| matches!(kind, EventKind::StoreUp)), 1);
}

#[test]
fn without_the_primary_store_no_refresh_token_is_used() {
    let server = RotatingServer::default();
    let host = TwoStores::of(rotating_provider(&server));
    assert_eq!(text(&host.manager()), "token-1");
    host.set_primary_broken(true);
    let error = host.manager().token().unwrap_err();
    assert_eq!((error.kind(), server.presented().len()), (ErrorKind::Store, 1));
    host.set_primary_broken(false);
    host.clock.advance(3 * HOUR);
    assert_eq!((text(&host.manager()), server.used_twice()), ("token-2".to_owned(), false));
}

/// The primary store breaks after the refresh token was used, so it lacks the next one; only the fallback store records
/// the use.
#[test]
fn a_refresh_token_that_only_the_fallback_store_records_as_used_is_not_used() {
    let server = RotatingServer::default();
    let host = TwoStores::of(rotating_provider(&server).gated());
    let holder = host.manager();
    thread::scope(|scope| {
        let asking = scope.spawn(|| text(&holder));
        assert!(host.provider.wait_for_calls(1, PATIENCE));
        host.set_primary_broken(true);
        host.provider.open();
        assert_eq!(asking.join().unwrap(), "token-1");
    });
    *host.primary.unwritable.lock().unwrap() = Some(":state");
    host.set_primary_broken(false);
    // The lease of the fetch has expired.
    host.clock.advance(60 * SECOND);
    let next = host.manager();
    assert_eq!(text(&next), "token-1");
    assert_eq!(next.force_refresh().unwrap_err().kind(), ErrorKind::Store);
    assert_eq!(server.presented(), ["refresh-0"]);
    *host.primary.unwritable.lock().unwrap() = None;
    host.use_for_four_minutes(&holder);
    host.clock.advance(3 * HOUR);
    assert_eq!((text(&next).as_str(), server.used_twice()), ("token-2", false));
}

#[test]
fn the_current_token_of_a_refresh_token_is_copied_for_the_processes_of_the_host() {
    let server = RotatingServer::default();
    let host = TwoStores::of(rotating_provider(&server));
    let tokens = host.manager();
    assert_eq!(text(&tokens), "token-1");
    host.set_primary_broken(true);
    host.use_for_four_minutes(&tokens);
    assert_eq!((text(&host.manager()).as_str(), server.presented().len()), ("token-1", 1));
}

#[test]
fn a_fallback_store_needs_a_store_to_fall_back_from() {
    let error = TokenManager::builder(FakeProvider::new()).fallback_store(MemoryStore::new()).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[cfg(feature = "encryption")]
#[test]
fn a_custom_key_is_refused_with_an_encrypted_fallback_store() {
    use evertoken::{EncryptedStore, EncryptionKey};
    let key = EncryptionKey::new(std::array::from_fn(|at| at as u8)).unwrap();
    let builder = TokenManager::builder(FakeProvider::new()).store(MemoryStore::new()).key("mine");
    let error = builder.fallback_store(EncryptedStore::new(MemoryStore::new(), key)).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

/// The recorded failure is the missing ticket, which is set now.
#[test]
fn a_ticket_set_during_an_outage_ends_the_failure_in_the_fallback_store() {
    let keeps = RenewalProfile::ticket(Identity::new("suite"), HOUR / 2);
    let provider = (0..5).fold(FakeProvider::new().with_renewal(keeps), |provider, _| {
        provider.then(|context| match context.renewal_secret() {
            Some(ticket) => Ok(Grant::new(format!("{}-token", ticket.expose()), 2 * HOUR)),
            None => Err(Error::new(ErrorKind::TicketRequired, "there is no ticket")),
        })
    });
    let host = TwoStores::of(provider);
    host.set_primary_broken(true);
    let tokens = host.manager();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TicketRequired);
    let _ = tokens.set_ticket("ticket");
    assert_eq!(text(&tokens), "ticket-token");
}

/// Two hosts without their Redis, and a provider whose tokens invalidate each other.
#[test]
fn hosts_without_their_store_do_not_invalidate_each_others_tokens_endlessly() {
    use evertoken::provider::Profile;
    let provider = FakeProvider::new().with_profile(Profile::default().new_token_ends_old(true));
    let clock = FakeClock::new();
    let first = FaultyStore::on_clock(&clock);
    first.broken.store(true, Ordering::SeqCst);
    let hosts: Vec<_> = (0..2)
        .map(|_| {
            let files = MemoryStore::with_clock(clock.clone());
            builder(&provider, &clock).store(first.clone()).fallback_store(files).build().unwrap()
        })
        .collect();
    for round in 0..40 {
        let host = &hosts[round % 2];
        // The service accepts the latest token only.
        if let Ok(token) = host.token()
            && token.expose() != format!("token-{}", provider.calls())
        {
            let _ = host.reject(&token);
            drop(host.token());
        }
        clock.advance(2 * SECOND);
    }
    assert!((2..=4).contains(&provider.calls()), "{} fetches in 80 s", provider.calls());
}

/// The periodic check of each manager, each minute, with a working primary store.
#[test]
fn a_fallback_store_adds_no_operations_on_a_working_primary_store() {
    let looks = |with: bool| {
        let host = TwoStores::new();
        let builder = builder(&host.provider, &host.clock).store(host.primary.clone());
        let tokens = if with { builder.fallback_store(host.fallback.clone()) } else { builder }.build().unwrap();
        text(&tokens);
        let before = host.primary.operations.load(Ordering::SeqCst);
        tokens.try_token();
        host.clock.advance(61 * SECOND);
        eventually("the manager checks the store", || {
            tokens.try_token();
            host.primary.operations.load(Ordering::SeqCst) > before && !tokens.status().fetching
        });
        host.primary.operations.load(Ordering::SeqCst) - before
    };
    assert_eq!(looks(true), looks(false));
}

#[test]
fn a_store_that_is_primary_and_fallback_is_reported_as_up_again() {
    let host = TwoStores::new();
    let tokens = builder(&host.provider, &host.clock).store(host.primary.clone());
    let tokens = tokens.fallback_store(host.primary.clone()).build().unwrap();
    let events = tokens.events();
    text(&tokens);
    host.set_primary_broken(true);
    host.use_for_four_minutes(&tokens);
    host.set_primary_broken(false);
    host.use_for_four_minutes(&tokens);
    let of_store = |kind: &EventKind| matches!(kind, EventKind::StoreDown { .. } | EventKind::StoreUp);
    let told: Vec<_> = events.try_iter().map(|event| event.kind).filter(of_store).collect();
    assert!(matches!(told[..], [EventKind::StoreDown { .. }, EventKind::StoreUp]), "{told:#?}");
}

/// The token of the fallback store cannot be copied, and each check finds it there.
#[test]
fn a_read_only_primary_store_is_reported_once() {
    let host = TwoStores::new();
    let (brief, next) = (host.manager(), host.manager_on_another_host());
    let bad = brief.token().unwrap();
    assert_eq!(text(&next), bad.expose());
    host.set_primary_broken(true);
    assert!(brief.reject(&bad).is_err());
    assert_eq!(next.force_refresh().unwrap().expose(), "token-2");
    host.set_primary_broken(false);
    *host.primary.unwritable.lock().unwrap() = Some("");
    let lasting = host.manager();
    let events = lasting.events();
    assert_eq!(text(&lasting), "token-2");
    host.use_for_four_minutes(&lasting);
    let is_of_the_store = |kind: &EventKind| matches!(kind, EventKind::StoreDown { .. } | EventKind::StoreUp);
    let told: Vec<_> = events.try_iter().map(|event| event.kind).filter(is_of_the_store).collect();
    assert!(matches!(told[..], [EventKind::StoreDown { .. }]), "{told:?}");
    assert!(host.recorded(&host.fallback).contains(bad.fingerprint()));
}

/// The read of the fallback store under the lease must not use up the time of the fetch.
#[test]
fn a_slow_fallback_store_does_not_shorten_the_time_of_a_fetch() {
    let left = Arc::new(Mutex::new(Duration::ZERO));
    let told = left.clone();
    let provider = FakeProvider::new().then(move |context| {
        *told.lock().unwrap() = context.remaining();
        Ok(Grant::new("token-1", 2 * HOUR))
    });
    let second = MemoryStore::new();
    let make = |store: MemoryStore| {
        TokenManager::builder(provider.clone()).store(store).http(evertoken::HttpConfig::default().timeout(SECOND))
    };
    // The fallback store has a record without a usable token.
    make(second.clone()).build().unwrap().invalidate().unwrap();
    second.compare_and_swap(make(second.clone()).build().unwrap().key(), Expected::Any, Some((b"{}", HOUR))).unwrap();
    let tokens = make(MemoryStore::new())
        .fallback_store(SlowStore {
            inner: second,
            read: Duration::from_millis(800),
            write: Duration::from_millis(800),
        })
        .build()
        .unwrap();
    let got = tokens.token_within(20 * SECOND).map(|token| token.expose().to_owned());
    assert_eq!(got.as_deref().ok(), Some("token-1"), "{got:?}");
    let left = *left.lock().unwrap();
    assert!(left > Duration::from_millis(800), "the provider has {left:?} of its second");
}
