//! Whether what the server depends on is there, asked without a server.

use std::time::Duration;

use proxy_fleet::discovery::Managers;
use proxy_fleet::etcd::Etcd;
use proxy_fleet::link::Link;
use tokio::time::timeout;

use super::fleet::redis_settings;
use super::links::Links;
use super::manager::Peer;
use crate::settings::Settings;

/// How long each may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// One thing that was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// `etcd`, `redis`, `manager`, `volume` or `state`.
    pub group: &'static str,
    /// Which one.
    pub name: String,
    /// Why it is not good.
    pub error: Option<String>,
}

/// Looks for all of them.
pub async fn check(settings: &Settings) -> Vec<Item> {
    let mut items = Vec::new();
    let mut add = |group, name: &str, outcome: Result<(), String>| {
        let (name, error) = (name.to_owned(), outcome.err());
        items.push(Item { group, name, error });
    };
    if let Some(fleet) = &settings.fleet {
        let etcd = fleet.etcd.clone().map(Etcd::open);
        if let Some(etcd) = &etcd {
            let up = etcd.is_up_within(PATIENCE).await;
            let why = || etcd.fault().unwrap_or_else(|| "it does not answer".into());
            add("etcd", "etcd", if up { Ok(()) } else { Err(why()) });
        }
        let redis = redis_settings(etcd.as_ref(), fleet).await;
        let links = Links::open(redis.as_ref());
        // The original's names, in its order.
        add("redis", "artifact", is_up(&links.statistics).await);
        add("redis", "bgtask", is_up(&links.bgtask).await);
        if let Some(keys) = fleet.manager.clone() {
            // Managers announce themselves there.
            let _ = is_up(&links.live).await;
            let endpoint = fleet.manager_endpoint.clone();
            let managers = Managers::new(endpoint, links.live.clone(), etcd.clone());
            let looked = timeout(PATIENCE, Peer::new(managers, keys).look()).await;
            let late = || Err("it does not answer in time".into());
            add("manager", "manager", looked.unwrap_or_else(|_| late()));
        }
    }
    for volume in settings
        .volumes
        .iter()
        .filter(|volume| volume.backend != "noop")
    {
        let path = volume.path.clone();
        // A mount that hangs holds its thread, not us.
        let look = tokio::task::spawn_blocking(move || std::fs::read_dir(path).map(drop));
        let outcome = match timeout(PATIENCE, look).await {
            Ok(Ok(looked)) => looked.map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not answer in time".into()),
        };
        add("volume", &volume.name, outcome);
    }
    let state = match std::fs::metadata(&settings.data_dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err("not a directory".to_owned()),
        // The first start makes it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    add("state", "data-dir", state);
    items
}

async fn is_up(link: &Link) -> Result<(), String> {
    let mut states = link.watch();
    let up = timeout(PATIENCE, states.wait_for(|state| state.up)).await;
    match up {
        Ok(Ok(_)) => Ok(()),
        _ => Err(link
            .fault()
            .unwrap_or_else(|| "it does not answer in time".into())),
    }
}
