//! The conversation of a refresh with the world: what it asks the driver to do, and what the driver answers.

use std::time::Duration;

use super::access_token::Fingerprint;
use super::quota::Day;
use super::record::Record;
use super::renewal::{RenewalSecret, StoredRenewal};
use super::{Env, Tier};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::policy::Lifetime;
use crate::secret::Secret;
use crate::version::Version;

/// One step of a refresh. The driver performs it without holding the machine's lock, and hands the reply in.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) enum Step {
    Read(Tier),
    /// Reads a record other than `seen`. When there is none, takes the lease; its owner is named after this refresh.
    ReadOrLease {
        tier: Tier,
        seen: Option<Version>,
    },
    /// Waits for a change of the record, for the end of the lease, or until then.
    WaitForChange {
        tier: Tier,
        until: Timestamp,
    },
    /// Compare-and-swap against `seen`. Frees this refresh's lease in the same operation, if `frees_lease`.
    Write {
        tier: Tier,
        record: Box<Record>,
        seen: Option<Version>,
        keep_for: Duration,
        frees_lease: bool,
    },
    /// Frees the lease if it still belongs to this refresh.
    FreeLease(Tier),
    ReadRenewal,
    /// Compare-and-swap: this refresh is about to send the secret.
    MarkRenewal {
        secret: RenewalSecret,
        seen: Option<Version>,
    },
    /// Compare-and-swap: the successor, or a ticket that was handed in.
    StoreRenewal {
        secret: RenewalSecret,
        seen: Option<Version>,
    },
    ReadQuota,
    /// Compare-and-swap of the count.
    WriteQuota {
        day: Day,
        seen: Option<Version>,
    },
    /// Asks the parent's manager for its token. The driver keeps the token for the fetch.
    ParentToken,
    /// Rejects the parent token that was just refused.
    RejectParent,
    Fetch {
        renewal: Option<RenewalSecret>,
        is_forced: bool,
        until: Timestamp,
    },
    Finish,
}

impl Step {
    /// When the step is over at the latest. A refresh whose step is not is abandoned.
    pub(crate) fn limit(&self, env: &Env<'_>) -> Timestamp {
        match self {
            Step::WaitForChange { until, .. } | Step::Fetch { until, .. } => *until,
            Step::ParentToken | Step::RejectParent => env.now.after(env.rules.fetch_limit),
            _ => env.now.after(env.rules.operation),
        }
    }

    /// The store that the step is about, if it is about one.
    pub(crate) fn tier(&self) -> Option<Tier> {
        match self {
            Step::Read(tier)
            | Step::FreeLease(tier)
            | Step::ReadOrLease { tier, .. }
            | Step::WaitForChange { tier, .. }
            | Step::Write { tier, .. } => Some(*tier),
            Step::ReadRenewal
            | Step::MarkRenewal { .. }
            | Step::StoreRenewal { .. }
            | Step::ReadQuota
            | Step::WriteQuota { .. } => Some(Tier::Primary),
            Step::ParentToken | Step::RejectParent | Step::Fetch { .. } | Step::Finish => None,
        }
    }
}

/// What became of a step.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) enum Reply {
    /// The refresh has a thread. Comes before the first step.
    Started,
    /// What the store holds. Also the answer to a [`Step::Write`] that found another version.
    Found(Stored),
    Leased,
    Busy {
        remaining: Duration,
    },
    Waited,
    /// A compare-and-swap took place. With the new version.
    Written(Option<Version>),
    /// A compare-and-swap of a renewal secret or a count found something else.
    Conflict,
    Renewal(StoredRenewal),
    Quota {
        day: Option<Day>,
        version: Option<Version>,
    },
    /// The parent's token, by name.
    Parent(Fingerprint),
    Granted(Grant),
    /// The provider, or the parent's manager, returned an error.
    Refused(Error),
    /// The store of this step cannot be used.
    StoreDown(Error),
    Done,
}

/// A record as it was read. An empty one when there is none.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Stored {
    pub(crate) record: Record,
    pub(crate) version: Option<Version>,
}

/// What the provider granted.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Grant {
    pub(crate) secret: Secret,
    pub(crate) fingerprint: Fingerprint,
    /// `None`: the provider named none, and the profile's counts.
    pub(crate) lifetime: Option<Lifetime>,
    pub(crate) renewal_secret: Option<Secret>,
}
