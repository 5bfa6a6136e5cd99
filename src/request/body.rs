//! The body of a request: nothing, bytes, text or a stream.

use std::fmt;
use std::io::{self, Read};

use ureq::http::{Method, Request, Response, request};
use ureq::{Agent, Body, SendBody};

use super::exchange::run;
use crate::error::Error;
use crate::provider::TokenPlacement;

/// The body of a request for [`TokenManager::send`](crate::TokenManager::send): nothing, bytes, text or a [stream](RequestBody::reader).
///
/// `()`, bytes and strings convert into a body. Every body except a stream can be sent twice.
pub struct RequestBody(Content);

enum Content {
    Empty,
    Bytes(Vec<u8>),
    Stream(Box<dyn Read + Send>),
}

impl RequestBody {
    /// Creates a body that is read from `reader` while the request is sent.
    ///
    /// The body is sent in chunks, unless the request has a `Content-Length`. `reader` can be read once only, so the
    /// request is not repeated when the service rejects the token.
    pub fn reader(reader: impl Read + Send + 'static) -> RequestBody {
        RequestBody(Content::Stream(Box::new(reader)))
    }

    pub(super) fn is_repeatable(&self) -> bool {
        !matches!(self.0, Content::Stream(_))
    }

    pub(super) fn run(
        &mut self,
        agent: &Agent,
        head: request::Parts,
        placement: &TokenPlacement,
    ) -> Result<Response<Body>, Error> {
        let wants_body = [Method::POST, Method::PUT, Method::PATCH].contains(&head.method);
        match &mut self.0 {
            Content::Empty if !wants_body => run(agent, Request::from_parts(head, ()), placement),
            // An empty slice sends `Content-Length: 0`, without which many servers refuse a POST.
            Content::Empty => run(agent, Request::from_parts(head, [].as_slice()), placement),
            Content::Bytes(bytes) => run(agent, Request::from_parts(head, bytes.as_slice()), placement),
            Content::Stream(reader) => {
                let mut stream = TrackedReader { reader, failed: false };
                let outcome = run(agent, Request::from_parts(head, SendBody::from_reader(&mut stream)), placement);
                if stream.failed {
                    Err(Error::config(
                        "reading the request's body failed; check the reader given to RequestBody::reader",
                    ))
                } else {
                    outcome
                }
            }
        }
    }
}

impl From<()> for RequestBody {
    fn from((): ()) -> RequestBody {
        RequestBody(Content::Empty)
    }
}

impl From<Vec<u8>> for RequestBody {
    fn from(bytes: Vec<u8>) -> RequestBody {
        RequestBody(Content::Bytes(bytes))
    }
}

impl From<&[u8]> for RequestBody {
    fn from(bytes: &[u8]) -> RequestBody {
        bytes.to_vec().into()
    }
}

impl<const N: usize> From<&[u8; N]> for RequestBody {
    fn from(bytes: &[u8; N]) -> RequestBody {
        bytes.to_vec().into()
    }
}

impl From<String> for RequestBody {
    fn from(text: String) -> RequestBody {
        text.into_bytes().into()
    }
}

impl From<&str> for RequestBody {
    fn from(text: &str) -> RequestBody {
        text.as_bytes().into()
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Content::Empty => f.write_str("RequestBody(nothing)"),
            Content::Bytes(bytes) => write!(f, "RequestBody({} bytes)", bytes.len()),
            Content::Stream(_) => f.write_str("RequestBody(stream)"),
        }
    }
}

/// A reader that remembers its failure, because `ureq` reports a failed reader as a failed connection.
struct TrackedReader<'a> {
    reader: &'a mut dyn Read,
    failed: bool,
}

impl Read for TrackedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).inspect_err(|_| self.failed = true)
    }
}
