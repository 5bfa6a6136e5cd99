//! Processes that share refresh tokens and tickets over a Redis, and the commands that they obey.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use evertoken::clock::Notifier;
use evertoken::provider::dingtalk::{DingTalkAuthorizedCorp, DingTalkSuite};
use evertoken::provider::wecom::WeComSuite;
use evertoken::provider::{
    Context, Grant, Identity, Profile, Provider, RenewalProfile, ServiceResponse, TokenPlacement, TokenSource,
};
use evertoken::store::{
    Cursor, Entry, Expected, Key, LeaseOutcome, LeaseOwner, PublishOutcome, Store, Subscription, SwapOutcome, Version,
};
use evertoken::testing::FakeVendor;
use evertoken::{Error, EventKind, HttpConfig, OAuth2, RedisStore, RefreshToken, Token, TokenManager, Verdict, WeChat};

use crate::common::alone::test_of;
use crate::common::process::{Process, each};
use crate::common::proxy::Proxy;
use crate::common::redis_server::{RedisServer, until};
use crate::common::wait::*;

/// A result within this time was announced, and not found by a periodic check.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Runs a test that starts processes of its own. Such a process obeys the commands of the test instead.
pub(crate) fn play(test: impl FnOnce(&Stage)) {
    let name = test_of(&test);
    match crate::common::process::port() {
        Some(port) => act(&port),
        None => test(&Stage { name, server: RedisServer::start() }),
    }
}

/// The server that the processes of a test share, and the name of the test.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) server: RedisServer,
}

impl Stage {
    pub(crate) fn of(&self, kind: Kind, host: &FakeVendor) -> Share {
        Share { redis: self.server.url(), kind, url: host.url() }
    }

    /// Starts `count` processes, each with a manager that `share` describes.
    pub(crate) fn sharing(&self, count: usize, share: &Share) -> Vec<Process> {
        let mut processes: Vec<_> = (0..count).map(|_| Process::start(self.name)).collect();
        let share = format!("share {}", serde_json::to_string(share).unwrap());
        assert!(each(&mut processes, &share).iter().all(|answer| answer == "ok"));
        processes
    }

    pub(crate) fn keys(&self, pattern: &str) -> Vec<String> {
        self.server.ask(&["KEYS", pattern]).unwrap()
    }

    /// The key of the only renewal secret.
    pub(crate) fn state_key(&self) -> String {
        let keys = self.keys("*:state");
        assert_eq!(keys.len(), 1, "{keys:?}");
        keys[0].clone()
    }

    pub(crate) fn value(&self, key: &str) -> serde_json::Value {
        serde_json::from_str(&self.server.ask::<String>(&["GET", key]).unwrap()).unwrap()
    }

    /// The only renewal secret.
    pub(crate) fn stored(&self) -> String {
        match &self.keys("*:state")[..] {
            [] => String::new(),
            _ => self.value(&self.state_key())["state"].as_str().unwrap().to_owned(),
        }
    }

    /// The owner of the lease of the only record, a name that ends with the id of its process.
    pub(crate) fn lease_holder(&self) -> Option<String> {
        let leases = self.keys("*:lock");
        // The lease may be freed meanwhile.
        leases.first().and_then(|lease| self.server.ask(&["GET", lease]).unwrap())
    }

    /// Several new processes force a refresh at the same moment. All results are valid.
    pub(crate) fn renew_at_once(&self, share: &Share, host: &FakeVendor) {
        let mut processes = self.sharing(4, share);
        each(&mut processes, "ask");
        let answers = each(&mut processes, "renew-once");
        assert!(answers.iter().all(|answer| host.is_valid(answer)), "{answers:?}");
    }

