//! A configuration that was read: what is set, where, and what is wrong with it.

use std::fmt;

use super::grammar::Value;
use super::keys::{Key, Status, WhenAbsent};
use super::raw::{self, Member, Node, Raw};
use super::suggest::nearest;
use super::{redact, rules, table};

mod overrides;
mod spelling;
mod values;

pub use overrides::Override;

/// One key that is set.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its row of the table.
    pub key: &'static Key,
    /// What stands for each `*` and `[]` of the path; list positions count from 0.
    pub names: Vec<String>,
    /// As it was written.
    pub raw: Raw,
    /// As it was understood.
    pub value: Value,
    /// Who set it.
    pub origin: Origin,
}

/// Who set a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file, on this line.
    Line(usize),
    /// An environment variable or a flag of this name.
    Override(String),
}

impl Origin {
    fn line(&self) -> Option<usize> {
        match self {
            Self::Line(line) => Some(*line),
            Self::Override(_) => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Override(name) => f.write_str(name),
        }
    }
}

/// Something that keeps the program from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Dotted path; empty when the file as a whole is meant.
    pub path: String,
    /// Who set it, when it is set at all.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub what: String,
    /// What is allowed.
    pub allowed: Option<String>,
    /// The key that was probably meant.
    pub suggestion: Option<String>,
}

impl Issue {
    /// A problem with the value or the absence of a key.
    pub fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        let (path, what) = (path.into(), what.into());
        Self {
            path,
            origin: None,
            what,
            allowed: None,
            suggestion: None,
        }
    }

    pub(super) fn at(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub(super) fn suggest(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)?;
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean {suggestion}?"),
            None => Ok(()),
        }
    }
}

/// What kind of remark a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// A key that is accepted and has no effect.
    NoEffect,
    /// A key whose feature is not built yet.
    Later,
    /// Something to look at some day.
    Warning,
}

/// A remark that does not keep the program from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub kind: NoteKind,
    /// Dotted path.
    pub path: String,
    /// Who set the key.
    pub origin: Option<Origin>,
    /// One sentence part.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        write!(f, "{}: {}", self.path, self.text)
    }
}

/// One occurrence of a section, also an empty one.
#[derive(Clone, Debug)]
pub(super) struct Section {
    /// Path with `*` and `[]`.
    pub pattern: String,
    pub names: Vec<String>,
    pub origin: Origin,
}

/// A configuration without issues; absent keys answer with their defaults.
#[derive(Clone, Debug, Default)]
pub struct Document {
    pub(super) entries: Vec<Entry>,
    pub(super) sections: Vec<Section>,
    /// Remarks, in the order of the file.
    pub notes: Vec<Note>,
}

/// Reads a configuration file and lays the overrides over it.
///
/// # Errors
/// Every problem that was found, in the order of the file.
pub fn parse(text: &str, overrides: &[Override]) -> Result<Document, Vec<Issue>> {
    let members = raw::parse(text).map_err(|broken| {
        let issue = Issue::new("", format!("not TOML: {}", broken.message));
        vec![match broken.line {
            Some(line) => issue.at(Origin::Line(line)),
            None => issue,
        }]
    })?;
    let mut reader = Reader {
        document: Document::default(),
        issues: Vec::new(),
    };
    reader.table(&Place::default(), &members);
    reader.overrides(overrides);
    reader.required();
    rules::check(&mut reader.document, &mut reader.issues);
    reader.remarks();
    if reader.issues.is_empty() {
        Ok(reader.document)
    } else {
        Err(reader.issues)
    }
}

/// Where the reader stands.
#[derive(Clone, Default)]
struct Place {
    /// Path with `*` and `[]`.
    pattern: String,
    names: Vec<String>,
}

impl Place {
    fn down(&self, segment: &str, name: Option<String>) -> Self {
        let dot = if self.pattern.is_empty() { "" } else { "." };
        let names = self.names.iter().cloned().chain(name).collect();
        Self {
            pattern: format!("{}{dot}{segment}", self.pattern),
            names,
        }
    }

    fn display(&self) -> String {
        fill(&self.pattern, &self.names)
    }

    /// Path of a member that may not be in the table.
    fn display_member(&self, name: &str) -> String {
        let dot = if self.pattern.is_empty() { "" } else { "." };
        format!("{}{dot}{}", self.display(), raw::quote_name(name))
    }
}

/// A pattern with its names in place: `volume.local.path`, `storages[0].name`.
pub(super) fn fill(pattern: &str, names: &[String]) -> String {
    let mut names = names.iter();
    let mut name = || names.next().map_or("?", String::as_str);
    let segments = pattern
        .split('.')
        .map(|segment| match segment.strip_suffix("[]") {
            Some(list) => format!("{list}[{}]", name()),
            None if segment == "*" => raw::quote_name(name()),
            None => segment.to_owned(),
        });
    segments.collect::<Vec<_>>().join(".")
}

/// Turns a tree into a document, collecting issues as it goes.
struct Reader {
    document: Document,
    issues: Vec<Issue>,
}

impl Reader {
    fn table(&mut self, place: &Place, members: &[Member]) {
        let children = spelling::children(&place.pattern);
        for member in spelling::chosen(&children, members, place, &mut self.document.notes) {
            match spelling::segment(&children, &member.name) {
                Some(segment) => self.member(place, segment, member),
                None => self.unknown(place, &children, member),
            }
        }
    }

