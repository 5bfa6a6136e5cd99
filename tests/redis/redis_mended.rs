//! Faults of the shared Redis that a review found, each held down by a test.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::alone::alone;
use crate::common::proxy::{Fault, Proxy};
use crate::common::redis_server::RedisServer;
use crate::common::wait::*;
use evertoken::clock::{Clock, Timestamp};
use evertoken::provider::{Identity, Profile};
use evertoken::store::{Entry, Expected, Key, LeaseOutcome, LeaseOwner, PublishOutcome, Store, SwapOutcome};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Error, ErrorKind, EventKind, MemoryStore, RedisConfig, RedisStore, TokenManager, TokenManagerBuilder};

fn sharing(provider: &FakeProvider, url: &str) -> TokenManagerBuilder {
    on(&RedisStore::open(url).unwrap(), provider)
}

fn on(store: &RedisStore, provider: &FakeProvider) -> TokenManagerBuilder {
    TokenManager::builder(provider.clone()).jitter(0.0).store(store.clone())
}

fn manager(provider: &FakeProvider, url: &str) -> TokenManager {
    sharing(provider, url).build().unwrap()
}

/// A provider of a credential of its own, so that its record is one of its own.
fn provider(name: impl ToString) -> FakeProvider {
    FakeProvider::new().with_identity(Identity::new("test").part("name", name.to_string()))
}

/// The token in a record.
fn recorded(bytes: &[u8]) -> String {
    let record: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    record["access_token"].as_str().unwrap().to_owned()
}

fn recorded_in(server: &RedisServer, key: &Key) -> Option<String> {
    Some(recorded(&server.ask::<Option<Vec<u8>>>(&["GET", key.as_str()]).unwrap()?))
}

fn clients(server: &RedisServer) -> usize {
    server.ask::<String>(&["CLIENT", "LIST"]).unwrap().lines().count()
}

/// Waits until somebody waits for news.
fn until_watched(server: &RedisServer) {
    eventually("it watches", || server.ask::<String>(&["CLIENT", "LIST"]).unwrap().contains("cmd=xread"));
}

/// Does something again and again, as a service that uses its token does.
fn use_for(time: Duration, mut use_it: impl FnMut()) {
    let over = Instant::now() + time;
    while Instant::now() < over {
        use_it();
        thread::sleep(Duration::from_millis(5));
    }
}

/// Lets a second pass, and leaves those in the background the time to see it.
fn pass_a_second(clock: &FakeClock) {
    clock.advance(SECOND);
    thread::sleep(Duration::from_millis(5));
}

/// One process's way to a store that others have too: it can break, and something can happen right after a reading.
#[derive(Clone, Default)]
struct Fragile {
    inner: MemoryStore,
    broken: Arc<AtomicBool>,
    after_read: Arc<Mutex<Option<Hook>>>,
}

type Hook = Box<dyn FnOnce() + Send>;

impl Fragile {
    fn of(inner: &MemoryStore) -> Fragile {
        Fragile { inner: inner.clone(), ..Fragile::default() }
    }

    fn breaks(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), Error> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Store, "broken on purpose"));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Fragile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fragile")
    }
}

impl Store for Fragile {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.check()?;
        let entry = self.inner.read(key);
        let hook = self.after_read.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        entry
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        self.check()?;
        self.inner.compare_and_swap(key, expected, new)
    }
}

#[test]
fn promise_7_who_fetched_more_often_in_an_outage_does_not_overwrite_who_fetched_last() {
    let (provider, clock) = (FakeProvider::new(), FakeClock::new());
    let inner = MemoryStore::with_clock(clock.clone());
    let stores = [Fragile::of(&inner), Fragile::of(&inner)];
    let [a, b] = stores.each_ref().map(|store| builder(&provider, &clock).store(store.clone()).build().unwrap());
    assert_eq!((text(&a), text(&b)), ("token-1".to_owned(), "token-1".to_owned()));
    stores.iter().for_each(|store| store.breaks(true));
    for token in ["token-2", "token-3", "token-4"] {
        assert_eq!(a.force_refresh().unwrap().expose(), token);
    }
    clock.advance(600 * SECOND);
    // Granted last, and lives longest.
    assert_eq!(b.force_refresh().unwrap().expose(), "token-5");
    let in_store = || recorded(inner.read(a.key()).unwrap().unwrap().bytes());
    stores[1].breaks(false);
    eventually("it is written", || {
        pass_a_second(&clock);
        text(&b) == "token-5" && in_store() == "token-5"
    });
    stores[0].breaks(false);
    eventually("the newer one is adopted", || {
        pass_a_second(&clock);
        text(&a) == "token-5"
    });
    assert_eq!((in_store(), text(&b)), ("token-5".to_owned(), "token-5".to_owned()));
}

