//! What the servers of a fleet tell each other about sessions, beside what Redis holds.
//!
//! Laws
//! - Nothing depends on being heard: what is said only makes things sooner, or keeps an offset from
//!   looking smaller than it is after Redis forgot it.
//! - A question has a bound; it ends early when everybody who hears it has answered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proxy_core::id::SessionId;
use proxy_state::Session;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::link::Link;

/// Where it is said.
pub(super) const CHANNEL: &str = "storage-proxy:sessions";
/// How long others have to answer.
const ANSWER_BOUND: Duration = Duration::from_millis(300);
const ANSWERS_MAX: usize = 64;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    /// Somebody wants to write these bytes: writers and older wishes in the way are to end.
    Revoke {
        id: SessionId,
        by: Uuid,
        from: u64,
        to: u64,
        append: bool,
        at: Option<u64>,
    },
    /// Who has a record of this session?
    Ask {
        id: SessionId,
        by: Uuid,
        ticket: u64,
    },
    /// The answer.
    Answer {
        to: Uuid,
        ticket: u64,
        session: Option<Box<Session>>,
    },
    /// It was abandoned.
    Gone { id: SessionId, by: Uuid },
    /// It is written by somebody else than before.
    Taken { id: SessionId, by: Uuid },
}

/// What came of a question.
pub(super) struct Asked {
    pub(super) known: Option<Session>,
    /// How many have answered.
    pub(super) answered: u64,
}

/// Says things, and waits for answers.
pub(super) struct Talk {
    link: Link,
    /// This process.
    pub(super) me: Uuid,
    tickets: AtomicU64,
    asked: Mutex<HashMap<u64, mpsc::Sender<Option<Session>>>>,
}

impl Talk {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            me: Uuid::new_v4(),
            tickets: AtomicU64::new(0),
            asked: Mutex::default(),
        }
    }

    /// Says it; how many have heard it.
    pub(super) async fn say(&self, said: &Said) -> u64 {
        let text = serde_json::to_string(said).unwrap_or_default();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(CHANNEL).arg(text);
        self.link.query(&publish).await.unwrap_or(0)
    }

    /// How many hear us.
    pub(super) async fn count(&self) -> Option<u64> {
        let mut count = redis::cmd("PUBSUB");
        count.arg("NUMSUB").arg(CHANNEL);
        let counted = self.link.query::<(String, u64)>(&count).await;
        counted.ok().map(|(_, heard)| heard)
    }

    /// What all of them know of a session together; we are one of them.
    pub(super) async fn ask(&self, id: SessionId) -> Asked {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (sender, mut answers) = mpsc::channel(ANSWERS_MAX);
        self.asked.lock().insert(ticket, sender);
        let by = self.me;
        let deadline = Instant::now() + ANSWER_BOUND;
        let heard = self.say(&Said::Ask { id, by, ticket }).await;
        let mut known: Option<Session> = None;
        let mut answered = 0;
        while answered < heard {
            let Ok(Some(answer)) = timeout_at(deadline, answers.recv()).await else {
                break;
            };
            answered += 1;
            known = match (known, answer) {
                (Some(one), Some(other)) => Some(one.merged(&other)),
                (one, other) => one.or(other),
            };
        }
        self.asked.lock().remove(&ticket);
        Asked { known, answered }
    }

    /// Passes an answer on to who asked.
    pub(super) fn answered(&self, ticket: u64, session: Option<Session>) {
        let asked = self.asked.lock();
        if let Some(sender) = asked.get(&ticket) {
            // Who has waited long enough does not want it.
            let _ = sender.try_send(session);
        }
    }
}
