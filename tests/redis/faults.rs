//! A Redis that is down, hung, full, read-only, poisoned or flushed is not a token problem.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use evertoken::clock::Clock;
use evertoken::provider::{Grant, Identity, Profile, from_fn};
use evertoken::store::{LeaseOutcome, LeaseOwner, Store};
use evertoken::testing::FakeProvider;
use evertoken::{Error, ErrorKind, Event, EventKind, RedisConfig, RedisStore, TokenManager};

use crate::common::alone::alone;
use crate::common::proxy::{Fault, Proxy};
use crate::common::redis_server::RedisServer;
use crate::common::wait::*;
use crate::setup::*;

fn wait_for_store(events: &crossbeam_channel::Receiver<Event>, up: bool) -> Option<Error> {
    wait_for(events, |kind| match kind {
        EventKind::StoreDown { error, .. } if !up => Some(Some(error.clone())),
        EventKind::StoreUp if up => Some(None),
        _ => None,
    })
}

/// Uses the token until the store is told to be up or down: what is not used is not compared with it.
fn use_until_store(tokens: &TokenManager, events: &crossbeam_channel::Receiver<Event>, up: bool) -> Duration {
    let (asked, mut slowest) = (Instant::now(), Duration::ZERO);
    let is_told = |event: Event| match event.kind {
        EventKind::StoreDown { .. } => !up,
        EventKind::StoreUp => up,
        _ => false,
    };
    while !events.try_iter().any(is_told) {
        let called = Instant::now();
        assert_eq!(text(tokens), "token-1");
        slowest = slowest.max(called.elapsed());
        assert!(asked.elapsed() < PATIENCE, "the store is not told to be {}", if up { "up" } else { "down" });
    }
    slowest
}

/// All faults of the way, each by its name.
fn faults() -> Vec<(&'static str, Fault)> {
    vec![
        ("late", Fault::Delay(2 * SECOND)),
        ("silent", Fault::BlackHole),
        ("cut", Fault::Cut),
        ("half a reply", Fault::HalfReply),
        ("half a reply and silence", Fault::HalfThenSilence),
        ("a trickle", Fault::Trickle(SECOND / 10)),
        ("reset", Fault::Reset),
        ("garbage", Fault::Garbage),
        ("refused", Fault::Refuse),
    ]
}

#[test]
fn promise_1_and_6_no_fault_of_redis_is_noticed_while_a_token_is_held() {
    let server = RedisServer::start();
    for (name, fault) in faults() {
        let proxy = Proxy::to(server.addr());
        let provider = FakeProvider::new().with_identity(Identity::new("test").part("fault", name));
        let tokens = sharing(&provider, &proxy.url()).store_check_interval(SECOND / 10).build().unwrap();
        let events = tokens.events();
        assert_eq!(text(&tokens), "token-1");
        proxy.set(fault);
        assert!(use_until_store(&tokens, &events, false) < SECOND, "{name}");
        proxy.set(Fault::None);
        use_until_store(&tokens, &events, true);
        assert_eq!(provider.calls(), 1, "{name}");
        assert!(tokens.metrics().store_errors >= 1);
    }
}

#[test]
fn promise_5_and_6_with_nothing_held_no_fault_of_redis_costs_more_than_its_time_limit() {
    let server = RedisServer::start();
    for (name, fault) in faults() {
        let proxy = Proxy::to(server.addr());
        proxy.set(fault);
        let provider = FakeProvider::new().with_identity(Identity::new("test").part("fault", name));
        let tokens = manager(&provider, &proxy.url());
        let asked = Instant::now();
        assert_eq!(text(&tokens), "token-1", "{name}");
        assert!(asked.elapsed() < SOON, "{name} took {:?}", asked.elapsed());
        assert_eq!(provider.calls(), 1, "{name}");
    }
}

