//! The scheduler: the background thread that runs the timers of all managers.
//!
//! # Theory of operation
//!
//! A manager is a [`Task`]. [`register`] records the task, the clock that the task goes by, and when the task has to
//! run. The thread repeats these steps:
//!
//! 1. Copy all entries under the lock. Everything else happens without the lock, because clocks and tasks are the
//!    user's code. When there is no entry, the thread ends; the next [`schedule`] starts a new one.
//! 2. Compare each entry with its clock. Remove entries whose clock panics.
//! 3. If no task is due, sleep until the earliest one is, at most [`MAX_SLEEP`]. A registration that is due sooner, a
//!    returned permit, a clock that jumps and the removal of the last task end the sleep.
//! 4. Run the tasks that are due, the longest overdue first. Each returns when it wants to run next. This result is
//!    dropped if the task was registered again meanwhile; the `revision` of an entry shows that.
//!
//! A task must not block, because all managers share the thread. A background refresh therefore runs on a thread of its
//! own and needs a [`Permit`]; there are [`MAX_PERMITS`]. A task that got none waits and keeps its place in the order.
//!
//! Faults: a task that panics is removed; a panic of the thread itself starts a new thread; after a fork the
//! child has a [`Scheduler`] of its own, without tasks, because the thread stayed in the parent and may have held the
//! lock. The scheduler holds `Weak` references, so a registered task does not keep a manager alive.

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

/// Work that the scheduler runs from time to time.
pub(crate) trait Task: Send + Sync {
    /// Does what is due, and returns when to run again.
    ///
    /// Runs on the scheduler's thread and must not block. A refresh runs on a thread of its own, which keeps a
    /// [permit](try_permit).
    fn run(self: Arc<Self>) -> Next;
}

/// When a task runs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    At(Timestamp),
    /// As soon as a [permit](try_permit) may be free. The time is the moment at which the task began to wait.
    WhenPermitFree(Timestamp),
    /// Not until the task is [registered](register) again.
    Done,
}

/// Identifies a task. A process never uses a number twice.
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

/// Registers `task` to run when the clock `time` reaches `at`, and starts the thread if none is running.
pub(crate) fn schedule(id: TaskId, task: Weak<dyn Task>, time: &Time, at: Timestamp) {
    register(id, task, time, at);
    ensure_running();
}

/// Like [`schedule`], but does not start the thread, which takes longer than the rest of a refresh's bookkeeping.
///
/// The caller calls [`ensure_running`] when it has released its locks and woken the callers that wait.
pub(crate) fn register(id: TaskId, task: Weak<dyn Task>, time: &Time, at: Timestamp) {
    // The thread sleeps on the system's clock, so the time on the task's clock is converted. Read before the lock is
    // taken, because the clock may be the user's.
    let due = Deadline::within(time.now().until(at));
    let mut registry = lock(&scheduler().registry);
    let revision = registry.entries.get(&id).map_or(0, |entry| entry.revision) + 1;
    let replaced = registry.entries.insert(id, Entry { task, time: time.clone(), next: Next::At(at), revision });
    if registry.running && registry.sleeps_until.is_none_or(|until| due < until) {
        scheduler().wake(&mut registry);
    }
    drop(registry);
    // Dropped after the lock: this may be the last reference to a clock of the user's, whose `drop` may do anything.
    drop(replaced);
}

/// Starts the thread if tasks are registered and no thread is running.
pub(crate) fn ensure_running() {
    let mut registry = lock(&scheduler().registry);
    if !registry.running && !registry.entries.is_empty() {
        // If no thread can be started, callers still get tokens, but wait for each refresh.
        registry.running = spawn("evertoken-refresher", run_loop).is_ok();
    }
}

/// Removes a task. The thread ends at once when this was the last one.
pub(crate) fn remove(id: TaskId) {
    let mut registry = lock(&scheduler().registry);
    let removed = registry.entries.remove(&id);
    if registry.entries.is_empty() {
        scheduler().wake(&mut registry);
    }
    drop(registry);
    drop(removed);
}

/// Returns the callback for clocks that jump: the thread compares all tasks with their clocks again.
pub(crate) fn clock_notifier() -> Notifier {
    Notifier::new(|| scheduler().wake(&mut lock(&scheduler().registry)))
}

/// Returns a permit for one background refresh, or `None` when all permits are in use.
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

/// The permission for one background refresh. Dropping it lets the next one start.
pub(crate) struct Permit {
    scheduler: &'static Scheduler,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // In a forked child, this is a copy of the parent's permit. The lock of the parent's scheduler may have been
        // copied while it was held, and would then never be released.
        if self.scheduler.process == std::process::id() {
            let mut registry = lock(&self.scheduler.registry);
            registry.permits_in_use = registry.permits_in_use.saturating_sub(1);
            self.scheduler.wake(&mut registry);
        }
    }
}

/// The scheduler of one process. A forked child gets a new one, because the parent's thread does not exist in the child
/// and the parent's lock may have been copied while it was held.
struct Scheduler {
    process: u32,
    registry: Mutex<Registry>,
    wakeup: Condvar,
}

#[derive(Default)]
struct Registry {
    entries: HashMap<TaskId, Entry>,
    /// True while the thread exists.
    running: bool,
    /// True when the thread has to end its sleep early.
    is_woken: bool,
    /// When the thread's sleep ends. `None` while the thread is awake.
    sleeps_until: Option<Deadline>,
    permits_in_use: usize,
}

/// The schedulers of the processes that this one was forked from, in order, and then its own.
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
    // Processes that are forked more deeply than this share the last scheduler.
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
    /// Counts registrations of this task, so that the result of a run does not replace a registration made meanwhile.
    revision: u64,
}

