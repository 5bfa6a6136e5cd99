//! Stores whose records are encrypted: the contract of every store, and the guarantees without the key.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use evertoken::clock::Notifier;
use evertoken::provider::Identity;
use evertoken::store::{
    Cursor, Entry, Expected, Key, LeaseOutcome, LeaseOwner, PublishOutcome, Store, SwapOutcome, Version,
};
use evertoken::testing::{FakeClock, FakeProvider};
use evertoken::{EncryptedStore, EncryptionKey, Error, ErrorKind, MemoryStore, TokenManager};

use crate::common::alone::test_of;
use crate::common::logs::{logged, record_logs};
use crate::common::renewal::{RotatingServer, rotating_provider};
use crate::common::stores::{FaultyStore, renewal_secret_key};
use crate::common::suite::{behaves, bytes, key, put};
use crate::common::wait::*;

/// 32 bytes out of all ranges, letters among them.
fn key_bytes(first: u8) -> [u8; 32] {
    std::array::from_fn(|at| first.wrapping_add((at as u8).wrapping_mul(11)))
}

fn encryption_key(first: u8) -> EncryptionKey {
    EncryptionKey::new(key_bytes(first)).unwrap()
}

fn encrypted<S: Store + Clone>(store: &S, first: u8) -> EncryptedStore<S> {
    EncryptedStore::new(store.clone(), encryption_key(first))
}

/// A provider with a credential of its own.
fn provider(name: &str) -> FakeProvider {
    FakeProvider::new().with_identity(Identity::new("encrypted").part("name", name))
}

fn manager(provider: &FakeProvider, store: impl Store) -> TokenManager {
    TokenManager::builder(provider.clone()).jitter(0.0).store(store).build().unwrap()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Whether a record shows any text that managers write into their records.
fn shows_secrets(record: &[u8]) -> bool {
    ["token", "access_token", "life_ms", "\"v\":"].iter().any(|text| contains(record, text))
}

fn take_lease(store: &impl Store, key: &Key, owner: &str) -> LeaseOutcome {
    store.read_or_lease(key, None, SECOND, &LeaseOwner::new(owner), 10 * SECOND).unwrap()
}

/// Asserts that the record under `key` is not read, and that it can be replaced.
fn assert_not_decrypted(store: &impl Store, key: &Key) -> Version {
    let entry = store.read(key).unwrap().unwrap();
    assert_eq!((entry.bytes(), entry.remaining()), (&b""[..], Duration::ZERO));
    assert!(matches!(take_lease(store, key, "a"), LeaseOutcome::Leased), "it is not found");
    let swap = store.compare_and_swap(key, Expected::Absent, Some((b"x", HOUR))).unwrap();
    assert!(
        matches!(swap, SwapOutcome::Conflict(Some(lost)) if lost.bytes().is_empty() && lost.version() == entry.version())
    );
    entry.version().clone()
}

#[test]
fn every_store_behaves_as_a_store_when_it_is_encrypted() {
    let clock = FakeClock::new();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::with_clock(clock.clone()));
    behaves(&encrypted(&store, 3), &|time| clock.advance(time));
    // A store with the two required operations only.
    let inner = MemoryStore::with_clock(clock.clone());
    behaves(&encrypted(&FaultyStore { inner, ..FaultyStore::default() }, 3), &|time| clock.advance(time));
}

#[test]
fn managers_share_a_token_through_a_store_that_shows_nothing_of_it() {
    let shared = |inner: &MemoryStore, name: &str, seal: bool| {
        let provider = provider(name).gated();
        let store: Arc<dyn Store> = if seal { Arc::new(encrypted(inner, 3)) } else { Arc::new(inner.clone()) };
        let managers: Vec<_> = (0..4).map(|_| manager(&provider, store.clone())).collect();
        thread::scope(|scope| {
            let asking: Vec<_> = managers.iter().map(|manager| scope.spawn(|| text(manager))).collect();
            assert!(provider.wait_for_calls(1, PATIENCE));
            provider.permit(1);
            asking.into_iter().for_each(|asking| assert_eq!(asking.join().unwrap(), "token-1"));
        });
        assert_eq!(provider.calls(), 1);
        inner.read(managers[0].key()).unwrap().unwrap()
    };
    let inner = MemoryStore::new();
    assert!(shows_secrets(shared(&inner, "plain", false).bytes()));
    assert!(!shows_secrets(shared(&inner, "shared", true).bytes()));
}

