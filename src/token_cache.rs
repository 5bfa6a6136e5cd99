//! The hot path: a copy of the current token in 16 shards, read by `token()` without contention.
//!
//! # Theory of operation
//!
//! - A *reader* locks the shard of its thread, compares the time with `usable_until` on both clocks, counts the read
//!   and clones the shard's own handle of the token. Nothing in this path is shared between threads on different
//!   shards.
//! - A *writer* ([`set`](TokenCache::set), [`clear`](TokenCache::clear)) changes the shards one after another and
//!   returns after the last. A reader that starts after the writer has returned sees the change.
//! - The cache decides nothing. The manager sets and clears the cache under the lock of its own state. `usable_until`
//!   is the start of the safety margin (or of the hard stop, if that is sooner): later calls go through the manager.
//! - The manager learns about use in two ways: [`reads`](TokenCache::reads) counts, and
//!   [`notify_on_next_read`](TokenCache::notify_on_next_read) asks for a report of the next read.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::clock::Timestamp;
use crate::lock::lock;
use crate::token::Token;

/// The current token of one manager, copied into shards.
///
/// A read takes about 10 ns with any number of threads.
#[derive(Debug, Default)]
pub(crate) struct TokenCache {
    /// Boxed, because the alignment of a shard would pad the struct that contains the cache.
    shards: Box<[Shard; SHARDS]>,
    /// Held while the shards change. Without this lock, two writers could leave different tokens in the shards.
    writer: Mutex<()>,
}

/// A copy of the token, aligned to two cache lines of 64 bytes.
///
/// Processors fetch cache lines in pairs. Two threads whose shards share a pair would need half as much time again.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    cached: Option<CachedToken>,
    reads: u64,
    /// True when the next reader has to report that the token is in use.
    notify: bool,
}

#[derive(Debug)]
struct CachedToken {
    token: Token,
    /// The handle that the readers of this shard clone. The first reader creates it, because each handle takes two
    /// cache lines and most managers of a large fleet are read by few threads.
    shard_handle: Option<Token>,
    usable_until: Timestamp,
}

impl CachedToken {
    #[cold]
    #[inline(never)]
    fn clone_for_first_reader(&mut self) -> Token {
        self.shard_handle.insert(self.token.new_handle()).clone()
    }
}

/// A successful read.
pub(crate) struct CacheRead {
    pub(crate) token: Token,
    /// True for the first read of a shard after [`TokenCache::notify_on_next_read`].
    pub(crate) notify: bool,
}

impl TokenCache {
    /// Returns the token if callers may get it at `now`.
    ///
    /// Does no I/O. Allocates only for the first read of a shard after [`set`](TokenCache::set).
    #[inline(always)]
    pub(crate) fn get(&self, now: Timestamp) -> Option<CacheRead> {
        let mut contents = lock(&self.shards[current_shard()].0);
        let contents = &mut *contents;
        let cached = contents.cached.as_mut().filter(|cached| !now.reaches(cached.usable_until))?;
        contents.reads += 1;
        let notify = std::mem::take(&mut contents.notify);
        let token = match &cached.shard_handle {
            Some(handle) => handle.clone(),
            None => cached.clone_for_first_reader(),
        };
        Some(CacheRead { token, notify })
    }

    /// Gives `token` to every reader from now on, until `usable_until`.
    pub(crate) fn set(&self, token: &Token, usable_until: Timestamp) {
        self.replace(|| Some(CachedToken { token: token.clone(), shard_handle: None, usable_until }));
    }

    /// Removes the token. No reader gets the old one after this function has returned.
    pub(crate) fn clear(&self) {
        self.replace(|| None);
    }

    fn replace(&self, new: impl Fn() -> Option<CachedToken>) {
        let _alone = lock(&self.writer);
        for shard in self.shards.iter() {
            let fresh = new();
            let old = {
                let mut contents = lock(&shard.0);
                // A report that was asked for the old token says nothing about the use of the new one.
                contents.notify = false;
                std::mem::replace(&mut contents.cached, fresh)
            };
            // Dropped after the lock: wiping a secret takes time, and readers need not wait for that.
            drop(old);
        }
    }

    /// Makes the next read of each shard report itself in [`CacheRead::notify`].
    pub(crate) fn notify_on_next_read(&self) {
        for shard in self.shards.iter() {
            lock(&shard.0).notify = true;
        }
    }

    /// Returns how often callers got a token from the cache.
    pub(crate) fn reads(&self) -> u64 {
        self.shards.iter().map(|shard| lock(&shard.0).reads).sum()
    }
}

/// Returns the shard of the calling thread. Threads are assigned to the shards in turn and keep their shard.
#[inline]
fn current_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // `const` and without a destructor, so that a read is a single load.
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            let number = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            // Even shards first: up to eight threads then have no neighbouring shards, which prefetching could couple.
            shard.set(number * 2 % SHARDS + number / (SHARDS / 2));
        }
        shard.get()
    })
}

/// The number of shards. More shards would let fewer threads share one; fewer would make a manager smaller: each shard
/// takes 128 bytes, and as much again for its handle of the token once a thread has read it.
const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::clock::Time;
    use crate::secret::Secret;

    fn now() -> Timestamp {
        Timestamp::new(Duration::from_secs(100), Duration::from_secs(1_000))
    }

    fn token(text: &str, end: Timestamp) -> Token {
        Token::new(Secret::from(text), end, Time::System)
    }

    #[test]
    fn a_token_is_returned_before_usable_until_and_not_at_it() {
        let cache = TokenCache::default();
        let usable_until = now().after(Duration::from_secs(1));
        assert!(cache.get(now()).is_none());
        cache.set(&token("t", usable_until), usable_until);
        assert!(cache.get(usable_until.before(Duration::from_nanos(1))).is_some());
        assert!(cache.get(usable_until).is_none());
        assert_eq!(cache.reads(), 1);
    }

    #[test]
    fn after_clear_no_thread_gets_the_token() {
        let cache = TokenCache::default();
        let usable_until = now().after(Duration::from_secs(1));
        for round in 0..50 {
            cache.set(&token(&round.to_string(), usable_until), usable_until);
            cache.clear();
            thread::scope(|scope| {
                for _ in 0..SHARDS {
                    scope.spawn(|| assert!(cache.get(now()).is_none()));
                }
            });
        }
    }

    #[test]
    fn notify_on_next_read_reports_one_read() {
        let cache = TokenCache::default();
        let usable_until = now().after(Duration::from_secs(1));
        cache.set(&token("t", usable_until), usable_until);
        assert!(!cache.get(now()).expect("a token is held").notify);
        cache.notify_on_next_read();
        assert!(cache.get(now()).expect("a token is held").notify);
        assert!(!cache.get(now()).expect("a token is held").notify);
    }

    #[test]
    fn sixteen_threads_have_sixteen_shards() {
        let shard_of_new_thread = || thread::spawn(current_shard).join().expect("the thread does not panic");
        // Other tests start threads meanwhile, which take shards too, so more than 16 threads may be needed.
        let mut shards: Vec<_> = (0..8 * SHARDS).map(|_| shard_of_new_thread()).collect();
        shards.sort_unstable();
        shards.dedup();
        assert_eq!(shards, (0..SHARDS).collect::<Vec<_>>());
    }

    #[test]
    fn a_shard_fills_two_cache_lines() {
        assert_eq!(size_of::<Shard>(), 128);
    }
}
