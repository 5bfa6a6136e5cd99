//! `FakeProvider`, a provider that a test scripts.
//!
//! A fetch goes through these steps:
//!
//! 1. The fetch is counted as started.
//! 2. The fetch waits at the gate, if there is one, until the test gives a permit or removes the gate.
//! 3. The step for the fetch is chosen: the error of `always_fail` if one is set, else the next step of the script,
//!    else a new token.
//! 4. The step runs outside the lock, because a closure of the test may call the provider or panic.
//! 5. The fetch is counted as finished, also after a panic.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::key::Identity;
use crate::lock::lock;
use crate::provider::{Context, Grant, Profile, Provider, RenewalProfile};
use crate::token::TokenSource;

/// A [`Provider`] without a network, for tests of code that uses a [`TokenManager`](crate::TokenManager).
///
/// The provider grants `token-1`, `token-2` and so on, each for two hours, unless the test adds steps to its script.
/// Each `then_*` method adds one step, and each fetch takes one.
///
/// Clones share one provider: give one to the manager and keep one. Methods that take `self` set the provider up and
/// act at once; in a running test, call them on a clone: `provider.clone().then_fail(..)`. Methods that take `&self`
/// control and observe the provider.
///
/// ```
/// use evertoken::{Error, ErrorKind, TokenManager};
/// use evertoken::testing::FakeProvider;
///
/// let provider = FakeProvider::new().then_fail(Error::new(ErrorKind::InvalidCredentials, "wrong secret"));
/// let manager = TokenManager::new(provider.clone());
/// assert_eq!(manager.token().unwrap_err().kind(), ErrorKind::InvalidCredentials);
///
/// // The script is used up. Another manager of this provider gets a token, and gets the same one again from memory.
/// let manager = TokenManager::new(provider.clone());
/// assert_eq!(manager.token()?.expose(), "token-1");
/// assert_eq!(manager.token()?.expose(), "token-1");
/// assert_eq!(provider.calls(), 2);
/// # Ok::<(), evertoken::Error>(())
/// ```
///
/// A gate holds fetches back, so that a test can look at callers that wait:
///
/// ```
/// use std::{thread, time::Duration};
///
/// use evertoken::TokenManager;
/// use evertoken::testing::FakeProvider;
///
/// let provider = FakeProvider::new().gated();
/// let manager = TokenManager::new(provider.clone());
/// thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| assert_eq!(manager.token().unwrap().expose(), "token-1"));
///     }
///     assert!(provider.wait_for_calls(1, Duration::from_secs(10)));
///     provider.open();
/// });
/// assert_eq!(provider.calls(), 1);
/// ```
#[derive(Clone)]
pub struct FakeProvider(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    parent: OnceLock<Arc<dyn TokenSource>>,
}

struct State {
    lifetime: Duration,
    identity: Identity,
    profile: Profile,
    renewal: Option<RenewalProfile>,
    script: VecDeque<Step>,
    forced_error: Option<Error>,
    granted: usize,
    last: Option<(String, Duration)>,
    /// Fetches that may still pass the gate; `None` without a gate.
    permits: Option<usize>,
    started: usize,
    finished: usize,
    max_concurrent_calls: usize,
}

enum Step {
    Grant(String, Duration),
    Unchanged,
    Run(Run),
}

type Run = Box<dyn FnOnce(&Context) -> Result<Grant, Error> + Send>;