#[test]
fn two_tokens_of_one_moment_are_settled_and_stay_so() {
    let (provider, clock) = (FakeProvider::new(), FakeClock::new());
    let inner = MemoryStore::with_clock(clock.clone());
    let stores = [Fragile::of(&inner), Fragile::of(&inner)];
    let [a, b] = stores.each_ref().map(|store| builder(&provider, &clock).store(store.clone()).build().unwrap());
    stores.iter().for_each(|store| store.breaks(true));
    assert_ne!(text(&a), text(&b));
    stores.iter().for_each(|store| store.breaks(false));
    eventually("both have the same", || {
        pass_a_second(&clock);
        text(&a) == text(&b)
    });
    let settled = text(&a);
    for _ in 0..150 {
        pass_a_second(&clock);
        assert_eq!((text(&a), text(&b)), (settled.clone(), settled.clone()));
    }
    assert_eq!(recorded(inner.read(a.key()).unwrap().unwrap().bytes()), settled);
}

#[test]
fn promise_6_a_redis_that_can_be_read_and_not_written_is_told_to_be_down_once() {
    let (full, replica, master) = (RedisServer::start(), RedisServer::start(), RedisServer::start());
    let provider = FakeProvider::new();
    let managers = [&full, &replica].map(|server| manager(&provider, &server.url()));
    managers.iter().for_each(|tokens| drop(text(tokens)));
    let events = managers.each_ref().map(TokenManager::events);
    full.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    replica.ask::<()>(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).unwrap();
    managers.iter().for_each(|tokens| drop(tokens.force_refresh().unwrap()));
    let is_down = |kind: &EventKind| matches!(kind, EventKind::StoreDown { .. }).then_some(());
    events.iter().for_each(|events| wait_for(events, is_down));
    // Long enough for several tries.
    use_for(4 * SECOND, || managers.iter().for_each(|tokens| drop(text(tokens))));
    for told in events.iter().flat_map(|events| events.try_iter()) {
        assert!(!matches!(told.kind, EventKind::StoreDown { .. } | EventKind::StoreUp), "{:?}", told.kind);
    }
}

#[test]
fn promise_4_a_rejection_stays_when_a_failure_is_recorded_in_the_same_moment() {
    let clock = FakeClock::new();
    let inner = MemoryStore::with_clock(clock.clone());
    let store = Fragile::of(&inner);
    let (hook, after_read) = (Arc::new(Mutex::new(None::<Hook>)), store.after_read.clone());
    let taken = hook.clone();
    let provider = FakeProvider::new().then_grant("token-1", 2 * HOUR).then(move |_| {
        // The next reading is the one before the failure is recorded.
        *after_read.lock().unwrap() = taken.lock().unwrap().take();
        Err(Error::new(ErrorKind::Unavailable, "down"))
    });
    let one = builder(&provider, &clock).store(store).build().unwrap();
    let other = builder(&provider, &clock).store(inner.clone()).build().unwrap();
    assert_eq!((text(&one), text(&other)), ("token-1".to_owned(), "token-1".to_owned()));
    let (rejecter, token) = (other.clone(), other.token().unwrap());
    *hook.lock().unwrap() = Some(Box::new(move || rejecter.reject(&token).unwrap()));
    one.force_refresh().unwrap_err();
    // Of a process that starts only now.
    let third = builder(&provider, &clock).store(inner).build().unwrap();
    assert!(third.token().ok().is_none_or(|token| token.expose() != "token-1"));
}

