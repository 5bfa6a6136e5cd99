//! The one connection of a store, and whose turn it is.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::OPERATION;
use super::link::Link;
use crate::clock::Deadline;
use crate::lock::{lock, wait};

/// Hands the connection to one operation after another, by their rank and in the order in which they come. No lock is held
/// while one uses it.
#[derive(Default)]
pub(super) struct Lane(Mutex<State>);

#[derive(Default)]
struct State {
    link: Option<Link>,
    turn: Option<Current>,
    queue: VecDeque<Waiter>,
    /// Numbers the turns.
    last: u64,
    /// Turns that were over before they ended, and may never end: each has a connection.
    lost: usize,
    process: u32,
}

/// Whose turn it is.
#[derive(Clone, Copy)]
struct Current {
    number: u64,
    /// When it is over, whatever it does.
    until: Deadline,
    /// Whether it has been taken up: one that was given to a thread that is not awake yet has no connection.
    is_taken: bool,
}

/// Who comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Others wait for what it writes.
    Writing,
    Reading,
    /// It waits longer for its turn, and is not to keep those from theirs that do not.
    Patient,
}

struct Waiter {
    number: u64,
    rank: Rank,
    bell: Arc<Condvar>,
}

/// One operation's turn. The connection that is in it when it ends is kept for the next one.
pub(super) struct Turn<'a> {
    lane: &'a Lane,
    number: u64,
    pub(super) link: Option<Link>,
    /// It has been taken from one that was over.
    pub(super) after_a_hang: bool,
}

impl Lane {
    /// Waits for a turn. `None`: none came before `deadline`. Whoever has taken much longer than its time is waited for
    /// no more: what it still brings back is not used.
    pub(super) fn enter(&self, deadline: Deadline, rank: Rank) -> Option<Turn<'_>> {
        let bell = Arc::new(Condvar::new());
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        let place = state.queue.partition_point(|waiter| waiter.rank <= rank);
        state.queue.insert(place, Waiter { number, rank, bell: bell.clone() });
        let mut after_a_hang = false;
        loop {
            after_a_hang |= state.hand_on();
            if let Some(turn) = state.turn.as_mut().filter(|turn| turn.number == number) {
                turn.is_taken = true;
                let link = state.link.take();
                return Some(Turn { lane: self, number, link, after_a_hang });
            }
            if deadline.has_passed() {
                state.queue.retain(|waiter| waiter.number != number);
                return None;
            }
            let until = state.turn.map_or(deadline, |turn| turn.until.min(deadline));
            state = wait(&bell, state, until.remaining());
        }
    }

    /// True when so many operations hang that there should be no more.
    pub(super) fn hangs(&self) -> bool {
        self.lock().lost >= MOST_LOST
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
    fn hand_on(&mut self) -> bool {
        if self.turn.is_some_and(|turn| !turn.until.has_passed()) {
            return false;
        }
        let hangs = self.turn.is_some_and(|turn| turn.is_taken);
        self.lost += usize::from(hangs);
        // To itself, or to another one that has to be woken.
        self.turn = self.queue.pop_front().map(|next| {
            next.bell.notify_one();
            Current { number: next.number, until: Deadline::within(OPERATION + GRACE), is_taken: false }
        });
        hangs
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let link = self.link.take();
        let mut state = self.lane.lock();
        if state.turn.is_some_and(|turn| turn.number == self.number) {
            (state.turn, state.link) = (None, link);
            state.hand_on();
        } else {
            state.lost = state.lost.saturating_sub(1);
        }
    }
}

const MOST_LOST: usize = 3;

/// A time limit is looked at between two steps, so an operation may end a little after it.
const GRACE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Deadline {
        Deadline::within(Duration::from_secs(30))
    }

    /// A turn whose time is over.
    fn overdue(lane: &Lane, is_taken: bool) {
        let mut state = lane.lock();
        state.last += 1;
        let number = state.last;
        state.turn = Some(Current { number, until: Deadline::within(Duration::ZERO), is_taken });
    }

    #[test]
    fn who_takes_too_long_is_waited_for_no_more_and_counted_until_it_ends() {
        let lane = Lane::default();
        let hanging: Vec<_> = (0..MOST_LOST)
            .map(|_| {
                let turn = lane.enter(soon(), Rank::Reading).expect("it is free");
                if let Some(current) = &mut lane.lock().turn {
                    current.until = Deadline::within(Duration::ZERO);
                }
                turn
            })
            .collect();
        let next = lane.enter(soon(), Rank::Reading).expect("it is taken over");
        assert!(next.after_a_hang && lane.hangs());
        drop(hanging);
        assert!(!lane.hangs());
        drop(next);
        assert!(!lane.enter(soon(), Rank::Reading).expect("it is free").after_a_hang);
    }

    #[test]
    fn a_turn_that_nobody_took_up_is_no_hang() {
        let lane = Lane::default();
        for _ in 0..10 {
            overdue(&lane, false);
            assert!(!lane.enter(soon(), Rank::Reading).expect("it is taken over").after_a_hang);
        }
        assert!(!lane.hangs());
        overdue(&lane, true);
        assert!(lane.enter(soon(), Rank::Reading).expect("it is taken over").after_a_hang);
    }

    #[test]
    fn nobody_waits_for_longer_than_it_said() {
        let lane = Lane::default();
        let _turn = lane.enter(soon(), Rank::Reading).expect("it is free");
        assert!(lane.enter(Deadline::within(Duration::from_millis(10)), Rank::Writing).is_none());
        assert!(lane.lock().queue.is_empty());
    }
}
