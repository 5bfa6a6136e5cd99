//! Stores: the contract of all backends, memory, files and encryption. `tests/redis` tests Redis.
#![allow(clippy::unwrap_used)]

#[cfg(target_os = "linux")]
mod check;
#[path = "../common/mod.rs"]
mod common;
mod contract;
#[cfg(feature = "encryption")]
mod encrypted;
#[cfg(target_os = "linux")]
mod file_faults;
#[cfg(target_os = "linux")]
mod file_leases;
#[cfg(target_os = "linux")]
mod file_permissions;
#[cfg(target_os = "linux")]
mod file_processes;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod place;
