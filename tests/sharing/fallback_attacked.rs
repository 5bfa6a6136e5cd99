//! Faults of the second store, and of taking a token from a store at once, that were found by an attack and mended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::fragile::{AtHand, Fragile};
use crate::common::two_stores::Host;
use crate::common::wait::*;
use evertoken::provider::{Grant, Identity, RenewalProfile};
use evertoken::store::{Entry, Expected, Key, Store, SwapOutcome};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, ErrorKind, EventKind, MemoryStore, TokenManager};

/// A lasting manager counts the tokens of the first store; a new process of the host, which cannot read that one, begins
/// to count anew in the second. Its token is newer all the same.
#[test]
fn a_token_of_the_second_store_is_taken_over_though_its_number_is_lower() {
    let host = Host::of(FakeProvider::new().lifetime(2 * HOUR));
    let lasting = host.manager();
    text(&lasting);
    for _ in 0..3 {
        lasting.force_refresh().unwrap();
    }
    assert_eq!(text(&lasting), "token-4");
    host.break_first(true);
    host.clock.advance(HOUR);
    eventually("it is handed to the second store", || {
        lasting.try_token();
        host.recorded(&host.second).contains("token-4") && !lasting.status().fetching
    });
    let during = host.manager();
    assert_eq!(text(&during), "token-4");
    assert_eq!(during.force_refresh().unwrap().expose(), "token-5");
    // The held one is late now, and the one in the second store is good for an hour.
    host.clock.advance(HOUR - 30 * SECOND);
    let asked = Instant::now();
    let got = lasting.token_within(3 * SECOND).map(|token| token.expose().to_owned());
    let asked_second = host.second.operations.load(Ordering::SeqCst);
    assert_eq!(got.unwrap(), "token-5", "after {:?} and {asked_second} operations of the second", asked.elapsed());
}

/// Another host still holds an older token that ends later. The numbers alone say which of the two was granted later.
#[test]
fn promise_7_a_token_that_was_brought_over_is_newer_for_those_who_hold_an_older_one_that_ends_later() {
    let provider = FakeProvider::new().then_grant("first", 5 * HOUR).then_grant("second", HOUR / 2);
    let host = Host::of(provider.then_grant("third", HOUR));
    let (idle, lasting) = (host.elsewhere(), host.manager());
    assert_eq!((text(&idle), text(&lasting)), ("first".to_owned(), "first".to_owned()));
    assert_eq!(lasting.force_refresh().unwrap().expose(), "second");
    host.clock.advance(HOUR);
    host.break_first(true);
    // It has never seen the first store, and counts anew.
    assert_eq!(text(&host.manager()), "third");
    host.break_first(false);
    assert_eq!(text(&lasting), "third");
    // The first use may still get the older one, and has it looked up.
    eventually("it is taken over", || text(&idle) == "third");
    assert_eq!((text(&host.manager()).as_str(), host.provider.calls()), ("third", 3));
}

/// What was wrong was the want of a ticket; the ticket has come.
#[test]
fn a_ticket_that_is_handed_in_during_an_outage_ends_the_failure_that_the_second_store_keeps() {
    let keeps = RenewalProfile::ticket(Identity::new("suite"), HOUR / 2);
    let provider = (0..5).fold(FakeProvider::new().with_renewal(keeps), |provider, _| {
        provider.then(|context| match context.renewal_secret() {
            Some(ticket) => Ok(Grant::new(format!("{}-token", ticket.expose()), 2 * HOUR)),
            None => Err(Error::new(ErrorKind::TicketRequired, "there is no ticket")),
        })
    });
    let host = Host::of(provider);
    host.break_first(true);
    let tokens = host.manager();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TicketRequired);
    let _ = tokens.set_ticket("ticket");
    assert_eq!(text(&tokens), "ticket-token");
}

#[test]
fn what_was_invalidated_does_not_come_back_from_the_second_store() {
    let host = Host::new();
    host.break_first(true);
    assert_eq!(text(&host.manager()), "token-1");
    host.break_first(false);
    let next = host.manager();
    next.invalidate().unwrap();
    assert_eq!(text(&next), "token-2");
}

