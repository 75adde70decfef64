//! FlashBlade's REST interface, 1.x and 2.x, as far as it is used: one file system.
//!
//! Laws
//! - One session for all calls; the array ends it after half an hour without any.
//! - The configured version is used if the array has it, else the newest 2.x, else the newest 1.x.
//! - Answers are read by their shape: both generations have the same items.
//!
//! Source: FlashBlade REST 1.0–1.12 and 2.x; `purity_fb`, `py-pure-client`.

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::vendor::auth::HeaderToken;
use crate::vendor::call::{Answer, Call, Next};
use crate::vendor::options::{BackendOption, OptionKind, Options, optional, required};
use crate::vendor::rest::{About, Explained, Rest};
use crate::vendor::{Cause, READ_PERFORMANCE, VendorError};
use crate::volumes::{Spec, SpecError};

/// The product, as people call it.
pub(super) const SYSTEM: &str = "FlashBlade";
const ENDPOINT: &str = "purity_endpoint";
const TOKEN: &str = "purity_api_token";
const VERSION: &str = "purity_api_version";
const FILE_SYSTEM: &str = "purity_fs_name";
const VERIFY: &str = "purity_verify_ssl";
const CA_FILE: &str = "purity_ca_file";
pub(super) const TOOLKIT: &str = "purity_rapidfile";
pub(super) const TOOLKIT_DIR: &str = "purity_rapidfile_dir";
pub(super) const FAST_REMOVE: &str = "purity_fast_remove";

/// Options beside those of every REST interface.
pub(crate) const OPTIONS: &[BackendOption] = &[
    required(ENDPOINT, OptionKind::Url, "the array's management address"),
    required(
        TOKEN,
        OptionKind::Secret,
        "the API token of an account of the array",
    ),
    optional(
        VERSION,
        OptionKind::Text,
        "",
        "the version of the interface, `2.12` or `1.8`; without it, or if the array lacks it, the \
         newest 2.x that it has",
    ),
    required(
        FILE_SYSTEM,
        OptionKind::Text,
        "the file system that is mounted",
    ),
    optional(
        VERIFY,
        OptionKind::Flag,
        "true",
        "whether certificates are verified",
    ),
    optional(
        CA_FILE,
        OptionKind::Path,
        "",
        "authorities to trust instead of the system's, PEM",
    ),
    optional(
        FAST_REMOVE,
        OptionKind::Flag,
        "false",
        "whether deleted vfolders are handed to the array by its directory `.fast-remove`",
    ),
    optional(
        TOOLKIT,
        OptionKind::Flag,
        "true",
        "whether the RapidFile Toolkit is used where it is installed",
    ),
    optional(
        TOOLKIT_DIR,
        OptionKind::Path,
        "",
        "the directory of its programs, where the system does not find them",
    ),
];

/// Items of one page of a list.
const PAGE: &str = "200";
/// The newest versions that this was written for.
const NEWEST: [(u32, u32); 2] = [(2, 29), (1, 12)];

/// A client for one file system.
pub(super) struct FlashBlade {
    pub(super) rest: Rest,
    pub(super) endpoint: String,
    file_system: String,
    wanted: Option<String>,
    version: Mutex<Option<Version>>,
}

/// A version of the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    text: String,
    second: bool,
}

fn explain(answer: &Answer) -> Explained {
    let body = &answer.body;
    let first = body
        .pointer("/errors/0")
        .or_else(|| body.pointer("/error/0"));
    let word = |key: &str| {
        first
            .and_then(|first| first[key].as_str())
            .unwrap_or_default()
    };
    let (context, message) = (word("context"), word("message"));
    let text = match (context, message) {
        (_, "") => None,
        ("", message) => Some(message.to_owned()),
        (context, message) => Some(format!("{context}: {message}")),
    };
    let code = first.and_then(|first| first["code"].as_u64());
    let cause = match () {
        () if message.contains("does not exist") => Some(Cause::NotFound),
        () if message.contains("already exists") => Some(Cause::Conflict),
        () if message.contains("oken invalid") => Some(Cause::Unauthorized),
        () => None,
    };
    Explained {
        code: code.map(|code| code.to_string()),
        text,
        cause,
    }
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The version to use of those that the array has.
fn choose<'a>(wanted: Option<&str>, listed: &[&'a str]) -> Option<&'a str> {
    if let Some(found) = listed.iter().find(|have| Some(**have) == wanted) {
        return Some(found);
    }
    NEWEST.iter().find_map(|newest| {
        let known = listed
            .iter()
            .filter_map(|text| Some((numbers(text)?, *text)));
        let usable = known.filter(|(have, _)| have.0 == newest.0 && have <= newest);
        usable.max().map(|(_, text)| text)
    })
}

impl FlashBlade {
    pub(super) fn new(spec: &Spec, options: &Options<'_>) -> Result<Self, SpecError> {
        let about = About {
            system: SYSTEM,
            backend: "purestorage",
            below: String::new(),
            verify_key: VERIFY,
            ca_key: CA_FILE,
            explain,
        };
        let login = Call::post("log in", "/api/login")
            .secret_header("api-token", &options.secret(TOKEN)?)
            .repeatable();
        let auth = HeaderToken {
            login,
            header: "x-auth-token",
        };
        Ok(Self {
            rest: Rest::of(spec, options, ENDPOINT, about, auth)?,
            endpoint: options.need(ENDPOINT)?,
            file_system: options.need(FILE_SYSTEM)?,
            wanted: options.text(VERSION),
            version: Mutex::default(),
        })
    }

