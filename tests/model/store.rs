//! The model of a store: TTL, versions, a lease, compare-and-swap, and the conversion of times between hosts.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::core::Tier;
use crate::core::record::Record;
use crate::core::refresh::Goal;
use crate::core::step::{Reply, Step, Stored};
use crate::error::{Error, ErrorKind};
use crate::plants::Plant;
use crate::scenarios::Scenario;
use crate::time::{At, seconds, timestamp};
use crate::world::{Lease, Process, World};

impl World {
    /// Performs a step on a store.
    pub(crate) fn perform(&mut self, i: usize, t: usize, scenario: &Scenario) -> Result<Reply, String> {
        let step = self.processes[i].threads[t].refresh.step.clone();
        let tier = step.tier().unwrap_or(Tier::Primary);
        self.counts.store_commands += 1;
        if !self.stores.get(tier as usize).is_some_and(|store| store.is_up) {
            return Ok(Reply::StoreDown(Error::new(ErrorKind::Store, "down")));
        }
        match step {
            Step::WaitForChange { .. } => Ok(Reply::Waited),
            Step::Read(Tier::Fallback) if self.is_fallback_hidden(i, t, scenario) => {
                Ok(Reply::StoreDown(Error::new(ErrorKind::Store, "hidden")))
            }
            Step::Read(tier) => Ok(Reply::Found(self.read(i, tier))),
            Step::ReadOrLease { tier, seen } => Ok(self.read_or_lease((i, t), tier, &seen, scenario)),
            Step::FreeLease(tier) => self.free_lease(i, t, tier, scenario).map(|()| Reply::Done),
            Step::Write { .. } => self.write(i, t, &step, scenario),
            _ => self.perform_beside(i, &step, scenario.plant),
        }
    }

    fn read(&self, i: usize, tier: Tier) -> Stored {
        let store = &self.stores[tier as usize];
        let record = store.record.clone().map(|record| decode(record, &self.processes[i], self.now));
        Stored { record: record.unwrap_or_default(), version: store.version.clone() }
    }

    /// True when a plant keeps what the fallback store holds from a refresh that uses the primary one.
    fn is_fallback_hidden(&self, i: usize, t: usize, scenario: &Scenario) -> bool {
        let tier = self.processes[i].threads[t].refresh.tier;
        scenario.plant == Some(Plant::FallbackNotRead) && tier == Tier::Primary
    }

    fn is_mine(&self, i: usize, t: usize, tier: Tier, scenario: &Scenario) -> bool {
        let (process, refresh) = (self.processes[i].name, self.processes[i].threads[t].refresh.id);
        let lease = self.stores[tier as usize].lease.as_ref();
        lease.is_some_and(|lease| {
            let is_refresh = lease.refresh == refresh || scenario.plant == Some(Plant::LeaseOfTheProcess);
            lease.process == process && is_refresh
        })
    }

    fn read_or_lease(
        &mut self,
        (i, t): (usize, usize),
        tier: Tier,
        seen: &Option<crate::version::Version>,
        scenario: &Scenario,
    ) -> Reply {
        let is_mine = self.is_mine(i, t, tier, scenario);
        let (now, process, refresh) = (self.now, self.processes[i].name, self.processes[i].threads[t].refresh.id);
        let store = &mut self.stores[tier as usize];
        if store.record.is_some() && store.version != *seen {
            return Reply::Found(self.read(i, tier));
        }
        if let Some(lease) = store.lease.as_ref().filter(|_| !is_mine) {
            return Reply::Busy { remaining: Duration::from_secs(lease.until.since(now).max(0) as u64) };
        }
        let until = now.after(seconds(scenario.rules.lease()));
        store.lease = Some(Lease { process, refresh, until });
        Reply::Leased
    }

    fn free_lease(&mut self, i: usize, t: usize, tier: Tier, scenario: &Scenario) -> Result<(), String> {
        if self.is_mine(i, t, tier, scenario) || scenario.plant == Some(Plant::FreesAnyLease) {
            let freed = self.stores[tier as usize].lease.take();
            let refresh = &self.processes[i].threads[t].refresh;
            if refresh.keeps_lease {
                return Err("3: after an unknown outcome the lease is freed".into());
            }
            let (process, refresh) = (self.processes[i].name, refresh.id);
            if freed.is_some_and(|lease| (lease.process, lease.refresh) != (process, refresh)) {
                return Err("3: a refresh frees the lease of another one".into());
            }
        }
        Ok(())
    }