/// The rejection was told to the first store, which is down again: nobody on this host can hear of it there.
#[test]
fn promise_4_what_was_rejected_while_the_first_store_worked_is_not_handed_out_when_it_is_down_again() {
    let host = Host::new();
    host.break_first(true);
    let bad = host.manager().token().unwrap();
    host.break_first(false);
    // By a process that never was without the first store.
    host.manager().reject(&bad).unwrap();
    host.break_first(true);
    assert_eq!(text(&host.manager()), "token-2");
}

/// As a program does that is started often: each process lives for one call.
#[test]
fn promise_4_and_7_a_new_process_prefers_what_the_second_store_has_when_it_is_newer() {
    let host = Host::new();
    let bad = host.manager().token().unwrap();
    assert_eq!(bad.expose(), "token-1");
    host.break_first(true);
    let during = host.manager();
    // The held one came from the first store, and is refused by the service now.
    assert!(during.reject(&bad).is_err());
    drop(during);
    assert_eq!(text(&host.manager()), "token-2");
    host.break_first(false);
    assert_eq!(text(&host.manager()), "token-2");
    assert!(host.recorded(&host.first).contains("token-2"));
}

/// Two outages with a rejection on another host between them.
#[test]
fn promise_4_what_the_first_store_has_replaced_is_not_handed_out_in_the_next_outage() {
    let host = Host::new();
    host.break_first(true);
    assert_eq!(text(&host.manager()), "token-1");
    host.break_first(false);
    // Another host fetches, and this one finds that in the first store, again and again.
    let other = host.elsewhere();
    assert_eq!(text(&other), "token-2");
    for _ in 0..10 {
        assert_eq!(text(&host.manager()), "token-2");
    }
    host.break_first(true);
    assert_ne!(text(&host.manager()), "token-1");
}

#[test]
fn a_second_store_that_is_the_first_one_does_not_lose_its_records() {
    let (provider, clock) = (FakeProvider::new(), FakeClock::new());
    let store = Fragile::on_clock(&clock);
    let make = || builder(&provider, &clock).store(store.clone()).fallback_store(store.clone()).build().unwrap();
    let tokens = make();
    assert_eq!(text(&tokens), "token-1");
    for _ in 0..3 {
        let before = store.operations.load(Ordering::SeqCst);
        tokens.try_token();
        clock.advance(61 * SECOND);
        eventually("it looks", || {
            tokens.try_token();
            store.operations.load(Ordering::SeqCst) > before && !tokens.status().fetching
        });
    }
    assert_eq!((text(&make()).as_str(), provider.calls()), ("token-1", 1));
}

type Write = Arc<Mutex<Option<(Vec<u8>, Duration)>>>;

/// A store in which somebody else writes a rejection just before a publication.
#[derive(Clone, Debug)]
struct Raced {
    inner: Fragile,
    before_the_next_write: Write,
    armed: Arc<AtomicBool>,
}

impl Store for Raced {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.inner.read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        if !key.as_str().ends_with(":lock")
            && new.is_some()
            && self.armed.load(Ordering::SeqCst)
            && let Some((bytes, life)) = self.before_the_next_write.lock().unwrap().take()
        {
            self.inner.inner.compare_and_swap(key, Expected::Any, Some((&bytes, life))).unwrap();
        }
        self.inner.compare_and_swap(key, expected, new)
    }
}

