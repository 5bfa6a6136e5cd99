//! A rejection holds in both stores, before, during and after an outage of the primary store.

use std::fs;
use std::sync::atomic::Ordering;

use evertoken::provider::Grant;
use evertoken::store::{Expected, Store};
use evertoken::testing::FakeProvider;
use evertoken::{Error, ErrorKind, EventKind, FileStore, TokenManager};

use crate::common::stores::*;
use crate::common::two_stores::TwoStores;
use crate::common::wait::*;

#[test]
fn an_invalidated_token_does_not_come_back_from_the_fallback_store() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    assert_eq!(text(&host.manager()), "token-1");
    host.set_primary_broken(false);
    let next = host.manager();
    next.invalidate().unwrap();
    assert_eq!(text(&next), "token-2");
}

/// Only the primary store has the rejection, and it is down again: no process of this host can read it there.
#[test]
fn promise_4_a_token_rejected_before_an_outage_is_not_returned_from_the_fallback_store() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    let bad = host.manager().token().unwrap();
    host.set_primary_broken(false);
    // The rejecting process started after the outage.
    host.manager().reject(&bad).unwrap();
    host.set_primary_broken(true);
    assert_eq!(text(&host.manager()), "token-2");
}

/// Each process lives for one call, as a command-line tool does.
#[test]
fn promise_4_and_7_a_new_process_prefers_a_newer_token_of_the_fallback_store() {
    let host = TwoStores::new();
    let bad = host.manager().token().unwrap();
    assert_eq!(bad.expose(), "token-1");
    host.set_primary_broken(true);
    let during = host.manager();
    // The current token came from the primary store, and a service refuses it now.
    assert!(during.reject(&bad).is_err());
    drop(during);
    assert_eq!(text(&host.manager()), "token-2");
    host.set_primary_broken(false);
    assert_eq!(text(&host.manager()), "token-2");
    assert!(host.recorded(&host.primary).contains("token-2"));
}

/// Two outages, with a rejection on another host between them.
#[test]
fn promise_4_a_token_replaced_in_the_primary_store_is_not_returned_in_the_next_outage() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    assert_eq!(text(&host.manager()), "token-1");
    host.set_primary_broken(false);
    // Another host fetches, and this host reads that token from the primary store several times.
    let other = host.manager_on_another_host();
    assert_eq!(text(&other), "token-2");
    for _ in 0..10 {
        assert_eq!(text(&host.manager()), "token-2");
    }
    host.set_primary_broken(true);
    assert_ne!(text(&host.manager()), "token-1");
}

/// A long outage, in which a rejected token is granted again. The copied token keeps its number from the fallback
/// store, or it would count as older than the tokens of the other managers.
#[test]
fn promise_4_a_token_reinstated_during_an_outage_does_not_overwrite_a_later_rejection() {
    for is_replaced in [false, true] {
        let names = ["a", "b", "c", "c", "d", "e"];
        let host =
            TwoStores::of(names.into_iter().fold(FakeProvider::new(), |all, name| all.then_grant(name, 5 * HOUR)));
        let lasting = host.manager();
        text(&lasting);
        host.set_primary_broken(true);
        for expected in ["a", "b", "c"] {
            host.clock.advance(100 * SECOND);
            let token = lasting.token().unwrap();
            assert_eq!(token.expose(), expected);
            lasting.reject(&token).unwrap_err();
        }
        assert_eq!(text(&lasting), "c");
        host.set_primary_broken(false);
        let next = host.manager();
        let bad = next.token().unwrap();
        assert_eq!(bad.expose(), "c");
        next.reject(&bad).unwrap();
        if is_replaced {
            assert_eq!(text(&next), "d");
        }
        host.use_for_four_minutes(&lasting);
        assert_ne!(text(&host.manager()), "c", "replaced: {is_replaced}");
    }
}

/// A Redis without persistence was restarted, and the provider grants the same token until it expires.
#[test]
fn promise_4_a_rejection_in_the_fallback_store_is_copied_to_an_emptied_primary_store() {
    let host = TwoStores::of(FakeProvider::new().then_grant("same", 2 * HOUR).then_unchanged());
    let tokens = host.manager();
    let bad = tokens.token().unwrap();
    host.set_primary_broken(true);
    assert!(tokens.reject(&bad).is_err(), "other hosts could not be told");
    drop(tokens);
    host.primary.inner.compare_and_swap(host.manager_on_another_host().key(), Expected::Any, None).unwrap();
    host.set_primary_broken(false);
    host.clock.advance(HOUR);
    // The record has no usable token, so nothing of it is returned.
    host.provider.always_fail(Some(Error::new(ErrorKind::Unavailable, "the provider is down")));
    host.manager().token().unwrap_err();
    assert!(host.recorded(&host.primary).contains(bad.fingerprint()), "{}", host.recorded(&host.primary));
    assert!(host.record(&host.fallback).is_none(), "what has been handed over is over there");
    host.provider.always_fail(None);
    host.clock.advance(60 * SECOND);
    let again = host.manager_on_another_host().token().unwrap();
    assert_eq!((again.expose(), again.remaining()), ("same", HOUR - 60 * SECOND));
}

