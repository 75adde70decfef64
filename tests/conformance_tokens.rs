//! Goal: tokens carry the claims of the contract, and only good ones open anything.
//! Method: minted tokens are taken apart; forged ones of every kind are tried on every route.
//!
//! Source: wire contract section 6; manager contract 5.6 to 5.8. Where ours differs from
//! upstream: `docs/semantics.md#tokens`.

use std::os::unix::fs::PermissionsExt;

use proxy_testkit::server::{TOKEN_SECRET, VOLUME};
use proxy_testkit::table::{Report, Want, answers, matches};
use proxy_testkit::tus::Upload;
use proxy_testkit::{Folder, Request, Response, Server, problem, token};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
/// Any session that was never minted.
const SESSION: &str = "0123456789abcdef0123456789abcdef";

fn minted(server: &Server, path: &str, body: &Value) -> Value {
    let answer = server.ask("POST", path, body).expect(200).json();
    assert_eq!(
        answer.as_object().map(serde_json::Map::len),
        Some(1),
        "{answer}"
    );
    token::claims(TOKEN_SECRET, answer["token"].as_str().expect("a token"))
}

fn keys(claims: &Value) -> Vec<&str> {
    claims
        .as_object()
        .expect("claims")
        .keys()
        .map(String::as_str)
        .collect()
}

fn assert_lives_a_day(claims: &Value) {
    let left = claims["exp"].as_u64().expect("integer seconds") as i64 - token::now() as i64;
    assert!((86_300..=86_500).contains(&left), "{left} s");
}

#[test]
fn a_download_token_has_the_claims_of_the_contract() {
    let server = Server::start(PROGRAM);
    let mut report = Report::default();
    let folder = Folder::unmade(&server);
    let paths = [
        ("a.txt", "a.txt"),
        ("", "."),
        (".", "."),
        ("./d//x/", "d/x"),
        ("../up", "../up"),
        ("한글 \"q\"", "한글 \"q\""),
        ("a\nb", "a\nb"),
    ];
    for (given, kept) in paths {
        let body = json!({
            "volume": "not checked", "vfid": folder.vfid.to_uppercase().replace("USER", "user"),
            "relpath": given, "archive": true, "unmanaged_path": "/etc",
        });
        let claims = minted(&server, "/folder/file/download", &body);
        let want = json!({
            "op": "download", "volume": "not checked", "vfid": folder.vfid, "relpath": kept,
            "exp": "<int>",
        });
        let order = keys(&claims) == keys(&want);
        let result = matches(&claims, &want, "claims")
            .and_then(|()| order.then_some(()).ok_or_else(|| format!("order {claims}")));
        report.note(given, result);
        assert_lives_a_day(&claims);
    }
    report.end("download tokens");
    server.finish();
}

#[test]
fn an_upload_token_comes_with_its_staging_file() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": "d/./up", "size": "7"});
    let claims = minted(&server, "/folder/file/upload", &body);
    assert_eq!(
        keys(&claims),
        ["op", "volume", "vfid", "relpath", "size", "session", "exp"]
    );
    assert_eq!(claims["op"], "upload");
    assert_eq!(claims["relpath"], "d/up");
    assert_eq!(claims["vfid"], folder.vfid);
    assert_eq!(claims["size"], 7);
    assert_lives_a_day(&claims);
    let session = claims["session"].as_str().expect("a session");
    assert!(
        session.len() == 32 && session.bytes().all(|b| b.is_ascii_hexdigit()),
        "{session}"
    );
    assert_eq!(folder.staged(), [session]);
    let staged = std::fs::metadata(folder.at(".upload").join(session)).expect("staged");
    assert_eq!(
        (staged.len(), staged.permissions().mode() & 0o777),
        (0, 0o644)
    );
    assert!(
        !folder.at("d").exists(),
        "nothing else is made before the last byte"
    );
    server.finish();
}

