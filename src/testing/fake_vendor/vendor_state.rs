//! The state of one fake vendor: credentials, tokens, tickets and quotas, and the settings of the test.
//!
//! The handlers in the vendors' files read and change this state under one lock, one request after the other.

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
    /// `None` for a vendor that pushes no tickets.
    pub(super) tickets: Option<Tickets>,
    pub(super) refresh_tokens: RefreshTokens,
    pub(super) device_sign_ins: DeviceSignIns,
    /// Calls of the current day, for each path that grants tokens.
    pub(super) calls_per_path: HashMap<String, DailyCount>,
    pub(super) forced_refreshes: ForcedRefreshes,
    pub(super) ticket_resend_requests: usize,
    pub(super) settings: Settings,
}

pub(super) struct Settings {
    /// Set by [`FakeVendor::renews_within`](super::FakeVendor::renews_within); `None` uses the vendor's own rule.
    pub(super) renews_within: Option<Duration>,
    pub(super) refresh_in: Option<Duration>,
    /// Whether a used refresh token is replaced by a new one.
    pub(super) rotating: bool,
    /// Set by [`FakeVendor::daily_quota`](super::FakeVendor::daily_quota); `None` uses the limit of the route, if any.
    pub(super) daily_quota: Option<u32>,
    /// Unix time at which the vendor's clock started, for replies that contain a date.
    pub(super) epoch: Duration,
}

impl VendorState {
    /// Returns the state of a vendor that accepts no credential yet and issues tokens with this lifetime.
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

    /// Returns the validity of the token in the query parameter `name`; `None` if the parameter is missing or empty.
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

    /// Counts a call to a path that grants tokens. Returns false if the path has used up its daily limit.
    pub(super) fn count_call(&mut self, path: &str, daily_limit: Option<u32>, now: Duration) -> bool {
        let limit = self.settings.daily_quota.or(daily_limit);
        limit.is_none_or(|limit| self.calls_per_path.entry(path.to_owned()).or_default().admit(limit, now))
    }

    /// Returns the account's current token, or issues a new one if less than `min_remaining` of its lifetime remains.
    /// The test can replace `min_remaining` with [`FakeVendor::renews_within`](super::FakeVendor::renews_within).
    pub(super) fn reuse_or_issue(&mut self, account: &Account, min_remaining: Duration, now: Duration) -> IssuedToken {
        let min_remaining = self.settings.renews_within.unwrap_or(min_remaining);
        self.tokens.current(account, min_remaining, now).unwrap_or_else(|| self.tokens.issue(account, now))
    }
}
