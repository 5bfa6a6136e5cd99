//! Many hosts for a simulated day. A second is the unit; every host calls once a minute.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::choices::Choice;
use crate::core::step::Step;
use crate::policy::Policy;
use crate::scenarios::{Budget, Kind, Scenario};
use crate::time::At;
use crate::walk::Random;
use crate::world::World;

const DAY: i32 = 86_400;
const LIFETIME: i32 = 7_200;
/// The first of many hosts refreshes 330 s before the end: 300 s, and 10 % jitter.
const RENEWED_EVERY: i32 = LIFETIME - 330;
/// Trouble comes before every second refresh and lasts ten minutes, so that it covers the end of a token.
const FIRST_TROUBLE: i32 = 2 * RENEWED_EVERY - 100;
const TROUBLE_EVERY: i32 = 2 * RENEWED_EVERY;
const TROUBLE_LASTS: i32 = 600;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    None,
    ProviderOutage,
    StoreOutage,
    StoreFlush,
    Restarts,
    Revocation,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call(usize),
    Timer(usize),
    /// The step of this refresh has its reply, or is waited for no longer.
    Step(usize, u32),
    TroubleBegins,
    TroubleEnds,
}

struct Fleet {
    scenario: Scenario,
    trouble: Trouble,
    world: World,
    random: Random,
    queue: BinaryHeap<Reverse<(i32, Event)>>,
    is_provider_up: bool,
    /// Tokens up to this one were revoked by the vendor.
    revoked: u128,
    /// Since when a caller of a host has no token.
    without_since: Vec<Option<i32>>,
    without: i64,
    /// Requests with a token that the vendor has ended.
    refused: u64,
    broken: Vec<String>,
}

impl Fleet {
    fn new(hosts: usize, kind: Kind, trouble: Trouble) -> Fleet {
        let budget = Budget { grants: u8::MAX, ..Budget::default() };
        let mut scenario = Scenario::new("fleet", kind, budget);
        let seconds = Duration::from_secs;
        let rules = &mut scenario.rules;
        rules.policy = Policy::default();
        (rules.fetch_limit, rules.operation) = (seconds(5), Duration::from_millis(500));
        (rules.store_check_interval, rules.store_retry) = (seconds(60), seconds(1));
        (rules.early, rules.early_limit, rules.early_window) = (seconds(10), 3, seconds(60));
        rules.store_down_fetch_interval = seconds(if kind == Kind::EndsOld { 300 } else { 0 });
        let scenario = Scenario { processes: hosts, lifetimes: &[LIFETIME], max_wait: 15, ..scenario };
        let world = World::new(&scenario);
        let mut fleet = Fleet {
            scenario,
            trouble,
            world,
            random: Random(1),
            queue: BinaryHeap::new(),
            is_provider_up: true,
            revoked: 0,
            without_since: vec![None; hosts],
            without: 0,
            refused: 0,
            broken: Vec::new(),
        };
        for i in 0..hosts {
            let at = fleet.random.below(60) as i32;
            fleet.at(at, Event::Call(i));
        }
        fleet.at(FIRST_TROUBLE, Event::TroubleBegins);
        fleet
    }

    fn at(&mut self, time: i32, event: Event) {
        self.queue.push(Reverse((time, event)));
    }

    fn run(&mut self) {
        while let Some(Reverse((now, event))) = self.queue.pop()
            && now < DAY
        {
            if now > self.world.now.0 {
                self.world.now = At(now);
                self.world.expire();
            }
            self.world.random = self.random.below(1_000) as f64 / 1_000.0;
            self.world.budget.grants = u8::MAX;
            let Some((i, choice)) = self.choice(now, event) else { continue };
            if let Err(promise) = self.world.apply_unchecked(choice, &self.scenario) {
                self.broken.push(promise);
            }
            self.follow_up(now, i, choice);
        }
    }

    /// What an event makes a host do.
    fn choice(&mut self, now: i32, event: Event) -> Option<(usize, Choice)> {
        match event {
            Event::TroubleBegins | Event::TroubleEnds => {
                self.change_trouble(now, event);
                None
            }
            Event::Call(i) => {
                self.at(now + 60, Event::Call(i));
                // A caller that waits longer than it may has had its error.
                self.world.processes[i].caller.take_if(|(_, deadline)| deadline.0 <= now);
                let is_free = self.world.processes[i].caller.is_none();
                self.without_since[i].get_or_insert(now);
                is_free.then_some((i, Choice::Call(i)))
            }
            Event::Timer(i) => self.world.due_timer(i, &self.scenario).map(|_| (i, Choice::Timer(i))),
            Event::Step(i, id) => {
                let threads = &self.world.processes[i].threads;
                let t = threads.iter().position(|thread| thread.refresh.id.0 == id)?;
                let choice = match (&threads[t].refresh.step, &threads[t].decided) {
                    (Step::Fetch { .. }, Some(_)) => Choice::Reply(i, t),
                    (Step::Fetch { .. }, None) if self.is_provider_up => Choice::Grant(i, t),
                    (Step::Fetch { .. }, None) => Choice::Fail(i, t),
                    _ => Choice::Perform(i, t),
                };
                self.world.budget.failures = u8::from(matches!(choice, Choice::Fail(..)));
                Some((i, choice))
            }
        }
    }

