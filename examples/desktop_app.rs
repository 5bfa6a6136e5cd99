//! A user interface that never waits for a token: `cargo run --example desktop_app`
//!
//! The thread that draws asks with `try_token`, which never blocks, and hears from `events()` what is going on. Work
//! that needs a token for certain has a thread of its own, where `token()` may block. The network is slow on purpose:
//! the stand-in for a provider takes 800 ms, fails, and takes its time to come back. Its tokens live for seconds, so none
//! is kept; with `.store(FileStore::new()?)` on the builder an application that is started again has its token at once.

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

    println!("A window at 60 frames a second; the provider takes 800 ms.\n");
    let window = Window::open(&tokens);
    let (report, saved) = unbounded();
    thread::scope(|scope| {
        // A button was pressed: this may block, so it is not the window's thread.
        scope.spawn(|| {
            let asked = Instant::now();
            let outcome = tokens.token().map(|_| asked.elapsed());
            let _ = report.send(outcome);
        });
        scope.spawn(|| break_down_for_a_while(&tokens, &host));
        let frames = window.run(&saved);
        println!("\n{frames}");
    });
    Ok(())
}

/// The provider fails when the first renewal is due.
fn break_down_for_a_while(tokens: &TokenManager, host: &FakeVendor) {
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
        // The first frame need not wait for it, and the first click finds it there.
        tokens.warm_up();
        Window { tokens: tokens.clone(), events, opened: Instant::now(), status: String::new(), signed_in: false }
    }

    /// Draws until the token has been renewed in spite of an outage.
    fn run(mut self, saved: &Receiver<Result<Duration, Error>>) -> Frames {
        let mut frames = Frames::default();
        let (frame, close) = (tick(FRAME), after(Duration::from_secs(12)));
        let mut renewed = false;
        while !renewed {
            select! {
                recv(frame) -> due => {
                    let began = Instant::now();
                    self.draw();
                    frames.count(began.elapsed(), due.map_or(Duration::ZERO, |due| began.saturating_duration_since(due)));
                }
                recv(self.events) -> event => {
                    let Ok(event) = event else { break };
                    renewed = matches!(event.kind, EventKind::Granted { in_background: true, .. });
                    self.show(&event.kind.to_string());
                }
                recv(saved) -> outcome => match outcome {
                    Ok(Ok(waited)) => self.show(&format!("saved; its thread waited {} ms", waited.as_millis())),
                    Ok(Err(error)) => self.show(&format!("not saved: {error}")),
                    Err(_) => {}
                },
                recv(close) -> _ => break,
            }
        }
        self.draw();
        frames
    }

    /// One frame: whatever is held, at once.
    fn draw(&mut self) {
        let token = self.tokens.try_token();
        if token.is_some() != self.signed_in || self.status.is_empty() {
            self.signed_in = token.is_some();
            let light = if self.signed_in { "signed in" } else { "signing in ..." };
            self.show(&format!("[ {light} ]"));
        }
    }

    fn show(&mut self, text: &str) {
        text.clone_into(&mut self.status);
        println!("{:>7} ms  {text}", self.opened.elapsed().as_millis());
    }
}

/// How smooth it was.
#[derive(Default)]
struct Frames {
    drawn: u32,
    slowest: Duration,
    latest: Duration,
    over: u32,
}

impl Frames {
    fn count(&mut self, took: Duration, late: Duration) {
        self.drawn += 1;
        self.slowest = self.slowest.max(took);
        self.latest = self.latest.max(late);
        self.over += u32::from(took >= FRAME);
    }
}

impl std::fmt::Display for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Frames { drawn, slowest, latest, over } = self;
        writeln!(f, "{drawn} frames, {over} of them took longer than a frame may.")?;
        write!(f, "The slowest took {slowest:.1?} to draw, the latest began {latest:.1?} late.")
    }
}

const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 60);
