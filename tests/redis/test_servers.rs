//! The servers and the proxy of the tests behave as documented.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::cluster::RedisCluster;
use crate::common::proxy::{Fault, Proxy};
use crate::common::redis_server::{Certificates, Monitor, RedisServer, until};
use crate::common::sentinel::SentinelGroup;

const PATIENCE: Duration = Duration::from_secs(30);

/// Long enough for loopback to deliver all bytes.
const A_WHILE: Duration = Duration::from_millis(200);

const PING: &[u8] = b"PING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

#[test]
fn a_server_answers_over_tcp_and_over_its_socket() {
    let server = RedisServer::start();
    for url in [server.url(), server.unix_url()] {
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        redis::cmd("INCR").arg("n").exec(&mut connection).unwrap();
    }
    assert_eq!(number(&server, "n"), 2);
    let before = server.command_count();
    server.ask::<()>(&["SET", "n", "3"]).unwrap();
    assert!(server.command_count() > before);
}

#[test]
fn a_server_takes_more_arguments() {
    let server = RedisServer::with(&["--maxmemory", "1mb", "--requirepass", "a password"]);
    assert!(server.ask::<()>(&["GET", "n"]).is_err());
    let mut connection = server.connect();
    redis::cmd("AUTH").arg("a password").exec(&mut connection).unwrap();
    let limit: Vec<String> = redis::cmd("CONFIG").arg("GET").arg("maxmemory").query(&mut connection).unwrap();
    assert_eq!(limit, ["maxmemory", "1048576"]);
}

#[test]
fn a_server_stops_and_goes_on() {
    let server = RedisServer::start();
    let mut stream = open(server.port());
    server.stop();
    stream.write_all(PING).unwrap();
    assert!(is_silent(&mut stream));
    server.go_on();
    assert_eq!(read(&mut stream, PONG.len()), PONG);
}

#[test]
fn a_server_is_killed_and_starts_again_on_its_port_without_its_data() {
    let server = RedisServer::start();
    let (port, pid) = (server.port(), server.pid());
    server.ask::<()>(&["SET", "n", "1"]).unwrap();
    let mut stream = open(port);
    // The server would reset a connection that it has not accepted yet.
    stream.write_all(PING).unwrap();
    assert_eq!(read(&mut stream, PONG.len()), PONG);
    server.kill();
    assert_eq!(rest(&mut stream).unwrap(), b"");
    assert!(TcpStream::connect(server.addr()).is_err());
    server.restart();
    assert_eq!((server.port(), server.pid() != pid), (port, true));
    assert_eq!(number(&server, "n"), 0);
}

