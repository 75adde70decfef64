//! Weka's REST interface, as far as it is used: quotas of directories by inode, snapshots of the
//! file system, its space and the cluster's numbers.
//!
//! Laws
//! - "Directory has no quota" is an answer, whatever status it comes with.
//! - A quota counts once it is active; one that still counts a full directory is waited for, and
//!   then watched.
//! - The inode number comes from Weka: what a mount shows may be another one.
//!
//! Source: Weka REST v2 as its CSI driver uses it; JSON-RPC v1 as `wekalib` 1.5.0 uses it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::backend::Metric;
use crate::directory_quota::Found;
use crate::stamp::Stamp;
use crate::vendor::auth::BearerToken;
use crate::vendor::call::{Answer, Call, segment};
use crate::vendor::options::{BackendOption, OptionKind, Options, optional, required};
use crate::vendor::pace::Pace;
use crate::vendor::rest::{About, Explained, Rest};
use crate::vendor::{Cause, READ_PERFORMANCE, VendorError};
use crate::volumes::{Spec, SpecError};

/// The product, as people call it.
pub(super) const SYSTEM: &str = "Weka";
const ENDPOINT: &str = "weka_endpoint";
const USER: &str = "weka_username";
const PASSWORD: &str = "weka_password";
const ORGANIZATION: &str = "weka_organization";
const FS_NAME: &str = "weka_fs_name";
const VERIFY: &str = "weka_verify_ssl";
const CA_FILE: &str = "weka_ca_file";

