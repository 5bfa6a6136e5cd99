//! The situations that are searched. Each turns on the events that meet in it, and few of them, because the number of
//! orders grows with every one.

use std::time::Duration;

use crate::core::Rules;
use crate::key::Identity;
use crate::plants::Plant;
use crate::policy::Policy;
use crate::provider::{Profile, RenewalProfile};

/// How often each thing may happen in one story.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) grants: u8,
    pub(crate) failures: u8,
    pub(crate) denials: u8,
    pub(crate) lost_replies: u8,
    pub(crate) lost_writes: u8,
    pub(crate) hangs: u8,
    pub(crate) rejections: u8,
    pub(crate) invalidations: u8,
    pub(crate) forces: u8,
    pub(crate) tickets: u8,
    pub(crate) shutdowns: u8,
    pub(crate) ends: u8,
    pub(crate) crashes: u8,
    pub(crate) restarts: u8,
    pub(crate) suspends: u8,
    pub(crate) clock_steps: u8,
    pub(crate) outages: u8,
    pub(crate) flushes: u8,
    pub(crate) rollbacks: u8,
}

/// How the provider treats its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Coexist,
    EndsOld,
    /// The same token is returned while it is good.
    Unchanged,
    /// The same token is returned for far longer than its lifetime.
    Vouching,
    /// Each grant replaces the renewal secret.
    Rotating,
    /// A grant needs a ticket that was pushed to some process.
    Ticket,
    /// A grant needs a token of a parent, and is refused whatever the token.
    RefusedChild,
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) processes: usize,
    pub(crate) kind: Kind,
    pub(crate) rules: Rules,
    /// Of the first token, the second, and so on, in seconds; the last one repeats.
    pub(crate) lifetimes: &'static [i32],
    pub(crate) max_wait: i32,
    pub(crate) budget: Budget,
    /// What is decided wrongly on purpose.
    pub(crate) plant: Option<Plant>,
}

impl Scenario {
    pub(crate) fn new(name: &'static str, kind: Kind, budget: Budget) -> Scenario {
        let mut rules = rules(kind);
        // Store operations take no time: their order still varies, their duration does not.
        rules.operation = Duration::ZERO;
        Scenario { name, processes: 2, kind, rules, lifetimes: &[10], max_wait: 12, budget, plant: None }
    }

    /// Store operations take up to a second.
    fn slow(mut self) -> Scenario {
        self.rules.operation = SECOND;
        self
    }

    fn with_fallback(mut self) -> Scenario {
        self.rules.has_fallback = true;
        self
    }

    fn lifetimes(self, lifetimes: &'static [i32]) -> Scenario {
        Scenario { lifetimes, ..self }
    }

    fn changed(mut self, change: impl FnOnce(&mut Rules)) -> Scenario {
        change(&mut self.rules);
        self
    }

    /// The same with a decision that is wrong.
    pub(crate) fn with_plant(mut self, plant: Plant) -> Scenario {
        plant.change_rules(&mut self.rules);
        Scenario { plant: Some(plant), ..self }
    }

    pub(crate) fn renewal_lifetime(&self) -> Duration {
        self.rules.renewal.as_ref().map_or(Duration::ZERO, |renewal| renewal.lifetime)
    }
}

