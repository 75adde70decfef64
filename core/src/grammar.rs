//! Value grammars of parameters, the same for query strings and JSON bodies.
//!
//! A check turns a JSON value into what it means, or into a failure: a text, or an object of
//! failures for a nested schema. [`Checked`] runs the checks of one request over one document,
//! so that all failures are reported together.
//!
//! Laws
//! - Every failure is reportable: keys are strings, also for positions in a list.
//! - A key that nobody asked for is a failure, unless the caller allows extras.
//! - No check panics, whatever the document holds.
//!
//! Source: contract 3.1 and 3.2.

use serde_json::{Map, Value};

use crate::id::{QuotaScopeId, VFolderId};
use crate::relpath::RelPath;
use crate::units::{self, BinarySize};

/// What is wrong with one value: a text, or an object of failures by key.
pub type Failure = Value;

/// A value that passed its check, or the failure.
pub type Check<T> = Result<T, Failure>;

/// A failure that is just a text.
pub fn failure(text: &str) -> Failure {
    Value::String(text.to_owned())
}

/// Non-empty text.
///
/// # Errors
/// The failure to report.
pub fn string(value: &Value) -> Check<String> {
    match value {
        Value::String(text) if text.is_empty() => Err(failure("blank value is not allowed")),
        Value::String(text) => Ok(text.clone()),
        _ => Err(failure("value is not a string")),
    }
}

/// Text that may be empty.
///
/// # Errors
/// The failure to report.
pub fn string_or_blank(value: &Value) -> Check<String> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| failure("value is not a string"))
}

/// The one text that is right.
///
/// # Errors
/// The failure to report.
pub fn exactly(want: &'static str) -> impl Fn(&Value) -> Check<()> {
    move |value| match value.as_str() {
        Some(text) if text == want => Ok(()),
        _ => Err(failure(&format!("value is not exactly '{want}'"))),
    }
}

/// An integer as JSON has it. Unlike the original, a boolean is none: `mode: true` made a
/// directory of mode 0001.
///
/// # Errors
/// The failure to report.
pub fn int(value: &Value) -> Check<i64> {
    value.as_i64().ok_or_else(|| failure("value is not int"))
}

/// An integer, a float without fraction, a boolean, or text of an integer.
///
/// # Errors
/// The failure to report.
pub fn to_int(value: &Value) -> Check<i64> {
    match value {
        Value::Bool(flag) => Ok(i64::from(*flag)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Ok(integer),
            // 2^53: beyond it a float does not say which integer it means.
            (None, Some(float))
                if float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0 =>
            {
                Ok(float as i64)
            }
            _ => Err(failure("value is not int")),
        },
        Value::String(text) => {
            let refused = || failure("value can't be converted to int");
            python_int(text).ok_or_else(refused)
        }
        _ => Err(failure("value is not int")),
    }
}

/// Text of an integer as Python reads it: blanks around, a sign, single `_` between digits.
pub fn python_int(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let fits = |run: &str| !run.is_empty() && run.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .split('_')
        .all(fits)
        .then(|| text.replace('_', "").parse().ok())
        .flatten()
}

/// A boolean, or one of the words and numbers that mean one.
///
/// # Errors
/// The failure to report.
pub fn to_bool(value: &Value) -> Check<bool> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::Null => Ok(false),
        Value::String(text) => to_bool_text(text),
        Value::Number(number) => to_bool_text(&number.to_string()),
        _ => Err(failure("value can't be converted to Bool")),
    }
}

/// [`to_bool`] for text, as query strings have it.
///
/// # Errors
/// The failure to report.
pub fn to_bool_text(text: &str) -> Check<bool> {
    match text.trim().to_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" | "1.0" => Ok(true),
        "false" | "n" | "no" | "off" | "0" | "none" | "0.0" => Ok(false),
        _ => Err(failure("value can't be converted to Bool")),
    }
}

/// A JSON boolean and nothing else.
///
/// # Errors
/// The failure to report.
pub fn bool_strict(value: &Value) -> Check<bool> {
    value
        .as_bool()
        .ok_or_else(|| failure("value should be True or False"))
}

