//! A store that many hosts share: Redis, or Valkey, which speaks the same.

mod breaker;
mod config;
mod connection;
mod queue;
mod scripts;
#[cfg(feature = "redis-sentinel")]
mod sentinel;
mod wait;
mod watcher;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use config::RedisConfig;

use crate::clock::{Deadline, Notifier};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::lock::lock;
use crate::store::{
    Cursor, Expected, LeaseOutcome, LeaseOwner, PublishOutcome, Store, Subscription, SwapOutcome, Version,
};
use breaker::Breaker;
use connection::{Connection, RedisError, RedisErrorKind};
use queue::{ConnectionQueue, Permit, Priority};
use scripts::{ScriptCall, ScriptReply};
use wait::Waiters;
use watcher::Watcher;

/// Keeps records in a Redis or Valkey, for all processes on all hosts that share it. Clones share one connection.
///
/// Nothing is connected before it is needed. Every operation is one script on the server. It waits for its turn, for 0.4 s at
/// most and for 2 s if it is about what is [done once](crate::idempotency::Idempotency); then it has half a second, and when its answer is
/// lost it is repeated within that. A server that sends its answer byte by byte can exceed that, so managers ask on a thread
/// aside and wait a second at most, or two to store a refresh token. They treat a server that does not answer as
/// [down](crate::EventKind::StoreDown), and tokens keep coming. After three failures in a row the server is left alone, for
/// 1 s at first and 30 s at most; after one that lasts until somebody mends a setting, for 30 s at once. The log says once
/// that it cannot be used, and once that it works again.
///
/// Hand clones of one store to all managers of a process: it has one connection for all of them, one more if any of them
/// watches, and at most eight more while they wait for other processes.
///
/// ```no_run
/// use evertoken::{RedisStore, TokenManager, WeCom};
///
/// let tokens = TokenManager::builder(WeCom::new("corp-id", "app-secret"))
///     .store(RedisStore::open("redis://127.0.0.1/")?)
///     .build()?;
/// # Ok::<(), evertoken::Error>(())
/// ```
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    config: RedisConfig,
    queue: ConnectionQueue,
    breaker: Mutex<Breaker>,
    /// What does not work, and the log has been told of.
    outage: Mutex<Option<Outage>>,
    waiters: Waiters,
    watcher: Watcher,
}

struct Outage {
    error: Error,
    /// Then reading is no sign that it is over.
    affects_only_writes: bool,
}

impl RedisStore {
    /// A store on the server at this URL: see [`RedisConfig::from_url`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`]. Whether there is a server is not asked.
    pub fn open(url: &str) -> Result<RedisStore, Error> {
        RedisStore::new(RedisConfig::from_url(url)?)
    }

    /// A store on what `config` describes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when a setting is wrong. Whether there is a server is not asked.
    pub fn new(config: RedisConfig) -> Result<RedisStore, Error> {
        config.check()?;
        Ok(RedisStore(Arc::new(Inner {
            config,
            queue: ConnectionQueue::default(),
            breaker: Mutex::default(),
            outage: Mutex::default(),
            waiters: Waiters::default(),
            watcher: Watcher::default(),
        })))
    }
}

impl Store for RedisStore {
    fn read(&self, key: &Key) -> Result<Option<crate::store::Entry>, Error> {
        self.0.run_or_fail(key, &scripts::read(key), ScriptReply::into_entry)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        self.0.run_or_fail(key, &scripts::compare_and_swap(key, expected, new), ScriptReply::into_swap_outcome)
    }

    fn read_or_lease(
        &self,
        key: &Key,
        not: Option<&Version>,
        at_least: Duration,
        owner: &LeaseOwner,
        lease: Duration,
    ) -> Result<LeaseOutcome, Error> {
        let call = scripts::read_or_lease(key, not, at_least, owner, lease);
        let leasing = self.0.ask(&call, Priority::Read, ScriptReply::into_lease_outcome)?;
        // Where many want something at once, this one comes again.
        let later = || LeaseOutcome::Busy { remaining: Duration::ZERO, cursor: Cursor::new(not.cloned()) };
        Ok(leasing.unwrap_or_else(later))
    }

    fn publish(
        &self,
        key: &Key,
        owner: &LeaseOwner,
        seen: Option<&Version>,
        bytes: &[u8],
        lifetime: Duration,
    ) -> Result<PublishOutcome, Error> {
        self.0.run_or_fail(key, &scripts::publish(key, owner, seen, bytes, lifetime), ScriptReply::into_publish_outcome)
    }

    fn wait(&self, key: &Key, cursor: &Cursor, deadline: Instant) -> Result<(), Error> {
        self.0.wait(key, cursor, Deadline::at(deadline))
    }

    fn watch(&self, key: &Key, notifier: Notifier) -> Option<Subscription> {
        Some(self.0.watch(key, notifier))
    }

    fn logs_its_trouble(&self) -> bool {
        true
    }
}

