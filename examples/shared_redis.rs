//! Several processes share one token: `cargo run --example shared_redis --features redis [redis URL] [--seconds N]`
//!
//! Start the example in several terminals: one process fetches the token, and the others read it from Redis. Stop Redis
//! and start it again: every process keeps getting tokens. The default URL is `redis://127.0.0.1/`.
//!
//! A process ends with Ctrl-C or after `--seconds`. If it is fetching at that moment, the others wait until its lease
//! ends, which takes 8 s at most.
//!
//! The service is invented: a fetch takes 300 ms, and tokens are valid for 20 s and contain the process that fetched
//! them.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evertoken::provider::Grant;
use evertoken::{Error, ErrorKind, Event, EventKind, RedisStore, Token, TokenManager, TokenOrigin, provider};
use pico_args::Arguments;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shared_redis: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let options = Options::from_arguments()?;
    let tokens = manager(&options.url)?;
    let events = tokens.events();
    print_line(SystemTime::now(), "start", &format!("the key in Redis is {}", tokens.key()));

    let mut calls = Calls::default();
    let start = Instant::now();
    for second in 1.. {
        // This line gets a token, as your own program would. The rest of the loop prints what happens.
        calls.make_one(&tokens);
        let next = start + Duration::from_secs(second);
        while let Ok(event) = events.recv_deadline(next) {
            print_event(&event, &tokens);
        }
        if second % 5 == 0 {
            calls.print();
        }
        if options.duration.is_some_and(|end| start.elapsed() >= end) {
            break;
        }
    }
    Ok(())
}

fn manager(url: &str) -> Result<TokenManager, Error> {
    let fetches = AtomicU32::new(0);
    let service = provider::from_fn("invented-service", move |_context| {
        thread::sleep(Duration::from_millis(300));
        let (number, now) = (fetches.fetch_add(1, Ordering::Relaxed), since_epoch(SystemTime::now()).as_nanos());
        Ok(Grant::new(format!("{}.{number}.{now}", process::id()), Duration::from_secs(20)))
    });
    // Opens no connection yet, so Redis may be down.
    let store = RedisStore::open(url)?;
    // With `watch`, this process reads a new token as soon as another process has stored it.
    TokenManager::builder(service.identity_part("account", "example")).store(store).watch(true).build()
}

/// Counts the calls of the last seconds.
#[derive(Default)]
struct Calls {
    count: u32,
    failed: u32,
    slowest: Duration,
    last: Option<Token>,
}

impl Calls {
    fn make_one(&mut self, tokens: &TokenManager) {
        let asked = Instant::now();
        let answer = tokens.token();
        self.slowest = self.slowest.max(asked.elapsed());
        self.count += 1;
        self.failed += u32::from(answer.is_err());
        self.last = answer.ok();
    }

    fn print(&mut self) {
        let Calls { count, failed, slowest, last } = std::mem::take(self);
        let current =
            last.map_or("no token".to_owned(), |token| format!("{} of process {}", short(&token), fetcher(&token)));
        let what = format!("{count} calls, {failed} errors, the slowest took {slowest:.1?}; {current}");
        print_line(SystemTime::now(), "calls", &what);
    }
}

fn print_event(event: &Event, tokens: &TokenManager) {
    let what = match &event.kind {
        EventKind::Granted { origin: TokenOrigin::Provider, .. } => "fetched",
        EventKind::Granted { origin: TokenOrigin::Store, fingerprint, .. } => {
            let token = tokens.try_token().filter(|token| token.fingerprint() == fingerprint);
            let fetcher = token.map_or("another process".to_owned(), |token| format!("process {}", fetcher(&token)));
            return print_line(event.at, "read", &format!("{event}; fetched by {fetcher}"));
        }
        EventKind::StoreDown { .. } => "down",
        EventKind::StoreUp => "up",
        _ => "event",
    };
    print_line(event.at, what, &event.to_string());
}

/// Prints one line. The time is UTC, so that the lines of several terminals can be compared.
fn print_line(at: SystemTime, what: &str, more: &str) {
    let time = since_epoch(at);
    let (seconds, millis) = (time.as_secs() % 86_400, time.subsec_millis());
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    println!("{hour:02}:{minute:02}:{second:02}.{millis:03}  {:<7}  {what:<8} {more}", process::id());
}

/// Returns the process that fetched this token, which the invented service puts into its tokens.
fn fetcher(token: &Token) -> &str {
    token.expose().split('.').next().unwrap_or_default()
}

fn short(token: &Token) -> String {
    format!("token {}", token.fingerprint().get(..8).unwrap_or_default())
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

struct Options {
    url: String,
    duration: Option<Duration>,
}

impl Options {
    fn from_arguments() -> Result<Options, Error> {
        let mut arguments = Arguments::from_env();
        let usage = |_| Error::new(ErrorKind::Config, "usage: shared_redis [redis URL] [--seconds N]");
        let duration = arguments.opt_value_from_str("--seconds").map_err(usage)?.map(Duration::from_secs);
        let url = arguments.opt_free_from_str().map_err(usage)?;
        Ok(Options { url: url.unwrap_or_else(|| "redis://127.0.0.1/".to_owned()), duration })
    }
}