    /// A refresh token that a process receives during an outage is stored when the store is back.
    pub(crate) fn outlives(&self, go: impl Fn(&RedisServer, &Proxy), come: impl Fn(&RedisServer, &Proxy)) {
        let host = FakeVendor::oauth2();
        let way = Proxy::to(self.server.addr());
        let share = Share { redis: way.url(), ..self.of(Kind::RefreshToken, &host) };
        let mut one = self.sharing(1, &share).remove(0);
        assert_eq!(one.ask("ask"), "token-1");
        one.stop_with_the_next_token("renew-once");
        assert_eq!(self.stored(), "refresh-2");
        go(&self.server, &way);
        one.go_on();
        assert_eq!(one.read_line(), "token-2", "it is handed out all the same");
        assert_eq!(one.ask("unsaved"), "ok");
        for _ in 0..3 {
            let answer = one.ask("renew-once");
            assert!(answer.starts_with("Store: "), "{answer}");
            assert_eq!(one.ask("ask"), "token-2");
        }
        assert_eq!(host.calls(), 2, "nothing is fetched that could not be stored");
        come(&self.server, &way);
        let back = Instant::now();
        until("the renewal secret is stored", || self.stored() == "refresh-3");
        assert!(back.elapsed() < SOON, "{:?}", back.elapsed());
        let mut other = self.sharing(1, &share).remove(0);
        assert_eq!(other.ask("fetch"), "token-3");
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2", "refresh-3"]);
    }
}

impl Process {
    /// Makes the process stop at this command once the provider has replied.
    pub(crate) fn stop_with_the_next_token(&mut self, what: &str) {
        assert_eq!(self.ask("stop-with-the-next-token"), "ok");
        self.send_line(what);
        self.wait_until_stopped();
    }
}

/// A token that no process had before.
#[cfg(feature = "redis-cluster")]
pub(crate) fn fetched(tokens: &TokenManager) -> String {
    tokens.invalidate().unwrap();
    text(tokens)
}

/// Asserts that no refresh token was used twice. Returns the number of uses.
pub(crate) fn each_was_used_once(host: &FakeVendor) -> usize {
    let used = host.used_refresh_tokens();
    let once: BTreeSet<_> = used.iter().collect();
    assert_eq!(once.len(), used.len(), "{used:?}");
    used.len()
}

/// The valid refresh token, if none was refused.
pub(crate) fn latest(host: &FakeVendor) -> String {
    format!("refresh-{}", host.used_refresh_tokens().len() + 1)
}

/// The values that were sent under this name, oldest first.
pub(crate) fn presented(host: &FakeVendor, name: &str) -> Vec<String> {
    host.requests().iter().filter_map(|request| request.json(name)).collect()
}

/// The number of requests that forced a refresh.
pub(crate) fn forced(host: &FakeVendor) -> usize {
    let wanted = |body: &[u8]| String::from_utf8_lossy(body).contains(r#""force_refresh":true"#);
    host.requests().iter().filter(|request| wanted(request.body())).count()
}

pub(crate) fn tag(key: &str) -> &str {
    key.split(['{', '}']).nth(1).unwrap()
}

/// Whether a result is an error that a caller can handle.
pub(crate) fn is_typed(answer: &str) -> bool {
    ["SignInRequired: ", "InvalidCredentials: ", "Store: ", "TimedOut: "].iter().any(|kind| answer.starts_with(kind))
}

/// The manager of a process: its store and its credential.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Share {
    pub(crate) redis: String,
    pub(crate) kind: Kind,
    pub(crate) url: String,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(crate) enum Kind {
    RefreshToken,
    /// A refresh token, for access tokens of this scope.
    Scope(String),
    WeComSuite,
    DingTalkSuite,
    DingTalkCorp(String),
    WeChat,
}

pub(crate) fn provider_of(kind: &Kind, url: &str) -> Box<dyn Provider> {
    let client = || OAuth2::new(format!("{url}/token"), "client", "secret");
    match kind {
        Kind::RefreshToken => Box::new(RefreshToken::new(client(), "refresh-1")),
        Kind::Scope(scope) => Box::new(RefreshToken::new(client().scope(scope), "refresh-1")),
        Kind::WeComSuite => Box::new(WeComSuite::new("suite", "suite-secret").base_url(url)),
        Kind::DingTalkSuite => Box::new(DingTalkSuite::new("suite", "suite-secret").base_url(url)),
        Kind::DingTalkCorp(corp) => Box::new(DingTalkAuthorizedCorp::new("suite", "suite-secret", corp).base_url(url)),
        Kind::WeChat => Box::new(WeChat::new("app", "secret").base_url(url)),
    }
}

/// The observations of a process that asked for tokens for a while.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Report {
    pub(crate) calls: usize,
    /// The number of different tokens.
    pub(crate) tokens: usize,
    pub(crate) errors: Vec<String>,
}

