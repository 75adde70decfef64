//! A zip of deflated members, made while it is sent.
//!
//! Laws
//! - Files are read where waiting is allowed, deflated where computing is; see
//!   [`super::compress`].
//! - Per member 24 bytes are kept until the end: what the directory says of it.
//!
//! Source: `proxy_wire::zip`.

use std::io::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use flate2::write::DeflateEncoder;
use proxy_core::units::{ByteLen, KIB, Offset};
use proxy_ring::FileRef;
use proxy_transfer::Sink;
use proxy_transfer::archive::{Listed as _, Members as _, Sent, Step, Steps};
use proxy_transfer::download::pump;
use proxy_transfer::seam::SinkError;
use proxy_wire::zip::{Checksum, Deflated, Directory};

use super::compress::{self, Body, DEFLATE_LEVEL};
use super::contents::Contents;
use super::listing::Listing;

/// Bytes of the directory that are gathered before they are sent.
const GATHER_BYTES: usize = (64 * KIB) as usize;

/// What is known of a member that was sent.
struct Done {
    deflated: Deflated,
    offset: Offset,
}

/// Sends all of the archive but the end of the body.
pub(super) async fn send<S: Sink<File = FileRef>>(
    contents: &Contents<'_>,
    body: &mut Body<'_, S>,
) -> Result<(), SinkError> {
    let mut out = Zip {
        contents,
        body,
        at: 0,
        done: Vec::with_capacity(contents.count()),
    };
    for step in Steps::new(contents, 0..contents.count()) {
        match step {
            Step::Pack(members) => out.small(members).await?,
            Step::Big(index) => out.big(index).await?,
        }
    }
    let mut directory = Directory::new(out.at);
    let mut bytes = Vec::new();
    for (index, done) in out.done.iter().enumerate() {
        contents.show(index, |member| {
            directory.entry(&member.zip(), done.deflated, done.offset, &mut bytes);
        });
        if GATHER_BYTES <= bytes.len() {
            out.body.send(&bytes).await?;
            bytes.clear();
        }
    }
    directory.end(&mut bytes);
    out.body.send(&bytes).await
}

fn encoder() -> DeflateEncoder<Vec<u8>> {
    DeflateEncoder::new(Vec::new(), flate2::Compression::new(DEFLATE_LEVEL))
}

struct Zip<'a, 'b, 's, S> {
    contents: &'a Contents<'a>,
    body: &'b mut Body<'s, S>,
    /// Bytes sent.
    at: u64,
    done: Vec<Done>,
}

impl<S: Sink<File = FileRef>> Zip<'_, '_, '_, S> {
    async fn put(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.at += bytes.len() as u64;
        self.body.send(bytes).await
    }

    async fn small(&mut self, members: Range<usize>) -> Result<(), SinkError> {
        let data = self.contents.read(members.clone()).await?;
        let listing = Arc::clone(self.contents.listing);
        let start = self.at;
        let job = move || deflate_all(&listing, members, &data, start);
        let (bytes, done) = compress::run(self.threads(), job).await?;
        self.done.extend(done);
        self.put(&bytes).await
    }

    fn threads(&self) -> &proxy_ring::ThreadPool {
        &self.contents.thread.setup.archives.threads
    }

    async fn big(&mut self, index: usize) -> Result<(), SinkError> {
        let contents = self.contents;
        let file = contents.open(index).await?;
        let offset = Offset::new(self.at);
        let mut bytes = Vec::new();
        let len = contents.show(index, |member| {
            member.zip().deflated_header(&mut bytes);
            member.data_len()
        });
        self.put(&bytes).await?;
        let data_at = self.at;
        let mut state = Some((encoder(), Checksum::new()));
        let files = contents.thread.files.clone();
        pump(
            &files,
            &file,
            Offset::ZERO,
            ByteLen::new(len),
            async |block, more| {
                let (mut encoder, mut sum) = state.take().ok_or(SinkError::Truncated)?;
                // Copy: the buffer belongs to this thread, the block goes to another.
                let block = block.to_vec();
                let job = move || {
                    sum.update(&block);
                    encoder.write_all(&block)?;
                    if !more {
                        encoder.try_finish()?;
                    }
                    let out = std::mem::take(encoder.get_mut());
                    Ok((encoder, sum, out))
                };
                let (encoder, sum, out) = compress::run(self.threads(), job).await?;
                state = Some((encoder, sum));
                self.put(&out).await
            },
        )
        .await?;
        let (_, sum) = state.ok_or(SinkError::Truncated)?;
        let deflated = Deflated {
            crc: sum.finalize(),
            len: self.at - data_at,
        };
        bytes.clear();
        contents.show(index, |member| {
            member.zip().deflated_descriptor(deflated, &mut bytes);
        });
        self.put(&bytes).await?;
        self.done.push(Done { deflated, offset });
        let sum = Some(deflated.crc);
        contents.check(vec![Sent { index, file, sum }]).await
    }
}

/// Makes whole members of `data`, which is theirs, one after the other.
fn deflate_all(
    listing: &Listing,
    members: Range<usize>,
    data: &[u8],
    start: u64,
) -> io::Result<(Vec<u8>, Vec<Done>)> {
    let mut bytes = Vec::new();
    let mut done = Vec::with_capacity(members.len());
    let mut data = data;
    for index in members {
        let offset = Offset::new(start + bytes.len() as u64);
        let len = listing.show(index, |member| {
            member.zip().deflated_header(&mut bytes);
            member.data_len()
        });
        // Small members: what was read of them is in memory.
        let (own, rest) = data.split_at(len as usize);
        data = rest;
        let mut deflated = Deflated::default();
        if !own.is_empty() {
            let mut sum = Checksum::new();
            sum.update(own);
            deflated.crc = sum.finalize();
            let mut encoder = encoder();
            encoder.write_all(own)?;
            let packed = encoder.finish()?;
            deflated.len = packed.len() as u64;
            bytes.extend_from_slice(&packed);
        }
        listing.show(index, |member| {
            member.zip().deflated_descriptor(deflated, &mut bytes);
        });
        done.push(Done { deflated, offset });
    }
    assert!(data.is_empty(), "more was read than listed");
    Ok((bytes, done))
}
