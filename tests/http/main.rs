//! HTTP: requests to token endpoints, and requests with the token to a service.
#![allow(clippy::unwrap_used)]

mod client;
#[path = "../common/mod.rs"]
mod common;
mod long_tokens;
mod send;
mod service_responses;
