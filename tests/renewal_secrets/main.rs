//! Refresh tokens, tickets, parents and quotas.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod refresh_tokens;
mod state_attacked;
mod state_mended;
