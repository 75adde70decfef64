//! A connection to one database of Redis that is always coming back.
//!
//! Laws
//! - Nobody waits for a Redis that is away: while the link is down, every call fails at once; a
//!   call that is late takes the link down until the server answers a ping.
//! - A frozen server is noticed by a ping, also when nobody asks anything.
//! - Behind Sentinels, the link leads to a master: one that became a replica is left.
//! - Every connection has its own [`LinkState::epoch`]: who depends on what Redis remembers looks
//!   again when it changes.
//! - The log has one line for a loss and one for the return.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ScriptInvocation};
use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use self::dial::{dial, look_at};

mod dial;
mod hear;
pub(crate) mod pace;
mod settings;

pub use self::settings::{
    Address, RESPONSE_BOUND, RedisSettings, Role, Servers, SettingsError, Target, Tls,
};

use self::pace::Pace;

/// How often a server that is not asked anything is pinged.
const PING_EVERY: Duration = Duration::from_secs(1);

/// How the link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Whether commands can be sent.
    pub up: bool,
    /// Counts the connections. 0: there was none yet.
    pub epoch: u64,
}

/// Why a command has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// There is no connection. The command was not sent.
    #[error("redis is not connected")]
    Down,
    /// No answer in time; the command may have been executed.
    #[error("no answer of redis within {bound:?}")]
    Late {
        /// The time it had.
        bound: Duration,
    },
    /// The connection broke; the command may have been executed.
    #[error("the connection to redis broke: {text}")]
    Broken {
        /// How.
        text: String,
    },
    /// The server refused the command.
    #[error("redis refused: {text}")]
    Refused {
        /// The first word of what it said.
        code: String,
        /// What it said.
        text: String,
    },
    /// The answer is not what was expected.
    #[error("unexpected answer of redis: {text}")]
    Unexpected {
        /// What is wrong with it.
        text: String,
    },
}

impl LinkError {
    /// Whether the same command can succeed later without anybody changing it.
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Down | Self::Late { .. } | Self::Broken { .. } => true,
            Self::Refused { code, .. } => is_passing(code),
            Self::Unexpected { .. } => false,
        }
    }

    /// Whether it is unknown if the command was executed.
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Late { .. } | Self::Broken { .. })
    }
}

/// A server that starts, is no master, or waits for one.
fn is_passing(code: &str) -> bool {
    matches!(
        code,
        "LOADING" | "READONLY" | "MASTERDOWN" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" | "NOREPLICAS"
    )
}

/// A connection to one database. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct Link {
    driven: Arc<Driven>,
}

struct Driven {
    shared: Arc<Shared>,
    driver: AbortHandle,
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

struct Shared {
    name: &'static str,
    db: i64,
    target: watch::Sender<Arc<Target>>,
    state: watch::Sender<LinkState>,
    /// `None` while the link is down, or its server is in question.
    connection: ArcSwapOption<MultiplexedConnection>,
    /// A call went wrong: look at the connection.
    doubt: Notify,
    fault: Mutex<Option<String>>,
}

impl Link {
    /// A link to the database `db`; `name` is what the log calls it. Connects in the background,
    /// for ever again. To be called inside a runtime.
    pub fn open(target: Target, db: i64, name: &'static str) -> Self {
        let shared = Arc::new(Shared {
            name,
            db,
            target: watch::Sender::new(Arc::new(target)),
            state: watch::Sender::new(LinkState::default()),
            connection: ArcSwapOption::empty(),
            doubt: Notify::new(),
            fault: Mutex::new(None),
        });
        let driver = tokio::spawn(drive(Arc::clone(&shared))).abort_handle();
        let driven = Arc::new(Driven { shared, driver });
        Self { driven }
    }

    /// Sends one command and waits for the answer, up to the bound of the target.
    ///
    /// # Errors
    /// See [`LinkError`].
    ///
    /// # Cancellation
    /// The command may be executed all the same.
    pub async fn query<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, LinkError> {
        self.query_within(cmd, self.bound()).await
    }

    /// As [`Self::query`], with a bound of its own.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn query_within<T: FromRedisValue>(
        &self,
        cmd: &Cmd,
        bound: Duration,
    ) -> Result<T, LinkError> {
        let mut connection = self.connection()?;
        self.bounded(bound, cmd.query_async(&mut connection)).await
    }

    /// Sends several commands at once.
    ///
    /// # Errors
    /// See [`LinkError`]. A pipeline that is not atomic may be executed in part.
    pub async fn pipe<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, LinkError> {
        let mut connection = self.connection()?;
        let asked = pipeline.query_async(&mut connection);
        self.bounded(self.bound(), asked).await
    }

