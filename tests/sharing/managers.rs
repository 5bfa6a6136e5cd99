//! Managers that share a store act as one. Here the store is memory; two managers on it are what two processes will be.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::fragile::Fragile;
use crate::common::wait::*;
use crossbeam_channel::{Receiver, Sender};
use evertoken::provider::{Grant, Identity, Profile};
use evertoken::store::{Entry, Expected, Store};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, ErrorKind, EventKind, TokenManager, TokenOrigin, TokenState};

/// Managers of one credential on one store and one clock.
struct Group {
    provider: FakeProvider,
    clock: FakeClock,
    store: Fragile,
}

impl Group {
    fn new() -> Group {
        Group::of(FakeProvider::new())
    }

    fn of(provider: FakeProvider) -> Group {
        let clock = FakeClock::new();
        let store = Fragile::on_clock(&clock);
        Group { provider, clock, store }
    }

    fn manager(&self) -> TokenManager {
        builder(&self.provider, &self.clock).store(self.store.clone()).build().unwrap()
    }

    /// The key of the one record, and its bytes.
    fn record(&self) -> Option<Entry> {
        self.store.inner.read(self.manager().key()).unwrap()
    }
}

#[test]
fn promise_3_many_managers_with_nothing_held_cost_one_fetch() {
    let group = Group::new();
    let managers: Vec<_> = (0..8).map(|_| group.manager()).collect();
    let provider = group.provider.clone().gated();
    let answers = thread::scope(|scope| {
        let asking: Vec<_> =
            managers.iter().flat_map(|manager| [manager; 8]).map(|manager| scope.spawn(|| text(manager))).collect();
        assert!(provider.wait_for_calls(1, PATIENCE));
        provider.permit(1);
        asking.into_iter().map(|asking| asking.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(answers.iter().all(|answer| answer == "token-1"));
    assert_eq!(provider.calls(), 1);
    let adopted: u64 = managers.iter().map(|manager| manager.metrics().tokens_from_store).sum();
    assert_eq!(adopted, 7);
}

#[test]
fn promise_3_a_failure_of_one_manager_answers_the_others_until_its_retry_time() {
    let group = Group::new();
    group
        .provider
        .always_fail(Some(Error::new(ErrorKind::InvalidCredentials, "the secret is wrong").with_code("40001")));
    let (one, other) = (group.manager(), group.manager());
    let first = one.token().unwrap_err();
    for _ in 0..10 {
        let second = other.token().unwrap_err();
        assert_eq!((second.kind(), second.code()), (first.kind(), Some("40001")));
        assert!(second.retry_after().unwrap() <= 30 * SECOND);
    }
    assert_eq!(group.provider.calls(), 1);
    group.provider.always_fail(None);
    group.clock.advance(30 * SECOND);
    assert_eq!((text(&other), text(&one)), ("token-1".to_owned(), "token-1".to_owned()));
    assert_eq!(group.provider.calls(), 2);
}

#[test]
fn promise_3_a_due_token_is_renewed_by_one_and_adopted_by_the_others() {
    let group = Group::new();
    let managers: Vec<_> = (0..4).map(|_| group.manager()).collect();
    let events: Vec<_> = managers.iter().map(TokenManager::events).collect();
    for (manager, events) in managers.iter().zip(&events) {
        assert_eq!(text(manager), "token-1");
        wait_for_grant(events);
    }
    group.clock.advance(6900 * SECOND);
    // Whoever finds the lease taken comes back after two seconds at most.
    assert!(group.provider.wait_for_finished(2, PATIENCE));
    for (manager, events) in managers.iter().zip(&events) {
        eventually("the others adopt it", || {
            let _ = events.recv_timeout(Duration::from_millis(50));
            group.clock.advance(Duration::from_millis(500));
            text(manager) == "token-2"
        });
    }
    assert_eq!(group.provider.calls(), 2);
}

#[test]
fn an_adopted_token_keeps_its_true_end_and_is_renewed_in_time() {
    let group = Group::new();
    let one = group.manager();
    text(&one);
    group.clock.advance(1000 * SECOND);
    let other = group.manager();
    let token = other.token().unwrap();
    assert_eq!((token.expose(), token.remaining()), ("token-1", 6200 * SECOND));
    let status = other.status();
    assert_eq!((status.origin, status.refresh_in), (Some(TokenOrigin::Store), Some(5900 * SECOND)));
}

#[test]
fn promise_4_what_one_manager_rejects_no_other_adopts() {
    let group = Group::new();
    let (one, other) = (group.manager(), group.manager());
    let bad = one.token().unwrap();
    one.reject(&bad).unwrap();
    assert_eq!(text(&other), "token-2");
    assert_eq!((text(&one), group.provider.calls()), ("token-2".to_owned(), 2));
}

#[test]
fn promise_4_a_rejected_token_is_not_adopted_from_a_store_that_could_not_be_told() {
    let group = Group::new();
    let tokens = group.manager();
    let bad = tokens.token().unwrap();
    group.store.broken.store(true, Ordering::SeqCst);
    assert_eq!(tokens.reject(&bad).unwrap_err().kind(), ErrorKind::Store);
    group.store.broken.store(false, Ordering::SeqCst);
    group.clock.advance(2 * SECOND);
    assert_eq!((text(&tokens), group.provider.calls()), ("token-2".to_owned(), 2));
}

#[test]
fn promise_4_what_one_manager_rejects_the_others_drop_within_local_max_age() {
    let group = Group::new();
    let (one, other) = (group.manager(), group.manager());
    let bad = one.token().unwrap();
    assert_eq!(text(&other), bad.expose());
    assert_eq!(text(&other), bad.expose(), "it is in use");
    let events = other.events();
    one.reject(&bad).unwrap();
    group.clock.advance(60 * SECOND);
    wait_for(&events, |kind| matches!(kind, EventKind::Rejected { .. }).then_some(()));
    assert_eq!(text(&other), "token-2");
    assert_eq!((text(&one), group.provider.calls()), ("token-2".to_owned(), 2));
}

#[test]
fn promise_4_a_hundred_rejections_by_many_managers_cost_one_fetch() {
    let group = Group::new();
    let managers: Vec<_> = (0..10).map(|_| group.manager()).collect();
    let bad: Vec<_> = managers.iter().map(|manager| manager.token().unwrap()).collect();
    thread::scope(|scope| {
        for (manager, bad) in managers.iter().zip(&bad) {
            for _ in 0..10 {
                scope.spawn(|| {
                    manager.reject(bad).unwrap();
                    assert_ne!(text(manager), "token-1");
                });
            }
        }
    });
    assert_eq!(group.provider.calls(), 2);
}

#[test]
fn what_one_manager_invalidates_the_others_forget_within_local_max_age() {
    let group = Group::new();
    let (one, other) = (group.manager(), group.manager());
    text(&one);
    assert_eq!((text(&other), text(&other)), ("token-1".to_owned(), "token-1".to_owned()));
    let events = other.events();
    one.invalidate().unwrap();
    group.clock.advance(60 * SECOND);
    wait_for(&events, |kind| matches!(kind, EventKind::Rejected { .. }).then_some(()));
    assert_eq!((text(&other), text(&one)), ("token-2".to_owned(), "token-2".to_owned()));
}

#[test]
fn a_token_that_is_not_in_use_is_compared_with_the_store_at_its_next_use() {
    let group = Group::new();
    let (one, other) = (group.manager(), group.manager());
    let bad = one.token().unwrap();
    text(&other);
    let events = other.events();
    one.reject(&bad).unwrap();
    group.clock.advance(300 * SECOND);
    // The first use may still get it, and has it looked up.
    text(&other);
    wait_for(&events, |kind| matches!(kind, EventKind::Rejected { .. }).then_some(()));
    assert_eq!(text(&other), "token-2");
}

#[test]
fn promise_6_a_store_that_is_broken_from_the_start_costs_no_caller_a_token() {
    let group = Group::new();
    group.store.broken.store(true, Ordering::SeqCst);
    let tokens = group.manager();
    let events = tokens.events();
    assert_eq!(text(&tokens), "token-1");
    let metrics = tokens.metrics();
    assert_eq!((metrics.fetches_ok, metrics.store_errors), (1, 1));
    assert!(tokens.status().store_down_for.is_some());
    wait_for(&events, |kind| matches!(kind, EventKind::StoreDown { .. }).then_some(()));
}

#[test]
fn promise_6_a_store_that_panics_is_a_store_that_is_down() {
    let group = Group::new();
    group.store.panics.store(true, Ordering::SeqCst);
    let tokens = group.manager();
    assert_eq!(text(&tokens), "token-1");
}

#[test]
fn promise_6_an_outage_is_told_once_and_a_store_that_is_down_is_left_alone_for_a_while() {
    let group = Group::new();
    let tokens = group.manager();
    text(&tokens);
    group.store.broken.store(true, Ordering::SeqCst);
    let events = tokens.events();
    let before = group.store.operations.load(Ordering::SeqCst);
    for _ in 0..20 {
        tokens.force_refresh().unwrap();
    }
    assert_eq!(group.store.operations.load(Ordering::SeqCst) - before, 1);
    let told = events.try_iter().filter(|event| matches!(event.kind, EventKind::StoreDown { .. })).count();
    assert_eq!(told, 1);
}

#[test]
fn the_status_says_why_the_store_is_out_of_use() {
    let group = Group::new();
    let tokens = group.manager();
    group.store.broken.store(true, Ordering::SeqCst);
    tokens.invalidate().unwrap_err();
    let status = tokens.status();
    assert!(status.to_string().contains("store       out of use for 0 ms: broken on purpose"), "{status}");
    // Another thing is wrong with it by now.
    group.store.panics.store(true, Ordering::SeqCst);
    group.clock.advance(60 * SECOND);
    tokens.invalidate().unwrap_err();
    let status = tokens.status();
    assert_eq!(status.store_error.as_ref().map(Error::kind), Some(ErrorKind::Store));
    assert!(status.to_string().contains("store       out of use for 60 s: the shared store panicked"), "{status}");
    group.store.broken.store(false, Ordering::SeqCst);
    group.store.panics.store(false, Ordering::SeqCst);
    group.clock.advance(60 * SECOND);
    tokens.invalidate().unwrap();
    assert!(tokens.status().store_error.is_none());
}

#[test]
fn promise_7_what_was_fetched_without_the_store_is_written_when_it_is_back() {
    let group = Group::new();
    group.store.broken.store(true, Ordering::SeqCst);
    let one = group.manager();
    let events = one.events();
    assert_eq!(text(&one), "token-1");
    group.store.broken.store(false, Ordering::SeqCst);
    group.clock.advance(2 * SECOND);
    wait_for(&events, |kind| matches!(kind, EventKind::StoreUp).then_some(()));
    eventually("the record is written", || group.record().is_some());
    assert_eq!((text(&group.manager()), group.provider.calls()), ("token-1".to_owned(), 1));
}

#[test]
fn promise_7_a_token_that_could_not_be_written_is_handed_out_all_the_same() {
    let group = Group::new();
    let tokens = group.manager();
    let provider = group.provider.clone().gated();
    thread::scope(|scope| {
        let asking = scope.spawn(|| text(&tokens));
        assert!(provider.wait_for_calls(1, PATIENCE));
        group.store.broken.store(true, Ordering::SeqCst);
        provider.permit(1);
        assert_eq!(asking.join().unwrap(), "token-1");
    });
}

#[test]
fn promise_7_an_older_token_that_comes_late_does_not_replace_a_newer_one() {
    let group = Group::new();
    let late = group.manager();
    let provider = group.provider.clone().gated();
    thread::scope(|scope| {
        let asking = scope.spawn(|| text(&late));
        assert!(provider.wait_for_calls(1, PATIENCE));
        // Its lease runs out while it is held up; another one fetches a token that lives longer.
        group.clock.advance(60 * SECOND);
        let other = group.manager();
        let overtaking = scope.spawn(move || text(&other));
        assert!(provider.wait_for_calls(2, PATIENCE));
        provider.open();
        let (slow, quick) = (asking.join().unwrap(), overtaking.join().unwrap());
        let recorded = String::from_utf8(group.record().unwrap().bytes().to_vec()).unwrap();
        assert!(recorded.contains(&quick) || recorded.contains(&slow));
        assert_eq!(text(&group.manager()), if recorded.contains(&quick) { quick } else { slow });
    });
}

#[test]
fn a_store_that_was_emptied_is_filled_again_from_what_is_held() {
    let group = Group::new();
    let tokens = group.manager();
    text(&tokens);
    group.store.inner.compare_and_swap(tokens.key(), Expected::Any, None).unwrap();
    assert_eq!(text(&tokens), "token-1");
    group.clock.advance(60 * SECOND);
    eventually("the record is written", || group.record().is_some());
    assert_eq!((text(&group.manager()), group.provider.calls()), ("token-1".to_owned(), 1));
}

#[test]
fn a_record_that_cannot_be_read_is_replaced() {
    for bad in [&b"garbage"[..], b"{}", b"[1]", b"", b"{\"v\":99}", &[b'x'; 100_000]] {
        let group = Group::new();
        let tokens = group.manager();
        group.store.inner.compare_and_swap(tokens.key(), Expected::Any, Some((bad, HOUR))).unwrap();
        assert_eq!(text(&tokens), "token-1");
        assert_eq!((text(&group.manager()), group.provider.calls()), ("token-1".to_owned(), 1));
    }
}

#[test]
fn a_recorded_failure_that_this_version_does_not_know_leaves_the_token_beside_it_in_use() {
    for failure in [
        r#"{"kind":"Denied","exact_kind":"OfALaterVersion","message":"x","code":null,"status":null,"retry_ms":1,"count":1}"#,
        r#"{"kind":"OfALaterVersion","message":"x","code":null,"status":null,"retry_ms":1,"count":1}"#,
        r#"{"kind":{"of":"a later version"}}"#,
        "[]",
    ] {
        let group = Group::new();
        assert_eq!(text(&group.manager()), "token-1");
        let entry = group.record().unwrap();
        let mut record: serde_json::Value = serde_json::from_slice(entry.bytes()).unwrap();
        record["failure"] = serde_json::from_str(failure).unwrap();
        let bytes = record.to_string().into_bytes();
        let key = group.manager().key().clone();
        group.store.inner.compare_and_swap(&key, Expected::Any, Some((&bytes, entry.remaining()))).unwrap();
        assert_eq!(text(&group.manager()), "token-1", "{failure}");
        assert_eq!(group.provider.calls(), 1, "{failure}");
    }
}

#[test]
fn a_recorded_failure_keeps_the_words_of_the_first_version() {
    for (kind, word) in [
        (ErrorKind::Config, "Config"),
        (ErrorKind::InvalidCredentials, "Denied"),
        (ErrorKind::Forbidden, "NotAllowed"),
        (ErrorKind::Throttled, "Throttled"),
        (ErrorKind::TicketRequired, "TicketStale"),
        (ErrorKind::Unavailable, "Unavailable"),
        (ErrorKind::InvalidResponse, "Protocol"),
        (ErrorKind::Panicked, "Panicked"),
        (ErrorKind::SignInRequired, "Denied"),
    ] {
        let group = Group::new();
        group.provider.always_fail(Some(Error::new(kind, "this is a test")));
        let error = group.manager().token().unwrap_err();
        assert_eq!(error.kind(), kind);
        let record: serde_json::Value = serde_json::from_slice(group.record().unwrap().bytes()).unwrap();
        assert_eq!(record["failure"]["kind"], word);
        // Another manager reads the same kind back.
        assert_eq!(group.manager().token().unwrap_err().kind(), kind);
        assert_eq!(group.provider.calls(), 1, "{word}");
    }
}

#[test]
fn a_record_of_another_credential_under_the_same_key_is_not_used() {
    let group = Group::new();
    let stranger = FakeProvider::new().then_grant("a-strangers", HOUR).with_identity(Identity::new("stranger"));
    let theirs = builder(&stranger, &group.clock).store(group.store.clone()).build().unwrap();
    text(&theirs);
    let recorded = group.store.inner.read(theirs.key()).unwrap().unwrap();
    let ours = group.manager();
    group.store.inner.compare_and_swap(ours.key(), Expected::Any, Some((recorded.bytes(), HOUR))).unwrap();
    assert_eq!(text(&ours), "token-1");
}

#[test]
fn two_secrets_of_one_application_are_never_mixed() {
    let group = Group::new();
    let with_secret = |secret: &str, token: &str| {
        let identity = Identity::new("fake").part("app", "one").secret(&secret.into());
        let provider = FakeProvider::new().with_identity(identity).then_grant(token, HOUR);
        builder(&provider, &group.clock).store(group.store.clone()).build().unwrap()
    };
    let (old, new) = (with_secret("old", "t-old"), with_secret("new", "t-new"));
    assert_eq!((text(&old), text(&new)), ("t-old".to_owned(), "t-new".to_owned()));
}

#[test]
fn a_key_of_ones_own_is_used_as_it_is() {
    let group = Group::new();
    let tokens =
        builder(&group.provider, &group.clock).store(group.store.clone()).key("wx:token:corp").build().unwrap();
    text(&tokens);
    let recorded = group.store.inner.read(tokens.key()).unwrap().unwrap();
    assert_eq!(tokens.key().as_str(), "wx:token:corp");
    let record: serde_json::Value = serde_json::from_slice(recorded.bytes()).unwrap();
    assert_eq!(record["access_token"], "token-1");
    assert!(record["expires_at"].as_u64().unwrap() > 1_700_000_000);
}

#[test]
fn where_a_new_token_ends_the_old_one_processes_without_their_store_fetch_seldom() {
    let profile = Profile::default().new_token_ends_old(true);
    let group = Group::of(FakeProvider::new().with_profile(profile));
    group.store.broken.store(true, Ordering::SeqCst);
    let tokens = group.manager();
    let first = tokens.token().unwrap();
    tokens.reject(&first).unwrap_err();
    let mut waited = Duration::ZERO;
    while waited < 300 * SECOND {
        let error = tokens.token().unwrap_err();
        assert_eq!((error.kind(), group.provider.calls()), (ErrorKind::Store, 1));
        // The store may be back sooner, so it is looked at before the interval is over.
        let retry_in = error.retry_after().unwrap();
        group.clock.advance(retry_in);
        waited += retry_in;
    }
    assert_eq!(text(&tokens), "token-2");
}

#[test]
fn a_holder_that_vanishes_blocks_the_others_no_longer_than_its_lease() {
    let group = Group::new();
    let gone = group.manager();
    let provider = group.provider.clone().gated();
    gone.warm_up();
    assert!(provider.wait_for_calls(1, PATIENCE));
    drop(gone);
    let other = group.manager();
    thread::scope(|scope| {
        let asking = scope.spawn(|| text(&other));
        // Its lease is of 7 s on the store's clock, however long its fetch takes.
        group.clock.advance(7 * SECOND);
        assert!(provider.wait_for_calls(2, PATIENCE));
        provider.open();
        assert!(asking.join().unwrap().starts_with("token-"));
    });
}

/// What is wrong in one process alone is not recorded: it only frees the lease, and that is another's by then.
#[test]
fn promise_3_a_holder_whose_lease_ran_out_does_not_free_that_of_its_successor() {
    let ((late_begun, fail, hold_up_late), (next_begun, grant, hold_up_next)) = (held_up(), held_up());
    let provider = FakeProvider::new().then(move |_| {
        hold_up_late();
        Err(Error::new(ErrorKind::Store, "its state cannot be read here"))
    });
    let group = Group::of(provider.then(move |_| {
        hold_up_next();
        Ok(Grant::new("successors", HOUR))
    }));
    let [late, successor, third] = [(); 3].map(|()| group.manager());
    thread::scope(|scope| {
        let failing = scope.spawn(|| late.token());
        late_begun.recv_timeout(PATIENCE).unwrap();
        group.clock.advance(60 * SECOND);
        let fetching = scope.spawn(|| text(&successor));
        next_begun.recv_timeout(PATIENCE).unwrap();
        fail.send(()).unwrap();
        assert_eq!(failing.join().unwrap().unwrap_err().kind(), ErrorKind::Store);
        let before = group.store.waits.load(Ordering::SeqCst);
        let waiting = scope.spawn(|| text(&third));
        eventually("it waits for the successor, or fetches", || {
            group.store.waits.load(Ordering::SeqCst) > before || group.provider.calls() > 2
        });
        grant.send(()).unwrap();
        assert_eq!([fetching, waiting].map(|asking| asking.join().unwrap()), ["successors"; 2]);
    });
    assert_eq!(group.provider.calls(), 2);
}

#[test]
fn promise_7_a_failure_that_comes_late_is_not_told_of_the_token_that_another_has_recorded() {
    let (begun, fail, hold_up) = held_up();
    let group = Group::of(FakeProvider::new().then(move |_| {
        hold_up();
        Err(Error::new(ErrorKind::InvalidCredentials, "the secret is wrong"))
    }));
    let (late, other) = (group.manager(), group.manager());
    thread::scope(|scope| {
        let failing = scope.spawn(|| late.token());
        begun.recv_timeout(PATIENCE).unwrap();
        // Its lease runs out while it is held up.
        group.clock.advance(60 * SECOND);
        assert_eq!(text(&other), "token-1");
        fail.send(()).unwrap();
        assert_eq!(failing.join().unwrap().unwrap_err().kind(), ErrorKind::InvalidCredentials);
    });
    let next = group.manager();
    assert_eq!((text(&next).as_str(), next.status().retry_in), ("token-1", None));
    assert_eq!(next.force_refresh().unwrap().expose(), "token-2");
}

/// For a fetch that is held up: tells that it has begun, lets it go on, and is what it does until then.
fn held_up() -> (Receiver<()>, Sender<()>, impl FnOnce() + Send + 'static) {
    let [(begin, begun), (go_on, going_on)] = [(); 2].map(|()| crossbeam_channel::bounded(1));
    let hold_up = move || {
        begin.send(()).unwrap();
        going_on.recv_timeout(PATIENCE).unwrap();
    };
    (begun, go_on, hold_up)
}

#[test]
fn lives_that_end_are_replaced_once_however_many_managers_look() {
    let group = Group::of(FakeProvider::new().lifetime(100 * SECOND));
    let managers: Vec<_> = (0..4).map(|_| group.manager()).collect();
    for life in 1..=10 {
        thread::scope(|scope| {
            for manager in &managers {
                for _ in 0..4 {
                    scope.spawn(|| assert!(text(manager).starts_with("token-")));
                }
            }
        });
        assert!(group.provider.calls() <= 2 * life, "a renewal under way when the clock jumps is the most there is");
        group.clock.advance(101 * SECOND);
        for manager in &managers {
            let at_rest = || matches!(manager.status().state, TokenState::Empty | TokenState::Fresh);
            eventually("what is dead is gone or replaced", at_rest);
        }
    }
}

#[test]
fn promise_2_a_token_that_is_granted_again_keeps_the_end_that_another_manager_knew() {
    let group = Group::of(FakeProvider::new().then_grant("same", 7200 * SECOND).then_unchanged());
    let gone = group.manager();
    let token = gone.token().unwrap();
    group.clock.advance(3600 * SECOND);
    gone.reject(&token).unwrap();
    drop(gone);
    let again = group.manager().token().unwrap();
    assert_eq!((again.expose(), again.remaining()), ("same", 3600 * SECOND));
}

#[test]
fn promise_2_a_token_that_is_granted_again_keeps_its_end_though_another_one_is_recorded() {
    let provider =
        FakeProvider::new().then_grant("one", 7200 * SECOND).then_grant("two", 7200 * SECOND).then_unchanged();
    let group = Group::of(provider);
    let tokens = group.manager();
    let events = tokens.events();
    text(&tokens);
    wait_for_grant(&events);
    group.store.broken.store(true, Ordering::SeqCst);
    group.clock.advance(6900 * SECOND);
    wait_for_grant(&events);
    let two = tokens.token().unwrap();
    group.clock.advance(250 * SECOND);
    tokens.reject(&two).unwrap_err();
    group.store.broken.store(false, Ordering::SeqCst);
    group.clock.advance(31 * SECOND);
    let again = tokens.token().unwrap();
    assert_eq!((again.expose(), again.remaining()), ("two", two.remaining()));
}

#[test]
fn promise_4_what_is_rejected_while_another_is_being_given_it_again_is_neither_recorded_nor_held() {
    let group = Group::new();
    let (one, other) = (group.manager(), group.manager());
    let bad = one.token().unwrap();
    text(&other);
    let provider = group.provider.clone().gated().then_unchanged();
    thread::scope(|scope| {
        let forcing = scope.spawn(|| one.force_refresh().unwrap());
        assert!(provider.wait_for_calls(2, PATIENCE));
        other.reject(&bad).unwrap();
        provider.permit(2);
        assert_eq!(forcing.join().unwrap().expose(), "token-2");
    });
    assert_eq!((text(&one), text(&group.manager())), ("token-2".to_owned(), "token-2".to_owned()));
}

#[test]
fn promise_6_a_store_that_hangs_is_a_store_that_is_down() {
    let group = Group::new();
    let tokens = group.manager();
    let hanging = group.store.gate.clone();
    let hanging = hanging.lock().unwrap();
    assert_eq!(text(&tokens), "token-1");
    for _ in 0..20 {
        tokens.invalidate().unwrap_err();
        assert!(text(&tokens).starts_with("token-"));
    }
    // One operation hangs, and nobody asks again as long as it does.
    assert_eq!(group.store.operations.load(Ordering::SeqCst), 1);
    group.clock.advance(HOUR);
    tokens.invalidate().unwrap_err();
    drop(hanging);
    eventually("the store is used again", || {
        group.clock.advance(40 * SECOND);
        let _ = tokens.force_refresh();
        group.record().is_some()
    });
}

#[test]
fn promise_7_a_token_that_was_granted_later_stays_even_if_it_ends_sooner() {
    for new_token_ends_old in [false, true] {
        let profile = Profile::default().new_token_ends_old(new_token_ends_old);
        let provider = FakeProvider::new().with_profile(profile);
        let group = Group::of(provider.then_grant("older", 5400 * SECOND).then_grant("newer", 3600 * SECOND));
        let (one, other) = (group.manager(), group.manager());
        assert_eq!((text(&one), text(&other)), ("older".to_owned(), "older".to_owned()));
        assert_eq!((text(&one), other.force_refresh().unwrap().expose()), ("older".to_owned(), "newer"));
        let events = one.events();
        group.clock.advance(61 * SECOND);
        wait_for_grant(&events);
        assert_eq!((text(&one), text(&other), text(&group.manager())).0, "newer");
        assert_eq!((text(&other), text(&group.manager())), ("newer".to_owned(), "newer".to_owned()));
    }
}

#[test]
fn promise_4_a_token_is_not_recorded_again_when_a_later_one_was_and_is_rejected() {
    let group = Group::new();
    let (late, tokens, other) = (group.manager(), group.manager(), group.manager());
    let first = late.token().unwrap();
    assert_eq!([text(&tokens), text(&other)], ["token-1", "token-1"]);
    let second = tokens.force_refresh().unwrap();
    // The store has no room for this: another one is recorded.
    other.reject(&first).unwrap();
    tokens.reject(&second).unwrap();
    group.clock.advance(61 * SECOND);
    live(&late, &group);
    assert_eq!(text(&group.manager()), "token-3");
}

#[test]
fn a_pause_for_the_sake_of_a_store_ends_when_the_store_is_back() {
    let group = Group::new();
    let unshared = builder(&group.provider, &group.clock).store_down_fetch_interval(300 * SECOND);
    let tokens = unshared.store(group.store.clone()).build().unwrap();
    group.store.broken.store(true, Ordering::SeqCst);
    let first = tokens.token().unwrap();
    tokens.reject(&first).unwrap_err();
    let error = tokens.token().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    group.store.broken.store(false, Ordering::SeqCst);
    group.clock.advance(error.retry_after().unwrap());
    assert_eq!(text(&tokens), "token-2");
}

#[test]
fn what_was_asked_for_before_an_invalidation_is_not_recorded() {
    let group = Group::of(FakeProvider::new().gated());
    let tokens = group.manager();
    tokens.warm_up();
    assert!(group.provider.wait_for_calls(1, PATIENCE));
    tokens.invalidate().unwrap();
    group.provider.open();
    assert_eq!((text(&tokens), group.provider.calls()), ("token-2".to_owned(), 2));
}

#[test]
fn a_store_that_cannot_wait_is_neither_down_nor_asked_in_a_busy_loop() {
    for outcome in [Ok(()), Err(Error::new(ErrorKind::Store, "streams are refused"))] {
        let mut group = Group::of(FakeProvider::new().gated());
        group.store.waiting = Some(outcome);
        let (one, other) = (group.manager(), group.manager());
        one.warm_up();
        assert!(group.provider.wait_for_calls(1, PATIENCE));
        let asked = Instant::now();
        other.warm_up();
        eventually("it has waited for a while", || asked.elapsed() > Duration::from_millis(300));
        assert!(group.store.waits.load(Ordering::SeqCst) < 20);
        assert!(other.status().store_down_for.is_none());
        group.provider.open();
        assert_eq!((text(&other), group.provider.calls()), ("token-1".to_owned(), 1));
    }
}

/// Has the manager look at the store, several times, while the token is in use.
fn live(tokens: &TokenManager, group: &Group) {
    for _ in 0..4 {
        let looked = group.store.operations.load(Ordering::SeqCst);
        tokens.try_token();
        group.clock.advance(61 * SECOND);
        eventually("it looks", || {
            tokens.try_token();
            group.store.operations.load(Ordering::SeqCst) > looked && !tokens.status().fetching
        });
    }
}

#[test]
fn promise_4_a_token_that_was_rejected_while_the_store_was_down_is_gone_when_it_is_back() {
    // The next one ends sooner, so its end does not say that it is the later one.
    let group = Group::of(FakeProvider::new().then_grant("t-1", 7200 * SECOND).then_grant("t-2", HOUR));
    let one = group.manager();
    let bad = one.token().unwrap();
    group.store.broken.store(true, Ordering::SeqCst);
    assert!(one.reject(&bad).is_err());
    assert_eq!(text(&one), "t-2");
    group.store.broken.store(false, Ordering::SeqCst);
    live(&one, &group);
    assert_eq!(text(&group.manager()), "t-2");
}

#[test]
fn a_token_that_is_granted_again_after_an_invalidation_that_could_not_be_told_was_never_refused() {
    let group = Group::of(FakeProvider::new().then_grant("t-1", 7200 * SECOND).then_unchanged());
    let one = group.manager();
    assert_eq!(text(&one), "t-1");
    group.store.broken.store(true, Ordering::SeqCst);
    assert!(one.invalidate().is_err());
    assert_eq!(text(&one), "t-1");
    assert_eq!(one.metrics().reinstated_tokens, 0);
}

#[test]
fn a_token_that_is_granted_again_while_the_store_is_down_is_written_without_its_rejection() {
    let provider = FakeProvider::new().then_grant("t-1", 7200 * SECOND).then_unchanged();
    let group = Group::of(provider);
    let one = group.manager();
    one.reject(&one.token().unwrap()).unwrap();
    group.store.broken.store(true, Ordering::SeqCst);
    assert_eq!(text(&one), "t-1");
    let calls = group.provider.calls();
    group.store.broken.store(false, Ordering::SeqCst);
    live(&one, &group);
    assert_eq!((text(&one).as_str(), one.metrics().rejections, group.provider.calls()), ("t-1", 1, calls));
    assert_eq!(text(&group.manager()), "t-1");
}
