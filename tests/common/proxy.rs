//! A TCP proxy on loopback that fails as networks do.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The fault of a proxy. A fault holds for all connections from the moment it is set, and for data in flight too. A
/// reply is the result of one read from the server, which is a whole reply as long as it is small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Delays each reply by this time.
    Delay(Duration),
    /// Accepts connections and bytes, and forwards none.
    BlackHole,
    /// Closes the connection at a request or a reply and forwards neither, so that a request is not carried out.
    Cut,
    /// Closes the connection after the first half of a reply.
    HalfReply,
    /// Sends nothing more after the first half of a reply.
    HalfThenSilence,
    /// Sends a reply one byte at a time.
    Trickle(Duration),
    /// As [`Cut`](Fault::Cut), but resets the connection instead of closing it.
    Reset,
    /// Replies to a request as a web server would, without forwarding it, and closes the connection.
    Garbage,
    /// Closes every connection at once.
    Refuse,
}

/// A proxy on a port of its own. Its threads end when this value is dropped.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    fault: Fault,
    /// The next request that contains these bytes loses its reply.
    lose: Option<Vec<u8>>,
    accepted: usize,
    open: BTreeMap<usize, Arc<Link>>,
    threads: Vec<JoinHandle<()>>,
    over: bool,
}

/// A connection and the one to the server. Closed when the last reference is dropped, and shut down before that.
struct Link {
    number: usize,
    client: TcpStream,
    /// Opened at the first request that is forwarded.
    server: OnceLock<TcpStream>,
    fate: Mutex<Fate>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Alive,
    /// Bytes were lost, so that the connection is of no further use.
    Mute,
    /// The reply to the forwarded request will be dropped.
    LosesReply,
}

/// Whether a connection goes on.
enum Next {
    GoOn,
    Close,
    Reset,
}

