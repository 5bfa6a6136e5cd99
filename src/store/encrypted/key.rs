//! The encryption key of a store, and how it is read from the environment or a file.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::{env, fmt, io};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ring::hmac;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::store::io_reason::io_reason;

/// The 32 random bytes with which an [`EncryptedStore`](crate::EncryptedStore) encrypts.
///
/// `Debug` does not show the bytes. Clones share them, and they are wiped from memory when the last clone is dropped.
/// An environment variable is not wiped, nor are the copies that the cipher makes while it works.
///
/// ```no_run
/// use evertoken::EncryptionKey;
///
/// // head -c 32 /dev/urandom | base64 > evertoken.key; chmod 600 evertoken.key
/// let key = EncryptionKey::from_file("evertoken.key")?;
/// # Ok::<(), evertoken::Error>(())
/// ```
#[derive(Clone)]
pub struct EncryptionKey {
    bytes: Arc<Zeroizing<[u8; KEY_LENGTH]>>,
    id: KeyId,
}

/// Identifies a key without revealing it. Each encrypted record contains the id of its key.
pub(super) type KeyId = [u8; ID_LENGTH];

impl EncryptionKey {
    /// Returns a key with these bytes, which must come from a cryptographic random number generator, not from a
    /// password.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the bytes have fewer than eight different values, as an
    /// array of zeros has. Other weak keys are not detected.
    pub fn new(bytes: [u8; 32]) -> Result<EncryptionKey, Error> {
        EncryptionKey::from_bytes(Zeroizing::new(bytes))
            .ok_or_else(|| Error::config(format!("the encryption key {WEAK}; {HOW_TO_MAKE_A_KEY}")))
    }

    /// Reads the key from an environment variable: 32 bytes in base64 (standard or URL-safe, with or without padding),
    /// or 64 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the variable is not set or contains no key. The text has
    /// the variable's name and a command that makes a key.
    pub fn from_env(name: &str) -> Result<EncryptionKey, Error> {
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        // The caller may have passed the key itself in place of a name. Then the error must not quote it.
        if name.is_empty() || !name.bytes().all(is_name_byte) || decode(name).is_some() {
            return Err(Error::config(
                "name the environment variable that contains the encryption key, not the key itself; \
                 a name has letters, digits and _ only",
            ));
        }
        let error = |what: &str| Error::config(format!("the environment variable {name} {what}; {HOW_TO_MAKE_A_KEY}"));
        let value = env::var_os(name).ok_or_else(|| error("is not set; it should contain the encryption key"))?;
        let value = Zeroizing::new(value.into_encoded_bytes());
        let bytes = std::str::from_utf8(&value).ok().and_then(decode).ok_or_else(|| error(NOT_A_KEY))?;
        EncryptionKey::from_bytes(bytes).ok_or_else(|| error(WEAK))
    }

    /// Reads the key from a file: text as for [`from_env`](EncryptionKey::from_env), with or without a line end, or
    /// exactly 32 bytes.
    ///
    /// On Unix, only the file's owner may have access to it (`chmod 600`). Other systems have no such check.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the file cannot be read, is no regular file, is accessible
    /// to other users, or contains no key. The text has the path and says what to do.
    pub fn from_file(path: impl AsRef<Path>) -> Result<EncryptionKey, Error> {
        let path = path.as_ref();
        if path.to_str().and_then(decode).is_some() {
            // The caller has passed a key in place of a path. The error must not quote it.
            return Err(Error::config(
                "name the file that contains the encryption key; the given path looks like the key itself",
            ));
        }
        // `{:?}` escapes line breaks in the path, which could otherwise forge a line of the log.
        let error = |what: &str| Error::config(format!("the encryption key's file {path:?} {what}"));
        let read_error = |cause: io::Error| match cause.kind() {
            io::ErrorKind::NotFound => error(&format!("does not exist; {HOW_TO_MAKE_A_KEY}")),
            _ => error(&format!("cannot be read: {}", io_reason(&cause))),
        };
        let check_metadata = |metadata: Metadata| match metadata.is_file() {
            false => Err(error("is no regular file; name one")),
            true if is_accessible_to_others(&metadata) => {
                Err(error(&format!("can be read or written by others than its owner; run `chmod 600 {path:?}`")))
            }
            true => Ok(()),
        };
        // Check the path before opening it, because opening a FIFO blocks until a writer comes. Check the open file as
        // well, because the path may lead to another file by then.
        check_metadata(fs::metadata(path).map_err(read_error)?)?;
        let file = File::open(path).map_err(read_error)?;
        check_metadata(file.metadata().map_err(read_error)?)?;
        // Allocate the full size at once: a vector that grows leaves copies of the key in freed memory.
        let mut content = Zeroizing::new(Vec::with_capacity(MAX_FILE_LENGTH + 1));
        file.take(MAX_FILE_LENGTH as u64).read_to_end(&mut content).map_err(read_error)?;
        let bytes = match <[u8; KEY_LENGTH]>::try_from(content.as_slice()) {
            // 32 bytes of text are no key but half of one in hexadecimal, or a password.
            Ok(raw) if !raw.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => {
                Some(Zeroizing::new(raw))
            }
            _ => std::str::from_utf8(&content).ok().and_then(decode),
        };
        let bytes = bytes.ok_or_else(|| error(&format!("{NOT_A_KEY}; {HOW_TO_MAKE_A_KEY}")))?;
        EncryptionKey::from_bytes(bytes).ok_or_else(|| error(&format!("{WEAK}; {HOW_TO_MAKE_A_KEY}")))
    }