/// # Set-up
impl FakeProvider {
    /// Returns a provider that grants `token-1`, `token-2` and so on, each for two hours.
    ///
    /// All fake providers have the same [`identity`](Provider::identity), so their managers share one record in a
    /// store. [`with_identity`](FakeProvider::with_identity) sets another one.
    pub fn new() -> FakeProvider {
        let state = State {
            lifetime: Duration::from_secs(7200),
            identity: Identity::new("fake"),
            profile: Profile::default(),
            renewal: None,
            script: VecDeque::new(),
            forced_error: None,
            granted: 0,
            last: None,
            permits: None,
            started: 0,
            finished: 0,
            max_concurrent_calls: 0,
        };
        FakeProvider(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), parent: OnceLock::new() }))
    }

    /// Sets the lifetime of tokens that the script does not name. Default: two hours.
    pub fn lifetime(self, lifetime: Duration) -> FakeProvider {
        self.change(|state| state.lifetime = lifetime)
    }

    /// Sets what [`Provider::identity`] returns, the identity under which a store keeps the token.
    pub fn with_identity(self, identity: Identity) -> FakeProvider {
        self.change(|state| state.identity = identity)
    }

    /// Sets what [`Provider::profile`] returns, the rules for refreshing tokens. Default: [`Profile::default`].
    pub fn with_profile(self, profile: Profile) -> FakeProvider {
        self.change(|state| state.profile = profile)
    }

    /// Sets what [`Provider::renewal`] returns: how the provider's renewal secret is kept. Default: `None`.
    ///
    /// A step of [`then`](FakeProvider::then) can read the renewal secret from its [`Context`], and return another one
    /// in its [`Grant`].
    pub fn with_renewal(self, renewal: RenewalProfile) -> FakeProvider {
        self.change(|state| state.renewal = Some(renewal))
    }

    /// Sets what [`Provider::parent`] returns: the source of the parent token.
    ///
    /// # Panics
    ///
    /// Panics if the provider has a parent already.
    pub fn with_parent(self, parent: impl TokenSource) -> FakeProvider {
        assert!(self.0.parent.set(Arc::new(parent)).is_ok(), "the fake provider has a parent already");
        self
    }

    /// Adds a step: the fetch grants this token.
    pub fn then_grant(self, token: impl Into<String>, lifetime: Duration) -> FakeProvider {
        self.then_step(Step::Grant(token.into(), lifetime))
    }

    /// Adds a step: the fetch fails with this error.
    pub fn then_fail(self, error: Error) -> FakeProvider {
        self.then(|_| Err(error))
    }

    /// Adds a step: the fetch panics.
    pub fn then_panic(self) -> FakeProvider {
        self.then(|_| panic!("fake provider: a panic that the test has scripted"))
    }

    /// Adds a step: the fetch grants the last token again with its whole lifetime, as WeCom does.
    ///
    /// Without a last token the fetch grants a new one. A token from [`then`](FakeProvider::then) does not count as the
    /// last one.
    pub fn then_unchanged(self) -> FakeProvider {
        self.then_step(Step::Unchanged)
    }

    /// Adds a step: the fetch runs this closure, on the thread of the fetch, and returns its result.
    pub fn then(self, step: impl FnOnce(&Context) -> Result<Grant, Error> + Send + 'static) -> FakeProvider {
        self.then_step(Step::Run(Box::new(step)))
    }

    /// Adds a gate: from now on each fetch blocks until it gets a [`permit`](FakeProvider::permit), or until the gate
    /// is [opened](FakeProvider::open). The step of a fetch is chosen after the gate.
    ///
    /// The wait ignores the deadline of the fetch, like a provider that does not return. After a minute of real time
    /// the fetch fails with [`ErrorKind::Unavailable`], so that a broken test leaves no thread behind.
    pub fn gated(self) -> FakeProvider {
        self.change(|state| state.permits = Some(state.permits.unwrap_or(0)))
    }

    fn then_step(self, step: Step) -> FakeProvider {
        self.change(|state| state.script.push_back(step))
    }

    fn change(self, edit: impl FnOnce(&mut State)) -> FakeProvider {
        edit(&mut lock(&self.0.state));
        self
    }
}

/// # Control and observation
impl FakeProvider {
    /// Lets `fetches` more fetches pass the gate, including those that wait. Does nothing without a gate.
    pub fn permit(&self, fetches: usize) {
        let mut state = lock(&self.0.state);
        state.permits = state.permits.map(|permits| permits.saturating_add(fetches));
        self.0.changed.notify_all();
    }

    /// Removes the gate. All fetches that wait there continue.
    pub fn open(&self) {
        lock(&self.0.state).permits = None;
        self.0.changed.notify_all();
    }

    /// Makes every fetch fail with this error, until a call with `None`. The script keeps its steps in the meantime.
    pub fn always_fail(&self, error: Option<Error>) {
        lock(&self.0.state).forced_error = error;
    }

    /// Returns how many fetches have started.
    pub fn calls(&self) -> usize {
        lock(&self.0.state).started
    }

    /// Returns how many fetches have finished: with a token, an error or a panic.
    pub fn finished(&self) -> usize {
        lock(&self.0.state).finished
    }

    /// Returns the highest number of fetches that ran at the same time.
    pub fn max_concurrent_calls(&self) -> usize {
        lock(&self.0.state).max_concurrent_calls
    }

    /// Blocks until `calls` fetches have started in total. Returns false if `wait`, in real time, passes first.
    #[must_use]
    pub fn wait_for_calls(&self, calls: usize, wait: Duration) -> bool {
        self.wait_until(wait, |state| state.started >= calls)
    }

    /// Blocks until `fetches` fetches have finished in total. Returns false if `wait`, in real time, passes first.
    #[must_use]
    pub fn wait_for_finished(&self, fetches: usize, wait: Duration) -> bool {
        self.wait_until(wait, |state| state.finished >= fetches)
    }

