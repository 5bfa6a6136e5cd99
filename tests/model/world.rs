//! The state of the model: processes, two stores, a provider, and what is true whatever anybody knows.

use crate::clock::Timestamp;
use crate::core::access_token::AccessToken;
use crate::core::machine::Machine;
use crate::core::quota::Day;
use crate::core::record::Record;
use crate::core::refresh::Refresh;
use crate::core::renewal::RenewalSecret;
use crate::core::step::Reply;
use crate::core::{Env, ProcessId, RefreshId};
use crate::scenarios::{Budget, Kind, Scenario};
use crate::secret::Secret;
use crate::time::{At, LONG_AGO, timestamp};
use crate::version::Version;

/// A thread that performs the steps of one refresh.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Thread {
    pub(crate) refresh: Refresh,
    /// When the step was issued, and when it is over at the latest.
    pub(crate) issued: At,
    pub(crate) until: At,
    /// What the provider has decided; the reply is on its way.
    pub(crate) decided: Option<Reply>,
    pub(crate) is_hung: bool,
    /// Failover, suspend or a flushed store: this fetch may have a duplicate.
    pub(crate) is_excused: bool,
}

/// What a caller wants that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wish {
    Token,
    NewerThan(u64),
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Process {
    pub(crate) is_alive: bool,
    pub(crate) is_ending: bool,
    pub(crate) is_suspended: bool,
    /// By how much the monotonic clock is behind the true time, and the wall clock ahead of it.
    pub(crate) lag: i16,
    pub(crate) wall_offset: i16,
    pub(crate) machine: Machine,
    pub(crate) name: ProcessId,
    /// The cache that answers callers, and until when.
    pub(crate) cache: Option<(AccessToken, Timestamp)>,
    pub(crate) cached_since: At,
    pub(crate) reads: u64,
    pub(crate) reports_reads: bool,
    pub(crate) caller: Option<(Wish, At)>,
    pub(crate) threads: Vec<Thread>,
    /// Tokens that callers have got, the latest last.
    pub(crate) handed: Vec<AccessToken>,
    /// Tokens that this process must not hand out any more: fingerprint and number.
    pub(crate) rejected: Vec<(u128, u64)>,
    pub(crate) started: At,
    /// When this process last fetched without a store.
    pub(crate) fetched_alone: At,
    pub(crate) undisturbed_since: At,
    pub(crate) has_warned: bool,
    /// The parent's token that was refused too, after this process had rejected one.
    pub(crate) second_parent: Option<u128>,
    /// When the last ticket was handed in here.
    pub(crate) ticket: Option<At>,
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Lease {
    pub(crate) process: ProcessId,
    pub(crate) refresh: RefreshId,
    pub(crate) until: At,
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct ModelStore {
    pub(crate) is_up: bool,
    pub(crate) up_since: At,
    /// Monotonic times are true times here; wall times are as the writer's clock had them.
    pub(crate) record: Option<Record>,
    pub(crate) version: Option<Version>,
    pub(crate) expires: At,
    pub(crate) written_at: At,
    /// Since when this token is in the record.
    pub(crate) token_since: At,
    pub(crate) lease: Option<Lease>,
    pub(crate) renewal: Option<RenewalSecret>,
    pub(crate) renewal_version: Option<Version>,
    pub(crate) renewal_since: At,
    /// What the renewal secret replaced.
    pub(crate) previous_renewal: Option<RenewalSecret>,
    pub(crate) day: Option<Day>,
    pub(crate) day_version: Option<Version>,
}

/// What is true of a token.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Truth {
    pub(crate) id: u128,
    pub(crate) end: At,
    pub(crate) granted: At,
    pub(crate) rejected: Option<u64>,
    pub(crate) rejected_at: At,
    /// Since when a rejection of it is in the primary store.
    pub(crate) recorded_at: Option<At>,
    pub(crate) is_early: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) now: At,
    pub(crate) processes: Vec<Process>,
    pub(crate) stores: [ModelStore; 2],
    pub(crate) tokens: Vec<Truth>,
    /// The highest number of a renewal secret that was ever stored.
    pub(crate) stored_secret: u64,
    /// The parent's token, and how often it was rejected.
    pub(crate) parent: u64,
    pub(crate) live_secret: u64,
    pub(crate) next_secret: u64,
    pub(crate) is_signed_in: bool,
    /// The loss of the sign-in cannot be blamed on the library.
    pub(crate) is_sign_in_excused: bool,
    /// Since when and until when all processes know that the provider must not be asked.
    pub(crate) quiet: (At, At),
    /// Rejections that may have counted as early ones.
    pub(crate) early_rejections: u32,
    /// Requests that reached the provider.
    pub(crate) calls: u32,
    pub(crate) budget: Budget,
    pub(crate) next_process: u64,
    pub(crate) next_version: u32,
    pub(crate) random: f64,
    pub(crate) counts: Counts,
    /// Every token has the same text: only its name matters.
    pub(crate) text: Secret,
}

