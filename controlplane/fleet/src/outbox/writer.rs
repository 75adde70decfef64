//! The file of the outbox, and the thread that writes it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::book::{Book, Kept};
use super::{OutboxLimits, Shared};

/// A file is written anew when it holds this much, and twice what waits.
const REWRITE_BYTES: usize = 1 << 20;
/// Pause before a disk that refused is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// One line to write.
pub(super) enum Line<'a> {
    Put {
        number: u64,
        held: bool,
        kept: &'a Kept,
    },
    Due(u64),
    Gone(u64),
}

#[derive(Serialize)]
struct PutText<'a> {
    put: u64,
    held: bool,
    #[serde(flatten)]
    kept: &'a Kept,
}

/// One line as it is read: exactly one of the numbers is there.
#[derive(Deserialize)]
struct LineText {
    put: Option<u64>,
    due: Option<u64>,
    gone: Option<u64>,
    #[serde(default)]
    held: bool,
    #[serde(flatten)]
    kept: Option<Kept>,
}

impl Line<'_> {
    pub(super) fn append(&self, to: &mut Vec<u8>) {
        let text = match self {
            Self::Put { number, held, kept } => serde_json::to_string(&PutText {
                put: *number,
                held: *held,
                kept,
            })
            .expect("plain data with text keys"),
            Self::Due(number) => format!("{{\"due\":{number}}}"),
            Self::Gone(number) => format!("{{\"gone\":{number}}}"),
        };
        to.extend(text.as_bytes());
        to.push(b'\n');
    }
}

/// See the module.
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    bytes: usize,
    is_torn: bool,
    is_told: bool,
}

impl Writer {
    /// Opens the file, and reads what waits in it.
    pub(super) fn open(path: &Path, limits: OutboxLimits) -> io::Result<(Self, Book)> {
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        let mut text = Vec::new();
        // What is beyond was never written by us: a file is written anew long before.
        let most = 4 * limits.bytes_max.max(REWRITE_BYTES) as u64;
        (&file).take(most).read_to_end(&mut text)?;
        let (book, unread) = read(&text, limits);
        if 0 < unread {
            let path = path.display();
            tracing::warn!(lines = unread, %path, "lines of the outbox are unreadable");
        }
        sync_parent(path)?;
        let writer = Self {
            path: path.to_owned(),
            file,
            bytes: text.len(),
            is_torn: text.last().is_some_and(|last| *last != b'\n'),
            is_told: false,
        };
        Ok((writer, book))
    }

    /// Writes what comes until the outbox is closed.
    pub(super) fn run(mut self, shared: &Shared) {
        loop {
            let (lines, waiters) = {
                let mut state = shared.state.lock();
                while state.lines.is_empty() && state.waiters.is_empty() && !state.closed {
                    shared.work.wait(&mut state);
                }
                if state.lines.is_empty() && state.waiters.is_empty() {
                    return;
                }
                let lines = std::mem::take(&mut state.lines);
                (lines, std::mem::take(&mut state.waiters))
            };
            if self.write(&lines, &waiters) {
                answer(waiters, true);
                self.tidy(shared);
                continue;
            }
            answer(waiters, false);
            let mut state = shared.state.lock();
            let newer = std::mem::replace(&mut state.lines, lines);
            state.lines.extend(newer);
            if state.closed {
                return;
            }
            shared.work.wait_for(&mut state, RETRY_PAUSE);
        }
    }

    /// Appends, and syncs if anybody waits for it.
    fn write(&mut self, lines: &[u8], waiters: &[oneshot::Sender<bool>]) -> bool {
        let written = self.append(lines).and_then(|()| {
            if waiters.is_empty() {
                return Ok(());
            }
            self.file.sync_data()
        });
        match written {
            Ok(()) => {
                if std::mem::take(&mut self.is_told) {
                    tracing::info!("the outbox is written again");
                }
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_told, true) {
                    let path = self.path.display();
                    tracing::error!(%path, %error, "events are kept in memory only");
                }
                false
            }
        }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.is_torn {
            self.file.write_all(b"\n")?;
        }
        self.is_torn = true;
        self.file.write_all(lines)?;
        self.is_torn = false;
        self.bytes += lines.len();
        Ok(())
    }

    /// Makes the file smaller when most of it is history.
    fn tidy(&mut self, shared: &Shared) {
        if self.bytes < REWRITE_BYTES {
            return;
        }
        let text = {
            let mut state = shared.state.lock();
            if self.bytes < 2 * state.book.bytes() {
                return;
            }
            // What is not written yet is in the book as well.
            state.lines.clear();
            let mut text = Vec::new();
            for (number, kept, held) in state.book.iter() {
                Line::Put { number, held, kept }.append(&mut text);
            }
            text
        };
        if let Err(error) = self.replace(&text) {
            tracing::warn!(%error, "the outbox was not written anew");
            // What was cleared above must not be missing: it goes to the end of the old file.
            let mut state = shared.state.lock();
            let newer = std::mem::replace(&mut state.lines, text);
            state.lines.extend(newer);
        }
    }

    fn replace(&mut self, text: &[u8]) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        sync_parent(&self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.bytes = text.len();
        self.is_torn = false;
        Ok(())
    }
}

fn answer(waiters: Vec<oneshot::Sender<bool>>, synced: bool) {
    for waiter in waiters {
        // Who went away does not want to know.
        let _ = waiter.send(synced);
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// What waits according to the lines, and how many of them are unreadable.
fn read(text: &[u8], limits: OutboxLimits) -> (Book, usize) {
    let mut book = Book::new(limits);
    let mut unread = 0;
    for line in text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let parsed = serde_json::from_slice(line);
        match parsed {
            Ok(LineText {
                put: Some(number),
                held,
                kept: Some(mut kept),
                ..
            }) => {
                kept.is_old = true;
                book.restore(number, kept, held);
            }
            Ok(LineText {
                due: Some(number), ..
            }) => drop(book.release(number)),
            Ok(LineText {
                gone: Some(number), ..
            }) => drop(book.strike(number)),
            Ok(_) | Err(_) => unread += 1,
        }
    }
    (book, unread)
}
