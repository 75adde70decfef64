//! Header fields, in the order they came.
//!
//! Kept in three allocations whatever their number: a request is parsed often and read little.
//!
//! Source: RFC 9110 §5; the characters are checked by `httparse`.

use super::HeadError;

/// Header fields with lower-case names and raw values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// All names, one after the other.
    names: String,
    /// All values, one after the other.
    values: Vec<u8>,
    /// Where the name and the value of each field end; each begins where the one before ended.
    ends: Vec<(usize, usize)>,
}

/// A field that may stand at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Single<'a> {
    /// Not there.
    Absent,
    /// There once.
    One(&'a [u8]),
    /// There several times; which one counts cannot be told.
    Repeated,
}

impl Headers {
    /// No fields.
    pub const fn new() -> Self {
        Self {
            names: String::new(),
            values: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Reads `lines_count` header lines and the empty line after them.
    pub(super) fn from_block(block: &[u8], lines_count: usize) -> Result<Self, HeadError> {
        let mut fields = vec![httparse::EMPTY_HEADER; lines_count];
        match httparse::parse_headers(block, &mut fields) {
            // Anything but the whole block would be a second opinion on where the head ends.
            Ok(httparse::Status::Complete((len, _))) if len == block.len() => {}
            Ok(_) | Err(httparse::Error::HeaderName) => return Err(HeadError::HeaderName),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
            Err(httparse::Error::NewLine) => return Err(HeadError::LineEnding),
            Err(_) => return Err(HeadError::HeaderValue),
        }
        let mut headers = Self {
            names: String::with_capacity(block.len() / 2),
            values: Vec::with_capacity(block.len()),
            ends: Vec::with_capacity(lines_count),
        };
        for field in &fields {
            headers.append(field.name, super::trim_blanks(field.value));
        }
        Ok(headers)
    }

    /// Adds a field behind the others. The name is kept in lower case.
    pub fn append(&mut self, name: &str, value: &[u8]) {
        self.names
            .extend(name.chars().map(|letter| letter.to_ascii_lowercase()));
        self.values.extend_from_slice(value);
        self.ends.push((self.names.len(), self.values.len()));
    }

    /// The first value of `name`, which must be in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(have, _)| *have == name)
            .map(|(_, value)| value)
    }

    /// Every value of `name`, which must be in lower case, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        debug_assert!(
            !name.bytes().any(|byte| byte.is_ascii_uppercase()),
            "{name}"
        );
        self.iter()
            .filter(move |(have, _)| *have == name)
            .map(|(_, value)| value)
    }

    /// The value of `name` when it must not be repeated.
    pub fn single<'a>(&'a self, name: &'a str) -> Single<'a> {
        let mut values = self.get_all(name);
        match (values.next(), values.next()) {
            (None, _) => Single::Absent,
            (Some(value), None) => Single::One(value),
            (Some(_), Some(_)) => Single::Repeated,
        }
    }

    /// Every field as (lower-case name, value), in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut name_start = 0;
        let mut value_start = 0;
        self.ends.iter().map(move |&(name_end, value_end)| {
            let name = &self.names[name_start..name_end];
            let value = &self.values[value_start..value_end];
            (name_start, value_start) = (name_end, value_end);
            (name, value)
        })
    }

    /// How many fields.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}
