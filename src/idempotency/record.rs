//! What stands in a store: who does the thing, or what came of it, as JSON.

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

/// A record but for the result. All of a claim's records have the same owner, and no two of them the same bytes.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) v: u8,
    /// Names the key and its place, so that a record that was moved here from another key is known for what it is.
    pub(super) id: String,
    /// Names the request. Neither it nor the key can be read back.
    pub(super) request: String,
    pub(super) owner: String,
    pub(super) status: OperationStatus,
    /// Counts what the owner has written. Without it two records could be the same within a millisecond, and a store that
    /// has lost an answer and looks whether its write was done would take the old one for the new.
    #[serde(rename = "turn")]
    pub(super) revision: u64,
    /// Milliseconds since 1970 by the writer's wall clock. For people: no two hosts' clocks are compared.
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
    /// Only what is sound, and about the key with this `id`.
    pub(super) fn from_bytes(bytes: &[u8], id: &str) -> Option<Header> {
        let is_object = bytes.len() <= MAX_RECORD_SIZE && bytes.trim_ascii_start().starts_with(b"{");
        let header: Header = is_object.then(|| serde_json::from_slice(bytes).ok())??;
        (header.v == VERSION && header.id == id).then_some(header)
    }

    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Strings and numbers only: there is nothing in it that JSON cannot hold.
        Zeroizing::new(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The record with a result.
    pub(super) fn with_result<T: Serialize + DeserializeOwned>(&self, result: &T) -> Result<Zeroizing<Vec<u8>>, Error> {
        let room = self.to_bytes().len() + r#","result":"#.len() + MAX_RESULT_SIZE;
        // All of it at once: what grows leaves copies behind that nobody wipes.
        let mut writer = BoundedWriter { bytes: Zeroizing::new(Vec::with_capacity(room)), room, is_full: false };
        match serde_json::to_writer(&mut writer, &RecordWithResult { header: self, result }) {
            // As a number that is none, which JSON has no word for.
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

/// The result in a record that has one. `None` when it is no `T`.
pub(super) fn parse_result<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice::<ResultOnly<T>>(bytes).ok().map(|record| record.result)
}

/// Whether two records hold the same result, in whatever order its parts were written.
pub(super) fn same_result(one: &[u8], other: &[u8]) -> bool {
    let value = parse_result::<serde_json::Value>;
    value(one).is_some_and(|one| Some(one) == value(other))
}

/// Takes as much as it has room for.
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

/// Names something that belongs to `key`, for whoever knows the key already. `what` keeps such names apart.
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

/// Stores read no more than 64 KiB, and a store that seals needs some of that. The header is below 400 bytes.
const MAX_RESULT_SIZE: usize = 63 * 1024;

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
    fn the_largest_record_fits_into_a_store_that_seals() {
        // A text has two quotation marks around it.
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
    fn results_are_the_same_whatever_the_order_of_their_parts() {
        let record = |result: &str| format!(r#"{{"v":1,"result":{result}}}"#).into_bytes();
        assert!(same_result(&record(r#"{"a":1,"b":2}"#), &record(r#"{"b":2,"a":1}"#)));
        assert!(!same_result(&record(r#"{"a":1}"#), &record(r#"{"a":2}"#)));
        assert!(same_result(&record("null"), &record("null")));
        assert!(!same_result(b"{}", b"{}"));
    }

    #[test]
    fn a_name_tells_key_purpose_and_bytes_apart() {
        let names = [("k", "a", "x"), ("l", "a", "x"), ("k", "b", "x"), ("k", "a", "y")];
        let mut names = names.map(|(key, what, bytes)| keyed_hash(key, what, bytes.as_bytes())).to_vec();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 4);
    }
}
