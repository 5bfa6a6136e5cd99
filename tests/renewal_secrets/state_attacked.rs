//! What a second hostile reader found in the keeping of states, when what the first had found was mended.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::rotating::*;
use crate::common::wait::*;
use crossbeam_channel::bounded;
use evertoken::provider::{Grant, Identity, Profile, RenewalProfile};
use evertoken::store::{Cursor, Entry, Expected, Key, Store, SwapOutcome};
use evertoken::testing::{FakeClock, FakeProvider, FakeVendor};
use evertoken::{DeviceSignIn, Error, ErrorKind, HttpConfig, MemoryStore, OAuth2, RefreshToken, TokenManager};

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Read,
    HasRead,
    Write,
    Written,
}

type Hook = Arc<dyn Fn(&Key, When) -> Result<(), Error> + Send + Sync>;

/// One process's way to a store that all share.
#[derive(Clone)]
struct Tapped {
    inner: MemoryStore,
    hook: Arc<Mutex<Option<Hook>>>,
    keys: Arc<Mutex<BTreeSet<Key>>>,
}

impl fmt::Debug for Tapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tapped")
    }
}

impl Tapped {
    fn of(inner: &MemoryStore) -> Tapped {
        Tapped { inner: inner.clone(), hook: Arc::default(), keys: Arc::default() }
    }

    fn hook(&self, hook: impl Fn(&Key, When) -> Result<(), Error> + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    fn unhook(&self) {
        *self.hook.lock().unwrap() = None;
    }

    fn run(&self, key: &Key, when: When) -> Result<(), Error> {
        self.keys.lock().unwrap().insert(key.clone());
        let hook = self.hook.lock().unwrap().clone();
        hook.map_or(Ok(()), |hook| hook(key, when))
    }

    fn key(&self, end: &str) -> Key {
        self.keys.lock().unwrap().iter().find(|key| key.as_str().ends_with(end)).unwrap().clone()
    }

    fn state_text(&self) -> String {
        let entry = self.inner.read(&self.key(":state")).unwrap();
        entry.map_or_else(String::new, |entry| String::from_utf8(entry.bytes().to_vec()).unwrap())
    }

    fn flush(&self) {
        for key in self.keys.lock().unwrap().iter() {
            self.inner.compare_and_swap(key, Expected::Any, None).unwrap();
        }
    }
}

impl Store for Tapped {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.run(key, When::Read)?;
        let entry = self.inner.read(key)?;
        self.run(key, When::HasRead)?;
        Ok(entry)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        self.run(key, When::Write)?;
        let swap = self.inner.compare_and_swap(key, expected, new)?;
        self.run(key, When::Written)?;
        Ok(swap)
    }

    fn wait(&self, key: &Key, cursor: &Cursor, deadline: Instant) -> Result<(), Error> {
        self.inner.wait(key, cursor, deadline)
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Store, "broken on purpose")
}

fn ticketed() -> FakeProvider {
    let count = Arc::new(AtomicUsize::new(0));
    scripted(RenewalProfile::ticket(Identity::new("suite"), HOUR / 2), move |context| match context.renewal_secret() {
        Some(ticket) => {
            let at = count.fetch_add(1, Ordering::SeqCst);
            Ok(Grant::new(format!("{}/{at}", ticket.expose()), 2 * HOUR))
        }
        None => Err(Error::new(ErrorKind::TicketRequired, "there is no ticket")),
    })
}

fn within_a_while(clock: &FakeClock, step: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..40 {
        if is_so() {
            return true;
        }
        clock.advance(step);
        thread::sleep(Duration::from_millis(50));
    }
    is_so()
}

/// With a key of its own the record has no identity. The number of the refresh token in it is that
/// of the sign-in before, and the first one of the new sign-in is number 0: it looked used up, whatever the person did.
#[test]
fn a_person_who_signs_in_again_gets_a_token_under_a_key_of_the_programs_own() {
    let host = FakeVendor::oauth2().another_refresh_token("client", "refresh-of-the-second-sign-in");
    let store = MemoryStore::new();
    let manager = |first: &str| {
        let provider = RefreshToken::new(OAuth2::public(host.token_url(), "client"), first);
        TokenManager::builder(provider).store(store.clone()).key("token-of-user-42").build().unwrap()
    };
    let before = manager("refresh-1");
    before.token().unwrap();
    drop(before);
    let after = manager("refresh-of-the-second-sign-in");
    // That of the sign-in before, which the service refuses.
    after.reject(&after.token().unwrap()).unwrap();
    let got = after.token();
    assert!(got.is_ok(), "{}; used: {:?}", got.unwrap_err(), host.used_refresh_tokens());
}

