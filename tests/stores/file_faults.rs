//! Faults of a disk, a kernel and an administrator, each inflicted on a process of its own.

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use evertoken::idempotency::{Idempotency, RunError};
use evertoken::provider::Identity;
use evertoken::store::{Expected, LeaseOutcome, LeaseOwner, PublishOutcome, Store, SwapOutcome, Version};
use evertoken::testing::{FakeProvider, FakeVendor};
use evertoken::{ErrorKind, FileStore, MemoryStore, OAuth2, RefreshToken, TokenManager};

use crate::common::alone::{alone, not_tested, test_of};
use crate::common::logs::{logged, record_logs};
use crate::common::process::{self, Process, each};
use crate::common::stores::HookedStore;
use crate::common::suite::{ask, bytes, key, put};
use crate::common::wait::*;

const OLD: &[u8] = b"old";

fn provider() -> FakeProvider {
    FakeProvider::new().with_identity(Identity::new("faults"))
}

fn manager(provider: &FakeProvider, store: &FileStore) -> TokenManager {
    let builder = TokenManager::builder(provider.clone()).jitter(0.0).store(store.clone());
    builder.store_check_interval(Duration::from_millis(50)).build().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

fn is_root() -> bool {
    // SAFETY: a plain system call.
    unsafe { libc::geteuid() == 0 }
}

/// Asserts that a write without room changes nothing, leaves nothing and frees the lease; callers get the token, and it
/// is written when there is room again.
fn finds_no_room(store: &FileStore, take_room: impl FnOnce(), give_room: impl FnOnce()) {
    let (provider, key, owner) = (provider(), key("room"), LeaseOwner::new("a"));
    put(store, &key, OLD, HOUR);
    take_room();
    let large = vec![b'x'; 50_000];
    let error = store.compare_and_swap(&key, Expected::Any, Some((&large, HOUR))).unwrap_err();
    assert!(error.kind() == ErrorKind::Store && error.to_string().contains("cannot be written"), "{error}");
    assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), OLD);
    assert!(!names(store.directory()).iter().any(|name| name.contains(".new")), "{:?}", names(store.directory()));
    // The record of the manager is smaller than the value that did not fit, and has to fit less room.
    let tokens = manager(&provider, store);
    let token = text(&tokens);
    assert_eq!(token, "token-1");
    give_room();
    assert!(matches!(store.compare_and_swap(&key, Expected::Any, Some((&large, HOUR))).unwrap(), SwapOutcome::Done(_)));
    assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), large);
    eventually("the token is written", || {
        assert_eq!(text(&tokens), token);
        store.read(tokens.key()).unwrap().is_some()
    });
    assert!(matches!(store.publish(&key, &owner, None, OLD, 2 * HOUR).unwrap(), PublishOutcome::Done(_)));
    assert_eq!((text(&manager(&provider, store)).as_str(), provider.calls()), ("token-1", 1));
}

#[test]
fn a_file_size_limit_costs_no_token() {
    alone(|| {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::at(folder.path().join("store"));
        // SAFETY: plain system calls. A write that is too long fails instead of ending the process.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let limit = |most: libc::rlim_t| {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: reads a value that outlives the call.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
        };
        finds_no_room(&store, || limit(100), || limit(libc::RLIM_INFINITY));
    });
}

#[test]
fn a_disk_without_room_costs_no_token() {
    alone(|| {
        let folder = tempfile::tempdir().unwrap();
        if let Err(error) = mount_small(folder.path()) {
            // `a_file_size_limit_costs_no_token` has tested the same with another limit.
            not_tested(&format!("a disk of its own, which cannot be mounted here: {error}"));
            return;
        }
        let store = FileStore::at(folder.path().join("store"));
        let filler = folder.path().join("filler");
        let fill = || {
            let full = io::copy(&mut io::repeat(0), &mut File::create(&filler).unwrap()).unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        };
        finds_no_room(&store, fill, || fs::remove_file(&filler).unwrap());
    });
}

