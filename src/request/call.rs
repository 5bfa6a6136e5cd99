//! `TokenManager::call`: runs a closure with a token, and once more when the service rejects the token.

use std::fmt;

use crate::error::Error;
use crate::manager::TokenManager;
use crate::token::Token;

/// Using the token: these methods replace a token that the service rejects.
impl TokenManager {
    /// Calls `f` with a token, and a second time with a new token if `f` returns [`CallError::Rejected`].
    ///
    /// `f` sends the request and returns [`CallError::Rejected`] when the service refuses the token;
    /// [`verdict`](TokenManager::verdict) decides this from the response. The manager then
    /// [rejects](TokenManager::reject) the token. Any other error of `f` is returned at once; `?` turns your error type
    /// into [`CallError::Failed`].
    ///
    /// `f` runs at most twice. A service that refuses two tokens in a row has another reason, so the second token stays
    /// in use. Blocks as long as [`token`](TokenManager::token) and `f` do, each at most twice.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use evertoken::{TokenManager, provider};
    /// # use evertoken::provider::Grant;
    /// use evertoken::CallError;
    ///
    /// # let granting = std::sync::Mutex::new(vec!["t-2", "t-1"]);
    /// # let tokens = TokenManager::new(provider::from_fn("demo", move |_| {
    /// #     Ok(Grant::new(granting.lock().unwrap().pop().unwrap(), Duration::from_secs(7200)))
    /// # }));
    /// # fn ask(token: &str) -> Result<u16, std::io::Error> { Ok(if token == "t-1" { 401 } else { 200 }) }
    /// let status = tokens.call(|token| {
    ///     let status = ask(token.expose())?;
    ///     if status == 401 { Err(CallError::Rejected) } else { Ok(status) }
    /// })?;
    /// assert_eq!(status, 200);
    /// # Ok::<(), CallError<std::io::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - [`CallError::Rejected`]: the service refused two tokens.
    /// - [`CallError::Token`]: the manager has no token; contains the error of [`token`](TokenManager::token).
    /// - [`CallError::Failed`]: the error of `f`.
    pub fn call<T, E>(&self, mut f: impl FnMut(&Token) -> Result<T, CallError<E>>) -> Result<T, CallError<E>> {
        let token = self.token().map_err(CallError::Token)?;
        match f(&token) {
            Err(CallError::Rejected) => {
                self.reject_here(&token);
                f(&self.token().map_err(CallError::Token)?)
            }
            result => result,
        }
    }
}

/// Why [`TokenManager::call`] failed. There will be no further variants, so a `match` can list all.
#[derive(Debug)]
pub enum CallError<E> {
    /// The service refused the token. When the closure returns this the first time, it runs again with a new token.
    Rejected,
    /// The manager has no token, for this reason.
    Token(Error),
    /// The closure failed with its own error, which is not about the token.
    Failed(E),
}

impl<E> From<E> for CallError<E> {
    fn from(error: E) -> CallError<E> {
        CallError::Failed(error)
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Rejected => {
                f.write_str("the service rejected two tokens in a row; check the credential's rights")
            }
            CallError::Token(error) => write!(f, "there is no token to call with: {error}"),
            CallError::Failed(error) => write!(f, "the call failed: {error}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for CallError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CallError::Rejected => None,
            CallError::Token(error) => Some(error),
            CallError::Failed(error) => Some(error),
        }
    }
}
