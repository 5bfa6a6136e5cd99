//! A vendor on a loopback port.

mod book;
mod client;
mod constructors;
mod credentials;
mod devices;
mod dingtalk;
mod entra;
mod fault;
mod feishu;
mod forced;
mod managed_identity;
mod oauth2;

mod quota;
mod records;
mod refresh_tokens;
mod request;
mod server;
mod setup;
mod steering;
mod tickets;
mod time;
mod vendor;
mod wechat;
mod wecom;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use fault::VendorFault;
pub use request::ReceivedRequest;

use self::records::Records;
use self::server::{Delivery, Reply, Server};
use self::time::VendorTime;
use self::vendor::{Route, Vendor};
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
    records: Records,
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
    closed: bool,
}

impl FakeVendor {
    fn start(vendor: &'static dyn Vendor) -> FakeVendor {
        let time = VendorTime::real();
        let mut records = vendor.records();
        records.settings.epoch = time.epoch();
        let state = State {
            records,
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
            closed: false,
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
        if state.requests.len() == MOST_REQUESTS {
            state.requests.pop_front();
        }
        state.requests.push_back(request.clone());
        let Some(route) = self.vendor.route(request.path()) else {
            return Reply::new(404, "text/plain", "404 page not found");
        };
        *state.calls_to.entry(request.path().to_owned()).or_default() += 1;
        if let Route::Business(_) = route {
            state.api_calls += 1;
            let mut state = self.pause(state);
            let now = state.time.now();
            let scripted = state.api_script.pop_front();
            return scripted.unwrap_or_else(|| route.answer(&request, &mut state.records, now));
        }
        let counted = usize::from(matches!(route, Route::Token { .. }));
        state.calls += counted;
        state.in_progress += counted;
        state.max_concurrent_calls = state.max_concurrent_calls.max(state.in_progress);
        self.changed.notify_all();
        let state = self.pause(state);
        let mut state = self.wait_while(state, |state| state.fault == VendorFault::Hang);
        state.in_progress -= counted;
        self.token_reply(&request, &route, &mut state)
    }

    fn pause<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let delay = state.delay;
        let waited = self.changed.wait_timeout_while(state, delay, |state| !state.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn wait_while<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        unchanged: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_while(state, |state| !state.closed && unchanged(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// What the vendor says while nothing is out of order.
    fn well(&self, request: &ReceivedRequest, route: &Route, state: &mut State) -> Reply {
        let (path, now) = (request.path(), state.time.now());
        match route {
            Route::Token { daily, .. } if !state.records.admits(path, *daily, now) => {
                self.vendor.throttled(path, Duration::ZERO)
            }
            _ => route.answer(request, &mut state.records, now),
        }
    }

    fn token_reply(&self, request: &ReceivedRequest, route: &Route, state: &mut State) -> Reply {
        let path = request.path();
        match state.fault {
            _ if state.closed => Reply::nothing(),
            VendorFault::None => self.well(request, route, state),
            VendorFault::Status(status) => Reply::new(status, "text/plain", ""),
            VendorFault::Code(code) => self.vendor.failure(path, &code.to_string()),
            VendorFault::Error(code) => self.vendor.failure(path, code),
            VendorFault::Hang | VendorFault::Drop => Reply::nothing(),
            VendorFault::Garbage => Reply::new(200, "text/html", "<!doctype html><title>Sign in</title>"),
            VendorFault::HalfReply => self.well(request, route, state).delivered(Delivery::Half),
            VendorFault::Trickle => self.well(request, route, state).delivered(Delivery::Trickle),
            VendorFault::Throttle { retry_after } => self.vendor.throttled(path, retry_after),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Requests that wait go first; the server, dropped next, ends their connections.
        lock(&self.shared.state).closed = true;
        self.shared.changed.notify_all();
    }
}

impl fmt::Debug for FakeVendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeVendor({})", self.url())
    }
}

const MOST_REQUESTS: usize = 1_000;
