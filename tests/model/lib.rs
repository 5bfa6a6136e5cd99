//! Runs `src/core` against a model of stores, provider, clocks and processes, in one thread, with time as a number.
//!
//! The files of `src` are included as they are. What goes wrong on purpose stands in [`plants`], outside the core.
//!
//! ```text
//! cargo test --locked --manifest-path tests/model/Cargo.toml --target-dir target/model
//!                                                     the short form: search, walks and plants, half a minute
//! ... -- --ignored --nocapture long_search            every scenario with two and with three processes, deeper
//! ... -- --ignored --nocapture long_walks             walks of tens of thousands of steps
//! ... -- --ignored --nocapture fleet                  1,000 hosts for a simulated day, as a table
//! ... -- --nocapture every_planted_fault              how many steps each planted fault took
//! ```
//!
//! `SCENARIO=reject`, `PLANT=OneClock`, `SEED=7` and `EXPLAIN=1` choose one scenario, plant or walk, and print what
//! each step of a walk meets. Nothing depends on the speed of the machine: searches end after a number of transitions.
//!
//! A new fault in a decision becomes a scenario that breaks a promise, or a promise that was missing, and then a
//! [`plants::Plant`], so that the model is known to find it.

#![cfg(test)]
// A model does not use all that the included files offer to the crate.
#![allow(dead_code)]

#[path = "../../src/clock.rs"]
mod clock;
#[path = "../../src/core/mod.rs"]
mod core;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/key.rs"]
mod key;
#[path = "../../src/policy.rs"]
mod policy;
#[path = "."]
mod provider {
    #[path = "../../src/provider/profile.rs"]
    mod profile;
    pub(crate) use profile::{Profile, RenewalProfile};
}
#[path = "../../src/secret.rs"]
mod secret;
#[path = "../../src/version.rs"]
mod version;

mod apply;
mod choices;
mod equality;
mod fleet;
mod plants;
mod promises;
mod scenarios;
mod search;
mod store;
mod time;
mod vendor;
mod walk;
mod world;