#[test]
fn managers_that_watch_or_wait_notice_a_change_at_once() {
    let inner = MemoryStore::new();
    let (store, other, key) = (encrypted(&inner, 3), encrypted(&inner, 3), key("watched"));
    let (changed, heard) = crossbeam_channel::bounded(1);
    let _watch = store.watch(&key, Notifier::new(move || changed.try_send(()).unwrap_or_default())).unwrap();
    assert!(matches!(take_lease(&store, &key, "a"), LeaseOutcome::Leased));
    let LeaseOutcome::Busy { cursor, .. } = take_lease(&other, &key, "b") else { panic!("the lease is taken") };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            other.wait(&key, &cursor, Instant::now() + PATIENCE).unwrap();
            Instant::now()
        });
        let published = Instant::now();
        publish(&store, &key, "a");
        assert!(waiting.join().unwrap() - published < PATIENCE / 2);
    });
    heard.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_record_encrypted_with_another_key_is_absent_is_reported_once_and_is_replaced() {
    record_logs();
    let (inner, provider) = (MemoryStore::new(), provider("wrong key"));
    let first = manager(&provider, encrypted(&inner, 3));
    assert_eq!(text(&first), "token-1");
    let (key, old) = (first.key().clone(), inner.read(first.key()).unwrap().unwrap());
    drop(first);
    let reports = |why: &str| {
        let logged = logged();
        assert!(!logged.contains("token-1") && !logged.contains("token-2"));
        let mine = logged.lines().filter(|line| line.starts_with(&format!("evertoken {key}: ")));
        mine.filter(|line| line.contains("cannot be decrypted") && line.contains(why)).count()
    };
    let store = encrypted(&inner, 4);
    assert_not_decrypted(&store, &key);
    let second = manager(&provider, store.clone());
    // Another manager had the lease for a while.
    assert!(matches!(take_lease(&store, &key, "b"), LeaseOutcome::Busy { .. }));
    inner.compare_and_swap(&key, Expected::Any, None).unwrap();
    publish(&store, &key, "a");
    inner.compare_and_swap(&key, Expected::Any, Some((old.bytes(), HOUR))).unwrap();
    assert_eq!(text(&second), "token-2");
    assert_eq!(text(&manager(&provider, encrypted(&inner, 4))), "token-2", "it was replaced under the current key");
    assert_eq!(provider.calls(), 2);
    assert_eq!(reports("a key that is not given"), 1);
    // Each store reports once.
    inner.compare_and_swap(&key, Expected::Any, Some((b"{}", HOUR))).unwrap();
    (0..3).for_each(|_| drop(store.read(&key).unwrap()));
    assert_eq!(reports(""), 1);
    let another = encrypted(&inner, 4);
    (0..3).for_each(|_| drop(another.clone().read(&key).unwrap()));
    assert_eq!((reports(""), reports("it is not encrypted")), (2, 1));
}

/// Frees the lease of `owner`.
fn publish(store: &impl Store, key: &Key, owner: &str) {
    let published = store.publish(key, &LeaseOwner::new(owner), None, b"x", HOUR).unwrap();
    assert!(matches!(published, PublishOutcome::Done(_)));
}

#[test]
fn a_key_is_replaced_without_losing_a_token() {
    let (inner, provider) = (MemoryStore::new(), provider("rotation"));
    let ask = |store: EncryptedStore<MemoryStore>| text(&manager(&provider, store));
    assert_eq!(ask(encrypted(&inner, 3)), "token-1");
    // Programs that know the new key, and programs that write with it.
    assert_eq!(ask(encrypted(&inner, 3).also_decrypt_with(encryption_key(4))), "token-1");
    assert_eq!(
        ask(encrypted(&inner, 4).also_decrypt_with(encryption_key(9)).also_decrypt_with(encryption_key(3))),
        "token-1"
    );
    assert_eq!(provider.calls(), 1);
    let renewing = manager(&provider, encrypted(&inner, 4).also_decrypt_with(encryption_key(3)));
    assert_eq!(text(&renewing), "token-1");
    assert_eq!(renewing.force_refresh().unwrap().expose(), "token-2");
    assert_eq!(ask(encrypted(&inner, 3).also_decrypt_with(encryption_key(4))), "token-2");
    assert_eq!(ask(encrypted(&inner, 4)), "token-2", "the old one is gone");
    assert_eq!(provider.calls(), 2);
    assert_not_decrypted(&encrypted(&inner, 3), renewing.key());
}

