//! Who is connected, and how a reply goes wrong. HTTP itself is `touche`'s.

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

/// What is sent back, and how.
pub(super) struct Reply {
    /// In a box, because one that is large is slow to hand on.
    response: Box<Response<Vec<u8>>>,
    delivery: Delivery,
}

#[derive(Clone, Copy)]
pub(super) enum Delivery {
    Whole,
    /// The first half of the body, then the connection ends.
    Half,
    /// The body byte by byte, then the connection ends.
    Trickle,
    /// The connection ends without a reply.
    Dropped,
}

impl Reply {
    /// Panics when there is no such status; headers likewise.
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
        let response = Response::builder().status(status).body(body.into()).expect("a status has three digits");
        Reply { response: Box::new(response), delivery: Delivery::Whole }.header("Content-Type", content_type)
    }

    pub(super) fn json(status: u16, body: &serde_json::Value) -> Reply {
        Reply::new(status, "application/json; charset=utf-8", body.to_string())
    }

    pub(super) fn dropped() -> Reply {
        Reply { response: Box::default(), delivery: Delivery::Dropped }
    }

    pub(super) fn header(mut self, name: &str, value: impl AsRef<str>) -> Reply {
        let name = HeaderName::try_from(name).expect("a header has a name");
        let value = HeaderValue::try_from(value.as_ref()).expect("a header is one line");
        self.response.headers_mut().append(name, value);
        self
    }

    /// Says when to come again. Zero: does not say it.
    pub(super) fn retry_after(self, wait: Duration) -> Reply {
        if wait.is_zero() { self } else { self.header("Retry-After", wait.as_secs().to_string()) }
    }

    pub(super) fn delivered(mut self, delivery: Delivery) -> Reply {
        self.delivery = delivery;
        self
    }
}

/// Answers until it is dropped; then every connection ends and the port is free.
pub(super) struct Server {
    address: SocketAddr,
    connections: Arc<Connections>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port. Each connection has a thread, on which `answer` runs.
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
        // The acceptor waits for a connection; this is one.
        let woken = TcpStream::connect(self.address).is_ok();
        if let (true, Some(acceptor)) = (woken, self.acceptor.take()) {
            // It ends at once, and then nobody listens any more: what connects now is refused.
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
            // Out of file descriptors, most likely: others must end first.
            thread::sleep(POLL_INTERVAL);
            continue;
        };
        let Some(handle) = connections.add(handle) else { return };
        let handler = handler.clone();
        // If no thread can be had, the connection ends with the closure that is dropped.
        drop(spawn("fake vendor connection", move || {
            serve(stream, &*handler);
            drop(handle);
        }));
    }
}

/// Answers request after request, on this thread, until the connection ends.
fn serve(stream: TcpStream, handler: &Handler) {
    let server = touche::Server::builder().nodelay(true).read_timeout(IDLE_TIMEOUT).from_connections([stream]);
    // Why a connection ended is no news here: the client was faster, or a fault was asked for.
    drop(server.serve_single_thread(|request| deliver(handler(receive(request)?))));
}

fn receive(request: Request<Body>) -> io::Result<ReceivedRequest> {
    let (head, body) = request.into_parts();
    let length = body.len();
    let mut received = Vec::new();
    body.into_reader().take(MAX_REQUEST_BODY).read_to_end(&mut received)?;
    if length.is_some_and(|length| length != received.len() as u64) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(ReceivedRequest(Request::from_parts(head, received)))
}

/// What `touche` is to send. An error makes it end the connection.
fn deliver(reply: Reply) -> io::Result<Response<Body>> {
    let (head, body) = reply.response.into_parts();
    let length = body.len();
    // Announces the whole body, whatever is sent of it.
    let response = |sent: &[u8]| {
        let sent = io::Cursor::new(sent.to_vec());
        Response::from_parts(head, Body::from_reader(sent, length))
    };
    // An upgrade hands the connection over after what was sent; it ends when the handler returns.
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

/// The connections that are open, so that they can be ended.
#[derive(Default)]
struct Connections(Mutex<OpenConnections>);

#[derive(Default)]
struct OpenConnections {
    /// A connection's thread holds it as long as it works.
    streams: Vec<Weak<TcpStream>>,
    closed: bool,
}

impl Connections {
    /// Waits until another connection may come. False when none may come any more.
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
            // An error means that the client was faster.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

/// As many requests are answered at once; further ones wait for a connection that ends. Each takes three file
/// descriptors here and one at the client, and 1,024 are what many systems give to a process.
const MAX_CONNECTIONS: usize = 192;

/// Between two looks for room.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Longer than clients keep a connection that they do not use.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

const MAX_REQUEST_BODY: u64 = 1024 * 1024;

/// The pause before each byte of a body that trickles: a short one takes several seconds.
const TRICKLE_INTERVAL: Duration = Duration::from_millis(100);
