//! What the second store is for: it stands in while the first is down, and what it has then goes to the first.

use crate::clock::{Deadline, Timestamp};
use crate::error::Error;
use crate::lease::{Record, RecordedToken, Sharing, next_number};
use crate::manager::control::{Held, Ticket};
use crate::manager::journey::{Arrival, Granted, Trouble};
use crate::manager::keeper::Keeper;
use crate::policy::Phase;

impl Keeper {
    /// A store cannot be used: by way of the second, or without any.
    pub(crate) fn fetch_without(
        &self,
        sharing: &Sharing,
        ticket: &Ticket,
        give_up: Deadline,
    ) -> Result<Arrival, Trouble> {
        match &self.stand_in {
            Some(stand_in) if !sharing.stands_in() => {
                Ok(self.fetch_shared(stand_in, &elsewhere(ticket), give_up)?.unrecorded(ticket))
            }
            _ => self.fetch_unshared(ticket),
        }
    }

    /// Compares the held token with the store; with the second while the first is down.
    pub(crate) fn look(&self, sharing: &Sharing, ticket: &Ticket) -> Arrival {
        let arrival = self.compare(sharing, ticket);
        let Some(stand_in) = &self.stand_in else { return arrival };
        if self.store_rests() {
            return self.compare(stand_in, &elsewhere(ticket)).unrecorded(ticket);
        }
        if ticket.held.is_none() || matches!(arrival, Arrival::Adopted { .. } | Arrival::RejectedElsewhere) {
            return arrival;
        }
        self.bring_over(sharing, ticket, &mut Record::default()).unwrap_or(arrival)
    }

    /// The record that the second store has, if there is one, and `sharing` is the first.
    pub(crate) fn in_second_store(&self, sharing: &Sharing) -> Option<Record> {
        let stand_in = self.stand_in.as_ref().filter(|_| !sharing.stands_in())?;
        let found = self.note(stand_in, stand_in.look()).ok()?;
        Some(found).filter(|found| found.version.is_some())
    }

    /// What the second store has goes to the first, which works: rejections, and a token that lives longer than what is
    /// recorded there, whether it is of use to this flight or not. All else is over. `seen` is what the first has then.
    /// Returns the token if it serves the purpose of the flight, or that the held one was rejected.
    pub(crate) fn bring_over(&self, sharing: &Sharing, ticket: &Ticket, seen: &mut Record) -> Option<Arrival> {
        let found = self.in_second_store(sharing)?;
        let rejected = ticket.held.as_ref().is_some_and(|held| found.rejects(held.token.fingerprint()));
        // Whether the first store can be written or not.
        self.hand_over(sharing, ticket, found, seen).or_else(|| rejected.then_some(Arrival::RejectedElsewhere))
    }

    fn hand_over(&self, sharing: &Sharing, ticket: &Ticket, found: Record, seen: &mut Record) -> Option<Arrival> {
        let (stand_in, version) = (self.stand_in.as_ref()?, found.version.clone()?);
        // That it can be read does not say that it can be written.
        let read = || sharing.look().inspect_err(|error| self.note_trouble_of(sharing, Some(error))).ok();
        let mut recorded = read()?;
        if Some(&version) == recorded.version.as_ref() {
            // One store, given twice.
            self.note_trouble_of(sharing, None);
            return None;
        }
        if let Some(token) = recorded.token.take_if(|token| found.rejects(&token.fingerprint)) {
            // Here it is out of use in any case.
            recorded.reject(&token.fingerprint, token.end());
            *seen = recorded;
            self.note(sharing, sharing.reject(&token.fingerprint, token.end())).ok()?;
            recorded = read()?;
        }
        let now = self.now();
        let is_told_of_more = recorded.take_rejections_of(&found, now);
        let lives_longer = |token: &RecordedToken| {
            recorded.token.as_ref().is_none_or(|recorded| now.until(recorded.end()) < now.until(token.end()))
        };
        let is_rejected =
            |name: &String| recorded.rejects(name) || found.rejects(name) || ticket.rejected.contains(name);
        let better = found.token.clone().filter(|token| !is_rejected(&token.fingerprint) && lives_longer(token));
        let has_news = is_told_of_more || better.is_some();
        let fits = |token: &RecordedToken| self.fits(token, found.number, &elsewhere(ticket), Phase::RefreshDue);
        let of_use = better.clone().filter(fits);
        if better.is_some() {
            recorded.number = next_number(recorded.number.max(found.number).max(ticket.number));
            (recorded.token, recorded.failure) = (better, None);
        }
        let number = recorded.number;
        let adopted = |version| of_use.map(|token| Arrival::Adopted { token, number, version, failure: None });
        let mut arrival = None;
        if has_news {
            match self.note(sharing, sharing.put(&recorded)) {
                Ok(Some(version)) => {
                    recorded.version = Some(version.clone());
                    arrival = adopted(Some(version));
                }
                // Somebody has written there meanwhile.
                Ok(None) => return None,
                // It is written when the store is back.
                Err(_) => return adopted(None),
            }
        } else {
            self.note_trouble_of(sharing, None);
        }
        *seen = recorded;
        drop(self.note(stand_in, stand_in.remove(&version)));
        arrival
    }

    /// Tells the others in the shared store, and those who look at the second one while the first is down, or later find
    /// there what was kept meanwhile.
    pub(crate) fn tell_both(&self, work: impl Fn(&Sharing, Timestamp) -> Result<(), Error>) -> Result<(), Error> {
        let told = self.tell_the_others(&work);
        if let (Some(stand_in), Some(sharing)) = (&self.stand_in, &self.sharing)
            && (told.is_err() || self.in_second_store(sharing).is_some())
        {
            drop(self.note(stand_in, work(stand_in, self.now())));
        }
        told
    }
}

impl Arrival {
    /// The same, of which the first store does not know, and so later than all that is known from there.
    fn unrecorded(self, ticket: &Ticket) -> Arrival {
        match self {
            Arrival::Adopted { token, number, failure, .. } => {
                let number = number.max(next_number(ticket.number));
                Arrival::Adopted { token, number, version: None, failure }
            }
            Arrival::Granted(granted) => Arrival::Granted(Granted { version: None, ..granted }),
            Arrival::Recorded { .. } => Arrival::Nothing,
            other => other,
        }
    }
}

/// The ticket as it is for the second store: what the first has recorded is nothing there.
fn elsewhere(ticket: &Ticket) -> Ticket {
    let held = ticket.held.clone().map(|held| Held { version: None, base: None, ..held });
    Ticket { held, ..ticket.clone() }
}
