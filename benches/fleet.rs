//! Many managers: the memory of each, their background refreshes, and a full pool.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Table, core_time, median, resident, seconds, threads};
use evertoken::provider::{FromFn, Grant, from_fn};
use evertoken::{TokenManager, TokenManagerBuilder, TokenPool};

fn main() {
    if !common::asked_to_measure() {
        return;
    }
    idle_managers();
    let fleet = |due| format!("1,000 refreshes are due {due}; a fetch takes 50 ms");
    refreshes(&fleet("within 10 s"), Duration::from_secs(4), Duration::from_secs(10));
    refreshes(&fleet("at the same moment"), Duration::from_secs(20), Duration::ZERO);
    due_at_once();
    steady_refreshes();
    full_pool();
}

// ---- memory and threads ---------------------------------------------------------------------------------------------

fn idle_managers() {
    let mut table = Table::new("10,000 managers, idle");
    let service = Arc::new(Service::default());
    // The first manager allocates what all managers share.
    let first = manager(&service, 0, HOURS).build().unwrap();
    first.token().unwrap();
    settle();

    let before = Costs::now();
    let managers: Vec<_> = (1..=MANY).map(|number| manager(&service, number, HOURS).build().unwrap()).collect();
    let built = Costs::now();
    let start = Instant::now();
    managers.iter().for_each(|manager| drop(manager.token().unwrap()));
    let filling = start.elapsed();
    settle();
    let held = Costs::now();

    let each = |costs: &Costs| (costs.live - before.live) / MANY;
    table.figure(
        "heap memory of each, with a token of 157 bytes",
        kibibytes(each(&held)),
        None,
        "<= 5 KiB",
        each(&held) <= 5 * 1024,
    );
    table.note("heap memory of each, without a token", kibibytes(each(&built)));
    if let (Some(after), Some(before)) = (held.resident, before.resident) {
        let each = after.saturating_sub(before) / MANY;
        table.figure("resident memory of each", kibibytes(each), None, "<= 5 KiB", each <= 5 * 1024);
    }
    if let Some(threads) = threads() {
        table.figure("threads beside the main one", threads - 1, None, "1", threads - 1 == 1);
    }
    table.note("first token of each, one after another", format!("{} us", filling.as_micros() / MANY as u128));
    if let Some(before) = core_time() {
        thread::sleep(Duration::from_secs(2));
        let spent = core_time().unwrap().saturating_sub(before);
        table.note("core time of the process during 2 idle seconds", format!("{} us", spent.as_micros()));
    }
    let start = Instant::now();
    drop(managers);
    table.note("dropping all managers", seconds(start.elapsed()));
    table.end();
    drop(first);
}

struct Costs {
    live: usize,
    resident: Option<usize>,
}

impl Costs {
    fn now() -> Costs {
        Costs { live: LIVE.load(Ordering::Relaxed), resident: resident() }
    }
}

/// Waits until the threads of finished refreshes have ended, which they do a moment after their callers have a token.
fn settle() {
    let start = Instant::now();
    while threads().is_some_and(|threads| threads > 2) && start.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(50));
}

fn kibibytes(bytes: usize) -> String {
    format!("{:.2} KiB", bytes as f64 / 1024.0)
}

// ---- background refreshes -------------------------------------------------------------------------------------------

/// Measures the background refreshes of many managers. The first is due after `lead`, during which the managers are
/// built and fetch their first tokens; the last is due `spread` later.
fn refreshes(title: &str, lead: Duration, spread: Duration) {
    let mut table = Table::new(title);
    let service = Arc::new(Service::default());
    let start = Instant::now();
    let managers: Vec<_> = (0..FLEET)
        .map(|number| {
            let due = start + lead + spread * u32::try_from(number).unwrap() / u32::try_from(FLEET).unwrap();
            due_at(&service, number, due)
        })
        .collect();
    let filled = start.elapsed();
    assert!(filled < lead, "this machine is too busy: the first tokens took {filled:?}");
    service.slow.store(true, Ordering::Relaxed);
    service.at_most.store(0, Ordering::Relaxed);
    let before = core_time();

    let refreshed = || managers.iter().filter(|manager| manager.metrics().background_refreshes > 0).count();
    while refreshed() < FLEET && start.elapsed() < lead + Duration::from_secs(30) {
        thread::sleep(Duration::from_millis(10));
    }
    let took = start.elapsed().saturating_sub(lead);
    let (refreshed, most) = (refreshed(), service.at_most.load(Ordering::Relaxed));
    let floor = spread.max(FETCH * u32::try_from(FLEET.div_ceil(8)).unwrap());

    table.figure("refreshed managers", refreshed, None, "1000", refreshed == FLEET);
    table.figure(
        "from the first due time to the last token (baseline: minimum)",
        seconds(took),
        Some(seconds(floor)),
        "<= 15 s",
        took <= Duration::from_secs(15),
    );
    table.figure("fetches at once, at most", most, None, "<= 8", most <= 8);
    note_core_time(&mut table, before, took);
    table.end();
}

