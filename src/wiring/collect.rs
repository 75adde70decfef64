//! Collects what uploads left behind: expired sessions, and staging files that nobody knows; and
//! has expired snapshots removed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use proxy_core::id::TaskId;
use proxy_state::{Runner, Sessions};
use proxy_volume::tasks::snapshots::{Keep, RETAIN};
use proxy_volume::{Capability, Control, EndedTask, KeepSession, Volume, Volumes};
use tokio::runtime::Handle;

use crate::settings::Settings;

/// Sessions that are forgotten at a time.
const BATCH: usize = 256;

/// Collects once at the start and then at every interval, for ever.
pub async fn run(
    (settings, volumes): (Arc<Settings>, Arc<Volumes>),
    sessions: Arc<dyn Sessions>,
    runner: Runner,
) {
    let kept = snapshots(Arc::clone(&settings), Arc::clone(&volumes), runner.clone());
    let marks = ended(runner);
    tokio::join!(kept, uploads(settings, volumes, sessions, marks));
}

async fn uploads(
    settings: Arc<Settings>,
    volumes: Arc<Volumes>,
    sessions: Arc<dyn Sessions>,
    marks: EndedTask,
) {
    let mut ticks = tokio::time::interval(settings.collect_interval);
    loop {
        ticks.tick().await;
        forget(&*sessions, settings.collect_grace.as_secs()).await;
        // A staging file is written to while its upload lives: one that has not changed for
        // longer than a token lives belongs to nobody.
        let age = settings.session_expire + settings.collect_grace;
        for volume in volumes.listed() {
            if let Err(error) = volume.sweep_marks(Arc::clone(&marks)).await {
                tracing::debug!(volume = volume.name(), %error, "marks of tasks stay");
            }
            let keep = keep(Arc::clone(&sessions));
            let control = Arc::new(Control::default());
            match volume.sweep_staging(age, keep, control).await {
                Ok(swept) if !swept.sessions.is_empty() || swept.hidden > 0 => tracing::info!(
                    volume = volume.name(),
                    sessions = swept.sessions.len(),
                    bytes = swept.bytes,
                    hidden = swept.hidden,
                    "abandoned uploads and leftovers are gone"
                ),
                Ok(_) => {}
                Err(error) => tracing::warn!(volume = volume.name(), %error, "can not collect"),
            }
        }
    }
}

/// Has snapshots looked through at every interval, by a background task for each volume that has
/// any, for ever. A task that still runs is not given another one behind it.
async fn snapshots(settings: Arc<Settings>, volumes: Arc<Volumes>, runner: Runner) {
    let mut ticks = tokio::time::interval(settings.retain_interval);
    let mut begun: HashMap<String, TaskId> = HashMap::new();
    loop {
        ticks.tick().await;
        let able = |volume: &&Arc<Volume>| volume.capabilities().contains(&Capability::Snapshot);
        for volume in volumes.listed().iter().filter(able) {
            let name = volume.name();
            let last = match begun.get(name) {
                Some(last) => runner.look(*last).await.ok().flatten(),
                None => None,
            };
            if last.is_some_and(|last| !last.state.is_finished()) {
                continue;
            }
            let keep = Keep {
                volume: name.to_owned(),
                vfolder_id: None,
                count_max: settings.retention.count_max,
                age_max_s: settings.retention.age_max.map(|age| age.as_secs()),
            };
            let body = serde_json::to_value(&keep).unwrap_or_default();
            match runner.submit(RETAIN, body, name).await {
                Ok(id) => drop(begun.insert(name.to_owned(), id)),
                Err(error) => tracing::warn!(volume = name, %error, "can not look for snapshots"),
            }
        }
    }
}

/// Asks the store, from the thread that sweeps. A store that fails keeps everything.
fn keep(sessions: Arc<dyn Sessions>) -> KeepSession {
    let runtime = Handle::current();
    Arc::new(move |id| match runtime.block_on(sessions.look(id)) {
        Ok(found) => found.is_some_and(|session| !session.is_finished()),
        Err(_) => true,
    })
}

/// Asks the runner, from the thread that sweeps. What it does not know may be another server's.
fn ended(runner: Runner) -> EndedTask {
    let runtime = Handle::current();
    Arc::new(move |id| {
        let found = runtime.block_on(runner.look(id)).ok().flatten();
        found.is_some_and(|task| task.state.is_finished())
    })
}

/// Forgets sessions whose tokens expired `grace` seconds ago.
async fn forget(sessions: &dyn Sessions, grace: u64) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    loop {
        let expired = match sessions.expired(now.saturating_sub(grace), BATCH).await {
            Ok(expired) if expired.is_empty() => return,
            Ok(expired) => expired,
            Err(error) => {
                tracing::warn!(%error, "can not look for expired uploads");
                return;
            }
        };
        let mut gone = 0;
        for session in &expired {
            gone += usize::from(matches!(sessions.forget(session.id).await, Ok(true)));
        }
        if gone == 0 {
            return;
        }
    }
}
