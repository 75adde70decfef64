//! nginx: static files by sendfile, uploads by WebDAV PUT.
//!
//! Set up as its documentation recommends for big files and many connections:
//! one worker per core, bound to it; `sendfile` with `tcp_nopush`; no access log; descriptors and
//! sizes of open files cached for the whole run; connections that are never closed after a number
//! of requests; PUT bodies buffered on the file system of their target, so that they arrive there
//! by rename. `nginx-aio` is the same with `aio threads`, so that a cold file does not stop a
//! worker. PUT does not sync: nginx has no option for it.
//!
//! Source: nginx.org, core, http core, dav, ssl and v2 modules.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, getrlimit};

use crate::call::{Call, Exchange};
use crate::fixture::{FileId, Fixture};
use crate::peer::{Peer, Reason, Running, Start, Upload};
use crate::peers::ability::Abilities;
use crate::peers::daemon::{Daemon, free_address};
use crate::peers::setup;
use crate::peers::webdav;
use crate::workload::{ArchiveKind, Workload};

/// Connections of one worker, where the descriptors allow: 20,000 clients and their files.
const CONNECTIONS: u64 = 65_536;

/// The peer.
#[derive(Clone, Debug)]
pub struct Nginx {
    /// Where it is unpacked when the system has none.
    dir: PathBuf,
    /// Reads on a pool of threads.
    aio: bool,
}

const NO_ARCHIVES: &str = "it makes no archives";
const ABLE: Abilities = Abilities {
    get: Ok(()),
    put_whole: Ok(()),
    put_chunks: Err("WebDAV PUT has no resumable uploads"),
    put_parts: Err("WebDAV PUT has no parts"),
    zip: Err(NO_ARCHIVES),
    tar: Err(NO_ARCHIVES),
    tls: Ok(()),
    h2_plain: Ok(()),
    h2_tls: Ok(()),
};

impl Nginx {
    /// With `sendfile` in the worker, or with `aio threads`.
    #[must_use]
    pub fn new(home: &Path, aio: bool) -> Self {
        Self {
            dir: home.join("nginx"),
            aio,
        }
    }

    fn program(&self) -> Result<PathBuf, Reason> {
        let own = self.dir.join("usr/sbin/nginx");
        setup::find("nginx")
            .or_else(|| own.is_file().then_some(own))
            .ok_or_else(|| Reason::new("not installed: storage-bench peers install nginx"))
    }

    fn command(&self) -> Result<Command, Reason> {
        let program = self.program()?;
        let mut command = Command::new(&program);
        if program.starts_with(&self.dir) {
            command.env("LD_LIBRARY_PATH", setup::library_path(&self.dir));
        }
        Ok(command)
    }
}

impl Peer for Nginx {
    fn name(&self) -> &'static str {
        if self.aio { "nginx-aio" } else { "nginx" }
    }

    fn available(&self) -> Result<String, Reason> {
        let output = self.command()?.arg("-V").output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let version = text.lines().next().and_then(|l| l.split_once("nginx/"));
        let (_, version) = version.ok_or_else(|| Reason(format!("nginx -V: {text}")))?;
        for module in [
            "http_dav_module",
            "http_v2_module",
            "http_ssl_module",
            "threads",
        ] {
            if !text.contains(module) {
                return Err(Reason(format!(
                    "nginx {version} was built without {module}"
                )));
            }
        }
        Ok(format!("nginx {version}"))
    }

    fn install(&self, log: &mut dyn std::io::Write) -> Result<(), Reason> {
        if self.program().is_err() {
            setup::emptied(&self.dir)?;
            setup::unpack_debian(log, &self.dir, &["nginx"])?;
        }
        writeln!(log, "   {}", self.available()?)?;
        Ok(())
    }

    fn supports(&self, workload: &Workload) -> Result<(), Reason> {
        ABLE.check(workload)
    }

    fn start(&self, fixture: &Fixture, start: &Start) -> Result<Box<dyn Running>, Reason> {
        let address = free_address()?;
        let bodies = Bodies::beside(fixture, &start.scratch)?;
        let config = start.scratch.join("nginx.conf");
        let text = configuration(fixture, start, address, &bodies.dir, self.aio);
        std::fs::write(&config, text)?;
        let mut command = self.command()?;
        command.arg("-c").arg(&config).arg("-p").arg(&start.scratch);
        command.args(["-e", "stderr"]);
        let log = start.scratch.join("nginx.log");
        let mut daemon = Daemon::start(&mut command, &start.cores, &log)?;
        daemon.until_listening(address)?;
        Ok(Box::new(Server {
            daemon,
            address,
            _bodies: bodies,
        }))
    }
}

/// Where bodies of PUT wait: on the file system of the fixture, whatever the scratch directory is
/// on.
#[derive(Debug)]
struct Bodies {
    dir: PathBuf,
    removed: bool,
}

