//! Faults of files and of the second store that a second attack found, and that were mended.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::fragile::{AtHand, Fragile};
use crate::common::two_stores::Host;
use crate::common::wait::*;
use evertoken::idempotency::{Idempotency, Outcome};
use evertoken::provider::Grant;
use evertoken::store::{Entry, Expected, Key, LeaseOutcome, LeaseOwner, Store, SwapOutcome, Version};
use evertoken::testing::{FakeClock, FakeProvider, FakeVendor};
use evertoken::{Error, ErrorKind, EventKind, FileStore, MemoryStore, OAuth2, RefreshToken, TokenManager, WeCom};

type Act = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A store before one of whose operations somebody else does something.
#[derive(Clone)]
struct Raced {
    inner: Fragile,
    /// Counts down to the operation before which it is done.
    before: Arc<AtomicUsize>,
    act: Act,
}

impl std::fmt::Debug for Raced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Raced")
    }
}

impl Raced {
    fn step(&self) {
        if self.act.lock().unwrap().is_some() && self.before.fetch_sub(1, Ordering::SeqCst) == 1 {
            let act = self.act.lock().unwrap().take();
            act.unwrap()();
        }
    }
}

impl Store for Raced {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.step();
        self.inner.read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        self.step();
        self.inner.compare_and_swap(key, expected, new)
    }
}