/// Mounts a file system of 256 KiB for this process alone. The mount ends with the process.
fn mount_small(place: &Path) -> io::Result<()> {
    let text = |text: &str| CString::new(text).unwrap();
    let place = CString::new(place.as_os_str().as_bytes()).unwrap();
    let (none, root, kind, size) = (text("none"), text("/"), text("tmpfs"), text("size=256k,mode=700"));
    let check = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: plain system calls with strings that outlive them.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        check(libc::mount(none.as_ptr(), root.as_ptr(), std::ptr::null(), private, std::ptr::null()))?;
        check(libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, size.as_ptr().cast()))
    }
}

#[test]
fn a_directory_that_cannot_be_written_to_is_read_and_costs_no_token() {
    alone(|| {
        record_logs();
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            // File modes do not restrict root.
            chown(folder.path(), Some(65_534), Some(65_534)).unwrap();
            // SAFETY: plain system calls, for all threads of this process.
            unsafe {
                assert_eq!(libc::setgid(65_534), 0);
                assert_eq!(libc::setuid(65_534), 0);
            }
        }
        let store = FileStore::at(folder.path().join("store"));
        let mode = |mode: u32| fs::set_permissions(store.directory(), Permissions::from_mode(mode)).unwrap();
        let known = provider();
        assert_eq!(text(&manager(&known, &store)), "token-1");
        mode(0o500);
        assert!(File::create(store.directory().join("x")).is_err(), "the test is one");
        assert_eq!((text(&manager(&known, &store)).as_str(), known.calls()), ("token-1", 1), "what is there is read");
        let error = store.compare_and_swap(&key("new"), Expected::Any, Some((b"x", HOUR))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Store);
        let unknown = FakeProvider::new().with_identity(Identity::new("faults").part("name", "other"));
        let tokens = manager(&unknown, &store);
        assert_eq!(text(&tokens), "token-1");
        mode(0o700);
        eventually("the token is written", || {
            assert_eq!(text(&tokens), "token-1");
            store.read(tokens.key()).unwrap().is_some()
        });
        assert_eq!((text(&manager(&unknown, &store)).as_str(), unknown.calls()), ("token-1", 1));
        // A directory that cannot be searched.
        mode(0o000);
        assert_eq!(store.read(tokens.key()).unwrap_err().kind(), ErrorKind::Store);
        assert_eq!(text(&manager(&provider(), &store)), "token-1");
        mode(0o700);
        assert!(!logged().contains("token-1"), "{}", logged());
    });
}

#[test]
fn a_file_system_without_locks_shares_tokens_with_one_warning() {
    alone(|| {
        record_logs();
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::at(folder.path().join("store"));
        // Locks fail as on a file system without locks.
        forbid(&[libc::SYS_flock], libc::ENOLCK);
        let mine = File::create(folder.path().join("x")).unwrap();
        assert!(matches!(mine.try_lock(), Err(fs::TryLockError::Error(_))), "the test is one");
        // Many threads write the same record, each into a temporary file of its own.
        thread::scope(|scope| {
            for number in 0..8_u8 {
                let store = &store;
                scope.spawn(move || {
                    for _ in 0..25 {
                        let text = [number; 20_000];
                        put(store, &key("unlocked"), &text, HOUR);
                        let found = store.read(&key("unlocked")).unwrap().expect("never half");
                        assert!(found.bytes().iter().all(|byte| *byte == found.bytes()[0]));
                    }
                });
            }
        });
        assert!(matches!(ask(&store, &key("lease"), "a"), LeaseOutcome::Leased));
        assert!(matches!(ask(&store, &key("lease"), "b"), LeaseOutcome::Busy { .. }));
        assert!(matches!(
            store.publish(&key("lease"), &LeaseOwner::new("a"), None, b"x", HOUR).unwrap(),
            PublishOutcome::Done(_)
        ));
        assert!(matches!(ask(&store, &key("lease"), "b"), LeaseOutcome::Found(_)));
        let provider = provider();
        let managers: Vec<_> = (0..3).map(|_| manager(&provider, &store)).collect();
        managers.iter().for_each(|tokens| assert_eq!(text(tokens), "token-1"));
        assert_eq!(logged().matches("has no locks").count(), 1, "{}", logged());
        assert!(!names(store.directory()).iter().any(|name| name.contains(".new")), "{:?}", names(store.directory()));
    });
}

