//! The tickets that a vendor pushes to its apps.

use std::collections::HashMap;
use std::time::Duration;

use super::issued_tokens::Validity;

pub(super) struct Tickets {
    /// How long one is good; `None`: until the next one comes.
    lifetime: Option<Duration>,
    expires_at: HashMap<String, Duration>,
}

impl Tickets {
    /// Each lives for as long, whatever comes after it.
    pub(super) fn with_lifetime(lifetime: Duration) -> Tickets {
        Tickets { lifetime: Some(lifetime), expires_at: HashMap::new() }
    }

    /// Each lives until the next one comes.
    pub(super) fn until_replaced() -> Tickets {
        Tickets { lifetime: None, expires_at: HashMap::new() }
    }

    pub(super) fn push(&mut self, now: Duration) -> String {
        if self.lifetime.is_none() {
            self.expires_at.values_mut().for_each(|expires_at| *expires_at = (*expires_at).min(now));
        }
        let ticket = format!("ticket-{}", self.expires_at.len() + 1);
        self.expires_at.insert(ticket.clone(), now.saturating_add(self.lifetime.unwrap_or(Duration::MAX)));
        ticket
    }

    pub(super) fn validity(&self, ticket: &str, now: Duration) -> Validity {
        match self.expires_at.get(ticket) {
            Some(expires_at) if now < *expires_at => Validity::Valid,
            Some(_) => Validity::Expired,
            None => Validity::Invalid,
        }
    }
}
