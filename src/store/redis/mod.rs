//! A store on a Redis or Valkey server, for processes on many hosts.
//!
//! # Theory of operation
//!
//! **Keys.** A credential's record is a string under `<namespace>:{v1:<hash>}`, with an expiry. Records beside it end
//! in `:lock` (the lease; its value is the owner), `:state` (renewal secret) and `:quota`; operations of `idempotency`
//! end in `:once`. `:news` is a stream with one entry, which announces that the record has changed. The braces put all
//! keys of a credential into one slot of a cluster, so that one script can use them together. A value of another type,
//! of more than 128 KiB or without an expiry may be under any key: it counts as unreadable or expired, and is replaced.
//!
//! **Operations.** Each store operation is one Lua script, which Redis runs atomically; `scripts` explains each of
//! them.
//!
//! | operation | script | commands that it runs |
//! | --- | --- | --- |
//! | `read` | `READ` | `TYPE`, `STRLEN`, `GET`, `PTTL` on the record |
//! | `read_or_lease` | `READ_OR_LEASE` | the same; `SET` on the lease; `XREVRANGE` on the stream |
//! | `publish` | `PUBLISH` | the same; `SET` on the record, `DEL` on the lease, `XADD` on the stream |
//! | `compare_and_swap` | `COMPARE_AND_SWAP` | the same; `SET` or `DEL` on the record, `XADD` on the stream |
//! | `wait` | `CHECK_FOR_CHANGE` | `PTTL` on the lease, the record's version; then `XREAD BLOCK` |
//! | `watch` | `LAST_POSITIONS` | `XREVRANGE` on the streams; then `XREAD BLOCK` on all of them |
//!
//! **Connections.** All operations of a store share one connection, which `queue` hands to one operation at a time:
//! publications and other writes first, then requests for a lease and polls, then operations of `idempotency`. An
//! operation waits 400 ms for the connection at most (2 s for `idempotency`), and then has 500 ms. The store opens a
//! connection when an operation finds none, on a helper thread if name resolution could block. Waiting (`wait`) uses up
//! to 8 more connections, because `XREAD BLOCK` occupies one, and watching (`watcher`) uses one. A forked child opens
//! connections of its own.
//!
//! **Errors.** `error` sorts failures by what they mean for the connection:
//!
//! - The server's complete error reply (out of memory, loading, a wrong key): the connection stays.
//! - A refusal that lasts until a person changes a setting (a password, a right, TLS), or a server with too many clients:
//!   the connection is closed, because the server may have closed it.
//! - No first reply on a new connection: the store asks once, without a password, whether the server expects TLS or
//!   speaks none, because neither kind of server says so. See [`Connection::explain`].
//! - No reply, a broken connection or a reply that makes no sense: the connection is closed, because a late reply could
//!   be taken for the reply to the next command. If time is left, the operation is sent once more on a new connection,
//!   marked `again`, because the server may have performed it.
//! - `READONLY`: the server became a replica. The operation is sent once more on a new connection, which leads to the
//!   new master where sentinels or a cluster are configured.
//!
//! **The breaker.** Three failures in a row, or one that lasts until a setting changes (a wrong password), open
//! `breaker`: operations then fail at once, without a round trip, until a probe succeeds. An error about a single key
//! or about a claim that too few replicas confirmed does not count. While three operations hang, the store sends nothing either. The log reports the first failure and
//! the first success after it. A full server or a replica answers reads, so only a successful write ends that report.
//!
//! **Promises.** A script takes effect once, even when its reply is lost and it is sent again. No operation takes
//! longer than its time in the queue, its 500 ms, and the last step of a server that sends its reply in pieces. Records
//! that the server loses, by eviction or by a failover before replication, are fetched again by the managers.

