//! The tickets that a vendor pushes to the callback of an app (WeCom `suite_ticket`, WeChat `component_verify_ticket`,
//! Feishu `app_ticket`, DingTalk `suiteTicket`).

use std::collections::HashMap;
use std::time::Duration;

use super::issued_tokens::Validity;

pub(super) struct Tickets {
    /// The lifetime of a ticket; `None` if a ticket is valid until the next one is pushed.
    lifetime: Option<Duration>,
    /// Every ticket that was pushed, with the time at which it expires.
    expires_at: HashMap<String, Duration>,
}

impl Tickets {
    /// Returns tickets that expire after `lifetime`, whether or not a newer ticket was pushed.
    pub(super) fn with_lifetime(lifetime: Duration) -> Tickets {
        Tickets { lifetime: Some(lifetime), expires_at: HashMap::new() }
    }

    /// Returns tickets that expire when the next one is pushed.
    pub(super) fn until_replaced() -> Tickets {
        Tickets { lifetime: None, expires_at: HashMap::new() }
    }

    /// Creates a ticket that is valid from now on.
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
