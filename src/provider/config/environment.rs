//! The configuration in the environment.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;

use serde::de::value::MapDeserializer;
use serde::de::{self, Deserialize, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};

use crate::error::Error;
use crate::provider::ProviderConfig;

/// The provider that the environment describes, so that a program needs no code for each vendor.
///
/// Each field of a [`ProviderConfig`] is a variable: `EVERTOKEN_PROVIDER` names the kind, `EVERTOKEN_CORP_ID` is
/// `corp_id`, and so on. A secret is in a variable of its name, `EVERTOKEN_SECRET`, or in the file that
/// `EVERTOKEN_SECRET_FILE` names, and is read when the manager is built. The fields of a `parent` begin with
/// `EVERTOKEN_PARENT_`, those of its parent with `EVERTOKEN_PARENT_PARENT_`. `params` and `claims` cannot be said here.
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
/// An empty variable counts as one that is not set. Those that Kubernetes sets for a service of this name
/// (`EVERTOKEN_SERVICE_..`, `EVERTOKEN_PORT..`) are not looked at.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config), with the name of the variable that is missing, wrong, or not known:
/// a slip of the pen is not passed over. No value is told.
pub fn from_env() -> Result<ProviderConfig, Error> {
    let mut variables = BTreeMap::new();
    for (name, value) in env::vars_os() {
        if let Some((name, value)) = our_own(name, value)? {
            variables.insert(name, value);
        }
    }
    Level::read(&variables, PREFIX.to_owned()).map(|(_, config)| config)
}

fn our_own(name: OsString, value: OsString) -> Result<Option<(String, String)>, Error> {
    let shown = name.to_string_lossy();
    let Some(rest) = shown.strip_prefix(PREFIX) else { return Ok(None) };
    if value.is_empty() || KUBERNETES.iter().any(|start| rest.starts_with(start)) {
        return Ok(None);
    }
    let Ok(value) = value.into_string() else { return Err(Error::config(format!("{shown} is not UTF-8"))) };
    Ok(Some((shown.into_owned(), value)))
}

/// The variables of one configuration: that of the provider, or that of a parent.
struct Level {
    /// What their names begin with.
    prefix: String,
    /// The name of the variable that each field comes from.
    names: BTreeMap<String, String>,
    fields: BTreeMap<String, Node>,
}

