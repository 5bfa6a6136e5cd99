//! `FakeVendor`, an HTTP server on `127.0.0.1` that plays a vendor. Theory of operation.
//!
//! # Parts
//!
//! - **Server** (`server.rs`): accepts connections, one thread for each, and reads whole requests. The server also
//!   carries out broken deliveries: half a reply, one byte at a time, no reply.
//! - **Routes** (`vendor.rs`): the vendor's table of paths. A token route grants tokens, an auxiliary route belongs to
//!   the token endpoints but grants none, and an API route accepts or rejects a token. Other paths get status 404.
//! - **Vendor state** (`vendor_state.rs`): accepted credentials, issued tokens (`issued_tokens.rs`), pushed tickets,
//!   refresh tokens, device sign-ins, daily counts.
//! - **Script**: tokens that the test has named, taken by the next token that is newly issued; and replies of the API,
//!   taken by the next API request.
//! - **Fault** (`fault.rs`): a failure of the token and auxiliary routes that lasts until `recover`.
//! - **Clock** (`vendor_time.rs`): the age of tokens, tickets and daily counts, real or moved by a `FakeClock`. Delays
//!   and waits of the kit itself use real time.
//!
//! # One request
//!
//! 1. The request is recorded, whatever its path, and counted if the vendor has the path.
//! 2. The request waits for `delay`, and at the token endpoints for the end of a `Hang` fault. The lock on the state is
//!    released meanwhile, so requests overlap, and the test can change the fault.
//! 3. An API request gets the next scripted reply, or the reply of its handler. Faults do not apply to the API.
//! 4. A request to the token endpoints gets the reply of the fault that is set at this moment. Without a fault, and
//!    with one that breaks only the delivery, the request counts towards the daily limit, and the handler runs under
//!    the lock. A delivery that breaks has therefore issued a token that the client never sees.
//!
//! # Promises
//!
//! - Handlers run one at a time under the lock, so two requests never issue tokens at the same moment.
//! - Clones share one server. When the last clone is dropped, waiting requests end without a reply, all connections
//!   close, and the port is free.

mod client_authentication;
mod constructors;
mod control;
mod credentials;
mod daily_count;
mod device_sign_ins;
mod dingtalk;
mod entra;
mod fault;
mod feishu;
mod forced_refreshes;
mod issued_tokens;
mod managed_identity;
mod oauth2;
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

/// An HTTP server on `127.0.0.1` that grants, accepts and rejects tokens as a vendor does.
///
/// The constructor chooses the vendor and documents its endpoints and rules: [`wecom`](FakeVendor::wecom),
/// [`wechat`](FakeVendor::wechat), [`feishu`](FakeVendor::feishu), [`dingtalk`](FakeVendor::dingtalk),
/// [`entra`](FakeVendor::entra), [`managed_identity`](FakeVendor::managed_identity), [`oauth2`](FakeVendor::oauth2).
///
/// - **Tokens** have the names `token-1`, `token-2` and so on, or the names that [`granting`](FakeVendor::granting)
///   puts into the script. Each belongs to the credential and the kind for which it was issued, and expires after its
///   lifetime.
/// - **Credentials**: the constructor's docs list the accepted ones; [`credential`](FakeVendor::credential) replaces
///   them.
/// - **Faults**: [`fail_with`](FakeVendor::fail_with) makes the token endpoints fail until
///   [`recover`](FakeVendor::recover). The API still accepts valid tokens.
/// - **Time** is the machine's, or that of a [`FakeClock`](super::FakeClock) given to [`clock`](FakeVendor::clock).
/// - **Observation**: [`calls`](FakeVendor::calls), [`requests`](FakeVendor::requests),
///   [`is_valid`](FakeVendor::is_valid).
///
/// Methods that take `self` set the vendor up; methods that take `&self` control and observe it. Clones share one
/// server, so a test can keep one and give others away. The server stops when the last clone is dropped.
///
/// The example plays both sides by hand; the [module page](super) shows a test with a manager.
///
/// ```
/// use evertoken::testing::FakeVendor;
///
/// let vendor = FakeVendor::wecom().granting("t-1", 7200);
/// let url = format!("{}?corpid=corp&corpsecret=secret", vendor.token_url());
/// let reply = ureq::get(url).call()?.into_body().read_to_string()?;
/// assert!(reply.contains("t-1"));
/// assert!(vendor.is_valid("t-1"));
///
/// let url = format!("{}?access_token=t-1", vendor.api_url());
/// let reply = ureq::get(url).call()?.into_body().read_to_string()?;
/// assert!(reply.contains("ok"));
/// assert_eq!((vendor.calls(), vendor.api_calls()), (1, 1));
/// # Ok::<(), ureq::Error>(())
/// ```
#[derive(Clone)]
pub struct FakeVendor(Arc<Handle>);

/// What the clones share. Dropped with the last clone.
struct Handle {
    shared: Arc<Shared>,
    server: Server,
}

