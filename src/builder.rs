//! The settings of a manager, checked before anything is opened.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::{Clock, Time};
use crate::error::{Error, ErrorKind, catch_panic};
use crate::event::Events;
use crate::http::{Http, HttpConfig};
use crate::key::{Identity, Key};
use crate::lease::{Place, Sharing, lease_of};
use crate::manager::{Control, Keeper, Keeping, Settings, TokenManager};
use crate::metrics::Recorder;
use crate::policy::Policy;
use crate::provider::{Profile, Provider, ProviderConfig, RenewalProfile};
use crate::scheduler::{self, TaskId};
use crate::store::Store;
use crate::token_cache::TokenCache;

impl TokenManager {
    /// A manager with the default settings, in memory only. Opens no socket and starts no thread.
    ///
    /// A setting of the provider that is wrong is kept, and returned by every call.
    pub fn new(provider: impl Provider) -> TokenManager {
        let manager = TokenManager::builder(provider).assemble();
        if let Err(error) = manager.keeper().checked() {
            // `try_token` has no way to say it.
            log::warn!(target: "evertoken", "no token will come: {error}");
        }
        manager
    }

    /// Starts to build a manager with settings of your own.
    pub fn builder(provider: impl Provider) -> TokenManagerBuilder {
        TokenManagerBuilder {
            provider: Box::new(provider),
            store: None,
            fallback_store: None,
            namespace: "evertoken".to_owned(),
            key: None,
            refresh_ahead: None,
            refresh_after: None,
            safety_margin: Policy::default().safety_margin,
            jitter: Policy::default().jitter,
            keep_warm: false,
            max_wait: Duration::from_secs(15),
            backoff: (Policy::default().backoff_min, Policy::default().backoff_max),
            store_check_interval: Duration::from_secs(60),
            watch: false,
            store_down_fetch_interval: None,
            http: HttpConfig::usual(),
            time: Time::System,
            log_metrics_every: None,
        }
    }

    /// A manager of the provider that a configuration describes, [read](ProviderConfig) from a file or from the
    /// [environment](crate::provider::from_env).
    ///
    /// `set_up` makes the settings. It is called for this manager and before that for each of the provider's parents,
    /// which get managers of their own: hand a clone of the store to each. Where there are parents it must not set a
    /// [`key`](TokenManagerBuilder::key), which they would have too. Reads the secrets; opens no connection, unless
    /// there is a ticket to be told to the store.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use evertoken::{MemoryStore, TokenManager};
    /// use evertoken::provider::ProviderConfig;
    ///
    /// let text = r#"{
    ///     "provider": "wecom-js-ticket",
    ///     "kind": "corp",
    ///     "parent": {"provider": "wecom", "corp_id": "ww1234567890abcdef", "secret": {"env": "WECOM_SECRET"}}
    /// }"#;
    /// let config: ProviderConfig = serde_json::from_str(text)?;
    /// let store = MemoryStore::new();
    /// let tickets = TokenManager::from_config(&config, |builder| {
    ///     builder.store(store.clone()).max_wait(Duration::from_secs(20))
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when a secret cannot be read, with the name of its variable or file, when the parent is
    /// not of a kind that fits, and as [`build`](TokenManagerBuilder::build).
    pub fn from_config(
        config: &ProviderConfig,
        set_up: impl Fn(TokenManagerBuilder) -> TokenManagerBuilder,
    ) -> Result<TokenManager, Error> {
        configured(config, &set_up)
    }
}

type SetUp<'a> = &'a dyn Fn(TokenManagerBuilder) -> TokenManagerBuilder;