#[test]
fn promise_4_an_invalidation_that_could_not_be_told_holds_here() {
    let (provider, clock) = (FakeProvider::new(), FakeClock::new());
    let store = Fragile::of(&MemoryStore::with_clock(clock.clone()));
    let tokens = builder(&provider, &clock).store(store.clone()).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    store.breaks(true);
    tokens.invalidate().unwrap_err();
    store.breaks(false);
    clock.advance(2 * SECOND);
    assert_eq!(text(&tokens), "token-2");
}

#[test]
fn promise_3_a_cold_start_of_many_on_a_slow_way_costs_one_fetch_for_each() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.addr());
    // A queue of a hundred takes twice the time that one operation has.
    proxy.set(Fault::Delay(Duration::from_millis(10)));
    shows("nobody fetches for itself", |round| {
        let stores = [0; 2].map(|_| RedisStore::open(&proxy.url()).unwrap());
        let providers: Vec<_> = (0..100).map(|number| provider(format!("{round}, {number}"))).collect();
        let managers: Vec<_> = stores
            .iter()
            .flat_map(|store| providers.iter().map(|provider| on(store, provider).build().unwrap()))
            .collect();
        thread::scope(|scope| managers.iter().for_each(|tokens| drop(scope.spawn(|| text(tokens)))));
        (providers.iter().map(FakeProvider::calls).sum::<usize>() == providers.len()).then_some(())
    });
}

#[test]
fn a_stream_of_the_wrong_type_does_not_end_the_watch_of_others() {
    let server = RedisServer::start();
    let store = RedisStore::open(&server.url()).unwrap();
    let providers = [provider("poisoned"), provider("sound")];
    let [poisoned, sound] = providers.each_ref().map(|provider| on(&store, provider).watch(true).build().unwrap());
    assert_eq!((text(&poisoned), text(&sound)), ("token-1".to_owned(), "token-1".to_owned()));
    until_watched(&server);
    let news = format!("{}:news", poisoned.key());
    server.ask::<()>(&["DEL", &news]).unwrap();
    server.ask::<()>(&["SET", &news, "poison"]).unwrap();
    let (other, events) = (manager(&providers[1], &server.url()), sound.events());
    assert_eq!(text(&other), "token-1");
    // The first of them may still be brought by what had been asked before.
    for _ in 0..3 {
        other.force_refresh().unwrap();
        wait_for_grant(&events);
    }
}

#[test]
fn a_password_that_has_changed_is_not_tried_again_and_again_by_who_waits() {
    let server = RedisServer::start();
    server.ask::<()>(&["ACL", "SETUSER", "app", "on", ">right", "~*", "+@all"]).unwrap();
    let config = RedisConfig::from_url(&server.url()).unwrap().user("app").password("right");
    let (store, provider) = (RedisStore::new(config).unwrap(), FakeProvider::new());
    let first = on(&store, &provider).build().unwrap();
    assert_eq!(text(&first), "token-1");
    // Connections that there are stay.
    server.ask::<()>(&["ACL", "SETUSER", "app", "resetpass", ">other"]).unwrap();
    server.ask::<()>(&["DEL", first.key().as_str()]).unwrap();
    server.ask::<()>(&["SET", &format!("{}:lock", first.key()), "somebody", "PX", "6000"]).unwrap();
    let _ = on(&store, &provider).build().unwrap().token_within(3 * SECOND);
    let stats: String = server.ask(&["INFO", "commandstats"]).unwrap();
    let refused: usize = crate::common::redis_server::field(&stats, "cmdstat_auth")
        .unwrap()
        .rsplit('=')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=3).contains(&refused), "{refused} times");
}

#[test]
fn promise_4_a_rejection_is_heard_of_after_a_flush() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let one = manager(&provider, &server.url());
    let other = sharing(&provider, &server.url()).watch(true).build().unwrap();
    assert_eq!((text(&one), text(&other)), ("token-1".to_owned(), "token-1".to_owned()));
    until_watched(&server);
    let events = other.events();
    // Once it has heard of this, nothing that came before is left to be heard of.
    let token = one.force_refresh().unwrap();
    wait_for_grant(&events);
    until_watched(&server);
    server.ask::<()>(&["FLUSHALL"]).unwrap();
    one.reject(&token).unwrap();
    wait_for(&events, |kind| matches!(kind, EventKind::Rejected { .. }).then_some(()));
}

