//! The agenda: all registered tasks in the order in which they run, and the permits for background refreshes.
//!
//! The agenda neither locks nor waits nor reads a clock nor runs a task; `now` is an argument. A task has one place:
//!
//! | place | for | order | found in |
//! |---|---|---|---|
//! | timer | a time on the system's clocks | when the monotonic clock will show that time | O(log n) |
//! | custom | a time on a clock of the user's | none, because such a clock may jump | one scan in each round |
//! | waiting | a permit | how long the task has been overdue, within its [`Group`] | O(log n) |
//!
//! A time has an end on the monotonic clock and one on the wall clock, so no order of such times lasts when the wall
//! clock is set. The agenda converts each time to the monotonic clock with the distance between the two clocks, and
//! converts all times again when [`Agenda::next_round`] finds that the distance has changed by more than
//! [`MAX_DRIFT`]. A smaller change, as from a slow correction of the wall clock, delays a task by this much at most.
//!
//! A group has [`GROUP_PERMITS`] permits, and all groups together have [`ALL_PERMITS`]. `ready` holds the first waiting
//! task of each group that has a permit left, so that a returned permit needs no search among the groups.

use std::collections::{BTreeSet, HashMap};
use std::sync::Weak;
use std::time::Duration;

use super::{Group, MAX_SLEEP, Task, TaskId};
use crate::clock::{ClockDistance, Time, Timestamp};

#[derive(Default)]
pub(super) struct Agenda {
    entries: HashMap<TaskId, Entry>,
    timers: BTreeSet<(Moment, TaskId)>,
    custom: BTreeSet<TaskId>,
    groups: HashMap<Group, GroupState>,
    ready: BTreeSet<(Moment, TaskId)>,
    permits_in_use: usize,
    /// The distance that converted the times in `timers`.
    distance: ClockDistance,
}

/// A reading of the system's monotonic clock in nanoseconds. Negative before the clock's start, because a task can be
/// overdue for longer than the machine has been up.
pub(super) type Moment = i64;

/// A registered task.
pub(super) struct Entry {
    task: Weak<dyn Task>,
    time: Time,
    place: Place,
    /// Counts registrations of this task, so that the result of a run does not replace a registration made meanwhile.
    revision: u64,
}

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A time on the task's clock.
    At(Timestamp),
    /// A permit. The task was due at this moment.
    Waiting(Moment),
}

#[derive(Default)]
struct GroupState {
    in_use: usize,
    waiting: BTreeSet<(Moment, TaskId)>,
}

impl GroupState {
    fn free(&self) -> usize {
        GROUP_PERMITS.saturating_sub(self.in_use)
    }

    /// The first waiting task, if the group has a permit for it.
    fn ready(&self) -> Option<(Moment, TaskId)> {
        self.waiting.first().copied().filter(|_| self.free() > 0)
    }
}

/// A copy of an entry, with which the thread runs the task after the lock is released.
pub(super) struct Turn {
    pub(super) id: TaskId,
    pub(super) task: Weak<dyn Task>,
    pub(super) time: Time,
    pub(super) place: Place,
    pub(super) revision: u64,
}

/// The work of one round of the thread.
pub(super) struct Round {
    /// The tasks that are due, each with the moment at which it was.
    pub(super) due: Vec<(Moment, Turn)>,
    /// The tasks on clocks of the user's, each with its time. The caller reads these clocks, without the lock.
    pub(super) custom: Vec<(Timestamp, Turn)>,
    /// How long to sleep if no task is due.
    pub(super) sleep: Duration,
}

impl Agenda {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Records that `task` runs at `at`. Returns the entry that this one replaces.
    pub(super) fn insert(&mut self, id: TaskId, task: Weak<dyn Task>, time: Time, at: Timestamp) -> Option<Entry> {
        let replaced = self.remove(id);
        let revision = replaced.as_ref().map_or(0, |entry| entry.revision) + 1;
        self.put(id, Entry { task, time, place: Place::At(at), revision });
        replaced
    }

    pub(super) fn remove(&mut self, id: TaskId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        match (entry.place, &entry.time) {
            (Place::At(at), Time::System) => self.timers.remove(&(at.moment(self.distance), id)),
            (Place::At(_), Time::Custom(_)) => self.custom.remove(&id),
            (Place::Waiting(since), _) => self.change_group(id.group, |group| group.waiting.remove(&(since, id))),
        };
        Some(entry)
    }

