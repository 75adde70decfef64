//! Where a storage system shows snapshots in every directory, no client gets there: not by a
//! path, not by the place of an upload, not by a link.

use std::fs;

use proxy_testkit::folder::SECRET;
use proxy_testkit::server::{TOKEN_SECRET, VOLUME};
use proxy_testkit::tus::Upload;
use proxy_testkit::{Folder, Request, Server, token};
use serde_json::{Value, json};

/// Tries every door; `name` is where snapshots are, and `<name>/s/f` holds the secret in `folder`.
pub fn is_closed(server: &Server, folder: &Folder, name: &str) {
    std::os::unix::fs::symlink(format!("{name}/s"), folder.at("into")).expect("a link");
    std::os::unix::fs::symlink(".", folder.at("here")).expect("a link");
    folder.write("a/plain", b"plain");
    let before = fs::read_dir(folder.at(name)).expect("snapshots").count();
    let dirs = [
        format!("{name}/s"),
        name.to_owned(),
        format!("a/../{name}/s"),
        format!("here/{name}/s"),
        format!("a/{name}"),
        "into".to_owned(),
    ];
    for dir in &dirs {
        uploads(server, folder, dir);
        downloads(server, folder, dir);
        if dir != "into" {
            manager(server, folder, dir);
        }
    }
    let whole = format!(
        "/download?token={}&archive=true",
        folder.download_token(".")
    );
    let answer = Request::new("GET", &whole)
        .send(server.client())
        .expect(200);
    assert!(
        !answer.text().contains(SECRET),
        "in the archive of the folder"
    );
    let after = fs::read_dir(folder.at(name)).expect("snapshots").count();
    assert_eq!(after, before, "nothing was made there");
    assert_eq!(
        fs::read_to_string(folder.at("a/plain")).expect("kept"),
        "plain"
    );
}

fn uploads(server: &Server, folder: &Folder, dir: &str) {
    let body = json!({
        "volume": VOLUME, "vfid": folder.vfid, "relpath": format!("{dir}/new"), "size": 5,
    });
    let minted = server.ask("POST", "/folder/file/upload", &body);
    assert_eq!(minted.status, 400, "{dir}: {minted}");
    let upload = Upload::begin(server, folder, "new", 5);
    let target = format!("{}&dst_dir={dir}", upload.target());
    let new = |method: &str| Request::new(method, &target);
    for (door, request) in [
        ("POST", new("POST").header("Upload-Length", "5")),
        (
            "PATCH",
            new("PATCH").header("Upload-Offset", "0").body(b"bytes"),
        ),
        (
            "PUT",
            new("PUT")
                .header("Content-Range", "bytes 0-4/5")
                .body(b"bytes"),
        ),
    ] {
        let answer = request.send(server.client());
        assert_eq!(answer.status, 400, "{door} into {dir}: {answer}");
    }
    assert_eq!(upload.offset(), 0);
    assert_eq!(
        Request::new("DELETE", &upload.target())
            .send(server.client())
            .status,
        204
    );
    let empty = Upload::begin(server, folder, "empty", 0);
    let answer = Request::new("PATCH", &format!("{}&dst_dir={dir}", empty.target()));
    let answer = answer
        .header("Upload-Offset", "0")
        .body(b"")
        .send(server.client());
    assert_eq!(answer.status, 400, "an empty file into {dir}: {answer}");
}

fn downloads(server: &Server, folder: &Folder, dir: &str) {
    let get = |target: String| Request::new("GET", &target).send(server.client());
    let file = folder.download_token(&format!("{dir}/f"));
    let bare = folder.download_token("f");
    let tree = folder.download_token(dir);
    for target in [
        format!("/download?token={file}"),
        format!("/download?token={bare}&dst_dir={dir}"),
        format!("/download?token={tree}&archive=true"),
    ] {
        let answer = get(target);
        assert_eq!(answer.status, 404, "{dir}: {answer}");
        assert!(!answer.text().contains(SECRET));
    }
    for file in [dir.to_owned(), format!("{dir}/f")] {
        let claims = folder.archive_claims(&[file.as_str()]);
        let token = token::mint(TOKEN_SECRET, &claims);
        let answer = get(format!("/download-archive?token={token}"));
        assert_eq!(answer.status, 400, "{file}: {answer}");
    }
}

fn manager(server: &Server, folder: &Folder, dir: &str) {
    let file = format!("{dir}/f");
    let rows: [(&str, Value, u16); 10] = [
        ("list", json!({"relpath": dir}), 400),
        ("page", json!({"relpath": dir}), 400),
        ("mkdir", json!({"relpath": format!("{dir}/made")}), 422),
        ("rename", json!({"relpath": file, "new_name": "g"}), 400),
        (
            "move",
            json!({"src_relpath": file, "dst_relpath": "g"}),
            400,
        ),
        (
            "move",
            json!({"src_relpath": "a/plain", "dst_relpath": file}),
            400,
        ),
        (
            "move",
            json!({"src_relpath": "a/plain", "dst_relpath": dir}),
            400,
        ),
        ("delete", json!({"relpaths": ["a/plain", file]}), 400),
        ("delete", json!({"relpaths": [dir], "recursive": true}), 400),
        // What is not to be seen is empty here, as what is missing.
        ("fetch", json!({"relpath": file}), 200),
    ];
    for (route, more, status) in rows {
        let mut body = json!({"volume": VOLUME, "vfid": folder.vfid});
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        let answer = server.ask("POST", &format!("/folder/file/{route}"), &body);
        assert_eq!(answer.status, status, "{route} {body}: {answer}");
        assert!(!answer.text().contains(SECRET), "{route} {body}");
    }
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "subpath": dir});
    let answer = server.ask("GET", "/folder/mount", &body);
    assert_eq!(answer.status, 400, "{answer}");
    // A name on its way to be one of those.
    let name = dir.split('/').next().unwrap_or_default();
    if name.starts_with('.') {
        let rename = json!({
            "volume": VOLUME, "vfid": folder.vfid, "relpath": "a", "new_name": name,
        });
        let answer = server.ask("POST", "/folder/file/rename", &rename);
        assert_eq!(answer.status, 400, "{answer}");
    }
}