#[test]
fn promise_3_a_number_that_leaves_no_room_for_higher_ones_does_not_end_the_sharing() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let first = manager(&provider, &server.url());
    assert_eq!(text(&first), "token-1");
    let key = first.key();
    let record: Vec<u8> = server.ask(&["GET", key.as_str()]).unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    record["number"] = serde_json::json!(1_u64 << 53);
    server.ask::<()>(&["SET", key.as_str(), &record.to_string(), "KEEPTTL"]).unwrap();
    let [one, other] =
        [0; 2].map(|_| sharing(&provider, &server.url()).store_check_interval(SECOND / 10).build().unwrap());
    assert_eq!((text(&one), text(&other)), ("token-1".to_owned(), "token-1".to_owned()));
    assert_eq!(one.force_refresh().unwrap().expose(), "token-2");
    eventually("the newer one is adopted", || text(&one) == "token-2" && text(&other) == "token-2");
    use_for(SECOND, || assert_eq!((text(&one), text(&other)), ("token-2".to_owned(), "token-2".to_owned())));
    assert_eq!((recorded_in(&server, key).as_deref(), provider.calls()), (Some("token-2"), 2));
}

/// A clock that panics when the one who watches reads it, once it is `broken`.
#[derive(Clone, Debug, Default)]
struct BrokenClock {
    clock: FakeClock,
    broken: Arc<AtomicBool>,
    panics: Arc<AtomicUsize>,
}

impl Clock for BrokenClock {
    fn now(&self) -> Timestamp {
        if self.broken.load(Ordering::SeqCst) && thread::current().name() == Some("evertoken-watch") {
            self.panics.fetch_add(1, Ordering::SeqCst);
            std::panic::panic_any("the clock is broken");
        }
        self.clock.now()
    }
}

#[test]
fn a_clock_that_panics_does_not_end_the_watch_of_others() {
    let server = RedisServer::start();
    let store = RedisStore::open(&server.url()).unwrap();
    let (providers, clock) = ([provider("broken"), provider("sound")], BrokenClock::default());
    let broken = on(&store, &providers[0]).clock(clock.clone()).watch(true).build().unwrap();
    let sound = on(&store, &providers[1]).watch(true).build().unwrap();
    let others = providers.each_ref().map(|provider| manager(provider, &server.url()));
    for tokens in [&broken, &sound, &others[0], &others[1]] {
        assert_eq!(text(tokens), "token-1");
    }
    until_watched(&server);
    clock.broken.store(true, Ordering::SeqCst);
    others[0].force_refresh().unwrap();
    eventually("the broken clock is read", || clock.panics.load(Ordering::SeqCst) > 0);
    let events = sound.events();
    others[1].force_refresh().unwrap();
    wait_for_grant(&events);
}

/// Redis 5 and 6 say first in which script it was.
#[test]
fn an_old_redis_that_is_a_replica_is_known_as_one_and_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                let reply = b"-@user_script: 50: -READONLY You can't write against a read only replica.  \r\n";
                let mut bytes = vec![0; 1 << 16];
                while stream.read(&mut bytes).is_ok_and(|count| count > 0) && stream.write_all(reply).is_ok() {}
            });
        }
    });
    let (store, key) = (RedisStore::open(&url).unwrap(), TokenManager::new(provider("replica")).key().clone());
    for _ in 0..2 {
        let error = store.read_or_lease(&key, None, SECOND, &LeaseOwner::new("a"), HOUR).unwrap_err();
        assert_eq!(error.code(), Some("READONLY"), "{error}");
    }
    // It could be a master that was demoted.
    assert!(connections.load(Ordering::SeqCst) > 1);
}

#[cfg(feature = "redis-cluster")]
#[test]
fn a_key_of_ones_own_on_a_cluster_is_in_nobodys_way() {
    let cluster = crate::common::cluster::RedisCluster::start();
    shows("no store trouble is noted", |round| {
        let store = RedisStore::new(RedisConfig::cluster(cluster.nodes()).unwrap()).unwrap();
        let plain = on(&store, &provider("plain")).key(&format!("plain-{round}")).build().unwrap();
        let other = on(&store, &provider(round)).build().unwrap();
        assert_eq!((text(&plain), text(&other)), ("token-1".to_owned(), "token-1".to_owned()));
        (other.metrics().store_errors == 0 && other.status().store_down_for.is_none()).then_some(())
    });
}