fn rules(kind: Kind) -> Rules {
    let policy = Policy {
        refresh_ahead: 3 * SECOND,
        safety_margin: SECOND,
        backoff_min: 2 * SECOND,
        backoff_max: 4 * SECOND,
        ..Policy::default()
    };
    let identity = || Identity::new("model");
    Rules {
        policy,
        profile: Profile::default().new_token_ends_old(kind == Kind::EndsOld),
        renewal: match kind {
            Kind::Rotating => Some(RenewalProfile::refresh_token(identity(), "s1")),
            Kind::Ticket => Some(RenewalProfile::ticket(identity(), 1_000 * SECOND)),
            _ => None,
        },
        has_parent: kind == Kind::RefusedChild,
        has_store: true,
        has_fallback: false,
        watches: false,
        keeps_warm: false,
        fetch_limit: 2 * SECOND,
        operation: SECOND,
        store_check_interval: 3 * SECOND,
        store_retry: 2 * SECOND,
        store_down_fetch_interval: if kind == Kind::EndsOld { 6 * SECOND } else { Duration::ZERO },
        early: 3 * SECOND,
        early_limit: 2,
        early_window: 20 * SECOND,
        reinstated_for: 3 * SECOND,
        vouched_for: 3 * SECOND,
        young: 2 * SECOND,
        busy_pause: SECOND,
    }
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    use Kind::*;
    let two = Budget { grants: 2, ..Budget::default() };
    let three = Budget { grants: 3, ..two };
    let scenario = Scenario::new;
    vec![
        scenario("calm", Coexist, two),
        scenario("crash", Coexist, Budget { grants: 1, crashes: 1, ..two }),
        scenario("plain", Coexist, Budget { crashes: 1, lost_writes: 1, failures: 1, ..two }).slow(),
        scenario("failures", Coexist, Budget { failures: 2, ..two }),
        scenario("ends-old", EndsOld, Budget { crashes: 1, lost_replies: 1, outages: 1, ..two }).slow(),
        scenario("quarantine", EndsOld, Budget { lost_replies: 1, ..two }),
        scenario("alone", EndsOld, Budget { outages: 1, rejections: 1, ..three }),
        scenario("unchanged", Unchanged, Budget { grants: 4, rejections: 1, failures: 1, ..two }),
        scenario("vouching", Vouching, Budget { grants: 9, ..two }),
        scenario("reject", Coexist, Budget { rejections: 2, ..three }),
        scenario("reject-late", Coexist, Budget { rejections: 2, lost_writes: 1, ..three }).slow(),
        scenario("refused", Coexist, Budget { grants: 4, rejections: 4, ..two }),
        scenario("short-successor", Coexist, Budget { rejections: 1, suspends: 1, ..two }).lifetimes(&[18, 3]),
        scenario("invalidate", Coexist, Budget { invalidations: 2, rejections: 1, ..two }),
        scenario("force", Coexist, Budget { forces: 2, failures: 1, ..three }),
        scenario("denied", Coexist, Budget { denials: 1, outages: 1, ..two }).lifetimes(&[14]),
        scenario("suspend", Coexist, Budget { suspends: 1, failures: 1, ..two }).slow(),
        scenario("suspend-denied", Coexist, Budget { suspends: 1, denials: 1, ..two }).slow().lifetimes(&[14]),
        scenario("clock", Coexist, Budget { clock_steps: 1, crashes: 1, ..two }).slow(),
        scenario("hang", Coexist, Budget { hangs: 1, crashes: 1, ..two }).slow(),
        scenario("late-return", Coexist, Budget { hangs: 1, ..two }).changed(|rules| {
            rules.fetch_limit = SECOND;
            rules.policy.backoff_min = SECOND;
        }),
        scenario("shutdown", Coexist, Budget { shutdowns: 1, crashes: 1, ..two }).slow(),
        scenario("watch", Coexist, Budget { rejections: 1, denials: 1, ..two }).changed(|rules| {
            rules.watches = true;
            rules.store_check_interval = 8 * SECOND;
        }),
        scenario("warm", Coexist, Budget { failures: 1, ..two }).changed(|rules| rules.keeps_warm = true),
        scenario("fallback", Coexist, Budget { outages: 1, rejections: 1, ..two }).with_fallback(),
        scenario("fallback-crash", Coexist, Budget { outages: 1, crashes: 1, restarts: 1, ..two })
            .with_fallback()
            .lifetimes(&[18]),
        scenario("flush", Coexist, Budget { flushes: 1, outages: 1, ..two }),
        scenario("sign-in", Rotating, Budget { outages: 1, lost_writes: 1, ..two }).slow(),
        scenario("short-process", Rotating, Budget { ends: 1, restarts: 1, crashes: 1, ..three }),
        scenario("slow-sign-in", Rotating, Budget { failures: 1, ..two }).slow(),
        scenario("ticket", Ticket, Budget { tickets: 2, outages: 1, ..two }),
        scenario("rollback", Rotating, Budget { rollbacks: 1, ..three }).lifetimes(&[4]),
        scenario("parent", RefusedChild, two),
        scenario("forced-quota", Unchanged, Budget { grants: 4, rejections: 2, outages: 1, ..two }).changed(|rules| {
            rules.profile = rules.profile.clone().forced_quota(1).unchanged_token_extends(true);
        }),
        scenario("daily-quota", Coexist, Budget { grants: 4, rejections: 1, failures: 1, ..two }).changed(|rules| {
            rules.profile = rules.profile.clone().daily_quota(3, 1);
        }),
        everything(),
    ]
}

fn everything() -> Scenario {
    let budget = Budget {
        grants: 3,
        failures: 1,
        denials: 1,
        lost_replies: 1,
        lost_writes: 1,
        hangs: 1,
        rejections: 1,
        invalidations: 1,
        forces: 1,
        tickets: 0,
        shutdowns: 1,
        ends: 1,
        crashes: 1,
        restarts: 1,
        suspends: 1,
        clock_steps: 1,
        outages: 1,
        flushes: 1,
        rollbacks: 0,
    };
    Scenario::new("everything", Kind::Coexist, budget).slow().with_fallback()
}

pub(crate) fn named(name: &str) -> Scenario {
    let found = scenarios().into_iter().find(|scenario| scenario.name == name);
    found.unwrap_or_else(|| panic!("no scenario is called {name}"))
}

const SECOND: Duration = Duration::from_secs(1);