    fn write(&mut self, i: usize, t: usize, step: &Step, scenario: &Scenario) -> Result<Reply, String> {
        let Step::Write { tier, record, seen, keep_for, frees_lease } = step else {
            return Err("0: not a write".into());
        };
        let is_blind = scenario.plant == Some(Plant::HolderWritesRegardless)
            && self.processes[i].threads[t].refresh.lease_until.is_some();
        let is_write_back = self.processes[i].threads[t].refresh.goal == Goal::Sync;
        if is_write_back && scenario.plant == Some(Plant::NothingIsWrittenLater) {
            return Ok(Reply::Written(seen.clone()));
        }
        if self.stores[*tier as usize].version != *seen && !is_blind {
            return Ok(Reply::Found(self.read(i, *tier)));
        }
        let encoded = encode((**record).clone(), &self.processes[i], self.now);
        self.check_write(*tier, i, &encoded)?;
        let (now, version) = (self.now, self.version());
        let store = &mut self.stores[*tier as usize];
        let named = |record: &Option<Record>| {
            record.as_ref().and_then(|record| record.token.as_ref()).map(|token| (token.fingerprint, token.sequence))
        };
        let new = Some(encoded);
        if named(&store.record) != named(&new) {
            store.token_since = now;
        }
        // A store forgets at the end of a second, so that nothing is forgotten too early.
        let kept = seconds(*keep_for) + i32::from(keep_for.subsec_nanos() > 0);
        (store.expires, store.written_at) = (now.after(kept), now);
        (store.record, store.version) = (new, version.clone());
        if *frees_lease {
            self.free_lease(i, t, *tier, scenario)?;
        }
        if *tier == Tier::Primary {
            self.note_written(scenario);
        }
        Ok(Reply::Written(version))
    }

    /// Renewal secrets and quotas.
    fn perform_beside(&mut self, i: usize, step: &Step, plant: Option<Plant>) -> Result<Reply, String> {
        let version = self.version();
        let process = &self.processes[i];
        let store = &mut self.stores[0];
        let is_blind = plant == Some(Plant::RenewalWithoutCompare);
        Ok(match step {
            Step::ReadRenewal => Reply::Renewal(crate::core::renewal::StoredRenewal {
                secret: store.renewal.clone().map(|mut secret| {
                    secret.since = from_store(secret.since, process, self.now);
                    secret.end = from_store(secret.end, process, self.now);
                    secret
                }),
                version: store.renewal_version.clone(),
                is_unreadable: false,
            }),
            Step::MarkRenewal { seen, .. } | Step::StoreRenewal { seen, .. }
                if *seen != store.renewal_version && !is_blind =>
            {
                Reply::Conflict
            }
            Step::MarkRenewal { secret, .. } | Step::StoreRenewal { secret, .. } => {
                let mut secret = secret.clone();
                secret.since = to_store(secret.since, process, self.now);
                secret.end = to_store(secret.end, process, self.now);
                if store.renewal.as_ref().is_some_and(|old| old.number > secret.number) {
                    return Err("7: an older renewal secret replaces a newer one".into());
                }
                self.stored_secret = self.stored_secret.max(secret.number);
                if let Some(old) = store.renewal.take_if(|old| old.number < secret.number) {
                    store.previous_renewal = Some(old);
                }
                (store.renewal, store.renewal_version, store.renewal_since) = (Some(secret), version.clone(), self.now);
                Reply::Written(version)
            }
            Step::ReadQuota => {
                let day = store.day.map(|mut day| {
                    day.began = from_store(day.began, process, self.now);
                    day
                });
                Reply::Quota { day, version: store.day_version.clone() }
            }
            Step::WriteQuota { seen, .. } if *seen != store.day_version => Reply::Conflict,
            Step::WriteQuota { day, .. } => {
                let mut day = *day;
                day.began = to_store(day.began, process, self.now);
                (store.day, store.day_version) = (Some(day), version.clone());
                Reply::Written(version)
            }
            _ => Reply::Done,
        })
    }

    /// Ends what has run out in the stores.
    pub(crate) fn expire(&mut self) {
        let now = self.now;
        for store in &mut self.stores {
            if store.record.is_some() && now >= store.expires {
                (store.record, store.version) = (None, None);
            }
            store.lease.take_if(|lease| now >= lease.until);
        }
    }
}

/// Lifetimes are relative in the store. The wall time is recorded as well, as the writer's clock has it.
fn encode(record: Record, process: &Process, now: At) -> Record {
    converted(record, |end| to_store(end, process, now))
}

fn decode(record: Record, process: &Process, now: At) -> Record {
    converted(record, |end| from_store(end, process, now))
}

fn converted(mut record: Record, convert: impl Fn(Timestamp) -> Timestamp) -> Record {
    record.token.iter_mut().for_each(|token| token.end = convert(token.end));
    record.failure.iter_mut().for_each(|failure| failure.retry_at = convert(failure.retry_at));
    record.rejections.until = record.rejections.until.map(&convert);
    record.rejections.early.last = record.rejections.early.last.map(&convert);
    record.rejections.recent.iter_mut().for_each(|rejected| rejected.end = convert(rejected.end));
    record
}

fn to_store(time: Timestamp, process: &Process, now: At) -> Timestamp {
    let clock = process.clock(now);
    let truth = timestamp(now.0, now.0);
    let moved = truth.after(clock.until(time)).before(clock.since(time));
    Timestamp::new(moved.monotonic(), Duration::from_millis(time.epoch_milliseconds()))
}

fn from_store(time: Timestamp, process: &Process, now: At) -> Timestamp {
    let (clock, truth) = (process.clock(now), timestamp(now.0, now.0).monotonic());
    let (ahead, ago) = (time.monotonic().saturating_sub(truth), truth.saturating_sub(time.monotonic()));
    let moved = clock.after(ahead).before(ago);
    let latest = Duration::from_millis(time.epoch_milliseconds()) + TOLERANCE;
    Timestamp::new(moved.monotonic(), Duration::from_millis(moved.epoch_milliseconds()).min(latest))
}

/// How far the wall clocks of two hosts may be apart.
const TOLERANCE: Duration = Duration::from_secs(4);
