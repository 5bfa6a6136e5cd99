//! Runs `src/core` against a model of stores, provider, clocks and processes, in one thread, with time as a number.
//!
//! The files of `src` are included as they are. What goes wrong on purpose stands in [`plants`], outside the core.
//!
//! ```text
//! cargo test --release -p evertoken-model           the short form, in well under a minute
//! ... -- --ignored --nocapture long_search          every scenario with two and with three processes
//! ... -- --ignored --nocapture long_walks           walks of tens of thousands of steps
//! ... -- --ignored --nocapture fleet                1,000 hosts for a simulated day, as a table
//! ```
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
    pub(crate) mod profile;
}
#[path = "../../src/secret.rs"]
mod secret;
#[path = "../../src/version.rs"]
mod version;

mod apply;
mod choices;
mod equality;
mod plants;
mod promises;
mod scenarios;
mod search;
mod store;
mod time;
mod vendor;
mod walk;
mod world;
