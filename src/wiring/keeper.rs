//! The control plane's end of the bridge: keeps upload sessions for the data plane.
//!
//! A granted session is kept by a task of its own. It ends, and gives the lease back, when the
//! data plane drops its end of the channel, whatever became of the connection.

use std::sync::Arc;

use proxy_core::extent::{Extent, Extents, Recorded, Want};
use proxy_core::token::UploadClaims;
use proxy_core::units::Offset;
use proxy_server::bridge::{self, Call, Claimed, Grant, Known, Refusal, Report};
use proxy_state::{
    Change, Claim, ClaimError, ClaimOutcome, Holder, LeaseError, Session, SessionState, Sessions,
    StateError,
};
use tokio::sync::{mpsc, oneshot, watch};

/// Reports of one session that may wait; its holder sends one at a time.
const REPORTS_MAX: usize = 4;

/// Answers calls until the data plane is gone. Once `ending` says so, new calls are refused and
/// whoever holds a session is asked to let go of it, with all that it received on record.
pub async fn serve(
    mut calls: mpsc::Receiver<Call>,
    sessions: Arc<dyn Sessions>,
    ending: watch::Receiver<bool>,
) {
    while let Some(call) = calls.recv().await {
        let sessions = Arc::clone(&sessions);
        match call {
            Call::Claim { reply, .. } if *ending.borrow() => {
                // Clients come again, to whoever is there then.
                let _ = reply.send(Err(Refusal::Closed));
            }
            Call::Look { session, reply } => {
                tokio::spawn(async move {
                    let found = sessions.look(session).await;
                    let known = found.map(|session| session.as_ref().map(known));
                    // A caller that is gone wants no answer.
                    let _ = reply.send(known.map_err(failed));
                });
            }
            Call::Claim {
                upload,
                staged,
                want,
                reply,
            } => {
                let ending = ending.clone();
                tokio::spawn(claim(sessions, *upload, staged, want, ending, reply));
            }
        }
    }
}

fn known(session: &Session) -> Known {
    let finished = match &session.state {
        SessionState::Open => None,
        SessionState::Finished { last_from, target } => Some((target.clone(), *last_from)),
    };
    let staged = (session.ino, session.dev);
    Known {
        durable: session.durable(),
        size: session.size,
        staged,
        finished,
        partials: session.pieces.all.clone(),
        metadata: session.metadata.clone(),
    }
}

async fn claim(
    sessions: Arc<dyn Sessions>,
    upload: UploadClaims,
    staged: (u64, u64),
    want: Want,
    ending: watch::Receiver<bool>,
    reply: oneshot::Sender<Result<Claimed, Refusal>>,
) {
    let session = Session {
        id: upload.session,
        volume: upload.volume,
        vfid: upload.vfid,
        relpath: upload.relpath,
        size: u64::try_from(upload.size).unwrap_or(0),
        offset: Offset::ZERO,
        ranges: Extents::default(),
        pieces: Default::default(),
        metadata: None,
        ino: staged.0,
        dev: staged.1,
        exp: upload.exp,
        state: SessionState::Open,
    };
    let outcome = sessions.claim(Claim { session, want }).await;
    let granted = match outcome {
        Ok(ClaimOutcome::Granted(granted)) => granted,
        Ok(ClaimOutcome::Finished(session)) => {
            let _ = reply.send(Ok(Claimed::Finished(known(&session))));
            return;
        }
        Err(error) => {
            let _ = reply.send(Err(refused(error)));
            return;
        }
    };
    let (reports, incoming) = mpsc::channel(REPORTS_MAX);
    let (revoke, revoked) = oneshot::channel();
    let grant = Grant {
        known: known(&granted.session),
        revoked,
        reports,
    };
    // If the caller is gone, the grant goes down with the answer and the keeper ends at once.
    let _ = reply.send(Ok(Claimed::Granted(grant)));
    keep(sessions, *granted, want, incoming, (revoke, ending)).await;
}

