//! YAML with the line of each value, and values as their types with the place of what does not fit: so that an error names the
//! file, the key and the line.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_path_to_error::Segment;
use serde_yaml::Spanned;

use super::wording;

/// A value of a file, and the lines on which its parts begin.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Map(Vec<(Spanned<String>, Node)>),
    List(Vec<Spanned<Node>>),
    Scalar(Value),
}

/// What is wrong with a value, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The keys on the way, the positions in lists among them.
    pub(super) path: Vec<String>,
    pub(super) what: String,
}

impl Node {
    /// The documents of a file.
    pub(super) fn documents(text: &str) -> Result<Vec<Self>, serde_yaml::Error> {
        // A list of learners may be long, and the file is the operator's own: no bound but memory.
        serde_yaml::from_multiple_with_options(text, serde_yaml::options! { budget: None })
    }

    pub(super) fn value(&self) -> Value {
        match self {
            Self::Map(fields) => {
                let fields = fields
                    .iter()
                    .map(|(key, node)| (key.value.clone(), node.value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
            Self::List(items) => items.iter().map(|item| item.value.value()).collect(),
            Self::Scalar(value) => value.clone(),
        }
    }

    /// What lies at a path, or as near to it as there is something, and its line.
    pub(super) fn find(&self, path: &[String]) -> (&Self, Option<u64>) {
        let (mut node, mut line) = (self, None);
        for step in path {
            let found = match node {
                Self::Map(fields) => {
                    let field = fields.iter().find(|(key, _)| key.value == *step);
                    field.map(|(key, node)| (node, key.referenced))
                }
                Self::List(items) => {
                    let item = step.parse().ok().and_then(|at: usize| items.get(at));
                    item.map(|item| (&item.value, item.referenced))
                }
                Self::Scalar(_) => None,
            };
            let Some((below, place)) = found else { break };
            (node, line) = (below, Some(place.line()));
        }
        (node, line)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar(Value::Null))
            }
            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar(Value::Null))
            }
            fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Node, D::Error> {
                Node::deserialize(value)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Node::Map(fields))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Fault {
    pub(super) fn new(path: &str, what: impl fmt::Display) -> Self {
        Self {
            path: path.split('.').map(str::to_owned).collect(),
            what: what.to_string(),
        }
    }

    /// What to do about a value of a file that is of another kind than it must be, where quotes make the difference.
    pub(super) fn hint(&self, found: &Node) -> String {
        let Node::Scalar(value) = found else {
            return String::new();
        };
        match value {
            Value::Number(_) | Value::Bool(_) if self.what.starts_with("must be text") => {
                format!(": put it in quotes, as in \"{value}\"")
            }
            // Without the text, which may be a secret in the wrong place.
            Value::String(text)
                if serde_json::from_str(text).is_ok_and(|bare: Value| bare.is_number())
                    && [wording::NUMBER, wording::WHOLE]
                        .iter()
                        .any(|number| self.what.starts_with(&format!("must be {number}"))) =>
            {
                ": leave the quotes away".to_owned()
            }
            _ => String::new(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.path.iter().map(|step| {
            if step.bytes().all(|byte| byte.is_ascii_digit()) {
                format!("[{step}]")
            } else {
                format!(".{step}")
            }
        });
        match steps.collect::<String>().trim_start_matches('.') {
            "" => f.write_str(&self.what),
            path => write!(f, "{path}: {}", self.what),
        }
    }
}

/// A value as a type.
pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| Fault {
        path: error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                Segment::Seq { index } => Some(index.to_string()),
                Segment::Map { key } => Some(key.clone()),
                Segment::Enum { .. } | Segment::Unknown => None,
            })
            .collect(),
        what: wording::of(&error.inner().to_string()),
    })
}
