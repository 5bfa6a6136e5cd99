//! Tries every order, breadth first, so that the first story found is a shortest one.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use crate::choices::Choice;
use crate::scenarios::Scenario;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) transitions: u64,
    pub(crate) states: usize,
    pub(crate) depth: usize,
    /// The broken promise, and what leads to it.
    pub(crate) broken: Option<Broken>,
}

#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) promise: String,
    pub(crate) story: Vec<Choice>,
}

/// Searches until a promise is broken, nothing is left to try, or so many transitions were made.
pub(crate) fn search(scenario: &Scenario, most_transitions: u64) -> Report {
    let start = World::new(scenario);
    let mut seen: HashSet<u64, BuildHasherDefault<Same>> = HashSet::default();
    seen.insert(start.fingerprint());
    // Where each state came from: its parent's index, and the choice.
    let mut origins = vec![(0_u32, Choice::Tick)];
    let (mut level, mut transitions, mut depth) = (vec![(start, 0_u32)], 0, 0);
    let report = |transitions, states, depth, broken| Report { transitions, states, depth, broken };
    while !level.is_empty() {
        let mut next = Vec::new();
        for (world, index) in level {
            if transitions >= most_transitions {
                return report(transitions, seen.len(), depth, None);
            }
            for choice in world.choices(scenario) {
                let mut after = world.clone();
                transitions += 1;
                if let Err(promise) = after.apply(choice, scenario) {
                    let broken = Broken { promise, story: story(&origins, index, choice) };
                    return report(transitions, seen.len(), depth + 1, Some(broken));
                }
                if seen.insert(after.fingerprint()) {
                    origins.push((index, choice));
                    next.push((after, origins.len() as u32 - 1));
                }
            }
        }
        (level, depth) = (next, depth + 1);
    }
    report(transitions, seen.len(), depth, None)
}

fn story(origins: &[(u32, Choice)], mut at: u32, last: Choice) -> Vec<Choice> {
    let mut story = vec![last];
    while at != 0 {
        let (parent, choice) = origins[at as usize];
        story.push(choice);
        at = parent;
    }
    story.reverse();
    story
}

/// The keys are hashes already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {}

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::scenarios;

    #[test]
    fn no_promise_is_broken_in_any_order_of_events() {
        search_all(2, SHORT);
    }

    #[test]
    #[ignore = "the long form takes minutes"]
    fn long_search() {
        search_all(2, LONG);
        search_all(3, LONG / 2);
    }

    fn search_all(processes: usize, most_transitions: u64) {
        let mut failed = 0;
        let only = std::env::var("SCENARIO").ok();
        for scenario in scenarios() {
            if only.as_ref().is_some_and(|only| only != scenario.name) {
                continue;
            }
            let scenario = Scenario { processes, ..scenario };
            let Report { transitions, states, depth, broken } = search(&scenario, most_transitions);
            println!(
                "{:<16} {processes} processes {transitions:>9} transitions {states:>8} states, depth {depth:>3}",
                scenario.name
            );
            if let Some(Broken { promise, story }) = broken {
                println!("  BROKEN PROMISE {promise}\n  {story:?}");
                failed += 1;
            }
        }
        assert_eq!(failed, 0, "broken promises; run with --nocapture");
    }

    const SHORT: u64 = 60_000;
    const LONG: u64 = 1_000_000;
}