/// Options beside those of every REST interface.
pub(crate) const OPTIONS: &[BackendOption] = &[
    required(
        ENDPOINT,
        OptionKind::Url,
        "the address of the cluster, with port 14000",
    ),
    required(USER, OptionKind::Text, "an account with the rights below"),
    required(PASSWORD, OptionKind::Secret, "its password"),
    required(
        ORGANIZATION,
        OptionKind::Text,
        "the account's organization, such as \"Root\"",
    ),
    required(
        FS_NAME,
        OptionKind::Text,
        "the file system that is mounted, at its root",
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

/// What Weka says for "no limit".
const UNLIMITED: u64 = i64::MAX as u64;
const NO_QUOTA: &str = "has no quota";
/// How long a caller waits for a quota that counts a full directory.
const ACTIVE_WAIT: Duration = Duration::from_secs(10);
/// Statistics of this time are asked for; the latest ones are used.
const STATS_SECONDS: i64 = 120;

/// A client for one file system.
pub(super) struct Api {
    pub(super) rest: Arc<Rest>,
    fs_name: String,
    fs_uid: Mutex<Option<String>>,
}

fn explain(answer: &Answer) -> Explained {
    let texts = ["/message", "/error/message", "/error", "/data/message"];
    let text = texts
        .iter()
        .find_map(|at| answer.text(at))
        .map(str::to_owned);
    let codes = ["/error_code", "/error/code", "/data/error_code"];
    let code = codes.iter().find_map(|at| answer.body.pointer(at));
    let none = text.as_deref().is_some_and(|text| text.contains(NO_QUOTA));
    Explained {
        code: code.map(|code| {
            code.as_str()
                .map_or_else(|| code.to_string(), str::to_owned)
        }),
        text,
        cause: none.then_some(Cause::NotFound),
    }
}

impl Api {
    pub(super) fn new(spec: &Spec, options: &Options<'_>) -> Result<Self, SpecError> {
        let about = About {
            system: SYSTEM,
            backend: "weka",
            below: String::new(),
            verify_key: VERIFY,
            ca_key: CA_FILE,
            explain,
        };
        let told = json!({
            "username": options.need(USER)?,
            "password": options.secret(PASSWORD)?.expose(),
            "org": options.need(ORGANIZATION)?,
        });
        let renew = |token: &str| {
            let told = json!({"refresh_token": token});
            Call::post("renew token", "/api/v2/login/refresh")
                .json(told)
                .repeatable()
        };
        let auth = BearerToken {
            login: Call::post("log in", "/api/v2/login")
                .json(told)
                .repeatable(),
            renew: Some(renew),
            access: "/data/access_token",
            refresh: Some("/data/refresh_token"),
            seconds: Some("/data/expires_in"),
            life: None,
        };
        Ok(Self {
            rest: Arc::new(Rest::of(spec, options, ENDPOINT, about, auth)?),
            fs_name: options.need(FS_NAME)?,
            fs_uid: Mutex::default(),
        })
    }

    /// The file system's identifier, looked up once.
    async fn fs_uid(&self) -> Result<String, VendorError> {
        if let Some(uid) = self.fs_uid.lock().clone() {
            return Ok(uid);
        }
        let operation = "find file system";
        let answer = self
            .rest
            .call(Call::get(operation, "/api/v2/fileSystems"))
            .await?;
        let all = answer.body["data"].as_array();
        let own = all
            .into_iter()
            .flatten()
            .find(|fs| fs["name"] == *self.fs_name);
        let Some(uid) = own.and_then(|fs| fs["uid"].as_str()) else {
            let text = format!("there is no file system {:?}", self.fs_name);
            return Err(self.rest.error(operation, Cause::NotFound, text));
        };
        *self.fs_uid.lock() = Some(uid.to_owned());
        Ok(uid.to_owned())
    }

    /// A path below the file system; once more with a fresh identifier if it is not known.
    async fn in_fs(&self, make: impl Fn(&str) -> Call + Send) -> Result<Answer, VendorError> {
        let call = |uid: &str| make(&format!("/api/v2/fileSystems/{}", segment(uid)));
        let uid = self.fs_uid().await?;
        let error = match self.rest.call(call(&uid)).await {
            Err(error) if error.cause == Cause::NotFound => error,
            done => return done,
        };
        if error.text.contains(NO_QUOTA) {
            return Err(error);
        }
        *self.fs_uid.lock() = None;
        let fresh = self.fs_uid().await?;
        if fresh == uid {
            return Err(error);
        }
        self.rest.call(call(&fresh)).await
    }

    /// What Weka says of the file system.
    pub(super) async fn file_system(&self) -> Result<Value, VendorError> {
        let mut answer = self.in_fs(|fs| Call::get("read file system", fs)).await?;
        Ok(answer.body["data"].take())
    }

    /// The inode number of a path from the file system's root; `None` where it is not told.
    pub(super) async fn inode(&self, path: &str) -> Result<Option<u64>, VendorError> {
        let resolve =
            |fs: &str| Call::get("find inode", format!("{fs}/resolvePath")).query("path", path);
        match self.in_fs(resolve).await {
            Ok(answer) => {
                let inode = &answer.body["data"]["inode_id"];
                Ok(inode.as_u64().or_else(|| inode.as_str()?.parse().ok()))
            }
            // Older releases do not have it.
            Err(error) if error.cause == Cause::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The quota of a directory.
    pub(super) async fn quota(&self, inode: u64) -> Result<Option<Value>, VendorError> {
        let read = |fs: &str| Call::get("read quota", format!("{fs}/quota/{inode}"));
        match self.in_fs(read).await {
            Ok(answer) => Ok(quota_in(&answer.body["data"], inode)),
            Err(error) if error.cause == Cause::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the quota of a directory, and waits until it counts.
    pub(super) async fn set_quota(
        &self,
        inode: u64,
        path: &str,
        limit_bytes: u64,
    ) -> Result<(), VendorError> {
        let told = json!({
            "hard_limit_bytes": limit_bytes, "soft_limit_bytes": limit_bytes,
            "grace_seconds": 0, "path": path,
        });
        let put =
            |fs: &str| Call::put("set quota", format!("{fs}/quota/{inode}")).json(told.clone());
        match self.in_fs(put).await {
            Ok(_) => {}
            // Older releases have it in their other interface only.
            Err(error) if error.cause == Cause::NotFound => {
                self.set_quota_v1(inode, path, limit_bytes, error).await?;
            }
            Err(error) => return Err(error),
        }
        self.wait_active(inode).await
    }

    async fn set_quota_v1(
        &self,
        inode: u64,
        path: &str,
        limit_bytes: u64,
        first: VendorError,
    ) -> Result<(), VendorError> {
        let told = json!({
            "jsonrpc": "2.0", "id": inode.to_string(), "method": "set_directory_quota",
            "params": {
                "activate": true, "inode_context": inode, "path": path,
                "soft_limit_bytes": limit_bytes, "hard_limit_bytes": limit_bytes,
            },
        });
        let call = Call::post("set quota", "/api/v1").json(told).repeatable();
        let answer = match self.rest.call(call).await {
            Err(error) if error.cause == Cause::NotFound => return Err(first),
            done => done?,
        };
        let Some(fault) = answer.body.get("error").filter(|fault| !fault.is_null()) else {
            return Ok(());
        };
        let text = fault["message"].as_str().unwrap_or_default();
        let mut error = self.rest.error("set quota", Cause::Refused, text);
        error.code = fault.get("code").map(Value::to_string);
        Err(error)
    }

    /// Waits a while; whoever takes longer is watched, so that a failure is in the log.
    async fn wait_active(&self, inode: u64) -> Result<(), VendorError> {
        let ms = Duration::from_millis;
        let mut pace = Pace::new(ms(50), ms(1000), ACTIVE_WAIT);
        loop {
            match self.quota(inode).await?.as_ref().map(status_of) {
                Some("ERROR") => {
                    let text = "the quota is in error";
                    return Err(self.rest.error("set quota", Cause::JobFailed, text));
                }
                Some("ADDING") | None => {}
                Some(_) => return Ok(()),
            }
            if !pace.next().await {
                break;
            }
        }
        let (rest, uid) = (Arc::clone(&self.rest), self.fs_uid().await?);
        tokio::spawn(async move { watch(&rest, &uid, inode).await });
        Ok(())
    }

    /// Removes the quota of a directory; a missing one is fine.
    pub(super) async fn delete_quota(&self, inode: u64) -> Result<(), VendorError> {
        for kind in ["quota", "quotas"] {
            // Releases differ in this one letter.
            let delete = |fs: &str| Call::delete("delete quota", format!("{fs}/{kind}/{inode}"));
            match self.in_fs(delete).await {
                Ok(_) => break,
                Err(error) if error.text.contains(NO_QUOTA) => return Ok(()),
                Err(error) if error.cause == Cause::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut pace = self.rest.pace();
        while let Some(quota) = self.quota(inode).await? {
            if status_of(&quota) == "DELETING" {
                if pace.next().await {
                    continue;
                }
                return Err(self.rest.late("delete quota"));
            }
            let text = "the quota is still there";
            return Err(self.rest.error("delete quota", Cause::Failed, text));
        }
        Ok(())
    }

    pub(super) async fn quotas(&self) -> Result<Value, VendorError> {
        let list = |fs: &str| Call::get("list quotas", format!("{fs}/quota"));
        Ok(self.in_fs(list).await?.body["data"].take())
    }

    /// The word for the cluster's health, in small letters.
    pub(super) async fn health(&self) -> Result<String, VendorError> {
        let call = Call::get("read health", "/api/v2/healthcheck").text_answer();
        let answer = self.rest.call(call).await?;
        let told = ["/data", "/data/status", "/status"];
        let word = told
            .iter()
            .find_map(|at| answer.text(at))
            .or(answer.body.as_str());
        Ok(word.unwrap_or_default().trim().to_lowercase())
    }

    pub(super) async fn cluster(&self) -> Result<Value, VendorError> {
        let answer = self
            .rest
            .call(Call::get("read cluster", "/api/v2/cluster"))
            .await?;
        let mut body = answer.body;
        Ok(match body.get_mut("data") {
            Some(data) => data.take(),
            None => body,
        })
    }

    /// Performance of the cluster.
    pub(super) async fn metric(&self) -> Result<Metric, VendorError> {
        let since = Timestamp::from_second(Timestamp::now().as_second() - STATS_SECONDS);
        let since = since.unwrap_or(Timestamp::UNIX_EPOCH);
        let mut call = Call::get(READ_PERFORMANCE, "/api/v2/stats");
        call = call.query("start_time", since.to_string());
        for stat in STATS {
            call = call.query("stat", format!("ops.{stat}"));
        }
        let body = self.rest.call(call).await?.body;
        metric_of(&body).ok_or_else(|| {
            let text = "there is no row of numbers";
            self.rest.error(READ_PERFORMANCE, Cause::NotFound, text)
        })
    }

    /// Keeps the state of the file system. `false`: there is one of this name.
    pub(super) async fn create_snapshot(
        &self,
        name: &str,
        access_point: &str,
    ) -> Result<bool, VendorError> {
        let told = json!({
            "fs_uid": self.fs_uid().await?, "name": name, "access_point": access_point,
            "is_writable": false,
        });
        let call = Call::post("create snapshot", "/api/v2/snapshots").json(told);
        match self.rest.call(call).await {
            Ok(_) => Ok(true),
            Err(error) if error.cause == Cause::Conflict => Ok(false),
            Err(error) if error.cause.may_retry() => {
                // The answer may be what was lost.
                let made = self
                    .snapshots()
                    .await
                    .is_ok_and(|all| all.iter().any(|one| one["name"].as_str() == Some(name)));
                if made { Ok(true) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    /// All snapshots of the file system that are not on their way out.
    pub(super) async fn snapshots(&self) -> Result<Vec<Value>, VendorError> {
        let call = Call::get("list snapshots", "/api/v2/snapshots");
        let mut answer = self
            .rest
            .call(call.query("filesystem", &self.fs_name))
            .await?;
        let Value::Array(all) = answer.body["data"].take() else {
            return Ok(Vec::new());
        };
        // Not every release looks at the query.
        let own = |one: &Value| one["filesystem"] == *self.fs_name && one["isRemoving"] != true;
        Ok(all.into_iter().filter(own).collect())
    }

    pub(super) async fn delete_snapshot(&self, uid: &str) -> Result<(), VendorError> {
        let place = format!("/api/v2/snapshots/{}", segment(uid));
        self.rest
            .find(Call::delete("delete snapshot", place))
            .await?;
        Ok(())
    }
}

/// Looks after a quota that takes its time, for the log.
async fn watch(rest: &Rest, uid: &str, inode: u64) {
    let place = format!("/api/v2/fileSystems/{}/quota/{inode}", segment(uid));
    let mut pace = rest.pace();
    while pace.next().await {
        let answer = rest.find(Call::get("read quota", place.clone())).await;
        let quota = match answer {
            Ok(answer) => answer.and_then(|answer| quota_in(&answer.body["data"], inode)),
            Err(_) => continue,
        };
        match quota.as_ref().map(status_of) {
            Some("ADDING") => {}
            Some("ERROR") | None => {
                tracing::warn!(inode, "a quota that was set does not count");
                return;
            }
            Some(_) => return,
        }
    }
    tracing::warn!(inode, "a quota that was set is still being counted");
}

/// The one quota of an answer: the object, or a map by the quota's number.
fn quota_in(data: &Value, inode: u64) -> Option<Value> {
    let is_own = |quota: &Value| {
        let own = &quota["inode_id"];
        own.as_u64().or_else(|| own.as_str()?.parse().ok()) == Some(inode)
    };
    if data.get("inode_id").is_some() || data.get("hard_limit_bytes").is_some() {
        return Some(data.clone());
    }
    data.as_object()?
        .values()
        .find(|quota| is_own(quota))
        .cloned()
}

fn status_of(quota: &Value) -> &str {
    quota["status"].as_str().unwrap_or("ACTIVE")
}

/// The numbers of a quota; the used bytes of one that is not active are still being counted.
pub(super) fn found(quota: &Value, inode: u64) -> Option<Found> {
    if status_of(quota) == "DELETING" {
        return None;
    }
    let used = quota["total_bytes"]
        .as_u64()
        .or_else(|| quota["used_bytes"].as_u64());
    let limit = quota["hard_limit_bytes"].as_u64();
    Some(Found {
        id: inode.to_string(),
        used_bytes: used.filter(|_| status_of(quota) != "ADDING"),
        limit_bytes: limit.filter(|limit| 0 < *limit && *limit < UNLIMITED),
    })
}

const STATS: [&str; 6] = [
    "READS",
    "WRITES",
    "READ_BYTES",
    "WRITE_BYTES",
    "READ_LATENCY",
    "WRITE_LATENCY",
];

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn metric_of(body: &Value) -> Option<Metric> {
    let stats = &body["data"]["all"]["ops"].as_array()?.last()?["stats"];
    let number = |key: &str| stats[key].as_f64().unwrap_or(0.0);
    let whole = |key: &str| number(key).max(0.0).round() as u64;
    Some(Metric {
        iops_read: whole("READS"),
        iops_write: whole("WRITES"),
        io_bytes_read: whole("READ_BYTES"),
        io_bytes_write: whole("WRITE_BYTES"),
        io_usec_read: number("READ_LATENCY"),
        io_usec_write: number("WRITE_LATENCY"),
        observed_at: Stamp::now(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::header::HeaderMap;

    use super::*;

    #[test]
    fn quotas_come_in_two_shapes_and_five_states() {
        let own = json!({"inode_id": 7, "hard_limit_bytes": 9, "total_bytes": 4});
        for (data, want) in [
            (own.clone(), Some((Some(4), Some(9)))),
            (json!({"QuotaId: 0": own}), Some((Some(4), Some(9)))),
            (json!({"QuotaId: 0": {"inode_id": 8}}), None),
            (json!({}), None),
            (Value::Null, None),
            (
                json!({"inode_id": "7", "hard_limit_bytes": UNLIMITED, "used_bytes": 4}),
                Some((Some(4), None)),
            ),
            (
                json!({"inode_id": 7, "hard_limit_bytes": 9, "total_bytes": 4,
                    "status": "ADDING"}),
                Some((None, Some(9))),
            ),
            (
                json!({"inode_id": 7, "hard_limit_bytes": 9, "status": "DELETING"}),
                None,
            ),
        ] {
            let got = quota_in(&data, 7).and_then(|quota| found(&quota, 7));
            let got = got.map(|found| (found.used_bytes, found.limit_bytes));
            assert_eq!(got, want, "{data}");
        }
    }

    #[test]
    fn no_quota_is_no_error_of_the_server() {
        for status in [404, 500] {
            let answer = Answer {
                status,
                headers: HeaderMap::new(),
                body: json!({"message": "Directory has no quota"}),
            };
            assert_eq!(explain(&answer).cause, Some(Cause::NotFound));
        }
        let answer = Answer {
            status: 500,
            headers: HeaderMap::new(),
            body: json!({"error": {"code": -32601, "message": "Method not found"}}),
        };
        let explained = explain(&answer);
        assert_eq!(explained.cause, None);
        assert_eq!(explained.code.as_deref(), Some("-32601"));
        assert_eq!(explained.text.as_deref(), Some("Method not found"));
    }

    #[test]
    fn the_latest_statistics_count() {
        let stats = |reads: f64| json!({"stats": {"READS": reads, "READ_LATENCY": 12.5}});
        let body = json!({"data": {"all": {"ops": [stats(1.0), stats(2.6)]}}});
        let metric = metric_of(&body).unwrap();
        assert_eq!((metric.iops_read, metric.io_usec_read), (3, 12.5));
        for none in [json!({"data": {}}), json!({"data": {"all": {"ops": []}}})] {
            assert_eq!(metric_of(&none), None, "{none}");
        }
    }
}
