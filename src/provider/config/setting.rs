//! The types of the fields of a configuration: the place of a secret, URLs, a lifetime, a claim.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Unexpected, Visitor};
use serde_json::Value;

use crate::error::Error;
use crate::provider::settings::{check_line, check_line_or_document, read_file};
use crate::secret::{Secret, plain_url};

/// The place of a secret: `{"env": "NAME"}` or `{"file": "path"}`. The configuration never contains the secret itself.
#[derive(Clone, Debug)]
pub(super) enum SecretFrom {
    Env(String),
    File(PathBuf),
}

impl SecretFrom {
    /// Reads a secret of one line. `field` is the name of the field, for error texts.
    pub(super) fn read(&self, field: &str) -> Result<Secret, Error> {
        self.read_checked(field, check_line)
    }

    /// Reads a document of several lines, such as a key in PEM or an account in JSON.
    pub(super) fn read_document(&self, field: &str) -> Result<Secret, Error> {
        self.read_checked(field, |_, _| Ok(()))
    }

    /// Reads the value of a further parameter, which may be either.
    pub(super) fn read_parameter(&self, field: &str) -> Result<Secret, Error> {
        self.read_checked(field, check_line_or_document)
    }

    fn read_checked(&self, field: &str, check: fn(&str, &str) -> Result<(), Error>) -> Result<Secret, Error> {
        let place = match self {
            SecretFrom::Env(name) => format!("the environment variable {name}"),
            SecretFrom::File(path) => format!("the file {path:?}"),
        };
        self.read_text(&place)
            .and_then(|secret| check(&place, secret.expose()).map(|()| secret))
            .map_err(|e| e.of(field))
    }

    fn read_text(&self, place: &str) -> Result<Secret, Error> {
        let secret = match self {
            SecretFrom::Env(name) => match env::var(name) {
                Ok(value) => Secret::new(value),
                Err(env::VarError::NotPresent) => Secret::from(""),
                Err(env::VarError::NotUnicode(_)) => return Err(Error::config(format!("{place} is not UTF-8"))),
            },
            SecretFrom::File(path) => read_file(path, "the file")?,
        };
        match (secret.is_blank(), self) {
            (false, _) => Ok(secret),
            (true, SecretFrom::Env(_)) => Err(Error::config(format!("{place} is not set or is empty"))),
            (true, SecretFrom::File(_)) => Err(Error::config(format!("{place} is empty"))),
        }
    }
}

impl<'de> Deserialize<'de> for SecretFrom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SecretFrom, D::Error> {
        // The value may be the secret itself, which an error of `serde` would quote. So any value is accepted first.
        let Value::Object(entries) = Value::deserialize(deserializer)? else {
            return Err(de::Error::custom(SECRET_IN_CONFIGURATION));
        };
        let mut entries = entries.into_iter();
        match (entries.next(), entries.next()) {
            (Some((way, Value::String(name))), None) if way == "env" => match is_variable(&name) {
                true => Ok(SecretFrom::Env(name)),
                false => Err(de::Error::custom(NOT_A_VARIABLE)),
            },
            (Some((way, Value::String(path))), None) if way == "file" => Ok(SecretFrom::File(path.into())),
            _ => Err(de::Error::custom(SECRET_IN_CONFIGURATION)),
        }
    }
}

/// Returns true for a text that can be the name of an environment variable. Most secrets that are pasted there cannot.
fn is_variable(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(plain) && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// A text that may be a URL. `Debug` shows no user name, password or query.
#[derive(Clone, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Url(String);

impl From<&Url> for String {
    fn from(url: &Url) -> String {
        url.0.clone()
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        plain_url(&self.0).fmt(f)
    }
}

/// Several URLs: a list, or one text with blanks between the URLs.
#[derive(Clone, Debug, Default)]
pub(super) struct Urls(pub(super) Vec<Url>);

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Urls, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Urls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Urls, E> {
                Ok(Urls(text.split_whitespace().map(|url| Url(url.to_owned())).collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Urls, A::Error> {
                let mut urls = Vec::new();
                while let Some(url) = list.next_element()? {
                    urls.push(url);
                }
                Ok(Urls(urls))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// A duration in seconds: a number, or a text with its digits, because environment variables are texts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seconds(pub(super) Duration);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Seconds, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Seconds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of seconds")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Seconds, E> {
                Ok(Seconds(Duration::from_secs(seconds)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Seconds, E> {
                let seconds = text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))?;
                self.visit_u64(seconds)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// The value of a claim. `Debug` does not show it, because claims may be personal data.
#[derive(Clone, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Claim(String);

impl From<&Claim> for String {
    fn from(claim: &Claim) -> String {
        claim.0.clone()
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

const SECRET_IN_CONFIGURATION: &str = "a configuration must not contain a secret; write its place instead, \
                                       {\"env\": \"NAME\"} or {\"file\": \"path\"}";

const NOT_A_VARIABLE: &str = "the text after \"env\" is not the name of an environment variable (letters, digits and \
                              _); a configuration must not contain a secret";