#[test]
fn promise_4_a_rejection_in_the_fallback_store_is_added_to_a_later_token_in_the_primary_store() {
    let host = TwoStores::new();
    let tokens = host.manager();
    let bad = tokens.token().unwrap();
    host.set_primary_broken(true);
    assert!(tokens.reject(&bad).is_err(), "other hosts could not be told");
    drop(tokens);
    let other = host.manager_on_another_host();
    assert_eq!((text(&other).as_str(), other.force_refresh().unwrap().expose()), (bad.expose(), "token-2"));
    host.set_primary_broken(false);
    assert_eq!(text(&host.manager()), "token-2");
    let first = host.recorded(&host.primary);
    assert!(first.contains("token-2") && first.contains(bad.fingerprint()), "{first}");
    assert!(host.record(&host.fallback).is_none(), "what has been handed over is over there");
}

/// This manager did not record its token; another one copied it from the fallback store, and the service refused it
/// then.
#[test]
fn promise_4_a_manager_with_a_token_from_the_outage_does_not_undo_its_later_rejection() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    let (fetched, adopted) = (host.manager(), host.manager());
    assert_eq!((text(&fetched), text(&adopted)), ("token-1".to_owned(), "token-1".to_owned()));
    host.set_primary_broken(false);
    let next = host.manager();
    let bad = next.token().unwrap();
    assert_eq!(bad.expose(), "token-1");
    next.reject(&bad).unwrap();
    assert_eq!(text(&next), "token-2");
    for holder in [&fetched, &adopted] {
        host.use_for_four_minutes(holder);
        assert_eq!((text(holder).as_str(), text(&host.manager_on_another_host()).as_str()), ("token-2", "token-2"));
    }
    assert!(host.recorded(&host.primary).contains(bad.fingerprint()));
    assert_eq!(host.provider.calls(), 2);
}

/// The provider grants the rejected token to this host again, because there is no other yet; then another host gets the
/// next one.
#[test]
fn promise_4_a_token_reinstated_during_the_outage_does_not_replace_a_newer_one() {
    let provider = FakeProvider::new().then_grant("first", 2 * HOUR).then_grant("first", 2 * HOUR);
    let host = TwoStores::of(provider.then_grant("second", HOUR));
    let lasting = host.manager();
    lasting.reject(&lasting.token().unwrap()).unwrap();
    host.set_primary_broken(true);
    assert_eq!(text(&lasting), "first");
    assert_eq!(text(&host.manager_on_another_host()), "second");
    host.set_primary_broken(false);
    host.use_for_four_minutes(&lasting);
    assert_eq!((text(&lasting).as_str(), text(&host.manager_on_another_host()).as_str()), ("second", "second"));
    assert_eq!(host.provider.calls(), 3);
}

/// A process that starts during the outage cannot read the primary store, and fetches another token, which only the
/// fallback store has then.
#[test]
fn promise_4_a_rejection_during_the_outage_is_kept_beside_another_token_of_the_fallback_store() {
    let provider = FakeProvider::new().then_grant("first", 5 * HOUR).then_grant("second", HOUR);
    let host = TwoStores::of(provider.then_grant("third", HOUR));
    let lasting = host.manager();
    let bad = lasting.token().unwrap();
    host.set_primary_broken(true);
    assert_eq!(text(&host.manager()), "second");
    assert!(lasting.reject(&bad).is_err(), "other hosts could not be told");
    drop(lasting);
    assert_eq!(text(&host.manager()), "second");
    host.set_primary_broken(false);
    assert_eq!((text(&host.manager()).as_str(), text(&host.manager_on_another_host()).as_str()), ("second", "second"));
    assert!(host.recorded(&host.primary).contains(bad.fingerprint()));
}

