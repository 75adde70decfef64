//! HTTP/1.1 of the client-facing port: bytes in, decisions out.
//!
//! Everything here is a function of its arguments. Sockets, files, clocks and randomness stay
//! with the caller, which hands over bytes, lengths, times and seeds; so every rule of the wire
//! can be tested by tables and by random input.
//!
//! Way of one request: [`head`], then [`query`]; for a file [`condition`], [`range`] and
//! [`byteranges`], for a tree [`zip`] or [`tar`], for an upload [`tus`], [`draft`], [`part`],
//! [`checksum`] and [`chunked`]; at last [`response`] with [`disposition`], [`etag`], [`date`]
//! and [`cors`].
//!
//! Architecture invariants
//! - No module here waits, allocates without a bound from [`limits`], or reads a clock.
//! - Input never panics. Assertions guard only against the calling program.
//!
//! Source: RFC 9110, RFC 9112, tus 1.0.0, PKWARE APPNOTE 6.3.10.
#![forbid(unsafe_code)]

pub mod byteranges;
pub mod checksum;
pub mod chunked;
pub mod condition;
pub mod cors;
pub mod date;
pub mod disposition;
pub mod draft;
pub mod etag;
pub mod head;
pub mod limits;
pub mod part;
pub mod query;
pub mod range;
pub mod response;
pub mod tar;
pub mod tus;
pub mod zip;
