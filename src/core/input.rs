//! What a machine is told, and what it answers.

use std::time::Duration;

use super::ProcessId;
use super::access_token::{AccessToken, Fingerprint, Sequence};
use super::notice::Notice;
use super::refresh::Refresh;
use super::step::Stored;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::secret::Secret;

/// What has happened.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A caller asks for a token, or asks again after [`Action::Wake`]. It waits no longer than `patience`; a caller
    /// that does not wait at all only has a refresh started.
    Call {
        patience: Duration,
    },
    /// A caller wants another token than the one with this number, the current one when the caller came.
    Force {
        than: Sequence,
        patience: Duration,
    },
    /// A service refused this token.
    Rejected {
        fingerprint: Fingerprint,
    },
    /// The user wants to forget the token and every cooldown.
    Invalidated,
    /// The vendor has pushed a ticket.
    TicketSet(Secret),
    /// The store told its record without any waiting, so no thread is needed.
    Recorded(Box<Stored>),
    /// The store has announced a change of the record.
    RecordChanged,
    /// A caller has read the cache after [`Action::ReportNextRead`].
    ReadAfterIdle,
    /// The time that `next_timer` announced has come.
    Timer,
    Shutdown,
    /// The last handle is gone.
    HandleDropped,
    /// This is a forked child now.
    Forked(ProcessId),
}

/// What the driver does next.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Under the lock: the cache answers with this token until then.
    Serve { token: Box<AccessToken>, until: Timestamp },
    /// Under the lock: the cache answers nobody.
    Withdraw,
    /// Run this refresh on a thread of its own.
    Start(Box<Refresh>),
    /// Waiting callers ask again.
    Wake,
    /// Have the store tell when the record changes, or no longer.
    Watch(bool),
    /// The next read of the cache is [`Input::ReadAfterIdle`].
    ReportNextRead,
    /// Tell subscribers, metrics and the log.
    Emit(Notice),
}

/// What the caller is told.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Done,
    Token(AccessToken),
    /// Ask again after [`Action::Wake`]. For a rejection, an invalidation or a ticket: the store is being told.
    Wait,
    Failed(Error),
}
