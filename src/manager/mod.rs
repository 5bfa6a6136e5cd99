//! The manager: a handle through which callers get their token.

mod asking;
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
/// A handle: clones share the token, and dropping the last one ends the background work at once. It can be used from
/// any number of threads. Ask it for the token each time one is needed, and do not keep the token.
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
/// Calls block the thread, never longer than they say. In an async program put them where blocking work goes
/// (`spawn_blocking`), or use [`try_token`](TokenManager::try_token), which does not block.
///
/// # Fork
///
/// A forked child keeps the held token and starts connections, fetches and the refresher anew. Forking while another
/// thread is inside this library is not supported: as everywhere, a lock may stay taken for ever.
#[derive(Clone)]
pub struct TokenManager(Arc<Handle>);

/// What all clones share. Its end is the end of the background work, even while a flight still holds the keeper.
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
    /// Reads memory when it can: nanoseconds, no lock that other threads wait for, no I/O. Otherwise the token is
    /// fetched once for everybody who asks, and this blocks meanwhile, up to
    /// [`max_wait`](crate::TokenManagerBuilder::max_wait). A token that is late but not dead is better than an error:
    /// it is returned when the fetch fails.
    ///
    /// # Errors
    ///
    /// Only when no usable token is held. A failed fetch answers every call until its retry time, without another
    /// fetch; see [`ErrorKind`](crate::ErrorKind) for what helps.
    #[inline]
    pub fn token(&self) -> Result<Token, Error> {
        self.token_within(self.0.keeper.settings.max_wait)
    }

    /// Like [`token`](TokenManager::token), but blocks no longer than `wait`, all in all.
    ///
    /// A fetch that is under way by then goes on and serves later calls.
    ///
    /// # Errors
    ///
    /// As `token`; [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) when the time was over first.
    #[inline]
    pub fn token_within(&self, wait: Duration) -> Result<Token, Error> {
        match self.held() {
            Some(token) => Ok(token),
            None => self.0.keeper.obtain(wait),
        }
    }

    /// Returns the held token, if there is one that is not dead. Never blocks, so it fits a thread that draws a user
    /// interface.
    ///
    /// When nothing usable is held, a fetch is started in the background; [`events`](TokenManager::events) tells when
    /// it is there.
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

    /// Starts a fetch if nothing usable is held, and returns at once: the first call will find the token there.
    pub fn warm_up(&self) {
        self.0.keeper.warm_up();
    }

    /// Takes `token` out of use, because a service refused it. It is out of use here whatever this returns: an error says that
    /// other processes do not know, and is nothing to end a request for.
    ///
    /// Takes effect here before this returns, and for other managers on the same store within their
    /// [`store_check_interval`](crate::TokenManagerBuilder::store_check_interval), while they are in use; one that was idle compares
    /// at its first use. The next call fetches another one; a token that has been replaced already costs nothing,
    /// however often it is rejected. Blocks for the store only.
    ///
    /// When the provider grants the very same token again, it is used again, and further rejections of it are ignored
    /// for 30 s. When three new tokens in a row are rejected within 10 s of their grant, another one would not help:
    /// fetching then pauses, with growing pauses.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Store`](crate::ErrorKind::Store) when the other managers could not be told. Here the token is out
    /// of use all the same.
    pub fn reject(&self, token: &Token) -> Result<(), Error> {
        self.0.keeper.reject(token)
    }

    /// Asks for a new token even though one is held, and blocks until it is there, up to
    /// [`max_wait`](crate::TokenManagerBuilder::max_wait).
    ///
    /// Calls at the same time share one fetch. The pause after a failure is respected, and so is the time that the
    /// provider wants between forced refreshes. A provider that gives the same token back, as WeCom does within its
    /// life, cannot be forced: then that is returned, and ends when it ended before.
    ///
    /// # Errors
    ///
    /// When there is no other token. The held one stays in use.
    pub fn force_refresh(&self) -> Result<Token, Error> {
        self.0.keeper.obtain_another(self.0.keeper.settings.max_wait)
    }

    /// Forgets the token, here and in the store, and the pause after a failure, if there is one: the next call fetches.
    ///
    /// For a credential whose rights have changed. For a token that a service refused use
    /// [`reject`](TokenManager::reject), which does not fetch twice. Blocks for the store only.
    ///
    /// # Errors
    ///
    /// As `reject`.
    pub fn invalidate(&self) -> Result<(), Error> {
        self.0.keeper.invalidate()
    }

    /// Hands in a ticket that the vendor has pushed to the program's callback. Providers of vendors that do so ask with
    /// the latest one.
    ///
    /// It is stored for all managers that share it; a pause because there was none ends. Without a shared store this
    /// manager alone has it. Blocks for the store only.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the provider takes no ticket, or this is none.
    /// [`ErrorKind::Store`](crate::ErrorKind::Store) when the other managers could not be told; they are told later,
    /// and this one has it all the same.
    pub fn set_ticket(&self, ticket: impl Into<Secret>) -> Result<(), Error> {
        self.0.keeper.set_ticket(ticket.into())
    }

    /// How things stand, for people and programs. `Display` explains it in a few lines.
    pub fn status(&self) -> Status {
        self.0.keeper.status()
    }

    /// What has happened since the manager was built, in numbers. `Display` is a report.
    pub fn metrics(&self) -> Metrics {
        self.0.keeper.metrics()
    }

    /// Subscribes to what happens from now on. Each call is a subscription of its own; drop the receiver to end it.
    ///
    /// At most 256 events wait in it. When it is full new events are dropped, and the next one that fits says how many.
    /// A manager has at most 64 subscriptions: one more ends the oldest, whose receiver is then disconnected.
    pub fn events(&self) -> Receiver<Event> {
        self.0.keeper.events.subscribe()
    }

    /// The name under which the token is recorded in a store. It holds no secret.
    pub fn key(&self) -> &Key {
        &self.0.keeper.key
    }

    /// Ends all fetching, for every clone, and waits up to `wait` for a fetch that is under way. True when none is
    /// left.
    ///
    /// A fetch that was given up, because it never returned, does not count as one. Afterwards a held token is still
    /// returned as long as it lives. What would have to fetch gives
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

// A panic of the user's code is caught where it is called, and leaves no lock with half a change under it.
impl UnwindSafe for TokenManager {}
impl RefUnwindSafe for TokenManager {}

impl fmt::Debug for TokenManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keeper = &self.0.keeper;
        f.debug_struct("TokenManager").field("provider", &keeper.provider.name()).field("key", &keeper.key).finish()
    }
}
