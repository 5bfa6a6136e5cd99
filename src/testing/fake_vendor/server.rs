//! The server under a fake vendor: connections, threads, and deliveries that break on purpose.
//!
//! The crate `touche` parses requests and writes replies. One thread accepts connections, and each connection has a
//! thread that handles its requests in order. [`Connections`] keeps a weak reference to every open socket, so that
//! dropping the [`Server`] can close all of them, even while a handler waits.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use touche::header::{HeaderName, HeaderValue};
use touche::upgrade::Upgrade;
use touche::{Body, Connection, HttpBody, Request, Response};

use super::request::ReceivedRequest;
use crate::lock::lock;

/// A reply, and how it is delivered.
pub(super) struct Reply {
    /// Boxed, because `Result<Reply, Reply>` would be large otherwise.
    response: Box<Response<Vec<u8>>>,
    delivery: Delivery,
}

#[derive(Clone, Copy)]
pub(super) enum Delivery {
    Whole,
    /// The first half of the body, then the connection closes.
    Half,
    /// The body byte by byte, then the connection closes.
    Trickle,
    /// No reply; the connection closes.
    Dropped,
}

impl Reply {
    /// Returns a reply that is delivered whole. Panics if the status has not three digits, or the content type is not
    /// valid.
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
        let response =
            Response::builder().status(status).body(body.into()).expect("an HTTP status must have three digits");
        Reply { response: Box::new(response), delivery: Delivery::Whole }.header("Content-Type", content_type)
    }

    pub(super) fn json(status: u16, body: &serde_json::Value) -> Reply {
        Reply::new(status, "application/json; charset=utf-8", body.to_string())
    }

    /// Returns a reply that closes the connection without sending anything.
    pub(super) fn dropped() -> Reply {
        Reply { response: Box::default(), delivery: Delivery::Dropped }
    }

    /// Adds a header. Panics if the name or the value is not valid in HTTP.
    pub(super) fn header(mut self, name: &str, value: impl AsRef<str>) -> Reply {
        let name = HeaderName::try_from(name).expect("a header name must be an HTTP token");
        let value =
            HeaderValue::try_from(value.as_ref()).expect("a header value must be one line of visible characters");
        self.response.headers_mut().append(name, value);
        self
    }

    /// Adds `Retry-After` in seconds, unless `wait` is zero.
    pub(super) fn retry_after(self, wait: Duration) -> Reply {
        if wait.is_zero() { self } else { self.header("Retry-After", wait.as_secs().to_string()) }
    }

    pub(super) fn delivered(mut self, delivery: Delivery) -> Reply {
        self.delivery = delivery;
        self
    }
}

