//! What a hostile reader found in the keeping of states, quotas and parents: each of these was so once.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::http_host::answering;
use crate::common::rotating::*;
use crate::common::wait::*;
use crossbeam_channel::bounded;
use evertoken::provider::{Grant, Identity, Profile, RenewalProfile};
use evertoken::store::{Cursor, Entry, Expected, Key, Store, SwapOutcome};
use evertoken::testing::{FakeClock, FakeProvider, FakeVendor};
use evertoken::{
    DeviceSignIn, Error, ErrorKind, EventKind, HttpConfig, MemoryStore, OAuth2, RefreshToken, TokenManager, TokenState,
};

type Hook = Arc<dyn Fn(&Key, Option<&[u8]>) -> Result<(), Error> + Send + Sync>;

/// A store that does something before each write.
#[derive(Clone)]
struct Hooked {
    inner: MemoryStore,
    before_write: Arc<Mutex<Option<Hook>>>,
    keys: Arc<Mutex<BTreeSet<Key>>>,
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl Hooked {
    fn new(clock: &FakeClock) -> Hooked {
        let inner = MemoryStore::with_clock(clock.clone());
        Hooked { inner, before_write: Arc::default(), keys: Arc::default() }
    }

    fn before_write(&self, hook: impl Fn(&Key, Option<&[u8]>) -> Result<(), Error> + Send + Sync + 'static) {
        *self.before_write.lock().unwrap() = Some(Arc::new(hook));
    }

    fn well_again(&self) {
        *self.before_write.lock().unwrap() = None;
    }

    fn key(&self, end: &str) -> Key {
        self.keys.lock().unwrap().iter().find(|key| key.as_str().ends_with(end)).unwrap().clone()
    }

    fn state(&self) -> Option<Entry> {
        self.inner.read(&self.key(":state")).unwrap()
    }

    fn state_text(&self) -> String {
        self.state().map_or_else(String::new, |entry| String::from_utf8(entry.bytes().to_vec()).unwrap())
    }
}

impl Store for Hooked {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.keys.lock().unwrap().insert(key.clone());
        self.inner.read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        self.keys.lock().unwrap().insert(key.clone());
        let hook = self.before_write.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook(key, new.map(|(bytes, _)| bytes))?;
        }
        self.inner.compare_and_swap(key, expected, new)
    }

    fn wait(&self, key: &Key, cursor: &Cursor, deadline: Instant) -> Result<(), Error> {
        self.inner.wait(key, cursor, deadline)
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Store, "broken on purpose")
}

fn ticketed() -> FakeProvider {
    let keeps = RenewalProfile::ticket(Identity::new("suite"), HOUR / 2);
    (0..9).fold(FakeProvider::new().with_renewal(keeps), |provider, at| {
        provider.then(move |context| match context.renewal_secret() {
            Some(ticket) => Ok(Grant::new(format!("{}-{at}", ticket.expose()), 2 * HOUR)),
            None => Err(Error::new(ErrorKind::TicketRequired, "there is no ticket")),
        })
    })
}

/// True when it is so within two seconds of real time, while the clock goes on.
fn within_a_while(clock: &FakeClock, mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..40 {
        if is_so() {
            return true;
        }
        clock.advance(SECOND * 5);
        thread::sleep(Duration::from_millis(50));
    }
    is_so()
}

/// One failed write of the state, the store well again at once. The record is published and the lease freed
/// all the same, so the next process that fetches uses the refresh token that is used up.
#[test]
fn a_state_that_could_not_be_stored_once_is_not_used_twice_by_another_process() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Hooked::new(&clock);
    let failures = AtomicUsize::new(0);
    store.before_write(move |key, _| {
        let fails = key.as_str().ends_with(":state") && failures.fetch_add(1, Ordering::SeqCst) == 0;
        if fails { Err(broken()) } else { Ok(()) }
    });
    let one = builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap();
    let another = builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap();
    assert_eq!((text(&one), text(&another)), ("token-1".into(), "token-1".into()));
    let _ = another.force_refresh();
    assert!(!server.used_twice(), "{:?}", server.shown());
}

