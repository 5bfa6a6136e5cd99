//! A process of a test that has a manager, and cases that several such processes run, whatever store they share.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use evertoken::provider::{Context, Grant, Identity, Profile, Provider};
use evertoken::store::Key;
use evertoken::testing::{FakeVendor, VendorFault};
use evertoken::{Error, HttpConfig, OAuth2, RefreshToken, TokenManager, TokenManagerBuilder};

use super::process::{Process, each};
use super::wait::*;

/// The time limit of a fetch in a process, unless a test sets another one.
pub(crate) const FETCH: Duration = SECOND;

/// The time of a lease: one fetch, two store operations and a second.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// A change that reaches a process within this time was announced, and not found by a periodic check.
pub(crate) const SOON: Duration = Duration::from_secs(2);

/// A process that reads commands line by line and replies to each.
pub(crate) struct Actor {
    stream: TcpStream,
    lines: Lines<BufReader<TcpStream>>,
    tokens: Option<TokenManager>,
    stops: Arc<AtomicBool>,
}

impl Actor {
    pub(crate) fn new(port: &str) -> Actor {
        let stream = TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        Actor { stream, lines, tokens: None, stops: Arc::default() }
    }

    /// Reads the next command: a verb and its argument. Returns `None` when the test has closed the connection.
    pub(crate) fn read_line(&mut self) -> Option<(String, String)> {
        let line = self.lines.next()?.ok()?;
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        Some((verb.to_owned(), rest.to_owned()))
    }

    pub(crate) fn reply(&mut self, answer: &str) {
        writeln!(self.stream, "{answer}").unwrap();
    }

    pub(crate) fn keep(&mut self, tokens: TokenManager) -> String {
        self.tokens = Some(tokens);
        "ok".to_owned()
    }

    pub(crate) fn tokens(&self) -> &TokenManager {
        self.tokens.as_ref().expect("the test has sent `share`")
    }

    /// A builder of the manager that `share` describes, without its store.
    pub(crate) fn builder(&self, share: &Share) -> TokenManagerBuilder {
        let client = OAuth2::new(&share.token_url, &share.client, "secret");
        let builder = match share.refresh {
            true => TokenManager::builder(RefreshToken::new(client, "refresh-1")),
            false => TokenManager::builder(Stopping { inner: client, stops: self.stops.clone() }),
        };
        builder
            .http(HttpConfig::default().timeout(share.fetch))
            .store_check_interval(share.store_check_interval)
            .watch(share.watch)
            // Longer than any test, so that a recorded failure is returned for as long as it is recorded.
            .backoff(PATIENCE, PATIENCE)
    }

    /// Runs a command that all such processes know.
    pub(crate) fn act(&self, verb: &str, rest: &str) -> String {
        match verb {
            "stop-with-the-next-token" => self.stops.store(true, Ordering::SeqCst),
            "reject" => self.tokens().reject(&self.tokens().token().unwrap()).unwrap(),
            "invalidate" => self.tokens().invalidate().unwrap(),
            "ask" => return ask_at_once(self.tokens(), rest.parse().unwrap()),
            "replaced" => {
                let mut other = String::new();
                eventually("the token is replaced", || {
                    other = text(self.tokens());
                    other != rest
                });
                return other;
            }
            _ => panic!("{verb}?"),
        }
        "ok".to_owned()
    }
}

/// The manager of a process: its store and its credential.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Share {
    /// The directory or the URL of the store.
    pub(crate) store: String,
    pub(crate) token_url: String,
    pub(crate) client: String,
    /// Whether the manager signs in with a refresh token, which the server replaces at each use.
    pub(crate) refresh: bool,
    pub(crate) fetch: Duration,
    pub(crate) store_check_interval: Duration,
    pub(crate) watch: bool,
}

impl Share {
    pub(crate) fn of(store: impl Into<String>, token_url: impl Into<String>) -> Share {
        Share {
            store: store.into(),
            token_url: token_url.into(),
            client: "client".to_owned(),
            refresh: false,
            fetch: FETCH,
            store_check_interval: HOUR,
            watch: false,
        }
    }

    /// The command that creates this manager.
    pub(crate) fn line(&self) -> String {
        format!("share {}", serde_json::to_string(self).unwrap())
    }

    pub(crate) fn read(text: &str) -> Share {
        serde_json::from_str(text).unwrap()
    }
}

/// Asks for a token in `threads` threads at once. Returns the result once if all got the same, else all of them.
fn ask_at_once(tokens: &TokenManager, threads: usize) -> String {
    let start = Barrier::new(threads);
    let answers = thread::scope(|scope| {
        let ask = || {
            start.wait();
            match tokens.token() {
                Ok(token) => token.expose().to_owned(),
                Err(error) => format!("{:?}", error.kind()),
            }
        };
        let asking: Vec<_> = (0..threads).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect::<Vec<_>>()
    });
    if answers.iter().all(|answer| *answer == answers[0]) { answers[0].clone() } else { answers.join(" ") }
}