fn refused(error: ClaimError) -> Refusal {
    match error {
        ClaimError::Held => Refusal::Held,
        ClaimError::Superseded => Refusal::Lost,
        ClaimError::OtherUpload => Refusal::NotFound,
        ClaimError::Store(error) => failed(error),
        other => Refusal::Store(other.to_string()),
    }
}

fn failed(error: StateError) -> Refusal {
    match error {
        StateError::Away => Refusal::Away,
        error => Refusal::Store(error.to_string()),
    }
}

/// Serves the reports of one holder; passes a revocation on.
async fn keep(
    sessions: Arc<dyn Sessions>,
    granted: proxy_state::Grant,
    want: Want,
    mut incoming: mpsc::Receiver<Report>,
    (revoke, mut ending): (oneshot::Sender<Want>, watch::Receiver<bool>),
) {
    let proxy_state::Grant {
        holder,
        session,
        mut revoked,
        guard,
    } = granted;
    let mut revoke = Some(revoke);
    loop {
        let report = tokio::select! {
            report = incoming.recv() => report,
            signal = &mut revoked, if revoke.is_some() => {
                if let (Ok(signal), Some(revoke)) = (signal, revoke.take()) {
                    let _ = revoke.send(signal.newcomer);
                }
                continue;
            }
            // A sender that is gone means the end as well.
            _ = ending.wait_for(|ending| *ending), if revoke.is_some() => {
                if let Some(revoke) = revoke.take() {
                    // Nobody else brings any of its bytes: all that came is kept.
                    let _ = revoke.send(Want::nothing());
                }
                continue;
            }
        };
        let Some(report) = report else { break };
        match report {
            Report::Record { extent, reply } => {
                let recorded = record(&*sessions, &session, holder, want, extent).await;
                let _ = reply.send(told(recorded));
            }
            Report::Change { change, reply } => {
                let changed = sessions
                    .change(session.id, holder, translated(change))
                    .await;
                let _ = reply.send(told(changed.map(|session| known(&session))));
            }
            Report::Secure { reply } => {
                let secured = sessions.secure(session.id).await;
                let secured = secured.map_err(failed);
                let _ = reply.send(secured);
            }
            Report::Finish {
                last_from,
                target,
                reply,
            } => {
                let done = sessions.finish(session.id, holder, last_from, target).await;
                let _ = reply.send(told(done));
            }
            Report::Abort { reply } => {
                let gone = sessions.abandon(session.id).await;
                let gone = gone.map_err(failed);
                let _ = reply.send(gone);
            }
        }
    }
    drop(guard);
}

fn translated(change: bridge::Change) -> Change {
    match change {
        bridge::Change::AddPartial { length } => Change::AddPartial { length },
        bridge::Change::AdvancePartial { number, to } => Change::AdvancePartial { number, to },
        bridge::Change::DropPartial { number } => Change::DropPartial { number },
        bridge::Change::Describe { metadata } => Change::Describe { metadata },
    }
}

/// A writer at the end moves the offset; a part is put where it belongs.
async fn record(
    sessions: &dyn Sessions,
    session: &Session,
    holder: Holder,
    want: Want,
    extent: Extent,
) -> Result<Recorded, LeaseError> {
    match want {
        Want::Append { .. } => {
            let to = Offset::new(extent.to);
            sessions.advance(session.id, holder, to).await
        }
        Want::Part(_) => sessions.record(session.id, holder, extent).await,
    }
}

fn told<T>(outcome: Result<T, LeaseError>) -> Result<T, Refusal> {
    outcome.map_err(|error| match error {
        LeaseError::Mixed => Refusal::Mixed,
        LeaseError::TooManyRanges { .. } => Refusal::TooManyRanges,
        LeaseError::Store(error) => failed(error),
        LeaseError::Unknown => Refusal::NotFound,
        _ => Refusal::Lost,
    })
}
