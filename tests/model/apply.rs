//! What each choice does. `Err` names the promise that is broken.

use crate::choices::Choice;
use crate::core::machine::Machine;
use crate::core::step::{Reply, Step};
use crate::core::{Action, Answer, Input, ProcessId};
use crate::error::{Error, ErrorKind};
use crate::scenarios::Scenario;
use crate::secret::Secret;
use crate::time::{At, seconds};
use crate::vendor::refused;
use crate::world::{FIRST_READ, Process, Thread, Wish, World};

use std::time::Duration;

pub(crate) type Outcome = Result<(), String>;

impl World {
    pub(crate) fn apply(&mut self, choice: Choice, scenario: &Scenario) -> Outcome {
        self.apply_unchecked(choice, scenario)?;
        self.check(scenario)
    }

    pub(crate) fn apply_unchecked(&mut self, choice: Choice, scenario: &Scenario) -> Outcome {
        use Choice::*;
        match choice {
            Tick => self.tick(scenario),
            Call(i) => self.call_now(i, Wish::Token, scenario),
            Force(i) => self.force(i, scenario),
            Timer(i) => self.timer(i, scenario),
            Perform(i, t) => self.perform_step(i, t, scenario),
            LoseReply(i, t) => self.lose_reply(i, t, scenario),
            Grant(i, t) => self.grant(i, t, scenario),
            Fail(i, t) | Deny(i, t) => self.fail(i, t, choice),
            Reply(i, t) => self.deliver(i, t, scenario),
            TimeOut(i, t) => self.time_out(i, t, scenario),
            Hang(i, t) => self.hang(i, t),
            Return(i, t) => self.return_late(i, t),
            Reject(i, k) => self.reject(i, k, scenario),
            Invalidate(i) => self.invalidate(i, scenario),
            SetTicket(i) => self.set_ticket(i, scenario),
            Shutdown(i) => self.shut_down(i, scenario),
            End(i) => self.end(i, scenario),
            Crash(i) | Restart(i) => self.crash(i, choice),
            Suspend(i) | Resume(i) => self.suspend(i, choice),
            StepClock(i, by) => self.step_clock(i, by),
            Down | Up | Flush | RollBack => self.trouble_store(choice),
        }
    }
}

/// Threads and their steps.
impl World {
    fn perform_step(&mut self, i: usize, t: usize, scenario: &Scenario) -> Outcome {
        let before = self.stores[0].version.clone();
        let reply = match self.processes[i].threads[t].refresh.step {
            Step::ParentToken | Step::RejectParent => self.ask_parent(i, t)?,
            _ => self.perform(i, t, scenario)?,
        };
        self.advance(i, t, reply, scenario)?;
        if scenario.rules.watches && self.stores[0].version != before {
            for other in (0..self.processes.len()).filter(|other| *other != i) {
                if self.processes[other].is_alive && !self.processes[other].is_suspended {
                    self.handle(other, Input::RecordChanged, scenario)?;
                }
            }
        }
        Ok(())
    }

    fn lose_reply(&mut self, i: usize, t: usize, scenario: &Scenario) -> Outcome {
        self.budget.lost_writes -= 1;
        self.processes[i].undisturbed_since = self.now;
        self.perform(i, t, scenario)?;
        self.advance(i, t, Reply::StoreDown(Error::new(ErrorKind::Store, "lost")), scenario)
    }

    fn fail(&mut self, i: usize, t: usize, choice: Choice) -> Outcome {
        let kind = match choice {
            Choice::Fail(..) => {
                self.budget.failures -= 1;
                ErrorKind::Unavailable
            }
            _ => {
                self.budget.denials -= 1;
                ErrorKind::InvalidCredentials
            }
        };
        self.processes[i].threads[t].decided = Some(refused(kind));
        Ok(())
    }

    fn deliver(&mut self, i: usize, t: usize, scenario: &Scenario) -> Outcome {
        let process = &mut self.processes[i];
        let reply = process.threads[t].decided.take().ok_or("0: nothing was decided")?;
        let fetch = &process.threads[t].refresh.fetch;
        if fetch.is_parent_replaced {
            process.second_parent = fetch.parent.map(|parent| parent.0);
        }
        self.advance(i, t, reply, scenario)
    }

    fn time_out(&mut self, i: usize, t: usize, scenario: &Scenario) -> Outcome {
        if self.processes[i].threads[t].decided.take().is_some() {
            self.budget.lost_replies -= 1;
            self.is_sign_in_excused = true;
        } else {
            // The provider decides after this process has given up.
            self.grant(i, t, scenario)?;
            self.processes[i].threads[t].decided = None;
        }
        self.advance(i, t, refused(ErrorKind::Unavailable), scenario)
    }

