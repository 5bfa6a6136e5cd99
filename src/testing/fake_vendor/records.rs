//! All that a vendor remembers, and how the test wants it to be.

use std::collections::HashMap;
use std::time::Duration;

use super::book::{Account, Book, Issued, Judgement};
use super::credentials::Credentials;
use super::devices::Devices;
use super::forced::Forced;
use super::quota::Day;
use super::refresh_tokens::RefreshTokens;
use super::request::ReceivedRequest;
use super::tickets::Tickets;

pub(super) struct Records {
    pub(super) credentials: Credentials,
    pub(super) book: Book,
    /// None where the vendor pushes no tickets.
    pub(super) tickets: Option<Tickets>,
    pub(super) refresh_tokens: RefreshTokens,
    pub(super) devices: Devices,
    /// The calls to each path that grants tokens.
    pub(super) days: HashMap<String, Day>,
    pub(super) forced: Forced,
    pub(super) ticket_resend_requests: usize,
    pub(super) settings: Settings,
}

pub(super) struct Settings {
    pub(super) renews_within: Option<Duration>,
    pub(super) refresh_in: Option<Duration>,
    pub(super) rotating: bool,
    pub(super) daily_quota: Option<u32>,
    /// From 1970 to the moment from which the vendor counts its time.
    pub(super) epoch: Duration,
}

impl Records {
    /// With tokens that live so long.
    pub(super) fn new(lifetime: Duration) -> Records {
        Records {
            credentials: Credentials::default(),
            book: Book::new(lifetime),
            tickets: None,
            refresh_tokens: RefreshTokens::default(),
            devices: Devices::new(),
            days: HashMap::new(),
            forced: Forced::default(),
            ticket_resend_requests: 0,
            settings: Settings {
                renews_within: None,
                refresh_in: None,
                rotating: true,
                daily_quota: None,
                epoch: Duration::ZERO,
            },
        }
    }

    pub(super) fn credential(mut self, realm: &'static str, id: &str, secret: &str) -> Records {
        self.credentials.open(realm, id, secret);
        self
    }

    pub(super) fn with_tickets(self, tickets: Tickets) -> Records {
        Records { tickets: Some(tickets), ..self }
    }

    pub(super) fn refresh_token(mut self, owner: &str, token: &str) -> Records {
        self.refresh_tokens.open(owner, token);
        self
    }

    pub(super) fn judge_ticket(&self, ticket: &str, now: Duration) -> Judgement {
        self.tickets.as_ref().map_or(Judgement::Invalid, |tickets| tickets.judge(ticket, now))
    }

    /// Judges the token in this parameter of the query, if there is one.
    pub(super) fn judge_query(
        &self,
        request: &ReceivedRequest,
        name: &str,
        kinds: &[&str],
        now: Duration,
    ) -> Option<Judgement> {
        let token = request.query(name).filter(|text| !text.is_empty())?;
        Some(self.book.judge_as(kinds, &token, now))
    }

    /// False when there were too many calls to this path today.
    pub(super) fn admits(&mut self, path: &str, daily: Option<u32>, now: Duration) -> bool {
        let limit = self.settings.daily_quota.or(daily);
        limit.is_none_or(|limit| self.days.entry(path.to_owned()).or_default().take(limit, now))
    }

    /// The token that the account has. A new one when less than `lead` of it is left, unless the test has said how
    /// much.
    pub(super) fn same(&mut self, account: &Account, lead: Duration, now: Duration) -> Issued {
        let lead = self.settings.renews_within.unwrap_or(lead);
        self.book.current(account, lead, now).unwrap_or_else(|| self.book.issue(account, now))
    }
}