/// Who has waited for the turn asks with whatever time is left of the fetch. The server takes the refresh
/// token, the answer comes too late, and the next one is gone.
#[test]
fn a_refresh_token_is_not_used_when_hardly_any_time_is_left_for_the_answer() {
    let server = Server::default();
    let store = MemoryStore::new();
    let (slow, quick) = (server.clone(), server.clone());
    let (entered, has_entered) = bounded(1);
    let first = FakeProvider::new().with_renewal(keeps()).then(move |context| {
        entered.send(()).unwrap();
        thread::sleep(Duration::from_millis(1700));
        slow.grant(context)
    });
    // A server that takes half a second for an answer, which is a quarter of what it has.
    let second = scripted(keeps(), move |context| {
        let grant = quick.grant(context);
        let time = Duration::from_millis(500);
        thread::sleep(time.min(context.remaining()));
        if context.remaining().is_zero() { Err(Error::new(ErrorKind::TimedOut, "no answer")) } else { grant }
    });
    let second = second.with_identity(Identity::new("another scope"));
    let manager = |provider: FakeProvider| {
        let http = HttpConfig::default().timeout(SECOND * 2);
        TokenManager::builder(provider).http(http).store(store.clone()).build().unwrap()
    };
    let (one, another) = (manager(first), manager(second));
    thread::scope(|scope| {
        scope.spawn(|| one.token());
        has_entered.recv().unwrap();
        let _ = another.token();
    });
    let asked = Instant::now();
    let mut got = another.token();
    while got.is_err() && asked.elapsed() < SECOND * 8 {
        thread::sleep(SECOND / 4);
        got = another.token();
    }
    assert!(got.is_ok(), "{:?}: {}", server.shown(), got.unwrap_err());
}

/// The turn is good for a second longer than the fetch, and what is
/// done of it then, a read and a write, may take two.
#[test]
fn a_turn_lasts_until_what_came_of_it_is_stored() {
    let server = Server::default();
    let memory = MemoryStore::new();
    let store = Tapped::of(&memory);
    let slow_down = Arc::new(AtomicBool::new(false));
    let is_slow = slow_down.clone();
    store.hook(move |key, when| {
        if key.as_str().ends_with(":state")
            && is_slow.load(Ordering::SeqCst)
            && matches!(when, When::Read | When::Write)
        {
            thread::sleep(Duration::from_millis(850));
        }
        Ok(())
    });
    let granting = server.clone();
    let (entered, has_entered) = bounded(1);
    let first = FakeProvider::new().with_renewal(keeps()).then(move |context| {
        entered.send(()).unwrap();
        thread::sleep(Duration::from_millis(850));
        slow_down.store(true, Ordering::SeqCst);
        granting.grant(context)
    });
    let one = TokenManager::builder(first).http(HttpConfig::default().timeout(SECOND)).store(store).build().unwrap();
    let second = refreshing(&server).with_identity(Identity::new("another scope"));
    let another = TokenManager::builder(second).store(memory).build().unwrap();
    let (got, got_too) = thread::scope(|scope| {
        let got = scope.spawn(|| one.token());
        has_entered.recv().unwrap();
        (another.token(), got.join().unwrap())
    });
    assert!(!server.used_twice(), "{:?} {:?} {:?}", server.shown(), got.is_ok(), got_too.is_ok());
}

