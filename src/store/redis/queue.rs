//! The one connection of a store, and whose turn it is.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::OPERATION_TIMEOUT;
use super::connection::Connection;
use crate::clock::Deadline;
use crate::lock::{lock, wait};

/// Hands the connection to one operation after another, by their priority and in the order in which they come. No lock is held
/// while one uses it.
#[derive(Default)]
pub(super) struct ConnectionQueue(Mutex<State>);

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    active: Option<Active>,
    waiters: VecDeque<Waiter>,
    /// Numbers the turns.
    last: u64,
    /// Turns that were over before they ended, and may never end: each has a connection.
    hung: usize,
    process: u32,
}

/// Whose turn it is.
#[derive(Clone, Copy)]
struct Active {
    number: u64,
    /// When it is over, whatever it does.
    until: Deadline,
    /// Whether it has been taken up: one that was given to a thread that is not awake yet has no connection.
    is_taken: bool,
}

/// Who comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// Others wait for what it writes.
    Write,
    Read,
    /// It waits longer for its turn, and is not to keep those from theirs that do not.
    Low,
}

struct Waiter {
    number: u64,
    priority: Priority,
    wakeup: Arc<Condvar>,
}

/// One operation's active. The connection that is in it when it ends is kept for the next one.
pub(super) struct Permit<'a> {
    queue: &'a ConnectionQueue,
    number: u64,
    pub(super) connection: Option<Connection>,
    /// It has been taken from one that was over.
    pub(super) previous_hung: bool,
}

impl ConnectionQueue {
    /// Waits for a active. `None`: none came before `deadline`. Whoever has taken much longer than its time is waited for
    /// no more: what it still brings back is not used.
    pub(super) fn acquire(&self, deadline: Deadline, priority: Priority) -> Option<Permit<'_>> {
        let wakeup = Arc::new(Condvar::new());
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        let place = state.waiters.partition_point(|waiter| waiter.priority <= priority);
        state.waiters.insert(place, Waiter { number, priority, wakeup: wakeup.clone() });
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

    /// True when so many operations hang that there should be no more.
    pub(super) fn is_stuck(&self) -> bool {
        self.lock().hung >= MAX_HUNG
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.0);
        let process = std::process::id();
        if state.process != process {
            // A forked child has none of its parent's threads, and nothing to say on its connections.
            *state = State { last: state.last, process, ..State::default() };
        }
        state
    }
}

impl State {
    /// Gives the turn to the next one, unless somebody has it and keeps to its time. True when somebody did not.
    fn grant_next(&mut self) -> bool {
        if self.active.is_some_and(|active| !active.until.has_passed()) {
            return false;
        }
        let has_hung = self.active.is_some_and(|active| active.is_taken);
        self.hung += usize::from(has_hung);
        // To itself, or to another one that has to be woken.
        self.active = self.waiters.pop_front().map(|next| {
            next.wakeup.notify_one();
            Active {
                number: next.number,
                until: Deadline::within(OPERATION_TIMEOUT + OVERRUN_ALLOWANCE),
                is_taken: false,
            }
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
            state.hung = state.hung.saturating_sub(1);
        }
    }
}

const MAX_HUNG: usize = 3;

/// A time limit is looked at between two steps, so an operation may end a little after it.
const OVERRUN_ALLOWANCE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Deadline {
        Deadline::within(Duration::from_secs(30))
    }

    /// A turn whose time is over.
    fn overdue(queue: &ConnectionQueue, is_taken: bool) {
        let mut state = queue.lock();
        state.last += 1;
        let number = state.last;
        state.active = Some(Active { number, until: Deadline::within(Duration::ZERO), is_taken });
    }

    #[test]
    fn who_takes_too_long_is_waited_for_no_more_and_counted_until_it_ends() {
        let queue = ConnectionQueue::default();
        let hanging: Vec<_> = (0..MAX_HUNG)
            .map(|_| {
                let permit = queue.acquire(soon(), Priority::Read).expect("it is free");
                if let Some(active) = &mut queue.lock().active {
                    active.until = Deadline::within(Duration::ZERO);
                }
                permit
            })
            .collect();
        let next = queue.acquire(soon(), Priority::Read).expect("it is taken over");
        assert!(next.previous_hung && queue.is_stuck());
        drop(hanging);
        assert!(!queue.is_stuck());
        drop(next);
        assert!(!queue.acquire(soon(), Priority::Read).expect("it is free").previous_hung);
    }

    #[test]
    fn a_turn_that_nobody_took_up_is_no_hang() {
        let queue = ConnectionQueue::default();
        for _ in 0..10 {
            overdue(&queue, false);
            assert!(!queue.acquire(soon(), Priority::Read).expect("it is taken over").previous_hung);
        }
        assert!(!queue.is_stuck());
        overdue(&queue, true);
        assert!(queue.acquire(soon(), Priority::Read).expect("it is taken over").previous_hung);
    }

    #[test]
    fn nobody_waits_for_longer_than_it_said() {
        let queue = ConnectionQueue::default();
        let _permit = queue.acquire(soon(), Priority::Read).expect("it is free");
        assert!(queue.acquire(Deadline::within(Duration::from_millis(10)), Priority::Write).is_none());
        assert!(queue.lock().waiters.is_empty());
    }
}
