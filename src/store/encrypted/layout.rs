//! The layout of an encrypted record.
//!
//! ```text
//! format  1 byte    1; text never begins with this byte, so plain records are recognized
//! key id  8 bytes   which encryption key, see `EncryptionKey::id`
//! nonce   12 bytes  random
//! data              as long as the plain bytes
//! tag     16 bytes  authenticates the data and the associated data
//! ```
//!
//! The associated data are a constant, the record's key in the store and the key id, each with its length in front, so
//! that two different lists never give the same bytes. A new layout must use another format byte, and still read this
//! one.

use ring::aead::{Aad, CHACHA20_POLY1305, NONCE_LEN, Nonce};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::key::{EncryptionKey, ID_LENGTH, KeyId};
use crate::error::{Error, ErrorKind};
use crate::key::Key;

/// Encrypts `plain` with `key`, bound to the store key `name`.
pub(super) fn encrypt(key: &EncryptionKey, name: &Key, plain: &[u8]) -> Result<Vec<u8>, Error> {
    let error = |text| move |_| Error::new(ErrorKind::Store, text);
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(error("the system has no random numbers, without which the record cannot be encrypted"))?;
    // Allocate the full size at once: a vector that grows leaves copies of the plain bytes in freed memory.
    let mut record = Zeroizing::new(Vec::with_capacity(HEADER_LENGTH + plain.len() + CHACHA20_POLY1305.tag_len()));
    record.push(FORMAT);
    record.extend_from_slice(key.id());
    record.extend_from_slice(&nonce);
    record.extend_from_slice(plain);
    let (aad, nonce) = (Aad::from(associated_data(name, key.id())), Nonce::assume_unique_for_key(nonce));
    let tag = key.cipher().seal_in_place_separate_tag(nonce, aad, &mut record[HEADER_LENGTH..]);
    record.extend_from_slice(tag.map_err(error("the record is too large to be encrypted"))?.as_ref());
    Ok(std::mem::take(&mut *record))
}

/// Decrypts a record that was stored under `name` with one of `keys`. The error is the reason, for the log.
pub(super) fn decrypt<'a>(
    mut keys: impl Iterator<Item = &'a EncryptionKey>,
    name: &Key,
    record: &[u8],
) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    // The header tells which key to use. The tag covers the header too, so a forged one fails below.
    let rest = record.strip_prefix(&[FORMAT]).ok_or(NOT_ENCRYPTED)?;
    let (id, rest) = rest.split_first_chunk::<ID_LENGTH>().ok_or(DAMAGED)?;
    let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>().ok_or(DAMAGED)?;
    let key = keys.find(|key| key.id() == id).ok_or(UNKNOWN_KEY)?;
    let mut bytes = Zeroizing::new(rest.to_vec());
    let (aad, nonce) = (Aad::from(associated_data(name, id)), Nonce::assume_unique_for_key(*nonce));
    let length = key.cipher().open_in_place(nonce, aad, &mut bytes).map_err(|_| DAMAGED)?.len();
    bytes.truncate(length);
    Ok(bytes)
}

/// The data that the tag authenticates besides the record itself, each part with its length in front.
fn associated_data(name: &Key, id: &KeyId) -> Vec<u8> {
    let parts = [DOMAIN, name.as_str().as_bytes(), id];
    parts.iter().flat_map(|part| (part.len() as u64).to_be_bytes().into_iter().chain(part.iter().copied())).collect()
}

/// The first byte of a record.
const FORMAT: u8 = 1;
const HEADER_LENGTH: usize = 1 + ID_LENGTH + NONCE_LEN;
/// Ends in the number of the format. Part of the format: a change makes existing records unreadable.
const DOMAIN: &[u8] = b"evertoken sealed record 1";

const NOT_ENCRYPTED: &str = "it is not encrypted, or was written by a later version";
const UNKNOWN_KEY: &str = "it was encrypted with a key that is not given here; add that key with also_decrypt_with";
const DAMAGED: &str = "it is damaged, or was moved here from another key of the store";

#[cfg(test)]
mod tests {
    use super::*;

