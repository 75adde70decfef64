//! Positions, lengths, and the texts in which people write sizes and times.
//!
//! Laws
//! - A position and a length are different types; arithmetic that leaves `u64` is `None`.
//! - Text is read exactly, in decimal: no float, so `1.5g` is the same on every machine.
//! - A size that does not fit into 64 bits is an error, never a saturation.
//!
//! Source: contract 3.2 (binary sizes); configuration reference (durations, log sizes).

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// Two to the tenth bytes.
pub const KIB: u64 = 1024;
/// Two to the twentieth bytes.
pub const MIB: u64 = 1024 * KIB;
/// Two to the thirtieth bytes.
pub const GIB: u64 = 1024 * MIB;

/// Position of a byte in one file. Add a [`ByteLen`] to move it; two offsets never add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The first byte of a file.
    pub const ZERO: Self = Self(0);

    /// The position before which `bytes` bytes lie.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes before this position.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns `None` past `u64::MAX`: a client can send any number it likes.
    pub const fn advance(self, by: ByteLen) -> Option<Self> {
        match self.0.checked_add(by.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The bytes from `start` to here; `None` when `start` lies behind.
    pub const fn since(self, start: Self) -> Option<ByteLen> {
        match self.0.checked_sub(start.0) {
            Some(len) => Some(ByteLen(len)),
            None => None,
        }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteLen(u64);

impl ByteLen {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// A length of `bytes` bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not a size or a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Nothing but blanks.
    #[error("value is empty")]
    Empty,
    /// Not a decimal number followed by a known unit.
    #[error("value is not a number with a known unit")]
    Malformed,
    /// A minus sign.
    #[error("value is negative")]
    Negative,
    /// A fraction of a byte.
    #[error("value is not a whole number of bytes")]
    Fraction,
    /// More than 64 bits.
    #[error("value is too large")]
    TooLarge,
}

/// A size whose units are powers of 1024, or no limit at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BinarySize {
    /// That many bytes.
    Bytes(u64),
    /// `inf` and its other spellings.
    Infinite,
}

impl fmt::Display for BinarySize {
    /// `1 byte`, `N bytes`, or at most two decimals of the largest unit that fits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match *self {
            Self::Infinite => return f.write_str("inf"),
            Self::Bytes(1) => return f.write_str("1 byte"),
            Self::Bytes(bytes) if bytes < KIB => return write!(f, "{bytes} bytes"),
            Self::Bytes(bytes) => bytes,
        };
        let power = (63 - bytes.leading_zeros()) / 10;
        let unit = 1u128 << (10 * power);
        let hundredths = (u128::from(bytes) * 100 + unit / 2) / unit;
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        let name = ["", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"][power as usize];
        match (rest, rest % 10) {
            (0, _) => write!(f, "{whole} {name}"),
            (_, 0) => write!(f, "{whole}.{} {name}", rest / 10),
            _ => write!(f, "{whole}.{rest:02} {name}"),
        }
    }
}

/// Reads a size in powers of 1024: `100g`, `1.5 GiB`, `4_096`, `inf`.
///
/// A fraction needs a suffix, or must be integral (`536870912.000000`); what a suffix leaves of a
/// byte is cut off.
///
/// # Errors
/// See [`UnitError`]; negative sizes are refused.
pub fn parse_binary_size(text: &str) -> Result<BinarySize, UnitError> {
    let text = text.trim().replace('_', "").to_ascii_lowercase();
    if matches!(text.as_str(), "inf" | "infinite" | "infinity") {
        return Ok(BinarySize::Infinite);
    }
    let (number, unit) = split_number(&text)?;
    let power = binary_power(unit).ok_or(UnitError::Malformed)?;
    let number = Decimal::parse(number)?;
    if power == 0 && number.fraction != 0 {
        return Err(UnitError::Fraction);
    }
    // Zettabytes and yottabytes never fit; shifting by 60 at most keeps the product in u128.
    if power > 6 && number.is_zero() {
        return Ok(BinarySize::Bytes(0));
    }
    if power > 6 {
        return Err(UnitError::TooLarge);
    }
    number.times(1u64 << (10 * power)).map(BinarySize::Bytes)
}

/// Reads a size of the logging section, where `10MB` is 10,000,000 and `10MiB` is 10,485,760.
///
/// # Errors
/// See [`UnitError`]; negative sizes are refused.
pub fn parse_decimal_size(text: &str) -> Result<u64, UnitError> {
    let text = text.trim().to_ascii_lowercase();
    let (number, unit) = split_number(&text)?;
    let number = Decimal::parse(number)?;
    let scale = match unit {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "p" | "pb" => 1_000_000_000_000_000,
        "e" | "eb" => 1_000_000_000_000_000_000,
        _ if unit.ends_with("ib") => {
            let power = binary_power(unit).filter(|power| (1..=6).contains(power));
            1 << (10 * power.ok_or(UnitError::Malformed)?)
        }
        _ => return Err(UnitError::Malformed),
    };
    number.times(scale)
}

/// Reads a duration: bare digits are seconds, units are `s m h d w`, and whole `mo` and `yr`.
///
/// Months and years are 30 and 365 days: a duration here is a length of time, not a date.
///
/// # Errors
/// See [`UnitError`]; negative and empty texts are refused.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    const DAY_S: u64 = 24 * 60 * 60;
    let text = text.trim().to_ascii_lowercase();
    let (number, unit) = split_number(&text)?;
    let number = Decimal::parse(number)?;
    let unit_s = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => DAY_S,
        "w" => 7 * DAY_S,
        "mo" if number.fraction == 0 => 30 * DAY_S,
        "yr" if number.fraction == 0 => 365 * DAY_S,
        _ => return Err(UnitError::Malformed),
    };
    // Microseconds are the finest step a configuration can mean; u64 of them is 584,000 years.
    number.times(unit_s * 1_000_000).map(Duration::from_micros)
}

