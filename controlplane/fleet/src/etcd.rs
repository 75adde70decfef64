//! etcd as the fleet uses it: a connection that always comes back, scopes, nested maps, watches.
//!
//! Laws
//! - Every call has a bound; while etcd is away every call fails at once.
//! - A frozen member is noticed by a probe, also when nobody asks anything, and the next one is
//!   tried.
//! - What is watched is read again after every loss: no change is missed, the last state counts.
//! - The log has one line for a loss and one for the return.
//!
//! Source: reference of the original's layout, releases 26.2 to 26.9; `docs/operations.md`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use etcd_client::{Client, Compare, CompareOp, DeleteOptions, GetOptions, GetResponse};
use etcd_client::{Txn, TxnOp, TxnOpResponse};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

mod drive;
mod error;
mod known;
mod layout;
mod settings;
mod watching;

pub use error::EtcdError;
pub use layout::{Layout, is_true, quote, unquote};
pub use settings::{Settings, Tls};
pub use watching::Watched;

/// How often [`Etcd::next_number`] tries again when others were faster.
const TRIES_MAX: usize = 16;

/// How the connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EtcdState {
    /// Whether calls can be made.
    pub up: bool,
    /// Counts the connections. 0: there was none yet.
    pub epoch: u64,
}

/// Which keys are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This node's, and the global ones where it has none.
    Merged,
    /// The global ones.
    Global,
}

/// A connection to etcd. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct Etcd {
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
    settings: Settings,
    layout: Layout,
    client: ArcSwapOption<Client>,
    state: watch::Sender<EtcdState>,
    /// A call went wrong: look at the connection.
    doubt: Notify,
    fault: Mutex<Option<String>>,
}

impl Etcd {
    /// Connects in the background, for ever again. To be called inside a runtime.
    pub fn open(settings: Settings) -> Self {
        let shared = Arc::new(Shared {
            layout: Layout::new(&settings.namespace, &settings.node_id),
            settings,
            client: ArcSwapOption::empty(),
            state: watch::Sender::new(EtcdState::default()),
            doubt: Notify::new(),
            fault: Mutex::new(None),
        });
        let driver = tokio::spawn(drive::run(Arc::clone(&shared))).abort_handle();
        let driven = Arc::new(Driven { shared, driver });
        Self { driven }
    }

    /// How it is now.
    pub fn state(&self) -> EtcdState {
        *self.shared().state.borrow()
    }

    /// Hears of every change.
    pub fn watch_state(&self) -> watch::Receiver<EtcdState> {
        self.shared().state.subscribe()
    }

    /// Why it is down. `None` while it is up, or was not tried yet.
    pub fn fault(&self) -> Option<String> {
        self.shared().fault.lock().clone()
    }

    /// Waits until calls can be made, or the bound is over; says whether they can.
    pub async fn is_up_within(&self, bound: Duration) -> bool {
        let mut state = self.watch_state();
        timeout(bound, state.wait_for(|state| state.up))
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    /// The value of one key. The first scope that has it counts, also with an empty value.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn get(&self, key: &str, scope: Scope) -> Result<Option<String>, EtcdError> {
        let keys = self.places(key, scope);
        let gets = keys.iter().map(|key| TxnOp::get(key.as_str(), None));
        let answers = self
            .transact(Txn::new().and_then(gets.collect::<Vec<_>>()))
            .await?;
        let found = answers.gets.iter().find_map(|answer| answer.kvs().first());
        Ok(found.map(|pair| text(pair.value())))
    }