    fn key(first: u8) -> EncryptionKey {
        EncryptionKey::new(std::array::from_fn(|at| first.wrapping_add(at as u8))).expect("different bytes")
    }

    fn name(name: &str) -> Key {
        Key::custom(name).expect("a plain name")
    }

    fn encrypted(plain: &[u8]) -> Vec<u8> {
        encrypt(&key(1), &name("a"), plain).expect("the record is small enough")
    }

    #[test]
    fn records_of_any_length_decrypt() {
        for length in (0..200).chain([60_000, 70_000]) {
            let plain: Vec<u8> = (0..length).map(|at: u32| at as u8).collect();
            let encrypted = encrypted(&plain);
            assert_eq!(encrypted.len(), plain.len() + HEADER_LENGTH + 16);
            assert_eq!(decrypt([key(1)].iter(), &name("a"), &encrypted).expect("the key is right").as_slice(), plain);
        }
    }

    #[test]
    fn the_layout_is_format_key_id_nonce_and_data() {
        let (one, two) = (encrypted(b"the same"), encrypted(b"the same"));
        assert_eq!((one[0], &one[1..9]), (1, key(1).id().as_slice()));
        assert_eq!(one[..9], two[..9]);
        assert_ne!(one[9..21], two[9..21], "each has a nonce of its own");
        assert_ne!(one[21..29], two[21..29]);
        assert!(!one.windows(4).any(|window| b"the same".windows(4).any(|plain| plain == window)));
    }

    #[test]
    fn a_record_of_the_first_version_decrypts() {
        // Made by another implementation. A new layout needs a new format byte, and must still decrypt this record.
        let old = [
            1, 97, 95, 80, 95, 18, 57, 67, 43, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 139, 206, 197, 172, 229, 103, 63,
            154, 19, 193, 175, 113, 6, 216, 222, 135, 203, 109, 164, 222,
        ];
        assert_eq!(decrypt([key(1)].iter(), &name("a"), &old).expect("the key is right").as_slice(), b"kept");
    }

    #[test]
    fn one_of_several_keys_decrypts_and_other_keys_do_not() {
        let keys = [key(9), key(1), key(5)];
        assert_eq!(decrypt(keys.iter(), &name("a"), &encrypted(b"x")).expect("the key is right").as_slice(), b"x");
        assert_eq!(decrypt([key(9), key(5)].iter(), &name("a"), &encrypted(b"x")), Err(UNKNOWN_KEY));
        // A record with the id of another key.
        let mut forged = encrypted(b"x");
        forged[1..9].copy_from_slice(key(9).id());
        assert_eq!(decrypt(keys.iter(), &name("a"), &forged), Err(DAMAGED));
    }

    #[test]
    fn the_reason_for_a_failed_decryption_is_reported() {
        let decrypt = |record: &[u8]| decrypt([key(1)].iter(), &name("a"), record);
        let good = encrypted(b"plain");
        let mut later = good.clone();
        later[0] = 2;
        for (bad, why) in [
            (later.as_slice(), NOT_ENCRYPTED),
            (b"", NOT_ENCRYPTED),
            (br#"{"v":1}"#, NOT_ENCRYPTED),
            (&good[..1], DAMAGED),
            (&good[..20], DAMAGED),
            (&good[..HEADER_LENGTH], DAMAGED),
            (&good[..good.len() - 1], DAMAGED),
            (&[good.as_slice(), b"x"].concat(), DAMAGED),
        ] {
            assert_eq!(decrypt(bad), Err(why), "{} bytes", bad.len());
        }
    }

    #[test]
    fn associated_data_of_different_parts_differ() {
        let of = |name: &str, id: &KeyId| associated_data(&self::name(name), id);
        assert_ne!(of("a", key(1).id()), of("b", key(1).id()));
        assert_ne!(of("a", key(1).id()), of("a", key(2).id()));
        assert_ne!(of("a", b"bcdefghi"), of("ab", b"cdefghij"));
        assert!(decrypt([key(1)].iter(), &name("b"), &encrypted(b"x")).is_err());
    }
}
