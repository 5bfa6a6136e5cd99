//! A vendor on a loopback port.

mod book;
mod oauth2;
mod request;
mod server;
mod vendor;
mod wecom;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use request::ReceivedRequest;

use self::book::{Book, Judgement};
use self::server::{Delivery, Reply, Server};
use self::vendor::Vendor;
use super::clock::FakeClock;
use crate::clock::Stopwatch;
use crate::lock::lock;

/// An HTTP server on `127.0.0.1` that grants and judges tokens as the vendor does.
///
/// Clones are the same host; with the last one it stops, its connections end and its port is free. Methods that take
/// `self` set it up; they act at once, so that `host.clone().granting(..)` goes on with the script later. Methods that
/// take `&self` steer and watch it.
///
/// ```
/// use evertoken::testing::ProviderHost;
///
/// let host = ProviderHost::wecom().granting("t-1", 7200);
/// let asked = format!("{}?corpid=corp&corpsecret=secret", host.token_url());
/// let reply = ureq::get(asked).call()?.into_body().read_to_string()?;
/// assert!(reply.contains("t-1"));
/// assert!(host.is_alive("t-1"));
/// # Ok::<(), ureq::Error>(())
/// ```
#[derive(Clone)]
pub struct ProviderHost(Arc<Handle>);

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
    book: Book,
    time: VendorTime,
    outage: Outage,
    delay: Duration,
    business_script: VecDeque<Reply>,
    requests: VecDeque<ReceivedRequest>,
    calls: usize,
    business_calls: usize,
    in_progress: usize,
    most_at_once: usize,
    closed: bool,
}

/// The vendor's own time, which nobody on the client's machine can set.
enum VendorTime {
    Real(Stopwatch),
    Fake(FakeClock),
}

/// How the token endpoint fails. The business API goes on: that is what tells a good token from a dead one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outage {
    /// It does not fail.
    None,
    /// It answers with this HTTP status, 200 to 599, and no body.
    Status(u16),
    /// It answers with this code of the vendor's: at WeCom an `errcode`.
    Code(i64),
    /// It answers with this code where codes are words, as in OAuth 2.0: `invalid_scope`.
    Error(&'static str),
    /// It does not answer. When the outage ends, the requests that wait are answered after all.
    Hang,
    /// It ends the connection without a reply. Nothing is granted.
    Drop,
    /// It answers with status 200 and a page of HTML, as the sign-in page of a proxy.
    Garbage,
    /// It grants, but the connection ends in the middle of the reply.
    HalfReply,
    /// It grants, but sends a byte of the body every 100 ms. The head comes at once.
    Trickle,
    /// It says that there were too many calls: OAuth 2.0 with status 429, WeCom with code 45009.
    Throttle {
        /// What stands in `Retry-After`, in whole seconds; zero leaves it out. WeCom itself never sends it.
        retry_after: Duration,
    },
}

/// Starting and setting up.
impl ProviderHost {
    /// WeCom: `GET /cgi-bin/gettoken`, and `/cgi-bin/message/send` to use a token. The right credential is `corp` and
    /// `secret`.
    ///
    /// As long as a token lives, it is given again to whoever asks, and `expires_in` tells its whole life each time.
    ///
    /// # Panics
    ///
    /// When no port can be had.
    pub fn wecom() -> ProviderHost {
        ProviderHost::start(&wecom::WeCom)
    }

    /// OAuth 2.0 client credentials: `POST /token`, and `/api` to use a token. The right credential is `client` and
    /// `secret`, in a header (`client_secret_basic`) or in the form (`client_secret_post`).
    ///
    /// Every call brings a new token; all live to their end.
    ///
    /// # Panics
    ///
    /// When no port can be had.
    pub fn oauth2() -> ProviderHost {
        ProviderHost::start(&oauth2::OAuth2)
    }

    fn start(vendor: &'static dyn Vendor) -> ProviderHost {
        let (id, secret) = vendor.credential();
        let state = State {
            book: Book::new(id, secret),
            time: VendorTime::Real(Stopwatch::start()),
            outage: Outage::None,
            delay: Duration::ZERO,
            business_script: VecDeque::new(),
            requests: VecDeque::new(),
            calls: 0,
            business_calls: 0,
            in_progress: 0,
            most_at_once: 0,
            closed: false,
        };
        let shared = Arc::new(Shared { vendor, state: Mutex::new(state), changed: Condvar::new() });
        let answering = shared.clone();
        let server = Server::start(move |request| answering.answer(request));
        let server = server.expect("a test host needs a free port on 127.0.0.1 and a thread");
        ProviderHost(Arc::new(Handle { shared, server }))
    }

    /// The next new token is this one. When the script is used up, `token-1`, `token-2` and so on follow.
    pub fn granting(self, token: impl Into<String>, seconds: u64) -> ProviderHost {
        self.change(|state| state.book.script(token.into(), Duration::from_secs(seconds)))
    }

    /// How long the tokens live that no script names. Two hours unless set; whole seconds are told.
    pub fn life(self, life: Duration) -> ProviderHost {
        self.change(|state| state.book.life = life)
    }

    /// Lets the tokens' lives follow `clock`. Set it before the first token is granted.
    ///
    /// What passes here is true time: a sleeping client does not stop it, and setting its wall clock does not move it.
    pub fn clock(self, clock: &FakeClock) -> ProviderHost {
        self.change(|state| state.time = VendorTime::Fake(clock.clone()))
    }

