//! OneFS's platform API, as far as it is used: directory quotas, snapshots, statistics, hardware.
//!
//! Laws
//! - Calls go out in a session; where the account may not have one, with name and password.
//! - What a quota is about is its path: an object of another path is never changed.
//!
//! Source: OneFS platform API; `isilon-sdk` 0.7.0.

use std::time::Duration;

use async_trait::async_trait;
use proxy_core::id::QuotaScopeId;
use serde_json::{Value, json};

use crate::backend::Metric;
use crate::directory_quota::{Found, Limiter};
use crate::error::VolumeError;
use crate::stamp::Stamp;
use crate::vendor::auth::{Auth, Basic, Grant, SessionCookie};
use crate::vendor::call::{Answer, Call, Next, segment};
use crate::vendor::options::{BackendOption, OptionKind, Options, optional, required};
use crate::vendor::rest::{About, Explained, Failure, Rest};
use crate::vendor::{Cause, READ_PERFORMANCE, VendorError};
use crate::volumes::{Spec, SpecError};

/// The product, as people call it.
pub(super) const SYSTEM: &str = "Dell PowerScale OneFS";
const ENDPOINT: &str = "dell_endpoint";
const USER: &str = "dell_username";
/// What the original called the account first.
const USER_OLD: &str = "dell_admin";
const PASSWORD: &str = "dell_password";
const VERSION: &str = "dell_api_version";
const IFS_PATH: &str = "dell_ifs_path";
const SYSTEM_NAME: &str = "dell_system_name";
const VERIFY: &str = "dell_verify_ssl";
const CA_FILE: &str = "dell_ca_file";

