//! A JSON object from a response, read leniently: providers send numbers as numbers or as strings.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::policy::MAX_LIFETIME;
use crate::secret::Secret;

/// A JSON object from a response. Numbers may be numbers or strings. `Debug` shows the names of the fields only.
pub struct Json {
    fields: Map<String, Value>,
    /// The host that answered, for error texts.
    host: String,
}

impl Json {
    pub(super) fn new(fields: Map<String, Value>, host: &str) -> Json {
        Json { fields, host: host.to_owned() }
    }

    /// Takes a string out of the object, so that no copy of the secret stays behind.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidResponse`](crate::ErrorKind::InvalidResponse) when the field is missing or not a string.
    pub fn take_secret(&mut self, name: &str) -> Result<Secret, Error> {
        let found = match self.fields.get_mut(name) {
            Some(Value::String(text)) => return Ok(Secret::new(std::mem::take(text))),
            None | Some(Value::Null) => "without the field",
            Some(_) => "with something else than a string in the field",
        };
        Err(Error::invalid_response(format!("{} answered {found} {name}; check the address", self.host)))
    }

    /// Returns a string.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    /// Returns an error code, which may be a number or a string, as a string.
    pub fn code(&self, name: &str) -> Option<String> {
        code(self.fields.get(name)?)
    }

    /// Returns the first code of an array of codes.
    pub(crate) fn first_code(&self, name: &str) -> Option<String> {
        code(self.fields.get(name)?.as_array()?.first()?)
    }

    /// Returns a whole number, or a string that is one.
    pub fn integer(&self, name: &str) -> Option<i64> {
        integer(self.fields.get(name)?)
    }

    /// Returns a lifetime in seconds: a number, or a string that is one. `None` when the field is missing or null. At most
    /// 30 days.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidResponse`](crate::ErrorKind::InvalidResponse) when the lifetime is less than a second, or not a
    /// number.
    pub fn lifetime(&self, name: &str) -> Result<Option<Duration>, Error> {
        let seconds = match self.fields.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => decimal(text.trim()),
            Some(_) => None,
        };
        match seconds {
            Some(seconds) if seconds >= 1.0 => {
                Ok(Some(Duration::from_secs(seconds.min(MAX_LIFETIME.as_secs_f64()) as u64)))
            }
            Some(_) => {
                Err(Error::invalid_response(format!("{} granted a token that has expired already ({name})", self.host)))
            }
            None => Err(Error::invalid_response(format!(
                "{} answered with a lifetime that is not a number ({name})",
                self.host
            ))),
        }
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.fields.keys()).finish()
    }
}

/// Parses a JSON object. Error texts of some vendors contain control characters, which JSON does not allow, so these
/// count as blanks when the text cannot be parsed as it is.
pub(crate) fn parse_object(text: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(text).ok().or_else(|| {
        let text = Zeroizing::new(String::from_utf8_lossy(text).replace(char::is_control, " "));
        serde_json::from_str(&text).ok()
    })
}

/// Returns an error code from a JSON value: a number or a string.
pub(crate) fn code(value: &Value) -> Option<String> {
    match integer(value) {
        Some(number) => Some(number.to_string()),
        None => value.as_str().map(str::to_owned),
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        // Above 9e15 neighbouring whole numbers have the same floating-point value.
        Value::Number(number) => number.as_i64().or_else(|| {
            number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15).map(|float| float as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Parses plain digits with an optional sign and point. `NaN`, `inf` and `1e9`, which `parse` accepts, are refused.
fn decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn object(text: &str) -> Json {
        Json::new(serde_json::from_str(text).expect("an object"), "login.example")
    }

    #[test]
    fn a_lifetime_may_be_a_number_or_a_string_and_never_overflows() {
        let lifetime = |value: &str| {
            let lifetime = object(&format!(r#"{{"expires_in":{value}}}"#)).lifetime("expires_in");
            lifetime.map(|lifetime| lifetime.map(|lifetime| lifetime.as_secs())).map_err(|error| error.kind())
        };
        for (value, seconds) in [
            ("3600", 3600),
            ("3600.0", 3600),
            ("59.9", 59),
            ("\"3600\"", 3600),
            ("\" 3600.0 \"", 3600),
            ("1e20", 2_592_000),
            ("9223372036854775808", 2_592_000),
            ("1180591620717411303424", 2_592_000),
            ("\"99999999999999999999\"", 2_592_000),
        ] {
            assert_eq!(lifetime(value), Ok(Some(seconds)), "{value}");
        }
        assert_eq!(lifetime("null"), Ok(None));
        assert_eq!(object("{}").lifetime("expires_in").map_err(|error| error.kind()), Ok(None));
        for value in
            ["0", "-1", "0.5", "\"0\"", "\"-1\"", "\"NaN\"", "\"inf\"", "\"1e9\"", "\"\"", "\".\"", "true", "{}", "[1]"]
        {
            assert_eq!(lifetime(value), Err(ErrorKind::InvalidResponse), "{value}");
        }
    }

    #[test]
    fn a_code_may_be_a_number_or_a_string() {
        let json = object(r#"{"a":40001,"b":"40001","c":"bad.id","d":0.0,"e":true,"f":null,"g":"-1"}"#);
        let codes = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| json.code(name));
        let codes = codes.each_ref().map(Option::as_deref);
        assert_eq!(codes, [Some("40001"), Some("40001"), Some("bad.id"), Some("0"), None, None, Some("-1"), None]);
        assert_eq!(json.integer("b"), Some(40001));
    }

    #[test]
    fn taking_a_secret_leaves_no_copy_in_the_object() {
        let mut json = object(r#"{"access_token":"t-1","n":1}"#);
        assert_eq!(json.take_secret("access_token").expect("it is there").expose(), "t-1");
        assert_eq!(json.text("access_token"), Some(""));
        let error = |json: &mut Json, name| json.take_secret(name).expect_err("no string").to_string();
        let expected = "login.example answered with something else than a string in the field n; check the address";
        assert_eq!(error(&mut json, "n"), expected);
        let expected = "login.example answered without the field missing; check the address";
        assert_eq!(error(&mut json, "missing"), expected);
    }

    #[test]
    fn the_first_code_of_an_array_may_be_a_number_or_a_string() {
        let json = object(r#"{"a":[70011,1],"b":["70011"],"c":[],"d":70011,"e":[{}]}"#);
        let codes = ["a", "b", "c", "d", "e", "f"].map(|name| json.first_code(name));
        assert_eq!(codes.each_ref().map(Option::as_deref), [Some("70011"), Some("70011"), None, None, None, None]);
    }
}
