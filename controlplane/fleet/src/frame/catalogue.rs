//! What a storage server says, and the two bodies of each event.
//!
//! Source: contract, events 5 and 7.1.

use proxy_core::id::TaskId;
use proxy_state::Event;
use proxy_state::event::clip;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::pack::Packed;

/// One event that a storage server sends.
#[derive(Clone, Debug, PartialEq)]
pub enum FleetEvent {
    /// About a background task, or what one did to a folder.
    Work(Event),
    /// A model was fetched and is being verified.
    ModelVerifying(FetchedModel),
    /// A model is there, or could not be fetched.
    ModelImportDone(ImportDone),
    /// The description of a model was found.
    ModelMetadataFetched {
        /// Which.
        model: FetchedModel,
        /// Its description.
        readme: String,
        /// Its size.
        bytes: u64,
    },
    /// This server serves.
    ServiceRegistered(ServiceRecord),
    /// This server serves no more.
    ServiceDeregistered {
        /// Which one.
        instance_id: String,
        /// What it was part of.
        service_group: String,
    },
    /// Asks all nodes to mount something.
    DoVolumeMount(DoVolumeMount),
    /// Asks all nodes to unmount something.
    DoVolumeUnmount(DoVolumeUnmount),
    /// Answers [`Self::DoVolumeMount`].
    VolumeMounted(VolumeReply),
    /// Answers [`Self::DoVolumeUnmount`].
    VolumeUnmounted(VolumeReply),
}

/// Where a model comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArtifactKind {
    /// Hugging Face.
    HuggingFace,
    /// Another Backend.AI.
    Reservoir,
}

impl ArtifactKind {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HuggingFace => "huggingface",
            Self::Reservoir => "reservoir",
        }
    }
}

/// Names one revision of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedModel {
    /// Such as `org/model`.
    pub model_id: String,
    /// Such as `main`.
    pub revision: String,
    /// What kind of registry it comes from.
    pub kind: ArtifactKind,
    /// The configured name of that registry.
    pub registry: String,
}

/// How an import ended.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportDone {
    /// Which model.
    pub model: FetchedModel,
    /// Whether it is there.
    pub success: bool,
    /// A digest of its content.
    pub digest: Option<String>,
    /// `{"verifiers": {name: {…}}}`; times in it are ISO 8601 text.
    pub verification: Option<Value>,
}

/// What a service catalogue knows of this server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceRecord {
    /// Names this server.
    pub instance_id: String,
    /// What it is part of.
    pub service_group: String,
    /// For people.
    pub display_name: String,
    /// Its release.
    pub version: String,
    /// Labels, text to text.
    pub labels: Map<String, Value>,
    /// Where it is reached.
    pub endpoints: Vec<ServiceEndpoint>,
    /// When it started: RFC 3339 in UTC, ending in `Z`.
    #[serde(skip)]
    pub startup_time: String,
    /// Always empty.
    pub config_hash: String,
}

/// One way to reach a server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceEndpoint {
    /// Such as `api`.
    pub role: String,
    /// Such as `cluster`.
    pub scope: String,
    /// Host name or address.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Such as `http`.
    pub protocol: String,
    /// Anything else.
    pub metadata: Map<String, Value>,
}

/// A request to mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoVolumeMount {
    /// Below the mount path of the volume, or absolute.
    pub dir_name: String,
    /// The configured name of a volume.
    pub volume_backend_name: String,
    /// Whom it is for.
    pub quota_scope_id: String,
    /// What to mount.
    pub fs_location: String,
    /// Type of the file system.
    #[serde(default = "nfs")]
    pub fs_type: String,
    /// Options of the mount command.
    #[serde(default)]
    pub cmd_options: Option<String>,
    /// Not for storage servers.
    #[serde(default)]
    pub scaling_group: Option<String>,
    /// Also write it into the fstab.
    #[serde(default)]
    pub edit_fstab: bool,
    /// Which fstab.
    #[serde(default = "etc_fstab")]
    pub fstab_path: String,
}

