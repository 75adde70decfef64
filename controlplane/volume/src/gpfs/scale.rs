//! Scale's REST interface, as far as it is used: filesets, their quotas and snapshots, pools,
//! health and performance.
//!
//! Laws
//! - All jobs of an answer are waited for; one that failed because what it makes is there already
//!   is a conflict, like a call that is refused for that.
//! - Numbers of quotas and pools are KiB; limits are told in bytes, never rounded down to none.
//! - Lists come in pages, and all are read.
//!
//! Source: Scale management API v2, as IBM's CSI driver uses it.

use serde_json::{Value, json};

use crate::backend::{Capacity, HwInfo, HwStatus, Metric, ScopeQuota};
use crate::stamp::Stamp;
use crate::vendor::auth::Basic;
use crate::vendor::call::{Answer, Call, Next, segment};
use crate::vendor::options::{BackendOption, OptionKind, Options, optional, required};
use crate::vendor::rest::{About, Explained, Rest};
use crate::vendor::{Cause, READ_PERFORMANCE, VendorError};
use crate::volumes::{Spec, SpecError};

/// The product, as people call it.
const SYSTEM: &str = "IBM Storage Scale";
const ENDPOINT: &str = "gpfs_endpoint";
const USER: &str = "gpfs_username";
const PASSWORD: &str = "gpfs_password";
const FS_NAME: &str = "gpfs_fs_name";
const OWNER: &str = "gpfs_owner";
/// Begins the names of filesets.
pub(super) const PREFIX: &str = "gpfs_fileset_prefix";
/// Whether filesets have an inode space, and therefore snapshots, of their own.
pub(super) const INDEPENDENT: &str = "gpfs_independent_filesets";
const VERIFY: &str = "gpfs_verify_ssl";
const CA_FILE: &str = "gpfs_ca_file";