#[test]
fn promise_6_a_redis_that_is_not_there_costs_no_time() {
    let provider = FakeProvider::new();
    let server = RedisServer::start();
    server.kill();
    let tokens = manager(&provider, &server.url());
    let events = tokens.events();
    assert_eq!(text(&tokens), "token-1");
    let error = wait_for_store(&events, false).unwrap();
    let address = server.url().replace("redis://", "");
    let refused = format!("redis at {address} refused the connection; is the server running there?");
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Store, refused));
}

#[test]
fn promise_6_a_redis_that_is_stopped_while_a_token_is_held_is_not_noticed() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let tokens = sharing(&provider, &server.url()).store_check_interval(SECOND / 10).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    let events = tokens.events();
    server.stop();
    assert!(use_until_store(&tokens, &events, false) < SECOND);
    server.go_on();
    use_until_store(&tokens, &events, true);
    assert_eq!(provider.calls(), 1);
}

#[test]
fn promise_5_a_redis_that_is_stopped_costs_half_a_second_when_nothing_is_held() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    server.stop();
    let tokens = manager(&provider, &server.url());
    let asked = Instant::now();
    assert_eq!(text(&tokens), "token-1");
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
}

#[test]
fn promise_6_and_7_after_a_crash_redis_gets_what_was_fetched_meanwhile() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let tokens = manager(&provider, &server.url());
    let events = tokens.events();
    assert_eq!(text(&tokens), "token-1");
    server.kill();
    assert_eq!(tokens.force_refresh().unwrap().expose(), "token-2");
    wait_for_store(&events, false);
    assert_eq!(tokens.try_token().unwrap().expose(), "token-2");
    server.restart();
    wait_for_store(&events, true);
    eventually("it is written", || recorded_token(&server, &tokens).as_deref() == Some("token-2"));
    // Another process finds it.
    assert_eq!(text(&manager(&provider, &server.url())), "token-2");
    assert_eq!(provider.calls(), 2);
}

#[test]
fn promise_7_a_token_whose_publication_fails_is_handed_out_and_written_later() {
    let server = RedisServer::start();
    let proxy = Arc::new(Proxy::to(server.addr()));
    let cut = proxy.clone();
    let provider = FakeProvider::new().then(move |_| {
        // Redis goes away while the provider is being asked.
        cut.set(Fault::Refuse);
        Ok(Grant::new("token-1", HOUR))
    });
    let tokens = manager(&provider, &proxy.url());
    let events = tokens.events();
    assert_eq!(text(&tokens), "token-1");
    assert_eq!(recorded_token(&server, &tokens), None);
    proxy.set(Fault::None);
    wait_for_store(&events, true);
    eventually("it is written", || recorded_token(&server, &tokens).as_deref() == Some("token-1"));
}

#[test]
fn promise_7_a_newer_token_in_redis_is_not_overwritten_after_an_outage() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.addr());
    let provider = FakeProvider::new();
    let (cut_off, other) = (manager(&provider, &proxy.url()), manager(&provider, &server.url()));
    let events = cut_off.events();
    assert_eq!((text(&cut_off), text(&other)), ("token-1".to_owned(), "token-1".to_owned()));
    proxy.set(Fault::Refuse);
    assert_eq!(cut_off.force_refresh().unwrap().expose(), "token-2");
    // Two fetches later than that one.
    for token in ["token-3", "token-4"] {
        assert_eq!(other.force_refresh().unwrap().expose(), token);
    }
    proxy.set(Fault::None);
    wait_for_store(&events, true);
    eventually("the newer one is adopted", || cut_off.try_token().unwrap().expose() == "token-4");
    assert_eq!(recorded_token(&server, &other).as_deref(), Some("token-4"));
}

#[test]
fn a_first_time_out_and_a_lost_connection_are_tried_again_on_a_new_connection() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.addr());
    let tokens = manager(&FakeProvider::new(), &proxy.url());
    let store = RedisStore::open(&proxy.url()).unwrap();
    for _ in 0..100 {
        proxy.cut_all();
        patiently(|| store.read(tokens.key()));
    }
    assert!(proxy.connections() >= 100);
    assert_eq!(proxy.open_connections(), 1);
}