#[test]
fn a_record_moved_to_another_key_cannot_be_decrypted() {
    let inner = MemoryStore::new();
    let store = encrypted(&inner, 3);
    let (one, other) = (key("moved from"), key("moved to"));
    put(&store, &one, b"one's", HOUR);
    put(&store, &other, b"other's", HOUR);
    let entry = inner.read(&one).unwrap().unwrap();
    put(&inner, &other, entry.bytes(), HOUR);
    assert_not_decrypted(&store, &other);
    assert_eq!(bytes(store.read(&one).unwrap()).unwrap(), b"one's");
}

#[test]
fn a_record_with_a_changed_added_or_removed_byte_cannot_be_decrypted() {
    let (inner, provider) = (MemoryStore::new(), provider("flipped"));
    let (store, tokens) = (encrypted(&inner, 3), manager(&provider, encrypted(&inner, 3)));
    assert_eq!(text(&tokens), "token-1");
    let good = inner.read(tokens.key()).unwrap().unwrap().bytes().to_vec();
    let flipped = (0..good.len() * 8).map(|bit| {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        bad
    });
    let cut = (0..good.len()).flat_map(|length| [good[..length].to_vec(), good[length + 1..].to_vec()]);
    let longer = (0..=255_u8).map(|byte| [good.as_slice(), &[byte]].concat());
    for bad in flipped.chain(cut).chain(longer) {
        put(&inner, tokens.key(), &bad, HOUR);
        assert_not_decrypted(&store, tokens.key());
    }
    put(&inner, tokens.key(), &good, HOUR);
    assert!(contains(store.read(tokens.key()).unwrap().unwrap().bytes(), "token-1"));
}

/// `put_there` writes an undecryptable record under a key.
fn undecryptable_record_is_replaced(inner: &(impl Store + Clone), put_there: &mut dyn FnMut(&Key)) {
    let (store, key) = (encrypted(inner, 3), key("in the way"));
    put_there(&key);
    assert_not_decrypted(&store, &key);
    assert!(matches!(take_lease(&store, &key, "b"), LeaseOutcome::Busy { cursor, .. } if cursor.version().is_some()));
    publish(&store, &key, "a");
    assert!(matches!(take_lease(&store, &key, "b"), LeaseOutcome::Found(entry) if entry.bytes() == b"x"));
    // A replacement by version.
    put_there(&key);
    let version = assert_not_decrypted(&store, &key);
    assert!(matches!(
        store.compare_and_swap(&key, Expected::Version(&version), Some((b"y", HOUR))).unwrap(),
        SwapOutcome::Done(_)
    ));
    assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), b"y");
    // A write without the lease, although the record in place expires later than the new one.
    put_there(&key);
    assert!(matches!(take_lease(&store, &key, "holder"), LeaseOutcome::Busy { .. } | LeaseOutcome::Leased));
    let published = store.publish(&key, &LeaseOwner::new("late"), None, b"z", SECOND * 60).unwrap();
    assert!(
        matches!(published, PublishOutcome::Done(Some(version)) if Some(&version) == version_of(&store, &key).as_ref())
    );
    assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), b"z");
    store.compare_and_swap(&key, Expected::Any, None).unwrap();
}

fn version_of(store: &impl Store, key: &Key) -> Option<Version> {
    store.read(key).unwrap().map(|entry| entry.version().clone())
}

#[test]
fn a_record_that_cannot_be_decrypted_blocks_no_operation() {
    let inner = MemoryStore::new();
    for garbage in [&b""[..], b"{\"v\":1}", &[1; 37], &[7; 60_000]] {
        undecryptable_record_is_replaced(&inner, &mut |key| drop(put(&inner, key, garbage, 2 * HOUR)));
    }
    let other = encrypted(&inner, 4);
    undecryptable_record_is_replaced(&inner, &mut |key| drop(put(&other, key, b"other", 2 * HOUR)));
}

