//! Quota rules, their switch, and reports that are computed from the directory.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{NetApp, SVM, SVM_UUID, State, VOLUME, collection, fault, field, hal, text, trouble};
use crate::jobs::Trouble;
use crate::{Reply, Request, disk};

/// The least limit that ONTAP sets.
const LIMIT_BYTES_MIN: i64 = 1024;

/// How far the volume's quotas are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuotaState {
    Off,
    /// On after it was looked at so often.
    Initializing(u8),
    On,
}

impl QuotaState {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Initializing(_) => "initializing",
            Self::On => "on",
        }
    }

    /// Somebody looked: time passes.
    pub(super) fn pass(&mut self) {
        *self = match *self {
            Self::Initializing(left) if left > 1 => Self::Initializing(left - 1),
            Self::Initializing(_) => Self::On,
            other => other,
        };
    }
}

/// A limit of one qtree.
pub(super) struct Rule {
    uuid: String,
    pub(super) qtree: String,
    hard: Option<u64>,
    soft: Option<u64>,
    /// It counts: quotas were resized after it was made.
    counts: bool,
}

impl State {
    pub(super) fn switch_quotas(&mut self, on: bool) -> Result<(), Trouble> {
        match (on, self.quota) {
            (true, QuotaState::Off) => {
                self.quota = QuotaState::Initializing(2);
                for rule in &mut self.rules {
                    rule.counts = true;
                }
                Ok(())
            }
            (true, _) => Err(trouble("5308507", "quotas are already on")),
            (false, _) => {
                self.quota = QuotaState::Off;
                Ok(())
            }
        }
    }

    fn record(&self, rule: &Rule) -> Value {
        let mut space = json!({});
        for (key, limit) in [("hard_limit", rule.hard), ("soft_limit", rule.soft)] {
            if let Some(limit) = limit {
                space[key] = json!(limit);
            }
        }
        let id = self.qtrees.iter().find(|qtree| qtree.name == rule.qtree);
        json!({
            "uuid": rule.uuid, "type": "tree",
            "qtree": {"name": rule.qtree, "id": id.map(|qtree| qtree.id)},
            "svm": {"uuid": SVM_UUID, "name": SVM},
            "volume": {"uuid": self.volume_uuid, "name": VOLUME},
            "space": space,
        })
    }
}

/// A limit in a body; `Some(None)` clears it.
fn limit(told: &Value, key: &str) -> Result<Option<Option<u64>>, Reply> {
    let Some(value) = field(told, key) else {
        return Ok(None);
    };
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    match number {
        Some(-1) => Ok(Some(None)),
        Some(number) if number >= 0 => Ok(Some(Some(number.max(LIMIT_BYTES_MIN).unsigned_abs()))),
        _ => Err(fault(
            400,
            "5308573",
            "Input value is out of range for space hard limit.",
        )),
    }
}

impl NetApp {
    pub(super) fn rules(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        let records = state.rules.iter().map(|rule| state.record(rule));
        collection(ask, records.collect())
    }

    pub(super) fn one_rule(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        match state.rules.iter().find(|rule| rule.uuid == ask.params[0]) {
            Some(rule) => hal(200, state.record(rule)),
            None => unknown(),
        }
    }

    pub(super) fn create_rule(&self, ask: &Request) -> Reply {
        let told = ask.json();
        if let Err(refusal) = self.right_volume(&told) {
            return refusal;
        }
        if text(&told, "type").as_deref() != Some("tree") {
            return fault(400, "3", "this simulator knows tree rules only");
        }
        let Some(qtree) = text(&told, "qtree.name") else {
            return fault(
                400,
                "5308564",
                "A tree rule needs qtree.name and no users or group.",
            );
        };
        let limits = limit(&told, "space.hard_limit")
            .and_then(|hard| Ok((hard.flatten(), limit(&told, "space.soft_limit")?.flatten())));
        let (hard, soft) = match limits {
            Ok(limits) => limits,
            Err(refusal) => return refusal,
        };
        let state = Arc::clone(&self.state);
        let job = self.jobs.start("POST /api/storage/quota/rules", move || {
            let mut state = state.lock();
            if !state.qtrees.iter().any(|other| other.name == qtree) {
                return Err(trouble("5308552", "The qtree of the rule does not exist."));
            }
            if state.rules.iter().any(|rule| rule.qtree == qtree) {
                return Err(trouble("1", "duplicate entry"));
            }
            let uuid = state.uuid();
            let resized = state.resize_fails == 0;
            state.resize_fails = state.resize_fails.saturating_sub(1);
            state.rules.push(Rule {
                uuid,
                qtree,
                hard,
                soft,
                counts: resized,
            });
            if resized {
                return Ok(());
            }
            let text = "Quota policy rule create operation succeeded, but quota resize failed.";
            Err(trouble("5308568", text))
        });
        self.job_reply(ask, job, 201)
    }

    pub(super) fn change_rule(&self, ask: &Request) -> Reply {
        let told = ask.json();
        let limits = limit(&told, "space.hard_limit")
            .and_then(|hard| Ok((hard, limit(&told, "space.soft_limit")?)));
        let (hard, soft) = match limits {
            Ok(limits) => limits,
            Err(refusal) => return refusal,
        };
        let uuid = ask.params[0].clone();
        if !self.state.lock().rules.iter().any(|rule| rule.uuid == uuid) {
            return unknown();
        }
        let state = Arc::clone(&self.state);
        let job = self.jobs.start("PATCH /api/storage/quota/rules", move || {
            let mut state = state.lock();
            if let Some(rule) = state.rules.iter_mut().find(|rule| rule.uuid == uuid) {
                rule.hard = hard.unwrap_or(rule.hard);
                rule.soft = soft.unwrap_or(rule.soft);
            }
            Ok(())
        });
        self.job_reply(ask, job, 200)
    }

    pub(super) fn delete_rule(&self, ask: &Request) -> Reply {
        let uuid = ask.params[0].clone();
        if !self.state.lock().rules.iter().any(|rule| rule.uuid == uuid) {
            return unknown();
        }
        let state = Arc::clone(&self.state);
        let job = self.jobs.start("DELETE /api/storage/quota/rules", move || {
            state.lock().rules.retain(|rule| rule.uuid != uuid);
            Ok(())
        });
        self.job_reply(ask, job, 200)
    }

    pub(super) fn reports(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        let on = state.quota == QuotaState::On;
        state.quota.pass();
        let counted = state.rules.iter().filter(|rule| on && rule.counts);
        let records = counted.enumerate().map(|(index, rule)| {
            let mut record = state.record(rule);
            let (used, _) = disk::sums(&self.dir.join(&rule.qtree), &[]);
            record["index"] = json!(index + 1);
            record["space"]["used"] = json!({"total": used});
            if let Some(hard) = rule.hard {
                let percent = used * 100 / hard.max(1);
                record["space"]["used"]["hard_limit_percent"] = json!(percent);
            }
            if let Some(record) = record.as_object_mut() {
                record.remove("uuid");
            }
            record
        });
        collection(ask, records.collect())
    }
}

fn unknown() -> Reply {
    fault(
        404,
        "5308545",
        "The quota policy rule identifier does not exist.",
    )
}
