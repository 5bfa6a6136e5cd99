//! Several real processes share one real Redis. Each is this test's own program, started again, and obeys commands from
//! a socket.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use evertoken::store::{Expected, Store};
use evertoken::testing::{FakeVendor, VendorFault};
use evertoken::{OAuth2, RedisStore, TokenManager};

use crate::common::actor::*;
use crate::common::alone::{alone, test_of};
use crate::common::process::{Process, each};
use crate::common::redis_server::{RedisServer, until};
use crate::common::stores::token_in;
use crate::common::wait::*;

#[test]
fn promise_3_eight_processes_with_sixteen_threads_each_cost_one_fetch() {
    play(|stage| {
        sixteen_threads_of_each_process_cost_one_fetch(&mut stage.processes(8), |url| stage.share(url));
    });
}

#[test]
fn promise_3_one_failed_fetch_answers_all_processes() {
    play(|stage| {
        one_failed_fetch_answers_all_processes(&mut stage.processes(4), |url| stage.share(url));
    });
}

#[test]
fn promise_2_and_3_twenty_expiries_under_load_cost_twenty_fetches_and_return_no_expired_token() {
    play(|stage| {
        const LIFETIME: Duration = Duration::from_secs(2);
        let granted: Arc<Mutex<Vec<SystemTime>>> = Arc::default();
        let (log, (tell, notified)) = (granted.clone(), crossbeam_channel::unbounded());
        let host = crate::common::http_host::host(move |mut stream| {
            let number = {
                let mut granted = log.lock().unwrap();
                // Before the reply, because the lifetime starts now.
                granted.push(SystemTime::now());
                granted.len()
            };
            thread::sleep(Duration::from_millis(20));
            let life = LIFETIME.as_secs();
            let body = format!(r#"{{"access_token":"token-{number}","token_type":"bearer","expires_in":{life}}}"#);
            let _ = stream.write_all(&crate::common::http_host::reply(
                "200 OK",
                "content-type: application/json\r\n",
                &body,
            ));
            let _ = tell.send(());
        });
        let mut processes = stage.processes(3);
        each(&mut processes, &stage.share(&format!("{}/token", host.url())).line());
        processes.iter_mut().for_each(|process| process.send_line("use 4"));
        // The first fetch is no refresh.
        (0..=20).for_each(|_| notified.recv_timeout(PATIENCE).unwrap());
        let reports = each(&mut processes, "enough");
        let granted = granted.lock().unwrap().clone();
        assert!((21..=22).contains(&granted.len()), "{} fetches", granted.len());
        // A token is refreshed after two thirds of its lifetime, give or take the jitter. A shorter gap is a second
        // fetch for the same expiry.
        let gaps: Vec<_> = granted.windows(2).map(|pair| pair[1].duration_since(pair[0]).unwrap()).collect();
        let doubles = gaps.iter().filter(|gap| **gap < LIFETIME / 2).count();
        assert!(doubles <= 1, "{gaps:?}");
        for report in &reports {
            let report: Report = serde_json::from_str(report).unwrap();
            assert!(report.calls > 1_000 && report.tokens.len() >= 20, "{report:?}");
            assert_eq!((report.expired, &report.errors[..]), (0, &[][..]));
            for (token, last) in report.tokens {
                let number: usize = token.strip_prefix("token-").unwrap().parse().unwrap();
                let end = granted[number - 1] + LIFETIME;
                assert!(SystemTime::UNIX_EPOCH + Duration::from_nanos(last) < end, "{token} was over");
            }
        }
    });
}

#[test]
fn promise_3_after_the_lease_holder_is_killed_another_process_fetches_when_the_lease_expires() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        host.fail_with(VendorFault::Hang);
        let mut processes = stage.processes(3);
        each(&mut processes, &stage.share(&host.token_url()).line());
        let mut holder = processes.remove(0);
        holder.send_line("ask 1");
        assert!(host.wait_for_calls(1, PATIENCE));
        holder.kill();
        let (left, seen) = (stage.lease_left(&host).unwrap(), Instant::now());
        assert!(left > Duration::ZERO && left <= LEASE, "{left:?}");
        host.recover();
        processes.iter_mut().for_each(|process| process.send_line("ask 4"));
        assert!(host.wait_for_calls(2, PATIENCE));
        let waited = seen.elapsed();
        // The remaining time is in whole milliseconds, and was read a moment before the measurement began.
        assert!(waited + Duration::from_millis(100) > left && waited < left + SOON, "{waited:?} of {left:?}");
        let answers: Vec<_> = processes.iter_mut().map(Process::read_line).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0] && host.is_valid(answer)), "{answers:?}");
        assert_eq!(host.calls(), 2);
    });
}

