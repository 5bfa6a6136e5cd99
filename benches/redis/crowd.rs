//! There is no token: 8 processes with 50 threads each call `token()` at the same moment.
//!
//! Each process is this program, started again. The baseline is a widespread design: nothing in memory, a `GET` for
//! each call, a lock of 30 s with `SET NX EX`, and a poll every 100 to 300 ms while another process has the lock.

use std::env;
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evertoken::provider::{Context, Grant, Provider};
use evertoken::testing::{FakeVendor, context};
use evertoken::{Error, OAuth2, RedisStore, TokenManager, provider};

use crate::common::{Table, median};
use crate::plain;
use crate::redis_server::{Monitor, RedisServer};

pub(crate) fn measure(server: &RedisServer) {
    let title =
        format!("{PROCESSES} processes x {THREADS} threads, there is no token, a fetch takes 100 ms, {ROUNDS} rounds");
    let mut table = Table::new(&title);
    let [mut ours, mut theirs, mut least] = [const { Rounds { rounds: Vec::new() } }; 3];
    for round in 0..ROUNDS {
        ours.add(one_round(server, OURS, round));
        theirs.add(one_round(server, LOCK_AND_POLL, round));
        least.add(one_round(server, LEAST, round));
    }
    let in_time = ours.in_time();
    let show = |wait: f64| format!("{wait:.1} ms");
    let (fetches, commands, typical) =
        (ours.most(|round| round.fetches), ours.most(|round| round.commands), ours.typical(0.99));
    table.figure(
        "fetches per round, at most (baseline: lock and poll)",
        fetches,
        Some(theirs.most(|round| round.fetches).to_string()),
        "1",
        fetches == 1,
    );
    table.figure(
        "commands per round, at most",
        commands,
        Some(theirs.most(|round| round.commands).to_string()),
        "<= 40",
        commands <= 40,
    );
    table.figure(
        "callers served within 15 ms, all rounds",
        format!("{in_time:.2} %"),
        Some(format!("{:.2} %", theirs.in_time())),
        ">= 99 %",
        in_time >= 99.0,
    );
    table.figure(
        "99 % are served within, median of the rounds",
        show(typical),
        Some(show(theirs.typical(0.99))),
        "<= 15 ms",
        typical <= 15.0,
    );
    let mut both = |name: &str, of: &dyn Fn(&Rounds) -> f64| table.compare(name, show(of(&ours)), show(of(&theirs)));
    both("the same, in the worst round", &|all| all.worst(0.99));
    both("half are served within, median of the rounds", &|all| all.typical(0.5));
    both("all are served within, median of the rounds", &|all| all.typical(1.0));
    both("first caller of a process without the lease, median", &|all| median(all.firsts()));
    let both = [0.5, 0.99].map(|part| show(least.typical(part))).join(", ");
    table.note("half and 99 % with the simplest possible program", both);
    table.note("from the provider's reply to the record, median", show(ours.recording()));
    table.end();
}

struct Rounds {
    rounds: Vec<Round>,
}

struct Round {
    fetches: usize,
    commands: usize,
    /// Milliseconds from the provider's reply to the record in Redis.
    recording: f64,
    /// Milliseconds from the record to the token, for each caller, the shortest first. Redis states whole milliseconds,
    /// so the true values may be up to one millisecond less.
    waits: Vec<f64>,
    /// The same, for the first caller of each process that did not fetch.
    firsts: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, mut round: Round) {
        round.waits.sort_by(f64::total_cmp);
        self.rounds.push(round);
    }

    fn most(&self, of: impl Fn(&Round) -> usize) -> usize {
        self.rounds.iter().map(of).max().unwrap()
    }

    /// Returns the percentage of callers that were served within 15 ms.
    fn in_time(&self) -> f64 {
        let waits: Vec<_> = self.rounds.iter().flat_map(|round| &round.waits).collect();
        100.0 * waits.iter().filter(|wait| ***wait <= 15.0).count() as f64 / waits.len() as f64
    }

    fn typical(&self, part: f64) -> f64 {
        median(self.quantiles(part))
    }

    fn worst(&self, part: f64) -> f64 {
        self.quantiles(part).into_iter().fold(0.0, f64::max)
    }

    fn quantiles(&self, part: f64) -> Vec<f64> {
        self.rounds.iter().map(|round| round.waits[((round.waits.len() - 1) as f64 * part) as usize]).collect()
    }

    fn firsts(&self) -> Vec<f64> {
        self.rounds.iter().flat_map(|round| &round.firsts).copied().collect()
    }

    fn recording(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.recording).collect())
    }
}

