//! The health probes of a standalone proxy: its state file and its volumes.
//!
//! Laws
//! - A probe reads what every request reads, and changes nothing.
//! - What it says names no path.

use std::sync::Arc;

use async_trait::async_trait;
use proxy_core::id::SessionId;
use proxy_state::{EmbeddedStore, Sessions};
use proxy_volume::{Volume, Volumes};

use crate::health::{Check, Probe};

/// The state file, without which nothing works, and every configured volume, for information.
pub fn standalone(store: &Arc<EmbeddedStore>, volumes: &Volumes) -> Vec<Check> {
    let store = Check {
        service_group: "state",
        component_id: "embedded".to_owned(),
        gates: true,
        probe: Arc::new(StoreProbe(Arc::clone(store))),
    };
    let volumes = volumes.listed().iter().map(|volume| Check {
        service_group: "volume",
        component_id: volume.name().to_owned(),
        gates: false,
        probe: Arc::new(VolumeProbe(Arc::clone(volume))),
    });
    std::iter::once(store).chain(volumes).collect()
}

/// Fails while the store cannot write, and when it cannot read.
struct StoreProbe(Arc<EmbeddedStore>);

#[async_trait]
impl Probe for StoreProbe {
    async fn probe(&self) -> Result<(), String> {
        if let Some(fault) = self.0.fault() {
            return Err(fault.to_string());
        }
        let nobody = SessionId::from_bytes([0; 16]);
        self.0
            .look(nobody)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

/// Asks the file system for its size: one call that a lost mount does not answer.
struct VolumeProbe(Arc<Volume>);

#[async_trait]
impl Probe for VolumeProbe {
    async fn probe(&self) -> Result<(), String> {
        self.0
            .fs_usage()
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    }
}
