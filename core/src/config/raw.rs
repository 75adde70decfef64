//! TOML as it was written: values with their line, tables in the order of the file.
//!
//! The parser's own tree sorts its tables and borrows the text. Volumes are listed in the order of
//! the file, and problems name a line, so the tree is copied once into this form.

use serde_json::{Map, Number, Value as Json};
use toml::de::{DeArray, DeTable, DeValue};

/// One TOML value.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// A string, or the text of an override.
    Text(String),
    /// A date or a time, which no key takes.
    Time(String),
    /// A list.
    List(Vec<Node>),
    /// A table, in the order of the file.
    Table(Vec<Member>),
}

/// A value and the line on which it begins, counted from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Raw,
    /// 0 when it did not come from a file.
    pub line: usize,
}

/// One key of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// As it was spelled.
    pub name: String,
    /// Where the name stands.
    pub line: usize,
    /// What it holds.
    pub node: Node,
}

/// A text that is not TOML. Never quotes the text: the line may hold a secret.
pub(super) struct Broken {
    pub line: Option<usize>,
    pub message: String,
}

/// Line numbers from byte positions.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(
            text.bytes()
                .enumerate()
                .filter(|(_, b)| *b == b'\n')
                .map(|(at, _)| at)
                .collect(),
        )
    }

    fn at(&self, byte: usize) -> usize {
        self.0.partition_point(|newline| *newline < byte) + 1
    }
}

/// Reads a whole file.
pub(super) fn parse(text: &str) -> Result<Vec<Member>, Broken> {
    let lines = Lines::of(text);
    match DeTable::parse(text) {
        Ok(table) => Ok(members(table.get_ref(), &lines)),
        Err(error) => Err(Broken {
            line: error.span().map(|span| lines.at(span.start)),
            message: error.message().to_owned(),
        }),
    }
}

/// Reads one value, as it would stand behind `key =`.
pub(super) fn parse_value(text: &str) -> Option<Raw> {
    let value = DeValue::parse(text).ok()?;
    Some(raw(value.get_ref(), &Lines(Vec::new())))
}

fn members(table: &DeTable<'_>, lines: &Lines) -> Vec<Member> {
    let mut found: Vec<_> = table.iter().collect();
    found.sort_by_key(|(name, _)| name.span().start);
    found
        .into_iter()
        .map(|(name, value)| Member {
            name: name.get_ref().to_string(),
            line: lines.at(name.span().start),
            node: node(value, lines),
        })
        .collect()
}

fn node(value: &toml::Spanned<DeValue<'_>>, lines: &Lines) -> Node {
    Node {
        value: raw(value.get_ref(), lines),
        line: lines.at(value.span().start),
    }
}

fn raw(value: &DeValue<'_>, lines: &Lines) -> Raw {
    match value {
        DeValue::Boolean(yes) => Raw::Bool(*yes),
        DeValue::String(text) => Raw::Text(text.to_string()),
        // A number past 64 bits keeps its text, so that the problem can quote it.
        DeValue::Integer(int) => i64::from_str_radix(int.as_str(), int.radix())
            .map_or_else(|_| Raw::Text(int.as_str().to_owned()), Raw::Int),
        DeValue::Float(float) => float
            .as_str()
            .parse()
            .map_or_else(|_| Raw::Text(float.as_str().to_owned()), Raw::Float),
        DeValue::Datetime(time) => Raw::Time(time.to_string()),
        DeValue::Array(items) => Raw::List(list(items, lines)),
        DeValue::Table(table) => Raw::Table(members(table, lines)),
    }
}

fn list(items: &DeArray<'_>, lines: &Lines) -> Vec<Node> {
    items.iter().map(|item| node(item, lines)).collect()
}

impl Raw {
    /// What TOML calls it.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "boolean",
            Self::Int(_) => "integer",
            Self::Float(_) => "float",
            Self::Text(_) => "string",
            Self::Time(_) => "date or time",
            Self::List(_) => "list",
            Self::Table(_) => "table",
        }
    }

    /// The value in JSON; dates become text.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Bool(yes) => Json::Bool(*yes),
            Self::Int(int) => Json::from(*int),
            Self::Float(float) => Number::from_f64(*float).map_or(Json::Null, Json::Number),
            Self::Text(text) | Self::Time(text) => Json::from(text.as_str()),
            Self::List(items) => items.iter().map(|item| item.value.to_json()).collect(),
            Self::Table(members) => Json::Object(table_json(members)),
        }
    }

    /// The value on one line of TOML.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        self.write_toml(&mut out);
        out
    }

    fn write_toml(&self, out: &mut String) {
        match self {
            Self::Bool(yes) => out.push_str(&format!("{yes}")),
            Self::Int(int) => out.push_str(&format!("{int}")),
            Self::Float(float) => out.push_str(&format!("{float:?}")),
            Self::Text(text) => out.push_str(&quote(text)),
            Self::Time(text) => out.push_str(text),
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { ", " });
                    item.value.write_toml(out);
                }
                out.push(']');
            }
            Self::Table(members) => {
                out.push('{');
                for (at, member) in members.iter().enumerate() {
                    out.push_str(if at == 0 { " " } else { ", " });
                    out.push_str(&format!("{} = ", quote_name(&member.name)));
                    member.node.value.write_toml(out);
                }
                out.push_str(if members.is_empty() { "}" } else { " }" });
            }
        }
    }
}

/// A table in JSON, in the order of the file.
pub(super) fn table_json(members: &[Member]) -> Map<String, Json> {
    members
        .iter()
        .map(|member| (member.name.clone(), member.node.value.to_json()))
        .collect()
}

/// A basic TOML string.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A key of TOML: bare where it can be.
pub(super) fn quote_name(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(bare) {
        name.to_owned()
    } else {
        quote(name)
    }
}
