//! What a provider allows in a day, counted for all that share a store.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::lease::{Counted, DAY};
use crate::manager::asking::Asking;
use crate::manager::keeper::Keeper;

/// The calls of a day, as far as they are known here.
#[derive(Clone, Copy)]
pub(crate) struct Day {
    pub(crate) counted: Counted,
    pub(crate) began: Timestamp,
}

impl Keeper {
    /// Counts a call of the provider, if a quota is to be kept. True when it may be forced, of which `wanted` says
    /// whether it is to be.
    pub(crate) fn count_call(&self, asking: &Asking<'_>, wanted: bool) -> Result<bool, Error> {
        let limit = self.profile.daily_quota.map(|quota| match asking.replaces_a_rejected_one() {
            true => quota.calls,
            false => quota.calls.saturating_sub(quota.reserve),
        });
        if limit.is_none() && self.profile.forced_quota.is_none() {
            return Ok(false);
        }
        self.count(asking, |counted, passed, for_all| {
            if limit.is_some_and(|limit| counted.calls >= limit) {
                let wait = DAY.saturating_sub(passed);
                return Err(Error::new(ErrorKind::Throttled, USED_UP).with_retry_after(wait));
            }
            counted.calls = counted.calls.saturating_add(1);
            Ok(wanted && for_all && self.count_forced(counted, passed))
        })
        .map_err(|error| error.of(self.provider.name()))
    }

    /// Counts a second call, which makes sense only when it is forced. False: it may not be.
    pub(crate) fn count_forced_call(&self, asking: &Asking<'_>) -> bool {
        if self.profile.forced_quota.is_none() {
            return false;
        }
        let counted = self.count(asking, |counted, passed, for_all| {
            let may = for_all && self.count_forced(counted, passed);
            counted.calls = counted.calls.saturating_add(u32::from(may));
            Ok(may)
        });
        counted.unwrap_or_default()
    }

    fn count_forced(&self, counted: &mut Counted, passed: Duration) -> bool {
        let spaced = passed >= counted.quiet_until;
        let may = spaced && self.profile.forced_quota.is_some_and(|quota| counted.forced < quota);
        if may {
            counted.forced += 1;
            counted.quiet_until = passed + self.profile.min_forced_interval.min(DAY);
        }
        may
    }

    /// Counts in the shared store, or here while there is none that can be used: then it is not counted for all, and
    /// nobody knows how often the others have forced.
    fn count(
        &self,
        asking: &Asking<'_>,
        admit: impl Fn(&mut Counted, Duration, bool) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let now = self.now();
        let for_all = |counted: &mut Counted, passed| admit(counted, passed, true);
        if let Some(sharing) = asking.sharing
            && let Ok((admitted, counted, passed)) = self.note_store(sharing.count(&self.quota, for_all))
        {
            self.lock().day = Some(Day { counted, began: now.before(passed) });
            return admitted;
        }
        let mut control = self.lock();
        let known = control.day.map_or((Counted::default(), Duration::ZERO), |day| (day.counted, now.since(day.began)));
        let (mut counted, passed) = known.0.on_the_day(known.1);
        let admitted = admit(&mut counted, passed, self.sharing.is_none());
        control.day = Some(Day { counted, began: now.before(passed) });
        admitted
    }
}

const USED_UP: &str = "the provider's daily quota is used up, less the reserve that replaces rejected tokens; share one store among all processes";
