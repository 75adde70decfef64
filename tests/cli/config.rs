//! `config check`, `show` and `default`, and the pages that are made from the key table.

use std::fs;
use std::path::Path;

use crate::program::Home;

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn check_generated(args: &[&str], file: &str) {
    let want = Home::new().run(args).good();
    let have = std::fs::read_to_string(root().join(file)).unwrap_or_default();
    let command = args.join(" ");
    assert!(
        have == want,
        "{file} is stale: storage-proxy {command} > {file}"
    );
}

#[test]
fn generated_pages_are_fresh() {
    check_generated(
        &["config", "default", "--format", "markdown"],
        "docs/configuration.md",
    );
    check_generated(&["config", "default"], "configs/sample.toml");
}

#[test]
fn our_own_files_are_good() {
    let home = Home::new();
    for name in ["halfstack", "standalone", "sample", "fleet", "hpc"] {
        let file = root().join("configs").join(format!("{name}.toml"));
        let file = file.to_str().unwrap();
        let text = home.run(&["config", "check", "-f", file]).good();
        assert!(text.ends_with(" is good\n"), "{name}: {text}");
        assert!(!text.contains("unknown"), "{name}: {text}");
    }
}

#[test]
fn wrong_files_end_with_every_problem() {
    let home = Home::new();
    home.file(
        "bad.toml",
        b"[storage-proxy]\nsecert = \"hunter2\"\nnum-proc = 0\n",
    );
    for command in [&["config", "check"][..], &["serve"], &["config", "show"]] {
        let ended = home.run(&[command, &["-f", "bad.toml"]].concat());
        assert!(!ended.err.contains("hunter2"), "{}", ended.err);
        let says = "has 2 problems:\n  line 2: storage-proxy.secert: unknown key; did you mean \
                    storage-proxy.secret?\n  line 3: storage-proxy.num-proc: 0 is less than 1; \
                    allowed: whole number, 1 to 4096";
        ended.failed(1, says);
    }
    let ended = home.run(&["config", "check", "-f", "bad.toml", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(report["good"], false);
    assert_eq!(report["issues"][0]["suggestion"], "storage-proxy.secret");
    ended.failed(1, "has 2 problems");
}

#[test]
fn files_that_are_not_there_are_wrong_usage() {
    let home = Home::new();
    home.run(&["serve", "-f", "gone.toml"])
        .failed(2, "there is no configuration file");
    home.run(&["serve", "--no-such-flag"])
        .failed(2, "unexpected argument");
    home.run(&["serve", "--log-level", "loud"])
        .failed(2, "not a log level");
    home.run(&[]).failed(2, "Usage: storage-proxy");
}

#[test]
fn files_are_found_in_the_usual_places() {
    let home = Home::new();
    let file = |report: &serde_json::Value| report["file"].as_str().map(str::to_owned);
    let check = ["config", "check", "--json"];
    let report = home.run(&check).json();
    assert_eq!(
        (file(&report), report["fleet"].as_str()),
        (None, Some("standalone"))
    );

    let usual = home.file(".config/backend.ai/storage-proxy.toml", b"");
    assert_eq!(file(&home.run(&check).json()).as_deref(), usual.to_str());
    let near = home.file("storage-proxy.toml", b"[server]\ndata-dir = \"d\"\n");
    let report = home.run(&check).json();
    assert_eq!(file(&report).as_deref(), near.to_str());
    assert_eq!(report["data_dir"].as_str(), home.path().join("d").to_str());

    let asked = home.file("sub/asked.toml", b"[server]\ndata-dir = \"../x\"\n");
    let output = home
        .command()
        .args(check)
        .env("BACKEND_CONFIG_FILE", &asked)
        .output()
        .unwrap();
    let report = crate::program::ended(output).json();
    assert_eq!(file(&report).as_deref(), asked.to_str());
    for flag in ["-f", "--config", "--config-path"] {
        let args = ["config", "check", "--json", flag, "sub/asked.toml"];
        assert_eq!(file(&home.run(&args).json()).as_deref(), asked.to_str());
    }
}

#[test]
fn what_is_shown_has_origins_and_no_secrets() {
    let home = Home::new();
    let text =
        b"[storage-proxy]\nsecret = \"hunter2\"\nscandir_limit = 7\n[debug]\nasyncio = true\n";
    home.file("c.toml", text);
    let mut command = home.command();
    command.args(["config", "show", "-f", "c.toml"]);
    command.env("STORAGE_PROXY_CONF_SERVER__LIMITS__RANGES_MAX", "8");
    let shown = crate::program::ended(command.output().unwrap()).good();
    for line in [
        "secret = \"***\"  # line 2",
        "scandir-limit = 7  # line 3",
        "asyncio = true  # line 5, no effect",
        "ranges-max = \"8\"  # STORAGE_PROXY_CONF_SERVER__LIMITS__RANGES_MAX",
        "archive-entries-max = 1000000  # default",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert!(!shown.contains("hunter2"));
    let json = home
        .run(&["config", "show", "-f", "c.toml", "--json"])
        .json();
    assert!(!json.to_string().contains("hunter2"));
}

#[test]
fn announced_endpoints_are_derived_from_addresses() {
    let home = Home::new();
    let text = "[api.client]\nservice-addr = { host = \"10.0.0.1\", port = 6021 }\n[api.manager]\n\
                service-addr = \"0.0.0.0:6022\"\nannounce-addr = \"10.0.0.1:6022\"\n\
                internal-addr = \"10.0.0.1:16023\"\n";
    home.file("c.toml", text.as_bytes());
    let migrate = |more: &[&str]| {
        let command = ["config", "migrate", "service-discovery", "-i", "c.toml"];
        home.run(&[&command, more].concat())
    };
    let read = |name: &str| fs::read_to_string(home.path().join(name)).unwrap();
    let shown = migrate(&[]).good();
    assert_eq!(shown, migrate(&["--append", "--dry-run"]).good());
    assert_eq!(read("c.toml"), text);
    migrate(&["-o", "out.toml"]).good();
    assert_eq!(read("out.toml"), shown);
    let told = migrate(&["--append", "--json"]).json();
    let row = |role: &str, scope: &str, address: &str, port: u16| {
        serde_json::json!({
            "role": role, "scope": scope, "address": address, "port": port, "protocol": "http",
        })
    };
    let want = [
        row("api", "cluster", "10.0.0.1", 6022),
        row("client-api", "cluster", "10.0.0.1", 6021),
        row("client-api", "container", "10.0.0.1", 16023),
    ];
    assert_eq!(told["endpoints"], serde_json::Value::from(want.to_vec()));
    assert_eq!(read("c.toml"), format!("{text}\n{shown}"));
    home.run(&["config", "check", "-f", "c.toml"]).good();
    migrate(&[]).failed(1, "has 3 service-discovery.endpoints already; say --force");
    assert_eq!(migrate(&["--force"]).good(), shown);
}

#[test]
fn the_originals_commands_do_what_scripts_expect() {
    let home = Home::new();
    let sample = home.path().join("configs/storage-proxy/sample.toml");
    home.run(&["config", "generate-sample"]).good();
    let first = fs::read_to_string(&sample).unwrap();
    assert!(first.contains("[storage-proxy]"), "{first}");
    fs::write(&sample, "mine").unwrap();
    // As with the original: told, and no failure.
    home.run(&["config", "generate-sample", "-e", "local"])
        .good();
    assert_eq!(fs::read_to_string(&sample).unwrap(), "mine");
    home.run(&[
        "config",
        "generate-sample",
        "--overwrite",
        "--unmask-secrets",
    ])
    .good();
    assert_eq!(fs::read_to_string(&sample).unwrap(), first);
    home.run(&["-f", "no.toml", "dependencies", "verify"])
        .failed(2, "there is no configuration file");

    fs::create_dir(home.path().join("v")).unwrap();
    let text = "[volume.v1]\nbackend = \"vfs\"\npath = \"v\"\n";
    home.file("storage-proxy.toml", text.as_bytes());
    let verified = home
        .run(&["dependencies", "verify", "--no-timestamps"])
        .good();
    assert!(verified.contains("Failed: 0"), "{verified}");
    let health = home
        .run(&["health", "check", "--log-level", "WARNING"])
        .good();
    assert!(health.contains("Overall Status: HEALTHY"), "{health}");
    fs::remove_dir(home.path().join("v")).unwrap();
    let ended = home.run(&["health", "check", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (ended.code, &told["overall_healthy"]),
        (Some(1), &false.into())
    );
    assert_eq!(told["checks"][0]["component_id"], "v1");
}
