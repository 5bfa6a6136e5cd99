//! A provider that a test scripts.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::key::Identity;
use crate::lock::lock;
use crate::provider::{Context, Grant, Profile, Provider, RenewalProfile};
use crate::token::TokenSource;

/// A [`Provider`] without a network. It grants `token-1`, `token-2` and so on, unless a script says otherwise.
///
/// Clones are the same provider: give one to the manager and keep one. Methods that take `self` set it up; they act at
/// once, so that `provider.clone().then_fail(..)` goes on with the script later. Methods that take `&self` steer and
/// watch it.
///
/// ```
/// use std::time::Duration;
///
/// use evertoken::{Error, ErrorKind};
/// use evertoken::provider::Provider;
/// use evertoken::testing::{FakeProvider, context};
///
/// let provider = FakeProvider::new().then_fail(Error::new(ErrorKind::Unavailable, "on purpose"));
/// let context = context(Duration::from_secs(5));
/// assert!(provider.fetch(&context).is_err());
/// assert!(provider.fetch(&context).is_ok());
/// assert_eq!(provider.calls(), 2);
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
    /// How many fetches may still end; `None` without a gate.
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

/// Setting up.
impl FakeProvider {
    /// A provider that grants `token-1`, `token-2` and so on, each for two hours.
    ///
    /// All have the same [`identity`](Provider::identity) until they are given one.
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

    /// How long the tokens live that no script names.
    pub fn lifetime(self, lifetime: Duration) -> FakeProvider {
        self.change(|state| state.lifetime = lifetime)
    }

    /// What the provider says it is.
    pub fn with_identity(self, identity: Identity) -> FakeProvider {
        self.change(|state| state.identity = identity)
    }

    /// How the provider says it treats its tokens.
    pub fn with_profile(self, profile: Profile) -> FakeProvider {
        self.change(|state| state.profile = profile)
    }

    /// How the provider says its state is kept. What it is asked with, and what comes with a token, is seen and said in
    /// [`then`](FakeProvider::then).
    pub fn with_renewal(self, renewal: RenewalProfile) -> FakeProvider {
        self.change(|state| state.renewal = Some(renewal))
    }

    /// What gives the token that this one is granted for.
    ///
    /// # Panics
    ///
    /// When it has one already.
    pub fn with_parent(self, parent: impl TokenSource) -> FakeProvider {
        assert!(self.0.parent.set(Arc::new(parent)).is_ok(), "a provider has one parent");
        self
    }

    /// The next fetch brings this token.
    pub fn then_grant(self, token: impl Into<String>, lifetime: Duration) -> FakeProvider {
        self.then_step(Step::Grant(token.into(), lifetime))
    }

    /// The next fetch fails.
    pub fn then_fail(self, error: Error) -> FakeProvider {
        self.then(|_| Err(error))
    }

    /// The next fetch panics.
    pub fn then_panic(self) -> FakeProvider {
        self.then(|_| panic!("a fake provider panics because the test says so"))
    }

    /// The next fetch brings the token of the last one again, with the whole lifetime it had, as WeCom does. A token from
    /// [`then`](FakeProvider::then) is not remembered.
    pub fn then_unchanged(self) -> FakeProvider {
        self.then_step(Step::Unchanged)
    }

    /// The next fetch does this.
    pub fn then(self, step: impl FnOnce(&Context) -> Result<Grant, Error> + Send + 'static) -> FakeProvider {
        self.then_step(Step::Run(Box::new(step)))
    }

    /// Puts up a gate: from now on a fetch ends only with a [`permit`](FakeProvider::permit). What it brings is decided
    /// when it passes the gate.
    ///
    /// A fetch heeds no deadline at the gate, as a provider that never returns, but gives up after a minute of real
    /// time, so that a broken test leaves no thread behind.
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

/// Steering and watching.
impl FakeProvider {
    /// Lets `fetches` more fetches pass the gate, waiting ones first. Without a gate it does nothing.
    pub fn permit(&self, fetches: usize) {
        let mut state = lock(&self.0.state);
        state.permits = state.permits.map(|permits| permits.saturating_add(fetches));
        self.0.changed.notify_all();
    }