/// A request to unmount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoVolumeUnmount {
    /// Below the mount path of the volume, or absolute.
    pub dir_name: String,
    /// The configured name of a volume.
    pub volume_backend_name: String,
    /// Whom it was for.
    pub quota_scope_id: String,
    /// Not for storage servers.
    #[serde(default)]
    pub scaling_group: Option<String>,
    /// Also strike it from the fstab.
    #[serde(default)]
    pub edit_fstab: bool,
    /// Which fstab.
    #[serde(default)]
    pub fstab_path: Option<String>,
}

/// What became of a request to mount or unmount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumeReply {
    /// Who answers.
    pub node_id: String,
    /// What it is: [`VolumeReply::NODE_TYPE`].
    pub node_type: String,
    /// Where the mount is.
    pub mount_path: String,
    /// Whom it is for.
    pub quota_scope_id: String,
    /// What went wrong; `None`: nothing.
    pub err_msg: Option<String>,
}

impl VolumeReply {
    /// The node type of a storage server.
    pub const NODE_TYPE: &str = "storage_proxy";
}

pub(super) fn nfs() -> String {
    "nfs".to_owned()
}

pub(super) fn etc_fstab() -> String {
    "/etc/fstab".to_owned()
}

/// How an event travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Once to every group; must not be lost.
    Kept,
    /// Once to every group; worthless when it is late.
    Passing,
    /// To everyone connected.
    Heard,
    /// To everyone connected, and kept for late-comers under the task.
    Progress(TaskId),
    /// The same, the last one of the task; must not be lost.
    Last(TaskId),
}

impl FleetEvent {
    /// The name on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Work(event) => event.name(),
            Self::ModelVerifying(_) => "model_verifying",
            Self::ModelImportDone(_) => "model_import_done",
            Self::ModelMetadataFetched { .. } => "models_metadata_fetch_done",
            Self::ServiceRegistered(_) => "service_registered",
            Self::ServiceDeregistered { .. } => "service_deregistered",
            Self::DoVolumeMount(_) => "do_volume_mount",
            Self::DoVolumeUnmount(_) => "do_volume_unmount",
            Self::VolumeMounted(_) => "volume_mounted",
            Self::VolumeUnmounted(_) => "volume_unmounted",
        }
    }

    pub(crate) const fn way(&self) -> Way {
        match self {
            Self::Work(Event::TaskUpdated { task, .. }) => Way::Progress(*task),
            Self::Work(
                Event::TaskDone { task, .. }
                | Event::TaskPartlyDone { task, .. }
                | Event::TaskFailed { task, .. }
                | Event::TaskCancelled { task, .. },
            ) => Way::Last(*task),
            Self::Work(
                Event::VFolderDeleted { .. }
                | Event::VFolderDeleteFailed { .. }
                | Event::VFolderCloned { .. }
                | Event::VFolderCloneFailed { .. },
            )
            | Self::ModelVerifying(_)
            | Self::ModelImportDone(_)
            | Self::ModelMetadataFetched { .. } => Way::Kept,
            Self::ServiceRegistered(_) | Self::ServiceDeregistered { .. } => Way::Passing,
            Self::DoVolumeMount(_)
            | Self::DoVolumeUnmount(_)
            | Self::VolumeMounted(_)
            | Self::VolumeUnmounted(_) => Way::Heard,
        }
    }

    /// The positional members as MessagePack, and the named ones.
    pub(super) fn bodies(&self) -> (Vec<u8>, Value) {
        match self {
            Self::Work(event) => work(event),
            Self::ModelVerifying(model) => {
                let kind = model.kind.as_str();
                members(json!({
                    "model_id": model.model_id,
                    "revision": model.revision,
                    "registry_type": kind,
                    "registry_name": model.registry,
                }))
            }
            Self::ModelImportDone(done) => members(json!({
                "model_id": done.model.model_id,
                "revision": done.model.revision,
                "registry_type": done.model.kind.as_str(),
                "registry_name": done.model.registry,
                "success": done.success,
                "digest": done.digest,
                "verification_result": done.verification,
            })),
            Self::ModelMetadataFetched {
                model,
                readme,
                bytes,
            } => fetched(model, readme, *bytes),
            Self::ServiceRegistered(record) => registered(record),
            Self::ServiceDeregistered {
                instance_id,
                service_group,
            } => {
                let args = Packed::List(vec![bytes(instance_id), bytes(service_group)]);
                let payload = json!({"instance_id": instance_id, "service_group": service_group});
                (args.pack(), payload)
            }
            Self::DoVolumeMount(request) => members(plain(request)),
            Self::DoVolumeUnmount(request) => members(plain(request)),
            Self::VolumeMounted(reply) | Self::VolumeUnmounted(reply) => members(plain(reply)),
        }
    }
}

