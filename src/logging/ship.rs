//! Shipping records to another machine: gathered, tried again, never waited for.
//!
//! Laws
//! - A batch that can not be delivered now is kept and tried again, with growing pauses; meanwhile
//!   the queue before it fills up, and what does not fit is dropped and counted there.
//! - What the other side refuses for good is dropped and counted.
//! - Trouble is told once when it begins and once when it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::hub::Counted;
use super::record::Record;

/// First pause after a failure; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Why a batch was not taken.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It may be taken later.
    Later(String),
    /// It never will.
    Never(String),
}

/// The other side.
#[async_trait]
pub(super) trait Ship: Send {
    /// Delivers a batch.
    async fn ship(&mut self, batch: &[Arc<Record>]) -> Result<(), Refusal>;
}

/// When a batch is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) records_max: usize,
    pub(super) wait: Duration,
}

/// Ships what comes until nothing comes any more.
pub(super) async fn run(
    mut incoming: Receiver<Arc<Record>>,
    mut ship: Box<dyn Ship>,
    batch: Batch,
    (name, count): Counted,
) {
    let mut is_well = true;
    while let Some(first) = incoming.recv().await {
        let mut records = vec![first];
        let until = Instant::now() + batch.wait;
        while records.len() < batch.records_max {
            match timeout_at(until, incoming.recv()).await {
                Ok(Some(record)) => records.push(record),
                Ok(None) | Err(_) => break,
            }
        }
        let mut pause = PAUSE_MIN;
        let outcome = loop {
            let attempt = timeout(ATTEMPT, ship.ship(&records)).await;
            let late = |_| Refusal::Later("no answer in time".to_owned());
            match attempt.map_err(late).and_then(|outcome| outcome) {
                Err(Refusal::Later(why)) => {
                    if std::mem::replace(&mut is_well, false) {
                        tracing::warn!(sink = name, why, "log records can not be delivered");
                    }
                    // The program ends: one attempt was enough.
                    if incoming.is_closed() {
                        break Err(why);
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(Refusal::Never(why)) => break Err(why),
                Ok(()) => break Ok(()),
            }
        };
        let so_many = records.len() as u64;
        match outcome {
            Ok(()) => {
                count.written.fetch_add(so_many, Ordering::Relaxed);
                if !std::mem::replace(&mut is_well, true) {
                    tracing::info!(sink = name, "log records are delivered again");
                }
            }
            Err(why) => {
                count.dropped.fetch_add(so_many, Ordering::Relaxed);
                if std::mem::replace(&mut is_well, false) {
                    tracing::warn!(sink = name, why, "log records are refused");
                }
            }
        }
    }
}
