//! Helpers that wait for a manager without fixed sleeps.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Event, EventKind, Token, TokenManager, TokenManagerBuilder};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The upper bound of every wait, which a healthy machine never reaches.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A manager of `provider` with a clock of its own and without jitter.
pub(crate) fn on_clock(provider: &FakeProvider) -> (TokenManager, FakeClock) {
    let clock = FakeClock::new();
    (builder(provider, &clock).build().unwrap(), clock)
}

pub(crate) fn builder(provider: &FakeProvider, clock: &FakeClock) -> TokenManagerBuilder {
    TokenManager::builder(provider.clone()).clock(clock.clone()).jitter(0.0)
}

/// The text of the token that a call returns.
pub(crate) fn text(tokens: &TokenManager) -> String {
    tokens.token().unwrap().expose().to_owned()
}

pub(crate) fn texts(tokens: impl IntoIterator<Item = Token>) -> Vec<String> {
    tokens.into_iter().map(|token| token.expose().to_owned()).collect()
}

/// Polls until `is_so` returns true.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let asked = Instant::now();
    while !is_so() {
        assert!(asked.elapsed() < PATIENCE, "{what}");
        thread::yield_now();
    }
}

/// Repeats a store operation that failed. On a busy machine an operation can exceed its time limit of half a second.
pub(crate) fn patiently<T>(mut ask: impl FnMut() -> Result<T, evertoken::Error>) -> T {
    let asked = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) => assert!(asked.elapsed() < PATIENCE, "{error}"),
        }
    }
}

/// Runs a case that fails only on a busy machine: one success in five attempts is enough.
pub(crate) fn shows<T>(what: &str, mut show: impl FnMut(usize) -> Option<T>) -> T {
    (0..5).find_map(&mut show).unwrap_or_else(|| panic!("{what}, and not one time out of five it did"))
}

/// Waits for the first event that `pick` accepts, and returns its result.
pub(crate) fn wait_for<T>(events: &Receiver<Event>, mut pick: impl FnMut(&EventKind) -> Option<T>) -> T {
    loop {
        let event = events.recv_timeout(PATIENCE).expect("the event comes in time");
        if let Some(picked) = pick(&event.kind) {
            return picked;
        }
    }
}

pub(crate) fn wait_for_grant(events: &Receiver<Event>) {
    wait_for(events, |kind| matches!(kind, EventKind::Granted { .. }).then_some(()));
}

pub(crate) fn wait_for_failure(events: &Receiver<Event>) -> Duration {
    wait_for(events, |kind| match kind {
        EventKind::Failed { retry_in, .. } => Some(*retry_in),
        _ => None,
    })
}

pub(crate) fn wait_for_same(events: &Receiver<Event>) -> Duration {
    wait_for(events, |kind| match kind {
        EventKind::Unchanged { retry_in, .. } => Some(*retry_in),
        _ => None,
    })
}

/// Returns whether `is_so` becomes true within two seconds of real time, while the fake clock advances in steps.
pub(crate) fn becomes_so(clock: &FakeClock, step: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..40 {
        if is_so() {
            return true;
        }
        clock.advance(step);
        thread::sleep(Duration::from_millis(50));
    }
    is_so()
}