    /// Everything below a prefix, nested. The value of the prefix itself is under the empty name.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn get_prefix(
        &self,
        prefix: &str,
        scope: Scope,
    ) -> Result<Map<String, Value>, EtcdError> {
        self.read(prefix, scope).await.map(|(map, _)| map)
    }

    /// As [`Self::get_prefix`], with the revision at which this was so.
    async fn read(
        &self,
        prefix: &str,
        scope: Scope,
    ) -> Result<(Map<String, Value>, i64), EtcdError> {
        let places = self.places(prefix.trim_end_matches('/'), scope);
        let gets = places.iter().flat_map(|place| {
            let below = Some(GetOptions::new().with_prefix());
            [
                TxnOp::get(place.as_str(), None),
                TxnOp::get(format!("{place}/"), below),
            ]
        });
        let answers = self
            .transact(Txn::new().and_then(gets.collect::<Vec<_>>()))
            .await?;
        let mut scopes = places
            .iter()
            .zip(answers.gets.chunks(2))
            .map(|(place, found)| {
                let pairs: Vec<(String, String)> = found.iter().flat_map(pairs).collect();
                let below = pairs.iter().map(|(key, value)| {
                    let key = key.get(place.len()..).unwrap_or_default();
                    (key.strip_prefix('/').unwrap_or(key), value.as_str())
                });
                layout::nest(below)
            });
        let first = scopes.next().unwrap_or_default();
        let map = match scopes.next() {
            Some(global) => layout::overlay(global, first),
            None => first,
        };
        Ok((map, answers.revision))
    }

    /// Sets one global key.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn put(&self, key: &str, value: &str) -> Result<(), EtcdError> {
        let put = TxnOp::put(self.layout().global(key), value, None);
        self.transact(Txn::new().and_then([put])).await.map(drop)
    }

    /// Sets everything of a nested map below a global prefix, at once.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn put_prefix(
        &self,
        prefix: &str,
        map: &Map<String, Value>,
    ) -> Result<(), EtcdError> {
        let flat = layout::flatten(&self.layout().global(prefix), map);
        let puts = flat
            .into_iter()
            .map(|(key, value)| TxnOp::put(key, value, None));
        let puts = Txn::new().and_then(puts.collect::<Vec<_>>());
        self.transact(puts).await.map(drop)
    }

    /// Removes a global key and everything below it.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn delete_prefix(&self, prefix: &str) -> Result<(), EtcdError> {
        let key = self.layout().global(prefix.trim_end_matches('/'));
        let below = Some(DeleteOptions::new().with_prefix());
        let deletes = [
            TxnOp::delete(key.as_str(), None),
            TxnOp::delete(format!("{key}/"), below),
        ];
        self.transact(Txn::new().and_then(deletes)).await.map(drop)
    }

    /// Takes the next number of a counter: `first`, and one more each time, never one twice.
    ///
    /// The original reads, adds and writes, so that two of it can take the same number; beside
    /// one of those, ours never overwrites what it has written.
    ///
    /// # Errors
    /// See [`EtcdError`]. After [`EtcdError::Late`] and [`EtcdError::Broken`] a number may be lost.
    pub async fn next_number(&self, key: &str, first: i64) -> Result<i64, EtcdError> {
        let place = self.layout().global(key);
        for _ in 0..TRIES_MAX {
            let get = TxnOp::get(place.as_str(), None);
            let answers = self.transact(Txn::new().and_then([get])).await?;
            let found = answers.gets.first().and_then(|answer| answer.kvs().first());
            let (now, unchanged) = match found {
                None => (first, Compare::version(place.as_str(), CompareOp::Equal, 0)),
                Some(pair) => {
                    let number = text(pair.value()).trim().parse();
                    let wanted = "a number";
                    let key = || place.clone();
                    let number =
                        number.map_err(|_| EtcdError::Unexpected { key: key(), wanted })?;
                    let at = pair.mod_revision();
                    (
                        number,
                        Compare::mod_revision(place.as_str(), CompareOp::Equal, at),
                    )
                }
            };
            let put = TxnOp::put(place.as_str(), now.saturating_add(1).to_string(), None);
            let taken = self
                .transact(Txn::new().when([unchanged]).and_then([put]))
                .await?;
            if taken.succeeded {
                return Ok(now);
            }
        }
        Err(EtcdError::Contended { key: place })
    }

    /// Follows everything below a prefix: the last known state, for as long as the value lives.
    pub fn follow(&self, prefix: &str, scope: Scope) -> Watched {
        watching::follow(self.clone(), prefix.to_owned(), scope)
    }

    fn places(&self, key: &str, scope: Scope) -> Vec<String> {
        let layout = self.layout();
        match scope {
            Scope::Merged => vec![layout.node(key), layout.global(key)],
            Scope::Global => vec![layout.global(key)],
        }
    }

    fn shared(&self) -> &Shared {
        &self.driven.shared
    }

    fn layout(&self) -> &Layout {
        &self.shared().layout
    }

    fn client(&self) -> Result<Arc<Client>, EtcdError> {
        self.shared().client.load_full().ok_or(EtcdError::Down)
    }

    async fn transact(&self, txn: Txn) -> Result<Answers, EtcdError> {
        let client = self.client()?;
        let bound = self.shared().settings.request_time_max;
        let answered = drive::transact(&client, txn, bound).await;
        if let Err(error) = &answered
            && error.may_retry()
        {
            self.shared().doubt.notify_one();
        }
        answered
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("settings", &self.shared().settings)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// What a transaction did.
struct Answers {
    succeeded: bool,
    gets: Vec<GetResponse>,
    revision: i64,
}

impl Answers {
    fn of(answer: &etcd_client::TxnResponse) -> Self {
        let gets = answer.op_responses().into_iter().filter_map(|op| match op {
            TxnOpResponse::Get(found) => Some(found),
            _ => None,
        });
        Self {
            succeeded: answer.succeeded(),
            gets: gets.collect(),
            revision: answer.header().map_or(0, |header| header.revision()),
        }
    }
}

fn pairs(found: &GetResponse) -> Vec<(String, String)> {
    let pairs = found.kvs().iter();
    pairs
        .map(|pair| (text(pair.key()), text(pair.value())))
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
