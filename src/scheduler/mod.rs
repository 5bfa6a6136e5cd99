//! The scheduler: the background thread that runs the timers of all managers.
//!
//! # Theory of operation
//!
//! A manager is a [`Task`]. [`register`] records the task, the clock that the task goes by, and when the task has to
//! run. The thread repeats these steps:
//!
//! 1. Ask the [`agenda`] under the lock what is due: the tasks whose time on the system's clocks has come, the tasks that
//!    waited for a permit and can have one, and copies of all tasks on clocks of the user's. Everything else happens
//!    without the lock, because clocks and tasks are the user's code. When there is no task, the thread ends; the next
//!    [`schedule`] starts a new one.
//! 2. Compare the tasks on clocks of the user's with these clocks. Remove tasks whose clock panics.
//! 3. If no task is due, sleep until the earliest one is, at most [`MAX_SLEEP`]. A registration that is due sooner, a
//!    returned permit that a task waits for, a clock that jumps and the removal of the last task end the sleep.
//! 4. Run the tasks that are due, the longest overdue first. Each returns when it wants to run next. This result is
//!    dropped if the task was registered again meanwhile; the `revision` of an entry shows that.
//!
//! A round takes O(log n) for each task that is due, and a scan of the tasks on clocks of the user's, which are few:
//! tests use them.
//!
//! A task must not block, because all managers share the thread. A background refresh therefore runs on a thread of its
//! own and needs a [`Permit`] of the task's [`Group`]. A group has eight permits, so a provider that hangs delays no
//! refresh of another provider. A task that got no permit waits and keeps its place in the order.
//!
//! Faults: a task that panics is removed; a panic of the thread itself starts a new thread; after a fork the
//! child has a [`Scheduler`] of its own, without tasks, because the thread stayed in the parent and may have held the
//! lock. The scheduler holds `Weak` references, so a registered task does not keep a manager alive.

mod agenda;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use once_cell::sync::OnceCell;

use self::agenda::{Agenda, Moment, Place, Round, Turn};
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
    /// As soon as a [permit](try_permit) may be free.
    WhenPermitFree,
    /// Not until the task is [registered](register) again.
    Done,
}

/// Identifies a task and its group. A process never uses a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TaskId {
    number: u64,
    group: Group,
}

impl TaskId {
    pub(crate) fn new(group: Group) -> TaskId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        TaskId { number: NEXT.fetch_add(1, Ordering::Relaxed), group }
    }

    pub(crate) fn number(self) -> u64 {
        self.number
    }
}

/// Tasks that share permits, because their refreshes ask the same service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Group(u64);

