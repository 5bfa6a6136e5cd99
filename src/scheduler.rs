//! The one background thread: it looks after the tokens of all managers.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use once_cell::sync::OnceCell;

use crate::clock::{Deadline, Notifier, Time, Timestamp};
use crate::error::catch_panic;
use crate::lock::{lock, wait};
use crate::thread::spawn;

/// Something that has to be looked at now and then.
pub(crate) trait Task: Send + Sync {
    /// Does what is due and says when to look again. Runs on the refresher's thread, so it must not block: what takes
    /// time flies on a thread of its own, with a [permit](try_permit) to keep.
    fn run(self: Arc<Self>) -> Next;
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    At(Timestamp),
    /// As soon as there may be a [permit](try_permit). Waiting since this moment.
    WhenPermitFree(Timestamp),
    /// Never: there is nothing to look after until somebody [schedules](schedule) it again.
    Done,
}

/// A task's name, never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TaskId(u64);

impl TaskId {
    pub(crate) fn new() -> TaskId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        TaskId(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// Has `task` looked at when `at` comes. Starts the thread when there is none.
pub(crate) fn schedule(id: TaskId, task: Weak<dyn Task>, time: &Time, at: Timestamp) {
    register(id, task, time, at);
    ensure_running();
}

/// The same, but leaves it to a later [`ensure_running`] to start the thread: that takes longer than all the rest.
pub(crate) fn register(id: TaskId, task: Weak<dyn Task>, time: &Time, at: Timestamp) {
    let due = Deadline::within(time.now().until(at));
    let mut registry = lock(&scheduler().registry);
    let revision = registry.entries.get(&id).map_or(0, |entry| entry.revision) + 1;
    let replaced = registry.entries.insert(id, Entry { task, time: time.clone(), next: Next::At(at), revision });
    if registry.running && registry.sleeps_until.is_none_or(|until| due < until) {
        scheduler().wake(&mut registry);
    }
    drop(registry);
    // Only now, because a clock of the user's may go with it.
    drop(replaced);
}

/// Starts the thread if there is somebody to look after and nobody does.
pub(crate) fn ensure_running() {
    let mut registry = lock(&scheduler().registry);
    if !registry.running && !registry.entries.is_empty() {
        // Without a thread the token is still served; callers then wait for its renewal.
        registry.running = spawn("evertoken-refresher", run_loop).is_ok();
    }
}

/// Forgets a task. When it was the last one, the thread ends at once.
pub(crate) fn remove(id: TaskId) {
    let mut registry = lock(&scheduler().registry);
    let removed = registry.entries.remove(&id);
    if registry.entries.is_empty() {
        scheduler().wake(&mut registry);
    }
    drop(registry);
    drop(removed);
}

/// What a clock calls when it jumps.
pub(crate) fn clock_notifier() -> Notifier {
    Notifier::new(|| scheduler().wake(&mut lock(&scheduler().registry)))
}

/// Room for one flight in the background, while there is any.
pub(crate) fn try_permit() -> Option<Permit> {
    let scheduler = scheduler();
    let mut registry = lock(&scheduler.registry);
    (registry.permits_in_use < MAX_PERMITS).then(|| {
        registry.permits_in_use += 1;
        Permit { scheduler }
    })
}

fn has_free_permit() -> bool {
    lock(&scheduler().registry).permits_in_use < MAX_PERMITS
}

/// Room for one flight. Dropping it makes room for the next.
pub(crate) struct Permit {
    scheduler: &'static Scheduler,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // A forked child has permits of its own; its parent's lock may be taken for ever.
        if self.scheduler.process == std::process::id() {
            let mut registry = lock(&self.scheduler.registry);
            registry.permits_in_use = registry.permits_in_use.saturating_sub(1);
            self.scheduler.wake(&mut registry);
        }
    }
}

/// What belongs to one process. A forked child starts with one of its own: its parent's thread stayed behind, perhaps
/// while it held the lock.
struct Scheduler {
    process: u32,
    registry: Mutex<Registry>,
    wakeup: Condvar,
}

#[derive(Default)]
struct Registry {
    entries: HashMap<TaskId, Entry>,
    running: bool,
    /// The thread is to look before its rest is over.
    is_woken: bool,
    /// `None` while the thread does not rest.
    sleeps_until: Option<Deadline>,
    permits_in_use: usize,
}

/// This process and those that it was forked from, one after another.
static SCHEDULERS: [OnceCell<Scheduler>; MAX_FORK_DEPTH] = [const { OnceCell::new() }; MAX_FORK_DEPTH];

fn scheduler() -> &'static Scheduler {
    let id = std::process::id();
    let mut last = &SCHEDULERS[0];
    for candidate in &SCHEDULERS {
        last = candidate;
        if candidate.get_or_init(|| Scheduler::new(id)).process == id {
            break;
        }
    }
    // Beyond the last generation all share one, as they would without this.
    last.get_or_init(|| Scheduler::new(id))
}