/// "Newer wins": another host records a new token after the first store was read and found to have nothing of use.
#[test]
fn promise_7_a_newer_token_that_another_host_fetches_meanwhile_is_not_replaced_by_that_of_the_second_store() {
    let mut lost = Vec::new();
    let mut raced_at_all = 0;
    for operation in 1..=4 {
        let host = Host::of(FakeProvider::new());
        // What is recorded in the first store is of no use, and read all the same.
        let other = host.elsewhere();
        other.reject(&other.token().unwrap()).unwrap();
        host.break_first(true);
        assert_eq!(text(&host.manager()), "token-2");
        host.break_first(false);
        host.clock.advance(60 * SECOND);
        let raced =
            Raced { inner: host.first.clone(), before: Arc::new(AtomicUsize::new(operation)), act: Act::default() };
        *raced.act.lock().unwrap() = Some(Box::new(move || assert_eq!(text(&other), "token-3")));
        let next = builder(&host.provider, &host.clock).store(raced.clone());
        let next = next.fallback_store(host.second.clone()).build().unwrap();
        let got = next.token_within(5 * SECOND).map(|token| token.expose().to_owned());
        raced_at_all += usize::from(raced.act.lock().unwrap().is_none());
        let recorded = host.recorded(&host.first);
        if raced.act.lock().unwrap().is_none() && !recorded.contains("token-3") {
            lost.push(format!("operation {operation}: got {got:?}, recorded {recorded}"));
        }
    }
    assert!(raced_at_all >= 3, "{raced_at_all}");
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

/// The same while the lease is held: another host hands in what it had fetched without the store.
#[test]
fn promise_7_a_newer_token_that_another_host_hands_in_is_not_replaced_by_that_of_the_second_store() {
    let host = Host::of(FakeProvider::new());
    host.break_first(true);
    assert_eq!(text(&host.manager()), "token-1");
    host.break_first(false);
    host.clock.advance(60 * SECOND);
    // The bytes of a newer record.
    let spare = MemoryStore::with_clock(host.clock.clone());
    let newer = builder(&host.provider, &host.clock).store(spare.clone()).build().unwrap();
    assert_eq!(text(&newer), "token-2");
    let entry = spare.read(newer.key()).unwrap().unwrap();
    // Before the last look at the first store: what that sees is to be heeded.
    let raced = Raced { inner: host.first.clone(), before: Arc::new(AtomicUsize::new(4)), act: Act::default() };
    let (first, key) = (host.first.inner.clone(), newer.key().clone());
    *raced.act.lock().unwrap() = Some(Box::new(move || {
        first.compare_and_swap(&key, Expected::Absent, Some((entry.bytes(), entry.remaining()))).unwrap();
    }));
    let next = builder(&host.provider, &host.clock).store(raced.clone());
    let next = next.fallback_store(host.second.clone()).build().unwrap();
    let got = text(&next);
    assert!(raced.act.lock().unwrap().is_none(), "the race was had");
    let recorded = host.recorded(&host.first);
    assert!(recorded.contains("token-2"), "got {got}, recorded {recorded}");
}

/// It writes it to the first store, which was found empty and leased, and removes it from the second.
#[test]
fn what_another_process_brings_over_just_then_is_not_fetched_again_and_leaves_no_lease_behind() {
    let host = Host::new();
    host.break_first(true);
    assert_eq!(text(&host.manager()), "token-1");
    host.break_first(false);
    let raced = Raced { inner: host.second.clone(), before: Arc::new(AtomicUsize::new(1)), act: Act::default() };
    let (first, second) = (host.first.inner.clone(), host.second.inner.clone());
    *raced.act.lock().unwrap() = Some(Box::new(move || {
        let entry = second.read(&key()).unwrap().unwrap();
        first.compare_and_swap(&key(), Expected::Absent, Some((entry.bytes(), entry.remaining()))).unwrap();
        second.compare_and_swap(&key(), Expected::Version(entry.version()), None).unwrap();
    }));
    let next = builder(&host.provider, &host.clock).store(host.first.clone()).fallback_store(raced.clone());
    let next = next.build().unwrap();
    assert_eq!((text(&next).as_str(), host.provider.calls()), ("token-1", 1));
    assert!(raced.act.lock().unwrap().is_none(), "the race was had");
    assert_eq!(host.first.inner.len(), 1, "others wait for a lease under which nobody fetches");
}

/// The record of the first store is held, so a renewal does not read it again.
#[test]
fn promise_4_a_rejection_in_the_second_store_outlives_a_renewal_that_fails() {
    let provider = FakeProvider::new()
        .then(|_| Ok(Grant::new("token-1", 2 * HOUR)))
        .then(|_| Err(Error::new(ErrorKind::Unavailable, "the provider is down")));
    let host = Host::of(provider);
    let lasting = host.manager();
    assert_eq!(text(&lasting), "token-1");
    let brief = host.manager();
    let bad = brief.token().unwrap();
    host.break_first(true);
    assert!(brief.reject(&bad).is_err());
    drop(brief);
    assert!(host.recorded(&host.second).contains("rejected"));
    host.break_first(false);
    assert!(lasting.force_refresh().is_err());
    // Whatever it gets, that one was refused by the service, and this host was told.
    let got = host.manager().token().map(|token| token.expose().to_owned());
    assert_ne!(got.as_deref().ok(), Some("token-1"), "first: {}", host.recorded(&host.first));
}

#[test]
fn promise_4_what_the_second_store_rejects_is_not_handed_out_because_the_first_has_it_at_hand() {
    let host = Host::of(FakeProvider::new());
    let make = || {
        let builder = builder(&host.provider, &host.clock).store(AtHand(host.first.clone()));
        builder.fallback_store(host.second.clone()).build().unwrap()
    };
    let tokens = make();
    let bad = tokens.token().unwrap();
    host.break_first(true);
    assert!(tokens.reject(&bad).is_err());
    drop(tokens);
    assert_ne!(text(&make()), "token-1");
}

/// The same with real files: the first directory can be read but not written to.
#[test]
fn promise_4_files_that_can_only_be_read_do_not_hide_a_rejection_in_the_second_store() {
    let folder = tempfile::tempdir().unwrap();
    let provider = FakeProvider::new();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let make = || {
        let builder = TokenManager::builder(provider.clone()).store(FileStore::at(&first));
        builder.fallback_store(FileStore::at(&second)).build().unwrap()
    };
    let tokens = make();
    let bad = tokens.token().unwrap();
    // Nobody gets the locks: something else stands where they belong. It is told as an error of the store.
    for file in fs::read_dir(&first).unwrap().flatten() {
        if file.path().extension().is_some_and(|end| end == "lock") {
            fs::remove_file(file.path()).unwrap();
            fs::create_dir(file.path()).unwrap();
        }
    }
    assert!(tokens.reject(&bad).is_err());
    drop(tokens);
    assert_ne!(text(&make()), "token-1");
}

/// The first store can be read and leased, but takes no record.
#[test]
fn a_token_that_could_not_be_brought_over_leaves_no_lease_behind() {
    let host = Host::of(FakeProvider::new());
    host.break_first(true);
    assert_eq!(text(&host.manager()), "token-1");
    host.break_first(false);
    *host.first.unwritable.lock().unwrap() = Some("}");
    let next = host.manager();
    assert_eq!(text(&next), "token-1");
    let lease_is_free = host.first.inner.is_empty();
    assert!(lease_is_free, "others wait for a lease under which nobody fetches");
}

fn key() -> Key {
    TokenManager::builder(FakeProvider::new()).build().unwrap().key().clone()
}

fn lease(store: &FileStore, owner: &str) -> LeaseOutcome {
    store.read_or_lease(&key(), None, Duration::ZERO, &LeaseOwner::new(owner), 7 * SECOND).unwrap()
}

/// The machine's own clock tells how long the lease still lasts, and the lock that its holder lives.
#[test]
fn a_wall_clock_that_is_set_takes_no_lease_from_its_holder() {
    for step in ["back", "forward"] {
        let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
        let open = || FileStore::with_clock(folder.path().join("files"), clock.clone());
        let (one, other) = (open(), open());
        assert!(matches!(lease(&one, "one"), LeaseOutcome::Leased));
        assert!(matches!(lease(&other, "other"), LeaseOutcome::Busy { .. }));
        match step {
            "back" => clock.step_back(5 * SECOND),
            _ => clock.step_forward(10 * SECOND),
        }
        assert!(matches!(lease(&other, "other"), LeaseOutcome::Busy { .. }), "set {step}: two fetch at once");
    }
}

/// Nothing would be written, so there is nothing to refuse.
#[test]
fn a_full_store_in_memory_answers_a_swap_that_is_lost() {
    let store = MemoryStore::new();
    let once = Idempotency::new(store.clone());
    for number in 0..10_000 {
        assert!(once.begin::<u32>(format!("{number}"), b"").is_ok());
    }
    assert_eq!(store.len(), 10_000);
    let seen = Version::of_bytes(b"gone");
    let swap = store.compare_and_swap(&key(), Expected::Version(&seen), Some((b"x", HOUR)));
    assert!(matches!(swap, Ok(SwapOutcome::Conflict(None))), "{swap:?}");
}

fn fails() -> Error {
    Error::new(ErrorKind::Unavailable, "the provider is down")
}

/// A program that asks for another token and ends, with the provider down.
#[test]
fn promise_7_a_token_of_the_second_store_is_not_removed_because_the_one_who_looks_holds_it_too() {
    let provider = FakeProvider::new().then(|_| Ok(Grant::new("token-1", 2 * HOUR))).then(|_| Err(fails()));
    let host = Host::of(provider);
    host.break_first(true);
    let brief = host.manager();
    assert_eq!(text(&brief), "token-1");
    host.break_first(false);
    // The first store is no longer left alone.
    host.clock.advance(120 * SECOND);
    assert!(brief.force_refresh().is_err());
    let (first, second) = (host.recorded(&host.first), host.recorded(&host.second));
    assert!(first.contains("token-1") || second.contains("token-1"), "first: {first}\nsecond: {second}");
}

/// With the provider down, a token that has half a minute left is what there is.
#[test]
fn a_late_token_of_the_second_store_is_not_thrown_away() {
    let serve = |with_second: bool| {
        let fetched = FakeProvider::new().then(|_| Ok(Grant::new("token-1", 2 * HOUR)));
        let host = Host::of((0..9).fold(fetched, |provider, _| provider.then(|_| Err(fails()))));
        let make = || if with_second { host.manager() } else { host.elsewhere() };
        host.break_first(true);
        assert_eq!(text(&make()), "token-1");
        host.break_first(false);
        host.clock.advance(2 * HOUR - 30 * SECOND);
        // The first one asks the provider in vain, and says so to the next.
        drop(make().token());
        make().token().map(|token| token.expose().to_owned())
    };
    assert_eq!(serve(false).ok().as_deref(), Some("token-1"), "with one store that works");
    let got = serve(true);
    assert_eq!(got.as_deref().ok(), Some("token-1"), "with a second one: {got:?}");
}

/// Copied with `cp -r`, or put back from a backup that does not keep times: what is in the file tells how long it lives.
#[test]
fn what_was_done_once_is_not_cleared_away_because_its_file_was_copied() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
    let path = folder.path().join("files");
    let day = 24 * HOUR;
    let once = Idempotency::new(FileStore::with_clock(&path, clock.clone())).result_ttl(30 * day);
    let Outcome::New(claim) = once.begin::<u32>("sent", b"").unwrap() else { panic!("it is new") };
    claim.complete(&7).unwrap();
    let record = file(&FileStore::at(&path), |name| name.ends_with(".once"));
    let copied_at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    File::options().write(true).open(&record).unwrap().set_modified(copied_at).unwrap();
    clock.advance(2 * day);
    assert!(matches!(once.begin::<u32>("sent", b""), Ok(Outcome::Completed(7))));
    for number in 0..800 {
        patiently(|| once.begin::<u32>(format!("{number}"), b""));
        if !record.exists() {
            break;
        }
    }
    let again = once.begin::<u32>("sent", b"").unwrap();
    assert!(matches!(again, Outcome::Completed(7)), "it would be done twice: {again:?}");
}

