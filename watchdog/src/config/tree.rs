//! A YAML document as a tree in which every value can be found again in the text.
//!
//! In: text. Out: [`Node`]s, and for any of them its line. Never: a meaning; what a key stands for
//! is the business of [`super::read`].
//!
//! serde_yaml tells positions only in errors. So a node remembers nothing but its number, and
//! [`line_of`] reads the text once more with a visitor that fails on purpose at that number: the
//! error carries the line. That costs a second pass per *mistake* and no second YAML parser that
//! could disagree with the first.

use std::cell::Cell;
use std::fmt;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// More values than any sane file has. Aliases that refer to aliases multiply (a "bomb" of ten
/// lines makes billions), so the tree's size is bounded and not the file's alone.
const MAX_NODES: u32 = 50_000;

/// A value and its place.
#[derive(Debug, PartialEq)]
pub struct Node {
    /// Number in reading order; see [`line_of`].
    pub id: u32,
    /// The value.
    pub value: Value,
}

/// What YAML knows.
#[derive(Debug, PartialEq)]
pub enum Value {
    /// Nothing, or `~`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number, as its text.
    Number(String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys (as text) and values, in the file's order, doubled keys included.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Debug, PartialEq)]
pub struct Key {
    /// Number in reading order.
    pub id: u32,
    /// Its text.
    pub name: String,
}

impl fmt::Display for Value {
    /// As it would be quoted in a message; containers by kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("nothing"),
            Self::Bool(value) => write!(f, "\"{value}\""),
            Self::Int(value) => write!(f, "\"{value}\""),
            Self::Number(value) => write!(f, "\"{value}\""),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a group of keys"),
        }
    }
}

/// Why a text is not a tree.
#[derive(Debug)]
pub struct Malformed {
    /// Where, if the parser knows.
    pub line: Option<usize>,
    /// What.
    pub what: String,
}

/// Reads a text. `None`: there is nothing in it but comments.
pub fn parse(text: &str) -> Result<Option<Node>, Malformed> {
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let Some(first) = documents.next() else {
        return Ok(None);
    };
    let count = Cell::new(0);
    let seed = Seed {
        count: &count,
        fail_at: None,
    };
    let node = seed.deserialize(first).map_err(malformed)?;
    if let Some(second) = documents.next() {
        // A syntax error after the first document shows up here.
        serde::de::IgnoredAny::deserialize(second).map_err(malformed)?;
        return Err(Malformed {
            line: None,
            what: "holds more than one document; remove the lines with \"---\"".to_owned(),
        });
    }
    Ok((node.value != Value::Null).then_some(node))
}

/// The line of a node or key of that text.
#[must_use]
pub fn line_of(text: &str, id: u32) -> Option<usize> {
    let document = serde_yaml::Deserializer::from_str(text).next()?;
    let count = Cell::new(0);
    let seed = Seed {
        count: &count,
        fail_at: Some(id),
    };
    let error = seed.deserialize(document).err()?;
    error.location().map(|location| location.line())
}

fn malformed(error: serde_yaml::Error) -> Malformed {
    let said = error.to_string();
    // The line stands before the message already.
    let (line, what) = match error.location() {
        Some(place) => {
            let position = format!(" at line {} column {}", place.line(), place.column());
            (Some(place.line()), said.replacen(&position, "", 1))
        }
        None => (None, said),
    };
    Malformed { line, what }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    count: &'a Cell<u32>,
    fail_at: Option<u32>,
}

impl Seed<'_> {
    fn next_id<E: serde::de::Error>(self) -> Result<u32, E> {
        let id = self.count.get();
        if self.fail_at == Some(id) {
            return Err(E::custom("here"));
        }
        if id >= MAX_NODES {
            return Err(E::custom(format_args!(
                "more than {MAX_NODES} values; a file like this is not a configuration"
            )));
        }
        self.count.set(id + 1);
        Ok(id)
    }

    fn leaf<E: serde::de::Error>(self, value: Value) -> Result<Node, E> {
        Ok(Node {
            id: self.next_id()?,
            value,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value, list or group of keys")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        self.leaf(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        self.leaf(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Node, E> {
        self.leaf(Value::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node, E> {
        self.leaf(Value::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        match i64::try_from(value) {
            Ok(value) => self.leaf(Value::Int(value)),
            Err(_) => self.leaf(Value::Number(value.to_string())),
        }
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Node, E> {
        self.leaf(Value::Number(value.to_string()))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Node, E> {
        self.leaf(Value::Number(value.to_string()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        self.leaf(Value::Number(value.to_string()))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
        self.leaf(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let id = self.next_id()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Node {
            id,
            value: Value::List(list),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let id = self.next_id()?;
        let mut map = Vec::new();
        while let Some(key) = entries.next_key_seed(self)? {
            let name = match key.value {
                Value::Text(name) | Value::Number(name) => name,
                Value::Int(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Null => "~".to_owned(),
                Value::List(_) | Value::Map(_) => {
                    return Err(A::Error::custom("a key must be a word"));
                }
            };
            let value = entries.next_value_seed(self)?;
            map.push((Key { id: key.id, name }, value));
        }
        Ok(Node {
            id,
            value: Value::Map(map),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child<'a>(node: &'a Node, name: &str) -> &'a Node {
        let Value::Map(entries) = &node.value else {
            panic!("not a map: {node:?}");
        };
        &entries.iter().find(|(key, _)| key.name == name).unwrap().1
    }

    #[test]
    fn every_value_is_found_again_in_the_text() {
        let text = "# head\na: 1\nb:\n  - x\n  - y: [1,\n      2]\nc: {d: 50%}\n";
        let tree = parse(text).unwrap().unwrap();
        assert_eq!(line_of(text, child(&tree, "a").id), Some(2));
        let Value::List(items) = &child(&tree, "b").value else {
            panic!()
        };
        assert_eq!(line_of(text, items[0].id), Some(4));
        let Value::List(inner) = &child(&items[1], "y").value else {
            panic!()
        };
        assert_eq!(line_of(text, inner[1].id), Some(6));
        let d = child(child(&tree, "c"), "d");
        assert_eq!(d.value, Value::Text("50%".into()));
        assert_eq!(line_of(text, d.id), Some(7));
    }

    #[test]
    fn nothing_but_comments_is_nothing() {
        assert!(parse("").unwrap().is_none());
        assert!(parse("# only\n").unwrap().is_none());
        assert!(parse("---\n").unwrap().is_none());
    }

    #[test]
    fn an_alias_bomb_is_refused_quickly() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for depth in 1..12 {
            let refs = vec![format!("*a{}", depth - 1); 10].join(", ");
            text += &format!("a{depth}: &a{depth} [{refs}]\n");
        }
        let error = parse(&text).unwrap_err();
        assert!(
            error.what.contains("more than 50000 values")
                || error.what.contains("repetition limit"),
            "{}",
            error.what
        );
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed_down_the_stack() {
        let text = "[".repeat(100_000);
        assert!(parse(&text).is_err());
    }

    #[test]
    fn a_second_document_is_refused() {
        let error = parse("a: 1\n---\nb: 2\n").unwrap_err();
        assert!(error.what.contains("more than one document"));
    }
}
