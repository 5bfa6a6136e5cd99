//! Many managers: the memory of each, and their background refreshes when many are due at once.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Table, core_time, resident, seconds, threads};
use evertoken::provider::Grant;
use evertoken::{TokenManager, TokenManagerBuilder, provider};

fn main() {
    if !common::asked_to_measure() {
        return;
    }
    idle_managers();
    let fleet = |due| format!("1,000 refreshes are due {due}; a fetch takes 50 ms");
    refreshes(&fleet("within 10 s"), Duration::from_secs(4), Duration::from_secs(10));
    refreshes(&fleet("at the same moment"), Duration::from_secs(14), Duration::ZERO);
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
            // Without jitter, a token with a short lifetime is refreshed after two thirds of it. The second token is
            // valid for hours.
            let lifetime = due.saturating_duration_since(Instant::now()) * 3 / 2;
            let manager = manager(&service, number, lifetime).jitter(0.0).keep_warm(true).build().unwrap();
            manager.token().unwrap();
            manager
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
    if let (Some(before), Some(after)) = (before, core_time()) {
        table.note("core time of the remaining threads", format!("{} ms", after.saturating_sub(before).as_millis()));
    }
    table.end();
}

// ---- a provider without a network -----------------------------------------------------------------------------------

/// A provider that answers at once, or after [`FETCH`] when it is slow, and counts how many fetches run at a time.
#[derive(Default)]
struct Service {
    slow: AtomicBool,
    serving: AtomicUsize,
    at_most: AtomicUsize,
    granted: AtomicUsize,
}

/// Returns the builder of a manager whose first token is valid for `lifetime`.
fn manager(service: &Arc<Service>, number: usize, lifetime: Duration) -> TokenManagerBuilder {
    let service = service.clone();
    let fetch = provider::from_fn("fleet", move |_| {
        let serving = service.serving.fetch_add(1, Ordering::Relaxed) + 1;
        service.at_most.fetch_max(serving, Ordering::Relaxed);
        if service.slow.load(Ordering::Relaxed) {
            thread::sleep(FETCH);
        }
        service.serving.fetch_sub(1, Ordering::Relaxed);
        let token = format!("{:0157}", service.granted.fetch_add(1, Ordering::Relaxed));
        Ok(Grant::new(token, if service.slow.load(Ordering::Relaxed) { HOURS } else { lifetime }))
    });
    TokenManager::builder(fetch.identity_part("account", number.to_string()))
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
const HOURS: Duration = Duration::from_secs(7200);
const FETCH: Duration = Duration::from_millis(50);