impl Group {
    /// Returns the group of the tasks of `service`. Two services with the same hash share a group, which does no harm.
    pub(crate) fn of(service: impl Hash) -> Group {
        let mut hasher = DefaultHasher::new();
        service.hash(&mut hasher);
        Group(hasher.finish())
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
    let replaced = registry.agenda.insert(id, task, time.clone(), at);
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
    if !registry.running && !registry.agenda.is_empty() {
        // If no thread can be started, callers still get tokens, but wait for each refresh.
        registry.running = spawn(THREAD_NAME, run_loop).is_ok();
    }
}

/// Removes a task. The thread ends at once when this was the last one.
pub(crate) fn remove(id: TaskId) {
    let mut registry = lock(&scheduler().registry);
    let removed = registry.agenda.remove(id);
    if registry.agenda.is_empty() {
        scheduler().wake(&mut registry);
    }
    drop(registry);
    drop(removed);
}

/// Returns the callback for clocks that jump: the thread compares all tasks with their clocks again.
pub(crate) fn clock_notifier() -> Notifier {
    Notifier::new(|| scheduler().wake(&mut lock(&scheduler().registry)))
}

/// Returns a permit for one background refresh of the task, or `None` when all permits of its group are in use.
pub(crate) fn try_permit(id: TaskId) -> Option<Permit> {
    let scheduler = scheduler();
    let taken = lock(&scheduler.registry).agenda.take_permit(id);
    // Not `then_some`: a permit that was not taken must not be dropped.
    taken.then(|| Permit { scheduler, group: id.group })
}

/// The permission for one background refresh. Dropping it lets the next one of the group start.
pub(crate) struct Permit {
    scheduler: &'static Scheduler,
    group: Group,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // In a forked child, this is a copy of the parent's permit. The lock of the parent's scheduler may have been
        // copied while it was held, and would then never be released.
        if self.scheduler.process == std::process::id() {
            let mut registry = lock(&self.scheduler.registry);
            if registry.agenda.return_permit(self.group) {
                self.scheduler.wake(&mut registry);
            }
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
    agenda: Agenda,
    /// True while the thread exists.
    running: bool,
    /// True when the thread has to end its sleep early.
    is_woken: bool,
    /// When the thread's sleep ends. `None` while the thread is awake.
    sleeps_until: Option<Deadline>,
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

/// The body of the thread. Ends when no task is registered.
fn run_loop() {
    let _guard = RestartGuard;
    while let Some((now, round)) = next_round() {
        let Plan { due, broken, sleep } = make_plan(now, round);
        broken.into_iter().for_each(|turn| finish(turn, None));
        if due.is_empty() {
            sleep_for(sleep);
        }
        for (moment, turn) in due {
            // The tasks before this one may have taken the last permit. Do not run every waiting task in vain.
            if matches!(turn.place, Place::At(_)) || has_permit(turn.id) {
                run_task(moment, turn);
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
            lock(&scheduler().registry).running = spawn(THREAD_NAME, run_loop).is_ok();
        }
    }
}

/// Returns the time on the system's clocks and what is to be done then.
///
/// `None` means that no task is registered: the thread has to end, and the next [`schedule`] starts a new one.
fn next_round() -> Option<(Timestamp, Round)> {
    let mut registry = lock(&scheduler().registry);
    registry.is_woken = false;
    if registry.agenda.is_empty() {
        registry.running = false;
        return None;
    }
    let now = Time::System.now();
    Some((now, registry.agenda.next_round(now)))
}

/// A [`Round`] after the clocks of the user's were read.
struct Plan {
    /// The tasks to run, the longest overdue first, each with the moment at which it was due.
    due: Vec<(Moment, Turn)>,
    /// The tasks whose clock panicked.
    broken: Vec<Turn>,
    /// How long to sleep if no task is due.
    sleep: Duration,
}

fn make_plan(system: Timestamp, round: Round) -> Plan {
    let Round { mut due, custom, mut sleep } = round;
    let mut broken = Vec::new();
    for (at, turn) in custom {
        match read_clock(&turn.time) {
            Some(now) if now.reaches(at) => due.push((system.moment_before(now.since(at)), turn)),
            Some(now) => sleep = sleep.min(now.until(at)),
            None => broken.push(turn),
        }
    }
    due.sort_by_key(|(moment, _)| *moment);
    Plan { due, broken, sleep }
}

fn has_permit(id: TaskId) -> bool {
    lock(&scheduler().registry).agenda.has_permit(id.group)
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

/// Runs a task that was due at `moment`.
fn run_task(moment: Moment, turn: Turn) {
    let next = match turn.task.upgrade() {
        Some(task) => catch_panic(|| Ok(task.run())).unwrap_or(Next::Done),
        None => Next::Done,
    };
    let place = match next {
        // A task that returns a time in the past would occupy the thread.
        Next::At(at) => read_clock(&turn.time).map(|now| Place::At(at.later(now.after(MIN_INTERVAL)))),
        // A task that still waits for a permit keeps its place in the order.
        Next::WhenPermitFree => Some(Place::Waiting(moment)),
        Next::Done => None,
    };
    finish(turn, place);
}

/// Records what the task waits for next, unless the task was registered again or removed while it ran. `None` removes
/// the task.
fn finish(turn: Turn, place: Option<Place>) {
    let removed = lock(&scheduler().registry).agenda.finish(turn.id, turn.revision, place);
    // Dropped after the lock, because this may be the last reference to a clock of the user's.
    drop((removed, turn));
}

/// The name that debuggers and the operating system show.
const THREAD_NAME: &str = "evertoken-scheduler";

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
        let (id, task) = (TaskId::new(Group::of("reporting")), Arc::downgrade(&reporting));
        lock(&scheduler().registry).agenda.insert(id, task, Time::System, Time::System.now());
        let dying = std::thread::spawn(|| {
            let _guard = RestartGuard;
            panic!("any cause");
        });
        assert!(dying.join().is_err());
        assert!(runs.recv_timeout(Duration::from_secs(30)).is_ok());
    }

    #[test]
    fn a_group_has_eight_permits() {
        let id = TaskId::new(Group::of("eight permits"));
        let permits: Vec<_> = std::iter::from_fn(|| try_permit(id)).take(100).collect();
        assert!(permits.len() == 8 && try_permit(id).is_none());
        drop(permits);
        assert!(try_permit(id).is_some());
    }
}
