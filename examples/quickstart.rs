//! Shows what a token manager does, step by step: `cargo run --example quickstart`
//!
//! The program starts a fake WeCom server on a loopback port, whose tokens are valid for 5 s, and prints what callers,
//! the manager and the server do: the first fetch, calls from memory, a background refresh, an outage, an unchanged
//! token, and a token that the service rejects.
//!
//! With `EVERTOKEN_PROVIDER=wecom`, `EVERTOKEN_CORP_ID` and `EVERTOKEN_SECRET` set, the program fetches one token from
//! WeCom itself. Any other provider of this crate works in the same way; see `evertoken::provider::from_env`.

#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error as StdError;
use std::fmt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use evertoken::testing::{FakeVendor, VendorFault};
use evertoken::{CallError, Error, Event, EventKind, Token, TokenManager, Verdict, WeCom, provider};

type Result<T = (), E = Box<dyn StdError>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    println!("evertoken quickstart\n");
    let real = env::var_os("EVERTOKEN_PROVIDER").is_some();
    let outcome = if real { with_real_vendor() } else { with_fake_vendor() };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nThe quickstart failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All steps, with a fake vendor on this machine.
fn with_fake_vendor() -> Result {
    let host = FakeVendor::wecom().lifetime(LIFETIME).renews_within(LIFETIME / 2).delay(Duration::from_millis(50));
    println!("  provider     a fake WeCom server at {}", host.url());
    println!("               tokens are valid for {} s, a fetch takes 50 ms", LIFETIME.as_secs());
    println!("  real WeCom   set EVERTOKEN_PROVIDER=wecom, EVERTOKEN_CORP_ID and EVERTOKEN_SECRET");
    println!("  duration     about 8 s");

    let tokens = TokenManager::builder(WeCom::new("corp", "secret").base_url(host.url()))
        .backoff(Duration::from_millis(200), Duration::from_secs(1))
        .build()?;
    let timeline = Timeline::of(&tokens);

    timeline.step("1. There is no token yet, and 64 threads call token() at once");
    let first = all_at_once(&timeline, &tokens)?;
    timeline.note("server", &format!("received {} request for a token", host.calls()));

    timeline.step("2. The manager has a token, and 64 threads call token() 10,000 times each");
    from_memory(&timeline, &tokens)?;

    timeline.step("3. The token is refreshed in the background, while 8 threads keep calling token()");
    timeline.note_next_refresh(&tokens);
    let calls = with_callers(&tokens, &host, || timeline.wait_for(is_background_refresh))?;
    timeline.note("callers", &calls.to_string());
    let previous = if host.is_valid(first.expose()) { "is still valid" } else { "is no longer valid" };
    timeline.note("server", &format!("the previous token {previous}"));

    timeline.step("4. The provider is down when the next refresh is due");
    host.fail_with(VendorFault::Status(503));
    timeline.note("server", "answers each request for a token with HTTP 503 from now on");
    timeline.note_next_refresh(&tokens);
    let calls = with_callers(&tokens, &host, || {
        timeline.wait_for(is_failure)?;
        timeline.wait_for(is_failure)?;
        host.recover();
        timeline.note("server", "works again");
        timeline.wait_for(is_background_refresh)
    })?;
    timeline.note("callers", &calls.to_string());

    timeline.step("5. A forced refresh comes too early, and WeCom returns the unchanged token");
    tokens.force_refresh()?;
    timeline.wait_for(|kind| matches!(kind, EventKind::Unchanged { .. }))?;
    timeline.note("manager", "keeps the expiry of the token as it was");

    timeline.step("6. A service rejects the token");
    host.revoke(tokens.token()?.expose());
    timeline.note("server", "has revoked the token; the manager cannot know");
    send_message(&timeline, &tokens, &host)?;

    finish(&timeline, &tokens);
    Ok(())
}

/// The first two steps, with the vendor itself. The token is never shown.
fn with_real_vendor() -> Result {
    let tokens = TokenManager::from_config(&provider::from_env()?, |builder| builder)?;
    println!("  provider     as set by the variables EVERTOKEN_*");
    let timeline = Timeline::of(&tokens);

    timeline.step("1. There is no token yet, and 64 threads call token() at once");
    if let Err(error) = all_at_once(&timeline, &tokens) {
        finish(&timeline, &tokens);
        return Err(error);
    }

    timeline.step("2. The manager has a token, and 64 threads call token() 10,000 times each");
    from_memory(&timeline, &tokens)?;

    finish(&timeline, &tokens);
    Ok(())
}

