//! What must outlive a request: upload sessions and background tasks.
//!
//! The traits [`Sessions`] and [`TaskStore`] say what is kept; [`EmbeddedStore`] keeps it in one
//! file beside the program. [`Runner`] runs tasks that are on record, [`EventSink`] hears of them.
//!
//! Laws
//! - What is acknowledged is on disk. What is lost costs time, never bytes.
//! - Neither the content of files nor the name of one on disk passes through here.
//! - Everything has a limit; nothing polls.
#![forbid(unsafe_code)]

mod clock;
pub mod embedded;
pub mod error;
pub mod event;
mod lease;
pub mod runner;
pub mod session;
pub mod task;

pub use embedded::{EmbeddedStore, StoreOptions, StoreStats};
pub use error::{OpenError, StateError};
pub use event::{Event, EventSink, LogSink, RecordSink};
pub use runner::{Runner, RunnerOptions, Stop, StopReason, StopSwitch, SubmitError, TaskContext};
pub use session::{
    Change, Claim, ClaimError, ClaimOutcome, Grant, Holder, LeaseError, LeaseGuard, Pieces,
    Revocation, Session, SessionState, Sessions,
};
pub use task::{
    Handler, Outcome, Progress, RECENT_TASKS_MAX, TaskError, TaskRecord, TaskState, TaskStore,
    UnfinishedTask,
};
