//! `serve`: from a configuration to a running server, and back.
//!
//! Order: configuration, logging, data directory with its lock and secrets, ports, another user
//! if asked for, threads. Whatever fails before the threads leaves nothing behind but the data
//! directory.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use proxy_core::config::Override;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Builder;

use crate::cli::{Place, ServeArgs};
use crate::datadir::{DataDir, Lock, Runtime, private_dir};
use crate::failure::Failure;
use crate::handover::{Claim, Inheritance};
use crate::listen::{Listeners, bind_all};
use crate::load::{Loaded, load, problems};
use crate::mounts::{self, Keeper};
use crate::settings::{Addresses, Identity, LOCAL_VOLUME, Settings, look};
use crate::{banner, logging, notify, output, privileges, shutdown, wiring};

/// Layout of folders on disk that a new volume has; the same file tells the original.
const LAYOUT: &str = "3\n";

/// How long after the drain the program waits for what does not let itself be drained.
const GRACE: std::time::Duration = std::time::Duration::from_secs(2);

/// Runs the server until it is told to stop.
pub fn run(place: &Place, args: &ServeArgs) -> Result<(), Failure> {
    let loaded = load(place, flags(args))?;
    let outside = look(&loaded).map_err(|issues| problems(loaded.file.as_deref(), &issues))?;
    let level = if args.debug {
        Some("debug")
    } else {
        args.log_level.as_deref()
    };
    logging::init(&loaded, level)?;
    remarks(&loaded, &outside.warnings);

    raise_descriptors();
    let data = DataDir::create(&loaded.data_dir)?;
    let inherited = if args.replace {
        Inheritance::ask(&data)?
    } else {
        None
    };
    // A successor gets the lock when the server before it lets go.
    let lock = match &inherited {
        Some(_) => None,
        None => Some(data.lock()?),
    };
    let secrets = data.secrets(&loaded.document)?;
    for secret in [&secrets.token, &secrets.manager] {
        logging::hide(&String::from_utf8_lossy(secret.as_bytes()));
    }
    let mut settings = Settings::new(&loaded, outside, secrets);
    let local = local_volume(&loaded, &data)?;
    let Ports {
        listeners,
        claim,
        keeper,
    } = ports(&loaded, &mut settings, inherited)?;
    let certificates = wiring::Certificates::read(&settings)?;
    let pid_file = PidFile::write(&settings)?;
    if let Some(identity) = &settings.identity {
        hand_over(identity, &settings, local.as_deref())?;
        privileges::become_user(identity)?;
    }
    if settings
        .volumes
        .iter()
        .any(|volume| volume.backend == "xfs")
    {
        privileges::heed_quotas();
    }
    let parts = wiring::Parts {
        settings,
        listeners,
        certificates,
        keeper,
        state: State {
            data: data.clone(),
            lock,
            claim,
        },
    };
    let ended = threads(&loaded, parts, &data);
    data.remove_runtime();
    drop(pid_file);
    ended
}

/// What was bound or inherited.
struct Ports {
    listeners: Listeners,
    claim: Option<Claim>,
    keeper: Option<Keeper>,
}

/// Binds the ports, or takes those of the server before, and finds the keeper of mounts.
fn ports(
    loaded: &Loaded,
    settings: &mut Settings,
    inherited: Option<Inheritance>,
) -> Result<Ports, Failure> {
    let wanted = mounts::wanted(loaded, settings.identity.as_ref());
    let Some(mut inherited) = inherited else {
        let listeners = bind_all(settings)?;
        let keeper = wanted.map(|wanted| Keeper::find(wanted, loaded, None));
        return Ok(Ports {
            listeners,
            claim: None,
            keeper: keeper.transpose()?,
        });
    };
    let keeper = wanted.map(|wanted| Keeper::find(wanted, loaded, inherited.keeper.take()));
    let (listeners, claim) = inherited.into_claim();
    let (asked, bound) = (&settings.addresses, &listeners.bound);
    let same = |asked: &SocketAddr, bound: &SocketAddr| asked.port() == 0 || asked == bound;
    let all = [
        (&asked.client, &bound.client),
        (&asked.manager, &bound.manager),
        (&asked.internal, &bound.internal),
    ];
    if let Some((asked, bound)) = all.into_iter().find(|(asked, bound)| !same(asked, bound)) {
        return Err(Failure::new(format!(
            "the configuration says {asked}, the server before listens on {bound}: ports change \
             with a restart, not with --replace"
        )));
    }
    // Each socket has a queue of its own, which somebody has to serve.
    settings.threads.data = listeners.client.len();
    Ok(Ports {
        listeners,
        claim: Some(claim),
        keeper: keeper.transpose()?,
    })
}

/// The data directory, to be locked when the server before has let go of it.
pub struct State {
    data: DataDir,
    lock: Option<Lock>,
    claim: Option<Claim>,
}

impl State {
    /// Makes the state this process's own. Blocks while the server before lets go.
    ///
    /// # Errors
    /// It does not, or somebody else has the directory.
    pub fn take(&mut self) -> Result<(), Failure> {
        if let Some(claim) = self.claim.take() {
            claim.take()?;
        }
        if self.lock.is_none() {
            self.lock = Some(self.data.lock()?);
        }
        Ok(())
    }

    /// Lets go of the lock.
    pub fn release(&mut self) {
        self.lock = None;
    }

    /// The directory.
    pub fn data(&self) -> &DataDir {
        &self.data
    }
}

/// Takes as many descriptors as the system grants: a connection in full flow needs four.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, current = limit.current, "can not raise the descriptor limit");
    }
}

