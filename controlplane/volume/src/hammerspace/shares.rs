//! Hammerspace's REST interface, as far as it is used: shares, their sizes and snapshots, the
//! cluster's capacity.
//!
//! Laws
//! - What changes a share is a task, which is waited for.
//! - A share is changed by sending all of it back.
//! - A session that ended is told by 401 or 403; it is opened again once per call.
//!
//! Source: Hammerspace management API v1.2, as its CSI driver uses it.

use std::time::Duration;

use http::header::LOCATION;
use serde_json::{Value, json};

use crate::backend::{Capacity, ScopeQuota};
use crate::vendor::auth::SessionCookie;
use crate::vendor::call::{Answer, Call, segment};
use crate::vendor::options::{BackendOption, OptionKind, Options, optional, required};
use crate::vendor::rest::{About, Explained, Rest};
use crate::vendor::{Cause, VendorError};
use crate::volumes::{Spec, SpecError};

/// The product, as people call it.
const SYSTEM: &str = "Hammerspace";
const ADDRESS: &str = "address";
const USER: &str = "username";
const PASSWORD: &str = "password";
/// The host part of what is mounted.
pub(super) const SOURCE: &str = "mount_source";
const RETRY: &str = "share_query_retry";
const RETRY_WAIT: &str = "share_query_wait_sec";
/// Whether shares are mounted one by one.
pub(super) const MOUNTS: &str = "mount_shares";
/// How long a mount is waited for.
pub(super) const MOUNT_WAIT: &str = "mount_wait";
const VERIFY: &str = "ssl_enabled";
const CA_FILE: &str = "ssl_ca_file";

/// Options beside those of every REST interface.
pub(crate) const OPTIONS: &[BackendOption] = &[
    required(
        ADDRESS,
        OptionKind::Url,
        "the interface, such as https://anvil:8443/mgmt/v1.2/rest",
    ),
    required(USER, OptionKind::Text, "an account that manages shares"),
    required(PASSWORD, OptionKind::Secret, "its password"),
    required(
        SOURCE,
        OptionKind::Text,
        "the host that shares are mounted from",
    ),
    optional(
        RETRY,
        OptionKind::Number,
        "5",
        "how often a new share is looked for",
    ),
    optional(
        RETRY_WAIT,
        OptionKind::Wait,
        "1",
        "how long between two looks",
    ),
    optional(
        MOUNTS,
        OptionKind::Flag,
        "true",
        "false: the volume's path shows all shares, none is mounted by itself",
    ),
    optional(
        MOUNT_WAIT,
        OptionKind::Seconds,
        "60",
        "how long the mount of a new share is waited for",
    ),
    optional(
        VERIFY,
        OptionKind::Flag,
        "true",
        "whether certificates are verified",
    ),
    optional(
        CA_FILE,
        OptionKind::Path,
        "",
        "authorities to trust instead of the system's, PEM",
    ),
];

const LIMIT: &str = "shareSizeLimit";
/// The present state, which is listed among the snapshots.
const PRESENT: &str = "current";

/// A client for one cluster.
pub(super) struct Shares {
    pub(super) rest: Rest,
    looks: u32,
    look_wait: Duration,
}

fn explain(answer: &Answer) -> Explained {
    let texts = ["/message", "/error", "/errorMessage", "/0/message"];
    let text = texts.iter().find_map(|at| answer.text(at));
    // A session that ended looks like a missing right.
    let cause = (answer.status == 403).then_some(Cause::Unauthorized);
    Explained {
        code: None,
        text: text.map(str::to_owned),
        cause,
    }
}

impl Shares {
    pub(super) fn new(spec: &Spec, options: &Options<'_>) -> Result<Self, SpecError> {
        let about = About {
            system: SYSTEM,
            backend: "hammerspace",
            below: String::new(),
            verify_key: VERIFY,
            ca_key: CA_FILE,
            explain,
        };
        let told = vec![
            ("username", options.need(USER)?),
            ("password", options.secret(PASSWORD)?.expose().to_owned()),
        ];
        let auth = SessionCookie {
            login: Call::post("log in", "/login")
                .form(told)
                .text_answer()
                .repeatable(),
            session: "",
            guard: None,
            life: None,
        };
        Ok(Self {
            rest: Rest::of(spec, options, ADDRESS, about, auth)?,
            looks: options.number(RETRY)?,
            look_wait: options.seconds(RETRY_WAIT)?,
        })
    }

