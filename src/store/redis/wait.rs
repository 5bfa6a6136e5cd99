//! Waits until another process publishes a record or frees a lease.
//!
//! 1. One thread per key waits, the *leader*; other threads of the process wait for the leader to return.
//! 2. The leader blocks on the server with `XREAD` on the key's news stream, from the position that `read_or_lease`
//!    returned in the same reply as "busy". An entry added since then ends the read at once, so no change is missed. A
//!    blocked connection serves nothing else, so each leader has one of its own, up to [`MAX_STREAM_CONNECTIONS`].
//! 3. Every [`RECHECK_INTERVAL`] the leader checks record and lease: some writers announce nothing, and a lease that
//!    expires announces nothing either.
//! 4. The leader polls over the store's own connection when all stream connections are in use, when the server refuses
//!    streams (an ACL, a proxy), or when it refused the last new connection for good.
//!
//! A wait may return early. The caller then reads again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use redis::Value;

use super::config::OPERATION_TIMEOUT;
use super::error::{RedisError, RedisErrorKind};
use super::queue::Priority;
use super::scripts::{self, ScriptReply};
use super::{Inner, connect};
use crate::clock::Deadline;
use crate::error::Error;
use crate::key::Key;
use crate::lock::lock;
use crate::policy::store_backoff;
use crate::store::Cursor;
use crate::thread::Done;

/// The threads of this process that wait, and their connections.
#[derive(Default)]
pub(super) struct Waiters(Mutex<State>);

#[derive(Default)]
struct State {
    /// For each key, the signal that its leader gives when it returns.
    leaders: HashMap<Key, Arc<Done>>,
    /// How many connections block on streams now.
    connections: usize,
    /// No stream connection is opened before this time, because the server refused the last one.
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
                // The server would refuse a new connection again. The store's own connection may still work.
                self.waiters.note_refusal();
                self.poll(key, cursor, deadline)
            }
            Err(error) => Err(error.error),
        };
        drop(leader);
        outcome
    }

    /// Waits on a connection of its own. Returns `false` when this server refuses streams.
    fn wait_on_stream(
        &self,
        key: &Key,
        cursor: &Cursor,
        position: &str,
        deadline: Deadline,
    ) -> Result<bool, RedisError> {
        let mut connection = connect::open_for_streams_of(&self.config, key, Deadline::within(OPERATION_TIMEOUT))?;
        loop {
            let wait = deadline.remaining().min(RECHECK_INTERVAL);
            if wait.is_zero() {
                return Ok(true);
            }
            let command = scripts::read_streams([(key, position)], wait);
            match connection.request(&command, wait.saturating_add(self.config.command_timeout())) {
                Ok(Value::Nil) => {}
                Ok(_) => return Ok(true),
                Err(error) if refuses_streams(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
            let (timeout, soon) = (self.config.command_timeout(), Deadline::within(OPERATION_TIMEOUT));
            let reply = scripts::check_for_change(key).run(&mut connection, timeout, soon, false)?;
            if reply.has_changed(cursor).map_err(|_| connection.malformed_reply())? {
                return Ok(true);
            }
        }
    }

    /// Checks record and lease repeatedly, over the store's own connection, with growing pauses.
    fn poll(&self, key: &Key, cursor: &Cursor, deadline: Deadline) -> Result<(), Error> {
        let mut pause = INITIAL_POLL_INTERVAL;
        loop {
            thread::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0).min(RECHECK_INTERVAL).min(deadline.remaining()));
            if deadline.has_passed() {
                return Ok(());
            }
            let has_changed = |reply: ScriptReply| reply.has_changed(cursor);
            if self.run(&scripts::check_for_change(key), Priority::Normal, has_changed)? == Some(true) {
                return Ok(());
            }
            pause = (pause * 2).min(RECHECK_INTERVAL);
        }
    }
}

fn refuses_streams(error: &RedisError) -> bool {
    use RedisErrorKind::*;
    matches!(error.kind, Refused | ForbiddenKey | UnknownCommand | Busy | Full)
}

impl Waiters {
    /// Makes the calling thread the leader for `key`, or returns the signal of the thread that is.
    fn lead(&self, key: &Key) -> Result<Leader<'_>, Arc<Done>> {
        let mut state = self.lock();
        if let Some(done) = state.leaders.get(key) {
            return Err(done.clone());
        }
        let done = Arc::new(Done::default());
        state.leaders.insert(key.clone(), done.clone());
        Ok(Leader { waiters: self, key: key.clone(), done })
    }

    /// Returns the right to open a stream connection, unless too many are open or the server refused the last one.
    fn stream_slot(&self) -> Option<StreamSlot<'_>> {
        let mut state = self.lock();
        let refused = state.refused_until.is_some_and(|until| !until.has_passed());
        (state.connections < MAX_STREAM_CONNECTIONS && !refused).then(|| {
            state.connections += 1;
            StreamSlot { waiters: self, process: state.process }
        })
    }

    fn note_refusal(&self) {
        self.lock().refused_until = Some(Deadline::within(store_backoff(u32::MAX, fastrand::f64())));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.0);
        let process = std::process::id();
        if state.process != process {
            // The leaders of the parent do not exist in a forked child.
            *state = State { process, ..State::default() };
        }
        state
    }
}

/// The leading thread for a key. Wakes the threads that wait for it when dropped.
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

/// The right to have one stream connection open.
struct StreamSlot<'a> {
    waiters: &'a Waiters,
    process: u32,
}

impl Drop for StreamSlot<'_> {
    fn drop(&mut self) {
        let mut state = self.waiters.lock();
        // A forked child has reset the count, and must not give its parent's slot back.
        if state.process == self.process {
            state.connections -= 1;
        }
    }
}

/// How long a thread waits at most before it checks record and lease itself, because an announcement may be missing.
pub(super) const RECHECK_INTERVAL: Duration = Duration::from_millis(250);

const INITIAL_POLL_INTERVAL: Duration = Duration::from_millis(20);
const MAX_STREAM_CONNECTIONS: usize = 8;
