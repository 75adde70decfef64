//! Chunked request bodies, decoded as they arrive.
//!
//! The decoder holds a few numbers and no bytes: data is named as a range of the caller's
//! input, or received by the caller elsewhere and reported with [`Decoder::advance_data`].
//!
//! Laws
//! - Sizes are 1 to 16 hexadecimal digits; lines end in CRLF, never in a bare LF.
//! - Extensions and trailers are bounded, checked for forbidden bytes, and otherwise ignored.
//! - After an error every call gives the same error: the connection can only be closed.
//! - How the input was cut changes nothing.
//!
//! Source: RFC 9112 §7.1.

use std::ops::Range;

use crate::head::is_token_byte;
pub use crate::limits::ChunkLimits;

/// Most digits of a size: those of a `u64`. Leading zeros count, or a line could be endless.
const SIZE_DIGITS_MAX: u8 = 16;

/// What one call to [`Decoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All of `input` was framing, and the body is not over.
    ///
    /// If [`Decoder::remaining_in_chunk`] is not 0 now, the next bytes are data and may be
    /// received straight into their final buffer.
    NeedMore {
        /// Bytes of `input` that are done with: all of them.
        consumed: usize,
    },
    /// Data of the body.
    Data {
        /// Bytes of `input` that are done with, those of `data` included.
        consumed: usize,
        /// Where in `input` the data stands; never empty; ends at `consumed`.
        data: Range<usize>,
    },
    /// The body is over. Bytes after `consumed` belong to the next request.
    End {
        /// Bytes of `input` that are done with.
        consumed: usize,
    },
}

/// Why a chunked body was refused: answer 400 if nothing was answered yet, then close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChunkError {
    /// A size that does not begin with a hexadecimal digit, or goes on with something else.
    Size,
    /// A size of more than 16 digits.
    SizeTooLarge,
    /// CRLF missing after a size line, after the data of a chunk, or at the end.
    LineEnding,
    /// A forbidden byte in an extension.
    Extension,
    /// More extension bytes than allowed.
    ExtensionsTooLong,
    /// A trailer line that is no header line.
    Trailer,
    /// More trailer bytes than allowed.
    TrailersTooLong,
}

impl ChunkError {
    /// The status of the answer, while there is still one to give.
    pub const fn status(self) -> u16 {
        400
    }

    /// What is wrong, in words for the client.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Size => "invalid chunk size",
            Self::SizeTooLarge => "chunk size too large",
            Self::LineEnding => "chunk line does not end in CRLF",
            Self::Extension => "invalid chunk extension",
            Self::ExtensionsTooLong => "chunk extensions too long",
            Self::Trailer => "invalid trailer",
            Self::TrailersTooLong => "trailers too long",
        }
    }
}

impl std::fmt::Display for ChunkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for ChunkError {}

/// What the next byte must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A digit of a size, `digits` of which have been seen.
    Size { digits: u8 },
    /// A blank after a size, or the semicolon that alone makes it lawful.
    SizeBlank,
    /// A byte of an extension.
    Extension,
    /// The LF of a size line.
    SizeLf,
    /// A byte of data; `remaining` is not 0.
    Data,
    /// The CR after data.
    DataCr,
    /// The LF after data.
    DataLf,
    /// The first byte of a trailer line, or the CR of the last line.
    TrailerStart,
    /// A byte of a trailer's name.
    TrailerName,
    /// A byte of a trailer's value.
    TrailerValue,
    /// The LF of a trailer line.
    TrailerLf,
    /// The LF of the last line.
    EndLf,
    /// Nothing: the body is over.
    Ended,
    /// Nothing: the body is broken.
    Broken(ChunkError),
}

/// A chunked body in the course of being received.
#[derive(Clone, Debug)]
pub struct Decoder {
    limits: ChunkLimits,
    state: State,
    /// While a size is read: its value so far. In data: `0 < remaining`, what the chunk lacks.
    remaining: u64,
    extension_bytes: u64,
    trailer_bytes: u64,
}

impl Decoder {
    /// Begins a body.
    pub const fn new(limits: ChunkLimits) -> Self {
        Self {
            limits,
            state: State::Size { digits: 0 },
            remaining: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
        }
    }