    fn hang(&mut self, i: usize, t: usize) -> Outcome {
        self.budget.hangs -= 1;
        self.is_sign_in_excused = true;
        let thread = &mut self.processes[i].threads[t];
        (thread.is_hung, thread.is_excused) = (true, true);
        Ok(())
    }

    fn return_late(&mut self, i: usize, t: usize) -> Outcome {
        let thread = &mut self.processes[i].threads[t];
        thread.is_hung = false;
        if matches!(thread.refresh.step, Step::Fetch { .. }) && thread.decided.is_none() {
            thread.decided = Some(refused(ErrorKind::Unavailable));
        }
        Ok(())
    }

    fn advance(&mut self, i: usize, t: usize, mut reply: Reply, scenario: &Scenario) -> Outcome {
        let (env, mut actions, now) = (self.env(i, scenario), Vec::new(), self.now);
        let process = &mut self.processes[i];
        let thread = &mut process.threads[t];
        let is_lost = matches!((&thread.refresh.step, &reply), (Step::StoreRenewal { .. }, Reply::StoreDown(_)));
        process.has_warned |= is_lost;
        if let Some(plant) = scenario.plant {
            plant.change_reply(&env, &mut process.machine, &mut thread.refresh, &mut reply);
        }
        let mut step = process.machine.advance(&env, &mut thread.refresh, reply, &mut actions);
        if let Some(plant) = scenario.plant {
            plant.change_step(&env, &mut process.machine, &mut thread.refresh, &mut step, &mut actions);
        }
        (thread.issued, thread.until) = (now, limit_of(&step, &env, now));
        match step {
            Step::Finish => self.end_thread(i, t, scenario)?,
            Step::Fetch { .. } => self.check_fetch(i, t, scenario)?,
            _ => {}
        }
        if self.processes[i].is_alive { self.act(i, actions, scenario) } else { Ok(()) }
    }

    fn end_thread(&mut self, i: usize, t: usize, scenario: &Scenario) -> Outcome {
        self.check_recorded(i, t, scenario)?;
        self.check_lease(i, t, scenario)?;
        let process = &mut self.processes[i];
        process.threads.remove(t);
        if process.is_ending && process.threads.is_empty() {
            self.is_sign_in_excused |= process.machine.known.renewal.is_unstored;
            self.remove(i);
        }
        Ok(())
    }
}

/// Callers and the user.
impl World {
    pub(crate) fn call_now(&mut self, i: usize, wish: Wish, scenario: &Scenario) -> Outcome {
        self.processes[i].caller = Some((wish, self.now.after(scenario.max_wait)));
        self.call(i, scenario)
    }

    fn force(&mut self, i: usize, scenario: &Scenario) -> Outcome {
        self.budget.forces -= 1;
        let current = self.processes[i].machine.known.record.token.as_ref();
        let wish = Wish::NewerThan(current.map_or(0, |token| token.sequence));
        self.call_now(i, wish, scenario)
    }

    /// A caller asks, or asks again.
    fn call(&mut self, i: usize, scenario: &Scenario) -> Outcome {
        let (wish, deadline) = self.processes[i].caller.ok_or("0: nobody calls")?;
        let env = self.env(i, scenario);
        if wish == Wish::Token && self.answer_from_cache(i, scenario)? {
            return Ok(());
        }
        let patience = Duration::from_secs(deadline.since(self.now).max(0) as u64);
        let input = match wish {
            Wish::Token => Input::Call { patience },
            Wish::NewerThan(than) => Input::Force { than, patience },
        };
        let held = self.processes[i].machine.known.record.usable(&env).cloned();
        let (answer, actions) = self.ask_machine(i, input, scenario);
        self.check_answer(i, held, wish, answer, scenario)?;
        self.act(i, actions, scenario)
    }

    fn answer_from_cache(&mut self, i: usize, scenario: &Scenario) -> Result<bool, String> {
        if scenario.plant.is_some_and(|plant| plant.ignores_cache()) {
            return Ok(false);
        }
        let process = &mut self.processes[i];
        let now = process.clock(self.now);
        let Some((token, _)) = process.cache.clone().filter(|(_, until)| !now.reaches(*until)) else {
            return Ok(false);
        };
        process.reads += 1;
        process.caller = None;
        self.hand_out(i, token, scenario)?;
        if std::mem::take(&mut self.processes[i].reports_reads) {
            self.handle(i, Input::ReadAfterIdle, scenario)?;
        }
        Ok(true)
    }

    fn timer(&mut self, i: usize, scenario: &Scenario) -> Outcome {
        let env = self.env(i, scenario);
        let before = self.processes[i].machine.next_timer(&env);
        self.handle(i, Input::Timer, scenario)?;
        let after = self.processes[i].machine.next_timer(&env);
        if before == after { Err(format!("9: {before:?} fires without effect")) } else { Ok(()) }
    }

