//! The program `lfs`: what it is told, and what it says.
//!
//! Laws
//! - Fixed words, no shell; the only path is that of a scope, which we made.
//! - Output is bounded and is read as the C locale writes it.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::ScopeQuota;
use crate::control::Control;
use crate::vendor::ledger::{Ledger, add};
use crate::vendor::options::{BackendOption, OptionKind, Options, optional};
use crate::vendor::program::{self, Trouble};
use crate::vendor::{Cause, VendorError};
use crate::volumes::SpecError;

/// The product, as people call it.
const SYSTEM: &str = "EXAScaler";
const COMMAND: &str = "lfs_command";
const TIMEOUT: &str = "lfs_timeout";

/// All options.
pub(crate) const OPTIONS: &[BackendOption] = &[
    optional(
        COMMAND,
        OptionKind::Texts,
        "",
        "the program and words before its own arguments; without it: lfs as root, \
         else sudo -n lfs to change and lfs to read",
    ),
    optional(
        TIMEOUT,
        OptionKind::Seconds,
        "60",
        "how long one run of it may take; a full scope takes long to get its project",
    ),
];

/// Most that is read of each of its outputs.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Longest text of it that is repeated to anyone, in bytes.
const TEXT_BYTES_MAX: usize = 400;
const KIB: u64 = 1024;

/// See the module.
pub(super) struct Lfs {
    reads: Vec<String>,
    changes: Vec<String>,
    time: Duration,
    pub(super) ledger: Ledger,
}

/// How a run ended.
struct Ran {
    good: bool,
    said: String,
    wailed: String,
}

/// Ends the program when nobody waits for its result any more.
struct Reins(Arc<Control>);

impl Drop for Reins {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// An error that names the product.
pub(super) fn error(operation: &'static str, cause: Cause, text: impl Into<String>) -> VendorError {
    let text: String = text.into();
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    VendorError {
        system: SYSTEM,
        operation,
        cause,
        code: None,
        text,
    }
}

impl Lfs {
    /// # Errors
    /// Never, once the options were checked.
    pub(super) fn new(options: &Options<'_>) -> Result<Self, SpecError> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let given = options.texts(COMMAND);
        let is_root = rustix::process::geteuid().is_root();
        let (reads, changes) = match (given.is_empty(), is_root) {
            (false, _) => (given.clone(), given),
            (true, true) => (words(&["lfs"]), words(&["lfs"])),
            (true, false) => (words(&["lfs"]), words(&["sudo", "-n", "lfs"])),
        };
        Ok(Self {
            reads,
            changes,
            time: options.seconds(TIMEOUT)?,
            ledger: Ledger::default(),
        })
    }

    async fn run(
        &self,
        operation: &'static str,
        words: &[String],
        args: &[&str],
        place: &Path,
    ) -> Result<Ran, VendorError> {
        let begin = Instant::now();
        add(&self.ledger.calls, 1);
        let flying = self.ledger.flying();
        let done = self.ran(operation, words, args, place).await;
        drop(flying);
        let failed = matches!(&done, Ok(ran) if !ran.good);
        let told = match &done {
            Ok(_) if failed => Err(error(operation, Cause::Failed, "")),
            Ok(_) => Ok(()),
            Err(error) => Err(error.clone()),
        };
        self.ledger.ended(operation, &told, begin.elapsed());
        done
    }

    async fn ran(
        &self,
        operation: &'static str,
        words: &[String],
        args: &[&str],
        place: &Path,
    ) -> Result<Ran, VendorError> {
        let program = words.first().map_or("", String::as_str);
        let words = words.iter().map(OsString::from);
        let mut command: Vec<OsString> = words.chain(args.iter().map(OsString::from)).collect();
        command.push(place.into());
        let (control, time) = (Arc::new(Control::default()), self.time);
        let reins = Reins(Arc::clone(&control));
        let work = move || {
            let mut said = Vec::new();
            let done = program::run(&command, time, &control, |piece| {
                let room = OUTPUT_BYTES_MAX.saturating_sub(said.len());
                said.extend_from_slice(&piece[..piece.len().min(room)]);
            });
            (done, String::from_utf8_lossy(&said).into_owned())
        };
        let ended = tokio::task::spawn_blocking(work).await;
        drop(reins);
        let (done, said) =
            ended.map_err(|lost| error(operation, Cause::Failed, lost.to_string()))?;
        let (good, wailed) = match done {
            Ok(()) => (true, String::new()),
            Err(Trouble::Bad { said, .. }) => (false, said),
            Err(Trouble::Missing(text)) => {
                let text = format!("{program} cannot be run: {text}");
                return Err(error(operation, Cause::Unreachable, text));
            }
            Err(Trouble::Late | Trouble::Cancelled) => {
                let text = format!("{program} is not done after {} s", time.as_secs_f64());
                return Err(error(operation, Cause::Late, text));
            }
        };
        tracing::debug!(program, ?args, good, operation, "ran");
        Ok(Ran { good, said, wailed })
    }

    async fn change(
        &self,
        operation: &'static str,
        args: &[&str],
        place: &Path,
    ) -> Result<(), VendorError> {
        let ran = self.run(operation, &self.changes, args, place).await?;
        if ran.good {
            return Ok(());
        }
        Err(error(operation, Cause::Failed, words_of(&ran)))
    }

    /// The project of a directory, and whether what is made in it gets the same.
    pub(super) async fn project(&self, place: &Path) -> Result<Option<(u32, bool)>, VendorError> {
        let args = ["project", "-d"];
        let ran = self.run("read project", &self.reads, &args, place).await?;
        Ok(ran.good.then(|| project_in(&ran.said)).flatten())
    }