#[test]
fn a_server_ends_with_its_value_even_when_it_is_stopped() {
    let server = RedisServer::start();
    let addr = server.addr();
    server.stop();
    drop(server);
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn many_servers_start_at_once() {
    let servers: Vec<_> = thread::scope(|scope| {
        let starting: Vec<_> = (0..8).map(|_| scope.spawn(RedisServer::start)).collect();
        starting.into_iter().map(|server| server.join().unwrap()).collect()
    });
    for server in &servers {
        let info: String = server.ask(&["INFO", "server"]).unwrap();
        assert_eq!(crate::common::redis_server::field(&info, "process_id"), Some(server.pid().to_string().as_str()));
    }
}

#[test]
fn a_monitor_counts_what_clients_send_and_not_what_scripts_call() {
    let server = RedisServer::start();
    server.ask::<()>(&["SET", "before", "1"]).unwrap();
    let monitor = Monitor::of(&server);
    assert!(monitor.commands().is_empty());
    server.ask::<()>(&["set", "n", "1"]).unwrap();
    server.ask::<()>(&["EVAL", "return redis.call('GET', 'a \"quoted\" key')", "0"]).unwrap();
    monitor.wait_for(2);
    assert_eq!(monitor.commands(), ["SET", "EVAL"]);
    server.kill();
    assert_eq!(monitor.commands(), ["SET", "EVAL"]);
}

#[test]
fn a_tls_server_is_trusted_through_its_authority_only() {
    let (server, certificates) = RedisServer::tls();
    assert_eq!(ping_over_tls(&server, &certificates.ca_pem, None), Ok("PONG".to_owned()));
    assert_eq!(ping_over_tls(&server, &certificates.ca_pem, Some(&certificates)), Ok("PONG".to_owned()));
    assert!(ping_over_tls(&server, &certificates.other_ca_pem, None).is_err());
    let mut plain = open(server.port());
    plain.write_all(PING).unwrap();
    assert!(!rest(&mut plain).unwrap_or_default().starts_with(PONG));
}

#[test]
fn a_tls_server_can_require_a_certificate_of_its_client() {
    let (server, certificates) = RedisServer::tls_with_client_auth();
    assert_eq!(ping_over_tls(&server, &certificates.ca_pem, Some(&certificates)), Ok("PONG".to_owned()));
    assert!(ping_over_tls(&server, &certificates.ca_pem, None).is_err());
}

#[test]
fn a_proxy_without_a_fault_is_not_noticed() {
    let (_server, proxy, mut stream) = behind_proxy();
    assert_eq!((proxy.connections(), proxy.open_connections()), (1, 1));
    let mut connection = redis::Client::open(proxy.url()).unwrap().get_connection().unwrap();
    let value = "x".repeat(1 << 20);
    redis::cmd("SET").arg("big").arg(&value).exec(&mut connection).unwrap();
    assert_eq!(redis::cmd("GET").arg("big").query::<String>(&mut connection).unwrap(), value);
    drop(connection);
    until("one connection is left", || proxy.open_connections() == 1);
    assert_eq!(proxy.connections(), 2);
    proxy.cut_all();
    assert_eq!((rest(&mut stream).unwrap(), proxy.open_connections()), (vec![], 0));
}

#[test]
fn a_proxy_ends_with_its_value() {
    let (_server, proxy, mut stream) = behind_proxy();
    let addr = proxy.addr();
    drop(proxy);
    assert_eq!(rest(&mut stream).unwrap(), b"");
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn a_delay_delays_each_reply() {
    let (_server, proxy, mut stream) = behind_proxy();
    proxy.set(Fault::Delay(A_WHILE));
    for _ in 0..2 {
        let asked = Instant::now();
        stream.write_all(PING).unwrap();
        assert_eq!(read(&mut stream, PONG.len()), PONG);
        assert!(asked.elapsed() >= A_WHILE);
    }
}

#[test]
fn a_delay_that_is_lifted_delays_no_later_reply() {
    let (server, proxy, mut stream) = behind_proxy();
    proxy.set(Fault::Delay(10 * PATIENCE));
    incr(&mut stream);
    until("the request is carried out", || number(&server, "n") == 1);
    proxy.set(Fault::None);
    assert_eq!(read(&mut stream, 4), b":1\r\n");
}

#[test]
fn a_black_hole_drops_all_bytes_for_good() {
    let (server, proxy, mut before) = behind_proxy();
    proxy.set(Fault::BlackHole);
    let mut after = open(proxy.port());
    for stream in [&mut before, &mut after] {
        incr(stream);
        assert!(is_silent(stream));
    }
    assert_eq!(proxy.open_connections(), 2);
    proxy.set(Fault::None);
    for stream in [&mut before, &mut after] {
        assert_eq!(rest(stream).unwrap(), b"");
    }
    incr(&mut open(proxy.port()));
    until("only later requests are carried out", || number(&server, "n") == 1);
}

#[test]
fn a_black_hole_drops_the_reply_in_flight() {
    let (server, proxy, mut stream) = behind_proxy();
    server.stop();
    incr(&mut stream);
    // The request has passed the proxy when it waits at the server.
    until("the request is at the server", || bytes_waiting_at(server.port()) > 0);
    proxy.set(Fault::BlackHole);
    server.go_on();
    until("the request is carried out", || number(&server, "n") == 1);
    assert!(is_silent(&mut stream));
}

#[test]
fn a_cut_closes_before_the_request_is_carried_out() {
    let (server, proxy, mut stream) = behind_proxy();
    proxy.set(Fault::Cut);
    incr(&mut stream);
    assert_eq!(rest(&mut stream).unwrap(), b"");
    assert_eq!(number(&server, "n"), 0);
}

#[test]
fn half_a_reply_comes_and_then_the_end() {
    let (server, proxy, mut stream) = behind_proxy();
    proxy.set(Fault::HalfReply);
    incr(&mut stream);
    assert_eq!(rest(&mut stream).unwrap(), b":1");
    assert_eq!(number(&server, "n"), 1);
}

#[test]
fn half_a_reply_comes_and_then_silence() {
    let (_server, proxy, mut stream) = behind_proxy();
    proxy.set(Fault::HalfThenSilence);
    incr(&mut stream);
    assert_eq!(read(&mut stream, 2), b":1");
    incr(&mut stream);
    assert!(is_silent(&mut stream));
    proxy.set(Fault::None);
    assert_eq!(rest(&mut stream).unwrap(), b"");
}

#[test]
fn a_trickle_brings_one_byte_at_a_time() {
    let (_server, proxy, mut stream) = behind_proxy();
    let interval = Duration::from_millis(30);
    proxy.set(Fault::Trickle(interval));
    let asked = Instant::now();
    stream.write_all(PING).unwrap();
    let mut reads = 0;
    let mut reply: Vec<u8> = Vec::new();
    while reply.len() < PONG.len() {
        let mut bytes = [0; 64];
        let count = stream.read(&mut bytes).unwrap();
        reply.extend_from_slice(&bytes[..count]);
        reads += 1;
    }
    assert_eq!(reply, PONG);
    assert!(reads > 1);
    // The first byte comes without a delay.
    assert!(asked.elapsed() >= interval * u32::try_from(PONG.len() - 1).unwrap());
}

#[test]
fn a_reset_is_a_reset_and_not_an_end_of_stream() {
    let (server, proxy, before) = behind_proxy();
    proxy.set(Fault::Reset);
    for mut stream in [before, open(proxy.port())] {
        incr(&mut stream);
        assert_eq!(rest(&mut stream).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(number(&server, "n"), 0);
}

#[test]
fn garbage_comes_instead_of_a_reply() {
    let (server, proxy, mut stream) = behind_proxy();
    proxy.set(Fault::Garbage);
    incr(&mut stream);
    assert_eq!(rest(&mut stream).unwrap(), b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(number(&server, "n"), 0);
}

#[test]
fn a_refusal_closes_open_and_new_connections() {
    let (_server, proxy, mut before) = behind_proxy();
    proxy.set(Fault::Refuse);
    assert_eq!(rest(&mut before).unwrap(), b"");
    assert_eq!(rest(&mut open(proxy.port())).unwrap(), b"");
    assert_eq!((proxy.connections(), proxy.open_connections()), (2, 0));
    proxy.set(Fault::None);
    let mut after = open(proxy.port());
    after.write_all(PING).unwrap();
    assert_eq!(read(&mut after, PONG.len()), PONG);
}

#[test]
fn a_request_with_a_lost_reply_is_carried_out_once() {
    let (server, proxy, mut stream) = behind_proxy();
    proxy.lose_next_reply();
    incr(&mut stream);
    assert_eq!(rest(&mut stream).unwrap(), b"");
    assert_eq!(number(&server, "n"), 1);
    let mut after = open(proxy.port());
    incr(&mut after);
    assert_eq!(read(&mut after, 4), b":2\r\n");
}

#[test]
fn the_lost_reply_can_be_chosen() {
    let (server, proxy, mut stream) = behind_proxy();
    proxy.lose_next_reply_to("INCR");
    stream.write_all(PING).unwrap();
    assert_eq!(read(&mut stream, PONG.len()), PONG);
    incr(&mut stream);
    assert_eq!(rest(&mut stream).unwrap(), b"");
    assert_eq!(number(&server, "n"), 1);
}

#[test]
fn sentinels_name_another_master_when_theirs_is_killed() {
    let group = SentinelGroup::start();
    assert_eq!((group.master(), group.nodes().len(), group.servers().len()), (0, 3, 3));
    set_everywhere(&group.servers()[0], "n", "7", 2);
    // Two of three are a majority.
    group.stop_sentinel(2);
    let master = group.fail_over();
    assert_ne!(master, 0);
    assert_eq!(number(&group.servers()[master], "n"), 7);
    group.servers()[master].ask::<()>(&["SET", "n", "8"]).unwrap();
    group.go_on_sentinel(2);
    assert_eq!(group.master(), master);
}

#[test]
fn a_cluster_moves_a_slot_and_survives_the_loss_of_a_master() {
    let cluster = RedisCluster::start();
    assert_eq!((cluster.nodes().len(), cluster.servers().len()), (6, 6));
    let on = |index: usize| &cluster.servers()[index];
    let owner = cluster.master_of("n");
    on(owner).ask::<()>(&["SET", "n", "7"]).unwrap();
    let next = cluster.migrate("n");
    assert_ne!(next, owner);
    assert_eq!(cluster.master_of("n"), next);
    assert_eq!(number(on(next), "n"), 7);
    let moved = on(owner).ask::<u64>(&["GET", "n"]).unwrap_err();
    assert_eq!(moved.code(), Some("MOVED"));
    set_everywhere(on(next), "n", "7", 1);
    let last = cluster.kill_master_of("n");
    assert!(last != next && cluster.master_of("n") == last);
    assert_eq!(number(on(last), "n"), 7);
    on(last).ask::<()>(&["SET", "n", "8"]).unwrap();
}

/// A server, a proxy to it, and a connection through the proxy that has been used.
fn behind_proxy() -> (RedisServer, Proxy, TcpStream) {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.addr());
    let mut stream = open(proxy.port());
    stream.write_all(PING).unwrap();
    assert_eq!(read(&mut stream, PONG.len()), PONG);
    (server, proxy, stream)
}

fn open(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn incr(stream: &mut TcpStream) {
    stream.write_all(b"INCR n\r\n").unwrap();
}

fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// All bytes until the connection ends.
fn rest(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

/// Whether neither a byte nor an end comes for a while.
fn is_silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(A_WHILE)).unwrap();
    let read = stream.read(&mut [0]);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    read.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

fn number(server: &RedisServer, key: &str) -> u64 {
    server.ask::<Option<u64>>(&["GET", key]).unwrap().unwrap_or(0)
}

/// Sets a value and waits until the replicas have it too. WAIT covers writes of the same connection only.
fn set_everywhere(master: &RedisServer, key: &str, value: &str, replicas: u64) {
    let mut connection = master.connect();
    redis::cmd("SET").arg(key).arg(value).exec(&mut connection).unwrap();
    let waited: u64 = redis::cmd("WAIT").arg(replicas).arg(4000).query(&mut connection).unwrap();
    assert_eq!(waited, replicas);
}

/// The number of unread bytes in the connections to a port.
fn bytes_waiting_at(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Its columns: number, local address, remote address, state, bytes to send and bytes to read. State 1 is connected.
    let waiting = rows.filter(|row| row[1].ends_with(&format!(":{port:04X}")) && row[3] == "01");
    waiting.map(|row| u64::from_str_radix(row[4].split(':').nth(1).unwrap(), 16).unwrap()).sum()
}

fn ping_over_tls(server: &RedisServer, ca: &str, client: Option<&Certificates>) -> redis::RedisResult<String> {
    let client_tls = client.map(|client| redis::ClientTlsConfig {
        client_cert: client.client_cert_pem.clone().into_bytes(),
        client_key: client.client_key_pem.clone().into_bytes(),
    });
    let certificates = redis::TlsCertificates { client_tls, root_cert: Some(ca.as_bytes().to_vec()) };
    let client = redis::Client::build_with_tls(server.url(), certificates)?;
    redis::cmd("PING").query(&mut client.get_connection_with_timeout(PATIENCE)?)
}
