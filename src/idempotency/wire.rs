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
pub(super) struct Head {
    pub(super) v: u8,
    /// Names the key and its place, so that a record that was moved here from another key is known for what it is.
    pub(super) id: String,
    /// Names the request. Neither it nor the key can be read back.
    pub(super) request: String,
    pub(super) owner: String,
    pub(super) status: OperationStatus,
    /// Counts what the owner has written. Without it two records could be the same within a millisecond, and a store that
    /// has lost an answer and looks whether its write was done would take the old one for the new.
    pub(super) turn: u64,
    /// Milliseconds since 1970 by the writer's wall clock. For people: no two hosts' clocks are compared.
    pub(super) created_ms: u64,
    pub(super) updated_ms: u64,
}

#[derive(Serialize)]
struct Written<'a, T> {
    #[serde(flatten)]
    head: &'a Head,
    result: &'a T,
}

#[derive(Deserialize)]
struct Resulting<T> {
    result: T,
}

impl Head {
    /// Only what is sound, and about the key with this `id`.
    pub(super) fn from_bytes(bytes: &[u8], id: &str) -> Option<Head> {
        let is_object = bytes.len() <= LARGEST_RECORD && bytes.trim_ascii_start().starts_with(b"{");
        let head: Head = is_object.then(|| serde_json::from_slice(bytes).ok())??;
        (head.v == VERSION && head.id == id).then_some(head)
    }

    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Strings and numbers only: there is nothing in it that JSON cannot hold.
        Zeroizing::new(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The record with a result.
    pub(super) fn with_result<T: Serialize + DeserializeOwned>(&self, result: &T) -> Result<Zeroizing<Vec<u8>>, Error> {
        let room = self.to_bytes().len() + r#","result":"#.len() + LARGEST_RESULT;
        // All of it at once: what grows leaves copies behind that nobody wipes.
        let mut sink = Sink { bytes: Zeroizing::new(Vec::with_capacity(room)), room, is_full: false };
        match serde_json::to_writer(&mut sink, &Written { head: self, result }) {
            // As a number that is none, which JSON has no word for.
            Ok(()) if result_of::<T>(&sink.bytes).is_none() => {
                Err(Error::config("the result cannot be read back from the JSON that it makes"))
            }
            Ok(()) => Ok(sink.bytes),
            Err(_) if sink.is_full => Err(Error::config("the result is larger than 63 KiB of JSON")),
            Err(_) => Err(Error::config("the result cannot be written as JSON")),
        }
    }
}

/// The result in a record that has one. `None` when it is no `T`.
pub(super) fn result_of<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice::<Resulting<T>>(bytes).ok().map(|record| record.result)
}

/// Whether two records hold the same result, in whatever order its parts were written.
pub(super) fn same_result(one: &[u8], other: &[u8]) -> bool {
    let value = result_of::<serde_json::Value>;
    value(one).is_some_and(|one| Some(one) == value(other))
}

/// Takes as much as it has room for.
struct Sink {
    bytes: Zeroizing<Vec<u8>>,
    room: usize,
    is_full: bool,
}

impl io::Write for Sink {
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
pub(super) fn name_of(key: &str, what: &str, bytes: &[u8]) -> String {
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

/// Stores read no more than 64 KiB, and a store that seals needs some of that. The head is below 400 bytes.
const LARGEST_RESULT: usize = 63 * 1024;

const LARGEST_RECORD: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            v: VERSION,
            id: name_of("key", "deed", b"place"),
            request: name_of("key", "request", b""),
            owner: format!("{:032x}", u128::MAX),
            status: OperationStatus::InProgress,
            turn: u64::MAX,
            created_ms: u64::MAX,
            updated_ms: u64::MAX,
        }
    }

    #[test]
    fn the_largest_record_fits_into_a_store_that_seals() {
        // A text has two quotation marks around it.
        let largest = "x".repeat(LARGEST_RESULT - 2);
        let bytes = head().with_result(&largest).expect("it fits");
        assert!(bytes.len() + 128 <= LARGEST_RECORD, "{}", bytes.len());
        assert_eq!(result_of::<String>(&bytes), Some(largest.clone()));
        let error = head().with_result(&(largest + "x")).expect_err("one too many");
        assert_eq!(error.to_string(), "the result is larger than 63 KiB of JSON");
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
        let mut names = names.map(|(key, what, bytes)| name_of(key, what, bytes.as_bytes())).to_vec();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 4);
    }
}
