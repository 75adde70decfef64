//! The keeper of mounts: what it is allowed, how it is started, and how it runs.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proxy_core::config::Document;
use proxy_mount::{Client, Policy};

use crate::cli::{KeeperArgs, Place};
use crate::failure::Failure;
use crate::load::{Loaded, load, problems};
use crate::settings::{Identity, VolumeSettings, look, volumes};

/// Which keeper the configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is started with the server, by root.
    Own,
    /// It runs on its own and listens there.
    At(PathBuf),
}

/// The way to the keeper.
#[derive(Debug)]
pub enum Keeper {
    /// One end of a pair of sockets.
    Pair(UnixStream),
    /// A socket with a name.
    At(PathBuf),
}

impl Keeper {
    /// Starts the keeper, goes on with that of the server before, or notes where it listens.
    pub fn find(
        wanted: Wanted,
        loaded: &Loaded,
        inherited: Option<UnixStream>,
    ) -> Result<Self, Failure> {
        match (wanted, inherited) {
            (Wanted::At(path), _) => Ok(Self::At(path)),
            // Root starts one with the configuration of today; others keep what they have.
            (Wanted::Own, Some(stream)) if !rustix::process::geteuid().is_root() => {
                Ok(Self::Pair(stream))
            }
            (Wanted::Own, _) => start(loaded).map(Self::Pair),
        }
    }

    /// The descriptor that a successor can go on with.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Pair(stream) => Some(stream.as_fd()),
            Self::At(_) => None,
        }
    }

    /// The client of the keeper, of which there is to be one; called inside a runtime.
    pub fn client(self) -> std::io::Result<Client> {
        match self {
            Self::Pair(stream) => Client::over(stream),
            Self::At(path) => Ok(Client::to(path)),
        }
    }
}

/// `None` when nothing is to be mounted, and this process may limit projects itself.
pub fn wanted(loaded: &Loaded, identity: Option<&Identity>) -> Option<Wanted> {
    let document = &loaded.document;
    let socket = document.text("server.helper.socket", &[]);
    let is_root = rustix::process::geteuid().is_root();
    let drops_rights = is_root && identity.is_some_and(|identity| identity.uid != 0);
    let limits = !limited(loaded).is_empty() && (drops_rights || (!is_root && socket.is_some()));
    if !document.flag("storage-proxy.use-watcher") && !limits {
        return None;
    }
    Some(socket.map_or(Wanted::Own, |path| Wanted::At(loaded.path(path))))
}

/// Paths of the volumes with project quotas.
fn limited(loaded: &Loaded) -> Vec<PathBuf> {
    let of_projects = |volume: &VolumeSettings| volume.backend == "xfs";
    let volumes = volumes(loaded).into_iter().filter(of_projects);
    volumes.map(|volume| volume.path).collect()
}

/// What the configuration allows the keeper.
fn policy(loaded: &Loaded, identity: Option<&Identity>) -> Policy {
    let document: &Document = &loaded.document;
    let further = document.texts("server.helper.roots");
    let of_volumes = volumes(loaded).into_iter().map(|volume| volume.path);
    let further = further.into_iter().map(|path| loaded.path(path));
    let own = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let mounts = document.flag("storage-proxy.use-watcher");
    Policy {
        // Without these, no job but limits is anywhere.
        roots: of_volumes.chain(further).filter(|_| mounts).collect(),
        limited: limited(loaded),
        fs_types: document.texts("server.helper.fs-types"),
        options: document.texts("server.helper.mount-options"),
        sources: document.texts("server.helper.sources"),
        fstab: loaded.path(
            document
                .text("server.helper.fstab", &[])
                .unwrap_or_default(),
        ),
        owner: identity.map_or(own, |identity| (identity.uid, identity.gid)),
    }
}

/// Starts the keeper as a process of its own, as who we are now. Its end is our end of a pair of
/// sockets: it goes when nobody holds that any more.
fn start(loaded: &Loaded) -> Result<UnixStream, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("start the keeper: {error}"));
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(
            "storage-proxy.use-watcher needs a start as root, or server.helper.socket for a \
             keeper of mounts that root has started",
        ));
    }
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("privileged-helper");
    if let Some(file) = &loaded.file {
        command.arg("--config").arg(file);
    }
    command.arg("--data-dir").arg(&loaded.data_dir);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(std::env::var_os("HOME").map(|home| ("HOME", home)))
        .current_dir("/")
        // Interrupts of a terminal are for the server; the keeper ends with it.
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null());
    let child = command.spawn().map_err(failed)?;
    tracing::info!(pid = child.id(), "keeper of mounts started");
    Ok(ours)
}

/// The command `privileged-helper`.
pub fn run(place: &Place, args: &KeeperArgs) -> Result<(), Failure> {
    let loaded = load(place, Vec::new())?;
    let outside = look(&loaded).map_err(|issues| problems(loaded.file.as_deref(), &issues))?;
    // Lines of few words, to where the server's own go.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    if let Some(file) = &loaded.file {
        refuse_foreign(file)?;
    }
    let policy = policy(&loaded, outside.identity.as_ref());
    let ended = match &args.socket {
        Some(path) => proxy_mount::service::listen(path, &policy),
        None => {
            let stream = std::io::stdin().as_fd().try_clone_to_owned();
            stream.and_then(|stream| proxy_mount::service::serve(stream.into(), &policy))
        }
    };
    ended.map_err(|error| Failure::new(format!("keeper of mounts: {error}")))
}

/// Who can write the configuration can mount anything: that must be root alone.
fn refuse_foreign(file: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(file).map_err(|error| Failure::at("look at", file, &error))?;
    if rustix::process::geteuid().is_root() && (found.uid() != 0 || found.mode() & 0o022 != 0) {
        return Err(Failure::new(format!(
            "{} can be changed by others than root, who could then mount anything: chown root \
             and chmod go-w it",
            file.display()
        )));
    }
    Ok(())
}
