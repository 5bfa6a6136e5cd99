//! Several real processes share one directory, however they end. Each is this test's own program, started again, and
//! obeys commands from a socket.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

use evertoken::FileStore;
use evertoken::store::{Expected, LeaseOutcome, LeaseOwner, Store, SwapOutcome};
use evertoken::testing::{FakeVendor, VendorFault};
use tempfile::TempDir;

use crate::common::actor::*;
use crate::common::alone::test_of;
use crate::common::process::{Process, each};
use crate::common::stores::token_in;
use crate::common::suite::{ask, bytes, key};
use crate::common::wait::*;

/// Much longer than any step of these tests takes.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn promise_3_eight_processes_with_sixteen_threads_each_cost_one_fetch() {
    play(|stage| {
        let mut processes = stage.processes(8);
        sixteen_threads_of_each_process_cost_one_fetch(&mut processes, |url| stage.share(url));
        assert!(!stage.names().iter().any(|name| name.ends_with(".new") || name.ends_with(".owner")));
    });
}

#[test]
fn promise_3_one_failed_fetch_answers_all_processes() {
    play(|stage| {
        one_failed_fetch_answers_all_processes(&mut stage.processes(4), |url| stage.share(url));
    });
}

#[test]
fn promise_3_programs_that_start_one_after_the_other_cost_one_fetch_and_one_refresh_token() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        let share = Share { refresh: true, ..stage.share(&host.token_url()) }.line();
        let run = |what: &[&str]| {
            let mut process = stage.processes(1).remove(0);
            process.ask(&share);
            let answer = what.iter().map(|what| process.ask(what)).last().unwrap();
            process.end();
            answer
        };
        (0..3).for_each(|_| assert_eq!(run(&["ask 1"]), "token-1"));
        assert_eq!(host.used_refresh_tokens(), ["refresh-1"]);
        // Each program uses the refresh token of the one before, which was written before the token was returned.
        for round in 2..=4 {
            assert_eq!(run(&["invalidate", "ask 4"]), format!("token-{round}"));
            assert_eq!(run(&["ask 1"]), format!("token-{round}"));
        }
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2", "refresh-3", "refresh-4"]);
    });
}

#[test]
fn promise_3_after_the_lease_holder_is_killed_the_next_process_fetches_at_once() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        host.fail_with(VendorFault::Hang);
        let mut processes = stage.processes(4);
        // The lease would last longer than any test waits.
        let share = Share { fetch: LONG, ..stage.share(&host.token_url()) };
        each(&mut processes, &share.line());
        let mut holder = processes.remove(0);
        holder.send_line("ask 1");
        assert!(host.wait_for_calls(1, PATIENCE));
        // Two processes wait when the holder is killed, and one of them fetches.
        processes[..2].iter_mut().for_each(|process| process.send_line("ask 4"));
        assert!(!host.wait_for_calls(2, SECOND / 2), "who waits does not fetch");
        host.recover();
        let killed = Instant::now();
        holder.kill();
        assert!(host.wait_for_calls(2, PATIENCE));
        assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
        processes[2].send_line("ask 4");
        let answers: Vec<_> = processes.iter_mut().map(Process::read_line).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0] && host.is_valid(answer)), "{answers:?}");
        assert_eq!(host.calls(), 2);
    });
}

#[test]
fn promise_7_a_holder_that_was_stopped_for_longer_than_its_lease_does_not_overwrite_the_newer_token() {
    play(|stage| {
        let (host, mut processes) = (FakeVendor::oauth2(), stage.processes(3));
        let go_on = |others: &mut [Process], asked: Instant| {
            // The others wait until the lease expires.
            assert_eq!(each(others, "ask 4"), ["token-2", "token-2"]);
            let waited = asked.elapsed();
            assert!(waited > LEASE - Duration::from_millis(100) && waited < LEASE + SOON, "{waited:?}");
        };
        let (share, recorded) = (|url: &str| stage.share(url), || stage.recorded(&host));
        a_stopped_process_does_not_overwrite_the_newer_token(&host, &mut processes, share, go_on, recorded);
    });
}