/// "Nothing fetched is lost": the first store has no token then, only a rejection of another one.
#[test]
fn promise_7_a_token_of_the_second_store_is_not_dropped_for_a_record_without_a_token() {
    let host = Host::of(FakeProvider::new().lifetime(HOUR));
    // The bytes of a record that rejects a token that would have lived for long.
    let (long, spare) = (FakeProvider::new().lifetime(5 * HOUR), Fragile::on_clock(&host.clock));
    let rejecting = builder(&long, &host.clock).store(spare.clone()).build().unwrap();
    let bad = rejecting.token().unwrap();
    rejecting.reject(&bad).unwrap();
    let rejection = spare.inner.read(rejecting.key()).unwrap().unwrap();

    let raced = Raced {
        inner: host.first.clone(),
        before_the_next_write: Arc::new(Mutex::new(Some((rejection.bytes().to_vec(), rejection.remaining())))),
        armed: Arc::default(),
    };
    let make = || {
        builder(&host.provider, &host.clock).store(raced.clone()).fallback_store(host.second.clone()).build().unwrap()
    };
    let lasting = make();
    text(&lasting);
    host.break_first(true);
    host.clock.advance(HOUR / 2);
    assert_eq!(make().force_refresh().unwrap().expose(), "token-2");
    host.break_first(false);
    raced.armed.store(true, Ordering::SeqCst);
    let name = format!("token-{}", host.provider.calls());
    for _ in 0..4 {
        let before = host.first.operations.load(Ordering::SeqCst);
        lasting.try_token();
        host.clock.advance(61 * SECOND);
        eventually("it looks", || {
            lasting.try_token();
            host.first.operations.load(Ordering::SeqCst) > before && !lasting.status().fetching
        });
    }
    assert!(raced.before_the_next_write.lock().unwrap().is_none(), "the race was had");
    let kept = host.recorded(&host.first).contains(&name) || host.recorded(&host.second).contains(&name);
    assert!(kept, "first: {}\nsecond: {}", host.recorded(&host.first), host.recorded(&host.second));
}

/// A store with something at hand whose reading takes its time, as on a slow disk.
#[derive(Debug)]
struct Slow(MemoryStore);

impl Store for Slow {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.0.read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        self.0.compare_and_swap(key, expected, new)
    }

    fn read_at_once(&self, _: &Key) -> Option<Entry> {
        std::thread::sleep(Duration::from_millis(300));
        None
    }
}

#[test]
fn promise_5_what_is_read_at_once_counts_among_the_time_of_the_call() {
    let provider = FakeProvider::new().gated();
    let tokens = TokenManager::builder(provider.clone()).store(Slow(MemoryStore::new())).build().unwrap();
    let asked = Instant::now();
    assert!(tokens.token_within(Duration::from_millis(350)).is_err());
    let took = asked.elapsed();
    provider.open();
    assert!(took < Duration::from_millis(550), "{took:?}");
}

/// Nobody asked the refresher anything yet; the token found at once is renewed all the same.
#[test]
fn a_token_that_was_found_at_once_is_renewed_ahead_when_it_is_in_use() {
    let (provider, clock) = (FakeProvider::new(), FakeClock::new());
    let store = AtHand(Fragile::on_clock(&clock));
    text(&builder(&provider, &clock).store(store.clone()).build().unwrap());
    let tokens = builder(&provider, &clock).store(store).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    assert_eq!(tokens.try_token().unwrap().expose(), "token-1");
    clock.advance(2 * HOUR - 200 * SECOND);
    eventually("it is renewed", || tokens.try_token().unwrap().expose() == "token-2");
}