/// The same with a token that is of no use. Nothing is held, so the refresher never looks: the state stays in memory
/// although the store is well.
#[test]
fn a_state_that_came_with_nothing_to_hold_is_stored_when_the_store_is_well() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Hooked::new(&clock);
    store.before_write(|key, _| if key.as_str().ends_with(":state") { Err(broken()) } else { Ok(()) });
    let tokens = builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap();
    let token = tokens.token().unwrap();
    store.well_again();
    tokens.reject(&token).unwrap();
    assert!(within_a_while(&clock, || store.state().is_some()), "it is in the memory of one process only");
}

/// The last handle goes while a state is not stored: nobody tries once more, and it is gone.
#[test]
fn a_state_that_is_not_stored_yet_survives_the_last_handle() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Hooked::new(&clock);
    store.before_write(|key, _| if key.as_str().ends_with(":state") { Err(broken()) } else { Ok(()) });
    let tokens = builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap();
    text(&tokens);
    store.well_again();
    drop(tokens);
    assert!(within_a_while(&clock, || store.state().is_some()), "the refresh token is lost");
}

/// The same with `shutdown`.
#[test]
fn a_state_that_is_not_stored_yet_survives_a_shutdown() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Hooked::new(&clock);
    store.before_write(|key, _| if key.as_str().ends_with(":state") { Err(broken()) } else { Ok(()) });
    let tokens = builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap();
    text(&tokens);
    store.well_again();
    tokens.shutdown(SECOND);
    assert!(within_a_while(&clock, || store.state().is_some()), "the refresh token is lost");
}

/// The state is shared by all records of a client (scope is not in its identity), the lease is not: two managers
/// with different scopes, or one with a key of its own, use one refresh token at the same time.
#[test]
fn managers_of_one_refresh_token_with_different_scopes_do_not_use_it_at_once() {
    use_at_once(false);
}

/// The same where one of the two has a key of its own.
#[test]
fn managers_of_one_refresh_token_with_different_keys_do_not_use_it_at_once() {
    use_at_once(true);
}

fn use_at_once(own_key: bool) {
    {
        let (server, clock) = (Server::default(), FakeClock::new());
        let store = MemoryStore::with_clock(clock.clone());
        let (entered, has_entered) = bounded(1);
        let (go, may_go) = bounded(1);
        let slow = server.clone();
        let first = FakeProvider::new().with_renewal(keeps()).then(move |context| {
            entered.send(()).unwrap();
            let _ = may_go.recv_timeout(SECOND * 3);
            slow.grant(context)
        });
        let identity = if own_key { "fake" } else { "another scope" };
        let second = refreshing(&server).with_identity(Identity::new(identity));
        let one = builder(&first, &clock).store(store.clone()).build().unwrap();
        let another = builder(&second, &clock).store(store);
        let another = if own_key { another.key("a-key-of-my-own") } else { another }.build().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| one.token());
            has_entered.recv().unwrap();
            let asking = scope.spawn(|| another.token());
            let asked = Instant::now();
            while !asking.is_finished() && asked.elapsed() < SECOND {
                thread::yield_now();
            }
            go.send(()).unwrap();
        });
        assert!(!server.used_twice(), "own key: {own_key}: {:?}", server.shown());
    }
}

/// The same with the real provider and a strict server: two scopes, the person is signed out.
#[test]
fn two_scopes_of_one_refresh_token_do_not_end_the_sign_in() {
    let host = FakeVendor::oauth2().delay(SECOND / 2);
    let store = MemoryStore::new();
    let manager = |scope: &str| {
        let client = OAuth2::public(host.token_url(), "client").scope(scope);
        TokenManager::builder(RefreshToken::new(client, "refresh-1")).store(store.clone()).build().unwrap()
    };
    let (mail, files) = (manager("mail"), manager("files"));
    let (one, another) = thread::scope(|scope| {
        let one = scope.spawn(|| mail.token());
        let another = scope.spawn(|| files.token());
        (one.join().unwrap(), another.join().unwrap())
    });
    let used = host.used_refresh_tokens();
    assert!(one.is_ok() && another.is_ok(), "{:?} {:?} {used:?}", one.err(), another.err());
}

/// The store falls back to an older state (a failover that lost a write). The manager that holds the newer one throws
/// it away and uses the older one again.
#[test]
fn a_newer_refresh_token_is_not_lost_to_an_older_one_after_a_failover() {
    fall_back(false);
}