/// Obeys commands until the test closes the connection.
pub(crate) fn act(port: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let stops = Arc::new(AtomicU8::new(NEVER));
    let mut shared = None;
    while let Some(Ok(line)) = lines.next() {
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        if verb == "share" {
            let share: Share = serde_json::from_str(rest).unwrap();
            let inner = provider_of(&share.kind, &share.url);
            let tokens = TokenManager::builder(Stopping { inner, stops: stops.clone() })
                .store(StoppingStore { inner: RedisStore::open(&share.redis).unwrap(), stops: stops.clone() })
                .http(HttpConfig::default().timeout(FETCH))
                .store_check_interval(Duration::from_millis(200))
                .build()
                .unwrap();
            let events = tokens.events();
            shared = Some((tokens, events));
        }
        let (tokens, events) = shared.as_ref().expect("it shares");
        let said = |answer: Result<Token, Error>| match answer {
            Ok(token) => token.expose().to_owned(),
            Err(error) => format!("{:?}: {error}", error.kind()),
        };
        let answer = match verb {
            "share" => "ok".to_owned(),
            "stop-before-asking" => {
                stops.store(BEFORE, Ordering::SeqCst);
                "ok".to_owned()
            }
            "stop-before-storing" => {
                stops.store(STORING, Ordering::SeqCst);
                "ok".to_owned()
            }
            "stop-with-the-next-token" => {
                stops.store(AFTER, Ordering::SeqCst);
                "ok".to_owned()
            }
            "ask" => said(tokens.token()),
            "renew-once" => said(tokens.force_refresh()),
            "fetch" => {
                // Without the store only this process forgets the token.
                drop(tokens.invalidate());
                said(tokens.token())
            }
            "use" => repeat(|| tokens.token(), || lines.next()),
            "renew" => repeat(|| tokens.force_refresh(), || lines.next()),
            "ticket" => tokens.set_ticket(rest).map_or_else(|error| said(Err(error)), |()| "ok".to_owned()),
            "unsaved" => {
                wait_for(events, |kind| matches!(kind, EventKind::RenewalSecretNotStored { .. }).then_some(()));
                "ok".to_owned()
            }
            _ => panic!("{verb}?"),
        };
        writeln!(stream, "{answer}").unwrap();
    }
}

/// Repeats a call until `wait` returns. The observations as one line.
pub(crate) fn repeat<T>(ask: impl Fn() -> Result<Token, Error> + Sync, wait: impl FnOnce() -> T) -> String {
    let (over, mut report, mut tokens) = (AtomicBool::new(false), Report::default(), BTreeSet::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                report.calls += 1;
                match ask() {
                    Ok(token) => drop(tokens.insert(token.expose().to_owned())),
                    Err(error) => report.errors.push(error.to_string()),
                }
                // The loop makes a load and no race: the test is about refreshes.
                thread::sleep(Duration::from_millis(5));
            }
        });
        wait();
        over.store(true, Ordering::SeqCst);
    });
    report.tokens = tokens.len();
    serde_json::to_string(&report).unwrap()
}

/// A provider that stops its own process before its request or after the reply when a flag is set.
pub(crate) struct Stopping {
    pub(crate) inner: Box<dyn Provider>,
    pub(crate) stops: Arc<AtomicU8>,
}

/// A store that stops its own process when a renewal secret is to be stored and a flag is set.
#[derive(Debug)]
pub(crate) struct StoppingStore {
    pub(crate) inner: RedisStore,
    pub(crate) stops: Arc<AtomicU8>,
}

pub(crate) const NEVER: u8 = 0;

pub(crate) const BEFORE: u8 = 1;

