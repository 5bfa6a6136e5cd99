//! The crate's one error type. Its kinds say what a program or a person can do about the failure.

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Why a call failed.
///
/// The [`kind`](Error::kind) says what to do about the failure. The text says what happened, to which provider, host,
/// setting or file, and what to do; it never quotes a credential or a reply. What the provider said is in
/// [`code`](Error::code), [`status`](Error::status) and [`request_id`](Error::request_id).
///
/// Clones are cheap, because one failure answers many callers.
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
    /// The wait in `retry_after` is a guess of this crate; the manager doubles the wait while failures go on.
    wait_grows: bool,
}

/// What to do about an [`Error`].
///
/// The guide lists [what happens when something fails](crate::guide::what_happens_when) and what callers see then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting or an argument is wrong. The text says which one. Retrying cannot help.
    Config,
    /// The provider refused the credential: the id or the secret is unknown, wrong, expired or disabled. Retrying
    /// cannot help.
    InvalidCredentials,
    /// A person has to sign in: the refresh token was refused because it expired, was revoked or was used before.
    /// Retrying cannot help.
    SignInRequired,
    /// The provider knows the credential and does not allow the request: an address that is not on the provider's list,
    /// a missing right, a policy.
    Forbidden,
    /// Too many requests. Wait for [`Error::retry_after`].
    Throttled,
    /// The provider needs a ticket that it pushes to the application, and the ticket is missing or too old. Hand the
    /// next one to [`set_ticket`](crate::TokenManager::set_ticket).
    TicketRequired,
    /// The provider cannot be reached, did not answer in time, or says that it is busy or broken. The failure passes.
    Unavailable,
    /// The response is not what a token endpoint sends: no JSON, no token, an expired token. A proxy in between and a
    /// wrong address are the usual causes.
    InvalidResponse,
    /// The service refuses tokens; look at the app's rights and at this machine's clock. Either [`send`] had two attempts
    /// of one request refused, or the service refused three new tokens within seconds of their grant: then fetching pauses
    /// for [`Error::retry_after`]. A request whose body was a stream has one attempt only, and may be built and sent again.
    ///
    /// [`send`]: crate::TokenManager::send
    TokenRejected,
    /// The shared store cannot be used.
    Store,
    /// The [claim](crate::idempotency::Claim) of an idempotent operation expired, and another holder may have claimed
    /// the operation since; or the claim was completed or abandoned before.
    ClaimLost,
    /// The caller's own deadline passed. A fetch in flight goes on and may serve the next call.
    TimedOut,
    /// A provider panicked. The manager keeps working; the panic hook got the panic's message.
    Panicked,
    /// The manager was shut down and holds no valid token.
    Shutdown,
}

impl Error {
    /// Creates an error, for providers and stores of your own.
    ///
    /// Write the message in lower case and without a full stop; say what the person can do. Keep replies and
    /// credentials out of it, because it is logged and shown.
    ///
    /// ```
    /// use evertoken::{Error, ErrorKind};
    ///
    /// let error = Error::new(ErrorKind::InvalidCredentials, "the key is unknown; create one in the console")
    ///     .with_code("E17");
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
            wait_grows: false,
        }))
    }

    pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Config, message)
    }

    pub(crate) fn invalid_response(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::InvalidResponse, message)
    }

    /// Adds the provider's own error code. Only a short plain word (letters, digits, `.`, `_`, `-`) is kept, because a
    /// longer text may quote a credential.
    #[must_use]
    pub fn with_code(self, code: impl Into<String>) -> Error {
        let code = Some(code.into()).filter(|code| is_plain_word(code));
        self.change(|inner| inner.code = code)
    }

    /// Adds the provider's id of the request, which its support asks for. As with a code, only a short plain word is kept.
    #[must_use]
    pub fn with_request_id(self, id: impl Into<String>) -> Error {
        let id = Some(id.into()).filter(|id| is_plain_word(id));
        self.change(|inner| inner.request_id = id)
    }

    /// Adds the HTTP status of the response.
    #[must_use]
    pub fn with_status(self, status: u16) -> Error {
        self.change(|inner| inner.status = Some(status))
    }

    /// Adds how long to wait before the next try. The manager waits at least this long, up to an hour.
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Error {
        self.change(|inner| (inner.retry_after, inner.wait_grows) = (Some(wait), false))
    }

    /// Adds the first wait, where the provider says that there were too many requests but not how long to wait. The
    /// manager doubles the wait while failures go on.
    pub(crate) fn with_growing_wait(self, first: Duration) -> Error {
        self.change(|inner| (inner.retry_after, inner.wait_grows) = (Some(first), true))
    }

    pub(crate) fn wait_grows(&self) -> bool {
        self.0.wait_grows
    }

    /// Puts the provider's name before the message.
    pub(crate) fn of(self, provider: &str) -> Error {
        self.change(|inner| inner.message = format!("{provider}: {}", inner.message).into())
    }

    /// Replaces kind and message, and keeps code, status, request id and wait.
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

    /// Returns the kind, which says what to do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns true when the same call may succeed later without a change of settings, rights or credentials.
    pub fn is_retryable(&self) -> bool {
        use ErrorKind::*;
        matches!(self.0.kind, Throttled | Unavailable | InvalidResponse | Store | TimedOut)
    }

    /// Returns how long to wait before the next call: the rest of the manager's cooldown, or what the provider asked for.
    /// For a failure that is not retryable, the manager answers with the same error until then. `None` when nothing is
    /// known; a retryable failure is then repeated like any failed request.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns the provider's own error code, such as `40001` or `invalid_client`.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// Returns the HTTP status of the response. `None` when there was no response.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// Returns the provider's id of the request (`trace_id`, `rid`, `request-id`), which its support asks for.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let code = self.0.code.as_ref().map(|code| format!("code {code}"));
        let named = |status: &u16| self.0.message.contains(&format!("HTTP {status}"));
        let status = self.0.status.filter(|status| !named(status)).map(|status| format!("HTTP status {status}"));
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

/// For the model of `core`, which compares whole states: no decision depends on the text.
#[cfg(test)]
impl std::hash::Hash for Error {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.kind().hash(state);
    }
}

/// Runs the user's code and turns a panic into an error. The panic's message is left out, because it may quote a
/// credential.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Panicked, "the provider panicked; the panic message is on the error output"))
    })
}

/// Returns true for a code or an id that may be shown although a provider chose it.
fn is_plain_word(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !word.is_empty() && word.len() <= MAX_CODE && word.bytes().all(plain)
}

/// The longest code that is kept. The longest one of the supported providers has 62 letters.
const MAX_CODE: usize = 80;
