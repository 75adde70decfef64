//! The upload protocol as a client speaks it, one request at a time.
//!
//! Source: tus 1.0.0 core protocol; contract, client contract section 5.

use std::io;
use std::net::SocketAddr;

use serde_json::json;

use crate::folder::Folder;
use crate::http::{Connection, Request, Response};
use crate::server::{Server, VOLUME};

/// An upload session: the token is all a client has.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Where to send.
    pub to: SocketAddr,
    /// The token from the manager port.
    pub token: String,
    /// The size announced at minting.
    pub size: u64,
}

impl Upload {
    /// Asks the manager port for a token.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    #[track_caller]
    pub fn begin(server: &Server, folder: &Folder, relpath: &str, size: u64) -> Self {
        let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": relpath, "size": size});
        let answer = server
            .ask("POST", "/folder/file/upload", &body)
            .expect(200)
            .json();
        let token = answer["token"].as_str().expect("a token").to_owned();
        Self {
            to: server.client(),
            token,
            size,
        }
    }

    /// The request target.
    #[must_use]
    pub fn target(&self) -> String {
        format!("/upload?token={}", self.token)
    }

    /// A HEAD.
    #[must_use]
    #[track_caller]
    pub fn head(&self) -> Response {
        Request::new("HEAD", &self.target()).send(self.to)
    }

    /// The offset that HEAD reports.
    ///
    /// # Panics
    /// When HEAD is not 200 with an offset.
    #[must_use]
    #[track_caller]
    pub fn offset(&self) -> u64 {
        offset(&self.head().expect(200))
    }

    /// A PATCH, not sent yet.
    #[must_use]
    pub fn patch_request(&self, at: u64) -> Request {
        Request::new("PATCH", &self.target())
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Offset", &at.to_string())
            .header("Content-Type", "application/offset+octet-stream")
    }

    /// A PATCH with `Content-Length`.
    #[must_use]
    #[track_caller]
    pub fn patch(&self, at: u64, bytes: &[u8]) -> Response {
        self.patch_request(at).body(bytes).send(self.to)
    }

    /// A PUT of the bytes from `at` on, not sent yet.
    #[must_use]
    pub fn part_request(&self, at: u64, bytes: &[u8]) -> Request {
        let last = (at + bytes.len() as u64).saturating_sub(1);
        let place = format!("bytes {at}-{last}/{}", self.size);
        Request::new("PUT", &self.target())
            .header("Content-Range", &place)
            .body(bytes)
    }

    /// A PUT of the bytes from `at` on.
    #[must_use]
    #[track_caller]
    pub fn part(&self, at: u64, bytes: &[u8]) -> Response {
        self.part_request(at, bytes).send(self.to)
    }

    /// Sends the head of a part and the first of its bytes, and leaves the connection open.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin_part(&self, at: u64, announced: u64, bytes: &[u8]) -> io::Result<Connection> {
        let mut connection = Connection::open(self.to)?;
        let head = format!(
            "PUT {} HTTP/1.1\r\nHost: test\r\nContent-Range: bytes {at}-{}/{}\r\n\
             Content-Length: {announced}\r\n\r\n",
            self.target(),
            at + announced - 1,
            self.size
        );
        connection.write(head.as_bytes())?;
        connection.write(bytes)?;
        Ok(connection)
    }

    /// The durable ranges that HEAD reports, half open.
    ///
    /// # Panics
    /// When HEAD is not 200.
    #[must_use]
    #[track_caller]
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        ranges(&self.head().expect(200))
    }

    /// Sends only `sent` of the `bytes` that the head announces, and leaves the connection open.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin_patch(&self, at: u64, announced: u64, bytes: &[u8]) -> io::Result<Connection> {
        let mut connection = Connection::open(self.to)?;
        let head = format!(
            "PATCH {} HTTP/1.1\r\nHost: test\r\nUpload-Offset: {at}\r\n\
             Content-Length: {announced}\r\n\r\n",
            self.target()
        );
        connection.write(head.as_bytes())?;
        connection.write(bytes)?;
        Ok(connection)
    }
}

/// `Upload-Offset` of an answer.
///
/// # Panics
/// When it has none.
#[must_use]
#[track_caller]
pub fn offset(response: &Response) -> u64 {
    let value = response
        .header("Upload-Offset")
        .unwrap_or_else(|| panic!("offset in {response}"));
    value.parse().expect("an offset is a number")
}

/// `Upload-Ranges` of an answer, half open; none if it has no such header.
///
/// # Panics
/// When it is not a list of ranges.
#[must_use]
#[track_caller]
pub fn ranges(response: &Response) -> Vec<(u64, u64)> {
    let Some(value) = response.header("Upload-Ranges") else {
        return Vec::new();
    };
    let list = value.strip_prefix("bytes=").expect("bytes");
    let range = |text: &str| {
        let (first, last) = text.split_once('-').expect("a range");
        let number = |text: &str| text.parse::<u64>().expect("a number");
        (number(first), number(last) + 1)
    };
    list.split(',').map(range).collect()
}
