//! Waits for what another process will write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use redis::Value;

use super::link::{Fault, FaultKind, Link};
use super::scripts::{self, Reply};
use super::{Inner, OPERATION, Rank};
use crate::clock::Deadline;
use crate::error::Error;
use crate::key::Key;
use crate::lock::lock;
use crate::policy::store_backoff;
use crate::store::Cursor;
use crate::thread::Done;

/// Who waits in this process, for what.
#[derive(Default)]
pub(super) struct Waiting(Mutex<State>);

#[derive(Default)]
struct State {
    /// One waits for each key, the others for that one.
    rooms: HashMap<Key, Arc<Done>>,
    /// Connections that are waited on.
    connections: usize,
    /// Until when no new one is tried, because the server refused the last.
    refused: Option<Deadline>,
    process: u32,
}

impl Inner {
    pub(super) fn wait(&self, key: &Key, cursor: &Cursor, deadline: Deadline) -> Result<(), Error> {
        let guide = match self.waiting.enter(key) {
            Ok(guide) => guide,
            Err(room) => {
                room.wait(deadline.min(Deadline::within(LOOK_AGAIN)));
                return Ok(());
            }
        };
        let seat = cursor.position().and_then(|place| Some((place, self.waiting.seat()?)));
        let waited = match seat {
            Some((place, seat)) => {
                let waited = self.wait_on_stream(key, cursor, place, deadline);
                drop(seat);
                waited
            }
            None => Ok(false),
        };
        let outcome = match waited {
            Ok(true) => Ok(()),
            Ok(false) => self.poll(key, cursor, deadline),
            Err(fault) if fault.lasts() => {
                // The connection that all share may still work; on a new one the same would be said again.
                self.waiting.refused();
                self.poll(key, cursor, deadline)
            }
            Err(fault) => Err(fault.error),
        };
        drop(guide);
        outcome
    }

    /// Waits on a connection of its own. False: this server refuses streams.
    fn wait_on_stream(&self, key: &Key, cursor: &Cursor, place: &str, deadline: Deadline) -> Result<bool, Fault> {
        let mut link = Link::for_streams_of(&self.config, key, Deadline::within(OPERATION))?;
        loop {
            let wait = deadline.remaining().min(LOOK_AGAIN);
            if wait.is_zero() {
                return Ok(true);
            }
            let command = scripts::follow([(key, place)], wait);
            match link.ask(&command, wait.saturating_add(self.config.limit())) {
                Ok(Value::Nil) => {}
                Ok(_) => return Ok(true),
                Err(fault) if matches!(fault.kind, FaultKind::Refused | FaultKind::Busy | FaultKind::Full) => {
                    return Ok(false);
                }
                Err(fault) => return Err(fault),
            }
            // Not everybody who writes tells, and nobody tells when a lease runs out.
            let (limit, soon) = (self.config.limit(), Deadline::within(OPERATION));
            if scripts::look_at(key).ask(&mut link, limit, soon, false)?.has_moved(cursor)? {
                return Ok(true);
            }
        }
    }

    /// Looks now and then, over the connection that all share.
    fn poll(&self, key: &Key, cursor: &Cursor, deadline: Deadline) -> Result<(), Error> {
        let mut pause = FIRST_PAUSE;
        loop {
            thread::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0).min(LOOK_AGAIN).min(deadline.remaining()));
            if deadline.has_passed() {
                return Ok(());
            }
            let moved = self.ask(&scripts::look_at(key), Rank::Reading, |reply: Reply| reply.has_moved(cursor))?;
            if moved == Some(true) {
                return Ok(());
            }
            pause = (pause * 2).min(LOOK_AGAIN);
        }
    }
}

impl Waiting {
    /// Becomes the one who waits for `key`, or is told whom to wait for.
    fn enter(&self, key: &Key) -> Result<Guide<'_>, Arc<Done>> {
        let mut state = self.lock();
        if let Some(room) = state.rooms.get(key) {
            return Err(room.clone());
        }
        let room = Arc::new(Done::default());
        state.rooms.insert(key.clone(), room.clone());
        Ok(Guide { waiting: self, key: key.clone(), room })
    }

    /// A connection to wait on, if there are not too many.
    fn seat(&self) -> Option<Seat<'_>> {
        let mut state = self.lock();
        let refused = state.refused.is_some_and(|until| !until.has_passed());
        (state.connections < MOST_CONNECTIONS && !refused).then(|| {
            state.connections += 1;
            Seat { waiting: self, process: state.process }
        })
    }

    fn refused(&self) {
        self.lock().refused = Some(Deadline::within(store_backoff(u32::MAX, fastrand::f64())));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.0);
        let process = std::process::id();
        if state.process != process {
            // In a forked child nobody waits yet.
            *state = State { process, ..State::default() };
        }
        state
    }
}

/// Waits for the others too, and tells them when it is over.
struct Guide<'a> {
    waiting: &'a Waiting,
    key: Key,
    room: Arc<Done>,
}

impl Drop for Guide<'_> {
    fn drop(&mut self) {
        self.waiting.lock().rooms.remove(&self.key);
        self.room.announce();
    }
}

struct Seat<'a> {
    waiting: &'a Waiting,
    process: u32,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut state = self.waiting.lock();
        if state.process == self.process {
            state.connections -= 1;
        }
    }
}

/// However long one waits, it looks again this often: what tells may be lost.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(250);

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const MOST_CONNECTIONS: usize = 8;