pub(crate) const AFTER: u8 = 2;

pub(crate) const STORING: u8 = 3;

pub(crate) fn stop_if_set(stops: &AtomicU8, when: u8) {
    if stops.compare_exchange(when, NEVER, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
        // SAFETY: stops this process, which the test resumes.
        unsafe { libc::raise(libc::SIGSTOP) };
    }
}

impl Provider for Stopping {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        stop_if_set(&self.stops, BEFORE);
        let grant = self.inner.fetch(context)?;
        stop_if_set(&self.stops, AFTER);
        Ok(grant)
    }

    fn check(&self) -> Result<(), Error> {
        self.inner.check()
    }

    fn profile(&self) -> Profile {
        self.inner.profile()
    }

    fn parent(&self) -> Option<&dyn TokenSource> {
        self.inner.parent()
    }

    fn renewal(&self) -> Option<RenewalProfile> {
        self.inner.renewal()
    }

    fn placement(&self) -> TokenPlacement {
        self.inner.placement()
    }

    fn verdict(&self, answer: &ServiceResponse<'_>) -> Verdict {
        self.inner.verdict(answer)
    }
}

impl Store for StoppingStore {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.inner.read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        if key.as_str().ends_with(":state") {
            stop_if_set(&self.stops, STORING);
        }
        self.inner.compare_and_swap(key, expected, new)
    }

    fn read_or_lease(
        &self,
        key: &Key,
        not: Option<&Version>,
        at_least: Duration,
        owner: &LeaseOwner,
        lease: Duration,
    ) -> Result<LeaseOutcome, Error> {
        self.inner.read_or_lease(key, not, at_least, owner, lease)
    }

    fn publish(
        &self,
        key: &Key,
        owner: &LeaseOwner,
        seen: Option<&Version>,
        bytes: &[u8],
        life: Duration,
    ) -> Result<PublishOutcome, Error> {
        self.inner.publish(key, owner, seen, bytes, life)
    }

    fn wait(&self, key: &Key, cursor: &Cursor, deadline: Instant) -> Result<(), Error> {
        self.inner.wait(key, cursor, deadline)
    }

    fn watch(&self, key: &Key, notifier: Notifier) -> Option<Subscription> {
        self.inner.watch(key, notifier)
    }

    fn logs_outages(&self) -> bool {
        self.inner.logs_outages()
    }
}

/// Records all commands that a server receives, word by word.
pub(crate) struct CommandLog(BufReader<TcpStream>);

/// A command, and whether a script called it.
pub(crate) struct ReceivedCommand {
    pub(crate) by_script: bool,
    pub(crate) words: Vec<String>,
}

impl CommandLog {
    pub(crate) fn of(server: &RedisServer) -> CommandLog {
        let mut stream = TcpStream::connect(server.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first).unwrap();
        assert_eq!(first, "+OK\r\n");
        CommandLog(reader)
    }

    /// All commands until now.
    pub(crate) fn commands(mut self, server: &RedisServer) -> Vec<ReceivedCommand> {
        server.ask::<String>(&["ECHO", "the end"]).unwrap();
        let mut commands = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0);
            let by_script = line.split(['[', ']']).nth(1).unwrap().ends_with(" lua");
            let words = words_of(&line);
            if words == ["ECHO", "the end"] {
                return commands;
            }
            commands.push(ReceivedCommand { by_script, words });
        }
    }
}

/// The words of a line such as `+1700000000.000000 [0 127.0.0.1:50000] "GET" "a \"key\""`.
pub(crate) fn words_of(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_inside) = (Vec::new(), String::new(), false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_inside => {
                words.push(std::mem::take(&mut word));
                is_inside = false;
            }
            '"' => is_inside = true,
            '\\' if is_inside => word.extend(letters.next()),
            _ if is_inside => word.push(letter),
            _ => {}
        }
    }
    words
}

/// The time limit of one fetch. A lease lasts two seconds longer.
pub(crate) const FETCH: Duration = Duration::from_secs(1);

pub(crate) const HALF_AN_HOUR: Duration = Duration::from_secs(1800);