    /// Accepts this credential and no other from now on.
    pub fn credential(self, id: &str, secret: &str) -> ProviderHost {
        self.change(|state| {
            state.book.open_account(id, secret);
            state.book.close_other_accounts(id, secret);
        })
    }

    /// Accepts this credential too. Each has tokens of its own.
    pub fn another_credential(self, id: &str, secret: &str) -> ProviderHost {
        self.change(|state| state.book.open_account(id, secret))
    }

    /// Where the same token is given again: grants a new one when less than this is left. Both then live to their own
    /// end. Zero unless set, as WeCom documents it.
    pub fn renews_within(self, lead: Duration) -> ProviderHost {
        self.change(|state| state.book.renews_within = lead)
    }

    /// How long each reply takes, in real time. Requests do not wait for each other.
    pub fn delay(self, delay: Duration) -> ProviderHost {
        self.change(|state| state.delay = delay)
    }

    /// The next call of the business API is answered like this, whatever its token.
    ///
    /// # Panics
    ///
    /// When HTTP knows no such status, or no such header.
    pub fn business_reply(self, status: u16, headers: &[(&str, &str)], body: &str) -> ProviderHost {
        let reply = Reply::new(status, "application/json", body);
        let reply = headers.iter().fold(reply, |reply, (name, value)| reply.header(name, *value));
        self.change(|state| state.business_script.push_back(reply))
    }

    fn change(self, edit: impl FnOnce(&mut State)) -> ProviderHost {
        edit(&mut self.state());
        self
    }
}

/// Steering and watching.
impl ProviderHost {
    /// Makes the token endpoint fail until [`recover`](ProviderHost::recover).
    pub fn outage(&self, outage: Outage) {
        if let Outage::Status(status) = outage {
            assert!((200..600).contains(&status), "a reply has a status from 200 to 599");
        }
        self.state().outage = outage;
        self.0.shared.changed.notify_all();
    }

    /// Ends the outage.
    pub fn recover(&self) {
        self.outage(Outage::None);
    }

    /// Ends a token's life now.
    pub fn revoke(&self, token: &str) {
        self.state().book.revoke(token);
    }

    /// True when the vendor would accept this token now.
    pub fn is_alive(&self, token: &str) -> bool {
        let state = self.state();
        state.book.judge(token, state.time.now()) == Judgement::Alive
    }

    /// The tokens that were granted, each once, oldest first.
    pub fn granted(&self) -> Vec<String> {
        self.state().book.granted()
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.0.server.address())
    }

    /// Where tokens are granted.
    pub fn token_url(&self) -> String {
        self.url() + self.0.shared.vendor.token_path()
    }

    /// Where tokens are used: a business API that says `ok`, or refuses the token the vendor's way.
    pub fn business_url(&self) -> String {
        self.url() + self.0.shared.vendor.business_path()
    }

    /// How many requests for a token have come.
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// How many requests have come to the business API.
    pub fn business_calls(&self) -> usize {
        self.state().business_calls
    }

    /// How many requests for a token were being answered at the same time, at most.
    pub fn most_at_once(&self) -> usize {
        self.state().most_at_once
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
        if request.path() == self.vendor.token_path() {
            state.calls += 1;
            state.in_progress += 1;
            state.most_at_once = state.most_at_once.max(state.in_progress);
            self.changed.notify_all();
            let mut state = self.pause(state);
            state = self.wait_while(state, |state| state.outage == Outage::Hang);
            state.in_progress -= 1;
            self.token_reply(&request, &mut state)
        } else if request.path() == self.vendor.business_path() {
            state.business_calls += 1;
            let mut state = self.pause(state);
            let now = state.time.now();
            let scripted = state.business_script.pop_front();
            scripted.unwrap_or_else(|| self.vendor.serve(&request, &state.book, now))
        } else {
            Reply::new(404, "text/plain", "404 page not found")
        }
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

    fn token_reply(&self, request: &ReceivedRequest, state: &mut State) -> Reply {
        let now = state.time.now();
        let mut granted = || self.vendor.grant(request, &mut state.book, now);
        match state.outage {
            _ if state.closed => Reply::nothing(),
            Outage::None => granted(),
            Outage::Status(status) => Reply::new(status, "text/plain", ""),
            Outage::Code(code) => self.vendor.failure(&code.to_string()),
            Outage::Error(code) => self.vendor.failure(code),
            Outage::Hang | Outage::Drop => Reply::nothing(),
            Outage::Garbage => Reply::new(200, "text/html", "<!doctype html><title>Sign in</title>"),
            Outage::HalfReply => granted().delivered(Delivery::Half),
            Outage::Trickle => granted().delivered(Delivery::Trickle),
            Outage::Throttle { retry_after: Duration::ZERO } => self.vendor.throttled(),
            Outage::Throttle { retry_after } => {
                self.vendor.throttled().header("Retry-After", retry_after.as_secs().to_string())
            }
        }
    }
}

impl VendorTime {
    fn now(&self) -> Duration {
        match self {
            VendorTime::Real(since_start) => since_start.elapsed(),
            VendorTime::Fake(clock) => clock.passed(),
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

impl fmt::Debug for ProviderHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProviderHost({})", self.url())
    }
}

const MOST_REQUESTS: usize = 1_000;