/// "Whoever cannot write must not keep the others from trying", also when it is the lock that was not to be had.
#[test]
fn a_publication_that_does_not_get_the_lock_leaves_no_lease_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("files");
    let (one, other) = (FileStore::at(&path), FileStore::at(&path));
    assert!(matches!(lease(&one, "one"), LeaseOutcome::Leased));
    let lock = file(&one, |name| name.ends_with(".lock"));
    let busy = File::options().read(true).write(true).open(lock).unwrap();
    busy.lock().unwrap();
    assert!(one.publish(&key(), &LeaseOwner::new("one"), None, b"token", HOUR).is_err());
    busy.unlock().unwrap();
    let got = lease(&other, "other");
    drop(one);
    assert!(matches!(got, LeaseOutcome::Leased), "others wait for a lease under which nobody fetches: {got:?}");
}

/// The first store takes no record; no second one is needed for that.
#[test]
fn a_token_that_could_not_be_recorded_leaves_no_lease_behind() {
    let host = Host::of(FakeProvider::new());
    *host.first.unwritable.lock().unwrap() = Some("}");
    let tokens = builder(&host.provider, &host.clock).store(host.first.clone()).build().unwrap();
    assert_eq!(text(&tokens), "token-1");
    assert!(host.first.inner.is_empty(), "others wait for a lease under which nobody fetches");
}