impl Proxy {
    /// A proxy to the server at `target`, without a fault.
    pub(crate) fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            fault: Fault::None,
            lose: None,
            accepted: 0,
            open: BTreeMap::new(),
            threads: Vec::new(),
            over: false,
        };
        let shared = Arc::new(Shared { target, state: Mutex::new(state), changed: Condvar::new() });
        let acceptor = Some(thread::spawn({
            let shared = shared.clone();
            move || accept(&shared, &listener)
        }));
        Proxy { shared, port, acceptor }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sets the fault. Closes connections that lost bytes to the fault before, because they are of no further use.
    pub(crate) fn set(&self, fault: Fault) {
        let mut state = self.shared.state();
        state.fault = fault;
        let gone = |link: &Link| fault == Fault::Refuse || *link.fate() == Fate::Mute;
        state.close_those(gone);
        self.shared.changed.notify_all();
    }

    /// The next request is carried out, its reply is dropped and its connection closed. A client that connects again
    /// may send a greeting first; then the greeting counts as this request.
    pub(crate) fn lose_next_reply(&self) {
        self.lose_next_reply_to("");
    }

    /// As [`lose_next_reply`](Proxy::lose_next_reply), for the next request that contains `text`, such as a command.
    pub(crate) fn lose_next_reply_to(&self, text: &str) {
        self.shared.state().lose = Some(text.as_bytes().to_vec());
    }

    /// The number of connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state().accepted
    }

    /// The number of open connections.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.state().open.len()
    }

    /// Closes all connections. New ones are accepted as before.
    pub(crate) fn cut_all(&self) {
        self.shared.state().close_those(|_| true);
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.over = true;
        state.close_those(|_| true);
        self.shared.changed.notify_all();
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        // Wakes the thread that accepts connections.
        let _ = TcpStream::connect(self.addr());
        threads.into_iter().chain(self.acceptor.take()).for_each(|thread| drop(thread.join()));
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for client in listener.incoming() {
        let mut state = shared.state();
        if state.over {
            return;
        }
        let Ok(client) = client else { continue };
        state.accepted += 1;
        if state.fault == Fault::Refuse {
            continue;
        }
        let _ = client.set_nodelay(true);
        let number = state.accepted;
        let link = Arc::new(Link { number, client, server: OnceLock::new(), fate: Mutex::new(Fate::Alive) });
        state.open.insert(number, link.clone());
        state.threads.retain(|thread| !thread.is_finished());
        let shared = shared.clone();
        state.threads.push(thread::spawn(move || shared.carry_requests(&link)));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_requests(self: &Arc<Self>, link: &Arc<Link>) {
        self.carry(link, &link.client, |bytes| self.request(link, bytes));
    }

    fn carry_replies(&self, link: &Link) {
        let server = link.server.get().expect("replies are carried once there is a server");
        self.carry(link, server, |bytes| self.reply(link, bytes));
    }

    /// Forwards the bytes `from` one side until it ends, and shuts the connection down then.
    fn carry(&self, link: &Link, mut from: &TcpStream, mut hand_on: impl FnMut(&[u8]) -> Next) {
        let mut bytes = vec![0; 64 * 1024];
        let mut next = Next::GoOn;
        while matches!(next, Next::GoOn) {
            next = match from.read(&mut bytes) {
                Ok(read @ 1..) => hand_on(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => Next::GoOn,
                _ => Next::Close,
            };
        }
        // The side that ends first decides how: an orderly end of the other side would arrive before the reset.
        if self.state().open.remove(&link.number).is_some() {
            if matches!(next, Next::Reset) { link.reset() } else { link.close() }
        }
        // Wakes a thread that waits to send a reply to this connection.
        self.changed.notify_all();
    }

    fn request(self: &Arc<Self>, link: &Arc<Link>, bytes: &[u8]) -> Next {
        let mut state = self.state();
        let mut fate = link.fate();
        match state.fault {
            _ if *fate == Fate::Mute => return Next::GoOn,
            Fault::BlackHole => {
                *fate = Fate::Mute;
                return Next::GoOn;
            }
            Fault::Cut | Fault::Refuse => return Next::Close,
            Fault::Reset => return Next::Reset,
            Fault::Garbage => {
                drop((state, fate));
                let _ = (&link.client).write_all(GARBAGE);
                return Next::Close;
            }
            _ => {}
        }
        if state.lose.as_ref().is_some_and(|text| contains(bytes, text)) {
            state.lose = None;
            *fate = Fate::LosesReply;
        }
        drop((state, fate));
        let sent = self.server(link).and_then(|mut server| server.write_all(bytes));
        if sent.is_ok() { Next::GoOn } else { Next::Close }
    }

    /// The connection to the server behind `link`, opened at its first request.
    fn server<'a>(self: &Arc<Self>, link: &'a Arc<Link>) -> std::io::Result<&'a TcpStream> {
        if let Some(server) = link.server.get() {
            return Ok(server);
        }
        let server = TcpStream::connect(self.target)?;
        server.set_nodelay(true)?;
        let mut state = self.state();
        // The client closed the connection meanwhile: the server must not receive the request.
        if !state.open.contains_key(&link.number) {
            return Err(ErrorKind::NotConnected.into());
        }
        let server = link.server.get_or_init(|| server);
        let (shared, link) = (self.clone(), link.clone());
        state.threads.push(thread::spawn(move || shared.carry_replies(&link)));
        Ok(server)
    }

    /// Sends a reply to the client, subject to the current fault.
    fn reply(&self, link: &Link, mut bytes: &[u8]) -> Next {
        let mut client = &link.client;
        let came = Instant::now();
        let mut due = came;
        let mut state = self.state();
        while !bytes.is_empty() {
            if !state.open.contains_key(&link.number) {
                return Next::Close;
            }
            let now = Instant::now();
            let mut fate = link.fate();
            let half = &bytes[..bytes.len().div_ceil(2)];
            let (part, next) = match state.fault {
                _ if *fate == Fate::Mute => return Next::GoOn,
                _ if *fate == Fate::LosesReply => return Next::Close,
                Fault::BlackHole => {
                    *fate = Fate::Mute;
                    return Next::GoOn;
                }
                Fault::Cut | Fault::Refuse => return Next::Close,
                Fault::Reset => return Next::Reset,
                Fault::Garbage => (GARBAGE, Next::Close),
                Fault::HalfReply => (half, Next::Close),
                Fault::HalfThenSilence => {
                    *fate = Fate::Mute;
                    (half, Next::GoOn)
                }
                Fault::Delay(by) if now < came + by => {
                    drop(fate);
                    state = self.wait(state, came + by - now);
                    continue;
                }
                Fault::Trickle(_) if now < due => {
                    drop(fate);
                    state = self.wait(state, due - now);
                    continue;
                }
                Fault::Trickle(interval) => {
                    due = now + interval;
                    (&bytes[..1], Next::GoOn)
                }
                Fault::None | Fault::Delay(_) => (bytes, Next::GoOn),
            };
            drop((state, fate));
            if client.write_all(part).is_err() || !matches!(next, Next::GoOn) {
                return Next::Close;
            }
            // At most to the end of the text, which is longer than some replies.
            bytes = &bytes[part.len().min(bytes.len())..];
            state = self.state();
        }
        Next::GoOn
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl State {
    fn close_those(&mut self, gone: impl Fn(&Link) -> bool) {
        self.open.retain(|_, link| {
            let gone = gone(link);
            if gone {
                link.close();
            }
            !gone
        });
    }
}

impl Link {
    fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shuts both sides down, which wakes both threads.
    fn close(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        self.close_server();
    }

    /// Makes the end of the connection a reset. Only reading is shut down, because any other call would send an orderly
    /// end to the client.
    fn reset(&self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let size = libc::socklen_t::try_from(size_of_val(&linger)).unwrap();
        // SAFETY: the socket is open, and the option is a `linger` of this size that outlives the call.
        let set = unsafe {
            let option = (&raw const linger).cast();
            libc::setsockopt(self.client.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, option, size)
        };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        let _ = self.client.shutdown(Shutdown::Read);
        self.close_server();
    }

    fn close_server(&self) {
        if let Some(server) = self.server.get() {
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}

const GARBAGE: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";
