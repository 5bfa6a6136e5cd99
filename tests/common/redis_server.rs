//! A real Redis for tests: a server with ports, a socket and a folder of its own, and a monitor of its commands. The
//! benchmarks include this file too.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

/// The upper bound of every wait, which a healthy machine never reaches.
const PATIENCE: Duration = Duration::from_secs(30);

/// The time in which a server has to reply.
const ANSWER: Duration = Duration::from_secs(5);

/// The number of attempts to start a server whose port was taken meanwhile.
const STARTS: usize = 20;

/// A `redis-server` that ends when this value is dropped.
pub(crate) struct RedisServer {
    state: Mutex<State>,
    arguments: Vec<String>,
    port: Port,
    bus: Port,
    tls: bool,
    // The last field, so that the folder is removed after the server has ended.
    folder: TempDir,
}

struct State {
    child: Child,
    running: bool,
}

/// Values from which the arguments of a server are made.
pub(crate) struct Place<'a> {
    pub(crate) port: u16,
    /// The port of the cluster bus.
    pub(crate) bus: u16,
    pub(crate) folder: &'a Path,
}

/// Certificates of one server that speaks TLS.
pub(crate) struct Certificates {
    /// The authority that signed the certificates of the server and of the client.
    pub(crate) ca_pem: String,
    pub(crate) client_cert_pem: String,
    pub(crate) client_key_pem: String,
    /// An authority that signed neither.
    pub(crate) other_ca_pem: String,
}

/// Constructors.
impl RedisServer {
    pub(crate) fn start() -> RedisServer {
        RedisServer::with(&[])
    }

    /// A server with more arguments, such as `&["--maxmemory", "1mb"]`.
    pub(crate) fn with(arguments: &[&str]) -> RedisServer {
        RedisServer::launch(|place| {
            let mut all = vec!["--port".to_owned(), place.port.to_string()];
            all.extend(arguments.iter().map(|&word| word.to_owned()));
            all
        })
    }

    /// A server that speaks TLS only, for `localhost` and 127.0.0.1, and accepts clients with and without a
    /// certificate.
    pub(crate) fn tls() -> (RedisServer, Certificates) {
        RedisServer::with_tls("optional")
    }

    /// A server that speaks TLS only and refuses clients without a certificate.
    pub(crate) fn tls_with_client_auth() -> (RedisServer, Certificates) {
        RedisServer::with_tls("yes")
    }

    fn with_tls(client_auth: &str) -> (RedisServer, Certificates) {
        let (authority, ca_pem) = authority("the tests' authority");
        let (cert_pem, key_pem) = signed(&authority, "server", ExtendedKeyUsagePurpose::ServerAuth);
        let (client_cert_pem, client_key_pem) = signed(&authority, "client", ExtendedKeyUsagePurpose::ClientAuth);
        let (_, other_ca_pem) = self::authority("another authority");
        let mut server = RedisServer::launch(|place| {
            let file = |name: &str, text: &str| {
                let path = place.folder.join(name);
                fs::write(&path, text).unwrap();
                path.to_str().unwrap().to_owned()
            };
            let words = [
                ("--port", "0".to_owned()),
                ("--tls-port", place.port.to_string()),
                ("--tls-ca-cert-file", file("ca.pem", &ca_pem)),
                ("--tls-cert-file", file("cert.pem", &cert_pem)),
                ("--tls-key-file", file("key.pem", &key_pem)),
                ("--tls-auth-clients", client_auth.to_owned()),
            ];
            words.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
        });
        server.tls = true;
        (server, Certificates { ca_pem, client_cert_pem, client_key_pem, other_ca_pem })
    }

    /// Starts a server with these first arguments. Tries other ports when another process has taken them meanwhile.
    pub(crate) fn launch(arguments: impl Fn(&Place<'_>) -> Vec<String>) -> RedisServer {
        let mut log = String::new();
        for _ in 0..STARTS {
            let (port, bus) = (Port::free(), Port::free());
            let folder = tempfile::Builder::new().prefix("evertoken-redis-").tempdir().unwrap();
            let place = Place { port: port.0, bus: bus.0, folder: folder.path() };
            let mut arguments = arguments(&place);
            arguments.extend(common_arguments(folder.path()));
            match spawn(&arguments, folder.path()) {
                Ok(child) => {
                    let state = Mutex::new(State { child, running: true });
                    return RedisServer { state, arguments, port, bus, tls: false, folder };
                }
                Err(said) if said.contains(TAKEN_PORT) => log = said,
                Err(said) => panic!("redis-server does not start:\n{said}"),
            }
        }
        panic!("redis-server finds no free port:\n{log}");
    }
}

/// Addresses.
impl RedisServer {
    pub(crate) fn port(&self) -> u16 {
        self.port.0
    }