    /// Takes the gate away. Everything that waits there goes on.
    pub fn open(&self) {
        lock(&self.0.state).permits = None;
        self.0.changed.notify_all();
    }

    /// Makes every fetch fail with this error, until `None` ends it. The script stays as it is meanwhile.
    pub fn always_fail(&self, error: Option<Error>) {
        lock(&self.0.state).forced_error = error;
    }

    /// How many fetches have started.
    pub fn calls(&self) -> usize {
        lock(&self.0.state).started
    }

    /// How many fetches are over, whatever they brought.
    pub fn finished(&self) -> usize {
        lock(&self.0.state).finished
    }

    /// How many fetches ran at the same time, at most.
    pub fn max_concurrent_calls(&self) -> usize {
        lock(&self.0.state).max_concurrent_calls
    }

    /// Waits until `calls` fetches have started. False when `wait` is over first.
    #[must_use]
    pub fn wait_for_calls(&self, calls: usize, wait: Duration) -> bool {
        self.wait_until(wait, |state| state.started >= calls)
    }

    /// Waits until `fetches` fetches are over. False when `wait` is over first.
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
            Some(0) => Err(Error::new(ErrorKind::Unavailable, "the test gave no permit within a minute")),
            Some(permits) => {
                *permits -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl State {
    /// What the fetch that just passed the gate does.
    fn next_step(&mut self) -> Run {
        if let Some(error) = self.forced_error.clone() {
            return Box::new(|_| Err(error));
        }
        let (token, lifetime) = match (self.script.pop_front(), self.last.take()) {
            (Some(Step::Run(run)), last) => {
                self.last = last;
                return run;
            }
            (Some(Step::Grant(token, lifetime)), _) | (Some(Step::Unchanged), Some((token, lifetime))) => {
                (token, lifetime)
            }
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
        let step = lock(&self.0.state).next_step();
        // Outside the lock: what the test wrote may look at this provider, and may panic.
        step(context)
    }
}

/// Counts a fetch, and counts it as over even when it panics.
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

const MAX_GATE_WAIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::context;

    const HOUR: Duration = Duration::from_secs(3600);

    fn fetch(provider: &FakeProvider) -> Result<(String, Duration), ErrorKind> {
        let grant = provider.fetch(&context(HOUR)).map_err(|error| error.kind())?;
        let (token, lifetime) = grant.into_parts(&Profile::default()).map_err(|error| error.kind())?;
        Ok((token.expose().to_owned(), lifetime.whole))
    }

    fn granted(token: &str, lifetime: Duration) -> Result<(String, Duration), ErrorKind> {
        Ok((token.to_owned(), lifetime))
    }

    #[test]
    fn without_a_script_every_fetch_brings_another_token() {
        let provider = FakeProvider::new();
        assert_eq!(fetch(&provider), granted("token-1", 2 * HOUR));
        assert_eq!(fetch(&provider.clone().lifetime(HOUR)), granted("token-2", HOUR));
    }

    #[test]
    fn a_script_is_followed_and_then_the_granting_goes_on() {
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
        assert_eq!(fetch(&provider), granted("t-1", HOUR / 2), "what a closure grants is not remembered");
        assert_eq!(fetch(&provider), granted("token-1", 2 * HOUR));
        assert_eq!(fetch(&provider.clone().then_unchanged()), granted("token-1", 2 * HOUR));
        assert_eq!((provider.calls(), provider.finished(), provider.max_concurrent_calls()), (7, 7, 1));
    }

    #[test]
    fn the_same_token_before_the_first_is_the_first() {
        assert_eq!(fetch(&FakeProvider::new().then_unchanged()), granted("token-1", 2 * HOUR));
    }
}