fn finish(timeline: &Timeline, tokens: &TokenManager) {
    timeline.step("The output of tokens.status()");
    println!("{}", indented(&tokens.status().to_string()));
    timeline.step("The output of tokens.metrics()");
    println!("{}", indented(&tokens.metrics().to_string()));
}

// ---- the callers ----------------------------------------------------------------------------------------------------

/// 64 threads call `token()` at the same moment, while there is no token.
fn all_at_once(timeline: &Timeline, tokens: &TokenManager) -> Result<Token> {
    let start = Barrier::new(THREADS);
    let answers: Vec<_> = on_all_threads(|| {
        start.wait();
        let asked = Instant::now();
        let answer = tokens.token();
        (answer, asked.elapsed())
    });
    timeline.catch_up();
    let longest = answers.iter().map(|(_, waited)| *waited).max().unwrap_or_default();
    let got: Vec<Token> = answers.into_iter().map(|(answer, _)| answer).collect::<Result<_, Error>>()?;
    let same = got.windows(2).all(|pair| pair[0].expose() == pair[1].expose());
    let what = if same { "all got the same token" } else { "got different tokens" };
    timeline.note("callers", &format!("{THREADS} threads {what}; the longest wait was {}", time(longest)));
    Ok(got[0].clone())
}

/// 64 threads call `token()` again and again, while the manager has a token.
fn from_memory(timeline: &Timeline, tokens: &TokenManager) -> Result {
    const CALLS: usize = 10_000;
    let start = Barrier::new(THREADS);
    let answers: Vec<_> = on_all_threads(|| {
        start.wait();
        let began = Instant::now();
        let answer = (0..CALLS).try_for_each(|_| tokens.token().map(drop));
        answer.map(|()| (began, Instant::now()))
    });
    timeline.catch_up();
    let spans = answers.into_iter().collect::<Result<Vec<_>, Error>>()?;
    let (began, ended): (Vec<_>, Vec<_>) = spans.into_iter().unzip();
    let took =
        began.into_iter().min().zip(ended.into_iter().max()).map_or(Duration::ZERO, |(began, ended)| ended - began);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let calls = (THREADS * CALLS) as u64;
    let each = time(took.mul_f64(cores as f64 / calls as f64));
    let build = if cfg!(debug_assertions) { " (a debug build; try --release)" } else { "" };
    timeline.note(
        "callers",
        &format!("{} calls in {}: {each} per call on {cores} cores{build}", grouped(calls), time(took)),
    );
    Ok(())
}

/// Runs `story` while 8 threads keep calling `token()`, and returns what these threads saw.
fn with_callers(tokens: &TokenManager, host: &FakeVendor, story: impl FnOnce() -> Result) -> Result<Calls> {
    let calls = Calls::default();
    let before = tokens.metrics().waits;
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !calls.stop.load(Ordering::Relaxed) {
                    calls.make_one(tokens, host);
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let outcome = story();
        calls.stop.store(true, Ordering::Relaxed);
        outcome
    })?;
    calls.waited.store(tokens.metrics().waits - before, Ordering::Relaxed);
    Ok(calls)
}

/// Counts the calls of several threads, their errors and their waits.
#[derive(Default)]
struct Calls {
    stop: AtomicBool,
    made: AtomicU64,
    failed: AtomicU64,
    expired: AtomicU64,
    waited: AtomicU64,
    slowest: AtomicU64,
}

impl Calls {
    fn make_one(&self, tokens: &TokenManager, host: &FakeVendor) {
        let asked = Instant::now();
        let answer = tokens.token();
        let took = u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.made.fetch_add(1, Ordering::Relaxed);
        self.slowest.fetch_max(took, Ordering::Relaxed);
        match answer {
            // The server knows which tokens are valid now.
            Ok(token) => self.expired.fetch_add(u64::from(!host.is_valid(token.expose())), Ordering::Relaxed),
            Err(_) => self.failed.fetch_add(1, Ordering::Relaxed),
        };
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let slowest = time(Duration::from_nanos(read(&self.slowest)));
        let (made, failed, expired) = (grouped(read(&self.made)), read(&self.failed), read(&self.expired));
        let waited = read(&self.waited);
        write!(f, "{made} calls: {failed} errors, {expired} expired tokens, {waited} waits; slowest {slowest}")
    }
}

