//! Workloads: data files that say what is read and written, by how many, and how it is measured.
//!
//! ```toml
//! about = "Sixteen clients read 64 MiB files that are in the page cache."
//! measure = "bytes"            # what the row shows: bytes, requests
//! bound = "loopback"           # what it cannot pass: memcpy, loopback, disk-read, disk-write,
//!                              # small-files
//! baseline = "get_1gib_1conn_warm"   # another row of the same run to be compared with
//! on = "disk"                  # disk, tmpfs
//! cache = "warm"               # warm, cold: cold drops the files from the page cache each round
//! protocol = "http1"           # http1, h2
//! tls = false
//! seconds = 4.0                # no new request is begun after that
//!
//! [[load]]                     # one or more at the same time; the row shows the first
//! name = "bulk"                # how the report calls it
//! kind = "get"                 # get, put, zip, tar, idle, stalled
//! connections = 16
//! files = { count = 16, bytes = "64MiB" }
//! range = "1MiB"               # get: random parts of this size
//! fresh = false                # get: a new connection for each request
//! way = "whole"                # put: whole, chunks, fresh-chunks, parts
//! chunk = "16MiB"              # put: size of a chunk
//! parts = 4                    # put: how many parts at the same time
//! requests = 64                # at most so many; without it, as many as the time allows
//! ```
//!
//! Laws
//! - An unknown key is refused, with the nearest known one.
//! - A file is named after what it is; `.small` is the same in seconds, for tests.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A workload, checked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Workload {
    /// From the file's name.
    #[serde(default)]
    pub name: String,
    /// One sentence for the report.
    pub about: String,
    /// What the row shows.
    pub measure: Measure,
    /// What it cannot pass.
    pub bound: Option<Bound>,
    /// Another row of the same run to be compared with.
    pub baseline: Option<String>,
    /// Where the files are.
    #[serde(default)]
    pub on: Medium,
    /// Whether they are in the page cache.
    #[serde(default)]
    pub cache: Cache,
    /// What clients speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// Whether it is encrypted.
    #[serde(default)]
    pub tls: bool,
    /// No new request is begun after that.
    pub seconds: f64,
    /// What goes on at the same time.
    pub load: Vec<Load>,
}

/// Clients that all do the same.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Load {
    /// How the report calls it.
    #[serde(default = "Load::default_name")]
    pub name: String,
    /// What they do.
    pub kind: Kind,
    /// How many of them.
    pub connections: u32,
    /// What they read, or the sources of what they write.
    pub files: Option<FileSet>,
    /// `get`: random parts of this size.
    pub range: Option<Size>,
    /// `get`: a new connection for each request.
    #[serde(default)]
    pub fresh: bool,
    /// `put`: how it is cut up.
    #[serde(default)]
    pub way: PutWay,
    /// `put`: size of a chunk.
    pub chunk: Option<Size>,
    /// `put`: how many parts at the same time.
    pub parts: Option<u32>,
    /// At most so many requests (uploads, archives) in all.
    pub requests: Option<u64>,
}

/// Files of one size in a directory of their own.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileSet {
    /// How many.
    pub count: u32,
    /// Size of each.
    pub bytes: Size,
}

/// A size in bytes; `"64MiB"` in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$vdoc])* $variant),* }
    };
}

words!(
    /// What a row shows.
    Measure {
        /// Throughput, CPU per GiB.
        #[default]
        Bytes,
        /// Requests per second, CPU per 1,000 requests.
        Requests,
        /// Memory, and the latency of the second load.
        Idle,
    }
);

words!(
    /// What the machine itself cannot pass.
    Bound {
        /// One core copies memory.
        #[default]
        Memcpy,
        /// One core splices into a loopback socket.
        Loopback,
        /// The disk reads.
        DiskRead,
        /// The disk writes.
        DiskWrite,
        /// The file system makes small files, each durable.
        SmallFiles,
    }
);

words!(
    /// Where files are.
    Medium {
        /// The directory of `--dir`.
        #[default]
        Disk,
        /// The directory of `--tmpfs`: stands in for a fast array.
        Tmpfs,
    }
);

