//! `serve`: from nothing to a server that can be used, and back to nothing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use proxy_testkit::etcd::Etcd;
use proxy_testkit::redis::RedisServer;
use proxy_testkit::wait;
use rustix::process::Signal;

use crate::program::{BOUND, Home, Running, ended};

/// Any free ports: tests run beside each other.
const ANY_PORTS: [&str; 6] = [
    "--client-addr",
    "127.0.0.1:0",
    "--manager-addr",
    "127.0.0.1:0",
    "--internal-addr",
    "127.0.0.1:0",
];

/// The last line of the banner.
const READY: &str = " get demo:hello.txt ";

fn serve(home: &Home, more: &[&str]) -> Running {
    Running::start(home, &[&["serve"][..], &ANY_PORTS, more].concat())
}

/// The URL that the banner shows for a port.
fn url(banner: &str, port: &str) -> String {
    let line = banner.lines().find(|line| line.trim().starts_with(port));
    line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn the_banner_works_as_it_is_printed() {
    let home = Home::new();
    let mut server = serve(&home, &[]);
    let banner = server.says(READY);
    let commands: Vec<&str> = banner
        .lines()
        .filter(|line| line.contains("storage-proxy") && line.contains(" demo"))
        .collect();
    assert_eq!(commands.len(), 3, "{banner}");
    // Twice: a user who pastes them again sees no failure.
    for line in commands.iter().chain(&commands) {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", line]).env_clear().current_dir("/");
        let output = shell.env("HOME", home.path()).output().unwrap();
        assert!(output.status.success(), "{line}\n{output:?}");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.err());
}

#[test]
fn the_data_directory_is_private_and_left_tidy() {
    let home = Home::new();
    let mut server = serve(&home, &["--data-dir", "my data"]);
    let banner = server.says(READY);
    assert!(
        banner.contains("--data-dir '"),
        "a path with a blank is quoted: {banner}"
    );
    let data = home.path().join("my data");
    for (name, mode) in [
        ("", 0o700),
        ("secrets", 0o700),
        ("secrets/token-secret", 0o600),
        ("secrets/manager-secret", 0o600),
        ("runtime.json", 0o600),
        ("lock", 0o600),
    ] {
        let found = fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
    let secret = fs::read_to_string(data.join("secrets/manager-secret")).unwrap();
    let layout = fs::read_to_string(data.join("volumes/local/version.txt")).unwrap();
    assert_eq!(layout, "3\n");
    let health = home
        .run(&["health", "--data-dir", "my data", "--json"])
        .json();
    assert_eq!(health["status"], "ok");

    // A second server on the same data is told who has it.
    let pid = server.pid();
    let second = home.run(&[&["serve", "--data-dir", "my data"][..], &ANY_PORTS].concat());
    second.failed(1, &format!("is in use by process {pid}"));

    server.signal(Signal::INT);
    assert_eq!(server.wait().code(), Some(0), "{}", server.err());
    assert!(!data.join("runtime.json").exists());
    assert!(!server.out().contains(&secret) && !server.err().contains(&secret));
    home.run(&["health", "--data-dir", "my data"])
        .failed(1, "is the server running?");
    // The secrets stay the same.
    let mut again = serve(&home, &["--data-dir", "my data"]);
    again.says(READY);
    let kept = fs::read_to_string(data.join("secrets/manager-secret")).unwrap();
    assert_eq!(kept, secret);
}

#[test]
fn a_taken_port_names_its_owner() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    for (flag, port) in [
        ("--client-addr", "client port"),
        ("--manager-addr", "manager port"),
        ("--internal-addr", "internal port"),
    ] {
        let mut args = vec!["serve"];
        for pair in ANY_PORTS.chunks(2) {
            args.extend([pair[0], if pair[0] == flag { &at } else { pair[1] }]);
        }
        let me = std::process::id();
        home.run(&args)
            .failed(1, &format!("{port} {at} is taken by process {me} ("));
    }
}

#[test]
fn the_configuration_of_the_original_starts_unchanged() {
    let home = Home::new();
    let text = fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/halfstack.toml"),
    )
    .unwrap();
    // Nobody answers there: the server starts all the same.
    let text = text.replace("port = 2379", "port = 1");
    home.file("c/halfstack.toml", text.as_bytes());
    fs::create_dir_all(home.path().join("vfolder/local/volume1")).unwrap();
    let command = [
        "start-server",
        "-f",
        "c/halfstack.toml",
        "--log-level",
        "debug",
    ];
    let mut server = Running::start(&home, &[&command[..], &ANY_PORTS].concat());
    let banner = server.says(READY);
    assert!(banner.contains("--config "), "{banner}");
    let log = server.err();
    assert!(
        log.contains("etcd does not answer: the local configuration serves"),
        "{log}"
    );
    assert!(!log.contains("change-me"), "{log}");
    let made = home
        .run(&["mkdir", "demo", "-f", "c/halfstack.toml", "--json"])
        .json();
    assert_eq!(made["volume"], "volume1");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.err());
}

