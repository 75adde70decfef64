//! The RapidFile Toolkit: programs of Pure that walk trees on NFS with many requests at once.
//!
//! Used for counting (`pdu`), and for removing what has lost its name (`prm`). Copies are not left
//! to it, for the reasons that XCP's are not; listings neither, since it follows no rules of ours.
//!
//! Source: RapidFile Toolkit 1 and 2; the original's commands.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::control::Control;
use crate::vendor::program::{self, Records};

const VERSION_WAIT: Duration = Duration::from_secs(10);
const REMOVE_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Where the programs are, and which they are.
#[derive(Debug)]
pub(super) struct RapidFile {
    dir: Option<PathBuf>,
    version: OnceLock<Option<u8>>,
}

impl RapidFile {
    /// In a directory, or where the system looks for programs.
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        let version = OnceLock::new();
        Self { dir, version }
    }

    fn program(&self, name: &str) -> OsString {
        match &self.dir {
            Some(dir) => dir.join(name).into_os_string(),
            None => name.into(),
        }
    }

    /// 1 or 2; `None` where the toolkit is not there: others have a `pdu` as well. Blocking.
    pub(super) fn version(&self) -> Option<u8> {
        *self.version.get_or_init(|| {
            let command = [self.program("pdu"), "--version".into()];
            let mut said = Vec::new();
            let control = Control::default();
            let ran = program::run(&command, VERSION_WAIT, &control, |piece| {
                said.extend_from_slice(piece);
            });
            ran.ok()?;
            version_of(&String::from_utf8_lossy(&said))
        })
    }

    /// Entries and bytes below a directory. Blocking.
    pub(super) fn usage(
        &self,
        path: &Path,
        bound: Duration,
        control: &Control,
    ) -> Result<(u64, u64), String> {
        let mut command = vec![self.program("pdu")];
        command.extend(["-0", "-b", "-a"].map(OsString::from));
        if self.version() == Some(1) {
            command.push("-s".into());
        }
        command.push(path.into());
        let (mut count, mut bytes) = (0, 0);
        let mut faulty = false;
        let mut record = |record: &[u8]| {
            let text = record.trim_ascii_start();
            let at = text.iter().position(u8::is_ascii_whitespace);
            let Some((size, name)) = at.map(|at| text.split_at(at)) else {
                faulty |= !text.is_empty();
                return;
            };
            let name = name.trim_ascii_start();
            let size: Option<u64> = std::str::from_utf8(size).ok().and_then(|t| t.parse().ok());
            match size {
                // The directory itself is no entry of itself.
                _ if name == path.as_os_str().as_bytes() => {}
                Some(size) => (count, bytes) = (count + 1, bytes + size),
                None => faulty = true,
            }
        };
        let mut records = Records::ending_with(0);
        program::run(&command, bound, control, |piece| {
            records.push(piece, &mut record)
        })?;
        records.finish(&mut record);
        if faulty {
            return Err("its answer makes no sense".to_owned());
        }
        Ok((count, bytes))
    }

    /// Removes a tree. Blocking.
    pub(super) fn remove(&self, path: &Path, control: &Control) -> Result<(), String> {
        let command = [self.program("prm"), "-r".into(), path.into()];
        program::run(&command, REMOVE_WAIT, control, |_| {}).map_err(String::from)
    }
}

/// From the first line: `pdu version p1.2 (RapidFile) 2.1` or `p1.0 (RapidFile Toolkit) 1.0`.
fn version_of(said: &str) -> Option<u8> {
    let line = said.lines().next()?;
    let rest = |mark: &str| line.split_once(mark).map(|(_, rest)| rest.trim_start());
    let second = rest("(RapidFile)").filter(|rest| rest.starts_with("2."));
    let first = rest("(RapidFile Toolkit)").filter(|rest| rest.starts_with("1."));
    second.map(|_| 2).or(first.map(|_| 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_toolkit_is_known_by_its_first_line() {
        for (said, want) in [
            ("pdu version p1.4.0 (RapidFile) 2.1.0\nmore", Some(2)),
            ("pdu p1.4.0 (RapidFile Toolkit) 1.0.0", Some(1)),
            ("pdu 0.20.0", None),
            ("", None),
            ("pdu version p1 (RapidFile) 3.0", None),
        ] {
            assert_eq!(version_of(said), want, "{said}");
        }
    }
}