    /// Returns a key with these bytes and its id, `None` if the bytes are obviously not random.
    fn from_bytes(bytes: Zeroizing<[u8; KEY_LENGTH]>) -> Option<EncryptionKey> {
        let is_strong = bytes.iter().collect::<BTreeSet<_>>().len() >= MIN_DISTINCT_BYTES;
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*bytes), b"evertoken sealing key id");
        let mut id = KeyId::default();
        id.copy_from_slice(&tag.as_ref()[..ID_LENGTH]);
        is_strong.then(|| EncryptionKey { bytes: Arc::new(bytes), id })
    }

    pub(super) fn id(&self) -> &KeyId {
        &self.id
    }

    /// Returns a cipher with this key. The cipher is made for each use, which is cheap, and not kept, because `ring`
    /// does not wipe the keys that it holds.
    pub(super) fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &**self.bytes).expect("this cipher's keys have 32 bytes");
        LessSafeKey::new(key)
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey(***)")
    }
}

/// Decodes a key from text. The length tells hexadecimal digits from base64.
fn decode(text: &str) -> Option<Zeroizing<[u8; KEY_LENGTH]>> {
    let text = text.trim_ascii();
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    if text.len() == 2 * KEY_LENGTH {
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |at: usize| char::from(digits[at]).to_digit(16);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
        }
        return Some(key);
    }
    let text = text.trim_end_matches('=');
    let bytes = [STANDARD_NO_PAD, URL_SAFE_NO_PAD].iter().find_map(|alphabet| alphabet.decode(text).ok());
    let bytes = Zeroizing::new(bytes.filter(|bytes| bytes.len() == KEY_LENGTH)?);
    key.copy_from_slice(&bytes);
    Some(key)
}

#[cfg(unix)]
fn is_accessible_to_others(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o066 != 0
}

#[cfg(not(unix))]
fn is_accessible_to_others(_: &Metadata) -> bool {
    false
}

const KEY_LENGTH: usize = 32;
pub(super) const ID_LENGTH: usize = 8;

/// 32 random bytes have fewer different values than this with a probability below 2^-100.
const MIN_DISTINCT_BYTES: usize = 8;

/// Larger than every encoding of a key, with blanks around it.
const MAX_FILE_LENGTH: usize = 1024;

const NOT_A_KEY: &str = "contains no encryption key: 32 bytes in base64, or 64 hexadecimal digits";
const WEAK: &str = "is not random: it has too few different bytes";
const HOW_TO_MAKE_A_KEY: &str = "make a key with `head -c 32 /dev/urandom | base64`";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::hex;

    fn counted() -> [u8; KEY_LENGTH] {
        std::array::from_fn(|at| at as u8 * 8 + 3)
    }

    #[test]
    fn all_encodings_of_a_key_decode_to_the_same_bytes() {
        // Begin with bytes whose letters differ between the two alphabets of base64.
        let bytes: [u8; KEY_LENGTH] = std::array::from_fn(|at| if at < 3 { [0xfb, 0xef, 0xff][at] } else { at as u8 });
        let (standard, url_safe) = (STANDARD_NO_PAD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes));
        assert_ne!(standard, url_safe);
        let forms = [
            format!("{standard}="),
            format!("{url_safe}="),
            hex(&bytes),
            hex(&bytes).to_uppercase(),
            format!(" {standard}\r\n"),
            standard,
            url_safe,
        ];
        for form in forms {
            assert_eq!(*decode(&form).expect("a good form"), bytes, "{form}");
        }
    }

    #[test]
    fn text_of_another_length_or_alphabet_is_no_key() {
        let good = STANDARD_NO_PAD.encode(counted());
        let digits = hex(&counted());
        for bad in [
            "",
            "=",
            &good[1..],
            &format!("{good}A"),
            &good.replacen(&good[5..6], "*", 1),
            &format!("{}\n{}", &good[..20], &good[20..]),
            &digits[2..],
            &format!("{digits}00"),
            &format!("+{}", &digits[1..]),
            &format!("{}g", &digits[1..]),
            &"é".repeat(32),
        ] {
            assert!(decode(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_with_few_different_bytes_is_refused() {
        let of = |different: usize| EncryptionKey::new(std::array::from_fn(|at| (at % different) as u8));
        for different in 1..MIN_DISTINCT_BYTES {
            assert!(of(different).is_err(), "{different}");
        }
        assert!(of(MIN_DISTINCT_BYTES).is_ok());
    }

    #[test]
    fn the_id_identifies_the_key_and_contains_no_part_of_it() {
        let one = EncryptionKey::new(counted()).expect("a good key");
        let mut other = counted();
        other[31] ^= 1;
        let other = EncryptionKey::new(other).expect("a good key");
        assert_ne!(one.id(), other.id());
        assert_eq!(one.id(), EncryptionKey::new(counted()).expect("a good key").id());
        assert!(!counted().windows(2).any(|pair| one.id().windows(2).any(|shown| shown == pair)));
    }
}
