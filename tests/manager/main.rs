//! One manager: what its callers get, when it refreshes, what it shows.
#![allow(clippy::unwrap_used)]

mod calls;
mod closures;
#[path = "../common/mod.rs"]
mod common;
mod failures;
mod pool;
mod promises;
mod refresh;
mod secrets;
mod settings;
mod status;
#[cfg(target_os = "linux")]
mod threads;
mod unchanged_token;

use evertoken::{Error, ErrorKind};

fn outage() -> Error {
    Error::new(ErrorKind::Unavailable, "an outage")
}
