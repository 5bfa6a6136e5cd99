//! How a test wants its vendor to be.

use std::time::Duration;

use super::server::Reply;
use super::vendor::Route;
use super::vendor_time::VendorTime;
use super::{FakeVendor, State};
use crate::testing::FakeClock;

/// Setting up.
impl FakeVendor {
    /// The next new token, of whatever kind, is this one. When the script is used up, `token-1`, `token-2` and so on
    /// follow.
    pub fn granting(self, token: impl Into<String>, seconds: u64) -> FakeVendor {
        self.change(|state| state.vendor_state.tokens.push_scripted(token.into(), Duration::from_secs(seconds)))
    }

    /// How long the tokens live that no script names. Two hours unless set or the vendor's constructor says otherwise;
    /// whole seconds are told.
    pub fn lifetime(self, lifetime: Duration) -> FakeVendor {
        self.change(|state| state.vendor_state.tokens.lifetime = lifetime)
    }

    /// Lets the tokens' lives follow `clock`. Set it before the first token is granted.
    ///
    /// What passes here is true time: a sleeping client does not stop it, and setting its wall clock does not move it.
    pub fn clock(self, clock: &FakeClock) -> FakeVendor {
        self.change(|state| {
            state.time = VendorTime::Fake(clock.clone());
            state.vendor_state.settings.epoch = state.time.epoch();
        })
    }

    /// Where [`token_url`](FakeVendor::token_url) grants tokens: accepts this credential and no other from now on.
    pub fn credential(self, id: &str, secret: &str) -> FakeVendor {
        let credential_kind = self.credential_kind(self.0.shared.vendor.token_path());
        self.change(|state| {
            state.vendor_state.credentials.remove_kind(credential_kind);
            state.vendor_state.credentials.add(credential_kind, id, secret);
        })
    }

    /// Where [`token_url`](FakeVendor::token_url) grants tokens: accepts this credential too. Each has tokens of its
    /// own.
    pub fn another_credential(self, id: &str, secret: &str) -> FakeVendor {
        let path = self.0.shared.vendor.token_path();
        self.another_credential_at(path, id, secret)
    }

    /// Accepts this credential too where another kind of token is granted: `/cgi-bin/service/get_suite_token`.
    ///
    /// # Panics
    ///
    /// When nobody grants tokens to credentials at this path.
    pub fn another_credential_at(self, path: &str, id: &str, secret: &str) -> FakeVendor {
        let credential_kind = self.credential_kind(path);
        self.change(|state| state.vendor_state.credentials.add(credential_kind, id, secret))
    }

    /// Knows this tenant too: at Entra and Feishu besides `tenant`, at DingTalk besides the company `corp`.
    ///
    /// # Panics
    ///
    /// When the vendor has no tenants.
    pub fn another_tenant(self, tenant: &str) -> FakeVendor {
        let credential_kind = self.0.shared.vendor.tenant_kind().expect("this vendor has no tenants");
        self.change(|state| state.vendor_state.credentials.add(credential_kind, tenant, ""))
    }

    /// Accepts this refresh token too, of a client of OAuth 2.0, or of an account at WeChat that has authorized the
    /// component.
    pub fn another_refresh_token(self, owner: &str, token: &str) -> FakeVendor {
        self.change(|state| state.vendor_state.refresh_tokens.add(owner, token))
    }

    /// Whether a refresh token is replaced when it is used. So it is unless set.
    pub fn rotating(self, rotating: bool) -> FakeVendor {
        self.change(|state| state.vendor_state.settings.rotating = rotating)
    }

    /// Where the same token is given again: grants a new one when less than this is left, which counts as half the
    /// token's lifetime at most. Both then live to their own end. What the vendor's constructor says unless set: zero
    /// at WeCom.
    pub fn renews_within(self, lead: Duration) -> FakeVendor {
        self.change(|state| state.vendor_state.settings.renews_within = Some(lead))
    }

    /// Entra and managed identity: tells with each token after how long it is better replaced.
    pub fn refresh_in(self, refresh_in: Duration) -> FakeVendor {
        self.change(|state| state.vendor_state.settings.refresh_in = Some(refresh_in))
    }

    /// Answers so many requests at each path that grants tokens, and says from then on that there were too many, until
    /// a day has passed since the first.
    pub fn daily_quota(self, calls: u32) -> FakeVendor {
        self.change(|state| state.vendor_state.settings.daily_quota = Some(calls))
    }

    /// OAuth 2.0: how often a device may ask whether its sign-in was approved. Five seconds unless set; whole seconds
    /// are told.
    pub fn device_interval(self, interval: Duration) -> FakeVendor {
        self.change(|state| state.vendor_state.device_sign_ins.interval = interval)
    }

    /// How long each reply takes, in real time. Requests do not wait for each other.
    pub fn delay(self, delay: Duration) -> FakeVendor {
        self.change(|state| state.delay = delay)
    }

    /// The next call of the business API is answered like this, whatever its token.
    ///
    /// # Panics
    ///
    /// When HTTP knows no such status, or no such header.
    pub fn api_reply(self, status: u16, headers: &[(&str, &str)], body: &str) -> FakeVendor {
        let reply = Reply::new(status, "application/json", body);
        let reply = headers.iter().fold(reply, |reply, (name, value)| reply.header(name, *value));
        self.change(|state| state.api_script.push_back(reply))
    }

    /// Whose credentials are looked at here.
    fn credential_kind(&self, path: &str) -> &'static str {
        match self.0.shared.vendor.route(path) {
            Some(Route::Token { credential_kind, .. }) => credential_kind,
            _ => panic!("nobody grants tokens at {path}"),
        }
    }

    fn change(self, edit: impl FnOnce(&mut State)) -> FakeVendor {
        edit(&mut self.state());
        self
    }
}