    /// Gives a directory, and all in it, to a project.
    pub(super) async fn tag(&self, place: &Path, id: u32) -> Result<(), VendorError> {
        let id = id.to_string();
        let args = ["project", "-p", &id, "-r", "-s"];
        self.change("set project", &args, place).await
    }

    /// Limits a project, or lifts the limit.
    pub(super) async fn limit(
        &self,
        place: &Path,
        id: u32,
        limit_bytes: Option<u64>,
    ) -> Result<(), VendorError> {
        // It counts in KiB, and takes 0 for "no limit".
        let kib = limit_bytes.map_or(0, |bytes| bytes.div_ceil(KIB).max(1));
        let (id, blocks) = (id.to_string(), format!("-B{kib}"));
        let args = ["setquota", "-p", &id, &blocks];
        self.change("set quota", &args, place).await
    }

    /// What a project uses, and may use.
    pub(super) async fn quota(&self, place: &Path, id: u32) -> Result<ScopeQuota, VendorError> {
        let (operation, id) = ("read quota", id.to_string());
        let args = ["quota", "-p", &id];
        let ran = self.run(operation, &self.reads, &args, place).await?;
        // It fails also where some targets do not answer, and says what it knows.
        match quota_in(&ran.said) {
            Some((quota, whole)) => {
                if !whole {
                    let place = place.display();
                    tracing::warn!(%place, "usage is not exact: some targets do not answer");
                }
                Ok(quota)
            }
            None if ran.good => Err(error(operation, Cause::Malformed, words_of(&ran))),
            None => Err(error(operation, Cause::Failed, words_of(&ran))),
        }
    }
}

fn words_of(ran: &Ran) -> &str {
    let wailed = ran.wailed.trim();
    if wailed.is_empty() {
        ran.said.trim()
    } else {
        wailed
    }
}

/// `id flag path`: the flag is `P` where it is inherited, and may be missing or `-`.
fn project_in(said: &str) -> Option<(u32, bool)> {
    let mut words = said
        .lines()
        .find(|line| !line.trim().is_empty())?
        .split_whitespace();
    let id = words.next()?.parse().ok()?;
    Some((id, words.next() == Some("P")))
}

/// The numbers below the headings, which may be on the line of the path or on the next one; the
/// path is the mount point or what was asked for. `false`: they are not exact.
fn quota_in(said: &str) -> Option<(ScopeQuota, bool)> {
    let is_heading = |line: &&str| {
        let mut words = line.split_whitespace();
        words.next() == Some("Filesystem") && words.next() == Some("kbytes")
    };
    let mut lines = said.lines();
    lines.find(is_heading)?;
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    // The path may have blanks in it: its words are no three numbers in a row.
    let numbers = words.windows(3).skip(1).find_map(|three| {
        let (used, whole) = number(three[0])?;
        let (_, (limit, _)) = (number(three[1])?, number(three[2])?);
        Some((used, limit, whole))
    });
    let (used, limit, whole) = numbers?;
    let quota = ScopeQuota {
        used_bytes: Some(used.saturating_mul(KIB)),
        limit_bytes: (limit > 0).then(|| limit.saturating_mul(KIB)),
    };
    Some((quota, whole))
}

/// `1004`, `1004*` when it is too much, `[1004]` when it is not exact.
fn number(word: &str) -> Option<(u64, bool)> {
    let bare = word.trim_matches(['[', ']', '*']);
    Some((bare.parse().ok()?, !word.starts_with('[')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Disk quotas for prj 101 (pid 101):\n      Filesystem  kbytes   quota   \
                        limit   grace   files   quota   limit   grace\n";

    #[test]
    fn quotas_are_read_however_they_are_written() {
        let tail = "pid 101 is using default file quota setting\n";
        for (lines, used, limit, whole) in [
            ("/mnt/lustre 1004 0 2048 - 2 0 0 -\n", 1004, 2048, true),
            (
                "/mnt/lustre\n     1004 0 2048 - 2 0 0 -\n",
                1004,
                2048,
                true,
            ),
            ("/mnt/my own disk 1004 0 2048 - 2 0 0 -\n", 1004, 2048, true),
            ("/mnt/lustre 3000* 0 2048 - 2 0 0 -\n", 3000, 2048, true),
            ("/mnt/lustre [1004] 0 [2048] - 2 0 0 -\n", 1004, 2048, false),
            ("/mnt/lustre [3004*] 0 2048 - 2 0 0 -\n", 3004, 2048, false),
            ("/mnt/lustre 4 0 0 - 1 0 0 -\n", 4, 0, true),
            ("\n/mnt/lustre\n\n  4 0 0 - 1 0 0 -\n", 4, 0, true),
        ] {
            let got = quota_in(&format!("{HEAD}{lines}{tail}"));
            let quota = ScopeQuota {
                used_bytes: Some(used * KIB),
                limit_bytes: (limit > 0).then_some(limit * KIB),
            };
            assert_eq!(got, Some((quota, whole)), "{lines}");
        }
        for none in ["", HEAD, "/mnt/lustre 1 2 3\n", "lfs: no quotas\n"] {
            assert_eq!(quota_in(none), None, "{none}");
        }
    }

    #[test]
    fn projects_are_read() {
        for (said, want) in [
            ("  101 P /mnt/lustre/a\n", Some((101, true))),
            ("    0 - /mnt/lustre/a\n", Some((0, false))),
            ("  101   /mnt/lustre/a\n", Some((101, false))),
            ("lfs project: failed\n", None),
            ("", None),
        ] {
            assert_eq!(project_in(said), want, "{said}");
        }
    }
}
