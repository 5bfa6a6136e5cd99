//! The model of a provider.

use crate::core::Tier;
use crate::core::access_token::Fingerprint;
use crate::core::step::{Grant, Reply, Step};
use crate::error::{Error, ErrorKind};
use crate::policy::Lifetime;
use crate::scenarios::{Kind, Scenario};
use crate::secret::Secret;
use crate::time::LONG_AGO;
use crate::world::{Truth, World};

use std::time::Duration;

impl World {
    /// The provider decides. The reply is on its way afterwards.
    pub(crate) fn grant(&mut self, i: usize, t: usize, scenario: &Scenario) -> Result<(), String> {
        self.counts.fetches += 1;
        // After too long a wait for the lease of others a process fetches alone, and such calls are counted there.
        let is_shared = self.processes[i].threads[t].refresh.tier == Tier::Primary;
        self.calls += u32::from(is_shared);
        let reply = self.decide_fetch(i, t, scenario)?;
        self.processes[i].threads[t].decided = Some(reply);
        Ok(())
    }

    fn decide_fetch(&mut self, i: usize, t: usize, scenario: &Scenario) -> Result<Reply, String> {
        let Step::Fetch { renewal, is_forced, .. } = self.processes[i].threads[t].refresh.step.clone() else {
            return Err("0: no fetch".into());
        };
        if self.budget.grants == 0 {
            return Ok(refused(ErrorKind::Unavailable));
        }
        if scenario.kind == Kind::Ticket && renewal.is_none() {
            return Ok(refused(ErrorKind::TicketRequired));
        }
        if scenario.kind == Kind::RefusedChild {
            return Ok(refused(ErrorKind::TokenRejected));
        }
        let mut renewal_secret = None;
        if scenario.kind == Kind::Rotating {
            let live = format!("s{}", self.live_secret);
            if !self.is_signed_in || renewal.is_none_or(|renewal| renewal.secret.expose() != live) {
                let was_signed_in = std::mem::replace(&mut self.is_signed_in, false);
                let is_broken = was_signed_in && !self.is_sign_in_excused;
                let broken = "7: a spent refresh token is sent again, and the sign-in ends";
                return if is_broken { Err(broken.into()) } else { Ok(refused(ErrorKind::InvalidCredentials)) };
            }
            (self.live_secret, self.next_secret) = (self.next_secret, self.next_secret + 1);
            renewal_secret = Some(Secret::from(format!("s{}", self.live_secret)));
        }
        self.budget.grants -= 1;
        let returns = matches!(scenario.kind, Kind::Unchanged | Kind::Vouching);
        if returns
            && !is_forced
            && let Some(reply) = self.return_token(scenario)
        {
            return Ok(reply);
        }
        Ok(self.new_token(i, t, renewal_secret, scenario))
    }

    /// The parent's manager has a token at once, and another one after a rejection.
    pub(crate) fn ask_parent(&mut self, i: usize, t: usize) -> Result<Reply, String> {
        let current = u128::from(self.parent);
        let process = &self.processes[i];
        let fetch = &process.threads[t].refresh.fetch;
        let Some(refused) = fetch.parent else {
            return Ok(Reply::Parent(Fingerprint(current)));
        };
        if process.second_parent == Some(refused.0) {
            return Err("3: a refused child costs its parent a token each time".into());
        }
        self.parent += u64::from(refused.0 == current);
        Ok(Reply::Done)
    }

    fn new_token(&mut self, i: usize, t: usize, renewal_secret: Option<Secret>, scenario: &Scenario) -> Reply {
        let id = self.tokens.len() as u128 + 1;
        let lifetime = scenario.lifetimes[self.tokens.len().min(scenario.lifetimes.len() - 1)];
        let granted = self.processes[i].threads[t].issued;
        let end = self.now.after(if scenario.kind == Kind::Vouching { 4 * lifetime } else { lifetime });
        let truth =
            Truth { id, end, granted, rejected: None, rejected_at: LONG_AGO, recorded_at: None, is_early: false };
        self.tokens.push(truth);
        self.granted(id, lifetime, renewal_secret)
    }

    /// The same token while it is good. Some vendors tell its whole lifetime, which is not what is left.
    fn return_token(&mut self, scenario: &Scenario) -> Option<Reply> {
        let now = self.now;
        let truth = self.tokens.last_mut().filter(|truth| truth.end.since(now) > 2)?;
        (truth.rejected, truth.recorded_at) = (None, None);
        let tells_truth = scenario.rules.profile.unchanged_token_extends;
        let whole =
            if scenario.kind == Kind::Vouching { scenario.lifetimes[0] } else { truth.end.since(truth.granted) };
        let (id, lifetime) = (truth.id, if tells_truth { truth.end.since(now) } else { whole });
        for process in &mut self.processes {
            process.rejected.retain(|(other, _)| *other != id);
        }
        Some(self.granted(id, lifetime, None))
    }

    fn granted(&self, id: u128, lifetime: i32, renewal_secret: Option<Secret>) -> Reply {
        let lifetime = Some(Lifetime::from(Duration::from_secs(lifetime.max(0) as u64)));
        Reply::Granted(Grant { secret: self.text.clone(), fingerprint: Fingerprint(id), lifetime, renewal_secret })
    }
}

pub(crate) fn refused(kind: ErrorKind) -> Reply {
    Reply::Refused(Error::new(kind, "refused"))
}