/// What the original's development cluster has in etcd is all that is needed.
#[test]
fn the_configuration_of_the_original_joins_its_fleet() {
    let Some(etcd) = Etcd::start() else { return };
    let Some(redis) = RedisServer::start() else {
        return;
    };
    etcd.put("/sorna/local/config/redis/addr", &redis.addr().to_string());
    etcd.put("/sorna/local/config/redis/password", "");
    let home = Home::new();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/halfstack.toml");
    let text = fs::read_to_string(file).unwrap();
    let port = format!("port = {}", etcd.address().port());
    home.file(
        "c/halfstack.toml",
        text.replace("port = 2379", &port).as_bytes(),
    );
    let command = ["start-server", "-f", "c/halfstack.toml"];
    let mut server = Running::start(&home, &[&command[..], &ANY_PORTS].concat());
    server.says(READY);
    let announced = || redis.keys(0, "service_discovery.storage-proxy.*").pop();
    let key = wait::until("announced", Duration::from_secs(20), announced);
    let name = redis.command(0, &["HGET", &key, "display_name"]).text();
    assert_eq!(name.as_deref(), Some("\"storage-i-storage-proxy-local\""));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.err());
    assert_eq!(announced(), None);
}

#[test]
fn logs_go_where_they_are_sent() {
    let home = Home::new();
    let text = "[logging]\ndrivers = [\"console\", \"file\"]\n[logging.console]\nformat = \
                \"json\"\n[logging.file]\npath = \"logs\"\nfilename = \"sp.log\"\n\
                [storage-proxy]\npid-file = \"sp.pid\"\n";
    home.file("c.toml", text.as_bytes());
    let mut server = serve(&home, &["-f", "c.toml"]);
    server.says(READY);
    let pid = fs::read_to_string(home.path().join("sp.pid")).unwrap();
    assert_eq!(pid.trim(), server.pid().to_string());
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!home.path().join("sp.pid").exists());
    let file = fs::read_to_string(home.path().join("logs/sp.log")).unwrap();
    // Each place writes its own time; everything else is the same.
    let records = |text: &str| -> Vec<serde_json::Value> {
        let record = |line: &str| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            let time = record.as_object_mut().unwrap().remove("timestamp");
            assert!(time.unwrap().as_str().unwrap().ends_with('Z'), "{line}");
            record
        };
        text.lines().map(record).collect()
    };
    assert_eq!(records(&file), records(&server.err()));
    assert!(
        file.contains("Started the storage-proxy service."),
        "{file}"
    );
}

