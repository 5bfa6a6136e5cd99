//! Names that are unique on all hosts, for lease owners, claims and assertion ids.

use ring::rand::{SecureRandom, SystemRandom};

use crate::error::{Error, ErrorKind};
use crate::secret::hex;

/// Returns a unique name: 128 random bits from the operating system, in hexadecimal.
///
/// `fastrand` does not serve here. Two copies of a program that seeds `fastrand` with a fixed number would get the same
/// names and take each other's leases for their own.
pub(crate) fn unique_name() -> Result<String, Error> {
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| {
        Error::new(ErrorKind::Unavailable, "the operating system provides no random numbers; check /dev/urandom")
    })?;
    Ok(hex(&bytes))
}