words!(
    /// Whether files are in the page cache.
    Cache {
        /// They are.
        #[default]
        Warm,
        /// They are dropped before each round.
        Cold,
    }
);

words!(
    /// What clients speak.
    Protocol {
        /// HTTP/1.1.
        #[default]
        Http1,
        /// HTTP/2: by ALPN with TLS, by prior knowledge without; streams share one connection.
        H2,
    }
);

words!(
    /// What clients do.
    Kind {
        /// Read files.
        #[default]
        Get,
        /// Write files.
        Put,
        /// Read the set's directory as a zip archive.
        Zip,
        /// Read the set's directory as a tar archive.
        Tar,
        /// Connect, and do nothing.
        Idle,
        /// Ask for a file, and never read.
        Stalled,
    }
);

words!(
    /// How uploads are cut up.
    PutWay {
        /// One request.
        #[default]
        Whole,
        /// Requests of `chunk` over one connection.
        Chunks,
        /// Requests of `chunk`, each over a new connection.
        FreshChunks,
        /// `parts` at the same time.
        Parts,
    }
);

/// Which archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// Stored zip.
    Zip,
    /// Plain tar.
    Tar,
}

/// Why a workload file is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{name}: {problem}")]
pub struct WorkloadError {
    /// The file.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Workload {
    /// Reads a workload file; `name` is the file's name without `.toml`.
    ///
    /// # Errors
    /// Not TOML, an unknown key or word, or loads that make no sense.
    pub fn parse(name: &str, text: &str) -> Result<Self, WorkloadError> {
        let refuse = |problem: String| WorkloadError {
            name: name.to_owned(),
            problem,
        };
        let table: toml::Table = toml::from_str(text).map_err(|e| refuse(e.to_string()))?;
        check_keys(&table).map_err(refuse)?;
        let mut workload: Self = toml::from_str(text).map_err(|e| refuse(e.to_string()))?;
        name.clone_into(&mut workload.name);
        workload.check().map_err(refuse)?;
        Ok(workload)
    }

    /// Whether any load is of this kind.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.load.iter().any(|load| load.kind == kind)
    }

    fn check(&self) -> Result<(), String> {
        if self.load.is_empty() {
            return Err("no [[load]]".to_owned());
        }
        if !(self.seconds > 0.0 && self.seconds <= SECONDS_MAX) {
            return Err(format!("seconds: 0 to {SECONDS_MAX}"));
        }
        if self.protocol == Protocol::H2 && self.load.iter().any(|l| l.kind != Kind::Get) {
            return Err("h2: only get is driven over HTTP/2".to_owned());
        }
        self.load.iter().try_for_each(Load::check)
    }
}

/// Longest part of a round in which requests are begun.
const SECONDS_MAX: f64 = 600.0;
/// Most clients of one load: what the ports of one loopback address allow, with room.
const CONNECTIONS_MAX: u32 = 20_000;

impl Load {
    fn default_name() -> String {
        "main".to_owned()
    }

    /// The way of an upload.
    #[must_use]
    pub fn put_way(&self) -> crate::peer::Way {
        use crate::peer::Way;
        let bytes = self.chunk.map_or(0, |size| size.0);
        match self.way {
            PutWay::Whole => Way::Whole,
            PutWay::Chunks => Way::Chunks {
                bytes,
                fresh: false,
            },
            PutWay::FreshChunks => Way::Chunks { bytes, fresh: true },
            PutWay::Parts => Way::Parts(self.parts.unwrap_or(1)),
        }
    }