    fn put(&mut self, id: TaskId, entry: Entry) {
        match (entry.place, &entry.time) {
            (Place::At(at), Time::System) => self.timers.insert((at.moment(self.distance), id)),
            (Place::At(_), Time::Custom(_)) => self.custom.insert(id),
            (Place::Waiting(since), _) => self.change_group(id.group, |group| group.waiting.insert((since, id))),
        };
        self.entries.insert(id, entry);
    }

    /// Moves a task to `place` after its run, or removes the task. Does nothing if the task was registered again or
    /// removed meanwhile. Returns the removed entry.
    pub(super) fn finish(&mut self, id: TaskId, revision: u64, place: Option<Place>) -> Option<Entry> {
        if self.entries.get(&id)?.revision != revision {
            return None;
        }
        let entry = self.remove(id)?;
        let Some(place) = place else { return Some(entry) };
        self.put(id, Entry { place, ..entry });
        None
    }

    /// Returns what is to be done at `now`: at most [`MAX_BATCH`] tasks whose time has come, the tasks that waited for
    /// a permit and can have one, and the tasks on clocks of the user's.
    pub(super) fn next_round(&mut self, now: Timestamp) -> Round {
        if !now.clock_distance().is_within(MAX_DRIFT, self.distance) {
            self.convert_again(now.clock_distance());
        }
        let mut due = self.admitted();
        let mut sleep = MAX_SLEEP;
        for &(moment, id) in self.timers.iter().take(MAX_BATCH) {
            let Some(turn) = self.turn(id) else { continue };
            let Place::At(at) = turn.place else { continue };
            if now.reaches(at) {
                due.push((moment, turn));
                continue;
            }
            sleep = sleep.min(now.until(at));
            // Where the clocks have drifted a little, a task that is due can stand behind one that is not.
            if moment > now.moment_before(Duration::ZERO) {
                break;
            }
        }
        let custom = self.custom.iter().filter_map(|id| self.turn(*id));
        let custom = custom.filter_map(|turn| if let Place::At(at) = turn.place { Some((at, turn)) } else { None });
        Round { custom: custom.collect(), due, sleep }
    }

    /// Returns the waiting tasks of all groups that have a permit left, as many of each group as it has permits.
    fn admitted(&self) -> Vec<(Moment, Turn)> {
        let mut admitted = Vec::new();
        for (_, first) in self.ready.iter().take(ALL_PERMITS.saturating_sub(self.permits_in_use)) {
            let Some(group) = self.groups.get(&first.group) else { continue };
            let waiting = group.waiting.iter().take(group.free());
            admitted.extend(waiting.filter_map(|(since, id)| Some((*since, self.turn(*id)?))));
        }
        admitted
    }

    fn turn(&self, id: TaskId) -> Option<Turn> {
        let Entry { task, time, place, revision } = self.entries.get(&id)?;
        Some(Turn { id, task: task.clone(), time: time.clone(), place: *place, revision: *revision })
    }

    /// Orders the timers anew after the wall clock was set, or after the machine was suspended.
    fn convert_again(&mut self, distance: ClockDistance) {
        self.distance = distance;
        let at = |(_, id): &(Moment, TaskId)| match self.entries.get(id)?.place {
            Place::At(at) => Some((at.moment(distance), *id)),
            Place::Waiting(_) => None,
        };
        self.timers = self.timers.iter().filter_map(at).collect();
    }

    /// Takes a permit of the task's group. Returns false when there is none, or when other tasks of the group wait for
    /// one: a task that is due only now has to wait behind them.
    pub(super) fn take_permit(&mut self, id: TaskId) -> bool {
        let waits = self.entries.get(&id).is_some_and(|entry| matches!(entry.place, Place::Waiting(_)));
        let others_wait = !waits && self.groups.get(&id.group).is_some_and(|group| !group.waiting.is_empty());
        let taken = !others_wait && self.has_permit(id.group);
        if taken {
            self.permits_in_use += 1;
            self.change_group(id.group, |group| group.in_use += 1);
        }
        taken
    }

    pub(super) fn has_permit(&self, group: Group) -> bool {
        self.permits_in_use < ALL_PERMITS && self.groups.get(&group).is_none_or(|group| group.free() > 0)
    }

    /// Returns true if a waiting task can have a permit now.
    pub(super) fn return_permit(&mut self, group: Group) -> bool {
        self.permits_in_use = self.permits_in_use.saturating_sub(1);
        self.change_group(group, |group| group.in_use = group.in_use.saturating_sub(1));
        self.permits_in_use < ALL_PERMITS && !self.ready.is_empty()
    }

