//! ONTAP's REST interface, as far as it is used: one volume, its qtrees, rules and snapshots.
//!
//! Laws
//! - What changes something is a job: it is waited for, and done only when it says so.
//! - The volume is looked up by its name, and again when its identifier is not known any more.
//! - A rule that was made although quotas could not be resized is a rule.
//!
//! Source: ONTAP 9 REST; `netapp-ontap` 9.19.1.0.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::vendor::auth::Basic;
use crate::vendor::call::{Answer, Call, Next, segment};
use crate::vendor::options::{BackendOption, OptionKind, Options, optional, required};
use crate::vendor::rest::{About, Explained, Rest};
use crate::vendor::{Cause, VendorError};
use crate::volumes::{Spec, SpecError};

/// The product, as people call it.
pub(super) const SYSTEM: &str = "NetApp ONTAP";
const ENDPOINT: &str = "netapp_ontap_endpoint";
const USER: &str = "netapp_ontap_user";
const PASSWORD: &str = "netapp_ontap_password";
const VOLUME: &str = "netapp_volume_name";
const SVM: &str = "netapp_svm_name";
pub(super) const NFS_HOST: &str = "netapp_nfs_host";
pub(super) const XCP: &str = "netapp_xcp_cmd";
const VERIFY: &str = "netapp_verify_ssl";
const CA_FILE: &str = "netapp_ca_file";
pub(super) const NFS_WAIT: &str = "netapp_nfs_wait";

/// Options beside those of every REST interface.
pub(crate) const OPTIONS: &[BackendOption] = &[
    required(
        ENDPOINT,
        OptionKind::Url,
        "the cluster's or the SVM's management address",
    ),
    required(USER, OptionKind::Text, "an account with the rights below"),
    required(PASSWORD, OptionKind::Secret, "its password"),
    required(
        VOLUME,
        OptionKind::Text,
        "the FlexVol or FlexGroup that is mounted",
    ),
    optional(
        SVM,
        OptionKind::Text,
        "",
        "its SVM, where several have a volume of this name",
    ),
    optional(
        NFS_HOST,
        OptionKind::Text,
        "",
        "the host part of the NFS path, for XCP",
    ),
    optional(
        XCP,
        OptionKind::Texts,
        "",
        "the program XCP and words before its own arguments; without it, usage is counted by us",
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
    optional(
        NFS_WAIT,
        OptionKind::Seconds,
        "35",
        "how long a new qtree may take to be seen on the mount: NFS remembers that it was missing",
    ),
];

/// How long the call itself waits for its job, in seconds.
const RETURN_TIMEOUT: &str = "15";
/// Records of one page of a list.
const PAGE: &str = "500";

/// The volume's identifier is not known any more.
const VOLUME_GONE: &[&str] = &["917525", "917927", "918236"];
const NOT_FOUND: &[&str] = &["4", "5308545", "5242927", "1638600", "5308561"];
const EXISTS: &[&str] = &["1", "5242886", "525059"];
const BUSY: &[&str] = &["262160", "5242925"];
const QUOTAS_ON: &str = "5308507";
/// The rule is made or changed, and counts after quotas were switched off and on.
const MADE_NOT_RESIZED: &[&str] = &["5308568", "5308571", "5308567"];
const REMOVED_NOT_RESIZED: &[&str] = &["5308569", "5308572"];

/// Where the volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) volume: String,
    svm: String,
    /// Where it is in the name space of its SVM.
    pub(super) nas_path: String,
}

/// A limit that is set on a qtree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    uuid: String,
    pub(super) limit_bytes: Option<u64>,
}

/// A client for one volume.
pub(super) struct Ontap {
    pub(super) rest: Rest,
    name: String,
    svm: Option<String>,
    place: Mutex<Option<Arc<Place>>>,
}

/// Makes a call about the place where the volume is.
trait Make: Fn(&Place) -> Call + Send + Sync {}

impl<M: Fn(&Place) -> Call + Send + Sync> Make for M {}

