//! The cost of `token()` when the manager has a token, compared with other ways to keep one.
//!
//! The unit is core time per get: wall time, times the number of busy cores, divided by the number of gets. A way that
//! scales perfectly has the same cost with any number of threads. All ways run in turn, round after round.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Barrier, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use common::{Table, cores, median, median_ratio};
use evertoken::TokenManager;
use evertoken::testing::FakeProvider;

/// Gets a token the given number of times. Each thread has a getter of its own.
type Getter = Box<dyn FnMut(u64)>;

/// A way to keep a token, and what it costs.
struct Way {
    make: Box<dyn Fn() -> Getter + Sync>,
    /// The number of gets that take about [`ROUND`] on one thread.
    gets: u64,
    /// Nanoseconds per get in wall time, by number of threads and by round.
    costs: [Vec<f64>; THREADS.len()],
    /// Nanoseconds per get in the core time that the system charged to the threads.
    charged: [Vec<f64>; THREADS.len()],
}

impl Way {
    fn new<G: FnMut(u64) + 'static>(make: impl Fn() -> G + Sync + 'static) -> Way {
        let mut way = Way {
            make: Box::new(move || Box::new(make())),
            gets: 100_000,
            costs: [const { Vec::new() }; 3],
            charged: [const { Vec::new() }; 3],
        };
        let nanoseconds = way.cost(1).0;
        way.gets = (ROUND.as_nanos() as f64 / nanoseconds) as u64;
        way
    }

    /// Runs the way once and returns nanoseconds per get: by wall time, and by the core time that the system charged.
    fn cost(&self, threads: usize) -> (f64, f64) {
        let busy = threads.min(cores());
        let each = (self.gets * busy as u64 / threads as u64).max(1);
        let barrier = Barrier::new(threads);
        // Each thread reads the clock itself, because a thread that watches the others may be the last to get a core.
        let run = || {
            let mut get = (self.make)();
            get(1_000.min(each));
            barrier.wait();
            let (charged, start) = (thread_time(), Instant::now());
            get(each);
            let end = Instant::now();
            (start, end, thread_time() - charged)
        };
        let times: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        // With a core for each thread, the threads' own times count, because they do not leave the barrier together.
        let own: Duration = times.iter().map(|(start, end, _)| end.duration_since(*start)).sum();
        let start = times.iter().map(|(start, ..)| *start).min().unwrap();
        let span = times.iter().map(|(_, end, _)| end.duration_since(start)).max().unwrap();
        let wall = if threads <= busy { own / threads as u32 } else { span };
        let gets = (each * threads as u64) as f64;
        let charged: f64 = times.iter().map(|(.., charged)| charged).sum();
        (wall.as_nanos() as f64 * busy as f64 / gets, charged / gets)
    }

    fn measure(&mut self, column: usize) {
        let (cost, charged) = self.cost(THREADS[column]);
        self.costs[column].push(cost);
        self.charged[column].push(charged);
    }

    fn typical(&self, column: usize) -> String {
        format!("{:.1} ns", median(self.costs[column].clone()))
    }

    fn ratio(&self, other: &Way, column: usize) -> f64 {
        median_ratio(&self.costs[column], &other.costs[column])
    }
}

fn main() {
    if !common::asked_to_measure() {
        return;
    }
    let mut ways = [token(), own_arc(), shared_arc(), seed_remedy(), borrowed_key(), moka()];
    let count = ways.len();
    for round in 0..ROUNDS {
        for column in 0..THREADS.len() {
            // The order rotates, so that no way is always the first after a change of the number of threads.
            (0..count).for_each(|turn| ways[(round + turn) % count].measure(column));
        }
    }
    report(&ways);
}

