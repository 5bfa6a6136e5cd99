//! The record of an operation in a store: a JSON object with a header, and with the result once the operation is
//! completed.
//!
//! | field | value |
//! | --- | --- |
//! | `v` | version of this format, 1; a record with another one counts as absent |
//! | `id` | HMAC-SHA256 over `deed` and the store key, keyed with the caller's key: binds the record to its place |
//! | `request` | HMAC-SHA256 over `request` and the request, keyed with the caller's key |
//! | `owner` | random name of the holder |
//! | `status` | `in_progress` or `completed` |
//! | `turn` | the revision: counts what the owner has written |
//! | `created_ms`, `updated_ms` | milliseconds since 1970 by the holder's wall clock, for people only |
//! | `result` | the caller's result; in completed records only |
//!
//! Key and request appear as keyed hashes, so a reader of the store cannot test guesses without knowing the key.
//! Unknown fields are ignored. Lifetimes are the store's and do not appear in the record.

use std::io;
use std::time::SystemTime;

use ring::hmac;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::OperationStatus;
use crate::clock::{Timestamp, milliseconds};
use crate::error::Error;
use crate::secret::hex;

/// A record without its result. The records of one claim have the same owner, and no two of them have the same bytes.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) v: u8,
    /// Binds the record to its key, so that a record copied here from another key is recognized as foreign.
    pub(super) id: String,
    /// A keyed hash of the request, to recognize another request under the same key.
    pub(super) request: String,
    pub(super) owner: String,
    pub(super) status: OperationStatus,
    /// Counts the owner's writes. Without the count, two records written within a millisecond could have equal bytes,
    /// and a store that checks after a lost reply whether its write happened would mistake the old record for the new
    /// one.
    #[serde(rename = "turn")]
    pub(super) revision: u64,
    /// Milliseconds since 1970 by the writer's wall clock. Never compared, because the clocks of two hosts may differ.
    pub(super) created_ms: u64,
    pub(super) updated_ms: u64,
}

#[derive(Serialize)]
struct RecordWithResult<'a, T> {
    #[serde(flatten)]
    header: &'a Header,
    result: &'a T,
}

#[derive(Deserialize)]
struct ResultOnly<T> {
    result: T,
}

impl Header {
    /// Parses a record. `None` when it is too large, no JSON object of this format, or has another `id`.
    pub(super) fn from_bytes(bytes: &[u8], id: &str) -> Option<Header> {
        let is_object = bytes.len() <= MAX_RECORD_SIZE && bytes.trim_ascii_start().starts_with(b"{");
        let header: Header = is_object.then(|| serde_json::from_slice(bytes).ok())??;
        (header.v == VERSION && header.id == id).then_some(header)
    }

    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Cannot fail: the header consists of strings and numbers.
        Zeroizing::new(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Returns the record with this header and `result`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the result is too large or cannot be written and read back.
    pub(super) fn with_result<T: Serialize + DeserializeOwned>(&self, result: &T) -> Result<Zeroizing<Vec<u8>>, Error> {
        let room = self.to_bytes().len() + r#","result":"#.len() + MAX_RESULT_SIZE;
        // Allocated once: a growing buffer would leave copies of the result in freed memory, which nothing wipes.
        let mut writer = BoundedWriter { bytes: Zeroizing::new(Vec::with_capacity(room)), room, is_full: false };
        match serde_json::to_writer(&mut writer, &RecordWithResult { header: self, result }) {
            // For example NaN, which serde_json writes as `null`.
            Ok(()) if parse_result::<T>(&writer.bytes).is_none() => Err(Error::config(
                "the result cannot be read back from its own JSON; a float that is NaN or infinite has no JSON form",
            )),
            Ok(()) => Ok(writer.bytes),
            Err(_) if writer.is_full => Err(Error::config(
                "the result is larger than 63 KiB of JSON; store the data elsewhere and return a reference to it",
            )),
            Err(_) => {
                Err(Error::config("the result cannot be serialized as JSON; map keys must be strings or numbers"))
            }
        }
    }
}

/// Returns the result of a completed record. `None` when it is no `T`.
pub(super) fn parse_result<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice::<ResultOnly<T>>(bytes).ok().map(|record| record.result)
}

/// Returns whether two records have equal results. The order of object fields does not matter.
pub(super) fn same_result(one: &[u8], other: &[u8]) -> bool {
    let value = parse_result::<serde_json::Value>;
    value(one).is_some_and(|one| Some(one) == value(other))
}

/// Writes into a buffer of fixed size, and fails when the buffer is full.
struct BoundedWriter {
    bytes: Zeroizing<Vec<u8>>,
    room: usize,
    is_full: bool,
}

impl io::Write for BoundedWriter {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if more.len() > self.room - self.bytes.len() {
            self.is_full = true;
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns a hash of `bytes` that only a program which knows `key` can compute. `what` separates the kinds of hashes,
/// so that an id never equals a request.
pub(super) fn keyed_hash(key: &str, what: &str, bytes: &[u8]) -> String {
    let mut name = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()));
    name.update(what.as_bytes());
    name.update(bytes);
    hex(name.sign().as_ref())
}

pub(super) fn epoch_milliseconds(moment: Timestamp) -> u64 {
    let since = moment.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    milliseconds(since)
}

pub(super) const VERSION: u8 = 1;

/// Stores read at most 64 KiB. The header takes less than 400 bytes of that, and an encrypted store needs some for its
/// own header.
const MAX_RESULT_SIZE: usize = 63 * 1024;

/// The largest entry that stores read.
const MAX_RECORD_SIZE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            v: VERSION,
            id: keyed_hash("key", "deed", b"place"),
            request: keyed_hash("key", "request", b""),
            owner: format!("{:032x}", u128::MAX),
            status: OperationStatus::InProgress,
            revision: u64::MAX,
            created_ms: u64::MAX,
            updated_ms: u64::MAX,
        }
    }

    #[test]
    fn the_largest_record_fits_into_an_encrypted_store() {
        // JSON adds two quotation marks to a string.
        let largest = "x".repeat(MAX_RESULT_SIZE - 2);
        let bytes = header().with_result(&largest).expect("it fits");
        assert!(bytes.len() + 128 <= MAX_RECORD_SIZE, "{}", bytes.len());
        assert_eq!(parse_result::<String>(&bytes), Some(largest.clone()));
        let error = header().with_result(&(largest + "x")).expect_err("one too many");
        assert_eq!(
            error.to_string(),
            "the result is larger than 63 KiB of JSON; store the data elsewhere and return a reference to it"
        );
    }

    #[test]
    fn results_are_equal_in_any_order_of_their_fields() {
        let record = |result: &str| format!(r#"{{"v":1,"result":{result}}}"#).into_bytes();
        assert!(same_result(&record(r#"{"a":1,"b":2}"#), &record(r#"{"b":2,"a":1}"#)));
        assert!(!same_result(&record(r#"{"a":1}"#), &record(r#"{"a":2}"#)));
        assert!(same_result(&record("null"), &record("null")));
        assert!(!same_result(b"{}", b"{}"));
    }

    #[test]
    fn a_keyed_hash_depends_on_key_purpose_and_bytes() {
        let inputs = [("k", "a", "x"), ("l", "a", "x"), ("k", "b", "x"), ("k", "a", "y")];
        let mut hashes = inputs.map(|(key, what, bytes)| keyed_hash(key, what, bytes.as_bytes())).to_vec();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), 4);
    }
}