impl Scheduler {
    fn new(id: u32) -> Scheduler {
        Scheduler { process: id, registry: Mutex::default(), wakeup: Condvar::new() }
    }

    fn wake(&self, registry: &mut Registry) {
        registry.is_woken = true;
        self.wakeup.notify_all();
    }
}

#[derive(Clone)]
struct Entry {
    task: Weak<dyn Task>,
    time: Time,
    next: Next,
    /// Counts the calls of [`schedule`], so that a look does not overwrite what was asked for meanwhile.
    revision: u64,
}

/// The thread. It ends when there is nobody left to look after.
fn run_loop() {
    let _guard = RestartGuard;
    while let Some((entries, permit_free)) = copy_entries() {
        let Plan { due, broken, sleep } = make_plan(entries, permit_free);
        broken.into_iter().for_each(|(id, entry)| reschedule(id, entry, Next::Done));
        if due.is_empty() {
            sleep_for(sleep);
        }
        for (id, entry) in due {
            // When the room is taken up, to look at all the others that wait for it would be in vain.
            if !matches!(entry.next, Next::WhenPermitFree(_)) || has_free_permit() {
                run_task(id, entry);
            }
        }
    }
}

/// Starts the thread anew should it ever panic: whatever is the cause, it belongs to one manager, and the others must
/// not be forgotten for it.
struct RestartGuard;

impl Drop for RestartGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&scheduler().registry).running = spawn("evertoken-refresher", run_loop).is_ok();
        }
    }
}

/// All entries, copied: their clocks may be the user's, so they are read outside the lock. `None`: there are none, and
/// the next [`schedule`] starts a new thread.
fn copy_entries() -> Option<(Vec<(TaskId, Entry)>, bool)> {
    let mut registry = lock(&scheduler().registry);
    registry.is_woken = false;
    if registry.entries.is_empty() {
        registry.running = false;
        return None;
    }
    let entries = registry.entries.iter().map(|(id, entry)| (*id, entry.clone())).collect();
    Some((entries, registry.permits_in_use < MAX_PERMITS))
}

/// What there is to do for the entries.
struct Plan {
    /// Who is to be looked at now, the longest overdue first.
    due: Vec<(TaskId, Entry)>,
    /// Whose clock panicked.
    broken: Vec<(TaskId, Entry)>,
    /// How long nobody else is due.
    sleep: Duration,
}

fn make_plan(entries: Vec<(TaskId, Entry)>, permit_free: bool) -> Plan {
    let system = Time::System.now();
    let mut sleep = MAX_SLEEP;
    let (mut due, mut broken) = (Vec::new(), Vec::new());
    for (id, entry) in entries {
        let Some(now) = (if let Time::System = entry.time { Some(system) } else { read_clock(&entry.time) }) else {
            broken.push((id, entry));
            continue;
        };
        match entry.next {
            Next::At(at) if !now.reaches(at) => sleep = sleep.min(now.until(at)),
            Next::At(at) => due.push((now.since(at), id, entry)),
            Next::WhenPermitFree(since) if permit_free => due.push((now.since(since), id, entry)),
            Next::WhenPermitFree(_) | Next::Done => {}
        }
    }
    due.sort_by_key(|(overdue, ..)| Reverse(*overdue));
    Plan { due: due.into_iter().map(|(_, id, entry)| (id, entry)).collect(), broken, sleep }
}

/// What a clock shows. `None`: it is the user's, and it panicked.
fn read_clock(time: &Time) -> Option<Timestamp> {
    catch_panic(|| Ok(time.now())).ok()
}

fn sleep_for(sleep: Duration) {
    let (scheduler, until) = (scheduler(), Deadline::within(sleep));
    let mut registry = lock(&scheduler.registry);
    registry.sleeps_until = Some(until);
    while !registry.is_woken && !until.has_passed() {
        registry = wait(&scheduler.wakeup, registry, until.remaining());
    }
    registry.sleeps_until = None;
}

