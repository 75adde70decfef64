//! Signals: the first drains, the second ends.

use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;

/// Tells that the server is to stop taking connections, finish what runs and return.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Waits until a drain is asked for. Returns at once when it was, any number of times.
    pub async fn requested(&mut self) {
        // The sender lives as long as the signal task; if that is gone, draining is right.
        let _ = self.0.wait_for(|asked| *asked).await;
    }
}

/// Signals that do not end anything.
#[derive(Debug)]
pub struct Wishes {
    reload: Signal,
    replace: Signal,
}

/// What is wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGHUP: look for new certificates and mounts.
    Reload,
    /// SIGUSR2: start the program anew and hand over to it.
    Replace,
}

impl Wishes {
    /// Listens for SIGHUP and SIGUSR2; must be called inside the runtime.
    ///
    /// # Errors
    /// The system refuses signal handlers.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind: SignalKind| {
            signal(kind).map_err(|error| Failure::new(format!("listen for signals: {error}")))
        };
        Ok(Self {
            reload: listen(SignalKind::hangup())?,
            replace: listen(SignalKind::user_defined2())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.reload.recv() => Wish::Reload,
            _ = self.replace.recv() => Wish::Replace,
        }
    }
}

/// Listens for SIGTERM and SIGINT; must be called inside the runtime.
///
/// # Errors
/// The system refuses signal handlers.
pub fn on_signals() -> Result<Shutdown, Failure> {
    let listen = |kind: SignalKind| {
        signal(kind).map_err(|error| Failure::new(format!("listen for signals: {error}")))
    };
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let (ask, asked) = watch::channel(false);
    tokio::spawn(async move {
        next(&mut terminate, &mut interrupt).await;
        crate::notify::stopping();
        tracing::info!("Shutting down... (a second signal ends at once)");
        // Nobody left to ask means that the server is on its way out already.
        let _ = ask.send(true);
        let number = next(&mut terminate, &mut interrupt).await;
        tracing::warn!("second signal: ending without waiting for running transfers");
        process::exit(128 + number);
    });
    Ok(Shutdown(asked))
}

/// The number of the next signal.
async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}
