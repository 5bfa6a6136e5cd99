//! A user interface that never waits for a token: `cargo run --example desktop_app`
//!
//! The thread that draws calls `try_token`, which never blocks, and learns from `events()` when there is a new token.
//! Work that needs a token runs on another thread, where `token()` may block.
//!
//! The fake vendor is slow on purpose: a fetch takes 800 ms, and there is an outage when the first refresh is due. Its
//! tokens are valid for 6 s, so this example does not store them. With `.store(FileStore::new()?)` on the builder, an
//! application that is started again has its token at once.

#![allow(clippy::print_stdout)]

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, select, tick, unbounded};
use evertoken::testing::{FakeVendor, VendorFault};
use evertoken::{Error, Event, EventKind, OAuth2, TokenManager};

fn main() -> Result<(), Error> {
    let slow = Duration::from_millis(800);
    let host = FakeVendor::oauth2().lifetime(Duration::from_secs(6)).delay(slow);
    let tokens = TokenManager::builder(OAuth2::new(host.token_url(), "client", "secret"))
        .backoff(Duration::from_millis(300), Duration::from_secs(2))
        .build()?;

    println!("A window with 60 frames per second. A fetch takes 800 ms.\n");
    let window = Window::open(&tokens);
    let (report, saved) = unbounded();
    thread::scope(|scope| {
        // The user has pressed "save". `token()` may block, so this work has a thread of its own.
        scope.spawn(|| {
            let asked = Instant::now();
            let outcome = tokens.token().map(|_| asked.elapsed());
            let _ = report.send(outcome);
        });
        scope.spawn(|| cause_an_outage(&tokens, &host));
        let frames = window.run(&saved);
        println!("\n{frames}");
    });
    Ok(())
}

/// Makes the provider fail when the first background refresh is due, and recover two requests later.
fn cause_an_outage(tokens: &TokenManager, host: &FakeVendor) {
    let patience = Duration::from_secs(8);
    let first = tokens.events().recv_timeout(patience);
    if first.is_ok_and(|event| matches!(event.kind, EventKind::Granted { .. })) {
        host.fail_with(VendorFault::Status(503));
        if host.wait_for_calls(3, patience) {
            host.recover();
        }
    }
}

struct Window {
    tokens: TokenManager,
    events: Receiver<Event>,
    opened: Instant,
    status: String,
    signed_in: bool,
}

impl Window {
    fn open(tokens: &TokenManager) -> Window {
        let events = tokens.events();
        // Starts the first fetch in the background. The first frame does not wait for the token.
        tokens.warm_up();
        Window { tokens: tokens.clone(), events, opened: Instant::now(), status: String::new(), signed_in: false }
    }

    /// Draws until the token has been refreshed in spite of the outage.
    fn run(mut self, saved: &Receiver<Result<Duration, Error>>) -> Frames {
        let mut frames = Frames::default();
        let (frame, close) = (tick(FRAME), after(Duration::from_secs(12)));
        let mut refreshed = false;
        while !refreshed {
            select! {
                recv(frame) -> due => {
                    let began = Instant::now();
                    self.draw();
                    frames.count(began.elapsed(), due.map_or(Duration::ZERO, |due| began.saturating_duration_since(due)));
                }
                recv(self.events) -> event => {
                    let Ok(event) = event else { break };
                    refreshed = matches!(event.kind, EventKind::Granted { in_background: true, .. });
                    self.show(&event.kind.to_string());
                }
                recv(saved) -> outcome => match outcome {
                    Ok(Ok(waited)) => self.show(&format!("saved; that thread waited {} ms", waited.as_millis())),
                    Ok(Err(error)) => self.show(&format!("not saved: {error}")),
                    Err(_) => {}
                },
                recv(close) -> _ => break,
            }
        }
        self.draw();
        frames
    }

    /// Draws one frame, with the current token or without one.
    fn draw(&mut self) {
        let token = self.tokens.try_token();
        if token.is_some() != self.signed_in || self.status.is_empty() {
            self.signed_in = token.is_some();
            let label = if self.signed_in { "signed in" } else { "signing in ..." };
            self.show(&format!("[ {label} ]"));
        }
    }

    fn show(&mut self, text: &str) {
        text.clone_into(&mut self.status);
        println!("{:>7} ms  {text}", self.opened.elapsed().as_millis());
    }
}

/// Counts frames, and how many of them took too long.
#[derive(Default)]
struct Frames {
    drawn: u32,
    slowest: Duration,
    latest: Duration,
    too_slow: u32,
}

impl Frames {
    fn count(&mut self, took: Duration, late: Duration) {
        self.drawn += 1;
        self.slowest = self.slowest.max(took);
        self.latest = self.latest.max(late);
        self.too_slow += u32::from(took >= FRAME);
    }
}

impl std::fmt::Display for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Frames { drawn, slowest, latest, too_slow } = self;
        writeln!(f, "{drawn} frames; {too_slow} of them took longer than 1/60 s.")?;
        write!(f, "The slowest frame took {slowest:.1?}; the latest one started {latest:.1?} late.")
    }
}

const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 60);
