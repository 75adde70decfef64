//! MessagePack, as much of it as events need.
//!
//! Laws
//! - Packing takes the shortest form of numbers and lengths, as the original's packer does.
//! - Unpacking refuses extensions, keys that are no text, depth beyond [`DEPTH_MAX`], and bytes
//!   left over. It allocates no more than the input could hold.

use thiserror::Error;

/// Deepest nesting that is read. The deepest event of the catalogue has 4.
pub const DEPTH_MAX: usize = 8;

/// One MessagePack value.
#[derive(Clone, Debug, PartialEq)]
pub enum Packed {
    /// Nothing.
    Nil,
    /// A truth value.
    Bool(bool),
    /// A whole number that is not negative.
    Int(u64),
    /// A negative whole number.
    Negative(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Packed>),
    /// Pairs, in their order.
    Map(Vec<(String, Packed)>),
}

impl From<&str> for Packed {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Option<&str>> for Packed {
    fn from(text: Option<&str>) -> Self {
        text.map_or(Self::Nil, Self::from)
    }
}

impl From<bool> for Packed {
    fn from(is: bool) -> Self {
        Self::Bool(is)
    }
}

impl From<u64> for Packed {
    fn from(number: u64) -> Self {
        Self::Int(number)
    }
}

impl Packed {
    /// A list of one value per item.
    pub fn list<T: Into<Self>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }

    /// A JSON value, as the original's packer would pack it.
    pub fn from_json(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Nil,
            Value::Bool(is) => Self::Bool(*is),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Self::Int(number),
                (None, Some(number)) => Self::Negative(number),
                (None, None) => number.as_f64().map_or(Self::Nil, Self::Float),
            },
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(items) => Self::List(items.iter().map(Self::from_json).collect()),
            Value::Object(pairs) => {
                let pairs = pairs.iter();
                Self::Map(
                    pairs
                        .map(|(key, value)| (key.clone(), Self::from_json(value)))
                        .collect(),
                )
            }
        }
    }

    /// The bytes of this value.
    pub fn pack(&self) -> Vec<u8> {
        let mut to = Vec::new();
        self.write(&mut to);
        to
    }

    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Nil => to.push(0xc0),
            Self::Bool(false) => to.push(0xc2),
            Self::Bool(true) => to.push(0xc3),
            Self::Int(number) => write_int(*number, to),
            Self::Negative(number) => write_negative(*number, to),
            Self::Float(number) => {
                to.push(0xcb);
                to.extend(number.to_be_bytes());
            }
            Self::Text(text) => {
                write_head(text.len(), (0xa0, 32), [Some(0xd9), Some(0xda)], 0xdb, to);
                to.extend(text.as_bytes());
            }
            Self::Bytes(bytes) => {
                write_head(bytes.len(), (0, 0), [Some(0xc4), Some(0xc5)], 0xc6, to);
                to.extend(bytes);
            }
            Self::List(items) => {
                write_head(items.len(), (0x90, 16), [None, Some(0xdc)], 0xdd, to);
                for item in items {
                    item.write(to);
                }
            }
            Self::Map(pairs) => {
                write_head(pairs.len(), (0x80, 16), [None, Some(0xde)], 0xdf, to);
                for (key, value) in pairs {
                    Self::from(key.as_str()).write(to);
                    value.write(to);
                }
            }
        }
    }
}