    pub(crate) fn bus_port(&self) -> u16 {
        self.bus.0
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port.0))
    }

    pub(crate) fn url(&self) -> String {
        if self.tls {
            format!("rediss://localhost:{}", self.port.0)
        } else {
            format!("redis://127.0.0.1:{}", self.port.0)
        }
    }

    pub(crate) fn unix_url(&self) -> String {
        format!("redis+unix://{}", self.socket().to_str().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.state().child.id()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Access to its data.
impl RedisServer {
    /// A connection over the socket, without TLS and without a proxy.
    pub(crate) fn connect(&self) -> redis::Connection {
        self.try_connect().unwrap()
    }

    fn try_connect(&self) -> redis::RedisResult<redis::Connection> {
        use redis::IntoConnectionInfo;
        let info = self.unix_url().into_connection_info()?;
        // The library's own greeting would be one more command for a test that counts commands.
        let quiet = info.redis_settings().clone().set_skip_set_lib_name();
        let client = redis::Client::open(info.set_redis_settings(quiet))?;
        let connection = client.get_connection_with_timeout(ANSWER)?;
        connection.set_read_timeout(Some(ANSWER))?;
        connection.set_write_timeout(Some(ANSWER))?;
        Ok(connection)
    }

    /// The reply to one command, on a connection of its own.
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query(&mut self.try_connect()?)
    }

    /// The number of commands so far, with those that scripts call. [`Monitor`] leaves those out.
    pub(crate) fn command_count(&self) -> u64 {
        let stats: String = self.ask(&["INFO", "stats"]).unwrap();
        field(&stats, "total_commands_processed").unwrap().parse().unwrap()
    }
}

/// Control of the process.
impl RedisServer {
    /// Suspends the server: its connections stay open, and it neither reads nor replies.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        signal(&state.child, libc::SIGSTOP);
        wait_until_stopped(&state.child);
        state.running = false;
    }

    /// Resumes a suspended server.
    pub(crate) fn go_on(&self) {
        let mut state = self.state();
        signal(&state.child, libc::SIGCONT);
        state.running = true;
    }

    /// Kills the server as a crash would. Its data is lost.
    pub(crate) fn kill(&self) {
        self.state().kill();
    }

    /// Starts the server again on the same port, with the same arguments and folder, and waits until it replies.
    pub(crate) fn restart(&self) {
        let mut state = self.state();
        state.kill();
        let asked = Instant::now();
        loop {
            match spawn(&self.arguments, self.folder.path()) {
                Ok(child) => break *state = State { child, running: true },
                Err(said) if said.contains(TAKEN_PORT) && asked.elapsed() < PATIENCE => pause(),
                Err(said) => panic!("redis-server does not start again:\n{said}"),
            }
        }
    }

    /// Whether the server is neither suspended nor killed.
    pub(crate) fn is_running(&self) -> bool {
        self.state().running
    }
}

impl State {
    fn kill(&mut self) {
        self.running = false;
        // SIGKILL ends a suspended process too. Both calls do nothing when it has ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.state().kill();
    }
}

/// Records the commands that clients send to a server, without those that scripts call and those of the monitor.
pub(crate) struct Monitor {
    seen: Arc<Seen>,
    socket: PathBuf,
}

#[derive(Default)]
struct Seen {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    commands: Vec<String>,
    marks: BTreeSet<String>,
    over: bool,
}

impl Monitor {
    /// A monitor of all commands from now on.
    pub(crate) fn of(server: &RedisServer) -> Monitor {
        let mut stream = open_socket(&server.socket()).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut first = String::new();
        reader.read_line(&mut first).unwrap();
        assert_eq!(first, "+OK\r\n");
        stream.set_read_timeout(None).unwrap();
        let seen = Arc::new(Seen::default());
        let watcher = Arc::downgrade(&seen);
        thread::spawn(move || {
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let Some(seen) = watcher.upgrade() else { return };
                seen.note(&String::from_utf8_lossy(&line));
                line.clear();
            }
            if let Some(seen) = watcher.upgrade() {
                seen.lines.lock().unwrap().over = true;
                seen.changed.notify_all();
            }
        });
        Monitor { seen, socket: server.socket() }
    }

    /// The words of all commands that the server had received before this call, oldest first, in upper case.
    pub(crate) fn commands(&self) -> Vec<String> {
        let mark = format!("{MARK}{:x}", fastrand::u128(..));
        // The server reports a command after its reply. When it has reported this one, it has reported all before.
        let sent = open_socket(&self.socket).and_then(|mut stream| {
            stream.write_all(format!("PING {mark}\r\n").as_bytes())?;
            stream.read(&mut [0; 64])
        });
        let lines = self.wait("the mark of the monitor", |lines| match sent {
            Ok(1..) => lines.over || lines.marks.contains(&mark),
            _ => lines.over,
        });
        lines.commands.clone()
    }

    /// Waits until there were `count` commands.
    pub(crate) fn wait_for(&self, count: usize) {
        drop(self.wait("more commands", |lines| lines.commands.len() >= count));
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Lines) -> bool) -> MutexGuard<'_, Lines> {
        let lines = self.seen.lines.lock().unwrap();
        let (lines, end) = self.seen.changed.wait_timeout_while(lines, PATIENCE, |lines| !is_so(lines)).unwrap();
        let commands = lines.commands.clone();
        if end.timed_out() {
            drop(lines);
            panic!("no {what} after {commands:?}");
        }
        lines
    }
}

