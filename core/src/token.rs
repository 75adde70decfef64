//! The three tokens that let a client move bytes: download, upload, archive download.
//!
//! Laws
//! - Minted text is what the original mints: header, claim order, escapes, no padding. A proxy of
//!   either kind that shares the secret accepts it.
//! - Verification ends in claims that are valid in themselves, or in a reason. The signature is
//!   checked before any claim is looked at, in constant time.
//! - A token without `exp` is refused: the original accepts some for ever.
//! - A secret never prints.
//!
//! Source: contract 6; RFC 7515, RFC 7519.

mod jws;

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::filename::check_archive_name;
use crate::grammar::{self, Check, Checked, failure};
use crate::id::{SessionId, VFolderId};
use crate::relpath::RelPath;

/// A key or a password: comparable in constant time, never printed.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Secret {
    text: String,
    /// The key, mixed in already: a third of the work for a short message.
    keyed: jws::Keyed,
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let keyed = jws::Keyed::new(text.as_bytes());
        Self { text, keyed }
    }

    /// The bytes themselves; keep them out of logs and errors.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Whether `other` is the secret. The time taken tells nothing, not even about the length.
    pub fn eq_constant_time(&self, other: &[u8]) -> bool {
        let digests = (jws::sha256(self.as_bytes()), jws::sha256(other));
        digests.0.ct_eq(&digests.1).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not three segments of what they should be; the text says which one is broken.
    #[error("{0}")]
    Malformed(String),
    /// Signed with another key, or changed since.
    #[error("Signature verification failed")]
    BadSignature,
    /// Not HS256.
    #[error("The specified alg value is not allowed")]
    WrongAlgorithm,
    /// `exp` has passed.
    #[error("Signature has expired")]
    Expired,
    /// `nbf` or `iat` lies in the future.
    #[error("The token is not yet valid (nbf)")]
    NotYetValid,
    /// Meant for somebody else: these tokens have no audience.
    #[error("Invalid audience")]
    Audience,
    /// No `exp`.
    #[error("Token is missing the \"exp\" claim")]
    MissingExpiry,
    /// Genuine, but not a token of this kind: `{claim: failure}`.
    #[error("claims do not fit")]
    Claims(Value),
}

impl TokenError {
    /// The wording that clients of the original know. The only error texts with capitals.
    pub fn text(&self) -> String {
        self.to_string()
    }

    /// What `data.token` of a parameter failure holds.
    pub fn failure(&self) -> Value {
        match self {
            Self::Claims(failures) => failures.clone(),
            other => failure(&format!("cannot decode the given value as JWT: {other}")),
        }
    }
}

/// What a download token says: one file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadClaims {
    /// The volume, by name; it may not exist.
    pub volume: String,
    /// The vfolder.
    pub vfid: VFolderId,
    /// The file or directory in it; containment is not checked yet.
    pub relpath: RelPath,
    /// Unix seconds after which the token is dead.
    pub exp: u64,
    /// A directory to serve instead of the vfolder. Nothing mints it.
    pub unmanaged_path: Option<String>,
}

impl DownloadClaims {
    /// Signs the claims.
    pub fn mint(&self, secret: &Secret) -> String {
        let mut claims = json!({
            "op": "download",
            "volume": self.volume,
            "vfid": self.vfid,
            "relpath": self.relpath,
        });
        if let Some(path) = &self.unmanaged_path {
            claims["unmanaged_path"] = json!(path);
        }
        claims["exp"] = json!(self.exp);
        jws::sign(&claims, secret)
    }

    /// Checks signature, time and claims of a token.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(secret: &Secret, token: &str, now_unix_s: u64) -> Result<Self, TokenError> {
        let payload = jws::genuine(secret, token)?;
        if let Some(usual) = UsualDownload::read(&payload, now_unix_s) {
            return Ok(usual);
        }
        let mut claims = checked(&payload, now_unix_s)?;
        let op = claims.required("op", grammar::exactly("download"));
        let volume = claims.required("volume", grammar::string);
        let vfid = claims.required("vfid", grammar::vfolder_id);
        let relpath = claims.required("relpath", grammar::rel_path);
        let exp = claims.required("exp", expiry);
        let archive = claims.optional("archive", grammar::bool_strict);
        let unmanaged =
            claims.defaulted("unmanaged_path", None, grammar::nullable(grammar::string));
        let fields = (op, volume, vfid, relpath, exp, archive, unmanaged);
        let ((), volume, vfid, relpath, exp, _, unmanaged_path) =
            claims.finish(fields).map_err(TokenError::Claims)?;
        Ok(Self {
            volume,
            vfid,
            relpath,
            exp,
            unmanaged_path,
        })
    }
}

/// The claims of a download token as the Manager has it minted, no more and no less: read in one
/// pass. Whatever else a payload holds, or holds differently, is for the full checks, which tell
/// what is wrong.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsualDownload<'p> {
    #[serde(borrow)]
    op: Cow<'p, str>,
    #[serde(borrow)]
    volume: Cow<'p, str>,
    #[serde(borrow)]
    vfid: Cow<'p, str>,
    #[serde(borrow)]
    relpath: Cow<'p, str>,
    exp: u64,
}