/// A store into which another program keeps writing undecryptable records.
#[derive(Debug, Default)]
struct UndecryptableStore(AtomicU8);

impl UndecryptableStore {
    fn entry(&self) -> Entry {
        Entry::new(vec![self.0.fetch_add(1, Ordering::Relaxed)], HOUR)
    }
}

impl Store for UndecryptableStore {
    fn read(&self, _: &Key) -> Result<Option<Entry>, Error> {
        Ok(Some(self.entry()))
    }

    fn compare_and_swap(&self, _: &Key, _: Expected<'_>, _: Option<(&[u8], Duration)>) -> Result<SwapOutcome, Error> {
        Ok(SwapOutcome::Conflict(Some(self.entry())))
    }

    fn publish(
        &self,
        _: &Key,
        _: &LeaseOwner,
        _: Option<&Version>,
        _: &[u8],
        _: Duration,
    ) -> Result<PublishOutcome, Error> {
        Ok(PublishOutcome::Conflict(self.entry()))
    }
}

#[test]
fn a_writer_of_undecryptable_records_blocks_other_callers_only_briefly() {
    let store = EncryptedStore::new(UndecryptableStore::default(), encryption_key(3));
    let leasing = take_lease(&store, &key("spoilt"), "a");
    assert!(matches!(leasing, LeaseOutcome::Busy { remaining: Duration::ZERO, cursor } if cursor != Cursor::new(None)));
    let error = store.publish(&key("spoilt"), &LeaseOwner::new("a"), None, b"x", HOUR).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
}

#[test]
fn leases_are_stored_in_the_clear_and_records_are_encrypted() {
    let inner = MemoryStore::new();
    let (store, other, key) = (encrypted(&inner, 3), encrypted(&inner, 4), key("beside a lease"));
    assert!(matches!(take_lease(&store, &key, "a"), LeaseOutcome::Leased));
    // Programs with another key, or with none, see the lease and its owner, so no other manager fetches meanwhile.
    assert!(matches!(take_lease(&inner, &key, "a"), LeaseOutcome::Leased));
    assert!(matches!(take_lease(&other, &key, "b"), LeaseOutcome::Busy { .. }));
    assert!(matches!(take_lease(&other, &key, "a"), LeaseOutcome::Leased));
    publish(&store, &key, "a");
    assert!(matches!(take_lease(&other, &key, "b"), LeaseOutcome::Leased), "it is free again");
    assert_eq!(inner.read(&key).unwrap().unwrap().bytes().len(), b"x".len() + 37);
}

#[test]
fn a_refresh_token_rotates_in_an_encrypted_store_and_is_not_used_without_the_key() {
    let (server, clock) = (RotatingServer::default(), FakeClock::new());
    let inner = FaultyStore::on_clock(&clock);
    let provider = rotating_provider(&server);
    let manager = |store: EncryptedStore<FaultyStore>| builder(&provider, &clock).store(store).build().unwrap();
    for round in 1..=3 {
        let tokens = manager(encrypted(&inner, 3));
        assert_eq!(text(&tokens), format!("token-{round}"));
        let state = inner.read(&renewal_secret_key(&inner)).unwrap().unwrap();
        assert!(!contains(state.bytes(), "refresh") && !shows_secrets(state.bytes()));
        let opened = encrypted(&inner, 3).read(&renewal_secret_key(&inner)).unwrap().unwrap();
        assert!(contains(opened.bytes(), &format!("refresh-{round}")));
        clock.advance(2 * HOUR);
    }
    let error = manager(encrypted(&inner, 4)).token().unwrap_err();
    assert_eq!((error.kind(), provider.calls()), (ErrorKind::Store, 3), "{error}");
    let tokens = manager(encrypted(&inner, 4).also_decrypt_with(encryption_key(3)));
    assert_eq!(text(&tokens), "token-4");
    clock.advance(2 * HOUR);
    assert_eq!(text(&manager(encrypted(&inner, 4))), "token-5", "the state was written anew");
    assert_eq!(server.presented(), (0..5).map(|at| format!("refresh-{at}")).collect::<Vec<_>>());
}

