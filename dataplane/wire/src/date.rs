//! HTTP dates: seconds since 1970 to text and back.
//!
//! Laws
//! - Output is always an IMF-fixdate of 29 bytes. Years outside 1 to 9999 are clamped: a file
//!   may carry any time, a header may not.
//! - Input may be any of the three forms of RFC 9110. The day name must be one, but need not
//!   fit the date: the original never looked at it.
//! - Two-digit years from 70 on are of the 1900s. RFC 9110 would slide that border with the
//!   clock; no clock is read here, and no client has sent this form for decades.
//!
//! Source: RFC 9110 §5.6.7. Day arithmetic: the proleptic Gregorian calendar, counted in years
//! that begin with March so that the leap day comes last.

const DAY_S: i64 = 86_400;
/// 0001-01-01T00:00:00Z.
const FIRST_S: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z.
const LAST_S: i64 = 253_402_300_799;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAYS_LONG: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A day and a time of day, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub year: i64,
    /// 1 to 12
    pub month: u8,
    /// 1 to 31
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    /// 0 is Monday.
    pub weekday: u8,
}

/// Writes `unix_s` as IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn format(unix_s: i64) -> String {
    let at = Civil::from_unix(unix_s.clamp(FIRST_S, LAST_S));
    format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        DAYS[usize::from(at.weekday)],
        at.day,
        MONTHS[usize::from(at.month) - 1],
        at.year,
        at.hour,
        at.minute,
        at.second,
    )
}

/// The second to send as `Last-Modified` for a file modified at `mtime_s` plus `mtime_ns`
/// nanoseconds: the next full one.
///
/// Rounding up keeps `mtime <= date` true for a client that sends the header back, on which
/// resumed downloads rely.
pub const fn last_modified(mtime_s: i64, mtime_ns: u32) -> i64 {
    if mtime_ns == 0 {
        mtime_s
    } else {
        mtime_s.saturating_add(1)
    }
}

/// Reads a date in any of the three forms. `None` if it is none of them, or no real date.
pub fn parse(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value)
        .ok()
        .filter(|text| text.is_ascii())?;
    match text.split_once(", ") {
        Some((day, rest)) if DAYS.contains(&day) => parse_imf(rest),
        Some((day, rest)) if DAYS_LONG.contains(&day) => parse_rfc850(rest),
        Some(_) => None,
        None => parse_asctime(text),
    }
}

/// `06 Nov 1994 08:49:37 GMT`
fn parse_imf(text: &str) -> Option<i64> {
    let [day, month, year, time] = fields(text.strip_suffix(" GMT")?, ' ')?;
    unix(number(year, 4)?, month_of(month)?, number(day, 2)?, time)
}

/// `06-Nov-94 08:49:37 GMT`
fn parse_rfc850(text: &str) -> Option<i64> {
    let [date, time] = fields(text.strip_suffix(" GMT")?, ' ')?;
    let [day, month, year] = fields(date, '-')?;
    let year = match number(year, 2)? {
        year @ 70.. => 1900 + year,
        year => 2000 + year,
    };
    unix(year, month_of(month)?, number(day, 2)?, time)
}

/// `Sun Nov  6 08:49:37 1994`
fn parse_asctime(text: &str) -> Option<i64> {
    let (weekday, rest) = text.split_at_checked(4)?;
    if !DAYS.contains(&weekday.strip_suffix(' ')?) {
        return None;
    }
    let (month, rest) = rest.split_at_checked(4)?;
    let (day, rest) = rest.split_at_checked(3)?;
    let day = day.strip_suffix(' ')?;
    let day = match day.strip_prefix(' ') {
        Some(digit) => number(digit, 1)?,
        None => number(day, 2)?,
    };
    let [time, year] = fields(rest, ' ')?;
    unix(
        number(year, 4)?,
        month_of(month.strip_suffix(' ')?)?,
        day,
        time,
    )
}

/// Splits into exactly `N` parts.
fn fields<const N: usize>(text: &str, separator: char) -> Option<[&str; N]> {
    let mut parts = text.split(separator);
    let mut out = [""; N];
    for slot in &mut out {
        *slot = parts.next()?;
    }
    parts.next().is_none().then_some(out)
}

/// A number of exactly `digits` digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let sound = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    sound.then(|| text.parse().ok()).flatten()
}

fn month_of(name: &str) -> Option<i64> {
    let at = MONTHS.iter().position(|month| *month == name)?;
    i64::try_from(at + 1).ok()
}

fn unix(year: i64, month: i64, day: i64, time: &str) -> Option<i64> {
    let [hour, minute, second] = fields(time, ':')?;
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    if day < 1 || days_in_month(year, month) < day || 23 < hour || 59 < minute || 60 < second {
        return None;
    }
    // A leap second is the second before it: no file system can store one.
    let second = second.min(59);
    Some(days_from_civil(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

impl Civil {
    /// Shape: `unix_s` lies within the years 1 to 9999; callers clamp.
    pub(crate) fn from_unix(unix_s: i64) -> Self {
        assert!(FIRST_S <= unix_s);
        assert!(unix_s <= LAST_S);
        let days = unix_s.div_euclid(DAY_S);
        let second_of_day = unix_s.rem_euclid(DAY_S);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        // Each value is smaller than 60 by its divisor.
        let small = |value: i64| value as u8;
        Self {
            year,
            month: small(month),
            day: small(day_of_year - (153 * month_from_march + 2) / 5 + 1),
            hour: small(second_of_day / 3600),
            minute: small(second_of_day / 60 % 60),
            second: small(second_of_day % 60),
            // 1970-01-01 was a Thursday, which is 3.
            weekday: small((days + 3).rem_euclid(7)),
        }
    }
}
