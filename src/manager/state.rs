//! The provider's state: the latest ticket, the latest refresh token. In memory, and in the shared store.

use std::thread;
use std::time::Duration;

use crate::clock::{Deadline, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::event::EventKind;
use crate::lease::{Found, Kept, Place, Sharing, StateTurn};
use crate::manager::control::Control;
use crate::manager::keeper::Keeper;
use crate::provider::RenewalProfile;
use crate::secret::Secret;
use crate::thread::{run_with_deadline, spawn};

/// How and where a provider's state is kept.
#[derive(Debug)]
pub(crate) struct Keeping {
    pub(crate) profile: RenewalProfile,
    pub(crate) place: Place,
}

/// The latest state that is known here.
#[derive(Clone)]
pub(crate) struct HeldState {
    pub(crate) kept: Kept,
    /// False while the shared store has to be told.
    pub(crate) stored: bool,
}

impl HeldState {
    pub(crate) fn is(&self, secret: &Secret) -> bool {
        self.kept.secret.expose() == secret.expose()
    }

    /// True when this came after what is stored. Of refresh tokens the numbers tell; of tickets, which come from outside,
    /// the age.
    fn is_later_than(&self, stored: &Kept, rotates: bool, now: Timestamp) -> bool {
        match rotates {
            true => self.kept.number > stored.number,
            false if self.stored && self.is(&stored.secret) => false,
            false => {
                let (ours, theirs) = (now.since(self.kept.since), now.since(stored.since));
                // A write that was held up makes a ticket look younger than it is.
                if ours.abs_diff(theirs) < HELD_UP { self.kept.number > stored.number } else { ours < theirs }
            }
        }
    }
}

impl Keeping {
    fn first(&self, now: Timestamp) -> Option<Kept> {
        let secret = self.profile.initial.clone()?;
        Some(Kept { secret, number: 0, since: now, end: now.after(self.profile.lifetime) })
    }
}

impl Keeper {
    /// Takes in a ticket that was pushed, for this manager and for all that share its state.
    pub(crate) fn set_ticket(&self, ticket: Secret) -> Result<(), Error> {
        self.checked()?;
        let Some(keeping) = self.keeping.as_ref().filter(|keeping| !keeping.profile.rotates) else {
            let text = match self.provider.parent() {
                Some(_) => "this provider takes no ticket; call set_ticket on the manager of its parent",
                None => "this provider takes no ticket",
            };
            return Err(Error::config(text).of(self.provider.name()));
        };
        if ticket.is_blank() || ticket.expose().len() > LONGEST_TICKET {
            return Err(Error::config("the ticket must have 1 to 4096 bytes").of(self.provider.name()));
        }
        {
            let mut control = self.lock();
            let now = self.now();
            let number = control.state.as_ref().map_or(0, |state| state.kept.number) + 1;
            control.hold_state(keeping, ticket, number, now, self.sharing.is_none());
            control.tickets += 1;
            control.end_pause_for_want_of_a_ticket();
            self.look_again(&control, now);
        }
        let certain = Some(Deadline::within(Duration::MAX));
        self.tell_the_others(|sharing, _| self.reconcile(keeping, sharing, certain).map(drop))
    }

    /// True when the provider's state must not be used by two at once.
    pub(crate) fn is_used_by_one_alone(&self) -> bool {
        self.keeping.as_ref().is_some_and(|keeping| keeping.profile.rotates)
    }

    fn held_state(&self) -> Option<HeldState> {
        let control = self.lock();
        let now = self.now();
        control.state.clone().filter(|state| !now.reaches(state.kept.end))
    }

    /// Waits for the turn to use a state that no two may use at once. Managers with records of their own, as for another
    /// scope, have leases of their own, and may use the same state.
    pub(crate) fn take_state_turn(
        &self,
        keeping: &Keeping,
        sharing: Option<&Sharing>,
        deadline: Deadline,
    ) -> Result<Option<StateTurn>, Error> {
        if !keeping.profile.rotates {
            return Ok(None);
        }
        if self.lock().has_lost() {
            let message = "an earlier fetch of this process has not returned and may still use the refresh token";
            return Err(Error::new(ErrorKind::Store, message));
        }
        let Some(sharing) = sharing else { return Ok(None) };
        let mut pause = FIRST_PAUSE;
        loop {
            let turn = self.note_store(sharing.take_state(&keeping.place, self.settings.fetch_limit))?;
            if turn.is_some() {
                return Ok(turn);
            }
            if deadline.remaining() <= pause {
                return Err(Error::new(ErrorKind::Store, "another process is using the refresh token"));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Ends the turn, unless what came of it is not stored yet: then it is kept, and the others wait.
    pub(crate) fn end_state_turn(&self, sharing: Option<&Sharing>, turn: Option<StateTurn>) {
        let over = {
            let mut control = self.lock();
            let turn = turn.or_else(|| control.turn.take());
            if control.has_state_to_store() {
                control.turn = turn;
                return;
            }
            turn
        };
        if let (Some(sharing), Some(turn)) = (sharing, over) {
            // Left alone it runs out too.
            drop(self.note_store(sharing.end_turn(turn)));
        }
    }

    /// The state to ask with. With a shared store, the latest of what is there and what is known here.
    pub(crate) fn latest_state(&self, keeping: &Keeping, sharing: Option<&Sharing>) -> Result<Option<Kept>, Error> {
        let latest = match sharing {
            Some(sharing) => self.reconcile(keeping, sharing, None),
            None if self.sharing.is_some() => Err(Error::new(ErrorKind::Store, NOT_ALONE)),
            None => Ok(self.held_state().map(|held| held.kept)),
        };
        match latest {
            // Another process may be using it, or has used it already.
            Err(error) if keeping.profile.rotates => Err(error),
            Ok(Some(kept)) => Ok(Some(kept)),
            Ok(None) => Ok(keeping.first(self.now())),
            Err(_) => Ok(self.held_state().map(|held| held.kept)),
        }
    }

    /// Keeps the state that came with a token, and stores it before the token is handed out. Until `turn_ends` nobody
    /// else can have got a later one.
    pub(crate) fn keep_state(
        &self,
        keeping: &Keeping,
        sharing: Option<&Sharing>,
        used: Option<&Kept>,
        new: Secret,
        turn_ends: Deadline,
    ) {
        if new.is_blank() || used.is_some_and(|used| used.secret.expose() == new.expose()) {
            return;
        }
        {
            let mut control = self.lock();
            let now = self.now();
            let number = used.map_or(0, |used| used.number) + 1;
            // A fetch that was given up may come back when another has gone on.
            if control.state.as_ref().is_some_and(|state| state.kept.number >= number) {
                return;
            }
            control.hold_state(keeping, new, number, now, self.sharing.is_none());
            if let Some(sharing) = &self.sharing {
                // Whoever finds the one before in the store is to know that it is used up.
                sharing.note_state(number);
            }
        }
        let stored = match sharing {
            Some(sharing) => self.reconcile(keeping, sharing, Some(turn_ends)).map(drop),
            None if self.sharing.is_some() => Err(Error::new(ErrorKind::Store, NOT_ALONE)),
            None => Ok(()),
        };
        if let Err(error) = stored {
            self.announce(&EventKind::RenewalSecretNotStored { error });
        }
    }

    /// Compares the state that is known here with the stored one: takes over what is later, stores what is missing or
    /// older there. Returns the latest. `certain_until`: before then the one that is known here is the latest.
    fn reconcile(
        &self,
        keeping: &Keeping,
        sharing: &Sharing,
        certain_until: Option<Deadline>,
    ) -> Result<Option<Kept>, Error> {
        for _ in 0..MOST_TRIES {
            let found = sharing.read_state(&keeping.place);
            // That it can be read does not say that it can be written.
            let (stored, version) = match found.or_else(|error| self.note_store(Err(error)))? {
                Found::Nothing => (None, None),
                Found::State(kept, version) => (Some(kept), Some(version)),
                Found::Unreadable(_) if keeping.profile.rotates => {
                    return Err(Error::new(ErrorKind::Store, UNREADABLE));
                }
                Found::Unreadable(version) => (None, Some(version)),
            };
            // Only now: a ticket may have come meanwhile.
            let (held, now) = (self.held_state(), self.now());
            let theirs = stored.as_ref().zip(held.as_ref()).is_some_and(|(stored, held)| {
                let certain = !held.stored && certain_until.is_some_and(|until| !until.has_passed());
                let same = keeping.profile.rotates && held.is(&stored.secret);
                same || !certain && !held.is_later_than(stored, keeping.profile.rotates, now)
            });
            let kept = match (stored, held) {
                (Some(stored), held) if theirs || held.is_none() => {
                    if self.adopt_state(&stored, held.as_ref()) {
                        self.forget_want_of_a_ticket(keeping, sharing)?;
                    }
                    return self.checked_state(keeping, sharing, Some(stored));
                }
                (_, None) => return self.checked_state(keeping, sharing, None),
                (stored, Some(held)) => {
                    let least = stored.map_or(0, |stored| stored.number + 1);
                    Kept { number: held.kept.number.max(least), ..held.kept }
                }
            };
            let Some(kept) = self.checked_state(keeping, sharing, Some(kept))? else { return Ok(None) };
            if self.note_store(sharing.write_state(&keeping.place, &kept, version.as_ref()))?.is_ok() {
                self.note_stored(&kept);
                self.forget_want_of_a_ticket(keeping, sharing)?;
                return Ok(Some(kept));
            }
        }
        Err(Error::new(
            ErrorKind::Store,
            "other processes change the refresh token or ticket faster than it can be stored",
        ))
    }

    /// The state, unless a later one is known to have been there: this one is used up then.
    fn checked_state(&self, keeping: &Keeping, sharing: &Sharing, state: Option<Kept>) -> Result<Option<Kept>, Error> {
        let number = state.as_ref().map_or(0, |state| state.number);
        if keeping.profile.rotates && number < sharing.state_number() {
            return Err(Error::new(ErrorKind::Store, PASSED));
        }
        Ok(state)
    }

    /// A ticket has come: that there was none is no reason any more for anybody to pause.
    fn forget_want_of_a_ticket(&self, keeping: &Keeping, sharing: &Sharing) -> Result<(), Error> {
        if keeping.profile.rotates {
            Ok(())
        } else {
            self.note_store(sharing.forget_failure(ErrorKind::TicketRequired))
        }
    }

    /// Takes over what is stored. True when it is another one than before.
    fn adopt_state(&self, stored: &Kept, before: Option<&HeldState>) -> bool {
        let mut control = self.lock();
        // One that was handed in a moment ago is later than both.
        let unchanged = match (&control.state, before) {
            (Some(state), Some(before)) => state.is(&before.kept.secret),
            (state, _) => state.as_ref().is_none_or(|state| state.stored),
        };
        if !unchanged {
            return false;
        }
        let is_new = control.state.as_ref().is_none_or(|state| !state.is(&stored.secret));
        control.state = Some(HeldState { kept: stored.clone(), stored: true });
        if is_new {
            control.end_pause_for_want_of_a_ticket();
        }
        is_new
    }

    fn note_stored(&self, stored: &Kept) {
        let mut control = self.lock();
        if let Some(state) = control.state.as_mut().filter(|state| state.is(&stored.secret)) {
            (state.stored, state.kept.number) = (true, stored.number);
        }
    }

    /// Stores what an outage has left, and hears of what others have stored.
    pub(crate) fn compare_state(&self, sharing: &Sharing) -> Result<(), Error> {
        match &self.keeping {
            Some(keeping) => match self.reconcile(keeping, sharing, None) {
                // That it cannot be used here does not matter before it is.
                Err(error) if self.store_rests() => Err(error),
                _ => {
                    self.end_state_turn(Some(sharing), None);
                    Ok(())
                }
            },
            None => Ok(()),
        }
    }

    /// Tries once more, in the end, to store what is not stored yet. Does not wait.
    pub(crate) fn leave_state(&self) {
        if let Some(work) = self.last_words() {
            // Without a thread it is lost, as it is when the program ends now.
            drop(spawn("evertoken-state", work));
        }
    }

    /// The same, and waits for it.
    pub(crate) fn leave_state_until(&self, deadline: Deadline) {
        if let Some(work) = self.last_words() {
            drop(run_with_deadline("evertoken-state", deadline, work));
        }
    }

    fn last_words(&self) -> Option<impl FnOnce() + Send + 'static> {
        let unsaved = self.lock().state.as_ref().is_some_and(|state| !state.stored);
        let keeper = self.me.upgrade().filter(|_| unsaved)?;
        Some(move || {
            for _ in 0..LAST_TRIES {
                if keeper.sharing.as_ref().is_none_or(|sharing| keeper.compare_state(sharing).is_ok()) {
                    return;
                }
                thread::sleep(SOON);
            }
        })
    }
}

impl Control {
    fn hold_state(&mut self, keeping: &Keeping, secret: Secret, number: u64, now: Timestamp, stored: bool) {
        let kept = Kept { secret, number, since: now, end: now.after(keeping.profile.lifetime) };
        self.state = Some(HeldState { kept, stored });
        if !stored {
            // Whoever holds it stores it now; this is for the case that it cannot.
            self.store.look_at = Some(now.after(SOON));
        }
    }

    fn end_pause_for_want_of_a_ticket(&mut self) {
        self.pause = self.pause.take().filter(|pause| !pause.is_for_want_of_a_ticket());
    }
}

const NOT_ALONE: &str = "the refresh token or ticket is in the shared store, which cannot be used; an older one could \
                         end the sign-in";

const PASSED: &str = "the latest refresh token is not in the shared store; sign in again, unless a process that has it \
                      is still running";

const UNREADABLE: &str = "the refresh token or ticket in the shared store cannot be read; a later version of this program \
                          may have written it";

/// Vendors announce 512 bytes.
const LONGEST_TICKET: usize = 4 * 1024;

const MOST_TRIES: usize = 8;

/// Vendors push a ticket every ten minutes or less often.
const HELD_UP: Duration = Duration::from_secs(30);

/// How often it is tried to store what is left when all else has ended.
const LAST_TRIES: usize = 3;

/// When to try again to store what must not be lost.
pub(crate) const SOON: Duration = Duration::from_secs(1);

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