    /// Runs a script; it is loaded where it is not known.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn script<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, LinkError> {
        let mut connection = self.connection()?;
        let asked = script.invoke_async(&mut connection);
        self.bounded(self.bound(), asked).await
    }

    /// Whether commands can be sent.
    pub fn is_up(&self) -> bool {
        self.shared().connection.load().is_some()
    }

    /// How it is now.
    pub fn state(&self) -> LinkState {
        *self.shared().state.borrow()
    }

    /// Hears of every change.
    pub fn watch(&self) -> watch::Receiver<LinkState> {
        self.shared().state.subscribe()
    }

    /// Why it is down. `None` while it is up, or was not tried yet.
    pub fn fault(&self) -> Option<String> {
        self.shared().fault.lock().clone()
    }

    /// What the log calls it.
    pub fn name(&self) -> &'static str {
        self.shared().name
    }

    /// Leads to another server from now on, when the settings changed.
    pub fn switch(&self, target: Target) {
        self.shared().target.send_if_modified(|old| {
            let is_new = **old != target;
            *old = Arc::new(target);
            is_new
        });
    }

    /// How long an answer may take.
    pub fn bound(&self) -> Duration {
        self.shared().target.borrow().response_bound
    }

    fn shared(&self) -> &Shared {
        &self.driven.shared
    }

    fn connection(&self) -> Result<MultiplexedConnection, LinkError> {
        let connection = self.shared().connection.load();
        let connection = connection.as_deref().cloned();
        connection.ok_or(LinkError::Down)
    }

    async fn bounded<T>(
        &self,
        bound: Duration,
        asked: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, LinkError> {
        let shared = self.shared();
        match timeout(bound, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let error = told(&error);
                if matches!(error, LinkError::Broken { .. }) || is_no_master(&error) {
                    shared.question();
                }
                Err(error)
            }
            Err(_) => {
                shared.question();
                Err(LinkError::Late { bound })
            }
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("name", &self.name())
            .field("db", &self.shared().db)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// Hears the messages of a channel, for as long as the receiver lives; subscribes again by itself.
/// What is said while there is no connection is not heard. At most `bound` messages wait; more are
/// dropped, with a line in the log.
pub fn subscribe(link: &Link, channel: &str, bound: usize) -> mpsc::Receiver<Bytes> {
    let (heard, messages) = mpsc::channel(bound);
    let target = link.shared().target.subscribe();
    let name = link.name();
    tokio::spawn(hear::run(
        name,
        channel.to_owned(),
        target,
        link.watch(),
        heard,
    ));
    messages
}

/// A write was sent to a replica.
fn is_no_master(error: &LinkError) -> bool {
    matches!(error, LinkError::Refused { code, .. } if code == "READONLY")
}

fn told(error: &RedisError) -> LinkError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound | ErrorKind::AuthenticationFailed => {
            LinkError::Broken { text }
        }
        ErrorKind::Server(_) | ErrorKind::Extension => LinkError::Refused {
            code: error.code().unwrap_or("ERR").to_owned(),
            text,
        },
        _ if error.is_unrecoverable_error() => LinkError::Broken { text },
        _ => LinkError::Unexpected { text },
    }
}

impl Shared {
    /// Keeps further calls from waiting until the driver has looked.
    fn question(&self) {
        self.connection.store(None);
        self.doubt.notify_one();
    }

    fn set_up(&self, connection: &MultiplexedConnection) {
        *self.fault.lock() = None;
        self.connection.store(Some(Arc::new(connection.clone())));
    }

    fn set_down(&self, fault: String) {
        self.connection.store(None);
        *self.fault.lock() = Some(fault);
        self.state
            .send_if_modified(|state| std::mem::take(&mut state.up));
    }
}

/// Keeps the link up.
async fn drive(shared: Arc<Shared>) {
    let mut target = shared.target.subscribe();
    let mut pace = Pace::default();
    let mut is_told = false;
    loop {
        let to = Arc::clone(&target.borrow_and_update());
        let dialled = dial(&to, shared.db).await;
        match dialled {
            Ok(connection) => {
                let since = Instant::now();
                // First the epoch: no call may be answered under the old one.
                shared.state.send_modify(|state| state.epoch += 1);
                shared.set_up(&connection);
                shared.state.send_modify(|state| state.up = true);
                tracing::info!(link = shared.name, server = %to, "redis is connected");
                let why = attend(&shared, connection, &to, &mut target).await;
                shared.set_down(why.clone());
                tracing::warn!(link = shared.name, server = %to, why, "redis is lost");
                is_told = true;
                pace.was_up(since);
            }
            Err(error) => {
                let why = error.to_string();
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(link = shared.name, server = %to, why, "redis is away");
                }
                shared.set_down(why);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pace.next()) => {}
            changed = target.changed() => {
                if changed.is_err() {
                    return;
                }
                pace = Pace::default();
            }
        }
    }
}

/// Watches a connection until it has to be replaced; says why.
async fn attend(
    shared: &Shared,
    mut connection: MultiplexedConnection,
    to: &Target,
    target: &mut watch::Receiver<Arc<Target>>,
) -> String {
    loop {
        tokio::select! {
            _ = target.changed() => {
                target.mark_changed();
                return "the settings changed".to_owned();
            }
            () = shared.doubt.notified() => {}
            () = tokio::time::sleep(PING_EVERY) => {}
        }
        let looked = timeout(to.response_bound, look_at(to, &mut connection));
        match looked.await {
            Ok(Ok(())) => shared.set_up(&connection),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return format!("no answer within {:?}", to.response_bound),
        }
    }
}

#[cfg(test)]
mod tests;