    fn reject(&mut self, i: usize, k: usize, scenario: &Scenario) -> Outcome {
        self.budget.rejections -= 1;
        let mut token = self.processes[i].handed[k].clone();
        let env = self.env(i, scenario);
        // A token that was returned meanwhile has a later number.
        let current = self.processes[i].machine.known.record.usable(&env);
        let current = current.filter(|current| current.fingerprint == token.fingerprint).cloned();
        let is_current = current.is_some();
        token = current.unwrap_or(token);
        let (answer, actions) = self.ask_machine(i, Input::Rejected { fingerprint: token.fingerprint }, scenario);
        self.note_rejected(i, &token, is_current, &answer, scenario)?;
        self.act(i, actions, scenario)
    }

    fn invalidate(&mut self, i: usize, scenario: &Scenario) -> Outcome {
        self.budget.invalidations -= 1;
        let process = &self.processes[i];
        let decided = process.threads.iter().filter_map(|thread| match &thread.decided {
            Some(Reply::Granted(grant)) => Some((grant.fingerprint.0, thread.refresh.fetch.reserved)),
            _ => None,
        });
        let cached = process.cache.as_ref().map(|(token, _)| (token.fingerprint.0, token.sequence));
        let forbidden: Vec<_> = decided.chain(cached).collect();
        self.quiet = (self.now, self.now);
        self.processes[i].rejected.extend(forbidden);
        self.handle(i, Input::Invalidated, scenario)
    }

    fn set_ticket(&mut self, i: usize, scenario: &Scenario) -> Outcome {
        self.budget.tickets -= 1;
        self.quiet = (self.now, self.now);
        self.processes[i].ticket = Some(self.now);
        // Its text tells when it was handed in.
        let ticket = Secret::from(format!("ticket-{}", self.now.0));
        self.handle(i, Input::TicketSet(ticket), scenario)
    }

    fn shut_down(&mut self, i: usize, scenario: &Scenario) -> Outcome {
        self.budget.shutdowns -= 1;
        self.handle(i, Input::Shutdown, scenario)?;
        let is_waiting = self.processes[i].caller.is_some();
        if is_waiting { Err("5: a caller still waits after shutdown".into()) } else { Ok(()) }
    }

    fn end(&mut self, i: usize, scenario: &Scenario) -> Outcome {
        self.budget.ends -= 1;
        let (answer, actions) = self.ask_machine(i, Input::HandleDropped, scenario);
        (self.processes[i].caller, self.processes[i].is_ending) = (None, true);
        if !matches!(answer, Answer::Done) {
            return self.act(i, actions, scenario);
        }
        let spends = |thread: &Thread| match &thread.decided {
            Some(Reply::Granted(grant)) => grant.renewal_secret.is_some(),
            _ => matches!(thread.refresh.step, Step::StoreRenewal { .. }),
        };
        let process = &self.processes[i];
        let is_unstored = scenario.rules.rotates() && process.machine.known.renewal.is_unstored;
        let is_lost = process.threads.iter().any(spends) || is_unstored;
        self.remove(i);
        let is_broken = is_lost && !self.is_sign_in_excused;
        if is_broken { Err("7: a spent refresh token is lost when the process ends".into()) } else { Ok(()) }
    }
}

/// Machines.
impl World {
    pub(crate) fn handle(&mut self, i: usize, input: Input, scenario: &Scenario) -> Outcome {
        let (_, actions) = self.ask_machine(i, input, scenario);
        self.act(i, actions, scenario)
    }

    fn ask_machine(&mut self, i: usize, input: Input, scenario: &Scenario) -> (Answer, Vec<Action>) {
        let (env, mut actions) = (self.env(i, scenario), Vec::new());
        let machine = &mut self.processes[i].machine;
        let Some(plant) = scenario.plant else { return (machine.handle(&env, input, &mut actions), actions) };
        let (before, asked): (Machine, Input) = (machine.clone(), input.clone());
        let mut answer = machine.handle(&env, input, &mut actions);
        plant.change_answer(&env, &before, machine, &asked, (&mut actions, &mut answer));
        (answer, actions)
    }

    /// Performs actions as the driver does.
    fn act(&mut self, i: usize, actions: Vec<Action>, scenario: &Scenario) -> Outcome {
        let mut wakes = false;
        for action in actions {
            let process = &mut self.processes[i];
            match action {
                Action::Serve { token, until } => {
                    (process.cache, process.cached_since) = (Some((*token, until)), self.now);
                    process.reports_reads = false;
                }
                Action::Withdraw => (process.cache, process.reports_reads) = (None, false),
                Action::ReportNextRead => process.reports_reads = true,
                Action::Wake => wakes = true,
                Action::Start(refresh) => self.start(i, *refresh, scenario)?,
                Action::Watch(_) | Action::Emit(_) => {}
            }
        }
        // After a removal nobody is left to be woken.
        if wakes && self.processes[i].is_alive && self.processes[i].caller.is_some() {
            self.call(i, scenario)?;
        }
        Ok(())
    }

