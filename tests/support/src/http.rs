//! HTTP/1.1 over a plain socket: every byte sent is the test's own, right or wrong.
//!
//! Source: RFC 9112. The parser is strict towards the server: an answer that is not framed as
//! it says is an error, and so is a body cut short.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// No single read or write of a test waits longer.
pub const IO_BOUND: Duration = Duration::from_secs(60);

/// A request before it is sent. `Host` is added unless one is given.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
}

impl Request {
    /// A request with this method and this target, written as they stand.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Body::None,
        }
    }

    /// Adds a header; the same name may come twice.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A JSON body with its content type.
    #[must_use]
    pub fn json(self, value: &Value) -> Self {
        self.header("Content-Type", "application/json")
            .body(value.to_string().as_bytes())
    }

    /// A body with `Content-Length`.
    #[must_use]
    pub fn body(mut self, bytes: &[u8]) -> Self {
        self.body = Body::Length(bytes.to_vec());
        self
    }

    /// A chunked body, one chunk per part.
    #[must_use]
    pub fn chunked(mut self, parts: &[&[u8]]) -> Self {
        self.body = Body::Chunked(parts.iter().map(|p| p.to_vec()).collect());
        self
    }

    /// The bytes that go over the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        if !self
            .headers
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case("host"))
        {
            out.extend_from_slice(b"Host: test\r\n");
        }
        for (name, value) in &self.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        match &self.body {
            Body::None => out.extend_from_slice(b"\r\n"),
            Body::Length(bytes) => {
                out.extend_from_slice(
                    format!("Content-Length: {}\r\n\r\n", bytes.len()).as_bytes(),
                );
                out.extend_from_slice(bytes);
            }
            Body::Chunked(parts) => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for part in parts {
                    out.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                    out.extend_from_slice(part);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"0\r\n\r\n");
            }
        }
        out
    }

    /// The body without its framing, and whether its length is announced. `None` without a body.
    pub(crate) fn content(&self) -> Option<(Vec<u8>, bool)> {
        match &self.body {
            Body::None => None,
            Body::Length(bytes) => Some((bytes.clone(), true)),
            Body::Chunked(parts) => Some((parts.concat(), false)),
        }
    }

    /// Sends it on a connection of its own.
    ///
    /// # Panics
    /// When no whole answer comes back.
    #[must_use]
    #[track_caller]
    pub fn send(&self, to: SocketAddr) -> Response {
        match Connection::open(to).and_then(|mut c| c.ask(self)) {
            Ok(response) => response,
            Err(err) => panic!("{} {}: {err}", self.method, self.target),
        }
    }
}

/// How the answer's body was framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body: 204, 304, or an answer to HEAD.
    None,
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Neither: until the end of the connection.
    Close,
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The reason phrase as sent.
    pub reason: String,
    /// Header lines in order, names as sent.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// How the body was framed.
    pub framing: Framing,
}

impl Response {
    /// The value of a header; `None` when it is absent.
    ///
    /// # Panics
    /// When it comes more than once: no header of the contract does.
    #[must_use]
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let all: Vec<&str> = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect();
        assert!(all.len() <= 1, "{name} comes {} times", all.len());
        all.first().copied()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(err) => panic!("{err} in {self}"),
        }
    }

    /// The body as text, for messages.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// This answer, when its status is the expected one.
    ///
    /// # Panics
    /// When it is another.
    #[must_use]
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} {}", self.status, self.reason)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        let shown = &self.body[..self.body.len().min(2000)];
        write!(
            f,
            "[{} bytes] {}",
            self.body.len(),
            String::from_utf8_lossy(shown)
        )
    }
}