/// Two hosts without their Redis, and a provider whose tokens end each other.
#[test]
fn hosts_without_their_store_do_not_take_the_tokens_from_each_other_without_end() {
    use evertoken::provider::Profile;
    let provider = FakeProvider::new().with_profile(Profile::default().new_token_ends_old(true));
    let clock = FakeClock::new();
    let first = Fragile::on_clock(&clock);
    first.broken.store(true, Ordering::SeqCst);
    let hosts: Vec<_> = (0..2)
        .map(|_| {
            let files = MemoryStore::with_clock(clock.clone());
            builder(&provider, &clock).store(first.clone()).fallback_store(files).build().unwrap()
        })
        .collect();
    for round in 0..40 {
        let host = &hosts[round % 2];
        // The service refuses every token but the latest.
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

/// As a program does that ends at once: the first store breaks while it fetches, and the second one is at hand.
#[test]
fn promise_7_a_token_that_the_first_store_does_not_take_is_in_the_second_before_the_call_returns() {
    let broken: Arc<Mutex<Option<Arc<AtomicBool>>>> = Arc::default();
    let breaks = broken.clone();
    let host = Host::of(FakeProvider::new().then(move |_| {
        breaks.lock().unwrap().as_ref().unwrap().store(true, Ordering::SeqCst);
        Ok(Grant::new("token-1", 2 * HOUR))
    }));
    *broken.lock().unwrap() = Some(host.first.broken.clone());
    assert_eq!(text(&host.manager()), "token-1");
    assert_eq!((text(&host.manager()).as_str(), host.provider.calls()), ("token-1", 1));
}

/// Every minute, for each manager, as long as all is well.
#[test]
fn a_fallback_store_costs_the_first_one_no_operation_more_while_that_works() {
    let looks = |with: bool| {
        let host = Host::new();
        let builder = builder(&host.provider, &host.clock).store(host.first.clone());
        let tokens = if with { builder.fallback_store(host.second.clone()) } else { builder }.build().unwrap();
        text(&tokens);
        let before = host.first.operations.load(Ordering::SeqCst);
        tokens.try_token();
        host.clock.advance(61 * SECOND);
        eventually("it looks", || {
            tokens.try_token();
            host.first.operations.load(Ordering::SeqCst) > before && !tokens.status().fetching
        });
        host.first.operations.load(Ordering::SeqCst) - before
    };
    assert_eq!(looks(true), looks(false));
}

/// All of them read it at once; it comes once.
#[test]
fn a_token_that_many_threads_find_at_once_is_adopted_once() {
    for _ in 0..50 {
        let (provider, clock) = (FakeProvider::new(), FakeClock::new());
        let store = AtHand(Fragile::on_clock(&clock));
        text(&builder(&provider, &clock).store(store.clone()).build().unwrap());
        let tokens = builder(&provider, &clock).store(store).build().unwrap();
        let events = tokens.events();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| assert_eq!(text(&tokens), "token-1"));
            }
        });
        let granted = events.try_iter().filter(|event| matches!(event.kind, evertoken::EventKind::Granted { .. }));
        assert_eq!((granted.count(), tokens.metrics().tokens_from_store, provider.calls()), (1, 1, 1));
    }
}

/// A long outage, in which a rejected token is granted again. What is brought over from the second store has its number from
/// there, or it would count as older than what the others hold.
#[test]
fn promise_4_a_token_that_was_granted_again_in_an_outage_is_not_recorded_over_a_later_rejection() {
    for is_replaced in [false, true] {
        let names = ["a", "b", "c", "c", "d", "e"];
        let host = Host::of(names.into_iter().fold(FakeProvider::new(), |all, name| all.then_grant(name, 5 * HOUR)));
        let lasting = host.manager();
        text(&lasting);
        host.break_first(true);
        for expected in ["a", "b", "c"] {
            host.clock.advance(100 * SECOND);
            let token = lasting.token().unwrap();
            assert_eq!(token.expose(), expected);
            lasting.reject(&token).unwrap_err();
        }
        assert_eq!(text(&lasting), "c");
        host.break_first(false);
        let next = host.manager();
        let bad = next.token().unwrap();
        assert_eq!(bad.expose(), "c");
        next.reject(&bad).unwrap();
        if is_replaced {
            assert_eq!(text(&next), "d");
        }
        host.live(&lasting);
        assert_ne!(text(&host.manager()), "c", "replaced: {is_replaced}");
    }
}

#[test]
fn one_store_that_is_given_twice_is_told_to_be_up_again() {
    let host = Host::new();
    let tokens = builder(&host.provider, &host.clock).store(host.first.clone());
    let tokens = tokens.fallback_store(host.first.clone()).build().unwrap();
    let events = tokens.events();
    text(&tokens);
    host.break_first(true);
    host.live(&tokens);
    host.break_first(false);
    host.live(&tokens);
    let of_store = |kind: &EventKind| matches!(kind, EventKind::StoreDown { .. } | EventKind::StoreUp);
    let told: Vec<_> = events.try_iter().map(|event| event.kind).filter(of_store).collect();
    assert!(matches!(told[..], [EventKind::StoreDown { .. }, EventKind::StoreUp]), "{told:#?}");
}

/// A store that is known to lack the token gets it, though nobody asks for one again.
#[test]
fn promise_7_a_token_that_nobody_uses_again_is_written_to_the_first_store_when_that_is_back() {
    for fetched_before in [false, true] {
        let host = Host::new();
        host.break_first(true);
        if fetched_before {
            // By another process of the host, so that the token is adopted.
            text(&host.manager());
        }
        let tokens = host.manager();
        assert_eq!(text(&tokens), "token-1");
        host.break_first(false);
        host.clock.advance(61 * SECOND);
        eventually("it is written", || host.recorded(&host.first).contains("token-1"));
    }
}

