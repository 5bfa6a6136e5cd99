//! Shows what a token manager does, as it happens: `cargo run --example quickstart`
//!
//! With `EVERTOKEN_PROVIDER=wecom`, `EVERTOKEN_CORP_ID` and `EVERTOKEN_SECRET` set it asks WeCom itself, and asks for one
//! token only; any other provider of this crate will do as well. Without them it starts a stand-in for WeCom on a
//! loopback port, whose tokens live 5 s, and breaks it in front of your eyes.

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
    let told = if env::var_os("EVERTOKEN_PROVIDER").is_some() { for_real() } else { stand_in() };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nThis did not end well: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The whole story, against a host on this machine.
fn stand_in() -> Result {
    let host = FakeVendor::wecom().lifetime(LIFETIME).renews_within(LIFETIME / 2).delay(Duration::from_millis(50));
    println!("  provider   a stand-in for WeCom at {}, over a real socket", host.url());
    println!("             its tokens live {} s, and it takes 50 ms to answer", LIFETIME.as_secs());
    println!("  for real   set EVERTOKEN_PROVIDER=wecom, EVERTOKEN_CORP_ID and EVERTOKEN_SECRET");
    println!("  takes      about 8 s");

    let tokens = TokenManager::builder(WeCom::new("corp", "secret").base_url(host.url()))
        .backoff(Duration::from_millis(200), Duration::from_secs(1))
        .build()?;
    let timeline = Timeline::of(&tokens);

    timeline.chapter("Nothing is held, and 64 threads ask at once");
    let first = all_at_once(&timeline, &tokens)?;
    timeline.note("host", &format!("{} request for a token has come", host.calls()));

    timeline.chapter("The token is held, and 64 threads ask 10,000 times each");
    from_memory(&timeline, &tokens)?;

    timeline.chapter("It is renewed ahead of its end; 8 threads call all the while");
    timeline.tell_what_is_next(&tokens);
    let calls = with_callers(&tokens, &host, || timeline.wait_for(is_renewal))?;
    timeline.note("callers", &calls.to_string());
    let both = if host.is_valid(first.expose()) { "is still good too, so nobody is cut off" } else { "is over" };
    timeline.note("host", &format!("the token before it {both}"));

    timeline.chapter("The provider breaks down, and the next renewal is due");
    host.fail_with(VendorFault::Status(503));
    timeline.note("host", "answers every request for a token with HTTP status 503");
    timeline.tell_what_is_next(&tokens);
    let calls = with_callers(&tokens, &host, || {
        timeline.wait_for(is_failure)?;
        timeline.wait_for(is_failure)?;
        host.recover();
        timeline.note("host", "is well again");
        timeline.wait_for(is_renewal)
    })?;
    timeline.note("callers", &calls.to_string());

    timeline.chapter("The provider is asked too early, and gives the same token again");
    tokens.force_refresh()?;
    timeline.wait_for(|kind| matches!(kind, EventKind::Unchanged { .. }))?;
    timeline.note("manager", "does not take that for a renewal: the token ends when it ended before");

    timeline.chapter("A service refuses the token");
    host.revoke(tokens.token()?.expose());
    timeline.note("host", "has revoked the token, which nobody here can know");
    send_message(&timeline, &tokens, &host)?;

    finish(&timeline, &tokens);
    Ok(())
}

/// A short story, against the vendor itself. The token is never shown.
fn for_real() -> Result {
    let tokens = TokenManager::from_config(&provider::from_env()?, |builder| builder)?;
    println!("  provider   the one that the variables EVERTOKEN_.. describe");
    let timeline = Timeline::of(&tokens);

    timeline.chapter("Nothing is held, and 64 threads ask at once");
    if let Err(error) = all_at_once(&timeline, &tokens) {
        finish(&timeline, &tokens);
        return Err(error);
    }

    timeline.chapter("The token is held, and 64 threads ask 10,000 times each");
    from_memory(&timeline, &tokens)?;

    finish(&timeline, &tokens);
    Ok(())
}

fn finish(timeline: &Timeline, tokens: &TokenManager) {
    timeline.chapter("How things stand: tokens.status()");
    println!("{}", indented(&tokens.status().to_string()));
    timeline.chapter("What has happened: tokens.metrics()");
    println!("{}", indented(&tokens.metrics().to_string()));
}

// ---- what callers do ------------------------------------------------------------------------------------------------

/// 64 threads need a token at the same moment.
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
    timeline.note("callers", &format!("{THREADS} threads {what}; the longest wait took {}", time(longest)));
    Ok(got[0].clone())
}

