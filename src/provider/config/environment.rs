//! A configuration from environment variables.
//!
//! Each variable `EVERTOKEN_<FIELD>` is the field `<field>` of a [`ProviderConfig`]. The fields become a
//! [`ConfigValue`], which is read as a configuration file is read. Errors are described by the names of the variables,
//! and never quote a value.

use std::collections::BTreeMap;
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
/// An empty variable counts as unset. The variables that Kubernetes sets for a service named `evertoken`
/// (`EVERTOKEN_SERVICE_..`, `EVERTOKEN_PORT..`) are ignored.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config), with the name of the variable that is missing, wrong or unknown. An
/// unknown variable is an error, because it is often a misspelled one; the error suggests the nearest known name.
pub fn from_env() -> Result<ProviderConfig, Error> {
    let mut variables = BTreeMap::new();
    for (name, value) in env::vars_os() {
        if let Some((name, value)) = relevant_variable(name, value)? {
            variables.insert(name, value);
        }
    }
    Level::read(&variables, PREFIX.to_owned()).map(|(_, config)| config)
}

/// Returns a variable that is a setting of this crate, which means that it has the prefix and a value.
fn relevant_variable(name: OsString, value: OsString) -> Result<Option<(String, String)>, Error> {
    let shown = name.to_string_lossy();
    let Some(rest) = shown.strip_prefix(PREFIX) else { return Ok(None) };
    if value.is_empty() || KUBERNETES.iter().any(|start| rest.starts_with(start)) {
        return Ok(None);
    }
    let Ok(value) = value.into_string() else { return Err(Error::config(format!("{shown} is not UTF-8"))) };
    Ok(Some((shown.into_owned(), value)))
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
                    "{PREFIX}{PARENT}..: more than {MAX_PARENTS} parents are nested in each other"
                )));
            }
            let (parent, _) = Level::read(variables, prefix)?;
            level.fields.insert("parent".to_owned(), parent);
        }
        let fields = ConfigValue::Fields(level.fields.clone().into_iter().collect());
        match Kind::deserialize(fields.clone()) {
            Ok(kind) => Ok((fields, ProviderConfig(kind))),
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

const PREFIX: &str = "EVERTOKEN_";
const PARENT: &str = "PARENT_";

/// No kind has more than two parents in a row. The limit bounds the recursion.
const MAX_PARENTS: usize = 8;

/// The beginnings of the variables that Kubernetes sets for a service named `evertoken`.
const KUBERNETES: &[&str] = &["SERVICE_", "PORT"];

/// The fields of all kinds that are secrets.
const SECRETS: &[&str] =
    &["assertion", "certificate", "credentials", "key", "permanent_code", "refresh_token", "secret", "ticket"];