/// A Redis that has become a replica, or is full, can be read but not written.
#[test]
fn promise_4_a_rejection_reaches_all_processes_of_a_host_with_a_read_only_primary_store() {
    let host = TwoStores::new();
    let (brief, lasting) = (host.manager(), host.manager());
    let bad = brief.token().unwrap();
    assert_eq!(text(&lasting), bad.expose());
    let events = lasting.events();
    *host.primary.unwritable.lock().unwrap() = Some("");
    assert!(brief.reject(&bad).is_err(), "other hosts could not be told");
    drop(brief);
    host.use_for_four_minutes(&lasting);
    assert_eq!((text(&lasting).as_str(), text(&host.manager()).as_str()), ("token-2", "token-2"));
    let is_of_the_store = |kind: &EventKind| matches!(kind, EventKind::StoreDown { .. } | EventKind::StoreUp);
    let told = || events.try_iter().map(|event| event.kind).filter(is_of_the_store).collect::<Vec<_>>();
    let down = told();
    assert!(matches!(down[..], [EventKind::StoreDown { .. }]), "{down:?}");
    *host.primary.unwritable.lock().unwrap() = None;
    host.use_for_four_minutes(&lasting);
    let up = told();
    assert!(matches!(up[..], [EventKind::StoreUp]), "{up:?}");
    assert_eq!((text(&host.manager_on_another_host()).as_str(), host.provider.calls()), ("token-2", 2));
}

#[test]
fn promise_4_the_first_check_after_an_outage_respects_rejections_in_the_fallback_store() {
    let host = TwoStores::new();
    host.set_primary_broken(true);
    let (brief, lasting) = (host.manager(), host.manager());
    let bad = brief.token().unwrap();
    assert_eq!(text(&lasting), bad.expose());
    assert!(brief.reject(&bad).is_err());
    drop(brief);
    host.set_primary_broken(false);
    let looked = host.primary.operations.load(Ordering::SeqCst);
    host.clock.advance(61 * SECOND);
    eventually("the manager checks the store", || {
        lasting.try_token();
        host.primary.operations.load(Ordering::SeqCst) > looked && !lasting.status().fetching
    });
    assert_eq!(text(&lasting), "token-2");
}

/// The manager has the record of the primary store in memory, so a refresh does not read it again.
#[test]
fn promise_4_a_rejection_in_the_fallback_store_outlives_a_failed_refresh() {
    let provider = FakeProvider::new()
        .then(|_| Ok(Grant::new("token-1", 2 * HOUR)))
        .then(|_| Err(Error::new(ErrorKind::Unavailable, "the provider is down")));
    let host = TwoStores::of(provider);
    let lasting = host.manager();
    assert_eq!(text(&lasting), "token-1");
    let brief = host.manager();
    let bad = brief.token().unwrap();
    host.set_primary_broken(true);
    assert!(brief.reject(&bad).is_err());
    drop(brief);
    assert!(host.recorded(&host.fallback).contains("rejected"));
    host.set_primary_broken(false);
    assert!(lasting.force_refresh().is_err());
    // The service refused that token, and this host has recorded the rejection.
    let got = host.manager().token().map(|token| token.expose().to_owned());
    assert_ne!(got.as_deref().ok(), Some("token-1"), "first: {}", host.recorded(&host.primary));
}

#[test]
fn promise_4_a_token_rejected_in_the_fallback_store_is_not_read_at_once_from_the_primary_store() {
    let host = TwoStores::of(FakeProvider::new());
    let make = || {
        let builder = builder(&host.provider, &host.clock).store(ReadableAtOnce(host.primary.clone()));
        builder.fallback_store(host.fallback.clone()).build().unwrap()
    };
    let tokens = make();
    let bad = tokens.token().unwrap();
    host.set_primary_broken(true);
    assert!(tokens.reject(&bad).is_err());
    drop(tokens);
    assert_ne!(text(&make()), "token-1");
}

/// As above with real files: the first directory can be read but not written to.
#[test]
fn promise_4_read_only_files_do_not_hide_a_rejection_in_the_fallback_store() {
    let folder = tempfile::tempdir().unwrap();
    let provider = FakeProvider::new();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let make = || {
        let builder = TokenManager::builder(provider.clone()).store(FileStore::at(&first));
        builder.fallback_store(FileStore::at(&second)).build().unwrap()
    };
    let tokens = make();
    let bad = tokens.token().unwrap();
    // The lock files cannot be opened because directories stand in their places, which is a store error.
    for file in fs::read_dir(&first).unwrap().flatten() {
        if file.path().extension().is_some_and(|end| end == "lock") {
            fs::remove_file(file.path()).unwrap();
            fs::create_dir(file.path()).unwrap();
        }
    }
    assert!(tokens.reject(&bad).is_err());
    drop(tokens);
    assert_ne!(text(&make()), "token-1");
}
