//! Tickets that a vendor pushes and a program hands in with `set_ticket`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use evertoken::provider::{Grant, Identity, Profile, RenewalProfile};
use evertoken::store::{Expected, Store};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, ErrorKind, EventKind, MemoryStore, TokenManager};

use crate::common::renewal::*;
use crate::common::stores::*;
use crate::common::wait::*;

#[test]
fn a_ticket_replaces_an_unreadable_one() {
    let clock = FakeClock::new();
    let store = FaultyStore::on_clock(&clock);
    let tokens = builder(&needing_tickets(1), &clock).store(store.clone()).build().unwrap();
    tokens.set_ticket("ticket-1").unwrap();
    store.inner.compare_and_swap(&renewal_secret_key(&store), Expected::Any, Some((b"garbage", HOUR))).unwrap();
    tokens.set_ticket("ticket-2").unwrap();
    let another = builder(&needing_tickets(1), &clock).store(store).build().unwrap();
    assert_eq!(text(&another), "ticket-2-0");
}

#[test]
fn a_ticket_ends_the_cooldown_and_serves_all_managers_of_the_suite() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let tokens = builder(&needing_tickets(3), &clock).store(store.clone()).build().unwrap();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TicketRequired);
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TicketRequired);
    tokens.set_ticket("ticket-1").unwrap();
    assert_eq!(text(&tokens), "ticket-1-1");
    assert!(tokens.status().renewal_secret_age.is_some());

    let corp = FakeProvider::new().with_identity(Identity::new("another corp"));
    let corp = corp.with_renewal(RenewalProfile::ticket(Identity::new("suite"), HOUR / 2));
    let corp = corp.then(|context| Ok(Grant::new(context.renewal_secret().unwrap().clone(), HOUR)));
    let corp = builder(&corp, &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&corp), "ticket-1", "all of one suite have the ticket");
    let elsewhere = builder(&corp_provider_without_a_ticket(), &clock).store(store).build().unwrap();
    assert_eq!(elsewhere.token().unwrap_err().kind(), ErrorKind::TicketRequired);
}

fn corp_provider_without_a_ticket() -> FakeProvider {
    let keeps = RenewalProfile::ticket(Identity::new("another suite"), HOUR / 2);
    FakeProvider::new().with_identity(Identity::new("a third")).with_renewal(keeps).then(|context| {
        assert!(context.renewal_secret().is_none());
        Err(Error::new(ErrorKind::TicketRequired, "there is no ticket"))
    })
}

#[test]
fn an_expired_ticket_is_not_used() {
    for store in [false, true] {
        let clock = FakeClock::new();
        let memory = MemoryStore::with_clock(clock.clone());
        let tokens = builder(&needing_tickets(3), &clock);
        let tokens = if store { tokens.store(memory).build() } else { tokens.build() }.unwrap();
        tokens.set_ticket("ticket-1").unwrap();
        clock.advance(HOUR / 2);
        assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TicketRequired, "store: {store}");
        tokens.set_ticket("ticket-2").unwrap();
        assert_eq!(text(&tokens), "ticket-2-1");
    }
}

#[test]
fn the_latest_of_two_tickets_is_used() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let one = builder(&needing_tickets(1), &clock).store(store.clone()).build().unwrap();
    let another = builder(&needing_tickets(1), &clock).store(store).build().unwrap();
    one.set_ticket("ticket-1").unwrap();
    another.set_ticket("ticket-2").unwrap();
    assert_eq!(text(&one), "ticket-2-0");
}

#[test]
fn a_ticket_works_while_the_store_does_not_and_is_stored_when_it_is_back() {
    let clock = FakeClock::new();
    let store = FaultyStore::on_clock(&clock);
    store.broken.store(true, Ordering::SeqCst);
    let tokens = builder(&needing_tickets(2), &clock).store(store.clone()).build().unwrap();
    assert_eq!(tokens.set_ticket("ticket-1").unwrap_err().kind(), ErrorKind::Store);
    assert_eq!(text(&tokens), "ticket-1-0");
    let events = tokens.events();
    store.broken.store(false, Ordering::SeqCst);
    clock.advance(SECOND * 5);
    wait_for(&events, |kind| matches!(kind, EventKind::StoreUp).then_some(()));
    let another = builder(&needing_tickets(2), &clock).store(store).build().unwrap();
    another.invalidate().unwrap();
    assert_eq!(text(&another), "ticket-1-0");
}