/// Numbers count what one process was handed since the store was empty. After a flush the ticket
/// with the higher number is the older one, and is taken for the later one although it is not unstored.
#[test]
fn after_a_flush_an_older_ticket_with_a_higher_number_does_not_replace_a_newer_one() {
    let clock = FakeClock::new();
    let memory = MemoryStore::with_clock(clock.clone());
    let store = Tapped::of(&memory);
    let old = builder(&ticketed(), &clock).store(store.clone()).build().unwrap();
    for ticket in ["ticket-1", "ticket-2", "ticket-3"] {
        old.set_ticket(ticket).unwrap();
        clock.advance(SECOND);
    }
    assert_eq!(text(&old), "ticket-3/0");
    store.flush();
    clock.advance(SECOND * 600);
    let new = builder(&ticketed(), &clock).store(store.clone()).build().unwrap();
    new.set_ticket("ticket-4").unwrap();
    let got = old.force_refresh().unwrap().expose().to_owned();
    assert!(got.starts_with("ticket-4"), "the old one asks with {got}");
    let got = new.force_refresh().unwrap().expose().to_owned();
    assert!(got.starts_with("ticket-4"), "the one that was handed the newer one asks with {got}");
}

/// The same without a flush: one process is cut off from the store and handed two tickets, another is handed the third.
#[test]
fn tickets_that_came_during_an_outage_do_not_replace_one_that_came_later_elsewhere() {
    let clock = FakeClock::new();
    let memory = MemoryStore::with_clock(clock.clone());
    let (near, far) = (Tapped::of(&memory), Tapped::of(&memory));
    let one = builder(&ticketed(), &clock).store(near).build().unwrap();
    let another = builder(&ticketed(), &clock).store(far.clone()).build().unwrap();
    // In steps, with time for what is under way: a look during which minutes pass takes the ticket for as much older.
    let two_minutes_pass = || {
        for _ in 0..24 {
            clock.advance(SECOND * 5);
            thread::sleep(Duration::from_millis(5));
        }
    };
    one.set_ticket("ticket-0").unwrap();
    assert_eq!(text(&another), "ticket-0/0");
    far.hook(|_, _| Err(broken()));
    for ticket in ["ticket-1", "ticket-2"] {
        another.set_ticket(ticket).unwrap_err();
        two_minutes_pass();
    }
    one.set_ticket("ticket-3").unwrap();
    two_minutes_pass();
    far.unhook();
    let mut got = String::new();
    // It may go on with its own as long as it leaves the store alone.
    let forced = within_a_while(&clock, SECOND * 5, || {
        got = another.force_refresh().map_or_else(|_| got.clone(), |token| token.expose().to_owned());
        assert!(far.state_text().contains("ticket-3"), "stored: {}", far.state_text());
        got.starts_with("ticket-3")
    });
    assert!(forced, "asks with {got}; stored: {}", far.state_text());
}

