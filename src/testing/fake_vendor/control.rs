//! What a test does to its vendor, and what it sees of it.

use std::sync::PoisonError;
use std::time::Duration;

use super::device_sign_ins::Decision;
use super::issued_tokens::Validity;
use super::{FakeVendor, ReceivedRequest, State, VendorFault};

/// Steering and watching.
impl FakeVendor {
    /// Makes all that grants tokens fail until [`recover`](FakeVendor::recover).
    pub fn fail_with(&self, fault: VendorFault) {
        if let VendorFault::Status(status) = fault {
            assert!((200..600).contains(&status), "a reply has a status from 200 to 599");
        }
        self.state().fault = fault;
        self.0.shared.changed.notify_all();
    }

    /// Ends the fault.
    pub fn recover(&self) {
        self.fail_with(VendorFault::None);
    }

    /// Ends a token's lifetime now.
    pub fn revoke(&self, token: &str) {
        self.state().vendor_state.tokens.revoke(token);
    }

    /// True when the vendor would accept this token now.
    pub fn is_valid(&self, token: &str) -> bool {
        let state = self.state();
        state.vendor_state.tokens.validity(token, state.time.now()) == Validity::Valid
    }

    /// The tokens that were granted, of whatever kind, each once, oldest first.
    pub fn granted(&self) -> Vec<String> {
        self.state().vendor_state.tokens.granted()
    }

    /// Pushes a ticket: the app's callback would receive it. It is good from now on, for as long as the vendor's
    /// constructor says. Until one is pushed none is good.
    ///
    /// # Panics
    ///
    /// When the vendor pushes no tickets.
    pub fn push_ticket(&self) -> String {
        let mut state = self.state();
        let now = state.time.now();
        state.vendor_state.tickets.as_mut().expect("this vendor pushes no tickets").push(now)
    }

    /// Feishu: how many times an app has asked for its ticket to be pushed again.
    pub fn ticket_resend_requests(&self) -> usize {
        self.state().vendor_state.ticket_resend_requests
    }

    /// OAuth 2.0: the person at the device that shows this code signs in.
    ///
    /// # Panics
    ///
    /// When no device shows it.
    pub fn approve(&self, user_code: &str) {
        self.decide(user_code, Decision::Approved);
    }

    /// OAuth 2.0: the person at the device that shows this code refuses.
    ///
    /// # Panics
    ///
    /// When no device shows it.
    pub fn deny(&self, user_code: &str) {
        self.decide(user_code, Decision::Denied);
    }

    fn decide(&self, user_code: &str, decision: Decision) {
        let known = self.state().vendor_state.device_sign_ins.decide(user_code, decision);
        assert!(known, "no device shows {user_code}");
    }

    /// Ends all refresh tokens now. Tokens that they brought live on.
    pub fn revoke_refresh_tokens(&self) {
        self.state().vendor_state.refresh_tokens.revoke_all();
    }

    /// The refresh tokens that were presented, accepted or not, each time they were, oldest first. Where they rotate,
    /// one that is in it twice was used twice.
    pub fn used_refresh_tokens(&self) -> Vec<String> {
        self.state().vendor_state.refresh_tokens.presented()
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.0.server.address())
    }

    /// Where tokens are granted: the first that the vendor's constructor names.
    pub fn token_url(&self) -> String {
        self.url() + self.0.shared.vendor.token_path()
    }

    /// Where they are used: a business API that says `ok`, or refuses the token the vendor's way.
    pub fn api_url(&self) -> String {
        self.url() + self.0.shared.vendor.api_path()
    }

    /// How many requests for a token have come, of whatever kind.
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// How many requests have come to this path, if the vendor answers there.
    pub fn calls_to(&self, path: &str) -> usize {
        self.state().calls_to.get(path).copied().unwrap_or_default()
    }

    /// How many requests have come to the business API.
    pub fn api_calls(&self) -> usize {
        self.state().api_calls
    }

    /// How many requests for a token were being answered at the same time, at most.
    pub fn max_concurrent_calls(&self) -> usize {
        self.state().max_concurrent_calls
    }

    /// Waits until `calls` requests for a token have come. False when `wait` is over first.
    #[must_use]
    pub fn wait_for_calls(&self, calls: usize, wait: Duration) -> bool {
        let few = |state: &mut State| state.calls < calls;
        let waited = self.0.shared.changed.wait_timeout_while(self.state(), wait, few);
        waited.unwrap_or_else(PoisonError::into_inner).0.calls >= calls
    }

    /// What was received, oldest first: the last thousand requests.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.state().requests.iter().cloned().collect()
    }
}
