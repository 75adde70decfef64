//! Query strings of `/`, `/download`, `/download-archive` and `/upload`.
//!
//! Laws
//! - Every fault is reported, not only the first, under the name of its parameter; of unknown
//!   keys only the first [`UNKNOWN_KEYS_REPORTED_MAX`] in alphabetical order.
//! - Of a repeated key the first value counts.
//! - Undecodable input is never an error: a stray `%` stays, bytes that are no UTF-8 become
//!   U+FFFD. Whether a value makes sense is for whoever reads it.
//! - The token is only carried here; `proxy-core` verifies it, and has the grammar of values.
//!
//! Source: the original's parameter checking.

use std::collections::BTreeMap;

use proxy_core::grammar::{parse_query, to_bool_text};

use crate::limits::UNKNOWN_KEYS_REPORTED_MAX;

/// A parameter and what is wrong with it.
pub type Failure = (String, String);

const REQUIRED: &str = "is required";
const NOT_INT: &str = "value can't be converted to int";
const NOT_BOOL: &str = "value can't be converted to Bool";
const NOT_FORMAT: &str = "value isn't one of zip, tar, tar.gz, tar.zst";
const NOT_COMPRESSION: &str = "value isn't one of store, deflate";
const ONLY_ZIP_DEFLATES: &str = "deflate is for zip; a compressed tar is a format of its own";

/// How a folder or a selection is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Package {
    /// A zip of stored members.
    #[default]
    Zip,
    /// A zip of deflated members.
    ZipDeflate,
    /// A tar.
    Tar,
    /// A tar through gzip.
    TarGz,
    /// A tar through zstd.
    TarZst,
}

impl Package {
    /// What the name of the file ends with.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Zip | Self::ZipDeflate => ".zip",
            Self::Tar => ".tar",
            Self::TarGz => ".tar.gz",
            Self::TarZst => ".tar.zst",
        }
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Zip | Self::ZipDeflate => "application/zip",
            Self::Tar => "application/x-tar",
            Self::TarGz => "application/gzip",
            Self::TarZst => "application/zstd",
        }
    }

    /// Takes `format` and `compression`.
    fn take(fields: &mut Fields) -> Self {
        let format = fields.take("format");
        let compression = fields.take("compression");
        let deflate = match compression.as_deref() {
            None | Some("store") => false,
            Some("deflate") => true,
            Some(_) => {
                fields.fail("compression", NOT_COMPRESSION.to_owned());
                return Self::Zip;
            }
        };
        let package = match format.as_deref() {
            None | Some("zip") if deflate => return Self::ZipDeflate,
            None | Some("zip") => return Self::Zip,
            Some("tar") => Self::Tar,
            Some("tar.gz") => Self::TarGz,
            Some("tar.zst") => Self::TarZst,
            Some(_) => {
                fields.fail("format", NOT_FORMAT.to_owned());
                return Self::Zip;
            }
        };
        if deflate {
            fields.fail("compression", ONLY_ZIP_DEFLATES.to_owned());
        }
        package
    }
}

/// Parameters of `GET /download` and of its HEAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadParams {
    /// The download token, not yet verified.
    pub token: String,
    /// Goes before the token's path. An empty one counts as absent.
    pub dst_dir: Option<String>,
    /// Directories are wanted too, as zip.
    pub archive: bool,
    /// As what directories are sent.
    pub package: Package,
    /// The answer must carry `Cache-Control: no-store`.
    pub no_cache: bool,
}

impl DownloadParams {
    /// Reads them from a raw query string (without `?`; `None` is like an empty one).
    ///
    /// # Errors
    /// Every failure found, for the `data` of a 400.
    pub fn parse(query: Option<&str>) -> Result<Self, Vec<Failure>> {
        let mut fields = Fields::new(query);
        let token = fields.required("token");
        let dst_dir = fields.take("dst_dir").filter(|dir| !dir.is_empty());
        let archive = fields.flag("archive");
        let package = Package::take(&mut fields);
        let no_cache = fields.flag("no_cache");
        fields.refuse_the_rest();
        fields.finish(Self {
            token,
            dst_dir,
            archive,
            package,
            no_cache,
        })
    }
}

