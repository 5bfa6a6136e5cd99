//! For tests of programs that use this crate: a clock that a test moves, a provider that it scripts, and a vendor on a
//! loopback port. Behind the feature `testing`, which belongs into `[dev-dependencies]`.
//!
//! - [`FakeClock`] moves when the test says so. Two hours pass in no time, a laptop sleeps, a wall clock is set back.
//! - [`FakeProvider`] grants what the test scripts, when the test lets it. No network is involved.
//! - [`ProviderHost`] is an HTTP server that answers as the vendor does, judges tokens as the vendor does, and breaks
//!   in all the ways that networks break. There is one for each vendor: [`wecom`](ProviderHost::wecom),
//!   [`wechat`](ProviderHost::wechat), [`feishu`](ProviderHost::feishu), [`dingtalk`](ProviderHost::dingtalk),
//!   [`entra`](ProviderHost::entra), [`managed_identity`](ProviderHost::managed_identity) and
//!   [`oauth2`](ProviderHost::oauth2).
//! - [`context`] is what a provider of your own is called with, to test it alone.
//!
//! ```
//! use std::time::Duration;
//!
//! use evertoken::testing::{FakeClock, ProviderHost};
//! use evertoken::{TokenManager, WeCom};
//!
//! let clock = FakeClock::new();
//! let host = ProviderHost::wecom().clock(&clock);
//! let provider = WeCom::new("corp", "secret").base_url(host.url());
//! let tokens = TokenManager::builder(provider).clock(clock.clone()).build()?;
//!
//! let first = tokens.token()?;
//! assert!(host.is_alive(first.expose()));
//!
//! clock.advance(Duration::from_secs(7200));
//! assert!(!host.is_alive(first.expose()));
//! assert_ne!(tokens.token()?.expose(), first.expose());
//! assert_eq!(host.calls(), 2);
//! # Ok::<(), evertoken::Error>(())
//! ```
//!
//! Tests wait for events, with `wait_for_calls` and the like, and never sleep. All of it is made for tests: a misuse
//! panics, and nothing here is meant for a program that runs.

mod clock;
mod host;
mod provider;

use std::time::Duration;

pub use clock::FakeClock;
pub use host::{Outage, ProviderHost, ReceivedRequest};
pub use provider::FakeProvider;

use crate::http::HttpConfig;
use crate::provider::Context;

/// What a provider is called with: an HTTP client, and `wait` from now as the deadline. With it a provider of your own
/// is tested without a manager.
///
/// ```
/// use std::time::Duration;
///
/// use evertoken::Provider;
/// use evertoken::testing::{FakeProvider, context};
///
/// let provider = FakeProvider::new();
/// assert!(provider.fetch(&context(Duration::from_secs(5))).is_ok());
/// ```
pub fn context(wait: Duration) -> Context {
    Context::new(HttpConfig::default(), wait)
}
