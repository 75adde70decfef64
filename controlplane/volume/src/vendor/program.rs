//! Programs of vendors: those that measure and remove trees faster than a mount allows, and those
//! that manage what has no other interface.
//!
//! Laws
//! - A program gets its words as they are: there is no shell.
//! - It is ended when its time is over or when nobody wants its result any more, and waited for.
//! - What it prints is looked at while it comes; what it says about errors is kept apart, bounded.
//! - Whatever goes wrong with it is a text, and the caller has another way.

use std::ffi::OsString;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::control::Control;

const PIECE_BYTES: usize = 64 * 1024;
const ERRORS_BYTES_MAX: u64 = 4096;
/// How often it is asked whether anybody still waits.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks at a program that prints nothing any more.
const PAUSE: Duration = Duration::from_millis(2);

/// Why a program did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Trouble {
    /// There is no such program, or it may not be run.
    #[error("{0}")]
    Missing(String),
    /// Its time was over.
    #[error("it takes too long")]
    Late,
    /// Nobody waits for it any more.
    #[error("cancelled")]
    Cancelled,
    /// It ended badly.
    #[error("{status}: {said}")]
    Bad {
        /// How it ended.
        status: String,
        /// What it said of errors.
        said: String,
    },
}

impl From<Trouble> for String {
    fn from(trouble: Trouble) -> Self {
        trouble.to_string()
    }
}

/// Runs a program to its end, and hands over what it prints.
///
/// # Errors
/// [`Trouble`].
///
/// Blocking.
pub(crate) fn run(
    words: &[OsString],
    bound: Duration,
    control: &Control,
    mut take: impl FnMut(&[u8]),
) -> Result<(), Trouble> {
    let end = Instant::now() + bound;
    let missing = |text: &dyn std::fmt::Display| Trouble::Missing(text.to_string());
    let (program, rest) = words
        .split_first()
        .ok_or_else(|| missing(&"no program is named"))?;
    let mut child = Command::new(program)
        .args(rest)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| missing(&error))?;
    let errors = read_errors(&mut child);
    let pieces = read_output(&mut child);
    let ended = loop {
        let more = pieces.as_ref().map(|pieces| pieces.recv_timeout(LOOK));
        let printed_all = match more {
            Some(Ok(piece)) => {
                take(&piece);
                false
            }
            Some(Err(RecvTimeoutError::Timeout)) => false,
            Some(Err(RecvTimeoutError::Disconnected)) | None => true,
        };
        match child.try_wait() {
            Ok(Some(status)) if printed_all => break Ok(status),
            // It closed its output and goes on.
            Ok(None) if printed_all => std::thread::sleep(PAUSE),
            Ok(_) => {}
            Err(error) => break Err(missing(&error)),
        }
        if control.check().is_err() {
            break Err(Trouble::Cancelled);
        } else if end <= Instant::now() {
            break Err(Trouble::Late);
        }
    };
    let status = match ended {
        Ok(status) => status,
        Err(trouble) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(trouble);
        }
    };
    if status.success() {
        return Ok(());
    }
    let said = errors.and_then(|thread| thread.join().ok());
    let said = said.unwrap_or_default().trim().to_owned();
    let status = status.to_string();
    Err(Trouble::Bad { status, said })
}

fn read_errors(child: &mut Child) -> Option<JoinHandle<String>> {
    let mut pipe = child.stderr.take()?;
    let thread = std::thread::Builder::new().name("program".to_owned());
    let read = move || {
        let mut said = Vec::new();
        let _ = pipe.by_ref().take(ERRORS_BYTES_MAX).read_to_end(&mut said);
        // A program that nobody listens to any more would stop.
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        String::from_utf8_lossy(&said).into_owned()
    };
    thread.spawn(read).ok()
}

fn read_output(child: &mut Child) -> Option<Receiver<Vec<u8>>> {
    let mut pipe = child.stdout.take()?;
    let (sender, pieces) = sync_channel(4);
    let thread = std::thread::Builder::new().name("program".to_owned());
    let read = move || {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(got @ 1..) = pipe.read(&mut piece) {
            if sender.send(piece[..got].to_vec()).is_err() {
                return;
            }
        }
    };
    thread.spawn(read).ok().map(|_| pieces)
}

/// Cuts what comes in pieces into records that end with `end`.
#[derive(Debug)]
pub(crate) struct Records {
    end: u8,
    rest: Vec<u8>,
}

impl Records {
    /// Of nothing yet.
    pub(crate) fn ending_with(end: u8) -> Self {
        let rest = Vec::new();
        Self { end, rest }
    }

    /// Hands over the records that are whole with this piece.
    pub(crate) fn push(&mut self, piece: &[u8], mut take: impl FnMut(&[u8])) {
        let mut parts = piece.split(|byte| *byte == self.end);
        self.rest
            .extend_from_slice(parts.next().unwrap_or_default());
        for part in parts {
            take(&self.rest);
            self.rest.clear();
            self.rest.extend_from_slice(part);
        }
    }

    /// Hands over what had no end.
    pub(crate) fn finish(self, mut take: impl FnMut(&[u8])) {
        if !self.rest.is_empty() {
            take(&self.rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, bound: Duration, control: &Control) -> (Result<(), Trouble>, String) {
        let words = ["sh", "-c", script].map(OsString::from);
        let mut said = Vec::new();
        let done = run(&words, bound, control, |piece| {
            said.extend_from_slice(piece)
        });
        (done, String::from_utf8(said).unwrap())
    }

    #[test]
    fn programs_are_run_and_their_words_kept_apart() {
        let (long, control) = (Duration::from_secs(60), Control::default());
        let (done, said) = shell("echo out; echo err >&2", long, &control);
        assert_eq!((done, said.as_str()), (Ok(()), "out\n"));
        let (done, _) = shell("echo broken >&2; exit 3", long, &control);
        let text = done.map_err(String::from);
        assert_eq!(text, Err("exit status: 3: broken".to_owned()));
        let (done, said) = shell("head -c 1000000 /dev/zero | tr '\\0' x", long, &control);
        assert_eq!((done, said.len()), (Ok(()), 1_000_000));
        let missing = run(&["/no/such".into()], long, &control, |_| {});
        assert!(matches!(missing, Err(Trouble::Missing(_))), "{missing:?}");
    }

    #[test]
    fn programs_end_in_time_and_when_nobody_waits() {
        let (short, control) = (Duration::from_millis(100), Control::default());
        for script in ["exec sleep 600", "exec sleep 600 >&-"] {
            let (done, _) = shell(script, short, &control);
            assert_eq!(done, Err(Trouble::Late), "{script}");
        }
        control.cancel();
        let (done, _) = shell("exec sleep 600", Duration::from_secs(600), &control);
        assert_eq!(done, Err(Trouble::Cancelled));
    }

    #[test]
    fn records_are_put_together() {
        let mut records = Records::ending_with(0);
        let mut all = Vec::new();
        for piece in ["one\0tw", "o\0\0thr", "ee"] {
            records.push(piece.as_bytes(), |one| all.push(one.to_vec()));
        }
        records.finish(|one| all.push(one.to_vec()));
        assert_eq!(all, [&b"one"[..], b"two", b"", b"three"]);
    }
}
