//! The privileged side: reads jobs, does them, answers.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::fs::{Gid, Uid};
use rustix::net::sockopt::socket_peercred;

use crate::job::{self, JobError};
use crate::policy::Policy;
use crate::protocol::{Answer, Request, Task, read_frame, write_frame};

/// Jobs at once; a job that hangs keeps its place.
const JOBS_MAX: usize = 16;
/// Longest time limit that is believed.
const LIMIT_MAX: Duration = Duration::from_secs(3600);
/// Clients of a socket with a name: a server, and its successor while it takes over.
const CLIENTS_MAX: usize = 2;

/// Paths that something is done at.
#[derive(Debug, Default)]
struct Busy(Mutex<HashSet<PathBuf>>);

impl Busy {
    fn take(self: &Arc<Self>, path: &Path) -> Option<Taken> {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if JOBS_MAX <= paths.len() || !paths.insert(path.to_owned()) {
            return None;
        }
        Some(Taken(Arc::clone(self), path.to_owned()))
    }
}

struct Taken(Arc<Busy>, PathBuf);

impl Drop for Taken {
    fn drop(&mut self) {
        let mut paths = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        paths.remove(&self.1);
    }
}

/// Does jobs for one client until it goes away.
///
/// # Errors
/// The stream's, and frames that are none.
pub fn serve(stream: UnixStream, policy: &Policy) -> io::Result<()> {
    talk(stream, policy, &Arc::default())
}

/// Does jobs for the clients of a socket with a name, for ever. Only root and the service's user
/// are let in.
///
/// # Errors
/// The socket cannot be made.
pub fn listen(path: &Path, policy: &Policy) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let (uid, gid) = policy.owner;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chown(path, owner.0, owner.1)?;
    let busy = Arc::new(Busy::default());
    let clients = Arc::new(());
    loop {
        let (stream, _) = listener.accept()?;
        let peer = socket_peercred(&stream)?.uid.as_raw();
        if peer != 0 && peer != uid {
            tracing::warn!(peer, "somebody else asks the keeper of mounts, turned away");
            continue;
        }
        if CLIENTS_MAX < Arc::strong_count(&clients) {
            tracing::warn!("too many clients, turned away");
            continue;
        }
        let (policy, busy, place) = (policy.clone(), Arc::clone(&busy), Arc::clone(&clients));
        std::thread::spawn(move || {
            if let Err(error) = talk(stream, &policy, &busy) {
                tracing::warn!(%error, "a client of the keeper of mounts");
            }
            drop(place);
        });
    }
}

fn talk(mut stream: UnixStream, policy: &Policy, busy: &Arc<Busy>) -> io::Result<()> {
    let writer = Arc::new(Mutex::new(stream.try_clone()?));
    while let Some(frame) = read_frame(&mut stream)? {
        let request: Request = match serde_json::from_slice(&frame) {
            Ok(request) => request,
            Err(error) => {
                // Whoever asks for something unknown still wants an answer to its number.
                let asked: serde_json::Value = serde_json::from_slice(&frame)?;
                let id = asked.get("id").and_then(serde_json::Value::as_u64);
                let text = format!("not a job: {error}");
                answer(&writer, id.unwrap_or(0), Err(JobError::Failed(text)));
                continue;
            }
        };
        let key = key(&request);
        let Some(taken) = busy.take(&key) else {
            let text = format!("{} (another job)", key.display());
            answer(&writer, request.id, Err(JobError::Busy(text)));
            continue;
        };
        let (policy, writer) = (policy.clone(), Arc::clone(&writer));
        std::thread::spawn(move || attend(&policy, request, &writer, taken));
    }
    Ok(())
}

/// What may not be done twice at once.
fn key(request: &Request) -> PathBuf {
    match &request.task {
        Task::Ping => PathBuf::from("ping"),
        // In nobody's way.
        Task::ProjectQuota { .. }
        | Task::NextProjectQuota { .. }
        | Task::SetProjectLimit { .. } => PathBuf::from(format!("quota {}", request.id)),
        Task::Mount { target, .. }
        | Task::Umount { target, .. }
        | Task::Chown { target, .. }
        | Task::DeletePath { target } => target.clone(),
    }
}

/// Runs one job and answers in time, whatever becomes of the job.
fn attend(policy: &Policy, request: Request, writer: &Arc<Mutex<UnixStream>>, taken: Taken) {
    let limit = Duration::from_millis(request.time_limit_ms).min(LIMIT_MAX);
    let (tell, told) = mpsc::channel();
    let (policy, id) = (policy.clone(), request.id);
    std::thread::spawn(move || {
        let done = job::run(&policy, &request.task, limit);
        match &request.task {
            Task::ProjectQuota { .. } | Task::NextProjectQuota { .. } if done.is_ok() => {
                tracing::debug!(task = ?request.task, ?done, "job of the keeper of mounts");
            }
            task => tracing::info!(?task, ?done, "job of the keeper of mounts"),
        }
        // The path stays taken until here, also when the answer was that it takes too long.
        drop(taken);
        let _ = tell.send(done);
    });
    // A little more, so that a job can say itself that its time is over.
    let done = told
        .recv_timeout(limit + Duration::from_millis(200))
        .unwrap_or_else(|_| {
            let text = format!("no end within {} s, it goes on", limit.as_secs_f64());
            Err(JobError::Failed(text))
        });
    answer(writer, id, done);
}

fn answer(writer: &Arc<Mutex<UnixStream>>, id: u64, done: Result<String, JobError>) {
    let busy = matches!(done, Err(JobError::Busy(_)));
    let (done, text) = match done {
        Ok(text) => (true, text),
        Err(error) => (false, error.to_string()),
    };
    let answer = Answer {
        id,
        done,
        text,
        busy,
    };
    let mut stream = writer.lock().unwrap_or_else(PoisonError::into_inner);
    // A client that is gone wants no answer.
    let _ = write_frame(&mut *stream, &answer);
}
