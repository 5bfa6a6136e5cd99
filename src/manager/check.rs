//! The check of a manager's settings and stores at the start of a program.

use crate::error::{Error, catch_panic};
use crate::manager::keeper::Keeper;

impl Keeper {
    /// Checks settings, provider, store and fallback store, in this order, and returns the first error.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.checked()?;
        // Again, because files and variables that the provider reads may have changed since the manager was built.
        catch_panic(|| self.provider.check())?;
        self.sharing.as_ref().map_or(Ok(()), |sharing| sharing.check())?;
        let fallback = self.stand_in.as_ref().map_or(Ok(()), |sharing| sharing.check());
        fallback.map_err(|error| error.of("fallback_store"))
    }
}
