//! Goal: secrets are made once and never shown to others; one server at a time.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn secrets_are_made_once_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(&dir.path().join("a/b")).unwrap();
    let first = data.secrets(&Document::default()).unwrap();
    assert_eq!(first.token.as_bytes().len(), 2 * SECRET_BYTES);
    assert_ne!(first.token.as_bytes(), first.manager.as_bytes());
    let again = data.secrets(&Document::default()).unwrap();
    assert_eq!(again.token.as_bytes(), first.token.as_bytes());
    let manager = data.manager_secret(&Document::default()).unwrap();
    assert_eq!(manager.as_bytes(), first.manager.as_bytes());
    for (name, want) in [
        ("", 0o700),
        ("secrets", 0o700),
        ("secrets/token-secret", 0o600),
        ("secrets/manager-secret", 0o600),
    ] {
        assert_eq!(mode(&data.join(name)), want, "{name}");
    }
    let left = fs::read_dir(data.join("secrets")).unwrap().count();
    assert_eq!(left, 2, "no temporary file stays");
}

#[test]
fn configured_secrets_are_not_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    let text = "storage-proxy.secret = \"s\"\napi.manager.secret = \"m\"";
    let document = proxy_core::config::parse(text, &[]).unwrap();
    let secrets = data.secrets(&document).unwrap();
    assert_eq!(
        (secrets.token.as_bytes(), secrets.manager.as_bytes()),
        (&b"s"[..], &b"m"[..])
    );
    assert_eq!(fs::read_dir(data.join("secrets")).unwrap().count(), 0);
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    data.secrets(&Document::default()).unwrap();
    let path = data.join("secrets/token-secret");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let text = data.secrets(&Document::default()).unwrap_err().text;
    assert!(text.contains("has mode 644"), "{text}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, " \n").unwrap();
    let text = data.secrets(&Document::default()).unwrap_err().text;
    assert!(text.contains("is empty"), "{text}");
}

#[test]
fn a_directory_without_a_server_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::at(&dir.path().join("none"));
    let text = data.manager_secret(&Document::default()).unwrap_err().text;
    assert!(
        text.contains("start one with: storage-proxy serve"),
        "{text}"
    );
    assert_eq!(data.runtime(), None);
}

#[test]
fn the_lock_is_held_by_one_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    let lock = data.lock().unwrap();
    let text = data.lock().unwrap_err().text;
    let pid = format!("is in use by process {}", std::process::id());
    assert!(text.contains(&pid), "{text}");
    drop(lock);
    data.lock().unwrap();
}

#[test]
fn runtime_is_written_read_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    let runtime = Runtime {
        pid: std::process::id(),
        version: "v".into(),
        client: "http://127.0.0.1:1".into(),
        manager: "http://127.0.0.1:2".into(),
        internal: "http://127.0.0.1:3".into(),
    };
    data.write_runtime(&runtime).unwrap();
    assert_eq!(data.runtime(), Some(runtime));
    assert_eq!(mode(&data.join("runtime.json")), 0o600);
    data.remove_runtime();
    assert_eq!(data.runtime(), None);
}
