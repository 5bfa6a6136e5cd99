//! Why a file operation failed, in the words of an error message.

use std::io;

/// Returns the reason in plain words, and what to do about it where that is clear.
pub(super) fn io_reason(error: &io::Error) -> String {
    let reason = match error.kind() {
        // The text of an error that this crate has made says more than its kind.
        _ if error.get_ref().is_some() => return error.to_string(),
        io::ErrorKind::NotFound => "it does not exist",
        io::ErrorKind::PermissionDenied => "permission denied; give the user of this process access",
        io::ErrorKind::StorageFull => "the disk is full; free some space",
        io::ErrorKind::QuotaExceeded => "the user's disk quota is used up; free some space",
        io::ErrorKind::FileTooLarge => "the system's limit on file sizes is too low",
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only; name a directory on another one",
        io::ErrorKind::NotADirectory => "a part of the path is no directory",
        io::ErrorKind::IsADirectory => "it is a directory; remove it",
        _ => return error.to_string(),
    };
    reason.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_in_plain_words_and_a_text_of_our_own_is_kept() {
        assert_eq!(io_reason(&io::ErrorKind::NotFound.into()), "it does not exist");
        assert_eq!(io_reason(&io::Error::new(io::ErrorKind::NotFound, "the lock is gone")), "the lock is gone");
    }
}
