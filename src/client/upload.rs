//! Sending a file with tus, and going on after an interruption.
//!
//! Laws
//! - What the server says it has, it has: an offset is asked for with HEAD and never assumed after
//!   a failure.
//! - A remembered session is used only for the same file: size, time and inode must agree.

use std::fs::{File, Metadata};
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;

use super::body::{Payload, Stretch};
use super::folders::Folder;
use super::http::{CallError, refusal};
use super::patience::Patience;
use super::transfers::Memory;
use crate::access::Access;
use crate::failure::Failure;

/// Most bytes of one PATCH. A server that commits only whole requests then loses at most this; one
/// that commits as it goes has few commits at request ends to make.
const CHUNK_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How long a server may take nothing and say nothing.
const STALL: Duration = Duration::from_secs(120);

/// What is sent where.
pub struct Upload {
    /// Absolute.
    pub source: PathBuf,
    /// Target folder.
    pub folder: Folder,
    /// Path in it.
    pub path: String,
    /// Do not go on with an earlier session.
    pub restart: bool,
}

/// How it went.
pub struct Uploaded {
    /// Size of the file.
    pub bytes: u64,
    /// Where this run began.
    pub resumed_from: u64,
}

/// The session of an interrupted upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    token: String,
    size: u64,
    ino: u64,
    mtime_ns: i128,
}

fn session_of(token: String, found: &Metadata) -> Session {
    let mtime_ns = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
    Session {
        token,
        size: found.len(),
        ino: found.ino(),
        mtime_ns,
    }
}

/// Sends the file, whatever number of attempts it takes.
///
/// # Errors
/// The server refuses, or stays away; what was committed stays, and the next run goes on.
pub async fn upload(
    access: &Access,
    what: &Upload,
    bar: &ProgressBar,
) -> Result<Uploaded, Failure> {
    let failed = |error: std::io::Error| Failure::at("read", &what.source, &error);
    let file = File::open(&what.source).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(Failure::new(format!(
            "{} is not a regular file",
            what.source.display()
        )));
    }
    let memory = Memory::of(
        &access.data,
        format!(
            "put {} {} {} {}",
            what.source.display(),
            what.folder.volume,
            what.folder.vfid,
            what.path
        ),
    );
    let size = found.len();
    bar.set_length(size);
    let mut sender = Sender {
        access,
        file,
        size,
        token: String::new(),
        bar,
    };
    let start = sender.begin(what, &memory, &found).await?;
    if let Some(start) = start {
        sender.run(start).await?;
    }
    let after = std::fs::metadata(&what.source).map_err(failed)?;
    memory.drop_page();
    if session_of(String::new(), &after) != session_of(String::new(), &found) {
        return Err(changed(&what.source));
    }
    Ok(Uploaded {
        bytes: size,
        resumed_from: start.unwrap_or(size),
    })
}

fn changed(source: &Path) -> Failure {
    Failure::new(format!(
        "{} was changed while it was sent, so the copy may hold some of each; put it again",
        source.display()
    ))
}

/// One upload in progress.
struct Sender<'a> {
    access: &'a Access,
    file: File,
    size: u64,
    token: String,
    bar: &'a ProgressBar,
}

