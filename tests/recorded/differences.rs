//! Where we answer otherwise than the original, on purpose, and where that is said.

use std::path::Path;

use serde_json::Value;

/// Every backend of which there is a record.
pub const BACKENDS: &[&str] = &[
    "vfs",
    "xfs",
    "cephfs",
    "netapp",
    "purestorage",
    "dellemc-onefs",
    "weka",
    "vast",
    "gpfs",
    "exascaler",
];

/// Backends (all when empty), steps (by their beginning), anchor in `docs/semantics.md`.
type Row = (
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
);

/// What is meant.
const MEANT: &[Row] = &[
    (&[], &["quota of a volume"], "v1"),
    (
        &[],
        &[
            "describe, no uuid",
            "describe, another type",
            "create, options",
            "create, extra",
            "folder, mode as text",
            "folder, options a list",
            "folder, malformed",
            "folder, path",
            "folder, relpath",
        ],
        "parameters",
    ),
    (
        &[],
        &[
            "describe, noop",
            "unset, noop",
            "create, noop",
            "change, noop",
            "mount, out",
            "mount, absolute",
            "used-bytes, missing",
        ],
        "backends",
    ),
    // Modes, and what is there already.
    (&[], &["folder", "clone", "create again"], "folders"),
    (SNAPSHOTS, &["volumes"], "snapshots"),
    (
        &["netapp", "purestorage", "vast", "gpfs"],
        &["hwinfo"],
        "backends",
    ),
    (
        &[
            "netapp",
            "purestorage",
            "dellemc-onefs",
            "weka",
            "vast",
            "gpfs",
        ],
        &["metric"],
        "backends",
    ),
    (
        &[
            "xfs",
            "cephfs",
            "netapp",
            "dellemc-onefs",
            "weka",
            "vast",
            "gpfs",
            "exascaler",
        ],
        &["describe", "unset", "limit"],
        "backends",
    ),
    (&["cephfs"], &["usage"], "backends"),
];

const SNAPSHOTS: &[&str] = &[
    "xfs",
    "cephfs",
    "netapp",
    "purestorage",
    "dellemc-onefs",
    "weka",
    "vast",
];

fn covers(row: &Row, backend: &str, step: &str) -> bool {
    let (backends, steps, _) = row;
    (backends.is_empty() || backends.contains(&backend))
        && steps.iter().any(|begin| step.starts_with(begin))
}

fn differs(line: &Value) -> Option<&str> {
    line.get("ours")?;
    line["step"].as_str()
}

/// Differences of a backend that no row explains.
pub fn unexplained(backend: &str, known: &[Value]) -> Vec<String> {
    let steps = known.iter().filter(|line| {
        differs(line).is_some_and(|step| !MEANT.iter().any(|row| covers(row, backend, step)))
    });
    let said = |line: &Value| {
        let (step, theirs, ours) = (&line["step"], &line["original"], &line["ours"]);
        format!("not meant: {backend} {step}\n    original {theirs}\n    ours     {ours}")
    };
    steps.map(said).collect()
}

/// Rows that explain nothing any more, or name what is not there.
pub fn stale(all: &[(String, Vec<Value>)]) -> Vec<String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/semantics.md");
    let docs = std::fs::read_to_string(docs).expect("the document");
    let mut found = Vec::new();
    for row in MEANT {
        if !docs.contains(&format!("<a id=\"{}\">", row.2)) {
            found.push(format!("no anchor {}", row.2));
        }
        let of = |backend: &str, begin: &str| {
            let known = all.iter().find(|(name, _)| name == backend);
            known.is_some_and(|(_, lines)| {
                let mut steps = lines.iter().filter_map(differs);
                steps.any(|step| step.starts_with(begin))
            })
        };
        let backends = if row.0.is_empty() { BACKENDS } else { row.0 };
        for begin in row.1 {
            if !backends.iter().any(|backend| of(backend, begin)) {
                found.push(format!("no difference {:?} {begin}", row.0));
            }
        }
    }
    found
}
