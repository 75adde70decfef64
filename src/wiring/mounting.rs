//! Requests to mount and unmount, from whoever may send events.
//!
//! Laws
//! - One request per path at a time; the others wait their turn.
//! - A volume that is not configured is no request of ours: no answer is sent.
//! - After a mount the volume is looked at anew; before an unmount of a volume's own path its
//!   directory is let go of.
//!
//! Source: events 5.3 of the original (see docs/operations.md#mounting).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use proxy_api::{Check, Probe};
use proxy_fleet::etcd::{Etcd, Scope};
use proxy_fleet::events::{EventBus, VolumeRequests};
use proxy_fleet::frame::{DoVolumeMount, DoVolumeUnmount, FleetEvent, RequestError, VolumeReply};
use proxy_mount::{Client, ClientError, Task};
use proxy_volume::{Volume, Volumes};
use tokio::sync::Notify;

use super::figures::Heard;

/// Files that were downloaded last stay open for some seconds: what is in use is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(250);

/// Where requests come from and answers go.
#[derive(Clone)]
pub struct Ear {
    /// The channel that everybody listens to.
    pub bus: EventBus,
    /// The fleet's settings, if it has etcd.
    pub etcd: Option<Etcd>,
    /// Who answers.
    pub node_id: String,
    /// Counts.
    pub heard: Heard,
}

impl Ear {
    /// Where mounts of the fleet are; it counts only where a path is not absolute.
    async fn prefix(&self) -> Option<PathBuf> {
        let text = self.setting("volumes/_mount").await?;
        Some(PathBuf::from(text)).filter(|path| path.is_absolute())
    }

    /// How long an unmount may take.
    async fn limit(&self) -> Option<Duration> {
        let text = self.setting("config/watcher/file-io-timeout").await?;
        Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
    }

    async fn setting(&self, key: &str) -> Option<String> {
        let found = self.etcd.as_ref()?.get(key, Scope::Merged).await;
        found.unwrap_or_else(|error| {
            tracing::warn!(key, %error, "the fleet's setting is not to be had, without it then");
            None
        })
    }

    /// Options of a mount may hold passwords: they are not in the log.
    fn log(&self, event: &str, dir_name: &str) {
        if self.bus.logs_events() {
            tracing::info!(event, dir_name, "event received");
        }
    }

    fn reply(&self, quota_scope_id: String, answer: Answer) -> VolumeReply {
        VolumeReply {
            node_id: self.node_id.clone(),
            node_type: VolumeReply::NODE_TYPE.into(),
            mount_path: answer.mount_path.display().to_string(),
            quota_scope_id,
            err_msg: answer.error,
        }
    }
}

/// [`Mounting`] on the fleet's channel.
pub struct Requests {
    /// Who does it.
    pub mounting: Arc<Mounting>,
    /// Who hears of it.
    pub ear: Ear,
}

#[async_trait]
impl VolumeRequests for Requests {
    async fn mount(&self, asked: DoVolumeMount) {
        self.ear.log("do_volume_mount", &asked.dir_name);
        let (mounting, ear) = (Arc::clone(&self.mounting), self.ear.clone());
        // One that hangs must not keep those of other paths.
        tokio::spawn(async move {
            let (begun, prefix) = (Instant::now(), ear.prefix().await);
            let scope = asked.quota_scope_id.clone();
            if let Some(answer) = mounting.mount(asked, prefix.as_deref()).await {
                let is_good = answer.error.is_none();
                ear.heard
                    .handled("do_volume_mount", is_good, begun.elapsed());
                let event = FleetEvent::VolumeMounted(ear.reply(scope, answer));
                ear.bus.publish(&event, None);
            }
        });
    }

    async fn unmount(&self, asked: DoVolumeUnmount) {
        self.ear.log("do_volume_unmount", &asked.dir_name);
        let (mounting, ear) = (Arc::clone(&self.mounting), self.ear.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            let (prefix, limit) = (ear.prefix().await, ear.limit().await);
            let scope = asked.quota_scope_id.clone();
            if let Some(answer) = mounting.unmount(asked, prefix.as_deref(), limit).await {
                let is_good = answer.error.is_none();
                let took = begun.elapsed();
                ear.heard.handled("do_volume_unmount", is_good, took);
                let event = FleetEvent::VolumeUnmounted(ear.reply(scope, answer));
                ear.bus.publish(&event, None);
            }
        });
    }

    fn unreadable(&self, _: &RequestError) {
        self.ear.heard.unreadable();
    }
}

/// What is answered to everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where.
    pub mount_path: PathBuf,
    /// Why not; or, for an unmount of what is not mounted, that.
    pub error: Option<String>,
}

/// See the module.
pub struct Mounting {
    keeper: Client,
    volumes: Arc<Volumes>,
    /// Asks that the volumes be looked at.
    look: Arc<Notify>,
    owner: (u32, u32),
    limit: Duration,
    turns: Mutex<HashMap<PathBuf, Weak<tokio::sync::Mutex<()>>>>,
}

