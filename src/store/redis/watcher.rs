//! Notifies managers when another process changes a record that they watch.
//!
//! One thread and one connection serve all watched keys of a store. The thread starts with the first watch, ends with
//! the last one or with the store, and holds the store only weakly, so that it does not keep the store alive.
//!
//! 1. For each newly watched key the thread asks for the last position in its news stream, and notifies the key once:
//!    whatever was written before that may be new to the watcher.
//! 2. The thread blocks with one `XREAD` on all streams, from those positions, for [`RECHECK_INTERVAL`] at most. Then
//!    it looks which keys are watched. In a cluster it asks for one stream after another, because the streams are on
//!    different nodes.
//! 3. For each stream that has an entry, the thread notifies the key and remembers the entry's position.
//! 4. After an error the thread drops the connection and all positions, and backs off: 1 s at first and 30 s at most,
//!    or until an operation of the store succeeds again. Afterwards step 1 notifies every key, so a change that was
//!    missed meanwhile is found.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use redis::Value;

use super::config::{OPERATION_TIMEOUT, RedisConfig};
use super::connection::Connection;
use super::error::{MalformedReply, RedisError};
use super::wait::RECHECK_INTERVAL;
use super::{Inner, connect, scripts};
use crate::clock::{Deadline, Notifier};
use crate::key::Key;
use crate::lock::lock;
use crate::policy::store_backoff;
use crate::store::subscriptions::{Subscription, Subscriptions};
use crate::thread::spawn;

/// The watched keys of a store, and its watching thread.
#[derive(Default)]
pub(super) struct Watcher {
    watches: Arc<Subscriptions>,
    /// The process in which the thread runs, if it runs. A forked child starts its own thread with its first new watch.
    running: Mutex<Option<u32>>,
    /// An operation has succeeded after failures, so the thread need not back off any longer.
    has_recovered: AtomicBool,
}

impl Inner {
    pub(super) fn watch(self: &Arc<Self>, key: &Key, notifier: Notifier) -> Subscription {
        let watch = self.watcher.watches.add(key, notifier);
        let mut running = lock(&self.watcher.running);
        let process = std::process::id();
        if *running != Some(process) {
            let store = Arc::downgrade(self);
            // If no thread can be started, managers still see changes when they check the store by themselves.
            *running = spawn("evertoken-watch", move || run(&store)).is_ok().then_some(process);
        }
        watch
    }

    /// Returns what the thread needs for its next read. `None` when no key is watched: the thread then ends.
    fn watched_keys(&self) -> Option<(RedisConfig, HashSet<Key>)> {
        // Held while the keys are counted, so that a new watch either is counted or starts a new thread.
        let mut running = lock(&self.watcher.running);
        let keys: HashSet<_> = self.watcher.watches.keys().into_iter().collect();
        if keys.is_empty() {
            *running = None;
            return None;
        }
        Some((self.config.clone(), keys))
    }
}

/// The body of the thread.
fn run(store: &Weak<Inner>) {
    let mut reader = StreamReader::default();
    let mut failures = 0_u32;
    while let Some((config, keys)) = store.upgrade().and_then(|store| store.watched_keys()) {
        match reader.read(&config, &keys) {
            Ok(changed) => {
                failures = 0;
                let Some(store) = store.upgrade() else { return };
                changed.iter().for_each(|key| store.watcher.watches.notify(key));
            }
            Err(error) => {
                reader = StreamReader::default();
                failures = if error.needs_new_settings() { u32::MAX } else { failures.saturating_add(1) };
                back_off(store, store_backoff(failures, fastrand::f64()));
            }
        }
    }
}

/// Sleeps for `pause`, or until the store recovers or no key is watched.
fn back_off(store: &Weak<Inner>, pause: Duration) {
    let end = Deadline::within(pause);
    while !end.has_passed() && store.upgrade().is_some_and(|store| store.watcher.is_backing_off()) {
        thread::sleep(end.remaining().min(BACKOFF_CHECK_INTERVAL));
    }
}

impl Watcher {
    /// Ends the thread's backoff, because an operation has succeeded.
    pub(super) fn recover(&self) {
        self.has_recovered.store(true, Ordering::Relaxed);
    }