/// A running server. Dropping it closes every connection and frees the port.
pub(super) struct Server {
    address: SocketAddr,
    connections: Arc<Connections>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port of `127.0.0.1`. Each connection has a thread, on which `handler` runs.
    pub(super) fn start(handler: impl Fn(ReceivedRequest) -> Reply + Send + Sync + 'static) -> io::Result<Server> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let connections = Arc::new(Connections::default());
        let handler: Arc<Handler> = Arc::new(handler);
        let acceptor = {
            let connections = connections.clone();
            spawn("fake vendor", move || accept(&listener, &connections, &handler))?
        };
        Ok(Server { address, connections, acceptor: Some(acceptor) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.connections.close();
        // The acceptor blocks in `accept`. A connection wakes it, and it sees that the server has stopped.
        let woken = TcpStream::connect(self.address).is_ok();
        if let (true, Some(acceptor)) = (woken, self.acceptor.take()) {
            // After this the listener is closed: the operating system refuses new connections.
            drop(acceptor.join());
        }
    }
}

type Handler = dyn Fn(ReceivedRequest) -> Reply + Send + Sync;

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

fn accept(listener: &TcpListener, connections: &Connections, handler: &Arc<Handler>) {
    while connections.wait_for_room() {
        let accepted = listener.accept().and_then(|(stream, _)| Ok((stream.try_clone()?, stream)));
        let Ok((handle, stream)) = accepted else {
            // Most likely the process has no file descriptors left. Wait until other connections have closed.
            thread::sleep(POLL_INTERVAL);
            continue;
        };
        let Some(handle) = connections.add(handle) else { return };
        let handler = handler.clone();
        // If no thread can be started, the closure is dropped, which closes the connection.
        drop(spawn("fake vendor connection", move || {
            serve(stream, &*handler);
            drop(handle);
        }));
    }
}

/// Handles the requests of one connection, on this thread, until the connection closes.
fn serve(stream: TcpStream, handler: &Handler) {
    let server = touche::Server::builder().nodelay(true).read_timeout(IDLE_TIMEOUT).from_connections([stream]);
    // An error means that the client has closed the connection, or that a fault broke the delivery. Both are expected.
    drop(server.serve_single_thread(|request| deliver(handler(receive(request)?))));
}

/// Reads the whole body. A body that is shorter than its `Content-Length`, or too long, is an error.
fn receive(request: Request<Body>) -> io::Result<ReceivedRequest> {
    let (head, body) = request.into_parts();
    let length = body.len();
    // A test may send anything: never read more than the limit.
    let mut received = Vec::new();
    body.into_reader().take(MAX_REQUEST_BODY).read_to_end(&mut received)?;
    if length.is_some_and(|length| length != received.len() as u64) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(ReceivedRequest(Request::from_parts(head, received)))
}

/// Returns the response for `touche`. An error makes `touche` close the connection.
fn deliver(reply: Reply) -> io::Result<Response<Body>> {
    let (head, body) = reply.response.into_parts();
    let length = body.len();
    // `Content-Length` is that of the whole body, whichever part is sent.
    let response = |sent: &[u8]| {
        let sent = io::Cursor::new(sent.to_vec());
        Response::from_parts(head, Body::from_reader(sent, length))
    };
    // An upgrade passes the connection to a closure after the response. The connection closes when the closure returns.
    match reply.delivery {
        Delivery::Whole => Ok(response(&body)),
        Delivery::Half => Ok(response(&body[..length / 2]).upgrade(drop)),
        Delivery::Trickle => Ok(response(&[]).upgrade(move |connection| drop(trickle(connection, &body)))),
        Delivery::Dropped => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

fn trickle(mut connection: Connection, body: &[u8]) -> io::Result<()> {
    body.iter().try_for_each(|byte| {
        thread::sleep(TRICKLE_INTERVAL);
        connection.write_all(&[*byte])
    })
}

/// The open connections, so that the server can limit and close them.
#[derive(Default)]
struct Connections(Mutex<OpenConnections>);

#[derive(Default)]
struct OpenConnections {
    /// The strong reference is held by the connection's thread, so a dead weak reference means a closed connection.
    streams: Vec<Weak<TcpStream>>,
    closed: bool,
}

impl Connections {
    /// Blocks until another connection may be accepted. Returns false if the server has stopped.
    fn wait_for_room(&self) -> bool {
        loop {
            let mut open = lock(&self.0);
            open.streams.retain(|stream| stream.strong_count() > 0);
            if open.closed || open.streams.len() < MAX_CONNECTIONS {
                return !open.closed;
            }
            drop(open);
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Registers a connection. Returns `None` if the server has stopped.
    fn add(&self, stream: TcpStream) -> Option<Arc<TcpStream>> {
        let mut open = lock(&self.0);
        let stream = Arc::new(stream);
        open.streams.push(Arc::downgrade(&stream));
        (!open.closed).then_some(stream)
    }

    fn close(&self) {
        let mut open = lock(&self.0);
        open.closed = true;
        for stream in open.streams.iter().filter_map(Weak::upgrade) {
            // An error means that the client has closed the connection already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

/// Limit on open connections; further ones wait. Each uses three file descriptors here and one at the client, which is
/// in the same process in a test, and many systems limit a process to 1,024.
const MAX_CONNECTIONS: usize = 192;

/// Time between two checks whether a connection has closed.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Longer than clients keep an idle connection, so that the client closes first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

const MAX_REQUEST_BODY: u64 = 1024 * 1024;

/// Delay before each byte of a trickled body. A short token reply takes several seconds.
const TRICKLE_INTERVAL: Duration = Duration::from_millis(100);
