//! Walks a tree with the key path in hand and gathers *every* mistake.
//!
//! In: a tree ([`super::tree`]). Out: typed values, and [`Problem`]s with line, key path and mend.
//! A leaf parser says only what is wrong with a value; this file adds where.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::keys;
use super::tree::{Node, Value, line_of};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line, where known.
    pub line: Option<usize>,
    /// Key path; empty for the file itself.
    pub path: String,
    /// What is wrong, and the mend.
    pub what: String,
}

/// More mistakes than anyone mends in one go; finding a line costs a pass over the file each.
pub(super) const MAX_PROBLEMS: usize = 100;

/// The mistakes of one file so far.
pub struct Walk<'t> {
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
}

/// A value and where it stands.
#[derive(Clone)]
pub struct Place<'w> {
    walk: &'w Walk<'w>,
    /// The value.
    pub node: &'w Node,
    /// Key path with indices, as shown.
    pub path: String,
    /// Key path without indices, as in the table of keys.
    pattern: String,
}

/// The keys of a group, each taken by name.
pub struct Group<'w> {
    place: Place<'w>,
    entries: BTreeMap<&'w str, Place<'w>>,
}

impl<'t> Walk<'t> {
    /// A walk through this text.
    #[must_use]
    pub fn new(text: &'t str) -> Self {
        Self {
            text,
            problems: RefCell::default(),
        }
    }

    /// The top of the tree.
    pub fn top<'w>(&'w self, node: &'w Node) -> Place<'w>
    where
        't: 'w,
    {
        Place {
            walk: self,
            node,
            path: String::new(),
            pattern: String::new(),
        }
    }

    /// Notes a mistake at a node or key, if it is known which.
    pub fn complain(&self, id: Option<u32>, path: &str, what: impl Into<String>) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() >= MAX_PROBLEMS {
            return;
        }
        problems.push(Problem {
            line: id.and_then(|id| line_of(self.text, id)),
            path: path.to_owned(),
            what: what.into(),
        });
    }

    /// All mistakes, in the file's order.
    #[must_use]
    pub fn finish(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems
    }
}

impl<'w> Place<'w> {
    fn child(&self, node: &'w Node, step: &str, pattern: &str) -> Self {
        let join = |head: &str, tail: &str| match head {
            "" => tail.to_owned(),
            _ if tail.starts_with('[') => format!("{head}{tail}"),
            _ => format!("{head}.{tail}"),
        };
        Self {
            walk: self.walk,
            node,
            path: join(&self.path, step),
            pattern: join(&self.pattern, pattern),
        }
    }

    /// Notes a mistake here.
    pub fn complain(&self, what: impl Into<String>) {
        self.walk.complain(Some(self.node.id), &self.path, what);
    }

    /// The value as `parser` reads it; notes what it says is wrong.
    pub fn read<T>(&self, parser: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        parser(&self.node.value)
            .map_err(|what| self.complain(what))
            .ok()
    }

    /// The items of a list.
    pub fn items(&self) -> Vec<Self> {
        let Value::List(items) = &self.node.value else {
            self.complain(format!(
                "{} is not a list; write it as [{}]",
                self.node.value,
                match &self.node.value {
                    Value::Text(text) | Value::Number(text) => text.clone(),
                    Value::Int(number) => number.to_string(),
                    _ => "…".to_owned(),
                }
            ));
            return Vec::new();
        };
        (0..)
            .zip(items)
            .map(|(index, item): (usize, _)| self.child(item, &format!("[{index}]"), "[]"))
            .collect()
    }

    /// The pairs of a group whose keys are the writer's own (headers, labels). Keys that stand
    /// twice and values that are no text are noted here.
    pub fn pairs(&self) -> Vec<(String, String, Self)> {
        let Value::Map(map) = &self.node.value else {
            self.complain(format!(
                "{} is not a group of names and texts; write it as {{ name: text }}",
                self.node.value
            ));
            return Vec::new();
        };
        let mut pairs: Vec<(String, String, Self)> = Vec::new();
        for (key, node) in map {
            let place = self.child(node, &key.name, &key.name);
            if pairs.iter().any(|(name, ..)| *name == key.name) {
                self.walk
                    .complain(Some(key.id), &place.path, "stands twice; remove one");
            } else if let Some(value) = place.read(text) {
                pairs.push((key.name.clone(), value, place));
            }
        }
        pairs
    }

