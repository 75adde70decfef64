//! Following a prefix: read, watch from there on, and read again after every loss.

use std::sync::Arc;

use etcd_client::{WatchOptions, WatchStream};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::error::told;
use super::{Etcd, EtcdError, Scope};
use crate::link::pace::Pace;

/// The last known state of a prefix.
#[derive(Debug)]
pub struct Watched {
    known: watch::Receiver<Option<Arc<Map<String, Value>>>>,
    follower: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Watched {
    /// What is known; `None` before etcd has answered for the first time.
    pub fn known(&self) -> Option<Arc<Map<String, Value>>> {
        self.known.borrow().clone()
    }

    /// Waits for something else than was last returned by this call.
    pub async fn changed(&mut self) -> Arc<Map<String, Value>> {
        loop {
            if self.known.changed().await.is_err() {
                // Only when the runtime ends.
                std::future::pending::<()>().await;
            }
            if let Some(known) = self.known.borrow_and_update().clone() {
                return known;
            }
        }
    }
}

pub(super) fn follow(etcd: Etcd, prefix: String, scope: Scope) -> Watched {
    let (tell, known) = watch::channel(None);
    let follower = tokio::spawn(async move {
        let mut pace = Pace::default();
        loop {
            let since = tokio::time::Instant::now();
            if let Err(error) = once(&etcd, &prefix, scope, &tell).await {
                tracing::debug!(prefix, %error, "watch ends, begins again");
            }
            pace.was_up(since);
            tokio::time::sleep(pace.next()).await;
        }
    });
    let follower = follower.abort_handle();
    Watched { known, follower }
}

/// Follows over one connection.
async fn once(
    etcd: &Etcd,
    prefix: &str,
    scope: Scope,
    tell: &watch::Sender<Option<Arc<Map<String, Value>>>>,
) -> Result<(), EtcdError> {
    let mut state = etcd.watch_state();
    let Ok(begun) = state.wait_for(|state| state.up).await.map(|state| *state) else {
        return Ok(());
    };
    let (map, revision) = etcd.read(prefix, scope).await?;
    publish(tell, map);
    let mut stream = open(etcd, prefix, scope, revision + 1).await?;
    loop {
        let seen = tokio::select! {
            seen = stream.message() => seen,
            // Another connection, or none: what happened meanwhile is read.
            _ = state.wait_for(|state| *state != begun) => return Ok(()),
        };
        match seen.map_err(|error| told(&error))? {
            Some(seen) if seen.canceled() => return Ok(()),
            Some(seen) if seen.events().is_empty() => {}
            Some(_) => publish(tell, etcd.read(prefix, scope).await?.0),
            None => return Ok(()),
        }
    }
}

fn publish(tell: &watch::Sender<Option<Arc<Map<String, Value>>>>, map: Map<String, Value>) {
    tell.send_if_modified(|known| {
        let is_new = known.as_deref() != Some(&map);
        if is_new {
            *known = Some(Arc::new(map));
        }
        is_new
    });
}

async fn open(
    etcd: &Etcd,
    prefix: &str,
    scope: Scope,
    revision: i64,
) -> Result<WatchStream, EtcdError> {
    let client = etcd.client()?;
    let bound = etcd.shared().settings.request_time_max;
    // With the separator left off, the value of the prefix itself is seen as well. A neighbour
    // that begins alike costs a reading.
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(revision);
    let mut places = etcd.places(prefix.trim_end_matches('/'), scope).into_iter();
    let opened = timeout(bound, async {
        let first = places.next().unwrap_or_default();
        let mut watcher = client.watch_client();
        let mut stream = watcher.watch(first, Some(options.clone())).await?;
        for place in places {
            stream.watch(place, Some(options.clone())).await?;
        }
        Ok(stream)
    });
    let opened = opened.await.map_err(|_| EtcdError::Late { bound })?;
    opened.map_err(|error: etcd_client::Error| told(&error))
}
