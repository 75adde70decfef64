//! The one who sends.
//!
//! Laws
//! - What passes goes first, one after another, then the oldest of the outbox: so nothing about a
//!   task is sent after its last word.
//! - An event is struck off the outbox after Redis has it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Pipeline;
use tokio::time::{sleep, timeout};

use super::Inner;
use super::pace::{Pace, Turn};
use crate::frame::catalogue::Way;
use crate::frame::{CACHE_TTL_S, CHANNEL, Frame};
use crate::link::LinkError;
use crate::outbox::Kept;

/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Sends for ever.
pub(super) async fn run(inner: &Inner) {
    let mut pace = Pace::new();
    let mut pause = PAUSE.0;
    loop {
        await_link(inner).await;
        match step(inner, &mut pace).await {
            Ok(Step::Sent) => {
                inner.progress.notify_waiters();
                pause = PAUSE.0;
            }
            Ok(Step::Wait(time)) => {
                // What passes does not wait for room.
                let _ = timeout(time, inner.work.notified()).await;
            }
            Ok(Step::Idle) => inner.work.notified().await,
            Err(error) => {
                inner.counters.retried.fetch_add(1, Ordering::Relaxed);
                if error.may_retry() {
                    tracing::debug!(%error, "an event was not sent yet");
                } else {
                    tracing::warn!(%error, "an event was refused and is sent again");
                }
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

enum Step {
    Sent,
    Idle,
    Wait(Duration),
}

async fn await_link(inner: &Inner) {
    let mut state = inner.link.watch();
    // A link that ends takes the bus with it.
    let _ = state.wait_for(|state| state.up).await;
}

async fn step(inner: &Inner, pace: &mut Pace) -> Result<Step, LinkError> {
    let next = inner.passing.lock().pop();
    if let Some((frame, way)) = next {
        let sent = pass(inner, &frame, way).await;
        if sent.is_err() {
            inner.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent?;
        inner.counters.sent.fetch_add(1, Ordering::Relaxed);
        return Ok(Step::Sent);
    }
    let Some((number, kept)) = inner.outbox.first() else {
        return Ok(Step::Idle);
    };
    let Some(frame) = kept.frame() else {
        tracing::error!(number, "an event of the outbox is unreadable and dropped");
        inner.outbox.strike(number);
        return Ok(Step::Sent);
    };
    if let Some(step) = keep(inner, pace, &kept, &frame).await? {
        return Ok(step);
    }
    inner.outbox.strike(number);
    inner.counters.sent.fetch_add(1, Ordering::Relaxed);
    if kept.is_old {
        inner.counters.replayed.fetch_add(1, Ordering::Relaxed);
    }
    Ok(Step::Sent)
}

/// Sends an event of the outbox, or says what has to be waited for.
async fn keep(
    inner: &Inner,
    pace: &mut Pace,
    kept: &Kept,
    frame: &Frame,
) -> Result<Option<Step>, LinkError> {
    if let Some(task) = kept.last_of {
        if let Some(books) = inner.books.get() {
            books.settle(task).await;
        }
        broadcast(inner, frame, Some(task.to_string())).await?;
        return Ok(None);
    }
    match pace.turn(&inner.link, &inner.options).await? {
        Turn::Wait(time) => return Ok(Some(Step::Wait(time))),
        Turn::Force => drop(inner.counters.forced.fetch_add(1, Ordering::Relaxed)),
        Turn::Send => {}
    }
    inner.link.query::<String>(&frame.xadd()).await?;
    Ok(None)
}

async fn pass(inner: &Inner, frame: &Frame, way: Way) -> Result<(), LinkError> {
    match way {
        Way::Progress(task) | Way::Last(task) => {
            broadcast(inner, frame, Some(task.to_string())).await
        }
        Way::Heard => broadcast(inner, frame, None).await,
        Way::Kept | Way::Passing => inner.link.query::<String>(&frame.xadd()).await.map(drop),
    }
}

/// Tells everyone connected; `task` also those who connect later.
async fn broadcast(inner: &Inner, frame: &Frame, task: Option<String>) -> Result<(), LinkError> {
    let message = frame.message();
    let mut pipe = Pipeline::new();
    if let Some(task) = task {
        let key = format!("bgtask.{task}");
        pipe.cmd("SET")
            .arg(key)
            .arg(&message)
            .arg("EX")
            .arg(CACHE_TTL_S);
    }
    pipe.cmd("PUBLISH").arg(CHANNEL).arg(&message);
    inner.link.pipe::<redis::Value>(&pipe).await.map(drop)
}
