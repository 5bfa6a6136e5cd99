//! The token manager: the public handle through which callers get the token of one credential.

mod asking;
mod check;
mod control;
mod journey;
mod keeper;
mod landing;
mod quota;
mod stand_in;
mod state;
mod status;
mod upkeep;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

pub use status::{QuotaStatus, Status, TokenState};

pub(crate) use control::Control;
pub(crate) use keeper::{Keeper, Settings};
pub(crate) use state::Keeping;

use crate::error::Error;
use crate::event::Event;
use crate::key::Identity;
use crate::key::Key;
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::token::{Token, TokenSource};

/// Always has a valid token of one credential ready.
///
/// A manager fetches the token when the first caller needs one, keeps the token in memory, refreshes it in the
/// background before it expires, and replaces it when a service rejects it. Call [`token`](TokenManager::token) each
/// time a token is needed, and do not keep the token.
///
/// A manager is a handle that any number of threads can use. Clones share the token, and dropping the last clone ends
/// the background work at once.
///
/// ```
/// # use std::time::Duration;
/// use evertoken::{TokenManager, provider};
/// use evertoken::provider::Grant;
///
/// let tokens = TokenManager::new(provider::from_fn("demo", |_| Ok(Grant::new("t-1", Duration::from_secs(7200)))));
/// let token = tokens.token()?;
/// assert_eq!(token.bearer(), "Bearer t-1");
/// # Ok::<(), evertoken::Error>(())
/// ```
///
/// # Blocking, and async programs
///
/// Calls block the calling thread, and the docs of each method say for how long at most. In an async program, call them
/// where blocking work is allowed (`spawn_blocking`), or use [`try_token`](TokenManager::try_token), which does not
/// block.
///
/// # Fork
///
/// A forked child keeps the current token and opens its own connections, starts its own fetches and its own scheduler
/// thread. Do not fork while another thread is inside this library: the child would inherit a lock that is never
/// released.
#[derive(Clone)]
pub struct TokenManager(Arc<Handle>);

/// The part that all clones share. Dropping it ends the background work, even while the thread of a refresh still has a
/// reference to the keeper.
struct Handle {
    keeper: Arc<Keeper>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.keeper.retire();
    }
}

impl TokenManager {
    pub(crate) fn from_keeper(keeper: Arc<Keeper>) -> TokenManager {
        TokenManager(Arc::new(Handle { keeper }))
    }

    pub(crate) fn keeper(&self) -> &Keeper {
        &self.0.keeper
    }

    /// Returns a token that is valid now.
    ///
    /// While the manager has a token that is not about to expire, this function reads memory only, which takes
    /// nanoseconds. Otherwise the token is read from the store or fetched from the provider, once for all callers. The
    /// call blocks meanwhile, for [`max_wait`](crate::TokenManagerBuilder::max_wait) at most.
    ///
    /// If the fetch fails while the current token is [expiring](TokenState::Expiring), the call returns the current
    /// token.
    ///
    /// # Errors
    ///
    /// An error is returned only when the manager has no valid token. After a failed fetch there is a cooldown, during
    /// which every call returns the error of that fetch at once.
    ///
    /// - [`ErrorKind::InvalidCredentials`](crate::ErrorKind::InvalidCredentials): the provider refused the id or the
    ///   secret. A retry cannot help.
    /// - [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) and
    ///   [`Throttled`](crate::ErrorKind::Throttled): try again after [`Error::retry_after`].
    /// - [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut): `max_wait` ended before there was a token. The fetch
    ///   continues, and a later call may get its token.
    ///
    /// The other kinds are listed at [`ErrorKind`](crate::ErrorKind).
    #[inline]
    pub fn token(&self) -> Result<Token, Error> {
        self.token_within(self.0.keeper.settings.max_wait)
    }

    /// Like [`token`](TokenManager::token), but blocks for `wait` at most.
    ///
    /// A fetch that is in flight when `wait` ends continues, and a later call may get its token.
    ///
    /// # Errors
    ///
    /// The same as [`token`](TokenManager::token). [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) means that
    /// `wait` ended before there was a token.
    #[inline]
    pub fn token_within(&self, wait: Duration) -> Result<Token, Error> {
        match self.held() {
            Some(token) => Ok(token),
            None => self.0.keeper.obtain(wait),
        }
    }

