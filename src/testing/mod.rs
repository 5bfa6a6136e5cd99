//! For tests of programs that use this crate: a clock that a test moves, a provider that it scripts, and a vendor on a
//! loopback port. Behind the feature `testing`, which belongs into `[dev-dependencies]`.
//!
//! - [`FakeClock`] moves when the test says so. Two hours pass in no time, a laptop sleeps, a wall clock is set back.
//! - [`FakeProvider`] grants what the test scripts, when the test lets it. No network is involved.
//! - [`FakeVendor`] is an HTTP server that answers as the vendor does, judges tokens as the vendor does, and breaks
//!   in all the ways that networks break. There is one for each vendor: [`wecom`](FakeVendor::wecom),
//!   [`wechat`](FakeVendor::wechat), [`feishu`](FakeVendor::feishu), [`dingtalk`](FakeVendor::dingtalk),
//!   [`entra`](FakeVendor::entra), [`managed_identity`](FakeVendor::managed_identity) and
//!   [`oauth2`](FakeVendor::oauth2).
//! - [`context`] is what a provider of your own is called with, to test it alone.
//!
//! ```
//! use std::time::Duration;
//!
//! use evertoken::{TokenManager, WeCom};
//! use evertoken::testing::{FakeClock, FakeVendor};
//!
//! let clock = FakeClock::new();
//! let host = FakeVendor::wecom().clock(&clock);
//! let provider = WeCom::new("corp", "secret").base_url(host.url());
//! let tokens = TokenManager::builder(provider).clock(clock.clone()).build()?;
//!
//! let first = tokens.token()?;
//! assert!(host.is_valid(first.expose()));
//!
//! clock.advance(Duration::from_secs(7200));
//! assert!(!host.is_valid(first.expose()));
//! assert_ne!(tokens.token()?.expose(), first.expose());
//! assert_eq!(host.calls(), 2);
//! # Ok::<(), evertoken::Error>(())
//! ```
//!
//! Tests wait for events, with `wait_for_calls` and the like, and never sleep. All of it is made for tests: a misuse
//! panics, and nothing here is meant for a program that runs.

mod clock;
mod fake_vendor;
mod provider;

use std::time::Duration;

pub use clock::FakeClock;
pub use fake_vendor::{FakeVendor, ReceivedRequest, VendorFault};
pub use provider::FakeProvider;

use crate::http::HttpConfig;
use crate::provider::Context;

/// What a provider is called with: an HTTP client, and `wait` from now as the deadline. With it a provider of your own
/// is tested without a manager.
///
/// ```
/// use std::time::Duration;
///
/// use evertoken::provider::Provider;
/// use evertoken::testing::{FakeProvider, context};
///
/// let provider = FakeProvider::new();
/// assert!(provider.fetch(&context(Duration::from_secs(5))).is_ok());
/// ```
pub fn context(wait: Duration) -> Context {
    Context::new(HttpConfig::default(), wait)
}
