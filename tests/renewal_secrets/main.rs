//! Refresh tokens, tickets, parents and quotas.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod exclusive_use;
mod parents;
mod quota;
mod refresh_tokens;
mod sign_in;
mod storing;
mod tickets;
