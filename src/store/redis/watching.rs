//! Follows what others write: one thread and one connection for all that is watched.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use redis::Value;

use super::config::RedisConfig;
use super::link::{Fault, Link};
use super::waiting::LOOK_AGAIN;
use super::{Inner, OPERATION, scripts};
use crate::clock::{Deadline, Notifier};
use crate::key::Key;
use crate::lock::lock;
use crate::policy::store_backoff;
use crate::store::subscriptions::{Subscription, Subscriptions};
use crate::thread::spawn;

/// What is watched, and the thread that does.
#[derive(Default)]
pub(super) struct Watching {
    watches: Arc<Subscriptions>,
    /// The process in which the thread runs. A forked child starts its own with its first new watch.
    running: Mutex<Option<u32>>,
    /// The server works again: what rests because it did not, need not any longer.
    works_again: AtomicBool,
}

impl Inner {
    pub(super) fn watch(self: &Arc<Self>, key: &Key, notifier: Notifier) -> Subscription {
        let watch = self.watching.watches.add(key, notifier);
        let mut running = lock(&self.watching.running);
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
    let mut trail = Trail::default();
    let mut failures = 0_u32;
    while let Some((config, keys)) = store.upgrade().and_then(|store| store.to_follow()) {
        match trail.follow(&config, &keys) {
            Ok(changed) => {
                failures = 0;
                let Some(store) = store.upgrade() else { return };
                changed.iter().for_each(|key| store.watching.watches.notify(key));
            }
            Err(fault) => {
                // What is missed meanwhile is told when it works again.
                trail = Trail::default();
                failures = if fault.lasts() { u32::MAX } else { failures.saturating_add(1) };
                rest(store, store_backoff(failures, fastrand::f64()));
            }
        }
    }
}

/// Rests, but no longer than anything is watched.
fn rest(store: &Weak<Inner>, pause: Duration) {
    let over = Deadline::within(pause);
    while !over.has_passed() && store.upgrade().is_some_and(|store| store.watching.rests()) {
        thread::sleep(over.remaining().min(NAP));
    }
}

impl Watching {
    /// Says that the server works again.
    pub(super) fn go_on(&self) {
        self.works_again.store(true, Ordering::Relaxed);
    }

    fn rests(&self) -> bool {
        !self.works_again.swap(false, Ordering::Relaxed) && !self.watches.is_empty()
    }
}

impl Inner {
    /// What there is to follow. `None`: nothing, and the thread ends.
    fn to_follow(&self) -> Option<(RedisConfig, HashSet<Key>)> {
        let mut running = lock(&self.watching.running);
        let keys: HashSet<_> = self.watching.watches.keys().into_iter().collect();
        if keys.is_empty() {
            *running = None;
            return None;
        }
        Some((self.config.clone(), keys))
    }
}

/// How far each stream has been followed.
#[derive(Default)]
struct Trail {
    link: Option<Link>,
    /// By the name of the stream: whose it is, and the place in it.
    places: HashMap<String, (Key, String)>,
}

impl Trail {
    /// Waits a while for news. Returns whose news came.
    fn follow(&mut self, config: &RedisConfig, keys: &HashSet<Key>) -> Result<Vec<Key>, Fault> {
        self.places.retain(|_, (key, _)| keys.contains(key));
        let link = match &mut self.link {
            Some(link) => link,
            none => none.insert(Link::open(config, Deadline::within(OPERATION))?),
        };
        let new: Vec<_> = keys.iter().filter(|key| !self.places.contains_key(scripts::stream(key).as_str())).collect();
        if !new.is_empty() {
            for group in new.chunks(if config.is_cluster() { 1 } else { MOST_AT_ONCE }) {
                let ends = scripts::ends(group).ask(link, config.limit(), Deadline::within(OPERATION), false)?;
                for (key, place) in group.iter().zip(ends.into_places()?) {
                    self.places.insert(scripts::stream(key).as_str().to_owned(), ((*key).clone(), place));
                }
            }
            // What came before may be news for whoever watches only now.
            return Ok(new.into_iter().cloned().collect());
        }
        let limit = LOOK_AGAIN.saturating_add(config.limit());
        let places: Vec<_> = self.places.values().map(|(key, place)| (key, place.as_str())).collect();
        // The nodes of a cluster can only be asked one after another.
        let at_once = if config.is_cluster() { 1 } else { places.len() };
        let wait = if at_once == places.len() { LOOK_AGAIN } else { ROUND / u32::try_from(places.len()).unwrap_or(1) };
        let mut news = Vec::new();
        for group in places.chunks(at_once) {
            news.extend(read_news(link.ask(&scripts::follow(group.iter().copied(), wait), limit)?)?);
        }
        Ok(news.into_iter().filter_map(|(stream, place)| self.go_on(&stream, place)).collect())
    }

    fn go_on(&mut self, stream: &str, place: String) -> Option<Key> {
        let (key, known) = self.places.get_mut(stream)?;
        *known = place;
        Some(key.clone())
    }
}

/// The streams that have an entry, and its place.
fn read_news(answer: Value) -> Result<Vec<(String, String)>, Fault> {
    let streams = match answer {
        Value::Nil => return Ok(Vec::new()),
        Value::Array(streams) => streams,
        _ => return Err(Fault::nonsense()),
    };
    let one = |stream: &Value| {
        let Value::Array(parts) = stream else { return None };
        let [Value::BulkString(name), Value::Array(entries)] = parts.as_slice() else { return None };
        let Some(Value::Array(entry)) = entries.last() else { return None };
        let Some(Value::BulkString(place)) = entry.first() else { return None };
        Some((String::from_utf8(name.clone()).ok()?, String::from_utf8(place.clone()).ok()?))
    };
    streams.iter().map(|stream| one(stream).ok_or_else(Fault::nonsense)).collect()
}

/// A script that asks for more would hold the server up.
const MOST_AT_ONCE: usize = 100;

const NAP: Duration = Duration::from_millis(50);

/// How long it takes to ask the nodes of a cluster in turn.
const ROUND: Duration = Duration::from_millis(30);