fn configured(config: &ProviderConfig, set_up: SetUp<'_>) -> Result<TokenManager, Error> {
    let provider = config.provider(&|parent| Ok(Arc::new(configured(parent, set_up)?)))?;
    let is_derived = provider.parent().is_some();
    let builder = set_up(TokenManager::builder(provider));
    if is_derived && builder.key.is_some() {
        return Err(Error::config("a key of its own cannot be set where a parent would get the same one"));
    }
    let manager = builder.build()?;
    if let Some(ticket) = config.ticket()? {
        match manager.set_ticket(ticket) {
            // This manager has it, and tells the others later.
            Err(error) if error.kind() != ErrorKind::Store => return Err(error),
            _ => {}
        }
    }
    Ok(manager)
}

/// Settings of a manager. The defaults suit most programs.
///
/// ```
/// use std::time::Duration;
/// use evertoken::{TokenManager, WeCom};
///
/// let tokens = TokenManager::builder(WeCom::new("corp-id", "app-secret"))
///     .refresh_ahead(Duration::from_secs(600))
///     .max_wait(Duration::from_secs(10))
///     .build()?;
/// # Ok::<(), evertoken::Error>(())
/// ```
#[must_use]
pub struct TokenManagerBuilder {
    provider: Box<dyn Provider>,
    store: Option<Arc<dyn Store>>,
    fallback_store: Option<Arc<dyn Store>>,
    namespace: String,
    key: Option<String>,
    refresh_ahead: Option<Duration>,
    refresh_after: Option<Duration>,
    safety_margin: Duration,
    jitter: f64,
    keep_warm: bool,
    max_wait: Duration,
    backoff: (Duration, Duration),
    store_check_interval: Duration,
    watch: bool,
    store_down_fetch_interval: Option<Duration>,
    http: Arc<HttpConfig>,
    time: Time,
    log_metrics_every: Option<Duration>,
}

impl TokenManagerBuilder {
    /// Shares the token with all managers of the same credential on this store. Default: none, memory only.
    pub fn store(self, store: impl Store) -> Self {
        Self { store: Some(Arc::new(store)), ..self }
    }

    /// A second store, mostly a [`FileStore`](crate::FileStore), that takes the place of the first while that cannot be used:
    /// the managers that share it fetch once among them, where otherwise each process fetches for itself. Default: none.
    ///
    /// Whether the first store works is found out as without a second one: a process that starts meanwhile asks it first.
    /// What the second one has when the first is back is written there, unless there is something newer. It has the same
    /// tokens, so seal both or neither. To
    /// [reject](TokenManager::reject) a token tells those who look at the second one, and is an error all the same as long
    /// as other hosts cannot be told. Where a new token ends the old one, each process still keeps the
    /// [`store_down_fetch_interval`](TokenManagerBuilder::store_down_fetch_interval), for the sake of other hosts. Pushed tickets, refresh
    /// tokens and quotas are kept in the first store alone: a refresh token that was used twice could end a sign-in.
    ///
    /// A fetch that is under way by way of the second store when the first is back does not keep others from fetching by
    /// way of the first. When the first comes and goes, programs that live briefly may fetch once per outage. What is
    /// adopted is compared with the second store first, so a slow one slows each adoption.
    ///
    /// ```no_run
    /// # #[cfg(feature = "redis")] {
    /// use evertoken::{FileStore, RedisStore, TokenManager, WeCom};
    ///
    /// let tokens = TokenManager::builder(WeCom::new("corp-id", "app-secret"))
    ///     .store(RedisStore::open("redis://127.0.0.1/")?)
    ///     .fallback_store(FileStore::new()?)
    ///     .build()?;
    /// # }
    /// # Ok::<(), evertoken::Error>(())
    /// ```
    pub fn fallback_store(self, store: impl Store) -> Self {
        Self { fallback_store: Some(Arc::new(store)), ..self }
    }