#[test]
fn promise_7_a_holder_that_was_stopped_for_longer_than_its_lease_does_not_overwrite_the_newer_token() {
    play(|stage| {
        let (host, mut processes) = (FakeVendor::oauth2(), stage.processes(2));
        let go_on = |others: &mut [Process], _| {
            assert!(stage.lease_left(&host).is_some());
            until("the lease has expired", || stage.lease_left(&host).is_none());
            assert_eq!(each(others, "ask 4"), ["token-2"]);
        };
        let (share, recorded) = (|url: &str| stage.share(url), || stage.recorded(&host));
        a_stopped_process_does_not_overwrite_the_newer_token(&host, &mut processes, share, go_on, recorded);
    });
}

#[test]
fn promise_4_a_rejection_reaches_another_process_at_once_when_it_watches() {
    play(|stage| {
        stage.spread("reject", HOUR, true);
    });
}

#[test]
fn promise_4_a_rejection_reaches_another_process_within_the_store_check_interval() {
    play(|stage| {
        stage.spread("reject", Duration::from_millis(300), false);
    });
}

#[test]
fn an_invalidation_reaches_another_process_at_once_when_it_watches() {
    play(|stage| {
        stage.spread("invalidate", HOUR, true);
    });
}

#[test]
fn an_invalidation_reaches_another_process_within_the_store_check_interval() {
    play(|stage| {
        stage.spread("invalidate", Duration::from_millis(300), false);
    });
}

#[test]
fn a_forked_child_never_reads_its_parents_replies() {
    alone(|| {
        let server = RedisServer::start();
        let store = RedisStore::open(&server.url()).unwrap();
        let keys = ["parent", "child"].map(|name| key_of("http://127.0.0.1/token", name));
        for (key, bytes) in keys.iter().zip(["parent", "child"]) {
            store.compare_and_swap(key, Expected::Any, Some((bytes.as_bytes(), HOUR))).unwrap();
        }
        let reads_its_own = |index: usize, name: &str| {
            for _ in 0..2_000 {
                let entry = store.read(&keys[index]).unwrap().unwrap();
                assert_eq!(entry.bytes(), name.as_bytes());
            }
        };
        assert_eq!(connections(&server), 1);
        let (mut hers, mut mine) = std::io::pipe().unwrap();
        // SAFETY: the child uses nothing but the store, which supports use after a fork.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                store.read(&keys[1]).unwrap();
                assert_eq!(connections(&server), 2, "the child has one of its own");
                mine.write_all(b"!").unwrap();
                reads_its_own(1, "child");
            }));
            // SAFETY: ends the child without running the parent's test harness in it.
            unsafe { libc::_exit(if fine.is_ok() { 0 } else { 1 }) };
        }
        std::io::Read::read_exact(&mut hers, &mut [0]).unwrap();
        reads_its_own(0, "parent");
        let mut status = 0;
        // SAFETY: waits for the child that was forked above.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "the child is content");
        reads_its_own(0, "parent");
        until("the child's connection ends with it", || connections(&server) == 1);
    });
}

#[test]
fn promise_3_a_forked_child_shares_the_token_over_a_connection_of_its_own() {
    alone(|| {
        let server = RedisServer::start();
        let host = FakeVendor::oauth2();
        let provider = OAuth2::new(host.token_url(), "client", "secret");
        let store = RedisStore::open(&server.url()).unwrap();
        let tokens = TokenManager::builder(provider).store(store).build().unwrap();
        let events = tokens.events();
        text(&tokens);
        wait_for_grant(&events);
        // The fetch has completed; only the scheduler thread is left, or about to start.
        until("no fetch is in flight", || !tokens.status().fetching);
        // SAFETY: the child uses nothing but the manager, which supports use after a fork.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                assert_eq!(text(&tokens), "token-1", "the token is kept");
                assert_eq!(tokens.force_refresh().unwrap().expose(), "token-2");
                assert_eq!(connections(&server), 2);
            }));
            // SAFETY: ends the child without running the parent's test harness in it.
            unsafe { libc::_exit(if fine.is_ok() { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child that was forked above.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "the child is content");
        let held = tokens.token().unwrap();
        tokens.reject(&held).unwrap();
        // The parent adopts the token that the child fetched.
        assert_eq!((text(&tokens).as_str(), host.calls()), ("token-2", 2));
    });
}

