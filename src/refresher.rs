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
pub(crate) trait Resident: Send + Sync {
    /// Does what is due and says when to look again. Runs on the refresher's thread, so it must not block: what takes
    /// time flies on a thread of its own, with a [`slot`] to keep.
    fn look(self: Arc<Self>) -> Next;
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    At(Timestamp),
    /// As soon as there may be a [`slot`]. Waiting since this moment.
    WhenThereIsRoom(Timestamp),
    /// Never: there is nothing to look after until somebody [schedules](schedule) it again.
    Leave,
}

/// A resident's name, never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ResidentId(u64);

impl ResidentId {
    pub(crate) fn new() -> ResidentId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        ResidentId(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// Has `resident` looked at when `at` comes. Starts the thread when there is none.
pub(crate) fn schedule(id: ResidentId, resident: Weak<dyn Resident>, time: &Time, at: Timestamp) {
    enlist(id, resident, time, at);
    ensure_running();
}

/// The same, but leaves it to a later [`ensure_running`] to start the thread: that takes longer than all the rest.
pub(crate) fn enlist(id: ResidentId, resident: Weak<dyn Resident>, time: &Time, at: Timestamp) {
    let due = Deadline::within(time.now().until(at));
    let mut registry = lock(&here().registry);
    let asked = registry.entries.get(&id).map_or(0, |entry| entry.asked) + 1;
    let replaced = registry.entries.insert(id, Entry { resident, time: time.clone(), next: Next::At(at), asked });
    if registry.running && registry.sleeps_until.is_none_or(|until| due < until) {
        here().ring(&mut registry);
    }
    drop(registry);
    // Only now, because a clock of the user's may go with it.
    drop(replaced);
}

/// Starts the thread if there is somebody to look after and nobody does.
pub(crate) fn ensure_running() {
    let mut registry = lock(&here().registry);
    if !registry.running && !registry.entries.is_empty() {
        // Without a thread the token is still served; callers then wait for its renewal.
        registry.running = spawn("evertoken-refresher", run).is_ok();
    }
}

/// Forgets a resident. When it was the last one, the thread ends at once.
pub(crate) fn remove(id: ResidentId) {
    let mut registry = lock(&here().registry);
    let removed = registry.entries.remove(&id);
    if registry.entries.is_empty() {
        here().ring(&mut registry);
    }
    drop(registry);
    drop(removed);
}

/// What a clock calls when it jumps.
pub(crate) fn wake() -> Notifier {
    Notifier::new(|| here().ring(&mut lock(&here().registry)))
}

/// Room for one flight in the background, while there is any.
pub(crate) fn slot() -> Option<Slot> {
    let here = here();
    let mut registry = lock(&here.registry);
    (registry.flying < MOST_FLIGHTS).then(|| {
        registry.flying += 1;
        Slot { of: here }
    })
}

fn has_room() -> bool {
    lock(&here().registry).flying < MOST_FLIGHTS
}

/// Room for one flight. Dropping it makes room for the next.
pub(crate) struct Slot {
    of: &'static Process,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // A forked child has slots of its own; its parent's lock may be taken for ever.
        if self.of.id == std::process::id() {
            let mut registry = lock(&self.of.registry);
            registry.flying = registry.flying.saturating_sub(1);
            self.of.ring(&mut registry);
        }
    }
}

/// What belongs to one process. A forked child starts with one of its own: its parent's thread stayed behind, perhaps
/// while it held the lock.
struct Process {
    id: u32,
    registry: Mutex<Registry>,
    bell: Condvar,
}

#[derive(Default)]
struct Registry {
    entries: HashMap<ResidentId, Entry>,
    running: bool,
    /// The thread is to look before its rest is over.
    rung: bool,
    /// `None` while the thread does not rest.
    sleeps_until: Option<Deadline>,
    flying: usize,
}

/// This process and those that it was forked from, one after another.
static PROCESSES: [OnceCell<Process>; GENERATIONS] = [const { OnceCell::new() }; GENERATIONS];

fn here() -> &'static Process {
    let id = std::process::id();
    let mut last = &PROCESSES[0];
    for process in &PROCESSES {
        last = process;
        if process.get_or_init(|| Process::new(id)).id == id {
            break;
        }
    }
    // Beyond the last generation all share one, as they would without this.
    last.get_or_init(|| Process::new(id))
}

