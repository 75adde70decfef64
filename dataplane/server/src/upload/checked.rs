//! A body that is summed up while it is received, if its client says what the sum must be.

use proxy_core::problem::{Kind, Problem};
use proxy_ring::Lease;
use proxy_transfer::{Fill, PeerError, Source};
use proxy_wire::checksum::Checksum;
use proxy_wire::head::RequestHead;
use proxy_wire::tus;

use crate::body::Body;
use crate::reply::Reply;

/// See the module.
pub(super) struct Checked<'b, 'c> {
    body: &'b mut Body<'c>,
    checksum: Option<Checksum>,
}

impl<'b, 'c> Checked<'b, 'c> {
    /// The body of the request with this head.
    pub(super) fn new(head: &RequestHead, body: &'b mut Body<'c>) -> Result<Self, Reply> {
        let value = head.headers.get(tus::UPLOAD_CHECKSUM_LOWER);
        let checksum = value.map(Checksum::parse).transpose();
        let checksum = checksum.map_err(|error| {
            Reply::from(Problem::new(Kind::InvalidAPIParameters).msg(error.to_string()))
        })?;
        Ok(Self { body, checksum })
    }
}

impl Source for Checked<'_, '_> {
    type Buf = Lease;

    fn remaining(&self) -> Option<u64> {
        self.body.remaining()
    }

    async fn ready(&mut self) -> Result<(), PeerError> {
        self.body.ready().await
    }

    async fn fill(&mut self, buf: Lease, limit: usize) -> (Result<Fill, PeerError>, Lease) {
        let before = buf.filled();
        let (outcome, buf) = self.body.fill(buf, limit).await;
        if let Some(checksum) = &mut self.checksum {
            checksum.update(&buf.as_slice()[before..]);
        }
        (outcome, buf)
    }

    async fn is_over(&mut self) -> Result<bool, PeerError> {
        self.body.is_over().await
    }

    fn verdict(&self) -> Option<bool> {
        self.checksum.as_ref().map(Checksum::holds)
    }
}