/// The body of the thread. Ends when no task is registered.
fn run_loop() {
    let _guard = RestartGuard;
    while let Some((entries, permit_free)) = copy_entries() {
        let Plan { due, broken, sleep } = make_plan(entries, permit_free);
        broken.into_iter().for_each(|(id, entry)| reschedule(id, entry, Next::Done));
        if due.is_empty() {
            sleep_for(sleep);
        }
        for (id, entry) in due {
            // The tasks before this one may have taken the last permit. Do not run every waiting task in vain.
            if !matches!(entry.next, Next::WhenPermitFree(_)) || has_free_permit() {
                run_task(id, entry);
            }
        }
    }
}

/// Starts a new thread when the thread panics, so that a fault in one manager does not stop the refreshes of all
/// others.
struct RestartGuard;

impl Drop for RestartGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&scheduler().registry).running = spawn("evertoken-refresher", run_loop).is_ok();
        }
    }
}

/// Returns a copy of all entries, and whether a permit is free.
///
/// The entries are copied so that their clocks, which may be the user's, are read without the lock. `None` means that
/// there is no entry: the thread has to end, and the next [`schedule`] starts a new one.
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

/// The work of one round of the thread.
struct Plan {
    /// The tasks to run, the longest overdue first.
    due: Vec<(TaskId, Entry)>,
    /// The tasks whose clock panicked.
    broken: Vec<(TaskId, Entry)>,
    /// How long to sleep if no task is due.
    sleep: Duration,
}

fn make_plan(entries: Vec<(TaskId, Entry)>, permit_free: bool) -> Plan {
    // Most managers use the system's clock, which is read once for all of them.
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

/// Reads a clock. Returns `None` if the clock is the user's and panics.
fn read_clock(time: &Time) -> Option<Timestamp> {
    catch_panic(|| Ok(time.now())).ok()
}

fn sleep_for(sleep: Duration) {
    let (scheduler, until) = (scheduler(), Deadline::within(sleep));
    let mut registry = lock(&scheduler.registry);
    registry.sleeps_until = Some(until);
    // `is_woken` is checked under the lock, so a wake-up between the last round and this wait is not lost.
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
        // A task that returns a time in the past would occupy the thread.
        (Next::At(at), _) => {
            read_clock(&entry.time).map_or(Next::Done, |now| Next::At(at.later(now.after(MIN_INTERVAL))))
        }
        // A task that still waits for a permit keeps its place in the order.
        (Next::WhenPermitFree(_), Next::At(since) | Next::WhenPermitFree(since)) => Next::WhenPermitFree(since),
        (next, _) => next,
    };
    reschedule(id, entry, next);
}

/// Records when the task runs next, unless the task was registered again or removed while it ran.
fn reschedule(id: TaskId, entry: Entry, next: Next) {
    // `entry` is dropped after the lock, because this may be the last reference to a clock of the user's.
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

/// How many background refreshes run at once. Eight, so that one slow provider does not delay all others, and a large
/// fleet whose tokens are due together does not send all its requests at once.
const MAX_PERMITS: usize = 8;

/// The longest sleep. Timed waits stand still while a machine is suspended, and a wall clock can be set without notice,
/// so the clocks are read at least this often.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// How many processes that were forked from one another have a scheduler each. Programs do not fork more deeply.
const MAX_FORK_DEPTH: usize = 16;

/// The shortest time between two runs of a task.
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
    fn the_thread_sleeps_thirty_seconds_at_most() {
        let plan = make_plan(vec![entry(within(Duration::from_secs(7200)))], true);
        assert!(plan.due.is_empty());
        assert_eq!(plan.sleep, Duration::from_secs(30));
    }

    #[test]
    fn the_thread_sleeps_until_the_next_task_is_due() {
        let plan = make_plan(
            vec![entry(within(Duration::from_secs(9))), entry(Next::WhenPermitFree(Time::System.now()))],
            false,
        );
        assert!(plan.due.is_empty());
        assert!(plan.sleep <= Duration::from_secs(9));
    }

    #[test]
    fn the_longest_overdue_task_runs_first_also_when_it_waited_for_a_permit() {
        let past = |seconds| Time::System.now().before(Duration::from_secs(seconds));
        let (overdue_5, overdue_50) = (entry(Next::At(past(5))), entry(Next::At(past(50))));
        let waiting_20 = entry(Next::WhenPermitFree(past(20)));
        let order = [overdue_50.0, waiting_20.0, overdue_5.0];
        let plan = make_plan(vec![overdue_5, overdue_50, waiting_20], true);
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
    fn a_thread_that_panics_is_replaced() {
        let (sender, runs) = crossbeam_channel::bounded(1);
        let reporting: Arc<dyn Task> = Arc::new(Reporting(sender));
        // Inserted directly, because `schedule` would start a thread.
        let entry = Entry { task: Arc::downgrade(&reporting), ..entry(within(Duration::ZERO)).1 };
        lock(&scheduler().registry).entries.insert(TaskId::new(), entry);
        let dying = std::thread::spawn(|| {
            let _guard = RestartGuard;
            panic!("any cause");
        });
        assert!(dying.join().is_err());
        assert!(runs.recv_timeout(Duration::from_secs(30)).is_ok());
    }

    #[test]
    fn there_are_eight_permits() {
        let permits: Vec<_> = std::iter::from_fn(try_permit).take(100).collect();
        assert!(permits.len() <= MAX_PERMITS && try_permit().is_none());
        drop(permits);
        assert!(try_permit().is_some());
    }
}
