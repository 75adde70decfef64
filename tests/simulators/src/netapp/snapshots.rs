//! Snapshots of the volume: copies below `.snapshot`, which real volumes hide from listings.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{NetApp, SVM, SVM_UUID, State, VOLUME, collection, fault, hal, text, trouble};
use crate::{Reply, Request, disk};

/// One state of the volume.
pub(super) struct Snapshot {
    uuid: String,
    name: String,
    created: String,
    comment: String,
    /// It cannot be removed before this.
    expires: Option<String>,
}

impl State {
    fn snapshot(&self, snapshot: &Snapshot) -> Value {
        let mut record = json!({
            "uuid": snapshot.uuid, "name": snapshot.name, "create_time": snapshot.created,
            "comment": snapshot.comment, "size": 122_880,
            "svm": {"uuid": SVM_UUID, "name": SVM},
            "volume": {"uuid": self.volume_uuid, "name": VOLUME},
        });
        if let Some(expires) = &snapshot.expires {
            record["expiry_time"] = json!(expires);
        }
        record
    }
}

impl NetApp {
    pub(super) fn snapshots(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        let records = state.snapshots.iter().map(|one| state.snapshot(one));
        collection(ask, records.collect())
    }

    pub(super) fn one_snapshot(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        match state.snapshots.iter().find(|one| one.uuid == ask.params[1]) {
            Some(one) => hal(200, state.snapshot(one)),
            None => unknown(),
        }
    }

    pub(super) fn create_snapshot(&self, ask: &Request) -> Reply {
        let told = ask.json();
        if ask.params[0] != self.state.lock().volume_uuid {
            return fault(404, "917927", "The specified volume was not found.");
        }
        let name = text(&told, "name").unwrap_or_default();
        let taken = |c: char| c.is_ascii_alphanumeric() || "-_.+:".contains(c);
        if name.is_empty() || 255 < name.len() || !name.chars().all(taken) {
            return fault(400, "1638518", "The specified snapshot name is invalid.");
        }
        let (comment, expires) = (text(&told, "comment"), text(&told, "expiry_time"));
        let (state, dir) = (Arc::clone(&self.state), self.dir.clone());
        let job = self
            .jobs
            .start("POST /api/storage/volumes/snapshots", move || {
                let mut state = state.lock();
                if state.snapshots.iter().any(|one| one.name == name) {
                    return Err(trouble("525059", "A snapshot of this name exists already."));
                }
                let at = dir.join(".snapshot").join(&name);
                if let Err(error) = disk::copy(&dir, &at, &[".snapshot"]) {
                    return Err(trouble("524479", &error.to_string()));
                }
                let uuid = state.uuid();
                state.snapshots.push(Snapshot {
                    uuid,
                    name,
                    created: jiff::Timestamp::now().to_string(),
                    comment: comment.unwrap_or_default(),
                    expires,
                });
                Ok(())
            });
        self.job_reply(ask, job, 201)
    }

    pub(super) fn change_snapshot(&self, ask: &Request) -> Reply {
        let told = ask.json();
        let uuid = ask.params[1].clone();
        let (comment, expires) = (text(&told, "comment"), text(&told, "expiry_time"));
        let state = Arc::clone(&self.state);
        let job = self
            .jobs
            .start("PATCH /api/storage/volumes/snapshots", move || {
                let mut state = state.lock();
                let found = state.snapshots.iter_mut().find(|one| one.uuid == uuid);
                let Some(one) = found else {
                    return Err(trouble("1638600", "The snapshot does not exist."));
                };
                if let Some(comment) = comment {
                    one.comment = comment;
                }
                one.expires = expires.or(one.expires.take());
                Ok(())
            });
        self.job_reply(ask, job, 200)
    }

    pub(super) fn delete_snapshot(&self, ask: &Request) -> Reply {
        let uuid = ask.params[1].clone();
        let (state, dir) = (Arc::clone(&self.state), self.dir.clone());
        if !state.lock().snapshots.iter().any(|one| one.uuid == uuid) {
            return unknown();
        }
        let job = self
            .jobs
            .start("DELETE /api/storage/volumes/snapshots", move || {
                let mut state = state.lock();
                let Some(at) = state.snapshots.iter().position(|one| one.uuid == uuid) else {
                    return Ok(());
                };
                let expires = state.snapshots[at].expires.as_deref();
                let expires = expires.and_then(|text| text.parse::<jiff::Timestamp>().ok());
                if expires.is_some_and(|at| jiff::Timestamp::now() < at) {
                    return Err(trouble(
                        "1638555",
                        "The snapshot has not expired or is locked.",
                    ));
                }
                let one = state.snapshots.remove(at);
                let _ = fs::remove_dir_all(dir.join(".snapshot").join(one.name));
                Ok(())
            });
        self.job_reply(ask, job, 200)
    }
}

fn unknown() -> Reply {
    fault(404, "1638600", "The snapshot does not exist.")
}