/// The same when the newer one is not even stored yet: `store_state` takes any other for a later one.
#[test]
fn an_unsaved_refresh_token_is_not_lost_to_an_older_one_after_a_failover() {
    fall_back(true);
}

fn fall_back(unsaved: bool) {
    {
        let (server, clock) = (Server::default(), FakeClock::new());
        let store = Hooked::new(&clock);
        let tokens = builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap();
        assert_eq!(text(&tokens), "token-1");
        let before = store.state().unwrap();
        clock.advance(2 * HOUR);
        assert_eq!(text(&tokens), "token-2");
        if unsaved {
            clock.advance(2 * HOUR);
            store.before_write(|key, _| if key.as_str().ends_with(":state") { Err(broken()) } else { Ok(()) });
            assert_eq!(text(&tokens), "token-3");
            store.well_again();
        }
        let gone = clock_life(&before, if unsaved { 4 * HOUR } else { 2 * HOUR });
        store.inner.compare_and_swap(&store.key(":state"), Expected::Any, Some((before.bytes(), gone))).unwrap();
        clock.advance(2 * HOUR);
        let _ = tokens.token();
        assert!(!server.used_twice(), "unsaved: {unsaved}: {:?}", server.shown());
    }
}

fn clock_life(entry: &Entry, passed: Duration) -> Duration {
    entry.remaining() - passed
}

/// The store loses its keys. A manager that has only adopted records since it last fetched puts its old refresh token
/// back, over which another process is two ahead, and uses it.
#[test]
fn after_a_flush_nobody_brings_back_a_refresh_token_that_was_used() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Hooked::new(&clock);
    let old = builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap();
    let new = builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&old), "token-1");
    clock.advance(2 * HOUR);
    assert_eq!((text(&new), text(&old)), ("token-2".into(), "token-2".into()));
    // Both are alive, and one of them has what counts.
    let key = store.key(":state");
    store.inner.compare_and_swap(&key, Expected::Any, None).unwrap();
    let _ = old.force_refresh();
    assert!(!server.used_twice(), "{:?}", server.shown());
}

/// A Redis whose clock is set back by two seconds (or a replica that is two seconds behind) says that more is left of
/// the state than it was given. It is then taken for nothing, and the first refresh token is used again.
#[test]
fn a_state_whose_store_says_that_more_is_left_than_it_was_given_is_still_the_state() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Hooked::new(&clock);
    let one = builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&one), "token-1");
    let state = store.state().unwrap();
    let fresh = || builder(&refreshing(&server), &clock).store(store.clone()).build().unwrap();
    let life = state.remaining() + SECOND * 2;
    store.inner.compare_and_swap(&store.key(":state"), Expected::Any, Some((state.bytes(), life))).unwrap();
    let another = fresh();
    assert_eq!(text(&another), "token-1");
    let _ = another.force_refresh();
    assert!(!server.used_twice(), "{:?}", server.shown());
}

/// A write of the state that hangs is given up, and lands when others are far ahead: it replaces whatever is there
/// (`Expected::Any`), although it was to replace one version only.
#[test]
fn a_late_write_of_a_state_does_not_replace_a_newer_one() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Hooked::new(&clock);
    let (go, may_go) = bounded::<()>(0);
    let (landing, lands) = bounded(1);
    let hung = AtomicBool::new(false);
    store.before_write(move |key, _| {
        if key.as_str().ends_with(":state") && !hung.swap(true, Ordering::SeqCst) {
            let _ = may_go.recv_timeout(SECOND * 20);
            let _ = landing.send(());
        }
        Ok(())
    });
    let graceful = |server: &Server| {
        (0..9).fold(FakeProvider::new().with_renewal(keeps()), |provider, _| {
            let server = server.clone();
            provider.then(move |context| server.grant_within_grace(context))
        })
    };
    let late = builder(&graceful(&server), &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&late), "token-1", "its refresh token is not stored yet");
    // Its lease is over.
    clock.advance(SECOND * 30);
    let other = builder(&graceful(&server), &clock).store(store.clone()).build().unwrap();
    other.token().unwrap();
    other.force_refresh().unwrap();
    let newest = store.state_text();
    assert!(newest.contains("refresh-3") || newest.contains("refresh-2"), "{newest}");
    go.send(()).unwrap();
    lands.recv().unwrap();
    thread::sleep(SECOND / 5);
    assert_eq!(store.state_text(), newest, "an older refresh token has taken the place of a newer one");
}

