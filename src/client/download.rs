//! Fetching a file, and going on after an interruption.
//!
//! Laws
//! - The target appears whole or not at all: bytes go to `<target>.part` first.
//! - Bytes of two versions never mix: a continuation names the version (`If-Range`), and begins
//!   anew when the server has another one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderValue, IF_RANGE, RANGE};
use hyper::{Request, Response, StatusCode};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;

use super::body::Payload;
use super::folders::Folder;
use super::http::{CallError, refusal};
use super::patience::Patience;
use super::progress;
use super::transfers::Memory;
use crate::access::Access;
use crate::failure::Failure;

/// How long a server may send nothing.
const STALL: Duration = Duration::from_secs(60);

/// What is fetched from where to where.
pub struct Download {
    /// Source folder.
    pub folder: Folder,
    /// Path in it.
    pub path: String,
    /// `None` for standard output.
    pub target: Option<PathBuf>,
    /// As a zip archive.
    pub zip: bool,
    /// Do not go on with an earlier part.
    pub restart: bool,
}

/// How it went.
pub struct Downloaded {
    /// Size of the file.
    pub bytes: u64,
    /// Where this run began.
    pub resumed_from: u64,
}

/// The version of the file that a part belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Version {
    etag: String,
    size: u64,
}

/// Where bytes go.
enum Sink {
    Part(File),
    Stdout,
}

/// Fetches the file, whatever number of attempts it takes.
///
/// # Errors
/// The server refuses, or stays away; what has arrived stays, and the next run goes on.
pub async fn download(
    access: &Access,
    what: &Download,
    bar: &ProgressBar,
) -> Result<Downloaded, Failure> {
    let body = json!({
        "volume": what.folder.volume,
        "vfid": what.folder.vfid,
        "relpath": what.path,
        "archive": what.zip,
    });
    let token = access.manager.token("/folder/file/download", &body).await?;
    let query = if what.zip { "&archive=true" } else { "" };
    let url = format!("/download?token={token}{query}");
    let mut fetch = Fetch::open(access, what, url, bar)?;
    let resumed_from = fetch.have;
    if let Err(failure) = fetch.run().await {
        fetch.abandon(what);
        return Err(failure);
    }
    fetch.finish(what)?;
    Ok(Downloaded {
        bytes: fetch.have,
        resumed_from: fetch.began_at(resumed_from),
    })
}

/// `name.part` beside the target.
fn part_of(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// One download in progress.
struct Fetch<'a> {
    access: &'a Access,
    url: String,
    bar: &'a ProgressBar,
    sink: Sink,
    memory: Option<Memory>,
    /// Which version the bytes are of, once known.
    version: Option<Version>,
    /// Bytes that are there.
    have: u64,
    /// The server had another version, so this run began at the first byte after all.
    anew: bool,
}

