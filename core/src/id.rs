//! Identifiers: quota scopes, vfolders, upload sessions, background tasks.
//!
//! Laws
//! - Reading is liberal as the original's Manager sends it; printing is canonical, so that equal
//!   identifiers have equal text.
//! - The directories of an identifier consist of lower-case hex digits only.
//! - A session identifier is 128 random bits: it cannot be guessed.
//!
//! Source: contract 3.1 and 3.2.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use uuid::Uuid;

/// Pattern that the text of a quota scope must fit; part of a failure text.
const SCOPE_PATTERN: &str = "^[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*:[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*$";

/// Why a text is no identifier. The text is the one that parameter failures carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdError {
    /// No quota scope, and not a UUID in any spelling.
    #[error("cannot convert value to UUID")]
    NotUuid,
    /// The scoped form, with a part that does not parse.
    #[error("cannot convert value to VFolderID")]
    NotVFolderId,
    /// Text outside the alphabet of quota scopes.
    #[error("does not match pattern {SCOPE_PATTERN}")]
    ScopePattern,
    /// The alphabet fits, but the type is unknown or the rest is not a UUID.
    #[error("cannot convert value to QuotaScopeID")]
    BadScope,
    /// Not 32 hex digits.
    #[error("value is not a session identifier")]
    NotSession,
    /// Not the identifier of a background task.
    #[error("value is not a task identifier")]
    NotTask,
}

/// Whom a quota scope belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScopeKind {
    /// One person.
    User,
    /// A group of people.
    Project,
}

impl ScopeKind {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Project => "project",
        }
    }
}

/// The owner that vfolders and their quota belong to.
///
/// On disk only the UUID counts: a user and a project of one UUID share a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaScopeId {
    /// User or project.
    pub kind: ScopeKind,
    /// Which one.
    pub uuid: Uuid,
}

impl QuotaScopeId {
    /// Reads `<type>:<uuid>`, the type in any letter case, the UUID in any spelling.
    ///
    /// # Errors
    /// [`IdError::ScopePattern`] or [`IdError::BadScope`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let (kind, uuid) = text.split_once(':').ok_or(IdError::ScopePattern)?;
        if !fits_pattern(kind) || !fits_pattern(uuid) {
            return Err(IdError::ScopePattern);
        }
        let kind = match kind.to_ascii_lowercase().as_str() {
            "user" => ScopeKind::User,
            "project" => ScopeKind::Project,
            _ => return Err(IdError::BadScope),
        };
        let uuid = parse_uuid_liberal(uuid).ok_or(IdError::BadScope)?;
        Ok(Self { kind, uuid })
    }

    /// The name of its directory below the mount path: 32 hex digits.
    pub fn dir_name(&self) -> String {
        self.uuid.simple().to_string()
    }
}

impl fmt::Display for QuotaScopeId {
    /// `user:11111111-2222-3333-4444-555555555555`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.uuid.hyphenated())
    }
}

/// Names one vfolder of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VFolderId {
    /// Absent for folders from before quota scopes existed.
    pub scope: Option<QuotaScopeId>,
    /// The folder itself.
    pub folder: Uuid,
}

impl VFolderId {
    /// Reads `<quota scope>/<uuid>` or, for legacy folders, `<uuid>`.
    ///
    /// # Errors
    /// [`IdError::NotUuid`] for the legacy form, [`IdError::NotVFolderId`] for the scoped one.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let (scope, folder) = match text.split_once('/') {
            None | Some((_, "")) => {
                let alone = text.strip_suffix('/').unwrap_or(text);
                let folder = parse_uuid_liberal(alone).ok_or(IdError::NotUuid)?;
                return Ok(Self {
                    scope: None,
                    folder,
                });
            }
            Some(parts) => parts,
        };
        let scope = QuotaScopeId::parse(scope).map_err(|_| IdError::NotVFolderId)?;
        let folder = parse_uuid_liberal(folder).ok_or(IdError::NotVFolderId)?;
        Ok(Self {
            scope: Some(scope),
            folder,
        })
    }

    /// Directory names from the mount path down to the folder: `[scope,] aa, bb, rest`.
    pub fn components(&self) -> Vec<String> {
        let hex = self.folder.simple().to_string();
        let mut parts = Vec::with_capacity(4);
        parts.extend(self.scope.map(|scope| scope.dir_name()));
        parts.extend([&hex[..2], &hex[2..4], &hex[4..]].map(str::to_owned));
        parts
    }
}

