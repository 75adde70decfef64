//! A server that runs, and the two ways in which it ends.
//!
//! Laws
//! - Whatever can be lost is safe within five seconds of the order to stop: uploads are on record,
//!   tasks are registered. Downloads may take as long as the drain lasts.
//! - A successor gets the state only when nothing here writes to it any more.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_server::Server;
use proxy_state::{EmbeddedStore, Runner};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::data_plane;
use super::fleet::Fleet;
use crate::failure::Failure;
use crate::handover::{self, Asked, Control};
use crate::notify;
use crate::serve::State;
use crate::settings::Settings;
use crate::shutdown::{Shutdown, Wish, Wishes};

/// How long uploads may go on after the order to stop: then they are asked to let go, with all
/// that came on record. Well below the 5 s after which the unit of the original kills.
const UPLOADS_GRACE: Duration = Duration::from_secs(2);
/// How long tasks have to stop at a safe point.
const TASKS_GRACE: Duration = Duration::from_millis(500);
/// How long a hand-over waits for uploads to let go.
const LET_GO: Duration = Duration::from_secs(10);

/// How often the end of the last upload is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// See the module.
pub struct Running {
    pub settings: Arc<Settings>,
    pub store: Arc<EmbeddedStore>,
    pub fleet: Fleet,
    pub runner: Runner,
    pub server: Server,
    pub planes: JoinSet<()>,
    pub background: JoinSet<()>,
    pub end_planes: watch::Sender<bool>,
    pub end_uploads: watch::Sender<bool>,
    pub control: Control,
    pub state: State,
}

impl Running {
    /// Waits for what ends it, and brings it to its end.
    ///
    /// # Errors
    /// The data plane ended by itself.
    pub async fn until_the_end(
        mut self,
        mut shutdown: Shutdown,
        mut successors: mpsc::Receiver<Asked>,
        look: &Notify,
    ) -> Result<(), Failure> {
        let program = std::env::current_exe();
        let mut wishes = Wishes::listen()?;
        loop {
            tokio::select! {
                () = shutdown.requested() => return self.stop().await,
                Some(asked) = successors.recv() => return self.hand_over(asked).await,
                ended = self.server.ended() => {
                    let by_itself = || io::Error::other("it ended by itself");
                    return Err(data_plane(ended.err().unwrap_or_else(by_itself)));
                }
                wish = wishes.next() => match (wish, &program) {
                    (Wish::Reload, _) => {
                        notify::reloading();
                        look.notify_one();
                        notify::ready("serving");
                    }
                    (Wish::Replace, Ok(program)) => handover::start_successor(program),
                    (Wish::Replace, Err(error)) => {
                        tracing::error!(%error, "it is not known which program this is");
                    }
                },
            }
        }
    }

    /// Ends for good.
    async fn stop(mut self) -> Result<(), Failure> {
        let limit = self.settings.drain_timeout;
        self.control.withdraw();
        self.server.drain(limit);
        self.end_planes.send_replace(true);
        let uploads = async {
            tokio::time::sleep(UPLOADS_GRACE.min(limit)).await;
            self.end_uploads.send_replace(true);
        };
        let tasks = self.runner.shutdown(TASKS_GRACE.min(limit));
        let planes = async { while self.planes.join_next().await.is_some() {} };
        // Transfers end on their own time, beside all that.
        let data = async {
            let joined = self.server.join();
            let (data, left, ()) = tokio::join!(joined, tasks, planes);
            (data, left)
        };
        let (data, left) = tokio::select! {
            done = data => done,
            done = async { uploads.await; std::future::pending().await } => done,
        };
        tell_left(left);
        self.fleet.leave().await;
        self.background.shutdown().await;
        if let Err(error) = self.store.flush().await {
            tracing::error!(%error, "the last records did not reach the disk");
        }
        data.map_err(data_plane)
    }

    /// Gives ports and state to a successor, and lets running downloads end.
    async fn hand_over(mut self, asked: Asked) -> Result<(), Failure> {
        let begun = Instant::now();
        tracing::info!(successor = asked.pid, "handing over");
        let limit = self.settings.drain_timeout;
        self.server.hand_over(limit);
        self.end_planes.send_replace(true);
        self.end_uploads.send_replace(true);
        let planes = async { while self.planes.join_next().await.is_some() {} };
        let tasks = self.runner.shutdown(TASKS_GRACE);
        let uploads = async {
            let until = Instant::now() + LET_GO;
            while 0 < self.store.stats().leases && Instant::now() < until {
                tokio::time::sleep(LOOK).await;
            }
        };
        let planes = tokio::time::timeout(LET_GO, planes);
        let (_, left, ()) = tokio::join!(planes, tasks, uploads);
        tell_left(left);
        self.planes.shutdown().await;
        self.fleet.withdraw().await;
        // What it kept on disk, such as events that wait, is the successor's now.
        self.background.shutdown().await;
        let store = Arc::clone(&self.store);
        if let Err(error) = tokio::task::spawn_blocking(move || store.close()).await {
            tracing::error!(%error, "close the store");
        }
        self.state.release();
        if let Some(pid) = asked.pid {
            notify::handed_to(pid);
        }
        asked.free();
        let took_ms = begun.elapsed().as_millis();
        tracing::info!(took_ms, "handed over, running downloads go on here");
        self.server.join().await.map_err(data_plane)
    }
}

fn tell_left(left: usize) {
    if left > 0 {
        tracing::info!(tasks = left, "unfinished tasks go on at the next start");
    }
}