#[test]
fn a_connection_that_the_server_kills_again_and_again_costs_nobody_an_error() {
    // Others would open descriptors meanwhile.
    alone(|| {
        let (server, provider) = (RedisServer::start(), FakeProvider::new());
        let tokens = manager(&provider, &server.url());
        assert_eq!(text(&tokens), "token-1");
        let before = descriptors();
        for round in 2..=100 {
            server.ask::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
            assert_eq!(tokens.force_refresh().unwrap().expose(), format!("token-{round}"));
        }
        assert_eq!((provider.calls(), tokens.metrics().store_errors), (100, 0));
        let clients = server.ask::<String>(&["CLIENT", "LIST"]).unwrap();
        assert_eq!(clients.lines().count(), 2, "{clients}");
        assert_eq!(descriptors(), before);
    });
}

/// How many files and connections this process has open.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn the_breaker_lets_one_try_at_a_time_whoever_asks() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.addr());
    proxy.set(Fault::Cut);
    let store = RedisStore::open(&proxy.url()).unwrap();
    let key = TokenManager::new(FakeProvider::new()).key().clone();
    // Each failure is two tries, and one question whether the server expects TLS.
    let each = if cfg!(feature = "redis-tls") { 3 } else { 2 };
    (0..3).for_each(|_| drop(store.read(&key).unwrap_err()));
    assert_eq!(proxy.connections(), 3 * each);
    let rest = store.read(&key).unwrap_err().retry_after().unwrap();
    assert!(rest <= 2 * SECOND);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                // Without a pause, until well after the first probe.
                let over = Instant::now() + rest + SECOND / 2;
                while Instant::now() < over {
                    store.read(&key).unwrap_err();
                }
            });
        }
    });
    assert_eq!(proxy.connections(), 4 * each, "one probe");
    proxy.set(Fault::None);
    eventually("the next probe closes it", || store.read(&key).is_ok());
    (0..100).for_each(|_| assert!(store.read(&key).unwrap().is_none()));
    assert_eq!(proxy.connections(), 4 * each + 1);
}

#[test]
fn the_state_of_the_store_is_told_once_per_change() {
    let server = RedisServer::start();
    let provider = FakeProvider::new();
    let tokens = sharing(&provider, &server.url()).store_check_interval(SECOND / 10).build().unwrap();
    let events = tokens.events();
    assert_eq!(text(&tokens), "token-1");
    for _ in 0..2 {
        server.kill();
        use_until_store(&tokens, &events, false);
        // Many calls and several tries later.
        let before = tokens.metrics().store_errors;
        eventually("it is tried again", || text(&tokens) == "token-1" && tokens.metrics().store_errors > before);
        let told = events.try_iter().filter(|event| matches!(event.kind, EventKind::StoreDown { .. }));
        assert_eq!(told.count(), 0);
        server.restart();
        use_until_store(&tokens, &events, true);
    }
    assert_eq!(provider.calls(), 1);
}

/// What answers every request with these bytes.
struct Pretender {
    url: String,
    requests: Arc<AtomicUsize>,
}

