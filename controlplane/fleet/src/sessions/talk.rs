//! What the servers of a fleet tell each other about sessions, beside what Redis holds.
//!
//! Laws
//! - Who is not heard is not believed to know nothing: see [`super::owned`].
//! - A question has a bound; it ends early when everybody who hears it has answered.

use std::collections::{HashMap, HashSet};
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
const ANSWER_BOUND: Duration = Duration::from_secs(1);
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
    /// Who has a record of this session? Who owned it does not any more if it is to be written
    /// on the server `taking`.
    Ask {
        id: SessionId,
        by: Uuid,
        ticket: u64,
        #[serde(default)]
        taking: Option<Uuid>,
    },
    /// The answer.
    Answer {
        to: Uuid,
        ticket: u64,
        #[serde(flatten)]
        answer: Answer,
    },
    /// It was abandoned.
    Gone { id: SessionId, by: Uuid },
    /// A server is there.
    Here { store: Uuid, by: Uuid },
}

/// What one server says of a session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Which.
    #[serde(default)]
    pub(super) store: Uuid,
    /// Whether it owns, or owned until this question, the session.
    #[serde(default)]
    pub(super) is_owner: bool,
    /// Whom it gave the session to before.
    #[serde(default)]
    pub(super) given_to: Option<Uuid>,
    pub(super) session: Option<Box<Session>>,
}

/// A question.
pub(super) struct Question {
    pub(super) id: SessionId,
    pub(super) taking: Option<Uuid>,
    /// Who has to answer.
    pub(super) required: HashSet<Uuid>,
    /// Whether everybody else who hears it has to, too.
    pub(super) all: bool,
}

/// What came of a question.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) known: Option<Session>,
    /// Whether the owner was among them: it knows everything.
    pub(super) has_owner: bool,
    /// Whether everybody has answered who heard it.
    pub(super) is_complete: bool,
    /// Who has not answered, of those that have to.
    pub(super) missed: HashSet<Uuid>,
}

/// Says things, and waits for answers.
pub(super) struct Talk {
    link: Link,
    /// This process.
    pub(super) me: Uuid,
    tickets: AtomicU64,
    asked: Mutex<HashMap<u64, mpsc::Sender<Answer>>>,
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
    pub(super) async fn say(&self, said: &Said) -> Option<u64> {
        let text = serde_json::to_string(said).unwrap_or_default();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(CHANNEL).arg(text);
        self.link.query(&publish).await.ok()
    }

    /// How many hear us.
    pub(super) async fn count(&self) -> Option<u64> {
        let mut count = redis::cmd("PUBSUB");
        count.arg("NUMSUB").arg(CHANNEL);
        let counted = self.link.query::<(String, u64)>(&count).await;
        counted.ok().map(|(_, heard)| heard)
    }

    /// What all of them know of a session together; we are one of them.
    pub(super) async fn ask(&self, question: Question) -> Asked {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (sender, mut answers) = mpsc::channel(ANSWERS_MAX);
        self.asked.lock().insert(ticket, sender);
        let deadline = Instant::now() + ANSWER_BOUND;
        let Question { id, taking, .. } = question;
        let by = self.me;
        let ask = Said::Ask {
            id,
            by,
            ticket,
            taking,
        };
        let mut asked = Asked {
            missed: question.required,
            ..Asked::default()
        };
        let mut heard = HashSet::new();
        if let Some(hearers) = self.say(&ask).await {
            let mut left = hearers;
            loop {
                asked.is_complete = left == 0;
                let is_enough = !question.all && asked.missed.is_empty();
                if left == 0 || is_enough || asked.has_owner {
                    break;
                }
                let Ok(Some(answer)) = timeout_at(deadline, answers.recv()).await else {
                    break;
                };
                left -= 1;
                heard.insert(answer.store);
                asked.add(answer, &heard);
            }
        }
        self.asked.lock().remove(&ticket);
        asked
    }

    /// Passes an answer on to who asked.
    pub(super) fn answered(&self, ticket: u64, answer: Answer) {
        let asked = self.asked.lock();
        if let Some(sender) = asked.get(&ticket) {
            // Who has waited long enough does not want it.
            let _ = sender.try_send(answer);
        }
    }
}

impl Asked {
    fn add(&mut self, answer: Answer, heard: &HashSet<Uuid>) {
        self.has_owner |= answer.is_owner;
        self.missed.extend(answer.given_to);
        self.missed.retain(|store| !heard.contains(store));
        self.known = match (self.known.take(), answer.session) {
            (Some(one), Some(other)) => Some(one.merged(&other)),
            (one, other) => one.or(other.map(|session| *session)),
        };
    }
}