mod address;
mod breaker;
mod config;
mod connect;
mod connection;
mod error;
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
use crate::name::unique_name;
use crate::store::{
    Cursor, Expected, LeaseOutcome, LeaseOwner, PublishOutcome, Store, Subscription, SwapOutcome, Version,
};
use breaker::Breaker;
use config::OPERATION_TIMEOUT;
use connection::Connection;
use error::{MalformedReply, RedisError, RedisErrorKind};
use queue::{ConnectionQueue, Permit, Priority};
use scripts::{ScriptCall, ScriptReply};
use wait::Waiters;
use watcher::Watcher;

/// A store on a Redis or Valkey server, shared by processes on many hosts.
///
/// Creating a store opens no connection. Clones share one connection, so hand clones of one store to all managers of a
/// process. In addition the store opens one connection while managers watch for changes, and eight at most while they
/// wait for other processes.
///
/// Each operation is one script on the server. An operation waits up to 0.4 s for the connection (up to 2 s for
/// [idempotency](crate::idempotency::Idempotency)) and then takes half a second at most, including a second attempt
/// when the reply was lost. A server that sends its reply in small pieces can exceed that; managers then stop waiting
/// after one second, or after two when they store a renewal secret.
///
/// Managers report a server that fails as [down](crate::EventKind::StoreDown), and tokens keep coming. After three
/// failures in a row the store stops asking the server, for 1 s at first and for about 30 s at most; after a failure
/// that needs a changed setting, such as a wrong password, for about 30 s at once. The log reports once that the server
/// cannot be used, and once that it works again.
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
    /// The failure that the log has reported and that is not over.
    outage: Mutex<Option<Outage>>,
    waiters: Waiters,
    watcher: Watcher,
}

struct Outage {
    error: Error,
    /// Whether reads may still work, so that a successful read does not end the outage.
    affects_only_writes: bool,
}

impl RedisStore {
    /// Creates a store on the server that `url` names; [`RedisConfig::from_url`] describes the URL. Opens no
    /// connection.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the URL is wrong. A server that cannot be reached is no error here.
    pub fn open(url: &str) -> Result<RedisStore, Error> {
        RedisStore::new(RedisConfig::from_url(url)?)
    }

    /// Creates a store with these settings. Opens no connection.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when a setting is wrong. A server that cannot be reached is no error here.
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
        let outcome = self.0.run(&call, Priority::Normal, ScriptReply::into_lease_outcome)?;
        // When the connection did not become free in time, the caller asks again, as if another process had the lease.
        let retry_now = || LeaseOutcome::Busy { remaining: Duration::ZERO, cursor: Cursor::new(not.cloned()) };
        Ok(outcome.unwrap_or_else(retry_now))
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

    fn logs_outages(&self) -> bool {
        true
    }

    /// Connects anew and runs the store's scripts on records of its own, which are removed and expire after a second.
    ///
    /// Takes two seconds at most. Reports a missing right to a command, not to a key: the store does not know which
    /// [namespace](crate::TokenManagerBuilder::namespace) its managers use.
    /// [`TokenManager::check`](crate::TokenManager::check) asks for the manager's own key as well.
    fn check(&self) -> Result<(), Error> {
        let owner = LeaseOwner::new(unique_name()?);
        match self.0.check(&Key::probe(), &owner, Deadline::within(CHECK_TIMEOUT)) {
            Err(error) if error.kind != RedisErrorKind::ForbiddenKey => Err(error.error),
            _ => Ok(()),
        }
    }
}

