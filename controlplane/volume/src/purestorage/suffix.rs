//! Names of snapshots as suffixes, of which an array takes 63 letters, digits and hyphens.
//!
//! A suffix says whose snapshot it is, when it ends and what it is called:
//!
//! ```text
//! p<folder>-name              name without dots
//! e<folder><ends>-name        and it ends
//! d<folder><dots>-na-me       dots are hyphens here, <dots> says where they were
//! b<folder><ends><dots>-na-me both
//! ```
//!
//! Laws
//! - What was made is read back as it was made, and what others made is not read at all.
//! - 10 digits to the base of 62 tell folders of a volume apart: 59 bits of a random number.

use proxy_core::id::VFolderId;

use crate::snapshot::SnapshotName;
use crate::stamp::Stamp;

const BYTES_MAX: usize = 63;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const FOLDER_DIGITS: usize = 10;
/// Seconds until the year 3769.
const ENDS_DIGITS: usize = 6;
/// 40 bits.
const DOTS_DIGITS: usize = 7;

fn encode(mut number: u64, digits: usize) -> String {
    let mut text = vec![b'0'; digits];
    for place in text.iter_mut().rev() {
        *place = DIGITS[(number % 62) as usize];
        number /= 62;
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn decode(text: &str) -> Option<u64> {
    text.bytes().try_fold(0_u64, |number, byte| {
        let digit = DIGITS.iter().position(|other| *other == byte)? as u64;
        number.checked_mul(62)?.checked_add(digit)
    })
}

fn folder(vfid: VFolderId) -> String {
    let whole = vfid.folder.as_u128();
    encode((whole as u64) ^ ((whole >> 64) as u64), FOLDER_DIGITS)
}

/// The suffix for a snapshot; `None` when it would be longer than the array takes.
pub(super) fn make(vfid: VFolderId, name: &SnapshotName, ends: Option<Stamp>) -> Option<String> {
    let name = name.as_str();
    let bytes = name.bytes().enumerate();
    let dots = bytes.fold(0_u64, |dots, (at, byte)| {
        dots | u64::from(byte == b'.') << at
    });
    let kind = match (ends.is_some(), dots != 0) {
        (false, false) => 'p',
        (true, false) => 'e',
        (false, true) => 'd',
        (true, true) => 'b',
    };
    let mut text = format!("{kind}{}", folder(vfid));
    if let Some(ends) = ends {
        let seconds = u64::try_from(ends.unix_ns / 1_000_000_000).unwrap_or(0);
        text += &encode(seconds, ENDS_DIGITS);
    }
    if dots != 0 {
        text += &encode(dots, DOTS_DIGITS);
    }
    text.push('-');
    text += &name.replace('.', "-");
    (text.len() <= BYTES_MAX).then_some(text)
}

/// What a suffix of a snapshot of this folder says; `None` for all others.
pub(super) fn read(vfid: VFolderId, suffix: &str) -> Option<(SnapshotName, Option<Stamp>)> {
    let kind = suffix.get(..1)?;
    let (has_ends, has_dots) = match kind {
        "p" => (false, false),
        "e" => (true, false),
        "d" => (false, true),
        "b" => (true, true),
        _ => return None,
    };
    let mut rest = suffix.get(1..)?.strip_prefix(&folder(vfid))?;
    let mut take = |digits: usize| {
        let number = decode(rest.get(..digits)?)?;
        rest = rest.get(digits..)?;
        Some(number)
    };
    let ends = if has_ends {
        Some(take(ENDS_DIGITS)?)
    } else {
        None
    };
    let dots = if has_dots { take(DOTS_DIGITS)? } else { 0 };
    let name = rest.strip_prefix('-')?.chars().enumerate();
    let name: String = name
        .map(|(at, c)| {
            if at < 64 && dots >> at & 1 == 1 {
                '.'
            } else {
                c
            }
        })
        .collect();
    let ends = ends.map(|seconds| Stamp {
        unix_ns: i128::from(seconds) * 1_000_000_000,
    });
    Some((SnapshotName::parse(&name)?, ends))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vfid(last: char) -> VFolderId {
        let scope = "user:11111111-2222-3333-4444-555555555555";
        VFolderId::parse(&format!("{scope}/0123456789abcdef0123456789abcde{last}")).unwrap()
    }

    #[test]
    fn suffixes_are_read_as_they_were_made() {
        let ends = Some(Stamp {
            unix_ns: 1_795_332_601_000_000_000,
        });
        let long = "a".repeat(40);
        let dotted = format!("a{}a", ".".repeat(37));
        for (name, ends) in [
            ("a", None),
            ("a", ends),
            ("before-upgrade.2", None),
            ("before-upgrade.2", ends),
            (long.as_str(), ends),
            (dotted.as_str(), None),
        ] {
            let name = SnapshotName::parse(name).unwrap();
            let text = make(vfid('0'), &name, ends).expect("short enough");
            assert!(text.len() <= BYTES_MAX, "{text}");
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            assert!(text.bytes().all(fits), "{text}");
            assert_eq!(read(vfid('0'), &text), Some((name, ends)), "{text}");
            assert_eq!(read(vfid('1'), &text), None, "another folder's");
        }
        let name = SnapshotName::parse(&format!("a.{}", "a".repeat(38))).unwrap();
        assert_eq!(
            make(vfid('0'), &name, ends),
            None,
            "too long with an end and dots"
        );
        for stranger in ["", "daily.2026-01-01", "p", "pé", "p0000000000-a"] {
            assert_eq!(read(vfid('0'), stranger), None, "{stranger}");
        }
    }
}