/// A Redis that keeps nothing on a disk was restarted, and the provider gives the same token until its end.
#[test]
fn promise_4_a_rejection_that_only_the_second_store_has_goes_to_a_first_one_that_comes_back_empty() {
    let host = Host::of(FakeProvider::new().then_grant("same", 2 * HOUR).then_unchanged());
    let tokens = host.manager();
    let bad = tokens.token().unwrap();
    host.break_first(true);
    assert!(tokens.reject(&bad).is_err(), "other hosts could not be told");
    drop(tokens);
    host.first.inner.compare_and_swap(host.elsewhere().key(), Expected::Any, None).unwrap();
    host.break_first(false);
    host.clock.advance(HOUR);
    // Not of use to it, so nothing of it is handed out.
    host.provider.always_fail(Some(Error::new(ErrorKind::Unavailable, "the provider is down")));
    host.manager().token().unwrap_err();
    assert!(host.recorded(&host.first).contains(bad.fingerprint()), "{}", host.recorded(&host.first));
    assert!(host.record(&host.second).is_none(), "what has been handed over is over there");
    host.provider.always_fail(None);
    host.clock.advance(60 * SECOND);
    let again = host.elsewhere().token().unwrap();
    assert_eq!((again.expose(), again.remaining()), ("same", HOUR - 60 * SECOND));
}

#[test]
fn promise_4_a_rejection_that_only_the_second_store_has_joins_a_later_token_in_the_first() {
    let host = Host::new();
    let tokens = host.manager();
    let bad = tokens.token().unwrap();
    host.break_first(true);
    assert!(tokens.reject(&bad).is_err(), "other hosts could not be told");
    drop(tokens);
    let other = host.elsewhere();
    assert_eq!((text(&other).as_str(), other.force_refresh().unwrap().expose()), (bad.expose(), "token-2"));
    host.break_first(false);
    assert_eq!(text(&host.manager()), "token-2");
    let first = host.recorded(&host.first);
    assert!(first.contains("token-2") && first.contains(bad.fingerprint()), "{first}");
    assert!(host.record(&host.second).is_none(), "what has been handed over is over there");
}

/// What it holds is not recorded by it; another brought it over from the second store, and the service refused it then.
#[test]
fn promise_4_who_holds_a_token_since_the_outage_does_not_undo_a_later_rejection_of_it() {
    let host = Host::new();
    host.break_first(true);
    let (fetched, adopted) = (host.manager(), host.manager());
    assert_eq!((text(&fetched), text(&adopted)), ("token-1".to_owned(), "token-1".to_owned()));
    host.break_first(false);
    let next = host.manager();
    let bad = next.token().unwrap();
    assert_eq!(bad.expose(), "token-1");
    next.reject(&bad).unwrap();
    assert_eq!(text(&next), "token-2");
    for holder in [&fetched, &adopted] {
        host.live(holder);
        assert_eq!((text(holder).as_str(), text(&host.elsewhere()).as_str()), ("token-2", "token-2"));
    }
    assert!(host.recorded(&host.first).contains(bad.fingerprint()));
    assert_eq!(host.provider.calls(), 2);
}

/// The provider gives the host the rejected token again, as there is no other yet; then another host gets the next one.
#[test]
fn promise_4_a_token_that_was_granted_again_during_the_outage_does_not_replace_a_newer_one() {
    let provider = FakeProvider::new().then_grant("first", 2 * HOUR).then_grant("first", 2 * HOUR);
    let host = Host::of(provider.then_grant("second", HOUR));
    let lasting = host.manager();
    lasting.reject(&lasting.token().unwrap()).unwrap();
    host.break_first(true);
    assert_eq!(text(&lasting), "first");
    assert_eq!(text(&host.elsewhere()), "second");
    host.break_first(false);
    host.live(&lasting);
    assert_eq!((text(&lasting).as_str(), text(&host.elsewhere()).as_str()), ("second", "second"));
    assert_eq!(host.provider.calls(), 3);
}