fn explain(answer: &Answer) -> Explained {
    let code = answer.body.pointer("/error/code").map(plain);
    let cause = code.as_deref().and_then(cause_of);
    Explained {
        text: answer.text("/error/message").map(str::to_owned),
        code,
        cause,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn cause_of(code: &str) -> Option<Cause> {
    match code {
        code if NOT_FOUND.contains(&code) || VOLUME_GONE.contains(&code) => Some(Cause::NotFound),
        code if EXISTS.contains(&code) => Some(Cause::Conflict),
        code if BUSY.contains(&code) => Some(Cause::Throttled),
        _ => None,
    }
}

fn has_code(error: &VendorError, codes: &[&str]) -> bool {
    error
        .code
        .as_deref()
        .is_some_and(|code| codes.contains(&code))
}

impl Ontap {
    pub(super) fn new(spec: &Spec, options: &Options<'_>) -> Result<Self, SpecError> {
        let about = About {
            system: SYSTEM,
            backend: "netapp",
            below: String::new(),
            verify_key: VERIFY,
            ca_key: CA_FILE,
            explain,
        };
        let auth = Basic::new(&options.need(USER)?, &options.secret(PASSWORD)?);
        Ok(Self {
            rest: Rest::of(spec, options, ENDPOINT, about, auth)?,
            name: options.need(VOLUME)?,
            svm: options.text(SVM),
            place: Mutex::default(),
        })
    }

    /// Where the volume is, looked up once.
    pub(super) async fn place(&self) -> Result<Arc<Place>, VendorError> {
        if let Some(place) = self.place.lock().clone() {
            return Ok(place);
        }
        let operation = "look up volume";
        let mut call = Call::get(operation, "/api/storage/volumes")
            .query("name", &*self.name)
            .query("fields", "nas.path,svm");
        if let Some(svm) = &self.svm {
            call = call.query("svm.name", &**svm);
        }
        let answer = self.rest.call(call).await?;
        let records = answer.body["records"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let [record] = records else {
            let text = if records.is_empty() {
                format!("no volume is called {}", self.name)
            } else {
                format!(
                    "{} volumes are called {}: set {SVM}",
                    records.len(),
                    self.name
                )
            };
            return Err(self.rest.error(operation, Cause::NotFound, text));
        };
        let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
        let (Some(volume), Some(svm)) = (text("/uuid"), text("/svm/uuid")) else {
            let text = "a volume without an identifier";
            return Err(self.rest.error(operation, Cause::Malformed, text));
        };
        let place = Arc::new(Place {
            volume: volume.to_owned(),
            svm: svm.to_owned(),
            nas_path: text("/nas/path").unwrap_or_default().to_owned(),
        });
        *self.place.lock() = Some(Arc::clone(&place));
        Ok(place)
    }

    /// Whether a call failed because the volume is elsewhere now: it is looked up again then.
    fn has_moved<T>(&self, done: &Result<T, VendorError>) -> bool {
        let moved = done
            .as_ref()
            .is_err_and(|error| has_code(error, VOLUME_GONE));
        if moved {
            *self.place.lock() = None;
        }
        moved
    }

    /// Reads something of the place.
    async fn read(&self, make: impl Make) -> Result<Answer, VendorError> {
        let call = make(&*self.place().await?);
        let done = self.rest.call(call).await;
        if self.has_moved(&done) {
            let call = make(&*self.place().await?);
            return self.rest.call(call).await;
        }
        done
    }

    /// Changes something of the place, and waits until that is done.
    async fn alter(&self, make: impl Make) -> Result<(), VendorError> {
        let call = make(&*self.place().await?);
        let done = self.change(call).await;
        if self.has_moved(&done) {
            let call = make(&*self.place().await?);
            return self.change(call).await;
        }
        done
    }

    /// Sends what changes something, and waits until it is done.
    async fn change(&self, call: Call) -> Result<(), VendorError> {
        let operation = call.operation;
        let answer = self
            .rest
            .call(call.query("return_timeout", RETURN_TIMEOUT))
            .await?;
        if answer.status != 202 {
            return Ok(());
        }
        let Some(job) = answer.text("/job/uuid") else {
            let text = "accepted, without a job";
            return Err(self.rest.error(operation, Cause::Malformed, text));
        };
        self.wait(operation, job).await
    }

    async fn wait(&self, operation: &'static str, job: &str) -> Result<(), VendorError> {
        let path = format!("/api/cluster/jobs/{}", segment(job));
        let look = Call::get(operation, path).query("fields", "state,message,error,code");
        let mut seen = false;
        let read = |answer: Option<&Answer>| {
            let Some(answer) = answer else {
                // Jobs are forgotten some minutes after they ended.
                let text = "the job is not known";
                let unknown = || self.rest.error(operation, Cause::Malformed, text);
                return Some(seen.then_some(()).ok_or_else(unknown));
            };
            seen = true;
            match answer.text("/state") {
                Some("success") => Some(Ok(())),
                Some("failure") => Some(Err(self.failed(operation, answer))),
                _ => None,
            }
        };
        self.rest.job(look, read).await
    }

    fn failed(&self, operation: &'static str, answer: &Answer) -> VendorError {
        let body = &answer.body;
        let code = body.pointer("/error/code").or_else(|| body.get("code"));
        let code = code.map(plain);
        let text = answer
            .text("/error/message")
            .or_else(|| answer.text("/message"));
        let cause = code.as_deref().and_then(cause_of);
        let cause = cause.unwrap_or(Cause::JobFailed);
        let mut error = self.rest.error(operation, cause, text.unwrap_or_default());
        error.code = code;
        error
    }

    /// Makes a qtree; `false`: there is something of this name already.
    pub(super) async fn create_qtree(
        &self,
        name: &str,
        owner: (u32, u32),
    ) -> Result<bool, VendorError> {
        let made = self.alter(|place: &Place| {
            let body = json!({
                "svm": {"uuid": place.svm},
                "volume": {"uuid": place.volume},
                "name": name,
                "user": {"id": owner.0.to_string()},
                "group": {"id": owner.1.to_string()},
            });
            Call::post("create qtree", "/api/storage/qtrees").json(body)
        });
        match made.await {
            Ok(()) => Ok(true),
            // Also when only the answer to an earlier try was lost.
            Err(error) if error.cause == Cause::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn qtree(&self, name: &str) -> Result<Option<u64>, VendorError> {
        let found = self.read(|place: &Place| {
            Call::get("look up qtree", "/api/storage/qtrees")
                .query("volume.uuid", &*place.volume)
                .query("name", name)
                .query("fields", "id,name")
        });
        let answer = found.await?;
        Ok(answer.body.pointer("/records/0/id").and_then(Value::as_u64))
    }

    /// Whether there is a qtree of this name.
    pub(super) async fn has_qtree(&self, name: &str) -> Result<bool, VendorError> {
        Ok(self.qtree(name).await?.is_some())
    }

    /// Removes a qtree with everything in it. A missing one is no error.
    pub(super) async fn delete_qtree(&self, name: &str) -> Result<(), VendorError> {
        let Some(id) = self.qtree(name).await? else {
            return Ok(());
        };
        let gone = self.alter(|place: &Place| {
            let path = format!("/api/storage/qtrees/{}/{id}", segment(&place.volume));
            Call::delete("delete qtree", path)
        });
        unless_missing(gone.await)
    }

    /// The limit of a qtree, if it has a rule.
    pub(super) async fn rule(&self, qtree: &str) -> Result<Option<Rule>, VendorError> {
        let found = self.read(|place: &Place| {
            let path = "/api/storage/quota/rules";
            scoped("look up quota rule", path, place, qtree).query("fields", "space")
        });
        let answer = found.await?;
        Ok(answer.body.pointer("/records/0").map(|record| Rule {
            uuid: record["uuid"].as_str().unwrap_or_default().to_owned(),
            limit_bytes: limit(&record["space"]),
        }))
    }

    /// Sets a limit, by a rule that is there or a new one; `None` lifts it and keeps the rule.
    pub(super) async fn set_limit(
        &self,
        qtree: &str,
        limit_bytes: Option<u64>,
    ) -> Result<(), VendorError> {
        let limit = match limit_bytes {
            Some(bytes) => json!(i64::try_from(bytes).unwrap_or(i64::MAX)),
            None => json!(-1),
        };
        let space = json!({"hard_limit": limit, "soft_limit": limit});
        match self.rule(qtree).await? {
            Some(rule) => self.change_rule(&rule, &space).await,
            None if limit_bytes.is_none() => Ok(()),
            None => self.create_rule(qtree, &space).await,
        }
    }

    async fn change_rule(&self, rule: &Rule, space: &Value) -> Result<(), VendorError> {
        let path = format!("/api/storage/quota/rules/{}", segment(&rule.uuid));
        let body = json!({ "space": space });
        // The same twice is the same.
        let call = Call::patch("change quota rule", path)
            .json(body)
            .repeatable();
        self.resized(self.change(call).await, false).await
    }

    async fn create_rule(&self, qtree: &str, space: &Value) -> Result<(), VendorError> {
        let first = self.rules_count().await? == 0;
        let made = self.alter(|place: &Place| {
            let body = json!({
                "svm": {"uuid": place.svm},
                "volume": {"uuid": place.volume},
                "type": "tree",
                "qtree": {"name": qtree},
                "space": space,
            });
            Call::post("create quota rule", "/api/storage/quota/rules").json(body)
        });
        match made.await {
            // Somebody made it meanwhile, or it is a rule of the volume as it is known now.
            Err(error) if error.cause == Cause::Conflict => {
                *self.place.lock() = None;
                match self.rule(qtree).await? {
                    Some(rule) => self.change_rule(&rule, space).await?,
                    None => return Err(error),
                }
            }
            made => self.resized(made, first).await?,
        }
        self.switch_quotas_on().await
    }

    async fn rules_count(&self) -> Result<u64, VendorError> {
        let counted = self.read(|place: &Place| {
            Call::get("count quota rules", "/api/storage/quota/rules")
                .query("svm.uuid", &*place.svm)
                .query("volume.uuid", &*place.volume)
                .query("max_records", "1")
        });
        let answer = counted.await?;
        Ok(answer.body["num_records"].as_u64().unwrap_or_default())
    }

    /// A rule whose change could not be put into effect: for the first one of the volume quotas
    /// are switched off and on, since nobody loses by that.
    async fn resized(
        &self,
        changed: Result<(), VendorError>,
        first: bool,
    ) -> Result<(), VendorError> {
        match changed {
            Err(error) if has_code(&error, MADE_NOT_RESIZED) => {
                if first {
                    self.switch_quotas(false).await?;
                    return self.switch_quotas(true).await;
                }
                tracing::warn!(
                    %error,
                    "a quota rule is set, but counts only after the volume's quotas were \
                     switched off and on"
                );
                Ok(())
            }
            done => done,
        }
    }

    /// Removes the rule of a qtree. A missing one is no error.
    pub(super) async fn delete_rule(&self, qtree: &str) -> Result<(), VendorError> {
        let Some(rule) = self.rule(qtree).await? else {
            return Ok(());
        };
        let path = format!("/api/storage/quota/rules/{}", segment(&rule.uuid));
        let gone = self.change(Call::delete("delete quota rule", path)).await;
        match gone {
            Err(error) if has_code(&error, REMOVED_NOT_RESIZED) => Ok(()),
            gone => unless_missing(gone),
        }
    }

    /// Limits count only while quotas are on for the volume.
    async fn switch_quotas_on(&self) -> Result<(), VendorError> {
        let volume = self.volume("look at quotas", "quota").await?;
        match volume.pointer("/quota/state").and_then(Value::as_str) {
            Some("off") => self.switch_quotas(true).await,
            Some("corrupt") => {
                self.switch_quotas(false).await?;
                self.switch_quotas(true).await
            }
            // On, or on the way.
            _ => Ok(()),
        }
    }

    async fn switch_quotas(&self, on: bool) -> Result<(), VendorError> {
        let switched = self.alter(|place: &Place| {
            let path = format!("/api/storage/volumes/{}", segment(&place.volume));
            let body = json!({"quota": {"enabled": on}});
            Call::patch("switch quotas", path).json(body).repeatable()
        });
        match switched.await {
            Err(error) if has_code(&error, &[QUOTAS_ON]) => Ok(()),
            done => done,
        }
    }

    /// Looks whether the volume is still where it was; `false`: it is not, and is looked up again.
    /// Lists are no help there: of what is not known any more they are empty.
    pub(super) async fn is_in_place(&self) -> Result<bool, VendorError> {
        let before = self.place().await?;
        self.volume("look after volume", "uuid").await?;
        Ok(before == self.place().await?)
    }

    /// Bytes used and allowed, as quotas count; `None` without a row, as while quotas are made.
    pub(super) async fn report(
        &self,
        qtree: &str,
    ) -> Result<Option<(Option<u64>, Option<u64>)>, VendorError> {
        let read = self.read(|place: &Place| {
            let path = "/api/storage/quota/reports";
            scoped("read quota report", path, place, qtree).query("fields", "space")
        });
        let answer = match read.await {
            // Some releases answer so while quotas are off.
            Err(error) if error.cause == Cause::NotFound => return Ok(None),
            answer => answer?,
        };
        let space = answer.body.pointer("/records/0/space");
        Ok(space.map(|space| {
            let used = space.pointer("/used/total").and_then(Value::as_u64);
            (used, limit(space))
        }))
    }

    /// Fields of the volume.
    pub(super) async fn volume(
        &self,
        operation: &'static str,
        fields: &str,
    ) -> Result<Value, VendorError> {
        let read = self.read(|place: &Place| {
            let path = format!("/api/storage/volumes/{}", segment(&place.volume));
            Call::get(operation, path).query("fields", fields)
        });
        Ok(read.await?.body)
    }

    /// Snapshots of the volume whose names fit a pattern.
    pub(super) async fn snapshots(&self, pattern: &str) -> Result<Vec<Value>, VendorError> {
        let call = |place: &Place| {
            Call::get("list snapshots", snapshots_of(place))
                .query("name", pattern)
                .query("fields", "create_time,comment,size")
                .query("max_records", PAGE)
        };
        let list = self
            .rest
            .list(call(&*self.place().await?), "/records", next);
        let done = list.await;
        if self.has_moved(&done) {
            let call = call(&*self.place().await?);
            return self.rest.list(call, "/records", next).await;
        }
        done
    }

    /// Makes a snapshot; `false`: there is one of this name.
    pub(super) async fn create_snapshot(
        &self,
        name: &str,
        comment: &str,
    ) -> Result<bool, VendorError> {
        let made = self.alter(|place: &Place| {
            let body = json!({"name": name, "comment": comment});
            Call::post("create snapshot", snapshots_of(place)).json(body)
        });
        match made.await {
            Ok(()) => Ok(true),
            Err(error) if has_code(&error, &["525059"]) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a snapshot. A missing one is no error.
    pub(super) async fn delete_snapshot(&self, uuid: &str) -> Result<(), VendorError> {
        let gone = self.alter(|place: &Place| {
            let path = format!("{}/{}", snapshots_of(place), segment(uuid));
            Call::delete("delete snapshot", path)
        });
        unless_missing(gone.await)
    }
}

fn snapshots_of(place: &Place) -> String {
    format!("/api/storage/volumes/{}/snapshots", segment(&place.volume))
}

/// A list that is narrowed to one qtree.
fn scoped(operation: &'static str, path: &str, place: &Place, qtree: &str) -> Call {
    Call::get(operation, path)
        .query("type", "tree")
        .query("svm.uuid", &*place.svm)
        .query("volume.uuid", &*place.volume)
        .query("qtree.name", qtree)
}

/// A hard limit; negative is none.
fn limit(space: &Value) -> Option<u64> {
    space["hard_limit"].as_u64()
}

fn next(answer: &Answer) -> Option<Next> {
    let link = answer.text("/_links/next/href")?;
    Some(Next::Link(link.to_owned()))
}

fn unless_missing(done: Result<(), VendorError>) -> Result<(), VendorError> {
    match done {
        Err(error) if error.cause == Cause::NotFound => Ok(()),
        done => done,
    }
}
