//! One server takes over from another on the same data, without a moment in which nobody listens.
//!
//! The listening sockets themselves are passed on, as descriptors over a local socket. Two servers
//! with sockets of their own on one port (SO_REUSEPORT) would not do: the kernel deals connections
//! out to sockets, and those that wait on one are reset when it closes.
//!
//! ```text
//! new: listeners          old: goes on serving, passes the descriptors
//! new: makes itself ready
//! new: state              old: stops accepting, ends uploads with all on record, closes the store
//! new: opens the store    old: lets running downloads end, and ends itself
//! ```
//!
//! Laws
//! - Connections made in between wait in the queue of a socket that both hold.
//! - Only root and the server's own user are listened to.
//! - Until it is asked for its state, the old server has given up nothing.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt::socket_peercred,
};
use serde::{Deserialize, Serialize};

use crate::datadir::DataDir;
use crate::failure::Failure;
use crate::listen::Listeners;
use crate::settings::Addresses;

/// The socket in the data directory.
const NAME: &str = "control.sock";
/// Most descriptors of one message; the kernel allows 253.
const DESCRIPTORS_MAX: usize = 250;
/// How long each side waits for a word of the other.
const PATIENCE: Duration = Duration::from_secs(30);
/// The word by which the new server asks for the state.
const STATE: &[u8; 5] = b"state";
/// The word by which the old one says that it is free.
const FREE: &[u8; 4] = b"free";

/// What comes with the descriptors, in their order.
#[derive(Debug, Serialize, Deserialize)]
struct Parcel {
    version: String,
    pid: u32,
    /// Sockets of the client port; then one of the manager port, one of the internal port.
    client: usize,
    /// Whether the last one leads to the keeper of mounts.
    keeper: bool,
}

/// Copies of what would be passed on.
#[derive(Debug)]
pub struct Spare {
    listeners: Vec<OwnedFd>,
    client: usize,
    keeper: Option<OwnedFd>,
}

impl Spare {
    /// Copies the descriptors.
    pub fn of(listeners: &Listeners, keeper: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let others = [&listeners.manager, &listeners.internal];
        let all = listeners.client.iter().chain(others);
        let copies = all.map(|one| one.as_fd().try_clone_to_owned());
        Ok(Self {
            listeners: copies.collect::<io::Result<_>>()?,
            client: listeners.client.len(),
            keeper: keeper.map(|fd| fd.try_clone_to_owned()).transpose()?,
        })
    }
}

/// A successor has asked for the state. Dropping it says that it is free.
#[derive(Debug)]
pub struct Asked {
    /// Its process, if the system tells.
    pub pid: Option<u32>,
    done: mpsc::Sender<()>,
}

impl Asked {
    /// Tells the successor that store and lock are free.
    pub fn free(self) {
        // A successor that is gone needs no answer.
        let _ = self.done.send(());
    }
}

/// Waits for successors, on a thread of its own.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    spare: Arc<Mutex<Option<Spare>>>,
}

impl Control {
    /// Listens in the data directory, and says on the channel when the state is asked for. A server
    /// that cannot, because the path is too long for a socket, serves all the same.
    pub fn start(
        data: &DataDir,
        spare: Spare,
        asked: tokio::sync::mpsc::Sender<Asked>,
    ) -> Result<Self, Failure> {
        let path = data.join(NAME);
        // One that was left behind by a process that was killed; the lock says that it is dead.
        let _ = std::fs::remove_file(&path);
        let bound = UnixListener::bind(&path).and_then(|listener| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        });
        let listener = match bound {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "can not be replaced while it runs");
                return Ok(Self {
                    path,
                    spare: Arc::default(),
                });
            }
        };
        let spare = Arc::new(Mutex::new(Some(spare)));
        let offered = Arc::clone(&spare);
        std::thread::Builder::new()
            .name("handover".into())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    match attend(stream, &offered, &asked) {
                        Ok(true) => return,
                        Ok(false) => {}
                        Err(error) => tracing::warn!(%error, "a successor that did not take over"),
                    }
                }
            })
            .map_err(|error| Failure::new(format!("start threads: {error}")))?;
        Ok(Self { path, spare })
    }

    /// Nothing is passed on any more: the server is ending by itself.
    pub fn withdraw(&self) {
        *self.spare.lock() = None;
        // A successor makes its own in any case.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Talks to one successor. `true`: it has the state now.
fn attend(
    mut stream: UnixStream,
    spare: &Mutex<Option<Spare>>,
    asked: &tokio::sync::mpsc::Sender<Asked>,
) -> io::Result<bool> {
    let peer = socket_peercred(&stream)?;
    let own = rustix::process::geteuid();
    if !peer.uid.is_root() && peer.uid != own {
        return Err(io::Error::other(format!(
            "user {} may not take over",
            peer.uid.as_raw()
        )));
    }
    stream.set_read_timeout(Some(PATIENCE * 4))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    {
        let spare = spare.lock();
        let Some(spare) = spare.as_ref() else {
            return Ok(false);
        };
        send(&stream, spare)?;
    }
    let mut word = [0; STATE.len()];
    stream.read_exact(&mut word)?;
    if word != *STATE {
        return Err(io::Error::other("not a word of a successor"));
    }
    let (done, free) = mpsc::channel();
    let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).ok();
    if asked.blocking_send(Asked { pid, done }).is_err() {
        return Ok(false);
    }
    // The main path has its own bounds; an end without a word means that the process ends.
    if free.recv().is_err() {
        return Ok(true);
    }
    stream.write_all(FREE)?;
    Ok(true)
}