fn pretender(reply: &'static [u8]) -> Pretender {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, counted) = (stream.unwrap(), counted.clone());
            thread::spawn(move || {
                let mut bytes = vec![0; 1 << 16];
                while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    if stream.write_all(reply).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Pretender { url, requests }
}

/// What the server says, and what the person is told.
#[test]
fn what_the_server_refuses_is_told_in_words_that_help_and_quote_nothing() {
    let cases: [(&'static [u8], ErrorKind, &str); 13] = [
        (b"-LOADING Redis is loading the dataset in memory\r\n", ErrorKind::Store, "loading its data (code LOADING)"),
        (b"-OOM command not allowed when used memory > 'maxmemory'\r\n", ErrorKind::Store, "maxmemory (code OOM)"),
        (b"-READONLY You can't write against a read only replica.\r\n", ErrorKind::Store, "replica"),
        (b"-MISCONF Redis is configured to save RDB snapshots\r\n", ErrorKind::Store, "cannot save"),
        (b"-NOAUTH Authentication required.\r\n", ErrorKind::Config, "set one with RedisConfig::password"),
        (b"-NOPERM this user has no permissions hunter2\r\n", ErrorKind::Config, "extend the user's ACL"),
        (b"-NOREPLICAS Not enough good replicas to write.\r\n", ErrorKind::Store, "min-replicas-to-write"),
        (b"-BUSY Redis is busy running a script.\r\n", ErrorKind::Store, "end the script"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", ErrorKind::Store, "use the address of the master"),
        (b"-ERR something else hunter2\r\n", ErrorKind::Store, "an error (code ERR)"),
        (b"-MOVED 1234 10.0.0.1:6379\r\n", ErrorKind::Config, "use RedisConfig::cluster"),
        (
            b"-ERR unknown command 'hunter2', with args beginning with: 'hunter2'\r\n",
            ErrorKind::Config,
            "lacks a command",
        ),
        (b"$7\r\nhunter2\r\n", ErrorKind::Store, "makes no sense"),
    ];
    let key = TokenManager::new(FakeProvider::new()).key().clone();
    for (reply, kind, says) in cases {
        let server = pretender(reply);
        let error = RedisStore::open(&server.url).unwrap().read(&key).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert_eq!(error.kind(), kind, "{shown}");
        assert!(shown.contains(says), "{shown}");
        assert!(error.to_string().contains(&server.url.replace("redis://", "redis at ")), "{shown}");
        for leak in ["hunter2", "10.0.0.1"] {
            assert!(!shown.contains(leak), "{shown}");
        }
        // For a manager it is trouble of the store, and no more.
        let tokens = manager(&FakeProvider::new(), &server.url);
        let events = tokens.events();
        assert_eq!(text(&tokens), "token-1");
        assert_eq!(wait_for_store(&events, false).unwrap().kind(), ErrorKind::Store);
    }
}

#[test]
fn what_the_server_refuses_is_not_asked_again_with_every_call() {
    let replies: [&'static [u8]; 5] = [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-OOM command not allowed\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-NOPERM this user has no permissions\r\n",
        b"-MOVED 1234 10.0.0.1:6379\r\n",
    ];
    for reply in replies {
        let (server, provider) = (pretender(reply), FakeProvider::new());
        provider.always_fail(Some(Error::new(ErrorKind::Unavailable, "down")));
        let store = RedisStore::open(&server.url).unwrap();
        let began = Instant::now();
        // Many credentials, each of which asks.
        for number in 0..100 {
            let name = Identity::new("test").part("number", number.to_string());
            let tokens = TokenManager::builder(provider.clone().with_identity(name)).store(store.clone());
            tokens.build().unwrap().token().unwrap_err();
        }
        // Three until it is left alone, and one each time that it is tried again.
        let most = 3 + 2 * usize::try_from(began.elapsed().as_secs()).unwrap();
        let requests = server.requests.load(Ordering::SeqCst);
        assert!(requests <= most, "{requests} times {}", String::from_utf8_lossy(reply));
    }
}

#[test]
fn a_wrong_password_is_tried_once_and_then_left_alone_for_long() {
    let server = RedisServer::start();
    server.ask::<()>(&["ACL", "SETUSER", "tokens", "on", ">right", "~*", "+@all"]).unwrap();
    let config = |password: &str| RedisConfig::from_url(&server.url()).unwrap().user("tokens").password(password);
    let store = RedisStore::new(config("hunter2")).unwrap();
    let key = TokenManager::new(FakeProvider::new()).key().clone();
    let error = store.read(&key).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Config, Some("WRONGPASS")));
    assert!(!format!("{error:?} {store:?}").contains("hunter2"));
    for _ in 0..100 {
        let left_alone = store.read(&key).unwrap_err();
        assert!(left_alone.retry_after().unwrap() > 20 * SECOND);
        assert!(left_alone.to_string().contains("is unavailable; retrying in "), "{left_alone}");
        assert!(left_alone.to_string().ends_with(&format!("the last error was: {error}")), "{left_alone}");
    }
    let failures: Vec<redis::Value> = server.ask(&["ACL", "LOG"]).unwrap();
    assert_eq!(failures.len(), 1);
    assert!(RedisStore::new(config("right")).unwrap().read(&key).unwrap().is_none());
}

#[test]
fn a_full_redis_still_tells_what_it_has_and_frees_the_lease() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let one = manager(&provider, &server.url());
    assert_eq!(text(&one), "token-1");
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let other = manager(&provider, &server.url());
    assert_eq!((text(&other), provider.calls()), ("token-1".to_owned(), 1));
    let events = one.events();
    assert_eq!(one.force_refresh().unwrap().expose(), "token-2");
    let error = wait_for_store(&events, false).unwrap();
    assert_eq!(error.code(), Some("OOM"), "{error}");
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    wait_for_store(&events, true);
    eventually("it is written", || recorded_token(&server, &one).as_deref() == Some("token-2"));
}

#[test]
fn a_redis_that_fills_up_during_a_fetch_frees_the_lease() {
    let server = RedisServer::start();
    let store = RedisStore::open(&server.url()).unwrap();
    let key = TokenManager::new(FakeProvider::new()).key().clone();
    let ask = |owner: &str| store.read_or_lease(&key, None, SECOND, &LeaseOwner::new(owner), HOUR).unwrap();
    assert!(matches!(ask("a"), LeaseOutcome::Leased));
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    store.publish(&key, &LeaseOwner::new("a"), None, b"record", HOUR).unwrap_err();
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    assert!(matches!(ask("b"), LeaseOutcome::Leased));
}

#[test]
fn a_redis_that_has_become_a_replica_is_a_store_that_is_down() {
    let (master, server, provider) = (RedisServer::start(), RedisServer::start(), FakeProvider::new());
    let tokens = manager(&provider, &server.url());
    let events = tokens.events();
    assert_eq!(text(&tokens), "token-1");
    server.ask::<()>(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).unwrap();
    assert_eq!(tokens.force_refresh().unwrap().expose(), "token-2");
    let error = wait_for_store(&events, false).unwrap();
    assert!(error.code().is_some(), "{error}");
    server.ask::<()>(&["REPLICAOF", "NO", "ONE"]).unwrap();
    wait_for_store(&events, true);
    eventually("it is written", || recorded_token(&server, &tokens).as_deref() == Some("token-2"));
}

#[test]
fn a_flushed_redis_is_filled_again() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let tokens = sharing(&provider, &server.url()).store_check_interval(SECOND / 10).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    server.ask::<()>(&["FLUSHALL"]).unwrap();
    eventually("it is written again", || {
        text(&tokens);
        recorded_token(&server, &tokens).is_some()
    });
    assert_eq!(text(&manager(&provider, &server.url())), "token-1");
    assert_eq!(provider.calls(), 1);
}