/// A download that is under way: its head is read, its body is not.
fn slow_download(home: &Home, banner: &str) -> TcpStream {
    home.file("big.bin", &vec![7; 64 << 20]);
    home.run(&["mkdir", "demo"]).good();
    home.run(&["put", "big.bin", "demo:big.bin"]).good();
    let folder = &home.run(&["ls", "--json"]).json()["folders"][0];
    let secret = home
        .path()
        .join(".local/share/storage-proxy/secrets/manager-secret");
    let body = serde_json::json!({
        "volume": folder["volume"],
        "vfid": folder["vfid"],
        "relpath": "big.bin",
    })
    .to_string();
    let manager = url(banner, "manager").replace("http://", "");
    let mut ask = TcpStream::connect(&manager).unwrap();
    write!(
        ask,
        "POST /folder/file/download HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         X-BackendAI-Storage-Auth-Token: {}\r\nContent-Length: {}\r\n\r\n{body}",
        fs::read_to_string(secret).unwrap(),
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    ask.read_to_string(&mut answer).unwrap();
    let token = answer.split('"').nth(3).unwrap();
    let client = url(banner, "clients").replace("http://", "");
    let mut slow = TcpStream::connect(&client).unwrap();
    write!(
        slow,
        "GET /download?token={token} HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    .unwrap();
    let mut head = [0; 12];
    slow.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    slow
}

#[test]
fn a_drain_waits_for_a_transfer_and_a_second_signal_does_not() {
    let home = Home::new();
    let mut server = serve(&home, &[]);
    let banner = server.says(READY);
    let held = slow_download(&home, &banner);
    server.signal(Signal::TERM);
    wait::until("the drain", BOUND, || {
        server.err().contains("Shutting down").then_some(())
    });
    // The default bound of the drain is far away, so it is the second signal that ends it.
    server.signal(Signal::TERM);
    let status = server.wait();
    assert_eq!(status.code(), Some(128 + 15), "{:?}", status.signal());
    drop(held);
}

#[test]
fn a_drain_ends_when_its_time_is_over() {
    let home = Home::new();
    home.file(
        "storage-proxy.toml",
        b"[server]\ndrain-timeout = \"0.2s\"\n",
    );
    let data = home.path().join(".local/share/storage-proxy");
    let mut server = serve(&home, &[]);
    let banner = server.says(READY);
    let held = slow_download(&home, &banner);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.err());
    assert!(!data.join("runtime.json").exists());
    drop(held);
}

#[test]
fn tls_on_both_ports_is_met_by_the_client_commands() {
    let home = Home::new();
    let made = rcgen::generate_simple_self_signed(["storage.example.com".to_owned()]).unwrap();
    home.file("cert.pem", made.cert.pem().as_bytes());
    home.file("key.pem", made.signing_key.serialize_pem().as_bytes());
    let tls = "ssl-enabled = true\nssl-cert = \"cert.pem\"\nssl-privkey = \"key.pem\"\n";
    let text = format!("[api.client]\n{tls}[api.manager]\n{tls}");
    home.file("storage-proxy.toml", text.as_bytes());
    let mut server = serve(&home, &[]);
    let banner = server.says(READY);
    assert!(url(&banner, "clients").starts_with("https://"), "{banner}");
    assert!(url(&banner, "manager").starts_with("https://"), "{banner}");
    home.file("a.txt", b"hello");
    home.run(&["mkdir", "demo"]).good();
    home.run(&["put", "a.txt", "demo:"]).good();
    assert_eq!(home.run(&["get", "demo:a.txt", "-"]).good(), "hello");
    // Another certificate is not the server's, whatever it says.
    let other = rcgen::generate_simple_self_signed(["storage.example.com".to_owned()]).unwrap();
    home.file("cert.pem", other.cert.pem().as_bytes());
    home.run(&["ls", "demo"])
        .failed(1, "TLS with the manager port");
}

#[test]
fn trees_are_listed_and_removed_as_people_expect() {
    let home = Home::new();
    let mut server = serve(&home, &[]);
    server.says(READY);
    home.file("f", b"x");
    home.run(&["mkdir", "demo"]).good();
    home.run(&["mkdir", "demo:a/b"]).good();
    home.run(&["put", "f", "demo:a/b/"]).good();
    let items = home.run(&["ls", "demo:a/b", "--json"]).json();
    assert_eq!(items["items"][0]["name"], "f");
    home.run(&["rm", "demo:nothing"])
        .failed(1, "demo:nothing is not there");
    home.run(&["rm", "demo:a"])
        .failed(1, "demo:a is a directory and not empty");
    home.run(&["rm", "demo:a/b/f"]).good();
    home.run(&["rm", "demo:a/b"]).good();
    home.run(&["rm", "-r", "demo:a"]).good();
    assert_eq!(home.run(&["ls", "demo"]).good(), "");
    home.run(&["rm", "demo"]).failed(2, "say -r");
    home.run(&["rm", "-r", "demo"]).good();
    home.run(&["ls", "demo"])
        .failed(1, "there is no folder demo");
    home.run(&["get", "demo:x"])
        .failed(1, "there is no folder demo");
    assert_eq!(home.run(&["ls"]).good(), "");
    // A file that is not on the server leaves nothing here.
    home.run(&["mkdir", "demo"]).good();
    home.run(&["get", "demo:nothing"]).failed(1, "404");
    assert!(!home.path().join("nothing.part").exists());
    let output = home
        .command()
        .args(["put", "/dev/null", "demo:x"])
        .output()
        .unwrap();
    ended(output).failed(1, "is not a regular file");
}

#[test]
fn started_as_root_it_becomes_who_it_is_told_to_be() {
    if !rustix::process::geteuid().is_root() {
        return proxy_testkit::skip("only root can become somebody else");
    }
    let home = Home::new();
    // The other user has to pass through it.
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let text = "[storage-proxy]\nuser = 54321\ngroup = 54322\n[server]\ndata-dir = \"data\"\n";
    home.file("storage-proxy.toml", text.as_bytes());
    let mut server = serve(&home, &[]);
    server.says(READY);
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    for task in tasks.flatten() {
        let Ok(status) = fs::read_to_string(task.path().join("status")) else {
            continue;
        };
        for line in [
            "Uid:\t54321\t54321\t54321\t54321",
            "Gid:\t54322\t54322\t54322\t54322",
            "Groups:\t54322",
        ] {
            assert!(status.contains(line), "{line}\n{status}");
        }
    }
    home.file("f", b"x");
    home.run(&["mkdir", "demo"]).good();
    home.run(&["put", "f", "demo:"]).good();
    assert_eq!(home.run(&["get", "demo:f", "-"]).good(), "x");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.err());
}
