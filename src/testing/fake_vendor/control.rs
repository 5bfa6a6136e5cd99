//! The methods of [`FakeVendor`] that a test calls while it runs: to make the vendor fail, and to see what it received.

use std::sync::PoisonError;
use std::time::Duration;

use super::device_sign_ins::Decision;
use super::issued_tokens::Validity;
use super::{FakeVendor, ReceivedRequest, State, VendorFault};

/// # Control and observation during the test
impl FakeVendor {
    /// Makes the token endpoints fail in this way, from now until [`recover`](FakeVendor::recover).
    ///
    /// # Panics
    ///
    /// Panics if a [`VendorFault::Status`] is not between 200 and 599.
    pub fn fail_with(&self, fault: VendorFault) {
        if let VendorFault::Status(status) = fault {
            assert!((200..600).contains(&status), "VendorFault::Status must be between 200 and 599");
        }
        self.state().fault = fault;
        self.0.shared.changed.notify_all();
    }

    /// Ends the fault. Requests that wait because of [`VendorFault::Hang`] are answered now.
    pub fn recover(&self) {
        self.fail_with(VendorFault::None);
    }

    /// Revokes a token: the API rejects it from now on as an invalid token, not as an expired one. An unknown token is
    /// ignored.
    pub fn revoke(&self, token: &str) {
        self.state().vendor_state.tokens.revoke(token);
    }

    /// Returns true if the vendor issued this token, and it is neither expired nor revoked.
    pub fn is_valid(&self, token: &str) -> bool {
        let state = self.state();
        state.vendor_state.tokens.validity(token, state.time.now()) == Validity::Valid
    }

    /// Returns the tokens of every kind that the vendor has issued, oldest first. A token that was returned several
    /// times appears once.
    pub fn granted(&self) -> Vec<String> {
        self.state().vendor_state.tokens.granted()
    }

    /// Pushes a ticket, and returns the value that the app's callback would receive.
    ///
    /// The ticket is valid from now on, for the lifetime that the vendor's constructor documents. The vendor accepts no
    /// ticket before the first push.
    ///
    /// # Panics
    ///
    /// Panics if the vendor pushes no tickets. WeCom, WeChat, Feishu and DingTalk do.
    pub fn push_ticket(&self) -> String {
        let mut state = self.state();
        let now = state.time.now();
        state.vendor_state.tickets.as_mut().expect("this vendor pushes no tickets").push(now)
    }

    /// Returns how many times an app has asked Feishu to push its ticket again. Zero at all other vendors.
    pub fn ticket_resend_requests(&self) -> usize {
        self.state().vendor_state.ticket_resend_requests
    }

    /// Approves the OAuth 2.0 device sign-in with this user code, as the person at the device would. The device's next
    /// poll brings a token.
    ///
    /// # Panics
    ///
    /// Panics if no sign-in in progress has this code.
    pub fn approve(&self, user_code: &str) {
        self.decide(user_code, Decision::Approved);
    }

    /// Denies the OAuth 2.0 device sign-in with this user code. The device's next poll fails with `access_denied`.
    ///
    /// # Panics
    ///
    /// Panics if no sign-in in progress has this code.
    pub fn deny(&self, user_code: &str) {
        self.decide(user_code, Decision::Denied);
    }

    fn decide(&self, user_code: &str, decision: Decision) {
        let known = self.state().vendor_state.device_sign_ins.decide(user_code, decision);
        assert!(known, "no device shows {user_code}");
    }

    /// Revokes all refresh tokens. Access tokens that were issued for them stay valid.
    pub fn revoke_refresh_tokens(&self) {
        self.state().vendor_state.refresh_tokens.revoke_all();
    }

    /// Returns the refresh tokens that clients have sent, accepted or not, oldest first.
    ///
    /// A token that was sent twice appears twice. With rotation that is a fault of the client.
    pub fn used_refresh_tokens(&self) -> Vec<String> {
        self.state().vendor_state.refresh_tokens.presented()
    }

    /// Returns the base URL, `http://127.0.0.1:<port>`, for the `base_url` of a provider.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.server.address())
    }

    /// Returns the URL of the token endpoint that the vendor's constructor lists first.
    pub fn token_url(&self) -> String {
        self.url() + self.0.shared.vendor.token_path()
    }

    /// Returns the URL of an API that accepts the vendor's tokens.
    ///
    /// The API replies with a success, or rejects the token with the vendor's status and error code. Any method will
    /// do.
    pub fn api_url(&self) -> String {
        self.url() + self.0.shared.vendor.api_path()
    }

    /// Returns how many requests the token endpoints have received, including those that failed.
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// Returns how many requests have come to this path. Zero for a path that the vendor does not have.
    pub fn calls_to(&self, path: &str) -> usize {
        self.state().calls_to.get(path).copied().unwrap_or_default()
    }

    /// Returns how many requests the vendor's API has received, with or without a valid token.
    pub fn api_calls(&self) -> usize {
        self.state().api_calls
    }

    /// Returns the highest number of requests that the token endpoints were answering at the same time.
    pub fn max_concurrent_calls(&self) -> usize {
        self.state().max_concurrent_calls
    }

    /// Blocks until the token endpoints have received `calls` requests in total. Returns false if `wait`, in real time,
    /// passes first.
    #[must_use]
    pub fn wait_for_calls(&self, calls: usize, wait: Duration) -> bool {
        let too_few = |state: &mut State| state.calls < calls;
        let waited = self.0.shared.changed.wait_timeout_while(self.state(), wait, too_few);
        waited.unwrap_or_else(PoisonError::into_inner).0.calls >= calls
    }

    /// Returns the last 1,000 requests to any path, oldest first.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.state().requests.iter().cloned().collect()
    }
}