#[test]
fn minting_an_upload_refuses_what_could_never_be_finished() {
    // docs/semantics.md#minting: upstream checks nothing here (wire contract 10, items 1, 24, 41).
    let settings = proxy_testkit::Settings {
        proxy_lines: "max-upload-size = \"1m\"\n".to_owned(),
        ..Default::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    let mut report = Report::default();
    let cases: &[(&str, Value, Want)] = &[
        ("../x", json!(5), Want::Problem("InvalidSubpathError")),
        ("d1/../../x", json!(5), Want::Problem("InvalidSubpathError")),
        ("out_dir/x", json!(5), Want::Problem("InvalidSubpathError")),
        ("new", json!(-1), Want::Refused(400)),
        (
            "new",
            json!(1_048_577),
            Want::Any(&[Want::Refused(413), Want::Refused(400)]),
        ),
        (".", json!(5), Want::Refused(400)),
        ("", json!(5), Want::Refused(400)),
        ("d1/..", json!(5), Want::Refused(400)),
        (".upload/x", json!(5), Want::Refused(400)),
        (".upload", json!(5), Want::Refused(400)),
        ("d1", json!(5), Want::Refused(400)),
        ("a.txt/x", json!(5), Want::Refused(400)),
        ("n\u{0}m", json!(5), Want::Refused(400)),
    ];
    for (relpath, size, want) in cases {
        let folder = Folder::full(&server);
        let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": relpath, "size": size});
        let answer = server.ask("POST", "/folder/file/upload", &body);
        let none = folder.staged().is_empty().then_some(());
        let result = answers(&answer, *want, &str::to_owned)
            .and_then(|()| none.ok_or_else(|| "a staging file is left".to_owned()));
        report.note(
            &format!("{relpath:?} of {size}"),
            result.map_err(|w| format!("{w}\n{answer}")),
        );
    }
    let missing = Folder::unmade(&server);
    let body = json!({"volume": VOLUME, "vfid": missing.vfid, "relpath": "x", "size": 1});
    let answer = server.ask("POST", "/folder/file/upload", &body);
    report.note("no folder", problem::typed(&answer, "VFolderNotFoundError"));
    report.end("minting");
    server.finish();
}

#[test]
fn an_empty_file_is_there_when_its_token_is() {
    // docs/semantics.md#empty: neither client ever sends a PATCH for it (wire contract 10, 25).
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    for name in ["zero", "deep/er/zero", "a.txt"] {
        let upload = Upload::begin(&server, &folder, name, 0);
        assert_eq!(std::fs::read(folder.at(name)).expect(name), b"");
        let head = upload.head().expect(200);
        assert_eq!(head.header("Upload-Offset"), Some("0"));
        assert_eq!(head.header("Upload-Length"), Some("0"));
        let _ = upload.patch(0, b"").expect(204);
    }
    assert!(!folder.at(".upload").exists());
    server.finish();
}

#[test]
fn an_archive_token_keeps_its_files_as_they_were_given() {
    let server = Server::start(PROGRAM);
    let folder = Folder::unmade(&server);
    for route in [
        "/folder/file/archive-download-token",
        "/folder/file/download-archive",
    ] {
        for (filename, kept) in [
            (json!("내 것.zip"), json!("내 것.zip")),
            (Value::Null, Value::Null),
        ] {
            let body = json!({
                "volume": "not checked", "virtual_folder_id": folder.vfid,
                "files": ["./a//b", "/abs", ".."], "filename": filename,
            });
            let claims = minted(&server, route, &body);
            let want = json!({
                "operation": "download", "volume": "not checked",
                "virtual_folder_id": folder.vfid, "files": ["./a//b", "/abs", ".."],
                "filename": kept, "exp": "<int>",
            });
            matches(&claims, &want, "claims").expect(route);
            assert_eq!(keys(&claims), keys(&want));
            assert_lives_a_day(&claims);
        }
    }
    server.finish();
}

/// Ways to spoil a token; what the library of upstream says about it on `/download`.
const FORGED: &[(&str, &str)] = &[
    ("garbage", "Not enough segments"),
    ("two segments", "Not enough segments"),
    ("another secret", "Signature verification failed"),
    ("changed claims", "Signature verification failed"),
    ("no signature", "alg"),
    ("algorithm none", "alg"),
    ("algorithm HS512", "alg"),
    ("expired", "expired"),
    ("not yet valid", ""),
    ("an audience", ""),
    ("exp as text", ""),
    ("no exp", ""),
    ("empty secret", "Signature verification failed"),
    ("header is no object", ""),
    ("four segments", ""),
    ("padding", ""),
];

fn forge(claims: &Value, how: &str) -> String {
    let with = |key: &str, value: Value| {
        let mut claims = claims.clone();
        claims[key] = value;
        token::mint(TOKEN_SECRET, &claims)
    };
    let good = token::mint(TOKEN_SECRET, claims);
    let cut = |n: usize| good.split('.').take(n).collect::<Vec<_>>().join(".");
    match how {
        "garbage" => "garbage".to_owned(),
        "two segments" => cut(2),
        "another secret" => token::mint("another", claims),
        "empty secret" => token::mint("", claims),
        "changed claims" => {
            let other = with("volume", json!("other"));
            let body = other.split('.').nth(1).unwrap_or_default();
            let parts: Vec<&str> = good.split('.').collect();
            format!("{}.{body}.{}", parts[0], parts[2])
        }
        "no signature" => token::unsigned(claims),
        "algorithm none" => {
            token::mint_with(TOKEN_SECRET, &json!({"alg": "none", "typ": "JWT"}), claims)
        }
        "algorithm HS512" => {
            token::mint_with(TOKEN_SECRET, &json!({"alg": "HS512", "typ": "JWT"}), claims)
        }
        "expired" => with("exp", json!(token::now() - 10)),
        "not yet valid" => with("nbf", json!(token::now() + 1000)),
        "an audience" => with("aud", json!("someone")),
        "exp as text" => with("exp", json!("tomorrow")),
        "no exp" => {
            let mut claims = claims.clone();
            claims.as_object_mut().expect("claims").remove("exp");
            token::mint(TOKEN_SECRET, &claims)
        }
        "header is no object" => token::mint_with(TOKEN_SECRET, &json!(["HS256"]), claims),
        "four segments" => format!("{good}.x"),
        _ => format!("{good}=="),
    }
}

/// E2 with `data.token` a text of the library, or an object of claims.
fn token_refused(answer: &Response, says: &str) -> Result<(), String> {
    let data = problem::invalid_parameters(answer)?;
    let told = data["token"].as_str().unwrap_or_default();
    let known =
        data["token"].is_object() || told.starts_with("cannot decode the given value as JWT");
    if known && told.contains(says) {
        Ok(())
    } else {
        Err(format!("data.token is {}", data["token"]))
    }
}

#[test]
fn forged_tokens_open_neither_download_nor_upload() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let mut report = Report::default();
    folder.write(&format!(".upload/{SESSION}"), b"");
    for (how, says) in FORGED {
        let download = forge(&folder.download_claims("a.txt"), how);
        let answer =
            Request::new("GET", &format!("/download?token={download}")).send(server.client());
        let result = token_refused(&answer, says).map_err(|why| format!("{why}\n{answer}"));
        report.note(&format!("GET /download, {how}"), result);
        let upload = forge(&folder.upload_claims("new", 3, SESSION), how);
        let target = format!("/upload?token={upload}");
        let patch = Request::new("PATCH", &target)
            .header("Upload-Offset", "0")
            .body(b"abc");
        let answer = patch.send(server.client());
        let result = token_refused(&answer, says).map_err(|why| format!("{why}\n{answer}"));
        report.note(&format!("PATCH /upload, {how}"), result);
        let answer = Request::new("HEAD", &target).send(server.client());
        let result = (answer.status == 400)
            .then_some(())
            .ok_or_else(|| answer.to_string());
        report.note(&format!("HEAD /upload, {how}"), result);
    }
    assert!(!folder.at("new").exists());
    report.end("forged tokens");
    server.finish();
}

