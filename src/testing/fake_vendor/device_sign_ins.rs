//! Devices that wait for a person to sign in (RFC 8628).

use std::collections::HashMap;
use std::time::Duration;

pub(super) struct DeviceSignIns {
    waiting: HashMap<String, Device>,
    started: usize,
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

/// What a device is shown.
pub(super) struct DeviceAuthorization {
    pub(super) device_code: String,
    pub(super) user_code: String,
    pub(super) lifetime: Duration,
    pub(super) interval: Duration,
}

pub(super) enum PollOutcome {
    /// This scope was asked for. The code is used up.
    Approved(Option<String>),
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

    /// False when no device shows this code.
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
            // For this and all polls that follow.
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

const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// What `slow_down` adds to the interval.
const SLOW_DOWN_INCREMENT: Duration = Duration::from_secs(5);
