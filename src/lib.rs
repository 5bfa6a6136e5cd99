//! Always has a valid access token ready. Blocking, with no async runtime anywhere in the tree.
//!
//! A [`TokenManager`] keeps the token of one credential. Ask it each time a token is needed: while one is held that
//! takes nanoseconds, and otherwise it is fetched once for everybody who asks. It is renewed in the background ahead of
//! its end, so callers do not wait for that either.
//!
//! ```
//! use evertoken::{Error, TokenManager, WeCom};
//!
//! fn address(tokens: &TokenManager) -> Result<String, Error> {
//!     let token = tokens.token()?;
//!     Ok(format!("https://qyapi.weixin.qq.com/cgi-bin/message/send?access_token={}", token.expose()))
//! }
//!
//! let tokens = TokenManager::new(WeCom::new("corp-id", "app-secret"));
//! ```
//!
//! # Who grants the token
//!
//! A [`Provider`](provider::Provider). There is one for each kind of token of WeCom ([`WeCom`] and its like), WeChat ([`WeChat`]), Feishu and
//! Lark ([`Feishu`]), DingTalk ([`DingTalk`]), Microsoft ([`Entra`], [`BotFramework`](provider::microsoft::BotFramework), [`ManagedIdentity`](provider::microsoft::ManagedIdentity)), Google
//! ([`GoogleServiceAccount`]) and any OAuth 2.0 server ([`OAuth2`], [`RefreshToken`], [`JwtBearer`](provider::oauth2::JwtBearer)); a closure is one
//! with [`provider::from_fn`], and so is a type of yours.
//!
//! Some need more than settings. A ticket that the vendor pushes is handed in with [`TokenManager::set_ticket`]; a token
//! that is granted for another token is built on the manager of that one, which is a [`TokenSource`](provider::TokenSource); a person's first
//! refresh token comes from [`DeviceSignIn`].
//!
//! ```
//! use std::time::Duration;
//! use evertoken::{TokenManager, provider};
//! use evertoken::provider::Grant;
//!
//! let warehouse = provider::from_fn("warehouse", |_context| {
//!     // Ask for a token here, for example with `_context.http()`.
//!     Ok(Grant::new("session-1", Duration::from_secs(900)))
//! });
//! let tokens = TokenManager::builder(warehouse).max_wait(Duration::from_secs(5)).build()?;
//! assert_eq!(tokens.token()?.bearer(), "Bearer session-1");
//! # Ok::<(), evertoken::Error>(())
//! ```
//!
//! Which one it is can be left to the user: [`ProviderConfig`](provider::ProviderConfig) is read from a file by `serde`, or from the environment by
//! [`provider::from_env`], and [`TokenManager::from_config`] makes a manager of it.
//!
//! # What callers can rely on
//!
//! - While the held token is good no caller gets an error, whatever the provider, a store or the network does.
//! - No caller gets a dead token, not after a suspended laptop or a changed clock either: "cannot tell" means dead.
//! - One fetch is in the air at a time. Its token or its error answers everybody; an error until its retry time.
//! - A token that was [rejected](TokenManager::reject) is out of use before the call returns.
//! - [`token`](TokenManager::token) takes [`max_wait`](TokenManagerBuilder::max_wait) at most,
//!   [`token_within`](TokenManager::token_within) what it is given, [`try_token`](TokenManager::try_token) no time.
//! - Secrets and tokens are in no `Debug` output, error, log line or key.
//!
//! # Sharing it
//!
//! Managers on one [`Store`](store::Store) share the token, the fetch, its failure and every rejection: on a [`FileStore`] between the
//! processes of one machine, so that a program that is started again has its token at once; with the feature `redis` on a
//! `RedisStore` between all hosts; on a [`MemoryStore`] in one process. While the store is out of order each process fetches
//! for itself, or a [second one](TokenManagerBuilder::fallback_store) stands in. A [`TokenPool`] keeps the managers of many
//! tenants.
//!
//! # Doing a thing once
//!
//! [`Idempotency`](idempotency::Idempotency) keeps on the same stores what has been done and what came of it, so that a message is sent once however
//! often its sender is started.
//!
//! # When there is no token
//!
//! The kind of an [`Error`] says what helps.
//!
//! ```
//! use evertoken::{ErrorKind, TokenManager, WeCom};
//!
//! // A setting that is wrong is found by `build`; `new` keeps it and returns it from every call.
//! let error = TokenManager::builder(WeCom::new("corp-id", "")).build().unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Config);
//! assert_eq!(error.to_string(), "wecom: the app secret is empty");
//!
//! let error = TokenManager::new(WeCom::new("corp-id", "")).token().unwrap_err();
//! assert!(!error.is_retryable());
//! ```
//!
//! # To see what is going on
//!
//! [`TokenManager::status`] tells how things stand, [`TokenManager::metrics`] what has happened, in numbers, and
//! [`TokenManager::events`] what happens from now on. All of them print themselves. The log target is `evertoken`.
//!
//! # Features
//!
#![doc = include_str!("../features.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
pub mod clock;
mod error;
mod event;
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
mod scheduler;
mod secret;
mod send;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod thread;
mod token;
mod token_cache;

pub use builder::TokenManagerBuilder;
pub use error::{Error, ErrorKind};
pub use event::{Event, EventKind, TokenOrigin};
pub use http::HttpConfig;
pub use manager::{QuotaStatus, Status, TokenManager, TokenState};
pub use metrics::{Metrics, Timing};
pub use pool::TokenPool;
pub use provider::answer::Verdict;
pub use provider::dingtalk::app::DingTalk;
pub use provider::feishu::app::Feishu;
pub use provider::microsoft::entra::Entra;
pub use provider::oauth2::client_credentials::OAuth2;
pub use provider::oauth2::device::{DevicePrompt, DeviceSignIn};
pub use provider::oauth2::google::GoogleServiceAccount;
pub use provider::oauth2::refresh_token::RefreshToken;
pub use provider::wechat::app::WeChat;
pub use provider::wecom::app::WeCom;
pub use secret::Secret;
pub use send::{CallError, RequestBody, TokenMiddleware};
#[cfg(feature = "encryption")]
pub use store::encrypted::{EncryptedStore, EncryptionKey};
pub use store::file::FileStore;
pub use store::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use store::redis::{RedisConfig, RedisStore};
pub use token::Token;

// Their types are in signatures of this crate, so programs can name the same versions.
pub use crossbeam_channel;
pub use ureq;

/// Keeps the examples in `README.md` compiling, some of which need a feature.
#[cfg(all(
    doctest,
    feature = "redis-cluster",
    feature = "redis-sentinel",
    feature = "redis-tls",
    feature = "encryption"
))]
#[doc = include_str!("../README.md")]
struct Readme;