impl Mounting {
    /// `limit` bounds what has no bound of its own.
    pub fn new(
        keeper: Client,
        volumes: &Arc<Volumes>,
        look: &Arc<Notify>,
        limit: Duration,
    ) -> Self {
        let owner = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        Self {
            keeper,
            volumes: Arc::clone(volumes),
            look: Arc::clone(look),
            owner,
            limit,
            turns: Mutex::default(),
        }
    }

    /// Mounts, and gives the mount point to this server's user. `None`: not a volume of ours.
    ///
    /// `prefix` is the fleet's mount prefix; it counts only where a path is not absolute.
    pub async fn mount(&self, asked: DoVolumeMount, prefix: Option<&Path>) -> Option<Answer> {
        let volume = self.volume(&asked.volume_backend_name)?;
        let target = target(&volume, &asked.dir_name, prefix);
        let turn = self.turn(&target);
        let _turn = turn.lock().await;
        let task = Task::Mount {
            target: target.clone(),
            location: asked.fs_location,
            fs_type: asked.fs_type,
            options: asked.cmd_options,
            edit_fstab: asked.edit_fstab,
            fstab: asked.edit_fstab.then(|| asked.fstab_path.into()),
        };
        let mut done = self.keeper.run(task, self.limit).await;
        if done.is_ok() {
            let (uid, gid) = self.owner;
            let target = target.clone();
            done = self
                .keeper
                .run(Task::Chown { target, uid, gid }, self.limit)
                .await;
        }
        let _ = volume.refresh().await;
        self.look.notify_one();
        Some(self.answer(target, done.err()))
    }

    /// Unmounts. `None`: not a volume of ours.
    pub async fn unmount(
        &self,
        asked: DoVolumeUnmount,
        prefix: Option<&Path>,
        limit: Option<Duration>,
    ) -> Option<Answer> {
        let volume = self.volume(&asked.volume_backend_name)?;
        let target = target(&volume, &asked.dir_name, prefix);
        let turn = self.turn(&target);
        let _turn = turn.lock().await;
        let limit = limit.unwrap_or(self.limit);
        let task = Task::Umount {
            target: target.clone(),
            edit_fstab: asked.edit_fstab,
            fstab: asked.fstab_path.map(PathBuf::from),
        };
        let until = Instant::now() + limit;
        let done = loop {
            if volume.path() == target {
                volume.close();
                self.look.notify_one();
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.keeper.run(task.clone(), left.max(BUSY_PAUSE)).await {
                Err(ClientError::Busy(_)) if Instant::now() < until => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                done => break done,
            }
        };
        self.look.notify_one();
        Some(match done {
            // Not mounted is as good as unmounted, and is told.
            Ok(text) => Answer {
                mount_path: target,
                error: Some(text).filter(|text| !text.is_empty()),
            },
            Err(error) => self.answer(target, Some(error)),
        })
    }

    fn volume(&self, name: &str) -> Option<Arc<Volume>> {
        let listed = self.volumes.listed();
        let found = listed.iter().find(|volume| volume.name() == name);
        if found.is_none() {
            tracing::warn!(
                volume = name,
                "a mount is asked for on a volume that is not ours"
            );
        }
        found.map(Arc::clone)
    }

    fn turn(&self, target: &Path) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        turns.retain(|_, turn| 0 < turn.strong_count());
        if let Some(turn) = turns.get(target).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(target.to_owned(), Arc::downgrade(&turn));
        turn
    }

    fn answer(&self, mount_path: PathBuf, error: Option<ClientError>) -> Answer {
        match &error {
            None => tracing::info!(path = %mount_path.display(), "mounts have changed"),
            Some(error) => tracing::error!(path = %mount_path.display(), %error, "mount request"),
        }
        Answer {
            mount_path,
            error: error.map(|error| error.to_string()),
        }
    }
}

/// Where it is: prefix, volume and name joined as paths are, so that an absolute one wins.
fn target(volume: &Volume, dir_name: &str, prefix: Option<&Path>) -> PathBuf {
    let base = prefix.unwrap_or(Path::new("/"));
    base.join(volume.path())
        .join(dir_name)
        .components()
        .collect()
}

/// Whether the keeper of mounts answers; what is mounted works without it.
pub fn check(keeper: &Client) -> Check {
    Check {
        service_group: "mounts",
        component_id: "keeper".into(),
        gates: false,
        probe: Arc::new(KeeperProbe(keeper.clone())),
    }
}

struct KeeperProbe(Client);

#[async_trait]
impl Probe for KeeperProbe {
    async fn probe(&self) -> Result<(), String> {
        let pong = self.0.run(Task::Ping, Duration::from_secs(2)).await;
        pong.map(drop).map_err(|error| error.to_string())
    }
}
