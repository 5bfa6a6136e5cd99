//! A store that many hosts share: Redis, or Valkey, which speaks the same.

mod breaker;
mod config;
mod lane;
mod link;
mod scripts;
#[cfg(feature = "redis-sentinel")]
mod sentinel;
mod waiting;
mod watching;

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
use lane::{Lane, Rank, Turn};
use link::{Fault, FaultKind, Link};
use scripts::{Question, Reply};
use waiting::Waiting;
use watching::Watching;

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
    lane: Lane,
    breaker: Mutex<Breaker>,
    /// What does not work, and the log has been told of.
    trouble: Mutex<Option<Trouble>>,
    waiting: Waiting,
    watching: Watching,
}

struct Trouble {
    error: Error,
    /// Then reading is no sign that it is over.
    is_about_writing: bool,
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
            lane: Lane::default(),
            breaker: Mutex::default(),
            trouble: Mutex::default(),
            waiting: Waiting::default(),
            watching: Watching::default(),
        })))
    }
}

impl Store for RedisStore {
    fn read(&self, key: &Key) -> Result<Option<crate::store::Entry>, Error> {
        self.0.ask_or_fail(key, &scripts::read(key), Reply::into_entry)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        self.0.ask_or_fail(key, &scripts::swap(key, expected, new), Reply::into_swap)
    }

    fn read_or_lease(
        &self,
        key: &Key,
        not: Option<&Version>,
        at_least: Duration,
        owner: &LeaseOwner,
        lease: Duration,
    ) -> Result<LeaseOutcome, Error> {
        let question = scripts::read_or_lease(key, not, at_least, owner, lease);
        let leasing = self.0.ask(&question, Rank::Reading, Reply::into_leasing)?;
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
        self.0.ask_or_fail(key, &scripts::publish(key, owner, seen, bytes, lifetime), Reply::into_publish)
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
}

impl Inner {
    /// Asks the server, unless it is to be left alone. `Ok(None)`: so much is asked of it that this one did not get its
    /// turn in time.
    fn ask<T>(
        &self,
        question: &Question,
        rank: Rank,
        read: impl Fn(Reply) -> Result<T, Fault>,
    ) -> Result<Option<T>, Error> {
        let left_alone = |rest| {
            let why = lock(&self.trouble).as_ref().map(|trouble| format!(": {}", trouble.error)).unwrap_or_default();
            Error::new(ErrorKind::Store, format!("redis does not work and is left alone{why}")).with_retry_after(rest)
        };
        let rest = lock(&self.breaker).rest().or_else(|| self.lane.hangs().then_some(OPERATION));
        if let Some(rest) = rest {
            return Err(left_alone(rest));
        }
        let Some(turn) = self.lane.enter(Deadline::within(rank.queue()), rank) else { return Ok(None) };
        if turn.after_a_hang {
            self.note_failure(&Fault::lost("redis did not answer in time"));
        }
        // Those that had their turn before this one may have found out that it does not work.
        lock(&self.breaker).enter(OPERATION).map_err(left_alone)?;
        let answer = self.ask_now(turn, question, read, Deadline::within(OPERATION));
        match &answer {
            Ok((_, wrote)) => self.note_success(*wrote),
            Err(fault) => self.note_failure(fault),
        }
        answer.map(|(value, _)| Some(value)).map_err(|fault| fault.error)
    }

    fn note_success(&self, wrote: bool) {
        if lock(&self.breaker).succeeded() {
            self.watching.go_on();
        }
        let is_over = {
            let mut trouble = lock(&self.trouble);
            trouble.take_if(|trouble| wrote || !trouble.is_about_writing).is_some()
        };
        if is_over {
            log::info!(target: "evertoken", "redis works again");
        }
    }

    fn note_failure(&self, fault: &Fault) {
        if fault.kind == FaultKind::WrongKey {
            return;
        }
        lock(&self.breaker).failed(fault.lasts(), fastrand::f64());
        let trouble = Trouble { error: fault.error.clone(), is_about_writing: fault.is_about_writing() };
        let before = lock(&self.trouble).replace(trouble);
        if before.is_none() {
            log::warn!(target: "evertoken", "redis cannot be used: {}", fault.error);
        }
    }

    fn ask_or_fail<T>(
        &self,
        key: &Key,
        question: &Question,
        read: impl Fn(Reply) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let rank = if key.is_operation() { Rank::Patient } else { Rank::Writing };
        let too_much = || Error::new(ErrorKind::Store, "too much is asked of redis at once");
        self.ask(question, rank, read)?.ok_or_else(too_much)
    }

    /// The answer, and whether something was written.
    fn ask_now<T>(
        &self,
        mut turn: Turn<'_>,
        question: &Question,
        read: impl Fn(Reply) -> Result<T, Fault>,
        deadline: Deadline,
    ) -> Result<(T, bool), Fault> {
        match self.try_once(&mut turn, question, &read, deadline, false) {
            // On a new connection, which leads to the new master if there is one.
            Err(fault) if fault.may_pass() && !deadline.has_passed() => {
                self.try_once(&mut turn, question, &read, deadline, true)
            }
            other => other,
        }
    }

    fn try_once<T>(
        &self,
        turn: &mut Turn<'_>,
        question: &Question,
        read: impl Fn(Reply) -> Result<T, Fault>,
        deadline: Deadline,
        again: bool,
    ) -> Result<(T, bool), Fault> {
        // Taken out while it is in use: only when it is known to be in order it goes back.
        let mut link = match turn.link.take().filter(Link::is_of_this_process) {
            Some(link) => link,
            None => Link::open(&self.config, deadline)?,
        };
        let answer = question.ask(&mut link, self.config.limit(), deadline, again).and_then(|reply| {
            let wrote = reply.has_written();
            Ok((read(reply)?, wrote))
        });
        if answer.as_ref().err().is_none_or(|fault| !fault.breaks()) {
            turn.link = Some(link);
        }
        answer
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisStore").field(&self.0.config).finish()
    }
}

impl Rank {
    /// How long an operation waits for its turn. What is to be done once is not done without the store, so it waits longer.
    fn queue(self) -> Duration {
        if self == Rank::Patient { LONG_QUEUE } else { QUEUE }
    }
}

const QUEUE: Duration = Duration::from_millis(400);

/// With the operation itself it stays below the three seconds for which a step of what is done once is waited for.
const LONG_QUEUE: Duration = Duration::from_secs(2);

/// What an operation may take, all in all, when it has its turn.
const OPERATION: Duration = Duration::from_millis(500);