fn send(stream: &UnixStream, spare: &Spare) -> io::Result<()> {
    let parcel = Parcel {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        client: spare.client,
        keeper: spare.keeper.is_some(),
    };
    let mut text = serde_json::to_vec(&parcel)?;
    text.push(b'\n');
    let all = spare.listeners.iter().chain(spare.keeper.as_ref());
    let descriptors: Vec<BorrowedFd<'_>> = all.map(|fd| fd.as_fd()).collect();
    if DESCRIPTORS_MAX < descriptors.len() {
        return Err(io::Error::other(
            "more listeners than one message can pass on",
        ));
    }
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for the descriptors"));
    }
    let sent = sendmsg(
        stream,
        &[IoSlice::new(&text)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    // A text this short goes as a whole into an empty socket.
    if sent == text.len() {
        Ok(())
    } else {
        Err(io::Error::other("the parcel was cut"))
    }
}

/// What a successor got.
#[derive(Debug)]
pub struct Inheritance {
    /// The sockets, which listen already.
    pub listeners: Listeners,
    /// The way to the keeper of mounts.
    pub keeper: Option<UnixStream>,
    stream: UnixStream,
}

impl Inheritance {
    /// Asks the running server of a data directory; `None` when there is none.
    ///
    /// # Errors
    /// It is there, and does not pass anything on.
    pub fn ask(data: &DataDir) -> Result<Option<Self>, Failure> {
        let path = data.join(NAME);
        let stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Failure::at("connect to", &path, &error)),
        };
        Self::receive(stream)
            .map(Some)
            .map_err(|error| Failure::at("take over from", &path, &error))
    }

    fn receive(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = vec![0; 4096];
        let mut space =
            vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            &stream,
            &mut [IoSliceMut::new(&mut text)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let parcel: Parcel = serde_json::from_slice(&text[..got.bytes])?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        let wanted = parcel.client + 2 + usize::from(parcel.keeper);
        if parcel.client == 0 || descriptors.len() != wanted {
            return Err(io::Error::other("descriptors are missing"));
        }
        tracing::info!(from = parcel.pid, version = parcel.version, "taking over");
        let keeper = parcel.keeper.then(|| descriptors.pop()).flatten();
        let mut sockets = descriptors.into_iter().map(TcpListener::from);
        let client: Vec<TcpListener> = sockets.by_ref().take(parcel.client).collect();
        let mut one = || {
            sockets
                .next()
                .ok_or_else(|| io::Error::other("a port is missing"))
        };
        let (manager, internal) = (one()?, one()?);
        let bound = Addresses {
            client: client[0].local_addr()?,
            manager: manager.local_addr()?,
            internal: internal.local_addr()?,
        };
        Ok(Self {
            listeners: Listeners {
                client,
                manager,
                internal,
                bound,
            },
            keeper: keeper.map(UnixStream::from),
            stream,
        })
    }

    /// The last word before the state changes hands.
    pub fn into_claim(self) -> (Listeners, Claim) {
        (self.listeners, Claim(self.stream))
    }
}

/// The right to ask for the state, once.
#[derive(Debug)]
pub struct Claim(UnixStream);

impl Claim {
    /// Asks for the state and waits until the old server has let go of it. Blocks.
    ///
    /// # Errors
    /// It did not, in time.
    pub fn take(mut self) -> Result<(), Failure> {
        let mut word = [0; FREE.len()];
        let asked = self
            .0
            .write_all(STATE)
            .and_then(|()| self.0.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| self.0.read_exact(&mut word));
        match asked {
            Ok(()) if word == *FREE => Ok(()),
            Ok(()) => Err(Failure::new("the old server says something strange")),
            // It ended instead of answering: what it held is free.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(Failure::new(format!(
                "the old server does not let go of its state: {error}"
            ))),
        }
    }
}

/// The arguments of this process for its successor.
pub fn successor_arguments() -> Vec<std::ffi::OsString> {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if !arguments.iter().any(|one| one == "--replace") {
        arguments.push("--replace".into());
    }
    arguments
}

/// Starts the program that stands at `program` now as the successor of this process.
pub fn start_successor(program: &Path) {
    let started = std::process::Command::new(program)
        .args(successor_arguments())
        // Its watchdog is its own affair: systemd names this process there.
        .env_remove("WATCHDOG_PID")
        .stdin(std::process::Stdio::null())
        .spawn();
    match started {
        Ok(mut child) => {
            tracing::info!(pid = child.id(), "successor started");
            // Only to hear of one that does not make it; after a take-over we are gone first.
            std::thread::spawn(move || match child.wait() {
                Ok(status) => tracing::error!(%status, "the successor has ended"),
                Err(error) => tracing::error!(%error, "the successor is lost"),
            });
        }
        Err(error) => tracing::error!(%error, "can not start a successor"),
    }
}