/// One connection; answers are read one by one, so pipelining and leftovers can be seen.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects, with [`IO_BOUND`] on every read and write.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, IO_BOUND)?;
        stream.set_read_timeout(Some(IO_BOUND))?;
        stream.set_write_timeout(Some(IO_BOUND))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// The socket itself, to cut it or to change its limits.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// What the system says; a server that closed early is `BrokenPipe` or `ConnectionReset`.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When the connection ends before the answer does, or the answer is not HTTP.
    pub fn ask(&mut self, request: &Request) -> io::Result<Response> {
        // A server may refuse by its head alone and close: the answer counts, not the write.
        let sent = self.write(&request.to_bytes());
        match self.answer(request.method == "HEAD") {
            Ok(response) => Ok(response),
            Err(err) => sent.and(Err(err)),
        }
    }

    /// Reads one answer; interim ones (1xx) are passed over.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends first, `InvalidData` when it is not HTTP.
    pub fn answer(&mut self, to_head: bool) -> io::Result<Response> {
        let mut response = self.head()?;
        while response.status / 100 == 1 {
            response = self.head()?;
        }
        response.framing = framing(&response, to_head)?;
        response.body = match response.framing {
            Framing::None => Vec::new(),
            Framing::Length => {
                let len = content_length(&response)?;
                self.exactly(len)?
            }
            Framing::Chunked => self.chunks()?,
            Framing::Close => self.rest()?,
        };
        Ok(response)
    }

    /// Reads one head and leaves its body in the stream: for slow or abandoned readers.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn head(&mut self) -> io::Result<Response> {
        let end = loop {
            if let Some(i) = find(&self.buffer, b"\r\n\r\n") {
                break i;
            }
            if self.buffer.len() > 64 * 1024 {
                return Err(invalid("answer head over 64 KiB"));
            }
            self.more()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        parse_head(&head[..end])
    }

    /// Reads up to `max` bytes of body as they come; empty at the end of the connection.
    ///
    /// # Errors
    /// What the system says.
    pub fn some(&mut self, max: usize) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() && self.fill()? == 0 {
            return Ok(Vec::new());
        }
        let n = self.buffer.len().min(max);
        Ok(self.buffer.drain(..n).collect())
    }

    /// Everything until the server closes; a reset counts as an end.
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.buffer);
        let _ = self.stream.read_to_end(&mut all);
        all
    }

    /// True when the server has closed and sent nothing more, waiting at most `bound`.
    #[must_use]
    pub fn is_closed_within(&mut self, bound: Duration) -> bool {
        if !self.buffer.is_empty() || self.stream.set_read_timeout(Some(bound)).is_err() {
            return false;
        }
        let mut byte = [0];
        let closed = match self.stream.read(&mut byte) {
            Ok(n) => n == 0,
            Err(err) => !matches!(
                err.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
            ),
        };
        let _ = self.stream.set_read_timeout(Some(IO_BOUND));
        closed
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 64 * 1024];
        let n = loop {
            match self.stream.read(&mut chunk) {
                // A read with a time limit is not begun again by itself after a stop: signal(7).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    fn more(&mut self) -> io::Result<()> {
        match self.fill()? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "connection ended early",
            )),
            _ => Ok(()),
        }
    }

    fn exactly(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < len {
            self.more()?;
        }
        Ok(self.buffer.drain(..len).collect())
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(i) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..i + 2).collect();
                return String::from_utf8(line[..i].to_vec()).map_err(|_| invalid("chunk line"));
            }
            self.more()?;
        }
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or(""), 16)
                .map_err(|_| invalid("chunk size"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            if !self.line()?.is_empty() {
                return Err(invalid("chunk end"));
            }
        }
    }

    fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }
}

fn framing(response: &Response, to_head: bool) -> io::Result<Framing> {
    let chunked = response
        .header("Transfer-Encoding")
        .map(str::to_ascii_lowercase);
    if chunked.is_some() && response.header("Content-Length").is_some() {
        return Err(invalid("both Content-Length and Transfer-Encoding"));
    }
    if to_head || response.status == 204 || response.status == 304 {
        return Ok(Framing::None);
    }
    match chunked.as_deref() {
        Some("chunked") => Ok(Framing::Chunked),
        Some(_) => Err(invalid("unknown Transfer-Encoding")),
        None if response.header("Content-Length").is_some() => Ok(Framing::Length),
        None => Ok(Framing::Close),
    }
}

fn content_length(response: &Response) -> io::Result<usize> {
    response
        .header("Content-Length")
        .and_then(|v| v.parse().ok())
        .ok_or_else(|| invalid("Content-Length"))
}

fn parse_head(head: &[u8]) -> io::Result<Response> {
    // Header values may hold raw bytes; lossy is enough to show and to compare them.
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or("");
    let mut words = status_line.splitn(3, ' ');
    if words.next() != Some("HTTP/1.1") {
        return Err(invalid("status line"));
    }
    let status = words
        .next()
        .and_then(|w| w.parse().ok())
        .ok_or_else(|| invalid("status"))?;
    let reason = words.next().unwrap_or("").to_owned();
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("header line"))?;
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err(invalid("header name"));
        }
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok(Response {
        status,
        reason,
        headers,
        body: Vec::new(),
        framing: Framing::None,
    })
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {what}"))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// Percent-encodes everything but unreserved characters: for values in a query string.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(byte as char);
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A date as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
#[must_use]
pub fn date(unix_seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, second) = (
        unix_seconds.div_euclid(86_400),
        unix_seconds.rem_euclid(86_400),
    );
    let (mut year, mut left) = (1970, days);
    let year_days = |y: i64| {
        if y % 4 == 0 && (y % 100 != 0 || y % 400 == 0) {
            366
        } else {
            365
        }
    };
    while left < 0 {
        year -= 1;
        left += year_days(year);
    }
    while year_days(year) <= left {
        left -= year_days(year);
        year += 1;
    }
    let february = year_days(year) - 337;
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while lengths[month] <= left {
        left -= lengths[month];
        month += 1;
    }
    let weekday = DAYS[days.rem_euclid(7) as usize];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (day, month) = (left + 1, MONTHS[month]);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_written_as_http_writes_them() {
        for (seconds, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_827_696, "Tue, 29 Feb 2000 12:34:56 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
        ] {
            assert_eq!(date(seconds), want);
        }
    }
}