#[test]
fn a_ticket_for_a_provider_that_takes_none_is_refused() {
    let plain = TokenManager::new(FakeProvider::new());
    assert_eq!(plain.set_ticket("ticket").unwrap_err().kind(), ErrorKind::Config);
    let rotating = TokenManager::new(rotating_provider(&RotatingServer::default()));
    assert_eq!(rotating.set_ticket("ticket").unwrap_err().kind(), ErrorKind::Config);
    let tokens = TokenManager::new(needing_tickets(0));
    for bad in ["", " ", &"x".repeat(4097)] {
        assert_eq!(tokens.set_ticket(bad).unwrap_err().kind(), ErrorKind::Config);
    }
}

#[test]
fn neither_status_nor_events_nor_debug_output_show_a_renewal_secret() {
    let clock = FakeClock::new();
    let tokens = builder(&needing_tickets(2), &clock).build().unwrap();
    let events = tokens.events();
    tokens.set_ticket("hunter2").unwrap();
    // The token contains the ticket, and is not shown either.
    assert_eq!(text(&tokens), "hunter2-0");
    let reported: Vec<_> = events.try_iter().map(|event| format!("{event} {event:?}")).collect();
    let shown = format!("{tokens:?} {} {:?} {reported:?}", tokens.status(), tokens.status());
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// A store that hangs writes the first of two tickets after the second was set, with a whole lifetime from then. The
/// older ticket must not count as the later one.
#[test]
fn a_late_write_of_a_ticket_does_not_replace_a_newer_one() {
    let clock = FakeClock::new();
    let store = HookedStore::on_clock(&clock);
    let (go, may_go) = bounded::<()>(0);
    let hung = AtomicBool::new(false);
    store.before_write(move |key, _| {
        if key.as_str().ends_with(":state") && !hung.swap(true, Ordering::SeqCst) {
            let _ = may_go.recv_timeout(SECOND * 20);
        }
        Ok(())
    });
    let tokens = builder(&needing_tickets(9), &clock).store(store.clone()).build().unwrap();
    tokens.set_ticket("ticket-1").unwrap_err();
    clock.advance(SECOND / 2);
    tokens.set_ticket("ticket-2").unwrap_err();
    clock.advance(SECOND / 2);
    go.send(()).unwrap();
    eventually("the late write takes effect", || store.renewal_secret().is_some());
    assert!(store.renewal_secret_text().contains("ticket-1"), "it was given up, and landed all the same");
    clock.advance(SECOND * 60);
    let got = text(&tokens);
    assert!(got.starts_with("ticket-2"), "{got}");
}

/// The store is flushed and a manager stores its old ticket again. A manager with the newer ticket keeps that.
#[test]
fn after_a_flush_an_older_ticket_does_not_replace_a_newer_one() {
    let clock = FakeClock::new();
    let store = HookedStore::on_clock(&clock);
    let old = builder(&needing_tickets(9), &clock).store(store.clone()).build().unwrap();
    let new = builder(&needing_tickets(9), &clock).store(store.clone()).build().unwrap();
    old.set_ticket("ticket-1").unwrap();
    assert_eq!(text(&old), "ticket-1-0");
    clock.advance(SECOND * 600);
    new.set_ticket("ticket-2").unwrap();
    assert_eq!(text(&new), "ticket-1-0");
    let key = store.key(":state");
    store.inner.compare_and_swap(&key, Expected::Any, None).unwrap();
    old.force_refresh().unwrap();
    new.invalidate().unwrap();
    let got = text(&new);
    assert!(got.starts_with("ticket-2"), "{got}");
}

/// A ticket is set during a fetch without one. The fetch fails with `TicketRequired`, and leaves no cooldown, neither
/// in the manager nor in the record.
#[test]
fn a_ticket_that_comes_during_a_fetch_leaves_no_cooldown() {
    ticket_during_a_fetch(false);
}

/// As above with a store.
#[test]
fn a_ticket_that_comes_during_a_fetch_leaves_no_cooldown_in_any_manager() {
    ticket_during_a_fetch(true);
}

fn ticket_during_a_fetch(shared: bool) {
    {
        let clock = FakeClock::new();
        let keeps = RenewalProfile::ticket(Identity::new("suite"), HOUR / 2);
        let (entered, has_entered) = bounded(1);
        let (go, may_go) = bounded(1);
        let provider = FakeProvider::new()
            .with_renewal(keeps)
            .then(move |context| {
                assert!(context.renewal_secret().is_none());
                entered.send(()).unwrap();
                let _ = may_go.recv_timeout(SECOND * 5);
                Err(Error::new(ErrorKind::TicketRequired, "there is no ticket"))
            })
            .then(|context| Ok(Grant::new(context.renewal_secret().unwrap().clone(), HOUR)));
        let tokens = builder(&provider, &clock);
        let store = MemoryStore::with_clock(clock.clone());
        let tokens = if shared { tokens.store(store) } else { tokens }.build().unwrap();
        let events = tokens.events();
        tokens.warm_up();
        has_entered.recv().unwrap();
        tokens.set_ticket("ticket-1").unwrap();
        go.send(()).unwrap();
        eventually("the first fetch has ended", || !tokens.status().fetching);
        drop(events);
        let got = tokens.token().map(|token| token.expose().to_owned());
        assert_eq!(got.map_err(|error| error.kind()), Ok("ticket-1".into()), "shared: {shared}");
    }
}

/// A process that only receives tickets (a callback server) and has no token stores them too.
#[test]
fn an_unstored_ticket_is_stored_later_by_a_process_without_a_token() {
    let clock = FakeClock::new();
    let store = HookedStore::on_clock(&clock);
    store.before_write(|_, _| Err(store_error()));
    let callback = builder(&needing_tickets(9), &clock).store(store.clone()).build().unwrap();
    assert_eq!(callback.set_ticket("ticket-1").unwrap_err().kind(), ErrorKind::Store);
    store.remove_hook();
    let user = builder(&needing_tickets(9), &clock).store(store.clone()).build().unwrap();
    let stored = becomes_so(&clock, SECOND * 5, || user.token().is_ok());
    assert!(stored, "{:?}", user.token().unwrap_err());
    drop(callback);
}

/// A process without a ticket notices a new one at its next check of the store, even during a cooldown of an hour.
#[test]
fn a_ticket_ends_the_cooldown_of_other_processes_within_the_store_check_interval() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let manager = || {
        let tokens = builder(&needing_tickets(9), &clock).store(store.clone());
        tokens.backoff(HOUR / 2, HOUR / 2).store_check_interval(SECOND * 60).build().unwrap()
    };
    let (one, another) = (manager(), manager());
    assert_eq!(another.token().unwrap_err().kind(), ErrorKind::TicketRequired);
    one.set_ticket("ticket-1").unwrap();
    clock.advance(SECOND * 61);
    eventually("the manager has checked the store", || another.token().is_ok());
}

