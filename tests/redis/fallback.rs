//! Real processes on a real Redis with a fallback store in files. Each is this test's own program, started again.

use std::path::Path;
use std::time::Duration;

use evertoken::testing::FakeVendor;
use evertoken::{FileStore, OAuth2, RedisStore, TokenManager, TokenManagerBuilder};

use crate::common::actor::Actor;
use crate::common::alone::test_of;
use crate::common::process::{Process, each};
use crate::common::redis_server::{RedisServer, until};
use crate::common::wait::*;

fn builder_for(redis: &str, token_url: &str) -> TokenManagerBuilder {
    let provider = OAuth2::new(token_url, "client", "secret");
    let builder = TokenManager::builder(provider).store_check_interval(Duration::from_millis(100));
    builder.store(RedisStore::open(redis).unwrap())
}

/// Obeys commands until the test closes the connection.
fn act(port: &str) {
    let mut actor = Actor::new(port);
    while let Some((verb, rest)) = actor.read_line() {
        let words: Vec<_> = rest.split(' ').collect();
        let answer = match (verb.as_str(), words.as_slice()) {
            ("make", [redis, token_url, directory]) => {
                let builder = builder_for(redis, token_url).fallback_store(FileStore::at(directory));
                actor.keep(builder.build().unwrap())
            }
            _ => actor.act(&verb, &rest),
        };
        actor.reply(&answer);
    }
}

fn play(test: impl FnOnce(&RedisServer, &FakeVendor, &dyn Fn() -> Vec<Process>)) {
    let name = test_of(&test);
    if let Some(port) = crate::common::process::port() {
        return act(&port);
    }
    let folder = tempfile::tempdir().unwrap();
    let host = FakeVendor::oauth2().delay(Duration::from_millis(50));
    let (server, directory) = (RedisServer::start(), folder.path().join("store"));
    test(&server, &host, &|| processes(name, &server.url(), &host, &directory));
}

fn processes(name: &str, redis: &str, host: &FakeVendor, directory: &Path) -> Vec<Process> {
    let mut processes: Vec<_> = (0..4).map(|_| Process::start(name)).collect();
    each(&mut processes, &format!("make {redis} {} {}", host.token_url(), directory.display()));
    processes
}

#[test]
fn promise_3_and_7_without_redis_the_processes_of_a_host_fetch_once_and_redis_gets_the_token_later() {
    play(|server, host, start| {
        server.kill();
        let mut all = start();
        let answers = each(&mut all, "ask 1");
        assert!(answers.iter().all(|answer| answer == "token-1"), "{answers:?}");
        assert_eq!(host.calls(), 1);
        server.restart();
        until("a process that uses the token writes it to Redis", || {
            each(&mut all, "ask 1");
            let keys: Vec<String> = server.ask(&["KEYS", "evertoken:*"]).unwrap_or_default();
            keys.iter().any(|key| key.ends_with('}'))
        });
        let elsewhere = builder_for(&server.url(), &host.token_url()).build().unwrap();
        assert_eq!((text(&elsewhere).as_str(), host.calls()), ("token-1", 1));
    });
}

#[test]
fn promise_7_a_token_of_an_ended_process_is_copied_from_the_files_to_redis() {
    play(|server, host, start| {
        server.kill();
        let mut first = start();
        assert_eq!(first[0].ask("ask 1"), "token-1");
        first.into_iter().for_each(Process::end);
        server.restart();
        let mut next = start();
        assert_eq!(each(&mut next, "ask 1"), ["token-1"; 4]);
        let elsewhere = builder_for(&server.url(), &host.token_url()).build().unwrap();
        assert_eq!((text(&elsewhere).as_str(), host.calls()), ("token-1", 1));
    });
}

#[test]
fn promise_5_and_6_the_processes_of_a_host_share_one_token_while_redis_is_stopped() {
    play(|server, host, start| {
        server.stop();
        let mut all = start();
        assert_eq!(each(&mut all, "ask 1"), ["token-1"; 4]);
        assert_eq!(host.calls(), 1);
        server.go_on();
    });
}