#[test]
fn promise_4_a_rejection_reaches_another_process_within_the_store_check_interval() {
    play(|stage| stage.spread("reject"));
}

#[test]
fn an_invalidation_reaches_another_process_within_the_store_check_interval() {
    play(|stage| stage.spread("invalidate"));
}

#[test]
fn promise_7_a_token_that_could_not_be_written_reaches_another_process_later() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        // A file stands in the place of the directory, which stops root too.
        fs::write(stage.directory(), "in the way").unwrap();
        let mut processes = stage.processes(2);
        let share = Share { store_check_interval: Duration::from_millis(100), ..stage.share(&host.token_url()) };
        each(&mut processes, &share.line());
        assert_eq!(processes[0].ask("ask 4"), "token-1");
        fs::remove_file(stage.directory()).unwrap();
        let store = stage.store();
        eventually("the token is written", || {
            assert_eq!(processes[0].ask("ask 1"), "token-1");
            store.read(&key_of(&host.token_url(), "client")).unwrap().is_some()
        });
        assert_eq!(processes[1].ask("ask 4"), "token-1");
        assert_eq!(host.calls(), 1);
    });
}

#[test]
fn a_write_that_is_killed_leaves_the_old_or_the_new_and_one_temporary_file_at_most() {
    play(|stage| {
        let (store, key) = (stage.store(), key("killed"));
        let (mut round, mut written, mut left_over) = (0, 0, 0);
        while written < 200 || left_over == 0 {
            round += 1;
            assert!(round < 1_000, "{written} writes, {left_over} of them cut off half-way");
            let mut process = stage.processes(1).remove(0);
            let line = format!("write {}", stage.directory().display());
            assert_eq!(process.ask(&line), "ok");
            thread::sleep(Duration::from_micros(scattered(round) % 12_000));
            process.kill();
            let found = store.read(&key).unwrap().expect("there is always one");
            assert_eq!(found.bytes().len(), LARGE);
            assert!(found.bytes().iter().all(|byte| *byte == found.bytes()[0]), "never half");
            written += usize::from(found.bytes()[0]);
            let temporary = stage.names().iter().filter(|name| name.contains(".new")).count();
            assert!(temporary <= 1, "{:?}", stage.names());
            left_over += temporary;
        }
        assert!(matches!(
            store.compare_and_swap(&key, Expected::Any, Some((b"next", HOUR))).unwrap(),
            SwapOutcome::Done(_)
        ));
        assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), b"next");
        assert!(!stage.names().iter().any(|name| name.contains(".new")), "{:?}", stage.names());
    });
}

