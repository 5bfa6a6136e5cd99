//! One manager: what its callers get, when it refreshes, what it shows.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod promises;
mod refresh;
mod secrets;
mod status;
#[cfg(target_os = "linux")]
mod threads;
