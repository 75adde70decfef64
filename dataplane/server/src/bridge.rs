//! Where the two planes meet: typed messages over bounded channels.
//!
//! The data plane asks, the control plane answers. A granted session comes with a channel of its
//! own: closing it (dropping the [`Grant`]) gives the session back, whatever became of the
//! connection.

use proxy_core::extent::{Extent, Extents, Recorded, Want};
use proxy_core::id::SessionId;
use proxy_core::partial::Partial;
use proxy_core::relpath::RelPath;
use proxy_core::token::UploadClaims;
use proxy_core::units::Offset;
use tokio::sync::{mpsc, oneshot};

/// What the data plane asks.
#[derive(Debug)]
pub enum Call {
    /// What is known of a session.
    Look {
        /// Which.
        session: SessionId,
        /// `None`: nothing is on record.
        reply: oneshot::Sender<Result<Option<Known>, Refusal>>,
    },
    /// The right to write to a session.
    Claim {
        /// What the token says.
        upload: Box<UploadClaims>,
        /// Inode and device of the staging file.
        staged: (u64, u64),
        /// Which bytes the request wants to write.
        want: Want,
        /// The answer.
        reply: oneshot::Sender<Result<Claimed, Refusal>>,
    },
}

/// A session on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Durable bytes.
    pub durable: Extents,
    /// Bytes of the whole upload.
    pub size: u64,
    /// Inode and device of its staging file.
    pub staged: (u64, u64),
    /// Where the file went, and where the last request began, once it is complete.
    pub finished: Option<(RelPath, Offset)>,
    /// Partial uploads, in the order of their making.
    pub partials: Vec<Partial>,
    /// What the client said of the file.
    pub metadata: Option<String>,
}

impl Known {
    /// The partial upload of this number.
    pub fn partial(&self, number: u32) -> Option<Partial> {
        let mut partials = self.partials.iter().copied();
        partials.find(|partial| partial.number == number)
    }
}

/// A change to a session that does not make bytes of the whole file durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another partial upload of so many bytes.
    AddPartial {
        /// Its bytes.
        length: u64,
    },
    /// The first `to` bytes of a partial upload are durable.
    AdvancePartial {
        /// Which.
        number: u32,
        /// Its new offset.
        to: u64,
    },
    /// A partial upload is not wanted any more.
    DropPartial {
        /// Which.
        number: u32,
    },
    /// What the client says of the file.
    Describe {
        /// As it says it.
        metadata: String,
    },
}

/// Why the control plane says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another writer did not let go in time.
    Held,
    /// A newer request took over.
    Lost,
    /// No such session.
    NotFound,
    /// The session would have more separate ranges than are kept.
    TooManyRanges,
    /// Bytes of the whole file and partial uploads do not go together.
    Mixed,
    /// Another server may know more of the session, and can not be asked now.
    Away,
    /// The store failed; the text is for the log.
    Store(String),
    /// The control plane is gone: the process is ending.
    Closed,
}

/// The answer to a claim.
#[derive(Debug)]
pub enum Claimed {
    /// Write.
    Granted(Grant),
    /// It is complete.
    Finished(Known),
}

/// The right to write to a session. Dropping it gives the session back.
#[derive(Debug)]
pub struct Grant {
    /// The session as it was when the right was given.
    pub known: Known,
    /// Fires when a newer request is in the way of this one; says what that one wants.
    pub revoked: oneshot::Receiver<Want>,
    /// To the keeper of the session.
    pub reports: mpsc::Sender<Report>,
}

/// What the holder of a session tells its keeper.
#[derive(Debug)]
pub enum Report {
    /// These bytes are durable.
    Record {
        /// Which.
        extent: Extent,
        /// Sent when that is on record, durably; except for the bytes that make the upload whole,
        /// which are recorded with [`Report::Finish`].
        reply: oneshot::Sender<Result<Recorded, Refusal>>,
    },
    /// Another change.
    Change {
        /// Which.
        change: Change,
        /// Sent when that is on record, durably, with the session as it is then.
        reply: oneshot::Sender<Result<Known, Refusal>>,
    },
    /// The file is about to get its name.
    Secure {
        /// Sent when the session is on record, durably.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// The file is in its place.
    Finish {
        /// Where the last request began.
        last_from: Offset,
        /// Where the file went.
        target: RelPath,
        /// Sent when that is on record, durably.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// The upload is over for good, for all its writers.
    Abort {
        /// Sent when the record is gone.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
}

/// The data plane's end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bridge(mpsc::Sender<Call>);

/// Makes a bridge for at most `capacity` unanswered calls.
pub fn channel(capacity: usize) -> (Bridge, mpsc::Receiver<Call>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (Bridge(sender), receiver)
}

/// How many calls wait. Does not keep the bridge open.
#[derive(Clone, Debug)]
pub struct Queue(mpsc::WeakSender<Call>);

impl Queue {
    /// Calls that wait for the control plane.
    pub fn len(&self) -> usize {
        let sender = self.0.upgrade();
        sender.map_or(0, |sender| sender.max_capacity() - sender.capacity())
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bridge {
    /// Its queue, to be counted.
    pub fn queue(&self) -> Queue {
        Queue(self.0.downgrade())
    }

    /// What is known of a session.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn look(&self, session: SessionId) -> Result<Option<Known>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.0
            .send(Call::Look { session, reply })
            .await
            .map_err(|_| Refusal::Closed)?;
        answer.await.map_err(|_| Refusal::Closed)?
    }

    /// Asks for the right to write.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn claim(
        &self,
        upload: UploadClaims,
        staged: (u64, u64),
        want: Want,
    ) -> Result<Claimed, Refusal> {
        let (reply, answer) = oneshot::channel();
        let call = Call::Claim {
            upload: Box::new(upload),
            staged,
            want,
            reply,
        };
        self.0.send(call).await.map_err(|_| Refusal::Closed)?;
        answer.await.map_err(|_| Refusal::Closed)?
    }
}

impl Grant {
    /// Sends a report and waits for its answer.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn report<T>(
        &self,
        build: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Report,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.reports
            .send(build(reply))
            .await
            .map_err(|_| Refusal::Lost)?;
        answer.await.map_err(|_| Refusal::Closed)?
    }
}