    fn check(&self) -> Result<(), String> {
        let say = |problem: &str| Err(format!("load {}: {problem}", self.name));
        if self.connections == 0 || CONNECTIONS_MAX < self.connections {
            return say(&format!("connections: 1 to {CONNECTIONS_MAX}"));
        }
        let Some(files) = self.files else {
            return if self.kind == Kind::Idle {
                Ok(())
            } else {
                say("files: how many of which size")
            };
        };
        if files.count == 0 || files.bytes.0 == 0 {
            return say("files: none");
        }
        if self.range.is_some_and(|range| files.bytes < range) {
            return say("range: larger than the files");
        }
        let chunks = matches!(self.way, PutWay::Chunks | PutWay::FreshChunks);
        if chunks && self.chunk.is_none_or(|size| size.0 == 0) {
            return say("chunk: its size");
        }
        if self.way == PutWay::Parts && self.parts.is_none_or(|n| n == 0) {
            return say("parts: how many");
        }
        Ok(())
    }
}

impl FileSet {
    /// The set's directory in the folder, such as `4kib-1000`.
    #[must_use]
    pub fn dir(&self) -> String {
        format!("{}-{}", self.bytes.to_string().to_lowercase(), self.count)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match &text[number.len()..] {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(serde::de::Error::custom("a size is B, KiB, MiB or GiB")),
        };
        let count: u64 = number.parse().map_err(serde::de::Error::custom)?;
        let bytes = count.checked_mul(1 << shift);
        bytes
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a size too large"))
    }
}

impl Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

const WORKLOAD_KEYS: &[&str] = &[
    "about", "measure", "bound", "baseline", "on", "cache", "protocol", "tls", "seconds", "load",
];
const LOAD_KEYS: &[&str] = &[
    "name",
    "kind",
    "connections",
    "files",
    "range",
    "fresh",
    "way",
    "chunk",
    "parts",
    "requests",
];
const FILES_KEYS: &[&str] = &["count", "bytes"];

/// Names the nearest known key for the first unknown one.
fn check_keys(table: &toml::Table) -> Result<(), String> {
    known(table, WORKLOAD_KEYS)?;
    let loads = table.get("load").and_then(toml::Value::as_array);
    for load in loads
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_table)
    {
        known(load, LOAD_KEYS)?;
        if let Some(files) = load.get("files").and_then(toml::Value::as_table) {
            known(files, FILES_KEYS)?;
        }
    }
    Ok(())
}

fn known(table: &toml::Table, keys: &[&str]) -> Result<(), String> {
    let unknown = table.keys().find(|key| !keys.contains(&key.as_str()));
    let Some(key) = unknown else { return Ok(()) };
    let near = proxy_core::config::nearest(key, keys.iter().copied());
    let hint = near.map_or(String::new(), |near| format!(", did you mean {near}?"));
    Err(format!("unknown key {key}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "about = \"x\"\nmeasure = \"bytes\"\nseconds = 1.0\n[[load]]\n\
        kind = \"get\"\nconnections = 1\nfiles = { count = 1, bytes = \"1MiB\" }\n";

    #[test]
    fn a_workload_that_makes_no_sense_is_refused() {
        assert!(Workload::parse("good", GOOD).is_ok());
        for (from, to, want) in [
            ("measure", "mesure", "did you mean measure?"),
            ("connections", "conections", "did you mean connections?"),
            ("count", "counts", "did you mean count?"),
            ("about", "zzzzzzzz", "unknown key zzzzzzzz"),
            ("\"get\"", "\"got\"", "unknown variant"),
            ("connections = 1", "connections = 0", "connections: 1 to"),
            ("1MiB", "1MB", "a size is B, KiB, MiB or GiB"),
            ("1MiB", "0MiB", "files: none"),
            ("kind", "range = \"2MiB\"\nkind", "larger than the files"),
            ("kind", "way = \"chunks\"\nkind", "chunk: its size"),
            ("kind", "way = \"parts\"\nkind", "parts: how many"),
            ("1.0", "0.0", "seconds"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            let error = Workload::parse("bad", &text).map(|w| w.name);
            let text = error.expect_err("refused").to_string();
            assert!(text.contains(want), "{from} -> {to}: {text}");
        }
    }

    #[test]
    fn a_size_reads_as_it_is_written() {
        for (bytes, text) in [
            (4096, "4KiB"),
            (1 << 30, "1GiB"),
            (1000, "1000B"),
            (3 << 20, "3MiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
