//! Follows what others write: one thread and one connection for all that is watched.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use redis::Value;

use super::config::RedisConfig;
use super::connection::{Connection, RedisError};
use super::wait::RECHECK_INTERVAL;
use super::{Inner, OPERATION_TIMEOUT, scripts};
use crate::clock::{Deadline, Notifier};
use crate::key::Key;
use crate::lock::lock;
use crate::policy::store_pause;
use crate::store::watch::{Subscription, Watches};
use crate::thread::spawn;

/// What is watched, and the thread that does.
#[derive(Default)]
pub(super) struct Watcher {
    watches: Arc<Watches>,
    /// The process in which the thread runs. A forked child starts its own with its first new watch.
    running: Mutex<Option<u32>>,
    /// The server works again: what rests because it did not, need not any longer.
    has_recovered: AtomicBool,
}

impl Inner {
    pub(super) fn watch(self: &Arc<Self>, key: &Key, notifier: Notifier) -> Subscription {
        let watch = self.watcher.watches.add(key, notifier);
        let mut running = lock(&self.watcher.running);
        let process = std::process::id();
        if *running != Some(process) {
            let store = Arc::downgrade(self);
            // Without a thread the record is still looked at now and then.
            *running = spawn("evertoken-watch", move || run(&store)).is_ok().then_some(process);
        }
        watch
    }
}

/// The thread. It ends when nothing is watched any more, or the store is gone.
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
                // What is missed meanwhile is told when it works again.
                reader = StreamReader::default();
                failures = if error.needs_new_settings() { u32::MAX } else { failures.saturating_add(1) };
                back_off(store, store_pause(failures, fastrand::f64()));
            }
        }
    }
}

/// Rests, but no longer than anything is watched.
fn back_off(store: &Weak<Inner>, pause: Duration) {
    let over = Deadline::within(pause);
    while !over.has_passed() && store.upgrade().is_some_and(|store| store.watcher.is_backing_off()) {
        thread::sleep(over.remaining().min(RECOVERY_CHECK_INTERVAL));
    }
}

impl Watcher {
    /// Says that the server works again.
    pub(super) fn recover(&self) {
        self.has_recovered.store(true, Ordering::Relaxed);
    }

    fn is_backing_off(&self) -> bool {
        !self.has_recovered.swap(false, Ordering::Relaxed) && !self.watches.is_empty()
    }
}

impl Inner {
    /// What there is to follow. `None`: nothing, and the thread ends.
    fn watched_keys(&self) -> Option<(RedisConfig, HashSet<Key>)> {
        let mut running = lock(&self.watcher.running);
        let keys: HashSet<_> = self.watcher.watches.keys().into_iter().collect();
        if keys.is_empty() {
            *running = None;
            return None;
        }
        Some((self.config.clone(), keys))
    }
}

/// How far each stream has been followed.
#[derive(Default)]
struct StreamReader {
    connection: Option<Connection>,
    /// By the name of the stream: whose it is, and the position in it.
    positions: HashMap<String, (Key, String)>,
}

impl StreamReader {
    /// Waits a while for news. Returns whose news came.
    fn read(&mut self, config: &RedisConfig, keys: &HashSet<Key>) -> Result<Vec<Key>, RedisError> {
        self.positions.retain(|_, (key, _)| keys.contains(key));
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(config, Deadline::within(OPERATION_TIMEOUT))?),
        };
        let new: Vec<_> =
            keys.iter().filter(|key| !self.positions.contains_key(scripts::news_stream(key).as_str())).collect();
        if !new.is_empty() {
            for group in new.chunks(if config.is_cluster() { 1 } else { MAX_STREAMS_PER_CALL }) {
                let ends = scripts::last_positions(group).ask(
                    connection,
                    config.command_timeout(),
                    Deadline::within(OPERATION_TIMEOUT),
                    false,
                )?;
                for (key, position) in group.iter().zip(ends.into_positions()?) {
                    self.positions.insert(scripts::news_stream(key).as_str().to_owned(), ((*key).clone(), position));
                }
            }
            // What came before may be news for whoever watches only now.
            return Ok(new.into_iter().cloned().collect());
        }
        let limit = RECHECK_INTERVAL.saturating_add(config.command_timeout());
        let positions: Vec<_> = self.positions.values().map(|(key, position)| (key, position.as_str())).collect();
        // The nodes of a cluster can only be asked one after another.
        let group_size = if config.is_cluster() { 1 } else { positions.len() };
        let wait = if group_size == positions.len() {
            RECHECK_INTERVAL
        } else {
            CLUSTER_ROUND_TIME / u32::try_from(positions.len()).unwrap_or(1)
        };
        let mut news = Vec::new();
        for group in positions.chunks(group_size) {
            news.extend(read_news(connection.ask(&scripts::read_streams(group.iter().copied(), wait), limit)?)?);
        }
        Ok(news.into_iter().filter_map(|(stream, position)| self.advance(&stream, position)).collect())
    }

    fn advance(&mut self, stream: &str, position: String) -> Option<Key> {
        let (key, known) = self.positions.get_mut(stream)?;
        *known = position;
        Some(key.clone())
    }
}

/// The streams that have an entry, and its position.
fn read_news(answer: Value) -> Result<Vec<(String, String)>, RedisError> {
    let streams = match answer {
        Value::Nil => return Ok(Vec::new()),
        Value::Array(streams) => streams,
        _ => return Err(RedisError::nonsense()),
    };
    let one = |stream: &Value| {
        let Value::Array(parts) = stream else { return None };
        let [Value::BulkString(name), Value::Array(entries)] = parts.as_slice() else { return None };
        let Some(Value::Array(entry)) = entries.last() else { return None };
        let Some(Value::BulkString(position)) = entry.first() else { return None };
        Some((String::from_utf8(name.clone()).ok()?, String::from_utf8(position.clone()).ok()?))
    };
    streams.iter().map(|stream| one(stream).ok_or_else(RedisError::nonsense)).collect()
}

/// A script that asks for more would hold the server up.
const MAX_STREAMS_PER_CALL: usize = 100;

const RECOVERY_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// How long it takes to ask the nodes of a cluster in turn.
const CLUSTER_ROUND_TIME: Duration = Duration::from_millis(30);