/// A key of 512 characters that JSON writes as two each, and as many bytes as a file takes.
#[test]
fn the_longest_key_and_the_longest_record_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::at(folder.path().join("files"));
    for character in ["\"", "\\", "~"] {
        let tokens = TokenManager::builder(FakeProvider::new()).key(&character.repeat(512)).build().unwrap();
        let bytes = vec![b'\n'; 64 * 1024];
        for life in [HOUR, Duration::MAX] {
            store.compare_and_swap(tokens.key(), Expected::Any, Some((&bytes, life))).unwrap();
            let entry = store.read(tokens.key()).unwrap().unwrap();
            assert!(entry.bytes() == bytes && entry.remaining() > HOUR - 60 * SECOND, "{entry:?}");
        }
        store.compare_and_swap(tokens.key(), Expected::Any, Some((b"x", Duration::ZERO))).unwrap();
        assert!(store.read(tokens.key()).unwrap().is_none());
        assert!(store.compare_and_swap(tokens.key(), Expected::Any, Some((&[0; 64 * 1024 + 1], HOUR))).is_err());
    }
}

/// A store that takes its time, as a slow disk does, but answers.
#[derive(Clone, Debug)]
struct Slow {
    inner: MemoryStore,
    takes: Duration,
}

impl Store for Slow {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        thread::sleep(self.takes);
        self.inner.read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        thread::sleep(self.takes);
        self.inner.compare_and_swap(key, expected, new)
    }
}

