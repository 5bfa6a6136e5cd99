//! A test kit: a clock that the test moves, a provider that the test scripts, and HTTP servers that play the vendors.
//!
//! Feature `testing`; add it to `[dev-dependencies]`. Without it the crate contains none of this:
//!
//! ```toml
//! [dev-dependencies]
//! evertoken = { version = "0.1", features = ["testing"] }
//! ```
//!
//! # Which fake for which test
//!
//! | Use | to test |
//! |---|---|
//! | [`FakeProvider`]: a script of tokens and errors, no network | code that calls a `TokenManager` |
//! | [`FakeVendor`]: an HTTP server on `127.0.0.1` | requests, error codes and tokens of a vendor, end to end |
//! | [`FakeClock`], for the manager and the fake vendor | expiry, background refresh, cooldowns, suspended machines |
//! | [`context`]: the argument of `Provider::fetch` | a provider of your own, without a manager |
//!
//! # A first test
//!
//! The test starts a fake WeCom server and gives its address to the real provider and a fake clock to both sides. The
//! credential `corp` and `secret` is the one that [`FakeVendor::wecom`] accepts from the start.
//!
//! ```
//! use std::time::Duration;
//!
//! use evertoken::{ErrorKind, TokenManager, WeCom};
//! use evertoken::testing::{FakeClock, FakeVendor, VendorFault};
//!
//! // 1. Set up: the vendor, the provider that calls it, and the manager under test.
//! let clock = FakeClock::new();
//! let vendor = FakeVendor::wecom().granting("first", 7200).clock(&clock);
//! let provider = WeCom::new("corp", "secret").base_url(vendor.url());
//! let manager = TokenManager::builder(provider).clock(clock.clone()).build()?;
//!
//! // 2. The first token comes from the vendor, the second one from memory.
//! assert_eq!(manager.token()?.expose(), "first");
//! assert_eq!(manager.token()?.expose(), "first");
//! assert_eq!(vendor.calls(), 1);
//!
//! // 3. Two hours later the token has expired, at the vendor and at the manager.
//! clock.advance(Duration::from_secs(7200));
//! assert!(!vendor.is_valid("first"));
//! assert_eq!(manager.token()?.expose(), "token-1");
//!
//! // 4. A vendor that fails. Code 40001 of WeCom means a wrong secret.
//! vendor.fail_with(VendorFault::Code(40001));
//! clock.advance(Duration::from_secs(7200));
//! assert_eq!(manager.token().unwrap_err().kind(), ErrorKind::InvalidCredentials);
//! # Ok::<(), evertoken::Error>(())
//! ```
//!
//! # Rules for tests
//!
//! Tests move the clock and wait for events; a test that sleeps is slow or unreliable. [`FakeVendor::wait_for_calls`] and
//! [`FakeProvider::wait_for_finished`] wait for what the vendor or provider has seen. The manager takes the result over a
//! moment later: wait for [`EventKind::Granted`](crate::EventKind::Granted) until callers get the new token. A misuse of the kit panics with the reason. The kit is not meant
//! for programs in production.

mod clock;
mod fake_vendor;
mod provider;

use std::time::Duration;

pub use clock::FakeClock;
pub use fake_vendor::{FakeVendor, ReceivedRequest, VendorFault};
pub use provider::FakeProvider;

use crate::http::HttpConfig;
use crate::provider::Context;

/// Returns a context for [`Provider::fetch`](crate::provider::Provider::fetch), to test a provider without a manager.
///
/// The context has an HTTP client with the default settings, and its deadline is `wait` from now.
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