fn flags(args: &ServeArgs) -> Vec<Override> {
    let flag = |name: &str, path: &str, value: &Option<String>| {
        value.as_ref().map(|text| Override::flag(path, text, name))
    };
    let mut flags = Vec::new();
    flags.extend(flag(
        "--client-addr",
        "api.client.service-addr",
        &args.client_addr,
    ));
    flags.extend(flag(
        "--manager-addr",
        "api.manager.service-addr",
        &args.manager_addr,
    ));
    flags.extend(flag(
        "--internal-addr",
        "api.manager.internal-addr",
        &args.internal_addr,
    ));
    flags
}

/// Says once what in the configuration deserves a look.
fn remarks(loaded: &Loaded, warnings: &[String]) {
    use proxy_core::config::NoteKind;
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    tracing::info!("Backend.AI Storage Proxy");
    tracing::info!(
        "Runtime: storage-proxy {} on {os} {arch}",
        proxy_core::VERSION
    );
    match &loaded.file {
        Some(file) => tracing::info!("configuration {}", file.display()),
        None => tracing::info!("no configuration file, built-in defaults apply"),
    }
    let notes = &loaded.document.notes;
    for note in notes {
        match note.kind {
            NoteKind::Warning => tracing::warn!("{note}"),
            NoteKind::Later | NoteKind::NoEffect => tracing::debug!("{note}"),
        }
    }
    let quiet = notes
        .iter()
        .filter(|note| note.kind != NoteKind::Warning)
        .count();
    if 0 < quiet {
        tracing::info!("{quiet} keys have no effect yet; storage-proxy config check lists them");
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// Makes the volume that nobody configured.
fn local_volume(loaded: &Loaded, data: &DataDir) -> Result<Option<PathBuf>, Failure> {
    if loaded.document.has_section("volume") {
        return Ok(None);
    }
    let path = data.join("volumes").join(LOCAL_VOLUME);
    private_dir(&path)?;
    let layout = path.join("version.txt");
    if !layout.exists() {
        fs::write(&layout, LAYOUT).map_err(|error| Failure::at("write", &layout, &error))?;
    }
    Ok(Some(path))
}

/// Gives what was made as root to the user who will run the server.
fn hand_over(
    identity: &Identity,
    settings: &Settings,
    local: Option<&Path>,
) -> Result<(), Failure> {
    let of_data = [
        "",
        "lock",
        "secrets",
        "secrets/token-secret",
        "secrets/manager-secret",
    ];
    let mut paths: Vec<PathBuf> = of_data.map(|name| settings.data_dir.join(name)).into();
    // Left by an earlier run as root, if at all.
    paths.push(settings.state_file.clone());
    if let Some(local) = local {
        paths.extend(local.ancestors().take(2).map(Path::to_owned));
        paths.push(local.join("version.txt"));
    }
    for path in paths.iter().filter(|path| path.exists()) {
        privileges::hand_over(identity, path)?;
    }
    Ok(())
}

/// Starts the control plane's threads, the planes on them, and waits for the end.
fn threads(loaded: &Loaded, parts: wiring::Parts, data: &DataDir) -> Result<(), Failure> {
    let settings = parts.settings.clone();
    let runtime = Builder::new_multi_thread()
        .worker_threads(settings.threads.control)
        .max_blocking_threads(settings.threads.blocking_max)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("start threads: {error}")))?;
    let drain = settings.drain_timeout;
    let ended = runtime.block_on(async {
        let shipping = logging::start(loaded)?;
        let shutdown = shutdown::on_signals()?;
        let word = word(&settings, &parts.listeners.bound);
        let banner = banner::text(loaded, &settings, &word);
        let node_id = settings.node_id.clone();
        let status = format!("clients at {}", word.client);
        let ready = || {
            data.write_runtime(&word)?;
            tracing::info!("Node ID: {node_id}");
            tracing::info!("Started the storage-proxy service.");
            output::text(&banner);
            notify::ready(&status);
            Ok(())
        };
        let mut overdue = shutdown.clone();
        let running = wiring::run(parts, ready, shutdown);
        let ended = tokio::select! {
            ended = running => ended,
            () = async {
                overdue.requested().await;
                tokio::time::sleep(drain + GRACE).await;
            } => {
                tracing::warn!("some transfers did not end in {} s, cut", drain.as_secs());
                Ok(())
            }
        };
        if ended.is_ok() {
            tracing::info!("exit.");
        }
        shipping.end().await;
        ended
    });
    // Threads that wait for a hanging mount must not keep the process.
    runtime.shutdown_background();
    ended
}

/// What client commands must know.
fn word(settings: &Settings, bound: &Addresses) -> Runtime {
    let url = |tls: bool, at: &std::net::SocketAddr| {
        format!("{}://{at}", if tls { "https" } else { "http" })
    };
    Runtime {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        client: url(settings.client_tls.is_some(), &bound.client),
        manager: url(settings.manager_tls.is_some(), &bound.manager),
        internal: url(false, &bound.internal),
    }
}

/// A written process id, taken back at the end.
struct PidFile(Option<PathBuf>);

impl PidFile {
    fn write(settings: &Settings) -> Result<Self, Failure> {
        let Some(path) = &settings.pid_file else {
            return Ok(Self(None));
        };
        fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|error| Failure::at("write", path, &error))?;
        Ok(Self(Some(path.clone())))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A successor has written its own number.
        let own = format!("{}\n", std::process::id());
        let is_own = |path: &&PathBuf| {
            Path::new(path).is_file() && fs::read_to_string(path).is_ok_and(|text| text == own)
        };
        if let Some(path) = self.0.as_ref().filter(is_own) {
            // Another user may own the directory by now; a stale number does no harm.
            let _ = fs::remove_file(path);
        }
    }
}
