//! Asking the provider: with its state, with its parent's token, and within its quota. No lock is held here.

use std::time::Duration;

use crate::clock::{Deadline, Stopwatch};
use crate::error::{Error, ErrorKind, catch_panic};
use crate::lease::{Kept, Record, Sharing, next_number};
use crate::manager::control::{Known, Purpose, Ticket};
use crate::manager::journey::Granted;
use crate::manager::keeper::Keeper;
use crate::manager::state::Keeping;
use crate::provider::{Context, Grant};
use crate::token::{Token, TokenSource};

/// What a fetch goes by.
pub(crate) struct Asking<'a> {
    /// The shared store, while this manager has the lease.
    pub(crate) sharing: Option<&'a Sharing>,
    pub(crate) ticket: &'a Ticket,
    /// What is recorded.
    pub(crate) seen: &'a Record,
    pub(crate) deadline: Deadline,
    /// When the lease must be given back.
    pub(crate) until: Deadline,
}

/// How a call of the provider is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    /// When it is made; forced if that may be.
    Usual,
    /// It is counted already, as a forced one.
    Forced,
}

impl Asking<'_> {
    /// The tokens that are known by name.
    fn known(&self) -> Vec<Known> {
        let recorded =
            self.seen.token.iter().map(|token| Known { fingerprint: token.fingerprint.clone(), end: token.end() });
        let rejected = self.seen.rejected.iter();
        let rejected = rejected.map(|token| Known { fingerprint: token.fingerprint.clone(), end: token.end });
        self.ticket.known.iter().cloned().chain(recorded).chain(rejected).collect()
    }

    fn is_rejected(&self, fingerprint: &str) -> bool {
        self.ticket.rejected.iter().any(|rejected| rejected == fingerprint) || self.seen.rejects(fingerprint)
    }

    /// True when the token to be had is to replace one that was rejected, here or elsewhere.
    pub(crate) fn replaces_a_rejected_one(&self) -> bool {
        let elsewhere = || match &self.ticket.last {
            Some(last) => self.seen.rejects(last),
            None => !self.seen.rejected.is_empty(),
        };
        self.ticket.held.is_none() && self.seen.token.is_none() && (self.ticket.last_is_rejected() || elsewhere())
    }
}

impl Keeper {
    /// Asks for a token; one that was rejected and is granted again is not the last word of a provider that can be
    /// forced.
    pub(crate) fn ask_provider(&self, asking: &Asking<'_>) -> Result<Granted, Error> {
        let (granted, forced) = self.ask_once(asking, Call::Usual)?;
        if !granted.same || forced || !asking.is_rejected(&granted.fingerprint) || !self.count_forced_call(asking) {
            return Ok(granted);
        }
        // A token that the service refuses is still better than none.
        Ok(self.ask_once(asking, Call::Forced).map_or(granted, |(granted, _)| granted))
    }

    /// Also tells whether it was forced.
    fn ask_once(&self, asking: &Asking<'_>, call: Call) -> Result<(Granted, bool), Error> {
        // Read before the call: a slow answer must shorten the life that is assumed, not lengthen it.
        let asked_at = self.now();
        let watch = Stopwatch::start();
        let mut forced = call == Call::Forced;
        let granted = self.ask_with_state(asking, &mut forced).and_then(|grant| grant.into_parts(&self.profile));
        self.recorder.record_fetch(watch.elapsed(), granted.is_ok());
        let (secret, life) = granted?;
        let (fingerprint, told) = (secret.fingerprint(), asked_at.after(life.total));
        let again = Known::end_of(&fingerprint, &asking.known(), asked_at, told);
        let end = again.filter(|_| !self.profile.unchanged_token_extends).unwrap_or(told);
        let (same, number) = (again.is_some(), asking.seen.number.max(asking.ticket.number));
        let number = if same { number } else { next_number(number) };
        Ok((Granted { secret, fingerprint, life, end, same, number, asked_at, version: None }, forced))
    }