    fn member(&mut self, place: &Place, segment: &'static str, member: &Member) {
        let name = (segment == "*").then(|| member.name.clone());
        let origin = Origin::Line(member.line);
        if let Some(list) = segment.strip_suffix("[]") {
            return self.list(place, list, member);
        }
        let below = place.down(segment, name);
        match table::find(&below.pattern) {
            Some(key) => self.set(key, below.names, member.node.value.clone(), origin, false),
            None => match &member.node.value {
                Raw::Table(members) => self.section(&below, members, origin),
                other => self.not_a_table(&below, other, origin),
            },
        }
    }

    fn list(&mut self, place: &Place, list: &str, member: &Member) {
        let segment = format!("{list}[]");
        let Raw::List(items) = &member.node.value else {
            let what = format!(
                "expected list of tables, found {}",
                member.node.value.type_name()
            );
            let issue = Issue::new(place.display_member(list), what);
            return self.issues.push(issue.at(Origin::Line(member.line)));
        };
        for (at, Node { value, line }) in items.iter().enumerate() {
            let below = place.down(&segment, Some(at.to_string()));
            match value {
                Raw::Table(members) => self.section(&below, members, Origin::Line(*line)),
                other => self.not_a_table(&below, other, Origin::Line(*line)),
            }
        }
    }

    fn section(&mut self, place: &Place, members: &[Member], origin: Origin) {
        let Place { pattern, names } = place.clone();
        self.document.sections.push(Section {
            pattern,
            names,
            origin,
        });
        self.table(place, members);
    }

    fn not_a_table(&mut self, place: &Place, found: &Raw, origin: Origin) {
        let what = format!("expected table, found {}", found.type_name());
        self.issues
            .push(Issue::new(place.display(), what).at(origin));
    }

    fn unknown(&mut self, place: &Place, children: &[&'static str], member: &Member) {
        let canonical = spelling::canonical(&member.name);
        let near = nearest(
            &canonical,
            children.iter().map(|name| name.trim_end_matches("[]")),
        );
        // The right key in the wrong section is as common as a misspelt one.
        let suggestion = near.map(|name| place.display_member(name)).or_else(|| {
            table::keys()
                .find(|key| key.name() == canonical)
                .map(|key| key.path.to_owned())
        });
        let issue = Issue::new(place.display_member(&member.name), "unknown key");
        self.issues
            .push(issue.at(Origin::Line(member.line)).suggest(suggestion));
    }

    /// Checks a value and keeps it; a later setting replaces an earlier one.
    fn set(
        &mut self,
        key: &'static Key,
        names: Vec<String>,
        raw: Raw,
        origin: Origin,
        port_zero: bool,
    ) {
        match key.kind.read(&raw, port_zero) {
            Ok(value) => {
                let same = |entry: &Entry| entry.key.path == key.path && entry.names == names;
                self.document.entries.retain(|entry| !same(entry));
                self.document.entries.push(Entry {
                    key,
                    names,
                    raw,
                    value,
                    origin,
                });
            }
            Err(_) if key.secret => {
                // The value could be quoted in the reason, and the value is a secret.
                self.refuse(key, &names, "value does not fit".into(), origin);
            }
            Err(what) => self.refuse(key, &names, what, origin),
        }
    }

    fn refuse(&mut self, key: &Key, names: &[String], what: String, origin: Origin) {
        let issue = Issue::new(fill(key.path, names), redact::text(&what));
        self.issues
            .push(issue.at(origin).allowed(key.kind.allowed()));
    }

    /// Every section that is there has its required keys.
    fn required(&mut self) {
        for Section {
            pattern,
            names,
            origin,
        } in self.document.sections.clone()
        {
            let missing = table::keys()
                .filter(|key| key.default == WhenAbsent::Required)
                .filter(|key| {
                    key.path
                        .rsplit_once('.')
                        .is_some_and(|(up, _)| up == pattern)
                })
                .filter(|key| self.document.entry(key.path, &names).is_none());
            let missing: Vec<_> = missing.collect();
            for key in missing {
                let path = fill(key.path, &names);
                // A value that was refused is there, only wrong.
                if !self.issues.iter().any(|issue| issue.path == path) {
                    let issue = Issue::new(path, "key is missing").at(origin.clone());
                    self.issues.push(issue.allowed(key.kind.allowed()));
                }
            }
        }
    }

    /// Notes on keys that are set and have no effect.
    fn remarks(&mut self) {
        for entry in &self.document.entries {
            let (kind, text) = match entry.key.status {
                Status::Used => continue,
                Status::Ignored(why) => (NoteKind::NoEffect, format!("accepted, no effect: {why}")),
                Status::Later(what) => (NoteKind::Later, format!("not active yet: {what}")),
            };
            let path = fill(entry.key.path, &entry.names);
            let origin = Some(entry.origin.clone());
            self.document.notes.push(Note {
                kind,
                path,
                origin,
                text,
            });
        }
        let line = |note: &Note| note.origin.as_ref().and_then(Origin::line).unwrap_or(0);
        self.document.notes.sort_by_key(line);
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
