//! Goal: nothing outside a vfolder is ever read, written, deleted or revealed, whatever a
//! client writes into a path and whatever links a container has left in the folder.
//! Method: a table of hostile paths through every route that takes one; races with directories
//! swapped for links; on the file system of the tests and on XFS.
//!
//! Source: wire contract 4, 10.1, 11.8; `docs/semantics.md#containment`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proxy_testkit::folder::{SECRET, picture};
use proxy_testkit::http::escape;
use proxy_testkit::server::{TOKEN_SECRET, VOLUME};
use proxy_testkit::table::{Report, contained};
use proxy_testkit::testbed::Testbed;
use proxy_testkit::tus::Upload;
use proxy_testkit::{Folder, Request, Response, Server, Settings, skip, token, wait};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const SESSION: &str = "0123456789abcdef0123456789abcdef";

/// Hostile paths. `{out}` stands for the path of the directory outside, `{up}` for as
/// many `..` as lead from the folder to the root, `{own}` for the folder's own path.
const HOSTILE: &[&str] = &[
    "..",
    "../",
    "../.",
    "../..",
    "../x",
    "../../../../../../../../etc/passwd",
    "{up}{out}/secret",
    "d1/../../x",
    "d1/sub/../../../x",
    "d1/..//../x",
    "./../x",
    "././.././x",
    "in_dir/../../x",
    "in_dir/../..",
    "out/../x",
    "out_dir/..",
    "out_dir/../secret",
    "out_dir/secret",
    "out_dir",
    "out",
    "out_rel",
    "to_root",
    "to_root/{out}/secret",
    "to_parent",
    "to_parent/x",
    "to_proc",
    "to_proc/1/root/{out}/secret",
    "to_self_root/{out}/secret",
    "to_fd",
    "chain1",
    "chain_dir/secret",
    "loop",
    "loop/x",
    "dangling_out",
    "dangling_out/x",
    "to_dev",
    "{own}/../x",
    "%2e%2e/x",
    "..%2fx",
    "%2e%2e%2fx",
    "..\\x",
    "..\\..\\x",
    "....//x",
    "..;/x",
    "\u{ff0e}\u{ff0e}/x",
    "a\u{0}b",
    "\u{0}",
    "d1\u{0}/../../x",
    "x/\u{0}/..",
    "~",
    "~root",
    "$HOME/x",
    "`id`",
    "con",
    "nul",
    "a:b",
    "LONG",
    "LONG/x",
    "DEEP",
    "MANY",
    " ",
    "\t",
    "\n",
    "\u{202e}x",
];
/// Absolute paths: refused by grammar where JSON comes from the Manager, by resolution where a
/// token or `dst_dir` brings them.
const ABSOLUTE: &[&str] = &[
    "/",
    "//",
    "/etc/passwd",
    "//etc/passwd",
    "/{out}/secret",
    "/{own}/a.txt/../../x",
];

fn fill(path: &str, server: &Server, folder: &Folder) -> String {
    let bare = |path: &Path| {
        path.display()
            .to_string()
            .trim_start_matches('/')
            .to_owned()
    };
    match path {
        "LONG" => "n".repeat(256),
        "LONG/x" => format!("{}/x", "n".repeat(300)),
        "DEEP" => "d/".repeat(2100),
        "MANY" => "../".repeat(1500),
        _ => path
            .replace("{up}", &"../".repeat(folder.path.components().count()))
            .replace("{out}", &bare(&server.outside()))
            .replace("{own}", &bare(&folder.path)),
    }
}

/// A full folder with more hostile links, all of which a container user could make.
fn trapped(server: &Server) -> Folder {
    let folder = Folder::full(server);
    let outside = server.outside();
    let links: &[(&str, PathBuf)] = &[
        ("to_root", "/".into()),
        ("to_parent", "..".into()),
        ("to_proc", "/proc".into()),
        ("to_self_root", "/proc/self/root".into()),
        ("to_fd", "/proc/self/fd/0".into()),
        ("to_dev", "/dev/zero".into()),
        ("chain1", "chain2".into()),
        ("chain2", "d1/chain3".into()),
        ("d1/chain3", outside.join("secret")),
        ("chain_dir", outside.join("dir")),
        ("dangling_out", outside.join("new-by-link")),
    ];
    for (name, target) in links {
        symlink(target, folder.at(name)).expect("a link");
    }
    folder.write(&format!(".upload/{SESSION}"), b"");
    folder
}