#[test]
fn a_custom_key_is_refused_with_an_encrypted_store() {
    let (inner, provider) = (MemoryStore::new(), provider("own key"));
    let builder = || TokenManager::builder(provider.clone()).key("access_token:corp");
    let shared: Arc<dyn Store> = Arc::new(encrypted(&inner, 3));
    for refused in [builder().store(encrypted(&inner, 3)).build(), builder().store(shared).build()] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("encrypted store"), "{error}");
    }
    assert!(builder().store(inner).build().is_ok());
}

#[test]
fn no_debug_output_shows_a_key() {
    let store = encrypted(&MemoryStore::new(), 3).also_decrypt_with(encryption_key(4));
    assert_eq!(format!("{:?}", encryption_key(3)), "EncryptionKey(***)");
    assert_eq!(format!("{store:?}"), "EncryptedStore { store: MemoryStore { entries: 0 }, .. }");
}

/// Asserts that one key decrypts records of the other.
fn is_same(one: &EncryptionKey, other: &EncryptionKey) {
    let inner = MemoryStore::new();
    put(&EncryptedStore::new(inner.clone(), one.clone()), &key("same"), b"encrypted", HOUR);
    let read = EncryptedStore::new(inner, other.clone()).read(&key("same")).unwrap();
    assert_eq!(bytes(read).unwrap(), b"encrypted");
}

/// Asserts that the error is a wrong setting, contains these words and quotes nothing of the key.
fn assert_refused(result: Result<EncryptionKey, Error>, words: &[&str]) {
    let error = result.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert_eq!(error.kind(), ErrorKind::Config, "{shown}");
    words.iter().for_each(|word| assert!(error.to_string().contains(word), "{word:?} is not in {shown}"));
    assert!(!shown.contains("hunter2") && !shown.contains("AAAA") && !shown.contains("0000"), "{shown}");
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const MAKE_ONE: &str = "head -c 32 /dev/urandom | base64";

#[test]
fn a_key_of_equal_bytes_is_refused() {
    assert_refused(EncryptionKey::new([0; 32]), &["random", MAKE_ONE]);
    assert_refused(EncryptionKey::new([0xff; 32]), &["random", MAKE_ONE]);
}

#[test]
fn a_key_comes_from_the_environment() {
    let name = test_of(&|| ());
    const CHILD: &str = "EVERTOKEN_TEST_CHILD";
    let good = [
        ("SEAL_STANDARD", STANDARD.encode(key_bytes(0xf9))),
        ("SEAL_UNPADDED", STANDARD.encode(key_bytes(0xf9)).trim_end_matches('=').to_owned()),
        ("SEAL_URL_SAFE", URL_SAFE_NO_PAD.encode(key_bytes(0xf9))),
        ("SEAL_HEX", hexadecimal(&key_bytes(0xf9))),
        ("SEAL_LINE_END", format!("{}\n", STANDARD.encode(key_bytes(0xf9)))),
    ];
    let bad = [
        ("SEAL_EMPTY", String::new(), "base64"),
        ("SEAL_PASSWORD", "hunter2-hunter2-hunter2-hunter2!".to_owned(), "base64"),
        ("SEAL_SHORT", STANDARD.encode(&key_bytes(3)[1..]), "base64"),
        ("SEAL_LONG", STANDARD.encode([&key_bytes(3)[..], b"hunter2"].concat()), "base64"),
        ("SEAL_ZEROS", STANDARD.encode([0; 32]), "random"),
    ];
    if std::env::var_os(CHILD).is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", name, "--nocapture"]).env(CHILD, "1").envs(good);
        again.envs(bad.map(|(name, value, _)| (name, value)));
        #[cfg(unix)]
        again.env("SEAL_NO_TEXT", std::os::unix::ffi::OsStrExt::from_bytes(b"hunter2\xff") as &std::ffi::OsStr);
        let output = again.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}{output:?}");
        return;
    }
    for (name, _) in good {
        is_same(&encryption_key(0xf9), &EncryptionKey::from_env(name).unwrap());
    }
    for (name, _, word) in bad {
        assert_refused(EncryptionKey::from_env(name), &[name, word, MAKE_ONE]);
    }
    #[cfg(unix)]
    assert_refused(EncryptionKey::from_env("SEAL_NO_TEXT"), &["SEAL_NO_TEXT", MAKE_ONE]);
    assert_refused(EncryptionKey::from_env("SEAL_NOT_SET"), &["SEAL_NOT_SET", "not set", MAKE_ONE]);
}

