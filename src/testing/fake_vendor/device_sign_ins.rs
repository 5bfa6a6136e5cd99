//! Sign-ins on devices (RFC 8628, the device authorization grant).
//!
//! A sign-in starts with [`DeviceSignIns::begin`], which returns a device code and a user code. The client then polls
//! with the device code. Each poll is checked in this order:
//!
//! 1. Unknown code, or a code of another client: `invalid_grant`.
//! 2. Older than ten minutes: `expired_token`.
//! 3. Earlier than the interval after the last poll: `slow_down`, and the interval grows by five seconds for good
//!    (RFC 8628 section 3.5).
//! 4. The test's [`Decision`] about the user code: `authorization_pending`, `access_denied`, or a token. A token uses
//!    up the device code.

use std::collections::HashMap;
use std::time::Duration;

pub(super) struct DeviceSignIns {
    /// Sign-ins that have not brought a token, by device code.
    waiting: HashMap<String, Device>,
    started: usize,
    /// The poll interval of sign-ins that start from now on.
    pub(super) interval: Duration,
}

struct Device {
    user_code: String,
    client: String,
    scope: Option<String>,
    expires_at: Duration,
    interval: Duration,
    last_poll: Option<Duration>,
    decision: Decision,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Pending,
    Approved,
    Denied,
}

/// The fields of a device authorization response (RFC 8628 section 3.2).
pub(super) struct DeviceAuthorization {
    pub(super) device_code: String,
    pub(super) user_code: String,
    pub(super) lifetime: Duration,
    pub(super) interval: Duration,
}

pub(super) enum PollOutcome {
    /// Carries the scope that was requested when the sign-in started.
    Approved(Option<String>),
    /// Carries the OAuth 2.0 error code.
    Rejected(&'static str),
}

impl DeviceSignIns {
    pub(super) fn new() -> DeviceSignIns {
        DeviceSignIns { waiting: HashMap::new(), started: 0, interval: DEFAULT_INTERVAL }
    }

    pub(super) fn begin(&mut self, client: &str, scope: Option<String>, now: Duration) -> DeviceAuthorization {
        self.started += 1;
        let device_code = format!("device-{}", self.started);
        let user_code = format!("CODE-{:04}", self.started);
        let device = Device {
            user_code: user_code.clone(),
            client: client.to_owned(),
            scope,
            expires_at: now.saturating_add(CODE_LIFETIME),
            interval: self.interval,
            last_poll: None,
            decision: Decision::Pending,
        };
        self.waiting.insert(device_code.clone(), device);
        DeviceAuthorization { device_code, user_code, lifetime: CODE_LIFETIME, interval: self.interval }
    }

    /// Records the decision of the person at the device. Returns false if no device shows this code.
    pub(super) fn decide(&mut self, user_code: &str, decision: Decision) -> bool {
        let device = self.waiting.values_mut().find(|device| device.user_code == user_code);
        device.map(|device| device.decision = decision).is_some()
    }

    pub(super) fn poll(&mut self, device_code: &str, client: &str, now: Duration) -> PollOutcome {
        let known = self.waiting.get_mut(device_code).filter(|device| device.client == client);
        let Some(device) = known else { return PollOutcome::Rejected("invalid_grant") };
        if device.expires_at <= now {
            return PollOutcome::Rejected("expired_token");
        }
        let last = device.last_poll.replace(now);
        if last.is_some_and(|last| now.saturating_sub(last) < device.interval) {
            // The longer interval holds for all later polls too.
            device.interval += SLOW_DOWN_INCREMENT;
            return PollOutcome::Rejected("slow_down");
        }
        match device.decision {
            Decision::Pending => PollOutcome::Rejected("authorization_pending"),
            Decision::Denied => PollOutcome::Rejected("access_denied"),
            Decision::Approved => {
                let scope = device.scope.take();
                self.waiting.remove(device_code);
                PollOutcome::Approved(scope)
            }
        }
    }
}

const CODE_LIFETIME: Duration = Duration::from_secs(600);

/// The interval that a client has to assume when the response names none (RFC 8628 section 3.2).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// `slow_down` adds this to the interval (RFC 8628 section 3.5).
const SLOW_DOWN_INCREMENT: Duration = Duration::from_secs(5);
