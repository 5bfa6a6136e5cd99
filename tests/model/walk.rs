//! Random walks: far deeper than a search, in one order each. The seed repeats a walk.

use crate::choices::Choice;
use crate::scenarios::{Budget, Scenario};
use crate::search::Broken;
use crate::world::World;

/// Walks until a promise is broken or so many steps were made. Returns the number of steps.
pub(crate) fn walk(scenario: &Scenario, seed: u64, steps: usize) -> Result<usize, Broken> {
    let (mut world, mut random, mut story) = (World::new(scenario), Random(seed), Vec::new());
    for step in 0..steps {
        let choices = world.choices(scenario);
        if choices.is_empty() {
            return Ok(step);
        }
        let choice = pick(&choices, &mut random);
        story.push(choice);
        if std::env::var("EXPLAIN").is_ok() {
            explain(&world, choice);
        }
        if let Err(promise) = world.apply(choice, scenario) {
            return Err(Broken { promise, story });
        }
        if step % 200 == 199 {
            // Fresh budgets, and processes instead of those that have ended.
            world.budget = Budget { restarts: 2, ..scenario.budget };
        }
    }
    Ok(steps)
}

/// Prints what a choice meets.
fn explain(world: &World, choice: Choice) {
    let steps = |process: &crate::world::Process| {
        let steps = process.threads.iter().map(|thread| format!("{:?}", thread.refresh.step));
        let known = &process.machine.known.record;
        let token = known.token.as_ref().map(|token| (token.fingerprint.0, token.sequence % 1_000_000));
        format!("    {token:?} through {} {:?}", known.rejections.through % 1_000_000, steps.collect::<Vec<_>>())
    };
    let processes: Vec<_> = world.processes.iter().map(steps).collect();
    println!("{:>3} {choice:?}\n{}", world.now.0, processes.join("\n"));
}

/// Mostly something ordinary, or all trouble would be used up at once.
fn pick(choices: &[Choice], random: &mut Random) -> Choice {
    let ordinary: Vec<Choice> = choices.iter().copied().filter(|choice| choice.is_ordinary()).collect();
    let is_ordinary = random.below(20) > 0 && !ordinary.is_empty();
    let among = if is_ordinary { &ordinary } else { choices };
    among[random.below(among.len())]
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::{Kind, scenarios};

    #[test]
    fn no_promise_is_broken_on_a_random_walk() {
        walk_all(60, 200, |_| true);
    }

    #[test]
    #[ignore = "the long form takes minutes"]
    fn long_walks() {
        walk_all(3_000, 90, |_| true);
        walk_all(20, 20_000, is_bounded);
    }

    /// False where thousands of steps add up to what no library can know: the age of tokens that a vendor returns, and
    /// wall clocks that are set again and again.
    fn is_bounded(scenario: &Scenario) -> bool {
        !matches!(scenario.kind, Kind::Unchanged | Kind::Vouching) && scenario.budget.clock_steps == 0
    }

    fn walk_all(count: u64, steps: usize, is_wanted: fn(&Scenario) -> bool) {
        let mut failed = 0;
        let only = std::env::var("SCENARIO").ok();
        for scenario in scenarios().into_iter().filter(is_wanted) {
            if only.as_ref().is_some_and(|only| only != scenario.name) {
                continue;
            }
            let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
            for seed in seed.map_or(0..count, |seed| seed..seed + 1) {
                let scenario = Scenario { processes: 2 + (seed % 3) as usize, ..scenario.clone() };
                if let Err(Broken { promise, story }) = walk(&scenario, seed, steps) {
                    let tail = &story[story.len().saturating_sub(60)..];
                    println!(
                        "{} seed {seed}: BROKEN PROMISE {promise} after {} steps\n  ... {tail:?}",
                        scenario.name,
                        story.len()
                    );
                    failed += 1;
                    break;
                }
            }
        }
        assert_eq!(failed, 0, "broken promises; run with --nocapture");
    }
}