    fn ask_with_state(&self, asking: &Asking<'_>, forced: &mut bool) -> Result<Grant, Error> {
        let Some(keeping) = &self.keeping else { return self.ask_with_parent(asking, None, forced) };
        let turn = self.take_state_turn(keeping, asking.sharing, asking.deadline);
        let turn = turn.map_err(|error| error.of(self.provider.name()))?;
        // Whoever has waited for the turn has the whole time all the same: an answer that comes too late is lost.
        let deadline = Deadline::within(self.settings.fetch_limit).min(asking.until);
        let answer = self.ask_with_latest_state(keeping, &Asking { deadline, ..*asking }, forced);
        self.end_state_turn(asking.sharing, turn);
        answer
    }

    fn ask_with_latest_state(&self, keeping: &Keeping, asking: &Asking<'_>, forced: &mut bool) -> Result<Grant, Error> {
        let latest = || self.latest_state(keeping, asking.sharing).map_err(|error| error.of(self.provider.name()));
        let mut used = latest()?;
        let mut answer = self.ask_with_parent(asking, used.as_ref(), forced);
        let refused = |error: &Error| matches!(error.kind(), ErrorKind::InvalidCredentials | ErrorKind::SignInRequired);
        let refused = answer.as_ref().err().is_some_and(refused);
        if refused && keeping.profile.rotates {
            // Somebody who does not take turns may have used it, and stored the one that came for it.
            let later = latest().ok().flatten();
            let later = later.filter(|later| used.as_ref().is_none_or(|used| used.number < later.number));
            if let Some(later) = later {
                answer = self.ask_with_parent(asking, Some(&later), forced);
                used = Some(later);
            }
        }
        // Whatever is wrong with the token, the state before may be used up.
        if let Some(new) = answer.as_mut().ok().and_then(Grant::take_renewal_secret) {
            self.keep_state(keeping, asking.sharing, used.as_ref(), new, asking.deadline);
        }
        answer
    }

    /// Asks with the parent's token, and once more with another one when the first is refused.
    fn ask_with_parent(&self, asking: &Asking<'_>, state: Option<&Kept>, forced: &mut bool) -> Result<Grant, Error> {
        catch_panic(|| {
            let Some(source) = self.provider.parent() else { return self.ask(asking, state, None, forced) };
            let token = self.parents_token(source, asking)?;
            let refused = match self.ask(asking, state, Some(token.clone()), forced) {
                Err(refused) if refused.kind() == ErrorKind::TokenRejected => refused,
                answer => {
                    self.lock().parent_refused = None;
                    return answer;
                }
            };
            if self.lock().parent_refused.as_deref() == Some(token.fingerprint()) {
                // It was refused before, when it was new: another one would be too, and whoever else uses it would lose it.
                return Err(refused);
            }
            // An error means that other processes could not be told; here it is out of use.
            drop(source.reject(&token));
            let token = self.parents_token(source, asking)?;
            let answer = self.ask(asking, state, Some(token.clone()), forced);
            let refused = answer.as_ref().err().is_some_and(|error| error.kind() == ErrorKind::TokenRejected);
            self.lock().parent_refused = refused.then(|| token.fingerprint().to_owned());
            answer
        })
    }

    fn parents_token(&self, source: &dyn TokenSource, asking: &Asking<'_>) -> Result<Token, Error> {
        source.token_within(asking.deadline.remaining()).map_err(|error| {
            // The parent pauses, and does not when the ticket comes. To ask it again costs nothing.
            let at_once = error.kind() == ErrorKind::TicketRequired;
            let error = if at_once { error.with_retry_after(Duration::ZERO) } else { error };
            error.of(self.provider.name())
        })
    }

    fn ask(
        &self,
        asking: &Asking<'_>,
        state: Option<&Kept>,
        parent: Option<Token>,
        forced: &mut bool,
    ) -> Result<Grant, Error> {
        if !*forced {
            *forced = self.count_call(asking, asking.ticket.purpose == Purpose::Force)?;
        }
        // Beyond it the lease may be another's.
        if asking.deadline.has_passed() {
            let late = Error::new(
                ErrorKind::Unavailable,
                "the fetch reached its deadline before the provider could be asked; try again",
            );
            return Err(late.of(self.provider.name()));
        }
        let context = Context::until(&self.http, asking.deadline, self.time.clone());
        let context = context.with_renewal_secret(state.map(|state| state.secret.clone())).with_parent(parent);
        self.provider.fetch(&context.with_forced(*forced))
    }
}