/// Tickets are numbered from when the store was empty. After a flush the ticket with the higher number can be the older
/// one.
#[test]
fn after_a_flush_an_older_ticket_with_a_higher_number_does_not_replace_a_newer_one() {
    let clock = FakeClock::new();
    let memory = MemoryStore::with_clock(clock.clone());
    let store = HookedStore::over(&memory);
    let old = builder(&needing_tickets(20), &clock).store(store.clone()).build().unwrap();
    for ticket in ["ticket-1", "ticket-2", "ticket-3"] {
        old.set_ticket(ticket).unwrap();
        clock.advance(SECOND);
    }
    assert_eq!(text(&old), "ticket-3-0");
    store.flush();
    clock.advance(SECOND * 600);
    let new = builder(&needing_tickets(20), &clock).store(store.clone()).build().unwrap();
    new.set_ticket("ticket-4").unwrap();
    let got = old.force_refresh().unwrap().expose().to_owned();
    assert!(got.starts_with("ticket-4"), "the old one asks with {got}");
    let got = new.force_refresh().unwrap().expose().to_owned();
    assert!(got.starts_with("ticket-4"), "the one that was handed the newer one asks with {got}");
}

/// Without a flush: one process is cut off from the store and gets two tickets, another process gets the third.
#[test]
fn tickets_set_during_an_outage_do_not_replace_a_later_one_of_another_process() {
    let clock = FakeClock::new();
    let memory = MemoryStore::with_clock(clock.clone());
    let (near, far) = (HookedStore::over(&memory), HookedStore::over(&memory));
    let one = builder(&needing_tickets(20), &clock).store(near).build().unwrap();
    let another = builder(&needing_tickets(20), &clock).store(far.clone()).build().unwrap();
    // In steps, with time for work in flight: a check during which minutes pass would count the ticket as much older.
    let two_minutes_pass = || {
        for _ in 0..24 {
            clock.advance(SECOND * 5);
            thread::sleep(Duration::from_millis(5));
        }
    };
    one.set_ticket("ticket-0").unwrap();
    assert_eq!(text(&another), "ticket-0-0");
    far.set_hook(|_, _| Err(store_error()));
    for ticket in ["ticket-1", "ticket-2"] {
        another.set_ticket(ticket).unwrap_err();
        two_minutes_pass();
    }
    one.set_ticket("ticket-3").unwrap();
    two_minutes_pass();
    far.remove_hook();
    let mut got = String::new();
    // The manager may use its own ticket until it asks the store again.
    let forced = becomes_so(&clock, SECOND * 5, || {
        got = another.force_refresh().map_or_else(|_| got.clone(), |token| token.expose().to_owned());
        assert!(far.renewal_secret_text().contains("ticket-3"), "stored: {}", far.renewal_secret_text());
        got.starts_with("ticket-3")
    });
    assert!(forced, "asks with {got}; stored: {}", far.renewal_secret_text());
}