/// Runs one round, with keys of its own.
fn one_round(server: &RedisServer, way: &str, round: usize) -> Round {
    let host = FakeVendor::oauth2().delay(Duration::from_millis(100));
    let mut members: Vec<_> =
        (0..PROCESSES).map(|_| Member::start(way, &server.url(), &host.token_url(), round)).collect();
    members.iter_mut().for_each(Member::wait_until_ready);
    let monitor = Monitor::of(server);
    members.iter_mut().for_each(Member::go);
    members.iter_mut().for_each(Member::wait_until_served);
    let reports: Vec<_> = members.into_iter().map(Member::report).collect();
    let commands = monitor.commands().len();
    let answered = reports.iter().flat_map(|report| &report.fetched).copied().min().unwrap();
    // The baseline design announces nothing, and writes the record at once.
    let recorded = recorded_at(server, way, round).unwrap_or(answered);
    let since = |from: u64, to: u64| (to as f64 - from as f64) / 1e6;
    let wait = |served: &u64| since(recorded, *served);
    let others = reports.iter().filter(|report| report.fetched.is_empty());
    Round {
        fetches: host.calls(),
        commands,
        recording: since(answered, recorded),
        waits: reports.iter().flat_map(|report| &report.served).map(wait).collect(),
        firsts: others.map(|report| wait(report.served.iter().min().unwrap())).collect(),
    }
}

/// Returns when the record was written, by the clock of Redis, which is the clock of this machine.
///
/// The id of the stream entry that announces the record begins with this time. `None` when nothing was announced.
fn recorded_at(server: &RedisServer, way: &str, round: usize) -> Option<u64> {
    let streams: Vec<String> = server.ask(&["KEYS", &format!("{way}-{round}:*:news")]).unwrap();
    let news: Vec<(String, Vec<String>)> = server.ask(&["XRANGE", streams.first()?, "-", "+"]).unwrap();
    let milliseconds: u64 = news.last()?.0.split('-').next()?.parse().unwrap();
    Some(milliseconds * 1_000_000)
}

// ---- a process, controlled from outside -----------------------------------------------------------------------------

struct Member {
    child: Child,
    says: BufReader<ChildStdout>,
}

/// The times that a process reports, in nanoseconds since the epoch, because processes share the wall clock.
struct Report {
    /// When this process got a reply of the provider.
    fetched: Vec<u64>,
    /// When each caller got a token.
    served: Vec<u64>,
}