    /// Returns the current token, or `None` if there is none or it has expired. Never blocks, so user interface threads
    /// can call it.
    ///
    /// If there is no token, or the token is about to expire, a fetch is started in the background. Subscribe to
    /// [`events`](TokenManager::events) to learn when the new token is there.
    #[inline]
    pub fn try_token(&self) -> Option<Token> {
        self.held().or_else(|| self.0.keeper.try_obtain())
    }

    #[inline(always)]
    fn held(&self) -> Option<Token> {
        let keeper = &self.0.keeper;
        let hit = keeper.cache.get(keeper.now())?;
        if hit.notify {
            keeper.on_read();
        }
        Some(hit.token)
    }

    /// Starts a fetch in the background if there is no valid token, and returns at once.
    ///
    /// Call this function at program start, so that the first call of [`token`](TokenManager::token) need not wait as
    /// long.
    pub fn warm_up(&self) {
        self.0.keeper.warm_up();
    }

    /// Checks the settings, the provider, the store and the fallback store, and fetches no token.
    ///
    /// Call this function at program start, to stop with an error where the manager itself would only log a warning: a
    /// store that fails never keeps a token back, so a wrong path, a missing password of Redis or a directory with wrong
    /// modes is easily overlooked. A program that should start while its Redis is down goes on after an error of
    /// [`ErrorKind::Store`](crate::ErrorKind::Store).
    ///
    /// Blocks for three seconds at most for each store. The provider's host is not asked, so a wrong secret shows at the
    /// first [`token`](TokenManager::token).
    ///
    /// # Errors
    ///
    /// The first of these:
    ///
    /// - [`ErrorKind::Config`](crate::ErrorKind::Config) when a setting is wrong, or a store needs a changed setting.
    /// - the error of [`Provider::check`](crate::provider::Provider::check).
    /// - [`ErrorKind::Store`](crate::ErrorKind::Store) when a store cannot be used now. The text says why.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use evertoken::{MemoryStore, TokenManager, provider};
    /// use evertoken::provider::Grant;
    ///
    /// let provider = provider::from_fn("demo", |_| Ok(Grant::new("t-1", Duration::from_secs(7200))));
    /// let tokens = TokenManager::builder(provider).store(MemoryStore::new()).build()?;
    /// tokens.check()?;
    /// # Ok::<(), evertoken::Error>(())
    /// ```
    pub fn check(&self) -> Result<(), Error> {
        self.0.keeper.check()
    }

    /// Takes `token` out of use, because a service refused it. The next call of [`token`](TokenManager::token) fetches
    /// a new one.
    ///
    /// [`send`](TokenManager::send) and [`call`](TokenManager::call) reject refused tokens by themselves.
    ///
    /// The rejection takes effect in this manager before this function returns, also when it returns an error. Other
    /// managers on the same store follow within their
    /// [`store_check_interval`](crate::TokenManagerBuilder::store_check_interval), or at their first call after an idle
    /// time. Blocks for a store operation only; without a store, not at all.
    ///
    /// - Rejecting a token that has been replaced already changes nothing, so any number of threads can reject the same
    ///   token, and one fetch follows.
    /// - If the provider returns the rejected token again, the token is reinstated, and further rejections of it are
    ///   ignored for 30 s.
    /// - If three new tokens in a row are rejected within 10 s of their grant, a new token does not help. Fetching
    ///   stops for a cooldown that grows with each further rejection.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`](crate::ErrorKind::Store) when the store could not be written, so that other processes do
    /// not know about the rejection yet. The token is out of use in this process, so there is no reason to fail a
    /// request.
    pub fn reject(&self, token: &Token) -> Result<(), Error> {
        self.0.keeper.reject(token)
    }