/// A store that hangs stores the first of two tickets after the second was handed in, and gives it a whole life from
/// then. So the older one counts as the later one.
#[test]
fn a_newer_ticket_is_not_lost_to_an_older_one_that_a_slow_store_stored_late() {
    let clock = FakeClock::new();
    let store = Hooked::new(&clock);
    let (go, may_go) = bounded::<()>(0);
    let hung = AtomicBool::new(false);
    store.before_write(move |key, _| {
        if key.as_str().ends_with(":state") && !hung.swap(true, Ordering::SeqCst) {
            let _ = may_go.recv_timeout(SECOND * 20);
        }
        Ok(())
    });
    let tokens = builder(&ticketed(), &clock).store(store.clone()).build().unwrap();
    tokens.set_ticket("ticket-1").unwrap_err();
    clock.advance(SECOND / 2);
    tokens.set_ticket("ticket-2").unwrap_err();
    clock.advance(SECOND / 2);
    go.send(()).unwrap();
    eventually("the late write lands", || store.state().is_some());
    assert!(store.state_text().contains("ticket-1"), "it was given up, and landed all the same");
    clock.advance(SECOND * 60);
    let got = text(&tokens);
    assert!(got.starts_with("ticket-2"), "{got}");
}

/// The store is flushed, a manager puts its old ticket back, and the one that has the newer one takes over the old.
#[test]
fn a_newer_ticket_is_not_lost_to_an_older_one_after_a_flush() {
    let clock = FakeClock::new();
    let store = Hooked::new(&clock);
    let old = builder(&ticketed(), &clock).store(store.clone()).build().unwrap();
    let new = builder(&ticketed(), &clock).store(store.clone()).build().unwrap();
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

/// A ticket that comes while a fetch without one is under way. The fetch comes back with `TicketRequired`, and its pause
/// holds although the ticket is there: here, and in the record for all.
#[test]
fn a_ticket_that_comes_during_a_fetch_leaves_no_pause_for_want_of_one() {
    come_during_a_fetch(false);
}

/// The same with a store.
#[test]
fn a_ticket_that_comes_during_a_fetch_leaves_no_pause_for_all() {
    come_during_a_fetch(true);
}

fn come_during_a_fetch(shared: bool) {
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
        eventually("the first fetch is over", || !tokens.status().fetching);
        drop(events);
        let got = tokens.token().map(|token| token.expose().to_owned());
        assert_eq!(got.map_err(|error| error.kind()), Ok("ticket-1".into()), "shared: {shared}");
    }
}

/// HIGH: "they are told later": not by a process that only takes in the tickets (a callback server) and holds no token.
#[test]
fn a_ticket_that_could_not_be_stored_is_stored_later_by_a_process_that_holds_no_token() {
    let clock = FakeClock::new();
    let store = Hooked::new(&clock);
    store.before_write(|_, _| Err(broken()));
    let callback = builder(&ticketed(), &clock).store(store.clone()).build().unwrap();
    assert_eq!(callback.set_ticket("ticket-1").unwrap_err().kind(), ErrorKind::Store);
    store.well_again();
    let user = builder(&ticketed(), &clock).store(store.clone()).build().unwrap();
    let told = within_a_while(&clock, || user.token().is_ok());
    assert!(told, "{:?}", user.token().unwrap_err());
    drop(callback);
}

/// The quota's key cannot be written, all else can. Each process then counts its forced refreshes alone: together they
/// force as often as there are processes, against "store down: no forced refresh".
#[test]
fn nothing_is_forced_when_it_cannot_be_counted_for_all() {
    let clock = FakeClock::new();
    let store = Hooked::new(&clock);
    let forced = Arc::new(AtomicUsize::new(0));
    let profile = Profile::default().forced_quota(1).min_forced_interval(SECOND * 30);
    let provider = (0..9).fold(FakeProvider::new().with_profile(profile), |provider, at| {
        let forced = forced.clone();
        provider.then(move |context| {
            forced.fetch_add(usize::from(context.is_forced()), Ordering::SeqCst);
            Ok(Grant::new(format!("t-{at}"), 2 * HOUR))
        })
    });
    store.before_write(|key, _| if key.as_str().ends_with(":quota") { Err(broken()) } else { Ok(()) });
    for _ in 0..4 {
        let tokens = builder(&provider, &clock).store(store.clone()).build().unwrap();
        let _ = tokens.token();
        let _ = tokens.force_refresh();
    }
    assert_eq!(forced.load(Ordering::SeqCst), 0);
}