impl fmt::Display for VFolderId {
    /// `user:11111111-2222-3333-4444-555555555555/aabbccddeeff00112233445566778899`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scope) = &self.scope {
            write!(f, "{scope}/")?;
        }
        write!(f, "{}", self.folder.simple())
    }
}

/// Names one upload: 128 random bits, 32 hex digits in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// Draws a new identifier from the system's random source.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("getrandom(2) works on every supported kernel");
        Self(bytes)
    }

    /// The identifier whose text is the hex digits of `bytes`.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bits behind the text.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads exactly 32 hex digits, lower or upper case.
    ///
    /// # Errors
    /// [`IdError::NotSession`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        hex_digits(text)
            .map(|bits| Self(bits.to_be_bytes()))
            .ok_or(IdError::NotSession)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Names one background task; dashed in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Uuid);

impl TaskId {
    /// Draws a new identifier from the system's random source.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Reads a UUID in any spelling.
    ///
    /// # Errors
    /// [`IdError::NotTask`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        parse_uuid_liberal(text).map(Self).ok_or(IdError::NotTask)
    }

    /// The UUID itself.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for TaskId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Reads a UUID as the original does: any letter case, dashes anywhere or nowhere, enclosing
/// braces and the prefixes `urn:` and `uuid:` dropped; then exactly 32 hex digits remain.
pub fn parse_uuid_liberal(text: &str) -> Option<Uuid> {
    // Longer than any spelling with a dash after every digit: not worth copying.
    if text.len() > 128 {
        return None;
    }
    let bare = text.replace("urn:", "").replace("uuid:", "");
    let bare = bare.trim_matches(['{', '}']).replace('-', "");
    hex_digits(&bare).map(Uuid::from_u128)
}