    /// One text, or a list of them.
    pub fn one_or_more<T>(&self, parser: impl Fn(&Value) -> Result<T, String>) -> Vec<T> {
        match &self.node.value {
            Value::List(items) if items.is_empty() => {
                self.complain("is empty, so nothing would match; write one or remove the key");
                Vec::new()
            }
            Value::List(_) => self
                .items()
                .iter()
                .filter_map(|item| item.read(&parser))
                .collect(),
            _ => self.read(&parser).into_iter().collect(),
        }
    }

    /// The keys under this one. Unknown and doubled keys and keys without a value are noted here.
    pub fn group(&self) -> Option<Group<'w>> {
        let Value::Map(map) = &self.node.value else {
            self.complain(format!(
                "{} is not a group of keys; known keys: {}",
                self.node.value,
                known(&self.pattern)
            ));
            return None;
        };
        let mut entries: BTreeMap<&str, Place<'_>> = BTreeMap::new();
        for (key, node) in map {
            let name = key.name.as_str();
            let place = self.child(node, name, name);
            if !keys::under(&self.pattern).any(|known| known == name) {
                let mend = match keys::nearest(name, keys::under(&self.pattern)) {
                    Some(near) => format!("write \"{near}\""),
                    None => format!("known keys: {}", known(&self.pattern)),
                };
                self.walk
                    .complain(Some(key.id), &place.path, format!("unknown key; {mend}"));
            } else if entries.contains_key(name) {
                self.walk
                    .complain(Some(key.id), &place.path, "stands twice; remove one");
            } else if node.value == Value::Null {
                self.walk.complain(
                    Some(key.id),
                    &place.path,
                    "has no value; write one or remove the key",
                );
            } else {
                entries.insert(name, place);
            }
        }
        Some(Group {
            place: self.clone(),
            entries,
        })
    }
}

fn known(pattern: &str) -> String {
    keys::under(pattern).collect::<Vec<_>>().join(", ")
}

impl<'w> Group<'w> {
    /// The place of a key that is there.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Place<'w>> {
        debug_assert!(
            keys::under(&self.place.pattern).any(|known| known == key),
            "{key} is not in the table"
        );
        self.entries.get(key)
    }

    /// Whether a key stands there, be it without a value.
    #[must_use]
    pub fn is_written(&self, key: &str) -> bool {
        match &self.place.node.value {
            Value::Map(map) => map.iter().any(|(there, _)| there.name == key),
            _ => false,
        }
    }

    /// The value of a key, if it is there and right.
    pub fn read<T>(
        &self,
        key: &str,
        parser: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        self.get(key)?.read(parser)
    }

    /// The place of a key that must be there.
    pub fn required(&self, key: &str, mend: &str) -> Option<&Place<'w>> {
        let found = self.get(key);
        // A key without a value has been complained of already.
        if found.is_none() && !self.is_written(key) {
            self.place.complain(format!("{key} is missing; {mend}"));
        }
        found
    }

    /// Notes a mistake of the group as a whole.
    pub fn complain(&self, what: impl Into<String>) {
        self.place.complain(what);
    }
}

/// Text, not empty.
pub fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) if !text.is_empty() => Ok(text.clone()),
        Value::Int(number) => Ok(number.to_string()),
        Value::Number(number) => Ok(number.clone()),
        Value::Text(_) => Err("is empty".to_owned()),
        other => Err(format!("{other} is not a text; put it in quotes")),
    }
}

/// `true` or `false`.
pub fn flag(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        other => Err(format!("{other} is neither true nor false")),
    }
}

/// One of these words.
pub fn one_of<T: Copy>(words: &[(&str, T)]) -> impl FnOnce(&Value) -> Result<T, String> {
    move |value| {
        let text = text(value)?;
        if let Some((_, found)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*found);
        }
        let names = || words.iter().map(|(word, _)| *word);
        Err(match keys::nearest(&text, names()) {
            Some(near) => format!("\"{text}\" is not known; write \"{near}\""),
            None => format!(
                "\"{text}\" is not known; write one of: {}",
                names().collect::<Vec<_>>().join(", ")
            ),
        })
    }
}
