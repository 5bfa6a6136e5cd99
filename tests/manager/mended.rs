//! Faults that were found once, each held down by a test.

use std::net::TcpListener;
use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::wait::*;
use crossbeam_channel::TryRecvError;
use evertoken::clock::{Clock, Notifier, Timestamp};
use evertoken::provider::{Context, Grant, Identity, Provider};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, ErrorKind, HttpConfig, MemoryStore, OAuth2, TokenManager, WeCom};

#[test]
fn managers_on_a_full_store_still_fetch_once() {
    let store = MemoryStore::new();
    fill(&store);
    let provider = FakeProvider::new().gated();
    let tokens = || TokenManager::builder(provider.clone()).store(store.clone()).build().unwrap();
    let (one, other) = (tokens(), tokens());
    thread::scope(|scope| {
        scope.spawn(|| text(&one));
        assert!(provider.wait_for_calls(1, PATIENCE));
        let waiting = scope.spawn(|| text(&other));
        // The other one either waits for the lease or asks as well: both show as a fetch under way.
        eventually("the other one looks for a token", || other.status().fetching);
        provider.open();
        waiting.join().unwrap();
    });
    assert_eq!(provider.calls(), 1);
}

/// A clock that panics when the refresher reads it, once it is `broken`.
#[derive(Debug, Clone)]
struct BrokenClock {
    clock: FakeClock,
    broken: Arc<AtomicBool>,
    panics: Arc<AtomicUsize>,
}

impl Clock for BrokenClock {
    fn now(&self) -> Timestamp {
        if self.broken.load(Ordering::SeqCst) && thread::current().name() == Some("evertoken-refresher") {
            self.panics.fetch_add(1, Ordering::SeqCst);
            panic_any("the clock is broken");
        }
        self.clock.now()
    }

    fn on_jump(&self, notifier: Notifier) {
        self.clock.on_jump(notifier);
    }
}

#[test]
fn a_clock_that_panics_ends_no_other_managers_renewals() {
    let clock = BrokenClock { clock: FakeClock::new(), broken: Arc::default(), panics: Arc::default() };
    let broken = TokenManager::builder(FakeProvider::new()).clock(clock.clone()).build().unwrap();
    text(&broken);
    let (healthy, time) = on_clock(&FakeProvider::new());
    let events = healthy.events();
    text(&healthy);
    wait_for_grant(&events);
    text(&healthy);
    clock.broken.store(true, Ordering::SeqCst);
    clock.clock.advance(SECOND);
    eventually("the refresher reads the broken clock", || clock.panics.load(Ordering::SeqCst) > 0);
    time.advance(6900 * SECOND);
    wait_for_grant(&events);
    assert_eq!(healthy.metrics().background_refreshes, 1);
    assert_eq!(clock.panics.load(Ordering::SeqCst), 1, "it is not read again and again");
    // When it is well again, its manager is looked after again.
    clock.broken.store(false, Ordering::SeqCst);
    let events = broken.events();
    clock.clock.advance(24 * HOUR);
    text(&broken);
    wait_for_grant(&events);
    text(&broken);
    clock.clock.advance(7000 * SECOND);
    wait_for_grant(&events);
}

#[test]
fn a_lead_shorter_than_the_margin_still_renews_in_the_background() {
    let (provider, clock) = (FakeProvider::new(), FakeClock::new());
    let tokens = builder(&provider, &clock).refresh_ahead(30 * SECOND).build().unwrap();
    let events = tokens.events();
    text(&tokens);
    wait_for_grant(&events);
    text(&tokens);
    assert_eq!(tokens.status().refresh_in, Some(7140 * SECOND));
    clock.advance(7140 * SECOND);
    wait_for_grant(&events);
    assert_eq!(tokens.metrics().background_refreshes, 1);
}

#[test]
fn the_largest_jitter_moves_no_renewal_into_the_safety_margin() {
    for _ in 0..100 {
        let tokens = builder(&FakeProvider::new(), &FakeClock::new()).jitter(1.0).build().unwrap();
        text(&tokens);
        assert!(tokens.status().refresh_in.unwrap() <= 7140 * SECOND);
    }
}

#[test]
fn endless_http_time_limits_are_no_panic() {
    let url = {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://127.0.0.1:{}/token", closed.local_addr().unwrap().port())
    };
    let http = HttpConfig::default;
    for http in [
        http().resolve_timeout(Duration::MAX),
        http().connect_timeout(Duration::MAX),
        http().timeout(Duration::MAX),
        http().timeout(Duration::MAX).resolve_timeout(Duration::MAX).connect_timeout(Duration::MAX),
    ] {
        let tokens = TokenManager::builder(OAuth2::new(&url, "id", "secret")).http(http).build().unwrap();
        assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

/// Calls its manager whenever it is asked for its name.
#[derive(Clone, Default)]
struct Nosy(Arc<Mutex<Option<TokenManager>>>);

impl Provider for Nosy {
    fn name(&self) -> &str {
        let tokens = self.0.lock().unwrap().take();
        if let Some(tokens) = tokens {
            tokens.warm_up();
        }
        "nosy"
    }

    fn identity(&self) -> Identity {
        Identity::new("nosy")
    }

    fn fetch(&self, _: &Context) -> Result<Grant, Error> {
        Ok(Grant::new("t-1", HOUR))
    }
}

#[test]
fn a_providers_name_may_call_its_manager_while_the_status_is_read() {
    let nosy = Nosy::default();
    let tokens = TokenManager::new(nosy.clone());
    *nosy.0.lock().unwrap() = Some(tokens.clone());
    let (sender, receiver) = crossbeam_channel::bounded(1);
    thread::spawn(move || sender.send(tokens.status().provider));
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), "nosy");
}

#[test]
fn the_status_shows_a_wrong_setting() {
    let tokens = TokenManager::new(WeCom::new("", ""));
    let (error, ago) = tokens.status().last_error.unwrap();
    assert_eq!((error.kind(), ago), (ErrorKind::Config, Duration::ZERO));
    assert!(tokens.status().to_string().contains("the corp id is empty"));
}

#[test]
fn a_manager_has_no_more_than_sixty_four_subscriptions() {
    let (tokens, _clock) = on_clock(&FakeProvider::new());
    let subscriptions: Vec<_> = (0..65).map(|_| tokens.events()).collect();
    assert_eq!(subscriptions[0].try_recv().err(), Some(TryRecvError::Disconnected));
    text(&tokens);
    subscriptions[1..].iter().for_each(wait_for_grant);
}

#[test]
fn neither_oauth2_nor_wecom_shows_the_password_or_query_of_its_url() {
    let url = "https://user:hunter2@host/t?key=hunter2#hunter2";
    let oauth2 = OAuth2::new(url, "id", "secret").resource(url).audience(url);
    let wecom = WeCom::new("corp", "secret").base_url(url);
    let shown = format!("{oauth2:?} {wecom:?} {:?} {:?}", oauth2.identity(), wecom.identity());
    assert!(!shown.contains("hunter2") && shown.contains("https://host/t"), "{shown}");
}

/// Ten thousand records, which is as many as there is room for.
fn fill(store: &MemoryStore) {
    use evertoken::store::{Expected, Store};
    for number in 0..10_000 {
        let other = TokenManager::builder(FakeProvider::new()).key(&format!("k{number}")).build().unwrap();
        store.compare_and_swap(other.key(), Expected::Any, Some((b"x", HOUR))).unwrap();
    }
}
