//! Clocks that misbehave when a test says so.

use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use evertoken::clock::{Clock, Notifier, Timestamp};
use evertoken::testing::FakeClock;

/// A clock that panics, while it is `broken`, when the thread of this name reads it.
#[derive(Clone, Debug)]
pub(crate) struct PanickingClock {
    pub(crate) clock: FakeClock,
    pub(crate) broken: Arc<AtomicBool>,
    /// Counts the panics.
    pub(crate) panics: Arc<AtomicUsize>,
    thread: &'static str,
}

impl PanickingClock {
    pub(crate) fn for_thread(thread: &'static str) -> PanickingClock {
        PanickingClock { clock: FakeClock::new(), broken: Arc::default(), panics: Arc::default(), thread }
    }
}

impl Clock for PanickingClock {
    fn now(&self) -> Timestamp {
        if self.broken.load(Ordering::SeqCst) && thread::current().name() == Some(self.thread) {
            self.panics.fetch_add(1, Ordering::SeqCst);
            panic_any("the clock is broken");
        }
        self.clock.now()
    }

    fn on_jump(&self, notifier: Notifier) {
        self.clock.on_jump(notifier);
    }
}