/// What is looked for in the second store under the lease is not to be taken from the provider's time.
#[test]
fn a_slow_second_store_does_not_shorten_the_time_of_a_fetch() {
    let left = Arc::new(Mutex::new(Duration::ZERO));
    let told = left.clone();
    let provider = FakeProvider::new().then(move |context| {
        *told.lock().unwrap() = context.remaining();
        Ok(Grant::new("token-1", 2 * HOUR))
    });
    let second = MemoryStore::new();
    let make = |store: MemoryStore| {
        TokenManager::builder(provider.clone()).store(store).http(evertoken::HttpConfig::default().timeout(SECOND))
    };
    // Something of no use is recorded there: that nothing is known.
    make(second.clone()).build().unwrap().invalidate().unwrap();
    second.compare_and_swap(make(second.clone()).build().unwrap().key(), Expected::Any, Some((b"{}", HOUR))).unwrap();
    let tokens = make(MemoryStore::new())
        .fallback_store(Slow { inner: second, takes: Duration::from_millis(800) })
        .build()
        .unwrap();
    let got = tokens.token_within(20 * SECOND).map(|token| token.expose().to_owned());
    assert_eq!(got.as_deref().ok(), Some("token-1"), "{got:?}");
    let left = *left.lock().unwrap();
    assert!(left > Duration::from_millis(800), "the provider has {left:?} of its second");
}

/// The clock of the machine goes on whatever the wall clock is set to, and what has been done stays done.
#[test]
fn a_wall_clock_that_is_set_ends_neither_a_claim_nor_a_result() {
    fn holds(store: impl Store, clock: &FakeClock, is_back: bool) {
        let once = Idempotency::new(store);
        let begin = || once.begin::<u32>("charge", "").unwrap();
        let Outcome::New(claim) = begin() else { panic!("nobody has begun it") };
        let set = || if is_back { clock.step_back(2 * HOUR) } else { clock.step_forward(48 * HOUR) };
        set();
        assert!(matches!(begin(), Outcome::InProgress { .. }), "back: {is_back}");
        claim.complete(&7).unwrap();
        set();
        assert!(matches!(begin(), Outcome::Completed(7)), "back: {is_back}");
        clock.advance(25 * HOUR);
        assert!(matches!(begin(), Outcome::New(_)), "it ends all the same");
    }
    for is_back in [true, false] {
        let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
        holds(FileStore::with_clock(folder.path(), clock.clone()), &clock, is_back);
        holds(MemoryStore::with_clock(clock.clone()), &clock, is_back);
    }
}

/// As a simulation does that wants the same numbers each time, in two containers where it has the same process id.
#[test]
fn two_managers_that_seed_their_random_numbers_alike_are_two() {
    let (provider, store) = (FakeProvider::new().gated(), Fragile::default());
    let make = || {
        fastrand::seed(42);
        TokenManager::builder(provider.clone()).store(store.clone()).build().unwrap()
    };
    let (one, other) = (make(), make());
    thread::scope(|scope| {
        scope.spawn(|| text(&one));
        assert!(provider.wait_for_calls(1, PATIENCE));
        scope.spawn(|| text(&other));
        eventually("the other waits, or asks too", || store.waits.load(Ordering::SeqCst) + provider.calls() > 1);
        provider.open();
    });
    assert_eq!(provider.calls(), 1);
}