#[test]
fn where_a_new_token_ends_the_old_one_an_outage_costs_one_fetch() {
    let server = RedisServer::start();
    let provider = FakeProvider::new().with_profile(Profile::default().new_token_ends_old(true));
    server.kill();
    let tokens = sharing(&provider, &server.url()).build().unwrap();
    let events = tokens.events();
    // The first, with nothing in hand, at once.
    assert_eq!(text(&tokens), "token-1");
    let error = tokens.force_refresh().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert_eq!(text(&tokens), "token-1");
    server.restart();
    wait_for_store(&events, true);
    eventually("it is written", || recorded_token(&server, &tokens).as_deref() == Some("token-1"));
    assert_eq!(tokens.force_refresh().unwrap().expose(), "token-2");
}

/// A minute in which every fault comes and goes while several managers share and renew.
#[test]
fn promise_1_and_2_in_a_storm_of_faults_nobody_gets_a_dead_token_or_an_error() {
    let server = RedisServer::start();
    let proxies: Vec<_> = (0..3).map(|_| Proxy::to(server.addr())).collect();
    // When the provider ends each token, whatever anybody says.
    let ends = Arc::new(Mutex::new(HashMap::new()));
    let granted = ends.clone();
    let grant = move |_: &evertoken::provider::Context| {
        let mut granted = granted.lock().unwrap();
        let token = format!("token-{}", granted.len() + 1);
        granted.insert(token.clone(), Instant::now() + 2 * SECOND);
        Ok(Grant::new(token, 2 * SECOND))
    };
    let managers: Vec<_> = proxies
        .iter()
        .map(|proxy| {
            let store = RedisStore::open(&proxy.url()).unwrap();
            let builder = TokenManager::builder(from_fn("storm", grant.clone())).jitter(0.0).store(store);
            builder.store_check_interval(SECOND / 10).watch(true).build().unwrap()
        })
        .collect();
    let (ends, over) = (&*ends, Instant::now() + 60 * SECOND);
    thread::scope(|scope| {
        for manager in managers.iter().flat_map(|manager| [manager; 2]) {
            scope.spawn(move || {
                while Instant::now() < over {
                    let asked = Instant::now();
                    let token = manager.token().unwrap();
                    let (has_ended, took) = (token.remaining().is_zero(), asked.elapsed());
                    // A call that took long got a token that was good at some time in it: this thread had no turn since.
                    assert!(asked < ends.lock().unwrap()[token.expose()], "it was dead before it was asked for");
                    assert!(!has_ended || took > SECOND / 10, "it is dead after {took:?}");
                    thread::yield_now();
                }
            });
        }
        for proxy in &proxies {
            scope.spawn(move || {
                while Instant::now() < over {
                    let mut faults = faults();
                    let fault = if fastrand::f64() < 0.7 {
                        Fault::Delay(Duration::from_millis(fastrand::u64(0..300)))
                    } else {
                        faults.swap_remove(fastrand::usize(..faults.len())).1
                    };
                    proxy.set(fault);
                    thread::sleep(Duration::from_millis(fastrand::u64(20..300)));
                }
                proxy.set(Fault::None);
            });
        }
    });
    // Each of the three may have fetched on its own for each of thirty lives and more, but not with each call.
    let fetches = ends.lock().unwrap().len();
    assert!((20..600).contains(&fetches), "{fetches} fetches");
}

