//! A configuration from environment variables.
//!
//! Each variable `EVERTOKEN_<FIELD>` is the field `<field>` of a [`ProviderConfig`]. The fields become a
//! [`ConfigValue`], which is read as a configuration file is read. Errors are described by the names of the variables,
//! and never quote a value.
//!
//! Other programs and Kubernetes set variables with the same prefix. So a variable is a field only if its name is that
//! of a field of any kind, or so near to one that it was probably meant to be one. The fields are not listed here a
//! second time: `serde` names them when a kind is asked for a field that does not exist ([`fields_of`]).

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;

use serde::de::Deserialize;

use crate::error::Error;
use crate::provider::config::ProviderConfig;
use crate::provider::config::kind::Kind;
use crate::provider::config::suggest::nearest;
use crate::provider::config::value::{ConfigValue, FieldError};

/// Reads the configuration of a provider from environment variables, so that a program needs no code for each vendor.
///
/// Each field of a [`ProviderConfig`] is a variable: `EVERTOKEN_PROVIDER` names the kind of token, `EVERTOKEN_CORP_ID`
/// is `corp_id`, and so on. A secret is in the variable of its name, `EVERTOKEN_SECRET`, or in the file that
/// `EVERTOKEN_SECRET_FILE` names, and is read when the manager is built. The fields of a `parent` begin with
/// `EVERTOKEN_PARENT_`, those of its parent with `EVERTOKEN_PARENT_PARENT_`. `params` and `claims` need a configuration
/// file.
///
/// ```text
/// EVERTOKEN_PROVIDER=wecom EVERTOKEN_CORP_ID=ww1234567890abcdef EVERTOKEN_SECRET_FILE=/run/secrets/wecom
/// ```
///
/// ```no_run
/// use evertoken::{TokenManager, provider};
///
/// let tokens = TokenManager::from_config(&provider::from_env()?, |builder| builder)?;
/// # Ok::<(), evertoken::Error>(())
/// ```
///
/// An empty variable counts as unset. A variable whose name is like no setting belongs to something else and is ignored,
/// such as `EVERTOKEN_ENCRYPTION_KEY`, or what Kubernetes sets for a service named `evertoken-redis`
/// (`EVERTOKEN_REDIS_SERVICE_HOST`).
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config), with the name of the variable that is missing, wrong or misspelled. A
/// variable that is almost a setting is taken for a misspelled one, and the error suggests the right name. A setting of
/// another kind of token is an error, too.
pub fn from_env() -> Result<ProviderConfig, Error> {
    let known = known_fields();
    let mut variables = BTreeMap::new();
    for (name, value) in env::vars_os() {
        if let Some((name, value)) = relevant_variable(name, value, &known)? {
            variables.insert(name, value);
        }
    }
    Level::read(&variables, PREFIX.to_owned()).map(|(_, config)| config)
}

/// Returns a variable that is a setting of this crate, or was probably meant to be one, and has a value.
fn relevant_variable(
    name: OsString,
    value: OsString,
    known: &BTreeSet<String>,
) -> Result<Option<(String, String)>, Error> {
    let shown = name.to_string_lossy();
    let Some(mut field) = shown.strip_prefix(PREFIX) else { return Ok(None) };
    while let Some(of_parent) = field.strip_prefix(PARENT) {
        field = of_parent;
    }
    let is_kubernetes = KUBERNETES.iter().any(|start| field.starts_with(start));
    if value.is_empty() || is_kubernetes || nearest(field, known.iter().map(String::as_str)).is_none() {
        return Ok(None);
    }
    let Ok(value) = value.into_string() else { return Err(Error::config(format!("{shown} is not UTF-8"))) };
    Ok(Some((shown.into_owned(), value)))
}

/// Returns the names of all fields of all kinds, and for each secret the name with which a variable names its file.
fn known_fields() -> BTreeSet<String> {
    let mut known = BTreeSet::from(["provider".to_owned()]);
    for kind in kinds() {
        known.extend(fields_of(kind).iter().map(|field| (*field).to_owned()));
    }
    known.extend(SECRETS.iter().map(|secret| format!("{secret}_file")));
    known
}

/// Returns the names of all kinds, which `serde` lists in its error about a kind that does not exist.
fn kinds() -> &'static [&'static str] {
    match Kind::deserialize(probe(&[("provider", NO_NAME)])) {
        Err(FieldError::UnknownWord { known, .. }) => known,
        _ => &[],
    }
}

