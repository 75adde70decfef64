//! What volumes need of the fleet: numbers of projects from etcd, mounts on all nodes by events.
//!
//! Source: events 5.3 of the original, its counter in etcd.

use std::sync::Arc;

use async_trait::async_trait;
use proxy_fleet::etcd::Etcd;
use proxy_fleet::events::EventBus;
use proxy_fleet::frame::{DoVolumeMount, DoVolumeUnmount, FleetEvent};
use proxy_volume::{ProjectIds, ShareMount, ShareMounts, Volumes};

/// The counter before the first scope; a scope gets the number after it.
const COUNTER_BEGIN: i64 = 100;
const FSTAB: &str = "/etc/fstab";

/// Gives the volumes what the fleet has.
pub fn lend(volumes: &Volumes, etcd: Option<&Etcd>, bus: Option<&EventBus>) {
    let outside = volumes.outside();
    if let Some(etcd) = etcd {
        let counter: Arc<dyn ProjectIds> = Arc::new(Counter(etcd.clone()));
        // Set once: a process joins one fleet.
        let _ = outside.project_ids.set(counter);
    }
    if let Some(bus) = bus {
        let mounts: Arc<dyn ShareMounts> = Arc::new(Mounts(bus.clone()));
        let _ = outside.mounts.set(mounts);
    }
}

struct Counter(Etcd);

#[async_trait]
impl ProjectIds for Counter {
    async fn next(&self) -> Result<u32, String> {
        let before = self.0.next_project_id(COUNTER_BEGIN).await;
        let before = before.map_err(|error| error.to_string())?;
        let next = u32::try_from(before.saturating_add(1));
        next.map_err(|_| format!("the counter in etcd is out of range: {before}"))
    }
}

struct Mounts(EventBus);

impl ShareMounts for Mounts {
    fn mount(&self, wanted: ShareMount) {
        let event = FleetEvent::DoVolumeMount(DoVolumeMount {
            dir_name: wanted.dir_name,
            volume_backend_name: wanted.volume,
            quota_scope_id: wanted.scope.to_string(),
            fs_location: wanted.location,
            fs_type: "nfs".to_owned(),
            cmd_options: None,
            scaling_group: None,
            edit_fstab: true,
            fstab_path: FSTAB.to_owned(),
        });
        self.0.publish(&event, None);
    }

    fn unmount(&self, wanted: ShareMount) {
        let event = FleetEvent::DoVolumeUnmount(DoVolumeUnmount {
            dir_name: wanted.dir_name,
            volume_backend_name: wanted.volume,
            quota_scope_id: wanted.scope.to_string(),
            scaling_group: None,
            edit_fstab: true,
            fstab_path: Some(FSTAB.to_owned()),
        });
        self.0.publish(&event, None);
    }
}