/// Parameters of every request on `/upload` that is about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadParams {
    /// The upload token, not yet verified.
    pub token: String,
    /// Goes before the token's path when the upload is finished. Empty counts as absent.
    pub dst_dir: Option<String>,
    /// Number of a partial upload of the session.
    pub part: Option<u32>,
}

impl UploadParams {
    /// Reads them from a raw query string.
    ///
    /// # Errors
    /// Every failure found, for the `data` of a 400.
    pub fn parse(query: Option<&str>) -> Result<Self, Vec<Failure>> {
        let mut fields = Fields::new(query);
        let token = fields.required("token");
        let dst_dir = fields.take("dst_dir").filter(|dir| !dir.is_empty());
        let part = fields.number("part");
        fields.refuse_the_rest();
        fields.finish(Self {
            token,
            dst_dir,
            part,
        })
    }
}

/// Parameters of `GET /download-archive`. Others are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveParams {
    /// The archive token, not yet verified.
    pub token: String,
    /// As what the selection is sent.
    pub package: Package,
}

impl ArchiveParams {
    /// Reads them from a raw query string.
    ///
    /// # Errors
    /// The token is missing, or the format is none of ours.
    pub fn parse(query: Option<&str>) -> Result<Self, Vec<Failure>> {
        let mut fields = Fields::new(query);
        let token = fields.required("token");
        let package = Package::take(&mut fields);
        fields.finish(Self { token, package })
    }
}

/// Checks the query of a route without parameters, such as `/`.
///
/// # Errors
/// One failure for every key.
pub fn expect_none(query: Option<&str>) -> Result<(), Vec<Failure>> {
    let mut fields = Fields::new(query);
    fields.refuse_the_rest();
    fields.finish(())
}

/// The pairs not yet asked for, and the failures so far.
struct Fields {
    pairs: BTreeMap<String, String>,
    failures: Vec<Failure>,
}

impl Fields {
    fn new(query: Option<&str>) -> Self {
        let mut kept = BTreeMap::new();
        for (key, value) in parse_query(query.unwrap_or("")) {
            kept.entry(key).or_insert(value);
        }
        Self {
            pairs: kept,
            failures: Vec::new(),
        }
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.pairs.remove(key)
    }

    /// The value, or an empty one and a failure.
    fn required(&mut self, key: &str) -> String {
        self.take(key).unwrap_or_else(|| {
            self.fail(key, REQUIRED.to_owned());
            String::new()
        })
    }

    fn flag(&mut self, key: &str) -> bool {
        let Some(text) = self.take(key) else {
            return false;
        };
        to_bool_text(&text).unwrap_or_else(|_| {
            self.fail(key, NOT_BOOL.to_owned());
            false
        })
    }

    fn number(&mut self, key: &str) -> Option<u32> {
        let text = self.take(key)?;
        let number = text.parse().ok().filter(|_| !text.starts_with('+'));
        if number.is_none() {
            self.fail(key, NOT_INT.to_owned());
        }
        number
    }

    fn refuse_the_rest(&mut self) {
        for key in std::mem::take(&mut self.pairs)
            .into_keys()
            .take(UNKNOWN_KEYS_REPORTED_MAX)
        {
            let text = format!("{key} is not allowed key");
            self.fail(&key, text);
        }
    }

    fn fail(&mut self, key: &str, text: String) {
        self.failures.push((key.to_owned(), text));
    }

    fn finish<T>(self, params: T) -> Result<T, Vec<Failure>> {
        if self.failures.is_empty() {
            Ok(params)
        } else {
            Err(self.failures)
        }
    }
}
