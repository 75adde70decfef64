//! What an upload machine asks of the world beside the disk: sessions and names.
//!
//! Source: `docs/semantics.md#uploads`.

use std::future::Future;

use proxy_core::extent::{Extent, Extents, Recorded, Want};
use proxy_core::units::Offset;

/// What the ledger knows when a session is claimed.
#[derive(Debug)]
pub enum Claimed<G> {
    /// The bytes that were asked for are ours to write until the grant is given back.
    Ours {
        /// Proof of the claim.
        grant: G,
        /// Bytes that are durable.
        durable: Extents,
        /// Bytes of the whole upload.
        size: Offset,
        /// The file has blocks for all of them.
        laid_out: bool,
    },
    /// The upload is complete; a repeated request may be answered again.
    Finished {
        /// Where the last request began.
        last_from: Offset,
        /// Bytes of the whole upload.
        size: Offset,
    },
}

/// What the ledger or the names say when something is not possible.
#[derive(Debug)]
pub enum LedgerError<E> {
    /// No such session.
    NotFound,
    /// An older writer did not let go in time.
    Held,
    /// A newer writer took over.
    Lost,
    /// The server is on its way out, and begins nothing more.
    Ending,
    /// Anything else, to be told as it is.
    Other(E),
}

/// Sessions and names, as one upload sees them.
pub trait Ledger {
    /// An open staging file.
    type File;
    /// Proof of a claim; dropping it gives the lease back.
    type Grant;
    /// Errors that pass through.
    type Error;

    /// Claims the right to write what `want` says.
    fn claim(
        &self,
        want: Want,
    ) -> impl Future<Output = Result<Claimed<Self::Grant>, LedgerError<Self::Error>>>;

    /// Opens the staging file of a claimed session.
    fn open(
        &self,
        grant: &Self::Grant,
    ) -> impl Future<Output = Result<Self::File, LedgerError<Self::Error>>>;

    /// Ready when a newer writer is in the way of this one; says what that one wants.
    fn revoked(&self, grant: &mut Self::Grant) -> impl Future<Output = Option<Want>>;

    /// Records that the bytes of `extent` are durable. Durable itself when it returns, unless it
    /// says that these are the last bytes: [`Ledger::finish`] is to record those.
    fn record(
        &self,
        grant: &Self::Grant,
        extent: Extent,
    ) -> impl Future<Output = Result<Recorded, LedgerError<Self::Error>>>;

    /// Puts the staging file in its place and records that the session is finished.
    fn finish(
        &self,
        grant: &Self::Grant,
        last_from: Offset,
    ) -> impl Future<Output = Result<(), LedgerError<Self::Error>>>;

    /// Ends the upload for good, for all its writers, and removes what it left.
    fn abort(&self, grant: &Self::Grant) -> impl Future<Output = ()>;

    /// Gives the lease back.
    fn release(&self, grant: Self::Grant) -> impl Future<Output = ()>;
}