#[test]
fn a_url_with_a_mistake_in_it_is_refused_without_being_quoted() {
    for url in [
        "redis//user:hunter2@host",
        "http://user:hunter2@host",
        "redis://user:hunter2@host:port",
        "redis://user:hunter2@host/database",
        "redis://user:hunter2@",
        "redis://user:hunter2@host?protocol=hunter2",
        "rediss://user:hunter2@host/#insecure",
        "",
    ] {
        let error = RedisStore::open(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let shown = format!("{:?}", RedisStore::open("redis://user:hunter2@host/3").unwrap());
    assert!(shown.contains("host") && !shown.contains("hunter2"), "{shown}");
    let shown = format!("{:?}", RedisConfig::from_url("redis+unix:///tmp/x?user=u&pass=hunter2").unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn promise_6_a_lease_that_nobody_frees_costs_one_wait_and_then_everybody_fetches_for_themselves() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let tokens = manager(&provider, &server.url());
    let lease = format!("{}:lock", tokens.key());
    server.ask::<()>(&["SET", &lease, "somebody", "PX", "3600000"]).unwrap();
    // Within the time that every call has.
    assert_eq!(text(&tokens), "token-1");
    eventually("it is written", || {
        text(&tokens);
        recorded_token(&server, &tokens).as_deref() == Some("token-1")
    });
    assert_eq!(text(&manager(&provider, &server.url())), "token-1");
    assert_eq!(provider.calls(), 1);
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
