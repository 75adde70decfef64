//! Options of a backend: one table per backend is what the code reads, what the documentation
//! shows, and what a misspelt key is compared with.
//!
//! Laws
//! - Everything is checked when the volume is configured: nothing is asked, nothing is opened but
//!   files that hold certificates.
//! - A key that nobody reads is a warning with the nearest known one: configurations of the
//!   original may hold more than is used.
//! - A secret is a [`Secret`]: it prints as dots.
//! - Numbers and yes or no may be texts, and what may be missing may be empty, as the original
//!   takes them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use proxy_core::config::nearest;
use serde_json::{Map, Value};

use crate::volumes::{Spec, SpecError};

/// One option of a backend, as people read about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendOption {
    /// The key below `volume.<name>.options`.
    pub key: &'static str,
    /// What its value looks like.
    pub kind: OptionKind,
    /// What counts when it is missing.
    pub default: Absent,
    /// What it is for, one sentence without a full stop.
    pub text: &'static str,
}

/// What the value of an option looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// A text that is not empty.
    Text,
    /// A text that is never shown.
    Secret,
    /// `http://` or `https://`, a host, perhaps a port.
    Url,
    /// A path of this host.
    Path,
    /// A list of texts, at least one.
    Texts,
    /// `true` or `false`.
    Flag,
    /// A whole number, 1 or more.
    Number,
    /// A time in seconds, more than 0.
    Seconds,
    /// A time in seconds, perhaps none.
    Wait,
}

/// What counts when an option is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It must be there.
    Refused,
    /// Nothing: what it is for is not done.
    Nothing,
    /// This value, as text.
    Value(&'static str),
}

impl OptionKind {
    /// The words for it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Secret => "secret text",
            Self::Url => "URL",
            Self::Path => "path",
            Self::Texts => "list of texts",
            Self::Flag => "true or false",
            Self::Number => "whole number, 1 or more",
            Self::Seconds => "seconds, more than 0",
            Self::Wait => "seconds, 0 or more",
        }
    }
}

/// A row of a table that must be there.
pub(crate) const fn required(
    key: &'static str,
    kind: OptionKind,
    text: &'static str,
) -> BackendOption {
    let default = Absent::Refused;
    BackendOption {
        key,
        kind,
        default,
        text,
    }
}

/// A row of a table that may be missing; `default` is the value then, empty for none.
pub(crate) const fn optional(
    key: &'static str,
    kind: OptionKind,
    default: &'static str,
    text: &'static str,
) -> BackendOption {
    let default = if default.is_empty() {
        Absent::Nothing
    } else {
        Absent::Value(default)
    };
    BackendOption {
        key,
        kind,
        default,
        text,
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

/// The options of one volume, read by the table of its backend.
///
/// Getters for options that may be missing give `None`, or the default of the table. Asking for a
/// key that the table does not have is a defect and gives an error as well.
pub(crate) struct Options<'a> {
    volume: &'a str,
    given: &'a Map<String, Value>,
    tables: &'a [&'static [BackendOption]],
}