/// Options beside those of every REST interface.
pub(crate) const OPTIONS: &[BackendOption] = &[
    required(
        ENDPOINT,
        OptionKind::Url,
        "the address of the GUI node, with port 443",
    ),
    required(USER, OptionKind::Text, "an account with the rights below"),
    required(PASSWORD, OptionKind::Secret, "its password"),
    required(
        FS_NAME,
        OptionKind::Text,
        "the device name of the file system",
    ),
    optional(
        OWNER,
        OptionKind::Text,
        "1000:1000",
        "whom new filesets belong to: numbers or names of user and group",
    ),
    optional(
        PREFIX,
        OptionKind::Text,
        "",
        "begins the names of our filesets",
    ),
    optional(
        INDEPENDENT,
        OptionKind::Flag,
        "false",
        "make filesets independent, which gives them snapshots",
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

/// Message ids that mean "it is there already".
const EXISTS: &[&str] = &["EFSSP1102C", "EFSSG0762C"];
/// Message ids that mean "it is not there".
const MISSING: &[&str] = &["EFSSG0264C", "EFSSG2006C", "EFSSG0072C", "EFSSP1113C"];
const METRICS: [&str; 6] = [
    "gpfs_ns_read_ops",
    "gpfs_ns_write_ops",
    "gpfs_ns_bytes_read",
    "gpfs_ns_bytes_written",
    "gpfs_ns_max_disk_wait_rd",
    "gpfs_ns_max_disk_wait_wr",
];
const KIB: u64 = 1024;
/// Where pools are in an answer, and what is told of one of them.
const POOLS: &str = "/storagePool";
const CANCELLED: &str = "somebody cancelled the job";

/// Where a fileset is linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Linked {
    At(String),
    Nowhere,
}

/// A client for one file system.
pub(super) struct Scale {
    pub(super) rest: Rest,
    fs: String,
    owner: String,
}

/// The code and the words of a text that begins with a message id.
fn coded(text: &str) -> (Option<String>, String) {
    let text = text.trim();
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    let is_id = first.len() >= 6
        && first
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    if is_id {
        return (Some(first.to_owned()), rest.trim().to_owned());
    }
    (None, text.to_owned())
}

fn meaning(code: Option<&str>, text: &str) -> Option<Cause> {
    let code = code.unwrap_or_default();
    if EXISTS.contains(&code) || text.contains("already exist") {
        return Some(Cause::Conflict);
    }
    MISSING.contains(&code).then_some(Cause::NotFound)
}

fn explain(answer: &Answer) -> Explained {
    let told = answer.text("/status/message").or(answer.text("/message"));
    let (code, text) = coded(told.unwrap_or_default());
    // What is missing is told as a wrong request by some calls.
    let named = [
        "filesetName",
        "fsetName",
        "snapshotName",
        "jobId",
        "storagePool",
    ];
    let missing = answer.status == 400
        && named
            .iter()
            .any(|name| text.contains(&format!("Invalid value in '{name}'")));
    let cause = meaning(code.as_deref(), &text).or(missing.then_some(Cause::NotFound));
    Explained {
        cause,
        code,
        text: Some(text).filter(|text| !text.is_empty()),
    }
}

impl Scale {
    pub(super) fn new(spec: &Spec, options: &Options<'_>) -> Result<Self, SpecError> {
        let about = About {
            system: SYSTEM,
            backend: "gpfs",
            below: "/scalemgmt/v2".to_owned(),
            verify_key: VERIFY,
            ca_key: CA_FILE,
            explain,
        };
        let auth = Basic::new(&options.need(USER)?, &options.secret(PASSWORD)?);
        let owner = options.need(OWNER)?;
        let is_pair = owner
            .split_once(':')
            .is_some_and(|(user, group)| !user.is_empty() && !group.is_empty());
        if !is_pair {
            return Err(options.fault(OWNER, "must be user and group with a colon between"));
        }
        Ok(Self {
            rest: Rest::of(spec, options, ENDPOINT, about, auth)?,
            fs: segment(&options.need(FS_NAME)?),
            owner,
        })
    }

    fn at(&self, rest: &str) -> String {
        format!("/filesystems/{}{rest}", self.fs)
    }

    fn of(&self, fileset: &str, rest: &str) -> String {
        self.at(&format!("/filesets/{}{rest}", segment(fileset)))
    }

    async fn list(&self, call: Call, items: &str) -> Result<Vec<Value>, VendorError> {
        self.rest
            .list(call, items, |answer| {
                let next = answer.text("/paging/next")?;
                (!next.is_empty()).then(|| Next::Link(next.to_owned()))
            })
            .await
    }

    /// Sends what changes something, and waits until all of its jobs are done.
    async fn change(&self, call: Call) -> Result<(), VendorError> {
        let operation = call.operation;
        let answer = self.rest.call(call).await?;
        let jobs = answer.body["jobs"].as_array();
        for job in jobs.into_iter().flatten() {
            let number = &job["jobId"];
            let number = number
                .as_u64()
                .or_else(|| number.as_str()?.parse().ok())
                .ok_or_else(|| {
                    let text = "a job without a number";
                    self.rest.error(operation, Cause::Malformed, text)
                })?;
            self.wait(operation, number).await?;
        }
        Ok(())
    }

    async fn wait(&self, operation: &'static str, number: u64) -> Result<(), VendorError> {
        let look = Call::get(operation, format!("/jobs/{number}")).query("fields", ":all:");
        let read = |answer: Option<&Answer>| {
            // One that is not known yet will be.
            let job = &answer?.body["jobs"][0];
            match job["status"].as_str()? {
                // Scale's own clients take it for done when nothing is known of its end.
                "COMPLETED" | "UNKNOWN" => Some(Ok(())),
                "FAILED" => Some(Err(self.failed(operation, job))),
                "CANCELLED" => {
                    let mut error = self.rest.error(operation, Cause::JobFailed, CANCELLED);
                    error.code = Some("CANCELLED".to_owned());
                    Some(Err(error))
                }
                _ => None,
            }
        };
        self.rest.job(look, read).await
    }

    fn failed(&self, operation: &'static str, job: &Value) -> VendorError {
        let result = &job["result"];
        let lines = ["stderr", "stdout"].map(|key| match &result[key] {
            Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
            Value::String(line) => vec![line.as_str()],
            _ => Vec::new(),
        });
        let text = lines
            .iter()
            .flatten()
            .copied()
            .collect::<Vec<_>>()
            .join(" ");
        let (code, text) = coded(&text);
        let cause = meaning(code.as_deref(), &text).unwrap_or(Cause::JobFailed);
        let mut error = self.rest.error(operation, cause, text);
        error.code = code.or_else(|| result["exitCode"].as_i64().map(|code| code.to_string()));
        error
    }

    /// Makes a fileset and links it.
    pub(super) async fn create(
        &self,
        name: &str,
        path: &str,
        independent: bool,
    ) -> Result<(), VendorError> {
        let mut told = json!({"filesetName": name, "owner": self.owner, "path": path});
        if independent {
            told["inodeSpace"] = json!("new");
        }
        let call = Call::post("create fileset", self.at("/filesets")).json(told);
        self.change(call).await
    }

    /// Where a fileset is linked; `None` when there is none of the name.
    pub(super) async fn fileset(&self, name: &str) -> Result<Option<Linked>, VendorError> {
        let call = Call::get("read fileset", self.of(name, ""));
        let Some(answer) = self.rest.find(call).await? else {
            return Ok(None);
        };
        let all = answer.body["filesets"].as_array();
        let own = all
            .into_iter()
            .flatten()
            .find(|one| one["filesetName"] == *name);
        Ok(own.map(|own| match own["config"]["path"].as_str() {
            Some(path) if path.starts_with('/') => Linked::At(path.to_owned()),
            // Two dashes for one that is not linked.
            _ => Linked::Nowhere,
        }))
    }

    pub(super) async fn link(&self, name: &str, path: &str) -> Result<(), VendorError> {
        let call = Call::post("link fileset", self.of(name, "/link")).json(json!({"path": path}));
        self.change(call).await
    }

    pub(super) async fn unlink(&self, name: &str) -> Result<(), VendorError> {
        let call = Call::delete("unlink fileset", self.of(name, "/link")).query("force", "True");
        match self.change(call).await {
            Err(error) if error.cause == Cause::NotFound => Ok(()),
            done => done,
        }
    }

    /// Removes a fileset that is linked nowhere; a missing one is fine.
    pub(super) async fn delete(&self, name: &str) -> Result<(), VendorError> {
        let call = Call::delete("delete fileset", self.of(name, ""));
        match self.change(call).await {
            Err(error) if error.cause == Cause::NotFound => Ok(()),
            done => done,
        }
    }

    /// Sets the quota of a fileset, or lifts it. The same again changes nothing.
    pub(super) async fn set_quota(
        &self,
        name: &str,
        limit_bytes: Option<u64>,
    ) -> Result<(), VendorError> {
        // Scale counts in KiB, and takes 0 for "no limit".
        let limit = limit_bytes.map_or(0, |bytes| bytes.div_ceil(KIB).max(1) * KIB);
        let told = json!({
            "operationType": "setQuota", "quotaType": "FILESET", "objectName": name,
            "blockSoftLimit": limit.to_string(), "blockHardLimit": limit.to_string(),
        });
        let call = Call::post("set quota", self.at("/quotas"))
            .json(told)
            .repeatable();
        self.change(call).await
    }

    /// The quota of a fileset; `None` when it has none of its own.
    pub(super) async fn quota(&self, name: &str) -> Result<Option<ScopeQuota>, VendorError> {
        let call = Call::get("read quota", self.at("/quotas"))
            .query("filter", format!("objectName={name}"));
        let all = self.list(call, "/quotas").await?;
        Ok(all.iter().find(|one| is_own(one, name)).map(|own| {
            let bytes = |key: &str| own[key].as_u64().map(|kib| kib.saturating_mul(KIB));
            ScopeQuota {
                used_bytes: bytes("blockUsage"),
                limit_bytes: bytes("blockLimit").filter(|limit| *limit > 0),
            }
        }))
    }

    /// Space of all pools that hold data and tell their numbers.
    pub(super) async fn capacity(&self) -> Result<Capacity, VendorError> {
        let pools = Call::get("list pools", self.at("/pools"));
        let (mut all, mut free, mut told) = (0, 0, false);
        for pool in self.list(pools, POOLS).await? {
            let Some(name) = pool["storagePoolName"].as_str() else {
                continue;
            };
            let place = self.at(&format!("/pools/{}", segment(name)));
            let Some(answer) = self.rest.find(Call::get("read pool", place)).await? else {
                continue;
            };
            let kib = |key: &str| answer.body.pointer(&format!("{POOLS}/0/{key}"))?.as_u64();
            if let (Some(total), Some(left)) = (kib("totalDataInKB"), kib("freeDataInKB")) {
                all += total * KIB;
                free += left.min(total) * KIB;
                told = true;
            }
        }
        Ok(Capacity {
            capacity_bytes: told.then_some(all),
            used_bytes: told.then_some(all - free),
        })
    }

    /// Health of all nodes: as bad as the worst part.
    pub(super) async fn health(&self) -> Result<HwInfo, VendorError> {
        let nodes = self
            .list(Call::get("list nodes", "/nodes"), "/nodes")
            .await?;
        let (mut worst, mut ill) = (HwStatus::Healthy, Vec::new());
        for node in &nodes {
            let named = ["adminNodeName", "adminNodename"];
            let Some(name) = named.iter().find_map(|key| node[*key].as_str()) else {
                continue;
            };
            let place = format!("/nodes/{}/health/states", segment(name));
            for state in self
                .list(Call::get("read health", place), "/states")
                .await?
            {
                let status = severity(state["state"].as_str().unwrap_or_default());
                if status == HwStatus::Healthy {
                    continue;
                }
                if worst != HwStatus::Unavailable {
                    worst = status;
                }
                let text = |key: &str| state[key].as_str().unwrap_or_default().to_owned();
                ill.push(format!(
                    "{} {} of {name}: {}",
                    text("component"),
                    text("entityName"),
                    text("state")
                ));
            }
        }
        let cluster = self
            .rest
            .call(Call::get("read cluster", "/cluster"))
            .await?;
        let quotas = Call::get("list quotas", self.at("/quotas"));
        let quotas = Value::Array(self.list(quotas, "/quotas").await?);
        Ok(HwInfo {
            status: worst,
            status_info: (!ill.is_empty()).then(|| ill.join("; ")),
            metadata: vec![
                ("quota".to_owned(), quotas.to_string()),
                (
                    "cluster_info".to_owned(),
                    cluster.body["cluster"].to_string(),
                ),
            ],
        })
    }

    /// Performance of the whole, averages of ten seconds.
    pub(super) async fn metric(&self) -> Result<Metric, VendorError> {
        let wanted = METRICS.map(|name| format!("avg({name})")).join(",");
        let operation = READ_PERFORMANCE;
        let call = Call::get(operation, "/perfmon/data")
            .query("query", format!("metrics {wanted} last 1 bucket_size 10"));
        let answer = self.rest.call(call).await?;
        let rows = answer.body.pointer("/performanceData/rows");
        let Some(row) = rows.and_then(Value::as_array).and_then(|rows| rows.last()) else {
            let text = "there is no row of numbers";
            return Err(self.rest.error(operation, Cause::NotFound, text));
        };
        Ok(metric_of(row))
    }

    /// Keeps the state of an independent fileset.
    pub(super) async fn create_snapshot(
        &self,
        fileset: &str,
        name: &str,
    ) -> Result<(), VendorError> {
        let call = Call::post("create snapshot", self.of(fileset, "/snapshots"))
            .json(json!({"snapshotName": name}));
        let Err(error) = self.change(call).await else {
            return Ok(());
        };
        // The name has the time in it: one that is there is the one of this call.
        let may_be_made = error.cause.may_retry() || error.cause == Cause::Conflict;
        if may_be_made
            && let Ok(all) = self.snapshots(fileset).await
            && all.iter().any(|one| one == name)
        {
            return Ok(());
        }
        Err(error)
    }

    /// Names of all snapshots of a fileset.
    pub(super) async fn snapshots(&self, fileset: &str) -> Result<Vec<String>, VendorError> {
        let call = Call::get("list snapshots", self.of(fileset, "/snapshots"));
        let all = match self.list(call, "/snapshots").await {
            Err(error) if error.cause == Cause::NotFound => return Ok(Vec::new()),
            done => done?,
        };
        let names = all.iter().filter_map(|one| one["snapshotName"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// Removes a snapshot; a missing one is fine.
    pub(super) async fn delete_snapshot(
        &self,
        fileset: &str,
        name: &str,
    ) -> Result<(), VendorError> {
        let place = self.of(fileset, &format!("/snapshots/{}", segment(name)));
        match self.change(Call::delete("delete snapshot", place)).await {
            Err(error) if error.cause == Cause::NotFound => Ok(()),
            done => done,
        }
    }
}

/// Whether a row of quotas is the fileset's own, and not a default or another kind.
fn is_own(row: &Value, name: &str) -> bool {
    let is_default = row["isDefaultQuota"] == true;
    let kind = row["quotaType"].as_str().unwrap_or("FILESET");
    row["objectName"] == *name && !is_default && kind.eq_ignore_ascii_case("fileset")
}

/// What a state of a part means to the Manager.
fn severity(state: &str) -> HwStatus {
    match state {
        "DEGRADED" => HwStatus::Degraded,
        "FAILED" | "ERROR" => HwStatus::Unavailable,
        _ => HwStatus::Healthy,
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn metric_of(row: &Value) -> Metric {
    let number = |at: usize| row["values"][at].as_f64().unwrap_or(0.0);
    let whole = |at: usize| number(at).round() as u64;
    let told = row["tstamp"].as_i64().filter(|seconds| *seconds > 0);
    Metric {
        iops_read: whole(0),
        iops_write: whole(1),
        io_bytes_read: whole(2),
        io_bytes_write: whole(3),
        io_usec_read: number(4),
        io_usec_write: number(5),
        observed_at: told.map_or_else(Stamp::now, |seconds| Stamp {
            unix_ns: i128::from(seconds) * 1_000_000_000,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_are_told_from_words() {
        for (line, code, text, cause) in [
            (
                "EFSSP1102C The fileset is there",
                Some("EFSSP1102C"),
                "The fileset is there",
                Some(Cause::Conflict),
            ),
            ("mmcrfileset: it broke", None, "mmcrfileset: it broke", None),
            (
                "The object already exists",
                None,
                "The object already exists",
                Some(Cause::Conflict),
            ),
            (
                "EFSSG2006C no link",
                Some("EFSSG2006C"),
                "no link",
                Some(Cause::NotFound),
            ),
            ("", None, "", None),
        ] {
            let (got, words) = coded(line);
            assert_eq!((got.as_deref(), words.as_str()), (code, text), "{line}");
            assert_eq!(meaning(got.as_deref(), &words), cause, "{line}");
        }
    }

    #[test]
    fn quotas_of_filesets_are_told_from_others() {
        let row = |more: &Value| {
            let mut row = json!({"objectName": "f", "quotaType": "FILESET"});
            for (key, value) in more.as_object().into_iter().flatten() {
                row[key] = value.clone();
            }
            row
        };
        for (more, own) in [
            (json!({}), true),
            (json!({"isDefaultQuota": false}), true),
            (json!({"isDefaultQuota": true}), false),
            (json!({"quotaType": "fileset"}), true),
            (json!({"quotaType": "USR"}), false),
            (json!({"objectName": "g"}), false),
        ] {
            assert_eq!(is_own(&row(&more), "f"), own, "{more}");
        }
    }
}