    async fn version(&self) -> Result<Version, VendorError> {
        if let Some(version) = self.version.lock().clone() {
            return Ok(version);
        }
        let operation = "choose version";
        let answer = self
            .rest
            .call(Call::get(operation, "/api/api_version"))
            .await?;
        let listed = answer.body["versions"].as_array();
        let listed: Vec<_> = listed
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let wanted = self.wanted.as_deref();
        let Some(text) = choose(wanted, &listed) else {
            let text = format!("no version that we know among {}", listed.join(", "));
            return Err(self.rest.error(operation, Cause::Refused, text));
        };
        if wanted.is_some_and(|wanted| wanted != text) {
            tracing::warn!(
                wanted,
                used = text,
                "the array has no such version of the interface"
            );
        }
        let version = Version {
            text: text.to_owned(),
            second: text.starts_with("2."),
        };
        *self.version.lock() = Some(version.clone());
        Ok(version)
    }

    /// All items of a list.
    async fn items(
        &self,
        operation: &'static str,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<Value>, VendorError> {
        let version = self.version().await?;
        let mut call = Call::get(operation, format!("/api/{}/{path}", version.text));
        for (key, value) in query {
            call = call.query(key, *value);
        }
        let call = call.query("limit", PAGE);
        self.rest.list(call, "/items", next).await
    }

    /// The first item of a list, which there must be.
    async fn item(
        &self,
        operation: &'static str,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Value, VendorError> {
        let items = self.items(operation, path, query).await?;
        let first = items.into_iter().next();
        first.ok_or_else(|| self.rest.error(operation, Cause::NotFound, "an empty list"))
    }

    /// The file system.
    pub(super) async fn file_system(&self, operation: &'static str) -> Result<Value, VendorError> {
        let names = [("names", self.file_system.as_str())];
        self.item(operation, "file-systems", &names).await
    }

    /// Capacity and use of the whole array.
    pub(super) async fn array_space(&self) -> Result<Value, VendorError> {
        self.item("read array space", "arrays/space", &[]).await
    }

    /// The array.
    pub(super) async fn array(&self) -> Result<Value, VendorError> {
        self.item("read array", "arrays", &[]).await
    }

    /// Its blades.
    pub(super) async fn blades(&self) -> Result<Vec<Value>, VendorError> {
        self.items("list blades", "blades", &[]).await
    }

    /// What the file system does over NFS.
    pub(super) async fn performance(&self) -> Result<Value, VendorError> {
        let query = [("names", self.file_system.as_str()), ("protocol", "NFS")];
        let path = "file-systems/performance";
        self.item(READ_PERFORMANCE, path, &query).await
    }

    /// The file system's snapshots that are not destroyed.
    pub(super) async fn snapshots(&self) -> Result<Vec<Value>, VendorError> {
        let key = if self.version().await?.second {
            "names_or_owner_names"
        } else {
            "names_or_sources"
        };
        let query = [(key, self.file_system.as_str())];
        let path = "file-system-snapshots";
        let mut all = self.items("list snapshots", path, &query).await?;
        all.retain(|one| one["destroyed"] != json!(true));
        Ok(all)
    }

    /// Makes a snapshot; `None`: there is one of this suffix.
    pub(super) async fn create_snapshot(&self, suffix: &str) -> Result<Option<Value>, VendorError> {
        let version = self.version().await?;
        let key = if version.second {
            "source_names"
        } else {
            "sources"
        };
        let call = Call::post("create snapshot", snapshots_of(&version))
            .query(key, &*self.file_system)
            .json(json!({ "suffix": suffix }));
        match self.rest.call(call).await {
            Ok(answer) => Ok(Some(answer.body["items"][0].clone())),
            Err(error) if error.cause == Cause::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a snapshot. A missing one is no error.
    pub(super) async fn delete_snapshot(&self, suffix: &str) -> Result<(), VendorError> {
        let version = self.version().await?;
        let key = if version.second { "names" } else { "name" };
        let name = format!("{}.{suffix}", self.file_system);
        let destroy = Call::patch("destroy snapshot", snapshots_of(&version))
            .query(key, &*name)
            .json(json!({"destroyed": true}))
            .repeatable();
        if self.rest.find(destroy).await?.is_none() {
            return Ok(());
        }
        let eradicate = Call::delete("eradicate snapshot", snapshots_of(&version));
        match self.rest.call(eradicate.query(key, name)).await {
            Err(error) if error.cause == Cause::NotFound => Ok(()),
            // An array may keep what is destroyed for a while, whatever one asks for.
            Err(error) if !error.cause.may_retry() => {
                tracing::info!(%error, "a destroyed snapshot stays until the array removes it");
                Ok(())
            }
            done => done.map(drop),
        }
    }
}

fn snapshots_of(version: &Version) -> String {
    format!("/api/{}/file-system-snapshots", version.text)
}

/// The page after this one, in either envelope.
fn next(answer: &Answer) -> Option<Next> {
    if let Some(token) = answer.text("/continuation_token") {
        return Some(Next::Query("continuation_token", token.to_owned()));
    }
    let token = answer.text("/pagination_info/continuation_token")?;
    Some(Next::Query("token", token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_version_counts_and_else_the_newest_known() {
        let all = ["1.0", "1.8", "1.12", "2.0", "2.9", "2.12", "2.99", "3.0"];
        for (wanted, listed, want) in [
            (Some("1.8"), &all[..], Some("1.8")),
            (Some("1.9"), &all[..], Some("2.12")),
            (None, &all[..], Some("2.12")),
            (None, &all[..3], Some("1.12")),
            (None, &all[6..], None),
        ] {
            assert_eq!(choose(wanted, listed), want, "{wanted:?} of {listed:?}");
        }
    }
}
