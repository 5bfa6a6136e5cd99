//! Names that nobody else has.

use ring::rand::{SecureRandom, SystemRandom};

use crate::error::{Error, ErrorKind};
use crate::secret::hex;

/// A name that is given once, on whatever host: 128 random bits of the system's, in hexadecimal.
///
/// Not those of `fastrand`: a program that seeds these, to have the same each time, would be taken for its twin.
pub(crate) fn unique_name() -> Result<String, Error> {
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Error::new(ErrorKind::Unavailable, "this machine has no random numbers"))?;
    Ok(hex(&bytes))
}
