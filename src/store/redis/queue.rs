//! The queue for a store's one connection.
//!
//! Operations get the connection one at a time, by [`Priority`] and then in the order in which they came. No lock is
//! held while an operation uses the connection.
//!
//! The operation that has the connection is *active*, and has [`OPERATION_TIMEOUT`] and a little more to return its
//! [`Permit`]. When it does not, the next waiter takes over with a new connection, and the late operation is counted as
//! *hung*: its connection is closed when it returns, because nobody knows what was read from it. While [`MAX_HUNG`]
//! operations hang, the queue is stuck and the store sends nothing, so that a server which never answers cannot collect
//! threads and connections.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::config::OPERATION_TIMEOUT;
use super::connection::Connection;
use crate::clock::Deadline;
use crate::lock::{lock, wait};

#[derive(Default)]
pub(super) struct ConnectionQueue(Mutex<State>);

#[derive(Default)]
struct State {
    /// The connection while no operation uses it.
    connection: Option<Connection>,
    active: Option<Active>,
    /// Sorted by priority, then by arrival.
    waiters: VecDeque<Waiter>,
    /// The number of the last operation that came.
    last: u64,
    /// Operations that overran their time and have not returned. Each still has a connection.
    hung: usize,
    process: u32,
}

/// The operation whose turn it is.
#[derive(Clone, Copy)]
struct Active {
    number: u64,
    /// When the next waiter takes over.
    until: Deadline,
    /// Whether the operation's thread has woken up and taken its permit. Before that it has no connection, so a thread
    /// that is late to wake up does not count as hung.
    is_taken: bool,
}

/// The order in which waiting operations are served.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// Publications, which other processes wait for, and other operations that a manager does not repeat.
    High,
    /// Requests for a lease and polls, which are repeated anyway.
    Normal,
    /// Operations of `idempotency`, which may wait longer and must not delay the others.
    Low,
}

struct Waiter {
    number: u64,
    priority: Priority,
    wakeup: Arc<Condvar>,
}

/// The exclusive right to use the connection. A connection that is in the permit when it is dropped is kept for the
/// next operation.
pub(super) struct Permit<'a> {
    queue: &'a ConnectionQueue,
    number: u64,
    pub(super) connection: Option<Connection>,
    /// Whether the operation before this one was found hung.
    pub(super) previous_hung: bool,
}

impl ConnectionQueue {
    /// Waits for the connection. `None` when it did not become free before `deadline`.
    pub(super) fn acquire(&self, deadline: Deadline, priority: Priority) -> Option<Permit<'_>> {
        let wakeup = Arc::new(Condvar::new());
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        let position = state.waiters.partition_point(|waiter| waiter.priority <= priority);
        state.waiters.insert(position, Waiter { number, priority, wakeup: wakeup.clone() });
        let mut previous_hung = false;
        loop {
            previous_hung |= state.grant_next();
            if let Some(active) = state.active.as_mut().filter(|active| active.number == number) {
                active.is_taken = true;
                let connection = state.connection.take();
                return Some(Permit { queue: self, number, connection, previous_hung });
            }
            if deadline.has_passed() {
                state.waiters.retain(|waiter| waiter.number != number);
                return None;
            }
            let until = state.active.map_or(deadline, |active| active.until.min(deadline));
            state = wait(&wakeup, state, until.remaining());
        }
    }

    /// Returns whether so many operations hang that no further one may start.
    pub(super) fn is_stuck(&self) -> bool {
        self.lock().hung >= MAX_HUNG
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.0);
        let process = std::process::id();
        if state.process != process {
            // A forked child has none of its parent's threads, and must not use the parent's connections.
            *state = State { last: state.last, process, ..State::default() };
        }
        state
    }
}

impl State {
    /// Makes the next waiter active, unless an operation is active and within its time. Returns whether the active
    /// operation was found hung.
    fn grant_next(&mut self) -> bool {
        if self.active.is_some_and(|active| !active.until.has_passed()) {
            return false;
        }
        let has_hung = self.active.is_some_and(|active| active.is_taken);
        self.hung += usize::from(has_hung);
        // The next waiter may be the calling thread itself, which then finds itself active.
        self.active = self.waiters.pop_front().map(|next| {
            next.wakeup.notify_one();
            let until = Deadline::within(OPERATION_TIMEOUT + OVERRUN_ALLOWANCE);
            Active { number: next.number, until, is_taken: false }
        });
        has_hung
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let connection = self.connection.take();
        let mut state = self.queue.lock();
        if state.active.is_some_and(|active| active.number == self.number) {
            (state.active, state.connection) = (None, connection);
            state.grant_next();
        } else {
            // This operation was given up as hung, and its connection is closed.
            state.hung = state.hung.saturating_sub(1);
        }
    }
}

/// How many operations may hang before the store stops sending.
const MAX_HUNG: usize = 3;

/// How long an operation may overrun: time limits are checked between two steps, so it can end a little late.
const OVERRUN_ALLOWANCE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Deadline {
        Deadline::within(Duration::from_secs(30))
    }

    /// Makes an operation active whose time has passed.
    fn make_overdue_operation(queue: &ConnectionQueue, is_taken: bool) {
        let mut state = queue.lock();
        state.last += 1;
        let number = state.last;
        state.active = Some(Active { number, until: Deadline::within(Duration::ZERO), is_taken });
    }

    #[test]
    fn an_overdue_operation_loses_the_connection_and_counts_as_hung_until_it_returns() {
        let queue = ConnectionQueue::default();
        let hanging: Vec<_> = (0..MAX_HUNG)
            .map(|_| {
                let permit = queue.acquire(soon(), Priority::Normal).expect("the queue is free");
                if let Some(active) = &mut queue.lock().active {
                    active.until = Deadline::within(Duration::ZERO);
                }
                permit
            })
            .collect();
        let next = queue.acquire(soon(), Priority::Normal).expect("the next one takes over");
        assert!(next.previous_hung && queue.is_stuck());
        drop(hanging);
        assert!(!queue.is_stuck());
        drop(next);
        assert!(!queue.acquire(soon(), Priority::Normal).expect("the queue is free").previous_hung);
    }

    #[test]
    fn a_permit_that_was_not_taken_does_not_count_as_hung() {
        let queue = ConnectionQueue::default();
        for _ in 0..10 {
            make_overdue_operation(&queue, false);
            assert!(!queue.acquire(soon(), Priority::Normal).expect("the next one takes over").previous_hung);
        }
        assert!(!queue.is_stuck());
        make_overdue_operation(&queue, true);
        assert!(queue.acquire(soon(), Priority::Normal).expect("the next one takes over").previous_hung);
    }

    #[test]
    fn waiting_for_the_connection_ends_at_the_deadline() {
        let queue = ConnectionQueue::default();
        let _permit = queue.acquire(soon(), Priority::Normal).expect("the queue is free");
        assert!(queue.acquire(Deadline::within(Duration::from_millis(10)), Priority::High).is_none());
        assert!(queue.lock().waiters.is_empty());
    }
}
