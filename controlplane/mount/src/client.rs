//! The server's side: jobs with numbers, answers in any order.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

use crate::protocol::{Answer, Request, Task, frame, length_of};

/// How much later than its limit an answer may come.
const GRACE: Duration = Duration::from_secs(2);

/// Why a job is not done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The keeper of mounts does not run, or has ended.
    #[error("the keeper of mounts is gone: {0}")]
    Gone(String),
    /// No answer in time. The job may still go on.
    #[error("the keeper of mounts does not answer in time")]
    Late,
    /// In use; trying again may help.
    #[error("{0}")]
    Busy(String),
    /// It said no, in these words.
    #[error("{0}")]
    Refused(String),
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// A connection to the keeper of mounts, shared by whoever holds a clone.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Where to connect again; `None` for a pair of sockets, which is made once.
    path: Option<PathBuf>,
    line: tokio::sync::Mutex<Option<Line>>,
    next_id: AtomicU64,
}

#[derive(Debug)]
struct Line {
    writer: OwnedWriteHalf,
    waiting: Waiting,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Client {
    /// Over one end of a pair of sockets; called inside a runtime.
    ///
    /// # Errors
    /// The runtime does not take it.
    pub fn over(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let line = Line::new(UnixStream::from_std(stream)?);
        Ok(Self::new(None, Some(line)))
    }

    /// Over a socket with a name, connected when it is needed, and again.
    pub fn to(path: PathBuf) -> Self {
        Self::new(Some(path), None)
    }

    fn new(path: Option<PathBuf>, line: Option<Line>) -> Self {
        Self(Arc::new(Inner {
            path,
            line: tokio::sync::Mutex::new(line),
            next_id: AtomicU64::new(1),
        }))
    }

    /// Has one job done. The text is empty, or worth knowing.
    ///
    /// # Errors
    /// See [`ClientError`].
    ///
    /// # Cancellation
    /// Dropping the future leaves the job going on.
    pub async fn run(&self, task: Task, limit: Duration) -> Result<String, ClientError> {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let request = Request {
            id,
            time_limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            task,
        };
        let bytes = frame(&request).map_err(|error| ClientError::Refused(error.to_string()))?;
        let answer = self.send(id, &bytes).await?;
        match tokio::time::timeout(limit + GRACE, answer).await {
            Ok(Ok(answer)) if answer.done => Ok(answer.text),
            Ok(Ok(answer)) if answer.busy => Err(ClientError::Busy(answer.text)),
            Ok(Ok(answer)) => Err(ClientError::Refused(answer.text)),
            Ok(Err(_)) => Err(ClientError::Gone("it has ended".into())),
            Err(_) => Err(ClientError::Late),
        }
    }

    async fn send(&self, id: u64, bytes: &[u8]) -> Result<oneshot::Receiver<Answer>, ClientError> {
        let gone = |error: io::Error| ClientError::Gone(error.to_string());
        let mut slot = self.0.line.lock().await;
        let ended = slot.as_ref().is_none_or(|line| line.reader.is_finished());
        if ended {
            *slot = None;
            let path = self.0.path.as_ref();
            let path = path.ok_or_else(|| ClientError::Gone("it has ended".into()))?;
            *slot = Some(Line::new(UnixStream::connect(path).await.map_err(gone)?));
        }
        let Some(line) = slot.as_mut() else {
            return Err(ClientError::Gone("not connected".into()));
        };
        let (tell, told) = oneshot::channel();
        lock(&line.waiting).insert(id, tell);
        // A frame is small, and the other side always reads: this does not wait for long. If it
        // is dropped half-way the stream is unusable, so it is bounded from the inside.
        let written = tokio::time::timeout(GRACE, line.writer.write_all(bytes)).await;
        if !matches!(written, Ok(Ok(()))) {
            *slot = None;
            return Err(ClientError::Gone("it does not listen".into()));
        }
        Ok(told)
    }
}

impl Line {
    fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        let waiting = Waiting::default();
        let known = Arc::clone(&waiting);
        let reader = tokio::spawn(async move {
            if let Err(error) = read(reader, &known).await {
                tracing::error!(%error, "the keeper of mounts is gone");
            }
            // Whoever waits hears of the end by the closed channel.
            lock(&known).clear();
        });
        Self {
            writer,
            waiting,
            reader,
        }
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(mut stream: OwnedReadHalf, waiting: &Waiting) -> io::Result<()> {
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head).await?;
        let mut body = vec![0; length_of(head)?];
        stream.read_exact(&mut body).await?;
        let answer: Answer = serde_json::from_slice(&body)?;
        if let Some(tell) = lock(waiting).remove(&answer.id) {
            // A caller that is gone wants no answer.
            let _ = tell.send(answer);
        }
    }
}