/// Both bodies of an event whose positional members are its named ones in their order.
fn members(payload: Value) -> (Vec<u8>, Value) {
    let values = payload.as_object().into_iter().flat_map(Map::values);
    let args = Packed::List(values.map(Packed::from_json).collect());
    (args.pack(), payload)
}

fn plain(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("plain data with text keys")
}

fn bytes(text: &str) -> Packed {
    Packed::Bytes(text.as_bytes().to_vec())
}

fn work(event: &Event) -> (Vec<u8>, Value) {
    match event {
        Event::TaskUpdated {
            task,
            current,
            total,
            message,
        } => {
            let message = message.as_deref().map(clip);
            let id = task.to_string();
            let args = Packed::List(vec![
                id.as_str().into(),
                (*current).into(),
                (*total).into(),
                message.into(),
            ]);
            let payload = json!({
                "task_id": id,
                "current_progress": *current as f64,
                "total_progress": *total as f64,
                "message": message,
            });
            (args.pack(), payload)
        }
        Event::TaskDone { task, message }
        | Event::TaskFailed { task, message }
        | Event::TaskCancelled { task, message } => {
            members(json!({"task_id": task.to_string(), "message": clip(message)}))
        }
        Event::TaskPartlyDone {
            task,
            message,
            errors,
        } => {
            let errors: Vec<&str> = errors.iter().take(PARTS_MAX).map(|e| clip(e)).collect();
            let task_id = task.to_string();
            members(json!({"task_id": task_id, "message": clip(message), "errors": errors}))
        }
        Event::VFolderDeleted { vfid } => members(json!({"vfid": vfid.to_string()})),
        Event::VFolderDeleteFailed { vfid, message } => {
            members(json!({"vfid": vfid.to_string(), "message": clip(message)}))
        }
        Event::VFolderCloned { src, dst } => {
            members(json!({"vfid": src.to_string(), "dst_vfid": dst.to_string()}))
        }
        Event::VFolderCloneFailed { src, dst, message } => members(json!({
            "vfid": src.to_string(),
            "dst_vfid": dst.to_string(),
            "message": clip(message),
        })),
    }
}

/// Most failed parts that one event lists.
const PARTS_MAX: usize = 100;

/// The order of the last three differs between the two bodies.
fn fetched(model: &FetchedModel, readme: &str, bytes: u64) -> (Vec<u8>, Value) {
    let kind = model.kind.as_str();
    let args = Packed::List(vec![
        model.model_id.as_str().into(),
        model.revision.as_str().into(),
        readme.into(),
        model.registry.as_str().into(),
        kind.into(),
        bytes.into(),
    ]);
    let payload = json!({"model": {
        "model_id": model.model_id,
        "revision": model.revision,
        "readme_content": readme,
        "registry_type": kind,
        "registry_name": model.registry,
        "size": bytes,
    }});
    (args.pack(), payload)
}

/// The start is a member of its own in one body, and one among the others in the other.
fn registered(record: &ServiceRecord) -> (Vec<u8>, Value) {
    let mut payload = plain(record);
    let start = match record.startup_time.strip_suffix('Z') {
        Some(start) => format!("{start}+00:00"),
        None => record.startup_time.clone(),
    };
    let args = Packed::List(vec![bytes(&payload.to_string()), bytes(&start)]);
    if let Some(object) = payload.as_object_mut()
        && let Some(config_hash) = object.shift_remove("config_hash")
    {
        object.insert("startup_time".into(), record.startup_time.as_str().into());
        object.insert("config_hash".into(), config_hash);
    }
    (args.pack(), payload)
}