/// The spacing of forced refreshes is forgotten with the day: two processes force within a second at its end.
#[test]
fn forced_refreshes_keep_their_distance_when_a_day_ends() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let forced = Arc::new(AtomicUsize::new(0));
    let profile = Profile::default().forced_quota(20).min_forced_interval(SECOND * 30);
    let provider = (0..9).fold(FakeProvider::new().with_profile(profile), |provider, at| {
        let forced = forced.clone();
        provider.then(move |context| {
            forced.fetch_add(usize::from(context.is_forced()), Ordering::SeqCst);
            Ok(Grant::new(format!("t-{at}"), 48 * HOUR))
        })
    });
    let manager = || builder(&provider, &clock).store(store.clone()).build().unwrap();
    let one = manager();
    assert_eq!(text(&one), "t-0");
    clock.advance(24 * HOUR - SECOND);
    one.force_refresh().unwrap();
    let another = manager();
    assert_eq!(text(&another), "t-1");
    clock.advance(SECOND);
    let _ = another.force_refresh();
    assert_eq!(forced.load(Ordering::SeqCst), 1, "within a second of one another");
}

/// A program that waits in short pieces, as the method is meant for, never asks the server at all.
#[test]
fn a_program_that_waits_for_a_sign_in_in_short_pieces_is_signed_in() {
    let host = FakeVendor::oauth2().device_interval(SECOND);
    let client = OAuth2::public(host.token_url(), "client");
    let mut prompt = DeviceSignIn::new(host.url() + "/device_authorization", client).begin().unwrap();
    host.approve(prompt.user_code());
    let asked = Instant::now();
    let mut signed_in = None;
    while signed_in.is_none() && asked.elapsed() < SECOND * 4 {
        signed_in = prompt.wait_for(SECOND / 4).unwrap();
    }
    assert!(signed_in.is_some(), "it was asked {} times", host.calls_to("/token"));
}

/// What turns the direction of the text is no control character for `char::is_control`.
#[test]
fn a_user_code_does_not_turn_the_text_of_the_terminal() {
    for user_code in ["AB\\u202eDC", "A\\u2066B", "A\\u200bB"] {
        let body = format!(
            r#"{{"device_code":"d","user_code":"{user_code}","verification_uri":"https://h/","expires_in":60}}"#
        );
        let host = answering(&body).url();
        let client = OAuth2::public(host.clone() + "/token", "client");
        let begun = DeviceSignIn::new(host + "/device", client).begin();
        assert!(begun.is_err(), "{user_code}: shown as {:?}", begun.unwrap().user_code());
    }
}

/// What concerns one process alone (here: its parent's manager was shut down) is recorded for all.
#[test]
fn a_parent_that_was_shut_down_in_one_process_is_no_trouble_in_another() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let manager = || {
        let parent = builder(&FakeProvider::new().with_identity(Identity::new("parent")), &clock).build().unwrap();
        let child = FakeProvider::new().with_parent(parent.clone());
        (parent, builder(&child, &clock).store(store.clone()).build().unwrap())
    };
    let ((parent, one), (_running, another)) = (manager(), manager());
    parent.shutdown(SECOND);
    assert_eq!(one.token().unwrap_err().kind(), ErrorKind::Shutdown);
    let got = another.token().map(|token| token.expose().to_owned());
    assert_eq!(got.map_err(|error| error.kind()), Ok("token-1".into()));
}

/// A child that is refused for a reason of its own (a right that it lacks, a code that its vendor uses for both)
/// costs its parent one good token for each of its tries, for ever, and with it all other children of that parent.
#[test]
fn a_child_that_is_always_refused_does_not_cost_its_parent_a_token_each_time() {
    let clock = FakeClock::new();
    let granting = FakeProvider::new().lifetime(24 * HOUR);
    let parent = builder(&granting, &clock).build().unwrap();
    let child = FakeProvider::new().with_parent(parent.clone());
    child.always_fail(Some(Error::new(ErrorKind::TokenRejected, "the parent's token is refused")));
    let tokens = builder(&child, &clock).build().unwrap();
    for _ in 0..60 {
        let _ = tokens.token();
        clock.advance(SECOND * 73);
    }
    assert!(granting.calls() < 20, "{} tokens of the parent in little more than an hour", granting.calls());
}

