//! Always has a valid access token ready. Blocking, without an async runtime in the dependency tree.
//!
//! A [`TokenManager`] keeps the token of one credential. The manager fetches the token once for all callers, refreshes
//! it in the background before it expires, shares it with other processes through a store, and replaces it when a
//! service refuses it. Ask for the token each time one is needed: the call takes nanoseconds while a token is in memory.
//!
//! ```no_run
//! use evertoken::ureq::{Agent, http::Request};
//! use evertoken::{TokenManager, WeCom};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let tokens = TokenManager::new(WeCom::new("corp-id", "app-secret")); // one for all threads; clones are cheap
//!     let request = Request::post("https://qyapi.weixin.qq.com/cgi-bin/message/send").body(r#"{"touser": "zhang"}"#)?;
//!     let mut response = tokens.send(&Agent::new_with_defaults(), request)?; // repeated when the token is refused
//!     println!("{}", response.body_mut().read_to_string()?);
//!     Ok(())
//! }
//! ```
//!
//! [`TokenManager::token`] returns the token itself, for other HTTP clients.
//!
//! # Vendors
//!
//! | Vendor | Usual provider | Further kinds |
//! |---|---|---|
//! | WeCom | [`WeCom::new`] | [`provider::wecom`] |
//! | WeChat | [`WeChat::new`] | [`provider::wechat`] |
//! | Feishu, Lark | [`Feishu::new`], [`Feishu::lark`] | [`provider::feishu`] |
//! | DingTalk | [`DingTalk::new`] | [`provider::dingtalk`] |
//! | Microsoft Entra | [`Entra::new`] | [`provider::microsoft`] |
//! | Google | [`GoogleServiceAccount::from_file`] | |
//! | OAuth 2.0 | [`OAuth2::new`] | [`provider::oauth2`] |
//! | a person | [`DeviceSignIn`], [`RefreshToken`] | |
//! | any other | [`provider::from_fn`] | [`provider::Provider`] |
//!
//! # Guide
//!
//! - [Getting started](guide::getting_started): install, the first manager, all settings.
//! - [Choosing a store](guide::choosing_a_store): memory, files, Redis, encryption, fallback; costs and guarantees.
//! - [The life of a token](guide::life_of_a_token): fresh, refresh due, expiring, expired; cooldowns and rejections.
//! - [Using the token](guide::using_the_token): `send`, `call`, `middleware`, `reject`.
//! - [Signing a person in](guide::signing_in): codes on another device, refresh tokens that rotate.
//! - [Providers and configuration](guide::providers): all kinds of tokens, from code, a file or the environment.
//! - [Extending](guide::extending): a provider of your own as a closure or a type, and a store of your own.
//! - [Many tenants](guide::many_tenants): one manager for each customer.
//! - [Idempotency](guide::idempotency): operations that must not run twice.
//! - [What happens when ...](guide::what_happens_when): faults, what callers see, what the log says and what to do.
//! - [Looking inside](guide::looking_inside): status, metrics, events, logs.
//! - [Testing your program](guide::testing): a movable clock, scripted providers, fake vendors.
//! - [Performance](guide::performance): all measurements, with the commands.
//! - [Migrating](guide::migrating): from a `Mutex<Option<Token>>`, from wxkefu_rs, from other Redis caches.
//!
//! # Promises
//!
//! - While the current token is valid, no caller gets an error because a provider, a store or the network fails.
//! - No caller gets an expired token, even after a laptop was suspended or a clock was changed. A token whose age
//!   cannot be known counts as expired.
//! - One fetch is in flight at a time. Its result answers all waiting callers. An error also answers later
//!   callers until the cooldown ends.
//! - A [rejected](TokenManager::reject) token is out of use before the call returns.
//! - [`token`](TokenManager::token) takes [`max_wait`](TokenManagerBuilder::max_wait) at most,
//!   [`token_within`](TokenManager::token_within) the given duration, and [`try_token`](TokenManager::try_token) no time.
//! - Secrets and tokens appear in no `Debug` output, error, log line or key.
//!
//! # Features
//!
#![doc = include_str!("../features.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
pub mod clock;
// Until the driver uses it, only tests are built with it.
#[cfg(test)]
#[allow(dead_code)]
mod core;
mod error;
mod event;
// Documentation only. The code blocks are tests, some of which need a feature.
#[cfg(doc)]
#[cfg(any(
    not(doctest),
    all(feature = "redis-cluster", feature = "redis-sentinel", feature = "redis-tls", feature = "encryption")
))]
pub mod guide;
mod http;
pub mod idempotency;
mod in_flight;
mod key;
mod lease;
mod lock;
mod manager;
mod metrics;
mod name;
mod policy;
mod pool;
pub mod provider;
mod request;
mod scheduler;
mod secret;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod thread;
mod token;
mod token_cache;
mod version;

pub use builder::TokenManagerBuilder;
pub use error::{Error, ErrorKind};
pub use event::{Event, EventKind, TokenOrigin};
pub use http::HttpConfig;
pub use manager::{QuotaStatus, Status, TokenManager, TokenState};
pub use metrics::{Metrics, Timing};
pub use pool::TokenPool;
pub use provider::dingtalk::app::DingTalk;
pub use provider::feishu::app::Feishu;
pub use provider::microsoft::entra::Entra;
pub use provider::oauth2::client_credentials::OAuth2;
pub use provider::oauth2::device::{DevicePrompt, DeviceSignIn};
pub use provider::oauth2::google::GoogleServiceAccount;
pub use provider::oauth2::refresh_token::RefreshToken;
pub use provider::service_response::Verdict;
pub use provider::wechat::app::WeChat;
pub use provider::wecom::app::WeCom;
pub use request::{CallError, RequestBody, TokenMiddleware};
pub use secret::Secret;
#[cfg(feature = "encryption")]
pub use store::encrypted::{EncryptedStore, EncryptionKey};
pub use store::file::FileStore;
pub use store::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use store::redis::{RedisConfig, RedisStore};
pub use token::Token;

// Their types are in signatures of this crate, so programs can name the same versions.
pub use crossbeam_channel;
pub use serde_json;
pub use ureq;

/// Keeps the examples in `README.md` compiling.
#[cfg(all(doctest, feature = "redis"))]
#[doc = include_str!("../README.md")]
struct Readme;