impl Inner {
    /// Runs a script, unless the breaker is open. `Ok(None)` when the connection did not become free in time.
    fn run<T>(
        &self,
        call: &ScriptCall,
        priority: Priority,
        parse: impl Fn(ScriptReply) -> Result<T, MalformedReply>,
    ) -> Result<Option<T>, Error> {
        let backoff = lock(&self.breaker).remaining_backoff();
        if let Some(backoff) = backoff.or_else(|| self.queue.is_stuck().then_some(OPERATION_TIMEOUT)) {
            return Err(self.unavailable(backoff));
        }
        let deadline = Deadline::within(priority.max_queue_time());
        let Some(permit) = self.queue.acquire(deadline, priority) else { return Ok(None) };
        if permit.previous_hung {
            self.note_failure(&RedisError::timed_out(&self.config.endpoint()));
        }
        // Operations that had the connection before this one may have opened the breaker.
        lock(&self.breaker).admit(OPERATION_TIMEOUT).map_err(|backoff| self.unavailable(backoff))?;
        let outcome = self.run_with_retry(permit, call, parse, Deadline::within(OPERATION_TIMEOUT));
        match &outcome {
            Ok((_, wrote)) => self.note_success(*wrote),
            Err(error) => self.note_failure(error),
        }
        outcome.map(|(value, _)| Some(value)).map_err(|error| error.error)
    }

    /// As [`run`](Inner::run), for operations that the caller cannot simply repeat.
    fn run_or_fail<T>(
        &self,
        key: &Key,
        call: &ScriptCall,
        parse: impl Fn(ScriptReply) -> Result<T, MalformedReply>,
    ) -> Result<T, Error> {
        let priority = if key.is_operation() { Priority::Low } else { Priority::High };
        self.run(call, priority, parse)?.ok_or_else(|| {
            let text =
                format!("too many concurrent Redis operations wait for {}; try again later", self.config.endpoint());
            Error::new(ErrorKind::Store, text)
        })
    }