    fn start(&mut self, i: usize, refresh: crate::core::refresh::Refresh, scenario: &Scenario) -> Outcome {
        let (now, decided) = (self.now, None);
        let thread = Thread { refresh, issued: now, until: now, decided, is_hung: false, is_excused: false };
        self.processes[i].threads.push(thread);
        let t = self.processes[i].threads.len() - 1;
        self.advance(i, t, Reply::Started, scenario)
    }
}

/// Time, and trouble with processes and stores.
impl World {
    fn tick(&mut self, scenario: &Scenario) -> Outcome {
        self.now = self.now.after(1);
        self.expire();
        for i in 0..self.processes.len() {
            self.processes[i].lag += i16::from(self.processes[i].is_suspended);
            if !self.processes[i].is_alive {
                continue;
            }
            let (now, is_suspended) = (self.now, self.processes[i].is_suspended);
            let is_over = |(_, deadline): &mut (Wish, At)| now >= *deadline && !is_suspended;
            if let Some((wish, _)) = self.processes[i].caller.take_if(is_over) {
                self.check_timed_out(i, wish, scenario)?;
            }
            self.check_written(i, scenario)?;
        }
        Ok(())
    }

    fn crash(&mut self, i: usize, choice: Choice) -> Outcome {
        self.is_sign_in_excused |= self.processes[i].is_alive && self.processes[i].machine.known.renewal.is_unstored;
        if let Choice::Crash(_) = choice {
            self.budget.crashes -= 1;
            self.is_sign_in_excused = true;
            self.remove(i);
        } else {
            self.budget.restarts -= 1;
            self.remove(i);
            self.processes[i] = Process::new(ProcessId(self.next_process), self.now);
            self.next_process += 1;
        }
        Ok(())
    }

    fn suspend(&mut self, i: usize, choice: Choice) -> Outcome {
        let now = self.now;
        if let Choice::Suspend(_) = choice {
            self.budget.suspends -= 1;
            self.is_sign_in_excused = true;
        }
        let process = &mut self.processes[i];
        process.is_suspended = matches!(choice, Choice::Suspend(_));
        process.undisturbed_since = now;
        for thread in &mut process.threads {
            thread.is_excused = true;
            thread.until = thread.until.max(now.after(1));
        }
        Ok(())
    }

    fn step_clock(&mut self, i: usize, by: i16) -> Outcome {
        self.budget.clock_steps -= 1;
        self.processes[i].wall_offset += by;
        // Cooldowns end by either clock, and a host whose clock is ahead fetches sooner.
        self.quiet = (self.now, self.now);
        Ok(())
    }

    fn trouble_store(&mut self, choice: Choice) -> Outcome {
        let now = self.now;
        match choice {
            Choice::Up => (self.stores[0].is_up, self.stores[0].up_since) = (true, now),
            Choice::Down => {
                self.budget.outages -= 1;
                self.stores[0].is_up = false;
            }
            Choice::RollBack => {
                self.budget.rollbacks -= 1;
                let version = self.version();
                let store = &mut self.stores[0];
                (store.renewal, store.renewal_version) = (store.previous_renewal.take(), version);
            }
            _ => {
                self.budget.flushes -= 1;
                self.is_sign_in_excused = true;
                self.stores[0].flush();
                self.stores[0].up_since = now;
            }
        }
        // After an outage or a flush nobody can be blamed for what is in flight or was recorded.
        self.quiet = (now, now);
        self.tokens.iter_mut().for_each(|truth| truth.recorded_at = None);
        self.processes.iter_mut().flat_map(|process| &mut process.threads).for_each(|thread| thread.is_excused = true);
        Ok(())
    }

    fn remove(&mut self, i: usize) {
        let (gone, name) = (ProcessId(u64::MAX), self.processes[i].name);
        for store in &mut self.stores {
            store.lease.iter_mut().filter(|lease| lease.process == name).for_each(|lease| lease.process = gone);
            let mark = store.renewal.as_mut().and_then(|secret| secret.spent_by.as_mut());
            mark.into_iter().filter(|mark| mark.process == name).for_each(|mark| mark.process = gone);
        }
        self.processes[i] = Process { is_alive: false, reads: FIRST_READ, ..Process::new(gone, At(0)) };
    }
}

/// When a step is over, in true time.
fn limit_of(step: &Step, env: &crate::core::Env<'_>, now: At) -> At {
    let rest = env.now.until(step.limit(env));
    now.after(seconds(rest) + i32::from(rest.subsec_nanos() > 0))
}
