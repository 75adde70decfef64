//! XCP, NetApp's program for trees on NFS: it asks the server by itself, past the mount.
//!
//! Used for counting, and for removing what has lost its name. Copies are not left to it: clones
//! keep hard links, holes and attributes, are hidden until they are complete, and can be resumed.
//!
//! Source: XCP; the original's commands and what it reads of their output.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::control::Control;
use crate::vendor::program::{self, Records};

/// How long an answer about the licence counts.
const LICENSE_TIME: Duration = Duration::from_secs(3600);
const LICENSE_WAIT: Duration = Duration::from_secs(20);
const REMOVE_WAIT: Duration = Duration::from_secs(24 * 3600);

/// The program, and the host whose exports it is asked about.
#[derive(Debug)]
pub(super) struct Xcp {
    words: Vec<OsString>,
    host: String,
    licensed: Mutex<Option<(Instant, bool)>>,
}

impl Xcp {
    pub(super) fn new(words: Vec<String>, host: String) -> Self {
        Self {
            words: words.into_iter().map(OsString::from).collect(),
            host,
            licensed: Mutex::default(),
        }
    }

    fn command(&self, rest: &[&str]) -> Vec<OsString> {
        let rest = rest.iter().map(OsString::from);
        self.words.iter().cloned().chain(rest).collect()
    }

    /// Where XCP finds what lies at `below` in a volume.
    pub(super) fn path(&self, nas_path: &str, below: &str) -> String {
        format!("{}:{}/{below}", self.host, nas_path.trim_end_matches('/'))
    }

    /// Whether it is there and may be used; asked once an hour. Blocking.
    pub(super) fn is_licensed(&self) -> bool {
        let mut licensed = self.licensed.lock();
        if let Some((asked, answer)) = *licensed
            && asked.elapsed() < LICENSE_TIME
        {
            return answer;
        }
        let mut said = Vec::new();
        let command = self.command(&["license"]);
        let control = Control::default();
        let ran = program::run(&command, LICENSE_WAIT, &control, |piece| {
            said.extend_from_slice(piece);
        });
        let said = String::from_utf8_lossy(&said).into_owned();
        let active = said
            .lines()
            .any(|line| line.trim() == "License status: ACTIVE");
        let answer = ran.is_ok() && active;
        if !answer {
            let why = ran
                .err()
                .map_or_else(|| "no active licence".to_owned(), String::from);
            tracing::warn!(why, "XCP is not used");
        }
        *licensed = Some((Instant::now(), answer));
        answer
    }

    /// Entries and bytes of a tree. Blocking.
    pub(super) fn usage(
        &self,
        path: &str,
        bound: Duration,
        control: &Control,
    ) -> Result<(u64, u64), String> {
        let mut records = Records::ending_with(b'\n');
        let (mut count, mut bytes) = (None, None);
        let mut line = |line: &[u8]| {
            let line = String::from_utf8_lossy(line);
            let Some((key, value)) = line.trim().split_once(',') else {
                return;
            };
            let value = value
                .split(',')
                .next()
                .unwrap_or_default()
                .trim()
                .parse()
                .ok();
            match key.to_ascii_lowercase().as_str() {
                "total count" => count = value,
                "total space used" => bytes = value,
                _ => {}
            }
        };
        let command = self.command(&["scan", "-csv", path]);
        program::run(&command, bound, control, |piece| {
            records.push(piece, &mut line)
        })
        .map_err(|trouble| told(&trouble.to_string()))?;
        records.finish(&mut line);
        count
            .zip(bytes)
            .ok_or_else(|| "its answer has no totals".to_owned())
    }

    /// Removes a tree. Blocking.
    pub(super) fn remove(&self, path: &str, control: &Control) -> Result<(), String> {
        let command = self.command(&["delete", "-force", "-removetopdir", path]);
        program::run(&command, REMOVE_WAIT, control, |_| {})
            .map_err(|trouble| told(&trouble.to_string()))
    }
}

/// Its own word for what is wrong, among much else that it says.
fn told(said: &str) -> String {
    let own = said
        .lines()
        .find_map(|line| line.split_once("xcp: ERROR: "));
    own.map_or(said, |(_, error)| error).to_owned()
}
