//! The settings of a manager, which are checked before any connection is opened.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::{Clock, Time};
use crate::error::{Error, ErrorKind, catch_panic};
use crate::event::{Events, format_duration};
use crate::http::{Http, HttpConfig};
use crate::key::{Identity, Key};
use crate::lease::{Place, Sharing, lease_of};
use crate::manager::{Control, Keeper, Keeping, Settings, TokenManager};
use crate::metrics::Recorder;
use crate::policy::Policy;
use crate::provider::{Profile, Provider, ProviderConfig, RenewalProfile};
use crate::scheduler::{self, Group, TaskId};
use crate::store::Store;
use crate::token_cache::TokenCache;

impl TokenManager {
    /// Creates a manager with default settings that keeps its token in memory. Opens no socket and starts no thread.
    ///
    /// This function does not fail. If a setting of the provider is wrong, a warning is logged and every later call
    /// returns the error. [`builder`](TokenManager::builder) returns such an error when the manager is built.
    pub fn new(provider: impl Provider) -> TokenManager {
        let manager = TokenManager::builder(provider).assemble();
        if let Err(error) = manager.keeper().checked() {
            // Logged, because `try_token` returns no error.
            log::warn!(target: "evertoken", "this manager cannot get a token, because a setting is wrong: {error}");
        }
        manager
    }

    /// Creates a builder, for a store or other settings than the default ones.
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
            http: HttpConfig::shared_default(),
            time: Time::System,
            log_metrics_every: None,
        }
    }

    /// Creates a manager for the provider that `config` describes, which was [read](ProviderConfig) from a file or from
    /// the [environment](crate::provider::from_env).
    ///
    /// `set_up` sets the store and everything else. A provider that gets its token in exchange for the token of a
    /// parent has a second manager for the parent, so `set_up` is called once for each: give every manager a clone of
    /// the same store. With a parent, `set_up` must not set a [`key`](TokenManagerBuilder::key), because both managers
    /// would get the same one.
    ///
    /// Reads the secrets from their files and variables. Opens no connection, except to store the ticket if the
    /// configuration contains one.
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
    /// [`ErrorKind::Config`] when a secret cannot be read (the text names the variable or the file), when the parent
    /// has the wrong kind, and in the cases of [`build`](TokenManagerBuilder::build).
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
        return Err(Error::config(
            "key(..) is set, but this provider has a parent, whose manager would get the same key; remove it",
        ));
    }
    let manager = builder.build()?;
    if let Some(ticket) = config.ticket()? {
        match manager.set_ticket(ticket) {
            // The manager has the ticket and writes it to the store later.
            Err(error) if error.kind() != ErrorKind::Store => return Err(error),
            _ => {}
        }
    }
    Ok(manager)
}