/// Two tickets are set at once in one process, and the second one arrives between two steps of the first.
#[test]
fn the_second_of_two_tickets_set_at_once_is_used() {
    let clock = FakeClock::new();
    let store = HookedStore::over(&MemoryStore::with_clock(clock.clone()));
    let tokens = builder(&needing_tickets(20), &clock).store(store.clone()).build().unwrap();
    let (entered, has_entered) = bounded(1);
    let (go, may_go) = bounded::<()>(1);
    let is_first = AtomicBool::new(true);
    store.set_hook(move |key, step| {
        if step == Step::BeforeRead && key.as_str().ends_with(":state") && is_first.swap(false, Ordering::SeqCst) {
            entered.send(()).unwrap();
            let _ = may_go.recv_timeout(SECOND / 2);
        }
        Ok(())
    });
    thread::scope(|scope| {
        let first = scope.spawn(|| tokens.set_ticket("ticket-1"));
        has_entered.recv().unwrap();
        clock.advance(SECOND);
        tokens.set_ticket("ticket-2").unwrap();
        go.send(()).unwrap();
        first.join().unwrap().unwrap();
    });
    let got = text(&tokens);
    assert!(got.starts_with("ticket-2"), "asks with {got}; stored: {}", store.renewal_secret_text());
}

/// A token that is due and unused stops the checks of the store, but an unstored ticket must be stored.
#[test]
fn a_ticket_is_stored_when_the_store_is_back_although_the_current_token_is_due_and_unused() {
    let clock = FakeClock::new();
    let store = HookedStore::over(&MemoryStore::with_clock(clock.clone()));
    let provider = needing_tickets(20).with_profile(Profile::default());
    let tokens = builder(&provider, &clock).store(store.clone()).refresh_ahead(HOUR).build().unwrap();
    let another = builder(&needing_tickets(20), &clock).store(store.clone()).build().unwrap();
    another.set_ticket("ticket-1").unwrap();
    // Adopted, without a call that returns it.
    another.token().unwrap();
    tokens.warm_up();
    eventually("the manager has a token", || tokens.status().fingerprint.is_some() && !tokens.status().fetching);
    clock.advance(HOUR * 3 / 2);
    thread::sleep(SECOND / 5);
    assert_eq!(tokens.status().refresh_in, Some(Duration::ZERO));
    assert!(!tokens.status().fetching);
    let fails = Arc::new(AtomicBool::new(true));
    let failing = fails.clone();
    store.set_hook(move |_, _| if failing.load(Ordering::SeqCst) { Err(store_error()) } else { Ok(()) });
    tokens.set_ticket("ticket-2").unwrap_err();
    fails.store(false, Ordering::SeqCst);
    let stored = becomes_so(&clock, SECOND * 5, || store.renewal_secret_text().contains("ticket-2"));
    assert!(stored, "more than three minutes later: {}", store.renewal_secret_text());
}