impl Process {
    fn new(id: u32) -> Process {
        Process { id, registry: Mutex::default(), bell: Condvar::new() }
    }

    fn ring(&self, registry: &mut Registry) {
        registry.rung = true;
        self.bell.notify_all();
    }
}

#[derive(Clone)]
struct Entry {
    resident: Weak<dyn Resident>,
    time: Time,
    next: Next,
    /// Counts the calls of [`schedule`], so that a look does not overwrite what was asked for meanwhile.
    asked: u64,
}

/// The thread. It ends when there is nobody left to look after.
fn run() {
    let _heir = Heir;
    while let Some((entries, room)) = everybody() {
        let Sorted { due, broken, sleep } = sort_out(entries, room);
        broken.into_iter().for_each(|(id, entry)| settle(id, entry, Next::Leave));
        if due.is_empty() {
            rest(sleep);
        }
        for (id, entry) in due {
            // When the room is taken up, to look at all the others that wait for it would be in vain.
            if !matches!(entry.next, Next::WhenThereIsRoom(_)) || has_room() {
                look_at(id, entry);
            }
        }
    }
}

/// Starts the thread anew should it ever panic: whatever is the cause, it belongs to one manager, and the others must
/// not be forgotten for it.
struct Heir;

impl Drop for Heir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&here().registry).running = spawn("evertoken-refresher", run).is_ok();
        }
    }
}

/// All entries, copied: their clocks may be the user's, so they are read outside the lock. `None`: there are none, and
/// the next [`schedule`] starts a new thread.
fn everybody() -> Option<(Vec<(ResidentId, Entry)>, bool)> {
    let mut registry = lock(&here().registry);
    registry.rung = false;
    if registry.entries.is_empty() {
        registry.running = false;
        return None;
    }
    let entries = registry.entries.iter().map(|(id, entry)| (*id, entry.clone())).collect();
    Some((entries, registry.flying < MOST_FLIGHTS))
}

/// What there is to do for the entries.
struct Sorted {
    /// Who is to be looked at now, the longest overdue first.
    due: Vec<(ResidentId, Entry)>,
    /// Whose clock panicked.
    broken: Vec<(ResidentId, Entry)>,
    /// How long nobody else is due.
    sleep: Duration,
}

fn sort_out(entries: Vec<(ResidentId, Entry)>, room: bool) -> Sorted {
    let system = Time::System.now();
    let mut sleep = LONGEST_REST;
    let (mut due, mut broken) = (Vec::new(), Vec::new());
    for (id, entry) in entries {
        let Some(now) = (if let Time::System = entry.time { Some(system) } else { read(&entry.time) }) else {
            broken.push((id, entry));
            continue;
        };
        match entry.next {
            Next::At(at) if !now.reaches(at) => sleep = sleep.min(now.until(at)),
            Next::At(at) => due.push((now.since(at), id, entry)),
            Next::WhenThereIsRoom(since) if room => due.push((now.since(since), id, entry)),
            Next::WhenThereIsRoom(_) | Next::Leave => {}
        }
    }
    due.sort_by_key(|(overdue, ..)| Reverse(*overdue));
    Sorted { due: due.into_iter().map(|(_, id, entry)| (id, entry)).collect(), broken, sleep }
}

/// What a clock shows. `None`: it is the user's, and it panicked.
fn read(time: &Time) -> Option<Timestamp> {
    catch_panic(|| Ok(time.now())).ok()
}

fn rest(sleep: Duration) {
    let (here, until) = (here(), Deadline::within(sleep));
    let mut registry = lock(&here.registry);
    registry.sleeps_until = Some(until);
    while !registry.rung && !until.has_passed() {
        registry = wait(&here.bell, registry, until.remaining());
    }
    registry.sleeps_until = None;
}

