//! Waits for what another process will write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use redis::Value;

use super::connection::{Connection, RedisError, RedisErrorKind};
use super::scripts::{self, ScriptReply};
use super::{Inner, OPERATION_TIMEOUT, Priority};
use crate::clock::Deadline;
use crate::error::Error;
use crate::key::Key;
use crate::lock::lock;
use crate::policy::store_pause;
use crate::store::Cursor;
use crate::thread::Done;

/// Who waits in this process, for what.
#[derive(Default)]
pub(super) struct Waiters(Mutex<State>);

#[derive(Default)]
struct State {
    /// One waits for each key, the others for that one.
    leaders: HashMap<Key, Arc<Done>>,
    /// Connections that are waited on.
    connections: usize,
    /// Until when no new one is tried, because the server refused the last.
    refused_until: Option<Deadline>,
    process: u32,
}

impl Inner {
    pub(super) fn wait(&self, key: &Key, cursor: &Cursor, deadline: Deadline) -> Result<(), Error> {
        let leader = match self.waiters.lead(key) {
            Ok(leader) => leader,
            Err(done) => {
                done.wait(deadline.min(Deadline::within(RECHECK_INTERVAL)));
                return Ok(());
            }
        };
        let slot = cursor.position().and_then(|position| Some((position, self.waiters.stream_slot()?)));
        let waited = match slot {
            Some((position, slot)) => {
                let waited = self.wait_on_stream(key, cursor, position, deadline);
                drop(slot);
                waited
            }
            None => Ok(false),
        };
        let outcome = match waited {
            Ok(true) => Ok(()),
            Ok(false) => self.poll(key, cursor, deadline),
            Err(error) if error.needs_new_settings() => {
                // The connection that all share may still work; on a new one the same would be said again.
                self.waiters.note_refusal();
                self.poll(key, cursor, deadline)
            }
            Err(error) => Err(error.error),
        };
        drop(leader);
        outcome
    }

    /// Waits on a connection of its own. False: this server refuses streams.
    fn wait_on_stream(
        &self,
        key: &Key,
        cursor: &Cursor,
        position: &str,
        deadline: Deadline,
    ) -> Result<bool, RedisError> {
        let mut connection = Connection::for_streams_of(&self.config, key, Deadline::within(OPERATION_TIMEOUT))?;
        loop {
            let wait = deadline.remaining().min(RECHECK_INTERVAL);
            if wait.is_zero() {
                return Ok(true);
            }
            let command = scripts::read_streams([(key, position)], wait);
            match connection.ask(&command, wait.saturating_add(self.config.command_timeout())) {
                Ok(Value::Nil) => {}
                Ok(_) => return Ok(true),
                Err(error)
                    if matches!(error.kind, RedisErrorKind::Refused | RedisErrorKind::Busy | RedisErrorKind::Full) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
            // Not everybody who writes tells, and nobody tells when a lease runs out.
            let (limit, soon) = (self.config.command_timeout(), Deadline::within(OPERATION_TIMEOUT));
            if scripts::check_for_change(key).ask(&mut connection, limit, soon, false)?.has_changed(cursor)? {
                return Ok(true);
            }
        }
    }

    /// Looks now and then, over the connection that all share.
    fn poll(&self, key: &Key, cursor: &Cursor, deadline: Deadline) -> Result<(), Error> {
        let mut pause = INITIAL_POLL_INTERVAL;
        loop {
            thread::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0).min(RECHECK_INTERVAL).min(deadline.remaining()));
            if deadline.has_passed() {
                return Ok(());
            }
            let moved = self
                .ask(&scripts::check_for_change(key), Priority::Read, |reply: ScriptReply| reply.has_changed(cursor))?;
            if moved == Some(true) {
                return Ok(());
            }
            pause = (pause * 2).min(RECHECK_INTERVAL);
        }
    }
}

impl Waiters {
    /// Becomes the one who waits for `key`, or is told whom to wait for.
    fn lead(&self, key: &Key) -> Result<Leader<'_>, Arc<Done>> {
        let mut state = self.lock();
        if let Some(done) = state.leaders.get(key) {
            return Err(done.clone());
        }
        let done = Arc::new(Done::default());
        state.leaders.insert(key.clone(), done.clone());
        Ok(Leader { waiters: self, key: key.clone(), done })
    }

    /// A connection to wait on, if there are not too many.
    fn stream_slot(&self) -> Option<StreamSlot<'_>> {
        let mut state = self.lock();
        let refused = state.refused_until.is_some_and(|until| !until.has_passed());
        (state.connections < MAX_STREAM_CONNECTIONS && !refused).then(|| {
            state.connections += 1;
            StreamSlot { waiters: self, process: state.process }
        })
    }

    fn note_refusal(&self) {
        self.lock().refused_until = Some(Deadline::within(store_pause(u32::MAX, fastrand::f64())));
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
struct Leader<'a> {
    waiters: &'a Waiters,
    key: Key,
    done: Arc<Done>,
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        self.waiters.lock().leaders.remove(&self.key);
        self.done.announce();
    }
}

struct StreamSlot<'a> {
    waiters: &'a Waiters,
    process: u32,
}

impl Drop for StreamSlot<'_> {
    fn drop(&mut self) {
        let mut state = self.waiters.lock();
        if state.process == self.process {
            state.connections -= 1;
        }
    }
}

/// However long one waits, it looks again this often: what tells may be lost.
pub(super) const RECHECK_INTERVAL: Duration = Duration::from_millis(250);

const INITIAL_POLL_INTERVAL: Duration = Duration::from_millis(20);
const MAX_STREAM_CONNECTIONS: usize = 8;