#[test]
fn a_key_given_as_a_variable_name_is_not_quoted() {
    let digits = hexadecimal(&key_bytes(3));
    for wrong in [digits.clone(), STANDARD.encode(key_bytes(3)), format!("a{}", &digits[..63]), String::new()] {
        let error = EncryptionKey::from_env(&wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(wrong.is_empty() || !error.to_string().contains(&wrong), "{error}");
    }
}

/// A file that only its owner can read and write.
fn key_file(folder: &Path, name: &str, content: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    open_to(&path, 0o600);
    path
}

#[cfg(unix)]
fn open_to(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn open_to(_: &Path, _: u32) {}

#[test]
fn a_key_comes_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let text = STANDARD.encode(key_bytes(3));
    for content in [
        format!("{text}\n").into_bytes(),
        format!("{text}\r\n").into_bytes(),
        text.into_bytes(),
        format!("{}\n", hexadecimal(&key_bytes(3))).into_bytes(),
        key_bytes(3).to_vec(),
    ] {
        let path = key_file(folder.path(), "good", &content);
        is_same(&encryption_key(3), &EncryptionKey::from_file(&path).unwrap());
    }
}

#[test]
fn a_file_without_a_key_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, content: &[u8], word: &str| {
        let path = key_file(folder.path(), name, content);
        assert_refused(EncryptionKey::from_file(&path), &[&format!("{path:?}"), word, MAKE_ONE]);
    };
    refused("empty", b"", "base64");
    refused("password", b"hunter2-hunter2-hunter2-hunter2!", "base64");
    refused("half a key in hexadecimal", hexadecimal(&key_bytes(3)[..16]).as_bytes(), "base64");
    refused("short", &key_bytes(3)[..31], "base64");
    refused("long", &[&key_bytes(3)[..], b"\n"].concat(), "base64");
    refused("zeros", &[0; 32], "random");
    refused("large", &[0xfe; 1 << 20], "base64");
    if cfg!(unix) {
        refused("with\na line break", b"x", "line break");
    }
    let missing = folder.path().join("missing");
    assert_refused(EncryptionKey::from_file(&missing), &[&format!("{missing:?}"), MAKE_ONE]);
    assert_refused(EncryptionKey::from_file(folder.path()), &["no regular file"]);
}

#[cfg(unix)]
#[test]
fn a_key_file_that_others_can_read_or_write_is_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let path = key_file(folder.path(), "key", STANDARD.encode(key_bytes(3)).as_bytes());
    for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o440] {
        open_to(&path, mode);
        let mend = format!("chmod 600 {path:?}");
        assert_refused(EncryptionKey::from_file(&path), &["others", &mend]);
    }
    for mode in [0o600, 0o400, 0o711] {
        open_to(&path, mode);
        EncryptionKey::from_file(&path).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_key_file_that_is_no_regular_file_is_refused_without_blocking() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    open_to(&pipe, 0o600);
    for path in [pipe.as_path(), Path::new("/dev/zero")] {
        assert_refused(EncryptionKey::from_file(path), &[&format!("{path:?}"), "no regular file"]);
    }
    // Secrets of a container are often symbolic links.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(key_file(folder.path(), "key", &key_bytes(3)), &link).unwrap();
    is_same(&encryption_key(3), &EncryptionKey::from_file(link).unwrap());
}

#[cfg(all(feature = "redis", target_os = "linux"))]
mod over_redis {
    use evertoken::RedisStore;
    use redis::Value;

    use super::*;
    use crate::common::redis_server::{Monitor, RedisServer};

    /// A store with a connection of its own, as a process has.
    fn store(server: &RedisServer) -> EncryptedStore<RedisStore> {
        encrypted(&RedisStore::open(&server.url()).unwrap(), 3)
    }

    #[test]
    fn an_encrypted_store_leaves_logging_to_the_inner_store() {
        let server = RedisServer::start();
        assert!(store(&server).logs_outages());
    }