/// A provider that stops its own process after the next fetch when a flag is set.
struct Stopping {
    inner: OAuth2,
    stops: Arc<AtomicBool>,
}

impl Provider for Stopping {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn profile(&self) -> Profile {
        self.inner.profile()
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        let grant = self.inner.fetch(context)?;
        if self.stops.swap(false, Ordering::SeqCst) {
            // SAFETY: stops this process, which the test resumes.
            unsafe { libc::raise(libc::SIGSTOP) };
        }
        Ok(grant)
    }
}

pub(crate) fn key_of(token_url: &str, client: &str) -> Key {
    TokenManager::new(OAuth2::new(token_url, client, "secret")).key().clone()
}

/// `share` gets the address of a host, here and in the functions below.
pub(crate) fn sixteen_threads_of_each_process_cost_one_fetch(processes: &mut [Process], share: impl Fn(&str) -> Share) {
    let host = FakeVendor::oauth2().delay(Duration::from_millis(50));
    for round in 1..=15 {
        let client = format!("client-{round}");
        let host = host.clone().another_credential(&client, "secret");
        each(processes, &Share { client, ..share(&host.token_url()) }.line());
        let answers = each(processes, "ask 16");
        assert!(answers.iter().all(|answer| *answer == format!("token-{round}")), "{answers:?}");
        assert_eq!(host.calls(), round, "one fetch in each round");
    }
}

pub(crate) fn one_failed_fetch_answers_all_processes(processes: &mut [Process], share: impl Fn(&str) -> Share) {
    let host = FakeVendor::oauth2().delay(Duration::from_millis(50));
    host.fail_with(VendorFault::Status(503));
    each(processes, &share(&host.token_url()).line());
    let answers = each(processes, "ask 4");
    assert!(answers.iter().all(|answer| answer == "Unavailable"), "{answers:?}");
    assert_eq!(host.calls(), 1);
    host.recover();
    assert_eq!(processes[0].ask("invalidate"), "ok");
    assert_eq!((processes[0].ask("ask 4").as_str(), host.calls()), ("token-1", 2));
}

/// A token that the first process rejects or invalidates is replaced in the second one soon.
pub(crate) fn spreads(what: &str, processes: &mut [Process], share: impl Fn(&str) -> Share) {
    let host = FakeVendor::oauth2();
    let share = share(&host.token_url());
    each(processes, &share.line());
    assert_eq!(each(processes, "ask 2"), ["token-1", "token-1"]);
    processes[1].send_line("replaced token-1");
    assert_eq!(processes[0].ask(what), "ok");
    let sent_at = Instant::now();
    assert_eq!(processes[1].read_line(), "token-2");
    assert!(sent_at.elapsed() < share.store_check_interval.min(SECOND) + SOON, "{:?}", sent_at.elapsed());
    assert_eq!(each(processes, "ask 2"), ["token-2", "token-2"]);
    assert_eq!(host.calls(), 2);
}

/// The first process stops with a fetched token that it has not written. `the_others_go_on` gets the time of the call,
/// and returns when the others have the next token. `recorded` reads the token in the store.
pub(crate) fn a_stopped_process_does_not_overwrite_the_newer_token(
    host: &FakeVendor,
    processes: &mut [Process],
    share: impl Fn(&str) -> Share,
    the_others_go_on: impl FnOnce(&mut [Process], Instant),
    recorded: impl Fn() -> String,
) {
    // The stopped process notices the newer token after this time at most.
    let store_check_interval = Duration::from_millis(300);
    each(processes, &Share { store_check_interval, ..share(&host.token_url()) }.line());
    let (holder, others) = processes.split_first_mut().unwrap();
    assert_eq!(holder.ask("stop-with-the-next-token"), "ok");
    let asked = Instant::now();
    holder.send_line("ask 1");
    holder.wait_until_stopped();
    assert_eq!(host.granted(), ["token-1"]);
    the_others_go_on(others, asked);
    assert_eq!(recorded(), "token-2");
    holder.go_on();
    // The caller may have waited too long to get a token.
    let _ = holder.read_line();
    assert_eq!(recorded(), "token-2");
    assert_eq!(holder.ask("replaced token-1"), "token-2");
    assert!(each(others, "ask 4").iter().all(|answer| answer == "token-2"));
    assert_eq!((host.calls(), recorded().as_str()), (2, "token-2"));
}