impl Inner {
    /// Asks the server, unless it is to be left alone. `Ok(None)`: so much is asked of it that this one did not get its
    /// turn in time.
    fn ask<T>(
        &self,
        call: &ScriptCall,
        priority: Priority,
        read: impl Fn(ScriptReply) -> Result<T, RedisError>,
    ) -> Result<Option<T>, Error> {
        let left_alone = |rest| {
            let why = lock(&self.outage).as_ref().map(|outage| format!(": {}", outage.error)).unwrap_or_default();
            Error::new(ErrorKind::Store, format!("redis does not work and is left alone{why}")).with_retry_after(rest)
        };
        let rest =
            lock(&self.breaker).remaining_backoff().or_else(|| self.queue.is_stuck().then_some(OPERATION_TIMEOUT));
        if let Some(rest) = rest {
            return Err(left_alone(rest));
        }
        let Some(permit) = self.queue.acquire(Deadline::within(priority.max_queue_time()), priority) else {
            return Ok(None);
        };
        if permit.previous_hung {
            self.note_failure(&RedisError::lost("redis did not answer in time"));
        }
        // Those that had their turn before this one may have found out that it does not work.
        lock(&self.breaker).admit(OPERATION_TIMEOUT).map_err(left_alone)?;
        let answer = self.run_with_retry(permit, call, read, Deadline::within(OPERATION_TIMEOUT));
        match &answer {
            Ok((_, wrote)) => self.note_success(*wrote),
            Err(error) => self.note_failure(error),
        }
        answer.map(|(value, _)| Some(value)).map_err(|error| error.error)
    }

    fn note_success(&self, wrote: bool) {
        if lock(&self.breaker).succeeded() {
            self.watcher.recover();
        }
        let is_over = {
            let mut outage = lock(&self.outage);
            outage.take_if(|outage| wrote || !outage.affects_only_writes).is_some()
        };
        if is_over {
            log::info!(target: "evertoken", "redis works again");
        }
    }

    fn note_failure(&self, error: &RedisError) {
        if error.kind == RedisErrorKind::WrongKey {
            return;
        }
        lock(&self.breaker).failed(error.needs_new_settings(), fastrand::f64());
        let outage = Outage { error: error.error.clone(), affects_only_writes: error.affects_only_writes() };
        let before = lock(&self.outage).replace(outage);
        if before.is_none() {
            log::warn!(target: "evertoken", "redis cannot be used: {}", error.error);
        }
    }

    fn run_or_fail<T>(
        &self,
        key: &Key,
        call: &ScriptCall,
        read: impl Fn(ScriptReply) -> Result<T, RedisError>,
    ) -> Result<T, Error> {
        let priority = if key.is_done_once() { Priority::Low } else { Priority::Write };
        let too_much = || Error::new(ErrorKind::Store, "too much is asked of redis at once");
        self.ask(call, priority, read)?.ok_or_else(too_much)
    }

    /// The answer, and whether something was written.
    fn run_with_retry<T>(
        &self,
        mut permit: Permit<'_>,
        call: &ScriptCall,
        read: impl Fn(ScriptReply) -> Result<T, RedisError>,
        deadline: Deadline,
    ) -> Result<(T, bool), RedisError> {
        match self.run_once(&mut permit, call, &read, deadline, false) {
            // On a new connection, which leads to the new master if there is one.
            Err(error) if error.is_retryable() && !deadline.has_passed() => {
                self.run_once(&mut permit, call, &read, deadline, true)
            }
            other => other,
        }
    }

    fn run_once<T>(
        &self,
        permit: &mut Permit<'_>,
        call: &ScriptCall,
        read: impl Fn(ScriptReply) -> Result<T, RedisError>,
        deadline: Deadline,
        again: bool,
    ) -> Result<(T, bool), RedisError> {
        // Taken out while it is in use: only when it is known to be in order it goes back.
        let mut connection = match permit.connection.take().filter(Connection::is_of_this_process) {
            Some(connection) => connection,
            None => Connection::open(&self.config, deadline)?,
        };
        let answer = call.ask(&mut connection, self.config.command_timeout(), deadline, again).and_then(|reply| {
            let wrote = reply.has_written();
            Ok((read(reply)?, wrote))
        });
        if answer.as_ref().err().is_none_or(|error| !error.breaks_connection()) {
            permit.connection = Some(connection);
        }
        answer
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisStore").field(&self.0.config).finish()
    }
}

impl Priority {
    /// How long an operation waits for its turn. What is to be done once is not done without the store, so it waits longer.
    fn max_queue_time(self) -> Duration {
        if self == Priority::Low { MAX_LOW_PRIORITY_QUEUE_TIME } else { MAX_QUEUE_TIME }
    }
}

const MAX_QUEUE_TIME: Duration = Duration::from_millis(400);

/// With the operation itself it stays below the three seconds for which a step of what is done once is waited for.
const MAX_LOW_PRIORITY_QUEUE_TIME: Duration = Duration::from_secs(2);

/// What an operation may take, all in all, when it has its turn.
const OPERATION_TIMEOUT: Duration = Duration::from_millis(500);
