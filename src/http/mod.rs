//! HTTP requests to token endpoints.
//!
//! Every request blocks, is bounded in time and in the size of its response, and goes to HTTPS or loopback addresses only.
//! Errors name the host; no error, log line or `Debug` output contains a parameter, a header value or a body. This module
//! and `request` are the only ones that use `ureq`.

mod client;
mod config;
mod echo;
mod errors;
mod json;
mod proxy;
mod response;
mod url;

pub use self::client::{Http, TokenRequest};
pub use self::config::HttpConfig;
pub use self::json::Json;
pub use self::response::TokenResponse;

pub(crate) use ureq::http::HeaderMap;

pub(crate) use self::echo::is_quotable;
pub(crate) use self::errors::error_of;
pub(crate) use self::json::{code, parse_object};
pub(crate) use self::response::retry_after;
pub(crate) use self::url::{check_link_local_url, check_uri, check_url, form_encoded, host_of, query_encoded};
