//! Records all log lines of this process.

use std::fmt::Write;
use std::sync::{Mutex, Once};

struct Recorder;

static LOGGED: Mutex<String> = Mutex::new(String::new());

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        writeln!(LOGGED.lock().unwrap(), "{} {}", record.target(), record.args()).unwrap();
    }

    fn flush(&self) {}
}

/// Starts the recording.
pub(crate) fn record_logs() {
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_logger(&Recorder).unwrap();
        // At TRACE `ureq` prints whole addresses; SECURITY.md warns of it.
        log::set_max_level(log::LevelFilter::Debug);
    });
}

/// All lines recorded so far.
pub(crate) fn logged() -> String {
    LOGGED.lock().unwrap().clone()
}