/// Returns the names of the fields of a kind, in the same way.
fn fields_of(kind: &str) -> &'static [&'static str] {
    match Kind::deserialize(probe(&[("provider", kind), (NO_NAME, "")])) {
        Err(FieldError::Unknown { known, .. }) => known,
        _ => &[],
    }
}

fn probe(fields: &[(&str, &str)]) -> ConfigValue {
    let text = |text: &str| ConfigValue::Text(text.to_owned());
    ConfigValue::Fields(fields.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect())
}

/// The variables of one configuration, either of the provider or of a parent.
struct Level {
    /// The beginning of their names.
    prefix: String,
    /// The name of the variable that set each field.
    names: BTreeMap<String, String>,
    fields: BTreeMap<String, ConfigValue>,
}

impl Level {
    /// Reads the configuration whose variables begin with `prefix`. The parent is read first, so that an error in the
    /// parent is described by the parent's variables.
    fn read(variables: &BTreeMap<String, String>, prefix: String) -> Result<(ConfigValue, ProviderConfig), Error> {
        let mut level = Level { prefix, names: BTreeMap::new(), fields: BTreeMap::new() };
        let mut has_parent = false;
        for (name, value) in variables {
            let Some(field) = name.strip_prefix(&level.prefix) else { continue };
            match field.strip_prefix(PARENT) {
                Some(_) => has_parent = true,
                None => level.add(name, field, value)?,
            }
        }
        if !level.fields.contains_key("provider") {
            return Err(level.no_provider());
        }
        if has_parent {
            let prefix = [&level.prefix, PARENT].concat();
            if prefix.len() > PREFIX.len() + MAX_PARENTS * PARENT.len() {
                return Err(Error::config(format!(
                    "{PREFIX}{PARENT}..: more than {MAX_PARENTS} parents are nested; use fewer of these prefixes"
                )));
            }
            let (parent, _) = Level::read(variables, prefix)?;
            level.fields.insert("parent".to_owned(), parent);
        }
        let fields = ConfigValue::Fields(level.fields.clone().into_iter().collect());
        match Kind::deserialize(fields.clone()) {
            Ok(kind) => Ok((fields, ProviderConfig::from(kind))),
            Err(error) => Err(level.config_error(&fields, error)),
        }
    }

    fn add(&mut self, name: &str, field: &str, value: &str) -> Result<(), Error> {
        let text = |text: &str| ConfigValue::Text(text.to_owned());
        let secret_from = |place: &str, name: &str| ConfigValue::Fields(vec![(place.to_owned(), text(name))]);
        let lower = field.to_ascii_lowercase();
        let secret = lower.strip_suffix("_file").filter(|field| SECRETS.contains(field));
        let (field, value) = match secret {
            Some(secret) => (secret, secret_from("file", value)),
            None if SECRETS.contains(&lower.as_str()) => (lower.as_str(), secret_from("env", name)),
            None => (lower.as_str(), text(value)),
        };
        if field == "parent" {
            return Err(Error::config(format!(
                "{name} is not a setting; the settings of the parent begin with {name}_, such as {name}_PROVIDER"
            )));
        }
        let upper = name.to_ascii_uppercase();
        if name != upper {
            return Err(Error::config(format!("{name} is not a setting; write the name in capital letters, {upper}")));
        }
        if let Some(other) = self.names.insert(field.to_owned(), name.to_owned()) {
            return Err(Error::config(format!("{other} and {name} are both set; unset one of them")));
        }
        self.fields.insert(field.to_owned(), value);
        Ok(())
    }

    /// Returns the error for a configuration without `provider`. A misspelled `EVERTOKEN_PROVIDER` is the likely cause
    /// if a variable looks like one.
    fn no_provider(&self) -> Error {
        let expected = self.variable("provider");
        let misspelled = self.names.iter().find(|(field, _)| nearest(field, ["provider"]).is_some());
        Error::config(match misspelled {
            Some((_, name)) => format!("{name} is not a setting; did you mean {expected}?"),
            None => {
                format!("{expected} is not set or is empty; set it to the kind of token, such as wecom or oauth2")
            }
        })
    }

