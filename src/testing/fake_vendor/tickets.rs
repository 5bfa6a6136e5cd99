//! The tickets that a vendor pushes to its apps.

use std::collections::HashMap;
use std::time::Duration;

use super::book::Judgement;

pub(super) struct Tickets {
    /// How long one is good; `None`: until the next one comes.
    lifetime: Option<Duration>,
    ends: HashMap<String, Duration>,
}

impl Tickets {
    /// Each lives for as long, whatever comes after it.
    pub(super) fn living(lifetime: Duration) -> Tickets {
        Tickets { lifetime: Some(lifetime), ends: HashMap::new() }
    }

    /// Each lives until the next one comes.
    pub(super) fn replacing() -> Tickets {
        Tickets { lifetime: None, ends: HashMap::new() }
    }

    pub(super) fn push(&mut self, now: Duration) -> String {
        if self.lifetime.is_none() {
            self.ends.values_mut().for_each(|end| *end = (*end).min(now));
        }
        let ticket = format!("ticket-{}", self.ends.len() + 1);
        self.ends.insert(ticket.clone(), now.saturating_add(self.lifetime.unwrap_or(Duration::MAX)));
        ticket
    }

    pub(super) fn judge(&self, ticket: &str, now: Duration) -> Judgement {
        match self.ends.get(ticket) {
            Some(end) if now < *end => Judgement::Alive,
            Some(_) => Judgement::Ended,
            None => Judgement::Invalid,
        }
    }
}