fn report([token, own_arc, shared_arc, remedy, borrowed_key, moka]: &[Way; 6]) {
    let title =
        format!("token() from memory: core time per get, medians of {ROUNDS} interleaved rounds, {} cores", cores());
    let mut table = Table::new(&title);
    for (column, threads) in [(0, "1 thread"), (1, "2 threads")] {
        let mut row = |other: &Way, name: &str, most: f64| {
            let what = format!("{threads}, against {name}");
            table.ratio(&what, token.typical(column), other.typical(column), token.ratio(other, column), most);
        };
        // With two threads, the ratio must not be higher than with one.
        let most = |bound: f64, other: &Way| if column == 0 { bound } else { bound.min(token.ratio(other, 0)) };
        row(own_arc, "clone and drop of a thread's own Arc<str>", 4.0);
        row(remedy, "RwLock<HashMap<String, String>>, format!", most(0.30, remedy));
        row(borrowed_key, "the same without format!", most(0.30, borrowed_key));
        row(moka, "moka::sync::Cache<_, Arc<str>>", most(0.17, moka));
    }
    let spread = |way: &Way, column: usize| median_ratio(&way.costs[column], &way.costs[0]);
    table.ratio("2 threads, against one thread", token.typical(1), token.typical(0), spread(token, 1), 1.2);
    table.ratio("64 threads, against one thread", token.typical(2), token.typical(0), spread(token, 2), 1.5);
    for (way, name) in [(shared_arc, "one shared Arc<str>"), (remedy, "the RwLock, format!"), (moka, "moka")] {
        let costs = [0, 1, 2].map(|column| way.typical(column)).join(", ");
        table.note(&format!("{name}, with 1, 2, 64 threads"), costs);
    }
    // On a busy machine, wall time includes other programs; charged time does not. The system does not charge turns
    // that are shorter than a tick, so charged time is not meaningful for 64 threads.
    let charged = [0, 1].map(|column| format!("{:.1} ns", median(token.charged[column].clone()))).join(", ");
    table.note("token(), charged core time, with 1, 2 threads", charged);
    table.end();
}

/// Returns the core time of this thread in nanoseconds. Zero on systems other than Linux.
fn thread_time() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or(0.0)
}

/// `token()` with everything it does: it reads both clocks and counts hits, and there is a subscription to events.
fn token() -> Way {
    let manager = TokenManager::new(FakeProvider::new().then_grant(text(), Duration::from_secs(7200)));
    let listener = manager.events();
    manager.token().unwrap();
    Way::new(move || {
        let (manager, _listener) = (manager.clone(), listener.clone());
        move |gets| (0..gets).for_each(|_| drop(black_box(manager.token().unwrap())))
    })
}

/// The minimum for any way that returns an owned token.
fn own_arc() -> Way {
    Way::new(|| {
        let own: Arc<str> = Arc::from(text());
        move |gets| (0..gets).for_each(|_| drop(black_box(own.clone())))
    })
}

fn shared_arc() -> Way {
    let shared: Arc<str> = Arc::from(text());
    Way::new(move || {
        let shared = shared.clone();
        move |gets| (0..gets).for_each(|_| drop(black_box(shared.clone())))
    })
}

/// A read-write lock around a map: builds the key, looks it up under the read lock, and clones the text.
fn seed_remedy() -> Way {
    let cache = one_entry();
    Way::new(move || {
        let cache = cache.clone();
        move |gets| {
            for _ in 0..gets {
                let key = format!("app_access_token:{}", black_box(APP));
                let token = cache.read().unwrap().get(&key).filter(|token| !token.is_empty()).cloned();
                drop(black_box(token.unwrap()));
            }
        }
    })
}

fn borrowed_key() -> Way {
    let cache = one_entry();
    Way::new(move || {
        let cache = cache.clone();
        move |gets| {
            for _ in 0..gets {
                let token = cache.read().unwrap().get(black_box(KEY)).filter(|token| !token.is_empty()).cloned();
                drop(black_box(token.unwrap()));
            }
        }
    })
}

fn one_entry() -> Arc<RwLock<HashMap<String, String>>> {
    Arc::new(RwLock::new(HashMap::from([(KEY.to_owned(), text())])))
}

fn moka() -> Way {
    let cache: moka::sync::Cache<String, Arc<str>> =
        moka::sync::Cache::builder().max_capacity(100).time_to_live(Duration::from_secs(7200)).build();
    cache.insert(KEY.to_owned(), Arc::from(text()));
    Way::new(move || {
        let cache = cache.clone();
        move |gets| (0..gets).for_each(|_| drop(black_box(cache.get(black_box(KEY)).unwrap())))
    })
}

/// Returns a token as long as one of WeCom.
fn text() -> String {
    "t".repeat(157)
}

const APP: &str = "cli_a1b2c3d4e5f6";
const KEY: &str = "app_access_token:cli_a1b2c3d4e5f6";

/// The numbers of threads.
const THREADS: [usize; 3] = [1, 2, 64];

/// An odd number, so that the median is one of the values.
const ROUNDS: usize = 15;

/// The duration of one way in one round.
const ROUND: Duration = Duration::from_millis(25);