/// Runs a test that starts processes of its own. Such a process obeys the commands of the test instead.
fn play(test: impl FnOnce(&Stage)) {
    let name = test_of(&test);
    match crate::common::process::port() {
        Some(port) => act(&port),
        None => test(&Stage { name, server: RedisServer::start() }),
    }
}

/// The server that the processes of a test share, and the name of the test.
struct Stage {
    name: &'static str,
    server: RedisServer,
}

impl Stage {
    fn processes(&self, count: usize) -> Vec<Process> {
        (0..count).map(|_| Process::start(self.name)).collect()
    }

    fn share(&self, token_url: &str) -> Share {
        Share::of(self.server.url(), token_url)
    }

    /// The remaining time of the lease of the host's credential.
    fn lease_left(&self, host: &FakeVendor) -> Option<Duration> {
        let lease = format!("{}:lock", key_of(&host.token_url(), "client"));
        let left: i64 = self.server.ask(&["PTTL", &lease]).unwrap();
        u64::try_from(left).ok().map(Duration::from_millis)
    }

    /// The token in the record of the host's credential.
    fn recorded(&self, host: &FakeVendor) -> String {
        let record: String = self.server.ask(&["GET", key_of(&host.token_url(), "client").as_str()]).unwrap();
        token_in(record.as_bytes())
    }

    /// A token that one process rejects or invalidates is replaced in another one soon.
    fn spread(&self, what: &str, store_check_interval: Duration, watch: bool) {
        spreads(what, &mut self.processes(2), |url| Share { store_check_interval, watch, ..self.share(url) });
    }
}

/// The observations of a process that used tokens for a while.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Report {
    calls: usize,
    /// Tokens that were returned without any time left.
    expired: usize,
    errors: Vec<String>,
    /// The last time at which each token was requested, in nanoseconds since 1970.
    tokens: BTreeMap<String, u64>,
}

/// Obeys commands until the test closes the connection.
fn act(port: &str) {
    let mut actor = Actor::new(port);
    while let Some((verb, rest)) = actor.read_line() {
        let answer = match verb.as_str() {
            "share" => {
                let share = Share::read(&rest);
                let builder = actor.builder(&share).store(RedisStore::open(&share.store).unwrap());
                actor.keep(builder.build().unwrap())
            }
            "use" => {
                let report = use_tokens(&actor.tokens().clone(), rest.parse().unwrap(), || actor.read_line());
                serde_json::to_string(&report).unwrap()
            }
            _ => actor.act(&verb, &rest),
        };
        actor.reply(&answer);
    }
}

/// Asks for tokens in several threads until `wait` returns.
fn use_tokens<T>(tokens: &TokenManager, threads: usize, wait: impl FnOnce() -> T) -> Report {
    let over = AtomicBool::new(false);
    let report: Mutex<Report> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut seen = Report::default();
                while !over.load(Ordering::SeqCst) {
                    let asked = SystemTime::now();
                    let (watch, token) = (Instant::now(), tokens.token());
                    seen.calls += 1;
                    match token {
                        Ok(token) => {
                            // The thread may have been suspended between the two reads, which proves nothing.
                            let had_no_turn = |left: Duration| left.is_zero() && watch.elapsed() > HARD_STOP / 2;
                            let left = token.remaining();
                            seen.expired += usize::from(left.is_zero() && !had_no_turn(left));
                            let asked = asked.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
                            seen.tokens.insert(token.expose().to_owned(), asked.try_into().unwrap());
                        }
                        Err(error) => seen.errors.push(error.to_string()),
                    }
                    // The loop makes a load and no race: the test is about refreshes.
                    thread::sleep(Duration::from_millis(1));
                }
                let mut report = report.lock().unwrap();
                report.calls += seen.calls;
                report.expired += seen.expired;
                report.errors.extend(seen.errors);
                for (token, last) in seen.tokens {
                    let latest = report.tokens.entry(token).or_default();
                    *latest = last.max(*latest);
                }
            });
        }
        wait();
        over.store(true, Ordering::SeqCst);
    });
    report.into_inner().unwrap()
}

/// The number of clients that are connected over TCP. The test itself uses the socket.
fn connections(server: &RedisServer) -> usize {
    let list: String = server.ask(&["CLIENT", "LIST"]).unwrap();
    list.lines().filter(|line| line.contains(" addr=127.0.0.1:")).count()
}

/// The last hundredth of a lifetime, in which the token is not returned.
const HARD_STOP: Duration = Duration::from_millis(20);