#[test]
fn promise_4_a_publication_that_is_asked_for_again_does_not_undo_what_came_after_it() {
    let server = RedisServer::start();
    let (proxy, owner) = (Proxy::to(server.addr()), LeaseOwner::new("a"));
    let direct = RedisStore::open(&server.url()).unwrap();
    shows("it is asked for again too late", |round| {
        proxy.set(Fault::None);
        let (store, key) = (RedisStore::open(&proxy.url()).unwrap(), TokenManager::new(provider(round)).key().clone());
        // The server knows the scripts then, so that the answer that is lost is the one that counts.
        patiently(|| direct.publish(&key, &owner, None, b"warm", SECOND));
        patiently(|| direct.compare_and_swap(&key, Expected::Any, None));
        assert!(matches!(patiently(|| store.read_or_lease(&key, None, SECOND, &owner, HOUR)), LeaseOutcome::Leased));
        proxy.set(Fault::Delay(PATIENCE));
        let published = thread::scope(|scope| {
            let publishing = scope.spawn(|| store.publish(&key, &owner, None, b"token", HOUR));
            eventually("it is written", || patiently(|| direct.read(&key)).is_some());
            let entry = patiently(|| direct.read(&key)).unwrap();
            let rejected = Some((b"rejected".as_slice(), entry.remaining()));
            patiently(|| direct.compare_and_swap(&key, Expected::Version(entry.version()), rejected));
            // In this order: the answer that is late must not come after all.
            proxy.cut_all();
            proxy.set(Fault::None);
            publishing.join().unwrap()
        });
        assert_eq!(patiently(|| direct.read(&key)).unwrap().bytes(), b"rejected");
        matches!(published, Ok(PublishOutcome::Conflict(_))).then_some(())
    });
}

#[test]
fn promise_9_replies_that_trickle_do_not_pile_up_connections() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.addr());
    proxy.set(Fault::Trickle(SECOND / 5));
    let store = RedisStore::open(&proxy.url()).unwrap();
    let managers: Vec<_> = (0..30).map(|number| on(&store, &provider(number)).build().unwrap()).collect();
    let mut most = 0;
    let over = Instant::now() + 6 * SECOND;
    thread::scope(|scope| {
        for tokens in &managers {
            scope.spawn(move || {
                while Instant::now() < over {
                    text(tokens);
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
        use_for(6 * SECOND, || most = most.max(proxy.open_connections()));
    });
    assert!((1..=6).contains(&most), "{most} at once");
}

#[test]
fn promise_7_beside_another_program_who_has_looked_often_does_not_overwrite_a_newer_token() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let beside = || sharing(&provider, &server.url()).key("wx:corp").store_check_interval(SECOND / 10).build().unwrap();
    let foreign = r#"{"access_token":"foreign","expires_at":9999999999}"#;
    server.ask::<()>(&["SET", "wx:corp", foreign, "PX", "3600000"]).unwrap();
    let often = beside();
    use_for(SECOND, || assert_eq!(text(&often), "foreign"));
    let other = beside();
    assert_eq!(text(&other), "foreign");
    assert_eq!(other.force_refresh().unwrap().expose(), "token-1");
    eventually("the newer one is adopted", || text(&often) == "token-1" && text(&other) == "token-1");
    use_for(SECOND, || assert_eq!((text(&often), text(&other)), ("token-1".to_owned(), "token-1".to_owned())));
    assert_eq!(recorded_in(&server, often.key()).as_deref(), Some("token-1"));
}

#[test]
fn promise_3_a_lease_of_a_day_is_taken_over_at_once_and_by_one() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new().gated());
    let managers = [0; 4].map(|_| manager(&provider, &server.url()));
    let lease = format!("{}:lock", managers[0].key());
    server.ask::<()>(&["SET", &lease, "somebody", "PX", "86400000"]).unwrap();
    let asked = Instant::now();
    thread::scope(|scope| {
        managers.iter().for_each(|tokens| drop(scope.spawn(|| text(tokens))));
        assert!(provider.wait_for_calls(1, PATIENCE));
        // Whoever waits for a lease waits for longer.
        assert!(asked.elapsed() < 3 * SECOND);
        eventually("all look for a token", || managers.iter().all(|tokens| tokens.status().fetching));
        provider.open();
    });
    assert_eq!(provider.calls(), 1);
}