/// Without a store. A flight that was given up comes back with an older refresh token and replaces the newer one.
#[test]
fn a_flight_that_was_given_up_does_not_bring_back_an_older_refresh_token() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let (go, may_go) = bounded::<()>(0);
    let (slow, graceful, last) = (server.clone(), server.clone(), server.clone());
    let shown = Arc::new(Mutex::new(String::new()));
    let seen = shown.clone();
    let provider = FakeProvider::new()
        .with_renewal(keeps())
        .then(move |context| {
            let grant = slow.grant_within_grace(context);
            let _ = may_go.recv_timeout(SECOND * 20);
            grant
        })
        .then(move |context| graceful.grant_within_grace(context))
        .then(move |context| {
            *seen.lock().unwrap() = context.renewal_secret().unwrap().expose().to_owned();
            last.grant_within_grace(context)
        });
    let http = HttpConfig::default().timeout(SECOND / 10);
    let tokens = builder(&provider, &clock).http(http).build().unwrap();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::Unavailable);
    clock.advance(SECOND * 60);
    // As long as it may be asking, nobody else does.
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::Store);
    assert_eq!(provider.calls(), 1);
    go.send(()).unwrap();
    eventually("the one that was given up is back", || {
        clock.advance(SECOND * 60);
        tokens.force_refresh().is_ok_and(|token| token.expose() == "token-2")
    });
    tokens.force_refresh().unwrap();
    assert_eq!(*shown.lock().unwrap(), "refresh-2");
}

/// A process that has no ticket is told of one by nothing but the end of its own pause: with a long backoff, or a long
/// `Retry-After`, that is an hour, although the ticket is in the store and the failure is gone from the record.
#[test]
fn a_ticket_ends_the_pause_of_other_processes_within_their_local_max_age() {
    let clock = FakeClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let manager = || {
        let tokens = builder(&ticketed(), &clock).store(store.clone());
        tokens.backoff(HOUR / 2, HOUR / 2).store_check_interval(SECOND * 60).build().unwrap()
    };
    let (one, another) = (manager(), manager());
    assert_eq!(another.token().unwrap_err().kind(), ErrorKind::TicketRequired);
    one.set_ticket("ticket-1").unwrap();
    clock.advance(SECOND * 61);
    eventually("it has looked", || another.token().is_ok());
}

/// LOW: "no longer than `wait`": a poll that is under way when the wait is over is not bounded by it.
#[test]
fn a_wait_for_a_sign_in_is_at_most_one_exchange_longer_than_it_says() {
    let body = r#"{"device_code":"d","user_code":"A","verification_uri":"https://h/","expires_in":60,"interval":1}"#;
    let host = answering(body).url();
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let token_url = format!("http://127.0.0.1:{}/token", hanging.local_addr().unwrap().port());
    let client = OAuth2::public(token_url, "client");
    let mut prompt = DeviceSignIn::new(host + "/device", client).begin().unwrap();
    let asked = Instant::now();
    assert!(prompt.wait_for(SECOND * 3 / 2).unwrap().is_none());
    let took = asked.elapsed();
    assert!(took < SECOND * 10, "{took:?} in place of 6.5 s");
}

/// A first renewal without a ticket, or with a parent that fails, never reaches the provider and is counted as a call.
#[test]
fn only_calls_that_reach_the_provider_are_counted() {
    let clock = FakeClock::new();
    let failing = FakeProvider::new();
    failing.always_fail(Some(Error::new(ErrorKind::Unavailable, "the parent is down")));
    let parent = builder(&failing, &clock).build().unwrap();
    let child = FakeProvider::new().with_profile(Profile::default().daily_quota(5, 1)).with_parent(parent);
    let tokens = builder(&child, &clock).build().unwrap();
    for _ in 0..8 {
        let _ = tokens.token();
        clock.advance(SECOND * 73);
    }
    failing.always_fail(None);
    assert_eq!(child.calls(), 0, "the provider was never asked");
    let got = tokens.token().map(|token| token.expose().to_owned());
    assert!(got.is_ok(), "{:?}", got.unwrap_err());
}

