//! Checks of the texts that a provider is built from, and the reading of files that contain secrets.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::secret::Secret;

/// Checks that no setting is empty or has white space around it. The first part of each pair is the name for the error
/// text.
pub(super) fn check_texts(settings: &[(&str, &str)]) -> Result<(), Error> {
    for (name, text) in settings {
        if text.trim().is_empty() {
            return Err(Error::config(format!("the {name} is empty")));
        }
        // A secret that was read from a file often ends with a line break. The vendor would only report a wrong secret.
        if text.trim() != *text {
            return Err(Error::config(format!("the {name} has blanks or line breaks around it; remove them")));
        }
    }
    Ok(())
}

/// Reads a text file that may contain a secret. `what` says which file it is, such as `the private key file`. Error
/// texts name the path and never quote the content.
pub(super) fn read_file(path: &Path, what: &str) -> Result<Secret, Error> {
    let fault = |text: &str| Error::config(format!("{what}{} {text}", displayable_path(path)));
    let unreadable = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => fault("does not exist"),
        kind => fault(&format!("cannot be read: {kind}")),
    };
    let file = File::open(path).map_err(unreadable)?;
    // The full size at once: a vector that grows leaves copies of the secret in memory that nothing wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_SIZE + 2));
    file.take(MAX_FILE_SIZE as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_FILE_SIZE {
        return Err(fault("is larger than 64 KiB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| fault("is not UTF-8"))?;
    Ok(Secret::from(text))
}

/// Returns a path in quotes for an error text, after a blank. Returns nothing for a text that looks like the content of
/// a file: a caller who passes a key or a JSON text in place of its path must not find it in a log.
fn displayable_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_content = text.len() > MAX_PATH_LENGTH || text.contains(['{', '\n', '\r']) || text.contains("-----");
    if is_content { String::new() } else { format!(" {text:?}") }
}

const MAX_PATH_LENGTH: usize = 255;

/// Private keys, certificate chains and service accounts have a few KiB.
const MAX_FILE_SIZE: usize = 64 * 1024;