/// The file with such a name. There is one.
fn file(store: &FileStore, fits: impl Fn(&str) -> bool) -> PathBuf {
    let files = fs::read_dir(store.directory()).unwrap().map(|file| file.unwrap().path());
    let fits = |path: &PathBuf| fits(path.file_name().unwrap().to_str().unwrap());
    let found: Vec<_> = files.filter(fits).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// A disk takes its time to write what the holder of the lease has fetched, and all the while it has the lock.
#[test]
fn who_comes_while_the_holder_writes_slowly_waits_for_it() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), FakeProvider::new().gated());
    let manager = || TokenManager::builder(provider.clone()).store(FileStore::at(folder.path())).build().unwrap();
    let (holder, waiting, late) = (manager(), manager(), manager());
    let lock = || File::open(file(&FileStore::at(folder.path()), |name| name.ends_with(".lock"))).unwrap();
    thread::scope(|scope| {
        let asking = scope.spawn(|| text(&holder));
        assert!(provider.wait_for_calls(1, PATIENCE));
        let waits = scope.spawn(|| text(&waiting));
        eventually("it waits", || waiting.status().fetching);
        let lock = lock();
        lock.lock().unwrap();
        // Longer than a change waits for its turn.
        let late = scope.spawn(|| text(&late));
        assert!(!provider.wait_for_calls(2, 2 * SECOND), "another one has fetched");
        lock.unlock().unwrap();
        provider.permit(1);
        for asking in [asking, waits, late] {
            assert_eq!(asking.join().unwrap(), "token-1");
        }
    });
    assert_eq!(provider.calls(), 1);
}

#[test]
fn a_lease_that_is_over_keeps_nobody_from_fetching_though_its_holder_has_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let (store, provider) = (FileStore::at(folder.path()), FakeProvider::new());
    let tokens = TokenManager::builder(provider.clone()).store(store.clone()).build().unwrap();
    let stopped = LeaseOwner::new("stopped");
    let leased = FileStore::at(folder.path()).read_or_lease(tokens.key(), None, SECOND, &stopped, 2 * SECOND).unwrap();
    assert!(matches!(leased, LeaseOutcome::Leased));
    let lock = File::open(file(&store, |name| name.ends_with(".lock"))).unwrap();
    lock.lock().unwrap();
    let asked = Instant::now();
    assert_eq!(text(&tokens), "token-1");
    assert!(asked.elapsed() < 8 * SECOND, "{:?}", asked.elapsed());
}

/// A store in which what stood in the way has always gone when one looks.
#[derive(Debug)]
struct Elusive;

impl Store for Elusive {
    fn read(&self, _: &Key) -> Result<Option<Entry>, Error> {
        Ok(None)
    }

    fn compare_and_swap(&self, _: &Key, _: Expected<'_>, _: Option<(&[u8], Duration)>) -> Result<SwapOutcome, Error> {
        thread::sleep(Duration::from_millis(1_200));
        Ok(SwapOutcome::Conflict(None))
    }
}

#[test]
fn a_step_takes_three_seconds_at_most_however_many_operations_it_is() {
    let once = Idempotency::new(Elusive);
    // The last operation of the first had less time than one may take, which says nothing of the store.
    for job in ["one", "another"] {
        let asked = Instant::now();
        let error = once.begin::<u32>(job, "").unwrap_err();
        let took = asked.elapsed();
        assert!(error.kind() == ErrorKind::Store && took > 2 * SECOND && took < 4 * SECOND, "{error} after {took:?}");
    }
}

#[test]
fn a_job_is_done_though_the_store_takes_more_than_a_second() {
    let once = Idempotency::new(Slow { inner: MemoryStore::new(), takes: Duration::from_millis(1_200) });
    let run = |result: u32| once.run("job", "", || Ok::<_, Error>(result)).unwrap();
    assert_eq!((run(1), run(2)), (1, 1));
}

