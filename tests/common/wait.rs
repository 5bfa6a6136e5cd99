//! Waiting for what a manager does, without sleeping.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{Event, EventKind, Token, TokenManager, TokenManagerBuilder};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The upper bound of every wait: never reached when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A manager of `provider` on a clock of its own, that renews without jitter.
pub(crate) fn on_clock(provider: &FakeProvider) -> (TokenManager, FakeClock) {
    let clock = FakeClock::new();
    (builder(provider, &clock).build().unwrap(), clock)
}

pub(crate) fn builder(provider: &FakeProvider, clock: &FakeClock) -> TokenManagerBuilder {
    TokenManager::builder(provider.clone()).clock(clock.clone()).jitter(0.0)
}

/// The text of the token that a call gets.
pub(crate) fn text(tokens: &TokenManager) -> String {
    tokens.token().unwrap().expose().to_owned()
}

pub(crate) fn texts(tokens: impl IntoIterator<Item = Token>) -> Vec<String> {
    tokens.into_iter().map(|token| token.expose().to_owned()).collect()
}

/// Waits until something is so that nothing announces.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let asked = Instant::now();
    while !is_so() {
        assert!(asked.elapsed() < PATIENCE, "{what}");
        thread::yield_now();
    }
}

/// What a store answers, asked again when it was too slow: a machine that has a lot to do may take longer than the half second
/// that an operation has.
pub(crate) fn patiently<T>(mut ask: impl FnMut() -> Result<T, evertoken::Error>) -> T {
    let asked = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) => assert!(asked.elapsed() < PATIENCE, "{error}"),
        }
    }
}

/// Shows something that holds unless the machine is too busy: once out of five times is enough.
pub(crate) fn shows<T>(what: &str, mut show: impl FnMut(usize) -> Option<T>) -> T {
    (0..5).find_map(&mut show).unwrap_or_else(|| panic!("{what}, and not one time out of five it did"))
}

/// Waits for the first event that `pick` takes, and returns what it makes of it.
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

/// Returns whether something becomes so within two seconds of real time, while the clock goes on in steps.
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