    /// What keys in the store begin with: 1 to 64 characters out of `A-Z a-z 0-9 . _ -`. Default: `evertoken`.
    pub fn namespace(self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self }
    }

    /// A full key of your own in the store, in place of the one that is derived from the credential: 1 to 512 printable
    /// ASCII characters without blanks, and no ending such as `:lock` that names what stands beside a record.
    ///
    /// Then nothing checks that the record belongs to this credential: managers of different credentials must not
    /// have one key.
    pub fn key(self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self }
    }

    /// How long before its end a token is renewed in the background. Never more than a third of its lifetime, nor less than
    /// the [`safety_margin`](TokenManagerBuilder::safety_margin), in which callers would wait for it. Default: the
    /// provider's, mostly 300 s.
    pub fn refresh_ahead(self, lead: Duration) -> Self {
        Self { refresh_ahead: Some(lead), ..self }
    }

    /// How long after it was granted a token is renewed, if that is sooner. Default: not set.
    pub fn refresh_after(self, age: Duration) -> Self {
        Self { refresh_after: Some(age), ..self }
    }

    /// How long before its end callers wait for a new token instead of getting the held one. Never more than a tenth
    /// of its lifetime, nor less than the last 5 s (or a hundredth of the lifetime), in which nobody gets it. Default: 60 s.
    pub fn safety_margin(self, margin: Duration) -> Self {
        Self { safety_margin: margin, ..self }
    }

    /// By which part of the lead a renewal is moved at random, so that many processes do not renew at once: from 0 to
    /// 1. Never into the safety margin, so a large part gathers some of them at its start. Default: 0.1.
    pub fn jitter(self, part: f64) -> Self {
        Self { jitter: part, ..self }
    }

    /// Renews the token even if nobody uses it. Default: false, a token that was not used since its last renewal is
    /// left to end.
    pub fn keep_warm(self, keep_warm: bool) -> Self {
        Self { keep_warm, ..self }
    }

    /// How long a call of [`token`](TokenManager::token) may take, all in all. With a store it must be longer than
    /// another process may hold the lease plus a fetch of one's own: 12 s with the default HTTP limits. Default: 15 s.
    pub fn max_wait(self, wait: Duration) -> Self {
        Self { max_wait: wait, ..self }
    }

    /// How long the provider is left alone after a failure: `min`, doubled with each failure in a row up to `max`,
    /// moved by up to a fifth at random. What the provider asks for counts instead, up to an hour; where it says "too much"
    /// and not how long, what is usual there, doubled each time. A refused credential pauses 30 s, a ticket that is
    /// missing 300 s or until it comes. Default: 1 s and 60 s.
    pub fn backoff(self, min: Duration, max: Duration) -> Self {
        Self { backoff: (min, max), ..self }
    }

    /// How old what this manager knows of the store may be: a token in use is compared with the store that often, in
    /// the background. Not less than 100 ms, and where a new token ends the old one not more than half the time that
    /// both work. Default: 60 s.
    pub fn store_check_interval(self, age: Duration) -> Self {
        Self { store_check_interval: age, ..self }
    }

    /// Hears from the store when another manager has changed the record, and reads it then, mostly within 50 ms;
    /// besides what [`store_check_interval`](TokenManagerBuilder::store_check_interval) does. Costs one thread and one connection for
    /// each store, not for each manager. A store that cannot tell (one of your own, perhaps) is only looked at.
    /// Default: false.
    pub fn watch(self, watch: bool) -> Self {
        Self { watch, ..self }
    }

    /// While the store cannot be used: how long after a fetch of its own this process waits before another one.
    /// Default: zero; where a new token ends the old one, the time that both work, mostly 300 s.
    pub fn store_down_fetch_interval(self, interval: Duration) -> Self {
        Self { store_down_fetch_interval: Some(interval), ..self }
    }

    /// How providers are reached: an [`HttpConfig`] or a `ureq::Agent` of your own.
    ///
    /// Do not hand in an agent that has this manager's own middleware: fetching a token would then need a token.
    pub fn http(self, http: impl Into<HttpConfig>) -> Self {
        Self { http: Arc::new(http.into()), ..self }
    }

    /// The clock that lives and pauses go by. Default: the system's.
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { time: Time::Custom(Arc::new(clock)), ..self }
    }

    /// Logs the report of [`metrics`](TokenManager::metrics) that often, at level info, while a token is held. Default:
    /// never.
    pub fn log_metrics_every(self, interval: Duration) -> Self {
        Self { log_metrics_every: Some(interval), ..self }
    }

    /// Checks all settings and makes the manager. Opens no socket and starts no thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with a text that says which setting is wrong.
    pub fn build(self) -> Result<TokenManager, Error> {
        let manager = self.assemble();
        manager.keeper().checked()?;
        Ok(manager)
    }

    /// Builds the manager. The first wrong setting becomes the manager's fault, which every call returns.
    fn assemble(self) -> TokenManager {
        let (described, provider_error) = self.describe_provider();
        let ProviderDescription { identity, profile, renewal } = described;
        let (key, key_error) = match self.checked_key(&identity) {
            Ok(key) => (key, None),
            Err(error) => (Key::unknown(), Some(error)),
        };
        let fault = provider_error.or(key_error).or_else(|| self.check().err());
        let quota = self.place(&identity, Key::quota);
        let keeping = renewal.map(|profile| Keeping { place: self.place(&profile.identity, Key::state), profile });
        let settings = self.settings(&profile);
        let policy = self.policy(&profile);
        self.time.on_jump(scheduler::clock_notifier());
        if self.store.is_none() && keeping.as_ref().is_some_and(|keeping| keeping.profile.rotates) {
            log::warn!(target: "evertoken", "{key}: without a store the latest refresh token is lost when the program ends");
        }
        // A custom key is shared with other programs, whose records name no owner.
        let owner = (self.store.is_some() && self.key.is_none()).then(|| identity.fingerprint());
        let (sharing, stand_in) = self.sharing(&key, &settings, keeping.as_ref(), owner);
        TokenManager::from_keeper(Arc::new_cyclic(|me| Keeper {
            id: TaskId::new(),
            me: me.clone(),
            provider: self.provider,
            profile,
            policy,
            settings,
            key,
            identity,
            keeping,
            quota,
            time: self.time,
            http: Http::new(self.http),
            sharing,
            stand_in,
            events: Events::default(),
            recorder: Recorder::default(),
            fault,
            cache: TokenCache::default(),
            control: Mutex::new(Control::default()),
        }))
    }

    /// Checks the provider and asks it for its properties. Its code is the user's and may panic, even here.
    fn describe_provider(&self) -> (ProviderDescription, Option<Error>) {
        let described = catch_panic(|| {
            self.provider.check()?;
            Ok(ProviderDescription {
                identity: self.provider.identity(),
                profile: self.provider.profile(),
                renewal: self.provider.renewal(),
            })
        });
        match described {
            Ok(described) => (described, None),
            Err(error) => {
                let identity = Identity::new("unknown");
                (ProviderDescription { identity, profile: Profile::default(), renewal: None }, Some(error))
            }
        }
    }

    fn settings(&self, profile: &Profile) -> Settings {
        let overlap = if profile.new_token_ends_old { profile.overlap } else { Duration::ZERO };
        Settings {
            max_wait: self.max_wait,
            fetch_limit: self.http.whole_timeout(),
            keep_warm: self.keep_warm,
            store_check_interval: self
                .store_check_interval
                .min(max_store_check_interval(profile))
                .max(MIN_STORE_CHECK_INTERVAL),
            watch: self.watch,
            store_down_fetch_interval: self.store_down_fetch_interval.unwrap_or(overlap),
            log_metrics_every: self.log_metrics_every,
        }
    }

    fn policy(&self, profile: &Profile) -> Policy {
        Policy {
            refresh_ahead: self.refresh_ahead.unwrap_or(profile.refresh_ahead),
            refresh_after: self.refresh_after,
            earliest_refresh: profile.earliest_refresh,
            safety_margin: self.safety_margin,
            jitter: self.jitter,
            backoff_min: self.backoff.0,
            backoff_max: self.backoff.1,
        }
    }

    /// Returns the access to the primary store and the access to the fallback store.
    fn sharing(&self, key: &Key, settings: &Settings, keeping: Option<&Keeping>, owner: Option<String>) -> Stores {
        let rotating = keeping.filter(|keeping| keeping.profile.rotates);
        let open = |store: &Arc<dyn Store>, secret_of: Option<String>| {
            let limit = settings.lease_limit(secret_of.is_some());
            Sharing::new(store.clone(), key.clone(), owner.clone(), secret_of, limit, self.time.clone())
        };
        let primary = self
            .store
            .as_ref()
            .map(|store| Box::new(open(store, rotating.map(|keeping| keeping.place.identity.clone()))));
        let fallback = primary
            .as_deref()
            .zip(self.fallback_store.as_ref())
            .map(|(primary, store)| Box::new(open(store, None).standing_in_for(primary)));
        (primary, fallback)
    }

    /// Where something is kept for all managers of a credential, whatever key of its own one of them has.
    fn place(&self, identity: &Identity, beside: impl Fn(&Key) -> Key) -> Place {
        // A namespace that makes no key is a fault that every call returns.
        let key = Key::derive(&self.namespace, identity).unwrap_or_else(|_| Key::unknown());
        Place { key: beside(&key), identity: identity.fingerprint() }
    }

    fn checked_key(&self, identity: &Identity) -> Result<Key, Error> {
        let derived = Key::derive(&self.namespace, identity)?;
        self.key.as_deref().map_or(Ok(derived), Key::custom)
    }

    fn check(&self) -> Result<(), Error> {
        self.http.check()?;
        let fetch_limit = self.http.whole_timeout();
        let (min, max) = self.backoff;
        let zero = |setting: Option<Duration>| setting.is_some_and(|setting| setting.is_zero());
        let wrong = if !(0.0..=1.0).contains(&self.jitter) {
            "the jitter must be from 0 to 1"
        } else if self.max_wait.is_zero() {
            "a max_wait of zero leaves no time to fetch a token; use try_token to not wait"
        } else if min.is_zero() || max < min {
            "the backoff must be more than zero, and its maximum not less than its minimum"
        } else if zero(self.refresh_after) {
            "a refresh_after of zero would renew without end"
        } else if zero(self.log_metrics_every) {
            "a log_metrics_every of zero would report without end"
        } else if self.fallback_store.is_some() && self.store.is_none() {
            "a fallback store without a store has nothing to fall back from; make it the store"
        } else if self.key.is_some() && self.store.iter().chain(&self.fallback_store).any(|store| store.is_encrypted())
        {
            "a key of your own is for sharing with other programs, and these cannot read a sealed store"
        } else if self.store.is_some() && self.max_wait <= lease_of(fetch_limit).saturating_add(fetch_limit) {
            "with a store, max_wait must be longer than twice the HTTP time limit and 2 s: another process may be fetching first"
        } else {
            return Ok(());
        };
        Err(Error::config(wrong))
    }
}

impl fmt::Debug for TokenManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenManagerBuilder").field("provider", &self.provider.name()).finish_non_exhaustive()
    }
}

/// The access to the primary store and the access to the fallback store.
type Stores = (Option<Box<Sharing>>, Option<Box<Sharing>>);

/// What a provider says about itself before anything is fetched.
struct ProviderDescription {
    identity: Identity,
    profile: Profile,
    renewal: Option<RenewalProfile>,
}

/// Where a new token ends the old one, it has to be heard of while the old one works.
fn max_store_check_interval(profile: &Profile) -> Duration {
    if profile.new_token_ends_old { profile.overlap / 2 } else { Duration::MAX }
}

/// Looking at the store any more often would be polling it.
const MIN_STORE_CHECK_INTERVAL: Duration = Duration::from_millis(100);