    /// Fetches a new token although the current one is valid, and returns it.
    ///
    /// Blocks until the fetch has ended, for [`max_wait`](crate::TokenManagerBuilder::max_wait) at most. Calls at the
    /// same time share one fetch.
    ///
    /// Returns the current token if the provider returned it unchanged, as WeCom does during the token's lifetime, or
    /// if the provider's minimum time between two forced refreshes has not passed. The expiry of the token does not
    /// change then.
    ///
    /// # Errors
    ///
    /// The same as [`token`](TokenManager::token), and the error of a cooldown. The current token stays in use.
    pub fn force_refresh(&self) -> Result<Token, Error> {
        self.0.keeper.obtain_another(self.0.keeper.settings.max_wait)
    }

    /// Removes the token from this manager and from the store, and ends a cooldown. The next call fetches.
    ///
    /// Use this function when the rights of the credential have changed. For a token that a service refused, use
    /// [`reject`](TokenManager::reject): any number of rejections of a token cause one fetch, but each `invalidate`
    /// causes another. Blocks for a store operation only.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`](crate::ErrorKind::Store) when the store could not be written. The token is out of use in
    /// this process then.
    pub fn invalidate(&self) -> Result<(), Error> {
        self.0.keeper.invalidate()
    }

    /// Passes on a ticket that the vendor has pushed to your callback URL, for example `suite_ticket` or
    /// `component_verify_ticket`.
    ///
    /// These vendors want the latest ticket with each request for a token. The ticket is stored for all managers of the
    /// credential on the same store; without a store, only this manager has it. A cooldown that began because the
    /// ticket was missing ends. Blocks for a store operation only.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Config`](crate::ErrorKind::Config) when the provider needs no ticket, or the ticket is empty or
    ///   longer than 4 KiB.
    /// - [`ErrorKind::Store`](crate::ErrorKind::Store) when the store could not be written. This manager uses the
    ///   ticket, and writes it to the store later.
    pub fn set_ticket(&self, ticket: impl Into<Secret>) -> Result<(), Error> {
        self.0.keeper.set_ticket(ticket.into())
    }

    /// Returns the present state: the phase of the token, the last error, the store. `Display` prints a few lines for
    /// people. Does not block.
    pub fn status(&self) -> Status {
        self.0.keeper.status()
    }

    /// Returns counters of what has happened since the manager was built. `Display` prints a report. Does not block.
    pub fn metrics(&self) -> Metrics {
        self.0.keeper.metrics()
    }

    /// Subscribes to all events from now on, through a channel of [`crossbeam_channel`](crate::crossbeam_channel).
    ///
    /// Each call creates a subscription of its own; drop the receiver to end it. The channel holds 256 unread events.
    /// When the channel is full, new events are dropped, and the next event that fits says how many in
    /// [`Event::missed`]. A manager has 64 subscriptions at most. A further one ends the oldest and disconnects its
    /// receiver.
    pub fn events(&self) -> Receiver<Event> {
        self.0.keeper.events.subscribe()
    }

    /// Returns the key of the token's record in a store. A key contains no secret.
    pub fn key(&self) -> &Key {
        &self.0.keeper.key
    }

    /// Ends all fetching, for every clone, and waits for the fetch that is in flight, for `wait` at most.
    ///
    /// Returns true when no fetch is in flight any more. A fetch that the manager abandoned, because it did not return
    /// within its deadline, does not count.
    ///
    /// Afterwards, calls return the current token until it expires. Then they return
    /// [`ErrorKind::Shutdown`](crate::ErrorKind::Shutdown).
    pub fn shutdown(&self, wait: Duration) -> bool {
        self.0.keeper.shut_down(wait)
    }
}

impl TokenSource for TokenManager {
    fn identity(&self) -> Identity {
        self.0.keeper.identity.clone()
    }

    fn token_within(&self, wait: Duration) -> Result<Token, Error> {
        TokenManager::token_within(self, wait)
    }

    fn reject(&self, token: &Token) -> Result<(), Error> {
        TokenManager::reject(self, token)
    }
}

// Panics of the user's code are caught where that code is called, and leave the values under all locks consistent.
impl UnwindSafe for TokenManager {}
impl RefUnwindSafe for TokenManager {}

impl fmt::Debug for TokenManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keeper = &self.0.keeper;
        f.debug_struct("TokenManager").field("provider", &keeper.provider.name()).field("key", &keeper.key).finish()
    }
}
