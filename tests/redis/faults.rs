//! A Redis that is down, hung, full, read-only or flushed costs callers no token.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

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

/// Uses the token until the store is reported up or down. An unused token is not compared with the store.
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
        assert!(asked.elapsed() < PATIENCE, "the store is not reported {}", if up { "up" } else { "down" });
    }
    slowest
}

/// All faults of the network, each with its name.
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
fn promise_1_and_6_no_fault_of_redis_reaches_callers_while_there_is_a_token() {
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
fn promise_5_and_6_without_a_token_no_fault_of_redis_costs_more_than_its_timeout() {
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
fn promise_6_a_missing_redis_costs_no_time() {
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
fn promise_6_a_stopped_redis_does_not_reach_callers_while_there_is_a_token() {
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
fn promise_5_a_stopped_redis_costs_half_a_second_without_a_token() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    server.stop();
    let tokens = manager(&provider, &server.url());
    let asked = Instant::now();
    assert_eq!(text(&tokens), "token-1");
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
}

#[test]
fn promise_6_and_7_after_a_crash_redis_gets_the_token_fetched_meanwhile() {
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
    eventually("the token is written", || recorded_token(&server, &tokens).as_deref() == Some("token-2"));
    // Another process reads the token.
    assert_eq!(text(&manager(&provider, &server.url())), "token-2");
    assert_eq!(provider.calls(), 2);
}

#[test]
fn promise_7_a_token_whose_publication_fails_is_returned_and_written_later() {
    let server = RedisServer::start();
    let proxy = Arc::new(Proxy::to(server.addr()));
    let cut = proxy.clone();
    let provider = FakeProvider::new().then(move |_| {
        // Redis becomes unreachable during the fetch.
        cut.set(Fault::Refuse);
        Ok(Grant::new("token-1", HOUR))
    });
    let tokens = manager(&provider, &proxy.url());
    let events = tokens.events();
    assert_eq!(text(&tokens), "token-1");
    assert_eq!(recorded_token(&server, &tokens), None);
    proxy.set(Fault::None);
    wait_for_store(&events, true);
    eventually("the token is written", || recorded_token(&server, &tokens).as_deref() == Some("token-1"));
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
    // Two fetches later than the recorded token.
    for token in ["token-3", "token-4"] {
        assert_eq!(other.force_refresh().unwrap().expose(), token);
    }
    proxy.set(Fault::None);
    wait_for_store(&events, true);
    eventually("the newer token is adopted", || cut_off.try_token().unwrap().expose() == "token-4");
    assert_eq!(recorded_token(&server, &other).as_deref(), Some("token-4"));
}

#[test]
fn a_timeout_and_a_lost_connection_are_retried_on_a_new_connection() {
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
fn connections_that_the_server_kills_cost_no_caller_an_error() {
    // Other tests would open descriptors meanwhile.
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

/// The number of open files and connections of this process.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn the_breaker_lets_one_attempt_through_at_a_time() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.addr());
    proxy.set(Fault::Cut);
    let store = RedisStore::open(&proxy.url()).unwrap();
    let key = TokenManager::new(FakeProvider::new()).key().clone();
    // Three failures, each of two attempts, and one question whether the server expects TLS.
    let each = if cfg!(feature = "redis-tls") { 3 } else { 2 };
    (0..3).for_each(|_| drop(store.read(&key).unwrap_err()));
    assert_eq!(proxy.connections(), 3 * each);
    let rest = store.read(&key).unwrap_err().retry_after().unwrap();
    assert!(rest <= 2 * SECOND);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                // Without a delay, until well after the first probe.
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
fn each_change_of_the_store_is_reported_once() {
    let server = RedisServer::start();
    let provider = FakeProvider::new();
    let tokens = sharing(&provider, &server.url()).store_check_interval(SECOND / 10).build().unwrap();
    let events = tokens.events();
    assert_eq!(text(&tokens), "token-1");
    for _ in 0..2 {
        server.kill();
        use_until_store(&tokens, &events, false);
        // Many calls and several attempts later.
        let before = tokens.metrics().store_errors;
        eventually("the operation is repeated", || {
            text(&tokens) == "token-1" && tokens.metrics().store_errors > before
        });
        let outages = events.try_iter().filter(|event| matches!(event.kind, EventKind::StoreDown { .. }));
        assert_eq!(outages.count(), 0);
        server.restart();
        use_until_store(&tokens, &events, true);
    }
    assert_eq!(provider.calls(), 1);
}

/// A server that replies to every request with the same bytes.
struct ScriptedServer {
    url: String,
    requests: Arc<AtomicUsize>,
}

fn scripted_server(reply: &'static [u8]) -> ScriptedServer {
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
    ScriptedServer { url, requests }
}

/// Replies of the server, and the words of the error for each.
#[test]
fn errors_for_refused_commands_advise_and_quote_nothing() {
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
        (b"$7\r\nhunter2\r\n", ErrorKind::Store, "that is not Redis"),
    ];
    let key = TokenManager::new(FakeProvider::new()).key().clone();
    for (reply, kind, says) in cases {
        let server = scripted_server(reply);
        let error = RedisStore::open(&server.url).unwrap().read(&key).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert_eq!(error.kind(), kind, "{shown}");
        assert!(shown.contains(says), "{shown}");
        assert!(error.to_string().contains(&server.url.replace("redis://", "redis at ")), "{shown}");
        for leak in ["hunter2", "10.0.0.1"] {
            assert!(!shown.contains(leak), "{shown}");
        }
        // For a manager this is an error of the store only.
        let tokens = manager(&FakeProvider::new(), &server.url);
        let events = tokens.events();
        assert_eq!(text(&tokens), "token-1");
        assert_eq!(wait_for_store(&events, false).unwrap().kind(), ErrorKind::Store);
    }
}

#[test]
fn a_refused_command_is_not_repeated_with_every_call() {
    let replies: [&'static [u8]; 5] = [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-OOM command not allowed\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-NOPERM this user has no permissions\r\n",
        b"-MOVED 1234 10.0.0.1:6379\r\n",
    ];
    for reply in replies {
        let (server, provider) = (scripted_server(reply), FakeProvider::new());
        provider.always_fail(Some(Error::new(ErrorKind::Unavailable, "down")));
        let store = RedisStore::open(&server.url).unwrap();
        let began = Instant::now();
        // Many credentials, each with a call.
        for number in 0..100 {
            let name = Identity::new("test").part("number", number.to_string());
            let tokens = TokenManager::builder(provider.clone().with_identity(name)).store(store.clone());
            tokens.build().unwrap().token().unwrap_err();
        }
        // Three attempts until the cooldown, and one at the end of each cooldown.
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
fn a_full_redis_is_still_read_and_frees_the_lease() {
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
    eventually("the token is written", || recorded_token(&server, &one).as_deref() == Some("token-2"));
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
fn a_redis_that_has_become_a_replica_is_down() {
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
    eventually("the token is written", || recorded_token(&server, &tokens).as_deref() == Some("token-2"));
}

#[test]
fn a_flushed_redis_is_filled_again() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let tokens = sharing(&provider, &server.url()).store_check_interval(SECOND / 10).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    server.ask::<()>(&["FLUSHALL"]).unwrap();
    eventually("the record is written again", || {
        text(&tokens);
        recorded_token(&server, &tokens).is_some()
    });
    assert_eq!(text(&manager(&provider, &server.url())), "token-1");
    assert_eq!(provider.calls(), 1);
}

#[test]
fn an_outage_costs_one_fetch_if_a_new_token_ends_the_old_one() {
    let server = RedisServer::start();
    let provider = FakeProvider::new().with_profile(Profile::default().new_token_ends_old(true));
    server.kill();
    let tokens = sharing(&provider, &server.url()).build().unwrap();
    let events = tokens.events();
    // The first call, without a token, gets one at once.
    assert_eq!(text(&tokens), "token-1");
    let error = tokens.force_refresh().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert_eq!(text(&tokens), "token-1");
    server.restart();
    wait_for_store(&events, true);
    eventually("the token is written", || recorded_token(&server, &tokens).as_deref() == Some("token-1"));
    assert_eq!(tokens.force_refresh().unwrap().expose(), "token-2");
}

/// A minute in which every fault comes and goes while several managers share and refresh.
#[test]
fn promise_1_and_2_many_faults_cause_neither_expired_tokens_nor_errors() {
    let server = RedisServer::start();
    let proxies: Vec<_> = (0..3).map(|_| Proxy::to(server.addr())).collect();
    // The time at which the provider's tokens expire, independent of the managers.
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
                    // A long call may return a token that was valid at some time during the call.
                    assert!(asked < ends.lock().unwrap()[token.expose()], "it had expired before the call");
                    assert!(!has_ended || took > SECOND / 10, "it has expired after {took:?}");
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
    // Each of the three managers may have fetched alone for each of thirty lifetimes and more, but not at each call.
    let fetches = ends.lock().unwrap().len();
    assert!((20..600).contains(&fetches), "{fetches} fetches");
}

#[test]
fn a_wrong_url_is_refused_and_not_quoted() {
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
fn promise_6_a_lease_that_is_never_freed_costs_one_wait_and_then_each_manager_fetches() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let tokens = manager(&provider, &server.url());
    let lease = format!("{}:lock", tokens.key());
    server.ask::<()>(&["SET", &lease, "another", "PX", "3600000"]).unwrap();
    // Within the time limit of every call.
    assert_eq!(text(&tokens), "token-1");
    eventually("the token is written", || {
        text(&tokens);
        recorded_token(&server, &tokens).as_deref() == Some("token-1")
    });
    assert_eq!(text(&manager(&provider, &server.url())), "token-1");
    assert_eq!(provider.calls(), 1);
}

#[test]
fn promise_6_a_read_only_redis_is_reported_as_down_once() {
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
    // Long enough for several attempts.
    use_for(4 * SECOND, || managers.iter().for_each(|tokens| drop(text(tokens))));
    for event in events.iter().flat_map(|events| events.try_iter()) {
        assert!(!matches!(event.kind, EventKind::StoreDown { .. } | EventKind::StoreUp), "{:?}", event.kind);
    }
}

/// Redis 5 and 6 put the name of the script first.
#[test]
fn an_old_redis_that_is_a_replica_is_recognized_and_left() {
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
    // The server could be a master that was demoted.
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

/// Counts the warnings in the log.
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
fn promise_6_an_outage_that_many_managers_notice_is_logged_once() {
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
fn promise_7_after_a_crash_an_older_token_does_not_overwrite_a_newer_one() {
    shows("a new process is the first to write", |_| {
        let server = RedisServer::start();
        let proxy = Proxy::to(server.addr());
        // Time passes between the reads and the writes.
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
        eventually("the token is adopted", || {
            assert_eq!(text(&new), "token-3");
            text(&old) == "token-3"
        });
        assert_eq!(recorded_in(&server, old.key()).as_deref(), Some("token-3"));
        Some(())
    });
}

#[test]
fn a_missing_database_is_a_wrong_setting() {
    let negative = RedisConfig::from_url("redis://127.0.0.1/-1").and_then(RedisStore::new);
    assert_eq!(negative.unwrap_err().kind(), ErrorKind::Config);
    let (server, key) = (RedisServer::start(), TokenManager::new(provider("database")).key().clone());
    let store = RedisStore::new(RedisConfig::from_url(&server.url()).unwrap().database(99)).unwrap();
    eventually("the change is reported", || store.read(&key).unwrap_err().kind() == ErrorKind::Config);
}
