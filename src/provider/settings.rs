//! What providers are told, and what can be wrong with it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::secret::Secret;

/// Says which of these settings is empty, or was copied with something around it. `name` is its name for people.
pub(super) fn check_texts(settings: &[(&str, &str)]) -> Result<(), Error> {
    for (name, text) in settings {
        if text.trim().is_empty() {
            return Err(Error::config(format!("the {name} is empty")));
        }
        // Read from a file, a line break comes along, and vendors only say that the secret is wrong.
        if text.trim() != *text {
            return Err(Error::config(format!("the {name} has blanks or line breaks around it")));
        }
    }
    Ok(())
}

/// The text of a file that may hold a secret. `what` is its name for people; nothing of what is in it is told.
pub(super) fn read_file(path: &Path, what: &str) -> Result<Secret, Error> {
    let unreadable = |cause: io::Error| Error::config(format!("{what} cannot be read: {}", cause.kind()));
    let file = File::open(path).map_err(unreadable)?;
    // Of its full size from the start: one that grows would leave what it held behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST_FILE + 2));
    file.take(LARGEST_FILE as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > LARGEST_FILE {
        return Err(Error::config(format!("{what} is larger than 64 KiB")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::config(format!("{what} is not UTF-8")))?;
    Ok(Secret::from(text))
}

/// Keys, chains of certificates and service accounts have a few KiB.
const LARGEST_FILE: usize = 64 * 1024;
