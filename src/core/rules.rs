//! The settings that decisions depend on. They do not change while a manager lives.

use std::time::Duration;

use crate::policy::Policy;
use crate::provider::{Profile, RenewalProfile};

/// Durations, the properties of the provider, and which stores there are.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    pub(crate) profile: Profile,
    /// How a renewal secret is kept, if the provider needs one.
    pub(crate) renewal: Option<RenewalProfile>,
    /// Whether the provider's tokens are derived from another manager's.
    pub(crate) has_parent: bool,
    pub(crate) has_store: bool,
    pub(crate) has_fallback: bool,
    /// Whether a change of the record is announced by the store.
    pub(crate) watches: bool,
    /// Whether a token that nobody reads is refreshed too.
    pub(crate) keeps_warm: bool,
    /// Deadline of one fetch; longer where a renewal secret rotates.
    pub(crate) fetch_limit: Duration,
    /// Deadline of one store operation.
    pub(crate) operation: Duration,
    /// How often the current token is compared with the store.
    pub(crate) store_check_interval: Duration,
    /// How soon the store is asked again for what could not be written and must not be lost.
    pub(crate) store_retry: Duration,
    /// Without a store, fetches of one process are at least so far apart.
    pub(crate) store_down_fetch_interval: Duration,
    /// A token that is rejected so soon after its grant was probably not the reason for the rejection.
    pub(crate) early: Duration,
    /// After so many early rejections in a row a service refuses every new token.
    pub(crate) early_limit: u32,
    /// Early rejections further apart are not in a row.
    pub(crate) early_window: Duration,
    /// Further rejections of a reinstated token are ignored for so long.
    pub(crate) reinstated_for: Duration,
    /// How long a token is used that the provider returns after its end.
    pub(crate) vouched_for: Duration,
    /// A process younger than that does not refresh a rotating secret in the background.
    pub(crate) young: Duration,
    /// How long a background refresh leaves the provider alone while another process holds the lease.
    pub(crate) busy_pause: Duration,
}

impl Rules {
    /// True when the renewal secret is replaced each time it is used, so that no two processes may use it at once.
    pub(crate) fn rotates(&self) -> bool {
        self.renewal.as_ref().is_some_and(|renewal| renewal.rotates)
    }

    /// The lease outlasts a whole fetch, a store operation before and after it, and a second for everything else.
    pub(crate) fn lease(&self) -> Duration {
        self.fetch_limit.saturating_add(2 * self.operation).saturating_add(LEASE_SPARE)
    }

    /// What has to be left of a lease when a request is sent: the fetch and its publication, and something to spare.
    pub(crate) fn least_lease(&self) -> Duration {
        self.fetch_limit.saturating_add(self.operation).saturating_add(LEASE_SPARE / 2)
    }

    /// How long a refresh waits for the leases of others. A holder that fails frees its lease, so a lease that lasts
    /// longer belongs to a process that is gone.
    pub(crate) fn longest_wait(&self) -> Duration {
        // Where a secret rotates, nobody may go on without the lease: the next holder may crash too.
        let leases = if self.rotates() { 2 } else { 1 };
        self.lease().saturating_mul(leases).saturating_add(self.operation)
    }

    /// How long another process's mark on a renewal secret is respected. The other process may hold the successor in
    /// memory. While it lives it stores the successor soon after the store works again.
    pub(crate) fn mark_patience(&self) -> Duration {
        self.lease().saturating_add(self.store_retry).saturating_add(2 * self.operation)
    }
}

const LEASE_SPARE: Duration = Duration::from_secs(1);
