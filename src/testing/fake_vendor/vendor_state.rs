//! All that a vendor remembers, and how the test wants it to be.

use std::collections::HashMap;
use std::time::Duration;

use super::credentials::Credentials;
use super::daily_count::DailyCount;
use super::device_sign_ins::DeviceSignIns;
use super::forced_refreshes::ForcedRefreshes;
use super::issued_tokens::{Account, IssuedToken, IssuedTokens, Validity};
use super::refresh_tokens::RefreshTokens;
use super::request::ReceivedRequest;
use super::tickets::Tickets;

pub(super) struct VendorState {
    pub(super) credentials: Credentials,
    pub(super) tokens: IssuedTokens,
    /// None where the vendor pushes no tickets.
    pub(super) tickets: Option<Tickets>,
    pub(super) refresh_tokens: RefreshTokens,
    pub(super) device_sign_ins: DeviceSignIns,
    /// The calls to each path that grants tokens.
    pub(super) calls_per_path: HashMap<String, DailyCount>,
    pub(super) forced_refreshes: ForcedRefreshes,
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

impl VendorState {
    /// With tokens that live so long.
    pub(super) fn new(lifetime: Duration) -> VendorState {
        VendorState {
            credentials: Credentials::default(),
            tokens: IssuedTokens::new(lifetime),
            tickets: None,
            refresh_tokens: RefreshTokens::default(),
            device_sign_ins: DeviceSignIns::new(),
            calls_per_path: HashMap::new(),
            forced_refreshes: ForcedRefreshes::default(),
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

    pub(super) fn with_credential(mut self, kind: &'static str, id: &str, secret: &str) -> VendorState {
        self.credentials.add(kind, id, secret);
        self
    }

    pub(super) fn with_tickets(self, tickets: Tickets) -> VendorState {
        VendorState { tickets: Some(tickets), ..self }
    }

    pub(super) fn with_refresh_token(mut self, owner: &str, token: &str) -> VendorState {
        self.refresh_tokens.add(owner, token);
        self
    }

    pub(super) fn ticket_validity(&self, ticket: &str, now: Duration) -> Validity {
        self.tickets.as_ref().map_or(Validity::Invalid, |tickets| tickets.validity(ticket, now))
    }

    /// Judges the token in this parameter of the query, if there is one.
    pub(super) fn query_validity(
        &self,
        request: &ReceivedRequest,
        name: &str,
        kinds: &[&str],
        now: Duration,
    ) -> Option<Validity> {
        let token = request.query(name).filter(|text| !text.is_empty())?;
        Some(self.tokens.validity_as(kinds, &token, now))
    }

    /// False when there were too many calls to this path today.
    pub(super) fn count_call(&mut self, path: &str, daily_limit: Option<u32>, now: Duration) -> bool {
        let limit = self.settings.daily_quota.or(daily_limit);
        limit.is_none_or(|limit| self.calls_per_path.entry(path.to_owned()).or_default().admit(limit, now))
    }

    /// The token that the account has. A new one when less than `lead` of it is left, unless the test has said how
    /// much.
    pub(super) fn reuse_or_issue(&mut self, account: &Account, min_remaining: Duration, now: Duration) -> IssuedToken {
        let min_remaining = self.settings.renews_within.unwrap_or(min_remaining);
        self.tokens.current(account, min_remaining, now).unwrap_or_else(|| self.tokens.issue(account, now))
    }
}