/// A boolean as the second-generation endpoints read it.
///
/// # Errors
/// The failure to report.
pub fn bool_lenient(value: &Value) -> Check<bool> {
    let text = match value {
        Value::Bool(flag) => return Ok(*flag),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.to_ascii_lowercase(),
        _ => return Err(failure("value is not a valid boolean")),
    };
    match text.as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" | "1.0" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" | "0.0" => Ok(false),
        _ => Err(failure("value is not a valid boolean")),
    }
}

/// A path below some root; see [`RelPath`].
///
/// # Errors
/// The failure to report.
pub fn rel_path(value: &Value) -> Check<RelPath> {
    let text = value
        .as_str()
        .ok_or_else(|| failure("cannot parse value as a path"))?;
    RelPath::parse(text).map_err(|error| failure(&error.to_string()))
}

/// The name of a vfolder; see [`VFolderId`].
///
/// # Errors
/// The failure to report.
pub fn vfolder_id(value: &Value) -> Check<VFolderId> {
    let text = value
        .as_str()
        .ok_or_else(|| failure("cannot convert value to VFolderID"))?;
    VFolderId::parse(text).map_err(|error| failure(&error.to_string()))
}

/// The name of a quota scope; see [`QuotaScopeId`].
///
/// # Errors
/// The failure to report.
pub fn quota_scope_id(value: &Value) -> Check<QuotaScopeId> {
    let text = value
        .as_str()
        .ok_or_else(|| failure("value is not a string"))?;
    QuotaScopeId::parse(text).map_err(|error| failure(&error.to_string()))
}

/// A size in bytes, as a number or as text such as `1.5g`.
///
/// # Errors
/// The failure to report.
pub fn binary_size(value: &Value) -> Check<BinarySize> {
    let size = match value {
        Value::Number(number) => number.as_u64().map(BinarySize::Bytes),
        Value::String(text) => units::parse_binary_size(text).ok(),
        _ => None,
    };
    size.ok_or_else(|| failure("value is not a valid binary size"))
}

/// Any JSON object.
///
/// # Errors
/// The failure to report.
pub fn object(value: &Value) -> Check<Map<String, Value>> {
    value
        .as_object()
        .cloned()
        .ok_or_else(|| failure("value is not a dict"))
}

/// `null`, or what `check` accepts.
pub fn nullable<T>(check: impl Fn(&Value) -> Check<T>) -> impl Fn(&Value) -> Check<Option<T>> {
    move |value| {
        if value.is_null() {
            Ok(None)
        } else {
            check(value).map(Some)
        }
    }
}

/// A list of what `check` accepts; failures are keyed by position.
pub fn list<T>(check: impl Fn(&Value) -> Check<T>) -> impl Fn(&Value) -> Check<Vec<T>> {
    move |value| {
        let items = value
            .as_array()
            .ok_or_else(|| failure("value is not a list"))?;
        let mut passed = Vec::with_capacity(items.len());
        let mut failures = Map::new();
        for (position, item) in items.iter().enumerate() {
            match check(item) {
                Ok(item) => passed.push(item),
                Err(failure) => drop(failures.insert(position.to_string(), failure)),
            }
        }
        if failures.is_empty() {
            Ok(passed)
        } else {
            Err(Value::Object(failures))
        }
    }
}