/// Two pushes at once in one process: what is held is read before the store is, and "certain" for the first of them
/// even when the second came in between.
#[test]
fn of_two_tickets_that_are_handed_in_at_once_the_second_counts() {
    let clock = FakeClock::new();
    let store = Tapped::of(&MemoryStore::with_clock(clock.clone()));
    let tokens = builder(&ticketed(), &clock).store(store.clone()).build().unwrap();
    let (entered, has_entered) = bounded(1);
    let (go, may_go) = bounded::<()>(1);
    let is_first = AtomicBool::new(true);
    store.hook(move |key, when| {
        if when == When::Read && key.as_str().ends_with(":state") && is_first.swap(false, Ordering::SeqCst) {
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
    assert!(got.starts_with("ticket-2"), "asks with {got}; stored: {}", store.state_text());
}

/// 2 and 6, lost: the last handle goes while the fetch is in the air. Its one write of the state fails, and nobody tries
/// again: `leave_state` has come and gone.
#[test]
fn a_state_that_lands_after_the_last_handle_has_gone_is_tried_to_store_more_than_once() {
    lands_late(false);
}

/// The same after a `shutdown` that did not wait.
#[test]
fn a_state_that_lands_after_a_shutdown_is_tried_to_store_more_than_once() {
    lands_late(true);
}

fn lands_late(shut_down: bool) {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Tapped::of(&MemoryStore::with_clock(clock.clone()));
    let (entered, has_entered) = bounded(1);
    let (go, may_go) = bounded::<()>(1);
    let granting = server.clone();
    let provider = FakeProvider::new().with_renewal(keeps()).then(move |context| {
        entered.send(()).unwrap();
        let _ = may_go.recv_timeout(SECOND * 5);
        granting.grant(context)
    });
    let failures = AtomicUsize::new(0);
    store.hook(move |key, when| {
        let fails =
            when == When::Write && key.as_str().ends_with(":state") && failures.fetch_add(1, Ordering::SeqCst) == 0;
        if fails { Err(broken()) } else { Ok(()) }
    });
    let tokens = builder(&provider, &clock).store(store.clone()).build().unwrap();
    tokens.warm_up();
    has_entered.recv().unwrap();
    let kept = shut_down.then(|| {
        tokens.shutdown(Duration::ZERO);
        tokens.clone()
    });
    drop(tokens);
    go.send(()).unwrap();
    let stored = within_a_while(&clock, SECOND * 5, || store.state_text().contains("refresh-1"));
    drop(kept);
    assert!(stored, "the refresh token is lost");
}

/// That a parent's token was refused when it was new is never forgotten,
/// though it was taken afterwards.
#[test]
fn a_parents_token_that_was_taken_since_it_was_refused_is_replaced_when_it_is_refused() {
    let clock = FakeClock::new();
    let granting = FakeProvider::new().lifetime(24 * HOUR);
    let parent = builder(&granting, &clock).build().unwrap();
    let refused = Arc::new(Mutex::new(BTreeSet::from(["token-1".to_owned(), "token-2".to_owned()])));
    let refuses = refused.clone();
    let child = (0..20).fold(FakeProvider::new().with_parent(parent), |child, at| {
        let refuses = refuses.clone();
        child.then(move |context| {
            let parent = context.parent()?.expose().to_owned();
            if refuses.lock().unwrap().contains(&parent) {
                return Err(Error::new(ErrorKind::TokenRejected, "the parent's token is refused"));
            }
            Ok(Grant::new(format!("child-{at}-of-{parent}"), HOUR))
        })
    });
    let tokens = builder(&child, &clock).build().unwrap();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TokenRejected);
    // A hiccup of the service: now it takes it.
    refused.lock().unwrap().remove("token-2");
    clock.advance(SECOND * 120);
    assert!(text(&tokens).ends_with("token-2"));
    // An hour later it is revoked.
    refused.lock().unwrap().insert("token-2".to_owned());
    clock.advance(HOUR);
    let mut got = tokens.token();
    for _ in 0..5 {
        clock.advance(SECOND * 120);
        got = tokens.token();
    }
    assert!(got.is_ok(), "{}", got.unwrap_err());
}

/// A token that is due and that nobody uses keeps the refresher from looking at the store until it is dead,
/// although a ticket is not stored yet.
#[test]
fn a_ticket_is_stored_when_the_store_is_back_though_the_held_token_is_due_and_unused() {
    let clock = FakeClock::new();
    let store = Tapped::of(&MemoryStore::with_clock(clock.clone()));
    let provider = ticketed().with_profile(Profile::default());
    let tokens = builder(&provider, &clock).store(store.clone()).refresh_ahead(HOUR).build().unwrap();
    let another = builder(&ticketed(), &clock).store(store.clone()).build().unwrap();
    another.set_ticket("ticket-1").unwrap();
    // Adopted without anybody having taken it.
    another.token().unwrap();
    tokens.warm_up();
    eventually("it has one", || tokens.status().fingerprint.is_some() && !tokens.status().fetching);
    clock.advance(HOUR * 3 / 2);
    thread::sleep(SECOND / 5);
    assert_eq!(tokens.status().refresh_in, Some(Duration::ZERO));
    assert!(!tokens.status().fetching);
    let fails = Arc::new(AtomicBool::new(true));
    let failing = fails.clone();
    store.hook(move |_, _| if failing.load(Ordering::SeqCst) { Err(broken()) } else { Ok(()) });
    tokens.set_ticket("ticket-2").unwrap_err();
    fails.store(false, Ordering::SeqCst);
    let stored = within_a_while(&clock, SECOND * 5, || store.state_text().contains("ticket-2"));
    assert!(stored, "more than three minutes later: {}", store.state_text());
}

/// The answer to the first write of the turn is lost, though it was written. The manager does not
/// know its own turn again, and waits for itself; so do all others.
#[test]
fn a_turn_whose_answer_was_lost_is_known_again() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Tapped::of(&MemoryStore::with_clock(clock.clone()));
    let failed = Arc::new(AtomicUsize::new(0));
    let failures = failed.clone();
    store.hook(move |key, when| {
        let fails = when == When::Written
            && key.as_str().ends_with(":state:lock")
            && failures.fetch_add(1, Ordering::SeqCst) == 0;
        if fails { Err(broken()) } else { Ok(()) }
    });
    let http = HttpConfig::default().timeout(SECOND * 2);
    let tokens = builder(&refreshing(&server), &clock).http(http).store(store.clone()).build().unwrap();
    let _ = tokens.token();
    // The pause of the store and of the fetch, not the turn.
    clock.advance(Duration::from_millis(1500));
    let asked = Instant::now();
    let got = tokens.token();
    assert!(failed.load(Ordering::SeqCst) > 0, "{:?}", store.keys.lock().unwrap());
    assert!(got.is_ok(), "after {:?}: {}", asked.elapsed(), got.unwrap_err());
}

/// It is over, the person has refused, and it asks again whenever it is called, without any pause.
#[test]
fn a_sign_in_that_is_over_does_not_ask_the_server_again() {
    let host = FakeVendor::oauth2().device_interval(SECOND);
    let client = OAuth2::public(host.token_url(), "client");
    let mut prompt = DeviceSignIn::new(host.url() + "/device_authorization", client).begin().unwrap();
    host.deny(prompt.user_code());
    let first = prompt.wait_for(SECOND * 3).unwrap_err();
    let asked = host.calls_to("/token");
    for _ in 0..5 {
        let _ = prompt.wait_for(SECOND / 10);
    }
    assert_eq!(host.calls_to("/token"), asked, "{first}");
}

/// What a fetch without state and quota costs the store.
#[test]
fn a_fetch_without_state_and_quota_costs_the_store_what_it_did() {
    let clock = FakeClock::new();
    let store = Tapped::of(&MemoryStore::with_clock(clock.clone()));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    store.hook(move |_, when| {
        counted.fetch_add(usize::from(matches!(when, When::Read | When::Write)), Ordering::SeqCst);
        Ok(())
    });
    let tokens = builder(&FakeProvider::new(), &clock).store(store).build().unwrap();
    text(&tokens);
    let got = count.load(Ordering::SeqCst);
    assert!(got <= 6, "{got} reads and writes");
}

/// An idle manager that missed a ticket long ago.
#[test]
fn a_manager_that_missed_a_ticket_does_not_look_at_the_store_for_ever() {
    let clock = FakeClock::new();
    let store = Tapped::of(&MemoryStore::with_clock(clock.clone()));
    let tokens = builder(&ticketed(), &clock).store(store.clone()).build().unwrap();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TicketRequired);
    for _ in 0..30 {
        clock.advance(SECOND * 61);
        thread::sleep(SECOND / 50);
    }
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    store.hook(move |_, when| {
        counted.fetch_add(usize::from(when == When::Read), Ordering::SeqCst);
        Ok(())
    });
    for _ in 0..30 {
        clock.advance(SECOND * 61);
        thread::sleep(SECOND / 50);
    }
    let reads = count.load(Ordering::SeqCst);
    assert!(reads < 5, "{reads} reads in half an hour, half an hour after anybody asked");
}