/// The reserve of a daily quota is for rejected tokens; one rejection long ago, or an `invalidate`, opens it to plain
/// renewals of a token that nobody refused.
#[test]
fn the_reserve_is_not_used_up_by_renewals_after_a_rejection_that_is_settled() {
    let clock = FakeClock::new();
    let provider = FakeProvider::new()
        .with_profile(Profile::default().daily_quota(4, 2))
        .then_grant("t-1", 20 * HOUR)
        .then_grant("t-2", HOUR)
        .then_grant("t-3", HOUR)
        .then_grant("t-4", HOUR);
    let tokens = builder(&provider, &clock).build().unwrap();
    let first = tokens.token().unwrap();
    tokens.reject(&first).unwrap();
    assert_eq!(text(&tokens), "t-2", "the rejected one is replaced");
    clock.advance(HOUR);
    eventually("the refresher drops what is dead", || tokens.status().state == TokenState::Empty);
    let error = tokens.token().map(|token| token.expose().to_owned());
    assert_eq!(error.map_err(|error| error.kind()), Err(ErrorKind::Throttled));
}

/// A fetch that heeds no deadline is given up, and the next flight of the same manager gets the same lease again at
/// once (same owner): both ask with one refresh token at the same time.
#[test]
fn a_refresh_token_with_which_a_lost_flight_still_asks_is_not_used_by_the_next_one() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let (go, may_go) = bounded::<()>(0);
    let (slow, next, last) = (server.clone(), server.clone(), server.clone());
    let provider = FakeProvider::new()
        .with_renewal(keeps())
        .then(move |context| {
            let grant = slow.grant(context);
            let _ = may_go.recv_timeout(SECOND * 20);
            grant
        })
        .then(move |context| next.grant(context))
        .then(move |context| last.grant(context));
    let http = HttpConfig::default().timeout(SECOND / 10);
    let store = MemoryStore::with_clock(clock.clone());
    let tokens = builder(&provider, &clock).http(http).store(store).build().unwrap();
    assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::Unavailable);
    clock.advance(SECOND * 60);
    let _ = tokens.token();
    go.send(()).unwrap();
    assert!(!server.used_twice(), "{:?}", server.shown());
}

/// Slow operations of the store before the fetch (state, quota) eat its time; the provider is asked all the same, with
/// nothing left, and with a refresh token whose lease is running out. Providers over HTTP fail at once; others do not know.
#[test]
fn a_provider_is_not_asked_when_the_time_of_the_fetch_is_over() {
    let clock = FakeClock::new();
    let store = Hooked::new(&clock);
    store.before_write(|key, _| {
        if key.as_str().ends_with(":quota") {
            thread::sleep(SECOND / 3);
        }
        Ok(())
    });
    let provider = FakeProvider::new().with_profile(Profile::default().daily_quota(9, 1)).with_renewal(keeps());
    let http = HttpConfig::default().timeout(SECOND / 10);
    let tokens = builder(&provider, &clock).http(http).store(store).build().unwrap();
    let _ = tokens.token();
    assert_eq!(provider.calls(), 0);
}

/// The state's key cannot be written, all else can. The manager looks every second, and says each time that the store
/// cannot be used and that it can be used again: two lines in the log per second, one of them a warning.
#[test]
fn a_state_that_cannot_be_stored_is_said_once_and_not_each_second() {
    let (server, clock) = (Server::default(), FakeClock::new());
    let store = Hooked::new(&clock);
    store.before_write(|key, _| if key.as_str().ends_with(":state") { Err(broken()) } else { Ok(()) });
    let tokens = builder(&refreshing(&server), &clock).store(store).build().unwrap();
    let events = tokens.events();
    text(&tokens);
    let mut told = 0;
    for _ in 0..40 {
        clock.advance(SECOND * 5);
        text(&tokens);
        thread::sleep(SECOND / 50);
        told += events.try_iter().filter(|event| matches!(event.kind, EventKind::StoreDown { .. })).count();
    }
    assert!(told <= 3, "{told} times in 200 seconds");
}
