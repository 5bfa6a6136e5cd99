//! A store on a real Redis: sharing, watching, faults, topologies, processes. `test_servers` tests the servers themselves.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "redis")]
mod fallback;
#[cfg(feature = "redis")]
mod faults;
#[cfg(feature = "redis")]
mod other_programs;
#[cfg(feature = "redis")]
mod processes;
#[cfg(feature = "redis")]
mod records;
#[cfg(feature = "redis")]
mod renewal_secret_processes;
#[cfg(feature = "redis")]
mod renewal_secrets;
#[cfg(feature = "redis")]
mod replicas;
#[cfg(feature = "redis")]
mod server_states;
#[cfg(feature = "redis")]
mod setup;
#[cfg(feature = "redis")]
mod sharing;
mod test_servers;
#[cfg(all(feature = "redis-cluster", feature = "redis-sentinel", feature = "redis-tls"))]
mod topology;
#[cfg(feature = "redis")]
mod watch;
