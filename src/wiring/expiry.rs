//! When a certificate ends: the one field of it that nothing else here reads.
//!
//! Source: RFC 5280, 4.1; DER as in X.690.

/// Tags of DER.
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// Seconds since 1970 at which a certificate ends; `None` for what is none.
pub fn not_after(certificate: &[u8]) -> Option<i64> {
    let (body, _) = inside(certificate, SEQUENCE)?;
    let (mut fields, _) = inside(body, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        (_, fields) = inside(fields, VERSION)?;
    }
    // Serial number, algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, fields) = inside(fields, tag)?;
    }
    let (validity, _) = inside(fields, SEQUENCE)?;
    let (_, after) = any(validity).map(|(_, _, rest)| ((), rest))?;
    let (tag, text, _) = any(after)?;
    seconds(tag, std::str::from_utf8(text).ok()?)
}

/// The content of the first element, which has this tag, and what follows it.
fn inside(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of the first element, and what follows it.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, mut bytes) = bytes.split_first()?;
    let mut length = usize::from(first);
    if 0x80 <= first {
        let count = usize::from(first & 0x7f);
        let digits = bytes.get(..count).filter(|_| (1..=4).contains(&count))?;
        length = digits
            .iter()
            .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        bytes = &bytes[count..];
    }
    let content = bytes.get(..length)?;
    Some((tag, content, &bytes[length..]))
}

/// `YYMMDDHHMMSSZ`, with years from 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn seconds(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z')?;
    let full = match (tag, digits.len()) {
        (UTC_TIME, 12) if "50" <= digits => format!("19{digits}"),
        (UTC_TIME, 12) => format!("20{digits}"),
        (GENERALIZED_TIME, 14) => digits.to_owned(),
        _ => return None,
    };
    let at = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", &full).ok()?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(at.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_forms() {
        for (tag, text, want) in [
            (UTC_TIME, "700101000001Z", Some(1)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "40960101000000Z", Some(67_090_118_400)),
            (UTC_TIME, "20500101000000Z", None),
            (GENERALIZED_TIME, "700101000001Z", None),
            (UTC_TIME, "701301000001Z", None),
            (UTC_TIME, "700101000001", None),
            (INTEGER, "700101000001Z", None),
        ] {
            assert_eq!(seconds(tag, text), want, "{tag:#x} {text}");
        }
    }

    #[test]
    fn what_is_cut_or_no_certificate_has_no_end() {
        let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]);
        let der = made.expect("a certificate").cert.der().to_vec();
        // The default of its maker.
        assert_eq!(not_after(&der), Some(67_090_118_400));
        for length in 0..der.len() {
            assert_eq!(not_after(&der[..length]), None, "{length} bytes");
        }
        assert_eq!(not_after(b"-----BEGIN CERTIFICATE-----"), None);
    }
}