    /// All keys and values on the server.
    fn everything(server: &RedisServer) -> Vec<(String, Vec<u8>)> {
        let keys: Vec<String> = server.ask(&["KEYS", "*"]).unwrap();
        let value = |key: &str| match server.ask::<String>(&["TYPE", key]).unwrap().as_str() {
            "string" => server.ask::<Value>(&["GET", key]).unwrap(),
            "stream" => server.ask::<Value>(&["XRANGE", key, "-", "+"]).unwrap(),
            other => panic!("{key} is a {other}"),
        };
        keys.into_iter().map(|key| (key.clone(), bytes_of(value(&key)))).collect()
    }

    fn bytes_of(value: Value) -> Vec<u8> {
        match value {
            Value::BulkString(bytes) => bytes,
            Value::Array(parts) => parts.into_iter().flat_map(bytes_of).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn processes_share_a_token_through_a_server_that_stores_nothing_of_it() {
        let (server, plain) = (RedisServer::start(), RedisServer::start());
        let provider = provider("redis");
        assert_eq!(text(&manager(&provider, RedisStore::open(&plain.url()).unwrap())), "token-1");
        assert!(everything(&plain).iter().any(|(_, value)| shows_secrets(value)));

        let provider = provider.gated();
        let managers: Vec<_> = (0..8).map(|_| manager(&provider, store(&server))).collect();
        let answers: Vec<_> = thread::scope(|scope| {
            let asking: Vec<_> = managers.iter().map(|one| scope.spawn(|| text(one))).collect();
            assert!(provider.wait_for_calls(2, PATIENCE));
            provider.permit(1);
            asking.into_iter().map(|asking| asking.join().unwrap()).collect()
        });
        assert_eq!((answers, provider.calls()), (vec!["token-2".to_owned(); 8], 2));
        let everything = everything(&server);
        assert!(everything.iter().any(|(key, _)| key == managers[0].key().as_str()));
        assert!(!everything.iter().any(|(_, value)| shows_secrets(value)));
    }

    #[test]
    fn a_cold_call_still_costs_one_round_trip_and_a_refresh_two() {
        let (server, provider) = (RedisServer::start(), provider("round trips"));
        // After this call the server knows the scripts.
        assert_eq!(text(&manager(&provider, store(&server))), "token-1");
        let monitor = Monitor::of(&server);
        let one = manager(&provider, store(&server));
        assert_eq!(text(&one), "token-1");
        assert_eq!(monitor.commands(), ["EVALSHA"]);
        let monitor = Monitor::of(&server);
        assert_eq!(one.force_refresh().unwrap().expose(), "token-2");
        assert_eq!(monitor.commands(), ["EVALSHA", "EVALSHA"]);
    }

    #[test]
    fn a_record_that_cannot_be_decrypted_blocks_no_operation_on_redis() {
        let server = RedisServer::start();
        let inner = RedisStore::open(&server.url()).unwrap();
        let large = "x".repeat(70_000);
        let commands: [&[&str]; 3] = [&["SET", "{\"v\":1}"], &["SET", &large], &["RPUSH", "x"]];
        for command in commands {
            undecryptable_record_is_replaced(&inner, &mut |key| {
                server.ask::<()>(&["DEL", key.as_str()]).unwrap();
                server.ask::<()>(&[&command[..1], &[key.as_str()], &command[1..]].concat()).unwrap();
                server.ask::<()>(&["PEXPIRE", key.as_str(), "7200000"]).unwrap();
            });
        }
    }

    #[test]
    fn a_record_under_another_key_is_replaced_on_redis() {
        let (server, provider) = (RedisServer::start(), provider("redis, another key"));
        let other = |first| encrypted(&RedisStore::open(&server.url()).unwrap(), first);
        assert_eq!(text(&manager(&provider, other(3))), "token-1");
        assert_eq!(text(&manager(&provider, other(4).also_decrypt_with(encryption_key(3)))), "token-1");
        assert_eq!(text(&manager(&provider, other(4))), "token-2");
        assert_eq!(text(&manager(&provider, other(4))), "token-2");
        assert_eq!(provider.calls(), 2);
    }
}

#[test]
fn promise_8_an_encryption_key_given_as_a_path_is_not_quoted() {
    use evertoken::EncryptionKey;
    for key in [
        "4Z1nYf0m8bqK7tq0x3oYw5n9c2h6d1l8p4s7v0z3a6E=",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ] {
        let error = EncryptionKey::from_file(key).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(key), "{error}");
    }
}
