//! What a client sends and what it expects back: requests as data, ready to go out.
//!
//! A peer says in these words how one of its files is read or written; the load generator knows
//! nothing of tokens, sessions or paths.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::fixture::FileId;

/// One request and what makes its answer right.
#[derive(Clone, Debug)]
pub struct Call {
    /// Request line and headers, complete with the empty line at the end. `Content-Length` stands
    /// in it when there is a body. For HTTP/2 the generator takes it apart again.
    pub head: Arc<[u8]>,
    /// What follows the head.
    pub body: Body,
    /// Another address than [`Running::address`](crate::peer::Running::address): always plain
    /// HTTP/1.1, whatever the workload speaks. Our manager port is such a one.
    pub to: Option<SocketAddr>,
    /// Goes over a new connection, which ends with it: as clients without keep-alive do.
    pub fresh: bool,
    /// The right answer.
    pub expect: Expect,
}

/// The body of a request.
#[derive(Clone, Debug)]
pub enum Body {
    /// None.
    None,
    /// A few bytes, such as JSON.
    Bytes(Arc<[u8]>),
    /// `len` bytes from `from` on of a file of the fixture; leaves by sendfile.
    File {
        /// Which file.
        file: FileId,
        /// First byte.
        from: u64,
        /// How many.
        len: u64,
    },
}

/// What makes an answer right.
#[derive(Clone, Debug)]
pub struct Expect {
    /// The status; where it is 204, the request that makes a file whole may also say 201.
    pub status: u16,
    /// The body.
    pub content: Content,
}

impl Expect {
    /// Whether an answer with this status is right.
    #[must_use]
    pub fn allows(&self, status: u16) -> bool {
        status == self.status || (self.status == 204 && status == 201)
    }
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Whatever it is; kept for [`Exchange::next`] up to 64 KiB.
    Kept,
    /// These bytes of this file. The length is checked always, the bytes when verifying.
    File {
        /// Which file.
        file: FileId,
        /// First byte.
        from: u64,
        /// How many.
        len: u64,
    },
    /// An archive with at least this many bytes. When verifying, it is unpacked and compared.
    Archive {
        /// The sum of its members.
        bytes_min: u64,
    },
}

/// An answer that the generator keeps for the exchange it belongs to.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers as they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, for [`Content::Kept`].
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What comes next in an exchange.
#[derive(Debug)]
pub enum Step {
    /// These calls at the same time, each over a connection of its own; mostly one.
    Calls(Vec<Call>),
    /// It is done.
    Done,
}

/// Requests of which one follows from the answers to another: an upload.
///
/// Statuses are checked by the generator before `next` sees an answer.
pub trait Exchange: Send {
    /// What to send now. `answers` belong to the calls of the step before, in their order; the
    /// first call gets none.
    ///
    /// # Errors
    /// An answer without what the protocol promises: counted, and the exchange ends.
    fn next(&mut self, answers: &[Answer]) -> Result<Step, String>;
}

impl Call {
    /// A request with a body known by its length only, or none.
    ///
    /// `headers` are whole lines without line ends; `Host` and `Content-Length` are added.
    #[must_use]
    pub fn new(method: &str, target: &str, headers: &[&str], body: Body, expect: Expect) -> Self {
        use std::fmt::Write as _;
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: bench\r\n");
        for line in headers {
            head.push_str(line);
            head.push_str("\r\n");
        }
        let len = match &body {
            Body::None => None,
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::File { len, .. } => Some(*len),
        };
        if let Some(len) = len {
            // Writing into a String cannot fail.
            let _ = write!(head, "Content-Length: {len}\r\n");
        }
        head.push_str("\r\n");
        Self {
            head: head.into_bytes().into(),
            body,
            to: None,
            fresh: false,
            expect,
        }
    }

    /// A GET of a whole file of the fixture.
    #[must_use]
    pub fn get(target: &str, file: FileId, len: u64) -> Self {
        let content = Content::File { file, from: 0, len };
        let status = 200;
        Self::new("GET", target, &[], Body::None, Expect { status, content })
    }

    /// The same request for a part: adds `Range`, expects 206.
    #[must_use]
    pub fn ranged(&self, from: u64, len: u64) -> Self {
        let mut call = self.clone();
        let line = format!("Range: bytes={from}-{}\r\n\r\n", from + len - 1);
        let mut head = self.head[..self.head.len() - 2].to_vec();
        head.extend_from_slice(line.as_bytes());
        call.head = head.into();
        call.expect.status = 206;
        if let Content::File { file, .. } = call.expect.content {
            call.expect.content = Content::File { file, from, len };
        }
        call
    }
}
