//! Goal: the house rules hold without a reviewer.
//! Method: every file of the repository is read as text and looked at line by line.
//!
//! Source: CONTRIBUTING.md.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const COLUMNS_MAX: usize = 100;
const LINES_MAX: usize = 1000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the repository but what git ignores and what other programs keep.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root().to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir)
            .expect("a directory of the repository")
            .flatten()
        {
            let path = entry.path();
            let name = entry.file_name();
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() && name != "target" && name != ".git" && name != "node_modules" {
                todo.push(path);
            } else if kind.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn with_extension(extension: &str) -> Vec<(PathBuf, String)> {
    files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("text");
            (
                path.strip_prefix(root())
                    .expect("in the repository")
                    .to_path_buf(),
                text,
            )
        })
        .collect()
}

/// True for code that only tests see: test files, and what follows `mod tests` in a file.
fn is_test_file(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let in_tests = path.components().any(|c| c.as_os_str() == "tests");
    in_tests
        || stem == "tests"
        || stem.ends_with("_tests")
        || text.contains("fuzz/")
        || stem == "testbed"
}

fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..end].lines().enumerate()
}

#[track_caller]
fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}\n{}", offences.join("\n"));
}

#[test]
fn lines_and_files_are_short() {
    let mut offences = Vec::new();
    for (path, text) in with_extension("rs") {
        for (number, line) in text.lines().enumerate() {
            if COLUMNS_MAX < line.chars().count() {
                offences.push(format!(
                    "{}:{}: over {COLUMNS_MAX} columns",
                    path.display(),
                    number + 1
                ));
            }
        }
        let lines = text.lines().count();
        if LINES_MAX < lines {
            offences.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert_none("lines of 100 columns, files of 1000 lines", &offences);
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> = with_extension("rs")
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_none("every .rs file begins with a module doc", &silent);
}

#[test]
fn modules_are_named_for_what_they_do() {
    let banned = [
        "mod", "util", "utils", "helper", "helpers", "common", "misc",
    ];
    let named: Vec<String> = files()
        .into_iter()
        .filter(|path| {
            let stem = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            path.extension().is_some_and(|e| e == "rs") && banned.contains(&stem.as_str())
        })
        .map(|path| path.display().to_string())
        .collect();
    assert_none("no mod.rs, no utils, helpers, common", &named);
}

/// Calls that have no place in the product, and what to do instead. Written in halves, so that
/// this file does not name them.
const BANNED: &[(&str, &str, &str)] = &[
    (
        ".unwr",
        "ap()",
        "return an error, or expect(\"why it cannot fail\")",
    ),
    ("tod", "o!(", "write it, or an issue"),
    ("unimple", "mented!(", "write it, or an issue"),
    ("db", "g!(", "tracing, with fields"),
    ("#[ign", "ore", "assert the present behaviour and say why"),
    ("#[should_", "panic", "assert on the error"),
];

#[test]
fn calls_that_are_banned_are_not_there() {
    let mut offences = Vec::new();
    for (path, text) in with_extension("rs")
        .iter()
        .filter(|(path, _)| !is_test_file(path))
    {
        for (number, line) in product_lines(text) {
            for (start, end, instead) in BANNED {
                if !line.trim_start().starts_with("//") && line.contains(&format!("{start}{end}")) {
                    let at = format!("{}:{}", path.display(), number + 1);
                    offences.push(format!("{at}: {start}{end}: {instead}"));
                }
            }
        }
    }
    for (path, text) in with_extension("rs") {
        for marker in ["#[ign", "#[should_"] {
            let full = if marker == "#[ign" {
                "#[ignore"
            } else {
                "#[should_panic"
            };
            if path != Path::new("tests/tidy.rs") && text.contains(full) {
                offences.push(format!("{}: {full}", path.display()));
            }
        }
    }
    for (path, text) in with_extension("rs")
        .iter()
        .filter(|(path, _)| is_test_file(path))
    {
        let sleeps = text.contains("thread::sleep(") || text.contains("time::sleep(");
        if sleeps && !path.ends_with("wait.rs") && !path.ends_with("tidy.rs") {
            offences.push(format!("{}: sleeps: wait for a condition", path.display()));
        }
    }
    assert_none("banned calls", &offences);
}

/// The one crate that may speak to the kernel by pointer.
const UNSAFE_HOME: &str = "dataplane/ring";

#[test]
fn unsafe_lives_in_one_crate() {
    let mut offences = Vec::new();
    for (path, text) in with_extension("rs") {
        let home = path.starts_with(UNSAFE_HOME);
        let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        if is_root && !home && !text.contains("#![forbid(unsafe_code)]") {
            offences.push(format!("{}: does not forbid unsafe code", path.display()));
        }
        let word = |line: &str| {
            let code = line.split("//").next().unwrap_or_default();
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.any(|w| w == "unsafe") && !code.contains('"')
        };
        if !home && text.lines().any(word) {
            offences.push(format!("{}: unsafe", path.display()));
        }
    }
    assert_none("unsafe outside of the ring", &offences);
}

/// Names of the dependencies in a manifest, all kinds.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
            continue;
        }
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        if inside && !name.is_empty() && !name.starts_with('#') {
            names.push(name.to_owned());
        }
    }
    names
}