/// A clock that is set back or ahead and then right again: what has been done is not done again for that.
#[test]
fn a_wall_clock_that_is_set_ahead_clears_away_nothing_that_lives() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
    let once = Idempotency::new(FileStore::with_clock(folder.path(), clock.clone()));
    let short = once.clone().result_ttl(60 * SECOND);
    let begin = |once: &Idempotency, key: &str| once.begin::<u32>(key, "").unwrap();
    for (once, key) in [(&short, "over"), (&once, "lives")] {
        let Outcome::New(claim) = begin(once, key) else { panic!("nobody has begun it") };
        claim.complete(&7).unwrap();
    }
    let kept =
        || fs::read_dir(folder.path()).unwrap().filter(|file| ends_in_once(&file.as_ref().unwrap().path())).count();
    assert_eq!(kept(), 2);
    // Results are kept for a day, and what is over for another one.
    clock.advance(23 * HOUR);
    clock.step_forward(72 * HOUR);
    let fill = |from: usize, is_done: &dyn Fn(usize) -> bool| {
        let begun = (from..from + 5_000).find(|number| {
            patiently(|| once.begin::<u32>(format!("{number}"), ""));
            is_done(number + 1 - from)
        });
        begun.expect("one write in 64 clears away") + 1
    };
    fill(0, &|begun| begun == 500);
    assert_eq!(kept(), 502, "by the clock of the machine nothing is over for long");
    clock.step_back(72 * HOUR);
    assert!(matches!(begin(&once, "lives"), Outcome::Completed(7)), "it would be done twice");
    // It can be cleared away all the same.
    clock.advance(2 * HOUR);
    fill(500, &|begun| kept() < 502 + begun);
}

fn ends_in_once(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|end| end == "once")
}

/// WeCom gives a token that lives again, and tells a whole life for it. Programs start each minute.
#[test]
fn promise_2_a_wall_clock_that_is_set_back_makes_no_token_younger() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
    let host = FakeVendor::wecom().clock(&clock);
    let ask = || {
        let provider = WeCom::new("corp", "secret").base_url(host.url());
        let store = FileStore::with_clock(folder.path(), clock.clone());
        let tokens = TokenManager::builder(provider).store(store).clock(clock.clone()).build().unwrap();
        tokens.token().unwrap()
    };
    ask();
    clock.advance(HOUR);
    clock.step_back(2 * HOUR);
    for minute in 0..130 {
        let token = ask();
        assert!(host.is_valid(token.expose()), "dead in minute {minute}, with {:?} left", token.remaining());
        clock.advance(60 * SECOND);
    }
    assert_eq!(host.granted().len(), 2);
}

#[test]
fn promise_4_a_wall_clock_that_is_set_back_makes_no_rejection_forgotten() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), FakeClock::new());
    let provider = FakeProvider::new().then_grant("token-1", 2 * HOUR).then_unchanged().then_unchanged();
    let start =
        || builder(&provider, &clock).store(FileStore::with_clock(folder.path(), clock.clone())).build().unwrap();
    let tokens = start();
    tokens.reject(&tokens.token().unwrap()).unwrap();
    clock.advance(HOUR);
    clock.step_back(2 * HOUR);
    // It is granted again, with its own end and not with another whole life.
    let again = start().token().unwrap();
    assert!(again.remaining() <= HOUR, "{:?}", again.remaining());
}

