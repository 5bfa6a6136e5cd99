//! Using the token: `call`, `send` and a middleware, which notice that a service rejects the token.
//!
//! # Theory of operation
//!
//! 1. Get a token from the manager and put it where the provider's
//!    [`TokenPlacement`](crate::provider::TokenPlacement) says: into a header or the query.
//! 2. Send the request. The token goes to HTTPS addresses only, or by plain HTTP to loopback, and never along with a
//!    redirect.
//! 3. Decide what the response says about the token. The provider's [`verdict`](crate::provider::Provider::verdict)
//!    sees status, headers and, for vendors that report an invalid token inside HTTP 200, up to 64 KiB of the body. At
//!    most the first JSON object of a successful response of unknown length is read, because the rest may be a stream
//!    that goes on for hours. A response that came after a redirect says nothing, because the token was not sent there.
//! 4. *Rejected*: reject the token, so that the manager fetches a new one, and send the request a second time. There is
//!    no third time: a service that refuses two tokens in a row objects to something else.
//!
//! Only a rejection repeats a request. After a broken connection, a timeout or a 5xx status the service may have carried
//! the request out, so a second one could order twice.
//!
//! A body is sent again only if its bytes are in memory. The middleware never sends twice, because `ureq` gives it each
//! request once.

mod body;
mod call;
mod exchange;
mod inspection;
mod js_signature;
mod middleware;
mod placement;
mod send;

pub use body::RequestBody;
pub use call::CallError;
pub use middleware::TokenMiddleware;