impl Seen {
    /// Parses a line such as `+1700000000.000000 [0 127.0.0.1:50000] "GET" "key"`.
    fn note(&self, line: &str) {
        let mut lines = self.lines.lock().unwrap();
        let mut quoted = line.split('"').skip(1).step_by(2);
        let source = line.split(['[', ']']).nth(1).unwrap_or_default();
        let (command, argument) = (quoted.next().unwrap_or_default(), quoted.next().unwrap_or_default());
        if argument.starts_with(MARK) {
            lines.marks.insert(argument.to_owned());
        } else if !source.ends_with(" lua") && !command.is_empty() {
            lines.commands.push(command.to_uppercase());
        }
        self.changed.notify_all();
    }
}

/// Makes time pass: reduces the remaining time of every key on the server.
pub(crate) fn advance(server: &RedisServer, time: Duration) {
    for key in server.ask::<Vec<String>>(&["KEYS", "*"]).unwrap() {
        let left = server.ask::<i64>(&["PTTL", &key]).unwrap() - i64::try_from(time.as_millis()).unwrap();
        if left > 0 {
            server.ask::<()>(&["PEXPIRE", &key, &left.to_string()]).unwrap();
        } else {
            server.ask::<()>(&["DEL", &key]).unwrap();
        }
    }
}

/// Polls until `is_so` returns true.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let asked = Instant::now();
    while !is_so() {
        assert!(asked.elapsed() < PATIENCE, "{what}");
        pause();
    }
}

/// The value of a line `name:value` in the reply to INFO or CLUSTER INFO.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}

/// A free port, reserved among the tests of this process. The port comes from below the range of outgoing connections,
/// which could otherwise take the port of a server that starts again.
struct Port(u16);

static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

impl Port {
    fn free() -> Port {
        loop {
            let port = fastrand::u16(12_000..32_000);
            if TcpListener::bind(("127.0.0.1", port)).is_ok() && taken().insert(port) {
                return Port(port);
            }
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        taken().remove(&self.0);
    }
}

fn taken() -> MutexGuard<'static, BTreeSet<u16>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn common_arguments(folder: &Path) -> Vec<String> {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let words = [
        ("--bind", "127.0.0.1".to_owned()),
        ("--unixsocket", path(SOCKET)),
        ("--dir", path("")),
        ("--logfile", path(LOG)),
        ("--save", String::new()),
        ("--appendonly", "no".to_owned()),
        ("--daemonize", "no".to_owned()),
    ];
    words.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

/// Starts a server and waits until it replies. The error has the server's own output.
fn spawn(arguments: &[String], folder: &Path) -> Result<Child, String> {
    let socket = folder.join(SOCKET);
    // The socket of a server that was killed.
    let _ = fs::remove_file(&socket);
    let _ = fs::remove_file(folder.join(LOG));
    let output = File::create(folder.join(OUTPUT)).unwrap();
    let mut command = Command::new("redis-server");
    command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => panic!("redis-server: {error}; `bash tests/run.sh` installs it"),
    };
    let asked = Instant::now();
    // The socket belongs to this server alone and is opened after its ports, so no other process can reply there.
    while !answers(&socket) {
        let ended = child.try_wait().unwrap().is_some();
        if ended || asked.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(tail(folder));
        }
        pause();
    }
    Ok(child)
}

/// Whether a server replies and has loaded its data. A server that asks for a password replies as well.
fn answers(socket: &Path) -> bool {
    let mut reply = [0; 64];
    let read = open_socket(socket).and_then(|mut stream| {
        stream.write_all(b"PING\r\n")?;
        stream.read(&mut reply)
    });
    read.is_ok_and(|read| read > 0 && !reply.starts_with(b"-LOADING"))
}

fn open_socket(path: &Path) -> std::io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// The last lines of a server's output.
fn tail(folder: &Path) -> String {
    let said = [OUTPUT, LOG].map(|name| fs::read_to_string(folder.join(name)).unwrap_or_default()).concat();
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

fn pause() {
    thread::sleep(Duration::from_millis(5));
}

fn signal(child: &Child, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: a plain system call. The child has not been waited for, so its id is still its own.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "{}", std::io::Error::last_os_error());
}

/// Waits until the process is suspended. A signal takes a moment to arrive, and the server could reply meanwhile.
fn wait_until_stopped(child: &Child) {
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // WNOWAIT leaves the exit status of a child to `Child`.
    let what = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
    // SAFETY: `info` outlives the call.
    assert_eq!(unsafe { libc::waitid(libc::P_PID, child.id(), &raw mut info, what) }, 0);
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// A certificate for this machine and its key.
fn signed(authority: &Issuer<'_, KeyPair>, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
    let mut params = CertificateParams::new(["localhost", "127.0.0.1"].map(str::to_owned)).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

const SOCKET: &str = "redis.sock";
const LOG: &str = "log";
const OUTPUT: &str = "output";
/// The number of log lines that a panic shows.
const TAIL: usize = 20;
/// The log line for a port that another process has.
const TAKEN_PORT: &str = "Address already in use";
/// The first characters of the argument of the monitor's own commands.
const MARK: &str = "monitor-";
