//! A Redis that is down, hung, full, read-only, poisoned or flushed is not a token problem.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::alone::alone;
use crate::common::proxy::{Fault, Proxy};
use crate::common::redis_server::RedisServer;
use crate::common::wait::*;
use evertoken::provider::{Grant, Identity, Profile, from_fn};
use evertoken::store::{LeaseOutcome, LeaseOwner, Store};
use evertoken::testing::FakeProvider;
use evertoken::{Error, ErrorKind, Event, EventKind, RedisConfig, RedisStore, TokenManager, TokenManagerBuilder};

/// Long enough for what is bounded to 600 ms on a busy machine.
const SOON: Duration = Duration::from_secs(3);

fn sharing(provider: &FakeProvider, url: &str) -> TokenManagerBuilder {
    TokenManager::builder(provider.clone()).jitter(0.0).store(RedisStore::open(url).unwrap())
}

fn manager(provider: &FakeProvider, url: &str) -> TokenManager {
    sharing(provider, url).build().unwrap()
}

/// The record of the manager's credential, as it lies there.
fn record(server: &RedisServer, tokens: &TokenManager) -> Option<Vec<u8>> {
    server.ask(&["GET", tokens.key().as_str()]).unwrap()
}

fn recorded_token(server: &RedisServer, tokens: &TokenManager) -> Option<String> {
    let record: serde_json::Value = serde_json::from_slice(&record(server, tokens)?).ok()?;
    Some(record["access_token"].as_str()?.to_owned())
}

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
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Store, "redis refuses the connection"));
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
    // Three failures, each of two tries.
    (0..3).for_each(|_| drop(store.read(&key).unwrap_err()));
    assert_eq!(proxy.connections(), 6);
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
    assert_eq!(proxy.connections(), 8, "one probe, of two tries");
    proxy.set(Fault::None);
    eventually("the next probe closes it", || store.read(&key).is_ok());
    (0..100).for_each(|_| assert!(store.read(&key).unwrap().is_none()));
    assert_eq!(proxy.connections(), 9);
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
    let cases: [(&'static [u8], ErrorKind, &str); 9] = [
        (b"-LOADING Redis is loading the dataset in memory\r\n", ErrorKind::Store, "loading its data (code LOADING)"),
        (b"-OOM command not allowed when used memory > 'maxmemory'\r\n", ErrorKind::Store, "out of memory (code OOM)"),
        (b"-READONLY You can't write against a read only replica.\r\n", ErrorKind::Store, "replica"),
        (b"-MISCONF Redis is configured to save RDB snapshots\r\n", ErrorKind::Store, "cannot save"),
        (b"-NOAUTH Authentication required.\r\n", ErrorKind::Config, "refuses the user, the password"),
        (b"-NOPERM this user has no permissions hunter2\r\n", ErrorKind::Config, "this user may not use"),
        (b"-MOVED 1234 10.0.0.1:6379\r\n", ErrorKind::Config, "use RedisConfig::cluster"),
        (
            b"-ERR unknown command 'hunter2', with args beginning with: 'hunter2'\r\n",
            ErrorKind::Store,
            "an error (code ERR)",
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
        for leak in ["hunter2", "127.0.0.1", "10.0.0.1"] {
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
        assert!(left_alone.to_string().ends_with(&format!("left alone: {error}")), "{left_alone}");
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

/// Records that nobody can use: each is replaced at the cost of one fetch.
#[test]
fn promise_6_a_poisoned_record_is_replaced_at_the_cost_of_one_fetch() {
    let server = RedisServer::start();
    let sound = |fields: &str| {
        let name = "ID";
        format!(
            r#"{{"v":1,"id":"{name}","access_token":"hunter2","expires_at":1,"life_ms":7200000,"left_ms":7200000,"kept_ms":7200000{fields}}}"#
        )
    };
    let poison: Vec<(&str, String)> = vec![
        ("no JSON", "{\"access_token\": \"hunter2".to_owned()),
        ("an array", r#"[1,"x","hunter2",0,1,1,1]"#.to_owned()),
        ("bytes that are no text", "\u{0}\u{1}\u{7f}".to_owned()),
        ("empty", String::new()),
        ("another version", sound("").replace(r#""v":1"#, r#""v":2"#)),
        ("another identity", sound("").replace("ID", "0123456789abcdef0123456789abcdef")),
        ("a life of a century", sound("").replace("7200000", "3153600000000")),
        ("more left than it has", sound("").replace(r#""life_ms":7200000"#, r#""life_ms":1"#)),
        ("a negative life", sound("").replace(r#""left_ms":7200000"#, r#""left_ms":-1"#)),
        ("kept for less than remains", sound("").replace(r#""kept_ms":7200000"#, r#""kept_ms":1"#)),
        ("no token", sound("").replace("hunter2", "")),
        ("a token with a line break", sound("").replace("hunter2", "hunter\\r\\n2")),
        ("deep", "[".repeat(60_000)),
        ("one byte too large", format!("{}{}", sound(""), " ".repeat(1 << 16))),
    ];
    for (name, bytes) in poison {
        let provider = FakeProvider::new().with_identity(Identity::new("test").part("poison", name));
        let tokens = manager(&provider, &server.url());
        let bytes = match name {
            "another identity" => bytes,
            _ => bytes.replace("ID", identity(tokens.key().as_str())),
        };
        server.ask::<()>(&["SET", tokens.key().as_str(), &bytes, "PX", "3600000"]).unwrap();
        assert_eq!(text(&tokens), "token-1", "{name}");
        assert_eq!(text(&manager(&provider, &server.url())), "token-1", "{name}");
        assert_eq!((provider.calls(), tokens.metrics().store_errors), (1, 0), "{name}");
    }
}

/// The fingerprint inside `evertoken:{v1:<fingerprint>}`.
fn identity(key: &str) -> &str {
    key.split_once("{v1:").unwrap().1.trim_end_matches('}')
}

#[test]
fn a_record_that_is_sound_is_taken_from_there() {
    // Shows that the poison above is refused for what is wrong with it.
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let tokens = manager(&provider, &server.url());
    let sound = format!(
        r#"{{"v":1,"id":"{}","access_token":"t-0","expires_at":1,"life_ms":7200000,"left_ms":7200000,"kept_ms":7200000}}"#,
        identity(tokens.key().as_str())
    );
    server.ask::<()>(&["SET", tokens.key().as_str(), &sound, "PX", "3600000"]).unwrap();
    let token = tokens.token().unwrap();
    assert_eq!((token.expose(), provider.calls()), ("t-0", 0));
    assert!(token.remaining() <= HOUR, "what the store says remains of it counts");
}

#[test]
fn a_record_without_an_end_is_treated_as_over() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let tokens = manager(&provider, &server.url());
    assert_eq!(text(&tokens), "token-1");
    server.ask::<()>(&["PERSIST", tokens.key().as_str()]).unwrap();
    assert_eq!(text(&manager(&provider, &server.url())), "token-2");
    assert!(server.ask::<i64>(&["PTTL", tokens.key().as_str()]).unwrap() > 0);
}

#[test]
fn a_record_or_a_stream_of_the_wrong_type_is_replaced() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let (one, other) = (manager(&provider, &server.url()), manager(&provider, &server.url()));
    let key = one.key().as_str().to_owned();
    server.ask::<()>(&["RPUSH", &key, "hunter2"]).unwrap();
    server.ask::<()>(&["SADD", &format!("{key}:news"), "hunter2"]).unwrap();
    assert_eq!((text(&one), text(&other)), ("token-1".to_owned(), "token-1".to_owned()));
    assert_eq!(server.ask::<String>(&["TYPE", &key]).unwrap(), "string");
    assert_eq!(server.ask::<String>(&["TYPE", &format!("{key}:news")]).unwrap(), "stream");
    assert_eq!((provider.calls(), one.metrics().store_errors), (1, 0));
}

#[test]
fn a_value_of_64_megabytes_is_neither_read_nor_kept() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let tokens = manager(&provider, &server.url());
    let key = tokens.key().as_str().to_owned();
    server.ask::<()>(&["SETRANGE", &key, &(64 * 1024 * 1024 - 1).to_string(), "x"]).unwrap();
    server.ask::<()>(&["PEXPIRE", &key, "3600000"]).unwrap();
    let before = sent(&server);
    assert_eq!(text(&tokens), "token-1");
    assert!(sent(&server) - before < 1 << 20, "the server did not send it");
    assert!(server.ask::<u64>(&["STRLEN", &key]).unwrap() < 1 << 16);
}

/// The bytes that the server has sent to anybody.
fn sent(server: &RedisServer) -> u64 {
    let statistics: String = server.ask(&["INFO", "stats"]).unwrap();
    crate::common::redis_server::field(&statistics, "total_net_output_bytes").unwrap().parse().unwrap()
}

#[test]
fn a_lease_without_an_end_or_of_the_wrong_type_is_taken_over() {
    let server = RedisServer::start();
    let leases: [&[&str]; 3] = [&["SET", "KEY", "somebody"], &["RPUSH", "KEY", "somebody"], &["HSET", "KEY", "a", "b"]];
    for (number, command) in leases.iter().enumerate() {
        let provider = FakeProvider::new().with_identity(Identity::new("test").part("lease", number.to_string()));
        let tokens = manager(&provider, &server.url());
        let lease = format!("{}:lock", tokens.key());
        let command: Vec<_> = command.iter().map(|word| if *word == "KEY" { lease.as_str() } else { word }).collect();
        server.ask::<()>(&command).unwrap();
        let asked = Instant::now();
        assert_eq!(text(&tokens), "token-1");
        assert!(asked.elapsed() < SOON);
        assert_eq!(server.ask::<i64>(&["EXISTS", &lease]).unwrap(), 0);
    }
}

#[test]
fn a_failure_in_the_record_cannot_stop_the_fetching_for_longer_than_an_hour() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let tokens = manager(&provider, &server.url());
    let never = u64::MAX;
    let poison = format!(
        r#"{{"v":1,"id":"{}","access_token":"","expires_at":0,"life_ms":0,"left_ms":0,"kept_ms":3600000,"number":{never},
           "failure":{{"kind":"Denied","message":"x","code":null,"status":null,"retry_ms":{never},"count":4294967295}}}}"#,
        identity(tokens.key().as_str())
    );
    server.ask::<()>(&["SET", tokens.key().as_str(), &poison, "PX", "3600000"]).unwrap();
    assert!(tokens.token().unwrap_err().retry_after().unwrap() <= HOUR);
    // It is over, and one more is counted.
    let short = poison.replace(&format!(r#""retry_ms":{never}"#), r#""retry_ms":1"#);
    server.ask::<()>(&["SET", tokens.key().as_str(), &short, "PX", "3600000"]).unwrap();
    provider.always_fail(Some(Error::new(ErrorKind::Unavailable, "down")));
    let other = manager(&provider, &server.url());
    eventually("it is asked again", || other.token().unwrap_err().kind() == ErrorKind::Unavailable);
    provider.always_fail(None);
    tokens.invalidate().unwrap();
    assert_eq!(text(&tokens), "token-1");
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