/// What the clones and the server's threads share.
struct Shared {
    vendor: &'static dyn Vendor,
    state: Mutex<State>,
    /// Notified when a request comes, when the fault changes, and when the server stops.
    changed: Condvar,
}

struct State {
    vendor_state: VendorState,
    time: VendorTime,
    fault: VendorFault,
    delay: Duration,
    api_script: VecDeque<Reply>,
    requests: VecDeque<ReceivedRequest>,
    /// Requests to token routes, and those to API routes.
    calls: usize,
    api_calls: usize,
    calls_to: HashMap<String, usize>,
    /// Requests to token routes that wait for their reply.
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
        let handler = shared.clone();
        let server = Server::start(move |request| handler.handle_request(request));
        let server = server.expect("a fake vendor needs a free port on 127.0.0.1 and a thread");
        FakeVendor(Arc::new(Handle { shared, server }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.shared.state)
    }
}

impl Shared {
    /// Handles one request, on the thread of its connection. The module page lists the steps.
    fn handle_request(&self, request: ReceivedRequest) -> Reply {
        let mut state = lock(&self.state);
        if state.requests.len() == MAX_RECORDED_REQUESTS {
            state.requests.pop_front();
        }
        state.requests.push_back(request.clone());
        let Some(route) = self.vendor.route(request.path()) else {
            return Reply::new(404, "text/plain", "404 page not found");
        };
        *state.calls_to.entry(request.path().to_owned()).or_default() += 1;
        // Step 3 of the module page. The API has no faults: a test can see whether a token is valid while grants fail.
        if let Route::Api(_) = route {
            state.api_calls += 1;
            let mut state = self.wait_delay(state);
            let now = state.time.now();
            let scripted = state.api_script.pop_front();
            return scripted.unwrap_or_else(|| route.handle(&request, &mut state.vendor_state, now));
        }
        // Auxiliary routes have faults, but are no calls for a token.
        let counted = usize::from(matches!(route, Route::Token { .. }));
        state.calls += counted;
        state.in_progress += counted;
        state.max_concurrent_calls = state.max_concurrent_calls.max(state.in_progress);
        self.changed.notify_all();
        // Both waits release the lock, so that other requests are counted as concurrent.
        let state = self.wait_delay(state);
        let mut state = self.wait_unless_stopped(state, |state| state.fault == VendorFault::Hang);
        state.in_progress -= counted;
        self.token_reply(&request, &route, &mut state)
    }

    /// Waits for the delay of replies, or until the server stops.
    fn wait_delay<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let delay = state.delay;
        let waited = self.changed.wait_timeout_while(state, delay, |state| !state.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits as long as the condition holds, or until the server stops.
    fn wait_unless_stopped<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        condition: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_while(state, |state| !state.stopped && condition(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the vendor's reply without a fault: the handler's, or an error when the path's daily limit is used up.
    fn normal_reply(&self, request: &ReceivedRequest, route: &Route, state: &mut State) -> Reply {
        let (path, now) = (request.path(), state.time.now());
        match route {
            Route::Token { daily_limit, .. } if !state.vendor_state.count_call(path, *daily_limit, now) => {
                self.vendor.throttled_reply(path, Duration::ZERO)
            }
            _ => route.handle(request, &mut state.vendor_state, now),
        }
    }

    /// Returns the reply of a token or auxiliary route, with the fault that is set now.
    fn token_reply(&self, request: &ReceivedRequest, route: &Route, state: &mut State) -> Reply {
        let path = request.path();
        match state.fault {
            // The last clone was dropped while this request waited.
            _ if state.stopped => Reply::dropped(),
            VendorFault::None => self.normal_reply(request, route, state),
            VendorFault::Status(status) => Reply::new(status, "text/plain", ""),
            VendorFault::Code(code) => self.vendor.error_reply(path, &code.to_string()),
            VendorFault::Error(code) => self.vendor.error_reply(path, code),
            VendorFault::Hang | VendorFault::Drop => Reply::dropped(),
            VendorFault::Garbage => Reply::new(200, "text/html", "<!doctype html><title>Sign in</title>"),
            // The handler runs, so a token is issued that the client may not receive.
            VendorFault::HalfReply => self.normal_reply(request, route, state).delivered(Delivery::Half),
            VendorFault::Trickle => self.normal_reply(request, route, state).delivered(Delivery::Trickle),
            VendorFault::Throttle { retry_after } => self.vendor.throttled_reply(path, retry_after),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Release the requests that wait. The field `server` is dropped after this and closes their connections.
        lock(&self.shared.state).stopped = true;
        self.shared.changed.notify_all();
    }
}

impl fmt::Debug for FakeVendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeVendor({})", self.url())
    }
}

/// Older requests are dropped, so that a benchmark needs bounded memory.
const MAX_RECORDED_REQUESTS: usize = 1_000;