/// A route that takes a path: its name, and how it is asked with one.
type Route = (&'static str, fn(&Server, &Folder, &str) -> Vec<Response>);

fn ask(server: &Server, folder: &Folder, path: &str, more: Value) -> Vec<Response> {
    let mut body = json!({"volume": VOLUME, "vfid": folder.vfid});
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    let method = if path == "/folder/mount" {
        "GET"
    } else {
        "POST"
    };
    vec![server.ask(method, path, &body)]
}

fn download(server: &Server, token: &str, query: &str) -> Vec<Response> {
    let target = format!("/download?token={token}{query}");
    vec![Request::new("GET", &target).send(server.client())]
}

fn patch(server: &Server, folder: &Folder, relpath: &str, query: &str) -> Vec<Response> {
    let token = token::mint(TOKEN_SECRET, &folder.upload_claims(relpath, 3, SESSION));
    let request = Request::new("PATCH", &format!("/upload?token={token}{query}"));
    vec![
        request
            .header("Upload-Offset", "0")
            .body(b"abc")
            .send(server.client()),
    ]
}

const ROUTES: &[Route] = &[
    ("mkdir", |s, f, p| {
        ask(s, f, "/folder/file/mkdir", json!({"relpath": p}))
    }),
    ("mkdir of many", |s, f, p| {
        ask(
            s,
            f,
            "/folder/file/mkdir",
            json!({"relpath": ["ok", p], "exist_ok": true}),
        )
    }),
    ("list", |s, f, p| {
        ask(s, f, "/folder/file/list", json!({"relpath": p}))
    }),
    ("fetch", |s, f, p| {
        ask(s, f, "/folder/file/fetch", json!({"relpath": p}))
    }),
    ("rename", |s, f, p| {
        ask(
            s,
            f,
            "/folder/file/rename",
            json!({"relpath": p, "new_name": "n"}),
        )
    }),
    ("rename to", |s, f, p| {
        ask(
            s,
            f,
            "/folder/file/rename",
            json!({"relpath": "a.txt", "new_name": p}),
        )
    }),
    ("move from", |s, f, p| {
        ask(
            s,
            f,
            "/folder/file/move",
            json!({"src_relpath": p, "dst_relpath": "n"}),
        )
    }),
    ("move to", |s, f, p| {
        ask(
            s,
            f,
            "/folder/file/move",
            json!({"src_relpath": "a.txt", "dst_relpath": p}),
        )
    }),
    ("delete", |s, f, p| {
        ask(
            s,
            f,
            "/folder/file/delete",
            json!({"relpaths": [p], "recursive": true}),
        )
    }),
    ("delete-async", |s, f, p| {
        ask(
            s,
            f,
            "/folder/file/delete-async",
            json!({"relpaths": [p], "recursive": true}),
        )
    }),
    ("mount", |s, f, p| {
        ask(s, f, "/folder/mount", json!({"subpath": p}))
    }),
    ("mint and download", |s, f, p| {
        let minted = ask(s, f, "/folder/file/download", json!({"relpath": p}));
        match serde_json::from_slice::<Value>(&minted[0].body) {
            Ok(body) if minted[0].status == 200 => {
                download(s, body["token"].as_str().unwrap_or_default(), "")
            }
            _ => minted,
        }
    }),
    ("download", |s, f, p| download(s, &f.download_token(p), "")),
    ("download as archive", |s, f, p| {
        if p.contains("to_dev") {
            return Vec::new();
        }
        download(s, &f.download_token(p), "&archive=true")
    }),
    ("download by dst_dir", |s, f, p| {
        download(
            s,
            &f.download_token("secret"),
            &format!("&dst_dir={}", escape(p)),
        )
    }),
    ("selection", |s, f, p| {
        let token = token::mint(TOKEN_SECRET, &f.archive_claims(&[p]));
        let target = format!("/download-archive?token={token}");
        vec![Request::new("GET", &target).send(s.client())]
    }),
    ("selection after a good one", |s, f, p| {
        let token = token::mint(TOKEN_SECRET, &f.archive_claims(&["a.txt", p]));
        let target = format!("/download-archive?token={token}");
        vec![Request::new("GET", &target).send(s.client())]
    }),
    ("mint an upload", |s, f, p| {
        let size = json!({"relpath": p, "size": 3});
        let minted = ask(s, f, "/folder/file/upload", size);
        match serde_json::from_slice::<Value>(&minted[0].body) {
            Ok(body) if minted[0].status == 200 => {
                let token = body["token"].as_str().unwrap_or_default().to_owned();
                let upload = Upload {
                    to: s.client(),
                    token,
                    size: 3,
                };
                vec![upload.patch(0, b"abc")]
            }
            _ => minted,
        }
    }),
    ("mint an empty upload", |s, f, p| {
        ask(
            s,
            f,
            "/folder/file/upload",
            json!({"relpath": p, "size": 0}),
        )
    }),
    ("forged upload", |s, f, p| patch(s, f, p, "")),
    ("upload by dst_dir", |s, f, p| {
        patch(s, f, "n", &format!("&dst_dir={}", escape(p)))
    }),
];

/// Everything beneath the volume but the folder itself, and everything outside.
fn surroundings(server: &Server, folder: &Folder) -> String {
    let mut text = picture(&server.outside());
    for line in picture(&server.volume(VOLUME)).lines() {
        let own = line.starts_with(&*folder.path.display().to_string());
        if !own {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn tried(server: &Server, route: &Route, path: &str) -> Result<(), String> {
    let folder = trapped(server);
    let neighbour = folder.path.with_file_name("0000000000000000000000000001");
    std::fs::create_dir(&neighbour).expect("a neighbour");
    std::fs::write(neighbour.join("secret"), SECRET).expect("a neighbour's file");
    let before = surroundings(server, &folder);
    let outside = picture(&server.outside());
    let path = fill(path, server, &folder);
    let result = route.1(server, &folder, &path)
        .iter()
        .try_for_each(|answer| {
            // What the client said itself may be said back to it.
            let mut told = answer.clone();
            told.body = answer.text().replace(&path, "").into_bytes();
            contained(server, &told, &outside)
                .and_then(|()| match answer.status {
                    500.. => Err("a server error".to_owned()),
                    _ => Ok(()),
                })
                .map_err(|why| format!("{why}\n{answer}"))
        });
    let after = surroundings(server, &folder);
    std::fs::remove_dir_all(folder.path.ancestors().nth(3).expect("scope")).expect("removed");
    result?;
    if after == before {
        Ok(())
    } else {
        Err(format!("surroundings changed to\n{after}"))
    }
}

fn tables_on(root: Option<&Path>) {
    let settings = Settings {
        root: root.map(Path::to_path_buf),
        ..Default::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    let mut report = Report::default();
    for route in ROUTES {
        for path in HOSTILE.iter().chain(ABSOLUTE) {
            let shown = path.escape_debug();
            report.note(
                &format!("{} of {shown}", route.0),
                tried(&server, route, path),
            );
        }
    }
    report.end("hostile paths");
    server.finish();
}

#[test]
fn no_path_leaves_the_folder() {
    tables_on(None);
}

#[test]
fn no_path_leaves_the_folder_on_xfs() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    match Testbed::up(&tests, "xfs", &[]) {
        Ok(bed) => {
            tables_on(Some(bed.mount()));
            races_on(Some(bed.mount()), Duration::from_secs(5));
        }
        Err(reason) => skip(reason),
    }
}

/// Folder ids that are paths: `H` stands for 32 hex digits, `S` for a scope.
const IDS: &[&str] = &[
    "../../../etc",
    "S/../../H",
    "S/..",
    "/H",
    "//H",
    "S//H",
    "S/H/..",
    "S/H/../..",
    "../H",
    "user:../H",
    "user:../../H/H",
    "S/H\u{0}",
    "S/./H",
    "S/%2e%2e",
    "H/..",
    ".",
    "..",
    "",
    "/",
];

#[test]
fn no_identifier_is_a_path() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let hex = folder
        .vfid
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let before = picture(server.dir());
    let mut report = Report::default();
    for id in IDS {
        let vfid = id.replace('S', &folder.qsid).replace('H', &hex);
        let body = json!({"volume": VOLUME, "vfid": vfid});
        for (method, path, more) in [
            ("POST", "/folder/create", json!({})),
            ("POST", "/folder/delete", json!({})),
            ("GET", "/folder/mount", json!({})),
            ("GET", "/folder/usage", json!({})),
            ("POST", "/folder/file/list", json!({"relpath": ""})),
            (
                "POST",
                "/folder/file/upload",
                json!({"relpath": "x", "size": 1}),
            ),
        ] {
            let mut body = body.clone();
            for (key, value) in more.as_object().into_iter().flatten() {
                body[key] = value.clone();
            }
            let answer = server.ask(method, path, &body);
            let result = (answer.status == 400)
                .then_some(())
                .ok_or_else(|| answer.to_string());
            report.note(&format!("{path} of {id:?}"), result);
        }
        let mut claims = folder.download_claims("a.txt");
        claims["vfid"] = json!(vfid);
        let answer = &download(&server, &token::mint(TOKEN_SECRET, &claims), "")[0];
        let result = (answer.status == 400)
            .then_some(())
            .ok_or_else(|| answer.to_string());
        report.note(&format!("download of {id:?}"), result);
    }
    for volume in [
        "..",
        "../volume2",
        "/etc",
        "volume1/..",
        "volume1\u{0}",
        ".",
    ] {
        let body = json!({"volume": volume, "vfid": folder.vfid, "relpath": ""});
        let answer = server.ask("POST", "/folder/file/list", &body);
        let result = (answer.status == 400)
            .then_some(())
            .ok_or_else(|| answer.to_string());
        report.note(&format!("volume {volume:?}"), result);
    }
    report.end("identifiers");
    let strip = |text: String| -> String {
        text.lines()
            .filter(|l| !l.contains("/state") && !l.contains("/log"))
            .collect()
    };
    assert_eq!(strip(picture(server.dir())), strip(before));
    server.finish();
}

#[test]
fn an_unmanaged_path_opens_nothing() {
    // docs/semantics.md#unmanaged: wire contract 10, item 6.
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    for root in [server.outside(), PathBuf::from("/"), PathBuf::from("/etc")] {
        let mut claims = folder.download_claims("secret");
        claims["unmanaged_path"] = json!(root.display().to_string());
        let answer = &download(&server, &token::mint(TOKEN_SECRET, &claims), "")[0];
        assert!((400..500).contains(&answer.status), "{answer}");
        assert!(!answer.text().contains(SECRET));
    }
    server.finish();
}

/// While one thread swaps a directory for a link outward, everything that reads or writes
/// through it is asked again and again. Allowed: the inner file, or a refusal.
fn races_on(root: Option<&Path>, length: Duration) {
    let settings = Settings {
        root: root.map(Path::to_path_buf),
        ..Default::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    let folder = Folder::full(&server);
    folder.write("swap/secret", b"inner");
    folder.write("swap/deep/secret", b"inner");
    std::fs::create_dir_all(server.outside().join("deep")).expect("outside");
    std::fs::write(server.outside().join("deep/secret"), SECRET).expect("outside");
    symlink(server.outside(), folder.at("evil")).expect("a link");
    let outside = picture(&server.outside());
    let over = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !over.load(Ordering::Relaxed) {
                let (a, b) = (folder.at("swap"), folder.at("evil"));
                let _ = renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
            }
        });
        let end = Instant::now() + length;
        let mut rounds = 0;
        let mut wrong = None;
        while Instant::now() < end && wrong.is_none() {
            rounds += 1;
            wrong = race_round(&server, &folder, rounds, &outside).err();
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(wrong, None, "after {rounds} rounds");
        rounds
    });
    assert!(10 < rounds, "{rounds} rounds are no race");
    assert_eq!(picture(&server.outside()), outside);
    server.finish();
}

fn race_round(server: &Server, folder: &Folder, n: u32, outside: &str) -> Result<(), String> {
    let fresh = format!("swap/new{n}");
    let mut answers = Vec::new();
    answers.extend(download(server, &folder.download_token("swap/secret"), ""));
    answers.extend(download(
        server,
        &folder.download_token("swap/deep/secret"),
        "",
    ));
    answers.extend(ask(
        server,
        folder,
        "/folder/file/fetch",
        json!({"relpath": "swap/secret"}),
    ));
    answers.extend(ask(
        server,
        folder,
        "/folder/file/list",
        json!({"relpath": "swap"}),
    ));
    answers.extend(ask(
        server,
        folder,
        "/folder/file/mkdir",
        json!({"relpath": fresh}),
    ));
    let gone = json!({"relpaths": ["swap/deep/secret"], "recursive": true});
    answers.extend(ask(server, folder, "/folder/file/delete", gone));
    let size = json!({"relpath": format!("swap/up{n}"), "size": 3});
    for minted in ask(server, folder, "/folder/file/upload", size) {
        if minted.status == 200 {
            let token = minted.json()["token"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            answers.push(
                Upload {
                    to: server.client(),
                    token,
                    size: 3,
                }
                .patch(0, b"abc"),
            );
        } else {
            answers.push(minted);
        }
    }
    let token = token::mint(TOKEN_SECRET, &folder.archive_claims(&["swap"]));
    let target = format!("/download-archive?token={token}");
    // A cut archive is allowed: the tree changed under it.
    let archive = proxy_testkit::Connection::open(server.client())
        .and_then(|mut c| c.ask(&Request::new("GET", &target)));
    answers.extend(archive.ok());
    for answer in &answers {
        let inner = contained(server, answer, outside);
        inner.map_err(|why| format!("{why}\n{answer}"))?;
    }
    Ok(())
}

#[test]
fn a_directory_swapped_for_a_link_gives_nothing_away() {
    let seconds = proxy_testkit::env_number("STORAGE_TEST_RACE_SECONDS", 10);
    races_on(None, Duration::from_secs(seconds));
}

#[test]
fn deletion_and_clone_of_a_folder_follow_no_swapped_link() {
    let server = Server::start(PROGRAM);
    let length = Duration::from_secs(5);
    let end = Instant::now() + length;
    let mut rounds = 0;
    while Instant::now() < end {
        rounds += 1;
        let folder = Folder::full(&server);
        for n in 0..20 {
            folder.write(&format!("swap/d{n}/secret"), b"inner");
        }
        symlink(server.outside(), folder.at("evil")).expect("a link");
        let outside = picture(&server.outside());
        let copy = Folder::unmade(&server);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                while !over.load(Ordering::Relaxed) {
                    let (a, b) = (folder.at("swap"), folder.at("evil"));
                    let _ = renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
                }
            });
            let clone = json!({
                "src_volume": VOLUME, "src_vfid": folder.vfid, "dst_volume": null,
                "dst_vfid": copy.vfid,
            });
            let _ = server.ask("POST", "/folder/clone", &clone).expect(200);
            let body = json!({"volume": VOLUME, "vfid": folder.vfid});
            let _ = server.ask("POST", "/folder/delete", &body).expect(202);
            let gone = wait::within(Duration::from_secs(20), || {
                (!folder.path.exists()).then_some(())
            });
            over.store(true, Ordering::Relaxed);
            assert!(gone.is_some(), "the folder is still there");
        });
        assert_eq!(picture(&server.outside()), outside);
        assert!(
            !picture(&server.volume(VOLUME)).contains(SECRET),
            "copied from outside"
        );
    }
    assert!(0 < rounds);
    server.finish();
}
