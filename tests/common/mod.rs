//! Hosts, servers, stores, processes and waiting that the tests share.
//!
//! Each test program includes all of it and uses a part.
#![allow(dead_code, clippy::unwrap_used)]

#[cfg(target_os = "linux")]
pub(crate) mod actor;
pub(crate) mod alone;
pub(crate) mod clocks;
#[cfg(target_os = "linux")]
pub(crate) mod cluster;
pub(crate) mod http_host;
pub(crate) mod logs;
#[cfg(target_os = "linux")]
pub(crate) mod process;
#[cfg(target_os = "linux")]
pub(crate) mod proxy;
#[cfg(target_os = "linux")]
pub(crate) mod redis_server;
pub(crate) mod renewal;
#[cfg(target_os = "linux")]
pub(crate) mod sentinel;
pub(crate) mod stores;
pub(crate) mod suite;
pub(crate) mod two_stores;
pub(crate) mod wait;
