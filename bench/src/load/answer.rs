//! The head of an answer and the framing of its body (RFC 9112), for a client that knows what it
//! asked for.

use std::num::IntErrorKind;

/// Largest head that is read.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    /// Its bytes, with the empty line.
    pub len: usize,
    /// The status.
    pub status: u16,
    /// How the body ends.
    pub framing: Framing,
    /// The server closes the connection afterwards.
    pub close: bool,
    /// Names in lower case; empty unless asked for.
    pub headers: Vec<(String, String)>,
}

/// How a body ends.
#[derive(Debug)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With a chunk of no bytes.
    Chunked(Chunked),
    /// With the connection.
    UntilClose,
}

/// Reads a head; `None` when it is not whole yet. Interim answers (1xx) are passed over by the
/// caller.
///
/// # Errors
/// What is not HTTP.
pub fn head(input: &[u8], keep: bool) -> Result<Option<Head>, String> {
    let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut slots);
    let parsed = response.parse(input).map_err(|error| error.to_string())?;
    let httparse::Status::Complete(len) = parsed else {
        return if input.len() < HEAD_BYTES_MAX {
            Ok(None)
        } else {
            Err("a head without an end".to_owned())
        };
    };
    let status = response.code.unwrap_or(0);
    let mut head = Head {
        len,
        status,
        framing: Framing::UntilClose,
        close: response.version == Some(0),
        headers: Vec::new(),
    };
    if status == 204 || status == 304 || status < 200 {
        head.framing = Framing::Length(0);
    }
    for header in response.headers {
        let value = std::str::from_utf8(header.value).unwrap_or_default();
        if header.name.eq_ignore_ascii_case("content-length") {
            let bytes = value
                .trim()
                .parse()
                .map_err(|_| format!("length {value}"))?;
            head.framing = Framing::Length(bytes);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            head.framing = Framing::Chunked(Chunked::default());
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.close |= value.eq_ignore_ascii_case("close");
        }
        if keep {
            head.headers
                .push((header.name.to_lowercase(), value.to_owned()));
        }
    }
    Ok(Some(head))
}

/// Where a chunked body stands.
#[derive(Debug, Default)]
pub struct Chunked {
    state: Place,
    line: Vec<u8>,
    /// Of the present chunk.
    left: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Place {
    #[default]
    Size,
    Data,
    AfterData,
    Trailer,
    End,
}

impl Chunked {
    /// Takes `input` apart and hands the content to `sink`; returns how much was taken. All of it,
    /// unless the body ended before.
    ///
    /// # Errors
    /// A malformed chunk, or what the sink says.
    pub fn take(
        &mut self,
        input: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<usize, String> {
        let mut at = 0;
        while at < input.len() && !self.ended() {
            if self.state == Place::Data {
                let count =
                    (input.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                sink(&input[at..at + count])?;
                at += count;
                self.left -= count as u64;
                if self.left == 0 {
                    self.state = Place::AfterData;
                }
                continue;
            }
            let byte = input[at];
            at += 1;
            if byte != b'\n' {
                self.line.push(byte);
                if HEAD_BYTES_MAX < self.line.len() {
                    return Err("a chunk line without an end".to_owned());
                }
                continue;
            }
            self.end_line()?;
        }
        Ok(at)
    }

    /// Whether the body is over.
    pub fn ended(&self) -> bool {
        self.state == Place::End
    }

    fn end_line(&mut self) -> Result<(), String> {
        let text = String::from_utf8_lossy(&self.line).trim().to_owned();
        self.line.clear();
        self.state = match self.state {
            Place::Size => {
                let digits = text.split(';').next().unwrap_or_default();
                self.left = u64::from_str_radix(digits, 16).map_err(|error| {
                    let large = *error.kind() == IntErrorKind::PosOverflow;
                    format!(
                        "chunk size {text}{}",
                        if large { ", too large" } else { "" }
                    )
                })?;
                if self.left == 0 {
                    Place::Trailer
                } else {
                    Place::Data
                }
            }
            Place::AfterData if text.is_empty() => Place::Size,
            Place::Trailer if text.is_empty() => Place::End,
            Place::Trailer => Place::Trailer,
            _ => return Err(format!("after a chunk: {text}")),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_the_body_ends() {
        for (text, want) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                "200 Length(5) false",
            ),
            (
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                "200 Length(0) true",
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", "204 Length(0) false"),
            ("HTTP/1.0 200 OK\r\n\r\n", "200 UntilClose true"),
        ] {
            let head = head(text.as_bytes(), false).expect("HTTP").expect("whole");
            let got = format!("{} {:?} {}", head.status, head.framing, head.close);
            assert_eq!(got, want, "{text}");
        }
        assert!(
            head(b"HTTP/1.1 200 OK\r\n", false)
                .expect("so far")
                .is_none()
        );
        assert!(head(b"SMTP\r\n\r\n", false).is_err());
    }

    #[test]
    fn chunks_come_in_any_pieces() {
        let text = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: v\r\n\r\nnext";
        for size in 1..text.len() {
            let (mut chunked, mut got, mut taken) = (Chunked::default(), Vec::new(), 0);
            for piece in text.chunks(size) {
                let sink = |bytes: &[u8]| {
                    got.extend_from_slice(bytes);
                    Ok(())
                };
                taken += chunked.take(piece, sink).expect("chunks");
            }
            assert_eq!(
                (got.as_slice(), taken),
                (&b"hello world"[..], text.len() - 4),
                "{size}"
            );
            assert!(chunked.ended());
        }
        let bad = Chunked::default().take(b"zz\r\n", |_| Ok(()));
        assert!(bad.is_err());
    }
}
