//! The settings that a configuration has: where a secret is, an address, a lifetime.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Unexpected, Visitor};
use serde_json::Value;

use crate::error::Error;
use crate::provider::settings::read_file;
use crate::secret::{Secret, plain_url};

/// Where a secret is: `{"env": "NAME"}` or `{"file": "path"}`. It is read when it is needed, and never written down.
#[derive(Clone, Debug)]
pub(super) enum SecretFrom {
    Env(String),
    File(PathBuf),
}

impl SecretFrom {
    /// Reads the secret. `field` is its name in the configuration.
    pub(super) fn read(&self, field: &str) -> Result<Secret, Error> {
        let fault = |text: String| Error::config(format!("{field}: {text}"));
        let secret = match self {
            SecretFrom::Env(name) => match env::var(name) {
                Ok(value) => Secret::new(value),
                Err(env::VarError::NotPresent) => Secret::from(""),
                Err(env::VarError::NotUnicode(_)) => {
                    return Err(fault(format!("the environment variable {name} is not UTF-8")));
                }
            },
            SecretFrom::File(path) => {
                // In quotes, with escapes: a path may hold a line break.
                let text = read_file(path, &format!("the file {path:?}")).map_err(|error| fault(error.to_string()))?;
                // Editors put one there, and `echo` does.
                let text = text.expose();
                let cut = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
                Secret::from(cut)
            }
        };
        if secret.is_blank() {
            return Err(fault(match self {
                SecretFrom::Env(name) => format!("the environment variable {name} is not set or is empty"),
                SecretFrom::File(path) => format!("the file {path:?} is empty"),
            }));
        }
        Ok(secret)
    }
}

impl<'de> Deserialize<'de> for SecretFrom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SecretFrom, D::Error> {
        // Read whole before anything is said about it, because what stands here may be the secret itself: an error of
        // `serde` would quote it.
        let Value::Object(entries) = Value::deserialize(deserializer)? else {
            return Err(de::Error::custom(WRITTEN_DOWN));
        };
        let mut entries = entries.into_iter();
        match (entries.next(), entries.next()) {
            (Some((way, Value::String(name))), None) if way == "env" => match is_variable(&name) {
                true => Ok(SecretFrom::Env(name)),
                false => Err(de::Error::custom(NO_VARIABLE)),
            },
            (Some((way, Value::String(path))), None) if way == "file" => Ok(SecretFrom::File(path.into())),
            _ => Err(de::Error::custom(WRITTEN_DOWN)),
        }
    }
}

/// True for what may be the name of an environment variable. Most secrets that are pasted in its place may not.
fn is_variable(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(plain) && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// Text that may be an address, so it is shown as one.
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

/// Several addresses, or one text with blanks between them.
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

/// How long something lifetimes, in seconds: a number, or its digits.
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

/// The value of a claim, which may be personal: it is not shown.
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

const WRITTEN_DOWN: &str =
    "a secret is not written down here; name it by {\"env\": \"NAME\"} or {\"file\": \"path\"}, and nothing else";

const NO_VARIABLE: &str = "what stands after \"env\" is not the name of an environment variable (letters, digits and _); a secret is not \
     written down here";
