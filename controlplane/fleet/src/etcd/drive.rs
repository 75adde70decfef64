//! Keeps one connection to one member, and finds another when that is gone.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions, Txn, TxnOp};
use tokio::time::{Instant, timeout};

use super::error::{EtcdError, is_stale_login, needs_no_login, told};
use super::{Answers, Settings, Shared};
use crate::link::pace::Pace;

/// How often a member that is not asked anything is probed.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// Never ends.
pub(super) async fn run(shared: Arc<Shared>) {
    let members = &shared.settings.endpoints;
    let mut pace = Pace::default();
    let mut is_told = false;
    loop {
        let mut why = String::new();
        for member in members {
            match dial(&shared, member).await {
                Ok(client) => {
                    let since = Instant::now();
                    shared.set_up(client);
                    tracing::info!(member, "etcd is connected");
                    why = attend(&shared).await;
                    shared.set_down(why.clone());
                    tracing::warn!(
                        member,
                        why,
                        "etcd is lost: what is known of it stays in use"
                    );
                    is_told = true;
                    pace.was_up(since);
                }
                Err(error) => {
                    why = format!("{member}: {error}");
                    shared.set_down(why.clone());
                }
            }
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(why, "etcd is away: it is tried again for ever");
        }
        tokio::time::sleep(pace.next()).await;
    }
}

impl Shared {
    fn set_up(&self, client: Client) {
        *self.fault.lock() = None;
        self.client.store(Some(Arc::new(client)));
        self.state.send_modify(|state| {
            state.up = true;
            state.epoch += 1;
        });
    }

    fn set_down(&self, why: String) {
        self.client.store(None);
        *self.fault.lock() = Some(why);
        self.state
            .send_if_modified(|state| std::mem::take(&mut state.up));
    }
}

/// Probes until something is wrong; says what.
async fn attend(shared: &Shared) -> String {
    loop {
        tokio::select! {
            () = shared.doubt.notified() => {}
            () = tokio::time::sleep(PROBE_EVERY) => {}
        }
        let Some(client) = shared.client.load_full() else {
            return "nobody is connected".to_owned();
        };
        if let Err(error) = probe(shared, &client).await {
            return error.to_string();
        }
    }
}

/// A connection that has answered, within the bound of one call for each of its steps.
async fn dial(shared: &Shared, member: &str) -> Result<Client, EtcdError> {
    let settings = &shared.settings;
    let bound = settings.request_time_max;
    let connected = timeout(bound, async {
        let login = settings.credentials.is_some();
        match Client::connect([url(settings, member)], Some(options(settings, login))).await {
            Err(error) if needs_no_login(&error) => {
                tracing::warn!(member, "etcd asks nobody for a password, ours is not used");
                Client::connect([url(settings, member)], Some(options(settings, false))).await
            }
            connected => connected,
        }
    });
    let connected = connected.await.map_err(|_| EtcdError::Late { bound })?;
    let client = connected.map_err(|error| told(&error))?;
    probe(shared, &client).await?;
    Ok(client)
}

fn url(settings: &Settings, member: &str) -> String {
    let scheme = if settings.tls.is_some() {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{member}")
}

fn options(settings: &Settings, login: bool) -> ConnectOptions {
    let bound = settings.request_time_max;
    // A watch waits for ever by its nature, so the bound of a call is kept around each call.
    let mut options = ConnectOptions::new()
        .with_connect_timeout(bound)
        .with_keep_alive(Duration::from_secs(10), bound);
    if let Some((user, password)) = settings.credentials.as_ref().filter(|_| login) {
        options = options
            .with_user(user, password)
            .with_auto_token_refresh(true);
    }
    if let Some(tls) = &settings.tls {
        let mut chosen = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
        if let Some((cert, key)) = &tls.identity {
            chosen = chosen.identity(Identity::from_pem(cert, key));
        }
        if let Some(name) = &tls.server_name {
            chosen = chosen.domain_name(name);
        }
        options = options.with_tls(chosen);
    }
    options
}

/// Reads the key that the original reads for its health. That it is missing is a good answer.
async fn probe(shared: &Shared, client: &Client) -> Result<(), EtcdError> {
    let get = TxnOp::get(shared.layout.global("_"), None);
    let bound = shared.settings.request_time_max;
    transact(client, Txn::new().and_then([get]), bound)
        .await
        .map(drop)
}

/// One call, with a new token if the old one is no good any more.
pub(super) async fn transact(
    client: &Client,
    txn: Txn,
    bound: Duration,
) -> Result<Answers, EtcdError> {
    let mut kv = client.kv_client();
    let asked = timeout(bound, async {
        match kv.txn(txn.clone()).await {
            Err(error) if is_stale_login(&error) => {
                client.refresh_token().await?;
                kv.txn(txn).await
            }
            answered => answered,
        }
    });
    let answered = asked.await.map_err(|_| EtcdError::Late { bound })?;
    answered
        .map(|answer| Answers::of(&answer))
        .map_err(|error| told(&error))
}
