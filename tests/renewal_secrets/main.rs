//! Refresh tokens and tickets, the tokens of parents, quotas and sign-in.
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