/// 64 threads use the token that is held.
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
    timeline
        .note("callers", &format!("{} calls in {}: {each} each on {cores} cores{build}", grouped(calls), time(took)));
    Ok(())
}

/// Lets 8 threads use tokens while `story` goes on, and tells how they fared.
fn with_callers(tokens: &TokenManager, host: &FakeVendor, story: impl FnOnce() -> Result) -> Result<Calls> {
    let calls = Calls::default();
    let before = tokens.metrics().waits;
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !calls.over.load(Ordering::Relaxed) {
                    calls.make_one(tokens, host);
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let told = story();
        calls.over.store(true, Ordering::Relaxed);
        told
    })?;
    calls.waited.store(tokens.metrics().waits - before, Ordering::Relaxed);
    Ok(calls)
}

/// How callers fared.
#[derive(Default)]
struct Calls {
    over: AtomicBool,
    made: AtomicU64,
    failed: AtomicU64,
    dead: AtomicU64,
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
            // The host is the judge: it knows which tokens it would take now.
            Ok(token) => self.dead.fetch_add(u64::from(!host.is_valid(token.expose())), Ordering::Relaxed),
            Err(_) => self.failed.fetch_add(1, Ordering::Relaxed),
        };
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let slowest = time(Duration::from_nanos(read(&self.slowest)));
        let (made, failed, dead) = (read(&self.made), read(&self.failed), read(&self.dead));
        let waited = read(&self.waited);
        write!(f, "{} calls: {failed} errors, {dead} dead tokens, {waited} waits; slowest {slowest}", grouped(made))
    }
}

/// Sends a message as a program does: `call` rejects a token that is refused, and tries once more with another one.
fn send_message(timeline: &Timeline, tokens: &TokenManager, host: &FakeVendor) -> Result {
    let asked = Instant::now();
    let sent: Result<(), CallError<ureq::Error>> = tokens.call(|token| {
        let reply = ureq::get(format!("{}?access_token={}", host.api_url(), token.expose())).call()?;
        let (head, mut body) = reply.into_parts();
        let verdict = tokens.verdict(head.status.as_u16(), &head.headers, &body.read_to_vec()?);
        timeline.catch_up();
        let refused = verdict == Verdict::Rejected;
        timeline.note("service", &format!("{} {}", if refused { "refuses" } else { "takes" }, short(token)));
        if refused { Err(CallError::Rejected) } else { Ok(()) }
    });
    sent?;
    timeline.note("callers", &format!("the message went out, {} after the first try", time(asked.elapsed())));
    Ok(())
}

fn on_all_threads<T: Send>(work: impl Fn() -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(&work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

fn is_renewal(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Granted { in_background: true, .. })
}

fn is_failure(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Failed { .. })
}

// ---- what is shown --------------------------------------------------------------------------------------------------

/// Prints what happens, with the time since the start.
struct Timeline {
    start: Instant,
    events: mpsc::Receiver<(Duration, Event)>,
}

impl Timeline {
    fn of(tokens: &TokenManager) -> Timeline {
        let start = Instant::now();
        let (sender, events) = mpsc::channel();
        let told = tokens.events();
        // Stamps events when they come, however late they are shown. Ends when the manager is dropped.
        thread::spawn(move || told.into_iter().try_for_each(|event| sender.send((start.elapsed(), event))));
        Timeline { start, events }
    }

    fn chapter(&self, title: &str) {
        self.catch_up();
        println!("\n{title}\n");
    }

    /// Something that is seen from outside of the manager.
    fn note(&self, who: &str, what: &str) {
        row(self.start.elapsed(), who, what);
    }

    fn tell_what_is_next(&self, tokens: &TokenManager) {
        let due = tokens.status().refresh_in.unwrap_or_default();
        self.note("manager", &format!("renews the token in {} ms", due.as_millis()));
    }

    /// Shows the events that have come.
    fn catch_up(&self) {
        // The thread that stamps them may be a moment behind the callers.
        while let Ok((at, event)) = self.events.recv_timeout(Duration::from_millis(2)) {
            row(at, "event", &event.kind.to_string());
        }
    }

    /// Shows events until there is one of this kind.
    fn wait_for(&self, wanted: impl Fn(&EventKind) -> bool) -> Result {
        loop {
            let (at, event) = self.events.recv_timeout(PATIENCE).map_err(|_| "what should happen did not happen")?;
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

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let comma = |place: usize| place > 0 && (digits.len() - place).is_multiple_of(3);
    let group = |(place, digit)| comma(place).then_some(',').into_iter().chain([digit]);
    digits.chars().enumerate().flat_map(group).collect()
}

const LIFETIME: Duration = Duration::from_secs(5);
const THREADS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);