/// Who starts during the outage cannot read the first store, and fetches another token, which the second store then has.
#[test]
fn promise_4_a_rejection_during_the_outage_is_kept_beside_another_token_of_the_second_store() {
    let provider = FakeProvider::new().then_grant("first", 5 * HOUR).then_grant("second", HOUR);
    let host = Host::of(provider.then_grant("third", HOUR));
    let lasting = host.manager();
    let bad = lasting.token().unwrap();
    host.break_first(true);
    assert_eq!(text(&host.manager()), "second");
    assert!(lasting.reject(&bad).is_err(), "other hosts could not be told");
    drop(lasting);
    assert_eq!(text(&host.manager()), "second");
    host.break_first(false);
    assert_eq!((text(&host.manager()).as_str(), text(&host.elsewhere()).as_str()), ("second", "second"));
    assert!(host.recorded(&host.first).contains(bad.fingerprint()));
}

/// As a Redis that has become a replica, or is full.
#[test]
fn promise_4_a_rejection_reaches_the_processes_of_a_host_whose_first_store_can_only_be_read() {
    let host = Host::new();
    let (brief, lasting) = (host.manager(), host.manager());
    let bad = brief.token().unwrap();
    assert_eq!(text(&lasting), bad.expose());
    let events = lasting.events();
    *host.first.unwritable.lock().unwrap() = Some("");
    assert!(brief.reject(&bad).is_err(), "other hosts could not be told");
    drop(brief);
    host.live(&lasting);
    assert_eq!((text(&lasting).as_str(), text(&host.manager()).as_str()), ("token-2", "token-2"));
    let is_of_the_store = |kind: &EventKind| matches!(kind, EventKind::StoreDown { .. } | EventKind::StoreUp);
    let told = || events.try_iter().map(|event| event.kind).filter(is_of_the_store).collect::<Vec<_>>();
    let down = told();
    assert!(matches!(down[..], [EventKind::StoreDown { .. }]), "{down:?}");
    *host.first.unwritable.lock().unwrap() = None;
    host.live(&lasting);
    let up = told();
    assert!(matches!(up[..], [EventKind::StoreUp]), "{up:?}");
    assert_eq!((text(&host.elsewhere()).as_str(), host.provider.calls()), ("token-2", 2));
}

/// What the second store has cannot be handed over, and each look finds it there.
#[test]
fn that_the_first_store_can_only_be_read_is_told_once() {
    let host = Host::new();
    let (brief, next) = (host.manager(), host.elsewhere());
    let bad = brief.token().unwrap();
    assert_eq!(text(&next), bad.expose());
    host.break_first(true);
    assert!(brief.reject(&bad).is_err());
    assert_eq!(next.force_refresh().unwrap().expose(), "token-2");
    host.break_first(false);
    *host.first.unwritable.lock().unwrap() = Some("");
    let lasting = host.manager();
    let events = lasting.events();
    assert_eq!(text(&lasting), "token-2");
    host.live(&lasting);
    let is_of_the_store = |kind: &EventKind| matches!(kind, EventKind::StoreDown { .. } | EventKind::StoreUp);
    let told: Vec<_> = events.try_iter().map(|event| event.kind).filter(is_of_the_store).collect();
    assert!(matches!(told[..], [EventKind::StoreDown { .. }]), "{told:?}");
    assert!(host.recorded(&host.second).contains(bad.fingerprint()));
}

#[test]
fn promise_4_the_first_look_after_an_outage_heeds_what_the_second_store_rejects() {
    let host = Host::new();
    host.break_first(true);
    let (brief, lasting) = (host.manager(), host.manager());
    let bad = brief.token().unwrap();
    assert_eq!(text(&lasting), bad.expose());
    assert!(brief.reject(&bad).is_err());
    drop(brief);
    host.break_first(false);
    let looked = host.first.operations.load(Ordering::SeqCst);
    host.clock.advance(61 * SECOND);
    eventually("it looks", || {
        lasting.try_token();
        host.first.operations.load(Ordering::SeqCst) > looked && !lasting.status().fetching
    });
    assert_eq!(text(&lasting), "token-2");
}
