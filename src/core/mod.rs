//! Decides everything about one credential. Pure: no thread, lock, clock, randomness, log, store or HTTP in this folder.
//!
//! # Theory of operation
//!
//! Each process has one [`Machine`](machine::Machine) for a credential. Its **driver** keeps the machine under a lock,
//! hands it whatever happens as an [`Input`], and performs the [`Action`]s that it answers with. What a fetch needs,
//! and in which order, is decided by a [`Refresh`](refresh::Refresh), one [`Step`](step::Step) after the other.
//!
//! **What a credential is.** A process *knows* a [`Record`](record::Record): the latest token, the watermark of
//! rejections ("nothing up to number N is good"), and the last failure. A store holds a record too. Two records merge
//! by one rule in which every field only grows, so the order of merges does not matter. Adopting, publishing, writing
//! back, rejecting, invalidating and copying from the fallback store are one operation: read, merge, compare-and-swap.
//! [`judge`] alone says what a token is worth. Numbers are reserved before a request and are at least the wall clock in
//! milliseconds, so a later request has the higher number in every process, even after a store has lost everything.
//!
//! **States.** What is usable follows from the record and the time; nothing else remembers it.
//!
//! | state | callers get | in the background |
//! |---|---|---|
//! | *fresh* | the token, from the cache | the store is compared every `store_check_interval` |
//! | *refresh due* | the token, from the cache | a refresh, if somebody reads the token |
//! | *expiring* | they wait for a new token, and get this one when there is a cooldown | |
//! | *empty*: expired, rejected, invalidated or never fetched | they wait for a refresh | nothing, unless kept warm |
//!
//! Beside these, a *cooldown* may last: the later of this process's and of the shared failure. During a cooldown the
//! provider is not asked, callers with a usable token get it, callers with time wait for the next try if the failure
//! passes by itself, and the store is still read. A *stopping* machine hands out what it has and fetches nothing.
//!
//! **Inputs.** [`Input`] lists what can happen: callers, rejections, invalidations, tickets, news from the store,
//! timers, shutdown, the last handle's end, a fork. Replies to steps arrive through [`advance`](machine::Machine::advance).
//!
//! **Timers.** [`timers`] derives the next one from the state, so none can be forgotten or left over. They abandon a
//! refresh whose step does not return, start background refreshes and comparisons with the store, retry writes, wake
//! callers at the end of a cooldown, and wipe an expired token. Nothing is due while nothing is held, fetched or unstored.
//!
//! **Who may fetch.** One refresh is in flight in a process. It fetches while it holds the lease of the store, which is
//! named after the refresh (not the process: an abandoned thread must not free its successor's lease) and outlasts the
//! whole fetch. While the primary store is down the fallback store's lease counts for this host; without any store a
//! process fetches alone, at least `store_down_fetch_interval` apart, and never with a rotating renewal secret. A
//! rotating secret is marked by compare-and-swap before it is sent, and its successor is stored before the token that
//! came with it is handed out. [`Refresh::decide`](refresh::Refresh::decide) has the whole order on one page.
//!
//! **Promises** that hold by construction, and that the model in `tests/model` checks in every order of events:
//!
//! 1. *A valid token wins*: `call` looks at the token before the cooldown.
//! 2. *Never an expired token*: ends count from before the request, on both clocks, and only the profile moves them later.
//! 3. *One fetch*: a lease, a number and a mark are reserved before each request; failures are shared in the record.
//! 4. *A rejected token stays rejected*: the watermark only grows, and every write compares, the lease holder's too. Two
//!    exceptions are stated where they are decided: a token that the provider returns again, and the newest token while
//!    services refuse every new one.
//! 5. *Deadlines*: each step has a limit, and each limit a timer.
//! 6. *Store failures are not token failures*: a failed store operation leads to the next [`Tier`], not to an error.
//! 7. *Nothing is lost*: what a store lacks is found by comparison, so a flush, an outage and a lost reply are one case.
//!
//! # For drivers
//!
//! Inputs are applied in the order of the lock. [`Action::Serve`] and [`Action::Withdraw`] are performed under it, so
//! that the cache never holds a token that was withdrawn; all other actions come after it. A reply is handed in even
//! when its refresh was abandoned: what it has fetched is kept.

pub(crate) mod access_token;
pub(crate) mod cooldown;
pub(crate) mod fetch;
pub(crate) mod handle;
pub(crate) mod input;
pub(crate) mod judge;
pub(crate) mod known;
pub(crate) mod machine;
pub(crate) mod notice;
pub(crate) mod overview;
pub(crate) mod quota;
pub(crate) mod record;
pub(crate) mod refresh;
pub(crate) mod rejection;
pub(crate) mod renewal;
pub(crate) mod rules;
pub(crate) mod step;
pub(crate) mod timers;

pub(crate) use input::{Action, Answer, Input};
pub(crate) use notice::Notice;
pub(crate) use rules::Rules;

use crate::clock::Timestamp;

/// What a decision may depend on beside the state.
#[derive(Clone, Copy)]
pub(crate) struct Env<'a> {
    pub(crate) now: Timestamp,
    /// From 0 to 1. Spreads refreshes and retries of many processes.
    pub(crate) random: f64,
    /// How often callers have read the cache.
    pub(crate) reads: u64,
    pub(crate) rules: &'a Rules,
}

/// Which store coordinates a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) enum Tier {
    Primary,
    /// For this host while the primary store is down.
    Fallback,
    /// None: the unit is this process.
    Alone,
}

/// Names a process towards other processes. Drawn at random by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessId(pub(crate) u64);

/// In the model, processes that differ in their names only are equal.
#[cfg(test)]
impl std::hash::Hash for ProcessId {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

/// Names a refresh within its process. With the [`ProcessId`] it is the owner of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefreshId(pub(crate) u32);

/// In the model, the highest bit tells a name from a count.
#[cfg(test)]
impl std::hash::Hash for RefreshId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u32(self.0 | 1 << 31);
    }
}
