//! A custom key is shared with programs that write another format.

use std::time::{Duration, Instant};

use evertoken::testing::FakeProvider;
use evertoken::{EventKind, TokenManager, TokenOrigin};

use crate::common::redis_server::RedisServer;
use crate::common::wait::*;
use crate::setup::*;

/// A program that stores its tokens in the other format: JSON with two fields, and a lock that is never freed.
struct OtherProgram<'a> {
    server: &'a RedisServer,
    key: &'a str,
}

impl OtherProgram<'_> {
    fn now() -> Duration {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
    }

    fn writes(&self, token: &str, life: Duration) {
        let end = (Self::now() + life).as_secs();
        let record = format!(r#"{{"access_token":"{token}","expires_at":{end}}}"#);
        self.server.ask::<()>(&["SET", self.key, &record, "EX", &life.as_secs().to_string()]).unwrap();
    }

    /// The token, if the record is valid.
    fn reads(&self) -> Option<String> {
        let record: Option<String> = self.server.ask(&["GET", self.key]).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record?).unwrap();
        let good = record["expires_at"].as_i64().unwrap() > Self::now().as_secs().try_into().unwrap();
        good.then(|| record["access_token"].as_str().unwrap().to_owned())
    }

    /// Takes the lock, as if `ago` had passed since.
    fn locks(&self, ago: Duration) -> bool {
        let stamp = format!("ts-{}", (Self::now() - ago).as_nanos());
        let lock = format!("{}:lock", self.key);
        self.server.ask::<Option<String>>(&["SET", &lock, &stamp, "NX", "EX", "30"]).unwrap().is_some()
    }
}

const SHARED: &str = "wxkefu:token:wecom:corp";

fn beside_others(provider: &FakeProvider, server: &RedisServer) -> TokenManager {
    sharing(provider, &server.url()).key(SHARED).build().unwrap()
}

#[test]
fn a_custom_key_is_shared_with_programs_of_another_format_both_ways() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let other = OtherProgram { server: &server, key: SHARED };
    other.writes("theirs", HOUR);
    let one = beside_others(&provider, &server);
    let token = one.token().unwrap();
    assert_eq!((token.expose(), provider.calls()), ("theirs", 0));
    assert!(token.remaining() <= HOUR && token.remaining() > HOUR - 30 * SECOND);
    assert_eq!(one.force_refresh().unwrap().expose(), "token-1");
    assert_eq!(other.reads().as_deref(), Some("token-1"));
    assert!(other.locks(Duration::ZERO), "the lock is free again");
    // A rejected token is not used by the other program either.
    one.reject(&one.token().unwrap()).unwrap();
    assert_eq!(other.reads(), None);
}

#[test]
fn a_later_write_of_another_program_is_newer() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let other = OtherProgram { server: &server, key: SHARED };
    let one =
        sharing(&provider, &server.url()).key(SHARED).store_check_interval(Duration::from_millis(100)).build().unwrap();
    assert_eq!(text(&one), "token-1");
    for token in ["theirs-1", "theirs-2"] {
        // The other program stores a shorter lifetime, without its safety margin.
        other.writes(token, HOUR);
        eventually("the token is adopted", || text(&one) == token);
    }
    assert_eq!(provider.calls(), 1);
}

#[test]
fn the_lock_of_another_program_is_respected_for_the_time_of_a_fetch() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let other = OtherProgram { server: &server, key: SHARED };
    assert!(other.locks(Duration::ZERO));
    let one = beside_others(&provider, &server);
    let events = one.events();
    one.warm_up();
    // The manager waits, and gets the token as soon as the other program has written it.
    eventually("the manager waits", || server.ask::<String>(&["CLIENT", "LIST"]).unwrap().contains("cmd=xread"));
    other.writes("theirs", HOUR);
    let source = wait_for(&events, |kind| match kind {
        EventKind::Granted { origin, .. } => Some(*origin),
        _ => None,
    });
    assert_eq!((source, provider.calls()), (TokenOrigin::Store, 0));
    one.invalidate().unwrap();
    // The lock of the other program still exists, because it is never freed, and is too old to count.
    server.ask::<()>(&["DEL", &format!("{SHARED}:lock")]).unwrap();
    assert!(other.locks(8 * SECOND));
    let asked = Instant::now();
    assert_eq!(text(&one), "token-1");
    assert!(asked.elapsed() < 5 * SECOND);
}

#[test]
fn the_lock_of_a_killed_program_is_taken_over_in_time() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let other = OtherProgram { server: &server, key: SHARED };
    // The lock lasts 30 seconds, and a fetch of the other program one second.
    assert!(other.locks(6 * SECOND));
    let asked = Instant::now();
    assert_eq!(text(&beside_others(&provider, &server)), "token-1");
    assert!(asked.elapsed() < 10 * SECOND);
}

#[test]
fn promise_7_a_manager_that_polled_another_program_often_does_not_overwrite_a_newer_token() {
    let (server, provider) = (RedisServer::start(), FakeProvider::new());
    let beside = || sharing(&provider, &server.url()).key("wx:corp").store_check_interval(SECOND / 10).build().unwrap();
    let foreign = r#"{"access_token":"foreign","expires_at":9999999999}"#;
    server.ask::<()>(&["SET", "wx:corp", foreign, "PX", "3600000"]).unwrap();
    let often = beside();
    use_for(SECOND, || assert_eq!(text(&often), "foreign"));
    let other = beside();
    assert_eq!(text(&other), "foreign");
    assert_eq!(other.force_refresh().unwrap().expose(), "token-1");
    eventually("the newer token is adopted", || text(&often) == "token-1" && text(&other) == "token-1");
    use_for(SECOND, || assert_eq!((text(&often), text(&other)), ("token-1".to_owned(), "token-1".to_owned())));
    assert_eq!(recorded_in(&server, often.key()).as_deref(), Some("token-1"));
}