/// Splits a query string into decoded pairs, in order, repeated keys included.
///
/// `+` is a blank; a broken escape stands for itself; bytes that are not UTF-8 become U+FFFD.
pub fn parse_query(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    // Tokens have neither.
    let has_code = text
        .bytes()
        .fold(false, |any, byte| any | matches!(byte, b'+' | b'%'));
    if !has_code {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex_value(*high), hex_value(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = after;
                }
                _ => bytes.push(b'%'),
            },
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// The fields of one request while they are checked.
///
/// Ask for every field, then [`finish`](Self::finish): it hands the values over only when all
/// of them passed and nothing was left over.
#[derive(Debug, Default)]
pub struct Checked {
    fields: Map<String, Value>,
    failures: Map<String, Value>,
    extras_allowed: bool,
}

impl Checked {
    /// Starts from a JSON document.
    ///
    /// # Errors
    /// The failure `value is not a dict`.
    pub fn from_json(document: Value) -> Check<Self> {
        match document {
            Value::Object(fields) => Ok(Self {
                fields,
                ..Self::default()
            }),
            _ => Err(failure("value is not a dict")),
        }
    }

    /// Starts from the pairs of a query string: the first value of a repeated key counts.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut fields = Map::new();
        for (key, value) in pairs {
            fields.entry(key).or_insert(Value::String(value));
        }
        Self {
            fields,
            ..Self::default()
        }
    }

    /// Ignores keys that nobody asks for.
    #[must_use]
    pub fn allow_extras(mut self) -> Self {
        self.extras_allowed = true;
        self
    }

    /// A field that must be there. `None` means that a failure was noted.
    pub fn required<T>(&mut self, key: &str, check: impl Fn(&Value) -> Check<T>) -> Option<T> {
        match self.take(key, check) {
            Some(passed) => passed,
            None => self.fail(key, failure("is required")),
        }
    }

    /// A field that may be absent: `Some(None)`. `None` means that a failure was noted.
    pub fn optional<T>(
        &mut self,
        key: &str,
        check: impl Fn(&Value) -> Check<T>,
    ) -> Option<Option<T>> {
        match self.take(key, check) {
            Some(passed) => passed.map(Some),
            None => Some(None),
        }
    }

    /// A field with a default. `None` means that a failure was noted.
    pub fn defaulted<T>(
        &mut self,
        key: &str,
        default: T,
        check: impl Fn(&Value) -> Check<T>,
    ) -> Option<T> {
        self.take(key, check).unwrap_or(Some(default))
    }

    /// Notes a failure that no single check can see. Returns `None` for use in an expression.
    pub fn fail<T>(&mut self, key: &str, failure: Failure) -> Option<T> {
        self.failures.insert(key.to_owned(), failure);
        None
    }

    /// Hands over the values that the checks returned, or every failure.
    ///
    /// # Errors
    /// An object `{field: failure}`, never empty.
    pub fn finish<F: Fields>(mut self, fields: F) -> Check<F::Values> {
        if !self.extras_allowed {
            for key in self.fields.keys() {
                let text = format!("{key} is not allowed key");
                self.failures.insert(key.clone(), failure(&text));
            }
        }
        match fields.all() {
            Some(values) if self.failures.is_empty() => Ok(values),
            _ => Err(Value::Object(self.failures)),
        }
    }

    /// `None`: absent. `Some(None)`: a failure was noted.
    fn take<T>(&mut self, key: &str, check: impl Fn(&Value) -> Check<T>) -> Option<Option<T>> {
        let value = self.fields.shift_remove(key)?;
        Some(match check(&value) {
            Ok(passed) => Some(passed),
            Err(failure) => self.fail(key, failure),
        })
    }
}

/// A tuple of checked fields, each `None` if it failed.
pub trait Fields {
    /// The same tuple without the options.
    type Values;

    /// All values, or `None` if any field failed.
    fn all(self) -> Option<Self::Values>;
}

macro_rules! fields {
    ($($name:ident),+) => {
        impl<$($name),+> Fields for ($(Option<$name>,)+) {
            type Values = ($($name,)+);

            #[allow(non_snake_case)]
            fn all(self) -> Option<Self::Values> {
                let ($($name,)+) = self;
                Some(($($name?,)+))
            }
        }
    };
}

fields!(A);
fields!(A, B);
fields!(A, B, C);
fields!(A, B, C, D);
fields!(A, B, C, D, E);
fields!(A, B, C, D, E, F);
fields!(A, B, C, D, E, F, G);

impl Fields for () {
    type Values = ();

    fn all(self) -> Option<()> {
        Some(())
    }
}

#[cfg(test)]
#[path = "grammar_tests.rs"]
mod tests;
