//! What the configuration says about this machine, looked up on this machine.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use proxy_core::config::{Account, HostPort, Issue};

use super::{Addresses, Identity, TlsFiles, volumes};
use crate::accounts::{self, User};
use crate::failure::plain;
use crate::host;
use crate::load::Loaded;

/// What was found.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Where to listen.
    pub addresses: Addresses,
    /// Files of the client port, if it speaks TLS.
    pub client_tls: Option<TlsFiles>,
    /// Files of the manager port, if it speaks TLS.
    pub manager_tls: Option<TlsFiles>,
    /// Content of the files of TLS towards etcd.
    pub etcd_tls: Option<proxy_fleet::etcd::Tls>,
    /// Whom to become.
    pub identity: Option<Identity>,
    /// Data-plane threads.
    pub data_threads: usize,
    /// Things to look at some day.
    pub warnings: Vec<String>,
}

/// Looks up names, files and numbers that the configuration refers to.
///
/// # Errors
/// Everything that is not there and without which the server cannot start.
pub fn look(loaded: &Loaded) -> Result<Outside, Vec<Issue>> {
    let mut issues = Vec::new();
    let mut warnings = Vec::new();
    let mut address = |path: &str| {
        let configured = loaded.document.host_port(path);
        resolve(&configured).unwrap_or_else(|what| {
            issues.push(Issue::new(path, what));
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
        })
    };
    let addresses = Addresses {
        client: address("api.client.service-addr"),
        manager: address("api.manager.service-addr"),
        internal: address("api.manager.internal-addr"),
    };
    let client_tls = tls(loaded, "api.client", &mut issues);
    let manager_tls = tls(loaded, "api.manager", &mut issues);
    let etcd_tls = super::fleet::etcd_tls(loaded, &mut issues);
    super::fleet::check_redis(loaded, &mut issues);
    super::fleet::check_manager(loaded, &mut issues);
    let identity = identity(loaded, &mut issues);
    let data_threads = data_threads(loaded, &mut warnings);
    missing_volumes(loaded, &mut warnings);
    if issues.is_empty() {
        Ok(Outside {
            addresses,
            client_tls,
            manager_tls,
            etcd_tls,
            identity,
            data_threads,
            warnings,
        })
    } else {
        Err(issues)
    }
}

/// The first address of a name. An empty host is every interface, of both families if the
/// machine has both.
fn resolve(at: &HostPort) -> Result<SocketAddr, String> {
    if at.host.is_empty() {
        let ipv6 = PathBuf::from("/proc/net/if_inet6").exists();
        let every = if ipv6 {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        return Ok(SocketAddr::new(every, at.port));
    }
    let mut found = (at.host.as_str(), at.port)
        .to_socket_addrs()
        .map_err(|error| format!("cannot resolve {:?}: {}", at.host, plain(&error)))?;
    found
        .next()
        .ok_or_else(|| format!("{:?} has no address", at.host))
}

fn tls(loaded: &Loaded, side: &str, issues: &mut Vec<Issue>) -> Option<TlsFiles> {
    let document = &loaded.document;
    let mut file = |part: &str| {
        let path = format!("{side}.{part}");
        let file = loaded.path(document.text(&path, &[]).filter(|text| !text.is_empty())?);
        // A file that is named must be there, also while TLS is off: as with the original.
        let opened = File::open(&file).and_then(|file| file.metadata());
        match opened {
            Ok(found) if found.is_file() => {}
            Ok(_) => issues.push(Issue::new(
                path,
                format!("{} is not a file", file.display()),
            )),
            Err(error) => {
                issues.push(Issue::new(
                    path,
                    format!("{}: {}", file.display(), plain(&error)),
                ));
            }
        }
        Some(file)
    };
    let (cert, key) = (file("ssl-cert"), file("ssl-privkey"));
    let enabled = document.flag(&format!("{side}.ssl-enabled"));
    if enabled {
        Some(TlsFiles {
            cert: cert?,
            key: key?,
        })
    } else {
        None
    }
}

/// Whom to become. Names must exist in any case; only root can become somebody.
fn identity(loaded: &Loaded, issues: &mut Vec<Issue>) -> Option<Identity> {
    let user = loaded.document.account("storage-proxy.user");
    let group = loaded.document.account("storage-proxy.group");
    let user = match user {
        None | Some(Account::Current) => None,
        Some(Account::Id(uid)) => {
            // A number needs no entry; its group is then the one of the same number.
            Some(accounts::user_by_id(uid).unwrap_or(User {
                name: None,
                uid,
                gid: uid,
            }))
        }
        Some(Account::Name(name)) => {
            let found = accounts::user_by_name(&name);
            if found.is_none() {
                issues.push(Issue::new(
                    "storage-proxy.user",
                    format!("there is no user {name:?}"),
                ));
            }
            found
        }
    };
    let gid = match group {
        None | Some(Account::Current) => None,
        Some(Account::Id(gid)) => Some(gid),
        Some(Account::Name(name)) => {
            let found = accounts::group_by_name(&name);
            if found.is_none() {
                let what = format!("there is no group {name:?}");
                issues.push(Issue::new("storage-proxy.group", what));
            }
            found
        }
    };
    if !rustix::process::geteuid().is_root() || (user.is_none() && gid.is_none()) {
        return None;
    }
    let uid = user.as_ref().map_or(0, |user| user.uid);
    let gid = gid.unwrap_or_else(|| user.as_ref().map_or(0, |user| user.gid));
    let name = user.and_then(|user| user.name);
    let groups = name.map_or_else(Vec::new, |name| accounts::groups_of(&name));
    Some(Identity { uid, gid, groups })
}

/// One per CPU, fewer if asked for; more is cut down.
fn data_threads(loaded: &Loaded, warnings: &mut Vec<String>) -> usize {
    let cpus = host::cpus();
    let of = |path: &'static str| loaded.document.int_if_set(path).map(|count| (path, count));
    let Some((path, asked)) = of("server.threads").or_else(|| of("storage-proxy.num-proc")) else {
        return cpus;
    };
    let asked = usize::try_from(asked).unwrap_or(usize::MAX);
    if cpus < asked {
        let cut = format!("{path}: {asked} threads for {cpus} CPUs, cut down to {cpus}");
        warnings.push(cut);
    }
    asked.min(cpus)
}

fn missing_volumes(loaded: &Loaded, warnings: &mut Vec<String>) {
    if !loaded.document.has_section("volume") {
        return;
    }
    for volume in volumes(loaded) {
        if volume.backend != "noop" && !volume.path.is_dir() {
            let path = volume.path.display();
            warnings.push(format!(
                "volume.{}.path: {path} is not a directory",
                volume.name
            ));
        }
    }
}