/// The settings of a [`TokenManager`]. The defaults suit most programs.
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
    /// Shares the token, the fetch, failures and rejections with all managers of the same credential on `store`.
    ///
    /// Default: no store; the token is kept in the memory of this manager.
    pub fn store(self, store: impl Store) -> Self {
        Self { store: Some(Arc::new(store)), ..self }
    }

    /// Sets a fallback store, usually a [`FileStore`](crate::FileStore), for outages of the primary
    /// [`store`](Self::store).
    ///
    /// During an outage, all managers on the same fallback store fetch once together. Without a fallback store, each
    /// process fetches for itself. Default: none.
    ///
    /// - When the primary store is back, a newer token in the fallback store is copied to the primary one.
    /// - Both stores hold the same tokens. Encrypt both or neither.
    /// - During an outage, [`reject`](TokenManager::reject) takes effect for all managers on the fallback store, and
    ///   still returns an error, because other hosts have not been told.
    /// - Where a new token ends the old one, each process still observes
    ///   [`store_down_fetch_interval`](Self::store_down_fetch_interval), because other hosts may be fetching too.
    /// - Pushed tickets, refresh tokens and quotas are kept in the primary store only: using a refresh token twice
    ///   could end a sign-in.
    /// - A process that starts during an outage tries the primary store first. Programs that run briefly may therefore
    ///   fetch once per outage when the primary store comes and goes.
    /// - If the primary store comes back during a fetch under the fallback store's lease, a second fetch can start under
    ///   the primary store's lease.
    /// - A record of the primary store is compared with the fallback store before it is used, so a slow fallback store
    ///   slows this down.
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

    /// Sets the prefix of all keys in the store: 1 to 64 characters out of `A-Z a-z 0-9 . _ -`. Default: `evertoken`.
    pub fn namespace(self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self }
    }

    /// Sets the full key of the record in the store. Default: a key derived from provider, host, ids, scope and secret.
    ///
    /// The key has 1 to 512 printable ASCII characters without blanks, and does not end with a suffix such as `:lock`
    /// that the crate appends for its own entries.
    ///
    /// With a key of your own, the manager does not check that the record belongs to its credential. Never give
    /// managers of different credentials the same key.
    pub fn key(self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self }
    }

    /// Sets how long before its end a token is refreshed in the background. Default: the provider's value, usually 300
    /// s.
    ///
    /// The manager limits the value to at most a third of the lifetime, and to at least the
    /// [`safety_margin`](Self::safety_margin), inside which callers wait.
    pub fn refresh_ahead(self, lead: Duration) -> Self {
        Self { refresh_ahead: Some(lead), ..self }
    }

    /// Sets the age at which a token is refreshed in the background. [`refresh_ahead`](Self::refresh_ahead) still applies
    /// when it comes first. Default: not set.
    pub fn refresh_after(self, age: Duration) -> Self {
        Self { refresh_after: Some(age), ..self }
    }

    /// Sets how long before its end callers wait for a new token instead of getting the current one at once.
    /// Default: 60 s.
    ///
    /// If the fetch fails, callers still get the current token, until 5 s (or a hundredth of the lifetime, if that is
    /// shorter) before its end. The manager limits the margin to at most a tenth of the lifetime, and to at least these
    /// 5 s.
    pub fn safety_margin(self, margin: Duration) -> Self {
        Self { safety_margin: margin, ..self }
    }

    /// Sets how far a background refresh is moved at random, as a fraction (0 to 1) of the time between the refresh and the
    /// token's end. Default: 0.1.
    ///
    /// Jitter keeps many processes from refreshing at the same time. A refresh is never moved into the safety margin,
    /// so with a large value some refreshes gather at the start of the margin.
    pub fn jitter(self, part: f64) -> Self {
        Self { jitter: part, ..self }
    }

    /// Refreshes the token even when no caller uses it. Default: false; a token that no caller has read since its last
    /// refresh is left to expire.
    pub fn keep_warm(self, keep_warm: bool) -> Self {
        Self { keep_warm, ..self }
    }

    /// Sets how long a call of [`token`](TokenManager::token) blocks at most. Default: 15 s.
    ///
    /// With a store, another process may be fetching first, so `max_wait` must be longer than a lease and a fetch
    /// together: twice the HTTP time limit and 2 s, which is 12 s with the default limit of 5 s.
    pub fn max_wait(self, wait: Duration) -> Self {
        Self { max_wait: wait, ..self }
    }

    /// Sets the cooldown after a failed fetch: `min`, doubled with each failure in a row, up to `max`. Default: 1 s and
    /// 60 s.
    ///
    /// The cooldown is moved by up to a fifth at random. During the cooldown nothing is sent to the provider, and calls
    /// return the error of the failed fetch unless a valid token is left. Other cooldowns apply
    ///
    /// - when the provider says how long to wait, for example with `Retry-After`: as long as that, up to an hour;
    /// - when the provider throttles and does not say how long: the vendor's usual time, doubled with each failure;
    /// - when the provider refuses the credentials: 30 s;
    /// - when a pushed ticket is missing: 300 s, or until the ticket arrives.
    pub fn backoff(self, min: Duration, max: Duration) -> Self {
        Self { backoff: (min, max), ..self }
    }

    /// Sets how often the manager compares a token in use with the store, in the background. Default: 60 s.
    ///
    /// Rejections and new tokens of other processes take effect here within this time. The manager limits the value to
    /// at least 100 ms. Where a new token ends the old one, the value is also limited to half of
    /// [`Profile::overlap`](crate::provider::Profile::overlap).
    pub fn store_check_interval(self, age: Duration) -> Self {
        Self { store_check_interval: age, ..self }
    }

    /// Makes the store notify this manager when another manager changes the record. Default: false.
    ///
    /// The manager reads a changed record usually within 50 ms, in addition to the comparison of every
    /// [`store_check_interval`](Self::store_check_interval). Costs one thread and one connection for each store, not
    /// for each manager. The setting has no effect with a store that cannot notify.
    pub fn watch(self, watch: bool) -> Self {
        Self { watch, ..self }
    }

    /// Sets how long this process waits between two fetches of its own while the store cannot be used.
    ///
    /// Default: zero. Where a new token ends the old one, the default is the time for which both are valid, usually 300
    /// s: otherwise processes that fetch for themselves would end each other's tokens.
    pub fn store_down_fetch_interval(self, interval: Duration) -> Self {
        Self { store_down_fetch_interval: Some(interval), ..self }
    }

    /// Sets how providers are reached: an [`HttpConfig`] or your own [`ureq::Agent`].
    ///
    /// Do not use an agent that has this manager's own [`middleware`](TokenManager::middleware): a fetch would then
    /// need the token that it fetches.
    pub fn http(self, http: impl Into<HttpConfig>) -> Self {
        Self { http: Arc::new(http.into()), ..self }
    }

    /// Sets the clock for lifetimes and cooldowns, usually in tests. Default: the clocks of the operating system.
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { time: Time::Custom(Arc::new(clock)), ..self }
    }

    /// Logs the report of [`metrics`](TokenManager::metrics) at this interval, at level info, while the manager has a
    /// token. Default: never.
    pub fn log_metrics_every(self, interval: Duration) -> Self {
        Self { log_metrics_every: Some(interval), ..self }
    }

    /// Checks all settings and creates the manager. Opens no socket and starts no thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with a text that names the wrong setting.
    pub fn build(self) -> Result<TokenManager, Error> {
        let manager = self.assemble();
        manager.keeper().checked()?;
        Ok(manager)
    }

    /// Builds the manager. The error of the first wrong setting is kept in the manager, and every call returns it.
    fn assemble(self) -> TokenManager {
        let (described, provider_error) = self.describe_provider();
        let ProviderDescription { identity, profile, renewal } = described;
        let (key, key_error) = match self.checked_key(&identity) {
            Ok(key) => (key, None),
            Err(error) => (Key::unknown(), Some(error)),
        };
        let fault = provider_error.or(key_error).or_else(|| self.check().err());
        let quota = self.place(&identity, Key::quota);
        let keeping =
            renewal.map(|profile| Keeping { place: self.place(&profile.identity, Key::renewal_secret), profile });
        let settings = self.settings(&profile);
        let policy = self.policy(&profile);
        self.time.on_jump(scheduler::clock_notifier());
        if self.store.is_none() && keeping.as_ref().is_some_and(|keeping| keeping.profile.rotates) {
            log::warn!(
                target: "evertoken",
                "{key}: without a store, the latest refresh token is lost when the program ends; set one with store(..)"
            );
        }
        // A custom key is shared with other programs, whose records name no owner.
        let owner = (self.store.is_some() && self.key.is_none()).then(|| identity.fingerprint());
        let (sharing, stand_in) = self.sharing(&key, &settings, keeping.as_ref(), owner);
        TokenManager::from_keeper(Arc::new_cyclic(|me| Keeper {
            id: TaskId::new(Group::of(identity.service())),
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

    /// Checks the provider and reads its properties. A provider is the user's code, so even these functions may panic.
    fn describe_provider(&self) -> (ProviderDescription, Option<Error>) {
        let described = catch_panic(|| {
            self.http.allowing_plain_http(|| self.provider.check())?;
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

    /// Returns where a sidecar, such as the quota count, is stored. Managers of the same credential share the place, even if one of them has a key of its own for the token.
    fn place(&self, identity: &Identity, beside: impl Fn(&Key) -> Key) -> Place {
        // `checked_key` reports a wrong namespace, and every call returns that error. The key is never used then.
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
        let min_max_wait = lease_of(fetch_limit).saturating_add(fetch_limit);
        let zero = |setting: Option<Duration>| setting.is_some_and(|setting| setting.is_zero());
        let wrong = if !(0.0..=1.0).contains(&self.jitter) {
            "jitter must be a number from 0 to 1"
        } else if self.max_wait.is_zero() {
            "max_wait is zero, which leaves no time to fetch a token; set more, or call try_token, which does not wait"
        } else if min.is_zero() || max < min {
            "backoff: the minimum must be more than zero, and the maximum at least the minimum"
        } else if zero(self.refresh_after) {
            "refresh_after is zero, so each token would be refreshed as soon as it is granted; set more"
        } else if zero(self.log_metrics_every) {
            "log_metrics_every is zero; set the time between two reports"
        } else if self.fallback_store.is_some() && self.store.is_none() {
            "fallback_store is set, but no store; set it with store(..) instead"
        } else if self.key.is_some() && self.store.iter().chain(&self.fallback_store).any(|store| store.is_encrypted())
        {
            "key(..) is for records that other programs read too, and these cannot read an encrypted store; remove one"
        } else if self.store.is_some() && self.max_wait <= min_max_wait {
            return Err(Error::config(format!(
                "with a store, max_wait must be longer than {}, which is twice the HTTP time limit plus 2 s: another \
                 process may fetch first",
                format_duration(min_max_wait)
            )));
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

/// The properties of a provider, read before anything is fetched.
struct ProviderDescription {
    identity: Identity,
    profile: Profile,
    renewal: Option<RenewalProfile>,
}

/// Returns the longest interval at which the store may be compared: where a new token ends the old one, other processes
/// must learn of the new token while the old one is still valid.
fn max_store_check_interval(profile: &Profile) -> Duration {
    if profile.new_token_ends_old { profile.overlap / 2 } else { Duration::MAX }
}

/// The shortest interval at which the store is compared. A shorter one would be polling.
const MIN_STORE_CHECK_INTERVAL: Duration = Duration::from_millis(100);
