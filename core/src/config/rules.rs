//! Rules that span several keys.

use uuid::Uuid;

use super::document::{Document, Issue, Note, NoteKind, fill};
use super::keys::Kind;
use super::suggest::nearest;

/// Every name that `volume.*.backend` may have.
pub static BACKENDS: [&str; 14] = [
    "vfs",
    "noop",
    "xfs",
    "cephfs",
    "netapp",
    "purestorage",
    "dellemc-onefs",
    "gpfs",
    "spectrumscale",
    "weka",
    "vast",
    "exascaler",
    "hammerspace",
    "hammerspace-base",
];

/// Checks what no single key can tell.
pub(super) fn check(document: &mut Document, issues: &mut Vec<Issue>) {
    tls(document, issues);
    drivers(document, issues);
    fleet(document, issues);
    etcd_tls(document, issues);
    volumes(document, issues);
    artifacts(document, issues);
}

fn tls(document: &Document, issues: &mut Vec<Issue>) {
    for side in ["api.client", "api.manager"] {
        let enabled = format!("{side}.ssl-enabled");
        if !document.flag(&enabled) {
            continue;
        }
        for part in ["ssl-cert", "ssl-privkey"] {
            let path = format!("{side}.{part}");
            if document.text(&path, &[]).is_none_or(|text| text.is_empty()) {
                let issue = Issue::new(path, "key is missing, and ssl-enabled is on");
                issues.push(located(issue, document, &enabled).allowed(Kind::Path.allowed()));
            }
        }
    }
}

/// Puts an issue where the key that caused it stands.
fn located(issue: Issue, document: &Document, cause: &str) -> Issue {
    match document.entry(cause, &[]) {
        Some(entry) => issue.at(entry.origin.clone()),
        None => issue,
    }
}

fn drivers(document: &Document, issues: &mut Vec<Issue>) {
    for driver in document.texts("logging.drivers") {
        let section = format!("logging.{driver}");
        if driver != "console" && !document.has_section(&section) {
            let what = format!("driver {driver} needs the table [{section}]");
            let issue = Issue::new("logging.drivers", what);
            issues.push(located(issue, document, "logging.drivers"));
        }
    }
}

/// In a fleet others must know these, so they cannot be made up on first start.
fn fleet(document: &Document, issues: &mut Vec<Issue>) {
    let shared = ["etcd", "redis"];
    let Some(section) = shared.iter().find(|name| document.file_has_section(name)) else {
        return;
    };
    for path in [
        "storage-proxy.node-id",
        "storage-proxy.secret",
        "api.manager.secret",
    ] {
        let refused = issues.iter().any(|issue| issue.path == path);
        if document.entry(path, &[]).is_none() && !refused {
            let what = format!("key is missing, and the file has an [{section}] section");
            let issue = Issue::new(path, what);
            issues.push(issue.allowed(Kind::Word.allowed()));
        }
    }
}

/// A certificate is nothing without its key, and TLS to etcd needs to know whom to trust.
fn etcd_tls(document: &Document, issues: &mut Vec<Issue>) {
    let set = |path: &str| {
        document
            .text(path, &[])
            .is_some_and(|text| !text.is_empty())
    };
    let on = document.flag("etcd.ssl-enabled");
    if on && !set("etcd.ssl-ca") {
        let issue = Issue::new("etcd.ssl-ca", "key is missing, and ssl-enabled is on");
        issues.push(located(issue, document, "etcd.ssl-enabled").allowed(Kind::Path.allowed()));
    }
    for (one, other) in [
        ("etcd.ssl-cert", "etcd.ssl-privkey"),
        ("etcd.ssl-privkey", "etcd.ssl-cert"),
    ] {
        if set(one) && !set(other) {
            let name = one.trim_start_matches("etcd.");
            let issue = Issue::new(other, format!("key is missing, and {name} is set"));
            issues.push(located(issue, document, one).allowed(Kind::Path.allowed()));
        }
    }
}

fn volumes(document: &mut Document, issues: &mut Vec<Issue>) {
    for name in document.names("volume.*") {
        let names = [name.clone()];
        if name == "noop" {
            let what = "the name noop belongs to the built-in volume";
            issues.push(Issue::new(fill("volume.*", &names), what));
        }
        if Uuid::try_parse(&name).is_ok() {
            let text = "older servers cannot run tasks on a volume that is named by a UUID";
            warn(document, &names, text);
        }
        let Some(entry) = document.entry("volume.*.backend", &names).cloned() else {
            continue;
        };
        let Some(backend) = document.text("volume.*.backend", &names) else {
            continue;
        };
        let known = BACKENDS.iter().copied();
        if !BACKENDS.contains(&backend.as_str()) {
            issues.push(
                Issue::new(
                    fill(entry.key.path, &names),
                    format!("{backend:?} is no backend"),
                )
                .at(entry.origin)
                .allowed(BACKENDS.join(", "))
                .suggest(nearest(&backend, known).map(str::to_owned)),
            );
        }
    }
}

fn warn(document: &mut Document, names: &[String], text: &str) {
    let origin = document
        .entry("volume.*.backend", names)
        .map(|entry| entry.origin.clone());
    document.notes.push(Note {
        kind: NoteKind::Warning,
        path: fill("volume.*", names),
        origin,
        text: text.to_owned(),
    });
}

fn artifacts(document: &Document, issues: &mut Vec<Issue>) {
    for kind in ["artifact-storages.*", "artifact-registries.*"] {
        for name in document.names(kind) {
            let names = [name];
            let path = format!("{kind}.type");
            let Some(choice) = document.text(&path, &names) else {
                continue;
            };
            let wanted = format!("{kind}.{}", choice.replace('_', "-"));
            let found = document
                .sections
                .iter()
                .any(|s| s.pattern == wanted && s.names == names);
            if !found {
                let what = format!("type {choice} needs the table [{}]", fill(&wanted, &names));
                issues.push(Issue::new(fill(&path, &names), what));
            }
        }
    }
}