    fn wait_until(&self, wait: Duration, reached: impl Fn(&State) -> bool) -> bool {
        let state = lock(&self.0.state);
        let waited = self.0.changed.wait_timeout_while(state, wait, |state| !reached(state));
        reached(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    fn pass_gate(&self) -> Result<(), Error> {
        let state = lock(&self.0.state);
        let waited = self.0.changed.wait_timeout_while(state, MAX_GATE_WAIT, |state| state.permits == Some(0));
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        match &mut state.permits {
            Some(0) => Err(Error::new(
                ErrorKind::Unavailable,
                "fake provider: the test gave this fetch no permit within a minute; call permit or open",
            )),
            Some(permits) => {
                *permits -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl State {
    /// Returns what the fetch that just passed the gate does.
    fn next_step(&mut self) -> Run {
        if let Some(error) = self.forced_error.clone() {
            return Box::new(|_| Err(error));
        }
        let (token, lifetime) = match (self.script.pop_front(), self.last.take()) {
            (Some(Step::Run(run)), last) => {
                // A token from a closure does not replace the last one.
                self.last = last;
                return run;
            }
            (Some(Step::Grant(token, lifetime)), _) | (Some(Step::Unchanged), Some((token, lifetime))) => {
                (token, lifetime)
            }
            // Without a last token, an unchanged one is new.
            (None | Some(Step::Unchanged), _) => {
                self.granted += 1;
                (format!("token-{}", self.granted), self.lifetime)
            }
        };
        self.last = Some((token.clone(), lifetime));
        Box::new(move |_| Ok(Grant::new(token, lifetime)))
    }
}

impl Provider for FakeProvider {
    fn name(&self) -> &str {
        "fake"
    }

    fn identity(&self) -> Identity {
        lock(&self.0.state).identity.clone()
    }

    fn parent(&self) -> Option<&dyn TokenSource> {
        self.0.parent.get().map(|parent| &**parent)
    }

    fn renewal(&self) -> Option<RenewalProfile> {
        lock(&self.0.state).renewal.clone()
    }

    fn profile(&self) -> Profile {
        lock(&self.0.state).profile.clone()
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        let _in_progress = FetchInProgress::start(&self.0);
        self.pass_gate()?;
        // Chosen after the gate, so that a test can decide while the fetch waits.
        let step = lock(&self.0.state).next_step();
        // Run outside the lock: a closure of the test may call this provider, and may panic.
        step(context)
    }
}

/// Counts a fetch as started, and as finished when dropped, so that a panic is counted too.
struct FetchInProgress<'a>(&'a Shared);

impl FetchInProgress<'_> {
    fn start(shared: &Shared) -> FetchInProgress<'_> {
        let mut state = lock(&shared.state);
        state.started += 1;
        state.max_concurrent_calls = state.max_concurrent_calls.max(state.started - state.finished);
        shared.changed.notify_all();
        FetchInProgress(shared)
    }
}

impl Drop for FetchInProgress<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).finished += 1;
        self.0.changed.notify_all();
    }
}

impl Default for FakeProvider {
    fn default() -> FakeProvider {
        FakeProvider::new()
    }
}

impl fmt::Debug for FakeProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.0.state);
        write!(f, "FakeProvider(calls={}, finished={})", state.started, state.finished)
    }
}

/// Time at the gate after which a fetch fails.
const MAX_GATE_WAIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::context;

    const HOUR: Duration = Duration::from_secs(3600);

    fn fetch(provider: &FakeProvider) -> Result<(String, Duration), ErrorKind> {
        let grant = provider.fetch(&context(HOUR)).map_err(|error| error.kind())?;
        let (token, lifetime) = grant.into_parts(&Profile::default()).map_err(|error| error.kind())?;
        Ok((token.expose().to_owned(), lifetime.total))
    }

    fn granted(token: &str, lifetime: Duration) -> Result<(String, Duration), ErrorKind> {
        Ok((token.to_owned(), lifetime))
    }

    #[test]
    fn without_a_script_every_fetch_grants_a_new_token() {
        let provider = FakeProvider::new();
        assert_eq!(fetch(&provider), granted("token-1", 2 * HOUR));
        assert_eq!(fetch(&provider.clone().lifetime(HOUR)), granted("token-2", HOUR));
    }

    #[test]
    fn a_script_is_followed_and_then_new_tokens_are_granted() {
        let provider = FakeProvider::new()
            .then_grant("t-1", HOUR / 2)
            .then_unchanged()
            .then_fail(Error::new(ErrorKind::InvalidCredentials, "on purpose"))
            .then(|context| Ok(Grant::new("t-2", context.remaining().max(HOUR))))
            .then_unchanged();
        assert_eq!(fetch(&provider), granted("t-1", HOUR / 2));
        assert_eq!(fetch(&provider), granted("t-1", HOUR / 2));
        assert_eq!(fetch(&provider), Err(ErrorKind::InvalidCredentials));
        assert_eq!(fetch(&provider), granted("t-2", HOUR));
        assert_eq!(fetch(&provider), granted("t-1", HOUR / 2), "a token from a closure is not the last token");
        assert_eq!(fetch(&provider), granted("token-1", 2 * HOUR));
        assert_eq!(fetch(&provider.clone().then_unchanged()), granted("token-1", 2 * HOUR));
        assert_eq!((provider.calls(), provider.finished(), provider.max_concurrent_calls()), (7, 7, 1));
    }

    #[test]
    fn an_unchanged_token_before_the_first_is_a_new_one() {
        assert_eq!(fetch(&FakeProvider::new().then_unchanged()), granted("token-1", 2 * HOUR));
    }
}