/// Powers of 1024 behind a unit name: `k`, `kb`, `kbytes`, `kib`, `kibyte` are all 1.
fn binary_power(unit: &str) -> Option<u32> {
    if matches!(unit, "" | "b" | "byte" | "bytes") {
        return Some(0);
    }
    let power = "kmgtpezy".find(unit.chars().next()?)? as u32 + 1;
    matches!(
        &unit[1..],
        "" | "b" | "byte" | "bytes" | "ib" | "ibyte" | "ibytes"
    )
    .then_some(power)
}

/// Splits `1.5 gib` into number and unit, and tells a minus sign from nonsense.
fn split_number(text: &str) -> Result<(&str, &str), UnitError> {
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    if text.starts_with('-') {
        return Err(UnitError::Negative);
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    Ok((&text[..end], text[end..].trim_start()))
}

/// A non-negative decimal: `(whole + fraction / scale)`.
struct Decimal {
    whole: u64,
    fraction: u64,
    scale: u64,
}

impl Decimal {
    /// At most eighteen digits of a fraction count; the rest is below one byte of an exabyte.
    fn parse(text: &str) -> Result<Self, UnitError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(UnitError::Malformed);
        }
        let whole = match whole.trim_start_matches('0') {
            "" => 0,
            digits => digits.parse().map_err(|_| UnitError::TooLarge)?,
        };
        let fraction = fraction.trim_end_matches('0');
        let fraction = &fraction[..fraction.len().min(18)];
        let scale = 10u64.pow(fraction.len() as u32);
        let fraction = match fraction {
            "" => 0,
            digits => digits.parse().map_err(|_| UnitError::Malformed)?,
        };
        Ok(Self {
            whole,
            fraction,
            scale,
        })
    }

    fn is_zero(&self) -> bool {
        self.whole == 0 && self.fraction == 0
    }

    fn times(&self, unit: u64) -> Result<u64, UnitError> {
        let unit = u128::from(unit);
        let part = u128::from(self.fraction) * unit / u128::from(self.scale);
        let sum = u128::from(self.whole) * unit + part;
        u64::try_from(sum).map_err(|_| UnitError::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check_advance(from: u64, by: u64, want: Option<u64>) {
        let got = Offset::new(from).advance(ByteLen::new(by));
        assert_eq!(got, want.map(Offset::new), "{from} + {by}");
        if let Some(to) = got {
            assert_eq!(to.since(Offset::new(from)), Some(ByteLen::new(by)));
        }
    }

    #[test]
    fn offset_stops_at_the_end_of_u64() {
        check_advance(0, 0, Some(0));
        check_advance(5, 7, Some(12));
        check_advance(u64::MAX, 0, Some(u64::MAX));
        check_advance(u64::MAX, 1, None);
        assert_eq!(Offset::new(1).since(Offset::new(2)), None);
    }

    #[test]
    fn binary_sizes_are_powers_of_1024() {
        use BinarySize::{Bytes, Infinite};
        for (text, want) in [
            ("0", Ok(Bytes(0))),
            ("4_096", Ok(Bytes(4096))),
            (" 100g ", Ok(Bytes(100 * GIB))),
            ("100G", Ok(Bytes(100 * GIB))),
            ("10gb", Ok(Bytes(10 * GIB))),
            ("1.5t", Ok(Bytes(1536 * GIB))),
            ("1.5 GiB", Ok(Bytes(1536 * MIB))),
            ("2 kibytes", Ok(Bytes(2048))),
            ("1 byte", Ok(Bytes(1))),
            ("536870912.000000", Ok(Bytes(512 * MIB))),
            (".5k", Ok(Bytes(512))),
            ("1.0001k", Ok(Bytes(1024))),
            ("15e", Ok(Bytes(15 << 60))),
            ("0z", Ok(Bytes(0))),
            ("inf", Ok(Infinite)),
            ("Infinity", Ok(Infinite)),
            ("INFINITE", Ok(Infinite)),
            ("1.5", Err(UnitError::Fraction)),
            ("", Err(UnitError::Empty)),
            ("-1", Err(UnitError::Negative)),
            ("abc", Err(UnitError::Malformed)),
            ("g", Err(UnitError::Malformed)),
            ("1q", Err(UnitError::Malformed)),
            ("1gg", Err(UnitError::Malformed)),
            ("1..5g", Err(UnitError::Malformed)),
            ("1é", Err(UnitError::Malformed)),
            ("16e", Err(UnitError::TooLarge)),
            ("1y", Err(UnitError::TooLarge)),
            ("18446744073709551616", Err(UnitError::TooLarge)),
        ] {
            assert_eq!(parse_binary_size(text), want, "{text:?}");
        }
    }

    #[test]
    fn binary_sizes_print_with_two_decimals_at_most() {
        for (bytes, want) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (1300, "1.27 KiB"),
            (100 * GIB, "100 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(BinarySize::Bytes(bytes).to_string(), want);
        }
        assert_eq!(BinarySize::Infinite.to_string(), "inf");
    }

    #[test]
    fn log_sizes_are_decimal_unless_they_say_ib() {
        for (text, want) in [
            ("10M", Ok(10_000_000)),
            ("10MB", Ok(10_000_000)),
            ("10MiB", Ok(10 * MIB)),
            ("1.5kb", Ok(1500)),
            ("7", Ok(7)),
            ("7 b", Ok(7)),
            ("10zib", Err(UnitError::Malformed)),
            ("10 mega", Err(UnitError::Malformed)),
            ("-1", Err(UnitError::Negative)),
        ] {
            assert_eq!(parse_decimal_size(text), want, "{text:?}");
        }
    }

    #[test]
    fn durations_have_units_and_no_sign() {
        for (text, want) in [
            ("86400", Ok(86_400_000)),
            ("1d", Ok(86_400_000)),
            ("1.5h", Ok(5_400_000)),
            ("2w", Ok(14 * 86_400_000)),
            ("0.25s", Ok(250)),
            ("3m", Ok(180_000)),
            ("1mo", Ok(30 * 86_400_000)),
            ("1yr", Ok(365 * 86_400_000)),
            ("1.5mo", Err(UnitError::Malformed)),
            ("", Err(UnitError::Empty)),
            ("  ", Err(UnitError::Empty)),
            ("-1", Err(UnitError::Negative)),
            ("1y", Err(UnitError::Malformed)),
            ("d", Err(UnitError::Malformed)),
        ] {
            assert_eq!(
                parse_duration(text),
                want.map(Duration::from_millis),
                "{text:?}"
            );
        }
    }
}
