//! What others ask of this server over the channel.
//!
//! Source: contract, events 5.3 and 5.5.

use std::sync::Arc;

use async_trait::async_trait;

use crate::frame::{CHANNEL, DoVolumeMount, DoVolumeUnmount, Request, RequestError, receive};
use crate::link::{Link, subscribe};

/// Messages that wait while one is acted upon.
const WAITING_MAX: usize = 1024;

/// Acts upon requests to mount and unmount, one after another, and answers on the bus itself.
#[async_trait]
pub trait VolumeRequests: Send + Sync {
    /// Mounts, and says what became of it.
    async fn mount(&self, asked: DoVolumeMount);

    /// Unmounts, and says what became of it.
    async fn unmount(&self, asked: DoVolumeUnmount);

    /// One was not understood.
    fn unreadable(&self, error: &RequestError);
}

/// Listens for requests, for ever; subscribes again by itself. Hears its own publications too.
pub async fn listen(link: Link, requests: Arc<dyn VolumeRequests>) {
    let mut messages = subscribe(&link, CHANNEL, WAITING_MAX);
    while let Some(message) = messages.recv().await {
        match receive(&message) {
            Ok(None) => {}
            Ok(Some(Request::Mount(asked))) => requests.mount(asked).await,
            Ok(Some(Request::Unmount(asked))) => requests.unmount(asked).await,
            Err(error) => {
                tracing::warn!(%error, "a request on the channel is not understood");
                requests.unreadable(&error);
            }
        }
    }
}