/// Options beside those of every REST interface.
pub(crate) const OPTIONS: &[BackendOption] = &[
    required(
        ENDPOINT,
        OptionKind::Url,
        "the cluster's management address, with port 8080",
    ),
    optional(
        USER,
        OptionKind::Text,
        "",
        "an account with the rights below",
    ),
    optional(
        USER_OLD,
        OptionKind::Text,
        "",
        "the same, as it was called before",
    ),
    required(PASSWORD, OptionKind::Secret, "its password"),
    required(
        VERSION,
        OptionKind::Text,
        "the number of the platform API, such as \"12\"",
    ),
    required(
        IFS_PATH,
        OptionKind::Path,
        "the directory below /ifs that is mounted",
    ),
    optional(
        SYSTEM_NAME,
        OptionKind::Text,
        "",
        "whose workload the latencies are",
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

/// Snapshots have had this version ever since.
const SNAPSHOTS: &str = "/platform/1/snapshot/snapshots";
/// A session ends after 900 s without a call; a new one is cheap.
const SESSION_LIFE: Duration = Duration::from_secs(600);
/// Bytes per second in what statistics call a megabyte per second.
const MB: f64 = 1e6;
const READS: &str = "cluster.disk.xfers.out.rate";
const WRITES: &str = "cluster.disk.xfers.in.rate";

/// A client for one cluster and one directory of it.
pub(super) struct Platform {
    pub(super) rest: Rest,
    base: String,
    ifs_path: String,
    system_name: Option<String>,
}

/// A session, or basic authentication where there is none to be had.
struct SessionOrBasic {
    session: SessionCookie,
    basic: Basic,
}

#[async_trait]
impl Auth for SessionOrBasic {
    async fn login(&self, rest: &Rest, old: Option<&Grant>) -> Result<Grant, Failure> {
        match self.session.login(rest, old).await {
            Err(failure) if has_no_sessions(&failure.error) => self.basic.login(rest, old).await,
            done => done,
        }
    }
}

fn has_no_sessions(error: &VendorError) -> bool {
    matches!(
        error.cause,
        Cause::NotFound | Cause::Forbidden | Cause::Malformed
    )
}

fn explain(answer: &Answer) -> Explained {
    Explained {
        code: answer.text("/errors/0/code").map(str::to_owned),
        text: answer.text("/errors/0/message").map(str::to_owned),
        cause: None,
    }
}

impl Platform {
    pub(super) fn new(spec: &Spec, options: &Options<'_>) -> Result<Self, SpecError> {
        let user = options.text(USER).or_else(|| options.text(USER_OLD));
        let user = user.ok_or_else(|| options.fault(USER, "is missing; text: an account"))?;
        let password = options.secret(PASSWORD)?;
        let version = options.need(VERSION)?;
        if version.parse::<u32>().is_err() {
            return Err(options.fault(VERSION, "must be: a number in quotes, such as \"12\""));
        }
        let ifs_path = options.need(IFS_PATH)?.trim_end_matches('/').to_owned();
        if ifs_path != "/ifs" && !ifs_path.starts_with("/ifs/") {
            return Err(options.fault(IFS_PATH, "must be: a directory below /ifs"));
        }
        let login = json!({
            "username": user, "password": password.expose(),
            "services": ["platform", "namespace"],
        });
        let session = SessionCookie {
            login: Call::post("open session", "/session/1/session")
                .json(login)
                .repeatable(),
            session: "isisessid",
            guard: Some(("isicsrf", "x-csrf-token")),
            life: Some(SESSION_LIFE),
        };
        let basic = Basic::new(&user, &password);
        let about = About {
            system: SYSTEM,
            backend: "dellemc-onefs",
            below: String::new(),
            verify_key: VERIFY,
            ca_key: CA_FILE,
            explain,
        };
        let auth = SessionOrBasic { session, basic };
        Ok(Self {
            rest: Rest::of(spec, options, ENDPOINT, about, auth)?,
            base: format!("/platform/{version}"),
            ifs_path,
            system_name: options.text(SYSTEM_NAME),
        })
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A path below the volume as the cluster calls it.
    pub(super) fn ifs(&self, below: &str) -> String {
        format!("{}{below}", self.ifs_path)
    }

    fn scope_path(&self, scope: QuotaScopeId) -> String {
        self.ifs(&format!("/{}", scope.dir_name()))
    }

    async fn quota_of(&self, path: &str) -> Result<Option<Value>, VendorError> {
        let call = Call::get("find quota", self.at("/quota/quotas"))
            .query("path", path)
            .query("type", "directory");
        let found = self.rest.list(call, "/quotas", resumed).await?;
        Ok(found.into_iter().find(|quota| is_about(quota, path)))
    }

    async fn quota(&self, path: &str, noted: Option<String>) -> Result<Option<Value>, VendorError> {
        if let Some(id) = noted {
            let place = self.at(&format!("/quota/quotas/{}", segment(&id)));
            let answer = self.rest.find(Call::get("read quota", place)).await;
            let quota = match answer {
                Ok(answer) => answer.and_then(|answer| answer.body.pointer("/quotas/0").cloned()),
                // Not every text is one that it takes for an id.
                Err(error) if error.cause == Cause::Refused => None,
                Err(error) => return Err(error),
            };
            if let Some(quota) = quota.filter(|quota| is_about(quota, path)) {
                return Ok(Some(quota));
            }
        }
        self.quota_of(path).await
    }

    /// Keeps the state of a directory. `false`: there is one of this name.
    pub(super) async fn create_snapshot(
        &self,
        name: &str,
        path: &str,
        expires: Option<Stamp>,
    ) -> Result<bool, VendorError> {
        let mut told = json!({"name": name, "path": path});
        if let Some(at) = expires {
            told["expires"] = json!(i64::try_from(at.seconds_up()).unwrap_or(i64::MAX));
        }
        match self
            .rest
            .call(Call::post("create snapshot", SNAPSHOTS).json(told))
            .await
        {
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

    pub(super) async fn snapshots(&self) -> Result<Vec<Value>, VendorError> {
        let call = Call::get("list snapshots", SNAPSHOTS);
        self.rest.list(call, "/snapshots", resumed).await
    }

    pub(super) async fn delete_snapshot(&self, name: &str) -> Result<(), VendorError> {
        let place = format!("{SNAPSHOTS}/{}", segment(name));
        self.rest
            .find(Call::delete("delete snapshot", place))
            .await?;
        Ok(())
    }

    /// Bytes in all and in use of the first pool.
    pub(super) async fn pool(&self) -> Result<Value, VendorError> {
        let call = Call::get("read storage pools", self.at("/storagepool/storagepools"));
        let answer = self.rest.call(call).await?;
        Ok(answer
            .body
            .pointer("/storagepools/0")
            .cloned()
            .unwrap_or_default())
    }

    /// Configuration and interfaces of the cluster, hardware and batteries of its nodes.
    pub(super) async fn hardware(&self) -> Result<Hardware, VendorError> {
        let get = |path: &str| self.rest.call(Call::get("read hardware", self.at(path)));
        let config = get("/cluster/config").await?.body;
        let interfaces = get("/network/interfaces").await?.body["interfaces"].take();
        let pool = self.pool().await?;
        let mut nodes = Vec::new();
        for lnn in pool["lnns"].as_array().into_iter().flatten() {
            let hardware = get(&format!("/cluster/nodes/{lnn}/hardware")).await?.body;
            let status = get(&format!("/cluster/nodes/{lnn}/status/nvram"))
                .await?
                .body;
            nodes.push((hardware, status));
        }
        Ok(Hardware {
            config,
            interfaces,
            nodes,
        })
    }

    /// Performance of the cluster.
    pub(super) async fn metric(&self) -> Result<Metric, VendorError> {
        let get = |path: &str| Call::get(READ_PERFORMANCE, self.at(path));
        let summary = self
            .rest
            .call(get("/statistics/summary/protocol-stats"))
            .await?
            .body;
        let mut workload = get("/statistics/summary/workload");
        if let Some(name) = &self.system_name {
            workload = workload.query("system_names", name);
        }
        let workload = self.rest.call(workload).await?.body;
        let rates = get("/statistics/current").query("keys", format!("{READS},{WRITES}"));
        // Not every version has these keys; without them, reads and writes are not told apart.
        let rates = self
            .rest
            .call(rates)
            .await
            .map(|answer| answer.body)
            .unwrap_or_default();
        Ok(metric_of(&summary, &workload, &rates))
    }
}

/// What [`Platform::hardware`] found.
pub(super) struct Hardware {
    pub(super) config: Value,
    pub(super) interfaces: Value,
    pub(super) nodes: Vec<(Value, Value)>,
}

fn resumed(answer: &Answer) -> Option<Next> {
    let token = answer.text("/resume")?;
    Some(Next::QueryAlone("resume", token.to_owned()))
}

fn is_about(quota: &Value, path: &str) -> bool {
    let own = quota["path"].as_str().map(|own| own.trim_end_matches('/'));
    own == Some(path)
        && quota["type"]
            .as_str()
            .is_none_or(|kind| kind == "directory")
}

fn found(quota: &Value) -> Option<Found> {
    let ready = |value: &Value| value.as_bool().unwrap_or(true);
    let usage = &quota["usage"];
    let counted = ready(&quota["ready"]) && ready(&usage["fslogical_ready"]);
    Some(Found {
        id: quota["id"].as_str()?.to_owned(),
        used_bytes: usage["fslogical"].as_u64().filter(|_| counted),
        limit_bytes: quota["thresholds"]["hard"]
            .as_u64()
            .filter(|limit| *limit > 0),
    })
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    number.max(0.0).round() as u64
}

fn metric_of(summary: &Value, workload: &Value, rates: &Value) -> Metric {
    let stats = &summary["protocol-stats"];
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let rate = |key: &str| {
        let mut stats = rates["stats"].as_array()?.iter();
        let one = stats.find(|stat| stat["key"].as_str() == Some(key))?;
        let value = &one["value"];
        value.as_f64().or_else(|| value.as_str()?.parse().ok())
    };
    let load = &workload["workload"][0];
    Metric {
        iops_read: whole(rate(READS).unwrap_or_else(|| number(&stats["disk"]["iops"]))),
        iops_write: whole(rate(WRITES).unwrap_or(0.0)),
        io_bytes_read: whole(number(&stats["onefs"]["out"]) * MB),
        io_bytes_write: whole(number(&stats["onefs"]["in"]) * MB),
        io_usec_read: number(&load["latency_read"]),
        io_usec_write: number(&load["latency_write"]),
        observed_at: Stamp::now(),
    }
}

#[async_trait]
impl Limiter for Platform {
    fn note(&self) -> Option<&'static str> {
        Some(".quota_id")
    }

    async fn find(
        &self,
        scope: QuotaScopeId,
        noted: Option<String>,
    ) -> Result<Option<Found>, VolumeError> {
        let quota = self.quota(&self.scope_path(scope), noted).await?;
        Ok(quota.as_ref().and_then(found))
    }

    async fn make(&self, scope: QuotaScopeId, limit_bytes: u64) -> Result<String, VolumeError> {
        let path = self.scope_path(scope);
        // `container`: the directory shows the limit as its size, as `df` in a session should.
        let told = json!({
            "path": path, "type": "directory", "include_snapshots": false, "container": true,
            "thresholds": {"hard": limit_bytes}, "thresholds_on": "fslogicalsize",
            "enforced": true,
        });
        let call = Call::post("create quota", self.at("/quota/quotas")).json(told);
        let error = match self.rest.call(call).await {
            Ok(answer) => match answer.text("/id") {
                Some(id) => return Ok(id.to_owned()),
                None => self
                    .rest
                    .error("create quota", Cause::Malformed, "no id in the answer"),
            },
            Err(error) => error,
        };
        if error.cause != Cause::Conflict && !error.cause.may_retry() {
            return Err(error.into());
        }
        // Somebody made it meanwhile, or the answer was lost.
        match self.quota_of(&path).await?.as_ref().and_then(found) {
            Some(there) => {
                self.change(scope, &there.id, limit_bytes).await?;
                Ok(there.id)
            }
            None => Err(error.into()),
        }
    }

    async fn change(&self, _: QuotaScopeId, id: &str, limit_bytes: u64) -> Result<(), VolumeError> {
        let told = json!({
            "thresholds": {"hard": limit_bytes}, "thresholds_on": "fslogicalsize",
        });
        let place = self.at(&format!("/quota/quotas/{}", segment(id)));
        self.rest
            .call(Call::put("change quota", place).json(told))
            .await?;
        Ok(())
    }

    async fn remove(&self, _: QuotaScopeId, id: &str) -> Result<(), VolumeError> {
        let place = self.at(&format!("/quota/quotas/{}", segment(id)));
        self.rest.find(Call::delete("delete quota", place)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quotas_are_read() {
        for (quota, want) in [
            (json!({}), None),
            (
                json!({"id": "q", "thresholds": {"hard": null}}),
                Some((None, None)),
            ),
            (
                json!({"id": "q", "ready": true, "thresholds": {"hard": 9},
                    "usage": {"fslogical": 4, "fslogical_ready": true}}),
                Some((Some(4), Some(9))),
            ),
            (
                json!({"id": "q", "ready": false, "thresholds": {"hard": 9},
                    "usage": {"fslogical": 4}}),
                Some((None, Some(9))),
            ),
            (
                json!({"id": "q", "thresholds": {"hard": 9},
                    "usage": {"fslogical": 4, "fslogical_ready": false}}),
                Some((None, Some(9))),
            ),
        ] {
            let got = found(&quota).map(|found| (found.used_bytes, found.limit_bytes));
            assert_eq!(got, want, "{quota}");
        }
        let quota = json!({"path": "/ifs/a/", "type": "directory"});
        assert!(is_about(&quota, "/ifs/a") && !is_about(&quota, "/ifs/a/b"));
        assert!(!is_about(
            &json!({"path": "/ifs/a", "type": "user"}),
            "/ifs/a"
        ));
    }

    #[test]
    fn statistics_are_in_megabytes_and_microseconds() {
        let summary = json!({"protocol-stats": {
            "disk": {"iops": 30.4}, "onefs": {"in": 1.5, "out": 2.25},
        }});
        let workload = json!({"workload": [{"latency_read": 120.5, "latency_write": 340.0}]});
        let rates = json!({"stats": [
            {"key": READS, "value": 20.6}, {"key": WRITES, "value": "9.2"},
        ]});
        let row = |metric: Metric| {
            let Metric {
                iops_read,
                iops_write,
                io_bytes_read,
                io_bytes_write,
                ..
            } = metric;
            let times = (metric.io_usec_read, metric.io_usec_write);
            (
                (iops_read, iops_write, io_bytes_read, io_bytes_write),
                times,
            )
        };
        let whole = metric_of(&summary, &workload, &rates);
        assert_eq!(row(whole), ((21, 9, 2_250_000, 1_500_000), (120.5, 340.0)));
        let poor = metric_of(&summary, &json!({"workload": []}), &Value::Null);
        assert_eq!(row(poor), ((30, 0, 2_250_000, 1_500_000), (0.0, 0.0)));
    }
}