#[test]
fn every_dependency_is_named_with_its_reason() {
    let architecture =
        std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut missing = BTreeSet::new();
    let manifests = with_extension("toml")
        .into_iter()
        .filter(|(p, _)| p.ends_with("Cargo.toml"));
    for (_, text) in manifests {
        for name in dependencies(&text) {
            if !name.starts_with("proxy-") && !architecture.contains(&format!("`{name}`")) {
                missing.insert(name);
            }
        }
    }
    let missing: Vec<String> = missing.into_iter().collect();
    assert_none("dependencies without a reason in ARCHITECTURE.md", &missing);
}

/// Anchors of a Markdown page: `<a id="name"></a>`.
fn anchors(text: &str) -> BTreeSet<String> {
    text.split("<a id=\"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"').map(|(name, _)| name.to_owned()))
        .collect()
}

/// Names after `docs/semantics.md#` in a text, and those of the table of upstream's defects.
fn named_anchors(text: &str) -> BTreeSet<String> {
    let name = |rest: &str| -> String {
        rest.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
            .collect()
    };
    let mut found: BTreeSet<String> = text.split("docs/semantics.md#").skip(1).map(name).collect();
    found.extend(text.split("Stated(\"").skip(1).map(name));
    found.remove("");
    found
}

#[test]
fn every_paragraph_of_the_semantics_is_named_by_a_test() {
    let semantics =
        std::fs::read_to_string(root().join("docs/semantics.md")).expect("docs/semantics.md");
    let stated = anchors(&semantics);
    let tested: BTreeSet<String> = with_extension("rs")
        .iter()
        .filter(|(path, text)| is_test_file(path) || text.contains("#[cfg(test)]"))
        .flat_map(|(_, text)| named_anchors(text))
        .collect();
    let lonely: Vec<String> = stated.difference(&tested).cloned().collect();
    assert_none("anchors of docs/semantics.md that no test names", &lonely);
    let dead: Vec<String> = with_extension("rs")
        .iter()
        .flat_map(|(path, text)| {
            let dead: Vec<String> = named_anchors(text).difference(&stated).cloned().collect();
            dead.into_iter()
                .map(|name| format!("{}: {name}", path.display()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_none("anchors that docs/semantics.md does not have", &dead);
    for (number, section) in semantics.split("\n## ").skip(1).enumerate() {
        let title = section.lines().next().unwrap_or_default();
        assert!(
            section.contains("<a id=\""),
            "section {number} `{title}` has no anchor"
        );
    }
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    let mut dead = Vec::new();
    for (path, text) in with_extension("md") {
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
        {
            let link = target.0.split(['#', ' ']).next().unwrap_or_default();
            let outside = link.is_empty() || link.contains("://") || link.starts_with("mailto:");
            let folder = root().join(&path);
            let there = folder.parent().is_some_and(|dir| dir.join(link).exists());
            if !outside && !there {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert_none("dead links", &dead);
}

#[test]
fn scripts_stop_at_the_first_failure() {
    let mut offences = Vec::new();
    for (path, text) in with_extension("sh") {
        if !text.starts_with("#!") || !text.contains("set -euo pipefail") {
            offences.push(path.display().to_string());
        }
    }
    assert_none(
        "shell scripts begin with #! and set -euo pipefail",
        &offences,
    );
}