    /// Reads `input` up to the next event.
    ///
    /// Shape: `input` holds what came after everything consumed so far. After
    /// [`Step::Data`] call again with the rest; after [`Step::NeedMore`] with what comes next.
    /// After [`Step::End`] every call gives `End { consumed: 0 }`.
    ///
    /// # Errors
    /// Any [`ChunkError`], then and at every later call.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        let mut at = 0;
        loop {
            match self.state {
                State::Broken(error) => return Err(error),
                State::Ended => return Ok(Step::End { consumed: at }),
                State::Data if at < input.len() => return Ok(self.take_data(input, at)),
                _ => {}
            }
            let Some(&byte) = input.get(at) else {
                return Ok(Step::NeedMore { consumed: at });
            };
            match self.next_state(byte) {
                Ok(state) => self.state = state,
                Err(error) => {
                    self.state = State::Broken(error);
                    return Err(error);
                }
            }
            at += 1;
        }
    }

    /// How many bytes from here on are certainly data: 0 unless inside a chunk.
    pub const fn remaining_in_chunk(&self) -> u64 {
        match self.state {
            State::Data => self.remaining,
            _ => 0,
        }
    }

    /// Records `n` bytes of data that the caller received without showing them to
    /// [`decode`](Self::decode).
    ///
    /// # Panics
    /// If `n` is more than [`remaining_in_chunk`](Self::remaining_in_chunk): then the caller
    /// has taken framing for data.
    pub fn advance_data(&mut self, n: u64) {
        assert!(
            n <= self.remaining_in_chunk(),
            "{n} bytes taken past the end of a chunk"
        );
        if n == 0 {
            return;
        }
        self.remaining -= n;
        if self.remaining == 0 {
            self.state = State::DataCr;
        }
    }

    /// Whether the body is over.
    pub const fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    fn take_data(&mut self, input: &[u8], at: usize) -> Step {
        let here = (input.len() - at) as u64;
        let taken = here.min(self.remaining);
        self.advance_data(taken);
        // `taken` is at most `here`, which came from a length.
        let end = at + taken as usize;
        assert!(at < end);
        Step::Data {
            consumed: end,
            data: at..end,
        }
    }

    /// The state after one byte of framing.
    fn next_state(&mut self, byte: u8) -> Result<State, ChunkError> {
        match (self.state, byte) {
            (State::Size { digits }, _) => self.size_byte(digits, byte),
            (State::SizeBlank, b' ' | b'\t') => self.count_extension(State::SizeBlank),
            (State::SizeBlank, b';') => self.count_extension(State::Extension),
            (State::SizeBlank, _) => Err(ChunkError::Size),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, _) if is_text_byte(byte) => self.count_extension(State::Extension),
            (State::Extension, b'\n') => Err(ChunkError::LineEnding),
            (State::Extension, _) => Err(ChunkError::Extension),
            (State::SizeLf, b'\n') if self.remaining == 0 => Ok(State::TrailerStart),
            (State::SizeLf, b'\n') => Ok(State::Data),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { digits: 0 }),
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::Ended),
            (
                State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf,
                _,
            ) => self.trailer_byte(byte),
            (State::SizeLf | State::DataCr | State::DataLf | State::EndLf, _) => {
                Err(ChunkError::LineEnding)
            }
            (State::Data | State::Ended, _) => Ok(self.state),
            (State::Broken(error), _) => Err(error),
        }
    }

    fn size_byte(&mut self, digits: u8, byte: u8) -> Result<State, ChunkError> {
        match (hex_value(byte), byte) {
            (Some(_), _) if digits == SIZE_DIGITS_MAX => Err(ChunkError::SizeTooLarge),
            (Some(value), _) => {
                // At most 16 digits of 4 bits each: nothing is shifted out.
                self.remaining = if digits == 0 {
                    value
                } else {
                    self.remaining << 4 | value
                };
                Ok(State::Size { digits: digits + 1 })
            }
            (None, _) if digits == 0 => Err(ChunkError::Size),
            (None, b'\r') => Ok(State::SizeLf),
            (None, b'\n') => Err(ChunkError::LineEnding),
            (None, b';') => self.count_extension(State::Extension),
            (None, b' ' | b'\t') => self.count_extension(State::SizeBlank),
            (None, _) => Err(ChunkError::Size),
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, ChunkError> {
        if self.trailer_bytes == self.limits.trailer_bytes_max {
            return Err(ChunkError::TrailersTooLong);
        }
        self.trailer_bytes += 1;
        match (self.state, byte) {
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_text_byte(byte) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::TrailerLf, _) | (State::TrailerValue, b'\n') => Err(ChunkError::LineEnding),
            _ => Err(ChunkError::Trailer),
        }
    }

    fn count_extension(&mut self, next: State) -> Result<State, ChunkError> {
        if self.extension_bytes == self.limits.extension_bytes_max {
            return Err(ChunkError::ExtensionsTooLong);
        }
        self.extension_bytes += 1;
        Ok(next)
    }
}

fn hex_value(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

/// What may stand in an extension or in a header value.
const fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}
