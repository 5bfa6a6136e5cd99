//! A vendor on a loopback port.

mod client_authentication;
mod constructors;
mod credentials;
mod device_sign_ins;
mod dingtalk;
mod entra;
mod fault;
mod feishu;
mod forced_refreshes;
mod issued_tokens;
mod managed_identity;
mod oauth2;

mod control;
mod daily_count;
mod refresh_tokens;
mod request;
mod server;
mod setup;
mod tickets;
mod vendor;
mod vendor_state;
mod vendor_time;
mod wechat;
mod wecom;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use fault::VendorFault;
pub use request::ReceivedRequest;

use self::server::{Delivery, Reply, Server};
use self::vendor::{Route, Vendor};
use self::vendor_state::VendorState;
use self::vendor_time::VendorTime;
use crate::lock::lock;

/// An HTTP server on `127.0.0.1` that grants and judges tokens as the vendor does.
///
/// Clones are the same host; with the last one it stops, its connections end and its port is free. Methods that take
/// `self` set it up; they act at once, so that `host.clone().granting(..)` goes on with the script later. Methods that
/// take `&self` steer and watch it.
///
/// ```
/// use evertoken::testing::FakeVendor;
///
/// let host = FakeVendor::wecom().granting("t-1", 7200);
/// let asked = format!("{}?corpid=corp&corpsecret=secret", host.token_url());
/// let reply = ureq::get(asked).call()?.into_body().read_to_string()?;
/// assert!(reply.contains("t-1"));
/// assert!(host.is_valid("t-1"));
/// # Ok::<(), ureq::Error>(())
/// ```
#[derive(Clone)]
pub struct FakeVendor(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    server: Server,
}

struct Shared {
    vendor: &'static dyn Vendor,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    vendor_state: VendorState,
    time: VendorTime,
    fault: VendorFault,
    delay: Duration,
    api_script: VecDeque<Reply>,
    requests: VecDeque<ReceivedRequest>,
    calls: usize,
    api_calls: usize,
    calls_to: HashMap<String, usize>,
    in_progress: usize,
    max_concurrent_calls: usize,
    stopped: bool,
}

impl FakeVendor {
    fn start(vendor: &'static dyn Vendor) -> FakeVendor {
        let time = VendorTime::real();
        let mut vendor_state = vendor.initial_state();
        vendor_state.settings.epoch = time.epoch();
        let state = State {
            vendor_state,
            time,
            fault: VendorFault::None,
            delay: Duration::ZERO,
            api_script: VecDeque::new(),
            requests: VecDeque::new(),
            calls: 0,
            api_calls: 0,
            calls_to: HashMap::new(),
            in_progress: 0,
            max_concurrent_calls: 0,
            stopped: false,
        };
        let shared = Arc::new(Shared { vendor, state: Mutex::new(state), changed: Condvar::new() });
        let answering = shared.clone();
        let server = Server::start(move |request| answering.answer(request));
        let server = server.expect("a test host needs a free port on 127.0.0.1 and a thread");
        FakeVendor(Arc::new(Handle { shared, server }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.shared.state)
    }
}

impl Shared {
    /// Answers one request, on the thread of its connection.
    fn answer(&self, request: ReceivedRequest) -> Reply {
        let mut state = lock(&self.state);
        if state.requests.len() == MAX_RECORDED_REQUESTS {
            state.requests.pop_front();
        }
        state.requests.push_back(request.clone());
        let Some(route) = self.vendor.route(request.path()) else {
            return Reply::new(404, "text/plain", "404 page not found");
        };
        *state.calls_to.entry(request.path().to_owned()).or_default() += 1;
        if let Route::Api(_) = route {
            state.api_calls += 1;
            let mut state = self.wait_delay(state);
            let now = state.time.now();
            let scripted = state.api_script.pop_front();
            return scripted.unwrap_or_else(|| route.handle(&request, &mut state.vendor_state, now));
        }
        let counted = usize::from(matches!(route, Route::Token { .. }));
        state.calls += counted;
        state.in_progress += counted;
        state.max_concurrent_calls = state.max_concurrent_calls.max(state.in_progress);
        self.changed.notify_all();
        let state = self.wait_delay(state);
        let mut state = self.wait_unless_stopped(state, |state| state.fault == VendorFault::Hang);
        state.in_progress -= counted;
        self.token_reply(&request, &route, &mut state)
    }

    fn wait_delay<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let delay = state.delay;
        let waited = self.changed.wait_timeout_while(state, delay, |state| !state.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn wait_unless_stopped<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        unchanged: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_while(state, |state| !state.stopped && unchanged(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// What the vendor says while nothing is out of order.
    fn normal_reply(&self, request: &ReceivedRequest, route: &Route, state: &mut State) -> Reply {
        let (path, now) = (request.path(), state.time.now());
        match route {
            Route::Token { daily_limit, .. } if !state.vendor_state.count_call(path, *daily_limit, now) => {
                self.vendor.throttled_reply(path, Duration::ZERO)
            }
            _ => route.handle(request, &mut state.vendor_state, now),
        }
    }

    fn token_reply(&self, request: &ReceivedRequest, route: &Route, state: &mut State) -> Reply {
        let path = request.path();
        match state.fault {
            _ if state.stopped => Reply::dropped(),
            VendorFault::None => self.normal_reply(request, route, state),
            VendorFault::Status(status) => Reply::new(status, "text/plain", ""),
            VendorFault::Code(code) => self.vendor.error_reply(path, &code.to_string()),
            VendorFault::Error(code) => self.vendor.error_reply(path, code),
            VendorFault::Hang | VendorFault::Drop => Reply::dropped(),
            VendorFault::Garbage => Reply::new(200, "text/html", "<!doctype html><title>Sign in</title>"),
            VendorFault::HalfReply => self.normal_reply(request, route, state).delivered(Delivery::Half),
            VendorFault::Trickle => self.normal_reply(request, route, state).delivered(Delivery::Trickle),
            VendorFault::Throttle { retry_after } => self.vendor.throttled_reply(path, retry_after),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Requests that wait go first; the server, dropped next, ends their connections.
        lock(&self.shared.state).stopped = true;
        self.shared.changed.notify_all();
    }
}

impl fmt::Debug for FakeVendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeVendor({})", self.url())
    }
}

const MAX_RECORDED_REQUESTS: usize = 1_000;
