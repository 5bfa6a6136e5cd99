//! A configuration before its fields are checked, and what can be wrong with a field.
//!
//! `serde` reports errors as texts. [`ProviderConfig`](crate::provider::ProviderConfig) needs their parts: the name of
//! an unknown field to suggest the nearest known one, and the name of an environment variable instead of that of a
//! field. So a configuration is read in two steps: any format into a [`ConfigValue`], and the value into a kind of
//! provider, with [`FieldError`] as the error.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    self, Deserialize, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};

use crate::provider::config::suggest::nearest;

/// A value of a configuration in any format.
#[derive(Clone, PartialEq)]
pub(super) enum ConfigValue {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<ConfigValue>),
    /// In the order of the file, and with duplicates, so that a field that stands there twice is an error.
    Fields(Vec<(String, ConfigValue)>),
}

impl ConfigValue {
    /// Returns the text of the field `name`.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self {
            ConfigValue::Fields(fields) => fields.iter().find_map(|(field, value)| match value {
                ConfigValue::Text(text) if field == name => Some(text.as_str()),
                _ => None,
            }),
            _ => None,
        }
    }

    /// Returns the name of the first field with this value.
    pub(super) fn field_of(&self, value: &ConfigValue) -> Option<&str> {
        match self {
            ConfigValue::Fields(fields) => {
                fields.iter().find(|(_, found)| found == value).map(|(field, _)| field.as_str())
            }
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for ConfigValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ConfigValue, D::Error> {
        deserializer.deserialize_any(ValueReader)
    }
}

/// Builds a [`ConfigValue`] from the events of any format.
struct ValueReader;

impl<'de> Visitor<'de> for ValueReader {
    type Value = ConfigValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of a provider")
    }

    fn visit_unit<E>(self) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Null)
    }

    fn visit_none<E>(self) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<ConfigValue, D::Error> {
        ConfigValue::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<ConfigValue, E> {
        // One form for each number: formats differ in the type that they report, and `field_of` compares values.
        Ok(u64::try_from(value).map_or(ConfigValue::Signed(value), ConfigValue::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<ConfigValue, E> {
        Ok(ConfigValue::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ConfigValue, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(ConfigValue::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ConfigValue, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(ConfigValue::Fields(fields))
    }
}

impl<'de> IntoDeserializer<'de, FieldError> for ConfigValue {
    type Deserializer = ConfigValue;

    fn into_deserializer(self) -> ConfigValue {
        self
    }
}

impl<'de> Deserializer<'de> for ConfigValue {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self {
            ConfigValue::Null => visitor.visit_unit(),
            ConfigValue::Bool(value) => visitor.visit_bool(value),
            ConfigValue::Unsigned(value) => visitor.visit_u64(value),
            ConfigValue::Signed(value) => visitor.visit_i64(value),
            ConfigValue::Float(value) => visitor.visit_f64(value),
            ConfigValue::Text(text) => visitor.visit_string(text),
            ConfigValue::List(values) => visitor.visit_seq(SeqDeserializer::new(values.into_iter())),
            ConfigValue::Fields(fields) => visitor.visit_map(MapDeserializer::new(fields.into_iter())),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// An error of one field of a configuration, in parts that a message can be made from.
#[derive(Debug)]
pub(super) enum FieldError {
    Missing(&'static str),
    Unknown {
        field: String,
        known: &'static [&'static str],
    },
    /// The text is not one of the words that this field can have.
    UnknownWord {
        found: String,
        known: &'static [&'static str],
    },
    /// The value has another type or form. `None` for a list or an object, which the message does not need.
    Wrong {
        found: Option<ConfigValueText>,
        expected: String,
    },
    Other(String),
}

/// A value that was refused. Hidden in `Debug`, because it may be a secret in the wrong place.
pub(super) struct ConfigValueText(pub(super) ConfigValue);

impl fmt::Debug for ConfigValueText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FieldError {
    /// Describes the error by the names of the fields of `value`. Of the values only words are quoted that are
    /// misspelled words of a known list.
    pub(super) fn describe(&self, value: &ConfigValue) -> String {
        let list = |known: &[&str]| known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        match self {
            FieldError::Missing("provider") => {
                "missing field `provider`, which names the kind of token, such as `wecom` or `oauth2`".to_owned()
            }
            FieldError::Missing(field) => match value.text("provider") {
                Some(kind) => format!("missing field `{field}`, which `{kind}` requires"),
                None => format!("missing field `{field}`"),
            },
            FieldError::Unknown { field, known } => match nearest(field, known.iter().copied()) {
                Some(name) => format!("unknown field `{field}`; did you mean `{name}`?"),
                None if known.is_empty() => format!("unknown field `{field}`"),
                None => format!("unknown field `{field}`, expected one of {}", list(known)),
            },
            FieldError::UnknownWord { found, known } => {
                // `serde` does not say which field has the word. The first field with this text is the one.
                let field = value.field_of(&ConfigValue::Text(found.clone())).unwrap_or("word");
                match nearest(found, known.iter().copied()) {
                    Some(name) => format!("unknown {field} `{found}`; did you mean `{name}`?"),
                    // Not quoted: the text resembles no known word, so it may be a secret in the wrong field.
                    None => format!("unknown {field}, expected one of {}", list(known)),
                }
            }
            FieldError::Wrong { found, expected } => {
                let field = found.as_ref().and_then(|found| value.field_of(&found.0));
                match field {
                    Some(field) => format!("`{field}` is wrong; expected {expected}"),
                    None => format!("a field is wrong; expected {expected}"),
                }
            }
            FieldError::Other(text) => text.clone(),
        }
    }
}

impl de::Error for FieldError {
    fn custom<T: fmt::Display>(text: T) -> FieldError {
        FieldError::Other(text.to_string())
    }

    fn missing_field(field: &'static str) -> FieldError {
        FieldError::Missing(field)
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> FieldError {
        FieldError::Unknown { field: field.to_owned(), known }
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> FieldError {
        FieldError::UnknownWord { found: found.to_owned(), known }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> FieldError {
        let found = match found {
            Unexpected::Bool(value) => Some(ConfigValue::Bool(value)),
            Unexpected::Unsigned(value) => Some(ConfigValue::Unsigned(value)),
            Unexpected::Signed(value) => Some(ConfigValue::Signed(value)),
            Unexpected::Float(value) => Some(ConfigValue::Float(value)),
            Unexpected::Str(text) => Some(ConfigValue::Text(text.to_owned())),
            Unexpected::Unit => Some(ConfigValue::Null),
            _ => None,
        };
        FieldError::Wrong { found: found.map(ConfigValueText), expected: expected.to_string() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> FieldError {
        de::Error::invalid_value(found, expected)
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field of the configuration is wrong")
    }
}

impl std::error::Error for FieldError {}