#[test]
fn a_large_entry_that_was_in_the_stream_before_is_not_read() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let other = manager(&provider, &server.url());
    assert_eq!(text(&other), "token-1");
    let large = "x".repeat(8 << 20);
    server.ask::<String>(&["XADD", &format!("{}:news", other.key()), "*", "v", &large]).unwrap();
    let sent = || -> u64 {
        let statistics: String = server.ask(&["INFO", "stats"]).unwrap();
        crate::common::redis_server::field(&statistics, "total_net_output_bytes").unwrap().parse().unwrap()
    };
    let before = sent();
    let watching = sharing(&provider, &server.url()).watch(true).build().unwrap();
    let events = watching.events();
    assert_eq!(text(&watching), "token-1");
    wait_for_grant(&events);
    until_watched(&server);
    other.force_refresh().unwrap();
    wait_for_grant(&events);
    assert!(sent() - before < 1 << 20);
}

#[test]
fn promise_9_the_watch_ends_when_nothing_is_held() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let tokens = sharing(&provider, &server.url()).watch(true).build().unwrap();
    let token = tokens.token().unwrap();
    // The store's own, the one that watches, and the one that asks.
    eventually("there are two connections", || clients(&server) == 3);
    tokens.reject(&token).unwrap();
    eventually("the one that watches is closed", || clients(&server) == 2);
}

/// Counts what is logged about trouble.
struct Counter(AtomicUsize);

impl log::Log for Counter {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() == log::Level::Warn && record.target() == "evertoken" {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn flush(&self) {}
}

#[test]
fn promise_6_an_outage_is_logged_once_however_many_managers_notice_it() {
    // A process has one logger.
    alone(|| {
        static COUNTER: Counter = Counter(AtomicUsize::new(0));
        log::set_logger(&COUNTER).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
        let store = RedisStore::open("redis://127.0.0.1:1/").unwrap();
        let managers: Vec<_> = (0..50).map(|number| on(&store, &provider(number)).build().unwrap()).collect();
        managers.iter().for_each(|tokens| assert_eq!(text(tokens), "token-1"));
        let noticed = managers.iter().filter(|tokens| tokens.status().store_down_for.is_some()).count();
        assert_eq!((noticed, COUNTER.0.load(Ordering::SeqCst)), (50, 1));
    });
}

#[test]
fn promise_7_after_a_crash_an_older_token_does_not_overwrite_the_one_that_ended_it() {
    shows("a new process is the first to write", |_| {
        let server = RedisServer::start();
        let proxy = Proxy::to(server.addr());
        // Between what it reads and what it writes, time passes.
        proxy.set(Fault::Delay(Duration::from_millis(20)));
        let provider = FakeProvider::new().with_profile(Profile::default().new_token_ends_old(true));
        let old = sharing(&provider, &proxy.url()).store_check_interval(2 * SECOND).build().unwrap();
        assert_eq!(text(&old), "token-1");
        assert_eq!(old.force_refresh().unwrap().expose(), "token-2");
        server.kill();
        server.restart();
        let new = sharing(&provider, &server.url()).store_check_interval(SECOND / 5).build().unwrap();
        if text(&new) != "token-3" {
            return None;
        }
        eventually("it is adopted", || {
            assert_eq!(text(&new), "token-3");
            text(&old) == "token-3"
        });
        assert_eq!(recorded_in(&server, old.key()).as_deref(), Some("token-3"));
        Some(())
    });
}

#[test]
fn a_database_that_there_is_not_is_a_wrong_setting() {
    let negative = RedisConfig::from_url("redis://127.0.0.1/-1").and_then(RedisStore::new);
    assert_eq!(negative.unwrap_err().kind(), ErrorKind::Config);
    let (server, key) = (RedisServer::start(), TokenManager::new(provider("database")).key().clone());
    let store = RedisStore::new(RedisConfig::from_url(&server.url()).unwrap().database(99)).unwrap();
    eventually("it is told", || store.read(&key).unwrap_err().kind() == ErrorKind::Config);
}