/// The provider gives the same token again until its end, which the wall clock has come to already.
#[test]
fn a_wall_clock_that_is_set_ahead_ends_no_token_that_is_granted_again() {
    let clock = FakeClock::new();
    let host = FakeVendor::wecom().clock(&clock);
    let provider = WeCom::new("corp", "secret").base_url(host.url());
    let tokens = TokenManager::builder(provider).clock(clock.clone()).max_wait(3 * SECOND).build().unwrap();
    tokens.token().unwrap();
    clock.step_forward(HOUR);
    for minute in 0..100 {
        let token = tokens.token().unwrap_or_else(|error| panic!("minute {minute}: {error}"));
        assert!(host.is_valid(token.expose()), "minute {minute}");
        eventually("what was started in the background has ended", || !tokens.status().fetching);
        clock.advance(60 * SECOND);
    }
}

/// Somebody who has no lease writes for as long as a slow disk takes, and others start meanwhile.
#[test]
fn promise_3_who_starts_while_another_writes_slowly_fetches_once() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), FakeProvider::new());
    let manager = || TokenManager::builder(provider.clone()).store(FileStore::at(folder.path())).build().unwrap();
    let rejecting = manager();
    rejecting.reject(&rejecting.token().unwrap()).unwrap();
    let lock = File::open(file(&FileStore::at(folder.path()), |name| name.ends_with(".lock"))).unwrap();
    lock.lock().unwrap();
    thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| text(&manager()))).collect();
        assert!(!provider.wait_for_calls(2, Duration::from_millis(500)), "nobody goes its own way so soon");
        lock.unlock().unwrap();
        asking.into_iter().for_each(|asking| assert_eq!(asking.join().unwrap(), "token-2"));
    });
    assert_eq!(provider.calls(), 2);
}

#[test]
fn a_thing_that_is_done_once_waits_for_a_slow_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::at(folder.path());
    let once = Idempotency::new(store.clone());
    let Outcome::New(claim) = once.begin::<u32>("job", "").unwrap() else { panic!("nobody has begun it") };
    let lock = File::open(file(&store, |name| name.ends_with(".lock"))).unwrap();
    lock.lock().unwrap();
    thread::scope(|scope| {
        let completing = scope.spawn(|| claim.complete(&7));
        let began = Instant::now();
        eventually("it takes longer than a token is waited for", || began.elapsed() > SECOND);
        assert!(!completing.is_finished());
        lock.unlock().unwrap();
        completing.join().unwrap().unwrap();
    });
}

/// A store that takes its time to write what a provider is asked with.
#[derive(Clone, Debug, Default)]
struct SlowState {
    inner: MemoryStore,
    written: Arc<AtomicBool>,
}

impl Store for SlowState {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.inner.read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        let is_state = key.as_str().ends_with(":state");
        if is_state {
            thread::sleep(Duration::from_millis(1_200));
        }
        let swapped = self.inner.compare_and_swap(key, expected, new);
        self.written.fetch_or(is_state, Ordering::SeqCst);
        swapped
    }
}

/// A program that has its token ends at once, and what is not stored by then is lost.
#[test]
fn a_refresh_token_is_stored_before_its_token_is_handed_out_though_that_takes_more_than_a_second() {
    let (store, host) = (SlowState::default(), FakeVendor::oauth2());
    let client = OAuth2::new(host.token_url(), "client", "secret");
    let tokens = TokenManager::builder(RefreshToken::new(client, "refresh-1")).store(store.clone()).build().unwrap();
    text(&tokens);
    assert!(store.written.load(Ordering::SeqCst));
}

/// As the threads of a service do when the first requests come in.
#[test]
fn a_token_that_many_threads_find_in_a_file_at_once_is_told_of_once() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), FakeProvider::new());
    let manager = || TokenManager::builder(provider.clone()).store(FileStore::at(folder.path())).build().unwrap();
    text(&manager());
    for _ in 0..50 {
        let (tokens, start) = (manager(), Barrier::new(64));
        let events = tokens.events();
        thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    start.wait();
                    text(&tokens)
                });
            }
        });
        let told = events.try_iter().filter(|event| matches!(event.kind, EventKind::Granted { .. })).count();
        assert_eq!((told, tokens.metrics().tokens_from_store), (1, 1));
    }
    assert_eq!(provider.calls(), 1);
}
