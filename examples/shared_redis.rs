//! Several processes, one token: `cargo run --example shared_redis --features redis [redis URL] [--seconds N]`
//!
//! Start it in several terminals and watch one of them fetch: the others take the token over. Stop Redis under it and start
//! it again: tokens keep coming. The URL is `redis://127.0.0.1/` when none is given. Each ends with Ctrl-C, or after
//! `--seconds`; when it is the one that fetches just then, the others wait for the end of its lease, 8 s at most.
//!
//! The service is made up: it takes 300 ms, and its tokens live 20 s and tell which process asked for them.

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
    let wanted = Wanted::told()?;
    let tokens = manager(&wanted.url)?;
    let events = tokens.events();
    say(SystemTime::now(), "starts", &format!("with the key {} in Redis", tokens.key()));

    let mut calls = Calls::default();
    let start = Instant::now();
    for second in 1.. {
        // This is all that a program does. The rest of this loop shows what goes on.
        calls.note(&tokens);
        let next = start + Duration::from_secs(second);
        while let Ok(event) = events.recv_deadline(next) {
            tell(&event, &tokens);
        }
        if second % 5 == 0 {
            calls.tell();
        }
        if wanted.end.is_some_and(|end| start.elapsed() >= end) {
            break;
        }
    }
    Ok(())
}

fn manager(url: &str) -> Result<TokenManager, Error> {
    let fetches = AtomicU32::new(0);
    let service = provider::from_fn("made-up-service", move |_context| {
        thread::sleep(Duration::from_millis(300));
        let (number, now) = (fetches.fetch_add(1, Ordering::Relaxed), since_epoch(SystemTime::now()).as_nanos());
        Ok(Grant::new(format!("{}.{number}.{now}", process::id()), Duration::from_secs(20)))
    });
    // Nothing is connected yet, so it does not matter whether Redis is there.
    let store = RedisStore::open(url)?;
    // Followed, so that the others have a new token at once, and not only when they want to renew their own.
    TokenManager::builder(service.identity_part("account", "example")).store(store).watch(true).build()
}

/// What the calls of the last seconds were like.
#[derive(Default)]
struct Calls {
    count: u32,
    failed: u32,
    slowest: Duration,
    last: Option<Token>,
}

impl Calls {
    fn note(&mut self, tokens: &TokenManager) {
        let asked = Instant::now();
        let answer = tokens.token();
        self.slowest = self.slowest.max(asked.elapsed());
        self.count += 1;
        self.failed += u32::from(answer.is_err());
        self.last = answer.ok();
    }

    fn tell(&mut self) {
        let Calls { count, failed, slowest, last } = std::mem::take(self);
        let held =
            last.map_or("no token".to_owned(), |token| format!("{} of process {}", short(&token), asker(&token)));
        let what = format!("{count} calls, {failed} errors, the slowest took {slowest:.1?}; {held}");
        say(SystemTime::now(), "calls", &what);
    }
}

fn tell(event: &Event, tokens: &TokenManager) {
    let who = match &event.kind {
        EventKind::Granted { origin: TokenOrigin::Provider, .. } => "fetched",
        EventKind::Granted { origin: TokenOrigin::Store, fingerprint, .. } => {
            let token = tokens.try_token().filter(|token| token.fingerprint() == fingerprint);
            let asker = token.map_or("another process".to_owned(), |token| format!("process {}", asker(&token)));
            return say(event.at, "adopted", &format!("{event}; {asker} fetched it"));
        }
        EventKind::StoreDown { .. } => "down",
        EventKind::StoreUp => "up",
        _ => "event",
    };
    say(event.at, who, &event.to_string());
}

/// One line. The time is UTC, so that the lines of several terminals can be compared.
fn say(at: SystemTime, what: &str, more: &str) {
    let time = since_epoch(at);
    let (seconds, millis) = (time.as_secs() % 86_400, time.subsec_millis());
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    println!("{hour:02}:{minute:02}:{second:02}.{millis:03}  {:<7}  {what:<8} {more}", process::id());
}

/// The process that asked for this token. Only a made-up token tells that; it is never shown itself.
fn asker(token: &Token) -> &str {
    token.expose().split('.').next().unwrap_or_default()
}

fn short(token: &Token) -> String {
    format!("token {}", token.fingerprint().get(..8).unwrap_or_default())
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

struct Wanted {
    url: String,
    end: Option<Duration>,
}

impl Wanted {
    fn told() -> Result<Wanted, Error> {
        let mut arguments = Arguments::from_env();
        let usage =
            |_| Error::new(ErrorKind::Config, "it takes the URL of a Redis and --seconds with a number, or neither");
        let end = arguments.opt_value_from_str("--seconds").map_err(usage)?.map(Duration::from_secs);
        let url = arguments.opt_free_from_str().map_err(usage)?;
        Ok(Wanted { url: url.unwrap_or_else(|| "redis://127.0.0.1/".to_owned()), end })
    }
}