/// What a fleet is measured by. No decision depends on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) fetches: u64,
    pub(crate) store_commands: u64,
    pub(crate) failed_calls: u64,
}

impl World {
    pub(crate) fn new(scenario: &Scenario) -> World {
        let now = At(0);
        let mut primary = ModelStore::new();
        if scenario.kind == Kind::Rotating {
            let (since, end) = (timestamp(0, 0), timestamp(0, 0).after(scenario.renewal_lifetime()));
            let secret = Secret::from("s1");
            primary.renewal = Some(RenewalSecret { secret, number: 1, since, end, spent_by: None });
            primary.renewal_version = Some(Version::new("v1"));
        }
        World {
            now,
            processes: (0..scenario.processes).map(|i| Process::new(ProcessId(i as u64), now)).collect(),
            stores: [primary, ModelStore::new()],
            tokens: Vec::new(),
            stored_secret: 1,
            parent: 0,
            live_secret: 1,
            next_secret: 2,
            is_signed_in: true,
            is_sign_in_excused: false,
            quiet: (LONG_AGO, LONG_AGO),
            early_rejections: 0,
            calls: 0,
            budget: scenario.budget,
            next_process: scenario.processes as u64,
            next_version: 2,
            random: 0.5,
            counts: Counts::default(),
            text: Secret::from("t"),
        }
    }

    pub(crate) fn env<'a>(&self, i: usize, scenario: &'a Scenario) -> Env<'a> {
        let process = &self.processes[i];
        Env { now: process.clock(self.now), random: self.random, reads: process.reads, rules: &scenario.rules }
    }

    pub(crate) fn version(&mut self) -> Option<Version> {
        self.next_version += 1;
        Some(Version::new(format!("v{}", self.next_version)))
    }

    pub(crate) fn truth(&self, id: u128) -> Result<&Truth, String> {
        self.tokens.iter().rev().find(|truth| truth.id == id).ok_or_else(|| "0: unknown token".to_owned())
    }
}

impl ModelStore {
    fn new() -> ModelStore {
        ModelStore {
            is_up: true,
            up_since: LONG_AGO,
            record: None,
            version: None,
            expires: LONG_AGO,
            written_at: LONG_AGO,
            token_since: LONG_AGO,
            lease: None,
            renewal: None,
            renewal_version: None,
            renewal_since: LONG_AGO,
            previous_renewal: None,
            day: None,
            day_version: None,
        }
    }

    /// Loses everything.
    pub(crate) fn flush(&mut self) {
        *self = ModelStore { is_up: self.is_up, up_since: self.up_since, ..ModelStore::new() };
    }
}

impl Process {
    pub(crate) fn new(name: ProcessId, now: At) -> Process {
        Process {
            is_alive: true,
            is_ending: false,
            is_suspended: false,
            lag: 0,
            wall_offset: 0,
            machine: Machine::new(name, timestamp(now.0, now.0)),
            name,
            cache: None,
            cached_since: LONG_AGO,
            reads: FIRST_READ,
            reports_reads: false,
            caller: None,
            threads: Vec::new(),
            handed: Vec::new(),
            rejected: Vec::new(),
            started: now,
            fetched_alone: LONG_AGO,
            undisturbed_since: LONG_AGO,
            has_warned: false,
            second_parent: None,
            ticket: None,
        }
    }

    pub(crate) fn clock(&self, now: At) -> Timestamp {
        timestamp(now.0 - i32::from(self.lag), now.0 + i32::from(self.wall_offset))
    }

    pub(crate) fn has_hung_thread(&self) -> bool {
        self.threads.iter().any(|thread| thread.is_hung)
    }
}

/// A hasher knows a count of reads by its size.
pub(crate) const FIRST_READ: u64 = 1 << 50;