/// An idle manager that missed a ticket long ago.
#[test]
fn a_manager_that_missed_a_ticket_stops_asking_the_store() {
    let clock = FakeClock::new();
    let store = HookedStore::over(&MemoryStore::with_clock(clock.clone()));
    let tokens = builder(&needing_tickets(20), &clock).store(store.clone()).build().unwrap();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TicketRequired);
    for _ in 0..30 {
        clock.advance(SECOND * 61);
        thread::sleep(SECOND / 50);
    }
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    store.set_hook(move |_, step| {
        counted.fetch_add(usize::from(step == Step::BeforeRead), Ordering::SeqCst);
        Ok(())
    });
    for _ in 0..30 {
        clock.advance(SECOND * 61);
        thread::sleep(SECOND / 50);
    }
    let reads = count.load(Ordering::SeqCst);
    assert!(reads < 5, "{reads} reads in half an hour, half an hour after anybody asked");
}

/// The wall clock is set back between two tickets, so that the older one looks younger.
#[test]
fn a_ticket_from_before_the_clock_was_set_back_does_not_replace_a_later_one() {
    let clock = FakeClock::new();
    let memory = MemoryStore::with_clock(clock.clone());
    let (near, far) = (HookedStore::over(&memory), HookedStore::over(&memory));
    let one = builder(&needing_tickets(20), &clock).store(near).build().unwrap();
    let another = builder(&needing_tickets(20), &clock).store(far.clone()).build().unwrap();
    one.set_ticket("ticket-0").unwrap();
    assert_eq!(text(&another), "ticket-0-0");
    far.set_hook(|_, _| Err(store_error()));
    another.set_ticket("ticket-1").unwrap_err();
    clock.step_back(HOUR / 4);
    clock.advance(SECOND * 120);
    one.set_ticket("ticket-2").unwrap();
    far.remove_hook();
    let stored = || far.renewal_secret_text();
    let waits =
        becomes_so(&clock, SECOND * 5, || another.status().store_down_for.is_none() && !another.status().fetching);
    assert!(waits && stored().contains("ticket-2"), "{}", stored());
}

/// A vendor that pushes the same ticket again confirms its validity, with and without a store.
#[test]
fn a_ticket_that_is_pushed_again_is_valid_for_longer() {
    for shared in [false, true] {
        let clock = FakeClock::new();
        let tokens = builder(&needing_tickets(20), &clock);
        let store = MemoryStore::with_clock(clock.clone());
        let tokens = if shared { tokens.store(store).build() } else { tokens.build() }.unwrap();
        for _ in 0..3 {
            tokens.set_ticket("ticket-1").unwrap();
            clock.advance(SECOND * 700);
        }
        let got = tokens.token();
        assert!(got.is_ok(), "shared: {shared}: {}", got.unwrap_err());
    }
}