    /// Sends what changes something, and waits until its task is done.
    async fn change(&self, call: Call) -> Result<(), VendorError> {
        let operation = call.operation;
        let answer = self.rest.call(call.text_answer()).await?;
        let task = answer
            .header(LOCATION.as_str())
            .and_then(|place| place.rsplit_once("/tasks/"));
        match task {
            Some((_, task)) => self.wait(operation, task.trim_end_matches('/')).await,
            None => Ok(()),
        }
    }

    async fn wait(&self, operation: &'static str, task: &str) -> Result<(), VendorError> {
        let look = Call::get(operation, format!("/tasks/{}", segment(task)));
        let read = |answer: Option<&Answer>| {
            let answer = answer?;
            match answer.text("/status")? {
                "COMPLETED" => Some(Ok(())),
                word @ ("FAILED" | "HALTED" | "CANCELLED") => {
                    let told = answer.text("/statusMessage");
                    let text = told.filter(|text| !text.is_empty()).unwrap_or(word);
                    Some(Err(self.rest.error(operation, Cause::JobFailed, text)))
                }
                _ => None,
            }
        };
        self.rest.job(look, read).await
    }

    /// A share as a whole, by its name.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Value>, VendorError> {
        let call = Call::get("read share", format!("/shares/{}", segment(name)));
        let answer = self.rest.find(call).await?;
        Ok(answer.map(|answer| answer.body))
    }

    /// Makes a share that is no larger than the limit, and waits until it is known.
    pub(super) async fn create(&self, name: &str, limit: Option<u64>) -> Result<(), VendorError> {
        let operation = "create share";
        let mut told = json!({"name": name, "path": format!("/{name}")});
        if let Some(limit) = limit {
            told[LIMIT] = json!(limit);
        }
        let call = Call::post(operation, "/shares")
            .query("create-path", "true")
            .query("validate-only", "false")
            .json(told);
        if let Err(error) = self.change(call).await {
            // The answer may be what was lost; or somebody else was first.
            let may_be_made = error.cause.may_retry() || error.cause == Cause::Refused;
            if !may_be_made || !self.is_ours(name).await {
                return Err(error);
            }
        }
        for look in 0..self.looks {
            if look > 0 {
                tokio::time::sleep(self.look_wait).await;
            }
            if self.find(name).await?.is_some() {
                return Ok(());
            }
        }
        let text = "the share was made, and is not known";
        Err(self.rest.error(operation, Cause::NotFound, text))
    }

    /// Whether a share of a name is there with the path that we would give it.
    async fn is_ours(&self, name: &str) -> bool {
        let path = format!("/{name}");
        let found = self.find(name).await;
        found.is_ok_and(|share| share.is_some_and(|share| share["path"] == *path))
    }

    /// Gives a share another size, or none.
    pub(super) async fn resize(&self, name: &str, limit: Option<u64>) -> Result<(), VendorError> {
        let operation = "resize share";
        let missing = || {
            let text = format!("there is no share {name}");
            self.rest.error(operation, Cause::NotFound, text)
        };
        let place = format!("/shares/{}", segment(name));
        // Releases differ in how a size is lifted: it is left out, or 0.
        let ways = match limit {
            Some(limit) => vec![Some(limit)],
            None => vec![None, Some(0)],
        };
        for way in ways {
            let mut share = self.find(name).await?.ok_or_else(missing)?;
            if quota_of(&share).limit_bytes == limit {
                return Ok(());
            }
            if let Some(all) = share.as_object_mut() {
                all.remove(LIMIT);
                all.extend(way.map(|limit| (LIMIT.to_owned(), json!(limit))));
            }
            self.change(Call::put(operation, &*place).json(share))
                .await?;
        }
        Ok(())
    }

    /// Removes a share and what lies in it; a missing one is fine.
    pub(super) async fn delete(&self, name: &str) -> Result<(), VendorError> {
        let call = Call::delete("delete share", format!("/shares/{}", segment(name)))
            .query("delete-path", "true")
            .query("delete-delay", "0");
        match self.change(call).await {
            Err(error) if error.cause == Cause::NotFound => Ok(()),
            // It is removed already, and still listed.
            Err(error) if error.cause == Cause::Refused && error.text.contains("REMOVED") => Ok(()),
            done => done,
        }
    }

    /// Space of the cluster, by its state, or else by its metrics.
    pub(super) async fn capacity(&self) -> Result<Capacity, VendorError> {
        let state = self
            .rest
            .find(Call::get("read capacity", "/cntl/state"))
            .await?;
        // One cluster, or a list of one.
        let told = state.as_ref().and_then(|answer| {
            let body = &answer.body;
            body.get("capacity")
                .or_else(|| body.get(0)?.get("capacity"))
        });
        if let Some(capacity) = told.and_then(space) {
            return Ok(capacity);
        }
        let sites = self.rest.find(Call::get("list sites", "/sites")).await?;
        let site = sites
            .as_ref()
            .and_then(|answer| answer.text("/0/uoid/uuid"));
        let Some(site) = site else {
            return Ok(Capacity::default());
        };
        let place = format!("/metrics/capacity/CLUSTER/{}", segment(site));
        let call = Call::get("read capacity", place)
            .query("precedingDuration", "1h")
            .query("intervalDuration", "5m");
        let answer = self.rest.find(call).await?;
        let rows = answer
            .as_ref()
            .and_then(|answer| answer.body.pointer("/series/0/rows")?.as_array());
        let newest = rows.and_then(|rows| rows.iter().rev().find_map(space));
        Ok(newest.unwrap_or_default())
    }

    /// Keeps the state of a share, and gives Hammerspace's name for it.
    pub(super) async fn create_snapshot(&self, share: &str) -> Result<String, VendorError> {
        let operation = "create snapshot";
        let before = self.snapshots(share).await?;
        let place = format!("/share-snapshots/snapshot-create/{}", segment(share));
        let done = self
            .rest
            .call(Call::post(operation, place).text_answer())
            .await;
        let error = match done {
            Ok(answer) => {
                let name = answer.body.as_str().map(|name| name.trim().to_owned());
                if let Some(name) = name.filter(|name| !name.is_empty()) {
                    return Ok(name);
                }
                self.rest
                    .error(operation, Cause::Malformed, "a snapshot without a name")
            }
            Err(error) if error.cause.may_retry() => error,
            Err(error) => return Err(error),
        };
        // The answer may be what was lost: then there is one more than before.
        let after = self.snapshots(share).await.unwrap_or_default();
        let mut new = after.into_iter().filter(|name| !before.contains(name));
        match (new.next(), new.next()) {
            (Some(name), None) => Ok(name),
            _ => Err(error),
        }
    }

    /// Names of all snapshots of a share.
    pub(super) async fn snapshots(&self, share: &str) -> Result<Vec<String>, VendorError> {
        let place = format!("/share-snapshots/snapshot-list/{}", segment(share));
        let answer = self.rest.find(Call::get("list snapshots", place)).await?;
        let names = answer.map(|answer| answer.body);
        let names = names.as_ref().and_then(Value::as_array);
        let names = names.into_iter().flatten().filter_map(Value::as_str);
        let kept = names.filter(|name| *name != PRESENT);
        Ok(kept.map(str::to_owned).collect())
    }

    /// Removes a snapshot; a missing one is fine.
    pub(super) async fn delete_snapshot(&self, share: &str, name: &str) -> Result<(), VendorError> {
        let (share, name) = (segment(share), segment(name));
        let place = format!("/share-snapshots/snapshot-delete/{share}/{name}");
        let call = Call::post("delete snapshot", place)
            .text_answer()
            .repeatable();
        self.rest.find(call).await?;
        Ok(())
    }
}