impl<'a> Options<'a> {
    /// Checks kinds and required keys of all options at once, and warns about unknown ones.
    ///
    /// # Errors
    /// [`SpecError::Option`], for the first one in the order of the tables.
    pub(crate) fn of(
        spec: &'a Spec,
        tables: &'a [&'static [BackendOption]],
    ) -> Result<Self, SpecError> {
        let options = Self {
            volume: &spec.name,
            given: &spec.options,
            tables,
        };
        for row in options.rows() {
            match options.given(row) {
                None if row.default == Absent::Refused => {
                    let what = format!("is missing; {}: {}", row.kind.words(), row.text);
                    return Err(options.fault(row.key, what));
                }
                None => {}
                Some(value) if takes(row.kind, value) => {}
                // What is there may be a secret in the wrong place: it is not shown.
                Some(_) => {
                    let what = format!("must be: {}", row.kind.words());
                    return Err(options.fault(row.key, what));
                }
            }
        }
        options.warn_unknown();
        Ok(options)
    }

    fn rows(&self) -> impl Iterator<Item = &'static BackendOption> {
        self.tables.iter().flat_map(|table| table.iter())
    }

    /// What is given for a row, unless it says nothing.
    fn given(&self, row: &BackendOption) -> Option<&'a Value> {
        let value = self.given.get(row.key)?;
        let is_empty = row.default != Absent::Refused && value.as_str() == Some("");
        (!value.is_null() && !is_empty).then_some(value)
    }

    fn warn_unknown(&self) {
        for key in self.unknown() {
            let known = self.rows().map(|row| row.key);
            let meant = nearest(key, known).unwrap_or("none of its options");
            tracing::warn!(
                volume = self.volume,
                key,
                meant,
                "the backend has no such option, it is ignored"
            );
        }
    }

    fn unknown(&self) -> impl Iterator<Item = &str> {
        let known = |key: &str| self.rows().any(|row| row.key == key);
        self.given
            .keys()
            .map(String::as_str)
            .filter(move |key| !known(key))
    }

    /// An error about a key.
    pub(crate) fn fault(&self, key: &str, what: impl Into<String>) -> SpecError {
        SpecError::Option {
            volume: self.volume.to_owned(),
            key: key.to_owned(),
            fault: what.into(),
        }
    }

    /// The value as text: what is given, or the default.
    fn raw(&self, key: &str) -> Option<String> {
        let row = self.rows().find(|row| row.key == key)?;
        match self.given(row) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
            None => match row.default {
                Absent::Value(text) => Some(text.to_owned()),
                Absent::Refused | Absent::Nothing => None,
            },
        }
    }

    fn defect(&self, key: &str) -> SpecError {
        self.fault(key, "is read by the backend, and not in its table")
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.raw(key)
    }

    /// A text of the table's required kind.
    ///
    /// # Errors
    /// Never, once [`Self::of`] has checked.
    pub(crate) fn need(&self, key: &str) -> Result<String, SpecError> {
        self.raw(key).ok_or_else(|| self.defect(key))
    }

    /// A secret of the table's required kind.
    ///
    /// # Errors
    /// As [`Self::need`].
    pub(crate) fn secret(&self, key: &str) -> Result<Secret, SpecError> {
        self.need(key).map(Secret::new)
    }

    /// Any path.
    pub(crate) fn path(&self, key: &str) -> Option<PathBuf> {
        self.raw(key).map(PathBuf::from)
    }

    /// `true` only if it is given or the default.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.raw(key).as_deref().and_then(yes_or_no) == Some(true)
    }

    /// A whole number.
    ///
    /// # Errors
    /// For a key without a default.
    pub(crate) fn number(&self, key: &str) -> Result<u32, SpecError> {
        let number = self.raw(key).and_then(|text| text.trim().parse().ok());
        number.ok_or_else(|| self.defect(key))
    }

    /// A time.
    ///
    /// # Errors
    /// For a key without a default.
    pub(crate) fn seconds(&self, key: &str) -> Result<Duration, SpecError> {
        let seconds = self.raw(key).and_then(|text| text.trim().parse().ok());
        let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        time.ok_or_else(|| self.defect(key))
    }

    /// A list of texts; empty when it is not given.
    pub(crate) fn texts(&self, key: &str) -> Vec<String> {
        let given = self.given.get(key).and_then(Value::as_array);
        let texts = given.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }
}

/// Longest time that makes sense for anything here: a day.
const SECONDS_MAX: f64 = 86_400.0;

fn takes(kind: OptionKind, value: &Value) -> bool {
    let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    match kind {
        OptionKind::Text | OptionKind::Secret | OptionKind::Path => text(value),
        OptionKind::Url => value.as_str().is_some_and(is_url),
        OptionKind::Texts => value
            .as_array()
            .is_some_and(|list| !list.is_empty() && list.iter().all(text)),
        OptionKind::Flag => match value {
            Value::String(text) => yes_or_no(text).is_some(),
            other => yes_or_no(&other.to_string()).is_some(),
        },
        OptionKind::Number => {
            let number: Option<u32> = plain(value).and_then(|text| text.parse().ok());
            number.is_some_and(|number| number > 0)
        }
        OptionKind::Seconds => seconds(value).is_some_and(|seconds| 0.0 < seconds),
        OptionKind::Wait => seconds(value).is_some(),
    }
}

/// A number as text, whether it was given as one or as the other.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn seconds(value: &Value) -> Option<f64> {
    let seconds: f64 = plain(value)?.parse().ok()?;
    (0.0..=SECONDS_MAX).contains(&seconds).then_some(seconds)
}

/// The words that the original takes for a flag.
fn yes_or_no(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "t" | "y" | "1" => Some(true),
        "false" | "no" | "off" | "f" | "n" | "0" => Some(false),
        _ => None,
    }
}