fn look_at(id: ResidentId, entry: Entry) {
    let next = match entry.resident.upgrade() {
        Some(resident) => catch_panic(|| Ok(resident.look())).unwrap_or(Next::Leave),
        None => Next::Leave,
    };
    let next = match (next, entry.next) {
        // A moment that has come already would be looked at again and again.
        (Next::At(at), _) => read(&entry.time).map_or(Next::Leave, |now| Next::At(at.later(now.after(SHORTEST_PAUSE)))),
        // Who waits keeps the place in the queue.
        (Next::WhenThereIsRoom(_), Next::At(since) | Next::WhenThereIsRoom(since)) => Next::WhenThereIsRoom(since),
        (next, _) => next,
    };
    settle(id, entry, next);
}

/// Notes when to look again, unless somebody has asked for something else meanwhile.
fn settle(id: ResidentId, entry: Entry, next: Next) {
    // `entry` outlives the lock: a clock of the user's may go with it.
    let mut registry = lock(&here().registry);
    if registry.entries.get(&id).is_none_or(|current| current.asked != entry.asked) {
        return;
    }
    if next == Next::Leave {
        registry.entries.remove(&id);
    } else if let Some(current) = registry.entries.get_mut(&id) {
        current.next = next;
    }
}

/// Background flights at once: enough that a slow provider delays nobody else, few enough not to be a storm.
const MOST_FLIGHTS: usize = 8;

/// Timed waits stand still while a machine sleeps, and a wall clock can be set without anybody being told.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// A child of a child of a child: deeper than programs fork.
const GENERATIONS: usize = 16;

const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Resident for Nobody {
        fn look(self: Arc<Self>) -> Next {
            Next::Leave
        }
    }

    fn entry(next: Next) -> (ResidentId, Entry) {
        let resident: Weak<dyn Resident> = Weak::<Nobody>::new();
        (ResidentId::new(), Entry { resident, time: Time::System, next, asked: 0 })
    }

    fn within(wait: Duration) -> Next {
        Next::At(Time::System.now().after(wait))
    }

    #[test]
    fn it_looks_again_at_least_every_thirty_seconds() {
        let sorted = sort_out(vec![entry(within(Duration::from_secs(7200)))], true);
        assert!(sorted.due.is_empty());
        assert_eq!(sorted.sleep, Duration::from_secs(30));
    }

    #[test]
    fn it_rests_no_longer_than_until_the_next_one_is_due() {
        let sorted = sort_out(
            vec![entry(within(Duration::from_secs(9))), entry(Next::WhenThereIsRoom(Time::System.now()))],
            false,
        );
        assert!(sorted.due.is_empty());
        assert!(sorted.sleep <= Duration::from_secs(9));
    }

    #[test]
    fn the_longest_overdue_comes_first_whether_it_waited_for_room_or_not() {
        let past = |seconds| Time::System.now().before(Duration::from_secs(seconds));
        let (late, later) = (entry(Next::At(past(5))), entry(Next::At(past(50))));
        let waiting = entry(Next::WhenThereIsRoom(past(20)));
        let order = [later.0, waiting.0, late.0];
        let sorted = sort_out(vec![late, later, waiting], true);
        assert_eq!(sorted.due.iter().map(|(id, _)| *id).collect::<Vec<_>>(), order);
    }

    struct Teller(crossbeam_channel::Sender<()>);

    impl Resident for Teller {
        fn look(self: Arc<Self>) -> Next {
            let _ = self.0.send(());
            Next::Leave
        }
    }

    #[test]
    fn a_thread_that_panics_has_an_heir() {
        let (sender, looked) = crossbeam_channel::bounded(1);
        let teller: Arc<dyn Resident> = Arc::new(Teller(sender));
        // Entered by hand: `schedule` would start a thread.
        let entry = Entry { resident: Arc::downgrade(&teller), ..entry(within(Duration::ZERO)).1 };
        lock(&here().registry).entries.insert(ResidentId::new(), entry);
        let dying = std::thread::spawn(|| {
            let _heir = Heir;
            panic!("of whatever cause");
        });
        assert!(dying.join().is_err());
        assert!(looked.recv_timeout(Duration::from_secs(30)).is_ok());
    }

    #[test]
    fn there_is_room_for_eight() {
        let slots: Vec<_> = std::iter::from_fn(slot).take(100).collect();
        assert!(slots.len() <= MOST_FLIGHTS && slot().is_none());
        drop(slots);
        assert!(slot().is_some());
    }
}
