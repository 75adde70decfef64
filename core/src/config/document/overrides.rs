//! Keys set from the environment or the command line.

use super::{Issue, Origin, Place, Reader, Section};
use crate::config::keys::{Key, Kind};
use crate::config::raw::{self, Raw};
use crate::config::suggest::nearest;
use crate::config::{ENV_PREFIX, table};

/// One key set from outside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Dotted path with names in place, canonical spelling.
    pub path: String,
    /// The value as text.
    pub text: String,
    /// Name of the variable or flag.
    pub by: String,
    /// Whether it may bring a section into being that the file does not have.
    pub creates: bool,
}

impl Override {
    /// A flag of the command line.
    pub fn flag(path: &str, text: impl Into<String>, by: &str) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
            by: by.into(),
            creates: true,
        }
    }

    /// What one environment variable means, if it means anything here.
    ///
    /// Beside the variables named in the table there is one scheme for every key: the prefix
    /// [`ENV_PREFIX`], `__` for each dot, `_` for each dash.
    pub fn from_env(name: &str, value: &str) -> Vec<Self> {
        let one = |path: &str, text: &str, creates| {
            vec![Self {
                path: path.into(),
                text: text.into(),
                by: name.into(),
                creates,
            }]
        };
        match name {
            // The namespace or a password alone do not make a fleet, an address does.
            "BACKEND_ETCD_ADDR" => return one("etcd.addr", value, true),
            "BACKEND_LOG_FILE_SIZE" => {
                return one(
                    "logging.file.rotation-size",
                    &format!("{}MB", value.trim()),
                    false,
                );
            }
            "BACKEND_LOG_FILE" => return log_file(name, value),
            _ => {}
        }
        if let Some(key) = table::keys().find(|key| key.env == Some(name)) {
            return one(key.path, value, false);
        }
        match name.strip_prefix(ENV_PREFIX) {
            Some(rest) => {
                let path = rest
                    .to_ascii_lowercase()
                    .replace("__", ".")
                    .replace('_', "-");
                one(&path, value, true)
            }
            None => Vec::new(),
        }
    }
}

/// The variable names a file; the keys are a directory and a name.
fn log_file(by: &str, value: &str) -> Vec<Override> {
    let (directory, name) = match value.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((directory, name)) => (directory, name),
        None => (".", value),
    };
    let part = |path: &str, text: &str| Override::flag(path, text, by);
    vec![
        part("logging.file.path", directory),
        part("logging.file.filename", name),
    ]
}

impl Reader {
    pub(super) fn overrides(&mut self, overrides: &[Override]) {
        for one in overrides {
            let origin = Origin::Override(one.by.clone());
            let Some((key, names)) = lookup(&one.path) else {
                let near = nearest(&one.path, table::keys().map(|key| key.path));
                let issue = Issue::new(one.path.clone(), "unknown key").at(origin);
                self.issues.push(issue.suggest(near.map(str::to_owned)));
                continue;
            };
            if self.open(key, &names, one.creates, &origin) {
                self.set(key, names, as_raw(key.kind, &one.text), origin, true);
            }
        }
    }

    /// Whether the key's section is there, or comes into being.
    fn open(&mut self, key: &Key, names: &[String], creates: bool, origin: &Origin) -> bool {
        let pattern = key.path.rsplit_once('.').map_or("", |(section, _)| section);
        let is = |section: &Section| section.pattern == pattern && section.names == names;
        if self.document.sections.iter().any(is) {
            return true;
        }
        if creates {
            let mut place = Place::default();
            let mut names = names.iter();
            for segment in pattern.split('.') {
                let name = if segment == "*" {
                    names.next().cloned()
                } else {
                    None
                };
                place = place.down(segment, name);
                let Place { pattern, names } = place.clone();
                let is = |section: &Section| section.pattern == pattern && section.names == names;
                if !self.document.sections.iter().any(is) {
                    let origin = origin.clone();
                    self.document.sections.push(Section {
                        pattern,
                        names,
                        origin,
                    });
                }
            }
        }
        creates
    }
}

/// The key of a path with names in place; elements of lists cannot be named.
fn lookup(path: &str) -> Option<(&'static Key, Vec<String>)> {
    let given: Vec<&str> = path.split('.').collect();
    table::keys().find_map(|key| {
        let pattern: Vec<&str> = key.segments().collect();
        let fits = pattern.len() == given.len()
            && pattern
                .iter()
                .zip(&given)
                .all(|(want, got)| *want == "*" || want == got);
        let names = || pattern.iter().zip(&given).filter(|(want, _)| **want == "*");
        fits.then(|| (key, names().map(|(_, got)| (*got).to_owned()).collect()))
    })
}

/// Text for scalars; TOML for what has structure.
fn as_raw(kind: Kind, text: &str) -> Raw {
    let structured = matches!(
        kind,
        Kind::Choices(_) | Kind::Levels | Kind::Texts | Kind::TextMap | Kind::Free
    );
    let value = if structured {
        raw::parse_value(text)
    } else {
        None
    };
    value.unwrap_or_else(|| Raw::Text(text.to_owned()))
}