/// What `/download-archive` says to the same forgeries: wire contract 6.4.
fn archive_answer(how: &str) -> Want {
    const SIGNATURE: Want = Want::Problem("JWTInvalidSignatureError");
    const PAYLOAD: Want = Want::Problem("JWTPayloadValidationError");
    const DECODE: Want = Want::Problem("JWTDecodeError");
    match how {
        "another secret" | "changed claims" | "empty secret" => SIGNATURE,
        "expired" => Want::Problem("JWTExpiredError"),
        "no exp" => PAYLOAD,
        "garbage" | "two segments" => DECODE,
        // Upstream crashes or answers by its library's mood: ours may name any of the three.
        _ => Want::Any(&[DECODE, SIGNATURE, PAYLOAD]),
    }
}

#[test]
fn forged_tokens_open_no_archive() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let mut report = Report::default();
    for (how, _) in FORGED {
        let forged = forge(&folder.archive_claims(&["a.txt"]), how);
        let target = format!("/download-archive?token={forged}");
        let answer = Request::new("GET", &target).send(server.client());
        let result = answers(&answer, archive_answer(how), &str::to_owned);
        report.note(how, result.map_err(|why| format!("{why}\n{answer}")));
    }
    report.end("forged archive tokens");
    server.finish();
}

/// Claims that do not fit, by JSON text; the claim is removed when the text is empty.
const DOWNLOAD_MISFITS: &[(&str, &str)] = &[
    ("op", ""),
    ("op", "\"upload\""),
    ("volume", ""),
    ("volume", "5"),
    ("vfid", ""),
    ("vfid", "\"zz\""),
    ("relpath", ""),
    ("relpath", "5"),
    ("archive", "\"yes\""),
    ("unmanaged_path", "5"),
];
const UPLOAD_MISFITS: &[(&str, &str)] = &[
    ("op", ""),
    ("op", "\"download\""),
    ("volume", ""),
    ("vfid", "\"zz\""),
    ("relpath", "5"),
    ("size", ""),
    ("size", "\"many\""),
    ("size", "1.5"),
    ("session", ""),
    ("session", "5"),
];
const ARCHIVE_MISFITS: &[(&str, &str)] = &[
    ("operation", ""),
    ("operation", "\"remove\""),
    ("volume", ""),
    ("virtual_folder_id", "\"zz\""),
    ("files", ""),
    ("files", "[]"),
    ("files", "\"a\""),
    ("filename", "\"a/b\""),
    ("filename", "\"..\""),
    ("operation", "\"upload\""),
];

