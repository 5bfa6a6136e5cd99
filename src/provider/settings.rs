//! Checks of the texts that a provider is built from, and the reading of files that contain secrets.
//!
//! Every secret that comes from outside goes through this file: [`read_file`] reads files, and [`check_texts`]
//! and its relatives check what a program, a variable or a file set. An id or a secret of one line has
//! neither blanks around it nor control characters in it; PEM and JSON are documents and may have several lines.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::secret::Secret;

/// Checks settings of one line, such as ids and secrets: none is empty, has white space around it or a control
/// character in it. The first part of each pair is the name for the error text.
pub(super) fn check_texts(settings: &[(&str, &str)]) -> Result<(), Error> {
    settings.iter().try_for_each(|(name, text)| match text.trim().is_empty() {
        true => Err(Error::config(format!("the {name} is empty"))),
        false => check_line(&format!("the {name}"), text),
    })
}

/// Checks a setting of one line that may be empty. `name` begins the error text, such as `the scope`.
///
/// A secret from a file or an environment variable often ends with a line break. The vendor would only report that
/// the secret is wrong.
pub(super) fn check_line(name: &str, text: &str) -> Result<(), Error> {
    if text.starts_with(is_blank) || text.ends_with(is_blank) {
        return Err(Error::config(format!("{name} has blanks or line breaks around it; remove them")));
    }
    if text.contains(char::is_control) {
        return Err(Error::config(format!("{name} contains a control character, such as a line break; remove it")));
    }
    Ok(())
}

/// Checks a setting that may also be a document of several lines, JSON or PEM.
pub(super) fn check_line_or_document(name: &str, text: &str) -> Result<(), Error> {
    let is_document = text.trim_start().starts_with(['{', '[']) || text.contains("-----BEGIN ");
    if is_document { Ok(()) } else { check_line(name, text) }
}

/// Returns true for white space, and for characters without a width, such as a byte-order mark.
fn is_blank(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2060}' | BYTE_ORDER_MARK)
}

/// Returns the text of a secret file as its author meant it: without the byte-order mark that some editors put before
/// the text, and without the one line break that editors and `echo` put after it.
pub(super) fn file_text(text: &str) -> &str {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line))
}

/// Reads a text file that may contain a secret, such as a PEM or JSON document, without its byte-order mark and last
/// line break. `what` says which file it is, such as `the private key file`. Error texts name the path and never quote
/// the content.
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
    Ok(Secret::from(file_text(text)))
}

/// Returns a path in quotes for an error text, after a blank. Returns nothing for a text that looks like the content of
/// a file: a caller who passes a key or a JSON text in place of its path must not find it in a log.
fn displayable_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_content = text.len() > MAX_PATH_LENGTH || text.contains(['{', '\n', '\r']) || text.contains("-----");
    if is_content { String::new() } else { format!(" {text:?}") }
}

const BYTE_ORDER_MARK: char = '\u{feff}';

const MAX_PATH_LENGTH: usize = 255;

/// Private keys, certificate chains and service accounts have a few KiB.
const MAX_FILE_SIZE: usize = 64 * 1024;