/// Measures the refreshes of 10,000 managers that are due at the same moment, when the provider takes 5 ms.
fn due_at_once() {
    let mut table = Table::new("10,000 refreshes are due at the same moment; a fetch takes 5 ms");
    let service = Arc::new(Service { delay: Duration::from_millis(5), ..Service::default() });
    let lead = Duration::from_secs(20);
    let start = Instant::now();
    let managers: Vec<_> = (0..MANY).map(|number| due_at(&service, number, start + lead)).collect();
    assert!(start.elapsed() < lead, "this machine is too busy: the first tokens took {:?}", start.elapsed());
    service.slow.store(true, Ordering::Relaxed);
    let before = core_time();
    // On a busy machine the last tokens expire first, and their fetches do not count as background refreshes.
    let refreshed = || managers.iter().filter(|manager| manager.metrics().fetches_ok > 1).count();
    while refreshed() < MANY && start.elapsed() < lead + Duration::from_secs(120) {
        thread::sleep(Duration::from_millis(100));
    }
    let took = start.elapsed().saturating_sub(lead);
    table.figure("refreshed managers", refreshed(), None, "10000", refreshed() == MANY);
    // What eight threads need that do nothing but the fetches, measured on this machine in the same run.
    let fetching = Instant::now();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..MANY / 8).for_each(|_| thread::sleep(Duration::from_millis(5))));
        }
    });
    table.compare(
        "from the due time to the last token (baseline: 8 threads that sleep)",
        seconds(took),
        seconds(fetching.elapsed()),
    );
    note_core_time(&mut table, before, took);
    table.end();
}

/// Measures what the scheduler's thread takes for 14 refreshes in a second, among 100,000 managers and among few.
fn steady_refreshes() {
    let mut table = Table::new("14 refreshes in a second, for 10 s");
    let few = share_of_core(0);
    let many = share_of_core(100_000);
    if let (Some(few), Some(many)) = (few, many) {
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        table.compare("share of a core with 100,000 managers (baseline: 140)", percent(many), percent(few));
    }
    table.end();
}

/// Returns the share of a core that the scheduler's thread and the main one take, when 140 managers are refreshed within
/// ten seconds and `others` are not.
fn share_of_core(others: usize) -> Option<f64> {
    let service = Arc::new(Service::default());
    let idle: Vec<_> = (0..others).map(|number| manager(&service, number, HOURS).keep_warm(true)).collect();
    let idle: Vec<_> = idle.into_iter().map(|builder| builder.build().unwrap()).collect();
    idle.iter().for_each(|manager| drop(manager.token().unwrap()));
    let (lead, period) = (Duration::from_secs(3), Duration::from_secs(10));
    let start = Instant::now() + lead;
    let due = |number| start + period * u32::try_from(number).unwrap() / 140;
    let busy: Vec<_> = (0..140).map(|number| due_at(&service, others + number, due(number))).collect();
    service.slow.store(true, Ordering::Relaxed);
    thread::sleep(start.saturating_duration_since(Instant::now()));
    let before = core_time()?;
    thread::sleep(period);
    let spent = core_time()?.saturating_sub(before);
    settle();
    let refreshed = busy.iter().filter(|manager| manager.metrics().background_refreshes > 0).count();
    assert!(refreshed >= 138, "{refreshed} of 140 managers were refreshed");
    Some(spent.as_secs_f64() / period.as_secs_f64())
}