impl<'a> Fetch<'a> {
    fn open(
        access: &'a Access,
        what: &Download,
        url: String,
        bar: &'a ProgressBar,
    ) -> Result<Self, Failure> {
        let mut fetch = Self {
            access,
            url,
            bar,
            sink: Sink::Stdout,
            memory: None,
            version: None,
            have: 0,
            anew: false,
        };
        let Some(target) = &what.target else {
            return Ok(fetch);
        };
        let part = part_of(target);
        let failed = |error: io::Error| Failure::at("write", &part, &error);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part)
            .map_err(failed)?;
        let Folder { volume, vfid } = &what.folder;
        let name = format!("get {} {volume} {vfid} {}", target.display(), what.path);
        let memory = Memory::of(&access.data, name);
        let length = file.metadata().map_err(failed)?.len();
        let goes_on = !what.restart && !what.zip;
        let known = memory
            .recall::<Version>()
            .filter(|known| goes_on && length <= known.size);
        if known.is_some() {
            fetch.have = file.seek(SeekFrom::Start(length)).map_err(failed)?;
        } else {
            file.set_len(0).map_err(failed)?;
        }
        fetch.version = known;
        fetch.memory = Some(memory);
        fetch.sink = Sink::Part(file);
        Ok(fetch)
    }

    const fn began_at(&self, resumed_from: u64) -> u64 {
        if self.anew { 0 } else { resumed_from }
    }

    async fn run(&mut self) -> Result<(), Failure> {
        let mut patience = Patience::default();
        loop {
            match self.attempt().await {
                Ok(()) => return Ok(()),
                Err(Stop::Call(error)) => patience.after(error, self.have).await?,
                Err(Stop::Here(failure)) => return Err(failure),
            }
            // Without a version there is nothing to continue.
            if self.version.is_none() {
                self.begin_anew()?;
            }
        }
    }

    /// One request, from where we are to the end.
    async fn attempt(&mut self) -> Result<(), Stop> {
        // A part that is whole asks for its last byte again: the answer proves the version.
        let from = match &self.version {
            Some(version) => self.have.min(version.size.saturating_sub(1)),
            None => 0,
        };
        let mut request = Request::new(Payload::empty());
        *request.uri_mut() = self
            .url
            .parse()
            .map_err(|_| CallError::local("the server's token does not fit into a URL"))?;
        if let Some(version) = self.version.as_ref().filter(|_| from != 0) {
            let etag = HeaderValue::from_str(&version.etag)
                .map_err(|error| CallError::local(error.to_string()))?;
            let range = format!("bytes={from}-");
            let range = HeaderValue::from_str(&range)
                .map_err(|error| CallError::local(error.to_string()))?;
            request.headers_mut().insert(IF_RANGE, etag);
            request.headers_mut().insert(RANGE, range);
        }
        let answer = timeout(STALL, self.access.client.send(request)).await;
        let response = answer.map_err(|_| CallError::broken("the server does not answer"))??;
        match response.status() {
            StatusCode::OK => {
                if self.have != 0 {
                    self.begin_anew()?;
                }
                self.version = version_of(&response);
            }
            StatusCode::PARTIAL_CONTENT => self.continue_at(from, &response)?,
            StatusCode::RANGE_NOT_SATISFIABLE => {
                self.begin_anew()?;
                return Err(CallError::broken("the file has changed").into());
            }
            _ => return Err(refusal(response).await.into()),
        }
        if let (Some(memory), Some(version)) = (&self.memory, &self.version) {
            memory.keep(version.clone())?;
        }
        let end = self.version.as_ref().map(|version| version.size);
        progress::set_length(self.bar, end);
        self.bar.set_position(self.have);
        self.receive(response).await?;
        match end {
            Some(end) if self.have != end => {
                Err(CallError::broken(format!("{} of {end} bytes arrived", self.have)).into())
            }
            _ => Ok(()),
        }
    }

    /// The server goes on: at the right place, in the right version.
    fn continue_at(&mut self, from: u64, response: &Response<Incoming>) -> Result<(), Stop> {
        let range = response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|value| value.to_str().ok());
        let (start, size) = range.and_then(content_range).unwrap_or((u64::MAX, 0));
        let etag = response
            .headers()
            .get(ETAG)
            .and_then(|value| value.to_str().ok());
        let same = self.version.as_ref().is_some_and(|version| {
            start == from && size == version.size && etag.is_none_or(|etag| etag == version.etag)
        });
        if !same {
            self.begin_anew()?;
            return Err(CallError::broken("the server went on somewhere else").into());
        }
        if let Sink::Part(file) = &mut self.sink {
            let moved = file.seek(SeekFrom::Start(from));
            moved.map_err(|error| Failure::new(format!("write: {error}")))?;
        }
        self.have = from;
        Ok(())
    }

    async fn receive(&mut self, response: Response<Incoming>) -> Result<(), Stop> {
        let mut body = response.into_body();
        loop {
            let frame = match timeout(STALL, body.frame()).await {
                Err(_) => return Err(CallError::broken("the server sends no more bytes").into()),
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => {
                    return Err(CallError::broken(format!("connection lost: {error}")).into());
                }
                Ok(Some(Ok(frame))) => frame,
            };
            if let Ok(bytes) = frame.into_data() {
                let written = match &mut self.sink {
                    Sink::Part(file) => file.write_all(&bytes),
                    Sink::Stdout => io::stdout().lock().write_all(&bytes),
                };
                written.map_err(|error| Failure::new(format!("write: {error}")))?;
                self.have += bytes.len() as u64;
                self.bar.inc(bytes.len() as u64);
            }
        }
    }

    /// Drops what is there.
    fn begin_anew(&mut self) -> Result<(), Failure> {
        self.version = None;
        if self.have == 0 {
            return Ok(());
        }
        match &mut self.sink {
            Sink::Part(file) => {
                let emptied = file.set_len(0).and_then(|()| file.rewind());
                emptied.map_err(|error| Failure::new(format!("write: {error}")))?;
            }
            Sink::Stdout => {
                let text = "the transfer broke and cannot begin anew on standard output";
                return Err(Failure::new(text));
            }
        }
        self.have = 0;
        self.anew = true;
        Ok(())
    }

    /// A part without a byte, or without a version to go on from, is of no use.
    fn abandon(&self, what: &Download) {
        if let Some(target) = what.target.as_ref().filter(|_| self.version.is_none()) {
            // What cannot be removed is overwritten by the next run.
            let _ = fs::remove_file(part_of(target));
        }
    }

    /// The part is whole: it becomes the target.
    fn finish(&mut self, what: &Download) -> Result<(), Failure> {
        match (&mut self.sink, &what.target) {
            (Sink::Part(file), Some(target)) => {
                let part = part_of(target);
                // A version that shrank while we fetched leaves no tail.
                let whole = file.set_len(self.have).and_then(|()| file.sync_all());
                whole
                    .and_then(|()| fs::rename(&part, target))
                    .map_err(|error| Failure::at("write", target, &error))?;
            }
            _ => io::stdout()
                .lock()
                .flush()
                .map_err(|error| Failure::new(format!("write: {error}")))?,
        }
        if let Some(memory) = &self.memory {
            memory.drop_page();
        }
        Ok(())
    }
}

/// Why an attempt ended.
enum Stop {
    /// On the way: may pass.
    Call(CallError),
    /// On this machine: does not.
    Here(Failure),
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

/// Strong entity tag and length, without which there is nothing to continue.
fn version_of(response: &Response<Incoming>) -> Option<Version> {
    let text = |name| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let etag = text(ETAG).filter(|etag| etag.starts_with('"'))?;
    let size = text(CONTENT_LENGTH)?.parse().ok()?;
    Some(Version {
        etag: etag.to_owned(),
        size,
    })
}

/// Start and total of `bytes a-b/N`.
fn content_range(value: &str) -> Option<(u64, u64)> {
    let (span, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = span.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        for (value, want) in [
            ("bytes 10-19/100", Some((10, 100))),
            ("bytes */100", None),
            ("bytes 0-1/*", None),
            ("items 0-1/2", None),
        ] {
            assert_eq!(content_range(value), want, "{value}");
        }
    }
}
