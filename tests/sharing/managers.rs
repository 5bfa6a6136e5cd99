//! Managers that share a store in memory fetch once and adopt each other's tokens. Two managers stand for two
//! processes.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use evertoken::provider::{Grant, Profile};
use evertoken::testing::FakeProvider;
use evertoken::{Error, ErrorKind, EventKind, MemoryStore, TokenManager, TokenOrigin, TokenState};

use crate::common::stores::*;
use crate::common::wait::*;
use crate::group::Group;

#[test]
fn promise_3_many_managers_without_a_token_cost_one_fetch() {
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
fn promise_3_one_failed_fetch_answers_all_managers_until_its_retry_time() {
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
fn promise_3_a_due_token_is_refreshed_by_one_manager_and_adopted_by_the_others() {
    let group = Group::new();
    let managers: Vec<_> = (0..4).map(|_| group.manager()).collect();
    let events: Vec<_> = managers.iter().map(TokenManager::events).collect();
    for (manager, events) in managers.iter().zip(&events) {
        assert_eq!(text(manager), "token-1");
        wait_for_grant(events);
    }
    group.clock.advance(6900 * SECOND);
    // A manager that finds the lease taken checks again after two seconds at most.
    assert!(group.provider.wait_for_finished(2, PATIENCE));
    for (manager, events) in managers.iter().zip(&events) {
        eventually("the other managers adopt the token", || {
            let _ = events.recv_timeout(Duration::from_millis(50));
            group.clock.advance(Duration::from_millis(500));
            text(manager) == "token-2"
        });
    }
    assert_eq!(group.provider.calls(), 2);
}

#[test]
fn an_adopted_token_keeps_its_expiry_and_is_refreshed_in_time() {
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
fn a_token_that_is_not_in_use_is_compared_with_the_store_at_its_next_use() {
    let group = Group::new();
    let (one, other) = (group.manager(), group.manager());
    let bad = one.token().unwrap();
    text(&other);
    let events = other.events();
    one.reject(&bad).unwrap();
    group.clock.advance(300 * SECOND);
    // The first use may still return the old token, and starts a check.
    text(&other);
    wait_for(&events, |kind| matches!(kind, EventKind::Rejected { .. }).then_some(()));
    assert_eq!(text(&other), "token-2");
}

#[test]
fn promise_7_a_late_older_token_does_not_replace_a_newer_one() {
    let group = Group::new();
    let late = group.manager();
    let provider = group.provider.clone().gated();
    thread::scope(|scope| {
        let asking = scope.spawn(|| text(&late));
        assert!(provider.wait_for_calls(1, PATIENCE));
        // The lease expires while its holder is delayed; another manager fetches a token that expires later.
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
fn a_killed_lease_holder_blocks_the_others_until_its_lease_expires() {
    let group = Group::new();
    let gone = group.manager();
    let provider = group.provider.clone().gated();
    gone.warm_up();
    assert!(provider.wait_for_calls(1, PATIENCE));
    drop(gone);
    let other = group.manager();
    thread::scope(|scope| {
        let asking = scope.spawn(|| text(&other));
        // The lease lasts 7 s on the clock of the store, however long the fetch takes.
        group.clock.advance(7 * SECOND);
        assert!(provider.wait_for_calls(2, PATIENCE));
        provider.open();
        assert!(asking.join().unwrap().starts_with("token-"));
    });
}

/// An error of one process alone is not recorded: the process only frees its lease, which has another holder by then.
#[test]
fn promise_3_a_holder_of_an_expired_lease_does_not_free_the_lease_of_its_successor() {
    let ((late_begun, fail, hold_up_late), (next_begun, grant, hold_up_next)) = (waiting_fetch(), waiting_fetch());
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
        eventually("the manager waits for its successor, or fetches", || {
            group.store.waits.load(Ordering::SeqCst) > before || group.provider.calls() > 2
        });
        grant.send(()).unwrap();
        assert_eq!([fetching, waiting].map(|asking| asking.join().unwrap()), ["successors"; 2]);
    });
    assert_eq!(group.provider.calls(), 2);
}

#[test]
fn promise_7_a_late_failure_does_not_hide_a_token_that_another_manager_recorded() {
    let (begun, fail, hold_up) = waiting_fetch();
    let group = Group::of(FakeProvider::new().then(move |_| {
        hold_up();
        Err(Error::new(ErrorKind::InvalidCredentials, "the secret is wrong"))
    }));
    let (late, other) = (group.manager(), group.manager());
    thread::scope(|scope| {
        let failing = scope.spawn(|| late.token());
        begun.recv_timeout(PATIENCE).unwrap();
        // The lease expires while its holder is delayed.
        group.clock.advance(60 * SECOND);
        assert_eq!(text(&other), "token-1");
        fail.send(()).unwrap();
        assert_eq!(failing.join().unwrap().unwrap_err().kind(), ErrorKind::InvalidCredentials);
    });
    let next = group.manager();
    assert_eq!((text(&next).as_str(), next.status().retry_in), ("token-1", None));
    assert_eq!(next.force_refresh().unwrap().expose(), "token-2");
}

/// A fetch that waits: a receiver that reports its start, a sender that lets it go on, and the function that the fetch
/// runs.
fn waiting_fetch() -> (Receiver<()>, Sender<()>, impl FnOnce() + Send + 'static) {
    let [(begin, begun), (go_on, going_on)] = [(); 2].map(|()| crossbeam_channel::bounded(1));
    let hold_up = move || {
        begin.send(()).unwrap();
        going_on.recv_timeout(PATIENCE).unwrap();
    };
    (begun, go_on, hold_up)
}

#[test]
fn expiring_tokens_are_replaced_once_by_many_managers() {
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
            eventually("the expired token is dropped or replaced", at_rest);
        }
    }
}

#[test]
fn promise_2_an_unchanged_token_keeps_the_expiry_that_another_manager_recorded() {
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
fn promise_2_an_unchanged_token_keeps_its_expiry_although_another_one_is_recorded() {
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
fn promise_7_a_token_that_was_granted_later_stays_even_if_it_expires_sooner() {
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
fn managers_on_a_full_store_fetch_once() {
    let store = MemoryStore::new();
    fill(&store);
    let provider = FakeProvider::new().gated();
    let tokens = || TokenManager::builder(provider.clone()).store(store.clone()).build().unwrap();
    let (one, other) = (tokens(), tokens());
    thread::scope(|scope| {
        scope.spawn(|| text(&one));
        assert!(provider.wait_for_calls(1, PATIENCE));
        let waiting = scope.spawn(|| text(&other));
        // The other manager either waits for the lease or calls the provider as well: both count as fetching.
        eventually("the other manager asks for a token", || other.status().fetching);
        provider.open();
        waiting.join().unwrap();
    });
    assert_eq!(provider.calls(), 1);
}

/// Fills the store with ten thousand records, which is its capacity.
fn fill(store: &MemoryStore) {
    use evertoken::store::{Expected, Store};
    for number in 0..10_000 {
        let other = TokenManager::builder(FakeProvider::new()).key(&format!("k{number}")).build().unwrap();
        store.compare_and_swap(other.key(), Expected::Any, Some((b"x", HOUR))).unwrap();
    }
}

/// Simulations seed the random numbers of each run alike, and two containers may have equal process ids.
#[test]
fn managers_with_the_same_random_seed_have_different_lease_owners() {
    let (provider, store) = (FakeProvider::new().gated(), FaultyStore::default());
    let make = || {
        fastrand::seed(42);
        TokenManager::builder(provider.clone()).store(store.clone()).build().unwrap()
    };
    let (one, other) = (make(), make());
    thread::scope(|scope| {
        scope.spawn(|| text(&one));
        assert!(provider.wait_for_calls(1, PATIENCE));
        scope.spawn(|| text(&other));
        eventually("the other manager waits, or fetches too", || {
            store.waits.load(Ordering::SeqCst) + provider.calls() > 1
        });
        provider.open();
    });
    assert_eq!(provider.calls(), 1);
}
