//! Always has a valid access token ready. Blocking, with no async runtime anywhere in the tree.

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod clock;
mod error;
mod event;
mod flight;
mod http;
mod key;
mod lease;
mod lock;
mod manager;
mod metrics;
mod policy;
mod pool;
pub mod provider;
mod refresher;
mod secret;
mod send;
mod snapshot;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod thread;
mod token;

pub use builder::TokenManagerBuilder;
pub use clock::{Clock, Moment, Wake};
pub use error::{Error, ErrorKind};
pub use event::{Event, EventKind, Source};
pub use http::{HeaderMap, HttpConfig};
pub use key::{Identity, Key};
pub use manager::{State, Status, TokenManager};
pub use metrics::{Metrics, Timing};
pub use pool::TokenPool;
pub use provider::{Answer, Carry, ClientAuth, Context, Grant, OAuth2, Profile, Provider, Verdict, WeCom};
pub use secret::Secret;
pub use send::{CallError, Payload, TokenMiddleware};
pub use store::{MemoryStore, Store};
pub use token::Token;
