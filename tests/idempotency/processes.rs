//! Processes that share a store. Each case gets the address of the store and the name of its test.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use std::{io, thread};

use evertoken::FileStore;
use evertoken::idempotency::{Idempotency, OperationStatus, Outcome, RunError};

use crate::bed::*;
use crate::common::process::{Process, each};
use crate::common::wait::*;

macro_rules! in_processes {
    ($store:ident: $($test:ident)*) => {
        mod $store {
            $(#[test]
            fn $test() {
                if let Some(port) = crate::common::process::port() {
                    return super::act(&port);
                }
                let name = crate::common::alone::test_of(&|| ());
                let (_kept, address) = super::shared::$store();
                super::$test(name, &address);
            })*
        }
    };
}

macro_rules! on_every_shared_store {
    ($($test:ident)*) => {
        in_processes!(files: $($test)*);
        #[cfg(feature = "redis")]
        in_processes!(redis: $($test)*);
    };
}

on_every_shared_store! {
    one_of_several_processes_that_begin_at_once_gets_the_claim
    the_operation_of_a_killed_process_is_free_when_its_claim_expires
    a_process_stopped_past_its_claim_does_not_overwrite_the_next_result
}

/// A store that exists as long as the first value, and its address.
mod shared {
    pub(super) fn files() -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let address = folder.path().join("store").to_str().unwrap().to_owned();
        (folder, address)
    }

    #[cfg(feature = "redis")]
    pub(super) fn redis() -> (crate::common::redis_server::RedisServer, String) {
        let server = crate::common::redis_server::RedisServer::start();
        let address = server.url();
        (server, address)
    }
}

fn open(address: &str) -> Idempotency {
    #[cfg(feature = "redis")]
    if address.starts_with("redis:") {
        return Idempotency::new(evertoken::RedisStore::open(address).unwrap());
    }
    Idempotency::new(FileStore::at(address))
}

fn one_of_several_processes_that_begin_at_once_gets_the_claim(name: &str, address: &str) {
    let mut processes: Vec<_> = (0..8).map(|_| Process::start(name)).collect();
    each(&mut processes, &format!("open {address} 30000"));
    for round in 0..8 {
        let answers = each(&mut processes, &format!("begin {round}"));
        let count = |what: &str| answers.iter().filter(|answer| *answer == what).count();
        assert_eq!((count("new"), count("in progress")), (1, 7), "{answers:?}");
        let owner = answers.iter().position(|answer| answer == "new").unwrap();
        // The other processes have no claim to complete, and the holder can complete its claim once.
        assert_eq!(processes[owner].ask(&format!("complete {owner}")), "ok");
        assert_eq!(processes[owner].ask("complete again"), "ClaimLost");
        assert!(each(&mut processes, &format!("begin {round}")).iter().all(|word| *word == owner.to_string()));
    }
}

fn the_operation_of_a_killed_process_is_free_when_its_claim_expires(name: &str, address: &str) {
    let (mut owner, others) = (Process::start(name), open(address));
    owner.ask(&format!("open {address} 1500"));
    assert_eq!(owner.ask("begin 1"), "new");
    owner.kill();
    let left = others.get::<String>("1").unwrap().unwrap().remaining();
    let seen = Instant::now();
    let next = others.begin_within::<String>("1", "", PATIENCE).unwrap();
    let waited = seen.elapsed();
    assert_eq!(word_for(next), "new");
    // The remaining time is in whole milliseconds, and was read a moment before the measurement began.
    assert!(waited + Duration::from_millis(100) > left && waited < left + 2 * SECOND, "{waited:?} of {left:?}");
}

fn a_process_stopped_past_its_claim_does_not_overwrite_the_next_result(name: &str, address: &str) {
    let (mut owner, others) = (Process::start(name), open(address));
    owner.ask(&format!("open {address} 1500"));
    assert_eq!(owner.ask("begin 1"), "new");
    // The process is stopped inside `run`, whose thread extends the claim.
    assert_eq!(owner.ask("run 2"), "it runs");
    owner.stop();
    // The process must not be stopped during a write: its file stays locked meanwhile.
    while others.begin::<String>("2", "").is_err() {
        owner.go_on();
        owner.stop();
    }
    for key in ["1", "2"] {
        let next = others.begin_within::<String>(key, "", PATIENCE).unwrap();
        let Outcome::New(next) = next else { panic!("{next:?}") };
        next.complete(&"theirs".to_owned()).unwrap();
    }
    owner.go_on();
    assert_eq!(owner.read_line(), "unrecorded mine ClaimLost");
    assert_eq!(owner.ask("complete mine"), "ClaimLost");
    for key in ["1", "2"] {
        assert_eq!(word_for(others.begin::<String>(key, "").unwrap()), "theirs");
    }
}

/// Obeys commands until the test closes the connection.
fn act(port: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let (mut once, mut claim) = (None::<Idempotency>, None);
    for line in lines.map_while(Result::ok) {
        let words: Vec<_> = line.split(' ').collect();
        let answer = match (words.as_slice(), &once) {
            (["open", address, life], _) => {
                let life = Duration::from_millis(life.parse().unwrap());
                once = Some(open(address).claim_ttl(life));
                "ok".to_owned()
            }
            (["begin", key], Some(once)) => match patiently(|| once.begin::<String>(key, "")) {
                Outcome::New(new) => {
                    claim = Some(new);
                    "new".to_owned()
                }
                other => word_for(other),
            },
            (["complete", result], Some(_)) => match complete(claim.as_ref().unwrap(), result) {
                Ok(()) => "ok".to_owned(),
                Err(kind) => format!("{kind:?}"),
            },
            (["run", key], Some(once)) => run(once, key, &mut stream),
            _ => panic!("{line}?"),
        };
        writeln!(stream, "{answer}").unwrap();
    }
}

/// Runs until another process has completed the operation.
fn run(once: &Idempotency, key: &str, stream: &mut TcpStream) -> String {
    let ran = once.run(key, "", || {
        writeln!(stream, "it runs").unwrap();
        // Reads without a lock: the process is stopped here.
        eventually("another process has completed the operation", || {
            thread::sleep(Duration::from_millis(5));
            matches!(once.get::<String>(key), Ok(Some(deed)) if deed.status() == OperationStatus::Completed)
        });
        Ok::<_, io::Error>("mine".to_owned())
    });
    match ran {
        Err(RunError::Unrecorded { result, error }) => format!("unrecorded {result} {:?}", error.kind()),
        other => format!("{other:?}"),
    }
}
