//! The methods of [`FakeVendor`] that set a vendor up before a test: credentials, lifetimes, quotas, scripts.

use std::time::Duration;

use super::server::Reply;
use super::vendor::Route;
use super::vendor_time::VendorTime;
use super::{FakeVendor, State};
use crate::testing::FakeClock;

/// # Set-up
///
/// These methods take and return the vendor, so that they can follow the constructor. They act at once; a test that is
/// running uses a clone: `vendor.clone().granting(..)`.
impl FakeVendor {
    /// Adds a token to the script: the next new token, of whatever kind, has this value, and expires after this many
    /// seconds.
    ///
    /// Several calls make a script in that order. After the script, new tokens are named `token-1`, `token-2` and so
    /// on. A vendor that returns its current token again takes nothing from the script for that.
    pub fn granting(self, token: impl Into<String>, seconds: u64) -> FakeVendor {
        self.change(|state| state.vendor_state.tokens.push_scripted(token.into(), Duration::from_secs(seconds)))
    }

    /// Sets the lifetime of tokens that the script does not name. Replies state it in whole seconds.
    ///
    /// Default: the lifetime that the vendor's constructor documents, mostly two hours.
    pub fn lifetime(self, lifetime: Duration) -> FakeVendor {
        self.change(|state| state.vendor_state.tokens.lifetime = lifetime)
    }

    /// Lets the vendor's time follow `clock`. Call this before the first token is issued.
    ///
    /// The vendor sees real elapsed time: [`FakeClock::advance`] and [`FakeClock::suspend`] age its tokens, while
    /// [`FakeClock::step_back`] and [`FakeClock::step_forward`] change only the client's wall clock. Default: the time
    /// of this machine.
    pub fn clock(self, clock: &FakeClock) -> FakeVendor {
        self.change(|state| {
            state.time = VendorTime::Fake(clock.clone());
            state.vendor_state.settings.epoch = state.time.epoch();
        })
    }

    /// Accepts only this credential at [`token_url`](FakeVendor::token_url), in place of the default one.
    pub fn credential(self, id: &str, secret: &str) -> FakeVendor {
        let credential_kind = self.credential_kind(self.0.shared.vendor.token_path());
        self.change(|state| {
            state.vendor_state.credentials.remove_kind(credential_kind);
            state.vendor_state.credentials.add(credential_kind, id, secret);
        })
    }

    /// Accepts this credential too at [`token_url`](FakeVendor::token_url). Each credential has its own tokens.
    pub fn another_credential(self, id: &str, secret: &str) -> FakeVendor {
        let path = self.0.shared.vendor.token_path();
        self.another_credential_at(path, id, secret)
    }

    /// Accepts this credential too at another token endpoint, such as `/cgi-bin/service/get_suite_token`.
    ///
    /// # Panics
    ///
    /// Panics if the vendor grants no tokens at this path.
    pub fn another_credential_at(self, path: &str, id: &str, secret: &str) -> FakeVendor {
        let credential_kind = self.credential_kind(path);
        self.change(|state| state.vendor_state.credentials.add(credential_kind, id, secret))
    }

    /// Adds a tenant to the default one, which is `tenant` at Entra and Feishu, and the company `corp` at DingTalk.
    ///
    /// # Panics
    ///
    /// Panics if the vendor has no tenants: WeCom, WeChat, managed identity, OAuth 2.0.
    pub fn another_tenant(self, tenant: &str) -> FakeVendor {
        let credential_kind = self.0.shared.vendor.tenant_kind().expect("this vendor has no tenants");
        self.change(|state| state.vendor_state.credentials.add(credential_kind, tenant, ""))
    }

    /// Accepts this refresh token too.
    ///
    /// `owner` is the client's id in OAuth 2.0, and at WeChat the app id of an account that has authorized the
    /// component.
    pub fn another_refresh_token(self, owner: &str, token: &str) -> FakeVendor {
        self.change(|state| state.vendor_state.refresh_tokens.add(owner, token))
    }

    /// Sets whether a used refresh token is replaced by a new one. Default: true.
    pub fn rotating(self, rotating: bool) -> FakeVendor {
        self.change(|state| state.vendor_state.settings.rotating = rotating)
    }

    /// Sets when a vendor that returns its current token again issues a new one: when less than `lead` of the current
    /// token's lifetime remains.
    ///
    /// A `lead` over half of the token's lifetime counts as half. Both tokens then work until they expire. Default: the
    /// rule that the vendor's constructor documents, zero at WeCom.
    pub fn renews_within(self, lead: Duration) -> FakeVendor {
        self.change(|state| state.vendor_state.settings.renews_within = Some(lead))
    }

    /// Adds the field `refresh_in` to the replies of Entra and managed identity: how long after its issue a token
    /// should be refreshed. Default: no such field.
    pub fn refresh_in(self, refresh_in: Duration) -> FakeVendor {
        self.change(|state| state.vendor_state.settings.refresh_in = Some(refresh_in))
    }

    /// Limits each token endpoint to this many requests a day. Further requests get the vendor's reply to too many
    /// calls, until 24 hours have passed since the first request.
    ///
    /// Default: WeChat's own limits, and no limit at the other vendors.
    pub fn daily_quota(self, calls: u32) -> FakeVendor {
        self.change(|state| state.vendor_state.settings.daily_quota = Some(calls))
    }

    /// Sets the poll interval of OAuth 2.0 device sign-ins that start from now on. Replies state it in whole seconds.
    /// Default: five seconds.
    pub fn device_interval(self, interval: Duration) -> FakeVendor {
        self.change(|state| state.vendor_state.device_sign_ins.interval = interval)
    }

    /// Delays each reply by this much real time. Requests are delayed independently of each other. Default: none.
    pub fn delay(self, delay: Duration) -> FakeVendor {
        self.change(|state| state.delay = delay)
    }

    /// Scripts a reply of the vendor's API: the next request to any of its API paths gets this status, these headers
    /// and this body, whatever its token. Several calls make a script in that order.
    ///
    /// # Panics
    ///
    /// Panics if the status has not three digits, or a header is not valid in HTTP.
    pub fn api_reply(self, status: u16, headers: &[(&str, &str)], body: &str) -> FakeVendor {
        let reply = Reply::new(status, "application/json", body);
        let reply = headers.iter().fold(reply, |reply, (name, value)| reply.header(name, *value));
        self.change(|state| state.api_script.push_back(reply))
    }

    /// Returns the kind of credential that the token endpoint at this path accepts.
    fn credential_kind(&self, path: &str) -> &'static str {
        match self.0.shared.vendor.route(path) {
            Some(Route::Token { credential_kind, .. }) => credential_kind,
            _ => panic!("this vendor has no token endpoint at {path}"),
        }
    }

    fn change(self, edit: impl FnOnce(&mut State)) -> FakeVendor {
        edit(&mut self.state());
        self
    }
}