    /// The error that is returned while the breaker is open; quotes the failure that opened it.
    fn unavailable(&self, backoff: Duration) -> Error {
        let cause = lock(&self.outage).as_ref().map(|outage| format!("; the last error was: {}", outage.error));
        let endpoint = self.config.endpoint();
        let text = format!("{endpoint} is unavailable; retrying in {backoff:.1?}{}", cause.unwrap_or_default());
        Error::new(ErrorKind::Store, text).with_retry_after(backoff)
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
            log::info!(target: "evertoken", "{} works again", self.config.endpoint());
        }
    }

    fn note_failure(&self, error: &RedisError) {
        if error.concerns_one_operation() {
            return;
        }
        lock(&self.breaker).failed(error.needs_new_settings(), fastrand::f64());
        let outage = Outage { error: error.error.clone(), affects_only_writes: error.affects_only_writes() };
        let before = lock(&self.outage).replace(outage);
        if before.is_none() {
            log::warn!(target: "evertoken", "the Redis store cannot be used: {}", error.error);
        }
    }

    /// Runs a script, and once more if the first attempt failed in a way that a new connection may repair. Returns the
    /// parsed reply, and whether the script wrote a record.
    fn run_with_retry<T>(
        &self,
        mut permit: Permit<'_>,
        call: &ScriptCall,
        parse: impl Fn(ScriptReply) -> Result<T, MalformedReply>,
        deadline: Deadline,
    ) -> Result<(T, bool), RedisError> {
        match self.run_once(&mut permit, call, &parse, deadline, false) {
            Err(error) if error.is_retryable() && !deadline.has_passed() => {
                self.run_once(&mut permit, call, &parse, deadline, true)
            }
            other => other,
        }
    }

    fn run_once<T>(
        &self,
        permit: &mut Permit<'_>,
        call: &ScriptCall,
        parse: impl Fn(ScriptReply) -> Result<T, MalformedReply>,
        deadline: Deadline,
        again: bool,
    ) -> Result<(T, bool), RedisError> {
        // Taken out of the permit while in use, and put back only when it is known to be usable. A panic or an early
        // return therefore closes it.
        let mut connection = match permit.connection.take().filter(Connection::is_of_this_process) {
            Some(connection) => connection,
            None => connect::open(&self.config, deadline)?,
        };
        let outcome = call.run(&mut connection, self.config.command_timeout(), deadline, again).and_then(|reply| {
            let wrote = reply.has_written();
            // A write that the holder of a claim repeats may have been performed before, by the same connection.
            if call.needs_replicas && (wrote || call.undo.is_none()) {
                self.wait_for_replicas(&mut connection, call.undo.as_deref(), deadline)?;
            }
            Ok((parse(reply).map_err(|MalformedReply| connection.malformed_reply())?, wrote))
        });
        // Without TLS only after the second attempt, because a server that lost one reply needs no explanation. With TLS
        // at once, because a server that is silent has used up the time of a second attempt.
        let outcome = outcome.map_err(|error| match again || self.config.uses_tls() {
            true => connection.explain(error, &self.config, deadline),
            false => error,
        });
        if outcome.as_ref().err().is_none_or(|error| !error.breaks_connection()) {
            permit.connection = Some(connection);
        }
        outcome
    }

    /// Runs each script that the managers and idempotency cannot do without, on a connection of its own, whatever the breaker says.
    fn check(&self, key: &Key, owner: &LeaseOwner, deadline: Deadline) -> Result<(), RedisError> {
        let timeout = self.config.command_timeout();
        let mut connection = connect::open(&self.config, deadline.min(Deadline::within(OPERATION_TIMEOUT)))?;
        let lifetime = PROBE_LIFETIME;
        let operation = key.operation();
        let probe = (&b"check"[..], lifetime);
        let calls = [
            scripts::read_or_lease(key, None, lifetime, owner, lifetime),
            scripts::publish(key, owner, None, probe.0, lifetime),
            scripts::read(key),
            scripts::check_for_change(key),
            scripts::compare_and_swap(key, Expected::Any, None),
            scripts::compare_and_swap(&operation, Expected::Any, Some(probe)),
        ];
        let mut run = |call: &ScriptCall| {
            let reply = call.run(&mut connection, timeout, deadline, false);
            reply.map(drop).map_err(|error| connection.explain(error, &self.config, deadline))
        };
        calls.iter().try_for_each(&mut run)?;
        let removal = scripts::compare_and_swap(&operation, Expected::Any, None);
        let replicated = self.wait_for_replicas(&mut connection, None, deadline);
        removal.run(&mut connection, timeout, deadline, false)?;
        replicated
    }

    /// Waits until as many replicas as the settings ask for have confirmed what was written over this connection. When
    /// too few do in time, `undo` takes the write back as far as possible.
    fn wait_for_replicas(
        &self,
        connection: &mut Connection,
        undo: Option<&ScriptCall>,
        deadline: Deadline,
    ) -> Result<(), RedisError> {
        let Some((needed, limit)) = self.config.replicas() else { return Ok(()) };
        let timeout = self.config.command_timeout();
        let limit = limit.min(deadline.remaining());
        let reply = connection.request(&scripts::wait_for_replicas(needed, limit), limit.saturating_add(timeout))?;
        let redis::Value::Int(confirmed) = reply else { return Err(connection.malformed_reply()) };
        if confirmed >= i64::from(needed) {
            return Ok(());
        }
        if let Some(undo) = undo {
            // If this fails, the claim expires by itself.
            undo.run(connection, timeout, Deadline::within(UNDO_TIME), false)?;
        }
        Err(RedisError::unreplicated(&self.config.endpoint(), confirmed, needed))
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisStore").field(&self.0.config).finish()
    }
}

impl Priority {
    /// Returns how long an operation waits for the connection.
    fn max_queue_time(self) -> Duration {
        if self == Priority::Low { MAX_LOW_PRIORITY_QUEUE_TIME } else { MAX_QUEUE_TIME }
    }
}

const MAX_QUEUE_TIME: Duration = Duration::from_millis(400);

/// How long a check may take, and how long its records last if it cannot remove them.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
const PROBE_LIFETIME: Duration = Duration::from_secs(1);

/// How long it may take to remove a claim that too few replicas have confirmed.
const UNDO_TIME: Duration = Duration::from_millis(100);

/// Longer, because an operation of `idempotency` cannot run without the store. Together with the operation's own time
/// it stays below the three seconds that `idempotency` waits for one step.
const MAX_LOW_PRIORITY_QUEUE_TIME: Duration = Duration::from_secs(2);
