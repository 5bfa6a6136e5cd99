//! What can happen next. Every choice is one thing.

use crate::core::step::Step;
use crate::scenarios::{Kind, Scenario};
use crate::world::{Process, Thread, World};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Choice {
    Tick,
    Call(usize),
    Force(usize),
    Timer(usize),
    Perform(usize, usize),
    LoseReply(usize, usize),
    Grant(usize, usize),
    Fail(usize, usize),
    Deny(usize, usize),
    Reply(usize, usize),
    TimeOut(usize, usize),
    Hang(usize, usize),
    Return(usize, usize),
    Reject(usize, usize),
    Invalidate(usize),
    SetTicket(usize),
    Shutdown(usize),
    End(usize),
    Crash(usize),
    Restart(usize),
    Suspend(usize),
    Resume(usize),
    StepClock(usize, i16),
    Down,
    Up,
    Flush,
    /// A failover to a replica that lacks the latest renewal secret.
    RollBack,
}

impl Choice {
    /// What happens without any trouble.
    pub(crate) fn is_ordinary(self) -> bool {
        use Choice::*;
        matches!(self, Tick | Call(_) | Timer(_) | Perform(..) | Grant(..) | Reply(..) | Up | Resume(_) | Return(..))
    }
}

/// Collects choices.
struct Offers {
    all: Vec<Choice>,
    /// No step is over its limit and no timer is due.
    time_can_pass: bool,
}

impl Offers {
    fn offer(&mut self, is_possible: bool, choice: Choice) {
        if is_possible {
            self.all.push(choice);
        }
    }
}

impl World {
    pub(crate) fn choices(&self, scenario: &Scenario) -> Vec<Choice> {
        let mut offers = Offers { all: Vec::with_capacity(16), time_can_pass: true };
        for (i, process) in self.processes.iter().enumerate() {
            self.offer_to_process(&mut offers, i, process, scenario);
        }
        let primary = &self.stores[0];
        offers.offer(primary.is_up && self.budget.outages > 0, Choice::Down);
        offers.offer(!primary.is_up, Choice::Up);
        offers.offer(primary.is_up && self.budget.flushes > 0, Choice::Flush);
        offers.offer(self.budget.rollbacks > 0 && primary.previous_renewal.is_some(), Choice::RollBack);
        let time_can_pass = offers.time_can_pass;
        offers.offer(time_can_pass, Choice::Tick);
        offers.all
    }

    fn offer_to_process(&self, offers: &mut Offers, i: usize, process: &Process, scenario: &Scenario) {
        let budget = &self.budget;
        if !process.is_alive {
            return offers.offer(budget.restarts > 0, Choice::Restart(i));
        }
        let has_stopped = process.machine.is_stopping() && process.threads.is_empty();
        offers.offer(budget.restarts > 0 && has_stopped, Choice::Restart(i));
        if process.is_suspended {
            return offers.offer(true, Choice::Resume(i));
        }
        if self.due_timer(i, scenario).is_some() {
            offers.offer(true, Choice::Timer(i));
            offers.time_can_pass = false;
        }
        for (t, thread) in process.threads.iter().enumerate() {
            self.offer_to_thread(offers, (i, t), thread);
        }
        if process.is_ending {
            return;
        }
        let is_free = process.caller.is_none() && !process.machine.is_stopping();
        offers.offer(is_free, Choice::Call(i));
        offers.offer(is_free && budget.forces > 0, Choice::Force(i));
        for (k, token) in process.handed.iter().enumerate() {
            let is_rejected = process.rejected.contains(&(token.fingerprint.0, token.sequence));
            offers.offer(budget.rejections > 0 && !is_rejected, Choice::Reject(i, k));
        }
        offers.offer(budget.invalidations > 0, Choice::Invalidate(i));
        offers.offer(budget.tickets > 0 && scenario.kind == Kind::Ticket, Choice::SetTicket(i));
        offers.offer(budget.shutdowns > 0 && !process.machine.is_stopping(), Choice::Shutdown(i));
        offers.offer(budget.ends > 0, Choice::End(i));
        offers.offer(budget.crashes > 0, Choice::Crash(i));
        // Against a suspend and a wall clock that was set back, both, there is no remedy.
        offers.offer(budget.suspends > 0 && process.wall_offset == 0, Choice::Suspend(i));
        offers.offer(budget.clock_steps > 0 && process.lag == 0, Choice::StepClock(i, 2));
        offers.offer(budget.clock_steps > 0 && process.lag == 0, Choice::StepClock(i, -2));
    }

    fn offer_to_thread(&self, offers: &mut Offers, at: (usize, usize), thread: &Thread) {
        let ((i, t), budget) = (at, &self.budget);
        if thread.is_hung {
            return offers.offer(true, Choice::Return(i, t));
        }
        let is_over = self.now >= thread.until;
        offers.time_can_pass &= !is_over;
        offers.offer(budget.hangs > 0, Choice::Hang(i, t));
        match (&thread.refresh.step, &thread.decided) {
            (Step::Fetch { .. }, None) => {
                offers.offer(true, Choice::Grant(i, t));
                offers.offer(budget.failures > 0, Choice::Fail(i, t));
                offers.offer(budget.denials > 0, Choice::Deny(i, t));
                offers.offer(is_over && self.now.since(thread.issued) < PROVIDER_LIMIT, Choice::TimeOut(i, t));
            }
            (Step::Fetch { .. }, Some(_)) => {
                offers.offer(true, Choice::Reply(i, t));
                offers.offer(budget.lost_replies > 0, Choice::TimeOut(i, t));
            }
            (Step::WaitForChange { .. }, _) => {
                offers.offer(is_over || self.is_worth_waking(thread), Choice::Perform(i, t));
            }
            (step, _) => {
                offers.offer(true, Choice::Perform(i, t));
                offers.offer(budget.lost_writes > 0 && is_write(step), Choice::LoseReply(i, t));
            }
        }
    }

    fn is_worth_waking(&self, thread: &Thread) -> bool {
        let Some(store) = self.stores.get(thread.refresh.tier as usize) else { return true };
        let is_free = store.lease.as_ref().is_none_or(|lease| self.now >= lease.until);
        is_free || store.written_at >= thread.issued && store.record.is_some()
    }

    /// The timer of this process that is due.
    pub(crate) fn due_timer(&self, i: usize, scenario: &Scenario) -> Option<crate::core::timers::Timer> {
        let env = self.env(i, scenario);
        let next = self.processes[i].machine.next_timer(&env);
        let next = scenario.plant.map_or(next, |plant| plant.change_timer(next));
        next.filter(|(_, at)| env.now.reaches(*at)).map(|(timer, _)| timer)
    }
}

fn is_write(step: &Step) -> bool {
    use Step::*;
    matches!(step, Write { .. } | ReadOrLease { .. } | StoreRenewal { .. } | MarkRenewal { .. })
}

/// The longest that the provider takes to decide without a fault, in seconds.
const PROVIDER_LIMIT: i32 = 2;