/// One process cannot reach the store for less time than its turn lasts, just when it has the next
/// refresh token in hand. It then leaves the store alone for longer than the turn lasts.
#[test]
fn a_glitch_that_is_shorter_than_the_turn_does_not_cost_the_sign_in() {
    let server = Server::default();
    let memory = MemoryStore::new();
    let store = Tapped::of(&memory);
    let cut_off: Arc<Mutex<Option<Instant>>> = Arc::default();
    let since = cut_off.clone();
    store.hook(move |_, _| {
        let is_off = since.lock().unwrap().is_some_and(|since| since.elapsed() < SECOND * 5 / 2);
        if is_off { Err(broken()) } else { Ok(()) }
    });
    let granting = server.clone();
    let (entered, has_entered) = bounded(1);
    let first = FakeProvider::new().with_renewal(keeps()).then(move |context| {
        entered.send(()).unwrap();
        *cut_off.lock().unwrap() = Some(Instant::now());
        granting.grant(context)
    });
    let http = HttpConfig::default().timeout(SECOND * 2);
    let one = TokenManager::builder(first).http(http).store(store).build().unwrap();
    let second = refreshing(&server).with_identity(Identity::new("another scope"));
    let another = TokenManager::builder(second).store(memory).build().unwrap();
    let (got, got_too) = thread::scope(|scope| {
        let got = scope.spawn(|| one.token());
        has_entered.recv().unwrap();
        (another.token(), got.join().unwrap())
    });
    assert!(!server.used_twice(), "{:?} {:?} {:?}", server.shown(), got.is_ok(), got_too.is_ok());
}