    /// Changes a group, and keeps `ready` up to date. A group without permits in use and without waiting tasks is
    /// removed.
    fn change_group<T>(&mut self, group: Group, change: impl FnOnce(&mut GroupState) -> T) -> T {
        let state = self.groups.entry(group).or_default();
        let before = state.ready();
        let result = change(state);
        let after = state.ready();
        if state.in_use == 0 && state.waiting.is_empty() {
            self.groups.remove(&group);
        }
        if before != after {
            if let Some(before) = before {
                self.ready.remove(&before);
            }
            self.ready.extend(after);
        }
        result
    }
}

/// How many background refreshes of one group run at once, so that a large fleet whose tokens are due together does not
/// send all its requests at once.
pub(super) const GROUP_PERMITS: usize = 8;

/// How many background refreshes run at once. Enough for four groups that use all their permits.
pub(super) const ALL_PERMITS: usize = 32;

/// How far the wall clock may drift from the monotonic clock before all times are converted again. Longer than the
/// ticks by which two readings of the coarse clocks can differ.
const MAX_DRIFT: Duration = Duration::from_millis(50);

/// How many timers a round takes at most, because the lock is held while they are copied.
const MAX_BATCH: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Next;
    use super::*;

    struct Idle;

    impl Task for Idle {
        fn run(self: Arc<Self>) -> Next {
            Next::Done
        }
    }

    /// The time `monotonic` seconds after the start of the monotonic clock. The wall clock is one million seconds ahead.
    fn at(monotonic: u64) -> Timestamp {
        clocks(monotonic, 1_000_000 + monotonic)
    }

    fn clocks(monotonic: u64, wall: u64) -> Timestamp {
        Timestamp::new(Duration::from_secs(monotonic), Duration::from_secs(wall))
    }

    fn add(agenda: &mut Agenda, group: &str, due: Timestamp) -> TaskId {
        let id = TaskId::new(Group::of(group));
        assert!(agenda.insert(id, Weak::<Idle>::new(), Time::System, due).is_none());
        id
    }

    fn wait(agenda: &mut Agenda, group: &str, since: Moment) -> TaskId {
        let id = add(agenda, group, at(0));
        let revision = agenda.entries[&id].revision;
        assert!(agenda.finish(id, revision, Some(Place::Waiting(since))).is_none());
        id
    }

    fn due(agenda: &mut Agenda, now: Timestamp) -> Vec<TaskId> {
        let mut due = agenda.next_round(now).due;
        due.sort_by_key(|(moment, _)| *moment);
        due.into_iter().map(|(_, turn)| turn.id).collect()
    }

    #[test]
    fn the_thread_sleeps_thirty_seconds_at_most() {
        let mut agenda = Agenda::default();
        add(&mut agenda, "a", at(7200));
        let round = agenda.next_round(at(100));
        assert!(round.due.is_empty());
        assert_eq!(round.sleep, Duration::from_secs(30));
    }

    #[test]
    fn the_thread_sleeps_until_the_next_task_is_due() {
        let mut agenda = Agenda::default();
        for due in [500, 109, 111] {
            add(&mut agenda, "a", at(due));
        }
        let round = agenda.next_round(at(100));
        assert!(round.due.is_empty());
        assert_eq!(round.sleep, Duration::from_secs(9));
    }

    #[test]
    fn the_longest_overdue_task_runs_first_also_when_it_waited_for_a_permit() {
        let mut agenda = Agenda::default();
        let (overdue_5, overdue_50) = (add(&mut agenda, "a", at(95)), add(&mut agenda, "a", at(50)));
        let waiting_20 = wait(&mut agenda, "a", at(80).moment(at(0).clock_distance()));
        assert_eq!(due(&mut agenda, at(100)), [overdue_50, waiting_20, overdue_5]);
    }

    #[test]
    fn a_wall_clock_that_is_set_forward_runs_tasks_at_once() {
        let mut agenda = Agenda::default();
        let in_an_hour = add(&mut agenda, "a", at(3700));
        let by_the_monotonic_clock = add(&mut agenda, "a", at(3600).monotonic_only());
        assert!(due(&mut agenda, at(100)).is_empty());
        let set_forward = clocks(101, 1_000_000 + 3700);
        assert_eq!(due(&mut agenda, set_forward), [in_an_hour]);
        assert!(agenda.remove(in_an_hour).is_some());
        assert_eq!(due(&mut agenda, clocks(3601, 1_007_200)), [by_the_monotonic_clock]);
        assert!(agenda.remove(by_the_monotonic_clock).is_some());
        assert!(agenda.timers.is_empty());
    }

    #[test]
    fn a_wall_clock_that_is_set_back_delays_no_task() {
        let mut agenda = Agenda::default();
        let task = add(&mut agenda, "a", at(200));
        assert!(due(&mut agenda, at(100)).is_empty());
        assert!(due(&mut agenda, clocks(199, 5)).is_empty());
        assert_eq!(due(&mut agenda, clocks(200, 6)), [task]);
    }

    #[test]
    fn a_wall_clock_that_drifts_makes_the_thread_sleep_and_not_spin() {
        let mut agenda = Agenda::default();
        // The wall clock reaches the end first.
        add(&mut agenda, "a", clocks(300, 1_000_200));
        agenda.next_round(at(100));
        // The wall clock has been slowed down by 40 ms, so the task is not due where its order says so.
        let late = Timestamp::new(Duration::from_millis(200_020), Duration::from_millis(1_000_199_980));
        let round = agenda.next_round(late);
        assert!(round.due.is_empty());
        assert_eq!(round.sleep, Duration::from_millis(20));
    }

    #[test]
    fn a_round_takes_a_bounded_number_of_tasks_and_the_next_round_the_others() {
        let mut agenda = Agenda::default();
        let tasks: Vec<_> = (0..300).map(|due| add(&mut agenda, "a", at(due))).collect();
        let first = due(&mut agenda, at(1000));
        assert_eq!(first, tasks[..256]);
        first.into_iter().for_each(|id| drop(agenda.remove(id)));
        assert_eq!(due(&mut agenda, at(1000)), tasks[256..]);
    }

    #[test]
    fn the_permits_of_one_group_are_no_other_groups() {
        let mut agenda = Agenda::default();
        let task = |group| TaskId::new(Group::of(group));
        assert_eq!((0..100).filter(|_| agenda.take_permit(task("slow"))).count(), 8);
        assert!(agenda.take_permit(task("healthy")));
        agenda.return_permit(Group::of("slow"));
        assert!(agenda.take_permit(task("slow")));
        assert!(!agenda.take_permit(task("slow")));
    }

    #[test]
    fn all_groups_together_have_thirty_two_permits() {
        let mut agenda = Agenda::default();
        let taken = (0..100).filter(|group| agenda.take_permit(TaskId::new(Group::of(group)))).count();
        assert_eq!(taken, 32);
        for group in 0..32 {
            agenda.return_permit(Group::of(group));
        }
        assert!(agenda.groups.is_empty(), "groups without tasks and permits are forgotten");
    }

    #[test]
    fn a_returned_permit_goes_to_the_longest_waiting_task_of_the_group() {
        let mut agenda = Agenda::default();
        (0..8).for_each(|_| assert!(agenda.take_permit(TaskId::new(Group::of("slow")))));
        let (second, first) = (wait(&mut agenda, "slow", 20), wait(&mut agenda, "slow", 10));
        assert!(due(&mut agenda, at(100)).is_empty());
        assert!(agenda.return_permit(Group::of("slow")));
        assert_eq!(due(&mut agenda, at(100)), [first]);
        assert!(!agenda.take_permit(TaskId::new(Group::of("slow"))), "a task that comes now waits behind the others");
        assert!(agenda.take_permit(first));
        assert!(due(&mut agenda, at(100)).is_empty());
        assert!(agenda.remove(first).is_some());
        assert!(agenda.return_permit(Group::of("slow")));
        assert_eq!(due(&mut agenda, at(100)), [second]);
    }

    #[test]
    fn a_permit_that_another_group_returns_serves_a_group_that_had_none_left_of_all() {
        let mut agenda = Agenda::default();
        (0..32).for_each(|group| assert!(agenda.take_permit(TaskId::new(Group::of(group)))));
        let waiting = wait(&mut agenda, "late", 10);
        assert!(due(&mut agenda, at(100)).is_empty());
        assert!(agenda.return_permit(Group::of(7)));
        assert_eq!(due(&mut agenda, at(100)), [waiting]);
    }

    #[test]
    fn the_result_of_a_run_does_not_replace_a_registration_made_meanwhile() {
        let mut agenda = Agenda::default();
        let task = add(&mut agenda, "a", at(50));
        let revision = agenda.next_round(at(100)).due[0].1.revision;
        assert!(agenda.insert(task, Weak::<Idle>::new(), Time::System, at(60)).is_some());
        assert!(agenda.finish(task, revision, None).is_none());
        assert_eq!(due(&mut agenda, at(100)), [task]);
    }
}
