//! Names that an archive is offered under.
//!
//! Laws
//! - A name that passes can stand in a header and on any desktop: no separators, no controls.
//!
//! Source: client contract 4.

/// Characters, not bytes, that a name may have.
pub const ARCHIVE_NAME_CHARS_MAX: usize = 255;

/// Checks the `filename` of an archive token, when it is minted and again when it is used.
///
/// # Errors
/// The text says which rule the name breaks.
pub fn check_archive_name(name: &str) -> Result<(), String> {
    let broken = if name.trim().is_empty() {
        "must not be blank"
    } else if name.chars().count() > ARCHIVE_NAME_CHARS_MAX {
        "must not be longer than 255 characters"
    } else if name.chars().any(char::is_control) {
        "must not contain control characters"
    } else if name.contains(['/', '\\']) {
        "must not contain path separators"
    } else if matches!(name, "." | "..") {
        "must not be a directory reference"
    } else {
        return Ok(());
    };
    Err(broken.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_names_stay_names() {
        for (name, fits) in [
            ("archive.zip", true),
            ("한글 파일.zip", true),
            ("a\"b.zip", true),
            ("...", true),
            (&"é".repeat(255), true),
            (&"é".repeat(256), false),
            ("", false),
            ("  ", false),
            (".", false),
            ("..", false),
            ("a/b", false),
            ("a\\b", false),
            ("a\nb", false),
            ("a\u{7f}", false),
            ("a\u{85}", false),
        ] {
            assert_eq!(check_archive_name(name).is_ok(), fits, "{name:?}");
        }
    }
}