impl UsualDownload<'_> {
    /// `None`: something is unusual, or wrong.
    fn read(payload: &[u8], now_unix_s: u64) -> Option<DownloadClaims> {
        let usual: UsualDownload<'_> = serde_json::from_slice(payload).ok()?;
        if usual.op != "download" || usual.volume.is_empty() || usual.exp <= now_unix_s {
            return None;
        }
        Some(DownloadClaims {
            vfid: VFolderId::parse(&usual.vfid).ok()?,
            relpath: RelPath::parse(&usual.relpath).ok()?,
            volume: usual.volume.into_owned(),
            exp: usual.exp,
            unmanaged_path: None,
        })
    }
}

/// What an upload token says: one file of a known size, and the session that receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadClaims {
    /// The volume, by name.
    pub volume: String,
    /// The vfolder.
    pub vfid: VFolderId,
    /// Where the file will be.
    pub relpath: RelPath,
    /// Bytes to come. The original mints negative ones, too.
    pub size: i64,
    /// The upload itself.
    pub session: SessionId,
    /// Unix seconds after which the token is dead.
    pub exp: u64,
}

impl UploadClaims {
    /// Signs the claims.
    ///
    /// # Panics
    /// When `size` is negative: minting one is a mistake of the caller.
    pub fn mint(&self, secret: &Secret) -> String {
        assert!(self.size >= 0, "upload of a negative size");
        let claims = json!({
            "op": "upload",
            "volume": self.volume,
            "vfid": self.vfid,
            "relpath": self.relpath,
            "size": self.size,
            "session": self.session,
            "exp": self.exp,
        });
        jws::sign(&claims, secret)
    }

    /// Checks signature, time and claims of a token.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(secret: &Secret, token: &str, now_unix_s: u64) -> Result<Self, TokenError> {
        let mut claims = open(secret, token, now_unix_s)?;
        let op = claims.required("op", grammar::exactly("upload"));
        let volume = claims.required("volume", grammar::string);
        let vfid = claims.required("vfid", grammar::vfolder_id);
        let relpath = claims.required("relpath", grammar::rel_path);
        let size = claims.required("size", size);
        let session = claims.required("session", session);
        let exp = claims.required("exp", expiry);
        let fields = (op, volume, vfid, relpath, size, session, exp);
        let ((), volume, vfid, relpath, size, session, exp) =
            claims.finish(fields).map_err(TokenError::Claims)?;
        Ok(Self {
            volume,
            vfid,
            relpath,
            size,
            session,
            exp,
        })
    }
}

/// What an archive token says: several entries of one vfolder as one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveClaims {
    /// The volume, by name.
    pub volume: String,
    /// The vfolder.
    pub vfid: VFolderId,
    /// Entries as the Manager sent them, at least one; not checked for escapes yet.
    pub files: Vec<String>,
    /// The name to offer; absent in tokens of 26.2.
    pub filename: Option<String>,
    /// Unix seconds after which the token is dead.
    pub exp: u64,
}

impl ArchiveClaims {
    /// Signs the claims.
    pub fn mint(&self, secret: &Secret) -> String {
        let claims = json!({
            "operation": "download",
            "volume": self.volume,
            "virtual_folder_id": self.vfid,
            "files": self.files,
            "filename": self.filename,
            "exp": self.exp,
        });
        jws::sign(&claims, secret)
    }

    /// Checks signature, time and claims of a token.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(secret: &Secret, token: &str, now_unix_s: u64) -> Result<Self, TokenError> {
        let mut claims = open(secret, token, now_unix_s)?;
        let operation = claims.required("operation", grammar::exactly("download"));
        let volume = claims.required("volume", grammar::string);
        let vfid = claims.required("virtual_folder_id", grammar::vfolder_id);
        let files = claims.required("files", archive_files);
        let filename = claims.defaulted("filename", None, grammar::nullable(archive_name));
        let exp = claims.required("exp", expiry);
        let fields = (operation, volume, vfid, files, filename, exp);
        let ((), volume, vfid, files, filename, exp) =
            claims.finish(fields).map_err(TokenError::Claims)?;
        Ok(Self {
            volume,
            vfid,
            files,
            filename,
            exp,
        })
    }
}

/// A list of at least one text: the entries of an archive.
///
/// # Errors
/// The failure to report.
pub fn archive_files(value: &Value) -> Check<Vec<String>> {
    let files = grammar::list(grammar::string_or_blank)(value)?;
    if files.is_empty() {
        Err(failure("list length is less than 1"))
    } else {
        Ok(files)
    }
}

/// The name of an archive; see [`check_archive_name`].
///
/// # Errors
/// The failure to report.
pub fn archive_name(value: &Value) -> Check<String> {
    let name = grammar::string_or_blank(value)?;
    check_archive_name(&name).map_err(|text| failure(&text))?;
    Ok(name)
}

fn open(secret: &Secret, token: &str, now_unix_s: u64) -> Result<Checked, TokenError> {
    checked(&jws::genuine(secret, token)?, now_unix_s)
}

fn checked(payload: &[u8], now_unix_s: u64) -> Result<Checked, TokenError> {
    let claims = jws::claims(payload, now_unix_s)?;
    Checked::from_json(claims)
        .map(Checked::allow_extras)
        .map_err(TokenError::Claims)
}

fn size(value: &Value) -> Check<i64> {
    match value {
        Value::String(text) => grammar::python_int(text).ok_or_else(|| failure("value is not int")),
        _ => grammar::int(value),
    }
}

fn session(value: &Value) -> Check<SessionId> {
    let text = grammar::string(value)?;
    SessionId::parse(&text).map_err(|error| failure(&error.to_string()))
}

fn expiry(value: &Value) -> Check<u64> {
    value.as_u64().ok_or_else(|| failure("value is not int"))
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
