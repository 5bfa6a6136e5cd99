//! Managers that share a store, with or without a fallback store.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod fallback;
mod fallback_attacked;
mod managers;
mod one_machine_attacked;