impl Member {
    fn start(way: &str, redis: &str, host: &str, round: usize) -> Member {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([MEMBER, way, redis, host, &round.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        Member { child, says }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line
    }

    fn wait_until_ready(&mut self) {
        assert_eq!(self.line(), "ready\n");
    }

    fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    fn wait_until_served(&mut self) {
        assert_eq!(self.line(), "served\n");
    }

    fn report(mut self) -> Report {
        // A process may end only when all callers of all processes are served, because its end would delay the others.
        self.child.stdin.as_mut().unwrap().write_all(b"end\n").unwrap();
        let mut times = || self.line().split_whitespace().map(|time| time.parse().unwrap()).collect();
        let report = Report { fetched: times(), served: times() };
        assert!(self.child.wait().unwrap().success());
        assert_eq!(report.served.len(), THREADS);
        report
    }
}

// ---- the work of a process ------------------------------------------------------------------------------------------

pub(crate) fn be_a_member(way: &str, redis: &str, host: &str, round: &str) {
    let fetched = Arc::new(Mutex::new(Vec::new()));
    let oauth = OAuth2::new(host, "client", "secret");
    let note = fetched.clone();
    let fetch = move |context: &Context| {
        let grant = oauth.fetch(context);
        note.lock().unwrap().push(now());
        grant
    };
    let namespace = format!("{way}-{round}");
    let served = match way {
        OURS => {
            let store = RedisStore::open(redis).unwrap();
            let provider = provider::from_fn("crowd", fetch);
            let manager = TokenManager::builder(provider).store(store).namespace(&namespace).build().unwrap();
            all_at_once(|| (), |()| drop(manager.token().unwrap()))
        }
        LEAST => {
            let connection = Mutex::new(Some(plain::connect(redis)));
            let least =
                Least { key: namespace, fetch, connection, is_there: Mutex::new(false), changed: Condvar::new() };
            all_at_once(|| (), |()| least.token())
        }
        _ => {
            let polling = LockAndPoll { key: namespace, fetch };
            // Connects before the start, because the benchmark does not compare connecting.
            all_at_once(|| plain::connect(redis), |connection| drop(polling.token(connection)))
        }
    };
    let fetched = fetched.lock().unwrap();
    for times in [&*fetched, &served] {
        println!("{}", times.iter().map(u64::to_string).collect::<Vec<_>>().join(" "));
    }
}

/// Makes all threads call at the moment when the parent process says so. Returns the times at which they were served,
/// after the parent process has said so.
fn all_at_once<T>(prepare: impl Fn() -> T + Sync, call: impl Fn(&mut T) + Sync) -> Vec<u64> {
    let (ready, start) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    let (served, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = || {
        let mut own = prepare();
        ready.wait();
        start.wait();
        call(&mut own);
        let at = now();
        if served.fetch_add(1, Ordering::SeqCst) + 1 == THREADS {
            say("served");
        }
        while !ended.load(Ordering::SeqCst) {
            thread::park();
        }
        at
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
        ready.wait();
        say("ready");
        hear();
        start.wait();
        hear();
        ended.store(true, Ordering::SeqCst);
        callers.iter().for_each(|caller| caller.thread().unpark());
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    })
}

/// Sends a line to the parent process.
fn say(word: &str) {
    println!("{word}");
    stdout().flush().unwrap();
}

/// Waits for a line from the parent process.
fn hear() {
    stdin().read_line(&mut String::new()).unwrap();
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// The widespread design that serves as the baseline.
struct LockAndPoll<F> {
    key: String,
    fetch: F,
}

impl<F: Fn(&Context) -> Result<Grant, Error>> LockAndPoll<F> {
    fn token(&self, connection: &mut redis::Connection) -> String {
        if let Some(token) = plain::get(connection, &self.key) {
            return token;
        }
        if plain::set_new(connection, &format!("{}:lock", self.key), "locked", 30) {
            let grant = (self.fetch)(&context(Duration::from_secs(5))).unwrap();
            plain::set(connection, &self.key, grant.token().expose(), 7080);
            return grant.token().expose().to_owned();
        }
        let mut attempt = 0;
        loop {
            if let Some(token) = plain::get(connection, &self.key) {
                return token;
            }
            attempt += 1;
            thread::sleep(Duration::from_millis(100 + (attempt * 37) % 200));
        }
    }
}

/// The best that this machine can do, without any handling of faults: one caller of each process asks Redis, and waits
/// for the record of another process on the connection that is already open.
struct Least<F> {
    key: String,
    fetch: F,
    connection: Mutex<Option<redis::Connection>>,
    is_there: Mutex<bool>,
    changed: Condvar,
}

impl<F: Fn(&Context) -> Result<Grant, Error>> Least<F> {
    fn token(&self) {
        let connection = self.connection.lock().unwrap().take();
        if let Some(connection) = connection {
            self.ask(connection);
            *self.is_there.lock().unwrap() = true;
            self.changed.notify_all();
        } else {
            let is_there = self.is_there.lock().unwrap();
            drop(self.changed.wait_while(is_there, |is_there| !*is_there).unwrap());
        }
    }

    fn ask(&self, mut connection: redis::Connection) {
        let news = format!("{}:least:news", self.key);
        if plain::set_new(&mut connection, &format!("{}:lock", self.key), "locked", 30) {
            let grant = (self.fetch)(&context(Duration::from_secs(5))).unwrap();
            plain::set(&mut connection, &self.key, grant.token().expose(), 7080);
            redis::cmd("XADD").arg(&[&news, "*", "new", "1"]).exec(&mut connection).unwrap();
        } else {
            let wait = ["COUNT", "1", "BLOCK", "4000", "STREAMS", &news, "0"];
            redis::cmd("XREAD").arg(&wait).exec(&mut connection).unwrap();
            plain::get(&mut connection, &self.key).unwrap();
        }
    }
}

/// The first argument of a started process.
pub(crate) const MEMBER: &str = "member-of-the-crowd";
const OURS: &str = "ours";
const LEAST: &str = "least";
const LOCK_AND_POLL: &str = "lock-and-poll";

const PROCESSES: usize = 8;
const THREADS: usize = 50;

/// An odd number, so that the median is one of the values.
const ROUNDS: usize = 21;
