//! The Manager as this server asks it: found, and found again when it moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proxy_api::{Check, Probe};
use proxy_fleet::discovery::Managers;
use proxy_fleet::manager::{Manager, ManagerSettings};

use crate::settings::ManagerKeys;

/// How long a Manager is left alone that failed again and again; health is true after that.
const REST: Duration = Duration::from_secs(5);

/// See the module. Its connections are pooled; share it.
pub struct Peer {
    managers: Managers,
    keys: ManagerKeys,
    current: Mutex<Option<Arc<Known>>>,
}

/// A Manager at one place.
struct Known {
    url: String,
    manager: Manager,
    /// Whether it took our keypair.
    knows_us: AtomicBool,
}

impl Peer {
    /// Asks whom `managers` finds; nothing is asked yet.
    pub fn new(managers: Managers, keys: ManagerKeys) -> Self {
        let current = Mutex::default();
        Self {
            managers,
            keys,
            current,
        }
    }

    /// Whether a Manager answers, and takes the keypair.
    ///
    /// # Errors
    /// Why not, without secrets.
    pub async fn look(&self) -> Result<(), String> {
        let known = self.known().await?;
        let words = |error: proxy_fleet::manager::ManagerError| error.to_string();
        known.manager.version().await.map_err(words)?;
        if !known.knows_us.load(Ordering::Relaxed) {
            known.manager.who_am_i().await.map_err(words)?;
            known.knows_us.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The Manager that is asked: the same one for as long as it is among those that are found.
    async fn known(&self) -> Result<Arc<Known>, String> {
        let urls = self.managers.find().await;
        let current = self.current.lock().clone();
        if let Some(current) = current.filter(|current| urls.contains(&current.url)) {
            return Ok(current);
        }
        let url = urls.into_iter().next().ok_or("no Manager is announced")?;
        let endpoint = url
            .parse()
            .map_err(|_| "the URL of the Manager can not be read".to_owned())?;
        let (access, secret) = (&self.keys.access_key, self.keys.secret_key.clone());
        let settings = ManagerSettings {
            connect_time_max: self.keys.connect_time_max,
            call_time_max: self.keys.call_time_max,
            rest: REST,
            ..ManagerSettings::new(endpoint, access, secret)
        };
        let manager = Manager::new(settings).map_err(|error| error.to_string())?;
        tracing::info!(url, "the Manager is asked here");
        let known = Arc::new(Known {
            url,
            manager,
            knows_us: AtomicBool::new(false),
        });
        *self.current.lock() = Some(Arc::clone(&known));
        Ok(known)
    }
}

/// What health asks. Transfers go on without the Manager: it gates nothing.
pub fn check(peer: &Arc<Peer>) -> Check {
    Check {
        service_group: "manager",
        component_id: "manager".to_owned(),
        gates: false,
        probe: Arc::new(PeerProbe(Arc::clone(peer))),
    }
}

struct PeerProbe(Arc<Peer>);

#[async_trait]
impl Probe for PeerProbe {
    async fn probe(&self) -> Result<(), String> {
        self.0.look().await
    }
}
