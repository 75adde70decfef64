//! What systemd is told; without systemd nothing happens.
//!
//! Source: sd_notify(3).

use std::time::Duration;

use sd_notify::NotifyState;

/// Connections are answered.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Settings are looked at again; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no clock for systemd"),
    }
}

/// Another process is the service now.
pub fn handed_to(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// Says again and again that the control plane turns, if systemd wants to hear it.
pub async fn watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut tick = tokio::time::interval((period / 2).max(Duration::from_millis(10)));
    loop {
        tick.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // Nobody may be listening; the server does not depend on it.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd does not listen");
    }
}