fn is_url(text: &str) -> bool {
    let plain = |url: &reqwest::Url| {
        let web = matches!(url.scheme(), "http" | "https");
        web && url.host().is_some() && url.password().is_none() && url.username().is_empty()
    };
    reqwest::Url::parse(text).is_ok_and(|url| plain(&url))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TABLE: &[BackendOption] = &[
        required("endpoint", OptionKind::Url, "where it is"),
        required("password", OptionKind::Secret, "the secret"),
        optional("command", OptionKind::Texts, "", "a program"),
        optional("verify", OptionKind::Flag, "true", "look at certificates"),
        optional("calls", OptionKind::Number, "8", "calls at once"),
        optional("wait", OptionKind::Seconds, "1.5", "time"),
        optional("pause", OptionKind::Wait, "1", "time"),
        optional("prefix", OptionKind::Text, "", "a begin"),
    ];

    fn spec(more: Value) -> Spec {
        let mut options = json!({"endpoint": "https://array:8443", "password": "xyzzy"});
        let all = options.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        Spec {
            name: "v".to_owned(),
            backend: "netapp".to_owned(),
            path: PathBuf::from("/"),
            fsprefix: ".".to_owned(),
            options: all.clone(),
        }
    }

    #[test]
    fn options_are_checked_by_the_table() {
        for (more, want) in [
            (json!({}), ""),
            (
                json!({"endpoint": null}),
                "endpoint: is missing; URL: where it is",
            ),
            (json!({"endpoint": "array:8443"}), "endpoint: must be: URL"),
            (
                json!({"endpoint": "https://me:x@array"}),
                "endpoint: must be: URL",
            ),
            (json!({"endpoint": "ftp://array"}), "endpoint: must be: URL"),
            (json!({"password": ""}), "password: must be: secret text"),
            (json!({"password": 7}), "password: must be: secret text"),
            (json!({"command": "xcp"}), "command: must be: list of texts"),
            (json!({"command": []}), "command: must be: list of texts"),
            (json!({"command": ["docker", "exec"]}), ""),
            (
                json!({"verify": "perhaps"}),
                "verify: must be: true or false",
            ),
            (json!({"verify": 2}), "verify: must be: true or false"),
            (json!({"verify": "No", "calls": "3", "wait": "0.5"}), ""),
            (json!({"verify": 0, "pause": 0}), ""),
            (json!({"pause": -1}), "pause: must be: seconds, 0 or more"),
            (json!({"prefix": "", "wait": null}), ""),
            (
                json!({"calls": "many"}),
                "calls: must be: whole number, 1 or more",
            ),
            (
                json!({"calls": 0}),
                "calls: must be: whole number, 1 or more",
            ),
            (json!({"wait": -1}), "wait: must be: seconds, more than 0"),
            (
                json!({"wait": 1e300}),
                "wait: must be: seconds, more than 0",
            ),
            (json!({"unknown": []}), ""),
        ] {
            let spec = spec(more.clone());
            let got = match Options::of(&spec, &[TABLE]) {
                Ok(_) => String::new(),
                Err(error) => error.to_string(),
            };
            let want = if want.is_empty() {
                String::new()
            } else {
                format!("volume.v.options.{want}")
            };
            assert_eq!(got, want, "{more}");
        }
    }

    #[test]
    fn getters_give_what_is_there_or_the_default() {
        for (given, want) in [("No", false), ("1", true), ("", true)] {
            let spec = spec(json!({"verify": given}));
            let options = Options::of(&spec, &[TABLE]).unwrap();
            assert_eq!(options.flag("verify"), want, "{given}");
        }
        let none = spec(json!({"prefix": "", "pause": 0}));
        let none = Options::of(&none, &[TABLE]).unwrap();
        assert_eq!(
            (none.text("prefix"), none.seconds("pause").unwrap()),
            (None, Duration::ZERO)
        );
        let spec = spec(json!({"calls": "3", "endpiont": 1, "command": ["a", "b"]}));
        let options = Options::of(&spec, &[TABLE]).unwrap();
        assert_eq!(options.number("calls").unwrap(), 3);
        assert_eq!(
            options.seconds("wait").unwrap(),
            Duration::from_millis(1500)
        );
        assert!(options.flag("verify"));
        assert_eq!(options.texts("command"), ["a", "b"]);
        assert_eq!(options.unknown().collect::<Vec<_>>(), ["endpiont"]);
        assert!(options.need("nowhere").is_err());
        let secret = options.secret("password").unwrap();
        assert_eq!(
            (format!("{secret:?}").as_str(), secret.expose()),
            ("...", "xyzzy")
        );
    }
}