/// Returns a manager that has its first token, and whose refresh is due at `due`.
fn due_at(service: &Arc<Service>, number: usize, due: Instant) -> TokenManager {
    // Without jitter, a token with a short lifetime is refreshed after two thirds of it. The second token is valid for
    // hours.
    let lifetime = due.saturating_duration_since(Instant::now()) * 3 / 2;
    let manager = manager(service, number, lifetime).jitter(0.0).keep_warm(true).build().unwrap();
    manager.token().unwrap();
    manager
}

fn note_core_time(table: &mut Table, before: Option<Duration>, took: Duration) {
    if let (Some(before), Some(after)) = (before, core_time()) {
        let spent = after.saturating_sub(before);
        let share = spent.as_secs_f64() / took.as_secs_f64() * 100.0;
        table.note("core time of the remaining threads", format!("{} ms", spent.as_millis()));
        table.note("the same as a share of a core", format!("{share:.1} %"));
    }
}

// ---- a pool ---------------------------------------------------------------------------------------------------------

/// Measures a new tenant in a full pool of 100,000, beside a new tenant in a pool that has room.
fn full_pool() {
    let mut table = Table::new("a new tenant in a pool of 100,000");
    let service = Arc::new(Service::default());
    let pool = TokenPool::new().capacity(POOL);
    let new_tenant = |tenant: usize| {
        // Building the provider is not the pool's work, so it is done before.
        let provider = provider(&service, tenant, HOURS);
        let start = Instant::now();
        let manager = pool.manager(&tenant, || provider).unwrap();
        let took = start.elapsed();
        drop(manager);
        took.as_secs_f64() * 1e6
    };
    let with_room: Vec<_> = (0..POOL).map(new_tenant).collect();
    let full: Vec<_> = (POOL..POOL + 2000).map(new_tenant).collect();
    assert_eq!(pool.len(), POOL);
    let microseconds = |value: f64| format!("{value:.1} us");
    let room = median(with_room[POOL - 2000..].to_vec());
    table.compare(
        "median of 2,000 (baseline: before the pool is full)",
        microseconds(median(full.clone())),
        microseconds(room),
    );
    table.note("the slowest of 2,000", microseconds(full.into_iter().fold(0.0, f64::max)));
    let known = (POOL..POOL + 2000).map(|tenant| {
        let start = Instant::now();
        drop(pool.manager(&tenant, || provider(&service, tenant, HOURS)).unwrap());
        start.elapsed().as_secs_f64() * 1e9
    });
    table.note("a tenant that the pool knows, median", format!("{:.0} ns", median(known.collect())));
    table.end();
}

// ---- a provider without a network -----------------------------------------------------------------------------------

/// A provider that answers at once, or after `delay` when it is slow, and counts how many fetches run at a time.
struct Service {
    delay: Duration,
    slow: AtomicBool,
    serving: AtomicUsize,
    at_most: AtomicUsize,
    granted: AtomicUsize,
}

impl Default for Service {
    fn default() -> Service {
        Service {
            delay: FETCH,
            slow: AtomicBool::default(),
            serving: AtomicUsize::default(),
            at_most: AtomicUsize::default(),
            granted: AtomicUsize::default(),
        }
    }
}

/// Returns the builder of a manager whose first token is valid for `lifetime`.
fn manager(service: &Arc<Service>, number: usize, lifetime: Duration) -> TokenManagerBuilder {
    TokenManager::builder(provider(service, number, lifetime))
}

fn provider(service: &Arc<Service>, number: usize, lifetime: Duration) -> FromFn {
    let service = service.clone();
    let fetch = from_fn("fleet", move |_| {
        let serving = service.serving.fetch_add(1, Ordering::Relaxed) + 1;
        service.at_most.fetch_max(serving, Ordering::Relaxed);
        if service.slow.load(Ordering::Relaxed) {
            thread::sleep(service.delay);
        }
        service.serving.fetch_sub(1, Ordering::Relaxed);
        let token = format!("{:0157}", service.granted.fetch_add(1, Ordering::Relaxed));
        Ok(Grant::new(token, if service.slow.load(Ordering::Relaxed) { HOURS } else { lifetime }))
    });
    fetch.identity_part("account", number.to_string())
}

/// An allocator that counts the bytes in use.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all calls are passed on to the system's allocator, and counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MANY: usize = 10_000;
const FLEET: usize = 1_000;
const POOL: usize = 100_000;
const HOURS: Duration = Duration::from_secs(7200);
const FETCH: Duration = Duration::from_millis(50);
