//! Relative paths as clients write them, normalised lexically.
//!
//! Laws
//! - Never absolute; empty, `.` and doubled components are gone; `..` stays, because only the
//!   file system knows what it means behind a link.
//! - Nothing here is a promise of containment: that is the business of the crate that opens names.
//! - Normalising is idempotent: the text of a path parses to the same path.
//!
//! Source: contract 3.2 (paths behave like Python's `PurePosixPath`), 4.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The directory at a vfolder's root that holds unfinished uploads. Clients never reach it.
pub const STAGING_DIR: &str = ".upload";

/// Why a text is no relative path. The text is the one that parameter failures carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RelPathError {
    /// It begins with a slash.
    #[error("expected relative path but the value is absolute")]
    Absolute,
}

/// A normalised path relative to some root, `.` for the root itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(String);

impl RelPath {
    /// Normalises `text`; `""` and `"."` are the root.
    ///
    /// # Errors
    /// [`RelPathError::Absolute`].
    pub fn parse(text: &str) -> Result<Self, RelPathError> {
        if text.starts_with('/') {
            return Err(RelPathError::Absolute);
        }
        Ok(Self::from_components(text.split('/')))
    }

    /// The root itself.
    pub fn root() -> Self {
        Self(".".to_owned())
    }

    /// The normalised text, `.` for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root. `a/..` is not: only the file system could tell.
    pub fn is_root(&self) -> bool {
        self.0 == "."
    }

    /// Names from the root down; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|part| *part != ".")
    }

    /// `self/below`, joined as text: `..` components of `below` stay.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        Self::from_components(self.components().chain(below.components()))
    }

    /// The last name; `None` for the root and for a path that ends in `..`.
    pub fn file_name(&self) -> Option<&str> {
        self.components().next_back().filter(|name| *name != "..")
    }

    /// The path without its last component; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let above = self.0.rsplit_once('/').map_or(".", |(above, _)| above);
        Some(Self(above.to_owned()))
    }

    /// Whether any component is `..`.
    pub fn has_parent_refs(&self) -> bool {
        self.components().any(|part| part == "..")
    }

    /// Whether the text leads into [`STAGING_DIR`] at the root, also on a detour over `..`.
    pub fn is_reserved(&self) -> bool {
        let mut depth = 0usize;
        for part in self.components() {
            match part {
                ".." => depth = depth.saturating_sub(1),
                STAGING_DIR if depth == 0 => return true,
                _ => depth += 1,
            }
        }
        false
    }

    fn from_components<'a>(parts: impl Iterator<Item = &'a str>) -> Self {
        let mut text = String::new();
        for part in parts.filter(|part| !part.is_empty() && *part != ".") {
            if !text.is_empty() {
                text.push('/');
            }
            text.push_str(part);
        }
        if text.is_empty() {
            Self::root()
        } else {
            Self(text)
        }
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for RelPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for RelPath {
    type Err = RelPathError;

    fn from_str(text: &str) -> Result<Self, RelPathError> {
        Self::parse(text)
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    #[test]
    fn paths_normalise_like_pure_posix_paths() {
        for (text, want) in [
            ("", "."),
            (".", "."),
            ("./", "."),
            ("a", "a"),
            ("a/", "a"),
            ("a//b/./c/", "a/b/c"),
            ("./a", "a"),
            ("..", ".."),
            ("a/../b", "a/../b"),
            ("../../x", "../../x"),
            ("...", "..."),
            (" ", " "),
            ("a\n", "a\n"),
            ("한글/파일", "한글/파일"),
        ] {
            assert_eq!(path(text).as_str(), want, "{text:?}");
            assert_eq!(path(want).as_str(), want, "{want:?} again");
        }
        for text in ["/", "//", "/a", "//a"] {
            assert_eq!(
                RelPath::parse(text),
                Err(RelPathError::Absolute),
                "{text:?}"
            );
        }
    }

    #[test]
    fn paths_come_apart_into_parent_and_name() {
        for (text, name, parent) in [
            (".", None, None),
            ("a", Some("a"), Some(".")),
            ("a/b", Some("b"), Some("a")),
            ("a/..", None, Some("a")),
            ("..", None, Some(".")),
        ] {
            assert_eq!(path(text).file_name(), name, "{text:?}");
            assert_eq!(path(text).parent(), parent.map(path), "{text:?}");
        }
        assert_eq!(path("a//b").components().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(RelPath::root().components().count(), 0);
    }

    #[test]
    fn paths_join_as_text() {
        for (left, right, want) in [
            (".", ".", "."),
            (".", "a", "a"),
            ("a", ".", "a"),
            ("a", "b/c", "a/b/c"),
            ("a", "../b", "a/../b"),
        ] {
            assert_eq!(path(left).join(&path(right)).as_str(), want);
        }
    }

    #[test]
    fn the_staging_directory_is_reserved_on_every_lexical_way() {
        for (text, reserved, dotted) in [
            (".upload", true, false),
            (".upload/x", true, false),
            ("./.upload", true, false),
            ("a/../.upload/x", true, true),
            ("../.upload", true, true),
            (".upload/..", true, true),
            ("a/.upload", false, false),
            (".uploads", false, false),
            (".", false, false),
            ("a/b/../c", false, true),
        ] {
            assert_eq!(path(text).is_reserved(), reserved, "{text:?}");
            assert_eq!(path(text).has_parent_refs(), dotted, "{text:?}");
        }
    }
}
