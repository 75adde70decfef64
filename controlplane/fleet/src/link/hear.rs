//! A subscription that is always coming back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::LinkState;
use super::dial::{DialError, dial_hearing};
use super::pace::Pace;
use super::settings::Target;

/// A connection that hears nothing may be dead.
const PING_EVERY: Duration = Duration::from_secs(2);

/// Why a subscription ended.
enum End {
    /// Nobody listens any more.
    Deaf,
    /// It has to be made anew.
    Lost,
}

/// Passes what is said on `channel` to `heard`.
pub(super) async fn run(
    name: &'static str,
    channel: String,
    mut target: watch::Receiver<Arc<Target>>,
    mut state: watch::Receiver<LinkState>,
    heard: mpsc::Sender<Bytes>,
) {
    let mut pace = Pace::default();
    loop {
        let to = Arc::clone(&target.borrow_and_update());
        let (since, seen) = (Instant::now(), state.borrow().epoch);
        match listen(&to, name, &channel, &mut target, &heard).await {
            Ok(End::Deaf) => return,
            Ok(End::Lost) => pace.was_up(since),
            Err(error) => tracing::debug!(link = name, channel, %error, "not subscribed"),
        }
        tokio::select! {
            () = tokio::time::sleep(pace.next()) => {}
            // The link has found its server.
            _ = state.wait_for(|state| state.up && seen < state.epoch) => {}
            () = heard.closed() => return,
            changed = target.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn listen(
    to: &Target,
    name: &'static str,
    channel: &str,
    target: &mut watch::Receiver<Arc<Target>>,
    heard: &mpsc::Sender<Bytes>,
) -> Result<End, DialError> {
    let mut hearing = dial_hearing(to).await?;
    timeout(to.response_bound, hearing.subscribe(channel))
        .await
        .map_err(|_| DialError::Late)??;
    tracing::debug!(link = name, channel, "subscribed");
    let (mut sink, mut messages) = hearing.split();
    let mut is_full = false;
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            () = heard.closed() => return Ok(End::Deaf),
            changed = target.changed() => {
                let end = if changed.is_ok() { End::Lost } else { End::Deaf };
                target.mark_changed();
                return Ok(end);
            }
            () = tokio::time::sleep(PING_EVERY) => {
                let ping = sink.ping::<redis::Value>();
                match timeout(to.response_bound, ping).await {
                    Ok(Ok(_)) => continue,
                    Ok(Err(_)) | Err(_) => return Ok(End::Lost),
                }
            }
        };
        let Some(message) = message else {
            return Ok(End::Lost);
        };
        match heard.try_send(Bytes::copy_from_slice(message.get_payload_bytes())) {
            Ok(()) => is_full = false,
            Err(TrySendError::Closed(_)) => return Ok(End::Deaf),
            Err(TrySendError::Full(_)) => {
                if !std::mem::replace(&mut is_full, true) {
                    tracing::warn!(
                        link = name,
                        channel,
                        "messages are dropped: nobody takes them"
                    );
                }
            }
        }
    }
}