fn run_task(id: TaskId, entry: Entry) {
    let next = match entry.task.upgrade() {
        Some(task) => catch_panic(|| Ok(task.run())).unwrap_or(Next::Done),
        None => Next::Done,
    };
    let next = match (next, entry.next) {
        // A moment that has come already would be looked at again and again.
        (Next::At(at), _) => {
            read_clock(&entry.time).map_or(Next::Done, |now| Next::At(at.later(now.after(MIN_INTERVAL))))
        }
        // Who waits keeps the place in the queue.
        (Next::WhenPermitFree(_), Next::At(since) | Next::WhenPermitFree(since)) => Next::WhenPermitFree(since),
        (next, _) => next,
    };
    reschedule(id, entry, next);
}

/// Notes when to look again, unless somebody has asked for something else meanwhile.
fn reschedule(id: TaskId, entry: Entry, next: Next) {
    // `entry` outlives the lock: a clock of the user's may go with it.
    let mut registry = lock(&scheduler().registry);
    if registry.entries.get(&id).is_none_or(|current| current.revision != entry.revision) {
        return;
    }
    if next == Next::Done {
        registry.entries.remove(&id);
    } else if let Some(current) = registry.entries.get_mut(&id) {
        current.next = next;
    }
}

/// Background flights at once: enough that a slow provider delays nobody else, few enough not to be a storm.
const MAX_PERMITS: usize = 8;

/// Timed waits stand still while a machine sleeps, and a wall clock can be set without anybody being told.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// A child of a child of a child: deeper than programs fork.
const MAX_FORK_DEPTH: usize = 16;

const MIN_INTERVAL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    struct Idle;

    impl Task for Idle {
        fn run(self: Arc<Self>) -> Next {
            Next::Done
        }
    }

    fn entry(next: Next) -> (TaskId, Entry) {
        let task: Weak<dyn Task> = Weak::<Idle>::new();
        (TaskId::new(), Entry { task, time: Time::System, next, revision: 0 })
    }

    fn within(wait: Duration) -> Next {
        Next::At(Time::System.now().after(wait))
    }

    #[test]
    fn it_looks_again_at_least_every_thirty_seconds() {
        let plan = make_plan(vec![entry(within(Duration::from_secs(7200)))], true);
        assert!(plan.due.is_empty());
        assert_eq!(plan.sleep, Duration::from_secs(30));
    }

    #[test]
    fn it_rests_no_longer_than_until_the_next_one_is_due() {
        let plan = make_plan(
            vec![entry(within(Duration::from_secs(9))), entry(Next::WhenPermitFree(Time::System.now()))],
            false,
        );
        assert!(plan.due.is_empty());
        assert!(plan.sleep <= Duration::from_secs(9));
    }

    #[test]
    fn the_longest_overdue_comes_first_whether_it_waited_for_room_or_not() {
        let past = |seconds| Time::System.now().before(Duration::from_secs(seconds));
        let (late, later) = (entry(Next::At(past(5))), entry(Next::At(past(50))));
        let waiting = entry(Next::WhenPermitFree(past(20)));
        let order = [later.0, waiting.0, late.0];
        let plan = make_plan(vec![late, later, waiting], true);
        assert_eq!(plan.due.iter().map(|(id, _)| *id).collect::<Vec<_>>(), order);
    }

    struct Reporting(crossbeam_channel::Sender<()>);

    impl Task for Reporting {
        fn run(self: Arc<Self>) -> Next {
            let _ = self.0.send(());
            Next::Done
        }
    }

    #[test]
    fn a_thread_that_panics_has_an_guard() {
        let (sender, looked) = crossbeam_channel::bounded(1);
        let reporting: Arc<dyn Task> = Arc::new(Reporting(sender));
        // Entered by hand: `schedule` would start a thread.
        let entry = Entry { task: Arc::downgrade(&reporting), ..entry(within(Duration::ZERO)).1 };
        lock(&scheduler().registry).entries.insert(TaskId::new(), entry);
        let dying = std::thread::spawn(|| {
            let _guard = RestartGuard;
            panic!("of whatever cause");
        });
        assert!(dying.join().is_err());
        assert!(looked.recv_timeout(Duration::from_secs(30)).is_ok());
    }

    #[test]
    fn there_is_room_for_eight() {
        let permits: Vec<_> = std::iter::from_fn(try_permit).take(100).collect();
        assert!(permits.len() <= MAX_PERMITS && try_permit().is_none());
        drop(permits);
        assert!(try_permit().is_some());
    }
}