impl Bodies {
    fn beside(fixture: &Fixture, scratch: &Path) -> Result<Self, Reason> {
        let device = |path: &Path| std::fs::metadata(path).map(|m| m.dev());
        let same = device(&fixture.root)? == device(scratch)?;
        let dir = if same {
            scratch.join("bodies")
        } else {
            fixture.root.join(".nginx-bodies")
        };
        std::fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            removed: !same,
        })
    }
}

impl Drop for Bodies {
    fn drop(&mut self) {
        if self.removed {
            // Our own directory; what stays in it is seen by whoever removes the fixture.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn configuration(
    fixture: &Fixture,
    start: &Start,
    address: SocketAddr,
    bodies: &Path,
    aio: bool,
) -> String {
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20);
    let connections = CONNECTIONS.min(files / 2);
    let scratch = start.scratch.display();
    let mut text = String::from("daemon off;\n");
    if rustix::process::geteuid().is_root() {
        // Workers would become `nobody` and could not write the folder.
        text.push_str("user root;\n");
    }
    let listen = listen(start, address);
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "worker_processes {};\nworker_cpu_affinity{};\nworker_rlimit_nofile {files};\n\
         pid {scratch}/nginx.pid;\nerror_log stderr warn;\n\
         events {{ use epoll; worker_connections {connections}; }}\n\
         http {{\n  access_log off;\n  server_tokens off;\n  default_type \
         application/octet-stream;\n  sendfile on;\n  tcp_nopush on;\n  tcp_nodelay on;\n{}  \
         keepalive_timeout 1h;\n  keepalive_requests 1000000000;\n  \
         open_file_cache max=200000 inactive=1h;\n  open_file_cache_valid 1h;\n  \
         client_max_body_size 0;\n  client_body_buffer_size 1m;\n  client_body_timeout 1h;\n  \
         send_timeout 1h;\n",
        start.cores.len().max(1),
        affinity(&start.cores),
        if aio { "  aio threads;\n" } else { "" },
    );
    let _ = writeln!(text, "  client_body_temp_path {};", bodies.display());
    for kind in ["proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "  {kind}_temp_path {scratch}/{kind};");
    }
    let _ = write!(
        text,
        "  server {{\n    listen {listen};\n{}    root {};\n    \
         location / {{ dav_methods PUT; create_full_put_path on; }}\n  }}\n}}\n",
        tls(start),
        fixture.folder().display(),
    );
    text
}

fn listen(start: &Start, address: SocketAddr) -> String {
    let mut text = format!("{address} backlog=65535");
    if 1 < start.cores.len() {
        // One queue per worker: without it, one worker takes most connections.
        text.push_str(" reuseport");
    }
    if start.tls.is_some() {
        text.push_str(" ssl");
    }
    if start.h2 {
        text.push_str(" http2");
    }
    text
}

fn tls(start: &Start) -> String {
    start.tls.as_ref().map_or_else(String::new, |files| {
        format!(
            "    ssl_certificate {};\n    ssl_certificate_key {};\n    ssl_protocols TLSv1.3;\n    \
             ssl_prefer_server_ciphers off;\n    ssl_session_cache shared:tls:16m;\n    \
             http2_chunk_size 64k;\n",
            files.chain.display(),
            files.key.display()
        )
    })
}

/// One mask per worker, a bit per core, the highest first.
fn affinity(cores: &[usize]) -> String {
    if cores.is_empty() {
        return " auto".to_owned();
    }
    let width = cores.iter().max().map_or(1, |core| core + 1);
    let mask = |core: &usize| {
        let bits = (0..width).rev();
        let bits: String = bits
            .map(|bit| if bit == *core { '1' } else { '0' })
            .collect();
        format!(" {bits}")
    };
    cores.iter().map(mask).collect()
}

/// It runs.
#[derive(Debug)]
struct Server {
    daemon: Daemon,
    address: SocketAddr,
    _bodies: Bodies,
}

impl Running for Server {
    fn pids(&self) -> Vec<u32> {
        vec![self.daemon.pid()]
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn get(&self, fixture: &Fixture, file: FileId) -> Result<Call, Reason> {
        Ok(webdav::get(fixture, file))
    }

    fn put(&self, upload: &Upload) -> Result<Box<dyn Exchange>, Reason> {
        webdav::put(upload)
    }

    fn archive(&self, _: &str, _: u64, _: ArchiveKind) -> Result<Call, Reason> {
        Err(Reason::new(NO_ARCHIVES))
    }

    fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }
}

#[cfg(test)]
mod tests {
    use super::affinity;

    #[test]
    fn each_worker_has_a_core_of_its_own() {
        for (cores, want) in [
            (&[][..], " auto"),
            (&[0], " 1"),
            (&[1], " 10"),
            (&[0, 1], " 01 10"),
            (&[3, 0], " 1000 0001"),
        ] {
            assert_eq!(affinity(cores), want, "{cores:?}");
        }
    }
}
