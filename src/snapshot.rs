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
/// 10 ns, whatever the number of threads. [`set`](Snapshot::set) and [`clear`](Snapshot::clear) return after every
/// shard has changed, so that no reader gets the old token afterwards.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Boxed, because their alignment would pad whatever they stand in.
    shards: Box<[Shard; SHARDS]>,
    /// Writers go one after another, or two of them could leave half of the shards each.
    writer: Mutex<()>,
}

/// Alone in its cache lines: processors fetch them in pairs of 64 bytes, and two threads on one pair cost half as much
/// again.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Slot>);

#[derive(Debug, Default)]
struct Slot {
    held: Option<Held>,
    hits: u64,
    /// Set when the next reader is to report that the token is in use.
    alarm: bool,
}

#[derive(Debug)]
struct Held {
    token: Token,
    /// The handle that this shard's readers clone. Made for the first of them: most managers of a large fleet are read
    /// by few threads, and each handle takes a cache line.
    own: Option<Token>,
    until: Timestamp,
}

impl Held {
    #[cold]
    #[inline(never)]
    fn first_clone(&mut self) -> Token {
        self.own.insert(self.token.another_handle()).clone()
    }
}

/// What a reader found.
pub(crate) struct Hit {
    pub(crate) token: Token,
    /// True for the first reader of a shard since [`Snapshot::arm`].
    pub(crate) alarm: bool,
}

impl Snapshot {
    /// The token, if it may be handed out at `now`. Does no I/O and waits for nobody; allocates for the first reader of
    /// a shard since [`set`](Snapshot::set) only.
    #[inline(always)]
    pub(crate) fn get(&self, now: Timestamp) -> Option<Hit> {
        let mut slot = lock(&self.shards[shard_of_this_thread()].0);
        let slot = &mut *slot;
        let held = slot.held.as_mut().filter(|held| !now.reaches(held.until))?;
        slot.hits += 1;
        let alarm = std::mem::take(&mut slot.alarm);
        let token = match &held.own {
            Some(own) => own.clone(),
            None => held.first_clone(),
        };
        Some(Hit { token, alarm })
    }

    /// Gives `token` to every reader from now on, as long as `until` has not come.
    pub(crate) fn set(&self, token: &Token, until: Timestamp) {
        self.replace(|| Some(Held { token: token.clone(), own: None, until }));
    }

    /// Gives no token to any reader from now on.
    pub(crate) fn clear(&self) {
        self.replace(|| None);
    }

    fn replace(&self, held: impl Fn() -> Option<Held>) {
        let _alone = lock(&self.writer);
        for shard in self.shards.iter() {
            let fresh = held();
            let old = {
                let mut slot = lock(&shard.0);
                slot.alarm = false;
                std::mem::replace(&mut slot.held, fresh)
            };
            // Wiping a secret takes its time; readers need not wait for it.
            drop(old);
        }
    }

    /// Makes the next reader report itself in [`Hit::alarm`].
    pub(crate) fn arm(&self) {
        for shard in self.shards.iter() {
            lock(&shard.0).alarm = true;
        }
    }

    /// How often a token was handed out.
    pub(crate) fn hits(&self) -> u64 {
        self.shards.iter().map(|shard| lock(&shard.0).hits).sum()
    }
}

/// A thread keeps its shard for lifetime; threads take the shards in turn.
#[inline]
fn shard_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // `const` and without a destructor: one load to read.
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.with(|mine| {
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
        let snapshot = Snapshot::default();
        let until = now().after(Duration::from_secs(1));
        assert!(snapshot.get(now()).is_none());
        snapshot.set(&token("t", until), until);
        assert!(snapshot.get(until.before(Duration::from_nanos(1))).is_some());
        assert!(snapshot.get(until).is_none());
        assert_eq!(snapshot.hits(), 1);
    }

    #[test]
    fn after_clear_no_thread_gets_the_token() {
        let snapshot = Snapshot::default();
        let until = now().after(Duration::from_secs(1));
        for round in 0..50 {
            snapshot.set(&token(&round.to_string(), until), until);
            snapshot.clear();
            thread::scope(|scope| {
                for _ in 0..SHARDS {
                    scope.spawn(|| assert!(snapshot.get(now()).is_none()));
                }
            });
        }
    }

    #[test]
    fn an_armed_snapshot_reports_its_next_reader_once() {
        let snapshot = Snapshot::default();
        let until = now().after(Duration::from_secs(1));
        snapshot.set(&token("t", until), until);
        assert!(!snapshot.get(now()).expect("a token is held").alarm);
        snapshot.arm();
        assert!(snapshot.get(now()).expect("a token is held").alarm);
        assert!(!snapshot.get(now()).expect("a token is held").alarm);
    }

    #[test]
    fn sixteen_threads_have_sixteen_shards() {
        let mine = || thread::spawn(shard_of_this_thread).join().expect("it does not panic");
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