/// A number, which some releases write as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn space(told: &Value) -> Option<Capacity> {
    let (total, used) = (number(&told["total"])?, number(&told["used"])?);
    number(&told["free"])?;
    Some(Capacity {
        capacity_bytes: Some(total),
        used_bytes: Some(used),
    })
}

/// The numbers of a share.
pub(super) fn quota_of(share: &Value) -> ScopeQuota {
    ScopeQuota {
        used_bytes: share.pointer("/space/used").and_then(number),
        limit_bytes: number(&share[LIMIT]).filter(|limit| *limit > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_texts_and_rows_may_have_holes() {
        let capacity = |total, used| {
            Some(Capacity {
                capacity_bytes: Some(total),
                used_bytes: Some(used),
            })
        };
        for (told, want) in [
            (
                json!({"total": "9", "used": "4", "free": "5"}),
                capacity(9, 4),
            ),
            (json!({"total": 9, "used": 4, "free": 5}), capacity(9, 4)),
            (json!({"total": 9, "used": null, "free": 5}), None),
            (json!({"total": 9, "used": 4}), None),
            (json!("nothing"), None),
        ] {
            assert_eq!(space(&told), want, "{told}");
        }
        for (share, used, limit) in [
            (
                json!({"space": {"used": 7}, "shareSizeLimit": 9}),
                Some(7),
                Some(9),
            ),
            (
                json!({"space": {"used": "7"}, "shareSizeLimit": 0}),
                Some(7),
                None,
            ),
            (json!({}), None, None),
        ] {
            let quota = quota_of(&share);
            assert_eq!(
                (quota.used_bytes, quota.limit_bytes),
                (used, limit),
                "{share}"
            );
        }
    }
}
