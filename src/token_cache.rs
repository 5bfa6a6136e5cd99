//! The held token as callers read it: in several places, so that threads do not meet.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::clock::Timestamp;
use crate::lock::lock;
use crate::token::Token;

/// The token of one manager, copied into shards.
///
/// A reader locks the shard of its thread, compares two clocks, and clones a handle that nobody else counts on: about
/// 10 ns, whatever the number of threads. [`set`](TokenCache::set) and [`clear`](TokenCache::clear) return after every
/// shard has changed, so that no reader gets the old token afterwards.
#[derive(Debug, Default)]
pub(crate) struct TokenCache {
    /// Boxed, because their alignment would pad whatever they stand in.
    shards: Box<[Shard; SHARDS]>,
    /// Writers go one after another, or two of them could leave half of the shards each.
    writer: Mutex<()>,
}

/// Alone in its cache lines: processors fetch them in pairs of 64 bytes, and two threads on one pair cost half as much
/// again.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    cached: Option<CachedToken>,
    reads: u64,
    /// Set when the next reader is to report that the token is in use.
    notify: bool,
}

#[derive(Debug)]
struct CachedToken {
    token: Token,
    /// The handle that this shard's readers clone. Made for the first of them: most managers of a large fleet are read
    /// by few threads, and each handle takes a cache line.
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

/// What a reader found.
pub(crate) struct CacheRead {
    pub(crate) token: Token,
    /// True for the first reader of a shard since [`TokenCache::notify_on_next_read`].
    pub(crate) notify: bool,
}

impl TokenCache {
    /// The token, if it may be handed out at `now`. Does no I/O and waits for nobody; allocates for the first reader of
    /// a shard since [`set`](TokenCache::set) only.
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

    /// Gives `token` to every reader from now on, as long as `usable_until` has not come.
    pub(crate) fn set(&self, token: &Token, usable_until: Timestamp) {
        self.replace(|| Some(CachedToken { token: token.clone(), shard_handle: None, usable_until }));
    }

    /// Gives no token to any reader from now on.
    pub(crate) fn clear(&self) {
        self.replace(|| None);
    }

    fn replace(&self, new: impl Fn() -> Option<CachedToken>) {
        let _alone = lock(&self.writer);
        for shard in self.shards.iter() {
            let fresh = new();
            let old = {
                let mut contents = lock(&shard.0);
                contents.notify = false;
                std::mem::replace(&mut contents.cached, fresh)
            };
            // Wiping a secret takes its time; readers need not wait for it.
            drop(old);
        }
    }

    /// Makes the next reader report itself in [`CacheRead::notify`].
    pub(crate) fn notify_on_next_read(&self) {
        for shard in self.shards.iter() {
            lock(&shard.0).notify = true;
        }
    }

    /// How often a token was handed out.
    pub(crate) fn reads(&self) -> u64 {
        self.shards.iter().map(|shard| lock(&shard.0).reads).sum()
    }
}

/// A thread keeps its shard for lifetime; threads take the shards in turn.
#[inline]
fn current_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // `const` and without a destructor: one load to read.
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SHARD.with(|mine| {
        if mine.get() == usize::MAX {
            let number = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            // The even ones first: processors fetch cache lines in pairs, so neighbours would disturb each other.
            mine.set(number * 2 % SHARDS + number / (SHARDS / 2));
        }
        mine.get()
    })
}

/// So many that threads seldom share one, and so few that a manager stays small: each costs a cache line, and another
/// for its handle of the token.
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
    fn a_token_is_handed_out_until_its_moment_and_not_at_it() {
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
    fn an_armed_snapshot_reports_its_next_reader_once() {
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
        let mine = || thread::spawn(current_shard).join().expect("it does not panic");
        // Other tests start threads too, so a few more may have to be asked.
        let mut shards: Vec<_> = (0..8 * SHARDS).map(|_| mine()).collect();
        shards.sort_unstable();
        shards.dedup();
        assert_eq!(shards, (0..SHARDS).collect::<Vec<_>>());
    }

    #[test]
    fn a_shard_fills_whole_cache_lines() {
        assert_eq!(size_of::<Shard>(), 128);
    }
}