/// Exactly 32 hex digits as a number.
fn hex_digits(text: &str) -> Option<u128> {
    let fits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// Runs of ASCII letters and digits joined by single `_` or `-`.
fn fits_pattern(text: &str) -> bool {
    text.split(['_', '-'])
        .all(|run| !run.is_empty() && run.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Serialises as canonical text, deserialises by `parse`.
macro_rules! serde_as_text {
    ($($name:ident),+) => {$(
        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(from)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    )+};
}

serde_as_text!(QuotaScopeId, VFolderId, SessionId, TaskId);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SCOPE: &str = "user:11111111-2222-3333-4444-555555555555";
    const FOLDER: &str = "aabbccddeeff00112233445566778899";

    #[test]
    fn uuids_are_read_liberally() {
        let hex32 = "11111111222233334444555555555555";
        for (text, fits) in [
            (hex32.to_owned(), true),
            (hex32.to_uppercase(), true),
            ("11111111-2222-3333-4444-555555555555".to_owned(), true),
            (format!("{{{hex32}}}"), true),
            (format!("urn:uuid:{hex32}"), true),
            (format!("uuid:{hex32}"), true),
            (format!("-1-{}-", &hex32[1..]), true),
            (format!(" {hex32}"), false),
            (format!("{hex32} "), false),
            (format!("{hex32}0"), false),
            (hex32[1..].to_owned(), false),
            (format!("+{}", &hex32[1..]), false),
            (format!("g{}", &hex32[1..]), false),
            (String::new(), false),
            ("é".repeat(16), false),
            ("-".repeat(200) + hex32, false),
        ] {
            let want = fits.then(|| Uuid::parse_str(hex32).unwrap());
            assert_eq!(parse_uuid_liberal(&text), want, "{text:?}");
        }
    }

    #[test]
    fn quota_scopes_have_one_canonical_text() {
        for (text, want) in [
            (SCOPE, Ok(SCOPE)),
            ("USER:11111111222233334444555555555555", Ok(SCOPE)),
            ("user:1-1111111222233334444555555555555", Ok(SCOPE)),
            (
                "Project:AABBCCDD-eeff-0011-2233-445566778899",
                Ok("project:aabbccdd-eeff-0011-2233-445566778899"),
            ),
            (
                "nope:11111111222233334444555555555555",
                Err(IdError::BadScope),
            ),
            ("user:abc", Err(IdError::BadScope)),
            ("user", Err(IdError::ScopePattern)),
            ("user:", Err(IdError::ScopePattern)),
            (":abc", Err(IdError::ScopePattern)),
            ("user:a:b", Err(IdError::ScopePattern)),
            (
                "user:{11111111222233334444555555555555}",
                Err(IdError::ScopePattern),
            ),
            ("user:a--b", Err(IdError::ScopePattern)),
            ("../x:abc", Err(IdError::ScopePattern)),
        ] {
            let got = QuotaScopeId::parse(text).map(|scope| scope.to_string());
            assert_eq!(got, want.map(str::to_owned), "{text:?}");
        }
        let scope = QuotaScopeId::parse(SCOPE).unwrap();
        assert_eq!(scope.dir_name(), "11111111222233334444555555555555");
    }

    #[test]
    fn vfolder_ids_have_one_canonical_text() {
        let scoped = format!("{SCOPE}/{FOLDER}");
        for (text, want) in [
            (scoped.clone(), Ok(scoped.as_str())),
            (
                format!("{SCOPE}/{{AABBCCDD-eeff-0011-2233-445566778899}}"),
                Ok(scoped.as_str()),
            ),
            (FOLDER.to_uppercase(), Ok(FOLDER)),
            (format!("{FOLDER}/"), Ok(FOLDER)),
            ("zz".to_owned(), Err(IdError::NotUuid)),
            (String::new(), Err(IdError::NotUuid)),
            (SCOPE.to_owned(), Err(IdError::NotUuid)),
            (format!("{SCOPE}/zz"), Err(IdError::NotVFolderId)),
            (format!("{SCOPE}/"), Err(IdError::NotUuid)),
            (format!("/{FOLDER}"), Err(IdError::NotVFolderId)),
            (format!("foo/{FOLDER}"), Err(IdError::NotVFolderId)),
            (format!("{SCOPE}/{FOLDER}/x"), Err(IdError::NotVFolderId)),
        ] {
            let got = VFolderId::parse(&text).map(|id| id.to_string());
            assert_eq!(got, want.map(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn vfolder_ids_name_their_directories() {
        let id = VFolderId::parse(&format!("{SCOPE}/{FOLDER}")).unwrap();
        let rest = "ddeeff00112233445566778899".to_owned();
        let rest = format!("cc{rest}");
        assert_eq!(
            id.components(),
            ["11111111222233334444555555555555", "aa", "bb", &rest]
        );
        let legacy = VFolderId::parse(FOLDER).unwrap();
        assert_eq!(legacy.components(), ["aa", "bb", &rest]);
        assert_eq!(rest.len(), 28);
    }

    #[test]
    fn identifiers_travel_as_text() {
        let id = VFolderId::parse(&format!("{SCOPE}/{FOLDER}")).unwrap();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{SCOPE}/{FOLDER}\""));
        assert_eq!(serde_json::from_str::<VFolderId>(&json).unwrap(), id);
        assert!(serde_json::from_str::<VFolderId>("\"zz\"").is_err());
        assert!(serde_json::from_str::<VFolderId>("7").is_err());
    }

    #[test]
    fn sessions_and_tasks_round_trip() {
        let session = SessionId::random();
        let text = session.to_string();
        assert_eq!(text.len(), 32);
        assert_eq!(SessionId::parse(&text), Ok(session));
        assert_eq!(SessionId::parse(&text.to_uppercase()), Ok(session));
        assert_ne!(session, SessionId::random());
        for bad in [
            "",
            "..",
            &text[1..],
            &format!("{text}0"),
            &format!("/{}", &text[1..]),
        ] {
            assert_eq!(SessionId::parse(bad), Err(IdError::NotSession), "{bad:?}");
        }
        let task = TaskId::random();
        assert_eq!(TaskId::parse(&task.to_string()), Ok(task));
        assert_eq!(TaskId::parse("x"), Err(IdError::NotTask));
    }
}
