//! What has become known: for subscribers, metrics and the log.

use std::time::Duration;

use super::access_token::Fingerprint;
use crate::error::Error;

/// What has become known. The driver adds what only it knows: how long a fetch took.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    Granted { fingerprint: Fingerprint, is_fetched_here: bool, is_in_background: bool },
    Unchanged { retry_in: Duration },
    Failed { error: Error, retry_in: Duration },
    Rejected { fingerprint: Fingerprint },
    Reinstated { fingerprint: Fingerprint },
    Invalidated,
    StoreDown { error: Error },
    StoreUp,
    RenewalSecretNotStored { error: Error },
}