fn misfit(claims: &Value, key: &str, text: &str) -> String {
    let mut claims = claims.clone();
    let map = claims.as_object_mut().expect("claims");
    map.remove(key);
    if !text.is_empty() {
        map.insert(
            key.to_owned(),
            serde_json::from_str(text).expect("JSON in the table"),
        );
    }
    token::mint(TOKEN_SECRET, &claims)
}

#[test]
fn claims_that_do_not_fit_are_named() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let mut report = Report::default();
    for (key, text) in DOWNLOAD_MISFITS {
        let forged = misfit(&folder.download_claims("a.txt"), key, text);
        let answer =
            Request::new("GET", &format!("/download?token={forged}")).send(server.client());
        report.note(&format!("/download {key}={text}"), named(&answer, key));
    }
    for (key, text) in UPLOAD_MISFITS {
        let forged = misfit(&folder.upload_claims("n", 3, SESSION), key, text);
        let patch = Request::new("PATCH", &format!("/upload?token={forged}"));
        let answer = patch
            .header("Upload-Offset", "0")
            .body(b"abc")
            .send(server.client());
        report.note(&format!("/upload {key}={text}"), named(&answer, key));
    }
    for (key, text) in ARCHIVE_MISFITS {
        let forged = misfit(&folder.archive_claims(&["a.txt"]), key, text);
        let target = format!("/download-archive?token={forged}");
        let answer = Request::new("GET", &target).send(server.client());
        let result = problem::typed(&answer, "JWTPayloadValidationError");
        let result = result.map_err(|why| format!("{why}\n{answer}"));
        report.note(&format!("/download-archive {key}={text}"), result);
    }
    // A token of one kind opens nothing of another: other claim names, other operations.
    let other = token::mint(TOKEN_SECRET, &folder.download_claims("a.txt"));
    for (method, target) in [("GET", "/download-archive"), ("HEAD", "/upload")] {
        let answer = Request::new(method, &format!("{target}?token={other}")).send(server.client());
        let result = (answer.status == 400)
            .then_some(())
            .ok_or_else(|| answer.to_string());
        report.note(&format!("a download token on {target}"), result);
    }
    report.end("misfits");
    server.finish();
}

fn named(answer: &Response, claim: &str) -> Result<(), String> {
    let data = problem::invalid_parameters(answer).map_err(|why| format!("{why}\n{answer}"))?;
    let object = data["token"]
        .as_object()
        .ok_or_else(|| format!("data.token is {data}"))?;
    if object.contains_key(claim) {
        Ok(())
    } else {
        Err(format!("{claim} is not named: {data}"))
    }
}

/// Claims beside the contract's, or in other spellings, that upstream takes.
const LIBERAL: &[(&str, &str)] = &[
    ("archive", "true"),
    ("unmanaged_path", "null"),
    ("anything", "[1]"),
    ("relpath", "\"./a.txt\""),
    ("relpath", "\"d1/../a.txt\""),
    ("iat", "1"),
    ("nbf", "1"),
    ("iss", "\"x\""),
];

#[test]
fn tokens_minted_by_upstream_are_taken() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let mut report = Report::default();
    for (key, text) in LIBERAL {
        let minted = misfit(&folder.download_claims("a.txt"), key, text);
        let answer =
            Request::new("GET", &format!("/download?token={minted}")).send(server.client());
        let good = answer.status == 200 && answer.body == b"hello";
        report.note(
            &format!("{key}={text}"),
            good.then_some(()).ok_or_else(|| answer.to_string()),
        );
    }
    // A token of 26.2.0 has no `filename` at all.
    let old = misfit(&folder.archive_claims(&["a.txt"]), "filename", "");
    let answer =
        Request::new("GET", &format!("/download-archive?token={old}")).send(server.client());
    report.note(
        "26.2.0",
        (answer.status == 200)
            .then_some(())
            .ok_or_else(|| answer.to_string()),
    );
    report.end("liberal tokens");
    server.finish();
}

#[test]
fn a_token_ends_with_its_lifetime() {
    let settings = proxy_testkit::Settings {
        session_expire: "1s".to_owned(),
        ..Default::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    let folder = Folder::full(&server);
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": "a.txt"});
    let minted = server
        .ask("POST", "/folder/file/download", &body)
        .expect(200)
        .json();
    let target = format!(
        "/download?token={}",
        minted["token"].as_str().expect("a token")
    );
    let answer = proxy_testkit::wait::until("the end", std::time::Duration::from_secs(10), || {
        let answer = Request::new("GET", &target).send(server.client());
        (answer.status != 200).then_some(answer)
    });
    token_refused(&answer, "expired").expect("refused");
    server.finish();
}