fn write_int(number: u64, to: &mut Vec<u8>) {
    match number {
        0..0x80 => to.push(number as u8),
        0x80..0x100 => to.extend([0xcc, number as u8]),
        0x100..0x1_0000 => {
            to.push(0xcd);
            to.extend((number as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            to.push(0xce);
            to.extend((number as u32).to_be_bytes());
        }
        _ => {
            to.push(0xcf);
            to.extend(number.to_be_bytes());
        }
    }
}

fn write_negative(number: i64, to: &mut Vec<u8>) {
    if let Ok(number) = u64::try_from(number) {
        return write_int(number, to);
    }
    match (
        i8::try_from(number),
        i16::try_from(number),
        i32::try_from(number),
    ) {
        (Ok(number @ -32..), ..) => to.push(number as u8),
        (Ok(number), ..) => to.extend([0xd0, number as u8]),
        (_, Ok(number), _) => {
            to.push(0xd1);
            to.extend(number.to_be_bytes());
        }
        (_, _, Ok(number)) => {
            to.push(0xd2);
            to.extend(number.to_be_bytes());
        }
        _ => {
            to.push(0xd3);
            to.extend(number.to_be_bytes());
        }
    }
}

/// Writes a type and a length in the shortest of the forms that the type has.
fn write_head(
    len: usize,
    (fixed, fixed_max): (u8, usize),
    [one, two]: [Option<u8>; 2],
    four: u8,
    to: &mut Vec<u8>,
) {
    match (one, two) {
        _ if len < fixed_max => to.push(fixed | len as u8),
        (Some(one), _) if len < 0x100 => to.extend([one, len as u8]),
        (_, Some(two)) if len < 0x1_0000 => {
            to.push(two);
            to.extend((len as u16).to_be_bytes());
        }
        _ => {
            // Nothing here comes near 4 GiB: texts of events are clipped.
            to.push(four);
            to.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}

/// Why bytes are no value that is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnpackError {
    /// They end too early.
    #[error("the bytes end early")]
    Short,
    /// They go on after the value.
    #[error("bytes are left over")]
    Surplus,
    /// Nested too deep.
    #[error("nested deeper than {DEPTH_MAX}")]
    Deep,
    /// A text, or the key of a map, is not UTF-8 text.
    #[error("text is not UTF-8")]
    NotText,
    /// An extension, or a byte that begins nothing.
    #[error("type byte {0:#04x} is not accepted")]
    Type(u8),
}

/// Reads exactly one value.
///
/// # Errors
/// See [`UnpackError`].
pub fn unpack(bytes: &[u8]) -> Result<Packed, UnpackError> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(0)?;
    if !reader.rest.is_empty() {
        return Err(UnpackError::Surplus);
    }
    Ok(value)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], UnpackError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(UnpackError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A number of so many bytes, most significant first.
    fn number(&mut self, len: usize) -> Result<u64, UnpackError> {
        assert!(len <= 8);
        let bytes = self.take(len)?;
        Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn len(&mut self, len: usize) -> Result<usize, UnpackError> {
        let len = self.number(len)?;
        usize::try_from(len).map_err(|_| UnpackError::Short)
    }

    fn value(&mut self, depth: usize) -> Result<Packed, UnpackError> {
        if DEPTH_MAX < depth {
            return Err(UnpackError::Deep);
        }
        let kind = self.take(1)?[0];
        Ok(match kind {
            0x00..=0x7f => Packed::Int(u64::from(kind)),
            0x80..=0x8f => self.map(usize::from(kind & 0x0f), depth)?,
            0x90..=0x9f => self.list(usize::from(kind & 0x0f), depth)?,
            0xa0..=0xbf => self.text(usize::from(kind & 0x1f))?,
            0xc0 => Packed::Nil,
            0xc2 => Packed::Bool(false),
            0xc3 => Packed::Bool(true),
            0xc4..=0xc6 => {
                let len = self.len(1 << (kind - 0xc4))?;
                Packed::Bytes(self.take(len)?.to_vec())
            }
            0xca => {
                let bits = u32::try_from(self.number(4)?).unwrap_or(0);
                Packed::Float(f64::from(f32::from_bits(bits)))
            }
            0xcb => Packed::Float(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => Packed::Int(self.number(1 << (kind - 0xcc))?),
            0xd0..=0xd3 => self.signed(1 << (kind - 0xd0))?,
            0xd9..=0xdb => {
                let len = self.len(1 << (kind - 0xd9))?;
                self.text(len)?
            }
            0xdc | 0xdd => {
                let len = self.len(2 << (kind - 0xdc))?;
                self.list(len, depth)?
            }
            0xde | 0xdf => {
                let len = self.len(2 << (kind - 0xde))?;
                self.map(len, depth)?
            }
            0xe0..=0xff => Packed::Negative(i64::from(kind as i8)),
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(UnpackError::Type(kind)),
        })
    }

    fn signed(&mut self, len: usize) -> Result<Packed, UnpackError> {
        let shift = 64 - 8 * len as u32;
        let number = (self.number(len)? << shift) as i64 >> shift;
        Ok(u64::try_from(number).map_or(Packed::Negative(number), Packed::Int))
    }

    fn text(&mut self, len: usize) -> Result<Packed, UnpackError> {
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| UnpackError::NotText)?;
        Ok(Packed::from(text))
    }

    /// Every item takes a byte at least, so a length beyond the rest is refused before the loop.
    fn list(&mut self, len: usize, depth: usize) -> Result<Packed, UnpackError> {
        if self.rest.len() < len {
            return Err(UnpackError::Short);
        }
        let items = (0..len).map(|_| self.value(depth + 1));
        Ok(Packed::List(items.collect::<Result<_, _>>()?))
    }

    fn map(&mut self, len: usize, depth: usize) -> Result<Packed, UnpackError> {
        if self.rest.len() / 2 < len {
            return Err(UnpackError::Short);
        }
        let mut pairs = Vec::new();
        for _ in 0..len {
            let Packed::Text(key) = self.value(depth + 1)? else {
                return Err(UnpackError::NotText);
            };
            pairs.push((key, self.value(depth + 1)?));
        }
        Ok(Packed::Map(pairs))
    }
}
