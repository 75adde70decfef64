//! Times of files, printed as the listing prints them.
//!
//! Source: `isoformat()` of an aware UTC datetime: `+00:00`, microseconds only when not zero.

use std::fmt;

/// Nanoseconds since 1970, UTC. Prints as ISO 8601; years outside -9999..=9999 print as the bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Nanoseconds since the epoch; negative before it.
    pub unix_ns: i128,
}

impl Stamp {
    /// The present.
    pub fn now() -> Self {
        Self {
            unix_ns: jiff::Timestamp::now().as_nanosecond(),
        }
    }

    /// Whole seconds since the epoch, not before it: what ends then does not end early.
    pub(crate) fn seconds_up(self) -> i128 {
        const SECOND_NS: i128 = 1_000_000_000;
        let begun = self.unix_ns.rem_euclid(SECOND_NS) != 0;
        self.unix_ns.div_euclid(SECOND_NS) + i128::from(begun)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_nanosecond(self.unix_ns).unwrap_or(if self.unix_ns < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        });
        let time = time.to_zoned(jiff::tz::TimeZone::UTC).datetime();
        write!(
            f,
            "{:04}-{:02}-{:02}",
            time.year(),
            time.month(),
            time.day()
        )?;
        write!(
            f,
            "T{:02}:{:02}:{:02}",
            time.hour(),
            time.minute(),
            time.second()
        )?;
        match time.subsec_nanosecond() / 1000 {
            0 => f.write_str("+00:00"),
            micros => write!(f, ".{micros:06}+00:00"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_print_like_isoformat() {
        for (unix_ns, want) in [
            (0, "1970-01-01T00:00:00+00:00"),
            (999, "1970-01-01T00:00:00+00:00"),
            (1_000, "1970-01-01T00:00:00.000001+00:00"),
            (
                1_795_332_601_123_456_789,
                "2026-11-22T07:30:01.123456+00:00",
            ),
            (
                1_795_332_601_500_000_000,
                "2026-11-22T07:30:01.500000+00:00",
            ),
            (-500_000_000, "1969-12-31T23:59:59.500000+00:00"),
            (i128::MAX, "9999-12-30T22:00:00.999999+00:00"),
        ] {
            assert_eq!(Stamp { unix_ns }.to_string(), want);
        }
    }
}