/// Pseudo-random numbers, the same in each run.
fn scattered(round: u64) -> u64 {
    round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

#[test]
fn a_forked_child_neither_frees_nor_keeps_the_lease_of_its_parent() {
    play(|stage| {
        let (store, key, directory) = (stage.store(), key("forked"), stage.directory());
        let mut parent = stage.processes(1).remove(0);
        assert_eq!(parent.ask(&format!("lease {}", directory.display())), "ok");
        let has_used_its_store = |child: libc::pid_t| {
            fs::write(stage.folder().join(format!("use-{child}")), "").unwrap();
            eventually("the child has used its store", || stage.folder().join(format!("used-{child}")).exists());
        };
        let [first, second] = ["fork", "fork"].map(|fork| parent.ask(fork).parse::<libc::pid_t>().unwrap());
        has_used_its_store(first);
        assert!(matches!(ask(&store, &key, "b"), LeaseOutcome::Busy { .. }), "it is the parent's");
        parent.kill();
        assert!(matches!(ask(&store, &key, "b"), LeaseOutcome::Busy { .. }), "the second child has the file as well");
        has_used_its_store(second);
        assert!(matches!(ask(&store, &key, "b"), LeaseOutcome::Leased));
        for child in [first, second] {
            // SAFETY: a plain system call. Processes without a parent are then children of this process, which waits
            // for them.
            assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
        }
    });
}

/// Runs a test that starts processes of its own. Such a process obeys the commands of the test instead.
fn play(test: impl FnOnce(&Stage)) {
    let name = test_of(&test);
    match crate::common::process::port() {
        Some(port) => act(&port),
        None => test(&Stage { name, folder: tempfile::tempdir().unwrap() }),
    }
}

/// The directory that the processes of a test share, and the name of the test.
struct Stage {
    name: &'static str,
    folder: TempDir,
}

impl Stage {
    fn processes(&self, count: usize) -> Vec<Process> {
        (0..count).map(|_| Process::start(self.name)).collect()
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn directory(&self) -> PathBuf {
        self.folder().join("store")
    }

    fn store(&self) -> FileStore {
        FileStore::at(self.directory())
    }

    fn names(&self) -> Vec<String> {
        let files = fs::read_dir(self.directory()).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn share(&self, token_url: &str) -> Share {
        Share::of(self.directory().to_str().unwrap(), token_url)
    }

    /// The token in the record of the host's credential.
    fn recorded(&self, host: &FakeVendor) -> String {
        token_in(self.store().read(&key_of(&host.token_url(), "client")).unwrap().unwrap().bytes())
    }

    /// A token that one process rejects or invalidates is replaced in another one soon.
    fn spread(&self, what: &str) {
        let store_check_interval = Duration::from_millis(300);
        spreads(what, &mut self.processes(2), |url| Share { store_check_interval, ..self.share(url) });
    }
}

/// Obeys commands until the test closes the connection.
fn act(port: &str) {
    let mut actor = Actor::new(port);
    let mut leased = None;
    while let Some((verb, rest)) = actor.read_line() {
        let answer = match verb.as_str() {
            "share" => {
                let share = Share::read(&rest);
                let builder = actor.builder(&share).store(FileStore::at(&share.store)).max_wait(LONG * 3);
                actor.keep(builder.build().unwrap())
            }
            "write" => write_without_end(&rest, &mut actor),
            "lease" => {
                let store = FileStore::at(&rest);
                let held = store.read_or_lease(&key("forked"), None, SECOND, &LeaseOwner::new("parent"), HOUR).unwrap();
                assert!(matches!(held, LeaseOutcome::Leased));
                leased = Some(store);
                "ok".to_owned()
            }
            "fork" => fork(leased.as_ref().unwrap()).to_string(),
            _ => actor.act(&verb, &rest),
        };
        actor.reply(&answer);
    }
}

/// Writes until the process is killed. Replies once something is written.
fn write_without_end(directory: &str, actor: &mut Actor) -> ! {
    let (store, key) = (FileStore::at(directory), key("killed"));
    for round in 1_u64.. {
        // Each record has other bytes, and the first byte counts the writes modulo 256.
        let text = vec![u8::try_from(round).unwrap_or(u8::MAX); LARGE];
        store.compare_and_swap(&key, Expected::Any, Some((&text, HOUR))).unwrap();
        if round == 1 {
            actor.reply("ok");
        }
    }
    unreachable!("it is killed before")
}

/// The size of a record whose write takes a while.
const LARGE: usize = 60_000;

/// Forks a child that shares all files, and uses its store once the file `use-<its id>` exists.
fn fork(store: &FileStore) -> libc::pid_t {
    let folder = store.directory().parent().unwrap().to_owned();
    // SAFETY: the child uses nothing but files and the store, which says that it can be used after a fork. No other
    // thread of this process is inside of either.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let (id, asked) = (std::process::id(), Instant::now());
        let mut used = false;
        while asked.elapsed() < PATIENCE {
            if !used && folder.join(format!("use-{id}")).exists() {
                used = store.read(&key("forked")).is_ok()
                    && store.compare_and_swap(&key("other"), Expected::Any, None).is_ok();
                used =
                    used && store.read_or_lease(&key("third"), None, SECOND, &LeaseOwner::new("child"), HOUR).is_ok();
                let _ = fs::write(folder.join(format!("used-{id}")), "");
            }
            thread::sleep(Duration::from_millis(5));
        }
        // SAFETY: ends the child without running the parent's test harness in it.
        unsafe { libc::_exit(0) };
    }
    child
}