impl Level {
    /// Reads the parents first, so that what is wrong is told of the one that it is wrong with.
    fn read(variables: &BTreeMap<String, String>, prefix: String) -> Result<(Node, ProviderConfig), Error> {
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
            return Err(Error::config(format!(
                "{}PROVIDER is not set or is empty; it names the kind of token, such as wecom or oauth2",
                level.prefix
            )));
        }
        if has_parent {
            let prefix = [&level.prefix, PARENT].concat();
            if prefix.len() > PREFIX.len() + DEEPEST * PARENT.len() {
                return Err(Error::config(format!(
                    "{PREFIX}{PARENT}..: there are more than {DEEPEST} parents in a row"
                )));
            }
            let (parent, _) = Level::read(variables, prefix)?;
            level.fields.insert("parent".to_owned(), parent);
        }
        let node = Node::Fields(level.fields.clone());
        let config = ProviderConfig::deserialize(node.clone()).map_err(|fault| level.told(fault))?;
        Ok((node, config))
    }

    fn add(&mut self, name: &str, field: &str, value: &str) -> Result<(), Error> {
        let text = |text: &str| Node::Text(text.to_owned());
        let from = |way: &str, place: &str| Node::Fields(BTreeMap::from([(way.to_owned(), text(place))]));
        let lower = field.to_ascii_lowercase();
        let secret = lower.strip_suffix("_file").filter(|field| SECRETS.contains(field));
        let (field, node) = match secret {
            Some(secret) => (secret, from("file", value)),
            None if SECRETS.contains(&lower.as_str()) => (lower.as_str(), from("env", name)),
            None => (lower.as_str(), text(value)),
        };
        // A parent is no text, and names with small letters in them are not ours.
        if field == "parent" || name != name.to_ascii_uppercase() {
            return Err(Error::config(format!("{name} is not known here")));
        }
        if let Some(other) = self.names.insert(field.to_owned(), name.to_owned()) {
            return Err(Error::config(format!("{other} and {name} are both set; which of them counts?")));
        }
        self.fields.insert(field.to_owned(), node);
        Ok(())
    }

    /// What is wrong, told by the names of the variables.
    fn told(&self, fault: Fault) -> Error {
        let kind = match self.fields.get("provider") {
            Some(Node::Text(kind)) => kind,
            _ => "",
        };
        Error::config(match fault {
            Fault::Missing(field) => format!("{} is not set or is empty; {kind} needs it", self.variables(field)),
            Fault::Unknown { field, known: [] } => format!("{} is not known here", self.name(&field)),
            Fault::Unknown { field, known } => {
                let known: Vec<_> = known.iter().map(|field| self.variable(field)).collect();
                format!("{} is not known; {kind} has {}", self.name(&field), known.join(", "))
            }
            Fault::Wrong { found, wanted } => {
                let is_it = |node: &Node| matches!(node, Node::Text(text) if *text == found);
                let field = self.fields.iter().find(|(_, node)| is_it(node)).map(|(field, _)| field.as_str());
                format!("{} is wrong: it is {wanted}", field.map_or("a variable".to_owned(), |field| self.name(field)))
            }
            Fault::Other(text) => format!("{}..: {text}", self.prefix),
        })
    }

    /// The variable that a field comes from.
    fn name(&self, field: &str) -> String {
        self.names.get(field).cloned().unwrap_or_else(|| self.variable(field))
    }

    /// The variable that a field may come from.
    fn variable(&self, field: &str) -> String {
        match field {
            "parent" => [&self.prefix, PARENT, "PROVIDER"].concat(),
            _ => [&self.prefix, field.to_ascii_uppercase().as_str()].concat(),
        }
    }

    /// All that a field may come from.
    fn variables(&self, field: &str) -> String {
        let name = self.variable(field);
        if SECRETS.contains(&field) { format!("{name} (or {name}_FILE)") } else { name }
    }
}

/// What is deserialised: of `serde_json` only the text of an error could be had, and not what it is about.
#[derive(Clone)]
enum Node {
    Text(String),
    Fields(BTreeMap<String, Node>),
}

impl<'de> IntoDeserializer<'de, Fault> for Node {
    type Deserializer = Node;

    fn into_deserializer(self) -> Node {
        self
    }
}

impl<'de> Deserializer<'de> for Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Node::Text(text) => visitor.visit_string(text),
            Node::Fields(fields) => visitor.visit_map(MapDeserializer::new(fields.into_iter())),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// What is wrong with the fields of a level.
#[derive(Debug)]
enum Fault {
    Missing(&'static str),
    Unknown { field: String, known: &'static [&'static str] },
    Wrong { found: String, wanted: String },
    Other(String),
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Fault {
        Fault::Other(text.to_string())
    }

    fn missing_field(field: &'static str) -> Fault {
        Fault::Missing(field)
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Fault {
        Fault::Unknown { field: field.to_owned(), known }
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Fault {
        Fault::Wrong { found: found.to_owned(), wanted: format!("one of {}", known.join(", ")) }
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Fault {
        match found {
            Unexpected::Str(text) => Fault::Wrong { found: text.to_owned(), wanted: wanted.to_string() },
            _ => Fault::Other(format!("{wanted} is wanted")),
        }
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Fault {
        de::Error::invalid_value(found, wanted)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the environment is wrong")
    }
}

impl std::error::Error for Fault {}

const PREFIX: &str = "EVERTOKEN_";
const PARENT: &str = "PARENT_";

/// No kind has as many; names as long as this are a mistake.
const DEEPEST: usize = 8;

const KUBERNETES: &[&str] = &["SERVICE_", "PORT"];

/// The fields that are secrets, of whatever kind.
const SECRETS: &[&str] =
    &["assertion", "certificate", "credentials", "key", "permanent_code", "refresh_token", "secret", "ticket"];