#[test]
fn without_locks_eight_processes_do_not_run_an_operation_and_the_error_says_what_to_do() {
    if let Some(port) = process::port() {
        return act_without_locks(&port);
    }
    let folder = tempfile::tempdir().unwrap();
    let (store, runs) = (folder.path().join("store"), folder.path().join("runs"));
    let name = test_of(&|| ());
    let mut processes: Vec<_> = (0..8).map(|_| Process::start(name)).collect();
    for round in 0..5 {
        let answers = each(&mut processes, &format!("{} {} {round}", store.display(), runs.display()));
        let count =
            fs::read_to_string(&runs).unwrap_or_default().lines().filter(|run| *run == round.to_string()).count();
        assert!(count <= 1, "it ran {count} times: {answers:?}");
        for answer in &answers {
            let text = format!(
                "Store: the operation was not started: the file system of {store:?} has no locks, which refresh tokens, \
                 tickets and idempotent operations need; name a directory on a local disk, or use another store"
            );
            assert_eq!(*answer, text);
        }
    }
}

/// Runs an operation in a directory without locks, for each line that it is told.
fn act_without_locks(port: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    forbid(&[libc::SYS_flock], libc::ENOLCK);
    for line in lines.map_while(Result::ok) {
        let [store, runs, key] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}?") };
        let ran = Idempotency::new(FileStore::at(store)).run(key, "", || {
            writeln!(File::options().append(true).create(true).open(runs)?, "{key}")?;
            Ok::<_, io::Error>(())
        });
        let answer = match ran {
            Err(error @ RunError::NotBegun(_)) => {
                let RunError::NotBegun(cause) = &error else { unreachable!("it was matched") };
                format!("{:?}: {error}", cause.kind())
            }
            other => format!("{other:?}"),
        };
        writeln!(stream, "{answer}").unwrap();
    }
}

#[test]
fn without_locks_no_refresh_token_is_used_or_kept() {
    alone(|| {
        let folder = tempfile::tempdir().unwrap();
        let host = FakeVendor::oauth2();
        let tokens = |store: Arc<dyn Store>| {
            let provider = RefreshToken::new(OAuth2::new(host.token_url(), "client", "secret"), "refresh-1");
            TokenManager::builder(provider).store(store).build().unwrap()
        };
        // Shows the keys that such a manager uses.
        let known = HookedStore::over(&MemoryStore::new());
        assert_eq!(text(&tokens(Arc::new(known.clone()))), "token-1");
        forbid(&[libc::SYS_flock], libc::ENOLCK);
        let store = FileStore::at(folder.path().join("store"));
        let error = tokens(Arc::new(store.clone())).token().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Store, "{error}");
        assert!(error.to_string().contains("has no locks, which refresh tokens"), "{error}");
        assert_eq!((host.calls(), host.used_refresh_tokens().len()), (1, 1), "nothing has been used since");
        for key in [known.key(":state"), known.key(":state:lock")] {
            for new in [Some((&b"x"[..], HOUR)), None] {
                let error = store.compare_and_swap(&key, Expected::Any, new).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Store);
                assert!(error.to_string().contains("has no locks, which refresh tokens"), "{error}");
            }
        }
    });
}

