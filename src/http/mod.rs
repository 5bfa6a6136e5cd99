//! HTTP to a provider: blocking, bounded in time and size, and silent about what it carries.

mod client;
mod config;
mod errors;
mod json;
mod response;
mod url;

pub use self::client::{Http, TokenRequest};
pub use self::config::HttpConfig;
pub use self::json::Json;
pub use self::response::TokenResponse;

pub(crate) use ureq::http::HeaderMap;

pub(crate) use self::errors::error_of;
pub(crate) use self::json::code;
pub(crate) use self::response::retry_after;
pub(crate) use self::url::{check_link_local_url, check_uri, check_url, form_encoded, query_encoded};