/// Sends a message as a program does. `call` rejects a token that the service refuses, and calls the closure again with
/// a new token.
fn send_message(timeline: &Timeline, tokens: &TokenManager, host: &FakeVendor) -> Result {
    let asked = Instant::now();
    let sent: Result<(), CallError<ureq::Error>> = tokens.call(|token| {
        let reply = ureq::get(format!("{}?access_token={}", host.api_url(), token.expose())).call()?;
        let (head, mut body) = reply.into_parts();
        let verdict = tokens.verdict(head.status.as_u16(), &head.headers, &body.read_to_vec()?);
        timeline.catch_up();
        let refused = verdict == Verdict::Rejected;
        timeline.note("server", &format!("{} {}", if refused { "refuses" } else { "accepts" }, short(token)));
        if refused { Err(CallError::Rejected) } else { Ok(()) }
    });
    sent?;
    timeline.note("callers", &format!("the message is sent, {} after the first attempt", time(asked.elapsed())));
    Ok(())
}

fn on_all_threads<T: Send>(work: impl Fn() -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(&work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

fn is_background_refresh(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Granted { in_background: true, .. })
}

fn is_failure(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Failed { .. })
}

// ---- the output -----------------------------------------------------------------------------------------------------

/// Prints what happens, with the time since the start of the program.
struct Timeline {
    start: Instant,
    events: mpsc::Receiver<(Duration, Event)>,
}

impl Timeline {
    fn of(tokens: &TokenManager) -> Timeline {
        let start = Instant::now();
        let (sender, events) = mpsc::channel();
        let received = tokens.events();
        // This thread notes the time of each event, because events are printed later. It ends with the manager.
        thread::spawn(move || received.into_iter().try_for_each(|event| sender.send((start.elapsed(), event))));
        Timeline { start, events }
    }

    fn step(&self, title: &str) {
        self.catch_up();
        println!("\n{title}\n");
    }

    /// Prints something that is not an event of the manager.
    fn note(&self, who: &str, what: &str) {
        row(self.start.elapsed(), who, what);
    }

    fn note_next_refresh(&self, tokens: &TokenManager) {
        let due = tokens.status().refresh_in.unwrap_or_default();
        self.note("manager", &format!("will refresh the token in {} ms", due.as_millis()));
    }

    /// Prints the events so far.
    fn catch_up(&self) {
        // Waits briefly, because the thread that receives the events may be behind.
        while let Ok((at, event)) = self.events.recv_timeout(Duration::from_millis(2)) {
            row(at, "event", &event.kind.to_string());
        }
    }

    /// Prints events until one of the wanted kind.
    fn wait_for(&self, wanted: impl Fn(&EventKind) -> bool) -> Result {
        loop {
            let (at, event) = self.events.recv_timeout(PATIENCE).map_err(|_| "an expected event did not happen")?;
            row(at, "event", &event.kind.to_string());
            if wanted(&event.kind) {
                return Ok(());
            }
        }
    }
}

fn row(at: Duration, who: &str, what: &str) {
    println!("{:>9}  {who:<8} {what}", format!("{} ms", at.as_millis()));
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn short(token: &Token) -> String {
    format!("token {}", token.fingerprint().get(..8).unwrap_or_default())
}

fn time(duration: Duration) -> String {
    match duration.as_nanos() {
        0..1_000 => format!("{} ns", duration.as_nanos()),
        1_000..1_000_000 => format!("{} µs", duration.as_micros()),
        _ => format!("{} ms", duration.as_millis()),
    }
}

/// Formats 1234567 as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let comma = |place: usize| place > 0 && (digits.len() - place).is_multiple_of(3);
    let group = |(place, digit)| comma(place).then_some(',').into_iter().chain([digit]);
    digits.chars().enumerate().flat_map(group).collect()
}

const LIFETIME: Duration = Duration::from_secs(5);
const THREADS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);