    fn is_backing_off(&self) -> bool {
        !self.has_recovered.swap(false, Ordering::Relaxed) && !self.watches.is_empty()
    }
}

/// Reads the news streams of the watched keys.
#[derive(Default)]
struct StreamReader {
    connection: Option<Connection>,
    /// For each stream, by its name: the key, and the position up to which the stream was read.
    positions: HashMap<String, (Key, String)>,
}

impl StreamReader {
    /// Blocks until a stream has a new entry, for a short while at most. Returns the keys to notify.
    fn read(&mut self, config: &RedisConfig, keys: &HashSet<Key>) -> Result<Vec<Key>, RedisError> {
        self.positions.retain(|_, (key, _)| keys.contains(key));
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect::open(config, Deadline::within(OPERATION_TIMEOUT))?),
        };
        let is_new = |key: &&Key| !self.positions.contains_key(scripts::news_stream(key).as_str());
        let new: Vec<_> = keys.iter().filter(is_new).collect();
        if !new.is_empty() {
            for group in new.chunks(if config.is_cluster() { 1 } else { MAX_STREAMS_PER_CALL }) {
                let soon = Deadline::within(OPERATION_TIMEOUT);
                let reply = scripts::last_positions(group).run(connection, config.command_timeout(), soon, false)?;
                let positions = reply.into_positions().map_err(|_| connection.malformed_reply())?;
                for (key, position) in group.iter().zip(positions) {
                    self.positions.insert(scripts::news_stream(key).as_str().to_owned(), ((*key).clone(), position));
                }
            }
            return Ok(new.into_iter().cloned().collect());
        }
        let timeout = RECHECK_INTERVAL.saturating_add(config.command_timeout());
        let positions: Vec<_> = self.positions.values().map(|(key, position)| (key, position.as_str())).collect();
        // One `XREAD` cannot span the nodes of a cluster.
        let group_size = if config.is_cluster() { 1 } else { positions.len() };
        let wait = if group_size == positions.len() {
            RECHECK_INTERVAL
        } else {
            CLUSTER_ROUND_TIME / u32::try_from(positions.len()).unwrap_or(1)
        };
        let mut news = Vec::new();
        for group in positions.chunks(group_size) {
            let reply = connection.request(&scripts::read_streams(group.iter().copied(), wait), timeout)?;
            news.extend(parse_news(reply).map_err(|_| connection.malformed_reply())?);
        }
        Ok(news.into_iter().filter_map(|(stream, position)| self.advance(&stream, position)).collect())
    }

    /// Moves a stream's position to its newest entry. Returns the key that the stream belongs to.
    fn advance(&mut self, stream: &str, position: String) -> Option<Key> {
        let (key, known) = self.positions.get_mut(stream)?;
        *known = position;
        Some(key.clone())
    }
}

/// Parses the reply of `XREAD`: the name of each stream that has a new entry, and the position of its last entry.
fn parse_news(reply: Value) -> Result<Vec<(String, String)>, MalformedReply> {
    let streams = match reply {
        Value::Nil => return Ok(Vec::new()),
        Value::Array(streams) => streams,
        _ => return Err(MalformedReply),
    };
    let parse_stream = |stream: &Value| {
        let Value::Array(parts) = stream else { return None };
        let [Value::BulkString(name), Value::Array(entries)] = parts.as_slice() else { return None };
        let Some(Value::Array(entry)) = entries.last() else { return None };
        let Some(Value::BulkString(position)) = entry.first() else { return None };
        Some((String::from_utf8(name.clone()).ok()?, String::from_utf8(position.clone()).ok()?))
    };
    streams.iter().map(|stream| parse_stream(stream).ok_or(MalformedReply)).collect()
}

/// How many streams one script call covers. A larger one would block the server for other clients.
const MAX_STREAMS_PER_CALL: usize = 100;

/// How often the thread checks during a backoff whether the backoff should end.
const BACKOFF_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// How long one round through all streams of a cluster blocks, in all.
const CLUSTER_ROUND_TIME: Duration = Duration::from_millis(30);
