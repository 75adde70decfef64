//! Mounting on request of the fleet: asked for over Redis, done by the keeper of mounts, while the
//! server itself has given up root's rights.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use proxy_testkit::redis::RedisServer;
use proxy_testkit::wait;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::program::{BOUND, Home, Running};

const SCOPE: &str = "user:01234567-89ab-cdef-0123-456789abcdef";
const USER: u32 = 54321;

/// Messages on the channel of the fleet, as they come.
struct Channel(BufReader<TcpStream>);

impl Channel {
    fn open(redis: &RedisServer) -> Self {
        let mut stream = TcpStream::connect(redis.addr()).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream.write_all(b"SUBSCRIBE events_all\r\n").unwrap();
        let mut channel = Self(BufReader::new(stream));
        channel.line_with(":1");
        channel
    }

    fn line_with(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "redis is gone");
            if line.contains(what) {
                return line;
            }
        }
    }

    /// The named members of the next event of this name.
    fn event(&mut self, name: &str) -> Value {
        let line = self.line_with(&format!("\"{name}\""));
        let message: Value = serde_json::from_str(line.trim()).unwrap();
        serde_json::from_str(message["payload"].as_str().unwrap()).unwrap()
    }
}

fn publish(redis: &RedisServer, name: &str, payload: &Value) {
    let message = json!({
        "name": name, "source": "agent", "metadata": "{}", "payload": payload.to_string(),
    });
    redis.command(0, &["PUBLISH", "events_all", &message.to_string()]);
}

/// Undoes what a test that failed has left.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Processes whose parent this is, with their command lines.
fn children(of: u32) -> Vec<(u32, String)> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let found = processes.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent: u32 = stat.rsplit(')').next()?.split(' ').nth(2)?.parse().ok()?;
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        (parent == of).then_some((pid, line.replace('\0', " ")))
    });
    found.collect()
}

fn uid_of(pid: u32) -> u32 {
    fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

fn configuration(home: &Home, redis: &RedisServer) {
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(home.path().join("v")).unwrap();
    fs::set_permissions(home.path().join("v"), fs::Permissions::from_mode(0o755)).unwrap();
    home.file("fstab", b"# none\n");
    let text = format!(
        "[storage-proxy]\nnode-id = \"i-mounts\"\nsecret = \"s\"\nuse-watcher = true\n\
         user = {USER}\ngroup = {USER}\n[api.manager]\nsecret = \"m\"\n\
         [server]\ndata-dir = \"data\"\n\
         [server.helper]\nfs-types = [\"tmpfs\"]\nmount-options = [\"size\"]\nfstab = \"fstab\"\n\
         [volume.hammerspace]\nbackend = \"vfs\"\npath = \"v\"\n\
         [redis]\naddr = \"{}\"\n",
        redis.addr()
    );
    home.file("storage-proxy.toml", text.as_bytes());
}

fn asked(dir_name: &str, fs_type: &str, fstab: &Path) -> Value {
    json!({
        "dir_name": dir_name, "volume_backend_name": "hammerspace", "quota_scope_id": SCOPE,
        "fs_location": "memory", "fs_type": fs_type, "cmd_options": "size=1m",
        "scaling_group": null, "edit_fstab": true, "fstab_path": fstab,
    })
}

/// Waits until the server says that it reaches the keeper and Redis.
fn await_health(home: &Home) {
    wait::until("health of all", BOUND, || {
        let health = home.run(&["health", "--json"]).out;
        let health: Value = serde_json::from_str(&health).ok()?;
        let checks = health
            .pointer("/connectivity/connectivity_checks")?
            .as_array()?;
        let good = |group: &str| {
            let of = checks
                .iter()
                .filter(|check| check["service_group"] == group);
            of.clone().count() > 0 && of.into_iter().all(|check| check["is_healthy"] == true)
        };
        (good("mounts") && good("redis")).then_some(())
    });
}

#[test]
fn what_the_fleet_asks_for_is_mounted_by_the_keeper_alone() {
    if !rustix::process::geteuid().is_root() {
        return proxy_testkit::skip("only root can start a keeper of mounts");
    }
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let home = Home::new();
    configuration(&home, &redis);
    let ports = ["--client-addr", "--manager-addr", "--internal-addr"];
    let ports: Vec<&str> = ports.into_iter().flat_map(|p| [p, "127.0.0.1:0"]).collect();
    let mut server = Running::start(&home, &[&["serve"][..], &ports].concat());
    server.says("data");
    let (pid, line) = children(server.pid()).pop().expect("a keeper");
    assert!(line.contains("privileged-helper"), "{line}");
    assert_eq!((uid_of(server.pid()), uid_of(pid)), (USER, 0));
    await_health(&home);

    let mut channel = Channel::open(&redis);
    let (at, fstab) = (home.path().join("v/scope"), home.path().join("fstab"));
    let _undo = Unmount(at.clone());
    publish(&redis, "do_volume_mount", &asked("scope", "tmpfs", &fstab));
    let told = channel.event("volume_mounted");
    assert_eq!(told["err_msg"], Value::Null, "{told}\n{}", server.err());
    assert_eq!(told["node_id"], "i-mounts");
    assert_eq!(told["node_type"], "storage_proxy");
    assert_eq!(told["quota_scope_id"], SCOPE);
    assert_eq!(told["mount_path"], at.to_str().unwrap());
    let found = fs::metadata(&at).unwrap();
    assert_eq!((found.uid(), found.gid()), (USER, USER));
    assert_ne!(found.dev(), fs::metadata(home.path()).unwrap().dev());
    assert!(fs::read_to_string(&fstab).unwrap().contains("memory"));

    // What the configuration does not allow is told, and changes nothing.
    publish(&redis, "do_volume_mount", &asked("other", "ext4", &fstab));
    let told = channel.event("volume_mounted");
    assert!(
        told["err_msg"].as_str().unwrap().contains("fs-types"),
        "{told}"
    );
    publish(&redis, "do_volume_mount", &asked("/etc", "tmpfs", &fstab));
    let told = channel.event("volume_mounted");
    assert!(
        told["err_msg"].as_str().unwrap().contains("not below"),
        "{told}"
    );

    let unmount = json!({
        "dir_name": "scope", "volume_backend_name": "hammerspace", "quota_scope_id": SCOPE,
        "scaling_group": null, "edit_fstab": true, "fstab_path": null,
    });
    publish(&redis, "do_volume_unmount", &unmount);
    let told = channel.event("volume_unmounted");
    assert_eq!(told["err_msg"], Value::Null, "{told}");
    let here = fs::metadata(home.path()).unwrap().dev();
    assert_eq!(fs::metadata(&at).unwrap().dev(), here);
    assert_eq!(fs::read_to_string(&fstab).unwrap(), "# none\n");
    publish(&redis, "do_volume_unmount", &unmount);
    let told = channel.event("volume_unmounted");
    assert!(
        told["err_msg"].as_str().unwrap().contains("not mounted"),
        "{told}"
    );

    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.err());
    wait::until("the end of the keeper", BOUND, || {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline"));
        (!line.is_ok_and(|line| line.contains("privileged-helper"))).then_some(())
    });
}

#[test]
fn a_keeper_needs_root_and_a_configuration_of_roots() {
    let home = Home::new();
    let path = home.file(
        "storage-proxy.toml",
        b"[storage-proxy]\nuse-watcher = true\n",
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let (code, says) = match rustix::process::geteuid().is_root() {
        true => (1, "can be changed by others than root"),
        // Its input is no socket.
        false => (1, "keeper of mounts"),
    };
    home.run(&["privileged-helper"]).failed(code, says);
}