    /// Describes an error by the names of the variables.
    fn config_error(&self, fields: &ConfigValue, error: FieldError) -> Error {
        let kind = fields.text("provider").unwrap_or_default();
        let variable_with =
            |value: &ConfigValue| fields.field_of(value).map_or("a variable".to_owned(), |field| self.name(field));
        Error::config(match error {
            FieldError::Missing(field) => {
                let names = self.settable_by(field);
                let names = match names.as_slice() {
                    [name, file] => format!("{name} (or {file})"),
                    names => names.concat(),
                };
                format!("{names} is not set or is empty; {kind} needs it")
            }
            FieldError::Unknown { field, known } => self.unknown_setting(&field, known, kind),
            FieldError::UnknownWord { found, known } => {
                let name = variable_with(&ConfigValue::Text(found.clone()));
                match nearest(&found, known.iter().copied()) {
                    Some(near) => format!("{name} has an unknown value; did you mean {near}?"),
                    None => format!("{name} has an unknown value, expected one of {}", known.join(", ")),
                }
            }
            // Only `params` and `claims` are maps, and a variable is a text.
            FieldError::Wrong { expected, .. } if expected == "a map" => {
                let name = ["params", "claims"].into_iter().find(|field| self.names.contains_key(*field));
                let name = name.map_or("a variable".to_owned(), |field| self.name(field));
                format!("{name} cannot be set in the environment; use a configuration file")
            }
            FieldError::Wrong { found, expected } => {
                let name = found.map_or("a variable".to_owned(), |found| variable_with(&found.0));
                format!("{name} is wrong; expected {expected}")
            }
            FieldError::Other(text) => format!("{}..: {text}", self.prefix),
        })
    }

    /// Describes a variable that the kind does not have.
    fn unknown_setting(&self, field: &str, known: &[&str], kind: &str) -> String {
        let name = self.name(field);
        let settable: Vec<_> = known.iter().flat_map(|field| self.settable_by(field)).collect();
        // Compared without the prefix, which would make different names look alike.
        let own_part = |name: &str| name.strip_prefix(&self.prefix).unwrap_or(name).to_owned();
        let own_parts: Vec<_> = settable.iter().map(|name| own_part(name)).collect();
        match nearest(&own_part(&name), own_parts.iter().map(String::as_str)) {
            Some(near) => format!("{name} is not a setting of {kind}; did you mean {}{near}?", self.prefix),
            None if known.is_empty() => format!("{name} is not a setting of {kind}"),
            None => {
                let known: Vec<_> = known.iter().map(|field| self.variable(field)).collect();
                format!("{name} is not a setting of {kind}, which has {}", known.join(", "))
            }
        }
    }

    /// Returns the variable that set a field, or the variable that can set it.
    fn name(&self, field: &str) -> String {
        self.names.get(field).cloned().unwrap_or_else(|| self.variable(field))
    }

    /// Returns the variable that can set a field.
    fn variable(&self, field: &str) -> String {
        match field {
            "parent" => [&self.prefix, PARENT, "PROVIDER"].concat(),
            _ => [&self.prefix, field.to_ascii_uppercase().as_str()].concat(),
        }
    }

    /// Returns all variables that can set a field: two for a secret.
    fn settable_by(&self, field: &str) -> Vec<String> {
        let name = self.variable(field);
        let file = SECRETS.contains(&field).then(|| format!("{name}_FILE"));
        [name].into_iter().chain(file).collect()
    }
}

/// A name that no kind and no field has.
const NO_NAME: &str = "-";

const PREFIX: &str = "EVERTOKEN_";
const PARENT: &str = "PARENT_";

/// No kind has more than two parents in a row. The limit bounds the recursion.
const MAX_PARENTS: usize = 8;

/// The beginnings of the variables that Kubernetes sets for a service named `evertoken`.
const KUBERNETES: &[&str] = &["SERVICE_", "PORT"];

/// The fields of all kinds that are secrets.
const SECRETS: &[&str] =
    &["assertion", "certificate", "credentials", "key", "permanent_code", "refresh_token", "secret", "ticket"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_each_kind_are_known_without_a_second_list() {
        assert!(kinds().len() > 25, "{:?}", kinds());
        for kind in kinds() {
            assert!(!fields_of(kind).is_empty(), "{kind}");
        }
        assert_eq!(fields_of("wecom"), ["corp_id", "secret", "base_url"]);
        let known = known_fields();
        for field in ["parent", "params", "secret_file", "assertion_audience", "provider", "grant_type"] {
            assert!(known.contains(field), "{field}");
        }
    }
}
