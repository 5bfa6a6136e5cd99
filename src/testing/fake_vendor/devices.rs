//! Devices that wait for a person to sign in (RFC 8628).

use std::collections::HashMap;
use std::time::Duration;

pub(super) struct Devices {
    waiting: HashMap<String, Device>,
    begun: usize,
    pub(super) interval: Duration,
}

struct Device {
    user_code: String,
    client: String,
    scope: Option<String>,
    end: Duration,
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
pub(super) struct Begun {
    pub(super) device_code: String,
    pub(super) user_code: String,
    pub(super) lifetime: Duration,
    pub(super) interval: Duration,
}

pub(super) enum Poll {
    /// This scope was asked for. The code is used up.
    Approved(Option<String>),
    Refused(&'static str),
}

impl Devices {
    pub(super) fn new() -> Devices {
        Devices { waiting: HashMap::new(), begun: 0, interval: INTERVAL }
    }

    pub(super) fn begin(&mut self, client: &str, scope: Option<String>, now: Duration) -> Begun {
        self.begun += 1;
        let device_code = format!("device-{}", self.begun);
        let user_code = format!("CODE-{:04}", self.begun);
        let device = Device {
            user_code: user_code.clone(),
            client: client.to_owned(),
            scope,
            end: now.saturating_add(LIFETIME),
            interval: self.interval,
            last_poll: None,
            decision: Decision::Pending,
        };
        self.waiting.insert(device_code.clone(), device);
        Begun { device_code, user_code, lifetime: LIFETIME, interval: self.interval }
    }

    /// False when no device shows this code.
    pub(super) fn decide(&mut self, user_code: &str, decision: Decision) -> bool {
        let device = self.waiting.values_mut().find(|device| device.user_code == user_code);
        device.map(|device| device.decision = decision).is_some()
    }

    pub(super) fn poll(&mut self, device_code: &str, client: &str, now: Duration) -> Poll {
        let known = self.waiting.get_mut(device_code).filter(|device| device.client == client);
        let Some(device) = known else { return Poll::Refused("invalid_grant") };
        if device.end <= now {
            return Poll::Refused("expired_token");
        }
        let last = device.last_poll.replace(now);
        if last.is_some_and(|last| now.saturating_sub(last) < device.interval) {
            // For this and all polls that follow.
            device.interval += SLOWER;
            return Poll::Refused("slow_down");
        }
        match device.decision {
            Decision::Pending => Poll::Refused("authorization_pending"),
            Decision::Denied => Poll::Refused("access_denied"),
            Decision::Approved => {
                let scope = device.scope.take();
                self.waiting.remove(device_code);
                Poll::Approved(scope)
            }
        }
    }
}

const LIFETIME: Duration = Duration::from_secs(600);

const INTERVAL: Duration = Duration::from_secs(5);

/// What `slow_down` adds to the interval.
const SLOWER: Duration = Duration::from_secs(5);
