//! Records and leases that are damaged, or of another type, are replaced.

use std::thread;
use std::time::Instant;

use evertoken::provider::Identity;
use evertoken::testing::FakeProvider;
use evertoken::{Error, ErrorKind};

use crate::common::redis_server::RedisServer;
use crate::common::wait::*;
use crate::setup::*;

#[test]
fn promise_3_the_largest_number_in_a_record_does_not_stop_the_sharing() {
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
    eventually("the newer token is adopted", || text(&one) == "token-2" && text(&other) == "token-2");
    use_for(SECOND, || assert_eq!((text(&one), text(&other)), ("token-2".to_owned(), "token-2".to_owned())));
    assert_eq!((recorded_in(&server, key).as_deref(), provider.calls()), (Some("token-2"), 2));
}

#[test]
fn promise_3_a_lease_of_a_day_is_taken_over_at_once_by_one_manager() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new().gated());
    let managers = [0; 4].map(|_| manager(&provider, &server.url()));
    let lease = format!("{}:lock", managers[0].key());
    server.ask::<()>(&["SET", &lease, "another", "PX", "86400000"]).unwrap();
    let asked = Instant::now();
    thread::scope(|scope| {
        managers.iter().for_each(|tokens| drop(scope.spawn(|| text(tokens))));
        assert!(provider.wait_for_calls(1, PATIENCE));
        // A manager that waits for the lease would take longer.
        assert!(asked.elapsed() < 3 * SECOND);
        eventually("all managers ask for a token", || managers.iter().all(|tokens| tokens.status().fetching));
        provider.open();
    });
    assert_eq!(provider.calls(), 1);
}

/// Unusable records: each is replaced at the cost of one fetch.
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
        ("too large", format!("{}{}", sound(""), " ".repeat(1 << 17))),
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
fn a_valid_record_is_adopted() {
    // Proves that the records above are refused for their fault and not for another reason.
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
fn a_record_without_an_expiry_is_treated_as_expired() {
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

/// The number of bytes that the server has sent to all clients.
fn sent(server: &RedisServer) -> u64 {
    let statistics: String = server.ask(&["INFO", "stats"]).unwrap();
    crate::common::redis_server::field(&statistics, "total_net_output_bytes").unwrap().parse().unwrap()
}

#[test]
fn a_lease_without_an_expiry_or_of_the_wrong_type_is_taken_over() {
    let server = RedisServer::start();
    let leases: [&[&str]; 3] = [&["SET", "KEY", "another"], &["RPUSH", "KEY", "another"], &["HSET", "KEY", "a", "b"]];
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
fn a_recorded_failure_stops_fetching_for_an_hour_at_most() {
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
    // The failure has expired, and one more is counted.
    let short = poison.replace(&format!(r#""retry_ms":{never}"#), r#""retry_ms":1"#);
    server.ask::<()>(&["SET", tokens.key().as_str(), &short, "PX", "3600000"]).unwrap();
    provider.always_fail(Some(Error::new(ErrorKind::Unavailable, "down")));
    let other = manager(&provider, &server.url());
    eventually("the store is asked again", || other.token().unwrap_err().kind() == ErrorKind::Unavailable);
    provider.always_fail(None);
    tokens.invalidate().unwrap();
    assert_eq!(text(&tokens), "token-1");
}