    fn change_trouble(&mut self, now: i32, event: Event) {
        let begins = event == Event::TroubleBegins;
        if begins {
            self.at(now + TROUBLE_EVERY, Event::TroubleBegins);
            self.at(now + TROUBLE_LASTS, Event::TroubleEnds);
        }
        let hosts = self.world.processes.len();
        self.world.budget = Budget { outages: 1, flushes: 1, crashes: u8::MAX, restarts: u8::MAX, ..self.world.budget };
        let choices: Vec<Choice> = match (self.trouble, begins) {
            (Trouble::ProviderOutage, _) => {
                self.is_provider_up = !begins;
                Vec::new()
            }
            (Trouble::StoreOutage, true) => vec![Choice::Down],
            (Trouble::StoreOutage, false) => vec![Choice::Up],
            (Trouble::StoreFlush, true) => vec![Choice::Flush],
            (Trouble::Restarts, true) => (0..hosts.min(200)).map(Choice::Restart).collect(),
            (Trouble::Revocation, true) => {
                self.revoked = self.world.tokens.last().map_or(0, |truth| truth.id);
                Vec::new()
            }
            _ => Vec::new(),
        };
        for choice in choices {
            if let Err(promise) = self.world.apply_unchecked(choice, &self.scenario) {
                self.broken.push(promise);
            }
        }
    }

    /// Puts what follows into the queue, and measures.
    fn follow_up(&mut self, now: i32, i: usize, choice: Choice) {
        let mut events = Vec::new();
        for thread in &self.world.processes[i].threads {
            let takes = match (&thread.refresh.step, &thread.decided) {
                (Step::Fetch { .. }, None) => 1,
                (Step::WaitForChange { .. }, _) => (thread.until.0 - now).clamp(0, 1),
                _ => 0,
            };
            if thread.issued.0 == now || thread.decided.is_some() {
                events.push((now + takes, Event::Step(i, thread.refresh.id.0)));
            }
        }
        let env = self.world.env(i, &self.scenario);
        if let Some((_, due)) = self.world.processes[i].machine.next_timer(&env) {
            let wait = env.now.until(due);
            let seconds = i32::try_from(wait.as_secs()).unwrap_or(DAY) + i32::from(wait.subsec_nanos() > 0);
            events.push((now + seconds.max(1), Event::Timer(i)));
        }
        events.into_iter().for_each(|(time, event)| self.at(time, event));
        let process = &self.world.processes[i];
        let token = process.cache.as_ref().filter(|(_, until)| !process.clock(At(now)).reaches(*until));
        let name = token.map(|(token, _)| token.fingerprint.0);
        if let Some(since) = self.without_since[i].take_if(|_| name.is_some()) {
            self.without += i64::from(now - since);
        }
        if let (Choice::Call(_), Some(name)) = (choice, name) {
            self.use_token(now, i, name);
        }
    }

    /// The caller's request is refused when the vendor has ended its token.
    fn use_token(&mut self, now: i32, i: usize, name: u128) {
        let is_newest = self.world.tokens.last().is_some_and(|truth| truth.id == name);
        let is_ended = self.scenario.kind == Kind::EndsOld && !is_newest || name <= self.revoked;
        let handed = &self.world.processes[i].handed;
        let Some(k) = handed.iter().position(|token| token.fingerprint.0 == name).filter(|_| is_ended) else { return };
        self.refused += 1;
        self.world.budget.rejections = 1;
        if let Err(promise) = self.world.apply_unchecked(Choice::Reject(i, k), &self.scenario) {
            self.broken.push(promise);
        }
        self.at(now + 1, Event::Call(i));
        let ids: Vec<u32> = self.world.processes[i].threads.iter().map(|thread| thread.refresh.id.0).collect();
        ids.into_iter().for_each(|id| self.at(now, Event::Step(i, id)));
    }

    fn print(&self) {
        let (renewals, counts) = (f64::from(DAY / RENEWED_EVERY), &self.world.counts);
        let hosts = self.world.processes.len() as f64;
        let per_host = counts.store_commands as f64 / hosts;
        println!(
            "{:<9} {:<15} {:>8} {:>9.2} {per_host:>13.0} {:>9.1} {:>12.2} {:>9}",
            format!("{:?}", self.scenario.kind),
            format!("{:?}", self.trouble),
            counts.fetches,
            counts.fetches as f64 / renewals,
            per_host / renewals,
            self.without as f64 / hosts,
            self.refused,
        );
        if let Some(first) = self.broken.first() {
            println!("  {} broken promises, the first: {first}", self.broken.len());
        }
    }
}

#[test]
#[ignore = "the table takes minutes"]
fn fleet() {
    let hosts = std::env::var("HOSTS").ok().and_then(|hosts| hosts.parse().ok()).unwrap_or(1_000);
    println!(
        "{hosts} hosts, one day, lifetime 7,200 s, a call a minute; ten minutes of trouble at every second refresh"
    );
    println!(
        "{:<9} {:<15} {:>8} {:>9} {:>13} {:>9} {:>12} {:>9}",
        "token", "trouble", "fetches", "/renewal", "commands/host", "/renewal", "s without*", "refused"
    );
    let mut broken = 0;
    for kind in [Kind::Coexist, Kind::EndsOld] {
        use Trouble::*;
        for trouble in [None, ProviderOutage, StoreOutage, StoreFlush, Restarts, Revocation] {
            let mut fleet = Fleet::new(hosts, kind, trouble);
            fleet.run();
            fleet.print();
            broken += fleet.broken.len();
        }
    }
    println!("* seconds in which a caller of a host waited or had an error, per host; a fetch takes one second");
    assert_eq!(broken, 0, "broken promises");
}
