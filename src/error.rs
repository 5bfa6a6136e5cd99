//! What can go wrong, sorted by what the person can do about it.

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Why there is no token.
///
/// Its text is this crate's own: no address, no reply and no credential is ever quoted. What the provider said is in
/// [`code`](Error::code) and [`status`](Error::status). Cheap to clone, because one failure answers many callers.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    code: Option<String>,
    status: Option<u16>,
    request_id: Option<String>,
    retry_after: Option<Duration>,
    /// True when the wait is a guess, and to be doubled while it does not help.
    growing: bool,
}

/// What kind of trouble it is, which is to say: what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong, or what was handed in. The text says which; mend it and build the manager anew.
    Config,
    /// The provider refuses this credential: unknown, wrong, expired or switched off. Calling again cannot help.
    InvalidCredentials,
    /// The credential is right but not allowed here: an address that is not on the provider's list, a policy.
    Forbidden,
    /// Too many calls. Wait for [`Error::retry_after`].
    Throttled,
    /// A pushed ticket that the provider needs is missing or too old. Hand in the next one.
    TicketRequired,
    /// The provider cannot be reached, or says that it is busy or broken. It passes.
    Unavailable,
    /// The answer made no sense: not JSON, no token in it, a lifetime that is over. Often a proxy in between. Of a thing that is
    /// [done once](crate::idempotency::Idempotency): its result is of another type.
    InvalidResponse,
    /// The service refuses new tokens too: two in a row for one request, or three within seconds of their grant. Then
    /// fetching pauses; look at rights and clocks rather than fetch more.
    TokenRejected,
    /// The shared store cannot be used.
    Store,
    /// The [claim](crate::idempotency::Claim) has run out, and what is to be done once may be another's now; or it was completed or
    /// abandoned before.
    ClaimLost,
    /// The time that the call was given is over. The fetch goes on and may serve the next call.
    TimedOut,
    /// A provider panicked. Nothing is stuck; the panic's own report went to the panic hook.
    Panicked,
    /// The manager was shut down, and no token is held any more.
    Shutdown,
}

impl Error {
    /// Makes an error, for providers and stores of your own.
    ///
    /// Say in lower case and without a full stop what the person can do, and keep addresses, replies and credentials
    /// out of it: this text is logged and shown.
    ///
    /// ```
    /// use evertoken::{Error, ErrorKind};
    ///
    /// let error = Error::new(ErrorKind::InvalidCredentials, "the key is unknown; create one in the console").with_code("E17");
    /// assert_eq!(error.to_string(), "the key is unknown; create one in the console (code E17)");
    /// ```
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
        let message = message.into();
        Error(Arc::new(Inner {
            kind,
            message,
            code: None,
            status: None,
            request_id: None,
            retry_after: None,
            growing: false,
        }))
    }

    pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Config, message)
    }

    pub(crate) fn invalid_response(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::InvalidResponse, message)
    }

    /// Adds the provider's own code. Anything but a plain short word is dropped: a code is not a place for a text.
    #[must_use]
    pub fn with_code(self, code: impl Into<String>) -> Error {
        let code = Some(code.into()).filter(|code| is_plain_word(code));
        self.change(|inner| inner.code = code)
    }

    /// Adds the provider's name for the request, which its support asks for. As with a code, only a plain short word is
    /// kept.
    #[must_use]
    pub fn with_request_id(self, id: impl Into<String>) -> Error {
        let id = Some(id.into()).filter(|id| is_plain_word(id));
        self.change(|inner| inner.request_id = id)
    }

    /// Adds the HTTP status.
    #[must_use]
    pub fn with_status(self, status: u16) -> Error {
        self.change(|inner| inner.status = Some(status))
    }

    /// Adds how long to wait before another try. The manager waits at least this long, up to an hour.
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Error {
        self.change(|inner| (inner.retry_after, inner.growing) = (Some(wait), false))
    }

    /// Adds how long to wait at first, where the provider says that there were too many calls and not how long to wait.
    pub(crate) fn with_growing_wait(self, first: Duration) -> Error {
        self.change(|inner| (inner.retry_after, inner.growing) = (Some(first), true))
    }

    pub(crate) fn wait_grows(&self) -> bool {
        self.0.growing
    }

    /// Puts the provider's name before the text.
    pub(crate) fn of(self, provider: &str) -> Error {
        self.change(|inner| inner.message = format!("{provider}: {}", inner.message).into())
    }

    /// The same answer, understood better: another kind and text, what else is known of it kept.
    pub(crate) fn recast(self, kind: ErrorKind, message: &'static str) -> Error {
        self.change(|inner| (inner.kind, inner.message) = (kind, message.into()))
    }

    fn change(self, edit: impl FnOnce(&mut Inner)) -> Error {
        let mut inner = Arc::unwrap_or_clone(self.0);
        edit(&mut inner);
        Error(Arc::new(inner))
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// What kind of trouble it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True when the same call may work later without anybody mending anything.
    pub fn is_retryable(&self) -> bool {
        use ErrorKind::*;
        matches!(self.0.kind, Throttled | Unavailable | InvalidResponse | Store | TimedOut)
    }

    /// How long to wait before asking again: what is left of the pause that the manager keeps, or what the provider
    /// asked for.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The provider's own code, such as `40001` or `invalid_client`.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The HTTP status of the answer, when there was one.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The provider's own name for the request, when it told one: a `trace_id`, a `rid`. Its support asks for it.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let code = self.0.code.as_ref().map(|code| format!("code {code}"));
        let status = self.0.status.map(|status| format!("HTTP status {status}"));
        let request = self.0.request_id.as_ref().map(|id| format!("request {id}"));
        let known: Vec<_> = [code, status, request].into_iter().flatten().collect();
        if known.is_empty() { Ok(()) } else { write!(f, " ({})", known.join(", ")) }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("code", &self.0.code)
            .field("status", &self.0.status)
            .field("request_id", &self.0.request_id)
            .field("retry_after", &self.0.retry_after)
            .finish()
    }
}

impl std::error::Error for Error {}

/// Runs code of the user's: a panic becomes an error. Its text stays out, because it may quote anything.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Panicked, "the provider panicked")))
}

/// True for what may be shown of a word that came from outside.
fn is_plain_word(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !word.is_empty() && word.len() <= MAX_CODE && word.bytes().all(plain)
}

/// The longest code that is kept: the longest that the supported providers use has 62 letters.
const MAX_CODE: usize = 80;