#[test]
fn a_write_that_cannot_be_synced_does_not_replace_the_record() {
    alone(|| {
        let folder = tempfile::tempdir().unwrap();
        let (store, key) = (FileStore::at(folder.path().join("store")), key("unsynced"));
        let old = put(&store, &key, OLD, HOUR);
        forbid(&[libc::SYS_fsync, libc::SYS_fdatasync], libc::EIO);
        let mine = File::create(folder.path().join("x")).unwrap();
        assert!(mine.sync_all().is_err() && mine.sync_data().is_err(), "the test is one");
        let is_as_it_was = |error: evertoken::Error| {
            assert!(error.kind() == ErrorKind::Store && error.to_string().contains("cannot be written"), "{error}");
            assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), OLD);
            assert!(
                !names(store.directory()).iter().any(|name| name.contains(".new")),
                "{:?}",
                names(store.directory())
            );
        };
        is_as_it_was(store.compare_and_swap(&key, Expected::Version(&old), Some((b"new", HOUR))).unwrap_err());
        // A lease need not survive a power failure, and is free again when its holder could not write.
        for owner in ["a", "b"].map(LeaseOwner::new) {
            let held = store.read_or_lease(&key, Some(&old), SECOND, &owner, 10 * SECOND).unwrap();
            assert!(matches!(held, LeaseOutcome::Leased), "{held:?}");
            is_as_it_was(store.publish(&key, &owner, Some(&old), b"new", 2 * HOUR).unwrap_err());
        }
        assert_eq!(text(&manager(&provider(), &store)), "token-1");
    });
}

#[test]
fn a_removal_is_brought_to_the_disk_before_it_counts() {
    alone(|| {
        let folder = tempfile::tempdir().unwrap();
        let (store, key) = (FileStore::at(folder.path().join("store")), key("removed"));
        put(&store, &key, OLD, HOUR);
        forbid(&[libc::SYS_fsync, libc::SYS_fdatasync], libc::EIO);
        let error = store.compare_and_swap(&key, Expected::Any, None).unwrap_err();
        assert!(error.kind() == ErrorKind::Store && error.to_string().contains("cannot be synced"), "{error}");
        assert!(store.read(&key).unwrap().is_none(), "it is gone as long as the power lasts");
    });
}

#[test]
fn a_record_that_is_written_counts_although_its_lease_cannot_be_released() {
    alone(|| {
        let folder = tempfile::tempdir().unwrap();
        let (store, key, owner) = (FileStore::at(folder.path().join("store")), key("held"), LeaseOwner::new("a"));
        assert!(matches!(ask(&store, &key, "a"), LeaseOutcome::Leased));
        forbid(&[libc::SYS_unlink, libc::SYS_unlinkat], libc::EIO);
        assert!(
            fs::remove_file(folder.path().join("x")).unwrap_err().kind() != io::ErrorKind::NotFound,
            "the test is one"
        );
        let published = store.publish(&key, &owner, None, b"new", HOUR).unwrap();
        assert!(matches!(published, PublishOutcome::Done(_)), "{published:?}");
        assert_eq!(bytes(store.read(&key).unwrap()).unwrap(), b"new");
        // Free for all that: the file that its holder had locked is not locked any more.
        let version = Version::of_bytes(b"new");
        let next = store.read_or_lease(&key, Some(&version), SECOND, &LeaseOwner::new("b"), HOUR).unwrap();
        assert!(matches!(next, LeaseOutcome::Leased), "{next:?}");
    });
}

/// Makes these system calls fail with `error` from now on, in this thread and in threads that it starts.
fn forbid(calls: &[libc::c_long], error: libc::c_int) {
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let (load, equal, answer) =
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ, libc::BPF_RET);
    // The number of the system call is the first field of the filter's input.
    let mut filter = vec![statement(load, 0, 0, 0)];
    for (call, left) in calls.iter().zip((1..=calls.len()).rev()) {
        // Jumps over the remaining comparisons and over the return that allows the call.
        filter.push(statement(equal | libc::BPF_K, u32::try_from(*call).unwrap(), u8::try_from(left).unwrap(), 0));
    }
    filter.push(statement(answer | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0));
    let refuse = libc::SECCOMP_RET_ERRNO | u32::try_from(error).unwrap();
    filter.push(statement(answer | libc::BPF_K, refuse, 0, 0));
    let program = libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the filter before this returns.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let set = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }
}
