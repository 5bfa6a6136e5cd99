//! Loopback HTTP hosts for tests: a real socket, a scripted reply, and a record of the requests.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A loopback host that treats every connection in the same way.
pub(crate) struct Canned {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

/// A host that sends `reply` unchanged to each request and closes the connection.
pub(crate) fn canned(reply: impl Into<Vec<u8>>) -> Canned {
    let reply = reply.into();
    host(move |mut stream| {
        let _ = stream.write_all(&reply);
        let _ = stream.shutdown(Shutdown::Write);
        // Closing a socket with unread bytes would reset the connection and could lose the reply.
        let _ = stream.read(&mut [0; 64]);
    })
}

/// A host that replies HTTP 200 with `body`.
pub(crate) fn answering(body: &str) -> Canned {
    canned(reply("200 OK", "", body))
}

/// A host that reads a request and then leaves the connection to `answer`.
pub(crate) fn host(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> Canned {
    serve(read_request, answer)
}

/// A host that leaves each connection to `answer` unread, such as one that speaks TLS.
pub(crate) fn host_without_reading(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> Canned {
    serve(|_| String::new(), answer)
}

fn serve(read: fn(&mut TcpStream) -> String, answer: impl Fn(TcpStream) + Send + Sync + 'static) -> Canned {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (seen, answer) = (requests.clone(), Arc::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen, answer) = (stream.unwrap(), seen.clone(), answer.clone());
            thread::spawn(move || {
                seen.lock().unwrap().push(read(&mut stream));
                answer(stream);
            });
        }
    });
    Canned { port, requests }
}

/// The bytes of a reply.
pub(crate) fn reply(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}").into_bytes()
}

impl Canned {
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The number of requests so far.
    pub(crate) fn calls(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// All requests as received, oldest first.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The only request: its first line, its headers (names in lower case, sorted), its body.
    pub(crate) fn request(&self) -> (String, Vec<String>, String) {
        let requests = self.requests.lock().unwrap();
        assert_eq!(requests.len(), 1, "{requests:?}");
        let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
        let mut lines = head.split("\r\n").map(str::to_owned);
        let first = lines.next().unwrap();
        let mut headers: Vec<_> = lines.collect();
        headers.sort();
        (first, headers, body.to_owned())
    }
}

/// A port without a listener.
pub(crate) fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}
