//! Managers that share a store, with or without a fallback store.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod fallback;
mod fallback_copies;
mod fallback_rejections;
mod group;
mod managers;
mod outages;
mod read_at_once;
mod records;
mod rejections;
mod wall_clock;