impl Sender<'_> {
    /// Takes up the remembered session or begins a new one. Returns where to go on; `None` when
    /// everything is there already.
    async fn begin(
        &mut self,
        what: &Upload,
        memory: &Memory,
        found: &Metadata,
    ) -> Result<Option<u64>, Failure> {
        let remembered = memory.recall::<Session>().filter(|_| !what.restart);
        let same = |session: &Session| *session == session_of(session.token.clone(), found);
        if let Some(session) = remembered.filter(same) {
            self.token = session.token;
            match self.offset().await {
                Ok(offset) if offset < self.size => return Ok(Some(offset)),
                Ok(_) => return Ok(None),
                // Expired, or collected: a new session takes its place.
                Err(error) if error.status.is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let body = json!({
            "volume": what.folder.volume,
            "vfid": what.folder.vfid,
            "relpath": what.path,
            "size": self.size,
        });
        self.token = self
            .access
            .manager
            .token("/folder/file/upload", &body)
            .await?;
        memory.keep(session_of(self.token.clone(), found))?;
        Ok(Some(0))
    }

    /// Sends from `offset` to the end.
    async fn run(&mut self, mut offset: u64) -> Result<(), Failure> {
        let mut patience = Patience::default();
        let mut first = true;
        // An empty file takes one empty PATCH.
        while first || offset < self.size {
            first = false;
            self.bar.set_position(offset);
            match self.patch(offset).await {
                Ok(reached) => offset = reached,
                Err(error) => {
                    patience.after(error, offset).await?;
                    offset = self.offset_after_failure(offset, &mut patience).await?;
                }
            }
        }
        self.bar.set_position(self.size);
        Ok(())
    }

    /// Asks until the server answers, as long as patience lasts.
    async fn offset_after_failure(
        &self,
        offset: u64,
        patience: &mut Patience,
    ) -> Result<u64, Failure> {
        loop {
            match self.offset().await {
                Ok(offset) => return Ok(offset),
                Err(error) => patience.after(error, offset).await?,
            }
        }
    }

    fn request(&self, method: Method, body: Payload) -> Result<Request<Payload>, CallError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = format!("/upload?token={}", self.token)
            .parse()
            .map_err(|_| CallError::local("the server's token does not fit into a URL"))?;
        let headers = request.headers_mut();
        headers.insert(
            HeaderName::from_static("tus-resumable"),
            HeaderValue::from_static("1.0.0"),
        );
        Ok(request)
    }

    async fn offset(&self) -> Result<u64, CallError> {
        let request = self.request(Method::HEAD, Payload::empty())?;
        let answer = timeout(STALL, self.access.client.send(request)).await;
        let response = answer.map_err(|_| CallError::broken("the server does not answer"))??;
        match response.status() {
            StatusCode::OK | StatusCode::NO_CONTENT => self.offset_of(&response),
            _ => Err(refusal(response).await),
        }
    }

    /// `Upload-Offset`, which never lies beyond the end.
    fn offset_of<B>(&self, response: &Response<B>) -> Result<u64, CallError> {
        let header = response.headers().get("upload-offset");
        let offset = header.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        match offset {
            Some(offset) if offset <= self.size => Ok(offset),
            Some(offset) => Err(CallError::broken(format!(
                "the server has {offset} of {} bytes",
                self.size
            ))),
            None => Err(CallError::broken(
                "the server's answer has no upload offset",
            )),
        }
    }

    /// The likely cause of a body that broke off.
    fn shorter(&self) -> Option<CallError> {
        let bytes = self.file.metadata().ok()?.len();
        (bytes < self.size).then(|| CallError::local("the file became shorter while it was sent"))
    }

    /// Sends one chunk; returns how far the server is then.
    async fn patch(&mut self, offset: u64) -> Result<u64, CallError> {
        let local = |error: std::io::Error| CallError::local(format!("read: {error}"));
        let mut file = self.file.try_clone().map_err(local)?;
        file.seek(SeekFrom::Start(offset)).map_err(local)?;
        let sent = Arc::new(AtomicU64::new(0));
        let left = (self.size - offset).min(CHUNK_BYTES_MAX);
        let stretch = Stretch {
            file,
            left,
            sent: sent.clone(),
            bar: self.bar.clone(),
        };
        let mut request = self.request(Method::PATCH, Payload::Stretch(stretch))?;
        let headers = request.headers_mut();
        headers.insert(
            HeaderName::from_static("upload-offset"),
            HeaderValue::from(offset),
        );
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/offset+octet-stream"),
        );
        let mut answer = Box::pin(self.access.client.send(request));
        let mut before = 0;
        let response = loop {
            if let Ok(answer) = timeout(STALL, &mut answer).await {
                break answer.map_err(|error| self.shorter().unwrap_or(error))?;
            }
            let now = sent.load(Ordering::Relaxed);
            if now == before {
                return Err(CallError::broken("the server takes no more bytes"));
            }
            before = now;
        };
        match response.status() {
            StatusCode::NO_CONTENT | StatusCode::OK => self.offset_of(&response),
            _ => Err(refusal(response).await),
        }
    }
}