/// A fetch of one process hangs for ever. What that process then says of itself ("has not returned") is
/// recorded as everybody's failure, each time anew.
#[test]
fn a_fetch_that_hangs_in_one_process_is_no_trouble_in_another() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = MemoryStore::with_clock(clock.clone());
    let (_go, may_go) = bounded::<()>(1);
    let hanging = FakeProvider::new().with_renewal(keeps()).then(move |_| {
        let _ = may_go.recv_timeout(SECOND * 60);
        Err(Error::new(ErrorKind::TimedOut, "it never came to ask"))
    });
    let http = HttpConfig::default().timeout(SECOND / 10);
    let one = builder(&hanging, &clock).http(http).store(store.clone()).build().unwrap();
    let another = builder(&refreshing(&server), &clock).store(store).build().unwrap();
    assert_eq!(one.token().unwrap_err().kind(), ErrorKind::Unavailable);
    // Lease, turn and pause are over.
    clock.advance(SECOND * 60);
    let told = one.token().unwrap_err();
    let got = another.token();
    assert!(got.is_ok(), "the one: {told}; the other: {}", got.unwrap_err());
}

/// The wall clock is set back between two tickets; by it the older one is younger.
#[test]
fn a_ticket_that_came_before_the_clock_was_set_back_does_not_replace_a_later_one() {
    let clock = FakeClock::new();
    let memory = MemoryStore::with_clock(clock.clone());
    let (near, far) = (Tapped::of(&memory), Tapped::of(&memory));
    let one = builder(&ticketed(), &clock).store(near).build().unwrap();
    let another = builder(&ticketed(), &clock).store(far.clone()).build().unwrap();
    one.set_ticket("ticket-0").unwrap();
    assert_eq!(text(&another), "ticket-0/0");
    far.hook(|_, _| Err(broken()));
    another.set_ticket("ticket-1").unwrap_err();
    clock.step_back(HOUR / 4);
    clock.advance(SECOND * 120);
    one.set_ticket("ticket-2").unwrap();
    far.unhook();
    let stored = || far.state_text();
    let waits =
        within_a_while(&clock, SECOND * 5, || another.status().store_down_for.is_none() && !another.status().fetching);
    assert!(waits && stored().contains("ticket-2"), "{}", stored());
}

/// A turn that is kept because the state could not be stored goes on when it is stored, and keeps
/// out the manager itself.
#[test]
fn a_turn_that_was_kept_for_a_state_ends_when_the_state_is_stored() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Tapped::of(&MemoryStore::with_clock(clock.clone()));
    let failures = AtomicUsize::new(0);
    store.hook(move |key, when| {
        let fails =
            when == When::Write && key.as_str().ends_with(":state") && failures.fetch_add(1, Ordering::SeqCst) == 0;
        if fails { Err(broken()) } else { Ok(()) }
    });
    let http = HttpConfig::default().timeout(SECOND * 2);
    let tokens = builder(&refreshing(&server), &clock).http(http).store(store.clone()).build().unwrap();
    text(&tokens);
    clock.advance(Duration::from_millis(1300));
    eventually("it is stored", || store.state_text().contains("refresh-1") && !tokens.status().fetching);
    let asked = Instant::now();
    let got = tokens.force_refresh();
    assert!(got.is_ok(), "after {:?}: {}", asked.elapsed(), got.unwrap_err());
}

/// A vendor that pushes the same ticket again says that it is still good. With a store it ends when the first
/// push of it would have; without one it does not.
#[test]
fn a_ticket_that_is_pushed_again_lives_on() {
    for shared in [false, true] {
        let clock = FakeClock::new();
        let tokens = builder(&ticketed(), &clock);
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
